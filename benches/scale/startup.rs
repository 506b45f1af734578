//! How long opening takes, after a clean shutdown and after `kill -9`.

use std::sync::Arc;
use std::time::Duration;

use ibid::Engine;
use ibid::store::{IntegrityCheck, RedbOptions, RedbStore};

use crate::child::{LOAD, Process};
use crate::common::AnyError;
use crate::common::load::roomy;
use crate::common::numbers::median;
use crate::common::process::now;
use crate::filled::{Filled, Shape, clear_in_flight};
use crate::report::{Table, bar, grouped, none, shown};
use crate::{Bench, SCOPES};

const IN_FLIGHT: usize = 10_000;
/// The most that opening may take beyond the integrity check, and so without one, in milliseconds.
const MOST_MILLIS: f64 = 50.0;

/// How the last engine ended.
#[derive(Clone, Copy)]
struct Ending {
    name: &'static str,
    /// Who sent requests when it did.
    callers: usize,
    is_killed: bool,
    has_bar: bool,
}

const ENDINGS: [Ending; 4] = [
    Ending { name: "shut down", callers: 0, is_killed: false, has_bar: false },
    Ending { name: "killed while idle", callers: 0, is_killed: true, has_bar: true },
    Ending { name: "killed under 64 callers", callers: 64, is_killed: true, has_bar: false },
    Ending { name: "killed under one caller", callers: 1, is_killed: true, has_bar: false },
];

/// Milliseconds of one opening.
struct Opening {
    /// Of the file.
    store: f64,
    /// And of the engine over it: it says of what was running that it is in doubt.
    engine: f64,
}

pub(crate) fn run(bench: &mut Bench) -> Result<(), AnyError> {
    let head = ["records, last engine", "unchecked, ms", "of that the file", "bar", "checked, ms", "of that the check"];
    let title = format!("Opening with {} requests in flight", grouped(IN_FLIGHT));
    let mut table = Table::new(title, &head);
    for records in [bench.plan.middle(), bench.plan.records] {
        let mut filled = bench.filled(Shape { records, scopes: SCOPES })?;
        for ending in ENDINGS {
            let unchecked = openings(&mut filled, ending, IntegrityCheck::Never, bench.plan.rounds())?;
            let checked = openings(&mut filled, ending, IntegrityCheck::Always, 1)?;
            let all = unchecked.store + unchecked.engine;
            table.row(&[
                format!("{}, {}", grouped(records), ending.name),
                shown(all, 1),
                shown(unchecked.store, 1),
                if ending.has_bar { bar(&format!("<= {MOST_MILLIS}"), all <= MOST_MILLIS) } else { none() },
                shown(checked.store + checked.engine, 0),
                shown(checked.store - unchecked.store, 0),
            ]);
        }
        bench.give_back(filled);
    }
    table.print();
    Ok(())
}

/// Medians of so many.
fn openings(filled: &mut Filled, ending: Ending, check: IntegrityCheck, rounds: usize) -> Result<Opening, AnyError> {
    let openings = (0..rounds).map(|_| opening(filled, ending, check)).collect::<Result<Vec<_>, _>>()?;
    let of = |figure: fn(&Opening) -> f64| median(openings.iter().map(figure));
    Ok(Opening { store: of(|opening| opening.store), engine: of(|opening| opening.engine) })
}

fn opening(filled: &mut Filled, ending: Ending, check: IntegrityCheck) -> Result<Opening, AnyError> {
    let first = filled.take(IN_FLIGHT + LOAD).start;
    let path = filled.path.to_string_lossy().into_owned();
    let numbers = [first, IN_FLIGHT, ending.callers].map(|number| number.to_string());
    let order = [vec!["hold".to_owned(), path, SCOPES.to_string()], numbers.to_vec()].concat();
    let mut process = Process::start(&order, &[])?;
    process.line()?;
    if ending.is_killed {
        process.kill()?
    } else {
        process.end()?
    }

    let options = RedbOptions::default().integrity_check(check);
    let began = now();
    let store = Arc::new(RedbStore::open(&filled.path, options)?);
    let file = began.elapsed();
    let engine = Engine::builder().limits(roomy()).open_store(store)?;
    let both = began.elapsed();
    let is_as_planned = in_doubt(&engine)? == IN_FLIGHT || ending.callers > 0;
    engine.shutdown_blocking();
    if !is_as_planned {
        return Err("the last engine left something else behind".into());
    }
    clear_in_flight(&filled.path)?;
    let millis = |took: Duration| took.as_secs_f64() * 1e3;
    Ok(Opening { store: millis(file), engine: millis(both - file) })
}

fn in_doubt(engine: &Engine) -> Result<usize, AnyError> {
    Ok(engine.list(None, 2 * IN_FLIGHT)?.len())
}
