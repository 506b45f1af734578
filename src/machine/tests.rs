//! The machine's tests: every (state, event) pair as a row, the edges as sentences, random runs against a naive model.
//!
//! Times are small numbers of milliseconds after [`T`]: a record is admitted at 0, answers until 600, lapses at 720, and
//! its tombstone, if it has one, stands until 1720.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may stop where it is wrong"
)]

mod edges;
mod model;
mod show;
mod table;

use std::sync::Arc;
use std::time::Duration;

use super::{Admission, Context};
use crate::bounds::Limits;
use crate::error::ErrorKind;
use crate::fingerprint::Fingerprint;
use crate::outcome::Reason;
use crate::policy::{AfterExpiry, Policy, Retention};
use crate::record::{AttemptId, BootId, Bytes, Record, State, Token};
use crate::time::{Reading, UnixMillis};

/// When the record was admitted.
const T: u64 = 1_000_000;
const RETENTION: Duration = Duration::from_millis(600);
const GRACE: Duration = Duration::from_millis(120);
const TOMBSTONE: Duration = Duration::from_millis(1000);
const RECOVERIES: u8 = 5;
const ANSWER_BYTES: usize = 8;
/// Now, in ticks.
const TICK: u64 = 100;

const OLD_BOOT: BootId = BootId([1; 16]);
const NEW_BOOT: BootId = BootId([2; 16]);
const OLD_TOKEN: Token = Token([1; 32]);
const NEW_TOKEN: Token = Token([2; 32]);

fn at(millis: u64) -> UnixMillis {
    UnixMillis(T + millis)
}

fn bytes(text: &str) -> Bytes {
    text.as_bytes().into()
}

fn reason(text: &str) -> Reason {
    Reason::from_bytes(bytes(text))
}

fn fingerprint(request: &str) -> Fingerprint {
    Fingerprint::from_bytes([request.as_bytes()[0]; 32])
}

/// Join, Replay, Forget, Believe, Ambiguous, RefuseOnce; retention from the request, with a grace.
fn policy() -> Policy {
    Policy::replay(Duration::ZERO).after_expiry(AfterExpiry::RefuseOnce).retention(Retention::FromRequest).grace(GRACE)
}

fn cx(policy: &Policy, now: u64) -> Context<'_> {
    let reading = Reading { wall: at(now), trusted: at(now), is_suspect: false };
    let limits = Limits { recoveries: RECOVERIES, answer_bytes: ANSWER_BYTES, ..Limits::default() };
    Context::of(reading, TICK, policy, false, &limits)
}

fn live(policy: &Policy, now: u64) -> Context<'_> {
    Context { live: true, ..cx(policy, now) }
}

fn admission(request: &str) -> Admission {
    Admission {
        fingerprint: fingerprint(request),
        request: bytes(request),
        retention: Some(RETENTION),
        boot: NEW_BOOT,
        token: NEW_TOKEN,
        barred: None,
    }
}

fn barred(request: &str) -> Admission {
    Admission { barred: Some(ErrorKind::Failed(reason("barred"))), ..admission(request) }
}

/// The record of request "same", admitted at 0, in its second attempt.
fn record(state: State) -> Record {
    Record {
        revision: 7,
        fingerprint: fingerprint("same"),
        request: bytes("same"),
        attempt: AttemptId { number: 2, boot: OLD_BOOT, token: OLD_TOKEN },
        state,
        checkpoint: None,
        recoveries: 0,
        created_at: at(0),
        updated_at: at(0),
        expires_at: Some(at(600)),
        lapses_at: None,
        tombstone_until: None,
        contradiction: None,
        lapses_at_tick: None,
        abandoned: false,
    }
}

/// A finished record, as the machine leaves it.
fn ended(state: State) -> Record {
    Record { lapses_at: Some(at(720)), ..record(state) }
}

/// An answer with an end of its own.
fn done_until(answer: Bytes, end: Option<UnixMillis>) -> crate::outcome::End {
    let done = crate::outcome::Completion::new(answer);
    crate::outcome::End::Done(end.into_iter().fold(done, crate::outcome::Completion::expires_at))
}
