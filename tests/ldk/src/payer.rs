//! The host's part between LDK and ibid's `send_payment`: what it has LDK pay, and what it tells of LDK's events.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use ibid::NodeId;
use ibid::lightning::send_payment::{
    BlockingPayer, Dispatch, Handled, Listed, Listing, Paid, Payee, PaymentFailed, PaymentRequest, PaymentSent, Replay,
    SendError, SendPayment,
};

use crate::{Id, Invoice, PeerId, Recent, Refusal, State, Told, Wallet};

/// A node as ibid's payer. It pays without retries, and counts how often it had LDK pay.
pub struct Payer {
    wallet: Mutex<Wallet>,
    calls: AtomicUsize,
}

impl Payer {
    /// Pays from this wallet.
    pub fn new(wallet: Wallet) -> Self {
        Self { wallet: Mutex::new(wallet), calls: AtomicUsize::new(0) }
    }

    /// Pays from this wallet from now on: the node has been restarted.
    pub fn set_wallet(&self, wallet: Wallet) {
        *self.wallet.lock().unwrap_or_else(PoisonError::into_inner) = wallet;
    }

    /// How often LDK was asked to pay.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// A clone: no lock is held while LDK works.
    fn wallet(&self) -> Wallet {
        self.wallet.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn recent_payments(&self) -> Vec<Recent> {
        self.wallet().recent()
    }
}

impl BlockingPayer for Payer {
    fn send(&self, payment: &Dispatch) -> Result<(), SendError> {
        let (wallet, request) = (self.wallet(), &payment.request);
        let (id, msat) = (request.id, request.effective_msat().unwrap_or_default());
        self.calls.fetch_add(1, Ordering::SeqCst);
        let paid = match &request.payee {
            Payee::Bolt11 { invoice, .. } => wallet.pay_with(id, invoice, request.amount_msat, 0),
            Payee::HashAndSecret { payee, payment_hash, payment_secret } => {
                wallet.pay_hash(id, peer(payee), *payment_hash, *payment_secret, msat)
            }
            // The token is random, and of this payment alone.
            Payee::Keysend { payee, .. } => wallet.keysend(id, peer(payee), payment.attempt.token().0, msat),
            Payee::Refund { .. } => wallet.await_refund(id, msat, request.expires_at_secs.unwrap_or_default()),
            Payee::Offer { .. } => return Err(SendError::Other("these nodes have no onion messages".into())),
        };
        paid.map_err(send_error)
    }

    fn abandon(&self, id: &Id) {
        self.wallet().abandon(*id);
    }

    fn recent(&self, id: &Id) -> Option<Listed> {
        let recent = self.recent_payments().into_iter().find(|recent| recent.id == *id)?;
        Some(Listed { state: listing(recent.state), payment_hash: recent.hash })
    }

    fn fulfilled(&self) -> Vec<Id> {
        let fulfilled = self.recent_payments().into_iter().filter(|recent| recent.state == State::Fulfilled);
        fulfilled.map(|recent| recent.id).collect()
    }
}

fn send_error(refusal: Refusal) -> SendError {
    match refusal {
        Refusal::InvalidAmount => SendError::InvalidAmount,
        Refusal::PaymentExpired => SendError::PaymentExpired,
        Refusal::OnionPacketSizeExceeded => SendError::OnionPacketSizeExceeded,
        Refusal::RouteNotFound => SendError::RouteNotFound,
        Refusal::DuplicatePayment => SendError::DuplicatePayment,
    }
}

fn peer(id: &NodeId) -> PeerId {
    id.as_ref().try_into().expect("33 bytes")
}

fn listing(state: State) -> Listing {
    match state {
        State::AwaitingInvoice => Listing::AwaitingInvoice,
        State::Pending => Listing::Pending,
        State::Fulfilled => Listing::Fulfilled,
        State::Abandoned => Listing::Abandoned,
    }
}

/// An invoice to be paid in full under this id.
pub fn request(id: Id, invoice: &Invoice) -> PaymentRequest {
    let payee = Payee::Bolt11 { invoice: invoice.text.clone(), payment_hash: invoice.hash };
    PaymentRequest { asked_msat: invoice.msat, ..PaymentRequest::new(id, payee) }
}

/// Hands an event to ibid, on LDK's thread, if it is of a payment that this node makes.
pub fn hand_over(payments: &SendPayment, told: Told) -> Option<Result<Handled, Replay>> {
    match told {
        Told::Sent { id, hash, preimage, fee_msat } => {
            let paid = Paid { preimage, payment_hash: hash, fee_msat };
            Some(payments.payment_sent_blocking(PaymentSent { id, paid, attempt: None }))
        }
        Told::Failed { id, hash, reason } => {
            let reason = Some(reason).filter(|reason| !reason.is_empty());
            Some(payments.payment_failed_blocking(PaymentFailed { id, payment_hash: hash, reason, attempt: None }))
        }
        Told::PathSuccessful { id } | Told::PathFailed { id, .. } => Some(payments.path_event_blocking(id)),
        Told::Claimable { .. } | Told::Claimed { .. } | Told::Other(_) => None,
    }
}
