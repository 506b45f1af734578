//! The one writer: drains what has queued up, commits once, tells the router in order. The expiry sweep rides along.
//!
//! There is no timer in the way of a request: while one commit blocks this thread, the next batch collects in the mailbox.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message, SpawnHandle};
use tokio::sync::oneshot;

use super::message::{
    Decided, Doubt, ExpirySlice, ExpirySweep, Halt, Proposal, Proposals, RouterAddr, Tick, Unsaved, tell,
};
use super::meters::Meters;
use super::pace::Pace;
use crate::bounds::Limits;
use crate::entropy::Jitter;
use crate::key::Key;
use crate::machine::{self, TRIES, Write};
use crate::observe::{Event, Observers};
use crate::record::Record;
use crate::store::{Batch, Change, ExpiredRow, Store, StoreError, Verdict, Version};
use crate::time::{HighWater, Ticks, UnixMillis};

/// How long nothing must have been committed before the store may tidy up for the next opening.
const REST_AFTER: Duration = Duration::from_millis(50);

pub(crate) struct Supervisor {
    store: Arc<dyn Store>,
    clock: Arc<HighWater>,
    ticks: Arc<Ticks>,
    limits: Limits,
    router: RouterAddr,
    queue: Vec<Proposal>,
    queued_bytes: usize,
    flush_is_due: bool,
    /// How often in a row the store has failed, and whether a timer runs that tries it again: until then nothing is committed.
    failures: u32,
    is_down: bool,
    /// Whether the next try begins with the expiry sweep, by itself: a full disk takes what removes before it takes anything else.
    frees_first: bool,
    jitter: Jitter,
    meters: Arc<Meters>,
    observers: Arc<Observers>,
    sweep: Option<Sweep>,
    /// Single slices that were asked for and not begun.
    slices: VecDeque<ExpirySlice>,
    /// What expiry sweeps have removed by commits that failed: whether it went is read when the store is open again.
    maybe_removed: Vec<Change>,
    /// Those who wait for the tick count to be durable.
    ticking: Vec<oneshot::Sender<Result<(), StoreError>>>,
    /// Whether anything was committed since the timer was set, and the timer.
    busy: bool,
    rest: Option<SpawnHandle>,
}

/// An expiry sweep under way.
#[derive(Default)]
struct Sweep {
    removed: u64,
    replies: Vec<oneshot::Sender<Result<u64, StoreError>>>,
    pace: Pace,
    /// It ends with its first slice, of at most so many records.
    slice: Option<usize>,
}

/// What one transaction of it removes.
#[derive(Default)]
struct Slice {
    changes: Vec<Change>,
    rows: Vec<ExpiredRow>,
    /// As many of each as it may have.
    limit: usize,
}

/// Commit what is queued. It is sent to itself, so it comes after everything that was in the mailbox.
struct Flush;

/// Commit what is queued, then say so.
pub(super) struct Settle(pub(super) oneshot::Sender<()>);

impl Message for Flush {
    type Result = ();
}

impl Message for Settle {
    type Result = ();
}

impl Supervisor {
    pub(super) fn new(
        store: Arc<dyn Store>,
        (clock, ticks): (Arc<HighWater>, Arc<Ticks>),
        limits: Limits,
        router: RouterAddr,
        jitter: Jitter,
        (meters, observers): (Arc<Meters>, Arc<Observers>),
    ) -> Self {
        Self {
            store,
            clock,
            ticks,
            limits,
            router,
            queue: Vec::new(),
            queued_bytes: 0,
            flush_is_due: false,
            failures: 0,
            is_down: false,
            frees_first: false,
            jitter,
            meters,
            observers,
            sweep: None,
            slices: VecDeque::new(),
            maybe_removed: Vec::new(),
            ticking: Vec::new(),
            busy: false,
            rest: None,
        }
    }

    fn schedule_flush(&mut self, ctx: &mut Context<Self>) {
        if !self.flush_is_due {
            self.flush_is_due = true;
            ctx.notify(Flush);
        }
    }

    /// One transaction: what is queued, up to the limits of a batch, then a slice of the expiry sweep if one is under way.
    fn commit(&mut self, ctx: &mut Context<Self>) {
        if self.is_down {
            return;
        }
        let proposals = self.next_batch(ctx);
        self.commit_with_slice(proposals, ctx);
    }

    fn commit_with_slice(&mut self, mut proposals: Vec<Proposal>, ctx: &mut Context<Self>) {
        // Never a suspect time: it would be the durable mark, and guards and removals would go by it.
        let now = self.clock.now();
        let slice = self.expiry_slice(now, &proposals);
        // An expiry sweep that finds nothing still makes its time durable: what it has seen expired stays expired.
        if proposals.is_empty() && self.sweep.is_none() && self.ticking.is_empty() {
            return self.go_on_with_slices(ctx);
        }
        let mut changes: Vec<Change> = proposals.iter_mut().filter_map(|proposal| proposal.change.take()).collect();
        let proposed = changes.len();
        changes.extend(slice.changes);
        let limit = slice.limit;
        let records_per_scope = self.limits.records_per_scope;
        let tick = self.ticks.now();
        let mut batch = Batch { now, tick, records_per_scope, changes, expired_rows: slice.rows };
        let committed = unwinding(|| self.store.commit(&batch)).and_then(|verdicts| {
            let complete = verdicts.len() == batch.changes.len();
            if complete { Ok(verdicts) } else { Err(failed("the store gave too few verdicts")) }
        });
        self.note_commit(ctx);
        match committed {
            Ok(mut verdicts) => {
                // That something could be removed does not show that anything can be written.
                if proposals.iter().any(Proposal::has_change) || self.queue.is_empty() {
                    self.set_failures(0);
                }
                self.end_tick(&Ok(()));
                let swept = verdicts.split_off(proposed.min(verdicts.len()));
                self.tell(proposals, verdicts);
                self.note_swept(&swept, &batch.expired_rows, limit, ctx);
                self.go_on_with_slices(ctx);
            }
            Err(error) => {
                self.maybe_removed.extend(batch.changes.drain(proposed..));
                let mut changes = batch.changes.into_iter();
                for proposal in proposals.iter_mut().filter(|proposal| proposal.has_change()) {
                    proposal.change = changes.next();
                    proposal.is_in_question |= is_unknown(&error) && proposal.change.as_ref().is_some_and(is_of_rows);
                }
                proposals.append(&mut self.queue);
                self.queue = proposals;
                self.fail(&error, ctx);
            }
        }
    }

    /// As much of the queue as one transaction takes; the rest follows in the next.
    fn next_batch(&mut self, ctx: &mut Context<Self>) -> Vec<Proposal> {
        let mut bytes = 0;
        let fits = self.queue.iter().take(self.limits.batch_transitions).take_while(|proposal| {
            let first = bytes == 0;
            bytes += proposal.weight();
            first || bytes <= self.limits.batch_bytes
        });
        let batch: Vec<_> = {
            let count = fits.count();
            self.queue.drain(..count).collect()
        };
        self.queued_bytes = self.queue.iter().map(Proposal::weight).sum();
        if !self.queue.is_empty() {
            self.schedule_flush(ctx);
        }
        batch
    }

    /// One verdict per proposal, in order: those with a change get theirs, the others only waited for the commit.
    fn tell(&self, proposals: Vec<Proposal>, verdicts: Vec<Verdict>) {
        let mut verdicts = verdicts.into_iter();
        let decisions = proposals.into_iter().map(|proposal| {
            let verdict = if proposal.has_change() { verdicts.next() } else { Some(Verdict::Applied) };
            if verdict == Some(Verdict::Applied) {
                self.note_doubt(&proposal);
            }
            let verdict = match verdict {
                // What holds the guard up may be the rows themselves, written by the try before.
                Some(Verdict::Guarded) if proposal.is_in_question => Err(failed("the rows may have been written")),
                verdict => verdict.ok_or(StoreError::Closed),
            };
            proposal.decide(verdict)
        });
        self.router.do_send(Decided(decisions.collect()));
    }

    /// The store has failed. What was in the transaction may or may not be durable; it stays queued, and its keys count as busy,
    /// until the store has been reopened and read. After the last of the tries whoever can be sent away is; what records an end
    /// exists nowhere else and goes on being tried for as long as the engine runs.
    fn fail(&mut self, error: &StoreError, ctx: &mut Context<Self>) {
        self.set_failures(self.failures.saturating_add(1));
        tracing::error!(%error, failures = self.failures, queued = self.queue.len(), "the store failed");
        self.end_sweep(Err(error.clone()));
        self.refuse_slices(error);
        self.end_tick(&Err(error.clone()));
        self.frees_first |= self.failures == TRIES;
        if self.failures >= TRIES {
            self.send_away(error);
        }
        if !std::mem::replace(&mut self.is_down, true) {
            ctx.run_later(machine::wait_after(self.failures, self.jitter.draw()), Self::retry);
        }
    }

    fn set_failures(&mut self, failures: u32) {
        self.failures = failures;
        self.meters.set_down(failures >= TRIES);
    }

    fn send_away(&mut self, error: &StoreError) {
        let given_up = self.queue.extract_if(.., |proposal| !proposal.is_end);
        let decisions = given_up.map(|proposal| proposal.decide(Err(error.clone()))).collect();
        self.router.do_send(Decided(decisions));
        let unsaved = self.queue.iter_mut().filter(|proposal| !proposal.is_unsaved);
        let origins: Vec<_> = unsaved
            .map(|proposal| {
                proposal.is_unsaved = true;
                proposal.origin.clone()
            })
            .collect();
        if !origins.is_empty() {
            tracing::error!(answers = origins.len(), "answers could not be saved; they are kept in memory");
            self.router.do_send(Unsaved(origins, error.clone()));
        }
    }

    /// After a failure the store's handle refuses everything: it is opened anew, and what became of the transaction is read from
    /// it before anybody is told.
    fn retry(&mut self, ctx: &mut Context<Self>) {
        self.is_down = false;
        self.meters.note_retry();
        self.observers.tell(Event::StorageRetry);
        if let Err(error) = unwinding(|| self.store.reopen()).and_then(|()| self.read_back()) {
            return self.fail(&error, ctx);
        }
        if std::mem::take(&mut self.frees_first) && self.has_removable() {
            let pace = Pace::full(self.limits.expiry_slice);
            self.sweep.get_or_insert_with(|| Sweep { pace, ..Sweep::default() });
            self.commit_with_slice(Vec::new(), ctx);
            // There is more to remove.
            self.frees_first = self.sweep.is_some();
        }
        if self.queue.is_empty() && !self.is_down {
            self.set_failures(0);
        }
        self.commit(ctx);
    }

    /// Tells those whose change is there after all.
    fn read_back(&mut self) -> Result<(), StoreError> {
        let (mut applied, mut waiting) = (Vec::new(), Vec::new());
        let mut queued = std::mem::take(&mut self.queue).into_iter();
        let failure = loop {
            let Some(proposal) = queued.next() else { break None };
            match proposal.change.as_ref().map_or(Ok(false), |change| has_landed(&*self.store, change)) {
                Ok(true) => {
                    self.note_doubt(&proposal);
                    applied.push(proposal.decide(Ok(Verdict::Applied)));
                }
                Ok(false) | Err(StoreError::Quarantined) => waiting.push(proposal),
                Err(error) => {
                    waiting.push(proposal);
                    break Some(error);
                }
            }
        };
        // What has not been looked at keeps its place.
        waiting.extend(queued);
        self.queue = waiting;
        self.router.do_send(Decided(applied));
        failure.map_or_else(|| self.count_removed(), Err)
    }

    /// Says what became of the slice of an expiry sweep whose commit had failed. Nothing has been written since.
    fn count_removed(&mut self) -> Result<(), StoreError> {
        let mut removed = 0;
        for change in &self.maybe_removed {
            removed += match has_landed(&*self.store, change) {
                Ok(landed) => u64::from(landed),
                Err(StoreError::Quarantined) => 0,
                Err(error) => return Err(error),
            };
        }
        self.maybe_removed.clear();
        self.note_removed(removed);
        Ok(())
    }

    fn note_removed(&self, records: u64) {
        if records > 0 {
            self.observers.tell(Event::Removed { records });
        }
    }

    /// Its change is durable: told here, and not by its key's actor, which may be gone by now.
    fn note_doubt(&self, proposal: &Proposal) {
        let key = &proposal.origin.key;
        match proposal.doubt {
            None => {}
            Some(Doubt::Begins) => self.observers.tell(Event::InDoubt { key }),
            Some(Doubt::Ends) => self.observers.tell(Event::OutOfDoubt { key }),
        }
    }

    fn note_commit(&mut self, ctx: &mut Context<Self>) {
        self.busy = true;
        if self.rest.is_none() {
            self.rest = Some(ctx.run_later(REST_AFTER, Self::rest));
        }
    }

    fn rest(&mut self, ctx: &mut Context<Self>) {
        self.rest = None;
        if self.busy {
            self.busy = false;
            self.rest = Some(ctx.run_later(REST_AFTER, Self::rest));
        } else if let Err(error) = unwinding(|| self.store.rest()) {
            tracing::warn!(%error, "the store could not tidy up");
        }
    }

    fn has_removable(&self) -> bool {
        let now = self.clock.now();
        let records = unwinding(|| self.store.removable(now, self.ticks.now(), 1)).is_ok_and(|found| !found.is_empty());
        records || unwinding(|| self.store.expired_rows(now, 1)).is_ok_and(|found| !found.is_empty())
    }

    /// What the next slice of the expiry sweep removes; nothing when there is none under way, or while the clock is suspect.
    fn expiry_slice(&mut self, now: UnixMillis, proposals: &[Proposal]) -> Slice {
        self.begin_slice();
        let most = self.limits.expiry_slice;
        let Some(sweep) = &mut self.sweep else { return Slice::default() };
        let is_new = |proposal: &&Proposal| proposal.change.as_ref().is_some_and(is_new_record);
        let riding = (!proposals.is_empty()).then(|| proposals.iter().filter(is_new).count());
        let limit = sweep.slice.map_or_else(|| sweep.pace.next(riding, now, most), |limit| limit.min(most));
        if self.clock.read().is_suspect {
            self.end_sweep(Ok(()));
            return Slice::default();
        }
        let tick = self.ticks.now();
        let found = unwinding(|| {
            let records = self.store.removable(now, tick, limit)?;
            Ok((records, self.store.expired_rows(now, limit)?))
        });
        match found {
            Ok((records, rows)) => {
                let changes = records.iter().filter_map(|(key, record)| expiry(key, record, now, tick)).collect();
                Slice { changes, rows, limit }
            }
            Err(error) => {
                self.end_sweep(Err(error));
                Slice::default()
            }
        }
    }

    /// A single slice waits for the expiry sweep under way.
    fn begin_slice(&mut self) {
        if self.sweep.is_none()
            && let Some(ExpirySlice { limit, reply }) = self.slices.pop_front()
        {
            self.sweep = Some(Sweep { replies: vec![reply], slice: Some(limit), ..Sweep::default() });
        }
    }

    /// One behind another, also where that has come to nothing.
    fn go_on_with_slices(&mut self, ctx: &mut Context<Self>) {
        if !self.slices.is_empty() {
            self.schedule_flush(ctx);
        }
    }

    fn note_swept(&mut self, verdicts: &[Verdict], rows: &[ExpiredRow], limit: usize, ctx: &mut Context<Self>) {
        let applied = verdicts.iter().filter(|verdict| **verdict == Verdict::Applied).count();
        self.note_removed(applied as u64);
        let Some(sweep) = &mut self.sweep else { return };
        sweep.removed = sweep.removed.saturating_add(applied as u64);
        // A slice of records that moved none would come back for ever.
        let is_more = (verdicts.len() >= limit && applied > 0) || rows.len() >= limit;
        if is_more && sweep.slice.is_none() {
            self.schedule_flush(ctx);
        } else {
            self.end_sweep(Ok(()));
        }
    }

    fn end_tick(&mut self, result: &Result<(), StoreError>) {
        self.ticking.drain(..).for_each(|reply| tell(reply, result.clone()));
    }

    fn refuse_slices(&mut self, error: &StoreError) {
        self.slices.drain(..).for_each(|slice| tell(slice.reply, Err(error.clone())));
    }

    fn end_sweep(&mut self, result: Result<(), StoreError>) {
        let Some(sweep) = self.sweep.take() else { return };
        if sweep.removed > 0 {
            tracing::debug!(removed = sweep.removed, "expiry sweep");
        }
        for reply in sweep.replies {
            tell(reply, result.clone().map(|()| sweep.removed));
        }
    }
}

fn failed(what: &'static str) -> StoreError {
    StoreError::Io(Arc::new(std::io::Error::other(what)))
}

/// Whether what failed like this may have landed.
fn is_unknown(error: &StoreError) -> bool {
    !matches!(error, StoreError::RolledBack(_))
}

fn is_new_record(change: &Change) -> bool {
    change.expected.is_none() && change.put.is_some()
}

/// Whether the change is of rows that belong to no record.
fn is_of_rows(change: &Change) -> bool {
    change.expected.is_none() && change.put.is_none()
}

/// Whether a change of unknown fate is in the store. The version alone does not tell: a key actor that died may have left a
/// change behind that is decided on the same one.
fn has_landed(store: &dyn Store, change: &Change) -> Result<bool, StoreError> {
    let stored = unwinding(|| store.get(&change.key))?;
    Ok(match &change.put {
        Some(_) => stored.as_ref() == change.put.as_deref(),
        None => stored.is_none() && change.expected.is_some(),
    })
}

/// A store that panics has failed, and the supervisor has to go on.
pub(super) fn unwinding<T>(call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).unwrap_or_else(|_| Err(failed("the store panicked")))
}

/// How a record ends that has outlived its grace.
fn expiry(key: &Key, record: &Record, now: UnixMillis, tick: u64) -> Option<Change> {
    let put = match machine::expire(record, now, tick) {
        Write::Keep | Write::Touch | Write::Rows | Write::Hold(_) => return None,
        Write::Put(put) => Some(put),
        Write::Remove => None,
    };
    Some(Change::new(key.clone(), Some(Version::of(record)), put))
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(self.limits.expiry_sweep_every, |_, ctx| ctx.notify(ExpirySweep(None)));
    }
}

impl Handler<Proposals> for Supervisor {
    type Result = ();

    fn handle(&mut self, Proposals(proposals): Proposals, ctx: &mut Self::Context) {
        self.queued_bytes += proposals.iter().map(Proposal::weight).sum::<usize>();
        self.queue.extend(proposals);
        if self.is_down && self.failures >= TRIES {
            // It fails closed: nothing is kept waiting for a store that has been down for so long.
            self.send_away(&failed("the store is down"));
        } else if self.queue.len() >= self.limits.batch_transitions || self.queued_bytes >= self.limits.batch_bytes {
            self.commit(ctx);
        } else {
            self.schedule_flush(ctx);
        }
    }
}

impl Handler<Flush> for Supervisor {
    type Result = ();

    fn handle(&mut self, Flush: Flush, ctx: &mut Self::Context) {
        self.flush_is_due = false;
        self.commit(ctx);
    }
}

impl Handler<ExpirySweep> for Supervisor {
    type Result = ();

    fn handle(&mut self, ExpirySweep(reply): ExpirySweep, ctx: &mut Self::Context) {
        self.sweep.get_or_insert_default().replies.extend(reply);
        if self.is_down {
            // It is made up for as soon as the store is open again.
            self.frees_first = true;
            return self.end_sweep(Err(failed("the store is down")));
        }
        self.schedule_flush(ctx);
    }
}

impl Handler<ExpirySlice> for Supervisor {
    type Result = ();

    fn handle(&mut self, slice: ExpirySlice, ctx: &mut Self::Context) {
        self.slices.push_back(slice);
        if self.is_down {
            return self.refuse_slices(&failed("the store is down"));
        }
        self.schedule_flush(ctx);
    }
}

impl Handler<Tick> for Supervisor {
    type Result = ();

    /// What the tick releases goes with it.
    fn handle(&mut self, Tick(reply): Tick, ctx: &mut Self::Context) {
        if self.is_down {
            return tell(reply, Err(failed("the store is down")));
        }
        self.ticking.push(reply);
        self.sweep.get_or_insert_default();
        self.schedule_flush(ctx);
    }
}

impl Handler<Settle> for Supervisor {
    type Result = ();

    fn handle(&mut self, Settle(done): Settle, ctx: &mut Self::Context) {
        // One last round for what could not be saved, also if it fails only now.
        for _ in 0..2 {
            if self.is_down {
                self.retry(ctx);
            }
            while !self.is_down && !self.queue.is_empty() {
                self.commit(ctx);
            }
        }
        self.end_sweep(Err(StoreError::Closed));
        self.refuse_slices(&StoreError::Closed);
        self.end_tick(&Err(StoreError::Closed));
        tell(done, ());
    }
}

impl Handler<Halt> for Supervisor {
    type Result = ();

    fn handle(&mut self, Halt: Halt, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
