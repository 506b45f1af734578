//! SIGTERM: what runs ends and is answered, the file is closed, the exit status is 0.

use crate::support::{Kind, Server, Wire, ask, both};

both![a_running_handler_is_drained, an_idle_server_ends_at_once, a_finished_answer_survives_a_sigterm_right_after_it,];

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
