//! A record goes by decision, not by age: forgotten, abandoned, or acknowledged and then left alone.

use super::expire::{Seen, end, next};
use super::{Context, Downstream, Said, Step, Write};
use crate::inquiry::Found;
use crate::outcome::{Abandoned, Acknowledged, Forgotten};
use crate::policy::Retention;
use crate::record::{Record, State, Status};

/// Removes a finished record, if nothing of it is under way any more.
pub(super) fn forget(seen: Seen<'_>, downstream: &Downstream, cx: Context<'_>) -> Step {
    let said = |forgotten| Step::say(Said::Forgotten(forgotten));
    match seen {
        Seen::Absent => said(Forgotten::NotFound),
        Seen::Tombstone(_) => said(Forgotten::Tombstone),
        Seen::Record(record) if record.state.status().is_in_flight() => {
            said(Forgotten::InFlight(record.state.status()))
        }
        Seen::Record(record) if cx.live || !is_over(record, downstream) => said(Forgotten::Live),
        Seen::Record(record) => {
            let until = cx.policy.tombstone.map(|lifetime| cx.now.saturating_add(lifetime));
            said(Forgotten::Forgotten).writing(end(record, until, cx.now))
        }
    }
}

/// Whether it is certain that downstream has done with the record's attempt. What was said of another attempt proves nothing.
fn is_over(record: &Record, downstream: &Downstream) -> bool {
    match downstream {
        Downstream::NobodyKnows => true,
        Downstream::NotAsked => false,
        Downstream::Said(attempt, found) => match found {
            Found::NotStarted | Found::Done(_) => record.attempt.is_same(attempt),
            Found::Live | Found::Abandoned | Found::Missing | Found::CannotTell => false,
        },
    }
}

/// The host gives the request up: a failure frees its key, be it past or to come. A success stays.
pub(super) fn abandon(seen: Seen<'_>, cx: Context<'_>) -> Step {
    let said = |abandoned| Step::say(Said::Abandoned(abandoned));
    match seen {
        Seen::Absent | Seen::Tombstone(_) => said(Abandoned::NoEffect),
        Seen::Record(record) => match record.state {
            State::Registered | State::Dispatched | State::InDoubt => {
                let step = said(Abandoned::Marked(record.state.status()));
                if record.abandoned { step } else { step.putting(marked(record, cx)) }
            }
            State::Failed(..) => said(Abandoned::Released).writing(Write::Remove),
            State::Completed(_) | State::Tombstone(_) => said(Abandoned::NoEffect),
        },
    }
}

pub(super) fn marked(record: &Record, cx: Context<'_>) -> Record {
    Record { abandoned: true, ..next(record, cx.now) }
}

/// The host has dealt with the end: from here on ticks count. Said again, it changes nothing.
pub(super) fn acknowledge(seen: Seen<'_>, cx: Context<'_>) -> Step {
    count_from_now(seen, |record| record.lapses_at_tick.is_none(), cx)
}

/// Something else of an acknowledged request happens: the count begins anew.
pub(super) fn disturb(seen: Seen<'_>, cx: Context<'_>) -> Step {
    match seen {
        Seen::Record(record) if record.lapses_at_tick.is_none() => no_effect(record.state.status()),
        Seen::Record(_) | Seen::Tombstone(_) | Seen::Absent => count_from_now(seen, |_| true, cx),
    }
}

fn count_from_now(seen: Seen<'_>, begins: impl Fn(&Record) -> bool, cx: Context<'_>) -> Step {
    let said = |acknowledged| Step::say(Said::Acknowledged(acknowledged));
    match seen {
        Seen::Absent | Seen::Tombstone(_) => said(Acknowledged::NotFound),
        Seen::Record(record) => match (&record.state, cx.policy.retention) {
            (State::Completed(_), Retention::UntilAcknowledged { quiet_ticks }) => {
                let last = Some(cx.tick.saturating_add(u64::from(quiet_ticks)).saturating_add(1));
                let step = said(Acknowledged::Counting);
                if begins(record) && record.lapses_at_tick != last {
                    step.putting(Record { lapses_at_tick: last, ..next(record, cx.now) })
                } else {
                    step
                }
            }
            (State::Completed(_), Retention::FromRequest | Retention::Fixed(_) | Retention::UntilForgotten)
            | (State::Registered | State::Dispatched | State::InDoubt | State::Failed(..) | State::Tombstone(_), _) => {
                no_effect(record.state.status())
            }
        },
    }
}

fn no_effect(status: Status) -> Step {
    Step::say(Said::Acknowledged(Acknowledged::NoEffect(status)))
}
