//! The engine on one file and a bare loop on a copy of it, in turns.

use std::path::PathBuf;
use std::sync::Arc;

use ibid::Engine;
use ibid::store::{RedbStore, Store};
use tokio::runtime::Runtime;

use crate::common::AnyError;
use crate::common::bare::commit_all;
use crate::common::load::{roomy, submit_all};
use crate::common::noting::Noting;
use crate::common::numbers::{median, per_second};
use crate::common::process::bytes_written;
use crate::filled::{Filled, copy, unchecked};

/// Both sides, open. What the engine commits in a round, the bare loop commits to its own file next: as many records, in
/// batches of the same sizes and mixtures; so the two files stay alike.
pub(crate) struct Pair {
    engine: Engine,
    watched: Arc<Noting>,
    bare: RedbStore,
    copy: PathBuf,
}

/// What rounds came to: medians.
pub(crate) struct Compared {
    /// Requests per second.
    pub(crate) engine: f64,
    pub(crate) bare: f64,
    pub(crate) ratio: f64,
    /// Transitions in a batch.
    pub(crate) batch: f64,
    /// Of 4 KiB, written by the engine for each request; not a number where that is unknown.
    pub(crate) pages: f64,
}

impl Pair {
    pub(crate) fn open(host: &Runtime, filled: &Filled) -> Result<Self, AnyError> {
        let copied = filled.path.with_extension("copy");
        copy(&filled.path, &copied)?;
        let bare = RedbStore::open(&copied, unchecked())?;
        let watched = Arc::new(Noting::new(RedbStore::open(&filled.path, unchecked())?));
        let store = Arc::clone(&watched) as Arc<dyn Store>;
        let engine = Engine::builder().limits(roomy()).runtime(host.handle().clone()).open_store(store)?;
        Ok(Self { engine, watched, bare, copy: copied })
    }

    /// So many rounds, behind a short one that fills the caches.
    pub(crate) fn compare(
        &self,
        host: &Runtime,
        filled: &mut Filled,
        (callers, requests): (usize, usize),
        rounds: usize,
    ) -> Result<Compared, AnyError> {
        self.round(host, filled, callers, requests.div_ceil(4))?;
        let rounds = (0..rounds).map(|_| self.round(host, filled, callers, requests));
        let rounds = rounds.collect::<Result<Vec<_>, _>>()?;
        let of = |figure: fn(&Compared) -> f64| median(rounds.iter().map(figure));
        Ok(Compared {
            engine: of(|round| round.engine),
            bare: of(|round| round.bare),
            ratio: of(|round| round.ratio),
            batch: of(|round| round.batch),
            pages: of(|round| round.pages),
        })
    }

    fn round(
        &self,
        host: &Runtime,
        filled: &mut Filled,
        callers: usize,
        requests: usize,
    ) -> Result<Compared, AnyError> {
        let numbers = filled.take(requests);
        let first = numbers.start;
        let before = bytes_written();
        let load = host.block_on(submit_all(&self.engine, &filled.work, numbers, callers))?;
        let written = bytes_written().zip(before).map(|(after, before)| after - before);
        let batches: Vec<_> = self.watched.take().into_iter().map(|commit| commit.kinds).collect();
        let transitions: usize = batches.iter().map(Vec::len).sum();
        let engine = per_second(requests, load.took);
        let bare = per_second(requests, commit_all(&self.bare, &filled.work, first, &batches)?.took);
        Ok(Compared {
            engine,
            bare,
            ratio: engine / bare,
            batch: transitions as f64 / batches.len().max(1) as f64,
            pages: written.map_or(f64::NAN, |bytes| bytes as f64 / 4_096.0 / requests as f64),
        })
    }

    /// Closes both, and removes the copy.
    pub(crate) fn close(self) -> Result<(), AnyError> {
        self.engine.shutdown_blocking();
        self.bare.close()?;
        Ok(std::fs::remove_file(&self.copy)?)
    }
}
