//! The errors of the wire: a code and a message, by name, and the one function that makes them of ours.

use std::fmt;

use serde::Deserialize;

use crate::lightning::json_string;
use crate::{Error, ErrorKind, InvalidKey, Reason};

/// A JSON-RPC error: what the peer gets in place of a result, code and message and no `data`.
///
/// A provider returns one; it goes verbatim to the first caller and to all who joined, and is never stored. Every code
/// and message of system 1 has a constructor here. (rgb-lightning-node; those marked *ours* are this crate's.)
///
/// What the peer does next goes by the code, as [`classify`](crate::class::classify) reads it: 1105 is *Conflict*, every other one
/// *Ambiguous*: the same request, under the same session, again.
///
/// `Debug` and `Display` show the code, never the message: a provider may have put anything into it.
#[derive(Clone, PartialEq, Eq)]
pub struct RpcError {
    code: i64,
    message: String,
}

const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const INTERNAL_ERROR: i64 = -32603;
const INVALID_HASH_BATCH: i64 = 1003;
const INVOICE_HASH_MISMATCH: i64 = 1104;
const STALE_FLOW: i64 = 1105;

impl RpcError {
    /// An error of the provider's own.
    #[must_use]
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> i64 {
        self.code
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The object that stands in a frame's `error`: `{"code":..,"message":".."}`.
    pub(super) fn to_json(&self) -> String {
        format!(r#"{{"code":{},"message":{}}}"#, self.code, json_string(&self.message))
    }

    /// The error as the engine carries it to everybody who waits. Nothing is lost on the way.
    pub(super) fn to_reason(&self) -> Reason {
        Reason::from_bytes(self.to_json().into_bytes())
    }

    /// What [`RpcError::to_reason`] made. `None` for bytes that say something else.
    fn from_reason(reason: &Reason) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Json {
            code: i64,
            message: String,
        }
        let Json { code, message } = serde_json::from_slice(reason.bytes()).ok()?;
        Some(Self { code, message })
    }
}

/// What the adapter itself answers.
impl RpcError {
    /// -32700: the frame is not the envelope.
    #[must_use]
    pub fn parse_error() -> Self {
        Self::new(PARSE_ERROR, "parse error")
    }

    /// -32600: another version, no method, no id, or (ours) an id that is too long.
    #[must_use]
    pub fn invalid_request() -> Self {
        Self::new(INVALID_REQUEST, "invalid request")
    }

    /// -32601.
    #[must_use]
    pub fn method_not_found() -> Self {
        Self::new(METHOD_NOT_FOUND, "method not found")
    }

    /// -32602: no params.
    #[must_use]
    pub fn missing_params() -> Self {
        Self::new(INVALID_PARAMS, "missing params")
    }

    /// -32602: a param of a wrong type, missing, unknown or (ours) given twice.
    #[must_use]
    pub fn invalid_params() -> Self {
        Self::new(INVALID_PARAMS, "invalid_request_invoice_params")
    }

    /// -32602: `hash_index` is not a decimal u64. Also the provider's own, for an index it does not like.
    #[must_use]
    pub fn invalid_hash_index() -> Self {
        Self::new(INVALID_PARAMS, "invalid_hash_index")
    }

    /// -32602: `payment_hash` is not 64 hex digits.
    #[must_use]
    pub fn invalid_payment_hash() -> Self {
        Self::new(INVALID_PARAMS, "invalid_payment_hash")
    }

    /// -32602: `description_hash` is not 64 hex digits. Also the provider's own.
    #[must_use]
    pub fn invalid_description_hash() -> Self {
        Self::new(INVALID_PARAMS, "invalid_description_hash")
    }

    /// -32602 (ours): the session id is not 1 to 255 bytes.
    #[must_use]
    pub fn invalid_claim_session_id() -> Self {
        Self::new(INVALID_PARAMS, "invalid_claim_session_id")
    }

    /// 1105: the key belongs to another request, has expired or is fenced. Also the provider's own, when its ledger
    /// rule finds a row that blocks the payment hash.
    #[must_use]
    pub fn stale_flow() -> Self {
        Self::new(STALE_FLOW, "stale_flow")
    }

    /// -32603: nobody is there to mint. Nothing was registered.
    #[must_use]
    pub fn provider_not_available() -> Self {
        Self::new(INTERNAL_ERROR, "async_order_invoice_provider_not_available")
    }

    /// -32603: now + `invoice_expiry_sec` does not fit a clock. Nothing was registered.
    #[must_use]
    pub fn expiry_overflow() -> Self {
        Self::new(INTERNAL_ERROR, "async_order_invoice_expiry_overflow")
    }

    /// -32603 (ours): a bound on work was met. Nothing was kept.
    #[must_use]
    pub fn busy() -> Self {
        Self::new(INTERNAL_ERROR, "async_order_busy")
    }

    /// -32603 (ours): the reply does not fit a frame. Nothing was kept.
    #[must_use]
    pub fn reply_too_large() -> Self {
        Self::new(INTERNAL_ERROR, "async_order_reply_too_large")
    }

    /// -32603 (ours): no proof of anything; the same request again, under the same key, finds out.
    #[must_use]
    pub fn outcome_unknown() -> Self {
        Self::new(INTERNAL_ERROR, "async_order_outcome_unknown")
    }
}

/// What a provider answers, word for word what rgb-lightning-node does.
impl RpcError {
    /// -32602: the amount is below the minimum, in msat (3,000,000; 1,000 on a trusted virtual channel).
    #[must_use]
    pub fn amount_too_low(min_msat: u64) -> Self {
        Self::new(INVALID_PARAMS, format!("amt_msat cannot be less than {min_msat}"))
    }

    /// -32602: an asset amount of 0.
    #[must_use]
    pub fn invalid_asset_amount() -> Self {
        Self::new(INVALID_PARAMS, "invalid_asset_amount")
    }

    /// -32602: no such asset id.
    #[must_use]
    pub fn invalid_asset_id() -> Self {
        Self::new(INVALID_PARAMS, "invalid_asset_id")
    }

    /// -32602: one of asset id and asset amount without the other.
    #[must_use]
    pub fn incomplete_rgb_info() -> Self {
        Self::new(INVALID_PARAMS, "incomplete_rgb_info")
    }

    /// -32602: the payment hash is no point of this order.
    #[must_use]
    pub fn order_payment_hash_invalid() -> Self {
        Self::new(INVALID_PARAMS, "async_order_invalid_payment_hash")
    }

    /// 1003: index 0, or above 2^31 - 1.
    #[must_use]
    pub fn invalid_hash_batch() -> Self {
        Self::new(INVALID_HASH_BATCH, "invalid_hash_batch")
    }

    /// 1104: the hash derived for the index is not the one asked for.
    #[must_use]
    pub fn invoice_hash_mismatch() -> Self {
        Self::new(INVOICE_HASH_MISMATCH, "invoice_hash_mismatch")
    }

    /// -32603: the preimage could not be derived.
    #[must_use]
    pub fn preimage_derivation_failed(detail: impl fmt::Display) -> Self {
        Self::new(INTERNAL_ERROR, format!("async_payment_preimage_derivation_failed: {detail}"))
    }

    /// -32603: the signer does not answer.
    #[must_use]
    pub fn external_signer_unavailable() -> Self {
        Self::new(INTERNAL_ERROR, "async_order_external_signer_unavailable")
    }

    /// -32603: the signer did not derive.
    #[must_use]
    pub fn signer_derive_failed(detail: impl fmt::Display) -> Self {
        Self::new(INTERNAL_ERROR, format!("async_order_signer_derive_failed: {detail}"))
    }

    /// -32603: the signer derived something else.
    #[must_use]
    pub fn external_signer_derived_hash_error() -> Self {
        Self::new(INTERNAL_ERROR, "async_order_external_signer_derived_hash_error")
    }

    /// -32603: the invoice could not be made.
    #[must_use]
    pub fn outbound_invoice_failed(detail: impl fmt::Display) -> Self {
        Self::new(INTERNAL_ERROR, format!("async_order_request_outbound_invoice_failed: {detail}"))
    }

    /// -32603: the row of the ledger could not be written.
    #[must_use]
    pub fn outbound_invoice_persist_failed(detail: impl fmt::Display) -> Self {
        Self::new(INTERNAL_ERROR, format!("async_order_request_outbound_invoice_persist_failed: {detail}"))
    }
}

/// What the peer is told about an error of the engine: total, one line per kind.
///
/// *Conflict* and a fenced key are `stale_flow`; the operation's own error goes verbatim; a bound that was met is
/// *busy*; everything else is *outcome unknown*, and the peer's retry finds out.
#[must_use]
pub fn rpc_error(error: &Error) -> RpcError {
    match error.kind() {
        ErrorKind::Mismatch | ErrorKind::Expired | ErrorKind::Fenced => RpcError::stale_flow(),
        ErrorKind::Failed(reason) | ErrorKind::InDoubt(Some(reason)) => {
            RpcError::from_reason(reason).unwrap_or_else(RpcError::outcome_unknown)
        }
        ErrorKind::RetentionOverflow => RpcError::expiry_overflow(),
        ErrorKind::Busy { .. } | ErrorKind::QuotaExceeded | ErrorKind::TooLarge { .. } => RpcError::busy(),
        ErrorKind::InvalidKey(InvalidKey::IdLength(_)) => RpcError::invalid_claim_session_id(),
        ErrorKind::InvalidKey(_)
        | ErrorKind::Duplicate(_)
        | ErrorKind::AnswerNotKept
        | ErrorKind::RetentionMissing
        | ErrorKind::InDoubt(None)
        | ErrorKind::RecoveriesExhausted
        | ErrorKind::Quarantined
        | ErrorKind::Store
        | ErrorKind::Closed
        | ErrorKind::Deadline
        | ErrorKind::Internal
        | ErrorKind::NotFound
        | ErrorKind::Encode
        | ErrorKind::Decode => RpcError::outcome_unknown(),
    }
}

impl fmt::Debug for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RpcError({}, {} bytes)", self.code, self.message.len())
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "json-rpc error {}", self.code)
    }
}

impl std::error::Error for RpcError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bound, Status};
    use proptest::prelude::*;

    #[test]
    fn every_kind_has_one_line_in_the_table() {
        let own = RpcError::invalid_hash_batch();
        let table = [
            (ErrorKind::Mismatch, RpcError::stale_flow()),
            (ErrorKind::Expired, RpcError::stale_flow()),
            (ErrorKind::Fenced, RpcError::stale_flow()),
            (ErrorKind::Failed(own.to_reason()), own.clone()),
            (ErrorKind::InDoubt(Some(own.to_reason())), own),
            (ErrorKind::Failed(Reason::from_bytes(*b"cut")), RpcError::outcome_unknown()),
            (ErrorKind::InDoubt(Some(Reason::from_error("panicked"))), RpcError::outcome_unknown()),
            (ErrorKind::InDoubt(None), RpcError::outcome_unknown()),
            (ErrorKind::RetentionOverflow, RpcError::expiry_overflow()),
            (ErrorKind::Busy { bound: Bound::Scope, found_absent: false }, RpcError::busy()),
            (ErrorKind::QuotaExceeded, RpcError::busy()),
            (ErrorKind::TooLarge { bytes: 2, limit: 1 }, RpcError::busy()),
            (ErrorKind::InvalidKey(InvalidKey::IdLength(0)), RpcError::invalid_claim_session_id()),
            (ErrorKind::InvalidKey(InvalidKey::OtherFlow), RpcError::outcome_unknown()),
            (ErrorKind::Duplicate(Status::Completed), RpcError::outcome_unknown()),
            (ErrorKind::AnswerNotKept, RpcError::outcome_unknown()),
            (ErrorKind::RetentionMissing, RpcError::outcome_unknown()),
            (ErrorKind::RecoveriesExhausted, RpcError::outcome_unknown()),
            (ErrorKind::Quarantined, RpcError::outcome_unknown()),
            (ErrorKind::Store, RpcError::outcome_unknown()),
            (ErrorKind::Closed, RpcError::outcome_unknown()),
            (ErrorKind::Deadline, RpcError::outcome_unknown()),
            (ErrorKind::Internal, RpcError::outcome_unknown()),
            (ErrorKind::NotFound, RpcError::outcome_unknown()),
            (ErrorKind::Encode, RpcError::outcome_unknown()),
            (ErrorKind::Decode, RpcError::outcome_unknown()),
        ];
        for (kind, expected) in table {
            let found = rpc_error(&Error::from(kind.clone()));
            assert!(found == expected, "{kind:?}: {} {}", found.code(), found.message());
        }
    }

    #[test]
    fn codes_and_messages_are_those_of_the_wire() {
        let table = [
            (RpcError::parse_error(), -32700, "parse error"),
            (RpcError::invalid_request(), -32600, "invalid request"),
            (RpcError::method_not_found(), -32601, "method not found"),
            (RpcError::missing_params(), -32602, "missing params"),
            (RpcError::invalid_params(), -32602, "invalid_request_invoice_params"),
            (RpcError::stale_flow(), 1105, "stale_flow"),
            (RpcError::invalid_hash_batch(), 1003, "invalid_hash_batch"),
            (RpcError::invoice_hash_mismatch(), 1104, "invoice_hash_mismatch"),
            (RpcError::amount_too_low(3_000_000), -32602, "amt_msat cannot be less than 3000000"),
            (RpcError::signer_derive_failed("x"), -32603, "async_order_signer_derive_failed: x"),
            (RpcError::outcome_unknown(), -32603, "async_order_outcome_unknown"),
            (RpcError::busy(), -32603, "async_order_busy"),
        ];
        for (error, code, message) in table {
            assert_eq!((error.code(), error.message()), (code, message));
        }
    }

    #[test]
    fn neither_debug_nor_display_shows_the_message() {
        let error = RpcError::outbound_invoice_failed("canary");
        assert!(!format!("{error:?} {error}").contains("canary"));
    }

    proptest! {
        #[test]
        fn an_error_survives_the_engine_unchanged(code in any::<i64>(), message in any::<String>()) {
            let error = RpcError::new(code, message);
            prop_assert_eq!(rpc_error(&ErrorKind::Failed(error.to_reason()).into()), error);
        }
    }
}
