//! The kit for tests of hosts and of this crate: a clock set by hand, and the suite that every store passes.

mod clock;
pub mod conformance;

pub use clock::ManualClock;
