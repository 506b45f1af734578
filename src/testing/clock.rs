//! A clock that stands still until the test moves it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::time::{Clock, UnixMillis};

/// A clock set by hand. Clones share the same time.
///
/// [`advance`](ManualClock::advance) lets time pass; [`set`](ManualClock::set) does to the wall clock what a wrong date does,
/// and an engine may find it [suspect](crate::ClockState).
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<Hands>>);

#[derive(Debug)]
struct Hands {
    wall: UnixMillis,
    monotonic: Duration,
}

impl ManualClock {
    /// A clock that stands at `now`.
    #[must_use]
    pub fn at(now: UnixMillis) -> Self {
        Self(Arc::new(Mutex::new(Hands { wall: now, monotonic: Duration::ZERO })))
    }

    /// Sets the wall clock, forwards or back. The monotonic one stands still.
    pub fn set(&self, now: UnixMillis) {
        self.hands().wall = now;
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        let mut hands = self.hands();
        hands.wall = hands.wall.saturating_add(by);
        hands.monotonic = hands.monotonic.saturating_add(by);
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        self.hands().wall
    }

    fn monotonic(&self) -> Duration {
        self.hands().monotonic
    }
}
