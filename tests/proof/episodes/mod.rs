//! Simulated episodes: whole engines under virtual time, with clients, a store that fails, a process that dies and a clock
//! that jumps, all from one seed; and a checker that has never heard of the machine.

mod answers;
mod causes;
mod checker;
mod coverage;
mod forged;
mod history;
mod noting;
mod oracle;
mod plan;
mod script;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ibid::testing::{Random, simulate};

use crate::scale::{Scale, replay, replayed_seed};
use checker::{Objection, check};
use coverage::Coverage;
use history::{Event, History, printed};
use plan::Plan;
use world::World;

/// Seeds that once failed. They run first, always.
const REGRESSIONS: &str = include_str!("../regressions/episodes.txt");

/// Plays the episode of this seed.
fn played(seed: u64) -> (Arc<Plan>, Vec<Event>, Result<(), String>) {
    let mut random = Random::new(seed);
    let (plan, history) = (Arc::new(Plan::draw(&mut random)), History::new());
    let (planned, noted) = (Arc::clone(&plan), history.clone());
    let playing = AssertUnwindSafe(|| {
        simulate(seed, async move |simulation| World::new(simulation, planned, noted, random).play().await)
    });
    let ended = match catch_unwind(playing) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            Err(said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned())
        }
    };
    (plan, history.events(), ended)
}

/// Plays and judges it. An objection comes with everything needed to understand it.
fn judged(seed: u64) -> Result<Coverage, String> {
    let (plan, events, ended) = played(seed);
    let report = |what: String| {
        let keys: Vec<_> = plan.keys.iter().map(|place| format!("{:?}", place.grid)).collect();
        let (keys, limits) = (keys.join("\n"), &plan.limits);
        let command = replay("episodes", seed);
        format!("{what}\nseed {seed}\n\n{keys}\n{limits:?}\n\n{}\n{what}\n{command}\n", printed(&events))
    };
    ended.map_err(&report)?;
    check(&plan, &events).map_err(|Objection { place, rule, why }| report(format!("at {place}, {rule:?}: {why}")))
}

fn regressions() -> impl Iterator<Item = u64> {
    let seeds = REGRESSIONS.lines().filter_map(|line| line.split('#').next());
    seeds.map(str::trim).filter(|seed| !seed.is_empty()).map(|seed| seed.parse().expect("a seed is a number"))
}

/// After so many failures no more are looked for.
const FAILURES: usize = 8;

/// All of these seeds, on all processors. If any fails: one in full, of the others what they found.
fn all(seeds: u64) -> Result<Coverage, String> {
    let (next, failures) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let total = Mutex::new(Coverage::default());
    let work = || {
        let mut coverage = Coverage::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds || failures.lock().expect(UNHARMED).len() >= FAILURES {
                break;
            }
            match judged(seed) {
                Ok(covered) => coverage.merge(&covered),
                Err(report) => failures.lock().expect(UNHARMED).push(report),
            }
        }
        total.lock().expect(UNHARMED).merge(&coverage);
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().expect(UNHARMED);
    let headlines: String =
        failures.iter().flat_map(|report| report.lines().take(2)).map(|line| format!("{line}\n")).collect();
    match failures.first() {
        Some(first) => Err(format!("{first}\n{headlines}")),
        None => Ok(total.into_inner().expect(UNHARMED)),
    }
}

const UNHARMED: &str = "nothing panics while it is held";

#[test]
fn episodes() {
    if let Some(seed) = replayed_seed() {
        let (_, events, _) = played(seed);
        println!("{}", printed(&events));
        judged(seed).unwrap_or_else(|report| panic!("{report}"));
        return;
    }
    for seed in regressions() {
        judged(seed).unwrap_or_else(|report| panic!("{report}"));
    }
    let scale = Scale::from_env();
    let covered = all(scale.of(300, 100_000, 1_000_000)).unwrap_or_else(|report| panic!("{report}"));
    println!("{covered}");
    let missing = covered.missing(scale != Scale::Taste);
    assert!(missing.is_empty(), "these have never happened: {missing:?}");
}

#[test]
fn an_episode_is_the_same_each_time() {
    for seed in 0..10 {
        assert_eq!(printed(&played(seed).1), printed(&played(seed).1), "seed {seed}");
    }
}
