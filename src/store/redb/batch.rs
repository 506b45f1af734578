//! One batch in one transaction: every change is decided before its first write, since redb takes no single write back.

use std::collections::BTreeMap;

use ::redb::{ReadableTable, Table, WriteTransaction};

use super::error::{storage, table};
use super::ledger::Ledger;
use super::open::Contents;
use super::rows::Rows;
use super::tables::{
    CLOCK_MARK, COUNTERS, FORMAT, FORMAT_KEY, GENERATION, Home, IN_FLIGHT, LEDGER, LEDGER_EXPIRY, META, QUIET, RECORDS,
    TICK_MARK, TOTALS, damaged, encode_totals, in_flight_name, read_counter, read_totals, scope_counter,
};
use crate::record::Record;
use crate::store::codec::encode_row;
use crate::store::decide::{Current, decide, row_writes};
use crate::store::{Batch, Change, StoreError, Totals, Verdict};

/// What a batch came to.
pub(super) struct Applied {
    pub(super) verdicts: Vec<Verdict>,
    /// Whether there is anything to commit.
    pub(super) wrote: bool,
}

/// Writes the batch into the transaction. New records get their places from `next_seq` on; a place that is given out and
/// not committed stays a gap, which harms nothing.
pub(super) fn apply(txn: &WriteTransaction, batch: &Batch, contents: &mut Contents) -> Result<Applied, StoreError> {
    if contents.is_old {
        // First, so that the changes meet one layout. If they come to nothing, nothing of this is committed.
        raise_format(txn)?;
    }
    let mut work = Work {
        rows: Rows::new(txn),
        counters: Counters::open(txn)?,
        ledger: Ledger::new(txn),
        batch,
        next_seq: &mut contents.next_seq,
        wrote: false,
    };
    let verdicts = batch.changes.iter().map(|change| work.change(change)).collect::<Result<_, _>>()?;
    for expired in &batch.expired_rows {
        work.wrote |= work.ledger.remove_expired(expired)?;
    }
    work.rows.finish()?;
    let wrote = work.counters.finish(batch, work.wrote)?;
    Ok(Applied { verdicts, wrote })
}

/// Makes a file of an older format one of this version's.
fn raise_format(txn: &WriteTransaction) -> Result<(), StoreError> {
    txn.open_table(QUIET).map_err(table)?;
    txn.open_table(LEDGER).map_err(table)?;
    txn.open_table(LEDGER_EXPIRY).map_err(table)?;
    move_in_flight(txn)?;
    txn.delete_table(IN_FLIGHT).map_err(table)?;
    let mut meta = txn.open_table(META).map_err(table)?;
    meta.insert(FORMAT_KEY, FORMAT.to_be_bytes().as_slice()).map_err(storage)?;
    Ok(())
}

/// Moves the rows as they are, so that what does not decode is still listed as such.
fn move_in_flight(txn: &WriteTransaction) -> Result<(), StoreError> {
    let in_flight = txn.open_table(IN_FLIGHT).map_err(table)?;
    let mut records = txn.open_table(RECORDS).map_err(table)?;
    let mut counters = txn.open_table(COUNTERS).map_err(table)?;
    for entry in in_flight.iter().map_err(storage)? {
        let seq = entry.map_err(storage)?.0.value();
        let row = records.get(seq).map_err(storage)?.map(|row| row.value().to_vec());
        // A long row stays. An entry without a row is damage: what has an empty row here, and none there, does not decode.
        let moved = row.filter(|row| Home::in_flight(row) == Home::Counters);
        counters.insert(in_flight_name(seq).as_slice(), moved.as_deref().unwrap_or_default()).map_err(storage)?;
        if moved.is_some() {
            records.remove(seq).map_err(storage)?;
        }
    }
    Ok(())
}

struct Work<'txn, 'seq> {
    rows: Rows<'txn>,
    counters: Counters<'txn>,
    ledger: Ledger<'txn>,
    batch: &'seq Batch,
    next_seq: &'seq mut u64,
    wrote: bool,
}

impl Work<'_, '_> {
    fn change(&mut self, change: &Change) -> Result<Verdict, StoreError> {
        let found = match self.rows.find(&self.counters.table, change) {
            Err(StoreError::Quarantined) => return Ok(Verdict::Quarantined),
            found => found?,
        };
        let rows = match self.ledger.find(change) {
            Err(StoreError::Quarantined) => return Ok(Verdict::Quarantined),
            rows => rows?,
        };
        let current = found.as_ref().map(|found| &found.record);
        let records_in_scope = self.counters.scope(change.key.scope())?.now;
        if let Err(verdict) = decide(change, &Current { record: current, records_in_scope, rows: &rows }, self.batch) {
            return Ok(verdict);
        }
        for (key, write) in row_writes(change, &rows) {
            self.ledger.write(&key, &write)?;
            self.wrote = true;
        }
        let row = change.put.as_deref().map(|record| encode_row(&change.key, record)).transpose()?;
        let put = change.put.as_deref().zip(row);
        let counters = &mut self.counters.table;
        match (&found, put) {
            (None, None) => return Ok(Verdict::Applied),
            (None, Some(put)) => {
                // The last place is never given out: the next record would take it, too.
                let after = self.next_seq.checked_add(1).ok_or_else(|| damaged("the place of the last record"))?;
                self.rows.insert(counters, *self.next_seq, &change.key, put)?;
                *self.next_seq = after;
            }
            (Some(found), Some(put)) => self.rows.replace(counters, found, put)?,
            (Some(found), None) => self.rows.remove(counters, found, &change.key)?,
        }
        self.counters.count(change.key.scope(), current, change.put.as_deref())?;
        self.wrote = true;
        Ok(Verdict::Applied)
    }
}

/// The counters, read once and written once per transaction, and only where they have moved; and the rows beside them.
struct Counters<'txn> {
    table: Table<'txn, &'static [u8], &'static [u8]>,
    stored_totals: Totals,
    totals: Totals,
    scopes: BTreeMap<Box<[u8]>, Counter>,
}

#[derive(Clone, Copy)]
struct Counter {
    stored: u64,
    now: u64,
}

impl<'txn> Counters<'txn> {
    fn open(txn: &'txn WriteTransaction) -> Result<Self, StoreError> {
        let table = txn.open_table(COUNTERS).map_err(table)?;
        let totals = read_totals(&table)?;
        Ok(Self { table, stored_totals: totals, totals, scopes: BTreeMap::new() })
    }

    fn scope(&mut self, scope: &[u8]) -> Result<&mut Counter, StoreError> {
        if !self.scopes.contains_key(scope) {
            let stored = read_counter(&self.table, &scope_counter(scope))?;
            self.scopes.insert(scope.into(), Counter { stored, now: stored });
        }
        self.scopes.get_mut(scope).ok_or_else(|| damaged("a counter"))
    }

    fn count(&mut self, scope: &[u8], old: Option<&Record>, new: Option<&Record>) -> Result<(), StoreError> {
        if let Some(record) = old {
            less(self.totals.of_mut(record.state.status()));
            less(&mut self.scope(scope)?.now);
        }
        if let Some(record) = new {
            *self.totals.of_mut(record.state.status()) += 1;
            self.scope(scope)?.now += 1;
        }
        Ok(())
    }

    /// Writes what has moved, the two marks included; if anything has, or the batch `wrote` otherwise, it is another
    /// generation. Says whether it is.
    fn finish(mut self, batch: &Batch, wrote: bool) -> Result<bool, StoreError> {
        for (scope, Counter { stored, now }) in self.scopes {
            if stored == now {
                continue;
            }
            let name = scope_counter(&scope);
            match now {
                0 => drop(self.table.remove(name.as_slice()).map_err(storage)?),
                _ => drop(self.table.insert(name.as_slice(), now.to_be_bytes().as_slice()).map_err(storage)?),
            }
        }
        if self.totals != self.stored_totals {
            self.table.insert(TOTALS, encode_totals(&self.totals).as_slice()).map_err(storage)?;
        }
        let mut wrote = wrote;
        for (name, mark) in [(CLOCK_MARK, batch.now.0), (TICK_MARK, batch.tick)] {
            if mark > read_counter(&self.table, name)? {
                self.table.insert(name, mark.to_be_bytes().as_slice()).map_err(storage)?;
                wrote = true;
            }
        }
        if wrote {
            let next = read_counter(&self.table, GENERATION)?.saturating_add(1);
            self.table.insert(GENERATION, next.to_be_bytes().as_slice()).map_err(storage)?;
        }
        Ok(wrote)
    }
}

fn less(count: &mut u64) {
    debug_assert!(*count > 0, "a record was there that nobody had counted");
    *count = count.saturating_sub(1);
}
