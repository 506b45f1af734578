//! Fresh requests and replays over stores of three sizes.

use std::hint::black_box;
use std::time::Duration;

use ibid::{Engine, Reply};
use tokio::runtime::Runtime;

use crate::common::AnyError;
use crate::common::load::roomy;
use crate::common::numbers::{median, per_second};
use crate::common::process::now;
use crate::filled::{Filled, Shape, unchecked};
use crate::pair::Pair;
use crate::report::{Table, bar, grouped, none, shown};
use crate::{Bench, SCOPES, SMALL};

/// Callers, requests of one round, and the most pages that a request may cost in a store of a million.
const FRESH: [(usize, usize, f64); 3] = [(1, 1_000, 16.0), (64, 8_000, 3.5), (512, 16_000, f64::INFINITY)];
/// Keys that are asked for again and again; their pages fit the cache.
const HOT: usize = 1_000;
const READS: usize = 100_000;

pub(crate) fn run(bench: &mut Bench) -> Result<(), AnyError> {
    let mut sizes = vec![SMALL, bench.plan.middle(), bench.plan.records];
    sizes.dedup();
    fresh(bench, &sizes)?;
    replays(bench, &sizes)
}

/// The least ratio to the bare loop at so many callers.
pub(crate) fn least_ratio(callers: usize) -> f64 {
    if callers == 1 { 0.9 } else { 0.85 }
}

fn fresh(bench: &mut Bench, sizes: &[usize]) -> Result<(), AnyError> {
    let head = ["records, callers", "engine, 1/s", "bare loop, 1/s", "ratio", "bar", "batch", "pages", "bar for pages"];
    let mut table = Table::new("Fresh requests over a filled store, and a bare loop on a copy of it", &head);
    for &records in sizes {
        let mut filled = bench.filled(Shape { records, scopes: SCOPES })?;
        let pair = Pair::open(&bench.host, &filled)?;
        for (callers, requests, most_pages) in FRESH {
            let load = (callers, bench.plan.count(requests));
            let found = pair.compare(&bench.host, &mut filled, load, bench.plan.rounds())?;
            let least = least_ratio(callers);
            let has_page_bar = records == bench.plan.middle() && most_pages.is_finite();
            table.row(&[
                format!("{}, {callers}", grouped(records)),
                format!("{:.0}", found.engine),
                format!("{:.0}", found.bare),
                format!("**{:.2}**", found.ratio),
                bar(&format!(">= {least}"), found.ratio >= least),
                format!("{:.0}", found.batch),
                shown(found.pages, 1),
                if has_page_bar { bar(&format!("<= {most_pages}"), found.pages <= most_pages) } else { none() },
            ]);
        }
        pair.close()?;
        bench.give_back(filled);
    }
    table.print();
    Ok(())
}

fn replays(bench: &mut Bench, sizes: &[usize]) -> Result<(), AnyError> {
    let head = ["records", "hot, 1/s", "of the smallest store's", "bar", "any record, 1/s"];
    let title =
        format!("Replays by two tasks: of {} hot keys from all over the store, and of any record", grouped(HOT));
    let mut table = Table::new(title, &head);
    let reads = bench.plan.count(READS);
    let small = bench.filled(Shape { records: SMALL, scopes: SCOPES })?;
    let smallest = open(&bench.host, &small)?;
    for &records in sizes {
        let filled = bench.filled(Shape { records, scopes: SCOPES })?;
        let engine = if records == SMALL { smallest.clone() } else { open(&bench.host, &filled)? };
        let replay = |engine, filled, keys, reads| bench.host.block_on(replay_all(engine, filled, keys, reads));
        // So that the pages of the hot keys are in memory.
        replay(&smallest, &small, HOT, 4 * HOT)?;
        replay(&engine, &filled, HOT, 4 * HOT)?;
        let mut rounds = Vec::new();
        for _ in 0..bench.plan.rounds() {
            let beside = replay(&smallest, &small, HOT, reads)?;
            rounds.push((per_second(reads, replay(&engine, &filled, HOT, reads)?), per_second(reads, beside)));
        }
        let ratio = median(rounds.iter().map(|(hot, beside)| hot / beside));
        let any = per_second(reads, replay(&engine, &filled, records, reads)?);
        table.row(&[
            grouped(records),
            format!("{:.0}", median(rounds.iter().map(|(hot, _)| *hot))),
            format!("**{ratio:.2}**"),
            bar(">= 0.5", ratio >= 0.5),
            format!("{any:.0}"),
        ]);
        if records != SMALL {
            engine.shutdown_blocking();
        }
    }
    smallest.shutdown_blocking();
    table.print();
    Ok(())
}

fn open(host: &Runtime, filled: &Filled) -> Result<Engine, AnyError> {
    let builder = Engine::builder().limits(roomy()).redb(unchecked()).runtime(host.handle().clone());
    Ok(builder.open(&filled.path)?)
}

/// Two tasks that ask half each, in no order, for so many keys from all over the store.
async fn replay_all(engine: &Engine, filled: &Filled, keys: usize, reads: usize) -> Result<Duration, AnyError> {
    let apart = filled.shape.records / keys;
    let began = now();
    let tasks: Vec<_> = (0..2)
        .map(|task| {
            let (engine, work) = (engine.clone(), filled.work.clone());
            tokio::spawn(async move {
                for turn in (task..reads).step_by(2) {
                    let number = anywhere(turn, keys) * apart;
                    let reply = engine.submit(work.call(number)?, work.operation(number)).await?;
                    if !matches!(black_box(reply), Reply::Answer(outcome) if outcome.is_replay()) {
                        return Err("a record was not there".into());
                    }
                }
                Ok::<_, AnyError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(began.elapsed())
}

/// One of so many places, in no order.
pub(crate) fn anywhere(turn: usize, places: usize) -> usize {
    let mixed = (turn as u64).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 32) as usize % places
}
