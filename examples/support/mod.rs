//! What both examples share: real BOLT11 invoices for regtest, and the ledger that they stand in.

pub(crate) mod ledger;

use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{All, Secp256k1, SecretKey};
use ibid::UnixMillis;
use ibid::lightning::request_invoice::{InvoiceParams, Minted, RpcError};
use lightning_invoice::{Currency, InvoiceBuilder, PaymentSecret};

/// What LDK adds to the final CLTV delta that it is asked for: a few blocks may be found while a payment is on its way.
pub(crate) const CLTV_ADDED: u64 = 3;

/// Mints as LDK does: nothing is stored, and every call makes another payment secret, so two calls make two payable
/// invoices for one hash. Which is why ibid stands in front of it.
pub(crate) struct Minter {
    secp: Secp256k1<All>,
    key: SecretKey,
}

impl Minter {
    /// A minter with a key that everybody knows: these invoices are for trying things out.
    pub(crate) fn new() -> Result<Self, RpcError> {
        let key = SecretKey::from_slice(&[0x42; 32]).map_err(RpcError::outbound_invoice_failed)?;
        Ok(Self { secp: Secp256k1::new(), key })
    }

    /// An invoice that counts its expiry from `admitted_at`, so that a slow signer does not lengthen it. BOLT11 knows
    /// whole seconds only: the invoice may expire up to 999 ms before the record's own bound, and says so.
    pub(crate) fn mint(&self, params: &InvoiceParams, admitted_at: UnixMillis) -> Result<Minted, RpcError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(RpcError::outbound_invoice_failed)?;
        let timestamp = Duration::from_secs(admitted_at.0 / 1000);
        let expiry = Duration::from_secs(params.invoice_expiry_sec.into());
        let invoice = InvoiceBuilder::new(Currency::Regtest)
            .amount_milli_satoshis(params.amount_msat)
            .payment_hash(sha256::Hash::from_byte_array(params.payment_hash))
            .description_hash(sha256::Hash::from_byte_array(params.description_hash))
            .payment_secret(PaymentSecret(secret))
            .duration_since_epoch(timestamp)
            .expiry_time(expiry)
            .min_final_cltv_expiry_delta(u64::from(params.min_final_cltv_expiry_delta) + CLTV_ADDED)
            .basic_mpp()
            .build_signed(|digest| self.secp.sign_ecdsa_recoverable(digest, &self.key))
            .map_err(RpcError::outbound_invoice_failed)?;
        let expires_at = UnixMillis::default().saturating_add(timestamp).saturating_add(expiry);
        Ok(Minted { bolt11: invoice.to_string(), expires_at })
    }
}
