//! A store that notes what passes through it: below the faults what is durable, above them what the engine is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ibid::store::{Batch, Cursor, Entry, ExpiredRow, Store, StoreError, Totals, Verdict};
use ibid::{Bytes, Key, Record, StoredRow, UnixMillis};
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

macro_rules! passed_on {
    ($field:ident) => {
        fn in_flight(&self, after: Option<Cursor>, limit: usize) -> Result<Vec<Entry>, StoreError> {
            self.read(self.$field.in_flight(after, limit))
        }

        fn removable(&self, now: UnixMillis, limit: usize) -> Result<Vec<(Key, Record)>, StoreError> {
            self.read(self.$field.removable(now, limit))
        }

        fn row(&self, table: &str, key: &[u8]) -> Result<Option<StoredRow>, StoreError> {
            self.read(self.$field.row(table, key))
        }

        fn rows(&self, table: &str, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, StoredRow)>, StoreError> {
            self.read(self.$field.rows(table, after, limit))
        }

        fn expired_rows(&self, now: UnixMillis, limit: usize) -> Result<Vec<ExpiredRow>, StoreError> {
            self.read(self.$field.expired_rows(now, limit))
        }

        fn totals(&self) -> Result<Totals, StoreError> {
            self.read(self.$field.totals())
        }

        fn clock_mark(&self) -> Result<UnixMillis, StoreError> {
            self.read(self.$field.clock_mark())
        }

        fn generation(&self) -> Result<u64, StoreError> {
            self.read(self.$field.generation())
        }

        fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
            self.read(self.$field.get(key))
        }

        fn rest(&self) -> Result<(), StoreError> {
            self.$field.rest()
        }

        fn close(&self) -> Result<(), StoreError> {
            self.$field.close()
        }
    };
}

impl Durable {
    #[expect(clippy::unused_self, reason = "the same call as above the faults")]
    fn read<T>(&self, read: Result<T, StoreError>) -> Result<T, StoreError> {
        read
    }
}

impl Store for Durable {
    fn commit(&self, batch: &Batch) -> Result<Vec<Verdict>, StoreError> {
        let verdicts = self.disk.commit(batch)?;
        let changed = |(change, verdict): (&ibid::store::Change, &Verdict)| Changed {
            key: self.plan.place(&change.key),
            put: change.put.clone(),
            rows: change.rows.clone(),
            verdict: *verdict,
        };
        let changes = batch.changes.iter().zip(&verdicts).map(changed).collect();
        self.history.note(What::Committed { boot: self.boot, now: batch.now, changes });
        Ok(verdicts)
    }

    fn reopen(&self) -> Result<(), StoreError> {
        self.disk.reopen()
    }

    passed_on!(disk);
}

impl Told {
    fn read<T>(&self, read: Result<T, StoreError>) -> Result<T, StoreError> {
        if read.as_ref().is_err_and(|error| !matches!(error, StoreError::Closed)) {
            self.history.note(What::StoreFailed(self.boot));
        }
        read
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

impl Store for Told {
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

    passed_on!(store);
}
