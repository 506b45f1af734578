//! The simulated runtime: the same seed is the same episode, time is virtual, a crash leaves nothing running.

use std::sync::Arc;
use std::time::Duration;

use ibid::store::MemoryStore;
use ibid::testing::{Effects, FaultyStore, Simulation, simulate};
use ibid::{Clock, End, Engine, ErrorKind, Operation};

use crate::support::{call, flow};

/// A store whose content outlives the engine over it.
fn over(disk: &Arc<MemoryStore>) -> Arc<FaultyStore> {
    Arc::new(FaultyStore::new(disk.clone()).keeping_inner())
}

/// Callers, operations and a crash at random moments; returns everything that was seen, in order.
async fn episode(simulation: &Simulation) -> Vec<String> {
    let (seen, disk) = (Effects::new(), Arc::new(MemoryStore::new()));
    let mut random = simulation.random();
    let mut engine = simulation.open(Engine::builder(), over(&disk)).unwrap();
    for step in 0..40 {
        if random.once_in(10) {
            simulation.crash(&engine).await;
            engine = simulation.open(Engine::builder(), over(&disk)).unwrap();
        }
        let (id, lasts) = (random.below(5), Duration::from_millis(random.below(300)));
        let (submitted, noted) = (engine.clone(), seen.clone());
        tokio::spawn(async move {
            let operation = Operation::new(async move |attempt| {
                tokio::time::timeout(lasts, std::future::pending::<()>()).await.ok();
                End::done(attempt.token().0)
            });
            let reply = submitted.submit(call(&flow(), &id.to_string(), "r"), operation).await;
            noted.note(format!("{step}: {id} {reply:?}"));
        });
        simulation.pass(Duration::from_millis(random.below(200))).await;
    }
    engine.shutdown().await;
    let mut all: Vec<_> = seen.all().into_iter().map(|(name, _)| name).collect();
    all.push(simulation.clock().now().to_string());
    all
}

#[test]
fn one_seed_is_one_episode() {
    let first = simulate(7, episode).unwrap();
    assert!(first.len() > 30 && first.iter().any(|seen| seen.contains("Joined")), "{first:?}");
    assert_eq!(simulate(7, episode).unwrap(), first);
    assert_ne!(simulate(8, episode).unwrap(), first);
}

#[test]
fn days_pass_at_once_and_a_crash_stops_what_runs() {
    let effects = Effects::new();
    let noted = effects.clone();
    simulate(1, async move |simulation| {
        let disk = Arc::new(MemoryStore::new());
        let engine = simulation.open(Engine::builder(), over(&disk)).unwrap();
        let operation = |days: u64| {
            let noted = noted.clone();
            Operation::new(async move |_| {
                tokio::time::timeout(Duration::from_secs(days * 86_400), std::future::pending::<()>()).await.ok();
                noted.note(days.to_string());
                End::done(*b"late")
            })
        };
        engine.submit(call(&flow(), "three", "r"), operation(3)).await.unwrap();
        let four = tokio::spawn({
            let (engine, operation) = (engine.clone(), operation(4));
            async move { engine.submit(call(&flow(), "four", "r"), operation).await }
        });
        simulation.pass(Duration::from_secs(86_400)).await;
        simulation.crash(&engine).await;
        assert!(matches!(four.await.unwrap().unwrap_err().kind(), ErrorKind::Closed));
        simulation.pass(Duration::from_secs(30 * 86_400)).await;

        let engine = simulation.open(Engine::builder(), over(&disk)).unwrap();
        let again = engine.submit(call(&flow(), "four", "r"), operation(4)).await.unwrap_err();
        assert!(matches!(again.kind(), ErrorKind::InDoubt(_)), "{again:?}");
        engine.shutdown().await;
    })
    .unwrap();
    assert_eq!(effects.all(), [("3".to_owned(), 1)]);
}
