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
//! for a frame that is itself a response, or for one that answers and asks at once. The method of the peer protocol is
//! `async_order.request_invoice`; its session is `params.claim_session_id`, or else the payment hash. A payload above the
//! 65,533 bytes that BOLT 8 can carry is judged like any other: it is the transport that would not deliver it.
//!
//! # Onions
//! A payment router tells the node to send onions. The same frames; `from` is the router, as it was authenticated.
//! ```text
//! send_onion     {attempt_id, namespace?, payment_hash, amount_msat, onion, simulate?}
//! track_onion    {attempt_id, namespace?, timeout_ms?}
//! resolve_onion  {attempt_id, namespace?, result: "settled" | "failed", preimage? | reason?}
//! fence_onion    {attempt_id, namespace?}
//! forget_onions  {attempt_ids, namespace?}
//! list_onions    {state?, namespace?}
//! ```
//! - `attempt_id`: a u64, as a number or a decimal string, and echoed as it was given. So may `amount_msat` and the times be.
//! - `namespace`: any text of 1 to 254 bytes, in place of the router's node id; it stands for what a transport would have
//!   authenticated. One attempt id in two namespaces is two attempts, and no text meets a node id. `list_onions` without it lists all.
//! - `payment_hash`: 32 bytes in hex. `onion`: 1,366 bytes in hex. `amount_msat`: more than zero. A wrong value is *definitive*
//!   (`"cause":"malformed"`) and burns no attempt id. All three are the request: another value under the same attempt id is a
//!   *conflict*. `simulate` is no part of it.
//! - `preimage` and `reason` are any text and come back as they were given, but for 64 hex digits, which come back in lower case. No
//!   reason and an empty one stay apart. A preimage that is left out is an empty one.
//! - `timeout_ms`: without it `track_onion` waits until the end, or until the node shuts down.
//! - A param that is missing, or of a wrong type, is the JSON-RPC error -32602, with a message that names it. Nothing else about an
//!   onion is a JSON-RPC error. A param that is not known is ignored, and `null` equals absent.
//!
//! Every result says what the client does next, how the record stands, and whether the answer had been given before:
//! ```text
//! {"class":"success"|"duplicate"|"conflict"|"definitive"|"ambiguous",
//!  "state":"registered"|"dispatched"|"in_doubt"|"completed"|"failed"|"tombstone"|null, "replayed":bool, "attempt_id":.., ..}
//! ```
//! and what is no success also says why (`"cause"`, and the `"grpc_code"` of a gRPC server in its place).
//! ```text
//! send_onion     success, dispatched                       it went out, by this call
//!                success, completed, preimage              and arrived at once
//!                duplicate, state, preimage? | reason?     it is known; a recorded end is attached
//!                conflict, state                           the id is another onion's
//!                definitive, failed, reason                refused; every retry gets it again, with "replayed":true
//!                definitive, tombstone                     the id is fenced
//!                ambiguous, state                          the same call again
//! track_onion    success, completed, result "settled", preimage
//!                success, failed, result "failed", reason, rolled_back     the payment failed; true: it never went out
//!                ambiguous, state                          cause "not_found", "deadline", "closed", ..
//!                "replayed": the end was recorded before the question
//! resolve_onion  success, state, resolved "recorded" | "already" (replayed)
//!                conflict, state, resolved "contradicts"   the first end stays, the other is kept beside it
//!                ambiguous, null, resolved "not_found"
//! fence_onion    success, tombstone, fenced true           nothing goes out under this id, ever
//!                duplicate, state, fenced false            it is in use; nothing was changed
//! forget_onions  success, statuses: [{attempt_id, status: "forgotten" | "not_found" | "in_flight" (and its state) | "live" |
//!                "quarantined" | "tombstone"}], each id once, in order of first appearance
//! list_onions    success, onions: [{attempt_id, namespace, state, payment_hash, amount_msat, dead_letter}],
//!                quarantined: n. Those whose end is still to come, so only `registered`, `dispatched` and `in_doubt` are
//!                ever listed; and how many such entries of the node's, onions or not, cannot be read
//! ```
//!
//! # Payments
//! The node pays by itself: a caller names a payment, LDK (a simulated one) is told to pay it, and its events come as frames, too.
//! ```text
//! send_payment       {payment_id, payment_hash, amount_msat, simulate?}
//! payment_event      {payment_id, attempt?, event: "sent" | "failed", preimage?}
//! ack_payment_event  {payment_id}
//! abandon_payment    {payment_id}
//! list_payments      {}
//! ```
//! - `payment_id`: 32 bytes in hex, echoed as it was given. It belongs to the node: whoever asks, one id is one payment. What is no
//!   such id is the error -32602.
//! - `payment_hash`: 32 bytes in hex; `amount_msat`: more than zero. A wrong value is *definitive* and burns no id, but that a known id
//!   with another amount is a *conflict*. Both are the request: another one under the same id is a *conflict*, however the record stands.
//! - `attempt`: the number of the dispatch under this id, from 1, counted on after a release and after a restart; `null` of what
//!   never went out. An event of one attempt does not touch another one. Without `attempt` it is of whatever is recorded.
//! - `preimage`: 32 bytes in hex; without it one is made up. It comes back in lower case.
//! - What is said above of params goes for these, too.
//!
//! Results have the members of the onions', `payment_id` in place of `attempt_id`; of an event `handled` says what became of it, in place
//! of the cause.
//! ```text
//! send_payment       success, dispatched, attempt              it went out, by this call
//!                    success, completed, preimage              and is paid already
//!                    duplicate, state, preimage? | reason?     it is known; a recorded end is attached
//!                    conflict, state                           the id is another payment's
//!                    definitive, failed, reason                it did not and will not go out; a retry gets it again, "replayed":true
//!                    ambiguous, state                          the same call again
//! payment_event      success, state, handled "recorded"        the end; state null: it was abandoned, and is gone
//!                    success, state, handled "repeated"        nothing new (replayed)
//!                    conflict, state, handled "late" (a failure after it was paid) | "stale" (of another attempt) |
//!                    "contradiction" (paid after it had failed, with the preimage): what is recorded stays
//!                    ambiguous, null, handled "unknown"        there is no record
//!                    ambiguous, state, handled "replay"        it could not be recorded: the same event again
//! ack_payment_event  success, state, acknowledged bool         true: paid, and from here on quiet ticks count
//! abandon_payment    success, state, abandoned "marked"        it goes on, and may be paid; when it fails it is gone
//!                    success, null, abandoned "released"       it had failed, and is gone
//!                    success, state, abandoned "no_effect"     it is paid, or not there
//! list_payments      success, payments: [{payment_id, state, payment_hash, attempt, amount_msat, abandoned, dead_letter}],
//!                    quarantined: n. Those whose end is still to come, and how many such entries cannot be read
//! ```
//! A payment that is paid and acknowledged is released by the eighth tick in a row without an event of it; its id is free then. One
//! that is not acknowledged stays. One that has failed stays until it is abandoned.
//!
//! # Simulated outcomes
//! `"simulate":{"delay_ms":n,"outcome":".."}` scripts the switch, or LDK, for the one call that goes out; a retry that is answered
//! from the record runs nothing. Each dispatch first appends its line to the file of effects, then takes `delay_ms` (default 0), then:
//! ```text
//! accept             (the default) it went out; its end comes by resolve_onion, or by payment_event
//! settle             it went out and arrived, with a preimage that is made up
//! reject_validation  refused before the dispatch: no line
//! definitive         the dispatch is refused, with proof that nothing went out
//! duplicate          downstream knows it already and goes on with it
//! unknown, panic     whether it went out is not known: in doubt
//! hang               it never says
//! ```
//! The switch is asked about what is in doubt. What has a line is under way until its end is recorded (`settle` has arrived,
//! `definitive` has not started); what has none has not started. After a restart it knows what is in the file of effects and nothing
//! else. Without such a file it cannot tell.
//!
//! So is LDK asked: what has a line is pending until it has ended, what has none has not started. The ends stand in a file of LDK's
//! own beside the file of effects, `<path>.ended`, each before it is told; a restart tells what was not recorded once more. A failure
//! of a payment whose call is still running is recorded when it has returned.
//!
//! # Control lines
//! ```text
//! {"control":"stats"}                  {"control":"stats","minted":n,"live_actors":n,"records":{"registered":n,
//!                                      "dispatched":n,"completed":n,"failed":n,"in_doubt":n,"tombstone":n}}
//! {"control":"advance_clock","ms":n}   no answer; a negative n steps the machine's clock back, which the engine's never does
//! {"control":"expiry_sweep"}           {"control":"expiry_sweep","removed":n}
//! {"control":"tick"}                   {"control":"tick","ticks":n}, when the n-th tick of the store is durable
//! {"control":"shutdown"}               {"control":"shutdown"}, after every frame is answered and the file is closed
//! ```
//! They take effect in the order of the lines, behind the frames before them (a tick: behind those that are answered). `minted`
//! counts the mints of this process. The end of input shuts down as well, without a line. What still runs gets 10 s.
//!
//! # Lines that are neither
//! Not UTF-8, not JSON, longer than 1 MiB, an unknown control, a bad node id: `{"error":"<what is wrong>"}` comes out, and
//! the node goes on. Members that it does not know and empty lines are ignored.
//!
//! # Flags
//! `--help` prints them: see `args.rs`. Exit code 0 after a shutdown, 2 if a file cannot be opened (the reason is on
//! stderr), 64 for flags that are not understood.

mod args;
mod call;
mod clock;
mod effects;
mod input;
mod ldk;
mod node;
mod onions;
mod output;
mod payments;
mod provider;
mod result;
mod script;
#[path = "../support/mod.rs"]
mod support;
mod switch;

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
