//! The actors of an engine, and its operations, on one thread whose time moves by itself: for simulations.

use std::future::Future;
use std::io;

use actix::System;

/// Runs it on this thread, under an actix system and a paused clock: time moves on, to the next timer, when nobody has
/// anything left to do. Everything in it happens in the same order each time.
pub(crate) fn on_one_thread<T>(run: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    Ok(System::with_tokio_rt(|| runtime).block_on(run))
}
