//! One key, explained to people: how it stands, and what a request would be told now.

use std::fmt;
use std::time::Duration;

use crate::error::Error;
use crate::key::Key;
use crate::record::{Record, Status};
use crate::time::UnixMillis;

/// What [`Engine::explain`](crate::Engine::explain) tells. `Display` is a text of a few lines for people; it shows no byte of what the host
/// stores, and names the key as log lines do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// The key.
    pub key: Key,
    /// When this was so, by [`Engine::now`](crate::Engine::now).
    pub now: UnixMillis,
    /// What is stored, also if it has lapsed; of a [replay-safe](crate::Policy::replay_safe) flow also what is held while it runs.
    pub record: Option<Record>,
    /// An operation of it runs in this process, or its end is on its way to the store.
    pub is_running: bool,
    /// That end could not be saved, and is tried again.
    pub is_unsaved: bool,
    /// As in [`Listed`](crate::Listed).
    pub is_dead_letter: bool,
    /// What the request of the record would be told now; without a record, any request.
    pub same_request: Prospect,
    /// What another request under the key would be told now.
    pub other_request: Prospect,
}

/// What the record makes of a request. Bounds, quotas and checks of the request's own may still refuse what would run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Prospect {
    /// It would run: for the first time, or again.
    Runs,
    /// It would share the end of what runs.
    Joins,
    /// It would get the recorded answer.
    Replays,
    /// It would be refused with this.
    Refused(Error),
}

impl Explanation {
    fn standing(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(record) = &self.record else { return write!(f, "{}: no record", self.key) };
        let status = record.state.status();
        write!(f, "{}: {status} since {}", self.key, span(record.updated_at, self.now))?;
        if status == Status::Tombstone {
            return Ok(());
        }
        let (number, admitted) = (record.attempt.number, span(record.created_at, self.now));
        write!(f, "\n  attempt {number}, admitted {admitted} ago")?;
        if record.recoveries > 0 {
            write!(f, ", {} recoveries", record.recoveries)?;
        }
        if record.abandoned {
            f.write_str(", given up by the host")?;
        }
        if self.is_dead_letter {
            f.write_str("\n  a dead letter: it does not run again by itself")?;
        }
        let stored = [("checkpoint", &record.checkpoint), ("a later end that contradicts it", &record.contradiction)];
        for (what, bytes) in stored {
            if let Some(bytes) = bytes {
                write!(f, "\n  {what}: {} bytes", bytes.len())?;
            }
        }
        Ok(())
    }

    fn ends(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(record) = &self.record else { return Ok(()) };
        let expires = if record.state.status().is_in_flight() {
            ("its answer is to expire", "its answer was to expire", record.expires_at)
        } else {
            ("expires", "expired", record.expires_at)
        };
        let ends = [
            expires,
            ("is forgotten", "was forgotten", record.lapses_at),
            ("its tombstone ends", "its tombstone ended", record.tombstone_until),
        ];
        for (will, did, end) in ends {
            match end {
                None => {}
                Some(end) if end > self.now => write!(f, "\n  {will} in {}", span(self.now, end))?,
                Some(end) => write!(f, "\n  {did} {} ago", span(end, self.now))?,
            }
        }
        if let Some(tick) = record.lapse_tick() {
            write!(f, "\n  is forgotten at tick {tick}")?;
        }
        Ok(())
    }
}

/// How long it is from one moment to a later one.
fn span(from: UnixMillis, to: UnixMillis) -> String {
    match to.0.saturating_sub(from.0) {
        0 => "0s".to_owned(),
        millis => format!("{:?}", Duration::from_millis(millis)),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.standing(f)?;
        let runs = match (self.is_running, self.is_unsaved) {
            (false, _) => "nothing of it runs here",
            (true, false) => "its operation runs here, or its end is being saved",
            (true, true) => "its end could not be saved yet, and is in memory alone",
        };
        write!(f, "\n  {runs}")?;
        self.ends(f)?;
        write!(f, "\n  the same request now: {}", self.same_request)?;
        write!(f, "\n  another request now: {}", self.other_request)
    }
}

impl fmt::Display for Prospect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runs => f.write_str("runs"),
            Self::Joins => f.write_str("waits for what runs, and shares its end"),
            Self::Replays => f.write_str("gets the recorded answer"),
            Self::Refused(error) => write!(f, "is refused: {error} ({})", error.class().name()),
        }
    }
}
