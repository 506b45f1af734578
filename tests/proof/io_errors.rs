//! A disk that fails at any one of its operations, once or until somebody mends it, under a whole engine: nobody is told what
//! is not so, nothing runs twice, nothing acknowledged is lost, and when the disk is back so is the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use ibid::store::{RedbOptions, Store};
use ibid::testing::{DiskError, DiskFault, DiskOperation, Effects, SimulatedDisk, Simulation, simulate};
use ibid::{Bytes, Call, Class, Completion, End, Engine, Flow, Operation, Policy, Reply, Row};

use crate::scale::Scale;

/// Requests of a scenario, each under a key of its own.
const REQUESTS: usize = 12;

/// What became of each request, as its callers were told.
#[derive(Default)]
struct Told {
    answers: Vec<Option<Bytes>>,
}

struct Scenario<'a> {
    simulation: &'a Simulation,
    disk: SimulatedDisk,
    flow: Flow,
    paid: Effects,
}

impl Scenario<'_> {
    fn open(&self) -> Option<Engine> {
        let store: Arc<dyn Store> = Arc::new(self.disk.open(RedbOptions::default().cache_bytes(1 << 20)).ok()?);
        self.simulation.open(Engine::builder(), store).ok()
    }

    /// Opens it when the disk works: that must succeed.
    fn reopen(&self) -> Engine {
        self.open().expect("on a disk that works the store opens")
    }

    async fn submit(&self, engine: &Engine, request: usize) -> Result<Bytes, Class> {
        let key = self.flow.key("scope", request.to_be_bytes()).unwrap();
        let call = Call::new(&self.flow, &key, request.to_be_bytes()).deadline(Duration::from_secs(120));
        let paid = self.paid.clone();
        let operation = Operation::new(async move |attempt| {
            let nth = paid.note(request.to_string());
            let answer = [&attempt.token().0[..], &nth.to_be_bytes(), &vec![7; request * 300]].concat();
            if request.is_multiple_of(3) && attempt.checkpoint(answer.clone(), None).await.is_err() {
                return End::Unknown(ibid::Reason::from_bytes(*b"the checkpoint is lost"));
            }
            End::Done(Completion::new(answer.clone()).row(Row::new("paid", request.to_be_bytes(), answer).unwrap()))
        });
        match engine.submit(call, operation).await {
            Ok(Reply::Answer(outcome)) => Ok(outcome.answer),
            Ok(Reply::Accepted) => panic!("nothing here is accepted"),
            Err(error) => Err(error.class()),
        }
    }
}

/// The scenario with this fault on its way. Says whether the fault was met.
async fn scenario(simulation: &Simulation, fault: DiskFault) -> bool {
    let flow = Flow::new("pay", Policy::replay(Duration::from_secs(86_400))).unwrap();
    let disk = SimulatedDisk::new().unwrap();
    let this = Scenario { simulation, disk: disk.clone(), flow, paid: Effects::new() };
    disk.inject(fault);
    let mut told = Told { answers: vec![None; REQUESTS] };
    let engine = match this.open() {
        Some(engine) => engine,
        None => {
            disk.mend();
            this.reopen()
        }
    };
    for request in 0..REQUESTS {
        told.answers[request] = this.submit(&engine, request).await.ok();
        if request == 7 {
            // The store rests, and has something to tidy up.
            simulation.pass(Duration::from_millis(200)).await;
        }
    }
    let met = disk.failures() > 0;
    disk.mend();
    // Long enough for what could not be saved to be saved now.
    simulation.pass(Duration::from_secs(30)).await;
    let fresh = this.submit(&engine, REQUESTS).await;
    assert!(fresh.is_ok(), "{fault:?}: the disk is back and the engine is not: {fresh:?}");
    check(&this, &engine, &told, fault).await;
    engine.shutdown().await;

    let engine = this.reopen();
    check(&this, &engine, &told, fault).await;
    simulation.crash(&engine).await;

    let lost = Scenario { disk: disk.without_power(), ..this };
    let engine = lost.reopen();
    check(&lost, &engine, &told, fault).await;
    simulation.crash(&engine).await;
    met
}

/// Asks for everything again: who has been answered gets that answer, and nobody pays twice.
async fn check(this: &Scenario<'_>, engine: &Engine, told: &Told, fault: DiskFault) {
    for (request, answer) in told.answers.iter().enumerate() {
        let again = this.submit(engine, request).await;
        match (answer, again) {
            (Some(answer), Ok(again)) => assert!(*answer == again, "{fault:?}: request {request} got another answer"),
            (Some(_), Err(class)) => panic!("{fault:?}: request {request} had an answer and is told {class:?}"),
            // In doubt stays in doubt; what never ran may have run now.
            (None, Ok(_) | Err(Class::Ambiguous)) => {}
            (None, Err(class)) => panic!("{fault:?}: request {request} is told {class:?}"),
        }
        let paid = this.paid.count(&request.to_string());
        assert!(paid <= 1, "{fault:?}: request {request} was paid {paid} times");
    }
}

/// All faults of one kind, at ever later operations until none is met; says how many were.
fn every_fault(operation: DiskOperation, error: DiskError, lasting: bool, step: usize) -> u64 {
    let mut met = 0;
    for after in (0..).step_by(step) {
        let fault = DiskFault { operation, after, error, lasting };
        if !simulate(7, async move |simulation| scenario(simulation, fault).await).unwrap() {
            return met;
        }
        met += 1;
    }
    met
}

#[test]
fn io_errors_at_every_operation_once_and_for_ever_lose_nothing_and_repeat_nothing() {
    let kinds: Vec<_> = DiskOperation::ALL
        .into_iter()
        .flat_map(|operation| [DiskError::Io, DiskError::Full].map(|error| (operation, error)))
        .flat_map(|(operation, error)| [false, true].map(|lasting| (operation, error, lasting)))
        .collect();
    let step = usize::try_from(Scale::from_env().of(37, 1, 1)).unwrap();
    let (met, next) = (AtomicU64::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((operation, error, lasting)) = kinds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    met.fetch_add(every_fault(*operation, *error, *lasting, step), Ordering::Relaxed);
                }
            });
        }
    });
    let met = met.into_inner();
    println!("{met} faults met, each in a life of its own");
    assert!(met >= Scale::from_env().of(20, 400, 400), "only {met} faults were met");
}
