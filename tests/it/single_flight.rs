//! One run, many waiters.

use crate::support::*;
use ibid::{
    AttemptId, Class, End, Ended, ErrorKind, Fenced, Forgotten, How, Limits, OnFailure, Outcome, Policy, Reason, Reply,
    Resolved, Status, WhileRunning,
};
use std::time::Duration;

#[tokio::test]
async fn a_duplicate_in_flight_joins_and_the_operation_runs_once() {
    let bench = Bench::new();
    let (flow, (counted, mut starts)) = (flow(), Counted::held());
    let engine = bench.open();
    let callers: Vec<_> = (0..10)
        .map(|_| {
            let (engine, call, operation) = (engine.clone(), call(&flow, "a", "r"), counted.operation());
            tokio::spawn(async move { answer(&engine, call, operation).await })
        })
        .collect();
    starts.recv().await.unwrap();
    assert_eq!(engine.stats().await.unwrap().running, 1);
    counted.release();
    let mut outcomes = Vec::new();
    for caller in callers {
        outcomes.push(caller.await.unwrap());
    }
    assert!(outcomes.iter().all(|outcome| outcome.answer == outcomes[0].answer));
    assert_eq!(outcomes.iter().filter(|outcome| outcome.how == How::Executed).count(), 1);
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn whoever_joined_a_run_without_effect_gets_its_reason_byte_for_byte_and_the_next_one_runs() {
    for length in [0, 5, 100] {
        let bench = Bench::new();
        let flow = flow_of(Policy::replay(Duration::from_secs(600)).on_failure(OnFailure::Forget));
        let (counted, mut starts) = Counted::held();
        let mut limits = Limits::default();
        limits.answer_bytes = 10;
        let engine = bench.open_with(limits);
        let reason = vec![0xfe; length];
        let end = End::Definitive(Reason::from_bytes(reason.clone()));
        let mut callers = vec![submit(&engine, call(&flow, "a", "r"), counted.ending(|_| end))];
        starts.recv().await.unwrap();
        callers.extend((0..3).map(|_| submit(&engine, call(&flow, "a", "r"), counted.operation())));
        until(&engine, |stats| stats.in_flight == 4).await;
        settled(&engine).await;
        counted.release();
        for caller in callers {
            let error = caller.await.unwrap().unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Failed(_)) && error.class() == Class::Definitive, "{error:?}");
            assert_eq!(**error.reason().unwrap().bytes(), *reason, "also over the limit of what is kept");
        }
        assert_eq!(answer(&engine, call(&flow, "a", "r"), counted.operation()).await.how, How::Executed);
        assert_eq!(counted.runs(), 2);
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn a_flow_that_refuses_says_duplicate_while_the_first_runs() {
    let bench = Bench::new();
    let flow = flow_of(Policy::replay(Duration::from_secs(600)).while_running(WhileRunning::Refuse));
    let (counted, mut starts) = Counted::held();
    let engine = bench.open();
    let first = submit(&engine, call(&flow, "a", "r"), counted.operation());
    starts.recv().await.unwrap();
    let second = error(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert!(matches!(second.kind(), ErrorKind::Duplicate(Status::Registered)), "{second:?}");
    counted.release();
    assert_eq!(heard(first).await.how, How::Executed);
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_caller_that_leaves_changes_nothing_and_its_retry_gets_the_answer() {
    let bench = Bench::new();
    let (flow, (counted, mut starts)) = (flow(), Counted::held());
    let engine = bench.open();
    let first = submit(&engine, call(&flow, "a", "r"), counted.operation());
    starts.recv().await.unwrap();
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let retry = submit(&engine, call(&flow, "a", "r"), counted.operation());
    counted.release();
    assert_ne!(heard(retry).await.how, How::Executed);
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_thousand_trackers_that_leave_leak_nothing() {
    let bench = Bench::new();
    let (flow, (counted, mut starts)) = (flow(), Counted::held());
    let engine = bench.open();
    let first = submit(&engine, call(&flow, "a", "r"), counted.operation());
    starts.recv().await.unwrap();
    let before = engine.stats().await.unwrap().in_flight;
    for _ in 0..10 {
        let trackers: Vec<_> = (0..100)
            .map(|_| {
                let (engine, flow) = (engine.clone(), flow.clone());
                tokio::spawn(async move { engine.track(&flow, &key(&flow, "a")).await })
            })
            .collect();
        tokio::task::yield_now().await;
        trackers.iter().for_each(tokio::task::JoinHandle::abort);
        for tracker in trackers {
            assert!(tracker.await.unwrap_err().is_cancelled());
        }
    }
    // `stats` goes through the router, behind every message that says that a waiter has left; the second round trip is
    // behind what the router passed on.
    let mut after = engine.stats().await.unwrap().in_flight;
    for _ in 0..100 {
        if after == before {
            break;
        }
        after = engine.stats().await.unwrap().in_flight;
    }
    assert_eq!(after, before);
    counted.release();
    heard(first).await;
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn trackers_before_and_after_the_end_get_the_same_bytes() {
    let bench = Bench::new();
    let (flow, (counted, mut starts)) = (flow(), Counted::held());
    let engine = bench.open();
    let key = key(&flow, "a");
    let absent = engine.track(&flow, &key).await.unwrap_err();
    assert!(matches!(absent.kind(), ErrorKind::NotFound) && absent.class() == Class::Ambiguous, "{absent:?}");
    let first = submit(&engine, call(&flow, "a", "r"), counted.operation());
    starts.recv().await.unwrap();
    let tracker = {
        let (engine, flow, key) = (engine.clone(), flow.clone(), key.clone());
        tokio::spawn(async move { engine.track(&flow, &key).await.unwrap() })
    };
    counted.release();
    let first: Outcome = heard(first).await;
    assert_eq!(tracker.await.unwrap().answer, first.answer);
    assert_eq!(engine.track(&flow, &key).await.unwrap().answer, first.answer);
    engine.shutdown().await;
}

#[tokio::test]
async fn an_accepted_operation_ends_by_resolve_and_holds_no_permit_until_then() {
    let bench = Bench::new();
    let (flow, counted) = (flow(), Counted::new());
    let engine = bench.open();
    let key = key(&flow, "a");
    let accepted = engine.submit(call(&flow, "a", "r"), counted.ending(|_| End::Accepted)).await.unwrap();
    assert_eq!(accepted, Reply::Accepted);
    let stats = engine.stats().await.unwrap();
    assert_eq!((stats.in_flight, stats.running, stats.records.dispatched), (0, 0, 1));
    let stays = engine.forget(&flow, std::slice::from_ref(&key)).await.unwrap();
    assert_eq!(stays[0].1, Forgotten::InFlight(Status::Dispatched));
    assert_eq!(engine.fence(&flow, &key).await.unwrap(), Fenced::Found(Status::Dispatched));

    let end = Ended::Completed((*b"preimage").into());
    let own = engine.lookup(&key).unwrap().unwrap().attempt;
    let other = AttemptId { number: 2, ..own };
    assert_eq!(engine.resolve(&flow, &key, Some(other), end.clone()).await.unwrap(), Resolved::FencedOff);
    assert_eq!(engine.resolve(&flow, &key, Some(own), end.clone()).await.unwrap(), Resolved::Recorded);
    assert_eq!(engine.resolve(&flow, &key, None, end).await.unwrap(), Resolved::Already);
    let other = Ended::Failed((*b"late").into());
    assert_eq!(engine.resolve(&flow, &key, None, other).await.unwrap(), Resolved::Contradicts(Status::Completed));
    assert_eq!(&*engine.track(&flow, &key).await.unwrap().answer, b"preimage");
    let record = engine.lookup(&key).unwrap().unwrap();
    assert_eq!(record.contradiction.as_deref(), Some(b"late".as_slice()), "somebody must be able to see it");
    assert!(engine.stats().await.unwrap().alarms > 0);
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_fenced_key_never_runs_not_even_after_a_restart() {
    let bench = Bench::new();
    let (flow, counted) = (flow(), Counted::new());
    let engine = bench.open();
    let key = key(&flow, "a");
    assert_eq!(engine.fence(&flow, &key).await.unwrap(), Fenced::Fenced);
    assert_eq!(engine.fence(&flow, &key).await.unwrap(), Fenced::Fenced);
    engine.shutdown().await;
    let engine = bench.open();
    let late = error(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert!(matches!(late.kind(), ErrorKind::Fenced) && late.class() == Class::Definitive, "{late:?}");
    assert_eq!(counted.runs(), 0);
    engine.shutdown().await;
}

#[tokio::test]
async fn forget_names_each_distinct_key_once_and_frees_it() {
    let bench = Bench::new();
    let (flow, counted) = (flow(), Counted::new());
    let engine = bench.open();
    answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    let (a, b) = (key(&flow, "a"), key(&flow, "b"));
    let forgotten = engine.forget(&flow, &[b.clone(), a.clone(), a.clone()]).await.unwrap();
    assert_eq!(forgotten, [(b, Forgotten::NotFound), (a, Forgotten::Forgotten)]);
    assert_eq!(engine.forget(&flow, &[]).await.unwrap(), []);
    assert_eq!(answer(&engine, call(&flow, "a", "other"), counted.operation()).await.how, How::Executed);
    assert_eq!(counted.runs(), 2);
    engine.shutdown().await;
}

#[tokio::test]
async fn whoever_leaves_while_a_commit_is_under_way_leaves_nothing_behind() {
    let (flow, counted) = (flow(), Counted::new());
    let (store, engine) = Faulty::new().open();
    let gate = store.hold_commits();
    let first = submit(&engine, call(&flow, "a", "r"), counted.ending(|_| End::Accepted));
    store.until_held().await;
    let trackers: Vec<_> = (0..10)
        .map(|_| {
            let (engine, flow) = (engine.clone(), flow.clone());
            tokio::spawn(async move { engine.track(&flow, &key(&flow, "a")).await })
        })
        .collect();
    let joined: Vec<_> = (0..10).map(|_| submit(&engine, call(&flow, "a", "r"), counted.operation())).collect();
    until(&engine, |stats| stats.in_flight == 21).await;
    trackers.iter().for_each(tokio::task::JoinHandle::abort);
    // Whoever only waits is gone at once; a request has been submitted and stays until it is looked at.
    until(&engine, |stats| stats.in_flight == 11).await;
    joined.iter().for_each(tokio::task::JoinHandle::abort);
    settled(&engine).await;
    drop(gate);
    assert_eq!(first.await.unwrap().unwrap(), Reply::Accepted);
    let stats = until(&engine, |stats| (stats.live_actors, stats.running, stats.in_flight) == (0, 0, 0)).await;
    assert_eq!((stats.records.dispatched, counted.runs()), (1, 1));
    engine.shutdown().await;
}

#[tokio::test]
async fn a_caller_with_a_deadline_that_leaves_before_it_gives_up_permit_and_place() {
    let (flow, (counted, mut starts)) = (flow(), Counted::held());
    let (_, engine) = Faulty::new().open_with(|limits| limits.waiters_per_key = 2);
    let first = submit(&engine, call(&flow, "a", "r"), counted.operation());
    starts.recv().await.unwrap();
    for _ in 0..20 {
        let patient = call(&flow, "a", "r").deadline(Duration::from_secs(3_600));
        let joined = submit(&engine, patient, counted.operation());
        until(&engine, |stats| stats.in_flight == 2).await;
        settled(&engine).await;
        assert!(!joined.is_finished(), "there was a place for it");
        joined.abort();
        until(&engine, |stats| stats.in_flight == 1).await;
    }
    counted.release();
    assert_eq!(heard(first).await.how, How::Executed);
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_record_resolved_while_its_operation_runs_is_neither_forgotten_nor_run_beside_it() {
    let bench = Bench::new();
    let (flow, (counted, mut starts)) = (flow(), Counted::held());
    let engine = bench.open();
    let key = key(&flow, "a");
    let first = submit(&engine, call(&flow, "a", "r"), counted.operation());
    starts.recv().await.unwrap();
    let end = Ended::Failed((*b"timeout").into());
    assert_eq!(engine.resolve(&flow, &key, None, end).await.unwrap(), Resolved::Recorded);
    assert_eq!(first.await.unwrap().unwrap_err().class(), Class::Duplicate);
    let stays = engine.forget(&flow, std::slice::from_ref(&key)).await.unwrap();
    assert_eq!(stays[0].1, Forgotten::Live);
    assert_eq!(engine.fence(&flow, &key).await.unwrap(), Fenced::Found(Status::Failed));
    assert_eq!(error(&engine, call(&flow, "a", "r"), counted.operation()).await.class(), Class::Duplicate);
    // Its time is no way around it either.
    bench.clock.advance(Duration::from_secs(1_000_000));
    assert_eq!(engine.expiry_sweep().await.unwrap(), 1);
    assert!(engine.lookup(&key).unwrap().is_none());
    assert_eq!(engine.fence(&flow, &key).await.unwrap(), Fenced::Found(Status::Registered), "no proof of anything");
    let retry = error(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert!(matches!(retry.kind(), ErrorKind::InDoubt(_)), "{retry:?}");
    assert_eq!(counted.runs(), 1, "one operation at a time");
    counted.release();
    until(&engine, |stats| (stats.live_actors, stats.running) == (0, 0)).await;
    assert!(engine.stats().await.unwrap().alarms > 0, "an end came for a record that is gone");
    assert_eq!(answer(&engine, call(&flow, "a", "r"), counted.operation()).await.how, How::Executed);
    assert_eq!(counted.runs(), 2);
    engine.shutdown().await;
}
