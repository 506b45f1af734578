//! What is asked for, and its one canonical form.

use std::fmt;

use super::refusal::SendError;
use crate::NodeId;

/// Everything that decides who is paid, how much and for what: the same in every retry of one payment.
///
/// What a caller cannot repeat does not belong here: retry strategy, time, the state of a scorer. `Debug` shows no invoice and
/// no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct PaymentRequest {
    /// The PaymentId, 32 bytes: the key. It belongs to the payment, not to the try; for an invoice the payment hash is the usual
    /// choice. A fresh random id for each try protects from nothing.
    pub id: [u8; 32],
    /// Who is paid, for what.
    pub payee: Payee,
    /// What is paid, in msat, without fees. `None`: what the invoice or the offer asks for, see [`asked_msat`](Self::asked_msat).
    pub amount_msat: Option<u64>,
    /// What the invoice or the offer itself asks for in all, in msat, if it names an amount: the host reads it, since ibid does not
    /// parse invoices. It takes the place of a missing amount, so that a retry which names the amount is the same request as a
    /// first try which did not.
    ///
    /// One of the two has to be there, but for an offer: without either a send is refused with [`SendError::InvalidAmount`], and so
    /// is one of less than was asked for.
    pub asked_msat: Option<u64>,
    /// What the payer says to the payee (BOLT12).
    pub payer_note: Option<String>,
    /// How many of what is offered (BOLT12).
    pub quantity: Option<u64>,
    /// The highest fee for the whole payment, in msat.
    pub max_fee_msat: Option<u64>,
    /// The highest CLTV expiry delta of the whole path, in blocks.
    pub max_cltv_delta: Option<u32>,
    /// When the payment is no longer wanted, in unix seconds: the absolute expiry of a refund, or the limit that the host sets.
    pub expires_at_secs: Option<u64>,
    /// Custom TLV records for the payee: type and value, in any order.
    pub custom_tlvs: Vec<(u64, Vec<u8>)>,
}

/// Who is paid, for what: one variant for each of LDK's ways to pay.
#[derive(Clone, PartialEq, Eq)]
pub enum Payee {
    /// A BOLT11 invoice.
    Bolt11 {
        /// Its text, of any case.
        invoice: String,
        /// Its payment hash, as the host has read it from the text.
        payment_hash: [u8; 32],
    },
    /// A BOLT12 offer: the invoice, and with it the hash, comes later.
    Offer {
        /// Its text, of any case, in one piece or several joined by `+`.
        offer: String,
    },
    /// A BOLT12 refund that this node issues and pays.
    Refund {
        /// What it is for.
        description: String,
    },
    /// A spontaneous payment.
    Keysend {
        /// Whom to pay.
        payee: NodeId,
        /// The hash of the preimage, if the host has chosen it. Without it only LDK's list tells whose an event is.
        payment_hash: Option<[u8; 32]>,
    },
    /// A payment to a hash and a secret that came from elsewhere.
    HashAndSecret {
        /// Whom to pay.
        payee: NodeId,
        /// The hash.
        payment_hash: [u8; 32],
        /// The secret.
        payment_secret: [u8; 32],
    },
}

/// The first byte of the canonical form. Another form gets another number.
const VERSION: u8 = 1;
const HASH_BYTES: u32 = 32;

impl PaymentRequest {
    /// A payment to `payee` under this id, without limits, and without an amount: set [`asked_msat`](Self::asked_msat) or
    /// [`amount_msat`](Self::amount_msat), or nothing but an offer can be paid.
    ///
    /// ```
    /// use ibid::lightning::send_payment::{Payee, PaymentRequest};
    ///
    /// // Both read from the invoice by the host. The payment hash is the id: one payment for one invoice.
    /// let (payment_hash, asked_msat) = ([7; 32], Some(2_500_000));
    /// let payee = Payee::Bolt11 { invoice: "lnbc25u1...".into(), payment_hash };
    /// let request = PaymentRequest { asked_msat, ..PaymentRequest::new(payment_hash, payee) };
    /// ```
    #[must_use]
    pub fn new(id: [u8; 32], payee: Payee) -> Self {
        Self {
            id,
            payee,
            amount_msat: None,
            asked_msat: None,
            payer_note: None,
            quantity: None,
            max_fee_msat: None,
            max_cltv_delta: None,
            expires_at_secs: None,
            custom_tlvs: Vec::new(),
        }
    }

    /// The hash that is paid, where it is known before the payment is.
    #[must_use]
    pub fn payment_hash(&self) -> Option<[u8; 32]> {
        match &self.payee {
            Payee::Bolt11 { payment_hash, .. } | Payee::HashAndSecret { payment_hash, .. } => Some(*payment_hash),
            Payee::Keysend { payment_hash, .. } => *payment_hash,
            Payee::Offer { .. } | Payee::Refund { .. } => None,
        }
    }

    /// What is paid, in msat, as far as it is known.
    #[must_use]
    pub fn effective_msat(&self) -> Option<u64> {
        self.amount_msat.or(self.asked_msat)
    }

    /// The canonical form, which decides whether a retry is the same request. Frozen: a version byte, the kind, then each field in
    /// order as 0 where it is absent, else as 1, a length of four big-endian bytes, and the bytes. The hash comes first.
    pub(super) fn canonical(&self) -> Vec<u8> {
        let (kind, text, node, secret) = match &self.payee {
            Payee::Bolt11 { invoice, .. } => (1, Some(invoice.to_ascii_lowercase()), None, None),
            Payee::Offer { offer } => (2, Some(joined(offer)), None, None),
            Payee::Refund { description } => (3, Some(description.clone()), None, None),
            Payee::Keysend { payee, .. } => (4, None, Some(payee), None),
            Payee::HashAndSecret { payee, payment_secret, .. } => (5, None, Some(payee), Some(payment_secret)),
        };
        let mut bytes = vec![VERSION, kind];
        field(&mut bytes, self.payment_hash());
        field(&mut bytes, text);
        field(&mut bytes, node);
        field(&mut bytes, secret);
        field(&mut bytes, self.effective_msat().map(u64::to_be_bytes));
        field(&mut bytes, self.payer_note.as_ref());
        field(&mut bytes, self.quantity.map(u64::to_be_bytes));
        field(&mut bytes, self.max_fee_msat.map(u64::to_be_bytes));
        field(&mut bytes, self.max_cltv_delta.map(u32::to_be_bytes));
        field(&mut bytes, self.expires_at_secs.map(u64::to_be_bytes));
        field(&mut bytes, self.tlvs());
        bytes
    }

    /// By type: the order in which they were given means nothing.
    fn tlvs(&self) -> Option<Vec<u8>> {
        let mut sorted: Vec<_> = self.custom_tlvs.iter().collect();
        sorted.sort();
        let mut bytes = Vec::new();
        for (kind, value) in sorted {
            bytes.extend(kind.to_be_bytes());
            field(&mut bytes, Some(value));
        }
        (!bytes.is_empty()).then_some(bytes)
    }

    /// What can be said without looking anything up: it burns no id.
    ///
    /// # Errors
    /// [`SendError::InvalidInvoice`], [`SendError::InvalidAmount`].
    pub(super) fn check(&self) -> Result<(), SendError> {
        let needs_amount = match &self.payee {
            Payee::Bolt11 { invoice: text, .. } | Payee::Offer { offer: text } if text.is_empty() => {
                return Err(SendError::InvalidInvoice);
            }
            Payee::Bolt11 { .. } | Payee::Refund { .. } | Payee::Keysend { .. } | Payee::HashAndSecret { .. } => true,
            // It may ask for an amount in another currency.
            Payee::Offer { .. } => false,
        };
        match (self.effective_msat(), self.asked_msat) {
            (None, _) if needs_amount => Err(SendError::InvalidAmount),
            (Some(0), _) => Err(SendError::InvalidAmount),
            (Some(amount), Some(asked)) if amount < asked => Err(SendError::InvalidAmount),
            (Some(_) | None, _) => Ok(()),
        }
    }
}

/// The hash in a canonical form: `None` if it is not of a form that is known here.
pub(super) fn hash_of(canonical: &[u8]) -> Option<Option<[u8; 32]>> {
    let rest = canonical.strip_prefix(&[VERSION])?;
    match rest.get(1)? {
        0 => Some(None),
        1 => {
            let hash = rest.get(2..)?.strip_prefix(&HASH_BYTES.to_be_bytes())?.first_chunk::<32>()?;
            Some(Some(*hash))
        }
        _ => None,
    }
}

fn field(bytes: &mut Vec<u8>, value: Option<impl AsRef<[u8]>>) {
    let Some(value) = value else { return bytes.push(0) };
    let value = value.as_ref();
    // No request comes near four gigabytes; one that did is over the limit whatever its length says.
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    bytes.push(1);
    bytes.extend(length.to_be_bytes());
    bytes.extend_from_slice(value);
}

/// An offer's text in one piece. (BOLT 12: parts are joined by `+` and white space.)
fn joined(offer: &str) -> String {
    offer.chars().filter(|c| *c != '+' && !c.is_whitespace()).map(|c| c.to_ascii_lowercase()).collect()
}

impl fmt::Debug for PaymentRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PaymentRequest").field("payee", &self.payee).finish_non_exhaustive()
    }
}

impl fmt::Debug for Payee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bolt11 { .. } => "Bolt11(..)",
            Self::Offer { .. } => "Offer(..)",
            Self::Refund { .. } => "Refund(..)",
            Self::Keysend { .. } => "Keysend(..)",
            Self::HashAndSecret { .. } => "HashAndSecret(..)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bolt11(text: &str) -> PaymentRequest {
        PaymentRequest::new([7; 32], Payee::Bolt11 { invoice: text.into(), payment_hash: [0xab; 32] })
    }

    fn node() -> NodeId {
        NodeId::new([2; 33]).unwrap()
    }

    #[test]
    fn the_canonical_form_is_frozen() {
        let request = PaymentRequest {
            amount_msat: Some(0x0102),
            payer_note: Some(String::new()),
            quantity: Some(3),
            max_fee_msat: Some(4),
            max_cltv_delta: Some(5),
            expires_at_secs: Some(6),
            custom_tlvs: vec![(9, vec![]), (8, vec![0xff])],
            ..bolt11("LNBC1")
        };
        let mut golden = vec![1, 1, 1, 0, 0, 0, 32];
        golden.extend([0xab; 32]);
        golden.extend(*b"\x01\0\0\0\x05lnbc1\0\0");
        golden.extend(*b"\x01\0\0\0\x08\0\0\0\0\0\0\x01\x02");
        golden.extend(*b"\x01\0\0\0\0");
        golden.extend(*b"\x01\0\0\0\x08\0\0\0\0\0\0\0\x03");
        golden.extend(*b"\x01\0\0\0\x08\0\0\0\0\0\0\0\x04");
        golden.extend(*b"\x01\0\0\0\x04\0\0\0\x05");
        golden.extend(*b"\x01\0\0\0\x08\0\0\0\0\0\0\0\x06");
        golden.extend(*b"\x01\0\0\0\x1b");
        golden.extend(*b"\0\0\0\0\0\0\0\x08\x01\0\0\0\x01\xff");
        golden.extend(*b"\0\0\0\0\0\0\0\x09\x01\0\0\0\0");
        assert_eq!(request.canonical(), golden);

        let offer = PaymentRequest::new([7; 32], Payee::Offer { offer: "LNO1+\n qq".into() });
        assert_eq!(offer.canonical(), *b"\x01\x02\0\x01\0\0\0\x06lno1qq\0\0\0\0\0\0\0\0\0");
        let refund = PaymentRequest::new([7; 32], Payee::Refund { description: "Tea".into() });
        assert_eq!(refund.canonical(), *b"\x01\x03\0\x01\0\0\0\x03Tea\0\0\0\0\0\0\0\0\0");
        let keysend = PaymentRequest::new([7; 32], Payee::Keysend { payee: node(), payment_hash: None });
        let golden = [&b"\x01\x04\0\0\x01\0\0\0\x21"[..], &[2; 33], &[0; 8]].concat();
        assert_eq!(keysend.canonical(), golden);
        let payee = Payee::HashAndSecret { payee: node(), payment_hash: [3; 32], payment_secret: [4; 32] };
        let golden = [
            &b"\x01\x05\x01\0\0\0\x20"[..],
            &[3; 32],
            b"\0\x01\0\0\0\x21",
            &[2; 33],
            b"\x01\0\0\0\x20",
            &[4; 32],
            &[0; 7],
        ]
        .concat();
        assert_eq!(PaymentRequest::new([7; 32], payee).canonical(), golden);
    }

    #[test]
    fn the_same_payment_in_other_words_is_the_same_request() {
        let asked = PaymentRequest { asked_msat: Some(5), ..bolt11("lnbc1") };
        let named = PaymentRequest { amount_msat: Some(5), ..bolt11("LNBC1") };
        assert_eq!(asked.canonical(), named.canonical());
        let over = PaymentRequest { amount_msat: Some(6), ..asked.clone() };
        assert_ne!(over.canonical(), asked.canonical());
    }

    #[test]
    fn every_field_tells_two_requests_apart_and_absent_is_not_empty() {
        let base = bolt11("lnbc1");
        let others = [
            PaymentRequest { amount_msat: Some(0), ..base.clone() },
            PaymentRequest { payer_note: Some(String::new()), ..base.clone() },
            PaymentRequest { quantity: Some(0), ..base.clone() },
            PaymentRequest { max_fee_msat: Some(0), ..base.clone() },
            PaymentRequest { max_cltv_delta: Some(0), ..base.clone() },
            PaymentRequest { expires_at_secs: Some(0), ..base.clone() },
            PaymentRequest { custom_tlvs: vec![(0, vec![])], ..base.clone() },
            bolt11("lnbc2"),
            PaymentRequest::new([7; 32], Payee::Offer { offer: "lnbc1".into() }),
            PaymentRequest::new([7; 32], Payee::Refund { description: "lnbc1".into() }),
            PaymentRequest::new([7; 32], Payee::Keysend { payee: node(), payment_hash: Some([0xab; 32]) }),
        ];
        let forms: std::collections::HashSet<_> = others.iter().chain([&base]).map(PaymentRequest::canonical).collect();
        assert_eq!(forms.len(), 12);
    }

    #[test]
    fn the_hash_is_read_back_and_from_no_other_form() {
        assert_eq!(hash_of(&bolt11("lnbc1").canonical()), Some(Some([0xab; 32])));
        let offer = PaymentRequest::new([7; 32], Payee::Offer { offer: "lno1".into() });
        assert_eq!(hash_of(&offer.canonical()), Some(None));
        for bytes in [&b""[..], b"\x01", b"\x01\x01", b"\x02\x01\0", b"\x01\x01\x01\0\0\0\x20ab", b"\x01\x01\x02"] {
            assert_eq!(hash_of(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn what_needs_no_look_up_is_checked_without_one() {
        let checked = |amount_msat, asked_msat| PaymentRequest { amount_msat, asked_msat, ..bolt11("lnbc1") }.check();
        assert_eq!(checked(None, None), Err(SendError::InvalidAmount));
        assert_eq!(checked(Some(0), None), Err(SendError::InvalidAmount));
        assert_eq!(checked(Some(4), Some(5)), Err(SendError::InvalidAmount));
        assert_eq!(
            (checked(Some(5), Some(5)), checked(None, Some(5)), checked(Some(1), None)),
            (Ok(()), Ok(()), Ok(()))
        );
        assert_eq!(bolt11("").check(), Err(SendError::InvalidInvoice));
        assert_eq!(PaymentRequest::new([7; 32], Payee::Offer { offer: "lno1".into() }).check(), Ok(()));
    }

    #[test]
    fn debug_shows_no_invoice() {
        assert!(!format!("{:?}", bolt11("canary")).contains("canary"));
    }
}
