//! The edges, as sentences: one key, driven through its life by hand.

use super::*;
use crate::error::ErrorKind;
use crate::inquiry::Found;
use crate::ledger::{Guard, Row};
use crate::machine::tests::show;
use crate::machine::{
    Downstream, Event, Pace, Said, Step, Write, expire, interrupt, is_dead_letter, pause, retention_of, step,
};
use crate::outcome::{Completion, End, Ended};
use crate::policy::{AfterCheckpoint, AfterCompleted, InDoubt, OnFailure, OnStoreFailure};
use crate::record::{Mark, Origin};

/// One key, its store and its clock; what a step writes is applied at once.
struct Key {
    policy: Policy,
    stored: Option<Record>,
    live: bool,
    now: u64,
}

impl Key {
    fn new(policy: Policy) -> Self {
        Self { policy, stored: None, live: false, now: 0 }
    }

    fn holding(policy: Policy, record: Record) -> Self {
        Self { stored: Some(record), ..Self::new(policy) }
    }

    fn apply(&mut self, step: &Step) -> String {
        match &step.write {
            Write::Keep | Write::Touch | Write::Rows => {}
            Write::Put(record) | Write::Hold(record) => self.stored = Some((**record).clone()),
            Write::Remove => self.stored = None,
        }
        if matches!(step.caller, crate::machine::Said::Start) {
            self.live = true;
        }
        show::caller(&step.caller)
    }

    /// The event at `now`; what the caller is told.
    fn event(&mut self, now: u64, event: Event<'_>) -> String {
        self.now = now;
        let cx = Context { live: self.live, ..cx(&self.policy, now) };
        let step = step(self.stored.as_ref(), event, cx);
        self.apply(&step)
    }

    fn admit(&mut self, now: u64) -> String {
        self.event(now, Event::Admit(&admission("same")))
    }

    fn finish(&mut self, now: u64, end: End) -> String {
        let attempt = self.record().attempt;
        let said = self.event(now, Event::Finish { attempt, end: &end });
        self.live = false;
        said
    }

    fn done(&mut self, now: u64) -> String {
        self.finish(now, End::done(bytes("A")))
    }

    fn unknown(&mut self, now: u64) -> String {
        self.finish(now, End::Unknown(reason("U")))
    }

    fn checkpoint(&mut self, now: u64, expires_at: Option<u64>) -> String {
        let attempt = self.record().attempt;
        self.event(now, Event::Checkpoint { attempt, bytes: bytes("c"), expires_at: expires_at.map(at) })
    }

    /// The oracle's answer about the record as it is.
    fn found(&mut self, now: u64, found: &Found) -> String {
        let Record { attempt, recoveries, .. } = *self.record();
        self.event(now, Event::Found { attempt, recoveries, found })
    }

    fn restart(&mut self) {
        self.live = false;
        if let Some(doubted) = self.stored.as_ref().and_then(|record| interrupt(record, at(self.now))) {
            self.stored = Some(doubted);
        }
    }

    fn record(&self) -> &Record {
        self.stored.as_ref().expect("a record")
    }
}

fn rerun() -> Policy {
    policy().in_doubt(InDoubt::Rerun)
}

#[test]
fn an_answer_is_replayed_until_the_last_millisecond_and_now_equal_to_expires_at_is_expired() {
    let mut key = Key::new(policy());
    assert_eq!(key.admit(0), "Start");
    key.done(20);
    assert_eq!(key.admit(599), "replayed A");
    assert_eq!(key.admit(600), "Expired");
}

#[test]
fn refuse_once_does_not_stick() {
    for request in ["same", "other"] {
        let mut key = Key::holding(policy(), ended(State::Completed(Some(bytes("A")))));
        assert_eq!(key.event(650, Event::Admit(&admission(request))), "Expired");
        assert_eq!(key.event(650, Event::Admit(&admission(request))), "Start");
        assert_eq!(key.record().attempt.number, 1);
    }
}

#[test]
fn refuse_sticks_until_the_grace_ends_and_rerun_never_refuses() {
    let completed = || ended(State::Completed(Some(bytes("A"))));
    let mut refuse = Key::holding(policy().after_expiry(AfterExpiry::Refuse), completed());
    assert_eq!(refuse.admit(600), "Expired");
    assert_eq!(refuse.admit(719), "Expired");
    assert_eq!(refuse.admit(720), "Start");
    let mut rerun = Key::holding(policy().after_expiry(AfterExpiry::Rerun), completed());
    assert_eq!(rerun.admit(600), "Start");
}

#[test]
fn without_a_grace_an_expired_key_runs_at_once() {
    let mut key = Key::new(policy().grace(Duration::ZERO));
    key.admit(0);
    key.done(1);
    assert_eq!(key.admit(600), "Start");
}

#[test]
fn an_expiry_stated_with_the_answer_shortens_the_bound_and_never_lengthens_it() {
    for (stated, expires_at) in [(0, 0), (599, 599), (601, 600), (9999, 600)] {
        let mut key = Key::new(policy());
        key.admit(0);
        key.finish(20, done_until(bytes("A"), Some(at(stated))));
        assert_eq!(key.record().expires_at, Some(at(expires_at)), "stated {stated}");
        assert_eq!(key.record().lapses_at, Some(at(expires_at + 120)), "stated {stated}");
    }
}

#[test]
fn an_expiry_stated_with_a_checkpoint_shortens_the_bound_and_a_later_one_does_not_lengthen_it() {
    let mut key = Key::new(policy());
    key.admit(0);
    key.checkpoint(5, Some(9999));
    assert_eq!(key.record().expires_at, Some(at(600)));
    key.checkpoint(6, Some(500));
    assert_eq!(key.record().expires_at, Some(at(500)));
    key.checkpoint(7, Some(550));
    key.checkpoint(8, None);
    assert_eq!(key.record().expires_at, Some(at(500)));
    key.finish(9, done_until(bytes("A"), Some(at(580))));
    assert_eq!(key.record().expires_at, Some(at(500)));
}

#[test]
fn a_slow_operation_does_not_lengthen_the_bound_that_its_request_set() {
    let mut key = Key::new(policy());
    key.admit(0);
    key.done(700);
    assert_eq!(key.record().expires_at, Some(at(600)), "expired before it was there");
    assert_eq!(key.admit(700), "Expired");
}

#[test]
fn a_fixed_retention_counts_from_the_finish_and_a_request_may_only_shorten_it() {
    let fixed = |retention: Option<Duration>| {
        let mut key = Key::new(policy().retention(Retention::Fixed(RETENTION)));
        key.event(0, Event::Admit(&Admission { retention, ..admission("same") }));
        key.done(50);
        key.record().expires_at
    };
    assert_eq!(fixed(None), Some(at(650)));
    assert_eq!(fixed(Some(Duration::from_millis(100))), Some(at(100)));
    assert_eq!(fixed(Some(Duration::from_secs(9))), Some(at(650)));
}

#[test]
fn what_is_kept_until_forgotten_never_expires_unless_the_operation_says_when() {
    for (stated, last) in [(None, u64::MAX - T), (Some(at(400)), 399)] {
        let mut key = Key::new(policy().retention(Retention::UntilForgotten));
        key.event(0, Event::Admit(&Admission { retention: None, ..admission("same") }));
        key.finish(1, done_until(bytes("A"), stated));
        assert_eq!(key.record().expires_at, stated);
        assert_eq!(key.admit(last), "replayed A");
    }
}

#[test]
fn a_retention_that_overflows_or_is_missing_registers_nothing() {
    let mut key = Key::new(policy());
    assert_eq!(key.admit(u64::MAX - T - 600), "Start", "the end of time still fits");
    for policy in [policy(), policy().retention(Retention::Fixed(RETENTION))] {
        let mut key = Key::new(policy);
        assert_eq!(key.admit(u64::MAX - T - 599), "RetentionOverflow");
        assert_eq!(key.stored, None);
    }
    let mut key = Key::new(policy().retention(Retention::Fixed(Duration::MAX)));
    assert_eq!(key.event(0, Event::Admit(&Admission { retention: None, ..admission("same") })), "RetentionOverflow");
    let mut key = Key::new(policy());
    assert_eq!(key.event(0, Event::Admit(&Admission { retention: None, ..admission("same") })), "RetentionMissing");
    assert_eq!(key.stored, None);
}

#[test]
fn a_grace_and_a_tombstone_at_the_end_of_time_saturate() {
    let mut key = Key::new(policy().grace(Duration::MAX).tombstone(Duration::MAX));
    key.admit(0);
    key.done(1);
    assert_eq!(key.record().lapses_at, Some(UnixMillis(u64::MAX)));
    assert_eq!(key.record().tombstone_until, Some(UnixMillis(u64::MAX)));
}

#[test]
fn a_rerun_with_a_checkpoint_keeps_the_bound_of_the_attempt_that_minted() {
    let mut key = Key::new(rerun());
    key.admit(0);
    key.checkpoint(10, Some(590));
    key.restart();
    assert_eq!(key.admit(300), "Start");
    assert_eq!((key.record().expires_at, &key.record().checkpoint), (Some(at(590)), &Some(bytes("c"))));
    key.done(310);
    assert_eq!(key.admit(590), "Expired");
}

#[test]
fn a_rerun_with_a_checkpoint_needs_no_bound_of_its_own() {
    let checkpointed = Record { checkpoint: Some(bytes("c")), ..record(State::InDoubt) };
    let mut key = Key::holding(rerun(), checkpointed);
    assert_eq!(key.event(10, Event::Admit(&Admission { retention: None, ..admission("same") })), "Start");
}

#[test]
fn a_rerun_without_a_checkpoint_takes_a_new_bound() {
    let mut key = Key::new(rerun());
    key.admit(0);
    key.restart();
    assert_eq!(key.admit(300), "Start");
    assert_eq!(key.record().expires_at, Some(at(900)));
    key.restart();
    assert_eq!(key.event(310, Event::Admit(&Admission { retention: None, ..admission("same") })), "InDoubt");
    assert_eq!(key.record().attempt.number, 2, "what has no bound does not run");
}

#[test]
fn a_rerun_reads_the_request_and_the_time_of_the_record() {
    let mut key = Key::new(rerun());
    key.admit(0);
    key.restart();
    let reworded = Admission { request: bytes("SAME"), ..admission("same") };
    assert_eq!(key.event(300, Event::Admit(&reworded)), "Start");
    assert_eq!((&key.record().request, key.record().created_at), (&bytes("same"), at(0)));
}

#[test]
fn the_token_stays_the_same_over_reruns_and_differs_for_a_new_record() {
    let with = |token| Admission { token: Token([token; 32]), ..admission("same") };
    let mut key = Key::new(rerun());
    for (attempt, token) in [(1, 7), (2, 8), (3, 9)] {
        assert_eq!(key.event(0, Event::Admit(&with(token))), "Start");
        assert_eq!((key.record().attempt.number, key.record().attempt.token), (attempt, Token([7; 32])));
        key.unknown(1);
    }
    key.event(2, Event::Admit(&with(10)));
    key.done(3);
    key.admit(800);
    assert_eq!((key.record().attempt.number, key.record().attempt.token), (1, NEW_TOKEN));
}

#[test]
fn the_end_of_an_older_attempt_is_fenced_off_and_the_newer_one_is_unharmed() {
    let mut key = Key::new(rerun());
    key.admit(0);
    key.restart();
    key.admit(10);
    let before = key.stored.clone();
    let late = End::done(bytes("late"));
    let attempt = AttemptId { number: 1, ..key.record().attempt };
    assert_eq!(key.event(20, Event::Finish { attempt, end: &late }), "FencedOff");
    let attempt = AttemptId { token: Token([9; 32]), ..key.record().attempt };
    assert_eq!(key.event(20, Event::Finish { attempt, end: &late }), "FencedOff", "of an earlier record");
    assert_eq!(key.stored, before);
    key.done(30);
    assert_eq!(key.admit(40), "replayed A");
}

#[test]
fn unknown_ends_of_reruns_count_and_the_fifth_exhausts() {
    let mut key = Key::new(rerun());
    for attempt in 1..=6 {
        assert_eq!(key.admit(10 * u64::from(attempt)), "Start", "attempt {attempt}");
        if attempt % 2 == 0 {
            key.unknown(0);
        } else {
            key.restart();
        }
        assert_eq!(u32::from(key.record().recoveries), attempt - 1, "the first run is no re-run");
    }
    assert_eq!(key.admit(100), "RecoveriesExhausted");
    assert_eq!(key.event(100, Event::Admit(&admission("other"))), "Mismatch");
}

/// A count can stand above the limit: it was counted under a higher one.
#[test]
fn only_the_count_that_reaches_the_limit_raises_an_alarm() {
    for (before, is_last) in [(RECOVERIES - 2, false), (RECOVERIES - 1, true), (RECOVERIES, false)] {
        let alarm = is_last.then_some(crate::machine::Alarm::DeadLetter);
        let rerun = (Record { recoveries: before, ..record(State::Registered) }, rerun());
        let end = &End::Unknown(reason("U"));
        let ends = step(Some(&rerun.0), Event::Finish { attempt: rerun.0.attempt, end }, live(&rerun.1, 1));
        assert_eq!(ends.alarm, alarm, "a re-run after {before}");
        // Counted already, and heard again: the actor that recorded it has died.
        let asked = (Record { recoveries: before + 1, ..record(State::InDoubt) }, ask());
        let found = Event::Found { attempt: asked.0.attempt, recoveries: before, found: &Found::CannotTell };
        assert_eq!(step(Some(&asked.0), found, cx(&asked.1, 1)).alarm, alarm, "an answer after {before}");
    }
}

#[test]
fn a_rerun_left_behind_counts_whether_or_not_its_interruption_was_recorded() {
    let left = Record { recoveries: RECOVERIES - 1, ..record(State::Registered) };
    let mut key = Key::holding(rerun(), left);
    assert_eq!(key.admit(10), "RecoveriesExhausted");
    assert_eq!(key.event(10, Event::Track(None)), "RecoveriesExhausted");
    key.restart();
    assert_eq!(key.admit(10), "RecoveriesExhausted");
}

#[test]
fn an_attempt_that_ends_unknown_twice_counts_once() {
    let mut key = Key::holding(rerun(), record(State::Registered));
    key.unknown(1);
    key.unknown(2);
    assert_eq!(key.record().recoveries, 1);
}

#[test]
fn typed_errors_do_not_count_towards_the_limit_of_reruns() {
    let mut key = Key::new(rerun().after_checkpoint(AfterCheckpoint::Doubt));
    key.admit(0);
    key.checkpoint(0, None);
    for attempt in 1..=20 {
        key.finish(1, End::Definitive(reason("R")));
        assert_eq!((key.record().attempt.number, key.record().recoveries), (attempt, 0));
        assert_eq!(key.admit(2), "Start");
    }
}

#[test]
fn exhausted_and_expired_is_refused_once_and_then_runs() {
    let exhausted = Record { recoveries: RECOVERIES, ..record(State::InDoubt) };
    let mut key = Key::holding(rerun(), exhausted.clone());
    assert_eq!(key.admit(599), "RecoveriesExhausted");
    assert_eq!(key.admit(600), "Expired");
    assert_eq!(key.admit(600), "Start");
    assert_eq!((key.record().recoveries, key.record().attempt.token), (0, NEW_TOKEN));

    let mut key = Key::holding(rerun(), exhausted.clone());
    assert_eq!(key.admit(720), "Start", "past its grace it reads as absent");
    let mut key = Key::holding(rerun().after_expiry(AfterExpiry::Rerun), exhausted.clone());
    assert_eq!(key.admit(600), "Start");
    let mut key = Key::holding(rerun().tombstone(TOMBSTONE), exhausted);
    assert_eq!(key.admit(1719), "Expired", "its tombstone stands");
    assert_eq!(key.event(1719, Event::Track(None)), "Expired");
    assert_eq!(key.event(1720, Event::Track(None)), "NotFound");
    assert_eq!(key.admit(1720), "Start");
}

#[test]
fn who_knows_the_end_of_an_exhausted_record_is_heard_also_after_its_grace() {
    let exhausted = Record { recoveries: RECOVERIES, ..record(State::InDoubt) };
    let mut key = Key::holding(rerun(), exhausted);
    assert_eq!(
        key.event(5000, Event::Resolve { attempt: None, end: &Ended::Completed(bytes("A")) }),
        "Resolved(Recorded)"
    );
}

#[test]
fn in_doubt_with_reruns_left_never_expires() {
    for policy in [rerun(), policy(), policy().in_doubt(InDoubt::Ask)] {
        let said = Key::holding(policy, record(State::InDoubt)).admit(1_000_000);
        assert!(["Start", "InDoubt", "Duplicate(InDoubt)"].contains(&said.as_str()), "{said}");
    }
}

#[test]
fn a_barred_request_registers_nothing_uses_up_no_rerun_and_still_gets_its_replay() {
    let mut key = Key::new(policy());
    assert_eq!(key.event(0, Event::Admit(&barred("same"))), "Failed(barred)");
    assert_eq!(key.stored, None);

    let doubted = record(State::InDoubt);
    let mut key = Key::holding(rerun(), doubted.clone());
    assert_eq!(key.event(0, Event::Admit(&barred("same"))), "InDoubt(barred)");
    assert_eq!(key.event(0, Event::Admit(&barred("other"))), "Mismatch");
    let busy = Admission { barred: Some(ErrorKind::QuotaExceeded), ..admission("same") };
    assert_eq!(key.event(0, Event::Admit(&busy)), "InDoubt");
    assert_eq!(key.stored, Some(doubted));

    let mut key = Key::holding(policy(), ended(State::Completed(Some(bytes("A")))));
    assert_eq!(key.event(10, Event::Admit(&barred("same"))), "replayed A");
}

#[test]
fn a_contradiction_is_written_once_beside_the_record_and_changes_no_answer() {
    let mut key = Key::holding(policy(), ended(State::Completed(Some(bytes("A")))));
    let mut told = |text: &str| {
        let end = Ended::Completed(bytes(text));
        let step = step(key.stored.as_ref(), Event::Resolve { attempt: None, end: &end }, cx(&key.policy, 10));
        (key.apply(&step), step.alarm.is_some(), matches!(step.write, Write::Put(_)))
    };
    assert_eq!(told("A"), ("Resolved(Already)".into(), false, false));
    assert_eq!(told("B"), ("Resolved(Contradicts(Completed))".into(), true, true));
    assert_eq!(told("C"), ("Resolved(Contradicts(Completed))".into(), true, false), "heard, not written again");
    assert_eq!(told("A"), ("Resolved(Already)".into(), false, false));
    assert_eq!(key.record().contradiction, Some(bytes("B")));
    assert_eq!(key.admit(11), "replayed A");
}

#[test]
fn an_end_told_twice_is_no_contradiction_even_if_its_reason_had_to_be_cut() {
    let mut key = Key::holding(policy(), record(State::Dispatched));
    let end = Ended::Failed(bytes("much too long a reason"));
    assert_eq!(key.event(1, Event::Resolve { attempt: None, end: &end }), "Resolved(Recorded)");
    assert_eq!(key.record().state, State::Failed(Origin::Resolved, bytes("much too")));
    assert_eq!(key.event(2, Event::Resolve { attempt: None, end: &end }), "Resolved(Already)");
}

#[test]
fn an_answer_over_the_limit_is_given_now_and_told_as_not_kept_later() {
    for (answer, later) in [("8 bytes.", "replayed 8 bytes."), ("9 bytes..", "AnswerNotKept")] {
        let mut key = Key::new(policy());
        key.admit(0);
        let end = End::done(bytes(answer));
        let attempt = key.record().attempt;
        let step = step(key.stored.as_ref(), Event::Finish { attempt, end: &end }, live(&key.policy, 1));
        assert!(show::step(&step, at(1)).ends_with(&format!("release {answer}")));
        key.apply(&step);
        key.live = false;
        assert_eq!(key.admit(2), later);
    }
}

#[test]
fn a_kept_failure_gives_every_retry_the_same_reason_and_expires_like_an_answer() {
    let mut key = Key::new(policy().on_failure(OnFailure::Keep));
    key.admit(0);
    key.finish(1, End::Definitive(reason("R")));
    assert_eq!(key.admit(2), "Failed(R)");
    assert_eq!(key.event(599, Event::Track(None)), "Failed(R)");
    assert_eq!(key.admit(600), "Expired");
}

#[test]
fn the_error_of_a_kept_failure_reaches_the_callers_of_its_run_unless_its_reason_had_to_be_cut() {
    for (text, told, is_whole) in [("8 bytes.", "8 bytes.", true), ("9 bytes..", "9 bytes.", false)] {
        let mut key = Key::new(policy().on_failure(OnFailure::Keep));
        key.admit(0);
        let (attempt, end) = (key.record().attempt, End::Definitive(Reason::from_error(text)));
        let step = step(key.stored.as_ref(), Event::Finish { attempt, end: &end }, live(&key.policy, 1));
        let crate::machine::Release::All(Err(error)) = &step.waiters else { panic!("{:?}", step.waiters) };
        assert_eq!(show::kind(error), format!("Failed({told})"));
        assert_eq!(error.reason().unwrap().error().is_some(), is_whole, "{text}");
        key.apply(&step);
        key.live = false;
        assert_eq!(key.admit(2), format!("Failed({told})"));
    }
}

#[test]
fn an_end_that_overtakes_the_acceptance_stays() {
    let mut key = Key::new(policy());
    key.admit(0);
    let attempt = Some(key.record().attempt);
    key.event(1, Event::Resolve { attempt, end: &Ended::Completed(bytes("A")) });
    assert_eq!(key.finish(2, End::Accepted), "Nothing");
    assert_eq!(key.admit(3), "replayed A");
}

#[test]
fn fence_forbids_an_absent_key_and_changes_nothing_about_a_record() {
    let mut key = Key::new(policy());
    assert_eq!(key.event(0, Event::Fence), "Fenced(Fenced)");
    for request in ["same", "other"] {
        assert_eq!(key.event(u64::MAX - T, Event::Admit(&admission(request))), "Fenced");
    }
    assert_eq!(key.event(1, Event::Fence), "Fenced(Fenced)");

    for state in [State::Registered, State::Dispatched, State::InDoubt] {
        let status = state.status();
        let mut key = Key::holding(policy(), record(state));
        key.live = true;
        let before = key.stored.clone();
        assert_eq!(key.event(1, Event::Fence), format!("Fenced(Found({status:?}))"));
        assert_eq!(key.stored, before);
    }
}

#[test]
fn a_fenced_key_holds_none_of_the_dead_record_it_replaced() {
    let dead =
        Record { checkpoint: Some(bytes("c")), contradiction: Some(bytes("B")), ..ended(State::Completed(None)) };
    let mut key = Key::holding(policy(), dead);
    assert_eq!(key.event(720, Event::Fence), "Fenced(Fenced)");
    let left = key.record();
    assert!(left.request.is_empty() && left.checkpoint.is_none() && left.contradiction.is_none());
    assert_eq!((left.expires_at, left.lapses_at, left.revision), (None, None, 8));
}

#[test]
fn a_forgotten_key_is_free_again_unless_the_flow_leaves_a_tombstone() {
    let completed = ended(State::Completed(Some(bytes("A"))));
    let mut key = Key::holding(policy(), completed.clone());
    assert_eq!(key.event(10, Event::Forget(&Downstream::NobodyKnows)), "Forgotten(Forgotten)");
    assert_eq!(key.event(10, Event::Forget(&Downstream::NobodyKnows)), "Forgotten(NotFound)");
    assert_eq!(key.admit(10), "Start");

    let mut key = Key::holding(policy().tombstone(TOMBSTONE), completed);
    assert_eq!(key.event(10, Event::Forget(&Downstream::NobodyKnows)), "Forgotten(Forgotten)");
    assert_eq!(key.event(10, Event::Forget(&Downstream::NobodyKnows)), "Forgotten(Tombstone)");
    assert_eq!(key.admit(1009), "Expired");
    assert_eq!(key.admit(1010), "Start");
}

#[test]
fn a_record_keeps_the_grace_and_the_tombstone_it_was_finished_under() {
    let finished = |policy: Policy| {
        let mut key = Key::new(policy);
        key.admit(0);
        key.done(1);
        key
    };
    let mut key = finished(policy());
    key.policy = policy().grace(Duration::from_secs(9)).tombstone(TOMBSTONE);
    assert_eq!(key.admit(720), "Start", "not the longer grace of today, nor its tombstone");
    let mut key = finished(policy());
    key.policy = policy().grace(Duration::ZERO);
    assert_eq!(key.admit(719), "Expired", "not the shorter one");
    let mut key = finished(policy().tombstone(TOMBSTONE));
    key.policy = policy();
    assert_eq!(key.admit(719), "Expired");
    assert_eq!(key.admit(1719), "Expired", "pruned in the grace, its tombstone stands as long as it would have");
    assert_eq!(key.admit(1720), "Start");
}

#[test]
fn an_answer_that_came_of_being_late_makes_the_time_durable() {
    let completed = ended(State::Completed(Some(bytes("A"))));
    let marked = Record { tombstone_until: Some(at(1720)), ..completed.clone() };
    let over = Record { tombstone_until: Some(at(700)), ..record(State::Tombstone(Mark::Expired)) };
    let refuse = policy().after_expiry(AfterExpiry::Refuse);
    for (stored, now) in [(&completed, 600), (&completed, 720), (&marked, 720), (&over, 700)] {
        for event in [Event::Admit(&barred("same")), Event::Track(None)] {
            let said = format!("{event:?} at {now}");
            assert_eq!(step(Some(stored), event, cx(&refuse, now)).write, Write::Touch, "{said}");
        }
    }
    assert_eq!(step(Some(&completed), Event::Track(None), cx(&refuse, 599)).write, Write::Keep, "a replay is free");
}

#[test]
fn a_refusing_flow_names_the_state_and_an_asking_one_waits() {
    let refuse = policy().after_completed(AfterCompleted::Refuse).in_doubt(InDoubt::Ask);
    let mut key = Key::holding(refuse, record(State::InDoubt));
    assert_eq!(key.admit(1), "Duplicate(InDoubt)");
    assert_eq!(key.event(1, Event::Track(None)), "Wait");
    key.event(2, Event::Resolve { attempt: None, end: &Ended::Completed(bytes("A")) });
    assert_eq!(key.admit(3), "Duplicate(Completed)");
    assert_eq!(key.event(3, Event::Track(None)), "replayed A", "who tracks gets the answer");
}

#[test]
fn what_a_rerun_completes_from_an_expired_checkpoint_is_given_to_nobody_and_pruned() {
    let mut key = Key::new(rerun().after_expiry(AfterExpiry::RefuseOnce));
    key.admit(0);
    key.checkpoint(1, Some(50));
    key.restart();
    assert_eq!(key.admit(60), "Start");
    let end = End::done(bytes("A"));
    let attempt = key.record().attempt;
    let step = step(key.stored.as_ref(), Event::Finish { attempt, end: &end }, live(&key.policy, 61));
    assert!(
        matches!(&step.waiters, crate::machine::Release::All(Err(error)) if matches!(error.kind(), crate::ErrorKind::Expired))
    );
    assert_eq!(step.write, Write::Remove);
}

#[test]
fn while_the_operation_of_a_record_ended_from_outside_still_runs_its_key_is_neither_run_nor_freed_nor_fenced() {
    let mut key = Key::new(policy());
    key.admit(0);
    key.event(1, Event::Resolve { attempt: None, end: &Ended::Failed(bytes("lost")) });
    assert!(key.live, "nobody has told the operation");
    assert_eq!(key.event(2, Event::Forget(&Downstream::NobodyKnows)), "Forgotten(Live)");
    key.stored = None;
    assert_eq!(key.admit(3), "InDoubt");
    assert_eq!(key.event(4, Event::Fence), "Fenced(Found(Registered))");
    key.live = false;
    assert_eq!(key.admit(5), "Start");
}

#[test]
fn an_end_in_doubt_that_is_still_to_be_reported_starts_nothing_and_is_waited_for() {
    let mut key = Key::new(rerun());
    key.admit(0);
    let attempt = key.record().attempt;
    let end = End::Unknown(reason("U"));
    key.event(1, Event::Finish { attempt, end: &end });
    assert!(key.live, "its actor has died before it could take the attempt off the list");
    assert_eq!(key.admit(2), "Wait");
    assert_eq!(key.event(3, Event::Track(None)), "Wait");
    let step = step(key.stored.as_ref(), Event::Finish { attempt, end: &end }, live(&key.policy, 4));
    assert_eq!(step.write, Write::Keep, "told again, it is not written again");
    assert!(matches!(step.waiters, crate::machine::Release::All(Err(_))), "and whoever waits hears it");
    key.live = false;
    assert_eq!(key.admit(5), "Start");
}

fn ask() -> Policy {
    policy().in_doubt(InDoubt::Ask)
}

#[test]
fn answers_that_tell_nothing_count_up_to_a_dead_letter_that_never_expires_and_still_ends() {
    for end in [Some(Found::NotStarted), Some(Found::Live), Some(Found::Done(Ended::Completed(bytes("A")))), None] {
        let mut key = Key::holding(ask(), record(State::InDoubt));
        for count in 1..=RECOVERIES {
            assert_eq!(key.event(1, Event::Track(None)), "Wait", "after {} answers", count - 1);
            key.found(u64::from(count), &Found::CannotTell);
            assert_eq!(key.record().recoveries, count);
        }
        assert!(is_dead_letter(key.record(), RECOVERIES));
        let dead = key.stored.clone();
        key.found(100, &Found::CannotTell);
        assert_eq!(key.stored, dead, "nothing more is written");
        assert_eq!(key.admit(1_000_000), "Duplicate(InDoubt)", "it never expires");
        assert_eq!(key.event(1_000_000, Event::Track(None)), "RecoveriesExhausted");
        match end {
            Some(found) => assert_eq!(key.found(1_000_001, &found), "Nothing"),
            None => {
                let end = Ended::Completed(bytes("A"));
                assert_eq!(key.event(1_000_001, Event::Resolve { attempt: None, end: &end }), "Resolved(Recorded)");
            }
        }
        assert_ne!(key.stored, dead);
    }
}

#[test]
fn a_limit_of_none_re_runs_nothing_and_still_hears_one_answer_before_anybody_is_given_up() {
    let decide = |stored: &Record, policy: &Policy, event: Event<'_>| {
        step(Some(stored), event, Context { recoveries: 0, ..cx(policy, 1) })
    };
    let exhausted = |step: &Step| matches!(&step.caller, Said::Reply(Err(error)) if matches!(error.kind(), ErrorKind::RecoveriesExhausted));
    let (asked, doubted, same) = (ask(), record(State::InDoubt), admission("same"));
    let tracked = decide(&doubted, &asked, Event::Track(None));
    assert!(matches!(tracked.caller, Said::Wait), "nobody has been asked: {tracked:?}");
    let Record { attempt, recoveries, .. } = doubted;
    let silent = decide(&doubted, &asked, Event::Found { attempt, recoveries, found: &Found::CannotTell });
    assert_eq!(silent.alarm, Some(crate::machine::Alarm::DeadLetter));
    let Write::Put(dead) = silent.write else { panic!("not counted: {silent:?}") };
    assert_eq!(dead.recoveries, 1);
    assert!(exhausted(&decide(&dead, &asked, Event::Track(None))));
    assert!(exhausted(&decide(&doubted, &rerun(), Event::Admit(&same))), "no re-run is allowed");
    assert!(exhausted(&decide(&doubted, &rerun(), Event::Track(None))));
}

#[test]
fn an_answer_that_comes_twice_because_its_actor_died_counts_once_and_is_heard_in_any_case() {
    let mut key = Key::holding(ask(), Record { recoveries: RECOVERIES - 1, ..record(State::InDoubt) });
    let Record { attempt, recoveries, .. } = *key.record();
    for time in 1..=2 {
        let event = Event::Found { attempt, recoveries, found: &Found::CannotTell };
        let step = step(key.stored.as_ref(), event, cx(&key.policy, time));
        assert_eq!(step.alarm, Some(crate::machine::Alarm::DeadLetter), "nobody has heard of it yet");
        assert_eq!(matches!(step.write, Write::Put(_)), time == 1);
        key.apply(&step);
    }
    assert_eq!(key.record().recoveries, RECOVERIES);
}

#[test]
fn not_started_rolls_back_and_what_follows_is_the_policy_of_a_failure() {
    let mut forgets = Key::holding(ask(), record(State::InDoubt));
    forgets.found(1, &Found::NotStarted);
    assert_eq!(forgets.admit(2), "Start");
    assert_eq!((forgets.record().attempt.number, forgets.record().attempt.token), (1, NEW_TOKEN));
    let mut keeps = Key::holding(ask().on_failure(OnFailure::Keep), record(State::InDoubt));
    keeps.found(1, &Found::NotStarted);
    assert_eq!(keeps.admit(2), "Failed(not star)");
}

#[test]
fn a_record_found_live_is_adopted_and_its_end_may_come_from_whoever_knows_it() {
    let mut key = Key::holding(ask(), record(State::InDoubt));
    key.found(1, &Found::Live);
    assert_eq!((key.record().state.status(), key.record().attempt.number), (crate::record::Status::Dispatched, 2));
    for found in [Found::Live, Found::CannotTell] {
        let before = key.stored.clone();
        key.found(2, &found);
        assert_eq!(key.stored, before, "no news of what is dispatched");
    }
    key.found(3, &Found::Done(Ended::Completed(bytes("A"))));
    assert_eq!(key.admit(4), "replayed A");
}

#[test]
fn a_rerun_that_nobody_asked_for_never_starts_in_place_of_a_record_that_has_gone() {
    let attempt = record(State::InDoubt).attempt;
    let mut key = Key::holding(rerun(), record(State::InDoubt));
    assert_eq!(key.event(1, Event::Rerun { attempt, admission: &admission("same") }), "Start");
    assert_eq!((key.record().attempt.number, key.record().attempt.token), (3, OLD_TOKEN));
    key.live = false;
    assert_eq!(key.event(2, Event::Rerun { attempt, admission: &admission("same") }), "Nothing", "an older attempt");
    key.stored = None;
    assert_eq!(key.event(3, Event::Rerun { attempt, admission: &admission("same") }), "Nothing");
    assert_eq!(key.stored, None);
}

#[test]
fn a_rerun_that_nobody_asked_for_keeps_its_answer_as_long_as_the_request_wanted_and_never_longer() {
    let first = AttemptId { number: 1, boot: OLD_BOOT, token: OLD_TOKEN };
    let interrupted = Record { attempt: first, updated_at: at(400), ..record(State::InDoubt) };
    assert_eq!(retention_of(&interrupted), Some(RETENTION));
    let again = Record { updated_at: at(400), ..record(State::InDoubt) };
    assert_eq!(retention_of(&again), Some(Duration::from_millis(200)));
    assert_eq!(retention_of(&Record { updated_at: at(900), ..again.clone() }), Some(Duration::ZERO));
    assert_eq!(retention_of(&Record { expires_at: None, ..again }), None);
}

#[test]
fn the_pause_doubles_from_the_first_answer_and_from_the_first_run_up_to_its_maximum() {
    let pace = Pace { first: Duration::from_secs(1), most: Duration::from_secs(60) };
    let asked = |recoveries| pause(&Record { recoveries, ..record(State::InDoubt) }, &ask(), pace).as_secs();
    assert_eq!([0, 1, 2, 3, 6, 7, 255].map(asked), [0, 1, 2, 4, 32, 60, 60]);
    let run = |number| {
        let attempt = AttemptId { number, boot: OLD_BOOT, token: OLD_TOKEN };
        pause(&Record { attempt, ..record(State::InDoubt) }, &rerun(), pace).as_secs()
    };
    assert_eq!([1, 2, 3, 7, u32::MAX].map(run), [1, 2, 4, 60, 60]);
}

#[test]
fn what_may_leave_unsaved_is_what_the_operation_decided_and_the_store_cannot_change() {
    let done = || Completion::new(bytes("A"));
    let row = || Row::new("table", *b"k", *b"v").expect("a row");
    let ends = [
        (End::Done(done()), Some("A")),
        (End::Done(done().row(row())), Some("A")),
        (End::Done(done().row(row()).row(row().guard(Guard::Absent))), None),
        (End::Definitive(reason("R")), Some("Failed(R)")),
        (End::Unknown(reason("U")), None),
        (End::Accepted, None),
    ];
    for (end, told) in ends {
        let reply = policy().on_store_failure(OnStoreFailure::Reply);
        let registered = record(State::Registered);
        let finish = Event::Finish { attempt: registered.attempt, end: &end };
        let step = step(Some(&registered), finish, live(&reply, 20));
        assert!(step.unsaved(&policy()).is_none(), "{end:?}: Withhold");
        let unsaved = step.unsaved(&reply).map(|end| match end {
            Ok(answer) => String::from_utf8_lossy(answer).into_owned(),
            Err(error) => show::kind(error),
        });
        assert_eq!(unsaved.as_deref(), told, "{end:?}");
    }
}

#[test]
fn an_end_that_changes_nothing_or_came_too_late_is_not_told_unsaved() {
    let reply = rerun().on_store_failure(OnStoreFailure::Reply);
    let stale = Record { checkpoint: Some(bytes("c")), ..record(State::Registered) };
    let ended = ended(State::Completed(Some(bytes("A"))));
    for (stored, end) in [(stale, done_until(bytes("A"), Some(at(10)))), (ended, End::done(bytes("B")))] {
        let finish = Event::Finish { attempt: stored.attempt, end: &end };
        assert!(step(Some(&stored), finish, live(&reply, 20)).unsaved(&reply).is_none());
    }
}

#[test]
fn at_a_suspect_time_what_a_rerun_completes_too_late_is_given_to_nobody_and_stays() {
    for after_expiry in [AfterExpiry::RefuseOnce, AfterExpiry::Refuse, AfterExpiry::Rerun] {
        let mut key = Key::new(rerun().after_expiry(after_expiry));
        key.admit(0);
        key.checkpoint(1, Some(50));
        key.restart();
        assert_eq!(key.admit(40), "Start");
        let end = End::done(bytes("A"));
        let attempt = key.record().attempt;
        let suspect = Context { trusted: at(41), ..live(&key.policy, 61) };
        let step = step(key.stored.as_ref(), Event::Finish { attempt, end: &end }, suspect);
        assert_eq!(show::step(&step, at(61)), "put completed(A) expires=50 lapses=170 checkpoint=c; release Expired");
        key.apply(&step);
        key.live = false;
        assert_eq!(key.admit(41), "replayed A", "the clock came back");
    }
}

#[test]
fn at_a_suspect_time_a_fenced_key_stays_fenced_and_an_absent_one_runs_with_the_later_times() {
    let policy = policy();
    let suspect = Context { trusted: at(99), ..cx(&policy, 5_000) };
    let fenced = Record { tombstone_until: Some(at(100)), ..record(State::Tombstone(Mark::Fenced)) };
    let request = admission("same");
    let said = step(Some(&fenced), Event::Admit(&request), suspect);
    assert_eq!(show::step(&said, at(5_000)), "say Fenced");
    let said = step(None, Event::Admit(&request), suspect);
    assert_eq!(show::step(&said, at(5_000)), "put registered #1 expires=now+600; say Start");
}

#[test]
fn at_a_suspect_time_what_has_lapsed_by_the_trusted_one_reads_as_ever() {
    let completed = || ended(State::Completed(Some(bytes("A"))));
    for (trusted, said) in [(599, "Expired"), (719, "Expired"), (720, "Start")] {
        let policy = policy().after_expiry(AfterExpiry::Rerun);
        let suspect = Context { trusted: at(trusted), ..cx(&policy, 5_000) };
        let step = step(Some(&completed()), Event::Admit(&admission("same")), suspect);
        assert_eq!(show::caller(&step.caller), said, "trusted {trusted}");
        assert_eq!(step.write == Write::Keep, said == "Expired", "trusted {trusted}");
    }
}

fn payments() -> Policy {
    Policy::send_payment()
}

fn payment(state: State) -> Key {
    Key::holding(payments(), Record { expires_at: None, ..record(state) })
}

impl Key {
    /// The event when so many ticks have gone by.
    fn at_tick(&mut self, tick: u64, event: Event<'_>) -> String {
        let cx = Context { tick, live: self.live, ..cx(&self.policy, 0) };
        let step = step(self.stored.as_ref(), event, cx);
        self.apply(&step)
    }

    fn send_at_tick(&mut self, tick: u64, request: &str) -> String {
        self.at_tick(tick, Event::Admit(&Admission { retention: None, ..admission(request) }))
    }
}

#[test]
fn seven_quiet_ticks_keep_a_payment_and_the_eighth_releases_it_to_any_request() {
    let mut key = payment(State::Completed(Some(bytes("A"))));
    assert_eq!(key.send_at_tick(1_000, "same"), "Duplicate(Completed)", "unacknowledged, however many ticks");
    assert_eq!(key.at_tick(1_000, Event::Acknowledge), "Acknowledged(Counting)");
    assert_eq!(key.send_at_tick(1_007, "same"), "Duplicate(Completed)");
    assert_eq!(key.send_at_tick(1_007, "other"), "Mismatch");
    assert_eq!(key.at_tick(1_007, Event::Acknowledge), "Acknowledged(Counting)", "said again, it delays nothing");
    assert_eq!(expire(key.record(), at(0), 1_007), Write::Keep);
    assert_eq!(expire(key.record(), at(0), 1_008), Write::Remove);
    assert_eq!(key.send_at_tick(1_008, "other"), "Start");
    assert_eq!(key.record().lapses_at_tick, None, "a new record counts nothing");
}

#[test]
fn whatever_happens_to_an_acknowledged_payment_begins_its_quiet_anew_and_before_that_begins_nothing() {
    let mut key = payment(State::Completed(Some(bytes("A"))));
    assert_eq!(key.at_tick(0, Event::Disturb), "Acknowledged(NoEffect(Completed))");
    assert_eq!(key.send_at_tick(1_000, "same"), "Duplicate(Completed)");
    key.at_tick(1_000, Event::Acknowledge);
    assert_eq!(key.at_tick(1_005, Event::Disturb), "Acknowledged(Counting)");
    assert_eq!(key.send_at_tick(1_012, "same"), "Duplicate(Completed)");
    assert_eq!(key.send_at_tick(1_013, "same"), "Start");
}

#[test]
fn a_duplicate_of_what_has_ended_carries_its_end_and_a_refusal_its_reason() {
    let told = |state| {
        let mut key = payment(state);
        let admission = Admission { retention: None, ..admission("same") };
        let step = step(key.stored.as_ref(), Event::Admit(&admission), cx(&key.policy, 0));
        let Said::Reply(Err(error)) = step.caller else { panic!("{:?}", key.admit(0)) };
        (error.class(), error.recorded().cloned(), error.reason().map(|reason| reason.bytes().clone()))
    };
    let duplicate = crate::Class::Duplicate;
    assert_eq!(told(State::Completed(Some(bytes("A")))), (duplicate, Some(Ended::Completed(bytes("A"))), None));
    assert_eq!(told(State::Completed(None)), (duplicate, None, None));
    assert_eq!(told(State::Failed(Origin::Resolved, bytes("R"))), (duplicate, Some(Ended::Failed(bytes("R"))), None));
    let definitive = crate::Class::Definitive;
    assert_eq!(told(State::Failed(Origin::RolledBack, bytes("R"))), (definitive, None, Some(bytes("R"))));
}

#[test]
fn a_failed_payment_stays_until_it_is_abandoned_and_an_abandoned_one_goes_when_it_fails() {
    let mut key = payment(State::Failed(Origin::Resolved, bytes("R")));
    assert_eq!(key.send_at_tick(u64::MAX, "same"), "Duplicate(Failed)");
    assert_eq!(key.event(0, Event::Abandon), "Abandoned(Released)");
    assert_eq!(key.send_at_tick(0, "other"), "Start");

    let mut key = payment(State::Dispatched);
    assert_eq!(key.event(0, Event::Abandon), "Abandoned(Marked(Dispatched))");
    assert_eq!(key.send_at_tick(u64::MAX, "same"), "Duplicate(Dispatched)", "it may still succeed");
    let end = Ended::Failed(bytes("R"));
    assert_eq!(key.event(1, Event::Resolve { attempt: None, end: &end }), "Resolved(Recorded)");
    assert_eq!(key.stored, None);

    let mut key = payment(State::Dispatched);
    key.event(0, Event::Abandon);
    let end = Ended::Completed(bytes("A"));
    key.event(1, Event::Resolve { attempt: None, end: &end });
    assert_eq!(key.send_at_tick(0, "same"), "Duplicate(Completed)");
}

#[test]
fn an_end_of_an_earlier_record_is_told_from_one_of_this_by_its_token() {
    let mut key = payment(State::Dispatched);
    let earlier = AttemptId { token: NEW_TOKEN, ..key.record().attempt };
    let end = Ended::Failed(bytes("R"));
    assert_eq!(key.event(0, Event::Resolve { attempt: Some(earlier), end: &end }), "Resolved(FencedOff)");
    let adopted = AttemptId { boot: NEW_BOOT, ..key.record().attempt };
    assert_eq!(key.event(0, Event::Resolve { attempt: Some(adopted), end: &end }), "Resolved(Recorded)");
}

#[test]
fn what_downstream_may_still_come_to_know_is_in_doubt_and_asked_again_without_an_end() {
    let mut key = payment(State::Dispatched);
    for _ in 0..2 * RECOVERIES {
        key.found(0, &Found::Missing);
        assert_eq!((key.record().state.status(), key.record().recoveries), (crate::Status::InDoubt, 0));
        assert_eq!(key.admit(0), "Duplicate(InDoubt)");
    }
    key.found(0, &Found::NotStarted);
    assert_eq!(key.admit(0), "Failed(not star)");
}

#[test]
fn rows_that_belong_to_no_record_are_written_beside_whatever_is_stored() {
    let rows = [Row::new("t", *b"k", *b"v").unwrap()];
    let key = payment(State::Dispatched);
    let step = step(key.stored.as_ref(), Event::Rows(&rows), cx(&key.policy, 0));
    assert_eq!((step.write, step.rows), (Write::Rows, rows.to_vec()));
}

#[test]
fn beside_a_failure_the_proof_of_a_success_is_kept_whatever_contradicted_it_before() {
    let mut key = payment(State::Failed(Origin::Resolved, bytes("R")));
    let mut told = |end: Ended| key.event(0, Event::Resolve { attempt: None, end: &end });
    assert_eq!(told(Ended::Failed(bytes("S"))), "Resolved(Contradicts(Failed))");
    assert_eq!(told(Ended::Completed(bytes("preimage"))), "Resolved(Contradicts(Failed))");
    assert_eq!(told(Ended::Failed(bytes("T"))), "Resolved(Contradicts(Failed))");
    assert_eq!(key.record().contradiction, Some(bytes("preimage")));
}

fn replay_safe() -> Policy {
    policy().in_doubt(InDoubt::Rerun).replay_safe()
}

#[test]
fn a_replay_safe_request_is_held_and_its_end_is_the_first_to_be_written() {
    let mut key = Key::new(replay_safe());
    let step = step(None, Event::Admit(&admission("same")), cx(&key.policy, 0));
    assert!(matches!(&step.write, Write::Hold(held) if held.revision == 1), "{:?}", step.write);
    assert_eq!(key.apply(&step), "Start");
    assert_eq!((key.admit(1), key.event(1, Event::Admit(&admission("other")))), ("Wait".into(), "Mismatch".into()));
    assert_eq!(key.event(1, Event::Fence), "Fenced(Found(Registered))");
    key.done(2);
    assert_eq!((key.record().revision, key.admit(3)), (2, "replayed A".into()));
}

#[test]
fn what_is_to_be_held_can_be_written_instead() {
    let policy = replay_safe();
    let to_hold = step(None, Event::Admit(&admission("same")), cx(&policy, 0));
    let Write::Hold(record) = to_hold.write.clone() else { panic!("not held: {to_hold:?}") };
    let joined = step(Some(&record), Event::Admit(&admission("same")), live(&policy, 0));
    assert_eq!(joined.registering().write, Write::Keep);
    assert_eq!(to_hold.registering().write, Write::Put(record));
}

#[test]
fn in_place_of_a_dead_record_or_of_one_in_doubt_a_replay_safe_request_is_written() {
    let policy = replay_safe().after_expiry(AfterExpiry::Rerun);
    for stored in [ended(State::Completed(Some(bytes("A")))), record(State::InDoubt)] {
        let step = step(Some(&stored), Event::Admit(&admission("same")), cx(&policy, 600));
        assert!(matches!(&step.write, Write::Put(put) if put.revision == 8), "{stored:?}: {:?}", step.write);
        assert!(matches!(step.caller, Said::Start));
    }
}
