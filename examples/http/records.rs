//! The records, as the store has them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ibid::http::Idempotency;
use ibid::store::{RedbStore, Store, StoreError};
use ibid::{Key, Record, UnixMillis};
use serde::Serialize;

use super::unsaved::Unsaved;

/// All that there are.
pub(crate) struct Records {
    store: Arc<RedbStore>,
    idempotency: Idempotency,
    unsaved: Unsaved,
    /// What this process has damaged, as it was before: nobody can read it any more.
    damaged: Mutex<HashMap<Key, Row>>,
}

#[derive(Clone, Serialize)]
pub(crate) struct Row {
    key_hash: String,
    route: String,
    state: &'static str,
    attempt: u32,
    created_ms: u64,
    updated_ms: u64,
    /// `None` until the record has ended.
    expires_ms: Option<u64>,
}

impl Records {
    pub(crate) fn new(store: Arc<RedbStore>, idempotency: Idempotency, unsaved: Unsaved) -> Self {
        Self { store, idempotency, unsaved, damaged: Mutex::default() }
    }

    /// Oldest first, also those that are past their grace.
    pub(crate) fn list(&self) -> Result<Vec<Row>, StoreError> {
        let stored = self.stored()?;
        let mut rows: Vec<Row> = stored.iter().map(|(key, record)| self.row(key, record)).collect();
        rows.extend(self.damaged().values().cloned());
        rows.sort_by_key(|row| row.created_ms);
        Ok(rows)
    }

    /// Makes the record of this hash one that cannot be read. `false`: there is none.
    pub(crate) fn damage(&self, key_hash: &str) -> Result<bool, StoreError> {
        let stored = self.stored()?;
        let found = stored.into_iter().find(|(key, _)| self.idempotency.key_hash(key) == key_hash);
        let Some((key, record)) = found else { return Ok(false) };
        let row = Row { state: "quarantined", ..self.row(&key, &record) };
        let damaged = self.store.damage(&key)?;
        if damaged {
            self.damaged().insert(key, row);
        }
        Ok(damaged)
    }

    /// What is in flight and what will expire, which together is everything, each in order of arrival where nothing else tells
    /// them apart.
    fn stored(&self) -> Result<Vec<(Key, Record)>, StoreError> {
        let in_flight = self.store.in_flight(None, usize::MAX)?.into_iter().filter_map(|entry| entry.found);
        let mut stored = self.store.removable(UnixMillis(u64::MAX), u64::MAX, usize::MAX)?;
        // What has ended in between was found twice.
        let ended: HashSet<Key> = stored.iter().map(|(key, _)| key.clone()).collect();
        stored.extend(in_flight.filter(|(key, _)| !ended.contains(key)));
        Ok(stored)
    }

    fn row(&self, key: &Key, record: &Record) -> Row {
        let status = record.state.status();
        Row {
            key_hash: self.idempotency.key_hash(key),
            route: key.flow().to_owned(),
            state: if self.unsaved.holds(key) { "unsaved" } else { status.name() },
            attempt: record.attempt.number,
            created_ms: record.created_at.0,
            updated_ms: record.updated_at.0,
            expires_ms: record.expires_at.filter(|_| !status.is_in_flight()).map(|end| end.0),
        }
    }

    fn damaged(&self) -> MutexGuard<'_, HashMap<Key, Row>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
