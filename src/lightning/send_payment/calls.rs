//! What goes on in this process, by id: submissions without a reply, calls inside LDK, events being handled.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// What goes on for an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// From before a registration until its reply, and so also while nobody knows yet whether there will be a call.
    Submission,
    /// The host's send is running.
    Call,
    /// An event is being handled.
    Event,
}

#[derive(Default)]
pub(super) struct Calls {
    counts: Mutex<HashMap<([u8; 32], Kind), usize>>,
    /// Counts the changes.
    changes: watch::Sender<u64>,
}

/// It goes on until this is dropped.
pub(super) struct Going {
    calls: Arc<Calls>,
    what: ([u8; 32], Kind),
}

impl Calls {
    pub(super) fn begin(self: &Arc<Self>, id: [u8; 32], kind: Kind) -> Going {
        *self.counts().entry((id, kind)).or_default() += 1;
        Going { calls: Arc::clone(self), what: (id, kind) }
    }

    pub(super) fn count(&self, id: [u8; 32], kind: Kind) -> usize {
        self.counts().get(&(id, kind)).copied().unwrap_or(0)
    }

    pub(super) fn going(&self, kind: Kind) -> Vec<[u8; 32]> {
        let mut ids: Vec<_> = self.counts().keys().filter(|what| what.1 == kind).map(|what| what.0).collect();
        ids.sort_unstable();
        ids
    }

    /// Tells of every end from here on.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<([u8; 32], Kind), usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        let mut counts = self.calls.counts();
        if let Some(count) = counts.get_mut(&self.what) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.what);
            }
        }
        drop(counts);
        self.calls.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }
}

/// Whether the host has said that LDK has replayed its events and seen the chain. Each change has a number of its own, so that
/// whoever looks twice sees also that it went and came back.
#[derive(Default)]
pub(super) struct Synced(AtomicU64);

impl Synced {
    /// The number of this period of being in sync; `None` outside of one.
    pub(super) fn period(&self) -> Option<u64> {
        Some(self.0.load(Ordering::SeqCst)).filter(|changes| changes % 2 == 1)
    }

    pub(super) fn set(&self, is_synced: bool) {
        // What is said again changes nothing, and then there is nothing to update.
        self.0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |changes| {
                ((changes % 2 == 1) != is_synced).then_some(changes.wrapping_add(1))
            })
            .ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_counted_by_id_and_kind_and_its_end_is_told() {
        let calls = Arc::new(Calls::default());
        let changes = calls.changes();
        let first = calls.begin([1; 32], Kind::Call);
        let second = calls.begin([1; 32], Kind::Call);
        assert_eq!((calls.count([1; 32], Kind::Call), calls.count([1; 32], Kind::Event)), (2, 0));
        assert_eq!((calls.going(Kind::Call), calls.going(Kind::Event)), (vec![[1; 32]], vec![]));
        assert!(!changes.has_changed().unwrap());
        drop(first);
        assert!(changes.has_changed().unwrap());
        drop(second);
        assert_eq!((calls.count([1; 32], Kind::Call), calls.going(Kind::Call)), (0, vec![]));
    }

    #[test]
    fn in_sync_again_is_another_period() {
        let synced = Synced::default();
        assert_eq!(synced.period(), None);
        synced.set(false);
        synced.set(true);
        let first = synced.period();
        synced.set(true);
        assert!(first.is_some() && synced.period() == first);
        synced.set(false);
        assert_eq!(synced.period(), None);
        synced.set(true);
        assert!(synced.period().is_some() && synced.period() != first);
    }
}
