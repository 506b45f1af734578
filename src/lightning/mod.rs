//! Lightning: what a node owns so that a retry gets the answer that was already given.
//!
//! ```text
//! peer   --custom message--> RequestInvoice::handle --> Engine::try_submit --> InvoiceProvider (runs once)
//!        <----- frame ------ the host's reply queue <-- callback <-- the committed record
//!
//! router --attempt id-----> SendOnion::send --> Engine::submit --> Switch::dispatch (runs once)
//!        <-- four classes --                    Switch::find (asked about what is in doubt)
//! ```
//!
//! The scope of every key is the authenticated principal: the peer's [`NodeId`](crate::NodeId), the router's namespace.
//! Nothing here opens a socket, reads a clock or holds memory for a peer that is idle; everything that lasts is a record of
//! the engine.

mod answer;
mod frame;
#[cfg(feature = "testing")]
pub(crate) mod fuzz;
mod params;
mod provider;
mod request_invoice;
mod rpc_error;
mod send_onion;
pub mod send_payment;

pub use answer::json_rpc_answer;
pub use frame::{ID_BYTES, MAX_FRAME_BYTES};
pub use params::{InvoiceParams, WireParams};
pub use provider::{Blocking, BlockingInvoiceProvider, InvoiceProvider, InvoiceRequest, Minted, Providing};
pub use request_invoice::{FLOW_NAME, Handled, METHOD, RequestInvoice, WAIT};
pub use rpc_error::{RpcError, rpc_error};
pub use send_onion::{
    BlockingSwitch, Circuit, Dispatch, FirstHop, InvalidOnion, KnownOnion, ListedOnion, ONION_BYTES, Onion, OnionEnd,
    OnionError, OnionPage, OnionRequest, SEND_ONION, SendOnion, Sent, Switch, Switching, Tracked, WireOnion,
};

/// The type number of the custom message that carries a frame. The payload is the frame's text, with no length before
/// it. (rgb-lightning-node)
pub const MESSAGE_TYPE: u16 = 37915;

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
