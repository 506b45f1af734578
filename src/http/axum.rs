//! The edge to axum: a tower `Layer` for [`Router::layer`](axum::Router::layer) and
//! [`Router::route_layer`](axum::Router::route_layer), inside of which the template of the route is known.
//!
//! It covers the routes that the router has when it is put on, and with `layer` the fallback. Where a service is nested
//! (`nest_service`) its templates are not seen from outside: put a layer inside, too; the same one on both is one.
//!
//! A handler runs on the *engine's* runtime, which is the one that the engine was opened in unless it was given another, whatever
//! becomes of the connection or the server. `Engine::shutdown` waits for it as long as [`Limits::drain`](crate::Limits::drain)
//! says, and aborts what has not ended by then: it is in doubt.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::BoxError;
use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, OriginalUri, Request};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::oneshot;
use tower::{Layer, Service};

use super::answer::{Answer, REPLAYED};
use super::idempotency::{Admitted, Idempotency, Incoming, Inside};
use super::keyed::{Keyed, Run, Served};
use super::principal::Principal;
use super::problem::Problem;
use super::route::Disposition;
use super::unwinding::unwinding;
use crate::{End, Operation};

/// What [`Idempotency`] makes of a service.
#[derive(Clone, Debug)]
pub struct IdempotencyService<S> {
    idempotency: Idempotency,
    inner: S,
}

impl<S> Layer<S> for Idempotency {
    type Service = IdempotencyService<S>;

    fn layer(&self, inner: S) -> IdempotencyService<S> {
        IdempotencyService { idempotency: self.clone(), inner }
    }
}

type Serving = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S, B> Service<Request> for IdempotencyService<S>
where
    S: Service<Request, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Serving;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The one that is ready is this one; its clone need not be.
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        let idempotency = self.idempotency.clone();
        Box::pin(async move { Ok(serve(&idempotency, ready, request).await) })
    }
}

async fn serve<S, B>(idempotency: &Idempotency, mut inner: S, request: Request) -> Response<Body>
where
    S: Service<Request, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (mut parts, body) = request.into_parts();
    let admitted = idempotency.admit(&incoming(&parts, &|name| values(&parts, name)));
    let keyed = match admitted {
        Admitted::Keyed(keyed) => keyed,
        Admitted::Refused(answer) => return response(&answer),
        Admitted::Passed(trace) => {
            let Ok(response) = inner.call(Request::from_parts(parts, body)).await;
            trace.passed(response.status().as_u16());
            return response.map(Body::new);
        }
        Admitted::Unkeyed => {
            let Ok(response) = inner.call(Request::from_parts(parts, body)).await;
            return response.map(Body::new);
        }
    };
    let body = match read(body, keyed.request_bytes()).await {
        Ok(body) => body,
        Err(problem) => return response(&keyed.refuse(problem)),
    };
    parts.extensions.insert(idempotency.inside());
    let call = keyed.call(&incoming(&parts, &|name| values(&parts, name)), &body);
    let (operation, first) = operation(&keyed, inner, Request::from_parts(parts, Body::from(body)));
    match keyed.submit(call, operation, first).await {
        Served::First(own) => own,
        Served::Told(answer) | Served::Late(answer) => response(&answer),
    }
}

fn values<'a>(parts: &'a Parts, name: &str) -> Vec<&'a [u8]> {
    parts.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
}

fn incoming<'a>(parts: &'a Parts, values: &'a dyn Fn(&str) -> Vec<&'a [u8]>) -> Incoming<'a> {
    // Nested routers strip their prefix from the request's own URI.
    let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0);
    Incoming {
        method: parts.method.as_str(),
        template: parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str),
        target: uri.path_and_query().map_or_else(|| uri.path(), |target| target.as_str()).as_bytes(),
        inside: parts.extensions.get::<Inside>().copied(),
        principal: parts.extensions.get::<Principal>().cloned(),
        values,
    }
}

async fn read(body: Body, limit: usize) -> Result<Bytes, Problem> {
    // What is declared needn't be read.
    if body.size_hint().lower() > limit as u64 {
        return Err(Problem::RequestTooLarge);
    }
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::RequestTooLarge),
        Err(_) => Err(Problem::BodyUnreadable),
    }
}

/// The handler as an operation, and where its own answer comes out.
fn operation<S, B>(keyed: &Keyed, mut inner: S, mut request: Request) -> (Operation, oneshot::Receiver<Response<Body>>)
where
    S: Service<Request, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (give, first) = oneshot::channel();
    let run = keyed.run();
    let operation = Operation::new(move |attempt| async move {
        run.begin(&attempt);
        request.extensions_mut().insert(attempt);
        let handled = unwinding(async {
            let Ok(response) = inner.call(request).await;
            ended(&run, response.map(Body::new)).await
        });
        match handled.await {
            Some((end, own)) => {
                // Nobody may be there to take it.
                drop(give.send(own));
                run.believed(end).await
            }
            None => run.panicked(),
        }
    });
    (operation, first)
}

/// How the run has ended, and the response as its first client gets it.
async fn ended(run: &Run, mut response: Response<Body>) -> (End, Response<Body>) {
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
    let (parts, body) = response.into_parts();
    let (kept, body) = keep(run, body).await;
    (run.answered(disposition, head, kept), Response::from_parts(parts, body))
}

/// The whole body, if it is short and soon enough, and the body as it goes out.
async fn keep(run: &Run, mut body: Body) -> (Option<Vec<u8>>, Body) {
    let most = run.answer_bytes();
    if body.size_hint().lower() > most as u64 {
        return (None, body);
    }
    let is_sized = body.size_hint().exact().is_some();
    let mut begun = Begun::default();
    let whole = tokio::time::timeout(run.answer_wait(), async {
        while begun.bytes <= most {
            match body.frame().await {
                None => return true,
                Some(frame) => begun.push(frame),
            }
            if begun.failed.is_some() {
                return false;
            }
        }
        false
    });
    let is_whole = whole.await.unwrap_or(false);
    let kept = is_whole.then(|| begun.data());
    // What has ended is not asked again.
    let rest = if is_whole { Body::empty() } else { body };
    (kept, Body::new(Resumed { begun, rest, is_sized }))
}

/// What was read of a body.
#[derive(Default)]
struct Begun {
    frames: VecDeque<Frame<Bytes>>,
    bytes: usize,
    failed: Option<axum::Error>,
}

impl Begun {
    fn push(&mut self, frame: Result<Frame<Bytes>, axum::Error>) {
        match frame {
            Ok(frame) => {
                self.bytes += frame.data_ref().map_or(0, Bytes::len);
                self.frames.push_back(frame);
            }
            Err(error) => self.failed = Some(error),
        }
    }

    fn data(&self) -> Vec<u8> {
        let chunks: Vec<&[u8]> = self.frames.iter().filter_map(Frame::data_ref).map(|data| &**data).collect();
        chunks.concat()
    }
}

/// A body of which a part was read before, or all of it. It announces its length if it did so to us.
struct Resumed {
    begun: Begun,
    rest: Body,
    is_sized: bool,
}

impl HttpBody for Resumed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(frame) = self.begun.frames.pop_front() {
            self.begun.bytes -= frame.data_ref().map_or(0, Bytes::len);
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(error) = self.begun.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        Pin::new(&mut self.rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.begun.frames.is_empty() && self.begun.failed.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.size_hint().exact().filter(|_| self.is_sized);
        rest.map_or_else(SizeHint::new, |rest| SizeHint::with_exact(rest.saturating_add(self.begun.bytes as u64)))
    }
}

/// What makes no header field or status was not made by a handler: it is left out.
fn response(answer: &Answer) -> Response<Body> {
    let body = if answer.body_bytes().is_empty() { Body::empty() } else { Body::from(answer.body_bytes().to_vec()) };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in answer.headers() {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}
