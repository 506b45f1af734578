//! What the world knows of each operation: whether its effect happened. An oracle answers from it, sometimes late or not at
//! all; and the operations that the engine runs again by itself.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ibid::testing::Random;
use ibid::{Builder, Bytes, Ended, Found, Inquiry};
use tokio::sync::Semaphore;

use super::history::{Finished, History, Inquired, What};
use super::plan::{Place, Plan, of};
use super::script::{Of, Script, pass};

/// What became of the effect of each attempt's token. Clones share it.
#[derive(Clone)]
pub(crate) struct Truth {
    history: History,
    inner: Arc<Inner>,
}

struct Inner {
    fates: Mutex<BTreeMap<[u8; 32], Found>>,
    random: Mutex<Random>,
    /// Nobody dawdles any more.
    calm: AtomicBool,
}

/// How an oracle takes a question.
#[derive(Clone, Copy)]
enum Manner {
    Knows(Duration),
    CannotTell(Duration),
    Hangs,
    Panics,
}

impl Truth {
    pub(crate) fn new(history: History, random: Random) -> Self {
        let (fates, random, calm) = (Mutex::default(), Mutex::new(random), AtomicBool::new(false));
        Self { history, inner: Arc::new(Inner { fates, random, calm }) }
    }

    pub(crate) fn calm_down(&self) {
        self.inner.calm.store(true, Ordering::Relaxed);
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.inner.random.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn manner(&self) -> Manner {
        if self.inner.calm.load(Ordering::Relaxed) {
            return Manner::Knows(Duration::ZERO);
        }
        self.draw(|random| {
            let late = Duration::from_millis(of(random, &[0, 0, 1, 40, 900, 4_000, 4_999, 5_001]));
            match random.below(10) {
                0..=3 => Manner::Knows(late),
                4..=7 => Manner::CannotTell(late),
                8 => Manner::Hangs,
                _ => Manner::Panics,
            }
        })
    }

    /// Whether the effect of this token happened. What never started did not and never will: nothing of an attempt that
    /// is asked about runs. Else it is found out once, and stays so; only what is live may still come to an end.
    fn fate(&self, token: &[u8; 32]) -> Found {
        let mut fates = self.inner.fates.lock().unwrap_or_else(PoisonError::into_inner);
        let known = fates.get(token).cloned();
        let fate = match known {
            Some(known) => self.moved_on(token, known),
            None => self.first_fate(token),
        };
        fates.insert(*token, fate.clone());
        fate
    }

    fn first_fate(&self, token: &[u8; 32]) -> Found {
        match self.history.last_run(token) {
            None | Some(Some(Finished::Definitive(_))) => Found::NotStarted,
            Some(Some(Finished::Done { answer, .. })) => Found::Done(Ended::Completed(answer)),
            // Downstream has it under another request, and never under this.
            Some(Some(Finished::Taken)) => Found::NotStarted,
            // It may have been lost with what downstream wrote last, or that has yet to catch up.
            Some(Some(Finished::Accepted | Finished::AlreadyLive)) => match self.draw(|random| random.below(4)) {
                0 | 1 if !self.inner.calm.load(Ordering::Relaxed) => Found::Missing,
                _ => Found::Live,
            },
            // It broke off, maybe before it had sent anything.
            Some(Some(Finished::Unknown(_) | Finished::Lost) | None) => match self.draw(|random| random.below(6)) {
                0 => Found::NotStarted,
                1 => Found::Live,
                2 => Found::Abandoned,
                3 => self.moved_on(token, Found::Missing),
                _ => self.ended(token),
            },
        }
    }

    /// What is live may be given up, and may come to an end; what is missing turns up, or it is certain that it will not.
    fn moved_on(&self, token: &[u8; 32], known: Found) -> Found {
        let is_calm = self.inner.calm.load(Ordering::Relaxed);
        match (known, self.draw(|random| random.below(8))) {
            (Found::Live, 0) => Found::Abandoned,
            // It has forgotten what it wrote last.
            (Found::Live, 1) if !is_calm => Found::Missing,
            (Found::Live | Found::Abandoned, 4..) => self.ended(token),
            (Found::Missing, 0..4) if !is_calm => Found::Missing,
            (Found::Missing, 0..6) => Found::NotStarted,
            (Found::Missing, 6) => Found::Live,
            (Found::Missing, _) => self.ended(token),
            (known, _) => known,
        }
    }

    fn ended(&self, token: &[u8; 32]) -> Found {
        let bytes: Bytes = format!("the end of {:02x}", token[0]).into_bytes().into();
        let fails = self.draw(|random| random.once_in(3));
        Found::Done(if fails { Ended::Failed(bytes) } else { Ended::Completed(bytes) })
    }

    async fn answer(self, mut open: Open, token: [u8; 32], manner: Manner) -> Found {
        match manner {
            Manner::Knows(late) => {
                pass(late).await;
                open.say(self.fate(&token))
            }
            Manner::CannotTell(late) => {
                pass(late).await;
                open.say(Found::CannotTell)
            }
            Manner::Hangs => std::future::pending().await,
            Manner::Panics => resume_unwind(Box::new("the oracle")),
        }
    }
}

/// An inquiry that notes its end, however that comes.
struct Open {
    history: History,
    inquiry: usize,
    said: bool,
}

impl Open {
    fn say(&mut self, found: Found) -> Found {
        self.said = true;
        self.history.note(What::Heard { inquiry: self.inquiry, found: Some(found.clone()) });
        found
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.said {
            self.history.note(What::Heard { inquiry: self.inquiry, found: None });
        }
    }
}

/// What an engine gets to recover with.
#[derive(Clone)]
pub(crate) struct Recovering {
    truth: Truth,
    pub(crate) plan: Arc<Plan>,
    pub(crate) history: History,
    release: Arc<Semaphore>,
    pub(crate) boot: usize,
}

impl Recovering {
    pub(crate) fn new(truth: &Truth, plan: &Arc<Plan>, release: &Arc<Semaphore>, boot: usize) -> Self {
        let (history, release) = (truth.history.clone(), Arc::clone(release));
        Self { truth: truth.clone(), plan: Arc::clone(plan), history, release, boot }
    }

    pub(crate) fn register(&self, builder: Builder) -> Builder {
        let is_first =
            |place: &Place, before: &[Place]| before.iter().all(|other| other.flow.name() != place.flow.name());
        let places = self.plan.keys.iter().enumerate();
        let flows = places.filter(|(number, place)| is_first(place, &self.plan.keys[..*number]));
        flows.fold(builder, |builder, (_, place)| {
            let this = self.clone();
            if place.grid.is_asked() {
                builder.oracle(&place.flow, move |inquiry| this.ask(this.plan.place(inquiry.key()), &inquiry))
            } else if place.grid.is_rerun() {
                builder.rerun(&place.flow, move |key, _| this.rerun(this.plan.place(key)))
            } else {
                builder
            }
        })
    }

    fn ask(&self, key: usize, inquiry: &Inquiry) -> impl Future<Output = Found> + Send + use<> {
        let number = self.history.number();
        let token = inquiry.token().0;
        self.history.note(What::Inquired(Inquired {
            inquiry: number,
            boot: self.boot,
            key,
            number: inquiry.attempt(),
            token,
            request: inquiry.request().clone(),
            checkpoint: inquiry.last_checkpoint().cloned(),
            status: inquiry.status(),
        }));
        let open = Open { history: self.history.clone(), inquiry: number, said: false };
        let manner = self.truth.manner();
        self.truth.clone().answer(open, token, manner)
    }

    fn rerun(&self, key: usize) -> ibid::Operation {
        let script =
            if self.truth.inner.calm.load(Ordering::Relaxed) { Script::short() } else { self.truth.draw(Script::draw) };
        let of = Of { boot: self.boot, key, call: None };
        script.operation(self.history.clone(), of, Arc::clone(&self.release))
    }
}
