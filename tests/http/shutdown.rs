//! SIGTERM: what runs ends and is answered, the file is closed, the exit status is 0.

use crate::support::problem::IN_DOUBT;
use crate::support::{Kind, Server, Wire, ask, both};

both![
    a_running_handler_is_drained,
    an_idle_server_ends_at_once,
    what_does_not_end_in_10_s_is_left_in_doubt,
    a_finished_answer_survives_a_sigterm_right_after_it,
];

fn a_running_handler_is_drained(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let ask = ask("POST", "/refund?sleep=700", "k");
    let pending = server.spawn(&ask);
    let lost = crate::support::ask("POST", "/refund?sleep=700", "lost");
    let wire = Wire::open(&server).say(&lost.bytes());
    server.wait_started(2);
    drop(wire);
    server.terminate();
    let first = pending.reply().executed(200);
    assert_eq!(server.ended().code(), Some(0));
    server.restart(&[]);
    server.send(&ask).replays(&first);
    // Its client had gone: it was drained all the same.
    let other = server.send(&lost);
    assert!(other.is_replay() && other.json().get("recovered").is_none(), "{other:?}");
    assert_eq!(server.started(), 0);
}

fn an_idle_server_ends_at_once(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    // A connection that is kept open and says nothing holds up nobody.
    let mut idle = Wire::open(&server).say(&ask("POST", "/pay", "k").bytes());
    let first = idle.reply().unwrap().executed(200);
    server.terminate();
    assert_eq!(server.ended().code(), Some(0));
    server.restart(&[]);
    server.send(&ask("POST", "/pay", "k")).replays(&first);
}

fn what_does_not_end_in_10_s_is_left_in_doubt(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    let ask = ask("POST", "/pay?sleep=35000", "k");
    let pending = server.spawn(&ask);
    server.wait_started(1);
    server.terminate();
    assert_eq!(server.ended().code(), Some(0));
    if let Ok(reply) = pending.outcome() {
        assert!(reply.status >= 500 && !reply.is_replay(), "{reply:?}");
    }
    server.restart(&[]);
    server.send(&ask).refused(IN_DOUBT);
    assert_eq!(server.started(), 0);
}

fn a_finished_answer_survives_a_sigterm_right_after_it(kind: Kind) {
    let mut server = Server::start(kind, &[]);
    for round in 0..3 {
        let ask = ask("POST", "/pay", &format!("k{round}"));
        let first = server.send(&ask).executed(200);
        server.terminate();
        assert_eq!(server.ended().code(), Some(0));
        server.restart(&[]);
        server.send(&ask).replays(&first);
    }
}
