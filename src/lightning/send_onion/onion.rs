//! What is to be sent: checked once, and written in one canonical form.

use std::collections::BTreeMap;
use std::fmt;

use crate::NodeId;

/// Bytes of an onion packet: version, ephemeral key, 1,300 of hops, HMAC. (BOLT 4)
pub const ONION_BYTES: usize = 1_366;

/// TLV types below this one belong to the protocol. (BOLT 1, lnd's `custom_records`)
const FIRST_CUSTOM_TYPE: u64 = 65_536;

/// Of the canonical form. A change of the form needs a new one, and makes retries of old requests other requests.
const VERSION: u8 = 1;
const BY_CHANNEL: u8 = 1;
const BY_NODE: u8 = 2;

/// An onion as a transport delivers it, not checked yet. [`Onion::try_from`] checks it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct WireOnion {
    /// The first hop by its channel (short channel id). Either this or `first_hop_node`.
    pub first_hop_channel: Option<u64>,
    /// The first hop by its node: 33 bytes.
    pub first_hop_node: Option<Vec<u8>>,
    /// What the first hop receives, in msat, more than zero.
    pub amount_msat: u64,
    /// 32 bytes.
    pub payment_hash: Vec<u8>,
    /// The block height at which the first HTLC times out.
    pub timelock_height: u32,
    /// Exactly [`ONION_BYTES`].
    pub onion: Vec<u8>,
    /// The point of a blinded route that begins here: 33 bytes.
    pub blinding_point: Option<Vec<u8>>,
    /// TLV records for the first hop, type and value, in any order; types from 65,536, each once.
    pub custom_records: Vec<(u64, Vec<u8>)>,
}

/// An onion that is well formed in itself: there is nothing about it that could be right at another time.
///
/// Two sends are the same request when their [canonical bytes](Onion::canonical) are equal. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Onion {
    first_hop: FirstHop,
    amount_msat: u64,
    payment_hash: [u8; 32],
    timelock_height: u32,
    packet: Box<[u8; ONION_BYTES]>,
    blinding_point: Option<[u8; 33]>,
    custom_records: BTreeMap<u64, Vec<u8>>,
}

/// Where the onion goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstHop {
    /// Over this channel (short channel id).
    Channel(u64),
    /// To this peer, over any channel.
    Node(NodeId),
}

/// Why an onion was refused unread: nothing was looked up, no record was made, and the attempt id is as free as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidOnion {
    /// Neither a channel nor a node to go to first.
    FirstHopMissing,
    /// A channel and a node.
    FirstHopTwice,
    /// The node to go to first is not 33 bytes that begin with 02 or 03.
    FirstHopNode,
    /// An amount of zero.
    Amount,
    /// The payment hash holds this many bytes, not 32.
    PaymentHash(usize),
    /// The onion holds this many bytes, not [`ONION_BYTES`].
    OnionLength(usize),
    /// The blinding point is not 33 bytes that begin with 02 or 03.
    BlindingPoint,
    /// A custom record of a type below 65,536.
    CustomRecordType(u64),
    /// Two custom records of this type.
    CustomRecordTwice(u64),
}

impl TryFrom<WireOnion> for Onion {
    type Error = InvalidOnion;

    fn try_from(wire: WireOnion) -> Result<Self, InvalidOnion> {
        let first_hop = match (wire.first_hop_channel, wire.first_hop_node) {
            (None, None) => return Err(InvalidOnion::FirstHopMissing),
            (Some(_), Some(_)) => return Err(InvalidOnion::FirstHopTwice),
            (Some(channel), None) => FirstHop::Channel(channel),
            (None, Some(node)) => FirstHop::Node(node_id(&node).ok_or(InvalidOnion::FirstHopNode)?),
        };
        if wire.amount_msat == 0 {
            return Err(InvalidOnion::Amount);
        }
        let hash_length = wire.payment_hash.len();
        let onion_length = wire.onion.len();
        Ok(Self {
            first_hop,
            amount_msat: wire.amount_msat,
            payment_hash: wire.payment_hash.try_into().map_err(|_| InvalidOnion::PaymentHash(hash_length))?,
            timelock_height: wire.timelock_height,
            packet: wire.onion.try_into().map_err(|_| InvalidOnion::OnionLength(onion_length))?,
            blinding_point: wire.blinding_point.map(|point| point_of(&point)).transpose()?,
            custom_records: in_type_order(wire.custom_records)?,
        })
    }
}

fn node_id(bytes: &[u8]) -> Option<NodeId> {
    NodeId::new(bytes.try_into().ok()?).ok()
}

fn point_of(bytes: &[u8]) -> Result<[u8; 33], InvalidOnion> {
    let point: [u8; 33] = bytes.try_into().map_err(|_| InvalidOnion::BlindingPoint)?;
    if matches!(point, [2 | 3, ..]) { Ok(point) } else { Err(InvalidOnion::BlindingPoint) }
}

fn in_type_order(records: Vec<(u64, Vec<u8>)>) -> Result<BTreeMap<u64, Vec<u8>>, InvalidOnion> {
    let mut ordered = BTreeMap::new();
    for (kind, value) in records {
        if kind < FIRST_CUSTOM_TYPE {
            return Err(InvalidOnion::CustomRecordType(kind));
        }
        if ordered.insert(kind, value).is_some() {
            return Err(InvalidOnion::CustomRecordTwice(kind));
        }
    }
    Ok(ordered)
}

impl Onion {
    /// Where it goes first.
    #[must_use]
    pub fn first_hop(&self) -> FirstHop {
        self.first_hop
    }

    /// What the first hop receives, in msat.
    #[must_use]
    pub fn amount_msat(&self) -> u64 {
        self.amount_msat
    }

    /// The payment hash.
    #[must_use]
    pub fn payment_hash(&self) -> &[u8; 32] {
        &self.payment_hash
    }

    /// The block height at which the first HTLC times out.
    #[must_use]
    pub fn timelock_height(&self) -> u32 {
        self.timelock_height
    }

    /// The packet.
    #[must_use]
    pub fn packet(&self) -> &[u8; ONION_BYTES] {
        &self.packet
    }

    /// The point of a blinded route that begins here.
    #[must_use]
    pub fn blinding_point(&self) -> Option<&[u8; 33]> {
        self.blinding_point.as_ref()
    }

    /// TLV records for the first hop, in the order of their types.
    #[must_use]
    pub fn custom_records(&self) -> &BTreeMap<u64, Vec<u8>> {
        &self.custom_records
    }

    /// Everything that goes out, as the bytes that are registered: version 1, then first hop (1 and a channel, or 2 and a
    /// node), amount, payment hash, timelock, packet; the blinding point behind a byte that says whether there is one; the
    /// number of custom records, and type and value of each in the order of types. Numbers are big-endian, each field stands
    /// behind its length in four bytes.
    ///
    /// What does not go out is not in here: deadlines, credentials, trace ids, keys to read an error with.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        match self.first_hop {
            FirstHop::Channel(channel) => field(&mut bytes, &[&[BY_CHANNEL], &channel.to_be_bytes()[..]].concat()),
            FirstHop::Node(node) => field(&mut bytes, &[&[BY_NODE], node.as_ref()].concat()),
        }
        field(&mut bytes, &self.amount_msat.to_be_bytes());
        field(&mut bytes, &self.payment_hash);
        field(&mut bytes, &self.timelock_height.to_be_bytes());
        field(&mut bytes, &*self.packet);
        bytes.push(u8::from(self.blinding_point.is_some()));
        if let Some(point) = &self.blinding_point {
            field(&mut bytes, point);
        }
        bytes.extend_from_slice(&length(self.custom_records.len()));
        for (kind, value) in &self.custom_records {
            field(&mut bytes, &kind.to_be_bytes());
            field(&mut bytes, value);
        }
        bytes
    }

    /// Reads [`canonical`](Self::canonical) bytes back, as an inquiry holds them. `None` for any other bytes.
    #[must_use]
    pub fn from_canonical(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&[VERSION])?;
        let (hop, at) = take(rest)?.split_first()?;
        let (first_hop_channel, first_hop_node) = match *hop {
            BY_CHANNEL => (Some(u64::from_be_bytes(at.try_into().ok()?)), None),
            BY_NODE => (None, Some(at.to_vec())),
            _ => return None,
        };
        rest = after(rest)?;
        let mut next = || {
            let field = take(rest);
            rest = after(rest)?;
            field
        };
        let amount_msat = u64::from_be_bytes(next()?.try_into().ok()?);
        let payment_hash = next()?.to_vec();
        let timelock_height = u32::from_be_bytes(next()?.try_into().ok()?);
        let onion = next()?.to_vec();
        let (blinding_point, rest) = read_point(rest)?;
        let wire = WireOnion {
            first_hop_channel,
            first_hop_node,
            amount_msat,
            payment_hash,
            timelock_height,
            onion,
            blinding_point,
            custom_records: read_records(rest)?,
        };
        Self::try_from(wire).ok().filter(|onion| onion.canonical() == bytes)
    }
}

fn read_point(bytes: &[u8]) -> Option<(Option<Vec<u8>>, &[u8])> {
    match bytes.split_first()? {
        (0, rest) => Some((None, rest)),
        (1, rest) => Some((Some(take(rest)?.to_vec()), after(rest)?)),
        _ => None,
    }
}

fn read_records(bytes: &[u8]) -> Option<Vec<(u64, Vec<u8>)>> {
    let (count, mut rest) = bytes.split_first_chunk()?;
    let mut records = Vec::new();
    for _ in 0..u32::from_be_bytes(*count) {
        let kind = u64::from_be_bytes(take(rest)?.try_into().ok()?);
        rest = after(rest)?;
        records.push((kind, take(rest)?.to_vec()));
        rest = after(rest)?;
    }
    Some(records)
}

/// The length of what an engine admits fits four bytes many times over; a longer one is refused by its size.
fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes()
}

fn field(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend_from_slice(&length(bytes.len()));
    to.extend_from_slice(bytes);
}

/// The field at the beginning.
fn take(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

/// What stands behind it.
fn after(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(4 + take(bytes)?.len()..)
}

impl fmt::Display for InvalidOnion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstHopMissing => f.write_str("no first hop"),
            Self::FirstHopTwice => f.write_str("a channel and a node for a first hop"),
            Self::FirstHopNode => f.write_str("the first hop is not a node id"),
            Self::Amount => f.write_str("the amount is not positive"),
            Self::PaymentHash(bytes) => write!(f, "the payment hash holds {bytes} bytes, not 32"),
            Self::OnionLength(bytes) => write!(f, "the onion holds {bytes} bytes, not {ONION_BYTES}"),
            Self::BlindingPoint => f.write_str("the blinding point is not a point"),
            Self::CustomRecordType(kind) => write!(f, "the custom record type {kind} is below {FIRST_CUSTOM_TYPE}"),
            Self::CustomRecordTwice(kind) => write!(f, "two custom records of type {kind}"),
        }
    }
}

impl std::error::Error for InvalidOnion {}

impl fmt::Debug for Onion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Onion").field("custom_records", &self.custom_records.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for WireOnion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WireOnion").field("onion_bytes", &self.onion.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wire() -> WireOnion {
        WireOnion {
            first_hop_channel: Some(0x0102_0304_0506_0708),
            amount_msat: 2_000,
            payment_hash: vec![0x5c; 32],
            timelock_height: 800_000,
            onion: vec![0xaa; ONION_BYTES],
            ..WireOnion::default()
        }
    }

    fn whole() -> WireOnion {
        let point = [[2].as_slice(), &[9; 32]].concat();
        WireOnion {
            first_hop_channel: None,
            first_hop_node: Some([[3].as_slice(), &[7; 32]].concat()),
            blinding_point: Some(point),
            custom_records: vec![(65_537, Vec::new()), (65_536, b"value".to_vec())],
            ..wire()
        }
    }

    type Change = fn(&mut WireOnion);

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_canonical_form_is_frozen() {
        let middle = format!(
            "00000008{:016x}00000020{}00000004{:08x}00000556{}",
            2_000,
            "5c".repeat(32),
            800_000,
            "aa".repeat(ONION_BYTES)
        );
        let least = format!("0100000009010102030405060708{middle}0000000000");
        assert_eq!(hex(&Onion::try_from(wire()).unwrap().canonical()), least);
        let whole_form = format!(
            "01000000220203{}{middle}010000002102{}00000002{}{}",
            "07".repeat(32),
            "09".repeat(32),
            "0000000800000000000100000000000576616c7565",
            "00000008000000000001000100000000"
        );
        assert_eq!(hex(&Onion::try_from(whole()).unwrap().canonical()), whole_form);
    }

    #[test]
    fn every_field_that_goes_out_changes_the_bytes() {
        let changes: [Change; 10] = [
            |wire| wire.first_hop_channel = Some(1),
            |wire| (wire.first_hop_channel, wire.first_hop_node) = (None, Some([[3].as_slice(), &[7; 32]].concat())),
            |wire| wire.amount_msat += 1,
            |wire| wire.payment_hash[31] ^= 1,
            |wire| wire.timelock_height += 1,
            |wire| wire.onion[ONION_BYTES - 1] ^= 1,
            |wire| wire.blinding_point = Some([[2].as_slice(), &[9; 32]].concat()),
            |wire| wire.custom_records = vec![(65_536, Vec::new())],
            |wire| wire.custom_records = vec![(65_537, Vec::new())],
            |wire| wire.custom_records = vec![(65_536, vec![0])],
        ];
        let mut seen = vec![Onion::try_from(wire()).unwrap().canonical()];
        for change in changes {
            let mut changed = wire();
            change(&mut changed);
            let bytes = Onion::try_from(changed).unwrap().canonical();
            assert!(!seen.contains(&bytes));
            seen.push(bytes);
        }
        let mut turned = whole();
        turned.custom_records.reverse();
        assert_eq!(Onion::try_from(turned).unwrap(), Onion::try_from(whole()).unwrap(), "the order given is none");
    }

    #[test]
    fn what_is_malformed_is_named() {
        let cases: [(Change, InvalidOnion); 13] = [
            (|wire| wire.first_hop_channel = None, InvalidOnion::FirstHopMissing),
            (|wire| wire.first_hop_node = Some([[3].as_slice(), &[7; 32]].concat()), InvalidOnion::FirstHopTwice),
            (
                |wire| (wire.first_hop_channel, wire.first_hop_node) = (None, Some(vec![3; 32])),
                InvalidOnion::FirstHopNode,
            ),
            (
                |wire| (wire.first_hop_channel, wire.first_hop_node) = (None, Some(vec![4; 33])),
                InvalidOnion::FirstHopNode,
            ),
            (|wire| wire.amount_msat = 0, InvalidOnion::Amount),
            (|wire| wire.payment_hash.truncate(31), InvalidOnion::PaymentHash(31)),
            (|wire| wire.payment_hash.push(0), InvalidOnion::PaymentHash(33)),
            (|wire| wire.onion.truncate(1_365), InvalidOnion::OnionLength(1_365)),
            (|wire| wire.onion.push(0), InvalidOnion::OnionLength(1_367)),
            (|wire| wire.blinding_point = Some(Vec::new()), InvalidOnion::BlindingPoint),
            (|wire| wire.blinding_point = Some(vec![5; 33]), InvalidOnion::BlindingPoint),
            (|wire| wire.custom_records = vec![(65_535, Vec::new())], InvalidOnion::CustomRecordType(65_535)),
            (
                |wire| wire.custom_records = vec![(65_536, vec![1]), (65_536, vec![1])],
                InvalidOnion::CustomRecordTwice(65_536),
            ),
        ];
        for (change, invalid) in cases {
            let mut changed = wire();
            change(&mut changed);
            assert_eq!(Onion::try_from(changed), Err(invalid));
        }
    }

    #[test]
    fn only_canonical_bytes_are_read() {
        for wire in [wire(), whole()] {
            let onion = Onion::try_from(wire).unwrap();
            let bytes = onion.canonical();
            assert_eq!(Onion::from_canonical(&bytes), Some(onion));
            for cut in 0..bytes.len() {
                assert_eq!(Onion::from_canonical(&bytes[..cut]), None, "cut at {cut}");
            }
            assert_eq!(Onion::from_canonical(&[&bytes[..], &[0]].concat()), None);
            let other_version = [&[2], &bytes[1..]].concat();
            assert_eq!(Onion::from_canonical(&other_version), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_read_as_another_onion(bytes in proptest::collection::vec(any::<u8>(), 0..64), at in 0_usize..1_600) {
            let mut forged = Onion::try_from(whole()).unwrap().canonical();
            let at = at.min(forged.len());
            let end = (at + bytes.len()).min(forged.len());
            forged.splice(at..end, bytes);
            if let Some(onion) = Onion::from_canonical(&forged) {
                prop_assert_eq!(onion.canonical(), forged);
            }
        }
    }
}
