//! Key actors that die with somebody waiting: who hears what, and that nothing runs twice for it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::{Kind, cure, poison, poison_every};
use crate::policy::InDoubt;
use crate::store::MemoryStore;
use crate::testing::{FaultyStore, Gate};
use crate::{
    Builder, Call, Class, End, Ended, Engine, Error, ErrorKind, Event, Flow, How, Key, Limits, Observer, Operation,
    Policy, Reason, Reply, Stats, Status, Submission,
};

pub(super) type Caller = JoinHandle<Result<Reply, Error>>;

/// One key of a flow that nobody else uses, and an operation that counts its starts and waits at a gate.
pub(super) struct Scene {
    inner: Arc<MemoryStore>,
    pub(super) store: Arc<FaultyStore>,
    pub(super) engine: Engine,
    /// What was observed, but for retries of the store.
    observed: Arc<Mutex<Vec<String>>>,
    pub(super) flow: Flow,
    pub(super) key: Key,
    pub(super) name: &'static str,
    runs: Arc<AtomicUsize>,
    pub(super) gate: Arc<Semaphore>,
    started: mpsc::UnboundedSender<()>,
    starts: mpsc::UnboundedReceiver<()>,
}

impl Scene {
    fn new(name: &'static str, in_doubt: InDoubt) -> Self {
        Self::draining(name, in_doubt, Limits::default().drain)
    }

    fn draining(name: &'static str, in_doubt: InDoubt, drain: Duration) -> Self {
        Self::of(name, Policy::replay(Duration::from_secs(600)).in_doubt(in_doubt), drain)
    }

    pub(super) fn replay_safe(name: &'static str) -> Self {
        let policy = Policy::replay(Duration::from_secs(600)).in_doubt(InDoubt::Rerun).replay_safe();
        Self::of(name, policy, Limits::default().drain)
    }

    fn of(name: &'static str, policy: Policy, drain: Duration) -> Self {
        let inner = Arc::new(MemoryStore::new());
        let store = Arc::new(FaultyStore::new(inner.clone()).keeping_inner());
        let limits = Limits { drain, ..Limits::default() };
        let (engine, observed) = watched(Engine::builder().limits(limits), store.clone());
        let flow = Flow::new(name, policy).unwrap();
        let key = flow.key(b"scope", b"a").unwrap();
        let (started, starts) = mpsc::unbounded_channel();
        let (runs, gate) = (Arc::default(), Arc::new(Semaphore::new(0)));
        Self { inner, store, engine, observed, flow, key, name, runs, gate, started, starts }
    }

    pub(super) fn submit(&self, request: &str, end: impl FnOnce() -> End + Send + 'static) -> Caller {
        let (runs, gate, started) = (Arc::clone(&self.runs), Arc::clone(&self.gate), self.started.clone());
        let operation = Operation::new(async move |_| {
            runs.fetch_add(1, Ordering::SeqCst);
            started.send(()).ok();
            gate.acquire().await.unwrap().forget();
            end()
        });
        let (engine, call) = (self.engine.clone(), Call::new(&self.flow, &self.key, request.as_bytes()));
        tokio::spawn(async move { engine.submit(call, operation).await })
    }

    /// A first caller whose operation has started.
    pub(super) async fn start(&mut self, end: impl FnOnce() -> End + Send + 'static) -> Caller {
        let first = self.submit("r", end);
        self.starts.recv().await.unwrap();
        settled(&self.engine).await;
        first
    }

    /// The operation ends, and its end waits for its commit.
    pub(super) async fn hold_the_end(&self) -> Gate {
        let gate = self.store.hold_commits();
        self.gate.add_permits(1);
        self.store.until_held().await;
        gate
    }

    /// Returns when this many actors have died and what they left has been taken over.
    pub(super) async fn until_died(&self, count: u64) {
        until(&self.engine, |stats| stats.died_actors >= count).await;
        settled(&self.engine).await;
    }

    pub(super) fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    pub(super) async fn end(self, died_actors: u64) {
        cure(self.name);
        let stats = until(&self.engine, |stats| (stats.live_actors, stats.running, stats.in_flight) == (0, 0, 0)).await;
        assert_eq!(stats.died_actors, died_actors, "{stats:?}");
        self.engine.shutdown().await;
    }
}

/// An engine and the names of the events that are observed.
fn watched(builder: Builder, store: Arc<FaultyStore>) -> (Engine, Arc<Mutex<Vec<String>>>) {
    struct Log(Arc<Mutex<Vec<String>>>);
    impl Observer for Log {
        fn observe(&self, event: &Event<'_>) {
            let name = format!("{event:?}");
            let name = name.split(' ').next().unwrap_or_default();
            self.0.lock().unwrap().push(name.into());
        }
    }
    let observed = Arc::<Mutex<Vec<String>>>::default();
    let engine = builder.observer(Log(Arc::clone(&observed))).open_store(store).unwrap();
    (engine, observed)
}

pub(super) async fn until(engine: &Engine, holds: impl Fn(&Stats) -> bool) -> Stats {
    let mut stats = engine.stats().await.unwrap();
    for _ in 0..100_000 {
        if holds(&stats) {
            return stats;
        }
        tokio::task::yield_now().await;
        stats = engine.stats().await.unwrap();
    }
    panic!("it never came to hold: {stats:?}");
}

/// Everything sent to the actors so far has been handled, and what they sent each other on it. A busy router can keep a key
/// actor of its thread from its turn; so this also goes through an actor that has to wait for its own.
pub(super) async fn settled(engine: &Engine) {
    let policy = || Policy::replay(Duration::from_secs(600));
    let (flow, other) = (Flow::new("settled", policy()).unwrap(), Flow::new("other", policy()).unwrap());
    let key = other.key(b"scope", b"a").unwrap();
    let front = engine.recipient();
    for _ in 0..5 {
        engine.stats().await.unwrap();
        let refused = Submission { call: Call::new(&flow, &key, *b"r"), operation: operation(0) };
        assert!(front.send(refused).await.unwrap().is_err(), "the key is another flow's");
    }
}

/// What a caller hears, within a minute.
pub(super) async fn hears(caller: Caller) -> Result<Reply, Error> {
    tokio::time::timeout(Duration::from_secs(60), caller).await.expect("it hangs").unwrap()
}

pub(super) async fn is_answered(caller: Caller, how: How, answer: &str) {
    match hears(caller).await.unwrap() {
        Reply::Answer(outcome) => assert_eq!((outcome.how, &*outcome.answer), (how, answer.as_bytes())),
        Reply::Accepted => panic!("accepted"),
    }
}

async fn is_left_in_doubt(caller: Caller) {
    let error = hears(caller).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InDoubt(_)), "{error:?}");
}

#[tokio::test]
async fn waiters_of_a_dead_actor_get_the_answer_that_was_under_way_and_never_that_of_another_request() {
    let mut scene = Scene::new("stranded", InDoubt::Ambiguous);
    let first = scene.start(|| End::done(*b"answer")).await;
    let gate = scene.hold_the_end().await;
    poison(scene.name, Kind::Ticket, 1);
    let joined = scene.submit("r", || End::done(*b"not run"));
    scene.until_died(1).await;
    drop(gate);
    is_answered(first, How::Executed, "answer").await;
    is_answered(joined, How::Joined, "answer").await;
    assert_eq!(scene.runs(), 1);
    scene.engine.forget(&scene.flow, std::slice::from_ref(&scene.key)).await.unwrap();
    scene.gate.add_permits(1);
    is_answered(scene.submit("another", || End::done(*b"another's")), How::Executed, "another's").await;
    assert_eq!(scene.runs(), 2);
    scene.end(1).await;
}

#[tokio::test]
async fn the_caller_of_an_accepted_operation_hears_so_although_its_actor_died_before_the_end() {
    let mut scene = Scene::new("accepted", InDoubt::Ambiguous);
    let first = scene.start(|| End::Accepted).await;
    poison(scene.name, Kind::Ticket, 1);
    let joined = scene.submit("r", || End::done(*b"not run"));
    scene.until_died(1).await;
    scene.gate.add_permits(1);
    assert_eq!(hears(first).await.unwrap(), Reply::Accepted);
    let end = Ended::Completed((*b"preimage").into());
    scene.engine.resolve(&scene.flow, &scene.key, None, end).await.unwrap();
    is_answered(joined, How::Joined, "preimage").await;
    assert_eq!(scene.runs(), 1);
    scene.end(1).await;
}

#[tokio::test]
async fn the_caller_of_an_accepted_operation_hears_so_although_its_actor_died_of_the_commit() {
    let mut scene = Scene::new("accepted late", InDoubt::Ambiguous);
    let first = scene.start(|| End::Accepted).await;
    poison(scene.name, Kind::Decided, 1);
    scene.gate.add_permits(1);
    assert_eq!(hears(first).await.unwrap(), Reply::Accepted);
    assert_eq!(scene.runs(), 1);
    scene.end(1).await;
}

#[tokio::test]
async fn an_end_in_doubt_is_never_heard_as_accepted_although_its_actor_died_of_the_commit() {
    let mut scene = Scene::new("doubtful", InDoubt::Ask);
    let first = scene.start(|| End::Unknown(Reason::from_bytes(*b"who knows"))).await;
    let joined = scene.submit("r", || End::done(*b"not run"));
    settled(&scene.engine).await;
    poison(scene.name, Kind::Decided, 1);
    scene.gate.add_permits(1);
    is_left_in_doubt(first).await;
    is_left_in_doubt(joined).await;
    assert_eq!(scene.runs(), 1);
    scene.end(1).await;
}

#[tokio::test]
async fn a_poison_ticket_uses_up_its_own_tries_and_nobody_elses() {
    let mut scene = Scene::new("poison", InDoubt::Ambiguous);
    let first = scene.start(|| End::done(*b"answer")).await;
    let joined = scene.submit("r", || End::done(*b"not run"));
    settled(&scene.engine).await;
    let gate = scene.hold_the_end().await;
    // Two of them: each kills four actors, which all have the end and those who wait for it.
    for victims in [4, 8] {
        poison(scene.name, Kind::Ticket, 4);
        let culprit = scene.submit("r", || End::done(*b"not run"));
        let heard = hears(culprit).await.unwrap_err();
        assert!(matches!(heard.kind(), ErrorKind::Internal) && heard.class() == Class::Ambiguous, "{heard:?}");
        scene.until_died(victims).await;
    }
    let late = scene.submit("r", || End::done(*b"not run"));
    settled(&scene.engine).await;
    drop(gate);
    is_answered(first, How::Executed, "answer").await;
    is_answered(joined, How::Joined, "answer").await;
    // It came while the end was being written, and was looked at after that.
    is_answered(late, How::Replayed, "answer").await;
    is_answered(scene.submit("r", || End::done(*b"not run")), How::Replayed, "answer").await;
    assert_eq!(scene.runs(), 1);
    scene.end(8).await;
}

#[tokio::test]
async fn an_end_that_kills_every_actor_leaves_the_record_in_doubt_and_nobody_waiting() {
    let mut scene = Scene::new("poisoned end", InDoubt::Ask);
    let first = scene.start(|| End::done(*b"answer")).await;
    let joined = scene.submit("r", || End::done(*b"not run"));
    settled(&scene.engine).await;
    poison(scene.name, Kind::Report, 4);
    scene.gate.add_permits(1);
    is_left_in_doubt(first).await;
    is_left_in_doubt(joined).await;
    let retry = hears(scene.submit("r", || End::done(*b"not run"))).await.unwrap_err();
    assert!(matches!(retry.kind(), ErrorKind::Duplicate(Status::InDoubt)), "{retry:?}");
    assert_eq!(scene.runs(), 1);
    scene.end(4).await;
}

/// The actor that had the record in memory is dead, and the store can't be read when the end comes.
async fn stall(scene: &mut Scene) {
    let first = scene.start(|| End::done(*b"answer")).await;
    scene.store.fail_reads(u64::MAX);
    poison(scene.name, Kind::Ticket, 1);
    let joined = scene.submit("r", || End::done(*b"not run"));
    for caller in [first, joined] {
        let heard = hears(caller).await.unwrap_err();
        assert!(matches!(heard.kind(), ErrorKind::Store) && heard.class() == Class::Ambiguous, "{heard:?}");
    }
    scene.gate.add_permits(1);
    let stats = until(&scene.engine, |stats| stats.unsaved == 1).await;
    assert_eq!((stats.storage_failures, stats.running), (1, 1), "{stats:?}");
}

#[tokio::test]
async fn an_end_for_which_the_store_cannot_be_read_is_recorded_as_soon_as_it_can() {
    let mut scene = Scene::new("stalled for a while", InDoubt::Ambiguous);
    stall(&mut scene).await;
    scene.store.heal();
    let retry = scene.submit("r", || End::done(*b"not run"));
    is_answered(retry, How::Joined, "answer").await;
    assert_eq!(scene.runs(), 1);
    until(&scene.engine, |stats| (stats.unsaved, stats.storage_failures) == (0, 1)).await;
    scene.end(1).await;
}

#[tokio::test]
async fn an_end_for_which_the_store_cannot_be_read_gets_a_last_round_and_delays_no_shutdown() {
    for (name, heals) in [("stalled", true), ("stalled for good", false)] {
        let mut scene = Scene::draining(name, InDoubt::Ambiguous, Duration::from_secs(36_000));
        stall(&mut scene).await;
        if heals {
            scene.store.heal();
        }
        let minute = Duration::from_secs(60);
        tokio::time::timeout(minute, scene.engine.shutdown()).await.expect("nothing runs");
        cure(scene.name);
        scene.engine = Engine::builder().open_store(scene.inner.clone()).unwrap();
        match hears(scene.submit("r", || End::done(*b"not run"))).await {
            Ok(Reply::Answer(outcome)) if heals => assert_eq!(&*outcome.answer, b"answer"),
            Err(error) if !heals => assert!(matches!(error.kind(), ErrorKind::InDoubt(_)), "{error:?}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(scene.runs(), 1);
        scene.engine.shutdown().await;
    }
}

const REQUESTS: usize = 20_000;
const CALLERS: usize = 256;
const KEYS: usize = 128;

/// A third answers at once, a third after everybody else had a turn, a third panics or fails.
fn operation(number: usize) -> Operation {
    Operation::new(async move |_| match number % 12 {
        0..4 => End::done(*b"answer"),
        4..8 => {
            tokio::task::yield_now().await;
            End::done(*b"answer")
        }
        8 => std::panic::resume_unwind(Box::new("injected into an operation")),
        9 => End::Unknown(Reason::from_bytes(*b"who knows")),
        _ => End::Definitive(Reason::from_bytes(*b"no")),
    })
}

/// Runs the requests of one caller; returns how many it got typed answers to.
async fn call_all(engine: Engine, flow: Flow, caller: usize) -> usize {
    let mut heard = 0;
    for number in (caller..REQUESTS).step_by(CALLERS) {
        let key = flow.key(b"scope", ((number / 2) % KEYS).to_be_bytes()).unwrap();
        match engine.submit(Call::new(&flow, &key, *b"request"), operation(number)).await {
            Ok(Reply::Answer(outcome)) => assert_eq!(&*outcome.answer, b"answer"),
            Ok(Reply::Accepted) => panic!("nothing was accepted"),
            Err(error) => {
                let is_failure = matches!(error.kind(), ErrorKind::Failed(_));
                assert!(is_failure || error.class() == Class::Ambiguous, "{error:?}");
            }
        }
        heard += 1;
        // So that the next request runs; this too may end unknown.
        if number % 2 == 1 {
            drop(engine.forget(&flow, &[key]).await);
        }
    }
    heard
}

#[tokio::test]
async fn with_every_20th_message_killing_its_actor_each_of_20_000_callers_hears_one_typed_answer() {
    const FLOW: &str = "massacre";
    let engine = Engine::builder().open_in_memory().unwrap();
    let flow = Flow::new(FLOW, Policy::replay(Duration::from_secs(600)).in_doubt(InDoubt::Rerun)).unwrap();
    poison_every(FLOW, 20);
    let callers: Vec<_> =
        (0..CALLERS).map(|caller| tokio::spawn(call_all(engine.clone(), flow.clone(), caller))).collect();
    let mut heard = 0;
    let all = async {
        for caller in callers {
            heard += caller.await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("a caller hangs");
    cure(FLOW);
    assert_eq!(heard, REQUESTS);
    let stats = until(&engine, |stats| (stats.live_actors, stats.running, stats.in_flight) == (0, 0, 0)).await;
    assert!(stats.died_actors > 1_000, "the panics were injected: {stats:?}");
    engine.shutdown().await;
}

#[tokio::test]
async fn an_actor_that_dies_over_an_end_lets_its_doubt_be_told_once() {
    for kind in [Kind::Report, Kind::Decided] {
        let name = if kind == Kind::Report { "watched-report" } else { "watched-decided" };
        let mut scene = Scene::new(name, InDoubt::Rerun);
        let caller = scene.start(|| End::Unknown(Reason::from_bytes(*b"?"))).await;
        poison(name, kind, 2);
        scene.gate.add_permits(1);
        is_left_in_doubt(caller).await;
        scene.until_died(1).await;
        let told = ["Started", "Ended", "InDoubt"];
        assert_eq!(*scene.observed.lock().unwrap(), told, "{name}");
        cure(name);
        let again = scene.submit("r", || End::done(*b"x"));
        scene.gate.add_permits(1);
        is_answered(again, How::Executed, "x").await;
        let again = ["OutOfDoubt", "Started", "Ended"];
        assert_eq!(*scene.observed.lock().unwrap(), [told, again].concat(), "{name}");
        let died = scene.engine.stats().await.unwrap().died_actors;
        scene.end(died).await;
    }
}

#[tokio::test]
async fn a_start_that_an_actor_dies_over_is_in_doubt_for_those_who_watch_until_it_ends() {
    let scene = Scene::new("watched-start", InDoubt::Ambiguous);
    poison("watched-start", Kind::Decided, 1);
    is_left_in_doubt(scene.submit("r", || End::done(*b"x"))).await;
    is_left_in_doubt(scene.submit("r", || End::done(*b"x"))).await;
    assert_eq!((&**scene.observed.lock().unwrap(), scene.runs()), (&["InDoubt".to_owned()][..], 0));
    let told = Ended::Completed((*b"told").into());
    scene.engine.resolve(&scene.flow, &scene.key, None, told).await.unwrap();
    assert_eq!(*scene.observed.lock().unwrap(), ["InDoubt", "OutOfDoubt"]);
    scene.end(1).await;
}

#[tokio::test]
async fn an_end_that_every_actor_dies_over_is_lost_once_and_its_record_in_doubt_when_it_is_met() {
    let mut scene = Scene::new("watched-lost", InDoubt::Ambiguous);
    let caller = scene.start(|| End::done(*b"x")).await;
    poison("watched-lost", Kind::Report, u64::MAX);
    scene.gate.add_permits(1);
    hears(caller).await.unwrap_err();
    until(&scene.engine, |stats| stats.running == 0).await;
    cure("watched-lost");
    is_left_in_doubt(scene.submit("r", || End::done(*b"x"))).await;
    assert_eq!(*scene.observed.lock().unwrap(), ["Started", "Ended", "Lost", "InDoubt"]);
    let died = scene.engine.stats().await.unwrap().died_actors;
    scene.end(died).await;
}
