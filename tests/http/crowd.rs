//! R12 with a thousand connections: one run, in both modes; and the bound of those who may wait.

use crate::support::problem::IN_FLIGHT;
use crate::support::{Kind, Reply, Server, Wire, ask, both};

both![a_thousand_connections_are_refused_but_one, a_thousand_connections_join_one_run, no_more_than_1024_wait];

/// `count` connections that send the same request at once, and their answers.
fn crowd(server: &Server, count: usize, sleep_ms: u64) -> Vec<Reply> {
    let bytes = ask("POST", &format!("/pay?sleep={sleep_ms}"), "k").bytes();
    let mut wires: Vec<_> = (0..count).map(|_| Wire::open(server)).collect();
    for wire in &mut wires {
        assert!(wire.write(&bytes));
    }
    wires.iter_mut().map(|wire| wire.reply().expect("an answer")).collect()
}

/// The one answer that was executed.
#[track_caller]
fn the_one_run(server: &Server, replies: &[Reply]) -> Reply {
    let ran: Vec<_> = replies.iter().filter(|reply| reply.status == 200 && !reply.is_replay()).collect();
    assert_eq!((ran.len(), server.started()), (1, 1), "{ran:?}");
    let record = server.wait_state("completed");
    assert_eq!(record.attempt, 1);
    server.wait_metric("inflight_gauge", "POST /pay", 0.0);
    server.wait_metric("executed_count", "POST /pay", 1.0);
    ran[0].clone()
}

fn a_thousand_connections_are_refused_but_one(kind: Kind) {
    let server = Server::start(kind, &[]);
    let replies = crowd(&server, 1_000, 1_500);
    let first = the_one_run(&server, &replies);
    let (late, refused): (Vec<_>, Vec<_>) =
        replies.into_iter().filter(|reply| *reply != first).partition(|reply| reply.status == 200);
    assert!(refused.len() > 100, "most came while it ran: {}", refused.len());
    assert_eq!(refused.len() + late.len(), 999);
    for reply in late {
        reply.replays(&first);
    }
    let duplicates = refused.len() as f64;
    for reply in refused {
        reply.refused(IN_FLIGHT);
    }
    server.wait_metric("duplicate_count", "POST /pay", duplicates);
    server.send(&ask("POST", "/pay?sleep=1500", "k")).replays(&first);
}

fn a_thousand_connections_join_one_run(kind: Kind) {
    let server = Server::start(kind, &["--on-running", "join"]);
    let replies = crowd(&server, 1_000, 1_000);
    let first = the_one_run(&server, &replies);
    for reply in replies.into_iter().filter(|reply| *reply != first) {
        reply.replays(&first);
    }
}

fn no_more_than_1024_wait(kind: Kind) {
    let server = Server::start(kind, &["--on-running", "join"]);
    let ask = ask("POST", "/pay?sleep=2500", "k");
    let mut wires: Vec<_> = (0..1_100).map(|_| Wire::open(&server)).collect();
    let first = server.spawn(&ask);
    server.wait_started(1);
    for wire in &mut wires {
        wire.write(&ask.bytes());
    }
    let replies: Vec<_> = wires.iter_mut().map(|wire| wire.reply().expect("an answer")).collect();
    let first = first.reply().executed(200);
    let (answered, refused): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.status == 200);
    for reply in answered {
        reply.replays(&first);
    }
    for reply in refused {
        reply.refused(IN_FLIGHT);
    }
    let events = server.wait_events(1_101);
    let count = |outcome: &str| events.iter().filter(|event| event.outcome == outcome).count();
    let counts = (count("joined"), count("duplicate"), count("replayed"));
    // Whether the one that runs is a waiter too is not said. None came when the run had ended.
    assert!((1_023..=1_024).contains(&counts.0) && counts.0 + counts.1 == 1_100, "{counts:?}");
    assert_eq!(server.started(), 1);
}
