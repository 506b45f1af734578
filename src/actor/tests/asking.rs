//! Key actors that die while an oracle is asked: its answer is not lost, counts once, and releases whoever waits for it.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::deaths::{hears, settled, until};
use super::{Kind, cure, poison};
use crate::policy::InDoubt;
use crate::{
    Call, End, Ended, Engine, ErrorKind, Flow, Found, Inquiry, Key, Limits, Operation, Policy, Reason, Status,
};

type Asked = (Inquiry, oneshot::Sender<Found>);

struct Scene {
    engine: Engine,
    flow: Flow,
    key: Key,
    questions: mpsc::UnboundedReceiver<Asked>,
}

impl Scene {
    /// A record in doubt, whose oracle is being asked.
    async fn new(name: &'static str) -> (Self, oneshot::Sender<Found>) {
        let flow = Flow::new(name, Policy::replay(Duration::from_secs(600)).in_doubt(InDoubt::Ask)).unwrap();
        let (asked, questions) = mpsc::unbounded_channel();
        let oracle = move |inquiry| {
            let (answer, heard) = oneshot::channel();
            asked.send((inquiry, answer)).ok();
            async move { heard.await.unwrap_or(Found::CannotTell) }
        };
        // One answer that tells nothing is enough.
        let limits = Limits { recoveries: 1, ..Limits::default() };
        let engine = Engine::builder().limits(limits).oracle(&flow, oracle).open_in_memory().unwrap();
        let key = flow.key(b"scope", b"a").unwrap();
        let mut scene = Self { engine, flow, key, questions };
        let operation = Operation::new(async |_| End::Unknown(Reason::from_bytes(*b"who knows")));
        scene.engine.submit(Call::new(&scene.flow, &scene.key, *b"r"), operation).await.unwrap_err();
        let answer = within_a_minute(scene.questions.recv()).await.unwrap().1;
        (scene, answer)
    }

    fn retry(&self) -> tokio::task::JoinHandle<Result<crate::Reply, crate::Error>> {
        let (engine, call) = (self.engine.clone(), Call::new(&self.flow, &self.key, *b"r"));
        let operation = Operation::new(async |_| End::done(*b"run again"));
        tokio::spawn(async move { engine.submit(call, operation).await })
    }

    async fn end(self, name: &'static str) {
        cure(name);
        until(&self.engine, |stats| (stats.live_actors, stats.in_flight) == (0, 0)).await;
        self.engine.shutdown().await;
    }
}

async fn within_a_minute<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it hangs")
}

#[tokio::test]
async fn an_answer_outlives_the_actors_that_die_of_it_and_of_its_commit() {
    for (name, kind) in [("asked", Kind::Answer), ("asked, decided", Kind::Decided)] {
        let (scene, answer) = Scene::new(name).await;
        let retry = scene.retry();
        until(&scene.engine, |stats| stats.in_flight == 1).await;
        settled(&scene.engine).await;
        poison(name, kind, 2);
        answer.send(Found::Done(Ended::Completed((*b"found").into()))).unwrap();
        let crate::Reply::Answer(outcome) = hears(retry).await.unwrap() else { panic!("accepted") };
        assert_eq!(&*outcome.answer, b"found");
        let stats = scene.engine.stats().await.unwrap();
        assert!(stats.died_actors > 0 && stats.inquiries == 1, "{stats:?}");
        assert_eq!(stats.alarms, 0, "what it finds recorded by its first time is no contradiction");
        scene.end(name).await;
    }
}

#[tokio::test]
async fn the_death_of_an_actor_neither_doubles_nor_loses_a_dead_letter() {
    for (name, kind) in [("dead letter", Kind::Answer), ("dead letter, decided", Kind::Decided)] {
        let (scene, answer) = Scene::new(name).await;
        let tracker = {
            let (engine, flow, key) = (scene.engine.clone(), scene.flow.clone(), scene.key.clone());
            tokio::spawn(async move { engine.track(&flow, &key).await })
        };
        until(&scene.engine, |stats| stats.in_flight == 1).await;
        settled(&scene.engine).await;
        poison(name, kind, 1);
        answer.send(Found::CannotTell).unwrap();
        let stats = until(&scene.engine, |stats| stats.dead_letters == 1 && stats.died_actors == 1).await;
        let released = within_a_minute(tracker).await.unwrap().unwrap_err();
        assert_eq!(released.class(), crate::Class::Ambiguous, "{released:?}");
        assert_eq!(scene.engine.lookup(&scene.key).unwrap().unwrap().recoveries, 1, "{stats:?}");
        scene.end(name).await;
    }
}

#[tokio::test]
async fn an_actor_that_dies_with_an_inquiry_outstanding_leaves_its_retries_waiting_for_the_one_answer() {
    const NAME: &str = "outstanding";
    let (mut scene, answer) = Scene::new(NAME).await;
    let retry = scene.retry();
    until(&scene.engine, |stats| stats.in_flight == 1).await;
    settled(&scene.engine).await;
    poison(NAME, Kind::Ticket, 1);
    let another = scene.retry();
    until(&scene.engine, |stats| stats.died_actors == 1).await;
    settled(&scene.engine).await;
    assert!(!retry.is_finished() && !another.is_finished() && scene.questions.try_recv().is_err());
    answer.send(Found::CannotTell).unwrap();
    for retry in [retry, another] {
        let refused = hears(retry).await.unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::Duplicate(Status::InDoubt)), "{refused:?}");
    }
    scene.end(NAME).await;
}

#[tokio::test]
async fn an_answer_that_kills_every_actor_is_given_up_and_asked_for_again() {
    const NAME: &str = "poisoned answer";
    let (mut scene, answer) = Scene::new(NAME).await;
    poison(NAME, Kind::Answer, 4);
    answer.send(Found::Done(Ended::Completed((*b"found").into()))).unwrap();
    until(&scene.engine, |stats| stats.died_actors == 4).await;
    settled(&scene.engine).await;
    let retry = scene.retry();
    let (_, answer) = within_a_minute(scene.questions.recv()).await.unwrap();
    answer.send(Found::Done(Ended::Completed((*b"found").into()))).unwrap();
    let crate::Reply::Answer(outcome) = hears(retry).await.unwrap() else { panic!("accepted") };
    assert_eq!(&*outcome.answer, b"found");
    scene.end(NAME).await;
}
