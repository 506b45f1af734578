//! A request with a key: from its body to what its client gets.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::answer::{Answer, Kept, REPLAYED};
use super::canonical::Request;
use super::counts::Ended;
use super::idempotency::{Idempotency, Incoming, Routed};
use super::problem::Problem;
use super::route::{Disposition, OnPanic, OnRunning};
use super::setup::Settings;
use super::trace::{OwnRun, Trace};
use crate::{Attempt, Bound, Call, End, Error, ErrorKind, How, Key, Operation, Outcome, Reason, Reply, Status};

/// A request whose key is known, before its body is read.
pub(super) struct Keyed {
    pub(super) idempotency: Idempotency,
    pub(super) routed: Arc<Routed>,
    pub(super) key: Key,
    pub(super) trace: Trace,
}

/// What the client gets.
pub(super) enum Served<R> {
    /// The handler's own answer, as it was made.
    First(R),
    /// Something to make an answer of.
    Told(Answer),
    /// The same, for one who has waited long enough: its own run may still start, with nobody to hear of it.
    Late(Answer),
}

/// What a run knows of the route it runs on.
#[derive(Clone)]
pub(super) struct Run {
    settings: Arc<Settings>,
    routed: Arc<Routed>,
    own_run: OwnRun,
    most: usize,
}

impl Keyed {
    /// Bytes that its body may have.
    pub(super) fn request_bytes(&self) -> usize {
        self.idempotency.settings().request_bytes
    }

    pub(super) fn refuse(self, problem: Problem) -> Answer {
        self.idempotency.refuse(self.trace, problem)
    }

    /// The request with its body, for the engine.
    pub(super) fn call(&self, incoming: &Incoming<'_>, body: &[u8]) -> Call {
        let route = &self.routed.guarded.route;
        let request = Request {
            target: incoming.target,
            content_type: (incoming.values)("content-type"),
            body,
            headers: route.headers.iter().map(|name| (&**name, (incoming.values)(name))).collect(),
        };
        Call::new(&self.routed.guarded.flow, &self.key, request.canonical(&route.reading))
    }

    pub(super) fn run(&self) -> Run {
        Run {
            settings: Arc::clone(self.idempotency.settings()),
            routed: Arc::clone(&self.routed),
            own_run: self.trace.own_run().clone(),
            most: self.idempotency.engine().limits().answer_bytes,
        }
    }

    /// Gives the request to the engine. The operation is a [`Run`]'s, which hands the handler's own answer to `first` before it
    /// ends.
    ///
    /// Cancel safety: what was submitted runs and is recorded, whether or not this future is dropped.
    pub(super) async fn submit<R>(
        mut self,
        call: Call,
        operation: Operation,
        mut first: oneshot::Receiver<R>,
    ) -> Served<R> {
        self.trace.unheard(Ended::Ambiguous);
        let reply = match self.reply(call, operation).await {
            Ok(reply) => reply,
            Err(problem) => return Served::Late(self.refuse(problem)),
        };
        match reply {
            Ok(Reply::Answer(Outcome { how, answer })) => match first.try_recv() {
                Ok(own) if how == How::Executed => self.first(own, Kept::from_bytes(&answer)),
                _ => self.told(&answer, how),
            },
            Ok(Reply::Accepted) => Served::Told(self.refuse(Problem::InDoubt)),
            Err(error) => match (error.kind(), first.try_recv()) {
                // The handler has an answer and says that nothing has happened.
                (ErrorKind::Failed(reason), Ok(own)) => self.first(own, Kept::from_bytes(reason.bytes())),
                (ErrorKind::Failed(reason), Err(_)) => match Kept::from_bytes(reason.bytes()) {
                    Some(Kept::Whole(..)) => self.told(reason.bytes(), How::Joined),
                    // Its answer went to the first client alone; or it did not start, and will not.
                    Some(Kept::NotKept(..)) | None => Served::Told(self.refuse(Problem::Busy { scope: false })),
                },
                (kind, _) => {
                    let problem = self.problem(kind);
                    Served::Told(self.refuse(problem))
                }
            },
        }
    }

    /// Waits for the end of its own run for as long as that takes, and for somebody else's as long as the route says.
    async fn reply(&self, call: Call, operation: Operation) -> Result<Result<Reply, Error>, Problem> {
        let mut reply = std::pin::pin!(self.idempotency.engine().submit(call, operation));
        let OnRunning::Join { wait } = self.routed.guarded.route.on_running else { return Ok(reply.await) };
        match tokio::time::timeout(wait, &mut reply).await {
            Ok(reply) => Ok(reply),
            Err(_) if self.trace.own_run().attempt().is_some() => Ok(reply.await),
            Err(_) => match self.standing() {
                // It has just ended.
                Problem::InFlight(status) if !status.is_in_flight() => Ok(reply.await),
                problem => Err(problem),
            },
        }
    }

    /// How the request stands that nobody waits for here any longer.
    fn standing(&self) -> Problem {
        match self.idempotency.engine().lookup(&self.key) {
            Ok(Some(record)) => match record.state.status() {
                Status::InDoubt => Problem::InDoubt,
                status => Problem::InFlight(status),
            },
            Ok(None) | Err(_) => Problem::StoreUnavailable,
        }
    }

    fn problem(&self, kind: &ErrorKind) -> Problem {
        match kind {
            ErrorKind::Busy { bound: Bound::Waiters, .. } => self.standing(),
            kind => problem(kind),
        }
    }

    fn first<R>(self, own: R, kept: Option<Kept>) -> Served<R> {
        let status = match kept {
            Some(Kept::Whole(answer, _)) => answer.status(),
            Some(Kept::NotKept(status, _)) => status,
            None => 0,
        };
        let attempt = self.trace.own_run().number();
        self.trace.end(Ended::Executed, status, attempt);
        Served::First(own)
    }

    /// What is recorded, or was a moment ago.
    fn told<R>(self, bytes: &[u8], how: How) -> Served<R> {
        let (answer, attempt) = match Kept::from_bytes(bytes) {
            Some(Kept::Whole(answer, attempt)) => (answer, attempt),
            Some(Kept::NotKept(status, _)) => return Served::Told(self.refuse(Problem::AnswerNotKept(Some(status)))),
            None => return Served::Told(self.refuse(Problem::Quarantined)),
        };
        let (ended, answer) = match how {
            How::Executed => (Ended::Executed, answer),
            How::Replayed => (Ended::Replayed, answer.header(REPLAYED, "true")),
            How::Joined => (Ended::Joined, answer.header(REPLAYED, "true")),
        };
        #[cfg(feature = "metrics")]
        super::meters::answered(self.trace.route(), how);
        self.trace.end(ended, answer.status(), Some(attempt));
        Served::Told(answer)
    }
}

impl Run {
    /// The handler is about to start.
    pub(super) fn begin(&self, attempt: &Attempt) {
        self.own_run.begin(attempt);
    }

    /// Whether it was.
    #[cfg(feature = "actix-web")]
    pub(super) fn has_begun(&self) -> bool {
        self.own_run.attempt().is_some()
    }

    /// How long an answer may take from its head on to be kept.
    pub(super) fn answer_wait(&self) -> Duration {
        self.settings.answer_wait
    }

    /// Bytes of a body that is kept.
    pub(super) fn answer_bytes(&self) -> usize {
        self.settings.answer_bytes
    }

    pub(super) fn disposition(&self, handlers: Option<Disposition>, head: &Answer) -> Disposition {
        self.routed.guarded.route.disposition(handlers, head)
    }

    /// The end of a run with this answer, of which `None` means that its body is not kept.
    pub(super) fn answered(&self, disposition: Disposition, head: Answer, body: Option<Vec<u8>>) -> End {
        let (status, attempt) = (head.status(), self.own_run.number().unwrap_or(1));
        let kept = match body {
            Some(body) => Kept::whole(head.body(body), attempt).to_bytes(),
            None => Kept::NotKept(status, attempt).to_bytes(),
        };
        let kept = if kept.len() > self.most { Kept::NotKept(status, attempt).to_bytes() } else { kept };
        match disposition {
            Disposition::Keep => End::done(kept),
            Disposition::Forget => End::Definitive(Reason::from_bytes(kept)),
            Disposition::InDoubt => in_doubt("the handler does not know what has happened"),
        }
    }

    /// The same end, if it can be believed. That an attempt has surely done nothing says nothing of the one before it, which ended
    /// in doubt: the record has to stay, with the token that downstream may know it by.
    pub(super) async fn believed(&self, end: End) -> End {
        match (&end, self.own_run.attempt()) {
            // The flow believes no such end of a record with a checkpoint.
            (End::Definitive(_), Some(attempt)) if attempt.number() > 1 => {
                match attempt.checkpoint(*b"an earlier attempt is in doubt", None).await {
                    Ok(()) => end,
                    Err(_) => in_doubt("an earlier attempt is in doubt"),
                }
            }
            _ => end,
        }
    }

    /// The end of a run whose handler has panicked.
    pub(super) fn panicked(&self) -> End {
        tracing::error!(route = &*self.routed.label, "a handler panicked");
        match self.routed.guarded.route.on_panic {
            OnPanic::InDoubt => in_doubt("the handler panicked"),
            OnPanic::Answer500 => {
                let answer = Problem::OutcomeUnknown.answer(self.settings.mismatch_status, &self.settings.base);
                End::done(Kept::whole(answer, self.own_run.number().unwrap_or(1)).to_bytes())
            }
        }
    }
}

pub(super) fn in_doubt(why: &'static str) -> End {
    End::Unknown(Reason::from_bytes(why.as_bytes()))
}

/// How the engine's refusal is told.
fn problem(kind: &ErrorKind) -> Problem {
    match kind {
        ErrorKind::Mismatch => Problem::Mismatch,
        // What the host has fenced it has forbidden for good.
        ErrorKind::Expired | ErrorKind::Fenced => Problem::Expired,
        // That it failed is what the host has said, and it has not freed the key yet.
        ErrorKind::Duplicate(Status::InDoubt | Status::Failed)
        | ErrorKind::InDoubt(_)
        | ErrorKind::RecoveriesExhausted => Problem::InDoubt,
        ErrorKind::Duplicate(status) => Problem::InFlight(*status),
        ErrorKind::Busy { bound, found_absent: true } => Problem::Busy { scope: *bound == Bound::Scope },
        ErrorKind::QuotaExceeded => Problem::Busy { scope: true },
        // It did not start, and will not.
        ErrorKind::Failed(_) => Problem::Busy { scope: false },
        ErrorKind::AnswerNotKept => Problem::AnswerNotKept(None),
        ErrorKind::TooLarge { .. } => Problem::RequestTooLarge,
        ErrorKind::InvalidKey(_) => Problem::KeyInvalid("the key has no bytes that can be kept"),
        ErrorKind::Quarantined | ErrorKind::Decode => Problem::Quarantined,
        ErrorKind::Busy { .. }
        | ErrorKind::Store
        | ErrorKind::Closed
        | ErrorKind::Deadline
        | ErrorKind::Internal
        | ErrorKind::NotFound
        | ErrorKind::RetentionOverflow
        | ErrorKind::RetentionMissing
        | ErrorKind::Encode => Problem::StoreUnavailable,
    }
}
