//! Records in doubt get out of it without a caller: somebody who knows is asked, or they run again.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::*;
use ibid::store::{Cursor, Entry, MemoryStore, Store, StoreError, Totals};
use ibid::testing::{FaultyStore, Layer, ManualClock};
use ibid::{
    AfterCompleted, Builder, Bytes, Class, End, Ended, Engine, ErrorKind, Flow, Found, How, InDoubt, Inquiry,
    InvalidRecovery, Key, Limits, OnFailure, Operation, Outcome, Policy, Reason, Record, Reply, Resolved, Retention,
    Status, UnixMillis, WhileRunning,
};
use tokio::sync::{mpsc, oneshot};

/// A store that outlives its engines, and the clock.
struct House {
    store: Arc<dyn Store>,
    clock: ManualClock,
}

impl House {
    fn new() -> Self {
        Self { store: Arc::new(MemoryStore::new()), clock: ManualClock::at(START) }
    }

    fn open(&self, limits: &Limits, set: impl FnOnce(Builder) -> Builder) -> Engine {
        let store = Arc::new(FaultyStore::new(Arc::clone(&self.store)).keeping_inner());
        set(Engine::builder().clock(self.clock.clone()).limits(limits.clone())).open_store(store).unwrap()
    }

    /// An engine without recovery leaves a record behind for each of these, as its operation ends.
    async fn leave(&self, flow: &Flow, ids: &[&str], end: impl Fn() -> End) {
        let engine = self.open(&Limits::default(), |builder| builder);
        for id in ids {
            let end = end();
            let operation = Operation::new(async move |attempt| {
                attempt.checkpoint(*b"saved", None).await.unwrap();
                end
            });
            drop(engine.submit(call(flow, id, "r"), operation).await);
        }
        engine.shutdown().await;
    }

    async fn leave_in_doubt(&self, flow: &Flow, ids: &[&str]) {
        self.leave(flow, ids, || End::Unknown(Reason::from_bytes(*b"who knows"))).await;
    }
}

fn asking() -> Policy {
    Policy::replay(Duration::from_secs(600)).in_doubt(InDoubt::Ask)
}

fn quick() -> Limits {
    let mut limits = Limits::default();
    limits.recovery_pause = Duration::from_millis(5);
    limits.recovery_pause_max = Duration::from_millis(10);
    limits.dispatched_silence = Duration::from_millis(10);
    limits
}

type Asked = (Inquiry, oneshot::Sender<Found>);

/// An oracle whose answers are the test's to give: one that is dropped tells nothing, one that is kept is awaited.
fn oracle() -> (impl Fn(Inquiry) -> Telling + Send + Sync + 'static, mpsc::UnboundedReceiver<Asked>) {
    let (asked, questions) = mpsc::unbounded_channel();
    let oracle = move |inquiry| -> Telling {
        let (answer, heard) = oneshot::channel();
        asked.send((inquiry, answer)).ok();
        Box::pin(async move { heard.await.unwrap_or(Found::CannotTell) })
    };
    (oracle, questions)
}

type Telling = std::pin::Pin<Box<dyn Future<Output = Found> + Send>>;

fn completed(answer: &str) -> Found {
    Found::Done(Ended::Completed(answer.as_bytes().into()))
}

fn stored(engine: &Engine, key: &Key) -> Option<Record> {
    engine.lookup(key).unwrap()
}

/// Returns the record when it has come to hold.
async fn until_record(engine: &Engine, key: &Key, holds: impl Fn(Option<&Record>) -> bool) -> Option<Record> {
    let wait = async {
        loop {
            let record = stored(engine, key);
            if holds(record.as_ref()) {
                return record;
            }
            engine.stats().await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    within_a_minute(wait).await
}

async fn until_status(engine: &Engine, key: &Key, status: Status) -> Record {
    let is = |record: Option<&Record>| record.is_some_and(|record| record.state.status() == status);
    until_record(engine, key, is).await.unwrap()
}

async fn until_asked(questions: &mut mpsc::UnboundedReceiver<Asked>) -> Asked {
    within_a_minute(questions.recv()).await.unwrap()
}

type Tracker = tokio::task::JoinHandle<Result<Outcome<Bytes>, ibid::Error>>;

/// What the oracle has found is what a tracker hears that waited for it, and a retry that comes after it.
async fn is_heard(engine: &Engine, flow: &Flow, (found, on_failure): (Found, OnFailure), tracker: Tracker) {
    let counted = Counted::new();
    let retry = engine.submit(call(flow, "a", "r"), counted.operation());
    let is_preimage = |reply| matches!(reply, Reply::Answer(outcome) if &*outcome.answer == b"preimage");
    match (found, on_failure) {
        (Found::NotStarted, OnFailure::Forget) => {
            assert_eq!(tracker.await.unwrap().unwrap_err().class(), Class::Definitive);
            let Reply::Answer(outcome) = retry.await.unwrap() else { panic!("accepted") };
            assert_eq!((outcome.how, counted.runs()), (How::Executed, 1));
        }
        (Found::NotStarted, OnFailure::Keep) => {
            for error in [retry.await.unwrap_err(), tracker.await.unwrap().unwrap_err()] {
                assert_eq!(error.class(), Class::Definitive);
                assert_eq!(&**error.reason().unwrap().bytes(), b"not started");
            }
        }
        (Found::Live, _) => {
            assert!(!tracker.is_finished(), "it waits on");
            let end = Ended::Completed((*b"preimage").into());
            let own = engine.lookup(&key(flow, "a")).unwrap().unwrap().attempt;
            engine.resolve(flow, &key(flow, "a"), Some(own), end).await.unwrap();
            assert_eq!(&*tracker.await.unwrap().unwrap().answer, b"preimage");
            assert!(is_preimage(retry.await.unwrap()));
        }
        (Found::Done(Ended::Completed(_)), _) => {
            assert_eq!(&*tracker.await.unwrap().unwrap().answer, b"preimage");
            assert!(is_preimage(retry.await.unwrap()));
        }
        (Found::Done(Ended::Failed(_)) | Found::Abandoned | Found::Missing | Found::CannotTell, _) => {
            for error in [retry.await.unwrap_err(), tracker.await.unwrap().unwrap_err()] {
                assert!(matches!(error.kind(), ErrorKind::Duplicate(Status::Failed)), "{error:?}");
            }
        }
    }
}

#[tokio::test]
async fn over_a_restart_the_oracle_is_asked_with_everything_that_is_known_and_its_answer_decides() {
    let answers = [
        (Found::NotStarted, OnFailure::Forget, None),
        (Found::NotStarted, OnFailure::Keep, Some(Status::Failed)),
        (Found::Live, OnFailure::Forget, Some(Status::Dispatched)),
        (completed("preimage"), OnFailure::Forget, Some(Status::Completed)),
        (Found::Done(Ended::Failed((*b"no route").into())), OnFailure::Forget, Some(Status::Failed)),
    ];
    for (found, on_failure, status) in answers {
        let (house, flow) = (House::new(), flow_of(asking().on_failure(on_failure)));
        let key = key(&flow, "a");
        house.leave_in_doubt(&flow, &["a"]).await;
        let (oracle, mut questions) = oracle();
        let engine = house.open(&Limits::default(), |builder| builder.oracle(&flow, oracle));
        let left = stored(&engine, &key).unwrap();
        let (inquiry, answer) = until_asked(&mut questions).await;
        assert_eq!((inquiry.key(), &**inquiry.request()), (&key, b"r".as_slice()));
        assert_eq!((inquiry.attempt(), inquiry.token(), inquiry.status()), (1, &left.attempt.token, Status::InDoubt));
        assert_eq!(inquiry.last_checkpoint().map(|saved| &**saved), Some(b"saved".as_slice()));
        assert!(!format!("{inquiry:?}").contains("saved"), "no payload in what is logged");
        let tracker = {
            let (engine, flow, key) = (engine.clone(), flow.clone(), key.clone());
            tokio::spawn(async move { engine.track(&flow, &key).await })
        };
        until(&engine, |stats| stats.in_flight == 1).await;
        settled(&engine).await;
        answer.send(found.clone()).unwrap();
        let ended = |record: Option<&Record>| record.map(|record| record.state.status()) == status;
        until_record(&engine, &key, ended).await;
        is_heard(&engine, &flow, (found, on_failure), tracker).await;
        let stats = engine.stats().await.unwrap();
        assert_eq!((stats.inquiries, stats.alarms, stats.dead_letters), (1, 0, 0), "{stats:?}");
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn an_operation_that_panics_is_asked_about_at_once_and_the_oracle_ends_it() {
    let (house, flow) = (House::new(), flow_of(asking().after_completed(AfterCompleted::Refuse)));
    let (oracle, mut questions) = oracle();
    let engine = house.open(&Limits::default(), |builder| builder.oracle(&flow, oracle));
    let operation = Operation::new(async |_| std::panic::resume_unwind(Box::new("injected")));
    let heard = error(&engine, call(&flow, "a", "r"), operation).await;
    assert!(matches!(heard.kind(), ErrorKind::InDoubt(_)), "{heard:?}");
    let (inquiry, answer) = until_asked(&mut questions).await;
    assert_eq!((inquiry.attempt(), inquiry.last_checkpoint()), (1, None));
    answer.send(completed("done after all")).unwrap();
    let key = key(&flow, "a");
    until_status(&engine, &key, Status::Completed).await;
    assert_eq!(&*engine.track(&flow, &key).await.unwrap().answer, b"done after all");
    let counted = Counted::new();
    let retry = error(&engine, call(&flow, "a", "r"), counted.operation()).await;
    assert!(matches!(retry.kind(), ErrorKind::Duplicate(Status::Completed)), "{retry:?}");
    assert_eq!(counted.runs(), 0);
    engine.shutdown().await;
}

#[tokio::test]
async fn an_oracle_that_hangs_or_panics_for_some_keys_delays_none_of_the_others() {
    let (house, flow) = (House::new(), flow_of(asking()));
    let others: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let ids: Vec<&str> = ["hangs", "panics"].into_iter().chain(others.iter().map(String::as_str)).collect();
    house.leave_in_doubt(&flow, &ids).await;
    let mut limits = quick();
    (limits.background_recoveries, limits.recovery_slice) = (4, 7);
    let at_once = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let busy = Arc::clone(&at_once);
    let oracle = move |inquiry: Inquiry| {
        let busy = Arc::clone(&busy);
        async move {
            let now = busy.0.fetch_add(1, Ordering::SeqCst) + 1;
            busy.1.fetch_max(now, Ordering::SeqCst);
            match inquiry.key().id() {
                b"hangs" => std::future::pending().await,
                b"panics" => {
                    busy.0.fetch_sub(1, Ordering::SeqCst);
                    std::panic::resume_unwind(Box::new("injected into an oracle"));
                }
                _ => tokio::task::yield_now().await,
            }
            busy.0.fetch_sub(1, Ordering::SeqCst);
            completed("found")
        }
    };
    let engine = house.open(&limits, |builder| builder.oracle(&flow, oracle));
    for id in &others {
        until_status(&engine, &key(&flow, id), Status::Completed).await;
    }
    assert!(at_once.1.load(Ordering::SeqCst) <= 4, "no more than allowed are asked about at once");
    let panicked = until_record(&engine, &key(&flow, "panics"), |record| record.unwrap().recoveries > 0).await.unwrap();
    assert_eq!(panicked.state.status(), Status::InDoubt);
    assert_eq!(stored(&engine, &key(&flow, "hangs")).unwrap().recoveries, 0, "its time is not over");
    engine.shutdown().await;
}

#[tokio::test]
async fn no_answer_in_time_is_an_answer_that_tells_nothing() {
    let (house, flow) = (House::new(), flow_of(asking()));
    house.leave_in_doubt(&flow, &["a"]).await;
    let (oracle, mut questions) = oracle();
    let mut limits = quick();
    limits.oracle_timeout = Duration::from_millis(5);
    let engine = house.open(&limits, |builder| builder.oracle(&flow, oracle));
    let (_, mut answer) = until_asked(&mut questions).await;
    within_a_minute(answer.closed()).await;
    let record = until_record(&engine, &key(&flow, "a"), |record| record.unwrap().recoveries > 0).await.unwrap();
    assert_eq!(record.state.status(), Status::InDoubt);
    until_asked(&mut questions).await;
    engine.shutdown().await;
}

#[tokio::test]
async fn five_answers_that_tell_nothing_make_a_dead_letter_which_is_told_once_asked_on_and_can_still_end() {
    for ended_by_hand in [true, false] {
        let (house, flow) = (House::new(), flow_of(asking()));
        house.leave_in_doubt(&flow, &["a"]).await;
        let (oracle, mut questions) = oracle();
        let engine = house.open(&quick(), |builder| builder.oracle(&flow, oracle));
        let (key, mut first) = (key(&flow, "a"), Some(until_asked(&mut questions).await));
        let tracker = {
            let (engine, flow, key) = (engine.clone(), flow.clone(), key.clone());
            tokio::spawn(async move { engine.track(&flow, &key).await })
        };
        until(&engine, |stats| stats.in_flight == 1).await;
        settled(&engine).await;
        for count in 1..=5 {
            assert!(!tracker.is_finished() && !engine.list(None, 9).unwrap()[0].is_dead_letter);
            let (_, answer) = match first.take() {
                Some(first) => first,
                None => until_asked(&mut questions).await,
            };
            answer.send(Found::CannotTell).unwrap();
            until_record(&engine, &key, |record| record.unwrap().recoveries == count).await;
            house.clock.advance(Duration::from_millis(10));
        }
        let released = within_a_minute(tracker).await.unwrap().unwrap_err();
        assert!(matches!(released.kind(), ErrorKind::RecoveriesExhausted), "{released:?}");
        assert_eq!(released.class(), Class::Ambiguous);
        let (dead, listed) = (stored(&engine, &key).unwrap(), engine.list(None, 9).unwrap());
        assert!(listed[0].is_dead_letter && listed[0].found.as_ref().is_some_and(|(of, _)| *of == key));
        // It is asked about on and on, and nothing more is written.
        for _ in 0..3 {
            drop(until_asked(&mut questions).await);
        }
        let (_, last) = until_asked(&mut questions).await;
        assert_eq!(stored(&engine, &key).unwrap(), dead);
        let retry = error(&engine, call(&flow, "a", "r"), Counted::new().operation()).await;
        assert!(matches!(retry.kind(), ErrorKind::Duplicate(Status::InDoubt)), "{retry:?}");
        let stats = engine.stats().await.unwrap();
        assert_eq!(stats.dead_letters, 1, "counted once");
        assert!(stats.inquiries >= 9, "{stats:?}");
        if ended_by_hand {
            let end = Ended::Completed((*b"found").into());
            assert_eq!(engine.resolve(&flow, &key, None, end).await.unwrap(), Resolved::Recorded);
        } else {
            last.send(completed("found")).unwrap();
            until_status(&engine, &key, Status::Completed).await;
        }
        assert_eq!(&*answer(&engine, call(&flow, "a", "r"), Counted::new().operation()).await.answer, b"found");
        assert!(engine.list(None, 9).unwrap().is_empty());
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn a_retry_waits_for_the_first_answer_and_is_then_decided_anew_on_the_record() {
    for found in [Found::NotStarted, completed("found"), Found::CannotTell] {
        let (house, flow) = (House::new(), flow_of(asking()));
        house.leave_in_doubt(&flow, &["a"]).await;
        let (oracle, mut questions) = oracle();
        let engine = house.open(&Limits::default(), |builder| builder.oracle(&flow, oracle));
        let (_, answer) = until_asked(&mut questions).await;
        let counted = Counted::new();
        let retry = submit(&engine, call(&flow, "a", "r"), counted.operation());
        let other = error(&engine, call(&flow, "a", "other"), counted.operation()).await;
        assert!(matches!(other.kind(), ErrorKind::Mismatch), "another request has nothing to wait for: {other:?}");
        until(&engine, |stats| stats.in_flight == 1).await;
        settled(&engine).await;
        assert!(!retry.is_finished() && counted.runs() == 0);
        answer.send(found.clone()).unwrap();
        match found {
            Found::NotStarted => assert_eq!(heard(retry).await.how, How::Executed),
            Found::Done(_) => assert_eq!(&*heard(retry).await.answer, b"found"),
            Found::Live | Found::Abandoned | Found::Missing | Found::CannotTell => {
                let refused = within_a_minute(retry).await.unwrap().unwrap_err();
                assert!(matches!(refused.kind(), ErrorKind::Duplicate(Status::InDoubt)), "{refused:?}");
                // The next inquiry is a second away; nobody waits for it, and nobody brings it about.
                let again = error(&engine, call(&flow, "a", "r"), counted.operation()).await;
                assert!(matches!(again.kind(), ErrorKind::Duplicate(Status::InDoubt)), "{again:?}");
                assert_eq!(engine.stats().await.unwrap().inquiries, 1);
            }
        }
        assert_eq!(counted.runs(), usize::from(found == Found::NotStarted));
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn of_several_retries_that_wait_for_an_oracle_one_runs_when_it_says_that_nothing_has_started() {
    for (while_running, restarts) in [
        (WhileRunning::Join, true),
        (WhileRunning::Refuse, true),
        (WhileRunning::Join, false),
        (WhileRunning::Refuse, false),
    ] {
        let (house, flow) =
            (House::new(), flow_of(asking().on_failure(OnFailure::Forget).while_running(while_running)));
        if restarts {
            house.leave_in_doubt(&flow, &["a"]).await;
        }
        let (oracle, mut questions) = oracle();
        let engine = house.open(&Limits::default(), |builder| builder.oracle(&flow, oracle));
        if !restarts {
            let panicking = Operation::new(async |_| std::panic::resume_unwind(Box::new("injected")));
            error(&engine, call(&flow, "a", "r"), panicking).await;
        }
        let (inquiry, answer) = until_asked(&mut questions).await;
        let (counted, mut starts) = Counted::held();
        let retries = [(); 5].map(|()| submit(&engine, call(&flow, "a", "r"), counted.operation()));
        let other = submit(&engine, call(&flow, "a", "other"), counted.operation());
        until(&engine, |stats| stats.in_flight == 5).await;
        settled(&engine).await;
        answer.send(Found::NotStarted).unwrap();
        within_a_minute(starts.recv()).await.unwrap();
        let record = until_status(&engine, &key(&flow, "a"), Status::Registered).await;
        assert_eq!(record.attempt.number, 1, "forgotten, so it is a new record");
        assert_ne!(&record.attempt.token, inquiry.token());
        counted.release();
        let (mut executed, mut refused) = (0, 0);
        for retry in retries {
            match within_a_minute(retry).await.unwrap() {
                Ok(Reply::Answer(outcome)) => executed += usize::from(outcome.how == How::Executed),
                Err(error) if matches!(error.kind(), ErrorKind::Duplicate(Status::Registered)) => refused += 1,
                told => panic!("{told:?}"),
            }
        }
        assert_eq!((executed, refused), (1, if while_running == WhileRunning::Join { 0 } else { 4 }));
        assert!(matches!(other.await.unwrap().unwrap_err().kind(), ErrorKind::Mismatch));
        assert_eq!((counted.runs(), engine.stats().await.unwrap().inquiries), (1, 1));
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn a_retry_that_comes_while_what_never_started_is_being_forgotten_runs_once_it_is() {
    let (house, flow) = (House::new(), flow_of(asking()));
    house.leave_in_doubt(&flow, &["a"]).await;
    let (oracle, mut questions) = oracle();
    let store = Arc::new(FaultyStore::new(Arc::clone(&house.store)).keeping_inner());
    let builder = Engine::builder().clock(house.clock.clone()).oracle(&flow, oracle);
    let engine = builder.open_store(store.clone()).unwrap();
    let (_, answer) = until_asked(&mut questions).await;
    let counted = Counted::new();
    let waits = submit(&engine, call(&flow, "a", "r"), counted.operation());
    until(&engine, |stats| stats.in_flight == 1).await;
    settled(&engine).await;
    let gate = store.hold_commits();
    answer.send(Found::NotStarted).unwrap();
    store.until_held().await;
    let comes = submit(&engine, call(&flow, "a", "r"), counted.operation());
    until(&engine, |stats| stats.in_flight == 2).await;
    settled(&engine).await;
    assert_eq!(counted.runs(), 0, "it is not forgotten yet");
    drop(gate);
    let (waited, came) = (heard(waits).await, heard(comes).await);
    assert_eq!((waited.answer, counted.runs()), (came.answer, 1));
    engine.shutdown().await;
}

#[tokio::test]
async fn a_retry_waits_for_an_answer_no_longer_than_the_limit() {
    let (house, flow) = (House::new(), flow_of(asking()));
    house.leave_in_doubt(&flow, &["a"]).await;
    let (oracle, mut questions) = oracle();
    let mut limits = Limits::default();
    limits.oracle_timeout = Duration::from_millis(20);
    let engine = house.open(&limits, |builder| builder.oracle(&flow, oracle));
    let _kept = until_asked(&mut questions).await;
    let retry = submit(&engine, call(&flow, "a", "r"), Counted::new().operation());
    let refused = within_a_minute(retry).await.unwrap().unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::Duplicate(Status::InDoubt)), "{refused:?}");
    until(&engine, |stats| stats.in_flight == 0 && stats.live_actors == 0).await;
    engine.shutdown().await;
}

#[tokio::test]
async fn a_dispatched_record_without_news_is_asked_about_again_and_again() {
    let (house, flow) = (House::new(), flow_of(asking()));
    house.leave(&flow, &["old"], || End::Accepted).await;
    house.clock.advance(Duration::from_secs(1));
    house.leave(&flow, &["young"], || End::Accepted).await;
    house.leave_in_doubt(&flow, &["last"]).await;
    let (oracle, mut questions) = oracle();
    let engine = house.open(&Limits::default(), |builder| builder.oracle(&flow, oracle));
    let expected = [("old", Status::Dispatched), ("young", Status::Dispatched), ("last", Status::InDoubt)];
    for (id, status) in expected {
        let (inquiry, answer) = until_asked(&mut questions).await;
        assert_eq!((inquiry.key().id(), inquiry.status()), (id.as_bytes(), status), "at opening, however young");
        answer.send(Found::CannotTell).unwrap();
    }
    engine.shutdown().await;

    house.clock.advance(Duration::from_secs(30));
    let (oracle, mut questions) = self::oracle();
    let mut limits = quick();
    limits.recovery_pause_max = Duration::from_secs(3_600);
    let engine = house.open(&limits, |builder| builder.oracle(&flow, oracle));
    let key = key(&flow, "old");
    let before = stored(&engine, &key).unwrap();
    for found in [Found::Live, Found::CannotTell, Found::Live, completed("preimage")] {
        let answer = loop {
            let (inquiry, answer) = until_asked(&mut questions).await;
            if inquiry.key() == &key {
                break answer;
            }
        };
        assert_eq!(stored(&engine, &key).unwrap(), before, "no news, no write");
        answer.send(found).unwrap();
    }
    until_status(&engine, &key, Status::Completed).await;
    engine.shutdown().await;
}

/// What a re-run was handed.
type Handed = (u32, [u8; 32], Option<Bytes>);

#[tokio::test]
async fn without_a_caller_a_record_runs_again_once_with_its_checkpoint_and_token_for_as_long_as_was_wanted() {
    let policy = Policy::replay(Duration::ZERO).in_doubt(InDoubt::Rerun).retention(Retention::FromRequest);
    let (house, flow) = (House::new(), flow_of(policy));
    let (saves, key) = (key(&flow, "saves"), key(&flow, "a"));
    let engine = house.open(&Limits::default(), |builder| builder);
    for key in [&saves, &key] {
        let saving = *key == saves;
        let operation = Operation::new(async move |attempt| {
            if saving {
                attempt.checkpoint(*b"saved", None).await.unwrap();
            }
            End::Unknown(Reason::from_bytes(*b"who knows"))
        });
        let call = ibid::Call::new(&flow, key, *b"r").retention(Duration::from_secs(100));
        engine.submit(call, operation).await.unwrap_err();
    }
    let left = stored(&engine, &saves).unwrap();
    engine.shutdown().await;
    house.clock.advance(Duration::from_secs(40));
    let handed: Arc<Mutex<Vec<Handed>>> = Arc::default();
    let made = Arc::clone(&handed);
    let rerun = move |key: &Key, request: &Bytes| {
        assert_eq!(&**request, b"r");
        let (made, answer) = (Arc::clone(&made), key.id().to_vec());
        Operation::new(async move |attempt| {
            let saved = attempt.last_checkpoint().cloned();
            made.lock().unwrap().push((attempt.number(), attempt.token().0, saved));
            End::done(answer)
        })
    };
    let engine = house.open(&quick(), |builder| builder.rerun(&flow, rerun));
    let again = until_status(&engine, &saves, Status::Completed).await;
    assert_eq!(again.expires_at, left.expires_at, "the bound of the attempt that saved");
    let record = until_status(&engine, &key, Status::Completed).await;
    assert_eq!(record.expires_at, Some(UnixMillis(START.0 + 140_000)), "100 s from the re-run's admission");
    let retry = answer(&engine, ibid::Call::new(&flow, &saves, *b"r"), Counted::new().operation()).await;
    assert_eq!((retry.how, &*retry.answer), (How::Replayed, b"saves".as_slice()));
    assert_eq!(engine.stats().await.unwrap().reruns, 2);
    engine.shutdown().await;
    let handed = handed.lock().unwrap();
    assert_eq!(handed.len(), 2, "each of them once");
    assert!(handed.contains(&(2, left.attempt.token.0, Some((*b"saved").into()))));
    assert!(handed.iter().any(|(number, _, saved)| *number == 2 && saved.is_none()));
}

#[tokio::test]
async fn re_runs_that_end_unknown_go_on_by_themselves_to_the_limit_and_then_rest_as_a_dead_letter() {
    let flow = flow_of(Policy::replay(Duration::from_secs(600)).in_doubt(InDoubt::Rerun));
    let (house, runs) = (House::new(), Arc::new(AtomicUsize::new(0)));
    house.leave_in_doubt(&flow, &["a"]).await;
    let counted = Arc::clone(&runs);
    // It panics while it is made, where operations run: no actor dies of it.
    let rerun = move |_: &Key, _: &Bytes| -> Operation {
        counted.fetch_add(1, Ordering::SeqCst);
        std::panic::resume_unwind(Box::new("injected into a re-run"))
    };
    let engine = house.open(&quick(), |builder| builder.rerun(&flow, rerun));
    until_record(&engine, &key(&flow, "a"), |record| record.unwrap().recoveries == 5).await;
    let stats = until(&engine, |stats| stats.dead_letters == 1).await;
    assert_eq!((stats.reruns, stats.died_actors, runs.load(Ordering::SeqCst)), (5, 0, 5), "{stats:?}");
    assert!(engine.list(None, 9).unwrap()[0].is_dead_letter);
    let exhausted = error(&engine, call(&flow, "a", "r"), Counted::new().operation()).await;
    assert!(matches!(exhausted.kind(), ErrorKind::RecoveriesExhausted), "{exhausted:?}");
    engine.shutdown().await;
}

#[tokio::test]
async fn without_any_recoveries_allowed_a_record_is_a_dead_letter_after_one_answer_and_not_before() {
    let (house, flow) = (House::new(), flow_of(asking()));
    house.leave_in_doubt(&flow, &["a"]).await;
    let (oracle, mut questions) = oracle();
    let mut limits = quick();
    limits.recoveries = 0;
    let engine = house.open(&limits, |builder| builder.oracle(&flow, oracle));
    let (key, (_, answer)) = (key(&flow, "a"), until_asked(&mut questions).await);
    let tracker = {
        let (engine, flow, key) = (engine.clone(), flow.clone(), key.clone());
        tokio::spawn(async move { engine.track(&flow, &key).await })
    };
    until(&engine, |stats| stats.in_flight == 1).await;
    settled(&engine).await;
    assert!(!tracker.is_finished() && !engine.list(None, 9).unwrap()[0].is_dead_letter);
    answer.send(Found::CannotTell).unwrap();
    let released = within_a_minute(tracker).await.unwrap().unwrap_err();
    assert!(matches!(released.kind(), ErrorKind::RecoveriesExhausted), "{released:?}");
    assert!(engine.list(None, 9).unwrap()[0].is_dead_letter);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_record_that_could_not_be_read_is_asked_about_as_soon_as_it_can_be() {
    let (house, flow) = (House::new(), flow_of(asking()));
    house.leave_in_doubt(&flow, &["a"]).await;
    let store = Arc::new(FaultyStore::new(Arc::clone(&house.store)).keeping_inner());
    // The first to read it is the one who is to ask.
    store.fail_reads(1);
    let (oracle, mut questions) = oracle();
    let mut limits = quick();
    limits.recovery_pause_max = Duration::from_secs(3_600);
    limits.dispatched_silence = Duration::from_secs(3_600);
    let builder = Engine::builder().clock(house.clock.clone()).limits(limits).oracle(&flow, oracle);
    let engine = builder.open_store(store).unwrap();
    let (_, answer) = until_asked(&mut questions).await;
    answer.send(completed("found")).unwrap();
    until_status(&engine, &key(&flow, "a"), Status::Completed).await;
    engine.shutdown().await;
}

#[tokio::test]
async fn a_re_run_without_a_permit_waits_for_its_turn() {
    let flow = flow_of(Policy::replay(Duration::from_secs(600)).in_doubt(InDoubt::Rerun));
    let house = House::new();
    house.leave_in_doubt(&flow, &["a", "b"]).await;
    let mut limits = quick();
    limits.in_flight = 1;
    let (counted, mut starts) = Counted::held();
    let again = counted.clone();
    let engine = house.open(&limits, |builder| builder.rerun(&flow, move |_, _| again.operation()));
    assert_eq!(within_a_minute(starts.recv()).await, Some(1));
    let busy = error(&engine, call(&flow, "c", "r"), Counted::new().operation()).await;
    assert!(matches!(busy.kind(), ErrorKind::Busy { .. }), "it holds a permit like any other: {busy:?}");
    house.clock.advance(Duration::from_secs(1));
    settled(&engine).await;
    assert_eq!((counted.runs(), engine.stats().await.unwrap().in_flight), (1, 1));
    counted.release_one();
    assert_eq!(within_a_minute(starts.recv()).await, Some(2));
    counted.release();
    for id in ["a", "b"] {
        until_status(&engine, &key(&flow, id), Status::Completed).await;
    }
    assert_eq!(counted.runs(), 2);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_retry_joins_a_re_run_that_nobody_asked_for() {
    let flow = flow_of(Policy::replay(Duration::from_secs(600)).in_doubt(InDoubt::Rerun));
    let house = House::new();
    house.leave_in_doubt(&flow, &["a"]).await;
    let (counted, mut starts) = Counted::held();
    let again = counted.clone();
    let engine = house.open(&quick(), |builder| builder.rerun(&flow, move |_, _| again.operation()));
    assert_eq!(within_a_minute(starts.recv()).await, Some(1));
    let retry = submit(&engine, call(&flow, "a", "r"), counted.operation());
    until(&engine, |stats| stats.in_flight == 2).await;
    settled(&engine).await;
    counted.release();
    let outcome = heard(retry).await;
    assert_eq!((outcome.how, &*outcome.answer, counted.runs()), (How::Joined, b"1".as_slice(), 1));
    engine.shutdown().await;
}

#[tokio::test]
async fn while_the_clock_stands_still_timers_keep_the_questions_coming() {
    let (house, flow) = (House::new(), flow_of(asking()));
    house.leave_in_doubt(&flow, &["a"]).await;
    house.leave(&flow, &["b"], || End::Accepted).await;
    let (oracle, mut questions) = oracle();
    let engine = house.open(&quick(), |builder| builder.oracle(&flow, oracle));
    let mut asked = [0, 0];
    while asked.iter().any(|times| *times < 4) {
        let (inquiry, _) = until_asked(&mut questions).await;
        asked[usize::from(inquiry.key().id() == b"b")] += 1;
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn what_was_written_at_a_time_that_proved_wrong_is_asked_about_on_and_on() {
    let (house, flow) = (House::new(), flow_of(asking()));
    let (oracle, mut questions) = oracle();
    let engine = house.open(&quick(), |builder| builder.oracle(&flow, oracle));
    house.clock.set(START.saturating_add(Duration::from_secs(86_400 * 365)));
    let unknown = Operation::new(async |_| End::Unknown(Reason::from_bytes(*b"who knows")));
    error(&engine, call(&flow, "a", "r"), unknown).await;
    assert_eq!(until_asked(&mut questions).await.0.key().id(), b"a", "at once");
    until_record(&engine, &key(&flow, "a"), |record| record.unwrap().recoveries == 1).await;
    engine.submit(call(&flow, "b", "r"), Operation::new(async |_| End::Accepted)).await.unwrap();
    house.clock.set(START);
    // Where the time stood still, everything would be due for that.
    let clock = house.clock.clone();
    let time = tokio::spawn(async move {
        loop {
            clock.advance(Duration::from_millis(1));
            tokio::task::yield_now().await;
        }
    });
    let mut asked = [0, 0];
    while asked.iter().any(|times| *times < 3) {
        let (inquiry, _) = until_asked(&mut questions).await;
        asked[usize::from(inquiry.key().id() == b"b")] += 1;
    }
    time.abort();
    engine.shutdown().await;
}

#[tokio::test]
async fn an_end_that_comes_while_somebody_is_asked_stays_and_another_one_is_a_contradiction() {
    let (house, flow) = (House::new(), flow_of(asking()));
    house.leave_in_doubt(&flow, &["a"]).await;
    let (oracle, mut questions) = oracle();
    let engine = house.open(&Limits::default(), |builder| builder.oracle(&flow, oracle));
    let (key, (_, answer)) = (key(&flow, "a"), until_asked(&mut questions).await);
    let retry = submit(&engine, call(&flow, "a", "r"), Counted::new().operation());
    until(&engine, |stats| stats.in_flight == 1).await;
    settled(&engine).await;
    engine.resolve(&flow, &key, None, Ended::Failed((*b"lost").into())).await.unwrap();
    let refused = within_a_minute(retry).await.unwrap().unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::Duplicate(Status::Failed)), "it waits no longer: {refused:?}");
    answer.send(completed("preimage")).unwrap();
    until(&engine, |stats| stats.alarms == 1).await;
    let record = stored(&engine, &key).unwrap();
    assert_eq!(
        record.contradiction.as_deref(),
        Some(b"preimage".as_slice()),
        "money has moved, and somebody can see it"
    );
    assert_eq!(record.state.status(), Status::Failed);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_waits_for_no_oracle_and_the_next_engine_asks_again() {
    let (house, flow) = (House::new(), flow_of(asking()));
    house.leave_in_doubt(&flow, &["a"]).await;
    let mut limits = Limits::default();
    (limits.drain, limits.oracle_timeout) = (Duration::from_secs(3_600), Duration::from_secs(3_600));
    let (first_oracle, mut questions) = oracle();
    let engine = house.open(&limits, |builder| builder.oracle(&flow, first_oracle));
    let (_, answer) = until_asked(&mut questions).await;
    let before = stored(&engine, &key(&flow, "a")).unwrap();
    let retry = submit(&engine, call(&flow, "a", "r"), Counted::new().operation());
    until(&engine, |stats| stats.in_flight == 1).await;
    settled(&engine).await;
    within_a_minute(engine.shutdown()).await;
    let refused = retry.await.unwrap().unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::Closed) && refused.class() == Class::Ambiguous, "{refused:?}");
    answer.send(completed("too late")).unwrap_err();
    let (oracle, mut questions) = oracle();
    let engine = house.open(&limits, |builder| builder.oracle(&flow, oracle));
    assert_eq!(stored(&engine, &key(&flow, "a")).unwrap(), before, "that nobody could say proves nothing");
    let (_, answer) = until_asked(&mut questions).await;
    answer.send(completed("found")).unwrap();
    until_status(&engine, &key(&flow, "a"), Status::Completed).await;
    engine.shutdown().await;
}

#[tokio::test]
async fn an_answer_that_cannot_be_saved_is_asked_for_again() {
    let (house, flow) = (House::new(), flow_of(asking()));
    house.leave_in_doubt(&flow, &["a"]).await;
    let store = Arc::new(FaultyStore::new(Arc::clone(&house.store)).keeping_inner());
    let (oracle, mut questions) = oracle();
    let builder = Engine::builder().clock(house.clock.clone()).limits(quick()).oracle(&flow, oracle);
    let engine = builder.open_store(store.clone()).unwrap();
    let (_, answer) = until_asked(&mut questions).await;
    store.break_down(ibid::testing::Outage::Commits);
    answer.send(completed("found")).unwrap();
    within_a_minute(store.until_reopens(2)).await;
    store.heal();
    // Saved by the tries that go on, or lost and asked for again.
    let answering = async {
        while let Some((_, answer)) = questions.recv().await {
            answer.send(completed("found")).ok();
        }
    };
    let key = key(&flow, "a");
    tokio::select! {
        biased;
        _ = until_status(&engine, &key, Status::Completed) => {}
        () = answering => panic!("nobody is asked any more"),
    }
    engine.shutdown().await;
}

#[test]
fn what_the_policy_would_never_use_is_refused_at_opening() {
    let asked = Flow::new("asked", asking()).unwrap();
    let rerun = Flow::new("rerun", asking().in_doubt(InDoubt::Rerun)).unwrap();
    let oracle = async |_| Found::CannotTell;
    let again = |_: &Key, _: &Bytes| Counted::new().operation();
    let ambiguous = Flow::new("neither", asking().in_doubt(InDoubt::Ambiguous)).unwrap();
    let named = |flow: &Flow| flow.name().to_owned();
    for (builder, invalid) in [
        (Engine::builder().oracle(&rerun, oracle), InvalidRecovery::OracleNeverAsked(named(&rerun))),
        (Engine::builder().oracle(&ambiguous, oracle), InvalidRecovery::OracleNeverAsked(named(&ambiguous))),
        (Engine::builder().rerun(&asked, again), InvalidRecovery::RerunNeverRun(named(&asked))),
        (Engine::builder().rerun(&rerun, again).rerun(&rerun, again), InvalidRecovery::Twice(named(&rerun))),
    ] {
        match builder.open_in_memory().unwrap_err() {
            StoreError::Settings(found) => assert_eq!(found, invalid),
            other => panic!("{other:?}"),
        }
    }
    Engine::builder().oracle(&asked, oracle).rerun(&rerun, again).open_in_memory().unwrap().shutdown_blocking();
}

/// Counts what is read of a store.
struct Counting {
    inner: MemoryStore,
    records: AtomicUsize,
    slices: AtomicUsize,
    totals: AtomicUsize,
}

impl Counting {
    fn read(&self) -> (usize, usize) {
        (self.records.load(Ordering::SeqCst), self.slices.load(Ordering::SeqCst))
    }
}

impl Layer for Counting {
    fn below(&self) -> &dyn Store {
        &self.inner
    }

    fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.records.fetch_add(1, Ordering::SeqCst);
        self.inner.get(key)
    }

    fn in_flight(&self, after: Option<Cursor>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let entries = self.inner.in_flight(after, limit)?;
        self.slices.fetch_add(1, Ordering::SeqCst);
        self.records.fetch_add(entries.len(), Ordering::SeqCst);
        Ok(entries)
    }

    fn totals(&self) -> Result<Totals, StoreError> {
        self.totals.fetch_add(1, Ordering::SeqCst);
        self.inner.totals()
    }

    /// Another engine is opened over it.
    fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test]
async fn beside_thousands_of_finished_records_only_what_is_in_doubt_is_read_and_without_any_nothing() {
    let store = Arc::new(Counting { inner: MemoryStore::new(), records: 0.into(), slices: 0.into(), totals: 0.into() });
    let (flow, clock) = (flow_of(asking()), ManualClock::at(START));
    let open = |builder: Builder| builder.clock(clock.clone()).limits(quick()).open_store(store.clone()).unwrap();
    let engine = open(Engine::builder());
    for number in 0..2_000 {
        answer(&engine, call(&flow, &number.to_string(), "r"), Counted::new().operation()).await;
    }
    for id in ["x", "y", "z"] {
        error(&engine, call(&flow, id, "r"), Operation::new(async |_| End::Unknown(Reason::from_bytes(*b"?")))).await;
    }
    engine.shutdown().await;
    let before = store.read().0;
    let (first_oracle, mut questions) = oracle();
    let engine = open(Engine::builder().oracle(&flow, first_oracle));
    for _ in 0..3 {
        until_asked(&mut questions).await.1.send(completed("found")).unwrap();
    }
    until(&engine, |stats| stats.records.in_doubt == 0 && stats.live_actors == 0).await;
    let read = store.read().0 - before;
    assert!(read < 60, "{read} records were read to recover three");
    engine.shutdown().await;

    let (before, slices) = store.read();
    let (oracle, _questions) = oracle();
    let engine = open(Engine::builder().oracle(&flow, oracle));
    // Each turn of the recovery's timers looks at the totals first, and at nothing else if there is nothing in flight.
    let looked = store.totals.load(Ordering::SeqCst);
    let turns = async {
        while store.totals.load(Ordering::SeqCst) < looked + 10 {
            tokio::task::yield_now().await;
        }
    };
    within_a_minute(turns).await;
    assert_eq!(store.read(), (before, slices + 1), "looked at once, when it was opened");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_retry_that_has_waited_for_an_answer_does_not_ask_for_another_one() {
    let (bench, flow, counted) = (Bench::new(), flow_of(Policy::send_payment()), Counted::new());
    let mut limits = Limits::default();
    limits.recovery_pause = Duration::from_secs(60);
    let answers = Arc::new(tokio::sync::Semaphore::new(0));
    let held = Arc::clone(&answers);
    let oracle = move |_| {
        let held = Arc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            Found::Missing
        }
    };
    let builder = Engine::builder().clock(bench.clock.clone()).limits(limits).oracle(&flow, oracle);
    let engine = builder.open(bench.path()).unwrap();
    let lost = counted.ending(|_| End::Unknown(Reason::from_bytes(*b"lost")));
    error(&engine, call(&flow, "a", "r"), lost).await;
    until(&engine, |stats| stats.inquiries == 1 && stats.in_flight == 0).await;
    let retry = submit(&engine, call(&flow, "a", "r"), counted.operation());
    until(&engine, |stats| stats.in_flight == 1).await;
    settled(&engine).await;
    answers.add_permits(9);
    let retry = within_a_minute(retry).await.unwrap().unwrap_err();
    assert!(matches!(retry.kind(), ErrorKind::Duplicate(Status::InDoubt)), "{retry:?}");
    assert_eq!(engine.stats().await.unwrap().inquiries, 1, "it was told what it had waited for");
    assert_eq!(counted.runs(), 1);
    engine.shutdown().await;
}
