//! A shop that takes payments over HTTP, with axum: the same `Idempotency-Key` twice is one payment.
//!
//! ```text
//! cargo run --features axum --example http_server -- --db shop.redb --port 8080
//! curl -s -i -X POST localhost:8080/pay -H 'X-Actor: a' -H 'Idempotency-Key: "k1"' -d '{"amt":1}'
//! curl -s -i -X POST localhost:8080/pay -H 'X-Actor: a' -H 'Idempotency-Key: "k1"' -d '{"amt":1}'
//! curl -s localhost:8080/count
//! ```
//! The second answer is the first one, byte for byte, and says `Idempotency-Replayed: true`; one payment was started. Try
//! `{"amt":2}` under the same key, kill the server and start it again, leave the key out. `http_server_actix.rs` is the same on
//! actix-web. `X-Actor` stands for an authentication: a layer outside ibid's makes the principal of it.
//!
//! # Routes
//! ```text
//! POST /pay, PATCH /pay     a key is required; a panic is a stored 500; in doubt after a crash: 503
//! POST /refund              a panic leaves it in doubt; what is in doubt is looked up in the journal
//! POST /v1/pay              a key is optional
//! POST /v2/pay              what is in doubt after a crash is run again by its retry
//! GET /pay                  the same handler, without keys
//! GET /count                {"started":3,"effects":3,"finished":3,"routes":{"POST /pay":2,"POST /refund":1}}
//! GET /metrics              Prometheus text
//! ```
//!
//! # What a payment does
//! It starts (`started`), sleeps, has its effect (`effects`; a refund's is a line in the file `<db>.journal`), sleeps again, and ends
//! (`finished`). It answers `{"route":"POST /pay","n":1,"actor":"a","len":9,"sha256":"<of the body>"}`. The query scripts it:
//! ```text
//! sleep=MS  sleep_after=MS  panic=1|2 (before or after the effect)  status=N  header=Name:Value (repeatable)  bytes=N
//! stream=1 (an answer without end)  as=keep|forget|in_doubt (what is to become of the answer, by the handler's word)
//! ```
//! Values are percent-decoded to bytes, `+` is a plus. A query that makes no sense is answered with 400 and starts nothing.
//!
//! # Faults
//! With `--admin`, and then nothing expires by itself:
//! ```text
//! POST /admin/store?on=admit|finish|any&fails=N[&fate=written]     the next N such transactions fail
//! POST /admin/clock?freeze=1 | advance_ms=N | jump_ms=N | run=1    {"now_ms":N}
//! POST /admin/expiry-sweep?slice=N                                 {"removed":R,"held_back":false}
//! GET  /admin/records                                              all that there are, oldest first
//! POST /admin/corrupt?key_hash=H                                   a record that cannot be read any more
//! ```
//!
//! # Flags, log, end
//! `--help` prints the flags: see `http/args.rs`. `listening on 127.0.0.1:PORT` comes out when it is ready. On stderr is one JSON object
//! per line: each request on a route with keys, warnings, errors. SIGTERM gives what runs 10 s. Exit status 0 after that, 2 if it
//! cannot start.

#[path = "http/mod.rs"]
mod http;

use std::convert::Infallible;
use std::error::Error;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::Request;
use axum::http::{StatusCode, Uri};
use axum::middleware::map_request;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{
    ACTOR, Args, Asked, Demo, End, Endless, GET_PAY, Given, PATCH_PAY, PAY, POSTED, RECORDS, REFUND, V1_PAY, V2_PAY,
};
use http_body::Frame;
use ibid::http::Principal;
use ibid::{Attempt, PAYLOAD_BYTES_CEILING};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

fn main() -> ExitCode {
    http::start(|args| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(serve(args))
    })
}

async fn serve(args: Args) -> Result<(), Box<dyn Error>> {
    let mut end = End::new()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).await?;
    let demo = Demo::open(&args).await?;
    println!("listening on {}", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum::serve(listener, router(&demo)).with_graceful_shutdown(async {
        // It is sent, or nobody is left who could.
        drop(stopped.await);
    });
    let serving = tokio::spawn(server.into_future());
    end.asked().await;
    demo.close(async { stop.send(()) }, serving).await;
    Ok(())
}

/// The layer goes on with `Router::layer`, where the template of a route is known; what authenticates is outside of it.
fn router(demo: &Demo) -> Router {
    let pay = |route| {
        let handler = demo.handler.clone();
        move |request| async move { pay(&handler, route, request).await }
    };
    let tell = |tell: fn(&Demo) -> Given| {
        let demo = demo.clone();
        move || async move { response(tell(&demo)) }
    };
    let mut router = Router::new()
        .route("/pay", post(pay(PAY)).patch(pay(PATCH_PAY)).get(pay(GET_PAY)))
        .route("/refund", post(pay(REFUND)))
        .nest("/v1", Router::new().route("/pay", post(pay(V1_PAY))))
        .nest("/v2", Router::new().route("/pay", post(pay(V2_PAY))))
        .route("/count", get(tell(Demo::count)))
        .route("/metrics", get(tell(Demo::metrics)));
    if let Some(admin) = &demo.admin {
        let administer = || {
            let admin = Arc::clone(admin);
            move |uri: Uri| async move { response(admin.answer(uri.path(), uri.query().unwrap_or_default()).await) }
        };
        router = POSTED.into_iter().fold(router, |router, path| router.route(path, post(administer())));
        router = router.route(RECORDS, get(administer()));
    }
    router.layer(demo.idempotency.clone()).layer(map_request(authenticate))
}

/// An absent, empty or too long header names nobody.
async fn authenticate(mut request: Request) -> Request {
    let actor = request.headers().get(ACTOR).map(|actor| Principal::new(actor.as_bytes()));
    if let Some(Ok(principal)) = actor {
        request.extensions_mut().insert(principal);
    }
    request
}

async fn pay(handler: &http::Handler, route: &'static str, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = match to_bytes(body, PAYLOAD_BYTES_CEILING).await {
        Ok(body) => body,
        Err(error) => return response(Given::wrong(400, &error.to_string())),
    };
    let actor = parts.extensions.get::<Principal>().map(|actor| String::from_utf8_lossy(actor.as_ref()));
    let token = parts.extensions.get::<Attempt>().map(|attempt| *attempt.token());
    let (query, actor) = (parts.uri.query().unwrap_or_default(), actor.as_deref());
    response(handler.answer(Asked { route, query, actor, body: &body, token }).await)
}

/// Repeated header names stay apart.
fn response(given: Given) -> Response {
    let body = match given.body {
        http::Body::None => Body::empty(),
        http::Body::Whole(bytes) => Body::from(bytes),
        http::Body::Endless => Body::new(EndlessBody(Endless::new())),
    };
    let made = given.headers.iter().fold(Response::builder().status(given.status), |made, (name, value)| {
        made.header(name.as_str(), value.as_slice())
    });
    let mut response = made.body(body).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response());
    if let Some(disposition) = given.disposition {
        response.extensions_mut().insert(disposition);
    }
    response
}

struct EndlessBody(Endless);

impl HttpBody for EndlessBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_chunk(cx).map(|chunk| Some(Ok(Frame::data(Bytes::from_static(chunk)))))
    }
}
