//! Whether the file stops growing: 24 simulated hours of steady load on the engine, whose records live for one hour.
//!
//! Callers send fresh requests as fast as they can. The clock follows the requests: so many are an hour, and each time so many
//! as are a minute have been sent, an expiry sweep begins, as the engine's own timer would have it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use ibid::{Clock, Engine, Policy, UnixMillis};

use crate::common::AnyError;
use crate::common::load::roomy;
use crate::common::process::now;
use crate::common::work::{RETENTION, Work};
use crate::filled::{Live, unchecked};
use crate::report::{Table, bar, grouped, mib, none};
use crate::{Bench, SCOPES};

const HOURS: usize = 24;
/// Until records expire as fast as they come, and an hour more.
const WARM_UP_HOURS: usize = 3;
const CALLERS: usize = 256;
const MINUTES: usize = 60;
const HOUR_MILLIS: u64 = 3_600_000;
/// The most that the file may grow behind the warm-up, and be larger than what lives in it.
const MOST_GROWTH: f64 = 1.0;
const MOST_TIMES: f64 = 2.0;
/// When it begins.
const START: UnixMillis = UnixMillis(1_700_000_000_000);

pub(crate) fn run(bench: &mut Bench) -> Result<(), AnyError> {
    let per_hour = (bench.plan.count(bench.plan.records) / 160).max(2_000);
    let path = bench.directory.path().join("space.redb");
    let steady = Steady {
        work: Work { scopes: SCOPES, ..Work::new(Policy::replay(RETENTION))? },
        clock: Simulated::default(),
        per_hour,
    };
    // The expiry sweep goes by the simulated clock alone.
    let mut limits = roomy();
    limits.expiry_sweep_every = Duration::from_secs(3_600);
    let builder = Engine::builder().clock(steady.clock.clone()).limits(limits).redb(unchecked());
    let engine = builder.runtime(bench.host.handle().clone()).open(&path)?;
    let began = now();
    let mut hours = Vec::new();
    for hour in 0..HOURS {
        bench.host.block_on(steady.hour(&engine, hour))?;
        hours.push((std::fs::metadata(&path)?.len(), Live::of(&path)?));
    }
    let took = began.elapsed();
    engine.shutdown_blocking();
    report(&hours, per_hour);
    let closed = std::fs::metadata(&path)?.len();
    println!("\nIt took {:.0} s. Closed, the file has {} MiB.", took.as_secs_f64(), mib(closed));
    Ok(std::fs::remove_file(&path)?)
}

fn report(hours: &[(u64, Live)], per_hour: usize) {
    let head =
        ["hour", "file, MiB", "growth", "bar", "keys and values, MiB", "their pages, MiB", "file to data", "bar"];
    let title = format!("{HOURS} hours at {} requests an hour, each recorded for one", grouped(per_hour));
    let mut table = Table::new(title, &head);
    let warm = hours.iter().take(WARM_UP_HOURS).map(|(file, _)| *file).max().unwrap_or(0);
    for (hour, (file, live)) in hours.iter().enumerate() {
        let is_warm = hour >= WARM_UP_HOURS;
        let (growth, times) = (*file as f64 / warm as f64, *file as f64 / live.payload as f64);
        table.row(&[
            (hour + 1).to_string(),
            mib(*file),
            if is_warm { format!("{growth:.2}") } else { none() },
            if is_warm { bar(&format!("<= {MOST_GROWTH}"), growth <= MOST_GROWTH) } else { none() },
            mib(live.payload),
            mib(live.pages),
            format!("{times:.2}"),
            if is_warm { bar(&format!("<= {MOST_TIMES}"), times <= MOST_TIMES) } else { none() },
        ]);
    }
    table.print();
}

/// What is asked for, hour by hour.
struct Steady {
    work: Work,
    clock: Simulated,
    per_hour: usize,
}

impl Steady {
    /// All requests of one hour. Nothing is under way before it and after it.
    async fn hour(&self, engine: &Engine, hour: usize) -> Result<(), AnyError> {
        let (first, end) = (hour * self.per_hour, (hour + 1) * self.per_hour);
        let next = Arc::new(AtomicUsize::new(first));
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let (engine, work, next) = (engine.clone(), self.work.clone(), Arc::clone(&next));
                let (clock, per_hour) = (self.clock.clone(), self.per_hour);
                tokio::spawn(async move {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= end {
                            return Ok::<_, AnyError>(());
                        }
                        clock.reach(number as u64 * HOUR_MILLIS / per_hour as u64);
                        if number.is_multiple_of(per_hour / MINUTES) {
                            engine.expiry_sweep().await?;
                        }
                        engine.submit(work.call(number)?, work.operation(number)).await?;
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await??;
        }
        Ok(())
    }
}

/// A clock that stands where the requests have come to, in milliseconds since its start.
#[derive(Clone, Default)]
struct Simulated(Arc<AtomicU64>);

impl Simulated {
    /// Never back.
    fn reach(&self, millis: u64) {
        self.0.fetch_max(millis, Ordering::SeqCst);
    }
}

impl Clock for Simulated {
    fn now(&self) -> UnixMillis {
        START.saturating_add(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}
