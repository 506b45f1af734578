//! R20, R21, R29, R7: a store that fails before the effect, after it, or says so although it has written; damaged records.

use crate::support::problem::{IN_DOUBT, IN_FLIGHT, MISMATCH, NOT_KEPT, QUARANTINED, STORE, UNKNOWN};
use crate::support::{Ask, Kind, Server, ask, both, wait_for, wait_until};

both![
    a_store_that_is_down_before_the_effect_runs_nothing,
    a_few_failed_tries_are_not_seen,
    a_failed_finish_is_answered_from_memory_and_saved_later,
    an_unsaved_answer_is_in_doubt_when_the_process_dies,
    a_write_that_is_reported_as_failed_is_read_back,
    finished_answers_are_served_while_the_store_is_down,
    an_end_without_a_kept_answer_survives_a_failed_finish,
    a_damaged_record_is_quarantined_and_never_run,
    a_damaged_record_in_doubt_is_quarantined_as_well,
];

const ROUTE: &str = "POST /pay";
const FOR_GOOD: &str = "fails=1000000";

fn pay(key: &str) -> Ask {
    ask("POST", "/pay", key)
}

fn a_store_that_is_down_before_the_effect_runs_nothing(kind: Kind) {
    let server = Server::start(kind, &[]);
    let asks = ["/pay", "/refund", "/v1/pay", "/v2/pay"].map(|path| ask("POST", path, "k"));
    server.fault(&format!("on=admit&{FOR_GOOD}"));
    let all = asks.clone().map(|ask| server.spawn(&ask));
    for pending in all {
        pending.reply().refused(STORE);
    }
    assert_eq!((server.counts().started, server.counts().effects), (0, 0));
    assert_eq!(server.records().records, []);
    server.wait_metric("ambiguous_count", ROUTE, 1.0);
    server.wait_metric("inflight_gauge", ROUTE, 0.0);
    for ask in &asks {
        let first = server.send_healed(ask).executed(200);
        server.send(ask).replays(&first);
    }
    assert_eq!(server.started(), 4);
}

fn a_few_failed_tries_are_not_seen(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    server.fault("on=admit&fails=2");
    let first = server.send(&pay("k1")).executed(200);
    server.fault("on=finish&fails=2");
    let second = server.send(&pay("k2")).executed(200);
    server.fault("on=any&fails=1");
    let third = server.send(&pay("k3")).executed(200);
    assert_eq!(server.started(), 3);
    assert_eq!(server.metrics().of_route("storage_failure_total", ROUTE), 0.0);
    assert_eq!(server.metrics().of_route("unsaved_gauge", ROUTE), 0.0);
    server.restart(&[]);
    for (key, first) in [("k1", first), ("k2", second), ("k3", third)] {
        server.send(&pay(key)).replays(&first);
    }
    assert_eq!(server.started(), 0);
}

fn a_failed_finish_is_answered_from_memory_and_saved_later(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    server.fault(&format!("on=finish&{FOR_GOOD}"));
    let ask = ask("POST", "/refund", "k");
    let first = server.spawn(&ask);
    server.wait_finished(1);
    // While the store is tried again, the key counts as running.
    server.send(&ask).refused(IN_FLIGHT);
    let first = first.reply().executed(200).answers(&ask, "POST /refund", 1);
    for _ in 0..3 {
        server.send(&ask).replays(&first);
    }
    server.send(&ask.clone().body("another")).refused(MISMATCH);
    assert_eq!(server.record().state, "unsaved");
    let metrics = server.metrics();
    let of = |name: &str| metrics.of_route(name, "POST /refund");
    assert_eq!((of("storage_failure_total"), of("unsaved_gauge"), of("inflight_gauge")), (1.0, 1.0, 0.0));
    assert_eq!(server.started(), 1);
    server.fault("on=finish&fails=0");
    server.wait_state("completed");
    server.wait_metric("unsaved_gauge", "POST /refund", 0.0);
    server.send(&ask).replays(&first);
    assert_eq!(server.metrics().of_route("storage_failure_total", "POST /refund"), 1.0, "counted once per answer");
    server.restart(&[]);
    server.send(&ask).replays(&first);
    assert_eq!(server.started(), 0);
}

fn an_unsaved_answer_is_in_doubt_when_the_process_dies(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    server.fault(&format!("on=finish&{FOR_GOOD}"));
    let (pay, refund) = (pay("k"), ask("POST", "/refund", "k"));
    let (paid, refunded) = (server.spawn(&pay), server.spawn(&refund));
    paid.reply().executed(200);
    refunded.reply().executed(200);
    server.restart(&[]);
    server.send(&pay).refused(IN_DOUBT);
    let recovered = server.send(&refund);
    assert_eq!(recovered.text(), r#"{"route":"POST /refund","n":1,"recovered":true}"#, "{recovered:?}");
    assert_eq!(server.started(), 0);
}

fn a_write_that_is_reported_as_failed_is_read_back(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let mut firsts = Vec::new();
    for (n, on) in (1..).zip(["admit", "finish", "any"]) {
        server.fault(&format!("on={on}&fails=1&fate=written"));
        let first = server.send(&pay(on)).executed(200);
        assert_eq!(first.n(), n, "it ran once");
        server.send(&pay(on)).replays(&first);
        assert_eq!(server.started(), n);
        firsts.push((on, first));
    }
    server.restart(&[]);
    for (on, first) in firsts {
        server.send(&pay(on)).replays(&first);
    }
    assert_eq!(server.started(), 0);
}

/// In the instant in which the store is opened anew, a record cannot be read: such a 503 is sent again.
fn finished_answers_are_served_while_the_store_is_down(kind: Kind) {
    let server = Server::start(kind, &[]);
    let first = server.send(&pay("k")).executed(200);
    server.fault(&format!("on=any&{FOR_GOOD}"));
    let refused = server.spawn(&pay("new"));
    let answered = |ask: &Ask| wait_for("an answer", || Some(server.send(ask)).filter(|reply| reply.status != 503));
    for _ in 0..5 {
        answered(&pay("k")).replays(&first);
        answered(&pay("k").body("another")).refused(MISMATCH);
    }
    refused.reply().refused(STORE);
    answered(&pay("k")).replays(&first);
    assert_eq!(server.started(), 1);
}

fn an_end_without_a_kept_answer_survives_a_failed_finish(kind: Kind) {
    let server = Server::start(kind, &[]);
    server.fault(&format!("on=finish&{FOR_GOOD}"));
    let (long, panics) = (ask("POST", "/pay?bytes=70000", "long"), ask("POST", "/pay?panic=2", "panics"));
    let (whole, stored) = (server.spawn(&long), server.spawn(&panics));
    assert_eq!(whole.reply().executed(200).body.len(), 70_000);
    let stored = stored.reply().refused(UNKNOWN);
    for _ in 0..2 {
        assert_eq!(server.send(&long).refused(NOT_KEPT).original_status(), 200);
        server.send(&panics).problem(UNKNOWN).replays(&stored);
    }
    server.fault("on=finish&fails=0");
    server.wait_metric("unsaved_gauge", ROUTE, 0.0);
    assert_eq!(server.send(&long).refused(NOT_KEPT).original_status(), 200);
    server.send(&panics).problem(UNKNOWN).replays(&stored);
    assert_eq!((server.counts().started, server.counts().effects), (2, 2));
    assert_eq!(server.metrics().of_route("storage_failure_total", ROUTE), 2.0);
}

fn a_damaged_record_is_quarantined_and_never_run(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    server.send(&pay("damaged")).executed(200);
    let record = server.record();
    let whole = server.send(&pay("whole")).executed(200);
    server.corrupt(&record.key_hash);
    for process in 0..2 {
        for _ in 0..2 {
            server.send(&pay("damaged")).refused(QUARANTINED);
        }
        server.send(&pay("whole")).replays(&whole);
        server.send(&pay(&format!("new{process}"))).executed(200);
        assert!(server.metrics().get("idempotency_quarantined_count") >= 1.0);
        // A later process cannot read what the row needs: whether it lists one is not said.
        let records = server.records().records;
        let quarantined = records.iter().filter(|record| record.state == "quarantined").count();
        assert!(quarantined == 1 || process > 0, "{records:?}");
        assert_eq!(server.counts().routes[ROUTE], if process == 0 { 3 } else { 1 });
        server.restart(&[]);
    }
    // Nor does time make it run.
    server.freeze();
    server.advance(200 * 3_600_000);
    server.send(&pay("damaged")).refused(QUARANTINED);
    assert_eq!(server.started(), 0);
}

fn a_damaged_record_in_doubt_is_quarantined_as_well(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let asks = ["/pay?as=in_doubt", "/refund?panic=1", "/v2/pay?as=in_doubt"].map(|target| ask("POST", target, "k"));
    for ask in &asks {
        server.send(ask).refused(IN_DOUBT);
    }
    wait_until("no actor", || server.records().actors == 0);
    for record in server.records().records {
        server.corrupt(&record.key_hash);
    }
    server.restart(&[]);
    for ask in &asks {
        server.send(ask).refused(QUARANTINED);
    }
    assert_eq!(server.started(), 0);
    wait_until("no actor", || server.records().actors == 0);
}
