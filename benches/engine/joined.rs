//! Duplicates that join: 1,000 of one running operation, beside 1,000 fresh requests.
//!
//! The operation has begun when the first duplicate is submitted, and ends when the last one has been. All of them get its
//! answer; the store sees one registration and one finish, which is checked. The time is that from the first duplicate to the
//! last answer. The fresh requests are submitted likewise, all from one task before the first is waited for.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use ibid::store::{RedbOptions, RedbStore, Store};
use ibid::{End, Engine, How, Operation, Policy, Reply};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::ROUNDS;
use crate::common::disk::scratch;
use crate::common::load::roomy;
use crate::common::noting::Noting;
use crate::common::numbers::{Table, median, micros};
use crate::common::process::now;
use crate::common::work::{Kind, RETENTION, Work};
use crate::common::{AnyError, Asked};

const DUPLICATES: usize = 1_000;
/// Runs in one round, each with a key of its own: one alone takes a few milliseconds.
const RUNS: usize = 20;

const COLUMNS: [(&str, usize); 5] =
    [("joined, ms", 2), ("a waiter, us", 2), ("fresh, ms", 2), ("a request, us", 2), ("joined of fresh", 2)];

pub(crate) fn beside_fresh(asked: &Asked, host: &Runtime) -> Result<(), AnyError> {
    let name = format!("joined, {DUPLICATES} duplicates");
    if asked.includes(&name) {
        let round = |_| host.block_on(round(asked.count(RUNS)));
        let rounds = (0..asked.rounds(ROUNDS)).map(round).collect::<Result<Vec<_>, _>>()?;
        Table::new("joined", COLUMNS).row(&name, &rounds);
    }
    Ok(())
}

async fn round(runs: usize) -> Result<[f64; COLUMNS.len()], AnyError> {
    let directory = tempfile::tempdir_in(scratch())?;
    let store = RedbStore::open(directory.path().join("ibid.redb"), RedbOptions::default())?;
    let store = Arc::new(Noting::new(store));
    let engine = Engine::builder().limits(roomy()).open_store(Arc::clone(&store) as Arc<dyn Store>)?;
    let work = Work::new(Policy::replay(RETENTION))?;
    let (mut all_joined, mut all_fresh) = (Vec::with_capacity(runs), Vec::with_capacity(runs));
    for run in 0..runs {
        let first = run * (DUPLICATES + 1);
        store.take();
        all_joined.push(micros(joined(&engine, &work, first).await?));
        let kinds: Vec<_> = store.take().into_iter().flat_map(|commit| commit.kinds).collect();
        assert!(kinds == [Kind::Register, Kind::Finish], "one run, one finish");
        all_fresh.push(micros(fresh(&engine, &work, first + 1).await?));
    }
    engine.shutdown().await;
    let (joined, fresh) = (median(all_joined), median(all_fresh));
    let each = |micros: f64| micros / DUPLICATES as f64;
    Ok([joined / 1e3, each(joined), fresh / 1e3, each(fresh), joined / fresh])
}

/// Duplicates of a request whose operation ends when all of them wait for it.
async fn joined(engine: &Engine, work: &Work, number: usize) -> Result<Duration, AnyError> {
    let runs = Arc::new(AtomicUsize::new(0));
    let (start, is_started) = oneshot::channel();
    let (end, may_end) = oneshot::channel::<()>();
    let answer = work.answer(number);
    let held = counted(&runs, async move {
        // Where nobody waits for the start, the benchmark has failed.
        if start.send(()).is_ok() {
            drop(may_end.await);
        }
        End::done(answer)
    });
    let first = begin(engine.submit(work.call(number)?, held)).await;
    is_started.await?;
    let began = now();
    let mut waiters = Vec::with_capacity(DUPLICATES);
    for _ in 0..DUPLICATES {
        let again = counted(&runs, async { End::done(*b"a second run") });
        waiters.push(begin(engine.submit(work.call(number)?, again)).await);
    }
    drop(end);
    for waiter in waiters {
        expect(&waiter.await?, How::Joined)?;
    }
    let took = began.elapsed();
    expect(&first.await?, How::Executed)?;
    assert_eq!(runs.load(Ordering::Relaxed), 1, "one run");
    Ok(took)
}

async fn fresh(engine: &Engine, work: &Work, first: usize) -> Result<Duration, AnyError> {
    let began = now();
    let mut waiters = Vec::with_capacity(DUPLICATES);
    for number in first..first + DUPLICATES {
        waiters.push(begin(engine.submit(work.call(number)?, work.operation(number))).await);
    }
    for waiter in waiters {
        expect(&waiter.await?, How::Executed)?;
    }
    Ok(began.elapsed())
}

/// An operation that counts its runs.
fn counted(runs: &Arc<AtomicUsize>, operation: impl Future<Output = End> + Send + 'static) -> Operation {
    let runs = Arc::clone(runs);
    Operation::new(async move |_| {
        runs.fetch_add(1, Ordering::Relaxed);
        operation.await
    })
}

fn expect(reply: &Reply, how: How) -> Result<(), AnyError> {
    match reply {
        Reply::Answer(outcome) if outcome.how == how => Ok(()),
        other => Err(format!("not {how}: {other:?}").into()),
    }
}

/// Polls it once, so that its request is on its way when this returns; what comes back is the rest of it.
async fn begin<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let mut future: Pin<Box<F>> = Box::pin(future);
    let polled = std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
    async move {
        match polled {
            Poll::Ready(output) => output,
            Poll::Pending => future.await,
        }
    }
}
