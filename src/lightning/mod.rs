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
//! The three follow what they stand in for, so they differ where those do:
//!
//! | | [`request_invoice`] | [`send_onion`] | [`send_payment`] |
//! |---|---|---|---|
//! | the host's side | `InvoiceProvider` | `Switch` | `Payer` |
//! | before the engine is opened | | `SendOnion::prepare` | `SendPaymentSetup::prepare` |
//! | an engine opened without it | | `SendOnion::new` refuses it | `SendPaymentSetup::bind` refuses it |
//! | the handler | `RequestInvoice::new`, `set_provider` | `SendOnion::new` | `SendPaymentSetup::bind`, `resume`, `synced` |
//! | the scope of a key | the peer that asks | the dispatcher's namespace | the node itself |
//! | the id of a key | session | attempt id | PaymentId |
//! | known, and the same | the same answer | `Err`, *Duplicate* | `Ok(Sent::Known)` |
//! | refused without effect | told, not kept | kept until `forget` | kept until `abandon` |
//! | `track`, where it never went out | | `Ok(Tracked::RolledBack)` | `Err(PaymentError::Definitive)` |
//! | in doubt | the retry runs it again, from its checkpoint | `Switch::find` is asked | LDK's list is asked |
//! | a caller waits | 30 s, or as [`wait`](request_invoice::RequestInvoice::wait) says | for the dispatch, or as [`wait`](send_onion::SendOnion::wait) says | for the call into LDK |
//! | a finished key is free | when the invoice has expired | by `forget` | by `abandon`; paid, by quiet ticks |
//!
//! Names that two of them share mean different things: `Sent`, `Handled`, and `Dispatch`, which is what came of an onion, and in
//! `send_payment` the payment that LDK is to make. So import the modules, and not all of their names.
//!
//! The scope of every key is the authenticated principal: the peer's [`NodeId`](crate::NodeId), the router's namespace; payments,
//! which only the host itself may ask for, have the node's own.
//! Nothing here opens a socket, reads a clock or holds memory for a peer that is idle; everything that lasts is a record of
//! the engine.
//!
//! A host whose own calls block implements the `Blocking..` form of a trait and wraps it in [`Blocking`]. Where it has to wait on a
//! plain thread for what a handler says, any `block_on` will do, since the futures need no runtime; what LDK itself calls on such a
//! thread has a method that ends in `_blocking`.

mod answer;
mod blocking;
mod in_flight;
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
