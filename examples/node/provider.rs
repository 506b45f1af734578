//! Who mints: the rules of a real provider, one line in the file of effects per mint, and a delay.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ibid::lightning::request_invoice::{InvoiceParams, InvoiceProvider, InvoiceRequest, Minted, Providing, RpcError};
use ibid::{Attempt, Row, UnixMillis};
use sha2::{Digest, Sha256};

use crate::effects::{Effects, hex};
use crate::support::{Minter, ledger};

/// BIP 32 keeps the upper half of 32 bits for hardened children: an order has no hash there, and none at 0.
const LAST_HASH_INDEX: u64 = 0x7fff_ffff;

pub(crate) struct Provider {
    pub(crate) minter: Minter,
    pub(crate) effects: Effects,
    pub(crate) delay: Duration,
    pub(crate) min_amount_msat: u64,
    pub(crate) check_hash: bool,
    /// How often this process minted.
    pub(crate) minted: AtomicU64,
}

impl InvoiceProvider for Provider {
    /// The invoice exists, and its line is on disk, before the delay: a node that dies during it has minted an invoice that
    /// nobody ever sees, which is the case that a restart must get right.
    fn mint<'a>(&'a self, request: &'a InvoiceRequest, attempt: &'a Attempt) -> Providing<'a, Minted> {
        Box::pin(async move {
            self.check(&request.params)?;
            let minted = self.minter.mint(&request.params, attempt.admitted_at())?;
            let line = format!("{} {}\n", hex(&request.params.payment_hash), minted.bolt11);
            self.effects.append(line).await.map_err(RpcError::outbound_invoice_failed)?;
            self.minted.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(self.delay).await;
            Ok(minted)
        })
    }

    fn row(&self, request: &InvoiceRequest, minted: &Minted) -> Option<Row> {
        ledger::inbound_payment(&request.params, minted)
    }

    fn blocks(&self, stored: &[u8], now: UnixMillis) -> bool {
        ledger::blocks(stored, now)
    }
}

impl Provider {
    /// What rgb-lightning-node's provider refuses. This one knows no RGB assets: any id but the empty one will do.
    fn check(&self, params: &InvoiceParams) -> Result<(), RpcError> {
        if !(1..=LAST_HASH_INDEX).contains(&params.hash_index) {
            return Err(RpcError::invalid_hash_batch());
        }
        if self.check_hash && params.payment_hash != payment_hash_at(params.hash_index) {
            return Err(RpcError::invoice_hash_mismatch());
        }
        if params.amount_msat < self.min_amount_msat {
            return Err(RpcError::amount_too_low(self.min_amount_msat));
        }
        match (params.asset_id.as_deref(), params.asset_amount) {
            (_, Some(0)) => Err(RpcError::invalid_asset_amount()),
            (Some(""), _) => Err(RpcError::invalid_asset_id()),
            (Some(_), None) | (None, Some(_)) => Err(RpcError::incomplete_rgb_info()),
            (Some(_), Some(_)) | (None, None) => Ok(()),
        }
    }
}

/// `--check-hash`: the hash of the preimage that stands at this index.
fn payment_hash_at(index: u64) -> [u8; 32] {
    let preimage = Sha256::digest(format!("ibid example node {index}"));
    Sha256::digest(preimage).into()
}
