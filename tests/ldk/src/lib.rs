//! Two or more real LDK nodes in one process, in the words of an adapter: ids, hashes and preimages are byte arrays,
//! states and events are enums of this crate.
//!
//! ```text
//! Net -- nodes: ChannelManager, ChainMonitor, PeerManager, all LDK's own; keys from a seed
//!     |- links: pairs of queues of bytes, with LDK's noise handshake over them
//!     \- chain: blocks without work, handed to every node
//! ```
//!
//! Nothing moves by itself: bytes are carried by [`Net::carry`], a node's timers and forwards run in [`Net::deliver`] and
//! [`Node::tick`]. A node's disk is what its [`Snapshot`] holds: the manager as it was when the snapshot was taken, and
//! the monitors as they were persisted last. A node can be restarted from any of them.
//!
//! All that is bound to a version of LDK is in `ldk/`. `IBID_LDK_LOG=1` shows what the nodes log.

mod ldk;
mod payer;

pub use ldk::{Net, Node, OnFrame, Replies, Snapshot, Wallet};
pub use payer::{Payer, hand_over, request};

/// A PaymentId, 32 bytes.
pub type Id = [u8; 32];

/// A payment hash, 32 bytes.
pub type Hash = [u8; 32];

/// A preimage, 32 bytes.
pub type Preimage = [u8; 32];

/// A node's public key, compressed.
pub type PeerId = [u8; 33];

/// What is paid to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    /// Its BOLT11 text.
    pub text: String,
    /// Its payment hash.
    pub hash: Hash,
    /// What it asks for, in msat; none: any amount.
    pub msat: Option<u64>,
    /// Its payment secret, 32 bytes.
    pub secret: [u8; 32],
}

/// A typed refusal of a send: what LDK 0.2.7 has, for every kind of payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The amount is below the invoice's, or there is none.
    InvalidAmount,
    /// The invoice has expired.
    PaymentExpired,
    /// The onion would be too large.
    OnionPacketSizeExceeded,
    /// No way to the payee, or not for this amount.
    RouteNotFound,
    /// The id is known.
    DuplicatePayment,
}

/// An entry of LDK's list of recent payments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recent {
    /// Its id.
    pub id: Id,
    /// Its hash; none while it waits for an invoice.
    pub hash: Option<Hash>,
    /// Its state.
    pub state: State,
}

/// The states of LDK's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Waits for a BOLT12 invoice.
    AwaitingInvoice,
    /// Under way, or to be retried.
    Pending,
    /// The preimage is known.
    Fulfilled,
    /// Not retried any more; parts may be under way.
    Abandoned,
}

/// An event, as far as payments are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// PaymentSent.
    Sent {
        /// Its id.
        id: Id,
        /// Its hash.
        hash: Hash,
        /// The proof of payment.
        preimage: Preimage,
        /// The fee in msat. None and 0 are not the same.
        fee_msat: Option<u64>,
    },
    /// PaymentFailed.
    Failed {
        /// Its id.
        id: Id,
        /// Its hash; none if there never was an invoice.
        hash: Option<Hash>,
        /// LDK's reason, by name.
        reason: String,
    },
    /// PaymentPathSuccessful.
    PathSuccessful {
        /// Its id.
        id: Id,
    },
    /// PaymentPathFailed.
    PathFailed {
        /// Its id.
        id: Id,
        /// Its hash.
        hash: Hash,
    },
    /// PaymentClaimable, on the payee's side.
    Claimable {
        /// Its hash.
        hash: Hash,
        /// The amount in msat.
        msat: u64,
        /// Known for an invoice that the node made itself.
        preimage: Option<Preimage>,
    },
    /// PaymentClaimed, on the payee's side.
    Claimed {
        /// Its hash.
        hash: Hash,
    },
    /// Any other, by name: channels, funding.
    Other(String),
}
