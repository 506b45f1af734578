//! Drain, close the file, open it again.

use crate::support::*;
use ibid::testing::Fault;
use ibid::{Class, End, ErrorKind, How, InDoubt, Limits, Policy};
use std::time::Duration;

#[tokio::test]
async fn shutdown_waits_for_what_runs_and_the_same_process_reopens_at_once_beside_a_stray_handle() {
    let bench = Bench::new();
    let (flow, (counted, mut starts)) = (flow(), Counted::held());
    let engine = bench.open();
    let stray = engine.clone();
    let first = submit(&engine, call(&flow, "a", "r"), counted.operation());
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
    assert_eq!(heard(first).await.how, How::Executed, "what ran was waited for");
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

/// Says so when it is dropped.
struct Gone(Option<tokio::sync::oneshot::Sender<()>>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.take().map(|gone| gone.send(()));
    }
}

#[tokio::test]
async fn a_registration_that_becomes_durable_after_the_abort_starts_nothing() {
    let flow = flow_of(Policy::replay(Duration::from_secs(600)).in_doubt(InDoubt::Rerun));
    let faulty = Faulty::new();
    let (store, engine) = faulty.open_with(|limits| limits.drain = Duration::ZERO);
    let (bystander, mut starts) = Counted::held();
    let (gone, aborted) = tokio::sync::oneshot::channel();
    let gone = Gone(Some(gone));
    let witness = {
        let bystander = bystander.clone();
        ibid::Operation::new(async move |_| {
            let _gone = gone;
            End::done(bystander.pass().await.to_string().into_bytes())
        })
    };
    let other = submit(&engine, call(&flow, "b", "r"), witness);
    starts.recv().await.unwrap();
    let (counted, gate) = (Counted::new(), store.hold_commits());
    let first = submit(&engine, call(&flow, "a", "r"), counted.operation());
    store.until_held().await;
    let closing = {
        let engine = engine.clone();
        tokio::spawn(async move { engine.shutdown().await })
    };
    // The other operation is being aborted, so from now on none may start.
    aborted.await.unwrap();
    drop(gate);
    closing.await.unwrap();
    let heard = first.await.unwrap().unwrap_err();
    assert!(matches!(heard.kind(), ErrorKind::Closed) && heard.class() == Class::Ambiguous, "{heard:?}");
    assert!(other.await.unwrap().is_err());
    assert_eq!(counted.runs(), 0, "it would run beside the next engine's");
    let (_, engine) = faulty.open();
    assert_eq!(answer(&engine, call(&flow, "a", "r"), counted.operation()).await.how, How::Executed);
    assert_eq!((counted.runs(), bystander.runs()), (1, 1));
    engine.shutdown().await;
}

#[tokio::test]
async fn the_drain_does_not_wait_for_those_who_wait_for_an_accepted_operation() {
    let (flow, (counted, mut starts)) = (flow(), Counted::held());
    let (_, engine) = Faulty::new().open_with(|limits| limits.drain = Duration::from_secs(3_600));
    let first = submit(&engine, call(&flow, "a", "r"), counted.ending(|_| End::Accepted));
    starts.recv().await.unwrap();
    let joined = submit(&engine, call(&flow, "a", "r"), counted.operation());
    until(&engine, |stats| stats.in_flight == 2).await;
    settled(&engine).await;
    let closing = {
        let engine = engine.clone();
        tokio::spawn(async move { engine.shutdown().await })
    };
    settled(&engine).await;
    counted.release();
    tokio::time::timeout(Duration::from_secs(60), closing).await.expect("it waits in vain").unwrap();
    assert_eq!(first.await.unwrap().unwrap(), ibid::Reply::Accepted);
    let heard = joined.await.unwrap().unwrap_err();
    assert!(matches!(heard.kind(), ErrorKind::Closed), "{heard:?}");
    assert_eq!(counted.runs(), 1);
}

#[tokio::test]
async fn an_end_that_is_being_saved_at_the_end_of_the_drain_leaves_with_its_commit_whatever_that_says() {
    for fault in [None, Some(Fault::BeforeEffect), Some(Fault::AfterEffect), Some(Fault::Panic)] {
        let (faulty, flow, (counted, mut starts)) = (Faulty::new(), flow(), Counted::held());
        let (store, engine) = faulty.open_with(|limits| limits.drain = Duration::ZERO);
        let first = submit(&engine, call(&flow, "a", "r"), counted.operation());
        starts.recv().await.unwrap();
        let gate = store.hold_commits();
        fault.into_iter().for_each(|fault| store.fail_commits(1, fault));
        counted.release();
        store.until_held().await;
        let mut closing = {
            let engine = engine.clone();
            tokio::spawn(async move { engine.shutdown().await })
        };
        // Longer than what is aborted has time to go.
        let too_early = tokio::time::timeout(Duration::from_millis(1_200), &mut closing).await;
        assert!(too_early.is_err() && !first.is_finished(), "{fault:?}: the commit is not done");
        drop(gate);
        within_a_minute(closing).await.unwrap();
        assert_eq!(&*heard(first).await.answer, b"1", "{fault:?}");
        let (_, engine) = faulty.open();
        let retry = answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
        assert_eq!((retry.how, &*retry.answer, counted.runs()), (How::Replayed, b"1".as_slice(), 1), "{fault:?}");
        engine.shutdown().await;
    }
}
