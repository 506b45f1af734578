//! Several nodes, the links between them, and a chain that they all see.

use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version as BlockVersion};
use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::pow::CompactTarget;
use bitcoin::transaction::Version;
use bitcoin::{Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Txid, Witness};
use ibid::ldk::KvStore;
use lightning::events::{Event, EventsProvider as _};
use lightning::types::payment::{PaymentHash, PaymentPreimage};

use super::node::{Node, Parts, Snapshot};
use super::wire::{Bell, Link, Socket};
use crate::{Hash, Preimage, Told};

const CHANNEL_SAT: u64 = 1_000_000;

pub(super) struct Block {
    pub(super) header: Header,
    pub(super) height: u32,
    pub(super) txs: Vec<Transaction>,
}

/// Nodes, the links between them, and a chain that they all see.
pub struct Net {
    nodes: Vec<Node>,
    links: Vec<(usize, usize, Link)>,
    blocks: Vec<Block>,
    bell: Arc<Bell>,
    /// The hashes that the payee was told to have claimed.
    claimed: Vec<Hash>,
}

impl Net {
    /// This many nodes, all connected to the first.
    pub fn star(count: u8) -> Self {
        Self::star_on((0..count).map(|_| None))
    }

    /// The same, each node with this store or with none.
    fn star_on(stores: impl IntoIterator<Item = Option<KvStore>>) -> Self {
        let node = |(n, store): (u8, _)| Node::start(&format!("node {n}"), n + 1, 0, store, None);
        let nodes = (0..).zip(stores).map(node).collect();
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

    /// The same, where each writes its monitors to its store.
    pub fn channel_on(stores: [KvStore; 2]) -> Self {
        let mut net = Self::star_on(stores.map(Some));
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
        self.restart(0, None, from);
    }

    /// Kills the n-th node and starts it from its store. It is not connected to anybody.
    pub fn restart_on(&mut self, n: usize, store: KvStore) {
        let from = Snapshot::in_store(&store);
        self.restart(n, Some(store), &from);
    }

    fn restart(&mut self, n: usize, store: Option<KvStore>, from: &Snapshot) {
        (0..self.nodes.len()).for_each(|other| self.disconnect(n, other));
        let Node { name, seed, starts, .. } = &self.nodes[n];
        let node = Node::start(name, *seed, starts + 1, store, Some(from));
        let best = node.manager.current_best_block().height;
        self.blocks.iter().filter(|block| block.height > best).for_each(|block| node.confirm(block));
        self.nodes[n] = node;
    }

    /// Whether LDK would start the payer from this.
    pub fn starts_from(&self, snapshot: &Snapshot) -> bool {
        let Node { name, seed, starts, .. } = &self.nodes[0];
        Parts::new(name, *seed, starts + 1, None).read_manager(snapshot).is_ok()
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
