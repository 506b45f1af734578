//! The one pure function that decides: `(record, event, context) -> step`.
//!
//! No clock, no I/O, no log: values in, values out. What a step *writes* is committed first; only then is the one who
//! asked answered, are the waiters released, does the operation start.
//!
//! A record past the end of its grace reads as absent (or as its tombstone), swept or not, so no row below depends on
//! when an expiry sweep ran. *live* means that an attempt of this record runs in this process; a Registered record
//! without a live attempt reads as InDoubt, so no row depends on whether its interruption was recorded. *Given up* is
//! InDoubt under a policy that re-runs, with its re-runs used up: for who asks it expires and lapses like a finished
//! record, but nothing is removed before it, and its end can still be told. *Dead letter* is InDoubt under a policy that
//! asks, after as many answers in a row that told nothing, and at least one: it never expires, is asked on, and each end is
//! still heard.
//!
//! | record | admit, same request | admit, other request | track | finish / resolve | forget | fence | interrupt | expire |
//! |---|---|---|---|---|---|---|---|---|
//! | absent | register, start | register, start | NotFound | FencedOff / NotFound | NotFound | tombstone | - | - |
//! | Registered, live | join or Duplicate | Mismatch | wait | Completed, Failed, Dispatched, InDoubt or removed | InFlight | found | InDoubt | - |
//! | Registered, not live | as InDoubt | Mismatch | as InDoubt | as live | as InDoubt | as InDoubt | InDoubt | - |
//! | Dispatched | join or Duplicate | Mismatch | wait | Completed or Failed | InFlight | found | - | - |
//! | InDoubt | Ambiguous, re-run or Duplicate | Mismatch | InDoubt, or wait where somebody is asked | as live; unknown again writes nothing | InFlight | found | - | - |
//! | InDoubt, given up | RecoveriesExhausted | Mismatch | RecoveriesExhausted | as InDoubt | InFlight | found | - | - |
//! | InDoubt, dead letter | Duplicate | Mismatch | RecoveriesExhausted | as InDoubt | InFlight | found | - | - |
//! | given up, in its grace | Expired (and pruned) or as absent | the same | Expired | as InDoubt | InFlight | found | - | - |
//! | given up, past it | as absent, or as its tombstone | the same | the same | as InDoubt | InFlight | found | - | - |
//! | Completed, answering | replay or Duplicate | Mismatch | replay | no change; another end is a contradiction | removed | found | - | - |
//! | Completed, in its grace | Expired (and pruned) or as absent | the same | Expired | as answering | removed | found | - | - |
//! | Completed, lapsed by the clock or by ticks | as absent | as absent | NotFound | as absent | NotFound | tombstone | - | removed |
//! | Completed, lapsed, tombstone to follow | Expired | Expired | Expired | as absent | Tombstone | found | - | tombstone |
//! | Failed | the reason again, or Duplicate | as Completed | as admit | as Completed | as Completed | found | - | as Completed |
//! | Tombstone(fenced) | Fenced | Fenced | Fenced | as absent | Tombstone | fenced | - | removed at its end |
//! | Tombstone(expired) | Expired | Expired | Expired | as absent | Tombstone | found | - | removed at its end |
//! | Tombstone, past its end | as absent | as absent | NotFound | as absent | NotFound | tombstone | - | removed |
//!
//! What one who was asked has *found*, and what comes of the engine's own *re-run* (under a policy that re-runs, or nothing):
//!
//! | record | NotStarted | Live | Abandoned | Missing | Done | CannotTell | re-run |
//! |---|---|---|---|---|---|---|---|
//! | in flight, its attempt runs here | - | - | - | - | - | - | - |
//! | InDoubt (also Registered, not live) | removed, or Failed(rolled back) | Dispatched | Dispatched, marked | - | Completed or Failed(resolved) | counted where the policy asks; the last one allowed makes it a dead letter | re-run |
//! | InDoubt, given up or dead letter | as InDoubt | as InDoubt | as InDoubt | - | as InDoubt | - | - |
//! | Dispatched | as InDoubt | - | marked | InDoubt | Completed or Failed(resolved) | - | - |
//! | Completed | a contradiction | - | - | - | another end is a contradiction | - | - |
//! | Failed | - | - | - | - | another end is a contradiction | - | - |
//! | in another attempt | FencedOff | FencedOff | FencedOff | FencedOff | FencedOff, and an alarm | FencedOff | - |
//! | absent, lapsed, Tombstone | FencedOff | FencedOff | FencedOff | FencedOff | FencedOff | FencedOff | - |
//!
//! What the host decides about a request, or tells of it:
//!
//! | record | abandon | acknowledge | disturb |
//! |---|---|---|---|
//! | absent, lapsed, Tombstone | - | NotFound | NotFound |
//! | Registered, Dispatched, InDoubt | marked; a failure removes it | - | - |
//! | Completed | - | counts ticks from here, unless it does already | counts anew, if it has begun |
//! | Failed | removed | - | - |
//!
//! - In a replay-safe flow *register* writes nothing where nothing is stored: the record is held in memory ([`Write::Hold`]) for
//!   as long as its attempt runs. It is passed to every later step as if it were stored, which holds for all rows; so what
//!   is first written of it is its second revision.
//! - A report of an older attempt is fenced off in every row. A checkpoint is saved while Registered or Dispatched and
//!   fenced off in every other row.
//! - A track with another fingerprint is a Mismatch wherever there is a record to compare with.
//! - A barred request gets the same answers from a record; where it would start, it is told why not and nothing changes.
//! - Where somebody knows how it stands downstream, `forget` removes only what is over there, by what was said of this attempt;
//!   anything else is Live, as is a record whose operation still runs here.
//! - `forget` leaves the flow's tombstone, if it has one; what is pruned in its grace leaves the one it was finished with.
//! - Where the answer came of being late and nothing else is written, the clock mark is ([`Write::Touch`]).
//! - Where the time is *suspect*, what has lapsed and which tombstone has ended is judged by the trusted time, as it is by the
//!   expiry sweep. Whoever asks for what has expired by the suspect one is told Expired, whatever the policy; nothing is
//!   pruned, nothing runs in its place, and the clock mark is not written: if the time proves wrong, nothing has happened.
//!   All other rows hold as they stand, with the suspect time in what they write: it is the later one, so that ends late
//!   rather than early.

#![deny(clippy::wildcard_enum_match_arm)]

mod admit;
mod backoff;
mod expire;
mod finish;
mod recover;
mod release;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::bounds::Limits;
use crate::error::{Error, ErrorKind};
use crate::fingerprint::Fingerprint;
use crate::inquiry::Found;
use crate::ledger::{Guard, Row};
use crate::outcome::{Abandoned, Acknowledged, End, Ended, Fenced, Forgotten, How, Outcome, Reason, Reply, Resolved};
use crate::policy::{OnStoreFailure, Policy};
use crate::record::{AttemptId, BootId, Bytes, Origin, Record, Status, Token};
use crate::time::{Reading, UnixMillis};

/// What a decision depends on beside record and event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    /// The time that records are given, and that their expiry is judged by.
    pub(crate) now: UnixMillis,
    /// The same, or an earlier time where `now` is suspect: see [`ClockState`](crate::ClockState). Only this one is made durable.
    pub(crate) trusted: UnixMillis,
    /// How many ticks there have been.
    pub(crate) tick: u64,
    pub(crate) policy: &'a Policy,
    /// Whether an attempt of the record runs in this process.
    pub(crate) live: bool,
    /// Re-runs that may end unknown, and answers that may tell nothing.
    pub(crate) recoveries: u8,
    /// A longer answer is not kept.
    pub(crate) answer_bytes: usize,
}

impl<'a> Context<'a> {
    pub(crate) fn of(reading: Reading, tick: u64, policy: &'a Policy, live: bool, limits: &Limits) -> Self {
        Self {
            now: reading.wall,
            trusted: reading.trusted,
            tick,
            policy,
            live,
            recoveries: limits.recoveries,
            answer_bytes: limits.answer_bytes,
        }
    }
}

/// What happens to a key. Expiry and interruption need no policy and come from the supervisor: see [`expire`] and
/// [`interrupt`].
#[derive(Debug)]
pub(crate) enum Event<'a> {
    Admit(&'a Admission),
    Track(Option<Fingerprint>),
    Checkpoint {
        attempt: AttemptId,
        bytes: Bytes,
        expires_at: Option<UnixMillis>,
    },
    Finish {
        attempt: AttemptId,
        end: &'a End,
    },
    /// A guard of the attempt's completion did not hold, and the completion states that losing its row is to have had no effect.
    Guarded {
        attempt: AttemptId,
        reason: &'a Reason,
    },
    Resolve {
        attempt: Option<AttemptId>,
        end: &'a Ended,
    },
    /// Who was asked about the record, when it stood at this attempt and this count of recoveries, has answered.
    Found {
        attempt: AttemptId,
        recoveries: u8,
        found: &'a Found,
    },
    /// The engine itself asks to re-run this attempt's record; the admission is made of the record.
    Rerun {
        attempt: AttemptId,
        admission: &'a Admission,
    },
    Forget(&'a Downstream),
    Fence,
    /// The host gives the request up.
    Abandon,
    /// The host has dealt with the end.
    Acknowledge,
    /// Something of the request happens after it was acknowledged.
    Disturb,
    /// Rows of the host's own, which belong to no record.
    Rows(&'a [Row]),
}

/// What is known of a finished record's attempt downstream, where its removal must wait for that.
#[derive(Clone, Debug)]
pub(crate) enum Downstream {
    /// The flow has nobody to ask.
    NobodyKnows,
    /// Somebody could have been asked, and was not.
    NotAsked,
    /// About this attempt.
    Said(AttemptId, Found),
}

/// A request that asks to run.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) request: Bytes,
    /// For [`Retention::FromRequest`](crate::policy::Retention::FromRequest).
    pub(crate) retention: Option<Duration>,
    pub(crate) boot: BootId,
    /// For a new record; a re-run keeps its own.
    pub(crate) token: Token,
    /// Why the operation must not start now. A record answers all the same.
    pub(crate) barred: Option<ErrorKind>,
}

/// A decision.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) write: Write,
    /// Ledger rows for the transaction of the write.
    pub(crate) rows: Vec<Row>,
    pub(crate) caller: Said,
    pub(crate) waiters: Release,
    pub(crate) alarm: Option<Alarm>,
}

/// What the store does first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Keep,
    /// Nothing but the clock mark: an answer depends on how late it is.
    Touch,
    Put(Arc<Record>),
    /// Nothing: the record is held in memory for as long as its operation runs. What comes of it is the first to be written.
    Hold(Arc<Record>),
    Remove,
    /// Nothing but the step's rows.
    Rows,
}

/// What the one who asked gets, after the write.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Nothing,
    /// The operation starts with the record just written; the caller waits for its end.
    Start,
    Wait,
    Reply(Result<Reply, Error>),
    Saved,
    FencedOff,
    Resolved(Resolved),
    Forgotten(Forgotten),
    Fenced(Fenced),
    Abandoned(Abandoned),
    Acknowledged(Acknowledged),
    /// A row's guard does not hold: nothing was written.
    Guarded,
}

/// What those who wait get, after the write.
#[derive(Clone, Debug)]
pub(crate) enum Release {
    Nobody,
    /// The caller that started the operation hears this; the others wait on.
    Starter(Result<Reply, Error>),
    All(Result<Bytes, Error>),
}

/// What somebody must hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alarm {
    /// A second end contradicts the recorded one.
    Contradiction(Status),
    /// An end came from an attempt that is not the record's.
    FencedOff,
    /// The recoveries of a record in doubt are used up.
    DeadLetter,
}

impl Context<'_> {
    pub(crate) fn is_suspect(&self) -> bool {
        self.trusted < self.now
    }
}

/// Decides. `record` is what the store holds, lapsed or not.
pub(crate) fn step(record: Option<&Record>, event: Event<'_>, cx: Context<'_>) -> Step {
    let stored = expire::seen(record, cx);
    let left = record.and_then(|record| recover::left(record, cx));
    let read = expire::seen(left.as_ref().or(record), cx);
    let asked = expire::asked(read, cx);
    let (step, seen) = match event {
        Event::Admit(admission) => (admit::admit(record, asked, admission, cx), asked),
        Event::Track(fingerprint) => (admit::track(asked, fingerprint, cx), asked),
        Event::Fence => (admit::fence(record, read, cx), read),
        Event::Forget(downstream) => (release::forget(read, downstream, cx), read),
        Event::Abandon => (release::abandon(read, cx), read),
        Event::Acknowledge => (release::acknowledge(read, cx), read),
        Event::Disturb => (release::disturb(read, cx), read),
        Event::Rows(rows) => return Step::say(Said::Saved).writing(Write::Rows).with_rows(rows),
        Event::Checkpoint { attempt, bytes, expires_at } => {
            (finish::checkpoint(stored, attempt, bytes, expires_at, cx), stored)
        }
        Event::Finish { attempt, end } => (finish::finish(stored, attempt, end, cx), stored),
        Event::Guarded { attempt, reason } => (finish::guarded(stored, attempt, reason, cx), stored),
        Event::Resolve { attempt, end } => (finish::resolve(stored, attempt, end, cx), stored),
        Event::Found { attempt, recoveries, found } => (recover::found(read, (attempt, recoveries), found, cx), read),
        Event::Rerun { attempt, admission } => (recover::rerun(read, attempt, admission, cx), read),
    };
    if expire::is_late(record, seen) { step.touching() } else { step }
}

pub(crate) use backoff::{TRIES, wait_after};
pub(crate) use expire::expire;
pub(crate) use recover::{Pace, interrupt, is_dead_letter, pause, recoveries_allowed, retention_of};

impl Step {
    fn say(caller: Said) -> Self {
        Self { write: Write::Keep, rows: Vec::new(), caller, waiters: Release::Nobody, alarm: None }
    }

    fn refuse(error: impl Into<Error>) -> Self {
        Self::say(Said::Reply(Err(error.into())))
    }

    fn replay(answer: &Bytes) -> Self {
        Self::say(Said::Reply(Ok(Reply::Answer(Outcome { how: How::Replayed, answer: answer.clone() }))))
    }

    /// What was to be held is written before the operation starts.
    pub(crate) fn registering(mut self) -> Self {
        if let Write::Hold(record) = self.write {
            self.write = Write::Put(record);
        }
        self
    }

    /// Makes the time durable where the answer depends on it, so that a clock set back over a restart revives nothing.
    fn touching(mut self) -> Self {
        if self.write == Write::Keep {
            self.write = Write::Touch;
        }
        self
    }

    fn writing(mut self, write: Write) -> Self {
        self.write = write;
        self
    }

    fn putting(self, record: Record) -> Self {
        self.writing(Write::Put(Arc::new(record)))
    }

    /// What may leave although the step's write cannot be made durable: what the operation itself has decided, if the policy
    /// says so and nothing in the store can decide otherwise. `None`: nothing may.
    pub(crate) fn unsaved(&self, policy: &Policy) -> Option<&Result<Bytes, Error>> {
        let is_conditional = self.rows.iter().any(|row| row.guard != Guard::Any);
        let end = match (&self.waiters, policy.on_store_failure) {
            (Release::All(end), OnStoreFailure::Reply) if !is_conditional => end,
            (Release::All(_) | Release::Starter(_) | Release::Nobody, _) => return None,
        };
        let is_decided = end.as_ref().map_or_else(|error| matches!(error.kind(), ErrorKind::Failed(_)), |_| true);
        is_decided.then_some(end)
    }

    fn with_rows(mut self, rows: &[Row]) -> Self {
        self.rows = rows.to_vec();
        self
    }

    fn releasing(mut self, waiters: Release) -> Self {
        self.waiters = waiters;
        self
    }

    fn raising(mut self, alarm: Alarm) -> Self {
        self.alarm = Some(alarm);
        self
    }
}

/// What a retry or a tracker of a failed record is told.
fn failure(origin: Origin, reason: &Bytes) -> Error {
    match origin {
        Origin::RolledBack => ErrorKind::Failed(Reason::from_bytes(reason.clone())).into(),
        Origin::Resolved => Error::duplicate_of(Ended::Failed(reason.clone())),
    }
}
