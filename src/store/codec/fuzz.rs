//! What the fuzz targets feed with bytes, as far as it is not public: any bytes go in, and a promise that does not hold
//! panics.

use super::super::row_key;
use super::*;

/// Bytes as a record's row: as they are, as the body behind a checksum that fits, and as the values of a record.
pub fn record_row(bytes: &[u8]) {
    for row in [bytes.to_vec(), sealed(1, bytes), sealed(RECORD_VERSION, bytes)] {
        match decode_row(&row) {
            Ok((key, record)) => record_reads_back(&key, &record),
            Err(error) => assert!(matches!(error, StoreError::Quarantined), "{error:?}"),
        }
    }
    let mut source = Source(bytes);
    if let Ok(key) = Key::new(&source.name(), &source.some(), &source.some()) {
        record_reads_back(&key, &source.record());
    }
}

/// The same for the row of a ledger table.
pub fn ledger_row(bytes: &[u8]) {
    let mut source = Source(bytes);
    let key = source.some();
    for row in [bytes.to_vec(), sealed(ROW_VERSION, bytes), sealed(ROW_VERSION, source.0)] {
        match decode_ledger_row(&key, &row) {
            Ok(stored) => row_reads_back(&key, &stored),
            Err(error) => assert!(matches!(error, StoreError::Quarantined), "{error:?}"),
        }
    }
    let stored = StoredRow { value: source.some(), expires_at: source.time() };
    row_reads_back(&key, &stored);
}

/// Bytes as keys of records and of ledger rows: what is read back is what was written, no two names meet, and one table's
/// rows lie in the order of their keys.
pub fn keys(bytes: &[u8]) {
    if let Some(key) = Key::from_bytes(bytes) {
        assert_eq!(key.as_bytes(), bytes);
        assert_eq!(Key::new(key.flow(), key.scope(), key.id()).as_ref(), Ok(&key));
    }
    if let Some((table, key)) = row_key::split(bytes) {
        assert_eq!(row_key::join(table, key), bytes);
    }
    let mut source = Source(bytes);
    names_stay_apart([(); 2].map(|()| (source.name(), source.some(), source.some())));
    // The same bytes, parted at two places each time: only the lengths tell such names apart.
    let cuts: [u8; 4] = source.array();
    let rest: String = source.0.iter().map(|byte| char::from(byte & 0x7f)).collect();
    let [a, b, c, d] = cuts.map(|cut| usize::from(cut) % (rest.len() + 1));
    names_stay_apart([(a, b), (c, d)].map(|(one, other)| {
        let (flow, tail) = rest.split_at(one.min(other));
        let (scope, id) = tail.split_at(one.max(other) - one.min(other));
        (flow.to_owned(), scope.as_bytes().into(), id.as_bytes().into())
    }));
}

fn names_stay_apart([one, other]: [(String, Bytes, Bytes); 2]) {
    let key = |(flow, scope, id): &(String, Bytes, Bytes)| Key::new(flow, scope, id);
    if let (Ok(first), Ok(second)) = (key(&one), key(&other)) {
        assert_eq!(first == second, one == other);
        assert_eq!((first.flow(), first.scope(), first.id()), (one.0.as_str(), &*one.1, &*one.2));
    }
    if one.0.len() > usize::from(u8::MAX) || other.0.len() > usize::from(u8::MAX) {
        return;
    }
    let (first, second) = (row_key::join(&one.0, &one.1), row_key::join(&other.0, &other.1));
    assert_eq!(first == second, (&one.0, &one.1) == (&other.0, &other.1));
    assert_eq!(row_key::split(&first), Some((one.0.as_str(), &*one.1)));
    if one.0 == other.0 {
        assert_eq!(first.cmp(&second), one.1.cmp(&other.1));
    }
}

fn record_reads_back(key: &Key, record: &Record) {
    let row = encode_row(key, record);
    assert!(row.is_ok(), "a record is encoded");
    let row = row.unwrap_or_default();
    let back = decode_row(&row).ok();
    assert!(back.is_some_and(|(k, r)| k == *key && r == *record), "a record reads back as it was written");
    for row in spoiled(RECORD_VERSION, &row) {
        assert!(decode_row(&row).is_err(), "not one byte more, less or other");
    }
}

fn row_reads_back(key: &[u8], stored: &StoredRow) {
    let row = encode_ledger_row(key, stored);
    assert!(row.is_ok(), "a row is encoded");
    let row = row.unwrap_or_default();
    assert_eq!(decode_ledger_row(key, &row).ok().as_ref(), Some(stored));
    assert!(decode_ledger_row(&[key, &[0]].concat(), &row).is_err(), "a row found under another key");
    for row in spoiled(ROW_VERSION, &row) {
        assert!(decode_ledger_row(key, &row).is_err(), "not one byte more, less or other");
    }
}

/// The row with a byte more, with one less, each also under a checksum that fits, and as a newer version.
fn spoiled(version: u8, row: &[u8]) -> [Vec<u8>; 5] {
    let (longer, shorter) = ([row, &[0]].concat(), row.split_last().map_or(row, |(_, shorter)| shorter).to_vec());
    let body = |row: &[u8]| row.get(1 + CHECKSUM_BYTES..).unwrap_or_default().to_vec();
    let newer = sealed(version + 1, &body(row));
    [sealed(version, &body(&longer)), sealed(version, &body(&shorter)), longer, shorter, newer]
}

/// A row with this body and the checksum that fits it: no fuzzer would find one.
fn sealed(version: u8, body: &[u8]) -> Vec<u8> {
    [&[version], checksum(version, body).as_slice(), body].concat()
}

/// Bytes to take values from. Where they end, zeros follow.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        self.0 = rest;
        let mut array = [0; N];
        array.iter_mut().zip(taken).for_each(|(place, byte)| *place = *byte);
        array
    }

    fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    fn number(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    /// Up to 255 bytes, behind their length.
    fn some(&mut self) -> Bytes {
        let length = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken.into()
    }

    fn name(&mut self) -> String {
        self.some().iter().map(|byte| char::from(byte & 0x7f)).collect()
    }

    fn perhaps(&mut self) -> Option<Bytes> {
        (self.byte() & 1 == 1).then(|| self.some())
    }

    fn time(&mut self) -> Option<UnixMillis> {
        (self.byte() & 1 == 1).then(|| UnixMillis(self.number()))
    }

    fn record(&mut self) -> Record {
        let state = match self.byte() % 8 {
            0 => State::Registered,
            1 => State::Dispatched,
            2 => State::InDoubt,
            3 => State::Completed(self.perhaps()),
            4 => State::Failed(Origin::RolledBack, self.some()),
            5 => State::Failed(Origin::Resolved, self.some()),
            6 => State::Tombstone(Mark::Fenced),
            _ => State::Tombstone(Mark::Expired),
        };
        Record {
            state,
            revision: self.number(),
            fingerprint: Fingerprint::from_bytes(self.array()),
            request: self.some(),
            attempt: AttemptId {
                number: u32::from_be_bytes(self.array()),
                boot: BootId(self.array()),
                token: Token(self.array()),
            },
            checkpoint: self.perhaps(),
            recoveries: self.byte(),
            created_at: UnixMillis(self.number()),
            updated_at: UnixMillis(self.number()),
            expires_at: self.time(),
            lapses_at: self.time(),
            tombstone_until: self.time(),
            contradiction: self.perhaps(),
            lapses_at_tick: self.time().map(|at| at.0),
            abandoned: self.byte() & 1 == 1,
        }
    }
}

/// Inputs to begin with: what the code itself makes.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let Ok(key) = Key::new("flow", b"scope", b"id") else { return Vec::new() };
    let mut seeds = vec![Vec::new(), key.as_bytes().to_vec(), row_key::join("table", b"key")];
    for kind in 0..8u8 {
        let record = Source(&[&[kind], [1, 3, b'a', b'b', b'c', 7, 1].repeat(30).as_slice()].concat()).record();
        let row = encode_row(&key, &record).unwrap_or_default();
        // The body, since a target seals it anew; its head is the key, the lengths of which begin a structured input, too.
        seeds.push(row.get(1 + CHECKSUM_BYTES..).unwrap_or_default().to_vec());
        seeds.push(row);
    }
    seeds
}
