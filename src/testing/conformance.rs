//! The suite that every [`Store`] passes. A store of your own is tested by two calls:
//!
//! ```
//! use std::sync::Arc;
//! use ibid::{store::MemoryStore, testing::conformance};
//!
//! conformance::suite(|| Arc::new(MemoryStore::new()));
//! ```
//! and, where it is durable, [`reopening`]. A check that fails panics and names what it expected.

mod ledger;

use std::fmt::Debug;
use std::sync::Arc;

use crate::fingerprint::Fingerprint;
use crate::key::Key;
use crate::record::{AttemptId, BootId, Bytes, Mark, Origin, Record, State, Token};
use crate::store::{Batch, Change, Cursor, Store, StoreError, Totals, Verdict, Version};
use crate::time::UnixMillis;

/// Runs every check, each on a store of its own: `make` returns a new, empty one.
pub fn suite(make: impl Fn() -> Arc<dyn Store>) {
    let records: [fn(&dyn Store); 20] = [
        a_record_comes_back_as_it_was_put,
        nothing_and_empty_stay_apart,
        a_put_needs_the_version_it_was_decided_on,
        a_record_made_anew_is_another_version,
        a_batch_sees_its_own_changes_in_order,
        a_fenced_change_leaves_the_others_alone,
        the_quota_counts_per_scope_and_passes_replacements,
        the_quota_counts_inside_one_batch,
        the_quota_passes_what_ran_before_it_was_stored,
        the_records_of_a_scope_are_counted,
        a_batch_that_asks_for_nothing_changes_nothing,
        records_in_flight_are_listed_in_order_of_arrival,
        a_change_may_say_where_its_record_was_listed,
        records_are_removable_from_their_millisecond_on,
        completed_records_are_removable_from_their_tick_on,
        what_is_due_by_time_and_by_tick_is_listed_once,
        totals_follow_every_transition,
        the_clock_mark_never_goes_back,
        the_tick_mark_never_goes_back,
        a_closed_store_says_so,
    ];
    for check in records.into_iter().chain(ledger::CHECKS) {
        check(&*make());
    }
}

/// Runs the checks of a durable store. `open` opens one and the same store each time, empty at first; the suite closes
/// each before it opens the next.
pub fn reopening(open: impl Fn() -> Arc<dyn Store>) {
    let store = open();
    let (first, second) = (key("s", 1), key("s", 2));
    apply(&*store, &[put(&first, None, &registered(1)), put(&second, None, &registered(2))]);
    let done = Record { lapses_at_tick: Some(7), abandoned: true, ..completed(1, b"answer", Some(50)) };
    apply(&*store, &[put(&first, Some(&registered(1)), &done)]);
    equal(ok(store.commit(&Batch { tick: 6, ..batch(vec![]) })), vec![], "verdicts of a tick");
    ledger::write_some(&*store);
    close(&*store);

    let store = open();
    stored(&*store, &first, Some(&done));
    stored(&*store, &second, Some(&registered(2)));
    equal(in_flight(&*store, None, 9), vec![second.clone()], "in flight after reopening");
    equal(removable(&*store, 50), vec![first.clone()], "removable after reopening");
    equal(due(&*store, 0, 7, 9), vec![first.clone()], "removable by its tick after reopening");
    equal(ok(store.totals()), Totals { registered: 1, completed: 1, ..Totals::default() }, "totals after reopening");
    equal(ok(store.records_in_scope(b"s")), 2, "records of the scope after reopening");
    equal(ok(store.clock_mark()), NOW, "the clock mark after reopening");
    equal(ok(store.tick_mark()), 6, "the tick mark after reopening");
    ledger::find_them(&*store);
    apply(&*store, &[remove(&second, &registered(2))]);
    let third = key("s", 3);
    apply(&*store, &[put(&third, None, &registered(3)), put(&second, None, &registered(4))]);
    ok(store.rest());
    ok(store.reopen());
    stored(&*store, &first, Some(&done));
    equal(ok(store.tick_mark()), 6, "the tick mark after `reopen`");
    equal(in_flight(&*store, None, 9), vec![third.clone(), second.clone()], "in flight after `reopen`");
    ledger::find_them(&*store);
    close(&*store);

    let store = open();
    equal(in_flight(&*store, None, 9), vec![third, second], "new records come behind those of earlier openings");
    let full = Batch {
        now: NOW,
        records_per_scope: 3,
        changes: vec![put(&key("s", 4), None, &registered(5))],
        ..Batch::default()
    };
    equal(ok(store.commit(&full)), vec![Verdict::QuotaExceeded], "records of earlier openings count");
    close(&*store);
}

const NOW: UnixMillis = UnixMillis(1_000);

fn a_record_comes_back_as_it_was_put(store: &dyn Store) {
    let key = key("s", 1);
    stored(store, &key, None);
    let mut before = None;
    for mut record in every_state() {
        record.revision = before.as_ref().map_or(1, |record: &Record| record.revision + 1);
        apply(store, &[put(&key, before.as_ref(), &record)]);
        stored(store, &key, Some(&record));
        before = Some(record);
    }
    if let Some(record) = before {
        apply(store, &[remove(&key, &record)]);
    }
    stored(store, &key, None);
}

fn nothing_and_empty_stay_apart(store: &dyn Store) {
    let (none, empty) = (key("s", 1), key("s", 2));
    let record_none = Record { checkpoint: None, contradiction: None, ..completed(1, b"", None) };
    let record_none = Record { state: State::Completed(None), ..record_none };
    let record_empty = Record { checkpoint: bytes(b""), contradiction: bytes(b""), ..completed(2, b"", None) };
    apply(store, &[put(&none, None, &record_none), put(&empty, None, &record_empty)]);
    stored(store, &none, Some(&record_none));
    stored(store, &empty, Some(&record_empty));
}

fn a_put_needs_the_version_it_was_decided_on(store: &dyn Store) {
    let key = key("s", 1);
    let first = registered(1);
    let second = Record { revision: 2, ..registered(1) };
    let other_token = registered(2);
    verdict(store, put(&key, Some(&first), &second), Verdict::Fenced, "a version was expected of an absent record");
    verdict(store, put(&key, None, &first), Verdict::Applied, "absent was expected of an absent record");
    verdict(store, put(&key, None, &other_token), Verdict::Fenced, "absent was expected of a stored record");
    verdict(store, put(&key, Some(&other_token), &second), Verdict::Fenced, "the token is another one");
    verdict(store, remove(&key, &second), Verdict::Fenced, "the revision is a later one");
    stored(store, &key, Some(&first));
    verdict(store, put(&key, Some(&first), &second), Verdict::Applied, "the version is the stored one");
    verdict(store, remove(&key, &first), Verdict::Fenced, "the revision is an earlier one");
    verdict(store, remove(&key, &second), Verdict::Applied, "the version is the stored one");
    stored(store, &key, None);
}

fn a_record_made_anew_is_another_version(store: &dyn Store) {
    let key = key("s", 1);
    let (old, new) = (registered(1), registered(2));
    apply(store, &[put(&key, None, &old)]);
    apply(store, &[remove(&key, &old)]);
    apply(store, &[put(&key, None, &new)]);
    let late = Record { revision: 2, ..completed(1, b"answer of the old one", None) };
    verdict(store, put(&key, Some(&old), &late), Verdict::Fenced, "same key, same revision, another record");
    verdict(store, remove(&key, &old), Verdict::Fenced, "same key, same revision, another record");
    stored(store, &key, Some(&new));
}

fn a_batch_sees_its_own_changes_in_order(store: &dyn Store) {
    let key = key("s", 1);
    let first = registered(1);
    let second = Record { revision: 2, ..completed(1, b"answer", None) };
    let anew = registered(2);
    let batch = batch(vec![
        put(&key, None, &first),
        put(&key, None, &first),
        put(&key, Some(&first), &second),
        remove(&key, &first),
        remove(&key, &second),
        put(&key, None, &anew),
    ]);
    use Verdict::{Applied, Fenced};
    equal(ok(store.commit(&batch)), vec![Applied, Fenced, Applied, Fenced, Applied, Applied], "verdicts of one batch");
    stored(store, &key, Some(&anew));
    equal(ok(store.totals()), Totals { registered: 1, ..Totals::default() }, "totals of one batch");
    equal(in_flight(store, None, 9), vec![key], "in flight after one batch");
}

fn a_fenced_change_leaves_the_others_alone(store: &dyn Store) {
    let (first, second, third) = (key("s", 1), key("s", 2), key("s", 3));
    apply(store, &[put(&second, None, &registered(2))]);
    let batch = batch(vec![
        put(&first, None, &registered(1)),
        put(&second, None, &registered(9)),
        put(&third, None, &registered(3)),
    ]);
    let verdicts = ok(store.commit(&batch));
    equal(verdicts, vec![Verdict::Applied, Verdict::Fenced, Verdict::Applied], "only the middle one is fenced");
    stored(store, &first, Some(&registered(1)));
    stored(store, &second, Some(&registered(2)));
    stored(store, &third, Some(&registered(3)));
}

fn the_quota_counts_per_scope_and_passes_replacements(store: &dyn Store) {
    let limited = |change| Batch { now: NOW, records_per_scope: 2, changes: vec![change], ..Batch::default() };
    let check = |change, expected, why: &str| equal(ok(store.commit(&limited(change))), vec![expected], why);
    let (first, second, third) = (key("s", 1), key("s", 2), key("s", 3));
    check(put(&first, None, &registered(1)), Verdict::Applied, "the first of two");
    check(put(&second, None, &registered(2)), Verdict::Applied, "the second of two");
    check(put(&third, None, &registered(3)), Verdict::QuotaExceeded, "the third of two");
    stored(store, &third, None);
    check(put(&third, Some(&registered(3)), &registered(3)), Verdict::Fenced, "fenced comes before the quota");
    check(put(&key("other", 1), None, &registered(4)), Verdict::Applied, "another scope has its own quota");
    // A flow is no way around it: the quota is the scope's alone.
    check(put(&key_of("flow2", "s", 9), None, &registered(5)), Verdict::QuotaExceeded, "another flow, the same scope");
    let done = Record { revision: 2, ..completed(1, b"answer", None) };
    check(put(&first, Some(&registered(1)), &done), Verdict::Applied, "a replacement in a full scope");
    check(remove(&first, &done), Verdict::Applied, "a removal in a full scope");
    check(put(&third, None, &registered(3)), Verdict::Applied, "a removal makes room");
}

fn the_quota_counts_inside_one_batch(store: &dyn Store) {
    let (first, second, third) = (key("s", 1), key("s", 2), key("s", 3));
    let changes = vec![
        put(&first, None, &registered(1)),
        put(&second, None, &registered(2)),
        remove(&first, &registered(1)),
        put(&third, None, &registered(3)),
    ];
    use Verdict::{Applied, QuotaExceeded};
    let batch = Batch { now: NOW, records_per_scope: 1, changes, ..Batch::default() };
    equal(ok(store.commit(&batch)), vec![Applied, QuotaExceeded, Applied, Applied], "the quota inside one batch");
    equal(in_flight(store, None, 9), vec![third], "what the quota let through");
}

fn the_quota_passes_what_ran_before_it_was_stored(store: &dyn Store) {
    let limited = |change| Batch { now: NOW, records_per_scope: 1, changes: vec![change], ..Batch::default() };
    let check = |change, expected, why: &str| equal(ok(store.commit(&limited(change))), vec![expected], why);
    let (first, second, third) = (key("s", 1), key("s", 2), key("s", 3));
    check(put(&first, None, &registered(1)), Verdict::Applied, "the first of one");
    let of_revision = |revision, token| Record { revision, ..completed(token, b"answer", None) };
    check(put(&second, None, &of_revision(1, 2)), Verdict::QuotaExceeded, "a first revision in a full scope");
    check(put(&second, None, &of_revision(2, 2)), Verdict::Applied, "a second revision whose first was never stored");
    stored(store, &second, Some(&of_revision(2, 2)));
    check(put(&third, None, &registered(3)), Verdict::QuotaExceeded, "it counts all the same");
    equal(ok(store.records_in_scope(b"s")), 2, "records over the quota");
}

fn the_records_of_a_scope_are_counted(store: &dyn Store) {
    let counts = |expected: [u64; 2], when: &str| {
        let found = [b"s".as_slice(), b"other"].map(|scope| ok(store.records_in_scope(scope)));
        equal(found, expected, when);
    };
    counts([0, 0], "records of a scope without any");
    let (first, second) = (key("s", 1), key_of("flow2", "s", 1));
    let tombstone = Record { state: State::Tombstone(Mark::Fenced), ..registered(2) };
    apply(store, &[put(&first, None, &registered(1)), put(&second, None, &tombstone)]);
    counts([2, 0], "records of every flow and tombstones");
    let done = Record { revision: 2, ..completed(1, b"answer", None) };
    apply(store, &[put(&first, Some(&registered(1)), &done), put(&key("other", 1), None, &registered(3))]);
    counts([2, 1], "records after a replacement");
    apply(store, &[remove(&first, &done), remove(&key("other", 1), &registered(3))]);
    counts([1, 0], "records after removals");
    // The beginning of another scope's name is no name of it.
    equal(ok(store.records_in_scope(b"")), 0, "records of a scope without a name");
}

fn a_batch_that_asks_for_nothing_changes_nothing(store: &dyn Store) {
    let key = key("s", 1);
    let nothing = Change::new(key.clone(), None, None);
    let batch = Batch { now: NOW, records_per_scope: 0, changes: vec![nothing], ..Batch::default() };
    equal(ok(store.commit(&batch)), vec![Verdict::Applied], "absent stays absent, also in a full scope");
    stored(store, &key, None);
    equal(ok(store.totals()), Totals::default(), "totals of an empty store");
    equal(ok(store.commit(&Batch::default())), vec![], "verdicts of an empty batch");
}

fn records_in_flight_are_listed_in_order_of_arrival(store: &dyn Store) {
    // The keys come in falling order, so that an order by key would show.
    let keys: Vec<Key> = (0..6).rev().map(|id| key("s", id)).collect();
    for (key, token) in keys.iter().zip(1..) {
        apply(store, &[put(key, None, &registered(token))]);
    }
    equal(in_flight(store, None, 9), keys.clone(), "all in flight");
    equal(in_flight(store, None, 0), vec![], "none at limit 0");
    let mut paged = Vec::new();
    let mut cursor: Option<Cursor> = None;
    loop {
        let page = ok(store.in_flight(cursor, 4));
        let Some(last) = page.last() else { break };
        cursor = Some(last.cursor);
        paged.extend(page.into_iter().filter_map(|entry| entry.found).map(|(key, _)| key));
    }
    equal(paged, keys.clone(), "page by page");
    equal(in_flight(store, Some(Cursor(u64::MAX)), 9), vec![], "nothing behind the last place");

    // Whatever stays in flight keeps its place; what ends goes; what comes anew comes last.
    let mut left = keys.clone();
    let transitions = [
        (State::Dispatched, true),
        (State::InDoubt, true),
        (State::Completed(None), false),
        (State::Failed(Origin::Resolved, b"no".as_slice().into()), false),
    ];
    for ((state, stays), (key, token)) in transitions.into_iter().zip(keys.iter().zip(1..)) {
        apply(store, &[put(key, Some(&registered(token)), &Record { revision: 2, state, ..registered(token) })]);
        left.retain(|other| stays || other != key);
        equal(in_flight(store, None, 9), left.clone(), "in flight after a transition");
    }
    let last = key("s", 7);
    apply(store, &[put(&last, None, &registered(7))]);
    left.push(last);
    equal(in_flight(store, None, 9), left, "a new record comes last");
}

fn a_change_may_say_where_its_record_was_listed(store: &dyn Store) {
    let keys = [key("s", 1), key("s", 2), key("s", 3)];
    for (key, token) in keys.iter().zip(1..) {
        apply(store, &[put(key, None, &registered(token))]);
    }
    let entries = ok(store.in_flight(None, 9));
    let places: Vec<_> = entries.iter().map(|entry| Some(entry.cursor)).collect();
    let [first, second, third] = places.as_slice() else { fail("three are in flight") };
    let nowhere = Some(Cursor(u64::MAX));
    let next = |token, revision| Record { revision, state: State::InDoubt, ..registered(token) };
    let long = Record { checkpoint: bytes(&[7; 5_000]), ..next(2, 2) };
    let at = |listed_at: Option<Cursor>, change| Change { listed_at, ..change };
    apply(
        store,
        &[
            at(*first, put(&keys[0], Some(&registered(1)), &next(1, 2))),
            at(*first, put(&keys[1], Some(&registered(2)), &long)),
            at(nowhere, put(&keys[2], Some(&registered(3)), &next(3, 2))),
        ],
    );
    let done = Record { revision: 3, ..completed(1, b"answer", None) };
    apply(
        store,
        &[
            at(*first, put(&keys[0], Some(&next(1, 2)), &done)),
            at(*second, put(&keys[1], Some(&long), &next(2, 3))),
            at(*third, remove(&keys[2], &next(3, 2))),
            at(*third, put(&keys[2], None, &registered(4))),
        ],
    );
    stored(store, &keys[0], Some(&done));
    stored(store, &keys[1], Some(&next(2, 3)));
    stored(store, &keys[2], Some(&registered(4)));
    equal(in_flight(store, None, 9), vec![keys[1].clone(), keys[2].clone()], "in flight after all that");
    verdict(store, at(*second, put(&keys[1], None, &registered(9))), Verdict::Fenced, "a version that is not there");
    verdict(store, at(*second, remove(&key("s", 9), &next(2, 3))), Verdict::Fenced, "another record's place");
    apply(store, &[at(*second, put(&key("s", 9), None, &registered(9)))]);
    stored(store, &keys[1], Some(&next(2, 3)));
    stored(store, &key("s", 9), Some(&registered(9)));
}

fn records_are_removable_from_their_millisecond_on(store: &dyn Store) {
    let (early, late, never) = (key("s", 1), key("s", 2), key("s", 3));
    let (running, tomb) = (key("s", 4), key("s", 5));
    let tombstone = Record {
        state: State::Tombstone(Mark::Expired),
        tombstone_until: Some(UnixMillis(30)),
        lapses_at: Some(UnixMillis(1)),
        ..registered(5)
    };
    apply(
        store,
        &[
            put(&late, None, &completed(2, b"", Some(20))),
            put(&early, None, &completed(1, b"", Some(10))),
            put(&never, None, &completed(3, b"", None)),
            put(&running, None, &Record { lapses_at: Some(UnixMillis(1)), ..registered(4) }),
            put(&tomb, None, &tombstone),
        ],
    );
    equal(removable(store, 9), vec![], "one millisecond before");
    equal(removable(store, 10), vec![early.clone()], "at the millisecond");
    equal(removable(store, 19), vec![early.clone()], "before the second");
    equal(removable(store, 20), vec![early.clone(), late.clone()], "oldest first, whatever came first");
    equal(removable(store, u64::MAX), vec![early.clone(), late.clone(), tomb.clone()], "at the end of time");
    equal(ok(store.removable(UnixMillis(20), 0, 1)).len(), 1, "entries at limit 1");
    let put_off = Record { revision: 2, ..completed(1, b"", Some(25)) };
    apply(store, &[put(&early, Some(&completed(1, b"", Some(10))), &put_off)]);
    equal(removable(store, 24), vec![late.clone()], "a record that was put off");
    apply(store, &[remove(&late, &completed(2, b"", Some(20)))]);
    equal(removable(store, 30), vec![early, tomb], "a record that was removed");
}

fn completed_records_are_removable_from_their_tick_on(store: &dyn Store) {
    let (early, late, never) = (key("s", 1), key("s", 2), key("s", 3));
    let (running, failed, tomb) = (key("s", 4), key("s", 5), key("s", 6));
    let lapsing = |token, tick| Record { lapses_at_tick: Some(tick), ..completed(token, b"", None) };
    let other = |token, state| Record { lapses_at_tick: Some(1), state, ..registered(token) };
    let (early_record, late_record) = (lapsing(1, 10), lapsing(2, 20));
    apply(
        store,
        &[
            put(&late, None, &late_record),
            put(&early, None, &early_record),
            put(&never, None, &completed(3, b"", None)),
            put(&running, None, &other(4, State::Dispatched)),
            put(&failed, None, &other(5, State::Failed(Origin::Resolved, b"no".as_slice().into()))),
            put(&tomb, None, &other(6, State::Tombstone(Mark::Fenced))),
        ],
    );
    let by_tick = |tick| due(store, u64::MAX, tick, 9);
    equal(by_tick(9), vec![], "one tick before");
    equal(by_tick(10), vec![early.clone()], "at the tick");
    equal(by_tick(19), vec![early.clone()], "before the second");
    equal(by_tick(20), vec![early.clone(), late.clone()], "oldest first, whatever came first");
    equal(by_tick(u64::MAX), vec![early.clone(), late.clone()], "no others, at whatever tick");
    equal(due(store, 0, 20, 1), vec![early.clone()], "the oldest at limit 1");
    equal(due(store, 0, 20, 0), vec![], "none at limit 0");
    equal(ok(store.removable(NOW, 10, 9)), vec![(early.clone(), early_record.clone())], "key and record");

    let put_off = Record { revision: 2, lapses_at_tick: Some(25), ..early_record.clone() };
    apply(store, &[put(&early, Some(&early_record), &put_off)]);
    equal(by_tick(24), vec![late.clone()], "a record that was put off");
    equal(by_tick(25), vec![late.clone(), early.clone()], "once, and at its new place");
    apply(store, &[remove(&late, &late_record)]);
    equal(by_tick(u64::MAX), vec![early.clone()], "a record that was removed");
    let for_ever = Record { revision: 3, lapses_at_tick: None, ..put_off.clone() };
    apply(store, &[put(&early, Some(&put_off), &for_ever)]);
    equal(by_tick(u64::MAX), vec![], "a record that no tick releases any more");
    let done = Record { revision: 2, ..lapsing(4, 1) };
    apply(store, &[put(&running, Some(&other(4, State::Dispatched)), &done)]);
    equal(by_tick(1), vec![running.clone()], "a record that has completed");
    apply(store, &[put(&running, Some(&done), &Record { revision: 3, ..other(4, State::Tombstone(Mark::Expired)) })]);
    equal(by_tick(u64::MAX), vec![], "a record that has become a tombstone");
}

fn what_is_due_by_time_and_by_tick_is_listed_once(store: &dyn Store) {
    let lapsing = |token, at, tick| Record { lapses_at_tick: Some(tick), ..completed(token, b"", at) };
    let keys: Vec<Key> = (1..=4).map(|id| key("s", id)).collect();
    let records = [lapsing(1, Some(20), 1), lapsing(2, Some(10), 9), lapsing(3, None, 5), completed(4, b"", Some(15))];
    let puts: Vec<Change> = keys.iter().zip(&records).map(|(key, record)| put(key, None, record)).collect();
    apply(store, &puts);
    let numbers = |now, tick, limit| {
        let found = due(store, now, tick, limit);
        found.iter().flat_map(|key| key.id().to_vec()).collect::<Vec<u8>>()
    };
    equal(numbers(9, 0, 9), vec![], "before everything");
    equal(numbers(10, 0, 9), vec![2], "by its time, long before its tick");
    equal(numbers(9, 1, 9), vec![1], "by its tick, long before its time");
    equal(numbers(15, 9, 9), vec![2, 4, 1, 3], "by time first, then by tick");
    equal(numbers(20, 9, 9), vec![2, 4, 1, 3], "each once");
    equal(numbers(20, 9, 3), vec![2, 4, 1], "the limit counts them together");
    equal(numbers(10, 9, 2), vec![2, 1], "the limit counts what is listed");
    let removals: Vec<Change> = keys.iter().zip(&records).take(2).map(|(key, record)| remove(key, record)).collect();
    apply(store, &removals);
    equal(numbers(u64::MAX, u64::MAX, 9), vec![4, 3], "what was removed is gone from both");
}

fn totals_follow_every_transition(store: &dyn Store) {
    let key = key("s", 1);
    let mut before: Option<Record> = None;
    for mut record in every_state() {
        record.revision = before.as_ref().map_or(1, |record| record.revision + 1);
        apply(store, &[put(&key, before.as_ref(), &record)]);
        let mut expected = Totals::default();
        let count = match record.state {
            State::Registered => &mut expected.registered,
            State::Dispatched => &mut expected.dispatched,
            State::InDoubt => &mut expected.in_doubt,
            State::Completed(_) => &mut expected.completed,
            State::Failed(..) => &mut expected.failed,
            State::Tombstone(_) => &mut expected.tombstone,
        };
        *count = 1;
        equal(ok(store.totals()), expected, "totals after a transition");
        before = Some(record);
    }
    if let Some(record) = before {
        apply(store, &[remove(&key, &record)]);
    }
    equal(ok(store.totals()), Totals::default(), "totals after the removal");
}

fn the_clock_mark_never_goes_back(store: &dyn Store) {
    equal(ok(store.clock_mark()), UnixMillis(0), "the clock mark of a new store");
    for (now, mark) in [(500, 500), (400, 500), (500, 500), (501, 501), (0, 501)] {
        let batch = Batch { now: UnixMillis(now), ..Batch::default() };
        equal(ok(store.commit(&batch)), vec![], "verdicts of an empty batch");
        equal(ok(store.clock_mark()), UnixMillis(mark), "the clock mark");
    }
}

fn the_tick_mark_never_goes_back(store: &dyn Store) {
    equal(ok(store.tick_mark()), 0, "the tick mark of a new store");
    for (tick, mark) in [(0, 0), (5, 5), (4, 5), (5, 5), (6, 6), (0, 6)] {
        let batch = Batch { tick, ..Batch::default() };
        equal(ok(store.commit(&batch)), vec![], "verdicts of an empty batch");
        equal(ok(store.tick_mark()), mark, "the tick mark");
        equal(ok(store.clock_mark()), UnixMillis(0), "a tick is no time");
    }
}

fn a_closed_store_says_so(store: &dyn Store) {
    ok(store.rest());
    ok(store.rest());
    ok(store.reopen());
    close(store);
    let key = key("s", 1);
    closed(store.commit(&Batch::default()), "commit");
    closed(store.get(&key), "get");
    closed(store.in_flight(None, 1), "in_flight");
    closed(store.removable(NOW, 1, 1), "removable");
    closed(store.row("hashes", b"a"), "row");
    closed(store.rows("hashes", None, 1), "rows");
    closed(store.expired_rows(NOW, 1), "expired_rows");
    closed(store.records_in_scope(b"s"), "records_in_scope");
    closed(store.totals(), "totals");
    closed(store.clock_mark(), "clock_mark");
    closed(store.tick_mark(), "tick_mark");
    closed(store.generation(), "generation");
    closed(store.rest(), "rest");
    closed(store.reopen(), "reopen");
    closed(store.close(), "close");
}

fn key(scope: &str, id: u8) -> Key {
    key_of("flow", scope, id)
}

fn key_of(flow: &str, scope: &str, id: u8) -> Key {
    Key::new(flow, scope.as_bytes(), &[id]).unwrap_or_else(|error| fail(&format!("a key of the suite: {error}")))
}

fn bytes(bytes: &[u8]) -> Option<Bytes> {
    Some(bytes.into())
}

/// A record at revision 1 whose token is made of `token`.
fn registered(token: u8) -> Record {
    Record {
        revision: 1,
        fingerprint: Fingerprint::of("flow", &[token]),
        request: [token].as_slice().into(),
        attempt: AttemptId { number: 1, boot: BootId([token; 16]), token: Token([token; 32]) },
        state: State::Registered,
        checkpoint: None,
        recoveries: 0,
        created_at: UnixMillis(1),
        updated_at: UnixMillis(2),
        expires_at: None,
        lapses_at: None,
        tombstone_until: None,
        contradiction: None,
        lapses_at_tick: None,
        abandoned: false,
    }
}

fn completed(token: u8, answer: &[u8], lapses_at: Option<u64>) -> Record {
    let lapses_at = lapses_at.map(UnixMillis);
    Record { state: State::Completed(bytes(answer)), lapses_at, ..registered(token) }
}

fn every_state() -> Vec<Record> {
    [
        State::Registered,
        State::InDoubt,
        State::Dispatched,
        State::Completed(bytes(b"answer")),
        State::Completed(bytes(b"")),
        State::Completed(None),
        State::Failed(Origin::RolledBack, b"no".as_slice().into()),
        State::Failed(Origin::Resolved, b"".as_slice().into()),
        State::Tombstone(Mark::Expired),
        State::Tombstone(Mark::Fenced),
    ]
    .into_iter()
    .map(|state| Record {
        state,
        checkpoint: bytes(b"checkpoint"),
        recoveries: 2,
        expires_at: Some(UnixMillis(3)),
        lapses_at: Some(UnixMillis(u64::MAX)),
        tombstone_until: Some(UnixMillis(0)),
        contradiction: bytes(b"late"),
        lapses_at_tick: Some(u64::MAX),
        abandoned: true,
        ..registered(1)
    })
    .collect()
}

fn put(key: &Key, expected: Option<&Record>, record: &Record) -> Change {
    Change::new(key.clone(), expected.map(Version::of), Some(Arc::new(record.clone())))
}

fn remove(key: &Key, expected: &Record) -> Change {
    Change::new(key.clone(), Some(Version::of(expected)), None)
}

fn batch(changes: Vec<Change>) -> Batch {
    Batch { now: NOW, records_per_scope: 100, changes, ..Batch::default() }
}

fn apply(store: &dyn Store, changes: &[Change]) {
    let verdicts = ok(store.commit(&batch(changes.to_vec())));
    equal(verdicts, vec![Verdict::Applied; changes.len()], "every change is applied");
}

fn verdict(store: &dyn Store, change: Change, expected: Verdict, why: &str) {
    equal(ok(store.commit(&batch(vec![change]))), vec![expected], why);
}

fn stored(store: &dyn Store, key: &Key, expected: Option<&Record>) {
    equal(ok(store.get(key)).as_ref(), expected, "the stored record");
}

fn in_flight(store: &dyn Store, after: Option<Cursor>, limit: usize) -> Vec<Key> {
    let entries = ok(store.in_flight(after, limit));
    entries.into_iter().filter_map(|entry| entry.found).map(|(key, _)| key).collect()
}

fn removable(store: &dyn Store, now: u64) -> Vec<Key> {
    due(store, now, 0, 9)
}

fn due(store: &dyn Store, now: u64, tick: u64, limit: usize) -> Vec<Key> {
    ok(store.removable(UnixMillis(now), tick, limit)).into_iter().map(|(key, _)| key).collect()
}

fn close(store: &dyn Store) {
    ok(store.close());
}

fn closed<T: Debug>(result: Result<T, StoreError>, call: &str) {
    assert!(matches!(result, Err(StoreError::Closed)), "`{call}` of a closed store returned {result:?}");
}

fn equal<T: PartialEq + Debug>(found: T, expected: T, what: &str) {
    assert_eq!(found, expected, "{what}: found on the left, expected on the right");
}

fn ok<T>(result: Result<T, StoreError>) -> T {
    result.unwrap_or_else(|error| fail(&format!("the store failed: {error} ({error:?})")))
}

#[allow(clippy::panic, reason = "a failed check must end the test that runs it")]
fn fail(message: &str) -> ! {
    panic!("{message}")
}
