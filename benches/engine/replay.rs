//! Requests that have been answered.
//!
//! - *hot*: replays through `Engine::submit` beside bare `RedbStore::get` of the same keys, one read transaction each, and
//!   beside `get_with` of a moka cache in memory that holds the same answers. Two tasks on two threads each, in an order that
//!   visits the keys all over the place. Of every 16 reads one is timed, since the clock costs as much as moka.
//! - *cold*: the first touch of records scattered over a larger file, one after the other. The store has been opened anew (without
//!   the integrity check, which reads everything), so no page is in its own cache, and the kernel was told to drop the file
//!   from its cache. What disks and hypervisors remember is out of reach. *disk reads* counts 4 KiB that the kernel fetched for each
//!   record: near zero, it has dropped nothing, and the line is not cold.

use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use ibid::store::{IntegrityCheck, RedbOptions, RedbStore, Store};
use ibid::{Bytes, Engine, Key, Policy, Reply};
use moka::future::Cache;
use rustix::fs::{Advice, fadvise};
use tokio::runtime::Runtime;

use crate::ROUNDS;
use crate::common::bare::fill;
use crate::common::disk::scratch;
use crate::common::load::{Load, roomy};
use crate::common::numbers::{Spread, Table, per_second};
use crate::common::process::{bytes_read_from_disk, now};
use crate::common::work::{RETENTION, Work};
use crate::common::{AnyError, Asked};

const STORED: usize = 10_000;
const READS: usize = 200_000;
const TASKS: usize = 2;
const READS_PER_SAMPLE: usize = 16;
/// Of the larger file, whose records stand about 12 to a page.
const COLD_STORED: usize = 200_000;
const TOUCHED: usize = 10_000;
/// Has no divisor in common with the numbers of records, so it comes to each of them once before it comes to one again.
const STRIDE: usize = 7_919;
const FILL_BATCH: usize = 1_000;

const HOT_COLUMNS: [(&str, usize); 11] = [
    ("engine, 1/s", 0),
    ("bare get, 1/s", 0),
    ("moka, 1/s", 0),
    ("of bare", 2),
    ("of moka", 2),
    ("engine p50, us", 2),
    ("p99, us", 2),
    ("bare p50, us", 2),
    ("p99, us", 2),
    ("moka p50, us", 2),
    ("p99, us", 2),
];
const COLD_COLUMNS: [(&str, usize); 7] = [
    ("engine p50, us", 1),
    ("p99, us", 0),
    ("disk reads", 2),
    ("bare p50, us", 1),
    ("p99, us", 0),
    ("disk reads", 2),
    ("p50 of bare", 2),
];

pub(crate) fn hot(asked: &Asked, host: &Runtime) -> Result<(), AnyError> {
    let name = format!("replay, hot, {TASKS} tasks");
    if !asked.includes(&name) {
        return Ok(());
    }
    let directory = tempfile::tempdir_in(scratch())?;
    let work = Work::new(Policy::replay(RETENTION))?;
    let store = Arc::new(RedbStore::open(directory.path().join("ibid.redb"), RedbOptions::default())?);
    fill(&*store, &work, 0..STORED, FILL_BATCH)?;
    let keys = (0..STORED).map(|number| work.key(number)).collect::<Result<Vec<_>, _>>()?;
    let cache = Cache::new(2 * STORED as u64);
    host.block_on(async {
        for (number, key) in keys.iter().enumerate() {
            cache.insert(key.clone(), work.answer(number)).await;
        }
    });
    let engine = open(host, Arc::clone(&store) as Arc<dyn Store>)?;
    let (keys, reads) = (keys.into(), asked.count(READS));
    let (by_engine, by_store, by_cache) = (ByEngine { engine: engine.clone(), work }, ByStore(store), ByCache(cache));
    let round = |_| {
        host.block_on(async {
            let engine = read_all(&by_engine, &keys, reads).await?;
            let bare = read_all(&by_store, &keys, reads).await?;
            let moka = read_all(&by_cache, &keys, reads).await?;
            Ok::<_, AnyError>(hot_figures(reads, &engine, &bare, &moka))
        })
    };
    let rounds = (0..asked.rounds(ROUNDS)).map(round).collect::<Result<Vec<_>, _>>()?;
    engine.shutdown_blocking();
    Table::new("replay, hot", HOT_COLUMNS).row(&name, &rounds);
    Ok(())
}

fn hot_figures(reads: usize, engine: &Load, bare: &Load, moka: &Load) -> [f64; HOT_COLUMNS.len()] {
    let [engine_rate, bare_rate, moka_rate] = [engine, bare, moka].map(|load| per_second(reads, load.took));
    let [engine, bare, moka] = [engine, bare, moka].map(|load| &load.latencies);
    [
        engine_rate,
        bare_rate,
        moka_rate,
        engine_rate / bare_rate,
        engine_rate / moka_rate,
        engine.p50(),
        engine.p99(),
        bare.p50(),
        bare.p99(),
        moka.p50(),
        moka.p99(),
    ]
}

pub(crate) fn cold(asked: &Asked, host: &Runtime) -> Result<(), AnyError> {
    let name = format!("replay, cold, {TOUCHED} of {COLD_STORED}");
    if !asked.includes(&name) {
        return Ok(());
    }
    let directory = tempfile::tempdir_in(scratch())?;
    let path = directory.path().join("ibid.redb");
    let work = Work::new(Policy::replay(RETENTION))?;
    let store = RedbStore::open(&path, RedbOptions::default())?;
    fill(&store, &work, 0..COLD_STORED, FILL_BATCH)?;
    store.close()?;
    let touched = asked.count(TOUCHED);
    let round = |_| {
        let store = Arc::new(open_unread(&path)?);
        let engine = open(host, Arc::clone(&store) as Arc<dyn Store>)?;
        let by_engine = ByEngine { engine: engine.clone(), work: work.clone() };
        let (engine_took, engine_reads) = host.block_on(touch(&by_engine, &work, &path, touched))?;
        engine.shutdown_blocking();
        let by_store = ByStore(Arc::new(open_unread(&path)?));
        let (bare_took, bare_reads) = host.block_on(touch(&by_store, &work, &path, touched))?;
        by_store.0.close()?;
        let (engine, bare) = (engine_took.p50(), bare_took.p50());
        Ok::<_, AnyError>([engine, engine_took.p99(), engine_reads, bare, bare_took.p99(), bare_reads, engine / bare])
    };
    let rounds = (0..asked.rounds(ROUNDS)).map(round).collect::<Result<Vec<_>, _>>()?;
    Table::new("replay, cold", COLD_COLUMNS).row(&name, &rounds);
    Ok(())
}

/// Without the check of its pages, which would bring them into the caches: it was closed.
fn open_unread(path: &Path) -> Result<RedbStore, AnyError> {
    let options = RedbOptions::default().integrity_check(IntegrityCheck::AfterUncleanEnd);
    Ok(RedbStore::open(path, options)?)
}

fn open(host: &Runtime, store: Arc<dyn Store>) -> Result<Engine, AnyError> {
    Ok(Engine::builder().limits(roomy()).runtime(host.handle().clone()).open_store(store)?)
}

/// Reads records for the first time since the file was dropped from the caches: how long each took, and how often the disk was
/// read for one.
async fn touch(side: &impl Side, work: &Work, path: &Path, touched: usize) -> Result<(Spread, f64), AnyError> {
    drop_from_cache(path)?;
    let before = bytes_read_from_disk();
    let mut took = Vec::with_capacity(touched);
    for turn in 0..touched {
        let number = turn * STRIDE % COLD_STORED;
        let key = work.key(number)?;
        let began = now();
        side.read(number, &key).await?;
        took.push(began.elapsed());
    }
    let read = bytes_read_from_disk().zip(before).map(|(after, before)| after - before);
    let reads = read.map_or(f64::NAN, |bytes| bytes as f64 / 4_096.0 / touched as f64);
    Ok((Spread::of(took), reads))
}

/// Asks the kernel to forget the pages of this file. All are on the disk: whatever was committed is.
fn drop_from_cache(path: &Path) -> Result<(), AnyError> {
    let file = File::open(path)?;
    file.sync_all()?;
    Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
}

/// Half of the reads by each task, in an order that visits the keys all over the place.
async fn read_all(side: &impl Side, keys: &Arc<[Key]>, reads: usize) -> Result<Load, AnyError> {
    let began = now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (side, keys) = (side.clone(), Arc::clone(keys));
            tokio::spawn(async move {
                let mut latencies = Vec::with_capacity(reads / READS_PER_SAMPLE);
                for (count, turn) in (task..reads).step_by(TASKS).enumerate() {
                    let number = turn * STRIDE % keys.len();
                    let key = keys.get(number).ok_or("a key of that number")?;
                    let began = (count % READS_PER_SAMPLE == 0).then(now);
                    side.read(number, key).await?;
                    latencies.extend(began.map(|began| began.elapsed()));
                }
                Ok::<_, AnyError>(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    Ok(Load { took: began.elapsed(), latencies: Spread::of(latencies) })
}

/// Where the answer of a finished request is read. An error where there is none.
trait Side: Clone + Send + Sync + 'static {
    fn read(&self, number: usize, key: &Key) -> impl Future<Output = Result<(), AnyError>> + Send;
}

#[derive(Clone)]
struct ByEngine {
    engine: Engine,
    work: Work,
}

impl Side for ByEngine {
    async fn read(&self, number: usize, key: &Key) -> Result<(), AnyError> {
        let (call, operation) = (self.work.call_under(key, number), self.work.operation(number));
        match black_box(self.engine.submit(call, operation).await?) {
            Reply::Answer(outcome) if outcome.is_replay() => Ok(()),
            other => Err(format!("not a replay: {other:?}").into()),
        }
    }
}

#[derive(Clone)]
struct ByStore(Arc<RedbStore>);

impl Side for ByStore {
    async fn read(&self, _: usize, key: &Key) -> Result<(), AnyError> {
        let record = black_box(self.0.get(key)?);
        record.map(drop).ok_or_else(|| "a stored key".into())
    }
}

#[derive(Clone)]
struct ByCache(Cache<Key, Bytes>);

impl Side for ByCache {
    async fn read(&self, _: usize, key: &Key) -> Result<(), AnyError> {
        let answer = self.0.get_with(key.clone(), async { Bytes::default() }).await;
        if black_box(answer).is_empty() { Err("a cached key".into()) } else { Ok(()) }
    }
}
