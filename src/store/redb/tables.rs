//! Layout: the tables, and how a record is found.
//!
//! ```text
//! records    seq                      -> row (see codec)        in order of arrival
//! keys       first 16 B of SHA-256    -> seq
//! expiry     (removable_at ms, seq)   -> ()                     records that may be removed one day
//! quiet      (lapse_tick, seq)        -> ()                     completed records that so many ticks release
//! in_flight  seq                      -> ()                     records whose end is to come
//! counters   b"c"                     -> clock mark, 8 B
//!            b"k"                     -> tick mark, 8 B; none before the first tick
//!            b"t"                     -> totals by state, 6 * 8 B
//!            b"g"                     -> generation, 8 B
//!            b"s" scope               -> records of the scope, 8 B; none at zero
//! ledger     len(table) table key     -> row (see codec)        the host's rows; len is 1 B
//! ledger_expiry  end 8 B, ledger key  -> ()                     rows that have an end, and only those
//! meta       "format"                 -> 4 B
//! ```
//! A commit costs pages, not rows. A finish rewrites the page that its registration has written a moment ago, since both
//! are at the end of `records`; the keys, which no order can be made of, are cut to 16 bytes and point there. Everything
//! that every commit writes stands in `counters`. Numbers are big-endian where we encode them.
//!
//! A file says which format it has:
//!
//! - *1* has rows of version 1 and no `quiet`. Files that were created before there was a ledger lack its two tables, too.
//! - *2* may have rows of version 2, and has every table.
//!
//! A file of format 1 is opened and read as it is. The first commit that changes anything makes it one of format 2, in the
//! same transaction: it creates the missing tables, and writes rows that an older version of the crate can't read. So that
//! one refuses the file as a whole and leaves it alone ([`StoreError::UnsupportedVersion`]). It would never take such a row for
//! absent, but it would answer for some keys only, and lose `quiet` when it copies the file after a failed sync.

use ::redb::{ReadableTable, TableDefinition};
use sha2::{Digest, Sha256};

use super::error::storage;
use crate::key::Key;
use crate::record::Record;
use crate::store::codec::decode_row;
use crate::store::{StoreError, Totals};
use crate::time::UnixMillis;

/// The format this version writes, and the newest it reads.
pub(super) const FORMAT: u32 = 2;
/// The oldest it reads.
pub(super) const OLDEST_FORMAT: u32 = 1;
pub(super) const FORMAT_KEY: &str = "format";

pub(super) const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
pub(super) const KEYS: TableDefinition<'_, &KeyHash, u64> = TableDefinition::new("keys");
pub(super) const EXPIRY: TableDefinition<'_, (u64, u64), ()> = TableDefinition::new("expiry");
pub(super) const QUIET: TableDefinition<'_, (u64, u64), ()> = TableDefinition::new("quiet");
pub(super) const IN_FLIGHT: TableDefinition<'_, u64, ()> = TableDefinition::new("in_flight");
pub(super) const COUNTERS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("counters");
pub(super) const LEDGER: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("ledger");
pub(super) const LEDGER_EXPIRY: TableDefinition<'_, &[u8], ()> = TableDefinition::new("ledger_expiry");
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

pub(super) const CLOCK_MARK: &[u8] = b"c";
pub(super) const TICK_MARK: &[u8] = b"k";
pub(super) const TOTALS: &[u8] = b"t";
pub(super) const GENERATION: &[u8] = b"g";

/// The beginning of SHA-256 over a key's canonical bytes. Two keys that share it are told apart by their rows.
pub(super) type KeyHash = [u8; 16];

pub(super) fn hash_of(key: &Key) -> KeyHash {
    let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
    let mut hash = [0; 16];
    for (place, byte) in hash.iter_mut().zip(digest) {
        *place = byte;
    }
    hash
}

/// Under which key `counters` counts the records of a scope.
pub(super) fn scope_counter(scope: &[u8]) -> Vec<u8> {
    [b"s", scope].concat()
}

/// A record and its place.
pub(super) struct Found {
    pub(super) seq: u64,
    pub(super) record: Record,
}

/// The record of `key`, through the index. A row that does not decode, is gone, or belongs to another key is quarantined.
pub(super) fn find(
    keys: &impl ReadableTable<&'static KeyHash, u64>,
    records: &impl ReadableTable<u64, &'static [u8]>,
    key: &Key,
) -> Result<Option<Found>, StoreError> {
    place_of(keys, key)?.map(|seq| record_at(records, seq, key)).transpose()
}

/// Where the record of `key` stands, if there is one.
pub(super) fn place_of(keys: &impl ReadableTable<&'static KeyHash, u64>, key: &Key) -> Result<Option<u64>, StoreError> {
    Ok(keys.get(&hash_of(key)).map_err(storage)?.map(|seq| seq.value()))
}

/// The record of `key` at the place where the index has it.
pub(super) fn record_at(
    records: &impl ReadableTable<u64, &'static [u8]>,
    seq: u64,
    key: &Key,
) -> Result<Found, StoreError> {
    match row(records, seq)? {
        Some((stored, record)) if stored == *key => Ok(Found { seq, record }),
        _ => Err(StoreError::Quarantined),
    }
}

/// Key and record at `seq`; `None` where they do not decode.
pub(super) fn row(
    records: &impl ReadableTable<u64, &'static [u8]>,
    seq: u64,
) -> Result<Option<(Key, Record)>, StoreError> {
    Ok(records.get(seq).map_err(storage)?.and_then(|row| decode_row(row.value()).ok()))
}

pub(super) fn read_totals(counters: &impl ReadableTable<&'static [u8], &'static [u8]>) -> Result<Totals, StoreError> {
    let Some(stored) = counters.get(TOTALS).map_err(storage)? else {
        return Ok(Totals::default());
    };
    decode_totals(stored.value()).ok_or_else(|| damaged("the totals"))
}

pub(super) fn read_clock_mark(
    counters: &impl ReadableTable<&'static [u8], &'static [u8]>,
) -> Result<UnixMillis, StoreError> {
    read_counter(counters, CLOCK_MARK).map(UnixMillis)
}

/// The format of a file.
pub(super) fn read_format(meta: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<u32, StoreError> {
    let stored = meta.get(FORMAT_KEY).map_err(storage)?;
    let stored = stored.as_ref().and_then(|stored| stored.value().try_into().ok());
    stored.map(u32::from_be_bytes).ok_or_else(|| damaged("the format number"))
}

/// One number of `counters`; a missing one is zero.
pub(super) fn read_counter(
    counters: &impl ReadableTable<&'static [u8], &'static [u8]>,
    name: &[u8],
) -> Result<u64, StoreError> {
    let Some(stored) = counters.get(name).map_err(storage)? else {
        return Ok(0);
    };
    stored.value().try_into().map(u64::from_be_bytes).map_err(|_| damaged("a counter"))
}

pub(super) fn encode_totals(totals: &Totals) -> Vec<u8> {
    let Totals { registered, dispatched, in_doubt, completed, failed, tombstone } = *totals;
    [registered, dispatched, in_doubt, completed, failed, tombstone].iter().flat_map(|n| n.to_be_bytes()).collect()
}

fn decode_totals(stored: &[u8]) -> Option<Totals> {
    let (numbers, rest) = stored.as_chunks::<8>();
    match (numbers, rest) {
        ([registered, dispatched, in_doubt, completed, failed, tombstone], []) => Some(Totals {
            registered: u64::from_be_bytes(*registered),
            dispatched: u64::from_be_bytes(*dispatched),
            in_doubt: u64::from_be_bytes(*in_doubt),
            completed: u64::from_be_bytes(*completed),
            failed: u64::from_be_bytes(*failed),
            tombstone: u64::from_be_bytes(*tombstone),
        }),
        _ => None,
    }
}

pub(super) fn damaged(what: &str) -> StoreError {
    StoreError::Corrupt(format!("{what} cannot be read; restore the file from a backup"))
}
