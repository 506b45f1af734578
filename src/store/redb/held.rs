//! A backend that keeps writes to itself until the file has proven to be a store.
//!
//! Opening a database writes: redb repairs what a crash has left, and marks the file as in use. A damaged file, somebody
//! else's, or one of a newer version must stay as it is, and what it is shows only once it is open. So the writes of the
//! opening wait in memory, where they are read back from, and reach the file in their order, with their syncs, once all
//! is well; a crash on the way leaves what a crash of redb's own opening would leave.

use std::io;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ::redb::{BackendError, StorageBackend};

use super::place::Leased;

/// A backend whose writes wait for [`Held::release`]. Clones share it: one goes to redb, one stays with who releases.
#[derive(Clone, Debug)]
pub(super) struct Held(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: Arc<Leased>,
    writes: RwLock<Writes>,
}

/// What becomes of a write.
#[derive(Debug)]
enum Writes {
    Wait(Vec<Step>),
    GoThrough,
    /// Not all that has waited has reached the file, or never will: to write on would mix two states of it.
    Fail,
}

enum Step {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Write(offset, data) => write!(f, "write {} bytes at {offset}", data.len()),
            Self::SetLen(len) => write!(f, "set length to {len}"),
            Self::Sync => f.write_str("sync"),
        }
    }
}

impl Held {
    pub(super) fn new(file: Arc<Leased>) -> Self {
        Self(Arc::new(Shared { file, writes: RwLock::new(Writes::Wait(Vec::new())) }))
    }

    /// One that holds nothing back.
    pub(super) fn released(file: Arc<Leased>) -> Self {
        Self(Arc::new(Shared { file, writes: RwLock::new(Writes::GoThrough) }))
    }

    /// Lets the writes through, those that have waited first. If one of them fails, so does everything from then on.
    pub(super) fn release(&self) -> io::Result<()> {
        let mut writes = self.exclusive();
        let Writes::Wait(steps) = std::mem::replace(&mut *writes, Writes::Fail) else { return Err(refused()) };
        for step in steps {
            match step {
                Step::Write(offset, data) => self.0.file.write(offset, &data)?,
                Step::SetLen(len) => self.0.file.set_len(len)?,
                Step::Sync => self.0.file.sync_data()?,
            }
        }
        *writes = Writes::GoThrough;
        Ok(())
    }

    /// Lets no write through any more. Those that have waited are forgotten.
    pub(super) fn refuse(&self) {
        *self.exclusive() = Writes::Fail;
    }

    fn shared(&self) -> RwLockReadGuard<'_, Writes> {
        self.0.writes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn exclusive(&self) -> RwLockWriteGuard<'_, Writes> {
        self.0.writes.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the step, now or later.
    fn step(&self, step: impl FnOnce() -> Step, now: impl FnOnce(&Leased) -> io::Result<()>) -> io::Result<()> {
        if matches!(*self.shared(), Writes::GoThrough) {
            return now(&self.0.file);
        }
        match &mut *self.exclusive() {
            Writes::Wait(steps) => {
                steps.push(step());
                Ok(())
            }
            Writes::GoThrough => now(&self.0.file),
            Writes::Fail => Err(refused()),
        }
    }
}

fn refused() -> io::Error {
    io::Error::other("the file was given up")
}

/// What the file would hold in `out`, read from `offset`, if the steps had been taken.
fn overlay(steps: &[Step], offset: u64, out: &mut [u8]) {
    let end = offset.saturating_add(out.len() as u64);
    for step in steps {
        let (from, data) = match step {
            Step::Write(at, data) => (*at, Some(data.as_slice())),
            Step::SetLen(len) => (*len, None),
            Step::Sync => continue,
        };
        let until = data.map_or(u64::MAX, |data| from.saturating_add(data.len() as u64));
        let (first, last) = (from.max(offset), until.min(end));
        let Some(place) = first
            .checked_sub(offset)
            .zip(last.checked_sub(offset))
            .and_then(|(first, last)| out.get_mut(usize::try_from(first).ok()?..usize::try_from(last).ok()?))
        else {
            continue;
        };
        match data {
            Some(data) => {
                let skip = usize::try_from(first - from).unwrap_or(usize::MAX);
                for (byte, new) in place.iter_mut().zip(data.iter().skip(skip)) {
                    *byte = *new;
                }
            }
            // What is cut off, or not there yet, reads as zeros when the file grows over it.
            None => place.fill(0),
        }
    }
}

fn length_after(steps: &[Step], stored: u64) -> u64 {
    steps.iter().fold(stored, |len, step| match step {
        Step::Write(at, data) => len.max(at.saturating_add(data.len() as u64)),
        Step::SetLen(len) => *len,
        Step::Sync => len,
    })
}

impl StorageBackend for Held {
    fn len(&self) -> io::Result<u64> {
        let writes = self.shared();
        let stored = self.0.file.len()?;
        match &*writes {
            Writes::Wait(steps) => Ok(length_after(steps, stored)),
            Writes::GoThrough | Writes::Fail => Ok(stored),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let writes = self.shared();
        let steps = match &*writes {
            Writes::Wait(steps) => steps,
            Writes::GoThrough => {
                drop(writes);
                return self.0.file.read(offset, out);
            }
            // Nobody can say what it would read as.
            Writes::Fail => return Err(refused()),
        };
        let stored = self.0.file.len()?;
        let end = offset.saturating_add(out.len() as u64);
        if end > length_after(steps, stored) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let in_file = usize::try_from(stored.min(end).saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let (old, new) = out.split_at_mut(in_file);
        self.0.file.read(offset, old)?;
        new.fill(0);
        overlay(steps, offset, out);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.step(|| Step::SetLen(len), |file| file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.step(|| Step::Sync, StorageBackend::sync_data)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.step(|| Step::Write(offset, data.to_vec()), |file| file.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.0.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.query_lock_range(start, end)
    }
}
