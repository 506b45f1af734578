//! What may be told: every answer must fit what the key was at some moment between question and answer.

use ibid::{
    Abandoned, Acknowledged, AfterCompleted, AfterExpiry, Bytes, Ended, ErrorKind, Fenced, Fingerprint, Forgotten,
    Guard, How, InDoubt, Mark, OnStoreFailure, Origin, Record, Resolved, Retention, Row, State, Status, UnixMillis,
    WhileRunning,
};

use super::causes::{Meant, NOT_STARTED, is_of, is_over_there};
use super::checker::{Call, Cause, Change, Checker, Start};
use super::history::{Answer, Ask, Finished, Said, Submit};

/// A key at a moment, as one reads it who asks.
#[derive(Clone, Copy)]
enum Read<'a> {
    Absent {
        since: Since,
    },
    Tombstone {
        mark: Mark,
        since: Since,
    },
    /// Registered and running, or dispatched.
    InFlight(&'a Record),
    /// In doubt, and whether no re-run is left.
    InDoubt(&'a Record, bool),
    Finished(&'a Record),
    Expired(&'a Record),
}

/// What has made it so, where a record is stored that has ended: it has to be durable before anybody is told.
#[derive(Clone, Copy, Default)]
struct Since {
    time: Option<UnixMillis>,
    tick: Option<u64>,
}

/// When something may have been read.
#[derive(Clone, Copy)]
struct Moment {
    now: UnixMillis,
    tick: u64,
}

impl From<Option<UnixMillis>> for Since {
    fn from(time: Option<UnixMillis>) -> Self {
        Self { time, tick: None }
    }
}

/// Who asks for an answer.
struct Wanted<'a> {
    call: &'a Call,
    submit: Option<&'a Submit>,
    fingerprint: Option<Fingerprint>,
}

impl Checker<'_> {
    /// Why the answer is right; `None` if it is wrong.
    pub(super) fn fits(&self, call: &Call, answer: &Answer) -> Option<&'static str> {
        self.fits_trouble(call, answer).or_else(|| match (&call.ask, answer) {
            (Ask::Submit(submit), _) => self.fits_request(call, Some(submit), answer),
            (Ask::Track(_), _) => self.fits_request(call, None, answer),
            (Ask::Lookup, Ok(Said::Record(found))) => self.fits_lookup(call, found.as_deref()),
            (Ask::Forget, Ok(Said::Forgotten(forgotten))) => self.fits_forget(call, *forgotten),
            (Ask::Resolve { .. }, Ok(Said::Resolved(resolved))) => self.fits_resolve(call, *resolved),
            (Ask::Fence, Ok(Said::Fenced(fenced))) => self.fits_fence(call, *fenced),
            (Ask::List, Ok(Said::Listed(listed))) => self.fits_list(listed),
            (Ask::ExpirySweep, Ok(Said::Swept(count))) => self.fits_expiry_sweep(call, *count),
            (Ask::Abandon, Ok(Said::Abandoned(abandoned))) => self.fits_abandon(call, *abandoned),
            (Ask::Acknowledge | Ask::Disturb, Ok(Said::Acknowledged(told))) => self.fits_acknowledged(call, *told),
            (Ask::Tick, Ok(Said::Ticked)) => (self.tick_mark >= self.ticks[call.place]).then_some("it is durable"),
            (Ask::Rows(row), Ok(Said::Rows(written))) => self.fits_rows(call, row, *written),
            _ => None,
        })
    }

    /// What can be told at any time, for a reason of its own.
    fn fits_trouble(&self, call: &Call, answer: &Answer) -> Option<&'static str> {
        let Err(kind) = answer else { return None };
        let since = |place: Option<usize>| place.is_some_and(|place| place >= call.place);
        let is = match kind {
            ErrorKind::Closed => self.boot.closing || self.boot.over,
            ErrorKind::Store => {
                // Where nothing is registered, nothing starts until something could be written again.
                let is_down = self.boot.given_up.last().is_some_and(|(_, until)| until.is_none());
                let waits = self.grid(call.key).replay_safe && is_down;
                self.boot.failing || since(self.boot.failed_at) || since(self.boot.well_since) || waits
            }
            ErrorKind::Busy { found_absent, .. } => {
                let was_absent = || self.moments(call).any(|(record, _)| record.is_none());
                self.is_full(call) && (!found_absent || was_absent())
            }
            ErrorKind::Deadline => matches!(&call.ask, Ask::Submit(Submit { deadline: Some(deadline), .. })
                if u128::from(self.at - call.at) >= deadline.as_millis()),
            ErrorKind::QuotaExceeded => {
                let quota = &self.keys[call.key].over_quota;
                let is_found_full = self.grid(call.key).replay_safe && self.may_have_been_full(call.key, call.place);
                matches!(call.ask, Ask::Submit(_)) && (is_found_full || quota.iter().any(|place| *place > call.place))
            }
            _ => false,
        };
        is.then_some("trouble")
    }

    /// Whether as much may have been in flight as a bound allows: what may have been is counted, not what was.
    fn is_full(&self, call: &Call) -> bool {
        let limits = &self.plan.limits;
        let open = |other: &&Call| {
            let is_told = other.told.is_some() && !matches!(other.told, Some(Err(ErrorKind::Deadline)));
            other.id != call.id && other.boot == call.boot && (!is_told || other.told_at >= call.place)
        };
        let others = self.calls.values().filter(open);
        let here = others.clone().filter(|other| other.key == call.key).count();
        // A re-run without a caller waits like one.
        let reruns = |start: &Start| start.call.is_none() && start.key == call.key && self.may_have_run(start, call);
        let here = here + usize::from(self.starts.values().any(reruns));
        // What the host itself decides about a key takes no permit and waits for nobody: it is never refused for want of room.
        let takes_permit = |ask: &Ask| matches!(ask, Ask::Submit(_) | Ask::Track(_));
        // A re-run without a caller takes a permit before it starts.
        let may_rerun = |key: usize| {
            let is_open = |record: &Record| record.state.status().is_in_flight();
            self.grid(key).is_rerun() && self.record(key).is_some_and(is_open)
        };
        let taken = |counts: &dyn Fn(usize) -> bool| {
            let asking = others.clone().filter(|other| takes_permit(&other.ask) && counts(other.key)).count();
            let runs = |start: &&Start| counts(start.key) && self.may_have_run(start, call);
            let reruns = (0..self.keys.len()).filter(|key| counts(*key) && may_rerun(*key)).count();
            asking + self.starts.values().filter(runs).count() + reruns
        };
        takes_permit(&call.ask)
            && (taken(&|_| true) >= limits.in_flight
                || taken(&|key| self.is_beside(call.key, key)) >= limits.in_flight_per_scope
                || here >= limits.waiters_per_key)
    }

    /// Every record that the key has held between question and answer, with the times at which it may have been read.
    fn moments<'a>(&'a self, call: &'a Call) -> impl Iterator<Item = (Option<&'a Record>, Vec<Moment>)> {
        let states = &self.keys[call.key].states;
        let ends = states.iter().skip(1).map(|(place, _)| *place).chain([self.place]);
        let spans = states.iter().zip(ends).filter(|(_, end)| *end >= call.place);
        spans.map(|((begin, record), end)| {
            let begin = (*begin).max(call.place);
            let (early, late) = self.between(begin, end);
            let times = self.times_between(call.key, record.as_deref(), early, late);
            let ticks = [self.ticks[begin], self.ticks[end]];
            let ticks = if ticks[0] == ticks[1] { &ticks[..1] } else { &ticks[..] };
            let moments = times.iter().flat_map(|now| ticks.iter().map(|tick| Moment { now: *now, tick: *tick }));
            (record.as_deref(), moments.collect())
        })
    }

    /// The times that make a difference.
    fn times_between(&self, key: usize, record: Option<&Record>, early: u64, late: u64) -> Vec<UnixMillis> {
        let mut times = vec![early, late];
        if let Some(record) = record {
            let (lapses_at, tombstone_until) = self.ends(key, record.expires_at);
            let ends = [record.expires_at, record.lapses_at, record.tombstone_until, lapses_at, tombstone_until];
            let edges = ends.into_iter().flatten().flat_map(|end| [end.0.saturating_sub(1), end.0]);
            times.extend(edges.filter(|edge| (early..=late).contains(edge)));
        }
        times.into_iter().map(UnixMillis).collect()
    }

    /// How a record reads, for one who wants an answer; where that depends on what can't be known, all the ways.
    fn readings<'r>(&self, key: usize, record: Option<&'r Record>, Moment { now, tick }: Moment) -> Vec<Read<'r>> {
        let Some(record) = record else { return vec![Read::Absent { since: Since::default() }] };
        if self.has_lapsed_by_ticks(record, tick) {
            return vec![Read::Absent { since: Since { time: None, tick: record.lapses_at_tick } }];
        }
        let past = |end: Option<UnixMillis>| end.is_some_and(|end| now >= end);
        let aged = |(lapses_at, tombstone_until): (Option<UnixMillis>, Option<UnixMillis>), live| {
            if past(lapses_at) && tombstone_until.is_some() && !past(tombstone_until) {
                Read::Tombstone { mark: Mark::Expired, since: lapses_at.into() }
            } else if past(lapses_at) {
                Read::Absent { since: lapses_at.max(tombstone_until).into() }
            } else if past(record.expires_at) {
                Read::Expired(record)
            } else {
                live
            }
        };
        let doubted = || {
            let given_up = self.is_given_up(key, record);
            let in_doubt = Read::InDoubt(record, given_up);
            if given_up { aged(self.ends(key, record.expires_at), in_doubt) } else { in_doubt }
        };
        match &record.state {
            State::Tombstone(_) if past(record.tombstone_until) => {
                vec![Read::Absent { since: record.tombstone_until.into() }]
            }
            State::Tombstone(mark) => vec![Read::Tombstone { mark: *mark, since: Since::default() }],
            State::Completed(_) | State::Failed(..) => {
                vec![aged((record.lapses_at, record.tombstone_until), Read::Finished(record))]
            }
            State::Dispatched => vec![Read::InFlight(record)],
            State::InDoubt => vec![doubted()],
            State::Registered => {
                let running = self.is_running(key, record).then_some(Read::InFlight(record));
                let left = self.may_be_left(key, record).then(doubted);
                running.into_iter().chain(left).collect()
            }
        }
    }

    fn fits_request(&self, call: &Call, submit: Option<&Submit>, answer: &Answer) -> Option<&'static str> {
        let name = self.plan.keys[call.key].flow.name();
        let named = match &call.ask {
            Ask::Track(request) => request.as_ref(),
            _ => submit.map(|submit| &submit.request),
        };
        let fingerprint = named.map(|request| Fingerprint::of(name, request));
        let wanted = Wanted { call, submit, fingerprint };
        if let Some(change) = self.changes_since(call).find(|change| self.fits_end(&wanted, change, answer)) {
            return Some(match change.cause {
                Cause::Completed { start: None, .. } | Cause::Failed { .. } => "its end was told from outside",
                _ => "the operation has ended",
            });
        }
        if self.is_refused_as_before(&wanted, answer) {
            return Some("the write that changes it has not been read back");
        }
        if self.fits_unsaved(&wanted, answer) {
            return Some("it could not be saved");
        }
        let found = self.moments(call).any(|(record, times)| {
            times.iter().any(|now| {
                let readings = self.readings(call.key, record, *now);
                readings.into_iter().any(|read| match submit {
                    Some(submit) => self.fits_submit(&wanted, submit, read, answer),
                    None => self.fits_track(&wanted, read, answer),
                })
            })
        });
        found.then_some("the record says so")
    }

    /// While it is not known whether a write has happened, the key reads as it did before; and that it is taken is all that is
    /// said of it.
    fn is_refused_as_before(&self, Wanted { call, submit, fingerprint }: &Wanted<'_>, answer: &Answer) -> bool {
        let unknown = |change: &&Change| change.unknown.is_some_and(|at| self.is_soon(at, at));
        let Some(change) = self.keys[call.key].changes.last().filter(unknown) else { return false };
        let Some(before) = change.before.as_ref().filter(|before| self.is_running(call.key, before)) else {
            return false;
        };
        let is_same = fingerprint.is_none_or(|fingerprint| fingerprint == before.fingerprint);
        match answer {
            Err(ErrorKind::Mismatch) => !is_same,
            Err(ErrorKind::Duplicate(status)) => {
                submit.is_some()
                    && is_same
                    && before.state.status() == *status
                    && self.grid(call.key).while_running == WhileRunning::Refuse
            }
            _ => false,
        }
    }

    /// After all tries have failed, and where the policy says so by name, what the operation itself has decided leaves without
    /// being durable: to who waits, and then to everybody the same, as if it were saved.
    fn fits_unsaved(&self, wanted: &Wanted<'_>, answer: &Answer) -> bool {
        let Wanted { call, submit, fingerprint } = wanted;
        let grid = self.grid(call.key);
        let until = |until: &Option<usize>| {
            until.is_none_or(|until| until >= call.place || self.is_soon(self.ats[until], self.ats[until]))
        };
        if grid.on_store_failure != OnStoreFailure::Reply || !self.boot.given_up.iter().any(|(_, end)| until(end)) {
            return false;
        }
        let running = |record: &&Record| record.state == State::Registered && self.is_running(call.key, record);
        let states = self.keys[call.key].states.iter().rev();
        let Some(record) = states.filter_map(|(_, record)| record.as_deref()).find(running) else { return false };
        if fingerprint.is_some_and(|fingerprint| fingerprint != record.fingerprint) {
            return false;
        }
        let Some((start, meant)) = self.end_of(call.key, record) else { return false };
        let Some((end, ..)) = &self.starts[&start].end else { return false };
        let is_guarded = |row: &ibid::Row| *row.requires() != ibid::Guard::Any;
        if matches!(end, Finished::Done { rows, .. } if rows.iter().any(is_guarded)) {
            return false;
        }
        let is_own = call.start == Some(start);
        let waits = submit.is_none() || grid.while_running == WhileRunning::Join || is_own;
        let policy = if submit.is_some() { grid.after_completed } else { AfterCompleted::Replay };
        match (meant, answer) {
            (Meant::Done { answer: decided, .. }, Ok(Said::Answer(How::Executed, told))) => is_own && told == decided,
            (Meant::Done { answer: decided, .. }, Ok(Said::Answer(How::Joined, told))) => {
                waits && !is_own && told == decided
            }
            (Meant::Done { answer: decided, .. }, _) => {
                let kept = (decided.len() <= self.plan.limits.answer_bytes).then(|| decided.clone());
                fits_finished(policy, &State::Completed(kept), answer)
            }
            (Meant::Definitive(reason), Err(ErrorKind::Failed(told))) => {
                told.bytes() == reason || *told.bytes() == self.cut(reason)
            }
            _ => false,
        }
    }

    fn changes_since(&self, call: &Call) -> impl Iterator<Item = &Change> {
        self.keys[call.key].changes.iter().filter(|change| change.place > call.place)
    }

    /// One who waited for this change, or made it, is told what it came to.
    fn fits_end(&self, wanted: &Wanted<'_>, change: &Change, answer: &Answer) -> bool {
        let causes = std::iter::once(&change.cause).chain(&change.or);
        causes.into_iter().any(|cause| self.fits_cause(wanted, change, cause, answer))
    }

    fn fits_cause(&self, wanted: &Wanted<'_>, change: &Change, cause: &Cause, answer: &Answer) -> bool {
        let Wanted { call, submit, fingerprint } = wanted;
        let Some(before) = &change.before else { return false };
        let is_own = |start: Option<usize>| call.start.is_some() && (start.is_none() || call.start == start);
        let may_wait = submit.is_none() || self.grid(call.key).while_running == WhileRunning::Join;
        let is_same = fingerprint.is_none_or(|fingerprint| fingerprint == before.fingerprint);
        let heard = |start: Option<usize>| is_same && (may_wait || is_own(start));
        match (cause, answer) {
            (Cause::Completed { start, answer }, Ok(Said::Answer(how, told))) => {
                let came_about = match how {
                    How::Executed => is_same && is_own(*start),
                    How::Joined => is_same && may_wait && (start.is_none() || !is_own(*start)),
                    How::Replayed => false,
                };
                came_about && answer == told
            }
            (Cause::Accepted { start }, Ok(Said::Accepted)) => call.start == Some(*start),
            (Cause::AlreadyLive { start }, Err(ErrorKind::Duplicate(Status::Dispatched))) => call.start == Some(*start),
            (Cause::Taken { start }, Err(ErrorKind::Mismatch)) => heard(Some(*start)),
            (Cause::Definitive { start, reason }, Err(ErrorKind::Failed(told))) => {
                heard(Some(*start)) && (told.bytes() == reason || *told.bytes() == self.cut(reason))
            }
            (Cause::Failed { .. }, Err(ErrorKind::Duplicate(Status::Failed))) => heard(None),
            (Cause::NotStarted, Err(ErrorKind::Failed(told))) => {
                let reason = NOT_STARTED.as_slice().into();
                heard(None) && (*told.bytes() == reason || *told.bytes() == self.cut(&reason))
            }
            // Whoever waits for it is let go when it becomes a dead letter.
            (Cause::CannotTell, Err(ErrorKind::RecoveriesExhausted)) => {
                heard(None) && change.after.as_ref().is_some_and(|after| self.is_dead_letter(call.key, after))
            }
            (Cause::Doubt { start }, Err(ErrorKind::InDoubt(Some(told)))) => {
                let reason = match &self.starts[start].end {
                    Some((Finished::Unknown(reason) | Finished::Definitive(reason), ..)) => reason == told.bytes(),
                    // The engine says why.
                    Some((Finished::Lost | Finished::Done { .. }, ..)) => true,
                    Some((Finished::Accepted | Finished::AlreadyLive | Finished::Taken, ..)) | None => false,
                };
                heard(Some(*start)) && reason
            }
            // Whose operation it was has never been said.
            (Cause::Aborted, Err(ErrorKind::InDoubt(Some(_)))) => is_same && (may_wait || call.start.is_none()),
            (Cause::TooLate { start }, Err(ErrorKind::Expired)) => heard(Some(*start)),
            // The same, where the policy keeps the record to refuse with.
            (Cause::Completed { start: Some(start), .. }, Err(ErrorKind::Expired)) => {
                let is_late = change.after.as_ref().is_some_and(|after| after.expires_at <= Some(after.updated_at));
                let again = before.attempt.number > 1 && before.checkpoint.is_some();
                let refuses = self.grid(call.key).after_expiry == AfterExpiry::Refuse;
                heard(Some(*start)) && is_late && again && refuses
            }
            _ => false,
        }
    }

    fn fits_submit(&self, wanted: &Wanted<'_>, submit: &Submit, read: Read<'_>, answer: &Answer) -> bool {
        let Wanted { call, fingerprint, .. } = wanted;
        let grid = self.grid(call.key);
        let record = match read {
            Read::Absent { since } => return self.is_marked(since) && self.fits_start(call, submit, answer),
            Read::Tombstone { mark, since } => return self.is_marked(since) && fits_mark(mark, answer),
            Read::Expired(record) => return self.fits_expired(call, submit, record, answer),
            Read::InFlight(record) | Read::InDoubt(record, _) | Read::Finished(record) => record,
        };
        if Some(record.fingerprint) != *fingerprint {
            return matches!(answer, Err(ErrorKind::Mismatch));
        }
        match (read, answer) {
            (Read::InFlight(record), Err(ErrorKind::Duplicate(status))) => {
                // Nobody is refused as a duplicate of its own request.
                call.start.is_none() && grid.while_running == WhileRunning::Refuse && record.state.status() == *status
            }
            (Read::InDoubt(_, given_up), Err(kind)) => match (grid.in_doubt, kind) {
                (InDoubt::Ambiguous, ErrorKind::InDoubt(None)) => true,
                (InDoubt::Ask, ErrorKind::Duplicate(Status::InDoubt)) => true,
                (InDoubt::Rerun, ErrorKind::RecoveriesExhausted) => given_up,
                (InDoubt::Rerun, ErrorKind::InDoubt(told)) if !given_up => {
                    let told = told.as_ref().map(|reason| reason.bytes());
                    self.is_barred(call, submit) && told == submit.barred.as_ref().filter(|_| told.is_some())
                }
                _ => false,
            },
            (Read::Finished(record), _) => fits_finished(grid.after_completed, &record.state, answer),
            _ => false,
        }
    }

    /// Whether the operation must not start, for any reason that the request itself gives.
    fn is_barred(&self, call: &Call, submit: &Submit) -> bool {
        let now = UnixMillis(self.time[self.place].1);
        submit.barred.is_some()
            || submit.request.len() > self.plan.limits.request_bytes
            || self.bound(call.key, submit, now).is_none()
    }

    /// Where nothing is known of the key, and the operation would start if the request let it.
    fn fits_start(&self, call: &Call, submit: &Submit, answer: &Answer) -> bool {
        let grid = self.grid(call.key);
        let Err(kind) = answer else { return false };
        match kind {
            ErrorKind::Failed(reason) => submit.barred.as_ref() == Some(reason.bytes()),
            ErrorKind::TooLarge { bytes, limit } => {
                *limit == self.plan.limits.request_bytes && *bytes == submit.request.len() && bytes > limit
            }
            ErrorKind::RetentionMissing => grid.retention == Retention::FromRequest && submit.retention.is_none(),
            ErrorKind::RetentionOverflow => {
                submit.retention.is_some_and(|retention| retention > std::time::Duration::from_secs(1 << 50))
            }
            // Its record was ended from outside, and its operation still runs.
            ErrorKind::InDoubt(None) => self.may_run(call),
            _ => false,
        }
    }

    /// Whether an operation of the key may have been running in this boot at some moment since it was asked.
    fn may_run(&self, call: &Call) -> bool {
        self.starts.values().any(|start| start.key == call.key && self.may_have_run(start, call))
    }

    fn may_have_run(&self, start: &Start, call: &Call) -> bool {
        let since = |(_, place, at): &(Finished, usize, u64)| {
            // Its end may be on its way, and for longer if the store has failed.
            *place >= call.place || self.is_soon(*at, *at)
        };
        start.boot == call.boot && start.end.as_ref().is_none_or(since)
    }

    /// A time that decides is durable before its answer leaves.
    fn is_marked(&self, since: impl Into<Since>) -> bool {
        let Since { time, tick } = since.into();
        time.is_none_or(|time| self.mark >= time.0) && tick.is_none_or(|tick| self.tick_mark >= tick)
    }

    fn fits_expired(&self, call: &Call, submit: &Submit, record: &Record, answer: &Answer) -> bool {
        if !self.is_marked(record.expires_at) {
            return false;
        }
        match self.grid(call.key).after_expiry {
            AfterExpiry::Rerun => self.fits_start(call, submit, answer),
            AfterExpiry::Refuse => matches!(answer, Err(ErrorKind::Expired)),
            // Once: what it was told for has gone by now.
            AfterExpiry::RefuseOnce => {
                // Which of several that wanted it gone has removed it can't be seen.
                let pruned = |change: &Change| is_removal(&change.cause);
                matches!(answer, Err(ErrorKind::Expired)) && self.changes_since(call).any(pruned)
            }
        }
    }

    fn fits_track(&self, Wanted { call, fingerprint, .. }: &Wanted<'_>, read: Read<'_>, answer: &Answer) -> bool {
        let record = match read {
            Read::Absent { .. } | Read::Tombstone { .. } => None,
            Read::InFlight(record) | Read::InDoubt(record, _) | Read::Finished(record) | Read::Expired(record) => {
                Some(record)
            }
        };
        let is_other = |record: &Record| fingerprint.is_some_and(|fingerprint| fingerprint != record.fingerprint);
        if record.is_some_and(is_other) {
            return matches!(answer, Err(ErrorKind::Mismatch));
        }
        let Err(kind) = answer else {
            return match read {
                Read::Finished(record) => fits_finished(AfterCompleted::Replay, &record.state, answer),
                _ => false,
            };
        };
        match (read, kind) {
            (Read::Absent { since }, ErrorKind::NotFound) => self.is_marked(since),
            (Read::Tombstone { mark, since }, _) => self.is_marked(since) && fits_mark(mark, answer),
            (Read::Expired(record), ErrorKind::Expired) => self.is_marked(record.expires_at),
            (Read::InDoubt(record, given_up), _) => match (self.grid(call.key).in_doubt, kind) {
                (InDoubt::Rerun, ErrorKind::RecoveriesExhausted) => given_up,
                (InDoubt::Ask, ErrorKind::RecoveriesExhausted) => self.is_dead_letter(call.key, record),
                (InDoubt::Rerun | InDoubt::Ambiguous, ErrorKind::InDoubt(None)) => !given_up,
                _ => false,
            },
            (Read::Finished(record), _) => fits_finished(AfterCompleted::Replay, &record.state, answer),
            _ => false,
        }
    }

    fn fits_lookup(&self, call: &Call, found: Option<&Record>) -> Option<&'static str> {
        let (_, late) = self.between(call.place, self.place);
        let record = self.durable(call.key);
        let fits = match found {
            Some(found) => record == Some(found),
            None => record.is_none_or(|record| {
                let by_time = record.removable_at().is_some_and(|end| late >= end.0);
                by_time || self.has_lapsed_by_ticks(record, self.tick)
            }),
        };
        fits.then_some("it is stored")
    }

    fn fits_list(&self, listed: &[(usize, Record, bool)]) -> Option<&'static str> {
        let is_listed = |key: usize| listed.iter().find(|(listed, ..)| *listed == key).map(|(_, record, _)| record);
        let is_dead = |key: usize, record: &Record| {
            let least = if self.grid(key).is_asked() { 1 } else { 0 };
            record.state == State::InDoubt && record.recoveries >= self.plan.limits.recoveries.max(least)
        };
        if listed.iter().any(|(key, record, is_dead_letter)| is_dead(*key, record) != *is_dead_letter) {
            return None;
        }
        let fits = (0..self.keys.len())
            .all(|key| is_listed(key) == self.durable(key).filter(|record| record.state.status().is_in_flight()));
        fits.then_some("it is stored")
    }

    fn fits_expiry_sweep(&self, call: &Call, count: u64) -> Option<&'static str> {
        let (early, _) = self.time[call.place];
        // What came since may not have been there yet when it looked.
        let is_due = |key: usize| {
            let (since, record) = self.keys[key].states.last().expect("there is a first state");
            let end = record.as_ref().and_then(|record| record.removable_at());
            let by_ticks = |record: &Record| self.has_lapsed_by_ticks(record, self.ticks[call.place]);
            let is_due = end.is_some_and(|end| end.0 <= early) || record.as_deref().is_some_and(by_ticks);
            *since < call.place && is_due
        };
        let swept = |change: &&Change| matches!(change.cause, Cause::Swept | Cause::Released);
        let removed = self.keys.iter().flat_map(|key| &key.changes).filter(swept);
        let fits = count <= removed.count() as u64 && !(0..self.keys.len()).any(is_due);
        fits.then_some("nothing is left that is due")
    }

    fn fits_forget(&self, call: &Call, forgotten: Forgotten) -> Option<&'static str> {
        if forgotten == Forgotten::Forgotten {
            return self.changes_since(call).any(|change| is_removal(&change.cause)).then_some("it is gone");
        }
        self.any_reading(call, |read| match (forgotten, read) {
            (Forgotten::NotFound, Read::Absent { since }) => self.is_marked(since),
            (Forgotten::Tombstone, Read::Tombstone { since, .. }) => self.is_marked(since),
            (Forgotten::InFlight(status), Read::InFlight(record)) => record.state.status() == status,
            (Forgotten::InFlight(status), Read::InDoubt(..)) => status == Status::InDoubt,
            (Forgotten::Live, Read::Finished(record) | Read::Expired(record)) => {
                self.may_run(call) || self.may_be_live_there(call, record)
            }
            _ => false,
        })
        .then_some("it is so")
    }

    /// Whether it cannot be ruled out that downstream has to do with a record that has ended: nobody has said of its attempt that
    /// it is over there, or not everybody who was asked.
    fn may_be_live_there(&self, call: &Call, record: &Record) -> bool {
        let mut said = self.said_of_ended(call.key, record, call.place).peekable();
        self.grid(call.key).is_asked() && (said.peek().is_none() || !said.all(is_over_there))
    }

    /// Nobody who decides about a record by name takes one that is given up for one that has lapsed.
    fn any_reading(&self, call: &Call, fits: impl Fn(Read<'_>) -> bool) -> bool {
        self.moments(call).any(|(record, times)| {
            let given_up = record.filter(|record| self.is_given_up(call.key, record));
            match given_up {
                Some(record) => fits(Read::InDoubt(record, true)),
                None => times.iter().any(|now| self.readings(call.key, record, *now).into_iter().any(&fits)),
            }
        })
    }

    fn fits_fence(&self, call: &Call, fenced: Fenced) -> Option<&'static str> {
        self.any_reading(call, |read| match (fenced, read) {
            (Fenced::Fenced, Read::Tombstone { mark: Mark::Fenced, .. }) => true,
            (Fenced::Found(Status::Tombstone), Read::Tombstone { mark: Mark::Expired, since }) => self.is_marked(since),
            (Fenced::Found(status), Read::InFlight(record) | Read::Finished(record) | Read::Expired(record)) => {
                record.state.status() == status
            }
            (Fenced::Found(status), Read::InDoubt(..)) => status == Status::InDoubt,
            (Fenced::Found(Status::Registered), Read::Absent { since }) => self.is_marked(since) && self.may_run(call),
            _ => false,
        })
        .then_some("it is so")
    }

    fn fits_abandon(&self, call: &Call, abandoned: Abandoned) -> Option<&'static str> {
        let fits = match abandoned {
            // Durable, before downstream may be told.
            Abandoned::Marked(status) => self.stored_since(call).any(|record| {
                let is_left = status == Status::InDoubt && self.may_be_left(call.key, record);
                record.abandoned && status.is_in_flight() && (record.state.status() == status || is_left)
            }),
            Abandoned::Released => self.changes_since(call).any(|change| is_removal(&change.cause)),
            Abandoned::NoEffect => self.any_reading(call, |read| match read {
                Read::Absent { since } | Read::Tombstone { since, .. } => self.is_marked(since),
                Read::Finished(record) | Read::Expired(record) => matches!(record.state, State::Completed(_)),
                Read::InFlight(_) | Read::InDoubt(..) => false,
            }),
        };
        fits.then_some("it is so")
    }

    fn fits_acknowledged(&self, call: &Call, told: Acknowledged) -> Option<&'static str> {
        let quiet_ticks = match self.grid(call.key).retention {
            Retention::UntilAcknowledged { quiet_ticks } => Some(u64::from(quiet_ticks)),
            Retention::FromRequest | Retention::Fixed(_) | Retention::UntilForgotten => None,
        };
        let disturbs = matches!(call.ask, Ask::Disturb);
        let fits = match told {
            // A count that begins anew begins no earlier than it was asked for.
            Acknowledged::Counting => self.stored_since(call).any(|record| {
                let least = if disturbs { self.ticks[call.place] + quiet_ticks.unwrap_or_default() + 1 } else { 0 };
                quiet_ticks.is_some() && record.lapses_at_tick.is_some_and(|last| last >= least)
            }),
            Acknowledged::NoEffect(status) => self.any_reading(call, |read| match read {
                Read::InDoubt(..) => status == Status::InDoubt,
                Read::InFlight(record) => record.state.status() == status,
                Read::Finished(record) | Read::Expired(record) => {
                    let counts = matches!(record.state, State::Completed(_)) && quiet_ticks.is_some();
                    let begins = counts && (!disturbs || record.lapses_at_tick.is_some());
                    record.state.status() == status && !begins
                }
                Read::Absent { .. } | Read::Tombstone { .. } => false,
            }),
            Acknowledged::NotFound => self.any_reading(call, |read| match read {
                Read::Absent { since } | Read::Tombstone { since, .. } => self.is_marked(since),
                _ => false,
            }),
        };
        fits.then_some("it is so")
    }

    /// They were written for whoever hears that they were, and for nobody who hears that a guard was in the way.
    fn fits_rows(&self, call: &Call, row: &Row, written: bool) -> Option<&'static str> {
        let is_there = self.rows_alone.iter().any(|(place, wrote)| *place > call.place && wrote == row);
        let may_be_guarded = *row.requires() != Guard::Any;
        (is_there == written && (written || may_be_guarded)).then_some("it is so")
    }

    /// A duplicate of what has ended comes with its end, as it is recorded; nothing else comes with one.
    pub(super) fn fits_recorded(&self, call: &Call, answer: &Answer, recorded: Option<&Ended>) -> bool {
        let stored = |fits: &dyn Fn(&State) -> bool| self.stored_since(call).any(|record| fits(&record.state));
        let unsaved = || {
            let running = self.stored_since(call).filter(|record| self.is_running(call.key, record)).last();
            match running.and_then(|record| self.end_of(call.key, record)) {
                Some((_, Meant::Done { answer, .. })) => Some(answer),
                _ => None,
            }
        };
        let most = self.plan.limits.answer_bytes;
        match (answer, recorded) {
            (Err(ErrorKind::Duplicate(Status::Completed)), Some(Ended::Completed(told))) => {
                stored(&|state| matches!(state, State::Completed(Some(kept)) if kept == told))
                    || unsaved().is_some_and(|answer| answer == told && told.len() <= most)
            }
            (Err(ErrorKind::Duplicate(Status::Completed)), None) => {
                stored(&|state| matches!(state, State::Completed(None)))
                    || unsaved().is_some_and(|answer| answer.len() > most)
            }
            (Err(ErrorKind::Duplicate(Status::Failed)), Some(Ended::Failed(told))) => {
                let is_it = |cause: &Cause| matches!(cause, Cause::Failed { reason } if reason == told);
                let failed = |change: &Change| is_it(&change.cause) || change.or.as_ref().is_some_and(is_it);
                stored(&|state| matches!(state, State::Failed(_, kept) if kept == told))
                    || self.changes_since(call).any(failed)
            }
            (Err(ErrorKind::Duplicate(Status::Completed | Status::Failed)), _) | (_, Some(_)) => false,
            (_, None) => true,
        }
    }

    fn fits_resolve(&self, call: &Call, resolved: Resolved) -> Option<&'static str> {
        let Ask::Resolve { attempt, end } = &call.ask else { return None };
        let from_outside = |cause: &Cause| matches!(cause, Cause::Completed { start: None, .. } | Cause::Failed { .. });
        let recorded = |change: &Change| from_outside(&change.cause) || change.or.as_ref().is_some_and(from_outside);
        let is_the_same = |record: &Record| match (&record.state, end) {
            (State::Completed(kept), ibid::Ended::Completed(told)) => kept.as_ref().is_none_or(|kept| kept == told),
            (State::Failed(_, kept), ibid::Ended::Failed(told)) => *kept == self.cut(told),
            _ => false,
        };
        let is_it = |record: &Record| is_of(attempt.as_ref(), &record.attempt);
        let fits = match resolved {
            Resolved::Recorded => self.changes_since(call).any(recorded),
            Resolved::NotFound => self.any_reading(call, |read| match read {
                Read::Absent { since } | Read::Tombstone { since, .. } => self.is_marked(since),
                _ => false,
            }),
            Resolved::Already => self.stored_since(call).any(|record| is_it(record) && is_the_same(record)),
            Resolved::FencedOff => self.stored_since(call).any(|record| !is_it(record)),
            Resolved::Contradicts(status) => self.stored_since(call).any(|record| {
                is_it(record)
                    && !is_the_same(record)
                    && record.state.status() == status
                    && record.contradiction.is_some()
                    && matches!(status, Status::Completed | Status::Failed)
            }),
        };
        fits.then_some("it is so")
    }

    /// What was stored between question and answer and is no tombstone.
    pub(super) fn stored_since<'a>(&'a self, call: &'a Call) -> impl Iterator<Item = &'a Record> {
        let records = self.moments(call).filter_map(|(record, _)| record);
        records.filter(|record| record.state.status() != Status::Tombstone)
    }
}

fn is_removal(cause: &Cause) -> bool {
    matches!(cause, Cause::Forgotten | Cause::Pruned | Cause::Swept | Cause::Released | Cause::Abandoned)
}

fn fits_mark(mark: Mark, answer: &Answer) -> bool {
    match mark {
        Mark::Fenced => matches!(answer, Err(ErrorKind::Fenced)),
        Mark::Expired => matches!(answer, Err(ErrorKind::Expired)),
    }
}

/// What a finished record tells whoever asks for it.
fn fits_finished(policy: AfterCompleted, state: &State, answer: &Answer) -> bool {
    let is = |bytes: &Bytes| matches!(answer, Ok(Said::Answer(How::Replayed, told)) if told == bytes);
    match (state, policy) {
        (State::Completed(_), AfterCompleted::Refuse) => {
            matches!(answer, Err(ErrorKind::Duplicate(Status::Completed)))
        }
        (State::Completed(Some(kept)), AfterCompleted::Replay) => is(kept),
        (State::Completed(None), AfterCompleted::Replay) => matches!(answer, Err(ErrorKind::AnswerNotKept)),
        (State::Failed(Origin::RolledBack, reason), _) => {
            matches!(answer, Err(ErrorKind::Failed(told)) if told.bytes() == reason)
        }
        (State::Failed(Origin::Resolved, _), _) => matches!(answer, Err(ErrorKind::Duplicate(Status::Failed))),
        _ => false,
    }
}
