//! Says of a history whether the promises held.
//!
//! It is written from the contract and knows nothing of the machine. What is durable is known, commit by commit, and so is
//! everything that was asked and told; so each commit must have a cause that the contract names, and each answer must fit what
//! the key was at some moment between question and answer. One pass, linear in the length of the history but for the
//! moments that a long wait spans.

use std::collections::{BTreeMap, BTreeSet};

use ibid::store::Verdict;
use ibid::{AttemptId, Bytes, Ended, Found, Record, Resolved, Row, State, Status, Token, UnixMillis};

use super::coverage::Coverage;
use super::history::{Answer, Ask, Changed, Event, Finished, Held, Inquired, Said, Started, Submit, Way, What};
use super::plan::{Grid, Plan};

/// How long it takes until all is dealt with after the store works again, in milliseconds: an end that could not be read for
/// waits half a second.
const READ_AGAIN: u64 = 510;

/// How often a commit is tried before nobody is kept waiting for it.
const TRIES: u64 = 5;

/// What was promised and did not hold.
#[derive(Debug)]
pub(crate) struct Objection {
    /// The place in the history.
    pub(crate) place: usize,
    pub(crate) rule: Rule,
    pub(crate) why: String,
}

/// The promises, by what breaks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// An operation started that had been started, or that nobody asked for.
    StartedTwice,
    /// Two operations of one key at once.
    TwoAtOnce,
    /// An operation started before its registration was durable, or with something else than was registered.
    StartedEarly,
    /// Something became durable for which there is no cause.
    NoCause,
    /// An answer that does not fit the key at any moment between question and answer.
    WrongAnswer,
    /// A definitive refusal of something that may have had an effect.
    NotDefinitive,
    /// Somebody waits for ever, or longer than they said.
    NoAnswer,
    /// Something was held at the end.
    Leak,
    /// Ticks were durable that there have not been, or were not when they should have been.
    Ticks,
    /// The engine's time went back, or does not come from the clock.
    Time,
    /// Something happened after the end of its boot.
    AfterTheEnd,
    /// A row was written without its completion, or against its guard.
    Ledger,
    /// A bound did not hold, or held too early.
    Bound,
}

pub(super) type Checked<T = ()> = Result<T, (Rule, String)>;

pub(super) fn object<T>(rule: Rule, why: impl Into<String>) -> Checked<T> {
    Err((rule, why.into()))
}

/// Everything known about the episode so far.
pub(super) struct Checker<'a> {
    pub(super) plan: &'a Plan,
    pub(super) coverage: Coverage,
    pub(super) keys: Vec<Key>,
    pub(super) calls: BTreeMap<usize, Call>,
    pub(super) starts: BTreeMap<usize, Start>,
    pub(super) inquiries: BTreeMap<usize, Inquiry>,
    pub(super) boot: Boot,
    /// The highest time that is durable, and the highest that the engine is known to have read.
    pub(super) mark: u64,
    floor: u64,
    /// What the engine's time may have been, at each place: not before the first, not after the second.
    pub(super) time: Vec<(u64, u64)>,
    pub(super) place: usize,
    pub(super) at: u64,
    clock: u64,
    /// When each place was.
    pub(super) ats: Vec<u64>,
    /// How many ticks there have been, at each place; and how many of them are durable.
    pub(super) ticks: Vec<u64>,
    pub(super) tick: u64,
    pub(super) tick_mark: u64,
    /// Rows of no record that were written, and where.
    pub(super) rows_alone: Vec<(usize, Row)>,
    /// The ends of the rows of the ledger, by table and key.
    rows: BTreeMap<RowName, Option<UnixMillis>>,
    tokens: BTreeSet<[u8; 32]>,
}

/// Table and key.
type RowName = (Vec<u8>, Vec<u8>);

/// A key: what it held durably, since when.
#[derive(Default)]
pub(super) struct Key {
    pub(super) states: Vec<(usize, Option<Box<Record>>)>,
    /// Where, if the last state is only held in memory: of a replay-safe attempt that has started and of which nothing is durable.
    held: Option<usize>,
    /// Where it was so.
    was_held: BTreeSet<usize>,
    pub(super) changes: Vec<Change>,
    /// The boot that registered the last attempt, and whether that was started.
    pub(super) registered: Option<Registered>,
    /// How its last record was released, if it was.
    released: Option<&'static str>,
    /// The boot in which its quiet ticks were last counted from.
    counted_in: Option<usize>,
    /// Where a guard or a quota was in the way.
    pub(super) over_quota: Vec<usize>,
}

pub(super) struct Registered {
    pub(super) boot: usize,
    pub(super) place: usize,
    pub(super) start: Option<usize>,
}

/// A durable change and its cause.
pub(super) struct Change {
    pub(super) place: usize,
    pub(super) before: Option<Box<Record>>,
    pub(super) after: Option<Box<Record>>,
    pub(super) cause: Cause,
    /// Another cause that would have had the same result.
    pub(super) or: Option<Cause>,
    /// When it was committed, if whoever committed it was told that this failed.
    pub(super) unknown: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cause {
    Registered,
    Rerun,
    Checkpoint,
    Accepted {
        start: usize,
    },
    /// The same, but downstream has known it from before.
    AlreadyLive {
        start: usize,
    },
    /// Downstream has the key for another request.
    Taken {
        start: usize,
    },
    /// By the operation, or by somebody outside.
    Completed {
        start: Option<usize>,
        answer: Bytes,
    },
    /// Surely without an effect.
    Definitive {
        start: usize,
        reason: Bytes,
    },
    /// Told from outside.
    Failed {
        reason: Bytes,
    },
    Doubt {
        start: usize,
    },
    /// The same, at the end of a shutdown, before the operation had its first turn.
    Aborted,
    Interrupted,
    /// The answer of a re-run came too late.
    TooLate {
        start: usize,
    },
    Forgotten,
    Pruned,
    Swept,
    Fenced,
    Contradiction,
    /// An oracle was asked, and this is what it said.
    NotStarted,
    Live,
    FoundAbandoned,
    Missing,
    CannotTell,
    /// Given up by the host, before its end; or after it had failed.
    Marked,
    Abandoned,
    /// Its quiet ticks are counted from here.
    Counting,
    /// Enough of them have gone by, and it is removed.
    Released,
}

pub(super) struct Call {
    pub(super) id: usize,
    pub(super) boot: usize,
    pub(super) key: usize,
    pub(super) ask: Ask,
    pub(super) place: usize,
    pub(super) at: u64,
    pub(super) told: Option<Answer>,
    pub(super) told_at: usize,
    /// When its caller dropped the future.
    pub(super) left: Option<u64>,
    pub(super) start: Option<usize>,
}

pub(super) struct Start {
    /// `None`: the engine runs it again by itself.
    pub(super) call: Option<usize>,
    pub(super) key: usize,
    pub(super) boot: usize,
    pub(super) number: u32,
    pub(super) token: [u8; 32],
    pub(super) saving: Option<(Bytes, Option<UnixMillis>, usize)>,
    pub(super) end: Option<(Finished, usize, u64)>,
    /// The row it needs belongs to another: where in the history the store said so.
    pub(super) guarded: Option<usize>,
}

/// A question to an oracle.
pub(super) struct Inquiry {
    pub(super) boot: usize,
    pub(super) key: usize,
    pub(super) number: u32,
    pub(super) token: [u8; 32],
    /// Recoveries of the record at that time.
    pub(super) recoveries: u8,
    /// How that stood: one that has ended is asked about where it is to be forgotten.
    pub(super) status: Status,
    pub(super) place: usize,
    pub(super) at: u64,
    /// What it said and when. Nothing in time is: it can't tell.
    pub(super) said: Option<(Found, u64)>,
    /// It has changed its record.
    pub(super) used: bool,
}

#[derive(Default)]
pub(super) struct Boot {
    pub(super) number: usize,
    pub(super) opening: bool,
    pub(super) closing: bool,
    pub(super) over: bool,
    /// The last failure of its store, and whether it has worked since.
    pub(super) failed_at: Option<usize>,
    pub(super) failing: bool,
    /// Failures since a record was last written, and the most there were at once.
    tries: u64,
    /// From which place on so many had failed that nobody was kept waiting; until when.
    pub(super) given_up: Vec<(usize, Option<usize>)>,
    /// The wall clock was set, so what waits for it may wait longer.
    pub(super) clock_was_set: bool,
    /// Where it worked again after that.
    pub(super) well_since: Option<usize>,
    /// When it last failed, or first worked again.
    troubled_at: Option<u64>,
    highest: u64,
}

/// Judges the whole history.
pub(crate) fn check(plan: &Plan, history: &[Event]) -> Result<Coverage, Objection> {
    let mut checker = Checker::new(plan);
    for (place, event) in history.iter().enumerate() {
        checker.arrive(place, event);
        let judged = checker.judge(&event.what);
        judged.map_err(|(rule, why)| Objection { place, rule, why })?;
    }
    Ok(checker.coverage)
}

impl<'a> Checker<'a> {
    fn new(plan: &'a Plan) -> Self {
        let fresh = || Key { states: vec![(0, None)], ..Key::default() };
        Self {
            plan,
            coverage: Coverage::default(),
            keys: plan.keys.iter().map(|_| fresh()).collect(),
            calls: BTreeMap::new(),
            starts: BTreeMap::new(),
            inquiries: BTreeMap::new(),
            boot: Boot::default(),
            mark: 0,
            floor: 0,
            time: Vec::new(),
            place: 0,
            at: 0,
            clock: 0,
            ats: Vec::new(),
            ticks: Vec::new(),
            tick: 0,
            tick_mark: 0,
            rows_alone: Vec::new(),
            rows: BTreeMap::new(),
            tokens: BTreeSet::new(),
        }
    }

    fn arrive(&mut self, place: usize, event: &Event) {
        if let What::Opening(number) = event.what {
            self.boot = Boot { number, opening: true, highest: self.mark, ..Boot::default() };
            self.floor = self.mark;
            // A tick that is not durable is lost: that delays a release, and never hastens it.
            if self.tick > self.tick_mark {
                self.coverage.count("a tick was lost with its process");
            }
            self.tick = self.tick_mark;
            for key in &mut self.keys {
                if key.held.take().is_some() {
                    key.states.push((place, None));
                    self.coverage.count("forgotten, as nothing of it was durable");
                }
            }
        }
        (self.place, self.at, self.clock) = (place, event.at, event.clock);
        self.ats.push(event.at);
        self.ticks.push(self.tick);
        self.boot.highest = self.boot.highest.max(event.clock);
        self.time.push((event.clock.max(self.floor), self.boot.highest));
    }

    fn judge(&mut self, what: &What) -> Checked {
        match what {
            What::Opening(_) => Ok(()),
            What::ClockSet => {
                self.boot.clock_was_set = true;
                Ok(())
            }
            What::Inquired(inquired) => self.inquired(inquired),
            What::Heard { inquiry, found } => self.heard(*inquiry, found.as_ref()),
            What::Opened(_) => {
                self.boot.opening = false;
                Ok(())
            }
            What::Closing(boot) => {
                self.boot.closing |= self.is_now(*boot);
                Ok(())
            }
            What::Closed(boot) | What::Crashed(boot) => {
                self.boot.over |= self.is_now(*boot);
                self.coverage.crash(what, self.starts.values().any(|start| start.boot == *boot && start.end.is_none()));
                Ok(())
            }
            What::StoreFailed(boot) | What::StoreWorked(boot) | What::Wrote(boot) => {
                if self.is_now(*boot) {
                    self.store(what);
                }
                Ok(())
            }
            What::Committed { boot, now, tick, changes } => self.committed(*boot, (*now, *tick), changes),
            What::Asked { id, boot, key, ask } => self.asked(*id, *boot, *key, ask),
            What::Left { id } => {
                self.calls.get_mut(id).expect("it was asked").left = Some(self.at);
                Ok(())
            }
            What::Answered { id, answer, recorded } => self.answered(*id, answer, recorded.as_ref()),
            What::Started(started) => self.started(started),
            What::Saving { start, bytes, expires_at } => {
                let saving = (bytes.clone(), *expires_at, self.place);
                self.starts.get_mut(start).into_iter().for_each(|start| start.saving = Some(saving.clone()));
                Ok(())
            }
            What::Saved { start, result } => self.saved(*start, result.is_ok()),
            What::Ended { start, end } => {
                let end = (end.clone(), self.place, self.at);
                self.coverage.end(&end.0);
                self.starts.get_mut(start).into_iter().for_each(|start| start.end = Some(end.clone()));
                Ok(())
            }
            What::Now { boot, now } => self.reads(*boot, *now),
            What::Rested { boot } => self.rested(*boot),
            What::Empty { boot, held } => self.emptied(*boot, held),
        }
    }

    /// The store of this boot works or does not.
    fn store(&mut self, what: &What) {
        let (place, at) = (self.place, self.at);
        match what {
            What::StoreFailed(_) => {
                let last = self.keys.iter_mut().flat_map(|key| key.changes.iter_mut().rev().take(1));
                let unknown = last.filter(|change| change.place + 1 == place);
                unknown.for_each(|change| change.unknown = Some(at));
                // That it was said is lost with the transaction: the engine asks again.
                let unheard =
                    self.starts.values_mut().filter(|start| start.guarded.is_some_and(|said| said + 1 == place));
                unheard.for_each(|start| start.guarded = None);
                self.boot.tries += 1;
                if self.boot.tries == TRIES {
                    self.boot.given_up.push((place, None));
                }
                (self.boot.failed_at, self.boot.failing) = (Some(place), true);
                self.boot.troubled_at = Some(at);
            }
            What::Wrote(_) => {
                self.boot.tries = 0;
                self.boot.given_up.iter_mut().for_each(|(_, until)| {
                    until.get_or_insert(place);
                });
            }
            _ => {
                if std::mem::take(&mut self.boot.failing) {
                    self.boot.well_since = Some(place);
                    self.boot.troubled_at = Some(at);
                }
            }
        }
    }

    /// Whether this boot is the one that lives.
    fn is_now(&self, boot: usize) -> bool {
        boot == self.boot.number && !self.boot.over
    }

    pub(super) fn grid(&self, key: usize) -> &'a Grid {
        &self.plan.keys[key].grid
    }

    pub(super) fn record(&self, key: usize) -> Option<&Record> {
        self.keys[key].states.last().and_then(|(_, record)| record.as_deref())
    }

    /// The engine's time may have been this: between these two places.
    pub(super) fn between(&self, from: usize, to: usize) -> (u64, u64) {
        let early = self.time[from..=to].iter().map(|(early, _)| *early).min().unwrap_or_default();
        (early, self.time[to].1)
    }

    /// Whether what could be dealt with from `then` on, and is going on since `since`, may just be being dealt with: at once,
    /// unless the store has failed meanwhile.
    pub(super) fn is_soon(&self, since: u64, then: u64) -> bool {
        let troubled = self.boot.troubled_at.filter(|at| *at >= since);
        self.at <= then + 2 || self.boot.failing || troubled.is_some_and(|at| self.at <= at + READ_AGAIN)
    }

    fn reads(&mut self, boot: usize, now: UnixMillis) -> Checked {
        let (early, late) = self.time[self.place];
        if self.is_now(boot) && !(early..=late).contains(&now.0) {
            return object(Rule::Time, format!("it is {now}, which lies outside {early} to {late}"));
        }
        self.floor = self.floor.max(now.0);
        Ok(())
    }

    fn asked(&mut self, id: usize, boot: usize, key: usize, ask: &Ask) -> Checked {
        if matches!(ask, Ask::Tick) && self.is_now(boot) {
            self.tick += 1;
            self.ticks[self.place] = self.tick;
        }
        let call = Call {
            id,
            boot,
            key,
            ask: ask.clone(),
            place: self.place,
            at: self.at,
            told: None,
            told_at: 0,
            left: None,
            start: None,
        };
        self.calls.insert(id, call);
        let record = self.keys[key].states.last().and_then(|(_, record)| record.as_deref());
        self.coverage.ask(ask, record, (self.clock, self.tick));
        Ok(())
    }

    fn committed(&mut self, boot: usize, (now, tick): (UnixMillis, u64), changes: &[Changed]) -> Checked {
        if !self.is_now(boot) {
            return object(Rule::AfterTheEnd, "a commit");
        }
        let (early, late) = self.time[self.place];
        if !(early..=late).contains(&now.0) {
            return object(Rule::Time, format!("committed at {now}, which lies outside {early} to {late}"));
        }
        self.floor = self.floor.max(now.0);
        self.mark = self.mark.max(now.0);
        if tick > self.tick {
            return object(Rule::Ticks, format!("tick {tick} is durable, and there have been {}", self.tick));
        }
        self.tick_mark = self.tick_mark.max(tick);
        changes.iter().try_for_each(|changed| self.decided(changed, now))
    }

    fn decided(&mut self, changed: &Changed, now: UnixMillis) -> Checked {
        let Some(key) = changed.key else { return self.wrote_rows(changed, now) };
        match changed.verdict {
            Verdict::Applied => self.changed(key, changed, now),
            Verdict::Guarded => self.guarded(key),
            Verdict::QuotaExceeded => {
                let live = self.live_beside(key);
                self.keys[key].over_quota.push(self.place);
                if live < self.plan.limits.records_per_scope {
                    return object(Rule::Bound, format!("{live} records are over the quota"));
                }
                Ok(())
            }
            Verdict::Fenced => Ok(()),
            Verdict::Quarantined => object(Rule::NoCause, "nothing here fails to decode"),
        }
    }

    /// How many records there are in the scope of this key.
    fn live_beside(&self, key: usize) -> u64 {
        (0..self.keys.len()).filter(|other| self.is_beside(key, *other) && self.durable(*other).is_some()).count()
            as u64
    }

    /// The record as it is stored.
    pub(super) fn durable(&self, key: usize) -> Option<&Record> {
        self.record(key).filter(|_| self.keys[key].held.is_none())
    }

    /// Whether the scope of this key may have been full at some moment since then.
    pub(super) fn may_have_been_full(&self, key: usize, since: usize) -> bool {
        let was_there = |other: usize| {
            let Key { states, was_held, .. } = &self.keys[other];
            let ends = states.iter().skip(1).map(|(place, _)| *place).chain([self.place]);
            let spans = states.iter().zip(ends).filter(|(_, end)| *end >= since);
            spans.into_iter().any(|((begin, record), _)| record.is_some() && !was_held.contains(begin))
        };
        let there = (0..self.keys.len()).filter(|other| self.is_beside(key, *other) && was_there(*other)).count();
        there as u64 >= self.plan.limits.records_per_scope
    }

    pub(super) fn is_beside(&self, key: usize, other: usize) -> bool {
        self.plan.keys[key].key.scope() == self.plan.keys[other].key.scope()
    }

    /// Rows that belong to no record are those that somebody wants written.
    fn wrote_rows(&mut self, changed: &Changed, now: UnixMillis) -> Checked {
        match (changed.verdict, changed.put.is_none(), changed.rows.as_slice()) {
            (Verdict::Applied, true, [row]) => {
                let is_wanted = |call: &Call| matches!(&call.ask, Ask::Rows(wanted) if wanted == row);
                if !self.calls.values().any(|call| is_wanted(call) && self.asks(call, call.key)) {
                    return object(Rule::Ledger, "a row that nobody wants");
                }
                self.rows_alone.push((self.place, row.clone()));
                self.write(row, now)
            }
            (Verdict::Guarded, true, [_]) => Ok(()),
            _ => object(Rule::Ledger, "something else than a row under a key of the engine's own"),
        }
    }

    fn write(&mut self, row: &Row, now: UnixMillis) -> Checked {
        let name = (row.table().as_bytes().to_vec(), row.key().to_vec());
        let live = self.rows.get(&name).is_some_and(|end| end.is_none_or(|end| now < end));
        if live && *row.requires() == ibid::Guard::Absent {
            return object(Rule::Ledger, "a row over one that must not be there");
        }
        match row.value() {
            Some(_) => self.rows.insert(name, row.end()),
            None => self.rows.remove(&name),
        };
        Ok(())
    }

    fn guarded(&mut self, key: usize) -> Checked {
        self.coverage.count("a row belonged to another");
        let registered = self.keys[key].registered.as_ref().and_then(|registered| registered.start);
        if let Some(start) = registered.and_then(|start| self.starts.get_mut(&start)) {
            start.guarded = Some(self.place);
        }
        Ok(())
    }

    fn changed(&mut self, key: usize, changed: &Changed, now: UnixMillis) -> Checked {
        if self.is_said_again(key, changed) {
            return Ok(());
        }
        if let Some(record) = self.held_unseen(key, changed, now) {
            self.hold_unseen(key, record)?;
        }
        let before = self.keys[key].states.last().and_then(|(_, record)| record.clone());
        let cause = self.cause(key, before.as_deref(), changed.put.as_deref(), now)?;
        let or = match (&cause, before.as_deref(), changed.put.as_deref()) {
            (Cause::Completed { start: Some(_), .. }, Some(before), Some(after)) => {
                self.completion_from_outside(key, before, after)
            }
            (Cause::Definitive { .. } | Cause::Taken { .. }, Some(before), after) => self.freed(key, before, after),
            _ => None,
        };
        self.rows_of(changed, if changed.rows.is_empty() { or.as_ref().unwrap_or(&cause) } else { &cause }, now)?;
        self.coverage.cause(&cause);
        self.use_up(key, &cause);
        self.count_release(key, before.as_deref(), &cause);
        // What has run is recorded in any case.
        let adds = before.is_none() && matches!(cause, Cause::Registered);
        if adds && self.grid(key).replay_safe {
            return object(Rule::NoCause, "a registration that no replay-safe operation waits for");
        }
        let live = self.live_beside(key);
        if adds && live >= self.plan.limits.records_per_scope {
            return object(Rule::Bound, format!("one record more than {live} is within the quota"));
        }
        if let (Cause::Registered | Cause::Rerun, Some(record)) = (&cause, &changed.put) {
            let fresh = self.tokens.insert(record.attempt.token.0);
            if fresh != (cause == Cause::Registered) {
                return object(Rule::StartedTwice, "the token of the attempt");
            }
            let registered = Registered { boot: self.boot.number, place: self.place, start: None };
            self.keys[key].registered = Some(registered);
        }
        let key = &mut self.keys[key];
        key.states.push((self.place, changed.put.clone()));
        key.held = None;
        key.changes.push(Change { place: self.place, before, after: changed.put.clone(), cause, or, unknown: None });
        Ok(())
    }

    /// That nothing is to be left of a held record is written by nothing: where it is not known whether that has worked, it is
    /// done once more.
    fn is_said_again(&self, key: usize, changed: &Changed) -> bool {
        let is_end = |change: &Change| {
            let ended = matches!(change.cause, Cause::Definitive { .. } | Cause::Taken { .. });
            ended && change.after.is_none() && change.unknown.is_some()
        };
        let is_nothing = changed.put.is_none() && changed.rows.is_empty() && self.record(key).is_none();
        self.grid(key).replay_safe && is_nothing && self.keys[key].changes.last().is_some_and(is_end)
    }

    /// Which way a key became free that is used again.
    fn count_release(&mut self, key: usize, before: Option<&Record>, cause: &Cause) {
        let by_ticks = before.is_some_and(|before| self.has_lapsed_by_ticks(before, self.tick));
        let is_restarted = self.keys[key].counted_in.is_some_and(|boot| boot != self.boot.number);
        if by_ticks && is_restarted && matches!(cause, Cause::Registered | Cause::Released) {
            self.coverage.count("released by ticks, over a restart");
        }
        let of_flow = |other: &usize| self.plan.keys[*other].flow.name() == self.plan.keys[key].flow.name();
        let mut beside = (0..self.keys.len()).filter(|other| *other != key).filter(of_flow);
        if *cause == Cause::Registered && beside.any(|other| self.record(other).is_some()) {
            self.coverage.count("the same id in two scopes");
        }
        let given_up = before.is_some_and(|before| before.abandoned);
        let boot = self.boot.number;
        let Key { released, counted_in, .. } = &mut self.keys[key];
        match cause {
            Cause::Counting => *counted_in = Some(boot),
            Cause::Released => *released = Some("by ticks"),
            Cause::Abandoned => *released = Some("as it had failed and was given up"),
            Cause::Definitive { .. } | Cause::Failed { .. } | Cause::NotStarted if given_up => {
                *released = Some("as it was given up and failed");
            }
            Cause::Registered => {
                let way = if by_ticks { Some("by ticks") } else { released.take() };
                way.into_iter().for_each(|way| self.coverage.count(format!("used again, released {way}")));
            }
            Cause::Completed { .. } if given_up => self.coverage.count("given up, and completed"),
            _ => {}
        }
    }

    /// Rows come with the completion that states them, all of them, and where their guards hold.
    fn rows_of(&mut self, changed: &Changed, cause: &Cause, now: UnixMillis) -> Checked {
        let stated = match cause {
            Cause::Completed { start: Some(start), .. } => match &self.starts[start].end {
                Some((Finished::Done { rows, .. }, ..)) => rows.as_slice(),
                _ => &[],
            },
            _ => &[],
        };
        if stated != changed.rows {
            return object(Rule::Ledger, "other rows than the completion states");
        }
        changed.rows.iter().try_for_each(|row| self.write(row, now))
    }

    fn started(&mut self, started: &Started) -> Checked {
        let Started { boot, key, .. } = *started;
        let call = started.call.map(|call| &self.calls[&call]);
        let place = call.map_or(0, |call| call.place);
        let answered = call.is_some_and(|call| matches!(&call.told, Some(told) if !is_deadline(told)));
        if !self.is_now(boot) {
            return if self.boot.number == boot { Ok(()) } else { object(Rule::AfterTheEnd, "a start") };
        }
        if answered {
            return object(Rule::StartedTwice, "its caller has been answered before");
        }
        if self.starts.values().any(|other| other.key == key && other.boot == boot && other.end.is_none()) {
            return object(Rule::TwoAtOnce, "another operation of the key still runs");
        }
        if call.is_none() && (started.number == 1 || !self.grid(key).is_rerun()) {
            return object(Rule::StartedEarly, "nobody has asked for it, and the policy does not run it again");
        }
        if self.grid(key).replay_safe && self.record(key).is_none() && !self.is_awaited(started) {
            return self.started_unregistered(started);
        }
        let Some(registered) = self.keys[key].registered.as_mut().filter(|registered| registered.boot == boot) else {
            return object(Rule::StartedEarly, "nothing is registered");
        };
        if registered.start.replace(started.start).is_some() {
            return object(Rule::StartedTwice, "the attempt was started before");
        }
        let since = registered.place;
        let change = self.keys[key].changes.iter().find(|change| change.place == since);
        let Some(record) = change.and_then(|change| change.after.as_ref()).filter(|_| place <= since) else {
            return object(Rule::StartedEarly, "nothing is registered for it");
        };
        let same = record.attempt.number == started.number
            && record.attempt.token.0 == started.token
            && record.request == started.request
            && record.checkpoint == started.checkpoint;
        let wants = started.call.is_none_or(|call| {
            matches!(&self.calls[&call].ask, Ask::Submit(submit)
                if submit.request == started.request && submit.barred.is_none())
        });
        if !same || !wants {
            return object(Rule::StartedEarly, "another attempt or request than is registered");
        }
        self.note_start(started);
        Ok(())
    }

    /// Whether this start is the one of the attempt that was registered last, whatever has become of that since.
    fn is_awaited(&self, started: &Started) -> bool {
        let Key { registered, changes, .. } = &self.keys[started.key];
        let awaited = registered.as_ref().filter(|last| last.boot == started.boot && last.start.is_none());
        let change = awaited.and_then(|last| changes.iter().find(|change| change.place == last.place));
        let record = change.and_then(|change| change.after.as_ref());
        record.is_some_and(|record| record.attempt.token.0 == started.token)
    }

    /// A replay-safe operation of which nothing is durable: the first attempt of a new record, as its request wants it, where
    /// nothing speaks against that.
    fn started_unregistered(&mut self, started: &Started) -> Checked {
        let Started { boot, key, number, token, boot_id, admitted_at, expires_at, .. } = *started;
        let Some(call) = started.call.and_then(|call| self.calls.get(&call)) else {
            return object(Rule::StartedEarly, "nobody has asked for it");
        };
        let Ask::Submit(submit) = &call.ask else { return object(Rule::StartedEarly, "for one who wants no answer") };
        let (early, late) = self.between(call.place, self.place);
        let is_wanted = submit.request == started.request
            && submit.barred.is_none()
            && submit.request.len() <= self.plan.limits.request_bytes
            && (early..=late).contains(&admitted_at.0)
            && self.bound(key, submit, admitted_at) == Some(expires_at);
        if !is_wanted || number != 1 || started.checkpoint.is_some() {
            return object(Rule::StartedEarly, "another attempt or request than is wanted");
        }
        let since = call.place;
        let was_there = |other: &usize| {
            self.durable(*other).is_some() && self.keys[*other].states.last().is_some_and(|(place, _)| *place < since)
        };
        let beside = (0..self.keys.len()).filter(|other| self.is_beside(key, *other)).filter(was_there).count() as u64;
        if beside >= self.plan.limits.records_per_scope {
            return object(Rule::Bound, "it has started beside as many records as there may be");
        }
        if !self.tokens.insert(token) {
            return object(Rule::StartedTwice, "the token of the attempt");
        }
        let attempt = AttemptId { number, boot: boot_id, token: Token(token) };
        let record = self.held_record(key, &started.request, attempt, (admitted_at, expires_at));
        self.coverage.count("started unregistered");
        self.count_release(key, None, &Cause::Registered);
        let place = self.place;
        let held = &mut self.keys[key];
        held.registered = Some(Registered { boot, place, start: Some(started.start) });
        held.states.push((place, Some(Box::new(record))));
        (held.held, _) = (Some(place), held.was_held.insert(place));
        self.note_start(started);
        Ok(())
    }

    /// It has started, and something of it is durable before it says so.
    fn hold_unseen(&mut self, key: usize, record: Record) -> Checked {
        if !self.tokens.insert(record.attempt.token.0) {
            return object(Rule::StartedTwice, "the token of the attempt");
        }
        self.coverage.count("durable before it said that it had started");
        let (place, boot) = (self.place, self.boot.number);
        let held = &mut self.keys[key];
        held.registered = Some(Registered { boot, place, start: None });
        held.states.push((place, Some(Box::new(record))));
        (held.held, _) = (Some(place), held.was_held.insert(place));
        Ok(())
    }

    fn note_start(&mut self, started: &Started) {
        let Started { boot, key, .. } = *started;
        self.coverage.start(started);
        if let Some(call) = started.call.and_then(|call| self.calls.get_mut(&call)) {
            call.start = Some(started.start);
        }
        let start = Start {
            call: started.call,
            key,
            boot,
            number: started.number,
            token: started.token,
            saving: None,
            end: None,
            guarded: None,
        };
        self.starts.insert(started.start, start);
    }

    /// Asked about is what is in doubt or dispatched, and does not run; one key at most once at a time.
    fn inquired(&mut self, inquired: &Inquired) -> Checked {
        let Inquired { boot, key, number, token, status, .. } = *inquired;
        if !self.is_now(boot) {
            return if self.boot.number == boot { Ok(()) } else { object(Rule::AfterTheEnd, "an inquiry") };
        }
        if !self.grid(key).is_asked() {
            return object(Rule::NoCause, "an inquiry in a flow that has no oracle");
        }
        if !status.is_in_flight() {
            return self.inquired_about_ended(inquired);
        }
        let is_open = |other: &Inquiry| {
            other.key == key && other.boot == boot && other.status.is_in_flight() && self.said(other).is_none()
        };
        if self.inquiries.values().any(is_open) {
            return object(Rule::TwoAtOnce, "it is being asked about");
        }
        let runs = |start: &Start| start.key == key && start.boot == boot && start.end.is_none();
        if self.starts.values().any(runs) {
            return object(Rule::TwoAtOnce, "asked about while it runs");
        }
        // It was asked about as it was when the question was put.
        let soon = |end: Option<usize>| end.is_none_or(|end| self.is_soon(self.ats[end], self.ats[end]));
        let states = &self.keys[key].states;
        let ends = states.iter().skip(1).map(|(place, _)| Some(*place)).chain([None]);
        let now = states.iter().zip(ends).filter(|(_, end)| soon(*end));
        let asked = now.filter_map(|((_, record), _)| record.as_deref()).filter(|record| {
            let reads = match record.state {
                State::Registered if self.may_be_left_by(key, record) => Status::InDoubt,
                _ => record.state.status(),
            };
            reads == status
                && (record.attempt.number, record.attempt.token.0) == (number, token)
                && record.request == inquired.request
                && record.checkpoint == inquired.checkpoint
        });
        let Some(record) = asked.last().filter(|_| matches!(status, Status::InDoubt | Status::Dispatched)) else {
            return object(Rule::NoCause, "an inquiry about what is not so");
        };
        let recoveries =
            if record.state == State::Registered { self.recoveries_of_left(record) } else { record.recoveries };
        if self.is_too_soon(key, record, recoveries) {
            return object(Rule::Bound, "it is asked again before its pause is over");
        }
        self.opens(inquired, recoveries);
        Ok(())
    }

    /// What has ended is asked about where somebody wants it forgotten.
    fn inquired_about_ended(&mut self, inquired: &Inquired) -> Checked {
        let is_it = |record: &Record| {
            record.state.status() == inquired.status
                && (record.attempt.number, record.attempt.token.0) == (inquired.number, inquired.token)
                && record.request == inquired.request
                && record.checkpoint == inquired.checkpoint
        };
        let forgets = |call: &Call| {
            let is_asked = self.asks(call, inquired.key) && matches!(call.ask, Ask::Forget);
            is_asked && self.stored_since(call).any(is_it)
        };
        if !self.calls.values().any(forgets) {
            return object(Rule::NoCause, "an inquiry about what has ended");
        }
        self.opens(inquired, 0);
        Ok(())
    }

    fn opens(&mut self, inquired: &Inquired, recoveries: u8) {
        let Inquired { inquiry, boot, key, number, token, status, .. } = *inquired;
        let (place, at) = (self.place, self.at);
        let open = Inquiry { boot, key, number, token, recoveries, status, place, at, said: None, used: false };
        self.inquiries.insert(inquiry, open);
        self.coverage.count(format!("asked about: {status:?}"));
    }

    /// Whoever could not tell is left alone for a second, then twice as long each time; a dead letter has its own turn.
    fn is_too_soon(&self, key: usize, record: &Record, recoveries: u8) -> bool {
        let attempt = (record.attempt.number, record.attempt.token.0);
        let mut earlier = self.inquiries.values().rev().filter(|inquiry| {
            inquiry.status.is_in_flight()
                && (inquiry.key, inquiry.boot) == (key, self.boot.number)
                && (inquiry.number, inquiry.token) == attempt
        });
        let Some(last) = earlier.next().filter(|last| last.used) else { return false };
        let limits = &self.plan.limits;
        let pause = limits.recovery_pause.saturating_mul(1 << recoveries.saturating_sub(1).min(16));
        let said_at = self.said(last).map_or(0, |(_, at)| at);
        record.state == State::InDoubt
            && recoveries == last.recoveries + 1
            && !self.is_dead_letter(key, record)
            && !self.boot.clock_was_set
            && u128::from(self.at - said_at) + 2 < pause.min(limits.recovery_pause_max).as_millis()
    }

    fn heard(&mut self, inquiry: usize, found: Option<&Found>) -> Checked {
        let (at, limit) = (self.at, self.plan.limits.oracle_timeout);
        let Some(inquiry) = self.inquiries.get_mut(&inquiry) else { return Ok(()) };
        inquiry.said = Some((found.cloned().unwrap_or(Found::CannotTell), at));
        let (taken, boot) = (at - inquiry.at, inquiry.boot);
        if self.is_now(boot) && u128::from(taken) > limit.as_millis() + 2 {
            return object(Rule::NoAnswer, "the answer of an oracle is awaited for too long");
        }
        self.coverage.count(match found {
            Some(Found::NotStarted) => "oracle: not started",
            Some(Found::Live) => "oracle: live",
            Some(Found::Abandoned) => "oracle: given up",
            Some(Found::Missing) => "oracle: missing",
            Some(Found::Done(_)) => "oracle: done",
            Some(Found::CannotTell) => "oracle: cannot tell",
            None if taken > 0 => "oracle: too late",
            None => "oracle: panics",
        });
        Ok(())
    }

    /// What an oracle has said last, of those whose answer has not changed anything yet.
    fn use_up(&mut self, key: usize, cause: &Cause) {
        let boot = self.boot.number;
        let fits = |said: &Found| match cause {
            Cause::NotStarted => *said == Found::NotStarted,
            Cause::Live => *said == Found::Live,
            Cause::FoundAbandoned => *said == Found::Abandoned,
            Cause::Missing => *said == Found::Missing,
            Cause::CannotTell => *said == Found::CannotTell,
            _ => false,
        };
        let (now, timeout) = (self.at, self.plan.limits.oracle_timeout);
        let said = |inquiry: &Inquiry| match &inquiry.said {
            Some((said, _)) => fits(said),
            None => u128::from(now - inquiry.at) >= timeout.as_millis() && fits(&Found::CannotTell),
        };
        let mut fitting = self
            .inquiries
            .values_mut()
            .rev()
            .filter(|inquiry| inquiry.key == key && inquiry.boot == boot && !inquiry.used && said(inquiry));
        fitting.next().into_iter().for_each(|inquiry| inquiry.used = true);
    }

    fn saved(&mut self, start: usize, is_saved: bool) -> Checked {
        let Some(start) = self.starts.get(&start) else { return Ok(()) };
        let Some((bytes, _, asked)) = start.saving.clone().filter(|_| self.is_now(start.boot)) else { return Ok(()) };
        let is_durable = self.keys[start.key].changes.iter().any(|change| {
            let after = change.after.as_ref();
            change.place > asked && after.is_some_and(|record| record.checkpoint.as_ref() == Some(&bytes))
        });
        if is_saved && !is_durable {
            return object(Rule::WrongAnswer, "the checkpoint is not durable");
        }
        self.coverage.count(if is_saved { "checkpoint saved" } else { "checkpoint refused" });
        Ok(())
    }

    /// The time has come by which everything that could end has ended.
    fn rested(&mut self, boot: usize) -> Checked {
        if !self.is_now(boot) {
            return Ok(());
        }
        let waiting =
            self.calls.values().filter(|call| call.boot == boot && call.told.is_none() && call.left.is_none());
        let mut well_waiting = 0_u64;
        for call in waiting {
            if !self.waits_for_an_end_from_outside(call) {
                return object(Rule::NoAnswer, format!("#{} waits for nothing", call.id));
            }
            well_waiting += 1;
        }
        (0..well_waiting).for_each(|_| self.coverage.count("waits for an end from outside"));
        for (number, key) in self.keys.iter().enumerate() {
            let is_registered = self.record(number).is_some_and(|record| record.state == State::Registered);
            let was_started = key.registered.as_ref().is_some_and(|last| last.boot == boot && last.start.is_some());
            if is_registered && was_started {
                return object(Rule::NoAnswer, format!("the end at key {number} was never saved"));
            }
            self.recovered(number)?;
        }
        Ok(())
    }

    /// What is in doubt has been asked about, and what was said has become of it; or it has run again.
    fn recovered(&self, key: usize) -> Checked {
        let Some(record) = self.record(key).filter(|record| record.state == State::InDoubt) else { return Ok(()) };
        let grid = self.grid(key);
        if grid.is_asked() {
            let about = |inquiry: &&Inquiry| {
                inquiry.key == key && inquiry.boot == self.boot.number && inquiry.status.is_in_flight()
            };
            let last = self.inquiries.values().rev().find(about).map(|inquiry| &inquiry.said);
            match last {
                None if !self.boot.clock_was_set => {
                    return object(Rule::NoAnswer, format!("key {key} was never asked about"));
                }
                Some(Some((said, at)))
                    if *said != Found::CannotTell && self.at > at + 2 && !self.boot.clock_was_set =>
                {
                    return object(Rule::NoAnswer, format!("what was said of key {key} has not become of it"));
                }
                _ => {}
            }
        }
        let has_room = self.plan.limits.in_flight > 100 && self.plan.limits.in_flight_per_scope > 100;
        if grid.is_rerun()
            && record.attempt.number < 4
            && has_room
            && !self.boot.clock_was_set
            && !self.is_given_up(key, record)
            && (record.checkpoint.is_some()
                || self.bound_of_rerun(record, record.updated_at) != Some(Some(record.updated_at)))
            && self.bound_of_rerun(record, record.updated_at).is_some_and(|bound| {
                bound.is_some() || grid.retention != ibid::Retention::FromRequest || record.checkpoint.is_some()
            })
        {
            return object(Rule::NoAnswer, format!("key {key} was never run again"));
        }
        Ok(())
    }

    fn waits_for_an_end_from_outside(&self, call: &Call) -> bool {
        match (&call.ask, self.record(call.key).map(|record| record.state.status())) {
            (Ask::Submit(Submit { deadline: None, .. }) | Ask::Track(_), Some(Status::Dispatched)) => true,
            (Ask::Track(_), Some(Status::InDoubt | Status::Registered)) => {
                self.grid(call.key).in_doubt == ibid::InDoubt::Ask
                    && self.record(call.key).is_some_and(|record| !self.is_dead_letter(call.key, record))
            }
            _ => false,
        }
    }

    fn emptied(&mut self, boot: usize, held: &Held) -> Checked {
        if !self.is_now(boot) {
            return Ok(());
        }
        // Who left a callback or a message behind is told when the end comes from outside.
        let stays = |call: &&Call| {
            let way = matches!(&call.ask, Ask::Submit(submit) if submit.way != Way::Submit);
            way && call.boot == boot && call.told.is_none() && self.waits_for_an_end_from_outside(call)
        };
        let staying: Vec<_> = self.calls.values().filter(stays).collect();
        let keys: BTreeSet<_> = staying.iter().map(|call| call.key).collect();
        let may_be = Held { live_actors: keys.len(), in_flight: staying.len(), ..Held::default() };
        // The background pass asks about what is in flight at any time, and that takes an actor.
        let asked = self.inquiries.values().filter(|inquiry| inquiry.boot == boot && inquiry.at == self.at);
        let asked: BTreeSet<_> = asked.map(|inquiry| inquiry.key).collect();
        let may_be = Held { live_actors: keys.union(&asked).count(), ..may_be };
        if held.live_actors > may_be.live_actors
            || held.in_flight > may_be.in_flight
            || (held.running, held.died_actors) != (0, 0)
        {
            return object(Rule::Leak, format!("{held:?}, and no more than {may_be:?} has a reason"));
        }
        Ok(())
    }

    fn answered(&mut self, id: usize, answer: &Answer, recorded: Option<&Ended>) -> Checked {
        let asked = self.calls.get_mut(&id).expect("it was asked");
        asked.told_at = self.place;
        let told = asked.told.replace(answer.clone());
        let call = &self.calls[&id];
        if told.is_some() {
            return object(Rule::WrongAnswer, format!("#{id} is answered a second time"));
        }
        // What a crashed process says, nobody hears; what is said after a shutdown must still be true.
        let is_heard = call.boot == self.boot.number && (!self.boot.over || self.boot.closing);
        if !is_heard {
            return Ok(());
        }
        if let Ask::Submit(Submit { deadline: Some(deadline), .. }) = &call.ask
            && u128::from(self.at - call.at) > deadline.as_millis() + 2
        {
            return object(Rule::NoAnswer, format!("#{id} is answered after its deadline"));
        }
        if !self.fits_recorded(call, answer, recorded) {
            return object(
                Rule::WrongAnswer,
                format!("#{id}: {answer:?}, and what came with it is not what was recorded"),
            );
        }
        let is_of_another = match (&call.ask, answer) {
            (Ask::Resolve { attempt: Some(named), .. }, Ok(Said::Resolved(Resolved::FencedOff))) => {
                let is_like_it = |record: &Record| record.attempt.number == named.number;
                self.stored_since(call).any(|record| is_like_it(record) && record.attempt.token != named.token)
            }
            _ => false,
        };
        match self.fits(call, answer) {
            Some(how) => {
                self.coverage.answer(&call.ask, answer, how);
                recorded.into_iter().for_each(|_| self.coverage.count("a duplicate with its end"));
                if is_of_another {
                    self.coverage.count("an end of an earlier record was fenced off");
                }
                Ok(())
            }
            None if is_definitive(answer) => object(Rule::NotDefinitive, format!("#{id}: {answer:?}")),
            None => object(Rule::WrongAnswer, format!("#{id}: {answer:?}")),
        }
    }
}

fn is_deadline(answer: &Answer) -> bool {
    matches!(answer, Err(ibid::ErrorKind::Deadline))
}

fn is_definitive(answer: &Answer) -> bool {
    matches!(answer, Err(kind) if kind.class() == ibid::Class::Definitive)
}
