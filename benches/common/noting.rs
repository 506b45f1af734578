//! A store that notes what it was told to commit, and for how long it was at it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ibid::store::{Batch, RedbStore, Store, StoreError, Verdict};
use ibid::testing::Layer;

use super::process::now;
use super::work::Kind;

/// What one transaction held, in order, and how long it took.
pub(crate) struct Commit {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) took: Duration,
}

/// Leaves out commits without a transition of a request: marks of the clock, the expiry sweep.
pub(crate) struct Noting {
    store: RedbStore,
    noted: Mutex<Vec<Commit>>,
}

impl Noting {
    pub(crate) fn new(store: RedbStore) -> Self {
        Self { store, noted: Mutex::default() }
    }

    /// What was noted since the last call.
    pub(crate) fn take(&self) -> Vec<Commit> {
        std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Layer for Noting {
    fn below(&self) -> &dyn Store {
        &self.store
    }

    fn commit(&self, batch: &Batch) -> Result<Vec<Verdict>, StoreError> {
        let began = now();
        let verdicts = self.store.commit(batch);
        let took = began.elapsed();
        let kinds: Vec<_> = batch.changes.iter().filter_map(Kind::of).collect();
        if !kinds.is_empty() {
            self.noted.lock().unwrap_or_else(PoisonError::into_inner).push(Commit { kinds, took });
        }
        verdicts
    }
}
