//! What the store holds for a key.

use std::fmt;
use std::sync::Arc;

use crate::fingerprint::Fingerprint;
use crate::key::encode_hex;
use crate::time::UnixMillis;

/// Shared bytes: an answer goes to many callers and is copied for none.
pub type Bytes = Arc<[u8]>;

/// One record. `revision` and the attempt's token together name one version of one record: the store refuses a write that
/// was decided on another one.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Counts the versions of this record, from 1. All are stored, but for the first of a
    /// [replay-safe](crate::Policy::replay_safe) one.
    pub revision: u64,
    /// Of the request that the record belongs to.
    pub fingerprint: Fingerprint,
    /// The canonical request, for a re-run. Empty in a tombstone.
    pub request: Bytes,
    /// The last attempt.
    pub attempt: AttemptId,
    /// Where the record stands.
    pub state: State,
    /// What the operation saved on its way.
    pub checkpoint: Option<Bytes>,
    /// Re-runs that ended unknown, and answers of an oracle that told nothing.
    pub recoveries: u8,
    /// When the first attempt was admitted.
    pub created_at: UnixMillis,
    /// When this revision was decided.
    pub updated_at: UnixMillis,
    /// Registered: the bound that the request set. Finished: from here on it is expired. `None`: never.
    pub expires_at: Option<UnixMillis>,
    /// The end of the grace: from here on a finished record reads as absent, or as a tombstone.
    pub lapses_at: Option<UnixMillis>,
    /// Until when a tombstone stands in after `lapses_at`; in a tombstone, its own end. `None` in a tombstone: for ever.
    pub tombstone_until: Option<UnixMillis>,
    /// An end that contradicts the recorded one and came later. The answer stays; somebody must hear of it.
    pub contradiction: Option<Bytes>,
    /// From this tick on a completed record reads as absent. `None`: no number of ticks releases it.
    pub lapses_at_tick: Option<u64>,
    /// The host has given the request up: when it fails, its key is free at once.
    pub abandoned: bool,
}

/// Where a record stands, with what belongs to that state alone.
#[derive(Clone, PartialEq, Eq)]
pub enum State {
    /// An attempt was registered and its end is not recorded.
    Registered,
    /// The operation was accepted downstream and ends by `resolve`.
    Dispatched,
    /// Registered, end unknown.
    InDoubt,
    /// Ended, with this answer. `None`: the answer was over the size limit and was not kept.
    Completed(Option<Bytes>),
    /// Ended without an answer, for this reason.
    Failed(Origin, Bytes),
    /// A marker that refuses the key.
    Tombstone(Mark),
}

/// Where a failure comes from: it decides what a retry is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It never went out: a retry gets the same *Definitive* again.
    RolledBack,
    /// It went out and failed: a retry is a *Duplicate*.
    Resolved,
}

/// Why a tombstone stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// `fence` forbade the key.
    Fenced,
    /// A record was here and has expired or was forgotten.
    Expired,
}

/// A [`State`] without its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// Registered, and an attempt may be running.
    Registered,
    /// Accepted downstream.
    Dispatched,
    /// Registered, end unknown.
    InDoubt,
    /// Ended with an answer.
    Completed,
    /// Ended without one.
    Failed,
    /// Forbidden, or a marker of what was here.
    Tombstone,
}

/// One start of the operation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AttemptId {
    /// 1 for the first start of a record, then counting.
    pub number: u32,
    /// Which boot of the engine ran it.
    pub boot: BootId,
    /// The same across the re-runs of one record.
    pub token: Token,
}

/// A random name for one opening of an engine.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BootId(pub [u8; 16]);

/// 32 unguessable bytes that belong to one record: hand them downstream as an idempotency token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub [u8; 32]);

impl State {
    /// The state's name.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Registered => Status::Registered,
            Self::Dispatched => Status::Dispatched,
            Self::InDoubt => Status::InDoubt,
            Self::Completed(_) => Status::Completed,
            Self::Failed(..) => Status::Failed,
            Self::Tombstone(_) => Status::Tombstone,
        }
    }
}

impl Status {
    /// Whether the end is still to come: such a record is never removed by expiry or `forget`.
    #[must_use]
    pub fn is_in_flight(self) -> bool {
        match self {
            Self::Registered | Self::Dispatched | Self::InDoubt => true,
            Self::Completed | Self::Failed | Self::Tombstone => false,
        }
    }
}

impl Status {
    /// Its name in one word, as in a [`Detail`](crate::class::Detail): `in_doubt`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Dispatched => "dispatched",
            Self::InDoubt => "in_doubt",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Tombstone => "tombstone",
        }
    }

    /// The one of this [name](Self::name).
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Registered, Self::Dispatched, Self::InDoubt, Self::Completed, Self::Failed, Self::Tombstone];
        all.into_iter().find(|status| status.name() == name)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Registered => "registered",
            Self::Dispatched => "dispatched",
            Self::InDoubt => "in doubt",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Tombstone => "tombstone",
        })
    }
}

impl AttemptId {
    /// Whether both are the same start of the same record. Numbers begin anew with each record of a key, tokens do not; which
    /// boot reports makes no difference.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.number == other.number && self.token == other.token
    }
}

impl Record {
    /// When the store may remove the record by itself: the end of the grace, and of a tombstone after it. `None`: never.
    #[must_use]
    pub fn removable_at(&self) -> Option<UnixMillis> {
        match self.state {
            State::Registered | State::Dispatched | State::InDoubt => None,
            State::Completed(_) | State::Failed(..) => self.lapses_at,
            State::Tombstone(_) => self.tombstone_until,
        }
    }

    /// From which tick on the store may remove the record by itself, whatever the time: the tick that a completed one lapses
    /// at. `None`: from none.
    #[must_use]
    pub fn lapse_tick(&self) -> Option<u64> {
        match self.state {
            State::Completed(_) => self.lapses_at_tick,
            State::Registered | State::Dispatched | State::InDoubt | State::Failed(..) | State::Tombstone(_) => None,
        }
    }

    /// Whether so many ticks have released it.
    pub(crate) fn is_released(&self, tick: u64) -> bool {
        self.lapse_tick().is_some_and(|last| tick >= last)
    }

    /// Whether the store may remove it by itself, at this time and tick.
    #[must_use]
    pub fn is_removable(&self, now: UnixMillis, tick: u64) -> bool {
        self.is_released(tick) || self.removable_at().is_some_and(|end| now >= end)
    }

    /// Roughly how many bytes a write of this record carries.
    #[must_use]
    pub fn weight(&self) -> usize {
        let end = match &self.state {
            State::Completed(Some(bytes)) | State::Failed(_, bytes) => bytes.len(),
            State::Registered | State::Dispatched | State::InDoubt | State::Completed(None) | State::Tombstone(_) => 0,
        };
        let optional = [&self.checkpoint, &self.contradiction].into_iter().flatten().map(|bytes| bytes.len());
        200 + self.request.len() + end + optional.sum::<usize>()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered | Self::Dispatched | Self::InDoubt => write!(f, "{}", self.status()),
            Self::Completed(answer) => write!(f, "completed({:?} bytes)", answer.as_ref().map(|bytes| bytes.len())),
            Self::Failed(origin, reason) => write!(f, "failed({origin:?}, {} bytes)", reason.len()),
            Self::Tombstone(mark) => write!(f, "tombstone({mark:?})"),
        }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("revision", &self.revision)
            .field("fingerprint", &self.fingerprint)
            .field("request_bytes", &self.request.len())
            .field("attempt", &self.attempt)
            .field("state", &self.state)
            .field("checkpoint_bytes", &self.checkpoint.as_ref().map(|bytes| bytes.len()))
            .field("recoveries", &self.recoveries)
            .field("created_at", &self.created_at)
            .field("updated_at", &self.updated_at)
            .field("expires_at", &self.expires_at)
            .field("lapses_at", &self.lapses_at)
            .field("tombstone_until", &self.tombstone_until)
            .field("contradiction", &self.contradiction.is_some())
            .field("lapses_at_tick", &self.lapses_at_tick)
            .field("abandoned", &self.abandoned)
            .finish()
    }
}

impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attempt {} of boot {}", self.number, encode_hex(&self.boot.0[..4]))
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BootId({})", encode_hex(&self.0[..4]))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}
