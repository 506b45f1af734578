//! The endpoints under /admin: faults, clock, expiry sweep, records.

use std::fmt::Display;
use std::future::ready;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ibid::{ClockState, Engine, Stats};
use serde_json::json;

use super::answer::Given;
use super::clock::SteeredClock;
use super::faults::{Faults, On, Plan};
use super::patience::patiently;
use super::query;
use super::records::{Records, Row};

pub(crate) const STORE: &str = "/admin/store";
pub(crate) const CLOCK: &str = "/admin/clock";
pub(crate) const EXPIRY_SWEEP: &str = "/admin/expiry-sweep";
pub(crate) const RECORDS: &str = "/admin/records";
pub(crate) const CORRUPT: &str = "/admin/corrupt";

/// Those that take a POST.
pub(crate) const POSTED: [&str; 4] = [STORE, CLOCK, EXPIRY_SWEEP, CORRUPT];

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
            CORRUPT => self.corrupt(&parameters).await,
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
        let records = patiently(|| ready(self.records.list())).await.map_err(failed)?;
        let actors = self.stats().await?.live_actors;
        Ok(super::json(&Listing { now_ms: self.now().await?.wall_ms, actors, records }))
    }

    async fn corrupt(&self, parameters: &Parameters) -> Result<String, Refused> {
        let key_hash = parameters.text("key_hash").ok_or_else(|| wrong("key_hash is needed"))?;
        if patiently(|| self.records.damage(key_hash)).await.map_err(failed)? {
            Ok(json!({ "key_hash": key_hash }).to_string())
        } else {
            Err(Refused::NotFound)
        }
    }

    async fn stats(&self) -> Result<Stats, Refused> {
        patiently(|| self.engine.stats()).await.map_err(failed)
    }

    async fn now(&self) -> Result<Now, Refused> {
        Ok(match self.stats().await?.clock {
            ClockState::Suspect { wall, .. } => Now { wall_ms: wall.0, is_suspect: true },
            _ => Now { wall_ms: self.engine.now().0, is_suspect: false },
        })
    }
}

fn wrong(what: &str) -> Refused {
    Refused::Wrong(what.to_owned())
}

fn failed(error: impl Display) -> Refused {
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

#[cfg(test)]
mod tests {
    use ibid::http::Setup;
    use ibid::store::{RedbOptions, RedbStore};
    use ibid::{Attempt, Failure, Flow, Policy};
    use serde_json::Value;

    use super::super::answer::Body;
    use super::super::unsaved::Unsaved;
    use super::*;

    const TTL_MS: u64 = 300_000;

    struct Scene {
        admin: Admin,
        flow: Flow,
        _dir: tempfile::TempDir,
    }

    impl Scene {
        /// The clock stands still.
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Arc::new(RedbStore::open(dir.path().join("a.redb"), RedbOptions::default()).unwrap());
            let (clock, faults) = (SteeredClock::new(), Arc::new(Faults::over(store.clone())));
            clock.freeze();
            let (setup, unsaved) = (Setup::new().build().unwrap(), Unsaved::default());
            let builder = setup.prepare(Engine::builder()).clock(clock.clone()).observer(unsaved.clone());
            let engine = builder.open_store(faults.clone()).unwrap();
            let idempotency = setup.bind(&engine).await.unwrap();
            let records = Records::new(store, idempotency, unsaved);
            let policy = Policy::replay(Duration::from_millis(TTL_MS)).grace(Duration::ZERO);
            let flow = Flow::new("POST /pay", policy).unwrap();
            Self { admin: Admin { engine, clock, faults, records }, flow, _dir: dir }
        }

        async fn ask(&self, path: &str, query: &str) -> (u16, Value) {
            let given = self.admin.answer(path, query).await;
            let Body::Whole(body) = given.body else { panic!("it has a body") };
            (given.status, serde_json::from_slice(&body).unwrap())
        }

        async fn done(&self, path: &str, query: &str) -> Value {
            let (status, answer) = self.ask(path, query).await;
            assert_eq!(status, 200, "{path}?{query}: {answer}");
            answer
        }

        async fn pay(&self, id: &str, end: Result<u32, Failure>) {
            let key = self.flow.key("a", id).unwrap();
            // What the caller gets is not the matter here.
            drop(self.admin.engine.run(&self.flow, &key, "request", |_: Attempt| async { end }).await);
        }

        async fn states(&self) -> Vec<Value> {
            let listing = self.done(RECORDS, "").await;
            listing["records"].as_array().unwrap().iter().map(|row| row["state"].clone()).collect()
        }
    }

    #[tokio::test]
    async fn records_are_listed_oldest_first_with_their_times() {
        let scene = Scene::new().await;
        let began = scene.done(CLOCK, "advance_ms=0").await["now_ms"].as_u64().unwrap();
        scene.pay("z", Ok(1)).await;
        scene.done(CLOCK, "advance_ms=7").await;
        scene.pay("a", Err(Failure::unknown("who knows"))).await;
        let listing = scene.done(RECORDS, "").await;
        assert_eq!(listing["now_ms"], began + 7);
        let rows = listing["records"].as_array().unwrap();
        let times = |row: &Value| ["created_ms", "updated_ms", "expires_ms"].map(|name| row[name].as_u64());
        assert_eq!(rows.len(), 2);
        assert_eq!(times(&rows[0]), [Some(began), Some(began), Some(began + TTL_MS)]);
        assert_eq!(times(&rows[1]), [Some(began + 7), Some(began + 7), None]);
        assert_eq!((&rows[0]["state"], &rows[1]["state"]), (&json!("completed"), &json!("in_doubt")));
        assert_eq!((&rows[0]["route"], &rows[0]["attempt"]), (&json!("POST /pay"), &json!(1)));
    }

    #[tokio::test]
    async fn what_has_expired_goes_slice_by_slice_unless_the_clock_has_leapt() {
        let scene = Scene::new().await;
        for id in ["1", "2", "3"] {
            scene.pay(id, Ok(1)).await;
        }
        scene.done(CLOCK, &format!("jump_ms={}", TTL_MS + 2 * 3_600_000)).await;
        assert_eq!(scene.done(EXPIRY_SWEEP, "slice=2").await, json!({ "removed": 0, "held_back": true }));
        scene.done(CLOCK, &format!("jump_ms=-{}", TTL_MS + 2 * 3_600_000)).await;
        scene.done(CLOCK, &format!("advance_ms={TTL_MS}")).await;
        for removed in [2, 1, 0] {
            assert_eq!(scene.done(EXPIRY_SWEEP, "slice=2").await, json!({ "removed": removed, "held_back": false }));
        }
        assert_eq!(scene.states().await, [""; 0]);
    }

    #[tokio::test]
    async fn one_record_is_damaged_and_listed_as_such() {
        let scene = Scene::new().await;
        scene.pay("1", Ok(1)).await;
        scene.done(CLOCK, "advance_ms=1").await;
        scene.pay("2", Ok(1)).await;
        let hash = scene.done(RECORDS, "").await["records"][0]["key_hash"].as_str().unwrap().to_owned();
        scene.done(CORRUPT, &format!("key_hash={hash}")).await;
        assert_eq!(scene.states().await, ["quarantined", "completed"]);
        assert_eq!(scene.ask(CORRUPT, &format!("key_hash={hash}")).await.0, 404, "there is nothing left of it");
    }

    #[tokio::test]
    async fn what_cannot_be_saved_is_listed_as_such() {
        let scene = Scene::new().await;
        scene.done(STORE, "on=finish&fails=1000").await;
        scene.pay("1", Ok(1)).await;
        assert_eq!(scene.states().await, ["unsaved"]);
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_refused() {
        let scene = Scene::new().await;
        let wrong = [
            (STORE, "on=admit"),
            (STORE, "on=often&fails=1"),
            (STORE, "fails=1&fate=sealed"),
            (CLOCK, ""),
            (CLOCK, "freeze=1&run=1"),
            (CLOCK, "advance_ms=-1"),
            (EXPIRY_SWEEP, "slice=all"),
            (CORRUPT, ""),
        ];
        for (path, query) in wrong {
            assert_eq!(scene.ask(path, query).await.0, 400, "{path}?{query}");
        }
        assert_eq!(scene.ask("/admin/else", "").await.0, 404);
    }
}
