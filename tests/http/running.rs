//! R11, R12: a second request while the first one runs, refused or joined; any number of them, one run.

use crate::support::problem::{BUSY, IN_DOUBT, IN_FLIGHT, MISMATCH, NOT_KEPT, UNKNOWN};
use crate::support::{Ask, Kind, Pending, Server, ask, both};

both![
    while_one_runs_the_others_are_refused_and_change_nothing,
    a_joined_request_gets_the_answer_of_the_run,
    a_join_that_waits_too_long_is_refused_and_the_run_goes_on,
    whatever_becomes_of_the_run_the_joined_hear_of_it,
    a_mismatch_outranks_a_run_in_flight_in_both_modes,
    a_run_holds_back_its_own_key_alone,
];

const ROUTE: &str = "POST /pay";

fn slow(key: &str, ms: u64) -> Ask {
    ask("POST", &format!("/pay?sleep={ms}"), key)
}

fn while_one_runs_the_others_are_refused_and_change_nothing(kind: Kind) {
    let server = Server::start(kind, &[]);
    let ask = slow("k", 1_000);
    let first = server.spawn(&ask);
    server.wait_started(1);
    let before = server.record();
    assert_eq!((before.state.as_str(), before.attempt, before.expires_ms), ("registered", 1, None));
    for _ in 0..5 {
        let refused = server.send(&ask).refused(IN_FLIGHT);
        assert_eq!(refused.state(), "registered");
    }
    assert_eq!(server.record(), before);
    let first = first.reply().executed(200);
    server.send(&ask).replays(&first);
    assert_eq!(server.started(), 1);
    server.wait_metric("inflight_gauge", ROUTE, 0.0);
    server.wait_metric("duplicate_count", ROUTE, 5.0);
}

fn a_joined_request_gets_the_answer_of_the_run(kind: Kind) {
    let server = Server::start(kind, &["--on-running", "join"]);
    let ask = ask("POST", "/pay?sleep=700&status=402&header=X-A:1&header=Set-Cookie:s=1&header=X-A:2", "k");
    let first = server.spawn(&ask);
    server.wait_started(1);
    let others: Vec<_> = (0..5).map(|_| server.spawn(&ask)).collect();
    let first = first.reply().executed(402);
    assert_eq!(first.values("set-cookie").len(), 1);
    for joined in others.into_iter().map(Pending::reply) {
        let joined = joined.replays(&first);
        let both: [&[u8]; 2] = [b"1", b"2"];
        assert_eq!((joined.values("x-a"), joined.values("set-cookie")), (both.to_vec(), vec![]));
    }
    assert_eq!(server.started(), 1);
    let metrics = server.metrics();
    let of = |how: &str| metrics.get(&format!("idempotency_replay_count{{route=\"{ROUTE}\",how=\"{how}\"}}"));
    assert_eq!((of("joined") + of("replayed"), metrics.of_route("executed_count", ROUTE)), (5.0, 1.0));
    assert!(of("joined") >= 1.0);
}

fn a_join_that_waits_too_long_is_refused_and_the_run_goes_on(kind: Kind) {
    let server = Server::start(kind, &["--on-running", "join", "--join-wait", "200"]);
    let ask = slow("k", 1_500);
    let first = server.spawn(&ask);
    server.wait_started(1);
    server.send(&ask).refused(IN_FLIGHT);
    assert_eq!(server.counts().finished, 0, "the run goes on");
    let first = first.reply().executed(200);
    server.send(&ask).replays(&first);
    assert_eq!(server.started(), 1);
}

fn whatever_becomes_of_the_run_the_joined_hear_of_it(kind: Kind) {
    let server = Server::start(kind, &["--on-running", "join"]);
    let of = |end: &str| ask("POST", &format!("/pay?sleep=700&{end}"), end);
    let asks = ["panic=2", "as=in_doubt", "as=forget", "bytes=70000", "status=503"].map(of);
    let firsts = asks.clone().map(|ask| server.spawn(&ask));
    server.wait_started(5);
    let joined = asks.clone().map(|ask| server.spawn(&ask));
    let [panicked, doubted, forgotten, long, failed] = firsts.map(Pending::reply);
    let [with_panicked, with_doubted, with_forgotten, with_long, with_failed] = joined.map(Pending::reply);
    with_panicked.problem(UNKNOWN).replays(&panicked.refused(UNKNOWN));
    doubted.refused(IN_DOUBT);
    with_doubted.refused(IN_DOUBT);
    with_forgotten.replays(&forgotten.executed(200));
    assert_eq!(long.executed(200).body.len(), 70_000);
    with_long.refused(NOT_KEPT);
    with_failed.replays(&failed.executed(503));
    assert_eq!(server.started(), 5);
    server.wait_metric("inflight_gauge", ROUTE, 0.0);
}

fn a_mismatch_outranks_a_run_in_flight_in_both_modes(kind: Kind) {
    for mode in ["refuse", "join"] {
        let server = Server::start(kind, &["--on-running", mode]);
        let ask = slow("k", 600);
        let first = server.spawn(&ask);
        server.wait_started(1);
        let before = server.record();
        server.send(&ask.clone().body("another")).refused(MISMATCH);
        assert_eq!(server.counts().finished, 0, "refused at once");
        assert_eq!(server.record(), before);
        let first = first.reply().executed(200);
        server.send(&ask).replays(&first);
    }
}

fn a_run_holds_back_its_own_key_alone(kind: Kind) {
    let server = Server::start(kind, &["--max-in-flight-per-scope", "2"]);
    let held = slow("k1", 1_000);
    let first = server.spawn(&held);
    server.wait_started(1);
    server.send(&ask("POST", "/pay", "k2")).executed(200);
    server.send(&ask("POST", "/pay", "k1").actor("b")).executed(200);
    server.send(&ask("PATCH", "/pay", "k1")).executed(200);
    assert_eq!(server.counts().finished, 3, "the first one still runs");
    first.reply().executed(200);
    // Had they kept their places, nobody would get in now.
    for key in ["k3", "k4", "k5"] {
        let reply = server.send(&ask("POST", "/pay", key));
        assert_ne!(reply.status, BUSY.status());
        reply.executed(200);
    }
}
