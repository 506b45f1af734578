//! A dispatcher's desk: a store that outlives its engines, and a switch that counts what goes out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ibid::lightning::send_onion::{
    Circuit, Dispatch, FLOW_NAME, ONION_BYTES, Onion, OnionError, OnionRequest, SendOnion, Sent, Switch, Switching,
    Tracked, WireOnion,
};
use ibid::testing::Effects;
use ibid::{Attempt, AttemptId, Builder, Bytes, Engine, Flow, Inquiry, Limits, Policy};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::support::{Bench, within_a_minute};

pub(super) const A: &[u8] = b"dispatcher A";
pub(super) const B: &[u8] = b"dispatcher B";

/// What the switch does with an attempt id.
#[derive(Clone)]
pub(super) enum Act {
    Say(Dispatch),
    Panic,
    /// Goes out, and says so when the gate opens.
    Held(Arc<Semaphore>, Dispatch),
    Hang,
}

/// What the switch says when it is asked.
#[derive(Clone)]
pub(super) enum Told {
    Say(Circuit),
    Panic,
    Hang,
}

/// A switch that accepts everything, unless told otherwise, and whose circuits outlive engines.
#[derive(Clone)]
pub(super) struct FakeSwitch(Arc<Parts>);

struct Parts {
    sent: Effects,
    asked: Effects,
    acts: Mutex<BTreeMap<u64, Act>>,
    told: Mutex<BTreeMap<u64, Told>>,
    attempts: Mutex<BTreeMap<(Vec<u8>, u64), AttemptId>>,
    started: mpsc::UnboundedSender<u64>,
    starts: tokio::sync::Mutex<mpsc::UnboundedReceiver<u64>>,
}

impl FakeSwitch {
    pub(super) fn new() -> Self {
        let (started, starts) = mpsc::unbounded_channel();
        Self(Arc::new(Parts {
            sent: Effects::new(),
            asked: Effects::new(),
            acts: Mutex::default(),
            told: Mutex::default(),
            attempts: Mutex::default(),
            started,
            starts: tokio::sync::Mutex::new(starts),
        }))
    }

    pub(super) fn acts(&self, id: u64, act: Act) {
        self.0.acts.lock().unwrap().insert(id, act);
    }

    pub(super) fn says(&self, id: u64, dispatch: Dispatch) {
        self.acts(id, Act::Say(dispatch));
    }

    pub(super) fn tells(&self, id: u64, told: Told) {
        self.0.told.lock().unwrap().insert(id, told);
    }

    pub(super) fn finds(&self, id: u64, circuit: Circuit) {
        self.tells(id, Told::Say(circuit));
    }

    /// How often this id went out, for whomever.
    pub(super) fn sent(&self, id: u64) -> u64 {
        self.0.sent.count(&id.to_string())
    }

    /// How many dispatches there were.
    pub(super) fn sent_in_all(&self) -> u64 {
        self.0.sent.all().iter().map(|(_, count)| count).sum()
    }

    pub(super) fn asked(&self, id: u64) -> u64 {
        self.0.asked.count(&id.to_string())
    }

    pub(super) fn attempt(&self, namespace: &[u8], id: u64) -> AttemptId {
        self.0.attempts.lock().unwrap()[&(namespace.to_vec(), id)]
    }

    /// Waits until the next dispatch has begun.
    pub(super) async fn until_sent(&self) -> u64 {
        within_a_minute(async { self.0.starts.lock().await.recv().await }).await.unwrap()
    }
}

impl Switch for FakeSwitch {
    fn dispatch<'a>(&'a self, request: &'a OnionRequest, attempt: &'a Attempt) -> Switching<'a, Dispatch> {
        Box::pin(async move {
            let id = request.attempt_id;
            assert_eq!(Onion::from_canonical(attempt.request()).as_ref(), Some(&request.onion));
            self.0.sent.note(id.to_string());
            self.0.attempts.lock().unwrap().insert((request.namespace.clone(), id), attempt.id());
            // The test may have stopped listening.
            self.0.started.send(id).ok();
            let act = self.0.acts.lock().unwrap().get(&id).cloned();
            match act.unwrap_or(Act::Say(Dispatch::Accepted)) {
                Act::Say(dispatch) => dispatch,
                Act::Panic => std::panic::resume_unwind(Box::new("injected into a dispatch")),
                Act::Held(gate, dispatch) => {
                    gate.acquire().await.unwrap().forget();
                    dispatch
                }
                Act::Hang => std::future::pending().await,
            }
        })
    }

    fn find<'a>(&'a self, request: &'a OnionRequest, inquiry: &'a Inquiry) -> Switching<'a, Circuit> {
        Box::pin(async move {
            let id = request.attempt_id;
            assert_eq!(inquiry.key().scope(), request.namespace);
            self.0.asked.note(id.to_string());
            let told = self.0.told.lock().unwrap().get(&id).cloned();
            match told.unwrap_or(Told::Say(Circuit::CannotTell)) {
                Told::Say(circuit) => circuit,
                Told::Panic => std::panic::resume_unwind(Box::new("injected into an inquiry")),
                Told::Hang => std::future::pending().await,
            }
        })
    }
}

/// A file, and the switch.
pub(super) struct Desk {
    pub(super) bench: Bench,
    pub(super) switch: FakeSwitch,
}

impl Desk {
    pub(super) fn new() -> Self {
        Self { bench: Bench::new(), switch: FakeSwitch::new() }
    }

    pub(super) fn open(&self) -> (Engine, SendOnion) {
        self.open_with(Limits::default())
    }

    pub(super) fn open_with(&self, limits: Limits) -> (Engine, SendOnion) {
        let builder = Engine::builder().clock(self.bench.clock.clone()).limits(limits);
        let engine = asking(builder, &self.switch).open(self.bench.path()).unwrap();
        (engine.clone(), handle(engine, &self.switch))
    }
}

pub(super) fn asking(builder: Builder, switch: &FakeSwitch) -> Builder {
    SendOnion::prepare(builder, &flow(), Arc::new(switch.clone()))
}

pub(super) fn handle(engine: Engine, switch: &FakeSwitch) -> SendOnion {
    SendOnion::new(engine, flow(), Arc::new(switch.clone())).unwrap()
}

/// An engine of this one flow, on no disk.
pub(super) fn in_memory(flow: Flow, switch: &FakeSwitch) -> (Engine, SendOnion) {
    let outbound: Arc<dyn Switch> = Arc::new(switch.clone());
    let engine = SendOnion::prepare(Engine::builder(), &flow, outbound.clone()).open_in_memory().unwrap();
    (engine.clone(), SendOnion::new(engine, flow, outbound).unwrap())
}

pub(super) fn flow() -> Flow {
    Flow::new(FLOW_NAME, Policy::send_onion()).unwrap()
}

/// Limits under which the engine asks often, and a shutdown waits for no dispatch that hangs.
pub(super) fn quick() -> Limits {
    let mut limits = Limits::default();
    limits.recovery_pause = Duration::from_millis(5);
    limits.recovery_pause_max = Duration::from_millis(10);
    limits.dispatched_silence = Duration::from_millis(10);
    limits.oracle_timeout = Duration::from_millis(50);
    limits.drain = Duration::from_millis(1);
    limits
}

pub(super) fn wire(amount_msat: u64) -> WireOnion {
    WireOnion {
        first_hop_channel: Some(17),
        amount_msat,
        payment_hash: vec![0x5c; 32],
        timelock_height: 800_000,
        onion: vec![0xaa; ONION_BYTES],
        ..WireOnion::default()
    }
}

pub(super) fn onion(amount_msat: u64) -> Onion {
    Onion::try_from(wire(amount_msat)).unwrap()
}

pub(super) fn bytes(text: &str) -> Bytes {
    text.as_bytes().into()
}

/// What a server would send for this error: the code, and the detail's bytes.
pub(super) fn told(error: &OnionError) -> (i32, Vec<u8>) {
    (error.grpc_code(), serde_json::to_vec(&error.detail()).unwrap())
}

/// Sends 2,000 msat in a task of its own.
pub(super) fn send(onions: &SendOnion, namespace: &'static [u8], id: u64) -> JoinHandle<Result<Sent, OnionError>> {
    let onions = onions.clone();
    tokio::spawn(async move { onions.send(namespace, id, &onion(2_000)).await })
}

pub(super) fn track(onions: &SendOnion, id: u64) -> JoinHandle<Result<Tracked, OnionError>> {
    let onions = onions.clone();
    tokio::spawn(async move { onions.track(A, id).await })
}

/// Sends 2,000 msat and expects an error.
pub(super) async fn refused(onions: &SendOnion, id: u64) -> OnionError {
    within_a_minute(onions.send(A, id, &onion(2_000))).await.unwrap_err()
}

/// Sends 2,000 msat and expects that it is accepted.
pub(super) async fn accepted(onions: &SendOnion, namespace: &[u8], id: u64) {
    assert_eq!(within_a_minute(onions.send(namespace, id, &onion(2_000))).await.unwrap(), Sent::Accepted);
}
