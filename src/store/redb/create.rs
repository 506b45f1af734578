//! A new store: built aside and put in place whole, so that no crash leaves a file that is neither a store nor nothing.
//!
//! ```text
//! take the name aside -> write and sync it -> link it into place -> drop the name aside -> sync the directory
//! ```
//! The first commit is made in memory, so the file aside is one plain write. Linking fails where the file exists, so two
//! that create at once end with one store. Who creates holds a lock on the file aside; one that nobody has locked is what
//! a crash has left, and goes. A fresh copy of a store (see `renew`) is built in the same place, in the same way.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::RedbOptions;
use super::error::{self, table};
use super::file::sync_directory;
use super::image::Image;
use super::open::builder;
use super::tables::{COUNTERS, EXPIRY, FORMAT, FORMAT_KEY, KEYS, LEDGER, LEDGER_EXPIRY, META, QUIET, RECORDS};
use crate::store::StoreError;

/// How often taking the name aside is tried again, when others take it and give it up at the same time.
const TRIES: usize = 8;

/// A store on its way, step by step in the order of the methods.
#[derive(Debug)]
pub(super) struct Creation {
    target: PathBuf,
    aside: Aside,
}

/// A new file beside a store.
#[derive(Debug)]
pub(super) struct Aside {
    path: PathBuf,
    /// Locked for as long as it is open.
    file: File,
}

/// Creates the store at `path`, unless somebody else has by now.
pub(super) fn create(path: &Path, options: &RedbOptions) -> Result<(), StoreError> {
    let mut creation = Creation::begin(path)?;
    creation.write(&first_commit(options)?).map_err(error::io)?;
    creation.put_in_place().map_err(error::io)?;
    creation.finish().map_err(error::io)
}

/// Removes the file aside that a crash has left beside the store at `path`.
pub(super) fn clear_stale(path: &Path) -> Result<(), StoreError> {
    remove_stale(&aside_of(path))
}

/// `<file>.creating`, in the same directory.
pub(super) fn aside_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".creating");
    PathBuf::from(name)
}

/// The bytes of an empty store.
pub(super) fn first_commit(options: &RedbOptions) -> Result<Vec<u8>, StoreError> {
    let image = Image::default();
    let database = builder(options, false).create_with_backend(image.clone()).map_err(error::opening)?;
    let mut txn = database.begin_write().map_err(error::transaction)?;
    txn.set_two_phase_commit(true);
    txn.open_table(META).map_err(table)?.insert(FORMAT_KEY, FORMAT.to_be_bytes().as_slice()).map_err(error::storage)?;
    txn.open_table(RECORDS).map_err(table)?;
    txn.open_table(KEYS).map_err(table)?;
    txn.open_table(EXPIRY).map_err(table)?;
    txn.open_table(QUIET).map_err(table)?;
    txn.open_table(COUNTERS).map_err(table)?;
    txn.open_table(LEDGER).map_err(table)?;
    txn.open_table(LEDGER_EXPIRY).map_err(table)?;
    txn.commit().map_err(error::commit)?;
    database.close().map_err(error::opening)?;
    Ok(image.bytes())
}

impl Aside {
    /// Takes the name aside, and removes what a crash has left there.
    pub(super) fn take(store: &Path) -> Result<Self, StoreError> {
        let path = aside_of(store);
        for _ in 0..TRIES {
            match new_file(&path) {
                Ok(file) if lock(&file)? && still_there(&file, &path) => return Ok(Self { path, file }),
                // Somebody took it for stale between our two calls.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => remove_stale(&path)?,
                Err(error) => return Err(error::io(error)),
            }
        }
        Err(StoreError::AlreadyOpen)
    }

    /// The file, for a database that locks it on its own.
    pub(super) fn into_file(self) -> io::Result<File> {
        // Here a second lock on the same open file is the same lock; elsewhere it would be refused.
        if !cfg!(unix) {
            self.file.unlock()?;
        }
        Ok(self.file)
    }
}

impl Creation {
    pub(super) fn begin(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { target: path.to_owned(), aside: Aside::take(path)? })
    }

    /// Writes the whole store and makes it durable.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.aside.file.write_all(bytes)?;
        self.aside.file.sync_all()
    }

    /// Gives it its name, unless another store has it by now.
    pub(super) fn put_in_place(&self) -> io::Result<()> {
        match fs::hard_link(&self.aside.path, &self.target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            // A file system without links. Renaming would replace a store, so look first: the lock keeps others out.
            Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) => {
                if self.target.try_exists()? {
                    Ok(())
                } else {
                    fs::rename(&self.aside.path, &self.target)
                }
            }
            linked => linked,
        }
    }

    /// Gives up the name aside, and makes the names durable.
    pub(super) fn finish(self) -> io::Result<()> {
        match fs::remove_file(&self.aside.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sync_directory(&self.target),
        }
    }
}

/// Removes the file aside, unless somebody is at work on it.
fn remove_stale(aside: &Path) -> Result<(), StoreError> {
    let stale = match File::open(aside) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error::io(error)),
    };
    if !lock(&stale)? {
        return Err(StoreError::AlreadyOpen);
    }
    if still_there(&stale, aside) { fs::remove_file(aside).map_err(error::io) } else { Ok(()) }
}

fn new_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Locks the file, or says that somebody else has. A file system without locks counts as locked.
fn lock(file: &File) -> Result<bool, StoreError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(true),
        Err(TryLockError::Error(error)) => Err(error::io(error)),
    }
}

/// Whether `path` still names this file: it may have been removed between being opened and being locked.
#[cfg(unix)]
fn still_there(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    matches!((file.metadata().map(id), fs::metadata(path).map(id)), (Ok(ours), Ok(there)) if ours == there)
}

/// Elsewhere an open file keeps its name.
#[cfg(not(unix))]
fn still_there(_: &File, path: &Path) -> bool {
    path.exists()
}
