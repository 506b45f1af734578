//! Links between nodes: two queues of bytes, with LDK's noise handshake over them.

use std::hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use lightning::ln::peer_handler::SocketDescriptor;

use super::Connections;

/// How long a wait may take before a test is given up.
const GUARD: Duration = Duration::from_secs(60);

/// The peer manager, one caller of `process_events` at a time. LDK's own returns at once while another thread is in it,
/// which then does the work of both; a test wants it done when the call returns.
pub(super) struct Peers {
    pub(super) connections: Connections,
    pub(super) turn: Mutex<()>,
}

impl Peers {
    pub(super) fn process_events(&self) {
        let _turn = self.turn.lock().unwrap();
        self.connections.process_events();
    }
}

/// Rings whenever a node writes to a socket or closes one.
#[derive(Default)]
pub(super) struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.heard.notify_all();
    }

    pub(super) fn wait(&self) {
        let rung = self.rung.lock().unwrap();
        let (mut rung, wait) = self.heard.wait_timeout_while(rung, GUARD, |rung| !*rung).unwrap();
        assert!(!wait.timed_out(), "nothing comes any more");
        *rung = false;
    }
}

/// One node's end of a link.
#[derive(Clone)]
pub(super) struct Socket(pub(super) Arc<End>);

pub(super) struct End {
    pub(super) out: Mutex<Vec<u8>>,
    closed: AtomicBool,
    bell: Arc<Bell>,
}

impl Socket {
    pub(super) fn new(bell: &Arc<Bell>) -> Self {
        Self(Arc::new(End { out: Mutex::default(), closed: AtomicBool::new(false), bell: bell.clone() }))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::SeqCst)
    }
}

impl PartialEq for Socket {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Socket {}

impl hash::Hash for Socket {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl SocketDescriptor for Socket {
    fn send_data(&mut self, data: &[u8], _: bool) -> usize {
        self.0.out.lock().unwrap().extend_from_slice(data);
        self.0.bell.ring();
        data.len()
    }

    fn disconnect_socket(&mut self) {
        self.0.closed.store(true, Ordering::SeqCst);
        self.0.bell.ring();
    }
}

/// Two ends, and whose they are.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) ends: [(Arc<Peers>, Socket); 2],
}

impl Link {
    /// Moves what has been written by one end to the other. Says whether anything moved.
    pub(super) fn carry(&self, to: usize) -> bool {
        let [(_, from), (peers, socket)] = [&self.ends[1 - to], &self.ends[to]];
        let bytes = std::mem::take(&mut *from.0.out.lock().unwrap());
        if bytes.is_empty() || socket.is_closed() {
            return false;
        }
        match peers.connections.read_event(&mut socket.clone(), &bytes) {
            Ok(()) => peers.process_events(),
            Err(_) => socket.clone().disconnect_socket(),
        }
        true
    }

    pub(super) fn is_closed(&self) -> bool {
        self.ends.iter().any(|(_, socket)| socket.is_closed())
    }

    /// Bytes on their way are lost.
    pub(super) fn close(&self) {
        for (peers, socket) in &self.ends {
            socket.0.out.lock().unwrap().clear();
            peers.connections.socket_disconnected(socket);
            socket.0.closed.store(true, Ordering::SeqCst);
        }
    }
}
