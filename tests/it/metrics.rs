//! Counters and gauges: each event counted once, under the name of its flow, and every gauge back where it was.
//!
//! Events come from the engine's threads, so they meet the one recorder of the process: each test has flows of its own.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use crate::support::*;
use ibid::metrics::{self, Recorder};
use ibid::store::MemoryStore;
use ibid::testing::{FaultyStore, ManualClock, Outage};
use ibid::{Call, End, Engine, Flow, How, InDoubt, Limits, OnStoreFailure, Operation, Policy, Reason};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

const TEN_MINUTES: Duration = Duration::from_secs(600);
const ROUTE_SERIES: [&str; 8] = [
    metrics::EXECUTED,
    metrics::CONFLICT,
    metrics::DUPLICATE,
    metrics::AMBIGUOUS,
    metrics::INFLIGHT,
    metrics::IN_DOUBT,
    metrics::UNSAVED,
    metrics::STORAGE_FAILURE,
];

/// The recorder of this process. Taking a snapshot sets it back to zero, so the sums are kept here.
struct Installed {
    snapshotter: Snapshotter,
    sums: HashMap<String, f64>,
}

static INSTALLED: LazyLock<Mutex<Installed>> = LazyLock::new(|| {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    Mutex::new(Installed { snapshotter, sums: HashMap::new() })
});

/// Everything that is counted from here on can be read.
fn install() {
    LazyLock::force(&INSTALLED);
}

/// The value of `name{label="value",..}`, labels in the order in which they were given; `None` if there is no such series.
fn value(name: &str, labels: &str) -> Option<f64> {
    let mut installed = INSTALLED.lock().unwrap();
    for (key, _, _, value) in installed.snapshotter.snapshot().into_vec() {
        let labels: Vec<_> = key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let added = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(_) => continue,
        };
        *installed.sums.entry(format!("{} {}", key.key().name(), labels.join(" "))).or_default() += added;
    }
    installed.sums.get(&format!("{name} {labels}")).copied()
}

fn of_route(name: &str, route: &str) -> Option<f64> {
    value(name, &format!("route={route}"))
}

/// What the route's series show: started, running, in doubt, unsaved, failures.
fn shown(route: &str) -> [f64; 5] {
    [metrics::EXECUTED, metrics::INFLIGHT, metrics::IN_DOUBT, metrics::UNSAVED, metrics::STORAGE_FAILURE]
        .map(|name| of_route(name, route).unwrap_or_default())
}

fn named(name: &str, policy: Policy) -> Flow {
    Flow::new(name, policy).unwrap()
}

fn open(inner: &Arc<MemoryStore>, limits: Limits) -> (Arc<FaultyStore>, Engine) {
    install();
    let store = Arc::new(FaultyStore::new(inner.clone()).keeping_inner());
    let builder = Engine::builder().clock(ManualClock::at(START)).limits(limits).observer(Recorder::new());
    (store.clone(), builder.open_store(store).unwrap())
}

fn to(flow: &Flow, id: &str) -> Call {
    call(flow, id, "r")
}

#[tokio::test]
async fn runs_are_counted_and_the_gauge_falls_back_after_success_error_panic_and_disconnect() {
    let flow = named("POST /runs", Policy::replay(TEN_MINUTES));
    let (_, engine) = open(&Arc::default(), Limits::default());
    let (counted, mut starts) = Counted::held();
    let waits = submit(&engine, to(&flow, "done"), counted.operation());
    starts.recv().await.unwrap();
    assert_eq!(shown("POST /runs"), [1.0, 1.0, 0.0, 0.0, 0.0]);
    // Whoever waited is gone; the run goes on.
    waits.abort();
    counted.release();
    assert_eq!(answer(&engine, to(&flow, "done"), counted.operation()).await.answer.len(), 1);
    error(&engine, to(&flow, "failed"), counted.ending(|_| End::Definitive(Reason::from_bytes(*b"no")))).await;
    let panicking = Operation::new(async |_| std::panic::resume_unwind(Box::new("injected")));
    error(&engine, to(&flow, "panics"), panicking).await;
    assert_eq!(shown("POST /runs"), [3.0, 0.0, 1.0, 0.0, 0.0]);
    engine.shutdown().await;
    assert_eq!(shown("POST /runs"), [3.0, 0.0, 0.0, 0.0, 0.0], "the next engine says it again");
}

#[tokio::test]
async fn what_is_found_in_doubt_is_shown_from_the_opening_on_until_it_runs_again() {
    let flow = named("POST /doubt", Policy::replay(TEN_MINUTES).in_doubt(InDoubt::Rerun));
    let inner = Arc::default();
    let (_, engine) = open(&inner, Limits::default());
    for id in ["a", "b"] {
        error(&engine, to(&flow, id), Operation::new(async |_| End::Unknown(Reason::from_bytes(*b"?")))).await;
    }
    assert_eq!(shown("POST /doubt"), [2.0, 0.0, 2.0, 0.0, 0.0]);
    engine.shutdown().await;
    let (_, engine) = open(&inner, Limits::default());
    assert_eq!(shown("POST /doubt"), [2.0, 0.0, 2.0, 0.0, 0.0]);
    answer(&engine, to(&flow, "a"), Counted::new().operation()).await;
    assert_eq!(shown("POST /doubt"), [3.0, 0.0, 1.0, 0.0, 0.0]);
    engine.shutdown().await;
    assert_eq!(shown("POST /doubt"), [3.0, 0.0, 0.0, 0.0, 0.0]);
}

#[tokio::test]
async fn an_answer_that_cannot_be_saved_is_one_failure_and_unsaved_until_the_engine_closes() {
    let flow = named("POST /unsaved", Policy::replay(TEN_MINUTES).on_store_failure(OnStoreFailure::Reply));
    let (store, engine) = open(&Arc::default(), Limits::default());
    let (counted, mut starts) = Counted::held();
    let first = submit(&engine, to(&flow, "a"), counted.operation());
    starts.recv().await.unwrap();
    store.break_down(Outage::Commits);
    counted.release();
    heard(first).await;
    for _ in 0..3 {
        answer(&engine, to(&flow, "a"), counted.operation()).await;
    }
    assert_eq!(shown("POST /unsaved"), [1.0, 0.0, 0.0, 1.0, 1.0]);
    engine.shutdown().await;
    assert_eq!(shown("POST /unsaved"), [1.0, 0.0, 0.0, 0.0, 1.0]);
}

#[tokio::test]
async fn the_expiry_sweep_is_counted_by_records_and_without_a_route() {
    let flow = named("POST /removed", Policy::replay(TEN_MINUTES));
    let (_, engine) = open(&Arc::default(), Limits::default());
    let before = value(metrics::EXPIRY_SWEEP, "");
    assert!(before.is_some(), "it is there from the start");
    for id in ["a", "b", "c"] {
        answer(&engine, to(&flow, id).retention(Duration::ZERO), Counted::new().operation()).await;
    }
    assert_eq!(engine.expiry_sweep().await.unwrap(), 3);
    assert_eq!(value(metrics::EXPIRY_SWEEP, ""), before.map(|before| before + 3.0));
    engine.shutdown().await;
}

#[test]
fn a_registered_route_has_every_series_at_zero_and_keeps_what_is_counted() {
    install();
    let replays = |how| value(metrics::REPLAY, &format!("route=POST /all how={how}"));
    assert_eq!((of_route(metrics::EXECUTED, "POST /all"), replays("joined")), (None, None));
    Recorder::register("POST /all");
    for name in ROUTE_SERIES {
        assert_eq!(of_route(name, "POST /all"), Some(0.0), "{name}");
    }
    assert_eq!((replays("replayed"), replays("joined"), replays("executed")), (Some(0.0), Some(0.0), None));
    let quarantined = value(metrics::QUARANTINED, "").unwrap();
    metrics::count_conflict("POST /all");
    metrics::count_duplicate("POST /all");
    metrics::count_ambiguous("POST /all");
    metrics::count_quarantined();
    for how in [How::Executed, How::Replayed, How::Replayed, How::Joined] {
        metrics::count_replay("POST /all", how);
    }
    Recorder::register("POST /all");
    let counted = [metrics::CONFLICT, metrics::DUPLICATE, metrics::AMBIGUOUS, metrics::EXECUTED];
    assert_eq!(counted.map(|name| of_route(name, "POST /all").unwrap()), [1.0, 1.0, 1.0, 0.0]);
    assert_eq!((replays("replayed"), replays("joined"), replays("executed")), (Some(2.0), Some(1.0), None));
    assert_eq!(value(metrics::QUARANTINED, ""), Some(quarantined + 1.0));
}

#[test]
fn what_matches_no_route_shares_one_label_whatever_it_was_asked_as() {
    install();
    for flow in ["POST unmatched", "PATCH unmatched"] {
        assert_eq!(metrics::route_of(flow), "unmatched");
        metrics::count_conflict(flow);
        assert_eq!(of_route(metrics::CONFLICT, flow), None);
    }
    assert_eq!(of_route(metrics::CONFLICT, "unmatched"), Some(2.0));
    for flow in ["POST /unmatched", "send_payment"] {
        assert_eq!(metrics::route_of(flow), flow);
    }
}
