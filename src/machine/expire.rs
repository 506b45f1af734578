//! Time: expiry, grace, lapse, tombstone; and `forget`, which ends a record by hand.

use super::{Context, Said, Step, Write};
use crate::outcome::Forgotten;
use crate::policy::Retention;
use crate::record::{Mark, Record, State};
use crate::time::UnixMillis;

/// A record as it reads at `now`.
pub(super) enum Seen<'a> {
    Absent,
    /// A tombstone, or a lapsed record whose tombstone stands in for it.
    Tombstone(Mark),
    /// Finished or not, and not lapsed.
    Record(&'a Record),
}

/// What the store's record reads as at `now`, whether or not an expiry sweep has seen it.
pub(super) fn seen(record: Option<&Record>, now: UnixMillis) -> Seen<'_> {
    let Some(record) = record else { return Seen::Absent };
    match &record.state {
        State::Tombstone(_) if record.tombstone_until.is_some_and(|end| now >= end) => Seen::Absent,
        State::Tombstone(mark) => Seen::Tombstone(*mark),
        State::Completed(_) | State::Failed(..) => match (record.lapses_at, record.tombstone_until) {
            (Some(end), _) if now < end => Seen::Record(record),
            (None, _) => Seen::Record(record),
            (Some(_), Some(end)) if now < end => Seen::Tombstone(Mark::Expired),
            (Some(_), _) => Seen::Absent,
        },
        State::Registered | State::Dispatched | State::InDoubt => Seen::Record(record),
    }
}

/// The finished form of `record`, with its times: it answers until the earliest of the bound its request set, what the
/// operation `stated` and the policy's own retention.
pub(super) fn finished(record: &Record, state: State, stated: Option<UnixMillis>, cx: Context<'_>) -> Record {
    let retained = match cx.policy.retention {
        Retention::FromRequest => record.expires_at,
        Retention::Fixed(retention) => earliest(Some(cx.now.saturating_add(retention)), record.expires_at),
        Retention::UntilForgotten => record.expires_at,
    };
    let expires_at = earliest(retained, stated);
    let lapses_at = expires_at.map(|end| end.saturating_add(cx.policy.grace));
    let tombstone_until = match (lapses_at, cx.policy.tombstone) {
        (Some(end), Some(lifetime)) => Some(end.saturating_add(lifetime)),
        (None, _) | (_, None) => None,
    };
    Record { state, expires_at, lapses_at, tombstone_until, ..next(record, cx.now) }
}

/// `record` one revision on.
pub(super) fn next(record: &Record, now: UnixMillis) -> Record {
    Record { revision: record.revision.saturating_add(1), updated_at: now, ..record.clone() }
}

pub(super) fn earliest(a: Option<UnixMillis>, b: Option<UnixMillis>) -> Option<UnixMillis> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

/// What the expiry sweep does with a record: nothing before it is removable, then a tombstone in place of a finished
/// record that has one, else removal.
pub(crate) fn expire(record: &Record, now: UnixMillis) -> Write {
    match record.removable_at() {
        Some(end) if now >= end => match record.tombstone_until {
            Some(until) if now < until => Write::Put(Box::new(tombstone(record, Mark::Expired, Some(until), now))),
            Some(_) | None => Write::Remove,
        },
        Some(_) | None => Write::Keep,
    }
}

/// The marker that stands in for `record`.
pub(super) fn tombstone(record: &Record, mark: Mark, until: Option<UnixMillis>, now: UnixMillis) -> Record {
    Record {
        request: [].into(),
        state: State::Tombstone(mark),
        checkpoint: None,
        expires_at: None,
        lapses_at: None,
        tombstone_until: until,
        contradiction: None,
        ..next(record, now)
    }
}

pub(super) fn forget(seen: Seen<'_>, cx: Context<'_>) -> Step {
    let said = |forgotten| Step::say(Said::Forgotten(forgotten));
    match seen {
        Seen::Absent => said(Forgotten::NotFound),
        Seen::Tombstone(_) => said(Forgotten::Tombstone),
        Seen::Record(record) if record.state.status().is_in_flight() => {
            said(Forgotten::InFlight(record.state.status()))
        }
        Seen::Record(record) => said(Forgotten::Forgotten).writing(prune(record, cx)),
    }
}

/// Ends a finished record now, leaving the flow's tombstone if it has one.
pub(super) fn prune(record: &Record, cx: Context<'_>) -> Write {
    match cx.policy.tombstone {
        Some(lifetime) => {
            let until = cx.now.saturating_add(lifetime);
            Write::Put(Box::new(tombstone(record, Mark::Expired, Some(until), cx.now)))
        }
        None => Write::Remove,
    }
}
