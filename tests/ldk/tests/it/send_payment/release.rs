//! Ticks: LDK's own first, then ibid's.

use ibid::Acknowledged;
use ibid::lightning::send_payment::{Handled, SendPaymentSetup, Standing};
use ibid_ldk::{Invoice, State, Told, hand_over, request};

use super::{MSAT, World, X};

impl World {
    /// X is told to be paid, and its id is not free.
    fn is_kept(&self, invoice: &Invoice) {
        assert!(matches!(self.known(invoice), Standing::Completed(_)), "{:?}", self.payment());
    }

    /// Seven more ticks keep X, and the eighth releases it, here and in LDK.
    fn is_released_by_the_eighth_tick(&self, invoice: &Invoice) {
        for _ in 0..7 {
            self.ticks(1);
            self.is_kept(invoice);
        }
        self.ticks(1);
        assert_eq!((self.payment(), self.listed()), (None, None));
    }
}

/// Row 13: the same boundary as LDK's, with an answer that says more up to there.
#[test]
fn seven_ticks_keep_what_is_paid_and_the_eighth_releases_it_to_any_request() {
    let (mut world, invoice) = World::paid();
    world.is_released_by_the_eighth_tick(&invoice);
    world.accepts(X, &invoice);
    world.claim(&invoice);
    assert_eq!((world.calls(), world.net.claims(invoice.hash)), (2, 2));
    world.is_released_by_the_eighth_tick(&invoice);
    world.accepts(X, &world.invoice(2 * MSAT));
}

/// Row 14: a restart of either or both hastens nothing.
#[test]
fn the_count_of_ticks_survives_restarts_of_node_and_engine_together_and_apart() {
    let restarts: [fn(&mut World); 3] = [
        |world| world.restart_engine(),
        |world| world.restart_ldk(&world.net.payer().snapshot()),
        |world| world.restart(&world.net.payer().snapshot()),
    ];
    for restart in restarts {
        let (mut world, invoice) = World::paid();
        world.ticks(6);
        restart(&mut world);
        world.ticks(1);
        world.is_kept(&invoice);
        world.ticks(1);
        assert_eq!((world.payment(), world.listed(), world.calls()), (None, None, 1));
    }
}

#[test]
fn an_ldk_that_has_lost_its_last_ticks_keeps_the_id_here_too() {
    let (mut world, invoice) = World::paid();
    let after_none = world.net.payer().snapshot();
    world.ticks(5);
    world.restart(&after_none);
    world.ticks(7);
    assert_eq!(world.listed(), Some(State::Fulfilled));
    // The third of these ticks would have been the eighth, and became the first of another eight.
    world.is_kept(&invoice);
    world.ticks(1);
    assert_eq!(world.listed(), None);
    world.ticks(1);
    world.is_kept(&invoice);
    world.ticks(1);
    assert_eq!(world.payment(), None);
    world.net.connect(0, 1);
    world.accepts(X, &invoice);
    world.claim(&invoice);
}

/// Row 15: until it is handled, nobody knows that it is paid.
#[test]
fn a_success_that_is_not_handled_keeps_the_id_however_many_ticks() {
    let (mut world, invoice) = World::pending();
    world.net.claim(invoice.hash);
    world.ticks(20);
    assert!(world.net.payer().refuse_event().is_some_and(|told| matches!(told, Told::Sent { .. })));
    world.ticks(20);
    assert_eq!(world.known(&invoice), Standing::Dispatched);
    assert_eq!((world.events(), world.calls()), (vec![Handled::Recorded], 1));
    world.is_released_by_the_eighth_tick(&invoice);
}

/// Row 16: what LDK keeps is kept.
#[test]
fn the_event_of_a_path_that_is_not_handled_keeps_what_is_paid() {
    let (mut world, invoice) = World::pending();
    world.net.claim(invoice.hash);
    world.net.payer().handle_events(|told| match told {
        Told::Sent { .. } => hand_over(&world.payments, told).unwrap().map(drop).map_err(drop),
        _ => Err(()),
    });
    world.ticks(20);
    world.is_kept(&invoice);
    assert_eq!((world.listed(), world.events()), (Some(State::Fulfilled), vec![]));
    world.is_released_by_the_eighth_tick(&invoice);
}

/// Row 17: its id is not sent again before LDK takes it again.
#[test]
fn a_payee_that_went_away_before_the_last_messages_keeps_what_is_paid_for_as_long_as_ldk_does() {
    let (mut world, invoice) = World::pending();
    world.net.begin_claim(invoice.hash);
    world.net.disconnect(0, 1);
    assert_eq!(world.handle().unwrap(), [Handled::Recorded]);
    for _ in 0..20 {
        world.ticks(1);
        world.is_kept(&invoice);
    }
    assert_eq!(world.listed(), Some(State::Fulfilled));
    world.net.connect(0, 1);
    world.net.finish_claim();
    world.events();
    world.is_released_by_the_eighth_tick(&invoice);
    world.accepts(X, &invoice);
    world.claim(&invoice);
}

#[test]
fn what_the_host_has_not_dealt_with_is_kept_although_ldk_has_forgotten_it() {
    let mut world = World::with(SendPaymentSetup::host_acknowledges);
    let invoice = world.invoice(MSAT);
    world.accepts(X, &invoice);
    world.net.deliver();
    world.claim(&invoice);
    world.ticks(20);
    assert_eq!(world.listed(), None);
    world.is_kept(&invoice);
    world.conflicts(request(X, &world.invoice(2 * MSAT)));
    assert_eq!(world.calls(), 1);
    assert_eq!(world.payments.acknowledge_blocking(X).unwrap(), Acknowledged::Counting);
    world.is_released_by_the_eighth_tick(&invoice);
}
