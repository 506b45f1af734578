//! System 5, the HTTP header `Idempotency-Key`: a retried request gets the answer that its first try got, byte for byte.
//!
//! ```text
//! 1 method                   has no keys: passes
//! 2 Idempotency-Key          malformed: 400; missing: 400, or passes where it is optional
//! 3 principal                nobody is authenticated: 403
//! 4 size of the body         413
//! 5 the record, if there is  another request: 409 or 422; finished: its answer; running: 409; in doubt: 503
//! 6 bounds                   429, 503
//! 7 registered, durable
//! 8 the handler              runs to its end, whoever hangs up
//! 9 its answer, durable
//! 10 reply
//! ```
//!
//! (draft-ietf-httpapi-idempotency-key-header-07 names the header and the statuses; who a key belongs to, what is kept and what
//! happens to what a crash leaves in doubt are ours.)
//!
//! [`Setup`] holds the settings, [`Config::prepare`] makes an engine fit them, [`Config::bind`] gives the layer:
//! [`Idempotency`], which is a tower `Layer` with the feature `axum` and an actix-web middleware with the feature `actix-web`.
//! Put it inside of what authenticates, limits or compresses, and outside of the handlers. By default every POST and PATCH that
//! comes through it **needs** a key, also on routes that [`Setup`] does not name: see [`Setup::every_route`].
//!
//! A key belongs to a method, a route's whole template, and a [`Principal`], which the layer that authenticates puts into the
//! request's extensions. The handler finds an [`Attempt`](crate::Attempt) there, with a token to pass downstream, and may say
//! by a [`Disposition`] in the response's extensions what becomes of its answer.
//!
//! Under one key the *same request* has the same target (path and query, as they were received), the same `content-type`, the same
//! body byte for byte, and the same values of the header fields that the route [names](Route::with_headers); all else may differ from
//! try to try. [`Route::canonical_json`] and [`Route::without_fields`] compare bodies in another way.
//!
//! Answers are kept whole: status, header fields, body, but no trailers and nothing that belongs to one connection or one moment
//! (`set-cookie`, `date`, `server`). A repeated one says `Idempotency-Replayed: true`; name that in
//! `Access-Control-Expose-Headers` where browsers ask. Requests are not kept: only a digest tells one from another.
#![cfg_attr(not(any(feature = "axum", feature = "actix-web")), allow(dead_code, reason = "an edge calls it"))]

#[cfg(feature = "actix-web")]
pub mod actix_web;

mod answer;
#[cfg(feature = "axum")]
pub mod axum;
mod canonical;
mod counts;
mod header;
mod idempotency;
mod keyed;
#[cfg(feature = "metrics")]
mod meters;
mod principal;
mod problem;
mod route;
mod setup;
mod trace;
#[cfg(any(feature = "actix-web", feature = "axum"))]
mod unwinding;

/// What others do, and what ibid does.
///
#[doc = include_str!("comparison.md")]
pub mod comparison {}

/// What each problem means, and what its client does next.
///
#[doc = include_str!("problems.md")]
pub mod problems {}

pub use answer::Answer;
pub use counts::{Count, RequestEnd};
pub use header::KeySyntax;
pub use idempotency::Idempotency;
pub use principal::Principal;
pub use route::{Disposition, Found, OnPanic, OnRunning, Route, TTL};
pub use setup::{Config, InvalidSetup, Profile, Setup};
