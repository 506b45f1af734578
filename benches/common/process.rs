//! What the machine tells about this process: the time, what it has read and written, what it holds.

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// What this process has handed to `write` so far, in bytes, where Linux tells.
pub(crate) fn bytes_written() -> Option<u64> {
    io("wchar: ")
}

/// What the disk has read for this process so far, in bytes, where Linux tells. What came out of the cache of the kernel does not
/// count.
pub(crate) fn bytes_read_from_disk() -> Option<u64> {
    io("read_bytes: ")
}

fn io(name: &str) -> Option<u64> {
    let counts = std::fs::read_to_string("/proc/self/io").ok()?;
    counts.lines().find_map(|line| line.strip_prefix(name))?.parse().ok()
}

/// The resident set of this process, in bytes, where Linux tells.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1_024)
}
