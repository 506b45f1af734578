//! What a million keys leave behind in memory: `cargo bench --bench memory`.
//!
//! Every key is used once, by an operation that surely had no effect, under a policy that forgets such a failure. So each
//! request takes the whole way (permit, actor, registration, operation, removal) and leaves no record: what grows in
//! memory would be the engine's own. The store is the one in memory, which shows its own leftovers as well.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::AnyError;
use common::process::{now, resident_bytes};
use ibid::{Call, End, Engine, ErrorKind, Flow, Operation, Policy, Reason};

const KEYS: usize = 1_000_000;
/// First, so that allocator, threads and tables have found their size.
const WARM_UP: usize = 50_000;
const CALLERS: usize = 256;

fn main() -> Result<(), AnyError> {
    let host = common::host()?;
    host.block_on(async {
        let engine = Engine::builder().open_in_memory()?;
        use_once(&engine, 0, WARM_UP).await?;
        let before = resident_bytes();
        let began = now();
        use_once(&engine, WARM_UP, WARM_UP + KEYS).await?;
        let took = began.elapsed();
        let stats = engine.stats().await?;
        let after = resident_bytes();
        engine.shutdown().await;
        println!("{KEYS} keys used once each by {CALLERS} callers in {:.1} s", took.as_secs_f64());
        println!("live actors {}, operations {}, permits {}", stats.live_actors, stats.running, stats.in_flight);
        println!("records {:?}", stats.records);
        match before.zip(after) {
            None => println!("resident memory: unknown on this system"),
            Some((before, after)) => {
                let grown = after as f64 - before as f64;
                println!("resident memory: {} KiB before, {} KiB after", before / 1_024, after / 1_024);
                println!("that is {:.3} bytes a key", grown / KEYS as f64);
            }
        }
        assert_eq!((stats.live_actors, stats.running, stats.in_flight), (0, 0, 0), "something was left behind");
        Ok(())
    })
}

async fn use_once(engine: &Engine, from: usize, to: usize) -> Result<(), AnyError> {
    let flow = Flow::new("memory", Policy::replay(Duration::from_secs(60)))?;
    let next = Arc::new(AtomicUsize::new(from));
    let tasks: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (engine, flow, next) = (engine.clone(), flow.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= to {
                        return Ok::<_, AnyError>(());
                    }
                    let key = flow.key(b"scope", number.to_be_bytes())?;
                    let operation = Operation::new(async |_| End::Definitive(Reason::from_bytes(*b"no")));
                    match engine.submit(Call::new(&flow, &key, *b"request"), operation).await {
                        Err(error) if matches!(error.kind(), ErrorKind::Failed(_)) => {}
                        other => return Err(format!("not the end that was asked for: {other:?}").into()),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}
