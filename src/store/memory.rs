//! A store that forgets: for tests, and for hosts that can afford to run twice after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::decide::{Current, RowWrite, decide, row_writes};
use super::{Batch, Change, Cursor, Entry, ExpiredRow, Store, StoreError, Totals, Verdict, row_key};
use crate::key::Key;
use crate::ledger::StoredRow;
use crate::record::{Bytes, Record};
use crate::time::UnixMillis;

/// Records in memory, with the semantics of [`RedbStore`](super::RedbStore) but for durability: nothing survives the value.
///
/// Memory grows with the number of live records, which [`Batch::records_per_scope`] bounds per scope, and with that of
/// ledger rows, which nothing bounds but their ends.
#[derive(Debug)]
pub struct MemoryStore {
    /// `None` once it is closed.
    tables: Mutex<Option<Tables>>,
}

/// The same tables as on disk, so that the two stores can be compared row by row.
#[derive(Debug, Default)]
struct Tables {
    records: BTreeMap<u64, (Key, Record)>,
    keys: BTreeMap<Key, u64>,
    expiry: BTreeSet<(UnixMillis, u64)>,
    quiet: BTreeSet<(u64, u64)>,
    in_flight: BTreeSet<u64>,
    ledger: BTreeMap<Vec<u8>, StoredRow>,
    ledger_expiry: BTreeSet<(UnixMillis, Vec<u8>)>,
    records_by_scope: BTreeMap<Vec<u8>, u64>,
    totals: Totals,
    clock_mark: UnixMillis,
    tick_mark: u64,
    generation: u64,
    /// Whether the batch at hand has changed anything.
    wrote: bool,
    next_seq: u64,
}

/// An empty store, open like a [new](MemoryStore::new) one.
impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self { tables: Mutex::new(Some(Tables::default())) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Tables>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Tables) -> T) -> Result<T, StoreError> {
        self.lock().as_mut().map(work).ok_or(StoreError::Closed)
    }
}

impl Store for MemoryStore {
    fn commit(&self, batch: &Batch) -> Result<Vec<Verdict>, StoreError> {
        self.with(|tables| {
            tables.wrote = batch.now > tables.clock_mark || batch.tick > tables.tick_mark;
            tables.clock_mark = tables.clock_mark.max(batch.now);
            tables.tick_mark = tables.tick_mark.max(batch.tick);
            let verdicts = batch.changes.iter().map(|change| tables.change(change, batch)).collect();
            batch.expired_rows.iter().for_each(|expired| tables.remove_expired(expired));
            tables.generation += u64::from(tables.wrote);
            verdicts
        })
    }

    fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.with(|tables| tables.find(key).map(|(_, record)| record.clone()))
    }

    fn in_flight(&self, after: Option<Cursor>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let start = after.map_or(Bound::Unbounded, |Cursor(seq)| Bound::Excluded(seq));
        self.with(|tables| {
            let entry = |seq: &u64| Entry { cursor: Cursor(*seq), found: tables.records.get(seq).cloned() };
            tables.in_flight.range((start, Bound::Unbounded)).take(limit).map(entry).collect()
        })
    }

    fn removable(&self, now: UnixMillis, tick: u64, limit: usize) -> Result<Vec<(Key, Record)>, StoreError> {
        self.with(|tables| {
            let by_time = tables.expiry.range(..=(now, u64::MAX)).map(|(_, seq)| seq);
            let by_tick = tables.quiet.range(..=(tick, u64::MAX)).map(|(_, seq)| seq);
            let found = |seq| tables.records.get(seq);
            let is_due = |record: &Record| record.removable_at().is_some_and(|at| at <= now);
            let only_by_tick = by_tick.filter_map(found).filter(|(_, record)| !is_due(record));
            by_time.filter_map(found).chain(only_by_tick).take(limit).cloned().collect()
        })
    }

    fn row(&self, table: &str, key: &[u8]) -> Result<Option<StoredRow>, StoreError> {
        self.with(|tables| tables.ledger.get(&row_key::join(table, key)).cloned())
    }

    fn rows(&self, table: &str, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, StoredRow)>, StoreError> {
        self.with(|tables| tables.rows(table, after).take(limit).map(|(key, row)| (key, row.clone())).collect())
    }

    fn row_keys(&self, table: &str, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>, StoreError> {
        self.with(|tables| tables.rows(table, after).take(limit).map(|(key, _)| key).collect())
    }

    fn expired_rows(&self, now: UnixMillis, limit: usize) -> Result<Vec<ExpiredRow>, StoreError> {
        self.with(|tables| {
            let due = tables.ledger_expiry.iter().take_while(|(end, _)| *end <= now);
            due.filter_map(|(end, key)| ExpiredRow::at(*end, key)).take(limit).collect()
        })
    }

    fn records_in_scope(&self, scope: &[u8]) -> Result<u64, StoreError> {
        self.with(|tables| tables.records_in_scope(scope))
    }

    fn totals(&self) -> Result<Totals, StoreError> {
        self.with(|tables| tables.totals)
    }

    fn clock_mark(&self) -> Result<UnixMillis, StoreError> {
        self.with(|tables| tables.clock_mark)
    }

    fn tick_mark(&self) -> Result<u64, StoreError> {
        self.with(|tables| tables.tick_mark)
    }

    fn generation(&self) -> Result<u64, StoreError> {
        self.with(|tables| tables.generation)
    }

    fn rest(&self) -> Result<(), StoreError> {
        self.with(|_| ())
    }

    fn reopen(&self) -> Result<(), StoreError> {
        self.with(|_| ())
    }

    fn close(&self) -> Result<(), StoreError> {
        self.lock().take().map(|_| ()).ok_or(StoreError::Closed)
    }
}

impl Tables {
    /// The rows of a ledger table behind `after`, in the order of their keys.
    fn rows(&self, table: &str, after: Option<&[u8]>) -> impl Iterator<Item = (Bytes, &StoredRow)> {
        let prefix = row_key::join(table, &[]);
        // No row has an empty key, so what begins behind none begins with the first.
        let start = Bound::Excluded(row_key::join(table, after.unwrap_or_default()));
        let rows = self.ledger.range((start, Bound::Unbounded));
        rows.map_while(move |(key, row)| Some((key.strip_prefix(prefix.as_slice())?.into(), row)))
    }

    fn find(&self, key: &Key) -> Option<(u64, &Record)> {
        let seq = *self.keys.get(key)?;
        self.records.get(&seq).map(|(_, record)| (seq, record))
    }

    fn records_in_scope(&self, scope: &[u8]) -> u64 {
        self.records_by_scope.get(scope).copied().unwrap_or_default()
    }

    fn change(&mut self, change: &Change, batch: &Batch) -> Verdict {
        let found = self.find(&change.key).map(|(seq, record)| (seq, record.clone()));
        let (seq, current) = found.unzip();
        let rows: Vec<_> =
            change.rows.iter().map(|row| self.ledger.get(&row_key::join(&row.table, &row.key)).cloned()).collect();
        let records_in_scope = self.records_in_scope(change.key.scope());
        if let Err(verdict) =
            decide(change, &Current { record: current.as_ref(), records_in_scope, rows: &rows }, batch)
        {
            return verdict;
        }
        for (key, write) in row_writes(change, &rows) {
            self.put_row(key, write);
        }
        let seq = seq.unwrap_or_else(|| {
            self.next_seq += 1;
            self.next_seq
        });
        if let Some(record) = &current {
            self.take_out(seq, &change.key, record);
        }
        if let Some(record) = &change.put {
            self.put_in(seq, &change.key, record);
        }
        Verdict::Applied
    }

    fn put_row(&mut self, key: Vec<u8>, write: RowWrite) {
        self.wrote = true;
        if let Some(end) = write.old_end {
            self.ledger_expiry.remove(&(end, key.clone()));
        }
        let Some(row) = write.put else {
            self.ledger.remove(&key);
            return;
        };
        if let Some(end) = row.expires_at {
            self.ledger_expiry.insert((end, key.clone()));
        }
        self.ledger.insert(key, row);
    }

    fn remove_expired(&mut self, expired: &ExpiredRow) {
        let key = row_key::join(&expired.table, &expired.key);
        if self.ledger.get(&key).is_some_and(|row| row.expires_at == Some(expired.expires_at)) {
            self.wrote = true;
            self.ledger.remove(&key);
            self.ledger_expiry.remove(&(expired.expires_at, key));
        }
    }

    fn take_out(&mut self, seq: u64, key: &Key, record: &Record) {
        self.wrote = true;
        self.records.remove(&seq);
        self.keys.remove(key);
        self.in_flight.remove(&seq);
        if let Some(at) = record.removable_at() {
            self.expiry.remove(&(at, seq));
        }
        if let Some(tick) = record.lapse_tick() {
            self.quiet.remove(&(tick, seq));
        }
        *self.totals.of_mut(record.state.status()) -= 1;
        if let Some(count) = self.records_by_scope.get_mut(key.scope()) {
            *count -= 1;
            if *count == 0 {
                self.records_by_scope.remove(key.scope());
            }
        }
    }

    fn put_in(&mut self, seq: u64, key: &Key, record: &Record) {
        self.wrote = true;
        self.records.insert(seq, (key.clone(), record.clone()));
        self.keys.insert(key.clone(), seq);
        if record.state.status().is_in_flight() {
            self.in_flight.insert(seq);
        }
        if let Some(at) = record.removable_at() {
            self.expiry.insert((at, seq));
        }
        if let Some(tick) = record.lapse_tick() {
            self.quiet.insert((tick, seq));
        }
        *self.totals.of_mut(record.state.status()) += 1;
        *self.records_by_scope.entry(key.scope().to_vec()).or_default() += 1;
    }
}
