//! The command line of section 6: what starts, what ends with status 2 and a message.

use std::net::TcpListener;

use crate::support::{Kind, Server, ask, both, keyless};

both![bad_flags_end_with_2, a_locked_file_ends_with_2, a_port_may_be_chosen, every_flag_is_taken, admin_needs_its_flag];

fn bad_flags_end_with_2(kind: Kind) {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("shop.redb");
    let db = db.to_str().unwrap();
    let bad: [&[&str]; 23] = [
        &["--nonsense"],
        &["--profile"],
        &["--profile", "stripe"],
        &["--profile", "Classic"],
        &["--on-running", "wait"],
        &["--join-wait", "soon"],
        &["--join-wait", "-1"],
        &["--ttl", "0"],
        &["--ttl", "-300"],
        &["--ttl", "one day"],
        &["--ttl", "99999999999999999999999"],
        &["--ttl"],
        &["--grace", "x"],
        &["--on-expired", "forget"],
        &["--store-5xx", "maybe"],
        &["--store-5xx"],
        &["--max-in-flight", "many"],
        &["--max-in-flight-per-scope", "-1"],
        &["--max-request", "64k"],
        &["--max-answer", "64k"],
        &["--port", "65536"],
        &["--port", "http"],
        &["extra"],
    ];
    for flags in bad {
        let (status, stderr) = kind.run(&[&["--db", db, "--port", "0"], flags].concat());
        assert_eq!(status, Some(2), "{flags:?}: {stderr}");
        assert!(!stderr.trim().is_empty(), "{flags:?}: a message");
    }
    let nowhere = dir.path().join("no/such/directory/shop.redb");
    let (status, stderr) = kind.run(&["--db", nowhere.to_str().unwrap(), "--port", "0"]);
    assert!(status.is_some_and(|status| status != 0) && !stderr.trim().is_empty(), "{status:?} {stderr}");
}

fn a_locked_file_ends_with_2(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let first = server.send(&ask("POST", "/pay", "k")).executed(200);
    let db = server.db();
    // Whichever of the two asks for it.
    for other in [Kind::Axum, Kind::Actix] {
        let (status, stderr) = other.run(&["--db", db.to_str().unwrap(), "--port", "0"]);
        assert_eq!(status, Some(2), "{stderr}");
        assert!(!stderr.trim().is_empty());
    }
    server.send(&ask("POST", "/pay", "k")).replays(&first);
    server.restart(&[]);
    server.send(&ask("POST", "/pay", "k")).replays(&first);
    assert_eq!(server.kind(), kind);
}

fn a_port_may_be_chosen(kind: Kind) {
    // Free a moment ago, and nobody else is told of it.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Server::without_admin(kind, &["--port", &port.to_string()]);
    assert_eq!(server.port(), port);
    server.send(&ask("POST", "/pay", "k")).executed(200);
    let dir = tempfile::tempdir().unwrap();
    let (db, port) = (dir.path().join("other.redb"), port.to_string());
    let (status, stderr) = kind.run(&["--db", db.to_str().unwrap(), "--port", &port]);
    assert!(status.is_some_and(|status| status != 0) && !stderr.trim().is_empty(), "taken: {status:?} {stderr}");
}

fn every_flag_is_taken(kind: Kind) {
    let flags = "--profile classic --on-running refuse --join-wait 30000 --ttl 86400 --grace 120 --on-expired rerun \
                 --store-5xx yes --max-in-flight 10000 --max-in-flight-per-scope 1000 --max-request 65536 --max-answer 65536";
    let flags: Vec<_> = flags.split_whitespace().collect();
    let server = Server::without_admin(kind, &flags);
    let first = server.send(&ask("POST", "/pay", "k")).executed(200);
    server.send(&ask("POST", "/pay", "k")).replays(&first);
    let all =
        ["--profile", "ietf", "--strict-header", "--on-running", "join", "--canonical-json", "--admin", "--grace", "0"];
    Server::without_admin(kind, &all).send(&ask("POST", "/pay", "k")).executed(200);
}

fn admin_needs_its_flag(kind: Kind) {
    let server = Server::without_admin(kind, &[]);
    for (method, target) in [
        ("GET", "/admin/records"),
        ("POST", "/admin/store?on=any&fails=1"),
        ("POST", "/admin/clock?freeze=1"),
        ("POST", "/admin/expiry-sweep?slice=1"),
        ("POST", "/admin/corrupt?key_hash=0000000000000000"),
    ] {
        let reply = server.send(&keyless(method, target));
        assert_eq!(reply.status, 404, "{target}: {reply:?}");
    }
    server.send(&ask("POST", "/pay", "k")).executed(200);
}
