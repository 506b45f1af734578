//! R26: the names and labels of section 4, present with 0 from the start; counts; gauges that return to 0.

use crate::support::problem::{BUSY_SCOPE, IN_DOUBT, IN_FLIGHT, INVALID, MISMATCH, NOT_KEPT, TOO_LARGE, UNKNOWN};
use crate::support::{Kind, Server, Wire, ask, both, keyless, wait_for};

both![
    every_series_of_a_keyed_route_is_there_from_the_start,
    each_count_counts_its_own,
    the_inflight_gauge_returns_to_0,
    the_in_doubt_gauge_follows_the_records,
    labels_are_bounded,
];

const ROUTES: [&str; 5] = ["POST /pay", "PATCH /pay", "POST /refund", "POST /v1/pay", "POST /v2/pay"];
const BY_ROUTE: [&str; 8] = [
    "executed_count",
    "conflict_count",
    "duplicate_count",
    "ambiguous_count",
    "inflight_gauge",
    "in_doubt_gauge",
    "unsaved_gauge",
    "storage_failure_total",
];
const OUTCOMES: [&str; 6] = ["executed", "replayed", "joined", "conflict", "duplicate", "ambiguous"];

/// Every series that the page names.
fn expected() -> Vec<String> {
    let mut series = vec!["idempotency_quarantined_count".to_owned(), "idempotency_expiry_sweep_count".to_owned()];
    for route in ROUTES {
        series.extend(BY_ROUTE.map(|name| format!("idempotency_{name}{{route=\"{route}\"}}")));
        series.extend(
            ["replayed", "joined"].map(|how| format!("idempotency_replay_count{{route=\"{route}\",how=\"{how}\"}}")),
        );
        series.extend(OUTCOMES.map(|outcome| format!("idempotency_7d{{route=\"{route}\",outcome=\"{outcome}\"}}")));
    }
    series
}

fn every_series_of_a_keyed_route_is_there_from_the_start(kind: Kind) {
    let server = Server::without_admin(kind, &[]);
    let metrics = server.metrics();
    for series in expected() {
        assert_eq!(metrics.get(&series), 0.0, "{series}");
    }
    let expected = expected();
    for series in metrics.0.keys().filter(|series| series.starts_with("idempotency_") && !series.contains("unmatched"))
    {
        assert!(expected.contains(series), "a series that the page does not name: {series}");
    }
    let text = server.get("/metrics");
    let content_type = text.header("content-type").unwrap_or_default();
    assert!(content_type.starts_with("text/plain"), "{content_type}");
}

fn each_count_counts_its_own(kind: Kind) {
    let server =
        Server::start(kind, &["--max-request", "1000", "--max-answer", "1000", "--max-in-flight-per-scope", "1"]);
    let pay = ask("POST", "/pay", "k");
    server.send(&pay).executed(200);
    for _ in 0..3 {
        server.send(&pay);
    }
    server.send(&pay.clone().body("another")).refused(MISMATCH);
    server.send(&ask("POST", "/pay?bytes=1001", "long")).executed(200);
    server.send(&ask("POST", "/pay?bytes=1001", "long")).refused(NOT_KEPT);
    server.send(&ask("POST", "/pay?panic=1", "panic")).refused(UNKNOWN);
    server.send(&ask("POST", "/pay?as=forget", "free")).executed(200);
    server.send(&ask("POST", "/pay?as=in_doubt", "doubt")).refused(IN_DOUBT);
    server.send(&ask("POST", "/pay?as=in_doubt", "doubt")).refused(IN_DOUBT);
    Wire::send(&server, &pay.clone().body([b'x'; 1001])).refused(TOO_LARGE);
    Wire::send(&server, &keyless("POST", "/pay").raw_key("a b")).refused(INVALID);
    let slow = ask("POST", "/pay?sleep=500", "slow");
    let running = server.spawn(&slow);
    server.wait_metric("inflight_gauge", "POST /pay", 1.0);
    server.send(&slow).refused(IN_FLIGHT);
    server.send(&ask("POST", "/pay", "busy")).refused(BUSY_SCOPE);
    running.reply().executed(200);
    let counts = [
        ("executed_count", 6.0),
        ("conflict_count", 1.0),
        ("duplicate_count", 2.0),
        ("ambiguous_count", 2.0),
        ("inflight_gauge", 0.0),
        ("in_doubt_gauge", 1.0),
        ("unsaved_gauge", 0.0),
        ("storage_failure_total", 0.0),
    ];
    for (name, count) in counts {
        server.wait_metric(name, "POST /pay", count);
    }
    let metrics = server.metrics();
    assert_eq!(metrics.get(r#"idempotency_replay_count{route="POST /pay",how="replayed"}"#), 3.0);
    assert_eq!(metrics.get(r#"idempotency_replay_count{route="POST /pay",how="joined"}"#), 0.0);
    for (series, value) in metrics.0.iter().filter(|(series, _)| !series.contains("POST /pay\"")) {
        assert!(!series.starts_with("idempotency_") || *value == 0.0, "another route counted: {series} {value}");
    }
}

fn the_inflight_gauge_returns_to_0(kind: Kind) {
    let server = Server::start(kind, &[]);
    let left = Wire::open(&server).say(&ask("POST", "/pay?sleep=400", "left").bytes());
    let running: Vec<_> =
        ["?sleep=400", "?sleep=400&status=500", "?sleep=400&panic=1", "?sleep=400&as=forget", "?sleep=400&bytes=70000"]
            .into_iter()
            .map(|query| server.spawn(&ask("POST", &format!("/pay{query}"), query)))
            .collect();
    server.wait_metric("inflight_gauge", "POST /pay", 6.0);
    assert_eq!(server.metrics().of_route("inflight_gauge", "POST /v1/pay"), 0.0);
    drop(left);
    for pending in running {
        pending.reply();
    }
    server.wait_metric("inflight_gauge", "POST /pay", 0.0);
    let optional = server.spawn(&ask("POST", "/v1/pay?sleep=300", "k"));
    server.wait_metric("inflight_gauge", "POST /v1/pay", 1.0);
    optional.reply().executed(200);
    server.wait_metric("inflight_gauge", "POST /v1/pay", 0.0);
}

fn the_in_doubt_gauge_follows_the_records(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    for n in 1..=3 {
        server.send(&ask("POST", "/pay?as=in_doubt", &format!("k{n}"))).refused(IN_DOUBT);
        server.wait_metric("in_doubt_gauge", "POST /pay", f64::from(n));
    }
    let refund = ask("POST", "/refund?panic=2", "k");
    server.send(&refund).refused(IN_DOUBT);
    wait_for("the journal's answer", || Some(server.send(&refund)).filter(|reply| reply.status == 200));
    server.wait_metric("in_doubt_gauge", "POST /refund", 0.0);
    server.restart(&[]);
    server.wait_metric("in_doubt_gauge", "POST /pay", 3.0);
    assert_eq!(server.metrics().of_route("in_doubt_gauge", "POST /refund"), 0.0);
}

fn labels_are_bounded(kind: Kind) {
    let server = Server::start(kind, &[]);
    let before: Vec<_> = server.metrics().0.into_keys().collect();
    for n in 0..30 {
        server
            .send(&ask("POST", &format!("/pay?sleep=0&header=X-A:{n}"), &format!("k{n}")).actor(&format!("actor{n}")));
        server.send(&ask("POST", &format!("/nowhere/{n}"), &format!("k{n}")));
        server.send(&ask("POST", &format!("/v1/pay/{n}"), &format!("k{n}")));
        server.send(&ask("DELETE", "/pay", &format!("k{n}")));
    }
    let new: Vec<_> = server.metrics().0.into_keys().filter(|series| !before.contains(series)).collect();
    assert!(new.iter().all(|series| series.contains("unmatched") && !series.contains('/')), "{new:?}");
    assert!(new.len() <= 32, "{new:?}");
}
