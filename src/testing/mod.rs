//! The kit for tests of hosts and of this crate: a clock set by hand, a disk that fails, and the suite
//! that every store passes.

mod clock;
pub mod conformance;

pub use crate::store::SimulatedDisk;
pub use clock::ManualClock;
