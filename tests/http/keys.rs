//! R4 to R6, R9, R10: which requests are keyed, which keys are one, and what makes two requests the same.

use crate::support::ask::escaped;
use crate::support::problem::{MISMATCH, NO_PRINCIPAL};
use crate::support::{Ask, Kind, Server, Wire, ask, both, keyless};

both![
    other_methods_pass_and_store_nothing,
    an_optional_key_may_be_left_out_and_counts_when_it_is_there,
    keys_that_differ_in_any_part_never_meet,
    without_a_principal_nothing_is_shared,
    the_target_is_compared_as_received,
    the_content_type_is_compared_and_absent_is_not_empty,
    the_body_is_compared_byte_for_byte,
    other_headers_and_the_framing_are_not_compared,
    a_mismatch_leaves_the_record_as_it_was,
];

fn other_methods_pass_and_store_nothing(kind: Kind) {
    let server = Server::start(kind, &[]);
    for n in 1..=2 {
        let get = server.send(&ask("GET", "/pay", "k")).executed(200);
        assert_eq!((get.json()["route"].as_str(), get.n()), (Some("GET /pay"), n));
    }
    server.send(&keyless("GET", "/pay").raw_key("no, key")).executed(200);
    assert_eq!(server.counts().routes.get("GET /pay"), Some(&3));
    for method in ["HEAD", "OPTIONS", "PUT", "DELETE"] {
        let mut bytes = ask(method, "/pay", "k").body("").head();
        bytes.extend(b"Connection: close\r\n\r\n");
        let mut wire = Wire::open(&server).say(&bytes);
        let head = wire.head().expect("an answer");
        assert!(head.status < 500 && !head.is_replay(), "{method}: {head:?}");
        assert_ne!(head.header("content-type"), Some("application/problem+json"), "{method}: {head:?}");
        if method == "HEAD" {
            assert!(wire.ends(), "no body after HEAD");
        }
    }
    assert_eq!(server.records().records, []);
    assert_eq!(server.counts().routes.get("POST /pay"), None);
}

fn an_optional_key_may_be_left_out_and_counts_when_it_is_there(kind: Kind) {
    let server = Server::start(kind, &[]);
    let without = keyless("POST", "/v1/pay");
    for n in 1..=2 {
        server.send(&without).executed(200).answers(&without, "POST /v1/pay", n);
    }
    // Neither a principal nor the layer's limit for bodies is asked of a request that it lets pass.
    assert_eq!(server.send(&without.clone().without("x-actor")).executed(200).n(), 3);
    let large = without.body(vec![b'x'; 70_000]);
    server.send(&large).executed(200).answers(&large, "POST /v1/pay", 4);
    assert_eq!(server.records().records, []);
    let keyed = ask("POST", "/v1/pay", "k");
    let first = server.send(&keyed).executed(200).answers(&keyed, "POST /v1/pay", 5);
    server.send(&keyed).replays(&first);
    assert_eq!(server.record().route, "POST /v1/pay");
}

fn keys_that_differ_in_any_part_never_meet(kind: Kind) {
    let server = Server::start(kind, &[]);
    let routes = [("POST", "/pay"), ("PATCH", "/pay"), ("POST", "/refund"), ("POST", "/v1/pay"), ("POST", "/v2/pay")];
    let mut asks = Vec::new();
    for (method, path) in routes {
        for (actor, key) in [("a", "k"), ("b", "k"), ("a", "b"), ("ab", "k"), ("a", "bk"), ("A", "k")] {
            asks.push((format!("{method} {path}"), ask(method, path, key).actor(actor)));
        }
    }
    let firsts: Vec<_> = asks.iter().map(|(_, ask)| server.send(ask).executed(200)).collect();
    for ((route, ask), first) in asks.iter().zip(&firsts) {
        server.send(ask).replays(first).answers(ask, route, first.n());
    }
    assert_eq!(server.started() as usize, asks.len());
    let records = server.records().records;
    let hashes: std::collections::BTreeSet<_> = records.iter().map(|record| &record.key_hash).collect();
    assert_eq!(hashes.len(), asks.len());
    for (method, path) in routes {
        let route = format!("{method} {path}");
        assert_eq!(records.iter().filter(|record| record.route == route).count(), 6, "{route}");
    }
}

fn without_a_principal_nothing_is_shared(kind: Kind) {
    let server = Server::start(kind, &[]);
    for path in ["/pay", "/refund", "/v1/pay", "/v2/pay"] {
        let nobody = ask("POST", path, "k").without("x-actor");
        Wire::send(&server, &nobody).refused(NO_PRINCIPAL);
        Wire::send(&server, &nobody.header("X-Actor", "")).refused(NO_PRINCIPAL);
    }
    assert_eq!((server.started(), server.records().records), (0, vec![]));
    // The refusal burned no key.
    server.send(&ask("POST", "/pay", "k")).executed(200);
}

/// Runs `first`, and finds each of `others` to be another request under its key.
#[track_caller]
fn differ(server: &Server, first: &Ask, others: &[Ask]) {
    let answer = Wire::send(server, first).executed(200);
    for other in others {
        println!("{other:?}");
        Wire::send(server, other).refused(MISMATCH);
    }
    Wire::send(server, first).replays(&answer);
}

fn the_target_is_compared_as_received(kind: Kind) {
    let server = Server::start(kind, &[]);
    let plain = ask("POST", "/pay", "k1");
    let to = |target: &str| plain.clone().target(target);
    differ(&server, &plain, &[to("/pay?"), to("/pay?status=200"), to("/pay?sleep=0")]);
    let decoded = ask("POST", "/pay?header=A:b&status=201", "k2");
    let answer = Wire::send(&server, &decoded).executed(201);
    let same_meaning = format!("/pay?header={}&status=201", escaped("A:b"));
    for target in [same_meaning.as_str(), "/pay?status=201&header=A:b", "/pay?header=A:b&status=201&"] {
        Wire::send(&server, &decoded.clone().target(target)).refused(MISMATCH);
    }
    Wire::send(&server, &decoded).replays(&answer);
    assert_eq!(server.started(), 2);
}

fn the_content_type_is_compared_and_absent_is_not_empty(kind: Kind) {
    let server = Server::start(kind, &[]);
    let absent = ask("POST", "/pay", "k1").without("content-type");
    let json = absent.clone().header("Content-Type", "application/json");
    let empty = absent.clone().header("Content-Type", "");
    differ(&server, &absent, &[json.clone(), empty.clone()]);
    let under = |ask: &Ask, key: &str| ask.clone().without("idempotency-key").key(key);
    differ(&server, &under(&empty, "k2"), &[under(&absent, "k2"), under(&json, "k2")]);
    let utf8 = absent.clone().header("Content-Type", "application/json; charset=utf-8");
    let upper = absent.clone().header("Content-Type", "Application/JSON");
    differ(&server, &under(&json, "k3"), &[under(&utf8, "k3"), under(&upper, "k3"), under(&absent, "k3")]);
}

fn the_body_is_compared_byte_for_byte(kind: Kind) {
    let server = Server::start(kind, &[]);
    let ask = ask("POST", "/pay", "k1").body(r#"{"a":1,"b":2}"#);
    let bodies: [&[u8]; 6] =
        [b"", br#"{"b":2,"a":1}"#, br#"{"a":1, "b":2}"#, b"{\"a\":1,\"b\":2}\n", br#"{"a":1,"b":2"#, b"\xff"];
    differ(&server, &ask, &bodies.map(|body| ask.clone().body(body)));
    let bytes: Vec<u8> = (0..=255).collect();
    let binary = crate::support::ask("POST", "/pay", "k2").body(&bytes);
    let answer = server.send(&binary).executed(200).answers(&binary, "POST /pay", 2);
    server.send(&binary).replays(&answer);
    let bare = crate::support::ask("POST", "/pay", "k3").body("");
    differ(&server, &bare, &[bare.clone().body("\0")]);
    assert_eq!(server.started(), 3);
}

fn other_headers_and_the_framing_are_not_compared(kind: Kind) {
    let server = Server::start(kind, &[]);
    let ask = ask("POST", "/pay", "k1");
    let answer = Wire::send(&server, &ask).executed(200);
    Wire::send(&server, &ask.clone().header("User-Agent", "another").header("X-Request-Id", "7")).replays(&answer);
    Wire::exchange(&server, &ask.chunked(2)).replays(&answer);
    Wire::exchange(&server, &ask.chunked(100)).replays(&answer);
    let other_host = String::from_utf8(ask.bytes()).unwrap().replacen("Host: demo", "Host: 127.0.0.1:1", 1);
    Wire::exchange(&server, other_host.as_bytes()).replays(&answer);
    assert_eq!(server.started(), 1);
    let chunked = crate::support::ask("POST", "/pay", "k2");
    let answer = Wire::exchange(&server, &chunked.chunked(3)).executed(200).answers(&chunked, "POST /pay", 2);
    Wire::send(&server, &chunked).replays(&answer);
}

fn a_mismatch_leaves_the_record_as_it_was(kind: Kind) {
    let server = Server::start(kind, &[]);
    let ask = ask("POST", "/pay?header=X-Secret:hidden&status=201", "k1");
    let answer = server.send(&ask).executed(201);
    let before = server.record();
    let refused = server.send(&ask.clone().body("other")).refused(MISMATCH);
    assert!(refused.header("x-secret").is_none() && !refused.text().contains("201"), "{refused:?}");
    assert!(!refused.text().contains(answer.json()["sha256"].as_str().unwrap()));
    assert_eq!(server.record(), before);
    server.send(&ask).replays(&answer);
    assert_eq!(server.record(), before, "a replay writes nothing either");
}
