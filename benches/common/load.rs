//! Callers of an engine.

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ibid::{Engine, Limits};

use super::AnyError;
use super::numbers::Spread;
use super::process::now;
use super::work::Work;

/// The default limits, but for those of a scope.
pub(crate) fn roomy() -> Limits {
    let mut limits = Limits::default();
    limits.in_flight_per_scope = limits.in_flight;
    limits.records_per_scope = u64::MAX;
    limits
}

/// What a load came to.
pub(crate) struct Load {
    /// From the first request to the last answer.
    pub(crate) took: Duration,
    /// From a request to its answer, as its caller sees it.
    pub(crate) latencies: Spread,
}

/// Submits these requests from so many callers, each of which waits for an answer before it sends the next. On the runtime
/// that it is polled on.
pub(crate) async fn submit_all(
    engine: &Engine,
    work: &Work,
    numbers: Range<usize>,
    callers: usize,
) -> Result<Load, AnyError> {
    let next = Arc::new(AtomicUsize::new(numbers.start));
    let began = now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (engine, work, next) = (engine.clone(), work.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        return Ok::<_, AnyError>(latencies);
                    }
                    let (call, operation) = (work.call(number)?, work.operation(number));
                    let submitted = now();
                    black_box(engine.submit(call, operation).await?);
                    latencies.push(submitted.elapsed());
                }
            })
        })
        .collect();
    let mut latencies = Vec::with_capacity(numbers.len());
    for task in tasks {
        latencies.extend(task.await??);
    }
    Ok(Load { took: began.elapsed(), latencies: Spread::of(latencies) })
}
