//! Time: expiry, grace, lapse by the clock or by ticks, tombstone.

use std::sync::Arc;

use super::recover::is_exhausted;
use super::{Context, Write};
use crate::policy::{InDoubt, Policy, Retention};
use crate::record::{Mark, Record, State, Status};
use crate::time::UnixMillis;

/// A record as it reads at `now`.
#[derive(Clone, Copy)]
pub(super) enum Seen<'a> {
    Absent,
    /// A tombstone, or a lapsed record whose tombstone stands in for it.
    Tombstone(Mark),
    /// Finished or not, and not lapsed.
    Record(&'a Record),
}

/// What the store's record reads as by the trusted time and the ticks, whether or not an expiry sweep has seen it.
pub(super) fn seen<'a>(record: Option<&'a Record>, cx: Context<'_>) -> Seen<'a> {
    let now = cx.trusted;
    let Some(record) = record else { return Seen::Absent };
    match &record.state {
        State::Completed(_) if record.is_released(cx.tick) => Seen::Absent,
        State::Tombstone(_) if record.tombstone_until.is_some_and(|end| now >= end) => Seen::Absent,
        State::Tombstone(mark) => Seen::Tombstone(*mark),
        State::Completed(_) | State::Failed(..) => lapsing(record, (record.lapses_at, record.tombstone_until), now),
        State::Registered | State::Dispatched | State::InDoubt => Seen::Record(record),
    }
}

fn lapsing(record: &Record, ends: (Option<UnixMillis>, Option<UnixMillis>), now: UnixMillis) -> Seen<'_> {
    match ends {
        (Some(end), _) if now < end => Seen::Record(record),
        (None, _) => Seen::Record(record),
        (Some(_), Some(end)) if now < end => Seen::Tombstone(Mark::Expired),
        (Some(_), _) => Seen::Absent,
    }
}

/// The same for one who wants an answer: a record that is given up lapses like a finished one. In the store it stays,
/// for whoever comes to know its end.
pub(super) fn asked<'a>(seen: Seen<'a>, cx: Context<'_>) -> Seen<'a> {
    match seen {
        Seen::Record(record) if is_given_up(record, cx) => {
            lapsing(record, ends(record.expires_at, cx.policy), cx.trusted)
        }
        Seen::Record(_) | Seen::Tombstone(_) | Seen::Absent => seen,
    }
}

/// Whether what is stored reads as something else because of its age: an answer given then depends on how late it is.
pub(super) fn is_late(stored: Option<&Record>, seen: Seen<'_>) -> bool {
    match seen {
        Seen::Record(_) => false,
        Seen::Absent => stored.is_some(),
        Seen::Tombstone(_) => stored.is_some_and(|record| record.state.status() != Status::Tombstone),
    }
}

/// In doubt with its re-runs used up: nobody will finish it by itself any more.
pub(super) fn is_given_up(record: &Record, cx: Context<'_>) -> bool {
    cx.policy.in_doubt == InDoubt::Rerun && is_exhausted(record, cx)
}

/// The end of the grace, and of the tombstone after it.
fn ends(expires_at: Option<UnixMillis>, policy: &Policy) -> (Option<UnixMillis>, Option<UnixMillis>) {
    let lapses_at = expires_at.map(|end| end.saturating_add(policy.grace));
    let tombstone_until = match (lapses_at, policy.tombstone) {
        (Some(end), Some(lifetime)) => Some(end.saturating_add(lifetime)),
        (None, _) | (_, None) => None,
    };
    (lapses_at, tombstone_until)
}

/// The finished form of `record`, with its times: it answers until the earliest of the bound its request set, what the
/// operation `stated` and the policy's own retention.
pub(super) fn finished(record: &Record, state: State, stated: Option<UnixMillis>, cx: Context<'_>) -> Record {
    let retained = match cx.policy.retention {
        Retention::FromRequest => record.expires_at,
        Retention::Fixed(retention) => earliest(Some(cx.now.saturating_add(retention)), record.expires_at),
        Retention::UntilForgotten | Retention::UntilAcknowledged { .. } => record.expires_at,
    };
    let expires_at = earliest(retained, stated);
    let (lapses_at, tombstone_until) = ends(expires_at, cx.policy);
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
pub(crate) fn expire(record: &Record, now: UnixMillis, tick: u64) -> Write {
    if record.is_released(tick) {
        return Write::Remove;
    }
    match record.removable_at() {
        Some(end) if now >= end => match record.tombstone_until {
            Some(until) if now < until => Write::Put(Arc::new(tombstone(record, Mark::Expired, Some(until), now))),
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
        lapses_at_tick: None,
        abandoned: false,
        contradiction: None,
        ..next(record, now)
    }
}

/// Ends an expired record before its grace does. Its tombstone, if it has one, stands as long as it would have.
pub(super) fn prune(record: &Record, cx: Context<'_>) -> Write {
    let until = if is_given_up(record, cx) { ends(record.expires_at, cx.policy).1 } else { record.tombstone_until };
    end(record, until, cx.now)
}

pub(super) fn end(record: &Record, tombstone_until: Option<UnixMillis>, now: UnixMillis) -> Write {
    match tombstone_until {
        Some(until) => Write::Put(Arc::new(tombstone(record, Mark::Expired, Some(until), now))),
        None => Write::Remove,
    }
}
