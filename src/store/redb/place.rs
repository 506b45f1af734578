//! Where a store's file lies, and the lease that the store has on it.
//!
//! A lease is taken when the store is opened and given up when it is closed. It outlives the database over it: while a
//! store is being reopened, or is down, its file stays locked.

use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ::redb::{BackendError, StorageBackend};

use crate::store::StoreError;

/// A name for the store's file, in a directory of a file system or of a simulated disk.
pub(super) trait Place: Send + Sync {
    /// The file of that name; `None`: there is none.
    fn open(&self) -> Result<Option<Lease>, StoreError>;

    /// Whether the name is this file's. It may have been removed, or replaced.
    fn names(&self, lease: &Lease) -> io::Result<bool>;

    /// A new, empty file aside, locked. What a crash has left there is gone.
    fn aside(&self) -> Result<Lease, StoreError>;

    /// Gives the store's name to the file aside, whoever had it.
    fn put_in_place(&self) -> io::Result<()>;

    /// Removes the file aside.
    fn discard_aside(&self) -> io::Result<()>;

    /// Makes the names durable.
    fn sync_directory(&self) -> io::Result<()>;
}

/// What tells a file from every other: device and number.
pub(super) type FileId = (u64, u64);

/// Both ends of a range of bytes, as redb locks them.
pub(super) type Range = (Bound<u64>, Bound<u64>);

/// An open file and its lock. Dropping it gives up both.
#[derive(Debug)]
pub(super) struct Lease(Arc<Leased>);

/// The file of a lease, for the databases that are opened over it.
#[derive(Debug)]
pub(super) struct Leased {
    file: Box<dyn StorageBackend>,
    id: FileId,
    sync_failed: AtomicBool,
    /// What redb has locked. The next database asks for the same once more.
    locked: Mutex<Vec<Range>>,
}

impl Lease {
    pub(super) fn new(file: impl StorageBackend, id: FileId) -> Self {
        let (sync_failed, locked) = (AtomicBool::new(false), Mutex::default());
        Self(Arc::new(Leased { file: Box::new(file), id, sync_failed, locked }))
    }

    pub(super) fn file(&self) -> Arc<Leased> {
        Arc::clone(&self.0)
    }

    pub(super) fn id(&self) -> FileId {
        self.0.id
    }

    /// Whether a sync of the file has failed: from then on what it reads as proves nothing about the disk.
    pub(super) fn sync_failed(&self) -> bool {
        self.0.sync_failed.load(Ordering::SeqCst)
    }

    /// To be called for a sync that does not go through the lease: that of the directory.
    pub(super) fn note_failed_sync(&self) {
        self.0.sync_failed.store(true, Ordering::SeqCst);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Whoever still reads from a snapshot has the file open; the lock must not wait for that.
        drop(self.0.file.close());
    }
}

impl Leased {
    fn locked(&self) -> std::sync::MutexGuard<'_, Vec<Range>> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(
        &self,
        range: Range,
        lock: impl FnOnce(&dyn StorageBackend) -> Result<bool, BackendError>,
    ) -> Result<bool, BackendError> {
        let mut locked = self.locked();
        if locked.contains(&range) {
            return Ok(true);
        }
        let acquired = lock(&*self.file)?;
        if acquired {
            locked.push(range);
        }
        Ok(acquired)
    }
}

impl StorageBackend for Leased {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data().inspect_err(|_| self.sync_failed.store(true, Ordering::SeqCst))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }

    /// The lease ends the file's use, not the database over it.
    fn close(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.lock((start, end), |file| file.try_lock_range(start, end))
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.lock((start, end), |file| file.try_lock_shared_range(start, end))
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.lock((start, end), |file| file.lock_range(start, end).map(|()| true)).map(|_| ())
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.lock((start, end), |file| file.lock_shared_range(start, end).map(|()| true)).map(|_| ())
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)?;
        self.locked().retain(|range| *range != (start, end));
        Ok(())
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
