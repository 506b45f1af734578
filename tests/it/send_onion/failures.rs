//! Restarts, stores that fail, switches that do not answer, ends that come early, late or twice.

use std::sync::Arc;
use std::time::Duration;

use ibid::lightning::send_onion::{Circuit, Dispatch, FLOW_NAME, Onion, OnionEnd, Tracked, WireOnion};
use ibid::store::{MemoryStore, RedbOptions, Store};
use ibid::testing::{Fault, FaultyStore, Outage, simulate};
use ibid::{Class, Engine, ErrorKind, Flow, Forgotten, Limits, Policy, Resolved, Status};
use tokio::sync::Semaphore;

use super::desk::*;
use crate::support::{settled, until, within_a_minute};

fn over(disk: &Arc<MemoryStore>) -> Arc<FaultyStore> {
    let disk: Arc<dyn Store> = disk.clone();
    Arc::new(FaultyStore::new(disk).keeping_inner())
}

#[test]
fn a_roll_back_that_cannot_be_saved_is_retried_and_ends_in_this_process() {
    simulate(1, async |simulation| {
        let (disk, switch) = (Arc::new(MemoryStore::new()), FakeSwitch::new());
        let store = over(&disk);
        let engine = simulation.open(asking(Engine::builder(), &switch), store.clone()).unwrap();
        let onions = handle(engine.clone(), &switch);
        let gate = Arc::new(Semaphore::new(0));
        switch.acts(1, Act::Held(gate.clone(), Dispatch::Refused(Some(bytes("no channel")))));
        let sender = send(&onions, A, 1);
        switch.until_sent().await;
        let trackers: Vec<_> = (0..3).map(|_| track(&onions, 1)).collect();
        simulation.settle().await;
        store.break_down(Outage::Commits);
        gate.add_permits(1);
        simulation.pass(Duration::from_secs(1)).await;
        assert!(!sender.is_finished(), "the five tries are not over");
        let known = refused(&onions, 1).await;
        assert_eq!((known.class(), known.state()), (Class::Duplicate, Some(Status::Registered)));
        simulation.pass(Duration::from_secs(4)).await;
        let unsaved = sender.await.unwrap().unwrap_err();
        assert!(matches!(unsaved.error().unwrap().kind(), ErrorKind::Store), "{unsaved:?}");
        assert_eq!(unsaved.class(), Class::Ambiguous, "nothing that a crash could take back");
        for tracker in trackers {
            assert_eq!(tracker.await.unwrap().unwrap_err().class(), Class::Ambiguous);
        }
        assert_eq!(engine.stats().await.unwrap().unsaved, 1);
        let known = refused(&onions, 1).await;
        assert_eq!(known.class(), Class::Ambiguous, "{known:?}");
        store.heal();
        simulation.pass(Duration::from_secs(3)).await;
        assert_eq!(onions.track(A, 1).await.unwrap(), Tracked::RolledBack(Some(bytes("no channel"))));
        let saved = refused(&onions, 1).await;
        assert_eq!((saved.class(), saved.reason()), (Class::Definitive, Some(bytes("no channel"))));
        let stats = engine.stats().await.unwrap();
        assert_eq!((stats.unsaved, stats.storage_failures, stats.in_flight), (0, 1, 0));
        simulation.crash(&engine).await;

        let engine = simulation.open(asking(Engine::builder(), &switch), over(&disk)).unwrap();
        assert_eq!(told(&refused(&handle(engine.clone(), &switch), 1).await), told(&saved));
        assert_eq!((switch.sent(1), switch.asked(1)), (1, 0));
        engine.shutdown().await;
    })
    .unwrap();
}

#[test]
fn a_registration_that_cannot_be_saved_sends_nothing_and_may_be_tried_again() {
    simulate(6, async |simulation| {
        let (disk, switch) = (Arc::new(MemoryStore::new()), FakeSwitch::new());
        let store = over(&disk);
        let engine = simulation.open(asking(Engine::builder(), &switch), store.clone()).unwrap();
        let onions = handle(engine.clone(), &switch);
        store.break_down(Outage::Commits);
        let unsaved = onions.send(A, 1, &onion(2_000)).await.unwrap_err();
        assert_eq!((unsaved.class(), unsaved.grpc_code()), (Class::Ambiguous, 14), "{unsaved:?}");
        simulation.pass(Duration::from_secs(60)).await;
        assert_eq!(switch.sent(1), 0);
        store.heal();
        // One whose fate is unknown is found again.
        store.fail_commits(1, Fault::AfterEffect);
        accepted(&onions, A, 1).await;
        assert_eq!(refused(&onions, 1).await.class(), Class::Duplicate);
        assert_eq!(switch.sent(1), 1);
        engine.shutdown().await;
    })
    .unwrap();
}

#[tokio::test]
async fn whoever_tracks_is_told_of_a_shutdown_and_tracks_again() {
    let desk = Desk::new();
    let (engine, onions) = desk.open();
    accepted(&onions, A, 1).await;
    let tracker = track(&onions, 1);
    until(&engine, |stats| stats.in_flight == 1).await;
    settled(&engine).await;
    within_a_minute(engine.shutdown()).await;
    let interrupted = tracker.await.unwrap().unwrap_err();
    assert_eq!((interrupted.class(), interrupted.grpc_code()), (Class::Ambiguous, 14), "{interrupted:?}");
    let (engine, onions) = desk.open();
    let tracker = track(&onions, 1);
    onions.resolve(A, 1, None, &OnionEnd::Failed(None)).await.unwrap();
    assert_eq!(within_a_minute(tracker).await.unwrap().unwrap(), Tracked::Failed(None));
    engine.shutdown().await;
}

#[tokio::test]
async fn with_a_tombstone_a_late_retry_of_a_forgotten_id_is_a_conflict_and_sends_nothing() {
    let switch = FakeSwitch::new();
    let flow = Flow::new(FLOW_NAME, Policy::send_onion().tombstone(Duration::from_secs(3_600))).unwrap();
    let (engine, onions) = in_memory(flow, &switch);
    switch.finds(1, Circuit::NotStarted);
    accepted(&onions, A, 1).await;
    onions.resolve(A, 1, None, &OnionEnd::Failed(None)).await.unwrap();
    assert_eq!(onions.forget(A, &[1]).await.unwrap(), [(1, Forgotten::Forgotten)]);
    let late = refused(&onions, 1).await;
    assert!(matches!(late.error().unwrap().kind(), ErrorKind::Expired), "{late:?}");
    assert_eq!((late.class(), late.grpc_code()), (Class::Conflict, 9));
    assert_eq!(onions.forget(A, &[1]).await.unwrap(), [(1, Forgotten::Tombstone)]);
    assert_eq!(switch.sent(1), 1);
    engine.shutdown().await;
}

#[test]
fn an_end_that_cannot_be_saved_keeps_the_marker_and_is_told_after_the_commit() {
    simulate(2, async |simulation| {
        let (disk, switch) = (Arc::new(MemoryStore::new()), FakeSwitch::new());
        let store = over(&disk);
        let engine = simulation.open(asking(Engine::builder(), &switch), store.clone()).unwrap();
        let onions = handle(engine.clone(), &switch);
        accepted(&onions, A, 1).await;
        let tracker = track(&onions, 1);
        simulation.settle().await;
        store.break_down(Outage::Commits);
        let settling = tokio::spawn({
            let onions = onions.clone();
            async move { onions.resolve(A, 1, None, &OnionEnd::Settled(bytes("preimage"))).await }
        });
        simulation.pass(Duration::from_secs(1)).await;
        assert!(!tracker.is_finished() && !settling.is_finished());
        simulation.pass(Duration::from_secs(4)).await;
        assert_eq!(settling.await.unwrap().unwrap_err().class(), Class::Ambiguous, "the switch keeps its mark");
        assert_eq!(tracker.await.unwrap().unwrap_err().class(), Class::Ambiguous);
        simulation.crash(&engine).await;

        // The end was in memory alone; the switch still has it.
        switch.finds(1, Circuit::Ended(OnionEnd::Settled(bytes("preimage"))));
        let engine = simulation.open(asking(Engine::builder(), &switch), over(&disk)).unwrap();
        let onions = handle(engine.clone(), &switch);
        assert_eq!(onions.track(A, 1).await.unwrap(), Tracked::Settled(bytes("preimage")));
        assert_eq!((switch.sent(1), engine.stats().await.unwrap().alarms), (1, 0));
        engine.shutdown().await;
    })
    .unwrap();
}

#[test]
fn orphans_of_a_crash_are_found_at_start_and_each_gets_what_the_switch_knows() {
    simulate(3, async |simulation| {
        let (disk, switch) = (Arc::new(MemoryStore::new()), FakeSwitch::new());
        let engine = simulation.open(asking(Engine::builder(), &switch), over(&disk)).unwrap();
        let onions = handle(engine.clone(), &switch);
        for id in 1..=5 {
            switch.acts(id, Act::Hang);
            drop(send(&onions, A, id));
            switch.until_sent().await;
        }
        simulation.crash(&engine).await;
        switch.finds(1, Circuit::NotStarted);
        switch.finds(2, Circuit::Live);
        switch.finds(3, Circuit::Ended(OnionEnd::Settled(bytes("preimage"))));
        switch.finds(4, Circuit::Ended(OnionEnd::Failed(None)));
        let engine = simulation.open(asking(Engine::builder(), &switch), over(&disk)).unwrap();
        let onions = handle(engine.clone(), &switch);
        simulation.pass(Duration::from_secs(2)).await;
        let states: Vec<_> = (1..=5).map(|id| onions.lookup(A, id).unwrap().unwrap().state).collect();
        let expected = [Status::Failed, Status::Dispatched, Status::Completed, Status::Failed, Status::InDoubt];
        assert_eq!(states, expected);
        assert_eq!(onions.track(A, 1).await.unwrap(), Tracked::RolledBack(Some(bytes("not started"))));
        assert_eq!(onions.track(A, 3).await.unwrap(), Tracked::Settled(bytes("preimage")));
        assert_eq!(onions.track(A, 4).await.unwrap(), Tracked::Failed(None));
        let rolled_back = refused(&onions, 1).await;
        assert_eq!((rolled_back.class(), rolled_back.reason()), (Class::Definitive, Some(bytes("not started"))));
        assert_eq!(told(&refused(&onions, 1).await), told(&rolled_back));
        assert_eq!(refused(&onions, 4).await.class(), Class::Duplicate);
        let page = onions.list(Some(A), None, 10).unwrap();
        let listed: Vec<_> = page.onions.iter().map(|onion| (onion.attempt_id, onion.state)).collect();
        assert_eq!(listed, [(2, Status::Dispatched), (5, Status::InDoubt)]);
        assert_eq!((page.quarantined, page.next), (0, None));
        assert_eq!(switch.sent_in_all(), 5, "recovery never sends");
        engine.shutdown().await;
    })
    .unwrap();
}

#[test]
fn a_switch_that_cannot_tell_is_asked_on_at_growing_intervals_until_it_can() {
    simulate(4, async |simulation| {
        let switch = FakeSwitch::new();
        let disk = Arc::new(MemoryStore::new());
        let engine = simulation.open(asking(Engine::builder(), &switch), over(&disk)).unwrap();
        let onions = handle(engine.clone(), &switch);
        switch.says(1, Dispatch::Unknown(None));
        refused(&onions, 1).await;
        let tracker = track(&onions, 1);
        simulation.settle().await;
        let mut asked = vec![switch.asked(1)];
        for wait in [1, 2, 4, 8] {
            assert!(!tracker.is_finished());
            simulation.pass(Duration::from_secs(wait)).await;
            simulation.settle().await;
            asked.push(switch.asked(1));
        }
        assert_eq!(asked, [1, 2, 3, 4, 5]);
        let dead = tracker.await.unwrap().unwrap_err();
        assert!(matches!(dead.error().unwrap().kind(), ErrorKind::RecoveriesExhausted), "{dead:?}");
        assert_eq!((dead.class(), dead.state()), (Class::Ambiguous, Some(Status::InDoubt)));
        assert!(onions.list(None, None, 9).unwrap().onions[0].is_dead_letter);
        assert_eq!(engine.stats().await.unwrap().dead_letters, 1);
        let known = refused(&onions, 1).await;
        assert_eq!((known.class(), known.state()), (Class::Duplicate, Some(Status::InDoubt)));
        switch.finds(1, Circuit::Live);
        simulation.pass(Duration::from_secs(61)).await;
        assert_eq!(onions.lookup(A, 1).unwrap().unwrap().state, Status::Dispatched);
        // Dispatched and without news: asked about every half minute.
        switch.finds(1, Circuit::Ended(OnionEnd::Failed(Some(bytes("timed out")))));
        simulation.pass(Duration::from_secs(61)).await;
        assert_eq!(onions.track(A, 1).await.unwrap(), Tracked::Failed(Some(bytes("timed out"))));
        assert_eq!(switch.sent(1), 1);
        engine.shutdown().await;
    })
    .unwrap();
}

#[test]
fn a_switch_that_hangs_or_panics_over_some_ids_delays_none_of_the_others() {
    simulate(5, async |simulation| {
        let (disk, switch) = (Arc::new(MemoryStore::new()), FakeSwitch::new());
        let engine = simulation.open(asking(Engine::builder(), &switch), over(&disk)).unwrap();
        let onions = handle(engine.clone(), &switch);
        for id in 0..40 {
            switch.acts(id, Act::Hang);
            drop(send(&onions, A, id));
            switch.until_sent().await;
            match id {
                0..10 => switch.tells(id, Told::Hang),
                10..20 => switch.tells(id, Told::Panic),
                _ => switch.finds(id, Circuit::NotStarted),
            }
        }
        simulation.crash(&engine).await;
        let engine = simulation.open(asking(Engine::builder(), &switch), over(&disk)).unwrap();
        let onions = handle(engine.clone(), &switch);
        simulation.pass(Duration::from_secs(2)).await;
        let state = |id| onions.lookup(A, id).unwrap().unwrap().state;
        assert!((20..40).all(|id| state(id) == Status::Failed), "they waited for nobody");
        assert!((0..20).all(|id| state(id) == Status::InDoubt));
        simulation.pass(Duration::from_secs(7)).await;
        assert!((0..20).all(|id| switch.asked(id) >= 2), "no answer is one that tells nothing");
        for id in 0..20 {
            switch.finds(id, Circuit::NotStarted);
        }
        simulation.pass(Duration::from_secs(70)).await;
        assert!((0..20).all(|id| state(id) == Status::Failed));
        assert_eq!(switch.sent_in_all(), 40);
        engine.shutdown().await;
    })
    .unwrap();
}

#[tokio::test]
async fn a_retry_in_doubt_waits_for_the_first_answer_and_not_for_ever() {
    let desk = Desk::new();
    let (engine, onions) = desk.open_with(quick());
    desk.switch.says(1, Dispatch::Unknown(None));
    desk.switch.tells(1, Told::Hang);
    refused(&onions, 1).await;
    let known = refused(&onions, 1).await;
    assert_eq!((known.class(), known.state()), (Class::Duplicate, Some(Status::InDoubt)));
    assert_eq!(desk.switch.sent(1), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn an_end_that_overtakes_the_dispatch_is_the_end() {
    let desk = Desk::new();
    for (id, late) in [(1, Dispatch::Accepted), (2, Dispatch::AlreadyLive), (3, Dispatch::Unknown(None))] {
        let (engine, onions) = desk.open();
        let gate = Arc::new(Semaphore::new(0));
        desk.switch.acts(id, Act::Held(gate.clone(), late));
        let sender = send(&onions, A, id);
        desk.switch.until_sent().await;
        let tracker = track(&onions, id);
        let attempt = desk.switch.attempt(A, id);
        let end = OnionEnd::Settled(bytes("preimage"));
        assert_eq!(onions.resolve(A, id, Some(attempt), &end).await.unwrap(), Resolved::Recorded);
        assert_eq!(onions.resolve(A, id, Some(attempt), &end).await.unwrap(), Resolved::Already);
        assert_eq!(within_a_minute(tracker).await.unwrap().unwrap(), Tracked::Settled(bytes("preimage")));
        gate.add_permits(1);
        within_a_minute(sender).await.unwrap().unwrap();
        until(&engine, |stats| stats.live_actors == 0).await;
        let known = refused(&onions, id).await;
        assert_eq!((known.class(), known.state()), (Class::Duplicate, Some(Status::Completed)));
        assert_eq!((desk.switch.sent(id), engine.stats().await.unwrap().alarms), (1, 0));
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn a_contradiction_changes_no_answer_is_kept_beside_it_and_counted() {
    let (settled, failed) = (OnionEnd::Settled(bytes("preimage")), OnionEnd::Failed(Some(bytes("no route"))));
    let cases = [
        (&settled, &failed, Status::Completed, Tracked::Settled(bytes("preimage"))),
        (&failed, &settled, Status::Failed, Tracked::Failed(Some(bytes("no route")))),
    ];
    for (first, second, state, heard) in cases {
        let desk = Desk::new();
        let (engine, onions) = desk.open();
        accepted(&onions, A, 1).await;
        onions.resolve(A, 1, None, first).await.unwrap();
        assert_eq!(onions.resolve(A, 1, None, second).await.unwrap(), Resolved::Contradicts(state));
        assert_eq!(onions.resolve(A, 1, None, first).await.unwrap(), Resolved::Already);
        assert_eq!(engine.stats().await.unwrap().alarms, 1);
        engine.shutdown().await;
        let (engine, onions) = desk.open();
        assert_eq!(onions.track(A, 1).await.unwrap(), heard);
        let known = onions.lookup(A, 1).unwrap().unwrap();
        assert_eq!((known.state, known.contradiction.as_ref()), (state, Some(second)), "money may have moved");
        assert_eq!(desk.switch.sent(1), 1);
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn a_proof_that_follows_a_refusal_is_heard_of() {
    let desk = Desk::new();
    let (engine, onions) = desk.open();
    desk.switch.says(1, Dispatch::Refused(None));
    let first = refused(&onions, 1).await;
    let end = OnionEnd::Settled(bytes("preimage"));
    assert_eq!(onions.resolve(A, 1, None, &end).await.unwrap(), Resolved::Contradicts(Status::Failed));
    assert_eq!(told(&refused(&onions, 1).await), told(&first), "and the answer stays");
    assert_eq!(onions.lookup(A, 1).unwrap().unwrap().contradiction, Some(end));
    assert_eq!((desk.switch.sent(1), engine.stats().await.unwrap().alarms), (1, 1));
    engine.shutdown().await;
}

#[tokio::test]
async fn an_end_of_a_forgotten_attempt_is_fenced_off_from_the_next_one_of_the_same_id() {
    let desk = Desk::new();
    let (engine, onions) = desk.open();
    accepted(&onions, A, 1).await;
    let old = desk.switch.attempt(A, 1);
    let failed = OnionEnd::Failed(None);
    onions.resolve(A, 1, Some(old), &failed).await.unwrap();
    desk.switch.finds(1, Circuit::NotStarted);
    assert_eq!(onions.forget(A, &[1]).await.unwrap(), [(1, Forgotten::Forgotten)]);
    assert_eq!(onions.resolve(A, 1, Some(old), &failed).await.unwrap(), Resolved::NotFound, "nothing is created");
    assert!(onions.lookup(A, 1).unwrap().is_none());
    desk.switch.finds(1, Circuit::Live);
    accepted(&onions, A, 1).await;
    assert_eq!(onions.resolve(A, 1, Some(old), &failed).await.unwrap(), Resolved::FencedOff);
    assert_eq!(onions.lookup(A, 1).unwrap().unwrap().state, Status::Dispatched);
    let new = desk.switch.attempt(A, 1);
    assert_eq!(onions.resolve(A, 1, Some(new), &failed).await.unwrap(), Resolved::Recorded);
    assert_eq!(desk.switch.sent(1), 2);
    engine.shutdown().await;
}

#[tokio::test]
async fn trackers_that_go_away_leave_nothing_behind() {
    let desk = Desk::new();
    let (engine, onions) = desk.open();
    accepted(&onions, A, 1).await;
    until(&engine, |stats| stats.live_actors == 0 && stats.in_flight == 0).await;
    for _ in 0..3 {
        let trackers: Vec<_> = (0..500).map(|_| track(&onions, 1)).collect();
        until(&engine, |stats| stats.in_flight == 500).await;
        settled(&engine).await;
        trackers.iter().for_each(tokio::task::JoinHandle::abort);
        until(&engine, |stats| stats.in_flight == 0 && stats.live_actors == 0).await;
    }
    let tracker = track(&onions, 1);
    until(&engine, |stats| stats.in_flight == 1).await;
    onions.resolve(A, 1, None, &OnionEnd::Settled(bytes("preimage"))).await.unwrap();
    assert_eq!(within_a_minute(tracker).await.unwrap().unwrap(), Tracked::Settled(bytes("preimage")));
    assert_eq!(desk.switch.sent(1), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn more_trackers_than_allowed_are_busy_and_disturb_nobody() {
    let mut limits = Limits::default();
    limits.waiters_per_key = 2;
    let desk = Desk::new();
    let (engine, onions) = desk.open_with(limits);
    accepted(&onions, A, 1).await;
    let trackers = [track(&onions, 1), track(&onions, 1)];
    until(&engine, |stats| stats.in_flight == 2).await;
    settled(&engine).await;
    let busy = onions.track(A, 1).await.unwrap_err();
    assert!(matches!(busy.error().unwrap().kind(), ErrorKind::Busy { .. }), "{busy:?}");
    onions.resolve(A, 1, None, &OnionEnd::Failed(None)).await.unwrap();
    for tracker in trackers {
        assert_eq!(within_a_minute(tracker).await.unwrap().unwrap(), Tracked::Failed(None));
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn a_list_goes_on_where_it_ended_and_names_only_what_is_asked_for() {
    let desk = Desk::new();
    let (engine, onions) = desk.open();
    for id in 0..5 {
        accepted(&onions, A, id).await;
        accepted(&onions, B, id).await;
    }
    let (mut ids, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = onions.list(Some(B), after, 3).unwrap();
        ids.extend(page.onions.iter().map(|onion| onion.attempt_id));
        pages += 1;
        assert!(page.onions.iter().all(|onion| onion.namespace == B
            && onion.state == Status::Dispatched
            && onion.onion == Some(self::onion(2_000))));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!((ids, pages), (vec![0, 1, 2, 3, 4], 4));
    assert_eq!(onions.list(None, None, 99).unwrap().onions.len(), 10);
    assert_eq!(onions.list(Some(A), None, 0).unwrap().onions.len(), 0);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_never_sent_again_and_leaves_the_others_alone() {
    let desk = Desk::new();
    let (engine, onions) = desk.open();
    for id in 1..=2 {
        desk.switch.says(id, Dispatch::Settled(bytes(&format!("a proof to be damaged {id}"))));
        onions.send(A, id, &onion(2_000)).await.unwrap();
    }
    let marked = WireOnion { custom_records: vec![(70_000, b"an onion to be damaged".into())], ..wire(2_000) };
    let marked = Onion::try_from(marked).unwrap();
    onions.send(A, 3, &marked).await.unwrap();
    accepted(&onions, A, 4).await;
    engine.shutdown().await;
    let mut file = std::fs::read(desk.bench.path()).unwrap();
    for place in [&b"a proof to be damaged 1"[..], b"an onion to be damaged"] {
        let places: Vec<_> = (0..file.len() - place.len()).filter(|at| file[*at..].starts_with(place)).collect();
        assert!(!places.is_empty());
        places.iter().for_each(|at| file[*at] ^= 1);
    }
    std::fs::write(desk.bench.path(), file).unwrap();
    let unchecked = RedbOptions::default().integrity_check(ibid::store::IntegrityCheck::Never);
    let builder = Engine::builder().clock(desk.bench.clock.clone()).redb(unchecked);
    let engine = asking(builder, &desk.switch).open(desk.bench.path()).unwrap();
    let onions = handle(engine.clone(), &desk.switch);
    let lost = refused(&onions, 1).await;
    assert!(matches!(lost.error().unwrap().kind(), ErrorKind::Quarantined), "{lost:?}");
    assert_eq!((lost.class(), lost.grpc_code()), (Class::Ambiguous, 15));
    assert!(lost.detail().retrying_will_not_help());
    assert_eq!(onions.track(A, 1).await.unwrap_err().class(), Class::Ambiguous);
    desk.switch.finds(2, Circuit::NotStarted);
    let statuses = onions.forget(A, &[1, 2]).await.unwrap();
    assert_eq!(statuses, [(1, Forgotten::Quarantined), (2, Forgotten::Forgotten)]);
    let page = onions.list(Some(A), None, 9).unwrap();
    let listed: Vec<_> = page.onions.iter().map(|onion| onion.attempt_id).collect();
    assert_eq!((listed, page.quarantined), (vec![4], 1));
    assert_eq!(onions.send(A, 3, &marked).await.unwrap_err().class(), Class::Ambiguous);
    assert_eq!(desk.switch.sent_in_all(), 4);
    engine.shutdown().await;
}
