//! Rows: golden bytes, round trips, damage.

use proptest::prelude::*;

use super::*;
use crate::key::encode_hex;

fn bytes(text: &str) -> Bytes {
    text.as_bytes().into()
}

fn key() -> Key {
    Key::new("flow", b"scope", b"id").unwrap()
}

fn record(state: State) -> Record {
    Record {
        revision: 3,
        fingerprint: Fingerprint::from_bytes([0xf0; 32]),
        request: bytes("request"),
        attempt: AttemptId { number: 2, boot: BootId([0xb0; 16]), token: Token([0x70; 32]) },
        state,
        checkpoint: Some(bytes("")),
        recoveries: 1,
        created_at: UnixMillis(1_700_000_000_000),
        updated_at: UnixMillis(1_700_000_000_001),
        expires_at: Some(UnixMillis(0)),
        lapses_at: Some(UnixMillis(u64::MAX)),
        tombstone_until: None,
        contradiction: None,
        lapses_at_tick: Some(300),
        abandoned: true,
    }
}

/// The same as version 1 knows it.
fn record_v1(state: State) -> Record {
    Record { lapses_at_tick: None, abandoned: false, ..record(state) }
}

fn every_state() -> [State; 9] {
    [
        State::Registered,
        State::Dispatched,
        State::InDoubt,
        State::Completed(None),
        State::Completed(Some(bytes("answer"))),
        State::Failed(Origin::RolledBack, bytes("no")),
        State::Failed(Origin::Resolved, bytes("")),
        State::Tombstone(Mark::Fenced),
        State::Tombstone(Mark::Expired),
    ]
}

/// What every golden row has between its checksum and its state: key, revision, fingerprint, request, attempt.
const HEAD: &str = "\
    0d04666c6f770573636f7065696403f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0077265\
    717565737402b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b07070707070707070707070707070707070707070707070707070707070707070";

/// What every golden row has after its state: checkpoint, recoveries, times, contradiction.
const TAIL: &str = "01000180d095ffbc3181d095ffbc31010001ffffffffffffffffff010000";

/// What one of version 2 has behind that: tick, mark.
const TAIL_V2: &str = "01ac0201";

/// Version, checksum and state of each golden row, around HEAD and the tail.
fn golden(version: &str, checksums: [&str; 9], tail: &str) -> [String; 9] {
    let states = ["00", "01", "02", "0300", "030106616e73776572", "0400026e6f", "040100", "0500", "0501"];
    std::array::from_fn(|i| format!("{version}{}{HEAD}{}{tail}", checksums[i], states[i]))
}

fn golden_v1() -> [String; 9] {
    let checksums = [
        "0684aa50c3cba1cf",
        "ac6db34c2d576cff",
        "c691734cfed04154",
        "5b3b57e565f9856c",
        "d370935e68430700",
        "4ddc22b5164a0466",
        "2440a23a743a8d86",
        "2d1447596ff2225d",
        "f3b92ffa33cc0dbf",
    ];
    golden("01", checksums, TAIL)
}

fn golden_v2() -> [String; 9] {
    let checksums = [
        "0cee2a5719b5d362",
        "73b12083db5d7853",
        "dd0d4dcac65d27b7",
        "a9dcd1751e68ba0f",
        "c34fa6aea150a310",
        "0d60eef457009a15",
        "a98eea6fe5eb42f0",
        "995c67b839e5ded3",
        "750f2eebec2a6342",
    ];
    golden("02", checksums, &format!("{TAIL}{TAIL_V2}"))
}

fn from_hex(hex: &str) -> Vec<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16).unwrap() as u8;
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

#[test]
fn the_bytes_of_every_state_are_frozen() {
    for (state, golden) in every_state().into_iter().zip(golden_v2()) {
        let row = encode_row(&key(), &record(state.clone())).unwrap();
        assert_eq!(encode_hex(&row), golden, "{state:?}");
        assert_eq!(decode_row(&row).unwrap(), (key(), record(state)));
    }
}

#[test]
fn rows_of_version_1_are_read_and_written_anew_as_version_2() {
    for (state, golden) in every_state().into_iter().zip(golden_v1()) {
        let (key, record) = decode_row(&from_hex(&golden)).unwrap();
        assert_eq!((&key, &record), (&self::key(), &record_v1(state)));
        let row = encode_row(&key, &record).unwrap();
        assert_eq!((row[0], decode_row(&row).unwrap()), (2, (key, record)));
    }
}

#[test]
fn every_flipped_bit_of_a_row_is_quarantined() {
    for golden in golden_v1().into_iter().chain(golden_v2()) {
        let mut row = from_hex(&golden);
        for bit in 0..row.len() * 8 {
            row[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode_row(&row), Err(StoreError::Quarantined)), "bit {bit}");
            row[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(decode_row(&row).is_ok());
    }
}

#[test]
fn a_row_that_is_cut_or_goes_on_or_has_another_version_is_quarantined() {
    for (version, golden) in [(1, &golden_v1()[0]), (2, &golden_v2()[0])] {
        let row = from_hex(golden);
        for len in 0..row.len() {
            assert!(matches!(decode_row(&row[..len]), Err(StoreError::Quarantined)), "{len} bytes");
        }
        // With a checksum that fits, so that what comes behind the checksum is what refuses.
        let body = &row[1 + CHECKSUM_BYTES..];
        assert!(decode_row(&sealed(version, body)).is_ok());
        for sealed in [
            sealed(version, &[body, &[0]].concat()),
            sealed(version, &body[..body.len() - 1]),
            sealed(0, body),
            sealed(3 - version, body),
            sealed(3, body),
            // The first byte of the key's canonical form is the length of the flow's name.
            sealed(version, &[&body[..1], &[0xff], &body[2..]].concat()),
        ] {
            assert!(matches!(decode_row(&sealed), Err(StoreError::Quarantined)));
        }
    }
}

fn sealed(version: u8, body: &[u8]) -> Vec<u8> {
    [&[version], checksum(version, body).as_slice(), body].concat()
}

/// A ledger row and the key it is stored under.
fn ledger_row(value: &str, end: Option<u64>) -> (Vec<u8>, StoredRow) {
    let row = StoredRow { value: bytes(value), expires_at: end.map(UnixMillis) };
    (crate::store::row_key::join("hashes", b"key"), row)
}

#[test]
fn the_bytes_of_a_ledger_row_are_frozen() {
    let golden = [
        (("value", None), "01f3ac13e7b33221530a066861736865736b65790576616c756500"),
        (("", None), "01bbbe16b4674805fc0a066861736865736b65790000"),
        (("value", Some(1_700_000_000_000)), "019928dbe7fc4a18280a066861736865736b65790576616c75650180d095ffbc31"),
        (("", Some(u64::MAX)), "013e8c6aeee04a2c190a066861736865736b65790001ffffffffffffffffff01"),
    ];
    for ((value, end), golden) in golden {
        let (key, row) = ledger_row(value, end);
        let bytes = encode_ledger_row(&key, &row).unwrap();
        assert_eq!(encode_hex(&bytes), golden, "{value:?}, {end:?}");
        assert_eq!(decode_ledger_row(&key, &bytes).unwrap(), row);
    }
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_ledger_row_is_quarantined() {
    let quarantined = |key: &[u8], row: &[u8]| matches!(decode_ledger_row(key, row), Err(StoreError::Quarantined));
    for end in [None, Some(7)] {
        let (key, row) = ledger_row("value", end);
        let mut row = encode_ledger_row(&key, &row).unwrap();
        for bit in 0..row.len() * 8 {
            row[bit / 8] ^= 1 << (bit % 8);
            assert!(quarantined(&key, &row), "bit {bit}");
            row[bit / 8] ^= 1 << (bit % 8);
        }
        for len in 0..row.len() {
            assert!(quarantined(&key, &row[..len]), "{len} bytes");
        }
        let body = &row[1 + CHECKSUM_BYTES..];
        assert!(quarantined(&key, &sealed(1, &[body, &[0]].concat())));
        assert!(quarantined(&key, &sealed(2, body)), "no version but the first");
        assert!(decode_ledger_row(&key, &row).is_ok());
    }
}

#[test]
fn a_ledger_row_under_another_key_and_a_record_in_its_place_are_quarantined() {
    let (key, row) = ledger_row("value", None);
    let row = encode_ledger_row(&key, &row).unwrap();
    let other = crate::store::row_key::join("hashe", b"skey");
    let record = encode_row(&self::key(), &record(State::Registered)).unwrap();
    for (key, row) in [(&other, &row), (&key, &record)] {
        assert!(matches!(decode_ledger_row(key, row), Err(StoreError::Quarantined)));
    }
    assert!(matches!(decode_row(&row), Err(StoreError::Quarantined)));
}

#[test]
fn values_of_the_host_must_use_every_byte() {
    let stored = to_bytes(&(7u8, "seven")).unwrap();
    assert_eq!(from_bytes::<(u8, String)>(&stored).unwrap(), (7, "seven".to_owned()));
    assert!(from_bytes::<u8>(&stored).is_err());
}

#[test]
fn a_row_is_written_into_one_buffer_that_is_reserved_once() {
    let long = [b'r'; 4096];
    let record = Record { request: long.into(), ..record(State::Registered) };
    let row = encode_row(&key(), &record).unwrap();
    let reserved = 1 + CHECKSUM_BYTES + key().as_bytes().len() + record.weight();
    assert!(row.len() <= reserved);
    assert_eq!(row.capacity(), reserved, "{} bytes", row.len());

    let (key, row) = (b"joined", StoredRow { value: long.into(), expires_at: Some(UnixMillis(u64::MAX)) });
    let bytes = encode_ledger_row(key, &row).unwrap();
    let reserved = 1 + CHECKSUM_BYTES + 32 + key.len() + row.value.len();
    assert!(bytes.len() <= reserved);
    assert_eq!(bytes.capacity(), reserved, "{} bytes", bytes.len());
}

#[test]
fn what_is_not_bytes_is_no_blob_and_the_error_says_what_was_expected() {
    let number = serde::de::value::U8Deserializer::<serde::de::value::Error>::new(7);
    let error = Blob::deserialize(number).err().unwrap();
    assert_eq!(error.to_string(), "invalid type: integer `7`, expected bytes");
}

fn any_bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn any_state() -> impl Strategy<Value = State> {
    prop_oneof![
        Just(State::Registered),
        Just(State::Dispatched),
        Just(State::InDoubt),
        prop::option::of(any_bytes()).prop_map(State::Completed),
        (prop_oneof![Just(Origin::RolledBack), Just(Origin::Resolved)], any_bytes())
            .prop_map(|(origin, reason)| State::Failed(origin, reason)),
        prop_oneof![Just(Mark::Fenced), Just(Mark::Expired)].prop_map(State::Tombstone),
    ]
}

fn any_key() -> impl Strategy<Value = Key> {
    let part = || prop::collection::vec(any::<u8>(), 1..=255);
    ("[a-zé]{1,32}", part(), part()).prop_map(|(flow, scope, id)| Key::new(&flow, &scope, &id).unwrap())
}

prop_compose! {
    fn any_record()(
        (revision, fingerprint, request) in (any::<u64>(), any::<[u8; 32]>(), any_bytes()),
        (number, boot, token) in (any::<u32>(), any::<[u8; 16]>(), any::<[u8; 32]>()),
        (state, recoveries) in (any_state(), any::<u8>()),
        (checkpoint, contradiction) in (prop::option::of(any_bytes()), prop::option::of(any_bytes())),
        (created, updated) in (any::<u64>(), any::<u64>()),
        ends in prop::array::uniform3(prop::option::of(any::<u64>().prop_map(UnixMillis))),
        (lapses_at_tick, abandoned) in (prop::option::of(any::<u64>()), any::<bool>()),
    ) -> Record {
        let [expires_at, lapses_at, tombstone_until] = ends;
        Record {
            revision, request, state, checkpoint, recoveries, expires_at, lapses_at, tombstone_until, contradiction,
            lapses_at_tick, abandoned,
            fingerprint: Fingerprint::from_bytes(fingerprint),
            attempt: AttemptId { number, boot: BootId(boot), token: Token(token) },
            created_at: UnixMillis(created),
            updated_at: UnixMillis(updated),
        }
    }
}

proptest! {
    #[test]
    fn a_record_reads_back_as_it_was_written(key in any_key(), record in any_record()) {
        let row = encode_row(&key, &record).unwrap();
        prop_assert_eq!(decode_row(&row).unwrap(), (key, record));
    }

    #[test]
    fn a_ledger_row_reads_back_as_it_was_written(
        (table, key) in ("[a-zé]{1,32}", prop::collection::vec(any::<u8>(), 1..=512)),
        (value, end) in (any_bytes(), prop::option::of(any::<u64>())),
    ) {
        let joined = crate::store::row_key::join(&table, &key);
        let row = StoredRow { value, expires_at: end.map(UnixMillis) };
        prop_assert_eq!(decode_ledger_row(&joined, &encode_ledger_row(&joined, &row).unwrap()).unwrap(), row);
    }

    #[test]
    fn no_bytes_at_all_make_it_panic(row in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(decode_row(&row).is_err());
        prop_assert!(decode_ledger_row(&row, &row).is_err());
    }
}
