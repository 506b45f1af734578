//! What was left behind by another boot, or by an end that was never recorded.

use super::expire::next;
use crate::record::{Record, State};
use crate::time::UnixMillis;

/// The record of an attempt that no longer runs: in doubt. `None` if the record does not depend on a running attempt.
///
/// A Dispatched record outlives its boot and stays. An interrupted re-run counts towards the limit of re-runs, an
/// interrupted first run does not.
pub(crate) fn interrupt(record: &Record, now: UnixMillis) -> Option<Record> {
    match record.state {
        State::Registered => Some(in_doubt(record, true, now)),
        State::Dispatched | State::InDoubt | State::Completed(_) | State::Failed(..) | State::Tombstone(_) => None,
    }
}

/// `record` in doubt. `counts`: its attempt ended unknown, rather than with an error that is merely not believed.
pub(super) fn in_doubt(record: &Record, counts: bool, now: UnixMillis) -> Record {
    let rerun_ended = counts && record.attempt.number > 1;
    let recoveries = record.recoveries.saturating_add(u8::from(rerun_ended));
    Record { state: State::InDoubt, recoveries, ..next(record, now) }
}
