//! What a host can watch: one event per change, told to every observer of the engine.
//!
//! ```text
//! Started ---> Ended                      each run of an operation, however it ends
//! InDoubt ---> OutOfDoubt                 each record in doubt; first those that are found so at opening
//! Unsaved ---> Saved | Lost               each end that the store could not take within its tries
//! ```
//!
//! Of each pair the first is told once per change and the second once after it, over tries of the store, deaths of actors and
//! re-runs; [`Event::Closed`] comes last and ends whatever is open then.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::key::Key;
use crate::record::Status;

/// Who hears of what happens in an engine: see [`Builder::observer`](crate::Builder::observer).
pub trait Observer: Send + Sync + 'static {
    /// Called once per event, on the engine's own threads (and, before the opening returns, on the thread that opens it),
    /// from more than one at a time. Events of one key come in their order.
    ///
    /// It must not block: the engine stands still meanwhile. A panic is caught, logged, and changes nothing.
    fn observe(&self, event: &Event<'_>);
}

/// Something that has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The operation of a durable registration is about to start; or that of a [replay-safe](crate::Policy::replay_safe) request.
    Started {
        /// Whose.
        key: &'a Key,
        /// The number of the attempt; above 1 it is a re-run.
        attempt: u32,
    },
    /// It has ended: done, failed, panicked or aborted; or the engine has closed without hearing of its end, as of a blocking
    /// operation, which cannot be aborted. What it came to is not recorded yet.
    Ended {
        /// Whose.
        key: &'a Key,
        /// The number of the attempt.
        attempt: u32,
    },
    /// A record has come into doubt, durably; or it was found in doubt, at opening, or when it was met with its run lost.
    InDoubt {
        /// Whose.
        key: &'a Key,
    },
    /// It has come out of doubt, durably: by an end, by a re-run, by being known downstream, or by its removal.
    OutOfDoubt {
        /// Whose.
        key: &'a Key,
    },
    /// The end of a run could not be saved within the tries of the store. It is kept in memory and goes on being tried.
    Unsaved {
        /// Whose.
        key: &'a Key,
    },
    /// An unsaved end is durable.
    Saved {
        /// Whose.
        key: &'a Key,
    },
    /// The end of a run could not be recorded, and nobody will try again: the engine has closed while the store still failed, the
    /// record can't be read any more, or the engine could not handle it, which is a bug of ibid's. What is left registered reads
    /// as in doubt, and is said to be at the next opening.
    Lost {
        /// Whose.
        key: &'a Key,
        /// Whether it had been told as [`Unsaved`](Self::Unsaved).
        was_unsaved: bool,
    },
    /// A store that had failed is tried again.
    StorageRetry,
    /// The expiry sweep has removed records, or put tombstones in their place.
    Removed {
        /// How many, at least one.
        records: u64,
    },
    /// A second end has contradicted the recorded one. It changed no answer; it may mean that money has moved.
    Contradiction {
        /// Whose.
        key: &'a Key,
        /// The end that is recorded.
        recorded: Status,
    },
    /// An end came from an attempt that is not the record's.
    FencedOff {
        /// Whose.
        key: &'a Key,
    },
    /// The recoveries of a record in doubt are used up.
    DeadLetter {
        /// Whose.
        key: &'a Key,
    },
    /// The engine has closed, or could not be opened after all. Nothing follows. A record that is in doubt stays so, and the next
    /// engine says it again.
    Closed,
}

impl<'a> Event<'a> {
    /// The key that it is about, if it is about one.
    #[must_use]
    pub fn key(&self) -> Option<&'a Key> {
        match *self {
            Self::Started { key, .. }
            | Self::Ended { key, .. }
            | Self::InDoubt { key }
            | Self::OutOfDoubt { key }
            | Self::Unsaved { key }
            | Self::Saved { key }
            | Self::Lost { key, .. }
            | Self::Contradiction { key, .. }
            | Self::FencedOff { key }
            | Self::DeadLetter { key } => Some(key),
            Self::StorageRetry | Self::Removed { .. } | Self::Closed => None,
        }
    }
}

/// Every observer of one engine.
#[derive(Default)]
pub(crate) struct Observers {
    all: Vec<Box<dyn Observer>>,
    closed: AtomicBool,
}

impl Observers {
    pub(crate) fn of(all: Vec<Box<dyn Observer>>) -> Arc<Self> {
        Arc::new(Self { all, closed: AtomicBool::new(false) })
    }

    pub(crate) fn tell(&self, event: Event<'_>) {
        let is_last = event == Event::Closed;
        let was_closed =
            if is_last { self.closed.swap(true, Ordering::AcqRel) } else { self.closed.load(Ordering::Acquire) };
        if was_closed {
            return;
        }
        for observer in &self.all {
            // The observer is not ours, and the actors have to go on.
            if catch_unwind(AssertUnwindSafe(|| observer.observe(&event))).is_err() {
                tracing::error!(?event, "an observer panicked");
            }
        }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observers").field("count", &self.all.len()).finish_non_exhaustive()
    }
}
