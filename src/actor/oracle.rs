//! Asking those who may know: who they are, what they have been asked, and the way of an answer back.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, hash_map};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinHandle};

use super::message::{Answer, RouterAddr};
use super::operation::Operation;
use super::permits::Permits;
use super::recoverer::Turn;
use crate::error::InvalidRecovery;
use crate::inquiry::{Found, Inquiry};
use crate::key::{Key, KeyMap};
use crate::policy::{Flow, InDoubt};
use crate::record::{BootId, Bytes, Record};
use crate::time::UnixMillis;

pub(crate) type Oracle = Arc<dyn Fn(Inquiry) -> Pin<Box<dyn Future<Output = Found> + Send>> + Send + Sync>;
pub(crate) type Rerun = Arc<dyn Fn(&Key, &Bytes) -> Operation + Send + Sync>;

/// How the records of a flow get out of doubt without a caller.
pub(crate) enum Means {
    Ask(Oracle),
    Rerun(Rerun),
}

/// What the host has registered, by the name of the flow.
pub(crate) struct Flows(HashMap<Box<str>, (Flow, Means)>);

impl Flows {
    /// Each fits the policy of its flow, which has no other.
    pub(crate) fn of(registered: Vec<(Flow, Means)>) -> Result<Self, InvalidRecovery> {
        let mut flows = HashMap::new();
        for (flow, means) in registered {
            let name = flow.name().to_owned();
            match (&means, flow.policy().in_doubt) {
                (Means::Ask(_), InDoubt::Ask) | (Means::Rerun(_), InDoubt::Rerun) => {}
                (Means::Ask(_), _) => return Err(InvalidRecovery::OracleNeverAsked(name)),
                (Means::Rerun(_), _) => return Err(InvalidRecovery::RerunNeverRun(name)),
            }
            match flows.entry(flow.name().into()) {
                hash_map::Entry::Occupied(_) => return Err(InvalidRecovery::Twice(name)),
                hash_map::Entry::Vacant(place) => drop(place.insert((flow, means))),
            }
        }
        Ok(Self(flows))
    }
}

/// What recovery goes by.
pub(crate) struct Recovery {
    pub(crate) flows: Flows,
    pub(crate) permits: Arc<Permits>,
    pub(crate) boot: BootId,
    pub(crate) opened_at: UnixMillis,
}

impl Recovery {
    pub(super) fn is_empty(&self) -> bool {
        self.flows.0.is_empty()
    }

    pub(super) fn of(&self, key: &Key) -> Option<&(Flow, Means)> {
        self.flows.0.get(key.flow())
    }

    pub(crate) fn has_oracle(&self, flow: &Flow) -> bool {
        matches!(self.flows.0.get(flow.name()), Some((_, Means::Ask(_))))
    }

    pub(crate) fn oracle(&self, key: &Key) -> Option<(&Flow, &Oracle)> {
        match self.of(key) {
            Some((flow, Means::Ask(oracle))) => Some((flow, oracle)),
            Some((_, Means::Rerun(_))) | None => None,
        }
    }
}

/// The inquiries under way: at most one per key. Like the table of what runs it outlives the key actors.
pub(super) struct Inquiries {
    runtime: Handle,
    timeout: Duration,
    asked: RefCell<KeyMap<Asked>>,
    made: Cell<u64>,
    reruns: Cell<u64>,
}

struct Asked {
    is_first: bool,
    task: AbortHandle,
}

impl Inquiries {
    pub(super) fn new(runtime: Handle, timeout: Duration) -> Self {
        Self { runtime, timeout, asked: RefCell::default(), made: Cell::new(0), reruns: Cell::new(0) }
    }

    /// Asks about a record as it reads, unless that is being done. The answer goes to the router, in every case.
    pub(super) fn ask(
        &self,
        oracle: &Oracle,
        (key, record): (&Key, &Record),
        is_first: bool,
        turn: Option<Turn>,
        router: &RouterAddr,
    ) {
        let mut asked = self.asked.borrow_mut();
        let hash_map::Entry::Vacant(place) = asked.entry(key.clone()) else { return };
        let answer = Answer::pending(key, record, turn, Arc::clone(router));
        let (oracle, inquiry) = (Arc::clone(oracle), Inquiry::about(key, record));
        // Also the making of the future is the host's code.
        let task = self.runtime.spawn(async move { oracle(inquiry).await });
        place.insert(Asked { is_first, task: task.abort_handle() });
        self.made.set(self.made.get().saturating_add(1));
        // The timer is on this thread: the host's runtime may have none.
        actix::spawn(hear(task, self.timeout, key.clone(), answer));
    }

    /// The answer has been dealt with, or nobody can.
    pub(super) fn remove(&self, key: &Key) {
        self.asked.borrow_mut().remove(key);
    }

    /// Whether the key is being asked about for the first time since the engine was opened.
    pub(super) fn is_first(&self, key: &Key) -> bool {
        self.asked.borrow().get(key).is_some_and(|asked| asked.is_first)
    }

    pub(super) fn len(&self) -> usize {
        self.asked.borrow().len()
    }

    pub(super) fn made(&self) -> u64 {
        self.made.get()
    }

    /// The other way out of doubt: a re-run without a caller has started.
    pub(super) fn count_rerun(&self) {
        self.reruns.set(self.reruns.get().saturating_add(1));
    }

    pub(super) fn reruns(&self) -> u64 {
        self.reruns.get()
    }

    /// Nobody wants to know any more.
    pub(super) fn abort_all(&self) {
        let asked = self.asked.borrow();
        let mut asked: Vec<_> = asked.iter().collect();
        // In an order that the same run has again: a simulation must repeat.
        asked.sort_by_key(|(key, _)| *key);
        asked.iter().for_each(|(_, asked)| asked.task.abort());
    }
}

async fn hear(task: JoinHandle<Found>, timeout: Duration, key: Key, answer: Answer) {
    if let Some(found) = said(task, timeout, &key).await {
        answer.send(found);
    }
}

/// What the oracle says, within its time.
pub(crate) async fn said(task: JoinHandle<Found>, timeout: Duration, key: &Key) -> Option<Found> {
    let abort = task.abort_handle();
    match tokio::time::timeout(timeout, task).await {
        Ok(Ok(found)) => return Some(found),
        Ok(Err(error)) if error.is_panic() => tracing::error!(%key, "the oracle panicked"),
        Ok(Err(_)) => tracing::debug!(%key, "the oracle was aborted"),
        Err(_) => {
            abort.abort();
            tracing::warn!(%key, "the oracle gave no answer in time");
        }
    }
    None
}
