//! A backend that keeps writes to itself until the file has proven to be a store.
//!
//! Opening a database writes: redb repairs what a crash has left, and marks the file as in use. A damaged file, somebody
//! else's, or one of a newer version must stay as it is, and what it is shows only once it is open. So the writes of the
//! opening wait in memory, where they are read back from, and reach the file in their order, with their syncs, once all
//! is well; a crash on the way leaves what a crash of redb's own opening would leave.

use std::io;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use ::redb::{BackendError, StorageBackend};

/// A backend whose writes wait for [`Held::release`]. Clones share it: one goes to redb, one stays with who releases.
#[derive(Debug)]
pub(super) struct Held<B>(Arc<Shared<B>>);

#[derive(Debug)]
struct Shared<B> {
    file: B,
    /// `None`: released, everything goes straight through.
    waiting: RwLock<Option<Vec<Step>>>,
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

impl<B> Clone for Held<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B: StorageBackend> Held<B> {
    pub(super) fn new(file: B) -> Self {
        Self(Arc::new(Shared { file, waiting: RwLock::new(Some(Vec::new())) }))
    }

    /// Lets the writes through, those that have waited first.
    pub(super) fn release(&self) -> io::Result<()> {
        let mut waiting = self.0.waiting.write().unwrap_or_else(PoisonError::into_inner);
        for step in waiting.take().unwrap_or_default() {
            match step {
                Step::Write(offset, data) => self.0.file.write(offset, &data)?,
                Step::SetLen(len) => self.0.file.set_len(len)?,
                Step::Sync => self.0.file.sync_data()?,
            }
        }
        Ok(())
    }

    /// Queues the step while writes are held back; says whether it did.
    fn wait(&self, step: impl FnOnce() -> Step) -> bool {
        let released = self.0.waiting.read().unwrap_or_else(PoisonError::into_inner).is_none();
        if released {
            return false;
        }
        match &mut *self.0.waiting.write().unwrap_or_else(PoisonError::into_inner) {
            Some(waiting) => {
                waiting.push(step());
                true
            }
            None => false,
        }
    }
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

impl<B: StorageBackend> StorageBackend for Held<B> {
    fn len(&self) -> io::Result<u64> {
        let waiting = self.0.waiting.read().unwrap_or_else(PoisonError::into_inner);
        let stored = self.0.file.len()?;
        Ok(waiting.as_ref().map_or(stored, |steps| length_after(steps, stored)))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let waiting = self.0.waiting.read().unwrap_or_else(PoisonError::into_inner);
        let Some(steps) = waiting.as_ref() else {
            drop(waiting);
            return self.0.file.read(offset, out);
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
        if self.wait(|| Step::SetLen(len)) { Ok(()) } else { self.0.file.set_len(len) }
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.wait(|| Step::Sync) { Ok(()) } else { self.0.file.sync_data() }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.wait(|| Step::Write(offset, data.to_vec())) { Ok(()) } else { self.0.file.write(offset, data) }
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
