//! The directory that the benchmarks write to, and the disk below it.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use ibid::store::{RedbOptions, RedbStore};

use super::AnyError;
use super::numbers::Spread;
use super::process::now;

const PAGE_BYTES: usize = 4_096;
const SYNCS: usize = 200;

/// A directory under `target`: the file system of the checkout, not one in memory.
pub(crate) fn scratch() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// What a run begins with: where its files are, and what a durable write costs there.
pub(crate) fn header() -> Result<(), AnyError> {
    let kind = file_system(scratch()).unwrap_or_else(|| "unknown".to_owned());
    println!("files in {} ({kind})", scratch().display());
    tell_syncs("at first")
}

/// What a run ends with. Where a durable write costs something else than it did at first, so did what was measured between.
pub(crate) fn footer() -> Result<(), AnyError> {
    println!();
    tell_syncs("at last")
}

fn tell_syncs(when: &str) -> Result<(), AnyError> {
    let syncs = syncs()?;
    let (p50, p99) = (syncs.p50(), syncs.p99());
    println!("append of 4 KiB and fdatasync, {SYNCS} times, {when}: median {p50:.0} us, p99 {p99:.0} us");
    Ok(())
}

/// How long it takes to append a page to a file and to make it durable.
pub(crate) fn syncs() -> Result<Spread, AnyError> {
    let directory = tempfile::tempdir_in(scratch())?;
    let mut file = File::create(directory.path().join("syncs"))?;
    let took: Result<Vec<_>, std::io::Error> = (0..SYNCS)
        .map(|turn| {
            let page = [turn as u8; PAGE_BYTES];
            let began = now();
            file.write_all(&page)?;
            file.sync_data()?;
            Ok(began.elapsed())
        })
        .collect();
    Ok(Spread::of(took?))
}

/// Some work on a new store, in a directory of its own that goes with it.
pub(crate) fn on_new_store<T>(work: impl FnOnce(RedbStore) -> Result<T, AnyError>) -> Result<T, AnyError> {
    let directory = tempfile::tempdir_in(scratch())?;
    work(RedbStore::open(directory.path().join("ibid.redb"), RedbOptions::default())?)
}

/// The kind of file system that holds `path`, where Linux tells.
pub(crate) fn file_system(path: &Path) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    let deepest = mounts.filter(|(place, _)| path.starts_with(place)).max_by_key(|(place, _)| place.len())?;
    Some(deepest.1.to_owned())
}
