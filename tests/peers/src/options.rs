//! What the script hands over.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::AnyError;

/// Callers of fresh requests, and of replays.
const FRESH: [usize; 4] = [1, 64, 512, 2_048];
const REPLAYS: [usize; 2] = [1, 64];
/// See the docs of the crate for both.
const POSTGRES_CONNECTIONS: [usize; 1] = [128];
const REDIS_CONNECTIONS: [usize; 3] = [4, 16, UNSHARED];
/// As many connections as there are callers at most.
pub(crate) const UNSHARED: usize = 2_048;

pub(crate) struct Options {
    /// Where the stores are that are opened in process.
    pub(crate) directory: PathBuf,
    pub(crate) rounds: usize,
    /// How long a caller of fresh requests goes on; one of replays half as long.
    pub(crate) window: Duration,
    /// All rounds together take about as long at most, or are fewer.
    pub(crate) budget: Duration,
    /// What every store holds at the beginning.
    pub(crate) records: u64,
    pub(crate) callers: Vec<usize>,
    pub(crate) replay_callers: Vec<usize>,
    /// Names of peers; empty: all.
    pub(crate) only: Vec<String>,
    /// Ports on loopback of those that run.
    pub(crate) postgres: Option<u16>,
    /// At most; one peer for each.
    pub(crate) postgres_connections: Vec<usize>,
    pub(crate) redis: Option<u16>,
    pub(crate) redis_connections: Vec<usize>,
    /// Ingress and admin.
    pub(crate) restate: Option<(u16, u16)>,
    /// Why one or the other does not run.
    pub(crate) missing: Vec<String>,
}

impl Options {
    pub(crate) fn from_arguments(arguments: impl Iterator<Item = String>) -> Result<Self, AnyError> {
        let mut options = Self {
            directory: std::env::temp_dir(),
            rounds: 5,
            window: Duration::from_millis(1_500),
            budget: Duration::from_secs(540),
            records: 0,
            callers: FRESH.to_vec(),
            replay_callers: REPLAYS.to_vec(),
            only: Vec::new(),
            postgres: None,
            postgres_connections: POSTGRES_CONNECTIONS.to_vec(),
            redis: None,
            redis_connections: REDIS_CONNECTIONS.to_vec(),
            restate: None,
            missing: Vec::new(),
        };
        let mut arguments = arguments;
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name} lacks its value"))?;
            options.set(&name, value).map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), AnyError> {
        match name {
            "--dir" => self.directory = value.into(),
            "--rounds" => self.rounds = value.parse()?,
            "--seconds" => self.window = Duration::try_from_secs_f64(value.parse()?)?,
            "--budget" => self.budget = Duration::try_from_secs_f64(value.parse()?)?,
            "--records" => self.records = value.parse()?,
            "--callers" => self.callers = list(&value)?,
            "--replay-callers" => self.replay_callers = list(&value)?,
            "--only" => self.only = list(&value)?,
            "--postgres" => self.postgres = Some(value.parse()?),
            "--postgres-connections" => self.postgres_connections = list(&value)?,
            "--redis" => self.redis = Some(value.parse()?),
            "--redis-connections" => self.redis_connections = list(&value)?,
            "--restate" => {
                let (ingress, admin) = value.split_once(',').ok_or("two ports")?;
                self.restate = Some((ingress.parse()?, admin.parse()?));
            }
            "--missing" => self.missing.push(value),
            _ => return Err("no such option".into()),
        }
        Ok(())
    }
}

/// Separated by commas; the empty text is none.
fn list<T: FromStr>(text: &str) -> Result<Vec<T>, T::Err> {
    text.split(',').filter(|part| !part.is_empty()).map(|part| part.trim().parse()).collect()
}
