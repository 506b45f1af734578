//! Unix milliseconds, and the one place that reads the machine's clock.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// `self + duration`, whole milliseconds, or `None` past `u64::MAX`.
    #[must_use]
    pub fn checked_add(self, duration: Duration) -> Option<Self> {
        u64::try_from(duration.as_millis()).ok().and_then(|millis| self.0.checked_add(millis)).map(Self)
    }

    /// `self + duration`, or the end of time.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        self.checked_add(duration).unwrap_or(Self(u64::MAX))
    }
}

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// Where an engine reads the time. Persisted times come from here and from nowhere else.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock, now. It may step back; the engine never goes back with it.
    fn now(&self) -> UnixMillis;
}

/// The machine's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> UnixMillis {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis::default().saturating_add(since_epoch)
    }
}

/// A clock that never goes back: the highest time seen, by this process or, through the store's mark, by earlier ones.
pub(crate) struct HighWater {
    clock: Box<dyn Clock>,
    mark: AtomicU64,
}

impl HighWater {
    pub(crate) fn new(clock: Box<dyn Clock>, stored_mark: UnixMillis) -> Self {
        Self { clock, mark: AtomicU64::new(stored_mark.0) }
    }

    pub(crate) fn now(&self) -> UnixMillis {
        let now = self.clock.now().0;
        UnixMillis(self.mark.fetch_max(now, Ordering::AcqRel).max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Steps(AtomicU64);
    impl Clock for Steps {
        fn now(&self) -> UnixMillis {
            UnixMillis(self.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn a_clock_stepped_back_stands_still_until_it_catches_up() {
        let clock = HighWater::new(Box::new(Steps(AtomicU64::new(70))), UnixMillis(100));
        assert_eq!(clock.now(), UnixMillis(100), "the stored mark counts");
        let clock = HighWater::new(Box::new(Steps(AtomicU64::new(170))), UnixMillis(100));
        assert_eq!(clock.now(), UnixMillis(170));
    }

    #[test]
    fn addition_is_checked_at_the_end_of_time() {
        assert_eq!(UnixMillis(u64::MAX - 1000).checked_add(Duration::from_secs(600)), None);
        assert_eq!(UnixMillis(u64::MAX - 1000).saturating_add(Duration::from_secs(600)), UnixMillis(u64::MAX));
        assert_eq!(UnixMillis(1).checked_add(Duration::MAX), None);
    }
}
