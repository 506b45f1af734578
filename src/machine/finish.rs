//! The operation reports: a checkpoint, its end; or the end comes from outside.

use super::expire::{Seen, earliest, end, finished, next};
use super::recover::{in_doubt, used_up};
use super::{Alarm, Context, Release, Said, Step, Write};
use crate::error::{Error, ErrorKind};
use crate::outcome::{Completion, End, Ended, Reason, Reply, Resolved};
use crate::policy::{AfterCheckpoint, AfterExpiry, OnFailure};
use crate::record::{AttemptId, Bytes, Origin, Record, State, Status};
use crate::time::UnixMillis;

/// Saves bytes on the way, and the expiry of what they describe.
pub(super) fn checkpoint(
    seen: Seen<'_>,
    attempt: AttemptId,
    bytes: Bytes,
    expires_at: Option<UnixMillis>,
    cx: Context<'_>,
) -> Step {
    match seen {
        Seen::Record(record) if record.attempt.is_same(&attempt) => match record.state {
            State::Registered | State::Dispatched => {
                let expires_at = earliest(record.expires_at, expires_at);
                let record = Record { checkpoint: Some(bytes), expires_at, ..next(record, cx.now) };
                Step::say(Said::Saved).putting(record)
            }
            State::InDoubt | State::Completed(_) | State::Failed(..) | State::Tombstone(_) => fenced_off(),
        },
        Seen::Record(_) | Seen::Absent | Seen::Tombstone(_) => fenced_off(),
    }
}

pub(super) fn fenced_off() -> Step {
    Step::say(Said::FencedOff).raising(Alarm::FencedOff)
}

/// The operation of `attempt` ended.
pub(super) fn finish(seen: Seen<'_>, attempt: AttemptId, end: &End, cx: Context<'_>) -> Step {
    let record = match seen {
        Seen::Record(record) if record.attempt.is_same(&attempt) => record,
        Seen::Record(_) | Seen::Absent | Seen::Tombstone(_) => return fenced_off(),
    };
    match &record.state {
        State::Registered | State::InDoubt => finish_running(record, end, cx),
        State::Dispatched => match end {
            End::Done(done) => complete(record, &done.answer, done.expires_at, cx).with_rows(&done.rows),
            End::Definitive(reason) => fail(record, Origin::Resolved, reason.bytes(), cx),
            End::Accepted | End::AlreadyLive | End::Taken | End::Unknown(_) => Step::say(Said::Nothing),
        },
        State::Completed(_) | State::Failed(..) => match end {
            End::Done(done) => second_end(record, &Ended::Completed(done.answer.clone()), cx),
            End::Definitive(reason) => second_end(record, &Ended::Failed(reason.bytes().clone()), cx),
            // The end overtook the operation's own return, which says nothing more.
            End::Accepted | End::AlreadyLive | End::Taken | End::Unknown(_) => Step::say(Said::Nothing),
        },
        State::Tombstone(_) => fenced_off(),
    }
}

fn finish_running(record: &Record, end: &End, cx: Context<'_>) -> Step {
    match end {
        End::Done(done) => complete_attempt(record, done, cx),
        End::Accepted => dispatched(record, Ok(Reply::Accepted), cx),
        End::AlreadyLive => dispatched(record, Err(ErrorKind::Duplicate(Status::Dispatched).into()), cx),
        End::Taken => {
            let told = Release::All(Err(ErrorKind::Mismatch.into()));
            Step::say(Said::Nothing).writing(Write::Remove).releasing(told)
        }
        End::Unknown(reason) => doubt(record, true, reason, cx),
        End::Definitive(reason) => match (cx.policy.after_checkpoint, &record.checkpoint) {
            (AfterCheckpoint::Doubt, Some(_)) => doubt(record, false, reason, cx),
            (AfterCheckpoint::Doubt | AfterCheckpoint::Believe, _) => without_effect(record, reason, cx),
        },
    }
}

fn dispatched(record: &Record, told: Result<Reply, Error>, cx: Context<'_>) -> Step {
    let record = Record { state: State::Dispatched, ..next(record, cx.now) };
    Step::say(Said::Nothing).putting(record).releasing(Release::Starter(told))
}

/// The attempt ended with proof that it had no effect.
pub(super) fn without_effect(record: &Record, reason: &Reason, cx: Context<'_>) -> Step {
    let told = Release::All(Err(ErrorKind::Failed(reason.clone()).into()));
    match cx.policy.on_failure {
        OnFailure::Forget => Step::say(Said::Nothing).writing(Write::Remove).releasing(told),
        OnFailure::Keep => {
            let step = fail(record, Origin::RolledBack, reason.bytes(), cx);
            // A reason that is cut for the record is cut for everybody: retries are told the same.
            if reason.bytes().len() > cx.answer_bytes { step } else { step.releasing(told) }
        }
    }
}

/// Another key has the row that this completion needed. The completion itself says that this is proof of no effect, so it is
/// believed also after a checkpoint.
pub(super) fn guarded(seen: Seen<'_>, attempt: AttemptId, reason: &Reason, cx: Context<'_>) -> Step {
    let record = match seen {
        Seen::Record(record) if record.attempt.is_same(&attempt) => record,
        Seen::Record(_) | Seen::Absent | Seen::Tombstone(_) => return fenced_off(),
    };
    match &record.state {
        State::Registered | State::InDoubt => without_effect(record, reason, cx),
        State::Dispatched => fail(record, Origin::Resolved, reason.bytes(), cx),
        State::Completed(_) | State::Failed(..) => Step::say(Said::Nothing),
        State::Tombstone(_) => fenced_off(),
    }
}

/// An attempt leaves its record in doubt once: what it says again later neither counts nor is written.
fn doubt(record: &Record, counts: bool, reason: &Reason, cx: Context<'_>) -> Step {
    let error = Error::from(ErrorKind::InDoubt(Some(reason.clone())));
    let step = Step::say(Said::Nothing).releasing(Release::All(Err(error)));
    if record.state.status() == Status::InDoubt {
        return step;
    }
    let doubted = in_doubt(record, counts, cx.now);
    let is_last = used_up(record.recoveries, doubted.recoveries, cx);
    let step = step.putting(doubted);
    if is_last { step.raising(Alarm::DeadLetter) } else { step }
}

/// The attempt's own answer. What a re-run completes from a checkpoint may have expired while the record was in doubt: such
/// an answer has never been given and is not given now. A first run's callers get their answer however late it is.
fn complete_attempt(record: &Record, done: &Completion, cx: Context<'_>) -> Step {
    let step = complete(record, &done.answer, done.expires_at, cx).with_rows(&done.rows);
    let Write::Put(completed) = &step.write else { return step };
    let expired = completed.expires_at.is_some_and(|end| cx.now >= end);
    if !expired || record.attempt.number == 1 || record.checkpoint.is_none() {
        return step;
    }
    let told = Release::All(Err(ErrorKind::Expired.into()));
    match cx.policy.after_expiry {
        AfterExpiry::RefuseOnce | AfterExpiry::Rerun if !cx.is_suspect() => {
            let pruned = end(record, completed.tombstone_until, cx.now);
            Step::say(Said::Nothing).writing(pruned).releasing(told)
        }
        AfterExpiry::RefuseOnce | AfterExpiry::Rerun | AfterExpiry::Refuse => step.releasing(told),
    }
}

/// An answer over the limit goes to the callers at hand and is recorded as not kept.
fn complete(record: &Record, answer: &Bytes, stated: Option<UnixMillis>, cx: Context<'_>) -> Step {
    let kept = (answer.len() <= cx.answer_bytes).then(|| answer.clone());
    Step::say(Said::Nothing)
        .putting(finished(record, State::Completed(kept), stated, cx))
        .releasing(Release::All(Ok(answer.clone())))
}

/// A reason over the limit is cut: it is there to be read, and the key must not stay in flight for its length. Where the host
/// has given the request up, its failure frees the key.
pub(super) fn fail(record: &Record, origin: Origin, reason: &Bytes, cx: Context<'_>) -> Step {
    let kept = cut(reason, cx);
    let step = Step::say(Said::Nothing).releasing(Release::All(Err(super::failure(origin, &kept))));
    if record.abandoned {
        step.writing(Write::Remove)
    } else {
        step.putting(finished(record, State::Failed(origin, kept), None, cx))
    }
}

fn cut(bytes: &Bytes, cx: Context<'_>) -> Bytes {
    bytes.get(..cx.answer_bytes).map_or_else(|| bytes.clone(), Into::into)
}

/// An end for a record that has one: the first stays, the first different one is kept beside it.
pub(super) fn second_end(record: &Record, end: &Ended, cx: Context<'_>) -> Step {
    let (same, bytes) = match (&record.state, end) {
        (State::Completed(Some(recorded)), Ended::Completed(answer)) => (recorded == answer, answer),
        (State::Completed(None), Ended::Completed(answer)) => (true, answer),
        (State::Failed(_, recorded), Ended::Failed(reason)) => (*recorded == cut(reason, cx), reason),
        (_, Ended::Completed(bytes) | Ended::Failed(bytes)) => (false, bytes),
    };
    if same {
        return Step::say(Said::Resolved(Resolved::Already));
    }
    let status = record.state.status();
    let step = Step::say(Said::Resolved(Resolved::Contradicts(status))).raising(Alarm::Contradiction(status));
    // A failure that turns out to be none takes the place of another failure: what it proves is that something has happened.
    let is_proof = matches!((&record.state, end), (State::Failed(..), Ended::Completed(_)));
    let is_kept = record.contradiction.as_ref().is_some_and(|kept| !is_proof || *kept == cut(bytes, cx));
    if is_kept {
        return step;
    }
    step.putting(Record { contradiction: Some(cut(bytes, cx)), ..next(record, cx.now) })
}

/// The end, told from outside. Without an attempt it belongs to whatever attempt is recorded.
pub(super) fn resolve(seen: Seen<'_>, attempt: Option<AttemptId>, end: &Ended, cx: Context<'_>) -> Step {
    let record = match seen {
        Seen::Absent | Seen::Tombstone(_) => return Step::say(Said::Resolved(Resolved::NotFound)),
        Seen::Record(record) => record,
    };
    if attempt.is_some_and(|attempt| !record.attempt.is_same(&attempt)) {
        return Step::say(Said::Resolved(Resolved::FencedOff)).raising(Alarm::FencedOff);
    }
    match &record.state {
        State::Registered | State::Dispatched | State::InDoubt => {
            Step { caller: Said::Resolved(Resolved::Recorded), ..end_from_outside(record, end, cx) }
        }
        State::Completed(_) | State::Failed(..) => second_end(record, end, cx),
        State::Tombstone(_) => Step::say(Said::Resolved(Resolved::NotFound)),
    }
}

/// The end of a record that has none.
pub(super) fn end_from_outside(record: &Record, end: &Ended, cx: Context<'_>) -> Step {
    match end {
        Ended::Completed(answer) => complete(record, answer, None, cx),
        Ended::Failed(reason) => fail(record, Origin::Resolved, reason, cx),
    }
}
