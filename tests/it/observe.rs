//! Each change is told once, whatever fails, dies or starts again meanwhile.

use crate::support::*;
use ibid::store::MemoryStore;
use ibid::testing::{Fault, FaultyStore, ManualClock, Outage, Random, Simulation, simulate};
use ibid::{
    Builder, Call, End, Ended, Engine, Event, Flow, Found, How, InDoubt, Key, Limits, Observer, OnStoreFailure,
    Operation, Policy, Reason, Resolved, Status,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

const TEN_MINUTES: Duration = Duration::from_secs(600);

/// Writes down what it hears, in a line each; retries of the store are counted apart, as they are a matter of time.
#[derive(Clone, Default)]
struct Log(Arc<Heard>);

#[derive(Default)]
struct Heard {
    lines: Mutex<Vec<String>>,
    retries: AtomicUsize,
    news: Notify,
}

impl Log {
    /// What it has heard since it was last asked.
    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lines.lock().unwrap())
    }

    /// The same, when there are so many lines.
    async fn heard_of(&self, lines: usize) -> Vec<String> {
        let wait = async {
            while self.0.lines.lock().unwrap().len() < lines {
                self.0.news.notified().await;
            }
        };
        within_a_minute(wait).await;
        self.heard()
    }

    fn retries(&self) -> usize {
        self.0.retries.load(Ordering::SeqCst)
    }
}

impl Observer for Log {
    fn observe(&self, event: &Event<'_>) {
        let id = event.key().map(|key| String::from_utf8(key.id().to_vec()).unwrap()).unwrap_or_default();
        let line = match event {
            Event::Started { attempt, .. } => format!("started {id} {attempt}"),
            Event::Ended { attempt, .. } => format!("ended {id} {attempt}"),
            Event::InDoubt { .. } => format!("in doubt {id}"),
            Event::OutOfDoubt { .. } => format!("out of doubt {id}"),
            Event::Unsaved { .. } => format!("unsaved {id}"),
            Event::Saved { .. } => format!("saved {id}"),
            Event::Lost { was_unsaved, .. } => format!("lost {id}{}", if *was_unsaved { "" } else { " at once" }),
            Event::StorageRetry => {
                self.0.retries.fetch_add(1, Ordering::SeqCst);
                return;
            }
            Event::Removed { records } => format!("removed {records}"),
            Event::Contradiction { recorded, .. } => format!("contradiction {id} {recorded}"),
            Event::FencedOff { .. } => format!("fenced off {id}"),
            Event::DeadLetter { .. } => format!("dead letter {id}"),
            Event::Closed => "closed".into(),
            other => panic!("unknown: {other:?}"),
        };
        self.0.lines.lock().unwrap().push(line);
        self.0.news.notify_one();
    }
}

/// A store that outlives its engines, and who watches them.
struct House {
    inner: Arc<MemoryStore>,
    clock: ManualClock,
    log: Log,
}

impl House {
    fn new() -> Self {
        Self { inner: Arc::new(MemoryStore::new()), clock: ManualClock::at(START), log: Log::default() }
    }

    fn open(&self) -> (Arc<FaultyStore>, Engine) {
        self.open_with(|builder| builder)
    }

    fn open_with(&self, set: impl FnOnce(Builder) -> Builder) -> (Arc<FaultyStore>, Engine) {
        let store = Arc::new(FaultyStore::new(self.inner.clone()).keeping_inner());
        let builder = Engine::builder().clock(self.clock.clone()).observer(self.log.clone());
        (store.clone(), set(builder).open_store(store).unwrap())
    }
}

fn without_drain() -> Limits {
    let mut limits = Limits::default();
    limits.drain = Duration::ZERO;
    limits
}

fn unknown() -> End {
    End::Unknown(Reason::from_bytes(*b"?"))
}

fn ended(id: &str) -> Operation {
    let end = if id == "done" { End::done(*b"x") } else { End::Definitive(Reason::from_bytes(*b"no")) };
    Operation::new(async move |_| end)
}

#[tokio::test]
async fn each_run_is_told_with_its_end_and_what_does_not_run_is_not() {
    let (house, flow) = (House::new(), flow());
    let (_, engine) = house.open();
    for id in ["done", "failed"] {
        drop(engine.submit(call(&flow, id, "r"), ended(id)).await);
        assert_eq!(house.log.heard(), [format!("started {id} 1"), format!("ended {id} 1")]);
    }
    let (counted, mut starts) = Counted::held();
    let first = submit(&engine, call(&flow, "joined", "r"), counted.operation());
    starts.recv().await.unwrap();
    let joined = submit(&engine, call(&flow, "joined", "r"), counted.operation());
    until(&engine, |stats| stats.in_flight == 2).await;
    error(&engine, call(&flow, "joined", "other"), counted.operation()).await;
    assert_eq!(house.log.heard(), ["started joined 1"]);
    counted.release();
    for caller in [first, joined] {
        heard(caller).await;
    }
    assert_eq!(answer(&engine, call(&flow, "done", "r"), counted.operation()).await.how, How::Replayed);
    error(&engine, call(&flow, "done", "other"), counted.operation()).await;
    assert_eq!(house.log.heard(), ["ended joined 1"]);
    engine.shutdown().await;
    assert_eq!(house.log.heard(), ["closed"]);
}

#[tokio::test]
async fn a_panic_and_an_abort_end_a_run_and_the_doubt_they_leave_is_told_again_at_opening_until_it_ends() {
    let (house, flow) = (House::new(), flow_of(Policy::replay(TEN_MINUTES).in_doubt(InDoubt::Rerun)));
    let (_, engine) = house.open_with(|builder| builder.limits(without_drain()));
    let panicking = Operation::new(async |_| std::panic::resume_unwind(Box::new("injected")));
    error(&engine, call(&flow, "panics", "r"), panicking).await;
    assert_eq!(house.log.heard(), ["started panics 1", "ended panics 1", "in doubt panics"]);
    let (counted, mut starts) = Counted::held();
    let caller = submit(&engine, call(&flow, "aborted", "r"), counted.operation());
    starts.recv().await.unwrap();
    engine.shutdown().await;
    caller.await.unwrap().unwrap_err();
    assert_eq!(house.log.heard(), ["started aborted 1", "ended aborted 1", "in doubt aborted", "closed"]);

    let (_, engine) = house.open();
    assert_eq!(house.log.heard(), ["in doubt panics", "in doubt aborted"], "before anything is served");
    answer(&engine, call(&flow, "panics", "r"), ended("done")).await;
    assert_eq!(house.log.heard(), ["out of doubt panics", "started panics 2", "ended panics 2"]);
    let told = Ended::Completed((*b"told").into());
    let resolved = engine.resolve(&flow, &key(&flow, "aborted"), None, told).await.unwrap();
    assert_eq!((resolved, house.log.heard()), (Resolved::Recorded, vec!["out of doubt aborted".into()]));
    engine.resolve(&flow, &key(&flow, "aborted"), None, Ended::Failed((*b"no").into())).await.unwrap();
    assert_eq!(house.log.heard(), ["contradiction aborted completed"]);
    engine.shutdown().await;
    assert_eq!(house.log.heard(), ["closed"]);
    let (_, engine) = house.open();
    assert_eq!(house.log.heard(), [""; 0]);
    engine.shutdown().await;
}

#[test]
fn after_a_crash_what_ran_is_found_in_doubt_and_every_run_has_ended() {
    let heard = simulate(7, async |simulation| {
        let (disk, log) = (Arc::new(MemoryStore::new()), Log::default());
        let open = || {
            let store = Arc::new(FaultyStore::new(disk.clone()).keeping_inner());
            simulation.open(Engine::builder().observer(log.clone()), store).unwrap()
        };
        let (engine, (counted, mut starts)) = (open(), Counted::held());
        let caller = submit(&engine, call(&flow(), "a", "r"), counted.operation());
        starts.recv().await.unwrap();
        simulation.crash(&engine).await;
        caller.await.unwrap().unwrap_err();
        let before = log.heard();
        simulation.crash(&open()).await;
        (before, log.heard())
    })
    .unwrap();
    assert_eq!(heard.0, ["started a 1", "ended a 1", "closed"]);
    assert_eq!(heard.1, ["in doubt a", "closed"]);
}

#[tokio::test]
async fn a_blocking_operation_that_outlives_its_engine_has_ended_for_those_who_watch() {
    let house = House::new();
    let (_, engine) = house.open_with(|builder| builder.limits(without_drain()));
    let (go_on, waits) = std::sync::mpsc::channel::<()>();
    let (started, has_started) = tokio::sync::oneshot::channel();
    let blocking = Operation::blocking(move |_| {
        started.send(()).unwrap();
        waits.recv().ok();
        End::done(*b"late")
    });
    let caller = submit(&engine, call(&flow(), "a", "r"), blocking);
    has_started.await.unwrap();
    engine.shutdown().await;
    caller.await.unwrap().unwrap_err();
    assert_eq!(house.log.heard(), ["started a 1", "ended a 1", "closed"]);
    drop(go_on);
}

#[tokio::test]
async fn an_end_that_cannot_be_saved_is_told_once_and_once_more_when_it_is() {
    let flow = flow_of(Policy::replay(TEN_MINUTES).on_store_failure(OnStoreFailure::Reply));
    let house = House::new();
    let (store, engine) = house.open();
    let (counted, mut starts) = Counted::held();
    let caller = submit(&engine, call(&flow, "a", "r"), counted.operation());
    starts.recv().await.unwrap();
    store.break_down(Outage::Commits);
    counted.release();
    heard(caller).await;
    assert_eq!(house.log.heard(), ["started a 1", "ended a 1", "unsaved a"]);
    assert!(house.log.retries() >= 4, "five tries");
    for _ in 0..3 {
        answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    }
    assert_eq!(house.log.heard(), [""; 0]);
    store.heal();
    assert_eq!(house.log.heard_of(1).await, ["saved a"]);
    engine.shutdown().await;
    assert_eq!((house.log.heard(), counted.runs()), (vec!["closed".into()], 1));
}

#[tokio::test]
async fn an_end_that_is_unsaved_at_closing_is_lost_and_its_record_is_in_doubt_at_the_next_opening() {
    let flow = flow_of(Policy::replay(TEN_MINUTES).on_store_failure(OnStoreFailure::Reply));
    let house = House::new();
    let (store, engine) = house.open();
    let (counted, mut starts) = Counted::held();
    let caller = submit(&engine, call(&flow, "a", "r"), counted.operation());
    starts.recv().await.unwrap();
    store.break_down(Outage::Commits);
    counted.release();
    heard(caller).await;
    engine.shutdown().await;
    assert_eq!(house.log.heard(), ["started a 1", "ended a 1", "unsaved a", "lost a", "closed"]);
    let (_, engine) = house.open();
    assert_eq!(house.log.heard(), ["in doubt a"]);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_commit_of_unknown_fate_tells_of_its_doubt_once() {
    for fault in [Fault::BeforeEffect, Fault::AfterEffect, Fault::Panic] {
        let (house, flow) = (House::new(), flow_of(Policy::replay(TEN_MINUTES).in_doubt(InDoubt::Rerun)));
        let (store, engine) = house.open();
        let (counted, mut starts) = Counted::held();
        let caller = submit(&engine, call(&flow, "a", "r"), counted.ending(|_| unknown()));
        starts.recv().await.unwrap();
        store.fail_commits(1, fault);
        counted.release();
        caller.await.unwrap().unwrap_err();
        assert_eq!(house.log.heard(), ["started a 1", "ended a 1", "in doubt a"], "{fault:?}");
        store.fail_commits(1, fault);
        answer(&engine, call(&flow, "a", "r"), ended("done")).await;
        assert_eq!(house.log.heard(), ["out of doubt a", "started a 2", "ended a 2"], "{fault:?}");
        assert_eq!(house.log.retries(), 2, "{fault:?}");
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn what_the_expiry_sweep_removes_is_counted_once_also_where_its_commit_fails() {
    for (fault, removed) in [(None, 3), (Some(Fault::BeforeEffect), 0), (Some(Fault::AfterEffect), 3)] {
        let (house, flow) = (House::new(), flow());
        let (store, engine) = house.open();
        for id in ["a", "b", "c"] {
            answer(&engine, call(&flow, id, "r"), ended("done")).await;
        }
        house.log.heard();
        house.clock.advance(TEN_MINUTES);
        let Some(fault) = fault else {
            assert_eq!(engine.expiry_sweep_slice(2).await.unwrap(), 2);
            assert_eq!(engine.expiry_sweep().await.unwrap(), 1);
            assert_eq!(house.log.heard(), ["removed 2", "removed 1"]);
            engine.shutdown().await;
            continue;
        };
        store.fail_commits(1, fault);
        engine.expiry_sweep().await.unwrap_err();
        until(&engine, |stats| stats.storage_retries == 1).await;
        let left = engine.expiry_sweep().await.unwrap();
        assert_eq!(left, 3 - removed, "{fault:?}");
        assert_eq!(house.log.heard(), ["removed 3"], "{fault:?}");
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn what_an_oracle_says_takes_a_record_out_of_doubt_and_its_silence_makes_a_dead_letter() {
    let flow = flow_of(Policy::replay(TEN_MINUTES).in_doubt(InDoubt::Ask));
    let house = House::new();
    let mut limits = Limits::default();
    limits.recoveries = 1;
    let (_, engine) = house.open_with(|builder| {
        builder.limits(limits).oracle(&flow, async |inquiry| match inquiry.key().id() {
            b"known" => Found::Done(Ended::Completed((*b"x").into())),
            _ => Found::CannotTell,
        })
    });
    for (id, told) in [("known", "out of doubt known"), ("silent", "dead letter silent")] {
        error(&engine, call(&flow, id, "r"), Operation::new(async |_| unknown())).await;
        let heard = house.log.heard_of(4).await;
        assert_eq!(heard, [format!("started {id} 1"), format!("ended {id} 1"), format!("in doubt {id}"), told.into()]);
    }
    engine.shutdown().await;
    assert_eq!(house.log.heard(), ["closed"]);
}

/// Panics at whatever it hears.
struct Rude;

impl Observer for Rude {
    fn observe(&self, _: &Event<'_>) {
        std::panic::resume_unwind(Box::new("injected into an observer"));
    }
}

#[tokio::test]
async fn an_observer_that_panics_changes_nothing_and_keeps_no_other_from_hearing() {
    let (house, flow) = (House::new(), flow_of(Policy::replay(TEN_MINUTES).in_doubt(InDoubt::Rerun)));
    let after = Log::default();
    let (_, engine) = house.open_with(|builder| builder.observer(Rude).observer(after.clone()));
    error(&engine, call(&flow, "a", "r"), Operation::new(async |_| unknown())).await;
    answer(&engine, call(&flow, "a", "r"), ended("done")).await;
    house.clock.advance(TEN_MINUTES);
    assert_eq!(engine.expiry_sweep().await.unwrap(), 1);
    let stats = engine.stats().await.unwrap();
    assert_eq!((stats.died_actors, stats.storage_retries, stats.running), (0, 0, 0));
    engine.shutdown().await;
    let all =
        ["started a 1", "ended a 1", "in doubt a", "out of doubt a", "started a 2", "ended a 2", "removed 1", "closed"];
    assert_eq!((house.log.heard(), after.heard()), (all.map(String::from).into(), all.map(String::from).into()));
}

/// What holds of everything that is told, in whatever order things fail: by key, what has begun and not ended.
#[derive(Clone, Default)]
struct Account(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    running: BTreeSet<Key>,
    in_doubt: BTreeSet<Key>,
    unsaved: BTreeSet<Key>,
    closed: bool,
    misfits: Vec<String>,
    /// How often each kind of event was told, by its name.
    told: BTreeMap<String, u64>,
}

impl Open {
    fn note(&mut self, event: &Event<'_>) {
        let name = format!("{event:?}");
        *self.told.entry(name.split(' ').next().unwrap_or_default().to_owned()).or_default() += 1;
        let fits = match *event {
            Event::Started { key, .. } => self.running.insert(key.clone()),
            Event::Ended { key, .. } => self.running.remove(key),
            Event::InDoubt { key } => self.in_doubt.insert(key.clone()),
            Event::OutOfDoubt { key } => self.in_doubt.remove(key),
            Event::Unsaved { key } => self.unsaved.insert(key.clone()),
            Event::Saved { key } => self.unsaved.remove(key),
            Event::Lost { key, was_unsaved } => self.unsaved.remove(key) == was_unsaved,
            Event::Closed => {
                self.in_doubt.clear();
                !self.closed && self.running.is_empty() && self.unsaved.is_empty()
            }
            _ => true,
        };
        if !fits || self.closed {
            self.misfits.push(format!("{event:?}"));
        }
        self.closed = *event == Event::Closed;
    }
}

impl Observer for Account {
    fn observe(&self, event: &Event<'_>) {
        self.0.lock().unwrap().note(event);
    }
}

fn flows() -> [Flow; 3] {
    let policy = |in_doubt| Policy::replay(Duration::from_secs(60)).in_doubt(in_doubt);
    [
        Flow::new("reruns", policy(InDoubt::Rerun)).unwrap(),
        Flow::new("ambiguous", policy(InDoubt::Ambiguous)).unwrap(),
        Flow::new("replies", policy(InDoubt::Rerun).on_store_failure(OnStoreFailure::Reply)).unwrap(),
    ]
}

/// An operation that takes a while and then ends in any way.
fn drawn(random: &mut Random) -> Operation {
    let (lasts, way) = (Duration::from_millis(random.below(4_000)), random.below(5));
    Operation::new(async move |_| {
        tokio::time::timeout(lasts, std::future::pending::<()>()).await.ok();
        match way {
            0 => unknown(),
            1 => std::panic::resume_unwind(Box::new("injected")),
            2 => End::Definitive(Reason::from_bytes(*b"no")),
            3 => End::Accepted,
            _ => End::done(*b"x"),
        }
    })
}

/// Nothing is open but what the store shows.
async fn adds_up(engine: &Engine, account: &Account, keys: &[(Key, Flow)]) {
    for (key, flow) in keys {
        // Whatever a lost start or end has left registered is in doubt when somebody meets it.
        tokio::time::timeout(Duration::from_millis(1), engine.track(flow, key)).await.ok();
    }
    let is_in_doubt = |status| matches!(status, Status::Registered | Status::InDoubt);
    let listed = engine.list(None, 99).unwrap().into_iter().filter_map(|entry| entry.found);
    let stored = listed.filter(|(_, record)| is_in_doubt(record.state.status())).map(|(key, _)| key).collect();
    let open = account.0.lock().unwrap();
    assert_eq!((&open.running, &open.unsaved), (&BTreeSet::new(), &BTreeSet::new()));
    assert_eq!(open.in_doubt, stored);
}

/// Faults, crashes, ends from outside and expiry sweeps among requests; in the end what is open is what the store shows.
async fn any_episode(simulation: &Simulation) -> BTreeMap<String, u64> {
    let (disk, account, mut random) = (Arc::new(MemoryStore::new()), Account::default(), simulation.random());
    let open = || {
        account.0.lock().unwrap().closed = false;
        let store = Arc::new(FaultyStore::new(disk.clone()).keeping_inner());
        (store.clone(), simulation.open(Engine::builder().observer(account.clone()), store).unwrap())
    };
    let (mut store, mut engine) = open();
    let keys: Vec<_> =
        flows().into_iter().flat_map(|flow| ["a", "b"].map(|id| (key(&flow, id), flow.clone()))).collect();
    for _ in 0..60 {
        let (key, flow) = random.pick(&keys).unwrap();
        match random.below(12) {
            0 => {
                let ways = [Fault::BeforeEffect, Fault::AfterEffect, Fault::Panic];
                store.fail_commits(1 + random.below(8), *random.pick(&ways).unwrap());
            }
            1 | 2 => store.break_down(*random.pick(&[Outage::Commits, Outage::Everything, Outage::Full]).unwrap()),
            3 => store.heal(),
            4 => {
                let (engine, flow, key) = (engine.clone(), flow.clone(), key.clone());
                tokio::spawn(async move {
                    engine.resolve(&flow, &key, None, Ended::Completed((*b"told").into())).await.ok();
                });
            }
            5 if random.once_in(2) => {
                simulation.crash(&engine).await;
                (store, engine) = open();
            }
            5 => {
                engine.shutdown().await;
                (store, engine) = open();
            }
            6 => {
                engine.expiry_sweep().await.ok();
            }
            _ => {
                let (engine, call) = (engine.clone(), Call::new(flow, key, *b"r"));
                let operation = drawn(&mut random);
                tokio::spawn(async move { engine.submit(call, operation).await.ok() });
            }
        }
        simulation.pass(Duration::from_millis(random.below(3_000))).await;
    }
    store.heal();
    simulation.pass(Duration::from_secs(600)).await;
    adds_up(&engine, &account, &keys).await;
    engine.shutdown().await;
    let mut open = account.0.lock().unwrap();
    assert!(open.closed && open.misfits.is_empty(), "{:?}", open.misfits);
    std::mem::take(&mut open.told)
}

#[test]
fn whatever_fails_everything_told_fits_and_adds_up_to_what_the_store_shows() {
    let mut told = BTreeMap::<String, u64>::new();
    for seed in 0..200 {
        let episode = std::panic::catch_unwind(|| simulate(seed, any_episode).unwrap());
        let episode = episode.unwrap_or_else(|_| panic!("seed {seed}"));
        episode.into_iter().for_each(|(name, count)| *told.entry(name).or_default() += count);
    }
    for name in ["Started", "Ended", "InDoubt", "OutOfDoubt", "Unsaved", "Saved", "Lost", "StorageRetry", "Removed"] {
        assert!(told.get(name).is_some_and(|count| *count > 20), "{name}: {told:?}");
    }
    assert_eq!(told["Started"], told["Ended"]);
}
