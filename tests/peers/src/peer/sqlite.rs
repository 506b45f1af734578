//! SQLite in process: one thread writes, whatever comes through a channel, a transaction for each step; callers that read
//! share as many connections as there are cores.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use rusqlite::{Connection, params};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::drive::{Caller, Peer};
use crate::payload::{self, Answer};
use crate::{AnyError, locked};

const TABLE: &str = "create table idempotency_keys (
    key blob primary key, request blob not null, answer blob, created_at integer not null, expires_at integer
) without rowid";
const REGISTER: &str = "insert into idempotency_keys (key, request, created_at) values (?1, ?2, unixepoch())
    on conflict do nothing";
const FINISH: &str = "update idempotency_keys set answer = ?2, expires_at = unixepoch() + ?3 where key = ?1";
const REPLAY: &str = "select request, answer from idempotency_keys where key = ?1";

enum Step {
    Register,
    Finish(Answer),
}

/// A step for the writer, and where it says whether a row was written.
struct Write {
    number: u64,
    step: Step,
    written: oneshot::Sender<rusqlite::Result<bool>>,
}

struct Open {
    writes: mpsc::Sender<Write>,
    writer: JoinHandle<()>,
    readers: Arc<[Mutex<Connection>]>,
    directory: TempDir,
}

pub(crate) struct Sqlite {
    directory: PathBuf,
    open: Option<Open>,
}

impl Sqlite {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), open: None }
    }
}

impl Peer for Sqlite {
    type Caller = SqliteCaller;

    fn name(&self) -> &str {
        "SQLite"
    }

    fn version(&self) -> String {
        format!("{}, rusqlite {}", rusqlite::version(), locked("rusqlite"))
    }

    async fn fill(&mut self, records: u64) -> Result<(), AnyError> {
        if let Some(Open { writes, writer, readers, directory }) = self.open.take() {
            drop((writes, readers));
            writer.join().map_err(|_| "the writer panicked")?;
            directory.close()?;
        }
        let directory = tempfile::tempdir_in(&self.directory)?;
        let connection = connect(&file(&directory))?;
        connection.execute_batch(TABLE)?;
        let transaction = connection.unchecked_transaction()?;
        for number in 0..records {
            register(&transaction, number)?;
            finish(&transaction, number, &payload::answer(number))?;
        }
        transaction.commit()?;
        // Reads would look for every page in a long log first.
        connection.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()))?;
        let cores = std::thread::available_parallelism()?.get();
        let readers =
            (0..cores).map(|_| Ok(Mutex::new(connect(&file(&directory))?))).collect::<rusqlite::Result<_>>()?;
        let (writes, inbox) = mpsc::channel();
        let writer = std::thread::spawn(move || write(&connection, &inbox));
        self.open = Some(Open { writes, writer, readers, directory });
        Ok(())
    }

    async fn callers(&mut self, count: usize) -> Result<Vec<SqliteCaller>, AnyError> {
        let open = self.open.as_ref().ok_or("it is filled first")?;
        let caller = |_| SqliteCaller { writes: open.writes.clone(), readers: Arc::clone(&open.readers) };
        Ok((0..count).map(caller).collect())
    }
}

fn file(directory: &TempDir) -> PathBuf {
    directory.path().join("keys.sqlite")
}

fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    // 64 MiB, as ibid.
    connection.pragma_update(None, "cache_size", -65_536)?;
    Ok(connection)
}

/// The writer's thread, until nobody can send.
fn write(connection: &Connection, inbox: &mpsc::Receiver<Write>) {
    while let Ok(Write { number, step, written }) = inbox.recv() {
        let result = match step {
            Step::Register => register(connection, number),
            Step::Finish(answer) => finish(connection, number, &answer),
        };
        // Nobody waits for it only if the run was given up.
        drop(written.send(result));
    }
}

fn register(connection: &Connection, number: u64) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(REGISTER)?;
    Ok(statement.execute(params![payload::key(number), payload::request(number)])? == 1)
}

fn finish(connection: &Connection, number: u64, answer: &Answer) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(FINISH)?;
    Ok(statement.execute(params![payload::key(number), answer, payload::RETENTION_SECONDS as i64])? == 1)
}

pub(crate) struct SqliteCaller {
    writes: mpsc::Sender<Write>,
    readers: Arc<[Mutex<Connection>]>,
}

impl SqliteCaller {
    async fn write(&self, number: u64, step: Step) -> Result<(), AnyError> {
        let (written, result) = oneshot::channel();
        self.writes.send(Write { number, step, written }).map_err(|_| "the writer is gone")?;
        if result.await?? { Ok(()) } else { Err("not fresh".into()) }
    }

    fn read(&self, number: u64) -> Result<Answer, AnyError> {
        let free = self.readers.iter().find_map(|reader| reader.try_lock().ok());
        let first = || Some(self.readers.first()?.lock().unwrap_or_else(PoisonError::into_inner));
        let reader = free.or_else(first).ok_or("no connection")?;
        let mut statement = reader.prepare_cached(REPLAY)?;
        let (request, answer) = statement.query_row([payload::key(number)], |row| {
            Ok((row.get::<_, [u8; payload::REQUEST_BYTES]>(0)?, row.get::<_, Answer>(1)?))
        })?;
        if request == payload::request(number) { Ok(answer) } else { Err("another request".into()) }
    }
}

impl Caller for SqliteCaller {
    async fn fresh(&mut self, number: u64) -> Result<Answer, AnyError> {
        self.write(number, Step::Register).await?;
        let answer = payload::answer(number);
        self.write(number, Step::Finish(answer)).await?;
        Ok(answer)
    }

    async fn replay(&mut self, number: u64) -> Result<Answer, AnyError> {
        self.read(number)
    }
}
