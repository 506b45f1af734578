//! Every store passes the suite, and the two stores agree after every batch of long random runs.

use std::sync::Arc;

use ibid::store::{
    Batch, Change, Cursor, ExpiredRow, MemoryStore, RedbOptions, RedbStore, Store, Totals, Verdict, Version,
};
use ibid::testing::{FaultyStore, Layer, conformance};
use ibid::{
    AttemptId, BootId, Bytes, Fingerprint, Flow, Guard, Key, Mark, Origin, Policy, Record, Row, State, StoredRow,
    Token, UnixMillis,
};
use proptest::prelude::*;

fn open(directory: &tempfile::TempDir) -> Arc<dyn Store> {
    let options = RedbOptions::default().cache_bytes(1024 * 1024);
    Arc::new(RedbStore::open(directory.path().join("ibid.redb"), options).unwrap())
}

#[test]
fn the_memory_store_passes_the_suite() {
    conformance::suite(|| Arc::new(MemoryStore::new()));
}

/// Nothing but the store below.
struct Bare(MemoryStore);

impl Layer for Bare {
    fn below(&self) -> &dyn Store {
        &self.0
    }
}

#[test]
fn a_layer_passes_the_suite_with_what_is_below() {
    conformance::suite(|| Arc::new(Bare(MemoryStore::new())));
    conformance::suite(|| Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()))));
}

#[test]
fn a_default_memory_store_is_open() {
    assert_eq!(MemoryStore::default().totals().unwrap(), Totals::default());
}

#[test]
fn the_redb_store_passes_the_suite() {
    let directory = tempfile::tempdir().unwrap();
    let opened = std::cell::Cell::new(0);
    conformance::suite(|| {
        opened.set(opened.get() + 1);
        let path = directory.path().join(format!("{}.redb", opened.get()));
        Arc::new(RedbStore::open(path, RedbOptions::default()).unwrap())
    });
}

#[test]
fn the_redb_store_keeps_its_records_when_it_is_reopened() {
    let directory = tempfile::tempdir().unwrap();
    conformance::reopening(|| open(&directory));
}

/// One step of a random run, over a handful of keys so that changes meet.
#[derive(Clone, Debug)]
enum Step {
    Commit { now: u64, tick: u64, records_per_scope: u64, changes: Vec<Wish>, expired_rows: Vec<ExpiredRow> },
    RemoveExpired { now: u64, limit: usize },
    Rest,
    Reopen,
}

#[derive(Clone, Debug)]
struct Wish {
    key: u8,
    /// The version that is there, or some other one.
    honest: bool,
    put: Option<Record>,
    rows: Vec<Row>,
    listed: Listed,
}

/// What the change says of the place of its record.
#[derive(Clone, Debug)]
enum Listed {
    Nothing,
    /// Where it was before the batch, if it was in flight.
    There,
    /// Any place, most likely another record's, or nobody's.
    At(u64),
}

fn any_bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        9 => prop::collection::vec(any::<u8>(), 0..20),
        1 => prop::collection::vec(any::<u8>(), 1_000..6_000),
    ]
    .prop_map(Bytes::from)
}

fn any_state() -> impl Strategy<Value = State> {
    prop_oneof![
        3 => Just(State::Registered),
        1 => Just(State::Dispatched),
        1 => Just(State::InDoubt),
        3 => prop::option::of(any_bytes()).prop_map(State::Completed),
        1 => any_bytes().prop_map(|reason| State::Failed(Origin::RolledBack, reason)),
        1 => any_bytes().prop_map(|reason| State::Failed(Origin::Resolved, reason)),
        1 => prop_oneof![Just(Mark::Fenced), Just(Mark::Expired)].prop_map(State::Tombstone),
    ]
}

prop_compose! {
    fn any_record()(
        (state, request, token, revision) in (any_state(), any_bytes(), 0u8..3, 1u64..3),
        checkpoint in prop::option::of(any_bytes()),
        ends in prop::array::uniform3(prop::option::of((0u64..8).prop_map(UnixMillis))),
        (lapses_at_tick, abandoned) in (prop::option::of(0u64..6), any::<bool>()),
    ) -> Record {
        let [expires_at, lapses_at, tombstone_until] = ends;
        Record {
            revision, request, state, checkpoint, expires_at, lapses_at, tombstone_until,
            fingerprint: Fingerprint::of("flow", &[token]),
            attempt: AttemptId { number: 1, boot: BootId([0; 16]), token: Token([token; 32]) },
            recoveries: 0,
            created_at: UnixMillis(1),
            updated_at: UnixMillis(2),
            contradiction: None,
            lapses_at_tick,
            abandoned,
        }
    }
}

/// Few tables, keys, values and ends, so that guards hold and rows meet. "a" with "ab" and "aa" with "b" stay apart.
const TABLES: [&str; 3] = ["a", "aa", "b"];
const ROW_KEYS: [&[u8]; 4] = [b"ab", b"b", b"\xff\xff", b"\0"];

fn any_place() -> impl Strategy<Value = (&'static str, &'static [u8])> {
    (prop::sample::select(&TABLES[..]), prop::sample::select(&ROW_KEYS[..]))
}

prop_compose! {
    fn any_row()(
        ((table, key), value) in (any_place(), prop::option::weighted(0.7, any_row_value())),
        end in prop::option::of((0u64..20).prop_map(UnixMillis)),
        guard in prop_oneof![
            3 => Just(Guard::Any),
            1 => Just(Guard::Absent),
            1 => any_row_value().prop_map(Guard::Equals),
        ],
    ) -> Row {
        let row = match value {
            Some(value) => Row::new(table, key, value),
            None => Row::removal(table, key),
        };
        let row = row.unwrap().guard(guard);
        match end {
            Some(end) => row.expires_at(end),
            None => row,
        }
    }
}

fn any_row_value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => Just(b"1".as_slice().into()),
        4 => Just(b"".as_slice().into()),
        1 => any_bytes(),
    ]
}

prop_compose! {
    fn any_expired_row()((table, key) in any_place(), end in 0u64..20) -> ExpiredRow {
        ExpiredRow { table: table.into(), key: key.into(), expires_at: UnixMillis(end) }
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let rows = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(any_row(), 1..4)];
    let listed = prop_oneof![Just(Listed::Nothing), Just(Listed::There), (0u64..40).prop_map(Listed::At)];
    let wish = (0u8..12, prop::bool::weighted(0.8), prop::option::weighted(0.8, any_record()), rows, listed)
        .prop_map(|(key, honest, put, rows, listed)| Wish { key, honest, put, rows, listed });
    let expired_rows = prop::collection::vec(any_expired_row(), 0..6);
    prop_oneof![
        20 => (0u64..20, 0u64..8, 0u64..5, prop::collection::vec(wish, 0..24), expired_rows).prop_map(
            |(now, tick, records_per_scope, changes, expired_rows)| {
                Step::Commit { now, tick, records_per_scope, changes, expired_rows }
            }
        ),
        4 => (0u64..20, 0usize..6).prop_map(|(now, limit)| Step::RemoveExpired { now, limit }),
        1 => Just(Step::Rest),
        1 => Just(Step::Reopen),
    ]
}

/// Two flows and three scopes.
fn key(n: u8) -> Key {
    let flow = if n.is_multiple_of(2) { "even" } else { "odd" };
    let flow = Flow::new(flow, Policy::request_invoice()).unwrap();
    flow.key([n % 3], [n]).unwrap()
}

/// Everything a store lets one see. Places in the index are the store's own affair, their order is not.
#[derive(Debug, PartialEq)]
struct View {
    records: Vec<Option<Record>>,
    in_flight: Vec<(Key, Record)>,
    removable: Vec<Vec<(Key, Record)>>,
    rows: Vec<(&'static str, Bytes, StoredRow)>,
    row: Vec<Option<StoredRow>>,
    expired_rows: Vec<Vec<ExpiredRow>>,
    records_in_scope: [u64; 3],
    totals: Totals,
    clock_mark: UnixMillis,
    tick_mark: u64,
}

fn view(store: &dyn Store) -> View {
    let mut in_flight = Vec::new();
    let mut cursor: Option<Cursor> = None;
    loop {
        let page = store.in_flight(cursor, 3).unwrap();
        let Some(last) = page.last() else { break };
        cursor = Some(last.cursor);
        in_flight.extend(page.into_iter().map(|entry| entry.found.unwrap()));
    }
    let (mut rows, mut row) = (Vec::new(), Vec::new());
    for table in TABLES {
        let mut after: Option<Bytes> = None;
        loop {
            let page = store.rows(table, after.as_deref(), 2).unwrap();
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            rows.extend(page.into_iter().map(|(key, row)| (table, key, row)));
        }
        row.extend(ROW_KEYS.map(|key| store.row(table, key).unwrap()));
    }
    assert_eq!(rows.len(), row.iter().flatten().count(), "what is listed and what is found");
    View {
        records: (0..12).map(|n| store.get(&key(n)).unwrap()).collect(),
        in_flight,
        removable: (0..9)
            .flat_map(|now| [0, 3, 5].map(|tick| store.removable(UnixMillis(now), tick, 4).unwrap()))
            .collect(),
        rows,
        row,
        expired_rows: (0..21).map(|now| store.expired_rows(UnixMillis(now), 4).unwrap()).collect(),
        records_in_scope: [0, 1, 2].map(|scope| store.records_in_scope(&[scope]).unwrap()),
        totals: store.totals().unwrap(),
        clock_mark: store.clock_mark().unwrap(),
        tick_mark: store.tick_mark().unwrap(),
    }
}

/// Turns the wishes into changes, each honest one against what the changes before it will have left.
fn changes(store: &dyn Store, wishes: Vec<Wish>) -> Vec<Change> {
    let mut latest: Vec<Option<Version>> =
        (0..12).map(|n| store.get(&key(n)).unwrap().as_ref().map(Version::of)).collect();
    let entries = store.in_flight(None, 12).unwrap();
    let place = |key: &Key| {
        entries.iter().find(|entry| entry.found.as_ref().is_some_and(|found| found.0 == *key)).map(|entry| entry.cursor)
    };
    let mut changes = Vec::new();
    for wish in wishes {
        let there = &mut latest[usize::from(wish.key)];
        let wrong = Version { revision: 7, token: Token([9; 32]) };
        let expected = match (wish.honest, *there) {
            (true, there) => there,
            (false, None) => Some(wrong),
            (false, Some(_)) => None,
        };
        if wish.honest {
            *there = wish.put.as_ref().map(Version::of);
        }
        let key = key(wish.key);
        let listed_at = match wish.listed {
            Listed::Nothing => None,
            Listed::There => place(&key),
            Listed::At(place) => Some(Cursor(place)),
        };
        changes.push(Change { rows: wish.rows, listed_at, ..Change::new(key, expected, wish.put.map(Arc::new)) });
    }
    changes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_two_stores_agree_after_every_batch(steps in prop::collection::vec(any_step(), 1..30)) {
        let directory = tempfile::tempdir().unwrap();
        let memory = MemoryStore::new();
        let mut redb = open(&directory);
        let mut applied = 0;
        for step in steps {
            match step {
                Step::Commit { now, tick, records_per_scope, changes: wishes, expired_rows } => {
                    let changes = changes(&*redb, wishes);
                    let batch = Batch { now: UnixMillis(now), tick, records_per_scope, changes, expired_rows };
                    let verdicts = memory.commit(&batch).unwrap();
                    prop_assert_eq!(&redb.commit(&batch).unwrap(), &verdicts);
                    applied += verdicts.iter().filter(|verdict| **verdict == Verdict::Applied).count();
                }
                Step::RemoveExpired { now, limit } => {
                    let now = UnixMillis(now);
                    let expired_rows = memory.expired_rows(now, limit).unwrap();
                    let batch = Batch { now, expired_rows, ..Batch::default() };
                    prop_assert_eq!(memory.commit(&batch).unwrap(), redb.commit(&batch).unwrap());
                }
                Step::Rest => redb.rest().unwrap(),
                Step::Reopen => {
                    redb.close().unwrap();
                    redb = open(&directory);
                }
            }
            prop_assert_eq!(view(&memory), view(&*redb), "after {} applied changes", applied);
            prop_assert_eq!(memory.generation().unwrap(), redb.generation().unwrap());
        }
    }
}
