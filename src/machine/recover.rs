//! What was left behind by another boot, or by an end that was never recorded.

use super::Context;
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

/// How a Registered record reads while no attempt of it runs here: as in doubt, whether or not its interruption has been
/// recorded. `None` if it reads as it is. It is still the stored revision.
pub(super) fn left(record: &Record, cx: Context<'_>) -> Option<Record> {
    if cx.live {
        return None;
    }
    interrupt(record, cx.now).map(|doubted| Record { revision: record.revision, ..doubted })
}

/// `record` in doubt. `counts`: its attempt ended unknown, rather than with an error that is merely not believed.
pub(super) fn in_doubt(record: &Record, counts: bool, now: UnixMillis) -> Record {
    let rerun_ended = counts && record.attempt.number > 1;
    let recoveries = record.recoveries.saturating_add(u8::from(rerun_ended));
    Record { state: State::InDoubt, recoveries, ..next(record, now) }
}
