//! The journal of refunds: what has gone out, one line each, on disk before anybody is told. It is what the oracle reads.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ibid::Token;

/// Clones share one file. A line is `TOKEN n`: the attempt's token in hex, the number of the refund.
#[derive(Clone)]
pub(crate) struct Journal(Arc<Shared>);

struct Shared {
    file: Mutex<File>,
    /// What stands in whole lines.
    known: Mutex<HashMap<Token, u64>>,
}

impl Journal {
    /// Made if there is none.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
        let mut lines = Vec::new();
        file.read_to_end(&mut lines)?;
        let whole = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        if whole < lines.len() {
            // A crash tore the last line, and the next one must not continue it.
            file.write_all(b"\n")?;
            file.sync_data()?;
        }
        let known = String::from_utf8_lossy(&lines[..whole]).lines().filter_map(entry).collect();
        Ok(Self(Arc::new(Shared { file: Mutex::new(file), known: Mutex::new(known) })))
    }

    /// One write, then a sync, on the blocking pool.
    pub(crate) async fn append(&self, token: Token, n: u64) -> io::Result<()> {
        let shared = Arc::clone(&self.0);
        let append = move || {
            let line = format!("{} {n}\n", hex(&token.0));
            let mut file = shared.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.write_all(line.as_bytes())?;
            file.sync_data()?;
            shared.known().insert(token, n);
            Ok(())
        };
        tokio::task::spawn_blocking(append).await.map_err(io::Error::other)?
    }

    /// The number of the refund that went out under this token. `None` proves nothing: it may be about to go out.
    pub(crate) fn find(&self, token: Token) -> Option<u64> {
        self.0.known().get(&token).copied()
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, HashMap<Token, u64>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry(line: &str) -> Option<(Token, u64)> {
    let (token, n) = line.split_once(' ')?;
    Some((Token(from_hex(token)?), n.parse().ok()?))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(digits: &str) -> Option<[u8; 32]> {
    let is_hex = digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let byte = |at| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = if is_hex { (0..64).step_by(2).map(byte).collect() } else { None };
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_appended_is_found_also_at_the_next_opening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.redb.journal");
        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.find(Token([7; 32])), None);
        journal.append(Token([7; 32]), 3).await.unwrap();
        assert_eq!(journal.find(Token([7; 32])), Some(3));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{} 3\n", "07".repeat(32)));
        drop(journal);
        let journal = Journal::open(&path).unwrap();
        assert_eq!((journal.find(Token([7; 32])), journal.find(Token([8; 32]))), (Some(3), None));
    }

    #[tokio::test]
    async fn a_torn_line_says_nothing_and_spoils_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.redb.journal");
        // Torn in the middle of 12, it would read as refund 1.
        let torn = format!("{} 4\n{} 1", "07".repeat(32), "08".repeat(32));
        std::fs::write(&path, torn).unwrap();
        let journal = Journal::open(&path).unwrap();
        assert_eq!((journal.find(Token([7; 32])), journal.find(Token([8; 32]))), (Some(4), None));
        journal.append(Token([9; 32]), 5).await.unwrap();
        let journal = Journal::open(&path).unwrap();
        assert_eq!((journal.find(Token([7; 32])), journal.find(Token([9; 32]))), (Some(4), Some(5)));
    }
}
