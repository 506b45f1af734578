//! The same again, something else under the same id, and many at once.

use std::thread;

use ibid::lightning::send_payment::{Payee, PaymentRequest, Sent, Standing};
use ibid::{Abandoned, NodeId, Status};
use ibid_ldk::{Invoice, State, request};

use super::{MOST_MSAT, MSAT, NEVER_S, World, X, Y, known};

/// Every kind of payment that is not the one to this invoice, under the same id.
fn others(world: &World, invoice: &Invoice) -> Vec<PaymentRequest> {
    let other = world.invoice(2 * MSAT);
    let payee = NodeId::new(world.net.payee().id()).unwrap();
    let hash = Payee::HashAndSecret { payee, payment_hash: other.hash, payment_secret: other.secret };
    let keysend = Payee::Keysend { payee, payment_hash: None };
    let refund = Payee::Refund { description: "tea".into() };
    vec![
        request(X, &other),
        PaymentRequest { amount_msat: Some(MSAT + 1), ..request(X, invoice) },
        PaymentRequest { max_fee_msat: Some(1), ..request(X, invoice) },
        PaymentRequest { amount_msat: Some(MSAT), ..PaymentRequest::new(X, hash) },
        PaymentRequest { amount_msat: Some(MSAT), ..PaymentRequest::new(X, keysend) },
        PaymentRequest { amount_msat: Some(MSAT), ..PaymentRequest::new(X, refund) },
    ]
}

fn refund() -> PaymentRequest {
    let payee = Payee::Refund { description: "coffee".into() };
    PaymentRequest { amount_msat: Some(MSAT), expires_at_secs: Some(NEVER_S), ..PaymentRequest::new(X, payee) }
}

/// Row 1: each state has its own answer.
#[test]
fn the_same_again_is_told_how_the_payment_stands_in_every_state() {
    let (mut world, invoice) = World::pending();
    assert_eq!(world.known(&invoice), Standing::Dispatched);
    assert_eq!(world.wait(world.payments.abandon(X)).unwrap(), Abandoned::Marked(Status::Dispatched));
    assert_eq!((world.known(&invoice), world.listed()), (Standing::Dispatched, Some(State::Abandoned)));
    world.net.claim(invoice.hash);
    assert_eq!((world.known(&invoice), world.listed()), (Standing::Dispatched, Some(State::Fulfilled)));
    world.events();
    let Standing::Completed(paid) = world.known(&invoice) else { panic!("it is paid") };
    assert_eq!((paid.payment_hash, paid.fee_msat), (invoice.hash, Some(0)));
    assert_eq!(world.calls(), 1);

    let world = World::new();
    assert_eq!(world.send(refund()).unwrap(), Sent::Accepted);
    assert_eq!(world.listed(), Some(State::AwaitingInvoice));
    assert_eq!(known(world.send(refund())), Standing::Dispatched);
    assert_eq!(world.calls(), 1);
}

/// Row 2: and none of them reaches LDK.
#[test]
fn another_request_under_a_known_id_is_a_conflict_in_every_state_whatever_is_to_be_paid() {
    let conflict = |world: &World, invoice| others(world, invoice).into_iter().for_each(|other| world.conflicts(other));
    let (mut world, invoice) = World::pending();
    conflict(&world, &invoice);
    world.wait(world.payments.abandon(X)).unwrap();
    conflict(&world, &invoice);
    world.net.claim(invoice.hash);
    conflict(&world, &invoice);
    world.events();
    conflict(&world, &invoice);
    assert_eq!(world.calls(), 1);

    let (mut world, invoice) = World::pending();
    world.fail(&invoice);
    conflict(&world, &invoice);
    assert_eq!(world.calls(), 1);

    let world = World::new();
    assert_eq!(world.send(refund()).unwrap(), Sent::Accepted);
    conflict(&world, &world.invoice(MSAT));
    assert_eq!(world.calls(), 1);
}

/// Row 3: it is not asked for a route.
#[test]
fn a_duplicate_is_told_that_it_is_one_although_its_own_first_attempt_holds_the_liquidity() {
    let mut world = World::new();
    let invoice = world.invoice(MOST_MSAT);
    world.accepts(X, &invoice);
    world.net.deliver();
    assert_eq!(world.known(&invoice), Standing::Dispatched);
    let paid = world.claim(&invoice);
    assert_eq!(world.known(&invoice), Standing::Completed(paid));
    assert_eq!(world.calls(), 1);
}

/// Row 4: what is known comes before what is wrong.
#[test]
fn a_request_without_an_amount_under_a_known_id_is_a_conflict() {
    let (world, _) = World::pending();
    world.conflicts(request(X, &world.net.payee().invoice(None)));
    assert_eq!(world.calls(), 1);
}

/// Row 5: the others hear how it stands.
#[test]
fn vector_1_of_any_number_of_sends_under_one_id_ldk_sees_one() {
    let (mut world, invoice) = World::pending();
    assert_eq!(world.known(&invoice), Standing::Dispatched);

    let second = world.invoice(MSAT);
    let sends: Vec<_> = (0..24)
        .map(|_| {
            let (payments, request) = (world.payments.clone(), request(Y, &second));
            thread::spawn(move || payments.send_blocking(request).unwrap())
        })
        .collect();
    let sent: Vec<_> = sends.into_iter().map(|send| send.join().unwrap()).collect();
    let duplicates =
        sent.iter().filter(|sent| matches!(sent, Sent::Known(Standing::Registered | Standing::Dispatched)));
    assert_eq!((sent.iter().filter(|sent| **sent == Sent::Accepted).count(), duplicates.count()), (1, 23));
    assert_eq!(world.calls(), 2);

    world.net.claim(second.hash);
    world.events();
    assert_eq!(world.net.claims(second.hash), 1);
}

/// Row 6: the id is the key, and it is the caller's.
#[test]
fn one_invoice_under_two_ids_is_sent_twice_and_with_its_hash_as_the_id_once() {
    let (world, invoice) = World::pending();
    world.accepts(Y, &invoice);
    assert_eq!(world.calls(), 2);

    let (world, invoice) = (World::new(), world.invoice(MSAT));
    world.accepts(invoice.hash, &invoice);
    assert_eq!(known(world.send(request(invoice.hash, &invoice))), Standing::Dispatched);
    assert_eq!(world.calls(), 1);
}
