//! What is counted about a store that fails, for any thread to read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Meters {
    failures: AtomicU64,
    retries: AtomicU64,
    unsaved: AtomicU64,
}

impl Meters {
    /// Ends for which the tries ran out, each counted once.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// How often the store was tried again.
    pub(crate) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Ends that wait in memory to be saved.
    pub(crate) fn unsaved(&self) -> u64 {
        self.unsaved.load(Ordering::Relaxed)
    }

    pub(super) fn note_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }
}

/// An end that could not be saved. It counts as unsaved for as long as its mark lives.
pub(super) struct Mark(Arc<Meters>);

impl Mark {
    pub(super) fn new(meters: &Arc<Meters>) -> Self {
        meters.failures.fetch_add(1, Ordering::Relaxed);
        meters.unsaved.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(meters))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.0.unsaved.fetch_sub(1, Ordering::Relaxed);
    }
}
