//! The store on disk: one redb file, one transaction per batch.
//!
//! Every commit is in two phases: with redb's default one, a failed sync and a power loss after it can leave a file that
//! never opens again. Batches of some size, and the commit when nothing is going on, also record what makes the next
//! opening fast. Only one thread writes; readers each take a snapshot and share no lock with the writer.
//!
//! What is assumed of the disk: a completed sync is durable, a write of 512 bytes is whole or not at all, and what was
//! not synced may be there in any part.

mod batch;
mod create;
#[cfg(any(test, feature = "testing"))]
mod disk;
mod error;
mod held;
mod image;
mod ledger;
mod open;
mod tables;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use ::redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction};

#[cfg(feature = "testing")]
pub use self::disk::SimulatedDisk;
use self::error::{shielded, storage, table};
use self::open::Opened;
use self::tables::{COUNTERS, EXPIRY, IN_FLIGHT, KEYS, RECORDS, find, read_clock_mark, read_totals, row};
use super::{Batch, Cursor, Entry, ExpiredRow, Store, StoreError, Totals, Verdict};
use crate::key::Key;
use crate::ledger::StoredRow;
use crate::record::{Bytes, Record};
use crate::time::UnixMillis;

/// From this many changes on, rows and removals of rows included, a commit also records what makes an opening after a crash fast: from here on it costs next
/// to nothing.
const QUICK_REPAIR_CHANGES: usize = 16;

/// How a file is opened. The defaults fit a node on a small machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedbOptions {
    cache_bytes: usize,
    integrity_check: bool,
}

impl Default for RedbOptions {
    fn default() -> Self {
        Self { cache_bytes: 64 * 1024 * 1024, integrity_check: true }
    }
}

impl RedbOptions {
    /// Memory for pages of the file, in bytes. Default 64 MiB.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Whether opening verifies every page, about 2 s a GiB. Default: it does. Without it a damaged page is found when
    /// a record in it is read, by the record's own checksum; a damaged page of an index may go unnoticed.
    #[must_use]
    pub fn integrity_check(mut self, check: bool) -> Self {
        self.integrity_check = check;
        self
    }
}

/// Records in one file, of one engine at a time.
///
/// The file belongs to the store: mode 0600 where that exists, and beside it, while it is being created,
/// `<file>.creating`.
pub struct RedbStore {
    slot: RwLock<Slot>,
    writer: Mutex<Writer>,
    source: Box<dyn Fn() -> Result<Opened, StoreError> + Send + Sync>,
}

/// The database, or why there is none. Readers hold the lock only to begin; a snapshot outlives it.
enum Slot {
    Open(Database),
    /// The last `reopen` failed, for this reason.
    Lost(StoreError),
    Closed,
}

/// What belongs to whoever writes.
struct Writer {
    next_seq: u64,
    /// Whether the last commit left the next opening slow.
    restless: bool,
}

impl RedbStore {
    /// Opens the store at `path`, and creates it if there is no file. A file that is there is never replaced or emptied.
    ///
    /// # Errors
    /// [`StoreError::AlreadyOpen`], [`StoreError::UnsupportedVersion`], and [`StoreError::Corrupt`] for a file that is
    /// damaged, empty or somebody else's: all of these leave it as it is. [`StoreError::Io`] also if the directory is
    /// missing.
    pub fn open(path: impl AsRef<Path>, options: RedbOptions) -> Result<Self, StoreError> {
        // A reopening must find the same file, also when the process has changed its directory by then.
        let path = std::path::absolute(path).map_err(error::io)?;
        // What a crash has left beside a store harms nobody, so failing to remove it does neither.
        drop(create::clear_stale(&path));
        let opened = match open::open_file(&path, &options)? {
            Some(opened) => opened,
            None => {
                create::create(&path, &options)?;
                existing(&path, &options)?
            }
        };
        Ok(Self::over(opened, move || existing(&path, &options)))
    }

    fn over(opened: Opened, source: impl Fn() -> Result<Opened, StoreError> + Send + Sync + 'static) -> Self {
        Self {
            slot: RwLock::new(Slot::Open(opened.database)),
            writer: Mutex::new(Writer { next_seq: opened.next_seq, restless: true }),
            source: Box::new(source),
        }
    }

    fn with_database<T>(&self, work: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match &*self.slot.read().unwrap_or_else(PoisonError::into_inner) {
            Slot::Open(database) => work(database),
            Slot::Lost(reason) => Err(reason.clone()),
            Slot::Closed => Err(StoreError::Closed),
        }
    }

    fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let result = shielded(|| {
            let txn = self.with_database(|database| database.begin_read().map_err(error::transaction))?;
            work(&txn)
        });
        match result {
            // The snapshot's database was closed under it. That is news only if the store was.
            Err(StoreError::Closed) => Err(self.with_database(|_| Ok(())).err().unwrap_or_else(reopening)),
            result => result,
        }
    }

    fn begin_write(&self) -> Result<WriteTransaction, StoreError> {
        let mut txn = self.with_database(|database| database.begin_write().map_err(error::transaction))?;
        txn.set_two_phase_commit(true);
        Ok(txn)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, slot: Slot) -> Slot {
        std::mem::replace(&mut *self.slot.write().unwrap_or_else(PoisonError::into_inner), slot)
    }
}

/// What reads get while `reopen` is at work.
fn reopening() -> StoreError {
    error::io(std::io::Error::other("the store is being reopened"))
}

/// Opens a file that must be there by now.
fn existing(path: &Path, options: &RedbOptions) -> Result<Opened, StoreError> {
    open::open_file(path, options)?.ok_or_else(|| error::io(std::io::Error::from(std::io::ErrorKind::NotFound)))
}

impl Store for RedbStore {
    fn commit(&self, batch: &Batch) -> Result<Vec<Verdict>, StoreError> {
        let mut writer = self.writer();
        shielded(|| {
            let mut txn = self.begin_write()?;
            let applied = batch::apply(&txn, batch, &mut writer.next_seq)?;
            if applied.wrote {
                let rows: usize = batch.changes.iter().map(|change| change.rows.len()).sum();
                let quick_repair = batch.changes.len() + rows + batch.expired_rows.len() >= QUICK_REPAIR_CHANGES;
                txn.set_quick_repair(quick_repair);
                txn.commit().map_err(error::commit)?;
                writer.restless = !quick_repair;
            }
            Ok(applied.verdicts)
        })
    }

    fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.read(|txn| {
            let keys = txn.open_table(KEYS).map_err(table)?;
            let records = txn.open_table(RECORDS).map_err(table)?;
            Ok(find(&keys, &records, key)?.map(|found| found.record))
        })
    }

    fn in_flight(&self, after: Option<Cursor>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let start = after.map_or(Bound::Unbounded, |Cursor(seq)| Bound::Excluded(seq));
        self.read(|txn| {
            let index = txn.open_table(IN_FLIGHT).map_err(table)?;
            let records = txn.open_table(RECORDS).map_err(table)?;
            let mut entries = Vec::new();
            for entry in ReadableTable::range(&index, (start, Bound::Unbounded)).map_err(storage)?.take(limit) {
                let seq = entry.map_err(storage)?.0.value();
                entries.push(Entry { cursor: Cursor(seq), found: row(&records, seq)? });
            }
            Ok(entries)
        })
    }

    fn removable(&self, now: UnixMillis, limit: usize) -> Result<Vec<(Key, Record)>, StoreError> {
        self.read(|txn| {
            let index = txn.open_table(EXPIRY).map_err(table)?;
            let records = txn.open_table(RECORDS).map_err(table)?;
            let mut due = Vec::new();
            for entry in ReadableTable::range(&index, ..=(now.0, u64::MAX)).map_err(storage)? {
                if due.len() >= limit {
                    break;
                }
                let (_, seq) = entry.map_err(storage)?.0.value();
                due.extend(row(&records, seq)?.filter(|(_, record)| record.removable_at().is_some_and(|at| at <= now)));
            }
            Ok(due)
        })
    }

    fn row(&self, table: &str, key: &[u8]) -> Result<Option<StoredRow>, StoreError> {
        self.read(|txn| ledger::row(txn, table, key))
    }

    fn rows(&self, table: &str, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, StoredRow)>, StoreError> {
        self.read(|txn| ledger::rows(txn, table, after, limit))
    }

    fn expired_rows(&self, now: UnixMillis, limit: usize) -> Result<Vec<ExpiredRow>, StoreError> {
        self.read(|txn| ledger::expired_rows(txn, now, limit))
    }

    fn totals(&self) -> Result<Totals, StoreError> {
        self.read(|txn| read_totals(&txn.open_table(COUNTERS).map_err(table)?))
    }

    fn clock_mark(&self) -> Result<UnixMillis, StoreError> {
        self.read(|txn| read_clock_mark(&txn.open_table(COUNTERS).map_err(table)?))
    }

    fn rest(&self) -> Result<(), StoreError> {
        let mut writer = self.writer();
        if !writer.restless {
            return self.with_database(|_| Ok(()));
        }
        shielded(|| {
            let mut txn = self.begin_write()?;
            txn.set_quick_repair(true);
            txn.commit().map_err(error::commit)
        })?;
        writer.restless = false;
        Ok(())
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut writer = self.writer();
        match self.replace(Slot::Lost(reopening())) {
            Slot::Closed => {
                self.replace(Slot::Closed);
                return Err(StoreError::Closed);
            }
            // The old handle has failed; what it says on its way out is no news.
            Slot::Open(database) => drop(shielded(|| database.close().map_err(error::opening))),
            Slot::Lost(_) => {}
        }
        match (self.source)() {
            Ok(opened) => {
                *writer = Writer { next_seq: opened.next_seq, restless: true };
                self.replace(Slot::Open(opened.database));
                Ok(())
            }
            Err(reason) => {
                self.replace(Slot::Lost(reason.clone()));
                Err(reason)
            }
        }
    }

    fn close(&self) -> Result<(), StoreError> {
        // Whoever writes finishes first: a live write transaction would keep the file.
        let _writer = self.writer();
        match self.replace(Slot::Closed) {
            Slot::Open(database) => shielded(|| database.close().map_err(error::opening)),
            Slot::Lost(_) => Ok(()),
            Slot::Closed => Err(StoreError::Closed),
        }
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        open::let_go(self.replace(Slot::Closed));
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &*self.slot.read().unwrap_or_else(PoisonError::into_inner) {
            Slot::Open(_) => "open",
            Slot::Lost(_) => "lost",
            Slot::Closed => "closed",
        };
        write!(f, "RedbStore({state})")
    }
}
