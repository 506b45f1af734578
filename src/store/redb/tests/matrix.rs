//! Every operation of a short life fails, in every way: nothing panics, nothing acknowledged is lost.

use super::super::disk::{DiskError, DiskFault, DiskOperation, SimulatedDisk};
use super::crash::{Dice, change};
use super::*;

/// What was asked last, of which nobody knows whether it was done.
struct Life {
    disk: SimulatedDisk,
    store: RedbStore,
    /// As acknowledged.
    content: Content,
    fault: DiskFault,
}

impl Life {
    /// Checks the error, mends the disk and brings the store back. The failed commit is there or not, as a whole.
    fn recover(&mut self, failed: &StoreError, asked: Content) {
        let fault = self.fault;
        assert!(matches!(failed, StoreError::Io(_)), "{fault:?}: {failed:?}");
        // One that comes once may be over by now, or hit the reopening.
        if fault.lasting || self.store.reopen().is_err() {
            self.disk.mend();
            self.store.reopen().unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
        }
        let found = check_invariants(&self.store);
        assert!(found == self.content || found == asked, "{fault:?}: neither before nor after the failed commit");
        self.content = found;
    }

    fn commit(&mut self, batch: &Batch, asked: Content) {
        match self.store.commit(batch) {
            Ok(_) => self.content = asked,
            Err(error) => self.recover(&error, asked),
        }
    }

    /// Changes of no record that say nothing of what is stored: resting and reopening.
    fn upkeep(&mut self, step: impl FnOnce(&RedbStore) -> Result<(), StoreError>) {
        if let Err(error) = step(&self.store) {
            self.recover(&error, self.content.clone());
        }
    }

    /// Reading fails as a whole or shows what is there.
    fn read(&mut self) {
        match self.store.removable(UnixMillis(4), 4, 64) {
            Ok(due) => assert!(due.iter().all(|(key, record)| self.content.records.get(key) == Some(record))),
            Err(error) => self.recover(&error, self.content.clone()),
        }
    }

    /// Removes what has expired, records and rows.
    fn expire(&mut self, now: u64) {
        let due = self.store.removable(UnixMillis(now), now, 64);
        let rows = self.store.expired_rows(UnixMillis(now), 64);
        let (Ok(due), Ok(expired_rows)) = (due, rows) else { return self.read() };
        let mut asked = self.content.clone();
        let mut changes = Vec::new();
        for (key, record) in due {
            asked.records.remove(&key);
            changes.push(gone(&key, &record));
        }
        for row in &expired_rows {
            asked.rows.remove(&row_key::join(&row.table, &row.key));
        }
        asked.clock_mark = asked.clock_mark.max(UnixMillis(now));
        asked.tick_mark = now;
        self.commit(&Batch { tick: now, expired_rows, ..batch(now, changes) }, asked);
    }

    fn grow(&mut self, dice: &mut Dice, now: u64, changes: u64) {
        let mut asked = self.content.clone();
        let changes = (0..changes).map(|_| change(&mut asked, dice, now)).collect();
        asked.clock_mark = UnixMillis(now);
        self.commit(&batch(now, changes), asked);
    }
}

/// One life with one fault. Says whether the fault was met.
fn live_with(fault: DiskFault) -> bool {
    let disk = SimulatedDisk::new().unwrap();
    disk.inject(fault);
    let small = || RedbOptions::default().cache_bytes(64 * 1024);
    let store = match disk.open(small()) {
        Ok(store) => store,
        Err(error) => {
            assert!(matches!(error, StoreError::Io(_)), "{fault:?}: {error:?}");
            disk.mend();
            disk.open(small()).unwrap()
        }
    };
    let mut life = Life { disk, store, content: Content::default(), fault };
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    life.grow(&mut dice, 1, 3);
    life.grow(&mut dice, 2, 60);
    life.upkeep(Store::rest);
    life.grow(&mut dice, 3, 4);
    life.grow(&mut dice, 4, 150);
    life.expire(5);
    life.upkeep(Store::reopen);
    life.read();
    life.grow(&mut dice, 6, 2);
    // What closing reports is no news about what was acknowledged.
    match life.store.close() {
        Ok(()) | Err(StoreError::Io(_)) => {}
        Err(other) => panic!("{fault:?}: {other:?}"),
    }
    let met = life.disk.failures() > 0;
    let survivor = life.disk.without_power().open(small()).unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
    assert!(check_invariants(&survivor) == life.content, "{fault:?}: lost with the power");
    met
}

/// How many faults were met: those of every `step`th operation of its kind.
fn faults_of(operation: DiskOperation, step: usize) -> usize {
    let ways = [(DiskError::Io, false), (DiskError::Io, true), (DiskError::Full, false), (DiskError::Full, true)];
    let lives = (0..).step_by(step).map(|after| {
        let met = |(error, lasting)| live_with(DiskFault { operation, after, error, lasting });
        ways.into_iter().filter(|way| met(*way)).count()
    });
    lives.take_while(|met| *met > 0).sum()
}

#[test]
fn every_operation_may_fail_once_or_for_ever_and_nothing_acknowledged_is_lost() {
    let counts: Vec<_> = std::thread::scope(|scope| {
        let kinds = [
            (DiskOperation::Write, one_of(29)),
            (DiskOperation::Read, one_of(17)),
            (DiskOperation::SetLen, 1),
            (DiskOperation::Sync, one_of(3)),
            (DiskOperation::SyncDirectory, 1),
        ];
        let runs: Vec<_> = kinds.map(|(kind, step)| scope.spawn(move || (kind, faults_of(kind, step)))).into();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    for (kind, count) in counts {
        assert!(count >= 8 || kind == DiskOperation::SetLen && count >= 4, "{kind:?}: only {count} faults");
    }
}

#[test]
fn a_full_disk_refuses_commits_serves_reads_and_takes_commits_again_when_there_is_room() {
    let disk = SimulatedDisk::new().unwrap();
    let store = disk.open(small()).unwrap();
    disk.set_quota(disk.used() + 256 * 1024);
    let mut stored = 0u8;
    let error = loop {
        let record = completed(&registered(1), &[7; 4_000], 5);
        match store.commit(&batch(1, vec![put(&key(1, stored), None, &record)])) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 200, "it never got full");
    };
    assert!(format!("{error:?}").contains("StorageFull"), "{error:?}");
    assert!(store.get(&key(1, 0)).unwrap().is_some(), "replays are served");
    // Opening writes to pages only that were written before.
    store.reopen().unwrap();
    let kept = check_invariants(&store);
    assert_eq!(kept.records.len(), usize::from(stored), "all that was acknowledged, and nothing else");
    disk.set_quota(disk.used() + 256 * 1024);
    // Removing takes new pages before it gives old ones back.
    let due = store.removable(UnixMillis(9), 0, 64).unwrap();
    assert!(due.len() > 10);
    let changes = due.iter().map(|(key, record)| gone(key, record)).collect();
    store.commit(&batch(9, changes)).unwrap();
    let left = check_invariants(&store);
    let survivor = disk.without_power().open(small()).unwrap();
    assert_eq!(check_invariants(&survivor), left);
}
