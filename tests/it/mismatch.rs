//! Another request under the same key is refused and never runs.

use crate::support::*;
use ibid::{Class, Engine, ErrorKind, InvalidKey};

async fn refused(engine: &Engine, call: ibid::Call, counted: &Counted) {
    let refused = error(engine, call, counted.operation()).await;
    assert!(matches!(refused.kind(), ErrorKind::Mismatch) && refused.class() == Class::Conflict, "{refused:?}");
}

#[tokio::test]
async fn another_request_is_refused_while_the_first_runs_after_it_and_after_a_restart() {
    let bench = Bench::new();
    let (flow, (counted, mut starts)) = (flow(), Counted::held());
    let engine = bench.open();
    let first = submit(&engine, call(&flow, "a", "r"), counted.operation());
    starts.recv().await.unwrap();
    refused(&engine, call(&flow, "a", "other"), &counted).await;
    counted.release();
    heard(first).await;
    refused(&engine, call(&flow, "a", "other"), &counted).await;
    engine.shutdown().await;
    let engine = bench.open();
    refused(&engine, call(&flow, "a", "other"), &counted).await;
    answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn keys_that_differ_in_any_part_never_meet() {
    let bench = Bench::new();
    let (flow, counted) = (flow(), Counted::new());
    let engine = bench.open();
    for (scope, id) in [("ab", "c"), ("a", "bc"), ("abc", "c"), ("a", "b")] {
        let key = flow.key(scope, id).unwrap();
        answer(&engine, ibid::Call::new(&flow, &key, id.as_bytes()), counted.operation()).await;
    }
    assert_eq!(counted.runs(), 4);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_key_of_another_flow_is_refused_before_anything_happens() {
    let bench = Bench::new();
    let (flow, counted) = (flow(), Counted::new());
    let other = ibid::Flow::new("other", flow.policy().clone()).unwrap();
    let engine = bench.open();
    let mixed = ibid::Call::new(&flow, &key(&other, "a"), *b"r");
    let refused = error(&engine, mixed, counted.operation()).await;
    assert!(matches!(refused.kind(), ErrorKind::InvalidKey(InvalidKey::OtherFlow)), "{refused:?}");
    assert_eq!(counted.runs(), 0);
    engine.shutdown().await;
}
