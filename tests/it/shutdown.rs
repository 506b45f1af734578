//! Drain, close the file, open it again.

use crate::support::*;
use ibid::{Class, ErrorKind, How, InDoubt, Limits, Policy};
use std::time::Duration;

#[tokio::test]
async fn shutdown_waits_for_what_runs_and_the_same_process_reopens_at_once_beside_a_stray_handle() {
    let bench = Bench::new();
    let (flow, (counted, mut starts)) = (flow(), Counted::held());
    let engine = bench.open();
    let stray = engine.clone();
    let first = {
        let (engine, call, operation) = (engine.clone(), call(&flow, "a", "r"), counted.operation());
        tokio::spawn(async move { answer(&engine, call, operation).await })
    };
    starts.recv().await.unwrap();
    let closing = tokio::spawn(async move { engine.shutdown().await });
    // Whatever comes while the engine closes is turned away.
    let refused = loop {
        match stray.submit(call(&flow, "b", "r"), Counted::new().operation()).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused.kind(), ErrorKind::Closed) && refused.class() == Class::Ambiguous, "{refused:?}");
    counted.release();
    assert_eq!(first.await.unwrap().how, How::Executed, "what ran was waited for");
    closing.await.unwrap();
    let engine = bench.open();
    assert_eq!(answer(&engine, call(&flow, "a", "r"), counted.operation()).await.how, How::Replayed);
    let closed = error(&stray, call(&flow, "a", "r"), counted.operation()).await;
    assert!(matches!(closed.kind(), ErrorKind::Closed), "{closed:?}");
    assert!(stray.stats().await.is_err() && stray.expiry_sweep().await.is_err());
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
    stray.shutdown().await;
}

#[tokio::test]
async fn what_still_runs_at_the_end_of_the_drain_is_aborted_and_in_doubt() {
    let bench = Bench::new();
    let flow = flow_of(Policy::replay(Duration::from_secs(600)).in_doubt(InDoubt::Rerun));
    let (counted, mut starts) = Counted::held();
    let mut limits = Limits::default();
    limits.drain = Duration::ZERO;
    let engine = bench.open_with(limits);
    let first = {
        let (engine, call, operation) = (engine.clone(), call(&flow, "a", "r"), counted.operation());
        tokio::spawn(async move { error(&engine, call, operation).await })
    };
    starts.recv().await.unwrap();
    engine.shutdown().await;
    assert_eq!(first.await.unwrap().class(), Class::Ambiguous);
    counted.release();
    let engine = bench.open();
    assert_eq!(engine.stats().await.unwrap().records.in_doubt, 1);
    assert_eq!(answer(&engine, call(&flow, "a", "r"), counted.operation()).await.how, How::Executed);
    assert_eq!(counted.runs(), 2);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_hundred_rounds_of_open_use_and_shutdown_in_one_process() {
    let bench = Bench::new();
    let (flow, counted) = (flow(), Counted::new());
    for round in 0..100 {
        let engine = bench.open();
        let how = answer(&engine, call(&flow, "a", "r"), counted.operation()).await.how;
        assert_eq!(how, if round == 0 { How::Executed } else { How::Replayed });
        answer(&engine, call(&flow, &round.to_string(), "r"), Counted::new().operation()).await;
        engine.shutdown().await;
    }
    assert_eq!(counted.runs(), 1);
}

#[tokio::test]
async fn a_second_opener_is_told_so() {
    let bench = Bench::new();
    let engine = bench.open();
    let second = ibid::Engine::open(bench.path()).unwrap_err();
    assert!(matches!(second, ibid::store::StoreError::AlreadyOpen), "{second:?}");
    engine.shutdown().await;
}
