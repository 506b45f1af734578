//! Replay-safe attempts whose key actors die: their record is held elsewhere, and nothing runs twice for it.

use super::deaths::{Scene, hears, is_answered, settled, until};
use super::{Kind, cure, poison};
use crate::store::Store;
use crate::{Class, End, Ended, ErrorKind, Fenced, How, Reason, Resolved, Status};

fn stored(scene: &Scene) -> Option<Status> {
    scene.store.get(&scene.key).unwrap().map(|record| record.state.status())
}

#[tokio::test]
async fn the_record_outlives_its_actor_and_nothing_runs_twice() {
    let mut scene = Scene::replay_safe("held");
    let first = scene.start(|| End::done(*b"answer")).await;
    for died in 1..=2 {
        poison(scene.name, Kind::Ticket, 1);
        let other = hears(scene.submit("another", || End::done(*b"not run"))).await.unwrap_err();
        assert!(matches!(other.kind(), ErrorKind::Mismatch), "{other:?}");
        scene.until_died(died).await;
    }
    let joined = scene.submit("r", || End::done(*b"not run"));
    settled(&scene.engine).await;
    assert_eq!((scene.runs(), scene.store.commits(), stored(&scene)), (1, 0, None));
    scene.gate.add_permits(1);
    is_answered(first, How::Executed, "answer").await;
    is_answered(joined, How::Joined, "answer").await;
    is_answered(scene.submit("r", || End::done(*b"not run")), How::Replayed, "answer").await;
    assert_eq!((scene.runs(), scene.store.commits()), (1, 1));
    scene.end(2).await;
}

#[tokio::test]
async fn an_actor_that_dies_over_the_end_leaves_one_end_and_no_alarm() {
    for (name, kind, deaths) in [("held-report", Kind::Report, 2), ("held-decided", Kind::Decided, 1)] {
        let mut scene = Scene::replay_safe(name);
        let first = scene.start(|| End::done(*b"answer")).await;
        poison(name, kind, deaths);
        scene.gate.add_permits(1);
        is_answered(first, How::Executed, "answer").await;
        scene.until_died(deaths).await;
        is_answered(scene.submit("r", || End::done(*b"not run")), How::Replayed, "answer").await;
        let stats = scene.engine.stats().await.unwrap();
        assert_eq!((scene.runs(), stored(&scene), stats.alarms), (1, Some(Status::Completed), 0), "{name}");
        scene.end(deaths).await;
    }
}

#[tokio::test]
async fn a_failure_that_an_actor_dies_over_frees_the_key_and_nothing_else_is_told() {
    let mut scene = Scene::replay_safe("held-failure");
    let first = scene.start(|| End::Definitive(Reason::from_bytes(*b"no"))).await;
    poison(scene.name, Kind::Report, 1);
    scene.gate.add_permits(1);
    let heard = hears(first).await.unwrap_err();
    let is_lost = matches!(heard.kind(), ErrorKind::Internal) && heard.class() == Class::Ambiguous;
    assert!(is_lost || matches!(heard.kind(), ErrorKind::Failed(_)), "{heard:?}");
    scene.gate.add_permits(1);
    is_answered(scene.submit("r", || End::done(*b"again")), How::Executed, "again").await;
    assert_eq!(scene.runs(), 2);
    scene.end(1).await;
}

#[tokio::test]
async fn what_is_stored_of_an_attempt_counts_and_not_what_was_held() {
    let mut scene = Scene::replay_safe("held-resolved");
    let first = scene.start(|| End::done(*b"too late")).await;
    // The end is durable, and the actor that recorded it dies before it knows.
    poison(scene.name, Kind::Decided, 1);
    let told = Ended::Completed((*b"told").into());
    let resolved = scene.engine.resolve(&scene.flow, &scene.key, None, told).await.unwrap();
    assert_eq!(resolved, Resolved::Already, "asked again, it finds what it has recorded");
    scene.until_died(1).await;
    is_answered(scene.submit("r", || End::done(*b"not run")), How::Replayed, "told").await;
    scene.gate.add_permits(1);
    is_answered(first, How::Executed, "told").await;
    assert_eq!((scene.runs(), stored(&scene)), (1, Some(Status::Completed)));
    scene.end(1).await;
}

#[tokio::test]
async fn nothing_is_held_while_the_fence_of_a_dead_actor_is_on_its_way() {
    let scene = Scene::replay_safe("held-fenced");
    let gate = scene.store.hold_commits();
    let fence = tokio::spawn({
        let (engine, flow, key) = (scene.engine.clone(), scene.flow.clone(), scene.key.clone());
        async move { engine.fence(&flow, &key).await }
    });
    scene.store.until_held().await;
    poison(scene.name, Kind::Ticket, 1);
    let caller = scene.submit("r", || End::done(*b"not run"));
    scene.until_died(1).await;
    assert_eq!(scene.runs(), 0, "nothing of this key may start: its fence may be durable at any moment");
    drop(gate);
    let refused = hears(caller).await.unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::Fenced) && refused.class() == Class::Definitive, "{refused:?}");
    assert_eq!((fence.await.unwrap().unwrap(), scene.runs()), (Fenced::Fenced, 0));
    scene.end(1).await;
}

#[tokio::test]
async fn once_the_write_of_a_dead_actor_is_decided_the_next_request_is_held_again() {
    let mut scene = Scene::replay_safe("held-again");
    let first = scene.start(|| End::Definitive(Reason::from_bytes(*b"no"))).await;
    // It dies with its write under way, and its successor writes the same.
    poison(scene.name, Kind::Decided, 1);
    scene.gate.add_permits(1);
    hears(first).await.unwrap_err();
    scene.until_died(1).await;
    let before = scene.store.commits();
    scene.gate.add_permits(1);
    is_answered(scene.submit("r", || End::done(*b"again")), How::Executed, "again").await;
    assert_eq!((scene.store.commits() - before, scene.runs()), (1, 2));
    scene.end(1).await;
}

#[tokio::test]
async fn an_end_that_every_actor_dies_over_is_forgotten_like_one_that_a_crash_cut_off() {
    let mut scene = Scene::replay_safe("held-lost");
    let first = scene.start(|| End::done(*b"lost")).await;
    poison(scene.name, Kind::Report, u64::MAX);
    scene.gate.add_permits(1);
    let heard = hears(first).await.unwrap_err();
    assert_eq!(heard.class(), Class::Ambiguous, "{heard:?}");
    until(&scene.engine, |stats| stats.running == 0).await;
    cure(scene.name);
    scene.gate.add_permits(1);
    is_answered(scene.submit("r", || End::done(*b"again")), How::Executed, "again").await;
    let died = scene.engine.stats().await.unwrap().died_actors;
    scene.end(died).await;
}
