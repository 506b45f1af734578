//! A million records expire at once while fresh requests go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ibid::{Clock, Engine, Policy, SystemClock, UnixMillis};
use tokio::task::JoinSet;

use crate::common::AnyError;
use crate::common::load::roomy;
use crate::common::numbers::{Spread, micros};
use crate::common::process::now;
use crate::common::work::{RETENTION, Work};
use crate::filled::{Filled, Shape, unchecked};
use crate::report::{Table, bar, grouped, mib, none};
use crate::{Bench, SCOPES};

const CALLERS: usize = 64;
/// Fresh requests before the expiry, and as many after it.
const REQUESTS: usize = 20_000;
/// The most that it may cost the fresh ones: by how much the slowest of a hundred, and how long there may be no answer at all.
const MOST_TIMES: f64 = 2.0;
const MOST_STALL_MICROS: f64 = 25_000.0;

/// The machine's clock, which leaps when it is told to.
#[derive(Clone, Default)]
struct Leaping(Arc<AtomicU64>);

impl Leaping {
    fn leap(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }

    fn leapt(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

impl Clock for Leaping {
    fn now(&self) -> UnixMillis {
        SystemClock.now().saturating_add(self.leapt())
    }

    /// It has really passed, for all that the engine can tell.
    fn monotonic(&self) -> Duration {
        SystemClock.monotonic() + self.leapt()
    }
}

/// From when to when a request took.
type Sample = (Instant, Instant);
type Callers = JoinSet<Result<Vec<Sample>, AnyError>>;

pub(crate) fn run(bench: &mut Bench) -> Result<(), AnyError> {
    let mut filled = bench.filled(Shape { records: bench.plan.middle(), scopes: SCOPES })?;
    let file_before = filled.file_bytes()?;
    let requests = bench.plan.count(REQUESTS);
    let clock = Leaping::default();
    let runtime = bench.host.handle().clone();
    let builder = Engine::builder().clock(clock.clone()).limits(roomy()).redb(unchecked()).runtime(runtime);
    let engine = builder.open(&filled.path)?;
    // The fresh ones outlive the leap.
    let fresh = Work { scopes: SCOPES, ..Work::new(Policy::replay(100 * RETENTION))? };
    let load = Endless::new(&engine, &fresh, filled.take(usize::MAX / 2).start);
    let (samples, began, ended, removed) = bench.host.block_on(async {
        let mut callers = load.start(CALLERS);
        // The first of them warm up.
        load.answers(&mut callers, 2 * requests).await?;
        clock.leap(RETENTION);
        let began = now();
        let removed = engine.expiry_sweep().await?;
        let ended = now();
        let answered = load.answered.load(Ordering::Relaxed);
        load.answers(&mut callers, answered + requests).await?;
        load.is_over.store(true, Ordering::Relaxed);
        let mut samples = Vec::new();
        while let Some(sent) = callers.join_next().await {
            samples.extend(sent??);
        }
        Ok::<_, AnyError>((samples, began, ended, removed))
    })?;
    let file_after = filled.file_bytes()?;
    engine.shutdown_blocking();
    report(samples, requests, (began, ended));
    space(&filled, removed, (file_before, file_after))?;
    bench.stores.remove(&filled.shape);
    Ok(std::fs::remove_file(&filled.path)?)
}

/// Callers that send fresh requests until they are told to end.
struct Endless {
    engine: Engine,
    work: Work,
    next: Arc<AtomicUsize>,
    answered: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
}

impl Endless {
    fn new(engine: &Engine, work: &Work, first: usize) -> Self {
        let (engine, work) = (engine.clone(), work.clone());
        Self { engine, work, next: Arc::new(first.into()), answered: Arc::default(), is_over: Arc::default() }
    }

    fn start(&self, callers: usize) -> Callers {
        let mut started = JoinSet::new();
        for _ in 0..callers {
            let (engine, work) = (self.engine.clone(), self.work.clone());
            let (next, answered, is_over) = (self.next.clone(), self.answered.clone(), self.is_over.clone());
            started.spawn(async move {
                let mut samples = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let (call, operation) = (work.call(number)?, work.operation(number));
                    let began = now();
                    engine.submit(call, operation).await?;
                    samples.push((began, now()));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(samples)
            });
        }
        started
    }

    /// Returns when there have been so many answers.
    async fn answers(&self, callers: &mut Callers, count: usize) -> Result<(), AnyError> {
        while self.answered.load(Ordering::Relaxed) < count {
            if let Some(ended) = callers.try_join_next() {
                return Err(ended?.err().unwrap_or_else(|| "a caller has ended before its time".into()));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

fn report(mut samples: Vec<Sample>, requests: usize, (began, ended): (Instant, Instant)) {
    samples.sort_by_key(|(_, answered)| *answered);
    let (before, rest): (Vec<_>, Vec<_>) = samples.into_iter().partition(|(_, answered)| *answered < began);
    let (during, after): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(sent, _)| *sent < ended);
    // Not those that have warmed up.
    let before = before.get(before.len().saturating_sub(requests)..).unwrap_or_default();
    let head =
        ["while", "answers, 1/s", "p50, us", "p99, us", "bar", "max, us", "longest without an answer, us", "bar"];
    let mut table = Table::new(format!("Fresh requests of {CALLERS} callers"), &head);
    let without = spread(before).p99();
    for (name, samples) in [("before the expiry", before), ("during it", &during), ("after it", &after)] {
        let (took, stall) = (spread(samples), stall(samples));
        let is_during = name == "during it";
        let times = took.p99() / without;
        table.row(&[
            name.to_owned(),
            format!("{:.0}", rate(samples)),
            format!("{:.0}", took.p50()),
            format!("{:.0}", took.p99()),
            if is_during { bar(&format!("{times:.1} times <= {MOST_TIMES}"), times <= MOST_TIMES) } else { none() },
            format!("{:.0}", took.longest()),
            format!("{stall:.0}"),
            if is_during { bar(&format!("<= {MOST_STALL_MICROS}"), stall <= MOST_STALL_MICROS) } else { none() },
        ]);
    }
    table.print();
    println!("\nThe whole expiry took {:.1} s.", (ended - began).as_secs_f64());
}

fn spread(samples: &[Sample]) -> Spread {
    Spread::of(samples.iter().map(|(sent, answered)| *answered - *sent).collect())
}

fn rate(samples: &[Sample]) -> f64 {
    let over = samples.first().zip(samples.last()).map(|((_, first), (_, last))| *last - *first);
    over.map_or(f64::NAN, |over| samples.len() as f64 / over.as_secs_f64())
}

/// The longest time between two answers, in microseconds.
fn stall(samples: &[Sample]) -> f64 {
    let pairs = samples.iter().zip(samples.iter().skip(1));
    pairs.map(|((_, one), (_, next))| micros(*next - *one)).fold(0.0, f64::max)
}

fn space(filled: &Filled, removed: u64, (before, after): (u64, u64)) -> Result<(), AnyError> {
    let closed = filled.file_bytes()?;
    let head = ["records removed", "file before, MiB", "after, MiB", "closed, MiB"];
    let mut table = Table::new("Space", &head);
    table.row(&[grouped(removed as usize), mib(before), mib(after), mib(closed)]);
    table.print();
    Ok(())
}
