//! What the fuzz targets feed with bytes, as far as it is not public: any bytes go in, and a promise that does not hold
//! panics.

use super::frame::{self, Incoming};
use super::{ID_BYTES, MAX_FRAME_BYTES, RpcError, WireParams};

/// A payload from a peer: understood or refused, and whatever is replied fits a frame and is an answer to its reader.
pub fn frames(payload: &[u8]) {
    let Ok(text) = std::str::from_utf8(payload) else { return };
    match frame::read(text) {
        Ok(Incoming::Request { id, params, .. }) => {
            assert!(id.len() <= ID_BYTES);
            is_answer(id, &frame::result(id, params.unwrap_or("0")));
            is_answer(id, &frame::error(id, &RpcError::invalid_params()));
            if let Some(params) = params {
                wire_params(params.as_bytes());
            }
        }
        Ok(Incoming::Response { .. } | Incoming::Ignored) => {}
        Err(error) => assert!(frame::error(frame::NO_ID, &error).len() <= MAX_FRAME_BYTES),
    }
}

/// What is replied reads as an answer under the very id of the request, byte for byte.
fn is_answer(id: &str, reply: &str) {
    assert!(reply.len() <= MAX_FRAME_BYTES);
    let echoed = match frame::read(reply) {
        Ok(Incoming::Response { id, .. }) => Some(id),
        Ok(Incoming::Request { .. } | Incoming::Ignored) | Err(_) => None,
    };
    assert_eq!(echoed, Some(id));
}

/// The params of a request: what is accepted has one canonical form, which reads back as the same request.
pub fn wire_params(json: &[u8]) {
    let Ok(json) = std::str::from_utf8(json) else { return };
    match WireParams::parse(json) {
        Ok(wire) => {
            let canonical = wire.params.canonical();
            let again = WireParams::parse(&canonical);
            assert!(again.is_ok_and(|again| again.params == wire.params && again.params.canonical() == canonical));
            assert!((1..=255).contains(&wire.session_id().len()), "a session id that is no id of a key");
        }
        Err(error) => assert!(!error.message().is_empty()),
    }
}

/// Inputs to begin with: a request, its params, an answer.
#[must_use]
pub fn frame_seeds() -> Vec<Vec<u8>> {
    let params = format!(
        r#"{{"hash_index":"7","payment_hash":"{}","amount_msat":5000000,"asset_id":"a","asset_amount":1,"description_hash":"{}","invoice_expiry_sec":600,"min_final_cltv_expiry_delta":30,"claim_session_id":"s"}}"#,
        "5c".repeat(32),
        "e1".repeat(32)
    );
    let request = format!(r#"{{"jsonrpc":"2.0","id":"1","method":"{}","params":{params}}}"#, super::METHOD);
    [params, request, frame::result("[1]", "{}"), frame::error("null", &RpcError::busy())]
        .map(String::into_bytes)
        .into()
}
