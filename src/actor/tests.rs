//! What needs a look inside: panics injected into key actors.

mod asking;
mod deaths;
mod held;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::message::ToKey;
use crate::policy::InDoubt;
use crate::{Call, End, Engine, ErrorKind, Flow, Key, Operation, Policy, Reason};

/// Which messages to key actors panic in their handlers, by the flow of the key: every test has flows of its own, and none
/// disturbs another.
static POISON: Mutex<Vec<Poison>> = Mutex::new(Vec::new());

struct Poison {
    flow: &'static str,
    /// `None`: of any kind.
    kind: Option<Kind>,
    /// Every n-th of them.
    every: u64,
    seen: u64,
    /// How many are still to panic.
    left: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ticket,
    Report,
    Answer,
    Decided,
    Other,
}

impl Kind {
    fn of(message: &ToKey) -> Self {
        match message {
            ToKey::Ticket(_) => Self::Ticket,
            ToKey::Report(_) => Self::Report,
            ToKey::Answer(_) => Self::Answer,
            ToKey::Decided(_) => Self::Decided,
            ToKey::Recover(_)
            | ToKey::Unsaved(_)
            | ToKey::Abandon(_)
            | ToKey::EndLost
            | ToKey::Drain
            | ToKey::LastRound(_) => Self::Other,
        }
    }
}

pub(super) fn panic_if_told(key: &Key, message: &ToKey) {
    let kind = Kind::of(message);
    let panics = lock().iter_mut().any(|poison| {
        let is_meant = poison.flow == key.flow() && poison.left > 0 && poison.kind.is_none_or(|other| other == kind);
        poison.seen += u64::from(is_meant);
        let panics = is_meant && poison.seen.is_multiple_of(poison.every);
        poison.left -= u64::from(panics);
        panics
    });
    if panics {
        std::panic::resume_unwind(Box::new("injected into a key actor"));
    }
}

fn lock() -> MutexGuard<'static, Vec<Poison>> {
    POISON.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next `left` messages of this kind panic.
fn poison(flow: &'static str, kind: Kind, left: u64) {
    lock().push(Poison { flow, kind: Some(kind), every: 1, seen: 0, left });
}

/// Every n-th message panics.
fn poison_every(flow: &'static str, every: u64) {
    lock().push(Poison { flow, kind: None, every, seen: 0, left: u64::MAX });
}

fn cure(flow: &'static str) {
    lock().retain(|poison| poison.flow != flow);
}

const REQUESTS: usize = 300_000;
const CALLERS: usize = 128;
const KEYS: usize = 300;

/// What each request came to.
#[derive(Default)]
struct Tally {
    answers: AtomicUsize,
    failures: AtomicUsize,
    in_doubt: AtomicUsize,
    /// The end went down with the key actor that had it in hand: typed, *Ambiguous*, and rare.
    internal: AtomicUsize,
}

impl Tally {
    fn count(&self, heard: Result<crate::Reply, crate::Error>) {
        let slot = match heard.as_ref().map_err(crate::Error::kind) {
            Ok(_) => &self.answers,
            Err(ErrorKind::Failed(_)) => &self.failures,
            Err(ErrorKind::InDoubt(_)) => &self.in_doubt,
            Err(ErrorKind::Internal) => &self.internal,
            Err(other) => panic!("no such answer was to be expected: {other:?}"),
        };
        slot.fetch_add(1, Ordering::Relaxed);
    }
}

/// One in 40 panics, one in 10 answers, the rest fail without effect (and so are forgotten: the next request runs again).
fn operation(number: usize) -> Operation {
    // Scrambled, so that no key sees only panics.
    let drawn = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    Operation::new(async move |_| match drawn {
        n if n % 40 == 0 => std::panic::resume_unwind(Box::new("injected into an operation")),
        n if n % 10 == 1 => End::done(*b"answer"),
        _ => End::Definitive(Reason::from_bytes(*b"no")),
    })
}

/// So that its next request runs again. It goes through key actors as well, and may meet a dead one.
async fn forget(engine: &Engine, flow: &Flow, key: crate::Key) {
    let forgotten = engine.forget(flow, &[key]).await;
    assert!(forgotten.is_ok_and(|statuses| statuses.len() == 1));
}

#[test]
fn of_300_000_requests_none_is_lost_to_panics_in_operations_and_key_actors() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tally = Arc::new(Tally::default());
    let stats = runtime.block_on(async {
        let engine = Engine::builder().open_in_memory().unwrap();
        poison_every("loss", 500);
        let policy = Policy::replay(Duration::from_secs(600)).in_doubt(InDoubt::Rerun);
        let flow = Flow::new("loss", policy).unwrap();
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (engine, flow, tally) = (engine.clone(), flow.clone(), Arc::clone(&tally));
                tokio::spawn(async move {
                    for number in (caller..REQUESTS).step_by(CALLERS) {
                        // Neighbouring callers meet at a key about half of the time.
                        let key = flow.key(b"scope", ((number / 2) % KEYS).to_be_bytes()).unwrap();
                        let call = Call::new(&flow, &key, *b"request");
                        tally.count(engine.submit(call, operation(number)).await);
                        if number % 4 == 1 {
                            forget(&engine, &flow, key).await;
                        }
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        cure("loss");
        let stats = engine.stats().await.unwrap();
        engine.shutdown().await;
        stats
    });
    let heard = [&tally.answers, &tally.failures, &tally.in_doubt].map(|count| count.load(Ordering::Relaxed));
    let internal = tally.internal.load(Ordering::Relaxed);
    assert_eq!(heard.iter().sum::<usize>() + internal, REQUESTS, "every caller gets exactly one typed answer");
    assert!(heard.iter().all(|count| *count > 1_000), "every kind of end was met: {heard:?}");
    assert!(internal as u64 <= 4 * stats.died_actors, "only callers of a dead actor may lose their end: {internal}");
    assert!(stats.died_actors > 500, "the panics were injected: {stats:?}");
    assert_eq!((stats.live_actors, stats.running, stats.in_flight), (0, 0, 0), "{stats:?}");
}
