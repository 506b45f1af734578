//! In doubt: by policy, and by nothing else.

use crate::support::*;
use ibid::store::{RedbOptions, RedbStore, StoreError};
use ibid::{Class, End, Engine, ErrorKind, Flow, How, InDoubt, Limits, Operation, Policy, Reason, Status};
use std::sync::Arc;
use std::time::Duration;

fn flow_in_doubt(in_doubt: InDoubt) -> Flow {
    flow_of(Policy::replay(Duration::from_secs(600)).in_doubt(in_doubt))
}

/// Leaves a registered record behind whose operation never ended: the engine goes away under it.
async fn interrupt(bench: &Bench, flow: &Flow) -> Counted {
    let (counted, mut starts) = Counted::held();
    let mut limits = Limits::default();
    limits.drain = Duration::ZERO;
    let engine = bench.open_with(limits);
    let caller = {
        let (engine, call, operation) = (engine.clone(), call(flow, "a", "r"), counted.operation());
        tokio::spawn(async move { error(&engine, call, operation).await })
    };
    starts.recv().await.unwrap();
    engine.shutdown().await;
    assert_eq!(caller.await.unwrap().class(), Class::Ambiguous);
    counted
}

async fn in_doubt(engine: &Engine) -> u64 {
    engine.stats().await.unwrap().records.in_doubt
}

#[tokio::test]
async fn ambiguous_says_so_on_every_retry_and_runs_nothing() {
    let (bench, flow) = (Bench::new(), flow_in_doubt(InDoubt::Ambiguous));
    let counted = interrupt(&bench, &flow).await;
    let engine = bench.open();
    assert_eq!(in_doubt(&engine).await, 1);
    for _ in 0..3 {
        let retry = error(&engine, call(&flow, "a", "r"), counted.operation()).await;
        assert!(matches!(retry.kind(), ErrorKind::InDoubt(_)) && retry.class() == Class::Ambiguous, "{retry:?}");
    }
    let other = error(&engine, call(&flow, "a", "other"), counted.operation()).await;
    assert!(matches!(other.kind(), ErrorKind::Mismatch), "{other:?}");
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn ask_says_duplicate_in_doubt_until_somebody_resolves_it() {
    let (bench, flow) = (Bench::new(), flow_in_doubt(InDoubt::Ask));
    let counted = interrupt(&bench, &flow).await;
    let engine = bench.open();
    let retry = error(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert!(matches!(retry.kind(), ErrorKind::Duplicate(Status::InDoubt)), "{retry:?}");
    engine.resolve(&flow, &key(&flow, "a"), None, ibid::Ended::Completed((*b"found").into())).await.unwrap();
    assert_eq!(&*answer(&engine, call(&flow, "a", "r"), counted.operation()).await.answer, b"found");
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn rerun_runs_it_again_with_the_same_token_and_the_next_attempt_number() {
    let (bench, flow) = (Bench::new(), flow_in_doubt(InDoubt::Rerun));
    interrupt(&bench, &flow).await;
    let engine = bench.open();
    let before = engine.lookup(&key(&flow, "a")).unwrap().unwrap();
    let operation =
        Operation::new(async |attempt| End::done([&attempt.token().0[..], &[attempt.number() as u8]].concat()));
    let rerun = answer(&engine, call(&flow, "a", "r"), operation).await;
    assert_eq!(rerun.how, How::Executed);
    assert_eq!(&*rerun.answer, [&before.attempt.token.0[..], &[2]].concat());
    engine.shutdown().await;
}

#[tokio::test]
async fn a_panic_is_ambiguous_to_all_who_wait_and_the_key_stays_usable() {
    let (bench, flow) = (Bench::new(), flow_in_doubt(InDoubt::Rerun));
    let (counted, mut starts) = Counted::held();
    let engine = bench.open();
    let panics = |_| std::panic::resume_unwind(Box::new("injected"));
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let (engine, call, operation) = (engine.clone(), call(&flow, "a", "r"), counted.ending(panics));
            tokio::spawn(async move { error(&engine, call, operation).await })
        })
        .collect();
    starts.recv().await.unwrap();
    counted.release();
    for caller in callers {
        let heard = caller.await.unwrap();
        assert!(matches!(heard.kind(), ErrorKind::InDoubt(_)), "{heard:?}");
    }
    assert_eq!(in_doubt(&engine).await, 1);
    assert_eq!(answer(&engine, call(&flow, "a", "r"), counted.operation()).await.how, How::Executed);
    assert_eq!(counted.runs(), 2);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_panic_while_the_future_is_made_is_a_panic_of_the_operation() {
    let (bench, flow) = (Bench::new(), flow_in_doubt(InDoubt::Ambiguous));
    let engine = bench.open();
    let operation = Operation::new(|_| -> std::future::Ready<End> { std::panic::resume_unwind(Box::new("injected")) });
    let heard = error(&engine, call(&flow, "a", "r"), operation).await;
    assert!(matches!(heard.kind(), ErrorKind::InDoubt(_)), "{heard:?}");
    engine.shutdown().await;
}

#[tokio::test]
async fn re_runs_that_end_unknown_are_counted_and_the_fifth_is_the_last() {
    let (bench, flow) = (Bench::new(), flow_in_doubt(InDoubt::Rerun));
    let counted = Counted::new();
    let engine = bench.open();
    let unknown = |_| End::Unknown(Reason::from_bytes(*b"who knows"));
    for run in 1..=6 {
        let heard = error(&engine, call(&flow, "a", "r"), counted.ending(unknown)).await;
        assert_eq!(heard.reason().unwrap().bytes().as_ref(), b"who knows", "run {run}");
    }
    let exhausted = error(&engine, call(&flow, "a", "r"), counted.ending(unknown)).await;
    assert!(matches!(exhausted.kind(), ErrorKind::RecoveriesExhausted), "{exhausted:?}");
    assert_eq!(counted.runs(), 6);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_barred_call_replays_a_record_and_starts_nothing() {
    let (bench, flow) = (Bench::new(), flow_in_doubt(InDoubt::Rerun));
    let counted = Counted::new();
    let engine = bench.open();
    let barred = |id| call(&flow, id, "r").barred(Reason::from_bytes(*b"not now"));
    let heard = error(&engine, barred("a"), counted.operation()).await;
    assert_eq!((heard.class(), heard.reason().unwrap().bytes().as_ref()), (Class::Definitive, b"not now".as_slice()));
    assert_eq!(engine.lookup(&key(&flow, "a")).unwrap(), None);
    answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert_eq!(answer(&engine, barred("a"), counted.operation()).await.how, How::Replayed);

    let unknown = |_| End::Unknown(Reason::from_bytes(*b"who knows"));
    error(&engine, call(&flow, "b", "r"), counted.ending(unknown)).await;
    let before = engine.lookup(&key(&flow, "b")).unwrap();
    let heard = error(&engine, barred("b"), counted.operation()).await;
    assert_eq!(heard.class(), Class::Ambiguous, "in doubt stays in doubt: {heard:?}");
    assert_eq!(engine.lookup(&key(&flow, "b")).unwrap(), before);
    assert_eq!(counted.runs(), 2);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_store_restored_from_a_backup_is_refused_by_who_remembers_its_generation() {
    let bench = Bench::new();
    let (flow, counted) = (flow(), Counted::new());
    let backup = bench.path().with_extension("backup");
    let engine = bench.open();
    answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    let earlier = engine.generation().unwrap();
    engine.shutdown().await;
    std::fs::copy(bench.path(), &backup).unwrap();

    let engine = bench.open();
    answer(&engine, call(&flow, "b", "r"), counted.operation()).await;
    let known = engine.generation().unwrap();
    assert!(known > earlier);
    engine.shutdown().await;
    let demanding = || Engine::builder().clock(bench.clock.clone()).at_least_generation(known);
    demanding().open(bench.path()).unwrap().shutdown().await;

    std::fs::copy(&backup, bench.path()).unwrap();
    let refused = demanding().open(bench.path());
    let is_stale = |error: &StoreError| matches!(error, StoreError::Stale { found, expected } if (*found, *expected) == (earlier, known));
    assert!(refused.as_ref().is_err_and(is_stale), "{refused:?}");
    // It was left alone, and without the demand it would run "b" again.
    let engine = bench.open();
    assert_eq!(engine.generation().unwrap(), earlier);
    engine.shutdown().await;

    std::fs::remove_file(bench.path()).unwrap();
    assert!(matches!(demanding().open(bench.path()), Err(StoreError::Stale { found: 0, .. })));
    assert!(!bench.path().exists(), "nothing was made in its place");
    assert_eq!(counted.runs(), 2);
}

#[tokio::test]
async fn a_record_damaged_beside_a_running_engine_is_quarantined_and_never_runs_again() {
    let bench = Bench::new();
    let (flow, counted) = (flow(), Counted::new());
    let open = || {
        let store = Arc::new(RedbStore::open(bench.path(), RedbOptions::default()).unwrap());
        (store.clone(), Engine::builder().clock(bench.clock.clone()).open_store(store).unwrap())
    };
    let (store, engine) = open();
    for id in ["a", "b"] {
        answer(&engine, call(&flow, id, "r"), counted.operation()).await;
    }
    assert!(store.damage(&key(&flow, "a")).unwrap() && !store.damage(&key(&flow, "c")).unwrap());
    drop(store);
    let (mut engine, mut runs) = (engine, 2);
    for id in ["c", "d"] {
        let told = error(&engine, call(&flow, "a", "r"), counted.operation()).await;
        assert!(matches!(told.kind(), ErrorKind::Quarantined), "{told:?}");
        assert_eq!(answer(&engine, call(&flow, "b", "r"), counted.operation()).await.how, How::Replayed);
        answer(&engine, call(&flow, id, "r"), counted.operation()).await;
        runs += 1;
        assert_eq!(counted.runs(), runs);
        engine.shutdown().await;
        engine = open().1;
    }
    engine.shutdown().await;
}
