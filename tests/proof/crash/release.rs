//! How a payment or an onion frees its key after a power loss: by what the rules name, and by nothing before that.

use ibid::{Abandoned, Acknowledged, Ended, ErrorKind, Forgotten, Policy, Record, Resolved, State, Status, Token};

use super::workload::{Ends, QUIET_TICKS, Seen, World};

/// Brings the record to its end if it has none, and then to its release; holds each step against what was told before.
pub(crate) async fn go_on(world: &mut World<'_>, policy: &Policy, key: usize, request: &str) {
    world.resolve_earlier(key).await;
    expect_nothing_wrong(world);
    let Some(record) = world.record(key) else { return };
    match record.state {
        State::Registered | State::Dispatched | State::InDoubt => fail(world, &record, key, request).await,
        State::Completed(_) if *policy == Policy::send_payment() => count(world, &record, key, request).await,
        State::Completed(_) => forget(world, &record, key, request).await,
        State::Failed(..) => {
            assert_eq!(world.abandon(key).await, Abandoned::Released, "it has failed: {record:#?}");
            expect_run(world, &record, key, request).await;
        }
        State::Tombstone(_) => {}
    }
}

/// It fails: given up before, it frees its key; else not before it is given up.
async fn fail(world: &World<'_>, record: &Record, key: usize, request: &str) {
    let reason = Ended::Failed((*b"no route").into());
    let told = world.engine.resolve(&world.flow, &world.keys[key], Some(record.attempt), reason.clone()).await;
    assert_eq!(told.expect("the store works"), Resolved::Recorded, "{record:#?}");
    if !record.abandoned {
        expect_duplicate(world, key, request, Status::Failed, &reason).await;
        assert_eq!(world.abandon(key).await, Abandoned::Released, "{record:#?}");
    }
    expect_run(world, record, key, request).await;
}

/// Not before the eighth tick after it was acknowledged, as far as those are durable.
async fn count(world: &mut World<'_>, record: &Record, key: usize, request: &str) {
    let State::Completed(Some(answer)) = &record.state else { return };
    let end = Ended::Completed(answer.clone());
    let left = match record.lapses_at_tick {
        Some(last) => last.saturating_sub(world.ticks()),
        None => {
            world.tick(2).await;
            expect_duplicate(world, key, request, Status::Completed, &end).await;
            assert_eq!(world.acknowledge(key).await, Acknowledged::Counting, "{record:#?}");
            QUIET_TICKS + 1
        }
    };
    assert!((1..=QUIET_TICKS + 1).contains(&left), "{left} ticks are left: {record:#?}");
    world.tick(left - 1).await;
    expect_duplicate(world, key, request, Status::Completed, &end).await;
    world.tick(1).await;
    expect_run(world, record, key, request).await;
}

/// Ticks do nothing to an onion; it goes by name.
async fn forget(world: &mut World<'_>, record: &Record, key: usize, request: &str) {
    let State::Completed(Some(answer)) = &record.state else { return };
    world.tick(1).await;
    expect_duplicate(world, key, request, Status::Completed, &Ended::Completed(answer.clone())).await;
    let forgotten = world.engine.forget(&world.flow, &world.keys[key..=key]).await.expect("the store works");
    assert_eq!(forgotten[0].1, Forgotten::Forgotten, "{record:#?}");
    expect_run(world, record, key, request).await;
}

/// The request is known, and how it ended is told with that.
async fn expect_duplicate(world: &World<'_>, key: usize, request: &str, status: Status, end: &Ended) {
    world.submit(key, request, Ends::Done).await;
    let seen = world.take_seen();
    let is_so = |error: &ibid::Error| {
        matches!(error.kind(), ErrorKind::Duplicate(told) if *told == status) && error.recorded() == Some(end)
    };
    assert!(matches!(seen.as_slice(), [Seen::Refused(error)] if is_so(error)), "not released yet: {seen:#?}");
}

/// The key is free: the request runs, as another record.
async fn expect_run(world: &World<'_>, record: &Record, key: usize, request: &str) {
    world.submit(key, request, Ends::Done).await;
    let seen = world.take_seen();
    let is_new = |number: u32, token: &Token| number == 1 && *token != record.attempt.token;
    let ran =
        matches!(seen.as_slice(), [Seen::Started { number, token, .. }, Seen::Answered(_)] if is_new(*number, token));
    assert!(ran, "released, and it did not run anew: {record:#?}, {seen:#?}");
}

fn expect_nothing_wrong(world: &World<'_>) {
    let seen = world.take_seen();
    assert!(seen.is_empty(), "{seen:#?}");
}
