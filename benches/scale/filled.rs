//! Stores full of finished records.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::sync_channel;

use ibid::store::{Batch, Change, IntegrityCheck, RedbOptions, RedbStore, Store, Verdict, Version};
use ibid::{Clock as _, Policy, SystemClock};

use crate::common::AnyError;
use crate::common::process::now;
use crate::common::work::{Kind, RETENTION, Work};
use crate::report::grouped;

/// Records in one batch of the filling, at least and at most.
const BATCH: (usize, usize) = (1_024, 262_144);
/// How many batches at the end have no more than the least.
const LAST: usize = 8;
/// While it is filled; opened for a section, a store has the default.
const CACHE_BYTES: usize = 1024 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape {
    pub(crate) records: usize,
    pub(crate) scopes: u32,
}

/// A store in a file that is closed. Its records are an hour from their end, and nothing in here takes so long.
#[derive(Clone)]
pub(crate) struct Filled {
    pub(crate) path: PathBuf,
    pub(crate) shape: Shape,
    pub(crate) work: Work,
    /// The first number that no request had yet.
    pub(crate) next: usize,
}

impl Filled {
    pub(crate) fn create(directory: &Path, shape: Shape) -> Result<Self, AnyError> {
        let began = now();
        let Shape { records, scopes } = shape;
        let path = directory.join(format!("{records}-{scopes}.redb"));
        let store = RedbStore::open(&path, unchecked().cache_bytes(CACHE_BYTES))?;
        let work = work(scopes)?;
        let (full, batches) = sync_channel(1);
        std::thread::scope(|scope| {
            let work = &work;
            // One thread makes batches, this one commits them.
            let maker = scope.spawn(move || {
                for numbers in slices(records) {
                    full.send(finished(work, numbers)?)?;
                }
                Ok::<_, AnyError>(())
            });
            for batch in batches {
                commit(&store, &batch)?;
            }
            maker.join().map_err(|_| "the maker of batches panicked")?
        })?;
        store.close()?;
        let (count, seconds) = (grouped(records), began.elapsed().as_secs_f64());
        eprintln!("filled with {count} records of {} scopes in {seconds:.0} s", grouped(scopes as usize));
        Ok(Self { path, shape, work, next: records })
    }

    /// So many numbers that no request had yet.
    pub(crate) fn take(&mut self, count: usize) -> Range<usize> {
        let first = self.next;
        self.next += count;
        first..self.next
    }

    /// Of the file as it stands.
    pub(crate) fn file_bytes(&self) -> Result<u64, AnyError> {
        Ok(std::fs::metadata(&self.path)?.len())
    }
}

/// Requests of so many peers.
pub(crate) fn work(scopes: u32) -> Result<Work, AnyError> {
    Ok(Work { scopes, ..Work::new(Policy::replay(RETENTION))? })
}

fn slices(records: usize) -> Vec<Range<usize>> {
    let last = records.saturating_sub(LAST * BATCH.0);
    let size = (records / 32).clamp(BATCH.0, BATCH.1);
    let cut = |numbers: Range<usize>, size: usize| {
        let Range { start, end } = numbers;
        (start..end).step_by(size).map(move |first| first..end.min(first + size))
    };
    cut(0..last, size).chain(cut(last..records, BATCH.0)).collect()
}

fn finished(work: &Work, numbers: Range<usize>) -> Result<Batch, AnyError> {
    let now = SystemClock.now();
    let changes = numbers.map(|number| work.change(Kind::AtOnce, number, now)).collect::<Result<_, _>>()?;
    Ok(Batch { now, records_per_scope: u64::MAX, changes, ..Batch::default() })
}

fn commit(store: &RedbStore, batch: &Batch) -> Result<(), AnyError> {
    let verdicts = store.commit(batch)?;
    let is_applied = verdicts.iter().all(|verdict| *verdict == Verdict::Applied);
    if is_applied { Ok(()) } else { Err("a change was not applied".into()) }
}

/// What of a file is in use, in bytes.
pub(crate) struct Live {
    /// Keys and values.
    pub(crate) payload: u64,
    /// The pages they are on.
    pub(crate) pages: u64,
}

impl Live {
    /// Looks into a copy of the file, which nobody writes to at the moment.
    pub(crate) fn of(path: &Path) -> Result<Self, AnyError> {
        let copied = path.with_extension("copy");
        copy(path, &copied)?;
        let stats = redb::Database::open(&copied)?.begin_write()?.stats()?;
        std::fs::remove_file(&copied)?;
        let pages = (stats.leaf_pages() + stats.branch_pages()) * stats.page_size() as u64;
        Ok(Self { payload: stats.stored_bytes(), pages })
    }
}

/// A copy of a closed file. Where the file system can share blocks, it does.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), AnyError> {
    let copied = Command::new("cp").args(["--reflink=auto", "--sparse=always"]).arg(from).arg(to).status();
    if !copied.is_ok_and(|status| status.success()) {
        std::fs::copy(from, to)?;
    }
    Ok(())
}

/// For whoever knows the file, as a benchmark does that has just written it.
pub(crate) fn unchecked() -> RedbOptions {
    RedbOptions::default().integrity_check(IntegrityCheck::Never)
}

/// Removes every record in flight, so that the file is as it was filled.
pub(crate) fn clear_in_flight(path: &Path) -> Result<(), AnyError> {
    let store = RedbStore::open(path, unchecked())?;
    loop {
        let entries = store.in_flight(None, BATCH.0)?;
        if entries.is_empty() {
            break;
        }
        let changes = entries.into_iter().map(|entry| {
            let (key, record) = entry.found.ok_or("a record that does not decode")?;
            Ok(Change::new(key, Some(Version::of(&record)), None))
        });
        let changes = changes.collect::<Result<_, AnyError>>()?;
        commit(&store, &Batch { records_per_scope: u64::MAX, changes, ..Batch::default() })?;
    }
    Ok(store.close()?)
}
