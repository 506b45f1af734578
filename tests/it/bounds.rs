//! Beyond a bound: a typed refusal at once, and nothing registered.

use crate::support::*;
use ibid::{
    Bound, Call, Class, End, Ended, Engine, ErrorKind, Fenced, Flow, Forgotten, How, InDoubt, InvalidRow, Limits,
    Operation, PAYLOAD_BYTES_CEILING, Policy, Reason, Reply, Resolved, Row, Status, WhileRunning,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn limits(set: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    set(&mut limits);
    limits
}

#[tokio::test]
async fn when_admission_is_full_a_request_is_busy_at_once_and_its_callback_never_runs() {
    let bench = Bench::new();
    let (flow, (counted, mut starts)) = (flow(), Counted::held());
    let engine = bench.open_with(limits(|limits| limits.in_flight = 1));
    let first = submit(&engine, call(&flow, "a", "r"), counted.operation());
    starts.recv().await.unwrap();
    let called = Arc::new(AtomicUsize::new(0));
    for n in 0..1_000 {
        let called = Arc::clone(&called);
        let refused = engine
            .try_submit(call(&flow, &n.to_string(), "r"), counted.operation(), move |_| {
                called.fetch_add(1, Ordering::SeqCst);
            })
            .unwrap_err();
        assert!(
            matches!(refused.kind(), ErrorKind::Busy { bound: Bound::Engine, found_absent: false })
                && refused.class() == Class::Ambiguous,
            "{refused:?}"
        );
    }
    counted.release();
    heard(first).await;
    let stats = engine.stats().await.unwrap();
    assert_eq!((stats.records.registered, stats.records.completed, stats.in_flight), (0, 1, 0));
    engine.shutdown().await;
    assert_eq!((counted.runs(), called.load(Ordering::SeqCst)), (1, 0));
}

#[tokio::test]
async fn a_full_scope_leaves_the_others_alone() {
    let bench = Bench::new();
    let (flow, (counted, mut starts)) = (flow(), Counted::held());
    let engine = bench.open_with(limits(|limits| limits.in_flight_per_scope = 1));
    let first = submit(&engine, call(&flow, "a", "r"), counted.operation());
    starts.recv().await.unwrap();
    let busy = error(&engine, call(&flow, "b", "r"), counted.operation()).await;
    assert!(matches!(busy.kind(), ErrorKind::Busy { bound: Bound::Scope, found_absent: true }), "{busy:?}");
    counted.release();
    let elsewhere = ibid::Call::new(&flow, &flow.key("elsewhere", "b").unwrap(), *b"r");
    answer(&engine, elsewhere, counted.operation()).await;
    heard(first).await;
    assert_eq!(counted.runs(), 2);
    engine.shutdown().await;
}

/// What is full, and what it must answer.
fn full(bound: Bound) -> (Limits, Flow, Flow) {
    let limits = limits(|limits| match bound {
        Bound::Engine => limits.in_flight = 1,
        _ => limits.in_flight_per_scope = 1,
    });
    let refusing = Policy::replay(Duration::from_secs(600)).while_running(WhileRunning::Refuse);
    (limits, flow_of(refusing), flow())
}

#[tokio::test]
async fn without_room_a_retry_is_a_duplicate_or_joins_another_request_a_mismatch_and_a_new_key_surely_absent() {
    for bound in [Bound::Engine, Bound::Scope] {
        let bench = Bench::new();
        let (limits, refusing, joining) = full(bound);
        let (counted, mut starts) = Counted::held();
        let engine = bench.open_with(limits);
        let first = submit(&engine, call(&refusing, "a", "r"), counted.operation());
        starts.recv().await.unwrap();
        let told = async |flow: &Flow, id, request| error(&engine, call(flow, id, request), counted.operation()).await;
        let duplicate = told(&refusing, "a", "r").await;
        assert!(matches!(duplicate.kind(), ErrorKind::Duplicate(Status::Registered)), "{duplicate:?}");
        let other = told(&refusing, "a", "other").await;
        assert!(matches!(other.kind(), ErrorKind::Mismatch), "{other:?}");
        let new = told(&refusing, "b", "r").await;
        let is_right = matches!(new.kind(), ErrorKind::Busy { bound: met, found_absent: true } if *met == bound);
        assert!(is_right && new.class() == Class::Definitive, "{new:?}");
        let joiners: Vec<_> = (0..9).map(|_| submit(&engine, call(&joining, "a", "r"), counted.operation())).collect();
        settled(&engine).await;
        counted.release();
        heard(first).await;
        for joiner in joiners {
            assert_eq!(heard(joiner).await.how, How::Joined, "who waits for what runs needs no room to run in");
        }
        let late = answer(&engine, call(&refusing, "b", "r"), counted.operation()).await;
        assert_eq!((late.how, counted.runs()), (How::Executed, 2));
        let stats = engine.stats().await.unwrap();
        assert_eq!((stats.in_flight, stats.live_actors), (0, 0));
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn without_room_a_key_whose_registration_is_on_its_way_is_not_taken_for_absent() {
    let faulty = Faulty::new();
    let (store, engine) = faulty.open_with(|limits| limits.in_flight = 1);
    let (flow, counted) = (flow(), Counted::new());
    let gate = store.hold_commits();
    let first = submit(&engine, call(&flow, "a", "r"), counted.operation());
    store.until_held().await;
    let again = submit(&engine, call(&flow, "a", "r"), counted.operation());
    let other = submit(&engine, call(&flow, "a", "other"), counted.operation());
    settled(&engine).await;
    drop(gate);
    heard(first).await;
    for (retry, is_other) in [(again, false), (other, true)] {
        match retry.await.unwrap() {
            Ok(Reply::Answer(_)) => assert!(!is_other),
            Err(error) if is_other => assert!(matches!(error.kind(), ErrorKind::Mismatch), "{error:?}"),
            told => assert!(matches!(&told, Err(error) if error.class() == Class::Ambiguous), "{told:?}"),
        }
    }
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn without_room_a_record_in_doubt_is_told_as_such_and_not_run_again() {
    let faulty = Faulty::new();
    let (_, engine) = faulty.open_with(|limits| limits.in_flight = 1);
    let counted = Counted::new();
    let unknown = || counted.ending(|_| End::Unknown(Reason::from_bytes(*b"?")));
    let policy = |in_doubt| Policy::replay(Duration::from_secs(600)).in_doubt(in_doubt);
    let ambiguous = flow_of(policy(InDoubt::Ambiguous));
    error(&engine, call(&ambiguous, "a", "r"), unknown()).await;
    let (held, mut starts) = Counted::held();
    let running = submit(&engine, call(&ambiguous, "b", "r"), held.operation());
    starts.recv().await.unwrap();
    let told = error(&engine, call(&ambiguous, "a", "r"), counted.operation()).await;
    assert!(matches!(told.kind(), ErrorKind::InDoubt(None)), "{told:?}");
    let told = error(&engine, call(&flow_of(policy(InDoubt::Ask)), "a", "r"), counted.operation()).await;
    assert!(matches!(told.kind(), ErrorKind::Duplicate(Status::InDoubt)), "{told:?}");
    let told = error(&engine, call(&flow_of(policy(InDoubt::Rerun)), "a", "r"), counted.operation()).await;
    assert!(matches!(told.kind(), ErrorKind::Busy { bound: Bound::Engine, found_absent: false }), "{told:?}");
    let told = error(&engine, call(&flow_of(policy(InDoubt::Rerun)), "a", "other"), counted.operation()).await;
    assert!(matches!(told.kind(), ErrorKind::Mismatch), "{told:?}");
    assert_eq!(counted.runs(), 1);
    held.release();
    heard(running).await;
    engine.shutdown().await;
}

#[tokio::test]
async fn without_room_the_joiners_of_a_scope_are_bounded_over_all_of_its_keys() {
    let bench = Bench::new();
    let (flow, (counted, mut starts)) = (flow(), Counted::held());
    let engine = bench.open_with(limits(|limits| (limits.in_flight_per_scope, limits.waiters_per_key) = (2, 3)));
    let mut all = Vec::new();
    for id in ["a", "b"] {
        all.push(submit(&engine, call(&flow, id, "r"), counted.operation()));
        starts.recv().await.unwrap();
    }
    all.extend(["a", "b", "a"].map(|id| submit(&engine, call(&flow, id, "r"), counted.operation())));
    settled(&engine).await;
    let refused = error(&engine, call(&flow, "b", "r"), counted.operation()).await;
    assert!(matches!(refused.kind(), ErrorKind::Busy { bound: Bound::Waiters, found_absent: false }), "{refused:?}");
    counted.release();
    for caller in all {
        heard(caller).await;
    }
    assert_eq!(counted.runs(), 2);
    engine.shutdown().await;
}

#[tokio::test]
async fn one_waiter_too_many_is_busy_and_the_others_get_their_answer() {
    let bench = Bench::new();
    let (flow, (counted, mut starts)) = (flow(), Counted::held());
    let engine = bench.open_with(limits(|limits| limits.waiters_per_key = 3));
    let submit = || {
        let (engine, call, operation) = (engine.clone(), call(&flow, "a", "r"), counted.operation());
        tokio::spawn(async move { engine.submit(call, operation).await })
    };
    let first = submit();
    starts.recv().await.unwrap();
    let joined = [submit(), submit()];
    // On this runtime of one thread both have asked by the time the test goes on.
    tokio::task::yield_now().await;
    let heard = error(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert!(
        matches!(heard.kind(), ErrorKind::Busy { bound: Bound::Waiters, found_absent: false })
            && heard.class() == Class::Ambiguous,
        "{heard:?}"
    );
    counted.release();
    for caller in [first].into_iter().chain(joined) {
        assert!(caller.await.unwrap().is_ok());
    }
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_request_over_the_limit_is_too_large_and_one_at_the_limit_is_not() {
    let bench = Bench::new();
    let (flow, counted) = (flow(), Counted::new());
    let engine = bench.open_with(limits(|limits| limits.request_bytes = 4));
    answer(&engine, call(&flow, "a", "1234"), counted.operation()).await;
    let heard = error(&engine, call(&flow, "b", "12345"), counted.operation()).await;
    assert!(matches!(heard.kind(), ErrorKind::TooLarge { bytes: 5, limit: 4 }), "{heard:?}");
    assert_eq!(heard.class(), Class::Definitive);
    let huge = ibid::Call::new(&flow, &key(&flow, "c"), vec![0; PAYLOAD_BYTES_CEILING + 1]);
    assert!(matches!(error(&engine, huge, counted.operation()).await.kind(), ErrorKind::TooLarge { .. }));
    assert_eq!((counted.runs(), engine.stats().await.unwrap().records.completed), (1, 1));
    engine.shutdown().await;
    // A record made under a larger limit still answers.
    let engine = bench.open_with(limits(|limits| limits.request_bytes = 3));
    answer(&engine, call(&flow, "a", "1234"), counted.operation()).await;
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_scope_at_its_quota_is_refused_before_anything_runs_and_may_still_replay() {
    let bench = Bench::new();
    let (flow, counted) = (flow(), Counted::new());
    let engine = bench.open_with(limits(|limits| limits.records_per_scope = 2));
    for id in ["a", "b"] {
        answer(&engine, call(&flow, id, "r"), counted.operation()).await;
    }
    let heard = error(&engine, call(&flow, "c", "r"), counted.operation()).await;
    assert!(matches!(heard.kind(), ErrorKind::QuotaExceeded) && heard.class() == Class::Definitive, "{heard:?}");
    answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert_eq!(counted.runs(), 2);
    engine.forget(&flow, &[key(&flow, "a")]).await.unwrap();
    answer(&engine, call(&flow, "c", "r"), counted.operation()).await;
    assert_eq!(counted.runs(), 3);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_fence_gets_through_a_full_scope_and_holds_when_there_is_room_again() {
    let bench = Bench::new();
    let (flow, counted) = (flow(), Counted::new());
    let engine = bench.open_with(limits(|limits| limits.records_per_scope = 1));
    answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert_eq!(engine.fence(&flow, &key(&flow, "b")).await.unwrap(), Fenced::Fenced);
    engine.forget(&flow, &[key(&flow, "a")]).await.unwrap();
    let late = error(&engine, call(&flow, "b", "r"), counted.operation()).await;
    assert!(matches!(late.kind(), ErrorKind::Fenced) && late.class() == Class::Definitive, "{late:?}");
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn what_the_host_decides_about_a_key_passes_a_full_scope() {
    let bench = Bench::new();
    let (flow, (counted, mut starts)) = (flow(), Counted::held());
    let engine = bench.open_with(limits(|limits| limits.in_flight_per_scope = 1));
    let first = submit(&engine, call(&flow, "a", "r"), counted.operation());
    starts.recv().await.unwrap();
    let busy = error(&engine, call(&flow, "b", "r"), counted.operation()).await;
    assert!(matches!(busy.kind(), ErrorKind::Busy { bound: Bound::Scope, found_absent: true }), "{busy:?}");
    assert_eq!(engine.fence(&flow, &key(&flow, "b")).await.unwrap(), Fenced::Fenced);
    assert_eq!(engine.forget(&flow, &[key(&flow, "b")]).await.unwrap()[0].1, Forgotten::Tombstone);
    let end = Ended::Completed((*b"told").into());
    assert_eq!(engine.resolve(&flow, &key(&flow, "a"), None, end).await.unwrap(), Resolved::Recorded);
    assert_eq!(&*heard(first).await.answer, b"told");
    counted.release();
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[test]
fn flow_scope_id_and_row_are_accepted_up_to_their_length_and_refused_by_one_byte_more() {
    let policy = || Policy::replay(Duration::from_secs(1));
    let flow = |bytes| Flow::new("f".repeat(bytes), policy());
    let keys = Flow::new("f", policy()).unwrap();
    for (accepted, bytes) in [(false, 0), (true, 1), (true, 254), (true, 255), (false, 256), (false, 1 << 20)] {
        assert_eq!(flow(bytes).is_ok(), accepted, "a flow of {bytes} bytes");
    }
    for (accepted, bytes) in [(false, 0), (true, 1), (true, 63), (true, 64), (false, 65), (false, 255)] {
        assert_eq!(Row::new("t".repeat(bytes), *b"k", *b"v").is_ok(), accepted, "a table of {bytes} bytes");
    }
    for (accepted, bytes) in [(false, 0), (true, 1), (true, 254), (true, 255), (false, 256), (false, 1 << 20)] {
        let part = vec![0xff; bytes];
        assert_eq!(keys.key(&part, "i").is_ok(), accepted, "a scope of {bytes} bytes");
        assert_eq!(keys.key("s", &part).is_ok(), accepted, "an id of {bytes} bytes");
    }
    for (accepted, bytes) in [(false, 0), (true, 1), (true, 511), (true, 512), (false, 513), (false, 1 << 20)] {
        let key = vec![0xff; bytes];
        assert_eq!(Row::new("t", key.clone(), *b"v").is_ok(), accepted, "a row's key of {bytes} bytes");
        assert_eq!(Row::removal("t", key).is_ok(), accepted, "a removal's key of {bytes} bytes");
    }
    for (accepted, bytes) in [(true, 0), (true, PAYLOAD_BYTES_CEILING - 1), (true, PAYLOAD_BYTES_CEILING)] {
        assert_eq!(Row::new("t", *b"k", vec![0; bytes]).is_ok(), accepted, "a row of {bytes} bytes");
    }
    let over = Row::new("t", *b"k", vec![0; PAYLOAD_BYTES_CEILING + 1]);
    assert_eq!(over, Err(InvalidRow::ValueLength(PAYLOAD_BYTES_CEILING + 1)));
}

#[tokio::test]
async fn requests_answers_and_checkpoints_are_kept_up_to_the_limit_and_not_by_one_byte_more() {
    let bench = Bench::new();
    let flow = flow();
    let engine = bench.open_with(limits(|limits| (limits.request_bytes, limits.answer_bytes) = (100, 100)));
    for (within, bytes) in [(true, 99), (true, 100), (false, 101)] {
        let request = Call::new(&flow, &key(&flow, &format!("request {bytes}")), vec![7; bytes]);
        let counted = Counted::new();
        let heard = engine.submit(request, counted.operation()).await;
        assert_eq!((heard.is_ok(), counted.runs()), (within, usize::from(within)), "a request of {bytes} bytes");

        let id = format!("answer {bytes}");
        let long = Operation::new(async move |_| End::done(vec![7; bytes]));
        assert_eq!(
            answer(&engine, call(&flow, &id, "r"), long).await.answer.len(),
            bytes,
            "whoever is at hand gets it"
        );
        match engine.submit(call(&flow, &id, "r"), counted.operation()).await {
            Ok(_) => assert!(within, "an answer of {bytes} bytes"),
            Err(error) => assert!(!within && matches!(error.kind(), ErrorKind::AnswerNotKept), "{bytes}: {error:?}"),
        }

        let saving = Operation::new(async move |attempt| {
            let saved = attempt.checkpoint(vec![7; bytes], None).await;
            assert!(!matches!(&saved, Err(error) if !matches!(error.kind(), ErrorKind::TooLarge { limit: 100, .. })));
            End::done([u8::from(saved.is_ok())])
        });
        let saved = answer(&engine, call(&flow, &format!("checkpoint {bytes}"), "r"), saving).await;
        assert_eq!(&*saved.answer, [u8::from(within)], "a checkpoint of {bytes} bytes");
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn the_longest_flow_scope_and_id_are_found_again_after_a_restart() {
    let bench = Bench::new();
    let policy = Policy::replay(Duration::from_secs(600));
    let flow = Flow::new(format!("POST /{}", "f".repeat(249)), policy).unwrap();
    let key = flow.key([0xff; 255], [0xfe; 255]).unwrap();
    let counted = Counted::new();
    for how in [How::Executed, How::Replayed] {
        let engine = bench.open();
        let call = Call::new(&flow, &key, *b"r");
        assert_eq!(answer(&engine, call, counted.operation()).await.how, how);
        assert_eq!(engine.lookup(&key).unwrap().map(|record| record.state.status()), Some(Status::Completed));
        engine.shutdown().await;
    }
    assert_eq!(counted.runs(), 1);
}

#[tokio::test]
async fn an_answer_has_at_least_the_room_it_was_promised_whatever_the_limits_say() {
    let (small, large) = (limits(|limits| limits.answer_bytes = 10), limits(|limits| limits.answer_bytes = 99));
    let over = limits(|limits| limits.answer_bytes = usize::MAX);
    for (builder, room) in [
        (Engine::builder().limits(small.clone()).at_least_answer_bytes(50), 50),
        (Engine::builder().at_least_answer_bytes(50).limits(small.clone()), 50),
        (Engine::builder().at_least_answer_bytes(50).at_least_answer_bytes(20).limits(small.clone()), 50),
        (Engine::builder().at_least_answer_bytes(50).limits(large), 99),
        (Engine::builder().limits(small).at_least_answer_bytes(usize::MAX), PAYLOAD_BYTES_CEILING),
        (Engine::builder().limits(over), PAYLOAD_BYTES_CEILING),
        (Engine::builder().at_least_answer_bytes(1), Limits::default().answer_bytes),
    ] {
        let engine = builder.open_in_memory().unwrap();
        assert_eq!(engine.limits().answer_bytes, room);
        engine.shutdown().await;
    }
    let engine = Engine::builder().at_least_answer_bytes(1 << 20).open_in_memory().unwrap();
    let (flow, counted) = (flow(), Counted::new());
    let long = counted.ending(|_| End::done(vec![7; 1 << 20]));
    answer(&engine, call(&flow, "a", "r"), long).await;
    let kept = answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert_eq!((kept.how, kept.answer.len(), counted.runs()), (How::Replayed, 1 << 20, 1));
    engine.shutdown().await;
}

#[tokio::test]
async fn callers_that_fill_a_key_do_not_keep_the_hosts_decisions_out() {
    let faulty = Faulty::new();
    let (store, engine) = faulty.open_with(|limits| limits.waiters_per_key = 1);
    let (flow, (counted, mut starts)) = (flow(), Counted::held());
    let first = submit(&engine, call(&flow, "a", "r"), counted.operation());
    starts.recv().await.unwrap();
    let gate = store.hold_commits();
    counted.release();
    store.until_held().await;
    // Its end is being committed, and one caller waits for it: there is room for no other.
    let second = error(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert!(matches!(second.kind(), ErrorKind::Busy { bound: Bound::Waiters, .. }), "{second:?}");
    let deciding = tokio::spawn({
        let (engine, flow) = (engine.clone(), flow.clone());
        async move {
            let resolved = engine.resolve(&flow, &key(&flow, "a"), None, Ended::Completed((*b"other").into())).await;
            (resolved, engine.forget(&flow, &[key(&flow, "a")]).await)
        }
    });
    settled(&engine).await;
    drop(gate);
    heard(first).await;
    let (resolved, forgotten) = within_a_minute(deciding).await.unwrap();
    assert!(matches!(resolved, Ok(Resolved::Contradicts(_))), "{resolved:?}");
    assert!(matches!(forgotten.unwrap()[..], [(_, Forgotten::Forgotten)]));
    engine.shutdown().await;
}

#[tokio::test]
async fn who_waits_for_what_may_take_days_keeps_nobody_from_running() {
    let bench = Bench::new();
    let engine = bench.open_with(limits(|limits| limits.in_flight_per_scope = 1));
    let (flow, counted) = (flow(), Counted::new());
    let accepted = engine.submit(call(&flow, "slow", "r"), counted.ending(|_| End::Accepted)).await.unwrap();
    assert_eq!(accepted, Reply::Accepted);
    let tracker = tokio::spawn({
        let (engine, flow) = (engine.clone(), flow.clone());
        async move { engine.track(&flow, &key(&flow, "slow")).await }
    });
    until(&engine, |stats| stats.in_flight == 1).await;
    assert_eq!(answer(&engine, call(&flow, "b", "r"), counted.operation()).await.how, How::Executed);
    let one_more = engine.track(&flow, &key(&flow, "slow")).await.unwrap_err();
    assert!(
        matches!(one_more.kind(), ErrorKind::Busy { bound: Bound::Scope, found_absent: false }),
        "trackers are bounded, too: {one_more:?}"
    );
    engine.resolve(&flow, &key(&flow, "slow"), None, Ended::Completed((*b"late").into())).await.unwrap();
    assert_eq!(&*within_a_minute(tracker).await.unwrap().unwrap().answer, b"late");
    engine.shutdown().await;
}
