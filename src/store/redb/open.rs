//! Opening what is there: nothing is written before the file has proven to be a store of a format we know.

use std::io;

use ::redb::{Builder, Database, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend};

use super::error::{self, shielded, storage, table};
use super::held::Held;
use super::ledger::if_there;
use super::place::{Lease, Place};
use super::renew::renew;
use super::tables::{
    COUNTERS, EXPIRY, FORMAT, IN_FLIGHT, KEYS, LEDGER, LEDGER_EXPIRY, META, OLDEST_FORMAT, QUIET, RECORDS, damaged,
    in_flight_rows, read_format,
};
use super::{IntegrityCheck, RedbOptions};
use crate::store::StoreError;

/// What a redb file begins with, and the flag in the byte behind it that redb sets when it opens the file and takes
/// back when it has closed it, everything synced. Both are part of redb's published file format.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";
const IN_USE: u8 = 2;

/// An open database.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) contents: Contents,
}

/// What a writer has to know of what is stored.
pub(super) struct Contents {
    /// The place of the next new record.
    pub(super) next_seq: u64,
    /// The format is an older one: what is in flight stands elsewhere, and tables may be missing.
    pub(super) is_old: bool,
}

/// Opens the leased file; if a sync of it has failed, a fresh copy of it.
pub(super) fn open_lease(place: &dyn Place, lease: &mut Lease, options: &RedbOptions) -> Result<Opened, StoreError> {
    if lease.sync_failed() {
        return renew(place, lease, options);
    }
    let (database, held) = open_held(lease, options)?;
    match take_over(place, lease, &database, &held) {
        Ok(contents) => Ok(Opened { database, contents }),
        Err(reason) => {
            let_go(database);
            Err(reason)
        }
    }
}

/// Makes sure that the file is the store's, and lets what was held back through.
fn take_over(place: &dyn Place, lease: &Lease, database: &Database, held: &Held) -> Result<Contents, StoreError> {
    // Only now is it locked. Somebody may have put a fresh file in its place and given this one up meanwhile.
    if !place.names(lease).map_err(error::io)? {
        return Err(nameless());
    }
    let contents = shielded(|| inspect(&database.begin_read().map_err(error::transaction)?))?;
    held.release().map_err(error::io)?;
    // The file may be the work of an engine that died before its name was durable.
    place.sync_directory().map_err(error::io)?;
    Ok(contents)
}

/// Opens what the file holds. Nothing is written to it before the release.
pub(super) fn open_held(lease: &Lease, options: &RedbOptions) -> Result<(Database, Held), StoreError> {
    let file = lease.file();
    if file.len().map_err(error::io)? == 0 {
        // redb would make a new database of it. We don't: an empty store runs requests twice.
        return Err(StoreError::Corrupt(
            "the file is empty; restore it from a backup, or remove it if no store was ever here".to_owned(),
        ));
    }
    let check = match options.integrity_check {
        IntegrityCheck::Always => true,
        IntegrityCheck::AfterUncleanEnd => !ended_cleanly(&*file)?,
        IntegrityCheck::Never => false,
    };
    let held = Held::new(file);
    let for_redb = held.clone();
    let database = shielded(|| builder(options, check).create_with_backend(for_redb).map_err(error::opening))?;
    Ok((database, held))
}

/// Drops what holds a database. redb closes the file as it goes, and panics on some that were damaged.
pub(super) fn let_go<T>(holder: T) {
    drop(shielded(|| {
        drop(holder);
        Ok(())
    }));
}

/// Whether whoever wrote the file has closed it. What is no redb file is for redb to refuse.
fn ended_cleanly(file: &impl StorageBackend) -> Result<bool, StoreError> {
    let mut header = [0; MAGIC.len() + 1];
    if file.len().map_err(error::io)? < header.len() as u64 {
        return Ok(false);
    }
    file.read(0, &mut header).map_err(error::io)?;
    Ok(header.strip_prefix(&MAGIC).is_some_and(|flags| flags.iter().all(|flags| flags & IN_USE == 0)))
}

pub(super) fn builder(options: &RedbOptions, check: bool) -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(options.cache_bytes).set_check_integrity_on_open(check);
    builder
}

/// The file is open, and no longer where it was.
pub(super) fn nameless() -> StoreError {
    error::io(io::Error::new(io::ErrorKind::NotFound, "the store's file was removed or replaced while it was open"))
}

/// Checks format and tables.
pub(super) fn inspect(txn: &ReadTransaction) -> Result<Contents, StoreError> {
    let meta = txn.open_table(META).map_err(table)?;
    let format = read_format(&meta)?;
    if format > FORMAT {
        return Err(StoreError::UnsupportedVersion { found: format, supported: FORMAT });
    }
    if format < OLDEST_FORMAT {
        return Err(damaged("the format number"));
    }
    txn.open_table(KEYS).map_err(table)?;
    txn.open_table(EXPIRY).map_err(table)?;
    let counters = txn.open_table(COUNTERS).map_err(table)?;
    if format < FORMAT {
        txn.open_table(IN_FLIGHT).map_err(table)?;
    }
    if format == OLDEST_FORMAT {
        if_there(txn, QUIET)?;
        if_there(txn, LEDGER)?;
        if_there(txn, LEDGER_EXPIRY)?;
    } else {
        txn.open_table(QUIET).map_err(table)?;
        txn.open_table(LEDGER).map_err(table)?;
        txn.open_table(LEDGER_EXPIRY).map_err(table)?;
    }
    let records = txn.open_table(RECORDS).map_err(table)?;
    let last = ReadableTable::last(&records).map_err(storage)?.map_or(0, |(seq, _)| seq.value());
    // The last to arrive may be in flight, or have ended before one that arrived earlier.
    let last_in_flight = in_flight_rows(&counters, None)?.next_back().transpose()?.map_or(0, |(seq, _)| seq);
    Ok(Contents { next_seq: last.max(last_in_flight).saturating_add(1), is_old: format < FORMAT })
}
