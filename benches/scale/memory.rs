//! The resident set at 10 million records with 10,000 requests in flight, in a process of its own.

use std::path::Path;

use ibid::Engine;
use ibid::store::RedbOptions;

use crate::Bench;
use crate::child::{Held, Process, crowded, say};
use crate::common::load::submit_all;
use crate::common::process::resident_bytes;
use crate::common::{AnyError, host};
use crate::filled::{Shape, unchecked, work};
use crate::report::{Table, bar, grouped, mib, none};
use crate::stored::anywhere;

const IN_FLIGHT: usize = 10_000;
/// Peers that send what is in flight, and whether all threads share one arena of the allocator. glibc gives each thread its own:
/// what one thread has read into the cache and another has pushed out of it stays with the first one.
const CASES: [(u32, bool); 4] = [(1, false), (100, false), (10_000, false), (10_000, true)];
/// The default cache, and what may be resident beside it.
const MOST_RESIDENT: u64 = (64 + 64) * 1024 * 1024;
/// Records read all over the store, so that the cache is full.
const READS: usize = 100_000;
/// And requests before those that count, so that threads and tables have found their size.
const WARM_UP: usize = 20_000;
/// What a child tells.
const FIGURES: usize = 3;

pub(crate) fn run(bench: &mut Bench) -> Result<(), AnyError> {
    let mut filled = bench.filled(Shape { records: bench.plan.records, scopes: crate::SCOPES })?;
    let head = [
        "scopes in flight, arenas",
        "at most while opening, MiB",
        "bar",
        "idle, MiB",
        "in flight, MiB",
        "bar",
        "bytes a request",
    ];
    let records = grouped(filled.shape.records);
    let title = format!("Resident set at {records} records, {} requests in flight, cache 64 MiB", grouped(IN_FLIGHT));
    let mut table = Table::new(title, &head);
    for (turn, (scopes, is_one_arena)) in CASES.into_iter().enumerate() {
        // Once is enough for what takes so long; the others show an opening without it.
        let check = if turn == 0 { "checked" } else { "unchecked" };
        let first = filled.take(WARM_UP + IN_FLIGHT).start;
        let order =
            ["memory", &filled.path.to_string_lossy(), &scopes.to_string(), &first.to_string()].map(str::to_owned);
        let rest = [IN_FLIGHT.to_string(), filled.shape.records.to_string(), check.to_owned()];
        let environment: &[_] = if is_one_arena { &[("MALLOC_ARENA_MAX", "1")] } else { &[] };
        let mut process = Process::start(&[order.as_slice(), rest.as_slice()].concat(), environment)?;
        let line = process.line()?;
        process.end()?;
        let figures: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let figures: [u64; FIGURES] = figures.try_into().map_err(|_| format!("a child said {line}"))?;
        let [opening, idle, in_flight] = figures;
        let most = format!("<= {}", mib(MOST_RESIDENT));
        table.row(&[
            format!("{}, {}", grouped(scopes as usize), if is_one_arena { "one" } else { "default" }),
            format!("{} ({check})", mib(opening)),
            bar(&most, opening <= MOST_RESIDENT),
            mib(idle),
            mib(in_flight),
            bar(&most, in_flight <= MOST_RESIDENT),
            if in_flight > idle { grouped((in_flight - idle) as usize / IN_FLIGHT) } else { none() },
        ]);
    }
    bench.give_back(filled);
    table.print();
    Ok(())
}

/// Says in bytes how much memory it had at most while it opened the store, with its cache full, and with the requests in flight.
pub(crate) fn child(
    path: &Path,
    scopes: u32,
    first: usize,
    count: usize,
    records: usize,
    is_checked: bool,
) -> Result<(), AnyError> {
    let host = host()?;
    let options = if is_checked { RedbOptions::default() } else { unchecked() };
    let engine = Engine::builder().limits(crowded()).redb(options).runtime(host.handle().clone()).open(path)?;
    let opening = most_resident_bytes().ok_or("this system does not tell")?;
    let (idle, in_flight) = host.block_on(async {
        let stored = work(crate::SCOPES)?;
        for turn in 0..READS {
            let number = anywhere(turn, records);
            engine.submit(stored.call(number)?, stored.operation(number)).await?;
        }
        submit_all(&engine, &work(scopes)?, first..first + WARM_UP, 512).await?;
        let idle = resident_bytes();
        let held = Held::begin(&engine, scopes, first + WARM_UP, count).await?;
        let in_flight = resident_bytes();
        held.end().await?;
        Ok::<_, AnyError>(idle.zip(in_flight).ok_or("this system does not tell")?)
    })?;
    engine.shutdown_blocking();
    say(&format!("{opening} {idle} {in_flight}"))
}

/// The resident set of this process at its highest, in bytes, where Linux tells.
fn most_resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1_024)
}
