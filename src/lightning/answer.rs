//! A JSON-RPC response of somebody else's, read for what it means.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::class::{Answer, Detail, Evidence, JsonRpcDialect, JsonRpcError};

/// What of a response says how the request fared; null equals absent.
#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ErrorMember<'a> {
    code: i64,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    ibid: Option<&'a RawValue>,
}

/// Reads the text of one JSON-RPC response, for [`classify`](crate::class::classify).
///
/// It is [`Answer::Lost`] unless it is an object with either a `result` or an `error`, and the error an object with an
/// integer for a code; null equals absent, and one member twice is unreadable. To match the response to its request, by
/// `id`, is the caller's business.
#[must_use]
pub fn json_rpc_answer(dialect: JsonRpcDialect, response: &str) -> Answer<'static> {
    let Some(Response { result, error }) = object(response) else { return Answer::Lost };
    match (result, error) {
        (Some(_), None) => Answer::JsonRpc { dialect, error: None },
        (None, Some(error)) => match object(error.get()) {
            Some(ErrorMember { code, data }) => {
                let evidence = data.map_or(Evidence::Missing, evidence);
                Answer::JsonRpc { dialect, error: Some(JsonRpcError { code, evidence }) }
            }
            None => Answer::Lost,
        },
        (Some(_), Some(_)) | (None, None) => Answer::Lost,
    }
}

/// What `data` says. Data of another form is somebody else's; an object that does not decode may have been ours.
fn evidence(data: &RawValue) -> Evidence {
    if !data.get().starts_with('{') {
        return Evidence::Missing;
    }
    match object(data.get()) {
        Some(Data { ibid: None }) => Evidence::Missing,
        Some(Data { ibid: Some(detail) }) => {
            object::<Detail>(detail.get()).map_or(Evidence::Unreadable, |detail| Evidence::Ours(detail.class))
        }
        None => Evidence::Unreadable,
    }
}

/// A JSON object. A derived `Deserialize` would take a positional array as well.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    if text.trim_start().starts_with('{') { serde_json::from_str(text).ok() } else { None }
}
