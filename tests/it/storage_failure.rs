//! A store that fails: nothing leaves early, nothing is lost, nothing runs twice.
//!
//! The engine waits 100, 200, 400 and 800 ms between its five tries, in real time; the tests wait for what it does.

use crate::support::*;
use ibid::store::{ExpiredRow, MemoryStore, Store, StoreError};
use ibid::testing::{Fault, FaultyStore, Layer, ManualClock, Outage};
use ibid::{
    Class, Completion, End, Engine, Error, ErrorKind, Flow, Guard, How, InDoubt, Key, OnFailure, OnStoreFailure,
    Policy, Reason, Record, Reply, Row, Status, UnixMillis, WhileRunning,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

use ibid::Operation;

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
        let counted = Counted::held();
        let operation = counted.0.operation();
        Self::with(engine, eager(), counted, operation).await
    }

    /// Of a flow that answers also when it can't save, with an operation that ends like this.
    async fn replying(engine: &Engine, flow: Flow, end: End) -> Self {
        let counted = Counted::held();
        let operation = counted.0.ending(|_| end);
        Self::with(engine, flow, counted, operation).await
    }

    async fn with(engine: &Engine, flow: Flow, counted: (Counted, UnboundedReceiver<usize>), runs: Operation) -> Self {
        let (counted, mut starts) = counted;
        let first = submit(engine, call(&flow, "a", "r"), runs);
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

    /// One more request for the same key.
    async fn asks(&self, engine: &Engine, request: &str) -> Result<Reply, Error> {
        within_a_minute(engine.submit(call(&self.flow, "a", request), self.counted.operation())).await
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
    saved(&store, &engine).await;
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
    saved(&store, &engine).await;
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

fn replying() -> Policy {
    Policy::replay(Duration::from_secs(600)).in_doubt(InDoubt::Rerun).on_store_failure(OnStoreFailure::Reply)
}

/// The store heals, and everything is saved.
async fn saved(store: &FaultyStore, engine: &Engine) {
    let failed = store.commits();
    store.heal();
    within_a_minute(store.until_commits(failed + 1)).await;
    // That commit may have begun before the store was healed.
    let is_saved = async {
        let mut stats = engine.stats().await.unwrap();
        while (stats.unsaved, stats.live_actors, stats.in_flight) != (0, 0, 0) {
            tokio::task::yield_now().await;
            stats = engine.stats().await.unwrap();
        }
    };
    within_a_minute(is_saved).await;
}

#[tokio::test]
async fn a_flow_that_replies_gives_the_answer_after_the_last_try_and_from_memory_until_it_is_saved() {
    for outage in [Outage::Commits, Outage::Everything] {
        let (store, engine) = Faulty::new().open();
        let started = Started::replying(&engine, flow_of(replying()), End::done(*b"1")).await;
        let commits = store.commits();
        store.break_down(outage);
        started.counted.release();
        let Started { flow, counted, first, joined, .. } = started;
        let first = heard(first).await;
        assert_eq!((first.how, &*first.answer), (How::Executed, b"1".as_slice()));
        let tries = store.commits() - commits + store.reopens();
        assert!(tries >= 5, "{tries} tries");
        let joined = heard(joined).await;
        assert_eq!((joined.how, &*joined.answer), (How::Joined, b"1".as_slice()));
        for _ in 0..3 {
            replays(&engine, &flow, &counted).await;
            let tracked = engine.track(&flow, &key(&flow, "a")).await.unwrap();
            assert_eq!((tracked.how, &*tracked.answer), (How::Replayed, b"1".as_slice()));
            let other = error(&engine, call(&flow, "a", "another"), counted.operation()).await;
            assert!(matches!(other.kind(), ErrorKind::Mismatch), "{other:?}");
        }
        saved(&store, &engine).await;
        replays(&engine, &flow, &counted).await;
        let record = engine.lookup(&key(&flow, "a")).unwrap().unwrap();
        assert_eq!((record.state.status(), record.attempt.number), (Status::Completed, 1));
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn a_flow_that_replies_gives_its_definitive_reason_and_nothing_runs_for_a_retry() {
    for (on_failure, runs_after) in [(OnFailure::Keep, 1), (OnFailure::Forget, 2)] {
        let (store, engine) = Faulty::new().open();
        let no = End::Definitive(Reason::from_bytes(*b"no"));
        let mut started = Started::replying(&engine, flow_of(replying().on_failure(on_failure)), no).await;
        store.break_down(Outage::Commits);
        started.counted.release();
        let is_told = |error: Error| {
            assert_eq!(error.class(), Class::Definitive);
            assert_eq!(&**error.reason().unwrap().bytes(), b"no");
        };
        for caller in [&mut started.first, &mut started.joined] {
            is_told(caller.await.unwrap().unwrap_err());
        }
        is_told(started.asks(&engine, "r").await.unwrap_err());
        is_told(engine.track(&started.flow, &key(&started.flow, "a")).await.unwrap_err());
        let other = started.asks(&engine, "another").await.unwrap_err();
        assert!(matches!(other.kind(), ErrorKind::Mismatch), "{on_failure:?}: {other:?}");
        assert_eq!(started.counted.runs(), 1);
        saved(&store, &engine).await;
        assert_eq!(started.asks(&engine, "r").await.is_ok(), runs_after == 2);
        assert_eq!(started.counted.runs(), runs_after, "{on_failure:?}: as if the first try had worked");
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn an_answer_too_long_to_keep_goes_to_those_at_hand_and_a_retry_hears_that_it_was_not_kept() {
    let (store, engine) = Faulty::new().open_with(|limits| limits.answer_bytes = 4);
    let started = Started::replying(&engine, flow_of(replying()), End::done(*b"too long")).await;
    store.break_down(Outage::Commits);
    started.counted.release();
    let retry = call(&started.flow, "a", "r");
    assert_eq!(&*heard(started.first).await.answer, b"too long");
    assert_eq!(&*heard(started.joined).await.answer, b"too long");
    let retry = error(&engine, retry, started.counted.operation()).await;
    assert!(matches!(retry.kind(), ErrorKind::AnswerNotKept), "{retry:?}");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_flow_that_replies_withholds_what_it_would_not_stand_by() {
    let row = Row::new("payments", *b"hash", *b"paid").unwrap();
    let guarded = Completion::new(*b"1").row(row.guard(Guard::Absent));
    for end in [End::Unknown(Reason::from_bytes(*b"who knows")), End::Accepted, End::Done(guarded)] {
        let (store, engine) = Faulty::new().open();
        let mut started = Started::replying(&engine, flow_of(replying()), end).await;
        store.break_down(Outage::Commits);
        started.counted.release();
        started.both_are_left_unknowing().await;
        is_store_failure(&started.asks(&engine, "r").await.unwrap_err());
        assert_eq!(started.counted.runs(), 1);
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn what_could_not_be_saved_is_counted_once_and_as_unsaved_until_it_is_saved() {
    let (store, engine) = Faulty::new().open();
    let mut started = Started::new(&engine).await;
    let stats = engine.stats().await.unwrap();
    assert_eq!((stats.storage_failures, stats.storage_retries, stats.unsaved), (0, 0, 0));
    store.break_down(Outage::Commits);
    started.counted.release();
    started.both_are_left_unknowing().await;
    let stats = engine.stats().await.unwrap();
    assert_eq!((stats.storage_failures, stats.storage_retries, stats.unsaved), (1, 4, 1));
    within_a_minute(store.until_reopens(5)).await;
    saved(&store, &engine).await;
    let stats = engine.stats().await.unwrap();
    assert_eq!((stats.storage_failures, stats.unsaved), (1, 0), "{stats:?}");
    assert_eq!(stats.storage_retries, store.reopens());
    replays(&engine, &started.flow, &started.counted).await;
    engine.shutdown().await;
}

#[tokio::test]
async fn while_an_end_is_tried_a_duplicate_and_a_mismatch_are_refused_at_once_and_who_may_join_waits() {
    for (while_running, refuses) in [(WhileRunning::Refuse, true), (WhileRunning::Join, false)] {
        let flow = flow_of(Policy::replay(Duration::from_secs(600)).while_running(while_running));
        let (store, engine) = Faulty::new().open();
        let (counted, mut starts) = Counted::held();
        let first = submit(&engine, call(&flow, "a", "r"), counted.operation());
        starts.recv().await.unwrap();
        let before = store.commits();
        store.break_down(Outage::Commits);
        counted.release();
        within_a_minute(store.until_commits(before + 1)).await;
        let retry = submit(&engine, call(&flow, "a", "r"), counted.operation());
        let tracked = {
            let (engine, flow) = (engine.clone(), flow.clone());
            tokio::spawn(async move { engine.track(&flow, &key(&flow, "a")).await })
        };
        let other = error(&engine, call(&flow, "a", "another"), counted.operation()).await;
        assert!(matches!(other.kind(), ErrorKind::Mismatch), "{other:?}");
        if refuses {
            let refused = retry.await.unwrap().unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::Duplicate(Status::Registered)), "{refused:?}");
            assert!(store.commits() < before + 5, "while it is being tried");
            assert!(!first.is_finished() && !tracked.is_finished());
            store.heal();
        } else {
            settled(&engine).await;
            assert!(!retry.is_finished() && !tracked.is_finished() && !first.is_finished());
            store.heal();
            assert_eq!(&*heard(retry).await.answer, b"1");
        }
        assert_eq!(heard(first).await.how, How::Executed);
        assert_eq!(&*within_a_minute(tracked).await.unwrap().unwrap().answer, b"1");
        assert_eq!(counted.runs(), 1);
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn a_mismatch_is_refused_also_while_the_answer_is_withheld() {
    let (store, engine) = Faulty::new().open();
    let mut started = Started::new(&engine).await;
    store.break_down(Outage::Everything);
    started.counted.release();
    started.both_are_left_unknowing().await;
    let other = started.asks(&engine, "another").await.unwrap_err();
    assert!(matches!(other.kind(), ErrorKind::Mismatch), "{other:?}");
    is_store_failure(&started.asks(&engine, "r").await.unwrap_err());
    engine.shutdown().await;
}

#[tokio::test]
async fn a_full_disk_runs_nothing_serves_replays_and_is_emptied_by_the_expiry_sweep_although_an_end_waits() {
    let store = Arc::new(FaultyStore::new(Arc::new(ibid::store::MemoryStore::new())));
    let clock = ibid::testing::ManualClock::at(START);
    let engine = Engine::builder().clock(clock.clone()).open_store(store.clone()).unwrap();
    let (short, counted) = (flow_of(Policy::replay(Duration::from_secs(60))), Counted::new());
    for id in 0..300 {
        answer(&engine, call(&short, &format!("old {id}"), "r"), counted.operation()).await;
    }
    let started = Started::replying(&engine, flow_of(replying()), End::done(*b"1")).await;
    clock.advance(Duration::from_secs(60));
    store.break_down(Outage::Full);
    started.counted.release();
    let (flow, late) = (&started.flow, Counted::new());
    let refused = submit(&engine, call(flow, "new", "r"), late.operation());
    assert_eq!(&*heard(started.first).await.answer, b"1");
    is_store_failure(&refused.await.unwrap().unwrap_err());
    assert_eq!(late.runs(), 0, "what cannot be registered does not run");
    replays(&engine, flow, &started.counted).await;
    // One try each removes a whole slice of them, before it tries the end again: the next one is 2 s away.
    let before = store.reopens();
    let is_empty = async {
        while engine.stats().await.unwrap().records.completed > 0 {
            store.until_reopens(store.reopens() + 1).await;
        }
    };
    within_a_minute(is_empty).await;
    assert_eq!(engine.stats().await.unwrap().unsaved, 1, "and it is still full");
    assert!(store.reopens() - before <= 3, "{} tries", store.reopens() - before);
    saved(&store, &engine).await;
    replays(&engine, flow, &started.counted).await;
    engine.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_what_cannot_be_saved() {
    for before in [true, false] {
        let (store, engine) = Faulty::new().open_with(|limits| limits.drain = Duration::from_secs(36_000));
        let mut started = Started::new(&engine).await;
        store.break_down(Outage::Everything);
        started.counted.release();
        if before {
            started.both_are_left_unknowing().await;
        }
        // It gets its tries, if it has not had them, and the last round.
        within_a_minute(engine.shutdown()).await;
    }
}

#[tokio::test]
async fn a_store_without_faults_passes_for_the_one_below() {
    let make = || Arc::new(FaultyStore::new(Arc::new(ibid::store::MemoryStore::new()))) as Arc<dyn ibid::store::Store>;
    tokio::task::spawn_blocking(move || ibid::testing::conformance::suite(make)).await.unwrap();
}

/// What a store is asked by the one who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Removable,
    ExpiredRows,
    Rest,
    ReadBack,
}

/// A store that panics the next time that it is asked this.
#[derive(Default)]
struct Panicking {
    below: MemoryStore,
    next: Mutex<Option<Asked>>,
    /// Told of the panic.
    panicked: tokio::sync::Notify,
}

impl Panicking {
    fn panic_if(&self, asked: Asked) {
        let mut next = self.next.lock().unwrap();
        if *next == Some(asked) {
            *next = None;
            drop(next);
            self.panicked.notify_one();
            std::panic::resume_unwind(Box::new("injected into a store"));
        }
    }
}

impl Layer for Panicking {
    fn below(&self) -> &dyn Store {
        &self.below
    }

    fn removable(&self, now: UnixMillis, tick: u64, limit: usize) -> Result<Vec<(Key, Record)>, StoreError> {
        self.panic_if(Asked::Removable);
        self.below.removable(now, tick, limit)
    }

    fn expired_rows(&self, now: UnixMillis, limit: usize) -> Result<Vec<ExpiredRow>, StoreError> {
        self.panic_if(Asked::ExpiredRows);
        self.below.expired_rows(now, limit)
    }

    fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.panic_if(Asked::ReadBack);
        self.below.get(key)
    }

    fn rest(&self) -> Result<(), StoreError> {
        self.panic_if(Asked::Rest);
        self.below.rest()
    }
}

#[tokio::test]
async fn a_store_that_panics_whatever_it_is_asked_has_failed_and_the_writer_goes_on() {
    for asked in [Asked::Removable, Asked::ExpiredRows, Asked::Rest, Asked::ReadBack] {
        let panicking = Arc::new(Panicking::default());
        let store = Arc::new(FaultyStore::new(panicking.clone()));
        let engine = Engine::builder().clock(ManualClock::at(START)).open_store(store.clone()).unwrap();
        let (flow, (counted, mut starts)) = (flow(), Counted::held());
        let caller = submit(&engine, call(&flow, "a", "r"), counted.operation());
        starts.recv().await.unwrap();
        *panicking.next.lock().unwrap() = Some(asked);
        match asked {
            Asked::Removable | Asked::ExpiredRows => {
                let failed = within_a_minute(engine.expiry_sweep()).await.unwrap_err();
                assert!(matches!(failed.kind(), ErrorKind::Store), "{asked:?}: {failed:?}");
            }
            Asked::Rest => engine.tick().await.unwrap(),
            Asked::ReadBack => store.fail_commits(1, Fault::AfterEffect),
        }
        counted.release();
        assert_eq!(&*heard(caller).await.answer, b"1", "{asked:?}");
        within_a_minute(panicking.panicked.notified()).await;
        replays(&engine, &flow, &counted).await;
        let other = answer(&engine, call(&flow, "b", "r"), counted.operation()).await;
        assert_eq!((&*other.answer, counted.runs()), (b"2".as_slice(), 2), "{asked:?}");
        engine.shutdown().await;
    }
}
