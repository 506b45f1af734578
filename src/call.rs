//! One request, ready for the engine.

use std::fmt;
use std::time::Duration;

use crate::key::Key;
use crate::outcome::Reason;
use crate::policy::Flow;
use crate::record::Bytes;

/// A request under a key: its canonical bytes, and what is said with it.
///
/// The bytes decide whether a retry is the same request, so they must not contain what changes from try to try (ids of
/// the transport, timestamps, credentials).
#[derive(Clone)]
pub struct Call {
    pub(crate) flow: Flow,
    pub(crate) key: Key,
    pub(crate) request: Bytes,
    pub(crate) retention: Option<Duration>,
    pub(crate) barred: Option<Reason>,
    pub(crate) deadline: Option<Duration>,
}

impl Call {
    /// A request of these canonical bytes. The key must come from the same flow.
    pub fn new(flow: &Flow, key: &Key, request: impl Into<Bytes>) -> Self {
        Self {
            flow: flow.clone(),
            key: key.clone(),
            request: request.into(),
            retention: None,
            barred: None,
            deadline: None,
        }
    }

    /// The record answers for this long, counted from the admission of the attempt that answered. It is the only retention
    /// under [`Retention::FromRequest`](crate::Retention::FromRequest), and an upper bound under the others.
    #[must_use]
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }

    /// The operation must not start now, for this reason. A record answers all the same; where the operation would have to
    /// start, the caller gets [`Failed`](crate::ErrorKind::Failed) with the reason and nothing is registered (for a record in
    /// doubt [`InDoubt`](crate::ErrorKind::InDoubt), and no re-run is used up).
    #[must_use]
    pub fn barred(mut self, reason: Reason) -> Self {
        self.barred = Some(reason);
        self
    }

    /// How long this caller waits, at most: then [`Deadline`](crate::ErrorKind::Deadline), *Ambiguous*. The operation goes on
    /// and its answer is recorded.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("key", &self.key)
            .field("request_bytes", &self.request.len())
            .field("retention", &self.retention)
            .field("barred", &self.barred.is_some())
            .field("deadline", &self.deadline)
            .finish()
    }
}
