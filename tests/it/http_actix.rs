//! The edge to actix-web, without sockets: what is wrapped, where a handler runs, what comes out of it.

use std::future::Ready;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::support::*;
use actix_web::body::{BodySize, MessageBody, to_bytes};
use actix_web::dev::{Payload, Service, ServiceRequest, ServiceResponse};
use actix_web::error::{ErrorImATeapot, PayloadError};
use actix_web::http::header::HeaderValue;
use actix_web::test::{TestRequest, init_service};
use actix_web::{App, Error, HttpMessage, HttpRequest, HttpResponse, guard, web};
use http_body::Frame;
use http_body_util::BodyDataStream;
use ibid::Attempt;
use ibid::http::{Disposition, Idempotency, OnPanic, OnRunning, Principal, Route, Setup};
use tokio::sync::mpsc;

/// A POST with a key.
fn post(target: &str, key: &str) -> TestRequest {
    TestRequest::post().uri(target).insert_header(("idempotency-key", key))
}

/// What a client sees of an answer, and what the middlewares around the layer see.
#[derive(Debug)]
struct Seen {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    size: BodySize,
    /// `None`: it broke off.
    body: Option<Vec<u8>>,
    came_as_error: bool,
}

impl Seen {
    fn values(&self, name: &str) -> Vec<&[u8]> {
        self.headers.iter().filter(|(own, _)| own == name).map(|(_, value)| &**value).collect()
    }

    fn is_replayed(&self) -> bool {
        self.values("idempotency-replayed") == [b"true"]
    }

    fn text(&self) -> &str {
        std::str::from_utf8(self.body.as_deref().unwrap()).unwrap()
    }

    /// A problem of this code.
    fn says(&self, code: &str) -> bool {
        self.text().contains(&format!("\"code\":\"{code}\""))
    }
}

/// Sends it as the principal `a`, and gives the reply with its body unread.
async fn reply<S, R, B>(app: &S, request: R) -> Result<HttpResponse<B>, HttpResponse>
where
    S: Service<R, Response = ServiceResponse<B>, Error = Error>,
    R: HttpMessage,
{
    request.extensions_mut().insert(Principal::new("a").unwrap());
    match within_a_minute(app.call(request)).await {
        Ok(response) => Ok(response.into_parts().1),
        Err(error) => Err(error.error_response()),
    }
}

/// Sends it as the principal `a`.
async fn send<S, R, B>(app: &S, request: R) -> Seen
where
    S: Service<R, Response = ServiceResponse<B>, Error = Error>,
    R: HttpMessage,
    B: MessageBody + 'static,
{
    match reply(app, request).await {
        Ok(response) => seen(response.map_into_boxed_body(), false).await,
        Err(response) => seen(response, true).await,
    }
}

async fn seen(response: HttpResponse, came_as_error: bool) -> Seen {
    let headers = response.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    let (status, size) = (response.status().as_u16(), response.body().size());
    let body = within_a_minute(to_bytes(response.into_body())).await.ok().map(|body| body.to_vec());
    Seen { status, headers, size, body, came_as_error }
}

/// A body that is fed by the test: chunks, errors, a panic, its end.
struct Fed(mpsc::UnboundedReceiver<Chunk>);

enum Chunk {
    Bytes(&'static [u8]),
    Error,
    Panic,
}

fn fed() -> (mpsc::UnboundedSender<Chunk>, Fed) {
    let (feed, chunks) = mpsc::unbounded_channel();
    (feed, Fed(chunks))
}

/// Of these chunks, fed before.
fn fed_with(chunks: impl IntoIterator<Item = Chunk>) -> Fed {
    let (feed, body) = fed();
    chunks.into_iter().for_each(|chunk| feed.send(chunk).ok().unwrap());
    body
}

impl MessageBody for Fed {
    type Error = Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<web::Bytes, Error>>> {
        self.0.poll_recv(cx).map(|chunk| match chunk? {
            Chunk::Bytes(bytes) => Some(Ok(web::Bytes::from_static(bytes))),
            Chunk::Error => Some(Err(ErrorImATeapot("it broke off"))),
            Chunk::Panic => panic!("of the body's"),
        })
    }
}

/// A service that panics before there is a future.
fn panicking<S>(_: ServiceRequest, _: &S) -> Ready<Result<ServiceResponse, Error>> {
    panic!("of the service's")
}

/// A route that hands out these bodies, one per run.
fn handing_out(body: Fed) -> actix_web::Route {
    let bodies = Rc::new(Mutex::new(Some(body)));
    web::post().to(move || {
        let body = bodies.lock().unwrap().take();
        async move { body.map_or_else(|| HttpResponse::Gone().finish(), |body| HttpResponse::Ok().body(body)) }
    })
}

/// A route that answers with the number of the run.
fn counting(counted: &Counted) -> actix_web::Route {
    let counted = counted.clone();
    web::post().to(move || {
        let counted = counted.clone();
        async move { counted.pass().await.to_string() }
    })
}

fn labels(idempotency: &Idempotency) -> Vec<String> {
    idempotency.counts().unwrap().into_iter().map(|count| count.route).collect()
}

#[actix_web::test]
async fn a_wrapped_resource_goes_by_its_own_whole_template() {
    let (engine, idempotency) = bound(Setup::new()).await;
    let counted = Counted::new();
    let other = web::resource("/widgets/{id}").guard(guard::Get()).to(HttpResponse::Gone);
    let action = web::resource("/widgets/action").wrap(idempotency.clone()).route(counting(&counted));
    let app = init_service(App::new().service(web::scope("/v1").service(other).service(action))).await;
    for replayed in [false, true] {
        let seen = send(&app, post("/v1/widgets/action", "k").to_request()).await;
        assert_eq!((seen.status, seen.text(), seen.is_replayed()), (200, "1", replayed));
    }
    assert_eq!(labels(&idempotency), ["POST /v1/widgets/action", "POST /v1/widgets/action"], "executed and replayed");
    engine.shutdown().await;
}

#[actix_web::test]
async fn a_wrapped_app_goes_by_the_first_template_that_fits_the_path_and_no_answer_reaches_another_target() {
    let (engine, idempotency) = bound(Setup::new()).await;
    let counted = Counted::new();
    let other = web::resource("/widgets/{id}").guard(guard::Header("x-other", "1")).route(counting(&counted));
    let action = web::resource("/widgets/action").route(counting(&counted));
    let app = init_service(App::new().wrap(idempotency.clone()).service(other).service(action)).await;
    for replayed in [false, true] {
        let seen = send(&app, post("/widgets/action", "k").to_request()).await;
        assert_eq!((seen.text(), seen.is_replayed()), ("1", replayed));
    }
    let other = send(&app, post("/widgets/7", "k").insert_header(("x-other", "1")).to_request()).await;
    assert!(other.status == 409 && other.says("idempotency_mismatch"), "{other:?}");
    assert!(labels(&idempotency).iter().all(|label| label == "POST /widgets/{id}"), "of the path alone");
    engine.shutdown().await;
}

#[actix_web::test]
async fn a_request_that_no_template_fits_needs_no_key_and_may_have_one() {
    let (engine, idempotency) = bound(Setup::new()).await;
    let app = init_service(App::new().wrap(idempotency.clone())).await;
    assert_eq!(send(&app, TestRequest::post().uri("/nowhere").to_request()).await.status, 404);
    for replayed in [false, true] {
        let seen = send(&app, post("/nowhere", "k").to_request()).await;
        assert_eq!((seen.status, seen.is_replayed()), (404, replayed));
    }
    assert_eq!(labels(&idempotency), ["unmatched", "unmatched"]);
    engine.shutdown().await;
}

#[actix_web::test]
async fn the_handler_gets_the_identical_bytes_its_attempt_and_a_layer_inside_of_the_layer_stands_aside() {
    let (engine, idempotency) = bound(Setup::new()).await;
    let echo = |request: HttpRequest, body: web::Bytes| async move {
        let number = request.extensions().get::<Attempt>().map(Attempt::number);
        HttpResponse::Ok().insert_header(("x-attempt", number.unwrap_or(0).to_string())).body(body)
    };
    let resource = web::resource("/echo").wrap(idempotency.clone()).route(web::post().to(echo));
    let app = init_service(App::new().wrap(idempotency.clone()).service(resource)).await;
    let body: Vec<u8> = (0..=255).collect();
    for replayed in [false, true] {
        let seen = send(&app, post("/echo", "k").set_payload(body.clone()).to_request()).await;
        assert_eq!((seen.status, seen.is_replayed()), (200, replayed), "{seen:?}");
        assert_eq!(seen.values("x-attempt"), [b"1"]);
        assert_eq!(seen.body.as_ref(), Some(&body));
    }
    engine.shutdown().await;
}

#[actix_web::test]
async fn an_answer_is_replayed_with_its_repeated_names_in_order_and_without_what_was_one_clients() {
    let (engine, idempotency) = bound(Setup::new()).await;
    let handler = || async {
        HttpResponse::Created()
            .append_header(("x-many", "1"))
            .append_header(("x-many", HeaderValue::from_bytes(b"\xff\xfe").unwrap()))
            .append_header(("x-many", "0"))
            .append_header(("set-cookie", "a=b"))
            .append_header(("idempotency-replayed", "true"))
            .body("made")
    };
    let resource = web::resource("/").wrap(idempotency).route(web::post().to(handler));
    let app = init_service(App::new().service(resource)).await;
    for replayed in [false, true] {
        let seen = send(&app, post("/", "k").to_request()).await;
        assert_eq!((seen.status, seen.text(), seen.size), (201, "made", BodySize::Sized(4)));
        assert_eq!(seen.values("x-many"), [b"1".as_slice(), b"\xff\xfe", b"0"]);
        assert_eq!(seen.values("set-cookie").len(), usize::from(!replayed));
        assert_eq!(seen.is_replayed(), replayed);
    }
    engine.shutdown().await;
}

#[actix_web::test]
async fn an_answer_without_a_body_is_replayed_without_one_and_without_a_length() {
    let (engine, idempotency) = bound(Setup::new()).await;
    let bare = |status| web::post().to(move || async move { HttpResponse::build(status).finish() });
    let app = App::new()
        .wrap(idempotency)
        .route("/204", bare(actix_web::http::StatusCode::NO_CONTENT))
        .route("/304", bare(actix_web::http::StatusCode::NOT_MODIFIED))
        .route("/200", bare(actix_web::http::StatusCode::OK));
    let app = init_service(app).await;
    for (target, size) in [("/204", BodySize::None), ("/304", BodySize::None), ("/200", BodySize::Sized(0))] {
        let first = send(&app, post(target, "k").to_request()).await;
        let replay = send(&app, post(target, "k").to_request()).await;
        assert!(replay.is_replayed() && !first.is_replayed());
        assert_eq!((replay.status, replay.size, replay.body), (first.status, size, Some(Vec::new())));
        assert_eq!(replay.headers.len(), 1, "the mark alone: {:?}", replay.headers);
    }
    engine.shutdown().await;
}

#[actix_web::test]
async fn a_body_beyond_the_limit_declared_or_found_is_refused_and_its_key_stays_free() {
    let (engine, idempotency) = bound(Setup::new().request_bytes(4)).await;
    let counted = Counted::new();
    let app = init_service(App::new().wrap(idempotency).route("/", counting(&counted))).await;
    let declared = post("/", "k").insert_header(("content-length", "5"));
    for request in [declared, post("/", "k").set_payload("12345")] {
        let seen = send(&app, request.to_request()).await;
        assert!(seen.status == 413 && seen.says("idempotency_request_too_large"), "{seen:?}");
    }
    assert_eq!(counted.runs(), 0);
    let seen = send(&app, post("/", "k").insert_header(("content-length", "4")).set_payload("1234").to_request()).await;
    assert_eq!((seen.status, seen.text(), counted.runs()), (200, "1", 1));
    engine.shutdown().await;
}

/// A request's body that breaks off.
struct Broken(u8);

impl http_body::Body for Broken {
    type Data = web::Bytes;
    type Error = PayloadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<web::Bytes>, PayloadError>>> {
        self.0 += 1;
        Poll::Ready(Some(match self.0 {
            1 => Ok(Frame::data(web::Bytes::from_static(b"some"))),
            _ => Err(PayloadError::Incomplete(None)),
        }))
    }
}

#[actix_web::test]
async fn a_body_that_breaks_off_runs_nothing_and_its_key_stays_free() {
    let (engine, idempotency) = bound(Setup::new()).await;
    let counted = Counted::new();
    let app = App::new().wrap(idempotency).route("/", counting(&counted)).wrap_fn(|mut request, service| {
        if request.headers().contains_key("x-broken") {
            request.set_payload(Payload::Stream { payload: Box::pin(BodyDataStream::new(Broken(0))) });
        }
        service.call(request)
    });
    let app = init_service(app).await;
    let seen = send(&app, post("/", "k").insert_header(("x-broken", "1")).to_request()).await;
    assert_eq!((seen.status, counted.runs()), (400, 0), "{seen:?}");
    assert_eq!(send(&app, post("/", "k").to_request()).await.text(), "1");
    engine.shutdown().await;
}

#[actix_web::test]
async fn a_panic_wherever_it_is_becomes_the_kept_500_and_nothing_runs_again() {
    let (engine, idempotency) = bound(Setup::new()).await;
    let in_handler = web::post().to(|| async {
        if true {
            panic!("of the handler's");
        }
        HttpResponse::Ok().finish()
    });
    let in_service = web::resource("/service").wrap_fn(panicking).to(HttpResponse::Ok);
    let app = App::new()
        .wrap(idempotency.clone())
        .route("/handler", in_handler)
        .service(in_service)
        .route("/body", handing_out(fed_with([Chunk::Bytes(b"a"), Chunk::Panic])));
    let app = init_service(app).await;
    for (target, takes_the_request) in [("/handler", true), ("/service", true), ("/body", false)] {
        let first = send(&app, post(target, "k").to_request()).await;
        assert!(first.status == 500 && first.says("idempotency_outcome_unknown"), "{target}: {first:?}");
        assert_eq!((first.came_as_error, first.is_replayed()), (takes_the_request, false), "{target}");
        let retry = send(&app, post(target, "k").to_request()).await;
        assert_eq!((retry.status, retry.came_as_error, retry.is_replayed()), (500, false, true), "{target}");
        assert_eq!(retry.body, first.body);
    }
    assert_eq!(engine.stats().await.unwrap().in_flight, 0);
    engine.shutdown().await;
}

#[actix_web::test]
async fn a_panic_leaves_in_doubt_where_the_route_says_so() {
    let setup = Setup::new().every_route(Route::new().on_panic(OnPanic::InDoubt));
    let (engine, idempotency) = bound(setup).await;
    let service = web::resource("/").wrap_fn(panicking).to(HttpResponse::Ok);
    let app = init_service(App::new().wrap(idempotency).service(service)).await;
    for came_as_error in [true, false] {
        let seen = send(&app, post("/", "k").to_request()).await;
        assert!(seen.status == 503 && seen.says("idempotency_in_doubt"), "{seen:?}");
        assert_eq!(seen.came_as_error, came_as_error);
    }
    engine.shutdown().await;
}

#[actix_web::test]
async fn an_error_of_a_middleware_inside_is_an_answer_and_is_kept() {
    let (engine, idempotency) = bound(Setup::new()).await;
    let refusing = web::resource("/")
        .wrap_fn(|_, _| async { Err::<ServiceResponse, _>(ErrorImATeapot("short and stout")) })
        .to(HttpResponse::Ok);
    let app = init_service(App::new().wrap(idempotency).service(refusing)).await;
    for replayed in [false, true] {
        let seen = send(&app, post("/", "k").to_request()).await;
        assert_eq!((seen.status, seen.text(), seen.is_replayed()), (418, "short and stout", replayed));
    }
    engine.shutdown().await;
}

#[actix_web::test]
async fn middlewares_outside_see_replays_and_refusals_as_responses() {
    let (engine, idempotency) = bound(Setup::new()).await;
    let app = App::new().wrap(idempotency).route("/", counting(&Counted::new())).wrap_fn(|request, service| {
        let handled = service.call(request);
        async move {
            let mut response = handled.await?;
            response.headers_mut().insert("x-outside".try_into().unwrap(), HeaderValue::from_static("1"));
            Ok(response)
        }
    });
    let app = init_service(app).await;
    let other = post("/", "k").set_payload("other");
    let requests = [post("/", "k"), post("/", "k"), other, post("/", "\""), TestRequest::post().uri("/")];
    for (request, status) in requests.into_iter().zip([200, 200, 409, 400, 400]) {
        let seen = send(&app, request.to_request()).await;
        assert_eq!((seen.status, seen.values("x-outside")), (status, vec![b"1".as_slice()]), "{seen:?}");
    }
    engine.shutdown().await;
}

#[actix_web::test]
async fn the_handlers_own_disposition_wins() {
    let (engine, idempotency) = bound(Setup::new().every_route(Route::new().judge(|_| Disposition::Keep))).await;
    let counted = Counted::new();
    let telling = |disposition| {
        let counted = counted.clone();
        web::post().to(move || {
            let counted = counted.clone();
            async move {
                let mut response = HttpResponse::Ok().body(counted.pass().await.to_string());
                response.extensions_mut().insert(disposition);
                response
            }
        })
    };
    let app = App::new()
        .wrap(idempotency)
        .route("/forget", telling(Disposition::Forget))
        .route("/doubt", telling(Disposition::InDoubt));
    let app = init_service(app).await;
    for run in ["1", "2"] {
        let seen = send(&app, post("/forget", "k").to_request()).await;
        assert_eq!((seen.status, seen.text(), seen.is_replayed()), (200, run, false));
    }
    for _ in 0..2 {
        let seen = send(&app, post("/doubt", "k").to_request()).await;
        assert!(seen.status == 503 && seen.says("idempotency_in_doubt"), "{seen:?}");
        assert!(!seen.came_as_error, "the request is there to answer with");
    }
    assert_eq!(counted.runs(), 3);
    engine.shutdown().await;
}

#[actix_web::test]
async fn an_answer_too_long_or_broken_off_goes_out_as_it_came_and_is_not_kept() {
    let (engine, idempotency) = bound(Setup::new().answer_bytes(4)).await;
    let sized = web::post().to(|| async { HttpResponse::Ok().body("12345") });
    let app = App::new()
        .wrap(idempotency)
        .route("/sized", sized)
        .route("/long", handing_out(fed_with([Chunk::Bytes(b"123"), Chunk::Bytes(b"45"), Chunk::Bytes(b"6")])))
        .route("/broken", handing_out(fed_with([Chunk::Bytes(b"12"), Chunk::Error])));
    let app = init_service(app).await;
    for (target, body) in [("/sized", Some("12345")), ("/long", Some("123456")), ("/broken", None)] {
        let first = send(&app, post(target, "k").to_request()).await;
        assert_eq!((first.status, first.body.as_deref()), (200, body.map(str::as_bytes)), "{target}");
        let retry = send(&app, post(target, "k").to_request()).await;
        assert!(retry.status == 409 && retry.says("idempotency_answer_not_kept"), "{target}: {retry:?}");
        assert!(retry.text().contains("\"original_status\":200"), "{retry:?}");
    }
    engine.shutdown().await;
}

#[actix_web::test]
async fn an_answer_that_fits_is_kept_whole_and_announced_as_the_handler_did() {
    let (engine, idempotency) = bound(Setup::new().answer_bytes(4)).await;
    let chunks = [Chunk::Bytes(b"12"), Chunk::Bytes(b"34")];
    let app = init_service(App::new().wrap(idempotency).route("/", handing_out(fed_with(chunks)))).await;
    for size in [BodySize::Stream, BodySize::Sized(4)] {
        let seen = send(&app, post("/", "k").to_request()).await;
        assert_eq!((seen.status, seen.text(), seen.size), (200, "1234", size));
    }
    engine.shutdown().await;
}

#[actix_web::test]
async fn an_answer_that_takes_too_long_is_recorded_first_and_goes_out_as_it_comes() {
    let (engine, idempotency) = bound(Setup::new().answer_wait(Duration::from_millis(1))).await;
    let (feed, body) = fed();
    let app = init_service(App::new().wrap(idempotency).route("/", handing_out(body))).await;
    feed.send(Chunk::Bytes(b"begun")).ok().unwrap();
    let Ok(first) = reply(&app, post("/", "k").to_request()).await else { panic!("no response") };
    let retry = send(&app, post("/", "k").to_request()).await;
    assert!(retry.status == 409 && retry.says("idempotency_answer_not_kept"), "{retry:?}");
    feed.send(Chunk::Bytes(b" and ended")).ok().unwrap();
    drop(feed);
    assert_eq!(seen(first.map_into_boxed_body(), false).await.text(), "begun and ended");
    engine.shutdown().await;
}

#[actix_web::test]
async fn a_client_that_hangs_up_stops_nothing() {
    let (engine, idempotency) = bound(Setup::new()).await;
    let (counted, mut started) = Counted::held();
    let app = init_service(App::new().wrap(idempotency).route("/", counting(&counted))).await;
    tokio::select! {
        biased;
        _ = send(&app, post("/", "k").to_request()) => panic!("it ended"),
        run = started.recv() => assert_eq!(run, Some(1)),
    }
    let refused = send(&app, post("/", "k").to_request()).await;
    assert!(refused.status == 409 && refused.says("idempotency_in_flight"), "{refused:?}");
    counted.release();
    until(&engine, |stats| stats.in_flight == 0).await;
    let seen = send(&app, post("/", "k").to_request()).await;
    assert_eq!((seen.text(), seen.is_replayed(), counted.runs()), ("1", true, 1));
    engine.shutdown().await;
}

#[actix_web::test]
async fn who_joins_gets_the_runs_answer_as_a_response_of_its_own() {
    let setup = Setup::new().every_route(Route::new().on_running(OnRunning::Join { wait: Duration::from_secs(60) }));
    let (engine, idempotency) = bound(setup).await;
    let (counted, mut started) = Counted::held();
    let app = init_service(App::new().wrap(idempotency).route("/", counting(&counted))).await;
    let (first, second, ()) =
        tokio::join!(send(&app, post("/", "k").to_request()), send(&app, post("/", "k").to_request()), async {
            started.recv().await.unwrap();
            until(&engine, |stats| stats.in_flight == 2).await;
            counted.release();
        });
    assert_eq!([first.text(), second.text()], ["1", "1"]);
    assert!(first.is_replayed() != second.is_replayed() && !first.came_as_error && !second.came_as_error);
    engine.shutdown().await;
}

/// A worker of its own, which stops when `until` does, whatever still runs on it.
fn worker(idempotency: &Idempotency, counted: &Counted, until: impl Future<Output = ()> + Send + 'static) {
    let (idempotency, counted) = (idempotency.clone(), counted.clone());
    let thread = std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let app = init_service(App::new().wrap(idempotency).route("/", counting(&counted))).await;
            tokio::select! {
                biased;
                _ = send(&app, post("/", "k").to_request()) => panic!("it ended"),
                () = until => {}
            }
        });
    });
    thread.join().unwrap();
}

/// The same request on another worker.
async fn asked_elsewhere(idempotency: Idempotency, counted: &Counted) -> Seen {
    let counted = counted.clone();
    let asked = tokio::task::spawn_blocking(move || {
        actix_web::rt::System::new().block_on(async move {
            let app = init_service(App::new().wrap(idempotency).route("/", counting(&counted))).await;
            send(&app, post("/", "k").to_request()).await
        })
    });
    within_a_minute(asked).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_leaves_what_had_started_in_doubt() {
    let (engine, idempotency) = bound(Setup::new()).await;
    let (counted, mut started) = Counted::held();
    let begun = async move { assert_eq!(started.recv().await, Some(1)) };
    worker(&idempotency, &counted, begun);
    until(&engine, |stats| stats.in_flight == 0).await;
    counted.release();
    let seen = asked_elsewhere(idempotency, &counted).await;
    assert!(seen.status == 503 && seen.says("idempotency_in_doubt"), "{seen:?}");
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_before_the_start_leaves_the_key_free() {
    let faulty = Faulty::new();
    let config = Setup::new().build().unwrap();
    let (store, engine) = faulty.open_with(|limits| limits.answer_bytes = 1 << 20);
    let idempotency = config.bind(&engine).await.unwrap();
    let counted = Counted::new();
    let gate = store.hold_commits();
    let asked = engine.clone();
    let waiting = async move {
        until(&asked, |stats| stats.in_flight == 1).await;
    };
    worker(&idempotency, &counted, waiting);
    drop(gate);
    until(&engine, |stats| stats.in_flight == 0 && stats.running == 0).await;
    assert_eq!((counted.runs(), engine.stats().await.unwrap().records.in_doubt), (0, 0));
    let seen = asked_elsewhere(idempotency, &counted).await;
    assert_eq!((seen.status, seen.text(), seen.is_replayed()), (200, "1", false));
    engine.shutdown().await;
}
