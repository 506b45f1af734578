//! The file of a store: who may open it, who may read it, and what is left when it is closed.

use std::fs;
use std::sync::Arc;

use ibid::UnixMillis;
use ibid::store::{Batch, RedbOptions, RedbStore, Store, StoreError};

fn open(path: &std::path::Path) -> Result<RedbStore, StoreError> {
    RedbStore::open(path, RedbOptions::default())
}

#[test]
fn a_second_opener_is_refused_until_the_first_closes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ibid.redb");
    let first = Arc::new(open(&path).unwrap());
    let stray = Arc::clone(&first);
    first.commit(&Batch { now: UnixMillis(7), ..Batch::default() }).unwrap();
    assert!(matches!(open(&path), Err(StoreError::AlreadyOpen)));
    first.close().unwrap();

    let second = open(&path).unwrap();
    assert_eq!(second.clock_mark().unwrap(), UnixMillis(7));
    assert!(matches!(stray.clock_mark(), Err(StoreError::Closed)), "a stray handle sees that it is closed");
    assert!(matches!(stray.reopen(), Err(StoreError::Closed)), "and cannot take the file back");
}

#[test]
fn a_dropped_store_gives_its_file_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ibid.redb");
    drop(open(&path).unwrap());
    open(&path).unwrap();
}

#[test]
fn a_reopened_store_holds_its_file_and_a_lost_one_is_not_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ibid.redb");
    let store = open(&path).unwrap();
    store.reopen().unwrap();
    assert!(matches!(open(&path), Err(StoreError::AlreadyOpen)));
    fs::rename(&path, directory.path().join("elsewhere")).unwrap();
    assert!(matches!(store.reopen(), Err(StoreError::Io(_))));
    assert!(!path.exists(), "an empty store in its place would run requests twice");
    fs::rename(directory.path().join("elsewhere"), &path).unwrap();
    store.reopen().unwrap();
    store.close().unwrap();
}

#[test]
fn a_missing_directory_and_a_directory_in_the_files_place_are_io_errors() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(open(&directory.path().join("missing").join("ibid.redb")), Err(StoreError::Io(_))));
    assert!(matches!(open(directory.path()), Err(StoreError::Io(_))));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing was created");
}

#[cfg(unix)]
#[test]
fn the_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ibid.redb");
    open(&path).unwrap().close().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[cfg(unix)]
#[test]
fn a_link_to_nowhere_is_an_error_and_stays_a_link() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ibid.redb");
    std::os::unix::fs::symlink(directory.path().join("nowhere"), &path).unwrap();
    assert!(matches!(open(&path), Err(StoreError::Io(_))));
    assert!(path.is_symlink());
}
