//! What an earlier run left in doubt and the journal is to be asked about, before the server says that it listens.

use std::collections::HashSet;
use std::time::Duration;

use ibid::store::{Store, StoreError};
use ibid::{Status, Token};
use tokio::sync::watch;

/// How long the start waits for what should take no time at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// Attempts that were not asked about yet.
pub(crate) struct Doubts(watch::Sender<HashSet<Token>>);

impl Doubts {
    /// Nothing is, as far as is known.
    pub(crate) fn new() -> Self {
        Self(watch::Sender::default())
    }

    /// Whatever of the flow an opening of this store will find in doubt. Nobody may have been asked yet.
    pub(crate) fn read(&self, store: &dyn Store, flow: &str) -> Result<(), StoreError> {
        let entries = store.in_flight(None, usize::MAX)?;
        let found = entries.into_iter().filter_map(|entry| entry.found);
        let in_doubt = found.filter(|(key, record)| {
            key.flow() == flow && matches!(record.state.status(), Status::Registered | Status::InDoubt)
        });
        self.0.send_replace(in_doubt.map(|(_, record)| record.attempt.token).collect());
        Ok(())
    }

    pub(crate) fn note_asked(&self, token: &Token) {
        self.0.send_if_modified(|waiting| waiting.remove(token));
    }

    /// When each was asked about once.
    pub(crate) async fn all_asked(&self) {
        let mut waiting = self.0.subscribe();
        let asked = waiting.wait_for(HashSet::is_empty);
        if tokio::time::timeout(PATIENCE, asked).await.is_err() {
            tracing::warn!("the journal was not asked about everything in doubt");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::{Pin, pin};
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn the_start_waits_for_the_last_question() {
        let doubts = Doubts::new();
        doubts.all_asked().await;
        doubts.0.send_replace(HashSet::from([Token([1; 32]), Token([2; 32])]));
        doubts.note_asked(&Token([1; 32]));
        let mut waiting = pin!(doubts.all_asked());
        assert!(poll_once(waiting.as_mut()).await.is_pending());
        doubts.note_asked(&Token([3; 32]));
        assert!(poll_once(waiting.as_mut()).await.is_pending());
        doubts.note_asked(&Token([2; 32]));
        waiting.await;
    }

    async fn poll_once(mut future: Pin<&mut impl Future<Output = ()>>) -> Poll<()> {
        poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
    }
}
