//! The edge to axum, without sockets: templates and targets, layers around and inside, what comes out of a body.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use crate::support::*;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use http_body::{Body as HttpBody, Frame};
use http_body_util::{BodyExt, Full};
use ibid::http::{Answer, Disposition, Idempotency, Principal, Route, Setup};
use tower::ServiceExt;
use tower::limit::GlobalConcurrencyLimitLayer;

/// A POST of this body with the key `k`, by the principal `a`.
fn request(target: &str, body: &str) -> Request {
    let mut request = Request::post(target).header("idempotency-key", "k").body(Body::from(body.to_owned())).unwrap();
    request.extensions_mut().insert(Principal::new("a").unwrap());
    request
}

/// With this header field, in the place of its others.
fn with(mut request: Request, name: &'static str, value: &str) -> Request {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

/// What a client sees of an answer.
#[derive(Debug)]
struct Seen {
    status: u16,
    is_replayed: bool,
    /// `None`: it broke off.
    body: Option<String>,
    trailers: Option<HeaderMap>,
}

impl Seen {
    /// A problem of this code.
    fn says(&self, code: &str) -> bool {
        self.body.as_ref().is_some_and(|body| body.contains(&format!("\"code\":\"{code}\"")))
    }

    fn text(&self) -> &str {
        self.body.as_deref().unwrap()
    }
}

async fn send(app: &Router, request: Request) -> Seen {
    let Ok(response) = within_a_minute(app.clone().oneshot(request)).await;
    let (status, mark) = (response.status().as_u16(), response.headers().get("idempotency-replayed").cloned());
    let is_replayed = mark.is_some_and(|mark| mark == "true");
    let whole = within_a_minute(response.into_body().collect()).await.ok();
    let trailers = whole.as_ref().and_then(|whole| whole.trailers().cloned());
    let body = whole.map(|whole| String::from_utf8(whole.to_bytes().to_vec()).unwrap());
    Seen { status, is_replayed, body, trailers }
}

/// A handler that answers with the number of the run.
fn counting(counted: &Counted) -> MethodRouter {
    let counted = counted.clone();
    post(async move || counted.pass().await.to_string())
}

fn labels(idempotency: &Idempotency) -> Vec<String> {
    idempotency.counts().unwrap().into_iter().map(|count| count.route).collect()
}

#[tokio::test]
async fn the_template_has_the_prefixes_of_nested_routers_and_so_has_the_target() {
    let (engine, idempotency) = bound(Setup::new()).await;
    let counted = Counted::new();
    let inner = Router::new().route("/pay/{id}", counting(&counted)).layer(idempotency.clone());
    let app = Router::new().nest("/v1/{tenant}", inner.clone()).nest("/v2", inner);
    assert_eq!(send(&app, request("/v1/a/pay/7", "")).await.text(), "1");
    let retry = send(&app, request("/v1/a/pay/7", "")).await;
    assert!(retry.is_replayed && retry.text() == "1", "{retry:?}");
    // What is stripped before the inner router's handlers see it still tells one target from another.
    let other = send(&app, request("/v1/b/pay/7", "")).await;
    assert!(other.status == 409 && other.says("idempotency_mismatch"), "{other:?}");
    assert_eq!(send(&app, request("/v2/pay/7", "")).await.text(), "2", "another route, another key");
    let mut labels = labels(&idempotency);
    labels.dedup();
    assert_eq!(labels, ["POST /v1/{tenant}/pay/{id}", "POST /v2/pay/{id}"]);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_layer_inside_of_the_layer_stands_aside() {
    let (engine, idempotency) = bound(Setup::new()).await;
    let counted = Counted::new();
    let inner = Router::new().route("/pay", counting(&counted)).layer(idempotency.clone());
    let app = Router::new().nest("/v1", inner).layer(idempotency.clone());
    for is_replayed in [false, true] {
        let seen = send(&app, request("/v1/pay", "")).await;
        assert_eq!((seen.status, seen.text(), seen.is_replayed), (200, "1", is_replayed));
    }
    let counts = idempotency.counts().unwrap();
    assert!(counts.len() == 2 && counts.iter().all(|count| count.count == 1), "each once: {counts:?}");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_request_that_no_template_fits_needs_no_key_and_may_have_one() {
    let (engine, idempotency) = bound(Setup::new()).await;
    let counted = Counted::new();
    let app = Router::new().route("/pay", counting(&counted)).layer(idempotency.clone());
    let without_key = Request::post("/nowhere").body(Body::empty()).unwrap();
    assert_eq!(send(&app, without_key).await.status, 404);
    for is_replayed in [false, true] {
        let seen = send(&app, request("/nowhere", "")).await;
        assert_eq!((seen.status, seen.is_replayed), (404, is_replayed));
    }
    assert_eq!(labels(&idempotency), ["unmatched", "unmatched"]);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_limit_inside_of_the_layer_counts_runs_and_not_clients() {
    let (engine, idempotency) = bound(Setup::new()).await;
    let (counted, mut started) = Counted::held();
    // A clone of a limited service is not the one that is ready, and panics when it is called.
    let app = Router::new().route("/{n}", counting(&counted)).layer((idempotency, GlobalConcurrencyLimitLayer::new(1)));
    tokio::select! {
        biased;
        seen = send(&app, request("/2", "")) => panic!("{seen:?}"),
        run = started.recv() => assert_eq!(run, Some(1)),
    }
    // Its client has gone, and it still runs: the next one waits.
    let mut next = std::pin::pin!(send(&app, with(request("/3", ""), "idempotency-key", "other")));
    for _ in 0..100 {
        assert!(std::future::poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx).is_pending())).await);
        settled(&engine).await;
    }
    assert_eq!(counted.runs(), 1);
    counted.release();
    assert_eq!(next.await.text(), "2");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_stops_nothing() {
    let (engine, idempotency) = bound(Setup::new()).await;
    let (counted, mut started) = Counted::held();
    let app = Router::new().route("/", counting(&counted)).layer(idempotency);
    tokio::select! {
        biased;
        seen = send(&app, request("/", "")) => panic!("{seen:?}"),
        run = started.recv() => assert_eq!(run, Some(1)),
    }
    let refused = send(&app, request("/", "")).await;
    assert!(refused.status == 409 && refused.says("idempotency_in_flight"), "{refused:?}");
    counted.release();
    until(&engine, |stats| stats.in_flight == 0).await;
    let seen = send(&app, request("/", "")).await;
    assert_eq!((seen.text(), seen.is_replayed, counted.runs()), ("1", true, 1));
    engine.shutdown().await;
}

/// What becomes of a retry.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Retry {
    Replays,
    Runs,
    IsInDoubt,
}

/// Answers with this status, and says of it what the request's header fields tell it to.
fn obedient(counted: &Counted) -> MethodRouter {
    let counted = counted.clone();
    post(async move |headers: HeaderMap| {
        let header = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let status: u16 = header("x-status").unwrap().parse().unwrap();
        let mut response = (StatusCode::from_u16(status).unwrap(), counted.pass().await.to_string()).into_response();
        let own = match header("x-own").as_deref() {
            Some("keep") => Some(Disposition::Keep),
            Some("forget") => Some(Disposition::Forget),
            Some("in doubt") => Some(Disposition::InDoubt),
            _ => None,
        };
        if let Some(own) = own {
            response.extensions_mut().insert(own);
        }
        response
    })
}

#[tokio::test]
async fn the_handlers_word_stands_above_the_judges_and_that_above_the_rule_for_5xx() {
    let judge = |head: &Answer| match head.status() {
        402 => Disposition::Forget,
        202 => Disposition::InDoubt,
        _ => Disposition::Keep,
    };
    let setup = Setup::new().route("POST", "/judged", Route::new().keep_5xx(false).judge(judge)).route(
        "POST",
        "/forgetful",
        Route::new().keep_5xx(false),
    );
    let (engine, idempotency) = bound(setup).await;
    let counted = Counted::new();
    let app = ["/judged", "/forgetful", "/plain"]
        .into_iter()
        .fold(Router::new(), |app, target| app.route(target, obedient(&counted)))
        .layer(idempotency);
    let table = [
        ("/plain", "500", "", Retry::Replays),
        ("/plain", "402", "", Retry::Replays),
        ("/plain", "200", "forget", Retry::Runs),
        ("/plain", "200", "in doubt", Retry::IsInDoubt),
        ("/forgetful", "500", "", Retry::Runs),
        ("/forgetful", "599", "", Retry::Runs),
        ("/forgetful", "499", "", Retry::Replays),
        ("/forgetful", "500", "keep", Retry::Replays),
        ("/judged", "500", "", Retry::Replays),
        ("/judged", "402", "", Retry::Runs),
        ("/judged", "202", "", Retry::IsInDoubt),
        ("/judged", "402", "keep", Retry::Replays),
        ("/judged", "202", "forget", Retry::Runs),
        ("/judged", "200", "in doubt", Retry::IsInDoubt),
    ];
    for (number, (target, status, own, retry)) in table.into_iter().enumerate() {
        let asked = async || {
            let request = with(request(target, ""), "idempotency-key", &number.to_string());
            send(&app, with(with(request, "x-status", status), "x-own", own)).await
        };
        let (first, second) = (asked().await, asked().await);
        let found = match (second.status, second.is_replayed) {
            (503, false) if second.says("idempotency_in_doubt") => Retry::IsInDoubt,
            (_, true) => Retry::Replays,
            (_, false) => Retry::Runs,
        };
        assert_eq!(found, retry, "{target} {status} {own}: {first:?}, {second:?}");
        let expected = if retry == Retry::IsInDoubt { "503" } else { status };
        assert_eq!([first.status.to_string(), second.status.to_string()], [expected, expected]);
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn what_a_route_leaves_out_and_what_it_adds_tells_one_request_from_another() {
    let route = Route::new().without_fields(["nonce"]).with_headers(["X-Tenant"]);
    let (engine, idempotency) = bound(Setup::new().every_route(route)).await;
    let counted = Counted::new();
    let app = Router::new().route("/", counting(&counted)).layer(idempotency);
    let tenant = |request| with(request, "x-tenant", "t");
    let first = send(&app, tenant(request("/", r#"{"nonce":1,"amt":7}"#))).await;
    assert_eq!((first.status, first.is_replayed), (200, false));
    let same = send(&app, tenant(request("/", r#"{ "amt": 7.0, "nonce": 2 }"#))).await;
    assert!(same.is_replayed && same.text() == "1", "{same:?}");
    for other in [
        tenant(request("/", r#"{"nonce":1,"amt":8}"#)),
        tenant(request("/", r#"{"nonce":1,"amt":7,"more":{"nonce":1}}"#)),
        tenant(request("/?a", r#"{"nonce":1,"amt":7}"#)),
        tenant(with(request("/", r#"{"nonce":1,"amt":7}"#), "content-type", "application/json")),
        request("/", r#"{"nonce":1,"amt":7}"#),
        with(request("/", r#"{"nonce":1,"amt":7}"#), "x-tenant", "u"),
    ] {
        let seen = send(&app, other).await;
        assert!(seen.status == 409 && seen.says("idempotency_mismatch"), "{seen:?}");
    }
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

/// A handler that hands out this body once.
fn handing_out(body: Body) -> MethodRouter {
    let body = Arc::new(Mutex::new(Some(body)));
    post(async move || body.lock().unwrap().take().map(Response::new).ok_or(StatusCode::GONE))
}

#[tokio::test]
async fn trailers_go_to_the_first_client_and_are_no_part_of_what_is_kept() {
    let (engine, idempotency) = bound(Setup::new()).await;
    let trailers = HeaderMap::from_iter([("x-sum".try_into().unwrap(), HeaderValue::from_static("1"))]);
    let body = Full::new(Bytes::from("whole")).with_trailers(std::future::ready(Some(Ok(trailers.clone()))));
    let app = Router::new().route("/", handing_out(Body::new(body))).layer(idempotency);
    let first = send(&app, request("/", "")).await;
    assert_eq!((first.text(), &first.trailers), ("whole", &Some(trailers)));
    let retry = send(&app, request("/", "")).await;
    assert!(retry.is_replayed);
    assert_eq!((retry.text(), &retry.trailers), ("whole", &None));
    engine.shutdown().await;
}

#[tokio::test]
async fn the_first_client_is_told_a_length_where_the_handler_told_one_and_nowhere_else() {
    for (is_told, body) in [(true, Body::from("whole")), (false, Body::new(Chunks(vec!["ole", "wh"])))] {
        assert_eq!(body.size_hint().exact().is_some(), is_told);
        let (engine, idempotency) = bound(Setup::new()).await;
        let app = Router::new().route("/", handing_out(body)).layer(idempotency);
        let Ok(first) = app.clone().oneshot(request("/", "")).await;
        assert_eq!(first.body().size_hint().exact(), is_told.then_some(5));
        assert_eq!(first.into_body().collect().await.unwrap().to_bytes(), "whole");
        let Ok(retry) = app.oneshot(request("/", "")).await;
        assert_eq!(retry.body().size_hint().exact(), Some(5), "what is kept has a length");
        engine.shutdown().await;
    }
}

/// A body of these chunks, the last one first, without a length.
struct Chunks(Vec<&'static str>);

impl HttpBody for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop().map(|chunk| Ok(Frame::data(Bytes::from(chunk)))))
    }
}

/// A body of these chunks that breaks off.
struct Broken(Vec<&'static str>);

impl HttpBody for Broken {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let chunk = self.0.pop().ok_or_else(|| std::io::Error::other("it broke off"));
        Poll::Ready(Some(chunk.map(|chunk| Frame::data(Bytes::from(chunk)))))
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_goes_out_so_far_and_is_not_kept() {
    let (engine, idempotency) = bound(Setup::new()).await;
    let app = Router::new().route("/", handing_out(Body::new(Broken(vec!["b", "a"])))).layer(idempotency);
    let Ok(first) = app.clone().oneshot(request("/", "")).await;
    let mut body = first.into_body();
    for chunk in ["a", "b"] {
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), chunk);
    }
    assert!(body.frame().await.unwrap().is_err());
    let retry = send(&app, request("/", "")).await;
    assert!(retry.status == 409 && retry.says("idempotency_answer_not_kept"), "{retry:?}");
    assert!(retry.text().contains("\"original_status\":200"), "{retry:?}");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_request_that_breaks_off_runs_nothing_and_its_key_stays_free() {
    let (engine, idempotency) = bound(Setup::new()).await;
    let counted = Counted::new();
    let app = Router::new().route("/", counting(&counted)).layer(idempotency);
    let broken = request("/", "").map(|_| Body::new(Broken(vec!["a"])));
    let seen = send(&app, broken).await;
    assert_eq!((seen.status, counted.runs()), (400, 0), "{seen:?}");
    assert_eq!(send(&app, request("/", "")).await.text(), "1");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_panic_in_an_answers_body_is_one_of_the_handlers() {
    struct Panics;
    impl HttpBody for Panics {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            panic!("of the body's")
        }
    }
    let (engine, idempotency) = bound(Setup::new()).await;
    let app = Router::new().route("/", handing_out(Body::new(Panics))).layer(idempotency);
    for is_replayed in [false, true] {
        let seen = send(&app, request("/", "")).await;
        assert!(seen.status == 500 && seen.says("idempotency_outcome_unknown"), "{seen:?}");
        assert_eq!(seen.is_replayed, is_replayed);
    }
    engine.shutdown().await;
}
