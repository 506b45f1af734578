//! No message is lost and no actor stays behind.

use crate::support::*;
use ibid::How;

#[tokio::test]
async fn thousands_of_keys_used_at_once_leave_no_actor_behind() {
    let bench = Bench::new();
    let (flow, counted) = (flow(), Counted::new());
    let engine = bench.open();
    let callers: Vec<_> = (0..900 * 3)
        .map(|n: usize| {
            let (engine, call, operation) =
                (engine.clone(), call(&flow, &(n % 900).to_string(), "r"), counted.operation());
            tokio::spawn(async move { engine.submit(call, operation).await })
        })
        .collect();
    let (mut executed, mut busy) = (0, 0);
    for caller in callers {
        match caller.await.unwrap() {
            Ok(ibid::Reply::Answer(outcome)) => executed += usize::from(outcome.how == How::Executed),
            Ok(ibid::Reply::Accepted) => panic!("nothing accepts here"),
            Err(_) => busy += 1,
        }
    }
    assert_eq!(executed, counted.runs());
    assert!(executed <= 900 && busy <= 2 * 900, "{executed} {busy}");
    let stats = engine.stats().await.unwrap();
    assert_eq!((stats.live_actors, stats.running, stats.in_flight), (0, 0, 0), "{stats:?}");
    assert_eq!(stats.died_actors, 0);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_key_used_again_and_again_is_served_by_actors_that_come_and_go() {
    let bench = Bench::new();
    let flow = flow();
    let engine = bench.open();
    for n in 0..200 {
        let no = Counted::new().ending(|_| ibid::End::Definitive(ibid::Reason::from_bytes(*b"no")));
        let failed = error(&engine, call(&flow, "a", "r"), no).await;
        assert!(failed.reason().is_some(), "{n}: {failed:?}");
    }
    assert_eq!(engine.stats().await.unwrap().live_actors, 0);
    engine.shutdown().await;
}
