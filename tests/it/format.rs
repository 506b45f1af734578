//! Files: those of every released format still open, and what is no store is refused and left as it is.

use std::fs;
use std::path::{Path, PathBuf};

use ibid::store::{Batch, Change, RedbOptions, RedbStore, Store, StoreError, Totals, Verdict};
use ibid::{
    AttemptId, BootId, Bytes, Fingerprint, Flow, Key, Mark, Origin, Policy, Record, Row, State, StoredRow, Token,
    UnixMillis,
};
use tempfile::TempDir;

fn key(id: u8) -> Key {
    Flow::new("fixture", Policy::request_invoice()).unwrap().key(b"scope", [id]).unwrap()
}

fn bytes(text: &str) -> Bytes {
    text.as_bytes().into()
}

/// The records that the fixture of format 1 holds. Never changed: the file is older than any change.
fn fixture_records() -> Vec<(Key, Record)> {
    let states = [
        State::Registered,
        State::Dispatched,
        State::InDoubt,
        State::Completed(Some(bytes("answer"))),
        State::Completed(Some(bytes(""))),
        State::Completed(None),
        State::Failed(Origin::RolledBack, bytes("rolled back")),
        State::Failed(Origin::Resolved, bytes("")),
        State::Tombstone(Mark::Fenced),
        State::Tombstone(Mark::Expired),
    ];
    let record = |(id, state)| {
        let record = Record {
            revision: u64::from(id) + 1,
            fingerprint: Fingerprint::of("fixture", &[id]),
            request: [id; 7].as_slice().into(),
            attempt: AttemptId { number: u32::from(id), boot: BootId([id; 16]), token: Token([id; 32]) },
            state,
            checkpoint: [None, Some(bytes("")), Some(bytes("checkpoint"))][usize::from(id) % 3].clone(),
            recoveries: id,
            created_at: UnixMillis(1_700_000_000_000),
            updated_at: UnixMillis(1_700_000_000_000 + u64::from(id)),
            expires_at: Some(UnixMillis(1_700_000_100_000)),
            lapses_at: Some(UnixMillis(1_700_000_200_000)),
            tombstone_until: (id % 2 == 1).then_some(UnixMillis(1_700_000_300_000)),
            contradiction: [Some(bytes("late")), None, Some(bytes(""))][usize::from(id) % 3].clone(),
            lapses_at_tick: None,
            abandoned: false,
        };
        (key(id), record)
    };
    (0..).zip(states).map(record).collect()
}

/// The records that the fixtures of format 2 and 3 hold. Never changed, either.
fn fixture_records_2() -> Vec<(Key, Record)> {
    let lapse = |(id, (key, record)): (usize, (Key, Record))| {
        let lapses_at_tick = [None, Some(7), Some(u64::MAX)][id % 3];
        (key, Record { lapses_at_tick, abandoned: id % 4 == 1, ..record })
    };
    fixture_records().into_iter().enumerate().map(lapse).collect()
}

/// The ledger rows that they hold, by table and key.
fn fixture_rows_2() -> Vec<(&'static str, Bytes, StoredRow)> {
    let row = |value: &str, end: Option<u64>| StoredRow { value: bytes(value), expires_at: end.map(UnixMillis) };
    vec![
        ("hashes", bytes("ending"), row("", Some(1_700_000_400_000))),
        ("hashes", bytes("key"), row("value", None)),
        ("names", [0xab; 512].as_slice().into(), row("long", None)),
    ]
}

/// Holds the store against what these fixtures were given.
fn holds_fixture_2(store: &RedbStore) {
    store.verify().unwrap();
    let records = fixture_records_2();
    for (key, record) in &records {
        assert_eq!(store.get(key).unwrap().as_ref(), Some(record));
    }
    for (table, key, row) in fixture_rows_2() {
        assert_eq!(store.row(table, &key).unwrap(), Some(row));
    }
    let expected = Totals { registered: 1, dispatched: 1, in_doubt: 1, completed: 3, failed: 2, tombstone: 2 };
    assert_eq!(store.totals().unwrap(), expected);
    assert_eq!(store.tick_mark().unwrap(), 11);
    let in_flight = store.in_flight(None, 9).unwrap().into_iter().map(|entry| entry.found.unwrap());
    assert_eq!(in_flight.collect::<Vec<_>>(), records[..3]);
    assert_eq!(store.removable(UnixMillis(u64::MAX), 0, 99).unwrap().len(), 6);
    assert_eq!(store.removable(UnixMillis(0), 6, 99).unwrap(), vec![]);
    assert_eq!(store.removable(UnixMillis(0), 7, 99).unwrap(), records[4..5]);
    assert_eq!(store.removable(UnixMillis(0), u64::MAX, 99).unwrap(), records[4..6]);
    assert_eq!(store.rows("hashes", None, 9).unwrap().len(), 2, "one was removed");
    assert_eq!(store.expired_rows(UnixMillis(u64::MAX), 9).unwrap().len(), 1);
}

/// Reads a fixture: its length, then lines of an offset and the bytes there, in hex; everything else is zero.
fn unpack(fixture: &str) -> Vec<u8> {
    let mut lines = fixture.lines();
    let length = lines.next().unwrap().strip_prefix("# length ").unwrap().parse().unwrap();
    let mut file = vec![0; length];
    for line in lines {
        let (offset, hex) = line.split_once(' ').unwrap();
        let offset = usize::from_str_radix(offset, 16).unwrap();
        for (index, pair) in hex.as_bytes().chunks(2).enumerate() {
            file[offset + index] = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        }
    }
    file
}

/// A file with this content, for as long as its directory is kept.
fn file(content: &[u8]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ibid.redb");
    fs::write(&path, content).unwrap();
    (directory, path)
}

fn open(path: &Path) -> Result<RedbStore, StoreError> {
    RedbStore::open(path, RedbOptions::default())
}

#[test]
fn a_file_of_format_1_opens_with_every_record_it_was_given() {
    let (_directory, path) = file(&unpack(include_str!("fixtures/format-1.hex")));
    let store = open(&path).unwrap();
    for (key, record) in fixture_records() {
        assert_eq!(store.get(&key).unwrap(), Some(record));
    }
    let expected = Totals { registered: 1, dispatched: 1, in_doubt: 1, completed: 3, failed: 2, tombstone: 2 };
    assert_eq!(store.totals().unwrap(), expected);
    assert_eq!(store.clock_mark().unwrap(), UnixMillis(1_700_000_000_009));
    assert_eq!(store.in_flight(None, 9).unwrap().len(), 3);
    assert_eq!(
        store.removable(UnixMillis(u64::MAX), u64::MAX, 99).unwrap().len(),
        6,
        "the fenced tombstone stands for ever"
    );
    // The file is older than the ledger's tables.
    assert_eq!(store.row("hashes", b"key").unwrap(), None);
    assert_eq!(store.rows("hashes", None, 9).unwrap(), vec![]);
    assert_eq!(store.expired_rows(UnixMillis(u64::MAX), 9).unwrap(), vec![]);
    // And than ticks.
    assert_eq!(store.removable(UnixMillis(0), u64::MAX, 9).unwrap(), vec![]);
    assert_eq!(store.tick_mark().unwrap(), 0);
    store.verify().unwrap();
    let row = Row::new("hashes", *b"key", *b"value").unwrap();
    let nothing = Change { rows: vec![row], ..Change::new(key(99), None, None) };
    let batch = Batch { tick: 1, changes: vec![nothing], ..Batch::default() };
    assert_eq!(store.commit(&batch).unwrap(), [Verdict::Applied]);
    store.close().unwrap();

    // Now it is one of format 3, with what it held before.
    let store = open(&path).unwrap();
    store.verify().unwrap();
    assert!(store.row("hashes", b"key").unwrap().is_some());
    assert_eq!(store.tick_mark().unwrap(), 1);
    for (key, record) in fixture_records() {
        assert_eq!(store.get(&key).unwrap(), Some(record));
    }
    let in_flight = store.in_flight(None, 9).unwrap().into_iter().map(|entry| entry.found.unwrap());
    assert_eq!(in_flight.collect::<Vec<_>>(), fixture_records()[..3]);
}

#[test]
fn a_first_commit_that_needs_none_of_the_missing_tables_creates_them_all_the_same() {
    let (_directory, path) = file(&unpack(include_str!("fixtures/format-1.hex")));
    let store = open(&path).unwrap();
    let mark = UnixMillis(1_700_000_000_010);
    assert_eq!(store.commit(&Batch { now: mark, ..Batch::default() }).unwrap(), []);
    store.close().unwrap();
    // Of a file of format 3 the opening demands every table.
    let store = open(&path).unwrap();
    store.verify().unwrap();
    assert_eq!(store.clock_mark().unwrap(), mark);
    assert_eq!(store.rows("hashes", None, 9).unwrap(), vec![]);
}

#[test]
fn a_file_of_format_2_opens_with_every_record_and_row_it_was_given() {
    let (_directory, path) = file(&unpack(include_str!("fixtures/format-2.hex")));
    let store = open(&path).unwrap();
    holds_fixture_2(&store);
    assert_eq!(store.clock_mark().unwrap(), UnixMillis(1_700_000_000_009));
    assert_eq!(store.generation().unwrap(), 12);

    // The first commit makes it one of format 3, with records in flight of every kind.
    let mark = UnixMillis(1_700_000_000_010);
    assert_eq!(store.commit(&Batch { now: mark, ..Batch::default() }).unwrap(), []);
    holds_fixture_2(&store);
    store.close().unwrap();
    let store = open(&path).unwrap();
    holds_fixture_2(&store);
    assert_eq!(store.clock_mark().unwrap(), mark);
    assert_eq!(store.generation().unwrap(), 13);
}

#[test]
fn a_file_of_format_3_opens_with_every_record_and_row_it_was_given() {
    let (_directory, path) = file(&unpack(include_str!("fixtures/format-3.hex")));
    let store = open(&path).unwrap();
    holds_fixture_2(&store);
    assert_eq!(store.clock_mark().unwrap(), UnixMillis(1_700_000_000_009));
    assert_eq!(store.generation().unwrap(), 12);
}

#[test]
fn a_file_of_a_newer_format_is_refused_by_name_and_left_as_it_is() {
    let content = unpack(include_str!("fixtures/newer-format.hex"));
    let (_directory, path) = file(&content);
    let error = open(&path).unwrap_err();
    assert!(matches!(error, StoreError::UnsupportedVersion { found: 255, supported: 3 }), "{error:?}");
    assert_eq!(error.to_string(), "the store has format 255, this version reads up to 3");
    assert!(fs::read(&path).unwrap() == content);
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_as_it_is() {
    let store = unpack(include_str!("fixtures/format-1.hex"));
    // Every copy of one reason: the live one, and what free pages still hold.
    let reason = b"rolled back";
    let copies: Vec<usize> = (0..store.len() - reason.len()).filter(|at| store[*at..].starts_with(reason)).collect();
    let mut damaged = store.clone();
    copies.iter().for_each(|at| damaged[*at] ^= 0x10);
    assert!(!copies.is_empty());
    for (what, content) in [
        ("an empty file", Vec::new()),
        ("one byte", vec![0]),
        ("zeros", vec![0; 8_192]),
        ("text", b"# notes\n".repeat(1_000)),
        ("half a store", store[..store.len() / 2].to_vec()),
        ("the first page of a store", store[..4_096].to_vec()),
        ("a damaged store", damaged),
    ] {
        let (_directory, path) = file(&content);
        let error = open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt(_)), "{what}: {error:?}");
        assert!(error.to_string().contains("backup"), "{what}: the text says what to do: {error}");
        assert!(fs::read(&path).unwrap() == content, "{what} was changed");
        // And it is not held: the file can be put right.
        fs::write(&path, &store).unwrap();
        open(&path).unwrap();
    }
}
