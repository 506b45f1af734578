//! Power loss at every sync: whatever was not synced is there in any part, and no acknowledged commit may be missing.

use super::super::disk::SimulatedDisk;
use super::*;

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

/// What was acknowledged, and how many syncs had made it durable by then.
struct Acknowledged {
    syncs: usize,
    records: BTreeMap<Key, Record>,
    clock_mark: UnixMillis,
}

/// A life of a store: batches of all sizes, rests, reopenings. Returns every acknowledged state, the empty one first.
fn live(disk: &SimulatedDisk, dice: &mut Dice, batches: u64) -> Vec<Acknowledged> {
    let store = disk.open(small()).unwrap();
    let mut records = BTreeMap::new();
    let mut states = vec![Acknowledged { syncs: 0, records: records.clone(), clock_mark: UnixMillis(0) }];
    for now in 1..=batches {
        let most = if dice.roll(4) == 0 { 30 } else { 4 };
        let changes = (0..=dice.roll(most)).map(|_| change(&mut records, dice, now)).collect();
        let verdicts = store.commit(&batch(now, changes)).unwrap();
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Applied));
        states.push(Acknowledged { syncs: disk.syncs(), records: records.clone(), clock_mark: UnixMillis(now) });
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
    Change { key, expected: before.as_ref().map(Version::of), put: after.map(Box::new), rows: Vec::new() }
}

/// Opens what is left and compares: the last acknowledged state, or the whole of the next one, and nothing between.
fn check(disk: &SimulatedDisk, syncs: usize, states: &[Acknowledged], options: RedbOptions, further: bool, why: &str) {
    let store = disk.open(options).unwrap_or_else(|error| panic!("{why}: {error:?}"));
    let (records, clock_mark) = check_invariants(&store);
    let last = states.iter().rposition(|state| state.syncs <= syncs).unwrap();
    let matches = |state: &Acknowledged| state.records == records && state.clock_mark == clock_mark;
    assert!(states[last..].iter().take(2).any(matches), "{why}: the state is neither {last} nor the next");
    if further {
        let fresh = key(9, 9);
        store.commit(&batch(1_000_000, vec![put(&fresh, None, &registered(7))])).unwrap();
        store.reopen().unwrap();
        assert_eq!(check_invariants(&store).0.len(), records.len() + 1, "{why}");
    }
    // Closing takes as long as opening, and shows nothing more.
    disk.fail_after(0);
}

fn crash_everywhere(seed: u64, batches: u64) -> usize {
    let disk = SimulatedDisk::new().unwrap();
    let states = live(&disk, &mut Dice(seed), batches);
    let mut images = 0;
    disk.for_each_power_loss(5, seed, |syncs, left| {
        images += 1;
        let options = small().integrity_check(images % 2 == 0);
        check(&left, syncs, &states, options, images % 8 == 0, &format!("seed {seed}, image {images}"));
    });
    images
}

#[test]
fn every_acknowledged_commit_survives_a_power_loss_at_every_sync() {
    let images: usize = std::thread::scope(|scope| {
        let seeds = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9];
        let runs = seeds.map(|seed| scope.spawn(move || crash_everywhere(seed, 30)));
        runs.into_iter().map(|run| run.join().unwrap()).sum()
    });
    assert!(images > 800, "only {images} images");
}
