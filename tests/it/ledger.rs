//! Both rows or none: a ledger row is written in the transaction that records the completion.

use crate::support::*;
use ibid::{AfterCheckpoint, Class, Completion, End, Flow, Guard, How, OnFailure, Operation, Policy, Reason, Row};
use std::time::Duration;

const TABLE: &str = "inbound_payments";
const TEN_MINUTES: Duration = Duration::from_secs(600);

fn row(value: &[u8]) -> Row {
    Row::new(TABLE, *b"hash", value).unwrap()
}

/// Completes with `value` as answer and as row, if nobody has the row.
fn claim(value: &'static [u8]) -> Completion {
    let reason = Reason::from_bytes(*b"taken");
    Completion::new(value).row(row(value).guard(Guard::Absent)).otherwise(reason)
}

#[tokio::test]
async fn a_row_is_there_as_soon_as_the_answer_is_and_after_a_restart() {
    let (bench, flow, counted) = (Bench::new(), flow(), Counted::new());
    let engine = bench.open();
    answer(&engine, call(&flow, "a", "r"), counted.ending(|_| End::Done(claim(b"first")))).await;
    assert_eq!(&*engine.ledger_row(TABLE, b"hash").unwrap().unwrap().value, b"first");
    assert_eq!(engine.ledger_row("another", b"hash").unwrap(), None);
    engine.shutdown().await;
    let engine = bench.open();
    assert_eq!(&*engine.ledger_row(TABLE, b"hash").unwrap().unwrap().value, b"first");
    assert_eq!(engine.ledger_rows(TABLE, None, 10).unwrap().len(), 1);
    assert_eq!(engine.ledger_rows(TABLE, Some(b"hash"), 10).unwrap().len(), 0);
    let replay = answer(&engine, call(&flow, "a", "r"), counted.ending(|_| End::Done(claim(b"second")))).await;
    assert_eq!((replay.how, &*replay.answer), (How::Replayed, b"first".as_slice()));
    engine.shutdown().await;
}

#[tokio::test]
async fn a_completion_removes_a_row_with_its_answer_or_not_at_all() {
    let (bench, flow, counted) = (Bench::new(), flow(), Counted::new());
    let engine = bench.open();
    answer(&engine, call(&flow, "a", "r"), counted.ending(|_| End::Done(claim(b"first")))).await;
    let release = |seen: &'static [u8]| {
        let removal = Row::removal(TABLE, *b"hash").unwrap().guard(Guard::Equals(seen.into()));
        Completion::new(*b"released").row(removal).otherwise(Reason::from_bytes(*b"not mine"))
    };
    let lost = error(&engine, call(&flow, "b", "r"), counted.ending(move |_| End::Done(release(b"other")))).await;
    assert_eq!(lost.class(), Class::Definitive, "{lost:?}");
    assert!(engine.ledger_row(TABLE, b"hash").unwrap().is_some());
    let heard = answer(&engine, call(&flow, "c", "r"), counted.ending(move |_| End::Done(release(b"first")))).await;
    assert_eq!(&*heard.answer, b"released");
    assert_eq!(engine.ledger_row(TABLE, b"hash").unwrap(), None);
    engine.shutdown().await;
    assert_eq!(bench.open().ledger_rows(TABLE, None, 10).unwrap(), vec![]);
}

#[tokio::test]
async fn of_two_keys_that_want_one_row_at_the_same_time_exactly_one_gets_it() {
    for (on_failure, left_behind) in [(OnFailure::Forget, 1), (OnFailure::Keep, 2)] {
        let (bench, (counted, mut starts)) = (Bench::new(), Counted::held());
        let flow = flow_of(Policy::replay(TEN_MINUTES).on_failure(on_failure));
        let engine = bench.open();
        let submit = |id: &'static str| {
            let operation = counted.ending(move |_| End::Done(claim(id.as_bytes())));
            let (engine, call) = (engine.clone(), call(&flow, id, "r"));
            tokio::spawn(async move { engine.submit(call, operation).await })
        };
        let callers = [submit("a"), submit("b")];
        for _ in 0..2 {
            starts.recv().await.unwrap();
        }
        counted.release();
        let mut lost = 0;
        for caller in callers {
            if let Err(heard) = caller.await.unwrap() {
                assert_eq!(heard.class(), Class::Definitive, "{heard:?}");
                assert_eq!(heard.reason().unwrap().bytes().as_ref(), b"taken");
                lost += 1;
            }
        }
        assert_eq!((lost, counted.runs()), (1, 2));
        let records = engine.stats().await.unwrap().records;
        assert_eq!(records.completed, 1);
        assert_eq!(records.completed + records.failed, left_behind);
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn losing_the_row_is_proof_also_after_a_checkpoint_that_would_leave_a_doubt() {
    let bench = Bench::new();
    let flow = flow_of(Policy::replay(TEN_MINUTES).after_checkpoint(AfterCheckpoint::Doubt));
    let engine = bench.open();
    answer(&engine, call(&flow, "a", "r"), Counted::new().ending(|_| End::Done(claim(b"first")))).await;
    let operation = Operation::new(async |attempt| {
        attempt.checkpoint(*b"minted", None).await.unwrap();
        End::Done(claim(b"second"))
    });
    let heard = error(&engine, call(&flow, "b", "r"), operation).await;
    assert_eq!(heard.class(), Class::Definitive, "{heard:?}");
    assert_eq!(engine.lookup(&key(&flow, "b")).unwrap(), None);
    assert_eq!(&*engine.ledger_row(TABLE, b"hash").unwrap().unwrap().value, b"first");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_row_is_replaced_by_whoever_has_seen_its_value() {
    let (bench, flow) = (Bench::new(), flow());
    let engine = bench.open();
    let write = async |id: &'static str, value: &'static [u8], guard: Guard| {
        let completion = Completion::new(*b"answer").row(row(value).guard(guard));
        engine.submit(call(&flow, id, "r"), Counted::new().ending(|_| End::Done(completion))).await.is_ok()
    };
    assert!(write("a", b"pending", Guard::Absent).await);
    assert!(!write("b", b"claimed", Guard::Equals((*b"other").into())).await);
    assert!(write("c", b"claimed", Guard::Equals((*b"pending").into())).await);
    assert!(!write("d", b"claimed twice", Guard::Equals((*b"pending").into())).await);
    assert_eq!(&*engine.ledger_row(TABLE, b"hash").unwrap().unwrap().value, b"claimed");
    engine.shutdown().await;
}

#[tokio::test]
async fn row_and_record_end_each_on_its_own() {
    let (bench, minute) = (Bench::new(), Duration::from_secs(60));
    let engine = bench.open();
    let flow_for = |minutes: u32| -> Flow { flow_of(Policy::replay(minute * minutes)) };
    // A row that outlives its record, and one that doesn't.
    for (id, record, row_minutes) in [("a", 1, 2), ("b", 2, 1)] {
        let row = Row::new(TABLE, id.as_bytes(), *b"v").unwrap();
        let row = row.expires_at(START.saturating_add(minute * row_minutes));
        let completion = Completion::new(*b"answer").row(row);
        let operation = Counted::new().ending(|_| End::Done(completion));
        answer(&engine, call(&flow_for(record), id, "r"), operation).await;
    }
    bench.clock.advance(minute);
    for sweep in [false, true] {
        if sweep {
            assert_eq!(engine.expiry_sweep().await.unwrap(), 1, "one record; rows are not counted");
        }
        assert!(engine.ledger_row(TABLE, b"a").unwrap().is_some());
        assert_eq!(engine.ledger_row(TABLE, b"b").unwrap(), None, "expired, whether removed or not");
        assert_eq!(engine.ledger_rows(TABLE, None, 10).unwrap().len(), if sweep { 1 } else { 2 });
        assert_eq!(engine.lookup(&key(&flow_for(1), "a")).unwrap(), None);
        assert!(engine.lookup(&key(&flow_for(1), "b")).unwrap().is_some());
    }
    engine.shutdown().await;
}
