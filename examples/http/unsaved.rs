//! Which ends wait in memory for the store to come back.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ibid::{Event, Key, Observer};

/// Clones share one set.
#[derive(Clone, Default)]
pub(crate) struct Unsaved(Arc<Mutex<BTreeSet<Key>>>);

impl Unsaved {
    pub(crate) fn holds(&self, key: &Key) -> bool {
        self.keys().contains(key)
    }

    fn keys(&self) -> MutexGuard<'_, BTreeSet<Key>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Unsaved {
    fn observe(&self, event: &Event<'_>) {
        match *event {
            Event::Unsaved { key } => {
                self.keys().insert(key.clone());
            }
            Event::Saved { key } | Event::Lost { key, .. } => {
                self.keys().remove(key);
            }
            _ => {}
        }
    }
}
