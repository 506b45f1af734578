//! The records, as the store has them.

use std::collections::HashSet;
use std::error::Error;
use std::sync::Arc;

use ibid::http::Idempotency;
use ibid::store::{RedbStore, Store, StoreError};
use ibid::{Engine, Key, Record, UnixMillis};
use serde::{Deserialize, Serialize};

use super::unsaved::Unsaved;

/// All that there are.
pub(crate) struct Records {
    store: Arc<RedbStore>,
    idempotency: Idempotency,
    unsaved: Unsaved,
    engine: Engine,
}

/// The ledger table of what was damaged, by key hash, as it was before: nobody can read it any more.
const DAMAGED: &str = "http_server.damaged";

pub(crate) type Unreadable = Box<dyn Error + Send + Sync>;

#[derive(Serialize, Deserialize)]
pub(crate) struct Row {
    key_hash: String,
    route: String,
    state: String,
    attempt: u32,
    created_ms: u64,
    updated_ms: u64,
    /// `None` until the record has ended.
    expires_ms: Option<u64>,
}

impl Records {
    pub(crate) fn new(store: Arc<RedbStore>, idempotency: Idempotency, unsaved: Unsaved) -> Self {
        let engine = idempotency.engine().clone();
        Self { store, idempotency, unsaved, engine }
    }

    /// Oldest first, also those that are past their grace.
    pub(crate) fn list(&self) -> Result<Vec<Row>, Unreadable> {
        let stored = self.stored()?;
        let mut rows: Vec<Row> = stored.iter().map(|(key, record)| self.row(key, record)).collect();
        for (_, damaged) in self.engine.ledger_rows(DAMAGED, None, usize::MAX)? {
            rows.push(serde_json::from_slice(&damaged.value)?);
        }
        rows.sort_by_key(|row| row.created_ms);
        Ok(rows)
    }

    /// Makes the record of this hash one that cannot be read. `false`: there is none.
    pub(crate) async fn damage(&self, key_hash: &str) -> Result<bool, Unreadable> {
        let stored = self.stored()?;
        let found = stored.into_iter().find(|(key, _)| self.idempotency.key_hash(key) == key_hash);
        let Some((key, record)) = found else { return Ok(false) };
        let row = Row { state: "quarantined".to_owned(), ..self.row(&key, &record) };
        if !self.store.damage(&key)? {
            return Ok(false);
        }
        let row = ibid::Row::new(DAMAGED, key_hash.as_bytes(), super::json(&row).into_bytes())?;
        Ok(self.engine.write_rows(vec![row]).await?)
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
            state: if self.unsaved.holds(key) { "unsaved" } else { status.name() }.to_owned(),
            attempt: record.attempt.number,
            created_ms: record.created_at.0,
            updated_ms: record.updated_at.0,
            expires_ms: record.expires_at.filter(|_| !status.is_in_flight()).map(|end| end.0),
        }
    }
}
