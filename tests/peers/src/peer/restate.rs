//! Restate: a virtual object per key, called over the ingress with an idempotency key; its handler runs here.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::server::conn::http2;
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use restate_sdk::hyper::HyperEndpoint;
use restate_sdk::prelude::{Endpoint, HandlerError, ObjectContext, TerminalError, object};
use tokio::net::{TcpListener, TcpStream};

use crate::drive::{Caller, HOT, Peer, fill_by_calls};
use crate::payload::{self, Answer};
use crate::{AnyError, locked};

/// Who fills it, at once.
const FILLERS: usize = 256;
/// An answer that takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(30);
const BETWEEN_TRIES: Duration = Duration::from_millis(500);
const TRIES: usize = 20;

/// The operation, as Restate runs it.
struct Payments;

#[object]
impl Payments {
    #[handler]
    async fn pay(&self, _context: ObjectContext<'_>, request: Vec<u8>) -> Result<Vec<u8>, HandlerError> {
        match payload::answer_to(&request) {
            Some(answer) => Ok(answer.to_vec()),
            None => Err(TerminalError::new("a short request").into()),
        }
    }
}

pub(crate) struct Restate {
    ingress: u16,
    version: String,
    is_filled: bool,
}

impl Restate {
    /// Serves the handler, and tells the server where.
    pub(crate) async fn new(ingress: u16, admin: u16) -> Result<Self, AnyError> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        tokio::spawn(serve(listener));
        let deployment = format!("{{\"uri\":\"http://127.0.0.1:{port}/\"}}");
        register(admin, &deployment).await?;
        let version = ask(admin, Method::GET, "/version", String::new()).await?;
        let version = String::from_utf8_lossy(&version).into_owned();
        let version =
            version.split("\"version\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("unknown");
        Ok(Self { ingress, version: version.to_owned(), is_filled: false })
    }
}

/// A server that has just been started is healthy before it takes everything.
async fn register(admin: u16, deployment: &str) -> Result<(), AnyError> {
    let mut tries = tokio::time::interval(BETWEEN_TRIES);
    let mut last = Ok(());
    for _ in 0..TRIES {
        tries.tick().await;
        last = ask(admin, Method::POST, "/deployments", deployment.to_owned()).await.map(drop);
        if last.is_ok() {
            break;
        }
    }
    last
}

/// Asks the admin server, which may close a connection at any time.
async fn ask(admin: u16, method: Method, path: &str, body: String) -> Result<Bytes, AnyError> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "localhost")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::from(body))?;
    let mut sender = connect(admin).await?;
    tokio::time::timeout(PATIENCE, send(&mut sender, request)).await.map_err(|_| "no answer")?
}

/// The SDK's own server, with one thing more: it leaves Nagle's algorithm on, which makes a lone call wait for 40 ms.
async fn serve(listener: TcpListener) -> Result<(), AnyError> {
    let endpoint = HyperEndpoint::new(Endpoint::builder().bind(Payments).build());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), endpoint.clone()),
        );
    }
}

async fn connect(port: u16) -> Result<SendRequest<Full<Bytes>>, AnyError> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // It ends with its sender.
    tokio::spawn(connection);
    Ok(sender)
}

async fn send(sender: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Result<Bytes, AnyError> {
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    if parts.status.is_success() {
        Ok(body)
    } else {
        Err(format!("status {}: {}", parts.status, String::from_utf8_lossy(&body)).into())
    }
}

impl Peer for Restate {
    type Caller = RestateCaller;

    fn name(&self) -> &str {
        "Restate"
    }

    fn version(&self) -> String {
        format!("{}, restate-sdk {}", self.version, locked("restate-sdk"))
    }

    /// It cannot be emptied while it runs, and a million calls would take it too long.
    async fn fill(&mut self, records: u64) -> Result<(), AnyError> {
        if records > 0 && !self.is_filled {
            fill_by_calls(self.callers(FILLERS).await?, records.min(HOT)).await?;
            self.is_filled = true;
        }
        Ok(())
    }

    async fn callers(&mut self, count: usize) -> Result<Vec<RestateCaller>, AnyError> {
        let mut callers = Vec::with_capacity(count);
        for _ in 0..count {
            callers.push(RestateCaller(connect(self.ingress).await?));
        }
        Ok(callers)
    }
}

pub(crate) struct RestateCaller(SendRequest<Full<Bytes>>);

impl Caller for RestateCaller {
    async fn fresh(&mut self, number: u64) -> Result<Answer, AnyError> {
        let id = payload::id_text(number);
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/Payments/{id}/pay"))
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/octet-stream")
            .header("idempotency-key", id)
            .body(Full::from(payload::request(number).to_vec()))?;
        let answer = tokio::time::timeout(PATIENCE, send(&mut self.0, request)).await.map_err(|_| "no answer")??;
        Ok(Answer::try_from(&*answer)?)
    }

    async fn replay(&mut self, number: u64) -> Result<Answer, AnyError> {
        self.fresh(number).await
    }
}
