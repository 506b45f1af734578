//! When a failed store is tried again: 100 ms, doubling, five tries; from then on every 2 s. Randomness is handed in.

use std::time::Duration;

/// Failures in a row after which nobody is kept waiting any longer.
pub(crate) const TRIES: u32 = 5;

const FIRST_MILLIS: u64 = 100;
const LONGEST_MILLIS: u64 = 2_000;

/// The wait after so many failures in a row. `draw` is any number at all: from 0 to `u64::MAX` it adds 0 to 25 %, so that
/// those who failed together don't come back together. Never above 2,000 ms.
pub(crate) fn wait_after(failures: u32, draw: u64) -> Duration {
    let millis = match failures {
        0..=1 => FIRST_MILLIS,
        2..TRIES => FIRST_MILLIS << (failures - 1),
        TRIES.. => LONGEST_MILLIS,
    };
    let share = u128::from(millis / 4) * u128::from(draw) / u128::from(u64::MAX);
    let added = u64::try_from(share).unwrap_or(0);
    Duration::from_millis((millis + added).min(LONGEST_MILLIS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_double_from_100_ms_and_stay_at_2_s_with_up_to_a_quarter_on_top() {
        let half = u64::MAX / 2 + 1;
        for (failures, least, middle, most) in [
            (0, 100, 112, 125),
            (1, 100, 112, 125),
            (2, 200, 225, 250),
            (3, 400, 450, 500),
            (4, 800, 900, 1_000),
            (5, 2_000, 2_000, 2_000),
            (6, 2_000, 2_000, 2_000),
            (u32::MAX, 2_000, 2_000, 2_000),
        ] {
            for (draw, millis) in [(0, least), (half, middle), (u64::MAX, most)] {
                assert_eq!(wait_after(failures, draw), Duration::from_millis(millis), "{failures} failures, {draw}");
            }
        }
    }
}
