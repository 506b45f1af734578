//! Rows as bytes: a version byte, a checksum, and a body in postcard. The only postcard of the crate.
//!
//! ```text
//! version: 1 byte | checksum: 8 bytes | body: postcard of the frozen struct of that version
//! ```
//! The checksum is the beginning of SHA-256 over the version byte and the body. The database below does not verify its own
//! checksums when it reads, and postcard takes much for valid: it ignores what follows a value, and a variant inserted
//! into an enum decodes as its neighbour. So the checksum comes first, then a decoding that must use every byte, then the
//! validation of the key. Whatever fails is [`StoreError::Quarantined`]: damage must never pass for an absent record.
//!
//! `RecordV1`, `RecordV2`, `RowV1` and what they are made of are frozen. A new format is a new struct with a new version byte,
//! and a conversion.
//!
//! Records are written as version 2 and read in both versions; one of version 1 has no tick to lapse at and was not given up. It
//! becomes one of version 2 when it is next written. To a reader that knows version 1 only, a row of version 2 is quarantined
//! like any other that it can't read: its key is refused, and never taken for absent.

use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::StoreError;
use crate::fingerprint::Fingerprint;
use crate::key::Key;
use crate::ledger::StoredRow;
use crate::record::{AttemptId, BootId, Bytes, Mark, Origin, Record, State, Token};
use crate::time::UnixMillis;

/// What a record is written as.
const RECORD_VERSION: u8 = 2;
/// What a ledger row is written as.
const ROW_VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 8;

/// A value of the host's, as it is kept in a request, an answer or a checkpoint.
pub(crate) fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_allocvec(value)
}

/// Reads such a value back. Bytes that are left over are an error: they belong to another type.
pub(crate) fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, postcard::Error> {
    match postcard::take_from_bytes(bytes)? {
        (value, []) => Ok(value),
        _ => Err(postcard::Error::DeserializeBadEncoding),
    }
}

/// The row of one record. It carries the full key, so that a row found under another key's hash is noticed.
pub(super) fn encode_row(key: &Key, record: &Record) -> Result<Vec<u8>, StoreError> {
    seal(RECORD_VERSION, &RecordV2::of(key, record), key.as_bytes().len() + record.weight())
}

/// Reads a row back.
pub(super) fn decode_row(row: &[u8]) -> Result<(Key, Record), StoreError> {
    decode(row).ok_or(StoreError::Quarantined)
}

fn decode(row: &[u8]) -> Option<(Key, Record)> {
    match unseal(row)? {
        (2, body) => from_bytes::<RecordV2>(body).ok()?.into_record(),
        (1, body) => from_bytes::<RecordV1>(body).ok()?.into_record(),
        _ => None,
    }
}

/// The row of a ledger table. It carries the key it is stored under, so that a row found elsewhere is noticed.
pub(super) fn encode_ledger_row(key: &[u8], row: &StoredRow) -> Result<Vec<u8>, StoreError> {
    let body =
        RowV1 { key: Blob(key.into()), value: Blob(Arc::clone(&row.value)), expires_at: row.expires_at.map(|at| at.0) };
    seal(ROW_VERSION, &body, 32 + key.len() + row.value.len())
}

/// Reads back the ledger row that was found under `key`.
pub(super) fn decode_ledger_row(key: &[u8], row: &[u8]) -> Result<StoredRow, StoreError> {
    let stored = match unseal(row) {
        Some((1, body)) => from_bytes::<RowV1>(body).ok().filter(|stored| *stored.key.0 == *key),
        _ => None,
    };
    let stored = stored.ok_or(StoreError::Quarantined)?;
    Ok(StoredRow { value: stored.value.0, expires_at: stored.expires_at.map(UnixMillis) })
}

/// Version byte, checksum, body.
fn seal(version: u8, body: &impl Serialize, about_bytes: usize) -> Result<Vec<u8>, StoreError> {
    let mut row = Vec::with_capacity(1 + CHECKSUM_BYTES + about_bytes);
    row.push(version);
    row.extend_from_slice(&[0; CHECKSUM_BYTES]);
    let mut row = postcard::to_extend(body, row)
        .map_err(|error| StoreError::Io(Arc::new(std::io::Error::other(error.to_string()))))?;
    if let Some((head, body)) = row.split_at_mut_checked(1 + CHECKSUM_BYTES) {
        for (place, byte) in head.iter_mut().skip(1).zip(checksum(version, body)) {
            *place = byte;
        }
    }
    Ok(row)
}

/// The version and the body, if the checksum is theirs.
fn unseal(row: &[u8]) -> Option<(u8, &[u8])> {
    let (version, rest) = row.split_first()?;
    let (stored, body) = rest.split_at_checked(CHECKSUM_BYTES)?;
    (stored == checksum(*version, body)).then_some((*version, body))
}

fn checksum(version: u8, body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest: [u8; 32] = Sha256::new().chain_update([version]).chain_update(body).finalize().into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    [a, b, c, d, e, f, g, h]
}

/// Bytes that postcard moves as a block, where it would take a `Vec<u8>` apart element by element.
struct Blob(Bytes);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Block;
        impl Visitor<'_> for Block {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.into()))
            }
        }
        deserializer.deserialize_bytes(Block)
    }
}

/// Version 1. Frozen: no field is added, moved, renamed in meaning or given a serde attribute.
#[derive(Serialize, Deserialize)]
struct RecordV1 {
    key: Blob,
    revision: u64,
    fingerprint: [u8; 32],
    request: Blob,
    attempt_number: u32,
    attempt_boot: [u8; 16],
    attempt_token: [u8; 32],
    state: StateV1,
    checkpoint: Option<Blob>,
    recoveries: u8,
    created_at: u64,
    updated_at: u64,
    expires_at: Option<u64>,
    lapses_at: Option<u64>,
    tombstone_until: Option<u64>,
    contradiction: Option<Blob>,
}

/// Version 2. Frozen: all of version 1, and what stands behind it.
#[derive(Serialize, Deserialize)]
struct RecordV2 {
    first: RecordV1,
    lapses_at_tick: Option<u64>,
    abandoned: bool,
}

/// Version 1 of a ledger row. Frozen likewise.
#[derive(Serialize, Deserialize)]
struct RowV1 {
    key: Blob,
    value: Blob,
    expires_at: Option<u64>,
}

/// Frozen, in this order.
#[derive(Serialize, Deserialize)]
enum StateV1 {
    Registered,
    Dispatched,
    InDoubt,
    Completed(Option<Blob>),
    Failed(OriginV1, Blob),
    Tombstone(MarkV1),
}

/// Frozen, in this order.
#[derive(Serialize, Deserialize)]
enum OriginV1 {
    RolledBack,
    Resolved,
}

/// Frozen, in this order.
#[derive(Serialize, Deserialize)]
enum MarkV1 {
    Fenced,
    Expired,
}

impl RecordV1 {
    fn of(key: &Key, record: &Record) -> Self {
        let blob = |bytes: &Bytes| Blob(Arc::clone(bytes));
        Self {
            key: Blob(key.as_bytes().into()),
            revision: record.revision,
            fingerprint: *record.fingerprint.as_bytes(),
            request: blob(&record.request),
            attempt_number: record.attempt.number,
            attempt_boot: record.attempt.boot.0,
            attempt_token: record.attempt.token.0,
            state: StateV1::of(&record.state),
            checkpoint: record.checkpoint.as_ref().map(blob),
            recoveries: record.recoveries,
            created_at: record.created_at.0,
            updated_at: record.updated_at.0,
            expires_at: record.expires_at.map(|at| at.0),
            lapses_at: record.lapses_at.map(|at| at.0),
            tombstone_until: record.tombstone_until.map(|at| at.0),
            contradiction: record.contradiction.as_ref().map(blob),
        }
    }

    fn into_record(self) -> Option<(Key, Record)> {
        let key = Key::from_bytes(&self.key.0)?;
        let attempt = AttemptId {
            number: self.attempt_number,
            boot: BootId(self.attempt_boot),
            token: Token(self.attempt_token),
        };
        let record = Record {
            revision: self.revision,
            fingerprint: Fingerprint::from_bytes(self.fingerprint),
            request: self.request.0,
            attempt,
            state: self.state.into_state(),
            checkpoint: self.checkpoint.map(|blob| blob.0),
            recoveries: self.recoveries,
            created_at: UnixMillis(self.created_at),
            updated_at: UnixMillis(self.updated_at),
            expires_at: self.expires_at.map(UnixMillis),
            lapses_at: self.lapses_at.map(UnixMillis),
            tombstone_until: self.tombstone_until.map(UnixMillis),
            contradiction: self.contradiction.map(|blob| blob.0),
            lapses_at_tick: None,
            abandoned: false,
        };
        Some((key, record))
    }
}

impl RecordV2 {
    fn of(key: &Key, record: &Record) -> Self {
        let (lapses_at_tick, abandoned) = (record.lapses_at_tick, record.abandoned);
        Self { first: RecordV1::of(key, record), lapses_at_tick, abandoned }
    }

    fn into_record(self) -> Option<(Key, Record)> {
        let (key, record) = self.first.into_record()?;
        Some((key, Record { lapses_at_tick: self.lapses_at_tick, abandoned: self.abandoned, ..record }))
    }
}

impl StateV1 {
    fn of(state: &State) -> Self {
        match state {
            State::Registered => Self::Registered,
            State::Dispatched => Self::Dispatched,
            State::InDoubt => Self::InDoubt,
            State::Completed(answer) => Self::Completed(answer.as_ref().map(|bytes| Blob(Arc::clone(bytes)))),
            State::Failed(origin, reason) => {
                let origin = match origin {
                    Origin::RolledBack => OriginV1::RolledBack,
                    Origin::Resolved => OriginV1::Resolved,
                };
                Self::Failed(origin, Blob(Arc::clone(reason)))
            }
            State::Tombstone(Mark::Fenced) => Self::Tombstone(MarkV1::Fenced),
            State::Tombstone(Mark::Expired) => Self::Tombstone(MarkV1::Expired),
        }
    }

    fn into_state(self) -> State {
        match self {
            Self::Registered => State::Registered,
            Self::Dispatched => State::Dispatched,
            Self::InDoubt => State::InDoubt,
            Self::Completed(answer) => State::Completed(answer.map(|blob| blob.0)),
            Self::Failed(OriginV1::RolledBack, reason) => State::Failed(Origin::RolledBack, reason.0),
            Self::Failed(OriginV1::Resolved, reason) => State::Failed(Origin::Resolved, reason.0),
            Self::Tombstone(MarkV1::Fenced) => State::Tombstone(Mark::Fenced),
            Self::Tombstone(MarkV1::Expired) => State::Tombstone(Mark::Expired),
        }
    }
}

#[cfg(feature = "testing")]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
