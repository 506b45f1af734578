//! A node that keeps its manager and its monitors in ibid's file.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ibid::Engine;
use ibid::ldk::KvStore;
use ibid_ldk::{Id, Net, Snapshot, State, Told};
use lightning::util::persist::{KVStoreSync as _, MigratableKVStore as _};

const X: Id = [0x58; 32];
const Y: Id = [0x59; 32];
const MSAT: u64 = 5_000_000;

/// The files of two nodes.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self, n: usize) -> (Engine, KvStore) {
        let engine = Engine::open(self.0.path().join(format!("node-{n}.redb"))).unwrap();
        let store = KvStore::new(&engine, "node").unwrap();
        (engine, store)
    }
}

/// Two nodes with a channel, and the engines whose files they write to.
fn channel(files: &Files) -> (Net, [Engine; 2]) {
    let [(payer, payer_store), (payee, payee_store)] = [0, 1].map(|n| files.open(n));
    let net = Net::channel_on([payer_store, payee_store]);
    (net, [payer, payee])
}

/// Kills a node and its engine, and starts both from what is in the file.
fn restart(net: &mut Net, files: &Files, n: usize, engine: &mut Engine) {
    engine.shutdown_blocking();
    let (opened, store) = files.open(n);
    *engine = opened;
    net.restart_on(n, store);
}

/// What is stored of each node's one monitor is what the node holds; it is the update with this number.
fn updates(net: &Net) -> [u64; 2] {
    [0, 1].map(|n| {
        let (held, stored) = net.node(n).monitor_updates();
        assert_eq!((held.len(), &stored), (1, &held), "node {n}");
        stored[0]
    })
}

#[test]
fn two_nodes_persist_through_it_and_a_payment_under_way_survives_the_restart_of_both() {
    let files = Files::new();
    let (mut net, mut engines) = channel(&files);
    let opened = updates(&net);
    let first = net.payee().invoice(Some(MSAT));
    net.payer().wallet().pay(X, &first.text).unwrap();
    net.claim(first.hash);
    assert!(net.payer_events().iter().any(|told| matches!(told, Told::Sent { id: X, .. })));
    let paid = updates(&net);
    assert!(paid[0] > opened[0] && paid[1] > opened[1], "{opened:?} {paid:?}");

    let second = net.payee().invoice(Some(MSAT));
    net.payer().wallet().pay(Y, &second.text).unwrap();
    net.deliver();
    for n in [0, 1] {
        net.node(n).persist();
    }
    let under_way = updates(&net);
    for (n, engine) in engines.iter_mut().enumerate() {
        restart(&mut net, &files, n, engine);
    }
    assert_eq!(updates(&net), under_way, "as they were");
    assert_eq!(net.payer().wallet().state(Y), Some(State::Pending));
    net.connect(0, 1);
    net.claim(second.hash);
    assert_eq!((net.claims(first.hash), net.claims(second.hash)), (1, 1));
    assert!(net.payer_events().iter().any(|told| matches!(told, Told::Sent { id: Y, .. })));
    let claimed = updates(&net);
    assert!(claimed[0] > under_way[0] && claimed[1] > under_way[1], "{under_way:?} {claimed:?}");
    engines.iter().for_each(Engine::shutdown_blocking);
}

#[test]
fn a_node_whose_monitor_cannot_be_written_stops_and_starts_again_from_its_file() {
    let files = Files::new();
    let (net, engines) = channel(&files);
    net.payer().persist();
    engines[0].shutdown_blocking();
    let (engine, store) = files.open(0);
    let before = entries(&store);
    assert_eq!(before.len(), 2, "a manager and a monitor");
    engine.shutdown_blocking();

    // The payer's own engine stays closed.
    let (payer, invoice) = (net.payer().wallet(), net.payee().invoice(Some(MSAT)));
    let stopped = catch_unwind(AssertUnwindSafe(|| payer.pay(X, &invoice.text)));
    assert!(stopped.is_err(), "LDK takes no payment whose monitor is not written: {stopped:?}");
    let (engine, store) = files.open(0);
    assert_eq!(entries(&store), before);
    assert!(net.starts_from(&Snapshot::in_store(&store)));
    engine.shutdown_blocking();
    engines[1].shutdown_blocking();
}

/// All that a node has written.
fn entries(store: &KvStore) -> BTreeMap<(String, String, String), Vec<u8>> {
    let names = store.list_all_keys().unwrap();
    names.into_iter().map(|at| (at.clone(), store.read(&at.0, &at.1, &at.2).unwrap())).collect()
}
