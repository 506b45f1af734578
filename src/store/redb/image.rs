//! A file in memory, in which a new store is built.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::redb::StorageBackend;

/// The bytes of a file. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Image(Arc<Mutex<Vec<u8>>>);

impl Image {
    /// What the file holds.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({} bytes)", self.lock().len())
    }
}

impl StorageBackend for Image {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        read(&self.lock(), offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        set_len(&mut self.lock(), len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        write(&mut self.lock(), offset, data)
    }
}

pub(super) fn read(file: &[u8], offset: u64, out: &mut [u8]) -> io::Result<()> {
    let place = span(offset, out.len()).and_then(|span| file.get(span)).ok_or(io::ErrorKind::UnexpectedEof)?;
    out.copy_from_slice(place);
    Ok(())
}

pub(super) fn set_len(file: &mut Vec<u8>, len: u64) -> io::Result<()> {
    file.resize(usize::try_from(len).map_err(io::Error::other)?, 0);
    Ok(())
}

/// Writes as a file does: what lies behind the end makes it grow.
pub(super) fn write(file: &mut Vec<u8>, offset: u64, data: &[u8]) -> io::Result<()> {
    let span = span(offset, data.len()).ok_or(io::ErrorKind::InvalidInput)?;
    if file.len() < span.end {
        file.resize(span.end, 0);
    }
    if let Some(place) = file.get_mut(span) {
        place.copy_from_slice(data);
    }
    Ok(())
}

fn span(offset: u64, len: usize) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(offset).ok()?;
    Some(start..start.checked_add(len)?)
}
