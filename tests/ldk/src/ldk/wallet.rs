//! The handle of whoever pays or is paid, and LDK's words in those of this crate.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::secp256k1::PublicKey;
use lightning::events::Event;
use lightning::ln::channelmanager::{
    Bolt11InvoiceParameters, Bolt11PaymentError, PaymentId, RecentPaymentDetails, RecipientOnionFields, Retry,
    RetryableSendFailure,
};
use lightning::offers::parse::Bolt12SemanticError;
use lightning::onion_message::messenger::NullMessageRouter;
use lightning::routing::router::{PaymentParameters, RouteParameters, RouteParametersConfig};
use lightning::types::payment::{PaymentHash, PaymentPreimage, PaymentSecret};
use lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescription, Sha256};

use super::Manager;
use crate::{Hash, Id, PeerId, Preimage, Recent, Refusal, State, Told};

/// A handle for whoever pays or is paid: cheap to clone, usable from any thread. After a restart it still speaks to the
/// manager that was there before.
#[derive(Clone)]
pub struct Wallet(pub(super) Arc<Manager>);

impl Wallet {
    /// Pays a BOLT11 invoice, without retries.
    ///
    /// # Errors
    /// LDK's own.
    pub fn pay(&self, id: Id, invoice: &str) -> Result<(), Refusal> {
        self.pay_with(id, invoice, None, 0)
    }

    /// Pays a BOLT11 invoice. `msat` is for one without an amount, or for more than it asks.
    ///
    /// # Errors
    /// LDK's own.
    pub fn pay_with(&self, id: Id, invoice: &str, msat: Option<u64>, retries: u32) -> Result<(), Refusal> {
        let invoice: Bolt11Invoice = invoice.parse().unwrap();
        let (config, retry) = (RouteParametersConfig::default(), Retry::Attempts(retries));
        self.0.pay_for_bolt11_invoice(&invoice, PaymentId(id), msat, config, retry).map_err(|error| match error {
            Bolt11PaymentError::InvalidAmount => Refusal::InvalidAmount,
            Bolt11PaymentError::SendingFailed(error) => refusal(error),
        })
    }

    /// Pays to a hash and a secret, without retries.
    ///
    /// # Errors
    /// LDK's own.
    pub fn pay_hash(&self, id: Id, to: PeerId, hash: Hash, secret: [u8; 32], msat: u64) -> Result<(), Refusal> {
        let recipient = RecipientOnionFields::secret_only(PaymentSecret(secret));
        let params = RouteParameters::from_payment_params_and_value(payee(to), msat);
        self.0.send_payment(PaymentHash(hash), recipient, PaymentId(id), params, Retry::Attempts(0)).map_err(refusal)
    }

    /// Pays without an invoice, to the hash of this preimage and without retries.
    ///
    /// # Errors
    /// LDK's own.
    pub fn keysend(&self, id: Id, to: PeerId, preimage: Preimage, msat: u64) -> Result<(), Refusal> {
        let params = RouteParameters::from_payment_params_and_value(payee(to), msat);
        let recipient = RecipientOnionFields::spontaneous_empty();
        let sent = self.0.send_spontaneous_payment(
            Some(PaymentPreimage(preimage)),
            recipient,
            PaymentId(id),
            params,
            Retry::Attempts(0),
        );
        sent.map(|_| ()).map_err(refusal)
    }

    /// Takes up the id for a refund of so many msat, which waits for an invoice until the deadline in unix seconds.
    ///
    /// # Errors
    /// LDK's own.
    pub fn await_refund(&self, id: Id, msat: u64, deadline_s: u64) -> Result<(), Refusal> {
        let (deadline, config) = (Duration::from_secs(deadline_s), RouteParametersConfig::default());
        let (no_paths, retry) = (&NullMessageRouter {}, Retry::Attempts(0));
        let refund = self.0.create_refund_builder_using_router(no_paths, msat, deadline, PaymentId(id), retry, config);
        refund.map(|_| ()).map_err(|error| match error {
            Bolt12SemanticError::DuplicatePaymentId => Refusal::DuplicatePayment,
            other => panic!("{other:?}"),
        })
    }

    /// Stops the retries of a payment.
    pub fn abandon(&self, id: Id) {
        self.0.abandon_payment(PaymentId(id));
    }

    /// Makes an invoice for a hash whose preimage somebody else has. LDK stores nothing, and each call makes another one:
    /// its text, and when it expires in unix ms.
    pub fn mint(&self, hash: Hash, msat: u64, description: Hash, expiry_s: u32, final_cltv: u16) -> (String, u64) {
        let invoice = self.0.create_bolt11_invoice(Bolt11InvoiceParameters {
            amount_msats: Some(msat),
            description: Bolt11InvoiceDescription::Hash(Sha256(sha256::Hash::from_byte_array(description))),
            invoice_expiry_delta_secs: Some(expiry_s),
            min_final_cltv_expiry_delta: Some(final_cltv),
            payment_hash: Some(PaymentHash(hash)),
        });
        let invoice = invoice.unwrap();
        (invoice.to_string(), u64::try_from(invoice.expires_at().unwrap().as_millis()).unwrap())
    }

    /// Claims what has come in to the hash of this preimage.
    pub fn claim(&self, preimage: Preimage) {
        self.0.claim_funds(PaymentPreimage(preimage));
    }

    /// Whether a channel with this peer is there, usable or not.
    pub fn has_channel_with(&self, peer: impl AsRef<[u8]>) -> bool {
        self.0.list_channels().iter().any(|channel| channel.counterparty.node_id.serialize() == peer.as_ref())
    }

    /// What LDK lists, by id.
    pub fn recent(&self) -> Vec<Recent> {
        let mut recent: Vec<_> = self.0.list_recent_payments().into_iter().map(recent).collect();
        recent.sort_unstable();
        recent
    }

    /// The state that LDK lists for the id.
    pub fn state(&self, id: Id) -> Option<State> {
        self.recent().into_iter().find(|recent| recent.id == id).map(|recent| recent.state)
    }
}

pub(super) fn payee(id: PeerId) -> PaymentParameters {
    PaymentParameters::from_node_id(PublicKey::from_slice(&id).unwrap(), 40)
}

pub(super) fn refusal(error: RetryableSendFailure) -> Refusal {
    match error {
        RetryableSendFailure::PaymentExpired => Refusal::PaymentExpired,
        RetryableSendFailure::RouteNotFound => Refusal::RouteNotFound,
        RetryableSendFailure::DuplicatePayment => Refusal::DuplicatePayment,
        RetryableSendFailure::OnionPacketSizeExceeded => Refusal::OnionPacketSizeExceeded,
    }
}

pub(super) fn recent(details: RecentPaymentDetails) -> Recent {
    let (id, hash, state) = match details {
        RecentPaymentDetails::AwaitingInvoice { payment_id } => (payment_id, None, State::AwaitingInvoice),
        RecentPaymentDetails::Pending { payment_id, payment_hash, .. } => {
            (payment_id, Some(payment_hash), State::Pending)
        }
        RecentPaymentDetails::Fulfilled { payment_id, payment_hash } => (payment_id, payment_hash, State::Fulfilled),
        RecentPaymentDetails::Abandoned { payment_id, payment_hash } => {
            (payment_id, Some(payment_hash), State::Abandoned)
        }
    };
    Recent { id: id.0, hash: hash.map(|hash| hash.0), state }
}

pub(super) fn told(event: Event) -> Told {
    match event {
        Event::PaymentSent { payment_id: Some(id), payment_preimage, payment_hash, fee_paid_msat, .. } => {
            Told::Sent { id: id.0, hash: payment_hash.0, preimage: payment_preimage.0, fee_msat: fee_paid_msat }
        }
        Event::PaymentFailed { payment_id, payment_hash, reason } => Told::Failed {
            id: payment_id.0,
            hash: payment_hash.map(|hash| hash.0),
            reason: reason.map(|reason| format!("{reason:?}")).unwrap_or_default(),
        },
        Event::PaymentPathSuccessful { payment_id, .. } => Told::PathSuccessful { id: payment_id.0 },
        Event::PaymentPathFailed { payment_id: Some(id), payment_hash, .. } => {
            Told::PathFailed { id: id.0, hash: payment_hash.0 }
        }
        Event::PaymentClaimable { payment_hash, amount_msat, purpose, .. } => Told::Claimable {
            hash: payment_hash.0,
            msat: amount_msat,
            preimage: purpose.preimage().map(|preimage| preimage.0),
        },
        Event::PaymentClaimed { payment_hash, .. } => Told::Claimed { hash: payment_hash.0 },
        other => Told::Other(format!("{other:?}").split([' ', '(']).next().unwrap_or_default().to_owned()),
    }
}
