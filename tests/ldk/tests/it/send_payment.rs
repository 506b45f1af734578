//! `send_payment` over a real LDK: the one consistent answer, where LDK alone has several.
//!
//! A test whose comment begins with a row has its twin in `ldk_alone`, and the two are a row of the table in the docs.

mod duplicates;
mod failures;
mod release;
mod restarts;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ibid::lightning::Blocking;
use ibid::lightning::send_payment::{
    Ending, FLOW_NAME, Handled, Paid, Payment, PaymentError, PaymentRequest, SendPayment, SendPaymentSetup, Sent,
    Standing,
};
use ibid::store::{RedbOptions, RedbStore};
use ibid::testing::FaultyStore;
use ibid::{Engine, Flow, Limits, NodeId, Policy};
use ibid_ldk::{Id, Invoice, Net, Payer, Snapshot, State, Told, hand_over, request};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

const X: Id = [0x58; 32];
const Y: Id = [0x59; 32];
const MSAT: u64 = 5_000_000;

/// Too much for the channel to take twice.
const MOST_MSAT: u64 = 600_000_000;

/// Further away than any test lasts, in unix seconds.
const NEVER_S: u64 = 1 << 40;

/// A net whose payer pays through ibid, over a file.
struct World {
    net: Net,
    payer: Arc<Payer>,
    setup: SendPaymentSetup,
    store: Arc<FaultyStore>,
    engine: Engine,
    payments: SendPayment,
    runtime: Runtime,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self::with(|setup| setup)
    }

    fn with(set: impl FnOnce(SendPaymentSetup) -> SendPaymentSetup) -> Self {
        let net = Net::channel();
        let payer = Arc::new(Payer::new(net.payer().wallet()));
        let setup = set(set_up(&net, &payer));
        let (runtime, dir) = (Runtime::new().unwrap(), tempfile::tempdir().unwrap());
        let (store, engine) = open(&path(&dir), &runtime, &setup);
        let payments = setup.bind(engine.clone()).unwrap();
        payments.synced();
        Self { net, payer, setup, store, engine, payments, runtime, dir }
    }

    /// With X under way to an invoice.
    fn pending() -> (Self, Invoice) {
        let mut world = Self::new();
        let invoice = world.invoice(MSAT);
        world.accepts(X, &invoice);
        world.net.deliver();
        (world, invoice)
    }

    /// With X paid, and every event of it handled.
    fn paid() -> (Self, Invoice) {
        let (mut world, invoice) = Self::pending();
        world.claim(&invoice);
        (world, invoice)
    }

    // ---- paying ----

    fn invoice(&self, msat: u64) -> Invoice {
        self.net.payee().invoice(Some(msat))
    }

    fn send(&self, request: PaymentRequest) -> Result<Sent, PaymentError> {
        self.payments.send_blocking(request)
    }

    fn accepts(&self, id: Id, invoice: &Invoice) {
        assert_eq!(self.send(request(id, invoice)).unwrap(), Sent::Accepted);
    }

    /// How X stands, as a duplicate is told.
    fn known(&self, invoice: &Invoice) -> Standing {
        known(self.send(request(X, invoice)))
    }

    fn conflicts(&self, request: PaymentRequest) {
        let sent = self.send(request);
        assert!(matches!(sent, Err(PaymentError::Conflict(_))), "{sent:?}");
    }

    /// What proves that X was not and will not be sent.
    fn refused(&self, invoice: &Invoice) -> String {
        match self.send(request(X, invoice)) {
            Err(error @ PaymentError::Definitive(_)) => error.reason().unwrap().into_owned(),
            other => panic!("{other:?}"),
        }
    }

    /// How often LDK was asked to pay.
    fn calls(&self) -> usize {
        self.payer.calls()
    }

    /// X, as LDK lists it.
    fn listed(&self) -> Option<State> {
        self.net.payer().wallet().state(X)
    }

    fn payment(&self) -> Option<Payment> {
        self.payments.lookup(X).unwrap()
    }

    /// Somebody waits for the end of X from here on.
    fn track(&self) -> JoinHandle<Result<Ending, PaymentError>> {
        let payments = self.payments.clone();
        let tracked = self.runtime.spawn(async move { payments.track(X).await });
        self.until(|world| world.wait(world.engine.stats()).unwrap().in_flight > 0);
        tracked
    }

    fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), what).await.expect("it hangs") })
    }

    /// Asks again and again, which gives everybody their turn, until it holds; not for ever.
    fn until(&self, holds: impl Fn(&Self) -> bool) {
        for _ in 0..200_000 {
            if holds(self) {
                return;
            }
            // A store that is down has no statistics; its turn it takes all the same.
            self.wait(self.engine.stats()).ok();
        }
        panic!("it never came to hold: {:?}", self.payment());
    }

    // ---- events ----

    /// Handles the payer's next events as a host does, and says what became of those that are an end; at the first one that LDK
    /// has to tell again it stops.
    fn handle(&self) -> Result<Vec<Handled>, ()> {
        let mut ends = Ok(Vec::new());
        self.net.payer().handle_events(|told| {
            let is_end = matches!(told, Told::Sent { .. } | Told::Failed { .. });
            let handled = hand_over(&self.payments, told).transpose().map_err(drop);
            match (&mut ends, handled) {
                (Ok(ends), Ok(handled)) => ends.extend(handled.filter(|_| is_end)),
                _ => ends = Err(()),
            }
            if ends.is_ok() { Ok(()) } else { Err(()) }
        });
        ends
    }

    /// Handles events until there are no more: LDK finishes with a payment, and tells of its paths, only when PaymentSent has been
    /// handled.
    fn events(&mut self) -> Vec<Handled> {
        let mut ends = Vec::new();
        loop {
            self.net.deliver();
            let is_over = self.net.payer().has_no_event();
            ends.extend(self.handle().unwrap());
            if is_over {
                return ends;
            }
        }
    }

    /// X is paid, and all its events are handled. What is recorded.
    fn claim(&mut self, invoice: &Invoice) -> Paid {
        let preimage = self.net.claim(invoice.hash);
        assert_eq!(self.events(), [Handled::Recorded]);
        // From neighbour to neighbour there is no fee, and LDK says so.
        let paid = Paid { preimage, payment_hash: invoice.hash, fee_msat: Some(0) };
        assert_eq!(self.payment().unwrap().standing, Standing::Completed(paid.clone()));
        paid
    }

    /// The payee refuses X, and all its events are handled.
    fn fail(&mut self, invoice: &Invoice) {
        self.net.fail(invoice.hash);
        assert_eq!(self.events(), [Handled::Recorded]);
    }

    /// LDK's ticks, each with ibid's after it.
    fn ticks(&self, count: usize) {
        for _ in 0..count {
            self.net.payer().tick();
            self.payments.tick_blocking().unwrap();
        }
    }

    // ---- restarts ----

    /// The engine alone is closed and opened again; LDK goes on.
    fn restart_engine(&mut self) {
        self.engine.shutdown_blocking();
        (self.store, self.engine) = open(&path(&self.dir), &self.runtime, &self.setup);
        self.payments = self.setup.bind(self.engine.clone()).unwrap();
    }

    /// LDK alone is loaded anew, from this; the engine goes on.
    fn restart_ldk(&mut self, from: &Snapshot) {
        self.payments.unsynced();
        self.load(from);
        self.payments.resume().unwrap();
    }

    /// The process ends, and another one starts with LDK from this and the engine from its file.
    fn restart(&mut self, from: &Snapshot) {
        self.engine.shutdown_blocking();
        self.load(from);
        self.setup = set_up(&self.net, &self.payer);
        (self.store, self.engine) = open(&path(&self.dir), &self.runtime, &self.setup);
        self.payments = self.setup.bind(self.engine.clone()).unwrap();
        self.payments.resume().unwrap();
    }

    fn load(&mut self, from: &Snapshot) {
        self.net.restart_payer(from);
        self.payer.set_wallet(self.net.payer().wallet());
    }

    /// As a host does when replayed events are handled and the chain is seen.
    fn sync(&mut self) -> Vec<Handled> {
        let handled = self.events();
        self.payments.synced();
        handled
    }
}

fn set_up(net: &Net, payer: &Arc<Payer>) -> SendPaymentSetup {
    let flow = Flow::new(FLOW_NAME, Policy::send_payment()).unwrap();
    let own_node_id = NodeId::new(net.payer().id()).unwrap();
    SendPaymentSetup::new(flow, own_node_id, Arc::new(Blocking::new(payer.clone())))
}

fn path(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("ibid.redb")
}

fn open(path: &PathBuf, runtime: &Runtime, setup: &SendPaymentSetup) -> (Arc<FaultyStore>, Engine) {
    let redb = RedbStore::open(path, RedbOptions::default()).unwrap();
    let store = Arc::new(FaultyStore::new(Arc::new(redb)));
    let mut limits = Limits::default();
    // A shutdown waits for nothing that runs.
    limits.drain = Duration::ZERO;
    // However slow the machine, LDK is asked when an engine starts and when somebody wants to know.
    limits.dispatched_silence = Duration::from_secs(3600);
    let builder = setup.prepare(Engine::builder()).runtime(runtime.handle().clone()).limits(limits);
    let engine = builder.open_store(store.clone()).unwrap();
    (store, engine)
}

/// How it stands, of a send that was a duplicate.
fn known(sent: Result<Sent, PaymentError>) -> Standing {
    match sent.unwrap() {
        Sent::Known(standing) => standing,
        Sent::Accepted => panic!("it was sent again"),
    }
}

fn failed(reason: &str) -> Standing {
    Standing::Failed(Some(reason.to_owned()))
}

/// Every row of the table has two tests that measure it, and its first line counts the rows that end in bold.
#[test]
fn every_row_of_the_table_is_measured_by_a_pair_of_tests() {
    let table = include_str!("../../../../src/lightning/send_payment/ldk.md");
    let alone = include_str!("ldk_alone.rs");
    let with_ibid = [
        include_str!("send_payment/duplicates.rs"),
        include_str!("send_payment/failures.rs"),
        include_str!("send_payment/release.rs"),
        include_str!("send_payment/restarts.rs"),
    ]
    .concat();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| #")).collect();
    let tests_of = |source: &str, row: usize| source.matches(&format!("/// Row {row}: ")).count();
    for (n, line) in rows.iter().enumerate() {
        assert!(line.starts_with(&format!("| {} |", n + 1)), "{line}");
        assert_eq!((tests_of(alone, n + 1), tests_of(&with_ibid, n + 1)), (1, 1), "{line}");
    }
    assert_eq!((tests_of(alone, rows.len() + 1), tests_of(&with_ibid, rows.len() + 1)), (0, 0));
    let corrected = rows.iter().filter(|line| line.contains("**")).count();
    assert!(
        table.starts_with(&format!("Of LDK's own answers ibid corrects {corrected} of {}", rows.len())),
        "{corrected}"
    );
}
