//! Everything that is bound to a version of LDK.

mod frames;
mod host;
mod net;
mod node;
mod wallet;
mod wire;

use std::sync::Arc;

use lightning::chain::Filter;
use lightning::chain::chainmonitor::ChainMonitor;
use lightning::ln::channelmanager::ChannelManager;
use lightning::ln::peer_handler::{IgnoringMessageHandler, PeerManager};
use lightning::onion_message::messenger::NullMessageRouter;
use lightning::routing::gossip::NetworkGraph;
use lightning::sign::{InMemorySigner, KeysManager};

use frames::Frames;
use host::{Disk, Fees, Finder, Log, Mempool};
use wire::Socket;

pub use frames::{OnFrame, Replies};
pub use net::Net;
pub use node::{Node, Snapshot};
pub use wallet::Wallet;

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
