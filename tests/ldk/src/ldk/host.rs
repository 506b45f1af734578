//! What a node needs and LDK leaves to its host: fees, a mempool, a disk, a log, a route.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bitcoin::Transaction;
use bitcoin::secp256k1::PublicKey;
use ibid::ldk::KvStore;
use lightning::blinded_path::payment::{BlindedPaymentPath, ReceiveTlvs};
use lightning::chain::ChannelMonitorUpdateStatus;
use lightning::chain::chaininterface::{BroadcasterInterface, ConfirmationTarget, FeeEstimator};
use lightning::chain::chainmonitor::Persist;
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::ln::channel_state::ChannelDetails;
use lightning::routing::router::{DefaultRouter, InFlightHtlcs, Route, RouteParameters, Router};
use lightning::routing::scoring::FixedPenaltyScorer;
use lightning::sign::InMemorySigner;
use lightning::util::logger::{Logger, Record};
use lightning::util::persist::{
    CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE, CHANNEL_MONITOR_PERSISTENCE_SECONDARY_NAMESPACE, KVStoreSync as _,
    MonitorName,
};
use lightning::util::ser::Writeable;

use super::{Graph, Keys};

const MONITORS: (&str, &str) =
    (CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE, CHANNEL_MONITOR_PERSISTENCE_SECONDARY_NAMESPACE);

/// Prints if `IBID_LDK_LOG` is set.
pub(super) struct Log {
    pub(super) name: String,
}

impl Logger for Log {
    fn log(&self, record: Record) {
        if std::env::var_os("IBID_LDK_LOG").is_some() {
            println!("{} {} {}:{} {}", self.name, record.level, record.module_path, record.line, record.args);
        }
    }
}

pub(super) struct Fees;

impl FeeEstimator for Fees {
    fn get_est_sat_per_1000_weight(&self, _: ConfirmationTarget) -> u32 {
        253
    }
}

/// What a node has broadcast.
#[derive(Default)]
pub(super) struct Mempool(pub(super) Mutex<Vec<Transaction>>);

impl BroadcasterInterface for Mempool {
    fn broadcast_transactions(&self, txs: &[&Transaction]) {
        self.0.lock().unwrap().extend(txs.iter().map(|tx| (*tx).clone()));
    }
}

/// Where one run of a node writes its monitors.
pub(super) enum Disk {
    /// As they were written last.
    Memory(Mutex<BTreeMap<String, Vec<u8>>>),
    /// By LDK itself.
    Store(KvStore),
}

impl Disk {
    pub(super) fn new(store: Option<KvStore>) -> Self {
        store.map_or_else(|| Self::Memory(Mutex::default()), Self::Store)
    }

    pub(super) fn write(
        &self,
        name: MonitorName,
        update: Option<&ChannelMonitorUpdate>,
        monitor: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        match self {
            Self::Memory(monitors) => {
                monitors.lock().unwrap().insert(name.to_string(), monitor.encode());
                ChannelMonitorUpdateStatus::Completed
            }
            Self::Store(store) => store.update_persisted_channel(name, update, monitor),
        }
    }

    /// What is there.
    pub(super) fn monitors(&self) -> Vec<Vec<u8>> {
        match self {
            Self::Memory(monitors) => monitors.lock().unwrap().values().cloned().collect(),
            Self::Store(store) => {
                let (primary, secondary) = MONITORS;
                let names = store.list(primary, secondary).unwrap();
                names.iter().map(|name| store.read(primary, secondary, name).unwrap()).collect()
            }
        }
    }
}

impl Persist<InMemorySigner> for Disk {
    fn persist_new_channel(
        &self,
        name: MonitorName,
        monitor: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        match self {
            Self::Memory(_) => self.write(name, None, monitor),
            Self::Store(store) => store.persist_new_channel(name, monitor),
        }
    }

    fn update_persisted_channel(
        &self,
        name: MonitorName,
        update: Option<&ChannelMonitorUpdate>,
        monitor: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        self.write(name, update, monitor)
    }

    fn archive_persisted_channel(&self, name: MonitorName) {
        match self {
            Self::Memory(monitors) => drop(monitors.lock().unwrap().remove(&name.to_string())),
            Self::Store(store) => Persist::<InMemorySigner>::archive_persisted_channel(store, name),
        }
    }
}

type Finding = DefaultRouter<Arc<Graph>, Arc<Log>, Keys, Arc<Mutex<FixedPenaltyScorer>>, (), FixedPenaltyScorer>;

/// LDK's router, and what a test wants to happen between a route found and the payment sent along it.
pub(super) struct Finder {
    pub(super) router: Finding,
    pub(super) then: Mutex<Option<Box<dyn FnOnce() + Send>>>,
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
