//! PostgreSQL through tokio-postgres: prepared statements, each its own transaction.

use std::sync::Arc;

use tokio_postgres::{Client, NoTls, Statement};

use crate::drive::{Caller, Peer};
use crate::payload::{self, Answer};
use crate::{AnyError, locked};

const TABLE: &str = "drop table if exists idempotency_keys;
    create table idempotency_keys (
        key bytea primary key, request bytea not null, answer bytea,
        created_at timestamptz not null default now(), expires_at timestamptz
    )";
const REGISTER: &str = "insert into idempotency_keys (key, request) values ($1, $2)
    on conflict do nothing returning key";
const FINISH: &str = "update idempotency_keys set answer = $2, expires_at = now() + interval '1 hour' where key = $1";
const REPLAY: &str = "select request, answer from idempotency_keys where key = $1";
const FILL: &str = "insert into idempotency_keys (key, request, answer, expires_at)
    select *, now() + interval '1 hour' from unnest($1::bytea[], $2::bytea[], $3::bytea[])";
/// Rows in a statement while the table is filled.
const FILLED_AT_ONCE: u64 = 10_000;

pub(crate) struct Postgres {
    name: String,
    /// What connects to it, in libpq's words.
    address: String,
    version: String,
    most_connections: usize,
    connections: Vec<Arc<Connection>>,
}

struct Connection {
    client: Client,
    register: Statement,
    finish: Statement,
    replay: Statement,
}

impl Postgres {
    pub(crate) async fn new(name: String, port: u16, most_connections: usize) -> Result<Self, AnyError> {
        let address = format!("host=127.0.0.1 port={port} user=peers dbname=postgres");
        let client = connect(&address).await?;
        for (setting, value) in [("fsync", "on"), ("synchronous_commit", "on"), ("full_page_writes", "on")] {
            let row = client.query_one(&format!("show {setting}"), &[]).await?;
            if row.get::<_, &str>(0) != value {
                return Err(format!("{setting} is not {value}").into());
            }
        }
        let version = client.query_one("show server_version", &[]).await?.get::<_, &str>(0).to_owned();
        Ok(Self { name, address, version, most_connections, connections: Vec::new() })
    }
}

async fn connect(address: &str) -> Result<Client, AnyError> {
    let (client, connection) = tokio_postgres::connect(address, NoTls).await?;
    // It ends with its client.
    tokio::spawn(connection);
    Ok(client)
}

impl Peer for Postgres {
    type Caller = PostgresCaller;

    fn name(&self) -> &str {
        &self.name
    }

    fn version(&self) -> String {
        let version = self.version.split_whitespace().next().unwrap_or("unknown");
        format!("{version}, tokio-postgres {}", locked("tokio-postgres"))
    }

    async fn fill(&mut self, records: u64) -> Result<(), AnyError> {
        self.connections.clear();
        let client = connect(&self.address).await?;
        client.batch_execute(TABLE).await?;
        let fill = client.prepare(FILL).await?;
        for first in (0..records).step_by(usize::try_from(FILLED_AT_ONCE)?) {
            let numbers = || first..(first + FILLED_AT_ONCE).min(records);
            let keys: Vec<Vec<u8>> = numbers().map(|number| payload::key(number).to_vec()).collect();
            let requests: Vec<Vec<u8>> = numbers().map(|number| payload::request(number).to_vec()).collect();
            let answers: Vec<Vec<u8>> = numbers().map(|number| payload::answer(number).to_vec()).collect();
            client.execute(&fill, &[&keys, &requests, &answers]).await?;
        }
        client.batch_execute("vacuum analyze idempotency_keys").await?;
        Ok(client.batch_execute("checkpoint").await?)
    }

    async fn callers(&mut self, count: usize) -> Result<Vec<PostgresCaller>, AnyError> {
        let connections = count.min(self.most_connections).max(1);
        while self.connections.len() < connections {
            let client = connect(&self.address).await?;
            let register = client.prepare(REGISTER).await?;
            let finish = client.prepare(FINISH).await?;
            let replay = client.prepare(REPLAY).await?;
            self.connections.push(Arc::new(Connection { client, register, finish, replay }));
        }
        // Idle ones would cost the server something, too.
        self.connections.truncate(connections);
        Ok(self.connections.iter().cycle().take(count).map(|own| PostgresCaller(Arc::clone(own))).collect())
    }
}

pub(crate) struct PostgresCaller(Arc<Connection>);

impl Caller for PostgresCaller {
    async fn fresh(&mut self, number: u64) -> Result<Answer, AnyError> {
        let Connection { client, register, finish, .. } = &*self.0;
        let (key, request) = (payload::key(number), payload::request(number));
        if client.query_opt(register, &[&key.as_slice(), &request.as_slice()]).await?.is_none() {
            return Err("not fresh".into());
        }
        let answer = payload::answer(number);
        if client.execute(finish, &[&key.as_slice(), &answer.as_slice()]).await? != 1 {
            return Err("no record to finish".into());
        }
        Ok(answer)
    }

    async fn replay(&mut self, number: u64) -> Result<Answer, AnyError> {
        let Connection { client, replay, .. } = &*self.0;
        let row = client.query_one(replay, &[&payload::key(number).as_slice()]).await?;
        if row.try_get::<_, &[u8]>(0)? != payload::request(number) {
            return Err("another request".into());
        }
        Ok(Answer::try_from(row.try_get::<_, &[u8]>(1)?)?)
    }
}
