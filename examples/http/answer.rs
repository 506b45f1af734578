//! What the handler is asked and what it answers, in no framework's types.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use ibid::Token;
use ibid::http::Disposition;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// One request, as it reaches the handler.
pub(crate) struct Asked<'a> {
    pub(crate) route: &'static str,
    /// As received.
    pub(crate) query: &'a str,
    pub(crate) actor: Option<&'a str>,
    pub(crate) body: &'a [u8],
    /// Of the attempt, where there is one.
    pub(crate) token: Option<Token>,
}

#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) status: u16,
    /// In order; one name may come more than once.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Body,
    pub(crate) disposition: Option<Disposition>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// None at all, as a 204 has it.
    None,
    Whole(Vec<u8>),
    /// See [`Endless`].
    Endless,
}

impl Given {
    pub(crate) fn json(status: u16, body: String) -> Self {
        Self::new(status, "application/json", Body::Whole(body.into_bytes()))
    }

    pub(crate) fn text(content_type: &str, body: String) -> Self {
        Self::new(200, content_type, Body::Whole(body.into_bytes()))
    }

    /// What was asked is wrong, and nothing was done.
    pub(crate) fn wrong(status: u16, error: &str) -> Self {
        Self::json(status, super::json(&serde_json::json!({ "error": error })))
    }

    pub(crate) fn new(status: u16, content_type: &str, body: Body) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.into())];
        Self { status, headers, body, disposition: None }
    }
}

const CHUNK: [u8; 1024] = [b'x'; 1024];

/// 1,024 times `x` every 5 ms, for ever.
pub(crate) struct Endless(Interval);

impl Endless {
    pub(crate) fn new() -> Self {
        let mut every = interval(Duration::from_millis(5));
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(every)
    }

    pub(crate) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<&'static [u8]> {
        ready!(self.0.poll_tick(cx));
        Poll::Ready(&CHUNK)
    }
}
