//! Stub of the facade: signatures only, so that the adapter compiles. To be replaced.

use std::future::Future;
use std::time::Duration;

use crate::{Bytes, End, Error, ErrorKind, Flow, Key, Reason, Reply, Token, UnixMillis};

/// Handle.
#[derive(Clone, Debug)]
pub struct Engine;
/// A request for the engine.
#[derive(Debug)]
pub struct Call;
/// What runs once.
#[derive(Debug)]
pub struct Operation;
/// Handed to the operation.
#[derive(Clone, Debug)]
pub struct Attempt;

#[expect(missing_docs, unused_variables, clippy::needless_pass_by_value, reason = "a stub")]
impl Call {
    #[must_use]
    pub fn new(flow: &Flow, key: &Key, request: impl Into<Bytes>) -> Self {
        Self
    }
    #[must_use]
    pub fn retention(self, retention: Duration) -> Self {
        self
    }
    #[must_use]
    pub fn barred(self, reason: Reason) -> Self {
        self
    }
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        self
    }
}

#[expect(missing_docs, unused_variables, reason = "a stub")]
impl Operation {
    pub fn new<F, Fut>(f: F) -> Self
    where
        F: FnOnce(Attempt) -> Fut + Send + 'static,
        Fut: Future<Output = End> + Send + 'static,
    {
        Self
    }
}

#[expect(missing_docs, clippy::missing_errors_doc, unused_variables, reason = "a stub")]
impl Attempt {
    #[must_use]
    pub fn number(&self) -> u32 {
        0
    }
    #[must_use]
    pub fn token(&self) -> &Token {
        &Token([0; 32])
    }
    #[must_use]
    pub fn admitted_at(&self) -> UnixMillis {
        UnixMillis(0)
    }
    #[must_use]
    pub fn expires_at(&self) -> Option<UnixMillis> {
        None
    }
    #[must_use]
    pub fn last_checkpoint(&self) -> Option<&Bytes> {
        None
    }
    pub async fn checkpoint(&self, bytes: impl Into<Bytes>, expires_at: Option<UnixMillis>) -> Result<(), Error> {
        Err(ErrorKind::Closed.into())
    }
}

#[expect(missing_docs, clippy::missing_errors_doc, unused_variables, reason = "a stub")]
impl Engine {
    pub async fn submit(&self, call: Call, operation: Operation) -> Result<Reply, Error> {
        Err(ErrorKind::Closed.into())
    }
    pub fn try_submit(
        &self,
        call: Call,
        operation: Operation,
        on_done: impl FnOnce(Result<Reply, Error>) + Send + 'static,
    ) -> Result<(), Error> {
        Err(ErrorKind::Closed.into())
    }
}
