//! A clock that steps back revives nothing.

use crate::support::*;
use ibid::{AfterExpiry, ErrorKind, How, Policy};
use std::time::Duration;

const TEN_MINUTES: Duration = Duration::from_secs(600);

#[tokio::test]
async fn what_an_expiry_sweep_has_seen_expired_stays_expired_after_a_step_back_and_a_restart() {
    let (bench, counted) = (Bench::new(), Counted::new());
    let flow =
        flow_of(Policy::replay(TEN_MINUTES).after_expiry(AfterExpiry::RefuseOnce).grace(Duration::from_secs(120)));
    let engine = bench.open();
    answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    bench.clock.advance(TEN_MINUTES);
    assert_eq!(engine.expiry_sweep().await.unwrap(), 0);
    engine.shutdown().await;
    bench.clock.set(START);
    let engine = bench.open();
    let heard = error(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert!(matches!(heard.kind(), ErrorKind::Expired), "{heard:?}");
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_refusal_because_of_expiry_is_not_taken_back_by_a_step_back_and_a_restart() {
    let (bench, counted) = (Bench::new(), Counted::new());
    let flow = flow_of(Policy::replay(TEN_MINUTES).after_expiry(AfterExpiry::Refuse).grace(Duration::from_secs(120)));
    let engine = bench.open();
    answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    bench.clock.advance(TEN_MINUTES);
    error(&engine, call(&flow, "a", "r"), counted.operation()).await;
    engine.shutdown().await;
    bench.clock.set(START);
    let engine = bench.open();
    let heard = error(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert!(matches!(heard.kind(), ErrorKind::Expired), "{heard:?}");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_step_back_within_a_process_changes_no_answer() {
    let (bench, counted, flow) = (Bench::new(), Counted::new(), flow());
    let engine = bench.open();
    answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    bench.clock.set(ibid::UnixMillis(0));
    assert_eq!(answer(&engine, call(&flow, "a", "r"), counted.operation()).await.how, How::Replayed);
    assert_eq!(engine.now(), START);
    engine.shutdown().await;
}
