//! What survives: the [`Store`] trait, and the two stores that come with the crate.
//!
//! One batch of changes goes in, one transaction comes out, and each change gets its own verdict: a change decided on a
//! version of the record that is no longer there is *fenced off* and leaves the rest of the batch alone. Reads see
//! committed state only.

mod codec;
mod decide;
mod memory;
mod redb;
mod row_key;

use std::fmt;
use std::sync::Arc;

use crate::error::InvalidRecovery;
use crate::key::Key;
use crate::ledger::{Row, StoredRow};
use crate::record::{Bytes, Record, Status, Token};
use crate::time::UnixMillis;

#[cfg(feature = "testing")]
pub(crate) use codec::fuzz;
pub(crate) use codec::{from_bytes, to_bytes};
pub use memory::MemoryStore;
#[cfg(feature = "testing")]
pub use redb::{DiskError, DiskFault, DiskFile, DiskOperation, PowerLoss, SimulatedDisk};
pub use redb::{IntegrityCheck, RedbOptions, RedbStore};

/// Durable records. One writer (the engine's supervisor) calls [`commit`](Store::commit), [`rest`](Store::rest) and
/// [`close`](Store::close); reads come from any thread at any time. A store passes the suite in
/// `ibid::testing::conformance`.
pub trait Store: Send + Sync + 'static {
    /// Applies the batch in one durable transaction and gives one verdict per change, in order. When it returns, what was
    /// applied survives a power loss. A batch without changes still makes its clock mark and its tick mark durable.
    ///
    /// # Errors
    /// On an error nothing is known about any change, except for [`StoreError::RolledBack`]; [`reopen`](Store::reopen)
    /// before it is read back or tried again.
    fn commit(&self, batch: &Batch) -> Result<Vec<Verdict>, StoreError>;

    /// The record of `key` as last committed.
    ///
    /// # Errors
    /// [`StoreError::Quarantined`] if what is stored does not decode: such a key must never be taken for absent.
    fn get(&self, key: &Key) -> Result<Option<Record>, StoreError>;

    /// Records whose end is still to come (registered, dispatched, in doubt), in order of arrival, beginning behind
    /// `after`, at most `limit`. Reads the in-flight index only.
    ///
    /// # Errors
    /// [`StoreError`]; an entry that does not decode is listed as such and stops nothing.
    fn in_flight(&self, after: Option<Cursor>, limit: usize) -> Result<Vec<Entry>, StoreError>;

    /// Records and tombstones with [`removable_at`](Record::removable_at) at or before `now`, oldest first, then completed
    /// records with [`lapse_tick`](Record::lapse_tick) at or before `tick`, likewise; none twice, in all at most `limit`.
    /// Reads the expiry index and the tick index only.
    ///
    /// # Errors
    /// [`StoreError`]; an entry that does not decode is left out and stays.
    fn removable(&self, now: UnixMillis, tick: u64, limit: usize) -> Result<Vec<(Key, Record)>, StoreError>;

    /// The row of a ledger table, expired or not.
    ///
    /// # Errors
    /// [`StoreError::Quarantined`] if what is stored does not decode: it must never be taken for absent.
    fn row(&self, table: &str, key: &[u8]) -> Result<Option<StoredRow>, StoreError>;

    /// Rows of a ledger table in the order of their keys, beginning behind `after`, at most `limit`, expired ones included.
    ///
    /// # Errors
    /// [`StoreError`]; a row that does not decode is [`StoreError::Quarantined`] by [`row`](Store::row), and left out here.
    fn rows(&self, table: &str, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, StoredRow)>, StoreError>;

    /// Keys of a ledger table's rows in their order, beginning behind `after`, at most `limit`: also of rows that have expired, and
    /// of rows that do not decode.
    ///
    /// # Errors
    /// [`StoreError`].
    fn row_keys(&self, table: &str, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>, StoreError>;

    /// Ledger rows that expired at or before `now`, oldest first, at most `limit`. Reads the ledger's expiry index only.
    ///
    /// # Errors
    /// [`StoreError`].
    fn expired_rows(&self, now: UnixMillis, limit: usize) -> Result<Vec<ExpiredRow>, StoreError>;

    /// How many records of this scope are stored, tombstones included: what [`Batch::records_per_scope`] is held against.
    /// Reads a counter, not the records.
    ///
    /// # Errors
    /// [`StoreError`].
    fn records_in_scope(&self, scope: &[u8]) -> Result<u64, StoreError>;

    /// How many records stand in each state.
    ///
    /// # Errors
    /// [`StoreError`].
    fn totals(&self) -> Result<Totals, StoreError>;

    /// The highest [`Batch::now`] ever committed.
    ///
    /// # Errors
    /// [`StoreError`].
    fn clock_mark(&self) -> Result<UnixMillis, StoreError>;

    /// The highest [`Batch::tick`] ever committed; zero at first.
    ///
    /// # Errors
    /// [`StoreError`].
    fn tick_mark(&self) -> Result<u64, StoreError>;

    /// Grows with every commit that changed anything, a mark included, and never else: of two states of one store the older has the smaller
    /// one.
    ///
    /// # Errors
    /// [`StoreError`].
    fn generation(&self) -> Result<u64, StoreError>;

    /// Called when nothing has been committed for a while: a good time for whatever makes the next opening fast.
    ///
    /// # Errors
    /// [`StoreError`].
    fn rest(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Called after a [`commit`](Store::commit) whose end is unknown, before anything is read back: gives up what the failed
    /// commit has left in memory and opens anew. From `Ok` on, reads show what is stored, and commits work again.
    /// May be called as often as it takes; while it fails, so do reads and commits.
    ///
    /// # Errors
    /// [`StoreError`].
    fn reopen(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Gives up the file and its lock. Every later call fails with [`StoreError::Closed`].
    ///
    /// # Errors
    /// [`StoreError`]; the file is given up all the same.
    fn close(&self) -> Result<(), StoreError>;
}

/// Changes for one transaction.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The engine's time. The highest one is kept as the clock mark, in the same transaction.
    pub now: UnixMillis,
    /// The engine's count of ticks. The highest one is kept as the tick mark, in the same transaction.
    pub tick: u64,
    /// A put of a first [revision](Record::revision) that would give a scope more records than this gets
    /// [`Verdict::QuotaExceeded`]. Later revisions always pass: they replace a stored record, or its operation has run before
    /// anything of it was stored ([`Policy::replay_safe`](crate::Policy::replay_safe)). So do tombstones. All are counted.
    pub records_per_scope: u64,
    /// In order; a later change of the same key sees the earlier one.
    pub changes: Vec<Change>,
    /// Ledger rows to remove, each only if it still has that end. After the changes. One that does not decode stays, and
    /// is not listed as expired again.
    pub expired_rows: Vec<ExpiredRow>,
}

/// A ledger row whose time has come. `Debug` shows the length of its key.
#[derive(Clone, PartialEq, Eq)]
pub struct ExpiredRow {
    /// Its table.
    pub table: Arc<str>,
    /// Its key.
    pub key: Bytes,
    /// Its end.
    pub expires_at: UnixMillis,
}

impl ExpiredRow {
    /// From an entry of an index by end; `None` where it does not decode.
    fn at(expires_at: UnixMillis, joined: &[u8]) -> Option<Self> {
        let (table, key) = row_key::split(joined)?;
        Some(Self { table: table.into(), key: key.into(), expires_at })
    }
}

/// One change, decided on one version of one record.
///
/// Rows can also change alone: with `expected` and `put` both `None`, under a key that has no record. Such a change counts
/// towards no quota and no total. Where the key has a record, it is fenced off like any other that expects none.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which record.
    pub key: Key,
    /// The version it was decided on; `None`: there was none.
    pub expected: Option<Version>,
    /// The new record; `None`: it goes.
    pub put: Option<Arc<Record>>,
    /// Ledger rows of the same transaction, to write or to remove. All guards are checked at [`Batch::now`], on what was there before the change,
    /// earlier changes of the batch included; if one does not hold, nothing of the change is applied. Of two rows under
    /// the same table and key, the later counts. Removing a row that is not there changes nothing.
    pub rows: Vec<Row>,
    /// Where [`in_flight`](Store::in_flight) has listed the record, if the caller knows: a store may look there first. A place
    /// that is wrong, or no longer right, costs a look and changes nothing else.
    pub listed_at: Option<Cursor>,
}

impl Change {
    /// A change of one record, without rows.
    #[must_use]
    pub fn new(key: Key, expected: Option<Version>, put: Option<Arc<Record>>) -> Self {
        Self { key, expected, put, rows: Vec::new(), listed_at: None }
    }
}

/// One version of one record. The token tells a record from a later one under the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// [`Record::revision`].
    pub revision: u64,
    /// [`AttemptId::token`](crate::AttemptId::token).
    pub token: Token,
}

impl Version {
    /// The version of this record.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        Self { revision: record.revision, token: record.attempt.token }
    }
}

/// What became of one change. Where more than one thing speaks against it, it gets the first of: quarantined, fenced,
/// guarded, quota exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is durable.
    Applied,
    /// The record was not at the expected version; nothing was changed.
    Fenced,
    /// The scope is full; nothing was changed.
    QuotaExceeded,
    /// What is stored for the key, or for one of the rows, does not decode; nothing was changed.
    Quarantined,
    /// A row's guard does not hold; nothing was changed.
    Guarded,
}

/// A place in the in-flight index, to go on from. It belongs to its record as long as that is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(pub u64);

/// One entry of the in-flight index.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its place.
    pub cursor: Cursor,
    /// Key and record, or `None` where they do not decode.
    pub found: Option<(Key, Record)>,
}

/// Records by state, as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Registered.
    pub registered: u64,
    /// Dispatched.
    pub dispatched: u64,
    /// In doubt.
    pub in_doubt: u64,
    /// Completed, expired ones that are not swept yet included.
    pub completed: u64,
    /// Failed, likewise.
    pub failed: u64,
    /// Tombstones, likewise.
    pub tombstone: u64,
}

impl Totals {
    fn of_mut(&mut self, status: Status) -> &mut u64 {
        match status {
            Status::Registered => &mut self.registered,
            Status::Dispatched => &mut self.dispatched,
            Status::InDoubt => &mut self.in_doubt,
            Status::Completed => &mut self.completed,
            Status::Failed => &mut self.failed,
            Status::Tombstone => &mut self.tombstone,
        }
    }
}

/// Why a store could not do as asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// Reading or writing failed. After a commit: what was in it may or may not be durable.
    Io(Arc<dyn std::error::Error + Send + Sync>),
    /// The transaction was surely rolled back.
    RolledBack(Arc<dyn std::error::Error + Send + Sync>),
    /// The record or the row of this key does not decode; the others are not touched by that.
    Quarantined,
    /// The file as a whole is damaged, or is not a store. It was not changed; restore it from a backup. An empty store in its
    /// place would run requests twice.
    Corrupt(String),
    /// The file was written by a newer version of the crate. It was not changed.
    UnsupportedVersion {
        /// In the file.
        found: u32,
        /// The newest this version reads.
        supported: u32,
    },
    /// Another engine, in this or another process, has the file open.
    AlreadyOpen,
    /// The store is older than the host [knows](crate::Builder::at_least_generation) it to have been: a backup, most likely.
    /// It was not changed.
    Stale {
        /// The store's generation.
        found: u64,
        /// The least one that the host would have.
        expected: u64,
    },
    /// The store was closed.
    Closed,
    /// The engine's settings do not fit each other; the store was not touched.
    Settings(InvalidRecovery),
}

impl fmt::Debug for ExpiredRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExpiredRow")
            .field("table", &self.table)
            .field("key_bytes", &self.key.len())
            .field("expires_at", &self.expires_at)
            .finish()
    }
}

impl StoreError {
    /// Whether it may be gone the next time, as opposed to being a property of the file or of a row.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Io(_) | Self::RolledBack(_) => true,
            Self::Quarantined
            | Self::Corrupt(_)
            | Self::UnsupportedVersion { .. }
            | Self::AlreadyOpen
            | Self::Stale { .. }
            | Self::Closed
            | Self::Settings(_) => false,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(_) => f.write_str("reading or writing the store failed"),
            Self::RolledBack(_) => f.write_str("the transaction was rolled back"),
            Self::Quarantined => f.write_str("what is stored does not decode and is quarantined"),
            Self::Corrupt(what) => write!(f, "the store is damaged: {what}"),
            Self::UnsupportedVersion { found, supported } => {
                write!(f, "the store has format {found}, this version reads up to {supported}")
            }
            Self::AlreadyOpen => f.write_str("the store is open elsewhere"),
            Self::Stale { found, expected } => {
                write!(f, "the store is of generation {found}, and has been of generation {expected}")
            }
            Self::Closed => f.write_str("the store is closed"),
            Self::Settings(_) => f.write_str("the settings do not fit each other"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(source) | Self::RolledBack(source) => Some(&**source),
            Self::Settings(invalid) => Some(invalid),
            _ => None,
        }
    }
}
