//! The refusals of section 3 of the rules: status, members and their order, Retry-After, and nothing of the key.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::Reply;

const BASE: &str = "https://docs.rs/ibid/latest/ibid/http/problems/#";

/// One row of the table: code, status, whether Retry-After is there, the member of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Code(&'static str, u16, bool, Option<&'static str>);

pub(crate) const MISSING: Code = Code("idempotency_key_missing", 400, false, None);
pub(crate) const INVALID: Code = Code("idempotency_key_invalid", 400, false, None);
pub(crate) const NO_PRINCIPAL: Code = Code("idempotency_no_principal", 403, false, None);
pub(crate) const MISMATCH: Code = Code("idempotency_mismatch", 409, false, None);
pub(crate) const EXPIRED: Code = Code("idempotency_expired", 409, false, None);
pub(crate) const MISMATCH_IETF: Code = Code("idempotency_mismatch", 422, false, None);
pub(crate) const EXPIRED_IETF: Code = Code("idempotency_expired", 422, false, None);
pub(crate) const IN_FLIGHT: Code = Code("idempotency_in_flight", 409, true, Some("state"));
pub(crate) const NOT_KEPT: Code = Code("idempotency_answer_not_kept", 409, false, Some("original_status"));
pub(crate) const TOO_LARGE: Code = Code("idempotency_request_too_large", 413, false, None);
pub(crate) const BUSY: Code = Code("idempotency_busy", 503, true, None);
pub(crate) const BUSY_SCOPE: Code = Code("idempotency_busy", 429, true, None);
pub(crate) const STORE: Code = Code("idempotency_store_unavailable", 503, true, None);
pub(crate) const IN_DOUBT: Code = Code("idempotency_in_doubt", 503, true, Some("state"));
pub(crate) const UNKNOWN: Code = Code("idempotency_outcome_unknown", 500, false, None);
pub(crate) const QUARANTINED: Code = Code("idempotency_quarantined", 500, false, None);

/// The members of a JSON object in their order.
pub(crate) struct Members(pub(crate) Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                to.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Members, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(InOrder)
    }
}

impl Members {
    pub(crate) fn of(json: &[u8]) -> Self {
        serde_json::from_slice(json).unwrap_or_else(|e| panic!("{e}: {}", json.escape_ascii()))
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }

    pub(crate) fn get(&self, name: &str) -> &Value {
        self.0.iter().find(|(other, _)| other == name).map_or(&Value::Null, |(_, value)| value)
    }
}

impl Reply {
    /// A refusal of the layer with this code, which is no replay.
    #[track_caller]
    pub(crate) fn refused(self, code: Code) -> Self {
        assert!(!self.is_replay(), "a refusal is no replay: {self:?}");
        self.problem(code)
    }

    /// A problem body with this code, replayed or not.
    #[track_caller]
    pub(crate) fn problem(self, Code(code, status, retried, own): Code) -> Self {
        assert_eq!(self.status, status, "{code}: {self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let members = Members::of(&self.body);
        let names: Vec<_> = ["type", "title", "status", "detail", "code"].into_iter().chain(own).collect();
        assert_eq!(members.names(), names, "{self:?}");
        assert_eq!(members.get("code"), code, "{self:?}");
        assert_eq!(members.get("type").as_str(), Some(format!("{BASE}{code}").as_str()));
        assert_eq!(members.get("status"), status);
        for prose in ["title", "detail"] {
            assert!(members.get(prose).as_str().is_some_and(|text| !text.is_empty()), "{prose}: {self:?}");
        }
        let wait = self.header("retry-after").map(|seconds| seconds.parse::<u64>().expect("whole seconds"));
        assert_eq!(wait.is_some(), retried, "Retry-After: {self:?}");
        assert!(wait.is_none_or(|seconds| seconds >= 1), "{self:?}");
        self
    }

    /// The problem's member `state`.
    pub(crate) fn state(&self) -> String {
        self.json()["state"].as_str().unwrap_or_else(|| panic!("a state: {self:?}")).to_owned()
    }

    /// The problem's member `original_status`.
    pub(crate) fn original_status(&self) -> u64 {
        self.json()["original_status"].as_u64().unwrap_or_else(|| panic!("a status: {self:?}"))
    }
}

impl Code {
    pub(crate) fn status(self) -> u16 {
        self.1
    }
}
