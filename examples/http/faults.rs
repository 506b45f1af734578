//! A store that fails on demand: the next so many transactions with a transition of a chosen kind.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use ibid::State;
use ibid::store::{Batch, Change, RedbStore, Store, StoreError, Verdict};
use ibid::testing::Layer;

/// A store over the engine's file.
pub(crate) struct Faults {
    below: Arc<RedbStore>,
    plan: Mutex<Plan>,
}

/// What fails next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) on: On,
    /// How many transactions more. Zero: none fails.
    pub(crate) fails: u64,
    /// Whether what fails is written all the same.
    pub(crate) is_written: bool,
}

/// With which transitions a transaction fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// One that registers an attempt.
    Admit,
    /// One that ends an attempt.
    Finish,
    /// Any of a record.
    Any,
}

impl Faults {
    pub(crate) fn over(below: Arc<RedbStore>) -> Self {
        Self { below, plan: Mutex::new(Plan { on: On::Any, fails: 0, is_written: false }) }
    }

    /// In place of what was planned so far.
    pub(crate) fn set(&self, plan: Plan) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = plan;
    }

    /// The plan, if it strikes this batch. That counts as one of its times.
    fn strike(&self, batch: &Batch) -> Option<Plan> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let strikes = plan.fails > 0 && batch.changes.iter().any(|change| self.is_meant(plan.on, change));
        strikes.then(|| {
            plan.fails -= 1;
            *plan
        })
    }

    /// A change of rows alone, such as the daily counts, is no transition.
    fn is_meant(&self, on: On, change: &Change) -> bool {
        let is_transition = change.put.is_some() || change.expected.is_some();
        is_transition && (on == On::Any || self.kind(change) == Some(on))
    }

    /// What the change does, by the record that it replaces. `None`: it neither begins nor ends an attempt (an expiry, an oracle
    /// that cannot tell).
    fn kind(&self, change: &Change) -> Option<On> {
        let stored = self.below.get(&change.key).ok().flatten();
        let is_running = stored.as_ref().is_some_and(|record| record.state == State::Registered);
        let is_in_flight = stored.as_ref().is_some_and(|record| record.state.status().is_in_flight());
        let is_same = |put: &ibid::Record| stored.as_ref().is_some_and(|old| old.attempt.is_same(&put.attempt));
        match change.put.as_deref() {
            Some(put) => match put.state {
                State::Registered => (!is_running || !is_same(put)).then_some(On::Admit),
                State::Completed(_) | State::Failed(..) => is_in_flight.then_some(On::Finish),
                State::InDoubt => is_running.then_some(On::Finish),
                State::Dispatched | State::Tombstone(_) => None,
            },
            None => is_in_flight.then_some(On::Finish),
        }
    }
}

impl Layer for Faults {
    fn below(&self) -> &dyn Store {
        &*self.below
    }

    fn commit(&self, batch: &Batch) -> Result<Vec<Verdict>, StoreError> {
        let Some(plan) = self.strike(batch) else { return self.below.commit(batch) };
        if plan.is_written {
            self.below.commit(batch)?;
        }
        Err(StoreError::Io(Arc::new(io::Error::other("a fault was asked for"))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ibid::store::RedbOptions;
    use ibid::{Attempt, Engine, Failure, Flow, Policy};

    use super::*;

    struct Scene {
        faults: Arc<Faults>,
        engine: Engine,
        flow: Flow,
        _dir: tempfile::TempDir,
    }

    impl Scene {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = RedbStore::open(dir.path().join("a.redb"), RedbOptions::default()).unwrap();
            let faults = Arc::new(Faults::over(Arc::new(store)));
            let engine = Engine::builder().open_store(faults.clone()).unwrap();
            let flow = Flow::new("pay", Policy::replay(Duration::from_secs(60))).unwrap();
            Self { faults, engine, flow, _dir: dir }
        }

        /// How many times were left when the operation ran, and when it was over.
        async fn left(&self, id: &str, plan: Plan, end: Result<u32, Failure>) -> (u64, u64) {
            self.faults.set(plan);
            let (tell, told) = tokio::sync::oneshot::channel();
            let faults = Arc::clone(&self.faults);
            let run = |_: Attempt| async move {
                tell.send(faults.left()).unwrap();
                end
            };
            let key = self.flow.key("a", id).unwrap();
            // Whether it is an answer or a failure is the test's choice.
            drop(self.engine.run(&self.flow, &key, "request", run).await);
            (told.await.unwrap(), self.faults.left())
        }

        async fn retries(&self) -> u64 {
            self.engine.stats().await.unwrap().storage_retries
        }
    }

    impl Faults {
        fn left(&self) -> u64 {
            self.plan.lock().unwrap().fails
        }
    }

    #[tokio::test]
    async fn a_registration_and_an_end_are_told_apart_and_what_fails_is_tried_again() {
        for is_written in [false, true] {
            let scene = Scene::new();
            let plan = |on, fails| Plan { on, fails, is_written };
            // What was written is found there when the store is opened anew, and is not tried again.
            let (left, retries) = if is_written { (1, 1) } else { (0, 2) };
            assert_eq!(scene.left("registered", plan(On::Admit, 2), Ok(1)).await, (left, left));
            assert_eq!(scene.retries().await, retries);
            assert_eq!(scene.left("completed", plan(On::Finish, 1), Ok(1)).await, (1, 0));
            let no_effect = Err(Failure::definitive("no effect"));
            assert_eq!(scene.left("removed", plan(On::Finish, 1), no_effect).await, (1, 0));
            let unknown = Err(Failure::unknown("who knows"));
            assert_eq!(scene.left("in doubt", plan(On::Finish, 1), unknown).await, (1, 0));
            assert_eq!(scene.left("any", plan(On::Any, 1), Ok(1)).await, (0, 0));
            assert_eq!(scene.left("none", plan(On::Any, 0), Ok(1)).await, (0, 0));
            scene.engine.shutdown().await;
        }
    }
}
