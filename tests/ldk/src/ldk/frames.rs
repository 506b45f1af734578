//! Custom messages of ibid's type: LDK's `CustomMessageHandler`, and the queue that a host answers through.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, RwLock, Weak};

use bitcoin::secp256k1::PublicKey;
use lightning::io;
use lightning::ln::msgs::{DecodeError, Init, LightningError};
use lightning::ln::peer_handler::CustomMessageHandler;
use lightning::ln::wire::{CustomMessageReader, Type};
use lightning::types::features::{InitFeatures, NodeFeatures};
use lightning::util::ser::{LengthLimitedRead, Writeable, Writer};

use super::wire::Peers;
use crate::PeerId;

/// One custom message of ibid's type: text, without a length before it.
#[derive(Clone, Debug)]
pub(super) struct Frame(Vec<u8>);

impl Type for Frame {
    fn type_id(&self) -> u16 {
        ibid::lightning::request_invoice::MESSAGE_TYPE
    }
}

impl Writeable for Frame {
    fn write<W: Writer>(&self, writer: &mut W) -> Result<(), io::Error> {
        writer.write_all(&self.0)
    }
}

/// What a host does with a frame. It is called from `handle_custom_message`, under a lock that stalls every peer.
pub trait OnFrame: Send + Sync {
    /// Takes the frame, and answers through `replies`, now or later.
    fn on_frame(&self, from: PeerId, frame: &str, replies: &Replies);
}

/// The handler's own bounded queue of frames to send.
#[derive(Clone)]
pub struct Replies {
    queue: Arc<Mutex<VecDeque<(PublicKey, Frame)>>>,
    limit: usize,
    /// Weak: the peer manager owns the handler.
    pub(super) peers: Arc<OnceLock<Weak<Peers>>>,
}

impl Replies {
    /// Queues a frame; a full queue drops it.
    pub fn push(&self, to: PeerId, frame: impl Into<Vec<u8>>) {
        let mut queue = self.queue.lock().unwrap();
        if queue.len() < self.limit {
            queue.push_back((PublicKey::from_slice(&to).unwrap(), Frame(frame.into())));
        }
    }

    /// Has the queue sent. Never from within [`OnFrame::on_frame`]: it takes the same lock again.
    pub fn wake(&self) {
        if let Some(peers) = self.peers.get().and_then(Weak::upgrade) {
            peers.process_events();
        }
    }
}

/// LDK's `CustomMessageHandler` of a node: frames go to the host, or, if there is none, to the test.
pub(super) struct Frames {
    pub(super) host: RwLock<Option<Arc<dyn OnFrame>>>,
    pub(super) replies: Replies,
    pub(super) received: Mutex<Vec<String>>,
}

impl Frames {
    pub(super) fn new(limit: usize) -> Self {
        let replies = Replies { queue: Arc::default(), limit, peers: Arc::default() };
        Self { host: RwLock::default(), replies, received: Mutex::default() }
    }
}

impl CustomMessageReader for Frames {
    type CustomMessage = Frame;

    fn read<R: LengthLimitedRead>(&self, kind: u16, from: &mut R) -> Result<Option<Frame>, DecodeError> {
        if kind != ibid::lightning::request_invoice::MESSAGE_TYPE {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(from.remaining_bytes()).unwrap()];
        from.read_exact(&mut bytes)?;
        // A decoding error disconnects the peer.
        std::str::from_utf8(&bytes).map_err(|_| DecodeError::InvalidValue)?;
        Ok(Some(Frame(bytes)))
    }
}

impl CustomMessageHandler for Frames {
    fn handle_custom_message(&self, frame: Frame, from: PublicKey) -> Result<(), LightningError> {
        let text = std::str::from_utf8(&frame.0).unwrap();
        match &*self.host.read().unwrap() {
            Some(host) => host.on_frame(from.serialize(), text, &self.replies),
            None => self.received.lock().unwrap().push(text.to_owned()),
        }
        Ok(())
    }

    fn get_and_clear_pending_msg(&self) -> Vec<(PublicKey, Frame)> {
        self.replies.queue.lock().unwrap().drain(..).collect()
    }

    fn peer_disconnected(&self, _: PublicKey) {}

    fn peer_connected(&self, _: PublicKey, _: &Init, _: bool) -> Result<(), ()> {
        Ok(())
    }

    fn provided_node_features(&self) -> NodeFeatures {
        NodeFeatures::empty()
    }

    fn provided_init_features(&self, _: PublicKey) -> InitFeatures {
        InitFeatures::empty()
    }
}
