//! What `explain` foretells is what happens, and it shows nothing that is stored.

use std::sync::Arc;
use std::time::Duration;

use crate::support::*;
use ibid::store::RedbStore;
use ibid::testing::Outage;
use ibid::{
    Class, End, Ended, Engine, Error, ErrorKind, Flow, How, InDoubt, OnFailure, OnStoreFailure, Operation, Policy,
    Prospect, Reason, Reply, Status, WhileRunning,
};
use tokio::task::JoinHandle;

const MINUTE: Duration = Duration::from_secs(60);

/// What was before the question.
#[derive(Clone, Copy)]
enum Past {
    Nothing,
    Ended(fn() -> End),
    /// And somebody has told of an end.
    Resolved(fn() -> End, fn() -> Ended),
    Fenced,
    /// It ended, and then so much time went by.
    Aged(Duration),
    /// It ended unknown, and the engine was opened anew.
    Restarted,
}

fn done() -> End {
    End::done(*b"secret answer")
}

fn unknown() -> End {
    End::Unknown(Reason::from_bytes(*b"secret reason"))
}

fn definitive() -> End {
    End::Definitive(Reason::from_bytes(*b"secret reason"))
}

fn accepted() -> End {
    End::Accepted
}

fn failed() -> Ended {
    Ended::Failed((*b"secret reason").into())
}

impl Past {
    async fn make(self, bench: &Bench, flow: &Flow) -> Engine {
        let engine = bench.open();
        let end = match self {
            Self::Nothing => return engine,
            Self::Fenced => {
                engine.fence(flow, &key(flow, "a")).await.unwrap();
                return engine;
            }
            Self::Ended(end) | Self::Resolved(end, _) => end(),
            Self::Aged(_) => done(),
            Self::Restarted => unknown(),
        };
        engine.submit(call(flow, "a", "r").retention(MINUTE), Operation::new(async |_| end)).await.ok();
        match self {
            Self::Resolved(_, ended) => {
                engine.resolve(flow, &key(flow, "a"), None, ended()).await.unwrap();
            }
            Self::Aged(time) => bench.clock.advance(time),
            Self::Restarted => {
                engine.shutdown().await;
                return bench.open();
            }
            Self::Nothing | Self::Ended(_) | Self::Fenced => {}
        }
        engine
    }
}

/// The same words for what was foretold and for what has come.
fn foretold(prospect: &Prospect) -> String {
    match prospect {
        Prospect::Runs => "runs".to_owned(),
        Prospect::Joins => "joins".to_owned(),
        Prospect::Replays => "replays".to_owned(),
        Prospect::Refused(error) => format!("{error} ({})", error.class().name()),
        other => panic!("unheard of: {other:?}"),
    }
}

fn came(heard: Result<Reply, Error>, runs: usize) -> String {
    match heard {
        Ok(Reply::Answer(outcome)) if outcome.how == How::Replayed => "replays".to_owned(),
        Ok(Reply::Answer(outcome)) if outcome.how == How::Joined => "joins".to_owned(),
        Ok(_) if runs == 1 => "runs".to_owned(),
        Err(error) => format!("{error} ({})", error.class().name()),
        Ok(reply) => panic!("it did not run: {reply:?}"),
    }
}

/// Explains the key twice over, and sends the request that is asked about the second time.
async fn compare(policy: Policy, past: Past, request: &str) -> (String, String) {
    let (bench, flow, counted) = (Bench::new(), flow_of(policy), Counted::new());
    let engine = past.make(&bench, &flow).await;
    let explained = engine.explain(&flow, &key(&flow, "a")).await.unwrap();
    let again = engine.explain(&flow, &key(&flow, "a")).await.unwrap();
    assert_eq!(explained.to_string(), again.to_string(), "to explain changes nothing");
    assert!(!explained.is_running && !explained.is_unsaved);
    assert!(!format!("{explained} {explained:?}").contains("secret"), "{explained}\n{explained:?}");
    let prospect = if request == "r" { explained.same_request } else { explained.other_request };
    let heard = engine.submit(call(&flow, "a", request).retention(MINUTE), counted.operation()).await;
    let came = came(heard, counted.runs());
    engine.shutdown().await;
    (foretold(&prospect), came)
}

#[tokio::test]
async fn what_is_foretold_is_what_happens() {
    let replay = || Policy::replay(MINUTE);
    let (expired, forgotten) = (Past::Aged(MINUTE), Past::Aged(10 * MINUTE));
    let rows = [
        (replay(), Past::Nothing, "runs", "runs"),
        (Policy::request_invoice(), Past::Nothing, "runs", "runs"),
        (replay().replay_safe().in_doubt(InDoubt::Rerun), Past::Nothing, "runs", "runs"),
        (replay(), Past::Ended(done), "replays", "conflict"),
        (Policy::send_payment(), Past::Ended(done), "duplicate", "conflict"),
        (replay().on_failure(OnFailure::Keep), Past::Ended(definitive), "definitive", "conflict"),
        (replay(), Past::Ended(definitive), "runs", "runs"),
        (replay(), Past::Ended(unknown), "ambiguous", "conflict"),
        (replay().in_doubt(InDoubt::Rerun), Past::Ended(unknown), "runs", "conflict"),
        (replay(), Past::Restarted, "ambiguous", "conflict"),
        (replay().in_doubt(InDoubt::Rerun), Past::Restarted, "runs", "conflict"),
        (Policy::send_payment(), Past::Restarted, "duplicate", "conflict"),
        (Policy::send_onion(), Past::Ended(accepted), "duplicate", "conflict"),
        (Policy::send_onion(), Past::Resolved(accepted, failed), "duplicate", "conflict"),
        (replay(), Past::Resolved(done, failed), "replays", "conflict"),
        (replay(), Past::Fenced, "definitive", "definitive"),
        (Policy::request_invoice(), expired, "conflict", "conflict"),
        (Policy::request_invoice(), forgotten, "runs", "runs"),
        (replay(), expired, "runs", "runs"),
        (replay().tombstone(60 * MINUTE), forgotten, "conflict", "conflict"),
    ];
    for (number, (policy, past, same, other)) in rows.into_iter().enumerate() {
        for (request, expected) in [("r", same), ("another", other)] {
            let (foretold, came) = compare(policy.clone(), past, request).await;
            assert_eq!(foretold, came, "row {number}, request {request}");
            assert!(came.contains(expected), "row {number}, request {request}: {came}");
        }
    }
}

type Caller = JoinHandle<Result<Reply, Error>>;

/// One that has started and waits at its gate.
async fn started(engine: &Engine, flow: &Flow) -> (Counted, Caller) {
    let (counted, mut starts) = Counted::held();
    let caller = submit(engine, call(flow, "a", "r"), counted.operation());
    starts.recv().await.unwrap();
    (counted, caller)
}

#[tokio::test]
async fn what_runs_is_seen_whether_it_is_registered_or_held() {
    let join = Policy::replay(MINUTE);
    let safe = join.clone().in_doubt(InDoubt::Rerun).replay_safe();
    let refuse = join.clone().while_running(WhileRunning::Refuse);
    for (policy, expected) in [(join, None), (safe, None), (refuse, Some(Class::Duplicate))] {
        let (bench, flow) = (Bench::new(), flow_of(policy));
        let engine = bench.open();
        let (counted, caller) = started(&engine, &flow).await;
        let explained = engine.explain(&flow, &key(&flow, "a")).await.unwrap();
        assert!(explained.is_running && !explained.is_unsaved, "{explained}");
        assert_eq!(explained.record.as_ref().unwrap().state.status(), Status::Registered, "{explained}");
        match (&explained.same_request, expected) {
            (Prospect::Joins, None) => {}
            (Prospect::Refused(error), Some(class)) => assert_eq!(error.class(), class),
            other => panic!("{other:?}"),
        }
        assert!(matches!(&explained.other_request, Prospect::Refused(error) if error.class() == Class::Conflict));
        counted.release();
        heard(caller).await;
        let explained = engine.explain(&flow, &key(&flow, "a")).await.unwrap();
        assert!(!explained.is_running, "{explained}");
        engine.shutdown().await;
    }
}

/// A policy, how its operation ends, and what a retry hears while that cannot be saved.
type Unsaved = (Policy, OnStoreFailure, fn() -> End, &'static str);

#[tokio::test]
async fn what_cannot_be_saved_is_seen_and_so_is_what_a_retry_hears_of_it() {
    let (replay, replying) = (Policy::replay(MINUTE), OnStoreFailure::Reply);
    let keep = replay.clone().on_failure(OnFailure::Keep);
    let safe = replay.clone().in_doubt(InDoubt::Rerun).replay_safe();
    let rows: [Unsaved; 11] = [
        (replay.clone(), OnStoreFailure::Withhold, done, "the store failed (ambiguous)"),
        (replay.clone(), OnStoreFailure::Withhold, definitive, "the store failed (ambiguous)"),
        (replay.clone(), replying, done, "replays"),
        (safe, replying, done, "replays"),
        (Policy::send_onion(), replying, done, "the request is known and completed (duplicate)"),
        (replay.clone(), replying, definitive, "the operation failed without effect (definitive)"),
        (keep, replying, definitive, "the operation failed without effect (definitive)"),
        // What is not certain is withheld under either choice.
        (replay.clone(), replying, unknown, "the store failed (ambiguous)"),
        (replay.clone(), replying, accepted, "the store failed (ambiguous)"),
        (Policy::send_onion(), replying, unknown, "the store failed (ambiguous)"),
        (replay.clone().while_running(WhileRunning::Refuse), replying, unknown, "the store failed (ambiguous)"),
    ];
    // Side by side: each takes five tries of its store.
    let rows = rows.into_iter().enumerate().map(|(number, (policy, choice, end, expected))| {
        tokio::spawn(async move {
            let (foretold, came) = compare_unsaved(policy.on_store_failure(choice), end).await;
            assert_eq!((&*foretold[0], &*came[0]), (expected, expected), "row {number}");
            assert_eq!(foretold[1], came[1], "row {number}, another request");
        })
    });
    for row in rows.collect::<Vec<_>>() {
        row.await.unwrap();
    }
}

/// What the same request and another one are foretold while an end cannot be saved, and what they hear.
async fn compare_unsaved(policy: Policy, end: fn() -> End) -> ([String; 2], [String; 2]) {
    let (store, engine) = Faulty::new().open();
    let flow = flow_of(policy);
    let (counted, mut starts) = Counted::held();
    let caller = submit(&engine, call(&flow, "a", "r"), counted.ending(move |_| end()));
    starts.recv().await.unwrap();
    store.break_down(Outage::Commits);
    counted.release();
    // It hears of it after the last try.
    caller.await.unwrap().ok();
    let explained = engine.explain(&flow, &key(&flow, "a")).await.unwrap();
    assert!(explained.is_running && explained.is_unsaved, "{explained}");
    let ask = async |request| came(engine.submit(call(&flow, "a", request), counted.operation()).await, 0);
    let came = [ask("r").await, ask("another").await];
    assert_eq!(counted.runs(), 1);
    store.heal();
    engine.shutdown().await;
    ([foretold(&explained.same_request), foretold(&explained.other_request)], came)
}

#[tokio::test]
async fn the_text_says_what_somebody_who_looks_into_a_case_wants_to_know() {
    let bench = Bench::new();
    let flow = flow_of(Policy::request_invoice());
    let engine = bench.open();
    let unknown = Operation::new(async |attempt| {
        attempt.checkpoint(*b"minted", None).await.unwrap();
        End::Unknown(Reason::from_bytes(*b"gone dark"))
    });
    error(&engine, call(&flow, "a", "r").retention(MINUTE), unknown).await;
    bench.clock.advance(Duration::from_secs(12));
    let lines = async |engine: &Engine| {
        let text = engine.explain(&flow, &key(&flow, "a")).await.unwrap().to_string();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let text = lines(&engine).await;
    assert!(text[0].starts_with("test scope:5B id:1B ") && text[0].ends_with(": in doubt since 12s"), "{text:?}");
    let mut expected = vec![
        "  attempt 1, admitted 12s ago",
        "  checkpoint: 6 bytes",
        "  nothing of it runs here",
        "  its answer is to expire in 48s",
        "  the same request now: runs",
        "  another request now: is refused: the key belongs to another request (conflict)",
    ];
    assert_eq!(text[1..], expected);
    answer(&engine, call(&flow, "a", "r").retention(MINUTE), Operation::new(async |_| done())).await;
    engine.resolve(&flow, &key(&flow, "a"), None, failed()).await.unwrap();
    let text = lines(&engine).await;
    assert!(text[0].ends_with(": completed since 0s"), "{text:?}");
    expected[0] = "  attempt 2, admitted 12s ago";
    expected.insert(2, "  a later end that contradicts it: 13 bytes");
    expected.splice(
        4..6,
        ["  expires in 48s", "  is forgotten in 168s", "  the same request now: gets the recorded answer"],
    );
    assert_eq!(text[1..], expected);
    let absent = engine.explain(&flow, &key(&flow, "b")).await.unwrap().to_string();
    assert!(absent.contains(": no record\n  nothing of it runs here\n  the same request now: runs\n"), "{absent}");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_damaged_record_another_flows_key_and_a_closed_engine_are_told_as_such() {
    let bench = Bench::new();
    let store = Arc::new(RedbStore::open(bench.path(), ibid::store::RedbOptions::default()).unwrap());
    let engine = Engine::builder().clock(bench.clock.clone()).open_store(store.clone()).unwrap();
    let (flow, other) = (flow(), Flow::new("other", Policy::replay(MINUTE)).unwrap());
    answer(&engine, call(&flow, "a", "r"), Counted::new().operation()).await;
    store.damage(&key(&flow, "a")).unwrap();
    let kind = async |key| engine.explain(&flow, &key).await.unwrap_err().kind().clone();
    assert!(matches!(kind(key(&flow, "a")).await, ErrorKind::Quarantined));
    assert!(matches!(kind(key(&other, "a")).await, ErrorKind::InvalidKey(_)));
    engine.shutdown().await;
    assert!(matches!(kind(key(&flow, "a")).await, ErrorKind::Closed));
}
