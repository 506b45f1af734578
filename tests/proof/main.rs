//! The proof: random and exhaustive runs against the promises, each from a seed that a failure prints.
//!
//! `IBID_PROOF` sets how much: unset for a taste of it within `cargo test`, `ci` for what the gate demands, `long` for
//! much more. `IBID_SEED` replays one case: every failure prints the command.

mod controls;
mod crash;
mod episodes;
mod io_errors;
mod scale;
