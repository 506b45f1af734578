//! What may become durable: every change of a record needs a cause that the contract names.

use std::time::Duration;

use ibid::{
    AfterCheckpoint, AfterExpiry, AttemptId, Bytes, Ended, Fingerprint, Found, InDoubt, Mark, OnFailure, Origin,
    Record, Retention, State, Status, UnixMillis,
};

use super::checker::{Call, Cause, Checked, Checker, Inquiry, Rule, Start, object};
use super::history::{Ask, Changed, Finished, Submit};

/// Why a record is rolled back whose operation never started.
pub(super) const NOT_STARTED: &[u8; 11] = b"not started";

/// What the end of an attempt comes to.
pub(super) enum Meant<'a> {
    Done { answer: &'a Bytes, until: Option<UnixMillis> },
    Accepted,
    AlreadyLive,
    Taken,
    Definitive(&'a Bytes),
    Unknown,
}

impl Checker<'_> {
    pub(super) fn cause(
        &self,
        key: usize,
        before: Option<&Record>,
        after: Option<&Record>,
        now: UnixMillis,
    ) -> Checked<Cause> {
        if let Some(after) = after {
            self.follows(key, before, after, now)?;
        }
        if let (Some(before), Some(after)) = (before, after)
            && before.attempt == after.attempt
            && !matches!(after.state, State::Tombstone(_))
            && (before.abandoned, before.lapses_at_tick) != (after.abandoned, after.lapses_at_tick)
        {
            let found = self.marking(key, before, after).or_else(|| self.counting(key, before, after));
            return found.map_or_else(|| object(Rule::NoCause, format!("of the marks of key {key}")), Ok);
        }
        let found = match (after, after.map(|record| &record.state)) {
            (None, _) | (_, None) => self.removal(key, before, None, now),
            (Some(after), Some(State::Registered)) => self.registration(key, before, after),
            (Some(after), Some(State::Dispatched)) => self.dispatch(key, before, after),
            (Some(after), Some(State::InDoubt)) => self.doubt(key, before, after),
            (Some(after), Some(State::Completed(_))) => self.completion(key, before, after),
            (Some(after), Some(State::Failed(origin, reason))) => self.failure(key, before, after, *origin, reason),
            (Some(after), Some(State::Tombstone(Mark::Fenced))) => self.fence(key, before, after),
            (Some(after), Some(State::Tombstone(Mark::Expired))) => self.removal(key, before, Some(after), now),
        };
        found.map_or_else(|| object(Rule::NoCause, format!("of key {key}, which was {}", shown(before))), Ok)
    }

    /// What holds of every change: revisions count, a record keeps what it was made of, nobody decides in the future.
    fn follows(&self, key: usize, before: Option<&Record>, after: &Record, now: UnixMillis) -> Checked {
        let revision = before.map_or(0, |record| record.revision) + 1;
        if after.revision != revision || after.updated_at > now {
            return object(Rule::NoCause, format!("revision or time of key {key}"));
        }
        let begins = after.state == State::Registered && after.attempt.number == 1 && after.checkpoint.is_none();
        let Some(before) = before.filter(|_| !begins) else { return Ok(()) };
        let is_tombstone = matches!(after.state, State::Tombstone(_));
        let same = before.fingerprint == after.fingerprint
            && (before.request == after.request || is_tombstone)
            && before.created_at == after.created_at
            && before.attempt.token == after.attempt.token;
        if same { Ok(()) } else { object(Rule::NoCause, format!("key {key} has become another record")) }
    }

    /// The host gives the request up, or whoever was asked has said that it is given up there. Nothing else changes, but that
    /// what was left behind is in doubt from then on, and what is live there is dispatched.
    fn marking(&self, key: usize, before: &Record, after: &Record) -> Option<Cause> {
        let as_found = |state: State| Record {
            state,
            recoveries: after.recoveries,
            revision: after.revision,
            updated_at: after.updated_at,
            abandoned: true,
            ..before.clone()
        };
        let is_left = self.may_be_left(key, before);
        let counted = if is_left { self.recoveries_of_left(before) } else { before.recoveries };
        let wants = self.calls.values().any(|call| self.asks(call, key) && matches!(call.ask, Ask::Abandon));
        let as_it_was = *after == as_found(before.state.clone()) && after.recoveries == before.recoveries;
        let doubted = is_left && *after == as_found(State::InDoubt) && after.recoveries == counted;
        let is_in_flight = before.state.status().is_in_flight();
        if wants && is_in_flight && !before.abandoned && (as_it_was || doubted) {
            return Some(Cause::Marked);
        }
        let is_asked_about = before.state == State::Dispatched || self.is_doubted(key, before);
        let found = is_asked_about && self.has_found(key, before, &Found::Abandoned);
        let fits = *after == as_found(State::Dispatched) && [before.recoveries, counted].contains(&after.recoveries);
        (found && fits && !before.abandoned).then_some(Cause::FoundAbandoned)
    }

    /// The host has dealt with the end, or something more has happened after that: so many quiet ticks are outlived from here,
    /// and the next releases it.
    fn counting(&self, key: usize, before: &Record, after: &Record) -> Option<Cause> {
        let Retention::UntilAcknowledged { quiet_ticks } = self.grid(key).retention else { return None };
        let (revision, updated_at, lapses_at_tick) = (after.revision, after.updated_at, after.lapses_at_tick);
        let same = *after == Record { revision, updated_at, lapses_at_tick, ..before.clone() };
        if !same || !matches!(before.state, State::Completed(_)) {
            return None;
        }
        let begun_at = lapses_at_tick?.checked_sub(u64::from(quiet_ticks) + 1)?;
        let is_first = before.lapses_at_tick.is_none();
        let wants = |call: &Call| match call.ask {
            Ask::Acknowledge => is_first,
            Ask::Disturb => !is_first,
            _ => false,
        };
        let said = self.calls.values().any(|call| {
            wants(call) && self.asks(call, key) && (self.ticks[call.place]..=self.tick).contains(&begun_at)
        });
        (said && !self.has_lapsed_by_ticks(before, begun_at)).then_some(Cause::Counting)
    }

    /// Whether so many ticks have released it.
    #[expect(clippy::unused_self, reason = "it stands beside what needs the rest of the history")]
    pub(super) fn has_lapsed_by_ticks(&self, record: &Record, tick: u64) -> bool {
        matches!(record.state, State::Completed(_)) && record.lapses_at_tick.is_some_and(|last| tick >= last)
    }

    /// The attempt of this record, if this boot has started it.
    fn start_of(&self, key: usize, record: &Record) -> Option<(usize, &Start)> {
        let is_it = |start: &Start| {
            start.key == key
                && start.boot == self.boot.number
                && start.number == record.attempt.number
                && start.token == record.attempt.token.0
        };
        self.starts.iter().find(|(_, start)| is_it(start)).map(|(number, start)| (*number, start))
    }

    /// The ended attempt of this record, and what its end comes to.
    pub(super) fn end_of(&self, key: usize, record: &Record) -> Option<(usize, Meant<'_>)> {
        let (number, start) = self.start_of(key, record)?;
        let (end, ..) = start.end.as_ref()?;
        let doubts = self.grid(key).after_checkpoint == AfterCheckpoint::Doubt && record.checkpoint.is_some();
        let meant = match end {
            Finished::Done { otherwise: Some(reason), .. } if start.guarded.is_some() => Meant::Definitive(reason),
            Finished::Done { .. } if start.guarded.is_some() => Meant::Unknown,
            Finished::Done { answer, expires_at, .. } => Meant::Done { answer, until: *expires_at },
            Finished::Accepted => Meant::Accepted,
            Finished::AlreadyLive => Meant::AlreadyLive,
            Finished::Taken => Meant::Taken,
            Finished::Definitive(_) if doubts => Meant::Unknown,
            Finished::Definitive(reason) => Meant::Definitive(reason),
            Finished::Unknown(_) | Finished::Lost => Meant::Unknown,
        };
        Some((number, meant))
    }

    /// Whether this request asks to run, and nothing that it was told says that it no longer does.
    pub(super) fn asks(&self, call: &Call, key: usize) -> bool {
        let waits = match &call.told {
            None => true,
            Some(told) => matches!(told, Err(ibid::ErrorKind::Deadline)),
        };
        // Who left was looked at soon after, unless the store had failed.
        let waits = waits && call.left.is_none_or(|left| self.is_soon(call.at, left) || self.was_held(call, left));
        call.key == key && call.boot == self.boot.number && call.start.is_none() && waits
    }

    /// Whether it waited for the answer of an oracle when its caller left: until that comes, or an end from elsewhere.
    fn was_held(&self, call: &Call, left: u64) -> bool {
        self.inquiries.values().any(|inquiry| {
            let waits = self.said(inquiry).is_none_or(|(_, at)| at >= left && self.is_soon(at, at));
            inquiry.key == call.key && inquiry.boot == call.boot && inquiry.at <= left && waits
        })
    }

    fn submits(&self, key: usize) -> impl Iterator<Item = (&Call, &Submit)> {
        let submits = self.calls.values().filter(move |call| self.asks(call, key));
        submits.filter_map(|call| match &call.ask {
            Ask::Submit(submit) => Some((call, submit)),
            _ => None,
        })
    }

    /// The bound that a request sets for a record registered at `now`; `None` if nothing may be registered.
    pub(super) fn bound(&self, key: usize, submit: &Submit, now: UnixMillis) -> Option<Option<UnixMillis>> {
        match (self.grid(key).retention, submit.retention) {
            (_, Some(retention)) => now.checked_add(retention).map(Some),
            (Retention::FromRequest, None) => None,
            (Retention::Fixed(_) | Retention::UntilForgotten | Retention::UntilAcknowledged { .. }, None) => Some(None),
        }
    }

    fn registration(&self, key: usize, before: Option<&Record>, after: &Record) -> Option<Cause> {
        if let Some(before) = before.filter(|before| self.is_running(key, before) && !self.boot.opening)
            && before.attempt == after.attempt
        {
            return self.checkpoint(key, before, after);
        }
        let now = after.updated_at;
        let runs =
            self.starts.values().any(|start| start.key == key && start.boot == self.boot.number && start.end.is_none());
        if runs || self.boot.opening {
            return None;
        }
        let reruns = before.filter(|before| before.attempt.token == after.attempt.token);
        let by_itself = reruns.filter(|_| self.grid(key).is_rerun()).is_some_and(|before| {
            let states = self.keys[key].states.iter().rev().filter_map(|(_, record)| record.as_deref());
            let mut same = states.take_while(|state| state.attempt == before.attempt);
            let mut bound = || same.any(|state| self.bound_of_rerun(state, now) == Some(after.expires_at));
            let keeps = before.checkpoint.is_some() && after.expires_at == before.expires_at;
            before.request == after.request && (keeps || (before.checkpoint.is_none() && bound()))
        });
        let asked = by_itself
            || self.submits(key).any(|(call, submit)| {
                let keeps = reruns.filter(|before| before.checkpoint.is_some()).map(|before| before.expires_at);
                submit.request == after.request
                && after.fingerprint == Fingerprint::of(self.plan.keys[key].flow.name(), &submit.request)
                && submit.request.len() <= self.plan.limits.request_bytes
                && submit.barred.is_none()
                // What has a checkpoint was made under the bound that it has.
                && keeps.or_else(|| self.bound(key, submit, now)) == Some(after.expires_at)
                && now.0 >= self.between(call.place, self.place).0
            });
        let is_new = after.checkpoint.is_none()
            && after.recoveries == 0
            && after.attempt.number == 1
            && after.created_at == now
            && (after.lapses_at, after.tombstone_until, &after.contradiction) == (None, None, &None)
            && (after.lapses_at_tick, after.abandoned) == (None, false);
        match reruns {
            _ if !asked => None,
            Some(before) => self.may_rerun(key, before, after).then_some(Cause::Rerun),
            None => (is_new && self.may_begin(key, before, now)).then_some(Cause::Registered),
        }
    }

    /// The record of a replay-safe attempt, as it is held in memory.
    pub(super) fn held_record(
        &self,
        key: usize,
        request: &Bytes,
        attempt: AttemptId,
        (admitted_at, expires_at): (UnixMillis, Option<UnixMillis>),
    ) -> Record {
        Record {
            revision: 1,
            fingerprint: Fingerprint::of(self.plan.keys[key].flow.name(), request),
            request: request.clone(),
            attempt,
            state: State::Registered,
            checkpoint: None,
            recoveries: 0,
            created_at: admitted_at,
            updated_at: admitted_at,
            expires_at,
            lapses_at: None,
            tombstone_until: None,
            contradiction: None,
            lapses_at_tick: None,
            abandoned: false,
        }
    }

    /// What was held before this became durable, where the operation has been started and has not had its turn yet: only
    /// the host can have spoken, or the end of a shutdown.
    pub(super) fn held_unseen(&self, key: usize, changed: &Changed, now: UnixMillis) -> Option<Record> {
        let after = changed.put.as_deref().filter(|after| (after.revision, after.attempt.number) == (2, 1))?;
        if !self.grid(key).replay_safe || self.record(key).is_some() {
            return None;
        }
        let admitted_at = after.created_at;
        let wants = self.submits(key).filter(|(call, submit)| {
            let (early, late) = self.between(call.place, self.place);
            submit.request == after.request
                && submit.barred.is_none()
                && submit.request.len() <= self.plan.limits.request_bytes
                && (early..=late).contains(&admitted_at.0)
        });
        let bounds = wants.filter_map(|(_, submit)| self.bound(key, submit, admitted_at));
        let mut held = bounds.map(|bound| self.held_record(key, &after.request, after.attempt, (admitted_at, bound)));
        held.find(|record| self.cause(key, Some(record), Some(after), now).is_ok())
    }

    /// Where the flow's policy says by name that it runs again: the next attempt, the same token, the last checkpoint.
    fn may_rerun(&self, key: usize, before: &Record, after: &Record) -> bool {
        let (in_doubt, recoveries) = match before.state {
            State::InDoubt => (true, before.recoveries),
            State::Registered => (self.may_be_left(key, before), self.recoveries_of_left(before)),
            _ => (false, 0),
        };
        in_doubt
            && self.grid(key).in_doubt == InDoubt::Rerun
            && recoveries < self.plan.limits.recoveries
            && after.recoveries == recoveries
            && after.attempt.number == before.attempt.number + 1
            && after.checkpoint == before.checkpoint
    }

    pub(super) fn recoveries_of_left(&self, record: &Record) -> u8 {
        record.recoveries.saturating_add(u8::from(record.attempt.number > 1))
    }

    /// Whether nothing of the record is left at `now` that could speak against another first run.
    fn may_begin(&self, key: usize, before: Option<&Record>, now: UnixMillis) -> bool {
        let Some(before) = before else { return true };
        let past = |end: Option<UnixMillis>| end.is_some_and(|end| now >= end);
        let grid = self.grid(key);
        match &before.state {
            State::Tombstone(_) => past(before.tombstone_until),
            State::Completed(_) if self.has_lapsed_by_ticks(before, self.tick) => true,
            State::Completed(_) | State::Failed(..) if past(before.lapses_at) => {
                before.tombstone_until.is_none() || past(before.tombstone_until)
            }
            State::Completed(_) | State::Failed(..) => {
                grid.after_expiry == AfterExpiry::Rerun && past(before.expires_at)
            }
            State::InDoubt | State::Registered if self.is_given_up(key, before) => {
                let (lapses_at, tombstone_until) = self.ends(key, before.expires_at);
                if past(lapses_at) {
                    tombstone_until.is_none() || past(tombstone_until)
                } else {
                    grid.after_expiry == AfterExpiry::Rerun && past(before.expires_at)
                }
            }
            State::InDoubt | State::Registered | State::Dispatched => false,
        }
    }

    /// Registered, and its attempt belongs to this boot.
    pub(super) fn is_running(&self, key: usize, record: &Record) -> bool {
        let here = self.keys[key].registered.as_ref().is_some_and(|registered| registered.boot == self.boot.number);
        matches!(record.state, State::Registered | State::Dispatched) && here
    }

    /// Registered, and nothing runs for it: by another boot; or by this one, which has told its caller that the store failed.
    pub(super) fn may_be_left(&self, key: usize, record: &Record) -> bool {
        let registered = self.keys[key].registered.as_ref();
        record.state == State::Registered
            && registered.is_some_and(|registered| registered.boot != self.boot.number || registered.start.is_none())
    }

    /// The same, seen later: whether nothing ran for it when it was asked about.
    pub(super) fn may_be_left_by(&self, key: usize, record: &Record) -> bool {
        self.may_be_left(key, record)
    }

    /// In doubt, and asked about as often as may be.
    pub(super) fn is_dead_letter(&self, key: usize, record: &Record) -> bool {
        let recoveries = match record.state {
            State::InDoubt => record.recoveries,
            State::Registered if self.may_be_left(key, record) => self.recoveries_of_left(record),
            _ => return false,
        };
        self.grid(key).in_doubt == InDoubt::Ask && recoveries >= self.plan.limits.recoveries.max(1)
    }

    /// What an oracle has just said of this attempt, that has changed nothing yet; and the recoveries there were when it was
    /// asked.
    fn findings(&self, key: usize, record: &Record) -> impl Iterator<Item = (&Found, u8)> {
        let attempt = (record.attempt.number, record.attempt.token.0);
        let about = move |inquiry: &&Inquiry| {
            inquiry.key == key
                && inquiry.boot == self.boot.number
                && !inquiry.used
                && inquiry.status.is_in_flight()
                && (inquiry.number, inquiry.token) == attempt
        };
        self.inquiries.values().filter(about).filter_map(|inquiry| {
            let (said, at) = self.said(inquiry)?;
            self.is_soon(at, at).then_some((said, inquiry.recoveries))
        })
    }

    /// What the engine takes for its answer: nothing in time says nothing.
    pub(super) fn said<'i>(&self, inquiry: &'i Inquiry) -> Option<(&'i Found, u64)> {
        let timeout = u64::try_from(self.plan.limits.oracle_timeout.as_millis()).unwrap_or(u64::MAX);
        let end = inquiry.at.saturating_add(timeout);
        match &inquiry.said {
            Some((said, at)) => Some((said, *at)),
            None if self.at >= end => Some((&Found::CannotTell, end)),
            None => None,
        }
    }

    /// What was said since then of a record that has ended.
    pub(super) fn said_of_ended(&self, key: usize, record: &Record, since: usize) -> impl Iterator<Item = &Found> {
        let attempt = (record.attempt.number, record.attempt.token.0);
        let about = move |inquiry: &&Inquiry| {
            (inquiry.key, inquiry.boot) == (key, self.boot.number)
                && (inquiry.number, inquiry.token) == attempt
                && inquiry.place >= since
                && !inquiry.status.is_in_flight()
        };
        self.inquiries.values().filter(about).filter_map(|inquiry| self.said(inquiry).map(|(said, _)| said))
    }

    fn has_found(&self, key: usize, record: &Record, found: &Found) -> bool {
        self.findings(key, record).any(|(said, _)| said == found)
    }

    /// In doubt, or read as such.
    fn is_doubted(&self, key: usize, record: &Record) -> bool {
        record.state == State::InDoubt || self.may_be_left(key, record)
    }

    /// How long the answer of a re-run that nobody asks for is kept: as long as the first request wanted.
    pub(super) fn bound_of_rerun(&self, record: &Record, now: UnixMillis) -> Option<Option<UnixMillis>> {
        let from = if record.attempt.number == 1 { record.created_at } else { record.updated_at };
        match record.expires_at {
            Some(end) => now.checked_add(Duration::from_millis(end.0.saturating_sub(from.0))).map(Some),
            None => Some(None),
        }
    }

    /// In doubt, to be run again, and no re-run is left.
    pub(super) fn is_given_up(&self, key: usize, record: &Record) -> bool {
        let recoveries = match record.state {
            State::InDoubt => record.recoveries,
            State::Registered if self.may_be_left(key, record) => self.recoveries_of_left(record),
            _ => return false,
        };
        self.grid(key).in_doubt == InDoubt::Rerun && recoveries >= self.plan.limits.recoveries
    }

    /// The end of the grace, and of a tombstone behind it.
    pub(super) fn ends(&self, key: usize, expires_at: Option<UnixMillis>) -> (Option<UnixMillis>, Option<UnixMillis>) {
        let grid = self.grid(key);
        let lapses_at = expires_at.map(|end| end.saturating_add(grid.grace));
        let behind = |lifetime| lapses_at.map(|end| end.saturating_add(lifetime));
        (lapses_at, grid.tombstone.and_then(behind))
    }

    fn checkpoint(&self, key: usize, before: &Record, after: &Record) -> Option<Cause> {
        let saves = |start: &Start| {
            let Some((bytes, until, _)) = &start.saving else { return false };
            start.key == key
                && start.boot == self.boot.number
                && (start.number, start.token) == (after.attempt.number, after.attempt.token.0)
                && after.checkpoint.as_ref() == Some(bytes)
                && after.expires_at == earliest(before.expires_at, *until)
                && bytes.len() <= self.plan.limits.answer_bytes
        };
        let alike = before.state == after.state && before.recoveries == after.recoveries;
        (alike && self.starts.values().any(saves)).then_some(Cause::Checkpoint)
    }

    fn dispatch(&self, key: usize, before: Option<&Record>, after: &Record) -> Option<Cause> {
        let before = before?;
        if before.state == State::Dispatched {
            return self.checkpoint(key, before, after);
        }
        if self.is_doubted(key, before) && kept(before, after) && self.has_found(key, before, &Found::Live) {
            return Some(Cause::Live);
        }
        let is_given_up = self.has_found(key, before, &Found::Abandoned) && before.abandoned;
        if self.is_doubted(key, before) && kept(before, after) && is_given_up {
            return Some(Cause::FoundAbandoned);
        }
        match (&before.state, self.end_of(key, before)?) {
            (State::Registered, (start, Meant::Accepted)) if kept(before, after) => Some(Cause::Accepted { start }),
            (State::Registered, (start, Meant::AlreadyLive)) if kept(before, after) => {
                Some(Cause::AlreadyLive { start })
            }
            _ => None,
        }
    }

    fn doubt(&self, key: usize, before: Option<&Record>, after: &Record) -> Option<Cause> {
        let before = before.filter(|before| kept(before, after))?;
        if !self.boot.opening && self.is_doubted(key, before) {
            let recoveries =
                if before.state == State::InDoubt { before.recoveries } else { self.recoveries_of_left(before) };
            let counts = recoveries < self.plan.limits.recoveries.max(1) && after.recoveries == recoveries + 1;
            let silent = |(said, asked): (&Found, u8)| *said == Found::CannotTell && asked == recoveries;
            if self.grid(key).is_asked() && counts && self.findings(key, before).any(silent) {
                return Some(Cause::CannotTell);
            }
        }
        if before.state == State::Dispatched {
            let is_missing = after.recoveries == before.recoveries && self.has_found(key, before, &Found::Missing);
            return (is_missing && !self.boot.opening).then_some(Cause::Missing);
        }
        if before.state != State::Registered {
            return None;
        }
        let counted = self.recoveries_of_left(before);
        if self.boot.opening {
            return (after.recoveries == counted).then_some(Cause::Interrupted);
        }
        let has_begun = self.start_of(key, before).is_some();
        if self.grid(key).replay_safe && self.boot.closing && !has_begun && after.recoveries == before.recoveries {
            return Some(Cause::Aborted);
        }
        match self.end_of(key, before)? {
            // An error that is not believed ends no re-run unknown.
            (start, Meant::Unknown) if after.recoveries == counted || after.recoveries == before.recoveries => {
                Some(Cause::Doubt { start })
            }
            _ => None,
        }
    }

    /// The times of a record that is finished at `now`.
    fn times(&self, key: usize, before: &Record, stated: Option<UnixMillis>, now: UnixMillis) -> Times {
        let retained = match self.grid(key).retention {
            Retention::Fixed(retention) => Some(now.saturating_add(retention)),
            Retention::FromRequest | Retention::UntilForgotten | Retention::UntilAcknowledged { .. } => None,
        };
        let expires_at = earliest(earliest(retained, before.expires_at), stated);
        let (lapses_at, tombstone_until) = self.ends(key, expires_at);
        Times { expires_at, lapses_at, tombstone_until }
    }

    fn completion(&self, key: usize, before: Option<&Record>, after: &Record) -> Option<Cause> {
        let before = before?;
        match before.state {
            State::Completed(_) => return self.contradiction(key, before, after),
            State::Registered | State::Dispatched | State::InDoubt => {}
            State::Failed(..) | State::Tombstone(_) => return None,
        }
        if let Some((start, Meant::Done { answer, until })) = self.end_of(key, before)
            && before.state != State::Dispatched
            && self.completes(key, (before, after), answer, until)
        {
            return Some(Cause::Completed { start: Some(start), answer: answer.clone() });
        }
        self.completion_from_outside(key, before, after)
    }

    /// Whether the record is completed with this answer.
    fn completes(
        &self,
        key: usize,
        (before, after): (&Record, &Record),
        answer: &Bytes,
        until: Option<UnixMillis>,
    ) -> bool {
        let kept = (answer.len() <= self.plan.limits.answer_bytes).then_some(answer);
        matches!(&after.state, State::Completed(found) if found.as_ref() == kept)
            && Times::of(after) == self.times(key, before, until, after.updated_at)
            && after.contradiction.is_none()
    }

    pub(super) fn completion_from_outside(&self, key: usize, before: &Record, after: &Record) -> Option<Cause> {
        let told = self.resolutions(key, before).find_map(|end| match end {
            Ended::Completed(answer) if self.completes(key, (before, after), answer, None) => Some(answer.clone()),
            _ => None,
        });
        told.map(|answer| Cause::Completed { start: None, answer })
    }

    /// Ends told from outside to which nothing has been said yet, and that belong to this attempt.
    fn resolutions(&self, key: usize, record: &Record) -> impl Iterator<Item = &Ended> {
        let recorded = record.attempt;
        let calls = self.calls.values().filter(move |call| self.asks(call, key));
        let told = calls.filter_map(move |call| match &call.ask {
            Ask::Resolve { attempt, end } if is_of(attempt.as_ref(), &recorded) => Some(end),
            _ => None,
        });
        let found = self.findings(key, record).filter_map(|(said, _)| match said {
            Found::Done(end) => Some(end),
            Found::NotStarted | Found::Live | Found::Abandoned | Found::Missing | Found::CannotTell => None,
        });
        told.chain(found)
    }

    fn failure(
        &self,
        key: usize,
        before: Option<&Record>,
        after: &Record,
        origin: Origin,
        reason: &Bytes,
    ) -> Option<Cause> {
        let before = before?;
        match before.state {
            State::Failed(..) => return self.contradiction(key, before, after),
            // Given up, it frees its key.
            State::Registered | State::Dispatched | State::InDoubt if before.abandoned => return None,
            State::Registered | State::Dispatched | State::InDoubt => {}
            State::Completed(_) | State::Tombstone(_) => return None,
        }
        if Times::of(after) != self.times(key, before, None, after.updated_at) {
            return None;
        }
        let never =
            *reason == self.cut(&NOT_STARTED.as_slice().into()) && self.has_found(key, before, &Found::NotStarted);
        match origin {
            Origin::RolledBack
                if never && self.grid(key).on_failure == OnFailure::Keep && self.may_not_have_started(key, before) =>
            {
                Some(Cause::NotStarted)
            }
            Origin::RolledBack => match self.end_of(key, before)? {
                (start, Meant::Definitive(told))
                    if self.grid(key).on_failure == OnFailure::Keep && *reason == self.cut(told) =>
                {
                    Some(Cause::Definitive { start, reason: told.clone() })
                }
                _ => None,
            },
            Origin::Resolved => {
                let told = |end: &Ended| matches!(end, Ended::Failed(told) if *reason == self.cut(told));
                self.resolutions(key, before).any(told).then(|| Cause::Failed { reason: reason.clone() })
            }
        }
    }

    pub(super) fn cut(&self, bytes: &Bytes) -> Bytes {
        bytes.get(..self.plan.limits.answer_bytes).map_or_else(|| bytes.clone(), Into::into)
    }

    /// Another end that came later changes nothing and is kept beside the first; beside a failure, a success in place of another
    /// failure.
    fn contradiction(&self, key: usize, before: &Record, after: &Record) -> Option<Cause> {
        let beside = after.contradiction.as_ref()?;
        let same = before.state == after.state
            && (before.contradiction.is_none() || matches!(before.state, State::Failed(..)))
            && Times::of(before) == Times::of(after)
            && kept(before, after);
        let from_outside = self.resolutions(key, before).any(|end| match end {
            Ended::Completed(bytes) | Ended::Failed(bytes) => self.cut(bytes) == *beside,
        });
        let never = matches!(before.state, State::Completed(_))
            && self.cut(&NOT_STARTED.as_slice().into()) == *beside
            && self.has_found(key, before, &Found::NotStarted);
        // Whether it is believed or not, it is kept.
        let from_inside = match self.start_of(key, before).and_then(|(_, start)| start.end.as_ref()) {
            Some((Finished::Done { answer: bytes, .. } | Finished::Definitive(bytes), ..)) => {
                self.cut(bytes) == *beside
            }
            _ => false,
        };
        (same && (from_outside || from_inside || never)).then_some(Cause::Contradiction)
    }

    fn fence(&self, key: usize, before: Option<&Record>, after: &Record) -> Option<Cause> {
        let fences = self.calls.values().any(|call| self.asks(call, key) && matches!(call.ask, Ask::Fence));
        let now = after.updated_at;
        let past = |end: Option<UnixMillis>| end.is_some_and(|end| now >= end);
        let is_absent = match before.map(|before| (before, before.state.status())) {
            None => true,
            Some((before, Status::Tombstone)) => past(before.tombstone_until),
            Some((before, Status::Completed | Status::Failed)) => {
                let by_time =
                    past(before.lapses_at) && (before.tombstone_until.is_none() || past(before.tombstone_until));
                by_time || self.has_lapsed_by_ticks(before, self.tick)
            }
            Some(_) => false,
        };
        (fences && is_absent && after.tombstone_until.is_none()).then_some(Cause::Fenced)
    }

    /// A record goes, or leaves its tombstone.
    fn removal(&self, key: usize, before: Option<&Record>, after: Option<&Record>, now: UnixMillis) -> Option<Cause> {
        let before = before?;
        match before.state {
            State::Registered | State::InDoubt => self.end_without_record(key, before, after).or_else(|| {
                self.pruned(key, before, before.expires_at, self.ends(key, before.expires_at).1, after, now)
                    .filter(|_| self.is_given_up(key, before))
            }),
            State::Dispatched => self.never_started(key, before, after).or_else(|| self.freed(key, before, after)),
            State::Completed(_) if after.is_none() && self.has_lapsed_by_ticks(before, self.tick) => {
                Some(Cause::Released)
            }
            State::Completed(_) | State::Failed(..) => self
                .swept(before, after, now)
                .or_else(|| self.forgotten(key, before, after))
                .or_else(|| self.pruned(key, before, before.expires_at, before.tombstone_until, after, now))
                .or_else(|| self.let_go(key, before, after)),
            State::Tombstone(_) => {
                let is_over = before.tombstone_until.is_some_and(|end| now >= end);
                (is_over && after.is_none()).then_some(Cause::Swept)
            }
        }
    }

    /// The attempt has ended, and nothing is to be kept of it.
    fn end_without_record(&self, key: usize, before: &Record, after: Option<&Record>) -> Option<Cause> {
        let from_inside = self.end_from_inside(key, before, after);
        from_inside.or_else(|| self.never_started(key, before, after)).or_else(|| self.freed(key, before, after))
    }

    fn end_from_inside(&self, key: usize, before: &Record, after: Option<&Record>) -> Option<Cause> {
        match self.end_of(key, before)? {
            (start, Meant::Definitive(reason)) => {
                self.keeps_no_failure(key, before, after).then(|| Cause::Definitive { start, reason: reason.clone() })
            }
            (start, Meant::Done { until, .. }) => {
                let again = before.attempt.number > 1 && before.checkpoint.is_some();
                let told = self.grid(key).after_expiry != AfterExpiry::Refuse;
                // When it was decided is known to lie between the end of the operation and now.
                let ended = self.starts[&start].end.as_ref().map_or(0, |(_, place, _)| *place);
                let late = UnixMillis(self.between(ended, self.place).1);
                let late = after.map_or(late, |after| after.updated_at);
                let times = self.times(key, before, until, late);
                let stands = after.map(|after| after.tombstone_until);
                let is_expired = times.expires_at.is_some_and(|end| late >= end);
                (again && told && is_expired && stands == times.tombstone_until.map(Some))
                    .then_some(Cause::TooLate { start })
            }
            (start, Meant::Taken) => {
                (before.state == State::Registered && after.is_none()).then_some(Cause::Taken { start })
            }
            (_, Meant::Accepted | Meant::AlreadyLive | Meant::Unknown) => None,
        }
    }

    /// Whether a failure leaves nothing behind: by the flow's policy, or because the request was given up.
    fn keeps_no_failure(&self, key: usize, before: &Record, after: Option<&Record>) -> bool {
        (self.grid(key).on_failure == OnFailure::Forget || before.abandoned) && after.is_none()
    }

    /// It was given up, and somebody has told that it failed.
    pub(super) fn freed(&self, key: usize, before: &Record, after: Option<&Record>) -> Option<Cause> {
        let told = self.resolutions(key, before).find_map(|end| match end {
            Ended::Failed(reason) => Some(self.cut(reason)),
            Ended::Completed(_) => None,
        });
        let is_free = before.abandoned && after.is_none();
        told.filter(|_| is_free).map(|reason| Cause::Failed { reason })
    }

    /// It had failed, and the host gives it up.
    fn let_go(&self, key: usize, before: &Record, after: Option<&Record>) -> Option<Cause> {
        let wants = self.calls.values().any(|call| self.asks(call, key) && matches!(call.ask, Ask::Abandon));
        (wants && after.is_none() && matches!(before.state, State::Failed(..))).then_some(Cause::Abandoned)
    }

    /// It never ran and never will, and nothing is to be kept of that.
    fn never_started(&self, key: usize, before: &Record, after: Option<&Record>) -> Option<Cause> {
        let never = self.may_not_have_started(key, before) && self.has_found(key, before, &Found::NotStarted);
        (never && self.keeps_no_failure(key, before, after)).then_some(Cause::NotStarted)
    }

    /// Also what was thought to be under way: if nothing went out, it is rolled back.
    fn may_not_have_started(&self, key: usize, record: &Record) -> bool {
        record.state == State::Dispatched || self.is_doubted(key, record)
    }

    fn swept(&self, before: &Record, after: Option<&Record>, now: UnixMillis) -> Option<Cause> {
        let is_due = before.lapses_at.is_some_and(|end| now >= end);
        let left = before.tombstone_until.filter(|end| now < *end);
        (is_due && after.map(|after| after.tombstone_until) == left.map(Some)).then_some(Cause::Swept)
    }

    /// Where somebody can be asked, only what is over there by what was said of this attempt.
    fn forgotten(&self, key: usize, before: &Record, after: Option<&Record>) -> Option<Cause> {
        let is_over =
            |call: &Call| !self.grid(key).is_asked() || self.said_of_ended(key, before, call.place).any(is_over_there);
        let forgets =
            self.calls.values().any(|call| self.asks(call, key) && matches!(call.ask, Ask::Forget) && is_over(call));
        let runs =
            self.starts.values().any(|start| start.key == key && start.boot == self.boot.number && start.end.is_none());
        let lifetime = self.grid(key).tombstone;
        let leaves = match after {
            None => lifetime.is_none(),
            Some(after) => after.tombstone_until == lifetime.map(|lifetime| after.updated_at.saturating_add(lifetime)),
        };
        (forgets && !runs && leaves).then_some(Cause::Forgotten)
    }

    /// Somebody has been told that it is expired, and is to be told so once.
    fn pruned(
        &self,
        key: usize,
        before: &Record,
        expires_at: Option<UnixMillis>,
        tombstone_until: Option<UnixMillis>,
        after: Option<&Record>,
        now: UnixMillis,
    ) -> Option<Cause> {
        let asked = self.submits(key).next().is_some();
        let is_expired = expires_at.is_some_and(|end| after.map_or(now, |after| after.updated_at) >= end);
        let stands = after.map(|after| after.tombstone_until) == tombstone_until.map(Some);
        let once = self.grid(key).after_expiry == AfterExpiry::RefuseOnce;
        (asked && is_expired && stands && once && before.state != State::Dispatched).then_some(Cause::Pruned)
    }
}

#[derive(PartialEq)]
struct Times {
    expires_at: Option<UnixMillis>,
    lapses_at: Option<UnixMillis>,
    tombstone_until: Option<UnixMillis>,
}

impl Times {
    fn of(record: &Record) -> Self {
        let Record { expires_at, lapses_at, tombstone_until, .. } = *record;
        Self { expires_at, lapses_at, tombstone_until }
    }
}

/// Whether an end from outside belongs to this attempt: one that names none belongs to whatever is recorded.
pub(super) fn is_of(named: Option<&AttemptId>, recorded: &AttemptId) -> bool {
    named.is_none_or(|named| (named.number, named.token) == (recorded.number, recorded.token))
}

/// Whether this says for certain that downstream has done with an attempt.
pub(super) fn is_over_there(said: &Found) -> bool {
    matches!(said, Found::NotStarted | Found::Done(_))
}

/// Nothing of the attempt has changed on the way.
fn kept(before: &Record, after: &Record) -> bool {
    before.attempt == after.attempt && before.checkpoint == after.checkpoint
}

fn earliest(a: Option<UnixMillis>, b: Option<UnixMillis>) -> Option<UnixMillis> {
    [a, b].into_iter().flatten().min()
}

fn shown(record: Option<&Record>) -> String {
    record.map_or_else(|| "absent".to_owned(), super::history::show_record)
}
