//! R13: a client that goes away changes nothing once its request is registered, and registers nothing before.

use crate::support::{Kind, Pending, Reply, Server, Wire, ask, both, wait_for, wait_until};

both![
    a_handler_outlives_its_client,
    a_client_that_leaves_before_its_body_is_whole_registers_nothing,
    a_joined_client_keeps_the_run_of_one_that_left,
    a_joined_client_that_leaves_takes_nothing_along,
    many_clients_leave_and_every_run_ends,
];

fn a_handler_outlives_its_client(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    for (n, query) in (1..).zip(["sleep=300", "sleep_after=300", "sleep=300&status=402"]) {
        let ask = ask("POST", &format!("/refund?{query}"), &format!("k{n}"));
        let wire = Wire::open(&server).say(&ask.bytes());
        server.wait_started(n);
        drop(wire);
        server.wait_finished(n);
        let first = wait_for("the answer", || Some(server.send(&ask)).filter(Reply::is_replay));
        assert_eq!(first.n(), n);
        server.send(&ask).replays(&first);
        assert_eq!(server.counts().started, n);
    }
    assert_eq!(server.journal().lines().count(), 3);
    server.wait_metric("inflight_gauge", "POST /refund", 0.0);
    let half_closed = ask("POST", "/refund?sleep=300", "half");
    let mut wire = Wire::open(&server).say(&half_closed.bytes());
    server.wait_started(4);
    wire.finish_writing();
    wait_for("the answer", || Some(server.send(&half_closed)).filter(Reply::is_replay));
    server.restart(&[]);
    assert!(server.send(&half_closed).is_replay());
    assert_eq!(server.started(), 0);
}

fn a_client_that_leaves_before_its_body_is_whole_registers_nothing(kind: Kind) {
    let server = Server::start(kind, &[]);
    let ask = ask("POST", "/pay", "k");
    for bytes in [ask.bytes(), ask.chunked(4)] {
        for left in [1, 5, 8] {
            drop(Wire::open(&server).say(&bytes[..bytes.len() - left]));
        }
    }
    assert_eq!((server.started(), server.records().records), (0, vec![]));
    server.send(&ask).executed(200);
    server.wait_metric("inflight_gauge", "POST /pay", 0.0);
}

fn a_joined_client_keeps_the_run_of_one_that_left(kind: Kind) {
    let server = Server::start(kind, &["--on-running", "join"]);
    let ask = ask("POST", "/pay?sleep=800", "k");
    let wire = Wire::open(&server).say(&ask.bytes());
    server.wait_started(1);
    let joined = server.spawn(&ask);
    drop(wire);
    let joined = joined.reply();
    assert!(joined.is_replay() && joined.status == 200, "{joined:?}");
    server.send(&ask).replays(&joined);
    assert_eq!(server.started(), 1);
}

fn a_joined_client_that_leaves_takes_nothing_along(kind: Kind) {
    let server = Server::start(kind, &["--on-running", "join"]);
    let ask = ask("POST", "/pay?sleep=800", "k");
    let first = server.spawn(&ask);
    server.wait_started(1);
    for _ in 0..20 {
        drop(Wire::open(&server).say(&ask.bytes()));
    }
    let stays = server.spawn(&ask);
    let first = first.reply().executed(200);
    stays.reply().replays(&first);
    assert_eq!(server.started(), 1);
    wait_until("no actor", || server.records().actors == 0);
}

fn many_clients_leave_and_every_run_ends(kind: Kind) {
    let server = Server::start(kind, &[]);
    let asks: Vec<_> =
        (0..300).map(|n| ask("POST", "/pay?sleep=50", &format!("k{n}")).actor(&format!("a{}", n % 7))).collect();
    let wires: Vec<_> = asks.iter().map(|ask| Wire::open(&server).say(&ask.bytes())).collect();
    drop(wires);
    // Some left before their request was read: they never ran. No other is lost.
    wait_until("every run to end", || {
        let records = server.records();
        records.actors == 0 && records.records.iter().all(|record| record.state == "completed")
    });
    server.wait_metric("inflight_gauge", "POST /pay", 0.0);
    let known = server.records().records.len();
    let counts = server.counts();
    assert_eq!((counts.started as usize, counts.finished as usize), (known, known));
    let retries: Vec<_> = asks.iter().map(|ask| server.spawn(ask)).collect();
    let replayed = retries.into_iter().map(Pending::reply).filter(Reply::is_replay).count();
    assert_eq!((replayed, server.started()), (known, 300));
}
