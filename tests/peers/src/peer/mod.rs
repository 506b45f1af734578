//! What is compared, each in the way that serves it best.

mod axum_idempotent;
mod ibid;
mod ibid_axum;
mod mutex;
mod postgres;
mod redis;
mod restate;
mod sqlite;

pub(crate) use axum_idempotent::AxumIdempotent;
pub(crate) use ibid::{IBID, Ibid};
pub(crate) use ibid_axum::IbidAxum;
pub(crate) use mutex::MutexCache;
pub(crate) use postgres::Postgres;
pub(crate) use redis::Redis;
pub(crate) use restate::Restate;
pub(crate) use sqlite::Sqlite;
