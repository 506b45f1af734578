//! A disk in memory that fails, lies, fills up and loses its power, for tests.

mod fault;
mod image;
mod loss;
mod pages;

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::redb::{BackendError, StorageBackend};

use super::create::first_commit;
use super::place::{Lease, Place, Range};
use super::{RedbOptions, RedbStore, error};
use crate::store::StoreError;

use self::fault::Faults;
pub use self::fault::{DiskError, DiskFault, DiskOperation};
use self::image::{Change, FIRST, FileNo, Image, Name};
pub use self::loss::PowerLoss;
use self::pages::Data;

/// A disk that holds one store and remembers everything done to it. Clones share it.
///
/// It has one directory with the store's file and, while the store is copied after a failed sync, the file aside. What is
/// written to a file is durable when the file is synced; what a file is called, when the directory is. Before that, each
/// write, change of length and change of name may be lost with the power, whatever becomes of the others; a write may
/// come through in part, in whole sectors of 512 bytes.
///
/// It behaves as Linux does: what a failed sync should have written is lost, in whole or in part, and yet reads back
/// until the power goes. An open file is locked against a second store.
///
/// ```
/// use ibid::store::{Batch, RedbOptions, Store};
/// use ibid::testing::SimulatedDisk;
/// use ibid::UnixMillis;
///
/// let disk = SimulatedDisk::new()?;
/// let store = disk.open(RedbOptions::default())?;
/// store.commit(&Batch { now: UnixMillis(7), ..Batch::default() })?;
/// let acknowledged = disk.syncs();
///
/// disk.for_each_power_loss(10, 1, |loss| {
///     let store = loss.disk().open(RedbOptions::default()).expect("the file opens");
///     let mark = store.clock_mark().expect("and can be read");
///     assert!(mark == UnixMillis(7) || loss.syncs() < acknowledged, "{loss:?}");
/// });
/// # Ok::<_, ibid::store::StoreError>(())
/// ```
#[derive(Clone)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

struct State {
    /// What it held at first.
    start: Image,
    /// What it reads as.
    cached: Image,
    steps: Vec<Step>,
    /// Completed ones, and lies.
    syncs: usize,
    faults: Faults,
    /// Who has locked what. A handle is a number; no number is used twice.
    locks: BTreeMap<FileNo, Vec<(u64, Range)>>,
    /// How many handles there are on a file.
    open: BTreeMap<FileNo, usize>,
    next_file: FileNo,
    next_handle: u64,
}

#[derive(Clone)]
enum Step {
    Change(Change),
    /// Of this file; `None`: of the directory.
    Sync(Option<FileNo>, End),
}

/// How a sync ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Every change before it is durable.
    Done,
    /// What it should have written is lost.
    Failed,
    /// It says that it is done, and did nothing. The next one does it all.
    Lied,
    /// It says that it is done, and what it should have written is lost.
    Forgot,
}

impl SimulatedDisk {
    /// A disk with a new, empty store on it.
    ///
    /// # Errors
    /// [`StoreError`], if there is no memory for a store.
    pub fn new() -> Result<Self, StoreError> {
        Self::holding(&first_commit(&RedbOptions::default())?)
    }

    /// A disk whose one file holds these bytes.
    ///
    /// # Errors
    /// None but for more bytes than there can be.
    pub fn holding(bytes: &[u8]) -> Result<Self, StoreError> {
        Ok(Self::starting(Image::holding(bytes).map_err(error::io)?))
    }

    fn starting(image: Image) -> Self {
        let next_file = image.files.keys().last().copied().unwrap_or(FIRST) + 1;
        Self(Arc::new(Mutex::new(State {
            cached: image.clone(),
            start: image,
            steps: Vec::new(),
            syncs: 0,
            faults: Faults::default(),
            locks: BTreeMap::new(),
            open: BTreeMap::new(),
            next_file,
            next_handle: 0,
        })))
    }

    /// Opens the store that it holds.
    ///
    /// # Errors
    /// As [`RedbStore::open`]; [`StoreError::Io`] if there is no file.
    pub fn open(&self, options: RedbOptions) -> Result<RedbStore, StoreError> {
        let lease = Place::open(self)?.ok_or_else(|| error::io(io::Error::from(io::ErrorKind::NotFound)))?;
        RedbStore::over(Box::new(self.clone()), lease, options)
    }

    /// What the store's file reads as. Empty, if there is none.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().cached.named(Name::Store).map(pages::Pages::bytes).unwrap_or_default()
    }

    /// A hash of all that it reads as, as [`PowerLoss::hash`].
    #[must_use]
    pub fn hash(&self) -> u128 {
        let mut image = self.lock().cached.clone();
        image.forget_nameless(|_| false);
        image.hash()
    }

    /// How many syncs it has completed, those of the directory included. Taken when something was acknowledged, it tells
    /// which power losses must not undo that: see [`for_each_power_loss`](Self::for_each_power_loss).
    #[must_use]
    pub fn syncs(&self) -> usize {
        self.lock().syncs
    }

    /// How often it was asked for this, failures included.
    #[must_use]
    pub fn operations(&self, operation: DiskOperation) -> usize {
        self.lock().faults.done(operation)
    }

    /// How many operations it has let fail.
    #[must_use]
    pub fn failures(&self) -> usize {
        self.lock().faults.hits()
    }

    /// Sets a fault. Several can be set; each counts on its own.
    pub fn inject(&self, fault: DiskFault) {
        self.lock().faults.set(fault);
    }

    /// Lets everything but reading fail with `EIO` after that many more operations.
    pub fn fail_after(&self, operations: usize) {
        self.lock().faults.fail_after(operations);
    }

    /// Lets one sync fail with `EIO`, after that many more that do not.
    pub fn fail_one_sync_after(&self, syncs: usize) {
        let (operation, error) = (DiskOperation::Sync, DiskError::Io);
        self.inject(DiskFault { operation, after: syncs, error, lasting: false });
    }

    /// Lets one sync, of a file or of the directory, be a lie, after that many more that are not: it does nothing and says
    /// that it is done. The next one makes up for it, if the power lasts until then.
    pub fn lie_after(&self, syncs: usize) {
        self.lock().faults.lie_after(syncs, End::Lied);
    }

    /// The same for a lie that nothing makes up for: what the sync should have written is lost, in whole or in part, and
    /// yet reads back until the power goes.
    pub fn forget_after(&self, syncs: usize) {
        self.lock().faults.lie_after(syncs, End::Forgot);
    }

    /// Gives it room for so many bytes of written pages, 4 KiB each; a write that needs more fails with `ENOSPC`. Pages
    /// that were written once, and those that were never written, need none.
    pub fn set_quota(&self, bytes: u64) {
        self.lock().faults.quota = Some(bytes);
    }

    /// How many bytes of the quota are in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.lock().cached.allocated()
    }

    /// Ends all faults, and the quota.
    pub fn mend(&self) {
        self.lock().faults.mend();
    }

    /// What is left if the power goes now: everything synced, and nothing else.
    #[must_use]
    pub fn without_power(&self) -> Self {
        let state = self.lock();
        Self::starting(loss::durable(state.start.clone(), &state.steps))
    }

    /// Calls `check` with power losses right before each sync of the disk's life ends, and at the end of that life.
    ///
    /// Each of these points comes in up to `variants` variants: nothing of what was not synced has reached the disk; all
    /// of it has; of up to 6 changes every subset; of more, each single one lost and each single one kept, as far as half
    /// of `variants` allows; then random subsets and random sectors. The same `seed` makes the same choices. Different
    /// losses may come to the same disk: [`PowerLoss::hash`] tells.
    pub fn for_each_power_loss(&self, variants: usize, seed: u64, check: impl FnMut(&PowerLoss)) {
        // Without the lock, so that `check` may use this disk.
        let (start, steps) = {
            let state = self.lock();
            (state.start.clone(), state.steps.clone())
        };
        loss::for_each(start, &steps, variants, seed, check);
    }

    /// The file that has the store's name, for a database without a store around it; `None` if no file has.
    #[must_use]
    pub fn file(&self) -> Option<DiskFile> {
        let file = self.lock().cached.names.get(&Name::Store).copied()?;
        Some(self.handle(file))
    }

    fn handle(&self, file: FileNo) -> DiskFile {
        let mut state = self.lock();
        *state.open.entry(file).or_default() += 1;
        state.next_handle += 1;
        DiskFile { disk: self.clone(), file, number: state.next_handle }
    }

    fn lease(&self, file: FileNo) -> Lease {
        Lease::new(self.handle(file), (0, file))
    }

    fn rename(&self, change: impl FnOnce(&Image) -> io::Result<Change>) -> io::Result<()> {
        let mut state = self.lock();
        state.meet(DiskOperation::Rename, 0)?;
        let change = change(&state.cached)?;
        state.change(change);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        write!(f, "SimulatedDisk({} bytes, {} syncs)", state.cached.allocated(), state.syncs)
    }
}

impl State {
    fn meet(&mut self, operation: DiskOperation, more: u64) -> io::Result<()> {
        let cached = &self.cached;
        self.faults.meet(operation, more, || cached.allocated())
    }

    fn change(&mut self, change: Change) {
        self.cached.apply(&change);
        self.steps.push(Step::Change(change));
        let open = &self.open;
        self.cached.forget_nameless(|file| open.contains_key(&file));
    }

    fn sync(&mut self, operation: DiskOperation, file: Option<FileNo>) -> io::Result<()> {
        let result = self.meet(operation, 0);
        let end = match result {
            Err(_) => End::Failed,
            Ok(()) => self.faults.end_of_sync(),
        };
        self.syncs += usize::from(result.is_ok());
        self.steps.push(Step::Sync(file, end));
        result
    }
}

impl Place for SimulatedDisk {
    fn open(&self) -> Result<Option<Lease>, StoreError> {
        let file = self.lock().cached.names.get(&Name::Store).copied();
        Ok(file.map(|file| self.lease(file)))
    }

    fn names(&self, lease: &Lease) -> io::Result<bool> {
        Ok(self.lock().cached.names.get(&Name::Store) == Some(&lease.id().1))
    }

    fn aside(&self) -> Result<Lease, StoreError> {
        if self.lock().cached.names.contains_key(&Name::Aside) {
            self.discard_aside().map_err(error::io)?;
        }
        let file = {
            let mut state = self.lock();
            state.meet(DiskOperation::Rename, 0).map_err(error::io)?;
            let file = state.next_file;
            state.next_file += 1;
            state.change(Change::Create(file));
            file
        };
        Ok(self.lease(file))
    }

    fn put_in_place(&self) -> io::Result<()> {
        self.rename(|image| match image.names.get(&Name::Aside) {
            Some(file) => Ok(Change::PutInPlace(*file)),
            None => Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn discard_aside(&self) -> io::Result<()> {
        self.rename(|_| Ok(Change::RemoveAside))
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.lock().sync(DiskOperation::SyncDirectory, None)
    }
}

/// An open file of a [`SimulatedDisk`], as redb sees it.
#[derive(Debug)]
pub struct DiskFile {
    disk: SimulatedDisk,
    file: FileNo,
    number: u64,
}

impl DiskFile {
    fn release(&self, give_up: impl Fn(&Range) -> bool) {
        if let Some(locks) = self.disk.lock().locks.get_mut(&self.file) {
            locks.retain(|(handle, range)| *handle != self.number || !give_up(range));
        }
    }
}

impl Drop for DiskFile {
    fn drop(&mut self) {
        self.release(|_| true);
        let mut state = self.disk.lock();
        let left = state.open.get(&self.file).map_or(0, |open| open - 1);
        if left > 0 {
            state.open.insert(self.file, left);
        } else {
            state.open.remove(&self.file);
            let State { open, cached, .. } = &mut *state;
            cached.forget_nameless(|file| open.contains_key(&file));
        }
    }
}

impl StorageBackend for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().cached.files.get(&self.file).map_or(0, pages::Pages::len))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.meet(DiskOperation::Read, 0)?;
        state.cached.files.get(&self.file).ok_or(io::ErrorKind::UnexpectedEof)?.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut state = self.disk.lock();
        state.meet(DiskOperation::SetLen, 0)?;
        state.change(Change::SetLen(self.file, len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.lock().sync(DiskOperation::Sync, Some(self.file))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let data = Data::new(offset, data)?;
        let mut state = self.disk.lock();
        let more = state.cached.files.get(&self.file).map_or(0, |file| file.growth(&data));
        state.meet(DiskOperation::Write, more)?;
        state.change(Change::Write(self.file, data));
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.release(|_| true);
        Ok(())
    }

    /// The file as a whole is locked, whatever the range.
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        let mut state = self.disk.lock();
        let locks = state.locks.entry(self.file).or_default();
        let free = locks.iter().all(|(handle, _)| *handle == self.number);
        if free {
            locks.push((self.number, (start, end)));
        }
        Ok(free)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.release(|range| *range == (start, end));
        Ok(())
    }
}
