//! How near the engine comes to the limit of its store: `cargo bench --bench engine`.
//!
//! Each line of the summary is a ratio of two sides that took turns in one run, each round on a fresh file:
//!
//! - **fresh**: new requests through `Engine::submit` (120-byte request, 32-byte answer, two transitions each), and beside
//!   them the *bare loop*: one plain thread that calls `RedbStore::commit` on a file of its own. It registers and finishes as
//!   many records of the same sizes, in transactions of the very sizes and mixtures that the engine has committed in that
//!   round, back to back; only the time inside of `commit` counts. So both sides commit as many bytes, in as many
//!   transactions, to the same tables, with the same settings. While one batch commits, the next one collects, so N callers
//!   come to about N / 2 transitions in a batch; the column *batch* says what they came to. *Even* is the ratio to a second
//!   bare loop, which commits the same transitions in the same order cut into even batches of N / 2 (at least 1, at most
//!   1,024): it shows whether the engine's batches are as good as they could be. *Committing* is the part of the engine's
//!   time in which its writer was inside of `commit`. *Pages* are those of 4 KiB that the bare loop wrote for each request,
//!   where Linux tells: the cost that travels between machines.
//! - **group commit**: the same engine with one transition in a batch.
//! - **replays**: `Engine::submit` of finished requests beside bare `RedbStore::get` of the same keys, two tasks on two threads
//!   each.
//!
//! The numbers of one machine are worth little on another. The ratios travel better, pages of noise included: each is the
//! median of its rounds. An argument picks the lines whose name contains it.

use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ibid::store::{Batch, Change, RedbOptions, RedbStore, Store, StoreError, Verdict, Version};
use ibid::testing::Layer;
use ibid::{
    AttemptId, BootId, Call, End, Engine, Fingerprint, Flow, Key, Limits, Operation, Policy, Record, State, Token,
    UnixMillis,
};

const ROUNDS: usize = 5;
const REQUEST_BYTES: usize = 120;
const ANSWER_BYTES: usize = 32;
/// Peers that send them; a scope is the 33 bytes of a node id.
const SCOPES: usize = 16;
/// Callers, and the requests of one round.
const FRESH: [(usize, usize); 4] = [(1, 1_000), (64, 16_000), (512, 32_000), (2_048, 32_000)];
const UNGROUPED: (usize, usize) = (64, 4_000);
const STORED: usize = 10_000;
const READS: usize = 200_000;

const RETENTION: Duration = Duration::from_secs(3_600);
/// When the bare loop begins.
const START: UnixMillis = UnixMillis(1_700_000_000_000);

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), AnyError> {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let host = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    println!("files in {} ({})", scratch().display(), file_system(scratch()).unwrap_or_else(|| "unknown".to_owned()));
    let mut lines = Vec::new();
    for (callers, requests) in FRESH {
        let name = format!("fresh, {callers} callers");
        if name.contains(&filter) {
            lines.push(compare(name, "bare loop", || fresh(&host, callers, requests))?);
        }
    }
    let name = format!("group commit, {} callers", UNGROUPED.0);
    if name.contains(&filter) {
        lines.push(compare(name, "ungrouped", || grouped(&host))?);
    }
    if "replays".contains(&filter) {
        lines.push(replays(&host)?);
    }
    report(&lines);
    Ok(())
}

/// One round: how long each side took for how many requests.
struct Round {
    engine: f64,
    other: f64,
    /// Transitions in a batch of the engine's, on average; none in a round of reads.
    batch: Option<f64>,
    /// The part of the engine's time in which its writer was committing.
    committing: Option<f64>,
    /// What a bare loop does in even batches.
    even: Option<f64>,
    /// Written by the bare loop, per request.
    pages: Option<f64>,
}

/// A line of the summary: medians over the rounds, rates per second.
struct Line {
    name: String,
    other_name: &'static str,
    engine: f64,
    other: f64,
    ratio: f64,
    batch: Option<f64>,
    committing: Option<f64>,
    even: Option<f64>,
    pages: Option<f64>,
}

fn compare(
    name: String,
    other_name: &'static str,
    mut round: impl FnMut() -> Result<Round, AnyError>,
) -> Result<Line, AnyError> {
    let rounds = (0..ROUNDS).map(|_| round()).collect::<Result<Vec<_>, _>>()?;
    let optional = |value: fn(&Round) -> Option<f64>| {
        let values: Option<Vec<f64>> = rounds.iter().map(value).collect();
        values.map(|values| median(values.into_iter()))
    };
    let line = Line {
        name,
        other_name,
        engine: median(rounds.iter().map(|round| round.engine)),
        other: median(rounds.iter().map(|round| round.other)),
        ratio: median(rounds.iter().map(|round| round.engine / round.other)),
        batch: optional(|round| round.batch),
        committing: optional(|round| round.committing),
        even: optional(|round| round.even.map(|even| round.engine / even)),
        pages: optional(|round| round.pages),
    };
    println!("{}: engine {:.0}/s, {} {:.0}/s", line.name, line.engine, line.other_name, line.other);
    Ok(line)
}

fn report(lines: &[Line]) {
    println!("\n| engine / other | engine, 1/s | other, 1/s | ratio | even | batch | committing | pages |");
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    let shown = |value: Option<f64>, digits: usize| value.map_or_else(|| "-".to_owned(), |n| format!("{n:.digits$}"));
    for line in lines {
        let Line { name, other_name, engine, other, ratio, .. } = line;
        let (even, batch) = (shown(line.even, 2), shown(line.batch, 0));
        let (committing, pages) = (shown(line.committing, 2), shown(line.pages, 1));
        println!(
            "| {name} / {other_name} | {engine:.0} | {other:.0} | **{ratio:.2}** | {even} | {batch} | {committing} | {pages} |"
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Fresh requests, then the batches they came to, committed by a bare loop.
fn fresh(host: &tokio::runtime::Runtime, callers: usize, requests: usize) -> Result<Round, AnyError> {
    let run = run_engine(host, callers, requests, Limits::default().batch_transitions)?;
    let bare = commit_all(&run.batches)?;
    let even = commit_all(&evenly(&run.batches, (callers / 2).clamp(1, 1_024)))?;
    let pages = bare.written.map(|bytes| bytes as f64 / 4_096.0 / requests as f64);
    let round = run.beside(requests, per_second(requests, bare.took));
    Ok(Round { even: Some(per_second(requests, even.took)), pages, ..round })
}

fn grouped(host: &tokio::runtime::Runtime) -> Result<Round, AnyError> {
    let (callers, requests) = UNGROUPED;
    let run = run_engine(host, callers, requests, Limits::default().batch_transitions)?;
    let ungrouped = run_engine(host, callers, requests, 1)?;
    Ok(run.beside(requests, per_second(requests, ungrouped.took)))
}

/// The same transitions in the same order, so many in a batch.
fn evenly(batches: &[Vec<Kind>], size: usize) -> Vec<Vec<Kind>> {
    batches.concat().chunks(size).map(<[Kind]>::to_vec).collect()
}

/// What a run of the engine came to.
struct Run {
    /// From the first request to the last answer.
    took: Duration,
    /// What was in each transaction, in order.
    batches: Vec<Vec<Kind>>,
    /// Spent in committing them.
    committing: Duration,
}

impl Run {
    fn beside(&self, requests: usize, other: f64) -> Round {
        let transitions: usize = self.batches.iter().map(Vec::len).sum();
        Round {
            engine: per_second(requests, self.took),
            other,
            batch: Some(transitions as f64 / self.batches.len().max(1) as f64),
            committing: Some(self.committing.as_secs_f64() / self.took.as_secs_f64()),
            even: None,
            pages: None,
        }
    }
}

/// Runs `requests` fresh requests of `callers` that each wait for an answer before they send the next.
fn run_engine(
    host: &tokio::runtime::Runtime,
    callers: usize,
    requests: usize,
    batch_transitions: usize,
) -> Result<Run, AnyError> {
    let directory = tempfile::tempdir_in(scratch())?;
    let store = Arc::new(Noting::new(RedbStore::open(directory.path().join("ibid.redb"), RedbOptions::default())?));
    let mut limits = roomy();
    limits.batch_transitions = batch_transitions;
    let took = host.block_on(async {
        let engine = Engine::builder().limits(limits).open_store(Arc::clone(&store) as Arc<dyn Store>)?;
        let took = submit_all(&engine, &flow()?, callers, requests).await?;
        engine.shutdown().await;
        Ok::<_, AnyError>(took)
    })?;
    let (batches, committing) = store.noted();
    Ok(Run { took, batches, committing })
}

async fn submit_all(engine: &Engine, flow: &Flow, callers: usize, requests: usize) -> Result<Duration, AnyError> {
    let next = Arc::new(AtomicUsize::new(0));
    let began = now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (engine, flow, next) = (engine.clone(), flow.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= requests {
                        return Ok::<_, AnyError>(());
                    }
                    black_box(engine.submit(call(&flow, number)?, operation(number)).await?);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(began.elapsed())
}

/// What a bare loop came to.
struct Bare {
    /// Inside of its commits.
    took: Duration,
    /// Bytes that it wrote, where that is known.
    written: Option<u64>,
}

/// The bare loop: transactions like these on a file of its own, one after the other, on this thread.
fn commit_all(batches: &[Vec<Kind>]) -> Result<Bare, AnyError> {
    let directory = tempfile::tempdir_in(scratch())?;
    let store = RedbStore::open(directory.path().join("ibid.redb"), RedbOptions::default())?;
    let flow = flow()?;
    let (mut registered, mut finished, mut took) = (0, 0, Duration::ZERO);
    let before = bytes_written();
    for (time, kinds) in batches.iter().enumerate() {
        let now_millis = UnixMillis(START.0 + time as u64);
        let mut changes = Vec::with_capacity(kinds.len());
        for kind in kinds {
            let next = match kind {
                Kind::Register => &mut registered,
                Kind::Finish => &mut finished,
            };
            changes.push(change(&flow, *kind, *next, now_millis)?);
            *next += 1;
        }
        let records_per_scope = Limits::default().records_per_scope;
        let batch = Batch { now: now_millis, records_per_scope, changes, ..Batch::default() };
        let began = now();
        let verdicts = store.commit(&batch)?;
        took += began.elapsed();
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Applied), "the bare loop does the same work");
    }
    let written = bytes_written().zip(before).map(|(after, before)| after - before);
    store.close()?;
    Ok(Bare { took, written })
}

/// What this process has handed to `write` so far, where Linux tells.
fn bytes_written() -> Option<u64> {
    let counts = std::fs::read_to_string("/proc/self/io").ok()?;
    counts.lines().find_map(|line| line.strip_prefix("wchar: "))?.parse().ok()
}

/// A change like the engine's.
fn change(flow: &Flow, kind: Kind, number: usize, now: UnixMillis) -> Result<Change, AnyError> {
    let key = key(flow, number)?;
    let mut token = Token([0; 32]);
    token.0[..8].copy_from_slice(&number.to_be_bytes());
    let request = request(number);
    let registered = Record {
        revision: 1,
        fingerprint: Fingerprint::of(flow.name(), &request),
        request: request.into(),
        attempt: AttemptId { number: 1, boot: BootId([7; 16]), token },
        state: State::Registered,
        checkpoint: None,
        recoveries: 0,
        created_at: now,
        updated_at: now,
        expires_at: None,
        lapses_at: None,
        tombstone_until: None,
        contradiction: None,
        lapses_at_tick: None,
        abandoned: false,
    };
    let (expected, record) = match kind {
        Kind::Register => (None, registered),
        Kind::Finish => {
            let end = Some(now.saturating_add(RETENTION));
            let expected = Some(Version::of(&registered));
            let state = State::Completed(Some(answer(number).into()));
            (expected, Record { revision: 2, state, expires_at: end, lapses_at: end, ..registered })
        }
    };
    Ok(Change { key, expected, put: Some(Box::new(record)), rows: Vec::new() })
}

/// Replays of finished requests, and bare reads of the same keys from the same open file.
fn replays(host: &tokio::runtime::Runtime) -> Result<Line, AnyError> {
    let directory = tempfile::tempdir_in(scratch())?;
    let store: Arc<dyn Store> = Arc::new(RedbStore::open(directory.path().join("ibid.redb"), RedbOptions::default())?);
    let flow = flow()?;
    let engine = host.block_on(async {
        let engine = Engine::builder().limits(roomy()).open_store(Arc::clone(&store))?;
        submit_all(&engine, &flow, 512, STORED).await?;
        Ok::<_, AnyError>(engine)
    })?;
    let keys = (0..STORED).map(|number| key(&flow, number)).collect::<Result<Vec<_>, _>>()?;
    let keys = Arc::new(keys);
    let replay = {
        let (engine, flow) = (engine.clone(), flow.clone());
        move |number, _| {
            let (engine, call) = (engine.clone(), call(&flow, number));
            async move {
                black_box(engine.submit(call?, operation(number)).await?);
                Ok(())
            }
        }
    };
    let get = move |_, key| {
        let store = Arc::clone(&store);
        async move { store.get(&key)?.map(|record| drop(black_box(record))).ok_or("a stored key".into()) }
    };
    let line = compare("replays".to_owned(), "bare reads", || {
        let engine = host.block_on(read_all(&keys, replay.clone()))?;
        let other = host.block_on(read_all(&keys, get.clone()))?;
        Ok(Round {
            engine: per_second(READS, engine),
            other: per_second(READS, other),
            batch: None,
            committing: None,
            even: None,
            pages: None,
        })
    });
    engine.shutdown_blocking();
    line
}

/// Two tasks that read half of the total each, in an order that visits the keys all over the place.
async fn read_all<F>(
    keys: &Arc<Vec<Key>>,
    read: impl Fn(usize, Key) -> F + Clone + Send + 'static,
) -> Result<Duration, AnyError>
where
    F: Future<Output = Result<(), AnyError>> + Send,
{
    let began = now();
    let tasks: Vec<_> = (0..2)
        .map(|task| {
            let (keys, read) = (Arc::clone(keys), read.clone());
            tokio::spawn(async move {
                for turn in (task..READS).step_by(2) {
                    let number = turn.wrapping_mul(7_919) % keys.len();
                    let key = keys.get(number).ok_or("a key of that number")?;
                    read(number, key.clone()).await?;
                }
                Ok::<_, AnyError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(began.elapsed())
}

fn roomy() -> Limits {
    let mut limits = Limits::default();
    limits.in_flight_per_scope = limits.in_flight;
    limits
}

fn flow() -> Result<Flow, AnyError> {
    Ok(Flow::new("bench", Policy::replay(RETENTION))?)
}

/// 32 bytes in no order, as a payment hash is.
fn key(flow: &Flow, number: usize) -> Result<Key, AnyError> {
    let mut scope = [2; 33];
    scope[32] = (number % SCOPES) as u8;
    let mut id = [0; 32];
    let mut mixed = number as u64;
    for place in id.as_chunks_mut::<8>().0 {
        mixed = (mixed ^ (mixed >> 29)).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        *place = mixed.to_be_bytes();
    }
    Ok(flow.key(scope, id)?)
}

fn call(flow: &Flow, number: usize) -> Result<Call, AnyError> {
    Ok(Call::new(flow, &key(flow, number)?, request(number)))
}

fn request(number: usize) -> [u8; REQUEST_BYTES] {
    let mut request = [b'r'; REQUEST_BYTES];
    request[..8].copy_from_slice(&number.to_be_bytes());
    request
}

fn answer(number: usize) -> [u8; ANSWER_BYTES] {
    let mut answer = [b'a'; ANSWER_BYTES];
    answer[..8].copy_from_slice(&number.to_be_bytes());
    answer
}

fn operation(number: usize) -> Operation {
    Operation::new(async move |_| End::done(answer(number)))
}

fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn now() -> Instant {
    Instant::now()
}

/// A directory under `target`: the file system of the checkout, not one in memory.
fn scratch() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// The kind of file system that holds `path`, where Linux tells.
fn file_system(path: &Path) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    let deepest = mounts.filter(|(place, _)| path.starts_with(place)).max_by_key(|(place, _)| place.len())?;
    Some(deepest.1.to_owned())
}

/// A transition of a fresh request.
#[derive(Clone, Copy)]
enum Kind {
    Register,
    Finish,
}

/// A store that notes what it was told to commit, and for how long it was at it.
struct Noting {
    store: RedbStore,
    noted: Mutex<(Vec<Vec<Kind>>, Duration)>,
}

impl Noting {
    fn new(store: RedbStore) -> Self {
        Self { store, noted: Mutex::default() }
    }

    fn noted(&self) -> (Vec<Vec<Kind>>, Duration) {
        std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Layer for Noting {
    fn below(&self) -> &dyn Store {
        &self.store
    }

    fn commit(&self, batch: &Batch) -> Result<Vec<Verdict>, StoreError> {
        let began = now();
        let verdicts = self.store.commit(batch);
        let took = began.elapsed();
        let kind = |change: &Change| if change.expected.is_none() { Kind::Register } else { Kind::Finish };
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.0.push(batch.changes.iter().map(kind).collect());
        noted.1 += took;
        verdicts
    }
}
