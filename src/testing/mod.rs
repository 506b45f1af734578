//! The kit for tests of hosts and of this crate: a clock set by hand, a store and a disk that fail, and
//! the suite that every store passes.

mod clock;
pub mod conformance;
mod faults;

pub use crate::store::SimulatedDisk;
pub use clock::ManualClock;
pub use faults::{Fault, FaultyStore, Gate, Outage};

/// The insides that the fuzz targets reach, and nothing for anybody else: no promise covers it.
#[doc(hidden)]
pub mod fuzz {
    pub use crate::store::fuzz::{keys, ledger_row, record_row, seeds};

    #[cfg(feature = "lightning")]
    pub use crate::lightning::fuzz::{frame_seeds, frames, wire_params};
}
