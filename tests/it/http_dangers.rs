//! The layer held in ways in which a doubt, a token or a key gets lost: at both edges, inside one process.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::Response;
use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Extension, Router};
use ibid::http::{Answer, Disposition, Found, Idempotency, OnPanic, OnRunning, Principal, Route, Setup};
use ibid::store::{MemoryStore, Store};
use ibid::testing::{Fault, FaultyStore, ManualClock};
use ibid::{Attempt, Engine, ErrorKind, Limits, Resolved, Status, UnixMillis};
use tokio::sync::Semaphore;
use tower::ServiceExt;

const START: UnixMillis = UnixMillis(1_800_000_000_000);

async fn bound(setup: Setup) -> (Engine, Idempotency) {
    let config = setup.build().unwrap();
    let builder = config.prepare(Engine::builder().clock(ManualClock::at(START)));
    let engine = builder.open_store(Arc::new(MemoryStore::new())).unwrap();
    let idempotency = config.bind(&engine).await.unwrap();
    (engine, idempotency)
}

fn request(target: &str, key: Option<&str>) -> Request {
    let mut request = Request::builder().method("POST").uri(target);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let mut request = request.body(Body::from("{}")).unwrap();
    request.extensions_mut().insert(Principal::new("a").unwrap());
    request
}

async fn send(app: &Router, request: Request) -> (u16, bool, String) {
    let response = tokio::time::timeout(Duration::from_secs(60), app.clone().oneshot(request)).await.unwrap().unwrap();
    let (parts, body) = response.into_parts();
    let text = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
    (parts.status.as_u16(), parts.headers.contains_key("idempotency-replayed"), text)
}

async fn until(engine: &Engine, holds: impl Fn(&ibid::Stats) -> bool) {
    for _ in 0..1_000_000 {
        if holds(&engine.stats().await.unwrap()) {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never");
}

/// A re-run that says "surely nothing has happened" proves nothing about the attempt before it. The record, and with it the
/// token that downstream knows the payment by, must outlive it.
#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_that_is_forgotten_keeps_the_token_that_downstream_knows() {
    let setup = Setup::new().route("POST", "/pay", Route::new().rerun().keep_5xx(false));
    let (engine, keys) = bound(setup).await;
    let paid: Arc<Mutex<Vec<Attempt>>> = Arc::default();
    let (seen, runs) = (Arc::clone(&paid), Arc::new(AtomicUsize::new(0)));
    let handler = move |Extension(attempt): Extension<Attempt>| {
        let (seen, run) = (Arc::clone(&seen), runs.fetch_add(1, Ordering::SeqCst));
        async move {
            match run {
                // The payment goes out with the token, the connection to the bank breaks: nobody knows.
                0 => {
                    seen.lock().unwrap().push(attempt);
                    let mut response = "?".into_response();
                    response.extensions_mut().insert(Disposition::InDoubt);
                    response
                }
                // The bank is down for a moment: *this* attempt surely did nothing.
                1 => (axum::http::StatusCode::SERVICE_UNAVAILABLE, "bank is down").into_response(),
                // The bank would recognise the token of the first attempt, and pay once.
                _ => {
                    seen.lock().unwrap().push(attempt);
                    "paid".into_response()
                }
            }
        }
    };
    let app = Router::new().route("/pay", post(handler)).layer(keys);
    assert_eq!(send(&app, request("/pay", Some("k"))).await.0, 503, "in doubt");
    let second = send(&app, request("/pay", Some("k"))).await;
    let third = send(&app, request("/pay", Some("k"))).await;
    assert!(second.0 == 503 && second.2.contains("idempotency_in_doubt"), "{second:?}");
    assert_eq!(third, (200, false, "paid".into()));
    let paid = paid.lock().unwrap().clone();
    assert_eq!(paid.len(), 2);
    let seen = paid.iter().map(|attempt| (attempt.number(), *attempt.token() == *paid[0].token()));
    assert_eq!(seen.collect::<Vec<_>>(), [(1, true), (3, true)], "downstream sees one payment");
    engine.shutdown().await;
}

/// An answer that is forgotten and too long to hand on: whoever joined must not be told that it was carried out.
#[tokio::test(flavor = "multi_thread")]
async fn who_joins_a_forgotten_answer_that_is_too_long_is_not_told_that_it_was_carried_out() {
    let route = Route::new().keep_5xx(false).on_running(OnRunning::Join { wait: Duration::from_secs(60) });
    let (engine, keys) = bound(Setup::new().answer_bytes(4).route("POST", "/pay", route)).await;
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let handler = move || {
        let held = Arc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            (axum::http::StatusCode::SERVICE_UNAVAILABLE, "surely not paid, and a long page about it")
        }
    };
    let app = Router::new().route("/pay", post(handler)).layer(keys);
    let (own, joined, ()) =
        tokio::join!(send(&app, request("/pay", Some("k"))), send(&app, request("/pay", Some("k"))), async {
            until(&engine, |stats| stats.running == 1 && stats.in_flight == 2).await;
            gate.add_permits(1);
        });
    let told = if own.2.contains("surely") { joined } else { own };
    assert!(!told.2.contains("idempotency_answer_not_kept"), "{told:?}");
    engine.shutdown().await;
}

/// A Join that ends while a store that fails keeps the registration from being durable: nothing is registered or in flight.
#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_ends_before_anything_is_registered_is_not_a_duplicate() {
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()) as Arc<dyn Store>).keeping_inner());
    let route = Route::new().on_running(OnRunning::Join { wait: Duration::from_millis(50) });
    let config = Setup::new().route("POST", "/pay", route).build().unwrap();
    let engine = config.prepare(Engine::builder()).open_store(store.clone()).unwrap();
    let keys = config.bind(&engine).await.unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let app =
        Router::new().route("/pay", post(async move || counted.fetch_add(1, Ordering::SeqCst).to_string())).layer(keys);
    store.fail_commits(1_000_000, Fault::BeforeEffect);
    let told = send(&app, request("/pay", Some("k"))).await;
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    assert!(!told.2.contains("idempotency_in_flight"), "nothing is in flight, nothing is registered: {told:?}");
}

/// A Join that ends while an oracle is asked: the record is in doubt, nothing runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_ends_while_an_oracle_is_asked_is_in_doubt() {
    let route = Route::new()
        .on_panic(OnPanic::InDoubt)
        .on_running(OnRunning::Join { wait: Duration::from_millis(50) })
        .ask(|_| async { std::future::pending::<Found>().await });
    let (engine, keys) = bound(Setup::new().route("POST", "/pay", route)).await;
    async fn panics() -> Response<Body> {
        panic!("of the handler's")
    }
    let app = Router::new().route("/pay", post(panics)).layer(keys);
    let first = send(&app, request("/pay", Some("k"))).await;
    assert!(first.2.contains("idempotency_in_doubt"), "{first:?}");
    let told = send(&app, request("/pay", Some("k"))).await;
    assert!(told.2.contains("idempotency_in_doubt"), "nothing runs, and it says so: {told:?}");
    engine.shutdown().await;
}

/// A layer around a router that it can't see into (`nest_service`, `fallback_service`) switches the layer inside of that off.
#[tokio::test(flavor = "multi_thread")]
async fn a_required_route_stays_required_below_a_layer_that_sees_no_template() {
    let (engine, keys) = bound(Setup::new().route("POST", "/api/pay", Route::new().required())).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let pay = post(async move || counted.fetch_add(1, Ordering::SeqCst).to_string());
    let inner = Router::new().route("/pay", pay).layer(keys.clone());
    let alone = Router::new().nest_service("/api", inner.clone());
    assert_eq!(send(&alone, request("/api/pay", None)).await.0, 400, "without the outer layer");
    let app = Router::new().nest_service("/api", inner).layer(keys);
    let told = send(&app, request("/api/pay", None)).await;
    assert_eq!((told.0, runs.load(Ordering::SeqCst)), (400, 0), "it ran without a key: {told:?}");
    engine.shutdown().await;
}

/// An engine that was not prepared has no oracle, and the layer binds to it all the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_without_the_oracles_of_the_routes_is_refused() {
    let config = Setup::new().route("POST", "/pay", Route::new().ask(|_| async { Found::NotStarted })).build().unwrap();
    let mut limits = Limits::default();
    limits.answer_bytes = 1 << 20;
    let engine = Engine::builder().limits(limits).open_store(Arc::new(MemoryStore::new())).unwrap();
    assert!(config.bind(&engine).await.is_err(), "in doubt for ever: nobody is asked");
}

/// A client that hangs up after its request was handed to the engine and before the handler starts: the handler runs all the
/// same, and the log and the counts say `definitive`, refused before anything ran.
#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_before_the_start_is_not_noted_as_surely_not_run() {
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let store = Arc::new(FaultyStore::new(inner).keeping_inner());
    let config = Setup::new().route("POST", "/pay", Route::new()).build().unwrap();
    let engine = config.prepare(Engine::builder()).open_store(store.clone()).unwrap();
    let keys = config.bind(&engine).await.unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let app = Router::new()
        .route("/pay", post(async move || counted.fetch_add(1, Ordering::SeqCst).to_string()))
        .layer(keys.clone());
    let gate = store.hold_commits();
    let sending = tokio::spawn(async move { send(&app, request("/pay", Some("k"))).await });
    until(&engine, |stats| stats.in_flight == 1).await;
    sending.abort();
    assert!(sending.await.is_err());
    drop(gate);
    until(&engine, |stats| stats.in_flight == 0 && stats.running == 0).await;
    assert_eq!(runs.load(Ordering::SeqCst), 1, "it ran");
    let counts = keys.counts().unwrap();
    assert!(!counts.is_empty(), "it ran, and nobody counted it: it was logged as definitive");
    engine.shutdown().await;
}

mod actix_edge {
    use super::*;
    use actix_web::dev::{Service, ServiceResponse};
    use actix_web::test::{TestRequest, init_service};
    use actix_web::{App, HttpMessage, HttpRequest, HttpResponse, web};

    fn keyed() -> actix_web::test::TestRequest {
        TestRequest::post().uri("/pay").insert_header(("idempotency-key", "k"))
    }

    async fn ask<S, R, B>(app: &S, request: R) -> (u16, String)
    where
        S: Service<R, Response = ServiceResponse<B>, Error = actix_web::Error>,
        R: HttpMessage,
        B: actix_web::body::MessageBody + 'static,
    {
        request.extensions_mut().insert(Principal::new("a").unwrap());
        let response = match tokio::time::timeout(Duration::from_secs(60), app.call(request)).await.expect("it hangs") {
            Ok(response) => response.into_parts().1.map_into_boxed_body(),
            Err(error) => error.error_response(),
        };
        let status = response.status().as_u16();
        let body = actix_web::body::to_bytes(response.into_body()).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The worker stops before a *re-run* begins. The attempt before it may have paid: the record must stay.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_worker_that_stops_before_a_rerun_leaves_the_doubt_and_the_token() {
        let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let store = Arc::new(FaultyStore::new(inner).keeping_inner());
        let config = Setup::new().route("POST", "/pay", Route::new().rerun()).build().unwrap();
        let engine = config.prepare(Engine::builder()).open_store(store.clone()).unwrap();
        let keys = config.bind(&engine).await.unwrap();
        let tokens: Arc<Mutex<Vec<[u8; 32]>>> = Arc::default();
        let on_worker = |until: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            let (keys, tokens) = (keys.clone(), Arc::clone(&tokens));
            move || {
                actix_web::rt::System::new().block_on(async move {
                    let handler = move |request: HttpRequest| {
                        let token = request.extensions().get::<Attempt>().unwrap().token().0;
                        let is_first = {
                            let mut tokens = tokens.lock().unwrap();
                            tokens.push(token);
                            tokens.len() == 1
                        };
                        async move {
                            let mut response = HttpResponse::Ok().body("paid");
                            if is_first {
                                response.extensions_mut().insert(Disposition::InDoubt);
                            }
                            response
                        }
                    };
                    let app = init_service(App::new().wrap(keys).route("/pay", web::post().to(handler))).await;
                    tokio::select! {
                        biased;
                        told = ask(&app, keyed().to_request()) => Some(told),
                        () = until => None,
                    }
                })
            }
        };
        let forever = || Box::pin(std::future::pending()) as std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
        let run = on_worker(forever());
        let first = tokio::task::spawn_blocking(run).await.unwrap();
        assert_eq!(first.unwrap().0, 503, "in doubt");
        until(&engine, |stats| stats.live_actors == 0).await;
        // The retry is to run it again, and its worker stops while the registration is being written.
        let gate = store.hold_commits();
        let asked = engine.clone();
        let waiting = Box::pin(async move { until(&asked, |stats| stats.in_flight == 1).await });
        let run = on_worker(waiting);
        assert!(tokio::task::spawn_blocking(run).await.unwrap().is_none());
        drop(gate);
        until(&engine, |stats| stats.in_flight == 0 && stats.running == 0).await;
        let run = on_worker(forever());
        let third = tokio::task::spawn_blocking(run).await.unwrap();
        assert_eq!(third, Some((200, "paid".into())));
        let tokens = tokens.lock().unwrap().clone();
        assert_eq!(tokens.len(), 2);
        assert_eq!(tokens[0], tokens[1], "downstream sees two payments");
        engine.shutdown().await;
    }

    /// When `shutdown` returns, the file is free and another process may run what is in doubt. So nothing of the old one may
    /// go on: with axum the handler is aborted with its operation, with actix-web it runs on.
    #[actix_web::test]
    async fn a_handler_does_not_outlive_the_engine_that_left_it_in_doubt() {
        let mut limits = Limits::default();
        limits.drain = Duration::from_millis(50);
        let config = Setup::new().route("POST", "/pay", Route::new().rerun()).build().unwrap();
        let engine = config.prepare(Engine::builder().limits(limits)).open_store(Arc::new(MemoryStore::new())).unwrap();
        let keys = config.bind(&engine).await.unwrap();
        let (gate, effects) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let (held, counted) = (Arc::clone(&gate), Arc::clone(&effects));
        let handler = move || {
            let (held, counted) = (Arc::clone(&held), Arc::clone(&counted));
            async move {
                held.acquire().await.unwrap().forget();
                counted.fetch_add(1, Ordering::SeqCst);
                HttpResponse::Ok().body("paid")
            }
        };
        let app = init_service(App::new().wrap(keys).route("/pay", web::post().to(handler))).await;
        let stopping = async {
            until(&engine, |stats| stats.running == 1).await;
            engine.shutdown().await;
        };
        let (told, ()) = tokio::join!(ask(&app, keyed().to_request()), stopping);
        assert_eq!(told.0, 503, "in doubt");
        // The engine is closed, its file could be open elsewhere by now.
        gate.add_permits(1);
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(effects.load(Ordering::SeqCst), 0, "it pays after its engine has closed");
    }

    /// With actix-web a Join that ends while an oracle is asked waits on for the oracle.
    #[actix_web::test]
    async fn a_join_ends_in_time_while_an_oracle_is_asked() {
        let route = Route::new()
            .on_running(OnRunning::Join { wait: Duration::from_millis(50) })
            .on_panic(OnPanic::InDoubt)
            .ask(|_| async { std::future::pending::<Found>().await });
        let mut limits = Limits::default();
        limits.oracle_timeout = Duration::from_secs(20);
        let config = Setup::new().route("POST", "/pay", route).build().unwrap();
        let engine = config.prepare(Engine::builder().limits(limits)).open_store(Arc::new(MemoryStore::new())).unwrap();
        let keys = config.bind(&engine).await.unwrap();
        let handler = || async {
            if true {
                panic!("of the handler's");
            }
            HttpResponse::Ok().finish()
        };
        let app = init_service(App::new().wrap(keys).route("/pay", web::post().to(handler))).await;
        assert_eq!(ask(&app, keyed().to_request()).await.0, 503);
        let told = tokio::time::timeout(Duration::from_secs(5), ask(&app, keyed().to_request())).await;
        assert!(told.is_ok(), "50 ms were asked for");
    }
}

/// The same with "only named routes have keys": the key itself is ignored, and the handler runs twice under it.
#[tokio::test(flavor = "multi_thread")]
async fn a_named_route_keeps_its_keys_below_a_layer_that_sees_no_template() {
    let setup = Setup::new().every_route(Route::new().unkeyed()).route("POST", "/api/pay", Route::new());
    let (engine, keys) = bound(setup).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let pay = post(async move || counted.fetch_add(1, Ordering::SeqCst).to_string());
    let inner = Router::new().route("/pay", pay).layer(keys.clone());
    let app = Router::new().nest_service("/api", inner).layer(keys);
    for is_again in [false, true] {
        assert_eq!(send(&app, request("/api/pay", Some("k"))).await, (200, is_again, "0".into()));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1, "one key, one run");
    engine.shutdown().await;
}

/// The default policy leaves a record in doubt until somebody says what happened.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_can_end_what_is_in_doubt() {
    let (engine, keys) = bound(Setup::new().route("POST", "/pay", Route::new())).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let handler = async move || {
        let mut response = "?".into_response();
        if counted.fetch_add(1, Ordering::SeqCst) < 2 {
            response.extensions_mut().insert(Disposition::InDoubt);
        }
        response
    };
    let app = Router::new().route("/pay", post(handler)).layer(keys.clone());
    let key = |id| keys.key("POST", "/pay", &Principal::new("a").unwrap(), id).unwrap();
    for id in ["done", "free"] {
        assert_eq!(send(&app, request("/pay", Some(id))).await.0, 503);
    }
    let answer = Answer::new(201).header("x-found", "in the books").body(*b"paid");
    assert_eq!(keys.resolve(&key("done"), answer.clone()).await.unwrap(), Resolved::Recorded);
    assert_eq!(keys.resolve(&key("done"), answer).await.unwrap(), Resolved::Already);
    assert_eq!(send(&app, request("/pay", Some("done"))).await, (201, true, "paid".into()));
    assert!(keys.release(&key("free")).await.unwrap());
    assert_eq!(send(&app, request("/pay", Some("free"))).await, (200, false, "?".into()));
    assert_eq!(runs.load(Ordering::SeqCst), 3);
    assert!(!keys.release(&key("done")).await.unwrap(), "it was paid");
    assert_eq!(send(&app, request("/pay", Some("done"))).await, (201, true, "paid".into()));
    assert!(matches!(keys.release(&key("nothing")).await.unwrap_err().kind(), ErrorKind::NotFound));
    engine.shutdown().await;
}

/// What runs says itself how it ends: an operator who is too fast frees no key under it.
#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_neither_released_nor_answered_for() {
    let (engine, keys) = bound(Setup::new().route("POST", "/pay", Route::new())).await;
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let handler = move || {
        let held = Arc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            "paid"
        }
    };
    let app = Router::new().route("/pay", post(handler)).layer(keys.clone());
    let key = keys.key("POST", "/pay", &Principal::new("a").unwrap(), "k").unwrap();
    let (first, ()) = tokio::join!(send(&app, request("/pay", Some("k"))), async {
        until(&engine, |stats| stats.running == 1).await;
        let refused = [keys.release(&key).await.unwrap_err(), keys.resolve(&key, Answer::new(200)).await.unwrap_err()];
        assert!(
            refused.iter().all(|error| matches!(error.kind(), ErrorKind::Duplicate(Status::Registered))),
            "{refused:?}"
        );
        gate.add_permits(1);
    });
    assert_eq!(first, (200, false, "paid".into()));
    assert_eq!(send(&app, request("/pay", Some("k"))).await, (200, true, "paid".into()));
    engine.shutdown().await;
}
