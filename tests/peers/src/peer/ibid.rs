//! ibid itself, called in process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ibid::store::{Batch, Change, RedbOptions, RedbStore, Store, Verdict};
use ibid::{
    AttemptId, BootId, Call, Clock, End, Engine, Fingerprint, Flow, Limits, Operation, Policy, Record, Reply, State,
    SystemClock, Token, UnixMillis,
};
use tempfile::TempDir;

use crate::drive::{Caller, Peer};
use crate::payload::{self, Answer};
use crate::{AnyError, locked};

pub(crate) const IBID: &str = "ibid";

/// Records in a transaction while the store is filled.
const FILL: usize = 10_000;

pub(crate) struct Ibid {
    directory: PathBuf,
    flow: Flow,
    open: Option<(Engine, TempDir)>,
}

impl Ibid {
    pub(crate) fn new(directory: &Path) -> Result<Self, AnyError> {
        let flow = Flow::new("peers", Policy::replay(Duration::from_secs(payload::RETENTION_SECONDS)))?;
        Ok(Self { directory: directory.to_owned(), flow, open: None })
    }

    /// Commits finished records as the engine would have left them.
    fn write(&self, path: &Path, records: u64) -> Result<(), AnyError> {
        let store = RedbStore::open(path, RedbOptions::default())?;
        let now = SystemClock.now();
        let mut numbers = (0..records).peekable();
        while numbers.peek().is_some() {
            let changes =
                numbers.by_ref().take(FILL).map(|number| self.finished(number, now)).collect::<Result<_, _>>()?;
            let batch = Batch { now, records_per_scope: u64::MAX, changes, ..Batch::default() };
            if store.commit(&batch)?.iter().any(|verdict| *verdict != Verdict::Applied) {
                return Err("the store does not take a record".into());
            }
        }
        Ok(store.close()?)
    }

    fn finished(&self, number: u64, now: UnixMillis) -> Result<Change, AnyError> {
        let request = payload::request(number);
        let mut token = Token([0; 32]);
        token.0[..8].copy_from_slice(&number.to_be_bytes());
        let end = Some(now.saturating_add(Duration::from_secs(payload::RETENTION_SECONDS)));
        let record = Record {
            revision: 2,
            fingerprint: Fingerprint::of(self.flow.name(), &request),
            request: request.into(),
            attempt: AttemptId { number: 1, boot: BootId([7; 16]), token },
            state: State::Completed(Some(payload::answer(number).into())),
            checkpoint: None,
            recoveries: 0,
            created_at: now,
            updated_at: now,
            expires_at: end,
            lapses_at: end,
            tombstone_until: None,
            contradiction: None,
            lapses_at_tick: None,
            abandoned: false,
        };
        let key = self.flow.key(payload::scope(number), payload::id(number))?;
        Ok(Change::new(key, None, Some(Arc::new(record))))
    }
}

impl Peer for Ibid {
    type Caller = IbidCaller;

    fn name(&self) -> &str {
        IBID
    }

    fn version(&self) -> String {
        format!("{}, redb {}", locked("ibid"), locked("redb"))
    }

    async fn fill(&mut self, records: u64) -> Result<(), AnyError> {
        if let Some((engine, _)) = self.open.take() {
            engine.shutdown().await;
        }
        let directory = tempfile::tempdir_in(&self.directory)?;
        let path = directory.path().join("ibid.redb");
        self.write(&path, records)?;
        self.open = Some((Engine::builder().limits(roomy()).open(path)?, directory));
        Ok(())
    }

    async fn callers(&mut self, count: usize) -> Result<Vec<IbidCaller>, AnyError> {
        let (engine, _) = self.open.as_ref().ok_or("it is filled first")?;
        Ok((0..count).map(|_| IbidCaller { engine: engine.clone(), flow: self.flow.clone() }).collect())
    }
}

/// As many requests of one scope as there are callers.
pub(super) fn roomy() -> Limits {
    let mut limits = Limits::default();
    limits.in_flight_per_scope = limits.in_flight;
    limits.records_per_scope = u64::MAX;
    limits
}

pub(crate) struct IbidCaller {
    engine: Engine,
    flow: Flow,
}

impl Caller for IbidCaller {
    async fn fresh(&mut self, number: u64) -> Result<Answer, AnyError> {
        let key = self.flow.key(payload::scope(number), payload::id(number))?;
        let call = Call::new(&self.flow, &key, payload::request(number));
        let operation = Operation::new(async move |_| End::done(payload::answer(number)));
        match self.engine.submit(call, operation).await? {
            Reply::Answer(outcome) => Ok(Answer::try_from(&*outcome.answer)?),
            Reply::Accepted => Err("accepted, not answered".into()),
        }
    }

    /// The caller does not know that it is one.
    async fn replay(&mut self, number: u64) -> Result<Answer, AnyError> {
        self.fresh(number).await
    }
}
