//! The params of a request: read strictly, brought to one canonical form that key, fingerprint and operation share.

use std::fmt;

use serde::Deserialize;

use super::rpc_error::RpcError;
use crate::lightning::{decode_hex32, encode_hex32, json_string};

/// What the peer asks for, the eight members that make up the request.
///
/// Values, not text: two spellings of one request are equal here. Members and their forms are those of
/// rgb-lightning-node. `Debug` shows none of them.
#[derive(Clone, PartialEq, Eq)]
pub struct InvoiceParams {
    /// Which of the order's hashes this is.
    pub hash_index: u64,
    /// The payment hash, 32 bytes.
    pub payment_hash: [u8; 32],
    /// The amount in msat.
    pub amount_msat: u64,
    /// The RGB asset, byte for byte as it was given.
    pub asset_id: Option<String>,
    /// The amount of that asset, in its own units.
    pub asset_amount: Option<u64>,
    /// The hash of the description, 32 bytes.
    pub description_hash: [u8; 32],
    /// The invoice's lifetime in seconds; also how long the record answers. 0 expires at once.
    pub invoice_expiry_sec: u32,
    /// The final CLTV delta in blocks (LDK adds 3).
    pub min_final_cltv_expiry_delta: u16,
}

/// Params as they come over the wire: the request, and the session it is said to belong to.
#[derive(Clone, PartialEq, Eq)]
pub struct WireParams {
    /// The request.
    pub params: InvoiceParams,
    /// `claim_session_id`, 1 to 255 bytes, as given. Part of the key, never of the fingerprint. (Ours.)
    pub claim_session_id: Option<String>,
}

/// The table of members, types only.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members {
    hash_index: String,
    payment_hash: String,
    amount_msat: u64,
    asset_id: Option<String>,
    asset_amount: Option<u64>,
    description_hash: String,
    invoice_expiry_sec: u32,
    min_final_cltv_expiry_delta: u16,
    claim_session_id: Option<String>,
}

impl WireParams {
    /// Reads the JSON text of `params`: one object, every member known and given once. `null` equals absent where a
    /// member may be absent. Canonical request bytes read back as the request they were made of.
    ///
    /// # Errors
    /// [`RpcError::invalid_params`] for the shape; then, in this order, [`RpcError::invalid_hash_index`],
    /// [`RpcError::invalid_payment_hash`], [`RpcError::invalid_description_hash`],
    /// [`RpcError::invalid_claim_session_id`]. None of them burns a key.
    pub fn parse(json: &str) -> Result<Self, RpcError> {
        let members = Members::read(json).ok_or_else(RpcError::invalid_params)?;
        // `u64::from_str` takes what the table allows and no more: leading zeros and one plus, no blanks, no minus.
        let hash_index = members.hash_index.parse().map_err(|_| RpcError::invalid_hash_index())?;
        let payment_hash = decode_hex32(&members.payment_hash).ok_or_else(RpcError::invalid_payment_hash)?;
        let description_hash =
            decode_hex32(members.description_hash.trim()).ok_or_else(RpcError::invalid_description_hash)?;
        let claim_session_id = members.claim_session_id;
        if claim_session_id.as_ref().is_some_and(|id| !(1..=255).contains(&id.len())) {
            return Err(RpcError::invalid_claim_session_id());
        }
        let params = InvoiceParams {
            hash_index,
            payment_hash,
            amount_msat: members.amount_msat,
            asset_id: members.asset_id,
            asset_amount: members.asset_amount,
            description_hash,
            invoice_expiry_sec: members.invoice_expiry_sec,
            min_final_cltv_expiry_delta: members.min_final_cltv_expiry_delta,
        };
        Ok(Self { params, claim_session_id })
    }

    /// The id of the key: `claim_session_id`, or else the canonical text of the payment hash. (Issue 31 names the
    /// first, today's wire has only the second.)
    #[must_use]
    pub fn session_id(&self) -> String {
        self.claim_session_id.clone().unwrap_or_else(|| encode_hex32(&self.params.payment_hash))
    }
}

impl Members {
    /// `None` also for a positional array, which a derived `Deserialize` would take.
    fn read(json: &str) -> Option<Self> {
        if json.trim_start().starts_with('{') { serde_json::from_str(json).ok() } else { None }
    }
}

impl InvoiceParams {
    /// The canonical request: compact JSON of the eight members in the order of this struct, `hash_index` a plain
    /// decimal string, hashes in lower case, an absent member left out.
    ///
    /// The fingerprint is taken from these bytes and the record keeps them, so they never change.
    #[must_use]
    pub fn canonical(&self) -> String {
        let mut json = format!(
            r#"{{"hash_index":"{}","payment_hash":"{}","amount_msat":{}"#,
            self.hash_index,
            encode_hex32(&self.payment_hash),
            self.amount_msat
        );
        if let Some(asset_id) = &self.asset_id {
            json += &format!(r#","asset_id":{}"#, json_string(asset_id));
        }
        if let Some(asset_amount) = self.asset_amount {
            json += &format!(r#","asset_amount":{asset_amount}"#);
        }
        json += &format!(
            r#","description_hash":"{}","invoice_expiry_sec":{},"min_final_cltv_expiry_delta":{}}}"#,
            encode_hex32(&self.description_hash),
            self.invoice_expiry_sec,
            self.min_final_cltv_expiry_delta
        );
        json
    }
}

impl fmt::Debug for InvoiceParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InvoiceParams").finish_non_exhaustive()
    }
}

impl fmt::Debug for WireParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WireParams").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn b() -> Value {
        json!({
            "hash_index": "7",
            "payment_hash": "5c".repeat(32),
            "amount_msat": 5_000_000,
            "description_hash": "e1".repeat(32),
            "invoice_expiry_sec": 600,
            "min_final_cltv_expiry_delta": 30,
        })
    }

    fn with(changes: &[(&str, Value)]) -> String {
        let mut params = b();
        for (member, value) in changes {
            params[member] = value.clone();
        }
        params.to_string()
    }

    fn message(json: &str) -> String {
        WireParams::parse(json).err().map(|error| error.message().to_owned()).unwrap_or_default()
    }

    #[test]
    fn the_canonical_bytes_are_frozen() {
        let bare = WireParams::parse(&b().to_string()).unwrap().params;
        assert_eq!(
            bare.canonical(),
            concat!(
                r#"{"hash_index":"7","payment_hash":"5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c","#,
                r#""amount_msat":5000000,"#,
                r#""description_hash":"e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1","#,
                r#""invoice_expiry_sec":600,"min_final_cltv_expiry_delta":30}"#
            )
        );
        let asset_id = "rgb:\"\\/\u{8}\u{c}\n\u{1}\u{7f}\u{2028}\u{e9}";
        let full = InvoiceParams { asset_id: Some(asset_id.into()), asset_amount: Some(0), ..bare };
        let asset = concat!(
            r#""amount_msat":5000000,"asset_id":"rgb:\"\\/\b\f\n\u0001"#,
            "\u{7f}\u{2028}\u{e9}",
            r#"","asset_amount":0,"description_hash""#
        );
        assert!(full.canonical().contains(asset), "{}", full.canonical());
    }

    #[test]
    fn another_spelling_is_the_same_request() {
        let first = WireParams::parse(&b().to_string()).unwrap();
        let spelled = with(&[
            ("hash_index", "007".into()),
            ("payment_hash", "5C5c".repeat(16).into()),
            ("description_hash", format!(" \t{}\n", "E1".repeat(32)).into()),
            ("asset_id", Value::Null),
            ("asset_amount", Value::Null),
            ("claim_session_id", Value::Null),
        ]);
        assert_eq!(WireParams::parse(&spelled).unwrap(), first);
        assert_eq!(WireParams::parse(&with(&[("hash_index", "+7".into())])).unwrap(), first);
        assert_eq!(first.session_id(), "5c".repeat(32));
    }

    #[test]
    fn each_canonical_form_names_its_own_error_and_the_first_wins() {
        for index in ["", "7 ", " 7", "-7", "-0", "+", "++7", "7.0", "0x7", "18446744073709551616"] {
            assert_eq!(message(&with(&[("hash_index", index.into())])), "invalid_hash_index", "{index:?}");
        }
        let hashes = ["5c".repeat(31), "5c".repeat(32) + "5", "zz".repeat(32), "+f".repeat(32), "é".repeat(32)];
        for hash in hashes {
            assert_eq!(message(&with(&[("payment_hash", hash.clone().into())])), "invalid_payment_hash");
            assert_eq!(message(&with(&[("description_hash", hash.into())])), "invalid_description_hash");
        }
        let padded = format!(" {}", "5c".repeat(32));
        assert_eq!(message(&with(&[("payment_hash", padded.into())])), "invalid_payment_hash");
        for session in [String::new(), "s".repeat(256)] {
            assert_eq!(message(&with(&[("claim_session_id", session.into())])), "invalid_claim_session_id");
        }
        let mut wrong = vec![
            ("claim_session_id", Value::from("")),
            ("description_hash", "".into()),
            ("payment_hash", "".into()),
            ("hash_index", "".into()),
        ];
        for error in
            ["invalid_hash_index", "invalid_payment_hash", "invalid_description_hash", "invalid_claim_session_id"]
        {
            assert_eq!(message(&with(&wrong)), error);
            wrong.pop();
        }
    }

    #[test]
    fn a_wrong_type_a_missing_an_unknown_or_a_doubled_member_is_refused() {
        let wrong = [
            ("hash_index", json!(7)),
            ("payment_hash", Value::Null),
            ("amount_msat", json!("5000000")),
            ("amount_msat", json!(5.5)),
            ("amount_msat", json!(5e6)),
            ("amount_msat", json!(-1)),
            ("amount_msat", Value::Null),
            ("asset_id", json!(1)),
            ("asset_amount", json!("1")),
            ("invoice_expiry_sec", json!(-1)),
            ("invoice_expiry_sec", json!(4_294_967_296_u64)),
            ("min_final_cltv_expiry_delta", json!(70_000)),
            ("claim_session_id", json!(9)),
            ("memo", json!("x")),
            ("memo", Value::Null),
        ];
        for change in wrong {
            assert_eq!(message(&with(std::slice::from_ref(&change))), "invalid_request_invoice_params", "{change:?}");
        }
        for member in b().as_object().unwrap().keys() {
            let mut params = b();
            params.as_object_mut().unwrap().remove(member);
            assert_eq!(message(&params.to_string()), "invalid_request_invoice_params", "without {member}");
        }
        let doubled = b().to_string().replacen('{', r#"{"hash_index":"7","#, 1);
        assert_eq!(message(&doubled), "invalid_request_invoice_params");
        let positional = json!(["7", "5c".repeat(32), 1, null, null, "e1".repeat(32), 600, 30, null]);
        assert_eq!(message(&positional.to_string()), "invalid_request_invoice_params");
        let wrong_shape_first = with(&[("hash_index", "".into()), ("memo", 1.into())]);
        assert_eq!(message(&wrong_shape_first), "invalid_request_invoice_params");
    }

    #[test]
    fn the_session_is_part_of_the_key_and_not_of_the_request() {
        let session = "s".repeat(255);
        let wire = WireParams::parse(&with(&[("claim_session_id", session.clone().into())])).unwrap();
        assert_eq!(wire.session_id(), session);
        assert_eq!(wire.params, WireParams::parse(&b().to_string()).unwrap().params);
    }

    #[test]
    fn debug_shows_nothing_of_the_request() {
        let wire = WireParams::parse(&with(&[("asset_id", "canary".into())])).unwrap();
        assert_eq!(format!("{wire:?} {:?}", wire.params), "WireParams { .. } InvoiceParams { .. }");
    }

    prop_compose! {
        fn any_params()(
            hash_index in any::<u64>(),
            payment_hash in any::<[u8; 32]>(),
            amount_msat in any::<u64>(),
            asset_id in any::<Option<String>>(),
            asset_amount in any::<Option<u64>>(),
            description_hash in any::<[u8; 32]>(),
            invoice_expiry_sec in any::<u32>(),
            min_final_cltv_expiry_delta in any::<u16>(),
        ) -> InvoiceParams {
            InvoiceParams {
                hash_index, payment_hash, amount_msat, asset_id, asset_amount, description_hash, invoice_expiry_sec,
                min_final_cltv_expiry_delta,
            }
        }
    }

    proptest! {
        #[test]
        fn canonical_bytes_read_back_as_the_same_request(params in any_params()) {
            let canonical = params.canonical();
            let read = WireParams::parse(&canonical).unwrap();
            prop_assert_eq!(&read.params, &params);
            prop_assert_eq!(read.params.canonical(), canonical);
        }

        #[test]
        fn different_requests_have_different_bytes(a in any_params(), b in any_params()) {
            prop_assert_eq!(a.canonical() == b.canonical(), a == b);
        }
    }
}
