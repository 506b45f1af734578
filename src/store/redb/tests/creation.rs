//! Creation that stops after each of its steps, and two that create at once.

use std::fs;
use std::path::PathBuf;

use super::super::create::{Creation, aside_of, first_commit};
use super::*;

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ibid.redb");
    (directory, path)
}

/// The store opens, works, and leaves nothing but itself in its directory.
fn opens_and_works(path: &std::path::Path) {
    let store = RedbStore::open(path, small()).unwrap();
    store.commit(&batch(1, vec![put(&key(1, 1), None, &registered(1))])).unwrap();
    store.close().unwrap();
    let store = RedbStore::open(path, small()).unwrap();
    assert_eq!(check_invariants(&store).records.len(), 1);
    let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names, [path]);
}

#[test]
fn a_creation_that_stops_after_any_step_is_taken_up_by_the_next_opening() {
    let bytes = first_commit(&small()).unwrap();
    for steps in 0..=4 {
        let (_directory, path) = place();
        let mut creation = Creation::begin(&path).unwrap();
        assert!(!path.exists(), "nothing has the name before it is complete");
        if steps >= 1 {
            creation.write(&bytes).unwrap();
            assert!(!path.exists(), "nothing has the name before it is durable");
        }
        if steps >= 2 {
            creation.put_in_place().unwrap();
        }
        if steps >= 3 {
            creation.finish().unwrap();
        } else {
            drop(creation);
            assert!(aside_of(&path).exists());
        }
        opens_and_works(&path);
    }
}

#[test]
fn a_file_aside_that_is_cut_anywhere_is_replaced() {
    let bytes = first_commit(&small()).unwrap();
    for len in [0, 1, 9, 64, 320, 4_096, bytes.len() / 2, bytes.len() - 1] {
        let (_directory, path) = place();
        fs::write(aside_of(&path), &bytes[..len]).unwrap();
        opens_and_works(&path);
    }
}

#[test]
fn two_that_create_at_once_end_with_one_store() {
    let bytes = first_commit(&small()).unwrap();
    let (_directory, path) = place();
    let mut first = Creation::begin(&path).unwrap();
    assert!(matches!(Creation::begin(&path), Err(StoreError::AlreadyOpen)), "the name aside is taken");
    assert!(matches!(RedbStore::open(&path, small()), Err(StoreError::AlreadyOpen)));
    first.write(&bytes).unwrap();
    // Somebody without locks has been faster.
    RedbStore::open(path.with_extension("other"), small()).unwrap().close().unwrap();
    let other = RedbStore::open(path.with_extension("other"), small()).unwrap();
    other.commit(&batch(1, vec![put(&key(1, 1), None, &registered(1))])).unwrap();
    other.close().unwrap();
    fs::rename(path.with_extension("other"), &path).unwrap();
    first.put_in_place().unwrap();
    first.finish().unwrap();
    let store = RedbStore::open(&path, small()).unwrap();
    assert_eq!(check_invariants(&store).records.len(), 1, "the store that was there is still there");
}

#[test]
fn many_threads_that_open_a_new_path_get_one_store() {
    for _ in 0..20 {
        let (_directory, path) = place();
        let barrier = std::sync::Barrier::new(4);
        let opened: Vec<_> = std::thread::scope(|scope| {
            let open = || {
                barrier.wait();
                RedbStore::open(&path, small())
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for result in &opened {
            assert!(matches!(result, Ok(_) | Err(StoreError::AlreadyOpen)), "{result:?}");
        }
        assert!(opened.iter().filter(|result| result.is_ok()).count() <= 1);
        drop(opened);
        opens_and_works(&path);
    }
}
