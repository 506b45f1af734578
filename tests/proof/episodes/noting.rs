//! A store that notes what passes through it: below the faults what is durable, above them what the engine is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ibid::store::{Batch, Store, StoreError, Verdict};
use ibid::testing::Layer;
use tokio::sync::Notify;

use super::history::{Changed, History, What};
use super::plan::Plan;

/// Below the faults: every commit that happened.
pub(crate) struct Durable {
    pub(crate) disk: Arc<dyn Store>,
    pub(crate) history: History,
    pub(crate) plan: Arc<Plan>,
    pub(crate) boot: usize,
}

/// Above the faults: every failure that the engine saw.
pub(crate) struct Told {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) history: History,
    pub(crate) boot: usize,
    pub(crate) alarm: Arc<CommitAlarm>,
}

/// Goes off after so many more commits.
#[derive(Default)]
pub(crate) struct CommitAlarm {
    left: AtomicU64,
    rung: Notify,
}

impl CommitAlarm {
    pub(crate) fn set(&self, commits: u64) {
        self.left.store(commits, Ordering::Relaxed);
    }

    pub(crate) async fn rings(&self) {
        self.rung.notified().await;
    }

    fn count(&self) {
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(1), Ordering::Relaxed);
        if left == 1 {
            self.rung.notify_one();
        }
    }
}

impl Layer for Durable {
    fn below(&self) -> &dyn Store {
        &*self.disk
    }

    fn commit(&self, batch: &Batch) -> Result<Vec<Verdict>, StoreError> {
        let verdicts = self.disk.commit(batch)?;
        let changed = |(change, verdict): (&ibid::store::Change, &Verdict)| Changed {
            key: self.plan.find(&change.key),
            put: change.put.as_deref().cloned().map(Box::new),
            rows: change.rows.clone(),
            verdict: *verdict,
        };
        let changes = batch.changes.iter().zip(&verdicts).map(changed).collect();
        self.history.note(What::Committed { boot: self.boot, now: batch.now, tick: batch.tick, changes });
        Ok(verdicts)
    }
}

/// Notes a failure unless it is told that there was none: a commit may also panic.
struct Fails<'a>(&'a Told, bool);

impl Drop for Fails<'_> {
    fn drop(&mut self) {
        let Self(told, failed) = self;
        told.history.note(if *failed { What::StoreFailed(told.boot) } else { What::StoreWorked(told.boot) });
        told.alarm.count();
    }
}

impl Layer for Told {
    fn below(&self) -> &dyn Store {
        &*self.store
    }

    fn read<T>(&self, read: impl FnOnce(&dyn Store) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let read = read(&*self.store);
        if read.as_ref().is_err_and(|error| !matches!(error, StoreError::Closed)) {
            self.history.note(What::StoreFailed(self.boot));
        }
        read
    }

    fn commit(&self, batch: &Batch) -> Result<Vec<Verdict>, StoreError> {
        let mut fails = Fails(self, true);
        let verdicts = self.store.commit(batch);
        fails.1 = verdicts.is_err();
        if verdicts.is_ok() && batch.changes.iter().any(|change| change.put.is_some()) {
            self.history.note(What::Wrote(self.boot));
        }
        verdicts
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut fails = Fails(self, true);
        let reopened = self.store.reopen();
        fails.1 = reopened.is_err();
        reopened
    }
}
