//! Payments that fail, that are given up, and events that could not be recorded.

use ibid::lightning::send_payment::{Ending, Handled, Payee, PaymentRequest, Sent, Standing};
use ibid::testing::Outage;
use ibid::{Abandoned, Status};
use ibid_ldk::State;

use super::{MSAT, World, X, failed, known};

/// Row 7: accepted is not ended.
#[test]
fn a_send_whose_paths_all_fail_at_once_is_a_duplicate_before_and_after_its_event() {
    let mut world = World::new();
    let invoice = world.invoice(MSAT);
    world.net.payer().between_route_and_send(world.net.scissors());
    world.accepts(X, &invoice);
    assert_eq!((world.listed(), world.known(&invoice)), (None, Standing::Dispatched));
    world.net.connect(0, 1);
    assert_eq!(world.known(&invoice), Standing::Dispatched, "there is a way again");
    assert_eq!(world.events(), [Handled::Recorded]);
    assert_eq!((world.known(&invoice), world.calls()), (failed("RouteNotFound"), 1));
}

/// Row 8: the id is free when the host says so.
#[test]
fn a_failed_payment_is_a_duplicate_before_and_after_its_event_until_it_is_abandoned() {
    let (mut world, invoice) = World::pending();
    world.net.fail(invoice.hash);
    assert_eq!((world.listed(), world.known(&invoice)), (None, Standing::Dispatched));
    assert_eq!(world.events(), [Handled::Recorded]);
    assert_eq!((world.known(&invoice), world.calls()), (failed("RecipientRejected"), 1));
    assert_eq!(world.wait(world.payments.abandon(X)).unwrap(), Abandoned::Released);
    world.accepts(X, &invoice);
    world.claim(&invoice);
    assert_eq!(world.calls(), 2);
}

/// Row 9: an id that LDK lists has not failed.
#[test]
fn a_failure_of_an_earlier_attempt_that_comes_again_is_not_taken_for_that_of_the_retry() {
    for is_paid in [false, true] {
        let (mut world, invoice) = World::pending();
        world.net.fail(invoice.hash);
        let before = world.net.payer().snapshot();
        assert_eq!(world.events(), [Handled::Recorded]);
        let first = world.payment().unwrap().attempt;

        world.restart(&before);
        world.net.connect(0, 1);
        assert_eq!(world.wait(world.payments.abandon(X)).unwrap(), Abandoned::Released);
        world.accepts(X, &invoice);
        assert!(!world.payment().unwrap().attempt.is_same(&first));
        if is_paid {
            world.net.claim(invoice.hash);
            assert_eq!(world.events(), [Handled::Stale, Handled::Recorded]);
        } else {
            assert_eq!(world.events(), [Handled::Stale]);
            assert_eq!(world.known(&invoice), Standing::Dispatched);
            world.claim(&invoice);
        }
        assert!(matches!(world.known(&invoice), Standing::Completed(_)));
        assert_eq!((world.payments.counts().stale, world.calls()), (1, 2));
    }
}

/// Row 10: its failure has no hash, and it stays with us.
#[test]
fn a_payment_whose_invoice_never_comes_fails_and_stays_a_duplicate() {
    let mut world = World::new();
    let payee = Payee::Refund { description: "tea".into() };
    let refund = PaymentRequest { amount_msat: Some(MSAT), expires_at_secs: Some(1), ..PaymentRequest::new(X, payee) };
    assert_eq!(world.send(refund.clone()).unwrap(), Sent::Accepted);
    world.ticks(1);
    assert_eq!((world.listed(), known(world.send(refund.clone()))), (None, Standing::Dispatched));
    assert_eq!(world.events(), [Handled::Recorded]);
    assert_eq!(known(world.send(refund)), failed("InvoiceRequestExpired"));
    assert_eq!(world.calls(), 1);
}

#[test]
fn vector_6_a_failed_payment_runs_again_once_abandoned_and_an_abandoned_one_is_free_when_it_fails() {
    let (mut world, invoice) = World::pending();
    world.fail(&invoice);
    assert_eq!(world.known(&invoice), failed("RecipientRejected"));
    assert_eq!(world.wait(world.payments.abandon(X)).unwrap(), Abandoned::Released);

    let other = world.invoice(2 * MSAT);
    world.accepts(X, &other);
    world.net.deliver();
    let tracked = world.track();
    assert_eq!(world.wait(world.payments.abandon(X)).unwrap(), Abandoned::Marked(Status::Dispatched));
    assert_eq!(world.listed(), Some(State::Abandoned));
    world.fail(&other);
    assert_eq!(world.wait(tracked).unwrap().unwrap(), Ending::Failed(Some("UserAbandoned".into())));
    assert_eq!((world.payment(), world.calls()), (None, 2));
    world.accepts(X, &invoice);
}

/// Row 11: LDK and ibid alike.
#[test]
fn an_abandoned_payment_is_kept_for_any_number_of_ticks_and_may_still_succeed() {
    let (mut world, invoice) = World::pending();
    assert_eq!(world.wait(world.payments.abandon(X)).unwrap(), Abandoned::Marked(Status::Dispatched));
    world.ticks(20);
    assert_eq!((world.known(&invoice), world.listed()), (Standing::Dispatched, Some(State::Abandoned)));
    let paid = world.claim(&invoice);
    assert_eq!(world.known(&invoice), Standing::Completed(paid));
    assert_eq!(world.calls(), 1);
}

/// Row 12: and nothing else.
#[test]
fn abandoning_what_is_paid_does_nothing() {
    let (world, invoice) = World::paid();
    assert_eq!(world.wait(world.payments.abandon(X)).unwrap(), Abandoned::NoEffect);
    assert!(matches!(world.known(&invoice), Standing::Completed(_)));
    assert_eq!((world.listed(), world.calls()), (Some(State::Fulfilled), 1));
}

#[test]
fn an_event_that_the_store_did_not_take_is_told_again_by_ldk_until_it_does() {
    let (mut world, invoice) = World::pending();
    let preimage = world.net.claim(invoice.hash);
    world.store.break_down(Outage::Commits);
    world.handle().unwrap_err();
    assert_eq!(world.payment().unwrap().standing, Standing::Dispatched);
    assert_eq!(world.listed(), Some(State::Fulfilled));
    world.store.heal();
    // Until the store has been tried again it is refused.
    world.until(|world| world.handle().is_ok());
    world.events();
    let Standing::Completed(paid) = world.known(&invoice) else { panic!("it is paid") };
    assert_eq!((paid.preimage, world.calls()), (preimage, 1));
    assert_eq!((world.payments.counts().recorded, world.payments.counts().contradictions), (1, 0));
}

#[test]
fn a_failure_that_the_store_did_not_take_is_told_again_also_after_a_restart() {
    let (mut world, invoice) = World::pending();
    world.net.fail(invoice.hash);
    world.store.break_down(Outage::Commits);
    world.handle().unwrap_err();
    let snapshot = world.net.payer().snapshot();
    world.restart(&snapshot);
    // LDK does not list it, and the event is still on its way.
    world.until(|world| world.payment().unwrap().standing == Standing::InDoubt);
    assert_eq!(world.known(&invoice), Standing::InDoubt);
    assert_eq!(world.sync(), [Handled::Recorded]);
    assert_eq!((world.known(&invoice), world.calls()), (failed("RecipientRejected"), 1));
}
