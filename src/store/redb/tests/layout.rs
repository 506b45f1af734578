//! Where things lie: what a commit must not spread over more pages than it needs.

use ::redb::ReadableTableMetadata;

use super::super::disk::SimulatedDisk;
use super::*;

fn places(store: &RedbStore) -> Vec<u64> {
    store
        .read(|txn| {
            let records = txn.open_table(RECORDS).map_err(table)?;
            Ok(ReadableTable::iter(&records).unwrap().map(|entry| entry.unwrap().0.value()).collect())
        })
        .unwrap()
}

#[test]
fn records_lie_in_order_of_arrival_and_a_finish_stays_where_its_registration_was() {
    let store = SimulatedDisk::new().unwrap().open(small()).unwrap();
    let records: Vec<_> = (1..=4).map(registered).collect();
    for (id, record) in (1..).zip(&records) {
        store.commit(&batch(1, vec![put(&key(1, 9 - id), None, record)])).unwrap();
    }
    assert_eq!(places(&store), [1, 2, 3, 4]);
    let finished = put(&key(1, 7), Some(&records[1]), &completed(&records[1], b"answer", 9));
    store.commit(&batch(1, vec![finished])).unwrap();
    assert_eq!(places(&store), [1, 2, 3, 4]);
    let gone = Change { key: key(1, 8), expected: Some(Version::of(&records[0])), put: None, rows: Vec::new() };
    store.commit(&batch(1, vec![gone, put(&key(1, 8), None, &records[0])])).unwrap();
    assert_eq!(places(&store), [2, 3, 4, 5], "made anew, it comes last");
    check_invariants(&store);
}

/// The entries of the index by tick.
fn quiet(store: &RedbStore) -> Vec<(u64, u64)> {
    store
        .read(|txn| {
            let index = txn.open_table(QUIET).map_err(table)?;
            Ok(ReadableTable::iter(&index).unwrap().map(|entry| entry.unwrap().0.value()).collect())
        })
        .unwrap()
}

#[test]
fn the_entry_of_a_tick_comes_moves_and_goes_with_its_record() {
    let store = SimulatedDisk::new().unwrap().open(small()).unwrap();
    let done = |revision, lapses_at_tick| Record { revision, lapses_at_tick, ..completed(&registered(1), b"", 9) };
    let tombstone = State::Tombstone(crate::record::Mark::Expired);
    let steps = [
        (Record { lapses_at_tick: Some(2), ..registered(1) }, vec![], "in flight, no tick counts"),
        (done(2, None), vec![], "completed, without one"),
        (done(3, Some(7)), vec![(7, 1)], "with one"),
        (done(4, Some(7)), vec![(7, 1)], "with the same"),
        (done(5, Some(3)), vec![(3, 1)], "with an earlier one"),
        (done(6, Some(u64::MAX)), vec![(u64::MAX, 1)], "with the last"),
        (Record { state: tombstone, ..done(7, Some(9)) }, vec![], "a tombstone"),
        (done(8, Some(4)), vec![(4, 1)], "completed again"),
    ];
    let mut before: Option<Record> = None;
    for (record, entries, what) in steps {
        store.commit(&batch(1, vec![put(&key(1, 1), before.as_ref(), &record)])).unwrap();
        assert_eq!(quiet(&store), entries, "{what}");
        check_invariants(&store);
        before = Some(record);
    }
    let gone = Change { key: key(1, 1), expected: before.as_ref().map(Version::of), put: None, rows: Vec::new() };
    store.commit(&batch(1, vec![gone])).unwrap();
    assert_eq!(quiet(&store), []);
}

#[test]
fn a_store_that_was_emptied_keeps_no_row_but_totals_clock_mark_and_generation() {
    let store = SimulatedDisk::new().unwrap().open(small()).unwrap();
    let record = registered(1);
    let keys: Vec<_> = (1..=3).map(|scope| key(scope, 1)).collect();
    store.commit(&batch(1, keys.iter().map(|key| put(key, None, &record)).collect())).unwrap();
    let remove =
        |key: &Key| Change { key: key.clone(), expected: Some(Version::of(&record)), put: None, rows: Vec::new() };
    store.commit(&batch(2, keys.iter().map(remove).collect())).unwrap();
    check_invariants(&store);
    store
        .read(|txn| {
            assert!(txn.open_table(RECORDS).map_err(table)?.is_empty().unwrap());
            assert_eq!(txn.open_table(COUNTERS).map_err(table)?.len().unwrap(), 3);
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_batch_that_changes_nothing_writes_nothing_and_a_rest_is_taken_once() {
    let disk = SimulatedDisk::new().unwrap();
    let store = disk.open(small()).unwrap();
    store.commit(&batch(5, vec![put(&key(1, 1), None, &registered(1))])).unwrap();
    let idle = |work: &dyn Fn()| {
        let before = disk.syncs();
        work();
        disk.syncs() == before
    };
    let fenced = || drop(store.commit(&batch(5, vec![put(&key(1, 1), None, &registered(2))])).unwrap());
    assert!(idle(&fenced), "everything is fenced, the clock stands still");
    assert!(idle(&|| drop(store.commit(&batch(4, vec![])).unwrap())), "the clock has stepped back");
    assert!(!idle(&|| drop(store.commit(&batch(6, vec![])).unwrap())), "the clock has moved");
    let tick = |tick| drop(store.commit(&Batch { tick, ..batch(6, vec![]) }).unwrap());
    assert!(!idle(&|| tick(2)), "a tick has come");
    assert!(idle(&|| tick(2)) && idle(&|| tick(1)), "no other tick has");
    assert!(!idle(&|| store.rest().unwrap()));
    assert!(idle(&|| store.rest().unwrap()), "nothing was committed since");
    let changes = (2..2 + QUICK_REPAIR_CHANGES as u8).map(|id| put(&key(1, id), None, &registered(id.into())));
    store.commit(&batch(6, changes.collect())).unwrap();
    assert!(idle(&|| store.rest().unwrap()), "a large batch leaves the next opening fast by itself");
}

#[test]
fn the_larger_the_file_the_larger_a_batch_that_leaves_the_next_opening_fast() {
    let mib = 1024 * 1024;
    for (changes, file_bytes, expected) in [
        (16, 0, true),
        (16, 128 * mib, true),
        (16, 136 * mib, false),
        (63, 512 * mib, false),
        (64, 512 * mib, true),
        (639, 5_120 * mib, false),
        (640, 5_120 * mib, true),
    ] {
        assert_eq!(is_worth_quick_repair(changes, file_bytes), expected, "{changes} changes, {file_bytes} bytes");
    }
}
