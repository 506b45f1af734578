//! R21: admission bounds, asked only when the look-up found nothing.

use crate::support::problem::{BUSY, BUSY_SCOPE, IN_FLIGHT, MISMATCH};
use crate::support::{Ask, Kind, Pending, Server, ask, both};

both![
    the_global_bound_refuses_new_keys_alone,
    the_bound_of_a_scope_refuses_that_scope_alone,
    joiners_are_not_new_runs,
    a_crowd_of_keys_runs_as_many_as_fit,
];

fn pay(key: &str) -> Ask {
    ask("POST", "/pay", key)
}

fn held(server: &Server, key: &str) -> (Ask, Pending) {
    let ask = ask("POST", "/pay?sleep=1500", key);
    let pending = server.spawn(&ask);
    server.wait_started(2);
    (ask, pending)
}

fn the_global_bound_refuses_new_keys_alone(kind: Kind) {
    let server = Server::start(kind, &["--max-in-flight", "1"]);
    let done = server.send(&pay("done")).executed(200);
    let (running, pending) = held(&server, "running");
    server.send(&pay("new")).refused(BUSY);
    server.send(&pay("new").actor("b")).refused(BUSY);
    // What is known is answered from its record.
    server.send(&pay("done")).replays(&done);
    server.send(&pay("done").body("another")).refused(MISMATCH);
    server.send(&running).refused(IN_FLIGHT);
    server.send(&running.clone().body("another")).refused(MISMATCH);
    // What is not keyed needs no place.
    assert_eq!(server.get("/pay").status, 200);
    assert_eq!((server.counts().routes["POST /pay"], server.records().records.len()), (2, 2));
    pending.reply().executed(200);
    server.send(&pay("new")).executed(200);
    server.wait_metric("inflight_gauge", "POST /pay", 0.0);
}

fn the_bound_of_a_scope_refuses_that_scope_alone(kind: Kind) {
    let server = Server::start(kind, &["--max-in-flight-per-scope", "1"]);
    let done = server.send(&pay("done")).executed(200);
    let (running, pending) = held(&server, "running");
    server.send(&pay("new")).refused(BUSY_SCOPE);
    server.send(&ask("POST", "/v1/pay", "new")).refused(BUSY_SCOPE);
    server.send(&pay("new").actor("b")).executed(200);
    server.send(&pay("done")).replays(&done);
    server.send(&running).refused(IN_FLIGHT);
    assert_eq!(server.counts().started, 3);
    pending.reply().executed(200);
    server.send(&pay("new")).executed(200);
}

fn joiners_are_not_new_runs(kind: Kind) {
    let server = Server::start(kind, &["--max-in-flight", "1", "--on-running", "join"]);
    server.send(&pay("done")).executed(200);
    let (running, pending) = held(&server, "running");
    let joiners: Vec<_> = (0..5).map(|_| server.spawn(&running)).collect();
    server.send(&pay("new")).refused(BUSY);
    let first = pending.reply().executed(200);
    for joiner in joiners {
        joiner.reply().replays(&first);
    }
    assert_eq!(server.started(), 2);
}

fn a_crowd_of_keys_runs_as_many_as_fit(kind: Kind) {
    let server = Server::start(kind, &["--max-in-flight", "8"]);
    let asks: Vec<_> =
        (0..60).map(|n| ask("POST", "/pay?sleep=800", &format!("k{n}")).actor(&format!("a{n}"))).collect();
    let all: Vec<_> = asks.iter().map(|ask| server.spawn(ask)).collect();
    let replies: Vec<_> = all.into_iter().map(Pending::reply).collect();
    let ran = replies.iter().filter(|reply| reply.status == 200).count();
    assert!((8..60).contains(&ran), "{ran}");
    assert_eq!(server.started() as usize, ran);
    for reply in replies.into_iter().filter(|reply| reply.status != 200) {
        reply.refused(BUSY);
    }
    assert_eq!(server.records().records.len(), ran);
}
