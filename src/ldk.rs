//! A Lightning node's own rows in ibid's file: LDK's key-value store over ledger rows.
//!
//! ```text
//! ChannelManager, ChainMonitor, ... --KVStoreSync--> KvStore --Engine::write_rows--> one ledger table
//! an operation --Completion::row(KvStore::row(..))--------------------------------->  (one file, one transaction)
//! ```
//!
//! So one file holds what the node knows and what ibid has promised. A row made by [`KvStore::row`] commits with the completion
//! that it is given to, or not at all. An old copy of the file holds old channel states, and must never be started from: see
//! [`Builder::at_least_generation`](crate::Builder::at_least_generation).
//!
//! Written for `lightning` 0.2.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;

use lightning::io;
use lightning::util::persist::{
    KVSTORE_NAMESPACE_KEY_ALPHABET, KVSTORE_NAMESPACE_KEY_MAX_LEN, KVStoreSync, MigratableKVStore,
};

use crate::{Bytes, Engine, Error, ErrorKind, InvalidRow, Row};

/// Stands between the names of an entry, and in none of them.
const SEPARATOR: char = '/';

/// Keys that are listed at a time.
const PAGE: usize = 1_024;

/// A [`KVStoreSync`] over one ledger table of an engine, and with it everything that LDK makes of one: a `Persist` for
/// channel monitors, a [`MigratableKVStore`].
///
/// An entry goes by three names: primary namespace, secondary namespace, key. Each holds up to 120 of the characters `a-z`,
/// `A-Z`, `0-9`, `_` and `-`. The key is never empty, and the secondary namespace is if the primary one is. (LDK) A value
/// holds 0 bytes to 16 MiB. LDK's `NetworkGraph` with the signed gossip of the whole network may grow beyond that: it can be had
/// again from peers, and belongs in a file of its own.
///
/// **Writes.** When `write` or `remove` returns, it is durable; before that nobody reads it. Writes of one entry happen in the
/// order in which they were called, as far as there is one. Those of different entries, from different threads, share commits
/// among themselves and with the engine's own, and wait for a large value among them. A `lazy` removal is one like any other.
///
/// **Blocking.** `write` and `remove` park the calling thread for a commit, a tokio worker and a thread that holds LDK's locks
/// included: none of that is needed for the commit. While the store fails they wait for the engine's five tries, a few
/// seconds. Never call them on the thread of a simulation of `ibid::testing`: that thread is the engine. `read` and `list` read
/// on the calling thread and wait for nothing.
///
/// **Errors** (the [kind](io::Error::kind) of LDK's `io::Error`; the message names what is below):
///
/// | kind | when |
/// |---|---|
/// | `NotFound` | `read` found nothing under these names. Nothing else is ever this kind |
/// | `InvalidInput` | names that LDK does not allow, or a value over the bound: nothing was done |
/// | `InvalidData` | what is stored there is damaged. It is [kept](ErrorKind::Quarantined), it is listed, and a write does not replace it |
/// | `NotConnected` | the engine is closed |
/// | `Other` | the store failed |
///
/// A `write` or `remove` that has failed with one of the last two **may have happened** all the same, and is not tried again. LDK's
/// `ChainMonitor` panics when a monitor cannot be written; the node then starts again from what is in the file.
///
/// The store keeps its engine open. Shut the [engine](Engine::shutdown) down after the node: what LDK writes later is refused.
#[derive(Clone, Debug)]
pub struct KvStore {
    engine: Engine,
    table: Arc<str>,
}

/// Why there can be no such entry. Nothing was read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidEntry {
    /// A name holds a character that is not among `a-z`, `A-Z`, `0-9`, `_` and `-`.
    Character,
    /// A name holds at most 120 characters; this one had the given number of bytes.
    NameLength(usize),
    /// The key is empty.
    NoKey,
    /// There is a secondary namespace, and the primary one is empty.
    NoPrimaryNamespace,
    /// It makes no row: its value holds more than 16 MiB.
    Row(InvalidRow),
}

impl KvStore {
    /// The entries of the ledger table with this name, 1 to 64 bytes. Give it a table of its own: a row that came there in
    /// another way makes its listings fail.
    ///
    /// # Errors
    /// [`InvalidRow::TableLength`].
    pub fn new(engine: &Engine, table: &str) -> Result<Self, InvalidRow> {
        let table: Arc<str> = table.into();
        // The bounds of a table's name are those of a row's.
        Row::removal(Arc::clone(&table), *b"any")?;
        Ok(Self { engine: engine.clone(), table })
    }

    /// The entry as a row, to give to a [`Completion`](crate::Completion::row), or with others to [`Engine::write_rows`]. It
    /// has no end and must get none: [`list`](KVStoreSync::list) would go on naming it.
    ///
    /// Two writes of one entry at the same time, one through the store and one as a row, happen in either order. Where that
    /// matters, a [guard](Row::guard) says what the row has to find.
    ///
    /// # Errors
    /// [`InvalidEntry`].
    pub fn row(&self, primary: &str, secondary: &str, key: &str, value: impl Into<Bytes>) -> Result<Row, InvalidEntry> {
        let key = row_key(primary, secondary, key)?;
        Row::new(Arc::clone(&self.table), key.into_bytes(), value).map_err(InvalidEntry::Row)
    }

    /// The removal of the entry, as a row: see [`row`](Self::row).
    ///
    /// # Errors
    /// [`InvalidEntry`].
    pub fn removal(&self, primary: &str, secondary: &str, key: &str) -> Result<Row, InvalidEntry> {
        let key = row_key(primary, secondary, key)?;
        Row::removal(Arc::clone(&self.table), key.into_bytes()).map_err(InvalidEntry::Row)
    }

    fn commit(&self, row: Row) -> Result<(), io::Error> {
        match self.engine.write_rows_blocking(vec![row]) {
            Ok(true) => Ok(()),
            Ok(false) => Err(io::Error::new(io::ErrorKind::Other, "a row without a guard was refused by one")),
            // What is damaged is found before anything is written.
            Err(error) if matches!(error.kind(), ErrorKind::Quarantined) => Err(unread(&error)),
            Err(error) => Err(io::Error::new(kind(&error), format!("it may have been written: {}", told(&error)))),
        }
    }

    /// The keys of all rows that begin with `prefix`, in their order. One that stands there all the while is among them.
    fn row_keys(&self, prefix: &[u8]) -> Result<Vec<Bytes>, io::Error> {
        let mut found: Vec<Bytes> = Vec::new();
        loop {
            // No row has the prefix itself as its key: there is a name behind it.
            let after = found.last().map_or(prefix, |last| last);
            let page = self.engine.ledger_keys(&self.table, Some(after), PAGE).map_err(|error| unread(&error))?;
            let (full, before) = (page.len() == PAGE, found.len());
            found.extend(page.into_iter().take_while(|key| key.starts_with(prefix)));
            if !full || found.len() < before + PAGE {
                return Ok(found);
            }
        }
    }
}

impl KVStoreSync for KvStore {
    fn read(&self, primary: &str, secondary: &str, key: &str) -> Result<Vec<u8>, io::Error> {
        let key = row_key(primary, secondary, key).map_err(refused)?;
        match self.engine.ledger_row(&self.table, key.as_bytes()) {
            Ok(Some(row)) => Ok(row.value.to_vec()),
            Ok(None) => Err(io::Error::new(io::ErrorKind::NotFound, "there is no such entry")),
            Err(error) => Err(unread(&error)),
        }
    }

    fn write(&self, primary: &str, secondary: &str, key: &str, buf: Vec<u8>) -> Result<(), io::Error> {
        self.commit(self.row(primary, secondary, key, buf).map_err(refused)?)
    }

    fn remove(&self, primary: &str, secondary: &str, key: &str, _lazy: bool) -> Result<(), io::Error> {
        self.commit(self.removal(primary, secondary, key).map_err(refused)?)
    }

    fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, io::Error> {
        let prefix = namespace(primary, secondary).map_err(refused)?;
        let keys = self.row_keys(prefix.as_bytes())?;
        keys.iter().map(|key| names(key).map(|(_, _, key)| key).ok_or_else(strange)).collect()
    }
}

impl MigratableKVStore for KvStore {
    fn list_all_keys(&self) -> Result<Vec<(String, String, String)>, io::Error> {
        self.row_keys(b"")?.iter().map(|key| names(key).ok_or_else(strange)).collect()
    }
}

/// The key of an entry's row: its three names, which take at most 362 bytes. No two entries have the same one, and those of a
/// namespace lie together.
fn row_key(primary: &str, secondary: &str, key: &str) -> Result<String, InvalidEntry> {
    if key.is_empty() {
        return Err(InvalidEntry::NoKey);
    }
    check_name(key)?;
    Ok(namespace(primary, secondary)? + key)
}

/// What the keys of a namespace's rows begin with, and no others.
fn namespace(primary: &str, secondary: &str) -> Result<String, InvalidEntry> {
    check_name(primary)?;
    check_name(secondary)?;
    if primary.is_empty() && !secondary.is_empty() {
        return Err(InvalidEntry::NoPrimaryNamespace);
    }
    Ok(format!("{primary}{SEPARATOR}{secondary}{SEPARATOR}"))
}

fn check_name(name: &str) -> Result<(), InvalidEntry> {
    if name.len() > KVSTORE_NAMESPACE_KEY_MAX_LEN {
        return Err(InvalidEntry::NameLength(name.len()));
    }
    if name.chars().all(|c| KVSTORE_NAMESPACE_KEY_ALPHABET.contains(c)) { Ok(()) } else { Err(InvalidEntry::Character) }
}

/// The three names of a row's key. `None`: it is no entry's.
fn names(row: &[u8]) -> Option<(String, String, String)> {
    let mut names = std::str::from_utf8(row).ok()?.split(SEPARATOR);
    let (primary, secondary, key) = (names.next()?, names.next()?, names.next()?);
    let is_entry = row_key(primary, secondary, key).is_ok_and(|made| made.as_bytes() == row);
    is_entry.then(|| (primary.into(), secondary.into(), key.into()))
}

fn refused(invalid: InvalidEntry) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, invalid.to_string())
}

fn unread(error: &Error) -> io::Error {
    io::Error::new(kind(error), told(error))
}

fn strange() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the table holds a row that is no entry")
}

/// Never `NotFound`: to LDK that means a node that starts anew.
fn kind(error: &Error) -> io::ErrorKind {
    match error.kind() {
        ErrorKind::Quarantined => io::ErrorKind::InvalidData,
        ErrorKind::Closed => io::ErrorKind::NotConnected,
        _ => io::ErrorKind::Other,
    }
}

/// The error with what is below it. As text: LDK's `io::Error` holds others only where its `bitcoin` is built with `std`.
fn told(error: &Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(below) = cause {
        text = format!("{text}: {below}");
        cause = below.source();
    }
    text
}

impl fmt::Display for InvalidEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Character => {
                f.write_str("a name holds letters, digits, _ and - of ASCII, and this one another character")
            }
            Self::NameLength(n) => {
                write!(f, "a name holds at most {KVSTORE_NAMESPACE_KEY_MAX_LEN} characters, not {n}")
            }
            Self::NoKey => f.write_str("the key is empty"),
            Self::NoPrimaryNamespace => f.write_str("a secondary namespace needs a primary one"),
            Self::Row(invalid) => invalid.fmt(f),
        }
    }
}

impl std::error::Error for InvalidEntry {}
