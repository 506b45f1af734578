//! One test binary; one promise or danger per file.

mod aliasing;
mod bounds;
mod canaries;
mod checkpoint;
mod clock;
mod conformance;
mod expiry;
mod format;
mod fuzz;
mod hosts;
mod ledger;
mod mailbox;
mod mismatch;
mod readme;
mod recovery;
mod replay;
mod request_invoice;
mod restart;
mod shutdown;
mod simulation;
mod single_flight;
mod stale_lookup;
mod storage_failure;
mod store_creation;
mod support;
mod tidy;
