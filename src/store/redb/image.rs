//! A file in memory: what a new store is built in, and what the tests cut, tear and let fail.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::redb::StorageBackend;

/// The bytes of a file. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Image(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    failing: bool,
}

impl Image {
    /// What the file holds.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    #[cfg(test)]
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State { bytes, failing: false })))
    }

    /// Whether writes, syncs and changes of length fail from here on.
    #[cfg(test)]
    pub(super) fn set_failing(&self, failing: bool) {
        self.lock().failing = failing;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writable(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.failing { Err(io::Error::other("the disk has failed")) } else { Ok(state) }
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({} bytes)", self.lock().bytes.len())
    }
}

impl StorageBackend for Image {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.lock();
        let place =
            span(offset, out.len()).and_then(|span| state.bytes.get(span)).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(place);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.writable()?.bytes.resize(usize::try_from(len).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.writable().map(|_| ())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.writable()?;
        let span = span(offset, data.len()).ok_or(io::ErrorKind::InvalidInput)?;
        if state.bytes.len() < span.end {
            state.bytes.resize(span.end, 0);
        }
        if let Some(place) = state.bytes.get_mut(span) {
            place.copy_from_slice(data);
        }
        Ok(())
    }
}

fn span(offset: u64, len: usize) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(offset).ok()?;
    Some(start..start.checked_add(len)?)
}
