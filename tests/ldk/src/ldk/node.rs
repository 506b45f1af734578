//! One node: started from nothing or from a snapshot, and what a test sees of it.

use std::sync::{Arc, Mutex};

use bitcoin::hashes::Hash as _;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{BlockHash, Network};
use ibid::ldk::KvStore;
use lightning::chain::chainmonitor::ChainMonitor;
use lightning::chain::channelmonitor::ChannelMonitor;
use lightning::chain::{BestBlock, Confirm};
use lightning::events::{Event, EventsProvider as _, ReplayEvent};
use lightning::ln::channelmanager::{Bolt11InvoiceParameters, ChainParameters, ChannelManager, ChannelManagerReadArgs};
use lightning::ln::msgs::DecodeError;
use lightning::ln::peer_handler::{IgnoringMessageHandler, MessageHandler, PeerManager};
use lightning::onion_message::messenger::NullMessageRouter;
use lightning::routing::router::DefaultRouter;
use lightning::routing::scoring::FixedPenaltyScorer;
use lightning::sign::{InMemorySigner, KeysManager, NodeSigner as _, Recipient};
use lightning::util::config::UserConfig;
use lightning::util::persist::{
    CHANNEL_MANAGER_PERSISTENCE_KEY, CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
    CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE, KVStoreSync as _, read_channel_monitors,
};
use lightning::util::ser::{ReadableArgs as _, Writeable};

use super::frames::{Frames, OnFrame};
use super::host::{Disk, Fees, Finder, Log, Mempool};
use super::net::Block;
use super::wallet::{Wallet, told};
use super::wire::Peers;
use super::{Graph, Ignoring, Keys, Manager, Monitors};
use crate::{Invoice, PeerId, Told};

const MANAGER: (&str, &str, &str) = (
    CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
    CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
    CHANNEL_MANAGER_PERSISTENCE_KEY,
);

/// What a node has on its disks at one time. A node's manager and monitors are written apart, so a test may put one
/// together from two.
#[derive(Clone)]
pub struct Snapshot {
    manager: Vec<u8>,
    monitors: Vec<Vec<u8>>,
}

impl Snapshot {
    /// This manager, with the monitors of another time.
    pub fn with_monitors_of(&self, other: &Self) -> Self {
        Self { manager: self.manager.clone(), monitors: other.monitors.clone() }
    }

    /// What a node has written to its store.
    pub fn in_store(store: &KvStore) -> Self {
        let (primary, secondary, key) = MANAGER;
        let manager = store.read(primary, secondary, key).unwrap();
        Self { manager, monitors: Disk::Store(store.clone()).monitors() }
    }
}

/// A node that is up.
pub struct Node {
    pub(super) name: String,
    pub(super) seed: u8,
    /// How often it was started: LDK wants other randomness each time.
    pub(super) starts: u32,
    keys: Keys,
    pub(super) mempool: Arc<Mempool>,
    disk: Arc<Disk>,
    finder: Arc<Finder>,
    monitors: Arc<Monitors>,
    pub(super) manager: Arc<Manager>,
    pub(super) frames: Arc<Frames>,
    pub(super) peers: Arc<Peers>,
}

/// Everything of a node but its manager and what hangs on that.
pub(super) struct Parts {
    log: Arc<Log>,
    keys: Keys,
    mempool: Arc<Mempool>,
    disk: Arc<Disk>,
    finder: Arc<Finder>,
    monitors: Arc<Monitors>,
}

impl Parts {
    pub(super) fn new(name: &str, seed: u8, starts: u32, store: Option<KvStore>) -> Self {
        let log = Arc::new(Log { name: name.into() });
        let keys = Arc::new(KeysManager::new(&[seed; 32], 0, starts, true));
        let graph = Arc::new(Graph::new(Network::Regtest, log.clone()));
        let scorer = Arc::new(Mutex::new(FixedPenaltyScorer::with_penalty(0)));
        let router = DefaultRouter::new(graph, log.clone(), keys.clone(), scorer, ());
        let (mempool, disk) = (Arc::new(Mempool::default()), Arc::new(Disk::new(store)));
        let monitors = Arc::new(ChainMonitor::new(
            None,
            mempool.clone(),
            log.clone(),
            Arc::new(Fees),
            disk.clone(),
            keys.clone(),
            keys.get_peer_storage_key(),
        ));
        let finder = Arc::new(Finder { router, then: Mutex::default() });
        Self { log, keys, mempool, disk, finder, monitors }
    }

    fn new_manager(&self) -> Arc<Manager> {
        let best_block = BestBlock::from_network(Network::Regtest);
        Arc::new(ChannelManager::new(
            Arc::new(Fees),
            self.monitors.clone(),
            self.mempool.clone(),
            self.finder.clone(),
            Arc::new(NullMessageRouter {}),
            self.log.clone(),
            self.keys.clone(),
            self.keys.clone(),
            self.keys.clone(),
            config(),
            ChainParameters { network: Network::Regtest, best_block },
            0,
        ))
    }

    pub(super) fn read_manager(&self, snapshot: &Snapshot) -> Result<Arc<Manager>, DecodeError> {
        let read = |bytes: &Vec<u8>| {
            let keys = (&*self.keys, &*self.keys);
            <(BlockHash, ChannelMonitor<InMemorySigner>)>::read(&mut &bytes[..], keys).unwrap().1
        };
        let monitors: Vec<_> = snapshot.monitors.iter().map(read).collect();
        let args = ChannelManagerReadArgs::new(
            self.keys.clone(),
            self.keys.clone(),
            self.keys.clone(),
            Arc::new(Fees),
            self.monitors.clone(),
            self.mempool.clone(),
            self.finder.clone(),
            Arc::new(NullMessageRouter {}),
            self.log.clone(),
            config(),
            monitors.iter().collect(),
        );
        let (_, manager) = <(BlockHash, Arc<Manager>)>::read(&mut &snapshot.manager[..], args)?;
        for monitor in monitors {
            self.disk.write(monitor.persistence_key(), None, &monitor);
            self.monitors.load_existing_monitor(monitor.channel_id(), monitor).unwrap();
        }
        Ok(manager)
    }
}

fn config() -> UserConfig {
    let mut config = UserConfig::default();
    // So that one payment can take most of what there is.
    config.channel_handshake_config.max_inbound_htlc_value_in_flight_percent_of_channel = 100;
    config
}

impl Node {
    pub(super) fn start(name: &str, seed: u8, starts: u32, store: Option<KvStore>, from: Option<&Snapshot>) -> Self {
        let parts = Parts::new(name, seed, starts, store);
        let manager = match from {
            None => parts.new_manager(),
            Some(snapshot) => parts.read_manager(snapshot).unwrap(),
        };
        let Parts { log, keys, mempool, disk, finder, monitors } = parts;
        let frames = Arc::new(Frames::new(16));
        let ignoring: Ignoring = Arc::new(IgnoringMessageHandler {});
        let handlers = MessageHandler {
            chan_handler: manager.clone(),
            route_handler: Arc::clone(&ignoring),
            onion_message_handler: Arc::clone(&ignoring),
            custom_message_handler: frames.clone(),
            send_only_message_handler: ignoring,
        };
        let random = [seed ^ 0xff, starts as u8].repeat(16).try_into().unwrap();
        let connections = PeerManager::new(handlers, starts, &random, log, keys.clone());
        let peers = Arc::new(Peers { connections, turn: Mutex::default() });
        assert!(frames.replies.peers.set(Arc::downgrade(&peers)).is_ok());
        Self { name: name.into(), seed, starts, keys, mempool, disk, finder, monitors, manager, frames, peers }
    }

    pub(super) fn public_key(&self) -> PublicKey {
        self.keys.get_node_id(Recipient::Node).unwrap()
    }

    /// Its public key.
    pub fn id(&self) -> PeerId {
        self.public_key().serialize()
    }

    /// A handle for whoever pays or is paid.
    pub fn wallet(&self) -> Wallet {
        Wallet(self.manager.clone())
    }

    /// What is on its disks now, if its manager is written now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { manager: self.manager.encode(), monitors: self.disk.monitors() }
    }

    /// Writes its manager to its store if it has to be written: what a background processor does.
    ///
    /// # Panics
    /// If it has no store.
    pub fn persist(&self) {
        let Disk::Store(store) = &*self.disk else { panic!("no store") };
        let (primary, secondary, key) = MANAGER;
        if self.manager.get_and_clear_needs_persistence() {
            store.write(primary, secondary, key, self.manager.encode()).unwrap();
        }
    }

    /// The number of the last update of each of its monitors: in memory, and as LDK reads them from its store.
    ///
    /// # Panics
    /// If it has no store.
    pub fn monitor_updates(&self) -> (Vec<u64>, Vec<u64>) {
        let Disk::Store(store) = &*self.disk else { panic!("no store") };
        let ids = self.monitors.list_monitors();
        let mut held: Vec<_> =
            ids.into_iter().map(|id| self.monitors.get_monitor(id).unwrap().get_latest_update_id()).collect();
        let stored = read_channel_monitors(store, self.keys.clone(), self.keys.clone()).unwrap();
        let mut stored: Vec<_> = stored.iter().map(|(_, monitor)| monitor.get_latest_update_id()).collect();
        held.sort_unstable();
        stored.sort_unstable();
        (held, stored)
    }

    /// One call of `timer_tick_occurred`, which a background processor makes once a minute.
    pub fn tick(&self) {
        self.manager.timer_tick_occurred();
    }

    /// Ticks `n` times.
    pub fn ticks(&self, n: usize) {
        (0..n).for_each(|_| self.tick());
    }

    /// Hands every event that is queued to `handle`, in order. One that is refused stops this, and comes again.
    pub fn handle_events(&self, mut handle: impl FnMut(Told) -> Result<(), ()>) {
        let handle = std::cell::RefCell::new(&mut handle);
        self.manager
            .process_pending_events(&|event: Event| (*handle.borrow_mut())(told(event)).map_err(|()| ReplayEvent()));
    }

    /// Handles every event that is queued: these.
    pub fn events(&self) -> Vec<Told> {
        let mut events = Vec::new();
        self.handle_events(|event| {
            events.push(event);
            Ok(())
        });
        events
    }

    /// The event that comes next; it is not handled.
    pub fn refuse_event(&self) -> Option<Told> {
        let mut next = None;
        self.handle_events(|event| {
            next = Some(event);
            Err(())
        });
        next
    }

    /// Whether no event is queued. None is handled by asking.
    pub fn has_no_event(&self) -> bool {
        self.refuse_event().is_none()
    }

    /// Makes an invoice, of this many msat or of any amount.
    pub fn invoice(&self, msat: Option<u64>) -> Invoice {
        let params = Bolt11InvoiceParameters { amount_msats: msat, ..Default::default() };
        let invoice = self.manager.create_bolt11_invoice(params).unwrap();
        Invoice {
            text: invoice.to_string(),
            hash: invoice.payment_hash().to_byte_array(),
            msat,
            secret: invoice.payment_secret().0,
        }
    }

    /// Does this once, between the next route that is found and the payment sent along it.
    pub fn between_route_and_send(&self, then: impl FnOnce() + Send + 'static) {
        *self.finder.then.lock().unwrap() = Some(Box::new(then));
    }

    /// Whether this peer has gone through the handshake and not gone since.
    pub fn is_connected_to(&self, peer: PeerId) -> bool {
        self.peers.connections.list_peers().iter().any(|known| known.counterparty_node_id.serialize() == peer)
    }

    /// From now on frames go to this host; without one the node keeps them for [`Node::received`].
    pub fn set_host(&self, host: Option<Arc<dyn OnFrame>>) {
        *self.frames.host.write().unwrap() = host;
    }

    /// The frames that have come since this was asked last.
    pub fn received(&self) -> Vec<String> {
        std::mem::take(&mut *self.frames.received.lock().unwrap())
    }

    pub(super) fn confirm(&self, block: &Block) {
        let data: Vec<_> = block.txs.iter().enumerate().collect();
        let chain: [&dyn Confirm; 2] = [&*self.monitors, &*self.manager];
        for part in chain {
            part.transactions_confirmed(&block.header, &data, block.height);
            part.best_block_updated(&block.header, block.height);
        }
    }
}
