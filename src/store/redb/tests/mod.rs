//! The file: its creation, its damage, its crashes, and whether its tables agree.

mod crash;
mod creation;
mod damage;
mod disk;
mod faults;
mod fresh;
mod layout;
mod lies;
mod matrix;
mod raise;
mod readers;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ::redb::ReadableTable;

use super::ledger::{expiry_key, if_there};
use super::tables::{
    COUNTERS, EXPIRY, FORMAT, FORMAT_KEY, Home, IN_FLIGHT, KEYS, LEDGER, LEDGER_EXPIRY, META, QUIET, RECORDS,
    TICK_MARK, hash_of, in_flight_rows, read_clock_mark, read_counter, read_format, read_totals, scope_counter,
};
use super::*;
use crate::fingerprint::Fingerprint;
use crate::ledger::{Guard, Row};
use crate::record::{AttemptId, BootId, State, Token};
use crate::store::codec::{decode_ledger_row, decode_row, encode_row};
use crate::store::{Change, Version, row_key};

fn small() -> RedbOptions {
    RedbOptions::default().cache_bytes(1024 * 1024)
}

/// Which operations of a kind are tried as those that fail: one of so many, or every one if `IBID_EVERY_FAULT` is set.
fn one_of(many: usize) -> usize {
    if std::env::var_os("IBID_EVERY_FAULT").is_some() { 1 } else { many }
}

fn key(scope: u8, id: u8) -> Key {
    Key::new("flow", &[scope], &[id]).unwrap()
}

/// A record at revision 1 with a token of its own.
fn registered(token: u64) -> Record {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&token.to_be_bytes());
    Record {
        revision: 1,
        fingerprint: Fingerprint::of("flow", &bytes),
        request: bytes.as_slice().into(),
        attempt: AttemptId { number: 1, boot: BootId([0; 16]), token: Token(bytes) },
        state: State::Registered,
        checkpoint: None,
        recoveries: 0,
        created_at: UnixMillis(token),
        updated_at: UnixMillis(token),
        expires_at: None,
        lapses_at: None,
        tombstone_until: None,
        contradiction: None,
        lapses_at_tick: None,
        abandoned: false,
    }
}

fn completed(before: &Record, answer: &[u8], lapses_at: u64) -> Record {
    Record {
        revision: before.revision + 1,
        state: State::Completed(Some(answer.into())),
        lapses_at: Some(UnixMillis(lapses_at)),
        ..before.clone()
    }
}

fn put(key: &Key, expected: Option<&Record>, record: &Record) -> Change {
    Change::new(key.clone(), expected.map(Version::of), Some(Arc::new(record.clone())))
}

fn gone(key: &Key, record: &Record) -> Change {
    Change::new(key.clone(), Some(Version::of(record)), None)
}

fn batch(now: u64, changes: Vec<Change>) -> Batch {
    Batch { now: UnixMillis(now), records_per_scope: 1_000, changes, ..Batch::default() }
}

/// Changes the tables behind the store's back.
fn tamper(store: &RedbStore, change: impl FnOnce(&WriteTransaction)) {
    let txn = store.begin_write().unwrap();
    change(&txn);
    txn.commit().unwrap();
}

fn set_format(txn: &WriteTransaction, format: u32) {
    txn.open_table(META).unwrap().insert(FORMAT_KEY, format.to_be_bytes().as_slice()).unwrap();
}

fn format_of(store: &RedbStore) -> u32 {
    store.read(|txn| read_format(&txn.open_table(META).map_err(table)?)).unwrap()
}

/// Lays a file out as format 2 has it: what is in flight is in `records`, too, and an index says which.
fn make_second_format(txn: &WriteTransaction) {
    set_format(txn, 2);
    let mut counters = txn.open_table(COUNTERS).unwrap();
    let mut records = txn.open_table(RECORDS).unwrap();
    let mut index = txn.open_table(IN_FLIGHT).unwrap();
    let rows: Vec<_> = in_flight_rows(&counters, None)
        .unwrap()
        .map(|entry| entry.map(|(seq, row)| (seq, row.value().to_vec())))
        .collect();
    for entry in rows {
        let (seq, row) = entry.unwrap();
        counters.remove(in_flight_name(seq).as_slice()).unwrap();
        if !row.is_empty() {
            records.insert(seq, row.as_slice()).unwrap();
        }
        index.insert(seq, ()).unwrap();
    }
}

/// Removes what is younger than the first format.
fn make_first_format(txn: &WriteTransaction) {
    make_second_format(txn);
    set_format(txn, 1);
    assert!(txn.delete_table(QUIET).unwrap());
    assert!(txn.delete_table(LEDGER).unwrap() && txn.delete_table(LEDGER_EXPIRY).unwrap());
}

/// Everything that is stored.
#[derive(Clone, Debug, Default, PartialEq)]
struct Content {
    records: BTreeMap<Key, Record>,
    /// By ledger key.
    rows: BTreeMap<Vec<u8>, StoredRow>,
    clock_mark: UnixMillis,
    tick_mark: u64,
}

/// The rows of a table as bytes.
type RawRows = Vec<(Vec<u8>, Vec<u8>)>;

/// All tables as they are stored, byte for byte, by name.
fn dump(store: &RedbStore) -> BTreeMap<&'static str, RawRows> {
    fn rows<K: ::redb::Key, V: ::redb::Value>(
        txn: &ReadTransaction,
        definition: ::redb::TableDefinition<'_, K, V>,
    ) -> RawRows {
        let Some(table) = if_there(txn, definition).unwrap() else { return Vec::new() };
        let bytes = |entry: Result<(::redb::AccessGuard<'_, K>, ::redb::AccessGuard<'_, V>), _>| {
            let (key, value) = entry.unwrap();
            (K::as_bytes(&key.value()).as_ref().to_vec(), V::as_bytes(&value.value()).as_ref().to_vec())
        };
        ReadableTable::iter(&table).unwrap().map(bytes).collect()
    }
    store
        .read(|txn| {
            Ok([
                ("meta", rows(txn, META)),
                ("records", rows(txn, RECORDS)),
                ("keys", rows(txn, KEYS)),
                ("expiry", rows(txn, EXPIRY)),
                ("quiet", rows(txn, QUIET)),
                ("in_flight", rows(txn, IN_FLIGHT)),
                ("counters", rows(txn, COUNTERS)),
                ("ledger", rows(txn, LEDGER)),
                ("ledger_expiry", rows(txn, LEDGER_EXPIRY)),
            ]
            .into())
        })
        .unwrap()
}

/// Everything that is stored, after checking that the tables tell one story.
fn check_invariants(store: &RedbStore) -> Content {
    store.verify().unwrap();
    store
        .read(|txn| {
            let keys = txn.open_table(KEYS).map_err(table)?;
            let expiry = txn.open_table(EXPIRY).map_err(table)?;
            let counters = txn.open_table(COUNTERS).map_err(table)?;

            let mut stored = BTreeMap::new();
            let (mut expected_keys, mut expected_expiry) = (BTreeMap::new(), BTreeSet::new());
            let mut expected_quiet = BTreeSet::new();
            let (mut totals, mut scopes) = (Totals::default(), BTreeMap::<Vec<u8>, u64>::new());
            for (seq, key, record) in placed(txn)? {
                expected_keys.insert(hash_of(&key), seq);
                expected_expiry.extend(record.removable_at().map(|at| (at.0, seq)));
                expected_quiet.extend(record.lapse_tick().map(|tick| (tick, seq)));
                *totals.of_mut(record.state.status()) += 1;
                *scopes.entry(scope_counter(key.scope())).or_default() += 1;
                assert!(stored.insert(key, record).is_none(), "one row per key");
            }
            let found: BTreeMap<_, _> = ReadableTable::iter(&keys)
                .unwrap()
                .map(Result::unwrap)
                .map(|(hash, seq)| (*hash.value(), seq.value()))
                .collect();
            assert_eq!(found, expected_keys, "keys");
            let found: BTreeSet<_> =
                ReadableTable::iter(&expiry).unwrap().map(|entry| entry.unwrap().0.value()).collect();
            assert_eq!(found, expected_expiry, "expiry");
            let found: BTreeSet<_> = if_there(txn, QUIET)?
                .iter()
                .flat_map(|quiet| ReadableTable::iter(quiet).unwrap().map(|entry| entry.unwrap().0.value()))
                .collect();
            assert_eq!(found, expected_quiet, "quiet");
            assert_eq!(read_totals(&counters)?, totals, "totals");
            let found: BTreeMap<_, _> = ReadableTable::range(&counters, b"s".as_slice()..b"t".as_slice())
                .unwrap()
                .map(Result::unwrap)
                .map(|(name, count)| (name.value().to_vec(), u64::from_be_bytes(count.value().try_into().unwrap())))
                .collect();
            assert_eq!(found, scopes, "records by scope");
            let (clock_mark, tick_mark) = (read_clock_mark(&counters)?, read_counter(&counters, TICK_MARK)?);
            Ok(Content { records: stored, rows: check_ledger(txn)?, clock_mark, tick_mark })
        })
        .unwrap()
}

/// Every record and its place, after checking that it is in the table where a file of its format has it.
fn placed(txn: &ReadTransaction) -> Result<Vec<(u64, Key, Record)>, StoreError> {
    let records = txn.open_table(RECORDS).map_err(table)?;
    let counters = txn.open_table(COUNTERS).map_err(table)?;
    let in_counters: BTreeMap<_, _> = in_flight_rows(&counters, None)?
        .map(|entry| entry.map(|(seq, row)| (seq, row.value().to_vec())).unwrap())
        .collect();
    let in_records: BTreeMap<_, _> = ReadableTable::iter(&records)
        .unwrap()
        .map(|entry| entry.map(|(seq, row)| (seq.value(), row.value().to_vec())).unwrap())
        .collect();
    let is_old = read_format(&txn.open_table(META).map_err(table)?)? < FORMAT;
    let (mut placed, mut in_flight) = (Vec::new(), BTreeSet::new());
    let homes = in_records.iter().map(|(seq, row)| match in_counters.get(seq) {
        None => (Home::Records, *seq, row),
        Some(mark) => {
            assert_eq!(*mark, b"", "a mark, and no second row");
            (Home::Both, *seq, row)
        }
    });
    let apart = in_counters.iter().filter(|(seq, _)| !in_records.contains_key(seq));
    for (home, seq, row) in homes.chain(apart.map(|(seq, row)| (Home::Counters, *seq, row))) {
        let (key, record) = decode_row(row).expect("every row decodes");
        assert_eq!(home, if is_old { Home::Records } else { Home::of(&record, row) }, "in its table");
        if record.state.status().is_in_flight() {
            in_flight.insert(seq);
        }
        placed.push((seq, key, record));
    }
    let index = if_there(txn, IN_FLIGHT)?;
    let listed = |index: &ReadOnlyTable<u64, ()>| {
        ReadableTable::iter(index).unwrap().map(|entry| entry.unwrap().0.value()).collect()
    };
    assert_eq!(index.as_ref().map(listed), is_old.then_some(in_flight), "the index of an older format");
    Ok(placed)
}

/// The rows, after checking that the index has an entry for each that has an end, and no other.
fn check_ledger(txn: &ReadTransaction) -> Result<BTreeMap<Vec<u8>, StoredRow>, StoreError> {
    let (Some(ledger), Some(expiry)) = (if_there(txn, LEDGER)?, if_there(txn, LEDGER_EXPIRY)?) else {
        return Ok(BTreeMap::new());
    };
    let (mut rows, mut expected) = (BTreeMap::new(), BTreeSet::new());
    for entry in ReadableTable::iter(&ledger).unwrap() {
        let (key, row) = entry.unwrap();
        let row = decode_ledger_row(key.value(), row.value()).expect("every row decodes");
        assert!(row_key::split(key.value()).is_some(), "every key decodes");
        expected.extend(row.expires_at.map(|end| expiry_key(end, key.value())));
        rows.insert(key.value().to_vec(), row);
    }
    let found: BTreeSet<_> =
        ReadableTable::iter(&expiry).unwrap().map(|entry| entry.unwrap().0.value().to_vec()).collect();
    assert_eq!(found, expected, "the ledger's expiry");
    Ok(rows)
}
