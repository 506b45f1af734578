//! Section 4: counts per day, route and outcome, over expiry sweep, restart and the turn of the day.

use crate::support::problem::{IN_FLIGHT, MISMATCH};
use crate::support::{Kind, Server, ask, both};

both![
    the_sums_outlive_the_expiry_sweep_and_the_process,
    a_day_counts_for_seven_days,
    every_outcome_has_its_sum,
    a_kill_loses_no_more_than_the_last_second,
];

const DAY: u64 = 86_400_000;
const ROUTE: &str = "POST /pay";

fn the_sums_outlive_the_expiry_sweep_and_the_process(kind: Kind) {
    let mut server = Server::start(kind, &["--ttl", "300"]);
    server.freeze();
    for n in 0..5 {
        let ask = ask("POST", "/pay", &format!("k{n}"));
        server.send(&ask).executed(200);
        server.send(&ask);
        server.send(&ask);
    }
    server.wait_seven_days(ROUTE, "executed", 5.0);
    server.wait_seven_days(ROUTE, "replayed", 10.0);
    server.advance(600_000);
    assert_eq!(server.expiry_sweep(256), (5, false));
    assert_eq!(server.records().records, []);
    server.wait_seven_days(ROUTE, "executed", 5.0);
    server.terminate();
    assert_eq!(server.ended().code(), Some(0));
    server.restart(&[]);
    let metrics = server.metrics();
    assert_eq!((metrics.seven_days(ROUTE, "executed"), metrics.seven_days(ROUTE, "replayed")), (5.0, 10.0));
    assert_eq!(metrics.of_route("executed_count", ROUTE), 0.0, "the counters are the process's own");
    server.send(&ask("POST", "/pay", "new")).executed(200);
    server.wait_seven_days(ROUTE, "executed", 6.0);
}

fn a_day_counts_for_seven_days(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let now = server.freeze();
    // Noon, so that a day's step lands in the next day and nowhere near its edge.
    server.advance(DAY - now % DAY + DAY / 2);
    for day in 0..9_u32 {
        server.send(&ask("POST", "/pay", &format!("k{day}"))).executed(200);
        server.wait_seven_days(ROUTE, "executed", f64::from((day + 1).min(7)));
        server.advance(DAY);
    }
    // Today has none yet, and one more of the old days has gone.
    server.wait_seven_days(ROUTE, "executed", 6.0);
    for left in (0..6_u32).rev() {
        server.advance(DAY);
        server.wait_seven_days(ROUTE, "executed", f64::from(left));
    }
    server.send(&ask("POST", "/pay", "last")).executed(200);
    server.wait_seven_days(ROUTE, "executed", 1.0);
    // One millisecond before the day turns, and after.
    let now = server.freeze();
    server.advance(7 * DAY - now % DAY - 1);
    server.wait_seven_days(ROUTE, "executed", 1.0);
    server.advance(1);
    server.wait_seven_days(ROUTE, "executed", 0.0);
    // Written at this time, so that the next process knows the day.
    server.send(&ask("POST", "/pay", "mark")).executed(200);
    server.terminate();
    assert_eq!(server.ended().code(), Some(0));
    server.restart(&[]);
    server.wait_seven_days(ROUTE, "executed", 1.0);
}

fn every_outcome_has_its_sum(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let slow = ask("POST", "/pay?sleep=400", "slow");
    let running = server.spawn(&slow);
    server.wait_started(1);
    server.send(&slow).refused(IN_FLIGHT);
    running.reply().executed(200);
    server.send(&slow.clone().body("another")).refused(MISMATCH);
    server.send(&slow.clone().body("a third")).refused(MISMATCH);
    for _ in 0..3 {
        server.send(&ask("POST", "/pay?as=in_doubt", "doubt"));
    }
    let expected = [("replayed", 0.0), ("joined", 0.0), ("conflict", 2.0), ("duplicate", 1.0), ("ambiguous", 3.0)];
    for (outcome, count) in expected {
        server.wait_seven_days(ROUTE, outcome, count);
    }
    server.terminate();
    assert_eq!(server.ended().code(), Some(0));
    server.restart(&[]);
    for (outcome, count) in expected {
        assert_eq!(server.metrics().seven_days(ROUTE, outcome), count, "{outcome}");
    }
}

fn a_kill_loses_no_more_than_the_last_second(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let ask = ask("POST", "/pay", "k");
    server.send(&ask).executed(200);
    for _ in 0..4 {
        server.send(&ask);
    }
    // A handler that is not keyed lets a second and a half pass without a transaction of its own.
    assert_eq!(server.get("/pay?sleep=1500").status, 200);
    server.restart(&[]);
    let metrics = server.metrics();
    assert_eq!((metrics.seven_days(ROUTE, "executed"), metrics.seven_days(ROUTE, "replayed")), (1.0, 4.0));
}
