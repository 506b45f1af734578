//! What is done to an engine in one life, and what that life has shown.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ibid::store::{RedbOptions, Store, StoreError};
use ibid::testing::{SimulatedDisk, Simulation, simulate};
use ibid::{
    Abandoned, Acknowledged, AfterCheckpoint, AfterCompleted, AfterExpiry, AttemptId, BootId, Bytes, Call, Completion,
    End, Ended, Engine, Error, ErrorKind, Flow, Guard, InDoubt, Key, OnFailure, Operation, Origin, Policy, Reason,
    Record, Reply, Resolved, Retention, Row, State, Status, Token, WhileRunning,
};

use super::content::{Commit, Commits, Noting, TABLE};

/// How long a record answers, where the policy or the request sets a time.
const RETENTION: Duration = Duration::from_secs(600);

/// The quiet ticks that an acknowledged payment outlives.
pub(crate) const QUIET_TICKS: u64 = 7;

/// One thing that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// A request whose operation ends like this.
    Submit(Ends),
    /// Two requests at once, under two keys, for one transaction.
    Both,
    /// Another request under the first key.
    Other,
    Resolve,
    ResolveFailed,
    Forget,
    /// Of the second key.
    Fence,
    /// Time passes until everything has lapsed, and it is removed.
    Expire,
    /// The same, and nothing is removed.
    Lapse,
    Restart,
    Crash,
    /// An end of an attempt that is not the record's: of an earlier record, if there was one.
    ResolveEarlier,
    Abandon,
    Acknowledge,
    Disturb,
    Tick,
    /// As many as release what was acknowledged before them.
    Ticks,
    /// A row that belongs to no record.
    Rows,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    Done,
    /// After a checkpoint, with a ledger row.
    DoneWithRow,
    Accepted,
    Definitive,
    DefinitiveAfterCheckpoint,
    Unknown,
    Panic,
    AlreadyLive,
    Taken,
}

pub(crate) const OPS: [Op; 17] = [
    Op::Submit(Ends::Done),
    Op::Submit(Ends::DoneWithRow),
    Op::Submit(Ends::Accepted),
    Op::Submit(Ends::Definitive),
    Op::Submit(Ends::DefinitiveAfterCheckpoint),
    Op::Submit(Ends::Unknown),
    Op::Submit(Ends::Panic),
    Op::Both,
    Op::Other,
    Op::Resolve,
    Op::ResolveFailed,
    Op::Forget,
    Op::Fence,
    Op::Expire,
    Op::Lapse,
    Op::Restart,
    Op::Crash,
];

/// What can happen to a payment or an onion.
pub(crate) const PAYMENT_OPS: [Op; 20] = [
    Op::Submit(Ends::Done),
    Op::Submit(Ends::Accepted),
    Op::Submit(Ends::AlreadyLive),
    Op::Submit(Ends::Taken),
    Op::Submit(Ends::Definitive),
    Op::Submit(Ends::Unknown),
    Op::Other,
    Op::Resolve,
    Op::ResolveFailed,
    Op::ResolveEarlier,
    Op::Forget,
    Op::Fence,
    Op::Restart,
    Op::Crash,
    Op::Abandon,
    Op::Acknowledge,
    Op::Disturb,
    Op::Tick,
    Op::Ticks,
    Op::Rows,
];

/// What has happened to it before.
pub(crate) const PASTS: [&[Op]; 7] = [
    &[],
    &[Op::Submit(Ends::Accepted)],
    &[Op::Submit(Ends::Accepted), Op::Abandon],
    &[Op::Submit(Ends::Definitive)],
    &[Op::Submit(Ends::Unknown)],
    &[Op::Submit(Ends::Done), Op::Acknowledge, Op::Tick],
    &[Op::Submit(Ends::Done), Op::Acknowledge, Op::Ticks, Op::Submit(Ends::Accepted)],
];

/// The two flows whose requests are given up, acknowledged and released.
pub(crate) fn payments() -> Vec<Policy> {
    vec![Policy::send_payment(), Policy::send_onion()]
}

pub(crate) fn is_payment(policy: &Policy) -> bool {
    payments().contains(policy)
}

/// The flows of the systems as far as time ends their records, one that leaves tombstones, and a replay-safe one.
pub(crate) fn policies() -> Vec<Policy> {
    let lightning = Policy::replay(RETENTION)
        .while_running(WhileRunning::Refuse)
        .after_completed(AfterCompleted::Refuse)
        .on_failure(OnFailure::Keep)
        .in_doubt(InDoubt::Ask)
        .retention(Retention::FromRequest);
    vec![
        Policy::request_invoice().after_checkpoint(AfterCheckpoint::Doubt),
        lightning,
        Policy::replay(RETENTION),
        Policy::replay(RETENTION)
            .in_doubt(InDoubt::Rerun)
            .on_failure(OnFailure::Keep)
            .after_expiry(AfterExpiry::Refuse)
            .grace(RETENTION)
            .tombstone(RETENTION),
        Policy::replay(RETENTION).in_doubt(InDoubt::Rerun).replay_safe(),
    ]
}

pub(crate) fn is_replay_safe(policy: &Policy) -> bool {
    *policy == policy.clone().replay_safe()
}

/// Something seen from outside.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    /// The operation was started.
    Started {
        number: u32,
        token: Token,
        checkpoint: Option<Bytes>,
    },
    Answered(Bytes),
    Refused(Error),
    /// Something that must never be seen.
    Wrong(String),
}

/// What one life was, and the disk it leaves.
pub(crate) struct Life {
    pub(crate) disk: SimulatedDisk,
    pub(crate) commits: Vec<Commit>,
    /// How many commits there were when the last thing that was done began.
    pub(crate) before_last: usize,
}

/// A life under way.
pub(crate) struct World<'a> {
    simulation: &'a Simulation,
    disk: SimulatedDisk,
    pub(crate) flow: Flow,
    pub(crate) keys: Vec<Key>,
    commits: Commits,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Every attempt that was started.
    attempts: Arc<Mutex<Vec<AttemptId>>>,
    /// How many ticks there have been.
    ticks: u64,
    /// How long a record may answer, at most.
    retention: Option<Duration>,
    pub(crate) engine: Engine,
}

pub(crate) fn flow_of(policy: &Policy) -> Flow {
    Flow::new("flow", policy.clone()).unwrap()
}

pub(crate) fn keys_of(flow: &Flow) -> Vec<Key> {
    ["a", "b"].iter().map(|id| flow.key("scope", id).unwrap()).collect()
}

/// Lives one life from an empty store.
pub(crate) fn live(policy: &Policy, ops: &[Op], seed: u64) -> Life {
    let (policy, ops) = (policy.clone(), ops.to_vec());
    simulate(seed, async move |simulation| {
        let disk = SimulatedDisk::new().unwrap();
        let mut world = World::open(simulation, &disk, &policy).unwrap();
        let mut before_last = 0;
        for op in ops {
            before_last = world.commits.all().len();
            world.act(op).await;
        }
        simulation.crash(&world.engine).await;
        for seen in world.take_seen() {
            if let Seen::Wrong(what) = seen {
                panic!("{what}");
            }
        }
        Life { disk, commits: world.commits.all(), before_last }
    })
    .unwrap()
}

impl<'a> World<'a> {
    pub(crate) fn open(simulation: &'a Simulation, disk: &SimulatedDisk, policy: &Policy) -> Result<Self, StoreError> {
        let flow = flow_of(policy);
        let (keys, commits) = (keys_of(&flow), Commits::default());
        let engine = open(simulation, disk, &keys, &commits)?;
        let (ticks, retention) = (commits.last().content.tick_mark, (!is_payment(policy)).then_some(RETENTION));
        let (disk, seen, attempts) = (disk.clone(), Arc::default(), Arc::default());
        Ok(Self { simulation, disk, flow, keys, commits, seen, attempts, ticks, retention, engine })
    }

    pub(crate) fn ticks(&self) -> u64 {
        self.ticks
    }

    pub(crate) fn commits(&self) -> Vec<Commit> {
        self.commits.all()
    }

    /// What was seen since it was last asked.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *lock(&self.seen))
    }

    async fn act(&mut self, op: Op) {
        match op {
            Op::Submit(ends) => self.submit(0, "request", ends).await,
            Op::Both => {
                let both = [0, 1].map(|key| self.submit(key, "request", Ends::Done));
                let [a, b] = both;
                tokio::join!(biased; a, b);
            }
            Op::Other => self.submit(0, "other", Ends::Done).await,
            Op::Resolve => self.resolve(Ended::Completed((*b"resolved").into())).await,
            Op::ResolveFailed => self.resolve(Ended::Failed((*b"it failed").into())).await,
            Op::ResolveEarlier => self.resolve_earlier(0).await,
            Op::Abandon => drop(self.abandon(0).await),
            Op::Acknowledge => drop(self.acknowledge(0).await),
            Op::Disturb => self.disturb(0).await,
            Op::Tick => self.tick(1).await,
            Op::Ticks => self.tick(1 + QUIET_TICKS).await,
            Op::Rows => self.write_row().await,
            Op::Forget => drop(self.engine.forget(&self.flow, &self.keys[..1]).await.unwrap()),
            Op::Fence => drop(self.engine.fence(&self.flow, &self.keys[1]).await.unwrap()),
            Op::Expire => {
                self.simulation.pass(RETENTION * 4).await;
                self.engine.expiry_sweep().await.unwrap();
            }
            Op::Lapse => self.simulation.clock().set_ahead(RETENTION * 4),
            Op::Restart => {
                self.engine.shutdown().await;
                self.engine = open(self.simulation, &self.disk, &self.keys, &self.commits).unwrap();
            }
            Op::Crash => {
                self.simulation.crash(&self.engine).await;
                self.engine = open(self.simulation, &self.disk, &self.keys, &self.commits).unwrap();
            }
        }
    }

    /// Says so if what was told is not durable.
    fn expect(&self, holds: bool, what: &str) {
        if !holds {
            self.wrong(format!("{what}, and that is not durable: {:?}", self.commits.last().content));
        }
    }

    pub(crate) async fn resolve_earlier(&self, key: usize) {
        let recorded = self.record(key).map(|record| record.attempt);
        let nobodys = AttemptId { number: 1, boot: BootId([0; 16]), token: Token([0; 32]) };
        let earlier =
            lock(&self.attempts).iter().find(|attempt| recorded.is_some_and(|now| now.token != attempt.token)).copied();
        let before = self.commits.last().content;
        let (attempt, end) = (earlier.unwrap_or(nobodys), Ended::Failed((*b"too late").into()));
        let told = self.engine.resolve(&self.flow, &self.keys[key], Some(attempt), end).await.unwrap();
        let is_none = matches!(self.record(key), None | Some(Record { state: State::Tombstone(_), .. }));
        let expected = if is_none { Resolved::NotFound } else { Resolved::FencedOff };
        let is_unchanged = self.commits.last().content.records == before.records;
        self.expect(told == expected && is_unchanged, "an end of another attempt was fenced off");
    }

    pub(crate) async fn abandon(&self, key: usize) -> Abandoned {
        let had_failed = matches!(self.record(key), Some(Record { state: State::Failed(..), .. }));
        let told = self.engine.abandon(&self.flow, &self.keys[key]).await.unwrap();
        let stored = self.record(key);
        let is_so = match (told, &stored) {
            (Abandoned::Marked(status), Some(record)) => record.abandoned && record.state.status() == status,
            (Abandoned::Released, None) => had_failed,
            (Abandoned::NoEffect, None) => true,
            (Abandoned::NoEffect, Some(record)) => matches!(record.state, State::Completed(_) | State::Tombstone(_)),
            (Abandoned::Marked(_), None) | (Abandoned::Released, Some(_)) => false,
        };
        self.expect(is_so, "given up");
        told
    }

    pub(crate) async fn acknowledge(&self, key: usize) -> Acknowledged {
        let begun = self.record(key).and_then(|record| record.lapses_at_tick);
        let told = self.engine.acknowledge(&self.flow, &self.keys[key]).await.unwrap();
        self.expect_counting(key, told, begun.unwrap_or(self.ticks + QUIET_TICKS + 1));
        told
    }

    async fn disturb(&self, key: usize) {
        let told = self.engine.disturb(&self.flow, &self.keys[key]).await.unwrap();
        self.expect_counting(key, told, self.ticks + QUIET_TICKS + 1);
    }

    fn expect_counting(&self, key: usize, told: Acknowledged, last: u64) {
        let counts = self.record(key).and_then(|record| record.lapses_at_tick);
        let is_so = told != Acknowledged::Counting || counts == Some(last);
        self.expect(is_so, "its quiet ticks are counted");
    }

    pub(crate) async fn tick(&mut self, times: u64) {
        for _ in 0..times {
            self.ticks += 1;
            self.engine.tick().await.unwrap();
            self.expect(self.commits.last().content.tick_mark == self.ticks, "a tick");
        }
    }

    async fn write_row(&self) {
        let row = Row::new(TABLE, *b"alone", *b"worth").unwrap().guard(Guard::Absent);
        let has_row = || self.commits.last().content.has_row(b"alone", b"worth");
        let was_there = has_row();
        let is_written = self.engine.write_rows(vec![row]).await.unwrap();
        let is_there = has_row();
        self.expect(is_there && is_written != was_there, "a row");
    }

    async fn resolve(&self, end: Ended) {
        self.engine.resolve(&self.flow, &self.keys[0], None, end).await.unwrap();
    }

    /// Submits, and holds what comes of it against what is durable by then.
    pub(crate) async fn submit(&self, key: usize, request: &str, ends: Ends) {
        let call = Call::new(&self.flow, &self.keys[key], request.as_bytes()).deadline(Duration::from_secs(5));
        let call = self.retention.into_iter().fold(call, Call::retention);
        match self.engine.submit(call, self.operation(key, ends)).await {
            Ok(Reply::Answer(outcome)) => {
                let stored = self.record(key);
                let is_kept = matches!(&stored, Some(Record { state: State::Completed(Some(answer)), .. })
                    if *answer == outcome.answer);
                if !is_kept {
                    self.wrong(format!("an answer has left that is not durable: {stored:?}"));
                }
                lock(&self.seen).push(Seen::Answered(outcome.answer));
            }
            Ok(Reply::Accepted) => {
                let stored = self.record(key).map(|record| record.state.status());
                if stored != Some(Status::Dispatched) {
                    self.wrong(format!("accepted, and that is not durable: {stored:?}"));
                }
            }
            Err(error) => {
                self.expect_refusal(key, error.kind());
                lock(&self.seen).push(Seen::Refused(error));
            }
        }
    }

    /// What a refusal says of the record is durable.
    fn expect_refusal(&self, key: usize, kind: &ErrorKind) {
        let stored = self.record(key);
        let is_so = match kind {
            ErrorKind::Duplicate(status) => stored.is_some_and(|record| record.state.status() == *status),
            ErrorKind::Failed(reason) => match stored.map(|record| record.state) {
                Some(State::Failed(Origin::RolledBack, kept)) => kept == *reason.bytes(),
                // A flow that keeps none; or it was given up.
                None => true,
                // What is not believed after a checkpoint.
                Some(state) => state == State::InDoubt,
            },
            _ => true,
        };
        self.expect(is_so, "refused");
    }

    fn operation(&self, key: usize, ends: Ends) -> Operation {
        let (seen, commits, attempts) = (Arc::clone(&self.seen), self.commits.clone(), Arc::clone(&self.attempts));
        let is_safe = is_replay_safe(self.flow.policy());
        Operation::new(async move |attempt| {
            let durable = commits.last().content.records[key].clone();
            let was_there = durable.is_some();
            let is_registered = durable.is_some_and(|record| {
                (record.attempt.number, record.attempt.token) == (attempt.number(), *attempt.token())
                    && record.state == State::Registered
            });
            // It starts from nothing as the first attempt, or it goes on from what is durable.
            let is_held = is_safe && !was_there && attempt.number() == 1 && attempt.last_checkpoint().is_none();
            if !is_registered && !is_held {
                // An assertion would be one more operation that panics.
                lock(&seen).push(Seen::Wrong("an operation has started that is not durably registered".to_owned()));
            }
            lock(&attempts).push(attempt.id());
            let (number, token, checkpoint) = (attempt.number(), *attempt.token(), attempt.last_checkpoint().cloned());
            lock(&seen).push(Seen::Started { number, token, checkpoint });
            let answer = token.0[..8].to_vec();
            match ends {
                Ends::Done => End::done(answer),
                Ends::DoneWithRow => {
                    attempt.checkpoint(answer.clone(), None).await.unwrap();
                    let row = Row::new(TABLE, key.to_be_bytes(), answer.clone()).unwrap();
                    End::Done(Completion::new(answer).row(row))
                }
                Ends::Accepted => End::Accepted,
                Ends::AlreadyLive => End::AlreadyLive,
                Ends::Taken => End::Taken,
                Ends::Definitive => End::Definitive(Reason::from_bytes(*b"no")),
                Ends::DefinitiveAfterCheckpoint => {
                    attempt.checkpoint(answer, None).await.unwrap();
                    End::Definitive(Reason::from_bytes(*b"no"))
                }
                Ends::Unknown => End::Unknown(Reason::from_bytes(*b"who knows")),
                Ends::Panic => std::panic::resume_unwind(Box::new("the operation panics")),
            }
        })
    }

    fn wrong(&self, what: String) {
        lock(&self.seen).push(Seen::Wrong(what));
    }

    pub(crate) fn record(&self, key: usize) -> Option<Record> {
        self.commits.last().content.records[key].clone()
    }
}

fn open(simulation: &Simulation, disk: &SimulatedDisk, keys: &[Key], commits: &Commits) -> Result<Engine, StoreError> {
    let store: Arc<dyn Store> = Arc::new(Noting::new(disk.open(options())?, disk, keys, commits));
    simulation.open(Engine::builder(), store)
}

/// A cache as small as the store.
pub(crate) fn options() -> RedbOptions {
    RedbOptions::default().cache_bytes(1 << 20)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
