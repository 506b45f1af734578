//! The proof: random and exhaustive runs against the promises, each from a seed that a failure prints.
//!
//! - `crash`: power losses at every sync of every short workload, and engines that go on from what is left.
//! - `io_errors`: every operation of a disk fails, once or for ever, under a whole engine.
//! - `episodes`: random histories in virtual time, judged by rules written from the promises.
//! - `controls`: an older redb, whose known faults must be found. (Bugs of our own: `.ci/planted.py`.)
//!
//! `IBID_PROOF` sets how much: unset for a taste of it within `cargo test`, `ci` for what the gate demands, `long` for
//! much more. `IBID_SEED` replays one case: every failure prints the command.

mod controls;
mod crash;
mod episodes;
mod io_errors;
mod scale;
