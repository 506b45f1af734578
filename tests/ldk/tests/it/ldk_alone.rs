//! LDK alone: each fact that ibid is there to correct, and each that it builds on.
//!
//! A test whose comment begins with a row has its twin in `send_payment`, and the two are a row of the table in the docs.

use std::thread;

use ibid_ldk::{Id, Invoice, Net, Recent, Refusal, Snapshot, State, Told};

const X: Id = [0x58; 32];
const Y: Id = [0x59; 32];
const MSAT: u64 = 5_000_000;

/// Further away than any test lasts, in unix seconds.
const NEVER_S: u64 = 1 << 40;

/// A channel, and X under way to an invoice.
fn pending() -> (Net, Invoice) {
    let mut net = Net::channel();
    let invoice = net.payee().invoice(Some(MSAT));
    net.payer().wallet().pay(X, &invoice.text).unwrap();
    net.deliver();
    (net, invoice)
}

/// A channel, and X paid; the payer has not seen its events.
fn claimed() -> (Net, Invoice) {
    let (mut net, invoice) = pending();
    net.claim(invoice.hash);
    (net, invoice)
}

/// A channel, and X paid, with every event of it handled.
fn paid() -> (Net, Invoice) {
    let (mut net, invoice) = claimed();
    let events = net.payer_events();
    assert!(is_sent(&events[0]) && events[1..] == [Told::PathSuccessful { id: X }], "{events:?}");
    (net, invoice)
}

fn pay(net: &Net, id: Id, invoice: &Invoice) -> Result<(), Refusal> {
    net.payer().wallet().pay(id, &invoice.text)
}

fn state(net: &Net) -> Option<State> {
    net.payer().wallet().state(X)
}

fn is_sent(told: &Told) -> bool {
    matches!(told, Told::Sent { id: X, .. })
}

fn failed(told: &[Told]) -> Option<&str> {
    told.iter().find_map(|told| match told {
        Told::Failed { id: X, reason, .. } => Some(reason.as_str()),
        _ => None,
    })
}

// ---- duplicates ------------------------------------------------------------------------------------------------------

/// Every kind of payment that may be tried under a known id, the same one first.
fn duplicates(net: &Net, same: &Invoice) -> Vec<Result<(), Refusal>> {
    let (payer, to, other) = (net.payer().wallet(), net.payee().id(), net.payee().invoice(Some(2 * MSAT)));
    vec![
        payer.pay(X, &same.text),
        payer.pay(X, &other.text),
        payer.pay_with(X, &same.text, Some(MSAT + 1), 3),
        payer.pay_hash(X, to, other.hash, other.secret, 2 * MSAT),
        payer.keysend(X, to, [7; 32], MSAT),
        payer.await_refund(X, MSAT, NEVER_S),
    ]
}

/// Row 1: one word, whatever has become of it.
/// Row 2: and the same word for another request.
#[test]
fn a_known_id_gives_duplicate_payment_in_every_state_whatever_is_paid() {
    let (mut net, invoice) = pending();
    let refused = vec![Err(Refusal::DuplicatePayment); 6];
    assert_eq!(duplicates(&net, &invoice), refused, "pending: the same request and others get one word");
    net.payer().wallet().abandon(X);
    assert_eq!(duplicates(&net, &invoice), refused, "abandoned");
    net.claim(invoice.hash);
    assert_eq!(duplicates(&net, &invoice), refused, "fulfilled, its event not handled");
    net.payer().events();
    assert_eq!(duplicates(&net, &invoice), refused, "fulfilled, its event handled");

    let net = Net::channel();
    net.payer().wallet().await_refund(X, MSAT, NEVER_S).unwrap();
    assert_eq!(duplicates(&net, &invoice), refused, "awaiting an invoice");
}

/// Row 3: the route is looked for before the id.
#[test]
fn a_duplicate_is_told_route_not_found_when_its_own_first_attempt_holds_the_liquidity() {
    let mut net = Net::channel();
    let invoice = net.payee().invoice(Some(600_000_000));
    pay(&net, X, &invoice).unwrap();
    net.deliver();
    assert_eq!(pay(&net, X, &invoice), Err(Refusal::RouteNotFound));
    assert_eq!(state(&net), Some(State::Pending));
    net.claim(invoice.hash);
    assert!(net.payer().events().iter().any(is_sent), "what was said not to find a route has paid");
}

/// Row 5: the map is a guard, for as long as it remembers.
#[test]
fn of_24_sends_at_once_under_one_id_ldk_takes_one() {
    let net = Net::channel();
    let invoice = net.payee().invoice(Some(MSAT));
    let payer = net.payer().wallet();
    let sends: Vec<_> = (0..24)
        .map(|_| {
            let (payer, text) = (payer.clone(), invoice.text.clone());
            thread::spawn(move || payer.pay(X, &text))
        })
        .collect();
    let results: Vec<_> = sends.into_iter().map(|send| send.join().unwrap()).collect();
    let count = |wanted| results.iter().filter(|result| **result == wanted).count();
    assert_eq!((count(Ok(())), count(Err(Refusal::DuplicatePayment))), (1, 23));
}

/// Row 6: the hash is not looked at.
#[test]
fn under_two_ids_one_invoice_is_paid_for_twice() {
    let (net, invoice) = pending();
    assert_eq!(pay(&net, Y, &invoice), Ok(()), "a fresh id for each try protects from nothing");
}

/// Row 4: and so is the amount.
#[test]
fn what_is_wrong_with_a_request_is_told_before_that_its_id_is_known() {
    let (net, _) = pending();
    let any_amount = net.payee().invoice(None);
    assert_eq!(pay(&net, X, &any_amount), Err(Refusal::InvalidAmount));
}

// ---- failures --------------------------------------------------------------------------------------------------------

/// Row 7: Ok means accepted.
#[test]
fn a_send_is_ok_although_every_path_fails_at_once_and_its_id_is_free_before_anybody_hears_of_it() {
    let mut net = Net::channel();
    let invoice = net.payee().invoice(Some(MSAT));
    net.payer().between_route_and_send(net.scissors());
    assert_eq!(pay(&net, X, &invoice), Ok(()));
    assert_eq!(state(&net), None);

    net.connect(0, 1);
    assert_eq!(pay(&net, X, &invoice), Ok(()), "another attempt, with the end of the first still on its way");
    let events = net.payer().events();
    assert_eq!(events[0], Told::PathFailed { id: X, hash: invoice.hash });
    assert_eq!(failed(&events), Some("RouteNotFound"));
    assert_eq!(state(&net), Some(State::Pending), "and here is a failure of an id that is under way");
    net.claim(invoice.hash);
    assert!(net.payer().events().iter().any(is_sent));
}

/// Row 8: entry gone, event queued, in one step.
#[test]
fn a_failed_payment_frees_its_id_at_once_and_a_retry_pays() {
    let (mut net, invoice) = pending();
    net.fail(invoice.hash);
    assert_eq!(state(&net), None, "its events are queued");
    assert_eq!(pay(&net, X, &invoice), Ok(()));
    assert_eq!(failed(&net.payer().events()), Some("RecipientRejected"), "the first attempt's");
    assert_eq!(state(&net), Some(State::Pending), "the second attempt");
    net.claim(invoice.hash);
    assert!(net.payer().events().iter().any(is_sent), "after a failure that was handled");
}

/// Row 10: no invoice, no hash.
#[test]
fn a_payment_that_waits_for_an_invoice_fails_without_a_hash_and_frees_its_id() {
    let net = Net::channel();
    net.payer().wallet().await_refund(X, MSAT, 1).unwrap();
    net.payer().tick();
    assert_eq!(state(&net), None);
    let failed = Told::Failed { id: X, hash: None, reason: "InvoiceRequestExpired".into() };
    assert_eq!(net.payer().events(), [failed]);
    net.payer().wallet().await_refund(X, MSAT, NEVER_S).unwrap();
}

// ---- ticks -----------------------------------------------------------------------------------------------------------

/// Row 13: the boundary.
#[test]
fn the_id_of_a_payment_is_kept_for_seven_quiet_ticks_and_forgotten_at_the_eighth() {
    let (mut net, invoice) = paid();
    net.payer().ticks(7);
    assert_eq!(pay(&net, X, &invoice), Err(Refusal::DuplicatePayment));
    net.payer().tick();
    assert_eq!(state(&net), None);

    assert_eq!(pay(&net, X, &invoice), Ok(()), "the very invoice that is paid");
    net.claim(invoice.hash);
    assert!(net.payer().events().iter().any(is_sent));
    assert_eq!(net.claims(invoice.hash), 2);
}

#[test]
fn a_forgotten_id_takes_another_request() {
    let (net, _) = paid();
    net.payer().ticks(8);
    assert_eq!(pay(&net, X, &net.payee().invoice(Some(2 * MSAT))), Ok(()));
}

/// Row 15: no tick is quiet.
#[test]
fn an_event_that_is_not_handled_keeps_the_id_however_many_ticks() {
    let (mut net, invoice) = claimed();
    net.payer().ticks(20);
    assert!(net.payer().refuse_event().is_some_and(|told| is_sent(&told)));
    net.payer().ticks(20);
    assert_eq!(pay(&net, X, &invoice), Err(Refusal::DuplicatePayment));
    assert!(is_sent(&net.payer_events()[0]), "it comes again");
    net.payer().ticks(7);
    assert_eq!(state(&net), Some(State::Fulfilled));
    net.payer().tick();
    assert_eq!(state(&net), None);
}

/// Row 16: nor with this one.
#[test]
fn the_event_of_a_path_that_is_not_handled_keeps_the_id_too() {
    let (net, _) = claimed();
    net.payer().handle_events(|told| if is_sent(&told) { Ok(()) } else { Err(()) });
    net.payer().ticks(20);
    assert_eq!(state(&net), Some(State::Fulfilled));
    assert_eq!(net.payer().events(), [Told::PathSuccessful { id: X }]);
    net.payer().ticks(7);
    assert_eq!(state(&net), Some(State::Fulfilled));
    net.payer().tick();
    assert_eq!(state(&net), None);
}

/// Row 17: nor while the HTLC is in the channel.
#[test]
fn a_payee_that_went_away_before_the_last_messages_keeps_the_id_although_payment_sent_is_handled() {
    let (mut net, invoice) = pending();
    net.begin_claim(invoice.hash);
    net.disconnect(0, 1);
    assert!(is_sent(&net.payer().events()[0]));
    net.payer().ticks(20);
    assert_eq!(state(&net), Some(State::Fulfilled), "its HTLC is still in the channel: no tick was quiet");
    net.connect(0, 1);
    net.finish_claim();
    assert_eq!(net.payer_events(), [Told::PathSuccessful { id: X }]);
    net.payer().ticks(7);
    assert_eq!(pay(&net, X, &invoice), Err(Refusal::DuplicatePayment));
    net.payer().tick();
    assert_eq!(state(&net), None);
}

/// Row 14: it is part of the manager.
#[test]
fn the_count_of_ticks_survives_a_restart() {
    let (mut net, invoice) = paid();
    net.payer().ticks(6);
    let snapshot = net.payer().snapshot();
    net.restart_payer(&snapshot);
    net.connect(0, 1);
    net.payer().tick();
    assert_eq!(pay(&net, X, &invoice), Err(Refusal::DuplicatePayment));
    net.payer().tick();
    assert_eq!(state(&net), None);
}

// ---- abandoning ------------------------------------------------------------------------------------------------------

/// Row 11: no tick ends it.
#[test]
fn an_abandoned_payment_is_kept_for_ever_and_may_still_succeed() {
    let (mut net, invoice) = pending();
    net.payer().wallet().abandon(X);
    net.payer().ticks(20);
    assert_eq!(net.payer().events(), []);
    assert_eq!(state(&net), Some(State::Abandoned));
    net.claim(invoice.hash);
    assert!(net.payer().events().iter().any(is_sent));
    assert_eq!(state(&net), Some(State::Fulfilled));
}

/// Row 12: the latter half.
#[test]
fn an_abandoned_payment_that_fails_says_so_and_abandoning_what_has_ended_does_nothing() {
    let (mut net, invoice) = pending();
    net.payer().wallet().abandon(X);
    net.fail(invoice.hash);
    assert_eq!(failed(&net.payer().events()), Some("UserAbandoned"));
    net.payer().wallet().abandon(X);
    assert_eq!(net.payer().events(), []);

    let (net, _) = paid();
    net.payer().wallet().abandon(X);
    assert_eq!((net.payer().events(), state(&net)), (vec![], Some(State::Fulfilled)));
}

#[test]
fn recent_payments_are_listed_in_four_states_and_failed_ones_not_at_all() {
    let mut net = Net::channel();
    let payer = net.payer().wallet();
    let invoices = [1, 2, 3, 4].map(|n| net.payee().invoice(Some(n * MSAT)));
    for (n, invoice) in invoices.iter().enumerate() {
        payer.pay([n as u8; 32], &invoice.text).unwrap();
    }
    payer.await_refund([4; 32], MSAT, NEVER_S).unwrap();
    net.deliver();
    payer.abandon([1; 32]);
    let [preimage, _] = net.hold([invoices[2].hash, invoices[3].hash]);
    net.claim_with(preimage.unwrap());
    net.fail_held(invoices[3].hash);
    net.payer_events();

    let listed = |id: usize, hash, state| Recent { id: [id as u8; 32], hash, state };
    let hash = |n: usize| Some(invoices[n].hash);
    let expected = [
        listed(0, hash(0), State::Pending),
        listed(1, hash(1), State::Abandoned),
        listed(2, hash(2), State::Fulfilled),
        listed(4, None, State::AwaitingInvoice),
    ];
    assert_eq!(payer.recent(), expected);
}

// ---- restarts --------------------------------------------------------------------------------------------------------

/// Row 18: nothing was sent, and nothing is known.
#[test]
fn a_manager_and_monitors_from_before_the_send_do_not_know_the_id_and_take_it_again() {
    let mut net = Net::channel();
    let before = net.payer().snapshot();
    let invoice = net.payee().invoice(Some(MSAT));
    pay(&net, X, &invoice).unwrap();
    // No byte has left: LDK sends when the monitor is written.
    net.restart_payer(&before);
    net.connect(0, 1);
    assert_eq!(state(&net), None);
    assert_eq!(pay(&net, X, &invoice), Ok(()));
    net.claim(invoice.hash);
}

/// Row 19: what the monitors know comes back.
#[test]
fn a_manager_from_before_the_send_gets_the_payment_back_from_newer_monitors_and_loses_the_channel() {
    let mut net = Net::channel();
    let before = net.payer().snapshot();
    let invoice = net.payee().invoice(Some(MSAT));
    pay(&net, X, &invoice).unwrap();
    net.restart_payer(&before.with_monitors_of(&net.payer().snapshot()));
    assert_eq!(state(&net), Some(State::Pending));
    assert!(!net.payer().wallet().has_channel_with(net.payee().id()));
    assert_eq!(pay(&net, X, &invoice), Err(Refusal::RouteNotFound), "and not that it is a duplicate");
}

/// Row 20: nothing was lost.
#[test]
fn a_payment_under_way_survives_a_restart_and_ends_after_it() {
    let (mut net, invoice) = pending();
    let snapshot = net.payer().snapshot();
    net.restart_payer(&snapshot);
    net.connect(0, 1);
    assert_eq!(pay(&net, X, &invoice), Err(Refusal::DuplicatePayment));
    net.claim(invoice.hash);
    assert!(net.payer().events().iter().any(is_sent));
}

/// Row 21: at least once.
#[test]
fn an_event_that_was_handled_comes_again_after_a_restart_from_before_it() {
    let (mut net, _) = claimed();
    let before = net.payer().snapshot();
    let first = net.payer().events();
    assert!(is_sent(&first[0]));
    net.restart_payer(&before);
    assert_eq!(net.payer().events(), first);
}

/// Row 9: events are told at least once.
#[test]
fn a_failure_that_was_handled_comes_again_after_a_restart_although_the_id_is_under_way_or_paid() {
    let (mut net, invoice) = pending();
    net.fail(invoice.hash);
    let before = net.payer().snapshot();
    let first = net.payer().events();
    net.restart_payer(&before);
    net.connect(0, 1);
    pay(&net, X, &invoice).unwrap();
    net.claim(invoice.hash);
    let events = net.payer().events();
    assert_eq!(failed(&events), failed(&first));
    assert!(events.iter().any(is_sent), "in one queue: {events:?}");
}

/// Snapshots of one payment's life: before the send, under way, paid with PaymentSent on its way, and over.
fn life() -> (Net, Invoice, [Snapshot; 4]) {
    let mut net = Net::channel();
    let before = net.payer().snapshot();
    let invoice = net.payee().invoice(Some(MSAT));
    pay(&net, X, &invoice).unwrap();
    net.deliver();
    let under_way = net.payer().snapshot();
    net.claim(invoice.hash);
    let claimed = net.payer().snapshot();
    net.payer_events();
    let over = net.payer().snapshot();
    (net, invoice, [before, under_way, claimed, over])
}

/// Row 22: the monitors keep the preimage for so long.
#[test]
fn until_payment_sent_is_handled_every_older_manager_tells_it_even_one_that_never_knew_the_payment() {
    let (mut net, _, [before, under_way, claimed, _]) = life();
    for manager in [before, under_way, claimed.clone()] {
        net.restart_payer(&manager.with_monitors_of(&claimed));
        assert_eq!(state(&net), Some(State::Fulfilled));
        assert!(net.payer().events().iter().any(is_sent));
    }
}

/// Row 24: so nobody knows that it is paid.
#[test]
fn after_payment_sent_was_handled_a_manager_from_before_the_send_takes_the_id_again_and_pays_twice() {
    let (mut net, invoice, [before, _, _, over]) = life();
    net.restart_payer(&before.with_monitors_of(&over));
    assert_eq!((state(&net), net.payer().events().iter().any(is_sent)), (None, false));
    net.connect(0, 1);
    net.open_channel(0, 1);
    // The first try goes by the invoice's hint, which names the channel that is gone.
    assert_eq!(net.payer().wallet().pay_with(X, &invoice.text, None, 1), Ok(()));
    net.claim(invoice.hash);
    assert_eq!(net.claims(invoice.hash), 2);
}

/// Row 23: and no longer.
#[test]
fn after_payment_sent_was_handled_a_manager_from_before_the_end_says_that_the_payment_failed() {
    let (mut net, invoice, [_, under_way, _, over]) = life();
    net.restart_payer(&under_way.with_monitors_of(&over));
    let events = net.payer().events();
    assert!(failed(&events).is_some() && !events.iter().any(is_sent), "{events:?}");
    assert_eq!((state(&net), net.claims(invoice.hash)), (None, 1), "and the id is free");
}

#[test]
fn a_manager_that_is_newer_than_its_monitors_does_not_start() {
    let (net, _, [before, under_way, ..]) = life();
    assert!(net.starts_from(&under_way.with_monitors_of(&under_way)));
    assert!(!net.starts_from(&under_way.with_monitors_of(&before)));
}

/// Row 25: with its channel closed.
#[test]
fn a_payment_that_came_back_from_the_monitors_succeeds_on_the_chain() {
    let mut net = Net::channel();
    let before = net.payer().snapshot();
    // Too much to be dust.
    let invoice = net.payee().invoice(Some(600_000_000));
    pay(&net, X, &invoice).unwrap();
    let [preimage] = net.hold([invoice.hash]);
    net.restart_payer(&before.with_monitors_of(&net.payer().snapshot()));
    assert_eq!(state(&net), Some(State::Pending));
    assert_eq!(net.payer().events(), [Told::Other("ChannelClosed".into())]);
    net.mine(1);
    net.claim_with(preimage.unwrap());
    net.mine(6);
    assert!(net.payer().events().iter().any(is_sent));
    assert_eq!(state(&net), Some(State::Fulfilled));
}
