//! How fast an expiry sweep goes.
//!
//! A record that is removed costs a page, since the keys are in no order, and so about as much as a new request. What a slice
//! removes is written before the answers of the batch it rides with can leave, so it is measured by that batch: as many records as
//! the batch brings, and a quarter more, so that removing always outruns adding. Without requests it is doubled each time: a lone
//! caller, who is silent for a moment between two commits, must not meet a long one.

/// Records that a slice removes where few requests come, at most.
const LEAST: usize = 16;

/// The size of the next slice.
pub(super) struct Pace(usize);

impl Pace {
    pub(super) fn new() -> Self {
        Self(LEAST)
    }

    /// What rides with a batch: `None` without requests, else the number of its new records. At most `most`.
    pub(super) fn next(&mut self, new_records: Option<usize>, most: usize) -> usize {
        self.0 = match new_records {
            Some(new) => LEAST.max(new.saturating_add(new.div_ceil(4))),
            None => self.0.saturating_mul(2),
        };
        self.0 = self.0.min(most);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_removes_more_than_comes_in_and_speeds_up_when_nothing_does() {
        let mut pace = Pace::new();
        for (new_records, slice) in [
            (Some(0), 16),
            (Some(1), 16),
            (Some(13), 17),
            (Some(14), 18),
            (Some(100), 125),
            (Some(1_000), 256),
            (Some(3), 16),
            (None, 32),
            (None, 64),
            (None, 128),
            (None, 256),
            (None, 256),
            (Some(0), 16),
        ] {
            assert_eq!(pace.next(new_records, 256), slice, "{new_records:?}");
        }
        assert_eq!(pace.next(None, 4), 4, "never more than the limit");
        assert_eq!(pace.next(Some(usize::MAX), usize::MAX), usize::MAX);
    }
}
