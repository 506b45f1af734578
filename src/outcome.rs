//! How an answer came about, and the answer.

use std::fmt;

use crate::ledger::Row;
use crate::record::{Bytes, Status};
use crate::time::UnixMillis;

/// How an answer came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// The operation ran for this caller, now.
    Executed,
    /// It was read from the record of an earlier run.
    Replayed,
    /// It was shared with a run in flight.
    Joined,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Executed => "executed",
            Self::Replayed => "replayed",
            Self::Joined => "joined",
        })
    }
}

/// An answer and how it came about.
#[derive(Clone, PartialEq, Eq)]
pub struct Outcome<A = Bytes> {
    /// How it came about.
    pub how: How,
    /// The answer: for the same key and request always the same bytes.
    pub answer: A,
}

impl<A> Outcome<A> {
    /// Whether this answer was read from the record of an earlier run. One that was joined is none.
    #[must_use]
    pub fn is_replay(&self) -> bool {
        self.how == How::Replayed
    }
}

impl<A> fmt::Debug for Outcome<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcome").field("how", &self.how).finish_non_exhaustive()
    }
}

/// What a request came to: its answer, or the news that the operation was accepted and ends later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The end.
    Answer(Outcome),
    /// Accepted downstream: `track` it, `resolve` it.
    Accepted,
}

/// What the operation found out about its own end.
pub enum End {
    /// It ended with an answer.
    Done(Completion),
    /// Downstream took it on; the end comes by `resolve`.
    Accepted,
    /// Downstream knows this very request from before and goes on with it: as accepted, but the caller is told *Duplicate*.
    AlreadyLive,
    /// Downstream knows the key for another request. Ours never ran and leaves nothing behind; the caller is told *Conflict*.
    Taken,
    /// Positive proof that nothing happened and nothing will.
    Definitive(Reason),
    /// Everything else.
    Unknown(Reason),
}

/// An answer, and what is recorded with it.
#[derive(Clone)]
pub struct Completion {
    pub(crate) answer: Bytes,
    pub(crate) expires_at: Option<UnixMillis>,
    pub(crate) rows: Vec<Row>,
    pub(crate) otherwise: Option<Reason>,
}

impl Completion {
    /// With this answer.
    #[must_use]
    pub fn new(answer: impl Into<Bytes>) -> Self {
        Self { answer: answer.into(), expires_at: None, rows: Vec::new(), otherwise: None }
    }

    /// The end of what the answer describes: the record answers until then at most.
    #[must_use]
    pub fn expires_at(mut self, end: UnixMillis) -> Self {
        self.expires_at = Some(end);
        self
    }

    /// One more ledger row for the same transaction: the answer and all of its rows are stored, or none of them.
    #[must_use]
    pub fn row(mut self, row: Row) -> Self {
        self.rows.push(row);
        self
    }

    /// What the request ends with if a row's guard does not hold: [`End::Definitive`] with this reason, also after a checkpoint. By
    /// giving it the operation says that then it has had no effect that matters. Without it the record is in doubt: that nothing
    /// was recorded does not undo what the operation did.
    #[must_use]
    pub fn otherwise(mut self, reason: Reason) -> Self {
        self.otherwise = Some(reason);
        self
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion")
            .field("answer_bytes", &self.answer.len())
            .field("expires_at", &self.expires_at)
            .field("rows", &self.rows)
            .finish()
    }
}

impl End {
    /// It ended with this answer.
    #[must_use]
    pub fn done(answer: impl Into<Bytes>) -> Self {
        Self::Done(Completion::new(answer))
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done(..) => "Done(..)",
            Self::Accepted => "Accepted",
            Self::AlreadyLive => "AlreadyLive",
            Self::Taken => "Taken",
            Self::Definitive(_) => "Definitive(..)",
            Self::Unknown(_) => "Unknown(..)",
        })
    }
}

/// An end that comes from outside the operation.
///
/// The bytes of an answer are what a replay gives. For a flow of typed answers, whose requests are [run](crate::Engine::run), make it
/// by [`Ended::answer`]; other bytes are a [`Decode`](crate::ErrorKind::Decode) to its callers.
#[derive(Clone, PartialEq, Eq)]
pub enum Ended {
    /// With this answer.
    Completed(Bytes),
    /// Without one, for this reason, after it had gone out.
    Failed(Bytes),
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Completed(_) => "Completed(..)",
            Self::Failed(_) => "Failed(..)",
        })
    }
}

/// Why an operation did not end well: bytes that can be stored, and in this process also the error itself.
#[derive(Clone)]
pub struct Reason {
    bytes: Bytes,
    source: Option<std::sync::Arc<dyn std::error::Error + Send + Sync>>,
}

impl Reason {
    /// A reason that is only bytes, in whatever form the flow likes.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), source: None }
    }

    /// A reason made from an error: its `Display` is what can be stored; callers of this run also get the error itself.
    pub fn from_error(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let source = error.into();
        Self { bytes: source.to_string().into_bytes().into(), source: Some(source.into()) }
    }

    /// What is stored, and what a replay carries.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The operation's own error, if this is the process that ran it.
    #[must_use]
    pub fn error(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        self.source.as_deref()
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reason({} bytes)", self.bytes.len())
    }
}

/// How a typed operation ends when it has no answer to give.
///
/// `?` on any error makes it [`Failure::unknown`]: what nobody has classified may have had its effect. Its record is then in doubt,
/// and what comes of that is for the policy to say ([`InDoubt`](crate::InDoubt)). So classify what surely had no effect:
///
/// ```
/// # use ibid::Failure;
/// # fn connect() -> Result<(), std::io::Error> { Ok(()) }
/// # fn charge() -> Result<String, std::io::Error> { Ok(String::new()) }
/// # fn operation() -> Result<String, Failure> {
/// connect().map_err(Failure::definitive)?; // Nothing was sent: the next request runs.
/// let receipt = charge()?; // It may have been carried out: in doubt.
/// # Ok(receipt)
/// # }
/// ```
pub struct Failure(pub(crate) End);

impl Failure {
    /// Positive proof that nothing happened and nothing will: the caller is told *Definitive*, and what a retry gets is the
    /// policy's choice ([`OnFailure`](crate::OnFailure)).
    pub fn definitive(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(End::Definitive(Reason::from_error(error)))
    }

    /// Anything else: the record is in doubt, and this caller is told *Ambiguous*.
    pub fn unknown(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(End::Unknown(Reason::from_error(error)))
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::unknown(error)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Failure({:?})", self.0)
    }
}

/// What `forget` did with one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// The record is gone: the next request runs, or meets the flow's tombstone.
    Forgotten,
    /// There was none.
    NotFound,
    /// Its end is still to come; it stays.
    InFlight(Status),
    /// It has an end, and an attempt of it is still under way downstream, or that could not be ruled out; it stays.
    Live,
    /// What is stored cannot be read; it stays.
    Quarantined,
    /// A tombstone is not forgotten.
    Tombstone,
}

/// What `resolve` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// The end is recorded.
    Recorded,
    /// The same end was recorded before; nothing was written.
    Already,
    /// Another end was recorded before and stays; the contradiction is kept beside it.
    Contradicts(Status),
    /// The end belongs to an older attempt; nothing was written.
    FencedOff,
    /// There is no such record; nothing was created.
    NotFound,
}

/// What `abandon` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abandoned {
    /// The record, which stands like this, is marked: its key is free as soon as it fails. It may still succeed.
    Marked(Status),
    /// It had failed, and is gone: the key is free.
    Released,
    /// It has completed, or there is none: nothing was changed.
    NoEffect,
}

/// What `acknowledge` and `disturb` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// Its quiet ticks are counted.
    Counting,
    /// There are none to count: it has not completed, has not been acknowledged, or its flow's retention counts none.
    NoEffect(Status),
    /// There is no record.
    NotFound,
}

/// What `fence` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fenced {
    /// Nothing was there, or it was fenced before: the key is forbidden, and no request will ever run under it.
    Fenced,
    /// A record is there, with this state; nothing was changed.
    Found(Status),
}
