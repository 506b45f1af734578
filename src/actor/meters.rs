//! What is counted about a store that fails, for any thread to read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::key::Key;
use crate::observe::{Event, Observers};

#[derive(Debug, Default)]
pub(crate) struct Meters {
    failures: AtomicU64,
    retries: AtomicU64,
    unsaved: AtomicU64,
    is_down: AtomicBool,
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

    /// Whether the store has been down for so long that nothing new is taken in. What is read after it says no has been read
    /// since the store was opened anew.
    pub(super) fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Acquire)
    }

    pub(super) fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Release);
    }

    pub(super) fn note_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }
}

/// An end that could not be saved. It counts as unsaved for as long as its mark lives, and is lost if that is dropped.
pub(super) struct Mark {
    key: Key,
    meters: Arc<Meters>,
    observers: Arc<Observers>,
    is_saved: bool,
}

impl Mark {
    pub(super) fn new(key: &Key, meters: &Arc<Meters>, observers: &Arc<Observers>) -> Self {
        meters.failures.fetch_add(1, Ordering::Relaxed);
        meters.unsaved.fetch_add(1, Ordering::Relaxed);
        observers.tell(Event::Unsaved { key });
        let (meters, observers) = (Arc::clone(meters), Arc::clone(observers));
        Self { key: key.clone(), meters, observers, is_saved: false }
    }

    pub(super) fn saved(mut self) {
        self.is_saved = true;
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let key = &self.key;
        self.observers.tell(if self.is_saved { Event::Saved { key } } else { Event::Lost { key, was_unsaved: true } });
        self.meters.unsaved.fetch_sub(1, Ordering::Relaxed);
    }
}
