//! The layer: what it is bound to, and the first half of its decision, before a body is read.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use sha2::{Digest, Sha256};

use super::answer::{Answer, Kept};
use super::counts::{Count, Counts, RequestEnd};
use super::header;
use super::keyed::Keyed;
use super::principal::Principal;
use super::problem::Problem;
use super::route::KeyUse;
use super::setup::{Guarded, Settings};
use super::trace::Trace;
use crate::{AttemptId, Ended, Engine, Error, ErrorKind, Flow, Forgotten, Guard, Key, Resolved, Row, Status};

/// The table of the layer's own rows, and the key of the secret that logs are keyed with.
const TABLE: &str = "ibid.http";
const LOG_SECRET: &[u8] = b"log_secret";

/// The layer, bound to its engine: a tower `Layer` (feature `axum`) and an actix-web middleware (feature `actix-web`). Cheap to
/// clone, and every clone is the same one.
#[derive(Clone)]
pub struct Idempotency(Arc<Layer>);

struct Layer {
    settings: Arc<Settings>,
    engine: Engine,
    counts: Arc<Counts>,
    log_secret: [u8; 32],
    /// Routes that have no settings of their own, as they come along: as many as the router has templates.
    others: RwLock<HashMap<String, Arc<Routed>>>,
    named: HashMap<String, Arc<Routed>>,
}

/// A route and what it is called in logs and metrics.
pub(super) struct Routed {
    pub(super) guarded: Arc<Guarded>,
    pub(super) label: Arc<str>,
}

/// A request as an edge shows it, its body apart.
pub(super) struct Incoming<'a> {
    pub(super) method: &'a str,
    /// The template that it was routed by. `None`: by none.
    pub(super) template: Option<&'a str>,
    /// Path and query as they were received.
    pub(super) target: &'a [u8],
    pub(super) principal: Option<Principal>,
    /// The layer that it has come through with its key.
    pub(super) inside: Option<Inside>,
    /// All values of a header field, in their order.
    pub(super) values: &'a dyn Fn(&str) -> Vec<&'a [u8]>,
}

/// In the extensions of a request that has come through with a key: which layer that was. A layer on a router and the same one on
/// a router inside of it are one; another one has its own say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Inside(usize);

/// What becomes of a request before its body is read.
pub(super) enum Admitted {
    /// It is none of ours.
    Unkeyed,
    /// It has no key and needs none. The trace ends with its status.
    Passed(Trace),
    Refused(Answer),
    Keyed(Box<Keyed>),
}

impl Idempotency {
    pub(super) async fn new(settings: Arc<Settings>, engine: &Engine) -> Result<Self, Error> {
        let log_secret = log_secret(engine).await?;
        let routed = |(name, guarded): (&String, &Arc<Guarded>)| {
            let label = guarded.flow.name().into();
            (name.clone(), Arc::new(Routed { guarded: Arc::clone(guarded), label }))
        };
        let named: HashMap<_, _> = settings.named.iter().map(routed).collect();
        #[cfg(feature = "metrics")]
        for routed in named.values().filter(|routed| routed.guarded.route.keys != KeyUse::Unkeyed) {
            crate::metrics::Recorder::register(&routed.label);
        }
        let counts = Counts::start(engine);
        let others = RwLock::default();
        Ok(Self(Arc::new(Layer { settings, engine: engine.clone(), counts, log_secret, others, named })))
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// What the log shows for a key: 16 hex digits of a hash that is keyed with a secret of the store, so that the lines about one
    /// key are found over restarts, and a key can't be found out by guessing.
    #[must_use]
    pub fn key_hash(&self, key: &Key) -> String {
        let digest = Sha256::new().chain_update(self.0.log_secret).chain_update(key.as_bytes()).finalize();
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The key of a request: of this method, this whole template, this principal and this `Idempotency-Key` after decoding.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`].
    pub fn key(&self, method: &str, template: &str, principal: &Principal, id: &str) -> Result<Key, Error> {
        let routed = self.routed(method, Some(template)).map_err(|_| Error::from(ErrorKind::Internal))?;
        Ok(routed.guarded.flow.key(principal, id)?)
    }

    /// Says how a request ended that is in doubt: this is its answer from now on. For an operator who has found out; an
    /// [oracle](super::Route::ask) does it by itself.
    ///
    /// # Errors
    /// [`ErrorKind::Duplicate`]: it runs, and will say so itself. [`ErrorKind::NotFound`]. On any other error it is not known whether
    /// the answer was recorded: say it again.
    pub async fn resolve(&self, key: &Key, answer: Answer) -> Result<Resolved, Error> {
        let attempt = self.left(key)?;
        let kept = Kept::whole(answer, attempt.number).to_bytes();
        self.0.engine.resolve(&self.flow(key)?, key, Some(attempt), Ended::Completed(kept.into())).await
    }

    /// Says that a request in doubt surely had no effect and never will: its key is free, and a retry runs. If that is wrong, it
    /// runs twice. `false`: it has an answer, or the route's [oracle](super::Route::ask) cannot rule out that it is under way; a
    /// retry of the latter hears 503.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve): on any other error it is not known whether the key is free.
    pub async fn release(&self, key: &Key) -> Result<bool, Error> {
        let (flow, attempt) = (self.flow(key)?, self.left(key)?);
        let failed = Ended::Failed(b"released".as_slice().into());
        let resolved = self.0.engine.resolve(&flow, key, Some(attempt), failed).await?;
        if !matches!(resolved, Resolved::Recorded | Resolved::Already) {
            return Ok(false);
        }
        let forgotten = self.0.engine.forget(&flow, std::slice::from_ref(key)).await?;
        Ok(forgotten.iter().all(|(_, forgotten)| *forgotten == Forgotten::Forgotten))
    }

    /// The attempt that a record has, unless it runs.
    fn left(&self, key: &Key) -> Result<AttemptId, Error> {
        match self.0.engine.lookup(key)? {
            None => Err(ErrorKind::NotFound.into()),
            Some(record) => match record.state.status() {
                running @ (Status::Registered | Status::Dispatched) => Err(ErrorKind::Duplicate(running).into()),
                _ => Ok(record.attempt),
            },
        }
    }

    /// How the requests of today and of the six days before ended, by route and outcome; nothing for what did not occur. Days are
    /// UTC, by the engine's clock. These counts outlive restarts and the records.
    ///
    /// # Errors
    /// [`Store`](ErrorKind::Store), [`Closed`](ErrorKind::Closed).
    pub fn counts(&self) -> Result<Vec<Count>, Error> {
        self.0.counts.sums()
    }

    /// Writes the counts of the last second now: before the engine's shutdown, say.
    ///
    /// # Errors
    /// [`Store`](ErrorKind::Store), [`Closed`](ErrorKind::Closed): they are kept, and written as soon as that works.
    pub async fn flush(&self) -> Result<(), Error> {
        self.0.counts.flush().await
    }

    /// What tells this layer and its clones from every other that lives.
    pub(super) fn inside(&self) -> Inside {
        Inside(Arc::as_ptr(&self.0).addr())
    }

    pub(super) fn settings(&self) -> &Arc<Settings> {
        &self.0.settings
    }

    /// Method, header, principal, in this order; nothing of the body.
    pub(super) fn admit(&self, incoming: &Incoming<'_>) -> Admitted {
        let settings = &self.0.settings;
        if incoming.inside == Some(self.inside()) || !settings.methods.iter().any(|method| **method == *incoming.method)
        {
            return Admitted::Unkeyed;
        }
        let Ok(routed) = self.routed(incoming.method, incoming.template) else {
            // Never without its key: it is not known what it needs.
            return Admitted::Refused(
                self.refuse(Trace::begin(&self.0.counts, &"unmatched".into()), Problem::StoreUnavailable),
            );
        };
        let route = &routed.guarded.route;
        if route.keys == KeyUse::Unkeyed {
            return Admitted::Unkeyed;
        }
        let mut trace = Trace::begin(&self.0.counts, &routed.label);
        let lines = (incoming.values)("idempotency-key");
        let id = match header::key(lines, settings.strict, route.syntax) {
            Ok(Some(id)) => id,
            Ok(None) if route.keys == KeyUse::Optional => {
                trace.unheard(RequestEnd::Passed);
                return Admitted::Passed(trace);
            }
            Ok(None) => return Admitted::Refused(self.refuse(trace, Problem::KeyMissing)),
            Err(invalid) => return Admitted::Refused(self.refuse(trace, Problem::KeyInvalid(invalid.0))),
        };
        let Some(principal) = &incoming.principal else {
            return Admitted::Refused(self.refuse(trace, Problem::NoPrincipal));
        };
        match routed.guarded.flow.key(principal, &id) {
            Ok(key) => {
                trace.keyed(self.key_hash(&key));
                Admitted::Keyed(Box::new(Keyed { idempotency: self.clone(), routed, key, trace }))
            }
            Err(_) => {
                Admitted::Refused(self.refuse(trace, Problem::KeyInvalid("the key has no bytes that can be kept")))
            }
        }
    }

    /// The answer to what is refused, noted.
    pub(super) fn refuse(&self, trace: Trace, problem: Problem) -> Answer {
        let settings = &self.0.settings;
        let answer = problem.answer(settings.mismatch_status, &settings.base);
        #[cfg(feature = "metrics")]
        super::meters::refused(trace.route(), problem);
        let attempt = trace.own_run().number();
        trace.end(RequestEnd::of(problem.class()), answer.status(), attempt);
        answer
    }

    /// The flow that the key was made by.
    fn flow(&self, key: &Key) -> Result<Flow, Error> {
        let others = self.0.others.read().unwrap_or_else(PoisonError::into_inner);
        let known = self.0.named.values().chain(others.values()).map(|routed| &routed.guarded.flow);
        match known.into_iter().find(|flow| flow.name() == key.flow()) {
            Some(flow) => Ok(flow.clone()),
            // Nobody has asked for it since the start.
            None => Ok(Flow::new(key.flow(), self.0.settings.every.policy())?),
        }
    }

    /// Requests that no template matches have keys where somebody sends one, and need none: most are mistakes.
    fn routed(&self, method: &str, template: Option<&str>) -> Result<Arc<Routed>, super::InvalidSetup> {
        let name = format!("{method} {}", template.unwrap_or("unmatched"));
        let lock = || self.0.others.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(routed) = self.0.named.get(&name).cloned().or_else(|| lock().get(&name).cloned()) {
            return Ok(routed);
        }
        let every = self.0.settings.every.clone();
        let is_mistake = template.is_none() && every.keys == KeyUse::Required;
        let guarded = Arc::new(Guarded::new(&name, if is_mistake { every.optional() } else { every })?);
        let label = template.map_or("unmatched", |_| guarded.flow.name()).into();
        let routed = Arc::new(Routed { guarded, label });
        let mut others = self.0.others.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(others.entry(name).or_insert(routed)))
    }
}

/// The store's own, made by the first to ask for it.
async fn log_secret(engine: &Engine) -> Result<[u8; 32], Error> {
    loop {
        if let Some(row) = engine.ledger_row(TABLE, LOG_SECRET)? {
            return row.value[..].try_into().map_err(|_| ErrorKind::Internal.into());
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|_| Error::from(ErrorKind::Internal))?;
        let row = Row::new(TABLE, LOG_SECRET, secret).map_err(|_| Error::from(ErrorKind::Internal))?;
        if engine.write_rows(vec![row.guard(Guard::Absent)]).await? {
            return Ok(secret);
        }
        // Somebody else was first.
    }
}

impl fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idempotency").field("engine", &self.0.engine).finish_non_exhaustive()
    }
}
