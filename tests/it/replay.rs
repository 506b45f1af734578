//! The same bytes, from memory and from disk.

use crate::support::*;
use ibid::{
    AfterCompleted, Class, End, Ended, ErrorKind, Failure, How, Limits, OnFailure, Outcome, Policy, Reason, Resolved,
    Status,
};
use std::time::Duration;

#[tokio::test]
async fn a_retry_gets_the_first_answer_from_memory_and_from_disk_and_the_operation_ran_once() {
    let bench = Bench::new();
    let (flow, counted) = (flow(), Counted::new());
    let engine = bench.open();
    let first = answer(&engine, call(&flow, "a", "request"), counted.operation()).await;
    let second = answer(&engine, call(&flow, "a", "request"), counted.operation()).await;
    engine.shutdown().await;
    let engine = bench.open();
    let third = answer(&engine, call(&flow, "a", "request"), counted.operation()).await;
    assert_eq!([first.how, second.how, third.how], [How::Executed, How::Replayed, How::Replayed]);
    assert!(first.answer == second.answer && second.answer == third.answer);
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn typed_requests_and_answers_replay_as_the_same_value() {
    let bench = Bench::new();
    let flow = flow();
    let engine = bench.open();
    let key = key(&flow, "order-1");
    for expected in [How::Executed, How::Replayed] {
        let outcome: Outcome<(String, Option<u64>)> =
            engine.run(&flow, &key, &("espresso", 2), async |_| Ok(("receipt".into(), Some(0)))).await.unwrap();
        assert_eq!((outcome.how, outcome.answer), (expected, ("receipt".into(), Some(0))));
    }
    let other = engine.run(&flow, &key, &("espresso", 3), async |_| Ok(0u8)).await.unwrap_err();
    assert!(matches!(other.kind(), ErrorKind::Mismatch), "{other:?}");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_typed_answer_that_is_resolved_replays_and_is_tracked_as_its_value() {
    let bench = Bench::new();
    let (flow, engine) = (flow(), bench.open());
    let key = key(&flow, "order-1");
    let lost: Result<Outcome<String>, _> = engine.run(&flow, &key, &2, async |_| Err(Failure::unknown("lost"))).await;
    assert_eq!(lost.unwrap_err().class(), Class::Ambiguous);
    let end = Ended::answer("receipt").unwrap();
    assert_eq!(engine.resolve(&flow, &key, None, end).await.unwrap(), Resolved::Recorded);
    let replayed: Outcome<String> = engine.run(&flow, &key, &2, async |_| Ok("another".into())).await.unwrap();
    assert_eq!((replayed.how, replayed.answer.as_str()), (How::Replayed, "receipt"));
    let tracked = engine.track(&flow, &key).await.unwrap();
    assert_eq!(tracked.decode::<String>().unwrap().answer, "receipt");
    let other = tracked.decode::<[u64; 2]>().unwrap_err();
    assert!(matches!(other.kind(), ErrorKind::Decode), "{other:?}");
    engine.shutdown().await;
}

#[tokio::test]
async fn an_empty_answer_is_an_answer() {
    let bench = Bench::new();
    let (flow, counted) = (flow(), Counted::new());
    let engine = bench.open();
    for how in [How::Executed, How::Replayed] {
        let outcome = answer(&engine, call(&flow, "a", ""), counted.ending(|_| End::done([]))).await;
        assert_eq!((outcome.how, outcome.answer.len()), (how, 0));
    }
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_failure_without_effect_is_forgotten_and_the_next_request_runs() {
    let bench = Bench::new();
    let (flow, counted) = (flow(), Counted::new());
    let engine = bench.open();
    let no = |_| End::Definitive(Reason::from_bytes(*b"no"));
    let failed = error(&engine, call(&flow, "a", "r"), counted.ending(no)).await;
    assert_eq!((failed.class(), failed.reason().unwrap().bytes().as_ref()), (Class::Definitive, b"no".as_slice()));
    assert_eq!(engine.lookup(&key(&flow, "a")).unwrap(), None);
    assert_eq!(answer(&engine, call(&flow, "a", "r"), counted.operation()).await.how, How::Executed);
    assert_eq!(counted.runs(), 2);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_kept_failure_is_told_again_also_after_a_restart_and_runs_nothing() {
    let bench = Bench::new();
    let flow = flow_of(Policy::replay(Duration::from_secs(600)).on_failure(OnFailure::Keep));
    let counted = Counted::new();
    let mut engine = bench.open();
    for restart in [false, false, true] {
        if restart {
            engine.shutdown().await;
            engine = bench.open();
        }
        let no = |_| End::Definitive(Reason::from_bytes(*b"no"));
        let failed = error(&engine, call(&flow, "a", "r"), counted.ending(no)).await;
        assert_eq!((failed.class(), failed.reason().unwrap().bytes().as_ref()), (Class::Definitive, b"no".as_slice()));
    }
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn the_operations_own_error_comes_back_as_its_type_to_the_run_that_made_it() {
    let bench = Bench::new();
    let flow = flow();
    let engine = bench.open();
    let failed = engine
        .run(&flow, &key(&flow, "a"), "r", async |_| -> Result<u8, Failure> {
            Err(Failure::definitive("no".parse::<u8>().unwrap_err()))
        })
        .await
        .unwrap_err();
    assert!(failed.operation_error::<std::num::ParseIntError>().is_some(), "{failed:?}");
    let unknown = engine.run(&flow, &key(&flow, "b"), "r", async |_| Ok("no".parse::<u8>()?)).await.unwrap_err();
    assert_eq!(unknown.class(), Class::Ambiguous, "an error that nobody classified proves nothing");
    engine.shutdown().await;
}

#[tokio::test]
async fn an_answer_over_the_limit_is_given_once_and_never_made_again() {
    let bench = Bench::new();
    let (flow, counted) = (flow(), Counted::new());
    let mut limits = Limits::default();
    limits.answer_bytes = 4;
    let engine = bench.open_with(limits);
    let long = |_| End::done(*b"12345");
    assert_eq!(&*answer(&engine, call(&flow, "a", "r"), counted.ending(long)).await.answer, b"12345");
    let again = error(&engine, call(&flow, "a", "r"), counted.ending(long)).await;
    assert_eq!((again.class(), counted.runs()), (Class::Duplicate, 1), "{again:?}");
    let exact = |_| End::done(*b"1234");
    for _ in 0..2 {
        assert_eq!(&*answer(&engine, call(&flow, "b", "r"), counted.ending(exact)).await.answer, b"1234");
    }
    assert_eq!(counted.runs(), 2);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_flow_that_refuses_after_completion_says_duplicate() {
    let bench = Bench::new();
    let flow = flow_of(Policy::replay(Duration::from_secs(600)).after_completed(AfterCompleted::Refuse));
    let counted = Counted::new();
    let engine = bench.open();
    answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    let again = error(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert!(matches!(again.kind(), ErrorKind::Duplicate(Status::Completed)), "{again:?}");
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}
