//! What a server serves, put together.

use std::error::Error;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ibid::http::Idempotency;
use ibid::store::{RedbOptions, RedbStore, Store};
use ibid::{Engine, Limits};

use super::admin::Admin;
use super::answer::Given;
use super::args::Args;
use super::clock::SteeredClock;
use super::counters::Counters;
use super::doubts::Doubts;
use super::faults::Faults;
use super::handler::Handler;
use super::journal::Journal;
use super::metrics::Metrics;
use super::records::Records;
use super::routes::{self, REFUND};
use super::{drain, log};

/// With /admin nothing expires by itself: ten years.
const NEVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Clones are one.
#[derive(Clone)]
pub(crate) struct Demo {
    pub(crate) idempotency: Idempotency,
    pub(crate) handler: Handler,
    /// Only if it was asked for.
    pub(crate) admin: Option<Arc<Admin>>,
    engine: Engine,
    counters: Arc<Counters>,
    metrics: Metrics,
}

impl Demo {
    /// When this returns, every refund that an earlier run has left in doubt was asked about.
    pub(crate) async fn open(args: &Args) -> Result<Self, Box<dyn Error>> {
        log::begin()?;
        let metrics = Metrics::install()?;
        let named = |error: &dyn Error| format!("--db {}: {error}", args.db.display());
        // Nobody touches the journal who has not the file beside it.
        let store = RedbStore::open(&args.db, RedbOptions::default()).map_err(|error| named(&error))?;
        let store = Arc::new(store);
        let journal = Journal::open(&journal_path(&args.db)).map_err(|error| named(&error))?;
        let doubts = Arc::new(Doubts::new());
        doubts.read(&*store, REFUND)?;
        let setup = routes::setup(args, &journal, &doubts)?;
        let builder = setup.prepare(Engine::builder().limits(limits(args)));
        let steering = args.admin.then(|| (SteeredClock::new(), Arc::new(Faults::over(Arc::clone(&store)))));
        let engine = match &steering {
            Some((clock, faults)) => builder.clock(clock.clone()).open_store(faults.clone() as Arc<dyn Store>)?,
            None => builder.open_store(store.clone())?,
        };
        let idempotency = setup.bind(&engine).await?;
        let admin = steering.map(|(clock, faults)| {
            let records = Records::new(store, idempotency.clone());
            Arc::new(Admin { engine: engine.clone(), clock, faults, records })
        });
        doubts.all_asked().await;
        let counters = Arc::new(Counters::default());
        let handler = Handler::new(counters.clone(), journal);
        Ok(Self { idempotency, handler, admin, engine, counters, metrics })
    }

    /// `GET /count`
    pub(crate) fn count(&self) -> Given {
        Given::json(200, self.counters.to_json())
    }

    /// `GET /metrics`
    pub(crate) fn metrics(&self) -> Given {
        match self.metrics.text(&self.idempotency) {
            Ok(text) => Given::text("text/plain; version=0.0.4", text),
            Err(error) => Given::wrong(500, &error.to_string()),
        }
    }

    /// See [`drain::drain`]; then the file is closed.
    pub(crate) async fn close(&self, stop: impl Future, served: impl Future) {
        drain::drain(&self.engine, stop, served).await;
        if let Err(error) = self.idempotency.flush().await {
            tracing::warn!(%error, "the last counts are lost");
        }
        self.engine.shutdown().await;
    }
}

fn limits(args: &Args) -> Limits {
    let mut limits = Limits::default();
    limits.in_flight = args.max_in_flight;
    limits.in_flight_per_scope = args.max_in_flight_per_scope;
    limits.drain = drain::ENGINE_DRAIN;
    if args.admin {
        limits.expiry_sweep_every = NEVER;
    }
    limits
}

fn journal_path(db: &Path) -> PathBuf {
    let mut path = db.as_os_str().to_owned();
    path.push(".journal");
    path.into()
}
