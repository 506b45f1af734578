//! What an operation saves on its way is handed to its re-run.

use crate::support::*;
use ibid::{Class, End, InDoubt, Limits, Operation, Policy, Reason};
use std::time::Duration;

#[tokio::test]
async fn a_re_run_after_a_restart_receives_the_last_checkpoint() {
    let bench = Bench::new();
    let flow = flow_of(Policy::replay(Duration::from_secs(600)).in_doubt(InDoubt::Rerun));
    let engine = bench.open();
    let interrupted = Operation::new(async |attempt| {
        assert_eq!(attempt.last_checkpoint(), None);
        attempt.checkpoint(*b"first", None).await.unwrap();
        attempt.checkpoint(*b"minted", None).await.unwrap();
        End::Unknown(Reason::from_bytes(*b"and then it went dark"))
    });
    assert_eq!(error(&engine, call(&flow, "a", "r"), interrupted).await.class(), Class::Ambiguous);
    engine.shutdown().await;
    let engine = bench.open();
    let rerun = Operation::new(async |attempt| match attempt.last_checkpoint() {
        Some(minted) => End::done(minted.clone()),
        None => End::done(*b"minted a second time"),
    });
    assert_eq!(&*answer(&engine, call(&flow, "a", "r"), rerun).await.answer, b"minted");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_checkpoint_with_an_expiry_shortens_the_record_and_a_late_one_does_not_lengthen_it() {
    let bench = Bench::new();
    let flow = flow_of(Policy::request_invoice());
    let engine = bench.open();
    let operation = |expires_at| {
        Operation::new(async move |attempt| {
            attempt.checkpoint(*b"c", Some(expires_at)).await.unwrap();
            End::done(*b"a")
        })
    };
    let minute = |n: u64| START.saturating_add(Duration::from_secs(60 * n));
    for (id, stated, expected) in [("a", minute(1), minute(1)), ("b", minute(20), minute(10))] {
        let call = call(&flow, id, "r").retention(Duration::from_secs(600));
        answer(&engine, call, operation(stated)).await;
        assert_eq!(engine.lookup(&key(&flow, id)).unwrap().unwrap().expires_at, Some(expected), "{id}");
    }
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_blocking_operation_saves_checkpoints_too_and_one_over_the_limit_saves_nothing() {
    let bench = Bench::new();
    let flow = flow();
    let mut limits = Limits::default();
    limits.answer_bytes = 8;
    let engine = bench.open_with(limits);
    let operation = Operation::blocking(|attempt| {
        attempt.checkpoint_blocking(*b"12345678", None).unwrap();
        let refused = attempt.checkpoint_blocking(*b"123456789", None).unwrap_err();
        assert_eq!(refused.class(), Class::Definitive);
        End::Unknown(Reason::from_bytes(*b"stop here"))
    });
    assert_eq!(error(&engine, call(&flow, "a", "r"), operation).await.reason().unwrap().bytes().as_ref(), b"stop here");
    let record = engine.lookup(&key(&flow, "a")).unwrap().unwrap();
    assert_eq!(record.checkpoint.as_deref(), Some(b"12345678".as_slice()));
    engine.shutdown().await;
}

#[tokio::test]
async fn an_attempt_that_has_ended_can_no_longer_save() {
    let bench = Bench::new();
    let flow = flow();
    let engine = bench.open();
    let (kept, mut attempts) = tokio::sync::mpsc::unbounded_channel();
    let operation = Operation::new(async move |attempt| {
        kept.send(attempt).unwrap();
        End::done(*b"a")
    });
    answer(&engine, call(&flow, "a", "r"), operation).await;
    let late = attempts.recv().await.unwrap().checkpoint(*b"late", None).await.unwrap_err();
    assert_eq!(late.class(), Class::Ambiguous, "{late:?}");
    assert_eq!(engine.lookup(&key(&flow, "a")).unwrap().unwrap().checkpoint, None);
    engine.shutdown().await;
}
