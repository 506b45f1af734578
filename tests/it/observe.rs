//! Each change is told once, whatever fails, dies or starts again meanwhile.

use crate::support::*;
use ibid::store::MemoryStore;
use ibid::testing::{Fault, FaultyStore, ManualClock, Outage, simulate};
use ibid::{
    Builder, End, Ended, Engine, Event, Found, How, InDoubt, Limits, Observer, OnStoreFailure, Operation, Policy,
    Reason, Resolved,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

const TEN_MINUTES: Duration = Duration::from_secs(600);

/// Writes down what it hears, in a line each; retries of the store are counted apart, as they are a matter of time.
#[derive(Clone, Default)]
struct Log(Arc<Heard>);

#[derive(Default)]
struct Heard {
    lines: Mutex<Vec<String>>,
    retries: AtomicUsize,
    news: Notify,
}

impl Log {
    /// What it has heard since it was last asked.
    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lines.lock().unwrap())
    }

    /// The same, when there are so many lines.
    async fn heard_of(&self, lines: usize) -> Vec<String> {
        let wait = async {
            while self.0.lines.lock().unwrap().len() < lines {
                self.0.news.notified().await;
            }
        };
        within_a_minute(wait).await;
        self.heard()
    }

    fn retries(&self) -> usize {
        self.0.retries.load(Ordering::SeqCst)
    }
}

impl Observer for Log {
    fn observe(&self, event: &Event<'_>) {
        let id = event.key().map(|key| String::from_utf8(key.id().to_vec()).unwrap()).unwrap_or_default();
        let line = match event {
            Event::Started { attempt, .. } => format!("started {id} {attempt}"),
            Event::Ended { attempt, .. } => format!("ended {id} {attempt}"),
            Event::InDoubt { .. } => format!("in doubt {id}"),
            Event::OutOfDoubt { .. } => format!("out of doubt {id}"),
            Event::Unsaved { .. } => format!("unsaved {id}"),
            Event::Saved { .. } => format!("saved {id}"),
            Event::Lost { was_unsaved, .. } => format!("lost {id}{}", if *was_unsaved { "" } else { " at once" }),
            Event::StorageRetry => {
                self.0.retries.fetch_add(1, Ordering::SeqCst);
                return;
            }
            Event::Removed { records } => format!("removed {records}"),
            Event::Contradiction { recorded, .. } => format!("contradiction {id} {recorded}"),
            Event::FencedOff { .. } => format!("fenced off {id}"),
            Event::DeadLetter { .. } => format!("dead letter {id}"),
            Event::Closed => "closed".into(),
            other => panic!("unknown: {other:?}"),
        };
        self.0.lines.lock().unwrap().push(line);
        self.0.news.notify_one();
    }
}

/// A store that outlives its engines, and who watches them.
struct House {
    inner: Arc<MemoryStore>,
    clock: ManualClock,
    log: Log,
}

impl House {
    fn new() -> Self {
        Self { inner: Arc::new(MemoryStore::new()), clock: ManualClock::at(START), log: Log::default() }
    }

    fn open(&self) -> (Arc<FaultyStore>, Engine) {
        self.open_with(|builder| builder)
    }

    fn open_with(&self, set: impl FnOnce(Builder) -> Builder) -> (Arc<FaultyStore>, Engine) {
        let store = Arc::new(FaultyStore::new(self.inner.clone()).keeping_inner());
        let builder = Engine::builder().clock(self.clock.clone()).observer(self.log.clone());
        (store.clone(), set(builder).open_store(store).unwrap())
    }
}

fn without_drain() -> Limits {
    let mut limits = Limits::default();
    limits.drain = Duration::ZERO;
    limits
}

fn unknown() -> End {
    End::Unknown(Reason::from_bytes(*b"?"))
}

fn ended(id: &str) -> Operation {
    let end = if id == "done" { End::done(*b"x") } else { End::Definitive(Reason::from_bytes(*b"no")) };
    Operation::new(async move |_| end)
}

#[tokio::test]
async fn each_run_is_told_with_its_end_and_what_does_not_run_is_not() {
    let (house, flow) = (House::new(), flow());
    let (_, engine) = house.open();
    for id in ["done", "failed"] {
        drop(engine.submit(call(&flow, id, "r"), ended(id)).await);
        assert_eq!(house.log.heard(), [format!("started {id} 1"), format!("ended {id} 1")]);
    }
    let (counted, mut starts) = Counted::held();
    let first = submit(&engine, call(&flow, "joined", "r"), counted.operation());
    starts.recv().await.unwrap();
    let joined = submit(&engine, call(&flow, "joined", "r"), counted.operation());
    until(&engine, |stats| stats.in_flight == 2).await;
    error(&engine, call(&flow, "joined", "other"), counted.operation()).await;
    assert_eq!(house.log.heard(), ["started joined 1"]);
    counted.release();
    for caller in [first, joined] {
        heard(caller).await;
    }
    assert_eq!(answer(&engine, call(&flow, "done", "r"), counted.operation()).await.how, How::Replayed);
    error(&engine, call(&flow, "done", "other"), counted.operation()).await;
    assert_eq!(house.log.heard(), ["ended joined 1"]);
    engine.shutdown().await;
    assert_eq!(house.log.heard(), ["closed"]);
}

#[tokio::test]
async fn a_panic_and_an_abort_end_a_run_and_the_doubt_they_leave_is_told_again_at_opening_until_it_ends() {
    let (house, flow) = (House::new(), flow_of(Policy::replay(TEN_MINUTES).in_doubt(InDoubt::Rerun)));
    let (_, engine) = house.open_with(|builder| builder.limits(without_drain()));
    let panicking = Operation::new(async |_| std::panic::resume_unwind(Box::new("injected")));
    error(&engine, call(&flow, "panics", "r"), panicking).await;
    assert_eq!(house.log.heard(), ["started panics 1", "ended panics 1", "in doubt panics"]);
    let (counted, mut starts) = Counted::held();
    let caller = submit(&engine, call(&flow, "aborted", "r"), counted.operation());
    starts.recv().await.unwrap();
    engine.shutdown().await;
    caller.await.unwrap().unwrap_err();
    assert_eq!(house.log.heard(), ["started aborted 1", "ended aborted 1", "in doubt aborted", "closed"]);

    let (_, engine) = house.open();
    assert_eq!(house.log.heard(), ["in doubt panics", "in doubt aborted"], "before anything is served");
    answer(&engine, call(&flow, "panics", "r"), ended("done")).await;
    assert_eq!(house.log.heard(), ["out of doubt panics", "started panics 2", "ended panics 2"]);
    let told = Ended::Completed((*b"told").into());
    let resolved = engine.resolve(&flow, &key(&flow, "aborted"), None, told).await.unwrap();
    assert_eq!((resolved, house.log.heard()), (Resolved::Recorded, vec!["out of doubt aborted".into()]));
    engine.resolve(&flow, &key(&flow, "aborted"), None, Ended::Failed((*b"no").into())).await.unwrap();
    assert_eq!(house.log.heard(), ["contradiction aborted completed"]);
    engine.shutdown().await;
    assert_eq!(house.log.heard(), ["closed"]);
    let (_, engine) = house.open();
    assert_eq!(house.log.heard(), [""; 0]);
    engine.shutdown().await;
}

#[test]
fn after_a_crash_what_ran_is_found_in_doubt_and_every_run_has_ended() {
    let heard = simulate(7, async |simulation| {
        let (disk, log) = (Arc::new(MemoryStore::new()), Log::default());
        let open = || {
            let store = Arc::new(FaultyStore::new(disk.clone()).keeping_inner());
            simulation.open(Engine::builder().observer(log.clone()), store).unwrap()
        };
        let (engine, (counted, mut starts)) = (open(), Counted::held());
        let caller = submit(&engine, call(&flow(), "a", "r"), counted.operation());
        starts.recv().await.unwrap();
        simulation.crash(&engine).await;
        caller.await.unwrap().unwrap_err();
        let before = log.heard();
        simulation.crash(&open()).await;
        (before, log.heard())
    })
    .unwrap();
    assert_eq!(heard.0, ["started a 1", "ended a 1", "closed"]);
    assert_eq!(heard.1, ["in doubt a", "closed"]);
}

#[tokio::test]
async fn a_blocking_operation_that_outlives_its_engine_has_ended_for_those_who_watch() {
    let house = House::new();
    let (_, engine) = house.open_with(|builder| builder.limits(without_drain()));
    let (go_on, waits) = std::sync::mpsc::channel::<()>();
    let (started, has_started) = tokio::sync::oneshot::channel();
    let blocking = Operation::blocking(move |_| {
        started.send(()).unwrap();
        waits.recv().ok();
        End::done(*b"late")
    });
    let caller = submit(&engine, call(&flow(), "a", "r"), blocking);
    has_started.await.unwrap();
    engine.shutdown().await;
    caller.await.unwrap().unwrap_err();
    assert_eq!(house.log.heard(), ["started a 1", "ended a 1", "closed"]);
    drop(go_on);
}

#[tokio::test]
async fn an_end_that_cannot_be_saved_is_told_once_and_once_more_when_it_is() {
    let flow = flow_of(Policy::replay(TEN_MINUTES).on_store_failure(OnStoreFailure::Reply));
    let house = House::new();
    let (store, engine) = house.open();
    let (counted, mut starts) = Counted::held();
    let caller = submit(&engine, call(&flow, "a", "r"), counted.operation());
    starts.recv().await.unwrap();
    store.break_down(Outage::Commits);
    counted.release();
    heard(caller).await;
    assert_eq!(house.log.heard(), ["started a 1", "ended a 1", "unsaved a"]);
    assert!(house.log.retries() >= 4, "five tries");
    for _ in 0..3 {
        answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    }
    assert_eq!(house.log.heard(), [""; 0]);
    store.heal();
    assert_eq!(house.log.heard_of(1).await, ["saved a"]);
    engine.shutdown().await;
    assert_eq!((house.log.heard(), counted.runs()), (vec!["closed".into()], 1));
}

#[tokio::test]
async fn an_end_that_is_unsaved_at_closing_is_lost_and_its_record_is_in_doubt_at_the_next_opening() {
    let flow = flow_of(Policy::replay(TEN_MINUTES).on_store_failure(OnStoreFailure::Reply));
    let house = House::new();
    let (store, engine) = house.open();
    let (counted, mut starts) = Counted::held();
    let caller = submit(&engine, call(&flow, "a", "r"), counted.operation());
    starts.recv().await.unwrap();
    store.break_down(Outage::Commits);
    counted.release();
    heard(caller).await;
    engine.shutdown().await;
    assert_eq!(house.log.heard(), ["started a 1", "ended a 1", "unsaved a", "lost a", "closed"]);
    let (_, engine) = house.open();
    assert_eq!(house.log.heard(), ["in doubt a"]);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_commit_of_unknown_fate_tells_of_its_doubt_once() {
    for fault in [Fault::BeforeEffect, Fault::AfterEffect, Fault::Panic] {
        let (house, flow) = (House::new(), flow_of(Policy::replay(TEN_MINUTES).in_doubt(InDoubt::Rerun)));
        let (store, engine) = house.open();
        let (counted, mut starts) = Counted::held();
        let caller = submit(&engine, call(&flow, "a", "r"), counted.ending(|_| unknown()));
        starts.recv().await.unwrap();
        store.fail_commits(1, fault);
        counted.release();
        caller.await.unwrap().unwrap_err();
        assert_eq!(house.log.heard(), ["started a 1", "ended a 1", "in doubt a"], "{fault:?}");
        store.fail_commits(1, fault);
        answer(&engine, call(&flow, "a", "r"), ended("done")).await;
        assert_eq!(house.log.heard(), ["out of doubt a", "started a 2", "ended a 2"], "{fault:?}");
        assert_eq!(house.log.retries(), 2, "{fault:?}");
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn what_the_expiry_sweep_removes_is_counted_once_also_where_its_commit_fails() {
    for (fault, removed) in [(None, 3), (Some(Fault::BeforeEffect), 0), (Some(Fault::AfterEffect), 3)] {
        let (house, flow) = (House::new(), flow());
        let (store, engine) = house.open();
        for id in ["a", "b", "c"] {
            answer(&engine, call(&flow, id, "r"), ended("done")).await;
        }
        house.log.heard();
        house.clock.advance(TEN_MINUTES);
        let Some(fault) = fault else {
            assert_eq!(engine.expiry_sweep_slice(2).await.unwrap(), 2);
            assert_eq!(engine.expiry_sweep().await.unwrap(), 1);
            assert_eq!(house.log.heard(), ["removed 2", "removed 1"]);
            engine.shutdown().await;
            continue;
        };
        store.fail_commits(1, fault);
        engine.expiry_sweep().await.unwrap_err();
        until(&engine, |stats| stats.storage_retries == 1).await;
        let left = engine.expiry_sweep().await.unwrap();
        assert_eq!(left, 3 - removed, "{fault:?}");
        assert_eq!(house.log.heard(), ["removed 3"], "{fault:?}");
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn what_an_oracle_says_takes_a_record_out_of_doubt_and_its_silence_makes_a_dead_letter() {
    let flow = flow_of(Policy::replay(TEN_MINUTES).in_doubt(InDoubt::Ask));
    let house = House::new();
    let mut limits = Limits::default();
    limits.recoveries = 1;
    let (_, engine) = house.open_with(|builder| {
        builder.limits(limits).oracle(&flow, async |inquiry| match inquiry.key().id() {
            b"known" => Found::Done(Ended::Completed((*b"x").into())),
            _ => Found::CannotTell,
        })
    });
    for (id, told) in [("known", "out of doubt known"), ("silent", "dead letter silent")] {
        error(&engine, call(&flow, id, "r"), Operation::new(async |_| unknown())).await;
        let heard = house.log.heard_of(4).await;
        assert_eq!(heard, [format!("started {id} 1"), format!("ended {id} 1"), format!("in doubt {id}"), told.into()]);
    }
    engine.shutdown().await;
    assert_eq!(house.log.heard(), ["closed"]);
}

/// Panics at whatever it hears.
struct Rude;

impl Observer for Rude {
    fn observe(&self, _: &Event<'_>) {
        std::panic::resume_unwind(Box::new("injected into an observer"));
    }
}

#[tokio::test]
async fn an_observer_that_panics_changes_nothing_and_keeps_no_other_from_hearing() {
    let (house, flow) = (House::new(), flow_of(Policy::replay(TEN_MINUTES).in_doubt(InDoubt::Rerun)));
    let after = Log::default();
    let (_, engine) = house.open_with(|builder| builder.observer(Rude).observer(after.clone()));
    error(&engine, call(&flow, "a", "r"), Operation::new(async |_| unknown())).await;
    answer(&engine, call(&flow, "a", "r"), ended("done")).await;
    house.clock.advance(TEN_MINUTES);
    assert_eq!(engine.expiry_sweep().await.unwrap(), 1);
    let stats = engine.stats().await.unwrap();
    assert_eq!((stats.died_actors, stats.storage_retries, stats.running), (0, 0, 0));
    engine.shutdown().await;
    let all =
        ["started a 1", "ended a 1", "in doubt a", "out of doubt a", "started a 2", "ended a 2", "removed 1", "closed"];
    assert_eq!((house.log.heard(), after.heard()), (all.map(String::from).into(), all.map(String::from).into()));
}
