//! The operation of system 1: whoever mints invoices and keeps the ledger, and the order in which it is asked.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Deserialize;

use super::frame::RESULT_BYTES;
use super::params::InvoiceParams;
use super::rpc_error::RpcError;
use crate::lightning::{Blocking, encode_hex32, json_string};
use crate::{Attempt, Bytes, Completion, End, Engine, ErrorKind, Guard, NodeId, Row, UnixMillis};

/// What a provider's method returns: a boxed future, so that the trait can be an object.
pub type Providing<'a, T> = Pin<Box<dyn Future<Output = Result<T, RpcError>> + Send + 'a>>;

/// Mints invoices and keeps the ledger row of each (rgb-lightning-node's invoice provider).
///
/// It may be slow and it may panic: the record is then in doubt, whoever waits is told *outcome unknown*, and the next
/// identical request runs again. It belongs to no caller: a caller that goes away changes nothing.
///
/// ```text
/// no checkpoint    mint -> size of the reply -> checkpoint -> record -> row and Completed -> reply
/// a checkpoint             (what was minted then)           record -> row and Completed -> reply
/// ```
///
/// The checkpoint belongs to this sequence: a provider must not save one of its own.
pub trait InvoiceProvider: Send + Sync + 'static {
    /// Makes one invoice. Two calls may make two payable invoices for one hash; of those only one is ever returned.
    ///
    /// # Errors
    /// Proof that there is no invoice, in the words that the peer gets. Never stored; the next request runs.
    fn mint<'a>(&'a self, request: &'a InvoiceRequest, attempt: &'a Attempt) -> Providing<'a, Minted>;

    /// Writes the row of a ledger that is not ibid's: an upsert with the values of `minted`, called after they are
    /// checkpointed and before the answer is recorded, and again by every re-run. The row must be durable on return: a
    /// payment that comes in without one cannot be claimed. A row that is already there with the same payment secret is
    /// this request's own and not refused. By default there is no such ledger and nothing is done.
    ///
    /// # Errors
    /// The peer gets it verbatim. The row may have been written all the same, so the record stays in doubt with its
    /// checkpoint, and the next identical request calls this again with the same values.
    fn record<'a>(
        &'a self,
        request: &'a InvoiceRequest,
        minted: &'a Minted,
        attempt: &'a Attempt,
    ) -> Providing<'a, ()> {
        let _ = (request, minted, attempt);
        Box::pin(std::future::ready(Ok(())))
    }

    /// The row of a ledger that lives in ibid's own store, for the transaction that records the answer: both are durable before
    /// the answer leaves, or neither is. Its guard is set here, see [`blocks`](Self::blocks); its end should not come before the
    /// record's. By default there is no such ledger.
    fn row(&self, request: &InvoiceRequest, minted: &Minted) -> Option<Row> {
        let _ = (request, minted);
        None
    }

    /// Whether a row that is stored under the same table and key stands in the way of another invoice: unless it is failed,
    /// cancelled, or pending past its own expiry. Then the request gets 1105 `stale_flow`, and nothing of it is recorded. By
    /// default every row does.
    fn blocks(&self, stored: &[u8], now: UnixMillis) -> bool {
        let _ = (stored, now);
        true
    }
}

/// An [`InvoiceProvider`] whose methods block the thread they run on. Made into one by [`Blocking`].
pub trait BlockingInvoiceProvider: Send + Sync + 'static {
    /// As [`InvoiceProvider::mint`].
    ///
    /// # Errors
    /// As [`InvoiceProvider::mint`].
    fn mint(&self, request: &InvoiceRequest, attempt: &Attempt) -> Result<Minted, RpcError>;

    /// As [`InvoiceProvider::record`].
    ///
    /// # Errors
    /// As [`InvoiceProvider::record`].
    fn record(&self, request: &InvoiceRequest, minted: &Minted, attempt: &Attempt) -> Result<(), RpcError> {
        let _ = (request, minted, attempt);
        Ok(())
    }

    /// As [`InvoiceProvider::row`]. It must not block.
    fn row(&self, request: &InvoiceRequest, minted: &Minted) -> Option<Row> {
        let _ = (request, minted);
        None
    }

    /// As [`InvoiceProvider::blocks`]. It must not block.
    fn blocks(&self, stored: &[u8], now: UnixMillis) -> bool {
        let _ = (stored, now);
        true
    }
}

/// One request, as the provider sees it: the same for a first run and a re-run.
#[derive(Clone, PartialEq, Eq)]
pub struct InvoiceRequest {
    /// The peer that asks, as the transport authenticated it.
    pub lsp_node_id: NodeId,
    /// The session that it belongs to: the id of the key, 1 to 255 bytes.
    pub session_id: Vec<u8>,
    /// What it asks for.
    pub params: InvoiceParams,
}

/// An invoice that was made. `Debug` doesn't show it: a bolt11 holds the payment secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Minted {
    /// The invoice's text.
    pub bolt11: String,
    /// When the invoice itself expires. (BOLT 11 counts whole seconds, so this may come before the bound of the record;
    /// the record answers until the earlier of the two.)
    pub expires_at: UnixMillis,
}

/// Outcome unknown, if the runtime is going down.
fn off_thread<P: BlockingInvoiceProvider, T: Send + 'static>(
    provider: &Blocking<P>,
    work: impl FnOnce(&P) -> Result<T, RpcError> + Send + 'static,
) -> Providing<'static, T> {
    let done = provider.run(work);
    Box::pin(async move { done.await.unwrap_or_else(|| Err(RpcError::outcome_unknown())) })
}

impl<P: BlockingInvoiceProvider> InvoiceProvider for Blocking<P> {
    fn mint<'a>(&'a self, request: &'a InvoiceRequest, attempt: &'a Attempt) -> Providing<'a, Minted> {
        let (request, attempt) = (request.clone(), attempt.clone());
        off_thread(self, move |provider| provider.mint(&request, &attempt))
    }

    fn record<'a>(
        &'a self,
        request: &'a InvoiceRequest,
        minted: &'a Minted,
        attempt: &'a Attempt,
    ) -> Providing<'a, ()> {
        let (request, minted, attempt) = (request.clone(), minted.clone(), attempt.clone());
        off_thread(self, move |provider| provider.record(&request, &minted, &attempt))
    }

    fn row(&self, request: &InvoiceRequest, minted: &Minted) -> Option<Row> {
        self.inner().row(request, minted)
    }

    fn blocks(&self, stored: &[u8], now: UnixMillis) -> bool {
        self.inner().blocks(stored, now)
    }
}

/// The operation, from the first line of the sequence to the last.
pub(super) async fn run(
    engine: Engine,
    provider: Arc<dyn InvoiceProvider>,
    request: InvoiceRequest,
    attempt: Attempt,
) -> End {
    let (result, minted) = match obtain(&*provider, &request, &attempt).await {
        Ok(obtained) => obtained,
        Err(end) => return end,
    };
    match provider.record(&request, &minted, &attempt).await {
        Ok(()) => {
            let completion = Completion::new(result).expires_at(minted.expires_at);
            with_row(&engine, &*provider, &request, &minted, completion).map_or_else(|end| end, End::Done)
        }
        // With a checkpoint saved, the flow's policy doubts this proof and keeps the record.
        Err(error) => End::Definitive(error.to_reason()),
    }
}

/// The completion with its ledger row. What the rule saw is the row's guard, so two keys that ask for one hash at the same time
/// are told apart inside the transaction; a row that blocks is told apart there, too.
fn with_row(
    engine: &Engine,
    provider: &dyn InvoiceProvider,
    request: &InvoiceRequest,
    minted: &Minted,
    completion: Completion,
) -> Result<Completion, End> {
    let Some(row) = provider.row(request, minted) else { return Ok(completion) };
    let unknown = |_| End::Unknown(RpcError::outcome_unknown().to_reason());
    let guard = match engine.ledger_row(row.table(), row.key()).map_err(unknown)? {
        Some(stored) if !provider.blocks(&stored.value, engine.now()) => Guard::Equals(stored.value),
        Some(_) | None => Guard::Absent,
    };
    Ok(completion.row(row.guard(guard)).otherwise(RpcError::stale_flow().to_reason()))
}

/// The invoice, durable: the checkpointed one, or a new one that is checkpointed here.
async fn obtain(
    provider: &dyn InvoiceProvider,
    request: &InvoiceRequest,
    attempt: &Attempt,
) -> Result<(Bytes, Minted), End> {
    if let Some(saved) = attempt.last_checkpoint() {
        return decode_checkpoint(saved).ok_or_else(|| End::Unknown(RpcError::outcome_unknown().to_reason()));
    }
    let minted = provider.mint(request, attempt).await.map_err(|error| End::Definitive(error.to_reason()))?;
    let result = encode_result(&request.params, &minted.bolt11);
    if result.len() > RESULT_BYTES {
        return Err(End::Definitive(RpcError::reply_too_large().to_reason()));
    }
    match attempt.checkpoint(encode_checkpoint(&result, minted.expires_at), Some(minted.expires_at)).await {
        Ok(()) => Ok((result.into_bytes().into(), minted)),
        Err(error) if matches!(error.kind(), ErrorKind::TooLarge { .. }) => {
            Err(End::Definitive(RpcError::reply_too_large().to_reason()))
        }
        Err(_) => Err(End::Unknown(RpcError::outcome_unknown().to_reason())),
    }
}

/// The bytes of the `result` object, which are all that a record keeps of a reply.
fn encode_result(params: &InvoiceParams, bolt11: &str) -> String {
    format!(r#"{{"payment_hash":"{}","bolt11":{}}}"#, encode_hex32(&params.payment_hash), json_string(bolt11))
}

const CHECKPOINT_VERSION: u8 = 1;

/// Version byte, expiry in unix ms as 8 big-endian bytes, result.
fn encode_checkpoint(result: &str, expires_at: UnixMillis) -> Vec<u8> {
    [&[CHECKPOINT_VERSION][..], &expires_at.0.to_be_bytes(), result.as_bytes()].concat()
}

fn decode_checkpoint(bytes: &[u8]) -> Option<(Bytes, Minted)> {
    #[derive(Deserialize)]
    struct Answer {
        bolt11: String,
    }
    let (version, rest) = bytes.split_first()?;
    if *version != CHECKPOINT_VERSION {
        return None;
    }
    let (expires_at, result) = rest.split_first_chunk()?;
    let Answer { bolt11 } = serde_json::from_slice(result).ok()?;
    Some((result.into(), Minted { bolt11, expires_at: UnixMillis(u64::from_be_bytes(*expires_at)) }))
}

impl fmt::Debug for InvoiceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InvoiceRequest").field("lsp_node_id", &self.lsp_node_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minted").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_gives_back_the_bytes_of_the_result_and_the_expiry() {
        let result = r#"{"payment_hash":"5c","bolt11":"lnbcrt-1\"\u00e9"}"#;
        let saved = encode_checkpoint(result, UnixMillis(0x0102_0304));
        assert_eq!(saved, [b"\x01\0\0\0\0\x01\x02\x03\x04", result.as_bytes()].concat(), "the form is frozen");
        let (bytes, minted) = decode_checkpoint(&saved).unwrap();
        assert_eq!(&*bytes, result.as_bytes());
        assert_eq!(minted, Minted { bolt11: "lnbcrt-1\"é".into(), expires_at: UnixMillis(0x0102_0304) });
    }

    #[test]
    fn a_checkpoint_of_another_form_is_not_taken_for_an_invoice() {
        for saved in [&b""[..], b"\x01", b"\x01\0\0\0\0\0\0\0\0", b"\x02\0\0\0\0\0\0\0\0{\"bolt11\":\"x\"}"] {
            assert!(decode_checkpoint(saved).is_none());
        }
    }

    #[test]
    fn debug_shows_no_invoice() {
        let minted = Minted { bolt11: "canary".into(), expires_at: UnixMillis(1) };
        assert!(!format!("{minted:?}").contains("canary"));
    }
}
