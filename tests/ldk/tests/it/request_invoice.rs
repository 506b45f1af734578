//! System 1 behind LDK's own `CustomMessageHandler`: requests and replies go through two peer managers, encrypted, and what
//! is minted is LDK's own invoice, which can be paid.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::hashes::{Hash as _, sha256};
use ibid::lightning::request_invoice::{FLOW_NAME, Handled, InvoiceProvider, InvoiceRequest, MAX_FRAME_BYTES, METHOD, Minted, Providing, RequestInvoice, RpcError};
use ibid::{Attempt, Engine, Flow, Limits, NodeId, Policy, UnixMillis};
use ibid_ldk::{Net, OnFrame, PeerId, Replies, Told, Wallet};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// The node that owns the handler. The others ask it.
const NODE: usize = 0;
const LSP: usize = 1;
const OTHER: usize = 2;

const MSAT: u64 = 5_000_000;
const EXPIRY_S: u32 = 600;
/// Blocks, above the least that LDK mints for.
const FINAL_CLTV: u16 = 60;
const PREIMAGE: [u8; 32] = [0x5c; 32];

// ---- the host --------------------------------------------------------------------------------------------------------

/// Has the node's own LDK mint. Counts, and waits at a gate that the test opens if the hash is a held one.
struct Minting {
    wallet: Wallet,
    mints: watch::Sender<u32>,
    held: Mutex<Vec<[u8; 32]>>,
    gate: watch::Sender<bool>,
}

impl InvoiceProvider for Minting {
    fn mint<'a>(&'a self, request: &'a InvoiceRequest, _: &'a Attempt) -> Providing<'a, Minted> {
        Box::pin(async move {
            let params = &request.params;
            self.mints.send_modify(|mints| *mints += 1);
            let held = self.held.lock().unwrap().contains(&params.payment_hash);
            if held {
                self.gate.subscribe().wait_for(|open| *open).await.map_err(RpcError::outbound_invoice_failed)?;
            }
            let (bolt11, expires_at) = self.wallet.mint(
                params.payment_hash,
                params.amount_msat,
                params.description_hash,
                params.invoice_expiry_sec,
                params.min_final_cltv_expiry_delta,
            );
            Ok(Minted { bolt11, expires_at: UnixMillis(expires_at) })
        })
    }
}

/// The part between LDK and ibid, as a host has it.
struct Host {
    handler: RequestInvoice,
    /// How often a callback has run to its end.
    answered: watch::Sender<u32>,
}

impl OnFrame for Host {
    fn on_frame(&self, from: PeerId, frame: &str, replies: &Replies) {
        let Ok(peer) = NodeId::new(from) else { return };
        let (later, answered) = (replies.clone(), self.answered.clone());
        let handled = self.handler.handle(peer, frame.as_bytes(), move |reply| {
            later.push(from, reply);
            // Else it waits until a timer runs or a message comes in.
            later.wake();
            answered.send_modify(|answered| *answered += 1);
        });
        match handled {
            Handled::Reply(reply) => replies.push(from, reply),
            // This node asks nobody anything, and what is no text was refused in decoding.
            Handled::Pending | Handled::Ignored | Handled::Response { .. } | Handled::NotText => {}
        }
    }
}

/// A net with its first node's engine. The LSP has opened a channel to the node; the other peer has none.
struct World {
    net: Net,
    engine: Engine,
    minting: Arc<Minting>,
    answered: watch::Sender<u32>,
    runtime: Runtime,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let mut net = Net::star(3);
        net.open_channel(LSP, NODE);
        let runtime = Runtime::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let minting = Arc::new(Minting {
            wallet: net.node(NODE).wallet(),
            mints: watch::Sender::new(0),
            held: Mutex::default(),
            gate: watch::Sender::new(false),
        });
        let engine = open(&dir, &runtime);
        let world = Self { net, engine, minting, answered: watch::Sender::new(0), runtime, dir };
        world.plug_in(|_| true);
        world
    }

    /// What a node does when it starts.
    fn plug_in(&self, allowed: impl Fn(&NodeId) -> bool + Send + Sync + 'static) {
        let flow = Flow::new(FLOW_NAME, Policy::request_invoice()).unwrap();
        let handler = RequestInvoice::new(self.engine.clone(), flow).allow(allowed);
        handler.set_provider(Some(self.minting.clone()));
        let host = Host { handler, answered: self.answered.clone() };
        self.net.node(NODE).set_host(Some(Arc::new(host)));
    }

    fn reopen(&mut self) {
        self.engine.shutdown_blocking();
        self.engine = open(&self.dir, &self.runtime);
        self.plug_in(|_| true);
    }

    fn mints(&self) -> u32 {
        *self.minting.mints.borrow()
    }

    /// Mints for this preimage wait from now on, until the gate is opened.
    fn hold(&self, preimage: [u8; 32]) {
        self.minting.held.lock().unwrap().push(hash(preimage));
    }

    /// Until so many mints have begun.
    fn minting(&self, n: u32) {
        let mut mints = self.minting.mints.subscribe();
        self.runtime.block_on(mints.wait_for(|mints| *mints >= n)).unwrap();
    }

    fn open_gate(&self) {
        self.minting.gate.send_replace(true);
    }

    /// Sends a frame, and lets it arrive.
    fn send(&mut self, from: usize, frame: impl Into<Vec<u8>>) {
        self.net.send_frame(from, NODE, frame);
        self.net.carry();
    }

    /// The next `n` frames that reach this peer.
    fn replies(&mut self, to: usize, n: usize) -> Vec<String> {
        let mut replies = Vec::new();
        self.net.carry_until(|net| {
            replies.extend(net.node(to).received());
            replies.len() >= n
        });
        replies
    }

    fn ask(&mut self, from: usize, id: &str, preimage: [u8; 32]) -> String {
        self.send(from, request(id, preimage));
        self.replies(from, 1).remove(0)
    }

    fn records(&self) -> u64 {
        let records = self.runtime.block_on(self.engine.stats()).unwrap().records;
        records.registered + records.in_doubt + records.completed
    }
}

fn open(dir: &tempfile::TempDir, runtime: &Runtime) -> Engine {
    let mut limits = Limits::default();
    // A shutdown waits for nothing that runs.
    limits.drain = Duration::ZERO;
    Engine::builder().runtime(runtime.handle().clone()).limits(limits).open(dir.path().join("ibid.redb")).unwrap()
}

// ---- the wire --------------------------------------------------------------------------------------------------------

fn hash(preimage: [u8; 32]) -> [u8; 32] {
    sha256::Hash::hash(&preimage).to_byte_array()
}

fn hex(bytes: [u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn request(id: &str, preimage: [u8; 32]) -> String {
    let (hash, description) = (hex(hash(preimage)), "e1".repeat(32));
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"{METHOD}","params":{{"hash_index":"7","payment_hash":"{hash}","amount_msat":{MSAT},"description_hash":"{description}","invoice_expiry_sec":{EXPIRY_S},"min_final_cltv_expiry_delta":{FINAL_CLTV}}}}}"#
    )
}

/// The `result` of a reply under this id, as it stands there.
fn result<'a>(reply: &'a str, id: &str) -> &'a str {
    let result = reply.strip_prefix(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"#));
    result.and_then(|rest| rest.strip_suffix('}')).unwrap_or_else(|| panic!("{reply}"))
}

fn bolt11<'a>(reply: &'a str, id: &str) -> &'a str {
    let (_, bolt11) = result(reply, id).split_once(r#""bolt11":""#).unwrap();
    bolt11.trim_end_matches("\"}")
}

const PARSE_ERROR: &str = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"parse error"}}"#;

// ---- tests -----------------------------------------------------------------------------------------------------------

#[test]
fn what_is_minted_comes_over_the_wire_and_can_be_paid() {
    let mut world = World::new();
    let reply = world.ask(LSP, "1", PREIMAGE);
    world.net.node(LSP).wallet().pay([1; 32], bolt11(&reply, "1")).unwrap();
    world.net.deliver();
    let claimable = Told::Claimable { hash: hash(PREIMAGE), msat: MSAT, preimage: None };
    assert_eq!(world.net.node(NODE).events(), [claimable]);
    world.net.node(NODE).wallet().claim(PREIMAGE);
    world.net.deliver();
    let sent = world.net.node(LSP).events();
    assert!(matches!(sent[0], Told::Sent { preimage: PREIMAGE, .. }), "{sent:?}");
}

#[test]
fn a_reply_is_sent_although_nothing_happens_at_the_node_but_the_end_of_the_operation() {
    let mut world = World::new();
    world.hold(PREIMAGE);
    world.send(LSP, request("1", PREIMAGE));
    world.minting(1);
    world.net.carry();
    assert!(world.net.node(LSP).received().is_empty());
    world.open_gate();
    // From here on the node gets no byte, so nobody but the callback calls its `process_events`.
    assert!(bolt11(&world.replies(LSP, 1)[0], "1").starts_with("lnbcrt"));
}

#[test]
fn while_an_operation_waits_peers_are_served_connect_go_and_pay() {
    let mut world = World::new();
    world.hold(PREIMAGE);
    world.send(LSP, request("1", PREIMAGE));
    world.minting(1);

    assert!(bolt11(&world.ask(OTHER, "2", [2; 32]), "2").starts_with("lnbcrt"), "another peer");
    let own = world.ask(LSP, "3", [3; 32]);
    assert!(bolt11(&own, "3").starts_with("lnbcrt"), "the same peer, another key");
    world.send(LSP, "[1");
    assert_eq!(world.replies(LSP, 1), [PARSE_ERROR]);
    world.net.disconnect(NODE, OTHER);
    world.net.connect(NODE, OTHER);
    assert!(world.net.node(OTHER).is_connected_to(world.net.node(NODE).id()), "under the lock that handlers run under");
    world.net.node(LSP).wallet().pay([3; 32], bolt11(&own, "3")).unwrap();
    world.net.deliver();
    assert!(matches!(world.net.node(NODE).events()[..], [Told::Claimable { .. }]), "a payment through the channel");

    assert!(world.net.node(LSP).received().is_empty());
    world.open_gate();
    assert!(bolt11(&world.replies(LSP, 1)[0], "1").starts_with("lnbcrt"));
    assert_eq!(world.mints(), 3);
}

#[test]
fn duplicates_join_and_all_get_the_one_invoice_each_under_its_own_id() {
    let mut world = World::new();
    world.hold(PREIMAGE);
    for n in 0..8 {
        world.send(LSP, request(&n.to_string(), PREIMAGE));
    }
    world.minting(1);
    world.open_gate();
    let mut replies = world.replies(LSP, 8);
    replies.sort();
    let results: BTreeSet<_> = (0..8).map(|n| result(&replies[n], &n.to_string())).collect();
    assert_eq!((replies.len(), results.len(), world.mints()), (8, 1, 1));
}

#[test]
fn two_mints_differ_and_a_replay_is_the_first_one_byte_for_byte_also_after_engine_and_node_are_gone() {
    let mut world = World::new();
    let first = world.ask(LSP, r#""first""#, PREIMAGE);
    // LDK makes the payment secret of its clock's time, which is that of the blocks.
    world.net.mine(1);
    let (another, _) = world.minting.wallet.mint(hash(PREIMAGE), MSAT, [0xe1; 32], EXPIRY_S, FINAL_CLTV);
    assert_ne!(another, bolt11(&first, r#""first""#), "which could be paid as well, if it got out");

    assert_eq!(result(&world.ask(LSP, "2", PREIMAGE), "2"), result(&first, r#""first""#));
    world.reopen();
    assert_eq!(result(&world.ask(LSP, "3", PREIMAGE), "3"), result(&first, r#""first""#));

    let snapshot = world.net.node(NODE).snapshot();
    world.net.restart_payer(&snapshot);
    world.net.connect(NODE, LSP);
    world.reopen();
    assert_eq!(result(&world.ask(LSP, "4", PREIMAGE), "4"), result(&first, r#""first""#));
    assert_eq!(world.mints(), 1);
}

#[test]
fn a_peer_without_a_channel_gets_silence_and_leaves_nothing() {
    let mut world = World::new();
    let wallet = world.net.node(NODE).wallet();
    world.plug_in(move |peer| wallet.has_channel_with(peer));
    world.send(OTHER, request("1", PREIMAGE));
    world.send(OTHER, "[1");
    assert!(bolt11(&world.ask(LSP, "2", PREIMAGE), "2").starts_with("lnbcrt"));
    assert_eq!((world.net.node(OTHER).received(), world.records(), world.mints()), (vec![], 1, 1));
    assert!(world.net.node(NODE).is_connected_to(world.net.node(OTHER).id()), "nor is it disconnected");
}

#[test]
fn a_frame_that_is_no_text_disconnects_its_sender_and_nobody_else() {
    let mut world = World::new();
    world.send(OTHER, *b"{\"jsonrpc\":\"2.0\",\xff}");
    let connected = |world: &World, peer| world.net.node(NODE).is_connected_to(world.net.node(peer).id());
    assert_eq!([LSP, OTHER].map(|peer| connected(&world, peer)), [true, false]);
    assert!(bolt11(&world.ask(LSP, "1", PREIMAGE), "1").starts_with("lnbcrt"));
    world.net.connect(NODE, OTHER);
    assert!(bolt11(&world.ask(OTHER, "2", PREIMAGE), "2").starts_with("lnbcrt"));
}

#[test]
fn the_longest_frame_arrives_and_one_byte_more_is_not_a_message() {
    let mut world = World::new();
    world.send(LSP, " ".repeat(MAX_FRAME_BYTES));
    assert_eq!(world.replies(LSP, 1), [PARSE_ERROR]);
    let padded = request("1", PREIMAGE);
    let padding = " ".repeat(MAX_FRAME_BYTES - padded.len());
    world.send(LSP, padded + &padding);
    assert!(bolt11(&world.replies(LSP, 1)[0], "1").starts_with("lnbcrt"));
}

#[test]
fn a_reply_to_a_peer_that_has_gone_is_dropped_and_its_retry_is_replayed() {
    let mut world = World::new();
    world.hold(PREIMAGE);
    world.send(LSP, request("1", PREIMAGE));
    world.minting(1);
    world.net.disconnect(NODE, LSP);
    world.open_gate();
    world.runtime.block_on(world.answered.subscribe().wait_for(|answered| *answered == 1)).unwrap();
    world.net.connect(NODE, LSP);
    let retried = world.ask(LSP, "3", PREIMAGE);
    assert!(bolt11(&retried, "3").starts_with("lnbcrt"));
    assert_eq!((world.net.node(LSP).received(), world.mints()), (vec![], 1));
}

#[test]
fn replies_that_find_the_queue_full_are_dropped_and_a_retry_is_answered() {
    let mut world = World::new();
    for _ in 0..20 {
        world.net.send_frame(LSP, NODE, "[1");
    }
    assert_eq!(world.replies(LSP, 16), vec![PARSE_ERROR; 16], "all twenty came in one read");
    let first = world.ask(LSP, "1", PREIMAGE);
    assert_eq!(result(&world.ask(LSP, "2", PREIMAGE), "2"), result(&first, "1"));
}

#[test]
fn a_shutdown_answers_whoever_waits_and_the_next_engine_gives_the_invoice() {
    let mut world = World::new();
    world.hold(PREIMAGE);
    world.send(LSP, request("1", PREIMAGE));
    world.minting(1);
    let unknown = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"async_order_outcome_unknown"}}"#;
    world.reopen();
    assert_eq!(world.replies(LSP, 1), [unknown]);
    world.open_gate();
    let retried = world.ask(LSP, "2", PREIMAGE);
    assert_eq!(result(&world.ask(LSP, "3", PREIMAGE), "3"), result(&retried, "2"));
}
