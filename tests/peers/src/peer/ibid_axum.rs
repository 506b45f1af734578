//! ibid's layer in front of an axum handler, called in process: what axum-idempotent is put beside.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::routing::post;
use http_body_util::BodyExt;
use ibid::Engine;
use ibid::http::{Principal, Route, Setup};
use tempfile::TempDir;
use tower::Service;

use super::ibid::roomy;
use crate::drive::{Caller, HOT, Peer, Workload, fill_by_calls};
use crate::payload::{self, Answer};
use crate::{AnyError, locked};

pub(crate) const IBID_AXUM: &str = "ibid behind axum";

pub(crate) struct IbidAxum {
    directory: PathBuf,
    open: Option<(Engine, Router, TempDir)>,
}

impl IbidAxum {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), open: None }
    }
}

impl Peer for IbidAxum {
    type Caller = RouterCaller;

    fn name(&self) -> &str {
        IBID_AXUM
    }

    fn version(&self) -> String {
        format!("{}, axum {}", locked("ibid"), locked("axum"))
    }

    fn offers(&self, workload: Workload) -> bool {
        workload == Workload::Replay
    }

    fn beside(&self) -> &'static str {
        IBID_AXUM
    }

    async fn fill(&mut self, records: u64) -> Result<(), AnyError> {
        if let Some((engine, ..)) = self.open.take() {
            engine.shutdown().await;
        }
        let directory = tempfile::tempdir_in(&self.directory)?;
        let kept = Route::new().ttl(Duration::from_secs(payload::RETENTION_SECONDS));
        let setup = Setup::new().route("POST", "/pay", kept).build()?;
        let engine = setup.prepare(Engine::builder().limits(roomy())).open(directory.path().join("ibid.redb"))?;
        let idempotency = setup.bind(&engine).await?;
        let router = Router::new().route("/pay", post(pay)).layer(idempotency);
        self.open = Some((engine, router, directory));
        fill_by_calls(self.callers(512).await?, records.min(HOT)).await
    }

    async fn callers(&mut self, count: usize) -> Result<Vec<RouterCaller>, AnyError> {
        let (_, router, _) = self.open.as_ref().ok_or("it is filled first")?;
        let send = |number: u64, request: &mut Request| {
            request.extensions_mut().insert(Principal::new(payload::scope(number))?);
            Ok(())
        };
        Ok((0..count).map(|_| RouterCaller { router: router.clone(), authenticate: Box::new(send) }).collect())
    }
}

/// The operation, as a handler.
pub(super) async fn pay(request: Bytes) -> Vec<u8> {
    payload::answer_to(&request).map(Vec::from).unwrap_or_default()
}

/// Says whose request it is.
pub(super) type Authenticate = dyn Fn(u64, &mut Request) -> Result<(), AnyError> + Send + Sync;

/// One who calls a router without a socket.
pub(crate) struct RouterCaller {
    pub(super) router: Router,
    pub(super) authenticate: Box<Authenticate>,
}

impl Caller for RouterCaller {
    async fn fresh(&mut self, number: u64) -> Result<Answer, AnyError> {
        let mut request = Request::post("/pay")
            .header("idempotency-key", payload::id_text(number))
            .body(Body::from(payload::request(number).to_vec()))?;
        (self.authenticate)(number, &mut request)?;
        let Ok::<_, Infallible>(response) = self.router.call(request).await;
        if !response.status().is_success() {
            return Err(format!("status {}", response.status()).into());
        }
        Ok(Answer::try_from(&*response.into_body().collect().await?.to_bytes())?)
    }

    async fn replay(&mut self, number: u64) -> Result<Answer, AnyError> {
        self.fresh(number).await
    }
}
