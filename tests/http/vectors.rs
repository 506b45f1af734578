//! The vectors at the end of the page, one by one.

use crate::support::problem::{INVALID, MISMATCH, MISMATCH_IETF, MISSING, STORE};
use crate::support::{Ask, Kind, Server, ask, both, keyless};

both![
    twice_is_one_run_and_a_replay,
    ten_in_parallel_are_one_run,
    another_body_is_refused_and_the_first_still_replays,
    in_the_ietf_profile_a_mismatch_is_422,
    a_bare_key_is_the_same_record_unless_the_header_is_strict,
    without_a_key_the_route_decides,
    another_principal_has_its_own_run,
    patch_twice_is_one_run,
    a_4xx_and_a_5xx_are_replayed,
    a_5xx_that_is_not_stored_runs_again,
    a_204_is_replayed_bare,
    kill_after_the_200_and_start_again,
    a_ttl_out_of_bounds_ends_the_start,
    registrations_that_fail_for_good_run_nothing,
];

fn pay() -> Ask {
    ask("POST", "/pay", "k1")
}

fn twice_is_one_run_and_a_replay(kind: Kind) {
    let server = Server::start(kind, &[]);
    let first = server.send(&pay()).executed(200).answers(&pay(), "POST /pay", 1);
    server.send(&pay()).replays(&first).answers(&pay(), "POST /pay", 1);
    assert_eq!(server.started(), 1);
}

fn ten_in_parallel_are_one_run(kind: Kind) {
    let server = Server::start(kind, &[]);
    let ask = pay().target("/pay?sleep=200");
    let all: Vec<_> = (0..10).map(|_| server.spawn(&ask)).collect();
    let replies: Vec<_> = all.into_iter().map(crate::support::Pending::reply).collect();
    assert_eq!(replies.iter().filter(|reply| reply.status == 200 && !reply.is_replay()).count(), 1, "{replies:?}");
    assert_eq!(server.started(), 1);
}

fn another_body_is_refused_and_the_first_still_replays(kind: Kind) {
    let server = Server::start(kind, &[]);
    let first = server.send(&pay()).executed(200);
    server.send(&pay().body(r#"{"amt":2}"#)).refused(MISMATCH);
    server.send(&pay()).replays(&first);
    assert_eq!(server.started(), 1);
}

fn in_the_ietf_profile_a_mismatch_is_422(kind: Kind) {
    let server = Server::start(kind, &["--profile", "ietf"]);
    let first = server.send(&pay()).executed(200);
    server.send(&pay().body(r#"{"amt":2}"#)).refused(MISMATCH_IETF);
    server.send(&pay()).replays(&first);
}

fn a_bare_key_is_the_same_record_unless_the_header_is_strict(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let bare = pay().without("idempotency-key").raw_key("k1");
    let first = server.send(&pay()).executed(200);
    server.send(&bare).replays(&first);
    server.restart(&["--strict-header"]);
    server.send(&bare).refused(INVALID);
    server.send(&pay()).replays(&first);
    assert_eq!(server.started(), 0);
}

fn without_a_key_the_route_decides(kind: Kind) {
    let server = Server::start(kind, &[]);
    server.send(&keyless("POST", "/pay")).refused(MISSING);
    for n in 1..=2 {
        let ask = keyless("POST", "/v1/pay");
        server.send(&ask).executed(200).answers(&ask, "POST /v1/pay", n);
    }
    assert_eq!(server.started(), 2);
    assert_eq!(server.records().records, []);
}

fn another_principal_has_its_own_run(kind: Kind) {
    let server = Server::start(kind, &[]);
    server.send(&pay()).executed(200).answers(&pay(), "POST /pay", 1);
    server.send(&pay().actor("b")).executed(200).answers(&pay().actor("b"), "POST /pay", 2);
}

fn patch_twice_is_one_run(kind: Kind) {
    let server = Server::start(kind, &[]);
    let patch = ask("PATCH", "/pay", "k1");
    let first = server.send(&patch).executed(200).answers(&patch, "PATCH /pay", 1);
    server.send(&patch).replays(&first);
    assert_eq!(server.started(), 1);
}

fn a_4xx_and_a_5xx_are_replayed(kind: Kind) {
    let server = Server::start(kind, &[]);
    for (n, status) in [(1, 402), (2, 500)] {
        let ask = ask("POST", &format!("/pay?status={status}"), &format!("k{status}"));
        let first = server.send(&ask).executed(status).answers(&ask, "POST /pay", n);
        server.send(&ask).replays(&first);
    }
    assert_eq!(server.started(), 2);
}

fn a_5xx_that_is_not_stored_runs_again(kind: Kind) {
    let server = Server::start(kind, &["--store-5xx", "no"]);
    let ask = pay().target("/pay?status=500");
    server.send(&ask).executed(500);
    server.send(&ask).executed(500);
    assert_eq!(server.started(), 2);
}

fn a_204_is_replayed_bare(kind: Kind) {
    let server = Server::start(kind, &[]);
    let ask = pay().target("/pay?status=204");
    for replayed in [false, true] {
        let reply = server.send(&ask);
        assert_eq!((reply.status, reply.body.len(), reply.is_replay()), (204, 0, replayed), "{reply:?}");
    }
    assert_eq!(server.started(), 1);
}

fn kill_after_the_200_and_start_again(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let first = server.send(&pay()).executed(200);
    server.restart(&[]);
    server.send(&pay()).replays(&first);
    assert_eq!(server.started(), 0);
}

fn a_ttl_out_of_bounds_ends_the_start(kind: Kind) {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("shop.redb");
    for ttl in ["299", "259201"] {
        let (status, stderr) = kind.run(&["--db", db.to_str().unwrap(), "--port", "0", "--ttl", ttl]);
        assert_eq!(status, Some(2), "{ttl}: {stderr}");
        assert!(!stderr.trim().is_empty(), "a message");
    }
    for ttl in ["300", "259200"] {
        Server::start(kind, &["--ttl", ttl]).send(&pay()).executed(200);
    }
}

fn registrations_that_fail_for_good_run_nothing(kind: Kind) {
    let server = Server::start(kind, &[]);
    server.fault("on=admit&fails=1000000");
    server.send(&pay()).refused(STORE);
    assert_eq!(server.started(), 0);
}
