//! The envelope: one JSON-RPC 2.0 object per frame, read without trust and measured before it goes out.
//!
//! Reading never recurses: what is nested is only skipped over and kept as its own text, so an `id` is echoed byte for
//! byte.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::rpc_error::RpcError;

/// Bytes of payload that one custom message carries at most: BOLT 8's 65,535 less the type. LDK panics on a longer one,
/// or drops it.
pub const MAX_FRAME_BYTES: usize = 65_533;

/// Bytes of JSON text that an `id` may hold. (Ours: the id comes back in every reply.)
pub const ID_BYTES: usize = 255;

/// The id of a reply to something that had none.
pub(super) const NO_ID: &str = "null";

/// Bytes of a `result` that fits a frame whatever the retry's id is.
pub(super) const RESULT_BYTES: usize = MAX_FRAME_BYTES - ID_BYTES - r#"{"jsonrpc":"2.0","id":,"result":}"#.len();

/// A frame that was understood. Members are JSON text as it was received.
#[derive(PartialEq, Eq)]
pub(super) enum Incoming<'a> {
    /// It wants an answer under this id.
    Request { id: &'a str, method: String, params: Option<&'a str> },
    /// It is an answer itself.
    Response { id: &'a str, result: Option<&'a str>, error: Option<&'a str> },
    /// An answer that names nobody, or one that also claims to be a request.
    Ignored,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    jsonrpc: Option<String>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: Option<String>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// Checks 2 to 5 of the order of checks. A refusal is to be sent under [`NO_ID`].
pub(super) fn read(text: &str) -> Result<Incoming<'_>, RpcError> {
    let envelope = decode(text).ok_or_else(RpcError::parse_error)?;
    match envelope.jsonrpc.as_deref() {
        None => return Err(RpcError::parse_error()),
        Some("2.0") => {}
        Some(_) => return Err(RpcError::invalid_request()),
    }
    let [id, params, result, error] =
        [envelope.id, envelope.params, envelope.result, envelope.error].map(|member| member.map(RawValue::get));
    let answers = result.is_some() || error.is_some();
    match (id, envelope.method) {
        (_, Some(_)) | (None, None) if answers => Ok(Incoming::Ignored),
        (Some(id), None) if answers || params.is_none() => Ok(Incoming::Response { id, result, error }),
        (Some(id), Some(method)) if id.len() <= ID_BYTES => Ok(Incoming::Request { id, method, params }),
        _ => Err(RpcError::invalid_request()),
    }
}

/// `None` also for a positional array, which a derived `Deserialize` would take, and for a known member given twice.
fn decode(text: &str) -> Option<Envelope<'_>> {
    if text.contains('\0') || !text.trim_start().starts_with('{') {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// A reply with this `result`, a JSON text.
pub(super) fn result(id: &str, result: &str) -> String {
    measured(id, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#))
}

/// A reply with this error.
pub(super) fn error(id: &str, error: &RpcError) -> String {
    measured(id, error_text(id, error))
}

fn error_text(id: &str, error: &RpcError) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{}}}"#, error.to_json())
}

/// Nothing above the limit leaves; its replacement is short, since the id is.
fn measured(id: &str, frame: String) -> String {
    if frame.len() <= MAX_FRAME_BYTES { frame } else { error_text(id, &RpcError::reply_too_large()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> Option<i64> {
        read(text).err().map(|error| error.code())
    }

    #[test]
    fn what_is_not_the_envelope_is_a_parse_error() {
        for text in [
            "",
            "[1",
            "7",
            r#"["2.0",1,"m",{},null,null]"#,
            r#"{"id":1,"method":"x"}"#,
            r#"{"jsonrpc":null,"id":1,"method":"x"}"#,
            r#"{"jsonrpc":2,"id":1,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
            r#"{"jsonrpc":"2.0","id":1,"id":1,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":1,"\u0069d":1,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":null,"id":1,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x"} {}"#,
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\"}\0",
            "{\"jsonrpc\":\"2.0\",\"id\":\"\0\",\"method\":\"x\"}",
        ] {
            assert_eq!(refusal(text), Some(-32700), "{text}");
        }
    }

    #[test]
    fn another_version_no_method_no_id_or_a_long_id_is_an_invalid_request() {
        let long = format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"x"}}"#, "a".repeat(ID_BYTES - 1));
        for text in [
            r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#,
            r#"{"jsonrpc":"1.0","id":1,"result":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"params":{}}"#,
            r#"{"jsonrpc":"2.0","method":"x","params":{}}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#,
            r#"{"jsonrpc":"2.0"}"#,
            &long,
        ] {
            assert_eq!(refusal(text), Some(-32600), "{text}");
        }
        let longest = long.replacen('a', "", 1);
        assert!(matches!(read(&longest), Ok(Incoming::Request { id, .. }) if id.len() == ID_BYTES));
    }

    #[test]
    fn a_response_is_never_a_request() {
        let id = "\"a\"";
        let bare = Incoming::Response { id, result: None, error: None };
        assert!(read(r#"{"jsonrpc":"2.0","id":"a"}"#) == Ok(bare));
        let result = Incoming::Response { id, result: Some("[1, 2]"), error: None };
        assert!(read(r#"{"jsonrpc":"2.0","id":"a","result": [1, 2] ,"params":1}"#) == Ok(result));
        let error = Incoming::Response { id, result: None, error: Some("{}") };
        assert!(read(r#"{"jsonrpc":"2.0","id":"a","error":{},"result":null}"#) == Ok(error));
        for text in [
            r#"{"jsonrpc":"2.0","id":"a","error":{},"method":"x","params":{}}"#,
            r#"{"jsonrpc":"2.0","method":"x","result":0}"#,
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600}}"#,
        ] {
            assert!(read(text) == Ok(Incoming::Ignored), "{text}");
        }
    }

    #[test]
    fn null_equals_absent_and_unknown_members_are_ignored() {
        let text = r#"{"jsonrpc":"2.0","id":0,"method":"m","params":null,"result":null,"error":null,"x":1,"x":[]}"#;
        assert!(read(text) == Ok(Incoming::Request { id: "0", method: "m".into(), params: None }));
    }

    #[test]
    fn an_id_of_any_kind_is_echoed_byte_for_byte() {
        for id in ["7", "-0", "1.50", "1e999", "true", "\"\"", r#""\u00e9\ud800""#, "[1,  [null]]", "{ \"a\" : {} }"] {
            let text = format!(r#"{{"jsonrpc":"2.0","id": {id} ,"method":"m"}}"#);
            let Ok(Incoming::Request { id: seen, .. }) = read(&text) else { unreachable!("{id}") };
            assert_eq!(seen, id);
            assert_eq!(result(seen, "{}"), format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#));
        }
    }

    #[test]
    fn deep_nesting_needs_no_stack() {
        let depth = 32_000;
        let nest = "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(refusal(&nest), Some(-32700));
        assert_eq!(refusal(&"{\"a\":".repeat(13_000)), Some(-32700));
        assert_eq!(refusal(&format!(r#"{{"jsonrpc":"2.0","id":{nest},"method":"m"}}"#)), Some(-32600));
        for member in ["x", "params", "result"] {
            assert!(read(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","{member}":{nest}}}"#)).is_ok());
        }
    }

    #[test]
    fn a_frame_above_the_limit_is_replaced_by_a_short_error() {
        let id = format!("\"{}\"", "i".repeat(ID_BYTES - 2));
        let fits = "r".repeat(RESULT_BYTES);
        assert_eq!(result(&id, &fits).len(), MAX_FRAME_BYTES);
        let too_large = error(&id, &RpcError::reply_too_large());
        assert!(too_large.contains(&id) && too_large.contains("async_order_reply_too_large"));
        assert_eq!(result(&id, &format!("{fits}r")), too_large);
        assert_eq!(error(&id, &RpcError::new(1, "e".repeat(MAX_FRAME_BYTES))), too_large);
    }
}
