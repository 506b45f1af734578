//! Everything that is bound to a version of LDK.

use std::collections::{BTreeMap, VecDeque};
use std::hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, RwLock, Weak};
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version as BlockVersion};
use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::pow::CompactTarget;
use bitcoin::secp256k1::PublicKey;
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, BlockHash, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Txid, Witness,
};
use lightning::blinded_path::payment::{BlindedPaymentPath, ReceiveTlvs};
use lightning::chain::chaininterface::{BroadcasterInterface, ConfirmationTarget, FeeEstimator};
use lightning::chain::chainmonitor::{ChainMonitor, Persist};
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::chain::{BestBlock, ChannelMonitorUpdateStatus, Confirm, Filter};
use lightning::events::{Event, EventsProvider as _, ReplayEvent};
use lightning::io;
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::{
    Bolt11InvoiceParameters, Bolt11PaymentError, ChainParameters, ChannelManager, ChannelManagerReadArgs, PaymentId,
    RecentPaymentDetails, RecipientOnionFields, Retry, RetryableSendFailure,
};
use lightning::ln::msgs::{DecodeError, Init, LightningError};
use lightning::ln::peer_handler::{
    CustomMessageHandler, IgnoringMessageHandler, MessageHandler, PeerManager, SocketDescriptor,
};
use lightning::ln::wire::{CustomMessageReader, Type};
use lightning::offers::parse::Bolt12SemanticError;
use lightning::onion_message::messenger::NullMessageRouter;
use lightning::routing::gossip::NetworkGraph;
use lightning::routing::router::{
    DefaultRouter, InFlightHtlcs, PaymentParameters, Route, RouteParameters, RouteParametersConfig, Router,
};
use lightning::routing::scoring::FixedPenaltyScorer;
use lightning::sign::{InMemorySigner, KeysManager, NodeSigner as _, Recipient};
use lightning::types::features::{InitFeatures, NodeFeatures};
use lightning::types::payment::{PaymentHash, PaymentPreimage, PaymentSecret};
use lightning::util::config::UserConfig;
use lightning::util::logger::{Logger, Record};
use lightning::util::persist::MonitorName;
use lightning::util::ser::{LengthLimitedRead, ReadableArgs as _, Writeable, Writer};
use lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescription, Sha256};

use crate::{Hash, Id, Invoice, PeerId, Preimage, Recent, Refusal, State, Told};

type Keys = Arc<KeysManager>;
type Graph = NetworkGraph<Arc<Log>>;
type Monitors =
    ChainMonitor<InMemorySigner, Arc<dyn Filter + Send + Sync>, Arc<Mempool>, Arc<Fees>, Arc<Log>, Arc<Disk>, Keys>;
type Manager = ChannelManager<
    Arc<Monitors>,
    Arc<Mempool>,
    Keys,
    Keys,
    Keys,
    Arc<Fees>,
    Arc<Finder>,
    Arc<NullMessageRouter>,
    Arc<Log>,
>;
type Ignoring = Arc<IgnoringMessageHandler>;
type Connections = PeerManager<Socket, Arc<Manager>, Ignoring, Ignoring, Arc<Log>, Arc<Frames>, Keys, Ignoring>;

/// How long a wait may take before a test is given up.
const GUARD: Duration = Duration::from_secs(60);

const CHANNEL_SAT: u64 = 1_000_000;

// ---- what a node needs and LDK leaves to its host --------------------------------------------------------------------

/// Prints if `IBID_LDK_LOG` is set.
struct Log {
    name: String,
}

impl Logger for Log {
    fn log(&self, record: Record) {
        if std::env::var_os("IBID_LDK_LOG").is_some() {
            println!("{} {} {}:{} {}", self.name, record.level, record.module_path, record.line, record.args);
        }
    }
}

struct Fees;

impl FeeEstimator for Fees {
    fn get_est_sat_per_1000_weight(&self, _: ConfirmationTarget) -> u32 {
        253
    }
}

/// What a node has broadcast.
#[derive(Default)]
struct Mempool(Mutex<Vec<Transaction>>);

impl BroadcasterInterface for Mempool {
    fn broadcast_transactions(&self, txs: &[&Transaction]) {
        self.0.lock().unwrap().extend(txs.iter().map(|tx| (*tx).clone()));
    }
}

/// The monitors of one run of a node, as they were written last.
#[derive(Default)]
struct Disk(Mutex<BTreeMap<String, Vec<u8>>>);

impl Disk {
    fn write(&self, name: MonitorName, monitor: &ChannelMonitor<InMemorySigner>) -> ChannelMonitorUpdateStatus {
        self.0.lock().unwrap().insert(name.to_string(), monitor.encode());
        ChannelMonitorUpdateStatus::Completed
    }
}

impl Persist<InMemorySigner> for Disk {
    fn persist_new_channel(
        &self,
        name: MonitorName,
        monitor: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        self.write(name, monitor)
    }

    fn update_persisted_channel(
        &self,
        name: MonitorName,
        _: Option<&ChannelMonitorUpdate>,
        monitor: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        self.write(name, monitor)
    }

    fn archive_persisted_channel(&self, name: MonitorName) {
        self.0.lock().unwrap().remove(&name.to_string());
    }
}

type Finding = DefaultRouter<Arc<Graph>, Arc<Log>, Keys, Arc<Mutex<FixedPenaltyScorer>>, (), FixedPenaltyScorer>;

/// LDK's router, and what a test wants to happen between a route found and the payment sent along it.
struct Finder {
    router: Finding,
    then: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Router for Finder {
    fn find_route(
        &self,
        payer: &PublicKey,
        params: &RouteParameters,
        first_hops: Option<&[&ChannelDetails]>,
        in_flight: InFlightHtlcs,
    ) -> Result<Route, &'static str> {
        let route = self.router.find_route(payer, params, first_hops, in_flight)?;
        let then = self.then.lock().unwrap().take();
        if let Some(then) = then {
            then();
        }
        Ok(route)
    }

    fn create_blinded_payment_paths<T: bitcoin::secp256k1::Signing + bitcoin::secp256k1::Verification>(
        &self,
        _: PublicKey,
        _: Vec<ChannelDetails>,
        _: ReceiveTlvs,
        _: Option<u64>,
        _: &bitcoin::secp256k1::Secp256k1<T>,
    ) -> Result<Vec<BlindedPaymentPath>, ()> {
        Err(())
    }
}

// ---- custom messages -------------------------------------------------------------------------------------------------

/// One custom message of ibid's type: text, without a length before it.
#[derive(Clone, Debug)]
struct Frame(Vec<u8>);

impl Type for Frame {
    fn type_id(&self) -> u16 {
        ibid::lightning::MESSAGE_TYPE
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
    peers: Arc<OnceLock<Weak<Peers>>>,
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
struct Frames {
    host: RwLock<Option<Arc<dyn OnFrame>>>,
    replies: Replies,
    received: Mutex<Vec<String>>,
}

impl Frames {
    fn new(limit: usize) -> Self {
        let replies = Replies { queue: Arc::default(), limit, peers: Arc::default() };
        Self { host: RwLock::default(), replies, received: Mutex::default() }
    }
}

impl CustomMessageReader for Frames {
    type CustomMessage = Frame;

    fn read<R: LengthLimitedRead>(&self, kind: u16, from: &mut R) -> Result<Option<Frame>, DecodeError> {
        if kind != ibid::lightning::MESSAGE_TYPE {
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

/// The peer manager, one caller of `process_events` at a time. LDK's own returns at once while another thread is in it,
/// which then does the work of both; a test wants it done when the call returns.
struct Peers {
    connections: Connections,
    turn: Mutex<()>,
}

impl Peers {
    fn process_events(&self) {
        let _turn = self.turn.lock().unwrap();
        self.connections.process_events();
    }
}

// ---- the wire --------------------------------------------------------------------------------------------------------

/// Rings whenever a node writes to a socket or closes one.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.heard.notify_all();
    }

    fn wait(&self) {
        let rung = self.rung.lock().unwrap();
        let (mut rung, wait) = self.heard.wait_timeout_while(rung, GUARD, |rung| !*rung).unwrap();
        assert!(!wait.timed_out(), "nothing comes any more");
        *rung = false;
    }
}

/// One node's end of a link.
#[derive(Clone)]
struct Socket(Arc<End>);

struct End {
    out: Mutex<Vec<u8>>,
    closed: AtomicBool,
    bell: Arc<Bell>,
}

impl Socket {
    fn new(bell: &Arc<Bell>) -> Self {
        Self(Arc::new(End { out: Mutex::default(), closed: AtomicBool::new(false), bell: bell.clone() }))
    }

    fn is_closed(&self) -> bool {
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
struct Link {
    ends: [(Arc<Peers>, Socket); 2],
}

impl Link {
    /// Moves what has been written by one end to the other. Says whether anything moved.
    fn carry(&self, to: usize) -> bool {
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

    fn is_closed(&self) -> bool {
        self.ends.iter().any(|(_, socket)| socket.is_closed())
    }

    /// Bytes on their way are lost.
    fn close(&self) {
        for (peers, socket) in &self.ends {
            socket.0.out.lock().unwrap().clear();
            peers.connections.socket_disconnected(socket);
            socket.0.closed.store(true, Ordering::SeqCst);
        }
    }
}

// ---- one node --------------------------------------------------------------------------------------------------------

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
}

/// A node that is up.
pub struct Node {
    name: String,
    seed: u8,
    /// How often it was started: LDK wants other randomness each time.
    starts: u32,
    keys: Keys,
    mempool: Arc<Mempool>,
    disk: Arc<Disk>,
    finder: Arc<Finder>,
    monitors: Arc<Monitors>,
    manager: Arc<Manager>,
    frames: Arc<Frames>,
    peers: Arc<Peers>,
}

/// A handle for whoever pays or is paid: cheap to clone, usable from any thread. After a restart it still speaks to the manager that
/// was there before.
#[derive(Clone)]
pub struct Wallet(Arc<Manager>);

/// Everything of a node but its manager and what hangs on that.
struct Parts {
    log: Arc<Log>,
    keys: Keys,
    mempool: Arc<Mempool>,
    disk: Arc<Disk>,
    finder: Arc<Finder>,
    monitors: Arc<Monitors>,
}

impl Parts {
    fn new(name: &str, seed: u8, starts: u32) -> Self {
        let log = Arc::new(Log { name: name.into() });
        let keys = Arc::new(KeysManager::new(&[seed; 32], 0, starts, true));
        let graph = Arc::new(Graph::new(Network::Regtest, log.clone()));
        let scorer = Arc::new(Mutex::new(FixedPenaltyScorer::with_penalty(0)));
        let router = DefaultRouter::new(graph, log.clone(), keys.clone(), scorer, ());
        let (mempool, disk) = (Arc::new(Mempool::default()), Arc::new(Disk::default()));
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

    fn read_manager(&self, snapshot: &Snapshot) -> Result<Arc<Manager>, DecodeError> {
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
            self.disk.write(monitor.persistence_key(), &monitor);
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
    fn start(name: &str, seed: u8, starts: u32, from: Option<&Snapshot>) -> Self {
        let parts = Parts::new(name, seed, starts);
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

    fn public_key(&self) -> PublicKey {
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
        Snapshot { manager: self.manager.encode(), monitors: self.disk.0.lock().unwrap().values().cloned().collect() }
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

    /// Makes an invoice, of this many msat or of any amount.
    pub fn invoice(&self, msat: Option<u64>) -> Invoice {
        let params = Bolt11InvoiceParameters { amount_msats: msat, ..Default::default() };
        let invoice = self.manager.create_bolt11_invoice(params).unwrap();
        Invoice {
            text: invoice.to_string(),
            hash: invoice.payment_hash().to_byte_array(),
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

    fn confirm(&self, block: &Block) {
        let data: Vec<_> = block.txs.iter().enumerate().collect();
        let chain: [&dyn Confirm; 2] = [&*self.monitors, &*self.manager];
        for part in chain {
            part.transactions_confirmed(&block.header, &data, block.height);
            part.best_block_updated(&block.header, block.height);
        }
    }
}

impl Wallet {
    /// Pays a BOLT11 invoice, without retries.
    ///
    /// # Errors
    /// LDK's own.
    pub fn pay(&self, id: Id, invoice: &str) -> Result<(), Refusal> {
        self.pay_with(id, invoice, None, 0)
    }

    /// Pays a BOLT11 invoice. `msat` is for one without an amount, or for more than it asks.
    ///
    /// # Errors
    /// LDK's own.
    pub fn pay_with(&self, id: Id, invoice: &str, msat: Option<u64>, retries: u32) -> Result<(), Refusal> {
        let invoice: Bolt11Invoice = invoice.parse().unwrap();
        let (config, retry) = (RouteParametersConfig::default(), Retry::Attempts(retries));
        self.0.pay_for_bolt11_invoice(&invoice, PaymentId(id), msat, config, retry).map_err(|error| match error {
            Bolt11PaymentError::InvalidAmount => Refusal::InvalidAmount,
            Bolt11PaymentError::SendingFailed(error) => refusal(error),
        })
    }

    /// Pays to a hash and a secret, without retries.
    ///
    /// # Errors
    /// LDK's own.
    pub fn pay_hash(&self, id: Id, to: PeerId, hash: Hash, secret: [u8; 32], msat: u64) -> Result<(), Refusal> {
        let recipient = RecipientOnionFields::secret_only(PaymentSecret(secret));
        let params = RouteParameters::from_payment_params_and_value(payee(to), msat);
        self.0.send_payment(PaymentHash(hash), recipient, PaymentId(id), params, Retry::Attempts(0)).map_err(refusal)
    }

    /// Pays without an invoice, to the hash of this preimage and without retries.
    ///
    /// # Errors
    /// LDK's own.
    pub fn keysend(&self, id: Id, to: PeerId, preimage: Preimage, msat: u64) -> Result<(), Refusal> {
        let params = RouteParameters::from_payment_params_and_value(payee(to), msat);
        let recipient = RecipientOnionFields::spontaneous_empty();
        let sent = self.0.send_spontaneous_payment(
            Some(PaymentPreimage(preimage)),
            recipient,
            PaymentId(id),
            params,
            Retry::Attempts(0),
        );
        sent.map(|_| ()).map_err(refusal)
    }

    /// Takes up the id for a refund of so many msat, which waits for an invoice until the deadline in unix seconds.
    ///
    /// # Errors
    /// LDK's own.
    pub fn await_refund(&self, id: Id, msat: u64, deadline_s: u64) -> Result<(), Refusal> {
        let (deadline, config) = (Duration::from_secs(deadline_s), RouteParametersConfig::default());
        let (no_paths, retry) = (&NullMessageRouter {}, Retry::Attempts(0));
        let refund = self.0.create_refund_builder_using_router(no_paths, msat, deadline, PaymentId(id), retry, config);
        refund.map(|_| ()).map_err(|error| match error {
            Bolt12SemanticError::DuplicatePaymentId => Refusal::DuplicatePayment,
            other => panic!("{other:?}"),
        })
    }

    /// Stops the retries of a payment.
    pub fn abandon(&self, id: Id) {
        self.0.abandon_payment(PaymentId(id));
    }

    /// Makes an invoice for a hash whose preimage somebody else has. LDK stores nothing, and each call makes another one:
    /// its text, and when it expires in unix ms.
    pub fn mint(&self, hash: Hash, msat: u64, description: Hash, expiry_s: u32, final_cltv: u16) -> (String, u64) {
        let invoice = self.0.create_bolt11_invoice(Bolt11InvoiceParameters {
            amount_msats: Some(msat),
            description: Bolt11InvoiceDescription::Hash(Sha256(sha256::Hash::from_byte_array(description))),
            invoice_expiry_delta_secs: Some(expiry_s),
            min_final_cltv_expiry_delta: Some(final_cltv),
            payment_hash: Some(PaymentHash(hash)),
        });
        let invoice = invoice.unwrap();
        (invoice.to_string(), u64::try_from(invoice.expires_at().unwrap().as_millis()).unwrap())
    }

    /// Claims what has come in to the hash of this preimage.
    pub fn claim(&self, preimage: Preimage) {
        self.0.claim_funds(PaymentPreimage(preimage));
    }

    /// Whether a channel with this peer is there, usable or not.
    pub fn has_channel_with(&self, peer: impl AsRef<[u8]>) -> bool {
        self.0.list_channels().iter().any(|channel| channel.counterparty.node_id.serialize() == peer.as_ref())
    }

    /// What LDK lists, by id.
    pub fn recent(&self) -> Vec<Recent> {
        let mut recent: Vec<_> = self.0.list_recent_payments().into_iter().map(recent).collect();
        recent.sort_unstable();
        recent
    }

    /// The state that LDK lists for the id.
    pub fn state(&self, id: Id) -> Option<State> {
        self.recent().into_iter().find(|recent| recent.id == id).map(|recent| recent.state)
    }
}

fn payee(id: PeerId) -> PaymentParameters {
    PaymentParameters::from_node_id(PublicKey::from_slice(&id).unwrap(), 40)
}

fn refusal(error: RetryableSendFailure) -> Refusal {
    match error {
        RetryableSendFailure::PaymentExpired => Refusal::PaymentExpired,
        RetryableSendFailure::RouteNotFound => Refusal::RouteNotFound,
        RetryableSendFailure::DuplicatePayment => Refusal::DuplicatePayment,
        RetryableSendFailure::OnionPacketSizeExceeded => Refusal::OnionPacketSizeExceeded,
    }
}

fn recent(details: RecentPaymentDetails) -> Recent {
    let (id, hash, state) = match details {
        RecentPaymentDetails::AwaitingInvoice { payment_id } => (payment_id, None, State::AwaitingInvoice),
        RecentPaymentDetails::Pending { payment_id, payment_hash, .. } => {
            (payment_id, Some(payment_hash), State::Pending)
        }
        RecentPaymentDetails::Fulfilled { payment_id, payment_hash } => (payment_id, payment_hash, State::Fulfilled),
        RecentPaymentDetails::Abandoned { payment_id, payment_hash } => {
            (payment_id, Some(payment_hash), State::Abandoned)
        }
    };
    Recent { id: id.0, hash: hash.map(|hash| hash.0), state }
}

fn told(event: Event) -> Told {
    match event {
        Event::PaymentSent { payment_id: Some(id), payment_preimage, payment_hash, fee_paid_msat, .. } => {
            Told::Sent { id: id.0, hash: payment_hash.0, preimage: payment_preimage.0, fee_msat: fee_paid_msat }
        }
        Event::PaymentFailed { payment_id, payment_hash, reason } => Told::Failed {
            id: payment_id.0,
            hash: payment_hash.map(|hash| hash.0),
            reason: reason.map(|reason| format!("{reason:?}")).unwrap_or_default(),
        },
        Event::PaymentPathSuccessful { payment_id, .. } => Told::PathSuccessful { id: payment_id.0 },
        Event::PaymentPathFailed { payment_id: Some(id), payment_hash, .. } => {
            Told::PathFailed { id: id.0, hash: payment_hash.0 }
        }
        Event::PaymentClaimable { payment_hash, amount_msat, purpose, .. } => Told::Claimable {
            hash: payment_hash.0,
            msat: amount_msat,
            preimage: purpose.preimage().map(|preimage| preimage.0),
        },
        Event::PaymentClaimed { payment_hash, .. } => Told::Claimed { hash: payment_hash.0 },
        other => Told::Other(format!("{other:?}").split([' ', '(']).next().unwrap_or_default().to_owned()),
    }
}

// ---- several nodes ---------------------------------------------------------------------------------------------------

struct Block {
    header: Header,
    height: u32,
    txs: Vec<Transaction>,
}

/// Nodes, the links between them, and a chain that they all see.
pub struct Net {
    nodes: Vec<Node>,
    links: Vec<(usize, usize, Link)>,
    blocks: Vec<Block>,
    bell: Arc<Bell>,
    claimed: Vec<Hash>,
}

impl Net {
    /// This many nodes, all connected to the first.
    pub fn star(count: u8) -> Self {
        let nodes = (0..count).map(|n| Node::start(&format!("node {n}"), n + 1, 0, None)).collect();
        let mut net = Self { nodes, links: Vec::new(), blocks: Vec::new(), bell: Arc::default(), claimed: Vec::new() };
        (1..net.nodes.len()).for_each(|n| net.connect(0, n));
        net
    }

    /// A payer and a payee with a channel of 1,000,000 sat, all of it the payer's.
    pub fn channel() -> Self {
        let mut net = Self::star(2);
        net.open_channel(0, 1);
        net
    }

    /// The n-th node.
    pub fn node(&self, n: usize) -> &Node {
        &self.nodes[n]
    }

    /// The first node.
    pub fn payer(&self) -> &Node {
        &self.nodes[0]
    }

    /// The second node.
    pub fn payee(&self) -> &Node {
        &self.nodes[1]
    }

    /// Connects two nodes: a new link, and LDK's handshake over it.
    pub fn connect(&mut self, from: usize, to: usize) {
        let [a, b] = [from, to].map(|n| (self.nodes[n].peers.clone(), Socket::new(&self.bell)));
        let act_one = a.0.connections.new_outbound_connection(self.nodes[to].public_key(), a.1.clone(), None).unwrap();
        b.0.connections.new_inbound_connection(b.1.clone(), None).unwrap();
        a.1.0.out.lock().unwrap().extend(act_one);
        self.links.push((from, to, Link { ends: [a, b] }));
        self.deliver();
    }

    /// Cuts every link between two nodes. What is on its way is lost.
    pub fn disconnect(&mut self, a: usize, b: usize) {
        let between = |from: usize, to: usize| (from, to) == (a, b) || (from, to) == (b, a);
        self.links.retain(|(from, to, link)| {
            if between(*from, *to) {
                link.close();
            }
            !between(*from, *to)
        });
    }

    /// Cuts every link, from any thread and when it is called.
    pub fn scissors(&self) -> impl FnOnce() + Send + 'static {
        let links: Vec<_> = self.links.iter().map(|(_, _, link)| link.clone()).collect();
        move || links.iter().for_each(Link::close)
    }

    /// One node sends another a frame of any bytes. It leaves the node, and is not carried yet.
    pub fn send_frame(&self, from: usize, to: usize, frame: impl Into<Vec<u8>>) {
        self.nodes[from].frames.replies.push(self.nodes[to].id(), frame);
        self.nodes[from].peers.process_events();
    }

    /// Moves bytes until there are none. Only who gets bytes does anything, as behind a network.
    pub fn carry(&mut self) {
        while self.links.iter().fold(false, |moved, (_, _, link)| link.carry(0) | link.carry(1) | moved) {}
        self.links.retain(|(_, _, link)| {
            if link.is_closed() {
                link.close();
            }
            !link.is_closed()
        });
    }

    /// As [`Net::carry`], with what a background processor does: messages that wait are sent, payments are forwarded.
    pub fn deliver(&mut self) {
        loop {
            for node in &self.nodes {
                node.manager.process_pending_htlc_forwards();
                node.peers.process_events();
            }
            let quiet = self
                .links
                .iter()
                .all(|(_, _, link)| link.ends.iter().all(|(_, socket)| socket.0.out.lock().unwrap().is_empty()));
            self.carry();
            if quiet && !self.nodes.iter().any(|node| node.manager.needs_pending_htlc_processing()) {
                return;
            }
        }
    }

    /// Moves bytes, waiting for some when there are none, until this holds. A node that gets none does nothing.
    pub fn carry_until(&mut self, mut holds: impl FnMut(&Self) -> bool) {
        loop {
            self.carry();
            if holds(self) {
                return;
            }
            self.bell.wait();
        }
    }

    /// Waits until payments to these hashes have come in at the payee, which it neither claims nor fails. Their preimages.
    ///
    /// # Panics
    /// If one has not.
    pub fn hold<const N: usize>(&mut self, hashes: [Hash; N]) -> [Option<Preimage>; N] {
        self.deliver();
        let events = self.payee_events();
        hashes.map(|hash| {
            let claimable = events.iter().find_map(|event| match event {
                Told::Claimable { hash: found, preimage, .. } if *found == hash => Some(*preimage),
                _ => None,
            });
            claimable.unwrap_or_else(|| panic!("not claimable: {events:?}"))
        })
    }

    /// The payment to the hash of an invoice that has come in at the payee is claimed. The preimage.
    pub fn claim(&mut self, hash: Hash) -> Preimage {
        let preimage = self.begin_claim(hash);
        self.finish_claim();
        preimage
    }

    /// As [`Net::claim`], but the payee does not see PaymentClaimed: the payer has the preimage, and the HTLC stays in the
    /// channel.
    pub fn begin_claim(&mut self, hash: Hash) -> Preimage {
        let [preimage] = self.hold([hash]);
        let preimage = preimage.expect("the payee made the invoice");
        self.begin_claim_with(preimage);
        preimage
    }

    /// What is held is claimed.
    pub fn claim_with(&mut self, preimage: Preimage) {
        self.begin_claim_with(preimage);
        self.finish_claim();
    }

    fn begin_claim_with(&mut self, preimage: Preimage) {
        self.payee().manager.claim_funds(PaymentPreimage(preimage));
        self.deliver();
    }

    /// The payee sees PaymentClaimed, and lets go of the HTLC.
    pub fn finish_claim(&mut self) {
        self.payee_events();
        self.deliver();
    }

    /// How often the payee was told that it has claimed a payment to this hash.
    pub fn claims(&self, hash: Hash) -> usize {
        self.claimed.iter().filter(|claimed| **claimed == hash).count()
    }

    fn payee_events(&mut self) -> Vec<Told> {
        let events = self.payee().events();
        self.claimed.extend(events.iter().filter_map(|event| match event {
            Told::Claimed { hash } => Some(*hash),
            _ => None,
        }));
        events
    }

    /// The payment to the hash of an invoice that has come in at the payee is failed.
    pub fn fail(&mut self, hash: Hash) {
        self.hold([hash]);
        self.fail_held(hash);
    }

    /// What is held is failed.
    pub fn fail_held(&mut self, hash: Hash) {
        self.payee().manager.fail_htlc_backwards(&PaymentHash(hash));
        self.deliver();
    }

    /// Handles the payer's events until there are no more: LDK finishes with a payment, and tells of its paths, only when
    /// PaymentSent has been handled.
    pub fn payer_events(&mut self) -> Vec<Told> {
        let mut all = Vec::new();
        loop {
            self.deliver();
            let events = self.payer().events();
            if events.is_empty() {
                return all;
            }
            all.extend(events);
        }
    }

    /// Kills the payer and starts it from what a snapshot says was on its disks. It is not connected to anybody.
    pub fn restart_payer(&mut self, from: &Snapshot) {
        (1..self.nodes.len()).for_each(|n| self.disconnect(0, n));
        let Node { name, seed, starts, .. } = &self.nodes[0];
        let node = Node::start(name, *seed, starts + 1, Some(from));
        let best = node.manager.current_best_block().height;
        self.blocks.iter().filter(|block| block.height > best).for_each(|block| node.confirm(block));
        self.nodes[0] = node;
    }

    /// Whether LDK would start the payer from this.
    pub fn starts_from(&self, snapshot: &Snapshot) -> bool {
        let Node { name, seed, starts, .. } = &self.nodes[0];
        Parts::new(name, *seed, starts + 1).read_manager(snapshot).is_ok()
    }

    /// Mines what the nodes have broadcast, and as many blocks in all.
    pub fn mine(&mut self, blocks: u32) {
        let mut seen = std::collections::BTreeSet::<Txid>::new();
        let broadcast = self.nodes.iter().flat_map(|node| std::mem::take(&mut *node.mempool.0.lock().unwrap()));
        let mut txs: Vec<_> = broadcast.filter(|tx| seen.insert(tx.compute_txid())).collect();
        for _ in 0..blocks {
            let before = self.blocks.last().map_or_else(
                || bitcoin::constants::genesis_block(Network::Regtest).block_hash(),
                |block| block.header.block_hash(),
            );
            let height = self.blocks.len() as u32 + 1;
            let header = Header {
                version: BlockVersion::NO_SOFT_FORK_SIGNALLING,
                prev_blockhash: before,
                merkle_root: TxMerkleNode::all_zeros(),
                time: height,
                bits: CompactTarget::from_consensus(42),
                nonce: 42,
            };
            let block = Block { header, height, txs: std::mem::take(&mut txs) };
            self.nodes.iter().for_each(|node| node.confirm(&block));
            self.blocks.push(block);
        }
        self.deliver();
    }

    /// Opens a channel of 1,000,000 sat, all of it the first node's, and handles the events of it.
    pub fn open_channel(&mut self, from: usize, to: usize) {
        let peer = self.nodes[to].public_key();
        self.nodes[from].manager.create_channel(peer, CHANNEL_SAT, 0, 0, None, None).unwrap();
        self.deliver();
        let manager = self.nodes[from].manager.clone();
        manager.process_pending_events(&|event: Event| {
            if let Event::FundingGenerationReady { temporary_channel_id, output_script, .. } = event {
                manager.funding_transaction_generated(temporary_channel_id, peer, funding(output_script)).unwrap();
            }
            Ok(())
        });
        self.deliver();
        self.mine(6);
        assert!(manager.list_usable_channels().iter().any(|channel| channel.counterparty.node_id == peer));
        for n in [from, to] {
            self.nodes[n].events();
        }
    }
}

/// A transaction with this output, from a coin that nobody looks at.
fn funding(script_pubkey: ScriptBuf) -> Transaction {
    let txid = Txid::from_byte_array(sha256::Hash::hash(script_pubkey.as_bytes()).to_byte_array());
    let input = TxIn {
        previous_output: OutPoint { txid, vout: 0 },
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::from_slice(&[[1]]),
    };
    let output = TxOut { value: Amount::from_sat(CHANNEL_SAT), script_pubkey };
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output: vec![output] }
}
