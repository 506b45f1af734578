//! The two threads that run actix: start, drain, stop, join, close the file.
//!
//! actix's `System` panics inside a tokio task, so it gets a thread of ours. `System::stop` neither drains nor joins; so the
//! order here is explicit: admission closes, what runs gets its time, what is queued is committed, the supervisor's thread
//! is joined, the store is closed, and only then does anybody hear that the engine is down.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use actix::{Actor, Addr, Arbiter, ArbiterHandle, Recipient, System};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{mpsc, oneshot, watch};

use super::front::{Front, Submission};
use super::key_actor::Surroundings;
#[cfg(feature = "testing")]
use super::message::Halt;
use super::message::{AbortOperations, Drain, LastRound, RouterAddr, SettleAll, tell};
use super::meters::Meters;
use super::oracle::{Inquiries, Recovery};
use super::outbox::Outbox;
use super::recoverer::{Begin, Recoverer};
use super::router::{Router, Surround};
use super::running::Running;
use super::supervisor::Supervisor;
use crate::bounds::Limits;
use crate::entropy::Jitter;
use crate::observe::{Event, Observers};
use crate::store::{Store, StoreError};
use crate::time::{HighWater, Ticks};

/// What the actors are started with.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<HighWater>,
    pub(crate) ticks: Arc<Ticks>,
    pub(crate) limits: Limits,
    pub(crate) jitter: Jitter,
    /// Where operations run, and the runtime itself if it is ours.
    pub(crate) runtime: Handle,
    pub(crate) own_runtime: Option<Runtime>,
    pub(crate) recovery: Arc<Recovery>,
    pub(crate) observers: Arc<Observers>,
}

/// The running actors, from outside.
pub(crate) struct Actors {
    pub(crate) router: RouterAddr,
    pub(crate) supervisor: Addr<Supervisor>,
    pub(crate) meters: Arc<Meters>,
    /// The router's thread.
    arbiter: ArbiterHandle,
    stop: Mutex<Option<oneshot::Sender<Ending>>>,
    closed: watch::Receiver<bool>,
}

impl Actors {
    /// Starts both threads and waits until the actors are there.
    pub(crate) fn start(parts: Parts) -> Result<Self, StoreError> {
        let (started, ready) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let (closing, closed) = watch::channel(false);
        let (store, observers) = (Arc::clone(&parts.store), Arc::clone(&parts.observers));
        thread::Builder::new()
            .name("ibid".into())
            .spawn(move || {
                // However this thread ends, the file is given up and those who wait for it hear of it.
                let _closing = Closing { store, closing, observers };
                run(parts, &started, stopped);
            })
            .map_err(|error| StoreError::Io(Arc::new(error)))?;
        let started = ready.recv().map_err(|error| StoreError::Io(Arc::new(error)))?;
        Ok(Self::of(started, stop, closed))
    }

    fn of(started: Started, stop: oneshot::Sender<Ending>, closed: watch::Receiver<bool>) -> Self {
        let Started { router, supervisor, meters, arbiter, .. } = started;
        Self { router, supervisor, meters, arbiter, stop: Mutex::new(Some(stop)), closed }
    }

    /// Runs a task on the router's thread, whose runtime has a timer; the host's may have none. Dropped there and then if the
    /// engine is closed.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.arbiter.spawn(task);
    }

    /// Starts an actor that takes requests as messages.
    pub(crate) fn start_front(&self, front: Front) -> Recipient<Submission> {
        Front::start_in_arbiter(&self.arbiter, move |_| front).recipient()
    }

    /// Starts the actors on this thread, under the actix system that runs there. Only for simulations: nothing happens while
    /// that system is not polled, and a commit holds up everything.
    #[cfg(feature = "testing")]
    pub(crate) fn start_here(parts: Parts) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (closing, closed) = watch::channel(false);
        let closing = Closing { store: Arc::clone(&parts.store), closing, observers: Arc::clone(&parts.observers) };
        let drain = parts.limits.drain;
        let started = start_actors(parts, &Arbiter::current());
        let (router, supervisor) = (Arc::clone(&started.router), started.supervisor.clone());
        let recoverer = started.recoverer.clone();
        started.arbiter.spawn(async move {
            if let Ok(Ending::Crash) = stopped.await {
                router.do_send(AbortOperations);
            } else {
                shut_down(&router, drain).await;
            }
            halt(&router, &supervisor, recoverer.as_ref()).await;
            drop(closing);
        });
        Self::of(started, stop, closed)
    }

    /// Asks the actors to end, in this way. Only the first call has an effect.
    pub(crate) fn stop(&self, ending: Ending) {
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(stop) = stop {
            tell(stop, ending);
        }
    }

    /// Returns when the file is closed.
    pub(crate) async fn closed(&self) {
        // An error means that the thread is gone, and with it the file.
        drop(self.closed.clone().wait_for(|closed| *closed).await);
    }
}

/// How the actors end.
pub(crate) enum Ending {
    /// What runs gets its time, what is queued is committed.
    Drain,
    /// At once, as if the process had died; actors with threads of their own can only drain.
    #[cfg(feature = "testing")]
    Crash,
}

/// Closes the store when the thread ends, in whatever way.
struct Closing {
    store: Arc<dyn Store>,
    closing: watch::Sender<bool>,
    observers: Arc<Observers>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        if let Err(error) = self.store.close() {
            tracing::warn!(%error, "closing the store failed");
        }
        self.observers.tell(Event::Closed);
        self.closing.send_replace(true);
    }
}

struct Started {
    router: RouterAddr,
    supervisor: Addr<Supervisor>,
    /// Only where it has no thread that ends does it have to be told to.
    #[cfg(feature = "testing")]
    recoverer: Option<Addr<Recoverer>>,
    meters: Arc<Meters>,
    arbiter: ArbiterHandle,
}

/// What the actors' threads run on: timers alone, which take no descriptors. Actix's own runtimes take some, and panic where there
/// are none.
fn timers() -> Runtime {
    let built = tokio::runtime::Builder::new_current_thread().enable_time().build();
    built.unwrap_or_else(|error| resume_unwind(Box::new(error)))
}

fn run(mut parts: Parts, started: &std::sync::mpsc::Sender<Started>, stopped: oneshot::Receiver<Ending>) {
    let (drain, own_runtime) = (parts.limits.drain, parts.own_runtime.take());
    let system = System::with_tokio_rt(timers);
    let writer = system.block_on(async {
        let writer = Arbiter::with_tokio_rt(timers);
        let actors = start_actors(parts, &writer.handle());
        let router = Arc::clone(&actors.router);
        // An error means that the one who opened the engine is gone; then the stop signal is gone, too.
        drop(started.send(actors));
        // A dropped signal means that the last handle is gone: the same as being told to stop.
        drop(stopped.await);
        shut_down(&router, drain).await;
        writer
    });
    writer.stop();
    if writer.join().is_err() {
        tracing::error!("the supervisor's thread panicked");
    }
    // What still waits is dropped with its actors here, and hears that the engine is closed.
    drop(system);
    if let Some(runtime) = own_runtime {
        runtime.shutdown_background();
    }
}

/// Starts the router on this thread, and those who write or read much on that of `writer`.
fn start_actors(parts: Parts, writer: &ArbiterHandle) -> Started {
    let Parts { store, clock, ticks, limits, jitter, runtime, recovery, observers, .. } = parts;
    let meters = Arc::<Meters>::default();
    let router: RouterAddr = Arc::new(Router::new().start());
    let supervisor = {
        let (store, times, meters) =
            (Arc::clone(&store), (Arc::clone(&clock), Arc::clone(&ticks)), Arc::clone(&meters));
        let (limits, router) = (limits.clone(), router.clone());
        let watched = (meters, Arc::clone(&observers));
        Supervisor::start_in_arbiter(writer, move |_| Supervisor::new(store, times, limits, router, jitter, watched))
    };
    let recoverer = (!recovery.is_empty()).then(|| {
        let (store, clock, limits) = (Arc::clone(&store), Arc::clone(&clock), limits.clone());
        let recoverer = Recoverer::new(store, clock, limits, Arc::clone(&router), Arc::clone(&recovery));
        Recoverer::start_in_arbiter(writer, move |_| recoverer)
    });
    let inquiries = Inquiries::new(runtime.clone(), limits.oracle_timeout);
    let running = Running::new(runtime, Arc::clone(&observers));
    let (own_address, writing) = (Arc::clone(&router), supervisor.clone());
    router.do_send(Surround(Surroundings {
        store,
        clock,
        ticks,
        limits,
        running,
        meters: Arc::clone(&meters),
        observers,
        router: own_address,
        supervisor: writing,
        outbox: Outbox::new(Arc::clone(&router)),
        recovery,
        inquiries,
        recoverer: recoverer.clone(),
    }));
    // After its surroundings have been sent to the router, to which it sends what it finds.
    if let Some(recoverer) = &recoverer {
        recoverer.do_send(Begin);
    }
    Started {
        router,
        supervisor,
        #[cfg(feature = "testing")]
        recoverer,
        meters,
        arbiter: Arbiter::current(),
    }
}

/// How long aborted operations have to be gone.
const ABORT: Duration = Duration::from_secs(1);

/// Waits for what runs, at most for `drain`; then aborts it, which leaves its records in doubt. Commits what is queued.
async fn shut_down(router: &RouterAddr, drain: Duration) {
    let (drained, is_drained) = oneshot::channel();
    router.do_send(Drain(drained));
    let mut is_drained = is_drained;
    if tokio::time::timeout(drain, &mut is_drained).await.is_err() {
        tracing::warn!("operations still run at the end of the drain; their records stay in doubt");
        router.do_send(AbortOperations);
        // An aborted task is gone when it has next been polled, and reports it; a blocking one can't be made to.
        if tokio::time::timeout(ABORT, is_drained).await.is_err() {
            tracing::error!("operations do not heed their abortion; they may outlive the engine");
        }
    }
    settle(router).await;
    // The store is as open now as it will be. What it could not be read for gets its last round, and is proposed by the time
    // that everybody has heard of it.
    let (heard, mut all_have) = mpsc::channel(1);
    router.do_send(LastRound(heard));
    while all_have.recv().await.is_some() {}
    settle(router).await;
}

/// Commits what is queued, and what is on its way there.
async fn settle(router: &RouterAddr) {
    let (settled, is_settled) = oneshot::channel();
    router.do_send(SettleAll(settled));
    // An error means that the router or the supervisor is gone already.
    drop(is_settled.await);
}

/// Stops the actors: where they have no thread that ends, they have to be told. What still waits is dropped with them.
#[cfg(feature = "testing")]
async fn halt(router: &RouterAddr, supervisor: &Addr<Supervisor>, recoverer: Option<&Addr<Recoverer>>) {
    if let Some(recoverer) = recoverer {
        recoverer.do_send(Halt);
    }
    for halted in [supervisor.send(Halt).await, router.send(Halt).await] {
        if halted.is_err() {
            tracing::trace!("the actor is gone already");
        }
    }
}
