//! LDK's errors, and what each of them says about the attempt: one total function.

use std::fmt;

use super::{Listed, Listing};
use crate::{End, Found, Reason, Status};

/// Why a send was refused, in every word that LDK 0.2.7 and ldk-node have for it, and some of their successors'. An error that
/// fits none is [`Other`](SendError::Other): that is always right, and costs a question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SendError {
    /// There is no amount, or it is below the invoice's. (`Bolt11PaymentError`, `Bolt12SemanticError`, ldk-node) Also of a request
    /// that names none: see [`PaymentRequest::asked_msat`](super::PaymentRequest::asked_msat).
    InvalidAmount,
    /// What was to be paid does not parse. For [`Payer::check`](super::Payer::check).
    InvalidInvoice,
    /// The invoice has expired. (`RetryableSendFailure`)
    PaymentExpired,
    /// The onion would be too large. (`RetryableSendFailure`)
    OnionPacketSizeExceeded,
    /// No way to the payee, or not for this amount. (`RetryableSendFailure`)
    RouteNotFound,
    /// The id is known. (`RetryableSendFailure`, ldk-node)
    DuplicatePayment,
    /// The id is known. (`Bolt12SemanticError`)
    DuplicatePaymentId,
    /// An invoice for the id is being paid. (`Bolt12PaymentError`)
    DuplicateInvoice,
    /// The invoice was not asked for. (`Bolt12PaymentError`)
    UnexpectedInvoice,
    /// The invoice needs features that the node lacks; a PaymentFailed follows. (`Bolt12PaymentError`)
    UnknownRequiredFeatures,
    /// No way back could be made; a PaymentFailed follows. (`Bolt12PaymentError`)
    BlindedPathCreationFailed,
    /// One of several refusals that ldk-node does not tell apart.
    PaymentSendingFailed,
    /// ldk-node could not save its own row: the payment has started.
    PersistenceFailed,
    /// Anything else, in words.
    Other(String),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidAmount => "invalid amount",
            Self::InvalidInvoice => "invalid invoice",
            Self::PaymentExpired => "payment expired",
            Self::OnionPacketSizeExceeded => "onion packet size exceeded",
            Self::RouteNotFound => "route not found",
            Self::DuplicatePayment => "duplicate payment",
            Self::DuplicatePaymentId => "duplicate payment id",
            Self::DuplicateInvoice => "duplicate invoice",
            Self::UnexpectedInvoice => "unexpected invoice",
            Self::UnknownRequiredFeatures => "unknown required features",
            Self::BlindedPathCreationFailed => "blinded path creation failed",
            Self::PaymentSendingFailed => "payment sending failed",
            Self::PersistenceFailed => "persistence failed",
            Self::Other(words) => words,
        })
    }
}

impl std::error::Error for SendError {}

/// How LDK's list, read after an error, stands to the attempt that got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// Under our hash, or one of the two is unknown.
    Ours,
    Another,
    Absent,
}

impl Seen {
    fn of(listed: Option<&Listed>, own_hash: Option<[u8; 32]>) -> Self {
        match (listed.map(|listed| listed.payment_hash), own_hash) {
            (None, _) => Self::Absent,
            (Some(Some(listed)), Some(own)) if listed != own => Self::Another,
            (Some(_), _) => Self::Ours,
        }
    }
}

/// What a result of the call, and the list read after it, say about the attempt.
///
/// Where LDK lists the id as this very payment, it is live, whatever the error: an invoice that has expired since its payment
/// began is refused before its id is looked at. `is_other_running`: another call for the id has not returned.
pub(super) fn end_of(
    result: Result<(), SendError>,
    listed: Option<&Listed>,
    own_hash: Option<[u8; 32]>,
    is_other_running: bool,
) -> End {
    use SendError as E;
    let Err(error) = result else { return End::Accepted };
    let unknown = |error: SendError| End::Unknown(Reason::from_error(error));
    match (error, Seen::of(listed, own_hash)) {
        // They say that something is under way, or nothing at all, and not that it is this attempt.
        (
            error @ (E::UnexpectedInvoice
            | E::UnknownRequiredFeatures
            | E::BlindedPathCreationFailed
            | E::PaymentSendingFailed
            | E::PersistenceFailed
            | E::InvalidInvoice
            | E::Other(_)),
            _,
        ) => unknown(error),
        (
            E::InvalidAmount
            | E::PaymentExpired
            | E::OnionPacketSizeExceeded
            | E::RouteNotFound
            | E::DuplicatePayment
            | E::DuplicatePaymentId
            | E::DuplicateInvoice,
            Seen::Ours,
        ) => End::AlreadyLive,
        (E::RouteNotFound | E::DuplicatePayment | E::DuplicatePaymentId | E::DuplicateInvoice, Seen::Another) => {
            End::Taken
        }
        (error @ (E::InvalidAmount | E::PaymentExpired | E::OnionPacketSizeExceeded), Seen::Another | Seen::Absent) => {
            End::Definitive(Reason::from_error(error))
        }
        (error @ E::RouteNotFound, Seen::Absent) if !is_other_running => End::Definitive(Reason::from_error(error)),
        (
            error @ (E::RouteNotFound | E::DuplicatePayment | E::DuplicatePaymentId | E::DuplicateInvoice),
            Seen::Absent,
        ) => unknown(error),
    }
}

/// What LDK's list says about a record whose end is not known. `is_settled_down`: the host had said, before the list was read and
/// still after it, that replayed events are handled and the chain is synced, and no call for the id was running.
pub(super) fn found(
    listed: Option<&Listed>,
    own_hash: Option<[u8; 32]>,
    status: Status,
    is_settled_down: bool,
) -> Found {
    let state = match (Seen::of(listed, own_hash), listed) {
        (Seen::Ours, Some(listed)) => listed.state,
        // One id, one entry: either it is another payment's, or the hash that the host gave is wrong. That proves nothing.
        (Seen::Another, _) => return Found::CannotTell,
        (Seen::Absent, _) | (Seen::Ours, None) => {
            // A dispatched one did start: it has failed and its event is on its way, or LDK has lost it. The event gets its turn first.
            return if is_settled_down && status != Status::Dispatched { Found::NotStarted } else { Found::Missing };
        }
    };
    match state {
        Listing::AwaitingInvoice | Listing::Pending | Listing::Fulfilled => Found::Live,
        // While LDK works it also lists so what has run out of retries, which nobody has given up.
        Listing::Abandoned if is_settled_down && status == Status::Dispatched => Found::Live,
        Listing::Abandoned => Found::Abandoned,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERRORS: [SendError; 13] = [
        SendError::InvalidAmount,
        SendError::InvalidInvoice,
        SendError::PaymentExpired,
        SendError::OnionPacketSizeExceeded,
        SendError::RouteNotFound,
        SendError::DuplicatePayment,
        SendError::DuplicatePaymentId,
        SendError::DuplicateInvoice,
        SendError::UnexpectedInvoice,
        SendError::UnknownRequiredFeatures,
        SendError::BlindedPathCreationFailed,
        SendError::PaymentSendingFailed,
        SendError::PersistenceFailed,
    ];
    const STATES: [Listing; 4] = [Listing::AwaitingInvoice, Listing::Pending, Listing::Fulfilled, Listing::Abandoned];
    const OWN: [u8; 32] = [1; 32];

    fn listed(state: Listing, payment_hash: Option<[u8; 32]>) -> Option<Listed> {
        Some(Listed { state, payment_hash })
    }

    /// Every way an id can be listed, with whether that is our payment.
    fn lists(own_hash: Option<[u8; 32]>) -> Vec<(Option<Listed>, Option<bool>)> {
        let mut lists = vec![(None, None)];
        for state in STATES {
            lists.push((listed(state, None), Some(true)));
            lists.push((listed(state, Some(OWN)), Some(true)));
            lists.push((listed(state, Some([2; 32])), Some(own_hash.is_none())));
        }
        lists
    }

    /// The table of the rules, by error and place in the list: ours, another's, none.
    fn expected(error: &SendError, is_ours: Option<bool>, is_other_running: bool) -> &'static str {
        let row = match error {
            SendError::InvalidAmount | SendError::PaymentExpired | SendError::OnionPacketSizeExceeded => {
                ["AlreadyLive", "Definitive(..)", "Definitive(..)"]
            }
            SendError::RouteNotFound if !is_other_running => ["AlreadyLive", "Taken", "Definitive(..)"],
            SendError::RouteNotFound
            | SendError::DuplicatePayment
            | SendError::DuplicatePaymentId
            | SendError::DuplicateInvoice => ["AlreadyLive", "Taken", "Unknown(..)"],
            _ => ["Unknown(..)"; 3],
        };
        match is_ours {
            Some(true) => row[0],
            Some(false) => row[1],
            None => row[2],
        }
    }

    #[test]
    fn every_error_with_every_list_is_what_the_table_says() {
        let mut cases = 0;
        let errors = ERRORS.into_iter().chain([SendError::Other("new".into())]);
        for error in errors {
            for own_hash in [Some(OWN), None] {
                for (listed, is_ours) in lists(own_hash) {
                    for other in [false, true] {
                        let end = end_of(Err(error.clone()), listed.as_ref(), own_hash, other);
                        let case = format!("{error:?} {listed:?} {own_hash:?} {other}");
                        assert_eq!(format!("{end:?}"), expected(&error, is_ours, other), "{case}");
                        if let End::Definitive(reason) | End::Unknown(reason) = end {
                            assert_eq!(**reason.bytes(), *error.to_string().as_bytes(), "{case}");
                        }
                        cases += 1;
                    }
                }
            }
        }
        assert_eq!(cases, 14 * 2 * 13 * 2);
    }

    #[test]
    fn an_accepted_call_is_accepted_whatever_is_listed() {
        for (listed, _) in lists(Some(OWN)) {
            assert!(matches!(end_of(Ok(()), listed.as_ref(), Some(OWN), true), End::Accepted));
        }
    }

    #[test]
    fn the_list_says_how_a_record_stands() {
        for own_hash in [Some(OWN), None] {
            for (listed, is_ours) in lists(own_hash) {
                for status in [Status::InDoubt, Status::Dispatched] {
                    for down in [false, true] {
                        let state = listed.as_ref().filter(|_| is_ours == Some(true)).map(|listed| listed.state);
                        let expected = match state {
                            Some(Listing::Abandoned) if !down || status == Status::InDoubt => Found::Abandoned,
                            Some(_) => Found::Live,
                            None if is_ours == Some(false) => Found::CannotTell,
                            None if down && status == Status::InDoubt => Found::NotStarted,
                            None => Found::Missing,
                        };
                        let said = found(listed.as_ref(), own_hash, status, down);
                        assert_eq!(said, expected, "{listed:?} {own_hash:?} {status:?} {down}");
                    }
                }
            }
        }
    }
}
