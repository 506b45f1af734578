//! A store's file in a directory of the file system.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use ::redb::backends::FileBackend;

use super::create::{self, Aside, aside_of};
use super::place::{FileId, Lease, Place};
use super::{RedbOptions, error};
use crate::store::StoreError;

/// The path of a store.
pub(super) struct StoreFile(PathBuf);

impl StoreFile {
    /// A reopening must find the same file, also when the process has changed its directory by then. And where the path
    /// is a link, a fresh file must take the place of the file, not that of the link.
    pub(super) fn at(path: &Path) -> Result<Self, StoreError> {
        fs::canonicalize(path).or_else(|_| std::path::absolute(path)).map(Self).map_err(error::io)
    }

    /// Opens the file, and creates it if there is none.
    pub(super) fn open_or_create(&self, options: &RedbOptions) -> Result<Lease, StoreError> {
        // What a crash has left beside a store harms nobody, so failing to remove it does neither.
        drop(create::clear_stale(&self.0));
        if let Some(lease) = self.open()? {
            return Ok(lease);
        }
        create::create(&self.0, options)?;
        self.open()?.ok_or_else(|| error::io(io::Error::from(io::ErrorKind::NotFound)))
    }
}

impl Place for StoreFile {
    fn open(&self) -> Result<Option<Lease>, StoreError> {
        match OpenOptions::new().read(true).write(true).open(&self.0) {
            Ok(file) => lease(file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error::io(error)),
        }
    }

    fn names(&self, lease: &Lease) -> io::Result<bool> {
        match fs::metadata(&self.0) {
            Ok(metadata) => Ok(id_of(&metadata) == lease.id()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn aside(&self) -> Result<Lease, StoreError> {
        lease(Aside::take(&self.0)?.into_file().map_err(error::io)?)
    }

    fn put_in_place(&self) -> io::Result<()> {
        fs::rename(aside_of(&self.0), &self.0)
    }

    fn discard_aside(&self) -> io::Result<()> {
        fs::remove_file(aside_of(&self.0))
    }

    fn sync_directory(&self) -> io::Result<()> {
        sync_directory(&self.0)
    }
}

fn lease(file: File) -> Result<Lease, StoreError> {
    let id = id_of(&file.metadata().map_err(error::io)?);
    Ok(Lease::new(FileBackend::new(file).map_err(error::opening)?, id))
}

#[cfg(unix)]
fn id_of(metadata: &Metadata) -> FileId {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

/// Elsewhere an open file keeps its name.
#[cfg(not(unix))]
fn id_of(_: &Metadata) -> FileId {
    (0, 0)
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
