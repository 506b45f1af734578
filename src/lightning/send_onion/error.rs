//! Why a call has no answer: the class, and everything a server tells its client.

use std::fmt;

use super::end::{OnionEnd, reason_of};
use super::onion::InvalidOnion;
use crate::class::{self, Detail, grpc};
use crate::{Bytes, Class, Error, ErrorKind, Status};

/// Why a call about an onion has no answer. [`class`](Self::class) says what the client does next, and nothing else does:
///
/// | class | the client |
/// |---|---|
/// | Duplicate | tracks: this very onion is known, [`state`](Self::state) says how it stands. Never an error to show to a user |
/// | Conflict | takes another attempt id: this one belongs to another onion |
/// | Definitive | may take another attempt id: proof that this onion did not and will not go out |
/// | Ambiguous | sends the same onion under the same attempt id, until it is told another class |
#[derive(Clone, Debug)]
pub struct OnionError(Why);

#[derive(Clone, Debug)]
enum Why {
    Malformed(InvalidOnion),
    Engine { error: Error, replayed: bool },
}

impl OnionError {
    /// What the client does next.
    #[must_use]
    pub fn class(&self) -> Class {
        match &self.0 {
            Why::Malformed(_) => Class::Definitive,
            Why::Engine { error, .. } => error.class(),
        }
    }

    /// How the record stands, where the error tells.
    #[must_use]
    pub fn state(&self) -> Option<Status> {
        match &self.0 {
            Why::Malformed(_) => None,
            // This flow keeps what it refuses.
            Why::Engine { error, .. } if matches!(error.kind(), ErrorKind::Failed(_)) => Some(Status::Failed),
            Why::Engine { error, .. } => Detail::of(error).state,
        }
    }

    /// What the switch said, for *Definitive* the same bytes on every retry; `None` if it said nothing. Where the
    /// switch was not asked it is `None`, too.
    #[must_use]
    pub fn reason(&self) -> Option<Bytes> {
        self.error()?.reason().and_then(|reason| reason_of(reason.bytes()))
    }

    /// Whether this is a refusal of an earlier send, told again.
    #[must_use]
    pub fn is_replayed(&self) -> bool {
        matches!(self.0, Why::Engine { replayed: true, .. })
    }

    /// The end that a *Duplicate* has come to, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<OnionEnd> {
        self.error()?.recorded().map(OnionEnd::of)
    }

    /// What was wrong with the onion itself: nothing was looked up, nothing recorded.
    #[must_use]
    pub fn malformed(&self) -> Option<InvalidOnion> {
        match &self.0 {
            Why::Malformed(invalid) => Some(*invalid),
            Why::Engine { .. } => None,
        }
    }

    /// The engine's own error, unless the onion was [malformed](Self::malformed).
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        match &self.0 {
            Why::Malformed(_) => None,
            Why::Engine { error, .. } => Some(error),
        }
    }

    /// The gRPC status code for it, safe also for a client of lnd's that does not read the [detail](Self::detail). (lnd
    /// PR 10545)
    #[must_use]
    pub fn grpc_code(&self) -> i32 {
        match &self.0 {
            Why::Malformed(_) => grpc::INVALID_ARGUMENT,
            Why::Engine { error, .. } => class::grpc_code(error.kind()),
        }
    }

    /// What a server sends beside it, in any protocol: for a refusal that is told again the same, byte for byte.
    #[must_use]
    pub fn detail(&self) -> Detail {
        match &self.0 {
            Why::Malformed(invalid) => Detail {
                class: Class::Definitive,
                state: None,
                cause: "malformed".into(),
                reason: Some(invalid.to_string().into_bytes().into()),
            },
            Why::Engine { error, .. } => Detail { state: self.state(), reason: self.reason(), ..Detail::of(error) },
        }
    }

    /// `ran`: the switch was asked for this very call.
    pub(super) fn of_send(error: Error, ran: bool) -> Self {
        let replayed = !ran && matches!(error.kind(), ErrorKind::Failed(_));
        Self(Why::Engine { error, replayed })
    }
}

impl From<Error> for OnionError {
    fn from(error: Error) -> Self {
        Self(Why::Engine { error, replayed: false })
    }
}

impl From<InvalidOnion> for OnionError {
    fn from(invalid: InvalidOnion) -> Self {
        Self(Why::Malformed(invalid))
    }
}

impl fmt::Display for OnionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Why::Malformed(invalid) => invalid.fmt(f),
            Why::Engine { error, .. } => error.fmt(f),
        }
    }
}

impl std::error::Error for OnionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            Why::Malformed(_) => None,
            Why::Engine { error, .. } => error.source(),
        }
    }
}
