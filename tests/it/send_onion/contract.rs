//! What a client may rely on, C1 to C8: in every state, whatever has changed since.

use std::sync::Arc;

use ibid::lightning::Blocking;
use ibid::lightning::send_onion::{
    BlockingSwitch, Circuit, Dispatch, Onion, OnionEnd, OnionRequest, SendOnion, Sent, Tracked, WireOnion,
};
use ibid::{Attempt, Class, Engine, ErrorKind, Fenced, Flow, How, Inquiry, InvalidRecovery, Limits, Policy, Status};
use tokio::sync::{Semaphore, oneshot};

use super::desk::*;
use crate::support::{until, within_a_minute};

#[tokio::test]
async fn an_engine_that_would_ask_nobody_about_an_onion_in_doubt_is_refused() {
    let (switch, other) = (Arc::new(FakeSwitch::new()), Flow::new("other", Policy::send_onion()).unwrap());
    let missing = |flow: &Flow| InvalidRecovery::OracleMissing(flow.name().to_owned());
    let unprepared = Engine::builder().open_in_memory().unwrap();
    assert_eq!(SendOnion::new(unprepared.clone(), flow(), switch.clone()).unwrap_err(), missing(&flow()));
    let (engine, _) = in_memory(flow(), &switch);
    assert_eq!(SendOnion::new(engine.clone(), other.clone(), switch).unwrap_err(), missing(&other));
    unprepared.shutdown().await;
    engine.shutdown().await;
}

#[tokio::test]
async fn a_send_via_another_switch_is_made_by_it_and_asked_about_as_ever() {
    let (switch, other) = (FakeSwitch::new(), FakeSwitch::new());
    let (engine, onions) = in_memory(flow(), &switch);
    other.says(1, Dispatch::Unknown(None));
    switch.finds(1, Circuit::Ended(OnionEnd::Settled(bytes("preimage"))));
    let unknown = refused(&onions.via(Arc::new(other.clone())), 1).await;
    assert_eq!(unknown.class(), Class::Ambiguous);
    assert_eq!(within_a_minute(onions.track(A, 1)).await.unwrap(), Tracked::Settled(bytes("preimage")));
    assert_eq!((switch.sent(1), other.sent(1)), (0, 1));
    assert_eq!((switch.asked(1), other.asked(1)), (1, 0));
    engine.shutdown().await;
}

/// One record in each state, each under its own id.
async fn in_every_state(desk: &Desk, onions: &SendOnion) -> [(u64, Status, Class); 6] {
    desk.switch.acts(1, Act::Hang);
    desk.switch.says(3, Dispatch::Unknown(None));
    desk.switch.says(4, Dispatch::Settled(bytes("preimage")));
    desk.switch.says(6, Dispatch::Refused(Some(bytes("no channel"))));
    drop(send(onions, A, 1));
    desk.switch.until_sent().await;
    accepted(onions, A, 2).await;
    refused(onions, 3).await;
    let settled = onions.send(A, 4, &onion(2_000)).await.unwrap();
    assert!(
        matches!(settled, Sent::Settled(outcome) if outcome.how == How::Executed && *outcome.answer == *b"preimage")
    );
    accepted(onions, A, 5).await;
    onions.resolve(A, 5, None, &OnionEnd::Failed(None)).await.unwrap();
    refused(onions, 6).await;
    [
        (1, Status::Registered, Class::Duplicate),
        (2, Status::Dispatched, Class::Duplicate),
        (3, Status::InDoubt, Class::Duplicate),
        (4, Status::Completed, Class::Duplicate),
        (5, Status::Failed, Class::Duplicate),
        (6, Status::Failed, Class::Definitive),
    ]
}

#[tokio::test]
async fn c1_c4_the_same_onion_may_be_sent_in_every_state_and_another_one_is_a_conflict_in_every_state() {
    let desk = Desk::new();
    let (engine, onions) = desk.open_with(quick());
    for (id, state, class) in in_every_state(&desk, &onions).await {
        for _ in 0..3 {
            let known = refused(&onions, id).await;
            assert_eq!((known.class(), known.state()), (class, Some(state)), "{id}: {known:?}");
            let other = within_a_minute(onions.send(A, id, &onion(2_001))).await.unwrap_err();
            assert_eq!(other.class(), Class::Conflict, "{id}: {other:?}");
        }
        assert_eq!(onions.lookup(A, id).unwrap().unwrap().state, state);
        assert_eq!(desk.switch.sent(id), 1);
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn c2_c8_only_proof_is_definitive_and_the_wire_agrees_with_the_record() {
    let table = [
        (Act::Say(Dispatch::Refused(None)), Class::Definitive, Status::Failed),
        (Act::Say(Dispatch::Unknown(None)), Class::Ambiguous, Status::InDoubt),
        (Act::Say(Dispatch::Unknown(Some(bytes("shutting down")))), Class::Ambiguous, Status::InDoubt),
        (Act::Panic, Class::Ambiguous, Status::InDoubt),
        (Act::Say(Dispatch::AlreadyLive), Class::Duplicate, Status::Dispatched),
    ];
    let desk = Desk::new();
    let (engine, onions) = desk.open();
    for (id, (act, class, state)) in (1..).zip(table) {
        desk.switch.acts(id, act);
        let error = refused(&onions, id).await;
        assert_eq!((error.class(), error.state()), (class, Some(state)), "{id}: {error:?}");
        assert_eq!(onions.lookup(A, id).unwrap().unwrap().state, state);
        assert_eq!(desk.switch.sent(id), 1);
    }
    engine.shutdown().await;
    let (engine, onions) = desk.open();
    let states: Vec<_> = (1..=5).map(|id| onions.lookup(A, id).unwrap().unwrap().state).collect();
    assert_eq!(states, [Status::Failed, Status::InDoubt, Status::InDoubt, Status::InDoubt, Status::Dispatched]);
    engine.shutdown().await;
}

#[tokio::test]
async fn c5_what_is_registered_is_answered_when_nothing_new_is_taken_in() {
    let desk = Desk::new();
    let (engine, onions) = desk.open_with(quick());
    let states = in_every_state(&desk, &onions).await;
    engine.shutdown().await;

    // The engine may hold no new record any more, and its switch is another, empty one.
    let mut limits = quick();
    limits.records_per_scope = 1;
    let after = Desk { bench: desk.bench, switch: FakeSwitch::new() };
    let (engine, onions) = after.open_with(limits);
    for (id, state, class) in states {
        let state = if id == 1 { Status::InDoubt } else { state };
        let known = refused(&onions, id).await;
        assert_eq!((known.class(), known.state()), (class, Some(state)), "{id}: {known:?}");
    }
    let full = refused(&onions, 99).await;
    assert!(matches!(full.error().unwrap().kind(), ErrorKind::QuotaExceeded), "{full:?}");
    assert_eq!((full.class(), full.grpc_code()), (Class::Definitive, 8));
    assert_eq!(after.switch.sent_in_all(), 0);
    engine.shutdown().await;
}

#[tokio::test]
async fn c6_an_onion_outlives_its_sender() {
    let desk = Desk::new();
    let (engine, onions) = desk.open();
    let gate = Arc::new(Semaphore::new(0));
    desk.switch.acts(1, Act::Held(gate.clone(), Dispatch::Accepted));
    let sender = send(&onions, A, 1);
    desk.switch.until_sent().await;
    sender.abort();
    assert!(sender.await.unwrap_err().is_cancelled());
    let impatient = onions.clone().wait(std::time::Duration::from_millis(1));
    desk.switch.acts(2, Act::Held(gate.clone(), Dispatch::Accepted));
    let late = within_a_minute(impatient.send(A, 2, &onion(2_000))).await.unwrap_err();
    assert!(matches!(late.error().unwrap().kind(), ErrorKind::Deadline), "{late:?}");
    assert_eq!(late.class(), Class::Ambiguous);
    gate.add_permits(2);
    until(&engine, |stats| stats.records.dispatched == 2 && stats.live_actors == 0).await;
    for id in [1, 2] {
        assert_eq!(refused(&onions, id).await.state(), Some(Status::Dispatched));
        assert_eq!(desk.switch.sent(id), 1);
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn c7_absence_proves_nothing_and_the_fence_does() {
    let desk = Desk::new();
    let (engine, onions) = desk.open();
    assert!(onions.lookup(A, 1).unwrap().is_none());
    assert_eq!(onions.track(A, 1).await.unwrap_err().class(), Class::Ambiguous);
    accepted(&onions, A, 1).await;
    assert!(onions.lookup(A, 2).unwrap().is_none());
    assert_eq!(onions.fence(A, 2).await.unwrap(), Fenced::Fenced);
    assert_eq!(refused(&onions, 2).await.class(), Class::Definitive);
    assert_eq!((desk.switch.sent(1), desk.switch.sent(2)), (1, 0));
    let nobody = onions.send(b"", 3, &onion(2_000)).await.unwrap_err();
    assert!(matches!(nobody.error().unwrap().kind(), ErrorKind::InvalidKey(_)), "{nobody:?}");
    engine.shutdown().await;
    let closed = onions.send(A, 3, &onion(2_000)).await.unwrap_err();
    assert_eq!((closed.class(), closed.grpc_code()), (Class::Ambiguous, 14));
    assert_eq!(desk.switch.sent(3), 0);
}

#[tokio::test]
async fn every_id_of_64_bits_is_its_own_key_and_the_key_is_the_id_in_big_endian() {
    let desk = Desk::new();
    let (engine, onions) = desk.open();
    for id in [0, 7, 7 + (1 << 8), 7 << 56, u64::MAX] {
        assert!(onions.lookup(A, id).unwrap().is_none());
        accepted(&onions, A, id).await;
        let record = engine.lookup(&flow().key(A, id.to_be_bytes()).unwrap()).unwrap().unwrap();
        assert_eq!(*record.request, *onion(2_000).canonical());
        assert_eq!(desk.switch.sent(id), 1);
    }
    let ids: Vec<_> = onions.list(Some(A), None, 9).unwrap().onions.iter().map(|onion| onion.attempt_id).collect();
    assert_eq!(ids, [0, 7, 263, 7 << 56, u64::MAX]);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_send_that_never_blocks_tells_the_same_by_its_callback() {
    let desk = Desk::new();
    let (engine, onions) = desk.open();
    desk.switch.says(2, Dispatch::Refused(None));
    let mut heard = Vec::new();
    for id in [1, 1, 2, 2] {
        let (on_done, done) = oneshot::channel();
        onions.try_send(A, id, &onion(2_000), move |sent| drop(on_done.send(sent))).unwrap();
        heard.push(within_a_minute(done).await.unwrap());
    }
    assert!(matches!(heard[0], Ok(Sent::Accepted)), "{heard:?}");
    assert_eq!(heard[1].as_ref().unwrap_err().class(), Class::Duplicate);
    let refusals: Vec<_> = heard[2..].iter().map(|heard| heard.as_ref().unwrap_err()).collect();
    assert_eq!(told(refusals[0]), told(refusals[1]));
    assert_eq!(refusals.iter().map(|refusal| refusal.is_replayed()).collect::<Vec<_>>(), [false, true]);
    assert_eq!((desk.switch.sent(1), desk.switch.sent(2)), (1, 1));
    engine.shutdown().await;
}

#[tokio::test]
async fn a_policy_that_replays_gives_a_matching_retry_the_stored_success() {
    let switch = FakeSwitch::new();
    let flow = Flow::new("replaying", Policy::send_onion().after_completed(ibid::AfterCompleted::Replay)).unwrap();
    let (engine, onions) = in_memory(flow, &switch);
    accepted(&onions, A, 1).await;
    onions.resolve(A, 1, None, &OnionEnd::Settled(bytes("preimage"))).await.unwrap();
    let again = onions.send(A, 1, &onion(2_000)).await.unwrap();
    assert!(matches!(again, Sent::Settled(outcome) if outcome.is_replay() && *outcome.answer == *b"preimage"));
    assert_eq!(onions.send(A, 1, &onion(2_001)).await.unwrap_err().class(), Class::Conflict);
    assert_eq!(switch.sent(1), 1);
    engine.shutdown().await;
}

struct Thread(std::thread::ThreadId);

impl BlockingSwitch for Thread {
    fn dispatch(&self, request: &OnionRequest, _: &Attempt) -> Dispatch {
        assert_ne!(std::thread::current().id(), self.0);
        match request.attempt_id {
            1 => Dispatch::Unknown(None),
            _ => std::panic::resume_unwind(Box::new("injected into a blocking switch")),
        }
    }

    fn find(&self, request: &OnionRequest, inquiry: &Inquiry) -> Circuit {
        assert_ne!(std::thread::current().id(), self.0);
        assert_eq!((inquiry.status(), request.onion.amount_msat()), (Status::InDoubt, 2_000));
        Circuit::Ended(OnionEnd::Settled(bytes("preimage")))
    }
}

#[tokio::test]
async fn a_blocking_switch_runs_off_the_async_threads() {
    let switch = Arc::new(Blocking::new(Arc::new(Thread(std::thread::current().id()))));
    let builder = SendOnion::prepare(Engine::builder(), &flow(), switch.clone());
    let engine = builder.open_in_memory().unwrap();
    let onions = SendOnion::new(engine.clone(), flow(), switch).unwrap();
    for id in [1, 2] {
        assert_eq!(refused(&onions, id).await.class(), Class::Ambiguous);
        assert_eq!(within_a_minute(onions.track(A, id)).await.unwrap(), Tracked::Settled(bytes("preimage")));
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn a_proof_over_the_limit_is_not_kept_and_the_onion_has_arrived_all_the_same() {
    let mut limits = Limits::default();
    limits.answer_bytes = 16;
    let desk = Desk::new();
    let (engine, onions) = desk.open_with(limits);
    let proof = bytes("a proof of more than sixteen bytes");
    desk.switch.says(1, Dispatch::Settled(proof.clone()));
    let sent = onions.send(A, 1, &onion(2_000)).await.unwrap();
    assert!(matches!(sent, Sent::Settled(outcome) if outcome.answer == proof));
    assert_eq!(onions.track(A, 1).await.unwrap(), Tracked::SettledWithoutProof);
    let known = refused(&onions, 1).await;
    assert_eq!((known.class(), known.state(), known.ended()), (Class::Duplicate, Some(Status::Completed), None));
    assert_eq!(onions.lookup(A, 1).unwrap().unwrap().end, Some(Tracked::SettledWithoutProof));
    assert_eq!(desk.switch.sent(1), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn nothing_that_is_printed_shows_what_it_holds() {
    let desk = Desk::new();
    let (engine, onions) = desk.open();
    let secret = "canary-in-the-onion";
    let mut wire = WireOnion { custom_records: vec![(70_000, secret.into())], ..wire(2_000) };
    wire.onion[..secret.len()].copy_from_slice(secret.as_bytes());
    let canary = Onion::try_from(wire.clone()).unwrap();
    desk.switch.says(1, Dispatch::Refused(Some(bytes(secret))));
    let refused = onions.send(secret.as_bytes(), 1, &canary).await.unwrap_err();
    for id in [2, 3] {
        onions.send(secret.as_bytes(), id, &canary).await.unwrap();
    }
    let end = OnionEnd::Settled(bytes(secret));
    onions.resolve(secret.as_bytes(), 2, None, &end).await.unwrap();
    let tracked = onions.track(secret.as_bytes(), 2).await.unwrap();
    let known = onions.lookup(secret.as_bytes(), 2).unwrap();
    let request = OnionRequest { namespace: secret.into(), attempt_id: 1, onion: canary.clone() };
    let shown = format!(
        "{wire:?} {canary:?} {refused:?} {refused} {end:?} {tracked:?} {known:?} {request:?} {onions:?} {:?} {:?}",
        Dispatch::Settled(bytes(secret)),
        Circuit::Ended(end.clone()),
    );
    let shown = format!("{shown} {:?}", onions.list(None, None, 9).unwrap());
    let listed: Vec<u8> = secret.into();
    for leak in [secret.to_owned(), format!("{listed:?}").replace(['[', ']'], "")] {
        assert!(!shown.contains(&leak), "{shown}");
    }
    engine.shutdown().await;
}
