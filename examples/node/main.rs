//! A recipient node on stdin and stdout: try the wire by hand, or drive it from a test.
//!
//! ```text
//! cargo run --example node -- --db node.redb
//! ```
//!
//! One JSON object per line, both ways. The node stands for the transport: `from` is the peer that a real one would have
//! authenticated, `payload` the text of one custom message of type 37915.
//!
//! # Frames
//! ```text
//! in   {"from":"<33-byte node id, hex>","payload":"<text of one JSON-RPC frame>"}
//! out  {"to":"<the same, lower case>","payload":"<text of one JSON-RPC frame>"}
//! ```
//! Frames are handled concurrently and answered in whatever order they end. No line comes out for a peer that is denied,
//! for a frame that is itself a response, or for one that answers and asks at once. The method is
//! `async_order.request_invoice`; its session is `params.claim_session_id`, or else the payment hash. A payload above the
//! 65,533 bytes that BOLT 8 can carry is judged like any other: it is the transport that would not deliver it.
//!
//! # Control lines
//! ```text
//! {"control":"stats"}                  {"control":"stats","minted":n,"live_actors":n,"records":{"registered":n,
//!                                      "completed":n,"failed":n,"in_doubt":n,"tombstone":n}}
//! {"control":"advance_clock","ms":n}   no answer; a negative n steps the machine's clock back, which the engine's never does
//! {"control":"expiry_sweep"}           {"control":"expiry_sweep","removed":n}
//! {"control":"shutdown"}               {"control":"shutdown"}, after every frame is answered and the file is closed
//! ```
//! They take effect in the order of the lines, behind the frames before them. `minted` counts the mints of this process.
//! The end of input shuts down as well, without a line. What still runs gets 10 s.
//!
//! # Lines that are neither
//! Not UTF-8, not JSON, longer than 1 MiB, an unknown control, a bad node id: `{"error":"<what is wrong>"}` comes out, and
//! the node goes on. Members that it does not know and empty lines are ignored.
//!
//! # Flags
//! `--help` prints them: see `args.rs`. Exit code 0 after a shutdown, 2 if a file cannot be opened (the reason is on
//! stderr), 64 for flags that are not understood.

mod args;
mod clock;
mod input;
mod node;
mod output;
mod provider;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

use args::Args;
use node::Node;

const CANNOT_OPEN: u8 = 2;
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => {
            println!("{}", args::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("{wrong}\n\n{}", args::USAGE);
            return ExitCode::from(USAGE);
        }
    };
    match Node::open(args) {
        Ok(node) => {
            node.serve(std::io::stdin().lock());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cannot open: {error}");
            ExitCode::from(CANNOT_OPEN)
        }
    }
}
