//! What an answer from elsewhere means: every answer of every protocol has one class, and what a server built on ibid sends
//! in its place.
//!
//! A client that talks to a server over gRPC, JSON-RPC or HTTP hands what came back to [`classify`]. The *detail* decides:
//! a server built on ibid sends a [`Detail`] with every error, lnd one of its own. Without one only a known dialect gives a
//! code a meaning, and whatever nobody has classified is [`Class::Ambiguous`]: the same request, the same key, again.
//!
//! | answer | meaning |
//! |---|---|
//! | gRPC 0, a JSON-RPC result, HTTP 2xx | success |
//! | gRPC, our detail | its class |
//! | gRPC, lnd's detail | definite: Definitive; indefinite: Ambiguous |
//! | gRPC, a detail that cannot be read | Ambiguous |
//! | gRPC, none, lnd | 6: Duplicate; 3, 9: Definitive; any other number: Ambiguous |
//! | gRPC, none, unknown server | Ambiguous |
//! | JSON-RPC, `error.data.ibid` | its class; Ambiguous if it cannot be read |
//! | JSON-RPC, none, Core Lightning | 200, 219: Duplicate; 201: Conflict; any other: Ambiguous |
//! | JSON-RPC, none, `async_order` | 1105: Conflict; any other: Ambiguous |
//! | JSON-RPC, none, unknown server | Ambiguous |
//! | HTTP, not 2xx | what the problem's `code` says; Ambiguous without a known one |
//! | none: closed mailbox, dropped reply, timed-out wait, any connection error | Ambiguous |
//!
//! The other direction is [`grpc_code`] and [`Detail::of`]. No protocol's library is needed here: a gRPC server puts the JSON
//! text of the detail into its status's details, a JSON-RPC server puts the object into `error.data.ibid`.
//!
//! ```
//! use ibid::class::{Answer, Evidence, GrpcDialect, classify};
//! use ibid::Class;
//!
//! // lnd says UNAVAILABLE: it may have sent the onion, so the attempt id must not change.
//! let answer = Answer::Grpc { dialect: GrpcDialect::Lnd, code: 14, evidence: Evidence::Missing };
//! assert_eq!(classify(answer), Err(Class::Ambiguous));
//! ```

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Class, Error, ErrorKind};
use crate::key::{decode_hex, encode_hex};
use crate::record::{Bytes, Status};

/// The gRPC status codes that ibid gives a meaning to or sends. (gRPC's `code.proto`)
pub mod grpc {
    /// Success.
    pub const OK: i32 = 0;
    /// *Definitive*: the request cannot be accepted as it is, whatever the time.
    pub const INVALID_ARGUMENT: i32 = 3;
    /// *Ambiguous*: a wait that ibid itself gave up.
    pub const DEADLINE_EXCEEDED: i32 = 4;
    /// *Ambiguous*: no record. It proves nothing.
    pub const NOT_FOUND: i32 = 5;
    /// *Duplicate*.
    pub const ALREADY_EXISTS: i32 = 6;
    /// A bound was met: *Definitive* or *Ambiguous*, which only the detail tells.
    pub const RESOURCE_EXHAUSTED: i32 = 8;
    /// *Conflict*, and *Definitive* for a request that was fine in itself.
    pub const FAILED_PRECONDITION: i32 = 9;
    /// *Ambiguous*.
    pub const UNAVAILABLE: i32 = 14;
    /// *Ambiguous*, and retrying will not help.
    pub const DATA_LOSS: i32 = 15;
}

/// The code that means *stale flow* in the `async_order` dialect. (rgb-lightning-node)
const STALE_FLOW: i64 = 1105;

/// What came back, in the terms of its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// A gRPC status.
    Grpc {
        /// Whose meaning of the codes.
        dialect: GrpcDialect,
        /// The status code, any number.
        code: i32,
        /// What its details say.
        evidence: Evidence,
    },
    /// A JSON-RPC response with an `error` or a `result`. One with both or neither is [`Answer::Lost`].
    JsonRpc {
        /// Whose meaning of the codes.
        dialect: JsonRpcDialect,
        /// `None`: a result.
        error: Option<JsonRpcError>,
    },
    /// An HTTP response.
    Http {
        /// The status.
        status: u16,
        /// The member `code` of an `application/problem+json` body, if there is one.
        problem: Option<&'a str>,
    },
    /// No answer, or none that can be read: a closed mailbox, a dropped reply, a wait that timed out, any connection error,
    /// even one before the first byte went out. It proves nothing about an earlier send.
    Lost,
}

/// The `error` of a JSON-RPC response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonRpcError {
    /// The code.
    pub code: i64,
    /// What `data.ibid` says.
    pub evidence: Evidence,
}

/// Who gives a gRPC code its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GrpcDialect {
    /// lnd's `SendOnion`. (lnd PR 10545)
    Lnd,
    /// Nobody that we know.
    Unknown,
}

/// Who gives a JSON-RPC code its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JsonRpcDialect {
    /// Core Lightning's payment commands: 200 pay in progress, 201 hash already used, 219 already paid.
    CoreLightning,
    /// `async_order.request_invoice`: 1105 stale flow.
    AsyncOrder,
    /// Nobody that we know.
    Unknown,
}

/// What the details of an error say, apart from its code.
///
/// Bytes where a detail should be that do not decode are [`Evidence::Unreadable`], never [`Evidence::Missing`]: a code alone
/// must not decide where somebody said more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// The error has no detail.
    Missing,
    /// A [`Detail`] of ours, with this class.
    Ours(Class),
    /// lnd's definite failure, also when empty inside. (lnd PR 10545)
    LndDefinite,
    /// lnd's indefinite failure, whatever its reason. (lnd PR 10545)
    LndIndefinite,
    /// A detail that does not decode, of an unknown version or without a known class, or lnd's that is neither.
    Unreadable,
}

impl Evidence {
    /// The class that it proves, if there is any.
    fn class(self) -> Option<Class> {
        match self {
            Self::Missing => None,
            Self::Ours(class) => Some(class),
            Self::LndDefinite => Some(Class::Definitive),
            Self::LndIndefinite | Self::Unreadable => Some(Class::Ambiguous),
        }
    }
}

/// What came of reading a [`Detail`] that was there: `Evidence::from(serde_json::from_slice::<Detail>(bytes))`.
impl<E> From<Result<Detail, E>> for Evidence {
    fn from(read: Result<Detail, E>) -> Self {
        read.map_or(Self::Unreadable, |detail| Self::Ours(detail.class))
    }
}

/// What an answer means: the one table of every protocol, see the [module](self). Total and pure.
///
/// A success is one whatever its details say: details belong to errors.
///
/// # Errors
/// The class of every answer that is no success.
pub fn classify(answer: Answer<'_>) -> Result<(), Class> {
    match answer {
        Answer::Grpc { code: grpc::OK, .. }
        | Answer::JsonRpc { error: None, .. }
        | Answer::Http { status: 200..=299, .. } => Ok(()),
        Answer::Grpc { dialect, code, evidence } => Err(evidence.class().unwrap_or_else(|| of_grpc(dialect, code))),
        Answer::JsonRpc { dialect, error: Some(JsonRpcError { code, evidence }) } => {
            Err(evidence.class().unwrap_or_else(|| of_json_rpc(dialect, code)))
        }
        Answer::Http { problem, .. } => Err(problem.map_or(Class::Ambiguous, of_problem)),
        Answer::Lost => Err(Class::Ambiguous),
    }
}

fn of_grpc(dialect: GrpcDialect, code: i32) -> Class {
    match dialect {
        GrpcDialect::Lnd => match code {
            grpc::ALREADY_EXISTS => Class::Duplicate,
            grpc::INVALID_ARGUMENT | grpc::FAILED_PRECONDITION => Class::Definitive,
            _ => Class::Ambiguous,
        },
        GrpcDialect::Unknown => Class::Ambiguous,
    }
}

fn of_json_rpc(dialect: JsonRpcDialect, code: i64) -> Class {
    match dialect {
        JsonRpcDialect::CoreLightning => match code {
            200 | 219 => Class::Duplicate,
            201 => Class::Conflict,
            _ => Class::Ambiguous,
        },
        JsonRpcDialect::AsyncOrder => match code {
            STALE_FLOW => Class::Conflict,
            _ => Class::Ambiguous,
        },
        JsonRpcDialect::Unknown => Class::Ambiguous,
    }
}

/// The `code` of a problem body of ours.
fn of_problem(code: &str) -> Class {
    match code {
        "idempotency_in_flight" | "idempotency_answer_not_kept" => Class::Duplicate,
        "idempotency_mismatch" | "idempotency_expired" => Class::Conflict,
        "idempotency_key_missing"
        | "idempotency_key_invalid"
        | "idempotency_request_too_large"
        | "idempotency_busy" => Class::Definitive,
        // Among them, of ours: no_principal (an earlier send may have run), store_unavailable, in_doubt, outcome_unknown
        // and quarantined.
        _ => Class::Ambiguous,
    }
}

/// The gRPC status code with which a server built on ibid tells this kind of error, beside its [`Detail`].
///
/// A client of lnd's dialect that does not know the detail concludes from the code alone what is safe: a key that belongs
/// to another request is not ALREADY_EXISTS, since it would take the other payment for its own.
#[must_use]
pub fn grpc_code(kind: &ErrorKind) -> i32 {
    told(kind).0
}

/// How each kind is told: the gRPC code, and the name of the cause in the detail.
fn told(kind: &ErrorKind) -> (i32, &'static str) {
    match kind {
        ErrorKind::Mismatch => (grpc::FAILED_PRECONDITION, "mismatch"),
        ErrorKind::Expired => (grpc::FAILED_PRECONDITION, "expired"),
        ErrorKind::Duplicate(_) => (grpc::ALREADY_EXISTS, "duplicate"),
        ErrorKind::AnswerNotKept => (grpc::ALREADY_EXISTS, "answer_not_kept"),
        ErrorKind::Failed(_) => (grpc::FAILED_PRECONDITION, "failed"),
        ErrorKind::Fenced => (grpc::FAILED_PRECONDITION, "fenced"),
        ErrorKind::RetentionOverflow => (grpc::INVALID_ARGUMENT, "retention_overflow"),
        ErrorKind::RetentionMissing => (grpc::INVALID_ARGUMENT, "retention_missing"),
        ErrorKind::TooLarge { .. } => (grpc::INVALID_ARGUMENT, "too_large"),
        ErrorKind::QuotaExceeded => (grpc::RESOURCE_EXHAUSTED, "quota_exceeded"),
        ErrorKind::Busy { .. } => (grpc::RESOURCE_EXHAUSTED, "busy"),
        ErrorKind::InDoubt(_) => (grpc::UNAVAILABLE, "in_doubt"),
        ErrorKind::RecoveriesExhausted => (grpc::UNAVAILABLE, "recoveries_exhausted"),
        ErrorKind::Quarantined => (grpc::DATA_LOSS, QUARANTINED),
        ErrorKind::Store => (grpc::UNAVAILABLE, "store"),
        ErrorKind::Closed => (grpc::UNAVAILABLE, "closed"),
        ErrorKind::Deadline => (grpc::DEADLINE_EXCEEDED, "deadline"),
        ErrorKind::Internal => (grpc::UNAVAILABLE, "internal"),
        ErrorKind::NotFound => (grpc::NOT_FOUND, "not_found"),
        ErrorKind::InvalidKey(_) => (grpc::INVALID_ARGUMENT, "invalid_key"),
        ErrorKind::Encode => (grpc::INVALID_ARGUMENT, "encode"),
        ErrorKind::Decode => (grpc::ALREADY_EXISTS, "decode"),
    }
}

const QUARANTINED: &str = "quarantined";

/// What a server built on ibid says with every error, in any protocol: the class, and what belongs to it.
///
/// It is one JSON object, the same in the member `ibid` of a JSON-RPC error's `data` and, as UTF-8 text, in the details of a
/// gRPC status:
///
/// ```text
/// {"version":1,"class":"duplicate","state":"in_doubt","cause":"duplicate","reason":null}
/// ```
///
/// - `version`: 1. A reader takes another one for [`Evidence::Unreadable`], and so a missing one.
/// - `class`: `duplicate`, `conflict`, `definitive` or `ambiguous`.
/// - `state`: `registered`, `dispatched`, `in_doubt`, `completed`, `failed`, `tombstone`, or null.
/// - `cause`: a name for logs and tests; only `quarantined` says more than the class.
/// - `reason`: bytes in hex, or null. Empty and null stay apart.
///
/// A reader skips other members; one member twice is an error. `Debug` shows lengths, never the cause or the reason.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "DetailV1", into = "DetailV1")]
pub struct Detail {
    /// What the client does next.
    pub class: Class,
    /// Where the record stands, where the error tells.
    pub state: Option<Status>,
    /// What happened, in a word: for an error of the engine the name of its [`ErrorKind`] in lower case.
    pub cause: Cow<'static, str>,
    /// The operation's reason, byte for byte as it is stored.
    pub reason: Option<Bytes>,
}

impl Detail {
    /// The detail of an error of the engine. A retry of a failure that was kept gets the same one again.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        let (_, cause) = told(error.kind());
        let reason = error.reason().map(|reason| reason.bytes().clone());
        Self { class: error.class(), state: state_told(error.kind()), cause: cause.into(), reason }
    }

    /// Whether the same request, however often it is sent again, stays without an answer until somebody repairs the record.
    #[must_use]
    pub fn retrying_will_not_help(&self) -> bool {
        self.class == Class::Ambiguous && self.cause == QUARANTINED
    }
}

/// The state of the record, where the kind of error implies one. A failure may have been kept or forgotten.
fn state_told(kind: &ErrorKind) -> Option<Status> {
    match kind {
        ErrorKind::Duplicate(status) => Some(*status),
        ErrorKind::AnswerNotKept | ErrorKind::Decode => Some(Status::Completed),
        ErrorKind::Fenced => Some(Status::Tombstone),
        ErrorKind::InDoubt(_) | ErrorKind::RecoveriesExhausted => Some(Status::InDoubt),
        ErrorKind::Mismatch
        | ErrorKind::Expired
        | ErrorKind::Failed(_)
        | ErrorKind::RetentionOverflow
        | ErrorKind::RetentionMissing
        | ErrorKind::TooLarge { .. }
        | ErrorKind::QuotaExceeded
        | ErrorKind::Busy { .. }
        | ErrorKind::Quarantined
        | ErrorKind::Store
        | ErrorKind::Closed
        | ErrorKind::Deadline
        | ErrorKind::Internal
        | ErrorKind::NotFound
        | ErrorKind::InvalidKey(_)
        | ErrorKind::Encode => None,
    }
}

impl fmt::Debug for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detail")
            .field("class", &self.class)
            .field("state", &self.state)
            .field("cause_bytes", &self.cause.len())
            .field("reason_bytes", &self.reason.as_ref().map(|reason| reason.len()))
            .finish()
    }
}

/// Version 1 as it is written. A new version is a new struct: old readers must find it unreadable.
#[derive(Serialize, Deserialize)]
struct DetailV1 {
    version: u32,
    class: String,
    state: Option<String>,
    cause: String,
    reason: Option<String>,
}

const VERSION: u32 = 1;

impl From<Detail> for DetailV1 {
    fn from(detail: Detail) -> Self {
        Self {
            version: VERSION,
            class: detail.class.name().into(),
            state: detail.state.map(|state| state.name().into()),
            cause: detail.cause.into_owned(),
            reason: detail.reason.map(|reason| encode_hex(&reason)),
        }
    }
}

impl TryFrom<DetailV1> for Detail {
    type Error = &'static str;

    fn try_from(found: DetailV1) -> Result<Self, Self::Error> {
        if found.version != VERSION {
            return Err("a detail of another version");
        }
        let classes = [Class::Duplicate, Class::Conflict, Class::Definitive, Class::Ambiguous];
        let class = classes.into_iter().find(|class| class.name() == found.class).ok_or("an unknown class")?;
        let state = found.state.map(|name| Status::named(&name).ok_or("an unknown state")).transpose()?;
        let reason = found.reason.map(|hex| bytes_of_hex(&hex).ok_or("a reason that is not hex")).transpose()?;
        Ok(Self { class, state, cause: found.cause.into(), reason })
    }
}

/// Hex digits of any case, two to a byte.
fn bytes_of_hex(hex: &str) -> Option<Bytes> {
    let byte = |pair| decode_hex(std::str::from_utf8(pair).ok()?).map(|[byte]: [u8; 1]| byte);
    hex.as_bytes().chunks(2).map(byte).collect::<Option<Vec<_>>>().map(Into::into)
}
