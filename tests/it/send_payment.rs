//! System 2: the test vectors of `send_payment`, against a model of LDK. Each says how often LDK was asked to send.

mod list;
pub(crate) mod model;
mod random;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use ibid::lightning::Blocking;
use ibid::lightning::send_payment::{
    BlockingPayer, Counts, Dispatch, Ending, FLOW_NAME, Handled, Listed, Listing, Paid, Payee, Payer, Payment,
    PaymentError, PaymentFailed, PaymentRequest, PaymentSent, SendError, SendPayment, SendPaymentSetup, Sending, Sent,
    Standing,
};
use ibid::store::MemoryStore;
use ibid::testing::{FaultyStore, Outage};
use ibid::{Abandoned, Acknowledged, Engine, ErrorKind, Flow, InvalidRecovery, Limits, NodeId, Policy, Status};

use crate::support::{Bench, within_a_minute};
use model::{Event, Fate, Id, Ldk, Script, handle, hash};

const X: Id = [0xaa; 32];
const Y: Id = [0xbb; 32];
const P: [u8; 32] = [1; 32];
const P2: [u8; 32] = [2; 32];

pub(crate) fn flow() -> Flow {
    Flow::new(FLOW_NAME, Policy::send_payment()).unwrap()
}

pub(crate) fn own_node_id() -> NodeId {
    NodeId::new([2; 33]).unwrap()
}

/// Invoice A is paid by P, A2 by P2.
pub(crate) fn invoice(id: Id, preimage: [u8; 32]) -> PaymentRequest {
    let payee = Payee::Bolt11 { invoice: format!("lnbc{}", preimage[0]), payment_hash: hash(preimage) };
    PaymentRequest { amount_msat: Some(5), ..PaymentRequest::new(id, payee) }
}

fn paid(preimage: [u8; 32], fee_msat: Option<u64>) -> Paid {
    Paid { preimage, payment_hash: hash(preimage), fee_msat }
}

/// A node: LDK, and ibid over a store on disk.
struct Node {
    bench: Bench,
    ldk: Ldk,
    setup: SendPaymentSetup,
    engine: Engine,
    payments: SendPayment,
}

impl Node {
    fn new() -> Self {
        Self::with(|setup| setup)
    }

    fn with(set: impl FnOnce(SendPaymentSetup) -> SendPaymentSetup) -> Self {
        let (bench, ldk) = (Bench::new(), Ldk::new());
        let setup = set(SendPaymentSetup::new(flow(), own_node_id(), Arc::new(ldk.clone())));
        let engine = open(&bench, &setup);
        let payments = setup.bind(engine.clone()).unwrap();
        payments.synced();
        Self { bench, ldk, setup, engine, payments }
    }

    /// The process ends and starts again. What is inside LDK's call is cut off.
    async fn restart(&mut self) {
        self.engine.shutdown().await;
        self.setup.bind(self.engine.clone()).unwrap().unsynced();
        self.engine = open(&self.bench, &self.setup);
        self.payments = self.setup.bind(self.engine.clone()).unwrap();
    }

    async fn send(&self, id: Id, preimage: [u8; 32]) -> Result<Sent, PaymentError> {
        within_a_minute(self.payments.send(invoice(id, preimage))).await
    }

    /// Sends, and is accepted.
    async fn sent(&self, id: Id, preimage: [u8; 32]) {
        assert_eq!(self.send(id, preimage).await.unwrap(), Sent::Accepted);
    }

    async fn known(&self, id: Id, preimage: [u8; 32]) -> Standing {
        match self.send(id, preimage).await.unwrap() {
            Sent::Known(standing) => standing,
            Sent::Accepted => panic!("it was sent again"),
        }
    }

    async fn refused(&self, id: Id, preimage: [u8; 32]) -> String {
        match self.send(id, preimage).await.unwrap_err() {
            error @ PaymentError::Definitive(_) => error.reason().unwrap().into_owned(),
            other => panic!("{other:?}"),
        }
    }

    async fn conflicts(&self, id: Id, preimage: [u8; 32]) {
        let error = self.send(id, preimage).await.unwrap_err();
        assert!(matches!(error, PaymentError::Conflict(_)), "{error:?}");
    }

    async fn claim(&self, id: Id, preimage: [u8; 32]) {
        self.ldk.claim(id, preimage, Some(0));
        assert_eq!(self.ldk.deliver(&self.payments).await.unwrap(), Handled::Recorded);
    }

    async fn fail(&self, id: Id) {
        self.ldk.fail(id);
        assert_eq!(self.ldk.deliver(&self.payments).await.unwrap(), Handled::Recorded);
    }

    async fn ticks(&self, count: usize) {
        for _ in 0..count {
            self.ldk.tick();
            self.payments.tick().await.unwrap();
        }
    }

    fn payment(&self, id: Id) -> Payment {
        self.payments.lookup(id).unwrap().expect("there is a record")
    }

    fn is_gone(&self, id: Id) -> bool {
        self.payments.lookup(id).unwrap().is_none()
    }

    /// Returns when the record stands so.
    async fn until(&self, id: Id, standing: Standing) {
        for _ in 0..200_000 {
            if self.payment(id).standing == standing {
                return;
            }
            self.engine.stats().await.unwrap();
        }
        panic!("it is {:?}", self.payment(id).standing);
    }

    fn tracked(&self, id: Id) -> tokio::task::JoinHandle<Result<Ending, PaymentError>> {
        let payments = self.payments.clone();
        tokio::spawn(async move { payments.track(id).await })
    }

    /// Somebody waits for an end.
    async fn until_tracked(&self) {
        crate::support::until(&self.engine, |stats| stats.in_flight > 0).await;
        crate::support::settled(&self.engine).await;
    }
}

#[tokio::test]
async fn an_engine_that_would_ask_nobody_about_a_payment_in_doubt_is_refused() {
    let setup = SendPaymentSetup::new(flow(), own_node_id(), Arc::new(Ldk::new()));
    let unprepared = Engine::builder().open_in_memory().unwrap();
    let refused = setup.bind(unprepared.clone()).unwrap_err();
    assert_eq!(refused, InvalidRecovery::OracleMissing(flow().name().to_owned()));
    unprepared.shutdown().await;
}

/// LDK, but for its list of what is paid, which cannot be read for as long as it says so.
struct Unread {
    ldk: Ldk,
    is_unread: AtomicBool,
}

impl Payer for Unread {
    fn send<'a>(&'a self, payment: &'a Dispatch) -> Sending<'a> {
        self.ldk.send(payment)
    }

    fn abandon(&self, id: &Id) {
        Payer::abandon(&self.ldk, id);
    }

    fn recent(&self, id: &Id) -> Option<Listed> {
        Payer::recent(&self.ldk, id)
    }

    fn fulfilled(&self) -> Vec<Id> {
        if self.is_unread.load(Ordering::Relaxed) {
            std::panic::resume_unwind(Box::new("it is being loaded"));
        }
        Payer::fulfilled(&self.ldk)
    }
}

#[tokio::test]
async fn a_tick_whose_list_cannot_be_read_does_not_count_and_takes_no_thread_down() {
    let ldk = Ldk::new();
    let payer = Arc::new(Unread { ldk: ldk.clone(), is_unread: AtomicBool::new(false) });
    let setup = SendPaymentSetup::new(flow(), own_node_id(), payer.clone());
    let engine = setup.prepare(Engine::builder()).open_in_memory().unwrap();
    let payments = setup.bind(engine.clone()).unwrap();
    payments.synced();
    assert_eq!(payments.send(invoice(X, P)).await.unwrap(), Sent::Accepted);
    ldk.claim(X, P, None);
    assert_eq!(ldk.deliver(&payments).await.unwrap(), Handled::Recorded);
    (0..8).for_each(|_| ldk.tick());
    payer.is_unread.store(true, Ordering::Relaxed);
    for _ in 0..9 {
        let error = payments.tick().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InDoubt(Some(_))), "{error:?}");
    }
    assert!(payments.lookup(X).unwrap().is_some());
    payer.is_unread.store(false, Ordering::Relaxed);
    for _ in 0..8 {
        assert!(payments.lookup(X).unwrap().is_some());
        payments.tick().await.unwrap();
    }
    assert!(payments.lookup(X).unwrap().is_none());
    engine.shutdown().await;
}

/// A node whose store fails on demand.
fn on_a_faulty_store() -> (Ldk, Arc<FaultyStore>, Engine, SendPayment) {
    let (ldk, store) = (Ldk::new(), Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()))));
    let setup = SendPaymentSetup::new(flow(), own_node_id(), Arc::new(ldk.clone()));
    let engine = setup.prepare(Engine::builder()).open_store(store.clone()).unwrap();
    let payments = setup.bind(engine.clone()).unwrap();
    (ldk, store, engine, payments)
}

fn open(bench: &Bench, setup: &SendPaymentSetup) -> Engine {
    let mut limits = Limits::default();
    limits.drain = Duration::from_millis(20);
    setup.prepare(Engine::builder().clock(bench.clock.clone()).limits(limits)).open(bench.path()).unwrap()
}

// ---- the vectors -----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn vector_1_of_any_number_of_sends_under_one_id_one_is_made() {
    let node = Node::new();
    node.sent(X, P).await;
    assert_eq!(node.known(X, P).await, Standing::Dispatched);
    node.ldk.hold();
    let sends: Vec<_> = (0..24)
        .map(|_| {
            let payments = node.payments.clone();
            tokio::spawn(async move { payments.send(invoice(Y, P2)).await.unwrap() })
        })
        .collect();
    node.ldk.until_begun(2).await;
    node.ldk.release();
    let mut accepted = 0;
    for send in sends {
        match within_a_minute(send).await.unwrap() {
            Sent::Accepted => accepted += 1,
            Sent::Known(standing) => assert!(matches!(standing, Standing::Registered | Standing::Dispatched)),
        }
    }
    assert_eq!((accepted, node.ldk.calls()), (1, 2));
    node.engine.shutdown().await;
}

#[tokio::test]
async fn vector_2_another_request_conflicts_in_every_state() {
    let mut node = Node::new();
    node.ldk.hold();
    let first = node.tracked_send(X, P);
    node.ldk.until_begun(1).await;
    node.conflicts(X, P2).await;
    node.ldk.release();
    assert_eq!(first.await.unwrap().unwrap(), Sent::Accepted);
    node.conflicts(X, P2).await;
    node.claim(X, P).await;
    node.conflicts(X, P2).await;

    node.sent(Y, P).await;
    node.fail(Y).await;
    node.conflicts(Y, P2).await;

    let doubted = [0xcc; 32];
    node.sent(doubted, P).await;
    node.ldk.reload(model::Blob::default());
    node.restart().await;
    node.until(doubted, Standing::InDoubt).await;
    node.conflicts(doubted, P2).await;
    assert_eq!(node.ldk.calls(), 3);
    node.engine.shutdown().await;
}

#[tokio::test]
async fn vector_3_a_later_event_of_a_path_begins_the_quiet_anew() {
    let node = Node::new();
    node.sent(X, P).await;
    node.claim(X, P).await;
    node.ticks(5).await;
    node.ldk.tell(Event::Path(X));
    assert_eq!(node.ldk.deliver(&node.payments).await.unwrap(), Handled::Repeated);
    node.ticks(7).await;
    assert_eq!(node.known(X, P).await, Standing::Completed(paid(P, Some(0))));
    node.ticks(1).await;
    node.sent(X, P2).await;
    assert_eq!(node.ldk.calls(), 2);
    node.engine.shutdown().await;
}

#[tokio::test]
async fn vector_4_what_the_host_has_not_acknowledged_is_kept_and_the_count_survives_a_restart() {
    let mut node = Node::with(SendPaymentSetup::host_acknowledges);
    node.sent(X, P).await;
    node.claim(X, P).await;
    node.ticks(40).await;
    assert_eq!(node.known(X, P).await, Standing::Completed(paid(P, Some(0))));
    assert_eq!(node.payments.acknowledge(X).await.unwrap(), Acknowledged::Counting);
    node.ticks(6).await;
    node.restart().await;
    node.ticks(1).await;
    assert_eq!(node.known(X, P).await, Standing::Completed(paid(P, Some(0))));
    node.ticks(1).await;
    node.sent(X, P).await;
    assert_eq!(node.ldk.calls(), 2);
    node.engine.shutdown().await;
}

#[tokio::test]
async fn vector_5_a_refusal_is_repeated_until_the_payment_is_abandoned() {
    let mut node = Node::new();
    node.ldk.next(Script::Refuse(SendError::PaymentExpired));
    assert_eq!(node.refused(X, P).await, "payment expired");
    let first = node.payment(X);
    assert_eq!(first.standing, Standing::RolledBack("payment expired".into()));
    assert_eq!(node.refused(X, P).await, "payment expired");
    node.restart().await;
    assert_eq!(node.refused(X, P).await, "payment expired");
    let tracked = node.payments.track(X).await.unwrap_err();
    assert_eq!((tracked.class(), tracked.reason().as_deref()), (ibid::Class::Definitive, Some("payment expired")));
    assert_eq!(node.ldk.calls(), 1);
    assert_eq!(node.payments.abandon(X).await.unwrap(), Abandoned::Released);
    node.sent(X, P).await;
    assert!(!node.payment(X).attempt.is_same(&first.attempt));
    assert_eq!(node.ldk.calls(), 2);
    node.engine.shutdown().await;
}

#[tokio::test]
async fn vector_6_a_failed_payment_runs_again_once_abandoned_and_an_abandoned_one_is_free_when_it_fails() {
    let node = Node::new();
    node.sent(X, P).await;
    node.fail(X).await;
    assert_eq!(node.known(X, P).await, Standing::Failed(Some("RetriesExhausted".into())));
    assert_eq!(node.payments.abandon(X).await.unwrap(), Abandoned::Released);
    node.sent(X, P2).await;
    assert_eq!(node.payments.abandon(X).await.unwrap(), Abandoned::Marked(Status::Dispatched));
    assert_eq!(node.ldk.abandons(), [X]);
    assert_eq!(node.known(X, P2).await, Standing::Dispatched);
    let tracked = node.tracked(X);
    node.until_tracked().await;
    node.fail(X).await;
    let ending = within_a_minute(tracked).await.unwrap().unwrap();
    assert_eq!(ending, Ending::Failed(Some("RetriesExhausted".into())));
    assert!(node.is_gone(X));
    assert_eq!(node.ldk.calls(), 2);
    node.engine.shutdown().await;
}

#[tokio::test]
async fn vector_7_a_failure_after_the_success_is_ignored_also_after_a_restart() {
    let mut node = Node::new();
    node.sent(X, P).await;
    node.claim(X, P).await;
    let failed = Event::Failed { id: X, payment_hash: Some(hash(P)), reason: "RetriesExhausted" };
    assert_eq!(handle(&node.payments, failed.clone()).await.unwrap(), Handled::Late);
    node.restart().await;
    assert_eq!(handle(&node.payments, failed).await.unwrap(), Handled::Late);
    assert_eq!(node.payments.counts().late, 2);
    assert_eq!(node.known(X, P).await, Standing::Completed(paid(P, Some(0))));
    assert_eq!(node.ldk.calls(), 1);
    node.engine.shutdown().await;
}

#[tokio::test]
async fn vector_8_a_call_cut_off_by_a_crash_is_found_again_and_not_repeated() {
    let mut node = Node::new();
    node.ldk.hold();
    let cut_off = node.tracked_send(X, P);
    node.ldk.until_begun(1).await;
    node.restart().await;
    assert!(matches!(cut_off.await.unwrap(), Err(PaymentError::Ambiguous(_))));
    node.ldk.release();
    let before = node.ldk.calls();
    node.ldk.list(X, Listing::Pending, Some(hash(P)));
    assert_eq!(node.known(X, P).await, Standing::Dispatched);
    assert_eq!(node.ldk.calls() - before, 0);
    node.claim(X, P).await;
    node.engine.shutdown().await;
}

#[tokio::test]
async fn vector_9_what_ldk_has_lost_is_in_doubt_until_it_is_in_sync_and_then_never_ran() {
    let mut node = Node::new();
    let blob = node.ldk.blob();
    node.sent(X, P).await;
    node.ldk.reload(blob);
    node.restart().await;
    node.until(X, Standing::InDoubt).await;
    assert_eq!(node.known(X, P).await, Standing::InDoubt);
    node.payments.synced();
    assert_eq!(node.refused(X, P).await, "not started");
    assert_eq!(node.payments.abandon(X).await.unwrap(), Abandoned::Released);
    let before = node.ldk.calls();
    node.sent(X, P).await;
    assert_eq!(node.ldk.calls() - before, 1);
    assert_eq!(node.ldk.sets().iter().map(|set| set.fate).collect::<Vec<_>>(), [Fate::Lost, Fate::Live]);
    node.engine.shutdown().await;
}

#[tokio::test]
async fn vector_10_an_id_that_ldk_has_for_another_hash_is_a_conflict_and_leaves_no_record() {
    let node = Node::new();
    node.ldk.list(X, Listing::Pending, Some(hash(P2)));
    node.conflicts(X, P).await;
    assert!(node.is_gone(X));
    node.ldk.list(Y, Listing::Pending, Some(hash(P)));
    assert_eq!(node.known(Y, P).await, Standing::Dispatched);
    assert_eq!(node.ldk.calls(), 2);
    node.engine.shutdown().await;
}

#[tokio::test]
async fn vector_11_a_store_that_fails_lets_the_event_come_again_and_tells_nobody() {
    let (ldk, store, engine, payments) = on_a_faulty_store();
    assert_eq!(payments.send(invoice(X, P)).await.unwrap(), Sent::Accepted);
    ldk.claim(X, P, None);
    let tracked = tokio::spawn({
        let payments = payments.clone();
        async move { payments.track(X).await }
    });
    crate::support::until(&engine, |stats| stats.in_flight == 1).await;
    crate::support::settled(&engine).await;
    store.break_down(Outage::Commits);
    within_a_minute(ldk.deliver(&payments)).await.unwrap_err();
    assert_eq!(payments.lookup(X).unwrap().unwrap().standing, Standing::Dispatched);
    assert_eq!((ldk.events().len(), payments.counts().replays), (1, 1));
    store.heal();
    // LDK tells it until it is handled; until the store has been tried again it is refused.
    while within_a_minute(ldk.deliver(&payments)).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(within_a_minute(payments.track(X)).await.unwrap(), Ending::Paid(paid(P, None)));
    assert_eq!((payments.counts().recorded, payments.counts().contradictions), (1, 0));
    // Who waited all along may hear that the store failed, which is no end; nobody hears of another one.
    match within_a_minute(tracked).await.unwrap() {
        Ok(ending) => assert_eq!(ending, Ending::Paid(paid(P, None))),
        Err(error) => assert!(matches!(error, PaymentError::Ambiguous(_)), "{error:?}"),
    }
    assert_eq!((ldk.calls(), ldk.events().len()), (1, 0));
    engine.shutdown().await;
}

#[tokio::test]
async fn vector_12_a_call_that_panics_after_its_effect_ends_as_its_event_says() {
    let node = Node::new();
    node.ldk.next(Script::PanicAfter);
    assert!(matches!(node.send(X, P).await.unwrap_err(), PaymentError::Ambiguous(_)));
    assert_eq!(node.known(X, P).await, Standing::Dispatched);
    node.claim(X, P).await;
    assert_eq!(node.known(X, P).await, Standing::Completed(paid(P, Some(0))));
    assert_eq!(node.ldk.calls(), 1);
    node.engine.shutdown().await;
}

impl Node {
    fn tracked_send(&self, id: Id, preimage: [u8; 32]) -> tokio::task::JoinHandle<Result<Sent, PaymentError>> {
        let payments = self.payments.clone();
        tokio::spawn(async move { payments.send(invoice(id, preimage)).await })
    }
}

// ---- the table of events -----------------------------------------------------------------------------------------------

/// Where a record stands when an event comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Registered,
    Dispatched,
    InDoubt,
    Completed,
    Failed,
    RolledBack,
    Absent,
}

const PLACES: [At; 7] =
    [At::Registered, At::Dispatched, At::InDoubt, At::Completed, At::Failed, At::RolledBack, At::Absent];

impl Node {
    /// X, paid by P, as it stands there; LDK does not list it where it has not ended.
    async fn at(place: At) -> Self {
        let node = Self::new();
        let lose = || {
            let blob = model::Blob::default();
            node.ldk.reload(blob);
        };
        match place {
            At::Absent => {}
            At::Registered => {
                node.ldk.hold();
                drop(node.tracked_send(X, P));
                node.ldk.until_begun(1).await;
            }
            At::Dispatched => {
                node.sent(X, P).await;
                lose();
            }
            At::InDoubt => {
                node.payments.unsynced();
                node.ldk.next(Script::PanicBefore);
                node.send(X, P).await.unwrap_err();
                node.until(X, Standing::InDoubt).await;
            }
            At::Completed => {
                node.sent(X, P).await;
                node.claim(X, P).await;
            }
            At::Failed => {
                node.sent(X, P).await;
                node.fail(X).await;
            }
            At::RolledBack => {
                node.ldk.next(Script::Refuse(SendError::RouteNotFound));
                assert_eq!(node.refused(X, P).await, "route not found");
            }
        }
        node
    }

    fn counted(&self, before: Counts) -> [u64; 6] {
        let now = self.payments.counts();
        [
            now.recorded - before.recorded,
            now.repeated - before.repeated,
            now.unknown - before.unknown,
            now.late - before.late,
            now.stale - before.stale,
            now.contradictions - before.contradictions,
        ]
    }
}

const RECORDED: [u64; 6] = [1, 0, 0, 0, 0, 0];
const REPEATED: [u64; 6] = [0, 1, 0, 0, 0, 0];
const UNKNOWN: [u64; 6] = [0, 0, 1, 0, 0, 0];
const LATE: [u64; 6] = [0, 0, 0, 1, 0, 0];
const STALE: [u64; 6] = [0, 0, 0, 0, 1, 0];
const CONTRADICTION: [u64; 6] = [0, 0, 0, 0, 0, 1];

fn sent_event(preimage: [u8; 32]) -> Event {
    Event::Sent { id: X, preimage, fee_msat: Some(0) }
}

fn failed_event(payment_hash: Option<[u8; 32]>) -> Event {
    Event::Failed { id: X, payment_hash, reason: "RetriesExhausted" }
}

#[tokio::test]
async fn payment_sent_does_what_the_table_says_and_the_same_when_it_comes_again() {
    for place in PLACES {
        for preimage in [P, P2] {
            let node = Node::at(place).await;
            let (before, standing) = (node.payments.counts(), node.payments.lookup(X).unwrap());
            let handled = within_a_minute(handle(&node.payments, sent_event(preimage))).await.unwrap();
            let expected = match (place, preimage == P) {
                (At::Registered | At::Dispatched | At::InDoubt, true) => RECORDED,
                (At::Registered | At::Dispatched | At::InDoubt | At::Completed, false) => STALE,
                (At::Completed, true) => REPEATED,
                (At::Failed | At::RolledBack, _) => CONTRADICTION,
                (At::Absent, _) => UNKNOWN,
            };
            let case = format!("{place:?} {preimage:?}");
            assert_eq!(node.counted(before), expected, "{case}");
            if let Handled::Contradiction(left) = &handled {
                assert_eq!(*left, paid(preimage, Some(0)), "the host hears what has left");
            }
            let after = node.payments.lookup(X).unwrap();
            match expected {
                RECORDED => assert_eq!(after.unwrap().standing, Standing::Completed(paid(P, Some(0))), "{case}"),
                CONTRADICTION => {
                    let after = after.unwrap();
                    assert_eq!(after.standing, standing.unwrap().standing, "{case}");
                    assert_eq!(after.paid_after_all, Some(paid(preimage, Some(0))), "{case}");
                }
                _ => assert_eq!(after, standing, "{case}"),
            }
            let again = within_a_minute(handle(&node.payments, sent_event(preimage))).await.unwrap();
            assert_eq!(again, if handled == Handled::Recorded { Handled::Repeated } else { handled }, "{case}");
            let calls = usize::from(place != At::Absent);
            assert_eq!(node.ldk.calls(), calls, "{case}");
            node.ldk.release();
            node.engine.shutdown().await;
        }
    }
}

#[tokio::test]
async fn payment_failed_does_what_the_table_says_and_the_same_when_it_comes_again() {
    for place in PLACES.into_iter().filter(|place| *place != At::Registered) {
        for payment_hash in [Some(hash(P)), Some(hash(P2)), None] {
            let node = Node::at(place).await;
            let (before, standing) = (node.payments.counts(), node.payments.lookup(X).unwrap());
            let handled = handle(&node.payments, failed_event(payment_hash)).await.unwrap();
            let is_own = payment_hash != Some(hash(P2));
            let expected = match place {
                At::Dispatched | At::InDoubt if is_own => RECORDED,
                At::Dispatched | At::InDoubt => STALE,
                At::Completed => LATE,
                At::Failed | At::RolledBack => REPEATED,
                At::Absent => UNKNOWN,
                At::Registered => unreachable!("it waits"),
            };
            let case = format!("{place:?} {payment_hash:?}");
            assert_eq!(node.counted(before), expected, "{case}");
            let after = node.payments.lookup(X).unwrap();
            match expected {
                RECORDED => {
                    let failed = Standing::Failed(Some("RetriesExhausted".into()));
                    assert_eq!(after.unwrap().standing, failed, "{case}");
                }
                _ => assert_eq!(after, standing, "{case}"),
            }
            let again = handle(&node.payments, failed_event(payment_hash)).await.unwrap();
            assert_eq!(again, if handled == Handled::Recorded { Handled::Repeated } else { handled }, "{case}");
            node.engine.shutdown().await;
        }
    }
}

#[tokio::test]
async fn an_id_that_ldk_lists_has_not_failed() {
    let node = Node::new();
    node.sent(X, P).await;
    assert_eq!(handle(&node.payments, failed_event(Some(hash(P)))).await.unwrap(), Handled::Stale);
    assert_eq!(handle(&node.payments, failed_event(None)).await.unwrap(), Handled::Stale);
    assert_eq!(node.payment(X).standing, Standing::Dispatched);
    assert_eq!(node.payments.counts().stale, 2);
    node.claim(X, P).await;
    node.engine.shutdown().await;
}

#[tokio::test]
async fn a_named_attempt_is_told_from_another_of_the_same_payment() {
    let node = Node::new();
    node.sent(X, P).await;
    let first = node.payment(X).attempt;
    node.fail(X).await;
    node.payments.abandon(X).await.unwrap();
    node.sent(X, P).await;
    let second = node.payment(X).attempt;
    node.ldk.reload(model::Blob::default());
    let failed = |attempt| PaymentFailed { id: X, payment_hash: None, reason: None, attempt: Some(attempt) };
    assert_eq!(node.payments.payment_failed(failed(first)).await.unwrap(), Handled::Stale);
    let sent = |attempt| PaymentSent { id: X, paid: paid(P, None), attempt: Some(attempt) };
    assert_eq!(node.payments.payment_sent(sent(first)).await.unwrap(), Handled::Stale);
    assert_eq!(node.payments.payment_failed(failed(second)).await.unwrap(), Handled::Recorded);
    assert_eq!(node.payment(X).standing, Standing::Failed(None));
    node.engine.shutdown().await;
}

// ---- events against calls ----------------------------------------------------------------------------------------------

/// Polls it once: it is under way, or even over.
async fn begin<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    std::future::poll_fn(|cx| match Pin::new(&mut *future).poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// The same of what cannot be over yet.
async fn is_pending<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
    begin(future).await.is_none()
}

#[tokio::test]
async fn a_failure_that_comes_while_the_call_runs_waits_for_its_result() {
    let node = Node::new();
    node.sent(X, P).await;
    node.fail(X).await;
    node.payments.abandon(X).await.unwrap();

    // The first attempt's failure comes again, while the second one's call is inside LDK and not listed yet.
    node.ldk.hold();
    let second = node.tracked_send(X, P);
    node.ldk.until_begun(2).await;
    let mut failed = Box::pin(handle(&node.payments, failed_event(Some(hash(P)))));
    assert!(is_pending(&mut failed).await);
    node.ldk.release();
    assert_eq!(second.await.unwrap().unwrap(), Sent::Accepted);
    assert_eq!(within_a_minute(failed).await.unwrap(), Handled::Stale);
    assert_eq!(node.payment(X).standing, Standing::Dispatched);
    node.claim(X, P).await;
    assert_eq!(node.ldk.calls(), 2);
    node.engine.shutdown().await;
}

#[tokio::test]
async fn a_failure_that_comes_before_the_call_has_begun_waits_for_it_too() {
    let (ldk, store, engine, payments) = on_a_faulty_store();
    ldk.hold();
    let gate = store.hold_commits();
    let send = tokio::spawn({
        let payments = payments.clone();
        async move { payments.send(invoice(X, P)).await }
    });
    store.until_held().await;
    drop(gate);
    // From its registration on, and before as well as while LDK is being called.
    while payments.lookup(X).unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    let mut failed = Box::pin(handle(&payments, failed_event(Some(hash(P)))));
    assert!(is_pending(&mut failed).await);
    ldk.until_begun(1).await;
    ldk.release();
    assert_eq!(send.await.unwrap().unwrap(), Sent::Accepted);
    assert_eq!(within_a_minute(failed).await.unwrap(), Handled::Stale);
    assert_eq!((ldk.calls(), payments.lookup(X).unwrap().unwrap().standing), (1, Standing::Dispatched));
    engine.shutdown().await;
}

#[tokio::test]
async fn a_success_does_not_wait_for_the_call_and_its_result_changes_nothing() {
    let node = Node::at(At::Registered).await;
    assert_eq!(within_a_minute(handle(&node.payments, sent_event(P))).await.unwrap(), Handled::Recorded);
    node.ldk.next(Script::Refuse(SendError::RouteNotFound));
    node.ldk.release();
    crate::support::until(&node.engine, |stats| stats.running == 0).await;
    assert_eq!(node.known(X, P).await, Standing::Completed(paid(P, Some(0))));
    assert_eq!(node.ldk.calls(), 1);
    node.engine.shutdown().await;
}

#[tokio::test]
async fn a_call_whose_paths_fail_at_once_is_accepted_and_ends_by_its_event() {
    let node = Node::new();
    node.ldk.next(Script::AllPathsFail);
    node.sent(X, P).await;
    assert_eq!(node.known(X, P).await, Standing::Dispatched, "LDK has freed the id; nobody has heard of it yet");
    assert_eq!(node.ldk.deliver(&node.payments).await.unwrap(), Handled::Recorded);
    assert_eq!(node.known(X, P).await, Standing::Failed(Some("RetriesExhausted".into())));
    assert_eq!(node.ldk.calls(), 1);
    node.engine.shutdown().await;
}

#[tokio::test]
async fn what_ldk_does_not_list_gets_time_for_its_event_before_it_is_taken_for_never_sent() {
    let node = Node::new();
    node.ldk.next(Script::Say(SendError::PersistenceFailed));
    assert!(matches!(node.send(X, P).await.unwrap_err(), PaymentError::Ambiguous(_)));
    assert_eq!(node.known(X, P).await, Standing::Dispatched, "it has started all the same");
    node.fail(X).await;
    assert_eq!(node.known(X, P).await, Standing::Failed(Some("RetriesExhausted".into())));
    assert_eq!(node.ldk.calls(), 1);
    node.engine.shutdown().await;
}

#[tokio::test]
async fn a_call_that_panics_before_its_effect_never_ran() {
    let node = Node::new();
    node.ldk.next(Script::PanicBefore);
    assert!(matches!(node.send(X, P).await.unwrap_err(), PaymentError::Ambiguous(_)));
    assert_eq!(node.refused(X, P).await, "not started");
    assert_eq!(node.ldk.calls(), 1);
    node.engine.shutdown().await;
}

/// A node whose registration of X is about to be committed, and whose call cannot begin before this thread waits for something:
/// operations run on it.
struct Overtaken {
    ldk: Ldk,
    engine: Engine,
    payments: SendPayment,
    send: tokio::task::JoinHandle<Result<Sent, PaymentError>>,
}

impl Overtaken {
    async fn new() -> Self {
        let (ldk, store, engine, payments) = on_a_faulty_store();
        let gate = store.hold_commits();
        let sender = payments.clone();
        let send = tokio::spawn(async move { sender.send(invoice(X, P)).await });
        store.until_held().await;
        drop(gate);
        let node = Self { ldk, engine, payments, send };
        node.spin_until(|payment| payment.standing == Standing::Registered);
        node
    }

    /// Without giving the call its turn.
    fn spin_until(&self, holds: impl Fn(&Payment) -> bool) {
        while !self.payments.lookup(X).unwrap().as_ref().is_some_and(&holds) {
            std::hint::spin_loop();
        }
    }
}

#[tokio::test]
async fn what_is_abandoned_before_its_call_has_begun_is_not_sent() {
    let node = Overtaken::new().await;
    let mut abandon = Box::pin(node.payments.abandon(X));
    let abandoned = begin(&mut abandon).await;
    node.spin_until(|payment| payment.is_abandoned);
    let error = within_a_minute(node.send).await.unwrap().unwrap_err();
    assert!(matches!(error, PaymentError::Definitive(_)), "{error:?}");
    let abandoned = if let Some(abandoned) = abandoned { abandoned } else { abandon.await };
    assert_eq!(abandoned.unwrap(), Abandoned::Marked(Status::Registered));
    assert!(node.payments.lookup(X).unwrap().is_none());
    assert_eq!(node.ldk.calls(), 0);
    node.engine.shutdown().await;
}

#[tokio::test]
async fn what_is_paid_before_its_call_has_begun_is_not_sent() {
    let node = Overtaken::new().await;
    let mut sent = Box::pin(handle(&node.payments, sent_event(P)));
    let handled = begin(&mut sent).await;
    node.spin_until(|payment| matches!(payment.standing, Standing::Completed(_)));
    let handled = if let Some(handled) = handled { handled } else { within_a_minute(sent).await };
    assert_eq!(handled.unwrap(), Handled::Recorded);
    assert_eq!(within_a_minute(node.send).await.unwrap().unwrap(), Sent::Accepted);
    crate::support::until(&node.engine, |stats| stats.running == 0).await;
    assert_eq!(node.ldk.calls(), 0);
    node.engine.shutdown().await;
}

/// Its calls block their thread, and go on when they are told to.
struct Slow {
    ldk: Ldk,
    begun: std::sync::mpsc::Sender<()>,
    go_on: Mutex<std::sync::mpsc::Receiver<()>>,
}

impl BlockingPayer for Slow {
    fn send(&self, payment: &Dispatch) -> Result<(), SendError> {
        self.begun.send(()).unwrap();
        self.go_on.lock().unwrap().recv().unwrap();
        self.ldk.list(payment.request.id, Listing::Pending, payment.request.payment_hash());
        Ok(())
    }

    fn abandon(&self, id: &Id) {
        self.ldk.abandon(id);
    }

    fn recent(&self, id: &Id) -> Option<Listed> {
        self.ldk.recent(id)
    }

    fn fulfilled(&self) -> Vec<Id> {
        self.ldk.fulfilled()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocking_call_that_outlives_its_engine_is_not_taken_for_never_made() {
    let (bench, ldk) = (Bench::new(), Ldk::new());
    let ((begun, begins), (go_on, goes_on)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let slow = Slow { ldk: ldk.clone(), begun, go_on: Mutex::new(goes_on) };
    let payer = Arc::new(Blocking::new(Arc::new(slow)));
    let setup = SendPaymentSetup::new(flow(), own_node_id(), payer);
    let engine = open(&bench, &setup);
    let payments = setup.bind(engine.clone()).unwrap();
    payments.synced();
    let cut_off = tokio::spawn(async move { payments.send(invoice(X, P)).await });
    tokio::task::spawn_blocking(move || begins.recv().unwrap()).await.unwrap();
    engine.shutdown().await;
    assert!(matches!(cut_off.await.unwrap(), Err(PaymentError::Ambiguous(_))));

    let engine = open(&bench, &setup);
    let payments = setup.bind(engine.clone()).unwrap();
    assert_eq!(payments.send(invoice(X, P)).await.unwrap(), Sent::Known(Standing::InDoubt));
    let mut failed = Box::pin(handle(&payments, failed_event(Some(hash(P)))));
    assert!(is_pending(&mut failed).await, "what is inside LDK may be about to begin");
    go_on.send(()).unwrap();
    assert_eq!(within_a_minute(failed).await.unwrap(), Handled::Stale);
    assert_eq!(payments.send(invoice(X, P)).await.unwrap(), Sent::Known(Standing::Dispatched));
    engine.shutdown().await;
}

// ---- abandon -----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn what_is_abandoned_while_its_call_runs_is_passed_on_when_it_has_returned() {
    let node = Node::at(At::Registered).await;
    assert_eq!(node.payments.abandon(X).await.unwrap(), Abandoned::Marked(Status::Registered));
    assert_eq!(node.ldk.abandons(), [] as [Id; 0]);
    node.ldk.release();
    node.until(X, Standing::Dispatched).await;
    while node.ldk.abandons().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(node.ldk.recent(&X).unwrap().state, Listing::Abandoned);
    node.ldk.fail(X);
    assert_eq!(node.ldk.deliver(&node.payments).await.unwrap(), Handled::Recorded);
    assert!(node.is_gone(X));
    assert_eq!(node.ldk.calls(), 1);
    node.engine.shutdown().await;
}

#[tokio::test]
async fn an_abandoned_payment_may_still_succeed_and_stays_for_any_number_of_ticks() {
    let mut node = Node::new();
    node.sent(X, P).await;
    node.ldk.write_monitors();
    let blob = node.ldk.blob();
    node.payments.abandon(X).await.unwrap();
    node.ticks(20).await;
    assert_eq!(node.known(X, P).await, Standing::Dispatched);

    // LDK loses what it was told; the mark is told again.
    node.ldk.reload(blob);
    node.restart().await;
    assert_eq!(node.ldk.recent(&X).unwrap().state, Listing::Pending);
    assert_eq!(node.payments.resume().unwrap(), 1);
    assert_eq!(node.ldk.recent(&X).unwrap().state, Listing::Abandoned);
    node.claim(X, P).await;
    assert_eq!(node.known(X, P).await, Standing::Completed(paid(P, Some(0))));
    assert_eq!(node.payments.abandon(X).await.unwrap(), Abandoned::NoEffect);
    assert_eq!(node.payments.abandon(Y).await.unwrap(), Abandoned::NoEffect);
    assert_eq!((node.ldk.calls(), node.payments.resume().unwrap()), (1, 0));
    node.engine.shutdown().await;
}

#[tokio::test]
async fn what_ldk_has_given_up_is_marked_after_a_restart() {
    let mut node = Node::new();
    node.sent(X, P).await;
    node.ldk.write_monitors();
    node.ldk.list(X, Listing::Abandoned, Some(hash(P)));
    node.restart().await;
    while !node.payment(X).is_abandoned {
        node.engine.stats().await.unwrap();
    }
    assert_eq!(node.payment(X).standing, Standing::Dispatched);
    node.engine.shutdown().await;
}

#[tokio::test]
async fn a_payment_that_waits_for_an_invoice_fails_without_a_hash_and_its_id_is_free_in_ldk_alone() {
    let node = Node::new();
    let offer = || PaymentRequest::new(X, Payee::Offer { offer: "lno1".into() });
    assert_eq!(node.payments.send(offer()).await.unwrap(), Sent::Accepted);
    assert_eq!(node.ldk.recent(&X).unwrap().state, Listing::AwaitingInvoice);
    node.fail(X).await;
    let failed = Standing::Failed(Some("RetriesExhausted".into()));
    assert_eq!(node.payments.send(offer()).await.unwrap(), Sent::Known(failed));
    assert_eq!(node.ldk.calls(), 1);
    node.engine.shutdown().await;
}

// ---- release -----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_eighth_quiet_tick_releases_and_a_restart_between_any_two_delays_nothing() {
    for restart_after in 0..=7 {
        let mut node = Node::new();
        node.sent(X, P).await;
        node.claim(X, P).await;
        for tick in 1..=7 {
            if tick == restart_after + 1 {
                node.restart().await;
            }
            node.ticks(1).await;
            assert_eq!(node.known(X, P).await, Standing::Completed(paid(P, Some(0))), "tick {tick}");
        }
        if restart_after == 7 {
            node.restart().await;
        }
        node.ticks(1).await;
        assert!(node.is_gone(X), "restart after {restart_after}");
        node.engine.shutdown().await;
    }
}

#[tokio::test]
async fn every_later_event_gives_a_paid_one_eight_more_ticks() {
    for event in [sent_event(P), Event::Path(X)] {
        let node = Node::new();
        node.sent(X, P).await;
        node.claim(X, P).await;
        node.ticks(7).await;
        assert_eq!(handle(&node.payments, event).await.unwrap(), Handled::Repeated);
        node.ticks(7).await;
        assert!(!node.is_gone(X));
        node.ticks(1).await;
        assert!(node.is_gone(X));
        node.engine.shutdown().await;
    }
}

#[tokio::test]
async fn a_tick_is_not_quiet_while_an_event_of_the_payment_is_being_handled() {
    let (ldk, store, engine, payments) = on_a_faulty_store();
    assert_eq!(payments.send(invoice(X, P)).await.unwrap(), Sent::Accepted);
    ldk.claim(X, P, None);
    assert_eq!(ldk.deliver(&payments).await.unwrap(), Handled::Recorded);
    (0..8).for_each(|_| ldk.tick());
    for _ in 0..7 {
        payments.tick().await.unwrap();
    }
    let gate = store.hold_commits();
    let mut again = Box::pin(handle(&payments, sent_event(P)));
    assert!(is_pending(&mut again).await);
    let mut tick = Box::pin(payments.tick());
    assert!(is_pending(&mut tick).await);
    drop(gate);
    within_a_minute(tick).await.unwrap();
    assert_eq!(within_a_minute(again).await.unwrap(), Handled::Repeated);
    for _ in 0..7 {
        payments.tick().await.unwrap();
        assert!(payments.lookup(X).unwrap().is_some());
    }
    payments.tick().await.unwrap();
    assert!(payments.lookup(X).unwrap().is_none());
    engine.shutdown().await;
}

#[tokio::test]
async fn what_ldk_still_has_as_paid_is_held_back_at_the_cost_of_one_write_and_the_rest_goes() {
    let (ldk, store, engine, payments) = on_a_faulty_store();
    for (id, preimage) in [(X, P), (Y, P2)] {
        assert_eq!(payments.send(invoice(id, preimage)).await.unwrap(), Sent::Accepted);
        ldk.claim(id, preimage, None);
        assert_eq!(ldk.deliver(&payments).await.unwrap(), Handled::Recorded);
    }
    let tick = async |commits: u64| {
        let before = store.commits();
        payments.tick().await.unwrap();
        assert_eq!(store.commits() - before, commits);
        [X, Y].map(|id| payments.lookup(id).unwrap().is_some())
    };
    for _ in 0..7 {
        assert_eq!(tick(1).await, [true, true]);
    }
    // Its HTLC is still in the channel; that of Y has left it long ago.
    (0..8).for_each(|_| ldk.tick());
    ldk.list(X, Listing::Fulfilled, Some(hash(P)));
    assert_eq!(tick(2).await, [true, false]);
    // That tick was the first of its next eight.
    (0..8).for_each(|_| ldk.tick());
    for _ in 2..8 {
        assert_eq!(tick(1).await, [true, false]);
    }
    assert_eq!(tick(1).await, [false, false]);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_store_that_fails_after_the_success_is_recorded_lets_the_event_acknowledge_it_the_next_time() {
    let (ldk, store, engine, payments) = on_a_faulty_store();
    assert_eq!(payments.send(invoice(X, P)).await.unwrap(), Sent::Accepted);
    ldk.claim(X, P, None);
    let gate = store.hold_commits();
    let (before, deliver) = (store.commits(), ldk.deliver(&payments));
    let mut deliver = Box::pin(deliver);
    assert!(is_pending(&mut deliver).await);
    store.until_held().await;
    drop(gate);
    assert_eq!(within_a_minute(deliver).await.unwrap(), Handled::Recorded);
    assert_eq!(store.commits() - before, 2, "the end, and that it is acknowledged");

    let setup = SendPaymentSetup::new(flow(), own_node_id(), Arc::new(ldk.clone())).host_acknowledges();
    let waiting = setup.bind(engine.clone()).unwrap();
    assert_eq!(waiting.send(invoice(Y, P2)).await.unwrap(), Sent::Accepted);
    ldk.claim(Y, P2, None);
    assert_eq!(ldk.deliver(&waiting).await.unwrap(), Handled::Recorded);
    ldk.tell(Event::Sent { id: Y, preimage: P2, fee_msat: None });
    assert_eq!(ldk.deliver(&payments).await.unwrap(), Handled::Repeated, "as if the acknowledgement had failed");
    for _ in 0..8 {
        ldk.tick();
        payments.tick().await.unwrap();
    }
    assert!(payments.lookup(Y).unwrap().is_none());
    engine.shutdown().await;
}

// ---- what burns no id, and what is refused before anything -------------------------------------------------------------

#[tokio::test]
async fn what_is_wrong_with_a_request_burns_no_id_and_a_record_answers_first() {
    let node = Node::new();
    let unreadable =
        PaymentRequest { payee: Payee::Bolt11 { invoice: "nonsense".into(), payment_hash: hash(P) }, ..invoice(X, P) };
    let without_amount = PaymentRequest { amount_msat: None, ..invoice(X, P) };
    let too_little = PaymentRequest { asked_msat: Some(6), ..invoice(X, P) };
    for (request, reason) in
        [(unreadable.clone(), "invalid invoice"), (without_amount, "invalid amount"), (too_little, "invalid amount")]
    {
        let error = node.payments.send(request).await.unwrap_err();
        assert!(matches!(error, PaymentError::Definitive(_)));
        assert_eq!(error.reason().as_deref(), Some(reason));
        assert!(node.is_gone(X));
    }
    node.sent(X, P).await;
    let error = node.payments.send(unreadable).await.unwrap_err();
    assert!(matches!(error, PaymentError::Conflict(_)), "the record is asked first");
    assert_eq!(node.ldk.calls(), 1);
    node.engine.shutdown().await;
}

#[tokio::test]
async fn a_store_that_fails_at_registration_keeps_the_call_from_being_made() {
    let (ldk, store, engine, payments) = on_a_faulty_store();
    store.break_down(Outage::Everything);
    let error = within_a_minute(payments.send(invoice(X, P))).await.unwrap_err();
    assert!(matches!(error, PaymentError::Ambiguous(_)), "{error:?}");
    assert_eq!(ldk.calls(), 0);
    store.heal();
    engine.shutdown().await;
    let closed = payments.send(invoice(X, P)).await.unwrap_err();
    assert!(matches!(closed, PaymentError::Ambiguous(_)), "{closed:?}");
    assert_eq!(ldk.calls(), 0);
}

#[tokio::test]
async fn in_flight_payments_are_listed_with_what_is_known_of_them() {
    let node = Node::new();
    node.sent(X, P).await;
    node.sent(Y, P2).await;
    node.payments.abandon(Y).await.unwrap();
    let page = node.payments.list(None, 9).unwrap();
    let listed: Vec<_> = page.payments.iter().map(|p| (p.id, p.payment_hash, p.is_abandoned)).collect();
    assert_eq!(listed, [(X, Some(hash(P)), false), (Y, Some(hash(P2)), true)]);
    node.engine.shutdown().await;
}

#[tokio::test]
async fn a_send_via_another_payer_is_made_by_it_and_asked_about_as_ever() {
    let (node, other) = (Node::new(), Ldk::new());
    let via = node.payments.via(Arc::new(other.clone()));
    assert_eq!(via.send(invoice(X, P)).await.unwrap(), Sent::Accepted);
    assert_eq!((node.ldk.calls(), other.calls()), (0, 1));
    assert_eq!(node.known(X, P).await, Standing::Dispatched);
    // The setup's own LDK does not list it.
    assert_eq!(handle(&via, failed_event(Some(hash(P)))).await.unwrap(), Handled::Recorded);
    assert_eq!((node.ldk.calls(), other.calls()), (0, 1));
    node.engine.shutdown().await;
}

#[test]
fn the_blocking_forms_do_the_same_on_a_plain_thread() {
    let ldk = Ldk::new();
    let setup = SendPaymentSetup::new(flow(), own_node_id(), Arc::new(ldk.clone()));
    let engine = setup.prepare(Engine::builder()).open_in_memory().unwrap();
    let payments = setup.bind(engine.clone()).unwrap();
    assert_eq!(payments.send_blocking(invoice(X, P)).unwrap(), Sent::Accepted);
    assert_eq!(payments.path_event_blocking(X).unwrap(), Handled::Repeated);
    let failed = PaymentFailed { id: X, payment_hash: None, reason: None, attempt: None };
    assert_eq!(payments.payment_failed_blocking(failed).unwrap(), Handled::Stale);
    let sent = PaymentSent { id: X, paid: paid(P, None), attempt: None };
    assert_eq!(payments.payment_sent_blocking(sent).unwrap(), Handled::Recorded);
    assert_eq!(payments.acknowledge_blocking(X).unwrap(), Acknowledged::Counting);
    payments.tick_blocking().unwrap();
    assert_eq!(ldk.calls(), 1);
    engine.shutdown_blocking();
}

#[tokio::test]
async fn what_ldk_has_listed_as_paid_or_for_another_hash_is_never_taken_for_not_started() {
    for (state, listed) in [(Listing::Fulfilled, P), (Listing::Pending, P2)] {
        let mut node = Node::new();
        let is_paid = state == Listing::Fulfilled;
        if is_paid {
            // Of a record that has been released, while its payee was away: its PaymentSent has been handled.
            node.ldk.list(X, state, Some(hash(listed)));
            assert_eq!(node.known(X, P).await, Standing::Dispatched);
            (0..20).for_each(|_| node.ldk.tick());
        } else {
            node.sent(X, P).await;
            node.ldk.list(X, state, Some(hash(listed)));
        }
        node.restart().await;
        node.payments.synced();
        crate::support::until(&node.engine, |stats| stats.inquiries > 0).await;
        for _ in 0..3 {
            crate::support::settled(&node.engine).await;
            assert_eq!(node.known(X, P).await, Standing::Dispatched, "{state:?}");
        }
        assert_eq!(node.ldk.calls(), 1);
        node.engine.shutdown().await;
    }
}
