//! The records in a transaction that writes, and what leads to them.

use std::collections::BTreeMap;

use ::redb::{AccessGuard, Key as TableKey, ReadableTable, Table, TableDefinition, Value, WriteTransaction};

use super::error::{storage, table};
use super::tables::{EXPIRY, Home, KEYS, KeyHash, QUIET, RECORDS, hash_of, in_flight_name, place_of, record_of};
use crate::key::Key;
use crate::record::Record;
use crate::store::{Change, Cursor, StoreError};

/// `counters`, open: the rows of what is in flight are there.
pub(super) type Counters<'txn> = Table<'txn, &'static [u8], &'static [u8]>;

/// A record and where it stands.
pub(super) struct Found {
    pub(super) record: Record,
    seq: u64,
    home: Home,
}

/// The records and their indexes. What is in flight is in `counters`, which is open all the time.
pub(super) struct Rows<'txn> {
    records: Lazy<'txn, u64, &'static [u8]>,
    /// Rows for `records`, by place. They are written at the end, in order of arrival: redb leaves a page full for what comes
    /// behind all others, and cuts it in halves for what comes between.
    for_records: BTreeMap<u64, Vec<u8>>,
    keys: Lazy<'txn, &'static KeyHash, u64>,
    expiry: Index<'txn>,
    quiet: Index<'txn>,
}

impl<'txn> Rows<'txn> {
    pub(super) fn new(txn: &'txn WriteTransaction) -> Self {
        Self {
            records: Lazy::new(txn, RECORDS),
            for_records: BTreeMap::new(),
            keys: Lazy::new(txn, KEYS),
            expiry: Index(Lazy::new(txn, EXPIRY)),
            quiet: Index(Lazy::new(txn, QUIET)),
        }
    }

    /// The record that the change is about: where it was listed, or else through the index.
    pub(super) fn find(&mut self, counters: &Counters<'_>, change: &Change) -> Result<Option<Found>, StoreError> {
        let key = &change.key;
        if let Some(Cursor(seq)) = change.listed_at {
            match self.at(counters, seq, key) {
                // Another's place, or one where nothing is.
                Err(StoreError::Quarantined) => (),
                found => return found.map(Some),
            }
        }
        match place_of(self.keys.open()?, key)? {
            Some(seq) => self.at(counters, seq, key).map(Some),
            None => Ok(None),
        }
    }

    /// The record of `key`, which stands at this place. Looks among those in flight first: most changes are about one of them,
    /// and need not look into `records`.
    fn at(&mut self, counters: &Counters<'_>, seq: u64, key: &Key) -> Result<Found, StoreError> {
        let in_flight = counters.get(in_flight_name(seq).as_slice()).map_err(storage)?;
        let home = match in_flight.as_ref().map(AccessGuard::value) {
            None => Home::Records,
            Some([]) => Home::Both,
            row @ Some(_) => return Ok(Found { record: record_of(row, key)?, seq, home: Home::Counters }),
        };
        let record = match self.for_records.get(&seq) {
            Some(row) => record_of(Some(row), key)?,
            None => {
                let row = self.records.open()?.get(seq).map_err(storage)?;
                record_of(row.as_ref().map(AccessGuard::value), key)?
            }
        };
        Ok(Found { record, seq, home })
    }

    pub(super) fn insert(
        &mut self,
        counters: &mut Counters<'_>,
        seq: u64,
        key: &Key,
        (record, row): (&Record, Vec<u8>),
    ) -> Result<(), StoreError> {
        self.put_row(counters, Home::of(record, &row), seq, row)?;
        self.keys.open()?.insert(&hash_of(key), seq).map_err(storage)?;
        self.index(seq, None, Some(record))
    }

    pub(super) fn replace(
        &mut self,
        counters: &mut Counters<'_>,
        found: &Found,
        (record, row): (&Record, Vec<u8>),
    ) -> Result<(), StoreError> {
        let home = Home::of(record, &row);
        self.leave(counters, found, Some(home))?;
        self.put_row(counters, home, found.seq, row)?;
        self.index(found.seq, Some(&found.record), Some(record))
    }

    pub(super) fn remove(&mut self, counters: &mut Counters<'_>, found: &Found, key: &Key) -> Result<(), StoreError> {
        self.leave(counters, found, None)?;
        self.keys.open()?.remove(&hash_of(key)).map_err(storage)?;
        self.index(found.seq, Some(&found.record), None)
    }

    /// To be called behind the last change.
    pub(super) fn finish(mut self) -> Result<(), StoreError> {
        if self.for_records.is_empty() {
            return Ok(());
        }
        let records = self.records.open()?;
        for (seq, row) in self.for_records {
            records.insert(seq, row.as_slice()).map_err(storage)?;
        }
        Ok(())
    }

    fn put_row(&mut self, counters: &mut Counters<'_>, home: Home, seq: u64, row: Vec<u8>) -> Result<(), StoreError> {
        if home.is_in_counters() {
            let row = if home.is_in_records() { &[] } else { row.as_slice() };
            counters.insert(in_flight_name(seq).as_slice(), row).map_err(storage)?;
        }
        if home.is_in_records() {
            self.for_records.insert(seq, row);
        }
        Ok(())
    }

    /// Takes the row out of the tables that are not its `next` home.
    fn leave(&mut self, counters: &mut Counters<'_>, found: &Found, next: Option<Home>) -> Result<(), StoreError> {
        let leaves = |is_in: fn(Home) -> bool| is_in(found.home) && !next.is_some_and(is_in);
        if leaves(Home::is_in_counters) {
            counters.remove(in_flight_name(found.seq).as_slice()).map_err(storage)?;
        }
        if leaves(Home::is_in_records) {
            self.for_records.remove(&found.seq);
            self.records.open()?.remove(found.seq).map_err(storage)?;
        }
        Ok(())
    }

    /// Moves the entries of the indexes that the change touches, and no others: an entry that stays costs no page.
    fn index(&mut self, seq: u64, old: Option<&Record>, new: Option<&Record>) -> Result<(), StoreError> {
        let removable = |record: Option<&Record>| record.and_then(Record::removable_at).map(|at| (at.0, seq));
        self.expiry.move_entry(removable(old), removable(new))?;
        let lapses = |record: Option<&Record>| record.and_then(Record::lapse_tick).map(|tick| (tick, seq));
        self.quiet.move_entry(lapses(old), lapses(new))
    }
}

/// A table that is opened when it is needed: a transaction pays for each one that it opens, used or not.
struct Lazy<'txn, K: TableKey + 'static, V: Value + 'static> {
    txn: &'txn WriteTransaction,
    definition: TableDefinition<'static, K, V>,
    table: Option<Table<'txn, K, V>>,
}

impl<'txn, K: TableKey + 'static, V: Value + 'static> Lazy<'txn, K, V> {
    fn new(txn: &'txn WriteTransaction, definition: TableDefinition<'static, K, V>) -> Self {
        Self { txn, definition, table: None }
    }

    fn open(&mut self) -> Result<&mut Table<'txn, K, V>, StoreError> {
        match &mut self.table {
            Some(table) => Ok(table),
            none => Ok(none.insert(self.txn.open_table(self.definition).map_err(table)?)),
        }
    }
}

/// An index by time or by tick.
struct Index<'txn>(Lazy<'txn, (u64, u64), ()>);

impl Index<'_> {
    fn move_entry(&mut self, old: Option<(u64, u64)>, new: Option<(u64, u64)>) -> Result<(), StoreError> {
        if old == new {
            return Ok(());
        }
        let index = self.0.open()?;
        if let Some(entry) = old {
            index.remove(entry).map_err(storage)?;
        }
        if let Some(entry) = new {
            index.insert(entry, ()).map_err(storage)?;
        }
        Ok(())
    }
}
