//! The vectors V1 to V11 of the rules, each with its count of dispatches.

use ibid::lightning::send_onion::{Circuit, Dispatch, Onion, OnionEnd, OnionError, SendOnion, Sent, Tracked};
use ibid::{Class, ErrorKind, Fenced, Forgotten, Resolved, Status};
use std::sync::Arc;
use tokio::sync::Semaphore;

use super::desk::*;
use crate::support::{until, within_a_minute};

async fn settle(onions: &SendOnion, id: u64) {
    let end = OnionEnd::Settled(bytes("preimage"));
    assert_eq!(onions.resolve(A, id, None, &end).await.unwrap(), Resolved::Recorded);
}

#[tokio::test]
async fn v1_a_send_from_the_first_try_to_being_forgotten() {
    let desk = Desk::new();
    let (engine, onions) = desk.open();
    accepted(&onions, A, 7).await;
    let known = refused(&onions, 7).await;
    assert_eq!((known.class(), known.state(), known.ended()), (Class::Duplicate, Some(Status::Dispatched), None));
    assert_eq!((known.grpc_code(), known.is_replayed()), (6, false));
    settle(&onions, 7).await;
    assert_eq!(onions.track(A, 7).await.unwrap(), Tracked::Settled(bytes("preimage")));
    let known = refused(&onions, 7).await;
    assert_eq!((known.class(), known.state()), (Class::Duplicate, Some(Status::Completed)));
    assert_eq!(known.ended(), Some(OnionEnd::Settled(bytes("preimage"))));
    desk.switch.finds(7, Circuit::NotStarted);
    assert_eq!(onions.forget(A, &[7]).await.unwrap(), [(7, Forgotten::Forgotten)]);
    assert_eq!(onions.forget(A, &[7]).await.unwrap(), [(7, Forgotten::NotFound)]);
    assert!(onions.lookup(A, 7).unwrap().is_none());
    let gone = onions.track(A, 7).await.unwrap_err();
    assert!(matches!(gone.error().unwrap().kind(), ErrorKind::NotFound), "{gone:?}");
    assert_eq!((gone.class(), gone.grpc_code()), (Class::Ambiguous, 5));
    assert_eq!(desk.switch.sent(7), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn v2_of_ten_at_once_one_goes_out_and_nine_are_told_so() {
    let desk = Desk::new();
    let (engine, onions) = desk.open();
    let gate = Arc::new(Semaphore::new(0));
    desk.switch.acts(9, Act::Held(gate.clone(), Dispatch::Accepted));
    let senders: Vec<_> = (0..10).map(|_| send(&onions, A, 9)).collect();
    desk.switch.until_sent().await;
    // Nine are answered while the first one is under way.
    until(&engine, |_| senders.iter().filter(|sender| sender.is_finished()).count() == 9).await;
    gate.add_permits(1);
    let (mut sent, mut known) = (0, 0);
    for sender in senders {
        match within_a_minute(sender).await.unwrap() {
            Ok(Sent::Accepted) => sent += 1,
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert_eq!((error.class(), error.state()), (Class::Duplicate, Some(Status::Registered)));
                known += 1;
            }
        }
    }
    assert_eq!((sent, known, desk.switch.sent(9)), (1, 9, 1));
    engine.shutdown().await;
}

#[tokio::test]
async fn v3_another_amount_is_a_conflict_that_touches_nothing_in_flight_or_after() {
    let desk = Desk::new();
    let (engine, onions) = desk.open();
    let gate = Arc::new(Semaphore::new(0));
    desk.switch.acts(8, Act::Held(gate.clone(), Dispatch::Accepted));
    let first = send(&onions, A, 8);
    desk.switch.until_sent().await;
    let tracker = track(&onions, 8);
    let mut first = Some(first);
    for _ in 0..2 {
        let before = onions.lookup(A, 8).unwrap().unwrap();
        let conflict = onions.send(A, 8, &onion(2_001)).await.unwrap_err();
        assert!(matches!(conflict.error().unwrap().kind(), ErrorKind::Mismatch), "{conflict:?}");
        assert_eq!((conflict.class(), conflict.grpc_code()), (Class::Conflict, 9));
        let wrong = within_a_minute(onions.track_onion(A, 8, &onion(2_001))).await.unwrap_err();
        assert_eq!(wrong.class(), Class::Conflict);
        let after = onions.lookup(A, 8).unwrap().unwrap();
        assert_eq!((after.state, after.updated_at), (before.state, before.updated_at));
        if let Some(first) = first.take() {
            gate.add_permits(1);
            assert_eq!(first.await.unwrap().unwrap(), Sent::Accepted);
        }
    }
    assert!(!tracker.is_finished());
    settle(&onions, 8).await;
    assert_eq!(within_a_minute(tracker).await.unwrap().unwrap(), Tracked::Settled(bytes("preimage")));
    assert_eq!(onions.send(A, 8, &onion(2_001)).await.unwrap_err().class(), Class::Conflict);
    assert_eq!(onions.track_onion(A, 8, &onion(2_000)).await.unwrap(), Tracked::Settled(bytes("preimage")));
    assert_eq!(desk.switch.sent(8), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn v4_a_refusal_is_frozen_over_retries_and_restarts_though_the_channel_is_up_again() {
    let desk = Desk::new();
    let (engine, onions) = desk.open();
    desk.switch.says(4, Dispatch::Refused(Some(bytes("no channel"))));
    let first = refused(&onions, 4).await;
    assert_eq!((first.class(), first.state(), first.grpc_code()), (Class::Definitive, Some(Status::Failed), 9));
    assert_eq!((first.reason(), first.is_replayed()), (Some(bytes("no channel")), false));
    let detail =
        r#"{"version":1,"class":"definitive","state":"failed","cause":"failed","reason":"6e6f206368616e6e656c"}"#;
    assert_eq!(told(&first).1, detail.as_bytes());
    desk.switch.says(4, Dispatch::Accepted);
    let mut node = (engine, onions);
    for _ in 0..3 {
        for _ in 0..5 {
            let again = refused(&node.1, 4).await;
            assert_eq!(told(&again), told(&first));
            assert!(again.is_replayed());
        }
        assert_eq!(node.1.track(A, 4).await.unwrap(), Tracked::RolledBack(Some(bytes("no channel"))));
        node.0.shutdown().await;
        node = desk.open();
    }
    assert_eq!(desk.switch.sent(4), 1);
    node.0.shutdown().await;
}

#[tokio::test]
async fn v5_a_malformed_onion_burns_no_id() {
    let desk = Desk::new();
    let (engine, onions) = desk.open();
    let mut short = wire(2_000);
    short.onion.pop();
    let malformed = OnionError::from(Onion::try_from(short).unwrap_err());
    assert_eq!((malformed.class(), malformed.grpc_code(), malformed.state()), (Class::Definitive, 3, None));
    let detail = br#"{"version":1,"class":"definitive","state":null,"cause":"malformed","reason":"#;
    assert!(told(&malformed).1.starts_with(detail));
    assert!(onions.lookup(A, 5).unwrap().is_none());
    accepted(&onions, A, 5).await;
    assert_eq!(desk.switch.sent(5), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn v6_an_unknown_error_is_ambiguous_and_the_switch_says_what_became_of_it() {
    let desk = Desk::new();
    let (engine, onions) = desk.open();
    desk.switch.says(6, Dispatch::Unknown(Some(bytes("timed out"))));
    desk.switch.finds(6, Circuit::Live);
    let unknown = refused(&onions, 6).await;
    assert_eq!((unknown.class(), unknown.state(), unknown.grpc_code()), (Class::Ambiguous, Some(Status::InDoubt), 14));
    assert_eq!(unknown.reason(), Some(bytes("timed out")));
    until(&engine, |stats| stats.records.dispatched == 1 && stats.live_actors == 0).await;
    let known = refused(&onions, 6).await;
    assert_eq!((known.class(), known.state()), (Class::Duplicate, Some(Status::Dispatched)));
    assert_eq!(desk.switch.sent(6), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn v7_a_fence_is_proof_that_a_late_send_meets() {
    let desk = Desk::new();
    let (engine, onions) = desk.open();
    for _ in 0..2 {
        assert_eq!(onions.fence(A, 11).await.unwrap(), Fenced::Fenced);
    }
    engine.shutdown().await;
    let (engine, onions) = desk.open();
    let late = refused(&onions, 11).await;
    assert!(matches!(late.error().unwrap().kind(), ErrorKind::Fenced), "{late:?}");
    assert_eq!((late.class(), late.grpc_code(), late.state()), (Class::Definitive, 9, Some(Status::Tombstone)));
    assert_eq!(onions.track(A, 11).await.unwrap_err().class(), Class::Definitive);
    accepted(&onions, A, 12).await;
    assert_eq!(onions.fence(A, 12).await.unwrap(), Fenced::Found(Status::Dispatched));
    assert_eq!((desk.switch.sent(11), desk.switch.sent(12)), (0, 1));
    engine.shutdown().await;
}

#[tokio::test]
async fn v8_two_dispatchers_with_one_id_never_meet() {
    let desk = Desk::new();
    let (engine, onions) = desk.open();
    accepted(&onions, A, 5).await;
    assert_eq!(onions.send(B, 5, &onion(9_000)).await.unwrap(), Sent::Accepted);
    assert_eq!(desk.switch.sent(5), 2);
    settle(&onions, 5).await;
    let failed = OnionEnd::Failed(Some(bytes("no route")));
    let attempt = desk.switch.attempt(A, 5);
    assert_eq!(onions.resolve(B, 5, Some(attempt), &failed).await.unwrap(), Resolved::FencedOff, "that is A's");
    let attempt = desk.switch.attempt(B, 5);
    assert_eq!(onions.resolve(B, 5, Some(attempt), &failed).await.unwrap(), Resolved::Recorded);
    assert_eq!(onions.track(A, 5).await.unwrap(), Tracked::Settled(bytes("preimage")));
    assert_eq!(onions.track(B, 5).await.unwrap(), Tracked::Failed(Some(bytes("no route"))));
    desk.switch.finds(5, Circuit::NotStarted);
    assert_eq!(onions.forget(A, &[5]).await.unwrap(), [(5, Forgotten::Forgotten)]);
    assert_eq!(onions.lookup(B, 5).unwrap().unwrap().state, Status::Failed);
    assert_eq!(onions.fence(A, 5).await.unwrap(), Fenced::Fenced);
    let known = onions.send(B, 5, &onion(9_000)).await.unwrap_err();
    assert_eq!((known.class(), known.state()), (Class::Duplicate, Some(Status::Failed)), "it went out and failed");
    assert_eq!(known.ended(), Some(failed));
    assert_eq!(desk.switch.sent(5), 2);
    engine.shutdown().await;
}

#[tokio::test]
async fn v9_whoever_tracks_hears_the_same_before_and_after_and_over_a_restart() {
    let ends = [
        (OnionEnd::Settled(bytes("preimage")), Tracked::Settled(bytes("preimage"))),
        (OnionEnd::Failed(Some(bytes("\0\u{1}\u{2}opaque"))), Tracked::Failed(Some(bytes("\0\u{1}\u{2}opaque")))),
    ];
    for (end, heard) in ends {
        let desk = Desk::new();
        let (engine, onions) = desk.open();
        accepted(&onions, A, 1).await;
        let trackers = [track(&onions, 1), track(&onions, 1)];
        until(&engine, |stats| stats.in_flight == 2).await;
        assert_eq!(onions.resolve(A, 1, None, &end).await.unwrap(), Resolved::Recorded);
        for tracker in trackers {
            assert_eq!(within_a_minute(tracker).await.unwrap().unwrap(), heard);
        }
        assert_eq!(onions.track(A, 1).await.unwrap(), heard);
        assert_eq!(onions.lookup(A, 1).unwrap().unwrap().end, Some(heard.clone()));
        engine.shutdown().await;
        let (engine, onions) = desk.open();
        assert_eq!(onions.track(A, 1).await.unwrap(), heard);
        assert_eq!(desk.switch.sent(1), 1);
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn v10_every_status_of_a_forgotten_id() {
    let desk = Desk::new();
    let (engine, onions) = desk.open_with(quick());
    desk.switch.says(2, Dispatch::Unknown(None));
    desk.switch.acts(3, Act::Hang);
    desk.switch.says(6, Dispatch::Refused(None));
    refused(&onions, 2).await;
    let running = send(&onions, A, 3);
    for id in [1, 4, 5, 7] {
        accepted(&onions, A, id).await;
    }
    refused(&onions, 6).await;
    for id in [4, 5, 7] {
        settle(&onions, id).await;
    }
    until(&engine, |stats| stats.records.registered == 1 && stats.records.in_doubt == 1).await;
    onions.fence(A, 8).await.unwrap();
    desk.switch.finds(4, Circuit::Live);
    desk.switch.tells(5, Told::Panic);
    desk.switch.finds(6, Circuit::NotStarted);
    desk.switch.finds(7, Circuit::Ended(OnionEnd::Settled(bytes("preimage"))));
    assert_eq!(onions.forget(A, &[]).await.unwrap(), []);
    let expected = [
        (7, Forgotten::Forgotten),
        (1, Forgotten::InFlight(Status::Dispatched)),
        (2, Forgotten::InFlight(Status::InDoubt)),
        (3, Forgotten::InFlight(Status::Registered)),
        (4, Forgotten::Live),
        (5, Forgotten::Live),
        (6, Forgotten::Forgotten),
        (8, Forgotten::Tombstone),
        (9, Forgotten::NotFound),
    ];
    let statuses = within_a_minute(onions.forget(A, &[7, 1, 2, 7, 3, 4, 5, 6, 8, 9, 7])).await.unwrap();
    assert_eq!(statuses, expected, "each id once, in order of first appearance");
    desk.switch.says(6, Dispatch::Accepted);
    accepted(&onions, A, 6).await;
    assert_eq!((desk.switch.sent(6), desk.switch.sent(7), desk.switch.sent_in_all()), (2, 1, 8));
    running.abort();
    engine.shutdown().await;
}

#[tokio::test]
async fn v11_an_absent_an_empty_and_a_long_reason_survive_the_store_apart() {
    let reasons = [None, Some(bytes("")), Some(bytes(&"r".repeat(256)))];
    let desk = Desk::new();
    let (engine, onions) = desk.open();
    for (id, reason) in (0..).zip(&reasons) {
        desk.switch.says(id, Dispatch::Refused(reason.clone()));
        assert_eq!(refused(&onions, id).await.reason(), *reason);
        accepted(&onions, A, 10 + id).await;
        onions.resolve(A, 10 + id, None, &OnionEnd::Failed(reason.clone())).await.unwrap();
    }
    engine.shutdown().await;
    let (engine, onions) = desk.open();
    let mut details = Vec::new();
    for (id, reason) in (0..).zip(&reasons) {
        let again = refused(&onions, id).await;
        assert_eq!((again.class(), again.reason()), (Class::Definitive, reason.clone()));
        details.push(told(&again));
        assert_eq!(onions.track(A, id).await.unwrap(), Tracked::RolledBack(reason.clone()));
        assert_eq!(onions.track(A, 10 + id).await.unwrap(), Tracked::Failed(reason.clone()));
        assert_eq!(refused(&onions, 10 + id).await.ended(), Some(OnionEnd::Failed(reason.clone())));
    }
    details.dedup();
    assert_eq!(details.len(), 3, "nor do they meet on the wire");
    assert_eq!(desk.switch.sent_in_all(), 6);
    engine.shutdown().await;
}
