//! Whole engines on one thread under virtual time: an episode of days runs in a millisecond, and runs again the same from its
//! seed.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::Random;
use crate::actor::on_one_thread;
use crate::builder::Builder;
use crate::engine::Engine;
use crate::store::{Store, StoreError};
use crate::time::{Clock, UnixMillis};

/// When every simulation begins.
const START: UnixMillis = UnixMillis(1_800_000_000_000);

/// Runs one episode to its end: a future in which engines are [opened](Simulation::open), asked, [crashed](Simulation::crash)
/// and opened again. Actors and operations run on this thread, in an order that follows from the seed alone, and time
/// [passes](Simulation::pass) only when nobody has anything left to do.
///
/// What it rests on is up to the episode, too: no threads, no blocking operations, no clock but the simulation's, no
/// randomness but [`Simulation::random`], no order of a `HashMap`, and `biased;` in each `tokio::select!`.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use ibid::testing::{Effects, FaultyStore, simulate};
/// use ibid::{Call, End, Engine, Flow, Operation, Policy, store::MemoryStore};
///
/// let paid = Effects::new();
/// let seen = paid.clone();
/// simulate(7, async move |simulation| {
///     let flow = Flow::new("order", Policy::replay(Duration::from_secs(3_600))).unwrap();
///     let key = flow.key("shop", "order-1").unwrap();
///     let disk = Arc::new(MemoryStore::new());
///     for _ in 0..2 {
///         let store = Arc::new(FaultyStore::new(disk.clone()).keeping_inner());
///         let engine = simulation.open(Engine::builder(), store).unwrap();
///         let paid = paid.clone();
///         let pay = Operation::new(async move |_| End::done(paid.note("order-1").to_string().into_bytes()));
///         engine.submit(Call::new(&flow, &key, *b"3 cups"), pay).await.unwrap();
///         simulation.crash(&engine).await;
///     }
/// })
/// .unwrap();
/// assert_eq!(seen.count("order-1"), 1);
/// ```
///
/// # Errors
/// The operating system's, if it has nothing left to make a runtime of.
pub fn simulate<T>(seed: u64, episode: impl AsyncFnOnce(&Simulation) -> T) -> std::io::Result<T> {
    on_one_thread(async {
        let simulation = Simulation::new(seed);
        episode(&simulation).await
    })
}

/// One episode's thread, time and randomness.
pub struct Simulation {
    clock: SimulatedClock,
    seed: u64,
    opened: Cell<u64>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self { clock: SimulatedClock::new(), seed, opened: Cell::new(0) }
    }

    /// Opens an engine over `store`, with these settings but for clock, runtime and seed, which are the simulation's. Like a
    /// process that starts, it gets a boot id and tokens of its own, which follow from the seed.
    ///
    /// # Errors
    /// As [`Builder::open_store`].
    pub fn open(&self, builder: Builder, store: Arc<dyn Store>) -> Result<Engine, StoreError> {
        let mut random = Random::new(self.seed ^ self.opened.get().rotate_left(32));
        self.opened.set(self.opened.get() + 1);
        let mut seed = [0; 32];
        seed.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&random.number().to_be_bytes()));
        builder.clock(self.clock.clone()).seed(seed).open_on_this_thread(store)
    }

    /// Ends the engine as a crash of its process would: nothing more is committed, nothing more runs, who waits hears
    /// [`Closed`](crate::ErrorKind::Closed), and the store is closed. What was handed to its actors before this call may still
    /// happen.
    pub async fn crash(&self, engine: &Engine) {
        engine.crash().await;
        self.settle().await;
    }

    /// Lets this much time pass, and everything happen meanwhile that is due.
    pub async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Returns when nobody has anything left to do but to wait for time to pass (by a millisecond).
    pub async fn settle(&self) {
        self.pass(Duration::from_millis(1)).await;
    }

    /// The simulation's clock: virtual time, and whatever it was set off by.
    #[must_use]
    pub fn clock(&self) -> &SimulatedClock {
        &self.clock
    }

    /// Randomness for the episode itself.
    #[must_use]
    pub fn random(&self) -> Random {
        Random::new(self.seed)
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// A wall clock over virtual time. Clones are one clock.
#[derive(Clone, Debug)]
pub struct SimulatedClock {
    begun: Instant,
    /// What it shows at the beginning; moved, it shows another time all along.
    origin: Arc<AtomicU64>,
}

impl SimulatedClock {
    fn new() -> Self {
        Self { begun: Instant::now(), origin: Arc::new(AtomicU64::new(START.0)) }
    }

    /// Sets the wall clock ahead, without any time passing.
    pub fn set_ahead(&self, by: Duration) {
        let ahead = UnixMillis(self.origin.load(Ordering::Relaxed)).saturating_add(by);
        self.origin.store(ahead.0, Ordering::Relaxed);
    }

    /// Sets the wall clock back.
    pub fn set_back(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.origin.store(self.origin.load(Ordering::Relaxed).saturating_sub(by), Ordering::Relaxed);
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.origin.load(Ordering::Relaxed)).saturating_add(self.begun.elapsed())
    }

    fn monotonic(&self) -> Duration {
        self.begun.elapsed()
    }
}
