//! The caller's side effect: a task on the host's runtime that belongs to no caller.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::message::Unreported;
use crate::attempt::Attempt;
use crate::outcome::End;

type Run = Box<dyn FnOnce(Attempt) -> Pin<Box<dyn Future<Output = End> + Send>> + Send>;
type Make = Box<dyn FnOnce(&Attempt) -> Operation + Send>;
type RunBlocking = Box<dyn FnOnce(Attempt) -> End + Send>;

/// What runs at most once per record. It is started after its registration is durable (in a
/// [replay-safe](crate::Policy::replay_safe) flow there is none), on the host's tokio runtime, and
/// goes on whether or not anybody still waits for it.
///
/// A panic or an abort leaves the record in doubt. It must wait for whatever it starts: what still goes on when it returns is
/// not covered by its answer.
pub struct Operation(Kind);

enum Kind {
    Async(Run),
    Blocking(RunBlocking),
    /// Made when it starts, where it runs: by code of the host's, which may be slow and may panic.
    Made(Make),
}

impl Operation {
    /// An async operation.
    pub fn new<F, Fut>(operation: F) -> Self
    where
        F: FnOnce(Attempt) -> Fut + Send + 'static,
        Fut: Future<Output = End> + Send + 'static,
    {
        Self(Kind::Async(Box::new(|attempt| Box::pin(operation(attempt)))))
    }

    /// A blocking operation, for the runtime's blocking pool. `shutdown` can't abort it once it runs.
    pub fn blocking<F>(operation: F) -> Self
    where
        F: FnOnce(Attempt) -> End + Send + 'static,
    {
        Self(Kind::Blocking(Box::new(operation)))
    }

    /// One that is made when it starts.
    pub(super) fn made(make: impl FnOnce(&Attempt) -> Self + Send + 'static) -> Self {
        Self(Kind::Made(Box::new(make)))
    }

    /// Starts it. The guard reports its end; if the task panics, is aborted, or is never polled because the runtime is gone, it
    /// does so by being dropped.
    pub(super) fn start(self, runtime: &Handle, attempt: Attempt, guard: Unreported) -> AbortHandle {
        match self.0 {
            Kind::Async(run) => {
                let task = runtime.spawn(async move {
                    // First: a guard that is a receiver already is held twice while the operation runs.
                    let end = run(attempt).await;
                    guard.report(end);
                });
                task.abort_handle()
            }
            Kind::Blocking(run) => {
                let task = runtime.spawn_blocking(move || guard.report(run(attempt)));
                task.abort_handle()
            }
            Kind::Made(make) => {
                let own = runtime.clone();
                let task = runtime.spawn(async move {
                    let mut made = make(&attempt).0;
                    loop {
                        made = match made {
                            Kind::Async(run) => break guard.report(run(attempt).await),
                            Kind::Blocking(run) => break drop(own.spawn_blocking(move || guard.report(run(attempt)))),
                            Kind::Made(make) => make(&attempt).0,
                        }
                    }
                });
                task.abort_handle()
            }
        }
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Async(_) => "Operation::new(..)",
            Kind::Blocking(_) => "Operation::blocking(..)",
            Kind::Made(_) => "Operation::made(..)",
        })
    }
}
