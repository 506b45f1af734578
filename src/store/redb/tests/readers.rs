//! Readers: beside the writer, and when the file is closed under them.

use std::sync::atomic::{AtomicBool, Ordering};

use super::super::disk::SimulatedDisk;
use super::*;

#[test]
fn a_snapshot_that_outlives_its_file_says_closed_or_being_reopened() {
    for close in [true, false] {
        let store = SimulatedDisk::new().unwrap().open(small()).unwrap();
        let done = |id| completed(&registered(u64::from(id)), b"answer", 9);
        let rows: Vec<_> = (0..200).map(|id| put(&key(1, id), None, &done(id))).collect();
        store.commit(&batch(1, rows)).unwrap();
        let result = store.read(|txn| {
            if close {
                store.close().unwrap()
            } else {
                store.reopen().unwrap()
            }
            let records = txn.open_table(RECORDS).map_err(table)?;
            (1..=200).try_for_each(|seq| row(&records, seq).map(|_| ()))
        });
        match result {
            Err(StoreError::Closed) => assert!(close),
            Err(StoreError::Io(_)) => assert!(!close),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn readers_beside_the_writer_see_whole_commits_until_the_store_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let store = RedbStore::open(directory.path().join("ibid.redb"), small()).unwrap();
    let closed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    // Before the read: a read that begins after the store was closed must say so.
                    let late = closed.load(Ordering::SeqCst);
                    // Every commit makes one record of each of the two states.
                    match store.totals() {
                        Ok(totals) => assert!(!late && totals.registered == totals.completed, "{totals:?}"),
                        Err(StoreError::Closed) => break,
                        Err(error) => panic!("{error:?}"),
                    }
                }
            });
        }
        for id in 0..100 {
            let (first, second) = (registered(1), registered(2));
            let changes =
                vec![put(&key(1, id), None, &first), put(&key(2, id), None, &completed(&second, b"answer", 1))];
            store.commit(&batch(u64::from(id), changes)).unwrap();
        }
        store.close().unwrap();
        closed.store(true, Ordering::SeqCst);
    });
}
