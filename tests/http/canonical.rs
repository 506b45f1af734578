//! R9 with `--canonical-json`: bodies that mean the same are the same, and nothing else is.

use crate::support::problem::MISMATCH;
use crate::support::{Ask, Kind, Server, ask, both};

both![
    bodies_that_mean_the_same_are_one_request,
    bodies_that_mean_something_else_are_not,
    what_is_no_interoperable_json_counts_as_it_is,
    without_the_flag_every_byte_counts,
];

fn pay(key: usize, body: impl AsRef<[u8]>) -> Ask {
    ask("POST", "/pay", &format!("k{key}")).body(body)
}

/// The first of each group runs, the others replay it.
fn bodies_that_mean_the_same_are_one_request(kind: Kind) {
    let server = Server::start(kind, &["--canonical-json"]);
    let groups: [&[&str]; 6] = [
        &[
            r#"{"a":1,"b":[true,null,"x"]}"#,
            r#"{"b":[true,null,"x"],"a":1}"#,
            " {\n\t\"b\" : [ true,null , \"x\" ],\r\"a\":1 } ",
        ],
        &[r#"{"n":1}"#, r#"{"n":1.0}"#, r#"{"n":1e0}"#, r#"{"n":10E-1}"#],
        &[r#"{"s":"a/b"}"#, r#"{"s":"\u0061\/b"}"#],
        &[r#"{"é":"€"}"#, r#"{"\u00e9":"\u20AC"}"#],
        &[r#"{"o":{"z":0,"y":{"b":1,"a":2}}}"#, r#"{"o":{"y":{"a":2,"b":1},"z":0}}"#],
        &["[1,2]", " [ 1 , 2 ]\n"],
    ];
    for (n, bodies) in groups.into_iter().enumerate() {
        let first =
            server.send(&pay(n, bodies[0])).executed(200).answers(&pay(n, bodies[0]), "POST /pay", n as u64 + 1);
        for body in &bodies[1..] {
            println!("{body}");
            server.send(&pay(n, body)).replays(&first);
        }
    }
}

#[track_caller]
fn differ(server: &Server, key: usize, first: &[u8], others: &[&[u8]]) {
    let answer = server.send(&pay(key, first)).executed(200);
    for other in others {
        println!("{}", other.escape_ascii());
        server.send(&pay(key, other)).refused(MISMATCH);
    }
    server.send(&pay(key, first)).replays(&answer);
}

fn bodies_that_mean_something_else_are_not(kind: Kind) {
    let server = Server::start(kind, &["--canonical-json"]);
    differ(
        &server,
        1,
        br#"{"a":1}"#,
        &[br#"{"a":2}"#, br#"{"a":"1"}"#, br#"{"A":1}"#, br#"{"a":1,"b":null}"#, b"{}", b""],
    );
    differ(&server, 2, b"[1,2]", &[b"[2,1]", b"[1,2,2]", b"[[1,2]]"]);
    differ(&server, 3, br#"{"a":"x"}"#, &[br#"{"a":"x "}"#, br#"{"a":"X"}"#]);
    differ(&server, 4, "{\"a\":\"\u{e9}\"}".as_bytes(), &["{\"a\":\"e\u{301}\"}".as_bytes()]);
    differ(&server, 5, br#"{"a":null}"#, &[b"{}", br#"{"a":false}"#, br#"{"a":0}"#]);
}

/// Two amounts that a double cannot tell apart are two amounts.
fn what_is_no_interoperable_json_counts_as_it_is(kind: Kind) {
    let server = Server::start(kind, &["--canonical-json"]);
    differ(&server, 1, br#"{"n":9007199254740993}"#, &[br#"{"n":9007199254740992}"#, br#"{"n":9007199254740994}"#]);
    differ(&server, 2, br#"{"n":123456789012345678901}"#, &[br#"{"n":123456789012345678902}"#]);
    differ(&server, 3, br#"{"a":1,"a":2}"#, &[br#"{"a":2}"#, br#"{"a":1}"#, br#"{"a":2,"a":1}"#, br#"{"a":1, "a":2}"#]);
    differ(&server, 4, br#"{"a":1"#, &[br#"{"a":1 "#, br#"{"a":1}"#]);
    differ(
        &server,
        5,
        br#"{"a":"\ud800"}"#,
        &[br#"{"a":"\ud801"}"#, br#"{"a": "\ud800"}"#, "{\"a\":\"\u{fffd}\"}".as_bytes()],
    );
    differ(&server, 6, b"{\"a\":\"\xff\"}", &[b"{\"a\":\"\xfe\"}", b"{ \"a\":\"\xff\"}"]);
    differ(&server, 7, b"amount=1", &[b"amount=2", b" amount=1"]);
    differ(&server, 8, b"", &[b" ", b"null"]);
    differ(&server, 9, br#"{"a":1} {"a":2}"#, &[br#"{"a":1}{"a":2}"#, br#"{"a":1}"#]);
    let deep = |depth: usize| [b"[".repeat(depth), b"]".repeat(depth)].concat();
    differ(&server, 10, &deep(20_000), &[&deep(20_001)]);
    differ(&server, 11, br#"{"n":1e400}"#, &[br#"{"n":1e401}"#]);
    differ(&server, 12, br#"{"n":0.1}"#, &[br#"{"n":0.10000000000000001e1}"#]);
}

fn without_the_flag_every_byte_counts(kind: Kind) {
    let server = Server::start(kind, &[]);
    differ(&server, 1, br#"{"a":1,"b":2}"#, &[br#"{"b":2,"a":1}"#, br#"{"a":1,"b":2.0}"#, br#"{"a":1,"b":2} "#]);
}
