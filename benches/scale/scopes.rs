//! A store of a million records, of few scopes and of many.

use crate::Bench;
use crate::common::AnyError;
use crate::filled::{Live, Shape};
use crate::pair::Pair;
use crate::report::{Table, bar, grouped, shown};
use crate::stored::least_ratio;

const SCOPES: [u32; 3] = [1, 100, 10_000];
const CALLERS: usize = 64;
/// Of one round.
const REQUESTS: usize = 8_000;
/// The most that a request may cost.
const PAGES: f64 = 3.5;

pub(crate) fn run(bench: &mut Bench) -> Result<(), AnyError> {
    let records = bench.plan.middle();
    let head = [
        "scopes",
        "bytes a record: keys and values / their pages / file",
        "engine, 1/s",
        "bare loop, 1/s",
        "ratio",
        "bar",
        "pages",
        "bar for pages",
    ];
    let mut table = Table::new(format!("{} records, {CALLERS} callers", grouped(records)), &head);
    for scopes in SCOPES {
        let mut filled = bench.filled(Shape { records, scopes })?;
        let (file, live) = (filled.file_bytes()?, Live::of(&filled.path)?);
        let pair = Pair::open(&bench.host, &filled)?;
        let load = (CALLERS, bench.plan.count(REQUESTS));
        let found = pair.compare(&bench.host, &mut filled, load, bench.plan.rounds())?;
        pair.close()?;
        // Nobody else asks for it.
        bench.stores.remove(&filled.shape);
        std::fs::remove_file(&filled.path)?;
        let least = least_ratio(CALLERS);
        table.row(&[
            grouped(scopes as usize),
            [live.payload, live.pages, file].map(|bytes| (bytes / records as u64).to_string()).join(" / "),
            format!("{:.0}", found.engine),
            format!("{:.0}", found.bare),
            format!("**{:.2}**", found.ratio),
            bar(&format!(">= {least}"), found.ratio >= least),
            shown(found.pages, 1),
            bar(&format!("<= {PAGES}"), found.pages <= PAGES),
        ]);
    }
    table.print();
    Ok(())
}
