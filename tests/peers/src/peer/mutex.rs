//! What one writes in an afternoon: a redb table behind a mutex, a commit for each step, called in process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tempfile::TempDir;

use crate::drive::{Caller, Peer};
use crate::payload::{self, ANSWER_BYTES, Answer, KEY_BYTES, REQUEST_BYTES};
use crate::{AnyError, locked};

/// The request, and the answer behind it once it is there.
const CALLS: TableDefinition<&[u8; KEY_BYTES], &[u8]> = TableDefinition::new("calls");

pub(crate) struct MutexCache {
    directory: PathBuf,
    open: Option<(Arc<Mutex<Database>>, TempDir)>,
}

impl MutexCache {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), open: None }
    }
}

impl Peer for MutexCache {
    type Caller = MutexCaller;

    fn name(&self) -> &str {
        "redb in a mutex"
    }

    fn version(&self) -> String {
        format!("redb {}", locked("redb"))
    }

    async fn fill(&mut self, records: u64) -> Result<(), AnyError> {
        self.open = None;
        let directory = tempfile::tempdir_in(&self.directory)?;
        let database = Database::create(directory.path().join("cache.redb"))?;
        let write = database.begin_write()?;
        {
            let mut calls = write.open_table(CALLS)?;
            for number in 0..records {
                calls.insert(&payload::key(number), finished(number).as_slice())?;
            }
        }
        write.commit()?;
        self.open = Some((Arc::new(Mutex::new(database)), directory));
        Ok(())
    }

    async fn callers(&mut self, count: usize) -> Result<Vec<MutexCaller>, AnyError> {
        let (database, _) = self.open.as_ref().ok_or("it is filled first")?;
        Ok((0..count).map(|_| MutexCaller(Arc::clone(database))).collect())
    }
}

fn finished(number: u64) -> [u8; REQUEST_BYTES + ANSWER_BYTES] {
    let mut value = [0; REQUEST_BYTES + ANSWER_BYTES];
    value[..REQUEST_BYTES].copy_from_slice(&payload::request(number));
    value[REQUEST_BYTES..].copy_from_slice(&payload::answer(number));
    value
}

pub(crate) struct MutexCaller(Arc<Mutex<Database>>);

impl MutexCaller {
    fn register(&self, number: u64) -> Result<bool, AnyError> {
        let database = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let write = database.begin_write()?;
        let is_new = {
            let mut calls = write.open_table(CALLS)?;
            let is_new = calls.get(&payload::key(number))?.is_none();
            if is_new {
                calls.insert(&payload::key(number), payload::request(number).as_slice())?;
            }
            is_new
        };
        write.commit()?;
        Ok(is_new)
    }

    fn finish(&self, number: u64) -> Result<(), AnyError> {
        let database = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let write = database.begin_write()?;
        write.open_table(CALLS)?.insert(&payload::key(number), finished(number).as_slice())?;
        Ok(write.commit()?)
    }

    fn read(&self, number: u64) -> Result<Answer, AnyError> {
        let database = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let value = database.begin_read()?.open_table(CALLS)?.get(&payload::key(number))?.ok_or("no record")?;
        match value.value().split_at_checked(REQUEST_BYTES) {
            Some((request, answer)) if request == payload::request(number) => Ok(Answer::try_from(answer)?),
            _ => Err("another request".into()),
        }
    }
}

impl Caller for MutexCaller {
    async fn fresh(&mut self, number: u64) -> Result<Answer, AnyError> {
        if !self.register(number)? {
            return Err("not fresh".into());
        }
        let answer = payload::answer(number);
        self.finish(number)?;
        Ok(answer)
    }

    async fn replay(&mut self, number: u64) -> Result<Answer, AnyError> {
        self.read(number)
    }
}
