//! For hosts whose own calls block.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

/// Runs the blocking form of what an adapter calls on the blocking pool of the runtime that the engine runs operations on: a
/// [`BlockingInvoiceProvider`](super::request_invoice::BlockingInvoiceProvider), a
/// [`BlockingSwitch`](super::send_onion::BlockingSwitch), a [`BlockingPayer`](super::send_payment::BlockingPayer).
pub struct Blocking<P>(Arc<P>);

impl<P> Blocking<P> {
    /// `inner`, off the async threads.
    #[must_use]
    pub fn new(inner: Arc<P>) -> Self {
        Self(inner)
    }

    pub(super) fn inner(&self) -> &P {
        &self.0
    }
}

impl<P: Send + Sync + 'static> Blocking<P> {
    /// Runs it there; a panic goes on here. `None`: the runtime is going down and has not started it.
    pub(super) fn run<T, W>(&self, work: W) -> impl Future<Output = Option<T>> + Send + use<P, T, W>
    where
        T: Send + 'static,
        W: FnOnce(&P) -> T + Send + 'static,
    {
        let inner = Arc::clone(&self.0);
        async move {
            match tokio::task::spawn_blocking(move || work(&inner)).await {
                Ok(done) => Some(done),
                Err(ended) => match ended.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => None,
                },
            }
        }
    }
}

impl<P> fmt::Debug for Blocking<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocking").finish_non_exhaustive()
    }
}
