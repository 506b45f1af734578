//! Requests as messages, for callers that are actors themselves.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use actix::{Actor, Context, Handler, Message, ResponseFuture};

use super::operation::Operation;
use crate::call::Call;
use crate::error::Error;
use crate::outcome::Reply;

/// A request as an actix message: the same as [`Engine::submit`](crate::Engine::submit). Send it to
/// [`Engine::recipient`](crate::Engine::recipient).
///
/// A [`MailboxError`](actix::MailboxError) proves nothing about the request: treat it as
/// [`Class::Ambiguous`](crate::Class::Ambiguous).
pub struct Submission {
    /// The request.
    pub call: Call,
    /// What runs if it is the first.
    pub operation: Operation,
}

impl Message for Submission {
    type Result = Result<Reply, Error>;
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission").field("call", &self.call).finish_non_exhaustive()
    }
}

type Pending = Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send>>;

/// Passes each message to the engine and the engine's answer back.
pub(crate) struct Front {
    submit: Box<dyn Fn(Call, Operation) -> Pending + Send>,
}

impl Front {
    pub(crate) fn new(submit: impl Fn(Call, Operation) -> Pending + Send + 'static) -> Self {
        Self { submit: Box::new(submit) }
    }
}

impl Actor for Front {
    type Context = Context<Self>;
}

impl Handler<Submission> for Front {
    type Result = ResponseFuture<Result<Reply, Error>>;

    fn handle(&mut self, Submission { call, operation }: Submission, _: &mut Self::Context) -> Self::Result {
        (self.submit)(call, operation)
    }
}
