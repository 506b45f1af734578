//! What an operation is handed.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::error::Error;
use crate::record::{AttemptId, Bytes, Record, Token};
use crate::time::UnixMillis;

/// One start of the operation, as the operation sees it. Cheap to clone.
#[derive(Clone)]
pub struct Attempt(Arc<Started<dyn SaveCheckpoint>>);

struct Started<S: ?Sized> {
    /// As it was when the attempt started.
    record: Arc<Record>,
    /// Here and not in a box of its own. Of a type that only this field may have: the last one.
    saver: S,
}

/// The way back into the engine.
pub(crate) trait SaveCheckpoint: Send + Sync {
    fn save(&self, attempt: AttemptId, bytes: Bytes, expires_at: Option<UnixMillis>) -> Saving;
}

/// Durable when it is ready with `Ok`.
pub(crate) type Saving = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

impl Attempt {
    pub(crate) fn new(record: Arc<Record>, saver: impl SaveCheckpoint + 'static) -> Self {
        Self(Arc::new(Started { record, saver }))
    }

    /// What names this attempt to [`resolve`](crate::Engine::resolve): its number and its record's token, which no other record has,
    /// before or after.
    #[must_use]
    pub fn id(&self) -> AttemptId {
        self.0.record.attempt
    }

    /// 1 for the first start, then counting.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.0.record.attempt.number
    }

    /// 32 unguessable bytes, the same over all re-runs of this record: hand them downstream as an idempotency token. In a
    /// [replay-safe](crate::Policy::replay_safe) flow a crash may forget the record, and the next one has another.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.0.record.attempt.token
    }

    /// The canonical request, as registered.
    #[must_use]
    pub fn request(&self) -> &Bytes {
        &self.0.record.request
    }

    /// The engine's time when this attempt was admitted. A slow operation does not move it.
    #[must_use]
    pub fn admitted_at(&self) -> UnixMillis {
        self.0.record.updated_at
    }

    /// The bound that the request's own retention set: the answer is never replayed from then on.
    #[must_use]
    pub fn expires_at(&self) -> Option<UnixMillis> {
        self.0.record.expires_at
    }

    /// What an earlier attempt at this record saved last. An operation that finds its effect in here must not repeat it.
    #[must_use]
    pub fn last_checkpoint(&self) -> Option<&Bytes> {
        self.0.record.checkpoint.as_ref()
    }

    /// Saves bytes that a re-run will receive, in place of those saved before. Durable when it returns `Ok`.
    /// `expires_at` is the end of what they describe: the record answers until then at most.
    ///
    /// Cancel safety: dropping the future neither stops nor undoes the save.
    ///
    /// # Errors
    /// [`TooLarge`](crate::ErrorKind::TooLarge) over the limit for answers, nothing saved. On any other error it is not known
    /// whether the bytes were saved: end the operation with [`End::Unknown`](crate::End::Unknown).
    pub async fn checkpoint(&self, bytes: impl Into<Bytes>, expires_at: Option<UnixMillis>) -> Result<(), Error> {
        self.0.saver.save(self.id(), bytes.into(), expires_at).await
    }

    /// [`checkpoint`](Self::checkpoint) for a blocking operation. It blocks the thread; never call it from async code.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint).
    pub fn checkpoint_blocking(&self, bytes: impl Into<Bytes>, expires_at: Option<UnixMillis>) -> Result<(), Error> {
        crate::block_on::block_on(self.0.saver.save(self.id(), bytes.into(), expires_at))
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Attempt").field(&self.id()).finish()
    }
}
