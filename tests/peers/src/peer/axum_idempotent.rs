//! axum-idempotent over its own store, in memory: replays only, as it keeps nothing on disk.

use std::sync::Arc;

use ::axum_idempotent::{IdempotentLayer, IdempotentOptions};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::routing::post;
use ruts::store::Ttl;
use ruts::store::moka::MokaStore;
use ruts::{CookieOptions, Session, SessionLayer};
use tower::Service;
use tower_cookies::CookieManagerLayer;

use super::ibid_axum::{IBID_AXUM, RouterCaller, pay};
use crate::drive::{HOT, Peer, Workload, fill_by_calls};
use crate::payload;
use crate::{AnyError, locked};

#[derive(Default)]
pub(crate) struct AxumIdempotent {
    /// With a session for each scope.
    open: Option<(Router, Arc<[HeaderValue]>)>,
}

impl Peer for AxumIdempotent {
    type Caller = RouterCaller;

    fn name(&self) -> &str {
        "axum-idempotent"
    }

    fn version(&self) -> String {
        format!("{}, ruts {} over moka", locked("axum-idempotent"), locked("ruts"))
    }

    fn offers(&self, workload: Workload) -> bool {
        workload == Workload::Replay
    }

    fn beside(&self) -> &'static str {
        IBID_AXUM
    }

    async fn fill(&mut self, records: u64) -> Result<(), AnyError> {
        let seconds = payload::RETENTION_SECONDS;
        let options =
            IdempotentOptions::default().expire_after(i64::try_from(seconds)?).use_idempotency_key_header(None, true);
        let cookie = CookieOptions::build().name("session").max_age(seconds).path("/");
        let sessions = SessionLayer::new(Arc::new(MokaStore::builder().build())).with_cookie_options(cookie);
        let mut router = Router::new()
            .route("/pay", post(pay))
            .layer(IdempotentLayer::<MokaStore>::new(options))
            .route("/log-in", post(log_in))
            .layer(sessions)
            .layer(CookieManagerLayer::new());
        let mut cookies = Vec::new();
        for _ in 0..payload::SCOPES {
            let Ok(response) = router.call(Request::post("/log-in").body(Body::empty())?).await;
            let cookie = response.headers().get(SET_COOKIE).ok_or("no session")?.to_str()?;
            cookies.push(HeaderValue::from_str(cookie.split(';').next().unwrap_or(cookie))?);
        }
        self.open = Some((router, cookies.into()));
        fill_by_calls(self.callers(64).await?, records.min(HOT)).await
    }

    async fn callers(&mut self, count: usize) -> Result<Vec<RouterCaller>, AnyError> {
        let (router, cookies) = self.open.as_ref().ok_or("it is filled first")?;
        let caller = |_| {
            let cookies = Arc::clone(cookies);
            let send = move |number: u64, request: &mut Request| {
                let cookie = cookies.get((number % payload::SCOPES) as usize).ok_or("no such scope")?;
                request.headers_mut().insert(COOKIE, cookie.clone());
                Ok(())
            };
            RouterCaller { router: router.clone(), authenticate: Box::new(send) }
        };
        Ok((0..count).map(caller).collect())
    }
}

/// There is a session once something is kept in it.
async fn log_in(session: Session<MokaStore>) -> Result<(), String> {
    let ttl = Ttl::new(payload::RETENTION_SECONDS as i64).map_err(|error| error.to_string())?;
    session.set("user", &1_u8, ttl, None).await.map_err(|error| error.to_string())
}
