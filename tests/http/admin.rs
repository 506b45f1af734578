//! The demo's own endpoints: what `/count` and the admin endpoints say, member for member.

use crate::support::problem::Members;
use crate::support::{Ask, Kind, Server, ask, both, keyless, wait_until};

both![
    count_says_what_happened,
    records_are_listed_oldest_first,
    the_clock_stops_moves_and_runs,
    answers_are_json_with_their_members_in_order,
    faults_belong_to_the_process,
];

fn admin(method: &str, target: &str) -> Ask {
    keyless(method, target).without("x-actor").without("content-type").body("")
}

fn count_says_what_happened(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    assert_eq!(server.counts().started, 0);
    server.send(&ask("POST", "/pay", "k1"));
    server.send(&ask("POST", "/pay", "k2"));
    server.send(&ask("POST", "/refund", "k1"));
    assert_eq!(
        server.get("/count").text(),
        r#"{"started":3,"effects":3,"finished":3,"routes":{"POST /pay":2,"POST /refund":1}}"#
    );
    server.send(&ask("POST", "/pay?panic=1", "k3"));
    server.send(&ask("POST", "/pay?panic=2", "k4"));
    assert_eq!(server.get("/pay").status, 200);
    let counts = server.counts();
    assert_eq!((counts.started, counts.effects, counts.finished), (6, 5, 4));
    assert_eq!((counts.routes["POST /pay"], counts.routes["GET /pay"]), (4, 1));
    server.restart(&[]);
    let counts = server.counts();
    assert_eq!((counts.started, counts.effects, counts.finished), (0, 0, 0));
}

fn records_are_listed_oldest_first(kind: Kind) {
    let server = Server::start(kind, &[]);
    let now = server.freeze();
    for n in 0..5 {
        server.send(&ask(
            "POST",
            ["/pay", "/refund", "/v1/pay", "/v2/pay", "/pay?status=500"][n as usize],
            &format!("k{n}"),
        ));
        server.advance(10);
    }
    wait_until("no actor", || server.records().actors == 0);
    let records = server.records();
    assert_eq!(records.now_ms, now + 50);
    let routes: Vec<_> = records.records.iter().map(|record| record.route.as_str()).collect();
    assert_eq!(routes, ["POST /pay", "POST /refund", "POST /v1/pay", "POST /v2/pay", "POST /pay"]);
    for (n, record) in (0..).zip(&records.records) {
        assert_eq!((record.created_ms, record.attempt), (now + 10 * n, 1));
        assert_eq!(record.expires_ms, Some(now + 10 * n + 86_400_000));
        assert_eq!(record.state, "completed");
    }
}

fn the_clock_stops_moves_and_runs(kind: Kind) {
    let server = Server::start(kind, &[]);
    let now = server.freeze();
    assert_eq!(server.advance(5), now + 5);
    assert_eq!(server.jump(7), now + 12);
    assert_eq!(server.jump(-2), now + 12, "what was seen is not taken back");
    let running = server.clock("run=1");
    wait_until("time to pass", || server.records().now_ms > running);
    let moved = server.advance(100_000);
    assert!(moved >= running + 100_000 && moved < running + 190_000, "{moved} after {running}");
}

fn answers_are_json_with_their_members_in_order(kind: Kind) {
    let server = Server::start(kind, &[]);
    server.send(&ask("POST", "/pay", "k"));
    let records = server.send(&admin("GET", "/admin/records"));
    assert_eq!(Members::of(&records.body).names(), ["now_ms", "actors", "records"]);
    let list = &records.json()["records"];
    assert_eq!(list.as_array().map(Vec::len), Some(1));
    let members = ["key_hash", "route", "state", "attempt", "created_ms", "updated_ms", "expires_ms"];
    let positions: Vec<_> = members.map(|name| records.text().find(&format!("\"{name}\":")).unwrap()).to_vec();
    assert!(positions.is_sorted(), "{}", records.text());
    let swept = server.send(&admin("POST", "/admin/expiry-sweep?slice=1"));
    assert_eq!(swept.text(), r#"{"removed":0,"held_back":false}"#);
    let clock = server.send(&admin("POST", "/admin/clock?freeze=1"));
    assert_eq!(Members::of(&clock.body).names(), ["now_ms"]);
    for target in ["/admin/store?on=any&fails=0", "/admin/clock?run=1"] {
        let reply = server.send(&admin("POST", target));
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")), "{reply:?}");
        assert!(reply.json().is_object(), "{reply:?}");
    }
    // None of them needs a key or a principal, and none is counted.
    assert_eq!((server.started(), server.records().records.len()), (1, 1));
}

fn faults_belong_to_the_process(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    server.fault("on=any&fails=1000000");
    server.restart(&[]);
    server.send(&ask("POST", "/pay", "k")).executed(200);
    server.fault("on=finish&fails=1");
    server.fault("on=finish&fails=0");
    let first = server.send(&ask("POST", "/pay", "k2")).executed(200);
    server.send(&ask("POST", "/pay", "k2")).replays(&first);
}
