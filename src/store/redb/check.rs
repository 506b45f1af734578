//! Whether the tables agree: every index and every counter against the records and rows that it is about.
//!
//! Each record and row is looked up in its indexes; that an index has nothing else is shown by its number of entries. So
//! one pass over each table is enough, and nothing is remembered but the counts.

use std::collections::BTreeMap;
use std::ops::Bound;

use ::redb::{Key, ReadOnlyTable, ReadTransaction, ReadableTable, Value};

use super::error::{storage, table};
use super::ledger::{expiry_key, if_there};
use super::tables::{
    CLOCK_MARK, COUNTERS, EXPIRY, GENERATION, IN_FLIGHT, KEYS, LEDGER, LEDGER_EXPIRY, QUIET, RECORDS, TICK_MARK,
    TOTALS, hash_of, read_clock_mark, read_counter, read_totals, scope_counter,
};
use crate::store::codec::{decode_ledger_row, decode_row};
use crate::store::{StoreError, Totals, row_key};

/// How many scopes are counted in one pass over the records.
const SCOPES: usize = 16_384;

pub(super) fn verify(txn: &ReadTransaction) -> Result<(), StoreError> {
    let totals = records(txn)?;
    let counters = txn.open_table(COUNTERS).map_err(table)?;
    if read_totals(&counters)? != totals {
        return Err(disagree("the totals are not those of the records".to_owned()));
    }
    read_clock_mark(&counters)?;
    read_counter(&counters, TICK_MARK)?;
    scopes(txn, &counters, all(&totals))?;
    ledger(txn)
}

/// Checks the records against the indexes. Returns how many there are in each state.
fn records(txn: &ReadTransaction) -> Result<Totals, StoreError> {
    let records = txn.open_table(RECORDS).map_err(table)?;
    let keys = txn.open_table(KEYS).map_err(table)?;
    let expiry = txn.open_table(EXPIRY).map_err(table)?;
    let quiet = if_there(txn, QUIET)?;
    let in_flight = txn.open_table(IN_FLIGHT).map_err(table)?;
    let (mut totals, mut may_expire, mut may_lapse, mut are_in_flight) = (Totals::default(), 0, 0, 0);
    for entry in ReadableTable::iter(&records).map_err(storage)? {
        let (seq, row) = entry.map_err(storage)?;
        let seq = seq.value();
        let at_fault = |what: &str| disagree(format!("record {seq} {what}"));
        let (key, record) = decode_row(row.value()).map_err(|_| at_fault("does not decode"))?;
        let found = ReadableTable::get(&keys, &hash_of(&key)).map_err(storage)?.map(|seq| seq.value());
        if found != Some(seq) {
            return Err(at_fault("is not found under its key"));
        }
        if let Some(at) = record.removable_at() {
            may_expire += 1;
            if ReadableTable::get(&expiry, (at.0, seq)).map_err(storage)?.is_none() {
                return Err(at_fault("is missing from the expiry index"));
            }
        }
        if let Some(tick) = record.lapse_tick() {
            may_lapse += 1;
            let entry =
                quiet.as_ref().map(|quiet| ReadableTable::get(quiet, (tick, seq))).transpose().map_err(storage)?;
            if entry.flatten().is_none() {
                return Err(at_fault("is missing from the tick index"));
            }
        }
        if record.state.status().is_in_flight() {
            are_in_flight += 1;
            if ReadableTable::get(&in_flight, seq).map_err(storage)?.is_none() {
                return Err(at_fault("is missing from the in-flight index"));
            }
        }
        *totals.of_mut(record.state.status()) += 1;
    }
    has(&keys, all(&totals), "the index of keys")?;
    has(&expiry, may_expire, "the expiry index")?;
    if let Some(quiet) = quiet {
        has(&quiet, may_lapse, "the tick index")?;
    }
    has(&in_flight, are_in_flight, "the in-flight index")?;
    Ok(totals)
}

/// Checks the numbers of records per scope, some scopes at a time, and that `counters` holds nothing else.
fn scopes(
    txn: &ReadTransaction,
    counters: &ReadOnlyTable<&'static [u8], &'static [u8]>,
    records_in_all: u64,
) -> Result<(), StoreError> {
    let records = txn.open_table(RECORDS).map_err(table)?;
    let (mut counted, mut after) = (0, None::<Vec<u8>>);
    loop {
        let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut slice = BTreeMap::new();
        for entry in ReadableTable::range::<&[u8]>(counters, (start, Bound::Unbounded)).map_err(storage)?.take(SCOPES) {
            let (name, count) = entry.map_err(storage)?;
            after = Some(name.value().to_vec());
            if [CLOCK_MARK, TICK_MARK, TOTALS, GENERATION].contains(&name.value()) {
                continue;
            }
            let count = count.value().try_into().map(u64::from_be_bytes).unwrap_or(0);
            if !name.value().starts_with(&scope_counter(b"")) || count == 0 {
                return Err(disagree("a counter counts nothing".to_owned()));
            }
            slice.insert(name.value().to_vec(), count);
            counted += count;
        }
        if slice.is_empty() {
            break;
        }
        for entry in ReadableTable::iter(&records).map_err(storage)? {
            let (_, row) = entry.map_err(storage)?;
            let Ok((key, _)) = decode_row(row.value()) else { continue };
            if let Some(left) = slice.get_mut(&scope_counter(key.scope())) {
                *left = left.checked_sub(1).ok_or_else(miscounted)?;
            }
        }
        if slice.values().any(|left| *left > 0) {
            return Err(miscounted());
        }
    }
    if counted == records_in_all { Ok(()) } else { Err(miscounted()) }
}

/// Checks the host's rows against the index of those that have an end.
fn ledger(txn: &ReadTransaction) -> Result<(), StoreError> {
    let (rows, expiry) = match (if_there(txn, LEDGER)?, if_there(txn, LEDGER_EXPIRY)?) {
        (Some(rows), Some(expiry)) => (rows, expiry),
        (None, None) => return Ok(()),
        _ => return Err(disagree("one of the ledger's two tables is missing".to_owned())),
    };
    let mut have_an_end = 0;
    for (place, entry) in ReadableTable::iter(&rows).map_err(storage)?.enumerate() {
        let at_fault = |what: &str| disagree(format!("ledger row {place} {what}"));
        let (key, row) = entry.map_err(storage)?;
        row_key::split(key.value()).ok_or_else(|| at_fault("has no key"))?;
        let row = decode_ledger_row(key.value(), row.value()).map_err(|_| at_fault("does not decode"))?;
        if let Some(end) = row.expires_at {
            have_an_end += 1;
            let entry = expiry_key(end, key.value());
            if ReadableTable::get(&expiry, entry.as_slice()).map_err(storage)?.is_none() {
                return Err(at_fault("is missing from the ledger's expiry index"));
            }
        }
    }
    has(&expiry, have_an_end, "the ledger's expiry index")
}

/// Counts the entries; redb's own count is one more thing that may not agree.
fn has<K: Key, V: Value>(index: &ReadOnlyTable<K, V>, expected: u64, name: &str) -> Result<(), StoreError> {
    let mut found = 0;
    for entry in ReadableTable::iter(index).map_err(storage)? {
        entry.map_err(storage)?;
        found += 1;
    }
    let of = "entries that belong to nothing";
    if found == expected { Ok(()) } else { Err(disagree(format!("{name} has {of}: {found}, not {expected}"))) }
}

fn all(totals: &Totals) -> u64 {
    let Totals { registered, dispatched, in_doubt, completed, failed, tombstone } = *totals;
    registered + dispatched + in_doubt + completed + failed + tombstone
}

fn miscounted() -> StoreError {
    disagree("a scope's counter is not the number of its records".to_owned())
}

fn disagree(what: String) -> StoreError {
    StoreError::Corrupt(what)
}
