//! What one is asked who may know how an attempt stands, and what that one can say.

use std::fmt;

use crate::key::Key;
use crate::outcome::Ended;
use crate::record::{AttemptId, Bytes, Record, Status, Token};

/// The question to an [oracle](crate::Builder::oracle): how does this attempt stand downstream?
#[derive(Clone)]
pub struct Inquiry {
    key: Key,
    request: Bytes,
    attempt: AttemptId,
    last_checkpoint: Option<Bytes>,
    status: Status,
}

impl Inquiry {
    /// About this record, as it reads.
    pub(crate) fn about(key: &Key, record: &Record) -> Self {
        Self {
            key: key.clone(),
            request: record.request.clone(),
            attempt: record.attempt,
            last_checkpoint: record.checkpoint.clone(),
            status: record.state.status(),
        }
    }

    /// The key of the record.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The canonical request, as registered.
    #[must_use]
    pub fn request(&self) -> &Bytes {
        &self.request
    }

    /// The attempt that is asked about.
    #[must_use]
    pub fn id(&self) -> AttemptId {
        self.attempt
    }

    /// Its number, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt.number
    }

    /// The 32 bytes that every attempt of this record was handed: what was given downstream as an idempotency token.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.attempt.token
    }

    /// What the attempt saved last on its way.
    #[must_use]
    pub fn last_checkpoint(&self) -> Option<&Bytes> {
        self.last_checkpoint.as_ref()
    }

    /// [`Status::InDoubt`] or [`Status::Dispatched`]; where a record is to be forgotten, [`Status::Completed`] or
    /// [`Status::Failed`].
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }
}

impl fmt::Debug for Inquiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inquiry")
            .field("key", &self.key)
            .field("request_bytes", &self.request.len())
            .field("attempt", &self.attempt)
            .field("checkpoint_bytes", &self.last_checkpoint.as_ref().map(|bytes| bytes.len()))
            .field("status", &self.status)
            .finish()
    }
}

/// What an oracle knows. Whoever is not sure says [`CannotTell`](Found::CannotTell), and is asked again.
#[derive(Clone, PartialEq, Eq)]
pub enum Found {
    /// A promise: it did not start and never will, whatever is still on its way. The record ends as
    /// [failed without effect](crate::End::Definitive), also after a checkpoint, which the inquiry shows, and also if it had
    /// been accepted. If this is wrong, somebody pays twice.
    NotStarted,
    /// It is under way downstream: the record is dispatched from now on, and ends by `resolve` or by a later answer.
    Live,
    /// The same, and it has been given up there: no more is tried, though what is under way may still succeed. The record is
    /// marked as by [`Engine::abandon`](crate::Engine::abandon).
    Abandoned,
    /// It has ended like this.
    Done(Ended),
    /// Downstream does not know it, and may still come to: what it has yet to replay or to catch up with may hold it. The record
    /// is in doubt, a dispatched one too; it is asked about again, and this answer does not count towards a dead letter.
    Missing,
    /// Anything else. After [`Limits::recoveries`](crate::Limits::recoveries) of these in a row, at least one, the record
    /// is a dead letter.
    CannotTell,
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted => f.write_str("NotStarted"),
            Self::Live => f.write_str("Live"),
            Self::Abandoned => f.write_str("Abandoned"),
            Self::Missing => f.write_str("Missing"),
            Self::Done(ended) => write!(f, "Done({ended:?})"),
            Self::CannotTell => f.write_str("CannotTell"),
        }
    }
}
