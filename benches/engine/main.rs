//! How near the engine comes to the limit of its store: `cargo bench --bench engine`.
//!
//! One table for each section. Every figure is the median of rounds in which the sides took turns, on files of their own on
//! one disk; a ratio is the median of the ratios of the rounds. The numbers of one machine are worth little on another. The
//! ratios travel better, pages of noise included. An argument picks the lines whose name contains it, such as `fresh` or
//! `64 callers`; `--quick` makes one short round, to see that it runs.
//!
//! The sections say what they compare: fresh requests and group commit, replays (hot and cold), and duplicates that join.

#[path = "../common/mod.rs"]
mod common;
mod fresh;
mod joined;
mod replay;

use common::{AnyError, Asked, disk, host};

const ROUNDS: usize = 5;

fn main() -> Result<(), AnyError> {
    let asked = Asked::by_arguments();
    let host = host()?;
    disk::header()?;
    fresh::beside_the_store(&asked, &host)?;
    fresh::beside_no_groups(&asked, &host)?;
    replay::hot(&asked, &host)?;
    replay::cold(&asked, &host)?;
    joined::beside_fresh(&asked, &host)?;
    disk::footer()
}
