//! A request arrives, somebody asks how it stands, or the key is forbidden.

use std::sync::Arc;

use super::expire::{self, Seen, is_given_up, next, prune};
use super::recover::is_exhausted;
use super::{Admission, Context, Said, Step, Write, failure};
use crate::error::{Error, ErrorKind};
use crate::fingerprint::Fingerprint;
use crate::outcome::{Ended, Fenced};
use crate::policy::{AfterCompleted, AfterExpiry, InDoubt, Retention, WhileRunning};
use crate::record::{AttemptId, BootId, Mark, Record, State, Status, Token};
use crate::time::UnixMillis;

pub(super) fn admit(stored: Option<&Record>, seen: Seen<'_>, admission: &Admission, cx: Context<'_>) -> Step {
    let record = match seen {
        Seen::Absent => return register(stored, admission, cx),
        Seen::Tombstone(mark) => return Step::refuse(refused(mark)),
        Seen::Record(record) => record,
    };
    if is_expired(record, cx) {
        return admit_expired(record, admission, cx);
    }
    if record.fingerprint != admission.fingerprint {
        return Step::refuse(ErrorKind::Mismatch);
    }
    match &record.state {
        State::Registered => join(Status::Registered, cx),
        // Its end is recorded, and the actor that recorded it died before it could say so: the report is on its way again.
        State::InDoubt if cx.live => join(Status::InDoubt, cx),
        State::InDoubt => admit_in_doubt(record, admission, cx),
        State::Dispatched => join(Status::Dispatched, cx),
        State::Completed(answer) => match (cx.policy.after_completed, answer) {
            (AfterCompleted::Refuse, Some(answer)) => {
                Step::refuse(Error::duplicate_of(Ended::Completed(answer.clone())))
            }
            (AfterCompleted::Refuse, None) => Step::refuse(ErrorKind::Duplicate(Status::Completed)),
            (AfterCompleted::Replay, None) => Step::refuse(ErrorKind::AnswerNotKept),
            (AfterCompleted::Replay, Some(answer)) => Step::replay(answer),
        },
        State::Failed(origin, reason) => Step::refuse(failure(*origin, reason)),
        State::Tombstone(mark) => Step::refuse(refused(*mark)),
    }
}

/// Finished records expire; so does one that is given up.
fn is_expired(record: &Record, cx: Context<'_>) -> bool {
    let can_expire = match record.state {
        State::Completed(_) | State::Failed(..) => true,
        State::InDoubt => is_given_up(record, cx),
        State::Registered | State::Dispatched | State::Tombstone(_) => false,
    };
    can_expire && record.expires_at.is_some_and(|end| cx.now >= end)
}

fn admit_expired(record: &Record, admission: &Admission, cx: Context<'_>) -> Step {
    if cx.is_suspect() {
        return Step::refuse(ErrorKind::Expired);
    }
    match cx.policy.after_expiry {
        AfterExpiry::RefuseOnce => Step::refuse(ErrorKind::Expired).writing(prune(record, cx)),
        AfterExpiry::Refuse => Step::refuse(ErrorKind::Expired).touching(),
        AfterExpiry::Rerun => register(Some(record), admission, cx).touching(),
    }
}

fn join(status: Status, cx: Context<'_>) -> Step {
    match cx.policy.while_running {
        WhileRunning::Join => Step::say(Said::Wait),
        WhileRunning::Refuse => Step::refuse(ErrorKind::Duplicate(status)),
    }
}

fn admit_in_doubt(record: &Record, admission: &Admission, cx: Context<'_>) -> Step {
    match cx.policy.in_doubt {
        InDoubt::Ambiguous => Step::refuse(ErrorKind::InDoubt(None)),
        InDoubt::Ask => Step::refuse(ErrorKind::Duplicate(Status::InDoubt)),
        InDoubt::Rerun if is_given_up(record, cx) => Step::refuse(ErrorKind::RecoveriesExhausted),
        InDoubt::Rerun => rerun(record, admission, cx),
    }
}

/// Another attempt at the same record. What has a checkpoint was made under the bound it already has.
pub(super) fn rerun(record: &Record, admission: &Admission, cx: Context<'_>) -> Step {
    let bound = match &record.checkpoint {
        Some(_) => Ok(record.expires_at),
        None => bound(admission, cx),
    };
    match (&admission.barred, bound) {
        (Some(ErrorKind::Failed(reason)), _) => Step::refuse(ErrorKind::InDoubt(Some(reason.clone()))),
        (Some(_), _) | (None, Err(_)) => Step::refuse(ErrorKind::InDoubt(None)),
        (None, Ok(expires_at)) => {
            let number = record.attempt.number.saturating_add(1);
            let attempt = AttemptId { number, boot: admission.boot, token: record.attempt.token };
            let record = Record { state: State::Registered, attempt, expires_at, ..next(record, cx.now) };
            Step::say(Said::Start).putting(record)
        }
    }
}

/// The first attempt of a new record, in place of whatever dead one is still stored.
fn register(stored: Option<&Record>, admission: &Admission, cx: Context<'_>) -> Step {
    if cx.live {
        // An earlier record of this key was ended from outside, and its operation still runs: one at a time.
        return Step::refuse(ErrorKind::InDoubt(None));
    }
    if let Some(kind) = &admission.barred {
        return Step::refuse(kind.clone());
    }
    match bound(admission, cx) {
        Err(kind) => Step::refuse(kind),
        Ok(expires_at) => {
            let record = first(stored, admission, expires_at, cx);
            let start = Step::say(Said::Start);
            // In place of a dead record it is written: until then that one would go on answering.
            match stored {
                None if cx.policy.replay_safe => start.writing(Write::Hold(Arc::new(record))),
                None | Some(_) => start.putting(record),
            }
        }
    }
}

fn first(stored: Option<&Record>, admission: &Admission, expires_at: Option<UnixMillis>, cx: Context<'_>) -> Record {
    Record {
        revision: stored.map_or(0, |record| record.revision).saturating_add(1),
        fingerprint: admission.fingerprint,
        request: admission.request.clone(),
        attempt: AttemptId { number: 1, boot: admission.boot, token: admission.token },
        state: State::Registered,
        checkpoint: None,
        recoveries: 0,
        created_at: cx.now,
        updated_at: cx.now,
        expires_at,
        lapses_at: None,
        tombstone_until: None,
        contradiction: None,
        lapses_at_tick: None,
        abandoned: false,
    }
}

/// The time that the request itself sets, with checked arithmetic: nothing may be registered that could not expire.
fn bound(admission: &Admission, cx: Context<'_>) -> Result<Option<UnixMillis>, ErrorKind> {
    match (cx.policy.retention, admission.retention) {
        (Retention::FromRequest, None) => Err(ErrorKind::RetentionMissing),
        (_, Some(retention)) => cx.now.checked_add(retention).map(Some).ok_or(ErrorKind::RetentionOverflow),
        (Retention::Fixed(retention), None) => {
            cx.now.checked_add(retention).map(|_| None).ok_or(ErrorKind::RetentionOverflow)
        }
        (Retention::UntilForgotten | Retention::UntilAcknowledged { .. }, None) => Ok(None),
    }
}

fn refused(mark: Mark) -> ErrorKind {
    match mark {
        Mark::Fenced => ErrorKind::Fenced,
        Mark::Expired => ErrorKind::Expired,
    }
}

pub(super) fn track(seen: Seen<'_>, fingerprint: Option<Fingerprint>, cx: Context<'_>) -> Step {
    let record = match seen {
        Seen::Absent => return Step::refuse(ErrorKind::NotFound),
        Seen::Tombstone(mark) => return Step::refuse(refused(mark)),
        Seen::Record(record) => record,
    };
    if fingerprint.is_some_and(|fingerprint| fingerprint != record.fingerprint) {
        return Step::refuse(ErrorKind::Mismatch);
    }
    if is_expired(record, cx) {
        let step = Step::refuse(ErrorKind::Expired);
        return if cx.is_suspect() { step } else { step.touching() };
    }
    match &record.state {
        State::Registered | State::Dispatched => Step::say(Said::Wait),
        State::InDoubt if cx.live => Step::say(Said::Wait),
        State::InDoubt => match cx.policy.in_doubt {
            InDoubt::Ask | InDoubt::Rerun if is_exhausted(record, cx) => Step::refuse(ErrorKind::RecoveriesExhausted),
            InDoubt::Ask => Step::say(Said::Wait),
            InDoubt::Ambiguous | InDoubt::Rerun => Step::refuse(ErrorKind::InDoubt(None)),
        },
        State::Completed(Some(answer)) => Step::replay(answer),
        State::Completed(None) => Step::refuse(ErrorKind::AnswerNotKept),
        State::Failed(origin, reason) => Step::refuse(failure(*origin, reason)),
        State::Tombstone(mark) => Step::refuse(refused(*mark)),
    }
}

pub(super) fn fence(stored: Option<&Record>, seen: Seen<'_>, cx: Context<'_>) -> Step {
    let found = |status| Step::say(Said::Fenced(Fenced::Found(status)));
    match seen {
        Seen::Record(record) => found(record.state.status()),
        Seen::Tombstone(Mark::Expired) => found(Status::Tombstone),
        Seen::Tombstone(Mark::Fenced) => Step::say(Said::Fenced(Fenced::Fenced)),
        // Ended from outside and removed, and its operation still runs: no proof of anything.
        Seen::Absent if cx.live => found(Status::Registered),
        Seen::Absent => {
            let base = stored.cloned().unwrap_or_else(|| blank(cx.now));
            // For ever: nothing else could promise that no request will run.
            let record = expire::tombstone(&base, Mark::Fenced, None, cx.now);
            Step::say(Said::Fenced(Fenced::Fenced)).putting(record)
        }
    }
}

/// The empty record that a tombstone is made of where nothing was before.
fn blank(now: UnixMillis) -> Record {
    Record {
        revision: 0,
        fingerprint: Fingerprint::from_bytes([0; 32]),
        request: [].into(),
        attempt: AttemptId { number: 0, boot: BootId([0; 16]), token: Token([0; 32]) },
        state: State::Tombstone(Mark::Fenced),
        checkpoint: None,
        recoveries: 0,
        created_at: now,
        updated_at: now,
        expires_at: None,
        lapses_at: None,
        tombstone_until: None,
        contradiction: None,
        lapses_at_tick: None,
        abandoned: false,
    }
}
