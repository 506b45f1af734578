//! The host's own rows, and the index of those that have an end.

use std::ops::Bound;

use ::redb::{
    AccessGuard, Key, ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, TableError, Value,
    WriteTransaction,
};

use super::error::{storage, table};
use super::tables::{LEDGER, LEDGER_EXPIRY};
use crate::ledger::StoredRow;
use crate::record::Bytes;
use crate::store::codec::{decode_ledger_row, encode_ledger_row};
use crate::store::decide::RowWrite;
use crate::store::{Change, ExpiredRow, StoreError, row_key};
use crate::time::UnixMillis;

/// The two tables in a transaction that writes, opened when a row is met: most transactions have none, and pay for each table
/// that they open.
pub(super) struct Ledger<'txn> {
    txn: &'txn WriteTransaction,
    tables: Option<Tables<'txn>>,
}

struct Tables<'txn> {
    rows: Table<'txn, &'static [u8], &'static [u8]>,
    expiry: Table<'txn, &'static [u8], ()>,
}

impl<'txn> Ledger<'txn> {
    pub(super) fn new(txn: &'txn WriteTransaction) -> Self {
        Self { txn, tables: None }
    }

    fn tables(&mut self) -> Result<&mut Tables<'txn>, StoreError> {
        let txn = self.txn;
        match &mut self.tables {
            Some(tables) => Ok(tables),
            none => Ok(none.insert(Tables {
                rows: txn.open_table(LEDGER).map_err(table)?,
                expiry: txn.open_table(LEDGER_EXPIRY).map_err(table)?,
            })),
        }
    }

    /// What stands where each row of the change goes.
    pub(super) fn find(&mut self, change: &Change) -> Result<Vec<Option<StoredRow>>, StoreError> {
        let mut found = Vec::with_capacity(change.rows.len());
        for row in &change.rows {
            found.push(get(&self.tables()?.rows, &row_key::join(&row.table, &row.key))?);
        }
        Ok(found)
    }

    pub(super) fn write(&mut self, key: &[u8], write: &RowWrite) -> Result<(), StoreError> {
        let Tables { rows, expiry } = self.tables()?;
        match &write.put {
            Some(row) => drop(rows.insert(key, encode_ledger_row(key, row)?.as_slice()).map_err(storage)?),
            None => drop(rows.remove(key).map_err(storage)?),
        }
        let end = write.put.as_ref().and_then(|row| row.expires_at);
        if write.old_end != end {
            if let Some(end) = write.old_end {
                expiry.remove(expiry_key(end, key).as_slice()).map_err(storage)?;
            }
            if let Some(end) = end {
                expiry.insert(expiry_key(end, key).as_slice(), ()).map_err(storage)?;
            }
        }
        Ok(())
    }

    /// Says whether there was anything to remove. A row that does not decode loses its entry and stays: it must not be
    /// taken for absent, nor stand at the head of the index for ever.
    pub(super) fn remove_expired(&mut self, expired: &ExpiredRow) -> Result<bool, StoreError> {
        let key = row_key::join(&expired.table, &expired.key);
        let Tables { rows, expiry } = self.tables()?;
        let due = match get(rows, &key) {
            Err(StoreError::Quarantined) => false,
            stored => stored?.is_some_and(|row| row.expires_at == Some(expired.expires_at)),
        };
        if due {
            rows.remove(key.as_slice()).map_err(storage)?;
        }
        let entry = expiry.remove(expiry_key(expired.expires_at, &key).as_slice()).map_err(storage)?;
        Ok(due || entry.is_some())
    }
}

pub(super) fn row(txn: &ReadTransaction, table: &str, key: &[u8]) -> Result<Option<StoredRow>, StoreError> {
    match if_there(txn, LEDGER)? {
        Some(rows) => get(&rows, &row_key::join(table, key)),
        None => Ok(None),
    }
}

pub(super) fn rows(
    txn: &ReadTransaction,
    table: &str,
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<(Bytes, StoredRow)>, StoreError> {
    let Some(rows) = if_there(txn, LEDGER)? else { return Ok(Vec::new()) };
    let decoded = entries(&rows, table, after)?.filter_map(|entry| match entry {
        Ok(Entry { key, joined, row }) => Some(Ok((key, decode_ledger_row(joined.value(), row.value()).ok()?))),
        Err(error) => Some(Err(error)),
    });
    decoded.take(limit).collect()
}

pub(super) fn row_keys(
    txn: &ReadTransaction,
    table: &str,
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Bytes>, StoreError> {
    let Some(rows) = if_there(txn, LEDGER)? else { return Ok(Vec::new()) };
    entries(&rows, table, after)?.take(limit).map(|entry| Ok(entry?.key)).collect()
}

/// A row as it stands in the file, not decoded yet.
struct Entry<'a> {
    key: Bytes,
    /// Its key, and what all keys of its table begin with.
    joined: AccessGuard<'a, &'static [u8]>,
    row: AccessGuard<'a, &'static [u8]>,
}

/// What the table holds behind `after`, in the order of the keys.
fn entries<'a>(
    rows: &'a ReadOnlyTable<&'static [u8], &'static [u8]>,
    table: &str,
    after: Option<&[u8]>,
) -> Result<impl Iterator<Item = Result<Entry<'a>, StoreError>> + use<'a>, StoreError> {
    let prefix = row_key::join(table, &[]);
    // No row has an empty key, so what begins behind none begins with the first.
    let start = row_key::join(table, after.unwrap_or_default());
    let range = (Bound::Excluded(start.as_slice()), Bound::Unbounded);
    let range = ReadableTable::range::<&[u8]>(rows, range).map_err(storage)?;
    Ok(range.map_while(move |entry| match entry {
        Ok((joined, row)) => {
            let key = joined.value().strip_prefix(prefix.as_slice())?.into();
            Some(Ok(Entry { key, joined, row }))
        }
        Err(error) => Some(Err(storage(error))),
    }))
}

/// An entry that does not decode is left out, and stays.
pub(super) fn expired_rows(
    txn: &ReadTransaction,
    now: UnixMillis,
    limit: usize,
) -> Result<Vec<ExpiredRow>, StoreError> {
    let mut due = Vec::new();
    let Some(expiry) = if_there(txn, LEDGER_EXPIRY)? else { return Ok(due) };
    for entry in ReadableTable::iter(&expiry).map_err(storage)? {
        if due.len() >= limit {
            break;
        }
        let entry = entry.map_err(storage)?.0;
        let Some((end, key)) = entry.value().split_first_chunk() else { continue };
        let end = UnixMillis(u64::from_be_bytes(*end));
        if end > now {
            break;
        }
        due.extend(ExpiredRow::at(end, key));
    }
    Ok(due)
}

/// A table that the file need not have: those of the ledger are younger than the format.
pub(super) fn if_there<K: Key, V: Value>(
    txn: &ReadTransaction,
    definition: TableDefinition<'_, K, V>,
) -> Result<Option<ReadOnlyTable<K, V>>, StoreError> {
    match txn.open_table(definition) {
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        opened => opened.map(Some).map_err(table),
    }
}

fn get(rows: &impl ReadableTable<&'static [u8], &'static [u8]>, key: &[u8]) -> Result<Option<StoredRow>, StoreError> {
    rows.get(key).map_err(storage)?.map(|row| decode_ledger_row(key, row.value())).transpose()
}

/// Big-endian, so that the order of the bytes is that of time.
pub(super) fn expiry_key(end: UnixMillis, key: &[u8]) -> Vec<u8> {
    [end.0.to_be_bytes().as_slice(), key].concat()
}
