//! A caller looks its key up before it asks; by the time it is heard, what it saw may be old news.

use crate::support::*;
use ibid::store::{Batch, MemoryStore, Store, StoreError, Verdict};
use ibid::testing::Layer;
use ibid::{Class, ErrorKind, Flow, How, InDoubt, Key, Policy, Reason, Record};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A store that counts reads, and on request shows an absent key to the next one, or fences every change off.
#[derive(Default)]
struct Dated {
    store: MemoryStore,
    reads: AtomicUsize,
    blind: AtomicUsize,
    fences: AtomicUsize,
}

impl Dated {
    fn new() -> Arc<Self> {
        Arc::new(Self { store: MemoryStore::new(), ..Self::default() })
    }

    /// The next read is as old as the key.
    fn lag(&self) {
        self.blind.store(1, Ordering::SeqCst);
    }

    fn reads(&self) -> usize {
        self.reads.swap(0, Ordering::SeqCst)
    }
}

impl Layer for Dated {
    fn below(&self) -> &dyn Store {
        &self.store
    }

    fn commit(&self, batch: &Batch) -> Result<Vec<Verdict>, StoreError> {
        if self.fences.load(Ordering::SeqCst) > 0 && !batch.changes.is_empty() {
            self.fences.fetch_sub(1, Ordering::SeqCst);
            return Ok(vec![Verdict::Fenced; batch.changes.len()]);
        }
        self.store.commit(batch)
    }

    fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.blind.swap(0, Ordering::SeqCst) == 1 { Ok(None) } else { self.store.get(key) }
    }
}

/// The key's actor has gone, and with it the record that it knew.
async fn gone(engine: &ibid::Engine) {
    assert_eq!(engine.stats().await.unwrap().live_actors, 0);
}

#[tokio::test]
async fn a_request_that_saw_its_key_absent_gets_the_answer_that_came_since() {
    late_requests_are_answered(flow(), 1).await;
}

#[tokio::test]
async fn so_does_one_that_would_start_without_a_registration_to_be_compared() {
    let policy = Policy::replay(Duration::from_secs(600)).in_doubt(InDoubt::Rerun).replay_safe();
    late_requests_are_answered(flow_of(policy), 2).await;
}

/// `reads`: what a fresh request costs.
async fn late_requests_are_answered(flow: Flow, reads: usize) {
    let store = Dated::new();
    let engine = ibid::Engine::builder().open_store(Arc::clone(&store) as Arc<dyn Store>).unwrap();
    let counted = Counted::new();
    let first = answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert_eq!((first.how, store.reads()), (How::Executed, reads), "a fresh request reads so often");

    gone(&engine).await;
    store.lag();
    let again = answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert_eq!((again.how, &again.answer, store.reads()), (How::Replayed, &first.answer, 2), "and a late one again");

    store.lag();
    let barred = call(&flow, "a", "r").barred(Reason::from_bytes(*b"not now"));
    let again = answer(&engine, barred, counted.operation()).await;
    assert_eq!((again.how, &again.answer), (How::Replayed, &first.answer), "a record answers a barred request");

    store.lag();
    let refused = error(&engine, call(&flow, "a", "another"), counted.operation()).await;
    assert!(matches!(refused.kind(), ErrorKind::Mismatch), "{refused:?}");
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_write_that_is_fenced_off_again_and_again_is_a_bug_and_says_so() {
    let store = Dated::new();
    let engine = ibid::Engine::builder().open_store(Arc::clone(&store) as Arc<dyn Store>).unwrap();
    let (flow, counted) = (flow(), Counted::new());
    store.fences.store(4, Ordering::SeqCst);
    let refused = error(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert!(matches!(refused.kind(), ErrorKind::Internal) && refused.class() == Class::Ambiguous, "{refused:?}");
    assert_eq!((counted.runs(), store.fences.load(Ordering::SeqCst)), (0, 0), "four in a row");

    store.fences.store(3, Ordering::SeqCst);
    assert_eq!(answer(&engine, call(&flow, "a", "r"), counted.operation()).await.how, How::Executed);
    assert_eq!(counted.runs(), 1, "three are decided anew");

    let (held, mut starts) = Counted::held();
    let first = submit(&engine, call(&flow, "b", "r"), held.operation());
    starts.recv().await.unwrap();
    store.fences.store(4, Ordering::SeqCst);
    held.release();
    let lost = first.await.unwrap().unwrap_err();
    assert!(matches!(lost.kind(), ErrorKind::Internal) && lost.class() == Class::Ambiguous, "{lost:?}");
    let retry = error(&engine, call(&flow, "b", "r"), held.operation()).await;
    assert!(matches!(retry.kind(), ErrorKind::InDoubt(_)), "its end is not recorded: {retry:?}");
    assert_eq!(held.runs(), 1);
    engine.shutdown().await;
}
