//! How an engine is put together.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use tokio::runtime::{Handle, Runtime};

use crate::actor::{Actors, Parts, Permits, interrupt_all};
use crate::bounds::Limits;
use crate::engine::{Engine, Shared};
use crate::entropy::Entropy;
use crate::store::{MemoryStore, RedbOptions, RedbStore, Store, StoreError};
use crate::time::{Clock, ClockState, HighWater, SystemClock};

/// Settings of an [`Engine`]; every one has a default.
pub struct Builder {
    clock: Box<dyn Clock>,
    limits: Limits,
    redb: RedbOptions,
    runtime: Option<Handle>,
    seed: Option<[u8; 32]>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            clock: Box::new(SystemClock),
            limits: Limits::default(),
            redb: RedbOptions::default(),
            runtime: None,
            seed: None,
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

    /// Opens the store at `path`, or creates it. It blocks for the time of the opening.
    ///
    /// # Errors
    /// [`StoreError`]: the file is open elsewhere, damaged, or from a newer version. It is never emptied or made anew.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Engine, StoreError> {
        let store = RedbStore::open(path.as_ref(), self.redb.clone())?;
        self.open_store(Arc::new(store))
    }

    /// An engine that forgets everything when it closes.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the threads cannot be started.
    pub fn open_in_memory(self) -> Result<Engine, StoreError> {
        self.open_store(Arc::new(MemoryStore::new()))
    }

    /// An engine over any store. The engine closes it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_store(self, store: Arc<dyn Store>) -> Result<Engine, StoreError> {
        let limits = self.limits.sound();
        let entropy = match self.seed {
            Some(seed) => Entropy::from_seed(seed),
            None => Entropy::from_os().map_err(|error| StoreError::Io(Arc::new(error)))?,
        };
        let spans = (limits.clock_jump, limits.clock_trust_after);
        let clock = Arc::new(HighWater::new(self.clock, store.clock_mark()?, spans, note_clock));
        let interrupted = interrupt_all(&*store, clock.now())?;
        if interrupted > 0 {
            tracing::warn!(interrupted, "records of an earlier boot are in doubt");
        }
        let (runtime, own_runtime) = match self.runtime.or_else(|| Handle::try_current().ok()) {
            Some(runtime) => (runtime, None),
            None => own_runtime().map(|runtime| (runtime.handle().clone(), Some(runtime)))?,
        };
        let actors = Actors::start(Parts {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            limits: limits.clone(),
            jitter: entropy.jitter(),
            runtime: runtime.clone(),
            own_runtime,
        })?;
        let boot = entropy.boot_id();
        let permits = Permits::new(limits.in_flight, limits.in_flight_per_scope);
        let (waiters, closing) = (AtomicU64::new(0), AtomicBool::new(false));
        Ok(Engine::from_shared(Shared {
            store,
            clock,
            limits,
            permits,
            entropy,
            boot,
            waiters,
            closing,
            runtime,
            actors,
        }))
    }
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
