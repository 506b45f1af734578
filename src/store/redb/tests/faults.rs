//! A disk that fails at any of its operations: no commit is called rolled back, and `reopen` brings the truth to light.

use super::super::disk::SimulatedDisk;
use super::*;

#[test]
fn after_a_failed_commit_reopening_shows_all_of_it_or_nothing_and_commits_work_again() {
    let mut failed = 0;
    for operations in 0.. {
        let disk = SimulatedDisk::new().unwrap();
        let store = disk.open(small()).unwrap();
        let first = put(&key(1, 1), None, &registered(1));
        store.commit(&batch(1, vec![first])).unwrap();

        disk.fail_after(operations);
        let changes: Vec<_> = (2..30).map(|id| put(&key(1, id), None, &registered(id.into()))).collect();
        match store.commit(&batch(2, changes.clone())) {
            Ok(_) => break,
            // "Rolled back" would be a lie for some of these: nobody can know before the file is opened again.
            Err(error) => assert!(matches!(error, StoreError::Io(_)), "{operations}: {error:?}"),
        }
        failed += 1;
        assert_eq!(store.get(&key(1, 1)).unwrap(), Some(registered(1)), "what is cached is still served");
        assert!(matches!(store.commit(&batch(3, vec![])), Err(StoreError::Io(_))), "the writer stays down");
        assert!(matches!(store.reopen(), Err(StoreError::Io(_))), "and so does the file, while the disk is");
        assert!(matches!(store.get(&key(1, 1)), Err(StoreError::Io(_))));
        assert!(matches!(store.rest(), Err(StoreError::Io(_))));

        disk.mend();
        store.reopen().unwrap();
        let records = check_invariants(&store).records;
        assert!(records.len() == 1 || records.len() == 29, "{operations}: {} records", records.len());
        let expected = if records.len() == 1 { Verdict::Applied } else { Verdict::Fenced };
        assert_eq!(store.commit(&batch(4, changes)).unwrap(), vec![expected; 28]);
        assert_eq!(check_invariants(&store).records.len(), 29);
        store.close().unwrap();
    }
    assert!(failed > 5, "only {failed} operations in a commit");
}

#[test]
fn closing_gives_the_file_up_also_when_the_disk_has_failed_or_the_file_is_lost() {
    let disk = SimulatedDisk::new().unwrap();
    let store = disk.open(small()).unwrap();
    disk.fail_after(0);
    assert!(store.reopen().is_err());
    store.close().unwrap();
    assert!(matches!(store.close(), Err(StoreError::Closed)));
}

#[test]
fn what_is_read_back_after_a_failed_sync_and_a_reopening_survives_the_power_loss_that_follows() {
    let mut failed = 0;
    let checks = [IntegrityCheck::Always, IntegrityCheck::AfterUncleanEnd, IntegrityCheck::Never];
    for (syncs, count, check) in (0..12).flat_map(|n| checks.map(|check| [(n, 3, check), (n, 60, check)])).flatten() {
        let disk = SimulatedDisk::new().unwrap();
        let store = disk.open(small().integrity_check(check)).unwrap();
        store.commit(&batch(1, vec![put(&key(1, 1), None, &registered(1))])).unwrap();

        disk.fail_one_sync_after(syncs);
        let changes: Vec<_> = (2..count).map(|id| put(&key(1, id), None, &registered(id.into()))).collect();
        let mut lost = store.commit(&batch(2, changes.clone())).is_err();
        while lost {
            failed += 1;
            // A sync may fail while the store is being reopened, too.
            while store.reopen().is_err() {}
            lost = store.commit(&batch(2, changes.clone())).is_err();
        }
        let acknowledged = check_invariants(&store);
        assert_eq!(acknowledged.records.len(), usize::from(count) - 1);

        // The power goes: what was cached is gone.
        let survivor = disk.without_power().open(small()).unwrap();
        assert_eq!(check_invariants(&survivor), acknowledged, "sync {syncs}, {count} records");
    }
    assert!(failed >= 8, "only {failed} commits failed");
}
