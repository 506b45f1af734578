//! What a request is filed under: flow, scope and id, as bytes that cannot be confused with another key's.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::bounds::{FLOW_NAME_BYTES, KEY_PART_BYTES};

/// Flow + scope + id: the name under which a request runs at most once.
///
/// The *flow* is the kind of operation, the *scope* the authenticated principal (for Lightning the 33-byte
/// `lsp_node_id`), the *id* what the caller repeats on a retry. Scope and id hold 1 to 255 bytes each. The canonical form
/// is length-prefixed, `len(flow) flow len(scope) scope id` with one byte per length, so no choice of bytes makes two
/// different triples meet.
///
/// Made by [`Flow::key`](crate::Flow::key). `Debug` and `Display` show the flow, the lengths and a short digest, never
/// the bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    bytes: Arc<[u8]>,
}

/// Why a flow name, a scope, an id or a node id was not accepted. Nothing was looked up and nothing ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidKey {
    /// A flow's name holds 1 to 64 bytes; this one had the given number.
    FlowLength(usize),
    /// A scope holds 1 to 255 bytes; this one had the given number.
    ScopeLength(usize),
    /// An id holds 1 to 255 bytes; this one had the given number.
    IdLength(usize),
    /// The key was made by another flow than the one it was used with.
    OtherFlow,
    /// A node id is 33 bytes, or 66 hex digits, that begin with 02 or 03.
    NotANodeId,
}

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FlowLength(n) => write!(f, "a flow name holds 1 to {FLOW_NAME_BYTES} bytes, not {n}"),
            Self::ScopeLength(n) => write!(f, "a scope holds 1 to {KEY_PART_BYTES} bytes, not {n}"),
            Self::IdLength(n) => write!(f, "an id holds 1 to {KEY_PART_BYTES} bytes, not {n}"),
            Self::OtherFlow => f.write_str("the key belongs to another flow"),
            Self::NotANodeId => f.write_str("a node id is 33 bytes that begin with 02 or 03"),
        }
    }
}

impl std::error::Error for InvalidKey {}

impl Key {
    pub(crate) fn new(flow: &str, scope: &[u8], id: &[u8]) -> Result<Self, InvalidKey> {
        let flow_len = part_length(flow.as_bytes(), FLOW_NAME_BYTES).ok_or(InvalidKey::FlowLength(flow.len()))?;
        let scope_len = part_length(scope, KEY_PART_BYTES).ok_or(InvalidKey::ScopeLength(scope.len()))?;
        part_length(id, KEY_PART_BYTES).ok_or(InvalidKey::IdLength(id.len()))?;
        let mut bytes = Vec::with_capacity(2 + flow.len() + scope.len() + id.len());
        bytes.push(flow_len);
        bytes.extend_from_slice(flow.as_bytes());
        bytes.push(scope_len);
        bytes.extend_from_slice(scope);
        bytes.extend_from_slice(id);
        Ok(Self { bytes: bytes.into() })
    }

    /// Reads the canonical form back, as a store does. `None` unless [`Key::as_bytes`] could have made these bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (flow, rest) = split_part(bytes)?;
        let (scope, id) = split_part(rest)?;
        Self::new(std::str::from_utf8(flow).ok()?, scope, id).ok()
    }

    /// The canonical form: `len(flow) flow len(scope) scope id`.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The flow's name.
    #[must_use]
    pub fn flow(&self) -> &str {
        split_part(&self.bytes).and_then(|(flow, _)| std::str::from_utf8(flow).ok()).unwrap_or_default()
    }

    /// The principal's bytes.
    #[must_use]
    pub fn scope(&self) -> &[u8] {
        split_part(&self.bytes).and_then(|(_, rest)| split_part(rest)).map_or(&[], |(scope, _)| scope)
    }

    /// The bytes that the caller repeats on a retry.
    #[must_use]
    pub fn id(&self) -> &[u8] {
        split_part(&self.bytes).and_then(|(_, rest)| split_part(rest)).map_or(&[], |(_, id)| id)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = Sha256::digest(&self.bytes);
        write!(f, "{} scope:{}B id:{}B #", self.flow(), self.scope().len(), self.id().len())?;
        digest.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A Lightning node's public key, the 33-byte compressed form that LDK authenticates.
///
/// This is the scope of system 1: take it from the transport, never from a field of the message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 33]);

impl NodeId {
    /// # Errors
    /// [`InvalidKey::NotANodeId`] when the first byte is neither 02 nor 03. Whether the point lies on the curve is the
    /// transport's business: it has completed a handshake with this key.
    pub fn new(bytes: [u8; 33]) -> Result<Self, InvalidKey> {
        match bytes {
            [2 | 3, ..] => Ok(Self(bytes)),
            _ => Err(InvalidKey::NotANodeId),
        }
    }

    /// Reads 66 hex digits of any case.
    ///
    /// # Errors
    /// [`InvalidKey::NotANodeId`].
    pub fn from_hex(hex: &str) -> Result<Self, InvalidKey> {
        decode_hex(hex).ok_or(InvalidKey::NotANodeId).and_then(Self::new)
    }

    /// 66 lower-case hex digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        encode_hex(&self.0)
    }
}

impl AsRef<[u8]> for NodeId {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

pub(crate) fn encode_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Exactly `2 * N` hex digits of any case.
pub(crate) fn decode_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digits = hex.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            *byte = (*byte << 4) | u8::try_from(char::from(*digit).to_digit(16)?).ok()?;
        }
    }
    Some(bytes)
}

fn part_length(part: &[u8], most: usize) -> Option<u8> {
    if part.is_empty() || part.len() > most { None } else { u8::try_from(part.len()).ok() }
}

fn split_part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_outside_their_bounds_are_refused_by_name() {
        assert_eq!(Key::new("", b"s", b"i"), Err(InvalidKey::FlowLength(0)));
        assert_eq!(Key::new(&"f".repeat(65), b"s", b"i"), Err(InvalidKey::FlowLength(65)));
        assert_eq!(Key::new("f", b"", b"i"), Err(InvalidKey::ScopeLength(0)));
        assert_eq!(Key::new("f", &[0; 256], b"i"), Err(InvalidKey::ScopeLength(256)));
        assert_eq!(Key::new("f", b"s", b""), Err(InvalidKey::IdLength(0)));
        assert_eq!(Key::new("f", b"s", &[0; 256]), Err(InvalidKey::IdLength(256)));
        assert!(Key::new(&"f".repeat(64), &[0; 255], &[0; 255]).is_ok());
    }

    #[test]
    fn debug_shows_no_byte_of_scope_or_id() {
        let key = Key::new("flow", b"canary-scope", b"canary-id").unwrap();
        assert!(!format!("{key:?}").contains("canary"));
    }

    #[test]
    fn a_node_id_is_33_bytes_with_a_compressed_prefix() {
        let hex = format!("02{}", "Ab".repeat(32));
        assert_eq!(NodeId::from_hex(&hex).unwrap().to_hex(), hex.to_lowercase());
        for bad in [format!("04{}", "ab".repeat(32)), "02ab".into(), format!("02{}", "zz".repeat(32)), hex + "a"] {
            assert_eq!(NodeId::from_hex(&bad), Err(InvalidKey::NotANodeId));
        }
    }

    proptest! {
        #[test]
        fn different_triples_never_share_bytes_and_read_back(
            a in ("[a-z]{1,4}", prop::collection::vec(0u8..4, 1..5), prop::collection::vec(0u8..4, 1..5)),
            b in ("[a-z]{1,4}", prop::collection::vec(0u8..4, 1..5), prop::collection::vec(0u8..4, 1..5)),
        ) {
            let (key_a, key_b) = (Key::new(&a.0, &a.1, &a.2).unwrap(), Key::new(&b.0, &b.1, &b.2).unwrap());
            prop_assert_eq!(key_a == key_b, a == b);
            prop_assert_eq!(Key::from_bytes(key_a.as_bytes()), Some(key_a.clone()));
            prop_assert_eq!((key_a.flow(), key_a.scope(), key_a.id()), (a.0.as_str(), a.1.as_slice(), a.2.as_slice()));
        }
    }
}
