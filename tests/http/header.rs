//! R1 to R4: what is a key, in both syntaxes, and what is none. The header lines go out as raw bytes.

use crate::support::problem::{INVALID, MISSING, NO_PRINCIPAL, TOO_LARGE};
use crate::support::{Ask, Kind, Reply, Server, Wire, ask, both, keyless};

both![
    spellings_of_one_key_are_one_record,
    other_keys_are_other_records,
    what_is_no_string_is_refused,
    bytes_outside_the_grammar_are_refused,
    a_key_has_1_to_255_characters,
    the_strict_header_takes_the_quoted_form_alone,
    two_keys_are_refused_equal_or_not,
    an_empty_header_is_invalid_not_missing,
    a_missing_key_names_its_problem_in_a_link,
    the_steps_of_a_request_keep_their_order,
    a_bad_key_is_refused_before_the_body_is_sent,
];

/// A request whose key lines are these.
fn with_lines<const N: usize>(lines: [&[u8]; N]) -> Ask {
    lines.into_iter().fold(keyless("POST", "/pay"), Ask::raw_key)
}

#[track_caller]
fn refuses_as_invalid(server: &Server, lines: &[&[u8]]) {
    let ask = lines.iter().fold(keyless("POST", "/pay"), |ask, line| ask.raw_key(line));
    let shown: Vec<_> = lines.iter().map(|line| line.escape_ascii().to_string()).collect();
    println!("the lines {shown:?}");
    Wire::send(server, &ask).refused(INVALID);
}

fn spellings_of_one_key_are_one_record(kind: Kind) {
    let server = Server::start(kind, &[]);
    let groups: [&[&[u8]]; 6] = [
        &[
            br#""k1""#,
            b"k1",
            br#"   "k1"   "#,
            b"\t\"k1\"\t",
            b"  k1  ",
            br#""k1";a=1"#,
            br#""k1"; a"#,
            br#""k1";a;b=?0"#,
        ],
        &[br#""k2""#, br#""k2";a="x, y""#, br#""k2";a="\"";b=tok/en;c=1.5;d=:YQ==:"#],
        &[br#""a.b_c:d-9""#, b"a.b_c:d-9"],
        &[br#""123""#, b"123"],
        &[br#""a\"b\\c""#, br#""a\"b\\c";p"#],
        // Joined before it is parsed: one String, which happens to lie in two lines.
        &[br#""m, n""#],
    ];
    for (n, spellings) in (1..).zip(groups) {
        let first = Wire::send(&server, &with_lines([spellings[0]])).executed(200);
        assert_eq!(first.n(), n);
        for spelling in &spellings[1..] {
            println!("{}", spelling.escape_ascii());
            Wire::send(&server, &with_lines([*spelling])).replays(&first);
        }
    }
    let both_halves = Wire::send(&server, &with_lines([br#""m"#, br#"n""#]));
    assert!(both_halves.is_replay() && both_halves.n() == 6, "{both_halves:?}");
    assert_eq!(server.started(), 6);
}

fn other_keys_are_other_records(kind: Kind) {
    let server = Server::start(kind, &[]);
    let keys: [&[u8]; 12] = [
        br#""key""#,
        br#""KEY""#,
        br#"" key""#,
        br#""key ""#,
        br#""key,key""#,
        br#""key;a=1""#,
        br#""key\\""#,
        br#""\"key\"""#,
        b"-key",
        b":key:",
        b".",
        br#""~!#$%&'()*+/<=>?@[]^`{|}""#,
    ];
    for (n, key) in (1..).zip(keys) {
        println!("{}", key.escape_ascii());
        let reply = Wire::send(&server, &with_lines([key])).executed(200);
        assert_eq!(reply.n(), n);
    }
    assert_eq!(server.records().records.len(), keys.len());
}

fn what_is_no_string_is_refused(kind: Kind) {
    let server = Server::start(kind, &[]);
    let values: [&[u8]; 32] = [
        br#""""#,
        br#""k1"#,
        br#"k1""#,
        b"\"",
        b"'k1'",
        br#""a" "b""#,
        br#""a"b"#,
        b"a b",
        br#""a\b""#,
        br#""a\"#,
        br#"("a")"#,
        b"()",
        b"a/b",
        b"*a",
        b"a=1",
        br#"a="b""#,
        b"?1",
        b"@1659578233",
        br#"%"a""#,
        b":YQ==:",
        b"-1,",
        b",",
        b"a;b",
        br#""a";"#,
        br#""a";B=1"#,
        br#""a";b="#,
        br#""a" ;b=1"#,
        br#""a";b=1 x"#,
        b"k{1}",
        b"k1;",
        b"k%31",
        b"k+1",
    ];
    for value in values {
        refuses_as_invalid(&server, &[value]);
    }
    assert_eq!((server.started(), server.records().records), (0, vec![]));
}

/// A byte that is no header byte may be refused by the server below the layer: a bare 400 then, and no handler either.
fn bytes_outside_the_grammar_are_refused(kind: Kind) {
    let server = Server::start(kind, &[]);
    for byte in (0..=0x1f).chain([0x7f, 0x80, 0xa0, 0xc3, 0xff]) {
        let (quoted, bare) = ([b"\"a", [byte].as_slice(), b"b\""].concat(), [b"a", [byte].as_slice(), b"b"].concat());
        for value in [quoted, bare] {
            println!("{}", value.escape_ascii());
            let reply = Wire::open(&server).say(&with_lines([value.as_slice()]).bytes()).reply();
            let answered = reply.expect("an answer");
            assert_eq!(answered.status, 400, "{answered:?}");
            if byte == b'\t' || byte >= 0x80 {
                answered.refused(INVALID);
            }
        }
    }
    for folded in [b"\"a\r\n b\"".as_slice(), b"a\r\n\tb", b"a\r\n \"b\""] {
        let reply = Wire::exchange(&server, &with_lines([folded]).bytes());
        assert_eq!(reply.status, 400, "{reply:?}");
    }
    refuses_as_invalid(&server, &["\"clé\"".as_bytes()]);
    assert_eq!((server.started(), server.records().records), (0, vec![]));
}

fn a_key_has_1_to_255_characters(kind: Kind) {
    let server = Server::start(kind, &[]);
    let quoted = |inner: String| format!("\"{inner}\"").into_bytes();
    let fit = [
        b"k".to_vec(),
        vec![b'k'; 255],
        quoted("x".repeat(255)),
        // 510 bytes on the line, 255 characters decoded.
        quoted("\\\"".repeat(255)),
        quoted("\\\\".repeat(255)),
        quoted(" ".into()),
    ];
    for (n, value) in (1..).zip(&fit) {
        assert_eq!(Wire::send(&server, &with_lines([value.as_slice()])).executed(200).n(), n);
    }
    let same = Wire::send(&server, &with_lines([quoted("k".repeat(255)).as_slice()]));
    assert!(same.is_replay() && same.n() == 2, "{same:?}");
    let started = server.started();
    for value in [vec![b'k'; 256], quoted("x".repeat(256)), quoted("\\\"".repeat(256)), vec![b'1'; 300]] {
        refuses_as_invalid(&server, &[&value]);
    }
    assert_eq!(server.started(), started);
}

fn the_strict_header_takes_the_quoted_form_alone(kind: Kind) {
    let server = Server::start(kind, &["--strict-header"]);
    for value in [b"k1".as_slice(), b"123", b"1.5", b":abc:", b"a-b", b"?1", b"8e03978e-40d5-43dd-bc93-6894a57f9324"] {
        refuses_as_invalid(&server, &[value]);
    }
    assert_eq!(server.started(), 0);
    let first = Wire::send(&server, &with_lines([br#""k1""#])).executed(200);
    Wire::send(&server, &with_lines([br#" "k1"; a=1 "#])).replays(&first);
}

fn two_keys_are_refused_equal_or_not(kind: Kind) {
    let server = Server::start(kind, &[]);
    let lines: [&[&[u8]]; 12] = [
        &[br#""a", "b""#],
        &[br#""a","a""#],
        &[br#""a", "#],
        &[b"a, b"],
        &[b"a,a"],
        &[br#""a""#, br#""a""#],
        &[br#""a""#, br#""b""#],
        &[b"a", b"a"],
        &[b"a", b"b"],
        &[br#""a""#, b""],
        &[b"", br#""a""#],
        &[b"a", b"a", b"a"],
    ];
    for lines in lines {
        refuses_as_invalid(&server, lines);
    }
    // The name is one name in every case.
    let mixed = keyless("POST", "/pay").header("idempotency-key", "a").header("IDEMPOTENCY-KEY", "a");
    Wire::send(&server, &mixed).refused(INVALID);
    assert_eq!((server.started(), server.records().records), (0, vec![]));
}

fn an_empty_header_is_invalid_not_missing(kind: Kind) {
    let server = Server::start(kind, &[]);
    for route in ["/pay", "/v1/pay"] {
        for value in [b"".as_slice(), b"   "] {
            Wire::send(&server, &keyless("POST", route).raw_key(value)).refused(INVALID);
        }
        Wire::send(&server, &keyless("POST", route).raw_key("").raw_key("")).refused(INVALID);
    }
    assert_eq!(server.started(), 0);
}

fn a_missing_key_names_its_problem_in_a_link(kind: Kind) {
    let server = Server::start(kind, &[]);
    for (method, route) in [("POST", "/pay"), ("PATCH", "/pay"), ("POST", "/refund"), ("POST", "/v2/pay")] {
        let reply = server.send(&keyless(method, route)).refused(MISSING);
        let link = format!(r#"<{}>; rel="describedby""#, reply.json()["type"].as_str().unwrap());
        assert_eq!(reply.header("link"), Some(link.as_str()), "{reply:?}");
    }
    assert_eq!((server.started(), server.records().records), (0, vec![]));
}

/// Header before principal before size before look-up.
fn the_steps_of_a_request_keep_their_order(kind: Kind) {
    let server = Server::start(kind, &["--max-request", "100"]);
    let wrong_in_all = keyless("POST", "/pay").without("x-actor").body([b'x'; 101]);
    Wire::send(&server, &wrong_in_all).refused(MISSING);
    Wire::send(&server, &wrong_in_all.clone().raw_key("a b")).refused(INVALID);
    Wire::send(&server, &wrong_in_all.key("k")).refused(NO_PRINCIPAL);
    let first = server.send(&ask("POST", "/pay", "k")).executed(200);
    // Another fingerprint as well, but nobody came so far as to compare it.
    let large = ask("POST", "/pay", "k").body([b'x'; 101]);
    Wire::send(&server, &large).refused(TOO_LARGE);
    Wire::exchange(&server, &large.chunked(10)).refused(TOO_LARGE);
    server.send(&ask("POST", "/pay", "k")).replays(&first);
    // The method comes first of all.
    let get = server.send(&ask("GET", "/pay", "k").without("x-actor").without("idempotency-key").raw_key("a b"));
    assert_eq!((get.status, get.is_replay()), (200, false), "{get:?}");
    assert_eq!(server.counts().routes.get("POST /pay"), Some(&1));
}

fn a_bad_key_is_refused_before_the_body_is_sent(kind: Kind) {
    let server = Server::start(kind, &[]);
    let before_its_body = |ask: &Ask| -> Reply {
        let mut head = ask.head();
        head.extend(b"Content-Length: 60000\r\n\r\n");
        Wire::exchange(&server, &head)
    };
    before_its_body(&keyless("POST", "/pay")).refused(MISSING);
    before_its_body(&keyless("POST", "/pay").raw_key("a, b")).refused(INVALID);
    before_its_body(&ask("POST", "/pay", "k").without("x-actor")).refused(NO_PRINCIPAL);
    assert_eq!((server.started(), server.records().records), (0, vec![]));
}
