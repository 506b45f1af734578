//! The disk below all of them.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use crate::AnyError;
use crate::drive::now;

const PAGE: usize = 4_096;
const PAGES: usize = 256;
const SYNCS: usize = 400;

/// How long a write of 4 KiB and `fdatasync` take, median: over pages that the file already has, one after the other.
pub(crate) fn sync_median(directory: &Path) -> Result<Duration, AnyError> {
    let mut file: File = tempfile::tempfile_in(directory)?;
    file.write_all(&vec![1; PAGE * PAGES])?;
    file.sync_all()?;
    let mut times = Vec::with_capacity(SYNCS);
    for turn in 0..SYNCS {
        let at = now();
        file.seek(SeekFrom::Start((turn % PAGES * PAGE) as u64))?;
        file.write_all(&[2; PAGE])?;
        file.sync_data()?;
        times.push(at.elapsed());
    }
    times.sort_unstable();
    Ok(times.get(SYNCS / 2).copied().unwrap_or_default())
}

/// The kind of file system that holds `path`, where Linux tells.
pub(crate) fn file_system(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    let deepest = mounts.filter(|(place, _)| path.starts_with(place)).max_by_key(|(place, _)| place.len())?;
    Some(deepest.1.to_owned())
}
