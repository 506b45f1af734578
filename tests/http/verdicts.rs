//! R14 to R16: what becomes of a panic, of a handler's own verdict, and of a 5xx answer.

use crate::support::problem::{IN_DOUBT, MISMATCH, UNKNOWN};
use crate::support::{Kind, Server, ask, both, wait_for};

both![
    a_panic_is_a_stored_500_and_never_runs_again,
    a_panic_where_the_route_says_in_doubt,
    a_panic_after_the_effect_is_ended_by_the_journal,
    no_other_key_notices_a_panic,
    forgotten_answers_run_again,
    a_handler_may_say_that_its_end_is_in_doubt,
    the_handlers_own_verdict_wins_over_the_routes,
    stored_5xx_is_one_setting,
];

fn a_panic_is_a_stored_500_and_never_runs_again(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let routes = ["/pay?panic=1", "/pay?panic=2", "/v1/pay?panic=1", "/v2/pay?panic=2"];
    let asks = routes.map(|route| ask("POST", route, &format!("k{}", route.len())).actor(route));
    let firsts = asks.clone().map(|ask| server.send(&ask).refused(UNKNOWN));
    let counts = server.counts();
    assert_eq!((counts.started, counts.effects, counts.finished), (4, 2, 0));
    for (ask, first) in asks.iter().zip(&firsts) {
        server.send(ask).problem(UNKNOWN).replays(first);
        server.send(&ask.clone().body("another")).refused(MISMATCH);
    }
    server.wait_metric("inflight_gauge", "POST /pay", 0.0);
    server.wait_metric("executed_count", "POST /pay", 2.0);
    assert_eq!(server.counts(), counts);
    server.restart(&[]);
    for (ask, first) in asks.iter().zip(&firsts) {
        server.send(ask).problem(UNKNOWN).replays(first);
    }
    assert_eq!(server.started(), 0);
}

fn a_panic_where_the_route_says_in_doubt(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let ask = ask("POST", "/refund?panic=1", "k");
    let first = server.send(&ask).refused(IN_DOUBT);
    assert_eq!(first.state(), "in_doubt");
    for _ in 0..3 {
        server.send(&ask).refused(IN_DOUBT);
    }
    server.send(&ask.clone().body("another")).refused(MISMATCH);
    assert_eq!(server.wait_state("in_doubt").expires_ms, None);
    server.wait_metric("inflight_gauge", "POST /refund", 0.0);
    server.wait_metric("in_doubt_gauge", "POST /refund", 1.0);
    let counts = server.counts();
    assert_eq!((counts.started, counts.effects, server.journal()), (1, 0, String::new()));
    // The journal has no line and so cannot tell, after a restart either.
    server.restart(&[]);
    server.send(&ask).refused(IN_DOUBT);
    assert_eq!(server.started(), 0);
    server.wait_metric("in_doubt_gauge", "POST /refund", 1.0);
}

fn a_panic_after_the_effect_is_ended_by_the_journal(kind: Kind) {
    let server = Server::start(kind, &[]);
    let ask = ask("POST", "/refund?panic=2", "k");
    server.send(&ask).refused(IN_DOUBT);
    assert_eq!(server.journal().lines().count(), 1);
    let recovered = wait_for("the journal's answer", || Some(server.send(&ask)).filter(|reply| reply.status == 200));
    assert_eq!(recovered.text(), r#"{"route":"POST /refund","n":1,"recovered":true}"#);
    assert!(recovered.is_replay(), "{recovered:?}");
    server.send(&ask).replays(&recovered);
    let counts = server.counts();
    assert_eq!((counts.started, counts.effects), (1, 1));
    server.wait_metric("in_doubt_gauge", "POST /refund", 0.0);
}

fn no_other_key_notices_a_panic(kind: Kind) {
    let server = Server::start(kind, &[]);
    let quiet = server.spawn(&ask("POST", "/pay?sleep=500", "quiet"));
    server.wait_started(1);
    let loud: Vec<_> = (0..10).map(|n| server.spawn(&ask("POST", "/pay?panic=2", &format!("loud{n}")))).collect();
    for pending in loud {
        pending.reply().refused(UNKNOWN);
    }
    let quiet = quiet.reply().executed(200);
    server.send(&ask("POST", "/pay?sleep=500", "quiet")).replays(&quiet);
    server.send(&ask("POST", "/pay", "after")).executed(200);
    server.wait_metric("inflight_gauge", "POST /pay", 0.0);
}

fn forgotten_answers_run_again(kind: Kind) {
    let server = Server::start(kind, &[]);
    for (key, target) in [("k1", "/pay?as=forget"), ("k2", "/pay?as=forget&status=402"), ("k3", "/refund?as=forget")] {
        let ask = ask("POST", target, key);
        let (first, second) = (server.send(&ask), server.send(&ask));
        assert!(!first.is_replay() && !second.is_replay());
        assert_eq!(second.n(), first.n() + 1);
    }
    assert_eq!((server.started(), server.records().records), (6, vec![]));
    // The key is free for any request.
    server.send(&ask("POST", "/pay", "k1")).executed(200);
}

fn a_handler_may_say_that_its_end_is_in_doubt(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let pay = ask("POST", "/pay?as=in_doubt", "k");
    server.send(&pay).refused(IN_DOUBT);
    server.send(&pay).refused(IN_DOUBT);
    let refund = ask("POST", "/refund?as=in_doubt", "k");
    server.send(&refund).refused(IN_DOUBT);
    assert_eq!(server.started(), 2);
    let recovered = wait_for("the journal's answer", || Some(server.send(&refund)).filter(|reply| reply.status == 200));
    assert_eq!(recovered.text(), r#"{"route":"POST /refund","n":1,"recovered":true}"#);
    server.restart(&[]);
    server.send(&pay).refused(IN_DOUBT);
    server.send(&refund).replays(&recovered);
    assert_eq!(server.started(), 0);
}

fn the_handlers_own_verdict_wins_over_the_routes(kind: Kind) {
    let server = Server::start(kind, &["--store-5xx", "no"]);
    let kept = ask("POST", "/pay?as=keep&status=500", "k1");
    let first = server.send(&kept).executed(500);
    server.send(&kept).replays(&first);
    let doubted = ask("POST", "/pay?as=in_doubt&status=500", "k2");
    server.send(&doubted).refused(IN_DOUBT);
    server.send(&doubted).refused(IN_DOUBT);
    let yes = Server::start(kind, &["--store-5xx", "yes"]);
    let forgotten = ask("POST", "/pay?as=forget&status=500", "k1");
    yes.send(&forgotten).executed(500);
    yes.send(&forgotten).executed(500);
    assert_eq!((server.started(), yes.started()), (2, 2));
}

fn stored_5xx_is_one_setting(kind: Kind) {
    let server = Server::start(kind, &["--store-5xx", "no"]);
    for status in [500, 503, 599] {
        let ask = ask("POST", &format!("/pay?status={status}"), "k");
        let (first, second) = (server.send(&ask).executed(status), server.send(&ask).executed(status));
        assert_eq!(second.n(), first.n() + 1);
    }
    for status in [200, 302, 404, 499] {
        let ask = ask("POST", &format!("/pay?status={status}"), &format!("k{status}"));
        let first = server.send(&ask).executed(status);
        server.send(&ask).replays(&first);
    }
    // The stored 500 of a panic is no answer of the handler: it is kept whatever the setting says.
    let panics = ask("POST", "/pay?panic=1", "panics");
    let first = server.send(&panics).refused(UNKNOWN);
    server.send(&panics).problem(UNKNOWN).replays(&first);
}
