//! R8, R23, R24: a replay is the first answer byte for byte, without what belonged to the first connection.

use crate::support::ask::escaped;
use crate::support::{Kind, Reply, Server, Wire, ask, both};

both![
    a_replay_says_so_and_an_executed_answer_never_does,
    end_to_end_headers_are_replayed_in_order_and_the_others_left_out,
    a_connection_header_takes_with_it_what_it_names,
    statuses_without_a_body_replay_without_one,
    every_status_and_byte_is_replayed,
];

fn a_replay_says_so_and_an_executed_answer_never_does(kind: Kind) {
    let server = Server::start(kind, &[]);
    for (name, key) in [("Idempotency-Replayed", "k1"), ("idempotency-replayed", "k2")] {
        let target = format!("/pay?header={name}:true&header={name}:maybe&header=X-Kept:1");
        let ask = ask("POST", &target, key);
        let first = server.send(&ask).executed(200);
        let again = server.send(&ask).replays(&first);
        assert_eq!((first.header("x-kept"), again.header("x-kept")), (Some("1"), Some("1")));
    }
    // Where the layer does not step in, the header is the handler's own affair; where it runs, it is not.
    let unmarked = server.send(&ask("POST", "/pay?as=forget&header=Idempotency-Replayed:true", "k3")).executed(200);
    assert_eq!(unmarked.n(), 3);
}

/// The lines that a replay must repeat, in order.
const KEPT: [(&str, &[u8]); 9] = [
    ("X-Many", b"one"),
    ("Vary", b"accept"),
    ("X-Many", b"two"),
    ("X-Bytes", b"\xff\xfe caf\xe9"),
    ("X-Many", b"one"),
    ("Location", b"/orders/7?a=b"),
    ("ETag", b"\"v1\""),
    ("Cache-Control", b"no-store"),
    ("Retry-After", b"7"),
];
/// The lines that a replay must leave out.
const DROPPED: [(&str, &[u8]); 9] = [
    ("Set-Cookie", b"session=1"),
    ("Set-Cookie", b"other=2"),
    ("Keep-Alive", b"timeout=77"),
    ("Proxy-Authenticate", b"Basic"),
    ("Proxy-Authorization", b"Basic eA=="),
    ("TE", b"trailers"),
    ("Trailer", b"X-Sum"),
    ("Server", b"demo-handler"),
    ("Date", b"Thu, 01 Jan 1970 00:00:00 GMT"),
];

/// A target that makes the handler answer with these lines.
fn answering(lines: &[(&str, &[u8])]) -> String {
    let mut parameters = Vec::new();
    for (name, value) in lines {
        parameters.push(format!("header={}", escaped([name.as_bytes(), b":", value].concat())));
    }
    format!("/pay?{}", parameters.join("&"))
}

#[track_caller]
fn keeps_all(reply: &Reply) {
    for (name, _) in KEPT {
        let expected: Vec<_> = KEPT.iter().filter(|(other, _)| *other == name).map(|(_, value)| *value).collect();
        assert_eq!(reply.values(name), expected, "{name}: {reply:?}");
    }
}

fn end_to_end_headers_are_replayed_in_order_and_the_others_left_out(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let ask = ask("POST", &answering(&[&KEPT[..], &DROPPED[..]].concat()), "k");
    let first = Wire::send(&server, &ask).executed(200);
    keeps_all(&first);
    let cookies: [&[u8]; 2] = [b"session=1", b"other=2"];
    assert_eq!(first.values("set-cookie"), cookies, "the first reply stays as made: {first:?}");
    for process in ["the same", "the next"] {
        println!("{process} process");
        let again = Wire::send(&server, &ask).replays(&first);
        keeps_all(&again);
        for (name, value) in DROPPED {
            assert!(!again.values(name).contains(&value), "{name}: {again:?}");
        }
        for name in ["set-cookie", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer"] {
            assert_eq!(again.values(name), Vec::<&[u8]>::new(), "{name}");
        }
        assert_eq!(again.header("content-length"), Some(again.body.len().to_string().as_str()));
        server.restart(&[]);
    }
}

fn a_connection_header_takes_with_it_what_it_names(kind: Kind) {
    let server = Server::start(kind, &[]);
    let lines: [(&str, &[u8]); 4] =
        [("Connection", b"X-Hop, x-other-HOP"), ("X-Hop", b"1"), ("X-Other-Hop", b"2"), ("X-End", b"3")];
    let ask = ask("POST", &answering(&lines), "k");
    let first = Wire::send(&server, &ask).executed(200);
    assert_eq!(first.values("x-end"), [b"3"]);
    let again = Wire::send(&server, &ask).replays(&first);
    assert_eq!(again.values("x-end"), [b"3"]);
    for name in ["x-hop", "x-other-hop"] {
        assert_eq!(again.values(name), Vec::<&[u8]>::new(), "{name}: {again:?}");
    }
    assert!(again.values("connection").iter().all(|value| !value.to_ascii_lowercase().starts_with(b"x-hop")));
}

fn statuses_without_a_body_replay_without_one(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let asks =
        [204, 304].map(|status| ask("POST", &format!("/pay?status={status}&header=X-A:1"), &format!("k{status}")));
    for round in 0..3 {
        for ask in &asks {
            // A second request on the connection shows that no body byte and no wrong length came with the first.
            let mut wire = Wire::open(&server);
            wire.write(&ask.bytes());
            let reply = wire.reply().expect("an answer");
            assert!(reply.status == 204 || reply.status == 304, "{reply:?}");
            assert_eq!(reply.is_replay(), round > 0, "{reply:?}");
            assert_eq!((reply.header("x-a"), reply.header("transfer-encoding")), (Some("1"), None));
            if round > 0 {
                assert_eq!(reply.header("content-length"), None, "{reply:?}");
            }
            wire.write(&crate::support::keyless("GET", "/count").body("").bytes());
            assert_eq!(wire.reply().expect("the next answer").status, 200);
        }
        if round == 1 {
            server.restart(&[]);
        }
    }
    assert_eq!(server.started(), 0);
}

fn every_status_and_byte_is_replayed(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let statuses =
        [200, 201, 202, 299, 301, 303, 307, 400, 401, 403, 404, 409, 410, 418, 422, 429, 499, 500, 502, 503, 599];
    let asks = statuses.map(|status| (status, ask("POST", &format!("/pay?status={status}"), &format!("s{status}"))));
    let firsts: Vec<_> = asks.iter().map(|(status, ask)| server.send(ask).executed(*status)).collect();
    let raw = ask("POST", "/pay?bytes=5000", "bytes");
    let bytes = server.send(&raw).executed(200);
    let pattern: Vec<u8> = (0..5000_u32).map(|at| ((7 + 31 * at) % 256) as u8).collect();
    assert_eq!((bytes.body == pattern, bytes.header("content-type")), (true, Some("application/octet-stream")));
    let empty = ask("POST", "/pay?bytes=0", "empty");
    let nothing = server.send(&empty).executed(200);
    assert_eq!(nothing.body, b"");
    for _ in 0..2 {
        for ((_, ask), first) in asks.iter().zip(&firsts) {
            server.send(ask).replays(first);
        }
        server.send(&raw).replays(&bytes);
        server.send(&empty).replays(&nothing);
        server.restart(&[]);
    }
}
