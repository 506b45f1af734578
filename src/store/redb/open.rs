//! Opening what is there: nothing is written before the file has proven to be a store of a format we know.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use ::redb::backends::FileBackend;
use ::redb::{Builder, Database, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend};

use super::RedbOptions;
use super::error::{self, shielded, storage, table};
use super::held::Held;
use super::ledger::if_there;
use super::tables::{
    COUNTERS, EXPIRY, FORMAT, FORMAT_KEY, IN_FLIGHT, KEYS, LEDGER, LEDGER_EXPIRY, META, RECORDS, damaged,
};
use crate::store::StoreError;

/// An open database.
pub(super) struct Opened {
    pub(super) database: Database,
    /// The place of the next new record.
    pub(super) next_seq: u64,
}

/// Opens the file at `path`. `None`: there is none.
pub(super) fn open_file(path: &Path, options: &RedbOptions) -> Result<Option<Opened>, StoreError> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error::io(error)),
    };
    let backend = FileBackend::new(file).map_err(error::opening)?;
    let opened = open_backend(backend, options)?;
    // The file may be the work of an engine that died before its name was durable.
    sync_directory(path).map_err(error::io)?;
    Ok(Some(opened))
}

/// Opens what `backend` holds, and leaves it as it is unless all is well.
pub(super) fn open_backend(backend: impl StorageBackend, options: &RedbOptions) -> Result<Opened, StoreError> {
    if backend.len().map_err(error::io)? == 0 {
        // redb would make a new database of it. We don't: an empty store runs requests twice.
        return Err(StoreError::Corrupt(
            "the file is empty; restore it from a backup, or remove it if no store was ever here".to_owned(),
        ));
    }
    let held = Held::new(backend);
    let for_redb = held.clone();
    let database = shielded(|| builder(options).create_with_backend(for_redb).map_err(error::opening))?;
    let sound = shielded(|| inspect(&database.begin_read().map_err(error::transaction)?))
        .and_then(|next_seq| held.release().map(|()| next_seq).map_err(error::io));
    match sound {
        Ok(next_seq) => Ok(Opened { database, next_seq }),
        Err(reason) => {
            let_go(database);
            Err(reason)
        }
    }
}

/// Drops what holds a database. redb closes the file as it goes, and panics on some that were damaged.
pub(super) fn let_go<T>(holder: T) {
    drop(shielded(|| {
        drop(holder);
        Ok(())
    }));
}

pub(super) fn builder(options: &RedbOptions) -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(options.cache_bytes).set_check_integrity_on_open(options.integrity_check);
    builder
}

/// Checks format and tables. Returns the place of the next new record.
fn inspect(txn: &ReadTransaction) -> Result<u64, StoreError> {
    let meta = txn.open_table(META).map_err(table)?;
    let stored = ReadableTable::get(&meta, FORMAT_KEY).map_err(storage)?;
    let stored = stored.as_ref().and_then(|stored| stored.value().try_into().ok());
    match stored.map(u32::from_be_bytes) {
        Some(FORMAT) => {}
        Some(found) if found > FORMAT => return Err(StoreError::UnsupportedVersion { found, supported: FORMAT }),
        Some(_) | None => return Err(damaged("the format number")),
    }
    txn.open_table(KEYS).map_err(table)?;
    txn.open_table(EXPIRY).map_err(table)?;
    txn.open_table(IN_FLIGHT).map_err(table)?;
    txn.open_table(COUNTERS).map_err(table)?;
    if_there(txn, LEDGER)?;
    if_there(txn, LEDGER_EXPIRY)?;
    let records = txn.open_table(RECORDS).map_err(table)?;
    let last = ReadableTable::last(&records).map_err(storage)?;
    Ok(last.map_or(0, |(seq, _)| seq.value()).saturating_add(1))
}

/// Makes the names in the directory of `path` durable. redb syncs files only.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(directory_of(path))?.sync_all() } else { Ok(()) }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}
