//! The policy grid: what a flow answers in each situation, as named values, with one preset per known flow.

use std::sync::Arc;
use std::time::Duration;

use crate::bounds::FLOW_NAME_BYTES;
use crate::key::{InvalidKey, Key};

/// The same request arrives while the first one runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhileRunning {
    /// It waits and gets the same answer.
    Join,
    /// It is told *Duplicate*, with the state, at once.
    Refuse,
}

/// The same request arrives after the first one completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterCompleted {
    /// It gets the stored answer, byte for byte.
    Replay,
    /// It is told *Duplicate*, with the state.
    Refuse,
}

/// The operation ended with proof that it had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The record goes; the next request runs.
    Forget,
    /// The reason is stored and every retry gets it again.
    Keep,
}

/// What a proof of "no effect" is worth once the attempt has saved a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterCheckpoint {
    /// It is believed.
    Believe,
    /// It is not: something outside may have been written. The record stays in doubt with its checkpoint, and the caller
    /// still gets the operation's own error.
    Doubt,
}

/// A record is found in doubt: after a restart, a panic, an abort or an unclassified error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InDoubt {
    /// Every retry is told *Ambiguous*; nothing runs again, and no time ends it. It stays, and counts towards the scope's quota, until
    /// the host says by [`resolve`](crate::Engine::resolve) how it ended. What has surely had no effect is resolved as failed
    /// and then [forgotten](crate::Engine::forget): its key is free.
    Ambiguous,
    /// The next identical request runs it again: same token, last checkpoint. Or the engine itself does, see
    /// [`Builder::rerun`](crate::Builder::rerun).
    Rerun,
    /// Somebody who knows must say: an oracle that is asked (see [`Builder::oracle`](crate::Builder::oracle)), or the host by
    /// `resolve`. Until then a retry is *Duplicate*, in doubt.
    Ask,
}

/// A request arrives between a record's expiry and the end of its grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterExpiry {
    /// *Conflict* (expired) once; the record is pruned and the next request runs (in a flow with a [tombstone](Policy::tombstone),
    /// after its end).
    RefuseOnce,
    /// *Conflict* (expired) until the grace ends.
    Refuse,
    /// It runs at once.
    Rerun,
}

/// The operation has ended, and its end cannot be saved: five tries, over about two seconds, have failed. Until then its callers wait.
///
/// The end is kept in memory, under either choice, and tried again every two seconds until the store is back. If the process dies
/// before that, the record is found in doubt and [`InDoubt`] decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStoreFailure {
    /// Whoever asks is told *Ambiguous* ([`Store`](crate::ErrorKind::Store)) until it is saved. No answer is ever given that a
    /// crash could take back.
    Withhold,
    /// Those who wait get the operation's answer, or its definitive reason, all the same, and a retry gets it from memory. A
    /// crash before it is saved takes it back: choose it where a late duplicate is worse off without an answer than with
    /// one that may come to be in doubt.
    ///
    /// It covers what the operation itself has decided. An end in doubt, an acceptance, and an answer whose ledger rows are
    /// guarded (another key may win the row) are withheld.
    Reply,
}

/// How long a finished record answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// The request says, counted from the admission of the attempt: see [`Call::retention`](crate::Call::retention).
    FromRequest,
    /// This long, counted from the finish.
    Fixed(Duration),
    /// Until somebody forgets it by name.
    UntilForgotten,
    /// A completed record until it has been [acknowledged](crate::Engine::acknowledge) and so many
    /// [ticks](crate::Engine::tick) have gone by quietly since: the next tick releases it. A failed one until it is
    /// [abandoned](crate::Engine::abandon) or forgotten. No clock releases either. (LDK: `IDEMPOTENCY_TIMEOUT_TICKS`.)
    UntilAcknowledged {
        /// The quiet ticks that it outlives.
        quiet_ticks: u32,
    },
}

/// A flow's answers to every question of the grid. Start from a preset and change what differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub(crate) while_running: WhileRunning,
    pub(crate) after_completed: AfterCompleted,
    pub(crate) on_failure: OnFailure,
    pub(crate) after_checkpoint: AfterCheckpoint,
    pub(crate) in_doubt: InDoubt,
    pub(crate) after_expiry: AfterExpiry,
    pub(crate) retention: Retention,
    pub(crate) grace: Duration,
    pub(crate) tombstone: Option<Duration>,
    pub(crate) on_store_failure: OnStoreFailure,
    pub(crate) replay_safe: bool,
}

impl Policy {
    /// Replay for `retention` after the finish: duplicates join, a failure without effect is forgotten, in doubt is
    /// [*Ambiguous*](InDoubt::Ambiguous) until the host resolves it, an expired key runs anew, what cannot be saved is withheld.
    #[must_use]
    pub fn replay(retention: Duration) -> Self {
        Self {
            while_running: WhileRunning::Join,
            after_completed: AfterCompleted::Replay,
            on_failure: OnFailure::Forget,
            after_checkpoint: AfterCheckpoint::Believe,
            in_doubt: InDoubt::Ambiguous,
            after_expiry: AfterExpiry::Rerun,
            retention: Retention::Fixed(retention),
            grace: Duration::ZERO,
            tombstone: None,
            on_store_failure: OnStoreFailure::Withhold,
            replay_safe: false,
        }
    }

    /// System 1, `async_order.request_invoice`: duplicates join, a completed invoice replays until it expires, then
    /// `stale_flow` once within a grace of two minutes; an operation's error is never stored; in doubt re-runs with the
    /// last checkpoint. (rgb-lightning-node issue 31; the grace and `RefuseOnce` are ours.)
    #[must_use]
    pub fn request_invoice() -> Self {
        Self {
            in_doubt: InDoubt::Rerun,
            after_expiry: AfterExpiry::RefuseOnce,
            retention: Retention::FromRequest,
            grace: Duration::from_secs(120),
            ..Self::replay(Duration::ZERO)
        }
    }

    /// System 2, `send_payment` after LDK's `PaymentId`: whatever is known is a *Duplicate* with its state, a failure is kept
    /// until the host abandons it, in doubt is asked about, a completed payment is released by the eighth quiet tick after
    /// it was acknowledged.
    #[must_use]
    pub fn send_payment() -> Self {
        Self { retention: Retention::UntilAcknowledged { quiet_ticks: 7 }, ..Self::send_onion() }
    }

    /// System 3, `send_onion` after lnd: whatever is known is a *Duplicate* with its state, the first definitive refusal is
    /// kept and told again, in doubt is asked about, a record stays until it is forgotten by name.
    #[must_use]
    pub fn send_onion() -> Self {
        Self {
            while_running: WhileRunning::Refuse,
            after_completed: AfterCompleted::Refuse,
            on_failure: OnFailure::Keep,
            in_doubt: InDoubt::Ask,
            retention: Retention::UntilForgotten,
            ..Self::replay(Duration::ZERO)
        }
    }

    /// Sets what a duplicate gets while the first one runs.
    #[must_use]
    pub fn while_running(mut self, choice: WhileRunning) -> Self {
        self.while_running = choice;
        self
    }

    /// Sets what a duplicate gets after the first one completed.
    #[must_use]
    pub fn after_completed(mut self, choice: AfterCompleted) -> Self {
        self.after_completed = choice;
        self
    }

    /// Sets what happens when the operation surely had no effect.
    #[must_use]
    pub fn on_failure(mut self, choice: OnFailure) -> Self {
        self.on_failure = choice;
        self
    }

    /// Sets what such a failure is worth after a checkpoint.
    #[must_use]
    pub fn after_checkpoint(mut self, choice: AfterCheckpoint) -> Self {
        self.after_checkpoint = choice;
        self
    }

    /// Sets what a retry gets for a record in doubt.
    #[must_use]
    pub fn in_doubt(mut self, choice: InDoubt) -> Self {
        self.in_doubt = choice;
        self
    }

    /// Sets what a request gets between expiry and the end of the grace.
    #[must_use]
    pub fn after_expiry(mut self, choice: AfterExpiry) -> Self {
        self.after_expiry = choice;
        self
    }

    /// Sets how long a finished record answers.
    #[must_use]
    pub fn retention(mut self, choice: Retention) -> Self {
        self.retention = choice;
        self
    }

    /// Sets how long an expired record lingers to answer by [`AfterExpiry`]. A record keeps the grace it was finished
    /// under.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Lets a small marker outlive each record of this flow by `lifetime` after the grace: until then a late retry gets
    /// *Conflict* (expired) instead of a second run. Also left behind by `forget`.
    #[must_use]
    pub fn tombstone(mut self, lifetime: Duration) -> Self {
        self.tombstone = Some(lifetime);
        self
    }

    /// Sets what callers get when the operation's end cannot be saved.
    #[must_use]
    pub fn on_store_failure(mut self, choice: OnStoreFailure) -> Self {
        self.on_store_failure = choice;
        self
    }

    /// Marks the flow as **replay-safe**: its operation may run again after a crash, so nothing is made durable before it
    /// starts, and a durable answer costs one transition instead of two.
    ///
    /// Choose it only where a second run does no harm: an operation without an effect outside; one whose whole effect is
    /// [ledger rows](crate::Completion::row) that are written with its answer; or one downstream that takes the same
    /// *request* twice for once.
    ///
    /// While the process lives nothing changes: one run at a time per key, duplicates join or are refused, another request
    /// is refused also while the first one runs, no answer leaves before it is durable, and replays are the same bytes.
    ///
    /// A crash before the end is durable forgets the request. The key is free then: the retry runs as a first attempt with
    /// **another [token](crate::Attempt::token)**, and so does another request under the same key. So never use it
    /// - where the token is what keeps downstream from doing it twice: over a crash it is not the same;
    /// - for payments, or whatever is [accepted](crate::End::Accepted) downstream and ends later;
    /// - where another request under the key must be refused after a crash that no answer preceded.
    ///
    /// An end that cannot be saved is kept in memory as ever ([`OnStoreFailure`]), and forgotten if the process dies before it
    /// is: under [`OnStoreFailure::Reply`] the retry may then get another answer than the one that was given. While the store
    /// is down nothing starts. An end that the engine itself loses ([`Event::Lost`](crate::Event::Lost)) is forgotten, too.
    ///
    /// Until its end is durable [`lookup`](crate::Engine::lookup) and [`list`](crate::Engine::list) show nothing of it, and
    /// it counts towards no quota: a full scope refuses it before it starts, and what has run is recorded in any case, so
    /// there may be as many records more as run at once. What is saved on the way (a checkpoint, an
    /// [abandonment](crate::Engine::abandon)) makes it a record like any other: in doubt after a crash, with its token. So
    /// does an end that is unknown (a panic, an abort at the end of a shutdown). In place of an expired record, or of one
    /// in doubt, it is registered like any other, too.
    ///
    /// The policy must say [`InDoubt::Rerun`] and keep no record
    /// [until it is acknowledged](Retention::UntilAcknowledged): [`Flow::new`] refuses it otherwise.
    #[must_use]
    pub fn replay_safe(mut self) -> Self {
        self.replay_safe = true;
        self
    }

    /// Who is asked about a record in doubt knows it by its token, *Ambiguous* promises that nothing runs again, and what is
    /// acknowledged was dispatched: none of them can do without a registration.
    fn needs_registration(&self) -> bool {
        let ends_elsewhere = matches!(self.retention, Retention::UntilAcknowledged { .. });
        self.in_doubt != InDoubt::Rerun || ends_elsewhere
    }
}

/// The one name that a host's flow cannot have.
const ROWS: &str = "ibid.rows";

/// A kind of operation and its policy. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Flow(Arc<Named>);

#[derive(Debug)]
struct Named {
    name: Box<str>,
    policy: Policy,
}

impl Flow {
    /// A flow of that name: 1 to 255 bytes, part of every key, so it must stay the same for as long as records live.
    ///
    /// # Errors
    /// [`InvalidKey::FlowLength`], [`InvalidKey::FlowReserved`], [`InvalidKey::FlowNotReplaySafe`].
    pub fn new(name: impl Into<String>, policy: Policy) -> Result<Self, InvalidKey> {
        let name = name.into().into_boxed_str();
        if &*name == ROWS {
            return Err(InvalidKey::FlowReserved);
        }
        if name.is_empty() || name.len() > FLOW_NAME_BYTES {
            return Err(InvalidKey::FlowLength(name.len()));
        }
        if policy.replay_safe && policy.needs_registration() {
            return Err(InvalidKey::FlowNotReplaySafe);
        }
        Ok(Self(Arc::new(Named { name, policy })))
    }

    /// The flow under whose keys the engine puts writes of rows in order. It has no records.
    pub(crate) fn of_rows() -> Self {
        Self(Arc::new(Named { name: ROWS.into(), policy: Policy::replay(Duration::ZERO) }))
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.0.policy
    }

    /// The key of `id` under `scope`, 1 to 255 bytes each. The scope is the authenticated principal: take it from the
    /// transport (a TLS client, a [`NodeId`](crate::NodeId)), never from the body of the request.
    ///
    /// # Errors
    /// [`InvalidKey::ScopeLength`], [`InvalidKey::IdLength`].
    pub fn key(&self, scope: impl AsRef<[u8]>, id: impl AsRef<[u8]>) -> Result<Key, InvalidKey> {
        Key::new(self.name(), scope.as_ref(), id.as_ref())
    }
}
