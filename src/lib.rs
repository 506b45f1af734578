//! ibid
mod actor;
mod attempt;
mod block_on;
mod bounds;
mod builder;
mod call;
mod engine;
mod entropy;
mod error;
mod fingerprint;
mod key;
#[cfg(feature = "lightning")]
pub mod lightning;
mod machine;
mod outcome;
mod policy;
mod record;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod time;

pub use actor::{Operation, Submission};
pub use attempt::Attempt;
pub use bounds::{Limits, PAYLOAD_BYTES_CEILING};
pub use builder::Builder;
pub use call::Call;
pub use engine::{Engine, Stats};
pub use error::{Class, Error, ErrorKind};
pub use fingerprint::Fingerprint;
pub use key::{InvalidKey, Key, NodeId};
pub use outcome::{End, Ended, Failure, Fenced, Forgotten, How, Outcome, Reason, Reply, Resolved};
pub use policy::{
    AfterCheckpoint, AfterCompleted, AfterExpiry, Flow, InDoubt, OnFailure, Policy, Retention, WhileRunning,
};
pub use record::{AttemptId, BootId, Bytes, Mark, Origin, Record, State, Status, Token};
pub use time::{Clock, SystemClock, UnixMillis};
