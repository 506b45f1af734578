#![doc = include_str!("../README.md")]
//!
//! # Architecture
//!
//! ```text
//! values    key, fingerprint, record, outcome, inquiry, error, class, policy,   nothing of ours above them
//!           bounds, time, observe
//! machine   one pure function: (record, event, context) -> write and effects   no clock, no I/O, no log
//! store     the Store trait, redb, memory                                      the only redb and postcard
//! actor     router, key actors, supervisor, the two threads                    the only actix
//! facade    Engine, Call, Attempt, Builder, Explanation
//! adapters  http, ldk, lightning, metrics                                      the public API, and a wait on a plain thread
//! ```
//!
//! Each layer knows those above it in this list, none below. A test reads the sources and says where that is broken.
//!
//! One request takes this way: [`Engine::submit`] reads the record on the caller's thread and answers from it if it is
//! finished. Else a ticket goes to the *router*, which hands it to the *key actor* of that key, made for as long as anything
//! of the key is in flight. The key actor asks the machine and proposes the registration to the *supervisor*, which commits
//! everything that has queued up meanwhile in one transaction. When that is durable the operation starts, on the host's
//! runtime; its end takes the same way, and the answer leaves when its record is durable. (In a *replay-safe* flow there is no
//! registration: the record is held beside the running operation until something of it is stored.)
//!
//! A record in doubt is brought to an end without a caller: its key actor asks the flow's oracle, on the host's runtime, and
//! the *recoverer* goes through the in-flight index for what has to be asked about again or may run again.
//!
//! What holds, and where to look when it does not:
//!
//! - **The machine decides, and nothing else does.** A behaviour that differs between flows is a field of [`Policy`], never a
//!   branch in an adapter.
//! - **No effect before its commit.** A key actor acts on a step that writes only after the supervisor's verdict. The one start
//!   that nothing is written for looks at the store right before it, and waits for what a dead actor may have left on its way.
//! - **One write per key at a time**, decided on a named version of the record; the store refuses it on any other.
//! - **Nothing is lost in a mailbox.** Questions, ends of attempts and proposals are guards: dropped unread, they go back.
//! - **No handler waits.** Actors never await; operations never run in an actor.
//! - **Time and randomness are handed in.** Only `time.rs` reads a clock, and the engine's time never goes back, also across
//!   restarts.
//! - **A reading of the clock that decides is durable before its answer leaves**, so a clock set back revives nothing. A
//!   *suspect* reading decides nothing that lasts, and is never made durable: see [`ClockState`].
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        reason = "a test that meets what it does not expect has failed"
    )
)]

mod actor;
mod attempt;
mod block_on;
mod bounds;
mod builder;
mod call;
pub mod class;
/// What a request costs, where its time goes, and what was left out on purpose.
///
#[doc = include_str!("cost.md")]
pub mod cost {}
mod engine;
mod entropy;
mod error;
mod explain;
mod fingerprint;
#[cfg(feature = "http")]
pub mod http;
mod inquiry;
mod key;
#[cfg(feature = "ldk")]
pub mod ldk;
mod ledger;
#[cfg(feature = "lightning")]
pub mod lightning;
mod machine;
#[cfg(feature = "metrics")]
pub mod metrics;
mod observe;
mod outcome;
mod policy;
mod record;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod time;
mod typed;
mod waiting;

pub use actor::{Operation, Recipient, Submission};
pub use attempt::Attempt;
pub use bounds::{Limits, PAYLOAD_BYTES_CEILING};
pub use builder::Builder;
pub use call::Call;
pub use engine::{Engine, Listed, Stats};
pub use error::{Bound, Class, Error, ErrorKind, InvalidRecovery};
pub use explain::{Explanation, Prospect};
pub use fingerprint::Fingerprint;
pub use inquiry::{Found, Inquiry};
pub use key::{InvalidKey, Key, NodeId};
pub use ledger::{Guard, InvalidRow, Row, StoredRow};
pub use observe::{Event, Observer};
pub use outcome::{
    Abandoned, Acknowledged, Completion, End, Ended, Failure, Fenced, Forgotten, How, Outcome, Reason, Reply, Resolved,
};
pub use policy::{
    AfterCheckpoint, AfterCompleted, AfterExpiry, Flow, InDoubt, OnFailure, OnStoreFailure, Policy, Retention,
    WhileRunning,
};
pub use record::{AttemptId, BootId, Bytes, Mark, Origin, Record, State, Status, Token};
pub use store::Cursor;
pub use time::{Clock, ClockState, SystemClock, UnixMillis};
