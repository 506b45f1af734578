//! The machine's clock and an offset that control lines move.

use std::sync::{Arc, Mutex, PoisonError};

use ibid::{Clock, SystemClock, UnixMillis};

/// Clones share the same offset. Below 0 and past `u64::MAX` ms it stands at the end.
#[derive(Clone)]
pub(crate) struct OffsetClock(Arc<Mutex<i128>>);

impl OffsetClock {
    pub(crate) fn ahead(offset_ms: i128) -> Self {
        Self(Arc::new(Mutex::new(offset_ms)))
    }

    pub(crate) fn advance(&self, ms: i128) {
        let mut offset = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *offset = offset.saturating_add(ms);
    }
}

impl Clock for OffsetClock {
    fn now(&self) -> UnixMillis {
        let offset = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let millis = i128::from(SystemClock.now().0).saturating_add(offset);
        UnixMillis(u64::try_from(millis.max(0)).unwrap_or(u64::MAX))
    }
}
