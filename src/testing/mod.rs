//! The kit for tests of hosts and of this crate: clocks that the test moves, whole engines in virtual time, a store and a disk
//! that fail, a referee that counts effects, and the suite that every store passes.
//!
//! # How a host tests its handler
//!
//! Three questions decide whether a handler is right, and each takes a few lines:
//!
//! - *Is it paid once?* Let the operation [note](Effects::note) its effect, send the request twice, at once and one after the
//!   other, and count.
//! - *What if the process dies in between?* [`simulate`] an episode: [crash](Simulation::crash) the engine while the operation
//!   waits, open it again over the same store, retry, and count. The example there is such a test.
//! - *What if the store fails?* Open the engine over a [`FaultyStore`], let the commit fail that records the answer, and see
//!   what the caller is told and that the answer is there when the store is back.
//!
//! A test that can't live on one thread uses [`ManualClock`] and real threads instead. One that watches what a store is asked
//! puts a [`Layer`] over it. A store of one's own passes [`conformance`].

mod clock;
pub mod conformance;
mod effects;
mod faults;
mod layer;
mod random;
mod simulation;

pub use crate::store::{DiskError, DiskFault, DiskFile, DiskOperation, PowerLoss, SimulatedDisk};
pub use clock::ManualClock;
pub use effects::Effects;
pub use faults::{Fault, FaultyStore, Gate, Outage};
pub use layer::Layer;
pub use random::Random;
pub use simulation::{SimulatedClock, Simulation, simulate};

/// The insides that the fuzz targets reach, and nothing for anybody else: no promise covers it.
#[doc(hidden)]
pub mod fuzz {
    pub use crate::store::fuzz::{keys, ledger_row, record_row, seeds};

    #[cfg(feature = "lightning")]
    pub use crate::lightning::request_invoice::fuzz::{frame_seeds, frames, wire_params};
}
