//! System 3, `send_onion`: a payment router tells a node to send an onion under an attempt id. The reply may get lost,
//! so it tells it again, and the onion goes out at most once. (lnd's `SendOnion` and `TrackOnion`; the fingerprint, the
//! frozen refusal, namespaces and `fence` are ours.)
//!
//! ```text
//! 1 the onion itself             malformed: Definitive, no record
//! 2 the record, if there is one  Duplicate with its state; the first refusal again; Conflict for another onion
//! 3 a bound is met               nothing registered
//! 4 registered, durable
//! 5 Switch::dispatch             validates, then acts
//! 6 what came of it, durable     accepted, settled, refused (rolled back), unknown (in doubt)
//! 7 reply
//! ```
//!
//! What is in doubt is never sent again: [`Switch::find`] is asked until it knows, at the start of the engine and on, or
//! [`SendOnion::resolve`] says.

mod end;
mod error;
mod onion;
mod switch;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use end::{OnionEnd, Sent, Tracked};
pub use error::OnionError;
pub use onion::{FirstHop, InvalidOnion, ONION_BYTES, Onion, WireOnion};
pub use switch::{BlockingSwitch, Circuit, Dispatch, OnionRequest, Switch, Switching};

use super::in_flight::{Page, demand_oracle};
use crate::{
    AttemptId, Builder, Call, Cursor, Engine, Error, Fenced, Flow, Forgotten, Found, Inquiry, InvalidRecovery, Key,
    Listed, Operation, Record, Resolved, State, Status, UnixMillis,
};

/// The usual name of the flow, part of every key: `Flow::new(FLOW_NAME, Policy::send_onion())`.
pub const FLOW_NAME: &str = "send_onion";

/// The handler that a node owns for its dispatchers: [`prepare`](Self::prepare) comes before the engine is opened,
/// [`new`](Self::new) after. Cheap to clone; every method may be called from any thread.
///
/// A *namespace* is the dispatcher as the transport authenticated it, 1 to 255 bytes. Attempt ids are its own: two
/// dispatchers with the same one never meet.
///
/// **Cancel safety**: dropping a future takes back the wait and nothing else.
#[derive(Clone)]
pub struct SendOnion {
    engine: Engine,
    flow: Flow,
    /// Who sends; the engine has who is asked.
    switch: Arc<dyn Switch>,
    wait: Option<Duration>,
}

/// How an onion stands, read from its record.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KnownOnion {
    /// Where the record stands. A key that is fenced or has expired is a [`Status::Tombstone`].
    pub state: Status,
    /// What names the attempt to [`SendOnion::resolve`].
    pub attempt: AttemptId,
    /// How it ended, if it has: as a tracker hears it.
    pub end: Option<Tracked>,
    /// Another end that came later. Nobody is told it in place of the first; a proof in here means that money moved.
    pub contradiction: Option<OnionEnd>,
    /// When it was registered.
    pub created_at: UnixMillis,
    /// When the record changed last.
    pub updated_at: UnixMillis,
}

/// An onion whose end is still to come. `Debug` shows how long the namespace is, not whose.
#[derive(Clone)]
#[non_exhaustive]
pub struct ListedOnion {
    /// Whose it is.
    pub namespace: Vec<u8>,
    /// Its attempt id.
    pub attempt_id: u64,
    /// [`Status::Registered`], [`Status::Dispatched`] or [`Status::InDoubt`].
    pub state: Status,
    /// What was sent under it; `None` if the record holds something else.
    pub onion: Option<Onion>,
    /// What names the attempt to [`SendOnion::resolve`].
    pub attempt: AttemptId,
    /// In doubt, and the switch could not tell so often that somebody should look: see
    /// [`Limits::recoveries`](crate::Limits::recoveries).
    pub is_dead_letter: bool,
    /// When it was registered.
    pub created_at: UnixMillis,
}

/// A stretch of the list.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OnionPage {
    /// In order of arrival.
    pub onions: Vec<ListedOnion>,
    /// Entries that do not decode, whosever they are. They are never sent again.
    pub quarantined: usize,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

impl SendOnion {
    /// Makes the builder of an engine fit: `switch` is the one that is asked about records of `flow` which are in doubt. It belongs
    /// to every opening.
    ///
    /// The flow holds the policy: start from [`Policy::send_onion`](crate::Policy::send_onion). Its name belongs to
    /// every key, so keep it; [`FLOW_NAME`] is the usual one.
    #[must_use]
    pub fn prepare(builder: Builder, flow: &Flow, switch: Arc<dyn Switch>) -> Builder {
        builder.oracle(flow, move |inquiry| {
            let switch = Arc::clone(&switch);
            async move { ask(&*switch, inquiry).await }
        })
    }

    /// The handler over an engine whose builder was given to [`prepare`](Self::prepare). It sends by the same `switch`, and a sender
    /// waits for as long as that takes: see [`wait`](Self::wait).
    ///
    /// # Errors
    /// [`InvalidRecovery::OracleMissing`]: it was given to none, and an onion in doubt would stay so until somebody comes to
    /// [`resolve`](Self::resolve) it.
    pub fn new(engine: Engine, flow: Flow, switch: Arc<dyn Switch>) -> Result<Self, InvalidRecovery> {
        demand_oracle(&engine, &flow)?;
        Ok(Self { engine, flow, switch, wait: None })
    }

    /// The same handler, which sends by `switch`: for what belongs to one call and to no onion. It stands before the same circuits;
    /// the one that [`prepare`](Self::prepare) was given goes on being asked.
    #[must_use]
    pub fn via(&self, switch: Arc<dyn Switch>) -> Self {
        Self { switch, ..self.clone() }
    }

    /// Sets how long a sender waits at most: then it is told [`Deadline`](crate::ErrorKind::Deadline), *Ambiguous*. The
    /// dispatch goes on and is recorded.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Sends `onion` under this attempt id, unless that is known. The same call may be repeated at any time, any number
    /// of times, in every state; with one byte changed it is another request.
    ///
    /// # Errors
    /// *Duplicate* for what is known, with its state, unless it was refused: then *Definitive* with the first refusal.
    /// *Conflict* for another onion under the id. *Ambiguous* where nothing is proved.
    pub async fn send(&self, namespace: &[u8], attempt_id: u64, onion: &Onion) -> Result<Sent, OnionError> {
        let (call, operation, ran) = self.call(namespace, attempt_id, onion)?;
        let reply = self.engine.submit(call, operation).await;
        reply.map(Sent::of).map_err(|error| OnionError::of_send(error, ran.load(Ordering::Acquire)))
    }

    /// The same without ever blocking: no store is read, nothing is waited for. After `Ok`, `on_done` runs exactly once
    /// and never on this stack; after `Err` it never runs.
    ///
    /// # Errors
    /// At once, nothing registered: [`Busy`](crate::ErrorKind::Busy), [`Closed`](crate::ErrorKind::Closed), an unusable
    /// namespace. `on_done` gets those of [`send`](Self::send).
    pub fn try_send(
        &self,
        namespace: &[u8],
        attempt_id: u64,
        onion: &Onion,
        on_done: impl FnOnce(Result<Sent, OnionError>) + Send + 'static,
    ) -> Result<(), OnionError> {
        let (call, operation, ran) = self.call(namespace, attempt_id, onion)?;
        let on_reply = move |reply: Result<crate::Reply, Error>| {
            on_done(reply.map(Sent::of).map_err(|error| OnionError::of_send(error, ran.load(Ordering::Acquire))));
        };
        Ok(self.engine.try_submit(call, operation, on_reply)?)
    }

    /// Waits for the end, or reads it. Any number may wait, before and after; all hear the same. A payment that failed is an
    /// answer.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) at once, which proves nothing: the first send may still arrive.
    /// [`Fenced`](crate::ErrorKind::Fenced). *Ambiguous* when the wait breaks off, or the onion is a dead letter.
    pub async fn track(&self, namespace: &[u8], attempt_id: u64) -> Result<Tracked, OnionError> {
        let key = self.key(namespace, attempt_id)?;
        Ok(Tracked::of(self.engine.track(&self.flow, &key).await)?)
    }

    /// [`track`](Self::track) for one who knows the onion: another one under the id is *Conflict*.
    ///
    /// # Errors
    /// As [`track`](Self::track).
    pub async fn track_onion(&self, namespace: &[u8], attempt_id: u64, onion: &Onion) -> Result<Tracked, OnionError> {
        let key = self.key(namespace, attempt_id)?;
        Ok(Tracked::of(self.engine.track_request(&self.flow, &key, &onion.canonical()).await)?)
    }

    /// How it stands now; `None` if there is no record, which proves nothing about a send on its way.
    ///
    /// # Errors
    /// As [`Engine::lookup`].
    pub fn lookup(&self, namespace: &[u8], attempt_id: u64) -> Result<Option<KnownOnion>, OnionError> {
        let record = self.engine.lookup(&self.key(namespace, attempt_id)?)?;
        Ok(record.map(|record| KnownOnion::of(&record)))
    }

    /// Records how it ended. It is durable when this returns, and only then may the switch's own mark of it go. An end
    /// may overtake the dispatch's own return.
    ///
    /// With an [attempt](crate::Attempt::id) it belongs to that one: an end of a forgotten record is fenced off from a
    /// later one of the same id. The first end stays; another one [contradicts](Resolved::Contradicts) it, is kept
    /// beside it and counted.
    ///
    /// # Errors
    /// On an error it is not known whether the end was recorded: say it again, and keep the mark.
    pub async fn resolve(
        &self,
        namespace: &[u8],
        attempt_id: u64,
        attempt: Option<AttemptId>,
        end: &OnionEnd,
    ) -> Result<Resolved, OnionError> {
        let key = self.key(namespace, attempt_id)?;
        Ok(self.engine.resolve(&self.flow, &key, attempt, end.to_ended()).await?)
    }

    /// Forbids an unused attempt id, durably and for ever, or says what is there. It is the proof that absence is not: after
    /// [`Fenced::Fenced`] nothing goes out under this id, however late a send arrives.
    ///
    /// # Errors
    /// On an error it is not known whether the id is fenced: ask again.
    pub async fn fence(&self, namespace: &[u8], attempt_id: u64) -> Result<Fenced, OnionError> {
        Ok(self.engine.fence(&self.flow, &self.key(namespace, attempt_id)?).await?)
    }

    /// Removes records that have ended, each distinct id once, in order of first appearance. What the switch still
    /// sees, or cannot rule out, stays. A forgotten id is free: the next send under it goes out, so forget what its
    /// dispatcher has dealt with.
    ///
    /// # Errors
    /// On an error it is not known which were forgotten: ask again.
    pub async fn forget(&self, namespace: &[u8], attempt_ids: &[u64]) -> Result<Vec<(u64, Forgotten)>, OnionError> {
        let keys = attempt_ids.iter().map(|id| self.key(namespace, *id)).collect::<Result<Vec<_>, _>>()?;
        let statuses = self.engine.forget(&self.flow, &keys).await?;
        let id = |key: &Key| named(key).map_or(0, |(_, id)| id);
        Ok(statuses.into_iter().map(|(key, forgotten)| (id(&key), forgotten)).collect())
    }

    /// Onions whose end is still to come, of one dispatcher or of all, behind `after`. It looks at `limit` entries of the
    /// engine's in-flight index, which other flows share: a page may hold fewer, also none, and goes on while there is a
    /// [`next`](OnionPage::next).
    ///
    /// # Errors
    /// As [`Engine::list`].
    pub fn list(&self, namespace: Option<&[u8]>, after: Option<Cursor>, limit: usize) -> Result<OnionPage, OnionError> {
        let is_asked_for = |onion: &ListedOnion| namespace.is_none_or(|namespace| onion.namespace == namespace);
        let show = |listed: &Listed| self.listed(listed).filter(is_asked_for);
        let Page { shown, quarantined, next } = Page::read(&self.engine, after, limit, show)?;
        Ok(OnionPage { onions: shown, quarantined, next })
    }

    fn listed(&self, listed: &Listed) -> Option<ListedOnion> {
        let (key, record) = listed.found.as_ref().filter(|(key, _)| key.flow() == self.flow.name())?;
        let (namespace, attempt_id) = named(key)?;
        Some(ListedOnion {
            namespace: namespace.to_vec(),
            attempt_id,
            state: record.state.status(),
            onion: Onion::from_canonical(&record.request),
            attempt: record.attempt,
            is_dead_letter: listed.is_dead_letter,
            created_at: record.created_at,
        })
    }

    fn key(&self, namespace: &[u8], attempt_id: u64) -> Result<Key, Error> {
        Ok(self.flow.key(namespace, attempt_id.to_be_bytes())?)
    }

    /// The call, what it runs, and whether that was started for this call.
    fn call(
        &self,
        namespace: &[u8],
        attempt_id: u64,
        onion: &Onion,
    ) -> Result<(Call, Operation, Arc<AtomicBool>), Error> {
        let key = self.key(namespace, attempt_id)?;
        let mut call = Call::new(&self.flow, &key, onion.canonical());
        if let Some(wait) = self.wait {
            call = call.deadline(wait);
        }
        let request = OnionRequest { namespace: namespace.to_vec(), attempt_id, onion: onion.clone() };
        let (switch, ran) = (Arc::clone(&self.switch), Arc::new(AtomicBool::new(false)));
        let runs = Arc::clone(&ran);
        let operation = Operation::new(async move |attempt| {
            runs.store(true, Ordering::Release);
            switch.dispatch(&request, &attempt).await.into_end()
        });
        Ok((call, operation, ran))
    }
}

/// Whose key this is, and its attempt id.
fn named(key: &Key) -> Option<(&[u8], u64)> {
    Some((key.scope(), u64::from_be_bytes(key.id().try_into().ok()?)))
}

async fn ask(switch: &dyn Switch, inquiry: Inquiry) -> Found {
    // A record that holds no onion of ours is nothing that a switch could know.
    let (Some((namespace, attempt_id)), Some(onion)) = (named(inquiry.key()), Onion::from_canonical(inquiry.request()))
    else {
        return Found::CannotTell;
    };
    let request = OnionRequest { namespace: namespace.to_vec(), attempt_id, onion };
    switch.find(&request, &inquiry).await.into_found()
}

impl KnownOnion {
    fn of(record: &Record) -> Self {
        let end = match &record.state {
            State::Registered | State::Dispatched | State::InDoubt | State::Tombstone(_) => None,
            State::Completed(answer) => Some(Tracked::of_completed(answer.as_ref())),
            State::Failed(origin, reason) => Some(Tracked::of_failed(*origin, reason)),
        };
        Self {
            state: record.state.status(),
            attempt: record.attempt,
            end,
            contradiction: record.contradiction.as_ref().map(OnionEnd::of_contradiction),
            created_at: record.created_at,
            updated_at: record.updated_at,
        }
    }
}

impl fmt::Debug for ListedOnion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListedOnion")
            .field("namespace_bytes", &self.namespace.len())
            .field("attempt_id", &self.attempt_id)
            .field("state", &self.state)
            .field("attempt", &self.attempt)
            .field("is_dead_letter", &self.is_dead_letter)
            .field("created_at", &self.created_at)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SendOnion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendOnion").field("flow", &self.flow).field("wait", &self.wait).finish_non_exhaustive()
    }
}
