//! R17, R18, R28: how long a record answers, what it says afterwards, and what an expiry sweep may take. The clock is held.

use crate::support::problem::{EXPIRED, EXPIRED_IETF, IN_DOUBT, MISMATCH};
use crate::support::{Ask, Kind, Pending, Reply, Server, Wire, ask, both};

both![
    the_retention_is_counted_from_the_finish,
    now_equal_to_expires_at_is_expired,
    expired_runs_anew_by_default,
    refused_until_the_end_of_grace,
    refused_once_and_then_run,
    after_expiry_a_crowd_runs_once,
    an_expired_record_is_absent_after_grace_swept_or_not,
    without_grace_nothing_is_ever_refused_as_expired,
    the_ietf_profile_says_422,
    a_clock_stepped_back_revives_nothing,
    the_clock_mark_outlives_the_process,
    a_forward_jump_is_suspect_until_it_has_lasted,
    an_expiry_sweep_takes_the_oldest_first_in_slices,
    an_expiry_sweep_leaves_what_runs_or_is_in_doubt,
    the_longest_retention_is_72_hours,
];

const TTL: u64 = 300_000;
const GRACE: u64 = 120_000;

/// A server with a held clock, a retention of five minutes and two minutes of grace.
fn held(kind: Kind, flags: &[&str]) -> Server {
    let server = Server::start(kind, &[&["--ttl", "300"], flags].concat());
    server.freeze();
    server
}

fn pay(key: &str) -> Ask {
    ask("POST", "/pay", key)
}

fn the_retention_is_counted_from_the_finish(kind: Kind) {
    let server = Server::start(kind, &["--ttl", "300"]);
    let now = server.freeze();
    assert_eq!(server.freeze(), now, "it is stopped");
    let pending = server.spawn(&ask("POST", "/pay?sleep=600", "k"));
    server.wait_started(1);
    let running = server.record();
    assert_eq!((running.state.as_str(), running.created_ms, running.expires_ms), ("registered", now, None));
    assert_eq!(server.advance(60_000), now + 60_000);
    assert_eq!(server.counts().finished, 0, "the handler was still running");
    pending.reply().executed(200);
    let done = server.wait_state("completed");
    assert_eq!((done.created_ms, done.updated_ms, done.expires_ms), (now, now + 60_000, Some(now + 60_000 + TTL)));
}

fn now_equal_to_expires_at_is_expired(kind: Kind) {
    let server = held(kind, &["--on-expired", "refuse"]);
    let first = server.send(&pay("k")).executed(200);
    server.advance(TTL - 1);
    server.send(&pay("k")).replays(&first);
    let expires = server.record().expires_ms.unwrap();
    assert_eq!(server.advance(1), expires);
    server.send(&pay("k")).refused(EXPIRED);
    assert_eq!(server.started(), 1);
}

fn expired_runs_anew_by_default(kind: Kind) {
    let server = held(kind, &[]);
    server.send(&pay("k")).executed(200);
    server.advance(TTL);
    // Any request may take the key now.
    let other = pay("k").body("another");
    let second = server.send(&other).executed(200).answers(&other, "POST /pay", 2);
    server.send(&other).replays(&second);
    server.send(&pay("k")).refused(MISMATCH);
    assert_eq!(server.record().expires_ms, Some(server.freeze() + TTL));
}

fn refused_until_the_end_of_grace(kind: Kind) {
    let server = held(kind, &["--on-expired", "refuse"]);
    server.send(&pay("k")).executed(200);
    server.advance(TTL);
    server.send(&pay("k")).refused(EXPIRED);
    server.send(&pay("k")).refused(EXPIRED);
    assert_eq!(server.send(&pay("k").body("another")).status, 409);
    server.advance(GRACE - 1);
    server.send(&pay("k")).refused(EXPIRED);
    assert_eq!(server.started(), 1);
    server.advance(1);
    server.send(&pay("k")).executed(200);
    server.wait_metric("conflict_count", "POST /pay", 4.0);
}

fn refused_once_and_then_run(kind: Kind) {
    let server = held(kind, &["--on-expired", "refuse-once", "--grace", "10"]);
    server.send(&pay("k")).executed(200);
    server.send(&pay("quiet")).executed(200);
    server.advance(TTL);
    server.send(&pay("k")).refused(EXPIRED);
    assert_eq!(server.records().records.len(), 1, "it pruned");
    server.send(&pay("k")).executed(200);
    server.advance(9_999);
    server.send(&pay("quiet")).refused(EXPIRED);
    server.send(&pay("quiet")).executed(200);
    assert_eq!(server.started(), 4);
    server.advance(TTL + 10_000);
    server.send(&pay("k")).executed(200);
}

fn after_expiry_a_crowd_runs_once(kind: Kind) {
    for (on_expired, told) in [("rerun", 0), ("refuse-once", 1)] {
        let server = held(kind, &["--on-expired", on_expired]);
        let ask = ask("POST", "/pay?sleep=300", "k");
        server.send(&ask).executed(200);
        server.advance(TTL);
        let all: Vec<_> = (0..20).map(|_| server.spawn(&ask)).collect();
        let replies: Vec<_> = all.into_iter().map(Pending::reply).collect();
        let expired = |reply: &&Reply| reply.status == 409 && reply.text().contains("idempotency_expired");
        assert_eq!(replies.iter().filter(expired).count(), told, "{on_expired}");
        let ran = replies.iter().filter(|reply| reply.status == 200 && !reply.is_replay()).count();
        assert_eq!((ran, server.started()), (1, 2), "{on_expired}");
    }
}

fn an_expired_record_is_absent_after_grace_swept_or_not(kind: Kind) {
    for on_expired in ["rerun", "refuse-once", "refuse"] {
        let server = held(kind, &["--on-expired", on_expired]);
        server.send(&pay("k1")).executed(200);
        server.send(&pay("k2")).executed(200);
        server.advance(TTL + GRACE - 1);
        assert_eq!(server.expiry_sweep(256), (0, false));
        server.advance(1);
        server.send(&pay("k1")).executed(200);
        assert_eq!(server.expiry_sweep(256), (1, false), "the new record stays");
        server.send(&pay("k2")).executed(200);
        assert_eq!(server.started(), 4);
    }
}

fn without_grace_nothing_is_ever_refused_as_expired(kind: Kind) {
    let server = held(kind, &["--on-expired", "refuse", "--grace", "0"]);
    let first = server.send(&pay("k")).executed(200);
    server.advance(TTL - 1);
    server.send(&pay("k")).replays(&first);
    server.advance(1);
    server.send(&pay("k")).executed(200);
}

fn the_ietf_profile_says_422(kind: Kind) {
    let server = held(kind, &["--on-expired", "refuse", "--profile", "ietf"]);
    server.send(&pay("k")).executed(200);
    server.advance(TTL);
    server.send(&pay("k")).refused(EXPIRED_IETF);
}

fn a_clock_stepped_back_revives_nothing(kind: Kind) {
    let server = held(kind, &["--on-expired", "refuse"]);
    let first = server.send(&pay("k")).executed(200);
    server.jump(-3_600_000);
    server.send(&pay("k")).replays(&first);
    server.jump(3_600_000);
    let late = server.advance(TTL);
    server.send(&pay("k")).refused(EXPIRED);
    assert!(server.jump(-7_200_000) >= late, "no time before what was seen");
    server.send(&pay("k")).refused(EXPIRED);
    let new = server.send(&pay("new")).executed(200);
    server.send(&pay("new")).replays(&new);
    let record = server.records().records.into_iter().find(|record| record.expires_ms > Some(late)).unwrap();
    assert!(record.created_ms >= late, "{record:?}");
    assert_eq!(server.started(), 2);
}

fn the_clock_mark_outlives_the_process(kind: Kind) {
    let mut server = held(kind, &["--on-expired", "refuse"]);
    server.send(&pay("k")).executed(200);
    let late = server.advance(TTL + 1_000);
    server.send(&pay("k")).refused(EXPIRED);
    // A record of this time, so that the time is in the file.
    server.send(&pay("mark")).executed(200);
    server.restart(&["--ttl", "300", "--on-expired", "refuse"]);
    assert!(server.records().now_ms >= late, "{} before {late}", server.records().now_ms);
    server.send(&pay("k")).refused(EXPIRED);
    assert_eq!(server.started(), 0);
}

fn a_forward_jump_is_suspect_until_it_has_lasted(kind: Kind) {
    let server = held(kind, &[]);
    server.send(&pay("k")).executed(200);
    server.jump(2 * 3_600_000);
    assert_eq!(server.expiry_sweep(256), (0, true));
    server.send(&pay("k")).refused(EXPIRED);
    assert_eq!(server.started(), 1, "nothing runs because of expiry");
    let fresh = server.send(&pay("fresh")).executed(200);
    server.send(&pay("fresh")).replays(&fresh);
    server.advance(600_000);
    let (_, held_back) = server.expiry_sweep(256);
    assert!(!held_back);
    server.send(&pay("k")).executed(200);
    assert_eq!(server.started(), 3);
}

fn an_expiry_sweep_takes_the_oldest_first_in_slices(kind: Kind) {
    let server = held(kind, &[]);
    let mut due = Vec::new();
    for n in 0..20 {
        server.send(&pay(&format!("k{n}"))).executed(200);
        due.push(server.advance(1) - 1);
    }
    // The other 280 at one time, over a few connections.
    let many = |from: usize| (from..from + 40).flat_map(|n| pay(&format!("k{n}")).bytes()).collect::<Vec<_>>();
    let mut wires: Vec<_> = (0..7).map(|n| Wire::open(&server).say(&many(20 + 40 * n))).collect();
    for wire in &mut wires {
        (0..40).for_each(|_| drop(wire.reply().expect("an answer").executed(200)));
    }
    server.advance(1);
    let young = server.send(&pay("young")).executed(200);
    assert_eq!(server.expiry_sweep(256), (0, false));
    // The first ten are due.
    server.advance(TTL + GRACE - 12);
    assert_eq!(server.expiry_sweep(4), (4, false));
    let left: Vec<_> = server.records().records.iter().map(|record| record.created_ms).collect();
    assert_eq!(left[..3], due[4..7], "the oldest went");
    assert_eq!((server.expiry_sweep(256), server.expiry_sweep(256)), ((6, false), (0, false)));
    server.advance(11);
    assert_eq!(server.expiry_sweep(10_000), (256, false), "a slice is at most 256");
    assert_eq!((server.expiry_sweep(256), server.expiry_sweep(256)), ((34, false), (0, false)));
    let metric = server.metrics().get("idempotency_expiry_sweep_count");
    assert_eq!((metric as u64, server.records().records.len()), (300, 1));
    assert_eq!(server.expiry_sweep(256), (0, false));
    server.send(&pay("young")).executed(200);
    assert!(!young.is_replay());
}

fn an_expiry_sweep_leaves_what_runs_or_is_in_doubt(kind: Kind) {
    let server = held(kind, &[]);
    let doubted = ask("POST", "/pay?as=in_doubt", "doubted");
    server.send(&doubted).refused(IN_DOUBT);
    let running = server.spawn(&ask("POST", "/pay?sleep=1500", "running"));
    server.wait_started(2);
    server.send(&pay("finished")).executed(200);
    for _ in 0..3 {
        server.advance(72 * 3_600_000);
        server.expiry_sweep(256);
    }
    let states: Vec<_> = server.records().records.into_iter().map(|record| record.state).collect();
    assert_eq!(states, ["in_doubt", "registered"]);
    server.send(&doubted).refused(IN_DOUBT);
    let first = running.reply().executed(200);
    server.send(&ask("POST", "/pay?sleep=1500", "running")).replays(&first);
    assert_eq!(server.started(), 3);
}

fn the_longest_retention_is_72_hours(kind: Kind) {
    let server = Server::start(kind, &["--ttl", "259200"]);
    let now = server.freeze();
    let first = server.send(&pay("k")).executed(200);
    assert_eq!(server.record().expires_ms, Some(now + 259_200_000));
    server.advance(259_199_999);
    server.send(&pay("k")).replays(&first);
    server.advance(1);
    server.send(&pay("k")).executed(200);
    let default = Server::start(kind, &[]);
    let now = default.freeze();
    default.send(&pay("k")).executed(200);
    assert_eq!(default.record().expires_ms, Some(now + 86_400_000));
}
