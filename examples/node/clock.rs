//! The machine's clocks and an offset that control lines move.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ibid::{Clock, SystemClock, UnixMillis};

/// Clones share the same offset. Below 0 and past `u64::MAX` ms it stands at the end.
#[derive(Clone)]
pub(crate) struct OffsetClock(Arc<Mutex<Offset>>);

struct Offset {
    wall_ms: i128,
    /// Time that was made to pass has passed for the monotonic clock, too.
    passed: Duration,
}

impl OffsetClock {
    pub(crate) fn ahead(offset_ms: i128) -> Self {
        Self(Arc::new(Mutex::new(Offset { wall_ms: offset_ms, passed: Duration::ZERO })))
    }

    pub(crate) fn advance(&self, ms: i128) {
        let mut offset = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        offset.wall_ms = offset.wall_ms.saturating_add(ms);
        let passed = Duration::from_millis(u64::try_from(ms.max(0)).unwrap_or(u64::MAX));
        offset.passed = offset.passed.saturating_add(passed);
    }
}

impl Clock for OffsetClock {
    fn now(&self) -> UnixMillis {
        let offset = self.0.lock().unwrap_or_else(PoisonError::into_inner).wall_ms;
        let millis = i128::from(SystemClock.now().0).saturating_add(offset);
        UnixMillis(u64::try_from(millis.max(0)).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Duration {
        let passed = self.0.lock().unwrap_or_else(PoisonError::into_inner).passed;
        SystemClock.monotonic().saturating_add(passed)
    }
}
