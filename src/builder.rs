//! How an engine is put together.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use tokio::runtime::{Handle, Runtime};

use crate::actor::{Actors, Flows, Means, Operation, Parts, Permits, Recovery, interrupt_all};
use crate::bounds::Limits;
use crate::engine::{Engine, Shared};
use crate::entropy::Entropy;
use crate::inquiry::{Found, Inquiry};
use crate::key::Key;
use crate::observe::{Event, Observer, Observers};
use crate::policy::Flow;
use crate::record::Bytes;
use crate::store::{MemoryStore, RedbOptions, RedbStore, Store, StoreError};
use crate::time::{Clock, ClockState, HighWater, SystemClock, Ticks};

/// Settings of an [`Engine`]; every one has a default.
pub struct Builder {
    clock: Box<dyn Clock>,
    limits: Limits,
    least_answer_bytes: usize,
    redb: RedbOptions,
    runtime: Option<Handle>,
    seed: Option<[u8; 32]>,
    recovered: Vec<(Flow, Means)>,
    observers: Vec<Box<dyn Observer>>,
    least_generation: u64,
    /// Whether the actors live on the thread that opens the engine.
    #[cfg(feature = "testing")]
    here: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            clock: Box::new(SystemClock),
            limits: Limits::default(),
            least_answer_bytes: 0,
            redb: RedbOptions::default(),
            runtime: None,
            seed: None,
            recovered: Vec::new(),
            observers: Vec::new(),
            least_generation: 0,
            #[cfg(feature = "testing")]
            here: false,
        }
    }
}

impl Builder {
    /// Where the time comes from. Default: the machine's wall clock.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// Every bound. Start from [`Limits::default`].
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Raises [`Limits::answer_bytes`] to so many bytes where it is lower, whether the limits are set before or after this. For
    /// an adapter whose stored answers are larger than the bodies it lets through. Of several the largest counts.
    #[must_use]
    pub fn at_least_answer_bytes(mut self, bytes: usize) -> Self {
        self.least_answer_bytes = self.least_answer_bytes.max(bytes);
        self
    }

    /// Settings of the store's file.
    #[must_use]
    pub fn redb(mut self, options: RedbOptions) -> Self {
        self.redb = options;
        self
    }

    /// The tokio runtime on which operations and completion callbacks run. Default: the one in which the engine is opened, or
    /// one of its own with two threads.
    #[must_use]
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Makes boot id, tokens and jitter repeatable. For tests only: a token is worth something because nobody can guess it, and two
    /// engines of one seed issue the same ones.
    #[must_use]
    pub fn seed(mut self, seed: [u8; 32]) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Who can be asked how an attempt of this flow stands, whose policy must be
    /// [`InDoubt::Ask`](crate::InDoubt::Ask): LDK's recent payments, lnd's circuit map.
    ///
    /// It is asked about each record in doubt when it comes into doubt, when a caller first meets it, at opening, and then again
    /// while it cannot tell, at doubling intervals; and about dispatched records that are without news. See the
    /// [limits](Limits). At most one inquiry per key runs at a time. A panic, or no answer within
    /// [`Limits::oracle_timeout`], is [`Found::CannotTell`] for that key.
    ///
    /// The future runs on the runtime on which the operations run, and must not block it. It may be dropped at any await, when
    /// it is too slow or the engine closes. The oracle asks and tells; it must not send anything.
    #[must_use]
    pub fn oracle<F, Fut>(mut self, flow: &Flow, oracle: F) -> Self
    where
        F: Fn(Inquiry) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Found> + Send + 'static,
    {
        let asked = Means::Ask(Arc::new(move |inquiry| Box::pin(oracle(inquiry))));
        self.recovered.push((flow.clone(), asked));
        self
    }

    /// What runs when a record of this flow, whose policy must be [`InDoubt::Rerun`](crate::InDoubt::Rerun), is in doubt and
    /// no caller retries: made of its key and its canonical request, on the runtime on which the operations run.
    ///
    /// It is a re-run like one that a retry brings about: the same token, the last checkpoint, and it counts towards
    /// [`Limits::recoveries`]. It takes a permit and waits for its next turn if there is none. The record answers for as long
    /// as the first request wanted it to, from the re-run's admission.
    #[must_use]
    pub fn rerun<F>(mut self, flow: &Flow, operation: F) -> Self
    where
        F: Fn(&Key, &Bytes) -> Operation + Send + Sync + 'static,
    {
        self.recovered.push((flow.clone(), Means::Rerun(Arc::new(operation))));
        self
    }

    /// Who hears of what happens in the engine. Called again it adds another one; all are told.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.push(Box::new(observer));
        self
    }

    /// The [generation](Engine::generation) that the store is known to have reached. An older one is refused: it is a backup, or
    /// another file, and would run again what was recorded since. A missing file is as old as can be, and is refused, too.
    #[must_use]
    pub fn at_least_generation(mut self, generation: u64) -> Self {
        self.least_generation = generation;
        self
    }

    /// Opens the store at `path`, or creates it. It blocks for the time of the opening.
    ///
    /// # Errors
    /// [`StoreError`]: the file is open elsewhere, damaged, or from a newer version; it is never emptied or made anew. Or the
    /// settings do not fit each other ([`StoreError::Settings`]), as for the other ways to open.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Engine, StoreError> {
        // What is missing is not created only to be refused: the next opening would find an empty store.
        if self.least_generation > 0 && path.as_ref().try_exists().is_ok_and(|exists| !exists) {
            return Err(StoreError::Stale { found: 0, expected: self.least_generation });
        }
        let store = RedbStore::open(path.as_ref(), self.redb.clone())?;
        self.open_store(Arc::new(store))
    }

    /// An engine that forgets everything when it closes.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the threads cannot be started, [`StoreError::Settings`].
    pub fn open_in_memory(self) -> Result<Engine, StoreError> {
        self.open_store(Arc::new(MemoryStore::new()))
    }

    /// An engine whose actors live on this thread: see [`Actors::start_here`].
    #[cfg(feature = "testing")]
    pub(crate) fn open_on_this_thread(mut self, store: Arc<dyn Store>) -> Result<Engine, StoreError> {
        self.here = true;
        self.open_store(store)
    }

    /// An engine over any store. The engine closes it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_store(self, store: Arc<dyn Store>) -> Result<Engine, StoreError> {
        let flows = Flows::of(self.recovered).map_err(StoreError::Settings)?;
        let (found, expected) = (store.generation()?, self.least_generation);
        if found < expected {
            return Err(StoreError::Stale { found, expected });
        }
        let limits = self.limits.with_answer_bytes(self.least_answer_bytes).sound();
        let entropy = match self.seed {
            Some(seed) => Entropy::from_seed(seed),
            None => Entropy::from_os().map_err(|error| StoreError::Io(Arc::new(error)))?,
        };
        let spans = (limits.clock_jump, limits.clock_trust_after);
        let clock = Arc::new(HighWater::new(self.clock, store.clock_mark()?, spans, note_clock));
        let opened_at = clock.now();
        let (runtime, own_runtime) = match self.runtime.or_else(|| Handle::try_current().ok()) {
            Some(runtime) => (runtime, None),
            None => own_runtime().map(|runtime| (runtime.handle().clone(), Some(runtime)))?,
        };
        let boot = entropy.boot_id();
        let permits = Permits::new(limits.in_flight, limits.in_flight_per_scope);
        let trackers = Permits::new(limits.in_flight, limits.in_flight_per_scope);
        let askers = askers(&limits);
        let ticks = Arc::new(Ticks::from(store.tick_mark()?));
        let recovery = Arc::new(Recovery { flows, permits: Arc::clone(&permits), boot, opened_at });
        let observers = Observers::of(self.observers);
        let parts = Parts {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            ticks: Arc::clone(&ticks),
            limits: limits.clone(),
            jitter: entropy.jitter(),
            runtime: runtime.clone(),
            own_runtime,
            recovery: Arc::clone(&recovery),
            observers: Arc::clone(&observers),
        };
        #[cfg(feature = "testing")]
        let start = if self.here { |parts| Ok(Actors::start_here(parts)) } else { Actors::start };
        #[cfg(not(feature = "testing"))]
        let start = Actors::start;
        let found = interrupt_all(&*store, opened_at, &observers);
        let actors = found.and_then(|()| start(parts)).inspect_err(|_| observers.tell(Event::Closed))?;
        let (waiters, closing) = (AtomicU64::new(0), AtomicBool::new(false));
        Ok(Engine::from_shared(Shared {
            store,
            clock,
            limits,
            permits,
            trackers,
            askers,
            entropy,
            boot,
            ticks,
            recovery,
            waiters,
            closing,
            runtime,
            actors,
        }))
    }
}

/// As many as may run, or wait for one key, may also ask how a key stands when there is no room.
fn askers(limits: &Limits) -> Arc<Permits> {
    let most = |count: usize| count.max(limits.waiters_per_key);
    Permits::new(most(limits.in_flight), most(limits.in_flight_per_scope))
}

fn note_clock(state: ClockState) {
    match state {
        ClockState::Suspect { wall, trusted } => {
            tracing::error!(%wall, %trusted, "the wall clock has leapt ahead and is suspect: nothing expires for good");
        }
        ClockState::Trusted => tracing::warn!("the wall clock is trusted again"),
    }
}

fn own_runtime() -> Result<Runtime, StoreError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("ibid-operation")
        .enable_all()
        .build()
        .map_err(|error| StoreError::Io(Arc::new(error)))
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("limits", &self.limits).finish_non_exhaustive()
    }
}
