//! Unix milliseconds, and the one place that reads the machine's clock.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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

/// The engine's count of ticks. It goes up by one at a time, and the store keeps the highest that a commit has carried.
#[derive(Debug)]
pub(crate) struct Ticks(AtomicU64);

impl Ticks {
    /// Going on from what the store has kept.
    pub(crate) fn from(mark: u64) -> Self {
        Self(AtomicU64::new(mark))
    }

    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// One more.
    pub(crate) fn advance(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// Where an engine reads the time. Persisted times come from here and from nowhere else.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock, now. It may step back; the engine never goes back with it. Where it leaps far ahead of
    /// [`monotonic`](Clock::monotonic), it is not believed at once: see [`ClockState`].
    fn now(&self) -> UnixMillis;

    /// The time since some fixed moment of this process. It runs at the speed of real time, whatever is done to the wall
    /// clock.
    ///
    /// The default is the machine's own monotonic clock. Override it where [`now`](Clock::now) does not follow real time: a
    /// simulated hour has to pass here, too, or it looks like a leap.
    fn monotonic(&self) -> Duration {
        machine_monotonic()
    }
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

#[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
fn machine_monotonic() -> Duration {
    static FIRST_USE: OnceLock<Instant> = OnceLock::new();
    FIRST_USE.get_or_init(Instant::now).elapsed()
}

/// Whether the wall clock is believed.
///
/// One that leaps ahead of the monotonic clock by more than [`Limits::clock_jump`](crate::Limits::clock_jump) is suspect:
/// a wrong date must not make payments run again that have been made. It is believed once it has stayed there for
/// [`Limits::clock_trust_after`](crate::Limits::clock_trust_after), or when the host
/// [confirms](crate::Engine::confirm_clock) it, or when it comes back. Until then nothing is removed and nothing runs because
/// of expiry; what has expired by the wall clock is a *Conflict* (expired), whatever its policy, and that is not final: if
/// the clock comes back, it answers again. An opening has nothing to compare with, and believes the clock as it is. A
/// machine that has slept looks like a leap where its monotonic clock sleeps, too (on Linux it does).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClockState {
    /// It is.
    Trusted,
    /// It is not.
    Suspect {
        /// What the wall clock reads.
        wall: UnixMillis,
        /// What the engine goes by: the last trusted time and what has passed since by the monotonic clock.
        trusted: UnixMillis,
    },
}

/// One look at the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The time that records are given and judged by: the wall clock, suspect or not, but never behind `trusted`.
    pub(crate) wall: UnixMillis,
    /// The time that never goes back, and the only one to be made durable.
    pub(crate) trusted: UnixMillis,
    pub(crate) is_suspect: bool,
}

impl Reading {
    fn certain(now: UnixMillis) -> Self {
        Self { wall: now, trusted: now, is_suspect: false }
    }

    pub(crate) fn state(&self) -> ClockState {
        if self.is_suspect {
            ClockState::Suspect { wall: self.wall, trusted: self.trusted }
        } else {
            ClockState::Trusted
        }
    }
}

/// A clock that never goes back: the highest time trusted, by this process or, through the store's mark, by earlier ones.
pub(crate) struct HighWater {
    clock: Box<dyn Clock>,
    jump: Duration,
    trust_after: Duration,
    /// Hears of it when the clock becomes suspect, and when that ends.
    changed: fn(ClockState),
    marks: Mutex<Marks>,
}

/// Both clocks at one moment.
#[derive(Clone, Copy)]
struct Pair {
    wall: UnixMillis,
    monotonic: Duration,
}

struct Marks {
    trusted: Pair,
    suspicion: Option<Suspicion>,
}

struct Suspicion {
    /// Since when, by the monotonic clock.
    since: Duration,
    last: Pair,
}

impl Pair {
    /// What the wall clock should read when the monotonic one has come this far.
    fn wall_at(&self, monotonic: Duration) -> UnixMillis {
        self.wall.saturating_add(monotonic.saturating_sub(self.monotonic))
    }
}

impl HighWater {
    /// `changed` is told of every turn. See [`ClockState`] for the two spans.
    pub(crate) fn new(
        clock: Box<dyn Clock>,
        stored_mark: UnixMillis,
        (jump, trust_after): (Duration, Duration),
        changed: fn(ClockState),
    ) -> Self {
        let trusted = Pair { wall: clock.now().max(stored_mark), monotonic: clock.monotonic() };
        Self { clock, jump, trust_after, changed, marks: Mutex::new(Marks { trusted, suspicion: None }) }
    }

    pub(crate) fn read(&self) -> Reading {
        self.look(|marks, seen| self.judge(marks, seen))
    }

    /// The time that never goes back.
    pub(crate) fn now(&self) -> UnixMillis {
        self.read().trusted
    }

    /// Somebody who knows says that the wall clock is right.
    pub(crate) fn confirm(&self) {
        self.look(|marks, seen| marks.trust(seen));
    }

    /// The clocks are read under the lock: two readings never overtake each other.
    fn look(&self, judge: impl FnOnce(&mut Marks, Pair) -> Reading) -> Reading {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = Pair { wall: self.clock.now(), monotonic: self.clock.monotonic() };
        let was_suspect = marks.suspicion.is_some();
        let reading = judge(&mut marks, seen);
        drop(marks);
        if reading.is_suspect != was_suspect {
            (self.changed)(reading.state());
        }
        reading
    }

    fn judge(&self, marks: &mut Marks, seen: Pair) -> Reading {
        let expected = marks.trusted.wall_at(seen.monotonic);
        if seen.wall <= expected.saturating_add(self.jump) {
            return marks.trust(seen);
        }
        let fresh = Suspicion { since: seen.monotonic, last: seen };
        let suspicion = marks.suspicion.get_or_insert(fresh);
        let strayed = seen.wall.0.abs_diff(suspicion.last.wall_at(seen.monotonic).0);
        if u128::from(strayed) > self.jump.as_millis() {
            // It has leapt again, so it has not stayed anywhere.
            suspicion.since = seen.monotonic;
        }
        suspicion.last = seen;
        if seen.monotonic.saturating_sub(suspicion.since) >= self.trust_after {
            return marks.trust(seen);
        }
        Reading { wall: seen.wall, trusted: expected, is_suspect: true }
    }
}

impl Marks {
    /// A step back leaves the marks where they are; so does a suspect clock that comes back, from where they are by then.
    fn trust(&mut self, seen: Pair) -> Reading {
        if self.suspicion.take().is_some() {
            let wall = self.trusted.wall_at(seen.monotonic);
            self.trusted = Pair { wall, monotonic: seen.monotonic };
        }
        if seen.wall >= self.trusted.wall {
            self.trusted = seen;
        }
        Reading::certain(self.trusted.wall)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const HOUR: u64 = 3_600_000;
    const START: u64 = 1_000 * HOUR;

    /// Wall clock and monotonic clock, in milliseconds.
    #[derive(Clone, Default)]
    struct Steps(Arc<(AtomicU64, AtomicU64)>);

    impl Steps {
        fn at(wall: u64) -> Self {
            let steps = Self::default();
            steps.set(wall);
            steps
        }

        fn set(&self, wall: u64) {
            self.0.0.store(wall, Ordering::Relaxed);
        }

        fn pass(&self, millis: u64) {
            self.0.0.fetch_add(millis, Ordering::Relaxed);
            self.0.1.fetch_add(millis, Ordering::Relaxed);
        }
    }

    impl Clock for Steps {
        fn now(&self) -> UnixMillis {
            UnixMillis(self.0.0.load(Ordering::Relaxed))
        }

        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.0.1.load(Ordering::Relaxed))
        }
    }

    const SPANS: (Duration, Duration) = (Duration::from_millis(HOUR), Duration::from_secs(600));

    fn high_water(steps: &Steps, mark: u64) -> HighWater {
        HighWater::new(Box::new(steps.clone()), UnixMillis(mark), SPANS, |_| ())
    }

    fn suspect(wall: u64, trusted: u64) -> Reading {
        Reading { wall: UnixMillis(wall), trusted: UnixMillis(trusted), is_suspect: true }
    }

    fn certain(now: u64) -> Reading {
        Reading::certain(UnixMillis(now))
    }

    #[test]
    fn a_clock_stepped_back_stands_still_until_it_catches_up() {
        assert_eq!(high_water(&Steps::at(70), 100).now(), UnixMillis(100), "the stored mark counts");
        let steps = Steps::at(170);
        let clock = high_water(&steps, 100);
        assert_eq!(clock.now(), UnixMillis(170));
        steps.set(100);
        steps.pass(60);
        assert_eq!(clock.read(), certain(170));
        steps.pass(11);
        assert_eq!(clock.read(), certain(171));
    }

    #[test]
    fn a_leap_is_suspect_from_the_first_millisecond_beyond_the_hour_and_an_opening_never_is() {
        assert_eq!(high_water(&Steps::at(START), 0).read(), certain(START), "nothing to compare with");
        for (ahead, is_suspect) in [(HOUR - 1_000, false), (HOUR, false), (HOUR + 1, true)] {
            let steps = Steps::at(START);
            let clock = high_water(&steps, 0);
            steps.pass(5);
            steps.set(START + 5 + ahead);
            assert_eq!(clock.read().is_suspect, is_suspect, "{ahead}");
            assert_eq!(clock.now(), UnixMillis(if is_suspect { START + 5 } else { START + 5 + ahead }));
        }
        let steps = Steps::at(START);
        let clock = high_water(&steps, 0);
        steps.pass(1_000 * HOUR);
        assert_eq!(clock.read(), certain(2_000 * HOUR), "time that really passed is no leap");
    }

    #[test]
    fn a_suspect_clock_that_comes_back_is_trusted_again_and_the_time_has_only_passed() {
        let steps = Steps::at(START);
        let clock = high_water(&steps, 0);
        steps.set(START + 50 * HOUR);
        assert_eq!(clock.read(), suspect(START + 50 * HOUR, START));
        steps.pass(1_000);
        assert_eq!(clock.read(), suspect(START + 50 * HOUR + 1_000, START + 1_000));
        steps.set(START + 900);
        assert_eq!(clock.read(), certain(START + 1_000), "what was trusted stays");
        steps.pass(200);
        assert_eq!(clock.read(), certain(START + 1_100));
    }

    #[test]
    fn a_suspect_clock_is_trusted_when_it_has_stayed_for_ten_minutes_or_is_confirmed() {
        let steps = Steps::at(START);
        let clock = high_water(&steps, 0);
        steps.set(START + 2 * HOUR);
        assert!(clock.read().is_suspect);
        steps.pass(599_999);
        assert!(clock.read().is_suspect);
        // It leaps again, and so begins anew.
        steps.set(START + 9 * HOUR);
        steps.pass(1);
        assert!(clock.read().is_suspect);
        steps.pass(599_999);
        assert!(clock.read().is_suspect);
        steps.pass(1);
        assert_eq!(clock.read(), certain(START + 9 * HOUR + 600_001));

        steps.set(START + 20 * HOUR);
        assert!(clock.read().is_suspect);
        clock.confirm();
        assert_eq!(clock.read(), certain(START + 20 * HOUR));
        steps.set(START);
        assert_eq!(clock.read(), certain(START + 20 * HOUR), "from here on it never goes back");
    }

    #[test]
    fn every_turn_is_told_once() {
        static TURNS: Mutex<Vec<ClockState>> = Mutex::new(Vec::new());
        let steps = Steps::at(START);
        let clock = HighWater::new(Box::new(steps.clone()), UnixMillis(0), SPANS, |state| {
            TURNS.lock().unwrap().push(state);
        });
        for wall in [START, START + 2 * HOUR, START + 2 * HOUR, START, START] {
            steps.set(wall);
            clock.read();
        }
        let [wall, trusted] = [START + 2 * HOUR, START].map(UnixMillis);
        assert_eq!(*TURNS.lock().unwrap(), [ClockState::Suspect { wall, trusted }, ClockState::Trusted]);
    }

    #[test]
    fn addition_is_checked_at_the_end_of_time() {
        assert_eq!(UnixMillis(u64::MAX - 1000).checked_add(Duration::from_secs(600)), None);
        assert_eq!(UnixMillis(u64::MAX - 1000).saturating_add(Duration::from_secs(600)), UnixMillis(u64::MAX));
        assert_eq!(UnixMillis(1).checked_add(Duration::MAX), None);
    }
}
