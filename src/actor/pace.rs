//! How fast an expiry sweep goes.
//!
//! A record that is removed costs a page, since the keys are in no order, and so about as much as a new request. What a slice
//! removes is written before the answers of the batch it rides with can leave, so it is measured by that batch: half as many
//! records as the batch brings. An expiry sweep that is not done after [`PATIENCE`] falls behind for as long as the load stays
//! what it is: from then on it removes a quarter more than comes in, so that it ends, and the file stops growing. Without
//! requests a slice is doubled each time: a lone caller, who is silent for a moment between two commits, must not meet a long one.

use std::time::Duration;

use crate::time::UnixMillis;

/// Records that a slice removes where few requests come, at most.
const LEAST: usize = 16;

/// For so long an expiry sweep lets requests go first. Meanwhile the file may grow by half of what comes in.
const PATIENCE: Duration = Duration::from_secs(600);

/// The size of the next slice of an expiry sweep.
#[derive(Default)]
pub(super) struct Pace {
    slice: usize,
    /// When the expiry sweep under way had its first one.
    since: Option<UnixMillis>,
}

impl Pace {
    /// For a time in which nothing but removals can be written: there is nobody to let go first.
    pub(super) fn full(most: usize) -> Self {
        Self { slice: most, since: None }
    }

    /// `riding`: what the batch brings, `None` without requests, else the number of its new records. At most `most`.
    pub(super) fn next(&mut self, riding: Option<usize>, now: UnixMillis, most: usize) -> usize {
        let since = *self.since.get_or_insert(now);
        let is_late = now >= since.saturating_add(PATIENCE);
        self.slice = match riding {
            Some(new) if is_late => new.saturating_add(new.div_ceil(4)),
            Some(new) => new.div_ceil(2),
            None => self.slice.saturating_mul(2),
        };
        self.slice = self.slice.max(LEAST).min(most);
        self.slice
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an expiry sweep removes beside batches with so many new records, if it began so long ago.
    fn beside(new_records: usize, seconds: u64) -> usize {
        let (mut pace, began) = (Pace::default(), UnixMillis(1_000_000));
        pace.next(Some(0), began, 256);
        pace.next(Some(new_records), began.saturating_add(Duration::from_secs(seconds)), 256)
    }

    #[test]
    fn it_lets_requests_go_first_until_it_is_late() {
        for (new_records, early, late) in
            [(0, 16, 16), (1, 16, 16), (13, 16, 17), (33, 17, 42), (100, 50, 125), (400, 200, 256), (1_000, 256, 256)]
        {
            assert_eq!((beside(new_records, 0), beside(new_records, 600)), (early, late), "{new_records} new records");
        }
        assert_eq!((beside(100, 599), beside(100, 601)), (50, 125));
    }

    #[test]
    fn it_speeds_up_when_nothing_comes_in() {
        let (mut pace, now) = (Pace::default(), UnixMillis(1));
        let riding = [Some(0), None, None, None, None, None, Some(3), None, Some(usize::MAX), None];
        let slices = riding.map(|riding| pace.next(riding, now, 256));
        assert_eq!(slices, [16, 32, 64, 128, 256, 256, 16, 32, 256, 256]);
        assert_eq!(pace.next(None, now, 4), 4, "never more than the limit");
        let mut full = Pace::full(256);
        assert_eq!([None, Some(1)].map(|riding| full.next(riding, now, 256)), [256, 16], "until somebody comes");
        assert_eq!(pace.next(Some(usize::MAX), UnixMillis(u64::MAX), usize::MAX), usize::MAX);
    }
}
