//! What happened in an episode, in the one order in which it happened.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ibid::store::Verdict;
use ibid::testing::SimulatedClock;
use ibid::{
    Abandoned, Acknowledged, AttemptId, BootId, Bytes, Clock, Ended, ErrorKind, Fenced, Forgotten, Found, How, Record,
    Resolved, Row, Status, Token, UnixMillis,
};

/// Events of one episode, at most: one that goes on for ever has to be noticed.
const MOST: usize = 200_000;

/// Something happened.
#[derive(Clone)]
pub(crate) struct Event {
    /// Virtual milliseconds since the episode began.
    pub(crate) at: u64,
    /// What the wall clock showed.
    pub(crate) clock: u64,
    pub(crate) what: What,
}

#[derive(Clone)]
pub(crate) enum What {
    /// A boot begins: everything of an earlier one is over.
    Opening(usize),
    /// It is open.
    Opened(usize),
    /// A shutdown was asked for.
    Closing(usize),
    /// It is over.
    Closed(usize),
    /// The process died: nothing of this boot counts from here on.
    Crashed(usize),
    /// A read or a commit has failed.
    StoreFailed(usize),
    /// A commit or the reopening has worked.
    StoreWorked(usize),
    /// A commit that writes a record has worked.
    Wrote(usize),
    /// This is durable, whatever the one who committed it was told.
    Committed {
        boot: usize,
        now: UnixMillis,
        tick: u64,
        changes: Vec<Changed>,
    },
    ClockSet,
    Asked {
        id: usize,
        boot: usize,
        key: usize,
        ask: Ask,
    },
    /// The caller has dropped its future.
    Left {
        id: usize,
    },
    /// With the end that came with it, where it is a duplicate of what has ended.
    Answered {
        id: usize,
        answer: Answer,
        recorded: Option<Ended>,
    },
    Started(Started),
    /// The oracle is asked about an attempt.
    Inquired(Inquired),
    /// And has said this; or has panicked, or nobody waits for its answer any more.
    Heard {
        inquiry: usize,
        found: Option<Found>,
    },
    Saving {
        start: usize,
        bytes: Bytes,
        expires_at: Option<UnixMillis>,
    },
    Saved {
        start: usize,
        result: Result<(), ErrorKind>,
    },
    Ended {
        start: usize,
        end: Finished,
    },
    /// Somebody asked the engine for the time.
    Now {
        boot: usize,
        now: UnixMillis,
    },
    /// Everything that could end has had its time.
    Rested {
        boot: usize,
    },
    /// And everybody has left.
    Empty {
        boot: usize,
        held: Held,
    },
}

/// One change of a transaction, with its verdict.
#[derive(Clone)]
pub(crate) struct Changed {
    /// `None`: it is of rows that belong to no record.
    pub(crate) key: Option<usize>,
    pub(crate) put: Option<Box<Record>>,
    pub(crate) rows: Vec<Row>,
    pub(crate) verdict: Verdict,
}

/// Which way a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Submit,
    TrySubmit,
    Message,
}

#[derive(Clone)]
pub(crate) enum Ask {
    Submit(Submit),
    /// By one who knows the request, or by anybody.
    Track(Option<Bytes>),
    Lookup,
    Forget,
    Resolve {
        attempt: Option<AttemptId>,
        end: Ended,
    },
    Fence,
    List,
    ExpirySweep,
    Abandon,
    Acknowledge,
    Disturb,
    Tick,
    /// To be written without a record.
    Rows(Row),
}

#[derive(Clone)]
pub(crate) struct Submit {
    pub(crate) way: Way,
    pub(crate) request: Bytes,
    pub(crate) retention: Option<Duration>,
    pub(crate) barred: Option<Bytes>,
    pub(crate) deadline: Option<Duration>,
}

pub(crate) type Answer = Result<Said, ErrorKind>;

#[derive(Clone)]
pub(crate) enum Said {
    Answer(How, Bytes),
    Accepted,
    Record(Option<Box<Record>>),
    Forgotten(Forgotten),
    Resolved(Resolved),
    Fenced(Fenced),
    /// And whether each is a dead letter.
    Listed(Vec<(usize, Record, bool)>),
    Swept(u64),
    Abandoned(Abandoned),
    Acknowledged(Acknowledged),
    Ticked,
    /// Whether they were written.
    Rows(bool),
}

#[derive(Clone)]
pub(crate) struct Inquired {
    pub(crate) inquiry: usize,
    pub(crate) boot: usize,
    pub(crate) key: usize,
    pub(crate) number: u32,
    pub(crate) token: [u8; 32],
    pub(crate) request: Bytes,
    pub(crate) checkpoint: Option<Bytes>,
    pub(crate) status: Status,
}

/// The operation of request `call` was started; without one, the engine runs it again by itself.
#[derive(Clone)]
pub(crate) struct Started {
    pub(crate) start: usize,
    pub(crate) boot: usize,
    pub(crate) key: usize,
    pub(crate) call: Option<usize>,
    pub(crate) number: u32,
    pub(crate) token: [u8; 32],
    pub(crate) request: Bytes,
    pub(crate) checkpoint: Option<Bytes>,
    /// The engine's boot, its time at the admission, and the bound that the request set.
    pub(crate) boot_id: BootId,
    pub(crate) admitted_at: UnixMillis,
    pub(crate) expires_at: Option<UnixMillis>,
}

/// How an operation ended.
#[derive(Clone)]
pub(crate) enum Finished {
    Done {
        answer: Bytes,
        expires_at: Option<UnixMillis>,
        rows: Vec<Row>,
        otherwise: Option<Bytes>,
    },
    Accepted,
    AlreadyLive,
    Taken,
    Definitive(Bytes),
    Unknown(Bytes),
    /// It panicked, or was aborted.
    Lost,
}

/// What an engine holds in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) live_actors: usize,
    pub(crate) running: usize,
    pub(crate) in_flight: usize,
    pub(crate) died_actors: u64,
}

/// Where an episode writes down what happens.
#[derive(Clone)]
pub(crate) struct History(Arc<Mutex<Inner>>);

struct Inner {
    events: Vec<Event>,
    clock: Option<SimulatedClock>,
    begun: u64,
    /// How far the wall clock was set ahead, all in all.
    ahead: i64,
    numbers: usize,
}

impl History {
    pub(crate) fn new() -> Self {
        let inner = Inner { events: Vec::new(), clock: None, begun: 0, ahead: 0, numbers: 0 };
        Self(Arc::new(Mutex::new(inner)))
    }

    pub(crate) fn begin(&self, clock: &SimulatedClock) {
        let mut inner = self.lock();
        inner.begun = clock.now().0;
        inner.clock = Some(clock.clone());
    }

    pub(crate) fn note(&self, what: What) {
        let mut inner = self.lock();
        let clock = inner.clock.as_ref().map_or(0, |clock| clock.now().0);
        let at = clock.saturating_add_signed(-inner.ahead).saturating_sub(inner.begun);
        inner.events.push(Event { at, clock, what });
        assert!(inner.events.len() < MOST, "the episode goes on for ever");
    }

    /// Sets the wall clock, ahead if it is positive.
    pub(crate) fn set_clock(&self, millis: i64) {
        // What it showed last, and then what it shows now.
        self.note(What::ClockSet);
        let mut inner = self.lock();
        let by = Duration::from_millis(millis.unsigned_abs());
        match &inner.clock {
            Some(clock) if millis < 0 => clock.set_back(by),
            Some(clock) => clock.set_ahead(by),
            None => return,
        }
        inner.ahead += millis;
        drop(inner);
        self.note(What::ClockSet);
    }

    /// How far the wall clock has been set ahead.
    pub(crate) fn ahead(&self) -> i64 {
        self.lock().ahead
    }

    /// A number that nothing else in the episode has.
    pub(crate) fn number(&self) -> usize {
        let mut inner = self.lock();
        inner.numbers += 1;
        inner.numbers
    }

    /// The attempts of a key that were started, in order.
    pub(crate) fn attempts(&self, key: usize) -> Vec<AttemptId> {
        let inner = self.lock();
        let started = inner.events.iter().filter_map(|event| match &event.what {
            What::Started(started) if started.key == key => Some(started),
            _ => None,
        });
        // Which boot started it makes no difference to anybody.
        let attempt = |started: &Started| AttemptId {
            number: started.number,
            boot: BootId([0; 16]),
            token: Token(started.token),
        };
        started.map(attempt).collect()
    }

    /// The last start under this token, if there was one, and its end, if that has come.
    pub(crate) fn last_run(&self, token: &[u8; 32]) -> Option<Option<Finished>> {
        let inner = self.lock();
        let start = inner.events.iter().rev().find_map(|event| match &event.what {
            What::Started(started) if started.token == *token => Some(started.start),
            _ => None,
        })?;
        Some(inner.events.iter().rev().find_map(|event| match &event.what {
            What::Ended { start: ended, end } if *ended == start => Some(end.clone()),
            _ => None,
        }))
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The history, one event a line, without what says nothing: commits of nothing, and a store that works as it did before.
pub(crate) fn printed(events: &[Event]) -> String {
    let mut failing = false;
    let mut says = |(_, event): &(usize, &Event)| match &event.what {
        What::StoreFailed(_) => {
            failing = true;
            true
        }
        What::StoreWorked(_) => std::mem::take(&mut failing),
        What::Wrote(_) => false,
        What::Committed { changes, .. } => !changes.is_empty(),
        _ => true,
    };
    let line = |(place, event): (usize, &Event)| format!("{place:>5} {event:?}\n");
    events.iter().enumerate().filter(|event| says(event)).map(line).collect()
}

fn text(bytes: &[u8]) -> String {
    let shown = String::from_utf8_lossy(bytes.get(..24).unwrap_or(bytes)).into_owned();
    if bytes.len() > 24 { format!("{shown:?}..{}", bytes.len()) } else { format!("{shown:?}") }
}

fn shown(bytes: Option<&Bytes>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| text(bytes))
}

fn end(end: Option<UnixMillis>) -> String {
    end.map_or_else(|| "-".to_owned(), |end| (end.0 % 1_000_000_000).to_string())
}

pub(crate) fn show_record(record: &Record) -> String {
    use ibid::State;
    let state = match &record.state {
        State::Completed(answer) => format!("completed {}", shown(answer.as_ref())),
        State::Failed(origin, reason) => format!("failed {origin:?} {}", text(reason)),
        other => format!("{other:?}"),
    };
    format!(
        "{state} attempt {} of {} request {} checkpoint {} recoveries {} updated {} until {}/{}/{}/tick {} {}revision {}",
        record.attempt.number,
        token(&record.attempt.token.0),
        text(&record.request),
        shown(record.checkpoint.as_ref()),
        record.recoveries,
        end(Some(record.updated_at)),
        end(record.expires_at),
        end(record.lapses_at),
        end(record.tombstone_until),
        record.lapses_at_tick.map_or_else(|| "-".to_owned(), |tick| tick.to_string()),
        if record.abandoned { "given up, " } else { "" },
        record.revision,
    )
}

fn show_attempt(attempt: Option<&AttemptId>) -> String {
    attempt.map_or_else(|| "-".to_owned(), |attempt| format!("{} of {}", attempt.number, token(&attempt.token.0)))
}

fn token(bytes: &[u8]) -> String {
    bytes.iter().take(2).map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9} ms, clock {}: {:?}", self.at, self.clock % 1_000_000_000, self.what)
    }
}

impl fmt::Debug for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opening(boot) => write!(f, "==== boot {boot} is opening"),
            Self::Opened(boot) => write!(f, "==== boot {boot} is open"),
            Self::Closing(boot) => write!(f, "==== boot {boot} is shutting down"),
            Self::Closed(boot) => write!(f, "==== boot {boot} is closed"),
            Self::Crashed(boot) => write!(f, "==== boot {boot} has crashed"),
            Self::StoreFailed(_) => write!(f, "the store failed"),
            Self::StoreWorked(_) => write!(f, "the store works"),
            Self::Wrote(_) => write!(f, "the store writes"),
            Self::Committed { now, tick, changes, .. } => {
                write!(f, "  committed at {}, tick {tick} {changes:?}", end(Some(*now)))
            }
            Self::ClockSet => write!(f, "the clock was set"),
            Self::Asked { id, key, ask, .. } => write!(f, "#{id} asks for key {key}: {ask:?}"),
            Self::Left { id } => write!(f, "#{id} has left"),
            Self::Answered { id, answer, recorded: None } => write!(f, "#{id} is told {answer:?}"),
            Self::Answered { id, answer, recorded: Some(Ended::Completed(bytes) | Ended::Failed(bytes)) } => {
                write!(f, "#{id} is told {answer:?} with {}", text(bytes))
            }
            Self::Started(started) => write!(
                f,
                "  start {} of key {} for {:?}: attempt {} of {} request {} checkpoint {}",
                started.start,
                started.key,
                started.call,
                started.number,
                token(&started.token),
                text(&started.request),
                shown(started.checkpoint.as_ref())
            ),
            Self::Inquired(Inquired { inquiry, key, number, token, checkpoint, status, .. }) => {
                let (token, checkpoint) = (self::token(token), shown(checkpoint.as_ref()));
                write!(
                    f,
                    "  inquiry {inquiry} about key {key}: {status:?} attempt {number} of {token} checkpoint {checkpoint}"
                )
            }
            Self::Heard { inquiry, found } => match found {
                Some(Found::Done(Ended::Completed(bytes))) => {
                    write!(f, "  inquiry {inquiry}: completed {}", text(bytes))
                }
                Some(Found::Done(Ended::Failed(bytes))) => write!(f, "  inquiry {inquiry}: failed {}", text(bytes)),
                found => write!(f, "  inquiry {inquiry}: {found:?}"),
            },
            Self::Saving { start, bytes, expires_at } => {
                write!(f, "  start {start} saves {} until {}", text(bytes), end(*expires_at))
            }
            Self::Saved { start, result } => write!(f, "  start {start} has saved: {result:?}"),
            Self::Ended { start, end } => write!(f, "  start {start} ends {end:?}"),
            Self::Now { now, .. } => write!(f, "it is {}", end(Some(*now))),
            Self::Rested { .. } => write!(f, "everything that could end has had its time"),
            Self::Empty { held, .. } => write!(f, "everybody has left: {held:?}"),
        }
    }
}

impl fmt::Debug for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let put = self.put.as_ref().map_or_else(|| "removed".to_owned(), |record| show_record(record));
        match self.key {
            Some(key) => write!(f, "key {key} {:?}: {put}", self.verdict)?,
            None => write!(f, "of no record {:?}", self.verdict)?,
        }
        self.rows.iter().try_for_each(|row| write!(f, " row {} {:?}", text(row.key()), row.requires()))
    }
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Submit(submit) => {
                let Submit { way, request, retention, barred, deadline } = submit;
                write!(f, "{way:?} {} retention {retention:?} deadline {deadline:?}", text(request))?;
                write!(f, " barred {}", shown(barred.as_ref()))
            }
            Self::Resolve { attempt, end: Ended::Completed(bytes) } => {
                write!(f, "resolve {} completed {}", show_attempt(attempt.as_ref()), text(bytes))
            }
            Self::Resolve { attempt, end: Ended::Failed(bytes) } => {
                write!(f, "resolve {} failed {}", show_attempt(attempt.as_ref()), text(bytes))
            }
            Self::Track(request) => write!(f, "track {}", shown(request.as_ref())),
            Self::Lookup => write!(f, "lookup"),
            Self::Forget => write!(f, "forget"),
            Self::Fence => write!(f, "fence"),
            Self::List => write!(f, "list"),
            Self::ExpirySweep => write!(f, "expiry sweep"),
            Self::Abandon => write!(f, "abandon"),
            Self::Acknowledge => write!(f, "acknowledge"),
            Self::Disturb => write!(f, "disturb"),
            Self::Tick => write!(f, "tick"),
            Self::Rows(row) => write!(f, "row {} {:?}", text(row.key()), row.requires()),
        }
    }
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(how, answer) => write!(f, "{how} {}", text(answer)),
            Self::Accepted => write!(f, "accepted"),
            Self::Record(record) => match record {
                Some(record) => f.write_str(&show_record(record)),
                None => write!(f, "no record"),
            },
            Self::Forgotten(forgotten) => forgotten.fmt(f),
            Self::Resolved(resolved) => resolved.fmt(f),
            Self::Fenced(fenced) => fenced.fmt(f),
            Self::Listed(listed) => write!(f, "{:?}", listed.iter().map(|(key, ..)| key).collect::<Vec<_>>()),
            Self::Swept(count) => write!(f, "{count} removed"),
            Self::Abandoned(abandoned) => abandoned.fmt(f),
            Self::Acknowledged(acknowledged) => acknowledged.fmt(f),
            Self::Ticked => write!(f, "ticked"),
            Self::Rows(written) => write!(f, "{}", if *written { "written" } else { "guarded" }),
        }
    }
}

impl fmt::Debug for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { answer, expires_at, rows, otherwise } => write!(
                f,
                "done {} until {} rows {} otherwise {}",
                text(answer),
                end(*expires_at),
                rows.len(),
                shown(otherwise.as_ref())
            ),
            Self::Accepted => write!(f, "accepted"),
            Self::AlreadyLive => write!(f, "already live"),
            Self::Taken => write!(f, "taken"),
            Self::Definitive(reason) => write!(f, "definitive {}", text(reason)),
            Self::Unknown(reason) => write!(f, "unknown {}", text(reason)),
            Self::Lost => write!(f, "lost"),
        }
    }
}
