//! What is stored of an end.

use std::fmt;

use crate::{Bytes, Ended};

/// A payment that has succeeded. `Debug` does not show the preimage: it is the proof of payment.
#[derive(Clone, PartialEq, Eq)]
pub struct Paid {
    /// The preimage.
    pub preimage: [u8; 32],
    /// Its hash.
    pub payment_hash: [u8; 32],
    /// The fee in msat, if LDK knew it: `None` and `Some(0)` are not the same.
    pub fee_msat: Option<u64>,
}

/// How a payment that LDK took on has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// PaymentSent.
    Paid(Paid),
    /// PaymentFailed, with LDK's reason by its name, if it gave one.
    Failed(Option<String>),
}

const VERSION: u8 = 1;

impl Paid {
    /// Frozen: version byte, preimage, hash, then 0, or 1 and the fee in eight big-endian bytes.
    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = vec![VERSION];
        bytes.extend(self.preimage);
        bytes.extend(self.payment_hash);
        match self.fee_msat {
            None => bytes.push(0),
            Some(fee) => {
                bytes.push(1);
                bytes.extend(fee.to_be_bytes());
            }
        }
        bytes.into()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&[VERSION])?;
        let (preimage, rest) = rest.split_first_chunk()?;
        let (payment_hash, rest) = rest.split_first_chunk()?;
        let fee_msat = match rest {
            [0] => None,
            [1, fee @ ..] => Some(u64::from_be_bytes(fee.try_into().ok()?)),
            _ => return None,
        };
        Some(Self { preimage: *preimage, payment_hash: *payment_hash, fee_msat })
    }
}

impl Ending {
    /// What is recorded of it. A failure is frozen as 0, or 1 and the reason.
    pub(super) fn encode(&self) -> Ended {
        match self {
            Self::Paid(paid) => Ended::Completed(paid.encode()),
            Self::Failed(None) => Ended::Failed([0].into()),
            Self::Failed(Some(reason)) => Ended::Failed([&[1], reason.as_bytes()].concat().into()),
        }
    }

    /// `None`: recorded in a form that is not known here.
    pub(super) fn decode(ended: &Ended) -> Option<Self> {
        match ended {
            Ended::Completed(answer) => Paid::decode(answer).map(Self::Paid),
            Ended::Failed(reason) => match &**reason {
                [0] => Some(Self::Failed(None)),
                [1, reason @ ..] => Some(Self::Failed(Some(String::from_utf8_lossy(reason).into_owned()))),
                _ => None,
            },
        }
    }
}

impl fmt::Debug for Paid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paid").field("fee_msat", &self.fee_msat).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paid(fee_msat: Option<u64>) -> Paid {
        Paid { preimage: [1; 32], payment_hash: [2; 32], fee_msat }
    }

    #[test]
    fn the_stored_forms_are_frozen_and_no_fee_is_not_a_fee_of_nothing() {
        let head = [&[1][..], &[1; 32], &[2; 32]].concat();
        assert_eq!(*paid(None).encode(), [&head[..], &[0]].concat());
        assert_eq!(*paid(Some(0)).encode(), [&head[..], &[1], &[0; 8]].concat());
        assert_eq!(*paid(Some(258)).encode(), [&head[..], &[1, 0, 0, 0, 0, 0, 0, 1, 2]].concat());
        let reasons = [(None, &b"\0"[..]), (Some(""), b"\x01"), (Some("RouteNotFound"), b"\x01RouteNotFound")];
        for (reason, stored) in reasons {
            let ending = Ending::Failed(reason.map(Into::into));
            assert_eq!(ending.encode(), Ended::Failed(stored.into()));
            assert_eq!(Ending::decode(&ending.encode()), Some(ending));
        }
    }

    #[test]
    fn what_was_stored_is_read_back_and_another_form_is_not() {
        for fee in [None, Some(0), Some(u64::MAX)] {
            assert_eq!(Paid::decode(&paid(fee).encode()), Some(paid(fee)));
        }
        let whole = paid(Some(7)).encode();
        for bytes in [&whole[..whole.len() - 1], &whole[..40], &[], &[2], &[&whole[..], &[0]].concat()] {
            assert_eq!(Paid::decode(bytes), None, "{} bytes", bytes.len());
        }
        assert_eq!(Ending::decode(&Ended::Failed((*b"").into())), None);
    }

    #[test]
    fn debug_shows_no_preimage() {
        assert!(!format!("{:?}", Paid { preimage: [0xca; 32], ..paid(None) }).contains("202"));
    }
}
