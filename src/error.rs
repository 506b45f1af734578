//! The one error, and the one class that says what the client does next.
//!
//! ```text
//! Duplicate    known: registered, running or finished     treat as done, track it
//! Conflict     another request's key, or an expired one   take a new key
//! Definitive   it did not and will not run, or had no     may take a new key
//!              effect
//! Ambiguous    everything else                            the same request, the same key, again
//! ```

use std::fmt;
use std::sync::Arc;

use crate::key::InvalidKey;
use crate::outcome::{Ended, Reason};
use crate::record::Status;

/// Why a request got no answer. [`Error::kind`] is there to match on, [`Error::class`] says what to do.
///
/// `Display` names the kind and never the operation's own words: those are in [`reason`](Error::reason) and, for callers of the run
/// that made them, in [`source`](std::error::Error::source).
#[derive(Clone)]
pub struct Error(Arc<Inner>);

/// Behind a pointer: what may fail is moved and kept by every request, and fails for few.
struct Inner {
    kind: ErrorKind,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    recorded: Option<Ended>,
}

/// What is to bring records out of doubt does not fit their flow's policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidRecovery {
    /// An oracle for the flow of this name, whose policy does not ask: it needs [`InDoubt::Ask`](crate::InDoubt::Ask).
    OracleNeverAsked(String),
    /// A re-run for the flow of this name, whose policy does not re-run: it needs [`InDoubt::Rerun`](crate::InDoubt::Rerun).
    RerunNeverRun(String),
    /// More than one for the flow of this name.
    Twice(String),
    /// No oracle for the flow of this name, whose adapter needs one: what comes into doubt would stay so for ever. Open the engine with
    /// a builder that the adapter's `prepare` has returned.
    OracleMissing(String),
}

impl fmt::Display for InvalidRecovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OracleNeverAsked(flow) => write!(f, "flow {flow} has an oracle and a policy that does not ask"),
            Self::RerunNeverRun(flow) => write!(f, "flow {flow} has a re-run and a policy that does not re-run"),
            Self::Twice(flow) => write!(f, "flow {flow} has more than one oracle or re-run"),
            Self::OracleMissing(flow) => {
                write!(f, "flow {flow} has no oracle: open the engine with a builder that prepare has returned")
            }
        }
    }
}

impl std::error::Error for InvalidRecovery {}

/// What the client may conclude, and what it does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The key is registered, running or finished with this very request: treat it as done, track it.
    Duplicate,
    /// The key belongs to another request, or has expired: take a new key.
    Conflict,
    /// Positive proof that the operation did not and will not run for this request, or surely had no effect: a new key
    /// may be taken.
    Definitive,
    /// No proof of anything: retry the same request with the same key.
    Ambiguous,
}

/// What happened, with the data that belongs to it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The key belongs to another request. *Conflict*.
    Mismatch,
    /// The key's record has expired. *Conflict*.
    Expired,
    /// The request is known and stands like this. *Duplicate*.
    Duplicate(Status),
    /// The request completed with an answer over the size limit, which was not kept. *Duplicate*.
    AnswerNotKept,
    /// The operation failed and surely had no effect. *Definitive*.
    Failed(Reason),
    /// `fence` has forbidden the key. *Definitive*.
    Fenced,
    /// The time until which the record has to be kept does not fit a clock. Nothing ran. *Definitive*.
    RetentionOverflow,
    /// The policy takes the retention from the request, and the call names none. Nothing ran. *Definitive*.
    RetentionMissing,
    /// The request holds more bytes than the limit. Nothing ran. *Definitive*.
    TooLarge {
        /// Bytes of the canonical request.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The scope holds as many records as it may. Nothing ran. *Definitive*.
    QuotaExceeded,
    /// A bound on work in flight was met. *Definitive* if the key had been looked up and found absent, nothing of it being on
    /// its way either; else *Ambiguous*: it says nothing about an earlier try.
    Busy {
        /// Which one.
        bound: Bound,
        /// Whether the look-up had found nothing under the key, in the store and in memory. A request that still travels is not
        /// in sight.
        found_absent: bool,
    },
    /// The record is in doubt: the operation ended unknown, now or before a restart. *Ambiguous*.
    InDoubt(Option<Reason>),
    /// As many re-runs as allowed ended unknown; none follows by itself. *Ambiguous*.
    RecoveriesExhausted,
    /// The record cannot be decoded. It is never run again; retrying will not help. *Ambiguous*.
    Quarantined,
    /// The store failed; whether the step was recorded is not known. *Ambiguous*.
    Store,
    /// The engine is closed or closing. *Ambiguous*.
    Closed,
    /// The caller's own deadline came first; the operation goes on. *Ambiguous*.
    Deadline,
    /// The engine lost track of the request inside itself; this is a bug of ibid's. *Ambiguous*.
    Internal,
    /// `track` found no record. It proves nothing: the first request may still arrive. *Ambiguous*.
    NotFound,
    /// The key was refused before any look-up. Nothing ran under it, nor could have. *Definitive*.
    InvalidKey(InvalidKey),
    /// What was handed in, a request or an [answer](crate::Ended::answer), could not be encoded. Nothing ran. *Definitive*.
    Encode,
    /// The answer is there but does not decode as the type asked for. *Duplicate*.
    Decode,
}

/// A bound on work in flight, as in [`ErrorKind::Busy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Bound {
    /// [`Limits::in_flight`](crate::Limits::in_flight): the engine has no room.
    Engine,
    /// [`Limits::in_flight_per_scope`](crate::Limits::in_flight_per_scope): the scope has none.
    Scope,
    /// [`Limits::waiters_per_key`](crate::Limits::waiters_per_key): the key has none.
    Waiters,
}

impl Class {
    /// Its name in one word, as in a [`Detail`](crate::class::Detail): `definitive`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Conflict => "conflict",
            Self::Definitive => "definitive",
            Self::Ambiguous => "ambiguous",
        }
    }
}

impl ErrorKind {
    /// The one class of this kind.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Duplicate(_) | Self::AnswerNotKept | Self::Decode => Class::Duplicate,
            Self::Mismatch | Self::Expired => Class::Conflict,
            Self::Failed(_)
            | Self::Fenced
            | Self::RetentionOverflow
            | Self::RetentionMissing
            | Self::TooLarge { .. }
            | Self::QuotaExceeded
            | Self::Busy { found_absent: true, .. }
            | Self::InvalidKey(_)
            | Self::Encode => Class::Definitive,
            Self::Busy { found_absent: false, .. }
            | Self::InDoubt(_)
            | Self::RecoveriesExhausted
            | Self::Quarantined
            | Self::Store
            | Self::Closed
            | Self::Deadline
            | Self::Internal
            | Self::NotFound => Class::Ambiguous,
        }
    }
}

impl Error {
    /// What happened.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// What the client does next.
    #[must_use]
    pub fn class(&self) -> Class {
        self.0.kind.class()
    }

    /// The operation's reason, where the operation itself ended the request.
    #[must_use]
    pub fn reason(&self) -> Option<&Reason> {
        match &self.0.kind {
            ErrorKind::Failed(reason) | ErrorKind::InDoubt(Some(reason)) => Some(reason),
            _ => None,
        }
    }

    /// The recorded end of a [`Duplicate`](ErrorKind::Duplicate) that is completed or failed: its answer, if it was kept, or why it
    /// failed.
    #[must_use]
    pub fn recorded(&self) -> Option<&Ended> {
        self.0.recorded.as_ref()
    }

    /// A *Duplicate* of a request that has ended like this.
    pub(crate) fn duplicate_of(ended: Ended) -> Self {
        let status = match ended {
            Ended::Completed(_) => Status::Completed,
            Ended::Failed(_) => Status::Failed,
        };
        Self(Arc::new(Inner { kind: ErrorKind::Duplicate(status), source: None, recorded: Some(ended) }))
    }

    /// The operation's own error as its type, for callers of the run that produced it.
    #[must_use]
    pub fn operation_error<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.reason()?.error()?.downcast_ref()
    }

    pub(crate) fn caused_by(kind: ErrorKind, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { kind, source: Some(Arc::new(source)), recorded: None }))
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self(Arc::new(Inner { kind, source: None, recorded: None }))
    }
}

impl From<InvalidKey> for Error {
    fn from(invalid: InvalidKey) -> Self {
        Self::caused_by(ErrorKind::InvalidKey(invalid), invalid)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, source, recorded } = &*self.0;
        f.debug_struct("Error").field("kind", kind).field("source", source).field("recorded", recorded).finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.kind {
            ErrorKind::Mismatch => f.write_str("the key belongs to another request"),
            ErrorKind::Expired => f.write_str("the key has expired"),
            ErrorKind::Duplicate(status) => write!(f, "the request is known and {status}"),
            ErrorKind::AnswerNotKept => f.write_str("the request completed, its answer was too large to keep"),
            ErrorKind::Failed(_) => f.write_str("the operation failed without effect"),
            ErrorKind::Fenced => f.write_str("the key is fenced"),
            ErrorKind::RetentionOverflow => f.write_str("the retention ends past the end of time"),
            ErrorKind::RetentionMissing => f.write_str("the flow takes its retention from the request, which has none"),
            ErrorKind::TooLarge { bytes, limit } => write!(f, "the request holds {bytes} bytes, the limit is {limit}"),
            ErrorKind::QuotaExceeded => f.write_str("the scope holds as many records as it may"),
            ErrorKind::Busy { bound: Bound::Engine, .. } => f.write_str("too many requests in flight"),
            ErrorKind::Busy { bound: Bound::Scope, .. } => f.write_str("too many requests of the scope in flight"),
            ErrorKind::Busy { bound: Bound::Waiters, .. } => f.write_str("too many callers wait for the key"),
            ErrorKind::InDoubt(_) => f.write_str("the outcome of the operation is unknown"),
            ErrorKind::RecoveriesExhausted => f.write_str("the outcome is unknown and every re-run ended unknown"),
            ErrorKind::Quarantined => f.write_str("the record cannot be read and is quarantined"),
            ErrorKind::Store => f.write_str("the store failed"),
            ErrorKind::Closed => f.write_str("the engine is closed"),
            ErrorKind::Deadline => f.write_str("the deadline of the wait has passed"),
            ErrorKind::Internal => f.write_str("the request was lost inside the engine"),
            ErrorKind::NotFound => f.write_str("there is no record"),
            ErrorKind::InvalidKey(invalid) => invalid.fmt(f),
            ErrorKind::Encode => f.write_str("what was handed in cannot be encoded"),
            ErrorKind::Decode => f.write_str("the answer does not decode as this type"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Some(source) = &self.0.source {
            return Some(&**source);
        }
        self.reason().and_then(Reason::error).map(|error| error as _)
    }
}
