//! Node and engine restarted together and apart, and one of them from before the last it wrote.

use ibid::lightning::send_payment::{Handled, PaymentError, Standing};
use ibid::store::StoreError;
use ibid::testing::Outage;
use ibid::{Abandoned, Engine};
use ibid_ldk::{Invoice, Snapshot, State, request};

use super::{MOST_MSAT, MSAT, World, X, path};

impl World {
    /// X sent, and not a byte of it has left. The node as it was before, and the invoice.
    fn sent() -> (Self, Snapshot, Invoice) {
        let world = Self::new();
        let (before, invoice) = (world.net.payer().snapshot(), world.invoice(MSAT));
        world.accepts(X, &invoice);
        (world, before, invoice)
    }
}

/// Row 18: once LDK has seen everything, that it lists nothing is proof.
#[test]
fn what_ldk_has_lost_is_not_sent_again_before_it_is_proven_that_it_never_was() {
    let (mut world, before, invoice) = World::sent();
    world.restart(&before);
    world.net.connect(0, 1);
    assert_eq!(world.listed(), None);
    world.until(|world| world.payment().unwrap().standing == Standing::InDoubt);
    assert_eq!(world.known(&invoice), Standing::InDoubt);
    world.conflicts(request(X, &world.invoice(2 * MSAT)));

    assert_eq!(world.sync(), []);
    assert_eq!(world.refused(&invoice), "not started");
    assert_eq!(world.refused(&invoice), "not started");
    assert_eq!(world.calls(), 1);
    assert_eq!(world.wait(world.payments.abandon(X)).unwrap(), Abandoned::Released);
    world.accepts(X, &invoice);
    world.claim(&invoice);
    assert_eq!((world.calls(), world.net.claims(invoice.hash)), (2, 1));
}

#[test]
fn what_ldk_alone_has_lost_while_the_engine_went_on_stays_a_duplicate() {
    let (mut world, before, invoice) = World::sent();
    world.restart_ldk(&before);
    world.net.connect(0, 1);
    assert_eq!(world.known(&invoice), Standing::Dispatched);
    assert_eq!(world.sync(), []);
    assert_eq!((world.known(&invoice), world.calls()), (Standing::Dispatched, 1));
    // An engine that starts asks about what it finds.
    world.restart_engine();
    world.until(|world| world.payment().unwrap().standing != Standing::Dispatched);
    assert_eq!((world.refused(&invoice), world.calls()), ("not started".to_owned(), 1));
}

/// Row 19: it is not asked for a route.
#[test]
fn a_payment_that_came_back_from_newer_monitors_is_a_duplicate_although_its_channel_is_lost() {
    let (mut world, before, invoice) = World::sent();
    world.restart(&before.with_monitors_of(&world.net.payer().snapshot()));
    assert_eq!(world.listed(), Some(State::Pending));
    assert!(!world.net.payer().wallet().has_channel_with(world.net.payee().id()));
    assert_eq!(world.known(&invoice), Standing::Dispatched);
    world.sync();
    assert_eq!((world.known(&invoice), world.calls()), (Standing::Dispatched, 1));
}

/// Row 20: of node and engine, together and apart.
#[test]
fn a_payment_under_way_survives_every_restart_and_ends_after_it() {
    let restarts: [fn(&mut World); 3] = [
        |world| world.restart_engine(),
        |world| world.restart_ldk(&world.net.payer().snapshot()),
        |world| world.restart(&world.net.payer().snapshot()),
    ];
    for restart in restarts {
        let (mut world, invoice) = World::pending();
        restart(&mut world);
        if !world.net.payer().is_connected_to(world.net.payee().id()) {
            world.net.connect(0, 1);
        }
        assert_eq!(world.known(&invoice), Standing::Dispatched);
        world.sync();
        assert_eq!(world.known(&invoice), Standing::Dispatched);
        let paid = world.claim(&invoice);
        assert_eq!((world.known(&invoice), world.calls()), (Standing::Completed(paid), 1));
    }
}

/// Row 21: it is recorded once.
#[test]
fn a_success_that_comes_again_after_a_restart_changes_nothing() {
    let (mut world, invoice) = World::pending();
    world.net.claim(invoice.hash);
    let before = world.net.payer().snapshot();
    assert_eq!(world.events(), [Handled::Recorded]);
    let recorded = world.payment();
    world.restart(&before);
    assert_eq!(world.sync(), [Handled::Repeated]);
    assert_eq!((world.payment(), world.calls()), (recorded, 1));
}

/// A payment's life, and the node before the send, under way, paid with PaymentSent on its way, and over.
fn life() -> (World, Invoice, [Snapshot; 4]) {
    let (mut world, before, invoice) = World::sent();
    world.net.deliver();
    let under_way = world.net.payer().snapshot();
    world.net.claim(invoice.hash);
    let claimed = world.net.payer().snapshot();
    assert_eq!(world.events(), [Handled::Recorded]);
    let over = world.net.payer().snapshot();
    (world, invoice, [before, under_way, claimed, over])
}

/// Row 22: and ibid, which never heard of the end, records it.
#[test]
fn a_success_that_was_not_handled_is_recorded_from_every_older_manager() {
    for age in 0..3 {
        let (mut world, before, invoice) = World::sent();
        world.net.deliver();
        let under_way = world.net.payer().snapshot();
        world.net.claim(invoice.hash);
        let claimed = world.net.payer().snapshot();
        let manager = [&before, &under_way, &claimed][age];
        world.restart(&manager.with_monitors_of(&claimed));
        assert_eq!((world.listed(), world.known(&invoice)), (Some(State::Fulfilled), Standing::Dispatched));
        assert_eq!(world.sync(), [Handled::Recorded]);
        assert!(matches!(world.known(&invoice), Standing::Completed(_)));
        assert_eq!(world.calls(), 1);
    }
}

/// Row 23: success absorbs.
#[test]
fn a_failure_that_a_manager_from_before_the_end_tells_of_what_is_paid_is_ignored() {
    let (mut world, invoice, [_, under_way, _, over]) = life();
    let recorded = world.payment();
    for late in 1..=2 {
        world.restart(&under_way.with_monitors_of(&over));
        assert_eq!(world.sync(), [Handled::Late], "restart {late}");
        assert_eq!((world.payment(), world.listed()), (recorded.clone(), None));
        assert!(matches!(world.known(&invoice), Standing::Completed(_)));
    }
    assert_eq!((world.calls(), world.net.claims(invoice.hash)), (1, 1));
}

/// Row 24: the record does not depend on LDK's.
#[test]
fn what_is_paid_is_not_sent_again_by_a_manager_from_before_the_send() {
    let (mut world, invoice, [before, _, _, over]) = life();
    world.restart(&before.with_monitors_of(&over));
    assert_eq!((world.listed(), world.sync()), (None, vec![]));
    world.net.connect(0, 1);
    world.net.open_channel(0, 1);
    assert!(matches!(world.known(&invoice), Standing::Completed(_)));
    world.conflicts(request(X, &world.invoice(2 * MSAT)));
    assert_eq!((world.calls(), world.net.claims(invoice.hash)), (1, 1));
}

/// Row 25: LDK tells it as any other.
#[test]
fn a_payment_that_came_back_from_the_monitors_is_recorded_when_it_succeeds_on_the_chain() {
    let mut world = World::new();
    let (before, invoice) = (world.net.payer().snapshot(), world.invoice(MOST_MSAT));
    world.accepts(X, &invoice);
    let [preimage] = world.net.hold([invoice.hash]);
    world.restart(&before.with_monitors_of(&world.net.payer().snapshot()));
    assert_eq!((world.sync(), world.known(&invoice)), (vec![], Standing::Dispatched));
    world.net.mine(1);
    world.net.claim_with(preimage.unwrap());
    world.net.mine(6);
    assert_eq!(world.events(), [Handled::Recorded]);
    let Standing::Completed(paid) = world.known(&invoice) else { panic!("it is paid") };
    assert_eq!((Some(paid.preimage), world.calls()), (preimage, 1));
}

#[test]
fn vector_8_a_crash_after_the_call_and_before_its_record_is_found_out_and_not_repeated() {
    let mut world = World::new();
    let (invoice, store) = (world.invoice(MSAT), world.store.clone());
    // The registration is written; what comes back from the call is not.
    world.net.payer().between_route_and_send(move || store.break_down(Outage::Commits));
    let (payments, request) = (world.payments.clone(), request(X, &invoice));
    let sent = world.runtime.spawn(async move { payments.send(request).await });
    world.until(|world| world.listed() == Some(State::Pending));
    assert_eq!(world.payment().unwrap().standing, Standing::Registered);
    let snapshot = world.net.payer().snapshot();
    world.restart(&snapshot);
    let sent = world.wait(sent).unwrap();
    assert!(matches!(sent, Err(PaymentError::Ambiguous(_))), "{sent:?}");

    assert_eq!((world.listed(), world.known(&invoice)), (Some(State::Pending), Standing::Dispatched));
    assert_eq!(world.calls(), 1, "none after the restart");
    world.net.connect(0, 1);
    world.sync();
    world.claim(&invoice);
}

#[test]
fn an_engine_does_not_start_from_a_file_that_is_older_than_the_host_knows_it_to_be() {
    let mut world = World::new();
    let (file, old, new) = (path(&world.dir), world.dir.path().join("old"), world.dir.path().join("new"));
    world.engine.shutdown_blocking();
    std::fs::copy(&file, &old).unwrap();
    world.restart_engine();
    let invoice = world.invoice(MSAT);
    world.accepts(X, &invoice);
    let generation = world.engine.generation().unwrap();
    world.engine.shutdown_blocking();
    std::fs::rename(&file, &new).unwrap();
    std::fs::rename(&old, &file).unwrap();

    let open = |world: &World| {
        let builder = world.setup.prepare(Engine::builder()).runtime(world.runtime.handle().clone());
        builder.at_least_generation(generation).open(&file)
    };
    // LDK alone would take X again: its liquidity, and the node, are as they were.
    let stale = open(&world).unwrap_err();
    assert!(matches!(stale, StoreError::Stale { expected, .. } if expected == generation), "{stale:?}");
    std::fs::rename(&new, &file).unwrap();
    world.engine = open(&world).unwrap();
    world.payments = world.setup.bind(world.engine.clone()).unwrap();
    assert_eq!((world.known(&invoice), world.calls()), (Standing::Dispatched, 1));
}
