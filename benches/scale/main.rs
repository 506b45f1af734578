//! The engine over big stores: `cargo bench --bench scale [-- SECTION..] [--quick] [--records N]`.
//!
//! Sections, each of which prints its figures with the bar beside them (all of them without an argument):
//!
//! - **stored**: fresh requests and replays over stores that hold 10 thousand, a million and 10 million finished records.
//! - **scopes**: a million records of 1, 100 and 10,000 scopes.
//! - **memory**: the resident set at 10 million records with 10,000 requests in flight.
//! - **startup**: how long opening takes after a clean shutdown and after `kill -9`.
//! - **expiry**: a million records expire at once while fresh requests go on.
//! - **space**: whether the file stops growing, over 24 simulated hours.
//!
//! `--records` sets the number of records of the biggest store (10 million), and with it all the others: a million stands for a
//! tenth of it. `--quick` does less of everything, to try the bench itself. At full size it needs 12 GB of disk, and 20 minutes.
//!
//! Stores are filled by `RedbStore::commit` with finished records (120-byte request, 32-byte answer), whose keys are in no
//! order. A batch is 1/32 of the store, 1,024 to 262,144 records: every page of the index of keys is written by each, and not a
//! page for each record, so it takes a fraction of the time. The last batches are of 1,024.

mod child;
#[path = "../common/mod.rs"]
mod common;
mod expiry;
mod filled;
mod memory;
mod pair;
mod report;
mod scopes;
mod space;
mod startup;
mod stored;

use std::collections::BTreeMap;

use crate::common::disk::{header, scratch};
use crate::common::process::now;
use crate::common::{AnyError, host};
use crate::filled::{Filled, Shape};

type Section = fn(&mut Bench) -> Result<(), AnyError>;

const SECTIONS: [&str; 6] = ["stored", "scopes", "memory", "startup", "expiry", "space"];
/// Records in the smallest store.
const SMALL: usize = 10_000;
/// Peers that send requests, where a section does not vary them.
const SCOPES: u32 = 16;

/// What was asked for.
struct Plan {
    sections: Vec<String>,
    /// Of the biggest store.
    records: usize,
    is_quick: bool,
}

impl Plan {
    fn of(arguments: &[String]) -> Result<Self, AnyError> {
        let mut plan = Self { sections: Vec::new(), records: 10_000_000, is_quick: false };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => plan.is_quick = true,
                "--records" => plan.records = arguments.next().ok_or("how many records?")?.parse()?,
                // Cargo says that it is a benchmark.
                "--bench" => {}
                section if SECTIONS.contains(&section) => plan.sections.push(section.to_owned()),
                other => return Err(format!("{other}: there are the sections {SECTIONS:?}").into()),
            }
        }
        plan.records = plan.records.max(10 * SMALL);
        Ok(plan)
    }

    fn has(&self, section: &str) -> bool {
        self.sections.is_empty() || self.sections.iter().any(|name| name == section)
    }

    /// What stands for a million.
    fn middle(&self) -> usize {
        self.records / 10
    }

    fn rounds(&self) -> usize {
        if self.is_quick { 1 } else { 3 }
    }

    /// So many, or a part of them where it is to be quick.
    fn count(&self, full: usize) -> usize {
        if self.is_quick { full.div_ceil(10) } else { full }
    }
}

/// What the sections share.
struct Bench {
    plan: Plan,
    host: tokio::runtime::Runtime,
    directory: tempfile::TempDir,
    stores: BTreeMap<Shape, Filled>,
}

impl Bench {
    /// A store of this shape, filled when first asked for. A section leaves it with somewhat more finished records.
    fn filled(&mut self, shape: Shape) -> Result<Filled, AnyError> {
        if !self.stores.contains_key(&shape) {
            self.stores.insert(shape, Filled::create(self.directory.path(), shape)?);
        }
        self.stores.get(&shape).cloned().ok_or_else(|| "it was just filled".into())
    }

    /// What a section leaves behind.
    fn give_back(&mut self, filled: Filled) {
        self.stores.insert(filled.shape, filled);
    }
}

fn main() -> Result<(), AnyError> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [flag, order @ ..] = arguments.as_slice()
        && flag == child::FLAG
    {
        return child::run(order);
    }
    let plan = Plan::of(&arguments)?;
    header()?;
    let mut bench = Bench { plan, host: host()?, directory: tempfile::tempdir_in(scratch())?, stores: BTreeMap::new() };
    let sections: [Section; 6] = [stored::run, scopes::run, memory::run, startup::run, expiry::run, space::run];
    for (name, section) in SECTIONS.into_iter().zip(sections) {
        if bench.plan.has(name) {
            let began = now();
            section(&mut bench)?;
            eprintln!("{name}: {:.0} s", began.elapsed().as_secs_f64());
        }
    }
    Ok(())
}
