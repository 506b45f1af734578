//! One test binary; one promise or danger per file.

mod bounds;
mod checkpoint;
mod clock;
mod conformance;
mod expiry;
mod format;
mod hosts;
mod mailbox;
mod mismatch;
mod replay;
mod request_invoice;
mod restart;
mod shutdown;
mod single_flight;
mod stale_lookup;
mod store_creation;
mod support;
