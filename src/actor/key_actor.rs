//! One key while anything is in flight: its mailbox is the order of everything that happens to the key.
//!
//! Every handler is one synchronous transition: ask the machine, then either act on the step at once (nothing to write) or
//! propose the write and act on the step when it is durable. While a write is under way, what arrives waits in order.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, Addr, Context, Handler};

use super::message::{Ask, Finish, Gone, Idle, Origin, Proposal, Report, RouterAddr, TRIES, Ticket, ToKey};
use super::running::Running;
use super::saver::Saver;
use super::supervisor::Supervisor;
use crate::attempt::Attempt;
use crate::bounds::Limits;
use crate::error::{Error, ErrorKind};
use crate::machine::{self, Event, Release, Said, Step, Write};
use crate::outcome::{How, Outcome, Reply};
use crate::policy::Flow;
use crate::record::{Bytes, Record};
use crate::store::{Change, Store, StoreError, Verdict, Version};
use crate::time::HighWater;

/// What every key actor of an engine shares.
pub(super) struct Surroundings {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<HighWater>,
    pub(super) limits: Limits,
    pub(super) running: Running,
    pub(super) router: RouterAddr,
    pub(super) supervisor: Addr<Supervisor>,
}

pub(super) struct KeyActor {
    origin: Origin,
    around: Rc<Surroundings>,
    /// The record as last committed. Read at the first event, then kept up to date by this actor's own writes.
    record: Loaded,
    /// The write under way. At most one: what arrives meanwhile is deferred.
    pending: Option<Pending>,
    deferred: VecDeque<Cause>,
    waiters: Vec<Waiter>,
    draining: bool,
    /// Messages handled: the router compares it with what it sent before it lets the actor go.
    seen: u64,
    /// Whether it has told the router so after the last one.
    idle: bool,
}

enum Loaded {
    NotYet,
    Is(Option<Box<Record>>),
}

/// What made a transition. Both are guarded: dropped, they go back to the router.
enum Cause {
    Ticket(Ticket),
    Report(Report),
}

struct Pending {
    cause: Cause,
    step: Step,
    /// How often the write was decided anew because the record had changed under it.
    tries: u8,
}

struct Waiter {
    ticket: Ticket,
    how: How,
}

impl KeyActor {
    pub(super) fn new(origin: Origin, draining: bool, around: Rc<Surroundings>) -> Self {
        Self {
            origin,
            around,
            record: Loaded::NotYet,
            pending: None,
            deferred: VecDeque::new(),
            waiters: Vec::new(),
            draining,
            seen: 0,
            idle: false,
        }
    }

    fn arrive(&mut self, cause: Cause) {
        if self.pending.is_none() {
            return self.decide(cause, 0);
        }
        match cause {
            Cause::Ticket(ticket) if self.is_full() => ticket.refuse(ErrorKind::Busy),
            cause @ (Cause::Ticket(_) | Cause::Report(_)) => self.deferred.push_back(cause),
        }
    }

    fn is_full(&self) -> bool {
        self.waiters.len() + self.deferred.len() >= self.around.limits.waiters_per_key
    }

    /// Lets the machine decide, and acts on its step or proposes the write.
    fn decide(&mut self, cause: Cause, tries: u8) {
        let cause = match self.register_unread(cause, tries) {
            Some(cause) => cause,
            None => return,
        };
        if let Err(error) = self.load() {
            return self.give_up(cause, &error);
        }
        let step = match (&cause, &self.record) {
            (Cause::Ticket(ticket), Loaded::Is(record)) => self.step_of_ticket(ticket, record.as_deref()),
            (Cause::Report(report), Loaded::Is(record)) => self.step_of_report(report, record.as_deref()),
            (_, Loaded::NotYet) => None,
        };
        match step {
            // An end that nobody waits for any more.
            None => {
                if let Cause::Report(report) = cause {
                    report.done();
                }
            }
            Some(step) if step.write == Write::Keep => self.act(cause, step),
            Some(step) => self.propose(Pending { cause, step, tries }),
        }
    }

    /// Where the caller has just found the key absent, its registration is proposed without looking again: if that is no
    /// longer so, the write is fenced off and decided anew. What writes nothing is not decided on old news.
    fn register_unread(&mut self, cause: Cause, tries: u8) -> Option<Cause> {
        let (Loaded::NotYet, Cause::Ticket(ticket)) = (&self.record, &cause) else { return Some(cause) };
        if tries > 0 || !ticket.question().is_some_and(|question| question.found_absent) {
            return Some(cause);
        }
        match self.step_of_ticket(ticket, None) {
            Some(step) if matches!(step.write, Write::Put(_)) => {
                self.propose(Pending { cause, step, tries });
                None
            }
            _ => Some(cause),
        }
    }

    fn load(&mut self) -> Result<(), StoreError> {
        if matches!(self.record, Loaded::NotYet) {
            self.record = Loaded::Is(self.around.store.get(&self.origin.key)?.map(Box::new));
        }
        Ok(())
    }

    fn context<'a>(&self, flow: &'a Flow) -> machine::Context<'a> {
        machine::Context {
            now: self.around.clock.now(),
            policy: flow.policy(),
            live: self.is_live(),
            recoveries: self.around.limits.recoveries,
            answer_bytes: self.around.limits.answer_bytes,
        }
    }

    fn step_of_ticket(&self, ticket: &Ticket, record: Option<&Record>) -> Option<Step> {
        let question = ticket.question()?;
        let event = match &question.ask {
            Ask::Admit(admission, _) => Event::Admit(admission),
            Ask::Track(fingerprint) => Event::Track(*fingerprint),
            Ask::Checkpoint { attempt, bytes, expires_at } => {
                Event::Checkpoint { attempt: *attempt, bytes: bytes.clone(), expires_at: *expires_at }
            }
            Ask::Resolve { attempt, end } => Event::Resolve { attempt: *attempt, end },
            Ask::Forget => Event::Forget,
            Ask::Fence => Event::Fence,
        };
        Some(machine::step(record, event, self.context(&question.flow)))
    }

    fn step_of_report(&self, report: &Report, record: Option<&Record>) -> Option<Step> {
        let Finish { attempt, end, .. } = report.finish()?;
        let live = self.around.running.live(&self.origin.key)?;
        Some(machine::step(record, Event::Finish { attempt: *attempt, end }, self.context(&live.flow)))
    }

    fn propose(&mut self, pending: Pending) {
        let expected = match &self.record {
            Loaded::Is(Some(record)) => Some(Version::of(record)),
            Loaded::Is(None) | Loaded::NotYet => None,
        };
        let change = |put| Some(Change { key: self.origin.key.clone(), expected, put });
        let change = match &pending.step.write {
            Write::Keep | Write::Touch => None,
            Write::Put(record) => change(Some(record.clone())),
            Write::Remove => change(None),
        };
        let proposal = Proposal::new(self.origin.clone(), change, Arc::clone(&self.around.router));
        self.pending = Some(pending);
        self.around.supervisor.do_send(proposal);
    }

    /// The transaction with the write under way has ended.
    fn decided(&mut self, verdict: Result<Verdict, StoreError>) {
        let Some(mut pending) = self.pending.take() else { return };
        match verdict {
            Ok(Verdict::Applied) => {
                match std::mem::replace(&mut pending.step.write, Write::Keep) {
                    Write::Keep | Write::Touch => {}
                    Write::Put(record) => self.record = Loaded::Is(Some(record)),
                    Write::Remove => self.record = Loaded::Is(None),
                }
                self.act(pending.cause, pending.step);
            }
            Ok(Verdict::Fenced) if pending.tries < TRIES => {
                self.record = Loaded::NotYet;
                self.decide(pending.cause, pending.tries + 1);
            }
            Ok(Verdict::Fenced) => self.give_up(pending.cause, &StoreError::Closed),
            Ok(Verdict::Quarantined) => self.give_up(pending.cause, &StoreError::Quarantined),
            Ok(Verdict::QuotaExceeded) => match pending.cause {
                Cause::Ticket(ticket) => ticket.refuse(ErrorKind::QuotaExceeded),
                Cause::Report(report) => self.end_unrecorded(report, &ErrorKind::Store.into()),
            },
            Err(error) => self.give_up(pending.cause, &error),
        }
        while self.pending.is_none()
            && let Some(cause) = self.deferred.pop_front()
        {
            self.decide(cause, 0);
        }
    }

    /// Acts on a step whose write is durable.
    fn act(&mut self, cause: Cause, step: Step) {
        if let Some(alarm) = step.alarm {
            tracing::error!(key = %self.origin.key, ?alarm, "an end did not fit the record");
            self.around.router.do_send(super::message::Alarmed);
        }
        self.release(step.waiters);
        match cause {
            Cause::Report(report) => self.end(report),
            Cause::Ticket(ticket) => match step.caller {
                Said::Start => self.start(ticket),
                Said::Wait if self.waiters.len() >= self.around.limits.waiters_per_key => {
                    ticket.refuse(ErrorKind::Busy)
                }
                Said::Wait if self.draining && !self.is_live() => ticket.refuse(ErrorKind::Closed),
                Said::Wait => self.wait(ticket, How::Joined),
                // It was told to wait, its actor died, and the attempt has ended and been forgotten since: the end is lost.
                Said::Reply(Err(error))
                    if matches!(error.kind(), ErrorKind::NotFound)
                        && ticket.question().is_some_and(|q| q.tries > 0) =>
                {
                    ticket.refuse(ErrorKind::Internal);
                }
                said @ (Said::Nothing
                | Said::Reply(_)
                | Said::Saved
                | Said::FencedOff
                | Said::Resolved(_)
                | Said::Forgotten(_)
                | Said::Fenced(_)) => ticket.answer(said),
            },
        }
    }

    /// Starts the operation of the record just written.
    fn start(&mut self, mut ticket: Ticket) {
        let (Loaded::Is(Some(record)), Some(question)) = (&self.record, ticket.question_mut()) else { return };
        let Ask::Admit(_, operation) = &mut question.ask else { return };
        let Some(operation) = operation.take() else { return ticket.refuse(ErrorKind::Internal) };
        let Surroundings { running, router, limits, .. } = &*self.around;
        let (flow, key) = (&question.flow, &question.key);
        let saver = Saver::new(flow, key, limits.answer_bytes, router);
        let attempt = Attempt::new(record, Box::new(saver));
        running.start((flow, key), attempt, operation, question.permit.take(), router);
        self.wait(ticket, How::Executed);
    }

    /// From here on the ticket stands for waiting, not for asking again: lost and handed to a fresh actor, it must neither run
    /// nor be refused as a duplicate of itself.
    fn wait(&mut self, mut ticket: Ticket, how: How) {
        if let Some(question) = ticket.question_mut()
            && let Ask::Admit(admission, _) = &question.ask
        {
            question.ask = Ask::Track(Some(admission.fingerprint));
        }
        self.waiters.push(Waiter { ticket, how });
    }

    fn release(&mut self, release: Release) {
        match release {
            Release::Nobody => {}
            Release::Accepted => {
                let started = self.waiters.extract_if(.., |waiter| waiter.how == How::Executed);
                started.for_each(|waiter| waiter.ticket.answer(Said::Reply(Ok(Reply::Accepted))));
            }
            Release::All(end) => self.waiters.drain(..).for_each(|waiter| waiter.hear(&end)),
        }
    }

    /// The report has been dealt with; nothing of its attempt runs here any more.
    fn end(&mut self, report: Report) {
        if let Some(finish) = report.finish() {
            self.around.running.remove(&self.origin.key, &finish.attempt);
        }
        report.done();
    }

    /// The end could not be recorded: whoever waits is told that the outcome is unknown, and the record is in doubt.
    fn end_unrecorded(&mut self, report: Report, error: &Error) {
        self.record = Loaded::NotYet;
        self.release(Release::All(Err(error.clone())));
        self.end(report);
    }

    /// The store could not be asked, or the fate of a write is unknown. What is in memory proves nothing any more.
    fn give_up(&mut self, cause: Cause, error: &StoreError) {
        self.record = Loaded::NotYet;
        let error = unavailable(error);
        match cause {
            Cause::Ticket(ticket) => ticket.answer(Said::Reply(Err(error))),
            Cause::Report(report) => self.end_unrecorded(report, &error),
        }
    }

    fn is_live(&self) -> bool {
        self.around.running.is_live(&self.origin.key)
    }

    fn is_idle(&self) -> bool {
        self.pending.is_none() && self.deferred.is_empty() && self.waiters.is_empty() && !self.is_live()
    }

    fn drain(&mut self) {
        self.draining = true;
        if !self.is_live() {
            self.release(Release::All(Err(ErrorKind::Closed.into())));
        }
    }
}

impl Waiter {
    fn hear(self, end: &Result<Bytes, Error>) {
        let reply = match end {
            Ok(answer) => Ok(Reply::Answer(Outcome { how: self.how, answer: answer.clone() })),
            Err(error) => Err(error.clone()),
        };
        self.ticket.answer(Said::Reply(reply));
    }
}

/// What a caller is told when the store could not do as asked.
pub(crate) fn unavailable(error: &StoreError) -> Error {
    let kind = match error {
        StoreError::Quarantined => ErrorKind::Quarantined,
        StoreError::Closed => ErrorKind::Closed,
        StoreError::Io(_)
        | StoreError::RolledBack(_)
        | StoreError::Corrupt(_)
        | StoreError::UnsupportedVersion { .. }
        | StoreError::AlreadyOpen => ErrorKind::Store,
    };
    Error::caused_by(kind, error.clone())
}

impl Drop for KeyActor {
    /// After a panic the router must not go on believing in this actor. One that is idle goes because the router lets it.
    fn drop(&mut self) {
        if !self.idle {
            self.around.router.do_send(Gone(self.origin.clone()));
        }
    }
}

impl Actor for KeyActor {
    type Context = Context<Self>;
}

impl Handler<ToKey> for KeyActor {
    type Result = ();

    fn handle(&mut self, message: ToKey, _: &mut Self::Context) {
        self.seen += 1;
        self.idle = false;
        #[cfg(test)]
        super::tests::panic_if_told(&message);
        match message {
            ToKey::Ticket(ticket) => self.arrive(Cause::Ticket(ticket)),
            ToKey::Report(report) => self.arrive(Cause::Report(report)),
            ToKey::Decided(verdict) => self.decided(verdict),
            ToKey::Abandon(waiter) => {
                let left = |ticket: &Ticket| ticket.question().is_none_or(|question| question.waiter == waiter);
                self.waiters.extract_if(.., |waiter| left(&waiter.ticket)).for_each(|waiter| {
                    waiter.ticket.refuse(ErrorKind::Closed);
                });
            }
            ToKey::Drain => self.drain(),
        }
        if self.is_idle() {
            self.around.router.do_send(Idle { origin: self.origin.clone(), seen: self.seen });
            self.idle = true;
        }
    }
}
