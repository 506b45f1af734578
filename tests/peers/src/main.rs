//! ibid beside what users would pick instead, in one run on one disk. One command starts what it needs and prints the table:
//! `tests/peers/run`, with `--quick` in two minutes instead of ten, with `--records 1000000` in stores of a million.
//!
//! Everybody gets the same requests: a key of 65 bytes (whose, and which), 120 bytes that say what is wanted, an answer of 32.
//! The operation answers at once, so what is measured is the way to it and back.
//!
//! - **fresh**: two durable steps. The request is registered before the operation runs, and its answer is kept before the
//!   caller gets it. Every store is emptied before each round, or filled once and never emptied.
//! - **replay**: one of 10,000 finished requests again, each of which was read once before (for a second at most); the request
//!   is compared with the kept one.
//!
//! Each caller waits for its answer before it sends the next request. In each round everybody takes a turn, and each round
//! begins with another one; if the rounds take too long, there are fewer. A rate counts from the first request to the last answer; rates, p50 and p99 are medians over the
//! rounds. The last column is ibid's rate divided by the peer's in the same round, and then the median: it is what travels to
//! another machine. Callers, clients and servers share its cores, and all files are in one directory.
//!
//! # How each is called, and what that gives or costs it
//!
//! - **ibid**: in process, `Engine::submit` with default settings, but for the number of requests in flight and of records for
//!   each scope. A replay is not announced: it takes the way of a fresh request. ibid also keeps what no other keeps here: a
//!   fingerprint, an attempt's token, an index for expiry.
//! - **PostgreSQL**: the usual table, `insert .. on conflict do nothing returning`, then `update`, each a transaction of its
//!   own, prepared, `synchronous_commit` on, over TCP. *Handicap*: a socket and a process per connection, which in-process
//!   peers don't have. One connection for each caller up to 128: beyond, callers share them, pipelined, since more processes
//!   only made it slower here. *Advantages*: replays are a bare `select`, as if the caller knew; nothing is indexed by expiry;
//!   `shared_buffers` is 512 MB, eight times ibid's cache, and `max_wal_size` is 2 GB, so that no checkpoint falls into a
//!   round of an empty store.
//! - **Redis**: `SET NX`, then `SET EX`, `appendfsync always`, over TCP. It syncs once for all commands that it finds on its
//!   sockets, so it is fastest if many callers share few connections: the redis crate's multiplexed ones, which pipeline by
//!   themselves. 16 were best for fresh requests, 4 for replays, so there is a line for each, and one for the way of a pool:
//!   a connection for each caller. *Advantages*: everything is in memory, and replays are a bare `GET`. The file is rewritten
//!   before each round of an empty store, outside of the measured time.
//! - **SQLite**: in process, WAL, `synchronous = FULL`, `fdatasync` as Debian builds it, 64 MiB of cache, a table without
//!   rowid, prepared. One thread writes what comes through a channel, one transaction for each step: it could put several
//!   steps into one transaction, and then it would be half of an engine. *Advantage*: a caller that replays reads on its own
//!   thread, a bare `select`, from one of as many connections as there are cores.
//! - **redb in a mutex**: what one writes quickly: lock, commit the request, unlock, run, lock, commit the answer. redb's
//!   defaults: a commit syncs once, where ibid's syncs twice, and the file is repaired slowly after a crash. *Advantages*: no
//!   hop to another thread; a cache of 1 GiB; whoever comes first gets the lock, so that it is fast and unfair.
//! - **Restate**: a virtual object for each key, called with an idempotency key over HTTP/1.1, a connection for each caller;
//!   its handler runs in this process, over the SDK's HTTP/2, with Nagle's algorithm off. Default settings, one node. *Handicap*:
//!   three parties and four hops for what others do in one or two; it is made for workflows. *Advantages*: its two steps are
//!   those of its own journal, without a `run` inside of the handler. It cannot be emptied, so it always holds what it has
//!   been told before, and 10,000 records at most where others hold a million.
//! - **axum-idempotent** keeps answers in memory only (its own store, over moka), so it is asked for replays alone, in
//!   process, through a router. It compares the key and not the request. It stands beside **ibid behind axum**, ibid's layer
//!   in the same place; neither is filled with more than 10,000.
//!
//! A caller that gets its answer without having waited lets others take their turn, so that callers in process stand in line
//! as those of a server do; a single one has nobody to let.

mod disk;
mod drive;
mod options;
mod payload;
mod peer;
mod table;

use std::path::Path;
use std::time::Duration;

use drive::{Contender, HOT, Workload};
use options::{Options, UNSHARED};
use peer::{AxumIdempotent, Ibid, IbidAxum, MutexCache, Postgres, Redis, Restate, Sqlite};
use table::Line;
use tokio::runtime::Runtime;

pub(crate) type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), AnyError> {
    let options = Options::from_arguments(std::env::args().skip(1))?;
    let host = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let began = drive::now();
    table::place(&options.directory)?;
    let mut field = Field::new(&host, &options);
    field.introduce();
    let lines = field.compare(&host, &options);
    table::print(&lines);
    for reason in options.missing.iter().chain(&field.out) {
        println!("\nNot compared: {reason}");
    }
    println!("\nfsync at the end: {}", table::shown(disk::sync_median(&options.directory)?));
    println!("Took {:.0} s.", began.elapsed().as_secs_f64());
    drop(field);
    host.shutdown_timeout(Duration::from_secs(5));
    Ok(())
}

/// What a server is called that is called over at most so many connections.
fn named(server: &str, all: &[usize], most: usize) -> String {
    match (all, most) {
        ([_], _) => server.to_owned(),
        (_, UNSHARED..) => format!("{server}, a connection each"),
        _ => format!("{server}, {most} connections"),
    }
}

/// Who is compared.
struct Field {
    peers: Vec<Box<dyn Contender>>,
    /// Why one or the other is not, or no longer.
    out: Vec<String>,
}

impl Field {
    fn new(host: &Runtime, options: &Options) -> Self {
        let mut field = Self { peers: Vec::new(), out: Vec::new() };
        let directory: &Path = &options.directory;
        field.seat("ibid", Ibid::new(directory));
        field.seat("ibid behind axum", Ok(IbidAxum::new(directory)));
        if let Some(port) = options.postgres {
            for most in &options.postgres_connections {
                let name = named("PostgreSQL", &options.postgres_connections, *most);
                field.seat("PostgreSQL", host.block_on(Postgres::new(name, port, *most)));
            }
        }
        if let Some(port) = options.redis {
            for most in &options.redis_connections {
                let name = named("Redis", &options.redis_connections, *most);
                field.seat("Redis", host.block_on(Redis::new(name, port, *most)));
            }
        }
        field.seat("SQLite", Ok(Sqlite::new(directory)));
        field.seat("redb in a mutex", Ok(MutexCache::new(directory)));
        if let Some((ingress, admin)) = options.restate {
            field.seat("Restate", host.block_on(Restate::new(ingress, admin)));
        }
        field.seat("axum-idempotent", Ok(AxumIdempotent::default()));
        field.peers.retain(|peer| {
            options.only.is_empty() || options.only.iter().any(|name| peer.name().split(',').next() == Some(name))
        });
        field
    }

    fn seat(&mut self, name: &str, peer: Result<impl Contender + 'static, AnyError>) {
        match peer {
            Ok(peer) => self.peers.push(Box::new(peer)),
            Err(error) => self.out.push(format!("{name}: {error}")),
        }
    }

    fn introduce(&self) {
        for peer in &self.peers {
            println!("- {}: {}", peer.name(), peer.version());
        }
    }

    fn compare(&mut self, host: &Runtime, options: &Options) -> Vec<Line> {
        let mut lines = Vec::new();
        // A store of a million is filled once; it grows by what a round adds.
        if options.records > 0 {
            self.each(|peer| {
                let began = drive::now();
                peer.fill(host, options.records.max(HOT))?;
                eprintln!("{}: filled in {:.0} s", peer.name(), began.elapsed().as_secs_f64());
                Ok(())
            });
        }
        // Replays come last, so that those of a store which is emptied between rounds are filled in but once.
        let fresh = options.callers.iter().map(|callers| (Workload::Fresh, *callers));
        let replays = options.replay_callers.iter().map(|callers| (Workload::Replay, *callers));
        let all: Vec<_> = fresh.chain(replays).collect();
        let mut left = options.budget;
        for (place, (workload, callers)) in all.iter().enumerate() {
            let began = drive::now();
            if *workload == Workload::Replay && place == options.callers.len() && options.records == 0 {
                self.each(|peer| peer.fill(host, HOT));
            }
            let share = left / u32::try_from(all.len() - place).unwrap_or(1);
            lines.extend(self.rounds(host, options, *workload, *callers, share));
            left = left.saturating_sub(began.elapsed());
        }
        lines
    }

    /// Everybody takes a turn in every round, and each round begins with another one.
    fn rounds(
        &mut self,
        host: &Runtime,
        options: &Options,
        workload: Workload,
        callers: usize,
        share: Duration,
    ) -> Vec<Line> {
        let began = drive::now();
        let mut lines: Vec<Line> = Vec::new();
        let window = if workload == Workload::Fresh { options.window } else { options.window / 2 };
        for round in 0..options.rounds {
            eprintln!("{workload:?}, {callers} callers, round {} of {}", round + 1, options.rounds);
            let places = self.peers.len().max(1);
            self.peers.rotate_left(round % places);
            self.each(|peer| {
                if !peer.offers(workload) {
                    return Ok(());
                }
                if workload == Workload::Fresh && options.records == 0 {
                    peer.fill(host, 0)?;
                }
                let run = peer.run(host, workload, callers, window)?;
                match lines.iter_mut().find(|line| line.peer == peer.name()) {
                    Some(line) => line.runs.push((round, run)),
                    None => lines.push(Line::new(workload, callers, peer.as_ref(), round, run)),
                }
                Ok(())
            });
            let places = self.peers.len().max(1);
            self.peers.rotate_right(round % places);
            // Another one would take as long as one has taken.
            if began.elapsed() * (round as u32 + 2) / (round as u32 + 1) > share {
                break;
            }
        }
        lines
    }

    /// Whoever fails is out from then on.
    fn each(&mut self, mut act: impl FnMut(&mut Box<dyn Contender>) -> Result<(), AnyError>) {
        let out = &mut self.out;
        self.peers.retain_mut(|peer| match act(peer) {
            Ok(()) => true,
            Err(error) => {
                eprintln!("{}: {error}", peer.name());
                out.push(format!("{}: {error}", peer.name()));
                false
            }
        });
    }
}

/// The version of a crate in the lock file.
pub(crate) fn locked(name: &str) -> &'static str {
    let mut lines = include_str!("../Cargo.lock").lines();
    let wanted = format!("name = \"{name}\"");
    lines.find(|line| *line == wanted);
    lines.next().and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"')).unwrap_or("unknown")
}
