//! The two demo servers over real sockets, held to the HTTP rules alone: each scenario runs against both, and a failure
//! names scenario and server. They are the examples' binaries: `cargo test` builds them; before `cargo test --test http`
//! alone say `cargo build --examples`. Most of its time is waiting: on two cores `-- --test-threads 8` takes half as long.

mod admin;
mod answers;
mod bodies;
mod bounds;
mod canonical;
mod crowd;
mod disconnect;
mod expiry;
mod failure;
mod flags;
mod header;
mod keys;
mod log;
mod metrics;
mod problems;
mod replay;
mod restart;
mod running;
mod seven_days;
mod shutdown;
mod support;
mod ten_seconds;
mod vectors;
mod verdicts;
mod wire;
