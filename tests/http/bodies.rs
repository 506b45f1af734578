//! R22, the request's side, and what a malformed, late or missing body does to a key: nothing.

use crate::support::problem::TOO_LARGE;
use crate::support::{Ask, Kind, Server, Wire, ask, both, keyless};

both![
    a_body_at_the_limit_runs_and_one_over_is_refused,
    an_oversize_body_is_refused_at_its_declaration,
    a_body_over_the_limit_in_chunks_is_refused_while_it_is_read,
    a_malformed_body_runs_nothing_and_leaves_the_key_free,
    a_body_that_comes_byte_by_byte_holds_up_nobody,
    many_unfinished_bodies_hold_up_nobody,
    the_handler_gets_the_identical_bytes,
];

fn pay(key: &str) -> Ask {
    ask("POST", "/pay", key)
}

fn a_body_at_the_limit_runs_and_one_over_is_refused(kind: Kind) {
    for (flags, limit) in [(&[][..], 65_536), (&["--max-request", "100"][..], 100)] {
        let server = Server::start(kind, flags);
        let (fits, over) = (pay("k").body(vec![b'x'; limit]), pay("k").body(vec![b'x'; limit + 1]));
        Wire::send(&server, &over).refused(TOO_LARGE);
        Wire::exchange(&server, &over.chunked(40)).refused(TOO_LARGE);
        assert_eq!((server.started(), server.records().records), (0, vec![]));
        let first = Wire::exchange(&server, &fits.chunked(4_096)).executed(200).answers(&fits, "POST /pay", 1);
        Wire::send(&server, &over).refused(TOO_LARGE);
        server.send(&fits).replays(&first);
        assert_eq!(server.started(), 1);
    }
}

fn an_oversize_body_is_refused_at_its_declaration(kind: Kind) {
    let server = Server::start(kind, &[]);
    for length in ["65537", "1000000000000", "9223372036854775807"] {
        let mut head = pay("k").head();
        head.extend(format!("Content-Length: {length}\r\n\r\n").into_bytes());
        Wire::exchange(&server, &head).refused(TOO_LARGE);
    }
    assert_eq!((server.started(), server.records().records), (0, vec![]));
    server.send(&pay("k")).executed(200);
}

/// The stream never ends: the refusal must come at the limit.
fn a_body_over_the_limit_in_chunks_is_refused_while_it_is_read(kind: Kind) {
    let server = Server::start(kind, &["--max-request", "1000"]);
    let mut bytes = pay("k").head();
    bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
    for _ in 0..11 {
        bytes.extend(b"64\r\n");
        bytes.extend([b'x'; 100]);
        bytes.extend(b"\r\n");
    }
    Wire::exchange(&server, &bytes).refused(TOO_LARGE);
    // A chunk that only says that it is large.
    let mut bytes = pay("k").head();
    bytes.extend(b"Transfer-Encoding: chunked\r\n\r\nfffff\r\n");
    bytes.extend([b'x'; 1_500]);
    Wire::exchange(&server, &bytes).refused(TOO_LARGE);
    assert_eq!((server.started(), server.records().records), (0, vec![]));
    server.send(&pay("k")).executed(200);
}

/// Requests whose bodies never become whole: what frames them, what comes of them.
const MALFORMED: [(&str, &str); 16] = [
    ("Transfer-Encoding: chunked", "zz\r\nhello\r\n0\r\n\r\n"),
    ("Transfer-Encoding: chunked", "-5\r\nhello\r\n0\r\n\r\n"),
    ("Transfer-Encoding: chunked", "5\r\nhello world\r\n0\r\n\r\n"),
    ("Transfer-Encoding: chunked", "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    ("Transfer-Encoding: chunked", "\r\n\r\n"),
    ("Transfer-Encoding: chunked", "5\r\nhello\r\n"),
    ("Transfer-Encoding: chunked", "5\r\nhel"),
    ("Transfer-Encoding: chunked", ""),
    ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n"),
    ("Content-Length: 10", "hello"),
    ("Content-Length: 1", ""),
    ("Content-Length: -1", "hello"),
    ("Content-Length: five", "hello"),
    ("Content-Length: 5, 6", "hello"),
    ("Content-Length: 5\r\nContent-Length: 6", "hello"),
    ("Transfer-Encoding: gzip", "hello"),
];

fn a_malformed_body_runs_nothing_and_leaves_the_key_free(kind: Kind) {
    let server = Server::start(kind, &[]);
    for (framing, body) in MALFORMED {
        println!("{framing} and {body:?}");
        let mut bytes = pay("k").head();
        bytes.extend(format!("{framing}\r\n\r\n{body}").into_bytes());
        let mut wire = Wire::open(&server).say(&bytes);
        wire.finish_writing();
        if let Some(reply) = wire.reply() {
            assert!((400..600).contains(&reply.status) && !reply.is_replay(), "{reply:?}");
        }
        assert_eq!((server.started(), server.records().records), (0, vec![]));
    }
    server.wait_metric("inflight_gauge", "POST /pay", 0.0);
    server.send(&pay("k")).executed(200);
}

fn a_body_that_comes_byte_by_byte_holds_up_nobody(kind: Kind) {
    let server = Server::start(kind, &[]);
    let ask = pay("k");
    let bytes = ask.bytes();
    let mut slow = Wire::open(&server);
    let (early, last) = bytes.split_at(bytes.len() - 3);
    for byte in early {
        assert!(slow.write(&[*byte]));
    }
    // Nothing is registered yet, so the key is free, and everybody else is served.
    assert_eq!((server.started(), server.records().records), (0, vec![]));
    server.send(&pay("other")).executed(200);
    let first = server.send(&ask).executed(200).answers(&ask, "POST /pay", 2);
    for byte in last {
        assert!(slow.write(&[*byte]));
    }
    slow.reply().expect("an answer").replays(&first);
    assert_eq!(server.started(), 2);
    // And one that nobody overtakes runs as any other.
    let alone = pay("alone");
    let mut slow = Wire::open(&server);
    for byte in alone.chunked(1) {
        assert!(slow.write(&[byte]));
    }
    slow.reply().expect("an answer").executed(200).answers(&alone, "POST /pay", 3);
}

/// As many as could run at once, and more: a body that is still coming takes no place.
fn many_unfinished_bodies_hold_up_nobody(kind: Kind) {
    let server = Server::start(kind, &["--max-in-flight", "4"]);
    let unfinished = |n: usize| {
        let bytes = pay(&format!("k{n}")).bytes();
        Wire::open(&server).say(&bytes[..bytes.len() - 1])
    };
    let held: Vec<_> = (0..50).map(unfinished).collect();
    for n in 0..50 {
        server.send(&pay(&format!("k{n}"))).executed(200);
    }
    drop(held);
    assert_eq!(server.started(), 50);
    server.wait_metric("inflight_gauge", "POST /pay", 0.0);
}

fn the_handler_gets_the_identical_bytes(kind: Kind) {
    let server = Server::start(kind, &["--canonical-json"]);
    let all: Vec<u8> = (0..=255).cycle().take(40_000).collect();
    let bodies: [&[u8]; 6] = [b"", b"\0", b" { \"b\" : 1.0 , \"a\" : 1e2 } ", b"\xef\xbb\xbf{}", b"\r\n", &all];
    for (n, body) in (1..).zip(bodies) {
        let ask = pay(&format!("k{n}")).body(body);
        Wire::send(&server, &ask).executed(200).answers(&ask, "POST /pay", n);
    }
    let chunked = keyless("PATCH", "/pay").key("k").body(&all);
    Wire::exchange(&server, &chunked.chunked(7)).executed(200).answers(&chunked, "PATCH /pay", 1);
}
