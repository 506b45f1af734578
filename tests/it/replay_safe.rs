//! Flows whose operation may run again after a crash: one transition an answer, and every promise but that one.

use std::sync::Arc;
use std::time::Duration;

use crate::support::*;
use ibid::store::MemoryStore;
use ibid::testing::{FaultyStore, ManualClock, Outage, Simulation, simulate};
use ibid::{
    Abandoned, Acknowledged, AfterExpiry, Attempt, Bound, Class, Completion, End, Ended, Engine, Error, ErrorKind,
    Fenced, Flow, Forgotten, Guard, How, InDoubt, InvalidKey, OnFailure, Operation, Policy, Reason, Reply, Resolved,
    Retention, Row, State, Status, WhileRunning,
};
use tokio::task::JoinHandle;

const TEN_MINUTES: Duration = Duration::from_secs(600);

fn policy() -> Policy {
    Policy::replay(TEN_MINUTES).in_doubt(InDoubt::Rerun).replay_safe()
}

fn safe() -> Flow {
    flow_of(policy())
}

fn kind(heard: Result<Reply, Error>) -> ErrorKind {
    heard.unwrap_err().kind().clone()
}

/// One that has started and waits at its gate.
async fn start(engine: &Engine, flow: &Flow, counted: &Counted, starts: &mut Starts) -> Caller {
    let first = submit(engine, call(flow, "a", "r"), counted.operation());
    starts.recv().await.unwrap();
    settled(engine).await;
    first
}

type Starts = tokio::sync::mpsc::UnboundedReceiver<usize>;
type Caller = JoinHandle<Result<Reply, Error>>;

/// Number and token of the attempt.
fn names_itself() -> Operation {
    Operation::new(async |attempt| End::done(name_of(&attempt)))
}

fn name_of(attempt: &Attempt) -> Vec<u8> {
    [&[attempt.number() as u8], &attempt.token().0[..]].concat()
}

#[tokio::test]
async fn an_answer_costs_one_commit_and_its_replay_none() {
    for (flow, commits) in [(safe(), 1), (flow(), 2)] {
        let (store, engine) = Faulty::new().open();
        let counted = Counted::new();
        let first = answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
        assert_eq!((first.how, store.commits()), (How::Executed, commits));
        let record = engine.lookup(&key(&flow, "a")).unwrap().unwrap();
        assert_eq!((record.revision, &record.state), (2, &State::Completed(Some(first.answer.clone()))));
        let again = answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
        assert_eq!((again.how, again.answer, store.commits()), (How::Replayed, first.answer, commits));
        assert_eq!(counted.runs(), 1);
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn it_replays_the_same_bytes_after_a_restart() {
    let (bench, flow, counted) = (Bench::new(), safe(), Counted::new());
    let engine = bench.open();
    let first = answer(&engine, call(&flow, "a", "r"), counted.operation()).await.answer;
    engine.shutdown().await;
    let engine = bench.open();
    let again = answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert_eq!((again.how, again.answer, counted.runs()), (How::Replayed, first, 1));
    engine.shutdown().await;
}

#[tokio::test]
async fn a_thousand_concurrent_duplicates_run_once_and_nothing_is_stored_while_they_wait() {
    let (store, engine) = Faulty::new().open();
    let (flow, (counted, mut starts)) = (safe(), Counted::held());
    let callers: Vec<_> = (0..1_000).map(|_| submit(&engine, call(&flow, "a", "r"), counted.operation())).collect();
    starts.recv().await.unwrap();
    let stats = until(&engine, |stats| stats.in_flight == 1_000).await;
    assert_eq!((stats.running, stats.records.registered, store.commits()), (1, 0, 0), "{stats:?}");
    assert!(engine.lookup(&key(&flow, "a")).unwrap().is_none() && engine.list(None, 9).unwrap().is_empty());
    counted.release();
    let mut executed = 0;
    for caller in callers {
        let heard = heard(caller).await;
        assert_eq!(&*heard.answer, b"1");
        executed += usize::from(heard.how == How::Executed);
    }
    assert_eq!((counted.runs(), executed, store.commits()), (1, 1, 1));
    engine.shutdown().await;
}

#[tokio::test]
async fn another_request_is_refused_while_the_first_one_runs_and_while_its_end_is_saved() {
    let (store, engine) = Faulty::new().open();
    let (flow, (counted, mut starts)) = (flow_of(policy().while_running(WhileRunning::Refuse)), Counted::held());
    let first = start(&engine, &flow, &counted, &mut starts).await;
    let asks = async |request| kind(engine.submit(call(&flow, "a", request), counted.operation()).await);
    let refused = async || {
        assert!(matches!(asks("other").await, ErrorKind::Mismatch));
        assert!(matches!(asks("r").await, ErrorKind::Duplicate(Status::Registered)));
    };
    refused().await;
    let gate = store.hold_commits();
    counted.release();
    within_a_minute(store.until_held()).await;
    settled(&engine).await;
    assert!(!first.is_finished(), "the answer left before it was durable");
    refused().await;
    drop(gate);
    assert_eq!((heard(first).await.how, counted.runs()), (How::Executed, 1));
    assert!(matches!(asks("other").await, ErrorKind::Mismatch));
    engine.shutdown().await;
}

#[tokio::test]
async fn a_duplicate_without_a_permit_joins_what_runs() {
    let (_store, engine) = Faulty::new().open_with(|limits| limits.in_flight_per_scope = 1);
    let (flow, (counted, mut starts)) = (safe(), Counted::held());
    let first = start(&engine, &flow, &counted, &mut starts).await;
    let joined = submit(&engine, call(&flow, "a", "r"), counted.operation());
    until(&engine, |stats| stats.in_flight == 2).await;
    let full = kind(engine.submit(call(&flow, "b", "r"), counted.operation()).await);
    assert!(matches!(full, ErrorKind::Busy { bound: Bound::Scope, found_absent: true }), "{full:?}");
    counted.release();
    assert_eq!((heard(first).await.how, heard(joined).await.how), (How::Executed, How::Joined));
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_failure_leaves_nothing_or_its_reason_by_policy() {
    let failing = || Operation::new(async |_| End::Definitive(Reason::from_bytes(*b"no")));
    let is_failure = |error: &Error| error.reason().is_some_and(|reason| **reason.bytes() == *b"no");
    for (flow, kept) in [(safe(), None), (flow_of(policy().on_failure(OnFailure::Keep)), Some(Status::Failed))] {
        let (_store, engine) = Faulty::new().open();
        assert!(is_failure(&error(&engine, call(&flow, "a", "r"), failing()).await));
        let stored = engine.lookup(&key(&flow, "a")).unwrap().map(|record| record.state.status());
        assert_eq!(stored, kept);
        match engine.submit(call(&flow, "a", "r"), Counted::new().operation()).await {
            Ok(Reply::Answer(outcome)) => assert_eq!((outcome.how, kept), (How::Executed, None)),
            heard => assert!(is_failure(&heard.unwrap_err()) && kept.is_some()),
        }
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn a_panic_leaves_it_in_doubt_and_the_retry_runs_with_the_same_token() {
    let (_store, engine) = Faulty::new().open();
    let flow = safe();
    let panics = Operation::new(async |_| std::panic::resume_unwind(Box::new("injected")));
    let heard = error(&engine, call(&flow, "a", "r"), panics).await;
    assert!(matches!(heard.kind(), ErrorKind::InDoubt(_)), "{heard:?}");
    let doubted = engine.lookup(&key(&flow, "a")).unwrap().unwrap();
    assert_eq!(doubted.state, State::InDoubt);
    let again = answer(&engine, call(&flow, "a", "r"), names_itself()).await;
    assert_eq!(*again.answer, [&[2], &doubted.attempt.token.0[..]].concat());
    engine.shutdown().await;
}

#[tokio::test]
async fn the_host_decides_about_what_is_held_as_about_any_other() {
    let (_store, engine) = Faulty::new().open();
    let (flow, (counted, mut starts)) = (safe(), Counted::held());
    let first = start(&engine, &flow, &counted, &mut starts).await;
    let a = key(&flow, "a");
    let tracked = tokio::spawn({
        let (engine, flow, a) = (engine.clone(), flow.clone(), a.clone());
        async move { engine.track_request(&flow, &a, b"r").await }
    });
    let other = engine.track_request(&flow, &a, b"other").await.unwrap_err();
    assert!(matches!(other.kind(), ErrorKind::Mismatch), "{other:?}");
    assert_eq!(engine.fence(&flow, &a).await.unwrap(), Fenced::Found(Status::Registered));
    let forgotten = engine.forget(&flow, std::slice::from_ref(&a)).await.unwrap();
    assert_eq!(forgotten[0].1, Forgotten::InFlight(Status::Registered));
    assert_eq!(engine.acknowledge(&flow, &a).await.unwrap(), Acknowledged::NoEffect(Status::Registered));
    assert_eq!(engine.disturb(&flow, &a).await.unwrap(), Acknowledged::NoEffect(Status::Registered));
    assert!(engine.lookup(&a).unwrap().is_none(), "none of that is written");
    counted.release();
    assert_eq!((heard(first).await.how, &*tracked.await.unwrap().unwrap().answer), (How::Executed, b"1".as_slice()));
    engine.shutdown().await;
}

#[tokio::test]
async fn an_end_from_outside_is_recorded_and_that_of_the_operation_changes_nothing() {
    let (_store, engine) = Faulty::new().open();
    let (flow, (counted, mut starts)) = (safe(), Counted::held());
    let first = start(&engine, &flow, &counted, &mut starts).await;
    let a = key(&flow, "a");
    let told = Ended::Completed((*b"told").into());
    assert_eq!(engine.resolve(&flow, &a, None, told).await.unwrap(), Resolved::Recorded);
    assert_eq!((heard(first).await.answer.to_vec(), engine.stats().await.unwrap().running), (b"told".to_vec(), 1));
    assert_eq!(engine.forget(&flow, std::slice::from_ref(&a)).await.unwrap()[0].1, Forgotten::Live);
    counted.release();
    let stats = until(&engine, |stats| stats.running == 0).await;
    assert_eq!(stats.alarms, 1, "the operation's own end contradicts it");
    let replayed = answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert_eq!((&*replayed.answer, counted.runs()), (b"told".as_slice(), 1));
    engine.shutdown().await;
}

#[tokio::test]
async fn what_is_given_up_is_written_and_a_failure_frees_its_key() {
    let (_store, engine) = Faulty::new().open();
    let (counted, mut starts) = Counted::held();
    let flow = flow_of(policy().on_failure(OnFailure::Keep));
    let failing = counted.ending(|_| End::Definitive(Reason::from_bytes(*b"no")));
    let first = submit(&engine, call(&flow, "a", "r"), failing);
    starts.recv().await.unwrap();
    let a = key(&flow, "a");
    assert_eq!(engine.abandon(&flow, &a).await.unwrap(), Abandoned::Marked(Status::Registered));
    let marked = engine.lookup(&a).unwrap().unwrap();
    assert_eq!((marked.abandoned, marked.revision, &marked.state), (true, 2, &State::Registered));
    counted.release();
    assert!(matches!(kind(first.await.unwrap()), ErrorKind::Failed(_)));
    assert!(engine.lookup(&a).unwrap().is_none());
    engine.shutdown().await;
}

#[tokio::test]
async fn a_ledger_row_comes_with_the_answer_and_one_that_another_has_is_as_good_as_nothing() {
    let (_store, engine) = Faulty::new().open();
    let flow = safe();
    let claims = |answer: &'static [u8]| {
        Operation::new(async move |_| {
            let row = Row::new("hashes", *b"hash", answer).unwrap().guard(Guard::Absent);
            End::Done(Completion::new(answer).row(row).otherwise(Reason::from_bytes(*b"taken")))
        })
    };
    assert_eq!(&*answer(&engine, call(&flow, "a", "r"), claims(b"1")).await.answer, b"1");
    let taken = error(&engine, call(&flow, "b", "r"), claims(b"2")).await;
    assert_eq!((taken.class(), taken.reason().unwrap().bytes().to_vec()), (Class::Definitive, b"taken".to_vec()));
    assert!(engine.lookup(&key(&flow, "b")).unwrap().is_none());
    assert_eq!(&*engine.ledger_row("hashes", b"hash").unwrap().unwrap().value, b"1");
    engine.shutdown().await;
}

#[tokio::test]
async fn in_place_of_an_expired_record_it_is_registered() {
    let (disk, clock) = (Arc::new(MemoryStore::new()), ManualClock::at(START));
    let store = Arc::new(FaultyStore::new(disk));
    let engine = Engine::builder().clock(clock.clone()).open_store(store.clone()).unwrap();
    let (flow, counted) = (flow_of(policy().after_expiry(AfterExpiry::Rerun).grace(TEN_MINUTES)), Counted::new());
    answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    clock.advance(TEN_MINUTES);
    let before = store.commits();
    let again = answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert_eq!((again.how, &*again.answer, store.commits() - before), (How::Executed, b"2".as_slice(), 2));
    engine.shutdown().await;
}

#[tokio::test]
async fn a_full_scope_refuses_before_the_start_and_what_has_run_is_recorded_all_the_same() {
    let (_store, engine) = Faulty::new().open_with(|limits| limits.records_per_scope = 1);
    let (flow, (counted, mut starts)) = (safe(), Counted::held());
    let callers = ["a", "b"].map(|id| submit(&engine, call(&flow, id, "r"), counted.operation()));
    for _ in &callers {
        starts.recv().await.unwrap();
    }
    counted.release();
    for caller in callers {
        assert_eq!(heard(caller).await.how, How::Executed);
    }
    assert_eq!(engine.stats().await.unwrap().records.completed, 2, "both have run, so both are recorded");
    let refused = error(&engine, call(&flow, "c", "r"), counted.operation()).await;
    assert_eq!((refused.class(), counted.runs()), (Class::Definitive, 2), "{refused:?}");
    assert!(matches!(refused.kind(), ErrorKind::QuotaExceeded), "{refused:?}");
    engine.shutdown().await;
}

#[tokio::test]
async fn nothing_starts_while_the_store_cannot_be_read() {
    let (store, engine) = Faulty::new().open();
    let (flow, counted) = (safe(), Counted::new());
    // The caller's own look, and the one before the start.
    store.fail_reads(2);
    let refused = error(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert!(matches!(refused.kind(), ErrorKind::Store), "{refused:?}");
    store.break_down(Outage::Everything);
    assert!(matches!(kind(engine.submit(call(&flow, "a", "r"), counted.operation()).await), ErrorKind::Store));
    assert_eq!(counted.runs(), 0);
    store.heal();
    assert_eq!(answer(&engine, call(&flow, "a", "r"), counted.operation()).await.how, How::Executed);
    engine.shutdown().await;
}

#[tokio::test]
async fn once_an_end_could_not_be_saved_nothing_more_starts_until_it_is() {
    let (store, engine) = Faulty::new().open();
    let (flow, counted) = (safe(), Counted::new());
    store.break_down(Outage::Commits);
    let first = kind(within_a_minute(engine.submit(call(&flow, "a", "r"), counted.operation())).await);
    assert!(matches!(first, ErrorKind::Store), "withheld: {first:?}");
    let second = kind(within_a_minute(engine.submit(call(&flow, "b", "r"), counted.operation())).await);
    assert!(matches!(second, ErrorKind::Store), "{second:?}");
    assert_eq!((counted.runs(), engine.stats().await.unwrap().unsaved), (1, 1));
    let failed = store.commits();
    store.heal();
    within_a_minute(store.until_commits(failed + 1)).await;
    until(&engine, |stats| stats.unsaved == 0).await;
    let retry = answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert_eq!((retry.how, &*retry.answer), (How::Replayed, b"1".as_slice()), "the end that was kept in memory");
    assert_eq!(answer(&engine, call(&flow, "b", "r"), counted.operation()).await.how, How::Executed);
    engine.shutdown().await;
}

#[tokio::test]
async fn an_abort_at_the_end_of_a_shutdown_leaves_it_in_doubt_with_its_token() {
    let faulty = Faulty::new();
    let (_, engine) = faulty.open_with(|limits| limits.drain = Duration::ZERO);
    let (flow, (counted, mut starts)) = (safe(), Counted::held());
    let first = start(&engine, &flow, &counted, &mut starts).await;
    engine.shutdown().await;
    assert_eq!(first.await.unwrap().unwrap_err().class(), Class::Ambiguous);
    let (_, engine) = faulty.open();
    let doubted = engine.lookup(&key(&flow, "a")).unwrap().unwrap();
    assert_eq!(doubted.state, State::InDoubt);
    let again = answer(&engine, call(&flow, "a", "r"), names_itself()).await;
    assert_eq!(*again.answer, [&[2], &doubted.attempt.token.0[..]].concat());
    engine.shutdown().await;
}

/// A store whose content outlives the engine over it.
fn over(disk: &Arc<MemoryStore>) -> Arc<FaultyStore> {
    Arc::new(FaultyStore::new(disk.clone()).keeping_inner())
}

/// The name of an attempt that saved what it is told to, was then cut off by a crash, and left this many records.
async fn crash_after(simulation: &Simulation, disk: &Arc<MemoryStore>, checkpoint: bool, left: u64) -> Vec<u8> {
    let engine = simulation.open(Engine::builder(), over(disk)).unwrap();
    let (said, mut says) = tokio::sync::mpsc::unbounded_channel();
    let operation = Operation::new(async move |attempt| {
        if checkpoint {
            attempt.checkpoint(*b"minted", None).await.unwrap();
        }
        said.send(name_of(&attempt)).unwrap();
        std::future::pending().await
    });
    let cut_off = submit(&engine, call(&safe(), "a", "r"), operation);
    let name = says.recv().await.unwrap();
    let totals = engine.stats().await.unwrap().records;
    assert_eq!(totals.registered, left);
    simulation.crash(&engine).await;
    assert!(matches!(kind(cut_off.await.unwrap()), ErrorKind::Closed));
    name
}

#[test]
fn a_crash_before_the_end_forgets_it_and_the_retry_runs_as_a_first_attempt_with_another_token() {
    simulate(1, async |simulation| {
        for request in ["r", "other"] {
            let disk = Arc::new(MemoryStore::new());
            let first = crash_after(simulation, &disk, false, 0).await;
            let engine = simulation.open(Engine::builder(), over(&disk)).unwrap();
            let heard = answer(&engine, call(&safe(), "a", request), names_itself()).await;
            assert_eq!((heard.how, first[0], heard.answer[0]), (How::Executed, 1, 1));
            assert_ne!(heard.answer[1..], first[1..], "a token is of one record, and that one never was");
            engine.shutdown().await;
        }
    })
    .unwrap();
}

#[test]
fn a_crash_after_a_checkpoint_leaves_it_in_doubt_and_the_retry_goes_on() {
    simulate(2, async |simulation| {
        let disk = Arc::new(MemoryStore::new());
        let first = crash_after(simulation, &disk, true, 1).await;
        let engine = simulation.open(Engine::builder(), over(&disk)).unwrap();
        let other = error(&engine, call(&safe(), "a", "other"), names_itself()).await;
        assert!(matches!(other.kind(), ErrorKind::Mismatch), "{other:?}");
        let goes_on = Operation::new(async |attempt| {
            assert_eq!(attempt.last_checkpoint().map(|bytes| bytes.to_vec()), Some(b"minted".to_vec()));
            End::done(name_of(&attempt))
        });
        let heard = answer(&engine, call(&safe(), "a", "r"), goes_on).await;
        assert_eq!((heard.answer[0], &heard.answer[1..]), (2, &first[1..]));
        engine.shutdown().await;
    })
    .unwrap();
}

#[test]
fn a_crash_after_the_answer_replays_it() {
    simulate(3, async |simulation| {
        let disk = Arc::new(MemoryStore::new());
        let engine = simulation.open(Engine::builder(), over(&disk)).unwrap();
        let first = answer(&engine, call(&safe(), "a", "r"), names_itself()).await;
        simulation.crash(&engine).await;
        let engine = simulation.open(Engine::builder(), over(&disk)).unwrap();
        let again = answer(&engine, call(&safe(), "a", "r"), names_itself()).await;
        assert_eq!((again.how, again.answer), (How::Replayed, first.answer));
        engine.shutdown().await;
    })
    .unwrap();
}

#[test]
fn a_flow_that_needs_a_registration_is_refused_when_it_is_made() {
    let counted = Retention::UntilAcknowledged { quiet_ticks: 7 };
    let refused = [
        Policy::replay(TEN_MINUTES).replay_safe(),
        Policy::replay(TEN_MINUTES).in_doubt(InDoubt::Ask).replay_safe(),
        Policy::send_payment().replay_safe(),
        Policy::send_payment().in_doubt(InDoubt::Rerun).replay_safe(),
        Policy::send_onion().replay_safe(),
        policy().in_doubt(InDoubt::Ambiguous),
        policy().retention(counted),
    ];
    for policy in refused {
        let made = Flow::new("test", policy.clone());
        assert!(matches!(made, Err(InvalidKey::FlowNotReplaySafe)), "{policy:?}");
    }
    assert!(Flow::new("test", Policy::request_invoice().replay_safe()).is_ok());
    assert_ne!(policy(), Policy::replay(TEN_MINUTES).in_doubt(InDoubt::Rerun), "it is never on by itself");
    let error = Error::from(InvalidKey::FlowNotReplaySafe);
    assert_eq!(error.class(), Class::Definitive);
}
