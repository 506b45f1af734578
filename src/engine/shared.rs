//! What the handles of one engine share, and the way of a question from a caller's thread to the actors.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::actor::message::{Ask, Question, Submit, Ticket, tell};
use crate::actor::{Actors, Ending, Operation, Permit, Permits, Recovery, said, unavailable};
use crate::bounds::{Limits, PAYLOAD_BYTES_CEILING};
use crate::call::Call;
use crate::entropy::Entropy;
use crate::error::{Bound, Error, ErrorKind};
use crate::explain::Prospect;
use crate::fingerprint::Fingerprint;
use crate::inquiry::{Found, Inquiry};
use crate::key::{InvalidKey, Key};
use crate::machine::{self, Admission, Downstream, Event, Said, Write};
use crate::outcome::{Acknowledged, Reply};
use crate::policy::Flow;
use crate::record::{BootId, Bytes, Record, State, Token};
use crate::store::Store;
use crate::time::{HighWater, Ticks};
use crate::waiting::{Waiting, unexpected};

pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<HighWater>,
    pub(crate) limits: Limits,
    pub(crate) permits: Arc<Permits>,
    /// For those who wait without asking to run: what they wait for may take days, and must keep nobody from running.
    pub(crate) trackers: Arc<Permits>,
    /// For those who found no room to run in and ask how their key stands.
    pub(crate) askers: Arc<Permits>,
    pub(crate) entropy: Entropy,
    pub(crate) boot: BootId,
    pub(crate) ticks: Arc<Ticks>,
    pub(crate) recovery: Arc<Recovery>,
    pub(crate) waiters: AtomicU64,
    pub(crate) closing: AtomicBool,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) actors: Actors,
}

impl Drop for Shared {
    /// Signals only: this may be a thread of a runtime, where nothing may block.
    fn drop(&mut self) {
        self.actors.stop(Ending::Drain);
    }
}

impl Shared {
    pub(super) fn check(&self, call: &Call) -> Result<Fingerprint, Error> {
        self.check_open(&call.flow, &call.key)?;
        if call.request.len() > PAYLOAD_BYTES_CEILING {
            // No setting admits it, so no record can exist for it, and it is not worth its hash.
            let (bytes, limit) = (call.request.len(), self.limits.request_bytes);
            return Err(ErrorKind::TooLarge { bytes, limit }.into());
        }
        Ok(Fingerprint::of(call.flow.name(), &call.request))
    }

    pub(super) fn check_open(&self, flow: &Flow, key: &Key) -> Result<(), Error> {
        if key.flow() != flow.name() {
            return Err(InvalidKey::OtherFlow.into());
        }
        if self.closing.load(Ordering::Acquire) {
            return Err(ErrorKind::Closed.into());
        }
        Ok(())
    }

    /// Answers from the record, or hands the request to the actors.
    pub(super) fn begin(&self, call: Call, operation: Operation) -> Result<Begun, Error> {
        let fingerprint = self.check(&call)?;
        let found = match self.answer_from_record(&call, fingerprint)? {
            LookedUp::Answer(reply) => return Ok(Begun::Answered(reply)),
            found => found,
        };
        let taken = self.permits.take(&call.key);
        let full = taken.as_ref().err().copied();
        let permit = match (taken, &found) {
            (Ok(permit), _) => Some(permit),
            // What is on its way its key's actor knows.
            (Err(bound), found) => {
                let bound = if matches!(found, LookedUp::InFlight) { Bound::Waiters } else { bound };
                Some(self.askers.take(&call.key).map_err(|_| unlooked(bound))?)
            }
        };
        let (waiting, mut question) = self.prepare(call, fingerprint, operation, permit);
        question.found_absent = matches!(found, LookedUp::Absent) && full.is_none();
        question.full = full;
        self.send(question);
        Ok(Begun::Waiting(waiting))
    }

    fn admission(&self, call: &Call, fingerprint: Fingerprint, token: Token) -> Admission {
        let (bytes, limit) = (call.request.len(), self.limits.request_bytes);
        let barred = if bytes > limit {
            Some(ErrorKind::TooLarge { bytes, limit })
        } else {
            call.barred.clone().map(ErrorKind::Failed)
        };
        let request = call.request.clone();
        Admission { fingerprint, request, retention: call.retention, boot: self.boot, token, barred }
    }

    /// The answer of a finished record, read on the caller's thread: no permit, no actor, no commit.
    fn answer_from_record(&self, call: &Call, fingerprint: Fingerprint) -> Result<LookedUp, Error> {
        let record = match self.store.get(&call.key) {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(LookedUp::Absent),
            // What is in flight is known in memory also while the store can't be read.
            Err(error) if error.is_passing() => return Ok(LookedUp::Unanswered),
            Err(error) => return Err(unavailable(&error)),
        };
        if record.state.status().is_in_flight() {
            return Ok(LookedUp::InFlight);
        }
        let admission = self.admission(call, fingerprint, Token([0; 32]));
        let step = machine::step(Some(&record), Event::Admit(&admission), self.context(&call.flow, false));
        match (step.write, step.caller) {
            (Write::Keep, Said::Reply(reply)) => Ok(LookedUp::Answer(reply)),
            _ => Ok(LookedUp::Unanswered),
        }
    }

    fn context<'a>(&self, flow: &'a Flow, live: bool) -> machine::Context<'a> {
        machine::Context::of(self.clock.read(), self.ticks.now(), flow.policy(), live, &self.limits)
    }

    /// What the machine would make of a request that nobody makes.
    pub(super) fn prospect(
        &self,
        flow: &Flow,
        record: Option<&Record>,
        live: bool,
        fingerprint: Fingerprint,
    ) -> Prospect {
        let retention = Some(Duration::from_secs(1));
        let (request, token) = (Bytes::from([]), Token([0; 32]));
        let admission = Admission { fingerprint, request, retention, boot: self.boot, token, barred: None };
        match machine::step(record, Event::Admit(&admission), self.context(flow, live)).caller {
            Said::Start => Prospect::Runs,
            Said::Wait => Prospect::Joins,
            Said::Reply(Ok(_)) => Prospect::Replays,
            Said::Reply(Err(error)) => Prospect::Refused(error),
            other => Prospect::Refused(unexpected(other)),
        }
    }

    pub(super) fn is_dead_letter(&self, key: &Key, record: &Record) -> bool {
        let is_asked = self.recovery.oracle(key).is_some();
        machine::is_dead_letter(record, machine::recoveries_allowed(is_asked, self.limits.recoveries))
    }

    /// The wait and the question, not sent yet.
    pub(super) fn prepare(
        &self,
        call: Call,
        fingerprint: Fingerprint,
        operation: Operation,
        permit: Option<Permit>,
    ) -> (Waiting, Question) {
        let admission = self.admission(&call, fingerprint, self.entropy.token());
        let ask = Ask::Admit(admission, Some(operation));
        let (waiting, mut question) = self.question(call.flow, call.key, ask);
        question.permit = permit;
        let waiting = match call.deadline {
            None => waiting,
            Some(deadline) => waiting.until(deadline, &self.actors),
        };
        (waiting, question)
    }

    /// What the host itself decides about a key takes no permit: a peer that fills its scope must not stand in the way of it.
    pub(super) fn ask(&self, flow: &Flow, key: &Key, ask: Ask, permit: Option<Permit>) -> Result<Waiting, Error> {
        self.check_open(flow, key)?;
        let (waiting, mut question) = self.question(flow.clone(), key.clone(), ask);
        question.permit = permit;
        self.send(question);
        Ok(waiting)
    }

    pub(super) async fn acknowledged(&self, flow: &Flow, key: &Key, ask: Ask) -> Result<Acknowledged, Error> {
        match self.ask(flow, key, ask, None)?.said().await? {
            Said::Acknowledged(acknowledged) => Ok(acknowledged),
            other => Err(unexpected(other)),
        }
    }

    /// What the flow's oracle, if it has one, knows of a record that has ended. That somebody ends it meanwhile changes nothing: what
    /// was said is of the attempt that was asked about.
    pub(super) async fn ask_downstream(&self, key: &Key) -> Result<Downstream, Error> {
        let Some((_, oracle)) = self.recovery.oracle(key) else { return Ok(Downstream::NobodyKnows) };
        let record = self.store.get(key).map_err(|error| unavailable(&error))?;
        let Some(record) = record.filter(|record| matches!(record.state, State::Completed(_) | State::Failed(..)))
        else {
            return Ok(Downstream::NotAsked);
        };
        let (oracle, inquiry) = (Arc::clone(oracle), Inquiry::about(key, &record));
        let task = self.runtime.spawn(async move { oracle(inquiry).await });
        let (reply, heard) = oneshot::channel();
        let (timeout, of) = (self.limits.oracle_timeout, key.clone());
        // The timer is on the engine's own thread: the host's runtime may have none.
        self.actors.spawn(async move { tell(reply, said(task, timeout, &of).await) });
        let found = heard.await.ok().flatten().unwrap_or(Found::CannotTell);
        Ok(Downstream::Said(record.attempt, found))
    }

    fn question(&self, flow: Flow, key: Key, ask: Ask) -> (Waiting, Question) {
        let (reply, heard) = oneshot::channel();
        let waiter = self.waiters.fetch_add(1, Ordering::Relaxed);
        let router = &self.actors.router;
        let waiting = Waiting::new(heard, waiter, key.clone(), Arc::clone(router));
        (waiting, Question::new((flow, key), ask, reply, waiter, Arc::clone(router)))
    }

    pub(super) fn send(&self, question: Question) {
        self.actors.router.do_send(Submit(Ticket::new(Box::new(question))));
    }
}

/// How a request begins.
pub(super) enum Begun {
    Answered(Result<Reply, Error>),
    Waiting(Waiting),
}

/// What came of looking a key up on the caller's thread.
enum LookedUp {
    Answer(Result<Reply, Error>),
    /// There is a record whose end is still to come.
    InFlight,
    /// There may be a record, and it takes more than reading it.
    Unanswered,
    Absent,
}

/// A bound was met, and the key had not been looked up, or something may be there.
pub(super) fn unlooked(bound: Bound) -> Error {
    ErrorKind::Busy { bound, found_absent: false }.into()
}
