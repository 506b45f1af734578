//! How requests ended, counted per UTC day, route and outcome: rows of their own, which outlive the records by far.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use crate::{Bytes, Class, Engine, Error, ErrorKind, Guard, Row, UnixMillis};

/// The table of these rows. A key is the day (4 bytes, big-endian, since 1970), the outcome's place (1), the route; a value the count
/// (8 bytes, big-endian).
const TABLE: &str = "ibid.http.counts";
const DAY_MS: u64 = 86_400_000;
/// Today, and the days before it that count with it.
const DAYS: u32 = 7;
/// How long counts wait for company before they are written.
const PAUSE: Duration = Duration::from_millis(500);
/// Rows in one transaction.
const ROWS: usize = 256;

/// How a request on a keyed route ended, as its log event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Ended {
    /// The handler ran for it.
    Executed,
    /// It got the answer of an earlier run.
    Replayed,
    /// It got the answer of a run in flight.
    Joined,
    /// The key belongs to another request, or has expired.
    Conflict,
    /// The same request is in flight, or its answer was not kept.
    Duplicate,
    /// Nothing is known.
    Ambiguous,
    /// It was refused before anything ran.
    Definitive,
    /// It had no key, and needed none.
    Passed,
}

/// Requests of a route that ended like this, today and in the six days before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Count {
    /// `METHOD template`, or `unmatched`.
    pub route: String,
    /// How they ended.
    pub ended: Ended,
    /// How many.
    pub count: u64,
}

impl Ended {
    /// Those that are counted per day.
    pub const COUNTED: [Self; 6] =
        [Self::Executed, Self::Replayed, Self::Joined, Self::Conflict, Self::Duplicate, Self::Ambiguous];

    /// Its name in logs and metrics: `executed`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Executed => "executed",
            Self::Replayed => "replayed",
            Self::Joined => "joined",
            Self::Conflict => "conflict",
            Self::Duplicate => "duplicate",
            Self::Ambiguous => "ambiguous",
            Self::Definitive => "definitive",
            Self::Passed => "passed",
        }
    }

    /// As a refusal of this class is noted.
    pub(super) fn of(class: Class) -> Self {
        match class {
            Class::Duplicate => Self::Duplicate,
            Class::Conflict => Self::Conflict,
            Class::Definitive => Self::Definitive,
            Class::Ambiguous => Self::Ambiguous,
        }
    }

    fn place(self) -> Option<u8> {
        let place = Self::COUNTED.iter().position(|counted| *counted == self)?;
        u8::try_from(place).ok()
    }
}

/// A day, an outcome's place, a route.
type Cell = (u32, u8, Arc<str>);

/// What is counted and not written yet.
pub(super) struct Counts {
    engine: Engine,
    added: Mutex<HashMap<Cell, u64>>,
    is_due: Arc<Notify>,
    /// Held by whoever writes; what a write left in question.
    writing: tokio::sync::Mutex<HashMap<Cell, Tried>>,
}

/// A write of which nothing is known: so many were added, and the row would then hold this.
struct Tried {
    added: u64,
    value: u64,
}

impl Counts {
    /// Writes by itself on this runtime, at the latest a second after a count, for as long as it lives.
    pub(super) fn start(engine: &Engine) -> Arc<Self> {
        let is_due = Arc::new(Notify::new());
        let counts = Arc::new(Self {
            engine: engine.clone(),
            added: Mutex::default(),
            is_due: Arc::clone(&is_due),
            writing: tokio::sync::Mutex::default(),
        });
        let weak = Arc::downgrade(&counts);
        tokio::spawn(async move {
            loop {
                is_due.notified().await;
                tokio::time::sleep(PAUSE).await;
                let Some(counts) = Weak::upgrade(&weak) else { return };
                match counts.flush().await {
                    Err(error) if matches!(error.kind(), ErrorKind::Closed) => return,
                    Err(error) => {
                        tracing::warn!(%error, "counts could not be written; they are kept");
                        is_due.notify_one();
                    }
                    Ok(()) => {}
                }
            }
        });
        counts
    }

    pub(super) fn add(&self, route: &Arc<str>, ended: Ended) {
        let Some(place) = ended.place() else { return };
        *self.added().entry((day(self.engine.now()), place, Arc::clone(route))).or_default() += 1;
        self.is_due.notify_one();
    }

    /// Makes durable what was counted before.
    pub(super) async fn flush(&self) -> Result<(), Error> {
        let mut in_question = self.writing.lock().await;
        loop {
            let due: Vec<(Cell, u64)> =
                self.added().iter().take(ROWS).map(|(cell, added)| (cell.clone(), *added)).collect();
            if due.is_empty() {
                return Ok(());
            }
            self.write(due, &mut in_question).await?;
        }
    }

    /// Adds to what is stored. Somebody else's addition in between holds the guard up, and it is read again.
    async fn write(&self, due: Vec<(Cell, u64)>, in_question: &mut HashMap<Cell, Tried>) -> Result<(), Error> {
        let (mut rows, mut tries) = (Vec::new(), Vec::new());
        for (cell, mut added) in due {
            let key = row_key(&cell);
            let (stored, is_damaged) = match self.engine.ledger_row(TABLE, &key) {
                Err(error) if matches!(error.kind(), ErrorKind::Quarantined) => (None, true),
                stored => (stored?, false),
            };
            let before = stored.as_ref().map_or(0, |row| number(&row.value));
            if let Some(tried) = in_question.remove(&cell).filter(|tried| tried.value == before) {
                self.written(&cell, tried.added);
                added = added.saturating_sub(tried.added);
            }
            if added == 0 {
                continue;
            }
            let value = before.saturating_add(added);
            let guard = match stored {
                Some(row) => Guard::Equals(row.value),
                // One count that is lost must not hold up the others.
                None if is_damaged => Guard::Any,
                None => Guard::Absent,
            };
            let row = Row::new(TABLE, key, value.to_be_bytes()).map_err(|_| Error::from(ErrorKind::Internal))?;
            rows.push(row.guard(guard).expires_at(UnixMillis(u64::from(cell.0 + DAYS) * DAY_MS)));
            tries.push((cell, Tried { added, value }));
        }
        match self.engine.write_rows(rows).await {
            Ok(true) => tries.iter().for_each(|(cell, tried)| self.written(cell, tried.added)),
            Ok(false) => {}
            Err(error) => {
                in_question.extend(tries);
                return Err(error);
            }
        }
        Ok(())
    }

    fn written(&self, cell: &Cell, count: u64) {
        let mut added = self.added();
        if let Some(left) = added.get_mut(cell) {
            *left = left.saturating_sub(count);
            if *left == 0 {
                added.remove(cell);
            }
        }
    }

    /// The sums of today and the six days before, written or not, by route and outcome.
    pub(super) fn sums(&self) -> Result<Vec<Count>, Error> {
        let today = day(self.engine.now());
        let days = today.saturating_sub(DAYS - 1)..=today;
        let mut sums: BTreeMap<(Box<str>, u8), u64> = BTreeMap::new();
        let mut add = |route: &str, place: u8, count: u64| *sums.entry((route.into(), place)).or_default() += count;
        for ((on, place, route), count) in &*self.added() {
            if days.contains(on) {
                add(route, *place, *count);
            }
        }
        // The last key before those of the first day.
        let mut after: Option<Bytes> =
            days.start().checked_sub(1).map(|day| [&day.to_be_bytes(), &[0xff; 508][..]].concat().into());
        loop {
            let page = self.engine.ledger_rows(TABLE, after.as_deref(), ROWS)?;
            for (key, row) in &page {
                if let Some((on, place, route)) = cell(key)
                    && days.contains(&on)
                {
                    add(route, place, number(&row.value));
                }
            }
            match page.last() {
                Some((key, _)) if page.len() == ROWS => after = Some(Arc::clone(key)),
                _ => break,
            }
        }
        let count = |((route, place), count): ((Box<str>, u8), u64)| {
            let ended = *Ended::COUNTED.get(usize::from(place))?;
            Some(Count { route: route.into(), ended, count })
        };
        Ok(sums.into_iter().filter_map(count).collect())
    }

    /// Counts stay sound across a panic elsewhere: nothing in here can panic between two of its writes.
    fn added(&self) -> MutexGuard<'_, HashMap<Cell, u64>> {
        self.added.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counts {
    /// Lets the writer see that it is over.
    fn drop(&mut self) {
        self.is_due.notify_one();
    }
}

fn day(now: UnixMillis) -> u32 {
    u32::try_from(now.0 / DAY_MS).unwrap_or(u32::MAX - DAYS)
}

fn row_key((day, place, route): &Cell) -> Vec<u8> {
    [&day.to_be_bytes(), &[*place][..], route.as_bytes()].concat()
}

fn cell(key: &[u8]) -> Option<(u32, u8, &str)> {
    let (day, rest) = key.split_first_chunk()?;
    let (place, route) = rest.split_first()?;
    Some((u32::from_be_bytes(*day), *place, std::str::from_utf8(route).ok()?))
}

/// A row that holds something else counts as nothing.
fn number(value: &[u8]) -> u64 {
    value.try_into().map_or(0, u64::from_be_bytes)
}
