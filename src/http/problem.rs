//! What the layer says when it refuses: RFC 9457 problem details, one code per reason.

use serde::Serialize;

use super::answer::Answer;
use crate::{Class, Status};

/// The `type` of a problem is this and its code, unless the host has pages of its own.
pub(super) const BASE: &str = "https://docs.rs/ibid/latest/ibid/http/problems/#";

/// A refusal of the layer's: nothing of it is stored, but for [`Problem::OutcomeUnknown`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    KeyMissing,
    /// With what is wrong.
    KeyInvalid(&'static str),
    NoPrincipal,
    Mismatch,
    Expired,
    InFlight(Status),
    /// With the status that the first client got, if it is known.
    AnswerNotKept(Option<u16>),
    RequestTooLarge,
    /// The engine holds as much as it may; `scope`: so does this principal, whatever the others do.
    Busy {
        scope: bool,
    },
    StoreUnavailable,
    InDoubt,
    OutcomeUnknown,
    Quarantined,
    /// The body broke off while it was read. Nobody may be there to hear it; it has no code of ours.
    BodyUnreadable,
}

/// The body, its members in this order.
#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_status: Option<u16>,
}

impl Problem {
    /// As an answer. A request of a key under another name (`mismatch`) has the profile's status.
    pub(super) fn answer(self, mismatch: u16, base: &str) -> Answer {
        let (status, title, detail) = self.words(mismatch);
        let kind = match self.code() {
            Some(code) => format!("{base}{code}"),
            None => "about:blank".to_owned(),
        };
        let (mut state, mut original_status) = (None, None);
        match self {
            Self::InFlight(status) => state = Some(status.name()),
            Self::InDoubt => state = Some(Status::InDoubt.name()),
            Self::AnswerNotKept(first) => original_status = first,
            _ => {}
        }
        let link = matches!(self, Self::KeyMissing).then(|| format!("<{kind}>; rel=\"describedby\""));
        let body = Body { r#type: kind, title, status, detail, code: self.code(), state, original_status };
        let mut answer = Answer::new(status).header("content-type", "application/problem+json");
        if let Some(seconds) = self.retry_after() {
            answer = answer.header("retry-after", seconds.to_string());
        }
        if let Some(link) = link {
            answer = answer.header("link", link);
        }
        answer.body(serde_json::to_vec(&body).unwrap_or_default())
    }

    pub(super) fn code(self) -> Option<&'static str> {
        Some(match self {
            Self::KeyMissing => "idempotency_key_missing",
            Self::KeyInvalid(_) => "idempotency_key_invalid",
            Self::NoPrincipal => "idempotency_no_principal",
            Self::Mismatch => "idempotency_mismatch",
            Self::Expired => "idempotency_expired",
            Self::InFlight(_) => "idempotency_in_flight",
            Self::AnswerNotKept(_) => "idempotency_answer_not_kept",
            Self::RequestTooLarge => "idempotency_request_too_large",
            Self::Busy { .. } => "idempotency_busy",
            Self::StoreUnavailable => "idempotency_store_unavailable",
            Self::InDoubt => "idempotency_in_doubt",
            Self::OutcomeUnknown => "idempotency_outcome_unknown",
            Self::Quarantined => "idempotency_quarantined",
            Self::BodyUnreadable => return None,
        })
    }

    /// What the client may conclude. Without a code it may conclude nothing.
    pub(super) fn class(self) -> Class {
        match self {
            Self::KeyMissing | Self::KeyInvalid(_) | Self::RequestTooLarge | Self::Busy { .. } => Class::Definitive,
            Self::Mismatch | Self::Expired => Class::Conflict,
            Self::InFlight(_) | Self::AnswerNotKept(_) => Class::Duplicate,
            Self::NoPrincipal
            | Self::StoreUnavailable
            | Self::InDoubt
            | Self::OutcomeUnknown
            | Self::Quarantined
            | Self::BodyUnreadable => Class::Ambiguous,
        }
    }

    /// Whole seconds, where the same request may fare better later.
    fn retry_after(self) -> Option<u32> {
        match self {
            Self::InFlight(_) | Self::Busy { .. } => Some(1),
            Self::StoreUnavailable | Self::InDoubt => Some(5),
            _ => None,
        }
    }

    fn words(self, mismatch: u16) -> (u16, &'static str, &'static str) {
        match self {
            Self::KeyMissing => (400, "Idempotency-Key is missing", "this operation needs an Idempotency-Key header"),
            Self::KeyInvalid(detail) => (400, "Idempotency-Key is invalid", detail),
            Self::NoPrincipal => (403, "Nobody is authenticated", "a key belongs to whoever is authenticated"),
            Self::Mismatch => {
                (mismatch, "Idempotency-Key is already used", "the key belongs to another request; take a new one")
            }
            Self::Expired => (mismatch, "Idempotency-Key has expired", "the key was used before; take a new one"),
            Self::InFlight(_) => {
                (409, "The request is in flight", "the first request under this key has not ended yet")
            }
            Self::AnswerNotKept(_) => {
                (409, "The answer was not kept", "the request was carried out, and its answer was too long to keep")
            }
            Self::RequestTooLarge => (413, "The request is too large", "the body is longer than this server takes"),
            Self::Busy { scope: true } => {
                (429, "Too many requests", "there are too many of yours; this one did not run")
            }
            Self::Busy { scope: false } => (503, "The server is busy", "the request did not run"),
            Self::StoreUnavailable => {
                (503, "The store is unavailable", "send the same request again, with the same key")
            }
            Self::InDoubt => {
                (503, "The outcome is in doubt", "an earlier try may have been carried out; nothing runs again")
            }
            Self::OutcomeUnknown => (500, "The outcome is unknown", "the request broke off and will not be run again"),
            Self::Quarantined => (500, "The record cannot be read", "what is stored under this key is damaged"),
            Self::BodyUnreadable => (400, "The body cannot be read", "the request broke off or was malformed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_have_their_order_and_a_missing_key_its_link() {
        let text = |problem: Problem| {
            let answer = problem.answer(409, "p#");
            (answer.status(), String::from_utf8(answer.body_bytes().to_vec()).unwrap())
        };
        assert_eq!(
            text(Problem::InFlight(Status::Registered)),
            (
                409,
                r#"{"type":"p#idempotency_in_flight","title":"The request is in flight","status":409,"detail":"the first request under this key has not ended yet","code":"idempotency_in_flight","state":"registered"}"#
                    .into()
            )
        );
        let (status, body) = text(Problem::AnswerNotKept(Some(201)));
        assert!(
            status == 409 && body.ends_with(r#""code":"idempotency_answer_not_kept","original_status":201}"#),
            "{body}"
        );
        assert!(text(Problem::BodyUnreadable).1.starts_with(r#"{"type":"about:blank","#));
        let missing = Problem::KeyMissing.answer(409, "p#");
        assert_eq!(missing.first(b"link"), Some(br#"<p#idempotency_key_missing>; rel="describedby""#.as_slice()));
        assert_eq!(missing.first(b"retry-after"), None);
        assert_eq!(Problem::Mismatch.answer(422, "").status(), 422);
    }

    #[test]
    fn whoever_may_come_back_is_told_when() {
        for problem in [Problem::InFlight(Status::Registered), Problem::Busy { scope: true }, Problem::InDoubt] {
            let answer = problem.answer(409, "");
            let seconds: u32 = std::str::from_utf8(answer.first(b"retry-after").unwrap()).unwrap().parse().unwrap();
            assert!(seconds >= 1);
        }
    }
}
