//! What becomes of one change: the part of a commit that every store has in common.

use std::collections::BTreeMap;

use super::{Batch, Change, Verdict, Version, row_key};
use crate::ledger::StoredRow;
use crate::record::{Record, Status};
use crate::time::UnixMillis;

/// What a change meets: what is stored, and what the changes before it in its batch have made of that.
pub(super) struct Current<'a> {
    pub(super) record: Option<&'a Record>,
    pub(super) records_in_scope: u64,
    /// What stands where each of its rows goes, in the order of the rows.
    pub(super) rows: &'a [Option<StoredRow>],
}

/// Decides one change before anything of it is written. `Ok` says that it goes through.
pub(super) fn decide(change: &Change, current: &Current<'_>, batch: &Batch) -> Result<(), Verdict> {
    if change.expected != current.record.map(Version::of) {
        return Err(Verdict::Fenced);
    }
    debug_assert_eq!(change.rows.len(), current.rows.len(), "every row was looked up");
    let mut rows = change.rows.iter().zip(current.rows);
    if !rows.all(|(row, stored)| row.guard.holds(stored.as_ref(), batch.now)) {
        return Err(Verdict::Guarded);
    }
    // A tombstone is a refusal: a peer that fills its scope must not be able to ward it off. And what has run is recorded,
    // whether or not it was let in by a record of its own.
    let asks_in = |put: &Record| put.revision <= 1 && put.state.status() != Status::Tombstone;
    let adds = current.record.is_none() && change.put.as_deref().is_some_and(asks_in);
    if adds && current.records_in_scope >= batch.records_per_scope {
        return Err(Verdict::QuotaExceeded);
    }
    Ok(())
}

/// What becomes of one row.
pub(super) struct RowWrite {
    /// What stands there from now on; `None`: nothing.
    pub(super) put: Option<StoredRow>,
    /// The end of what stood there, if that had one.
    pub(super) old_end: Option<UnixMillis>,
}

/// What a change makes of rows, by key: of two with the same key, the later one counts. A removal of what is not there is left
/// out: it changes nothing.
pub(super) fn row_writes(change: &Change, current: &[Option<StoredRow>]) -> BTreeMap<Vec<u8>, RowWrite> {
    let latest: BTreeMap<_, _> = change
        .rows
        .iter()
        .zip(current)
        .map(|(row, stored)| (row_key::join(&row.table, &row.key), (row.outcome(), stored)))
        .collect();
    latest
        .into_iter()
        .filter(|(_, (put, stored))| put.is_some() || stored.is_some())
        .map(|(key, (put, stored))| {
            let old_end = stored.as_ref().and_then(|stored| stored.expires_at);
            (key, RowWrite { put, old_end })
        })
        .collect()
}
