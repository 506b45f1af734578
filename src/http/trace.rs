//! What is noted of each request on a keyed route, once: a log event, counts.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::counts::{Counts, Ended};
use crate::{Attempt, Clock, SystemClock};

/// One request, from its arrival to its end. Dropped before that, its client has gone.
pub(super) struct Trace {
    counts: Arc<Counts>,
    route: Arc<str>,
    key_hash: Option<String>,
    began: Duration,
    own_run: OwnRun,
    /// How it ends if its client hangs up before it has started anything.
    unheard: Ended,
    is_over: bool,
}

/// The attempt that this request has started, if it has started one.
#[derive(Clone, Default)]
pub(super) struct OwnRun(Arc<OnceLock<Attempt>>);

impl OwnRun {
    /// One request starts one attempt at most.
    pub(super) fn begin(&self, attempt: &Attempt) {
        self.0.get_or_init(|| attempt.clone());
    }

    pub(super) fn attempt(&self) -> Option<&Attempt> {
        self.0.get()
    }

    pub(super) fn number(&self) -> Option<u32> {
        self.attempt().map(Attempt::number)
    }
}

impl Trace {
    pub(super) fn begin(counts: &Arc<Counts>, route: &Arc<str>) -> Self {
        let (counts, route) = (Arc::clone(counts), Arc::clone(route));
        let began = SystemClock.monotonic();
        let (own_run, unheard) = (OwnRun::default(), Ended::Definitive);
        Self { counts, route, key_hash: None, began, own_run, unheard, is_over: false }
    }

    pub(super) fn keyed(&mut self, key_hash: String) {
        self.key_hash = Some(key_hash);
    }

    /// Whoever hangs up from here on leaves it like this.
    pub(super) fn unheard(&mut self, ended: Ended) {
        self.unheard = ended;
    }

    #[cfg(feature = "metrics")]
    pub(super) fn route(&self) -> &str {
        &self.route
    }

    pub(super) fn own_run(&self) -> &OwnRun {
        &self.own_run
    }

    /// It ended like this, with this status, by the attempt of this number.
    pub(super) fn end(mut self, ended: Ended, status: u16, attempt: Option<u32>) {
        self.note(ended, Some(status), attempt);
    }

    /// It had no key, and its handler answered with this status.
    pub(super) fn passed(self, status: u16) {
        self.end(Ended::Passed, status, None);
    }

    fn note(&mut self, ended: Ended, status: Option<u16>, attempt: Option<u32>) {
        self.is_over = true;
        self.counts.add(&self.route, ended);
        let duration_ms =
            u64::try_from(SystemClock.monotonic().saturating_sub(self.began).as_millis()).unwrap_or(u64::MAX);
        let (key_hash, route, outcome) = (self.key_hash.as_deref(), &*self.route, ended.name());
        if ended == Ended::Conflict {
            tracing::warn!(key_hash, route, status, duration_ms, attempt, outcome, "idempotency");
        } else {
            tracing::info!(key_hash, route, status, duration_ms, attempt, outcome, "idempotency");
        }
    }
}

impl Drop for Trace {
    /// The client hung up. If its request runs, it goes on; nobody was told a status.
    fn drop(&mut self) {
        if !self.is_over {
            let attempt = self.own_run.number();
            let ended = if attempt.is_some() { Ended::Executed } else { self.unheard };
            self.note(ended, None, attempt);
        }
    }
}
