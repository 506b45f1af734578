//! One batch in one transaction: every change is decided before its first write, since redb takes no single write back.

use std::collections::BTreeMap;

use ::redb::{Table, TableDefinition, WriteTransaction};

use super::error::{storage, table};
use super::ledger::Ledger;
use super::open::Contents;
use super::tables::{
    CLOCK_MARK, COUNTERS, EXPIRY, FORMAT, FORMAT_KEY, Found, GENERATION, IN_FLIGHT, KEYS, KeyHash, LEDGER,
    LEDGER_EXPIRY, META, QUIET, RECORDS, TICK_MARK, TOTALS, damaged, encode_totals, find, hash_of, read_counter,
    read_totals, scope_counter,
};
use crate::key::Key;
use crate::record::Record;
use crate::store::codec::encode_row;
use crate::store::decide::{Current, decide, row_writes};
use crate::store::{Batch, Change, StoreError, Totals, Verdict};

/// What a batch came to.
pub(super) struct Applied {
    pub(super) verdicts: Vec<Verdict>,
    /// Whether there is anything to commit.
    pub(super) wrote: bool,
}

/// Writes the batch into the transaction. New records get their places from `next_seq` on; a place that is given out and
/// not committed stays a gap, which harms nothing.
pub(super) fn apply(txn: &WriteTransaction, batch: &Batch, contents: &mut Contents) -> Result<Applied, StoreError> {
    let is_old = contents.is_old;
    let mut work = Work {
        rows: Rows::open(txn)?,
        counters: Counters::open(txn)?,
        ledger: Ledger::new(txn),
        batch,
        next_seq: &mut contents.next_seq,
        wrote: false,
    };
    let verdicts = batch.changes.iter().map(|change| work.change(change)).collect::<Result<_, _>>()?;
    for expired in &batch.expired_rows {
        work.wrote |= work.ledger.remove_expired(expired)?;
    }
    let wrote = work.counters.finish(batch, work.wrote)?;
    // Tables that the batch has opened can't be opened once more.
    drop((work.rows, work.ledger));
    if is_old && wrote {
        raise_format(txn)?;
    }
    Ok(Applied { verdicts, wrote })
}

/// From here on the file holds what older versions can't read, and has every table.
fn raise_format(txn: &WriteTransaction) -> Result<(), StoreError> {
    txn.open_table(QUIET).map_err(table)?;
    txn.open_table(LEDGER).map_err(table)?;
    txn.open_table(LEDGER_EXPIRY).map_err(table)?;
    let mut meta = txn.open_table(META).map_err(table)?;
    meta.insert(FORMAT_KEY, FORMAT.to_be_bytes().as_slice()).map_err(storage)?;
    Ok(())
}

struct Work<'txn, 'seq> {
    rows: Rows<'txn>,
    counters: Counters<'txn>,
    ledger: Ledger<'txn>,
    batch: &'seq Batch,
    next_seq: &'seq mut u64,
    wrote: bool,
}

impl Work<'_, '_> {
    fn change(&mut self, change: &Change) -> Result<Verdict, StoreError> {
        let found = match find(&self.rows.keys, &self.rows.records, &change.key) {
            Err(StoreError::Quarantined) => return Ok(Verdict::Quarantined),
            found => found?,
        };
        let rows = match self.ledger.find(change) {
            Err(StoreError::Quarantined) => return Ok(Verdict::Quarantined),
            rows => rows?,
        };
        let current = found.as_ref().map(|found| &found.record);
        let records_in_scope = self.counters.scope(change.key.scope())?.now;
        if let Err(verdict) = decide(change, &Current { record: current, records_in_scope, rows: &rows }, self.batch) {
            return Ok(verdict);
        }
        for (key, write) in row_writes(change, &rows) {
            self.ledger.write(&key, &write)?;
            self.wrote = true;
        }
        let row = change.put.as_deref().map(|record| encode_row(&change.key, record)).transpose()?;
        match (&found, change.put.as_deref().zip(row)) {
            (None, None) => return Ok(Verdict::Applied),
            (None, Some((record, row))) => {
                self.rows.insert(*self.next_seq, &change.key, record, &row)?;
                *self.next_seq = self.next_seq.saturating_add(1);
            }
            (Some(found), Some((record, row))) => self.rows.replace(found, record, &row)?,
            (Some(found), None) => self.rows.remove(found, &change.key)?,
        }
        self.counters.count(change.key.scope(), current, change.put.as_deref())?;
        self.wrote = true;
        Ok(Verdict::Applied)
    }
}

/// The records and their indexes.
struct Rows<'txn> {
    records: Table<'txn, u64, &'static [u8]>,
    keys: Table<'txn, &'static KeyHash, u64>,
    expiry: Index<'txn>,
    quiet: Index<'txn>,
    in_flight: Table<'txn, u64, ()>,
}

impl<'txn> Rows<'txn> {
    fn open(txn: &'txn WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            records: txn.open_table(RECORDS).map_err(table)?,
            keys: txn.open_table(KEYS).map_err(table)?,
            expiry: Index { txn, definition: EXPIRY, table: None },
            quiet: Index { txn, definition: QUIET, table: None },
            in_flight: txn.open_table(IN_FLIGHT).map_err(table)?,
        })
    }

    fn insert(&mut self, seq: u64, key: &Key, record: &Record, row: &[u8]) -> Result<(), StoreError> {
        self.records.insert(seq, row).map_err(storage)?;
        self.keys.insert(&hash_of(key), seq).map_err(storage)?;
        self.index(seq, None, Some(record))
    }

    fn replace(&mut self, found: &Found, record: &Record, row: &[u8]) -> Result<(), StoreError> {
        self.records.insert(found.seq, row).map_err(storage)?;
        self.index(found.seq, Some(&found.record), Some(record))
    }

    fn remove(&mut self, found: &Found, key: &Key) -> Result<(), StoreError> {
        self.records.remove(found.seq).map_err(storage)?;
        self.keys.remove(&hash_of(key)).map_err(storage)?;
        self.index(found.seq, Some(&found.record), None)
    }

    /// Moves the entries of the indexes that the change touches, and no others: an entry that stays costs no page.
    fn index(&mut self, seq: u64, old: Option<&Record>, new: Option<&Record>) -> Result<(), StoreError> {
        let removable = |record: Option<&Record>| record.and_then(Record::removable_at).map(|at| (at.0, seq));
        self.expiry.move_entry(removable(old), removable(new))?;
        let lapses = |record: Option<&Record>| record.and_then(Record::lapse_tick).map(|tick| (tick, seq));
        self.quiet.move_entry(lapses(old), lapses(new))?;
        let in_flight = |record: Option<&Record>| record.is_some_and(|record| record.state.status().is_in_flight());
        match (in_flight(old), in_flight(new)) {
            (true, false) => self.in_flight.remove(seq).map_err(storage).map(|_| ()),
            (false, true) => self.in_flight.insert(seq, ()).map_err(storage).map(|_| ()),
            (true, true) | (false, false) => Ok(()),
        }
    }
}

/// An index by time or by tick. Opened when an entry moves: a transaction pays for each table that it opens, used or not.
struct Index<'txn> {
    txn: &'txn WriteTransaction,
    definition: TableDefinition<'static, (u64, u64), ()>,
    table: Option<Table<'txn, (u64, u64), ()>>,
}

impl Index<'_> {
    fn move_entry(&mut self, old: Option<(u64, u64)>, new: Option<(u64, u64)>) -> Result<(), StoreError> {
        if old == new {
            return Ok(());
        }
        let index = match &mut self.table {
            Some(index) => index,
            none => none.insert(self.txn.open_table(self.definition).map_err(table)?),
        };
        if let Some(entry) = old {
            index.remove(entry).map_err(storage)?;
        }
        if let Some(entry) = new {
            index.insert(entry, ()).map_err(storage)?;
        }
        Ok(())
    }
}

/// The counters, read once and written once per transaction, and only where they have moved.
struct Counters<'txn> {
    table: Table<'txn, &'static [u8], &'static [u8]>,
    stored_totals: Totals,
    totals: Totals,
    scopes: BTreeMap<Box<[u8]>, Counter>,
}

#[derive(Clone, Copy)]
struct Counter {
    stored: u64,
    now: u64,
}

impl<'txn> Counters<'txn> {
    fn open(txn: &'txn WriteTransaction) -> Result<Self, StoreError> {
        let table = txn.open_table(COUNTERS).map_err(table)?;
        let totals = read_totals(&table)?;
        Ok(Self { table, stored_totals: totals, totals, scopes: BTreeMap::new() })
    }

    fn scope(&mut self, scope: &[u8]) -> Result<&mut Counter, StoreError> {
        if !self.scopes.contains_key(scope) {
            let stored = read_counter(&self.table, &scope_counter(scope))?;
            self.scopes.insert(scope.into(), Counter { stored, now: stored });
        }
        self.scopes.get_mut(scope).ok_or_else(|| damaged("a counter"))
    }

    fn count(&mut self, scope: &[u8], old: Option<&Record>, new: Option<&Record>) -> Result<(), StoreError> {
        if let Some(record) = old {
            less(self.totals.of_mut(record.state.status()));
            less(&mut self.scope(scope)?.now);
        }
        if let Some(record) = new {
            *self.totals.of_mut(record.state.status()) += 1;
            self.scope(scope)?.now += 1;
        }
        Ok(())
    }

    /// Writes what has moved, the two marks included; if anything has, or the batch `wrote` otherwise, it is another
    /// generation. Says whether it is.
    fn finish(mut self, batch: &Batch, wrote: bool) -> Result<bool, StoreError> {
        for (scope, Counter { stored, now }) in self.scopes {
            if stored == now {
                continue;
            }
            let name = scope_counter(&scope);
            match now {
                0 => drop(self.table.remove(name.as_slice()).map_err(storage)?),
                _ => drop(self.table.insert(name.as_slice(), now.to_be_bytes().as_slice()).map_err(storage)?),
            }
        }
        if self.totals != self.stored_totals {
            self.table.insert(TOTALS, encode_totals(&self.totals).as_slice()).map_err(storage)?;
        }
        let mut wrote = wrote;
        for (name, mark) in [(CLOCK_MARK, batch.now.0), (TICK_MARK, batch.tick)] {
            if mark > read_counter(&self.table, name)? {
                self.table.insert(name, mark.to_be_bytes().as_slice()).map_err(storage)?;
                wrote = true;
            }
        }
        if wrote {
            let next = read_counter(&self.table, GENERATION)?.saturating_add(1);
            self.table.insert(GENERATION, next.to_be_bytes().as_slice()).map_err(storage)?;
        }
        Ok(wrote)
    }
}

fn less(count: &mut u64) {
    debug_assert!(*count > 0, "a record was there that nobody had counted");
    *count = count.saturating_sub(1);
}
