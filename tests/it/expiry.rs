//! The edge, the grace, and RefuseOnce that does not stick.

use crate::support::*;
use ibid::store::{Batch, Change, MemoryStore, Store, StoreError, Verdict};
use ibid::testing::{FaultyStore, Layer, ManualClock, Outage};
use ibid::{AfterExpiry, Class, Engine, ErrorKind, Flow, How, Limits, Policy, Retention};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const TEN_MINUTES: Duration = Duration::from_secs(600);
const GRACE: Duration = Duration::from_secs(120);

fn flow_with(after_expiry: AfterExpiry) -> Flow {
    flow_of(Policy::replay(TEN_MINUTES).after_expiry(after_expiry).grace(GRACE))
}

async fn expired(engine: &Engine, flow: &Flow, counted: &Counted) {
    let heard = error(engine, call(flow, "a", "r"), counted.operation()).await;
    assert!(matches!(heard.kind(), ErrorKind::Expired) && heard.class() == Class::Conflict, "{heard:?}");
}

async fn how(engine: &Engine, flow: &Flow, counted: &Counted) -> How {
    answer(engine, call(flow, "a", "r"), counted.operation()).await.how
}

#[tokio::test]
async fn refuse_once_refuses_once_from_the_very_millisecond_of_expiry() {
    let (bench, flow, counted) = (Bench::new(), flow_with(AfterExpiry::RefuseOnce), Counted::new());
    let engine = bench.open();
    assert_eq!(how(&engine, &flow, &counted).await, How::Executed);
    bench.clock.advance(TEN_MINUTES - Duration::from_millis(1));
    assert_eq!(how(&engine, &flow, &counted).await, How::Replayed);
    bench.clock.advance(Duration::from_millis(1));
    expired(&engine, &flow, &counted).await;
    assert_eq!(engine.stats().await.unwrap().records.completed, 0, "pruned");
    assert_eq!(how(&engine, &flow, &counted).await, How::Executed);
    assert_eq!(counted.runs(), 2);
    engine.shutdown().await;
}

#[tokio::test]
async fn of_two_requests_that_touch_an_expired_record_together_exactly_one_is_refused() {
    let (bench, flow, counted) = (Bench::new(), flow_with(AfterExpiry::RefuseOnce), Counted::new());
    let engine = bench.open();
    for round in 1..=20 {
        assert_eq!(how(&engine, &flow, &counted).await, How::Executed);
        bench.clock.advance(TEN_MINUTES);
        let submit = || engine.submit(call(&flow, "a", "r"), counted.operation());
        let (one, two) = tokio::join!(submit(), submit());
        assert_eq!(usize::from(one.is_err()) + usize::from(two.is_err()), 1, "round {round}");
        bench.clock.advance(TEN_MINUTES + GRACE);
    }
    assert_eq!(counted.runs(), 40);
    engine.shutdown().await;
}

#[tokio::test]
async fn refuse_refuses_until_the_grace_ends_and_rerun_never() {
    for (policy, in_grace_runs) in [(AfterExpiry::Refuse, false), (AfterExpiry::Rerun, true)] {
        let (bench, flow, counted) = (Bench::new(), flow_with(policy), Counted::new());
        let engine = bench.open();
        how(&engine, &flow, &counted).await;
        bench.clock.advance(TEN_MINUTES + GRACE - Duration::from_millis(1));
        if in_grace_runs {
            assert_eq!(how(&engine, &flow, &counted).await, How::Executed);
        } else {
            expired(&engine, &flow, &counted).await;
            expired(&engine, &flow, &counted).await;
            bench.clock.advance(Duration::from_millis(1));
            assert_eq!(how(&engine, &flow, &counted).await, How::Executed);
        }
        assert_eq!(counted.runs(), 2);
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn no_answer_depends_on_whether_an_expiry_sweep_has_run() {
    for sweep in [false, true] {
        let (bench, flow, counted) = (Bench::new(), flow_with(AfterExpiry::RefuseOnce), Counted::new());
        let engine = bench.open();
        how(&engine, &flow, &counted).await;
        bench.clock.advance(TEN_MINUTES + GRACE - Duration::from_millis(1));
        if sweep {
            assert_eq!(engine.expiry_sweep().await.unwrap(), 0, "in its grace a record stays");
        }
        expired(&engine, &flow, &counted).await;

        how(&engine, &flow, &counted).await;
        bench.clock.advance(TEN_MINUTES + GRACE);
        if sweep {
            assert_eq!(engine.expiry_sweep().await.unwrap(), 1);
        }
        assert_eq!(engine.lookup(&key(&flow, "a")).unwrap(), None);
        assert_eq!(how(&engine, &flow, &counted).await, How::Executed);
        assert_eq!(counted.runs(), 3);
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn an_expiry_sweep_of_many_slices_removes_what_is_due_and_nothing_else() {
    let (bench, counted) = (Bench::new(), Counted::new());
    let engine = bench.open();
    let short = flow_of(Policy::replay(Duration::from_secs(60)));
    let long = flow_of(Policy::replay(TEN_MINUTES));
    let calls = (0..1_000).map(|n| call(if n % 4 == 0 { &long } else { &short }, &n.to_string(), "r"));
    let submitted: Vec<_> = calls
        .map(|call| {
            let (engine, operation) = (engine.clone(), counted.operation());
            tokio::spawn(async move { answer(&engine, call, operation).await })
        })
        .collect();
    for one in submitted {
        one.await.unwrap();
    }
    bench.clock.advance(Duration::from_secs(60));
    assert_eq!(engine.expiry_sweep().await.unwrap(), 750);
    assert_eq!(engine.expiry_sweep().await.unwrap(), 0);
    assert_eq!(engine.stats().await.unwrap().records.completed, 250);
    engine.shutdown().await;
}

/// A store that notes how many changes of each transaction write, and how many remove.
#[derive(Default)]
struct Watched {
    below: MemoryStore,
    noted: Mutex<Vec<(usize, usize)>>,
}

impl Layer for Watched {
    fn below(&self) -> &dyn Store {
        &self.below
    }

    fn commit(&self, batch: &Batch) -> Result<Vec<Verdict>, StoreError> {
        let writes = |change: &&Change| change.put.is_some();
        let writing = batch.changes.iter().filter(writes).count();
        self.noted.lock().unwrap().push((writing, batch.changes.len() - writing));
        self.below.commit(batch)
    }
}

#[tokio::test]
async fn a_request_does_not_wait_for_a_whole_slice_of_an_expiry_sweep() {
    let (watched, clock, counted) = (Arc::new(Watched::default()), ManualClock::at(START), Counted::new());
    let store = Arc::new(FaultyStore::new(watched.clone()));
    let engine = Engine::builder().clock(clock.clone()).open_store(store.clone()).unwrap();
    let flow = flow_of(Policy::replay(TEN_MINUTES));
    for n in 0..1_000 {
        answer(&engine, call(&flow, &n.to_string(), "r"), counted.operation()).await;
    }
    clock.advance(TEN_MINUTES);
    watched.noted.lock().unwrap().clear();
    let gate = store.hold_commits();
    let sweeping = tokio::spawn({
        let engine = engine.clone();
        async move { engine.expiry_sweep().await }
    });
    settled(&engine).await;
    let fresh = submit(&engine, call(&flow, "fresh", "r"), counted.operation());
    settled(&engine).await;
    drop(gate);
    heard(fresh).await;
    assert_eq!(sweeping.await.unwrap().unwrap(), 1_000);
    let noted = watched.noted.lock().unwrap().clone();
    let beside: Vec<_> = noted.iter().filter(|(writing, _)| *writing > 0).map(|(_, removing)| *removing).collect();
    assert!(!beside.is_empty() && beside.iter().all(|removing| *removing <= 16), "{noted:?}");
    let alone = noted.iter().filter(|(writing, _)| *writing == 0).map(|(_, removing)| *removing);
    assert_eq!(alone.max(), Some(256), "by itself it is as fast as it may be: {noted:?}");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_slice_removes_so_many_records_oldest_expiry_first_and_only_what_is_past_its_grace() {
    let (bench, counted) = (Bench::new(), Counted::new());
    let mut limits = Limits::default();
    limits.expiry_slice = 4;
    let engine = bench.open_with(limits);
    let flow = flow_with(AfterExpiry::RefuseOnce);
    // The last one registered expires first.
    for n in (0..10).rev() {
        let bound = Duration::from_secs(60 + n);
        answer(&engine, call(&flow, &n.to_string(), "r").retention(bound), counted.operation()).await;
    }
    bench.clock.advance(Duration::from_secs(60) + GRACE - Duration::from_millis(1));
    assert_eq!(engine.expiry_sweep_slice(4).await.unwrap(), 0, "in its grace a record stays");
    bench.clock.advance(Duration::from_secs(7));
    // A lapsed record reads as absent wherever it is asked for, so the totals say what is still there.
    for (limit, removed, left) in [(0, 0, 10), (3, 3, 7), (100, 4, 3), (4, 0, 3)] {
        assert_eq!(engine.expiry_sweep_slice(limit).await.unwrap(), removed, "a slice of {limit}");
        assert_eq!(engine.stats().await.unwrap().records.completed, left);
    }
    bench.clock.advance(Duration::from_secs(10));
    let slices = tokio::join!(engine.expiry_sweep_slice(2), engine.expiry_sweep_slice(2), engine.expiry_sweep());
    let removed = [slices.0, slices.1, slices.2].map(Result::unwrap);
    assert_eq!((removed.iter().sum::<u64>(), counted.runs()), (3, 10), "{removed:?}");
    engine.shutdown().await;
}

#[tokio::test]
async fn the_slices_of_an_expiry_sweep_go_by_the_age_of_the_end() {
    let (inner, clock, counted) = (Arc::new(MemoryStore::new()), ManualClock::at(START), Counted::new());
    let engine = Engine::builder().clock(clock.clone()).open_store(inner.clone()).unwrap();
    let flow = flow_with(AfterExpiry::RefuseOnce);
    for n in (0..6).rev() {
        let bound = Duration::from_secs(60 + n);
        answer(&engine, call(&flow, &n.to_string(), "r").retention(bound), counted.operation()).await;
    }
    clock.advance(TEN_MINUTES + GRACE);
    let stored = || (0..6).filter(|n| inner.get(&key(&flow, &n.to_string())).unwrap().is_some()).collect::<Vec<u32>>();
    assert_eq!(engine.expiry_sweep_slice(2).await.unwrap(), 2);
    assert_eq!(stored(), [2, 3, 4, 5]);
    assert_eq!(engine.expiry_sweep_slice(3).await.unwrap(), 3);
    assert_eq!(stored(), [5]);
    engine.shutdown().await;
    let closed = engine.expiry_sweep_slice(1).await.unwrap_err();
    assert!(matches!(closed.kind(), ErrorKind::Closed), "{closed:?}");
}

#[tokio::test]
async fn a_slice_removes_nothing_by_a_suspect_clock() {
    let (bench, counted) = (Bench::new(), Counted::new());
    let engine = bench.open();
    how(&engine, &flow_of(Policy::replay(TEN_MINUTES)), &counted).await;
    bench.clock.set(START.saturating_add(Duration::from_secs(7_200)));
    assert_eq!(engine.expiry_sweep_slice(1).await.unwrap(), 0);
    engine.confirm_clock();
    assert_eq!(engine.expiry_sweep_slice(1).await.unwrap(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn of_several_slices_that_come_to_nothing_each_is_told_so() {
    let (bench, counted) = (Bench::new(), Counted::new());
    let engine = bench.open();
    how(&engine, &flow_of(Policy::replay(TEN_MINUTES)), &counted).await;
    bench.clock.set(START.saturating_add(Duration::from_secs(7_200)));
    let slices = async { tokio::join!(engine.expiry_sweep_slice(1), engine.expiry_sweep_slice(1)) };
    let (one, two) = within_a_minute(slices).await;
    assert_eq!((one.unwrap(), two.unwrap()), (0, 0), "the clock is suspect");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_slice_says_that_the_store_is_down_and_removes_when_it_is_back() {
    let faulty = Faulty::new();
    let (store, engine) = faulty.open();
    let counted = Counted::new();
    let flow = flow_of(Policy::replay(TEN_MINUTES));
    answer(&engine, call(&flow, "a", "r").retention(Duration::ZERO), counted.operation()).await;
    store.break_down(Outage::Commits);
    for _ in 0..2 {
        let down = engine.expiry_sweep_slice(1).await.unwrap_err();
        assert!(matches!(down.kind(), ErrorKind::Store), "{down:?}");
    }
    store.heal();
    until(&engine, |stats| stats.storage_retries > 0).await;
    assert_eq!(engine.expiry_sweep_slice(1).await.unwrap(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_tombstone_turns_a_late_retry_away_until_its_own_end() {
    let (bench, counted) = (Bench::new(), Counted::new());
    let flow = flow_of(Policy::replay(TEN_MINUTES).tombstone(Duration::from_secs(3600)));
    let engine = bench.open();
    how(&engine, &flow, &counted).await;
    bench.clock.advance(TEN_MINUTES);
    // Under Rerun an expired record runs anew only where nothing stands in for it.
    expired(&engine, &flow, &counted).await;
    assert_eq!(engine.expiry_sweep().await.unwrap(), 1);
    assert_eq!(engine.stats().await.unwrap().records.tombstone, 1);
    bench.clock.advance(Duration::from_secs(3600) - Duration::from_millis(1));
    expired(&engine, &flow, &counted).await;
    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(how(&engine, &flow, &counted).await, How::Executed);
    assert_eq!(counted.runs(), 2);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_record_in_flight_never_expires() {
    let (bench, (counted, mut starts)) = (Bench::new(), Counted::held());
    let flow = flow_of(Policy::request_invoice());
    let engine = bench.open();
    let first = {
        let call = call(&flow, "a", "r").retention(TEN_MINUTES);
        let (engine, operation) = (engine.clone(), counted.operation());
        tokio::spawn(async move { answer(&engine, call, operation).await })
    };
    starts.recv().await.unwrap();
    bench.clock.advance(TEN_MINUTES * 100);
    assert_eq!(engine.expiry_sweep().await.unwrap(), 0);
    counted.release();
    assert_eq!(first.await.unwrap().how, How::Executed, "whoever waits gets the answer, however late");
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_retention_past_the_end_of_time_registers_nothing() {
    let (bench, counted) = (Bench::new(), Counted::new());
    bench.clock.set(ibid::UnixMillis(u64::MAX - 1000));
    let engine = bench.open();
    let flow = flow_of(Policy::request_invoice());
    let heard = error(&engine, call(&flow, "a", "r").retention(TEN_MINUTES), counted.operation()).await;
    assert!(matches!(heard.kind(), ErrorKind::RetentionOverflow), "{heard:?}");
    let none = error(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert!(matches!(none.kind(), ErrorKind::RetentionMissing), "{none:?}");
    assert_eq!((counted.runs(), engine.lookup(&key(&flow, "a")).unwrap()), (0, None));
    engine.shutdown().await;
}

#[tokio::test]
async fn a_record_without_an_end_stays_until_it_is_forgotten() {
    let (bench, counted) = (Bench::new(), Counted::new());
    let flow = flow_of(Policy::replay(TEN_MINUTES).retention(Retention::UntilForgotten));
    let engine = bench.open();
    how(&engine, &flow, &counted).await;
    bench.clock.advance(Duration::from_secs(86_400 * 365 * 100));
    assert_eq!(engine.expiry_sweep().await.unwrap(), 0);
    assert_eq!(how(&engine, &flow, &counted).await, How::Replayed);
    engine.shutdown().await;
}
