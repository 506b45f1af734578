//! `verify` finds every way in which the tables can disagree.

use super::super::disk::SimulatedDisk;
use super::super::tables::{CLOCK_MARK, TOTALS};
use super::*;

/// A store with a record in flight (place 1), a completed one (place 2), and a row with an end.
fn sound() -> RedbStore {
    let store = SimulatedDisk::new().unwrap().open(small()).unwrap();
    let row = Row::new("hashes", *b"key", *b"value").unwrap().expires_at(UnixMillis(9));
    let done = Record { lapses_at_tick: Some(8), ..completed(&registered(2), b"answer", 5) };
    let changes =
        vec![put(&key(1, 1), None, &registered(1)), Change { rows: vec![row], ..put(&key(2, 2), None, &done) }];
    store.commit(&Batch { tick: 3, ..batch(1, changes) }).unwrap();
    store
}

fn insert(txn: &WriteTransaction, name: &[u8], value: &[u8]) {
    txn.open_table(COUNTERS).unwrap().insert(name, value).unwrap();
}

fn in_flight_row(txn: &WriteTransaction, seq: u64) -> Vec<u8> {
    let counters = txn.open_table(COUNTERS).unwrap();
    counters.get(in_flight_name(seq).as_slice()).unwrap().unwrap().value().to_vec()
}

fn remove_in_flight(txn: &WriteTransaction, seq: u64) {
    assert!(txn.open_table(COUNTERS).unwrap().remove(in_flight_name(seq).as_slice()).unwrap().is_some());
}

fn put_ended(txn: &WriteTransaction, seq: u64, row: &[u8]) {
    assert!(txn.open_table(RECORDS).unwrap().insert(seq, row).unwrap().is_none());
}

type Tamper = fn(&WriteTransaction);

#[test]
fn every_disagreement_is_found_and_none_is_seen_where_there_is_none() {
    let one = 1u64.to_be_bytes();
    assert_eq!(one.len(), 8);
    let tampers: [(&str, Tamper); 29] = [
        ("record 1 is not found", |txn| drop(txn.open_table(KEYS).unwrap().remove(&hash_of(&key(1, 1))).unwrap())),
        ("record 1 is not found", |txn| drop(txn.open_table(KEYS).unwrap().insert(&hash_of(&key(1, 1)), 2).unwrap())),
        ("index of keys", |txn| drop(txn.open_table(KEYS).unwrap().insert(&hash_of(&key(1, 9)), 2).unwrap())),
        ("record 2 is missing from the expiry", |txn| drop(txn.open_table(EXPIRY).unwrap().remove((5, 2)).unwrap())),
        ("the expiry index", |txn| drop(txn.open_table(EXPIRY).unwrap().insert((5, 1), ()).unwrap())),
        ("record 2 is missing from the tick", |txn| drop(txn.open_table(QUIET).unwrap().remove((8, 2)).unwrap())),
        ("record 2 is missing from the tick", |txn| assert!(txn.delete_table(QUIET).unwrap())),
        ("the tick index", |txn| drop(txn.open_table(QUIET).unwrap().insert((8, 1), ()).unwrap())),
        ("record 1 is among those in flight and", |txn| {
            let done = Record { lapses_at: None, ..completed(&registered(1), b"answer", 5) };
            put_ended(txn, 1, &encode_row(&key(1, 1), &done).unwrap());
        }),
        ("record 1 is in flight, and among", |txn| {
            put_ended(txn, 1, &in_flight_row(txn, 1));
            remove_in_flight(txn, 1);
        }),
        ("record 2 has ended, and is among", |txn| {
            let row = txn.open_table(RECORDS).unwrap().remove(2).unwrap().unwrap().value().to_vec();
            insert(txn, &in_flight_name(2), &row);
        }),
        ("record 1 does not decode", |txn| insert(txn, &in_flight_name(1), b"row")),
        ("record 1 does not decode", |txn| insert(txn, &in_flight_name(1), b"")),
        ("record 2 has ended, and is marked", |txn| insert(txn, &in_flight_name(2), b"")),
        ("a counter counts nothing", |txn| insert(txn, b"under", &1u64.to_be_bytes())),
        ("the in-flight index is not", |txn| drop(txn.open_table(IN_FLIGHT).unwrap())),
        ("the in-flight index is not", |txn| set_format(txn, 2)),
        ("record 2 does not decode", |txn| {
            drop(txn.open_table(RECORDS).unwrap().insert(2, b"row".as_slice()).unwrap());
        }),
        ("index of keys", |txn| remove_in_flight(txn, 1)),
        ("the totals", |txn| insert(txn, TOTALS, &[0; 48])),
        ("the totals", |txn| insert(txn, TOTALS, b"short")),
        ("a counter", |txn| insert(txn, CLOCK_MARK, b"short")),
        ("a counter", |txn| insert(txn, TICK_MARK, b"short")),
        ("a counter", |txn| insert(txn, GENERATION, b"short")),
        ("scope's counter", |txn| insert(txn, &scope_counter(&[1]), &2u64.to_be_bytes())),
        ("scope's counter", |txn| {
            drop(txn.open_table(COUNTERS).unwrap().remove(scope_counter(&[1]).as_slice()).unwrap())
        }),
        ("a counter counts nothing", |txn| insert(txn, &scope_counter(&[9]), &0u64.to_be_bytes())),
        ("ledger row 0 is missing", |txn| {
            let joined = row_key::join("hashes", b"key");
            let entry = expiry_key(UnixMillis(9), &joined);
            drop(txn.open_table(LEDGER_EXPIRY).unwrap().remove(entry.as_slice()).unwrap());
        }),
        ("the ledger's expiry index", |txn| {
            drop(txn.open_table(LEDGER).unwrap().remove(row_key::join("hashes", b"key").as_slice()).unwrap());
        }),
    ];
    for (number, (what, change)) in tampers.into_iter().enumerate() {
        let store = sound();
        store.verify().unwrap();
        tamper(&store, change);
        disagrees(&store, what, number);
    }
}

fn disagrees(store: &RedbStore, what: &str, number: usize) {
    match store.verify() {
        Err(StoreError::Corrupt(found)) => assert!(found.contains(what), "{number}: {found}, not {what}"),
        other => panic!("{number}, {what}: {other:?}"),
    }
}

#[test]
fn every_disagreement_on_what_is_in_flight_is_found_in_a_file_of_an_older_format() {
    let tampers: [(&str, Tamper); 5] = [
        ("record 1 is missing from the in", |txn| drop(txn.open_table(IN_FLIGHT).unwrap().remove(1).unwrap())),
        ("the in-flight index", |txn| drop(txn.open_table(IN_FLIGHT).unwrap().insert(2, ()).unwrap())),
        ("the in-flight index is not", |txn| assert!(txn.delete_table(IN_FLIGHT).unwrap())),
        ("record 1 is in a place", |txn| insert(txn, &in_flight_name(1), b"")),
        ("record 1 is in a place", |txn| {
            let row = txn.open_table(RECORDS).unwrap().remove(1).unwrap().unwrap().value().to_vec();
            insert(txn, &in_flight_name(1), &row);
        }),
    ];
    for (number, (what, change)) in tampers.into_iter().enumerate() {
        let store = sound();
        tamper(&store, make_second_format);
        store.verify().unwrap();
        tamper(&store, change);
        disagrees(&store, what, number);
    }
}

#[test]
fn scopes_are_counted_beside_more_records_in_flight_than_are_counted_at_once() {
    let store = SimulatedDisk::new().unwrap().open(small()).unwrap();
    let change = |n: u64| {
        let key = Key::new("flow", &[n as u8 % 3], &n.to_be_bytes()).unwrap();
        put(&key, None, &registered(n))
    };
    let many = batch(1, (0..17_000).map(change).collect());
    store.commit(&Batch { records_per_scope: 1_000_000, ..many }).unwrap();
    store.verify().unwrap();
    tamper(&store, |txn| insert(txn, &scope_counter(&[1]), &2u64.to_be_bytes()));
    disagrees(&store, "scope's counter", 0);
}

#[test]
fn a_closed_store_has_nothing_to_verify() {
    let store = sound();
    store.close().unwrap();
    assert!(matches!(store.verify(), Err(StoreError::Closed)));
}

#[test]
fn the_check_after_an_unclean_end_is_made_after_one_and_after_no_other() {
    // What is closed has a flipped bit in a page of records, and nobody looks; the same in what is not closed is found.
    for closed in [true, false] {
        let disk = SimulatedDisk::new().unwrap();
        let store = disk.open(small()).unwrap();
        let changes =
            (0..100).map(|id| put(&key(1, id), None, &registered(u64::from(id) + 0x00ab_cdef_0000))).collect();
        store.commit(&batch(1, changes)).unwrap();
        let mut bytes = if closed {
            store.close().unwrap();
            disk.bytes()
        } else {
            disk.without_power().bytes()
        };
        let at = bytes.windows(5).rposition(|window| window == [0xab, 0xcd, 0xef, 0, 0]).unwrap();
        bytes[at] ^= 1;
        let open = |check| SimulatedDisk::holding(&bytes).unwrap().open(small().integrity_check(check));
        assert_eq!(open(IntegrityCheck::AfterUncleanEnd).is_ok(), closed);
        assert!(matches!(open(IntegrityCheck::Always), Err(StoreError::Corrupt(_))));
        if closed {
            assert!(open(IntegrityCheck::Never).unwrap().verify().is_err(), "each row has a checksum of its own");
        }
    }
}
