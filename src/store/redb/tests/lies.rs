//! A disk that calls a sync done and has not done it. What comes back after a power loss is the state of some commit,
//! perhaps not the last, or is refused: never a mix of two.

use super::super::disk::SimulatedDisk;
use super::crash::{Dice, change};
use super::*;

/// Some commits, with rests and a reopening. Returns every state that was acknowledged.
fn live(disk: &SimulatedDisk, seed: u64) -> Vec<Content> {
    let store = disk.open(small()).unwrap();
    let (mut dice, mut content) = (Dice(seed), Content::default());
    let mut states = vec![content.clone()];
    for now in 1..=8 {
        let most = if now % 3 == 0 { 20 } else { 3 };
        let changes = (0..=most).map(|_| change(&mut content, &mut dice, now)).collect();
        content.clock_mark = UnixMillis(now);
        store.commit(&batch(now, changes)).unwrap();
        states.push(content.clone());
        match now {
            3 => store.rest().unwrap(),
            5 => store.reopen().unwrap(),
            _ => {}
        }
    }
    store.close().unwrap();
    states
}

#[test]
fn after_a_sync_that_was_a_lie_a_power_loss_leaves_one_commit_whole_or_a_file_that_is_refused() {
    // The same images come again with each lie, and one look at each is enough.
    let mut seen = BTreeSet::new();
    let (mut last, mut rolled_back, mut refused) = (0, 0, 0);
    for (lie, forgets) in (0..).flat_map(|lie| [(lie, true), (lie, false)]) {
        let disk = SimulatedDisk::new().unwrap();
        if forgets {
            disk.forget_after(lie)
        } else {
            disk.lie_after(lie)
        }
        let states = live(&disk, 0x9e37_79b9_7f4a_7c15);
        disk.for_each_power_loss(4, lie as u64, |loss| {
            if loss.syncs() < lie || !seen.insert(loss.hash()) {
                return;
            }
            let left = loss.disk();
            match left.open(small()) {
                Ok(store) => {
                    let content = check_invariants(&store);
                    let state = states.iter().rposition(|state| *state == content);
                    let state = state.unwrap_or_else(|| panic!("lie {lie}, {loss:?}: a mix of states"));
                    *(if state + 1 == states.len() { &mut last } else { &mut rolled_back }) += 1;
                    left.fail_after(0);
                }
                Err(StoreError::Corrupt(_)) => refused += 1,
                Err(other) => panic!("lie {lie}, {loss:?}: {other:?}"),
            }
        });
        if lie > disk.syncs() {
            break;
        }
    }
    assert!(last > 5 && rolled_back > 50 && refused > 20, "{last} last, {rolled_back} rolled back, {refused} refused");
}

#[test]
fn a_whole_file_that_was_rolled_back_is_opened_since_nothing_in_it_is_wrong() {
    let disk = SimulatedDisk::new().unwrap();
    let store = disk.open(small()).unwrap();
    store.commit(&batch(1, vec![put(&key(1, 1), None, &registered(1))])).unwrap();
    let old = disk.without_power();
    store.commit(&batch(2, vec![put(&key(1, 2), None, &registered(2))])).unwrap();
    assert_eq!(check_invariants(&old.open(small()).unwrap()).records.len(), 1);
}
