//! What the actors say to each other. Everything that somebody waits for is guarded: dropped unread, it goes back to the
//! router instead of getting lost.

use std::sync::Arc;

use actix::{Addr, Message};
use tokio::sync::{mpsc, oneshot};

use super::meters::{Mark, Meters};
use super::operation::Operation;
use super::permits::Permit;
use super::recoverer::Turn;
use super::router::Router;
use crate::error::{Bound, Error, ErrorKind};
use crate::fingerprint::Fingerprint;
use crate::inquiry::Found;
use crate::key::Key;
use crate::ledger::Row;
use crate::machine::{Admission, Alarm, Downstream, Said};
use crate::observe::{Event, Observers};
use crate::outcome::{End, Ended, How, Reason};
use crate::policy::Flow;
use crate::record::{AttemptId, Bytes, Record};
use crate::store::{Change, StoreError, Verdict};
use crate::time::UnixMillis;

/// The router's address, shared: cloning an `Addr` itself costs two allocations.
pub(crate) type RouterAddr = Arc<Addr<Router>>;

/// How often a message is handed to a fresh key actor after one died with it in hand.
pub(super) const TRIES: u8 = 3;

/// Says it to whoever listens; that nobody does any more changes nothing.
pub(crate) fn tell<T>(listener: oneshot::Sender<T>, news: T) {
    if listener.send(news).is_err() {
        tracing::trace!("nobody listens any more");
    }
}

macro_rules! notices {
    ($($message:ty),* $(,)?) => { $(impl Message for $message { type Result = (); })* };
}

// One way: whoever wants an answer sends the way back along.
notices!(
    Lost,
    Submit,
    Finish,
    ToKey,
    Proposals,
    Decided,
    Unsaved,
    Alarmed,
    Heard,
    Recover,
    Kept,
    RoundEnds,
    Gone,
    Abandon,
    Drain,
    SettleAll,
    AbortOperations,
    Halt,
    LastRound,
    Look,
    Count,
    ExpirySweep,
    ExpirySlice,
    Tick,
);

/// What is asked of a key.
pub(crate) enum Ask {
    Admit(Admission, Option<Operation>),
    Track(Option<Fingerprint>),
    /// The engine itself asks for a re-run of this attempt's record.
    Rerun {
        /// Boxed: with it, every question would be as large as this one.
        attempt: Box<AttemptId>,
        admission: Admission,
        operation: Option<Operation>,
    },
    Checkpoint {
        attempt: AttemptId,
        bytes: Bytes,
        expires_at: Option<UnixMillis>,
    },
    Resolve {
        attempt: Option<AttemptId>,
        end: Ended,
    },
    Forget(Downstream),
    Fence,
    Abandon,
    Acknowledge,
    Disturb,
    Rows(Vec<Row>),
}

impl Ask {
    pub(super) fn is_checkpoint(&self) -> bool {
        matches!(self, Self::Checkpoint { .. })
    }
}

/// A question with the way back to whoever asked. It holds the admission permit until it is answered or its operation
/// takes the permit over.
pub(crate) struct Question {
    pub(crate) flow: Flow,
    pub(crate) key: Key,
    pub(crate) ask: Ask,
    pub(crate) reply: oneshot::Sender<Said>,
    /// Where it goes if nobody answers it.
    router: RouterAddr,
    pub(crate) permit: Option<Permit>,
    /// Whether the one who asks has just found the key absent. Old news: good for a write, which is compared with what is
    /// stored, and for nothing else.
    pub(crate) found_absent: bool,
    /// Met by one who asked to run: there is no permit. It hears what can be said all the same, and starts nothing.
    pub(crate) full: Option<Bound>,
    /// Names the one who waits, so that it can leave.
    pub(crate) waiter: u64,
    /// Set once it has been told to wait: how its answer will have come about. From then on it stands for waiting, not for
    /// asking.
    pub(crate) waiting: Option<How>,
    /// Whether it has waited for an oracle: it does so once.
    pub(crate) has_waited: bool,
    /// Key actors that died with it in hand; one more while an actor has it in hand. Those that died of something else while
    /// they kept it don't count.
    pub(crate) tries: u8,
}

impl Question {
    pub(crate) fn new(
        (flow, key): (Flow, Key),
        ask: Ask,
        reply: oneshot::Sender<Said>,
        waiter: u64,
        router: RouterAddr,
    ) -> Self {
        Self {
            flow,
            key,
            ask,
            reply,
            router,
            permit: None,
            found_absent: false,
            full: None,
            waiter,
            waiting: None,
            has_waited: false,
            tries: 0,
        }
    }

    /// The permit is given back first: whoever has its answer may ask again at once.
    pub(super) fn answer(self, said: Said) {
        drop(self.permit);
        tell(self.reply, said);
    }

    pub(super) fn refuse(self, kind: ErrorKind) {
        self.answer(Said::Reply(Err(Error::from(kind))));
    }
}

/// A [`Question`] on its way. Dropped unanswered, it returns to the router, which hands it to a fresh key actor: only the
/// look-up is repeated, never the operation.
pub(crate) struct Ticket {
    /// Boxed: it moves from mailbox to mailbox, and every message to a key actor is as large as the largest.
    question: Option<Box<Question>>,
}

impl Ticket {
    pub(crate) fn new(question: Box<Question>) -> Self {
        Self { question: Some(question) }
    }

    pub(super) fn question(&self) -> Option<&Question> {
        self.question.as_deref()
    }

    /// How the answer of one who waits will have come about.
    pub(super) fn how(&self) -> How {
        self.question.as_ref().and_then(|question| question.waiting).unwrap_or(How::Joined)
    }

    /// Whether it stands for one who asks for an answer. The host's own decisions and what the operation saves are no callers:
    /// these must not keep them out.
    pub(super) fn is_of_a_caller(&self) -> bool {
        self.question().is_some_and(|question| matches!(question.ask, Ask::Admit(..) | Ask::Track(_)))
    }

    /// The bound that stands in the way of what it asks for.
    pub(super) fn full(&self) -> Option<Bound> {
        self.question().and_then(|question| question.full)
    }

    pub(super) fn question_mut(&mut self) -> Option<&mut Question> {
        self.question.as_deref_mut()
    }

    pub(super) fn take_in_hand(&mut self) {
        if let Some(question) = &mut self.question {
            question.tries = question.tries.saturating_add(1);
        }
    }

    pub(super) fn put_down(&mut self) {
        if let Some(question) = &mut self.question {
            question.tries = question.tries.saturating_sub(1);
        }
    }

    pub(super) fn answer(mut self, said: Said) {
        if let Some(question) = self.question.take() {
            question.answer(said);
        }
    }

    pub(super) fn refuse(self, kind: ErrorKind) {
        self.answer(Said::Reply(Err(Error::from(kind))));
    }

    /// There is no room for one more who waits for the key.
    pub(super) fn refuse_to_wait(self) {
        self.refuse(ErrorKind::Busy { bound: Bound::Waiters, found_absent: false });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(question) = self.question.take() {
            let router = Arc::clone(&question.router);
            router.do_send(Lost(question));
        }
    }
}

/// A question whose key actor died with it.
pub(super) struct Lost(pub(super) Box<Question>);

/// A question from outside.
pub(crate) struct Submit(pub(crate) Ticket);

/// The guard that travels with an operation, and reports its end to the router. Dropped before, it reports that the operation
/// panicked or was aborted.
pub(super) struct Unreported {
    /// `None` once it is done.
    attempt: Option<(Key, AttemptId, RouterAddr)>,
}

impl Unreported {
    pub(super) fn new(key: Key, attempt: AttemptId, router: RouterAddr) -> Self {
        Self { attempt: Some((key, attempt, router)) }
    }

    pub(super) fn report(mut self, end: End) {
        self.send(|| end);
    }

    fn send(&mut self, end: impl FnOnce() -> End) {
        if let Some((key, attempt, router)) = self.attempt.take() {
            let end = end();
            let finish = Finish { key, attempt, end, guarded: false, tries: 0, sent: 0, unsaved: None, router };
            let router = Arc::clone(&finish.router);
            router.do_send(Box::new(finish));
        }
    }
}

impl Drop for Unreported {
    fn drop(&mut self) {
        self.send(|| End::Unknown(Reason::from_bytes(*b"the operation panicked or was aborted")));
    }
}

/// The end of an attempt. Dropped unread, it returns to the router.
pub(super) struct Report {
    inner: Option<Box<Finish>>,
}

/// How an attempt ended.
pub(super) struct Finish {
    pub(super) key: Key,
    pub(super) attempt: AttemptId,
    pub(super) end: End,
    /// The end is that a guard of the completion does not hold.
    pub(super) guarded: bool,
    /// As for a [`Question`].
    pub(super) tries: u8,
    /// How often it has come to the router.
    pub(super) sent: u8,
    /// Set once it could not be saved.
    pub(super) unsaved: Option<Mark>,
    router: RouterAddr,
}

impl Report {
    pub(super) fn of(finish: Box<Finish>) -> Self {
        Self { inner: Some(finish) }
    }

    pub(super) fn finish(&self) -> Option<&Finish> {
        self.inner.as_deref()
    }

    /// A guard of its completion does not hold: from here on it reports that instead. That nothing was recorded proves nothing
    /// about the effect, unless the completion says so.
    pub(super) fn set_guarded(&mut self) {
        if let Some(finish) = &mut self.inner
            && let End::Done(done) = &finish.end
        {
            finish.guarded = done.otherwise.is_some();
            finish.end = match &done.otherwise {
                Some(reason) => End::Definitive(reason.clone()),
                None => End::Unknown(Reason::from_bytes(*b"a ledger row's guard does not hold")),
            };
        }
    }

    /// Counts it as unsaved until it has been dealt with.
    pub(super) fn mark_unsaved(&mut self, meters: &Arc<Meters>, observers: &Arc<Observers>) {
        if let Some(finish) = &mut self.inner {
            finish.unsaved.get_or_insert_with(|| Mark::new(&finish.key, meters, observers));
        }
    }

    /// Whether a key actor that had it has died.
    pub(super) fn is_resent(&self) -> bool {
        self.inner.as_ref().is_some_and(|finish| finish.sent > 1)
    }

    pub(super) fn take_in_hand(&mut self) {
        if let Some(finish) = &mut self.inner {
            finish.tries = finish.tries.saturating_add(1);
        }
    }

    pub(super) fn put_down(&mut self) {
        if let Some(finish) = &mut self.inner {
            finish.tries = finish.tries.saturating_sub(1);
        }
    }

    /// It has been dealt with: it is recorded, or fenced off for good.
    pub(super) fn done(mut self) {
        if let Some(mark) = self.inner.take().and_then(|finish| finish.unsaved) {
            mark.saved();
        }
    }

    /// Nobody can record it.
    pub(super) fn lose(mut self, observers: &Observers) {
        self.inner.take().into_iter().for_each(|finish| finish.lose(observers));
    }
}

impl Finish {
    /// Nobody can record it.
    pub(super) fn lose(self, observers: &Observers) {
        if self.unsaved.is_none() {
            observers.tell(Event::Lost { key: &self.key, was_unsaved: false });
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if let Some(finish) = self.inner.take() {
            let router = Arc::clone(&finish.router);
            router.do_send(finish);
        }
    }
}

/// What an oracle has said. Dropped unread, it returns to the router; dropped before there is an answer (the oracle panicked,
/// was too slow, or its runtime is gone), it says that the oracle cannot tell.
pub(super) struct Answer {
    inner: Option<Box<Heard>>,
}

/// About which attempt, at which count of recoveries, and what.
pub(super) struct Heard {
    pub(super) key: Key,
    pub(super) attempt: AttemptId,
    pub(super) recoveries: u8,
    pub(super) found: Found,
    /// As for a [`Question`].
    pub(super) tries: u8,
    /// Given back when the answer has been dealt with.
    _turn: Option<Turn>,
    router: RouterAddr,
}

impl Answer {
    /// The guard that travels with the inquiry about this record.
    pub(super) fn pending(key: &Key, record: &Record, turn: Option<Turn>, router: RouterAddr) -> Self {
        let (attempt, recoveries, found) = (record.attempt, record.recoveries, Found::CannotTell);
        Self::of(Box::new(Heard { key: key.clone(), attempt, recoveries, found, tries: 0, _turn: turn, router }))
    }

    pub(super) fn of(heard: Box<Heard>) -> Self {
        Self { inner: Some(heard) }
    }

    /// Sends it off.
    pub(super) fn send(mut self, found: Found) {
        if let Some(heard) = &mut self.inner {
            heard.found = found;
        }
    }

    pub(super) fn heard(&self) -> Option<&Heard> {
        self.inner.as_deref()
    }

    pub(super) fn take_in_hand(&mut self) {
        if let Some(heard) = &mut self.inner {
            heard.tries = heard.tries.saturating_add(1);
        }
    }

    pub(super) fn put_down(&mut self) {
        if let Some(heard) = &mut self.inner {
            heard.tries = heard.tries.saturating_sub(1);
        }
    }

    /// It has been dealt with.
    pub(super) fn done(mut self) {
        self.inner = None;
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(heard) = self.inner.take() {
            let router = Arc::clone(&heard.router);
            router.do_send(heard);
        }
    }
}

/// A key whose record may be in doubt, or dispatched and without news: ask about it.
pub(super) struct Recover {
    pub(super) key: Key,
    /// The record's revision when it was found: one that has changed since has been dealt with.
    pub(super) revision: u64,
    /// Whether it is the first time since the engine was opened.
    pub(super) is_first: bool,
    pub(super) turn: Turn,
}

/// Something for a key actor.
pub(super) enum ToKey {
    Ticket(Ticket),
    Report(Report),
    Answer(Answer),
    /// Boxed: it is rare, and the largest.
    Recover(Box<Recover>),
    Decided(Result<Verdict, StoreError>),
    /// The store has failed for so long that nobody may be kept waiting for the write under way. It goes on being tried.
    Unsaved(StoreError),
    /// The waiter of that number has left.
    Abandon(u64),
    /// The end of the attempt that ran is lost: what waits for it waits in vain.
    EndLost,
    /// The last chance of an end for which the store could not be read. Dropped when it has been taken.
    LastRound(#[expect(dead_code, reason = "it says something by being dropped")] mpsc::Sender<()>),
    /// The engine closes: whoever waits for something that does not run here is sent away.
    Drain,
}

/// A change for the next transaction. Dropped undecided (the supervisor died), it tells its key actor that the fate of the
/// change is unknown.
pub(super) struct Proposal {
    pub(super) origin: Origin,
    /// `None`: only the clock mark has to become durable.
    pub(super) change: Option<Change>,
    has_change: bool,
    /// It records an end, which exists nowhere else: it is tried until it is saved.
    pub(super) is_end: bool,
    /// Its key actor has been told that it is [unsaved](ToKey::Unsaved).
    pub(super) is_unsaved: bool,
    /// A commit of it has failed, and no record would show whether it landed: a guard that does not hold any more proves nothing.
    pub(super) is_in_question: bool,
    /// What the change does to the doubt about the record.
    pub(super) doubt: Option<Doubt>,
    decided: bool,
    router: RouterAddr,
}

/// A record comes into doubt, or out of it.
#[derive(Clone, Copy)]
pub(super) enum Doubt {
    Begins,
    Ends,
}

/// Which key actor waits for the decision: `epoch` tells it from an earlier one of the same key.
#[derive(Clone)]
pub(super) struct Origin {
    pub(super) key: Key,
    pub(super) epoch: u64,
}

impl Proposal {
    pub(super) fn new(origin: Origin, change: Option<Change>, is_end: bool, router: RouterAddr) -> Self {
        let has_change = change.is_some();
        Self {
            origin,
            has_change,
            change,
            is_end,
            is_unsaved: false,
            is_in_question: false,
            doubt: None,
            decided: false,
            router,
        }
    }

    /// Also after the change itself has gone into a batch.
    pub(super) fn has_change(&self) -> bool {
        self.has_change
    }

    pub(super) fn weight(&self) -> usize {
        let Some(change) = &self.change else { return 100 };
        let rows: usize = change.rows.iter().map(Row::weight).sum();
        change.put.as_ref().map_or(100, |record| record.weight()) + rows
    }

    pub(super) fn decide(mut self, verdict: Result<Verdict, StoreError>) -> Decision {
        self.decided = true;
        Decision { origin: self.origin.clone(), verdict }
    }
}

impl Drop for Proposal {
    fn drop(&mut self) {
        if !self.decided {
            let verdict = Err(StoreError::Closed);
            self.router.do_send(Decided(vec![Decision { origin: self.origin.clone(), verdict }]));
        }
    }
}

/// What a round of key actors proposes, in order.
pub(super) struct Proposals(pub(super) Vec<Proposal>);

/// What became of one proposal.
pub(super) struct Decision {
    pub(super) origin: Origin,
    pub(super) verdict: Result<Verdict, StoreError>,
}

/// What became of a batch, in its order.
pub(super) struct Decided(pub(super) Vec<Decision>);

/// For the key actors of what cannot be saved for now.
pub(super) struct Unsaved(pub(super) Vec<Origin>, pub(super) StoreError);

/// An end waits in memory to be saved, and nothing else of its key does: a drain does not wait for it.
pub(super) struct Kept;

/// Something happened that somebody must hear of.
pub(super) struct Alarmed(pub(super) Alarm);

/// Everything that was due on the router's thread has run: what the key actors have for others may leave.
pub(super) struct RoundEnds;

/// A key actor has nothing in flight after `seen` messages.
pub(super) struct Idle {
    pub(super) origin: Origin,
    pub(super) seen: u64,
}

/// A key actor has been dropped.
pub(super) struct Gone(pub(super) Origin);

/// Whoever waited under this number has gone.
pub(crate) struct Abandon {
    pub(crate) key: Key,
    pub(crate) waiter: u64,
}

/// Take in nothing new, and say when nothing is in flight any more.
pub(super) struct Drain(pub(super) oneshot::Sender<()>);

/// Commit what has been proposed, then say so.
pub(super) struct SettleAll(pub(super) oneshot::Sender<()>);

/// Stop waiting for what still runs.
pub(super) struct AbortOperations;

/// Stop at once. Only where the actors have no thread of their own, whose end would stop them.
pub(super) struct Halt;
/// Read the store once more for every end that waits for that. When every clone of the sender is gone, everybody has.
pub(super) struct LastRound(pub(super) mpsc::Sender<()>);

/// What of a key is in memory.
pub(crate) struct Look {
    pub(crate) key: Key,
    pub(crate) reply: oneshot::Sender<Option<InMemory>>,
}

/// Of an attempt that runs here, or whose end is on its way to the store.
pub(crate) struct InMemory {
    /// Its record, while nothing of it is stored.
    pub(crate) held: Option<Arc<Record>>,
    /// Set where its end waits to be saved.
    pub(crate) unsaved: Option<Meanwhile>,
}

/// What whoever asks is told while an end waits to be saved.
#[derive(Clone)]
pub(crate) enum Meanwhile {
    /// What is stored, as soon as that can be read.
    Stored,
    /// Nothing: it is withheld.
    Nothing,
    /// What they would be if this were stored.
    As(Arc<Record>),
    /// The end itself: nothing will be stored of it.
    End(Result<Bytes, Error>),
}

/// Counts what is in memory.
pub(crate) struct Count {
    pub(crate) reply: oneshot::Sender<Counts>,
    /// Whether it has been to the end of the queue once. A caller that has its answer may ask before the router hears that
    /// the actor is done with it: that news is in the queue by then.
    pub(crate) requeued: bool,
}

/// What is in memory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) live_actors: usize,
    pub(crate) running: usize,
    pub(crate) died_actors: u64,
    pub(crate) alarms: u64,
    pub(crate) dead_letters: u64,
    pub(crate) inquiries: u64,
    pub(crate) reruns: u64,
}

/// Remove what is removable now; says how many records went.
pub(crate) struct ExpirySweep(pub(crate) Option<oneshot::Sender<Result<u64, StoreError>>>);

/// Remove the oldest of what is removable, at most so many records, in one transaction; says how many went.
pub(crate) struct ExpirySlice {
    pub(crate) limit: usize,
    pub(crate) reply: oneshot::Sender<Result<u64, StoreError>>,
}

/// Make the count of ticks durable, and remove what it releases.
pub(crate) struct Tick(pub(crate) oneshot::Sender<Result<(), StoreError>>);
