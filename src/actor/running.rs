//! What runs: attempts whose operation was started and whose end is not recorded.
//!
//! The table outlives the key actors: one that died with a message is replaced by one that finds here that its operation
//! still runs. It is shared by the actors of one thread and changed in the very handler that starts or ends an attempt, so
//! there is no moment at which an operation runs and a fresh actor could miss it. The record of a replay-safe attempt is kept
//! here as well, until something of it is stored.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::message::{InMemory, Meanwhile, RouterAddr, Unreported};
use super::operation::Operation;
use super::permits::Permit;
use crate::attempt::Attempt;
use crate::key::{Key, KeyMap};
use crate::observe::{Event, Observers};
use crate::policy::Flow;
use crate::record::{AttemptId, Record, Status};

pub(super) struct Running {
    runtime: Handle,
    observers: Arc<Observers>,
    attempts: RefCell<KeyMap<Started>>,
    /// Keys whose registered record was met with nothing running, by its revision, and said to be in doubt: it is not stored as
    /// such.
    orphans: RefCell<KeyMap<u64>>,
    /// Keys of which an actor died with a write under way: it may still land. Each stays until its next write, which is soon: what
    /// the actor had in hand comes back.
    dead_writers: RefCell<KeyMap<()>>,
    /// Those whose end waits in memory to be saved, and what whoever asks is told meanwhile. Apart from the attempts, since few ever
    /// are.
    unsaved: RefCell<KeyMap<Meanwhile>>,
    aborting: Cell<bool>,
}

/// An attempt that runs in this process, and the flow it runs under.
struct Started {
    attempt: AttemptId,
    flow: Flow,
    /// Whether those who watch have been told that this run of the operation has ended.
    has_ended: bool,
    /// The attempt's record, while nothing of it is stored.
    held: Option<Arc<Record>>,
    abort: AbortHandle,
    /// Held for as long as the operation counts as in flight.
    _permit: Option<Permit>,
}

/// A run whose start has panicked has ended, for those who watch.
struct Unstarted<'a> {
    key: &'a Key,
    attempt: u32,
    observers: &'a Observers,
}

impl Drop for Unstarted<'_> {
    fn drop(&mut self) {
        self.observers.tell(Event::Ended { key: self.key, attempt: self.attempt });
    }
}

impl Running {
    pub(super) fn new(runtime: Handle, observers: Arc<Observers>) -> Self {
        let (attempts, orphans, dead_writers) = (RefCell::default(), RefCell::default(), RefCell::default());
        let (unsaved, aborting) = (RefCell::default(), Cell::new(false));
        Self { runtime, observers, attempts, orphans, dead_writers, unsaved, aborting }
    }

    /// Whether another operation may be started under this key: one at a time, and none once the engine stops waiting for them.
    pub(super) fn may_start(&self, key: &Key) -> bool {
        !self.aborting.get() && !self.is_live(key)
    }

    /// Starts the operation of an attempt whose registration is durable, or whose record is to be held here.
    pub(super) fn start(
        &self,
        (flow, key): (&Flow, &Key),
        attempt: Attempt,
        operation: Operation,
        permit: Option<Permit>,
        held: Option<Arc<Record>>,
        router: &RouterAddr,
    ) {
        let (id, flow) = (attempt.id(), flow.clone());
        self.observers.tell(Event::Started { key, attempt: id.number });
        let unstarted = Unstarted { key, attempt: id.number, observers: &self.observers };
        let abort = operation.start(&self.runtime, attempt, Unreported::new(key.clone(), id, Arc::clone(router)));
        std::mem::forget(unstarted);
        let started = Started { attempt: id, flow, has_ended: false, held, abort, _permit: permit };
        self.attempts.borrow_mut().insert(key.clone(), started);
    }

    fn tell_end(&self, key: &Key, started: &mut Started) {
        if !std::mem::replace(&mut started.has_ended, true) {
            self.observers.tell(Event::Ended { key, attempt: started.attempt.number });
        }
    }

    /// The record of the attempt that runs, if nothing of it is stored.
    pub(super) fn held(&self, key: &Key) -> Option<Arc<Record>> {
        self.attempts.borrow().get(key)?.held.clone()
    }

    /// Something of the attempt's record is stored, or was: from here on only what is stored counts.
    pub(super) fn let_go(&self, key: &Key) {
        if let Some(started) = self.attempts.borrow_mut().get_mut(key) {
            started.held = None;
        }
    }

    /// The operation of this attempt has ended, and what it came to is on its way to the store.
    pub(super) fn note_end(&self, key: &Key, attempt: &AttemptId) {
        if let Some(started) = self.attempts.borrow_mut().get_mut(key)
            && started.attempt.is_same(attempt)
        {
            self.tell_end(key, started);
        }
    }

    /// The record of this key has just been read. What is registered and does not run here has lost its start or its end on the
    /// way: from now on it counts as in doubt for those who watch, once.
    pub(super) fn note_read(&self, key: &Key, record: Option<&Record>) {
        let left = record.filter(|record| record.state.status() == Status::Registered && !self.is_live(key));
        let before = match left {
            Some(record) => self.orphans.borrow_mut().insert(key.clone(), record.revision),
            None => return self.note_write(key),
        };
        if before != left.map(|record| record.revision) {
            self.observers.tell(Event::InDoubt { key });
        }
    }

    /// The key's record has been written: it is as it is stored.
    pub(super) fn note_write(&self, key: &Key) {
        self.orphans.borrow_mut().remove(key);
    }

    /// The key's actor has died with a write under way.
    pub(super) fn note_dead_writer(&self, key: &Key) {
        self.dead_writers.borrow_mut().insert(key.clone(), ());
    }

    /// A write of the key is decided, and so is every one that was proposed before it.
    pub(super) fn note_decided(&self, key: &Key) {
        self.dead_writers.borrow_mut().remove(key);
    }

    /// Whether a write that no actor knows of may be on its way to the store.
    pub(super) fn has_dead_writer(&self, key: &Key) -> bool {
        self.dead_writers.borrow().contains_key(key)
    }

    pub(super) fn is_orphan(&self, key: &Key, record: &Record) -> bool {
        self.orphans.borrow().get(key) == Some(&record.revision)
    }

    /// Nobody will hear of their ends.
    pub(super) fn note_all_ends(&self) {
        self.attempts.borrow_mut().iter_mut().for_each(|(key, started)| self.tell_end(key, started));
    }

    /// The flow of the attempt that runs.
    pub(super) fn flow(&self, key: &Key) -> Option<Flow> {
        self.attempts.borrow().get(key).map(|started| started.flow.clone())
    }

    /// For people.
    pub(super) fn look(&self, key: &Key) -> Option<InMemory> {
        let attempts = self.attempts.borrow();
        let unsaved = || self.unsaved.borrow().get(key).cloned();
        attempts.get(key).map(|started| InMemory { held: started.held.clone(), unsaved: unsaved() })
    }

    pub(super) fn is_live(&self, key: &Key) -> bool {
        self.attempts.borrow().contains_key(key)
    }

    /// The attempt's end is recorded, or its fate is out of our hands.
    pub(super) fn remove(&self, key: &Key, attempt: &AttemptId) {
        let mut attempts = self.attempts.borrow_mut();
        if attempts.get(key).is_some_and(|started| started.attempt.is_same(attempt))
            && let Some(mut removed) = attempts.remove(key)
        {
            self.tell_end(key, &mut removed);
            self.unsaved.borrow_mut().remove(key);
        }
    }

    /// The key's operation has ended; its end waits in memory to be saved.
    pub(super) fn set_unsaved(&self, key: &Key, meanwhile: Meanwhile) {
        if self.is_live(key) {
            self.unsaved.borrow_mut().insert(key.clone(), meanwhile);
        }
    }

    pub(super) fn unsaved(&self) -> usize {
        self.unsaved.borrow().len()
    }

    pub(super) fn len(&self) -> usize {
        self.attempts.borrow().len()
    }

    pub(super) fn abort_all(&self) {
        self.aborting.set(true);
        let attempts = self.attempts.borrow();
        let mut started: Vec<_> = attempts.iter().collect();
        // In an order that the same run has again: a simulation must repeat.
        started.sort_by_key(|(key, _)| *key);
        started.iter().for_each(|(_, started)| started.abort.abort());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.note_all_ends();
    }
}
