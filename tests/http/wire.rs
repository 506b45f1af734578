//! Connections: pipelined requests, HTTP/1.0, connections that are kept, garbage between requests.

use crate::support::problem::{MISMATCH, MISSING};
use crate::support::{Ask, Kind, Server, Wire, ask, both, keyless};

both![
    pipelined_requests_with_one_key_run_once,
    pipelined_requests_with_different_keys_are_answered_in_order,
    a_refusal_leaves_the_connection_usable,
    http_1_0_is_served,
    the_absolute_form_is_the_same_target,
    bytes_after_the_body_are_no_part_of_it,
    both_framings_at_once_never_go_by_the_length,
    garbage_ends_its_connection_alone,
];

fn pay(key: &str) -> Ask {
    ask("POST", "/pay", key)
}

fn pipelined_requests_with_one_key_run_once(kind: Kind) {
    let server = Server::start(kind, &[]);
    let slow = pay("k").target("/pay?sleep=100");
    let other = slow.clone().body("another");
    let all = [slow.bytes(), slow.bytes(), other.bytes(), slow.chunked(3)].concat();
    let mut wire = Wire::open(&server).say(&all);
    let first = wire.reply().unwrap().executed(200).answers(&slow, "POST /pay", 1);
    wire.reply().unwrap().replays(&first);
    wire.reply().unwrap().refused(MISMATCH);
    wire.reply().unwrap().replays(&first);
    assert_eq!(server.started(), 1);
}

fn pipelined_requests_with_different_keys_are_answered_in_order(kind: Kind) {
    let server = Server::start(kind, &[]);
    let asks: Vec<_> = (0..20).map(|n| pay(&format!("k{n}")).body(format!("{n}"))).collect();
    let all: Vec<_> = asks.iter().flat_map(Ask::bytes).collect();
    let mut wire = Wire::open(&server).say(&all);
    for (n, ask) in (1..).zip(&asks) {
        wire.reply().unwrap().executed(200).answers(ask, "POST /pay", n);
    }
    assert_eq!(server.started(), 20);
}

fn a_refusal_leaves_the_connection_usable(kind: Kind) {
    let server = Server::start(kind, &[]);
    let mut wire = Wire::open(&server).say(&pay("k").bytes());
    let first = wire.reply().unwrap().executed(200);
    for _ in 0..3 {
        wire.write(&pay("k").body("another").bytes());
        wire.reply().unwrap().refused(MISMATCH);
        wire.write(&pay("k").bytes());
        wire.reply().unwrap().replays(&first);
    }
    // A body that the layer did not read is not taken for the next request, on this connection or another.
    let inner = String::from_utf8(pay("smuggled").bytes()).unwrap();
    wire.write(&keyless("POST", "/pay").body(inner).bytes());
    wire.reply().unwrap().refused(MISSING);
    if wire.write(&pay("k").bytes())
        && let Some(next) = wire.reply()
    {
        next.replays(&first);
    }
    assert_eq!(server.started(), 1);
}

fn http_1_0_is_served(kind: Kind) {
    let server = Server::start(kind, &[]);
    let old = |ask: &Ask| String::from_utf8(ask.bytes()).unwrap().replacen("HTTP/1.1", "HTTP/1.0", 1).into_bytes();
    let mut wire = Wire::open(&server).say(&old(&pay("k")));
    let first = wire.reply().unwrap().executed(200).answers(&pay("k"), "POST /pay", 1);
    assert!(wire.ends(), "without keep-alive the connection ends");
    Wire::exchange(&server, &old(&pay("k"))).replays(&first);
    Wire::send(&server, &pay("k")).replays(&first);
    Wire::exchange(&server, &old(&keyless("POST", "/pay"))).refused(MISSING);
    assert_eq!(server.started(), 1);
}

fn the_absolute_form_is_the_same_target(kind: Kind) {
    let server = Server::start(kind, &[]);
    let first = Wire::send(&server, &pay("k")).executed(200);
    let absolute = pay("k").target(&format!("http://127.0.0.1:{}/pay", server.port()));
    Wire::send(&server, &absolute).replays(&first);
    assert_eq!(server.started(), 1);
}

fn bytes_after_the_body_are_no_part_of_it(kind: Kind) {
    let server = Server::start(kind, &[]);
    let ask = pay("k").body("hello");
    let mut bytes = ask.bytes();
    bytes.extend(b" world\r\n\r\n");
    let mut wire = Wire::open(&server).say(&bytes);
    let first = wire.reply().unwrap().executed(200).answers(&ask, "POST /pay", 1);
    if let Some(second) = wire.reply() {
        assert_eq!(second.status, 400, "{second:?}");
    }
    assert!(wire.ends());
    Wire::send(&server, &ask).replays(&first);
    assert_eq!(server.started(), 1);
}

/// Length and chunks at once: a server may refuse, or go by the chunks; never by the length.
fn both_framings_at_once_never_go_by_the_length(kind: Kind) {
    let server = Server::start(kind, &[]);
    let chunks_first = "Transfer-Encoding: chunked\r\nContent-Length: 5";
    for (n, framing) in (1..).zip(["Content-Length: 5\r\nTransfer-Encoding: chunked", chunks_first]) {
        let ask = pay(&format!("k{n}")).body("abc");
        let mut bytes = ask.head();
        bytes.extend(format!("{framing}\r\n\r\n3\r\nabc\r\n0\r\n\r\n").into_bytes());
        match Wire::exchange(&server, &bytes) {
            reply if reply.status == 200 => assert_eq!(reply.json()["len"], 3, "{reply:?}"),
            reply => assert_eq!((reply.status, server.started()), (400, 0), "{reply:?}"),
        }
    }
}

fn garbage_ends_its_connection_alone(kind: Kind) {
    let server = Server::start(kind, &[]);
    let mut good = Wire::open(&server);
    good.write(&pay("k").bytes());
    let first = good.reply().unwrap().executed(200);
    let key = "Idempotency-Key: \"k2\"\r\nX-Actor: a\r\nContent-Length: 0\r\n\r\n";
    let garbage = [
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned(),
        format!("POST /pay HTTP/9.9\r\nHost: demo\r\n{key}"),
        format!("POST  /pay HTTP/1.1\r\nHost: demo\r\n{key}"),
        format!("POST /pay\r\n{key}"),
        format!("POST /pay HTTP/1.1\r\nHost : demo\r\n{key}"),
        format!("POST /pay HTTP/1.1\r\nno colon\r\n{key}"),
        format!("POST /pay HTTP/1.1\r\nX-Long: {}\r\n{key}", "x".repeat(1_000_000)),
    ];
    for bytes in garbage {
        let mut wire = Wire::open(&server).say(bytes.as_bytes());
        wire.finish_writing();
        if let Some(reply) = wire.reply() {
            assert!((400..600).contains(&reply.status), "{reply:?} to {:?}", &bytes[..40.min(bytes.len())]);
        }
    }
    good.write(&pay("k").bytes());
    good.reply().unwrap().replays(&first);
    assert_eq!(server.started(), 1);
}
