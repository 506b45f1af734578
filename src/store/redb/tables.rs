//! Layout: the tables, and how a record is found.
//!
//! ```text
//! records    seq                      -> row (see codec)        records whose end is known, in order of arrival
//! keys       first 16 B of SHA-256    -> seq
//! expiry     (removable_at ms, seq)   -> ()                     records that may be removed one day
//! quiet      (lapse_tick, seq)        -> ()                     completed records that so many ticks release
//! counters   b"c"                     -> clock mark, 8 B
//!            b"g"                     -> generation, 8 B
//!            b"k"                     -> tick mark, 8 B; none before the first tick
//!            b"s" scope               -> records of the scope, 8 B; none at zero
//!            b"t"                     -> totals by state, 6 * 8 B
//!            b"u" seq 8 B             -> row (see codec)        records in flight: their end is to come; empty: in `records`
//! ledger     len(table) table key     -> row (see codec)        the host's rows; len is 1 B
//! ledger_expiry  end 8 B, ledger key  -> ()                     rows that have an end, and only those
//! meta       "format"                 -> 4 B
//! ```
//! A commit costs pages, not rows. Everything that every commit writes stands in `counters`, which is a page or a few: a
//! registration writes its row there, and an end takes it away. So `records` gets each row once, at its final length: where rows
//! grew in place, full pages split, and stayed half full. A place is given out at the registration, and is that of the row in
//! either table, so that an end does not touch `keys`, which no order can be made of. A row is in exactly one of the two. One in
//! flight that is longer than 1 KiB is in `records`, and its place in `counters` is marked by an empty one, so that a page of
//! `counters` stays one page. Numbers are big-endian where we encode them.
//!
//! A file says which format it has:
//!
//! - *1* has rows of version 1 and no `quiet`. Files that were created before there was a ledger lack its two tables, too.
//! - *2* may have rows of version 2, and has every table.
//! - *3* keeps records in flight apart. In the older ones they are in `records` like all others, and a table `in_flight` says which:
//!
//! ```text
//! in_flight  seq                      -> ()                     in files of format 1 and 2
//! ```
//! A file of format 1 or 2 is opened and read as it is. The first commit that changes anything makes it one of format 3, in the
//! same transaction: it creates the missing tables and moves what is in flight. From then on an older version of the crate
//! refuses the file as a whole and leaves it alone ([`StoreError::UnsupportedVersion`]). It would never take a record for
//! absent, but it would quarantine what is in flight, and lose the tables that it does not know when it copies the file after a
//! failed sync.

use std::ops::Bound;

use ::redb::{AccessGuard, ReadableTable, TableDefinition};
use sha2::{Digest, Sha256};

use super::error::storage;
use crate::key::Key;
use crate::record::Record;
use crate::store::codec::decode_row;
use crate::store::{StoreError, Totals};
use crate::time::UnixMillis;

/// The format this version writes, and the newest it reads.
pub(super) const FORMAT: u32 = 3;
/// The oldest it reads.
pub(super) const OLDEST_FORMAT: u32 = 1;
pub(super) const FORMAT_KEY: &str = "format";

pub(super) const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
pub(super) const KEYS: TableDefinition<'_, &KeyHash, u64> = TableDefinition::new("keys");
pub(super) const EXPIRY: TableDefinition<'_, (u64, u64), ()> = TableDefinition::new("expiry");
pub(super) const QUIET: TableDefinition<'_, (u64, u64), ()> = TableDefinition::new("quiet");
/// In files of an older format.
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

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// In `records`: it has ended.
    Records,
    /// In `counters`: it is in flight.
    Counters,
    /// In `records`, with an empty row in `counters`: it is in flight, and long.
    Both,
}

/// A longer row would crowd out what every commit writes, and be written with it.
const LONG_ROW: usize = 1_024;

impl Home {
    pub(super) fn of(record: &Record, row: &[u8]) -> Self {
        match record.state.status().is_in_flight() {
            false => Self::Records,
            true => Self::in_flight(row),
        }
    }

    pub(super) fn in_flight(row: &[u8]) -> Self {
        if row.len() > LONG_ROW { Self::Both } else { Self::Counters }
    }

    pub(super) fn is_in_records(self) -> bool {
        matches!(self, Self::Records | Self::Both)
    }

    pub(super) fn is_in_counters(self) -> bool {
        matches!(self, Self::Counters | Self::Both)
    }
}

/// What the names of records in flight begin with in `counters`. They are behind all others: there redb gives a row that does
/// not fit on the last page one of its own, where between others it would cut the page in halves.
const IN_FLIGHT_NAMES: u8 = b'u';

/// The name of a record in flight in `counters`.
pub(super) fn in_flight_name(seq: u64) -> [u8; 9] {
    let [a, b, c, d, e, f, g, h] = seq.to_be_bytes();
    [IN_FLIGHT_NAMES, a, b, c, d, e, f, g, h]
}

/// The place of a record in flight by its name; `None`: it is another counter's.
pub(super) fn in_flight_place(name: &[u8]) -> Option<u64> {
    match name {
        [IN_FLIGHT_NAMES, place @ ..] => place.try_into().map(u64::from_be_bytes).ok(),
        _ => None,
    }
}

/// A record's place and its row.
pub(super) type PlacedRow<'a> = (u64, AccessGuard<'a, &'static [u8]>);

/// Rows of records in flight, in order of arrival.
pub(super) fn in_flight_rows<'a>(
    counters: &'a impl ReadableTable<&'static [u8], &'static [u8]>,
    after: Option<u64>,
) -> Result<impl DoubleEndedIterator<Item = Result<PlacedRow<'a>, StoreError>>, StoreError> {
    let start = in_flight_name(after.unwrap_or_default());
    let start = if after.is_some() { Bound::Excluded(start.as_slice()) } else { Bound::Included(start.as_slice()) };
    let end = [IN_FLIGHT_NAMES + 1];
    let rows = counters.range::<&[u8]>((start, Bound::Excluded(end.as_slice()))).map_err(storage)?;
    Ok(rows.filter_map(|entry| match entry {
        Ok((name, row)) => Some(Ok((in_flight_place(name.value())?, row))),
        Err(error) => Some(Err(storage(error))),
    }))
}

/// Where the record of `key` stands, if there is one.
pub(super) fn place_of(keys: &impl ReadableTable<&'static KeyHash, u64>, key: &Key) -> Result<Option<u64>, StoreError> {
    Ok(keys.get(&hash_of(key)).map_err(storage)?.map(|seq| seq.value()))
}

/// The record of `key` by the row that the index leads to. A row that does not decode, is gone, or belongs to another key is
/// quarantined.
pub(super) fn record_of(row: Option<&[u8]>, key: &Key) -> Result<Record, StoreError> {
    match row.map(decode_row) {
        Some(Ok((stored, record))) if stored == *key => Ok(record),
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
