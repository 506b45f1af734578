//! Where things lie: what a commit must not spread over more pages than it needs.

use ::redb::ReadableTableMetadata;

use super::super::disk::SimulatedDisk;
use super::*;

/// The places in `records`, and of what is in flight, as they lie.
fn places(store: &RedbStore) -> (Vec<u64>, Vec<u64>) {
    store
        .read(|txn| {
            let records = txn.open_table(RECORDS).map_err(table)?;
            let ended = ReadableTable::iter(&records).unwrap().map(|entry| entry.unwrap().0.value()).collect();
            let counters = txn.open_table(COUNTERS).map_err(table)?;
            let in_flight = in_flight_rows(&counters, None)?.map(|entry| entry.unwrap().0).collect();
            Ok((ended, in_flight))
        })
        .unwrap()
}

#[test]
fn a_change_that_says_where_its_record_was_listed_needs_no_index() {
    let store = SimulatedDisk::new().unwrap().open(small()).unwrap();
    let records: Vec<_> = (1..=3).map(registered).collect();
    let next: Vec<_> = records.iter().map(|record| Record { revision: 2, ..record.clone() }).collect();
    let first = (1..).zip(&records).map(|(id, record)| put(&key(1, id), None, record)).collect();
    store.commit(&batch(1, first)).unwrap();
    let places: Vec<_> = store.in_flight(None, 9).unwrap().iter().map(|entry| entry.cursor).collect();
    let change = |n: usize, listed_at| Change { listed_at, ..put(&key(1, n as u8 + 1), Some(&records[n]), &next[n]) };
    let verdicts = store.commit(&batch(1, vec![change(0, Some(places[1])), change(1, Some(Cursor(9)))])).unwrap();
    assert_eq!(verdicts, [Verdict::Applied; 2], "a wrong place is not believed");
    tamper(&store, |txn| {
        txn.open_table(KEYS).unwrap().remove(&hash_of(&key(1, 3))).unwrap();
    });
    assert_eq!(store.commit(&batch(1, vec![change(2, None)])).unwrap(), [Verdict::Fenced], "the index has it no more");
    assert_eq!(store.commit(&batch(1, vec![change(2, Some(places[2]))])).unwrap(), [Verdict::Applied]);
}

#[test]
fn what_has_ended_lies_in_order_of_arrival_and_what_is_in_flight_lies_apart() {
    let store = SimulatedDisk::new().unwrap().open(small()).unwrap();
    let records: Vec<_> = (1..=4).map(registered).collect();
    for (id, record) in (1..).zip(&records) {
        store.commit(&batch(1, vec![put(&key(1, 9 - id), None, record)])).unwrap();
    }
    assert_eq!(places(&store), (vec![], vec![1, 2, 3, 4]));
    for number in [3, 2] {
        let record = &records[number - 1];
        let finished = put(&key(1, 9 - number as u8), Some(record), &completed(record, b"answer", 9));
        store.commit(&batch(1, vec![finished])).unwrap();
    }
    assert_eq!(places(&store), (vec![2, 3], vec![1, 4]));
    store.commit(&batch(1, vec![gone(&key(1, 8), &records[0]), put(&key(1, 8), None, &records[0])])).unwrap();
    assert_eq!(places(&store), (vec![2, 3], vec![4, 5]), "made anew, it comes last");
    check_invariants(&store);
}

#[test]
fn a_later_change_of_a_batch_finds_the_record_where_an_earlier_one_has_put_it() {
    let first = registered(1);
    let done = completed(&first, b"answer", 9);
    let again = Record { revision: 3, lapses_at: None, state: State::InDoubt, ..done.clone() };
    let done_again = Record { lapses_at: Some(UnixMillis(7)), ..completed(&again, b"answer", 9) };
    let key = key(1, 1);
    let steps = [
        put(&key, None, &first),
        put(&key, Some(&first), &done),
        put(&key, Some(&done), &again),
        put(&key, Some(&again), &done_again),
        gone(&key, &done_again),
    ];
    // In one batch, and cut in two anywhere.
    for (cut, end) in (1..=steps.len()).flat_map(|end| (0..=end).map(move |cut| (cut, end))) {
        let store = SimulatedDisk::new().unwrap().open(small()).unwrap();
        for part in [&steps[..cut], &steps[cut..end]] {
            let verdicts = store.commit(&batch(1, part.to_vec())).unwrap();
            assert_eq!(verdicts, vec![Verdict::Applied; part.len()]);
        }
        let left = steps[end - 1].put.as_deref().cloned();
        assert_eq!(store.get(&key).unwrap(), left, "cut at {cut}, {end} steps");
        assert_eq!(check_invariants(&store).records.into_values().next(), left);
    }
}

#[test]
fn no_place_is_given_out_twice_whichever_record_has_the_last_one() {
    // After the reopening: what is stored, by its places.
    for ended in [vec![], vec![1], vec![2], vec![3], vec![1, 3], vec![1, 2, 3]] {
        let store = SimulatedDisk::new().unwrap().open(small()).unwrap();
        let records: Vec<_> = (1..=3).map(registered).collect();
        let register = (1..).zip(&records).map(|(id, record)| put(&key(1, id), None, record));
        store.commit(&batch(1, register.collect())).unwrap();
        let finish = |id: &u8| {
            let record = &records[usize::from(*id) - 1];
            put(&key(1, *id), Some(record), &completed(record, b"answer", 9))
        };
        store.commit(&batch(1, ended.iter().map(finish).collect())).unwrap();
        store.reopen().unwrap();
        store.commit(&batch(1, vec![put(&key(1, 4), None, &registered(4))])).unwrap();
        let (_, in_flight) = places(&store);
        assert_eq!(in_flight.last(), Some(&4), "{ended:?}");
        assert_eq!(check_invariants(&store).records.len(), 4);
    }
}

#[test]
fn a_long_row_in_flight_is_not_among_what_every_commit_writes_whenever_it_grows() {
    let store = SimulatedDisk::new().unwrap().open(small()).unwrap();
    let bytes = |store: &RedbStore| {
        let stats = store.read(|txn| Ok(txn.open_table(COUNTERS).map_err(table)?.stats().unwrap())).unwrap();
        (stats.leaf_pages(), stats.stored_bytes())
    };
    let with = |record: &Record, length: usize| Record {
        revision: record.revision + 1,
        checkpoint: Some(vec![1; length].as_slice().into()),
        ..record.clone()
    };
    let first = Record { request: vec![1; 60_000].as_slice().into(), ..registered(1) };
    let others: Vec<_> = (2..=4).map(registered).collect();
    store.commit(&batch(1, vec![put(&key(1, 1), None, &first)])).unwrap();
    assert_eq!(places(&store), (vec![1], vec![1]), "it arrives long");
    let arrive = (2..).zip(&others).map(|(id, record)| put(&key(1, id), None, record));
    store.commit(&batch(1, arrive.collect())).unwrap();
    assert_eq!(places(&store), (vec![1], vec![1, 2, 3, 4]));
    let short = bytes(&store);
    assert_eq!(short.0, 1, "all that a commit writes is on one page");

    let mut record = others[1].clone();
    for (length, (in_records, in_counters)) in [
        (60_000, (vec![1, 3], vec![1, 2, 3, 4])),
        (5_000, (vec![1, 3], vec![1, 2, 3, 4])),
        (10, (vec![1], vec![1, 2, 3, 4])),
        (8_000, (vec![1, 3], vec![1, 2, 3, 4])),
    ] {
        let next = with(&record, length);
        store.commit(&batch(2, vec![put(&key(1, 3), Some(&record), &next)])).unwrap();
        record = next;
        assert_eq!(places(&store), (in_records, in_counters), "{length} bytes");
        assert_eq!((bytes(&store).0, bytes(&store).1 <= short.1 + 20), (1, true), "{length} bytes");
        assert_eq!(store.get(&key(1, 3)).unwrap().as_ref(), Some(&record));
        let listed: Vec<_> =
            store.in_flight(None, 9).unwrap().into_iter().map(|entry| entry.found.unwrap().1).collect();
        assert_eq!(listed, [first.clone(), others[0].clone(), record.clone(), others[2].clone()]);
        check_invariants(&store);
        store.verify().unwrap();
    }
    let done = |record: &Record| Record { revision: record.revision + 1, ..completed(record, b"answer", 9) };
    store.commit(&batch(3, vec![put(&key(1, 3), Some(&record), &done(&record)), gone(&key(1, 1), &first)])).unwrap();
    assert_eq!(places(&store), (vec![3], vec![2, 4]), "one has ended, one is gone");
    assert_eq!(store.get(&key(1, 3)).unwrap(), Some(done(&record)));
    assert_eq!(store.get(&key(1, 1)).unwrap(), None);
    check_invariants(&store);
    store.verify().unwrap();
}

#[test]
fn records_fill_their_pages_whatever_order_those_of_a_batch_end_in() {
    let store = SimulatedDisk::new().unwrap().open(small()).unwrap();
    let key = |n: u64| Key::new("flow", b"scope", &n.to_be_bytes()).unwrap();
    let many = |now, changes| Batch { records_per_scope: 1_000_000, ..batch(now, changes) };
    for first in (0..5_000).step_by(100) {
        store.commit(&many(1, (first..first + 100).map(|n| put(&key(n), None, &registered(n))).collect())).unwrap();
        let finish = |n: u64| {
            let n = first + n * 37 % 100;
            put(&key(n), Some(&registered(n)), &completed(&registered(n), &[7; 32], 9))
        };
        store.commit(&many(1, (0..100).map(finish).collect())).unwrap();
    }
    store
        .read(|txn| {
            let stats = txn.open_table(RECORDS).map_err(table)?.stats().map_err(storage)?;
            let fill = stats.stored_bytes() as f64 / (stats.leaf_pages() * 4_096) as f64;
            assert!(fill > 0.85, "full to {fill:.2}");
            Ok(())
        })
        .unwrap();
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
    store.commit(&batch(1, vec![gone(&key(1, 1), &before.unwrap())])).unwrap();
    assert_eq!(quiet(&store), []);
}

#[test]
fn a_store_that_was_emptied_keeps_no_row_but_totals_clock_mark_and_generation() {
    let store = SimulatedDisk::new().unwrap().open(small()).unwrap();
    let record = registered(1);
    let keys: Vec<_> = (1..=3).map(|scope| key(scope, 1)).collect();
    store.commit(&batch(1, keys.iter().map(|key| put(key, None, &record)).collect())).unwrap();
    store.commit(&batch(2, keys.iter().map(|key| gone(key, &record)).collect())).unwrap();
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

#[test]
fn behind_the_last_place_there_is_none_and_no_record_takes_anothers() {
    let disk = SimulatedDisk::new().unwrap();
    let store = disk.open(small()).unwrap();
    store.commit(&batch(1, vec![put(&key(1, 1), None, &registered(1))])).unwrap();
    tamper(&store, |txn| {
        let mut counters = txn.open_table(COUNTERS).unwrap();
        let row = counters.remove(in_flight_name(1).as_slice()).unwrap().unwrap().value().to_vec();
        counters.insert(in_flight_name(u64::MAX).as_slice(), row.as_slice()).unwrap();
        txn.open_table(KEYS).unwrap().insert(&hash_of(&key(1, 1)), u64::MAX).unwrap();
    });
    store.verify().unwrap();
    store.reopen().unwrap();
    let new = batch(1, vec![put(&key(1, 2), None, &registered(2))]);
    assert!(matches!(store.commit(&new), Err(StoreError::Corrupt(_))), "nothing new is taken in");
    assert_eq!(store.get(&key(1, 1)).unwrap(), Some(registered(1)));
    let done = completed(&registered(1), b"answer", 9);
    store.commit(&batch(1, vec![put(&key(1, 1), Some(&registered(1)), &done)])).unwrap();
    assert_eq!(check_invariants(&store).records.into_values().collect::<Vec<_>>(), [done]);
}

#[test]
fn rows_that_cross_the_length_of_a_long_one_are_where_they_belong() {
    let lengths: Vec<_> = (0..40).map(|n: usize| [1_023, 1_026, 1_024, 1_025, 1_022, 5_000, 10][n * 3 % 7]).collect();
    let with = |before: &Record, length: usize| {
        let of = |bytes: usize| Record {
            revision: before.revision + 1,
            checkpoint: Some(vec![7; bytes].as_slice().into()),
            ..before.clone()
        };
        // So many bytes in the row itself.
        let bytes = (0..=length).rev().find(|bytes| encode_row(&key(1, 1), &of(*bytes)).unwrap().len() <= length);
        of(bytes.unwrap_or_default())
    };
    for per_batch in [1, 2, 3, 5, 40] {
        let store = SimulatedDisk::new().unwrap().open(small()).unwrap();
        let mut record = registered(1);
        store.commit(&batch(1, vec![put(&key(1, 1), None, &record)])).unwrap();
        for (number, lengths) in lengths.chunks(per_batch).enumerate() {
            let mut changes = Vec::new();
            for length in lengths {
                let next = with(&record, *length);
                let listed_at = (length % 2 == 0).then_some(Cursor(1));
                changes.push(Change { listed_at, ..put(&key(1, 1), Some(&record), &next) });
                record = next;
            }
            let verdicts = vec![Verdict::Applied; changes.len()];
            assert_eq!(store.commit(&batch(1, changes)).unwrap(), verdicts);
            if number % 3 == 0 {
                store.reopen().unwrap();
            }
            assert_eq!(check_invariants(&store).records[&key(1, 1)], record);
            assert_eq!(store.in_flight(None, 9).unwrap()[0].found, Some((key(1, 1), record.clone())));
        }
        let done = completed(&record, b"", 1);
        let again = registered(2);
        let last = vec![put(&key(1, 1), Some(&record), &done), gone(&key(1, 1), &done), put(&key(1, 1), None, &again)];
        store.commit(&batch(1, last)).unwrap();
        assert_eq!(check_invariants(&store).records[&key(1, 1)], again);
    }
}
