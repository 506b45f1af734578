//! The file of effects: what this node has done to the world, one line each, on disk before anybody is told.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Clones append to one file; without one what is appended goes nowhere.
#[derive(Clone, Default)]
pub(crate) struct Effects(Option<Arc<Mutex<File>>>);

impl Effects {
    /// The file, made if there is none, and the lines that are in it.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, String)> {
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
        let mut lines = Vec::new();
        file.read_to_end(&mut lines)?;
        if lines.last().is_some_and(|last| *last != b'\n') {
            // A crash tore the last line, and the next one must not continue it.
            file.write_all(b"\n")?;
        }
        let lines = String::from_utf8_lossy(&lines).into_owned();
        Ok((Self(Some(Arc::new(Mutex::new(file)))), lines))
    }

    /// Whether what is appended is there after a restart.
    pub(crate) fn are_kept(&self) -> bool {
        self.0.is_some()
    }

    /// One write, then a sync, both on the blocking pool. The line brings its own end.
    pub(crate) async fn append(&self, line: String) -> io::Result<()> {
        let Some(file) = self.0.clone() else { return Ok(()) };
        let append = move || {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.write_all(line.as_bytes()).and_then(|()| file.sync_data())
        };
        tokio::task::spawn_blocking(append).await.map_err(io::Error::other)?
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Two digits of any case to a byte.
pub(crate) fn from_hex(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}
