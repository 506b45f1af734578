//! The handle that a host embeds.

mod shared;

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, LazyLock, Weak};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::actor::message::{Ask, Count, ExpirySlice, ExpirySweep, Look, Meanwhile, Tick};
use crate::actor::{Ending, Front, Operation, Recipient, Submission, unavailable};
use crate::attempt::Attempt;
use crate::block_on::block_on;
use crate::bounds::Limits;
use crate::builder::Builder;
use crate::call::Call;
use crate::error::{Error, ErrorKind};
use crate::explain::{Explanation, Prospect};
use crate::fingerprint::Fingerprint;
use crate::key::Key;
use crate::ledger::{Row, StoredRow};
use crate::machine::Said;
use crate::outcome::{Abandoned, Acknowledged, Ended, Failure, Fenced, Forgotten, Outcome, Reply, Resolved};
use crate::policy::Flow;
use crate::record::{AttemptId, Bytes, Record, Status};
use crate::store::{self, Cursor, StoreError, Totals};
use crate::time::{ClockState, UnixMillis};
use crate::typed::{encode, encoded};
use crate::waiting::{Done, PREPARED, SUBMITTED, replied, unexpected};
pub(crate) use shared::Shared;
use shared::{Begun, unlooked};

/// The engine: a handle, cheap to clone, for any thread and any runtime.
///
/// All clones are one engine. It closes when [`shutdown`](Engine::shutdown) is called on any of them or the last one is
/// dropped; after that every call gets [`Closed`](ErrorKind::Closed).
///
/// **Its futures need no runtime**: whatever polls them will do, a `block_on` of any kind on a plain thread too, as long as that
/// thread does not drive the runtime on which the operations run.
///
/// **Cancel safety**, for every method that returns a future: dropping the future takes back the wait and nothing else. A
/// request that was submitted is registered, runs and is recorded whether or not anybody waits for it.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

impl Engine {
    /// Opens the store at `path`, or creates it, with every default: see [`Builder`]. It blocks for the time of the opening.
    ///
    /// Operations run on the tokio runtime that this is called in; outside of one the engine makes its own.
    ///
    /// # Errors
    /// [`StoreError`]: the file is open elsewhere, damaged, or from a newer version. It is never emptied or made anew.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::builder().open(path)
    }

    /// An engine with other settings.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn from_shared(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    /// Answers `request` under `key`: runs `operation` if this is the first, else gives the answer that there is.
    ///
    /// Request and answer are encoded with serde (postcard's format). The encoding decides whether a retry is the same
    /// request, so encode only what a retry repeats, in types whose order is fixed (no `HashMap`). The answer's type belongs to the
    /// flow for as long as its records live: another one reads the same bytes as something else, or as
    /// [`Decode`](ErrorKind::Decode). Under [`Retention::FromRequest`](crate::Retention::FromRequest) use [`submit`](Self::submit).
    ///
    /// An operation that fails returns [`Failure::definitive`] if surely nothing has happened. Every other error, a panic too,
    /// leaves the record in doubt: then retries hear what the flow's [`InDoubt`](crate::InDoubt) says, and no retry runs unless it
    /// says so.
    ///
    /// # Errors
    /// An [`Error`] of one of the four [classes](crate::Class). A [`Failure`] of the operation comes back as
    /// [`Failed`](ErrorKind::Failed) or [`InDoubt`](ErrorKind::InDoubt), with the operation's own error inside.
    pub async fn run<Q, A, F, Fut>(
        &self,
        flow: &Flow,
        key: &Key,
        request: &Q,
        operation: F,
    ) -> Result<Outcome<A>, Error>
    where
        Q: Serialize + ?Sized,
        A: Serialize + DeserializeOwned,
        F: FnOnce(Attempt) -> Fut + Send + 'static,
        Fut: Future<Output = Result<A, Failure>> + Send + 'static,
    {
        let request = encode(request)?;
        let operation = Operation::new(|attempt| {
            let running = operation(attempt);
            async { encoded(running.await) }
        });
        match self.submit(Call::new(flow, key, request), operation).await? {
            Reply::Answer(outcome) => outcome.decode(),
            Reply::Accepted => Err(ErrorKind::Duplicate(Status::Dispatched).into()),
        }
    }

    /// [`run`](Self::run) for bytes, with everything that a [`Call`] can say.
    ///
    /// # Errors
    /// An [`Error`] of one of the four [classes](crate::Class).
    pub async fn submit(&self, call: Call, operation: Operation) -> Result<Reply, Error> {
        // Each future in between would hold the wait once more.
        let waiting = match self.0.begin(call, operation)? {
            Begun::Answered(reply) => return reply,
            Begun::Waiting(waiting) => waiting,
        };
        replied(waiting.await)
    }

    /// [`submit`](Self::submit) on a plain thread: blocks it until there is an answer. Never call it on a thread that drives the
    /// runtime on which the operations run.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_blocking(&self, call: Call, operation: Operation) -> Result<Reply, Error> {
        block_on(self.submit(call, operation))
    }

    /// Submits without ever blocking: no store is read, nothing is waited for. For callers under a lock, such as LDK's
    /// `handle_custom_message`.
    ///
    /// After `Ok`, `on_done` runs exactly once, as a task of the runtime on which the operations run, never on this stack. After
    /// `Err` it never runs.
    ///
    /// # Errors
    /// At once, nothing registered: [`Busy`](ErrorKind::Busy), [`Closed`](ErrorKind::Closed), an unusable key.
    pub fn try_submit(
        &self,
        call: Call,
        operation: Operation,
        on_done: impl FnOnce(Result<Reply, Error>) + Send + 'static,
    ) -> Result<(), Error> {
        let fingerprint = self.0.check(&call)?;
        let permit = self.0.permits.take(&call.key).map_err(unlooked)?;
        let (waiting, question) = self.0.prepare(call, fingerprint, operation, Some(permit));
        let phase = Arc::new(AtomicU8::new(PREPARED));
        let done = Done::new(on_done, Arc::clone(&phase));
        self.0.runtime.spawn(async move { done.run(replied(waiting.await)) });
        // A runtime that has been shut down drops the task on this stack, where the callback must not run.
        if phase.compare_exchange(PREPARED, SUBMITTED, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return Err(ErrorKind::Closed.into());
        }
        self.0.send(question);
        Ok(())
    }

    /// Where actors send a [`Submission`]. Each call starts one small actor, which lives as long as its recipients do.
    #[must_use]
    pub fn recipient(&self) -> Recipient<Submission> {
        let engine = Arc::downgrade(&self.0);
        let submit = move |call, operation| -> Pin<Box<dyn Future<Output = _> + Send>> {
            // The engine is held while it is asked and not while it is waited for: a wait must not keep it open.
            let begun = match Weak::upgrade(&engine) {
                Some(engine) => engine.begin(call, operation),
                None => Err(ErrorKind::Closed.into()),
            };
            Box::pin(async move {
                match begun? {
                    Begun::Answered(reply) => reply,
                    Begun::Waiting(waiting) => replied(waiting.await),
                }
            })
        };
        self.0.actors.start_front(Front::new(submit))
    }

    /// Waits for the end of what is registered under `key`, or reads it. Any number may wait. In a flow of typed answers
    /// [`Outcome::decode`] reads it.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) at once, which proves nothing; else as [`submit`](Self::submit).
    pub async fn track(&self, flow: &Flow, key: &Key) -> Result<Outcome, Error> {
        self.track_as(flow, key, None).await
    }

    /// [`track`](Self::track) for one who knows the request: another one under the key is a [`Mismatch`](ErrorKind::Mismatch).
    ///
    /// # Errors
    /// As [`track`](Self::track).
    pub async fn track_request(&self, flow: &Flow, key: &Key, request: &[u8]) -> Result<Outcome, Error> {
        self.track_as(flow, key, Some(Fingerprint::of(flow.name(), request))).await
    }

    async fn track_as(&self, flow: &Flow, key: &Key, fingerprint: Option<Fingerprint>) -> Result<Outcome, Error> {
        let permit = self.0.trackers.take(key).map_err(unlooked)?;
        let waiting = self.0.ask(flow, key, Ask::Track(fingerprint), Some(permit))?;
        match replied(waiting.await)? {
            Reply::Answer(outcome) => Ok(outcome),
            Reply::Accepted => Err(ErrorKind::Internal.into()),
        }
    }

    /// The record of `key` as it is stored now; `None` if it reads as absent. It proves nothing about a request on its way, or about
    /// one of a [replay-safe](crate::Policy::replay_safe) flow that runs.
    ///
    /// It goes by [`now`](Self::now): while the clock is [suspect](crate::ClockState) it shows what is there, also where a
    /// request would be told that it has expired.
    ///
    /// # Errors
    /// [`Quarantined`](ErrorKind::Quarantined), [`Store`](ErrorKind::Store), [`Closed`](ErrorKind::Closed).
    pub fn lookup(&self, key: &Key) -> Result<Option<Record>, Error> {
        let record = self.0.store.get(key).map_err(|error| unavailable(&error))?;
        let now = self.0.clock.now();
        let tick = self.0.ticks.now();
        Ok(record.filter(|record| !record.is_removable(now, tick)))
    }

    /// Removes finished records by name, each distinct key once, in order of first appearance. A record whose end is still to
    /// come stays. In a flow with an [oracle](Builder::oracle) so does one whose attempt the oracle still sees, or cannot say
    /// that it does not: it is asked about each record.
    ///
    /// # Errors
    /// On an error it is not known which of the keys were forgotten: ask again.
    pub async fn forget(&self, flow: &Flow, keys: &[Key]) -> Result<Vec<(Key, Forgotten)>, Error> {
        let mut statuses: Vec<(Key, Forgotten)> = Vec::new();
        let mut known = HashSet::new();
        for key in keys.iter().filter(|key| known.insert(*key)) {
            statuses.push((key.clone(), self.forget_one(flow, key).await?));
        }
        Ok(statuses)
    }

    async fn forget_one(&self, flow: &Flow, key: &Key) -> Result<Forgotten, Error> {
        let asked = match self.0.ask_downstream(key).await {
            Err(error) if matches!(error.kind(), ErrorKind::Quarantined) => return Ok(Forgotten::Quarantined),
            asked => asked?,
        };
        match self.0.ask(flow, key, Ask::Forget(asked), None)?.said().await {
            Ok(Said::Forgotten(forgotten)) => Ok(forgotten),
            Ok(other) => Err(unexpected(other)),
            Err(error) if matches!(error.kind(), ErrorKind::Quarantined) => Ok(Forgotten::Quarantined),
            Err(error) => Err(error),
        }
    }

    /// Gives a request up: its key is free as soon as it fails, or at once if it has failed. What is under way may still succeed, and
    /// then that is its end. Call it before downstream is told to give up, and tell downstream whenever the answer is [`Marked`](Abandoned::Marked), also at a restart. (LDK: `abandon_payment`.)
    ///
    /// # Errors
    /// On an error it is not known whether the mark was recorded: ask again.
    pub async fn abandon(&self, flow: &Flow, key: &Key) -> Result<Abandoned, Error> {
        match self.0.ask(flow, key, Ask::Abandon, None)?.said().await? {
            Said::Abandoned(abandoned) => Ok(abandoned),
            other => Err(unexpected(other)),
        }
    }

    /// The host has dealt with the end of a completed request: from here on [ticks](Self::tick) count towards its release, where its
    /// flow's retention is [`UntilAcknowledged`](crate::Retention::UntilAcknowledged). Said again, it changes nothing.
    ///
    /// # Errors
    /// On an error it is not known whether it was recorded: say it again.
    pub async fn acknowledge(&self, flow: &Flow, key: &Key) -> Result<Acknowledged, Error> {
        self.0.acknowledged(flow, key, Ask::Acknowledge).await
    }

    /// Something more of an acknowledged request has happened: its quiet ticks are counted anew, from none.
    ///
    /// # Errors
    /// As [`acknowledge`](Self::acknowledge).
    pub async fn disturb(&self, flow: &Flow, key: &Key) -> Result<Acknowledged, Error> {
        self.0.acknowledged(flow, key, Ask::Disturb).await
    }

    /// One more tick of the host's timer, durable when it returns. What it releases reads as absent from then on. The count is one
    /// for the whole store, so a tick costs one small commit, whatever the number of records; it survives a restart.
    ///
    /// # Errors
    /// [`Store`](ErrorKind::Store), [`Closed`](ErrorKind::Closed): the tick counts in this process, and is durable with the next
    /// commit that succeeds. A crash before that delays what it would have released.
    pub async fn tick(&self) -> Result<(), Error> {
        self.0.ticks.advance();
        let (reply, ticked) = oneshot::channel();
        self.0.actors.supervisor.do_send(Tick(reply));
        let ticked = ticked.await.map_err(|_| Error::from(ErrorKind::Closed))?;
        ticked.map_err(|error| unavailable(&error))
    }

    /// How many ticks there have been in the life of the store.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        self.0.ticks.now()
    }

    /// Writes or removes rows of ledger tables that belong to no record, in one transaction: all, or, if a guard does not hold,
    /// none, and then it says so by `false`. No row: nothing is done.
    ///
    /// # Errors
    /// On an error it is not known whether the rows were written.
    pub async fn write_rows(&self, rows: Vec<Row>) -> Result<bool, Error> {
        let Some(first) = rows.first() else { return Ok(true) };
        let key = rows_key(first)?;
        match self.0.ask(&ROWS, &key, Ask::Rows(rows), None)?.said().await? {
            Said::Saved => Ok(true),
            Said::Guarded => Ok(false),
            other => Err(unexpected(other)),
        }
    }

    /// [`write_rows`](Self::write_rows) on a plain thread: blocks it until the rows are durable.
    ///
    /// # Errors
    /// As [`write_rows`](Self::write_rows).
    pub fn write_rows_blocking(&self, rows: Vec<Row>) -> Result<bool, Error> {
        block_on(self.write_rows(rows))
    }

    /// Records the end of a dispatched, registered or in-doubt record, told from outside. Without an attempt it belongs to whatever
    /// attempt is recorded; with one, to a record in that attempt, whichever boot it was started by. An end is recorded once: see
    /// [`Resolved`].
    ///
    /// # Errors
    /// On an error it is not known whether the end was recorded: ask again.
    pub async fn resolve(
        &self,
        flow: &Flow,
        key: &Key,
        attempt: Option<AttemptId>,
        end: Ended,
    ) -> Result<Resolved, Error> {
        match self.0.ask(flow, key, Ask::Resolve { attempt, end }, None)?.said().await? {
            Said::Resolved(resolved) => Ok(resolved),
            other => Err(unexpected(other)),
        }
    }

    /// Forbids an unused key, durably and for ever, or says what is there: turns *Ambiguous* into *Definitive* without sending anything.
    ///
    /// Ask it while the record would still be there: of a request that ran and whose record has lapsed nothing is known any more.
    ///
    /// # Errors
    /// On an error it is not known whether the key is fenced: ask again.
    pub async fn fence(&self, flow: &Flow, key: &Key) -> Result<Fenced, Error> {
        match self.0.ask(flow, key, Ask::Fence, None)?.said().await? {
            Said::Fenced(fenced) => Ok(fenced),
            other => Err(unexpected(other)),
        }
    }

    /// Records whose end is still to come, in order of arrival, beginning behind `after`, at most `limit`. Reads the in-flight
    /// index only, so it is safe under load. What runs in a [replay-safe](crate::Policy::replay_safe) flow has no record yet.
    ///
    /// # Errors
    /// [`Store`](ErrorKind::Store), [`Closed`](ErrorKind::Closed).
    pub fn list(&self, after: Option<Cursor>, limit: usize) -> Result<Vec<Listed>, Error> {
        let entries = self.0.store.in_flight(after, limit).map_err(|error| unavailable(&error))?;
        let listed = entries.into_iter().map(|store::Entry { cursor, found }| {
            let is_dead_letter = found.as_ref().is_some_and(|(key, record)| self.is_dead_letter(key, record));
            Listed { cursor, found, is_dead_letter }
        });
        Ok(listed.collect())
    }

    /// Whether this record of `key`, as [`lookup`](Self::lookup) or [`list`](Self::list) has read it, is a
    /// [dead letter](Listed::is_dead_letter) to this engine.
    #[must_use]
    pub fn is_dead_letter(&self, key: &Key, record: &Record) -> bool {
        self.0.is_dead_letter(key, record)
    }

    /// How one key stands, and what a request under it would be told now: for people who look into a case. It changes nothing,
    /// and proves nothing about a request on its way.
    ///
    /// # Errors
    /// [`Quarantined`](ErrorKind::Quarantined), [`Store`](ErrorKind::Store), [`Closed`](ErrorKind::Closed);
    /// [`InvalidKey`](ErrorKind::InvalidKey) if the key is of another flow.
    pub async fn explain(&self, flow: &Flow, key: &Key) -> Result<Explanation, Error> {
        self.0.check_open(flow, key)?;
        let (reply, seen) = oneshot::channel();
        self.0.actors.router.do_send(Look { key: key.clone(), reply });
        let in_memory = seen.await.map_err(|_| Error::from(ErrorKind::Closed))?;
        let stored = self.0.store.get(key).map_err(|error| unavailable(&error))?;
        let held = in_memory.as_ref().and_then(|in_memory| in_memory.held.as_deref().cloned());
        let (record, live) = (stored.or(held), in_memory.is_some());
        let unsaved = in_memory.and_then(|in_memory| in_memory.unsaved);
        let other = Fingerprint::of("another request than any", key.as_bytes());
        let same = record.as_ref().map_or(other, |record| record.fingerprint);
        let prospect = |record, fingerprint| self.0.prospect(flow, record, live, fingerprint);
        Ok(Explanation {
            key: key.clone(),
            now: self.now(),
            is_running: live,
            is_unsaved: unsaved.is_some(),
            is_dead_letter: record.as_ref().is_some_and(|record| self.is_dead_letter(key, record)),
            same_request: match &unsaved {
                None | Some(Meanwhile::Stored) => prospect(record.as_ref(), same),
                Some(Meanwhile::Nothing) => Prospect::Refused(ErrorKind::Store.into()),
                Some(Meanwhile::As(ended)) => prospect(Some(&**ended), same),
                Some(Meanwhile::End(Ok(_))) => Prospect::Joins,
                Some(Meanwhile::End(Err(error))) => Prospect::Refused(error.clone()),
            },
            other_request: prospect(record.as_ref(), other),
            record,
        })
    }

    /// Whether an [oracle](Builder::oracle) is asked about the records of this flow.
    #[must_use]
    pub fn has_oracle(&self, flow: &Flow) -> bool {
        self.0.recovery.has_oracle(flow)
    }

    /// The row of a ledger table; `None` if there is none or its end has come, by [`now`](Self::now). Guards go by the same
    /// time.
    ///
    /// # Errors
    /// [`Quarantined`](ErrorKind::Quarantined), [`Store`](ErrorKind::Store), [`Closed`](ErrorKind::Closed).
    pub fn ledger_row(&self, table: &str, key: &[u8]) -> Result<Option<StoredRow>, Error> {
        let row = self.0.store.row(table, key).map_err(|error| unavailable(&error))?;
        let now = self.0.clock.now();
        Ok(row.filter(|row| row.expires_at.is_none_or(|end| now < end)))
    }

    /// Rows of a ledger table in the order of their keys, beginning behind `after`, at most `limit`; also those whose end has
    /// come and that are not removed yet. One that can't be read is left out.
    ///
    /// # Errors
    /// [`Store`](ErrorKind::Store), [`Closed`](ErrorKind::Closed).
    pub fn ledger_rows(
        &self,
        table: &str,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, StoredRow)>, Error> {
        self.0.store.rows(table, after, limit).map_err(|error| unavailable(&error))
    }

    /// Keys of a ledger table's rows in their order, beginning behind `after`, at most `limit`. They are read without the rows,
    /// so this lists also those whose row can't be read, which [`ledger_rows`](Self::ledger_rows) leaves out.
    ///
    /// # Errors
    /// [`Store`](ErrorKind::Store), [`Closed`](ErrorKind::Closed).
    pub fn ledger_keys(&self, table: &str, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>, Error> {
        self.0.store.row_keys(table, after, limit).map_err(|error| unavailable(&error))
    }

    /// What the engine holds, in memory and in the store.
    ///
    /// # Errors
    /// [`Store`](ErrorKind::Store), [`Closed`](ErrorKind::Closed).
    pub async fn stats(&self) -> Result<Stats, Error> {
        let (reply, counted) = oneshot::channel();
        self.0.actors.router.do_send(Count { reply, requeued: false });
        let counts = counted.await.map_err(|_| Error::from(ErrorKind::Closed))?;
        let records = self.0.store.totals().map_err(|error| unavailable(&error))?;
        Ok(Stats {
            records,
            live_actors: counts.live_actors,
            running: counts.running,
            in_flight: self.0.permits.taken() + self.0.trackers.taken() + self.0.askers.taken(),
            died_actors: counts.died_actors,
            alarms: counts.alarms,
            dead_letters: counts.dead_letters,
            inquiries: counts.inquiries,
            reruns: counts.reruns,
            storage_failures: self.0.actors.meters.failures(),
            storage_retries: self.0.actors.meters.retries(),
            unsaved: self.0.actors.meters.unsaved(),
            clock: self.0.clock.read().state(),
        })
    }

    /// Removes what is past its grace, now rather than at the next turn of the timer. Says how many records went; no answer
    /// depends on it. None go while the clock is [suspect](crate::ClockState).
    ///
    /// # Errors
    /// [`Store`](ErrorKind::Store), [`Closed`](ErrorKind::Closed).
    pub async fn expiry_sweep(&self) -> Result<u64, Error> {
        let (reply, swept) = oneshot::channel();
        self.0.actors.supervisor.do_send(ExpirySweep(Some(reply)));
        let removed = swept.await.map_err(|_| Error::from(ErrorKind::Closed))?;
        removed.map_err(|error| unavailable(&error))
    }

    /// Removes one slice of what is past its grace, oldest expiry first: at most `limit` records, and never more than
    /// [`Limits::expiry_slice`], in one transaction; a record that leaves a tombstone counts as one. Says how many records went. None
    /// go while the clock is [suspect](crate::ClockState).
    ///
    /// # Errors
    /// As [`expiry_sweep`](Self::expiry_sweep).
    pub async fn expiry_sweep_slice(&self, limit: usize) -> Result<u64, Error> {
        let (reply, swept) = oneshot::channel();
        self.0.actors.supervisor.do_send(ExpirySlice { limit, reply });
        let removed = swept.await.map_err(|_| Error::from(ErrorKind::Closed))?;
        removed.map_err(|error| unavailable(&error))
    }

    /// The store's generation: it grows with every commit. Keep it somewhere that is not restored together with the store, and
    /// [demand](Builder::at_least_generation) it at the next opening, to find out that a file is an old one.
    ///
    /// Read after an answer it covers that answer.
    ///
    /// # Errors
    /// [`Store`](ErrorKind::Store), [`Closed`](ErrorKind::Closed).
    pub fn generation(&self) -> Result<u64, Error> {
        self.0.store.generation().map_err(|error| unavailable(&error))
    }

    /// The engine's time: the machine's clock, never going back, also across restarts. While that clock is
    /// [suspect](crate::ClockState) it is the trusted time, which goes on by the monotonic clock.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        self.0.clock.now()
    }

    /// Says that the wall clock is right as it stands: a [suspect](crate::ClockState) one is believed from here on, and what
    /// has expired by it has expired for good. For an operator, or a host that knows the time from elsewhere. A trusted
    /// clock is not changed by it.
    pub fn confirm_clock(&self) {
        self.0.clock.confirm();
    }

    /// The limits that hold: as they were set, payloads within [`PAYLOAD_BYTES_CEILING`](crate::PAYLOAD_BYTES_CEILING), no count and
    /// no period of zero.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Takes in nothing new, waits for what runs (at most [`Limits::drain`]), commits it, and frees the file: when this
    /// returns, the same process can open it again, even while clones of this handle are alive. An operation that still runs
    /// is aborted then, and its record is in doubt.
    ///
    /// Cancel safety: once polled, the shutdown goes on by itself.
    pub async fn shutdown(&self) {
        self.0.closing.store(true, Ordering::Release);
        self.0.actors.stop(Ending::Drain);
        self.0.actors.closed().await;
    }

    /// Ends it as a crash of the process would: nothing more is committed, what runs is aborted.
    #[cfg(feature = "testing")]
    pub(crate) async fn crash(&self) {
        self.0.closing.store(true, Ordering::Release);
        self.0.actors.stop(Ending::Crash);
        self.0.actors.closed().await;
    }

    /// [`shutdown`](Self::shutdown) on a plain thread. Never call it on a thread that drives the runtime on which the operations
    /// run.
    pub fn shutdown_blocking(&self) {
        block_on(self.shutdown());
    }
}

/// Who writes rows that belong to no record. No flow of the host's has this name.
static ROWS: LazyLock<Flow> = LazyLock::new(Flow::of_rows);

/// What puts the writes of one row in order.
fn rows_key(row: &Row) -> Result<Key, Error> {
    let id = Fingerprint::of(row.table(), row.key());
    Ok(ROWS.key(row.table(), id.as_bytes())?)
}

/// What an engine holds at one moment.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Records by state, in the store.
    pub records: Totals,
    /// Key actors in memory: one per key in flight.
    pub live_actors: usize,
    /// Operations that were started and whose end is not recorded yet.
    pub running: usize,
    /// Requests that hold a permit, trackers (which have permits of their own), and callers that are about to hear that there is no
    /// permit for them.
    pub in_flight: usize,
    /// Key actors that died of a panic: bugs of ibid's.
    pub died_actors: u64,
    /// Ends that contradicted a record or came from an older attempt.
    pub alarms: u64,
    /// Records that have become dead letters since the engine was opened; [`Engine::list`] names those that there are.
    pub dead_letters: u64,
    /// Inquiries made to oracles since then.
    pub inquiries: u64,
    /// Re-runs that the engine started by itself since then.
    pub reruns: u64,
    /// Ends that could not be saved within the tries, each counted once, saved by now or not.
    pub storage_failures: u64,
    /// How often a store that had failed was tried again.
    pub storage_retries: u64,
    /// Ends that wait in memory to be saved, now. If the process dies, their records are in doubt.
    pub unsaved: u64,
    /// Whether the wall clock is believed.
    pub clock: ClockState,
}

/// A record whose end is still to come, as [`Engine::list`] shows it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Listed {
    /// Its place, to go on behind.
    pub cursor: Cursor,
    /// Key and record, or `None` where they do not decode.
    pub found: Option<(Key, Record)>,
    /// In doubt, with as many recoveries behind it as [`Limits::recoveries`] allows: it is not run again, and what can still
    /// end it is `resolve` or an oracle. Of a flow with an [oracle](crate::Builder::oracle), after at least one answer.
    pub is_dead_letter: bool,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("boot", &self.0.boot).finish_non_exhaustive()
    }
}
