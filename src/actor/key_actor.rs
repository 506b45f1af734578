//! One key while anything is in flight: its mailbox is the order of everything that happens to the key.
//!
//! Every handler is one synchronous transition: ask the machine, then either act on the step at once (nothing to write) or
//! propose the write and act on the step when it is durable. While a write is under way, what arrives waits in order; only
//! what the operation that runs has refused already is refused at once.
//!
//! Here is the way of a transition: it arrives, is decided, is written, and is acted on. How an operation comes to start, who
//! waits and what they are told, and what is done about doubt stand in files of their own.

mod doubt;
mod start;
mod waiters;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, Handler, SpawnHandle};

use super::message::{
    Alarmed, Answer, Ask, Doubt, Finish, Gone, Idle, Kept, Meanwhile, Origin, Proposal, Report, RouterAddr, TRIES,
    Ticket, ToKey,
};
use super::meters::Meters;
use super::oracle::{Inquiries, Recovery};
use super::outbox::Outbox;
use super::recoverer::Recoverer;
use super::running::Running;
use super::supervisor::Supervisor;
use crate::bounds::Limits;
use crate::error::{Error, ErrorKind};
use crate::machine::{self, Alarm, Event, Release, Said, Step, Write};
use crate::observe::{Event as Observed, Observers};
use crate::outcome::{End, How, Outcome, Reply};
use crate::policy::Flow;
use crate::record::{Bytes, Record, Status};
use crate::store::{Change, Store, StoreError, Verdict, Version};
use crate::time::{HighWater, Ticks};

/// How long an end waits before the store is read again for it.
const READ_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What every key actor of an engine shares.
pub(super) struct Surroundings {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<HighWater>,
    pub(super) ticks: Arc<Ticks>,
    pub(super) limits: Limits,
    pub(super) running: Running,
    pub(super) meters: Arc<Meters>,
    pub(super) observers: Arc<Observers>,
    pub(super) router: RouterAddr,
    pub(super) supervisor: Addr<Supervisor>,
    pub(super) outbox: Outbox,
    pub(super) recovery: Arc<Recovery>,
    pub(super) inquiries: Inquiries,
    /// `None` if nothing is recovered without a caller.
    pub(super) recoverer: Option<Addr<Recoverer>>,
}

pub(super) struct KeyActor {
    origin: Origin,
    around: Rc<Surroundings>,
    /// The record as last committed. Read at the first event, then kept up to date by this actor's own writes. One of which
    /// nothing is stored is [held](Self::held) elsewhere: it must outlive the actor.
    record: Loaded,
    /// The write under way. At most one: what arrives meanwhile is deferred.
    pending: Option<Pending>,
    deferred: VecDeque<Cause>,
    waiters: Vec<Ticket>,
    /// Retries that wait for the first answer of an oracle, and the timer that ends their wait.
    held: Vec<Ticket>,
    hold: Option<SpawnHandle>,
    /// An end for which the store could not be read, and whether a timer runs that reads it again.
    stalled: Option<Report>,
    reads_again: bool,
    draining: bool,
    /// Messages handled: the router compares it with what it sent before it lets the actor go.
    seen: u64,
    /// Whether it has told the router so after the last one.
    idle: bool,
}

enum Loaded {
    NotYet,
    Is(Option<Arc<Record>>),
}

/// What made a transition. All are guarded: dropped, they go back to the router.
enum Cause {
    Ticket(Ticket),
    Report(Report),
    Answer(Answer),
}

impl Cause {
    /// Should the actor die now, it is put down to this.
    fn take_in_hand(&mut self) {
        match self {
            Self::Ticket(ticket) => ticket.take_in_hand(),
            Self::Report(report) => report.take_in_hand(),
            Self::Answer(answer) => answer.take_in_hand(),
        }
    }

    /// It is kept, and innocent of what happens meanwhile.
    fn put_down(&mut self) {
        match self {
            Self::Ticket(ticket) => ticket.put_down(),
            Self::Report(report) => report.put_down(),
            Self::Answer(answer) => answer.put_down(),
        }
    }
}

struct Pending {
    cause: Cause,
    step: Step,
    /// How often the write was decided anew because the record had changed under it.
    tries: u8,
    /// Whether its end may leave before the write is durable, once every try has failed.
    may_leave_early: bool,
    /// The store has been down for so long that nobody is kept waiting for the write.
    unsaved: Option<Error>,
}

impl Pending {
    fn new(cause: Cause, step: Step, tries: u8) -> Self {
        Self { cause, step, tries, may_leave_early: false, unsaved: None }
    }

    fn early(&self) -> Option<&Result<Bytes, Error>> {
        match &self.step.waiters {
            Release::All(end) if self.may_leave_early => Some(end),
            Release::All(_) | Release::Starter(_) | Release::Nobody => None,
        }
    }

    /// What those who ask are told by, should its end have to wait to be saved.
    fn meanwhile(&self) -> Meanwhile {
        match (self.early(), &self.step.write) {
            (Some(_), Write::Put(record)) => Meanwhile::As(Arc::clone(record)),
            (Some(end), Write::Remove) => Meanwhile::End(end.clone()),
            _ => Meanwhile::Nothing,
        }
    }
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
            held: Vec::new(),
            hold: None,
            stalled: None,
            reads_again: false,
            draining,
            seen: 0,
            idle: false,
        }
    }

    fn arrive(&mut self, cause: Cause) {
        let Some(pending) = &self.pending else { return self.decide(cause, 0) };
        let refused = match &cause {
            Cause::Ticket(ticket) => self.refused_meanwhile(ticket),
            Cause::Report(_) | Cause::Answer(_) => None,
        };
        match (cause, &pending.unsaved, refused) {
            (Cause::Ticket(ticket), Some(error), refused) => {
                let error = error.clone();
                let reply = refused.filter(|error| matches!(error.kind(), ErrorKind::Mismatch)).map(Err);
                let reply = reply.or_else(|| self.unsaved_reply(&ticket)).unwrap_or(Err(error));
                self.say(ticket, Said::Reply(reply));
            }
            (Cause::Ticket(ticket), None, Some(error)) => ticket.answer(Said::Reply(Err(error))),
            (Cause::Ticket(ticket), None, None) if ticket.is_of_a_caller() && self.is_full() => {
                ticket.refuse_to_wait();
            }
            (mut cause @ (Cause::Ticket(_) | Cause::Report(_) | Cause::Answer(_)), _, _) => {
                cause.put_down();
                self.deferred.push_back(cause);
            }
        }
    }

    /// While the operation runs, or its end is being saved, however long that takes: a mismatch, and a duplicate in a flow that
    /// lets none join. Both are true by the record as it is stored.
    fn refused_meanwhile(&self, ticket: &Ticket) -> Option<Error> {
        let held = self.held();
        let record = self.stored().or(held.as_deref())?;
        if !self.is_live() {
            return None;
        }
        match self.step_of_ticket(ticket, Some(record))?.caller {
            Said::Reply(Err(error)) if matches!(error.kind(), ErrorKind::Mismatch | ErrorKind::Duplicate(_)) => {
                Some(error)
            }
            _ => None,
        }
    }

    /// What an unsaved end, if it may leave early, makes of a request or a tracker: the same as if it were saved.
    fn unsaved_reply(&self, ticket: &Ticket) -> Option<Result<Reply, Error>> {
        match (self.pending.as_ref()?.meanwhile(), &ticket.question()?.ask) {
            (Meanwhile::As(record), Ask::Admit(..) | Ask::Track(_)) => {
                let step = self.step_of_ticket(ticket, Some(&record))?;
                match step.caller {
                    Said::Reply(reply) if step.write == Write::Keep => Some(reply),
                    _ => None,
                }
            }
            // Once it is saved there is nothing left to answer from: until then everybody shares the one end.
            (Meanwhile::End(end), Ask::Admit(..) | Ask::Track(_)) => {
                let joined = |answer| Reply::Answer(Outcome { how: How::Joined, answer });
                Some(end.map(joined))
            }
            _ => None,
        }
    }

    fn is_full(&self) -> bool {
        self.waiters.len() + self.held.len() + self.deferred.len() >= self.around.limits.waiters_per_key
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
        let held = self.held();
        let record = self.stored().or(held.as_deref());
        let step = match &cause {
            Cause::Ticket(ticket) => self.step_of_ticket(ticket, record),
            Cause::Report(report) => self.step_of_report(report, record),
            Cause::Answer(answer) => self.step_of_answer(answer, record),
        };
        match (cause, step) {
            // An end that nobody waits for any more.
            (Cause::Report(report), None) => report.done(),
            (Cause::Answer(answer), None) => self.answered(answer),
            (Cause::Ticket(_), None) => {}
            (Cause::Ticket(ticket), Some(step)) if ticket.full().is_some() => self.say_without_permit(ticket, step),
            (Cause::Ticket(ticket), Some(step)) if matches!(step.write, Write::Hold(_)) => {
                self.start_held(ticket, step, tries);
            }
            (cause, Some(step)) if step.write == Write::Keep => self.act(cause, step),
            (cause, Some(step)) => self.propose(Pending::new(cause, step, tries)),
        }
    }

    /// One without a permit is told what its record says, where nothing has to be written for that, or waits for what runs. It
    /// starts nothing.
    fn say_without_permit(&mut self, ticket: Ticket, step: Step) {
        let Some(bound) = ticket.full() else { return };
        let found_absent = matches!(self.record, Loaded::Is(None));
        match (step.write, step.caller) {
            (Write::Keep, reply @ Said::Reply(_)) => ticket.answer(reply),
            (Write::Keep, Said::Wait) if self.is_live() => self.say(ticket, Said::Wait),
            _ => ticket.refuse(ErrorKind::Busy { bound, found_absent }),
        }
    }

    fn load(&mut self) -> Result<(), StoreError> {
        if matches!(self.record, Loaded::NotYet) {
            let record = self.around.store.get(&self.origin.key)?;
            self.around.running.note_read(&self.origin.key, record.as_ref());
            if record.is_some() {
                self.around.running.let_go(&self.origin.key);
            }
            self.record = Loaded::Is(record.map(Arc::new));
        }
        Ok(())
    }

    fn stored(&self) -> Option<&Record> {
        self.shared().map(Arc::as_ref)
    }

    fn shared(&self) -> Option<&Arc<Record>> {
        match &self.record {
            Loaded::Is(record) => record.as_ref(),
            Loaded::NotYet => None,
        }
    }

    /// The record of the attempt that runs, where the store was read and has nothing of it. Events are decided on it as if it
    /// were stored; what is written then expects nothing there, so that it never takes the place of something else.
    fn held(&self) -> Option<Arc<Record>> {
        match &self.record {
            Loaded::Is(None) => self.around.running.held(&self.origin.key),
            Loaded::Is(Some(_)) | Loaded::NotYet => None,
        }
    }

    fn context<'a>(&self, flow: &'a Flow) -> machine::Context<'a> {
        let Surroundings { clock, ticks, limits, .. } = &*self.around;
        machine::Context::of(clock.read(), ticks.now(), flow.policy(), self.is_live(), limits)
    }

    fn step_of_ticket(&self, ticket: &Ticket, record: Option<&Record>) -> Option<Step> {
        let question = ticket.question()?;
        let event = match &question.ask {
            Ask::Admit(admission, _) => Event::Admit(admission),
            Ask::Rerun { attempt, admission, .. } => Event::Rerun { attempt: **attempt, admission },
            Ask::Track(fingerprint) => Event::Track(*fingerprint),
            Ask::Checkpoint { attempt, bytes, expires_at } => {
                Event::Checkpoint { attempt: *attempt, bytes: bytes.clone(), expires_at: *expires_at }
            }
            Ask::Resolve { attempt, end } => Event::Resolve { attempt: *attempt, end },
            Ask::Forget(downstream) => Event::Forget(downstream),
            Ask::Fence => Event::Fence,
            Ask::Abandon => Event::Abandon,
            Ask::Acknowledge => Event::Acknowledge,
            Ask::Disturb => Event::Disturb,
            Ask::Rows(rows) => Event::Rows(rows),
        };
        Some(machine::step(record, event, self.context(&question.flow)))
    }

    fn step_of_report(&self, report: &Report, record: Option<&Record>) -> Option<Step> {
        let Finish { attempt, end, guarded, .. } = report.finish()?;
        let flow = self.around.running.flow(&self.origin.key)?;
        let event = match end {
            End::Definitive(reason) if *guarded => Event::Guarded { attempt: *attempt, reason },
            end => Event::Finish { attempt: *attempt, end },
        };
        Some(machine::step(record, event, self.context(&flow)))
    }

    fn propose(&mut self, mut pending: Pending) {
        let expected = self.stored().map(Version::of);
        if let (Cause::Report(_), Some(flow)) = (&pending.cause, self.around.running.flow(&self.origin.key)) {
            pending.may_leave_early = pending.step.unsaved(flow.policy()).is_some();
        }
        let rows = std::mem::take(&mut pending.step.rows);
        let change = |put| Some(Change { rows, ..Change::new(self.origin.key.clone(), expected, put) });
        let change = match &pending.step.write {
            Write::Keep | Write::Touch | Write::Hold(_) => None,
            Write::Put(record) => change(Some(Arc::clone(record))),
            Write::Remove | Write::Rows => change(None),
        };
        let is_end = matches!(pending.cause, Cause::Report(_));
        let mut proposal = Proposal::new(self.origin.clone(), change, is_end, Arc::clone(&self.around.router));
        proposal.doubt = self.doubt(&pending.step.write);
        pending.cause.put_down();
        self.pending = Some(pending);
        self.around.outbox.propose(proposal);
    }

    /// What this write does to the doubt about the record.
    fn doubt(&self, write: &Write) -> Option<Doubt> {
        let is_in_doubt = |record: &Record| record.state.status() == Status::InDoubt;
        let before = match &self.record {
            Loaded::Is(Some(record)) => is_in_doubt(record) || self.around.running.is_orphan(&self.origin.key, record),
            Loaded::Is(None) | Loaded::NotYet => false,
        };
        let after = match write {
            Write::Keep | Write::Touch | Write::Rows | Write::Hold(_) => return None,
            Write::Put(record) => is_in_doubt(record),
            Write::Remove => false,
        };
        match (before, after) {
            (false, true) => Some(Doubt::Begins),
            (true, false) => Some(Doubt::Ends),
            (true, true) | (false, false) => None,
        }
    }

    fn take_in_hand(&mut self, message: &mut ToKey) {
        match message {
            ToKey::Ticket(ticket) => ticket.take_in_hand(),
            ToKey::Report(report) => report.take_in_hand(),
            ToKey::Answer(answer) => answer.take_in_hand(),
            ToKey::Decided(_) => self.pending.iter_mut().for_each(|pending| pending.cause.take_in_hand()),
            ToKey::Recover(_)
            | ToKey::Unsaved(_)
            | ToKey::Abandon(_)
            | ToKey::EndLost
            | ToKey::Drain
            | ToKey::LastRound(_) => {}
        }
    }

    /// The transaction with the write under way has ended.
    fn decided(&mut self, verdict: Result<Verdict, StoreError>) {
        let Some(mut pending) = self.pending.take() else { return };
        if verdict.is_ok() {
            // Writes are decided in order: one of an actor that died before this was is decided, too.
            self.around.running.note_decided(&self.origin.key);
        }
        match verdict {
            Ok(Verdict::Applied) => {
                let written = match std::mem::replace(&mut pending.step.write, Write::Keep) {
                    Write::Keep | Write::Touch | Write::Rows | Write::Hold(_) => None,
                    Write::Put(record) => Some(Some(record)),
                    Write::Remove => Some(None),
                };
                if let Some(record) = written {
                    self.around.running.note_write(&self.origin.key);
                    self.around.running.let_go(&self.origin.key);
                    self.record = Loaded::Is(record);
                }
                self.act(pending.cause, pending.step);
            }
            Ok(Verdict::Fenced) if pending.tries < TRIES => {
                self.record = Loaded::NotYet;
                self.decide(pending.cause, pending.tries + 1);
            }
            // Nobody else writes this key: that it is never where it was just read is a bug.
            Ok(Verdict::Fenced) => {
                self.record = Loaded::NotYet;
                match pending.cause {
                    Cause::Ticket(ticket) => ticket.refuse(ErrorKind::Internal),
                    Cause::Report(report) => self.end_unrecorded(report, &ErrorKind::Internal.into()),
                    Cause::Answer(answer) => self.answered(answer),
                }
            }
            Ok(Verdict::Guarded) => match pending.cause {
                Cause::Ticket(ticket) => ticket.answer(Said::Guarded),
                Cause::Report(mut report) => {
                    report.set_guarded();
                    self.decide(Cause::Report(report), pending.tries);
                }
                Cause::Answer(answer) => self.answered(answer),
            },
            Ok(Verdict::Quarantined) => self.give_up(pending.cause, &StoreError::Quarantined),
            Ok(Verdict::QuotaExceeded) => match pending.cause {
                Cause::Ticket(ticket) => ticket.refuse(ErrorKind::QuotaExceeded),
                Cause::Report(report) => self.end_unrecorded(report, &ErrorKind::Store.into()),
                Cause::Answer(answer) => self.answered(answer),
            },
            Err(error) => {
                if let Release::All(_) = pending.step.waiters {
                    // It may have landed, and then what they wait for has been.
                    self.release(Release::All(Err(unavailable(&error))));
                }
                self.give_up(pending.cause, &error);
            }
        }
    }

    /// Acts on a step whose write is durable.
    fn act(&mut self, cause: Cause, step: Step) {
        match cause {
            Cause::Report(report) => {
                // An end that comes a second time, after its actor died, finds what it did itself the first time.
                if let Some(alarm) = step.alarm.filter(|_| !report.is_resent()) {
                    self.raise(alarm);
                }
                self.end(&report, step.waiters);
                report.done();
            }
            Cause::Answer(answer) => {
                if let Some(alarm) = step.alarm {
                    self.raise(alarm);
                }
                self.release(step.waiters);
                self.answered(answer);
            }
            Cause::Ticket(ticket) => {
                if let Some(alarm) = step.alarm {
                    self.raise(alarm);
                }
                self.release(step.waiters);
                self.say(ticket, step.caller);
            }
        }
    }

    fn raise(&self, alarm: Alarm) {
        let key = &self.origin.key;
        self.around.observers.tell(match alarm {
            Alarm::Contradiction(recorded) => Observed::Contradiction { key, recorded },
            Alarm::FencedOff => Observed::FencedOff { key },
            Alarm::DeadLetter => Observed::DeadLetter { key },
        });
        match alarm {
            Alarm::Contradiction(_) | Alarm::FencedOff => {
                tracing::error!(%key, ?alarm, "an end did not fit the record")
            }
            Alarm::DeadLetter => tracing::error!(%key, "nobody can tell how it ended: a dead letter"),
        }
        self.around.router.do_send(Alarmed(alarm));
    }

    /// The report has been dealt with; nothing of its attempt runs here any more. Whoever still waits asks again: for a
    /// dispatched record they go on waiting, and where an earlier actor of this key has recorded the end they read it.
    fn end(&mut self, report: &Report, release: Release) {
        if let Some(finish) = report.finish() {
            self.around.running.remove(&self.origin.key, &finish.attempt);
        }
        self.release(release);
        self.ask_again();
        self.ask_after_end();
    }

    /// The end is kept until it can be saved. Nothing runs any more that a shutdown would have to wait for.
    fn note_kept(&self, meanwhile: Meanwhile) {
        self.around.running.set_unsaved(&self.origin.key, meanwhile);
        self.around.router.do_send(Kept);
    }

    /// The end could not be recorded: whoever waits is told that the outcome is unknown, and the record is in doubt.
    fn end_unrecorded(&mut self, report: Report, error: &Error) {
        self.record = Loaded::NotYet;
        self.end(&report, Release::All(Err(error.clone())));
        report.lose(&self.around.observers);
    }

    /// The store could not be asked, or the fate of a write is unknown. What is in memory proves nothing any more.
    fn give_up(&mut self, cause: Cause, error: &StoreError) {
        self.record = Loaded::NotYet;
        self.wake_in_time();
        let reply = unavailable(error);
        if !self.is_live() {
            // The end that they wait for may be what was just written, and nobody would come back to tell them.
            self.release(Release::All(Err(reply.clone())));
        }
        match cause {
            Cause::Ticket(ticket) => ticket.answer(Said::Reply(Err(reply))),
            // An end exists nowhere else. While the store can't be read it is kept, and the attempt counts as running.
            Cause::Report(mut report) if error.is_passing() => {
                self.release(Release::All(Err(reply)));
                report.put_down();
                report.mark_unsaved(&self.around.meters, &self.around.observers);
                self.stalled = Some(report);
                self.note_kept(Meanwhile::Stored);
            }
            Cause::Report(report) => self.end_unrecorded(report, &reply),
            // It can be asked for again.
            Cause::Answer(answer) => self.answered(answer),
        }
    }

    fn is_live(&self) -> bool {
        self.around.running.is_live(&self.origin.key)
    }

    fn is_in_doubt(&self) -> bool {
        let Loaded::Is(Some(record)) = &self.record else { return false };
        // What is still registered and does not run here reads as in doubt.
        matches!(record.state.status(), Status::Registered | Status::InDoubt)
    }

    fn is_idle(&self) -> bool {
        let nobody_waits = self.waiters.is_empty() && self.held.is_empty();
        self.pending.is_none() && self.deferred.is_empty() && nobody_waits && !self.is_live()
    }

    fn read_again(&mut self) {
        if let Some(mut report) = self.stalled.take() {
            report.take_in_hand();
            self.arrive(Cause::Report(report));
        }
    }

    /// What a handler leaves behind: whatever was deferred and can go on, an end to be tried again, news for the router.
    fn after(&mut self, ctx: &mut Context<Self>) {
        self.let_go_of_ended();
        while self.pending.is_none()
            && let Some(mut cause) = self.deferred.pop_front()
        {
            cause.take_in_hand();
            self.decide(cause, 0);
        }
        if self.stalled.is_some() && !std::mem::replace(&mut self.reads_again, true) {
            ctx.run_later(READ_AGAIN_AFTER, |actor, ctx| {
                actor.reads_again = false;
                actor.read_again();
                actor.after(ctx);
            });
        }
        self.limit_the_wait(ctx);
        if self.is_idle() {
            self.around.outbox.note_idle(Idle { origin: self.origin.clone(), seen: self.seen });
            self.idle = true;
        }
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
        | StoreError::AlreadyOpen
        | StoreError::Stale { .. }
        | StoreError::Settings(_) => ErrorKind::Store,
    };
    Error::caused_by(kind, error.clone())
}

impl Drop for KeyActor {
    /// After a panic the router must not go on believing in this actor. One that is idle goes because the router lets it.
    fn drop(&mut self) {
        if self.pending.is_some() {
            self.around.running.note_dead_writer(&self.origin.key);
        }
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

    fn handle(&mut self, mut message: ToKey, ctx: &mut Self::Context) {
        self.seen += 1;
        self.idle = false;
        self.take_in_hand(&mut message);
        #[cfg(test)]
        super::tests::panic_if_told(&self.origin.key, &message);
        match message {
            ToKey::Ticket(ticket) => self.arrive(Cause::Ticket(ticket)),
            ToKey::Report(report) => self.arrive(Cause::Report(report)),
            ToKey::Answer(answer) => self.arrive(Cause::Answer(answer)),
            ToKey::Recover(recover) => self.recover(*recover),
            ToKey::Decided(verdict) => self.decided(verdict),
            ToKey::Unsaved(error) => self.stop_waiting(&unavailable(&error)),
            ToKey::Abandon(waiter) => self.abandon(waiter),
            ToKey::EndLost => self.ask_again(),
            ToKey::LastRound(_) => self.read_again(),
            ToKey::Drain => self.drain(),
        }
        self.after(ctx);
    }
}
