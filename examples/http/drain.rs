//! The end: what runs gets its time, and not more.

use std::future::Future;
use std::time::Duration;

use ibid::Engine;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};

/// For requests on their way and runs that nobody waits for, together.
const DRAIN: Duration = Duration::from_secs(10);
/// What the engine may still take after that.
pub(crate) const ENGINE_DRAIN: Duration = Duration::from_millis(100);
/// How often it is looked whether something still runs.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Somebody asks for the end: SIGTERM, or Ctrl-C.
pub(crate) struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl End {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// `stop` takes no new connections, and `served` is when those that there are have ended. What runs without a client ends
/// before `served` is looked at: a server that ends may take it along.
pub(crate) async fn drain(engine: &Engine, stop: impl Future, served: impl Future) {
    let drained = async {
        stop.await;
        while engine.stats().await.is_ok_and(|stats| stats.running > 0) {
            sleep(LOOK_EVERY).await;
        }
        served.await;
    };
    if timeout(DRAIN, drained).await.is_err() {
        tracing::warn!("what still runs is cut off");
    }
}
