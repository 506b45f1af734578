//! A fresh file after a failed sync.
//!
//! When a sync fails, Linux takes what it could not write for written: it still reads back, from memory, and is gone with
//! the power. So nothing that the file reads as is proof of what the disk holds, and no later sync of it makes up for
//! that. Everything is copied to a new file, which takes the old one's name:
//!
//! ```text
//! check the old file -> copy it to the file aside, in commits -> rename -> sync the directory -> give up the old file
//! ```
//! The old file is not written to. Both files are locked until the directory is durable, so nobody else ever opens
//! either; a crash on the way leaves the old file or the new one under the name, each whole, with the same content.
//!
//! What this cannot see: a sync that failed in a process that died before it could copy. Its successor finds a file that
//! reads well, until the power goes.

use std::mem::replace;

use ::redb::{
    Database, Key, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, Value, WriteTransaction,
};

use super::error::{self, shielded, storage, table};
use super::held::Held;
use super::ledger::if_there;
use super::open::{self, Opened, builder};
use super::place::{Lease, Place};
use super::tables::{COUNTERS, EXPIRY, IN_FLIGHT, KEYS, LEDGER, LEDGER_EXPIRY, META, QUIET, RECORDS};
use super::{IntegrityCheck, RedbOptions};
use crate::store::StoreError;

/// How much one commit copies, in rows and in bytes of rows: what is copied but not committed stands in memory.
const SLICE_ROWS: usize = 4_096;
const SLICE_BYTES: usize = 4 * 1024 * 1024;

/// Copies the file of `lease` to a new one in its place, and makes `lease` that of the new one.
///
/// On an error the old file is still there and leased, or the new one has its name and still needs to be copied: as if
/// nothing had been done.
pub(super) fn renew(place: &dyn Place, lease: &mut Lease, options: &RedbOptions) -> Result<Opened, StoreError> {
    if !place.names(lease).map_err(error::io)? {
        return Err(open::nameless());
    }
    let fresh = place.aside()?;
    let copied = copy(lease, &fresh, options);
    let placed = copied.and_then(|opened| place.put_in_place().map(|()| opened).map_err(error::io));
    let opened = match placed {
        Ok(opened) => opened,
        Err(reason) => {
            // A rename that reports an error may have been done.
            if place.names(&fresh).unwrap_or(false) {
                fresh.note_failed_sync();
                *lease = fresh;
            } else {
                drop(place.discard_aside());
            }
            return Err(reason);
        }
    };
    let old = replace(lease, fresh);
    // A power loss may still bring the old file back. Until it cannot, nothing may be acknowledged.
    place.sync_directory().map_err(|error| {
        lease.note_failed_sync();
        error::io(error)
    })?;
    drop(old);
    Ok(opened)
}

fn copy(old: &Lease, fresh: &Lease, options: &RedbOptions) -> Result<Opened, StoreError> {
    let options = options.clone().integrity_check(IntegrityCheck::Always);
    let (source, held) = open::open_held(old, &options)?;
    let copied = shielded(|| {
        let target = builder(&options, true).create_with_backend(Held::released(fresh.file()));
        let target = target.map_err(error::opening)?;
        copy_tables(&source.begin_read().map_err(error::transaction)?, &target)?;
        let contents = open::inspect(&target.begin_read().map_err(error::transaction)?)?;
        Ok(Opened { database: target, contents })
    });
    // What closing would write is for nobody.
    held.refuse();
    drop(shielded(|| source.close().map_err(error::opening)));
    copied
}

fn copy_tables(from: &ReadTransaction, to: &Database) -> Result<(), StoreError> {
    copy_table(from, to, META)?;
    copy_table(from, to, RECORDS)?;
    copy_table(from, to, KEYS)?;
    copy_table(from, to, EXPIRY)?;
    copy_table(from, to, QUIET)?;
    copy_table(from, to, IN_FLIGHT)?;
    copy_table(from, to, COUNTERS)?;
    copy_table(from, to, LEDGER)?;
    copy_table(from, to, LEDGER_EXPIRY)?;
    // So that the next opening is fast after a crash, too.
    let mut txn = begin(to)?;
    txn.set_quick_repair(true);
    txn.commit().map_err(error::commit)
}

/// Copies a table, if the file has it, slice by slice.
fn copy_table<K: Key, V: Value>(
    from: &ReadTransaction,
    to: &Database,
    definition: TableDefinition<'_, K, V>,
) -> Result<(), StoreError> {
    let Some(rows) = if_there(from, definition)? else { return Ok(()) };
    let mut rows = ReadableTable::iter(&rows).map_err(storage)?.peekable();
    loop {
        let txn = begin(to)?;
        {
            let mut table = txn.open_table(definition).map_err(table)?;
            let (mut count, mut bytes) = (0, 0);
            while count < SLICE_ROWS && bytes < SLICE_BYTES {
                let Some(row) = rows.next() else { break };
                let (key, value) = row.map_err(storage)?;
                count += 1;
                bytes += V::as_bytes(&value.value()).as_ref().len();
                table.insert(key.value(), value.value()).map_err(storage)?;
            }
        }
        txn.commit().map_err(error::commit)?;
        if rows.peek().is_none() {
            return Ok(());
        }
    }
}

fn begin(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut txn = database.begin_write().map_err(error::transaction)?;
    txn.set_two_phase_commit(true);
    Ok(txn)
}
