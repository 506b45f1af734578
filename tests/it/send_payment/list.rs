//! What is under way is listed page by page, with what somebody should look at: dead letters, and entries that cannot be read.

use std::sync::Arc;
use std::time::Duration;

use ibid::lightning::send_payment::{
    Handled, Listing, Payment, PaymentError, PaymentPage, PaymentSent, SendPayment, SendPaymentSetup, Sent, Standing,
};
use ibid::store::{MemoryStore, RedbOptions, RedbStore};
use ibid::testing::simulate;
use ibid::{Call, Engine, Flow, Key, Limits, NodeId, Operation, Policy};

use super::model::{Id, Ldk, Script, hash};
use super::{P, P2, X, Y, flow, invoice, own_node_id, paid};
use crate::support::{Bench, until, within_a_minute};

fn setup(ldk: &Ldk) -> SendPaymentSetup {
    SendPaymentSetup::new(flow(), own_node_id(), Arc::new(ldk.clone()))
}

/// Its shutdown waits for nothing that hangs.
fn in_memory(ldk: &Ldk) -> (Engine, SendPayment) {
    let (setup, mut limits) = (setup(ldk), Limits::default());
    limits.drain = Duration::from_millis(1);
    let engine = setup.prepare(Engine::builder().limits(limits)).open_in_memory().unwrap();
    (engine.clone(), setup.bind(engine).unwrap())
}

fn key(id: Id) -> Key {
    flow().key(own_node_id(), id).unwrap()
}

/// Goes on by itself, under whatever key.
async fn hang(engine: &Engine, flow: &Flow, key: &Key) {
    let operation = Operation::new(async |_| std::future::pending().await);
    let running = engine.stats().await.unwrap().running;
    engine.try_submit(Call::new(flow, key, *b"r"), operation, drop).unwrap();
    until(engine, |stats| stats.running > running).await;
}

#[tokio::test]
async fn a_list_goes_on_where_it_ended_and_names_the_payments_of_this_node_alone() {
    let (engine, payments) = in_memory(&Ldk::new());
    let other = Flow::new("other", Policy::send_payment()).unwrap();
    for number in 0..3 {
        assert_eq!(within_a_minute(payments.send(invoice([number; 32], P))).await.unwrap(), Sent::Accepted);
        hang(&engine, &other, &other.key(own_node_id(), [number; 32]).unwrap()).await;
        let foreign = flow().key(NodeId::new([3; 33]).unwrap(), [number; 32]).unwrap();
        hang(&engine, &flow(), &foreign).await;
    }
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = payments.list(after, 2).unwrap();
        pages.push(page.payments.iter().map(|payment| payment.id[0]).collect::<Vec<_>>());
        assert_eq!(page.quarantined, 0);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(pages, [vec![0], vec![1], vec![], vec![2], vec![]]);
    assert_eq!(payments.list(None, 99).unwrap().payments.len(), 3);
    assert_eq!(payments.list(None, 0).unwrap().payments.len(), 0);
    engine.shutdown().await;
}

#[tokio::test]
async fn what_was_given_up_is_told_to_ldk_again_however_many_pages_there_are() {
    let ldk = Ldk::new();
    let (engine, payments) = in_memory(&ldk);
    for number in 0..300_u16 {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&number.to_be_bytes());
        assert_eq!(within_a_minute(payments.send(invoice(id, P))).await.unwrap(), Sent::Accepted);
        payments.abandon(id).await.unwrap();
    }
    assert_eq!(payments.resume().unwrap(), 300);
    engine.shutdown().await;
}

/// The one payment there is, as the list and as a look-up have it: the same.
fn the_one(payments: &SendPayment) -> Payment {
    let PaymentPage { payments: listed, .. } = payments.list(None, 9).unwrap();
    assert_eq!(listed, [payments.lookup(X).unwrap().expect("there is a record")]);
    listed.into_iter().next().unwrap()
}

#[test]
fn a_payment_of_which_ldk_has_told_nothing_too_often_is_a_dead_letter_until_its_end() {
    for (recoveries, heard) in [(0, 1), (1, 1), (5, 5)] {
        simulate(6, async |simulation| {
            let (ldk, mut limits) = (Ldk::new(), Limits::default());
            limits.recoveries = recoveries;
            let setup = setup(&ldk);
            let builder = setup.prepare(Engine::builder().limits(limits));
            let engine = simulation.open(builder, Arc::new(MemoryStore::new())).unwrap();
            let payments = setup.bind(engine.clone()).unwrap();
            ldk.next(Script::PanicBefore);
            let lost = payments.send(invoice(X, P)).await.unwrap_err();
            assert!(matches!(lost, PaymentError::Ambiguous(_)), "{lost:?}");
            simulation.pass(Duration::from_secs(10)).await;
            let before = engine.stats().await.unwrap().inquiries;
            assert!(before > 0 && !the_one(&payments).is_dead_letter, "LDK is not in sync yet, which does not count");
            // LDK lists another payment under this id, which says nothing about this one.
            ldk.list(X, Listing::Pending, Some(hash(P2)));
            for second in 0..40 {
                let (payment, stats) = (the_one(&payments), engine.stats().await.unwrap());
                assert_eq!(payment.standing, Standing::InDoubt);
                assert_eq!(payment.is_dead_letter, stats.inquiries - before >= heard, "after {second} s");
                simulation.pass(Duration::from_secs(1)).await;
                simulation.settle().await;
            }
            assert!(the_one(&payments).is_dead_letter);
            let sent = PaymentSent { id: X, paid: paid(P, None), attempt: None };
            assert_eq!(payments.payment_sent(sent).await.unwrap(), Handled::Recorded);
            assert_eq!(payments.list(None, 9).unwrap().payments, []);
            let ended = payments.lookup(X).unwrap().expect("there is a record");
            assert_eq!((ended.standing, ended.is_dead_letter), (Standing::Completed(paid(P, None)), false));
            engine.shutdown().await;
        })
        .unwrap();
    }
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_counted_and_hides_no_other() {
    let (bench, ldk) = (Bench::new(), Ldk::new());
    let setup = setup(&ldk);
    let store = Arc::new(RedbStore::open(bench.path(), RedbOptions::default()).unwrap());
    let engine = setup.prepare(Engine::builder().clock(bench.clock.clone())).open_store(store.clone()).unwrap();
    let payments = setup.bind(engine.clone()).unwrap();
    for (id, preimage) in [(X, P), (Y, P2)] {
        assert_eq!(within_a_minute(payments.send(invoice(id, preimage))).await.unwrap(), Sent::Accepted);
    }
    assert!(store.damage(&key(X)).unwrap());
    let page = payments.list(None, 9).unwrap();
    let ids: Vec<_> = page.payments.iter().map(|payment| payment.id).collect();
    assert_eq!((ids, page.quarantined, page.next), (vec![Y], 1, None));
    // Also where it stands alone on its page.
    let first = payments.list(None, 1).unwrap();
    assert_eq!((first.payments.len(), first.quarantined), (0, 1));
    assert_eq!(payments.list(first.next, 9).unwrap().payments.len(), 1);
    assert_eq!(ldk.calls(), 2);
    engine.shutdown().await;
}
