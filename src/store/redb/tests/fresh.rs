//! The fresh file after a failed sync: what it holds, who may open it, and crashes and faults on the way to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ::redb::{BackendError, StorageBackend};

use super::super::create::aside_of;
use super::super::disk::{DiskError, DiskFault, DiskOperation, SimulatedDisk};
use super::super::place::{FileId, Leased};
use super::*;

/// Which file the store is on.
fn file_of(store: &RedbStore) -> FileId {
    store.writer().lease.as_ref().unwrap().id()
}

/// Records of all kinds, in more than one slice of the copy, with some removed; rows with an end and without.
fn fill(store: &RedbStore, records: u64) {
    for from in (0..records).step_by(1_000) {
        let numbers = from..(from + 1_000).min(records);
        let change = |n: u64| {
            let key = Key::new("flow", &[n as u8 % 3], &n.to_be_bytes()).unwrap();
            let record = registered(n);
            let record = if n.is_multiple_of(2) { completed(&record, &vec![1; n as usize % 3_000], n) } else { record };
            let record = Record { lapses_at_tick: (!n.is_multiple_of(5)).then_some(n), ..record };
            let row = Row::new("hashes", n.to_be_bytes(), vec![2; 50]).unwrap();
            let row = if n.is_multiple_of(3) { row } else { row.expires_at(UnixMillis(n)) };
            Change { rows: vec![row], ..put(&key, None, &record) }
        };
        let batch =
            Batch { tick: from, records_per_scope: 1_000_000, ..batch(from + 5, numbers.map(change).collect()) };
        store.commit(&batch).unwrap();
    }
    let due = store.removable(UnixMillis(20), 0, 5).unwrap();
    store.commit(&batch(7, due.iter().map(|(key, record)| gone(key, record)).collect())).unwrap();
}

fn one_more(id: u8) -> Batch {
    batch(9, vec![put(&key(7, id), None, &registered(u64::from(id)))])
}

#[test]
fn a_failed_sync_moves_everything_as_it_is_to_a_fresh_file_and_nothing_else_does() {
    let disk = SimulatedDisk::new().unwrap();
    let store = disk.open(small().integrity_check(IntegrityCheck::Never)).unwrap();
    fill(&store, 9_500);
    let (before, old) = (dump(&store), file_of(&store));

    // Lasting: redb tries some writes again by itself.
    disk.inject(DiskFault { operation: DiskOperation::Write, after: 0, error: DiskError::Io, lasting: true });
    store.commit(&one_more(1)).unwrap_err();
    disk.mend();
    store.reopen().unwrap();
    assert_eq!(file_of(&store), old, "a write that fails leaves no doubt about the others");

    // The first sync of a commit: what it writes is not in place yet.
    disk.fail_one_sync_after(0);
    store.commit(&one_more(1)).unwrap_err();
    store.reopen().unwrap();
    assert_ne!(file_of(&store), old);
    assert!(dump(&store) == before, "byte for byte");
    check_invariants(&store);
    store.reopen().unwrap();
    assert!(dump(&store) == before);

    assert_eq!(store.commit(&one_more(1)).unwrap(), [Verdict::Applied]);
    let after = dump(&store);
    drop(store);
    let survivor = disk.without_power().open(small()).unwrap();
    assert!(dump(&survivor) == after);
}

/// A store on a disk, with some records and a batch whose commit has failed with its `syncs`th sync. `None`: that had
/// fewer. The number is that of the syncs which the records took.
fn after_a_failed_sync(syncs: usize) -> Option<(SimulatedDisk, RedbStore, usize)> {
    let disk = SimulatedDisk::new().unwrap();
    let store = disk.open(small()).unwrap();
    fill(&store, 30);
    let acknowledged = disk.syncs();
    disk.fail_one_sync_after(syncs);
    store.commit(&one_more(1)).is_err().then_some((disk, store, acknowledged))
}

#[test]
fn a_power_loss_at_any_step_of_the_copy_leaves_one_whole_file_or_the_other() {
    let mut failed = 0;
    while let Some((disk, store, acknowledged)) = after_a_failed_sync(failed) {
        let with_it = {
            let (disk, store, _) = after_a_failed_sync(failed).unwrap();
            disk.mend();
            store.reopen().unwrap();
            store.commit(&one_more(1)).unwrap();
            dump(&store)
        };
        store.reopen().unwrap();
        let reopened = (disk.syncs(), dump(&store));
        store.commit(&one_more(2)).unwrap();
        let committed = (disk.syncs(), dump(&store));
        let mut images = BTreeSet::new();
        disk.for_each_power_loss(10, 7, |loss| {
            if loss.syncs() < acknowledged || !images.insert(loss.hash()) {
                return;
            }
            let left = loss.disk().open(small()).unwrap_or_else(|error| panic!("{loss:?}: {error:?}"));
            check_invariants(&left);
            let left = dump(&left);
            if loss.syncs() < reopened.0 {
                // Nobody was told what had become of it yet.
                let old = left["keys"].len() < with_it["keys"].len();
                assert!(old || left == with_it, "{loss:?}");
            } else if loss.syncs() < committed.0 {
                assert!(left == reopened.1 || left == committed.1, "{loss:?}");
            } else {
                assert!(left == committed.1, "{loss:?}");
            }
        });
        assert!(images.len() > 40, "only {} images", images.len());
        failed += 1;
    }
    assert!(failed >= 2, "a commit has two phases");
}

#[test]
fn a_copy_that_fails_at_any_operation_keeps_the_store_down_and_is_made_by_the_next_reopening() {
    let mut hits = 0;
    for operation in DiskOperation::ALL {
        let step = if operation == DiskOperation::Write { one_of(5) } else { 1 };
        for (after, lasting) in (0..).step_by(step).flat_map(|n| [(n, false), (n, true)]) {
            let (disk, store, _) = after_a_failed_sync(0).unwrap();
            let met = disk.failures();
            disk.inject(DiskFault { operation, after, error: DiskError::Io, lasting });
            if store.reopen().is_ok() {
                assert_eq!(disk.failures(), met, "{operation:?} {after}");
                break;
            }
            hits += 1;
            assert!(matches!(store.totals(), Err(StoreError::Io(_))), "{operation:?} {after}: it stays down");
            assert!(matches!(disk.open(small()), Err(StoreError::AlreadyOpen)), "and keeps its file");
            disk.mend();
            store.reopen().unwrap();
            store.commit(&one_more(2)).unwrap();
            let content = check_invariants(&store);
            let survivor = disk.without_power().open(small()).unwrap();
            assert_eq!(check_invariants(&survivor), content, "{operation:?} {after}");
        }
    }
    assert!(hits > 40, "only {hits} faults");
}

#[test]
fn a_copy_that_finds_no_room_gives_back_what_it_took_and_is_made_when_there_is_some() {
    let (disk, store, _) = after_a_failed_sync(0).unwrap();
    let used = disk.used();
    for room in [0, 4_096, used / 8] {
        disk.set_quota(used + room);
        let Err(StoreError::Io(reason)) = store.reopen() else { panic!("{room} bytes were enough") };
        assert!(format!("{reason:?}").contains("StorageFull"), "{reason:?}");
        assert_eq!(disk.used(), used, "what was copied goes again");
    }
    disk.set_quota(used * 3);
    store.reopen().unwrap();
    assert!(disk.used() < used * 2, "the old file is gone");
    store.commit(&one_more(2)).unwrap();
    check_invariants(&store);
}

#[test]
fn a_sync_that_fails_while_a_store_is_being_opened_is_made_up_for_by_a_copy() {
    for syncs in 0..4 {
        let left = {
            let disk = SimulatedDisk::new().unwrap();
            fill(&disk.open(small()).unwrap(), 30);
            // Not closed: its opening has something to write.
            disk.without_power()
        };
        let content = check_invariants(&left.without_power().open(small()).unwrap());
        left.fail_one_sync_after(syncs);
        let Ok(store) = left.open(small()) else { panic!("sync {syncs}") };
        if left.failures() == 0 {
            assert!(syncs > 0);
            continue;
        }
        assert_eq!(check_invariants(&store), content);
        store.commit(&one_more(1)).unwrap();
        let content = check_invariants(&store);
        assert_eq!(check_invariants(&left.without_power().open(small()).unwrap()), content, "sync {syncs}");
    }
}

/// A real file that fails one sync, and at each step of whose copy somebody tries to open the store.
struct Watched {
    file: StoreFile,
    path: PathBuf,
    fail: Arc<AtomicBool>,
    steps: Arc<AtomicUsize>,
}

impl Watched {
    fn lease(&self, lease: &Lease) -> Lease {
        Lease::new(Flaky { file: lease.file(), fail: Arc::clone(&self.fail) }, lease.id())
    }

    fn step<T>(&self, step: impl FnOnce() -> T) -> T {
        self.refuses_others();
        let result = step();
        self.refuses_others();
        result
    }

    fn refuses_others(&self) {
        self.steps.fetch_add(1, Ordering::SeqCst);
        let found = RedbStore::open(&self.path, small());
        assert!(matches!(found, Err(StoreError::AlreadyOpen)), "{found:?}");
    }
}

impl Place for Watched {
    fn open(&self) -> Result<Option<Lease>, StoreError> {
        Ok(self.file.open()?.map(|lease| self.lease(&lease)))
    }

    fn names(&self, lease: &Lease) -> std::io::Result<bool> {
        self.step(|| self.file.names(lease))
    }

    fn aside(&self) -> Result<Lease, StoreError> {
        self.step(|| self.file.aside().map(|lease| self.lease(&lease)))
    }

    fn put_in_place(&self) -> std::io::Result<()> {
        self.step(|| self.file.put_in_place())
    }

    fn discard_aside(&self) -> std::io::Result<()> {
        self.step(|| self.file.discard_aside())
    }

    fn sync_directory(&self) -> std::io::Result<()> {
        self.step(|| self.file.sync_directory())
    }
}

#[derive(Debug)]
struct Flaky {
    file: Arc<Leased>,
    fail: Arc<AtomicBool>,
}

impl StorageBackend for Flaky {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.file.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        if self.fail.swap(false, Ordering::SeqCst) { Err(DiskError::Io.into()) } else { self.file.sync_data() }
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.file.write(offset, data)
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
}

/// A store on a real file whose next sync fails, when told so.
fn watched(path: &Path) -> (RedbStore, Arc<AtomicBool>, Arc<AtomicUsize>) {
    RedbStore::open(path, small()).unwrap().close().unwrap();
    let (fail, steps) = <(Arc<AtomicBool>, Arc<AtomicUsize>)>::default();
    let (file, path) = (StoreFile::at(path).unwrap(), path.to_owned());
    let watched = Watched { file, path, fail: Arc::clone(&fail), steps: Arc::clone(&steps) };
    let lease = Place::open(&watched).unwrap().unwrap();
    (RedbStore::over(Box::new(watched), lease, small()).unwrap(), fail, steps)
}

#[test]
fn nobody_else_can_open_either_file_at_any_step_of_the_copy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ibid.redb");
    let (store, fail, steps) = watched(&path);
    fill(&store, 30);
    let (content, old) = (dump(&store), file_of(&store));
    // Opened before the copy, and locked only after it: this is no longer the store.
    let place = StoreFile::at(&path).unwrap();
    let mut late = place.open().unwrap().unwrap();

    fail.store(true, Ordering::SeqCst);
    store.commit(&one_more(1)).unwrap_err();
    steps.store(0, Ordering::SeqCst);
    store.reopen().unwrap();
    assert!(steps.load(Ordering::SeqCst) >= 8, "every step was watched");
    assert_ne!(file_of(&store), old);
    assert!(dump(&store) == content);
    assert!(matches!(open_lease(&place, &mut late, &small()), Err(StoreError::Io(_))));
    drop(late);
    assert!(!aside_of(&path).exists());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    // A reopening without a failed sync keeps the lock, too.
    store.reopen().unwrap();
    assert!(matches!(RedbStore::open(&path, small()), Err(StoreError::AlreadyOpen)));
    store.close().unwrap();
    let store = RedbStore::open(&path, small()).unwrap();
    assert!(dump(&store) == content);
}

#[cfg(unix)]
#[test]
fn the_copy_takes_the_place_of_the_file_and_not_that_of_a_link_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let (path, link) = (directory.path().join("ibid.redb"), directory.path().join("link"));
    RedbStore::open(&path, small()).unwrap().close().unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let (store, fail, _) = watched(&link);
    let old = file_of(&store);
    fail.store(true, Ordering::SeqCst);
    store.commit(&one_more(1)).unwrap_err();
    store.reopen().unwrap();
    assert_ne!(file_of(&store), old);
    assert!(link.is_symlink() && !path.is_symlink());
    assert!(StoreFile::at(&path).unwrap().names(store.writer().lease.as_ref().unwrap()).unwrap());
}

#[test]
fn what_a_crash_has_left_of_a_copy_is_removed_when_the_store_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ibid.redb");
    RedbStore::open(&path, small()).unwrap().close().unwrap();
    fs::copy(&path, aside_of(&path)).unwrap();
    let store = RedbStore::open(&path, small()).unwrap();
    assert!(!aside_of(&path).exists());
    store.close().unwrap();
}
