//! The page's two limits of ten seconds, waited for at the same time: an answer that does not end (R22), and a handler that
//! does not end after SIGTERM (section 6).

use crate::support::problem::{IN_DOUBT, NOT_KEPT};
use crate::support::{Kind, Server, Wire, ask, both};

both![what_has_not_ended_after_10_s];

fn what_has_not_ended_after_10_s(kind: Kind) {
    // Two megabytes come in that time, far below the limit.
    let streams = Server::start(kind, &["--max-answer", "8388608"]);
    let stream = ask("POST", "/pay?stream=1", "k");
    let mut wire = Wire::open(&streams).say(&stream.bytes());
    let mut stops = Server::start(kind, &[]);
    let long = ask("POST", "/pay?sleep=35000", "k");
    let pending = stops.spawn(&long);
    stops.wait_started(1);
    stops.terminate();

    assert_eq!(stops.ended().code(), Some(0));
    if let Ok(reply) = pending.outcome() {
        assert!(reply.status >= 500 && !reply.is_replay(), "{reply:?}");
    }
    stops.restart(&[]);
    stops.send(&long).refused(IN_DOUBT);
    assert_eq!(stops.started(), 0);

    assert_eq!(wire.head().expect("a head").status, 200);
    streams.wait_state("completed");
    for _ in 0..10 {
        let piece = wire.chunk().expect("a stream without end");
        assert!(piece.iter().all(|byte| *byte == b'x'));
    }
    assert_eq!(streams.send(&stream).refused(NOT_KEPT).original_status(), 200);
    assert_eq!(streams.started(), 1);
}
