//! A store that fails on demand, over one that doesn't.

use std::fmt;
use std::panic::resume_unwind;
use std::sync::Arc;

use tokio::sync::watch;

use super::Layer;
use crate::block_on::block_on;
use crate::key::Key;
use crate::record::Record;
use crate::store::{Batch, Change, Store, StoreError, Verdict};

/// A [`Store`] over another one whose failures are the test's to choose, and that says what it is asked, so that a test can
/// wait for it instead of sleeping.
///
/// Like a redb file it refuses every commit after a failed one until it has been [reopened](Store::reopen).
///
/// ```
/// use std::sync::Arc;
/// use ibid::testing::{Fault, FaultyStore};
/// use ibid::{Engine, store::MemoryStore};
///
/// let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
/// let engine = Engine::builder().open_store(store.clone()).unwrap();
/// store.fail_commits(1, Fault::AfterEffect);
/// // Whatever is asked of the engine now is registered by a commit that fails, is found again, and runs once.
/// engine.shutdown_blocking();
/// ```
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    state: watch::Sender<State>,
    keeps_inner: bool,
}

/// How a single commit fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing is written; the error says that its fate is unknown.
    BeforeEffect,
    /// Everything is written; the error says that its fate is unknown.
    AfterEffect,
    /// It panics, with nothing written.
    Panic,
}

/// What fails until [`FaultyStore::heal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outage {
    /// Every commit. Reads work, and so does reopening.
    Commits,
    /// Every commit, every read, every attempt to reopen.
    Everything,
    /// Every commit that writes a record or a ledger row: the disk is full. What only removes goes through, and so do reads
    /// and reopening.
    Full,
}

impl Outage {
    fn stops(self, batch: &Batch) -> bool {
        match self {
            Self::Commits | Self::Everything => true,
            Self::Full => {
                let writes_row = |change: &Change| change.rows.iter().any(|row| row.value().is_some());
                batch.changes.iter().any(|change| change.put.is_some() || writes_row(change))
            }
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// Gates that are shut.
    gates: usize,
    /// Commits that wait at a gate.
    held: usize,
    /// How many of the next commits fail, and how.
    fault: Option<(u64, Fault)>,
    /// How many of the next reads of a record fail.
    failing_reads: u64,
    outage: Option<Outage>,
    /// A commit has failed since the last reopening.
    is_broken: bool,
    is_closed: bool,
    commits: u64,
    reopens: u64,
}

impl FaultyStore {
    /// Over this store, without a fault so far.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, state: watch::Sender::new(State::default()), keeps_inner: false }
    }

    /// Closing it leaves the store below open: another `FaultyStore` over the same one is what a second engine finds at the
    /// next start. Otherwise [`close`](Store::close) passes through.
    #[must_use]
    pub fn keeping_inner(mut self) -> Self {
        self.keeps_inner = true;
        self
    }

    /// Commits stand still before they do anything, until the gate is dropped. Reads go on.
    pub fn hold_commits(&self) -> Gate {
        self.state.send_modify(|state| state.gates += 1);
        Gate { state: self.state.clone() }
    }

    /// The next `count` commits that arrive fail like this, one that already waits at a gate not included. It replaces what an
    /// earlier call has left over.
    pub fn fail_commits(&self, count: u64, fault: Fault) {
        self.state.send_modify(|state| state.fault = (count > 0).then_some((count, fault)));
    }

    /// The next `count` reads of a record fail.
    pub fn fail_reads(&self, count: u64) {
        self.state.send_modify(|state| state.failing_reads = count);
    }

    /// From here on all of this fails, also a commit that waits at a gate.
    pub fn break_down(&self, outage: Outage) {
        self.state.send_modify(|state| state.outage = Some(outage));
    }

    /// Nothing fails any more. A store that has failed a commit still has to be reopened.
    pub fn heal(&self) {
        self.state.send_modify(|state| {
            state.outage = None;
            state.fault = None;
            state.failing_reads = 0;
        });
    }

    /// Commits that have returned, in whatever way.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.state.borrow().commits
    }

    /// Attempts to reopen that have returned, failed ones included.
    #[must_use]
    pub fn reopens(&self) -> u64 {
        self.state.borrow().reopens
    }

    /// Returns when a commit waits at a gate. Cancel safe, like the other two waits.
    pub async fn until_held(&self) {
        self.until(|state| state.held > 0).await;
    }

    /// Returns when [`commits`](Self::commits) has reached `count`.
    pub async fn until_commits(&self, count: u64) {
        self.until(|state| state.commits >= count).await;
    }

    /// Returns when [`reopens`](Self::reopens) has reached `count`.
    pub async fn until_reopens(&self, count: u64) {
        self.until(|state| state.reopens >= count).await;
    }

    async fn until(&self, holds: impl FnMut(&State) -> bool) {
        // It can't fail: its sender is here.
        drop(self.state.subscribe().wait_for(holds).await);
    }

    /// The fault of a commit that arrives; it returns when every gate is open.
    fn arrive(&self) -> Option<Fault> {
        let mut taken = None;
        self.state.send_modify(|state| {
            state.held += 1;
            taken = state.fault.map(|(_, fault)| fault);
            state.fault = state.fault.and_then(|(left, fault)| (left > 1).then(|| (left - 1, fault)));
        });
        block_on(self.until(|state| state.gates == 0));
        self.state.send_modify(|state| state.held = state.held.saturating_sub(1));
        taken
    }

    fn commit_with(&self, batch: &Batch, fault: Option<Fault>) -> Result<Vec<Verdict>, StoreError> {
        self.check_open()?;
        let (is_down, is_broken) = {
            let state = self.state.borrow();
            (state.outage.is_some_and(|outage| outage.stops(batch)), state.is_broken)
        };
        match fault {
            _ if is_down => Err(failed("the store is down")),
            _ if is_broken => Err(failed("a commit has failed, and the store was not reopened")),
            None => self.inner.commit(batch),
            Some(Fault::BeforeEffect) => Err(failed("nothing was written")),
            Some(Fault::AfterEffect) => self.inner.commit(batch).and(Err(failed("everything was written"))),
            Some(Fault::Panic) => resume_unwind(Box::new("injected into a commit")),
        }
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.state.borrow().is_closed { Err(StoreError::Closed) } else { Ok(()) }
    }

    fn check_up(&self) -> Result<(), StoreError> {
        self.check_open()?;
        match self.state.borrow().outage {
            Some(Outage::Everything) => Err(failed("the store is down")),
            Some(Outage::Commits | Outage::Full) | None => Ok(()),
        }
    }
}

/// Holds commits back for as long as it lives.
#[must_use = "dropping it opens the gate"]
pub struct Gate {
    state: watch::Sender<State>,
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.state.send_modify(|state| state.gates = state.gates.saturating_sub(1));
    }
}

/// Counts a commit when it is over, also by a panic.
struct Over<'a> {
    state: &'a watch::Sender<State>,
    has_failed: bool,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.state.send_modify(|state| {
            state.commits += 1;
            state.is_broken |= self.has_failed;
        });
    }
}

fn failed(what: &'static str) -> StoreError {
    StoreError::Io(Arc::new(std::io::Error::other(what)))
}

impl Layer for FaultyStore {
    fn below(&self) -> &dyn Store {
        &*self.inner
    }

    fn read<T>(&self, read: impl FnOnce(&dyn Store) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.check_up()?;
        read(&*self.inner)
    }

    fn commit(&self, batch: &Batch) -> Result<Vec<Verdict>, StoreError> {
        let fault = self.arrive();
        let mut over = Over { state: &self.state, has_failed: true };
        let committed = self.commit_with(batch, fault);
        over.has_failed = committed.is_err();
        committed
    }

    fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.check_up()?;
        let mut fails = false;
        self.state.send_modify(|state| {
            fails = state.failing_reads > 0;
            state.failing_reads = state.failing_reads.saturating_sub(1);
        });
        if fails { Err(failed("the read failed")) } else { self.inner.get(key) }
    }

    fn rest(&self) -> Result<(), StoreError> {
        self.check_up()?;
        self.inner.rest()
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let reopened = self.check_up().and_then(|()| self.inner.reopen());
        self.state.send_modify(|state| {
            state.reopens += 1;
            state.is_broken &= reopened.is_err();
        });
        reopened
    }

    fn close(&self) -> Result<(), StoreError> {
        self.check_open()?;
        self.state.send_modify(|state| state.is_closed = true);
        if self.keeps_inner { Ok(()) } else { self.inner.close() }
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore").field("state", &*self.state.borrow()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}
