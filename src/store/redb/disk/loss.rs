//! Power losses: what is left of a disk's life if the power goes at some point of it.

use super::SimulatedDisk;
use super::image::{Change, Image};
use super::{End, Step};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// Up to so many changes that are not synced, every subset of them is tried.
const EVERY_SUBSET: usize = 6;

/// What is left when the power has gone.
#[derive(Clone)]
pub struct PowerLoss {
    syncs: usize,
    point: usize,
    kept: Kept,
    hash: u128,
    image: Image,
}

impl PowerLoss {
    /// How many syncs had completed: what was acknowledged at up to so many must be there.
    #[must_use]
    pub fn syncs(&self) -> usize {
        self.syncs
    }

    /// A hash of the names and the contents of all files. Equal disks have equal hashes, whatever led to them.
    #[must_use]
    pub fn hash(&self) -> u128 {
        self.hash
    }

    /// The disk as it comes back, with no fault set. What is done to it can be lost in turn, and changes no other copy.
    #[must_use]
    pub fn disk(&self) -> SimulatedDisk {
        SimulatedDisk::starting(self.image.clone())
    }
}

impl std::fmt::Debug for PowerLoss {
    /// At which point, and what of the changes not synced was kept: enough to tell it from the others of its disk.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "power loss at point {} after {} syncs, kept {:?}", self.point, self.syncs, self.kept)
    }
}

/// How much of what was not synced has reached the disk.
#[derive(Clone, Debug)]
enum Kept {
    Nothing,
    Everything,
    /// All but this one.
    Without(usize),
    /// This one alone.
    Only(usize),
    /// Those whose bit is set.
    Subset(u64),
    /// Each or not.
    Some(Dice),
    /// Each sector or not.
    Sectors(Dice),
}

/// The life of a disk, step by step: what is durable, and what is not yet.
struct Walk<'steps> {
    durable: Image,
    pending: Vec<&'steps Change>,
    dice: Dice,
    syncs: usize,
    point: usize,
}

/// Calls `check` with each power loss: see [`SimulatedDisk::for_each_power_loss`].
pub(super) fn for_each(start: Image, steps: &[Step], variants: usize, seed: u64, mut check: impl FnMut(&PowerLoss)) {
    let mut walk = Walk { durable: start, pending: Vec::new(), dice: Dice::new(seed), syncs: 0, point: 0 };
    for step in steps {
        match step {
            Step::Change(change) => walk.pending.push(change),
            Step::Sync(file, end) => {
                walk.lose_power(variants, &mut check);
                walk.sync(*file, *end);
            }
        }
    }
    walk.lose_power(variants, &mut check);
}

/// What is durable at the end.
pub(super) fn durable(start: Image, steps: &[Step]) -> Image {
    let mut walk = Walk { durable: start, pending: Vec::new(), dice: Dice::new(1), syncs: 0, point: 0 };
    for step in steps {
        match step {
            Step::Change(change) => walk.pending.push(change),
            // All of it is lost.
            Step::Sync(file, End::Failed | End::Forgot) => walk.pending.retain(|change| change.file() != *file),
            Step::Sync(file, end) => walk.sync(*file, *end),
        }
    }
    walk.durable.forget_nameless(|_| false);
    walk.durable
}

impl Walk<'_> {
    fn lose_power(&mut self, variants: usize, check: &mut impl FnMut(&PowerLoss)) {
        for kept in self.variants(variants) {
            let mut image = self.durable.clone();
            for (number, change) in self.pending.iter().enumerate() {
                keep(&mut image, number, change, &mut kept.clone());
            }
            image.forget_nameless(|_| false);
            let hash = image.hash();
            check(&PowerLoss { syncs: self.syncs, point: self.point, kept, hash, image });
        }
        self.point += 1;
    }

    /// Nothing, everything; then each subset, or as many single ones as half of the rest allows; then chance.
    fn variants(&mut self, most: usize) -> Vec<Kept> {
        let pending = self.pending.len();
        let mut variants = vec![Kept::Nothing];
        if pending > 0 {
            variants.push(Kept::Everything);
        }
        if pending <= EVERY_SUBSET {
            variants.extend((1..(1u64 << pending).saturating_sub(1)).map(Kept::Subset));
        } else {
            let mut single: Vec<_> = (0..pending).flat_map(|n| [Kept::Without(n), Kept::Only(n)]).collect();
            self.dice.shuffle(&mut single);
            single.truncate(most.saturating_sub(2).div_ceil(2));
            variants.extend(single);
        }
        let mut torn = false;
        while pending > 0 && variants.len() < most {
            let dice = self.dice.fork();
            // Of few changes every subset is there by now.
            torn = !torn || pending <= EVERY_SUBSET;
            variants.push(if torn { Kept::Sectors(dice) } else { Kept::Some(dice) });
        }
        variants.truncate(most);
        variants
    }

    fn sync(&mut self, file: Option<u64>, end: End) {
        let mut dice = self.dice.fork();
        // What such a sync has not written will not be written by a later one. It has written nothing, or some.
        let some = dice.toss();
        match end {
            End::Lied => {}
            End::Failed | End::Forgot => {
                for change in self.pending.extract_if(.., |change| change.file() == file) {
                    if some && dice.toss() {
                        self.durable.apply(change);
                    }
                }
            }
            End::Done => {
                for change in self.pending.extract_if(.., |change| change.file() == file) {
                    self.durable.apply(change);
                }
            }
        }
        self.syncs += usize::from(end != End::Failed);
    }
}

/// Does the change to the image, as far as it is kept.
fn keep(image: &mut Image, number: usize, change: &Change, kept: &mut Kept) {
    let whole = match kept {
        Kept::Nothing => false,
        Kept::Everything => true,
        Kept::Without(other) => number != *other,
        Kept::Only(one) => number == *one,
        Kept::Subset(bits) => *bits >> number & 1 == 1,
        Kept::Some(dice) => dice.at(number).toss(),
        Kept::Sectors(dice) => {
            let mut dice = dice.at(number);
            let Change::Write(file, data) = change else {
                if dice.toss() {
                    image.apply(change);
                }
                return;
            };
            let file = image.files.entry(*file).or_default();
            data.cut(SECTOR_BYTES).into_iter().filter(|_| dice.toss()).for_each(|sector| file.write(&sector));
            return;
        }
    };
    if whole {
        image.apply(change);
    }
}

/// Chance from a seed (xorshift).
#[derive(Clone, Debug)]
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn toss(&mut self) -> bool {
        self.roll() & (1 << 40) == 0
    }

    fn fork(&mut self) -> Self {
        Self::new(self.roll())
    }

    /// The dice for the change of this number: the same however often it is asked.
    fn at(&self, number: usize) -> Self {
        let mut dice = Self::new(self.0.wrapping_add((number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        dice.roll();
        dice.roll();
        dice
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = usize::try_from(self.roll() % (last as u64 + 1)).unwrap_or_default();
            items.swap(last, other);
        }
    }
}
