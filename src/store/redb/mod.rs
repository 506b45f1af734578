//! The store on disk: one redb file, one transaction per batch.
//!
//! Every commit is in two phases: with redb's default one, a failed sync and a power loss after it can leave a file that
//! never opens again. Batches of some size (the larger the file, the larger they must be), and the commit when nothing is
//! going on, also record what makes the next opening fast. Only one thread writes; readers each take a snapshot and share no lock with the writer.
//!
//! What is assumed of the disk: a completed sync is durable, a write of 512 bytes is whole or not at all, and what was
//! not synced may be there in any part. After a sync that has failed, everything moves to a fresh file.
//!
//! A disk that calls a sync done and forgets it breaks the first of these. A file that then comes back with some of its
//! writes and not with others is refused when it is opened, by redb's checksums, as long as its integrity is checked. One
//! that comes back whole, as it was at an earlier sync, can't be told from an older copy: nothing in it is wrong. So the
//! state at opening is that of *some* commit, never a mix of two; that it is the last one is the disk's promise.
//!
//! A damaged page number can make redb ask for up to 4 GiB of memory, for the one read by which it finds the damage out.

mod batch;
mod check;
mod create;
#[cfg(any(test, feature = "testing"))]
mod disk;
mod error;
mod file;
mod held;
mod image;
mod ledger;
mod open;
mod place;
mod renew;
mod rows;
mod tables;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use ::redb::{
    AccessGuard, Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend,
    WriteTransaction,
};

#[cfg(feature = "testing")]
pub use self::disk::{DiskError, DiskFault, DiskFile, DiskOperation, PowerLoss, SimulatedDisk};
use self::error::{shielded, storage, table};
use self::file::StoreFile;
use self::open::{Contents, open_lease};
use self::place::{Lease, Place};
use self::tables::{
    COUNTERS, EXPIRY, FORMAT, GENERATION, IN_FLIGHT, KEYS, META, QUIET, RECORDS, TICK_MARK, in_flight_name,
    in_flight_rows, place_of, read_clock_mark, read_counter, read_format, read_totals, record_of, row, scope_counter,
};
use super::codec::decode_row;
use super::{Batch, Cursor, Entry, ExpiredRow, Store, StoreError, Totals, Verdict};
use crate::key::Key;
use crate::ledger::StoredRow;
use crate::record::{Bytes, Record};
use crate::time::UnixMillis;

/// From this many changes on, rows and removals of rows included, a commit also records what makes an opening after a crash
/// fast.
const QUICK_REPAIR_CHANGES: usize = 16;

/// That record is about a page for 34 MiB of the file. From one change for so many bytes on, it is little beside what the
/// commit writes itself: a quarter of a page for each change.
const QUICK_REPAIR_BYTES: u64 = 8 * 1024 * 1024;

/// When opening verifies every page of a file, at about 2 s a GiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IntegrityCheck {
    /// Whenever it is opened.
    #[default]
    Always,
    /// Only where the last engine did not close it: the process was killed, the power went, the disk failed. Damage done
    /// while it lay closed goes unnoticed, as with [`Never`](Self::Never).
    AfterUncleanEnd,
    /// Never. A damaged page is found when a record in it is read, by the record's own checksum; a damaged page of an
    /// index may go unnoticed. The copy after a failed sync is made of a checked file all the same.
    Never,
}

/// How a file is opened. The defaults fit a node on a small machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedbOptions {
    cache_bytes: usize,
    integrity_check: IntegrityCheck,
}

impl Default for RedbOptions {
    fn default() -> Self {
        Self { cache_bytes: 64 * 1024 * 1024, integrity_check: IntegrityCheck::Always }
    }
}

impl RedbOptions {
    /// Memory for pages of the file, in bytes. Default 64 MiB.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// When opening verifies every page. Default: [`IntegrityCheck::Always`].
    #[must_use]
    pub fn integrity_check(mut self, check: IntegrityCheck) -> Self {
        self.integrity_check = check;
        self
    }
}

/// Records in one file, of one engine at a time.
///
/// The file belongs to the store: mode 0600 where that exists, and beside it, while it is being created or copied,
/// `<file>.creating`. After a failed sync [`reopen`](Store::reopen) copies everything to a fresh file, which takes the
/// place of the old one: that needs room for both, and a hard link to the file keeps the old one.
pub struct RedbStore {
    // In this order: the database is closed before its file is given up.
    slot: RwLock<Slot>,
    writer: Mutex<Writer>,
    place: Box<dyn Place>,
    options: RedbOptions,
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
    /// As far as commits have gone; read anew whenever the database is opened.
    contents: Contents,
    /// Whether the last commit left the next opening slow.
    restless: bool,
    /// The file, whether there is a database over it or not. `None`: the store is closed.
    lease: Option<Lease>,
}

impl Writer {
    /// Whether a commit of this batch should leave the next opening fast.
    fn quick_repairs(&self, batch: &Batch) -> bool {
        let rows: usize = batch.changes.iter().map(|change| change.rows.len()).sum();
        let changes = batch.changes.len() + rows + batch.expired_rows.len();
        let file_bytes = || self.lease.as_ref().and_then(|lease| lease.file().len().ok()).unwrap_or_default();
        changes >= QUICK_REPAIR_CHANGES && is_worth_quick_repair(changes, file_bytes())
    }
}

fn is_worth_quick_repair(changes: usize, file_bytes: u64) -> bool {
    changes as u64 >= file_bytes / QUICK_REPAIR_BYTES
}

impl RedbStore {
    /// Opens the store at `path`, and creates it if there is no file. A file that is there is never replaced or emptied.
    /// One of an older format is read as it is; the first commit that changes anything makes it one of this version's, and
    /// from then on older versions of the crate refuse it.
    ///
    /// # Errors
    /// [`StoreError::AlreadyOpen`], [`StoreError::UnsupportedVersion`], and [`StoreError::Corrupt`] for a file that is
    /// damaged, empty or somebody else's: all of these leave it as it is. [`StoreError::Io`] also if the directory is
    /// missing.
    pub fn open(path: impl AsRef<Path>, options: RedbOptions) -> Result<Self, StoreError> {
        let file = StoreFile::at(path.as_ref())?;
        let lease = file.open_or_create(&options)?;
        Self::over(Box::new(file), lease, options)
    }

    fn over(place: Box<dyn Place>, mut lease: Lease, options: RedbOptions) -> Result<Self, StoreError> {
        let opened = match open_lease(&*place, &mut lease, &options) {
            // Whoever opened the file next would believe what it reads as; so it is copied now.
            Err(_) if lease.sync_failed() => open_lease(&*place, &mut lease, &options)?,
            opened => opened?,
        };
        Ok(Self {
            slot: RwLock::new(Slot::Open(opened.database)),
            writer: Mutex::new(Writer { contents: opened.contents, restless: true, lease: Some(lease) }),
            place,
            options,
        })
    }

    /// Checks that everything stored tells one story: every record decodes and is found under its key, the indexes have
    /// an entry for each record and row that belongs there and no other, and every counter counts what is there. Reads
    /// everything, in one snapshot, beside a writer that goes on; memory stays bounded. Which record is at fault is named
    /// by its place, never by its key.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with what does not agree, first of all; else as any read.
    pub fn verify(&self) -> Result<(), StoreError> {
        self.read(check::verify)
    }

    /// Overwrites what is stored for this key with as many bytes 0xFF, durably, as a damaged disk might. `false`: there is no
    /// record. From then on the key is [quarantined](StoreError::Quarantined) for good, and every other one as before.
    ///
    /// It waits for a commit under way, and can be called while an engine has the store.
    ///
    /// # Errors
    /// As [`commit`](Store::commit); [`StoreError::Quarantined`] if the key is that already.
    #[cfg(feature = "testing")]
    pub fn damage(&self, key: &Key) -> Result<bool, StoreError> {
        let mut writer = self.writer();
        shielded(|| {
            let txn = self.begin_write()?;
            {
                let Some(seq) = place_of(&txn.open_table(KEYS).map_err(table)?, key)? else { return Ok(false) };
                let mut records = txn.open_table(RECORDS).map_err(table)?;
                let mut counters = txn.open_table(COUNTERS).map_err(table)?;
                let name = in_flight_name(seq);
                let bytes = |row: Option<AccessGuard<'_, &'static [u8]>>| row.map(|row| row.value().to_vec());
                let ended = bytes(records.get(seq).map_err(storage)?);
                let in_flight = bytes(counters.get(name.as_slice()).map_err(storage)?);
                let row = ended.as_deref().or(in_flight.as_deref());
                record_of(row, key)?;
                let damaged = vec![0xff; row.map_or(0, <[u8]>::len)];
                if ended.is_some() {
                    records.insert(seq, damaged.as_slice()).map_err(storage)?;
                } else {
                    counters.insert(name.as_slice(), damaged.as_slice()).map_err(storage)?;
                }
            }
            txn.commit().map_err(error::commit)?;
            writer.restless = true;
            Ok(true)
        })
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

impl Store for RedbStore {
    fn commit(&self, batch: &Batch) -> Result<Vec<Verdict>, StoreError> {
        let mut writer = self.writer();
        shielded(|| {
            let mut txn = self.begin_write()?;
            let applied = batch::apply(&txn, batch, &mut writer.contents)?;
            if applied.wrote {
                let quick_repair = writer.quick_repairs(batch);
                txn.set_quick_repair(quick_repair);
                txn.commit().map_err(error::commit)?;
                writer.restless = !quick_repair;
                writer.contents.is_old = false;
            }
            Ok(applied.verdicts)
        })
    }

    fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.read(|txn| {
            let Some(seq) = place_of(&txn.open_table(KEYS).map_err(table)?, key)? else { return Ok(None) };
            // Opened only now: that costs as much as the look-up, and most of those who ask first find nothing.
            let records = txn.open_table(RECORDS).map_err(table)?;
            let ended = ReadableTable::get(&records, seq).map_err(storage)?;
            if let Some(row) = ended {
                return record_of(Some(row.value()), key).map(Some);
            }
            let counters = txn.open_table(COUNTERS).map_err(table)?;
            let in_flight = ReadableTable::get(&counters, in_flight_name(seq).as_slice()).map_err(storage)?;
            record_of(in_flight.as_ref().map(AccessGuard::value), key).map(Some)
        })
    }

    fn in_flight(&self, after: Option<Cursor>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.read(|txn| {
            if read_format(&txn.open_table(META).map_err(table)?)? < FORMAT {
                return in_flight_by_index(txn, after, limit);
            }
            let counters = txn.open_table(COUNTERS).map_err(table)?;
            let rows = in_flight_rows(&counters, after.map(|Cursor(seq)| seq))?.take(limit);
            let records = txn.open_table(RECORDS).map_err(table)?;
            rows.map(|entry| {
                let (seq, in_counters) = entry?;
                let found = match in_counters.value() {
                    [] => row(&records, seq)?,
                    in_counters => decode_row(in_counters).ok(),
                };
                Ok(Entry { cursor: Cursor(seq), found })
            })
            .collect()
        })
    }

    fn removable(&self, now: UnixMillis, tick: u64, limit: usize) -> Result<Vec<(Key, Record)>, StoreError> {
        self.read(|txn| {
            let records = txn.open_table(RECORDS).map_err(table)?;
            let by_time = |record: &Record| record.removable_at().is_some_and(|at| at <= now);
            // What both indexes have was listed by its time.
            let by_tick = |record: &Record| record.lapse_tick().is_some_and(|at| at <= tick) && !by_time(record);
            let mut due = Vec::new();
            gather(&txn.open_table(EXPIRY).map_err(table)?, now.0, &records, by_time, limit, &mut due)?;
            if let Some(quiet) = ledger::if_there(txn, QUIET)? {
                gather(&quiet, tick, &records, by_tick, limit, &mut due)?;
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

    fn row_keys(&self, table: &str, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>, StoreError> {
        self.read(|txn| ledger::row_keys(txn, table, after, limit))
    }

    fn expired_rows(&self, now: UnixMillis, limit: usize) -> Result<Vec<ExpiredRow>, StoreError> {
        self.read(|txn| ledger::expired_rows(txn, now, limit))
    }

    fn records_in_scope(&self, scope: &[u8]) -> Result<u64, StoreError> {
        self.read(|txn| read_counter(&txn.open_table(COUNTERS).map_err(table)?, &scope_counter(scope)))
    }

    fn totals(&self) -> Result<Totals, StoreError> {
        self.read(|txn| read_totals(&txn.open_table(COUNTERS).map_err(table)?))
    }

    fn clock_mark(&self) -> Result<UnixMillis, StoreError> {
        self.read(|txn| read_clock_mark(&txn.open_table(COUNTERS).map_err(table)?))
    }

    fn tick_mark(&self) -> Result<u64, StoreError> {
        self.read(|txn| read_counter(&txn.open_table(COUNTERS).map_err(table)?, TICK_MARK))
    }

    fn generation(&self) -> Result<u64, StoreError> {
        self.read(|txn| read_counter(&txn.open_table(COUNTERS).map_err(table)?, GENERATION))
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
        // A store that is not closed has its file.
        let Some(lease) = &mut writer.lease else { return Err(StoreError::Closed) };
        match open_lease(&*self.place, lease, &self.options) {
            Ok(opened) => {
                (writer.contents, writer.restless) = (opened.contents, true);
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
        let mut writer = self.writer();
        let closed = match self.replace(Slot::Closed) {
            Slot::Open(database) => shielded(|| database.close().map_err(error::opening)),
            Slot::Lost(_) => Ok(()),
            Slot::Closed => Err(StoreError::Closed),
        };
        writer.lease = None;
        closed
    }
}

/// What is in flight in a file of an older format.
fn in_flight_by_index(txn: &ReadTransaction, after: Option<Cursor>, limit: usize) -> Result<Vec<Entry>, StoreError> {
    let start = after.map_or(Bound::Unbounded, |Cursor(seq)| Bound::Excluded(seq));
    let index = txn.open_table(IN_FLIGHT).map_err(table)?;
    let records = txn.open_table(RECORDS).map_err(table)?;
    let entries = ReadableTable::range(&index, (start, Bound::Unbounded)).map_err(storage)?.take(limit);
    entries
        .map(|entry| {
            let seq = entry.map_err(storage)?.0.value();
            Ok(Entry { cursor: Cursor(seq), found: row(&records, seq)? })
        })
        .collect()
}

/// Records in the order of an index by time or by tick, up to `end`, as long as they are due and there are less than `limit`.
fn gather(
    index: &ReadOnlyTable<(u64, u64), ()>,
    end: u64,
    records: &ReadOnlyTable<u64, &'static [u8]>,
    is_due: impl Fn(&Record) -> bool,
    limit: usize,
    due: &mut Vec<(Key, Record)>,
) -> Result<(), StoreError> {
    for entry in ReadableTable::range(index, ..=(end, u64::MAX)).map_err(storage)? {
        if due.len() >= limit {
            break;
        }
        let (_, seq) = entry.map_err(storage)?.0.value();
        due.extend(row(records, seq)?.filter(|(_, record)| is_due(record)));
    }
    Ok(())
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
