//! The way of a checkpoint from a running operation to its key's actor and back.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::message::{Ask, Question, RouterAddr, Submit, Ticket};
use crate::attempt::{SaveCheckpoint, Saving};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::machine::Said;
use crate::policy::Flow;
use crate::record::{AttemptId, Bytes};
use crate::time::UnixMillis;

pub(super) struct Saver {
    flow: Flow,
    key: Key,
    limit: usize,
    router: RouterAddr,
}

impl Saver {
    pub(super) fn new(flow: &Flow, key: &Key, limit: usize, router: &RouterAddr) -> Self {
        Self { flow: flow.clone(), key: key.clone(), limit, router: Arc::clone(router) }
    }
}

impl SaveCheckpoint for Saver {
    fn save(&self, attempt: AttemptId, bytes: Bytes, expires_at: Option<UnixMillis>) -> Saving {
        if bytes.len() > self.limit {
            let too_large = ErrorKind::TooLarge { bytes: bytes.len(), limit: self.limit };
            return Box::pin(std::future::ready(Err(too_large.into())));
        }
        let (reply, heard) = oneshot::channel();
        let ask = Ask::Checkpoint { attempt, bytes, expires_at };
        let (flow, key) = (self.flow.clone(), self.key.clone());
        let question = Question::new((flow, key), ask, reply, 0, Arc::clone(&self.router));
        self.router.do_send(Submit(Ticket::new(Box::new(question))));
        Box::pin(async move {
            match heard.await {
                Ok(Said::Saved) => Ok(()),
                Ok(Said::Reply(Err(error))) => Err(error),
                // Another attempt owns the record now: what this one does proves nothing.
                Ok(Said::FencedOff) => Err(ErrorKind::InDoubt(None).into()),
                Ok(_) => Err(Error::from(ErrorKind::Internal)),
                Err(_) => Err(ErrorKind::Closed.into()),
            }
        })
    }
}
