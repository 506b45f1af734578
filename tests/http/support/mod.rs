//! What the scenarios share: a demo server as a child process, requests and answers, raw sockets, problem bodies.

pub(crate) mod ask;
pub(crate) mod metrics;
pub(crate) mod problem;
pub(crate) mod reply;
pub(crate) mod server;
pub(crate) mod wire;

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

pub(crate) use ask::{Ask, ask, keyless};
pub(crate) use reply::Reply;
pub(crate) use server::{Kind, Pending, Server};
pub(crate) use wire::Wire;

/// How long anything may take before a test calls it lost.
pub(crate) const GUARD: Duration = Duration::from_secs(40);
/// The time between two looks at what a test waits for.
const LOOK: Duration = Duration::from_millis(4);

/// Makes two tests of each scenario, `axum::name` and `actix::name`.
macro_rules! both {
    ($($scenario:ident),+ $(,)?) => {
        mod axum {
            $(#[test]
            fn $scenario() {
                super::$scenario($crate::support::Kind::Axum);
            })+
        }
        mod actix {
            $(#[test]
            fn $scenario() {
                super::$scenario($crate::support::Kind::Actix);
            })+
        }
    };
}
pub(crate) use both;

/// Looks until `found` finds something, and gives up after [`GUARD`].
pub(crate) fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let (stop, stopped) = mpsc::channel::<()>();
    let (ring, alarm) = mpsc::channel();
    let clock = thread::spawn(move || {
        if stopped.recv_timeout(GUARD) == Err(RecvTimeoutError::Timeout) {
            ring.send(()).expect("somebody waits");
        }
    });
    let found = loop {
        if let Some(found) = found() {
            break found;
        }
        // Between two looks the alarm may ring; nothing else is ever sent.
        assert_eq!(alarm.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout), "waited in vain for {what}");
    };
    drop(stop);
    clock.join().expect("stopped, or heard");
    found
}

/// Looks until `holds`.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}

/// SHA-256 of `bytes` in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
