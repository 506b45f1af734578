//! The counts of seven days: each request once, whoever writes them and whatever a write came to.

use std::sync::Arc;

use crate::support::*;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::post;
use ibid::http::{Config, Idempotency, Principal, RequestEnd, Setup};
use ibid::testing::{Fault, FaultyStore};
use ibid::{Engine, ErrorKind};
use tower::ServiceExt;

/// One request, and the status of its answer.
async fn send(idempotency: &Idempotency) -> u16 {
    let app = Router::new().route("/", post(async || ())).layer(idempotency.clone());
    let mut request = Request::post("/").header("idempotency-key", "k").body(Body::empty()).unwrap();
    request.extensions_mut().insert(Principal::new("a").unwrap());
    let Ok(response) = within_a_minute(app.oneshot(request)).await;
    response.status().as_u16()
}

/// So many of them, the first of which runs.
async fn serve(idempotency: &Idempotency, requests: usize) {
    for _ in 0..requests {
        assert_eq!(send(idempotency).await, 200);
    }
}

/// Executed and replayed.
fn sums(idempotency: &Idempotency) -> [u64; 2] {
    let counts = idempotency.counts().unwrap();
    assert!(counts.iter().all(|count| count.route == "POST /"), "{counts:?}");
    [RequestEnd::Executed, RequestEnd::Replayed]
        .map(|ended| counts.iter().filter(|count| count.ended == ended).map(|count| count.count).sum())
}

fn config() -> Config {
    Setup::new().answer_bytes(1024).build().unwrap()
}

/// An engine over a store that fails on demand, and a layer.
async fn faulty(faulty: &Faulty) -> (Arc<FaultyStore>, Engine, Idempotency) {
    let (store, engine) = faulty.open();
    let idempotency = config().bind(&engine).await.unwrap();
    (store, engine, idempotency)
}

#[tokio::test]
async fn two_layers_over_one_engine_add_to_the_same_counts() {
    let bench = Faulty::new();
    let (store, engine, one) = faulty(&bench).await;
    let other = config().bind(&engine).await.unwrap();
    for round in 1..=3 {
        serve(&one, 2).await;
        serve(&other, 2).await;
        // Both read the rows before either has written them: one of them finds its guard broken.
        let gate = store.hold_commits();
        let (first, second, ()) = tokio::join!(one.flush(), other.flush(), async {
            store.until_held().await;
            settled(&engine).await;
            drop(gate);
        });
        first.unwrap();
        second.unwrap();
        let expected = [1, 4 * round - 1];
        assert_eq!([sums(&one), sums(&other)], [expected; 2]);
    }
    engine.shutdown().await;
    let (_, engine, again) = faulty(&bench).await;
    assert_eq!(sums(&again), [1, 11], "they outlive the engine");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_store_that_fails_once_loses_no_count_and_doubles_none() {
    for fault in [Fault::BeforeEffect, Fault::AfterEffect] {
        let bench = Faulty::new();
        let (store, engine, idempotency) = faulty(&bench).await;
        serve(&idempotency, 3).await;
        idempotency.flush().await.unwrap();
        serve(&idempotency, 2).await;
        store.fail_commits(1, fault);
        // The layer writes by itself, too: either of them may meet the fault, and they take turns.
        within_a_minute(async { while idempotency.flush().await.is_err() {} }).await;
        assert_eq!(sums(&idempotency), [1, 4], "{fault:?}");
        assert!(store.reopens() > 0, "{fault:?} has struck");
        engine.shutdown().await;
        let (_, engine, again) = faulty(&bench).await;
        assert_eq!(sums(&again), [1, 4], "{fault:?}, from the store");
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn counts_that_cannot_be_written_are_kept_and_what_came_meanwhile_is_added() {
    let bench = Faulty::new();
    let (store, engine, idempotency) = faulty(&bench).await;
    serve(&idempotency, 2).await;
    store.fail_commits(1, Fault::AfterEffect);
    drop(idempotency.flush().await);
    serve(&idempotency, 1).await;
    within_a_minute(async { while idempotency.flush().await.is_err() {} }).await;
    assert_eq!(sums(&idempotency), [1, 2]);
    engine.shutdown().await;
    assert!(idempotency.flush().await.is_ok(), "nothing is left to write");
    assert_eq!(send(&idempotency).await, 503, "and counted as ambiguous");
    let closed = idempotency.flush().await.unwrap_err();
    assert!(matches!(closed.kind(), ErrorKind::Closed), "{closed:?}");
}
