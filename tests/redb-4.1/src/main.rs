//! Lives with a redb 4.1.0 and tells every write of it; then opens each disk that it is sent and tells what is on it.
//!
//! ```text
//! argument: a seed
//! to stdout   W offset:8 len:8 bytes | L len:8 | S | C digest:8     a write, a change of length, a sync, a commit that returned
//!             E                                                     the life is over
//! from stdin  len:8 bytes                                           a disk
//! to stdout   P | U | R digest:8                                    a panic, refused, the digest of its rows
//! ```
//! Numbers are little-endian.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rows");

/// What a database holds.
type Rows = BTreeMap<u64, Vec<u8>>;

/// A disk in memory that tells what is done to it, if somebody listens.
#[derive(Clone, Debug, Default)]
struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    told: Option<Arc<Mutex<Vec<u8>>>>,
}

impl Disk {
    fn tell(&self, parts: &[&[u8]]) {
        if let Some(told) = &self.told {
            let mut told = told.lock().unwrap();
            parts.iter().for_each(|part| told.extend_from_slice(part));
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.lock().unwrap();
        let start = offset as usize;
        out.copy_from_slice(bytes.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.tell(&[b"L", &len.to_le_bytes()]);
        self.bytes.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.tell(&[b"S"]);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.tell(&[b"W", &offset.to_le_bytes(), &(data.len() as u64).to_le_bytes(), data]);
        let (mut bytes, start) = (self.bytes.lock().unwrap(), offset as usize);
        let end = bytes.len().max(start + data.len());
        bytes.resize(end, 0);
        bytes[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }
}

/// Numbers from a seed (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn digest(rows: &Rows) -> [u8; 8] {
    let mut hasher = DefaultHasher::new();
    rows.hash(&mut hasher);
    hasher.finish().to_le_bytes()
}

fn open(disk: Disk) -> Result<Database, redb::DatabaseError> {
    Database::builder().set_cache_size(1 << 20).create_with_backend(disk)
}

/// Commits rows of all sizes and removes others, so that the file grows, and has holes.
fn live(seed: u64, disk: &Disk) {
    let database = open(disk.clone()).unwrap();
    let (mut dice, mut rows) = (Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1), Rows::new());
    disk.tell(&[b"C", &digest(&rows)]);
    for _ in 0..10 {
        let transaction = database.begin_write().unwrap();
        {
            let mut table = transaction.open_table(TABLE).unwrap();
            for _ in 0..=dice.below(30) {
                let key = dice.below(300);
                if dice.below(3) == 0 {
                    table.remove(key).unwrap();
                    rows.remove(&key);
                } else {
                    let value = vec![key as u8; dice.below(40_000) as usize];
                    table.insert(key, value.as_slice()).unwrap();
                    rows.insert(key, value);
                }
            }
        }
        transaction.commit().unwrap();
        disk.tell(&[b"C", &digest(&rows)]);
    }
    // Closing it is not part of the life: the process dies.
    std::mem::forget(database);
    disk.tell(&[b"E"]);
}

fn read(disk: Disk) -> Option<Rows> {
    let database = open(disk).ok()?;
    let transaction = database.begin_read().ok()?;
    let Ok(table) = transaction.open_table(TABLE) else { return Some(Rows::new()) };
    table.iter().ok()?.map(|row| row.ok().map(|(key, value)| (key.value(), value.value().to_vec()))).collect()
}

fn main() -> io::Result<()> {
    std::panic::set_hook(Box::new(|_| {}));
    let seed = std::env::args().nth(1).and_then(|seed| seed.parse().ok()).expect("a seed");
    let told = Arc::new(Mutex::new(Vec::new()));
    live(seed, &Disk { told: Some(Arc::clone(&told)), ..Disk::default() });
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    output.write_all(&told.lock().unwrap())?;
    output.flush()?;
    let mut len = [0; 8];
    while input.read_exact(&mut len).is_ok() {
        let mut bytes = vec![0; u64::from_le_bytes(len) as usize];
        input.read_exact(&mut bytes)?;
        let disk = Disk { bytes: Arc::new(Mutex::new(bytes)), told: None };
        match catch_unwind(AssertUnwindSafe(|| read(disk))) {
            Err(_) => output.write_all(b"P")?,
            Ok(None) => output.write_all(b"U")?,
            Ok(Some(rows)) => output.write_all(&[b"R".as_slice(), &digest(&rows)].concat())?,
        }
        output.flush()?;
    }
    Ok(())
}
