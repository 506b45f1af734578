//! What LDK tells of a payment, and what becomes of it. LDK tells it at least once, so everything here may happen again.
//!
//! | record | PaymentSent | PaymentFailed |
//! |---|---|---|
//! | in flight, own hash | Recorded | Recorded; Stale where LDK lists the id |
//! | in flight, another attempt's | Stale | Stale |
//! | Completed | Repeated | Late |
//! | Failed | Contradiction | Repeated |
//! | absent | Unknown | Unknown |

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use super::answer::{Ending, Paid};
use super::calls::Kind;
use super::request::hash_of;
use super::{SendPayment, is_in_flight};
use crate::block_on::block_on;
use crate::{Acknowledged, AttemptId, Error, ErrorKind, Key, Record, Resolved, Status};

/// LDK's PaymentSent.
#[derive(Clone)]
pub struct PaymentSent {
    /// The PaymentId.
    pub id: [u8; 32],
    /// What was paid. LDK 0.2.7 gives the fee to nobody but here: `None` and `Some(0)` are not the same.
    pub paid: Paid,
    /// Whose it is, if the host knows: LDK itself does not say.
    pub attempt: Option<AttemptId>,
}

/// LDK's PaymentFailed.
#[derive(Clone, Debug)]
pub struct PaymentFailed {
    /// The PaymentId.
    pub id: [u8; 32],
    /// The hash; none where no invoice was ever received.
    pub payment_hash: Option<[u8; 32]>,
    /// LDK's reason by its name, if it gives one.
    pub reason: Option<String>,
    /// Whose it is, if the host knows: LDK itself does not say.
    pub attempt: Option<AttemptId>,
}

/// What became of an event: its handler returns `Ok(())`.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handled {
    /// It is the payment's end, recorded now, and told to all who track it.
    Recorded,
    /// It says what is recorded; or it is the event of a path.
    Repeated,
    /// There is no such record: it has been released, or was never ours.
    Unknown,
    /// A failure after the payment has succeeded: ignored.
    Late,
    /// It belongs to another attempt under the same id: not applied.
    Stale,
    /// The payment had failed, and now it is paid: **money has left**. What was recorded stays; somebody must hear of it.
    Contradiction(Paid),
}

/// The event could not be dealt with: the handler returns `Err(ReplayEvent())`, and LDK tells it again.
///
/// Nothing was changed, or what was changed will be found when it comes again.
#[derive(Debug)]
pub struct Replay(pub Error);

/// Events since the adapter was set up, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// [`Handled::Recorded`].
    pub recorded: u64,
    /// [`Handled::Repeated`], without the events of paths.
    pub repeated: u64,
    /// [`Handled::Unknown`], without the events of paths.
    pub unknown: u64,
    /// [`Handled::Late`].
    pub late: u64,
    /// [`Handled::Stale`].
    pub stale: u64,
    /// [`Handled::Contradiction`].
    pub contradictions: u64,
    /// [`Replay`].
    pub replays: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    recorded: AtomicU64,
    repeated: AtomicU64,
    unknown: AtomicU64,
    late: AtomicU64,
    stale: AtomicU64,
    contradictions: AtomicU64,
    replays: AtomicU64,
}

impl Counters {
    fn count(&self, handled: &Result<Handled, Replay>) {
        let counter = match handled {
            Ok(Handled::Recorded) => &self.recorded,
            Ok(Handled::Repeated) => &self.repeated,
            Ok(Handled::Unknown) => &self.unknown,
            Ok(Handled::Late) => &self.late,
            Ok(Handled::Stale) => &self.stale,
            Ok(Handled::Contradiction(_)) => &self.contradictions,
            Err(Replay(_)) => &self.replays,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            recorded: read(&self.recorded),
            repeated: read(&self.repeated),
            unknown: read(&self.unknown),
            late: read(&self.late),
            stale: read(&self.stale),
            contradictions: read(&self.contradictions),
            replays: read(&self.replays),
        }
    }
}

/// What to do about an event, after one look at the record.
enum Next {
    Done(Handled),
    /// Record this end, of this attempt.
    Resolve(AttemptId),
    /// The call has not returned, or its result is not recorded yet.
    Wait,
}

impl SendPayment {
    /// Takes LDK's PaymentSent. It waits for nothing but the store.
    ///
    /// Unless the [host acknowledges](super::SendPaymentSetup::host_acknowledges), it also counts as acknowledged from here on.
    ///
    /// # Errors
    /// [`Replay`]: return `Err(ReplayEvent())`. Cancel safety: a dropped future may have recorded it; LDK tells it again.
    pub async fn payment_sent(&self, event: PaymentSent) -> Result<Handled, Replay> {
        let _going = self.shared.calls.begin(event.id, Kind::Event);
        let key = self.shared.key(event.id).map_err(Replay)?;
        let handled = self.sent(&key, &event).await.map_err(Replay);
        self.shared.counters.count(&handled);
        match &handled {
            Ok(Handled::Contradiction(_)) => tracing::error!(%key, "a payment that had failed is paid"),
            Ok(Handled::Stale) => tracing::error!(%key, "what is paid is not what was asked for under this id"),
            Ok(_) => {}
            Err(Replay(error)) => tracing::warn!(%key, %error, "a payment that is paid could not be recorded"),
        }
        handled
    }

    /// Takes LDK's PaymentFailed. While the call that it may belong to runs, it waits for that call's result.
    ///
    /// # Errors
    /// [`Replay`]: return `Err(ReplayEvent())`. Cancel safety: a dropped future may have recorded it; LDK tells it again.
    pub async fn payment_failed(&self, event: PaymentFailed) -> Result<Handled, Replay> {
        let _going = self.shared.calls.begin(event.id, Kind::Event);
        let key = self.shared.key(event.id).map_err(Replay)?;
        let handled = self.failed(&key, &event).await.map_err(Replay);
        self.shared.counters.count(&handled);
        match &handled {
            Ok(Handled::Late | Handled::Stale) => tracing::warn!(%key, ?handled, "a failure that does not count"),
            Ok(_) => {}
            Err(Replay(error)) => tracing::warn!(%key, %error, "a payment that failed could not be recorded"),
        }
        handled
    }

    /// Takes LDK's PaymentPathSuccessful or PaymentPathFailed: the quiet ticks of a payment that is paid are counted anew.
    ///
    /// # Errors
    /// [`Replay`]: return `Err(ReplayEvent())`.
    pub async fn path_event(&self, id: [u8; 32]) -> Result<Handled, Replay> {
        let _going = self.shared.calls.begin(id, Kind::Event);
        let key = self.shared.key(id).map_err(Replay)?;
        match self.engine.disturb(&self.shared.flow, &key).await.map_err(Replay)? {
            Acknowledged::NotFound => Ok(Handled::Unknown),
            Acknowledged::Counting | Acknowledged::NoEffect(_) => Ok(Handled::Repeated),
        }
    }

    /// The host has done its own work for a payment that is paid: from here on ticks count towards its release.
    ///
    /// # Errors
    /// On an error it is not known whether it was recorded: say it again.
    pub async fn acknowledge(&self, id: [u8; 32]) -> Result<Acknowledged, Error> {
        self.engine.acknowledge(&self.shared.flow, &self.shared.key(id)?).await
    }

    /// [`payment_sent`](Self::payment_sent) for LDK's synchronous `EventHandler`: blocks this thread. Never call it on a thread
    /// that drives the runtime on which the operations run.
    ///
    /// # Errors
    /// As [`payment_sent`](Self::payment_sent).
    pub fn payment_sent_blocking(&self, event: PaymentSent) -> Result<Handled, Replay> {
        block_on(self.payment_sent(event))
    }

    /// [`payment_failed`](Self::payment_failed), as [`payment_sent_blocking`](Self::payment_sent_blocking).
    ///
    /// # Errors
    /// As [`payment_failed`](Self::payment_failed).
    pub fn payment_failed_blocking(&self, event: PaymentFailed) -> Result<Handled, Replay> {
        block_on(self.payment_failed(event))
    }

    /// [`path_event`](Self::path_event), as [`payment_sent_blocking`](Self::payment_sent_blocking).
    ///
    /// # Errors
    /// As [`path_event`](Self::path_event).
    pub fn path_event_blocking(&self, id: [u8; 32]) -> Result<Handled, Replay> {
        block_on(self.path_event(id))
    }

    /// [`acknowledge`](Self::acknowledge), as [`payment_sent_blocking`](Self::payment_sent_blocking).
    ///
    /// # Errors
    /// As [`acknowledge`](Self::acknowledge).
    pub fn acknowledge_blocking(&self, id: [u8; 32]) -> Result<Acknowledged, Error> {
        block_on(self.acknowledge(id))
    }

    async fn sent(&self, key: &Key, event: &PaymentSent) -> Result<Handled, Error> {
        let end = Ending::Paid(event.paid.clone()).encode();
        loop {
            let Some(record) = self.engine.lookup(key)? else { return Ok(Handled::Unknown) };
            let attempt = match self.next_after_sent(&record, event) {
                Next::Done(Handled::Repeated) => {
                    self.quiet_from_now(key).await?;
                    return Ok(Handled::Repeated);
                }
                Next::Done(handled) => return Ok(handled),
                Next::Resolve(attempt) => attempt,
                Next::Wait => continue,
            };
            match self.engine.resolve(&self.shared.flow, key, Some(attempt), end.clone()).await? {
                Resolved::Recorded | Resolved::Already => {
                    if !self.host_acknowledges {
                        self.engine.acknowledge(&self.shared.flow, key).await?;
                    }
                    return Ok(Handled::Recorded);
                }
                Resolved::Contradicts(Status::Failed) => return Ok(Handled::Contradiction(event.paid.clone())),
                // Another delivery was faster, or the record has gone: look again.
                Resolved::Contradicts(_) | Resolved::FencedOff | Resolved::NotFound => {}
            }
        }
    }

    fn next_after_sent(&self, record: &Record, event: &PaymentSent) -> Next {
        match record.state.status() {
            // Whatever attempt it is of: the host has been told that no money left.
            Status::Failed => Next::Resolve(record.attempt),
            Status::Tombstone => Next::Done(Handled::Unknown),
            _ if is_anothers(record, Some(event.paid.payment_hash), event.attempt) => Next::Done(Handled::Stale),
            Status::Completed => Next::Done(Handled::Repeated),
            Status::Registered | Status::Dispatched | Status::InDoubt => Next::Resolve(record.attempt),
        }
    }

    /// A redelivery: its record is kept for another eight ticks. Where it was not acknowledged because the store failed, it is now.
    async fn quiet_from_now(&self, key: &Key) -> Result<(), Error> {
        if !self.host_acknowledges {
            self.engine.acknowledge(&self.shared.flow, key).await?;
        }
        self.engine.disturb(&self.shared.flow, key).await.map(drop)
    }

    async fn failed(&self, key: &Key, event: &PaymentFailed) -> Result<Handled, Error> {
        let end = Ending::Failed(event.reason.clone()).encode();
        let mut changes = self.shared.calls.changes();
        loop {
            changes.mark_unchanged();
            let Some(record) = self.engine.lookup(key)? else { return Ok(Handled::Unknown) };
            let attempt = match self.next_after_failed(&record, event) {
                Next::Done(handled) => return Ok(handled),
                Next::Resolve(attempt) => attempt,
                Next::Wait => {
                    self.wait_for_the_call(event.id, &mut changes).await?;
                    continue;
                }
            };
            match self.engine.resolve(&self.shared.flow, key, Some(attempt), end.clone()).await? {
                Resolved::Recorded | Resolved::Already => return Ok(Handled::Recorded),
                Resolved::Contradicts(Status::Completed) => return Ok(Handled::Late),
                Resolved::Contradicts(_) => return Ok(Handled::Repeated),
                // The record has gone: look again.
                Resolved::FencedOff | Resolved::NotFound => {}
            }
        }
    }

    fn next_after_failed(&self, record: &Record, event: &PaymentFailed) -> Next {
        let status = record.state.status();
        match status {
            Status::Completed => return Next::Done(Handled::Late),
            Status::Failed => return Next::Done(Handled::Repeated),
            Status::Tombstone => return Next::Done(Handled::Unknown),
            Status::Registered | Status::Dispatched | Status::InDoubt => {}
        }
        if is_anothers(record, event.payment_hash, event.attempt) {
            return Next::Done(Handled::Stale);
        }
        // Before the call has returned, that LDK does not list the id says nothing: it may be about to.
        if status == Status::Registered || self.shared.calls.count(event.id, Kind::Call) > 0 {
            return Next::Wait;
        }
        match self.shared.payer.recent(&event.id) {
            Some(_) => Next::Done(Handled::Stale),
            None => Next::Resolve(record.attempt),
        }
    }

    /// Returns when something has changed since the record was read. If nothing can, the call's result is known and could not be
    /// recorded: the event comes again.
    async fn wait_for_the_call(&self, id: [u8; 32], changes: &mut watch::Receiver<u64>) -> Result<(), Error> {
        let calls = &self.shared.calls;
        let is_going = calls.count(id, Kind::Submission) + calls.count(id, Kind::Call) > 0;
        // In this order: what ended before it was counted has changed something.
        if !is_going && !changes.has_changed().unwrap_or(false) {
            return Err(ErrorKind::Store.into());
        }
        changes.changed().await.map_err(|_| ErrorKind::Closed.into())
    }
}

/// Whether an event cannot be of the record's attempt.
fn is_anothers(record: &Record, payment_hash: Option<[u8; 32]>, attempt: Option<AttemptId>) -> bool {
    debug_assert!(is_in_flight(record) || record.state.status() == Status::Completed);
    let is_other_attempt = attempt.is_some_and(|attempt| !record.attempt.is_same(&attempt));
    let own = hash_of(&record.request).flatten();
    is_other_attempt || own.zip(payment_hash).is_some_and(|(own, told)| own != told)
}

impl fmt::Debug for PaymentSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PaymentSent").field("paid", &self.paid).field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the event could not be recorded and has to come again")
    }
}

impl std::error::Error for Replay {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}
