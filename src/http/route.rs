//! What a route wants: as a builder with names, and as the policy of a flow.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::answer::{Answer, Kept};
use super::canonical::Reading;
use super::header::KeySyntax;
use super::setup::InvalidSetup;
use crate::{
    AfterCheckpoint, AfterExpiry, Ended, InDoubt, Inquiry, OnFailure, OnStoreFailure, Policy, Retention, WhileRunning,
};

/// The shortest and the longest time that an answer is kept, both included.
pub const TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(300)..=Duration::from_secs(72 * 3600);

/// The same request arrives while the first one runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnRunning {
    /// 409 at once, with Retry-After.
    Refuse,
    /// It waits for the first one's answer, at most this long; then 409.
    Join {
        /// How long.
        wait: Duration,
    },
}

/// The handler panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnPanic {
    /// 500 is the answer (`idempotency_outcome_unknown`), kept and repeated. It is never run again.
    Answer500,
    /// The request is in doubt: 503 until somebody says how it ended, see [`Route::ask`] and [`Route::rerun`].
    InDoubt,
}

/// What becomes of an answer: by the handler's word, as a response extension, or by the route's [judge](Route::judge).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It is kept and repeated.
    Keep,
    /// Surely nothing has happened. It is given to those who wait for it, and the next request runs. Of a handler that has saved a
    /// checkpoint, and of a run after one that ended in doubt, it is not believed: 503, and the record stays in doubt.
    Forget,
    /// Nobody knows what has happened: 503, and nothing is told of this answer.
    InDoubt,
}

/// What somebody who knows says of a request in doubt.
#[derive(Clone, Debug)]
pub enum Found {
    /// It was carried out, and this is its answer from now on.
    Done(Answer),
    /// It surely had no effect and never will: the key is free, a retry runs.
    NotStarted,
    /// Not known, yet. It is asked again.
    CannotTell,
}

type Finding = Pin<Box<dyn Future<Output = Found> + Send>>;
pub(super) type Oracle = Arc<dyn Fn(Inquiry) -> Finding + Send + Sync>;
type Judge = Arc<dyn Fn(&Answer) -> Disposition + Send + Sync>;

/// Whether a route's requests have keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyUse {
    Required,
    Optional,
    Unkeyed,
}

/// What is done about a record in doubt.
#[derive(Clone)]
enum Recovery {
    Ambiguous,
    Rerun,
    Ask(Oracle),
}

/// One route's settings. Those that are not set are the defaults, each named at its method.
#[derive(Clone)]
pub struct Route {
    pub(super) keys: KeyUse,
    pub(super) syntax: KeySyntax,
    pub(super) on_running: OnRunning,
    pub(super) on_panic: OnPanic,
    pub(super) reading: Reading,
    pub(super) headers: Vec<Box<str>>,
    ttl: Duration,
    grace: Duration,
    on_expired: AfterExpiry,
    keep_5xx: bool,
    judge: Option<Judge>,
    recovery: Recovery,
    on_store_failure: OnStoreFailure,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            keys: KeyUse::Required,
            syntax: KeySyntax::Any,
            on_running: OnRunning::Refuse,
            on_panic: OnPanic::Answer500,
            reading: Reading::default(),
            headers: Vec::new(),
            ttl: Duration::from_secs(24 * 3600),
            grace: Duration::from_secs(120),
            on_expired: AfterExpiry::Rerun,
            keep_5xx: true,
            judge: None,
            recovery: Recovery::Ambiguous,
            on_store_failure: OnStoreFailure::Reply,
        }
    }
}

impl Route {
    /// Every default.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A request without a key is refused with 400. The default.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.keys = KeyUse::Required;
        self
    }

    /// A request without a key passes, and nothing is kept of it.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.keys = KeyUse::Optional;
        self
    }

    /// Requests pass, with or without a key, and nothing is kept of them.
    #[must_use]
    pub fn unkeyed(mut self) -> Self {
        self.keys = KeyUse::Unkeyed;
        self
    }

    /// Which keys it takes. Default: [`KeySyntax::Any`].
    #[must_use]
    pub fn key_syntax(mut self, syntax: KeySyntax) -> Self {
        self.syntax = syntax;
        self
    }

    /// How long an answer is kept, counted from the end of the run: 5 minutes to 72 hours. Default 24 hours.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long an expired record lingers to answer by [`on_expired`](Self::on_expired). Default 2 minutes.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// What a request gets between expiry and the end of the [grace](Self::grace). Default: it runs. After the grace it runs,
    /// whatever is chosen here: to refuse late retries, make the grace as long as a client may go on retrying.
    #[must_use]
    pub fn on_expired(mut self, choice: AfterExpiry) -> Self {
        self.on_expired = choice;
        self
    }

    /// What the same request gets while the first one runs. Default: [`OnRunning::Refuse`].
    #[must_use]
    pub fn on_running(mut self, choice: OnRunning) -> Self {
        self.on_running = choice;
        self
    }

    /// Whether answers of 500 to 599 are kept like others (the default), or forgotten, so that a retry runs.
    ///
    /// Forget them only where a 5xx proves that nothing happened. A handler can say so of one answer: [`Disposition::Forget`].
    #[must_use]
    pub fn keep_5xx(mut self, keep: bool) -> Self {
        self.keep_5xx = keep;
        self
    }

    /// Says what becomes of an answer, from its status and header fields; it is not shown the body. It stands above
    /// [`keep_5xx`](Self::keep_5xx) and below the handler's own [`Disposition`].
    #[must_use]
    pub fn judge(mut self, judge: impl Fn(&Answer) -> Disposition + Send + Sync + 'static) -> Self {
        self.judge = Some(Arc::new(judge));
        self
    }

    /// What a panic of the handler comes to. Default: [`OnPanic::Answer500`].
    #[must_use]
    pub fn on_panic(mut self, choice: OnPanic) -> Self {
        self.on_panic = choice;
        self
    }

    /// A request in doubt is run again by its retry, one at a time: for handlers that may run twice, or that pass
    /// [`Attempt::token`](crate::Attempt::token) on to somebody who sees to it. The default is to run nothing: 503.
    #[must_use]
    pub fn rerun(mut self) -> Self {
        self.recovery = Recovery::Rerun;
        self
    }

    /// Somebody is asked about a request in doubt, by its [token](Inquiry::token): at the start of the engine, and on until
    /// they know. Until then a retry gets 503. See [`Builder::oracle`](crate::Builder::oracle) for when it is asked.
    ///
    /// Only for a route with a name ([`Setup::route`](super::Setup::route)), since it is asked before any request comes in.
    #[must_use]
    pub fn ask<F, Fut>(mut self, oracle: F) -> Self
    where
        F: Fn(Inquiry) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Found> + Send + 'static,
    {
        self.recovery = Recovery::Ask(Arc::new(move |inquiry| Box::pin(oracle(inquiry))));
        self
    }

    /// What the first client gets when its answer cannot be saved. Default: [`OnStoreFailure::Reply`], the answer.
    #[must_use]
    pub fn on_store_failure(mut self, choice: OnStoreFailure) -> Self {
        self.on_store_failure = choice;
        self
    }

    /// Two bodies that say the same as JSON are the same request (RFC 8785). A body that is not I-JSON (RFC 7493) counts byte
    /// by byte, as all do by default.
    ///
    /// Changed while records live, it makes another request of an honest retry, which is then refused: change it one `ttl` after the
    /// last use of the old setting.
    #[must_use]
    pub fn canonical_json(mut self) -> Self {
        self.reading.canonical_json = true;
        self
    }

    /// Canonical JSON in which these members of the outermost object do not count, such as a timestamp of the client's. To be
    /// changed as [`canonical_json`](Self::canonical_json) is.
    #[must_use]
    pub fn without_fields(mut self, names: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        self.reading.without.extend(names.into_iter().map(Into::into));
        self.canonical_json()
    }

    /// Header fields whose values make another request. `content-type` always does, and nothing else by default. (A client that draws a
    /// new multipart boundary for each try sends another request each time.) To be changed as
    /// [`canonical_json`](Self::canonical_json) is.
    ///
    /// The host name is no part of a request: a service with several puts it into the [`Principal`](super::Principal).
    #[must_use]
    pub fn with_headers(mut self, names: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.headers.extend(names.into_iter().map(|name| name.as_ref().to_ascii_lowercase().into()));
        self.headers.sort_unstable();
        self.headers.dedup();
        self
    }

    /// What is wrong with the settings by themselves.
    pub(super) fn check(&self) -> Result<(), InvalidSetup> {
        if !TTL.contains(&self.ttl) {
            return Err(InvalidSetup::Ttl(self.ttl));
        }
        match self.headers.iter().find(|name| !is_field_name(name)) {
            Some(name) => Err(InvalidSetup::HeaderName(name.to_string())),
            None => Ok(()),
        }
    }

    pub(super) fn oracle(&self) -> Option<&Oracle> {
        match &self.recovery {
            Recovery::Ask(oracle) => Some(oracle),
            Recovery::Ambiguous | Recovery::Rerun => None,
        }
    }

    pub(super) fn policy(&self) -> Policy {
        Policy::replay(self.ttl)
            .retention(Retention::Fixed(self.ttl))
            .grace(self.grace)
            .after_expiry(self.on_expired)
            .on_failure(OnFailure::Forget)
            .after_checkpoint(AfterCheckpoint::Doubt)
            .on_store_failure(self.on_store_failure)
            .while_running(match self.on_running {
                OnRunning::Refuse => WhileRunning::Refuse,
                OnRunning::Join { .. } => WhileRunning::Join,
            })
            .in_doubt(match self.recovery {
                Recovery::Ambiguous => InDoubt::Ambiguous,
                Recovery::Rerun => InDoubt::Rerun,
                Recovery::Ask(_) => InDoubt::Ask,
            })
    }

    /// What becomes of an answer of this head.
    pub(super) fn disposition(&self, handlers: Option<Disposition>, head: &Answer) -> Disposition {
        let is_5xx = (500..600).contains(&head.status());
        match (handlers, &self.judge) {
            (Some(own), _) => own,
            (None, Some(judge)) => judge(head),
            (None, None) if is_5xx && !self.keep_5xx => Disposition::Forget,
            (None, None) => Disposition::Keep,
        }
    }
}

impl Found {
    /// In the engine's words, for the attempt of this number.
    pub(super) fn told(self, attempt: u32) -> crate::Found {
        match self {
            Self::Done(answer) => crate::Found::Done(Ended::Completed(Kept::whole(answer, attempt).to_bytes().into())),
            Self::NotStarted => crate::Found::NotStarted,
            Self::CannotTell => crate::Found::CannotTell,
        }
    }
}

/// A token. (RFC 9110, section 5.6.2)
fn is_field_name(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("keys", &self.keys)
            .field("ttl", &self.ttl)
            .field("on_running", &self.on_running)
            .field("on_panic", &self.on_panic)
            .field("policy", &self.policy())
            .finish_non_exhaustive()
    }
}
