//! System 2, `send_payment`: LDK's PaymentId as the key, with a memory that LDK's own map does not have.
//!
//! ```text
//! send ---> record? answer from it : register --> Payer::send --> Dispatched
//!                                                                    |
//! PaymentSent, PaymentFailed ---> the record's end --> whoever tracks, every retry
//! ```
//!
//! LDK keeps a map of its own from PaymentId to pending payment. It forgets, compares no parameters and replays no answer, so it
//! is the second guard and the record is the truth; where a record is in doubt, LDK's list of recent payments is what is asked.
//!
//! ```text
//! 1 load LDK's ChannelManager
//! 2 SendPaymentSetup::new, prepare(builder), open the engine, bind(engine), resume()
//! 3 hand LDK's events over as they come, and return ReplayEvent where told to; tick() after each timer_tick_occurred
//! 4 once all replayed events are handled and the chain is synced: synced()
//! ```
//!
//! # Release
//! What is paid stays for seven quiet ticks, and the eighth releases its id, as in LDK: a tick is quiet once PaymentSent is handled
//! (and [acknowledged](SendPayment::acknowledge)) and none of the payment's events is under way. But LDK's own seven begin only when
//! the HTLC has left the channel, so with a payee that has gone away LDK may know an id for longer. Such an id is not released: sent
//! again, it would be a duplicate to LDK, and wait for a PaymentSent that was handled long ago. What has failed is released by
//! [`abandon`](SendPayment::abandon), and what is under way by its end.
//!
//! # LDK alone, and with ibid
#![doc = include_str!("ldk.md")]

mod answer;
mod calls;
mod events;
mod payer;
mod refusal;
mod request;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

pub use answer::{Ending, Paid};
pub use events::{Counts, Handled, PaymentFailed, PaymentSent, Replay};
pub use payer::{BlockingPayer, Dispatch, Listed, Listing, Payer, Sending};
pub use refusal::SendError;
pub use request::{Payee, PaymentRequest};

use super::in_flight::{Page, demand_oracle};
use crate::block_on::block_on;
use crate::{
    Abandoned, Attempt, AttemptId, Builder, Call, Class, Cursor, End, Ended, Engine, Error, ErrorKind, Flow, Found,
    Inquiry, InvalidRecovery, Key, NodeId, Operation, Reason, Record, Reply, State, Status,
};
use calls::{Calls, Kind, Synced};
use events::Counters;
use request::hash_of;

/// The flow's name, part of every key: `Flow::new(FLOW_NAME, Policy::send_payment())`.
pub const FLOW_NAME: &str = "send_payment";

/// The part of the adapter that comes before the engine: from its opening on the engine asks it about payments in doubt.
///
/// Make one for the life of the process, and keep it when the engine is closed and opened again: it knows which calls are still
/// inside LDK. A clone is the same setup.
#[derive(Clone)]
pub struct SendPaymentSetup {
    shared: Arc<Shared>,
    host_acknowledges: bool,
}

/// The handler that a node owns for payments. Cheap to clone; every method takes `&self`.
///
/// **Cancel safety**: dropping a future takes back the wait and nothing else. A payment that was submitted is registered, sent and
/// recorded whether or not anybody waits for it.
#[derive(Clone)]
pub struct SendPayment {
    engine: Engine,
    shared: Arc<Shared>,
    /// Who is called by sends; `shared` has who is asked.
    payer: Arc<dyn Payer>,
    host_acknowledges: bool,
}

struct Shared {
    flow: Flow,
    own_node_id: NodeId,
    payer: Arc<dyn Payer>,
    synced: Synced,
    calls: Arc<Calls>,
    counters: Counters,
}

/// What came of a send. None of these invites another way of paying.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// LDK has taken it on, for this caller, now. Its end comes by an event: [`track`](SendPayment::track) it.
    Accepted,
    /// *Duplicate*: this very request is known under the id, and stands like this. LDK was not called for it.
    Known(Standing),
}

/// How a payment stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The call is being made.
    Registered,
    /// LDK has taken it on.
    Dispatched,
    /// What became of the call is not known yet; it is being asked about.
    InDoubt,
    /// Paid.
    Completed(Paid),
    /// It went out and failed, with LDK's reason if it gave one. [`abandon`](SendPayment::abandon) frees the id.
    Failed(Option<String>),
    /// It never went out, for this reason. [`abandon`](SendPayment::abandon) frees the id.
    RolledBack(String),
    /// It has this status, and what is stored of it is in a form that is not known here.
    Unreadable(Status),
}

/// Why a send, or the wait for its end, has come to nothing: one variant for each class that is not *Duplicate*.
#[derive(Clone, Debug)]
pub enum PaymentError {
    /// The id belongs to another request: take another id.
    Conflict(Error),
    /// Proof that this request was not and will not be paid under this id: see [`reason`](PaymentError::reason).
    Definitive(Error),
    /// No proof of anything: send the same request under the same id again, and pay in no other way.
    Ambiguous(Error),
}

/// A payment whose end is still to come, or whose record was looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Payment {
    /// The PaymentId.
    pub id: [u8; 32],
    /// How it stands.
    pub standing: Standing,
    /// The attempt: its token is of this record alone, before and after.
    pub attempt: AttemptId,
    /// The hash that is paid, where it was known when the payment was asked for.
    pub payment_hash: Option<[u8; 32]>,
    /// In doubt, and LDK's list has told nothing so often that somebody should look: see
    /// [`Limits::recoveries`](crate::Limits::recoveries).
    pub is_dead_letter: bool,
    /// It has been given up: when it fails, its id is free at once.
    pub is_abandoned: bool,
    /// A PaymentSent that came after the failure: **money has left**. Look here before a failed payment is
    /// [abandoned](SendPayment::abandon) to be sent again.
    pub paid_after_all: Option<Paid>,
}

/// A stretch of the list.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PaymentPage {
    /// In order of arrival.
    pub payments: Vec<Payment>,
    /// Entries that do not decode, whosever they are. They are never sent again.
    pub quarantined: usize,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

impl SendPaymentSetup {
    /// For the node of this id. `flow` holds the policy, [`Policy::send_payment`](crate::Policy::send_payment); its name belongs to
    /// every key, so keep it; [`FLOW_NAME`] is the usual one.
    #[must_use]
    pub fn new(flow: Flow, own_node_id: NodeId, payer: Arc<dyn Payer>) -> Self {
        let (synced, calls, counters) = (Synced::default(), Arc::default(), Counters::default());
        Self {
            shared: Arc::new(Shared { flow, own_node_id, payer, synced, calls, counters }),
            host_acknowledges: false,
        }
    }

    /// Says that the host has work of its own to do for each payment that is paid, and will [tell](SendPayment::acknowledge) when it
    /// is done, also after a restart. Until then the record stays, however many ticks go by. Without this a payment counts as
    /// acknowledged once its PaymentSent is handled.
    #[must_use]
    pub fn host_acknowledges(mut self) -> Self {
        self.host_acknowledges = true;
        self
    }

    /// Makes the builder of an engine fit: it will ask about payments in doubt. LDK's manager must have been loaded before the engine
    /// is opened.
    #[must_use]
    pub fn prepare(&self, builder: Builder) -> Builder {
        let shared = Arc::clone(&self.shared);
        builder.oracle(&self.shared.flow, move |inquiry| {
            let shared = Arc::clone(&shared);
            async move { shared.found(&inquiry) }
        })
    }

    /// The handler over an engine whose builder was given to [`prepare`](Self::prepare). Call [`resume`](SendPayment::resume) next.
    ///
    /// # Errors
    /// [`InvalidRecovery::OracleMissing`]: it was given to none, and a payment in doubt would stay so for ever.
    pub fn bind(&self, engine: Engine) -> Result<SendPayment, InvalidRecovery> {
        let (shared, payer) = (Arc::clone(&self.shared), Arc::clone(&self.shared.payer));
        demand_oracle(&engine, &shared.flow)?;
        Ok(SendPayment { engine, shared, payer, host_acknowledges: self.host_acknowledges })
    }
}

impl SendPayment {
    /// The same handler, whose sends go through `payer`: for what belongs to one call and to no request, such as the retry strategy.
    /// It stands before the same LDK; the setup's own payer goes on being asked what LDK lists.
    #[must_use]
    pub fn via(&self, payer: Arc<dyn Payer>) -> Self {
        Self { payer, ..self.clone() }
    }

    /// Pays, unless the id is known. Of any number of sends under one id at once, one calls LDK.
    ///
    /// The first one waits for as long as the call into LDK takes, and for the commits before and after it; the others wait for no
    /// call. To wait for less, drop the future: the payment goes on, and the same send again says how it stands.
    ///
    /// # Errors
    /// [`PaymentError`]. Only [`Definitive`](PaymentError::Definitive) says that nothing was or will be paid.
    pub async fn send(&self, request: PaymentRequest) -> Result<Sent, PaymentError> {
        let (reply, heard) = oneshot::channel();
        // Who has gone away is not told.
        self.try_send(request, move |sent| drop(reply.send(sent)))?;
        heard.await.unwrap_or_else(|_| Err(PaymentError::Ambiguous(ErrorKind::Closed.into())))
    }

    /// [`send`](Self::send) on a plain thread: blocks it until there is an answer. Never call it on a thread that drives the runtime
    /// on which the operations run.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_blocking(&self, request: PaymentRequest) -> Result<Sent, PaymentError> {
        block_on(self.send(request))
    }

    /// [`send`](Self::send) without ever blocking: after `Ok`, `on_done` runs exactly once, on the runtime on which the operations
    /// run and never on this stack; after `Err` it never runs.
    ///
    /// # Errors
    /// [`PaymentError::Ambiguous`]: too many requests in flight, or the engine is closed. Nothing was registered by this call.
    pub fn try_send(
        &self,
        request: PaymentRequest,
        on_done: impl FnOnce(Result<Sent, PaymentError>) + Send + 'static,
    ) -> Result<(), PaymentError> {
        let (shared, id) = (Arc::clone(&self.shared), request.id);
        let key = shared.key(id)?;
        let mut call = Call::new(&shared.flow, &key, request.canonical());
        if let Err(error) = request.check().and_then(|()| self.payer.check(&request)) {
            call = call.barred(Reason::from_error(error));
        }
        // From before the registration: a failure that comes in meanwhile must not be taken for this attempt's.
        let submission = shared.calls.begin(id, Kind::Submission);
        let operation = {
            let (handler, key) = (self.clone(), key.clone());
            Operation::new(async move |attempt| handler.call(&key, request, attempt).await)
        };
        let engine = self.engine.clone();
        let done = move |reply| {
            shared.pass_on(&engine, &key, id);
            drop(submission);
            on_done(sent(reply));
        };
        Ok(self.engine.try_submit(call, operation, done)?)
    }

    /// Waits for the end of what is registered under the id, or reads it. Any number may wait.
    ///
    /// # Errors
    /// [`Definitive`](PaymentError::Definitive) if it never went out. [`Ambiguous`](PaymentError::Ambiguous) if there is no record,
    /// which proves nothing, and on every other error.
    pub async fn track(&self, id: [u8; 32]) -> Result<Ending, PaymentError> {
        let ended = match self.engine.track(&self.shared.flow, &self.shared.key(id)?).await {
            Ok(outcome) => Ended::Completed(outcome.answer),
            Err(error) => match error.recorded() {
                Some(ended) => ended.clone(),
                None => return Err(error.into()),
            },
        };
        Ending::decode(&ended).ok_or_else(|| PaymentError::Ambiguous(ErrorKind::Decode.into()))
    }

    /// Gives a payment up. One that has failed is gone, and its id free; one under way is marked, LDK is told not to try again, and
    /// its id is free when it fails. It may still succeed. One whose call has not begun is not sent at all.
    ///
    /// # Errors
    /// On an error it is not known whether the mark was recorded, and LDK was not told: ask again.
    pub async fn abandon(&self, id: [u8; 32]) -> Result<Abandoned, Error> {
        let abandoned = self.engine.abandon(&self.shared.flow, &self.shared.key(id)?).await?;
        // A call under way finds the mark when it has returned.
        if matches!(abandoned, Abandoned::Marked(_)) && self.shared.calls.count(id, Kind::Call) == 0 {
            self.shared.payer.abandon(&id);
        }
        Ok(abandoned)
    }

    /// Tells LDK again to give up what carries the mark: once after each start of the node, since LDK may have lost what it was told.
    /// Says how many there were.
    ///
    /// # Errors
    /// [`Store`](ErrorKind::Store), [`Closed`](ErrorKind::Closed): not all were told.
    pub fn resume(&self) -> Result<usize, Error> {
        const PAGE: usize = 256;
        let (mut told, mut after) = (0, None);
        loop {
            let page = self.list(after, PAGE)?;
            let marked = page.payments.iter().filter(|payment| payment.is_abandoned);
            told += marked.inspect(|payment| self.shared.payer.abandon(&payment.id)).count();
            after = page.next;
            if after.is_none() {
                return Ok(told);
            }
        }
    }

    /// The host says that LDK's replayed events are handled and the chain is synced: from here on, what LDK does not list has never
    /// been sent. Said too early, somebody pays twice.
    pub fn synced(&self) {
        self.shared.synced.set(true);
    }

    /// LDK is being loaded anew while the engine goes on: what it does not list proves nothing until it is [`synced`](Self::synced)
    /// again. Say it before the new manager is asked for the first time.
    pub fn unsynced(&self) {
        self.shared.synced.set(false);
    }

    /// One more `timer_tick_occurred`, durable when it returns: call it once for each, after it, one call at a time. The eighth
    /// quiet tick releases a payment that is paid, unless LDK still lists it as [`Fulfilled`](Listing::Fulfilled): then this tick
    /// is the first of another eight, at the cost of one small write.
    ///
    /// # Errors
    /// The store failed: what this tick would have released may stay until the next one. [`InDoubt`](ErrorKind::InDoubt): LDK's list
    /// [could not be read](Payer::fulfilled), and the tick does not count.
    pub async fn tick(&self) -> Result<(), Error> {
        // While one of its events is being handled a payment is not quiet: it outlives this tick, and its count begins behind it. An
        // event that comes after this line has come after the tick.
        let noisy = self.shared.calls.going(Kind::Event);
        self.disturb(&noisy).await?;
        self.disturb(&self.held_by_ldk()?).await?;
        let ticked = self.engine.tick().await;
        self.disturb(&noisy).await.and(ticked)
    }

    /// What the next tick would release, and LDK has not.
    fn held_by_ldk(&self) -> Result<Vec<[u8; 32]>, Error> {
        let next = self.engine.ticks().saturating_add(1);
        let mut held = Vec::new();
        for id in self.shared.listed(|ldk| ldk.fulfilled())? {
            let record = match self.engine.lookup(&self.shared.key(id)?) {
                // No tick releases it, and it must not keep others from being released.
                Err(error) if matches!(error.kind(), ErrorKind::Quarantined) => None,
                found => found?,
            };
            if record.is_some_and(|record| record.lapse_tick() == Some(next)) {
                held.push(id);
            }
        }
        Ok(held)
    }

    async fn disturb(&self, ids: &[[u8; 32]]) -> Result<(), Error> {
        for id in ids {
            self.engine.disturb(&self.shared.flow, &self.shared.key(*id)?).await?;
        }
        Ok(())
    }

    /// [`tick`](Self::tick) on a plain thread, blocking it. Never call it on a thread that drives the runtime on which the
    /// operations run.
    ///
    /// # Errors
    /// As [`tick`](Self::tick).
    pub fn tick_blocking(&self) -> Result<(), Error> {
        block_on(self.tick())
    }

    /// The payment under this id as it stands; `None` proves nothing about a request on its way.
    ///
    /// # Errors
    /// [`Quarantined`](ErrorKind::Quarantined), [`Store`](ErrorKind::Store), [`Closed`](ErrorKind::Closed).
    pub fn lookup(&self, id: [u8; 32]) -> Result<Option<Payment>, Error> {
        let key = self.shared.key(id)?;
        let record = self.engine.lookup(&key)?;
        Ok(record.map(|record| payment(id, &record, self.engine.is_dead_letter(&key, &record))))
    }

    /// The payments of this node whose end is still to come, behind `after`. It looks at `limit` entries of the engine's in-flight
    /// index, which other flows share: a page may hold fewer, also none, and goes on while there is a [`next`](PaymentPage::next).
    ///
    /// # Errors
    /// As [`Engine::list`].
    pub fn list(&self, after: Option<Cursor>, limit: usize) -> Result<PaymentPage, Error> {
        let show = |listed: &crate::Listed| {
            let (key, record) = listed.found.as_ref()?;
            Some(payment(self.shared.id_of(key)?, record, listed.is_dead_letter))
        };
        let Page { shown, quarantined, next } = Page::read(&self.engine, after, limit, show)?;
        Ok(PaymentPage { payments: shown, quarantined, next })
    }

    /// The operation: at most once per record.
    async fn call(&self, key: &Key, request: PaymentRequest, attempt: Attempt) -> End {
        let (id, calls) = (request.id, &self.shared.calls);
        let dispatch = Dispatch::new(request, attempt, calls.begin(id, Kind::Call));
        if let Err(end) = may_call(&self.engine, key, &dispatch.attempt) {
            return end;
        }
        let result = self.payer.send(&dispatch).await;
        let listed = if result.is_err() { self.shared.payer.recent(&id) } else { None };
        if listed.is_some_and(|listed| listed.state == Listing::Fulfilled) {
            // It is known as paid, for an earlier record, and its PaymentSent may never come again: from here on nothing that LDK
            // does not list may make this one "not started".
            if let Err(error) = dispatch.attempt.checkpoint(*b"fulfilled", None).await {
                return End::Unknown(Reason::from_error(error));
            }
        }
        let is_other_running = calls.count(id, Kind::Call) > 1;
        refusal::end_of(result, listed.as_ref(), dispatch.request.payment_hash(), is_other_running)
    }

    /// What became of the events since the setup was made.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.counters.read()
    }
}

impl Shared {
    fn key(&self, id: [u8; 32]) -> Result<Key, Error> {
        Ok(self.flow.key(self.own_node_id, id)?)
    }

    fn id_of(&self, key: &Key) -> Option<[u8; 32]> {
        let is_ours = key.flow() == self.flow.name() && key.scope() == self.own_node_id.as_ref();
        key.id().try_into().ok().filter(|_| is_ours)
    }

    /// The call has returned and its result is recorded: if the payment was given up meanwhile, LDK has to hear of it now.
    fn pass_on(&self, engine: &Engine, key: &Key, id: [u8; 32]) {
        let marked = engine.lookup(key).ok().flatten().is_some_and(|record| record.abandoned && is_in_flight(&record));
        if marked && self.calls.count(id, Kind::Call) == 0 {
            self.payer.abandon(&id);
        }
    }

    /// What LDK's list has under this id.
    fn recent(&self, id: &[u8; 32]) -> Result<Option<Listed>, Error> {
        self.listed(|ldk| ldk.recent(id))
    }

    /// LDK's list, on the host's own thread: one that cannot say, and panics, must not take that thread down.
    fn listed<T>(&self, read: impl FnOnce(&dyn Payer) -> T) -> Result<T, Error> {
        let read = std::panic::AssertUnwindSafe(|| read(&*self.payer));
        let cannot_say = |_| ErrorKind::InDoubt(Some(Reason::from_bytes(*b"the list cannot be read"))).into();
        std::panic::catch_unwind(read).map_err(cannot_say)
    }

    fn found(&self, inquiry: &Inquiry) -> Found {
        let (Some(id), Some(own_hash)) = (self.id_of(inquiry.key()), hash_of(inquiry.request())) else {
            return Found::CannotTell;
        };
        // Before the list is read: what begins after that is another attempt's, and what has ended is in the list.
        let is_calling = self.calls.count(id, Kind::Call) > 0;
        let period = self.synced.period();
        let listed = self.payer.recent(&id);
        let is_settled_down = !is_calling && period.is_some() && period == self.synced.period();
        match refusal::found(listed.as_ref(), own_hash, inquiry.status(), is_settled_down) {
            // LDK has listed the id as paid before.
            Found::NotStarted | Found::Missing if inquiry.last_checkpoint().is_some() => Found::CannotTell,
            found => found,
        }
    }
}

/// The registration may have been overtaken: by its own abandonment, or by an event. Then LDK is not called.
fn may_call(engine: &Engine, key: &Key, attempt: &Attempt) -> Result<(), End> {
    let unknown = |error: Error| End::Unknown(Reason::from_error(error));
    match engine.lookup(key).map_err(unknown)? {
        Some(record) if record.state.status() == Status::Registered && record.attempt.is_same(&attempt.id()) => {
            match record.abandoned {
                true => Err(End::Definitive(Reason::from_bytes(*b"abandoned before it was sent"))),
                false => Ok(()),
            }
        }
        Some(_) | None => Err(End::Unknown(Reason::from_bytes(*b"ended before it was sent"))),
    }
}

fn is_in_flight(record: &Record) -> bool {
    record.state.status().is_in_flight()
}

fn sent(reply: Result<Reply, Error>) -> Result<Sent, PaymentError> {
    let error = match reply {
        // Its end may overtake the call's return: it was accepted all the same.
        Ok(Reply::Accepted | Reply::Answer(_)) => return Ok(Sent::Accepted),
        Err(error) => error,
    };
    match (error.recorded(), error.kind()) {
        (Some(ended), _) => Ok(Sent::Known(standing_of(ended))),
        (None, ErrorKind::Duplicate(status)) => Ok(Sent::Known(standing(*status))),
        (None, _) => Err(error.into()),
    }
}

fn standing(status: Status) -> Standing {
    match status {
        Status::Registered => Standing::Registered,
        Status::Dispatched => Standing::Dispatched,
        Status::InDoubt => Standing::InDoubt,
        Status::Completed | Status::Failed | Status::Tombstone => Standing::Unreadable(status),
    }
}

fn standing_of(ended: &Ended) -> Standing {
    match (Ending::decode(ended), ended) {
        (Some(Ending::Paid(paid)), _) => Standing::Completed(paid),
        (Some(Ending::Failed(reason)), _) => Standing::Failed(reason),
        (None, Ended::Completed(_)) => Standing::Unreadable(Status::Completed),
        (None, Ended::Failed(_)) => Standing::Unreadable(Status::Failed),
    }
}

fn payment(id: [u8; 32], record: &Record, is_dead_letter: bool) -> Payment {
    let standing = match &record.state {
        State::Completed(Some(answer)) => standing_of(&Ended::Completed(answer.clone())),
        State::Failed(crate::Origin::Resolved, reason) => standing_of(&Ended::Failed(reason.clone())),
        State::Failed(crate::Origin::RolledBack, reason) => Standing::RolledBack(text(reason).into_owned()),
        state => standing(state.status()),
    };
    let payment_hash = hash_of(&record.request).flatten();
    let contradicted = record.contradiction.as_ref().filter(|_| record.state.status() == Status::Failed);
    let paid_after_all = contradicted.and_then(|end| Paid::decode(end));
    let (attempt, is_abandoned) = (record.attempt, record.abandoned);
    Payment { id, standing, attempt, payment_hash, is_dead_letter, is_abandoned, paid_after_all }
}

fn text(reason: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(reason)
}

impl PaymentError {
    /// The class: what the caller does next.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Conflict(_) => Class::Conflict,
            Self::Definitive(_) => Class::Definitive,
            Self::Ambiguous(_) => Class::Ambiguous,
        }
    }

    /// The engine's error.
    #[must_use]
    pub fn error(&self) -> &Error {
        match self {
            Self::Conflict(error) | Self::Definitive(error) | Self::Ambiguous(error) => error,
        }
    }

    /// Why the payment was refused, in the words of [`SendError`]: the same for every retry. `None` if it did not get that far.
    #[must_use]
    pub fn reason(&self) -> Option<Cow<'_, str>> {
        self.error().reason().map(|reason| text(reason.bytes()))
    }
}

impl From<Error> for PaymentError {
    fn from(error: Error) -> Self {
        match error.class() {
            Class::Conflict => Self::Conflict(error),
            Class::Definitive => Self::Definitive(error),
            // A Duplicate that has no standing proves nothing here.
            Class::Duplicate | Class::Ambiguous => Self::Ambiguous(error),
        }
    }
}

impl fmt::Display for PaymentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.reason()) {
            (Self::Conflict(_), _) => f.write_str("the id belongs to another payment"),
            (Self::Definitive(_), Some(reason)) => write!(f, "nothing was or will be paid: {reason}"),
            (Self::Definitive(_), None) => f.write_str("nothing was or will be paid"),
            (Self::Ambiguous(_), _) => f.write_str("it is not known whether the payment was sent"),
        }
    }
}

impl std::error::Error for PaymentError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.error())
    }
}

impl fmt::Debug for SendPaymentSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendPaymentSetup").field("flow", &self.shared.flow).finish_non_exhaustive()
    }
}

impl fmt::Debug for SendPayment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendPayment").field("flow", &self.shared.flow).finish_non_exhaustive()
    }
}
