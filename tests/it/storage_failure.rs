//! A store that fails: nothing leaves early, nothing is lost, nothing runs twice.
//!
//! The engine waits 100, 200, 400 and 800 ms between its five tries, in real time; the tests wait for what it does.

use crate::support::*;
use ibid::testing::{Fault, FaultyStore, Outage};
use ibid::{Class, Engine, Error, ErrorKind, Flow, How, InDoubt, Policy, Reply, Status};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

/// A flow that would run again whatever is left in doubt: here a second run shows.
fn eager() -> Flow {
    flow_of(Policy::replay(Duration::from_secs(600)).in_doubt(InDoubt::Rerun))
}

type Caller = JoinHandle<Result<Reply, Error>>;

/// An operation that has started and waits at its gate, its caller, and one that has joined it.
struct Started {
    flow: Flow,
    counted: Counted,
    starts: UnboundedReceiver<usize>,
    first: Caller,
    joined: Caller,
}

impl Started {
    async fn new(engine: &Engine) -> Self {
        let (flow, (counted, mut starts)) = (eager(), Counted::held());
        let first = submit(engine, call(&flow, "a", "r"), counted.operation());
        starts.recv().await.unwrap();
        let joined = submit(engine, call(&flow, "a", "r"), counted.operation());
        // The first one's permit is with the operation.
        until(engine, |stats| stats.in_flight == 2).await;
        settled(engine).await;
        Self { flow, counted, starts, first, joined }
    }

    /// Both get the answer of the one run, and so does a retry.
    async fn everybody_hears_of_one_run(self, engine: &Engine) {
        let (first, joined) = (heard(self.first).await, heard(self.joined).await);
        assert_eq!((first.how, &*first.answer), (How::Executed, b"1".as_slice()));
        assert_eq!((joined.how, &*joined.answer), (How::Joined, b"1".as_slice()));
        replays(engine, &self.flow, &self.counted).await;
    }

    async fn both_are_left_unknowing(&mut self) {
        for caller in [&mut self.first, &mut self.joined] {
            is_store_failure(&caller.await.unwrap().unwrap_err());
        }
    }
}

async fn replays(engine: &Engine, flow: &Flow, counted: &Counted) {
    let retry = answer(engine, call(flow, "a", "r"), counted.operation()).await;
    assert_eq!((retry.how, &*retry.answer), (How::Replayed, b"1".as_slice()));
    assert_eq!(counted.runs(), 1);
}

fn is_store_failure(error: &Error) {
    assert!(matches!(error.kind(), ErrorKind::Store) && error.class() == Class::Ambiguous, "{error:?}");
}

#[tokio::test]
async fn no_operation_starts_and_no_answer_leaves_before_the_commit_that_allows_it() {
    let (flow, (counted, mut starts)) = (flow(), Counted::held());
    let (store, engine) = Faulty::new().open();
    let gate = store.hold_commits();
    let first = submit(&engine, call(&flow, "a", "r"), counted.operation());
    within_a_minute(store.until_held()).await;
    let joined = submit(&engine, call(&flow, "a", "r"), counted.operation());
    until(&engine, |stats| stats.in_flight == 2).await;
    settled(&engine).await;
    assert_eq!((counted.runs(), starts.try_recv().is_ok()), (0, false), "it started unregistered");
    assert!(engine.lookup(&key(&flow, "a")).unwrap().is_none());
    drop(gate);
    starts.recv().await.unwrap();
    let gate = store.hold_commits();
    counted.release();
    within_a_minute(store.until_held()).await;
    settled(&engine).await;
    assert!(!first.is_finished() && !joined.is_finished(), "an answer left that is not durable");
    assert_eq!(engine.lookup(&key(&flow, "a")).unwrap().unwrap().state.status(), Status::Registered);
    drop(gate);
    assert_eq!((heard(first).await.how, heard(joined).await.how), (How::Executed, How::Joined));
    assert_eq!((counted.runs(), store.commits()), (1, 2));
    engine.shutdown().await;
}

#[tokio::test]
async fn one_failed_commit_at_the_end_loses_no_answer_and_runs_nothing_twice() {
    // What was written after all is found and not written again.
    for (fault, commits) in [(Fault::BeforeEffect, 3), (Fault::AfterEffect, 2), (Fault::Panic, 3)] {
        let (store, engine) = Faulty::new().open();
        let started = Started::new(&engine).await;
        store.fail_commits(1, fault);
        started.counted.release();
        started.everybody_hears_of_one_run(&engine).await;
        assert_eq!((store.commits(), store.reopens()), (commits, 1), "{fault:?}");
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn whoever_joins_after_the_failed_commit_gets_the_answer_too() {
    let (store, engine) = Faulty::new().open();
    let started = Started::new(&engine).await;
    store.fail_commits(1, Fault::BeforeEffect);
    started.counted.release();
    store.until_commits(2).await;
    let late = submit(&engine, call(&started.flow, "a", "r"), started.counted.operation());
    started.everybody_hears_of_one_run(&engine).await;
    assert_eq!(&*heard(late).await.answer, b"1");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_registration_whose_commit_fails_runs_once_whether_or_not_it_had_an_effect() {
    for (fault, commits) in [(Fault::BeforeEffect, 3), (Fault::AfterEffect, 2), (Fault::Panic, 3)] {
        let (flow, counted) = (eager(), Counted::new());
        let (store, engine) = Faulty::new().open();
        store.fail_commits(1, fault);
        let outcome = answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
        assert_eq!((outcome.how, &*outcome.answer), (How::Executed, b"1".as_slice()), "{fault:?}");
        assert_eq!(engine.lookup(&key(&flow, "a")).unwrap().unwrap().attempt.number, 1);
        assert_eq!((counted.runs(), store.commits(), store.reopens()), (1, commits, 1), "{fault:?}");
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn a_store_that_is_down_before_the_registration_runs_nothing_and_the_same_request_runs_once_it_heals() {
    for outage in [Outage::Commits, Outage::Everything] {
        let (flow, counted) = (eager(), Counted::new());
        let (store, engine) = Faulty::new().open();
        store.break_down(outage);
        is_store_failure(&error(&engine, call(&flow, "a", "r"), counted.operation()).await);
        assert_eq!(counted.runs(), 0);
        store.heal();
        assert!(engine.lookup(&key(&flow, "a")).unwrap().is_none());
        // While the engine has not tried the store again it may still say that it can't.
        let outcome = loop {
            match engine.submit(call(&flow, "a", "r"), counted.operation()).await {
                Ok(Reply::Answer(outcome)) => break outcome,
                Ok(Reply::Accepted) => panic!("accepted"),
                Err(error) => {
                    is_store_failure(&error);
                    store.until_reopens(store.reopens() + 1).await;
                }
            }
        };
        assert_eq!(outcome.how, How::Executed);
        replays(&engine, &flow, &counted).await;
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn a_store_that_goes_down_under_a_registration_is_tried_five_times_and_runs_nothing() {
    let (flow, counted) = (eager(), Counted::new());
    let (store, engine) = Faulty::new().open();
    let gate = store.hold_commits();
    let first = submit(&engine, call(&flow, "a", "r"), counted.operation());
    store.until_held().await;
    store.break_down(Outage::Everything);
    drop(gate);
    is_store_failure(&first.await.unwrap().unwrap_err());
    assert_eq!((counted.runs(), store.commits(), store.reopens()), (0, 1, 4));
    store.heal();
    store.until_reopens(5).await;
    assert_eq!(answer(&engine, call(&flow, "a", "r"), counted.operation()).await.how, How::Executed);
    replays(&engine, &flow, &counted).await;
    engine.shutdown().await;
}

#[tokio::test]
async fn an_answer_that_outlasts_all_tries_is_kept_and_saved_when_the_store_heals() {
    let (store, engine) = Faulty::new().open();
    let mut started = Started::new(&engine).await;
    store.break_down(Outage::Everything);
    started.counted.release();
    started.both_are_left_unknowing().await;
    let retry = error(&engine, call(&started.flow, "a", "r"), started.counted.operation()).await;
    is_store_failure(&retry);
    store.heal();
    let saved = store.commits() + 1;
    store.until_commits(saved).await;
    replays(&engine, &started.flow, &started.counted).await;
    until(&engine, |stats| (stats.live_actors, stats.running, stats.in_flight) == (0, 0, 0)).await;
    assert!(started.starts.try_recv().is_err(), "one start was all");
    engine.shutdown().await;
}

#[tokio::test]
async fn while_an_answer_is_unsaved_a_retry_is_told_so_at_once_and_holds_nothing() {
    let (store, engine) = Faulty::new().open();
    let mut started = Started::new(&engine).await;
    store.break_down(Outage::Commits);
    started.counted.release();
    started.both_are_left_unknowing().await;
    for _ in 0..3 {
        let retry = error(&engine, call(&started.flow, "a", "r"), started.counted.operation());
        is_store_failure(&within_a_minute(retry).await);
        let key = key(&started.flow, "a");
        is_store_failure(&within_a_minute(engine.track(&started.flow, &key)).await.unwrap_err());
    }
    let stats = until(&engine, |stats| stats.in_flight == 1).await;
    assert_eq!((stats.running, stats.records.registered), (1, 1), "the answer itself is in flight");
    store.heal();
    let saved = store.commits() + 1;
    store.until_commits(saved).await;
    replays(&engine, &started.flow, &started.counted).await;
    engine.shutdown().await;
}

#[tokio::test]
async fn replays_and_reads_go_on_while_commits_fail() {
    let (flow, counted) = (eager(), Counted::new());
    let (store, engine) = Faulty::new().open();
    answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    store.break_down(Outage::Commits);
    let other = Counted::new();
    let pending = submit(&engine, call(&flow, "b", "r"), other.operation());
    for tries in 3..=6 {
        store.until_commits(tries).await;
        replays(&engine, &flow, &counted).await;
        assert!(engine.lookup(&key(&flow, "b")).unwrap().is_none());
        assert_eq!(engine.stats().await.unwrap().records.completed, 1);
    }
    assert!(!pending.is_finished());
    store.heal();
    assert_eq!(heard(pending).await.how, How::Executed);
    assert_eq!((counted.runs(), other.runs()), (1, 1));
    engine.shutdown().await;
}

/// Eight operations that have started, each under a key of its own.
async fn eight(engine: &Engine, flow: &Flow) -> (Counted, Vec<Caller>) {
    let (counted, mut starts) = Counted::held();
    let callers = (0..8).map(|n| submit(engine, call(flow, &n.to_string(), "r"), counted.operation())).collect();
    for _ in 0..8 {
        starts.recv().await.unwrap();
    }
    (counted, callers)
}

#[tokio::test]
async fn the_store_is_reopened_once_per_failure_however_many_wait_for_it() {
    let flow = eager();
    let (store, engine) = Faulty::new().open();
    let (counted, callers) = eight(&engine, &flow).await;
    let before = store.commits();
    store.break_down(Outage::Everything);
    counted.release_one();
    store.until_commits(before + 1).await;
    // The others end one by one while it is down.
    for ended in 2..=8 {
        counted.release_one();
        until_passed(&counted, ended).await;
        store.until_reopens(u64::try_from(ended / 3).unwrap()).await;
    }
    store.until_reopens(3).await;
    assert_eq!(
        (store.commits(), store.reopens()),
        (before + 1, 3),
        "a store that is down is left alone but for its turn"
    );
    store.heal();
    for caller in callers {
        assert_eq!(heard(caller).await.how, How::Executed);
    }
    engine.shutdown().await;
    assert_eq!((store.commits(), store.reopens()), (before + 2, 4), "all eight went into one commit");
    assert_eq!(counted.runs(), 8);
}

/// Returns when so many operations have ended: they run on the test's own thread.
async fn until_passed(counted: &Counted, count: usize) {
    while counted.passed() < count {
        tokio::task::yield_now().await;
    }
}

/// Has the ends of all eight fail in one commit.
async fn fail_together(store: &FaultyStore, engine: &Engine, counted: &Counted, fault: Fault) {
    let flow = eager();
    let gate = store.hold_commits();
    let bystander = Counted::new();
    let alone = submit(engine, call(&flow, "bystander", "r"), bystander.operation());
    store.until_held().await;
    store.fail_commits(1, fault);
    counted.release();
    until_passed(counted, 8).await;
    settled(engine).await;
    store.fail_reads(1);
    drop(gate);
    assert_eq!(heard(alone).await.how, How::Executed);
}

#[tokio::test]
async fn a_read_that_fails_while_a_commit_is_read_back_loses_none_of_the_answers() {
    for fault in [Fault::BeforeEffect, Fault::AfterEffect] {
        let flow = eager();
        let (store, engine) = Faulty::new().open();
        let (counted, callers) = eight(&engine, &flow).await;
        fail_together(&store, &engine, &counted, fault).await;
        for caller in callers {
            assert_eq!(heard(caller).await.how, How::Executed, "{fault:?}");
        }
        assert_eq!((counted.runs(), store.reopens()), (8, 2), "{fault:?}");
        assert_eq!(engine.stats().await.unwrap().records.completed, 9);
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn what_is_unsaved_at_the_shutdown_gets_one_last_round() {
    let faulty = Faulty::new();
    let (store, engine) = faulty.open_with(|limits| limits.drain = Duration::ZERO);
    let mut started = Started::new(&engine).await;
    store.break_down(Outage::Everything);
    started.counted.release();
    started.both_are_left_unknowing().await;
    // The next try by itself is more than a second away; the shutdown doesn't wait for it.
    store.heal();
    engine.shutdown().await;
    let (_, engine) = faulty.open();
    assert_eq!(engine.stats().await.unwrap().records.completed, 1);
    replays(&engine, &started.flow, &started.counted).await;
    engine.shutdown().await;
}

#[tokio::test]
async fn what_can_not_be_saved_before_the_end_is_in_doubt_and_never_silently_run_again() {
    let faulty = Faulty::new();
    let (store, engine) = faulty.open_with(|limits| limits.drain = Duration::ZERO);
    let mut started = Started::new(&engine).await;
    store.break_down(Outage::Commits);
    started.counted.release();
    started.both_are_left_unknowing().await;
    engine.shutdown().await;
    let (_, engine) = faulty.open();
    assert_eq!(engine.stats().await.unwrap().records.in_doubt, 1);
    let cautious = flow();
    let retry = error(&engine, call(&cautious, "a", "r"), started.counted.operation()).await;
    assert!(matches!(retry.kind(), ErrorKind::InDoubt(_)), "{retry:?}");
    assert_eq!(started.counted.runs(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_store_without_faults_passes_for_the_one_below() {
    let make = || Arc::new(FaultyStore::new(Arc::new(ibid::store::MemoryStore::new()))) as Arc<dyn ibid::store::Store>;
    tokio::task::spawn_blocking(move || ibid::testing::conformance::suite(make)).await.unwrap();
}
