//! Lightning: what a node owns so that a retry gets the answer that was already given.
//!
//! ```text
//! peer   --custom message--> RequestInvoice::handle --> Engine::try_submit --> InvoiceProvider (runs once)
//!        <----- frame ------ the host's reply queue <-- callback <-- the committed record
//!
//! router --attempt id-----> SendOnion::send --> Engine::submit --> Switch::dispatch (runs once)
//!        <-- four classes --                    Switch::find (asked about what is in doubt)
//!
//! wallet --PaymentId------> SendPayment::send --> Engine::try_submit --> Payer::send (runs once)
//!        <-- how it stands --                   LDK's events, LDK's list (asked about what is in doubt)
//! ```
//!
//! The scope of every key is the authenticated principal: the peer's [`NodeId`](crate::NodeId), the router's namespace.
//! Nothing here opens a socket, reads a clock or holds memory for a peer that is idle; everything that lasts is a record of
//! the engine.

mod answer;
mod blocking;
pub mod request_invoice;
pub mod send_onion;
pub mod send_payment;

pub use answer::json_rpc_answer;
pub use blocking::Blocking;

/// Exactly 64 hex digits of any case.
fn decode_hex32(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        for digit in pair {
            *byte = (*byte << 4) | u8::try_from(char::from(*digit).to_digit(16)?).ok()?;
        }
    }
    Some(bytes)
}

/// 64 lower-case hex digits.
fn encode_hex32(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `text` as a JSON string, quotes included.
fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
