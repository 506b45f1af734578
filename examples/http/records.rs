//! The records, as the store has them.

use std::collections::BTreeMap;
use std::sync::Arc;

use ibid::http::Idempotency;
use ibid::store::{RedbStore, Store, StoreError};
use ibid::{Key, Record, UnixMillis};
use serde::Serialize;

/// All that there are, and what was made of some.
pub(crate) struct Records {
    store: Arc<RedbStore>,
    idempotency: Idempotency,
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
    pub(crate) fn new(store: Arc<RedbStore>, idempotency: Idempotency) -> Self {
        Self { store, idempotency }
    }

    /// Oldest first, also those that are past their grace.
    pub(crate) fn list(&self) -> Result<Vec<Row>, StoreError> {
        let mut rows: Vec<Row> = self.stored()?.iter().map(|(key, record)| self.row(key, record)).collect();
        rows.sort_by_key(|row| row.created_ms);
        Ok(rows)
    }

    /// What is in flight and what will expire, which together is everything. What ends in between is found twice.
    fn stored(&self) -> Result<BTreeMap<Key, Record>, StoreError> {
        let in_flight = self.store.in_flight(None, usize::MAX)?.into_iter().filter_map(|entry| entry.found);
        let ended = self.store.removable(UnixMillis(u64::MAX), u64::MAX, usize::MAX)?;
        Ok(in_flight.chain(ended).collect())
    }

    fn row(&self, key: &Key, record: &Record) -> Row {
        let status = record.state.status();
        Row {
            key_hash: self.idempotency.key_hash(key),
            route: key.flow().to_owned(),
            state: status.name(),
            attempt: record.attempt.number,
            created_ms: record.created_at.0,
            updated_ms: record.updated_at.0,
            expires_ms: record.expires_at.filter(|_| !status.is_in_flight()).map(|end| end.0),
        }
    }
}
