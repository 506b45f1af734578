//! The kit for tests of hosts and of this crate: a clock set by hand, a store and a disk that fail, and
//! the suite that every store passes.

mod clock;
pub mod conformance;
mod faults;

pub use crate::store::{DiskError, DiskFault, DiskOperation, PowerLoss, SimulatedDisk};
pub use clock::ManualClock;
pub use faults::{Fault, FaultyStore, Gate, Outage};
