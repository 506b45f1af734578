//! The same for payments and onions: what gives a key free, what does not, and what is told of it.

use ibid::{Abandoned, Acknowledged, Forgotten, Origin, Resolved, Status};

use super::super::history::Inquired;
use super::*;

fn payment(grid: &mut Grid) {
    *grid = Grid { recovers: true, ..Grid::send_payment() };
}

impl Forged {
    /// Request 1 runs, as start 2.
    fn paying() -> Self {
        Self::new(payment).submits(1, "this").registered(1, 1).starts(2, 1, 1)
    }

    /// And has come to this; the caller has been told so.
    fn paid() -> Self {
        Self::paying().done(2, "answer").completed(2, 1, "answer").answer(1, How::Executed, "answer")
    }

    fn dispatched() -> Self {
        let ended = Self::paying().ends(2, Finished::Accepted);
        ended.becomes(2, 0, State::Dispatched).told(1, Ok(Said::Accepted))
    }

    /// The last record that is durable, one revision on.
    fn next(&self, change: impl FnOnce(&mut Record)) -> Record {
        let last = self.events.iter().rev().find_map(|event| match &event.what {
            What::Committed { changes, .. } => changes.first().and_then(|changed| changed.put.as_deref().cloned()),
            _ => None,
        });
        let mut record = last.expect("something is durable");
        record.revision += 1;
        record.updated_at = UnixMillis(self.clock + 1);
        change(&mut record);
        record
    }

    fn changes(self, change: impl FnOnce(&mut Record)) -> Self {
        let record = self.next(change);
        self.durable(Some(record))
    }

    /// It is acknowledged, and its ticks are counted.
    fn acknowledged(self) -> Self {
        let last = Some(self.tick + 8);
        let counting = self.asks(70, Ask::Acknowledge).changes(|record| record.lapses_at_tick = last);
        counting.told(70, Ok(Said::Acknowledged(Acknowledged::Counting)))
    }

    fn marked(self) -> Self {
        let marked = self.asks(71, Ask::Abandon).changes(|record| record.abandoned = true);
        let status = marked.next(|_| ()).state.status();
        marked.told(71, Ok(Said::Abandoned(Abandoned::Marked(status))))
    }

    /// So many ticks, all of them durable.
    fn ticks(self, count: usize) -> Self {
        (0..count).fold(self, |mut forged, _| {
            forged.tick += 1;
            let id = 1_000 + forged.events.len();
            let (now, boot, tick) = (UnixMillis(forged.clock + 2), forged.boot(), forged.tick);
            let ticked = forged.asks(id, Ask::Tick);
            ticked.and(What::Committed { boot, now, tick, changes: Vec::new() }).told(id, Ok(Said::Ticked))
        })
    }

    fn duplicate(self, id: usize, status: Status, recorded: Option<Ended>) -> Self {
        self.and(What::Answered { id, answer: Err(ErrorKind::Duplicate(status)), recorded })
    }

    /// Another request, under the same key: another record.
    fn runs_anew(self) -> Self {
        let record = self.record(1, 1, State::Registered);
        let attempt = AttemptId { token: Token([5; 32]), ..record.attempt };
        let now = UnixMillis(self.clock + 2);
        let revision = 1 + self.stored_revision();
        let record = Record { attempt, revision, created_at: now, updated_at: now, ..record };
        self.submits(80, "this").durable(Some(record))
    }

    fn stored_revision(&self) -> u64 {
        let last = self.events.iter().rev().find_map(|event| match &event.what {
            What::Committed { changes, .. } => changes.first().map(|changed| changed.put.as_deref()),
            _ => None,
        });
        last.flatten().map_or(0, |record| record.revision)
    }

    fn asked_about(self, inquiry: usize, status: Status) -> Self {
        let (boot, request) = (self.boot(), bytes("this"));
        let (number, token, checkpoint) = (1, [9; 32], None);
        self.and(What::Inquired(Inquired { inquiry, boot, key: 0, number, token, request, checkpoint, status }))
    }
}

fn sent() -> Option<Ended> {
    Some(Ended::Completed(bytes("answer")))
}

#[test]
fn a_release_before_the_eighth_quiet_tick_is_objected_to() {
    let counted = |ticks| Forged::paid().acknowledged().ticks(ticks);
    counted(7).submits(3, "this").duplicate(3, Status::Completed, sent()).passes();
    counted(8).runs_anew().passes();
    counted(8).durable(None).runs_anew().passes();
    counted(7).runs_anew().breaks(Rule::NoCause);
    counted(7).durable(None).breaks(Rule::NoCause);
    Forged::paid().ticks(40).durable(None).breaks(Rule::NoCause);
    // What is released is no duplicate any more.
    counted(8).submits(3, "this").duplicate(3, Status::Completed, sent()).breaks(Rule::WrongAnswer);
    counted(8).asks(3, Ask::Track(None)).refused(3, ErrorKind::NotFound).passes();
    counted(7).asks(3, Ask::Track(None)).refused(3, ErrorKind::NotFound).breaks(Rule::WrongAnswer);
    // No clock releases it.
    Forged::paid().acknowledged().later(1_000_000_000).durable(None).breaks(Rule::NoCause);
}

#[test]
fn a_count_that_begins_where_nobody_said_so_or_too_early_is_objected_to() {
    let counting = |from: u64| move |record: &mut Record| record.lapses_at_tick = Some(from + 8);
    Forged::paid().ticks(3).changes(counting(3)).breaks(Rule::NoCause);
    let asked = |ask: Ask| Forged::paid().ticks(3).asks(3, ask);
    asked(Ask::Acknowledge).changes(counting(3)).passes();
    asked(Ask::Acknowledge).changes(counting(2)).breaks(Rule::NoCause);
    asked(Ask::Disturb).changes(counting(3)).breaks(Rule::NoCause);
    asked(Ask::Acknowledge).told(3, Ok(Said::Acknowledged(Acknowledged::Counting))).breaks(Rule::WrongAnswer);
    // Disturbed, it begins anew.
    let disturbed = || Forged::paid().acknowledged().ticks(5).asks(3, Ask::Disturb);
    disturbed().changes(counting(5)).passes();
    disturbed().changes(counting(4)).breaks(Rule::NoCause);
    disturbed().told(3, Ok(Said::Acknowledged(Acknowledged::Counting))).breaks(Rule::WrongAnswer);
    // Said again, an acknowledgement changes nothing.
    let again = Forged::paid().acknowledged().ticks(5).asks(3, Ask::Acknowledge);
    again.changes(counting(5)).breaks(Rule::NoCause);
}

#[test]
fn a_tick_that_is_not_durable_or_has_not_been_is_objected_to() {
    Forged::paid().asks(3, Ask::Tick).told(3, Ok(Said::Ticked)).breaks(Rule::WrongAnswer);
    let mut early = Forged::paid();
    early.tick = 1;
    early.acknowledged().breaks(Rule::Ticks);
    // Four ticks were lost with their process: they do not count.
    let crashed = |lost: usize| {
        let counted = Forged::paid().acknowledged().ticks(4);
        let ticking = (0..lost).fold(counted, |counted, number| counted.asks(300 + number, Ask::Tick));
        ticking.crashes().ticks(4)
    };
    crashed(0).durable(None).passes();
    let mut hastened = crashed(4);
    hastened.tick = 12;
    hastened.durable(None).breaks(Rule::Ticks);
    let fewer = Forged::paid().acknowledged().asks(3, Ask::Tick).crashes().ticks(7);
    fewer.durable(None).breaks(Rule::NoCause);
}

#[test]
fn a_mark_that_is_lost_or_comes_of_nothing_is_objected_to() {
    let dispatches = |record: &mut Record| record.state = State::Dispatched;
    let marked = || Forged::paying().marked().ends(2, Finished::Accepted);
    marked().changes(dispatches).told(1, Ok(Said::Accepted)).passes();
    let loses = |record: &mut Record| (record.state, record.abandoned) = (State::Dispatched, false);
    marked().changes(loses).breaks(Rule::NoCause);
    Forged::dispatched().changes(|record| record.abandoned = true).breaks(Rule::NoCause);
    let told = Ok(Said::Abandoned(Abandoned::Marked(Status::Dispatched)));
    Forged::dispatched().asks(3, Ask::Abandon).told(3, told).breaks(Rule::WrongAnswer);
    // Given up there, says the oracle.
    let missing = |found: Found| Forged::dispatched().asked_about(3, Status::Dispatched).hears(3, found);
    missing(Found::Abandoned).changes(|record| record.abandoned = true).passes();
    missing(Found::Live).changes(|record| record.abandoned = true).breaks(Rule::NoCause);
}

#[test]
fn a_failure_that_frees_no_key_or_the_wrong_one_is_objected_to() {
    let failed = |forged: Forged| {
        let end = Ended::Failed(bytes("no route"));
        forged.asks(3, Ask::Resolve { attempt: None, end })
    };
    let kept = |record: &mut Record| record.state = State::Failed(Origin::Resolved, bytes("no route"));
    let recorded = || Ok(Said::Resolved(Resolved::Recorded));
    failed(Forged::dispatched()).changes(kept).told(3, recorded()).passes();
    failed(Forged::dispatched().marked()).changes(kept).breaks(Rule::NoCause);
    failed(Forged::dispatched().marked()).durable(None).told(3, recorded()).runs_anew().passes();
    failed(Forged::dispatched()).durable(None).breaks(Rule::NoCause);
    // Given up after it had failed; and not given up at all.
    let over = || failed(Forged::dispatched()).changes(kept).told(3, recorded());
    let released = || Ok(Said::Abandoned(Abandoned::Released));
    over().asks(4, Ask::Abandon).durable(None).told(4, released()).runs_anew().passes();
    over().asks(4, Ask::Abandon).told(4, released()).breaks(Rule::WrongAnswer);
    over().durable(None).breaks(Rule::NoCause);
    over().runs_anew().breaks(Rule::NoCause);
    over().ticks(40).durable(None).breaks(Rule::NoCause);
    // A success stays.
    Forged::paid().asks(4, Ask::Abandon).durable(None).breaks(Rule::NoCause);
    let marked = Forged::paying().marked().done(2, "answer");
    marked.changes(|record| record.state = State::Completed(Some(bytes("answer")))).passes();
}

#[test]
fn what_downstream_has_already_and_what_it_has_for_another_are_told_apart() {
    let live = || Forged::paying().ends(2, Finished::AlreadyLive).becomes(2, 0, State::Dispatched);
    live().duplicate(1, Status::Dispatched, None).passes();
    live().told(1, Ok(Said::Accepted)).breaks(Rule::WrongAnswer);
    let accepted = Forged::paying().ends(2, Finished::Accepted).becomes(2, 0, State::Dispatched);
    accepted.duplicate(1, Status::Dispatched, None).breaks(Rule::WrongAnswer);
    let taken = || Forged::paying().ends(2, Finished::Taken);
    taken().durable(None).refused(1, ErrorKind::Mismatch).passes();
    taken().refused(1, ErrorKind::Mismatch).breaks(Rule::WrongAnswer);
    taken().becomes(2, 0, State::Dispatched).breaks(Rule::NoCause);
    let reason = State::Failed(Origin::RolledBack, bytes("taken"));
    taken().becomes(2, 0, reason).breaks(Rule::NoCause);
    let definitive = ErrorKind::Failed(ibid::Reason::from_bytes(*b"taken"));
    taken().durable(None).refused(1, definitive).breaks(Rule::NotDefinitive);
}

#[test]
fn an_end_of_another_record_is_objected_to() {
    let resolves = |token: u8, number: u32| {
        let attempt = Some(AttemptId { number, boot: BootId([0; 16]), token: Token([token; 32]) });
        Forged::dispatched().asks(3, Ask::Resolve { attempt, end: Ended::Completed(bytes("sent")) })
    };
    let completes = |record: &mut Record| record.state = State::Completed(Some(bytes("sent")));
    resolves(9, 1).changes(completes).passes();
    resolves(5, 1).changes(completes).breaks(Rule::NoCause);
    resolves(9, 2).changes(completes).breaks(Rule::NoCause);
    let fenced_off = || Ok(Said::Resolved(Resolved::FencedOff));
    resolves(5, 1).told(3, fenced_off()).passes();
    resolves(9, 1).told(3, fenced_off()).breaks(Rule::WrongAnswer);
}

#[test]
fn what_is_missing_is_in_doubt_and_what_never_started_is_rolled_back() {
    let told = |found: Found| Forged::dispatched().asked_about(3, Status::Dispatched).hears(3, found);
    let doubts =
        |recoveries: u8| move |record: &mut Record| (record.state, record.recoveries) = (State::InDoubt, recoveries);
    told(Found::Missing).changes(doubts(0)).passes();
    told(Found::Missing).changes(doubts(1)).breaks(Rule::NoCause);
    told(Found::CannotTell).changes(doubts(0)).breaks(Rule::NoCause);
    let fails = |origin: Origin| move |record: &mut Record| record.state = State::Failed(origin, bytes("not started"));
    told(Found::Missing).changes(fails(Origin::RolledBack)).breaks(Rule::NoCause);
    told(Found::NotStarted).changes(fails(Origin::RolledBack)).passes();
    told(Found::NotStarted).changes(fails(Origin::Resolved)).breaks(Rule::NoCause);
    // In doubt it does not count towards a dead letter.
    let doubted = told(Found::Missing).changes(doubts(0)).later(1_000).asked_about(4, Status::InDoubt);
    doubted.hears(4, Found::Missing).changes(doubts(1)).breaks(Rule::NoCause);
}

#[test]
fn what_is_forgotten_while_it_is_live_downstream_is_objected_to() {
    let told = |found: Found| {
        let asked = Forged::paid().asks(3, Ask::Forget).asked_about(4, Status::Completed);
        asked.hears(4, found)
    };
    let said = |forgotten| Ok(Said::Forgotten(forgotten));
    told(Found::NotStarted).durable(None).told(3, said(Forgotten::Forgotten)).passes();
    told(Found::Done(Ended::Completed(bytes("x")))).durable(None).passes();
    for found in [Found::Live, Found::Abandoned, Found::Missing, Found::CannotTell] {
        told(found.clone()).told(3, said(Forgotten::Live)).passes();
        told(found).durable(None).breaks(Rule::NoCause);
    }
    told(Found::NotStarted).told(3, said(Forgotten::Live)).breaks(Rule::WrongAnswer);
    Forged::paid().asks(3, Ask::Forget).durable(None).breaks(Rule::NoCause);
    Forged::paid().asked_about(4, Status::Completed).breaks(Rule::NoCause);
}

#[test]
fn a_duplicate_without_its_end_or_with_another_is_objected_to() {
    let told = |recorded| Forged::paid().submits(3, "this").duplicate(3, Status::Completed, recorded);
    told(sent()).passes();
    told(None).breaks(Rule::WrongAnswer);
    told(Some(Ended::Completed(bytes("another")))).breaks(Rule::WrongAnswer);
    told(Some(Ended::Failed(bytes("answer")))).breaks(Rule::WrongAnswer);
    Forged::dispatched().submits(3, "this").duplicate(3, Status::Dispatched, sent()).breaks(Rule::WrongAnswer);
}

#[test]
fn rows_of_no_record_that_nobody_wants_or_that_are_told_wrong_are_objected_to() {
    let row = || Row::new("claims", *b"claim", *b"mine").unwrap().guard(Guard::Absent);
    let written = |forged: Forged, verdict: Verdict| {
        let changes = vec![Changed { key: None, put: None, rows: vec![row()], verdict }];
        let (boot, now, tick) = (forged.boot(), UnixMillis(forged.clock + 1), forged.tick);
        forged.and(What::Committed { boot, now, tick, changes })
    };
    let asked = || Forged::new(payment).asks(1, Ask::Rows(row()));
    written(asked(), Verdict::Applied).told(1, Ok(Said::Rows(true))).passes();
    written(asked(), Verdict::Guarded).told(1, Ok(Said::Rows(false))).passes();
    written(asked(), Verdict::Applied).told(1, Ok(Said::Rows(false))).breaks(Rule::WrongAnswer);
    written(asked(), Verdict::Guarded).told(1, Ok(Said::Rows(true))).breaks(Rule::WrongAnswer);
    written(Forged::new(payment), Verdict::Applied).breaks(Rule::Ledger);
    written(written(asked(), Verdict::Applied), Verdict::Applied).breaks(Rule::Ledger);
}
