//! Callers that each wait for an answer before they send the next request, and what that came to.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::AnyError;
use crate::payload::{self, Answer};

/// Records that replays ask for.
pub(crate) const HOT: u64 = 10_000;
/// Fresh requests are numbered from here on, beyond every record that a store is filled with.
const FIRST_FRESH: u64 = 1 << 40;
/// A run that has not ended then is given up: something hangs.
const GUARD: Duration = Duration::from_secs(60);

/// Replays are read once before they are measured, for so long at most.
const WARMING: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// Requests never seen before.
    Fresh,
    /// Requests that have their answer, from the first [`HOT`].
    Replay,
}

/// One who calls, with what it needs of its own.
pub(crate) trait Caller: Send + 'static {
    /// Registers the request durably, runs the operation, keeps its answer durably.
    fn fresh(&mut self, number: u64) -> impl Future<Output = Result<Answer, AnyError>> + Send;

    /// The answer that is kept.
    fn replay(&mut self, number: u64) -> impl Future<Output = Result<Answer, AnyError>> + Send;
}

/// What is compared.
pub(crate) trait Peer {
    type Caller: Caller;

    fn name(&self) -> &str;

    fn version(&self) -> String;

    /// Whether it is asked for this.
    fn offers(&self, _: Workload) -> bool {
        true
    }

    /// Whose rate is divided by its own.
    fn beside(&self) -> &'static str {
        crate::peer::IBID
    }

    /// Makes the store hold the finished records `0..records` and no other.
    async fn fill(&mut self, records: u64) -> Result<(), AnyError>;

    async fn callers(&mut self, count: usize) -> Result<Vec<Self::Caller>, AnyError>;
}

/// A peer, whatever its callers are.
pub(crate) trait Contender {
    fn name(&self) -> &str;
    fn version(&self) -> String;
    fn offers(&self, workload: Workload) -> bool;
    fn beside(&self) -> &'static str;
    fn fill(&mut self, host: &Runtime, records: u64) -> Result<(), AnyError>;
    fn run(&mut self, host: &Runtime, workload: Workload, callers: usize, window: Duration) -> Result<Run, AnyError>;
}

impl<P: Peer> Contender for P {
    fn name(&self) -> &str {
        Peer::name(self)
    }

    fn version(&self) -> String {
        Peer::version(self)
    }

    fn offers(&self, workload: Workload) -> bool {
        Peer::offers(self, workload)
    }

    fn beside(&self) -> &'static str {
        Peer::beside(self)
    }

    fn fill(&mut self, host: &Runtime, records: u64) -> Result<(), AnyError> {
        host.block_on(Peer::fill(self, records))
    }

    fn run(&mut self, host: &Runtime, workload: Workload, callers: usize, window: Duration) -> Result<Run, AnyError> {
        host.block_on(async {
            let mut callers = self.callers(callers).await?;
            if workload == Workload::Replay {
                callers = each_once(callers, workload, HOT, WARMING).await?;
            }
            drive(callers, workload, window).await
        })
    }
}

/// What one run came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Answers per second, from the first request to the last answer.
    pub(crate) rate: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// Every caller calls at least once, and sends no more when the window is over.
async fn drive<C: Caller>(callers: Vec<C>, workload: Workload, window: Duration) -> Result<Run, AnyError> {
    let began = now();
    let is_alone = callers.len() == 1;
    let task = |(place, caller)| tokio::spawn(call(caller, Plan { place, is_alone, workload, began, window }));
    let tasks: Vec<_> = (0..).zip(callers).map(task).collect();
    let mut latencies = Vec::new();
    for task in tasks {
        let left = (window + GUARD).saturating_sub(began.elapsed());
        latencies.extend(tokio::time::timeout(left, task).await.map_err(|_| "it hangs")???);
    }
    let took = began.elapsed();
    latencies.sort_unstable();
    let run = Run {
        rate: latencies.len() as f64 / took.as_secs_f64(),
        p50: percentile(&latencies, 50),
        p99: percentile(&latencies, 99),
    };
    Ok(run)
}

/// What a caller does.
struct Plan {
    place: u64,
    is_alone: bool,
    workload: Workload,
    began: Instant,
    window: Duration,
}

async fn call<C: Caller>(mut caller: C, plan: Plan) -> Result<Vec<Duration>, AnyError> {
    let mut latencies = Vec::new();
    let mut turn = plan.place * 131;
    let mut sent = now();
    loop {
        let (number, (answer, has_waited)) = match plan.workload {
            Workload::Fresh => {
                let number = next_fresh();
                (number, noting_waits(caller.fresh(number)).await)
            }
            Workload::Replay => {
                // All over the place.
                turn += 1;
                let number = turn.wrapping_mul(7_919) % HOT;
                (number, noting_waits(caller.replay(number)).await)
            }
        };
        if answer? != payload::answer(number) {
            return Err("an answer to another request".into());
        }
        let answered = now();
        latencies.push(answered - sent);
        if answered - plan.began >= plan.window {
            return Ok(latencies);
        }
        sent = answered;
        // A caller that never waits would keep its thread, and the others would not call at all.
        if !has_waited && !plan.is_alone {
            tokio::task::yield_now().await;
        }
    }
}

/// What the future comes to, and whether it has been waited for.
async fn noting_waits<T>(future: impl Future<Output = T>) -> (T, bool) {
    let mut future = pin!(future);
    let mut has_waited = false;
    let output = poll_fn(|context| {
        let poll = future.as_mut().poll(context);
        has_waited |= poll.is_pending();
        poll
    });
    let output = output.await;
    (output, has_waited)
}

/// A number that nobody has had.
fn next_fresh() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(FIRST_FRESH);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The requests `0..records`, each once; from the end of `limit` on no more.
pub(crate) async fn each_once<C: Caller>(
    callers: Vec<C>,
    workload: Workload,
    records: u64,
    limit: Duration,
) -> Result<Vec<C>, AnyError> {
    let began = now();
    let step = callers.len();
    let tasks: Vec<_> = (0..)
        .zip(callers)
        .map(|(first, mut caller)| {
            tokio::spawn(async move {
                for number in (first..records).step_by(step) {
                    if began.elapsed() >= limit {
                        break;
                    }
                    match workload {
                        Workload::Fresh => caller.fresh(number).await?,
                        Workload::Replay => caller.replay(number).await?,
                    };
                }
                Ok::<_, AnyError>(caller)
            })
        })
        .collect();
    let mut callers = Vec::with_capacity(tasks.len());
    for task in tasks {
        callers.push(task.await??);
    }
    Ok(callers)
}

/// Sends the requests `0..records` as fresh ones, for stores that are filled in no other way.
pub(crate) async fn fill_by_calls<C: Caller>(callers: Vec<C>, records: u64) -> Result<(), AnyError> {
    each_once(callers, Workload::Fresh, records, Duration::MAX).await.map(drop)
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get((sorted.len() * percent / 100).min(last)).copied().unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
