//! The same shop as `http_server.rs`, with actix-web: the same routes, flags, answers and log.
//!
//! ```text
//! cargo run --features actix-web --example http_server_actix -- --db shop.redb --port 8080
//! curl -s -i -X POST localhost:8080/pay -H 'X-Actor: a' -H 'Idempotency-Key: "k1"' -d '{"amt":1}'
//! ```
//! What is different is in this file. An `App` is made per worker thread; engine and layer are made once, outside of its closure.
//! What is wrapped last runs first: the layer that makes a principal of `X-Actor` is outside of ibid's.

#[path = "http/mod.rs"]
mod http;

use std::convert::Infallible;
use std::error::Error;
use std::future::ready;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{self, Bytes, PayloadConfig, ServiceConfig};
use actix_web::{App, HttpMessage, HttpRequest, HttpResponse, HttpServer};
use http::{
    ACTOR, Args, Asked, Demo, End, Endless, GET_PAY, Given, PATCH_PAY, PAY, POSTED, RECORDS, REFUND, V1_PAY, V2_PAY,
};
use ibid::http::Principal;
use ibid::{Attempt, PAYLOAD_BYTES_CEILING};

fn main() -> ExitCode {
    http::start(|args| actix_web::rt::System::new().block_on(serve(args)))
}

async fn serve(args: Args) -> Result<(), Box<dyn Error>> {
    let mut end = End::new()?;
    let listener = http::listen(args.port)?.into_std()?;
    let demo = Demo::open(&args).await?;
    let address = listener.local_addr()?;
    let served = demo.clone();
    let server = HttpServer::new(move || {
        let demo = served.clone();
        App::new().configure(|config| routes(config, &demo)).wrap(demo.idempotency.clone()).wrap(from_fn(authenticate))
    })
    .disable_signals()
    .listen(listener)?
    .run();
    println!("listening on {address}");
    let handle = server.handle();
    let serving = actix_web::rt::spawn(server);
    end.asked().await;
    let served = async {
        handle.stop(true).await;
        serving.await
    };
    demo.close(handle.pause(), served).await;
    Ok(())
}

fn routes(config: &mut ServiceConfig, demo: &Demo) {
    let pay = |route| {
        let handler = demo.handler.clone();
        move |request, body| {
            let handler = handler.clone();
            async move { pay(&handler, route, request, body).await }
        }
    };
    let (counting, measuring) = (demo.clone(), demo.clone());
    let count = move || ready(response(counting.count()));
    let metrics = move || {
        let demo = measuring.clone();
        async move { response(demo.metrics().await) }
    };
    config
        .app_data(PayloadConfig::new(PAYLOAD_BYTES_CEILING))
        .service(
            web::resource("/pay")
                .route(web::post().to(pay(PAY)))
                .route(web::patch().to(pay(PATCH_PAY)))
                .route(web::get().to(pay(GET_PAY))),
        )
        .service(web::resource("/refund").route(web::post().to(pay(REFUND))))
        .service(web::scope("/v1").service(web::resource("/pay").route(web::post().to(pay(V1_PAY)))))
        .service(web::scope("/v2").service(web::resource("/pay").route(web::post().to(pay(V2_PAY)))))
        .service(web::resource("/count").route(web::get().to(count)))
        .service(web::resource("/metrics").route(web::get().to(metrics)));
    if let Some(admin) = &demo.admin {
        let administer = || {
            let admin = Arc::clone(admin);
            move |request: HttpRequest| {
                let admin = Arc::clone(&admin);
                async move { response(admin.answer(request.path(), request.query_string()).await) }
            }
        };
        for path in POSTED {
            config.service(web::resource(path).route(web::post().to(administer())));
        }
        config.service(web::resource(RECORDS).route(web::get().to(administer())));
    }
}

/// An absent, empty or too long header names nobody.
async fn authenticate(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let actor = request.headers().get(ACTOR).map(|actor| Principal::new(actor.as_bytes()));
    if let Some(Ok(principal)) = actor {
        request.extensions_mut().insert(principal);
    }
    next.call(request).await
}

async fn pay(handler: &http::Handler, route: &'static str, request: HttpRequest, body: Bytes) -> HttpResponse {
    let actor = request.extensions().get::<Principal>().cloned();
    let actor = actor.as_ref().map(|actor| String::from_utf8_lossy(actor.as_ref()));
    let token = request.extensions().get::<Attempt>().map(|attempt| *attempt.token());
    let (query, actor) = (request.query_string(), actor.as_deref());
    response(handler.answer(Asked { route, query, actor, body: &body, token }).await)
}

/// Repeated header names stay apart.
fn response(given: Given) -> HttpResponse {
    let Ok(status) = StatusCode::from_u16(given.status) else { return HttpResponse::InternalServerError().finish() };
    let mut made = HttpResponse::build(status);
    for (name, value) in &given.headers {
        made.append_header((name.as_str(), value.as_slice()));
    }
    let mut response = match given.body {
        http::Body::None => made.finish(),
        http::Body::Whole(bytes) => made.body(bytes),
        http::Body::Endless => made.body(BoxBody::new(EndlessBody(Endless::new()))),
    };
    if let Some(disposition) = given.disposition {
        response.extensions_mut().insert(disposition);
    }
    response
}

struct EndlessBody(Endless);

impl MessageBody for EndlessBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        self.0.poll_chunk(cx).map(|chunk| Some(Ok(Bytes::from_static(chunk))))
    }
}
