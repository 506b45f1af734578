//! Lines of output, whole and at once, from any thread.

use std::io::Write;

use ibid::store::Totals;
use ibid::{NodeId, Stats};
use serde_json::Value;

/// Sends a frame to a peer.
pub(crate) fn frame(to: NodeId, payload: &str) {
    line(format!(r#"{{"to":"{}","payload":{}}}"#, to.to_hex(), Value::from(payload)));
}

pub(crate) fn stats(minted: u64, stats: &Stats) {
    let Totals { registered, dispatched, completed, failed, in_doubt, tombstone } = stats.records;
    let records = format!(
        r#"{{"registered":{registered},"dispatched":{dispatched},"completed":{completed},"failed":{failed},"in_doubt":{in_doubt},"tombstone":{tombstone}}}"#
    );
    let live_actors = stats.live_actors;
    line(format!(r#"{{"control":"stats","minted":{minted},"live_actors":{live_actors},"records":{records}}}"#));
}

pub(crate) fn expiry_sweep(removed: u64) {
    line(format!(r#"{{"control":"expiry_sweep","removed":{removed}}}"#));
}

pub(crate) fn tick(ticks: u64) {
    line(format!(r#"{{"control":"tick","ticks":{ticks}}}"#));
}

pub(crate) fn shutdown() {
    line(r#"{"control":"shutdown"}"#.into());
}

pub(crate) fn error(what: &str) {
    line(format!(r#"{{"error":{}}}"#, Value::from(what)));
}

fn line(mut line: String) {
    line.push('\n');
    let mut stdout = std::io::stdout().lock();
    // Whoever read it may be gone, as a peer may be: no state depends on what is delivered.
    let _delivered = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush());
}
