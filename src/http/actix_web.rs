//! The edge to actix-web: a middleware for [`Resource::wrap`](actix_web::Resource::wrap), and for
//! [`App::wrap`](actix_web::App::wrap) with care.
//!
//! # What to wrap
//! Wrap the **resource**, or the single route: there the request has been routed, and its template is the one that its
//! handler was found by, with the prefixes of all scopes.
//!
//! ```
//! use actix_web::dev::Service;
//! use actix_web::{App, HttpMessage, HttpResponse, web};
//! use ibid::Engine;
//! use ibid::http::{Principal, Route, Setup};
//! # #[actix_web::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let setup = Setup::new().route("POST", "/v1/pay", Route::new()).build()?;
//! let engine = setup.prepare(Engine::builder()).open_in_memory()?;
//! // Once, outside of the closure that every worker calls.
//! let idempotency = setup.bind(&engine).await?;
//! let app = move || {
//!     let pay = web::resource("/pay").wrap(idempotency.clone()).route(web::post().to(HttpResponse::Ok));
//!     App::new().service(web::scope("/v1").service(pay)).wrap_fn(|request, next| {
//!         // In place of an authentication: the principal comes from what that has verified.
//!         if let Ok(customer) = Principal::new("customer-17") {
//!             request.extensions_mut().insert(customer);
//!         }
//!         next.call(request)
//!     })
//! };
//! # drop(actix_web::test::init_service(app()).await);
//! # engine.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! What wraps a whole app or a scope runs before the routing inside of it. There the template is that of the first resource
//! whose path fits, guards or not: with `/widgets/{id}` guarded by GET before `/widgets/action`, `POST /widgets/action` goes
//! by `/widgets/{id}`. The same request always goes by the same one, and its target is part of what a retry must repeat, so
//! nothing runs twice and no answer reaches another request. But the *settings* are those of that template. So wrap an app
//! only if no two of its templates fit one path, or if all of its routes have the same settings.
//!
//! What authenticates goes outside: of two middlewares on one thing, the one that was wrapped last runs first. A middleware
//! that changes the request's URI, such as `NormalizePath`, has done so when it stands outside, and the changed URI is the
//! target then.
//!
//! # Where a handler runs
//! In a task of its own on the worker that has read the request, whatever becomes of the connection. A worker that stops
//! drops its tasks: what had started is in doubt then, what had not is surely not run. A graceful stop waits for
//! connections, so only handlers whose clients have gone meet that. The engine's own end aborts what has not ended by then.
//!
//! The client of a handler that has panicked gets its answer as an [`Error`] that makes that response: the
//! request went down with the handler, and a [`ServiceResponse`] needs one. Outer middlewares that look at responses alone,
//! for CORS say, don't see it. So does what an inner middleware has refused with an error. All else comes as a response.
//!
//! A client that is still sending its body reads an early 413 only if the server lingers: leave
//! [`HttpServer::client_disconnect_timeout`](https://docs.rs/actix-web/4/actix_web/struct.HttpServer.html) above 0.

use std::collections::VecDeque;
use std::future::{Future, Ready, poll_fn, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::{self, BodySize, BodyStream, BoxBody, MessageBody};
use actix_web::dev::{Payload, Service, ServiceRequest, ServiceResponse, Transform, forward_ready};
use actix_web::error::InternalError;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use actix_web::web::Bytes;
use actix_web::{Error, HttpMessage, HttpRequest, HttpResponse};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::answer::{Answer, REPLAYED};
use super::idempotency::{Admitted, Idempotency, Incoming, Inside};
use super::keyed::{Run, Served, in_doubt};
use super::principal::Principal;
use super::problem::Problem;
use super::route::Disposition;
use super::unwinding::unwinding;
use crate::{End, Operation, Reason};

/// What [`Idempotency`] makes of a service.
#[derive(Debug)]
pub struct IdempotencyMiddleware<S> {
    idempotency: Idempotency,
    inner: Rc<S>,
}

impl<S, B> Transform<S, ServiceRequest> for Idempotency
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse;
    type Error = Error;
    type Transform = IdempotencyMiddleware<S>;
    type InitError = ();
    type Future = Ready<Result<IdempotencyMiddleware<S>, ()>>;

    fn new_transform(&self, inner: S) -> Self::Future {
        ready(Ok(IdempotencyMiddleware { idempotency: self.clone(), inner: Rc::new(inner) }))
    }
}

type Serving = Pin<Box<dyn Future<Output = Result<ServiceResponse, Error>>>>;

impl<S, B> Service<ServiceRequest> for IdempotencyMiddleware<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse;
    type Error = Error;
    type Future = Serving;

    forward_ready!(inner);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let (idempotency, inner) = (self.idempotency.clone(), Rc::clone(&self.inner));
        Box::pin(async move { serve(&idempotency, inner, request).await })
    }
}

async fn serve<S, B>(
    idempotency: &Idempotency,
    inner: Rc<S>,
    mut request: ServiceRequest,
) -> Result<ServiceResponse, Error>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    let template = request.match_pattern();
    let admitted = idempotency.admit(&incoming(&request, template.as_deref(), &|name| values(&request, name)));
    let keyed = match admitted {
        Admitted::Keyed(keyed) => keyed,
        Admitted::Refused(answer) => return Ok(request.into_response(response(&answer))),
        Admitted::Passed(trace) => {
            let passed = inner.call(request).await.map(ServiceResponse::map_into_boxed_body);
            trace.passed(match &passed {
                Ok(response) => response.status().as_u16(),
                Err(error) => error.as_response_error().status_code().as_u16(),
            });
            return passed;
        }
        Admitted::Unkeyed => return inner.call(request).await.map(ServiceResponse::map_into_boxed_body),
    };
    let body = match read(&mut request, keyed.request_bytes()).await {
        Ok(body) => body,
        Err(problem) => return Ok(request.into_response(response(&keyed.refuse(problem)))),
    };
    let call = keyed.call(&incoming(&request, template.as_deref(), &|name| values(&request, name)), &body);
    request.set_payload(Payload::from(body));
    request.extensions_mut().insert(idempotency.inside());
    let run = keyed.run();
    let (operation, mut aftermath) = operation(run.clone(), inner, request);
    let (response, may_start) = match keyed.submit(call, operation, aftermath.first).await {
        Served::First(own) => (own, false),
        Served::Told(answer) => (response(&answer), false),
        Served::Late(answer) => (response(&answer), true),
    };
    // It comes back with the operation, done or not to be started; nobody waits here for one that goes on without a client.
    let is_gone = may_start || run.has_begun();
    let request = if is_gone { aftermath.request.try_recv().ok() } else { aftermath.request.await.ok() };
    match request {
        Some(request) => Ok(ServiceResponse::new(request, response)),
        None => Err(InternalError::from_response("the request is gone with its handler", response).into()),
    }
}

fn values<'a>(request: &'a ServiceRequest, name: &str) -> Vec<&'a [u8]> {
    request.headers().get_all(name).map(HeaderValue::as_bytes).collect()
}

fn incoming<'a>(
    request: &'a ServiceRequest,
    template: Option<&'a str>,
    values: &'a dyn Fn(&str) -> Vec<&'a [u8]>,
) -> Incoming<'a> {
    let uri = request.uri();
    let extensions = request.extensions();
    Incoming {
        method: request.method().as_str(),
        template,
        target: uri.path_and_query().map_or_else(|| uri.path(), |target| target.as_str()).as_bytes(),
        inside: extensions.get::<Inside>().copied(),
        principal: extensions.get::<Principal>().cloned(),
        values,
    }
}

async fn read(request: &mut ServiceRequest, limit: usize) -> Result<Bytes, Problem> {
    let declared = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    // What is declared needn't be read.
    if declared.is_some_and(|bytes| bytes > limit as u64) {
        return Err(Problem::RequestTooLarge);
    }
    match body::to_bytes_limited(BodyStream::new(request.take_payload()), limit).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(Problem::BodyUnreadable),
        Err(_) => Err(Problem::RequestTooLarge),
    }
}

/// What comes out of an operation, beside its end.
struct Aftermath {
    /// The handler's own answer, before the end.
    first: oneshot::Receiver<HttpResponse>,
    /// The request: before the end of a handler that has not taken it down with it, or when surely none is started any more.
    request: oneshot::Receiver<HttpRequest>,
}

/// The handler as a task of this worker, which the operation starts and waits for.
///
/// The task is there before anybody knows whether it has anything to do: the operation runs elsewhere, and when it starts, the
/// client and its future may be gone.
fn operation<S, B>(run: Run, inner: Rc<S>, request: ServiceRequest) -> (Operation, Aftermath)
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    let (start, started) = oneshot::channel();
    let (tell, end) = oneshot::channel();
    let (give, first) = oneshot::channel();
    let (give_back, given_back) = oneshot::channel();
    let task = run.clone();
    let handler = actix_web::rt::spawn(async move {
        let Ok(attempt) = started.await else {
            // Nobody may be there to take it; so below.
            drop(give_back.send(request.into_parts().0));
            return;
        };
        task.begin(&attempt);
        request.extensions_mut().insert(attempt);
        let (end, request, own) = handled(&task, &*inner, request).await;
        if let Some(request) = request {
            drop(give_back.send(request));
        }
        if let Some(own) = own {
            drop(give.send(own));
        }
        drop(tell.send(end));
    });
    let operation = Operation::new(move |attempt| async move {
        let is_first = attempt.number() == 1;
        let is_handed_over = start.send(attempt).is_ok();
        // Once the engine has given the operation up, somebody else may own the file: the handler must not go on.
        let _ends_with_it = Ends(handler.abort_handle());
        match end.await {
            Ok(end) => run.believed(end).await,
            Err(_) if is_handed_over && run.has_begun() => in_doubt("the worker of the handler stopped"),
            Err(_) if !is_first => in_doubt("the worker of the handler had stopped"),
            Err(_) => End::Definitive(Reason::from_bytes(*b"the worker of the handler had stopped")),
        }
    });
    (operation, Aftermath { first, request: given_back })
}

/// Ends a task when it is dropped, unless that has ended by itself.
struct Ends(AbortHandle);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How the run has ended, and what is left of it.
async fn handled<S, B>(
    run: &Run,
    inner: &S,
    request: ServiceRequest,
) -> (End, Option<HttpRequest>, Option<HttpResponse>)
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    B: MessageBody + 'static,
{
    let mut left = None;
    let handled = unwinding(async {
        let response = match inner.call(request).await {
            Ok(response) => {
                let (request, response) = response.into_parts();
                left = Some(request);
                response.map_into_boxed_body()
            }
            Err(error) => HttpResponse::from_error(error),
        };
        ended(run, response).await
    });
    match handled.await {
        Some((end, own)) => (end, left, Some(own)),
        None => (run.panicked(), left, None),
    }
}

/// How the run has ended, and the response as its first client gets it.
async fn ended(run: &Run, mut response: HttpResponse) -> (End, HttpResponse) {
    let handlers = response.extensions_mut().remove::<Disposition>();
    // Whoever sees it believes that this was said before.
    response.headers_mut().remove(REPLAYED);
    let head = response.headers().iter().fold(Answer::new(response.status().as_u16()), |head, (name, value)| {
        head.header(name.as_str(), value.as_bytes())
    });
    let disposition = run.disposition(handlers, &head);
    if disposition == Disposition::InDoubt {
        return (run.answered(disposition, head, None), response);
    }
    let (response, body) = response.into_parts();
    let (kept, body) = keep(run, body).await;
    (run.answered(disposition, head, kept), response.set_body(body))
}

/// The whole body, if it is short and soon enough, and the body as it goes out.
async fn keep(run: &Run, mut body: BoxBody) -> (Option<Vec<u8>>, BoxBody) {
    let most = run.answer_bytes();
    let size = body.size();
    match size {
        BodySize::None | BodySize::Sized(0) => return (Some(Vec::new()), body),
        BodySize::Sized(bytes) if bytes > most as u64 => return (None, body),
        BodySize::Sized(_) | BodySize::Stream => {}
    }
    let mut begun = Begun::default();
    let whole = tokio::time::timeout(run.answer_wait(), async {
        while begun.bytes <= most {
            match poll_fn(|cx| body.as_pin_mut().poll_next(cx)).await {
                None => return true,
                Some(Ok(chunk)) => begun.push(chunk),
                Some(Err(error)) => {
                    begun.failed = Some(error);
                    return false;
                }
            }
        }
        false
    });
    let is_whole = whole.await.unwrap_or(false);
    let kept = is_whole.then(|| begun.data());
    (kept, BoxBody::new(Resumed { begun, rest: (!is_whole).then_some(body), size }))
}

/// What was read of a body.
#[derive(Default)]
struct Begun {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    failed: Option<Box<dyn std::error::Error>>,
}

impl Begun {
    fn push(&mut self, chunk: Bytes) {
        self.bytes += chunk.len();
        self.chunks.push_back(chunk);
    }

    fn data(&self) -> Vec<u8> {
        let chunks: Vec<&[u8]> = self.chunks.iter().map(|chunk| &**chunk).collect();
        chunks.concat()
    }
}

/// A body of which a part was read before, or all of it. It announces itself as it did to us.
struct Resumed {
    begun: Begun,
    rest: Option<BoxBody>,
    size: BodySize,
}

impl MessageBody for Resumed {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        if let Some(chunk) = self.begun.chunks.pop_front() {
            return Poll::Ready(Some(Ok(chunk)));
        }
        if let Some(error) = self.begun.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match &mut self.rest {
            Some(rest) => rest.as_pin_mut().poll_next(cx),
            None => Poll::Ready(None),
        }
    }
}

/// What makes no header field or status was not made by a handler: it is left out.
fn response(answer: &Answer) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = match status {
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => BoxBody::new(body::None::new()),
        _ => BoxBody::new(answer.body_bytes().to_vec()),
    };
    let mut response = HttpResponse::with_body(status, body);
    for (name, value) in answer.headers() {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}
