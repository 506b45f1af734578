//! What a request is filed under: flow, scope and id, as bytes that cannot be confused with another key's.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

use crate::bounds::{FLOW_NAME_BYTES, KEY_PART_BYTES};

/// Flow + scope + id: the name under which a request runs at most once.
///
/// The *flow* is the kind of operation, the *scope* the authenticated principal (for Lightning the 33-byte
/// `lsp_node_id`), the *id* what the caller repeats on a retry. Scope and id hold 1 to 255 bytes each. The canonical form
/// is length-prefixed, `len(flow) flow len(scope) scope id` with one byte per length, so no choice of bytes makes two
/// different triples meet.
///
/// Made by [`Flow::key`](crate::Flow::key). `Debug` and `Display` show the flow, the lengths and a short tag, never the
/// bytes: the lines of one process about one key have the same tag. It is keyed with a secret of the process, so nobody who
/// reads a log can find out by guessing whose key it is.
#[derive(Clone)]
pub struct Key {
    bytes: Arc<[u8]>,
    /// Of the bytes, keyed with a secret of the process: what is in flight is looked up by its key many times a request.
    hash: u64,
}

/// By key, without hashing it anew.
pub(crate) type KeyMap<V> = HashMap<Key, V, BuildHasherDefault<Hashed>>;

/// Passes on the hash that a key comes with.
#[derive(Default)]
pub(crate) struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    /// For nothing that a key does.
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }
}

/// Why a flow name, a scope, an id or a node id was not accepted. Nothing was looked up and nothing ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidKey {
    /// A flow's name holds 1 to 255 bytes; this one had the given number.
    FlowLength(usize),
    /// The engine itself uses the flow name `ibid.rows`.
    FlowReserved,
    /// A [replay-safe](crate::Policy::replay_safe) flow must re-run what is in doubt, and its records must end by time or by name.
    FlowNotReplaySafe,
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
            Self::FlowReserved => f.write_str("this flow name is the engine's own"),
            Self::FlowNotReplaySafe => {
                f.write_str("this policy needs a registration, which a replay-safe flow has none of")
            }
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
        // Not the secret of the tags: those are shown, and would help to find keys that collide.
        static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Ok(Self { hash: SECRET.hash_one(&*bytes), bytes: bytes.into() })
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

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.bytes == other.bytes
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By the canonical form.
impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes.cmp(&other.bytes)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} scope:{}B id:{}B {}", self.flow(), self.scope().len(), self.id().len(), tag(&self.bytes))
    }
}

/// A Lightning node's public key, the 33-byte compressed form that LDK authenticates.
///
/// This is the scope of system 1: take it from the transport, never from a field of the message. `Display` shows it in full,
/// `Debug` a short tag, as [`Key`] does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 33]);

impl NodeId {
    /// The node of this compressed public key.
    ///
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
        write!(f, "NodeId({})", tag(&self.0))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

/// What a log may show in place of `bytes`: `#` and eight hex digits, the same for the same bytes as long as the process
/// lives, and of no use to who does not know the process's secret.
pub(crate) fn tag(bytes: &[u8]) -> String {
    static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let [.., a, b, c, d] = SECRET.hash_one(bytes).to_be_bytes();
    format!("#{a:02x}{b:02x}{c:02x}{d:02x}")
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
        assert_eq!(Key::new(&"f".repeat(256), b"s", b"i"), Err(InvalidKey::FlowLength(256)));
        assert_eq!(Key::new("f", b"", b"i"), Err(InvalidKey::ScopeLength(0)));
        assert_eq!(Key::new("f", &[0; 256], b"i"), Err(InvalidKey::ScopeLength(256)));
        assert_eq!(Key::new("f", b"s", b""), Err(InvalidKey::IdLength(0)));
        assert_eq!(Key::new("f", b"s", &[0; 256]), Err(InvalidKey::IdLength(256)));
        let longest = Key::new(&"f".repeat(255), &[0; 255], &[0; 255]).unwrap();
        assert_eq!(Key::from_bytes(longest.as_bytes()), Some(longest));
    }

    #[test]
    fn a_refusal_says_what_was_wrong_and_shows_nothing_of_it() {
        for (invalid, text) in [
            (InvalidKey::FlowLength(256), "a flow name holds 1 to 255 bytes, not 256"),
            (InvalidKey::ScopeLength(0), "a scope holds 1 to 255 bytes, not 0"),
            (InvalidKey::IdLength(256), "an id holds 1 to 255 bytes, not 256"),
            (InvalidKey::FlowReserved, "this flow name is the engine's own"),
            (InvalidKey::FlowNotReplaySafe, "this policy needs a registration, which a replay-safe flow has none of"),
            (InvalidKey::OtherFlow, "the key belongs to another flow"),
            (InvalidKey::NotANodeId, "a node id is 33 bytes that begin with 02 or 03"),
        ] {
            assert_eq!(invalid.to_string(), text);
        }
    }

    #[test]
    fn a_key_shows_its_flow_its_lengths_and_a_tag_and_no_byte_of_scope_or_id() {
        let key = Key::new("flow", b"canary-scope", b"canary-id").unwrap();
        let tag = tag(key.as_bytes());
        assert_eq!(key.to_string(), format!("flow scope:12B id:9B {tag}"));
        assert_eq!(format!("{key:?}"), format!("Key(flow scope:12B id:9B {tag})"));
    }

    #[test]
    fn keys_are_in_the_order_of_their_bytes() {
        let [a, b] = [b"1", b"2"].map(|id| Key::new("f", b"s", id).unwrap());
        assert_eq!(a.partial_cmp(&b), Some(Ordering::Less));
        assert_eq!((b.cmp(&a), a.cmp(&a.clone())), (Ordering::Greater, Ordering::Equal));
    }

    #[test]
    fn what_hashes_itself_byte_by_byte_is_told_apart_by_them() {
        let hash = |bytes: &[u8]| {
            let mut hasher = Hashed::default();
            hasher.write(bytes);
            hasher.finish()
        };
        assert_eq!(hash(b"ab"), hash(b"ab"));
        assert_ne!(hash(b"ab"), hash(b"ba"));
    }

    #[test]
    fn a_node_id_shows_itself_when_asked_and_a_tag_in_debug() {
        let node = NodeId::new([3; 33]).unwrap();
        assert_eq!(node.to_string(), "03".repeat(33));
        assert_eq!(node.as_ref(), [3; 33]);
        assert_eq!(format!("{node:?}"), format!("NodeId({})", tag(&[3; 33])));
    }

    #[test]
    fn a_tag_is_nine_characters_and_no_digest_that_somebody_else_could_compute() {
        let (one, other) = (tag(b"one"), tag(b"other"));
        assert_eq!((tag(b"one"), one.len()), (one.clone(), 9));
        assert!(one.starts_with('#') && one[1..].chars().all(|digit| digit.is_ascii_hexdigit()), "{one}");
        assert_ne!(one, other);
        // The same bytes under another secret, as another process has one.
        let elsewhere = (0..8).map(|_| RandomState::new().hash_one(b"one".as_slice()) as u32);
        assert!(elsewhere.map(|hash| format!("#{hash:08x}")).any(|tag| tag != one));
        let digest = <sha2::Sha256 as sha2::Digest>::digest(b"one");
        assert_ne!(one[1..], encode_hex(&digest[..4]), "not the plain digest that anybody could compute");
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
            prop_assert_eq!(key_a.as_bytes() == key_b.as_bytes(), a == b);
            prop_assert_eq!(Key::from_bytes(key_a.as_bytes()), Some(key_a.clone()));
            prop_assert_eq!(key_a.cmp(&key_b), key_a.as_bytes().cmp(key_b.as_bytes()));
            let again = Key::from_bytes(key_a.as_bytes()).unwrap();
            let found = KeyMap::from_iter([(key_a.clone(), 'a'), (key_b.clone(), 'b')]);
            prop_assert_eq!((found.len() == 1, found.get(&again) == found.get(&key_a)), (key_a == key_b, true));
            prop_assert_eq!((key_a.flow(), key_a.scope(), key_a.id()), (a.0.as_str(), a.1.as_slice(), a.2.as_slice()));
        }
    }
}
