//! The world around the engine: clients, the store, the process, the clock; everything they do is drawn from the seed.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ibid::store::{MemoryStore, Store};
use ibid::testing::{Fault, FaultyStore, Outage, Random, Simulation};
use ibid::{
    AttemptId, Bytes, Call, Clock, Ended, Engine, Error, ErrorKind, Outcome, Reason, Record, Reply, State, Submission,
};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use super::history::{Answer, Ask, Held, History, Said, Submit, Way, What};
use super::noting::{CommitAlarm, Durable, Told};
use super::oracle::{Recovering, Truth};
use super::plan::{Place, Plan, millis, of};
use super::script::{Claim, Of, Script, pass};

/// How far the wall clock is set ahead in an episode, at most, all in all: further, and the engine would doubt it.
const AHEAD: i64 = 50 * 60 * 1_000;

pub(crate) struct World<'a> {
    simulation: &'a Simulation,
    plan: Arc<Plan>,
    history: History,
    random: Random,
    disk: Arc<MemoryStore>,
    boots: usize,
    boot: Boot,
    /// What hangs goes on when it is closed.
    release: Arc<Semaphore>,
    truth: Truth,
    callers: Vec<(usize, JoinHandle<()>)>,
}

/// One opening of the engine.
#[derive(Clone)]
struct Boot {
    number: usize,
    engine: Engine,
    faults: Arc<FaultyStore>,
    alarm: Arc<CommitAlarm>,
}

/// When a caller drops its future.
#[derive(Clone, Copy)]
enum Leaves {
    Never,
    AfterPolls(u64),
    After(Duration),
}

impl<'a> World<'a> {
    pub(crate) fn new(simulation: &'a Simulation, plan: Arc<Plan>, history: History, mut random: Random) -> Self {
        history.begin(simulation.clock());
        let disk = Arc::new(MemoryStore::new());
        let release = Arc::new(Semaphore::new(0));
        let truth = Truth::new(history.clone(), Random::new(random.number()));
        let recovering = Recovering::new(&truth, &plan, &release, 0);
        let boot = Boot::open(simulation, &recovering, &disk);
        Self { simulation, plan, history, random, disk, boots: 1, boot, release, truth, callers: Vec::new() }
    }

    /// The whole episode.
    pub(crate) async fn play(mut self) {
        for _ in 0..self.plan.steps {
            self.let_time_pass().await;
            if self.random.once_in(self.plan.trouble_every) {
                self.trouble().await;
            } else {
                self.act();
            }
        }
        self.rest().await;
        self.restart().await;
        // What was found out must still be so.
        for key in 0..self.plan.keys.len() {
            for way in [Way::Submit, Way::TrySubmit] {
                let request = (*b"this").into();
                let submit = Submit { way, request, retention: self.retention(), barred: None, deadline: None };
                self.ask(key, Ask::Submit(submit), Script::short(), Leaves::Never);
                pass(Duration::from_millis(self.random.below(3))).await;
            }
            self.ask(key, Ask::Lookup, Script::short(), Leaves::Never);
            self.ask(key, Ask::List, Script::short(), Leaves::Never);
        }
        self.rest().await;
        self.shut_down().await;
    }

    /// Time passes, or only turns do.
    async fn let_time_pass(&mut self) {
        match self.random.below(20) {
            0..=5 => {}
            6..=11 => pass(Duration::from_millis(1 + self.random.below(20))).await,
            12..=15 => pass(Duration::from_millis(self.random.below(2_000))).await,
            16 => pass(Duration::from_secs(self.random.below(60))).await,
            _ => {
                if let Some(wait) = self.until_an_edge() {
                    pass(wait).await;
                }
            }
        }
        for _ in 0..self.random.below(12) {
            tokio::task::yield_now().await;
        }
    }

    /// How long until a record expires, lapses or loses its tombstone: to the millisecond, or one more or less.
    fn until_an_edge(&mut self) -> Option<Duration> {
        let key = self.a_key();
        let record = self.disk.get(&self.plan.keys[key].key).ok()??;
        let edge = of(&mut self.random, &[record.expires_at, record.lapses_at, record.tombstone_until])?;
        let now = self.simulation.clock().now().0;
        let wait = (edge.0 + self.random.below(3)).checked_sub(now + 1)?;
        (wait < 1_200_000).then(|| Duration::from_millis(wait))
    }

    fn a_key(&mut self) -> usize {
        usize::try_from(self.random.below(self.plan.keys.len() as u64)).unwrap_or_default()
    }

    fn retention(&mut self) -> Option<Duration> {
        match self.random.below(16) {
            0 | 1 => None,
            2 => Some(Duration::MAX),
            _ => Some(millis(&mut self.random, &[0, 1, 250, 3_000, 3_000, 20_000, 900_000])),
        }
    }

    fn leaves(&mut self) -> Leaves {
        match self.random.below(10) {
            0 => Leaves::AfterPolls(self.random.below(4)),
            1 => Leaves::After(Duration::from_millis(self.random.below(400))),
            _ => Leaves::Never,
        }
    }

    /// A client does something.
    fn act(&mut self) {
        let key = self.a_key();
        let ask = match self.random.below(60) {
            0..=17 => Ask::Submit(self.submission()),
            18..=22 => {
                for _ in 0..1 + self.random.below(4) {
                    let (ask, leaves) = (Ask::Submit(self.submission()), self.leaves());
                    self.ask_of(key, ask, leaves);
                }
                Ask::Submit(self.submission())
            }
            23..=25 => Ask::Track(None),
            26 => Ask::Track(Some(of(&mut self.random, &[b"this", b"that"]).as_slice().into())),
            27 | 28 => Ask::Lookup,
            29..=31 => Ask::Forget,
            32..=34 => self.resolution(key),
            35 => Ask::Fence,
            36 => Ask::List,
            37 => Ask::ExpirySweep,
            38 => return self.history.note(What::Now { boot: self.boot.number, now: self.boot.engine.now() }),
            39 => self.resolution(key),
            40..=43 => Ask::Abandon,
            44..=47 => return self.ask_where(Ask::Acknowledge, |record| matches!(record.state, State::Completed(_))),
            48 | 49 => return self.ask_where(Ask::Disturb, |record| record.lapses_at_tick.is_some()),
            50..=57 => return self.tick(),
            _ => self.rows(),
        };
        let leaves = self.leaves();
        self.ask_of(key, ask, leaves);
    }

    fn submission(&mut self) -> Submit {
        let random = &mut self.random;
        let request: Bytes = match random.below(12) {
            0 | 1 => (*b"that").into(),
            2 => (*b"one of too many bytes").into(),
            _ => (*b"this").into(),
        };
        let way = of(random, &[Way::Submit, Way::Submit, Way::TrySubmit, Way::Message]);
        let barred = random.once_in(10).then(|| (*b"barred").into());
        let deadline = random.once_in(5).then(|| millis(random, &[0, 1, 40, 700, 5_000]));
        let retention = self.retention();
        Submit { way, request, retention, barred, deadline }
    }

    /// Asks about a key whose record is like that, mostly.
    fn ask_where(&mut self, ask: Ask, is_like_that: impl Fn(&Record) -> bool) {
        let key = self.a_key();
        let fits = |place: &Place| self.disk.get(&place.key).ok().flatten().is_some_and(|record| is_like_that(&record));
        let fitting = self.plan.keys.iter().position(fits).filter(|_| !self.random.once_in(4));
        let leaves = self.leaves();
        self.ask_of(fitting.unwrap_or(key), ask, leaves);
    }

    /// Some ticks: to where the next record is released, or one more or less.
    fn tick(&mut self) {
        let reached = self.disk.tick_mark().unwrap_or_default();
        let stored = self.plan.keys.iter().filter_map(|place| self.disk.get(&place.key).ok()?);
        let next = stored.filter_map(|record| record.lapses_at_tick?.checked_sub(reached)).min();
        let ticks = match next {
            Some(left) if left < 16 => (left + self.random.below(3)).saturating_sub(1),
            _ => 1 + self.random.below(3),
        };
        for _ in 0..ticks.max(1) {
            // Some at once, some apart.
            let leaves = if self.random.once_in(10) { Leaves::AfterPolls(1) } else { Leaves::Never };
            self.ask(0, Ask::Tick, Script::short(), leaves);
        }
    }

    /// A row of the host's own, of a value that nobody else writes; or that one goes.
    fn rows(&mut self) -> Ask {
        let value = format!("row {}", self.history.number()).into_bytes();
        let claim = Claim::draw(&mut self.random);
        if self.random.once_in(4) {
            return Ask::Rows(claim.removal());
        }
        Ask::Rows(claim.of_nobody(value.into(), self.boot.engine.now()))
    }

    /// An end from outside: often the right attempt, sometimes an older or a later one, also of an earlier record.
    fn resolution(&mut self, key: usize) -> Ask {
        let stored = self.disk.get(&self.plan.keys[key].key).ok().flatten();
        let started = self.history.attempts(key);
        let random = &mut self.random;
        let earlier = random.pick(&started).copied();
        let current = stored.map(|record| record.attempt).or(earlier);
        let numbered = |number: u32| current.map(|attempt| AttemptId { number, ..attempt });
        let number = current.map_or(1, |attempt| attempt.number);
        let others = [numbered(number.saturating_sub(1)), numbered(number + 1)];
        let attempt = of(random, &[None, current, current, current, others[0], others[1], earlier]);
        let told: Bytes = format!("told {}", random.below(2)).into_bytes().into();
        let told: Bytes = if random.once_in(10) { [b'!'; 100].into() } else { told };
        let end = if random.once_in(2) { Ended::Completed(told) } else { Ended::Failed(told) };
        Ask::Resolve { attempt, end }
    }

    fn ask_of(&mut self, key: usize, ask: Ask, leaves: Leaves) {
        let script = Script::draw(&mut self.random);
        self.ask(key, ask, script, leaves);
    }

    fn ask(&mut self, key: usize, ask: Ask, script: Script, leaves: Leaves) {
        let (id, boot, history) = (self.history.number(), self.boot.clone(), self.history.clone());
        let (plan, release) = (Arc::clone(&self.plan), Arc::clone(&self.release));
        let caller = tokio::spawn(async move {
            history.note(What::Asked { id, boot: boot.number, key, ask: ask.clone() });
            let operation = script.operation(history.clone(), Of { boot: boot.number, key, call: Some(id) }, release);
            let asking = perform(&boot.engine, &plan, key, ask, operation);
            match unless_left(leaves, asking).await {
                Some((answer, recorded)) => history.note(What::Answered { id, answer, recorded }),
                None => history.note(What::Left { id }),
            }
        });
        self.callers.push((id, caller));
    }

    /// Something goes wrong.
    async fn trouble(&mut self) {
        match self.random.below(18) {
            0..=3 => {
                let count = of(&mut self.random, &[1, 1, 2, 7]);
                let fault = of(&mut self.random, &[Fault::BeforeEffect, Fault::AfterEffect, Fault::Panic]);
                self.boot.faults.fail_commits(count, fault);
            }
            4 => self.boot.faults.fail_reads(1 + self.random.below(3)),
            5 => self.boot.faults.break_down(Outage::Everything),
            6 => self.boot.faults.break_down(Outage::Commits),
            7 | 8 => self.boot.faults.heal(),
            9..=11 => self.crash().await,
            12 | 13 => self.crash_at_a_commit().await,
            14 => {
                self.shut_down().await;
                self.reopen();
            }
            _ => self.move_the_clock(),
        }
    }

    fn move_the_clock(&mut self) {
        let millis = of(&mut self.random, &[1, 300, 4_000, 60_000, 600_000]);
        let millis = if self.random.once_in(2) { -millis } else { millis };
        // Now and then exactly to where a record ends.
        let edge = self.until_an_edge().filter(|_| millis > 0).and_then(|wait| i64::try_from(wait.as_millis()).ok());
        let millis = edge.unwrap_or(millis);
        if self.history.ahead() + millis < AHEAD {
            self.history.set_clock(millis);
        }
    }

    /// The process dies right after one of the next commits, or when a while has passed without one.
    async fn crash_at_a_commit(&mut self) {
        let alarm = Arc::clone(&self.boot.alarm);
        alarm.set(1 + self.random.below(4));
        for _ in 0..self.random.below(3) {
            self.act();
        }
        tokio::time::timeout(Duration::from_millis(500), alarm.rings()).await.ok();
        for _ in 0..self.random.below(4) {
            tokio::task::yield_now().await;
        }
        self.crash().await;
    }

    async fn crash(&mut self) {
        // From here on nothing reaches the disk: what still happens in memory happens to nobody.
        self.boot.faults.break_down(Outage::Everything);
        self.history.note(What::Crashed(self.boot.number));
        self.simulation.crash(&self.boot.engine).await;
        self.reopen();
    }

    async fn shut_down(&mut self) {
        let (engine, history, number) = (self.boot.engine.clone(), self.history.clone(), self.boot.number);
        let closing = tokio::spawn(async move {
            history.note(What::Closing(number));
            engine.shutdown().await;
            history.note(What::Closed(number));
        });
        for _ in 0..self.random.below(4) {
            pass(Duration::from_millis(self.random.below(30))).await;
            self.act();
        }
        closing.await.expect("the shutdown ends");
    }

    fn reopen(&mut self) {
        let recovering = Recovering::new(&self.truth, &self.plan, &self.release, self.boots);
        self.boot = Boot::open(self.simulation, &recovering, &self.disk);
        self.boots += 1;
    }

    async fn restart(&mut self) {
        if self.random.once_in(2) {
            return self.crash().await;
        }
        self.shut_down().await;
        self.reopen();
    }

    /// The store is well, nothing hangs any more, time passes; then everybody leaves who still waits.
    async fn rest(&mut self) {
        self.boot.faults.heal();
        self.release.close();
        self.truth.calm_down();
        pass(Duration::from_secs(130)).await;
        let number = self.boot.number;
        self.history.note(What::Rested { boot: number });
        for (id, caller) in self.callers.drain(..) {
            if !caller.is_finished() {
                caller.abort();
                self.history.note(What::Left { id });
            }
        }
        self.simulation.settle().await;
        if let Ok(stats) = self.boot.engine.stats().await {
            let held = Held {
                live_actors: stats.live_actors,
                running: stats.running,
                in_flight: stats.in_flight,
                died_actors: stats.died_actors,
            };
            self.history.note(What::Empty { boot: number, held });
        }
    }
}

impl Boot {
    fn open(simulation: &Simulation, recovering: &Recovering, disk: &Arc<MemoryStore>) -> Self {
        let Recovering { plan, history, boot: number, .. } = recovering.clone();
        history.note(What::Opening(number));
        let disk: Arc<dyn Store> = disk.clone();
        let durable = Durable { disk, history: history.clone(), plan: Arc::clone(&plan), boot: number };
        let faults = Arc::new(FaultyStore::new(Arc::new(durable)).keeping_inner());
        let alarm = Arc::new(CommitAlarm::default());
        let told = Told { store: faults.clone(), history: history.clone(), boot: number, alarm: Arc::clone(&alarm) };
        let builder = recovering.register(Engine::builder().limits(plan.limits.clone()));
        let engine = simulation.open(builder, Arc::new(told)).expect("a sound store opens");
        history.note(What::Opened(number));
        Self { number, engine, faults, alarm }
    }
}

/// Waits for it for as long as it is worth it.
async fn unless_left<T>(leaves: Leaves, asking: impl Future<Output = T>) -> Option<T> {
    let mut asking = pin!(asking);
    match leaves {
        Leaves::Never => Some(asking.await),
        Leaves::After(time) => tokio::time::timeout(time, asking).await.ok(),
        Leaves::AfterPolls(mut polls) => {
            poll_fn(|cx| {
                if polls == 0 {
                    return Poll::Ready(None);
                }
                polls -= 1;
                asking.as_mut().poll(cx).map(Some)
            })
            .await
        }
    }
}

async fn perform(
    engine: &Engine,
    plan: &Plan,
    key: usize,
    ask: Ask,
    operation: ibid::Operation,
) -> (Answer, Option<Ended>) {
    let place = &plan.keys[key];
    let Place { flow, key, .. } = place;
    match ask {
        Ask::Submit(submit) => said(self::submit(engine, place, submit, operation).await, |reply| match reply {
            Reply::Answer(outcome) => answer(outcome),
            Reply::Accepted => Said::Accepted,
        }),
        Ask::Track(None) => said(engine.track(flow, key).await, answer),
        Ask::Track(Some(request)) => said(engine.track_request(flow, key, &request).await, answer),
        Ask::Lookup => said(engine.lookup(key), |record| Said::Record(record.map(Box::new))),
        Ask::Forget => {
            let forgotten = engine.forget(flow, std::slice::from_ref(key)).await;
            said(forgotten, |forgotten| Said::Forgotten(forgotten[0].1))
        }
        Ask::Resolve { attempt, end } => said(engine.resolve(flow, key, attempt, end).await, Said::Resolved),
        Ask::Fence => said(engine.fence(flow, key).await, Said::Fenced),
        Ask::List => said(engine.list(None, 100), |entries| {
            let found = entries.into_iter().filter_map(|entry| {
                let (key, record) = entry.found?;
                Some((plan.place(&key), record, entry.is_dead_letter))
            });
            Said::Listed(found.collect())
        }),
        Ask::ExpirySweep => said(engine.expiry_sweep().await, Said::Swept),
        Ask::Abandon => said(engine.abandon(flow, key).await, Said::Abandoned),
        Ask::Acknowledge => said(engine.acknowledge(flow, key).await, Said::Acknowledged),
        Ask::Disturb => said(engine.disturb(flow, key).await, Said::Acknowledged),
        Ask::Tick => said(engine.tick().await, |()| Said::Ticked),
        Ask::Rows(row) => said(engine.write_rows(vec![row]).await, Said::Rows),
    }
}

fn answer(Outcome { how, answer }: Outcome) -> Said {
    Said::Answer(how, answer)
}

fn said<T>(result: Result<T, Error>, say: impl FnOnce(T) -> Said) -> (Answer, Option<Ended>) {
    match result {
        Ok(told) => (Ok(say(told)), None),
        Err(error) => (Err(error.kind().clone()), error.recorded().cloned()),
    }
}

async fn submit(engine: &Engine, place: &Place, submit: Submit, operation: ibid::Operation) -> Result<Reply, Error> {
    let call = Call::new(&place.flow, &place.key, submit.request);
    let call = submit.retention.into_iter().fold(call, Call::retention);
    let call = submit.deadline.into_iter().fold(call, Call::deadline);
    let call = submit.barred.into_iter().map(Reason::from_bytes).fold(call, Call::barred);
    match submit.way {
        Way::Submit => engine.submit(call, operation).await,
        Way::TrySubmit => {
            let (done, answer) = oneshot::channel();
            engine.try_submit(call, operation, |reply| drop(done.send(reply)))?;
            // A callback that never runs and is dropped is told apart by this.
            answer.await.unwrap_or_else(|_| Err(ErrorKind::Internal.into()))
        }
        Way::Message => {
            let sent = engine.recipient().send(Submission { call, operation }).await;
            sent.unwrap_or_else(|_| Err(ErrorKind::Closed.into()))
        }
    }
}
