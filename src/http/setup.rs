//! How the layer is put together: settings, an engine that fits them, and the two bound.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::Idempotency;
use super::problem;
use super::route::{KeyUse, Route};
use crate::{Builder, Engine, Error, Flow};

/// What a kept answer holds beside its body, at most: header fields that do not fit are a reason not to keep it.
const HEAD_BYTES: usize = 16 * 1024;
/// Bytes of a flow's name, at most.
const FLOW_BYTES: usize = 255;

/// What a host does about an engine that does not fit.
const PREPARE: &str = "open it with a builder that Config::prepare has returned";

/// Which status says that a key belongs to another request, or has expired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Profile {
    /// 409.
    #[default]
    Classic,
    /// 422. (draft-ietf-httpapi-idempotency-key-header-07, section 2.7)
    Ietf,
}

/// Settings that do not fit together.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum InvalidSetup {
    /// An answer is kept for 5 minutes to 72 hours, not this long.
    Ttl(Duration),
    /// No method has keys.
    NoMethods,
    /// This is no method.
    Method(String),
    /// A template begins with a slash; this one does not.
    Template(String),
    /// The same method and template twice.
    RouteTwice(String),
    /// A route of a method that has no keys.
    RouteOfOtherMethod(String),
    /// This is no name of a header field.
    HeaderName(String),
    /// An oracle is for a route with a name.
    OracleForEveryRoute,
    /// A limit of no bytes, or of more than the engine can hold.
    Bytes(usize),
    /// The base of problem types holds what no header field and no URI can.
    ProblemBase(String),
    /// The engine keeps answers of so many bytes, and these settings need more: open it with [`Config::prepare`].
    EngineAnswerBytes {
        /// What the engine keeps.
        limit: usize,
        /// What it has to.
        needed: usize,
    },
    /// The engine has no oracle for this route, which asks one: open it with [`Config::prepare`].
    EngineOracle(String),
    /// The engine failed while the layer was bound to it.
    Engine(Error),
}

/// The settings of a layer. [`build`](Self::build) checks them, [`Config::prepare`] makes an engine fit,
/// [`Config::bind`] gives the layer.
#[derive(Clone, Debug)]
pub struct Setup {
    profile: Profile,
    strict: bool,
    methods: Vec<Box<str>>,
    base: Box<str>,
    request_bytes: usize,
    answer_bytes: usize,
    answer_wait: Duration,
    every: Route,
    named: Vec<(Box<str>, Box<str>, Route)>,
}

/// Settings that fit together.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) mismatch_status: u16,
    pub(super) strict: bool,
    pub(super) methods: Vec<Box<str>>,
    pub(super) base: Box<str>,
    pub(super) request_bytes: usize,
    pub(super) answer_bytes: usize,
    pub(super) answer_wait: Duration,
    pub(super) every: Route,
    pub(super) named: HashMap<String, Arc<Guarded>>,
}

/// A route with its flow.
#[derive(Debug)]
pub(super) struct Guarded {
    pub(super) flow: Flow,
    pub(super) route: Route,
}

/// Settings that are checked, before there is an engine.
#[derive(Clone)]
pub struct Config(Arc<Settings>);

impl Default for Setup {
    fn default() -> Self {
        Self {
            profile: Profile::default(),
            strict: false,
            methods: ["POST", "PATCH"].map(Into::into).into(),
            base: problem::BASE.into(),
            request_bytes: 64 * 1024,
            answer_bytes: 64 * 1024,
            answer_wait: Duration::from_secs(10),
            every: Route::default(),
            named: Vec::new(),
        }
    }
}

impl Setup {
    /// Every default.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Default: [`Profile::Classic`].
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// Takes the header's quoted form alone. By default bare keys are taken, too. Turn it on one `ttl` after the last use of a bare key:
    /// what it refuses with *Definitive* may have run before.
    #[must_use]
    pub fn strict_header(mut self) -> Self {
        self.strict = true;
        self
    }

    /// The methods whose requests have keys, in place of the default: POST and PATCH. They are case-sensitive (RFC 9110): `post` is
    /// another method than `POST`.
    #[must_use]
    pub fn methods(mut self, methods: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        self.methods = methods.into_iter().map(Into::into).collect();
        self
    }

    /// What a problem's `type` begins with; its code follows. Default: these docs.
    #[must_use]
    pub fn problem_base(mut self, base: impl Into<Box<str>>) -> Self {
        self.base = base.into();
        self
    }

    /// Bytes of a request's body. Default 64 KiB. Beyond it: 413, nothing runs. Lower it only one `ttl` after the last body that
    /// was longer, as with [`strict_header`](Self::strict_header).
    #[must_use]
    pub fn request_bytes(mut self, limit: usize) -> Self {
        self.request_bytes = limit;
        self
    }

    /// Bytes of an answer's body. Default 64 KiB. A longer one goes to the first client and is not kept.
    #[must_use]
    pub fn answer_bytes(mut self, limit: usize) -> Self {
        self.answer_bytes = limit;
        self
    }

    /// How long an answer may take from its head to its end to be kept. Default 10 s.
    #[must_use]
    pub fn answer_wait(mut self, wait: Duration) -> Self {
        self.answer_wait = wait;
        self
    }

    /// The settings of routes that have none of their own. Default: [`Route::new`], so **every POST and PATCH that passes through the
    /// layer needs a key**. With `Route::new().optional()` here, or `unkeyed()`, only routes that are [named](Self::route) need one.
    /// What no template matches goes by these settings, too, but never needs a key: most of it is mistakes.
    #[must_use]
    pub fn every_route(mut self, route: Route) -> Self {
        self.every = route;
        self
    }

    /// The settings of one route, by method and template: the whole one, with the prefixes of nested routers, as the framework
    /// spells it (`/orders/{id}/pay`). Both are part of every key: with another prefix, or another name for a parameter, a retry finds
    /// nothing and runs. What `route` does not set is the default, whatever [`every_route`](Self::every_route) says.
    #[must_use]
    pub fn route(mut self, method: impl Into<Box<str>>, template: impl Into<Box<str>>, route: Route) -> Self {
        self.named.push((method.into(), template.into(), route));
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`InvalidSetup`], the first thing that does not fit.
    pub fn build(self) -> Result<Config, InvalidSetup> {
        if self.methods.is_empty() {
            return Err(InvalidSetup::NoMethods);
        }
        if let Some(method) = self.methods.iter().find(|method| !is_method(method)) {
            return Err(InvalidSetup::Method(method.to_string()));
        }
        if !self.base.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"\\^`{|}".contains(&byte)) {
            return Err(InvalidSetup::ProblemBase(self.base.into()));
        }
        let most = crate::PAYLOAD_BYTES_CEILING - HEAD_BYTES;
        if let Some(bytes) =
            [self.request_bytes, self.answer_bytes].into_iter().find(|bytes| !(1..=most).contains(bytes))
        {
            return Err(InvalidSetup::Bytes(bytes));
        }
        self.every.check()?;
        if self.every.oracle().is_some() {
            return Err(InvalidSetup::OracleForEveryRoute);
        }
        let mut named = HashMap::new();
        for (method, template, route) in self.named {
            let name = format!("{method} {template}");
            if !template.starts_with('/') {
                return Err(InvalidSetup::Template(template.into()));
            }
            if !self.methods.contains(&method) && route.keys != KeyUse::Unkeyed {
                return Err(InvalidSetup::RouteOfOtherMethod(name));
            }
            route.check()?;
            if named.insert(name.clone(), Arc::new(Guarded::new(&name, route)?)).is_some() {
                return Err(InvalidSetup::RouteTwice(name));
            }
        }
        Ok(Config(Arc::new(Settings {
            mismatch_status: match self.profile {
                Profile::Classic => 409,
                Profile::Ietf => 422,
            },
            strict: self.strict,
            methods: self.methods,
            base: self.base,
            request_bytes: self.request_bytes,
            answer_bytes: self.answer_bytes,
            answer_wait: self.answer_wait,
            every: self.every,
            named,
        })))
    }
}

impl Config {
    /// The same builder with what this layer needs: room for its answers, and the oracles of its routes. What the engine counts by
    /// itself (runs, records in doubt) is for an observer: `ibid::metrics::Recorder`.
    #[must_use]
    pub fn prepare(&self, builder: Builder) -> Builder {
        let builder = builder.at_least_answer_bytes(self.needed_bytes());
        let asked = self.0.named.values().filter_map(|guarded| Some((guarded, guarded.route.oracle()?)));
        asked.fold(builder, |builder, (guarded, oracle)| {
            let oracle = Arc::clone(oracle);
            builder.oracle(&guarded.flow, move |inquiry| {
                let (attempt, found) = (inquiry.attempt(), oracle(inquiry));
                async move { found.await.told(attempt) }
            })
        })
    }

    /// The layer, over an engine that [`prepare`](Self::prepare) has made fit. Every router of a service takes a clone of the same.
    ///
    /// It must be called on a tokio runtime with timers (`enable_time`), and the runtime on which the engine runs operations needs
    /// timers, too. On the runtime of this call the counts of the last second are written, for as long as the engine and a clone
    /// of the layer live.
    ///
    /// # Errors
    /// [`InvalidSetup::EngineAnswerBytes`], [`InvalidSetup::EngineOracle`], [`InvalidSetup::Engine`].
    pub async fn bind(&self, engine: &Engine) -> Result<Idempotency, InvalidSetup> {
        let (limit, needed) = (engine.limits().answer_bytes, self.needed_bytes());
        if limit < needed {
            return Err(InvalidSetup::EngineAnswerBytes { limit, needed });
        }
        let mut asking = self.0.named.values().filter(|guarded| guarded.route.oracle().is_some());
        if let Some(guarded) = asking.find(|guarded| !engine.has_oracle(&guarded.flow)) {
            return Err(InvalidSetup::EngineOracle(guarded.flow.name().to_owned()));
        }
        Idempotency::new(Arc::clone(&self.0), engine).await.map_err(InvalidSetup::Engine)
    }

    fn needed_bytes(&self) -> usize {
        self.0.answer_bytes + HEAD_BYTES
    }
}

impl Guarded {
    /// Under this name, `METHOD template`.
    pub(super) fn new(name: &str, route: Route) -> Result<Self, InvalidSetup> {
        let flow =
            Flow::new(flow_name(name), route.policy()).map_err(|invalid| InvalidSetup::Engine(invalid.into()))?;
        Ok(Self { flow, route })
    }
}

/// A name that is too long for a flow ends in its digest.
fn flow_name(name: &str) -> String {
    if name.len() <= FLOW_BYTES {
        return name.to_owned();
    }
    let digest: String = Sha256::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let end = (0..=FLOW_BYTES - digest.len() - 1).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    format!("{}#{digest}", name.get(..end).unwrap_or_default())
}

/// A token. (RFC 9110, section 9.1)
fn is_method(method: &str) -> bool {
    !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

impl fmt::Display for InvalidSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ttl(ttl) => write!(f, "an answer is kept for 300 to 259200 seconds, not {}", ttl.as_secs_f64()),
            Self::NoMethods => f.write_str("no method has keys"),
            Self::Method(method) => write!(f, "{method:?} is no method"),
            Self::Template(template) => write!(f, "the template {template:?} does not begin with a slash"),
            Self::RouteTwice(name) => write!(f, "{name} is set twice"),
            Self::RouteOfOtherMethod(name) => write!(f, "{name} is of a method that has no keys"),
            Self::HeaderName(name) => write!(f, "{name:?} is no name of a header field"),
            Self::OracleForEveryRoute => f.write_str("an oracle is for a route with a name"),
            Self::Bytes(bytes) => {
                write!(f, "a body of at most {bytes} bytes is none, or more than the engine can hold")
            }
            Self::ProblemBase(base) => write!(f, "{base:?} can begin no problem type"),
            Self::EngineAnswerBytes { limit, needed } => {
                write!(f, "the engine keeps answers of {limit} bytes, the layer needs {needed}: {PREPARE}")
            }
            Self::EngineOracle(route) => write!(f, "the engine has no oracle for {route}: {PREPARE}"),
            Self::Engine(_) => f.write_str("the engine failed"),
        }
    }
}

impl std::error::Error for InvalidSetup {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Engine(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut routes: Vec<_> = self.0.named.keys().collect();
        routes.sort_unstable();
        f.debug_struct("Config").field("methods", &self.0.methods).field("routes", &routes).finish_non_exhaustive()
    }
}
