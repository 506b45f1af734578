//! The node's ledger of incoming payments: a table in the engine's own file, one row per payment hash, whoever asked.

use std::time::Duration;

use ibid::lightning::request_invoice::{InvoiceParams, Minted};
use ibid::{Row, UnixMillis};
use serde::Deserialize;
use serde_json::json;

/// The table's name.
pub(crate) const INBOUND_PAYMENTS: &str = "inbound_payments";
/// For how long a row outlives its invoice.
const KEPT_FOR: Duration = Duration::from_secs(7 * 86_400);

#[derive(Deserialize)]
struct InboundPayment {
    status: String,
    expires_at: u64,
}

/// What a node needs to claim the payment that comes in, written with the answer or not at all.
pub(crate) fn inbound_payment(params: &InvoiceParams, minted: &Minted) -> Option<Row> {
    let value = json!({ "status": "pending", "expires_at": minted.expires_at.0, "bolt11": minted.bolt11 });
    // The key and the table are within their bounds, whatever was asked.
    let row = Row::new(INBOUND_PAYMENTS, params.payment_hash, value.to_string().into_bytes()).ok()?;
    Some(row.expires_at(minted.expires_at.saturating_add(KEPT_FOR)))
}

/// Whether this row stands in the way of another invoice for its hash: unless it is failed, cancelled, or has expired unpaid.
pub(crate) fn blocks(stored: &[u8], now: UnixMillis) -> bool {
    let Ok(row) = serde_json::from_slice::<InboundPayment>(stored) else { return true };
    match row.status.as_str() {
        "failed" | "cancelled" => false,
        "pending" => now.0 < row.expires_at,
        _ => true,
    }
}
