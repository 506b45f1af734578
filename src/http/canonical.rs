//! The bytes by which two requests are the same or not.

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// The version of the form below, its first byte: a record of another version is another request.
const VERSION: u8 = 1;

/// What is the same in a retry.
pub(super) struct Request<'a> {
    /// Path and query as they were received.
    pub(super) target: &'a [u8],
    /// Each of its lines: none is not an empty one.
    pub(super) content_type: Vec<&'a [u8]>,
    pub(super) body: &'a [u8],
    /// The fields that the route has opted in, by name, each with its lines.
    pub(super) headers: Vec<(&'a str, Vec<&'a [u8]>)>,
}

/// How a route reads bodies.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    pub(super) canonical_json: bool,
    /// Members of a JSON object that are left out.
    pub(super) without: Vec<Box<str>>,
}

impl Request<'_> {
    /// The version and a SHA-256 over every part with its length. The request itself is not kept: a retry brings it along, and
    /// what a client sends may be nothing to keep.
    pub(super) fn canonical(&self, reading: &Reading) -> [u8; 33] {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(b"ibid/http/request/v1");
        part(self.target);
        part(&(self.content_type.len() as u64).to_be_bytes());
        self.content_type.iter().for_each(|line| part(line));
        match reading.canonical_json.then(|| canonical_json(self.body, &reading.without)).flatten() {
            Some(json) => {
                part(b"json");
                part(&json);
            }
            None => {
                part(b"raw");
                part(self.body);
            }
        }
        for (name, values) in &self.headers {
            part(name.as_bytes());
            part(&(values.len() as u64).to_be_bytes());
            values.iter().for_each(|value| part(value));
        }
        let mut canonical = [VERSION; 33];
        let (_, digest) = canonical.split_at_mut(1);
        digest.copy_from_slice(&hash.finalize());
        canonical
    }
}

/// The one form of a JSON text that says the same (RFC 8785), without these members of its object. `None` unless it is I-JSON
/// (RFC 7493): where a name occurs twice or a number holds more than a double does, two texts may say different things to
/// different readers, and count as they are.
fn canonical_json(text: &[u8], without: &[Box<str>]) -> Option<Vec<u8>> {
    // First, since this bounds how deep it goes.
    let mut value: serde_json::Value = serde_json::from_slice(text).ok()?;
    serde_json::from_slice::<IJson>(text).ok()?;
    if let Some(object) = value.as_object_mut() {
        object.retain(|name, _| !without.iter().any(|left_out| **left_out == *name));
    }
    serde_json_canonicalizer::to_vec(&value).ok()
}

/// A JSON text that every reader takes for the same. (RFC 7493)
struct IJson;

impl<'de> Deserialize<'de> for IJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?.get();
        let inside = match text.as_bytes().first() {
            Some(b'{') => serde_json::Deserializer::from_str(text).deserialize_map(Inside),
            Some(b'[') => serde_json::Deserializer::from_str(text).deserialize_seq(Inside),
            Some(b'"') => serde_json::from_str::<String>(text).map(|_| Self),
            Some(b'-' | b'0'..=b'9') if !is_double(text) => Err(serde_json::Error::custom("more than a double")),
            _ => Ok(Self),
        };
        inside.map_err(D::Error::custom)
    }
}

struct Inside;

impl<'de> Visitor<'de> for Inside {
    type Value = IJson;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("I-JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<IJson, A::Error> {
        let mut names = std::collections::BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            // What a serde_json with `arbitrary_precision` takes for a number.
            if name == "$serde_json::private::Number" {
                return Err(A::Error::custom("a name that stands for something else"));
            }
            if !names.insert(name) {
                return Err(A::Error::custom("a name occurs twice"));
            }
            map.next_value::<IJson>()?;
        }
        Ok(IJson)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<IJson, A::Error> {
        while seq.next_element::<IJson>()?.is_some() {}
        Ok(IJson)
    }
}

/// Whether the number is what a double of it reads as, digit for digit.
fn is_double(text: &str) -> bool {
    let Ok(double) = text.parse::<f64>() else { return false };
    double.is_finite() && digits(text) == digits(&format!("{double:e}"))
}

/// A decimal number as its sign, its significant digits and the power of ten of the first. Zero has no digits, and no sign: a
/// double's is not told apart in JSON's canonical form either.
fn digits(text: &str) -> Option<(bool, String, i64)> {
    let (is_negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0');
    let leading = i64::try_from(all.len() - significant.len()).ok()?;
    let significant = significant.trim_end_matches('0');
    if significant.is_empty() {
        return Some((false, String::new(), 0));
    }
    let power = exponent.parse::<i64>().ok()?.checked_add(i64::try_from(whole.len()).ok()?)?.checked_sub(leading)?;
    Some((is_negative, significant.to_owned(), power))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &[u8]) -> Request<'_> {
        Request { target: b"/pay?a=1", content_type: vec![b"application/json"], body, headers: Vec::new() }
    }

    fn raw(request: &Request<'_>) -> [u8; 33] {
        request.canonical(&Reading::default())
    }

    fn json(body: &str) -> [u8; 33] {
        request(body.as_bytes()).canonical(&Reading { canonical_json: true, without: vec!["nonce".into()] })
    }

    #[test]
    fn every_part_counts_and_absent_is_not_empty() {
        let same = raw(&request(b"x"));
        assert_eq!(same, raw(&request(b"x")));
        let others = [
            Request { target: b"/pay?a=2", ..request(b"x") },
            Request { content_type: vec![], ..request(b"x") },
            Request { content_type: vec![b""], ..request(b"x") },
            Request { content_type: vec![b"application/json "], ..request(b"x") },
            Request { headers: vec![("x-tenant", vec![])], ..request(b"x") },
            Request { headers: vec![("x-tenant", vec![b"a"])], ..request(b"x") },
            Request { headers: vec![("x-tenant", vec![b"a", b""])], ..request(b"x") },
            request(b"y"),
            request(b""),
        ];
        let mut all: Vec<_> = others.iter().map(raw).chain([same]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), others.len() + 1);
    }

    #[test]
    fn the_form_of_version_1_is_frozen() {
        let request = Request { headers: vec![("x-tenant", vec![b"a"])], ..request(b"{}") };
        let hex = |bytes: [u8; 33]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(raw(&request)), "01a939923894d8fb48bf69e076972a0bfd5b92477f616ba27a1f1f90691662f49d");
    }

    #[test]
    fn json_that_says_the_same_is_the_same_and_members_can_be_left_out() {
        let same = json(r#"{"amt":1,"to":"é","nested":[1.0,{"b":2,"a":1}]}"#);
        for other in [
            r#" { "to" : "\u00e9", "nested":[1,{"a":1e0,"b":2.00}],"amt":1 } "#,
            r#"{"nonce":7,"amt":1,"to":"é","nested":[1,{"b":2,"a":1}]}"#,
            r#"{"amt":10e-1,"to":"é","nested":[0.01e2,{"b":2,"a":1}],"nonce":{}}"#,
        ] {
            assert_eq!(json(other), same, "{other}");
        }
        for other in [
            r#"{"amt":2,"to":"é","nested":[1,{"b":2,"a":1}]}"#,
            r#"{"amt":1,"to":"é","nested":[{"b":2,"a":1},1]}"#,
            r#"{"amt":"1","to":"é","nested":[1,{"b":2,"a":1}]}"#,
            r#"{"amt":1,"to":"é","nested":[1,{"b":2,"a":1,"nonce":1}]}"#,
        ] {
            assert_ne!(json(other), same, "{other}");
        }
    }

    #[test]
    fn what_two_readers_may_take_for_different_things_counts_as_it_is() {
        for text in [
            r#"{"a":1,"a":2}"#,
            r#"[{"a":1,"\u0061":1}]"#,
            r#"{"n":{"$serde_json::private::Number":"1"}}"#,
            "9007199254740993",
            "1e400",
            "-1e400",
            "0.1000000000000000055511151231257827",
            "123456789012345678901",
            r#""\ud800""#,
            "{",
            "",
            "nul",
            "1 2",
        ] {
            assert_eq!(canonical_json(text.as_bytes(), &[]), None, "{text}");
            assert_ne!(json(text), json(&format!("{text} ")), "{text}");
        }
        for text in
            ["9007199254740992", "0.1", "-0", "0.0", "1e22", "5e-324", "100", "1.50", "-12.5e-3", "null", "\"x\""]
        {
            assert!(canonical_json(text.as_bytes(), &[]).is_some(), "{text}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(canonical_json(deep.as_bytes(), &[]), None);
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        assert_eq!(canonical_json(deep.as_bytes(), &[]), None, "nobody nests like this");
    }
}
