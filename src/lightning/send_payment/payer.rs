//! Who is asked to pay: the host's LDK, behind five methods, so that a host may carry whatever LDK it likes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::calls::Going;
use super::refusal::SendError;
use super::request::PaymentRequest;
use crate::Attempt;
use crate::lightning::Blocking;

/// What [`Payer::send`] returns: a boxed future, so that the trait can be an object.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Result<(), SendError>> + Send + 'a>>;

/// The host's LDK, as far as payments go. Its methods are called on any thread, several at once. LDK's own calls block: see
/// [`BlockingPayer`].
pub trait Payer: Send + Sync + 'static {
    /// What can be said of a request without looking anything up: that its invoice parses, that it is for this network. It burns
    /// no id. It must not block, and what can change between two tries (expiry, liquidity) does not belong here. By default
    /// every request is let through.
    ///
    /// # Errors
    /// The reason, which the caller gets as *Definitive*, unless there is a record.
    fn check(&self, request: &PaymentRequest) -> Result<(), SendError> {
        let _ = request;
        Ok(())
    }

    /// Calls LDK, once, with the request's id as the PaymentId. A panic leaves the record in doubt, and so does an abort when the
    /// engine is shut down; what may be inside LDK longer than the future lives holds a clone of `payment` for as long.
    ///
    /// # Errors
    /// LDK's own, or [`SendError::Other`].
    fn send<'a>(&'a self, payment: &'a Dispatch) -> Sending<'a>;

    /// LDK's `abandon_payment`, which does nothing for an id that it does not know. It may be called more than once, and must not
    /// wait for anything but LDK's locks.
    fn abandon(&self, id: &[u8; 32]);

    /// What LDK's `list_recent_payments` has under this id, now. It must not wait for anything but LDK's locks, and a manager that
    /// is still being loaded must not be asked: what is not listed is taken for gone. A host that cannot say must panic, which is
    /// caught and tells nothing; `None` would say that LDK does not have it.
    fn recent(&self, id: &[u8; 32]) -> Option<Listed>;

    /// The ids that LDK's `list_recent_payments` has as [`Fulfilled`](Listing::Fulfilled), now, in any order: asked once a
    /// [tick](super::SendPayment::tick). As [`recent`](Self::recent) otherwise.
    fn fulfilled(&self) -> Vec<[u8; 32]>;
}

/// A [`Payer`] whose `send` blocks, as LDK's does. Made into one by [`Blocking`].
pub trait BlockingPayer: Send + Sync + 'static {
    /// As [`Payer::check`].
    ///
    /// # Errors
    /// As [`Payer::check`].
    fn check(&self, request: &PaymentRequest) -> Result<(), SendError> {
        let _ = request;
        Ok(())
    }

    /// As [`Payer::send`], on the blocking pool of the runtime that the engine runs operations on.
    ///
    /// # Errors
    /// As [`Payer::send`].
    fn send(&self, payment: &Dispatch) -> Result<(), SendError>;

    /// As [`Payer::abandon`].
    fn abandon(&self, id: &[u8; 32]);

    /// As [`Payer::recent`].
    fn recent(&self, id: &[u8; 32]) -> Option<Listed>;

    /// As [`Payer::fulfilled`].
    fn fulfilled(&self) -> Vec<[u8; 32]>;
}

/// One payment for LDK, now. While there is a clone of it, the call counts as being inside LDK.
#[derive(Clone)]
pub struct Dispatch {
    /// What is to be paid.
    pub request: PaymentRequest,
    /// The attempt: its token is of this record alone, before and after.
    pub attempt: Attempt,
    _going: Arc<Going>,
}

/// An entry of LDK's list of recent payments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// How LDK lists it.
    pub state: Listing,
    /// Its hash, where LDK has one.
    pub payment_hash: Option<[u8; 32]>,
}

/// LDK's states of a recent payment (`RecentPaymentDetails`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// Waits for a BOLT12 invoice.
    AwaitingInvoice,
    /// Under way.
    Pending,
    /// Paid; its events may not be handled yet.
    Fulfilled,
    /// Not retried any more; what is under way may still succeed.
    Abandoned,
}

impl Dispatch {
    pub(super) fn new(request: PaymentRequest, attempt: Attempt, going: Going) -> Self {
        Self { request, attempt, _going: Arc::new(going) }
    }
}

/// A call that has begun is seen to be under way until it returns, also if the engine has been shut down meanwhile.
impl<P: BlockingPayer> Payer for Blocking<P> {
    fn check(&self, request: &PaymentRequest) -> Result<(), SendError> {
        self.inner().check(request)
    }

    fn send<'a>(&'a self, payment: &'a Dispatch) -> Sending<'a> {
        let payment = payment.clone();
        let sent = self.run(move |payer| payer.send(&payment));
        Box::pin(
            async move { sent.await.unwrap_or_else(|| Err(SendError::Other("the runtime has been shut down".into()))) },
        )
    }

    fn abandon(&self, id: &[u8; 32]) {
        self.inner().abandon(id);
    }

    fn recent(&self, id: &[u8; 32]) -> Option<Listed> {
        self.inner().recent(id)
    }

    fn fulfilled(&self) -> Vec<[u8; 32]> {
        self.inner().fulfilled()
    }
}

impl fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatch").field("request", &self.request).field("attempt", &self.attempt).finish()
    }
}
