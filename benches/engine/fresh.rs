//! New requests into an empty store.
//!
//! The engine answers requests of 120 bytes through `Engine::submit`, from callers that each wait for an answer before they
//! send the next. Beside it, on a file each:
//!
//! - the *bare loop*: one plain thread that calls `RedbStore::commit`. It commits records of the same sizes, in transactions of
//!   the very sizes and mixtures that the engine has committed in that round, back to back; only the time inside of `commit`
//!   counts. So both sides commit as many bytes, in as many transactions, to the same tables, with the same settings;
//! - the *even* loop: the same, with the same transitions in the same order cut into even transactions of half as many as there
//!   are callers (at least 1, at most 1,024): while one commits, the next one collects, so callers come to about that. It
//!   shows whether the engine's transactions are as good as they could be;
//! - the *log*: the bytes of those records, whenever one is written (its request, 100 bytes, and its answer once there is one), in
//!   the engine's transactions again, each one write to the end of a file and one fdatasync: about what the disk allows for
//!   transactions of these sizes.
//!
//! *of bare*, *of even* and *of log* are the engine's rate by theirs. *batch* is the transitions in one of the engine's
//! transactions, on average; *committing* the part of its time in which its writer was inside of `commit`; *pages* those of
//! 4 KiB that the bare loop wrote for each request: the cost that travels between machines. The latencies are what the callers of
//! the engine saw; *p99, commits* is in median commits of the bare loop.

use std::sync::Arc;
use std::time::Duration;

use ibid::store::{RedbOptions, RedbStore, Store};
use ibid::{Engine, InDoubt, Limits, Policy};
use tokio::runtime::Runtime;

use crate::ROUNDS;
use crate::common::bare::{append_all, commit_all, evenly};
use crate::common::disk::{on_new_store, scratch};
use crate::common::load::{Load, roomy, submit_all};
use crate::common::noting::Noting;
use crate::common::numbers::{Table, per_second};
use crate::common::work::{Kind, RETENTION, Work};
use crate::common::{AnyError, Asked};

const ANSWERS: [(&str, usize); 2] = [("32 B", 32), ("1 KiB", 1_024)];
/// Callers, and the requests of one round.
const LOADS: [(usize, usize); 5] = [(1, 1_000), (16, 8_000), (64, 16_000), (512, 32_000), (2_048, 32_000)];
const UNGROUPED: (usize, usize) = (64, 2_000);

const COLUMNS: [(&str, usize); 13] = [
    ("engine, 1/s", 0),
    ("bare, 1/s", 0),
    ("log, 1/s", 0),
    ("of bare", 2),
    ("of even", 2),
    ("of log", 3),
    ("batch", 1),
    ("committing", 2),
    ("pages", 2),
    ("p50, us", 0),
    ("p99, us", 0),
    ("p99/p50", 2),
    ("p99, commits", 2),
];

/// Flows by what a fresh request takes.
fn flows() -> Vec<(&'static str, Policy)> {
    let replay_safe = Policy::replay(RETENTION).in_doubt(InDoubt::Rerun).replay_safe();
    vec![("registered", Policy::replay(RETENTION)), ("replay-safe", replay_safe)]
}

pub(crate) fn beside_the_store(asked: &Asked, host: &Runtime) -> Result<(), AnyError> {
    let mut table = Table::new("fresh, empty store", COLUMNS);
    for (flow, policy) in flows() {
        for (size, answer_bytes) in ANSWERS {
            let work = Work { answer_bytes, ..Work::new(policy.clone())? };
            for (callers, requests) in LOADS {
                let name = format!("fresh, {flow}, {size}, {callers} callers");
                if asked.includes(&name) {
                    let round = |_| round(host, &work, callers, asked.count(requests));
                    let rounds = (0..asked.rounds(ROUNDS)).map(round).collect::<Result<Vec<_>, _>>()?;
                    table.row(&name, &rounds);
                }
            }
        }
    }
    Ok(())
}

fn round(host: &Runtime, work: &Work, callers: usize, requests: usize) -> Result<[f64; COLUMNS.len()], AnyError> {
    let run = Run::of(host, work, callers, requests, Limits::default().batch_transitions)?;
    let commit = |batches: &[Vec<Kind>]| on_new_store(|store| commit_all(&store, work, 0, batches));
    let bare = commit(&run.batches)?;
    let even = commit(&evenly(&run.batches, (callers / 2).clamp(1, 1_024)))?;
    let log = append_all(work, &run.batches)?;
    let rate = |took| per_second(requests, took);
    let (engine, bare_rate, log_rate) = (rate(run.load.took), rate(bare.took), rate(log.total()));
    let transitions: usize = run.batches.iter().map(Vec::len).sum();
    let (p50, p99) = (run.load.latencies.p50(), run.load.latencies.p99());
    Ok([
        engine,
        bare_rate,
        log_rate,
        engine / bare_rate,
        engine / rate(even.took),
        engine / log_rate,
        transitions as f64 / run.batches.len() as f64,
        run.committing.as_secs_f64() / run.load.took.as_secs_f64(),
        bare.pages(requests),
        p50,
        p99,
        p99 / p50,
        p99 / bare.commits.p50(),
    ])
}

/// The engine beside one of the same settings that commits each transition by itself.
pub(crate) fn beside_no_groups(asked: &Asked, host: &Runtime) -> Result<(), AnyError> {
    let (callers, requests) = (UNGROUPED.0, asked.count(UNGROUPED.1));
    let columns = [("engine, 1/s", 0), ("ungrouped, 1/s", 0), ("ratio", 2)];
    let mut table = Table::new("group commit", columns);
    for (flow, policy) in flows() {
        let name = format!("group commit, {flow}, {callers} callers");
        if asked.includes(&name) {
            let work = Work::new(policy)?;
            let rate = |batch_transitions| {
                let run = Run::of(host, &work, callers, requests, batch_transitions)?;
                Ok::<_, AnyError>(per_second(requests, run.load.took))
            };
            let round = |_| {
                let (engine, ungrouped) = (rate(Limits::default().batch_transitions)?, rate(1)?);
                Ok::<_, AnyError>([engine, ungrouped, engine / ungrouped])
            };
            let rounds = (0..asked.rounds(ROUNDS)).map(round).collect::<Result<Vec<_>, _>>()?;
            table.row(&name, &rounds);
        }
    }
    Ok(())
}

/// What a run of the engine came to.
struct Run {
    load: Load,
    /// What was in each transaction, in order.
    batches: Vec<Vec<Kind>>,
    /// Spent in committing them.
    committing: Duration,
}

impl Run {
    fn of(
        host: &Runtime,
        work: &Work,
        callers: usize,
        requests: usize,
        batch_transitions: usize,
    ) -> Result<Self, AnyError> {
        let directory = tempfile::tempdir_in(scratch())?;
        let store = RedbStore::open(directory.path().join("ibid.redb"), RedbOptions::default())?;
        let store = Arc::new(Noting::new(store));
        let mut limits = roomy();
        limits.batch_transitions = batch_transitions;
        let load = host.block_on(async {
            let engine = Engine::builder().limits(limits).open_store(Arc::clone(&store) as Arc<dyn Store>)?;
            let load = submit_all(&engine, work, 0..requests, callers).await?;
            engine.shutdown().await;
            Ok::<_, AnyError>(load)
        })?;
        let noted = store.take();
        let committing = noted.iter().map(|commit| commit.took).sum();
        let batches = noted.into_iter().map(|commit| commit.kinds).collect();
        Ok(Self { load, batches, committing })
    }
}
