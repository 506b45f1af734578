//! Power losses: whatever of a workload's writes has reached the disk, the store opens and holds the last acknowledged state
//! or the whole of the next one; and an engine opened on it keeps every promise.
//!
//! A workload runs once, on a simulated disk that remembers its writes. Then each disk that a power loss could have left is
//! made and opened. On the first disk of each state the life goes on: every request is sent again, and a referee looks at
//! what starts and what is answered; and that second life is cut by power losses of its own.

mod content;
mod continuation;
mod release;
mod workload;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use ibid::store::IntegrityCheck;
use ibid::testing::{PowerLoss, Random};
use ibid::{Key, Policy};

use self::content::{Commit, Content};
use self::workload::{Life, OPS, Op, PASTS, PAYMENT_OPS, live};
use crate::scale::{Scale, replay, replayed_seed};

/// Power losses at each point of a workload, and of a life that goes on after one. Of workloads of three operations, and of two
/// after a past, there are so many that each gets few.
const VARIANTS: usize = 12;
const VARIANTS_OF_MANY: usize = 3;
const NESTED_VARIANTS: usize = 4;

/// What all workloads together have come to.
#[derive(Default)]
struct Tally {
    /// Hashes of the disks, each with the state that it must hold at least.
    checked: Mutex<HashSet<(u128, u64)>>,
    disks: Mutex<HashSet<u128>>,
    lives: AtomicU64,
    continued: AtomicU64,
    nested: AtomicU64,
    losses: AtomicU64,
}

impl Tally {
    /// Whether this disk has not been held against this state before.
    fn is_new(&self, loss: &PowerLoss, least: &Content) -> bool {
        self.losses.fetch_add(1, Ordering::Relaxed);
        let mut hasher = DefaultHasher::new();
        format!("{least:?}").hash(&mut hasher);
        let is_new = lock(&self.checked).insert((loss.hash(), hasher.finish()));
        lock(&self.disks).insert(loss.hash());
        is_new
    }

    fn disks(&self) -> usize {
        lock(&self.disks).len()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One workload: everything follows from its seed and its place in the list.
struct Case {
    policy: Policy,
    ops: Vec<Op>,
    seed: u64,
    depth: Depth,
}

/// How much of a workload is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// A short one: its last operation, and each life that goes on after it.
    Short,
    /// One of very many: its last operation, with few power losses.
    Many,
    /// All of it.
    Whole,
}

impl Case {
    /// The workload of a number: first those of up to three operations under each policy, then those of up to two under the
    /// policies of payments after each of their pasts, in order; from there on longer ones at random.
    fn of(number: u64) -> Self {
        let policies = workload::policies();
        let policy = |n: u64| policies[usize::try_from(n).unwrap() % policies.len()].clone();
        if number >= Self::exhaustive() {
            return Self::at_random(number);
        }
        if number >= Self::timed() {
            return Self::of_payment(number);
        }
        let ops = nth(&OPS, number / policies.len() as u64);
        let depth = if ops.len() == 3 { Depth::Many } else { Depth::Short };
        Self { policy: policy(number), ops, seed: number, depth }
    }

    fn of_payment(number: u64) -> Self {
        let (policies, rest) = (workload::payments(), number - Self::timed());
        let policy = policies[usize::try_from(rest).unwrap() % policies.len()].clone();
        let rest = rest / policies.len() as u64;
        let past = PASTS[usize::try_from(rest).unwrap() % PASTS.len()];
        let ops = nth(&PAYMENT_OPS, rest / PASTS.len() as u64);
        let depth = if ops.len() == 2 { Depth::Many } else { Depth::Short };
        Self { policy, ops: [past, &ops].concat(), seed: number, depth }
    }

    fn at_random(number: u64) -> Self {
        let mut random = Random::new(number);
        let payments = workload::payments().into_iter().map(|policy| (policy, PAYMENT_OPS.as_slice()));
        let others = workload::policies().into_iter().map(|policy| (policy, OPS.as_slice()));
        let flows: Vec<_> = payments.chain(others).collect();
        let (policy, all) = random.pick(&flows).unwrap();
        let ops = (0..4 + random.below(9)).map(|_| *random.pick(all).unwrap()).collect();
        Self { policy: policy.clone(), ops, seed: number, depth: Depth::Whole }
    }

    /// How many workloads of up to three operations there are, under policies whose records end by time.
    fn timed() -> u64 {
        up_to(&OPS, 3) * workload::policies().len() as u64
    }

    /// These, and those of payments.
    fn exhaustive() -> u64 {
        Self::timed() + up_to(&PAYMENT_OPS, 2) * (PASTS.len() * workload::payments().len()) as u64
    }

    /// Lives the workload and loses the power at each point of its last operation; the rest are points of a shorter one.
    fn explore(&self, tally: &Tally) {
        let life = live(&self.policy, &self.ops, self.seed);
        tally.lives.fetch_add(1, Ordering::Relaxed);
        let since = if self.depth == Depth::Whole { 0 } else { life.before_last };
        let variants = if self.depth == Depth::Many { VARIANTS_OF_MANY } else { VARIANTS };
        let mut continued = HashSet::new();
        explore(&self.policy, &life, since, variants, self.seed, tally, |loss, at| {
            if !continued.insert(at) {
                return;
            }
            tally.continued.fetch_add(1, Ordering::Relaxed);
            let nested = continuation::go_on(&self.policy, &loss.disk(), self.seed);
            if self.depth == Depth::Many {
                return;
            }
            explore(&self.policy, &nested, 0, NESTED_VARIANTS, self.seed, tally, |_, _| {
                tally.nested.fetch_add(1, Ordering::Relaxed);
            });
        });
    }
}

/// The list of that number, of all lists of these operations: the shortest come first.
fn nth(all: &[Op], number: u64) -> Vec<Op> {
    let (mut rest, base) = (number, all.len() as u64);
    let mut length = 1;
    while rest >= base.pow(length) {
        rest -= base.pow(length);
        length += 1;
    }
    (0..length).map(|place| all[usize::try_from(rest / base.pow(place) % base).unwrap()]).collect()
}

/// How many lists of one to so many of these operations there are.
fn up_to(all: &[Op], length: u32) -> u64 {
    (1..=length).map(|length| (all.len() as u64).pow(length)).sum()
}

/// Opens what each power loss leaves, and compares. `go_on` gets each loss that is new, and the number of the state it holds.
fn explore(
    policy: &Policy,
    life: &Life,
    since: usize,
    variants: usize,
    seed: u64,
    tally: &Tally,
    mut go_on: impl FnMut(&PowerLoss, usize),
) {
    let keys = workload::keys_of(&workload::flow_of(policy));
    let first = life.commits[since.saturating_sub(1)].syncs;
    life.disk.for_each_power_loss(variants, seed, |loss| {
        if loss.syncs() < first {
            return;
        }
        let least = life.commits.iter().rposition(|commit| commit.syncs <= loss.syncs()).expect("the first has none");
        if tally.is_new(loss, &life.commits[least].content) {
            let at = check(loss, &life.commits, least, &keys);
            go_on(loss, at);
        }
    });
}

/// Opens the disk: it must hold the state of that number or the next one. Says which.
fn check(loss: &PowerLoss, commits: &[Commit], least: usize, keys: &[Key]) -> usize {
    // Both ways of opening, and every loss by the same one each time.
    let integrity = if loss.hash().is_multiple_of(2) { IntegrityCheck::Always } else { IntegrityCheck::Never };
    let disk = loss.disk();
    let store = disk.open(workload::options().integrity_check(integrity)).expect("the store opens");
    store.verify().expect("the tables agree");
    let content = Content::of(&store, keys).expect("and can be read");
    // Closing would take as long as opening, and show nothing more.
    disk.fail_after(0);
    let states = commits.iter().enumerate().skip(least).take(2);
    let found = states.filter(|(_, commit)| commit.content == content).map(|(number, _)| number).next();
    found.unwrap_or_else(|| panic!("{loss:?} holds neither state {least} nor the next:\n{content:#?}"))
}

/// Runs the cases of these numbers on two threads; a failure names its case.
fn run(numbers: &[u64]) -> Tally {
    let (tally, next) = (Tally::default(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let case = Case::of(*number);
                    let explored = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case.explore(&tally)));
                    if let Err(panic) = explored {
                        eprintln!("{:?} under {:?}\n{}", case.ops, case.policy, replay("crash", *number));
                        next.store(numbers.len(), Ordering::Relaxed);
                        std::panic::resume_unwind(panic);
                    }
                }
            });
        }
    });
    tally
}

/// The cases for this scale: an even share of the exhaustive ones, and random ones. Those of payments come first.
fn numbers(scale: Scale) -> Vec<u64> {
    let share = |numbers: std::ops::Range<u64>, stride: u64| numbers.step_by(usize::try_from(stride).unwrap());
    let payments = share(Case::timed()..Case::exhaustive(), scale.of(61, 1, 1));
    let timed = share(0..Case::timed(), scale.of(401, 1, 1));
    let random = scale.of(4, 200, 20_000);
    payments.chain(timed).chain((0..random).map(|number| Case::exhaustive() + number)).collect()
}

#[test]
fn crash_every_power_loss_leaves_the_last_acknowledged_state_or_the_whole_of_the_next() {
    let scale = Scale::from_env();
    let numbers = replayed_seed().map_or_else(|| numbers(scale), |seed| vec![seed]);
    let tally = run(&numbers);
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{} workloads, {} power losses, {} distinct disks; {} lives went on, with {} power losses of their own",
        count(&tally.lives),
        count(&tally.losses),
        tally.disks(),
        count(&tally.continued),
        count(&tally.nested),
    );
    if numbers.len() > 1 {
        let demanded = scale.of(500, 100_000, 1_000_000);
        assert!(tally.disks() as u64 >= demanded, "only {} distinct disks, not {demanded}", tally.disks());
    }
}
