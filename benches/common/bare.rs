//! What the engine is measured by: one plain thread that commits the same transitions, and a log that they are appended to.

use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::time::Duration;

use ibid::store::{Batch, Store, Verdict};
use ibid::{Clock as _, SystemClock};

use super::AnyError;
use super::disk::scratch;
use super::numbers::Spread;
use super::process::{bytes_written, now};
use super::work::{Kind, REQUEST_BYTES, Work};

/// A record beside its request and its answer (fingerprint, attempt, times, checksum) and its entries in the indexes, roughly.
const ROW_BYTES: usize = 100;
const PAGE_BYTES: f64 = 4_096.0;

/// What a loop of commits came to.
pub(crate) struct Bare {
    /// Inside of them.
    pub(crate) took: Duration,
    pub(crate) commits: Spread,
    /// Bytes that the process wrote meanwhile, where that is known.
    written: Option<u64>,
}

impl Bare {
    /// Pages of 4 KiB written for each of so many requests; not a number where that is unknown.
    pub(crate) fn pages(&self, requests: usize) -> f64 {
        self.written.map_or(f64::NAN, |bytes| bytes as f64 / PAGE_BYTES / requests as f64)
    }
}

/// The bare loop: such transactions, one after the other, on this thread. Its requests are numbered from `first`. Only the time
/// inside of `commit` counts.
pub(crate) fn commit_all(
    store: &dyn Store,
    work: &Work,
    first: usize,
    batches: &[Vec<Kind>],
) -> Result<Bare, AnyError> {
    let (mut begun, mut finished) = (first, first);
    let mut commits = Vec::with_capacity(batches.len());
    let before = bytes_written();
    for kinds in batches {
        let time = SystemClock.now();
        let mut changes = Vec::with_capacity(kinds.len());
        for kind in kinds {
            let next = if *kind == Kind::Finish { &mut finished } else { &mut begun };
            changes.push(work.change(*kind, *next, time)?);
            *next += 1;
        }
        let batch = Batch { now: time, records_per_scope: u64::MAX, changes, ..Batch::default() };
        let began = now();
        let verdicts = store.commit(&batch)?;
        commits.push(began.elapsed());
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Applied), "the bare loop does the same work");
    }
    let written = bytes_written().zip(before).map(|(after, before)| after - before);
    Ok(Bare { took: commits.iter().sum(), commits: Spread::of(commits), written })
}

/// Stores the finished records of these requests, so many in a transaction.
pub(crate) fn fill(store: &dyn Store, work: &Work, numbers: Range<usize>, batch: usize) -> Result<(), AnyError> {
    let mut first = numbers.start;
    while first < numbers.end {
        let kinds = vec![Kind::AtOnce; batch.min(numbers.end - first)];
        first += kinds.len();
        commit_all(store, work, first - kinds.len(), &[kinds])?;
    }
    Ok(())
}

/// The same transitions in the same order, so many in a transaction.
pub(crate) fn evenly(batches: &[Vec<Kind>], size: usize) -> Vec<Vec<Kind>> {
    batches.concat().chunks(size).map(<[Kind]>::to_vec).collect()
}

/// The append log: for each transaction as many bytes as its records have, written at once to the end of a file and made durable
/// by one fdatasync. How long they took, each.
pub(crate) fn append_all(work: &Work, batches: &[Vec<Kind>]) -> Result<Spread, AnyError> {
    let directory = tempfile::tempdir_in(scratch())?;
    let mut log = File::create(directory.path().join("log"))?;
    let row = |kind: &Kind| match kind {
        Kind::Register => REQUEST_BYTES + ROW_BYTES,
        Kind::Finish | Kind::AtOnce => REQUEST_BYTES + ROW_BYTES + work.answer_bytes,
    };
    let mut took = Vec::with_capacity(batches.len());
    for kinds in batches {
        let rows = vec![b'l'; kinds.iter().map(row).sum()];
        let began = now();
        log.write_all(&rows)?;
        log.sync_data()?;
        took.push(began.elapsed());
    }
    Ok(Spread::of(took))
}
