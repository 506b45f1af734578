//! System 1, `async_order.request_invoice`: a retried request gets the invoice it already got.
//!
//! The order of checks is fixed. What is wrong with a frame is answered at once and burns no key; a record answers even
//! while no provider is there; only what has to start needs one.
//!
//! ```text
//! 1 peer not allowed                       silence
//! 2 not text, or not the envelope          NotText, -32700
//! 3 another version                        -32600
//! 4 a response                             handed to the host, never answered
//! 5 no method, no id, a long id            -32600       (from here on with the id)
//! 6 another method, no params              -32601, -32602
//! 7 shape of the params                    -32602
//! 8 canonical forms                        -32602
//! 9 the record, if there is one            replay, join, stale_flow
//! 10 no provider, expiry, busy             -32603, nothing registered
//! 11 registered; runs; recorded; reply
//! ```

mod frame;
#[cfg(feature = "testing")]
pub(crate) mod fuzz;
mod params;
mod provider;
mod rpc_error;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

pub use frame::{ID_BYTES, MAX_FRAME_BYTES};
pub use params::{InvoiceParams, WireParams};
pub use provider::{BlockingInvoiceProvider, InvoiceProvider, InvoiceRequest, Minted, Providing};
pub use rpc_error::{RpcError, rpc_error};

use crate::{AfterCheckpoint, Bytes, Call, End, Engine, Error, Flow, NodeId, Operation, Reply};
use frame::Incoming;

/// The flow's name, part of every key: `Flow::new(FLOW_NAME, Policy::request_invoice())`.
pub const FLOW_NAME: &str = "async_order.request_invoice";

/// The type number of the custom message that carries a frame. The payload is the frame's text, with no length before
/// it. (rgb-lightning-node)
pub const MESSAGE_TYPE: u16 = 37915;

/// The one method that is answered.
pub const METHOD: &str = "async_order.request_invoice";

/// How long a caller waits unless told otherwise. (The peer forgets its id after the same 30 s.)
pub const WAIT: Duration = Duration::from_secs(30);

/// The handler that a node owns for `async_order.request_invoice`.
///
/// One for the life of the node, cheap to clone; a clone has the same provider, also if that is set later. Requests may be handed
/// over from several threads at once. It remembers no peer and no request: what lasts is in the engine's store.
#[derive(Clone)]
pub struct RequestInvoice {
    engine: Engine,
    flow: Flow,
    wait: Duration,
    allowed: Arc<dyn Fn(&NodeId) -> bool + Send + Sync>,
    /// Set and unset while requests come in; a run keeps the one it started with.
    provider: Arc<RwLock<Option<Arc<dyn InvoiceProvider>>>>,
}

/// What became of a frame.
#[must_use]
#[derive(Clone, PartialEq, Eq)]
pub enum Handled {
    /// It was admitted. The callback runs exactly once, later and on another stack, with the frame to send.
    Pending,
    /// Send this frame. The callback was dropped.
    Reply(String),
    /// There is nothing to send and nothing to do. The callback was dropped.
    Ignored,
    /// The peer answers something that the host may have asked. It completes whatever waits for `id`, if anything, and
    /// is never replied to. All three are JSON text as received.
    Response {
        /// The id, not `null`.
        id: String,
        /// `result`, unless absent or `null`.
        result: Option<String>,
        /// `error`, unless absent or `null`.
        error: Option<String>,
    },
    /// The payload is not UTF-8. LDK fails such a message while decoding it, which disconnects the peer; do the same.
    NotText,
}

/// A request that passed every check that needs no record.
struct Asked {
    /// JSON text, at most [`frame::ID_BYTES`].
    id: String,
    session_id: String,
    params: InvoiceParams,
}

impl RequestInvoice {
    /// A handler without a provider, for any peer, with a wait of [`WAIT`].
    ///
    /// `flow` holds the policy: start from [`Policy::request_invoice`](crate::Policy::request_invoice) and set `grace`
    /// and `after_expiry` as the node likes. Its name belongs to every key, so keep it; [`FLOW_NAME`] is the usual one.
    /// The flow always gets [`AfterCheckpoint::Doubt`]: an error after the checkpoint can only come from an outside
    /// ledger, whose row may have been written.
    #[must_use]
    pub fn new(engine: Engine, flow: Flow) -> Self {
        let policy = flow.policy().clone().after_checkpoint(AfterCheckpoint::Doubt);
        // A name that was accepted once is accepted again.
        let flow = Flow::new(flow.name(), policy).unwrap_or(flow);
        Self { engine, flow, wait: WAIT, allowed: Arc::new(|_| true), provider: Arc::default() }
    }

    /// Sets how long a caller waits before it is told *outcome unknown*. The run goes on and is recorded.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Lets in only those peers for which `allowed` says so (upstream: those with a live channel). Another one gets
    /// silence: no reply, no record, no memory. `allowed` is called for each frame, on the caller's stack, and must not
    /// block.
    #[must_use]
    pub fn allow(mut self, allowed: impl Fn(&NodeId) -> bool + Send + Sync + 'static) -> Self {
        self.allowed = Arc::new(allowed);
        self
    }

    /// Sets the provider, or unsets it. A record is replayed without one; what would have to run is refused with
    /// [`RpcError::provider_not_available`], and nothing is registered. A run in flight keeps its own.
    pub fn set_provider(&self, provider: Option<Arc<dyn InvoiceProvider>>) {
        let before = {
            let mut slot = self.provider.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *slot, provider)
        };
        drop(before); // Outside the lock: it may be the last handle, and its drop is the host's code.
    }

    /// Takes the payload of one custom message of type [`MESSAGE_TYPE`] from the authenticated peer.
    ///
    /// Never blocks and takes no lock of the host's, so it may be called from LDK's `handle_custom_message`. Only after
    /// [`Handled::Pending`] does `reply` run, exactly once and never on this stack: push the frame to the host's own
    /// queue there and wake the peer manager. A frame holds at most [`MAX_FRAME_BYTES`].
    /// Nothing depends on its delivery: the peer's retry is replayed.
    pub fn handle(&self, from: NodeId, payload: &[u8], reply: impl FnOnce(String) + Send + 'static) -> Handled {
        if !(self.allowed)(&from) {
            return Handled::Ignored;
        }
        let Asked { id, session_id, params } = match ask(payload) {
            Ok(asked) => asked,
            Err(handled) => return handled,
        };
        let pending_id = id.clone();
        let submitted = self.try_request(from, session_id, params, move |done| reply(reply_frame(&pending_id, done)));
        match submitted {
            Ok(()) => Handled::Pending,
            Err(error) => Handled::Reply(frame::error(&id, &error)),
        }
    }

    /// The same without the wire: `session_id` (1 to 255 bytes) comes from wherever the host's own protocol has it.
    /// Never blocks. After `Ok`, `on_done` runs exactly once and never on this stack, with the bytes of the `result`
    /// object; after `Err` it never runs.
    ///
    /// # Errors
    /// [`RpcError::invalid_claim_session_id`], [`RpcError::busy`], or [`RpcError::outcome_unknown`] if the engine is
    /// closed. Nothing was registered. `on_done` gets those of [`RequestInvoice::request`].
    pub fn try_request(
        &self,
        from: NodeId,
        session_id: impl AsRef<[u8]>,
        params: InvoiceParams,
        on_done: impl FnOnce(Result<Bytes, RpcError>) + Send + 'static,
    ) -> Result<(), RpcError> {
        let (call, operation) = self.call(from, session_id.as_ref(), params)?;
        self.engine.try_submit(call, operation, |done| on_done(answer(done))).map_err(|error| rpc_error(&error))
    }

    /// As [`RequestInvoice::try_request`], for async callers: the bytes of the `result` object, the same for every
    /// identical request while the record lives. It waits as long as [`wait`](Self::wait) says.
    ///
    /// Cancel safety: dropping the future takes back the wait. The operation goes on and its answer is recorded.
    ///
    /// # Errors
    /// Those of [`rpc_error`], and the provider's own, verbatim.
    pub async fn request(
        &self,
        from: NodeId,
        session_id: impl AsRef<[u8]>,
        params: InvoiceParams,
    ) -> Result<Bytes, RpcError> {
        let (call, operation) = self.call(from, session_id.as_ref(), params)?;
        answer(self.engine.submit(call, operation).await)
    }

    fn call(&self, from: NodeId, session_id: &[u8], params: InvoiceParams) -> Result<(Call, Operation), RpcError> {
        let key = self.flow.key(from, session_id).map_err(|invalid| rpc_error(&invalid.into()))?;
        let call = Call::new(&self.flow, &key, params.canonical().into_bytes())
            .retention(Duration::from_secs(params.invoice_expiry_sec.into()))
            .deadline(self.wait);
        let provider = self.provider.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(provider) = provider else {
            let reason = RpcError::provider_not_available().to_reason();
            let never = Operation::new({
                let reason = reason.clone();
                |_| std::future::ready(End::Definitive(reason))
            });
            return Ok((call.barred(reason), never));
        };
        let request = InvoiceRequest { lsp_node_id: from, session_id: session_id.into(), params };
        let engine = self.engine.clone();
        Ok((call, Operation::new(move |attempt| provider::run(engine, provider, request, attempt))))
    }
}

/// Checks 2 to 8, pure: what is asked, or what became of the frame.
fn ask(payload: &[u8]) -> Result<Asked, Handled> {
    let text = std::str::from_utf8(payload).map_err(|_| Handled::NotText)?;
    let incoming = frame::read(text).map_err(|error| Handled::Reply(frame::error(frame::NO_ID, &error)))?;
    let (id, method, params) = match incoming {
        Incoming::Request { id, method, params } => (id, method, params),
        Incoming::Response { id, result, error } => {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            return Err(Handled::Response { id: id.into(), result: owned(result), error: owned(error) });
        }
        Incoming::Ignored => return Err(Handled::Ignored),
    };
    let wire = wire_params(&method, params).map_err(|error| Handled::Reply(frame::error(id, &error)))?;
    Ok(Asked { id: id.into(), session_id: wire.session_id(), params: wire.params })
}

/// Checks 6 to 8.
fn wire_params(method: &str, params: Option<&str>) -> Result<WireParams, RpcError> {
    if method != METHOD {
        return Err(RpcError::method_not_found());
    }
    WireParams::parse(params.ok_or_else(RpcError::missing_params)?)
}

fn answer(done: Result<Reply, Error>) -> Result<Bytes, RpcError> {
    match done {
        Ok(Reply::Answer(outcome)) => Ok(outcome.answer),
        Ok(Reply::Accepted) => Err(RpcError::outcome_unknown()),
        Err(error) => Err(rpc_error(&error)),
    }
}

/// The envelope of this try around bytes that are the same for all of them.
fn reply_frame(id: &str, done: Result<Bytes, RpcError>) -> String {
    let answer = match done {
        Ok(answer) => answer,
        Err(error) => return frame::error(id, &error),
    };
    match std::str::from_utf8(&answer) {
        Ok(result) => frame::result(id, result),
        Err(_) => frame::error(id, &RpcError::outcome_unknown()),
    }
}

impl fmt::Debug for RequestInvoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestInvoice").field("flow", &self.flow).field("wait", &self.wait).finish_non_exhaustive()
    }
}

/// Which one, and how long; never what is in it.
impl fmt::Debug for Handled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("Pending"),
            Self::Reply(frame) => write!(f, "Reply({} bytes)", frame.len()),
            Self::Ignored => f.write_str("Ignored"),
            Self::Response { .. } => f.write_str("Response(..)"),
            Self::NotText => f.write_str("NotText"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const B: &str = concat!(
        r#"{"hash_index":"7","payment_hash":"5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c","#,
        r#""amount_msat":5000000,"#,
        r#""description_hash":"e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1","#,
        r#""invoice_expiry_sec":600,"min_final_cltv_expiry_delta":30}"#
    );

    fn request(id: &str, params: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{METHOD}","params":{params}}}"#)
    }

    fn refused(payload: &[u8]) -> String {
        match ask(payload) {
            Err(Handled::Reply(frame)) => frame,
            Err(other) => format!("{other:?}"),
            Ok(_) => "asked".into(),
        }
    }

    fn error(id: &str, code: i64, message: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{message}"}}}}"#)
    }

    #[test]
    fn a_well_formed_request_is_asked_under_its_payment_hash_or_its_session() {
        let asked = ask(request("[7]", B).as_bytes()).unwrap_or_else(|_| unreachable!());
        assert_eq!((asked.id.as_str(), asked.session_id), ("[7]", "5c".repeat(32)));
        let with_session = B.replacen('{', r#"{"claim_session_id":"s","#, 1);
        let in_session = ask(request("7", &with_session).as_bytes()).unwrap_or_else(|_| unreachable!());
        assert_eq!((in_session.session_id.as_str(), in_session.params), ("s", asked.params));
    }

    #[test]
    fn the_envelope_is_checked_first_and_answered_without_an_id() {
        let table = [
            ("[1", -32700, "parse error"),
            (r#"{"id":1,"method":"x"}"#, -32700, "parse error"),
            (r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#, -32600, "invalid request"),
            (r#"{"jsonrpc":"2.0","id":1,"params":{}}"#, -32600, "invalid request"),
        ];
        for (text, code, message) in table {
            assert_eq!(refused(text.as_bytes()), error("null", code, message), "{text}");
        }
    }

    #[test]
    fn method_params_shape_and_forms_follow_in_this_order_with_the_id() {
        let nope = r#"{"jsonrpc":"2.0","id":"n","method":"async_order.nope"}"#;
        assert_eq!(refused(nope.as_bytes()), error("\"n\"", -32601, "method not found"));
        for params in ["", r#","params":null"#] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":{{}},"method":"{METHOD}"{params}}}"#);
            assert_eq!(refused(text.as_bytes()), error("{}", -32602, "missing params"));
        }
        let all_wrong = B.replace("\"7\"", "\"\"").replace("5c5c", "5c").replace("e1e1", "zz");
        assert_eq!(refused(request("1", &all_wrong).as_bytes()), error("1", -32602, "invalid_hash_index"));
        let misshapen = all_wrong.replace("5000000", "\"5000000\"");
        assert_eq!(refused(request("1", &misshapen).as_bytes()), error("1", -32602, "invalid_request_invoice_params"));
    }

    #[test]
    fn a_response_goes_to_the_host_and_one_that_is_also_a_request_nowhere() {
        let bare = Handled::Response { id: "\"a\"".into(), result: None, error: None };
        assert!(ask(br#"{"jsonrpc":"2.0","id":"a"}"#).is_err_and(|handled| handled == bare));
        let both = request("1", B).replacen('{', r#"{"error":{"code":1},"#, 1);
        assert!(ask(both.as_bytes()).is_err_and(|handled| handled == Handled::Ignored));
    }

    #[test]
    fn bytes_that_are_not_text_are_told_apart_from_text_that_is_not_json() {
        assert!(ask(b"\xff{}").is_err_and(|handled| handled == Handled::NotText));
        assert_eq!(refused(b"\0"), error("null", -32700, "parse error"));
    }

    #[test]
    fn a_result_that_is_not_text_or_an_error_that_fits_no_frame_still_gets_a_reply() {
        assert!(reply_frame("1", Ok([0xff].into())).contains("async_order_outcome_unknown"));
        let long = RpcError::new(1, "m".repeat(MAX_FRAME_BYTES));
        assert_eq!(reply_frame("1", Err(long)), error("1", -32603, "async_order_reply_too_large"));
    }

    #[test]
    fn debug_of_what_became_of_a_frame_shows_none_of_it() {
        let response = Handled::Response { id: "canary".into(), result: Some("canary".into()), error: None };
        assert!(!format!("{response:?} {:?}", Handled::Reply("canary".into())).contains("canary"));
    }

    /// A frame with some of its bytes replaced: near misses reach further than noise.
    fn nearly_a_request() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4).prop_map(|changes| {
            let mut payload = request("\"id\"", B).into_bytes();
            for (index, byte) in changes {
                let at = index.index(payload.len());
                payload[at] = byte;
            }
            payload
        })
    }

    proptest! {
        #[test]
        fn no_payload_panics_and_every_refusal_fits_a_frame(
            payload in prop_oneof![prop::collection::vec(any::<u8>(), 0..300), nearly_a_request()],
        ) {
            if let Err(Handled::Reply(frame)) = ask(&payload) {
                prop_assert!(frame.len() <= MAX_FRAME_BYTES);
                prop_assert!(serde_json::from_str::<serde_json::Value>(&frame).is_ok());
            }
        }

        #[test]
        fn a_full_frame_of_one_repeated_piece_does_not_panic(piece in "[\\[{\"\\\\:,0-9a-z}\\] ]{1,6}") {
            let payload: String = piece.chars().cycle().take(MAX_FRAME_BYTES).collect();
            prop_assert!(ask(payload.as_bytes()).is_err());
        }
    }
}
