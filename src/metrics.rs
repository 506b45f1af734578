//! What is observed, as counters and gauges of the `metrics` facade.
//!
//! ```text
//! idempotency.executed.count         route       operations started, re-runs included
//! idempotency.replay.count           route, how  answers that were replayed or joined
//! idempotency.conflict.count         route       another request's key, or an expired one
//! idempotency.duplicate.count        route       known, and refused
//! idempotency.ambiguous.count        route       in doubt, or the store failed
//! idempotency.inflight.gauge         route       operations that run now
//! idempotency.in_doubt.gauge         route       records in doubt now
//! idempotency.unsaved.gauge          route       ends that wait in memory to be saved now
//! idempotency.storage_failure.count  route       ends that could not be saved within the tries, each counted once
//! idempotency.quarantined.count                  records met that do not decode
//! idempotency.expiry_sweep.count                 records removed by the expiry sweep
//! ```
//! The label `route` is the name of the flow, or `unmatched` for a flow whose name ends with ` unmatched`: there are as many
//! values as there are flows. No label ever holds a key, a scope or a path as it was received.
//!
//! [`Recorder`] counts what the engine itself knows. What only a caller's answer tells (replays, conflicts, duplicates) is for
//! whoever gives that answer, such as the HTTP layer, to count with the functions here. Everything goes to the recorder that the
//! process has installed at that moment; what comes before there is one is lost, so install it first.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use ::metrics::{Counter, Gauge, Key, Label, Level, Metadata, with_recorder};

use crate::{Event, How, Observer};

/// Operations started, re-runs included. Label `route`.
pub const EXECUTED: &str = "idempotency.executed.count";
/// Answers that were replayed or joined. Labels `route` and `how`: `replayed` or `joined`.
pub const REPLAY: &str = "idempotency.replay.count";
/// Requests refused since their key belongs to another one, or has expired. Label `route`.
pub const CONFLICT: &str = "idempotency.conflict.count";
/// Requests refused since they are known: running, or finished without a kept answer. Label `route`.
pub const DUPLICATE: &str = "idempotency.duplicate.count";
/// Requests left without a certain answer: in doubt, or the store failed. Label `route`.
pub const AMBIGUOUS: &str = "idempotency.ambiguous.count";
/// Operations that run now. Label `route`.
pub const INFLIGHT: &str = "idempotency.inflight.gauge";
/// Records in doubt now. Label `route`.
pub const IN_DOUBT: &str = "idempotency.in_doubt.gauge";
/// Ends that wait in memory to be saved, now. Label `route`.
pub const UNSAVED: &str = "idempotency.unsaved.gauge";
/// Ends that could not be saved within the tries, each counted once. Label `route`.
pub const STORAGE_FAILURE: &str = "idempotency.storage_failure.count";
/// Records met that do not decode. No label.
pub const QUARANTINED: &str = "idempotency.quarantined.count";
/// Records removed by the expiry sweep. No label.
pub const EXPIRY_SWEEP: &str = "idempotency.expiry_sweep.count";

/// Every counter that has the label `route` alone.
const ROUTE_COUNTERS: [&str; 5] = [EXECUTED, CONFLICT, DUPLICATE, AMBIGUOUS, STORAGE_FAILURE];
const ROUTE_GAUGES: [&str; 3] = [INFLIGHT, IN_DOUBT, UNSAVED];
const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// An [`Observer`] that counts what the engine knows: give one to each engine.
///
/// When its engine closes, its gauges have gone back to where they were before.
#[derive(Default)]
pub struct Recorder {
    /// Records in doubt, by route: they stay so when the engine closes.
    in_doubt: Mutex<HashMap<String, u64>>,
}

impl Recorder {
    /// With nothing counted. The two series without labels are there from now on, with 0.
    #[must_use]
    pub fn new() -> Self {
        for name in [QUARANTINED, EXPIRY_SWEEP] {
            counter(name, Vec::new()).increment(0);
        }
        Self::default()
    }

    /// Makes every series of this route be there, with 0 where nothing has been counted, and the two without labels.
    /// `route`: the name of the flow.
    pub fn register(route: &str) {
        for name in ROUTE_COUNTERS {
            counter(name, of_route(route)).increment(0);
        }
        for how in [How::Replayed, How::Joined] {
            replays(route, how).into_iter().for_each(|replays| replays.increment(0));
        }
        for name in ROUTE_GAUGES {
            gauge(name, route).increment(0.0);
        }
        for name in [QUARANTINED, EXPIRY_SWEEP] {
            counter(name, Vec::new()).increment(0);
        }
    }

    fn note_in_doubt(&self, route: &str) {
        let mut in_doubt = self.in_doubt.lock().unwrap_or_else(PoisonError::into_inner);
        *in_doubt.entry(route.to_owned()).or_default() += 1;
        gauge(IN_DOUBT, route).increment(1.0);
    }

    fn note_out_of_doubt(&self, route: &str) {
        let mut in_doubt = self.in_doubt.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = in_doubt.get_mut(route).filter(|count| **count > 0) {
            *count -= 1;
            gauge(IN_DOUBT, route).decrement(1.0);
        }
    }

    /// What is in doubt is so in the store; the next engine says it again.
    fn close(&self) {
        let in_doubt = std::mem::take(&mut *self.in_doubt.lock().unwrap_or_else(PoisonError::into_inner));
        for (route, count) in in_doubt {
            gauge(IN_DOUBT, &route).decrement(count as f64);
        }
    }
}

impl Observer for Recorder {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::Started { key, .. } => {
                counter(EXECUTED, of_route(key.flow())).increment(1);
                gauge(INFLIGHT, key.flow()).increment(1.0);
            }
            Event::Ended { key, .. } => gauge(INFLIGHT, key.flow()).decrement(1.0),
            Event::InDoubt { key } => self.note_in_doubt(key.flow()),
            Event::OutOfDoubt { key } => self.note_out_of_doubt(key.flow()),
            Event::Unsaved { key } => {
                counter(STORAGE_FAILURE, of_route(key.flow())).increment(1);
                gauge(UNSAVED, key.flow()).increment(1.0);
            }
            Event::Saved { key } => gauge(UNSAVED, key.flow()).decrement(1.0),
            Event::Lost { key, was_unsaved: true } => gauge(UNSAVED, key.flow()).decrement(1.0),
            Event::Removed { records } => counter(EXPIRY_SWEEP, Vec::new()).increment(*records),
            Event::Closed => self.close(),
            Event::Lost { was_unsaved: false, .. }
            | Event::StorageRetry
            | Event::Contradiction { .. }
            | Event::FencedOff { .. }
            | Event::DeadLetter { .. } => {}
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

/// Counts an answer that was given again: [`REPLAY`]. One that was executed is not counted here. `route`: the name of the flow.
pub fn count_replay(route: &str, how: How) {
    replays(route, how).into_iter().for_each(|replays| replays.increment(1));
}

/// Counts a request refused as a *Conflict*: [`CONFLICT`]. `route`: the name of the flow.
pub fn count_conflict(route: &str) {
    counter(CONFLICT, of_route(route)).increment(1);
}

/// Counts a request refused as a *Duplicate*: [`DUPLICATE`]. `route`: the name of the flow.
pub fn count_duplicate(route: &str) {
    counter(DUPLICATE, of_route(route)).increment(1);
}

/// Counts a request that was told *Ambiguous*: [`AMBIGUOUS`]. `route`: the name of the flow.
pub fn count_ambiguous(route: &str) {
    counter(AMBIGUOUS, of_route(route)).increment(1);
}

/// Counts a request that met a record that does not decode: [`QUARANTINED`].
pub fn count_quarantined() {
    counter(QUARANTINED, Vec::new()).increment(1);
}

/// The label `route` of a flow: its name, but one value for all that match no route.
#[must_use]
pub fn route_of(flow: &str) -> &str {
    if flow.ends_with(" unmatched") { "unmatched" } else { flow }
}

fn of_route(flow: &str) -> Vec<Label> {
    vec![Label::new("route", route_of(flow).to_owned())]
}

fn replays(flow: &str, how: How) -> Option<Counter> {
    let how = match how {
        How::Executed => return None,
        How::Replayed => "replayed",
        How::Joined => "joined",
    };
    let mut labels = of_route(flow);
    labels.push(Label::new("how", how));
    Some(counter(REPLAY, labels))
}

fn counter(name: &'static str, labels: Vec<Label>) -> Counter {
    with_recorder(|recorder| recorder.register_counter(&Key::from_parts(name, labels), &METADATA))
}

fn gauge(name: &'static str, flow: &str) -> Gauge {
    with_recorder(|recorder| recorder.register_gauge(&Key::from_parts(name, of_route(flow)), &METADATA))
}
