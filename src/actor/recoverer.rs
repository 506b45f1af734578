//! The pass over what is in flight: whoever can be asked is asked again and again, what may run again does.
//!
//! It reads the in-flight index, in slices, and only when something there may be due. What it finds goes to the key actors,
//! which decide on the record as it is then; so a key that is found too often, or too late, is asked about once or not at all.
//! Nothing is kept per key: when a record is due follows from the record.
//!
//! The engine's clock is compared with times in records and with nothing else. Where it stands still (it was set back, and
//! waits for the machine's to catch up), timers alone keep the pass going.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message, SpawnHandle};
use tokio::sync::oneshot;

use super::message::{Ask, Halt, Question, Recover, RouterAddr, Submit, Ticket};
use super::operation::Operation;
use super::oracle::{Means, Recovery, Rerun};
use super::supervisor::unwinding;
use crate::bounds::Limits;
use crate::key::Key;
use crate::machine::{self, Admission, Pace};
use crate::policy::Flow;
use crate::record::{Record, Status};
use crate::store::{Cursor, Store, StoreError, Totals};
use crate::time::{HighWater, UnixMillis};

/// Between two slices: whoever shares the thread gets its turn, which a message to itself would not give.
const BREATH: Duration = Duration::from_millis(1);

pub(super) struct Recoverer {
    store: Arc<dyn Store>,
    clock: Arc<HighWater>,
    limits: Limits,
    router: RouterAddr,
    recovery: Arc<Recovery>,
    pass: Option<Pass>,
    /// For the pass after this one.
    wanted: Wanted,
    asking: usize,
    rerunning: usize,
    /// A re-run was left out because as many run as may.
    left_out: bool,
    /// The timer of the next pass, and how long it was set to.
    timer: Option<(SpawnHandle, Duration)>,
    /// The engine's time at the last turn of each timer.
    dead_letters_at: Option<UnixMillis>,
    dispatched_at: Option<UnixMillis>,
}

/// What a pass looks for.
#[derive(Clone, Copy, Default)]
struct Wanted {
    /// Records in doubt that are due.
    due: bool,
    /// Records in doubt, due or not.
    undue: bool,
    dead_letters: bool,
    /// Registered records: one that nothing runs for reads as in doubt.
    registered: bool,
    /// Dispatched records without news, and those with.
    dispatched: bool,
    dispatched_undue: bool,
    /// It is the first since the engine was opened.
    is_first: bool,
}

impl Wanted {
    fn and(self, other: Self) -> Self {
        Self {
            due: self.due || other.due,
            undue: self.undue || other.undue,
            dead_letters: self.dead_letters || other.dead_letters,
            registered: self.registered || other.registered,
            dispatched: self.dispatched || other.dispatched,
            dispatched_undue: self.dispatched_undue || other.dispatched_undue,
            is_first: self.is_first || other.is_first,
        }
    }

    fn is_empty(self) -> bool {
        !(self.due || self.undue || self.dead_letters || self.registered || self.dispatched)
    }

    fn is_there(self, totals: &Totals) -> bool {
        ((self.due || self.undue || self.dead_letters) && totals.in_doubt > 0)
            || (self.registered && totals.registered > 0)
            || (self.dispatched && totals.dispatched > 0)
    }
}

/// A pass under way.
struct Pass {
    wanted: Wanted,
    after: Option<Cursor>,
    /// Found and not begun, with the revision it was found at: at most a slice.
    keys: VecDeque<(Key, u64)>,
    /// Everything has been read.
    is_read: bool,
    /// It goes on when an inquiry ends.
    waits: bool,
    /// When the first of those will be due that are not.
    soonest: Option<Duration>,
}

/// One of a bounded number of inquiries, or of re-runs, without a caller. Dropped, it lets the next one begin.
pub(super) struct Turn {
    kind: Kind,
    recoverer: Addr<Recoverer>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Inquiry,
    Rerun,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.recoverer.do_send(TurnOver(self.kind));
    }
}

struct TurnOver(Kind);

/// Everybody is there: look at what an earlier boot has left behind.
pub(super) struct Begin;

/// A record in doubt will be due after this time.
pub(super) struct Wake(pub(super) Duration);

impl Message for TurnOver {
    type Result = ();
}

impl Message for Begin {
    type Result = ();
}

impl Message for Wake {
    type Result = ();
}

impl Recoverer {
    pub(super) fn new(
        store: Arc<dyn Store>,
        clock: Arc<HighWater>,
        limits: Limits,
        router: RouterAddr,
        recovery: Arc<Recovery>,
    ) -> Self {
        Self {
            store,
            clock,
            limits,
            router,
            recovery,
            pass: None,
            wanted: Wanted::default(),
            asking: 0,
            rerunning: 0,
            left_out: false,
            timer: None,
            dead_letters_at: None,
            dispatched_at: None,
        }
    }

    fn want(&mut self, wanted: Wanted, ctx: &mut Context<Self>) {
        self.wanted = self.wanted.and(wanted);
        if self.pass.is_some() || self.wanted.is_empty() {
            return;
        }
        let wanted = std::mem::take(&mut self.wanted);
        match unwinding(|| self.store.totals()) {
            Ok(totals) if wanted.is_there(&totals) => {
                let (after, keys) = (None, VecDeque::new());
                self.pass = Some(Pass { wanted, after, keys, is_read: false, waits: false, soonest: None });
                self.go_on(ctx);
            }
            Ok(_) => {}
            Err(error) => self.fail(wanted, &error, ctx),
        }
    }

    /// The same again, a little later.
    fn fail(&mut self, wanted: Wanted, error: &StoreError, ctx: &mut Context<Self>) {
        tracing::warn!(%error, "records in doubt could not be read");
        self.wanted = self.wanted.and(wanted);
        self.arm(self.limits.recovery_pause, ctx);
    }

    /// One slice of the pass: begins what was found, reads on.
    fn go_on(&mut self, ctx: &mut Context<Self>) {
        let Some(mut pass) = self.pass.take() else { return };
        pass.waits = false;
        while let Some((key, revision)) = pass.keys.pop_front() {
            if !self.begin((&key, revision), &mut pass, ctx) {
                pass.keys.push_front((key, revision));
                pass.waits = true;
                self.pass = Some(pass);
                return;
            }
        }
        if pass.is_read {
            return self.end(&pass, ctx);
        }
        match self.read(&mut pass) {
            Ok(()) => {
                self.pass = Some(pass);
                ctx.run_later(BREATH, Self::go_on);
            }
            Err(error) => self.fail(pass.wanted, &error, ctx),
        }
    }

    fn end(&mut self, pass: &Pass, ctx: &mut Context<Self>) {
        if let Some(soonest) = pass.soonest {
            self.arm(soonest, ctx);
        }
        self.want(Wanted::default(), ctx);
    }

    fn read(&self, pass: &mut Pass) -> Result<(), StoreError> {
        let limit = self.limits.recovery_slice;
        let entries = unwinding(|| self.store.in_flight(pass.after, limit))?;
        pass.is_read = entries.len() < limit;
        pass.after = entries.last().map(|entry| entry.cursor).or(pass.after);
        // Records are given the wall clock's time, suspect or not.
        let now = self.clock.read().wall;
        for (key, record) in entries.into_iter().filter_map(|entry| entry.found) {
            let Some(registered) = self.recovery.of(&key) else { continue };
            match self.due_in(&record, registered, pass.wanted, now) {
                Some(Duration::ZERO) => pass.keys.push_back((key, record.revision)),
                Some(later) => pass.soonest = Some(pass.soonest.map_or(later, |soonest| soonest.min(later))),
                None => {}
            }
        }
        Ok(())
    }

    /// When this pass is to deal with the record: now, later, or not at all.
    fn due_in(
        &self,
        record: &Record,
        (flow, means): &(Flow, Means),
        wanted: Wanted,
        now: UnixMillis,
    ) -> Option<Duration> {
        let is_asked = matches!(means, Means::Ask(_));
        let left = |pause| {
            let due = record.updated_at.saturating_add(pause);
            // What is of a later time was written at a wrong one, which may be years away.
            let is_of_now = record.updated_at <= now;
            Duration::from_millis(if is_of_now { due.0.saturating_sub(now.0) } else { 0 })
        };
        let at_once = |is_wanted: bool| is_wanted.then_some(Duration::ZERO);
        match record.state.status() {
            Status::Registered => at_once(wanted.registered),
            Status::Dispatched => {
                let is_silent = left(self.limits.dispatched_silence).is_zero();
                at_once(is_asked && wanted.dispatched && (is_silent || wanted.dispatched_undue))
            }
            Status::InDoubt
                if machine::is_dead_letter(record, machine::recoveries_allowed(is_asked, self.limits.recoveries)) =>
            {
                at_once(is_asked && wanted.dead_letters)
            }
            Status::InDoubt if wanted.undue => Some(Duration::ZERO),
            Status::InDoubt if wanted.due => Some(left(machine::pause(record, flow.policy(), pace(&self.limits)))),
            Status::InDoubt | Status::Completed | Status::Failed | Status::Tombstone => None,
        }
    }

    /// False: there are as many inquiries under way as may be.
    fn begin(&mut self, (key, revision): (&Key, u64), pass: &mut Pass, ctx: &mut Context<Self>) -> bool {
        let recovery = Arc::clone(&self.recovery);
        let most = self.limits.background_recoveries;
        match recovery.of(key) {
            Some((_, Means::Ask(_))) if self.asking >= most => return false,
            Some((_, Means::Ask(_))) => {
                self.asking += 1;
                let turn = Turn { kind: Kind::Inquiry, recoverer: ctx.address() };
                self.router.do_send(Recover { key: key.clone(), revision, is_first: pass.wanted.is_first, turn });
            }
            Some((_, Means::Rerun(_))) if self.rerunning >= most => self.left_out = true,
            Some((flow, Means::Rerun(rerun))) => {
                if let Err(NoPermit) = self.rerun((flow, key), rerun, ctx) {
                    pass.soonest = Some(self.limits.recovery_pause);
                }
            }
            None => {}
        }
        true
    }

    /// Submits a re-run of the record as it is now. Whether there is one is decided by its key actor.
    fn rerun(&mut self, (flow, key): (&Flow, &Key), rerun: &Rerun, ctx: &mut Context<Self>) -> Result<(), NoPermit> {
        let Ok(Some(record)) = unwinding(|| self.store.get(key)) else { return Ok(()) };
        let retention = match machine::retention_of(&record) {
            // Its bound has passed: whoever asks again sets another one.
            Some(Duration::ZERO) if record.checkpoint.is_none() => return Ok(()),
            retention => retention,
        };
        let permit = self.recovery.permits.take(key).map_err(|_| NoPermit)?;
        let admission = Admission {
            fingerprint: record.fingerprint,
            request: record.request,
            retention,
            boot: self.recovery.boot,
            token: record.attempt.token,
            barred: None,
        };
        let (make, of) = (Arc::clone(rerun), key.clone());
        let operation = Operation::made(move |attempt| make(&of, attempt.request()));
        let ask = Ask::Rerun { attempt: Box::new(record.attempt), admission, operation: Some(operation) };
        let (reply, ended) = oneshot::channel();
        let mut question = Question::new((flow.clone(), key.clone()), ask, reply, u64::MAX, Arc::clone(&self.router));
        question.permit = Some(permit);
        self.rerunning += 1;
        let turn = Turn { kind: Kind::Rerun, recoverer: ctx.address() };
        actix::spawn(async move {
            // Whatever came of it is in the record.
            drop(ended.await);
            drop(turn);
        });
        self.router.do_send(Submit(Ticket::new(Box::new(question))));
        Ok(())
    }

    /// Sets the timer of the next pass, unless it goes off before.
    fn arm(&mut self, after: Duration, ctx: &mut Context<Self>) {
        let after = after.max(self.limits.recovery_pause);
        match self.timer.take() {
            Some((timer, set)) if set <= after => self.timer = Some((timer, set)),
            other => {
                other.map(|(timer, _)| ctx.cancel_future(timer));
                let timer = ctx.run_later(after, |recoverer, ctx| {
                    recoverer.timer = None;
                    recoverer.want(Wanted { due: true, ..Wanted::default() }, ctx);
                });
                self.timer = Some((timer, after));
            }
        }
    }

    fn look_for_dead_letters(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let undue = self.dead_letters_at.replace(now) == Some(now);
        self.want(Wanted { due: true, undue, dead_letters: true, registered: true, ..Wanted::default() }, ctx);
    }

    fn look_for_dispatched(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let dispatched_undue = self.dispatched_at.replace(now) == Some(now);
        self.want(Wanted { dispatched: true, dispatched_undue, ..Wanted::default() }, ctx);
    }
}

struct NoPermit;

pub(super) fn pace(limits: &Limits) -> Pace {
    Pace { first: limits.recovery_pause, most: limits.recovery_pause_max }
}

impl Actor for Recoverer {
    type Context = Context<Self>;
}

impl Handler<Begin> for Recoverer {
    type Result = ();

    fn handle(&mut self, Begin: Begin, ctx: &mut Self::Context) {
        ctx.run_interval(self.limits.recovery_pause_max, Self::look_for_dead_letters);
        ctx.run_interval(self.limits.dispatched_silence, Self::look_for_dispatched);
        let in_doubt = Wanted { due: true, undue: true, dead_letters: true, ..Wanted::default() };
        // Whether what an earlier boot has dispatched is still known downstream shows only now.
        self.want(Wanted { dispatched: true, dispatched_undue: true, is_first: true, ..in_doubt }, ctx);
    }
}

impl Handler<Wake> for Recoverer {
    type Result = ();

    fn handle(&mut self, Wake(after): Wake, ctx: &mut Self::Context) {
        self.arm(after, ctx);
    }
}

impl Handler<TurnOver> for Recoverer {
    type Result = ();

    fn handle(&mut self, TurnOver(kind): TurnOver, ctx: &mut Self::Context) {
        match kind {
            Kind::Inquiry => {
                self.asking = self.asking.saturating_sub(1);
                if self.pass.as_ref().is_some_and(|pass| pass.waits) {
                    self.go_on(ctx);
                }
            }
            Kind::Rerun => {
                self.rerunning = self.rerunning.saturating_sub(1);
                if std::mem::take(&mut self.left_out) {
                    self.want(Wanted { due: true, ..Wanted::default() }, ctx);
                }
            }
        }
    }
}

impl Handler<Halt> for Recoverer {
    type Result = ();

    fn handle(&mut self, Halt: Halt, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
