//! What is done to an engine in one life, and what that life has shown.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ibid::store::{RedbOptions, Store, StoreError};
use ibid::testing::{SimulatedDisk, Simulation, simulate};
use ibid::{
    AfterCheckpoint, AfterCompleted, AfterExpiry, Bytes, Call, Completion, End, Ended, Engine, Error, Flow, InDoubt,
    Key, OnFailure, Operation, Policy, Reason, Record, Reply, Retention, Row, State, Status, Token, WhileRunning,
};

use super::content::{Commit, Commits, Noting, TABLE};

/// How long a record answers, where the policy or the request sets a time.
const RETENTION: Duration = Duration::from_secs(600);

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

/// The flows of the systems, and one that leaves tombstones.
pub(crate) fn policies() -> Vec<Policy> {
    let lightning = Policy::replay(RETENTION)
        .while_running(WhileRunning::Refuse)
        .after_completed(AfterCompleted::Refuse)
        .on_failure(OnFailure::Keep)
        .in_doubt(InDoubt::Ask)
        .retention(Retention::UntilForgotten);
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
    ]
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
    flow: Flow,
    pub(crate) keys: Vec<Key>,
    commits: Commits,
    seen: Arc<Mutex<Vec<Seen>>>,
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
        Ok(Self { simulation, disk: disk.clone(), flow, keys, commits, seen: Arc::default(), engine })
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

    async fn resolve(&self, end: Ended) {
        self.engine.resolve(&self.flow, &self.keys[0], None, end).await.unwrap();
    }

    /// Submits, and holds what comes of it against what is durable by then.
    pub(crate) async fn submit(&self, key: usize, request: &str, ends: Ends) {
        let call = Call::new(&self.flow, &self.keys[key], request.as_bytes())
            .retention(RETENTION)
            .deadline(Duration::from_secs(5));
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
            Err(error) => lock(&self.seen).push(Seen::Refused(error)),
        }
    }

    fn operation(&self, key: usize, ends: Ends) -> Operation {
        let (seen, commits) = (Arc::clone(&self.seen), self.commits.clone());
        Operation::new(async move |attempt| {
            let durable = commits.last().content.records[key].clone();
            let is_registered = durable.is_some_and(|record| {
                (record.attempt.number, record.attempt.token) == (attempt.number(), *attempt.token())
                    && record.state == State::Registered
            });
            if !is_registered {
                // An assertion would be one more operation that panics.
                lock(&seen).push(Seen::Wrong("an operation has started that is not durably registered".to_owned()));
            }
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

    fn record(&self, key: usize) -> Option<Record> {
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
