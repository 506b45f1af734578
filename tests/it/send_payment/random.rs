//! Random payments, events and ticks, crashes of either side and of both, a store whose commits fail: nobody pays twice, nobody is
//! told of a failure where something is or was paid, and everything comes to an end.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ibid::Engine;
use ibid::lightning::send_payment::{Handled, SendError, SendPayment, SendPaymentSetup, Standing};
use ibid::store::MemoryStore;
use ibid::testing::{Fault, FaultyStore, Random, Simulation, simulate};
use tokio::task::JoinHandle;

use super::model::{Blob, Fate, Id, Ldk, Script};
use super::{P, P2, X, Y, flow, invoice, own_node_id};

const IDS: [Id; 2] = [X, Y];
const STEPS: u64 = 250;
/// A manager is written at least this often, so that none is loaded from before a payment that both sides have forgotten since.
const TICKS_UNWRITTEN: u32 = 3;

struct Episode<'a> {
    simulation: &'a Simulation,
    random: Random,
    disk: Arc<MemoryStore>,
    ldk: Ldk,
    /// The manager as it was written last.
    blob: Blob,
    ticks_unwritten: u32,
    store: Arc<FaultyStore>,
    setup: SendPaymentSetup,
    engine: Engine,
    payments: SendPayment,
    /// LDK hands over one event at a time.
    delivery: Option<JoinHandle<Option<Handled>>>,
    /// Sets that are paid for and whose records ticks have released.
    released: HashSet<usize>,
    /// What a record was last seen to be completed with, by id.
    completed: [Option<(ibid::Token, Standing)>; 2],
    /// Tokens of records that have failed.
    failed: HashSet<[u8; 32]>,
    trace: Vec<String>,
}

impl<'a> Episode<'a> {
    fn new(simulation: &'a Simulation) -> Self {
        let (disk, ldk) = (Arc::new(MemoryStore::new()), Ldk::new());
        let setup = SendPaymentSetup::new(flow(), own_node_id(), Arc::new(ldk.clone()));
        let (store, engine) = open(simulation, &disk, &setup);
        let payments = setup.bind(engine.clone()).unwrap();
        Self {
            simulation,
            random: simulation.random(),
            disk,
            blob: ldk.blob(),
            ldk,
            ticks_unwritten: 0,
            store,
            setup,
            engine,
            payments,
            delivery: None,
            released: HashSet::new(),
            completed: [None, None],
            failed: HashSet::new(),
            trace: Vec::new(),
        }
    }

    async fn step(&mut self) {
        let id = IDS[usize::from(self.random.once_in(2))];
        let what = self.random.below(100);
        self.trace.push(format!("{what} {:02x}", id[0]));
        match what {
            0..25 => self.send(id),
            25..30 => self.script(),
            30..34 => self.ldk.hold(),
            34..42 => self.ldk.release(),
            42..49 => self.end_one(true),
            49..54 => self.end_one(false),
            54..66 => self.deliver().await,
            66..70 => drop(self.payments.abandon(id).await),
            70..74 => {
                self.ldk.write_monitors();
                self.write();
            }
            74..86 => self.tick().await,
            86..90 => self.sync(),
            90..93 => {
                let fault = if self.random.once_in(2) { Fault::BeforeEffect } else { Fault::AfterEffect };
                self.store.fail_commits(1 + self.random.below(3), fault);
            }
            93..95 => self.restart_engine().await,
            95..97 => self.restart_node(),
            _ => {
                // The process dies, with all that is in it.
                self.simulation.crash(&self.engine).await;
                self.ldk.reload(self.blob.clone());
                self.open_anew(true);
            }
        }
        let pause = [0, 1, 40, 3_000];
        self.simulation.pass(Duration::from_millis(*self.random.pick(&pause).unwrap())).await;
        self.check();
    }

    fn send(&mut self, id: Id) {
        let preimage = if self.random.once_in(4) { P2 } else { P };
        // Who has asked is gone before there is an answer; what it is shows in the record.
        self.payments.try_send(invoice(id, preimage), drop).ok();
    }

    fn script(&mut self) {
        let scripts = [
            Script::AllPathsFail,
            Script::Refuse(SendError::RouteNotFound),
            Script::Refuse(SendError::PaymentExpired),
            Script::Say(SendError::PersistenceFailed),
            Script::Say(SendError::Other("new".into())),
            Script::PanicAfter,
            Script::PanicBefore,
        ];
        self.ldk.next(self.random.pick(&scripts).unwrap().clone());
    }

    fn end_one(&mut self, is_paid: bool) {
        let live: Vec<_> = self.ldk.sets().into_iter().filter(|set| set.fate == Fate::Live).collect();
        let Some(set) = self.random.pick(&live) else { return };
        let preimage = if set.payment_hash == Some(super::hash(P)) { P } else { P2 };
        match is_paid {
            true => self.ldk.claim(set.id, preimage, Some(1)),
            false => self.ldk.fail(set.id),
        }
    }

    async fn deliver(&mut self) {
        if let Some(delivery) = self.delivery.take_if(|delivery| delivery.is_finished()) {
            let handled = delivery.await.unwrap();
            assert!(!matches!(handled, Some(Handled::Contradiction(_))), "a payment that had failed is paid");
        }
        if self.delivery.is_none() && !self.ldk.events().is_empty() {
            let (ldk, payments) = (self.ldk.clone(), self.payments.clone());
            self.delivery = Some(tokio::spawn(async move { ldk.deliver(&payments).await.ok() }));
        }
    }

    async fn tick(&mut self) {
        self.ldk.tick();
        drop(self.payments.tick().await);
        self.ticks_unwritten += 1;
        if self.ticks_unwritten >= TICKS_UNWRITTEN {
            self.write();
        }
    }

    fn write(&mut self) {
        self.blob = self.ldk.blob();
        self.ticks_unwritten = 0;
    }

    /// As a host does, once nothing is left to be replayed.
    fn sync(&mut self) {
        if self.ldk.events().is_empty() {
            self.payments.synced();
        }
    }

    async fn restart_engine(&mut self) {
        self.simulation.crash(&self.engine).await;
        self.open_anew(false);
    }

    fn restart_node(&mut self) {
        self.payments.unsynced();
        self.ldk.reload(self.blob.clone());
        self.delivery = None;
        self.payments.resume().ok();
    }

    /// A new process knows nothing of the calls of the one before; an engine opened anew in the same one does.
    fn open_anew(&mut self, is_new_process: bool) {
        if is_new_process {
            self.setup = SendPaymentSetup::new(flow(), own_node_id(), Arc::new(self.ldk.clone()));
        }
        (self.store, self.engine) = open(self.simulation, &self.disk, &self.setup);
        self.payments = self.setup.bind(self.engine.clone()).unwrap();
        self.payments.resume().ok();
        self.delivery = None;
    }

    fn check(&mut self) {
        let sets = self.ldk.sets();
        for (at, id) in IDS.into_iter().enumerate() {
            let Ok(payment) = self.payments.lookup(id) else { continue };
            let token = payment.as_ref().map(|payment| payment.attempt.token);
            if let Some((before, standing)) = &self.completed[at] {
                match &payment {
                    Some(now) if now.attempt.token == *before => assert_eq!(now.standing, *standing, "absorbing"),
                    Some(_) | None => {
                        let of_id = sets.iter().enumerate().filter(|(_, set)| set.id == id && set.fate == Fate::Paid);
                        self.released.extend(of_id.map(|(at, _)| at));
                        self.completed[at] = None;
                    }
                }
            }
            let holds = |set: &&super::model::HtlcSet| matches!(set.fate, Fate::Live | Fate::Paid);
            let owed = sets.iter().enumerate().filter(|(at, set)| set.id == id && !self.released.contains(at));
            let owed: Vec<_> = owed.map(|(_, set)| set).filter(holds).collect();
            assert!(owed.len() <= 1, "paid twice: {owed:?}");
            match payment.map(|payment| payment.standing) {
                Some(standing @ Standing::Completed(_)) => {
                    let token = token.expect("there is a record");
                    self.completed[at] = Some((token, standing));
                }
                Some(Standing::Failed(_) | Standing::RolledBack(_)) => {
                    assert!(owed.is_empty(), "told of a failure: {owed:?}");
                    self.failed.extend(token.map(|token| token.0));
                }
                Some(_) | None => {}
            }
        }
        let revived =
            sets.iter().find(|set| self.failed.contains(&set.token.0) && matches!(set.fate, Fate::Live | Fate::Paid));
        assert!(revived.is_none(), "{revived:?}");
        assert_eq!(self.payments.counts().contradictions, 0);
    }

    /// Everything heals: then every record ends as its payment did.
    async fn end(&mut self) {
        self.ldk.release();
        self.store.heal();
        self.simulation.pass(Duration::from_secs(20)).await;
        for _ in 0..50 {
            let is_paid = self.random.once_in(2);
            self.end_one(is_paid);
            self.deliver().await;
            self.simulation.pass(Duration::from_secs(1)).await;
            self.check();
        }
        self.sync();
        // What LDK lists as paid although its event was handled long ago, it forgets now.
        (0..8).for_each(|_| self.ldk.tick());
        self.simulation.pass(Duration::from_secs(120)).await;
        self.check();
        assert!(self.ldk.events().is_empty());
        for id in IDS {
            let Some(payment) = self.payments.lookup(id).unwrap() else { continue };
            let is_paid = self.ldk.sets().iter().any(|set| set.id == id && set.fate == Fate::Paid);
            match payment.standing {
                Standing::Completed(_) => assert!(is_paid),
                Standing::Failed(_) | Standing::RolledBack(_) => {}
                // Sent again while LDK still listed an earlier payment as paid: nobody can say that nothing was.
                Standing::Dispatched if is_paid => {}
                other => panic!("it has no end: {other:?}"),
            }
        }
        self.engine.shutdown().await;
    }
}

fn open(simulation: &Simulation, disk: &Arc<MemoryStore>, setup: &SendPaymentSetup) -> (Arc<FaultyStore>, Engine) {
    let store = Arc::new(FaultyStore::new(disk.clone()).keeping_inner());
    let engine = simulation.open(setup.prepare(Engine::builder()), store.clone()).unwrap();
    (store, engine)
}

fn episodes(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let trace = Arc::new(std::sync::Mutex::new(Vec::new()));
        let noted = Arc::clone(&trace);
        let run = std::panic::AssertUnwindSafe(|| {
            simulate(seed, async move |simulation| {
                let mut episode = Episode::new(simulation);
                for _ in 0..STEPS {
                    episode.step().await;
                    *noted.lock().unwrap() = episode.trace.clone();
                }
                episode.end().await;
            })
            .unwrap();
        });
        if let Err(panic) = std::panic::catch_unwind(run) {
            println!("seed {seed}: {:?}", trace.lock().unwrap());
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn whatever_fails_nobody_pays_twice_and_everything_ends() {
    episodes(0..200);
}
