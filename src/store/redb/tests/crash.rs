//! Power loss at every sync: whatever was not synced is there in any part, and no acknowledged commit may be missing.

use super::super::disk::SimulatedDisk;
use super::*;

/// Numbers from a seed (xorshift).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// What was acknowledged, and how many syncs had made it durable by then.
struct Acknowledged {
    syncs: usize,
    content: Content,
}

/// A life of a store: batches of all sizes, rests, reopenings. Returns every acknowledged state, the empty one first.
fn live(disk: &SimulatedDisk, dice: &mut Dice, batches: u64) -> Vec<Acknowledged> {
    let store = disk.open(small()).unwrap();
    let mut content = Content::default();
    let mut states = vec![Acknowledged { syncs: 0, content: content.clone() }];
    for now in 1..=batches {
        let most = if dice.roll(4) == 0 { 30 } else { 4 };
        let changes = (0..=dice.roll(most)).map(|_| change(&mut content, dice, now)).collect();
        content.clock_mark = UnixMillis(now);
        let expired_rows = store.expired_rows(UnixMillis(now), 8).unwrap();
        for expired in &expired_rows {
            let key = row_key::join(&expired.table, &expired.key);
            if content.rows.get(&key).is_some_and(|row| row.expires_at == Some(expired.expires_at)) {
                content.rows.remove(&key);
            }
        }
        content.tick_mark = content.tick_mark.max(now / 2);
        let verdicts = store.commit(&Batch { tick: now / 2, expired_rows, ..batch(now, changes) }).unwrap();
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Applied));
        states.push(Acknowledged { syncs: disk.syncs(), content: content.clone() });
        match dice.roll(8) {
            0 => store.rest().unwrap(),
            1 => store.reopen().unwrap(),
            _ => {}
        }
    }
    store.close().unwrap();
    states
}

/// The next change of some key: it is registered, perhaps with checkpoints to follow, then completed with a row of its own, then put off by some ticks with
/// another row, or removed, perhaps with a row.
pub(super) fn change(content: &mut Content, dice: &mut Dice, now: u64) -> Change {
    let records = &mut content.records;
    let key = key(dice.roll(3) as u8, dice.roll(40) as u8);
    let before = records.get(&key).cloned();
    let after = match &before {
        None => Some(registered(dice.roll(u64::MAX))),
        // It grows in flight, perhaps beyond what lies among the counters, or shrinks again.
        Some(record) if record.state.status().is_in_flight() && dice.roll(3) == 0 => {
            let checkpoint = vec![now as u8; if dice.roll(2) == 0 { 3_000 } else { 30 }];
            Some(Record { revision: record.revision + 1, checkpoint: Some(checkpoint.into()), ..record.clone() })
        }
        Some(record) if record.state.status().is_in_flight() => {
            let len = if dice.roll(10) == 0 { 5_000 } else { 100 };
            let lapses_at_tick = (dice.roll(2) == 0).then(|| now + dice.roll(20));
            Some(Record { lapses_at_tick, ..completed(record, &vec![now as u8; len], now + dice.roll(20)) })
        }
        Some(record) if dice.roll(3) == 0 => {
            let (revision, lapses_at_tick) = (record.revision + 1, Some(now + dice.roll(20)));
            Some(Record { revision, lapses_at_tick, ..record.clone() })
        }
        Some(_) => None,
    };
    match &after {
        Some(record) => records.insert(key.clone(), record.clone()),
        None => records.remove(&key),
    };
    let rows: Vec<_> = match &after {
        Some(record) if record.state.status().is_in_flight() => vec![],
        Some(_) => vec![row(&key, dice, now)],
        None => vec![Row::removal(ledger_table(dice), key.as_bytes()).unwrap()],
    };
    for row in &rows {
        let joined = row_key::join(&row.table, &row.key);
        match row.outcome() {
            Some(stored) => content.rows.insert(joined, stored),
            None => content.rows.remove(&joined),
        };
    }
    // Sometimes its own, mostly another's, or nobody's.
    let listed_at = now.is_multiple_of(3).then_some(Cursor(now % 40));
    Change { rows, listed_at, ..Change::new(key, before.as_ref().map(Version::of), after.map(Arc::new)) }
}

fn ledger_table(dice: &mut Dice) -> &'static str {
    if dice.roll(2) == 0 { "even" } else { "odd" }
}

/// The row that a key completes with: of some length, with an end or without.
fn row(key: &Key, dice: &mut Dice, now: u64) -> Row {
    let len = if dice.roll(10) == 0 { 5_000 } else { 20 };
    let row = Row::new(ledger_table(dice), key.as_bytes(), vec![now as u8; len]).unwrap();
    if dice.roll(3) == 0 { row } else { row.expires_at(UnixMillis(now + dice.roll(10))) }
}

/// Opens what is left and compares: the last acknowledged state, or the whole of the next one, and nothing between.
fn check(disk: &SimulatedDisk, syncs: usize, states: &[Acknowledged], options: RedbOptions, further: bool, why: &str) {
    let store = disk.open(options).unwrap_or_else(|error| panic!("{why}: {error:?}"));
    let content = check_invariants(&store);
    let last = states.iter().rposition(|state| state.syncs <= syncs).unwrap();
    // A record without its row, or a row without its record, would match neither.
    assert!(
        states[last..].iter().take(2).any(|state| state.content == content),
        "{why}: the state is neither {last} nor the next"
    );
    if further {
        let fresh = key(9, 9);
        let row = Row::new("fresh", *b"row", *b"value").unwrap();
        let change = Change { rows: vec![row], ..put(&fresh, None, &registered(7)) };
        store.commit(&batch(1_000_000, vec![change])).unwrap();
        store.reopen().unwrap();
        let now = check_invariants(&store);
        let expected = (content.records.len() + 1, content.rows.len() + 1);
        assert_eq!((now.records.len(), now.rows.len()), expected, "{why}");
    }
    // Closing takes as long as opening, and shows nothing more.
    disk.fail_after(0);
}

fn crash_everywhere(seed: u64, batches: u64) -> usize {
    let disk = SimulatedDisk::new().unwrap();
    let states = live(&disk, &mut Dice(seed), batches);
    let mut images = 0;
    disk.for_each_power_loss(5, seed, |loss| {
        images += 1;
        let check_pages = if images % 2 == 0 { IntegrityCheck::Always } else { IntegrityCheck::Never };
        let options = small().integrity_check(check_pages);
        check(&loss.disk(), loss.syncs(), &states, options, images % 8 == 0, &format!("seed {seed}, {loss:?}"));
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
