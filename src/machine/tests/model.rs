//! Random runs against a naive model of promises 1 and 2: one key, its whole life, restarts and clock moves included.
//!
//! The model (`Life`) knows nothing of records: it remembers which request owns the key, how often its operation was
//! started, and the first answer. The driver (`World`) applies what the machine writes and holds what it says against it.

use proptest::prelude::*;

use super::*;
use crate::inquiry::Found;
use crate::machine::tests::show;
use crate::machine::{Downstream, Event, Release, Said, Step, Write, expire, interrupt, step};
use crate::outcome::{End, Ended};
use crate::policy::{AfterCheckpoint, AfterCompleted, InDoubt, OnFailure, WhileRunning};
use crate::record::Status;

/// Fewer than the default, so that random runs come to the end of them.
const RERUNS: u8 = 1;
const QUIET_TICKS: u32 = 2;
const REQUESTS: [&str; 2] = ["same", "other"];

#[derive(Clone, Debug)]
enum Op {
    Admit {
        request: usize,
        barred: bool,
    },
    Track(Option<usize>),
    Checkpoint {
        older: bool,
        expires_in: Option<u64>,
    },
    Finish {
        older: bool,
        end: Ending,
    },
    Resolve {
        older: bool,
        answer: Option<u8>,
    },
    /// The oracle's answer; `again`: a second time.
    Found {
        older: bool,
        again: bool,
        what: Telling,
    },
    Rerun {
        older: bool,
    },
    Forget,
    Fence,
    Abandon,
    Acknowledge,
    Disturb,
    Tick(u64),
    Restart {
        recorded: bool,
        clock_back: bool,
    },
    ExpirySweep,
    Wait(u64),
    /// The wall clock leaps ahead, too far to be believed.
    Leap(u64),
    /// It is believed after all, or has come back.
    Trust {
        believed: bool,
    },
    /// To a time that the record names, or one millisecond before it.
    Edge {
        which: usize,
        before: bool,
    },
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Done(u8, Option<u64>),
    TooLong,
    Accepted,
    AlreadyLive,
    Taken,
    Definitive,
    Unknown,
}

#[derive(Clone, Copy, Debug)]
enum Telling {
    NotStarted,
    Live,
    Abandoned,
    Missing,
    Done(Option<u8>),
    Nothing,
}

/// What the key is to the model.
#[derive(Clone, Debug, PartialEq)]
enum Life {
    Free,
    Fenced,
    Marked { until: u64 },
    Owned(Owned),
}

#[derive(Clone, Debug, PartialEq)]
struct Owned {
    request: usize,
    starts: u32,
    /// Re-runs that ended unknown, and answers that told nothing.
    recoveries: u8,
    checkpointed: bool,
    /// `u64::MAX`: none.
    bound: u64,
    phase: Phase,
    abandoned: bool,
    /// The tick that releases it.
    released_at: Option<u64>,
    /// Somebody was told that it is over.
    told_over: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Phase {
    Running,
    Dispatched,
    Doubt,
    /// What every later identical request is told.
    Ended(String),
}

/// How a life looks to one who asks.
#[derive(PartialEq)]
enum Look {
    Free,
    Fenced,
    Marked,
    Expired,
    Alive,
}

struct World {
    policy: Policy,
    life: Life,
    stored: Option<Record>,
    /// Nothing of `stored` is.
    is_held: bool,
    live: bool,
    now: u64,
    /// How far the wall clock is ahead of it. Anything but 0 is suspect.
    ahead: u64,
    /// The durable clock mark: a restart may set the clock back to it.
    mark: u64,
    tick: u64,
    tokens: u8,
}

impl World {
    fn new(policy: Policy) -> Self {
        Self {
            policy,
            life: Life::Free,
            stored: None,
            is_held: false,
            live: false,
            now: 0,
            ahead: 0,
            mark: 0,
            tick: 0,
            tokens: 0,
        }
    }

    fn ends(&self, expires_at: u64) -> (u64, u64) {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap();
        let lapses = expires_at.saturating_add(millis(self.policy.grace));
        (lapses, self.policy.tombstone.map_or(lapses, |lifetime| lapses.saturating_add(millis(lifetime))))
    }

    fn wall(&self) -> u64 {
        self.now + self.ahead
    }

    fn is_suspect(&self) -> bool {
        self.ahead > 0
    }

    fn given_up(&self, owned: &Owned) -> bool {
        owned.phase == Phase::Doubt && self.policy.in_doubt == InDoubt::Rerun && owned.recoveries >= RERUNS
    }

    fn look(&self) -> Look {
        match &self.life {
            Life::Free => Look::Free,
            Life::Fenced => Look::Fenced,
            Life::Marked { until } if self.now < *until => Look::Marked,
            Life::Marked { .. } => Look::Free,
            Life::Owned(owned) if owned.released_at.is_some_and(|tick| self.tick >= tick) => Look::Free,
            Life::Owned(owned) => {
                let over = matches!(owned.phase, Phase::Ended(_)) || self.given_up(owned);
                let (lapses, tombstone) = self.ends(owned.bound);
                match self.wall() {
                    now if !over || owned.bound == u64::MAX || now < owned.bound => Look::Alive,
                    _ if self.now < lapses => Look::Expired,
                    _ if self.now < tombstone => Look::Marked,
                    _ => Look::Free,
                }
            }
        }
    }

    /// What a request must be told.
    fn predict(&self, request: usize, barred: bool) -> String {
        let run = if barred { "Failed(barred)" } else { "Start" };
        let owned = match (self.look(), &self.life) {
            (Look::Free, _) => return run.into(),
            (Look::Fenced, _) => return "Fenced".into(),
            (Look::Expired, _) if self.policy.after_expiry == AfterExpiry::Rerun && !self.is_suspect() => {
                return run.into();
            }
            (Look::Alive, Life::Owned(owned)) => owned,
            _ => return "Expired".into(),
        };
        if owned.request != request {
            return "Mismatch".into();
        }
        let refuses = self.policy.while_running == WhileRunning::Refuse;
        match &owned.phase {
            Phase::Running if refuses => "Duplicate(Registered)".into(),
            Phase::Dispatched if refuses => "Duplicate(Dispatched)".into(),
            Phase::Running | Phase::Dispatched => "Wait".into(),
            Phase::Doubt => match self.policy.in_doubt {
                InDoubt::Ambiguous => "InDoubt".into(),
                InDoubt::Ask => "Duplicate(InDoubt)".into(),
                InDoubt::Rerun if self.given_up(owned) => "RecoveriesExhausted".into(),
                InDoubt::Rerun if barred => "InDoubt(barred)".into(),
                InDoubt::Rerun => "Start".into(),
            },
            Phase::Ended(told) => {
                let completed = told == "AnswerNotKept" || told.starts_with("replayed");
                let refuse = completed && self.policy.after_completed == AfterCompleted::Refuse;
                if refuse { "Duplicate(Completed)".into() } else { told.clone() }
            }
        }
    }

    fn context(&self) -> Context<'_> {
        let trusted = at(self.now);
        Context { live: self.live, trusted, tick: self.tick, recoveries: RERUNS, ..cx(&self.policy, self.wall()) }
    }

    /// Decides and applies; an expiry sweep or a recorded interruption just before must not have changed what is said.
    fn decide<'e>(&mut self, event: impl Fn() -> Event<'e>) -> Step {
        let decide = |stored: Option<&Record>| step(stored, event(), self.context());
        let said = |step: &Step| format!("{:?}", (show::caller(&step.caller), &step.waiters, step.alarm));
        let step = decide(self.stored.as_ref());
        if let Some(stored) = &self.stored {
            let swept = match expire(stored, at(self.now), self.tick) {
                Write::Keep | Write::Touch | Write::Rows | Write::Hold(_) => self.stored.clone(),
                Write::Put(record) => Some((*record).clone()),
                Write::Remove => None,
            };
            assert_eq!(said(&step), said(&decide(swept.as_ref())), "an expiry sweep changed the answer");
            if let Some(doubted) = interrupt(stored, at(self.now)).filter(|_| !self.live) {
                assert_eq!(said(&step), said(&decide(Some(&doubted))), "recording the doubt changed the answer");
            }
        }
        self.write(&step.write);
        step
    }

    fn write(&mut self, write: &Write) {
        if !matches!(write, Write::Keep | Write::Hold(_)) {
            // The trusted time, whatever the wall clock reads.
            self.mark = self.now;
        }
        match write {
            Write::Keep | Write::Touch | Write::Rows => {}
            Write::Hold(record) => {
                assert_eq!(self.stored, None, "something else is stored");
                (self.stored, self.is_held) = (Some((**record).clone()), true);
            }
            Write::Put(record) => {
                assert!(!self.is_held || record.revision == 2, "what has run is let in by its revision");
                (self.stored, self.is_held) = (Some((**record).clone()), false);
            }
            Write::Remove => (self.stored, self.is_held) = (None, false),
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Admit { request, barred } => self.admit(request, barred),
            Op::Track(request) => self.track(request),
            Op::Checkpoint { older, expires_in } => self.checkpoint(older, expires_in),
            Op::Finish { older, end } => self.finish(older, end),
            Op::Resolve { older, answer } => self.resolve(older, answer),
            Op::Found { older, again, what } => self.found(older, again, what),
            Op::Rerun { older } => self.rerun(older),
            Op::Forget => self.forget(),
            Op::Fence => self.fence(),
            Op::Restart { recorded, clock_back } => self.restart(recorded, clock_back),
            Op::ExpirySweep if self.is_suspect() => {}
            Op::ExpirySweep => {
                if let Some(write) = self.stored.as_ref().map(|record| expire(record, at(self.now), self.tick)) {
                    self.write(&write);
                }
            }
            Op::Abandon => self.abandon(),
            Op::Acknowledge => self.acknowledge(false),
            Op::Disturb => self.acknowledge(true),
            Op::Tick(count) => self.tick += count,
            Op::Wait(millis) => self.now += millis,
            Op::Leap(millis) => self.ahead = millis,
            Op::Trust { believed } => {
                self.now += if believed { self.ahead } else { 0 };
                self.ahead = 0;
            }
            Op::Edge { which, before } => {
                let Some(record) = &self.stored else { return };
                let times = [record.expires_at, record.lapses_at, record.tombstone_until];
                let edge = times[which].map_or(0, |time| time.0.saturating_sub(T + u64::from(before)));
                self.now = self.now.max(edge);
            }
        }
    }

    fn admit(&mut self, request: usize, bar: bool) {
        self.tokens = self.tokens.wrapping_add(1);
        let admission = Admission {
            token: Token([self.tokens; 32]),
            retention: (self.policy.retention == Retention::FromRequest).then_some(RETENTION),
            ..if bar { barred(REQUESTS[request]) } else { admission(REQUESTS[request]) }
        };
        let admission = &admission;
        let (mut expected, look) = (self.predict(request, bar), self.look());
        let begins_anew = look != Look::Alive && (expected == "Start" || expected == "Failed(barred)");
        if self.live && begins_anew {
            // The operation of a record that was ended from outside still runs: one at a time.
            expected = "InDoubt".into();
        }
        let is_held = self.policy.replay_safe && self.stored.is_none();
        let step = self.decide(|| Event::Admit(admission));
        let said = show::caller(&step.caller);
        assert_eq!(said, expected);
        if said == "Start" {
            assert_eq!(matches!(step.write, Write::Hold(_)), is_held, "only what has nothing stored is held");
        }
        let bound = if admission.retention.is_some() { self.wall() + 600 } else { u64::MAX };
        let is_suspect = self.is_suspect();
        match (&mut self.life, said.as_str()) {
            (Life::Owned(owned), "Start") if look == Look::Alive => {
                assert_eq!(owned.request, request, "another request runs");
                assert_eq!(owned.phase, Phase::Doubt, "started again though nobody is in doubt");
                assert_eq!(self.policy.in_doubt, InDoubt::Rerun, "started again without leave");
                owned.starts += 1;
                owned.phase = Phase::Running;
                owned.bound = if owned.checkpointed { owned.bound } else { bound };
                self.live = true;
            }
            (life, "Start") => {
                *life = Life::Owned(Owned::begin(request, bound));
                self.live = true;
            }
            // Told at a suspect time, it may be taken back.
            (Life::Owned(_), "Expired") if is_suspect && look == Look::Expired => {}
            (Life::Owned(owned), "Expired") if look == Look::Expired => {
                owned.told_over = true;
                let (lapses, until) = self.ends(self.bound());
                if self.policy.after_expiry == AfterExpiry::RefuseOnce {
                    self.life = if until > lapses { Life::Marked { until } } else { Life::Free };
                }
            }
            (Life::Owned(owned), "Expired") => owned.told_over = true,
            (Life::Owned(owned), said) if said.starts_with("replayed") => {
                assert!(!owned.told_over, "an answer came back to life");
            }
            _ => {}
        }
        if let (Life::Owned(owned), Said::Start, Write::Put(put) | Write::Hold(put)) =
            (&self.life, &step.caller, &step.write)
        {
            assert_eq!(put.attempt.number, owned.starts, "the attempt's number is how often it was started");
        }
    }

    fn bound(&self) -> u64 {
        if let Life::Owned(owned) = &self.life { owned.bound } else { u64::MAX }
    }

    fn track(&mut self, request: Option<usize>) {
        let prints = request.map(|request| fingerprint(REQUESTS[request]));
        let (look, is_suspect) = (self.look(), self.is_suspect());
        let said = show::caller(&self.decide(|| Event::Track(prints)).caller);
        match (&mut self.life, look) {
            (Life::Owned(owned), Look::Alive | Look::Expired)
                if request.is_some_and(|request| request != owned.request) =>
            {
                assert_eq!(said, "Mismatch");
            }
            (Life::Owned(owned), Look::Alive) => {
                assert!(!owned.told_over || !said.starts_with("replayed"), "an answer came back to life");
                match &owned.phase {
                    Phase::Ended(told) => assert_eq!(&said, told),
                    Phase::Running | Phase::Dispatched => assert_eq!(said, "Wait"),
                    Phase::Doubt => assert!(["InDoubt", "RecoveriesExhausted", "Wait"].contains(&said.as_str())),
                }
            }
            (life, look) => {
                if let Life::Owned(owned) = life {
                    owned.told_over |= !(is_suspect && look == Look::Expired);
                }
                let expected = match look {
                    Look::Fenced => "Fenced",
                    Look::Marked | Look::Expired => "Expired",
                    Look::Free | Look::Alive => "NotFound",
                };
                assert_eq!(said, expected);
            }
        }
    }

    /// The attempt that speaks: the record's, or the one before it.
    fn attempt(&self, older: bool) -> AttemptId {
        let nobody = AttemptId { number: 1, boot: BootId([0; 16]), token: Token([0; 32]) };
        let attempt = self.stored.as_ref().map_or(nobody, |record| record.attempt);
        AttemptId { number: attempt.number.saturating_sub(u32::from(older)), ..attempt }
    }

    /// An attempt reports only while it runs; one that reports again finds its end recorded.
    fn can_report(&self) -> bool {
        self.live || self.stored.as_ref().is_none_or(|record| record.state.status() != Status::Registered)
    }

    fn checkpoint(&mut self, older: bool, expires_in: Option<u64>) {
        if !self.can_report() {
            return;
        }
        let (attempt, before) = (self.attempt(older), self.stored.clone());
        let expires = expires_in.map(|millis| self.now + millis);
        let expires_at = expires.map(at);
        self.decide(|| Event::Checkpoint { attempt, bytes: bytes("c"), expires_at });
        let Life::Owned(owned) = &mut self.life else { return assert_eq!(self.stored, before) };
        if older || !matches!(owned.phase, Phase::Running | Phase::Dispatched) {
            return assert_eq!(self.stored, before, "fenced off");
        }
        owned.checkpointed = true;
        owned.bound = owned.bound.min(expires.unwrap_or(u64::MAX));
    }

    fn finish(&mut self, older: bool, ending: Ending) {
        if !self.can_report() {
            return;
        }
        let (attempt, before) = (self.attempt(older), self.stored.clone());
        let stated = if let Ending::Done(_, stated) = ending { stated.map(|millis| self.now + millis) } else { None };
        let end = &match ending {
            Ending::Done(answer, _) => done_until(bytes(&answer.to_string()), stated.map(at)),
            Ending::TooLong => End::done(bytes("much too long")),
            Ending::Accepted => End::Accepted,
            Ending::AlreadyLive => End::AlreadyLive,
            Ending::Taken => End::Taken,
            Ending::Definitive => End::Definitive(reason("R")),
            Ending::Unknown => End::Unknown(reason("U")),
        };
        let step = self.decide(|| Event::Finish { attempt, end });
        if older {
            return assert_eq!(self.stored, before, "an older attempt is fenced off");
        }
        self.live = false;
        let policy = self.policy.clone();
        let Life::Owned(owned) = &mut self.life else { return };
        let attempt_ends = matches!(owned.phase, Phase::Running | Phase::Doubt)
            && matches!(ending, Ending::Done(..) | Ending::TooLong);
        let bound = owned.bound.min(stated.unwrap_or(u64::MAX));
        if attempt_ends && owned.starts > 1 && owned.checkpointed && self.now + self.ahead >= bound {
            return self.end_stale(&step, bound, ending);
        }
        match (&owned.phase, ending) {
            (Phase::Ended(_), _) => assert!(matches!(step.waiters, Release::Nobody), "one end, one release"),
            (_, Ending::Done(answer, _)) => {
                assert!(matches!(&step.waiters, Release::All(Ok(given)) if *given == bytes(&answer.to_string())));
                self.end(&format!("replayed {answer}"), stated);
            }
            (_, Ending::TooLong) => self.end("AnswerNotKept", None),
            (Phase::Dispatched, Ending::Definitive) => self.end("Duplicate(Failed)", None),
            (Phase::Dispatched, Ending::Accepted | Ending::AlreadyLive | Ending::Taken | Ending::Unknown) => {}
            (_, Ending::Accepted | Ending::AlreadyLive) => owned.phase = Phase::Dispatched,
            (_, Ending::Taken) => self.life = Life::Free,
            (_, Ending::Definitive) if policy.after_checkpoint == AfterCheckpoint::Doubt && owned.checkpointed => {
                owned.phase = Phase::Doubt;
            }
            (_, Ending::Definitive) => match policy.on_failure {
                OnFailure::Forget => self.life = Life::Free,
                OnFailure::Keep => self.end("Failed(R)", None),
            },
            (_, Ending::Unknown) => owned.doubt(),
        }
    }

    /// What a re-run made of a checkpoint after the bound is told to nobody.
    fn end_stale(&mut self, step: &Step, bound: u64, ending: Ending) {
        assert!(matches!(&step.waiters, Release::All(Err(error)) if matches!(error.kind(), ErrorKind::Expired)));
        if self.policy.after_expiry == AfterExpiry::Refuse || self.is_suspect() {
            let told = if let Ending::Done(answer, _) = ending {
                format!("replayed {answer}")
            } else {
                "AnswerNotKept".into()
            };
            return self.end(&told, Some(bound));
        }
        let (_, until) = self.ends(bound);
        self.life = if self.policy.tombstone.is_some() { Life::Marked { until } } else { Life::Free };
    }

    /// The first end, and the time until which it is told. Given up, a failure is told to nobody who comes later.
    fn end(&mut self, told: &str, stated: Option<u64>) {
        let fails = !told.starts_with("replayed") && told != "AnswerNotKept";
        if fails && matches!(&self.life, Life::Owned(owned) if owned.abandoned) {
            self.life = Life::Free;
            return;
        }
        let fixed = self.policy.retention == Retention::Fixed(RETENTION);
        let retained = if fixed { self.wall() + 600 } else { u64::MAX };
        if let Life::Owned(owned) = &mut self.life {
            owned.phase = Phase::Ended(told.into());
            owned.bound = owned.bound.min(retained).min(stated.unwrap_or(u64::MAX));
        }
    }

    fn resolve(&mut self, older: bool, answer: Option<u8>) {
        let (attempt, before) = (Some(self.attempt(older)).filter(|_| older), self.stored.clone());
        let (end, told) = match answer {
            Some(answer) => (Ended::Completed(bytes(&answer.to_string())), format!("replayed {answer}")),
            None => (Ended::Failed(bytes("R")), "Duplicate(Failed)".into()),
        };
        let end = &end;
        self.decide(|| Event::Resolve { attempt, end });
        match &self.life {
            Life::Owned(owned) if !older && !matches!(owned.phase, Phase::Ended(_)) => self.end(&told, None),
            Life::Owned(_) if !older => {}
            Life::Owned(_) | Life::Free | Life::Fenced | Life::Marked { .. } => {
                assert_eq!(self.stored, before, "nothing is created, nothing older is believed")
            }
        }
    }

    fn found(&mut self, older: bool, again: bool, what: Telling) {
        let (attempt, before) = (self.attempt(older), self.stored.clone());
        let asked_at = if let Life::Owned(owned) = &self.life { owned.recoveries } else { 0 };
        let recoveries = asked_at.saturating_sub(u8::from(again));
        let found = &match what {
            Telling::NotStarted => Found::NotStarted,
            Telling::Live => Found::Live,
            Telling::Abandoned => Found::Abandoned,
            Telling::Missing => Found::Missing,
            Telling::Done(Some(answer)) => Found::Done(Ended::Completed(bytes(&answer.to_string()))),
            Telling::Done(None) => Found::Done(Ended::Failed(bytes("R"))),
            Telling::Nothing => Found::CannotTell,
        };
        let step = self.decide(|| Event::Found { attempt, recoveries, found });
        let (ask, keep) = (self.policy.in_doubt == InDoubt::Ask, self.policy.on_failure == OnFailure::Keep);
        let Life::Owned(owned) = &mut self.life else { return assert_eq!(self.stored, before) };
        let ended = matches!(owned.phase, Phase::Ended(_));
        if older || (self.live && !ended) {
            return assert_eq!(self.stored, before, "an older attempt is fenced off, one that runs will say itself");
        }
        match (what, &mut owned.phase) {
            (_, Phase::Ended(_)) => assert!(matches!(step.waiters, Release::Nobody), "one end, one release"),
            (Telling::Done(Some(answer)), _) => self.end(&format!("replayed {answer}"), None),
            (Telling::Done(None), _) => self.end("Duplicate(Failed)", None),
            (Telling::NotStarted, _) if keep => self.end("Failed(not star)", None),
            (Telling::NotStarted, _) => self.life = Life::Free,
            (Telling::Live, phase) => *phase = Phase::Dispatched,
            (Telling::Abandoned, phase) => {
                *phase = Phase::Dispatched;
                owned.abandoned = true;
            }
            (Telling::Missing, phase) => *phase = Phase::Doubt,
            (Telling::Nothing, Phase::Doubt) if ask && recoveries == asked_at && asked_at < RERUNS => {
                owned.recoveries += 1;
                let is_last = owned.recoveries == RERUNS;
                assert_eq!(step.alarm.is_some(), is_last, "told once, and then");
                assert_eq!(matches!(step.waiters, Release::All(_)), is_last, "a dead letter lets go of who waits");
            }
            (Telling::Nothing, _) => assert_eq!(self.stored, before, "it is counted once, and not for ever"),
        }
    }

    fn rerun(&mut self, older: bool) {
        let admission = Admission {
            retention: (self.policy.retention == Retention::FromRequest).then_some(RETENTION),
            ..admission("same")
        };
        let (attempt, before, admission) = (self.attempt(older), self.stored.clone(), &admission);
        let gives_up = matches!(&self.life, Life::Owned(owned) if self.given_up(owned));
        let step = self.decide(|| Event::Rerun { attempt, admission });
        if !matches!(step.caller, Said::Start) {
            return assert_eq!(self.stored, before);
        }
        let bound = if admission.retention.is_some() { self.wall() + 600 } else { u64::MAX };
        let Life::Owned(owned) = &mut self.life else { panic!("run without a record") };
        assert!(!older && !gives_up && owned.phase == Phase::Doubt && self.policy.in_doubt == InDoubt::Rerun);
        owned.starts += 1;
        owned.phase = Phase::Running;
        owned.bound = if owned.checkpointed { owned.bound } else { bound };
        self.live = true;
    }

    fn forget(&mut self) {
        let said = show::caller(&self.decide(|| Event::Forget(&Downstream::NobodyKnows)).caller);
        if said == "Forgotten(Forgotten)" {
            let ended = matches!(&self.life, Life::Owned(owned) if matches!(owned.phase, Phase::Ended(_)));
            assert!(ended, "only what has ended is forgotten");
            let until = self.policy.tombstone.map(|_| self.wall() + 1000);
            self.life = until.map_or(Life::Free, |until| Life::Marked { until });
        } else {
            let stays =
                self.live || !matches!(&self.life, Life::Owned(owned) if matches!(owned.phase, Phase::Ended(_)));
            assert!(stays || matches!(self.look(), Look::Free | Look::Marked), "{said}");
        }
    }

    fn abandon(&mut self) {
        let before = (self.stored.clone(), self.look());
        let said = show::caller(&self.decide(|| Event::Abandon).caller);
        match &mut self.life {
            Life::Owned(owned) if !matches!(owned.phase, Phase::Ended(_)) => {
                owned.abandoned = true;
                assert!(said.starts_with("Abandoned(Marked"), "{said}");
            }
            Life::Owned(Owned { phase: Phase::Ended(told), .. }) if told.contains("Failed") => {
                let is_there = matches!(before.1, Look::Alive | Look::Expired);
                assert_eq!(said, if is_there { "Abandoned(Released)" } else { "Abandoned(NoEffect)" });
                if is_there {
                    self.life = Life::Free;
                }
            }
            Life::Owned(_) | Life::Free | Life::Fenced | Life::Marked { .. } => {
                assert_eq!((said.as_str(), &self.stored), ("Abandoned(NoEffect)", &before.0));
            }
        }
    }

    /// Or, if that is done, disturbs.
    fn acknowledge(&mut self, disturbs: bool) {
        let (before, is_there) = (self.stored.clone(), matches!(self.look(), Look::Alive | Look::Expired));
        self.decide(|| if disturbs { Event::Disturb } else { Event::Acknowledge });
        let counts = self.policy.retention == Retention::UntilAcknowledged { quiet_ticks: QUIET_TICKS };
        let after_these = self.tick + u64::from(QUIET_TICKS) + 1;
        match &mut self.life {
            Life::Owned(Owned { phase: Phase::Ended(told), released_at, .. })
                if counts && is_there && !told.contains("Failed") && disturbs == released_at.is_some() =>
            {
                *released_at = Some(after_these);
            }
            Life::Owned(_) | Life::Free | Life::Fenced | Life::Marked { .. } => {
                assert_eq!(self.stored, before, "nothing begins to count, or counts anew");
            }
        }
    }

    fn fence(&mut self) {
        let before = (self.stored.clone(), self.look());
        let said = show::caller(&self.decide(|| Event::Fence).caller);
        // One that is given up can still be resolved: the store has it until a request takes its place.
        let unended = matches!(&self.life, Life::Owned(owned) if !matches!(owned.phase, Phase::Ended(_)));
        match before {
            (_, Look::Free) if !unended && !self.live => {
                assert_eq!(said, "Fenced(Fenced)");
                self.life = Life::Fenced;
            }
            (stored, look) => {
                assert_eq!(said == "Fenced(Fenced)", look == Look::Fenced, "{said}");
                assert_eq!(self.stored, stored, "a record is found, not changed");
            }
        }
    }

    fn restart(&mut self, recorded: bool, clock_back: bool) {
        self.live = false;
        // An opening believes the clock as it is.
        self.now = if clock_back { self.mark } else { self.wall() };
        self.ahead = 0;
        if std::mem::take(&mut self.is_held) {
            // Nothing is known of it any more.
            (self.stored, self.life) = (None, Life::Free);
        }
        if let Life::Owned(owned) = &mut self.life
            && owned.phase == Phase::Running
        {
            owned.doubt();
        }
        let doubted = self.stored.as_ref().and_then(|record| interrupt(record, at(self.now)));
        if let Some(doubted) = doubted.filter(|_| recorded) {
            self.write(&Write::Put(Arc::new(doubted)));
        }
    }
}

impl Owned {
    fn begin(request: usize, bound: u64) -> Self {
        Self {
            request,
            starts: 1,
            recoveries: 0,
            checkpointed: false,
            bound,
            phase: Phase::Running,
            abandoned: false,
            released_at: None,
            told_over: false,
        }
    }

    fn doubt(&mut self) {
        if self.phase == Phase::Running {
            self.phase = Phase::Doubt;
            self.recoveries += u8::from(self.starts > 1);
        }
    }
}

fn any_policy() -> impl Strategy<Value = Policy> {
    use crate::policy::AfterExpiry::{Refuse, RefuseOnce, Rerun};
    let counted = Retention::UntilAcknowledged { quiet_ticks: QUIET_TICKS };
    let ends = (
        prop::sample::select(vec![RefuseOnce, Refuse, Rerun]),
        prop::sample::select(vec![
            Retention::FromRequest,
            Retention::Fixed(RETENTION),
            Retention::UntilForgotten,
            counted,
        ]),
        prop::sample::select(vec![Duration::ZERO, GRACE]),
        prop::option::of(Just(TOMBSTONE)),
    );
    let doubts = prop::sample::select(vec![InDoubt::Ambiguous, InDoubt::Rerun, InDoubt::Rerun, InDoubt::Ask]);
    (any::<[bool; 5]>(), doubts, ends).prop_map(|([join, replay, forget, believe, safe], in_doubt, ends)| {
        let (after_expiry, retention, grace, tombstone) = ends;
        let policy = Policy::replay(Duration::ZERO)
            .while_running(if join { WhileRunning::Join } else { WhileRunning::Refuse })
            .after_completed(if replay { AfterCompleted::Replay } else { AfterCompleted::Refuse })
            .on_failure(if forget { OnFailure::Forget } else { OnFailure::Keep })
            .after_checkpoint(if believe { AfterCheckpoint::Believe } else { AfterCheckpoint::Doubt })
            .in_doubt(in_doubt)
            .after_expiry(after_expiry)
            .retention(retention)
            .grace(grace);
        let policy = tombstone.map_or(policy.clone(), |lifetime| policy.tombstone(lifetime));
        if safe && in_doubt == InDoubt::Rerun { policy.replay_safe() } else { policy }
    })
}

fn any_op() -> impl Strategy<Value = Op> {
    let request = || prop::sample::select(vec![0, 0, 0, 1_usize]);
    let rarely = || prop::bool::weighted(0.15);
    let told = prop_oneof![
        1 => Just(Telling::NotStarted),
        1 => Just(Telling::Live),
        1 => Just(Telling::Abandoned),
        1 => Just(Telling::Missing),
        1 => prop::option::of(0..3_u8).prop_map(Telling::Done),
        3 => Just(Telling::Nothing),
    ];
    let ending = prop_oneof![
        4 => (0..3_u8, prop::option::of(0..900_u64)).prop_map(|(answer, stated)| Ending::Done(answer, stated)),
        1 => Just(Ending::TooLong),
        2 => Just(Ending::Accepted),
        1 => Just(Ending::AlreadyLive),
        1 => Just(Ending::Taken),
        1 => Just(Ending::Definitive),
        3 => Just(Ending::Unknown),
    ];
    prop_oneof![
        10 => (request(), rarely()).prop_map(|(request, barred)| Op::Admit { request, barred }),
        3 => prop::option::of(request()).prop_map(Op::Track),
        2 => (rarely(), prop::option::of(0..900_u64))
            .prop_map(|(older, expires_in)| Op::Checkpoint { older, expires_in }),
        4 => (rarely(), ending).prop_map(|(older, end)| Op::Finish { older, end }),
        1 => (rarely(), prop::option::of(0..3_u8)).prop_map(|(older, answer)| Op::Resolve { older, answer }),
        3 => (rarely(), rarely(), told).prop_map(|(older, again, what)| Op::Found { older, again, what }),
        1 => rarely().prop_map(|older| Op::Rerun { older }),
        1 => Just(Op::Forget),
        1 => Just(Op::Fence),
        2 => Just(Op::Abandon),
        3 => Just(Op::Acknowledge),
        1 => Just(Op::Disturb),
        2 => (1..3_u64).prop_map(Op::Tick),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(recorded, clock_back)| Op::Restart { recorded, clock_back }),
        1 => Just(Op::ExpirySweep),
        2 => (0..300_u64).prop_map(Op::Wait),
        2 => (1..3_000_u64).prop_map(Op::Leap),
        2 => any::<bool>().prop_map(|believed| Op::Trust { believed }),
        4 => (0..3_usize, any::<bool>()).prop_map(|(which, before)| Op::Edge { which, before }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_key_runs_once_answers_alike_and_refuses_others_in_every_random_life(
        policy in any_policy(),
        ops in prop::collection::vec(any_op(), 1..60),
    ) {
        let mut world = World::new(policy);
        for op in &ops {
            world.apply(op);
        }
    }
}
