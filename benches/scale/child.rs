//! A process of its own: whose memory is measured, or that is killed.
//!
//! The benchmark starts itself again with [`FLAG`] and an order. The child says on standard output what it was asked for, and ends
//! at the latest when its standard input does, so none outlives the benchmark.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ibid::{End, Engine, Limits, Operation};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::common::load::{roomy, submit_all};
use crate::common::{AnyError, host};
use crate::filled::{unchecked, work};
use crate::memory;

pub(crate) const FLAG: &str = "--child";

/// How long a child is idle before it says so: longer than the engine waits until it makes the next opening fast.
const IDLE: Duration = Duration::from_millis(200);
/// How long it has been under load.
const LOADED: Duration = Duration::from_millis(700);
/// Requests of the load, more than it ever gets to.
pub(crate) const LOAD: usize = 1_000_000;

pub(crate) fn run(order: &[String]) -> Result<(), AnyError> {
    let order: Vec<_> = order.iter().map(String::as_str).collect();
    match order.as_slice() {
        ["memory", path, scopes, first, count, records, check] => {
            let check = *check == "checked";
            memory::child(Path::new(path), scopes.parse()?, first.parse()?, count.parse()?, records.parse()?, check)
        }
        ["hold", path, scopes, first, count, callers] => {
            hold_until_told(Path::new(path), scopes.parse()?, first.parse()?, count.parse()?, callers.parse()?)
        }
        _ => Err("an order for a child that nobody gives".into()),
    }
}

/// Another process of this program.
pub(crate) struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(order: &[String], environment: &[(&str, &str)]) -> Result<Self, AnyError> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(FLAG).args(order).envs(environment.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().ok_or("a child without an output")?);
        Ok(Self { child, output })
    }

    /// The next line that it says.
    pub(crate) fn line(&mut self) -> Result<String, AnyError> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err("a child has ended before its time".into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Ends it in the middle of what it does.
    pub(crate) fn kill(mut self) -> Result<(), AnyError> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Lets it end, and waits for that.
    pub(crate) fn end(mut self) -> Result<(), AnyError> {
        drop(self.child.stdin.take());
        if self.child.wait()?.success() { Ok(()) } else { Err("a child has failed".into()) }
    }
}

/// Requests in flight, whose operations wait.
pub(crate) struct Held {
    go: watch::Sender<bool>,
    callers: JoinSet<Result<(), AnyError>>,
}

impl Held {
    /// Returns when all of them run.
    pub(crate) async fn begin(engine: &Engine, scopes: u32, first: usize, count: usize) -> Result<Self, AnyError> {
        let work = work(scopes)?;
        let (go, gone) = watch::channel(false);
        let (running, all_run) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let mut callers = JoinSet::new();
        for number in first..first + count {
            let (mut gone, answer) = (gone.clone(), work.answer(number));
            let (running, all_run) = (Arc::clone(&running), Arc::clone(&all_run));
            let operation = Operation::new(async move |_| {
                if running.fetch_add(1, Ordering::Relaxed) + 1 == count {
                    all_run.notify_one();
                }
                // An error means that nobody will ever say so.
                drop(gone.wait_for(|gone| *gone).await);
                End::done(answer)
            });
            let (engine, call) = (engine.clone(), work.call(number)?);
            callers.spawn(async move {
                engine.submit(call, operation).await?;
                Ok(())
            });
        }
        tokio::select! {
            () = all_run.notified() => Ok(Self { go, callers }),
            Some(refused) = callers.join_next() => Err(refused?.err().unwrap_or_else(|| "one has ended".into())),
        }
    }

    /// Lets them end, and waits for their answers.
    pub(crate) async fn end(mut self) -> Result<(), AnyError> {
        self.go.send_replace(true);
        while let Some(answered) = self.callers.join_next().await {
            answered??;
        }
        Ok(())
    }
}

/// Holds requests in flight, and has so many callers send others meanwhile, until it is killed or its input ends.
fn hold_until_told(path: &Path, scopes: u32, first: usize, count: usize, callers: usize) -> Result<(), AnyError> {
    let host = host()?;
    let mut limits = crowded();
    limits.drain = Duration::from_millis(1);
    let engine = Engine::builder().limits(limits).redb(unchecked()).runtime(host.handle().clone()).open(path)?;
    let held = host.block_on(Held::begin(&engine, scopes, first, count))?;
    if callers > 0 {
        let (engine, work) = (engine.clone(), work(scopes)?);
        let rest = first + count;
        host.spawn(async move { submit_all(&engine, &work, rest..rest + LOAD, callers).await.map(drop) });
    }
    host.block_on(async { tokio::time::sleep(if callers > 0 { LOADED } else { IDLE }).await });
    say("ready")?;
    wait_for_the_end()?;
    engine.shutdown_blocking();
    drop(held);
    Ok(())
}

/// Limits with room for everything that a child holds.
pub(crate) fn crowded() -> Limits {
    let mut limits = roomy();
    limits.in_flight = 20_000;
    limits.in_flight_per_scope = 20_000;
    limits
}

pub(crate) fn say(line: &str) -> Result<(), AnyError> {
    println!("{line}");
    Ok(std::io::stdout().flush()?)
}

pub(crate) fn wait_for_the_end() -> Result<(), AnyError> {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
