//! R19, R7: SIGKILL before, during and after the handler, and another process over the same file.

use crate::support::ask::escaped;
use crate::support::problem::{IN_DOUBT, IN_FLIGHT, MISMATCH};
use crate::support::{Ask, Kind, Pending, Reply, Server, ask, both, wait_for};

both![
    every_finished_record_replays_byte_for_byte_in_the_next_process,
    a_pay_killed_in_the_handler_stays_in_doubt,
    a_refund_killed_after_its_effect_is_ended_by_the_journal,
    a_refund_killed_before_its_effect_cannot_be_told,
    a_v2_pay_killed_in_the_handler_is_run_by_a_retry,
    a_v2_pay_killed_again_and_again_is_run_again,
    retries_of_a_killed_v2_pay_run_one_at_a_time,
    many_killed_at_once_each_end_by_their_route,
    a_kill_at_any_moment_of_a_run_runs_nothing_twice,
];

fn every_finished_record_replays_byte_for_byte_in_the_next_process(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let bytes = format!("/pay?header={}", escaped(b"X-B:\xff\x80"));
    let targets =
        ["/pay", "/pay?status=402", "/pay?status=500", "/pay?bytes=60000", bytes.as_str(), "/refund", "/v1/pay"];
    let asks: Vec<_> = targets.iter().enumerate().map(|(n, target)| ask("POST", target, &format!("k{n}"))).collect();
    let firsts: Vec<_> = asks.iter().map(|ask| server.send(ask)).collect();
    let records = server.records().records;
    for _ in 0..2 {
        server.restart(&[]);
        for (ask, first) in asks.iter().zip(&firsts) {
            let again = server.send(ask).replays(first);
            assert_eq!(again.values("x-b"), first.values("x-b"));
            server.send(&ask.clone().body("another")).refused(MISMATCH);
        }
        assert_eq!((server.started(), server.records().records), (0, records.clone()));
    }
}

/// Sends `ask` and kills the server once this much has happened.
fn killed_once(server: &mut Server, ask: &Ask, happened: impl Fn(&Server) -> bool) {
    let pending = server.spawn(ask);
    crate::support::wait_until("the moment of the kill", || happened(server));
    server.kill();
    let outcome = pending.outcome();
    assert!(outcome.is_err(), "the client got no answer: {outcome:?}");
}

fn started(server: &Server) -> bool {
    server.started() == 1
}

fn a_pay_killed_in_the_handler_stays_in_doubt(kind: Kind) {
    for (target, effects) in [("/pay?sleep=20000", 0), ("/pay?sleep_after=20000", 1)] {
        let mut server = Server::start(kind, &[]);
        let ask = ask("POST", target, "k");
        killed_once(&mut server, &ask, |server| server.counts().effects == effects && started(server));
        for _ in 0..2 {
            server.restart(&[]);
            for _ in 0..2 {
                let refused = server.send(&ask).refused(IN_DOUBT);
                assert_eq!(refused.state(), "in_doubt");
            }
            server.send(&ask.clone().body("another")).refused(MISMATCH);
            let record = server.record();
            assert_eq!((record.state.as_str(), record.expires_ms), ("in_doubt", None));
            server.wait_metric("in_doubt_gauge", "POST /pay", 1.0);
            server.wait_metric("inflight_gauge", "POST /pay", 0.0);
            assert_eq!(server.started(), 0);
        }
        server.send(&crate::support::ask("POST", "/pay", "another")).executed(200);
    }
}

const RECOVERED: &str = r#"{"route":"POST /refund","n":1,"recovered":true}"#;

fn a_refund_killed_after_its_effect_is_ended_by_the_journal(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let ask = ask("POST", "/refund?sleep_after=20000", "k");
    // The effect is counted before its line is written.
    killed_once(&mut server, &ask, |server| server.journal().ends_with('\n'));
    let journal = server.journal();
    let (token, n) = journal.trim_end().split_once(' ').unwrap_or_else(|| panic!("one line: {journal}"));
    assert_eq!((token.len(), n), (64, "1"), "{journal}");
    assert!(token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
    server.restart(&[]);
    // Asked before the server said that it listens: the first retry has the answer.
    let recovered = server.send(&ask);
    assert_eq!((recovered.status, recovered.text()), (200, RECOVERED), "{recovered:?}");
    assert_eq!(recovered.header("content-type"), Some("application/json"));
    assert!(recovered.is_replay(), "nothing ran for it: {recovered:?}");
    server.send(&ask).replays(&recovered);
    server.send(&ask.clone().body("another")).refused(MISMATCH);
    let record = server.record();
    assert_eq!((record.state.as_str(), server.started()), ("completed", 0));
    server.restart(&[]);
    server.send(&ask).replays(&recovered);
    assert_eq!((server.started(), server.journal()), (0, journal));
}

fn a_refund_killed_before_its_effect_cannot_be_told(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let ask = ask("POST", "/refund?sleep=20000", "k");
    killed_once(&mut server, &ask, started);
    for _ in 0..2 {
        server.restart(&[]);
        assert_eq!(server.send(&ask).refused(IN_DOUBT).state(), "in_doubt");
        assert_eq!((server.started(), server.record().state.as_str()), (0, "in_doubt"));
    }
    assert_eq!(server.journal(), "");
}

fn a_v2_pay_killed_in_the_handler_is_run_by_a_retry(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let ask = ask("POST", "/v2/pay?sleep=1200", "k");
    killed_once(&mut server, &ask, started);
    server.restart(&[]);
    assert_eq!(server.started(), 0, "nobody retried, nothing runs");
    server.send(&ask.clone().body("another")).refused(MISMATCH);
    let first = server.send(&ask).executed(200).answers(&ask, "POST /v2/pay", 1);
    server.send(&ask).replays(&first);
    let record = server.record();
    assert_eq!((record.state.as_str(), record.attempt, server.started()), ("completed", 2, 1));
    let ran: Vec<_> = server.wait_events(3).into_iter().filter(|event| event.outcome == "executed").collect();
    assert_eq!(ran.iter().map(|event| event.attempt).collect::<Vec<_>>(), [Some(2)]);
    server.restart(&[]);
    server.send(&ask).replays(&first);
}

fn a_v2_pay_killed_again_and_again_is_run_again(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let ask = ask("POST", "/v2/pay?sleep=1200", "k");
    for _ in 0..3 {
        killed_once(&mut server, &ask, started);
        server.restart(&[]);
    }
    let first = server.send(&ask).executed(200);
    let record = server.record();
    assert_eq!((record.state.as_str(), record.attempt), ("completed", 4));
    server.restart(&[]);
    server.send(&ask).replays(&first);
    assert_eq!(server.started(), 0);
}

fn retries_of_a_killed_v2_pay_run_one_at_a_time(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let ask = ask("POST", "/v2/pay?sleep=1200", "k");
    killed_once(&mut server, &ask, started);
    server.restart(&[]);
    let all: Vec<_> = (0..10).map(|_| server.spawn(&ask)).collect();
    let replies: Vec<Reply> = all.into_iter().map(Pending::reply).collect();
    let first = replies.iter().find(|reply| reply.status == 200 && !reply.is_replay()).cloned().expect("one ran");
    for reply in replies.into_iter().filter(|reply| *reply != first) {
        match reply.status {
            200 => drop(reply.replays(&first)),
            _ => drop(reply.refused(IN_FLIGHT)),
        }
    }
    assert_eq!(server.started(), 1);
}

fn many_killed_at_once_each_end_by_their_route(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let of = |path: &str, n: usize| ask("POST", &format!("{path}?sleep_after=20000"), &format!("k{n}"));
    let paths = ["/pay", "/refund", "/v1/pay"];
    let asks: Vec<_> = (0..30).map(|n| (paths[n % 3], of(paths[n % 3], n))).collect();
    let pending: Vec<_> = asks.iter().map(|(_, ask)| server.spawn(ask)).collect();
    let done = |server: &Server| server.counts().effects == 30 && server.journal().lines().count() == 10;
    crate::support::wait_until("the effects", || done(&server) && server.journal().ends_with('\n'));
    server.kill();
    assert!(pending.into_iter().all(|pending| pending.outcome().is_err()));
    server.restart(&[]);
    let mut recovered: Vec<_> = Vec::new();
    for (path, ask) in &asks {
        let reply = server.send(ask);
        match *path {
            "/refund" => recovered.push(reply.n()),
            _ => drop(reply.refused(IN_DOUBT)),
        }
    }
    recovered.sort_unstable();
    assert_eq!(recovered, (1..=10).collect::<Vec<u64>>());
    assert_eq!(server.started(), 0);
    server.wait_metric("in_doubt_gauge", "POST /pay", 10.0);
    server.wait_metric("in_doubt_gauge", "POST /refund", 0.0);
}

/// Whatever the moment, the next process knows the run: it replays, or it is in doubt, or the request never came to it.
fn a_kill_at_any_moment_of_a_run_runs_nothing_twice(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    for round in 0..12_usize {
        let ask = ask("POST", "/refund", &format!("k{round}"));
        let pending = server.spawn(&ask);
        // The answers to these requests pass the time, a little more in every round.
        for _ in 0..round {
            server.get("/count");
        }
        server.kill();
        let first = pending.outcome();
        let before = server.journal();
        server.restart(&[]);
        let retry = wait_for("the end", || Some(server.send(&ask)).filter(|reply| reply.status != 409));
        match first {
            Ok(first) => drop(retry.replays(&first)),
            Err(_) if retry.status == 200 && retry.is_replay() => assert_eq!(server.started(), 0),
            Err(_) if retry.status == 200 => assert_eq!(server.journal().lines().count(), before.lines().count() + 1),
            Err(_) => drop(retry.refused(IN_DOUBT)),
        }
        let lines = server.journal().lines().count();
        assert!(lines <= round + 1, "one effect per key: {lines} after {round}");
        server.send(&ask);
        assert_eq!(server.journal().lines().count(), lines);
    }
}
