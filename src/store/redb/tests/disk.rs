//! The simulated disk itself: what it keeps, loses, refuses, and how its losses are chosen.

use ::redb::StorageBackend;

use super::super::disk::{DiskError, DiskFault, DiskOperation, SimulatedDisk};
use super::*;

fn disk(bytes: &[u8]) -> SimulatedDisk {
    SimulatedDisk::holding(bytes).unwrap()
}

/// What is left of the file, in every loss after `syncs` syncs.
fn losses(disk: &SimulatedDisk, variants: usize, syncs: usize) -> BTreeSet<Vec<u8>> {
    let mut left = BTreeSet::new();
    disk.for_each_power_loss(variants, 3, |loss| {
        assert_eq!(loss.hash(), loss.disk().hash());
        if loss.syncs() == syncs {
            left.insert(loss.disk().bytes());
        }
    });
    left
}

#[test]
fn of_few_writes_every_subset_may_be_lost_and_what_was_synced_is_not() {
    let disk = disk(b"......");
    let file = disk.file().unwrap();
    for place in 0..3 {
        file.write(place, b"a").unwrap();
    }
    file.sync_data().unwrap();
    file.write(0, b"b").unwrap();
    file.write(3, b"b").unwrap();
    file.set_len(4).unwrap();
    let strings = |left: BTreeSet<Vec<u8>>| -> Vec<_> {
        left.into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect()
    };
    let before = ["......", "..a...", ".a....", ".aa...", "a.....", "a.a...", "aa....", "aaa..."];
    assert_eq!(strings(losses(&disk, 100, 0)), before);
    let after = ["aaa.", "aaa...", "aaab", "aaab..", "baa.", "baa...", "baab", "baab.."];
    assert_eq!(strings(losses(&disk, 100, 1)), after);
    assert_eq!(disk.without_power().bytes(), b"aaa...");
    assert_eq!(disk.bytes(), b"baab", "the disk itself loses nothing");
}

#[test]
fn of_many_writes_each_is_lost_alone_and_kept_alone() {
    let disk = disk(&[b'.'; 20]);
    let file = disk.file().unwrap();
    for place in 0..20 {
        file.write(place, b"a").unwrap();
    }
    let left = losses(&disk, 100, 0);
    for one in 0..20 {
        let (mut without, mut only) = ([b'a'; 20], [b'.'; 20]);
        (without[one], only[one]) = (b'.', b'a');
        assert!(left.contains(without.as_slice()) && left.contains(only.as_slice()));
    }
    assert!(left.len() > 80, "and then chance: {}", left.len());
    let mut count = 0;
    disk.for_each_power_loss(7, 3, |_| count += 1);
    assert_eq!(count, 7);
}

#[test]
fn a_torn_write_comes_through_in_whole_sectors() {
    let disk = disk(&[0; 8192]);
    let file = disk.file().unwrap();
    file.write(4096, &[1; 4096]).unwrap();
    file.write(100, &[1; 1000]).unwrap();
    let left = losses(&disk, 60, 0);
    assert!(left.len() > 40, "{}", left.len());
    for bytes in left {
        assert!(bytes[4096..].chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        assert!(bytes[100..512].iter().all(|byte| *byte == bytes[100]));
        assert!(bytes[512..1024].iter().all(|byte| *byte == bytes[512]));
    }
}

#[test]
fn what_a_failed_sync_should_have_written_reads_back_until_the_power_goes() {
    let disk = disk(b"..");
    let file = disk.file().unwrap();
    file.write(0, b"a").unwrap();
    disk.fail_one_sync_after(0);
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), cfg!(unix).then_some(5));
    assert_eq!(disk.syncs(), 0);
    file.write(1, b"b").unwrap();
    file.sync_data().unwrap();
    assert_eq!(disk.bytes(), b"ab");
    assert_eq!(disk.without_power().bytes(), b".b", "a later sync does not make up for it");
}

#[test]
fn a_lie_is_made_up_for_by_the_next_sync_and_what_was_forgotten_is_not() {
    for (forgets, syncs_once, syncs_twice) in [(false, b"..", b"ab"), (true, b"..", b".b")] {
        let disk = disk(b"..");
        let file = disk.file().unwrap();
        file.write(0, b"a").unwrap();
        if forgets {
            disk.forget_after(0);
        } else {
            disk.lie_after(0);
        }
        file.sync_data().unwrap();
        assert_eq!((disk.syncs(), disk.without_power().bytes().as_slice()), (1, syncs_once.as_slice()));
        file.write(1, b"b").unwrap();
        file.sync_data().unwrap();
        assert_eq!(disk.without_power().bytes(), syncs_twice);
    }
}

#[test]
fn a_new_name_is_durable_with_its_directory_and_the_old_file_is_there_until_then() {
    let disk = disk(b"old");
    let old = Place::open(&disk).unwrap().unwrap();
    let aside = disk.aside().unwrap();
    aside.file().write(0, b"new").unwrap();
    aside.file().sync_data().unwrap();
    disk.put_in_place().unwrap();
    assert!(disk.names(&aside).unwrap() && !disk.names(&old).unwrap());
    assert_eq!(disk.bytes(), b"new");
    assert_eq!(disk.without_power().bytes(), b"old");
    assert_eq!(losses(&disk, 20, 1), [b"new".to_vec(), b"old".to_vec()].into());
    let mut byte = [0];
    old.file().read(0, &mut byte).unwrap();
    assert_eq!(byte, *b"o", "who has it open still reads it");
    disk.sync_directory().unwrap();
    assert_eq!(losses(&disk, 20, 2), [b"new".to_vec()].into());
    let used = disk.used();
    drop(old);
    assert!(disk.used() < used, "and then it takes no room");
}

#[test]
fn a_fault_hits_the_operation_it_was_set_for_once_or_until_it_is_mended() {
    for (lasting, error) in [(false, DiskError::Full), (true, DiskError::Io)] {
        let disk = disk(b"...");
        let file = disk.file().unwrap();
        disk.inject(DiskFault { operation: DiskOperation::Write, after: 1, error, lasting });
        let results: Vec<_> = (0..3).map(|place| file.write(place, b"a").is_ok()).collect();
        assert_eq!(results, [true, false, !lasting]);
        file.read(0, &mut [0]).unwrap();
        file.set_len(2).unwrap();
        disk.mend();
        file.write(0, b"b").unwrap();
        assert_eq!(disk.operations(DiskOperation::Write), 4);
        assert_eq!(disk.failures(), 1 + usize::from(lasting));
        assert_eq!(disk.bytes(), b"b.", "what fails changes nothing");
    }
}

#[test]
fn a_quota_stops_new_pages_and_no_others() {
    let disk = disk(&[1; 4096]);
    let file = disk.file().unwrap();
    disk.set_quota(2 * 4096);
    file.set_len(10 * 4096).unwrap();
    file.write(4096, &[2; 4096]).unwrap();
    assert_eq!(file.write(2 * 4096, &[3; 10]).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    file.write(0, &[4; 8192]).unwrap();
    disk.mend();
    file.write(2 * 4096, &[3; 10]).unwrap();
}

#[test]
fn equal_contents_have_equal_hashes_whatever_led_to_them() {
    let (one, other) = (disk(&[0; 9000]), disk(b""));
    let file = one.file().unwrap();
    file.write(5000, b"abc").unwrap();
    file.write(5000, &[0; 3]).unwrap();
    other.file().unwrap().set_len(9000).unwrap();
    assert_eq!(one.hash(), other.hash());
    file.set_len(8999).unwrap();
    assert_ne!(one.hash(), other.hash());
    other.file().unwrap().write(8998, b"x").unwrap();
    assert_ne!(other.hash(), disk(&[0; 9000]).hash());
}

#[test]
fn the_file_behaves_as_bytes_do() {
    let mut dice = super::crash::Dice(0x1234_5678_9abc_def1);
    let (disk, mut expected) = (disk(b""), Vec::<u8>::new());
    let file = disk.file().unwrap();
    for round in 0..400 {
        let (at, len) = (dice.roll(20_000) as usize, dice.roll(9_000) as usize);
        let (at, len) = if dice.roll(3) == 0 { (at / 4096 * 4096, 4096) } else { (at, len) };
        if dice.roll(6) == 0 {
            expected.resize(at, 0);
            file.set_len(at as u64).unwrap();
        } else {
            let bytes = vec![round as u8; len];
            expected.resize(expected.len().max(at + len), 0);
            expected[at..at + len].copy_from_slice(&bytes);
            file.write(at as u64, &bytes).unwrap();
        }
        assert_eq!(file.len().unwrap(), expected.len() as u64);
        let from = dice.roll(expected.len() as u64 + 1) as usize;
        let mut read = vec![0; (expected.len() - from).min(6_000)];
        file.read(from as u64, &mut read).unwrap();
        assert!(read == expected[from..from + read.len()], "round {round}");
        assert!(file.read(expected.len() as u64, &mut [0]).is_err());
    }
    assert!(disk.bytes() == expected);
}

#[test]
fn a_file_that_is_open_is_locked_and_given_up_when_it_is_closed_or_dropped() {
    let disk = SimulatedDisk::new().unwrap();
    let store = disk.open(small()).unwrap();
    assert!(matches!(disk.open(small()), Err(StoreError::AlreadyOpen)));
    store.close().unwrap();
    drop(disk.open(small()).unwrap());
    disk.open(small()).unwrap();
}

#[test]
fn what_a_loss_leaves_can_be_lost_in_turn() {
    let disk = SimulatedDisk::new().unwrap();
    let store = disk.open(small()).unwrap();
    store.commit(&batch(1, vec![put(&key(1, 1), None, &registered(1))])).unwrap();
    let (acknowledged, mut twice) = (disk.syncs(), 0);
    let mut seen = BTreeSet::new();
    disk.for_each_power_loss(6, 1, |loss| {
        let left = loss.disk();
        let content = check_invariants(&left.open(small()).unwrap());
        assert!(content.records.len() == 1 || loss.syncs() < acknowledged);
        left.for_each_power_loss(6, 2, |again| {
            twice += usize::from(seen.insert(again.hash()));
            assert_eq!(check_invariants(&again.disk().open(small()).unwrap()), content, "{loss:?}, {again:?}");
        });
    });
    assert!(twice > 50, "only {twice} distinct images");
}
