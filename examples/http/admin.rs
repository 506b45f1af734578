//! The endpoints under /admin: faults, clock, expiry sweep, records.

use std::error::Error;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ibid::{ClockState, Engine};
use serde_json::json;

use super::answer::Given;
use super::clock::SteeredClock;
use super::faults::{Faults, On, Plan};
use super::query;
use super::records::{Records, Row};

pub(crate) const STORE: &str = "/admin/store";
pub(crate) const CLOCK: &str = "/admin/clock";
pub(crate) const EXPIRY_SWEEP: &str = "/admin/expiry-sweep";
pub(crate) const RECORDS: &str = "/admin/records";

/// Those that take a POST.
pub(crate) const POSTED: [&str; 3] = [STORE, CLOCK, EXPIRY_SWEEP];

/// What the expiry sweep takes at a time when it is not told.
const SLICE: usize = 256;

pub(crate) struct Admin {
    pub(crate) engine: Engine,
    pub(crate) clock: SteeredClock,
    pub(crate) faults: Arc<Faults>,
    pub(crate) records: Records,
}

#[derive(serde::Serialize)]
struct Listing {
    now_ms: u64,
    actors: usize,
    records: Vec<Row>,
}

#[derive(serde::Serialize)]
struct Swept {
    removed: u64,
    held_back: bool,
}

/// The time that a record would get, and whether anything expires by it.
struct Now {
    wall_ms: u64,
    is_suspect: bool,
}

/// Why there is no answer: what was asked is wrong, or the engine says no.
enum Refused {
    Wrong(String),
    NotFound,
    Failed(String),
}

impl Admin {
    pub(crate) async fn answer(&self, path: &str, query: &str) -> Given {
        let parameters = Parameters::of(query);
        let answered = match path {
            STORE => self.break_store(&parameters),
            CLOCK => self.steer(&parameters).await,
            EXPIRY_SWEEP => self.expiry_sweep(&parameters).await,
            RECORDS => self.list().await,
            _ => Err(Refused::NotFound),
        };
        match answered {
            Ok(answer) => Given::json(200, answer),
            Err(Refused::Wrong(wrong)) => Given::wrong(400, &wrong),
            Err(Refused::NotFound) => Given::wrong(404, "there is no such thing"),
            Err(Refused::Failed(error)) => Given::wrong(500, &error),
        }
    }

    fn break_store(&self, parameters: &Parameters) -> Result<String, Refused> {
        let on = match parameters.text("on") {
            Some("admit") => On::Admit,
            Some("finish") => On::Finish,
            Some("any") | None => On::Any,
            Some(_) => return Err(wrong("on is admit, finish or any")),
        };
        let is_written = match parameters.text("fate") {
            Some("written") => true,
            None => false,
            Some(_) => return Err(wrong("fate is written, or not said")),
        };
        let fails = parameters.number("fails")?.ok_or_else(|| wrong("fails is needed"))?;
        self.faults.set(Plan { on, fails, is_written });
        Ok(json!({ "fails": fails }).to_string())
    }

    /// One turn at a time. The engine looks at the clock before it: a step back must have something to step back from.
    async fn steer(&self, parameters: &Parameters) -> Result<String, Refused> {
        let (advance, jump) = (parameters.number("advance_ms")?, parameters.number("jump_ms")?);
        self.now().await?;
        match (parameters.text("freeze"), advance, jump, parameters.text("run")) {
            (Some("1"), None, None, None) => self.clock.freeze(),
            (None, Some(ms), None, None) => self.clock.advance(Duration::from_millis(ms)),
            (None, None, Some(ms), None) => self.clock.jump(ms),
            (None, None, None, Some("1")) => self.clock.run(),
            _ => return Err(wrong("one of freeze=1, advance_ms=N, jump_ms=N, run=1")),
        }
        Ok(json!({ "now_ms": self.now().await?.wall_ms }).to_string())
    }

    async fn expiry_sweep(&self, parameters: &Parameters) -> Result<String, Refused> {
        let slice = parameters.number("slice")?.unwrap_or(SLICE);
        let removed = self.engine.expiry_sweep_slice(slice).await.map_err(failed)?;
        let held_back = self.now().await?.is_suspect;
        Ok(super::json(&Swept { removed, held_back }))
    }

    async fn list(&self) -> Result<String, Refused> {
        let records = self.records.list().map_err(failed)?;
        let actors = self.engine.stats().await.map_err(failed)?.live_actors;
        Ok(super::json(&Listing { now_ms: self.now().await?.wall_ms, actors, records }))
    }

    async fn now(&self) -> Result<Now, Refused> {
        Ok(match self.engine.stats().await.map_err(failed)?.clock {
            ClockState::Suspect { wall, .. } => Now { wall_ms: wall.0, is_suspect: true },
            _ => Now { wall_ms: self.engine.now().0, is_suspect: false },
        })
    }
}

fn wrong(what: &str) -> Refused {
    Refused::Wrong(what.to_owned())
}

fn failed(error: impl Error) -> Refused {
    Refused::Failed(error.to_string())
}

/// What a query says, each name once: of two values the last one counts.
struct Parameters(Vec<(Vec<u8>, Vec<u8>)>);

impl Parameters {
    fn of(query: &str) -> Self {
        Self(query::parameters(query).collect())
    }

    fn get(&self, name: &str) -> Option<&[u8]> {
        let found = self.0.iter().rev().find(|(known, _)| known == name.as_bytes());
        found.map(|(_, value)| value.as_slice())
    }

    /// What is not UTF-8 is no word that anything here asks for.
    fn text(&self, name: &str) -> Option<&str> {
        self.get(name).map(|value| std::str::from_utf8(value).unwrap_or("?"))
    }

    fn number<N: FromStr>(&self, name: &str) -> Result<Option<N>, Refused> {
        self.get(name).map(|value| query::number(name, value)).transpose().map_err(Refused::Wrong)
    }
}
