//! R22, the answer's side: what is kept, what is too long or has no end, and who gets it.

use crate::support::problem::{MISMATCH, NOT_KEPT};
use crate::support::{Kind, Server, Wire, ask, both, wait_until};

both![
    an_answer_at_the_limit_is_kept_and_one_over_is_not,
    the_limit_is_a_flag,
    a_stream_reaches_its_client_as_it_comes_and_is_not_kept,
    whoever_has_the_head_of_a_long_answer_can_count_on_its_record,
    a_stream_that_loses_its_client_is_still_finished,
];

fn pattern(count: u32) -> Vec<u8> {
    (0..count).map(|at| ((7 + 31 * u64::from(at)) % 256) as u8).collect()
}

fn an_answer_at_the_limit_is_kept_and_one_over_is_not(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let (fits, over) = (ask("POST", "/pay?bytes=65536", "fits"), ask("POST", "/pay?bytes=65537&status=201", "over"));
    let first = server.send(&fits).executed(200);
    assert_eq!(first.body, pattern(65_536));
    let whole = server.send(&over).executed(201);
    assert_eq!(whole.body, pattern(65_537), "the first client gets it whole");
    let large = ask("POST", "/pay?bytes=3000000", "large");
    assert_eq!(server.send(&large).executed(200).body, pattern(3_000_000));
    for process in ["the same", "the next"] {
        println!("{process} process");
        server.send(&fits).replays(&first);
        for _ in 0..2 {
            assert_eq!(server.send(&over).refused(NOT_KEPT).original_status(), 201);
        }
        assert_eq!(server.send(&large).refused(NOT_KEPT).original_status(), 200);
        server.send(&over.clone().body("another")).refused(MISMATCH);
        assert_eq!(server.started(), if process == "the same" { 3 } else { 0 });
        server.wait_metric("duplicate_count", "POST /pay", 3.0);
        server.restart(&[]);
    }
}

fn the_limit_is_a_flag(kind: Kind) {
    let server = Server::start(kind, &["--max-answer", "1000"]);
    for (bytes, kept) in [(999, true), (1_000, true), (1_001, false)] {
        let ask = ask("POST", &format!("/pay?bytes={bytes}"), &format!("k{bytes}"));
        let first = server.send(&ask).executed(200);
        assert_eq!(first.body, pattern(bytes));
        let again = server.send(&ask);
        match kept {
            true => drop(again.replays(&first)),
            false => drop(again.refused(NOT_KEPT)),
        }
    }
    let wide = Server::start(kind, &["--max-answer", "200000"]);
    let ask = ask("POST", "/pay?bytes=200000", "k");
    let first = wide.send(&ask).executed(200);
    wide.send(&ask).replays(&first);
}

/// Reads pieces until this many bytes have come, which are all `x`.
#[track_caller]
fn read_stream(wire: &mut Wire, bytes: usize) {
    let mut read = 0;
    while read < bytes {
        let chunk = wire.chunk().expect("a stream without end");
        assert!(chunk.iter().all(|byte| *byte == b'x'));
        read += chunk.len();
    }
}

fn a_stream_reaches_its_client_as_it_comes_and_is_not_kept(kind: Kind) {
    let mut server = Server::start(kind, &["--max-answer", "8192"]);
    let ask = ask("POST", "/pay?stream=1&status=202", "k");
    let mut wire = Wire::open(&server).say(&ask.bytes());
    let head = wire.head().expect("a head");
    assert_eq!((head.status, head.header("content-length"), head.is_replay()), (202, None, false));
    read_stream(&mut wire, 100_000);
    assert_eq!(server.send(&ask).refused(NOT_KEPT).original_status(), 202);
    let record = server.record();
    assert_eq!((record.state.as_str(), record.attempt), ("completed", 1));
    read_stream(&mut wire, 100_000);
    server.restart(&[]);
    assert_eq!(server.send(&ask).refused(NOT_KEPT).original_status(), 202);
    assert_eq!(server.started(), 0);
}

/// First the record, then the answer: a kill after its first byte leaves nothing in doubt.
fn whoever_has_the_head_of_a_long_answer_can_count_on_its_record(kind: Kind) {
    for query in ["bytes=70000&status=201", "stream=1&status=201"] {
        let mut server = Server::start(kind, &["--max-answer", "1000"]);
        let ask = ask("POST", &format!("/pay?{query}"), "k");
        let mut wire = Wire::open(&server).say(&ask.bytes());
        let head = wire.head();
        server.kill();
        assert_eq!(head.expect("a head").status, 201);
        server.restart(&[]);
        assert_eq!(server.send(&ask).refused(NOT_KEPT).original_status(), 201);
        assert_eq!(server.started(), 0);
    }
}

fn a_stream_that_loses_its_client_is_still_finished(kind: Kind) {
    let server = Server::start(kind, &[]);
    // One leaves before the head, one in the middle of the stream.
    let (early, late) = (ask("POST", "/pay?stream=1", "early"), ask("POST", "/pay?stream=1", "late"));
    let wire = Wire::open(&server).say(&early.bytes());
    server.wait_started(1);
    drop(wire);
    let mut wire = Wire::open(&server).say(&late.bytes());
    assert_eq!(wire.head().expect("a head").status, 200);
    read_stream(&mut wire, 20_000);
    drop(wire);
    wait_until("both to be finished", || server.records().records.iter().all(|record| record.state == "completed"));
    for ask in [early, late] {
        assert_eq!(server.send(&ask).refused(NOT_KEPT).original_status(), 200);
    }
    assert_eq!(server.started(), 2);
    server.wait_metric("inflight_gauge", "POST /pay", 0.0);
    wait_until("no actor", || server.records().actors == 0);
}
