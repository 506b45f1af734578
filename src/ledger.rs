//! Rows of the host's own, written in the transaction that records a completion: the ledger and the record never part.

use std::fmt;
use std::sync::Arc;

use crate::bounds::{PAYLOAD_BYTES_CEILING, ROW_KEY_BYTES, TABLE_NAME_BYTES};
use crate::record::Bytes;
use crate::time::UnixMillis;

/// A row to write into a ledger table, or to remove from it, with what must hold for that.
///
/// Tables are named by their first use: 1 to 64 bytes. A key holds 1 to 512 bytes, a value up to 16 MiB.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    pub(crate) table: Arc<str>,
    pub(crate) key: Bytes,
    /// `None`: the row goes.
    pub(crate) value: Option<Bytes>,
    pub(crate) expires_at: Option<UnixMillis>,
    pub(crate) guard: Guard,
}

/// What must hold of the stored row, checked inside the transaction. If it does not, nothing of the completion is written.
/// A row reads as absent from its `expires_at` on, removed or not.
#[derive(Clone, PartialEq, Eq)]
pub enum Guard {
    /// Nothing: the row is replaced, or removed.
    Any,
    /// There is none.
    Absent,
    /// There is one, with exactly this value.
    Equals(Bytes),
}

/// A row as stored.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredRow {
    /// What the host wrote.
    pub value: Bytes,
    /// When the row is removed by itself; `None`: never.
    pub expires_at: Option<UnixMillis>,
}

/// A name, a key or a value outside its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidRow {
    /// A table's name holds 1 to 64 bytes; this one had the given number.
    TableLength(usize),
    /// A key holds 1 to 512 bytes; this one had the given number.
    KeyLength(usize),
    /// A value holds at most 16 MiB; this one had the given number of bytes.
    ValueLength(usize),
}

impl Row {
    /// A row without an end and without a guard.
    ///
    /// # Errors
    /// [`InvalidRow`].
    pub fn new(table: impl Into<Arc<str>>, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<Self, InvalidRow> {
        let (removal, value) = (Self::removal(table, key)?, value.into());
        if value.len() > PAYLOAD_BYTES_CEILING {
            return Err(InvalidRow::ValueLength(value.len()));
        }
        Ok(Self { value: Some(value), ..removal })
    }

    /// The removal of a row, with its end. Where there is no such row nothing happens, and that is no error. It has no guard; one that
    /// is [set](Self::guard) has to hold as for a write.
    ///
    /// # Errors
    /// [`InvalidRow`].
    pub fn removal(table: impl Into<Arc<str>>, key: impl Into<Bytes>) -> Result<Self, InvalidRow> {
        let (table, key) = (table.into(), key.into());
        if table.is_empty() || table.len() > TABLE_NAME_BYTES {
            return Err(InvalidRow::TableLength(table.len()));
        }
        if key.is_empty() || key.len() > ROW_KEY_BYTES {
            return Err(InvalidRow::KeyLength(key.len()));
        }
        Ok(Self { table, key, value: None, expires_at: None, guard: Guard::Any })
    }

    /// Its table.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Its value; `None`: it is a [removal](Self::removal).
    #[must_use]
    pub fn value(&self) -> Option<&Bytes> {
        self.value.as_ref()
    }

    /// When it expires by itself, if it does: see [`expires_at`](Self::expires_at).
    #[must_use]
    pub fn end(&self) -> Option<UnixMillis> {
        self.expires_at
    }

    /// What stands there once this is written.
    pub(crate) fn outcome(&self) -> Option<StoredRow> {
        let value = self.value.clone()?;
        Some(StoredRow { value, expires_at: self.expires_at })
    }

    /// What must hold of the stored row, see [`guard`](Self::guard).
    #[must_use]
    pub fn requires(&self) -> &Guard {
        &self.guard
    }

    /// The row's own end: it reads as absent from then on, and is removed some time after. It has nothing to do with the end of
    /// the record it was written with. To a removal it means nothing.
    #[must_use]
    pub fn expires_at(mut self, end: UnixMillis) -> Self {
        self.expires_at = Some(end);
        self
    }

    /// What must hold of the stored row.
    #[must_use]
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guard = guard;
        self
    }

    /// Roughly how many bytes it adds to a transaction.
    pub(crate) fn weight(&self) -> usize {
        100 + self.table.len() + self.key.len() + self.value.as_ref().map_or(0, |value| value.len())
    }
}

impl Guard {
    /// Whether it holds of what is stored, at `now`.
    #[must_use]
    pub fn holds(&self, stored: Option<&StoredRow>, now: UnixMillis) -> bool {
        let live = stored.filter(|row| row.expires_at.is_none_or(|end| now < end));
        match (self, live) {
            (Self::Any, _) | (Self::Absent, None) => true,
            (Self::Absent, Some(_)) | (Self::Equals(_), None) => false,
            (Self::Equals(value), Some(row)) => *value == row.value,
        }
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row")
            .field("table", &self.table)
            .field("key_bytes", &self.key.len())
            .field("value_bytes", &self.value.as_ref().map(|value| value.len()))
            .field("expires_at", &self.expires_at)
            .field("guard", &self.guard)
            .finish()
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "Any",
            Self::Absent => "Absent",
            Self::Equals(_) => "Equals(..)",
        })
    }
}

impl fmt::Debug for StoredRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredRow({} bytes, expires_at {:?})", self.value.len(), self.expires_at)
    }
}

impl fmt::Display for InvalidRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TableLength(n) => write!(f, "a table's name holds 1 to {TABLE_NAME_BYTES} bytes, not {n}"),
            Self::KeyLength(n) => write!(f, "a row's key holds 1 to {ROW_KEY_BYTES} bytes, not {n}"),
            Self::ValueLength(n) => write!(f, "a row's value holds up to {PAYLOAD_BYTES_CEILING} bytes, not {n}"),
        }
    }
}

impl std::error::Error for InvalidRow {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_past_its_end_reads_as_absent_to_every_guard() {
        let stored = StoredRow { value: (*b"v").into(), expires_at: Some(UnixMillis(10)) };
        let equals = Guard::Equals((*b"v").into());
        for (guard, absent, live, expired) in [
            (Guard::Any, true, true, true),
            (Guard::Absent, true, false, true),
            (equals, false, true, false),
            (Guard::Equals((*b"w").into()), false, false, false),
        ] {
            assert_eq!(guard.holds(None, UnixMillis(0)), absent, "{guard:?}");
            assert_eq!(guard.holds(Some(&stored), UnixMillis(9)), live, "{guard:?}");
            assert_eq!(guard.holds(Some(&stored), UnixMillis(10)), expired, "{guard:?}");
        }
    }

    #[test]
    fn what_is_outside_its_bounds_is_refused_by_name() {
        assert_eq!(Row::new("", *b"k", *b"v"), Err(InvalidRow::TableLength(0)));
        assert_eq!(Row::new("t".repeat(65), *b"k", *b"v"), Err(InvalidRow::TableLength(65)));
        assert_eq!(Row::new("t", *b"", *b"v"), Err(InvalidRow::KeyLength(0)));
        assert_eq!(Row::new("t", [0; 513], *b"v"), Err(InvalidRow::KeyLength(513)));
        let long = vec![0; PAYLOAD_BYTES_CEILING + 1];
        assert_eq!(Row::new("t", *b"k", long), Err(InvalidRow::ValueLength(PAYLOAD_BYTES_CEILING + 1)));
        assert!(Row::new("t".repeat(64), [0; 512], *b"").is_ok());
        assert_eq!(Row::removal("", *b"k"), Err(InvalidRow::TableLength(0)));
        assert_eq!(Row::removal("t", [0; 513]), Err(InvalidRow::KeyLength(513)));
        assert!(Row::removal("t".repeat(64), [0; 512]).is_ok());
    }

    #[test]
    fn a_removal_has_no_value_and_leaves_nothing_whatever_end_it_is_given() {
        let removal = Row::removal("t", *b"k").unwrap().expires_at(UnixMillis(7));
        assert_eq!((removal.value(), removal.outcome()), (None, None));
        let write = Row::new("t", *b"k", *b"").unwrap().expires_at(UnixMillis(7));
        assert_eq!(write.value(), Some(&(*b"").into()), "nothing and empty stay apart");
        let stored = StoredRow { value: (*b"").into(), expires_at: Some(UnixMillis(7)) };
        assert_eq!(write.outcome(), Some(stored));
    }
}
