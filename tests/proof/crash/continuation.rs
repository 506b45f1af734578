//! The life after a power loss: every request comes again, and the referee looks.

use ibid::testing::{SimulatedDisk, simulate};
use ibid::{AfterCompleted, Class, ErrorKind, InDoubt, Origin, Policy, Record, State, Status, UnixMillis};

use super::release;
use super::workload::{Ends, Life, Seen, World, is_payment, is_replay_safe};

/// Opens an engine on the disk, sends each request again, and holds what starts and what is answered against what the disk
/// holds. Returns that life, so that the power can be lost in it, too.
pub(crate) fn go_on(policy: &Policy, left: &SimulatedDisk, seed: u64) -> Life {
    let (policy, left) = (policy.clone(), left.clone());
    simulate(!seed, async move |simulation| {
        let mut world = World::open(simulation, &left, &policy).expect("the engine opens");
        let found = world.commits()[0].content.clone();
        for key in 0..world.keys.len() {
            let record = found.records[key].as_ref();
            let request = record.map_or_else(|| b"request".to_vec(), |record| record.request.to_vec());
            let request = String::from_utf8(request).expect("the workload's requests are text");
            // A tombstone and a finished record tell nothing of their request where it has lapsed.
            let now = world.engine.now().max(found.mark);
            let judged = record.filter(|record| !is_late(record, now, found.tick_mark));
            if judged.is_some() {
                world.submit(key, "yet another", Ends::Done).await;
                expect_refused(&world.take_seen(), judged);
            }
            world.submit(key, &request, Ends::Done).await;
            let seen = world.take_seen();
            if let Err(wrong) = judge(&policy, (judged, record.is_some()), &seen) {
                panic!("{wrong}: found {record:#?}, then seen {seen:#?}");
            }
            if is_payment(&policy) {
                release::go_on(&mut world, &policy, key, &request).await;
            }
        }
        simulation.crash(&world.engine).await;
        Life { disk: left, commits: world.commits(), before_last: 0 }
    })
    .expect("there is a runtime")
}

/// Whether its age decides: those cases are the table's and the episodes'.
fn is_late(record: &Record, now: UnixMillis, tick: u64) -> bool {
    let by_ticks = record.lapses_at_tick.is_some_and(|last| tick >= last);
    let ends = [record.expires_at, record.lapses_at, record.tombstone_until];
    by_ticks || ends.into_iter().flatten().any(|end| now >= end)
}

/// Another request must neither run nor be answered.
fn expect_refused(seen: &[Seen], record: Option<&Record>) {
    let is_refused = |seen: &Seen| matches!(seen, Seen::Refused(error) if matches!(error.class(), Class::Conflict | Class::Definitive));
    assert!(matches!(seen, [one] if is_refused(one)), "another request under {record:#?}: {seen:#?}");
}

/// What may be seen when the request of this record comes again after a restart; of one that has lapsed it gets none.
fn judge(policy: &Policy, (record, is_lapsed): (Option<&Record>, bool), seen: &[Seen]) -> Result<(), &'static str> {
    let starts: Vec<_> = seen.iter().filter(|seen| matches!(seen, Seen::Started { .. })).collect();
    if let Some(Seen::Wrong(_)) = seen.iter().find(|seen| matches!(seen, Seen::Wrong(_))) {
        return Err("something left before it was durable");
    }
    let Some(record) = record else {
        // What a power loss may forget runs as if it had never been there.
        let is_first = matches!(starts.as_slice(), [Seen::Started { number: 1, checkpoint: None, .. }]);
        return ok(is_first || !is_replay_safe(policy) || is_lapsed, "nothing is known of it, and it did not run once");
    };
    let reruns = policy.clone() == policy.clone().in_doubt(InDoubt::Rerun);
    match (&record.state, starts.as_slice()) {
        (State::Registered | State::InDoubt, [Seen::Started { number, token, checkpoint, .. }]) if reruns => {
            let goes_on = *number == record.attempt.number + 1 && *token == record.attempt.token;
            ok(goes_on && *checkpoint == record.checkpoint, "a re-run that does not go on where the last one was")
        }
        (_, [_, ..]) => Err("it ran again"),
        (State::Registered | State::InDoubt, []) => match refusal(seen) {
            Some(ErrorKind::InDoubt(_) | ErrorKind::RecoveriesExhausted | ErrorKind::Duplicate(Status::InDoubt)) => {
                Ok(())
            }
            _ => Err("it is in doubt, and that is not what was said"),
        },
        (State::Dispatched, []) => match refusal(seen) {
            Some(ErrorKind::Duplicate(Status::Dispatched) | ErrorKind::Deadline) => Ok(()),
            _ => Err("it is dispatched, and that is not what was said"),
        },
        (State::Completed(kept), []) => {
            let replays = policy.clone() == policy.clone().after_completed(AfterCompleted::Replay);
            match (kept, seen) {
                (Some(kept), [Seen::Answered(answer)]) => ok(replays && answer == kept, "another answer"),
                _ => match refusal(seen) {
                    Some(ErrorKind::Duplicate(Status::Completed)) => ok(!replays, "the answer was not replayed"),
                    Some(ErrorKind::AnswerNotKept) => ok(kept.is_none(), "the answer was there"),
                    _ => Err("it is completed, and that is not what was said"),
                },
            }
        }
        (State::Failed(origin, reason), []) => match (origin, refusal(seen)) {
            (Origin::RolledBack, Some(ErrorKind::Failed(told))) => ok(told.bytes() == reason, "another reason"),
            (Origin::Resolved, Some(ErrorKind::Duplicate(Status::Failed))) => Ok(()),
            _ => Err("it has failed, and that is not what was said"),
        },
        (State::Tombstone(_), []) => match refusal(seen) {
            Some(ErrorKind::Fenced | ErrorKind::Expired) => Ok(()),
            _ => Err("there is a tombstone, and that is not what was said"),
        },
    }
}

fn refusal(seen: &[Seen]) -> Option<&ErrorKind> {
    match seen {
        [Seen::Refused(error)] => Some(error.kind()),
        _ => None,
    }
}

fn ok(holds: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(otherwise) }
}
