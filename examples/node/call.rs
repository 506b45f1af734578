//! A call of one of this node's own methods: its frame, its params, and the frame of its answer.

use ibid::lightning::request_invoice::ID_BYTES;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// One request. Its id is JSON text, to be echoed as it came.
pub(crate) struct Call {
    id: String,
    pub(crate) method: String,
    pub(crate) params: Params,
}

/// Named params. `null` equals absent, and a name that is not asked for does not matter.
#[derive(Default)]
pub(crate) struct Params(Map<String, Value>);

/// Which param is wrong, in words: -32602.
#[derive(Debug)]
pub(crate) struct InvalidParams(pub(crate) String);

const INVALID_PARAMS: i64 = -32602;

#[derive(Deserialize)]
struct Envelope<'a> {
    jsonrpc: String,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: String,
    params: Option<Value>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

impl Call {
    /// `None` for everything that is no sound request of a method that `knows`: that is answered as on a node without it.
    pub(crate) fn read(payload: &str, knows: impl Fn(&str) -> bool) -> Option<Self> {
        // A derived `Deserialize` would take a positional array as well.
        let envelope: Envelope<'_> =
            payload.trim_start().starts_with('{').then(|| serde_json::from_str(payload).ok())??;
        let id = envelope.id?.get();
        let is_request = envelope.jsonrpc == "2.0" && envelope.result.is_none() && envelope.error.is_none();
        if !is_request || id.len() > ID_BYTES || !knows(&envelope.method) {
            return None;
        }
        // Params that are no object name nothing, so whatever is needed is missing.
        let params = match envelope.params {
            Some(Value::Object(members)) => Params(members),
            _ => Params::default(),
        };
        Some(Self { id: id.into(), method: envelope.method, params })
    }

    pub(crate) fn answer(&self, answer: Result<Value, InvalidParams>) -> String {
        let id = &self.id;
        match answer {
            Ok(result) => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#),
            Err(InvalidParams(message)) => {
                let message = Value::from(message);
                let error = format!(r#"{{"code":{INVALID_PARAMS},"message":{message}}}"#);
                format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
            }
        }
    }
}

impl Params {
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn needed(&self, name: &str) -> Result<&Value, InvalidParams> {
        self.get(name).ok_or_else(|| InvalidParams(format!("{name} is missing")))
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, InvalidParams> {
        let text = |value: &'_ Value| value.as_str().is_none();
        match self.get(name) {
            Some(value) if text(value) => Err(InvalidParams(format!("{name} is not a string"))),
            value => Ok(value.and_then(Value::as_str)),
        }
    }

    pub(crate) fn needed_text(&self, name: &str) -> Result<&str, InvalidParams> {
        self.needed(name)?;
        Ok(self.text(name)?.unwrap_or_default())
    }

    /// A whole number from 0, also as a decimal string: not every peer's JSON has 64 bits.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, InvalidParams> {
        self.get(name).map(|value| number(name, value)).transpose()
    }
}

pub(crate) fn number(name: &str, value: &Value) -> Result<u64, InvalidParams> {
    let number = match value {
        Value::String(digits) => digits.parse().ok(),
        value => value.as_u64(),
    };
    number.ok_or_else(|| InvalidParams(format!("{name} is not a whole number of 64 bits, or one as a decimal string")))
}
