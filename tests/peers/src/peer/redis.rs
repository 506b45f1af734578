//! Redis through multiplexed connections that its callers share.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, Pipeline, RedisResult, cmd};

use crate::drive::{Caller, Peer};
use crate::payload::{self, ANSWER_BYTES, Answer, REQUEST_BYTES};
use crate::{AnyError, locked};

/// Commands in a pipeline while the store is filled.
const FILLED_AT_ONCE: u64 = 10_000;
/// Between two looks at what the server is at.
const LOOK: Duration = Duration::from_millis(20);

pub(crate) struct Redis {
    name: String,
    client: Client,
    version: String,
    most_connections: usize,
}

impl Redis {
    pub(crate) async fn new(name: String, port: u16, most_connections: usize) -> Result<Self, AnyError> {
        let client = Client::open(format!("redis://127.0.0.1:{port}/"))?;
        let mut connection = connect(&client).await?;
        for (setting, value) in [("appendonly", "yes"), ("appendfsync", "always"), ("no-appendfsync-on-rewrite", "no")]
        {
            let found: (String, String) = cmd("CONFIG").arg("GET").arg(setting).query_async(&mut connection).await?;
            if found.1 != value {
                return Err(format!("{setting} is not {value}").into());
            }
        }
        let version = info(&mut connection, "server", "redis_version").await?;
        Ok(Self { name, client, version, most_connections })
    }
}

async fn connect(client: &Client) -> RedisResult<MultiplexedConnection> {
    client.get_multiplexed_async_connection_with_config(&AsyncConnectionConfig::new().set_response_timeout(None)).await
}

async fn info(connection: &mut MultiplexedConnection, section: &str, name: &str) -> Result<String, AnyError> {
    let text: String = cmd("INFO").arg(section).query_async(connection).await?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(value.ok_or("no such fact")?.to_owned())
}

/// Begins the append-only file anew, so that what was flushed is gone from the disk too and no rewrite begins by itself soon.
async fn rewrite(connection: &mut MultiplexedConnection) -> Result<(), AnyError> {
    // Enough was written to fill the store that a rewrite may have begun by itself.
    rest(connection).await?;
    cmd("BGREWRITEAOF").query_async::<String>(connection).await?;
    rest(connection).await
}

/// Waits until no rewrite is running or due.
async fn rest(connection: &mut MultiplexedConnection) -> Result<(), AnyError> {
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        let scheduled = info(connection, "persistence", "aof_rewrite_scheduled").await?;
        let running = info(connection, "persistence", "aof_rewrite_in_progress").await?;
        if scheduled == "0" && running == "0" {
            return Ok(());
        }
    }
}

impl Peer for Redis {
    type Caller = RedisCaller;

    fn name(&self) -> &str {
        &self.name
    }

    fn version(&self) -> String {
        format!("{}, redis crate {}", self.version, locked("redis"))
    }

    async fn fill(&mut self, records: u64) -> Result<(), AnyError> {
        let mut connection = connect(&self.client).await?;
        // Another one that calls the same server has just filled it.
        if records > 0 && cmd("DBSIZE").query_async::<u64>(&mut connection).await? == records {
            return Ok(());
        }
        cmd("FLUSHALL").arg("SYNC").query_async::<()>(&mut connection).await?;
        for first in (0..records).step_by(usize::try_from(FILLED_AT_ONCE)?) {
            let mut pipeline = Pipeline::new();
            for number in first..(first + FILLED_AT_ONCE).min(records) {
                let (key, value) = (payload::key(number), finished(number));
                pipeline.cmd("SET").arg(&key).arg(&value).arg("EX").arg(payload::RETENTION_SECONDS).ignore();
            }
            pipeline.query_async::<()>(&mut connection).await?;
        }
        rewrite(&mut connection).await
    }

    async fn callers(&mut self, count: usize) -> Result<Vec<RedisCaller>, AnyError> {
        let mut connections = Vec::new();
        while connections.len() < count.min(self.most_connections).max(1) {
            connections.push(connect(&self.client).await?);
        }
        Ok(connections.iter().cycle().take(count).map(|own| RedisCaller(own.clone())).collect())
    }
}

fn finished(number: u64) -> [u8; REQUEST_BYTES + ANSWER_BYTES] {
    let mut value = [0; REQUEST_BYTES + ANSWER_BYTES];
    value[..REQUEST_BYTES].copy_from_slice(&payload::request(number));
    value[REQUEST_BYTES..].copy_from_slice(&payload::answer(number));
    value
}

pub(crate) struct RedisCaller(MultiplexedConnection);

impl Caller for RedisCaller {
    async fn fresh(&mut self, number: u64) -> Result<Answer, AnyError> {
        let (key, request) = (payload::key(number), payload::request(number));
        let is_new: Option<String> = cmd("SET").arg(&key).arg(&request).arg("NX").query_async(&mut self.0).await?;
        if is_new.is_none() {
            return Err("not fresh".into());
        }
        let value = finished(number);
        let mut finish = cmd("SET");
        finish.arg(&key).arg(&value).arg("EX").arg(payload::RETENTION_SECONDS);
        finish.query_async::<()>(&mut self.0).await?;
        Ok(payload::answer(number))
    }

    async fn replay(&mut self, number: u64) -> Result<Answer, AnyError> {
        let value: Vec<u8> = cmd("GET").arg(&payload::key(number)).query_async(&mut self.0).await?;
        match value.split_at_checked(REQUEST_BYTES) {
            Some((request, answer)) if request == payload::request(number) => Ok(Answer::try_from(answer)?),
            _ => Err("another request, or none".into()),
        }
    }
}
