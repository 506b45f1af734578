//! The host's side: who sends onions, and who knows how they stand.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use super::end::{OnionEnd, reason_bytes, settled_bytes};
use super::onion::Onion;
use crate::lightning::Blocking;
use crate::{Attempt, Bytes, End, Found, Inquiry, Reason};

/// What a switch's method returns: a boxed future, so that the trait can be an object.
pub type Switching<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Sends onions out and knows which of them are under way (lnd's switch and its circuit map).
///
/// A key is dispatched at most once. It belongs to no caller: one that hangs up changes nothing. The switch keeps its
/// own mark of what is under way until the end is recorded: [`SendOnion::resolve`](super::SendOnion::resolve) first,
/// then the mark goes. So what has neither mark nor record really is unknown.
pub trait Switch: Send + Sync + 'static {
    /// Checks what may be otherwise tomorrow (peer, liquidity, fee exposure, height), and sends. Called once per
    /// record, when that is durable.
    ///
    /// The [attempt](Attempt)'s token is worth keeping with the mark: it tells the attempts of a forgotten and reused
    /// id apart. A panic is [`Dispatch::Unknown`].
    fn dispatch<'a>(&'a self, request: &'a OnionRequest, attempt: &'a Attempt) -> Switching<'a, Dispatch>;

    /// How an attempt stands downstream. It asks and tells; it must not send, and must not block. It may be dropped at
    /// any await.
    ///
    /// Asked about records in doubt, about dispatched ones without news, and about finished ones that are to be forgotten
    /// ([`Inquiry::status`] says which), where [`Circuit::NotStarted`] says that nothing is left of it.
    fn find<'a>(&'a self, request: &'a OnionRequest, inquiry: &'a Inquiry) -> Switching<'a, Circuit>;
}

/// A [`Switch`] whose methods block the thread they run on. Made into one by [`Blocking`].
pub trait BlockingSwitch: Send + Sync + 'static {
    /// As [`Switch::dispatch`].
    fn dispatch(&self, request: &OnionRequest, attempt: &Attempt) -> Dispatch;

    /// As [`Switch::find`], but it may block.
    fn find(&self, request: &OnionRequest, inquiry: &Inquiry) -> Circuit;
}

/// One onion, as the switch sees it.
#[derive(Clone, PartialEq, Eq)]
pub struct OnionRequest {
    /// The dispatcher, as the transport authenticated it: 1 to 255 bytes. An attempt id means nothing without it.
    pub namespace: Vec<u8>,
    /// The attempt id that the dispatcher repeats on every retry.
    pub attempt_id: u64,
    /// What to send.
    pub onion: Onion,
}

/// What came of a dispatch.
#[derive(Clone, PartialEq, Eq)]
pub enum Dispatch {
    /// It went out; its end comes by [`SendOnion::resolve`](super::SendOnion::resolve).
    Accepted,
    /// It went out and arrived, with this proof.
    Settled(Bytes),
    /// Downstream knows this attempt from before and goes on with it. It is never rolled back; the caller is told
    /// *Duplicate*.
    AlreadyLive,
    /// Positive proof that nothing went out and nothing will, with a reason of any form or none: no usable channel, a
    /// known local failure, also one that cannot be encoded. It is kept, and every retry gets it again.
    Refused(Option<Bytes>),
    /// Anything else, also that the switch is shutting down: the record is in doubt, and [`Switch::find`] is asked.
    Unknown(Option<Bytes>),
}

/// How an attempt stands downstream.
#[derive(Clone, PartialEq, Eq)]
pub enum Circuit {
    /// A promise: it did not go out and never will, whatever is still on its way. If this is wrong, somebody pays
    /// twice. A switch that cannot promise it says [`CannotTell`](Circuit::CannotTell).
    NotStarted,
    /// It is under way.
    Live,
    /// It has ended like this.
    Ended(OnionEnd),
    /// Anything else. It is asked again.
    CannotTell,
}

impl Dispatch {
    pub(super) fn into_end(self) -> End {
        match self {
            Self::Accepted => End::Accepted,
            Self::Settled(proof) => End::done(settled_bytes(&proof)),
            Self::AlreadyLive => End::AlreadyLive,
            Self::Refused(reason) => End::Definitive(Reason::from_bytes(reason_bytes(reason.as_ref()))),
            Self::Unknown(reason) => End::Unknown(Reason::from_bytes(reason_bytes(reason.as_ref()))),
        }
    }
}

impl Circuit {
    pub(super) fn into_found(self) -> Found {
        match self {
            Self::NotStarted => Found::NotStarted,
            Self::Live => Found::Live,
            Self::Ended(end) => Found::Done(end.to_ended()),
            Self::CannotTell => Found::CannotTell,
        }
    }
}

impl<S: BlockingSwitch> Switch for Blocking<S> {
    fn dispatch<'a>(&'a self, request: &'a OnionRequest, attempt: &'a Attempt) -> Switching<'a, Dispatch> {
        let (request, attempt) = (request.clone(), attempt.clone());
        let sent = self.run(move |switch| switch.dispatch(&request, &attempt));
        Box::pin(async move { sent.await.unwrap_or(Dispatch::Unknown(None)) })
    }

    fn find<'a>(&'a self, request: &'a OnionRequest, inquiry: &'a Inquiry) -> Switching<'a, Circuit> {
        let (request, inquiry) = (request.clone(), inquiry.clone());
        let found = self.run(move |switch| switch.find(&request, &inquiry));
        Box::pin(async move { found.await.unwrap_or(Circuit::CannotTell) })
    }
}

impl fmt::Debug for OnionRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnionRequest").field("namespace_bytes", &self.namespace.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "Accepted",
            Self::Settled(_) => "Settled(..)",
            Self::AlreadyLive => "AlreadyLive",
            Self::Refused(_) => "Refused(..)",
            Self::Unknown(_) => "Unknown(..)",
        })
    }
}

impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted => f.write_str("NotStarted"),
            Self::Live => f.write_str("Live"),
            Self::Ended(end) => write!(f, "Ended({end:?})"),
            Self::CannotTell => f.write_str("CannotTell"),
        }
    }
}
