//! Files of format 2, where what is in flight is in `records` like all else: they read as they are, and the first commit that
//! changes anything moves it, all of it or nothing.

use super::super::disk::SimulatedDisk;
use super::*;

/// Records of every kind, some of which take pages of their own, laid out as format 2 has it.
fn second_format(records: u64) -> (SimulatedDisk, Content) {
    let disk = SimulatedDisk::new().unwrap();
    let store = disk.open(small()).unwrap();
    let change = |n: u64| {
        let request = vec![1; if n.is_multiple_of(7) { 5_000 } else { 50 }];
        let first = Record { request: request.as_slice().into(), ..registered(n) };
        let of = |state| Record { state, ..first.clone() };
        let record = match n % 5 {
            0 => of(State::Registered),
            1 => Record { checkpoint: Some((*b"").into()), ..of(State::Dispatched) },
            2 => Record { checkpoint: Some((*b"checkpoint").into()), recoveries: 3, ..of(State::InDoubt) },
            3 => Record { lapses_at_tick: Some(n), ..completed(&first, b"answer", n) },
            _ => Record { lapses_at: None, ..of(State::Tombstone(crate::record::Mark::Fenced)) },
        };
        put(&numbered(n), None, &record)
    };
    store.commit(&Batch { tick: 1, ..batch(1, (0..records).map(change).collect()) }).unwrap();
    tamper(&store, make_second_format);
    assert_eq!(format_of(&store), 2);
    let content = check_invariants(&store);
    store.close().unwrap();
    (SimulatedDisk::holding(&disk.bytes()).unwrap(), content)
}

fn numbered(n: u64) -> Key {
    Key::new("flow", &[n as u8 % 3], &n.to_be_bytes()).unwrap()
}

/// What is in flight, in slices of two.
fn in_flight(store: &RedbStore) -> Vec<(Cursor, Option<(Key, Record)>)> {
    let mut entries = Vec::new();
    loop {
        let slice = store.in_flight(entries.last().map(|(cursor, _)| *cursor), 2).unwrap();
        if slice.is_empty() {
            return entries;
        }
        entries.extend(slice.into_iter().map(|entry| (entry.cursor, entry.found)));
    }
}

/// Everything that can be asked of a store says what is in `content`.
fn reads_as(store: &RedbStore, content: &Content) {
    assert_eq!(check_invariants(store), *content);
    for (key, record) in &content.records {
        assert_eq!(store.get(key).unwrap().as_ref(), Some(record));
    }
    let listed: BTreeMap<_, _> = in_flight(store).into_iter().map(|(_, found)| found.unwrap()).collect();
    let expected = content.records.clone().into_iter().filter(|(_, record)| record.state.status().is_in_flight());
    assert_eq!(listed, expected.collect());
    let due = store.removable(UnixMillis(u64::MAX), u64::MAX, 1_000).unwrap();
    let completed = content.records.values().filter(|record| record.removable_at().is_some()).count();
    assert_eq!(due.len(), completed);
}

#[test]
fn a_file_of_format_2_reads_as_it_is_until_something_changes_and_says_the_same_afterwards() {
    let (disk, mut content) = second_format(40);
    let store = disk.open(small()).unwrap();
    reads_as(&store, &content);
    let before = (in_flight(&store), dump(&store));

    // Nothing of this changes anything.
    store.commit(&batch(1, vec![put(&numbered(0), None, &registered(9))])).unwrap();
    store.rest().unwrap();
    assert!(dump(&store) == before.1, "byte for byte");
    // And the copy after a failed sync is one of the file as it is.
    disk.fail_one_sync_after(0);
    store.commit(&batch(2, vec![])).unwrap_err();
    store.reopen().unwrap();
    assert!(dump(&store) == before.1);
    reads_as(&store, &content);

    store.commit(&batch(2, vec![])).unwrap();
    content.clock_mark = UnixMillis(2);
    assert_eq!(format_of(&store), 3);
    reads_as(&store, &content);
    assert_eq!(in_flight(&store), before.0, "a cursor stays good");
    store.reopen().unwrap();
    reads_as(&store, &content);
}

#[test]
fn a_change_in_the_commit_that_raises_a_file_meets_the_record_where_it_is_then() {
    let (disk, content) = second_format(40);
    let store = disk.open(small()).unwrap();
    let record = |n| content.records[&numbered(n)].clone();
    let next = |n| Record { revision: 2, ..record(n) };
    let remove = |n| gone(&numbered(n), &record(n));
    let changes = vec![
        put(&numbered(0), Some(&record(0)), &completed(&record(0), b"answer", 9)),
        put(&numbered(1), Some(&record(1)), &next(1)),
        remove(2),
        put(&numbered(3), Some(&record(3)), &Record { revision: 3, ..record(3) }),
        remove(8),
        put(&numbered(77), None, &registered(77)),
    ];
    let mut expected = content.clone();
    for change in &changes {
        match &change.put {
            Some(record) => expected.records.insert(change.key.clone(), (**record).clone()),
            None => expected.records.remove(&change.key),
        };
    }
    assert_eq!(store.commit(&batch(1, changes)).unwrap(), [Verdict::Applied; 6]);
    reads_as(&store, &expected);
}

#[test]
fn what_is_damaged_in_flight_is_listed_as_such_before_and_after() {
    let (disk, content) = second_format(11);
    let store = disk.open(small()).unwrap();
    // The first to arrive has place 1.
    tamper(&store, |txn| {
        let mut records = txn.open_table(RECORDS).unwrap();
        records.insert(1, b"row".as_slice()).unwrap();
        records.remove(2).unwrap();
    });
    let before = in_flight(&store);
    assert_eq!(before[..2], [(Cursor(1), None), (Cursor(2), None)]);
    for raised in [false, true] {
        if raised {
            store.commit(&batch(2, vec![])).unwrap();
            assert_eq!(format_of(&store), 3);
        }
        assert_eq!(in_flight(&store), before);
        for n in [0, 1] {
            assert!(matches!(store.get(&numbered(n)), Err(StoreError::Quarantined)), "never absent");
        }
        let others = content.records.iter().filter(|(key, _)| ![numbered(0), numbered(1)].contains(key));
        others.for_each(|(key, record)| assert_eq!(store.get(key).unwrap().as_ref(), Some(record)));
    }
    let change = put(&numbered(1), None, &registered(9));
    assert_eq!(store.commit(&batch(2, vec![change])).unwrap(), [Verdict::Quarantined]);
}

#[test]
fn a_power_loss_in_the_commit_that_raises_a_file_leaves_either_layout_whole() {
    let (mut old, mut new) = (0, 0);
    for records in [7, 120] {
        let (disk, before) = second_format(records);
        let store = disk.open(small()).unwrap();
        let change = put(&numbered(1_000), None, &registered(1_000));
        store.commit(&batch(2, vec![change])).unwrap();
        let acknowledged = disk.syncs();
        let after = check_invariants(&store);
        assert_eq!(after.records.len(), before.records.len() + 1);
        let mut images = BTreeSet::new();
        disk.for_each_power_loss(40, records, |loss| {
            if !images.insert((loss.hash(), loss.syncs())) {
                return;
            }
            let left = loss.disk().open(small()).unwrap_or_else(|error| panic!("{loss:?}: {error:?}"));
            let is_raised = format_of(&left) == 3;
            reads_as(&left, if is_raised { &after } else { &before });
            assert!(is_raised || loss.syncs() < acknowledged, "{loss:?}: it was acknowledged");
            *(if is_raised { &mut new } else { &mut old }) += 1;
        });
    }
    assert!(old > 20 && new > 2, "{old} of the old format, {new} of the new one");
}

/// What a file says that is damaged here and there: of what is in flight, and of each key.
type Told = (Vec<(Cursor, Option<(Key, Record)>)>, Vec<Result<Option<Record>, String>>);

fn told(store: &RedbStore) -> Told {
    let of_key = |n| store.get(&numbered(n)).map_err(|error| format!("{error:?}"));
    (in_flight(store), (0..40).map(of_key).collect())
}

/// A file of format 2 with rows that do not decode, in every way, in flight and ended. Record n has place n + 1.
fn damaged_second_format() -> (SimulatedDisk, RedbStore, Content) {
    let (disk, content) = second_format(40);
    let store = disk.open(small()).unwrap();
    tamper(&store, |txn| {
        let mut records = txn.open_table(RECORDS).unwrap();
        records.insert(1, b"short".as_slice()).unwrap();
        records.insert(2, [0xff; 5_000].as_slice()).unwrap();
        records.insert(3, b"".as_slice()).unwrap();
        records.insert(4, b"ended".as_slice()).unwrap();
        records.remove(6).unwrap();
    });
    (disk, store, content)
}

const DAMAGED: [u64; 5] = [0, 1, 2, 3, 5];

/// Raises the file by a commit that changes and removes long rows and short ones, while the disk fails. Says whether it did.
fn raise_with(fault: impl Fn(&SimulatedDisk)) -> bool {
    let (disk, store, content) = damaged_second_format();
    let (mut in_flight, mut by_key) = told(&store);
    let before = (in_flight.clone(), by_key.clone());
    let record = |n| &content.records[&numbered(n)];
    let long = Record { revision: 2, checkpoint: Some([1; 5_000].as_slice().into()), ..record(10).clone() };
    let short = Record { revision: 2, request: (*b"").into(), ..record(21).clone() };
    let done = completed(record(11), b"answer", 9);
    let after = [(10u64, Some(long)), (21, Some(short)), (11, Some(done)), (35, None), (8, None), (13, None)];
    let mut changes = Vec::new();
    for (n, put) in after {
        let listed_at = n.is_multiple_of(2).then_some(Cursor(n + 1));
        let expected = Some(Version::of(record(n)));
        changes.push(Change { listed_at, ..Change::new(numbered(n), expected, put.clone().map(Arc::new)) });
        by_key[n as usize] = Ok(put.clone());
        in_flight.retain(|(place, _)| {
            *place != Cursor(n + 1) || put.as_ref().is_some_and(|put| put.state.status().is_in_flight())
        });
        let entry = in_flight.iter_mut().find(|(place, _)| *place == Cursor(n + 1));
        entry.into_iter().for_each(|(_, found)| *found = put.clone().map(|put| (numbered(n), put)));
    }
    changes.extend(DAMAGED.map(|n| put(&numbered(n), None, &registered(9))));
    let verdicts = [[Verdict::Applied; 6].as_slice(), &[Verdict::Quarantined; 5]].concat();

    let batch = batch(2, changes);
    fault(&disk);
    let committed = store.commit(&batch);
    disk.mend();
    if committed.is_err() {
        store.reopen().unwrap();
        if format_of(&store) == 2 {
            assert_eq!(told(&store), before);
            assert_eq!(store.commit(&batch).unwrap(), verdicts);
        }
    }
    assert_eq!(format_of(&store), 3);
    assert_eq!(told(&store), (in_flight.clone(), by_key.clone()));
    store.reopen().unwrap();
    assert_eq!(told(&store), (in_flight, by_key));
    for n in DAMAGED {
        assert!(matches!(store.get(&numbered(n)), Err(StoreError::Quarantined)), "{n}: never absent");
    }
    committed.is_err()
}

#[test]
fn a_raise_whose_commit_fails_anywhere_is_made_by_the_next_one_whatever_is_damaged() {
    let operations = (0..).take_while(|after| raise_with(|disk| disk.fail_after(*after))).count();
    let syncs = (0..).take_while(|after| raise_with(|disk| disk.fail_one_sync_after(*after))).count();
    assert!(operations > 5 && syncs >= 2, "{operations} operations, {syncs} syncs");
}
