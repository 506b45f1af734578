//! A disk in memory that loses its power and fails its syncs, for tests.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::redb::StorageBackend;

use super::create::first_commit;
use super::image::{read, set_len, write};
use super::{RedbOptions, RedbStore, open};
use crate::store::StoreError;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// A disk that holds one store and remembers everything done to it. Clones share it.
///
/// It behaves as Linux does: what a failed sync should have written is lost, and yet reads back until the power goes.
#[derive(Clone)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

struct State {
    /// What it held at first.
    start: Vec<u8>,
    /// What it reads as.
    cached: Vec<u8>,
    steps: Vec<Step>,
    syncs: usize,
    /// Counts down to the operation that fails, with all after it.
    operations_left: Option<usize>,
    /// Counts down to the one sync that fails.
    syncs_left: Option<usize>,
}

#[derive(Clone)]
enum Step {
    Write(u64, Vec<u8>),
    SetLen(u64),
    /// Everything before it is durable.
    Sync,
    /// Everything since the last sync is lost.
    FailedSync,
}

/// How much of what was not synced has reached the disk.
#[derive(Clone, Copy)]
enum Kept {
    Nothing,
    Everything,
    SomeSteps,
    SomeSectors,
}

impl SimulatedDisk {
    /// A disk with a new, empty store on it.
    ///
    /// # Errors
    /// [`StoreError`], if there is no memory for a store.
    pub fn new() -> Result<Self, StoreError> {
        Ok(Self::holding(first_commit(&RedbOptions::default())?))
    }

    /// A disk that holds these bytes.
    #[must_use]
    pub fn holding(bytes: Vec<u8>) -> Self {
        let (start, cached) = (bytes.clone(), bytes);
        let state = State { start, cached, steps: Vec::new(), syncs: 0, operations_left: None, syncs_left: None };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Opens the store that it holds. Nothing keeps a second one from being opened at the same time: don't.
    ///
    /// # Errors
    /// As [`RedbStore::open`].
    pub fn open(&self, options: RedbOptions) -> Result<RedbStore, StoreError> {
        let backend = self.backend();
        let source = move || open::open_backend(backend.clone(), &options);
        Ok(RedbStore::over(source()?, source))
    }

    /// What it reads as.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().cached.clone()
    }

    /// How many syncs it has completed. Taken when something was acknowledged, it tells which power losses must not
    /// undo that: see [`for_each_power_loss`](Self::for_each_power_loss).
    #[must_use]
    pub fn syncs(&self) -> usize {
        self.lock().syncs
    }

    /// Lets every write, sync and change of length fail after that many more.
    pub fn fail_after(&self, operations: usize) {
        self.lock().operations_left = Some(operations);
    }

    /// Lets one sync fail, after that many more that do not.
    pub fn fail_one_sync_after(&self, syncs: usize) {
        self.lock().syncs_left = Some(syncs);
    }

    /// Ends the failures.
    pub fn mend(&self) {
        let mut state = self.lock();
        (state.operations_left, state.syncs_left) = (None, None);
    }

    /// What is left if the power goes now: everything synced, and nothing else.
    #[must_use]
    pub fn without_power(&self) -> Self {
        let state = self.lock();
        let (mut durable, mut unsynced) = (state.start.clone(), 0);
        for (position, step) in state.steps.iter().enumerate() {
            if let Step::Sync = step {
                replay(&mut durable, state.steps.get(unsynced..position), Kept::Everything, &mut Dice(1));
            }
            if let Step::Sync | Step::FailedSync = step {
                unsynced = position + 1;
            }
        }
        Self::holding(durable)
    }

    /// Calls `check` for power losses right before each sync of the disk's life completes: with how many syncs had
    /// completed by then, and with what is left. Each point comes in `variants` variants: nothing of what was not synced
    /// has reached the disk, all of it has, or some writes or some sectors that depend on `seed`.
    pub fn for_each_power_loss(&self, variants: usize, seed: u64, mut check: impl FnMut(usize, Self)) {
        // A copy, so that `check` may use this disk.
        let (mut durable, steps) = {
            let state = self.lock();
            (state.start.clone(), state.steps.clone())
        };
        let (mut dice, mut unsynced, mut syncs) = (Dice(seed | 1), 0, 0);
        for (position, step) in steps.iter().enumerate() {
            let lost = steps.get(unsynced..position);
            if let Step::Sync = step {
                let kinds = [Kept::Nothing, Kept::Everything, Kept::SomeSteps, Kept::SomeSectors];
                let random = [Kept::SomeSteps, Kept::SomeSectors].into_iter().cycle();
                for kept in kinds.into_iter().chain(random).take(variants) {
                    let mut image = durable.clone();
                    replay(&mut image, lost, kept, &mut dice);
                    check(syncs, Self::holding(image));
                }
                replay(&mut durable, lost, Kept::Everything, &mut dice);
                syncs += 1;
            }
            if let Step::Sync | Step::FailedSync = step {
                unsynced = position + 1;
            }
        }
    }

    pub(super) fn backend(&self) -> Backend {
        Backend(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        write!(f, "SimulatedDisk({} bytes, {} syncs)", state.cached.len(), state.syncs)
    }
}

impl State {
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.operations_left {
            Some(0) => Err(io::Error::other("the disk has failed")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.spend()?;
        match &mut self.syncs_left {
            Some(0) => {
                self.syncs_left = None;
                Err(io::Error::other("the sync has failed"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// The disk as redb sees it.
#[derive(Clone, Debug)]
pub(super) struct Backend(SimulatedDisk);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        read(&self.0.lock().cached, offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        state.spend()?;
        state.steps.push(Step::SetLen(len));
        set_len(&mut state.cached, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        let result = state.sync();
        if result.is_ok() {
            state.syncs += 1;
        }
        state.steps.push(if result.is_ok() { Step::Sync } else { Step::FailedSync });
        result
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        state.spend()?;
        state.steps.push(Step::Write(offset, data.to_vec()));
        write(&mut state.cached, offset, data)
    }
}

/// Does the steps to the file, as far as they are kept.
fn replay(file: &mut Vec<u8>, steps: Option<&[Step]>, kept: Kept, dice: &mut Dice) {
    for step in steps.unwrap_or_default() {
        let keep = match kept {
            Kept::Nothing => false,
            Kept::Everything => true,
            Kept::SomeSteps | Kept::SomeSectors => dice.toss(),
        };
        // What fails here is a file beyond the memory's size: the step was never done either.
        drop(match step {
            Step::Write(offset, data) if matches!(kept, Kept::SomeSectors) => {
                let offsets = (*offset..).step_by(SECTOR_BYTES);
                let mut sectors = offsets.zip(data.chunks(SECTOR_BYTES)).filter(|_| dice.toss());
                sectors.try_for_each(|(offset, sector)| write(file, offset, sector))
            }
            Step::Write(offset, data) if keep => write(file, *offset, data),
            Step::SetLen(len) if keep => set_len(file, *len),
            Step::Write(..) | Step::SetLen(_) | Step::Sync | Step::FailedSync => Ok(()),
        });
    }
}

/// Coins from a seed (xorshift).
struct Dice(u64);

impl Dice {
    fn toss(&mut self) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 & (1 << 40) == 0
    }
}
