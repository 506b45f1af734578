//! Section 3: every code once, with status, members in order, Retry-After; and what a refusal may tell.

use crate::support::problem::{
    BUSY, BUSY_SCOPE, EXPIRED, EXPIRED_IETF, IN_DOUBT, IN_FLIGHT, INVALID, MISMATCH, MISMATCH_IETF, MISSING,
    NO_PRINCIPAL, NOT_KEPT, QUARANTINED, STORE, TOO_LARGE, UNKNOWN,
};
use crate::support::{Ask, Kind, Reply, Server, Wire, ask, both, keyless, wait_until};

both![every_code_in_the_classic_profile_tells_nothing_but_itself, only_two_statuses_differ_in_the_ietf_profile];

const CANARIES: [&str; 4] = ["canary-key-7f3a", "canary-actor-91c2", "canary-body-55d0", "canary-header-08be"];

/// Makes every refusal there is, with canaries in key, principal, request and answer.
fn every_refusal(kind: Kind) -> Vec<Reply> {
    let flags = ["--profile", "classic", "--ttl", "300", "--on-expired", "refuse", "--max-in-flight-per-scope", "2"];
    let server = Server::start(kind, &[&flags[..], &["--max-in-flight", "3"]].concat());
    server.freeze();
    let [key, actor, body, header] = CANARIES;
    let to = |target: &str, id: &str| {
        let target = format!("{target}&header=X-Canary:{header}");
        ask("POST", &target, &format!("{key}-{id}")).actor(actor).body(body)
    };
    let plain = to("/pay?status=200", "1");
    let mut refusals = vec![
        Wire::send(&server, &plain.clone().without("idempotency-key")).refused(MISSING),
        Wire::send(&server, &plain.clone().raw_key(format!("{key}-1"))).refused(INVALID),
        Wire::send(&server, &plain.clone().without("x-actor")).refused(NO_PRINCIPAL),
        Wire::send(&server, &plain.clone().body(body.repeat(10_000))).refused(TOO_LARGE),
        server.send(&to("/pay?panic=1", "2")).refused(UNKNOWN),
        server.send(&to("/pay?as=in_doubt", "3")).refused(IN_DOUBT),
    ];
    server.send(&plain).executed(200);
    refusals.push(server.send(&plain.clone().body("other")).refused(MISMATCH));
    server.send(&to("/pay?bytes=70000", "4")).executed(200);
    refusals.push(server.send(&to("/pay?bytes=70000", "4")).refused(NOT_KEPT));
    let slow: Vec<_> = (5..7).map(|n| to("/pay?sleep=800", &n.to_string())).collect();
    let started = server.started();
    let running: Vec<_> = slow.iter().map(|ask| server.spawn(ask)).collect();
    server.wait_started(started + 2);
    refusals.push(server.send(&slow[0]).refused(IN_FLIGHT));
    refusals.push(server.send(&to("/pay?status=200", "7")).refused(BUSY_SCOPE));
    let third = server.spawn(&to("/pay?sleep=500", "8").actor("else"));
    server.wait_started(started + 3);
    refusals.push(server.send(&to("/pay?status=200", "9").actor("other")).refused(BUSY));
    running.into_iter().chain([third]).for_each(|pending| drop(pending.reply().executed(200)));
    refusals.extend(late_refusals(&server, &plain, &to("/pay?status=200", "10")));
    refusals
}

/// What expiry, a store that is down, and a damaged record refuse.
fn late_refusals(server: &Server, plain: &Ask, new: &Ask) -> Vec<Reply> {
    server.advance(300_000);
    let expired = server.send(plain).refused(EXPIRED);
    server.fault("on=admit&fails=1000000");
    let unavailable = server.send(new).refused(STORE);
    server.send_healed(new).executed(200);
    let newest = server.records().records.into_iter().next_back().unwrap();
    wait_until("no actor", || server.records().actors == 0);
    server.corrupt(&newest.key_hash);
    vec![expired, unavailable, server.send(new).refused(QUARANTINED)]
}

fn every_code_in_the_classic_profile_tells_nothing_but_itself(kind: Kind) {
    let refusals = every_refusal(kind);
    assert_eq!(refusals.len(), 14);
    for refusal in &refusals {
        let whole = format!("{:?} {}", refusal.headers, String::from_utf8_lossy(&refusal.body));
        let bytes: Vec<u8> = refusal.headers.iter().flat_map(|(_, value)| value.clone()).collect();
        let values = String::from_utf8_lossy(&bytes).into_owned();
        for canary in CANARIES {
            assert!(!whole.contains(canary) && !values.contains(canary), "{canary} in {refusal:?}");
        }
    }
    let server = Server::start(kind, &[]);
    let missing = server.send(&keyless("POST", "/pay")).refused(MISSING);
    assert_eq!(missing.body, refusals[0].body, "the same refusal in the same words");
}

fn only_two_statuses_differ_in_the_ietf_profile(kind: Kind) {
    let flags = ["--profile", "ietf", "--ttl", "300", "--on-expired", "refuse", "--max-in-flight-per-scope", "1"];
    let server = Server::start(kind, &flags);
    server.freeze();
    let plain = ask("POST", "/pay", "plain");
    Wire::send(&server, &plain.clone().without("idempotency-key")).refused(MISSING);
    Wire::send(&server, &plain.clone().without("x-actor")).refused(NO_PRINCIPAL);
    server.send(&plain).executed(200);
    server.send(&plain.clone().body("another")).refused(MISMATCH_IETF);
    let long = ask("POST", "/pay?bytes=70000", "long");
    server.send(&long).executed(200);
    server.send(&long).refused(NOT_KEPT);
    let slow = ask("POST", "/pay?sleep=500", "slow");
    let running = server.spawn(&slow);
    server.wait_started(3);
    server.send(&slow).refused(IN_FLIGHT);
    server.send(&slow.clone().body("another")).refused(MISMATCH_IETF);
    server.send(&ask("POST", "/pay", "new")).refused(BUSY_SCOPE);
    running.reply().executed(200);
    server.advance(300_000);
    server.send(&plain).refused(EXPIRED_IETF);
}
