//! Waiting for what the actors say: as a future, with a deadline, or by a callback that runs exactly once.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::actor::Actors;
use crate::actor::message::{Abandon, RouterAddr, tell};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::machine::Said;
use crate::outcome::Reply;

/// Waits for what is said. Dropped before, it tells the key's actor that nobody waits any more.
pub(crate) struct Waiting {
    heard: oneshot::Receiver<Said>,
    waiter: u64,
    key: Key,
    /// `None` once it is over.
    router: Option<RouterAddr>,
}

impl Waiting {
    pub(crate) fn new(heard: oneshot::Receiver<Said>, waiter: u64, key: Key, router: RouterAddr) -> Self {
        Self { heard, waiter, key, router: Some(router) }
    }

    pub(crate) async fn said(self) -> Result<Said, Error> {
        match self.await {
            Said::Reply(Err(error)) => Err(error),
            said => Ok(said),
        }
    }

    /// The same wait with an end: the timer runs on the engine's own thread, since the host's runtime may have none.
    pub(crate) fn until(self, deadline: Duration, actors: &Actors) -> Self {
        let (mut reply, heard) = oneshot::channel();
        let (waiter, key) = (self.waiter, self.key.clone());
        actors.spawn(async move {
            let mut wait = pin!(tokio::time::timeout(deadline, self));
            // Whoever stops listening before the deadline stops waiting, too.
            let said = poll_fn(|cx| match reply.poll_closed(cx) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => wait.as_mut().poll(cx).map(Some),
            });
            if let Some(said) = said.await {
                tell(reply, said.unwrap_or_else(|_| Said::Reply(Err(ErrorKind::Deadline.into()))));
            }
        });
        Self { heard, waiter, key, router: None }
    }
}

impl Future for Waiting {
    type Output = Said;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Said> {
        let said = std::task::ready!(Pin::new(&mut self.heard).poll(cx));
        self.router = None;
        // A dropped sender means that the actors are gone.
        Poll::Ready(said.unwrap_or_else(|_| Said::Reply(Err(ErrorKind::Closed.into()))))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(router) = self.router.take() {
            // First: whoever looks at the other end after the news must find it closed.
            self.heard.close();
            router.do_send(Abandon { key: self.key.clone(), waiter: self.waiter });
        }
    }
}

/// Runs the callback exactly once: with the reply, or, if the runtime drops its task before there is one, with
/// [`Closed`](ErrorKind::Closed). Not before the request is submitted: until then the refusal is the submitter's to give.
pub(crate) struct Done<F: FnOnce(Result<Reply, Error>)> {
    on_done: Option<F>,
    phase: Arc<AtomicU8>,
}

pub(crate) const PREPARED: u8 = 0;
pub(crate) const SUBMITTED: u8 = 1;
const DROPPED: u8 = 2;

impl<F: FnOnce(Result<Reply, Error>)> Done<F> {
    pub(crate) fn new(on_done: F, phase: Arc<AtomicU8>) -> Self {
        Self { on_done: Some(on_done), phase }
    }

    pub(crate) fn run(mut self, reply: Result<Reply, Error>) {
        self.call(reply);
    }

    fn call(&mut self, reply: Result<Reply, Error>) {
        let Some(on_done) = self.on_done.take() else { return };
        // The callback is not ours, and a panic that leaves a drop may abort the process.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| on_done(reply))).is_err() {
            tracing::error!("a completion callback panicked");
        }
    }
}

impl<F: FnOnce(Result<Reply, Error>)> Drop for Done<F> {
    fn drop(&mut self) {
        if self.on_done.is_none() {
            return;
        }
        if self.phase.compare_exchange(PREPARED, DROPPED, Ordering::AcqRel, Ordering::Acquire).is_err() {
            self.call(Err(ErrorKind::Closed.into()));
        }
    }
}

/// What was said, as the answer to a request.
pub(crate) fn replied(said: Said) -> Result<Reply, Error> {
    match said {
        Said::Reply(reply) => reply,
        other => Err(unexpected(other)),
    }
}

/// An answer of another kind than was asked for.
pub(crate) fn unexpected(said: Said) -> Error {
    tracing::error!(?said, "a key actor answered something else");
    ErrorKind::Internal.into()
}
