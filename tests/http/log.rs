//! R25, R27: one event per request on a keyed route, a JSON object per line, and nothing that identifies anybody.

use std::collections::BTreeSet;

use crate::support::problem::{
    BUSY_SCOPE, IN_DOUBT, IN_FLIGHT, INVALID, MISMATCH, MISSING, NO_PRINCIPAL, NOT_KEPT, TOO_LARGE, UNKNOWN,
};
use crate::support::server::Event;
use crate::support::{Ask, Kind, Reply, Server, Wire, ask, both, keyless};

both![
    every_request_is_one_event_with_its_outcome,
    a_joined_request_is_its_own_event,
    the_key_hash_names_a_key_and_does_not_tell_it,
    every_line_is_one_json_object,
    nothing_tells_a_key_a_principal_or_a_body,
];

/// Sends, and finds the one event that this made.
#[track_caller]
fn logged(server: &Server, ask: &Ask) -> (Reply, Event) {
    let before = server.events().len();
    let reply = Wire::send(server, ask);
    let events = server.wait_events(before + 1);
    assert_eq!(events.len(), before + 1, "one event: {:?}", &events[before..]);
    let event = events.into_iter().next_back().unwrap();
    assert_eq!(event.status, Some(u64::from(reply.status)), "{event:?}");
    assert!(event.duration_ms >= 0.0);
    (reply, event)
}

#[track_caller]
fn is_hash(hash: Option<&String>) -> String {
    let hash = hash.expect("a key hash");
    assert!(
        hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)),
        "{hash}"
    );
    hash.clone()
}

fn every_request_is_one_event_with_its_outcome(kind: Kind) {
    let server = Server::start(kind, &["--max-request", "1000", "--max-answer", "1000"]);
    let pay = ask("POST", "/pay?sleep=50", "k");
    let (first, event) = logged(&server, &pay);
    first.executed(200);
    let hash = is_hash(event.key_hash.as_ref());
    assert_eq!((event.outcome.as_str(), event.route.as_str(), event.attempt), ("executed", "POST /pay", Some(1)));
    assert!(event.duration_ms >= 50.0, "{event:?}");
    let record = server.record();
    assert_eq!(record.key_hash, hash);
    let is = |ask: &Ask, outcome: &str, check: &dyn Fn(Reply) -> Reply| {
        let (reply, event) = logged(&server, ask);
        check(reply);
        assert_eq!(event.outcome, outcome, "{event:?}");
        event
    };
    let replayed = is(&pay, "replayed", &|reply| reply);
    assert_eq!((is_hash(replayed.key_hash.as_ref()), replayed.attempt), (hash.clone(), Some(1)));
    let conflict = is(&pay.clone().body("another"), "conflict", &|reply| reply.refused(MISMATCH));
    assert_eq!(is_hash(conflict.key_hash.as_ref()), hash);
    is(&ask("POST", "/pay?panic=1", "panic"), "executed", &|reply| reply.refused(UNKNOWN));
    is(&ask("POST", "/pay?panic=1", "panic"), "replayed", &|reply| reply.problem(UNKNOWN));
    is(&ask("POST", "/pay?status=500", "500"), "executed", &|reply| reply.executed(500));
    is(&ask("POST", "/pay?bytes=1001", "long"), "executed", &|reply| reply.executed(200));
    is(&ask("POST", "/pay?bytes=1001", "long"), "duplicate", &|reply| reply.refused(NOT_KEPT));
    is(&ask("POST", "/pay?as=in_doubt", "doubt"), "ambiguous", &|reply| reply.refused(IN_DOUBT));
    is(&ask("POST", "/pay?as=in_doubt", "doubt"), "ambiguous", &|reply| reply.refused(IN_DOUBT));
    is(&pay.clone().body([b'x'; 1001]), "definitive", &|reply| reply.refused(TOO_LARGE));
    for (ask, code) in [(keyless("POST", "/pay"), MISSING), (keyless("POST", "/pay").raw_key("a b"), INVALID)] {
        let event = is(&ask, "definitive", &|reply| reply.refused(code));
        assert_eq!(event.key_hash, None, "no valid key: {event:?}");
    }
    let (nobody, event) = logged(&server, &ask("POST", "/pay", "k").without("x-actor"));
    nobody.refused(NO_PRINCIPAL);
    assert!(["definitive", "ambiguous"].contains(&event.outcome.as_str()), "{event:?}");
    let passed = is(&keyless("POST", "/v1/pay"), "passed", &|reply| reply.executed(200));
    assert_eq!((passed.key_hash, passed.route.as_str()), (None, "POST /v1/pay"));
    // What is on no keyed route makes none: the next event is the next keyed request's.
    server.get("/count");
    is(&ask("PATCH", "/pay", "k"), "executed", &|reply| reply.executed(200));
}

fn a_joined_request_is_its_own_event(kind: Kind) {
    let server = Server::start(kind, &["--on-running", "join", "--max-in-flight-per-scope", "1"]);
    let slow = ask("POST", "/pay?sleep=1000", "k");
    let first = server.spawn(&slow);
    server.wait_started(1);
    let second = server.spawn(&slow);
    Wire::send(&server, &ask("POST", "/pay", "other")).refused(BUSY_SCOPE);
    second.reply().replays(&first.reply().executed(200));
    let mut outcomes: Vec<_> = server.wait_events(3).into_iter().map(|event| event.outcome).collect();
    outcomes.sort();
    assert_eq!(outcomes, ["definitive", "executed", "joined"]);
    server.wait_seven_days("POST /pay", "joined", 1.0);
    let refuses = Server::start(kind, &[]);
    let first = refuses.spawn(&slow);
    refuses.wait_started(1);
    refuses.send(&slow).refused(IN_FLIGHT);
    first.reply().executed(200);
    let outcomes: Vec<_> = refuses.wait_events(2).into_iter().map(|event| event.outcome).collect();
    assert_eq!(outcomes, ["duplicate", "executed"]);
}

fn the_key_hash_names_a_key_and_does_not_tell_it(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let pay = ask("POST", "/pay", "k");
    let hash = |server: &Server, ask: &Ask| is_hash(logged(server, ask).1.key_hash.as_ref());
    let own = hash(&server, &pay);
    let bare = pay.clone().without("idempotency-key").raw_key("k");
    assert_eq!(own, hash(&server, &bare), "one key, one hash");
    let others =
        [pay.clone().actor("b"), ask("POST", "/pay", "k2"), ask("PATCH", "/pay", "k"), ask("POST", "/v1/pay", "k")];
    let all: BTreeSet<_> = others.iter().map(|ask| hash(&server, ask)).chain([own.clone()]).collect();
    assert_eq!(all.len(), 5, "{all:?}");
    server.restart(&[]);
    assert_eq!(hash(&server, &pay), own, "its secret is in the store");
    let elsewhere = Server::start(kind, &[]);
    assert_ne!(hash(&elsewhere, &pay), own, "and another one in every store");
}

fn every_line_is_one_json_object(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    for n in 0..20 {
        server.send(&ask("POST", &format!("/pay?header=X-A:{n}"), &format!("k{n}")).body("line\nbreak\"quote\\"));
        server.send(&ask("POST", "/pay", "k\"1\\").actor("an \"actor\""));
    }
    server.wait_events(40);
    for line in server.log() {
        let object: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(object.is_object(), "{line}");
    }
    assert_eq!(server.events().len(), 40);
    server.restart(&[]);
    assert_eq!(server.events(), [], "a start makes no request's event");
}

const KEY: &str = "canary-key-3fa9c1";
const ACTOR: &str = "canary-actor-77e0b2";
const BODY: &str = "canary-body-c45d19";

fn nothing_tells_a_key_a_principal_or_a_body(kind: Kind) {
    let mut server = Server::start(kind, &["--max-in-flight-per-scope", "1"]);
    let to = |target: &str, id: &str| ask("POST", target, &format!("{KEY}-{id}")).actor(ACTOR).body(BODY);
    let send = |server: &Server, ask: &Ask| drop(Wire::send(server, ask));
    for target in [
        "/pay",
        "/refund",
        "/v1/pay",
        "/v2/pay",
        "/pay?panic=1",
        "/refund?panic=2",
        "/pay?as=in_doubt",
        "/pay?bytes=70000",
    ] {
        for body in [BODY, BODY, "another"] {
            send(&server, &to(target, "a").body(body));
        }
    }
    for bad in [format!("{KEY} {KEY}"), format!("\"{KEY}"), format!("{KEY}, {KEY}"), KEY.repeat(20)] {
        send(&server, &to("/pay", "b").without("idempotency-key").raw_key(bad));
    }
    send(&server, &to("/pay", "c").body(BODY.repeat(5_000)));
    let running = server.spawn(&to("/pay?sleep=400", "d"));
    crate::support::wait_until("the run", || {
        server.records().records.iter().any(|record| record.state == "registered")
    });
    send(&server, &to("/pay?sleep=400", "d"));
    send(&server, &to("/pay", "e"));
    running.reply().executed(200);
    for _ in 0..2 {
        let metrics = server.get("/metrics");
        let records = server.send(&keyless("GET", "/admin/records"));
        let told = [server.log().join("\n"), metrics.text().to_owned(), records.text().to_owned()].join("\n");
        for canary in ["canary", KEY, ACTOR, BODY, "&sleep", "sleep=400"] {
            let line = told.lines().find(|line| line.contains(canary));
            assert_eq!(line, None, "{canary}");
        }
        server.restart(&[]);
        send(&server, &to("/pay?as=in_doubt", "a"));
    }
}
