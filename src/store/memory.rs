//! A store that forgets: for tests, and for hosts that can afford to run twice after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::decide::decide;
use super::{Batch, Change, Cursor, Entry, Store, StoreError, Totals, Verdict};
use crate::key::Key;
use crate::record::Record;
use crate::time::UnixMillis;

/// Records in memory, with the semantics of [`RedbStore`](super::RedbStore) but for durability: nothing survives the value.
///
/// Memory grows with the number of live records; [`Batch::records_per_scope`] bounds it per scope.
#[derive(Debug, Default)]
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
    in_flight: BTreeSet<u64>,
    records_by_scope: BTreeMap<Vec<u8>, u64>,
    totals: Totals,
    clock_mark: UnixMillis,
    next_seq: u64,
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
            tables.clock_mark = tables.clock_mark.max(batch.now);
            batch.changes.iter().map(|change| tables.change(change, batch.records_per_scope)).collect()
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

    fn removable(&self, now: UnixMillis, limit: usize) -> Result<Vec<(Key, Record)>, StoreError> {
        self.with(|tables| {
            let due = tables.expiry.range(..=(now, u64::MAX)).take(limit);
            due.filter_map(|(_, seq)| tables.records.get(seq).cloned()).collect()
        })
    }

    fn totals(&self) -> Result<Totals, StoreError> {
        self.with(|tables| tables.totals)
    }

    fn clock_mark(&self) -> Result<UnixMillis, StoreError> {
        self.with(|tables| tables.clock_mark)
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
    fn find(&self, key: &Key) -> Option<(u64, &Record)> {
        let seq = *self.keys.get(key)?;
        self.records.get(&seq).map(|(_, record)| (seq, record))
    }

    fn change(&mut self, change: &Change, records_per_scope: u64) -> Verdict {
        let found = self.find(&change.key).map(|(seq, record)| (seq, record.clone()));
        let (seq, current) = found.unzip();
        let in_scope = self.records_by_scope.get(change.key.scope()).copied().unwrap_or_default();
        if let Err(verdict) = decide(change, current.as_ref(), in_scope, records_per_scope) {
            return verdict;
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

    fn take_out(&mut self, seq: u64, key: &Key, record: &Record) {
        self.records.remove(&seq);
        self.keys.remove(key);
        self.in_flight.remove(&seq);
        if let Some(at) = record.removable_at() {
            self.expiry.remove(&(at, seq));
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
        self.records.insert(seq, (key.clone(), record.clone()));
        self.keys.insert(key.clone(), seq);
        if record.state.status().is_in_flight() {
            self.in_flight.insert(seq);
        }
        if let Some(at) = record.removable_at() {
            self.expiry.insert((at, seq));
        }
        *self.totals.of_mut(record.state.status()) += 1;
        *self.records_by_scope.entry(key.scope().to_vec()).or_default() += 1;
    }
}
