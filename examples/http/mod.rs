//! What the two demo servers share, which is everything but the framework: see `http_server.rs`.

mod admin;
mod answer;
mod args;
mod clock;
mod counters;
mod demo;
mod doubts;
mod drain;
mod faults;
mod handler;
mod journal;
mod log;
mod metrics;
mod query;
mod records;
mod routes;
mod start;

pub(crate) use admin::{POSTED, RECORDS};
pub(crate) use answer::{Asked, Body, Endless, Given};
pub(crate) use args::Args;
pub(crate) use demo::Demo;
pub(crate) use drain::End;
pub(crate) use handler::Handler;
pub(crate) use routes::{GET_PAY, PATCH_PAY, PAY, REFUND, V1_PAY, V2_PAY};
pub(crate) use start::start;

/// The header that stands for an authentication: whoever it names is the principal.
pub(crate) const ACTOR: &str = "x-actor";

/// Compact, the members in the order of the struct.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("a struct of texts and numbers is JSON")
}
