//! A clock that steps back revives nothing, and one that leaps ahead ends nothing before it is believed.

use crate::support::*;
use ibid::{
    AfterExpiry, ClockState, Completion, End, Engine, ErrorKind, Flow, Guard, How, Policy, Reason, Row, UnixMillis,
};
use std::time::Duration;

const TEN_MINUTES: Duration = Duration::from_secs(600);

#[tokio::test]
async fn what_an_expiry_sweep_has_seen_expired_stays_expired_after_a_step_back_and_a_restart() {
    let (bench, counted) = (Bench::new(), Counted::new());
    let flow =
        flow_of(Policy::replay(TEN_MINUTES).after_expiry(AfterExpiry::RefuseOnce).grace(Duration::from_secs(120)));
    let engine = bench.open();
    answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    bench.clock.advance(TEN_MINUTES);
    assert_eq!(engine.expiry_sweep().await.unwrap(), 0);
    engine.shutdown().await;
    bench.clock.set(START);
    let engine = bench.open();
    let heard = error(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert!(matches!(heard.kind(), ErrorKind::Expired), "{heard:?}");
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_refusal_because_of_expiry_is_not_taken_back_by_a_step_back_and_a_restart() {
    let (bench, counted) = (Bench::new(), Counted::new());
    let flow = flow_of(Policy::replay(TEN_MINUTES).after_expiry(AfterExpiry::Refuse).grace(Duration::from_secs(120)));
    let engine = bench.open();
    answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    bench.clock.advance(TEN_MINUTES);
    error(&engine, call(&flow, "a", "r"), counted.operation()).await;
    engine.shutdown().await;
    bench.clock.set(START);
    let engine = bench.open();
    let heard = error(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert!(matches!(heard.kind(), ErrorKind::Expired), "{heard:?}");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_step_back_within_a_process_changes_no_answer() {
    let (bench, counted, flow) = (Bench::new(), Counted::new(), flow());
    let engine = bench.open();
    answer(&engine, call(&flow, "a", "r"), counted.operation()).await;
    bench.clock.set(ibid::UnixMillis(0));
    assert_eq!(answer(&engine, call(&flow, "a", "r"), counted.operation()).await.how, How::Replayed);
    assert_eq!(engine.now(), START);
    engine.shutdown().await;
}

const HOUR: Duration = Duration::from_secs(3_600);
const MILLI: Duration = Duration::from_millis(1);

fn leap(bench: &Bench, ahead: Duration) {
    bench.clock.set(START.saturating_add(ahead));
}

fn replaying(retention: Duration) -> Policy {
    Policy::replay(retention)
}

/// What a retry of `id` is told: how its answer came about, or that it has expired.
async fn told(engine: &Engine, flow: &Flow, id: &str, counted: &Counted) -> Option<How> {
    match engine.submit(call(flow, id, "r"), counted.operation()).await {
        Ok(ibid::Reply::Answer(outcome)) => Some(outcome.how),
        Err(error) if matches!(error.kind(), ErrorKind::Expired) => None,
        other => panic!("{other:?}"),
    }
}

async fn is_suspect(engine: &Engine) -> bool {
    matches!(engine.stats().await.unwrap().clock, ClockState::Suspect { .. })
}

/// Three records of every policy that an hour's leap ends, by expiry or for good, and one that it does not end.
struct Records {
    short: Vec<(Flow, String)>,
    live: Flow,
    counted: Counted,
}

impl Records {
    async fn new(engine: &Engine) -> Self {
        let counted = Counted::new();
        let mut short = Vec::new();
        for (name, policy) in
            [("once", AfterExpiry::RefuseOnce), ("stick", AfterExpiry::Refuse), ("run", AfterExpiry::Rerun)]
        {
            let expired = replaying(TEN_MINUTES).after_expiry(policy).grace(HOUR * 100);
            let lapsed = replaying(TEN_MINUTES).after_expiry(policy);
            let marked = lapsed.clone().tombstone(TEN_MINUTES);
            for (which, policy) in [("expired", expired), ("lapsed", lapsed), ("marked", marked)] {
                short.push((flow_of(policy), format!("{which} {name}")));
            }
        }
        let live = flow_of(replaying(HOUR * 100_000));
        let records = Self { short, live, counted };
        records.replay(engine, How::Executed).await;
        records
    }

    async fn replay(&self, engine: &Engine, how: How) {
        for (flow, id) in &self.short {
            assert_eq!(told(engine, flow, id, &self.counted).await, Some(how), "{id}");
        }
        assert_eq!(told(engine, &self.live, "live", &self.counted).await, Some(how));
        assert_eq!(self.counted.runs(), 10);
    }

    /// Whatever the policy, as often as they are asked; and nothing runs, nothing goes.
    async fn are_expired(&self, engine: &Engine) {
        for (flow, id) in self.short.iter().chain(&self.short) {
            assert_eq!(told(engine, flow, id, &self.counted).await, None, "{id}");
            let tracked = engine.track(flow, &key(flow, id)).await.unwrap_err();
            assert!(matches!(tracked.kind(), ErrorKind::Expired), "{id}: {tracked:?}");
            assert!(engine.lookup(&key(flow, id)).unwrap().is_some(), "{id}");
        }
        assert_eq!(told(engine, &self.live, "live", &self.counted).await, Some(How::Replayed));
        assert_eq!(engine.expiry_sweep().await.unwrap(), 0);
        assert_eq!((self.counted.runs(), engine.stats().await.unwrap().records.completed), (10, 10));
    }

    /// By the policy of each.
    async fn have_ended(&self, engine: &Engine) {
        assert_eq!(engine.expiry_sweep().await.unwrap(), 6, "three lapsed, three with a tombstone that has ended");
        for (flow, id) in &self.short {
            let refused = ["expired once", "expired stick"].contains(&id.as_str());
            let expected = (!refused).then_some(How::Executed);
            assert_eq!(told(engine, flow, id, &self.counted).await, expected, "{id}");
        }
        assert_eq!(told(engine, &self.live, "live", &self.counted).await, Some(How::Replayed));
        assert_eq!(self.counted.runs(), 10 + 7);
    }
}

#[tokio::test]
async fn a_leap_of_an_hour_is_believed_and_of_a_millisecond_more_ends_nothing() {
    for (ahead, suspect) in [(HOUR - Duration::from_secs(1), false), (HOUR, false), (HOUR + MILLI, true)] {
        let bench = Bench::new();
        let engine = bench.open();
        let records = Records::new(&engine).await;
        leap(&bench, ahead);
        if suspect {
            let (wall, trusted) = (START.saturating_add(ahead), START);
            assert_eq!(engine.stats().await.unwrap().clock, ClockState::Suspect { wall, trusted });
            records.are_expired(&engine).await;
            assert_eq!(engine.now(), START);
        } else {
            assert_eq!(engine.stats().await.unwrap().clock, ClockState::Trusted);
            records.have_ended(&engine).await;
        }
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn a_clock_that_comes_back_has_ended_nothing_also_not_over_a_restart() {
    let bench = Bench::new();
    let engine = bench.open();
    let records = Records::new(&engine).await;
    leap(&bench, HOUR * 24 * 365);
    records.are_expired(&engine).await;
    // What is committed meanwhile must not carry the wrong time into the file.
    let (flow, counted) = (flow(), Counted::new());
    assert_eq!(told(&engine, &flow, "new", &counted).await, Some(How::Executed));
    leap(&bench, MILLI);
    assert!(!is_suspect(&engine).await);
    records.replay(&engine, How::Replayed).await;
    assert_eq!(told(&engine, &flow, "new", &counted).await, Some(How::Replayed));
    engine.shutdown().await;
    let engine = bench.open();
    assert_eq!(engine.now(), START.saturating_add(MILLI));
    records.replay(&engine, How::Replayed).await;
    assert_eq!(engine.expiry_sweep().await.unwrap(), 0);
    // It was given its times by the clock of that moment: it ends late, and never early.
    bench.clock.advance(TEN_MINUTES * 2);
    assert_eq!(told(&engine, &flow, "new", &counted).await, Some(How::Replayed));
    engine.shutdown().await;
}

#[tokio::test]
async fn a_leap_is_believed_when_the_clock_has_stayed_there_for_ten_minutes_or_is_confirmed() {
    for confirmed in [false, true] {
        let bench = Bench::new();
        let engine = bench.open();
        let records = Records::new(&engine).await;
        leap(&bench, HOUR * 2);
        assert!(is_suspect(&engine).await);
        bench.clock.advance(TEN_MINUTES - MILLI);
        assert!(is_suspect(&engine).await);
        assert_eq!(engine.now(), START.saturating_add(TEN_MINUTES - MILLI), "trusted time goes on");
        if confirmed {
            engine.confirm_clock();
        } else {
            bench.clock.advance(MILLI);
        }
        assert_eq!(engine.stats().await.unwrap().clock, ClockState::Trusted);
        records.have_ended(&engine).await;
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn a_suspect_time_ends_an_answer_at_the_very_millisecond_and_not_for_good() {
    let retention = HOUR * 3;
    for policy in [AfterExpiry::RefuseOnce, AfterExpiry::Refuse, AfterExpiry::Rerun] {
        for grace in [Duration::ZERO, HOUR] {
            let (bench, counted) = (Bench::new(), Counted::new());
            let flow = flow_of(replaying(retention).after_expiry(policy).grace(grace));
            let engine = bench.open();
            assert_eq!(told(&engine, &flow, "a", &counted).await, Some(How::Executed));
            for (at, heard) in [
                (retention - MILLI, Some(How::Replayed)),
                (retention, None),
                (retention + MILLI, None),
                (retention - MILLI, Some(How::Replayed)),
                (retention + grace - MILLI, if grace.is_zero() { Some(How::Replayed) } else { None }),
                (retention + grace, None),
                (retention + grace + MILLI, None),
                (Duration::ZERO, Some(How::Replayed)),
            ] {
                leap(&bench, at);
                assert_eq!(told(&engine, &flow, "a", &counted).await, heard, "{policy:?}, {grace:?}, {at:?}");
            }
            assert_eq!(counted.runs(), 1);
            engine.shutdown().await;
        }
    }
}

#[tokio::test]
async fn time_that_passes_is_no_leap_and_an_opening_after_a_long_pause_is_none() {
    let bench = Bench::new();
    let engine = bench.open();
    let records = Records::new(&engine).await;
    engine.shutdown().await;
    bench.clock.set(START.saturating_add(HOUR));
    let engine = bench.open();
    bench.clock.advance(HOUR);
    assert!(!is_suspect(&engine).await);
    records.have_ended(&engine).await;
    engine.shutdown().await;
}

#[tokio::test]
async fn a_fence_and_a_tombstone_stand_at_a_suspect_time() {
    let (bench, counted) = (Bench::new(), Counted::new());
    let flow = flow_of(replaying(TEN_MINUTES).tombstone(HOUR));
    let engine = bench.open();
    assert_eq!(told(&engine, &flow, "a", &counted).await, Some(How::Executed));
    assert_eq!(engine.fence(&flow, &key(&flow, "fenced")).await.unwrap(), ibid::Fenced::Fenced);
    bench.clock.advance(TEN_MINUTES);
    assert_eq!(engine.expiry_sweep().await.unwrap(), 1);
    leap(&bench, HOUR * 24);
    assert!(is_suspect(&engine).await);
    assert_eq!(told(&engine, &flow, "a", &counted).await, None);
    assert_eq!(engine.fence(&flow, &key(&flow, "a")).await.unwrap(), ibid::Fenced::Found(ibid::Status::Tombstone));
    let fenced = error(&engine, call(&flow, "fenced", "r"), counted.operation()).await;
    assert!(matches!(fenced.kind(), ErrorKind::Fenced), "{fenced:?}");
    assert_eq!((engine.expiry_sweep().await.unwrap(), engine.stats().await.unwrap().records.tombstone), (0, 2));
    engine.confirm_clock();
    assert_eq!(engine.expiry_sweep().await.unwrap(), 1);
    assert_eq!(told(&engine, &flow, "a", &counted).await, Some(How::Executed));
    engine.shutdown().await;
}

#[tokio::test]
async fn a_ledger_row_that_has_ended_by_a_suspect_time_only_still_stands() {
    let (bench, counted, flow) = (Bench::new(), Counted::new(), flow());
    let engine = bench.open();
    let row = || Row::new("hashes", *b"h", *b"v").unwrap().expires_at(START.saturating_add(HOUR)).guard(Guard::Absent);
    let taking = || {
        let taken = Reason::from_bytes(*b"taken");
        counted.ending(move |_| End::Done(Completion::new(*b"mine").row(row()).otherwise(taken)))
    };
    answer(&engine, call(&flow, "a", "r"), taking()).await;
    leap(&bench, HOUR * 5);
    assert!(is_suspect(&engine).await);
    let second = error(&engine, call(&flow, "b", "r"), taking()).await;
    assert!(matches!(second.kind(), ErrorKind::Failed(_)), "{second:?}");
    assert_eq!(engine.expiry_sweep().await.unwrap(), 0);
    assert!(engine.ledger_row("hashes", b"h").unwrap().is_some());
    engine.confirm_clock();
    assert!(engine.ledger_row("hashes", b"h").unwrap().is_none());
    assert_eq!(&*answer(&engine, call(&flow, "c", "r"), taking()).await.answer, b"mine");
    engine.shutdown().await;
}

#[tokio::test]
async fn the_spans_are_limits() {
    let bench = Bench::new();
    let mut limits = ibid::Limits::default();
    (limits.clock_jump, limits.clock_trust_after) = (Duration::from_secs(1), Duration::from_secs(5));
    let engine = bench.open_with(limits);
    leap(&bench, Duration::from_secs(1));
    assert!(!is_suspect(&engine).await);
    leap(&bench, Duration::from_secs(2) + MILLI);
    assert!(is_suspect(&engine).await);
    bench.clock.advance(Duration::from_secs(5));
    assert!(!is_suspect(&engine).await);
    assert_eq!(engine.now(), UnixMillis(START.0 + 7_001));
    engine.shutdown().await;
}
