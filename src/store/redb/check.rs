//! Whether the tables agree: every index and every counter against the records and rows that it is about.
//!
//! Each record and row is looked up in its indexes; that an index has nothing else is shown by its number of entries. So
//! one pass over each table is enough, and nothing is remembered but the counts. That no row stands in both tables is
//! shown by a look into the other one for each record in flight.

use std::collections::BTreeMap;
use std::ops::Bound;

use ::redb::{AccessGuard, Key, ReadOnlyTable, ReadTransaction, ReadableTable, Value};

use super::error::{storage, table};
use super::ledger::{expiry_key, if_there};
use super::tables::{
    CLOCK_MARK, COUNTERS, EXPIRY, FORMAT, GENERATION, IN_FLIGHT, KEYS, KeyHash, LEDGER, LEDGER_EXPIRY, META, QUIET,
    RECORDS, TICK_MARK, TOTALS, hash_of, in_flight_name, in_flight_place, in_flight_rows, read_clock_mark,
    read_counter, read_format, read_totals, scope_counter,
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
    read_counter(&counters, GENERATION)?;
    scopes(txn, &counters, all(&totals))?;
    ledger(txn)
}

/// Checks the records against the indexes. Returns how many there are in each state.
fn records(txn: &ReadTransaction) -> Result<Totals, StoreError> {
    let records = txn.open_table(RECORDS).map_err(table)?;
    let indexes = Indexes::open(txn)?;
    let mut seen = Seen::default();
    for entry in ReadableTable::iter(&records).map_err(storage)? {
        let (seq, row) = entry.map_err(storage)?;
        indexes.check((seq.value(), row.value()), false, &mut seen)?;
    }
    for entry in in_flight_rows(&indexes.counters, None)? {
        let (seq, row) = entry?;
        if indexes.in_flight.is_some() {
            return Err(at_fault(seq, "is in a place that its file's format does not have"));
        }
        let in_records = ReadableTable::get(&records, seq).map_err(storage)?;
        match (row.value(), in_records.as_ref().map(AccessGuard::value)) {
            // Checked with the others there.
            ([], Some(row)) if is_in_flight(row) => {}
            ([], Some(_)) => return Err(at_fault(seq, "has ended, and is marked as in flight")),
            (_, Some(_)) => return Err(at_fault(seq, "is among those in flight and among those that have ended")),
            (row, None) => indexes.check((seq, row), true, &mut seen)?,
        }
    }
    indexes.hold_nothing_else(&seen)?;
    Ok(seen.totals)
}

fn is_in_flight(row: &[u8]) -> bool {
    decode_row(row).is_ok_and(|(_, record)| record.state.status().is_in_flight())
}

/// What the records have shown so far.
#[derive(Default)]
struct Seen {
    totals: Totals,
    may_expire: u64,
    may_lapse: u64,
}

struct Indexes {
    keys: ReadOnlyTable<&'static KeyHash, u64>,
    expiry: ReadOnlyTable<(u64, u64), ()>,
    quiet: Option<ReadOnlyTable<(u64, u64), ()>>,
    counters: ReadOnlyTable<&'static [u8], &'static [u8]>,
    /// Which records are in flight, in a file of an older format.
    in_flight: Option<ReadOnlyTable<u64, ()>>,
}

impl Indexes {
    fn open(txn: &ReadTransaction) -> Result<Self, StoreError> {
        let is_old = read_format(&txn.open_table(META).map_err(table)?)? < FORMAT;
        let in_flight = if_there(txn, IN_FLIGHT)?;
        if in_flight.is_some() != is_old {
            return Err(disagree("the in-flight index is not of the file's format".to_owned()));
        }
        Ok(Self {
            keys: txn.open_table(KEYS).map_err(table)?,
            expiry: txn.open_table(EXPIRY).map_err(table)?,
            quiet: if_there(txn, QUIET)?,
            counters: txn.open_table(COUNTERS).map_err(table)?,
            in_flight,
        })
    }

    fn check(&self, (seq, row): (u64, &[u8]), is_in_counters: bool, seen: &mut Seen) -> Result<(), StoreError> {
        let (key, record) = decode_row(row).map_err(|_| at_fault(seq, "does not decode"))?;
        let found = ReadableTable::get(&self.keys, &hash_of(&key)).map_err(storage)?.map(|seq| seq.value());
        if found != Some(seq) {
            return Err(at_fault(seq, "is not found under its key"));
        }
        if let Some(at) = record.removable_at() {
            seen.may_expire += 1;
            if ReadableTable::get(&self.expiry, (at.0, seq)).map_err(storage)?.is_none() {
                return Err(at_fault(seq, "is missing from the expiry index"));
            }
        }
        if let Some(tick) = record.lapse_tick() {
            seen.may_lapse += 1;
            let quiet = self.quiet.as_ref();
            let entry = quiet.map(|quiet| ReadableTable::get(quiet, (tick, seq))).transpose().map_err(storage)?;
            if entry.flatten().is_none() {
                return Err(at_fault(seq, "is missing from the tick index"));
            }
        }
        *seen.totals.of_mut(record.state.status()) += 1;
        self.check_table(seq, record.state.status().is_in_flight(), is_in_counters)
    }

    fn check_table(&self, seq: u64, is_in_flight: bool, is_in_counters: bool) -> Result<(), StoreError> {
        match (&self.in_flight, is_in_counters, is_in_flight) {
            (Some(index), false, true) if ReadableTable::get(index, seq).map_err(storage)?.is_none() => {
                Err(at_fault(seq, "is missing from the in-flight index"))
            }
            (None, false, true) if !self.is_marked(seq)? => {
                Err(at_fault(seq, "is in flight, and among those that have ended"))
            }
            (_, true, false) => Err(at_fault(seq, "has ended, and is among those in flight")),
            (_, false, _) | (_, true, true) => Ok(()),
        }
    }

    fn is_marked(&self, seq: u64) -> Result<bool, StoreError> {
        let mark = ReadableTable::get(&self.counters, in_flight_name(seq).as_slice()).map_err(storage)?;
        Ok(mark.is_some_and(|row| row.value().is_empty()))
    }

    fn hold_nothing_else(&self, seen: &Seen) -> Result<(), StoreError> {
        has(&self.keys, all(&seen.totals), "the index of keys")?;
        has(&self.expiry, seen.may_expire, "the expiry index")?;
        if let Some(quiet) = &self.quiet {
            has(quiet, seen.may_lapse, "the tick index")?;
        }
        if let Some(in_flight) = &self.in_flight {
            let Totals { registered, dispatched, in_doubt, .. } = seen.totals;
            has(in_flight, registered + dispatched + in_doubt, "the in-flight index")?;
        }
        Ok(())
    }
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
        let entries = ReadableTable::range::<&[u8]>(counters, (start, Bound::Unbounded)).map_err(storage)?;
        let is_counter = |name: &[u8]| in_flight_place(name).is_none();
        let entries = entries.filter(|entry| entry.as_ref().map_or(true, |(name, _)| is_counter(name.value())));
        for entry in entries.take(SCOPES) {
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
        let ended = ReadableTable::iter(&records).map_err(storage)?;
        let ended = ended.map(|entry| entry.map(|(_, row)| row).map_err(storage));
        let in_flight = in_flight_rows(counters, None)?.map(|entry| entry.map(|(_, row)| row));
        for row in ended.chain(in_flight) {
            let Ok((key, _)) = decode_row(row?.value()) else { continue };
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

fn at_fault(seq: u64, what: &str) -> StoreError {
    disagree(format!("record {seq} {what}"))
}

fn disagree(what: String) -> StoreError {
    StoreError::Corrupt(what)
}
