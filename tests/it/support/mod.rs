//! What the tests share: an engine with a clock set by hand, an operation that counts its runs and can be held at a gate.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ibid::http::{Idempotency, Setup};
use ibid::store::{MemoryStore, Store};
use ibid::testing::{FaultyStore, ManualClock};
use ibid::{
    Bytes, Call, End, Engine, Error, Flow, Key, Limits, Operation, Outcome, Policy, Reply, Stats, Submission,
    UnixMillis,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

/// Where every test's clock begins.
pub(crate) const START: UnixMillis = UnixMillis(1_800_000_000_000);

/// A store in a directory of its own, and the clock.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
    pub(crate) clock: ManualClock,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), clock: ManualClock::at(START) }
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("store.redb")
    }

    pub(crate) fn open(&self) -> Engine {
        self.open_with(Limits::default())
    }

    pub(crate) fn open_with(&self, limits: Limits) -> Engine {
        open(&self.path(), &self.clock, limits)
    }
}

fn open(path: &Path, clock: &ManualClock, limits: Limits) -> Engine {
    Engine::builder().clock(clock.clone()).limits(limits).open(path).unwrap()
}

/// A store that fails on demand, over one in memory that outlives its engines.
pub(crate) struct Faulty {
    inner: Arc<dyn Store>,
}

impl Faulty {
    pub(crate) fn new() -> Self {
        Self { inner: Arc::new(MemoryStore::new()) }
    }

    pub(crate) fn open(&self) -> (Arc<FaultyStore>, Engine) {
        self.open_with(|_| ())
    }

    pub(crate) fn open_with(&self, set: impl FnOnce(&mut Limits)) -> (Arc<FaultyStore>, Engine) {
        let store = Arc::new(FaultyStore::new(Arc::clone(&self.inner)).keeping_inner());
        let mut limits = Limits::default();
        set(&mut limits);
        let clock = ManualClock::at(START);
        let engine = Engine::builder().clock(clock).limits(limits).open_store(store.clone()).unwrap();
        (store, engine)
    }
}

/// The HTTP layer with these settings, over a store in memory.
pub(crate) async fn bound(setup: Setup) -> (Engine, Idempotency) {
    let config = setup.build().unwrap();
    let builder = config.prepare(Engine::builder().clock(ManualClock::at(START)));
    let engine = builder.open_store(Arc::new(MemoryStore::new())).unwrap();
    let idempotency = config.bind(&engine).await.unwrap();
    (engine, idempotency)
}

/// Replays for ten minutes.
pub(crate) fn flow() -> Flow {
    Flow::new("test", Policy::replay(Duration::from_secs(600))).unwrap()
}

pub(crate) fn flow_of(policy: Policy) -> Flow {
    Flow::new("test", policy).unwrap()
}

pub(crate) fn key(flow: &Flow, id: &str) -> Key {
    flow.key("scope", id).unwrap()
}

/// An operation that counts how often it was started, waits at its gate, and answers `answer-<n>`.
#[derive(Clone)]
pub(crate) struct Counted {
    runs: Arc<AtomicUsize>,
    passed: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
    started: mpsc::UnboundedSender<usize>,
}

impl Counted {
    /// With an open gate.
    pub(crate) fn new() -> Self {
        let counted = Self::held().0;
        counted.release();
        counted
    }

    /// With a closed gate, and a channel that tells of every start.
    pub(crate) fn held() -> (Self, mpsc::UnboundedReceiver<usize>) {
        let (started, starts) = mpsc::unbounded_channel();
        (Self { runs: Arc::default(), passed: Arc::default(), gate: Arc::new(Semaphore::new(0)), started }, starts)
    }

    /// Opens the gate for good.
    pub(crate) fn release(&self) {
        self.gate.add_permits(1_000_000);
    }

    pub(crate) fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    /// Lets one more pass.
    pub(crate) fn release_one(&self) {
        self.gate.add_permits(1);
    }

    /// How many have passed the gate.
    pub(crate) fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }

    /// Counts a start, waits at the gate, returns the number of the start.
    pub(crate) async fn pass(&self) -> usize {
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        // The test may have stopped listening.
        self.started.send(run).ok();
        self.gate.acquire().await.unwrap().forget();
        self.passed.fetch_add(1, Ordering::SeqCst);
        run
    }

    pub(crate) fn operation(&self) -> Operation {
        let this = self.clone();
        Operation::new(async move |_| End::done(this.pass().await.to_string().into_bytes()))
    }

    /// Ends as told.
    pub(crate) fn ending(&self, end: impl FnOnce(usize) -> End + Send + 'static) -> Operation {
        let this = self.clone();
        Operation::new(async move |_| end(this.pass().await))
    }
}

pub(crate) fn call(flow: &Flow, id: &str, request: &str) -> Call {
    Call::new(flow, &key(flow, id), request.as_bytes())
}

/// Submits and expects an answer.
pub(crate) async fn answer(engine: &Engine, call: Call, operation: Operation) -> Outcome<Bytes> {
    match engine.submit(call, operation).await.unwrap() {
        Reply::Answer(outcome) => outcome,
        Reply::Accepted => panic!("accepted, not answered"),
    }
}

/// Submits and expects an error.
pub(crate) async fn error(engine: &Engine, call: Call, operation: Operation) -> Error {
    engine.submit(call, operation).await.unwrap_err()
}

/// Submits in a task of its own.
pub(crate) fn submit(engine: &Engine, call: Call, operation: Operation) -> JoinHandle<Result<Reply, Error>> {
    let engine = engine.clone();
    tokio::spawn(async move { engine.submit(call, operation).await })
}

/// The answer of a [`submit`].
pub(crate) async fn heard(caller: JoinHandle<Result<Reply, Error>>) -> Outcome<Bytes> {
    match caller.await.unwrap().unwrap() {
        Reply::Answer(outcome) => outcome,
        Reply::Accepted => panic!("accepted, not answered"),
    }
}

/// An example's program: they are built beside the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().join("examples").join(name)
}

/// Waits for it, and not for ever: a test that hangs tells nobody why.
pub(crate) async fn within_a_minute<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it hangs")
}

/// Asks again and again, which gives everybody their turn, until it holds; not for ever.
pub(crate) async fn until(engine: &Engine, holds: impl Fn(&Stats) -> bool) -> Stats {
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

/// Returns when everything sent to the engine's actors so far has been handled, and what they sent each other on it. A busy
/// router can keep a key actor of its thread from its turn; so this also goes through an actor that has to wait for its own.
pub(crate) async fn settled(engine: &Engine) {
    let other = Flow::new("other", Policy::replay(Duration::from_secs(600))).unwrap();
    let front = engine.recipient();
    for _ in 0..5 {
        engine.stats().await.unwrap();
        let refused = Call::new(&flow(), &key(&other, "a"), *b"r");
        let refused = Submission { call: refused, operation: Counted::new().operation() };
        assert!(front.send(refused).await.unwrap().is_err(), "the key is another flow's");
    }
}
