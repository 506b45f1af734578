//! What a store holds, and a store that remembers what it held after each commit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ibid::store::{Batch, RedbStore, Store, StoreError, Totals, Verdict};
use ibid::testing::{Layer, SimulatedDisk};
use ibid::{Bytes, Key, Record, StoredRow, UnixMillis};

/// The ledger table of the workloads.
pub(crate) const TABLE: &str = "table";

/// All that a store can tell about the keys of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) records: Vec<Option<Record>>,
    rows: Vec<(Bytes, StoredRow)>,
    totals: Totals,
    pub(crate) mark: UnixMillis,
    pub(crate) tick_mark: u64,
    generation: u64,
}

impl Content {
    /// Whether the ledger has this row.
    pub(crate) fn has_row(&self, key: &[u8], value: &[u8]) -> bool {
        self.rows.iter().any(|(stored, row)| (&**stored, &*row.value) == (key, value))
    }

    pub(crate) fn of(store: &dyn Store, keys: &[Key]) -> Result<Self, StoreError> {
        Ok(Self {
            records: keys.iter().map(|key| store.get(key)).collect::<Result<_, _>>()?,
            rows: store.rows(TABLE, None, 100)?,
            totals: store.totals()?,
            mark: store.clock_mark()?,
            tick_mark: store.tick_mark()?,
            generation: store.generation()?,
        })
    }
}

/// A commit that has returned.
#[derive(Clone)]
pub(crate) struct Commit {
    /// How many syncs the disk had completed by then.
    pub(crate) syncs: usize,
    pub(crate) content: Content,
}

/// The commits of one life, in order; the first is what the store was opened with.
#[derive(Clone, Default)]
pub(crate) struct Commits(Arc<Mutex<Vec<Commit>>>);

impl Commits {
    pub(crate) fn all(&self) -> Vec<Commit> {
        self.lock().clone()
    }

    pub(crate) fn last(&self) -> Commit {
        self.lock().last().expect("there is one from the start").clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Commit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A redb store that notes what it holds after each commit.
pub(crate) struct Noting {
    inner: RedbStore,
    disk: SimulatedDisk,
    keys: Vec<Key>,
    commits: Commits,
}

impl Noting {
    pub(crate) fn new(inner: RedbStore, disk: &SimulatedDisk, keys: &[Key], commits: &Commits) -> Self {
        let this = Self { inner, disk: disk.clone(), keys: keys.to_vec(), commits: commits.clone() };
        this.note();
        this
    }

    fn note(&self) {
        let content = Content::of(&self.inner, &self.keys).expect("what was committed can be read");
        self.commits.lock().push(Commit { syncs: self.disk.syncs(), content });
    }
}

impl Layer for Noting {
    fn below(&self) -> &dyn Store {
        &self.inner
    }

    fn commit(&self, batch: &Batch) -> Result<Vec<Verdict>, StoreError> {
        let committed = self.inner.commit(batch);
        if committed.is_ok() {
            self.note();
        }
        committed
    }
}
