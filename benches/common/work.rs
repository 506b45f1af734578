//! What is asked for and answered: keys, requests, operations, and the changes that they come to in a store.

use std::sync::Arc;
use std::time::Duration;

use ibid::store::{Change, Version};
use ibid::{
    AttemptId, BootId, Bytes, Call, End, Fingerprint, Flow, Key, Operation, Policy, Record, State, Token, UnixMillis,
};

use super::AnyError;

pub(crate) const REQUEST_BYTES: usize = 120;
/// How long the records answer.
pub(crate) const RETENTION: Duration = Duration::from_secs(3_600);

/// Numbered requests of one kind.
#[derive(Clone)]
pub(crate) struct Work {
    pub(crate) flow: Flow,
    pub(crate) answer_bytes: usize,
    /// Peers that send them in turn; a scope is the 33 bytes of a node id.
    pub(crate) scopes: u32,
}

impl Work {
    pub(crate) fn new(policy: Policy) -> Result<Self, AnyError> {
        Ok(Self { flow: Flow::new("bench", policy)?, answer_bytes: 32, scopes: 16 })
    }

    /// The scope of its peer, and an id of 32 bytes in no order, as a payment hash is.
    pub(crate) fn key(&self, number: usize) -> Result<Key, AnyError> {
        let mut scope = [2; 33];
        scope[29..].copy_from_slice(&(number as u32 % self.scopes).to_be_bytes());
        let mut id = [0; 32];
        let mut mixed = number as u64;
        for place in id.as_chunks_mut::<8>().0 {
            mixed = (mixed ^ (mixed >> 29)).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            *place = mixed.to_be_bytes();
        }
        Ok(self.flow.key(scope, id)?)
    }

    pub(crate) fn call(&self, number: usize) -> Result<Call, AnyError> {
        Ok(self.call_under(&self.key(number)?, number))
    }

    /// [`call`](Self::call) where the key is at hand.
    pub(crate) fn call_under(&self, key: &Key, number: usize) -> Call {
        Call::new(&self.flow, key, request(number))
    }

    pub(crate) fn answer(&self, number: usize) -> Bytes {
        let mut answer = vec![b'a'; self.answer_bytes];
        for (place, byte) in answer.iter_mut().zip(number.to_be_bytes()) {
            *place = byte;
        }
        answer.into()
    }

    /// Answers at once.
    pub(crate) fn operation(&self, number: usize) -> Operation {
        let answer = self.answer(number);
        Operation::new(async move |_| End::done(answer))
    }

    /// A change like the engine's.
    pub(crate) fn change(&self, kind: Kind, number: usize, now: UnixMillis) -> Result<Change, AnyError> {
        let registered = self.registered(number, now);
        let expected = (kind == Kind::Finish).then(|| Version::of(&registered));
        let record = match kind {
            Kind::Register => registered,
            Kind::Finish | Kind::AtOnce => {
                let end = Some(now.saturating_add(RETENTION));
                let state = State::Completed(Some(self.answer(number)));
                let revision = registered.revision + 1;
                Record { revision, state, expires_at: end, lapses_at: end, ..registered }
            }
        };
        Ok(Change::new(self.key(number)?, expected, Some(Arc::new(record))))
    }

    fn registered(&self, number: usize, now: UnixMillis) -> Record {
        let mut token = Token([0; 32]);
        token.0[..8].copy_from_slice(&number.to_be_bytes());
        let request = request(number);
        Record {
            revision: 1,
            fingerprint: Fingerprint::of(self.flow.name(), &request),
            request: request.into(),
            attempt: AttemptId { number: 1, boot: BootId([7; 16]), token },
            state: State::Registered,
            checkpoint: None,
            recoveries: 0,
            created_at: now,
            updated_at: now,
            expires_at: None,
            lapses_at: None,
            tombstone_until: None,
            contradiction: None,
            lapses_at_tick: None,
            abandoned: false,
        }
    }
}

pub(crate) fn request(number: usize) -> [u8; REQUEST_BYTES] {
    let mut request = [b'r'; REQUEST_BYTES];
    request[..8].copy_from_slice(&number.to_be_bytes());
    request
}

/// A transition of a fresh request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Register,
    Finish,
    /// Recorded with its answer, and not registered before.
    AtOnce,
}

impl Kind {
    /// What this change does; `None`: it is not one of a fresh request.
    pub(crate) fn of(change: &Change) -> Option<Self> {
        let record = change.put.as_ref()?;
        match (change.expected, &record.state) {
            (None, State::Registered) => Some(Self::Register),
            (None, State::Completed(_)) => Some(Self::AtOnce),
            (Some(_), State::Completed(_)) => Some(Self::Finish),
            _ => None,
        }
    }
}
