//! One test binary; one promise or danger per file.

mod aliasing;
mod bounds;
mod canaries;
mod checkpoint;
mod classes;
mod clock;
mod conformance;
mod expiry;
mod explain;
mod format;
mod fuzz;
mod hosts;
mod http_actix;
mod http_axum;
mod http_counts;
mod http_dangers;
/// What both demo servers are made of, with its own tests: nobody else runs those of an example.
#[allow(dead_code, unused_imports, reason = "the servers use it")]
#[path = "../../examples/http/mod.rs"]
mod http_demo;
mod http_setup;
mod kv_store;
mod ledger;
mod mailbox;
mod metrics;
mod mismatch;
mod observe;
mod readme;
mod recovery;
mod release;
mod replay;
mod replay_safe;
mod request_invoice;
mod restart;
mod send_onion;
mod send_payment;
mod shutdown;
mod simulation;
mod single_flight;
mod stale_lookup;
mod storage_failure;
mod store_creation;
mod support;
mod tidy;
