//! Histories that never happened: the checker passes the sound one and objects to each that breaks a promise.

use std::time::Duration;

use ibid::store::Verdict;
use ibid::testing::Random;
use ibid::{
    AttemptId, BootId, Bound, Bytes, Ended, ErrorKind, Fingerprint, Found, Guard, How, InDoubt, OnStoreFailure, Record,
    Retention, Row, State, Token, UnixMillis,
};

use super::checker::{Objection, Rule, check};
use super::history::{Answer, Ask, Changed, Event, Finished, Held, Inquired, Said, Started, Submit, Way, What};
use super::plan::{Grid, Place, Plan};

mod payments;

const CLOCK: u64 = 1_000_000;

/// Says what happened, a millisecond after the other.
struct Forged {
    plan: Plan,
    events: Vec<Event>,
    clock: u64,
    tick: u64,
}

fn bytes(text: &str) -> Bytes {
    text.as_bytes().into()
}

impl Forged {
    /// One boot, one key, answers that live for ten minutes.
    fn new(set: impl FnOnce(&mut Grid)) -> Self {
        let mut grid = Grid::replay(Duration::from_secs(600));
        set(&mut grid);
        let mut plan = Plan::draw(&mut Random::new(0));
        plan.keys = vec![Place::new(0, grid)];
        plan.limits = ibid::Limits::default();
        let forged = Self { plan, events: Vec::new(), clock: CLOCK, tick: 0 };
        forged.and(What::Opening(0)).and(What::Opened(0))
    }

    fn and(mut self, what: What) -> Self {
        self.clock += 1;
        self.events.push(Event { at: self.clock - CLOCK, clock: self.clock, what });
        self
    }

    fn later(mut self, millis: u64) -> Self {
        self.clock += millis;
        self
    }

    fn asks(self, id: usize, ask: Ask) -> Self {
        let boot = self.boot();
        self.and(What::Asked { id, boot, key: 0, ask })
    }

    fn boot(&self) -> usize {
        let opened = self.events.iter().rev().find_map(|event| match event.what {
            What::Opened(boot) => Some(boot),
            _ => None,
        });
        opened.unwrap_or_default()
    }

    fn submits(self, id: usize, request: &str) -> Self {
        let request = bytes(request);
        let submit = Submit { way: Way::Submit, request, retention: None, barred: None, deadline: None };
        self.asks(id, Ask::Submit(submit))
    }

    fn told(self, id: usize, answer: Answer) -> Self {
        self.and(What::Answered { id, answer, recorded: None })
    }

    fn answer(self, id: usize, how: How, answer: &str) -> Self {
        self.told(id, Ok(Said::Answer(how, bytes(answer))))
    }

    fn refused(self, id: usize, kind: ErrorKind) -> Self {
        self.told(id, Err(kind))
    }

    fn durable(self, put: Option<Record>) -> Self {
        self.durable_with(put, Vec::new())
    }

    /// The next revision of the record, decided and committed now.
    fn durable_with(self, put: Option<Record>, rows: Vec<Row>) -> Self {
        let now = UnixMillis(self.clock + 1);
        let changes = vec![Changed { key: Some(0), put: put.map(Box::new), rows, verdict: Verdict::Applied }];
        let boot = self.boot();
        let tick = self.tick;
        self.and(What::Committed { boot, now, tick, changes })
    }

    /// What the machine would make of attempt `number` at the next commit.
    fn record(&self, revision: u64, number: u32, state: State) -> Record {
        let now = UnixMillis(self.clock + 1);
        let created = self.events.iter().find_map(|event| match &event.what {
            What::Committed { changes, .. } => changes[0].put.as_ref().map(|record| record.created_at),
            // Of what is not registered.
            What::Started(started) => Some(started.admitted_at),
            _ => None,
        });
        let retention = match self.plan.keys[0].grid.retention {
            Retention::Fixed(retention) if matches!(state, State::Completed(_)) => Some(retention),
            _ => None,
        };
        let ends = retention.map(|retention| now.saturating_add(retention));
        Record {
            revision,
            fingerprint: Fingerprint::of("flow-0", b"this"),
            request: bytes("this"),
            attempt: AttemptId { number, boot: BootId([7; 16]), token: Token([9; 32]) },
            state,
            checkpoint: None,
            recoveries: 0,
            created_at: created.unwrap_or(now),
            updated_at: now,
            expires_at: ends,
            lapses_at: ends,
            tombstone_until: None,
            contradiction: None,
            lapses_at_tick: None,
            abandoned: false,
        }
    }

    fn registered(self, revision: u64, number: u32) -> Self {
        let record = self.record(revision, number, State::Registered);
        self.durable(Some(record))
    }

    fn completed(self, revision: u64, number: u32, answer: &str) -> Self {
        let record = self.record(revision, number, State::Completed(Some(bytes(answer))));
        self.durable(Some(record))
    }

    fn starts(self, start: usize, call: usize, number: u32) -> Self {
        self.starts_as([9; 32], start, call, number)
    }

    fn starts_as(self, token: [u8; 32], start: usize, call: usize, number: u32) -> Self {
        let request = bytes("this");
        let (boot, call) = (self.boot_of(call), Some(call));
        let (boot_id, admitted_at) = (BootId([7; 16]), UnixMillis(self.clock + 1));
        self.and(What::Started(Started {
            start,
            boot,
            key: 0,
            call,
            number,
            token,
            request,
            checkpoint: None,
            boot_id,
            admitted_at,
            expires_at: None,
        }))
    }

    fn boot_of(&self, call: usize) -> usize {
        let asked = self.events.iter().find_map(|event| match event.what {
            What::Asked { id, boot, .. } if id == call => Some(boot),
            _ => None,
        });
        asked.expect("it was asked")
    }

    fn done(self, start: usize, answer: &str) -> Self {
        let end = Finished::Done { answer: bytes(answer), expires_at: None, rows: Vec::new(), otherwise: None };
        self.ends(start, end)
    }

    fn ends(self, start: usize, end: Finished) -> Self {
        self.and(What::Ended { start, end })
    }

    /// A second boot, after a crash of the first.
    fn crashes(self) -> Self {
        self.and(What::Crashed(0)).and(What::Opening(1)).and(What::Opened(1))
    }

    /// Request 1 has been answered: everything was in order.
    fn executed(set: impl FnOnce(&mut Grid)) -> Self {
        let running = Self::new(set).submits(1, "this").registered(1, 1).starts(2, 1, 1);
        running.done(2, "answer").completed(2, 1, "answer").answer(1, How::Executed, "answer")
    }

    /// Request 1 has ended unknown, in a flow whose oracle is asked.
    fn doubted() -> Self {
        let running = Self::new(|grid| (grid.in_doubt, grid.recovers) = (InDoubt::Ask, true));
        let running = running.submits(1, "this").registered(1, 1).starts(2, 1, 1);
        let ended = running.ends(2, Finished::Unknown(bytes("lost")));
        let record = ended.record(2, 1, State::InDoubt);
        let reason = ibid::Reason::from_bytes(*b"lost");
        ended.durable(Some(record)).refused(1, ErrorKind::InDoubt(Some(reason)))
    }

    fn inquired(self, inquiry: usize) -> Self {
        let (boot, request, status) = (self.boot(), bytes("this"), ibid::Status::InDoubt);
        let (number, token, checkpoint) = (1, [9; 32], None);
        self.and(What::Inquired(Inquired { inquiry, boot, key: 0, number, token, request, checkpoint, status }))
    }

    fn hears(self, inquiry: usize, found: Found) -> Self {
        self.and(What::Heard { inquiry, found: Some(found) })
    }

    fn becomes(self, revision: u64, recoveries: u8, state: State) -> Self {
        let record = Record { recoveries, ..self.record(revision, 1, state) };
        self.durable(Some(record))
    }

    fn passes(self) {
        check(&self.plan, &self.events).expect("nothing is wrong with it");
    }

    fn breaks(self, expected: Rule) {
        match check(&self.plan, &self.events) {
            Ok(_) => panic!("{expected:?} was broken, and nobody objects"),
            Err(Objection { rule, why, .. }) => assert_eq!(rule, expected, "{why}"),
        }
    }
}

fn as_preset(_: &mut Grid) {}

#[test]
fn sound_histories_pass() {
    Forged::executed(as_preset).submits(3, "this").answer(3, How::Replayed, "answer").passes();
    let crashed = Forged::executed(as_preset).crashes().submits(3, "this").answer(3, How::Replayed, "answer");
    crashed.submits(4, "that").refused(4, ErrorKind::Mismatch).passes();
    let joined = Forged::new(as_preset).submits(1, "this").registered(1, 1).submits(3, "this").starts(2, 1, 1);
    let joined = joined.done(2, "answer").completed(2, 1, "answer");
    joined.answer(3, How::Joined, "answer").answer(1, How::Executed, "answer").passes();
}

#[test]
fn a_second_start_is_objected_to() {
    let running = || Forged::new(as_preset).submits(1, "this").registered(1, 1).starts(2, 1, 1);
    running().done(2, "answer").starts(3, 1, 1).breaks(Rule::StartedTwice);
    running().starts(3, 1, 1).breaks(Rule::TwoAtOnce);
    // Registered anew while the record lives.
    Forged::executed(as_preset).submits(3, "this").registered(3, 1).breaks(Rule::NoCause);
    // Run again where the policy does not say so; where it does; and with another number than the next.
    let doubted = |in_doubt: InDoubt| {
        let crashed = Forged::new(|grid| grid.in_doubt = in_doubt).submits(1, "this").registered(1, 1).starts(2, 1, 1);
        crashed.crashes().submits(3, "this")
    };
    doubted(InDoubt::Ambiguous).registered(2, 2).breaks(Rule::NoCause);
    doubted(InDoubt::Rerun).registered(2, 3).breaks(Rule::NoCause);
    doubted(InDoubt::Rerun).registered(2, 2).starts(4, 3, 2).passes();
}

#[test]
fn a_start_before_its_registration_is_objected_to() {
    Forged::new(as_preset).submits(1, "this").starts(2, 1, 1).breaks(Rule::StartedEarly);
    let other = Forged::new(as_preset).submits(1, "this").registered(1, 1);
    other.starts(2, 1, 2).breaks(Rule::StartedEarly);
    // What was asked for only later did not ask for this.
    Forged::new(as_preset).registered(1, 1).breaks(Rule::NoCause);
    Forged::new(as_preset).submits(1, "that").registered(1, 1).breaks(Rule::NoCause);
}

#[test]
fn without_a_registration_a_crash_forgets_what_has_no_durable_end_and_nothing_else() {
    let safe = |grid: &mut Grid| (grid.in_doubt, grid.replay_safe) = (InDoubt::Rerun, true);
    let running = || Forged::new(safe).submits(1, "this").starts(2, 1, 1);
    let ended = || running().done(2, "answer");
    let answered = || ended().completed(2, 1, "answer").answer(1, How::Executed, "answer");
    answered().submits(3, "this").answer(3, How::Replayed, "answer").passes();
    running().submits(3, "that").refused(3, ErrorKind::Mismatch).passes();
    running().crashes().submits(3, "this").starts_as([8; 32], 4, 3, 1).passes();
    ended().crashes().submits(3, "this").starts_as([8; 32], 4, 3, 1).passes();

    running().crashes().submits(3, "this").starts(4, 3, 1).breaks(Rule::StartedTwice);
    running().crashes().submits(3, "this").starts_as([8; 32], 4, 3, 2).breaks(Rule::StartedEarly);
    answered().crashes().submits(3, "this").starts_as([8; 32], 4, 3, 1).breaks(Rule::StartedEarly);
    running().submits(3, "this").starts_as([8; 32], 4, 3, 1).breaks(Rule::TwoAtOnce);
    Forged::new(safe).submits(1, "that").starts(2, 1, 1).breaks(Rule::StartedEarly);
    Forged::new(safe).submits(1, "this").registered(1, 1).breaks(Rule::NoCause);
    ended().answer(1, How::Executed, "answer").breaks(Rule::WrongAnswer);
    ended().completed(1, 1, "answer").breaks(Rule::NoCause);
    ended().completed(2, 1, "another").breaks(Rule::NoCause);
    ended().crashes().submits(3, "this").answer(3, How::Replayed, "answer").breaks(Rule::WrongAnswer);
    ended().crashes().completed(2, 1, "answer").breaks(Rule::NoCause);
    running().asks(3, Ask::Lookup).told(3, Ok(Said::Record(None))).passes();
    let shown = running();
    let record = shown.record(1, 1, State::Registered);
    shown.asks(3, Ask::Lookup).told(3, Ok(Said::Record(Some(Box::new(record))))).breaks(Rule::WrongAnswer);
}

#[test]
fn an_answer_before_its_commit_or_another_one_is_objected_to() {
    let ended = || Forged::new(as_preset).submits(1, "this").registered(1, 1).starts(2, 1, 1).done(2, "answer");
    ended().answer(1, How::Executed, "answer").breaks(Rule::WrongAnswer);
    ended().completed(2, 1, "another").breaks(Rule::NoCause);
    Forged::executed(as_preset).submits(3, "this").answer(3, How::Replayed, "another").breaks(Rule::WrongAnswer);
    Forged::executed(as_preset).submits(3, "this").answer(3, How::Executed, "answer").breaks(Rule::WrongAnswer);
    Forged::executed(as_preset).submits(3, "that").answer(3, How::Replayed, "answer").breaks(Rule::WrongAnswer);
    Forged::executed(as_preset).submits(3, "this").refused(3, ErrorKind::Mismatch).breaks(Rule::WrongAnswer);
    Forged::executed(as_preset).asks(3, Ask::Track(None)).refused(3, ErrorKind::NotFound).breaks(Rule::WrongAnswer);
    Forged::executed(as_preset).submits(3, "this").refused(3, ErrorKind::Expired).breaks(Rule::WrongAnswer);
    Forged::executed(as_preset)
        .submits(3, "this")
        .refused(3, ErrorKind::Busy { bound: Bound::Engine, found_absent: false })
        .breaks(Rule::WrongAnswer);
    Forged::executed(as_preset).submits(3, "this").refused(3, ErrorKind::Store).breaks(Rule::WrongAnswer);
    Forged::executed(as_preset).answer(1, How::Executed, "answer").breaks(Rule::WrongAnswer);
}

#[test]
fn a_definitive_refusal_of_what_ran_is_objected_to() {
    let lost = Forged::new(as_preset).submits(1, "this").registered(1, 1).starts(2, 1, 1).ends(2, Finished::Lost);
    let in_doubt = lost.record(2, 1, State::InDoubt);
    let lost = lost.durable(Some(in_doubt));
    let reason = ibid::Reason::from_bytes(*b"surely nothing");
    lost.refused(1, ErrorKind::Failed(reason)).breaks(Rule::NotDefinitive);
    Forged::executed(as_preset).submits(3, "this").refused(3, ErrorKind::Fenced).breaks(Rule::NotDefinitive);
    Forged::executed(as_preset).submits(3, "this").refused(3, ErrorKind::QuotaExceeded).breaks(Rule::NotDefinitive);
}

#[test]
fn a_record_that_goes_too_early_is_objected_to() {
    Forged::executed(as_preset).durable(None).breaks(Rule::NoCause);
    Forged::executed(as_preset).later(599_900).durable(None).breaks(Rule::NoCause);
    Forged::executed(as_preset).later(600_100).durable(None).passes();
    Forged::executed(as_preset).asks(3, Ask::Forget).durable(None).passes();
    // In flight, it goes for nobody.
    let running = Forged::new(as_preset).submits(1, "this").registered(1, 1).starts(2, 1, 1);
    running.asks(3, Ask::Forget).durable(None).breaks(Rule::NoCause);
}

#[test]
fn an_expiry_that_sticks_or_is_not_durable_is_objected_to() {
    let expired = || {
        let refuses = Forged::executed(|grid| {
            grid.after_expiry = ibid::AfterExpiry::RefuseOnce;
            grid.grace = Duration::ZERO;
        });
        refuses.later(600_100)
    };
    // It has lapsed, and nothing durable says how late it is.
    expired().asks(3, Ask::Track(None)).refused(3, ErrorKind::NotFound).breaks(Rule::WrongAnswer);
    expired().submits(3, "this").durable(None).refused(3, ErrorKind::Expired).breaks(Rule::WrongAnswer);
}

#[test]
fn whoever_waits_for_ever_and_whatever_is_left_is_objected_to() {
    Forged::new(as_preset).submits(1, "this").and(What::Rested { boot: 0 }).breaks(Rule::NoAnswer);
    let running = Forged::new(as_preset).submits(1, "this").registered(1, 1).starts(2, 1, 1);
    running.and(What::Left { id: 1 }).and(What::Rested { boot: 0 }).breaks(Rule::NoAnswer);
    let deadline = Some(Duration::from_millis(50));
    let submit = Submit { way: Way::Submit, request: bytes("this"), retention: None, barred: None, deadline };
    let late = Forged::new(as_preset).asks(1, Ask::Submit(submit)).later(100);
    late.refused(1, ErrorKind::Deadline).breaks(Rule::NoAnswer);
    for held in [
        Held { live_actors: 1, ..Held::default() },
        Held { running: 1, ..Held::default() },
        Held { in_flight: 1, ..Held::default() },
        Held { died_actors: 1, ..Held::default() },
    ] {
        Forged::executed(as_preset).and(What::Empty { boot: 0, held }).breaks(Rule::Leak);
    }
}

#[test]
fn what_comes_of_an_inquiry_without_its_answer_is_objected_to() {
    let told = |found: Found| Forged::doubted().inquired(3).hears(3, found);
    told(Found::Live).becomes(3, 0, State::Dispatched).passes();
    told(Found::NotStarted).durable(None).passes();
    let end = Found::Done(Ended::Completed(bytes("end")));
    told(end.clone()).completed(3, 1, "end").passes();
    told(Found::CannotTell).becomes(3, 1, State::InDoubt).passes();
    // Not asked, not answered, answered otherwise, answered and used up.
    Forged::doubted().becomes(3, 0, State::Dispatched).breaks(Rule::NoCause);
    Forged::doubted().inquired(3).durable(None).breaks(Rule::NoCause);
    told(Found::CannotTell).becomes(3, 0, State::Dispatched).breaks(Rule::NoCause);
    told(Found::Live).durable(None).breaks(Rule::NoCause);
    told(end).completed(3, 1, "another").breaks(Rule::NoCause);
    told(Found::CannotTell).becomes(3, 1, State::InDoubt).becomes(4, 2, State::InDoubt).breaks(Rule::NoCause);
    told(Found::CannotTell).becomes(3, 2, State::InDoubt).breaks(Rule::NoCause);
    // Whatever it says, nothing runs again.
    told(Found::NotStarted).submits(4, "this").registered(3, 2).breaks(Rule::NoCause);
    // It has been said, and nothing has come of it.
    told(Found::Live).later(1_000).and(What::Rested { boot: 0 }).breaks(Rule::NoAnswer);
    Forged::doubted().later(1_000).and(What::Rested { boot: 0 }).breaks(Rule::NoAnswer);
}

#[test]
fn an_inquiry_too_many_too_soon_or_too_long_is_objected_to() {
    Forged::doubted().inquired(3).inquired(4).breaks(Rule::TwoAtOnce);
    let silent = || Forged::doubted().inquired(3).hears(3, Found::CannotTell).becomes(3, 1, State::InDoubt);
    silent().inquired(4).breaks(Rule::Bound);
    silent().later(1_000).inquired(4).passes();
    Forged::doubted().inquired(3).later(5_100).hears(3, Found::Live).breaks(Rule::NoAnswer);
    let running = Forged::new(|grid| (grid.in_doubt, grid.recovers) = (InDoubt::Ask, true));
    let running = running.submits(1, "this").registered(1, 1).starts(2, 1, 1);
    running.inquired(3).breaks(Rule::TwoAtOnce);
    Forged::executed(|grid| (grid.in_doubt, grid.recovers) = (InDoubt::Ask, true)).inquired(3).breaks(Rule::NoCause);
    Forged::executed(as_preset).inquired(3).breaks(Rule::NoCause);
}

#[test]
fn a_dead_letter_before_its_time_and_a_tracker_left_waiting_for_one_are_objected_to() {
    let dead = |allowed: u8| {
        let mut silent = Forged::doubted();
        silent.plan.limits.recoveries = allowed;
        silent.asks(4, Ask::Track(None)).inquired(3).hears(3, Found::CannotTell).becomes(3, 1, State::InDoubt)
    };
    for allowed in [0, 1] {
        dead(allowed).refused(4, ErrorKind::RecoveriesExhausted).passes();
        dead(allowed).and(What::Rested { boot: 0 }).breaks(Rule::NoAnswer);
    }
    dead(2).refused(4, ErrorKind::RecoveriesExhausted).breaks(Rule::WrongAnswer);
    let mut unasked = Forged::doubted();
    unasked.plan.limits.recoveries = 0;
    unasked.asks(4, Ask::Track(None)).refused(4, ErrorKind::RecoveriesExhausted).breaks(Rule::WrongAnswer);
}

#[test]
fn a_re_run_that_nobody_asks_for_is_objected_to_but_where_the_engine_is_to_make_it() {
    let crashed = |recovers: bool| {
        let running = Forged::new(|grid| (grid.in_doubt, grid.recovers) = (InDoubt::Rerun, recovers));
        running.submits(1, "this").registered(1, 1).starts(2, 1, 1).crashes()
    };
    let again = |forged: Forged, number| {
        let (token, request) = ([9; 32], bytes("this"));
        forged.and(What::Started(Started {
            start: 3,
            boot: 1,
            key: 0,
            call: None,
            number,
            token,
            request,
            checkpoint: None,
            boot_id: BootId([7; 16]),
            admitted_at: UnixMillis(CLOCK),
            expires_at: None,
        }))
    };
    again(crashed(true).registered(2, 2), 2).passes();
    crashed(false).registered(2, 2).breaks(Rule::NoCause);
    crashed(true).registered(2, 3).breaks(Rule::NoCause);
    again(crashed(true), 2).breaks(Rule::StartedEarly);
    again(crashed(true).registered(2, 2), 3).breaks(Rule::StartedEarly);
}

#[test]
fn an_answer_that_is_not_durable_is_objected_to_but_by_name_and_after_all_tries() {
    let failed = |policy: OnStoreFailure, times: usize| {
        let running = Forged::new(|grid| grid.on_store_failure = policy);
        let ended = running.submits(1, "this").registered(1, 1).starts(2, 1, 1).done(2, "answer");
        (0..times).fold(ended, |ended, _| ended.and(What::StoreFailed(0)))
    };
    let told = || failed(OnStoreFailure::Reply, 5).answer(1, How::Executed, "answer");
    told().submits(3, "this").answer(3, How::Replayed, "answer").passes();
    told().submits(3, "this").answer(3, How::Replayed, "another").breaks(Rule::WrongAnswer);
    told().submits(3, "that").answer(3, How::Replayed, "answer").breaks(Rule::WrongAnswer);
    failed(OnStoreFailure::Reply, 4).answer(1, How::Executed, "answer").breaks(Rule::WrongAnswer);
    failed(OnStoreFailure::Withhold, 5).answer(1, How::Executed, "answer").breaks(Rule::WrongAnswer);
    failed(OnStoreFailure::Reply, 5).answer(1, How::Executed, "another").breaks(Rule::WrongAnswer);
    // The process dies first: in doubt, and nobody is given an answer any more.
    told().crashes().submits(3, "this").answer(3, How::Replayed, "answer").breaks(Rule::WrongAnswer);
    told().crashes().submits(3, "this").refused(3, ErrorKind::InDoubt(None)).passes();
}

#[test]
fn a_time_that_goes_back_is_objected_to() {
    let read = |boot, now| What::Now { boot, now: UnixMillis(now) };
    let once = || Forged::new(as_preset).and(read(0, CLOCK + 3));
    once().and(read(0, CLOCK + 4)).passes();
    once().and(read(0, CLOCK + 2)).breaks(Rule::Time);
    once().and(read(0, CLOCK + 900)).breaks(Rule::Time);
}

#[test]
fn what_happens_after_the_end_is_objected_to() {
    let registered = Forged::new(as_preset).submits(1, "this").registered(1, 1);
    registered.crashes().starts(2, 1, 1).breaks(Rule::AfterTheEnd);
    let crashed = Forged::new(as_preset).submits(1, "this").and(What::Crashed(0));
    crashed.registered(1, 1).breaks(Rule::AfterTheEnd);
}

#[test]
fn rows_without_their_completion_are_objected_to() {
    let row = || Row::new("claims", *b"claim", *b"taken").unwrap().guard(Guard::Absent);
    let ended = || {
        let running = Forged::new(as_preset).submits(1, "this").registered(1, 1).starts(2, 1, 1);
        let rows = vec![row()];
        running.ends(2, Finished::Done { answer: bytes("answer"), expires_at: None, rows, otherwise: None })
    };
    let completed = |rows: Vec<Row>| {
        let ended = ended();
        let record = ended.record(2, 1, State::Completed(Some(bytes("answer"))));
        ended.durable_with(Some(record), rows)
    };
    completed(vec![row()]).passes();
    completed(Vec::new()).breaks(Rule::Ledger);
    completed(vec![row(), row()]).breaks(Rule::Ledger);
}

#[test]
fn a_bound_that_is_passed_is_objected_to() {
    let mut full = Forged::new(as_preset).submits(1, "this");
    full.plan.limits.records_per_scope = 0;
    full.registered(1, 1).breaks(Rule::Bound);
}
