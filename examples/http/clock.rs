//! A clock to be steered: it runs with the machine's until it is told otherwise.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ibid::{Clock, SystemClock, UnixMillis};

/// Clones share the same time.
#[derive(Clone)]
pub(crate) struct SteeredClock(Arc<Shared>);

struct Shared {
    machine: Box<dyn Clock>,
    hands: Mutex<Hands>,
}

/// Both clocks, as what they are ahead of the machine's, or where they stand. Negative: behind.
enum Hands {
    Running { ahead: Pair },
    Frozen { at: Pair },
}

#[derive(Clone, Copy)]
struct Pair {
    wall_ms: i128,
    monotonic_ns: i128,
}

impl SteeredClock {
    pub(crate) fn new() -> Self {
        Self::over(SystemClock)
    }

    fn over(machine: impl Clock) -> Self {
        let hands = Hands::Running { ahead: Pair { wall_ms: 0, monotonic_ns: 0 } };
        Self(Arc::new(Shared { machine: Box::new(machine), hands: Mutex::new(hands) }))
    }

    /// Both clocks stand still.
    pub(crate) fn freeze(&self) {
        self.turn(|hands, machine| *hands = Hands::Frozen { at: hands.read(machine) });
    }

    /// Both clocks go on from where they are.
    pub(crate) fn run(&self) {
        self.turn(|hands, machine| {
            let at = hands.read(machine);
            let ahead =
                Pair { wall_ms: at.wall_ms - machine.wall_ms, monotonic_ns: at.monotonic_ns - machine.monotonic_ns };
            *hands = Hands::Running { ahead };
        });
    }

    /// Time passes on both, standing still or not.
    pub(crate) fn advance(&self, by: Duration) {
        self.turn(|hands, _| {
            let pair = hands.pair();
            pair.wall_ms = pair.wall_ms.saturating_add(whole(by.as_millis()));
            pair.monotonic_ns = pair.monotonic_ns.saturating_add(whole(by.as_nanos()));
        });
    }

    /// The wall clock alone is set, ahead or back.
    pub(crate) fn jump(&self, by_ms: i64) {
        self.turn(|hands, _| {
            let pair = hands.pair();
            pair.wall_ms = pair.wall_ms.saturating_add(by_ms.into());
        });
    }

    fn turn<T>(&self, turn: impl FnOnce(&mut Hands, Pair) -> T) -> T {
        let mut hands = self.0.hands.lock().unwrap_or_else(PoisonError::into_inner);
        let machine = &self.0.machine;
        let machine = Pair { wall_ms: machine.now().0.into(), monotonic_ns: whole(machine.monotonic().as_nanos()) };
        turn(&mut hands, machine)
    }

    fn read(&self) -> Pair {
        self.turn(|hands, machine| hands.read(machine))
    }
}

impl Hands {
    fn pair(&mut self) -> &mut Pair {
        match self {
            Self::Running { ahead: pair } | Self::Frozen { at: pair } => pair,
        }
    }

    fn read(&self, machine: Pair) -> Pair {
        match self {
            Self::Running { ahead } => Pair {
                wall_ms: machine.wall_ms.saturating_add(ahead.wall_ms),
                monotonic_ns: machine.monotonic_ns.saturating_add(ahead.monotonic_ns),
            },
            Self::Frozen { at } => *at,
        }
    }
}

fn whole(number: u128) -> i128 {
    i128::try_from(number).unwrap_or(i128::MAX)
}

/// What lies before the beginning or past the end of what can be said is the beginning or the end.
fn bounded(number: i128) -> u64 {
    u64::try_from(number.max(0)).unwrap_or(u64::MAX)
}

impl Clock for SteeredClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(bounded(self.read().wall_ms))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(bounded(self.read().monotonic_ns))
    }
}

#[cfg(test)]
mod tests {
    use ibid::testing::ManualClock;

    use super::*;

    const START: u64 = 1_000_000;

    fn both() -> (ManualClock, SteeredClock) {
        let machine = ManualClock::at(UnixMillis(START));
        (machine.clone(), SteeredClock::over(machine))
    }

    fn read(clock: &SteeredClock) -> (u64, u128) {
        (clock.now().0, clock.monotonic().as_millis())
    }

    #[test]
    fn it_runs_with_the_machine_and_stands_still_when_frozen() {
        let (machine, clock) = both();
        machine.advance(Duration::from_millis(5));
        assert_eq!(read(&clock), (START + 5, 5));
        clock.freeze();
        machine.advance(Duration::from_millis(100));
        assert_eq!(read(&clock), (START + 5, 5));
        clock.advance(Duration::from_millis(20));
        assert_eq!(read(&clock), (START + 25, 25), "time passes by hand");
        clock.run();
        assert_eq!(read(&clock), (START + 25, 25), "it goes on from where it stood");
        machine.advance(Duration::from_millis(1));
        assert_eq!(read(&clock), (START + 26, 26));
    }

    #[test]
    fn a_jump_moves_the_wall_clock_alone() {
        let (machine, clock) = both();
        clock.jump(1_000);
        clock.advance(Duration::from_millis(7));
        assert_eq!(read(&clock), (START + 1_007, 7));
        clock.freeze();
        clock.jump(-2_000);
        machine.advance(Duration::from_millis(50));
        assert_eq!(read(&clock), (START - 993, 7));
    }

    #[test]
    fn neither_clock_leaves_its_range() {
        let (_, clock) = both();
        clock.jump(i64::MIN);
        assert_eq!(clock.now(), UnixMillis(0));
        clock.advance(Duration::MAX);
        assert_eq!(clock.monotonic(), Duration::from_nanos(u64::MAX));
        assert_eq!(clock.now(), UnixMillis(u64::MAX));
    }
}
