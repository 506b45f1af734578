//! The one writer: drains what has queued up, commits once, tells the router in order. The expiry sweep rides along.
//!
//! There is no timer in the way of a request: while one commit blocks this thread, the next batch collects in the mailbox.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message, SpawnHandle};
use tokio::sync::oneshot;

use super::message::{Decided, ExpirySweep, Proposal, RouterAddr, tell};
use crate::bounds::Limits;
use crate::machine::{self, Write};
use crate::store::{Batch, Change, Store, StoreError, Verdict, Version};
use crate::time::HighWater;

/// How long nothing must have been committed before the store may tidy up for the next opening.
const REST_AFTER: Duration = Duration::from_millis(50);

/// How long to wait before a store that could not be reopened is tried again.
const REOPEN_AFTER: Duration = Duration::from_millis(500);

pub(crate) struct Supervisor {
    store: Arc<dyn Store>,
    clock: Arc<HighWater>,
    limits: Limits,
    router: RouterAddr,
    queue: Vec<Proposal>,
    queued_bytes: usize,
    flush_is_due: bool,
    sweep: Option<Sweep>,
    /// Whether anything was committed since the timer was set, and the timer.
    busy: bool,
    rest: Option<SpawnHandle>,
}

/// An expiry sweep under way.
#[derive(Default)]
struct Sweep {
    removed: u64,
    replies: Vec<oneshot::Sender<Result<u64, StoreError>>>,
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
    pub(super) fn new(store: Arc<dyn Store>, clock: Arc<HighWater>, limits: Limits, router: RouterAddr) -> Self {
        Self {
            store,
            clock,
            limits,
            router,
            queue: Vec::new(),
            queued_bytes: 0,
            flush_is_due: false,
            sweep: None,
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

    /// One transaction: everything queued, then a slice of the expiry sweep if one is under way.
    fn commit(&mut self, ctx: &mut Context<Self>) {
        let mut proposals = std::mem::take(&mut self.queue);
        self.queued_bytes = 0;
        let slice = self.expiry_slice();
        // An expiry sweep that finds nothing still makes its time durable: what it has seen expired stays expired.
        if proposals.is_empty() && self.sweep.is_none() {
            return;
        }
        let mut changes: Vec<Change> = proposals.iter_mut().filter_map(|proposal| proposal.change.take()).collect();
        let proposed = changes.len();
        let sliced = slice.len();
        changes.extend(slice);
        let batch = Batch {
            now: self.clock.now(),
            records_per_scope: self.limits.records_per_scope,
            changes,
            expired_rows: Vec::new(),
        };
        let verdicts = self.store.commit(&batch);
        self.note_commit(ctx);
        match verdicts {
            Ok(verdicts) => {
                let (proposed, swept) = verdicts.split_at_checked(proposed).unwrap_or((&verdicts, &[]));
                self.tell(proposals, &batch, proposed);
                self.note_swept(swept, sliced, ctx);
            }
            Err(error) => {
                tracing::error!(%error, proposals = proposals.len(), "a transaction failed");
                self.reopen(ctx);
                let decisions = proposals.into_iter().map(|proposal| proposal.decide(Err(error.clone())));
                self.router.do_send(Decided(decisions.collect()));
                self.end_sweep(Err(error));
            }
        }
    }

    /// One verdict per proposal, in order: those with a change get theirs, the others only waited for the commit.
    fn tell(&self, proposals: Vec<Proposal>, batch: &Batch, verdicts: &[Verdict]) {
        let mut answered = batch.changes.iter().zip(verdicts).peekable();
        let decisions = proposals.into_iter().map(|proposal| {
            let verdict = match answered.next_if(|_| proposal.has_change()) {
                Some((_, verdict)) => *verdict,
                None => Verdict::Applied,
            };
            proposal.decide(Ok(verdict))
        });
        self.router.do_send(Decided(decisions.collect()));
    }

    /// After a failed transaction the store's handle refuses everything: what is stored is read anew, now or as soon as it
    /// can be. Until then every request gets [`Store`](crate::ErrorKind::Store) and nothing runs.
    fn reopen(&mut self, ctx: &mut Context<Self>) {
        if let Err(error) = self.store.reopen() {
            tracing::error!(%error, "the store could not be reopened");
            ctx.run_later(REOPEN_AFTER, Self::reopen);
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
        } else if let Err(error) = self.store.rest() {
            tracing::warn!(%error, "the store could not tidy up");
        }
    }

    /// What the next slice of the expiry sweep changes; empty when there is none under way or it is done.
    fn expiry_slice(&mut self) -> Vec<Change> {
        if self.sweep.is_none() {
            return Vec::new();
        }
        let now = self.clock.now();
        match self.store.removable(now, self.limits.expiry_slice) {
            Ok(removable) => removable
                .into_iter()
                .filter_map(|(key, record)| {
                    let expected = Some(Version::of(&record));
                    match machine::expire(&record, now) {
                        Write::Keep | Write::Touch => None,
                        Write::Put(put) => Some(Change { key, expected, put: Some(put), rows: Vec::new() }),
                        Write::Remove => Some(Change { key, expected, put: None, rows: Vec::new() }),
                    }
                })
                .collect(),
            Err(error) => {
                self.end_sweep(Err(error));
                Vec::new()
            }
        }
    }

    fn note_swept(&mut self, verdicts: &[Verdict], sliced: usize, ctx: &mut Context<Self>) {
        let Some(sweep) = &mut self.sweep else { return };
        let applied = verdicts.iter().filter(|verdict| **verdict == Verdict::Applied).count();
        sweep.removed = sweep.removed.saturating_add(applied as u64);
        // A slice that moved nothing would come back for ever.
        if sliced < self.limits.expiry_slice || applied == 0 {
            self.end_sweep(Ok(()));
        } else {
            self.schedule_flush(ctx);
        }
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

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(self.limits.expiry_sweep_every, |_, ctx| ctx.notify(ExpirySweep(None)));
    }
}

impl Handler<Proposal> for Supervisor {
    type Result = ();

    fn handle(&mut self, proposal: Proposal, ctx: &mut Self::Context) {
        let weight = proposal.weight();
        if !self.queue.is_empty() && self.queued_bytes + weight > self.limits.batch_bytes {
            self.commit(ctx);
        }
        self.queued_bytes += weight;
        self.queue.push(proposal);
        if self.queue.len() >= self.limits.batch_transitions {
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
        self.schedule_flush(ctx);
    }
}

impl Handler<Settle> for Supervisor {
    type Result = ();

    fn handle(&mut self, Settle(done): Settle, ctx: &mut Self::Context) {
        if !self.queue.is_empty() {
            self.commit(ctx);
        }
        self.end_sweep(Err(StoreError::Closed));
        tell(done, ());
    }
}
