//! A store's file with bytes changed: it opens or is refused with a typed error, and what it then says of a record is what
//! was written there once, or an error.
#![no_main]

use std::sync::{Arc, OnceLock};

use ibid::store::{Batch, Change, IntegrityCheck, RedbOptions, Store, StoreError, Version};
use ibid::testing::SimulatedDisk;
use ibid::{AttemptId, BootId, Fingerprint, Flow, Key, Policy, Record, Row, State, Token, UnixMillis};

/// A file, and what it has held under each key, the newest last.
struct Image {
    bytes: Vec<u8>,
    records: Vec<(Key, [Record; 2])>,
}

static IMAGE: OnceLock<Image> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        // redb panics on some files, and the store makes an error of that. The fuzzer's own hook would end the process first;
        // a panic that gets out still does.
        std::panic::set_hook(Box::new(|panic| {
            if !panic.location().is_some_and(|place| place.file().contains("/redb-")) {
                eprintln!("{panic}");
            }
        }));
    },
    |bytes: &[u8]| {
        let image = IMAGE.get_or_init(Image::new);
        let Some((flags, edits)) = bytes.split_first() else { return };
        check(image, &edited(&image.bytes, edits), flags & 1 == 0);
    }
);

/// Four bytes an edit: where, and what is flipped there. Nothing to flip: the file ends there.
fn edited(image: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut file = image.to_vec();
    for edit in edits.chunks_exact(4) {
        let at = usize::from(edit[0]) << 16 | usize::from(edit[1]) << 8 | usize::from(edit[2]);
        match (at % file.len().max(1), edit[3]) {
            (at, 0) => file.truncate(at),
            (at, flip) => file.get_mut(at).into_iter().for_each(|byte| *byte ^= flip),
        }
    }
    file
}

fn check(image: &Image, file: &[u8], integrity_check: bool) {
    let disk = SimulatedDisk::holding(file).expect("there is room for it");
    let store = match disk.open(RedbOptions::default().cache_bytes(1 << 20).integrity_check(if integrity_check { IntegrityCheck::Always } else { IntegrityCheck::Never })) {
        Ok(store) => store,
        Err(error) => return fails_as_documented(&error),
    };
    for (key, versions) in &image.records {
        match store.get(key) {
            Ok(None) => assert!(!integrity_check, "damage passed for an absent record"),
            Ok(Some(record)) => assert!(versions.contains(&record), "a record that was never written"),
            Err(error) => fails_as_documented(&error),
        }
    }
    store.in_flight(None, 9).err().iter().for_each(fails_as_documented);
    store.removable(UnixMillis(u64::MAX), u64::MAX, 9).err().iter().for_each(fails_as_documented);
    store.rows("table", None, 9).err().iter().for_each(fails_as_documented);
    store.expired_rows(UnixMillis(u64::MAX), 9).err().iter().for_each(fails_as_documented);
    store.tick_mark().err().iter().for_each(fails_as_documented);
    store.totals().err().iter().for_each(fails_as_documented);
    // Closing takes as long as opening, and shows nothing more.
    disk.fail_after(0);
}

fn fails_as_documented(error: &StoreError) {
    assert!(!matches!(error, StoreError::AlreadyOpen | StoreError::Closed), "{error:?}");
    assert!(!error.to_string().is_empty());
}

impl Image {
    fn new() -> Self {
        let disk = SimulatedDisk::new().unwrap();
        let store = disk.open(RedbOptions::default()).unwrap();
        let records: Vec<_> = (1..5).map(|id| (key(id), [registered(id), completed(id)])).collect();
        for version in 0..2usize {
            let change = |(key, versions): &(Key, [Record; 2])| {
                let expected = version.checked_sub(1).map(|before| Version::of(&versions[before]));
                let row = Row::new("table", key.id(), *b"value").unwrap().expires_at(UnixMillis(9));
                let put = Some(Arc::new(versions[version].clone()));
                Change { rows: vec![row], ..Change::new(key.clone(), expected, put) }
            };
            store.commit(&Batch { changes: records.iter().map(change).collect(), ..batch() }).unwrap();
        }
        store.close().unwrap();
        Self { bytes: disk.bytes(), records }
    }
}

fn batch() -> Batch {
    Batch { now: UnixMillis(1), records_per_scope: 100, ..Batch::default() }
}

fn key(id: u8) -> Key {
    Flow::new("fuzz", Policy::request_invoice()).unwrap().key(b"scope", [id]).unwrap()
}

fn registered(id: u8) -> Record {
    Record {
        revision: 1,
        fingerprint: Fingerprint::of("fuzz", &[id]),
        request: [id; 9].as_slice().into(),
        attempt: AttemptId { number: 1, boot: BootId([id; 16]), token: Token([id; 32]) },
        state: State::Registered,
        checkpoint: None,
        recoveries: 0,
        created_at: UnixMillis(1),
        updated_at: UnixMillis(1),
        expires_at: Some(UnixMillis(9)),
        lapses_at: None,
        tombstone_until: None,
        contradiction: None,
        lapses_at_tick: None,
        abandoned: false,
    }
}

fn completed(id: u8) -> Record {
    let state = State::Completed(Some([id; 30].as_slice().into()));
    Record { revision: 2, state, lapses_at: Some(UnixMillis(12)), lapses_at_tick: Some(7), ..registered(id) }
}
