//! A disk that fails at any of its operations: no commit is called rolled back, and `reopen` brings the truth to light.

use ::redb::StorageBackend;

use super::super::create::first_commit;
use super::super::image::Image;
use super::*;

/// A disk on which the n-th write, sync or change of length fails, and every one after it, until it is mended.
#[derive(Clone, Debug)]
struct Disk {
    image: Image,
    left: std::sync::Arc<std::sync::Mutex<Option<u32>>>,
}

impl Disk {
    fn spend(&self) {
        let mut left = self.left.lock().unwrap();
        match left.as_mut() {
            Some(0) => self.image.set_failing(true),
            Some(left) => *left -= 1,
            None => self.image.set_failing(false),
        }
    }

    fn fail_after(&self, operations: Option<u32>) {
        *self.left.lock().unwrap() = operations;
        self.image.set_failing(false);
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        self.image.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.image.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.spend();
        self.image.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.spend();
        self.image.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.spend();
        self.image.write(offset, data)
    }
}

#[test]
fn after_a_failed_commit_reopening_shows_all_of_it_or_nothing_and_commits_work_again() {
    let mut failed = 0;
    for operations in 0.. {
        let disk = Disk { image: Image::of(first_commit(&small()).unwrap()), left: std::sync::Arc::default() };
        let source = disk.clone();
        let store = RedbStore::with_backend(move || source.clone(), small()).unwrap();
        let first = put(&key(1, 1), None, &registered(1));
        store.commit(&batch(1, vec![first])).unwrap();

        disk.fail_after(Some(operations));
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

        disk.fail_after(None);
        store.reopen().unwrap();
        let (records, _) = check_invariants(&store);
        assert!(records.len() == 1 || records.len() == 29, "{operations}: {} records", records.len());
        let expected = if records.len() == 1 { Verdict::Applied } else { Verdict::Fenced };
        assert_eq!(store.commit(&batch(4, changes)).unwrap(), vec![expected; 28]);
        assert_eq!(check_invariants(&store).0.len(), 29);
        store.close().unwrap();
    }
    assert!(failed > 5, "only {failed} operations in a commit");
}

#[test]
fn closing_gives_the_file_up_also_when_the_disk_has_failed_or_the_file_is_lost() {
    let disk = Disk { image: Image::of(first_commit(&small()).unwrap()), left: std::sync::Arc::default() };
    let source = disk.clone();
    let store = RedbStore::with_backend(move || source.clone(), small()).unwrap();
    disk.fail_after(Some(0));
    assert!(store.reopen().is_err());
    store.close().unwrap();
    assert!(matches!(store.close(), Err(StoreError::Closed)));
}

/// A disk as Linux shows it: when a sync fails, what it should have written is lost, and yet it reads back until the power
/// goes.
#[derive(Clone, Debug)]
struct Forgetful {
    cached: Image,
    durable: Image,
    unsynced: std::sync::Arc<std::sync::Mutex<Vec<Unsynced>>>,
    /// Counts down to the sync that fails.
    syncs_left: std::sync::Arc<std::sync::Mutex<Option<u32>>>,
}

#[derive(Debug)]
enum Unsynced {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

impl Forgetful {
    fn new() -> Self {
        let bytes = first_commit(&small()).unwrap();
        let (cached, durable) = (Image::of(bytes.clone()), Image::of(bytes));
        Self { cached, durable, unsynced: std::sync::Arc::default(), syncs_left: std::sync::Arc::default() }
    }
}

impl StorageBackend for Forgetful {
    fn len(&self) -> std::io::Result<u64> {
        self.cached.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.cached.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.unsynced.lock().unwrap().push(Unsynced::SetLen(len));
        self.cached.set_len(len)
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.unsynced.lock().unwrap().push(Unsynced::Write(offset, data.to_vec()));
        self.cached.write(offset, data)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        let unsynced = std::mem::take(&mut *self.unsynced.lock().unwrap());
        let mut left = self.syncs_left.lock().unwrap();
        if *left == Some(0) {
            *left = None;
            return Err(std::io::Error::other("the sync has failed"));
        }
        *left = left.map(|left| left - 1);
        unsynced.into_iter().try_for_each(|change| match change {
            Unsynced::Write(offset, data) => self.durable.write(offset, &data),
            Unsynced::SetLen(len) => self.durable.set_len(len),
        })
    }
}

#[test]
fn what_is_read_back_after_a_failed_sync_and_a_reopening_survives_the_power_loss_that_follows() {
    let mut failed = 0;
    for (syncs, count, check) in (0..12).flat_map(|n| [(n, 3, true), (n, 3, false), (n, 60, true), (n, 60, false)]) {
        let disk = Forgetful::new();
        let source = disk.clone();
        let options = small().integrity_check(check);
        let store = RedbStore::with_backend(move || source.clone(), options).unwrap();
        store.commit(&batch(1, vec![put(&key(1, 1), None, &registered(1))])).unwrap();

        *disk.syncs_left.lock().unwrap() = Some(syncs);
        let changes: Vec<_> = (2..count).map(|id| put(&key(1, id), None, &registered(id.into()))).collect();
        let mut lost = store.commit(&batch(2, changes.clone())).is_err();
        while lost {
            failed += 1;
            // A sync may fail while the store is being reopened, too.
            while store.reopen().is_err() {}
            lost = store.commit(&batch(2, changes.clone())).is_err();
        }
        let acknowledged = check_invariants(&store);
        assert_eq!(acknowledged.0.len(), usize::from(count) - 1);

        // The power goes: what was cached is gone.
        let durable = Image::of(disk.durable.bytes());
        let survivor = RedbStore::with_backend(move || durable.clone(), small()).unwrap();
        assert_eq!(check_invariants(&survivor), acknowledged, "sync {syncs}, {count} records");
    }
    assert!(failed >= 8, "only {failed} commits failed");
}
