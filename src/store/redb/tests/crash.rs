//! Power loss at every sync: whatever was not synced is there in any part, and no acknowledged commit may be missing.

use std::sync::{Arc, Mutex};

use ::redb::StorageBackend;

use super::super::create::first_commit;
use super::super::image::Image;
use super::*;

const SECTOR_BYTES: usize = 512;

/// A backend that remembers what was done to it.
#[derive(Clone, Debug)]
struct Recorder {
    image: Image,
    steps: Arc<Mutex<Vec<Step>>>,
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

impl Recorder {
    fn over(bytes: Vec<u8>) -> Self {
        Self { image: Image::of(bytes), steps: Arc::default() }
    }

    fn note(&self, step: Step) {
        self.steps.lock().unwrap().push(step);
    }

    fn position(&self) -> usize {
        self.steps.lock().unwrap().len()
    }
}

impl StorageBackend for Recorder {
    fn len(&self) -> std::io::Result<u64> {
        self.image.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.image.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.note(Step::SetLen(len));
        self.image.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.note(Step::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.note(Step::Write(offset, data.to_vec()));
        self.image.write(offset, data)
    }
}

/// Numbers from a seed (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// What was acknowledged, and how far the disk had been driven by then.
struct Acknowledged {
    position: usize,
    records: BTreeMap<Key, Record>,
    clock_mark: UnixMillis,
}

/// A life of a store: batches of all sizes, rests, reopenings. Returns every acknowledged state, the empty one first.
fn live(recorder: &Recorder, dice: &mut Dice, batches: u64) -> Vec<Acknowledged> {
    let source = recorder.clone();
    let store = RedbStore::with_backend(move || source.clone(), small()).unwrap();
    let mut records = BTreeMap::new();
    let mut states = vec![Acknowledged { position: 0, records: records.clone(), clock_mark: UnixMillis(0) }];
    for now in 1..=batches {
        let most = if dice.roll(4) == 0 { 30 } else { 4 };
        let changes = (0..=dice.roll(most)).map(|_| change(&mut records, dice, now)).collect();
        let verdicts = store.commit(&batch(now, changes)).unwrap();
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Applied));
        states.push(Acknowledged {
            position: recorder.position(),
            records: records.clone(),
            clock_mark: UnixMillis(now),
        });
        match dice.roll(8) {
            0 => store.rest().unwrap(),
            1 => store.reopen().unwrap(),
            _ => {}
        }
    }
    store.close().unwrap();
    states
}

/// The next change of some key: it is registered, then completed, then removed.
fn change(records: &mut BTreeMap<Key, Record>, dice: &mut Dice, now: u64) -> Change {
    let key = key(dice.roll(3) as u8, dice.roll(40) as u8);
    let before = records.get(&key).cloned();
    let after = match &before {
        None => Some(registered(dice.roll(u64::MAX))),
        Some(record) if record.state.status().is_in_flight() => {
            let len = if dice.roll(10) == 0 { 5_000 } else { 100 };
            Some(completed(record, &vec![now as u8; len], now + dice.roll(20)))
        }
        Some(_) => None,
    };
    match &after {
        Some(record) => records.insert(key.clone(), record.clone()),
        None => records.remove(&key),
    };
    Change { key, expected: before.as_ref().map(Version::of), put: after.map(Box::new) }
}

/// How much of what was not synced has reached the disk.
#[derive(Clone, Copy, Debug)]
enum Kept {
    Nothing,
    Everything,
    SomeSteps,
    SomeSectors,
}

fn crash_image(durable: &[u8], unsynced: &[Step], kept: Kept, dice: &mut Dice) -> Vec<u8> {
    let image = Image::of(durable.to_vec());
    for step in unsynced {
        let keep = match kept {
            Kept::Nothing => false,
            Kept::Everything => true,
            Kept::SomeSteps | Kept::SomeSectors => dice.roll(2) == 0,
        };
        match step {
            Step::Write(offset, data) if matches!(kept, Kept::SomeSectors) => {
                for (sector, part) in data.chunks(SECTOR_BYTES).enumerate() {
                    if dice.roll(2) == 0 {
                        image.write(offset + (sector * SECTOR_BYTES) as u64, part).unwrap();
                    }
                }
            }
            Step::Write(offset, data) if keep => image.write(*offset, data).unwrap(),
            Step::SetLen(len) if keep => image.set_len(*len).unwrap(),
            Step::Write(..) | Step::SetLen(_) | Step::Sync => {}
        }
    }
    image.bytes()
}

/// Opens the image and compares: the last acknowledged state, or the whole of the next one, and nothing between.
fn check_image(image: Vec<u8>, position: usize, states: &[Acknowledged], options: RedbOptions, why: &str) {
    let image = Image::of(image);
    let source = image.clone();
    let store =
        RedbStore::with_backend(move || source.clone(), options).unwrap_or_else(|error| panic!("{why}: {error:?}"));
    let (records, clock_mark) = check_invariants(&store);
    let last = states.iter().rposition(|state| state.position <= position).unwrap();
    let matches = |state: &Acknowledged| state.records == records && state.clock_mark == clock_mark;
    assert!(states[last..].iter().take(2).any(matches), "{why}: the state is neither {last} nor the next");
    if position.is_multiple_of(8) {
        // It goes on from there.
        let fresh = key(9, 9);
        store.commit(&batch(1_000_000, vec![put(&fresh, None, &registered(7))])).unwrap();
        store.reopen().unwrap();
        assert_eq!(check_invariants(&store).0.len(), records.len() + 1, "{why}");
    }
    // Closing takes as long as opening, and shows nothing more.
    image.set_failing(true);
}

fn crash_everywhere(seed: u64, batches: u64) -> usize {
    let mut dice = Dice(seed);
    let empty = first_commit(&small()).unwrap();
    let recorder = Recorder::over(empty.clone());
    let states = live(&recorder, &mut dice, batches);
    let steps = recorder.steps.lock().unwrap().clone();
    let mut durable = empty;
    let mut unsynced = 0;
    let mut images = 0;
    for (position, step) in steps.iter().enumerate() {
        if !matches!(step, Step::Sync) {
            continue;
        }
        let lost = &steps[unsynced..position];
        let kinds = [Kept::Nothing, Kept::Everything, Kept::SomeSteps, Kept::SomeSteps, Kept::SomeSectors];
        for (variant, kept) in kinds.into_iter().enumerate() {
            let image = crash_image(&durable, lost, kept, &mut dice);
            let options = small().integrity_check((position + variant) % 2 == 0);
            check_image(image, position, &states, options, &format!("seed {seed}, step {position}, {kept:?}"));
            images += 1;
        }
        durable = crash_image(&durable, lost, Kept::Everything, &mut dice);
        unsynced = position + 1;
    }
    images
}

#[test]
fn every_acknowledged_commit_survives_a_power_loss_at_every_sync() {
    let images: usize = std::thread::scope(|scope| {
        let runs =
            [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9].map(|seed| scope.spawn(move || crash_everywhere(seed, 30)));
        runs.into_iter().map(|run| run.join().unwrap()).sum()
    });
    assert!(images > 800, "only {images} images");
}
