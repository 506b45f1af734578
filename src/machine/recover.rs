//! What was left behind by another boot, or by an end that was never recorded, and how it is brought to an end: somebody
//! who knows is asked, or it is run again.

use std::time::Duration;

use super::expire::{Seen, next};
use super::finish::{end_from_outside, fenced_off, second_end, without_effect};
use super::release::marked;
use super::{Admission, Alarm, Context, Release, Said, Step, admit};
use crate::error::ErrorKind;
use crate::inquiry::Found;
use crate::outcome::{Ended, Reason};
use crate::policy::{InDoubt, Policy};
use crate::record::{AttemptId, Record, State, Status};
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

/// In doubt, with as many recoveries as allowed behind it.
pub(super) fn is_exhausted(record: &Record, cx: Context<'_>) -> bool {
    is_dead_letter(record, allowed(cx))
}

fn allowed(cx: Context<'_>) -> u8 {
    recoveries_allowed(cx.policy.in_doubt == InDoubt::Ask, cx.recoveries)
}

/// A limit of no re-runs is one; but nobody's silence has been heard before it was asked once.
pub(crate) fn recoveries_allowed(is_asked: bool, limit: u8) -> u8 {
    if is_asked { limit.max(1) } else { limit }
}

/// Whether the recoveries of this record are used up.
pub(crate) fn is_dead_letter(record: &Record, allowed: u8) -> bool {
    record.state.status() == Status::InDoubt && record.recoveries >= allowed
}

/// Whether this count of recoveries is the first that is too high.
pub(super) fn used_up(before: u8, after: u8, cx: Context<'_>) -> bool {
    match cx.policy.in_doubt {
        InDoubt::Ask | InDoubt::Rerun => before < allowed(cx) && after >= allowed(cx),
        InDoubt::Ambiguous => false,
    }
}

/// Somebody was asked about the record when it stood at `asked`, and this is the answer.
pub(super) fn found(seen: Seen<'_>, asked: (AttemptId, u8), found: &Found, cx: Context<'_>) -> Step {
    let silent = || Step::say(Said::FencedOff);
    let record = match seen {
        Seen::Record(record) if record.attempt.is_same(&asked.0) => record,
        // An end of an earlier record or attempt: somebody must hear of it.
        Seen::Record(_) if matches!(found, Found::Done(_)) => return fenced_off(),
        Seen::Record(_) | Seen::Absent | Seen::Tombstone(_) => return silent(),
    };
    match &record.state {
        // The operation itself will say.
        State::Registered | State::InDoubt | State::Dispatched if cx.live => Step::say(Said::Nothing),
        State::Registered | State::InDoubt => found_in_doubt(record, asked.1, found, cx),
        State::Dispatched => match found {
            Found::NotStarted => without_effect(record, &not_started(), cx),
            Found::Abandoned if !record.abandoned => Step::say(Said::Nothing).putting(marked(record, cx)),
            Found::Missing => Step::say(Said::Nothing).putting(in_doubt(record, false, cx.now)),
            Found::Done(end) => end_from_outside(record, end, cx),
            Found::Live | Found::Abandoned | Found::CannotTell => Step::say(Said::Nothing),
        },
        State::Completed(_) | State::Failed(..) => found_ended(record, found, cx),
        State::Tombstone(_) => silent(),
    }
}

fn found_in_doubt(record: &Record, asked_at: u8, found: &Found, cx: Context<'_>) -> Step {
    match found {
        Found::NotStarted => without_effect(record, &not_started(), cx),
        Found::Live => Step::say(Said::Nothing).putting(Record { state: State::Dispatched, ..next(record, cx.now) }),
        Found::Abandoned => Step::say(Said::Nothing).putting(Record { state: State::Dispatched, ..marked(record, cx) }),
        Found::Missing => Step::say(Said::Nothing),
        Found::Done(end) => end_from_outside(record, end, cx),
        Found::CannotTell => match cx.policy.in_doubt {
            InDoubt::Ask => cannot_tell(record, asked_at, cx),
            InDoubt::Ambiguous | InDoubt::Rerun => Step::say(Said::Nothing),
        },
    }
}

/// Each such answer counts once, also if it comes a second time because the actor that recorded it has died. A dead letter
/// is not written again; whoever tracks it hears that it is one.
fn cannot_tell(record: &Record, asked_at: u8, cx: Context<'_>) -> Step {
    let counted = asked_at.saturating_add(1);
    let step = Step::say(Said::Nothing);
    let step = if used_up(asked_at, counted, cx) {
        step.releasing(Release::All(Err(ErrorKind::RecoveriesExhausted.into()))).raising(Alarm::DeadLetter)
    } else {
        step
    };
    if record.recoveries == asked_at && asked_at < allowed(cx) {
        step.putting(Record { recoveries: counted, ..next(record, cx.now) })
    } else if record.recoveries == counted {
        step
    } else {
        Step::say(Said::Nothing)
    }
}

/// The first end stays. That a completed attempt never started is as much of a contradiction as another end.
fn found_ended(record: &Record, found: &Found, cx: Context<'_>) -> Step {
    let end = match (found, &record.state) {
        (Found::Done(end), _) => end.clone(),
        (Found::NotStarted, State::Completed(_)) => Ended::Failed(not_started().bytes().clone()),
        (Found::NotStarted | Found::Live | Found::Abandoned | Found::Missing | Found::CannotTell, _) => {
            return Step::say(Said::Nothing);
        }
    };
    Step { caller: Said::Nothing, ..second_end(record, &end, cx) }
}

fn not_started() -> Reason {
    Reason::from_bytes(*b"not started")
}

/// A re-run that no caller asks for: of exactly this attempt or not at all. Where the record has ended meanwhile or is gone,
/// nothing may run in its place.
pub(super) fn rerun(seen: Seen<'_>, attempt: AttemptId, admission: &Admission, cx: Context<'_>) -> Step {
    match seen {
        Seen::Record(record) if record.attempt.is_same(&attempt) && !cx.live => {
            match (&record.state, cx.policy.in_doubt) {
                (State::InDoubt, InDoubt::Rerun) if !is_exhausted(record, cx) => admit::rerun(record, admission, cx),
                (State::InDoubt, InDoubt::Ambiguous | InDoubt::Ask | InDoubt::Rerun) => Step::say(Said::Nothing),
                (State::Registered | State::Dispatched, _) => Step::say(Said::Nothing),
                (State::Completed(_) | State::Failed(..) | State::Tombstone(_), _) => Step::say(Said::Nothing),
            }
        }
        Seen::Record(_) | Seen::Absent | Seen::Tombstone(_) => Step::say(Said::Nothing),
    }
}

/// How long the answer of a re-run that nobody asks for is kept, from its admission: as long as the first request wanted it.
/// Later attempts may have set a bound of their own, so after them it is what was left when the record came into doubt, which
/// is never more. `None`: the request set no bound.
pub(crate) fn retention_of(record: &Record) -> Option<Duration> {
    let from = if record.attempt.number == 1 { record.created_at } else { record.updated_at };
    record.expires_at.map(|end| Duration::from_millis(end.0.saturating_sub(from.0)))
}

/// How often a record in doubt is dealt with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// After the first time.
    pub(crate) first: Duration,
    /// The doubling ends here.
    pub(crate) most: Duration,
}

/// How long a record in doubt is left alone after its last change: not at all before it has been asked about, then doubling.
///
/// Re-runs are paced by their number, not by the count of those that ended unknown: a typed error does not count.
pub(crate) fn pause(record: &Record, policy: &Policy, pace: Pace) -> Duration {
    let doublings = match policy.in_doubt {
        InDoubt::Rerun => record.attempt.number.saturating_sub(1),
        InDoubt::Ask | InDoubt::Ambiguous if record.recoveries == 0 => return Duration::ZERO,
        InDoubt::Ask | InDoubt::Ambiguous => u32::from(record.recoveries) - 1,
    };
    pace.first.saturating_mul(1 << doublings.min(16)).min(pace.most)
}
