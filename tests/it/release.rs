//! What the host decides about a record, or tells of it: given up, acknowledged and left alone for so many ticks, forgotten
//! once downstream has done with it; and rows that belong to no record.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ibid::store::{MemoryStore, Store};
use ibid::testing::{Fault, FaultyStore, simulate};
use ibid::{
    Abandoned, Acknowledged, AttemptId, Class, End, Ended, Engine, ErrorKind, Forgotten, Found, Guard, Limits,
    Operation, Policy, Reason, Reply, Resolved, Row, Status, Token,
};

use crate::support::{Bench, Counted, Faulty, call, error, flow_of, key, settled, submit, until, within_a_minute};

fn payments() -> ibid::Flow {
    flow_of(Policy::send_payment())
}

fn onions() -> ibid::Flow {
    flow_of(Policy::send_onion())
}

fn sent() -> Ended {
    Ended::Completed((*b"preimage").into())
}

fn failed() -> Ended {
    Ended::Failed((*b"no route").into())
}

async fn accept(engine: &Engine, flow: &ibid::Flow, counted: &Counted, id: &str) {
    let reply = engine.submit(call(flow, id, "r"), counted.ending(|_| End::Accepted)).await.unwrap();
    assert_eq!(reply, Reply::Accepted);
}

async fn ticks(engine: &Engine, count: usize) {
    for _ in 0..count {
        engine.tick().await.unwrap();
    }
}

#[tokio::test]
async fn the_eighth_quiet_tick_releases_a_payment_and_no_restart_hastens_it() {
    let (bench, flow, counted) = (Bench::new(), payments(), Counted::new());
    let engine = bench.open();
    let key = key(&flow, "a");
    accept(&engine, &flow, &counted, "a").await;
    engine.resolve(&flow, &key, None, sent()).await.unwrap();
    ticks(&engine, 40).await;
    let known = error(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert_eq!((known.class(), known.recorded()), (Class::Duplicate, Some(&sent())), "nobody has acknowledged it");
    assert_eq!(engine.acknowledge(&flow, &key).await.unwrap(), Acknowledged::Counting);
    ticks(&engine, 6).await;
    engine.shutdown().await;

    let engine = bench.open();
    bench.clock.advance(Duration::from_secs(86_400 * 365));
    engine.confirm_clock();
    ticks(&engine, 1).await;
    assert_eq!(error(&engine, call(&flow, "a", "r"), counted.operation()).await.class(), Class::Duplicate);
    let other = error(&engine, call(&flow, "a", "other"), counted.operation()).await;
    assert!(matches!(other.kind(), ErrorKind::Mismatch), "{other:?}");
    assert_eq!(engine.ticks(), 47);
    ticks(&engine, 1).await;
    assert!(engine.lookup(&key).unwrap().is_none());
    assert_eq!(engine.stats().await.unwrap().records.completed, 0, "what a tick releases goes with it");
    assert_eq!(counted.runs(), 1);
    accept(&engine, &flow, &counted, "a").await;
    assert_eq!(counted.runs(), 2);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_tick_that_cannot_be_saved_says_so_and_delays_nothing_in_this_process() {
    let (faulty, flow, counted) = (Faulty::new(), payments(), Counted::new());
    let (store, engine) = faulty.open();
    let key = key(&flow, "a");
    accept(&engine, &flow, &counted, "a").await;
    engine.resolve(&flow, &key, None, sent()).await.unwrap();
    engine.acknowledge(&flow, &key).await.unwrap();
    ticks(&engine, 7).await;
    store.fail_commits(1, Fault::BeforeEffect);
    assert!(matches!(engine.tick().await.unwrap_err().kind(), ErrorKind::Store));
    assert!(engine.lookup(&key).unwrap().is_none());
    until(&engine, |stats| stats.storage_retries > 0).await;
    accept(&engine, &flow, &counted, "a").await;
    engine.shutdown().await;
}

#[tokio::test]
async fn what_happens_to_an_acknowledged_payment_begins_its_quiet_anew() {
    let (bench, flow, counted) = (Bench::new(), payments(), Counted::new());
    let engine = bench.open();
    let key = key(&flow, "a");
    assert_eq!(engine.disturb(&flow, &key).await.unwrap(), Acknowledged::NotFound);
    accept(&engine, &flow, &counted, "a").await;
    assert_eq!(engine.acknowledge(&flow, &key).await.unwrap(), Acknowledged::NoEffect(Status::Dispatched));
    engine.resolve(&flow, &key, None, sent()).await.unwrap();
    assert_eq!(engine.disturb(&flow, &key).await.unwrap(), Acknowledged::NoEffect(Status::Completed));
    engine.acknowledge(&flow, &key).await.unwrap();
    ticks(&engine, 5).await;
    assert_eq!(engine.disturb(&flow, &key).await.unwrap(), Acknowledged::Counting);
    ticks(&engine, 7).await;
    assert!(engine.lookup(&key).unwrap().is_some());
    ticks(&engine, 1).await;
    assert!(engine.lookup(&key).unwrap().is_none());
    engine.shutdown().await;
}

#[tokio::test]
async fn a_failed_payment_is_free_once_abandoned_and_an_end_of_the_earlier_attempt_cannot_touch_the_next() {
    let (bench, flow, counted) = (Bench::new(), payments(), Counted::new());
    let engine = bench.open();
    let key = key(&flow, "a");
    assert_eq!(engine.abandon(&flow, &key).await.unwrap(), Abandoned::NoEffect);
    accept(&engine, &flow, &counted, "a").await;
    let first = engine.lookup(&key).unwrap().unwrap().attempt;
    engine.resolve(&flow, &key, Some(first), failed()).await.unwrap();
    let known = error(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert_eq!((known.class(), known.recorded()), (Class::Duplicate, Some(&failed())));
    assert_eq!(engine.abandon(&flow, &key).await.unwrap(), Abandoned::Released);

    accept(&engine, &flow, &counted, "a").await;
    assert_eq!(engine.resolve(&flow, &key, Some(first), failed()).await.unwrap(), Resolved::FencedOff);
    assert_eq!(engine.lookup(&key).unwrap().unwrap().state.status(), Status::Dispatched);
    assert_eq!(engine.stats().await.unwrap().alarms, 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn an_abandoned_payment_is_gone_when_it_fails_and_its_trackers_hear_why() {
    let (bench, flow, counted) = (Bench::new(), payments(), Counted::new());
    let engine = bench.open();
    let key = key(&flow, "a");
    accept(&engine, &flow, &counted, "a").await;
    assert_eq!(engine.abandon(&flow, &key).await.unwrap(), Abandoned::Marked(Status::Dispatched));
    engine.shutdown().await;

    let engine = bench.open();
    assert!(engine.lookup(&key).unwrap().unwrap().abandoned, "also after a restart");
    assert_eq!(error(&engine, call(&flow, "a", "r"), counted.operation()).await.class(), Class::Duplicate);
    let tracker = tokio::spawn({
        let (engine, flow, key) = (engine.clone(), flow.clone(), key.clone());
        async move { engine.track(&flow, &key).await }
    });
    until(&engine, |stats| stats.in_flight == 1).await;
    settled(&engine).await;
    assert_eq!(engine.resolve(&flow, &key, None, failed()).await.unwrap(), Resolved::Recorded);
    assert_eq!(within_a_minute(tracker).await.unwrap().unwrap_err().recorded(), Some(&failed()));
    assert!(engine.lookup(&key).unwrap().is_none());
    engine.shutdown().await;
}

#[tokio::test]
async fn a_request_that_downstream_knows_is_dispatched_and_one_whose_key_is_taken_leaves_nothing() {
    let (bench, flow, counted) = (Bench::new(), payments(), Counted::new());
    let engine = bench.open();
    let known = error(&engine, call(&flow, "a", "r"), counted.ending(|_| End::AlreadyLive)).await;
    assert!(matches!(known.kind(), ErrorKind::Duplicate(Status::Dispatched)), "{known:?}");
    assert_eq!(engine.lookup(&key(&flow, "a")).unwrap().unwrap().state.status(), Status::Dispatched);
    let taken = error(&engine, call(&flow, "b", "r"), counted.ending(|_| End::Taken)).await;
    assert_eq!(taken.class(), Class::Conflict);
    assert!(engine.lookup(&key(&flow, "b")).unwrap().is_none());
    engine.shutdown().await;
}

#[tokio::test]
async fn what_downstream_still_sees_is_not_forgotten_and_what_cannot_be_read_is_named() {
    let (bench, flow, counted) = (Bench::new(), onions(), Counted::new());
    let is_over = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_over);
    let oracle = move |_| {
        let found = if asked.load(Ordering::SeqCst) { Found::NotStarted } else { Found::Live };
        std::future::ready(found)
    };
    let builder = Engine::builder().clock(bench.clock.clone()).oracle(&flow, oracle);
    let engine = builder.open(bench.path()).unwrap();
    for id in ["settled", "failed", "pending"] {
        accept(&engine, &flow, &counted, id).await;
    }
    engine.resolve(&flow, &key(&flow, "settled"), None, sent()).await.unwrap();
    engine.resolve(&flow, &key(&flow, "failed"), None, failed()).await.unwrap();
    let keys = ["settled", "failed", "settled", "pending", "never"].map(|id| key(&flow, id));
    let statuses = async || {
        let statuses = engine.forget(&flow, &keys).await.unwrap();
        statuses.into_iter().map(|(key, status)| (key.id().to_vec(), status)).collect::<Vec<_>>()
    };
    let of = |id: &str, status| (id.as_bytes().to_vec(), status);
    let pending = of("pending", Forgotten::InFlight(Status::Dispatched));
    let (live, gone, never) = (Forgotten::Live, Forgotten::Forgotten, of("never", Forgotten::NotFound));
    assert_eq!(statuses().await, [of("settled", live), of("failed", live), pending.clone(), never.clone()]);
    is_over.store(true, Ordering::SeqCst);
    assert_eq!(statuses().await, [of("settled", gone), of("failed", gone), pending, never]);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_fenced_key_is_not_asked_about_when_it_is_to_be_forgotten() {
    let (bench, flow) = (Bench::new(), onions());
    let asked = ibid::testing::Effects::new();
    let noted = asked.clone();
    let oracle = move |inquiry: ibid::Inquiry| {
        noted.note(inquiry.status().to_string());
        std::future::ready(Found::NotStarted)
    };
    let engine = Engine::builder().clock(bench.clock.clone()).oracle(&flow, oracle).open(bench.path()).unwrap();
    let key = key(&flow, "fenced");
    assert_eq!(engine.fence(&flow, &key).await.unwrap(), ibid::Fenced::Fenced);
    let statuses = engine.forget(&flow, std::slice::from_ref(&key)).await.unwrap();
    assert_eq!(statuses, [(key, Forgotten::Tombstone)]);
    assert_eq!(asked.all(), [], "nothing was ever sent under it");
    engine.shutdown().await;
}

#[tokio::test]
async fn an_oracle_that_panics_or_hangs_keeps_a_record_from_being_forgotten_and_nothing_else() {
    let (bench, flow, counted) = (Bench::new(), onions(), Counted::new());
    let oracle = |inquiry: ibid::Inquiry| async move {
        match inquiry.key().id() {
            b"panics" => panic!("the circuit map is gone"),
            _ => std::future::pending().await,
        }
    };
    let mut limits = Limits::default();
    limits.oracle_timeout = Duration::from_millis(20);
    let builder = Engine::builder().clock(bench.clock.clone()).limits(limits).oracle(&flow, oracle);
    let engine = builder.open(bench.path()).unwrap();
    for id in ["panics", "hangs"] {
        accept(&engine, &flow, &counted, id).await;
        engine.resolve(&flow, &key(&flow, id), None, sent()).await.unwrap();
        let statuses = engine.forget(&flow, &[key(&flow, id)]).await.unwrap();
        assert_eq!(statuses[0].1, Forgotten::Live, "{id}");
    }
    engine.shutdown().await;
}

#[test]
fn a_dispatched_record_is_asked_about_after_half_a_minute_without_news_and_missing_puts_it_in_doubt() {
    simulate(1, async |simulation| {
        let flow = payments();
        let asked = ibid::testing::Effects::new();
        let noted = asked.clone();
        let oracle = move |inquiry: ibid::Inquiry| {
            noted.note(String::from_utf8_lossy(inquiry.key().id()));
            std::future::ready(Found::Missing)
        };
        let store: Arc<dyn Store> = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
        let engine = simulation.open(Engine::builder().oracle(&flow, oracle), store).unwrap();
        accept(&engine, &flow, &Counted::new(), "old").await;
        simulation.pass(Duration::from_millis(10_500)).await;
        accept(&engine, &flow, &Counted::new(), "young").await;
        simulation.pass(Duration::from_millis(20_000)).await;
        let first = asked.all().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(first, ["old"], "20 s are not 30");
        let old = engine.lookup(&key(&flow, "old")).unwrap().unwrap();
        assert_eq!((old.state.status(), old.recoveries), (Status::InDoubt, 0));
        let retry = error(&engine, call(&flow, "old", "r"), Counted::new().operation()).await;
        assert!(matches!(retry.kind(), ErrorKind::Duplicate(Status::InDoubt)), "{retry:?}");
        simulation.pass(Duration::from_secs(40)).await;
        let young = engine.lookup(&key(&flow, "young")).unwrap().unwrap();
        assert_eq!(young.state.status(), Status::InDoubt);
        assert!(engine.list(None, 9).unwrap().iter().all(|listed| !listed.is_dead_letter), "it does not count");
        engine.shutdown().await;
    })
    .unwrap();
}

#[tokio::test]
async fn a_tracker_that_names_another_request_is_told_so() {
    let (bench, flow, counted) = (Bench::new(), onions(), Counted::new());
    let engine = bench.open();
    let key = key(&flow, "a");
    accept(&engine, &flow, &counted, "a").await;
    let other = engine.track_request(&flow, &key, b"other").await.unwrap_err();
    assert!(matches!(other.kind(), ErrorKind::Mismatch), "{other:?}");
    let tracker = tokio::spawn({
        let (engine, flow, key) = (engine.clone(), flow.clone(), key.clone());
        async move { engine.track_request(&flow, &key, b"r").await }
    });
    engine.resolve(&flow, &key, None, sent()).await.unwrap();
    assert_eq!(&*within_a_minute(tracker).await.unwrap().unwrap().answer, b"preimage");
    engine.shutdown().await;
}

fn row(key: &[u8], value: &[u8]) -> Row {
    Row::new("t", key, value).unwrap()
}

#[tokio::test]
async fn rows_without_a_record_are_written_together_or_not_at_all() {
    let bench = Bench::new();
    let engine = bench.open();
    assert!(engine.write_rows(vec![]).await.unwrap());
    let reserved = ibid::Flow::new("ibid.rows", Policy::replay(Duration::ZERO));
    assert!(matches!(reserved, Err(ibid::InvalidKey::FlowReserved)), "a host's records never stand in the way of rows");
    assert!(engine.write_rows(vec![row(b"a", b"1"), row(b"b", b"")]).await.unwrap());
    let guarded = row(b"b", b"3").guard(Guard::Absent);
    assert!(!engine.write_rows(vec![row(b"a", b"2"), guarded]).await.unwrap(), "the guard does not hold");
    engine.shutdown().await;
    assert!(matches!(engine.write_rows(vec![row(b"a", b"4")]).await.unwrap_err().kind(), ErrorKind::Closed));

    let engine = bench.open();
    let value = |key: &[u8]| engine.ledger_row("t", key).unwrap().map(|row| row.value.to_vec());
    assert_eq!((value(b"a"), value(b"b"), value(b"c")), (Some(b"1".to_vec()), Some(vec![]), None));
    let blocking = engine.clone();
    let written = std::thread::spawn(move || blocking.write_rows_blocking(vec![row(b"c", b"5")]));
    assert!(written.join().unwrap().unwrap());
    assert_eq!(engine.ledger_row("t", b"c").unwrap().unwrap().value.to_vec(), b"5");
    assert_eq!(engine.stats().await.unwrap().live_actors, 0);
    engine.shutdown().await;
}

#[tokio::test]
async fn writes_of_one_row_keep_their_order_and_a_failed_commit_loses_none() {
    let faulty = Faulty::new();
    let (store, engine) = faulty.open();
    store.fail_commits(1, Fault::BeforeEffect);
    let writes = (0..100_u8).map(|n| engine.write_rows(vec![row(b"a", &[n])]));
    let mut writes: Vec<_> = writes.map(Box::pin).collect();
    for write in &mut writes {
        // Polled once each, in order: submitted in that order.
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(write.as_mut().poll(cx).is_pending())).await);
    }
    for write in writes {
        assert!(within_a_minute(write).await.unwrap());
    }
    assert_eq!(engine.ledger_row("t", b"a").unwrap().unwrap().value.to_vec(), [99]);
    engine.shutdown().await;
}

#[tokio::test]
async fn rows_whose_own_write_may_stand_in_their_way_are_not_said_to_be_unwritten() {
    let faulty = Faulty::new();
    let (store, engine) = faulty.open();
    let claim = |value: &[u8]| row(b"claim", value).guard(Guard::Absent);
    // Everything was written, and nobody was told so: on the second try the guard does not hold.
    store.fail_commits(1, Fault::AfterEffect);
    let error = within_a_minute(engine.write_rows(vec![claim(b"mine")])).await.unwrap_err();
    assert_eq!((error.class(), matches!(error.kind(), ErrorKind::Store)), (Class::Ambiguous, true), "{error:?}");
    assert_eq!(engine.ledger_row("t", b"claim").unwrap().unwrap().value.to_vec(), b"mine");
    // What was never tried is guarded, and what was surely not written is written at the second try.
    assert!(!engine.write_rows(vec![claim(b"another's")]).await.unwrap());
    store.fail_commits(1, Fault::BeforeEffect);
    assert!(within_a_minute(engine.write_rows(vec![row(b"free", b"1").guard(Guard::Absent)])).await.unwrap());
    engine.shutdown().await;
}

#[tokio::test]
async fn an_answer_ended_with_its_attempts_name_is_told_from_one_of_another_record() {
    let (bench, flow, (counted, mut starts)) = (Bench::new(), onions(), Counted::held());
    let engine = bench.open();
    let key = key(&flow, "a");
    let (names, mut named) = tokio::sync::mpsc::unbounded_channel::<AttemptId>();
    let held = counted.clone();
    let operation = Operation::new(async move |attempt| {
        names.send(attempt.id()).unwrap();
        held.pass().await;
        End::Unknown(Reason::from_bytes(*b"lost"))
    });
    let caller = submit(&engine, call(&flow, "a", "r"), operation);
    starts.recv().await.unwrap();
    let own = named.recv().await.unwrap();
    let elsewhere = AttemptId { token: Token([0; 32]), ..own };
    assert_eq!(engine.resolve(&flow, &key, Some(elsewhere), sent()).await.unwrap(), Resolved::FencedOff);
    assert_eq!(engine.resolve(&flow, &key, Some(own), sent()).await.unwrap(), Resolved::Recorded);
    counted.release();
    assert_eq!(&*crate::support::heard(caller).await.answer, b"preimage");
    engine.shutdown().await;
}
