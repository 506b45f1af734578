//! redb's errors as ours, one function per kind. When in doubt an error says *unknown*, never *rolled back*.

use std::any::Any;
use std::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ::redb::{CommitError, DatabaseError, StorageError, TableError, TransactionError};

use crate::store::StoreError;

pub(super) fn io(error: impl Error + Send + Sync + 'static) -> StoreError {
    StoreError::Io(Arc::new(error))
}

pub(super) fn storage(error: StorageError) -> StoreError {
    match error {
        StorageError::DatabaseClosed => StoreError::Closed,
        StorageError::Corrupted(what) => StoreError::Corrupt(what),
        other => io(other),
    }
}

pub(super) fn table(error: TableError) -> StoreError {
    match error {
        TableError::Storage(error) => storage(error),
        other => StoreError::Corrupt(format!("its tables are not those of a store: {other}")),
    }
}

pub(super) fn transaction(error: TransactionError) -> StoreError {
    match error {
        TransactionError::Storage(error) => storage(error),
        other => io(other),
    }
}

/// Only a poisoned transaction was surely rolled back: after a failed sync the rows may well be there when the file is
/// opened again.
pub(super) fn commit(error: CommitError) -> StoreError {
    match error {
        CommitError::TransactionPoisoned => StoreError::RolledBack(Arc::new(error)),
        CommitError::Storage(error) => storage(error),
        other => io(other),
    }
}

pub(super) fn opening(error: DatabaseError) -> StoreError {
    let damaged = |what: &dyn std::fmt::Display| StoreError::Corrupt(format!("{what}; restore it from a backup"));
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => StoreError::AlreadyOpen,
        DatabaseError::Storage(StorageError::Corrupted(what)) => damaged(&what),
        // This is how redb says that it is somebody else's file, or that the file ends too early.
        DatabaseError::Storage(StorageError::Io(error))
            if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            damaged(&error)
        }
        DatabaseError::Storage(error) => storage(error),
        DatabaseError::UpgradeRequired(_) | DatabaseError::RepairAborted => damaged(&error),
        other => io(other),
    }
}

/// redb trusts its file, and panics on some that were damaged from outside. Such a panic ends here.
pub(super) fn shielded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(StoreError::Corrupt(format!("the database panicked: {}; restore it from a backup", message(&*panic))))
    })
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
