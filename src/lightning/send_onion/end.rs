//! How an onion ends, and the bytes in which a record keeps that.

use std::fmt;

use crate::{Bytes, Ended, Error, ErrorKind, Origin, Outcome, Reply, Status};

/// How a payment that went out ended, told from outside. `Debug` shows no bytes.
#[derive(Clone, PartialEq, Eq)]
pub enum OnionEnd {
    /// It arrived, with this proof: the preimage.
    Settled(Bytes),
    /// It failed: the failure as it came, an encrypted one too, or none. None and an empty one stay apart.
    Failed(Option<Bytes>),
}

/// What a tracker hears. All of them hear the same bytes, whenever they come. `Debug` shows no bytes.
#[derive(Clone, PartialEq, Eq)]
pub enum Tracked {
    /// It arrived, with this proof.
    Settled(Bytes),
    /// It arrived, with a proof over [`Limits::answer_bytes`](crate::Limits::answer_bytes), which was not kept.
    SettledWithoutProof,
    /// It went out and failed.
    Failed(Option<Bytes>),
    /// It never went out, and never will: the refusal, as the first caller got it, or `not started` where the switch said
    /// later that it had not been.
    RolledBack(Option<Bytes>),
}

/// What a send came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It went out, by this call: track it.
    Accepted,
    /// It went out and arrived, with this proof. Replayed only under a policy that replays.
    Settled(Outcome),
}

const FAILED: u8 = 0;
const FAILED_WITH_REASON: u8 = 1;
const SETTLED: u8 = 2;

impl OnionEnd {
    /// What is stored: a byte that says which, then the bytes. So no reason and an empty one, and, where an end
    /// contradicts the recorded one, a proof and a reason can be told apart. The form is frozen.
    pub(super) fn to_ended(&self) -> Ended {
        match self {
            Self::Settled(proof) => Ended::Completed(settled_bytes(proof)),
            Self::Failed(reason) => Ended::Failed(reason_bytes(reason.as_ref())),
        }
    }

    pub(super) fn of(ended: &Ended) -> Self {
        match ended {
            Ended::Completed(bytes) => Self::Settled(proof_of(bytes)),
            Ended::Failed(bytes) => Self::Failed(reason_of(bytes)),
        }
    }

    /// Of bytes that are kept beside an end.
    pub(super) fn of_contradiction(bytes: &Bytes) -> Self {
        match bytes.first() {
            Some(&SETTLED) => Self::Settled(proof_of(bytes)),
            _ => Self::Failed(reason_of(bytes)),
        }
    }
}

pub(super) fn settled_bytes(proof: &[u8]) -> Bytes {
    [&[SETTLED], proof].concat().into()
}

pub(super) fn reason_bytes(reason: Option<&Bytes>) -> Bytes {
    match reason {
        None => [FAILED].into(),
        Some(reason) => [&[FAILED_WITH_REASON], &**reason].concat().into(),
    }
}

/// What was not stored in our form is handed on as it is.
pub(super) fn proof_of(bytes: &Bytes) -> Bytes {
    bytes.strip_prefix(&[SETTLED]).map_or_else(|| bytes.clone(), Into::into)
}

/// The same for a reason: the engine's own words, or those of somebody who resolved without this handle.
pub(super) fn reason_of(bytes: &Bytes) -> Option<Bytes> {
    match &**bytes {
        [FAILED] => None,
        [FAILED_WITH_REASON, reason @ ..] => Some(reason.into()),
        _ => Some(bytes.clone()),
    }
}

impl Sent {
    pub(super) fn of(reply: Reply) -> Self {
        match reply {
            Reply::Accepted => Self::Accepted,
            Reply::Answer(Outcome { how, answer }) => Self::Settled(Outcome { how, answer: proof_of(&answer) }),
        }
    }
}

impl Tracked {
    /// A payment that failed is an answer; what is left is a query that failed.
    pub(super) fn of(tracked: Result<Outcome, Error>) -> Result<Self, Error> {
        let error = match tracked {
            Ok(outcome) => return Ok(Self::Settled(proof_of(&outcome.answer))),
            Err(error) => error,
        };
        match (error.kind(), error.recorded()) {
            (ErrorKind::AnswerNotKept, _) => Ok(Self::SettledWithoutProof),
            (ErrorKind::Failed(reason), _) => Ok(Self::RolledBack(reason_of(reason.bytes()))),
            (ErrorKind::Duplicate(Status::Failed), Some(Ended::Failed(reason))) => Ok(Self::Failed(reason_of(reason))),
            _ => Err(error),
        }
    }

    pub(super) fn of_completed(answer: Option<&Bytes>) -> Self {
        answer.map_or(Self::SettledWithoutProof, |answer| Self::Settled(proof_of(answer)))
    }

    pub(super) fn of_failed(origin: Origin, reason: &Bytes) -> Self {
        match origin {
            Origin::RolledBack => Self::RolledBack(reason_of(reason)),
            Origin::Resolved => Self::Failed(reason_of(reason)),
        }
    }
}

impl fmt::Debug for OnionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Settled(_) => "Settled(..)",
            Self::Failed(_) => "Failed(..)",
        })
    }
}

impl fmt::Debug for Tracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Settled(_) => "Settled(..)",
            Self::SettledWithoutProof => "SettledWithoutProof",
            Self::Failed(_) => "Failed(..)",
            Self::RolledBack(_) => "RolledBack(..)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &[u8]) -> Bytes {
        text.into()
    }

    #[test]
    fn the_stored_forms_are_frozen() {
        let table = [
            (OnionEnd::Failed(None), Ended::Failed(bytes(b"\0"))),
            (OnionEnd::Failed(Some(bytes(b""))), Ended::Failed(bytes(b"\x01"))),
            (OnionEnd::Failed(Some(bytes(b"\0"))), Ended::Failed(bytes(b"\x01\0"))),
            (OnionEnd::Settled(bytes(b"")), Ended::Completed(bytes(b"\x02"))),
            (OnionEnd::Settled(bytes(b"preimage")), Ended::Completed(bytes(b"\x02preimage"))),
        ];
        for (end, stored) in table {
            assert_eq!(end.to_ended(), stored);
            assert_eq!(OnionEnd::of(&stored), end);
            let (Ended::Completed(beside) | Ended::Failed(beside)) = stored;
            assert_eq!(OnionEnd::of_contradiction(&beside), end);
        }
    }

    #[test]
    fn what_somebody_else_stored_is_handed_on_as_it_is() {
        for raw in [&b""[..], b"not started", b"\0\0", b"\x03x"] {
            assert_eq!(OnionEnd::of(&Ended::Failed(bytes(raw))), OnionEnd::Failed(Some(bytes(raw))));
            assert_eq!(OnionEnd::of(&Ended::Completed(bytes(raw))), OnionEnd::Settled(bytes(raw)));
        }
    }
}
