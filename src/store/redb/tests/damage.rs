//! Damage: what is stored for one key, and the file as a whole. Nothing of it may pass for an absent record.

use super::super::disk::SimulatedDisk;
use super::super::open::builder;
use super::*;

/// A store with three records of scope 1: two in flight, the last completed.
fn three_records() -> (SimulatedDisk, RedbStore) {
    let disk = SimulatedDisk::new().unwrap();
    let store = disk.open(small()).unwrap();
    let done = registered(3);
    let changes = vec![
        put(&key(1, 1), None, &registered(1)),
        put(&key(1, 2), None, &registered(2)),
        put(&key(1, 3), None, &done),
        put(&key(1, 3), Some(&done), &completed(&done, b"answer", 5)),
    ];
    store.commit(&batch(1, changes)).unwrap();
    (disk, store)
}

fn flip_a_bit(txn: &WriteTransaction, seq: u64) {
    let mut records = txn.open_table(RECORDS).unwrap();
    let mut counters = txn.open_table(COUNTERS).unwrap();
    let name = in_flight_name(seq);
    let flipped = |mut row: Vec<u8>| {
        row[20] ^= 1;
        row
    };
    let ended = records.get(seq).unwrap().map(|row| flipped(row.value().to_vec()));
    match ended {
        Some(row) => drop(records.insert(seq, row.as_slice()).unwrap()),
        None => {
            let row = flipped(counters.get(name.as_slice()).unwrap().unwrap().value().to_vec());
            counters.insert(name.as_slice(), row.as_slice()).unwrap();
        }
    }
}

/// The row of a record, wherever it is.
fn stored(store: &RedbStore, seq: u64) -> Option<Vec<u8>> {
    let read = store.read(|txn| {
        let ended = txn.open_table(RECORDS).unwrap().get(seq).unwrap().map(|row| row.value().to_vec());
        let counters = txn.open_table(COUNTERS).unwrap();
        let in_flight = counters.get(in_flight_name(seq).as_slice()).unwrap().map(|row| row.value().to_vec());
        assert!(ended.is_none() || in_flight.is_none(), "never in both");
        Ok(ended.or(in_flight))
    });
    read.unwrap()
}

fn quarantines(store: &RedbStore, key: &Key) {
    assert!(matches!(store.get(key), Err(StoreError::Quarantined)));
    let version = Some(Version::of(&registered(1)));
    for expected in [None, version] {
        for put in [None, Some(Arc::new(registered(9)))] {
            let change = Change::new(key.clone(), expected, put);
            assert_eq!(store.commit(&batch(2, vec![change])).unwrap(), [Verdict::Quarantined]);
        }
    }
    assert!(matches!(store.get(key), Err(StoreError::Quarantined)), "and it stays so");
}

#[test]
fn a_damaged_row_is_quarantined_and_the_others_are_not_touched() {
    let (_, store) = three_records();
    tamper(&store, |txn| flip_a_bit(txn, 1));
    quarantines(&store, &key(1, 1));
    assert_eq!(store.get(&key(1, 2)).unwrap(), Some(registered(2)));
    let entries = store.in_flight(None, 9).unwrap();
    let found: Vec<_> = entries.iter().map(|entry| entry.found.as_ref().map(|(key, _)| key.clone())).collect();
    assert_eq!(found, [None, Some(key(1, 2))], "listed as what it is, in its place");
    let verdicts = store
        .commit(&batch(3, vec![put(&key(1, 1), None, &registered(9)), put(&key(1, 4), None, &registered(4))]))
        .unwrap();
    assert_eq!(verdicts, [Verdict::Quarantined, Verdict::Applied]);
}

#[test]
#[cfg(feature = "testing")]
fn a_record_damaged_on_purpose_is_quarantined_also_after_a_restart_and_the_others_are_as_before() {
    let (disk, store) = three_records();
    let before: Vec<_> = (0..4).filter_map(|seq| Some((seq, stored(&store, seq)?))).collect();
    assert_eq!((before.len(), store.damage(&key(1, 9)).unwrap()), (3, false));
    assert!(store.damage(&key(1, 2)).unwrap());
    assert!(matches!(store.damage(&key(1, 2)), Err(StoreError::Quarantined)), "it is damaged already");
    let changed: Vec<_> = before.iter().filter(|(seq, row)| stored(&store, *seq).as_ref() != Some(row)).collect();
    let [(seq, row)] = changed[..] else { panic!("one row: {changed:?}") };
    assert_eq!(stored(&store, *seq), Some(vec![0xff; row.len()]), "as long as it was");
    store.close().unwrap();
    let store = disk.open(small()).unwrap();
    quarantines(&store, &key(1, 2));
    assert_eq!(store.get(&key(1, 1)).unwrap(), Some(registered(1)));
    assert_eq!(store.get(&key(1, 3)).unwrap(), Some(completed(&registered(3), b"answer", 5)));
    let verdicts = store.commit(&batch(3, vec![put(&key(1, 4), None, &registered(4))])).unwrap();
    assert_eq!(verdicts, [Verdict::Applied]);

    let row = stored(&store, 3).unwrap();
    assert!(store.damage(&key(1, 3)).unwrap(), "one that has ended");
    assert_eq!(stored(&store, 3), Some(vec![0xff; row.len()]));
    quarantines(&store, &key(1, 3));
}

#[test]
fn damaged_rows_at_the_head_of_the_indexes_by_time_and_by_tick_hold_nothing_up() {
    let (_, store) = three_records();
    let done = |token, tick| Record { lapses_at_tick: Some(tick), ..completed(&registered(token), b"", 6) };
    let changes = (4..).zip([1, 2]).map(|(id, tick)| put(&key(1, id), None, &done(u64::from(id), tick))).collect();
    store.commit(&batch(1, changes)).unwrap();
    let due = |now, tick| {
        let due = store.removable(UnixMillis(now), tick, 1).unwrap();
        due.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    tamper(&store, |txn| flip_a_bit(txn, 3));
    assert_eq!(due(9, 0), [key(1, 4)]);
    tamper(&store, |txn| flip_a_bit(txn, 4));
    assert_eq!(due(0, 9), [key(1, 5)]);
}

#[test]
fn a_key_that_points_at_another_keys_row_or_at_none_is_quarantined() {
    let (_, store) = three_records();
    let colliding = key(2, 2);
    tamper(&store, |txn| {
        txn.open_table(KEYS).unwrap().insert(&hash_of(&colliding), 1).unwrap();
        txn.open_table(KEYS).unwrap().insert(&hash_of(&key(2, 3)), 77).unwrap();
    });
    quarantines(&store, &colliding);
    quarantines(&store, &key(2, 3));
    assert_eq!(store.get(&key(1, 1)).unwrap(), Some(registered(1)));
}

/// A store with a row that has an end and is damaged, and a sound one that ends later. Returns the ledger key of the first.
fn damaged_ledger() -> (RedbStore, Vec<u8>) {
    let (_, store) = three_records();
    let ends = |key: &[u8], end| Row::new("hashes", key, *b"value").unwrap().expires_at(UnixMillis(end));
    let rows = vec![ends(b"bad", 5), ends(b"good", 6)];
    store.commit(&batch(1, vec![Change { rows, ..put(&key(2, 1), None, &registered(4)) }])).unwrap();
    let joined = row_key::join("hashes", b"bad");
    tamper(&store, |txn| {
        let mut ledger = txn.open_table(LEDGER).unwrap();
        let mut row = ledger.get(joined.as_slice()).unwrap().unwrap().value().to_vec();
        row[20] ^= 1;
        ledger.insert(joined.as_slice(), row.as_slice()).unwrap();
    });
    (store, joined)
}

#[test]
fn a_damaged_ledger_row_is_quarantined_whatever_is_asked_of_it_and_the_others_are_not_touched() {
    let (store, _) = damaged_ledger();
    assert!(matches!(store.row("hashes", b"bad"), Err(StoreError::Quarantined)));
    let listed = store.rows("hashes", None, 1).unwrap();
    assert_eq!(listed.iter().map(|(key, _)| &**key).collect::<Vec<_>>(), [b"good"], "the limit counts what is listed");
    let keys =
        |limit| store.row_keys("hashes", None, limit).unwrap().iter().map(|key| key.to_vec()).collect::<Vec<_>>();
    assert_eq!((keys(1), keys(9)), (vec![b"bad".to_vec()], vec![b"bad".to_vec(), b"good".to_vec()]), "keys stay known");
    let bad = |guard| Row::new("hashes", *b"bad", *b"new").unwrap().guard(guard);
    let fine = Row::new("hashes", *b"fine", *b"new").unwrap();
    for guard in [Guard::Any, Guard::Absent, Guard::Equals((*b"value").into())] {
        let removal = Row::removal("hashes", *b"bad").unwrap().guard(guard.clone());
        for row in [bad(guard), removal] {
            let rows = vec![fine.clone(), row];
            // Quarantined comes before fenced.
            for expected in [None, Some(Version::of(&registered(9)))] {
                let change = Change { expected, rows: rows.clone(), ..put(&key(2, 2), None, &registered(5)) };
                assert_eq!(store.commit(&batch(9, vec![change])).unwrap(), [Verdict::Quarantined]);
            }
        }
    }
    assert!(matches!(store.row("hashes", b"bad"), Err(StoreError::Quarantined)), "and it is still there");
    assert_eq!(store.get(&key(2, 2)).unwrap(), None, "nothing of the change was applied");
    assert_eq!(store.row("hashes", b"fine").unwrap(), None, "nothing of the change was applied");
    let change = Change { rows: vec![fine], ..put(&key(2, 2), None, &registered(5)) };
    assert_eq!(store.commit(&batch(9, vec![change])).unwrap(), [Verdict::Applied]);
}

#[test]
fn a_damaged_ledger_row_is_never_removed_and_holds_no_other_up() {
    let (store, joined) = damaged_ledger();
    let mut removed = Vec::new();
    // One at a time, so that the damaged one would be listed for ever.
    for _ in 0..3 {
        let expired_rows = store.expired_rows(UnixMillis(9), 1).unwrap();
        removed.extend(expired_rows.iter().map(|row| row.key.to_vec()));
        store.commit(&Batch { expired_rows, ..batch(1, vec![]) }).unwrap();
    }
    assert_eq!(removed, [b"bad".to_vec(), b"good".to_vec()]);
    assert!(matches!(store.row("hashes", b"bad"), Err(StoreError::Quarantined)), "it must not pass for absent");
    assert_eq!(store.row("hashes", b"good").unwrap(), None);
    store
        .read(|txn| {
            let left = if_there(txn, LEDGER)?.unwrap();
            let left: Vec<_> = left.iter().unwrap().map(|entry| entry.unwrap().0.value().to_vec()).collect();
            assert_eq!(left, std::slice::from_ref(&joined));
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_ledger_row_in_anothers_place_is_quarantined() {
    let (store, _) = damaged_ledger();
    tamper(&store, |txn| {
        let mut ledger = txn.open_table(LEDGER).unwrap();
        let row = ledger.get(row_key::join("hashes", b"good").as_slice()).unwrap().unwrap().value().to_vec();
        ledger.insert(row_key::join("hashes", b"misplaced").as_slice(), row.as_slice()).unwrap();
    });
    assert!(matches!(store.row("hashes", b"misplaced"), Err(StoreError::Quarantined)));
    assert!(store.row("hashes", b"good").unwrap().is_some());
}

#[test]
fn a_file_of_format_1_reads_as_it_is_and_becomes_one_of_format_3_with_the_first_commit_that_changes_anything() {
    let (disk, store) = three_records();
    tamper(&store, make_first_format);
    store.close().unwrap();
    let store = disk.open(small()).unwrap();
    assert_eq!(store.row("hashes", b"key").unwrap(), None);
    assert_eq!(store.rows("hashes", None, 9).unwrap(), vec![]);
    assert_eq!(store.expired_rows(UnixMillis(u64::MAX), 9).unwrap(), vec![]);
    assert_eq!(store.removable(UnixMillis(0), u64::MAX, 9).unwrap(), vec![]);
    assert_eq!(store.tick_mark().unwrap(), 0);
    check_invariants(&store);

    // Nothing of this writes anything that is new.
    store.commit(&batch(1, vec![put(&key(1, 1), None, &registered(9))])).unwrap();
    store.rest().unwrap();
    disk.fail_one_sync_after(0);
    store.commit(&batch(2, vec![])).unwrap_err();
    store.reopen().unwrap();
    assert_eq!(format_of(&store), 1, "the copy is one of the file as it is");

    let row = Row::new("hashes", *b"key", *b"value").unwrap().expires_at(UnixMillis(7)).guard(Guard::Absent);
    let record = Record { lapses_at_tick: Some(3), ..completed(&registered(4), b"answer", 9) };
    store.commit(&batch(2, vec![Change { rows: vec![row], ..put(&key(2, 1), None, &record) }])).unwrap();
    assert_eq!(format_of(&store), 3);
    store.reopen().unwrap();
    assert_eq!(check_invariants(&store).rows.len(), 1);
    assert_eq!(store.expired_rows(UnixMillis(7), 9).unwrap().len(), 1);
    assert_eq!(store.removable(UnixMillis(0), 3, 9).unwrap().len(), 1);
}

#[test]
fn whatever_a_commit_changes_makes_a_file_one_of_format_3() {
    let row = Row::new("hashes", *b"key", *b"value").unwrap();
    let (nothing, first) = (Vec::new(), registered(1));
    let removal = gone(&key(1, 1), &first);
    let only_rows = Change { rows: vec![row], ..Change::new(key(3, 3), None, None) };
    for batch in [
        batch(2, nothing.clone()),
        Batch { tick: 1, ..batch(1, nothing) },
        batch(1, vec![removal]),
        batch(1, vec![only_rows]),
    ] {
        let (disk, store) = three_records();
        tamper(&store, make_first_format);
        store.close().unwrap();
        let store = disk.open(small()).unwrap();
        store.commit(&batch).unwrap();
        assert_eq!(format_of(&store), 3, "{batch:?}");
    }
}

#[test]
fn a_file_that_lacks_a_table_of_its_format_is_refused() {
    let tampers: [fn(&WriteTransaction); 8] = [
        |txn| assert!(txn.delete_table(COUNTERS).unwrap()),
        // The older ones need an index more.
        |txn| set_format(txn, 1),
        |txn| set_format(txn, 2),
        |txn| {
            make_second_format(txn);
            assert!(txn.delete_table(QUIET).unwrap());
        },
        |txn| assert!(txn.delete_table(QUIET).unwrap()),
        |txn| assert!(txn.delete_table(LEDGER).unwrap()),
        |txn| assert!(txn.delete_table(LEDGER_EXPIRY).unwrap()),
        // There never was one.
        |txn| set_format(txn, 0),
    ];
    for change in tampers {
        let (disk, store) = three_records();
        tamper(&store, change);
        store.close().unwrap();
        assert!(matches!(disk.open(small()), Err(StoreError::Corrupt(_))));
    }
}

#[test]
fn a_newer_format_and_a_foreign_database_are_refused_and_left_as_they_are() {
    let newer = SimulatedDisk::new().unwrap();
    let foreign = SimulatedDisk::holding(&[]).unwrap();
    for (disk, format) in [(&newer, Some(4u32)), (&foreign, None)] {
        let database = builder(&small(), true).create_with_backend(disk.file().unwrap()).unwrap();
        let txn = database.begin_write().unwrap();
        if let Some(format) = format {
            set_format(&txn, format);
        }
        txn.commit().unwrap();
        // Not closed: a file that a crash has left must stay as it is, too.
        let before = disk.bytes();
        let disk = SimulatedDisk::holding(&before).unwrap();
        match (disk.open(small()), format) {
            (Err(StoreError::UnsupportedVersion { found: 4, supported: 3 }), Some(_)) => {}
            (Err(StoreError::Corrupt(_)), None) => {}
            (other, _) => panic!("{other:?}"),
        }
        assert!(disk.bytes() == before, "the file was changed");
    }
}

#[test]
fn a_flipped_bit_anywhere_in_the_file_never_gives_wrong_records() {
    let (disk, store) = three_records();
    let row = Row::new("hashes", *b"key", *b"value").unwrap().expires_at(UnixMillis(9));
    store.commit(&batch(1, vec![Change { rows: vec![row], ..put(&key(2, 1), None, &registered(4)) }])).unwrap();
    store.close().unwrap();
    let clean = disk.bytes();
    let content = check_invariants(&SimulatedDisk::holding(&clean).unwrap().open(small()).unwrap());
    let (mut opened, mut refused) = (0, 0);
    // Every bit of what the header begins with, then one in each stretch of what is in use.
    let used = clean.iter().rposition(|byte| *byte != 0).unwrap();
    let bits = (0..64 * 8).chain((64 * 8..used * 8).step_by(used / 64 + 5));
    for bit in bits {
        let mut bytes = clean.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let damaged = SimulatedDisk::holding(&bytes).unwrap();
        match damaged.open(small()) {
            Ok(store) => {
                assert_eq!(check_invariants(&store), content, "bit {bit}");
                opened += 1;
                // Closing takes as long as opening, and shows nothing more.
                damaged.fail_after(0);
            }
            Err(error) => {
                assert!(matches!(error, StoreError::Corrupt(_)), "bit {bit}: {error:?}");
                assert!(damaged.bytes() == bytes, "bit {bit}: the file was changed");
                refused += 1;
            }
        }
    }
    assert!(opened > 0 && refused > 0, "{opened} opened, {refused} refused");
}

/// Bytes on the page of a closed store's allocator, which redb believes and, when it closes the file, panics on.
fn where_redb_panics(clean: &[u8]) -> Vec<usize> {
    let panics = |at: &usize| {
        let Ok(store) = unchecked(clean, *at) else { return false };
        store.close().is_err_and(|error| error.to_string().contains("panicked"))
    };
    (0x3000..0x4000).step_by(3).filter(panics).collect()
}

fn unchecked(clean: &[u8], at: usize) -> Result<RedbStore, StoreError> {
    let mut bytes = clean.to_vec();
    bytes[at] ^= 0x61;
    SimulatedDisk::holding(&bytes)?.open(small().integrity_check(IntegrityCheck::Never))
}

#[test]
fn a_damaged_file_that_was_not_checked_is_let_go_without_a_panic() {
    let (disk, store) = three_records();
    store.close().unwrap();
    let places = where_redb_panics(&disk.bytes());
    assert!(!places.is_empty(), "nothing is left that redb panics on");
    for at in &places {
        drop(unchecked(&disk.bytes(), *at).unwrap());
    }
    // Nor when it turns out not to be ours.
    let store = disk.open(small()).unwrap();
    tamper(&store, |txn| drop(txn.open_table(META).unwrap().remove(FORMAT_KEY).unwrap()));
    store.close().unwrap();
    let bytes = disk.bytes();
    for at in (0x3000..0x10000).step_by(31) {
        assert!(matches!(unchecked(&bytes, at), Err(StoreError::Corrupt(_))), "{at}");
    }
}

#[test]
fn a_file_that_is_cut_anywhere_is_refused_and_left_as_it_is() {
    let (disk, store) = three_records();
    store.close().unwrap();
    let clean = disk.bytes();
    for len in (0..clean.len()).step_by(997).chain([1, 9, 64, 319, 320]) {
        let cut = SimulatedDisk::holding(&clean[..len]).unwrap();
        assert!(matches!(cut.open(small()), Err(StoreError::Corrupt(_))), "{len} bytes");
        assert_eq!(cut.bytes().len(), len, "the file was changed");
    }
}
