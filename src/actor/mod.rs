//! The actors, and the threads they live on. Nothing outside this directory knows actix, but for the public message.
//!
//! ```text
//!  host runtime                 thread "ibid"                                thread of the supervisor
//!  Engine --Submit(Ticket)--> Router --ToKey--> KeyActor (one per key in flight)
//!    ^ oneshot                 |  ^ ^              | Proposal, Idle
//!    |                         |  | '--RoundEnds-- Outbox --Proposals--------> Supervisor --batch--> Store
//!    |                         |  '--------------- Decided(batch) --------------'
//!  operation <--- Running <----'  (started by its key actor, once its registration is durable)
//!    '---------Finish---------> Router
//!
//!  oracle <----- Inquiries <----'  (asked by the key actor of a record in doubt, or of a dispatched one without news)
//!    '---------Heard----------> Router <--Recover, Submit-- Recoverer  (goes through the in-flight index, beside Supervisor)
//! ```
//!
//! - Handlers are synchronous transitions. No await, no actor futures: a duplicate can't slip in between a look and a leap.
//! - A key actor has at most one write under way; what arrives meanwhile waits in its queue, in order.
//! - Effects wait for their commit: the operation starts, and an answer leaves, only after the verdict of the transaction.
//! - Nothing gets lost in a mailbox: tickets, ends, answers and proposals are guards that return to the router when dropped unread.
//! - The router holds the only address of a key actor and lets it go when it has seen every message sent to it.

mod front;
mod key_actor;
pub(crate) mod message;
mod meters;
mod operation;
mod oracle;
mod outbox;
mod pace;
mod permits;
mod recoverer;
mod recovery;
mod router;
mod running;
mod saver;
#[cfg(feature = "testing")]
mod simulation;
mod supervisor;
mod system;
#[cfg(test)]
mod tests;

pub use actix::Recipient;
pub(crate) use front::Front;
pub use front::Submission;
pub(crate) use key_actor::unavailable;
pub use operation::Operation;
pub(crate) use oracle::{Flows, Means, Recovery, said};
pub(crate) use permits::{Permit, Permits};
pub(crate) use recovery::interrupt_all;
#[cfg(feature = "testing")]
pub(crate) use simulation::on_one_thread;
pub(crate) use system::{Actors, Ending, Parts};
