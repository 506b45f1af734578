//! The part about ledger rows.

use super::*;
use crate::ledger::{Guard, Row, StoredRow};
use crate::store::ExpiredRow;

pub(super) const CHECKS: [fn(&dyn Store); 16] = [
    a_row_is_there_with_its_record_or_not_at_all,
    what_speaks_against_a_change_first_is_its_verdict,
    each_guard_holds_of_what_it_says,
    one_guard_that_does_not_hold_stops_the_whole_change,
    a_guard_sees_the_earlier_changes_of_its_batch,
    a_row_past_its_end_is_absent_to_guards_and_there_to_reads,
    of_two_rows_under_one_key_the_later_is_kept,
    a_removed_row_is_gone_with_its_end,
    a_removal_is_guarded_like_a_write,
    of_a_write_and_a_removal_of_one_row_the_later_counts,
    expired_rows_come_oldest_first_from_their_millisecond_on,
    a_row_is_removed_only_with_the_end_it_has,
    removing_a_record_leaves_its_rows_and_may_write_others,
    a_change_of_rows_alone_needs_a_key_without_a_record_and_is_nothing_to_records,
    rows_come_by_table_in_the_order_of_their_keys,
    the_generation_grows_with_what_changes_and_with_nothing_else,
];

const TABLE: &str = "hashes";

fn a_row_is_there_with_its_record_or_not_at_all(store: &dyn Store) {
    let (first, second) = (key("s", 1), key("s", 2));
    let written = with(put(&first, None, &registered(1)), [row(b"a", b"1"), row(b"b", b"").expires_at(UnixMillis(0))]);
    apply(
        store,
        &[written, with(put(&second, None, &registered(2)), [row(b"c", b"3").expires_at(UnixMillis(u64::MAX))])],
    );
    stored(store, &first, Some(&registered(1)));
    stored(store, &second, Some(&registered(2)));
    stored_row(store, b"a", Some((b"1", None)));
    stored_row(store, b"b", Some((b"", Some(0))));
    stored_row(store, b"c", Some((b"3", Some(u64::MAX))));

    let fenced = with(put(&first, None, &registered(9)), [row(b"a", b"fenced"), row(b"d", b"fenced")]);
    verdict(store, fenced, Verdict::Fenced, "a fenced change with rows");
    stored_row(store, b"a", Some((b"1", None)));
    stored_row(store, b"d", None);
    let large = vec![7; 100_000];
    let next = Record { revision: 2, ..completed(1, b"answer", None) };
    apply(store, &[with(put(&first, Some(&registered(1)), &next), [row(b"a", &large)])]);
    stored(store, &first, Some(&next));
    stored_row(store, b"a", Some((&large, None)));
}

fn what_speaks_against_a_change_first_is_its_verdict(store: &dyn Store) {
    apply(store, &[with(put(&key("s", 1), None, &registered(1)), [row(b"taken", b"1")])]);
    let taken = || [row(b"new", b"2"), row(b"taken", b"2").guard(Guard::Absent)];
    let full = |change| Batch { now: NOW, records_per_scope: 1, changes: vec![change], ..Batch::default() };
    let check = |change, expected, why: &str| equal(ok(store.commit(&full(change))), vec![expected], why);
    let fresh = key("s", 2);
    check(with(put(&fresh, Some(&registered(9)), &registered(2)), taken()), Verdict::Fenced, "version, guard, quota");
    check(with(put(&fresh, None, &registered(2)), taken()), Verdict::Guarded, "guard and quota");
    let free = [row(b"new", b"2")];
    check(with(put(&fresh, None, &registered(2)), free), Verdict::QuotaExceeded, "the quota alone");
    stored(store, &fresh, None);
    stored_row(store, b"new", None);
    stored_row(store, b"taken", Some((b"1", None)));
}

fn each_guard_holds_of_what_it_says(store: &dyn Store) {
    let equals = |value: &[u8]| Guard::Equals(value.into());
    let cases: [(Option<&[u8]>, Guard, bool); 9] = [
        (None, Guard::Any, true),
        (None, Guard::Absent, true),
        (None, equals(b""), false),
        (Some(b"v"), Guard::Any, true),
        (Some(b"v"), Guard::Absent, false),
        (Some(b"v"), equals(b"v"), true),
        (Some(b"v"), equals(b"w"), false),
        (Some(b""), equals(b""), true),
        (Some(b""), Guard::Absent, false),
    ];
    for (id, (before, guard, holds)) in (0..).zip(cases) {
        let (key, name) = (key("s", id), [id]);
        if let Some(before) = before {
            write(store, [row(&name, before)]);
        }
        let why = format!("{guard:?} of {before:?}");
        let change = with(put(&key, None, &registered(id)), [row(&name, b"new").guard(guard)]);
        verdict(store, change, if holds { Verdict::Applied } else { Verdict::Guarded }, &why);
        stored(store, &key, holds.then(|| registered(id)).as_ref());
        stored_row(store, &name, if holds { Some((b"new", None)) } else { before.map(|value| (value, None)) });
    }
}

fn one_guard_that_does_not_hold_stops_the_whole_change(store: &dyn Store) {
    write(store, [row(b"b", b"1")]);
    let (stopped, other) = (key("s", 1), key("s", 2));
    let rows = [row(b"a", b"2"), row(b"b", b"2").guard(Guard::Absent), row(b"c", b"2").expires_at(UnixMillis(1))];
    let changes = vec![
        with(put(&stopped, None, &registered(1)), rows),
        with(put(&other, None, &registered(2)), [row(b"d", b"3").guard(Guard::Absent)]),
    ];
    let verdicts = ok(store.commit(&batch(changes)));
    equal(verdicts, vec![Verdict::Guarded, Verdict::Applied], "only the first is guarded");
    stored(store, &stopped, None);
    stored(store, &other, Some(&registered(2)));
    let expected = vec![(b"b".to_vec(), b"1".to_vec()), (b"d".to_vec(), b"3".to_vec())];
    equal(rows_of(store, TABLE, None, 9), expected, "the rows beside a guarded change");
    equal(expired(store, u64::MAX, 9), vec![], "a row that was not written does not expire");
    let expected = Totals { registered: 1, ..Totals::default() };
    equal(ok(store.totals()), expected, "totals beside a guarded change");
}

fn a_guard_sees_the_earlier_changes_of_its_batch(store: &dyn Store) {
    let (winner, loser, follower) = (key("s", 1), key("s", 2), key("s", 3));
    apply(store, &[put(&loser, None, &registered(2))]);
    let done = Record { revision: 2, ..completed(2, b"answer", None) };
    let claim = |value: &[u8]| [row(b"hash", value).guard(Guard::Absent)];
    let changes = vec![
        with(put(&winner, None, &registered(1)), claim(b"winner")),
        with(put(&loser, Some(&registered(2)), &done), claim(b"loser")),
        with(
            put(&follower, None, &registered(3)),
            [row(b"hash", b"next").guard(Guard::Equals(b"winner".as_slice().into()))],
        ),
    ];
    use Verdict::{Applied, Guarded};
    equal(ok(store.commit(&batch(changes))), vec![Applied, Guarded, Applied], "two that ask for one row, and a third");
    stored(store, &winner, Some(&registered(1)));
    stored(store, &loser, Some(&registered(2)));
    stored(store, &follower, Some(&registered(3)));
    stored_row(store, b"hash", Some((b"next", None)));
}

fn a_row_past_its_end_is_absent_to_guards_and_there_to_reads(store: &dyn Store) {
    let end = NOW;
    write(store, [row(b"a", b"1").expires_at(end), row(b"b", b"1").expires_at(UnixMillis(end.0 + 1))]);
    stored_row(store, b"a", Some((b"1", Some(end.0))));
    equal(rows_of(store, TABLE, None, 9).len(), 2, "expired rows are listed, too");
    let same = || Guard::Equals(b"1".as_slice().into());
    let nothing = |guarded| with(nothing(), [guarded]);
    verdict(store, nothing(row(b"a", b"2").guard(same())), Verdict::Guarded, "the value of a row at its end");
    verdict(store, nothing(row(b"b", b"2").guard(Guard::Absent)), Verdict::Guarded, "a millisecond before its end");
    verdict(store, nothing(row(b"b", b"2").guard(same())), Verdict::Applied, "the value a millisecond before its end");
    // Written with an end that has passed, it is absent at once, also to the same batch.
    let changes = vec![
        nothing(row(b"a", b"2").expires_at(UnixMillis(3)).guard(Guard::Absent)),
        nothing(row(b"a", b"3").guard(Guard::Absent)),
    ];
    equal(ok(store.commit(&batch(changes))), vec![Verdict::Applied; 2], "a row at its end reads as absent");
    stored_row(store, b"a", Some((b"3", None)));
    equal(expired(store, u64::MAX, 9), vec![], "the ends went with the rows that had them");
}

fn of_two_rows_under_one_key_the_later_is_kept(store: &dyn Store) {
    let ends = |value: &[u8], end| row(b"a", value).expires_at(UnixMillis(end));
    // Both guards speak of what was there before.
    write(store, [ends(b"1", 10).guard(Guard::Absent), ends(b"2", 20).guard(Guard::Absent)]);
    stored_row(store, b"a", Some((b"2", Some(20))));
    equal(expired(store, u64::MAX, 9), vec![(TABLE.to_owned(), b"a".to_vec(), 20)], "one row, one end");
    write(store, [ends(b"3", 5), row(b"a", b"4")]);
    stored_row(store, b"a", Some((b"4", None)));
    equal(expired(store, u64::MAX, 9), vec![], "the later has no end");
    let equals = Guard::Equals(b"5".as_slice().into());
    let change = with(nothing(), [row(b"a", b"5"), row(b"a", b"6").guard(equals)]);
    verdict(store, change, Verdict::Guarded, "a guard does not see its own change");
    let equals = Guard::Equals(b"not this".as_slice().into());
    let change = with(nothing(), [row(b"a", b"5").guard(equals), row(b"a", b"6")]);
    verdict(store, change, Verdict::Guarded, "the guard of a row that another one replaces");
    stored_row(store, b"a", Some((b"4", None)));
}

fn a_removed_row_is_gone_with_its_end(store: &dyn Store) {
    let ends = |key: &[u8], end| row(key, b"v").expires_at(UnixMillis(end));
    write(
        store,
        [ends(b"a", 10), ends(b"b", 20), row(b"c", b"v"), row_of("other", b"a", b"v").expires_at(UnixMillis(30))],
    );
    let key = key("s", 1);
    // With the record of its change, or not at all.
    let fenced = with(put(&key, Some(&registered(9)), &registered(1)), [gone(b"a")]);
    verdict(store, fenced, Verdict::Fenced, "a fenced change with a removal");
    stored_row(store, b"a", Some((b"v", Some(10))));
    apply(store, &[with(put(&key, None, &registered(1)), [gone(b"a"), gone(b"c"), gone(b"never")])]);
    stored_row(store, b"a", None);
    stored_row(store, b"c", None);
    equal(rows_of(store, TABLE, None, 9), vec![(b"b".to_vec(), b"v".to_vec())], "what is left of the table");
    let left = vec![(TABLE.to_owned(), b"b".to_vec(), 20), ("other".to_owned(), b"a".to_vec(), 30)];
    equal(expired(store, u64::MAX, 9), left.clone(), "the end of a removed row");
    // A removal that is given an end is a removal all the same.
    write(store, [gone(b"b").expires_at(UnixMillis(50)), gone(b"never").expires_at(UnixMillis(50))]);
    equal(rows_of(store, TABLE, None, 9), vec![], "every row of the table is gone");
    equal(expired(store, u64::MAX, 9), vec![("other".to_owned(), b"a".to_vec(), 30)], "and so are their ends");
    // Made anew, it has no end of the old one.
    write(store, [row(b"a", b"anew").guard(Guard::Absent)]);
    stored_row(store, b"a", Some((b"anew", None)));
    equal(expired(store, 29, 9), vec![], "a row made anew without an end");
}

fn a_removal_is_guarded_like_a_write(store: &dyn Store) {
    let equals = |value: &[u8]| Guard::Equals(value.into());
    let cases: [(Option<&[u8]>, Guard, bool); 8] = [
        (None, Guard::Any, true),
        (None, Guard::Absent, true),
        (None, equals(b""), false),
        (Some(b"v"), Guard::Any, true),
        (Some(b"v"), Guard::Absent, false),
        (Some(b"v"), equals(b"v"), true),
        (Some(b"v"), equals(b"w"), false),
        (Some(b""), equals(b""), true),
    ];
    for (id, (before, guard, holds)) in (0..).zip(cases) {
        let (key, name) = (key("s", id), [id]);
        if let Some(before) = before {
            write(store, [row(&name, before)]);
        }
        let why = format!("removed under {guard:?}, was {before:?}");
        let change = with(put(&key, None, &registered(id)), [gone(&name).guard(guard)]);
        verdict(store, change, if holds { Verdict::Applied } else { Verdict::Guarded }, &why);
        stored(store, &key, holds.then(|| registered(id)).as_ref());
        stored_row(store, &name, before.filter(|_| !holds).map(|value| (value, None)));
    }
    // Past its end a row is absent to the guard, and goes all the same.
    write(store, [row(b"past", b"v").expires_at(NOW)]);
    verdict(
        store,
        with(nothing(), [gone(b"past").guard(equals(b"v"))]),
        Verdict::Guarded,
        "the value of a row at its end",
    );
    write(store, [gone(b"past").guard(Guard::Absent)]);
    stored_row(store, b"past", None);
    equal(expired(store, u64::MAX, 9), vec![], "the end of a row that was past it");
    // A guard sees what the changes before its own have removed.
    write(store, [row(b"moved", b"v")]);
    let changes = vec![
        with(nothing(), [gone(b"moved").guard(equals(b"v"))]),
        with(nothing(), [gone(b"moved").guard(equals(b"v"))]),
        with(nothing(), [row(b"moved", b"w").guard(Guard::Absent)]),
    ];
    use Verdict::{Applied, Guarded};
    equal(
        ok(store.commit(&batch(changes))),
        vec![Applied, Guarded, Applied],
        "a row that is removed once and made anew",
    );
    stored_row(store, b"moved", Some((b"w", None)));
}

fn of_a_write_and_a_removal_of_one_row_the_later_counts(store: &dyn Store) {
    let ends = |value: &[u8], end| row(b"a", value).expires_at(UnixMillis(end));
    write(store, [gone(b"a"), ends(b"1", 10)]);
    stored_row(store, b"a", Some((b"1", Some(10))));
    write(store, [ends(b"2", 20), gone(b"a")]);
    stored_row(store, b"a", None);
    equal(expired(store, u64::MAX, 9), vec![], "neither end is left");
    write(store, [ends(b"3", 30), gone(b"a")]);
    stored_row(store, b"a", None);
    equal(expired(store, u64::MAX, 9), vec![], "what was never there leaves no end");
    let due = ExpiredRow { table: TABLE.into(), key: b"a".as_slice().into(), expires_at: UnixMillis(40) };
    write(store, [ends(b"4", 40)]);
    let batch = Batch { expired_rows: vec![due], ..batch(vec![with(nothing(), [gone(b"a")])]) };
    equal(ok(store.commit(&batch)), vec![Verdict::Applied], "removed by a change and as expired");
    stored_row(store, b"a", None);
}

fn a_change_of_rows_alone_needs_a_key_without_a_record_and_is_nothing_to_records(store: &dyn Store) {
    let (taken, free) = (key("s", 1), key("s", 2));
    apply(store, &[put(&taken, None, &registered(1))]);
    let alone = |key: &Key, row| Change { rows: vec![row], ..Change::new(key.clone(), None, None) };
    verdict(store, alone(&taken, row(b"a", b"1")), Verdict::Fenced, "a key that has a record");
    stored_row(store, b"a", None);
    // The scope is full, and it makes no difference.
    let full = |change| Batch { now: NOW, records_per_scope: 1, changes: vec![change], ..Batch::default() };
    for round in [b"1", b"2"] {
        equal(ok(store.commit(&full(alone(&free, row(b"a", round))))), vec![Verdict::Applied], "rows alone");
        stored_row(store, b"a", Some((round, None)));
    }
    stored(store, &free, None);
    stored(store, &taken, Some(&registered(1)));
    equal(ok(store.totals()), Totals { registered: 1, ..Totals::default() }, "rows alone are no record");
    equal(in_flight(store, None, 9), vec![taken], "rows alone are not in flight");
    equal(ok(store.commit(&full(alone(&free, gone(b"a"))))), vec![Verdict::Applied], "a removal alone");
    stored_row(store, b"a", None);
    equal(
        ok(store.commit(&full(put(&free, None, &registered(2))))),
        vec![Verdict::QuotaExceeded],
        "a record is counted",
    );
}

fn expired_rows_come_oldest_first_from_their_millisecond_on(store: &dyn Store) {
    let ends = |table: &str, key: &[u8], end| row_of(table, key, b"v").expires_at(UnixMillis(end));
    let entry = |table: &str, key: &[u8], end: u64| (table.to_owned(), key.to_vec(), end);
    write(store, [ends("b", b"x", 256), ends("long", b"w", 20), ends("a", b"z", 10), row(b"never", b"v")]);
    let (first, second, third) = (entry("a", b"z", 10), entry("long", b"w", 20), entry("b", b"x", 256));
    equal(expired(store, 9, 9), vec![], "one millisecond before");
    equal(expired(store, 10, 9), vec![first.clone()], "at the millisecond");
    equal(expired(store, 19, 9), vec![first.clone()], "before the second");
    equal(expired(store, 255, 9), vec![first.clone(), second.clone()], "oldest first");
    let all = vec![first.clone(), second.clone(), third.clone()];
    equal(expired(store, u64::MAX, 9), all, "at the end of time");
    equal(expired(store, u64::MAX, 2), vec![first, second.clone()], "the oldest two");
    equal(expired(store, u64::MAX, 0), vec![], "none at limit 0");
    write(store, [ends("a", b"z", 300), row_of("long", b"w", b"v"), ends("b", b"x", 256)]);
    let moved = vec![third, entry("a", b"z", 300)];
    equal(expired(store, u64::MAX, 9), moved, "one put off, one for ever, one as it was");
    write(store, [ends("a", b"z", u64::MAX)]);
    equal(expired(store, u64::MAX - 1, 9).len(), 1, "a row that ends with time itself");
    equal(expired(store, u64::MAX, 9).len(), 2, "a row that ends with time itself");
}

fn a_row_is_removed_only_with_the_end_it_has(store: &dyn Store) {
    let ends = |key: &[u8], end| row(key, b"v").expires_at(UnixMillis(end));
    let due = |key: &[u8], end| ExpiredRow { table: TABLE.into(), key: key.into(), expires_at: UnixMillis(end) };
    let remove = |changes, expired_rows: Vec<ExpiredRow>| {
        let verdicts = ok(store.commit(&Batch { expired_rows, ..batch(changes) }));
        equal(verdicts.iter().all(|verdict| *verdict == Verdict::Applied), true, "the changes beside a removal");
    };
    write(store, [ends(b"a", 10), ends(b"b", 20), row(b"c", b"v"), ends(b"d", 30)]);
    let elsewhere = ExpiredRow { table: "elsewhere".into(), ..due(b"a", 10) };
    let long = ExpiredRow { table: "t".repeat(300).into(), ..due(b"a", 10) };
    remove(vec![], vec![due(b"a", 11), due(b"a", 0), due(b"c", 0), due(b"gone", 10), elsewhere, long]);
    equal(rows_of(store, TABLE, None, 9).len(), 4, "no row had that end");
    equal(expired(store, u64::MAX, 9).len(), 3, "and no end was lost");

    // What a change of the same batch has put off is no longer due; what it has written may be.
    let changes = vec![with(nothing(), [ends(b"a", 40), ends(b"e", 50)])];
    remove(changes, vec![due(b"a", 10), due(b"b", 20), due(b"b", 20), due(b"e", 50)]);
    let left = vec![(TABLE.to_owned(), b"d".to_vec(), 30), (TABLE.to_owned(), b"a".to_vec(), 40)];
    equal(expired(store, u64::MAX, 9), left, "the ends after a removal");
    stored_row(store, b"a", Some((b"v", Some(40))));
    stored_row(store, b"b", None);
    stored_row(store, b"c", Some((b"v", None)));
    stored_row(store, b"e", None);
    // What is removed is absent to the next batch, whatever its time.
    let now = UnixMillis(0);
    let changes = vec![with(nothing(), [row(b"b", b"anew").guard(Guard::Absent)])];
    equal(ok(store.commit(&Batch { now, ..batch(changes) })), vec![Verdict::Applied], "a removed row is absent");
    let listed = ok(store.expired_rows(UnixMillis(u64::MAX), 9));
    remove(vec![], listed);
    equal(expired(store, u64::MAX, 9), vec![], "what is listed can be removed");
    let left = vec![(b"b".to_vec(), b"anew".to_vec()), (b"c".to_vec(), b"v".to_vec())];
    equal(rows_of(store, TABLE, None, 9), left, "the rows that have no end");
}

fn removing_a_record_leaves_its_rows_and_may_write_others(store: &dyn Store) {
    let key = key("s", 1);
    apply(store, &[with(put(&key, None, &registered(1)), [row(b"a", b"1")])]);
    apply(store, &[with(remove(&key, &registered(1)), [row(b"b", b"2")])]);
    stored(store, &key, None);
    stored_row(store, b"a", Some((b"1", None)));
    stored_row(store, b"b", Some((b"2", None)));
    write(store, [row(b"c", b"3")]);
    stored_row(store, b"c", Some((b"3", None)));
    equal(ok(store.totals()), Totals::default(), "rows are no records");
    equal(removable(store, u64::MAX), vec![], "rows are no records");
}

fn rows_come_by_table_in_the_order_of_their_keys(store: &dyn Store) {
    let keys: [&[u8]; 5] = [b"\0", b"a", b"a\0", b"b", &[0xff; 512]];
    let pairs = |keys: &[&[u8]]| keys.iter().map(|key| (key.to_vec(), b"v".to_vec())).collect::<Vec<_>>();
    equal(rows_of(store, TABLE, None, 9), vec![], "no rows");
    write(store, keys.iter().rev().map(|key| row(key, b"v")));
    // Neighbours by name and by length.
    write(store, ["hashe", "hashes2", "hashet", "zzzzzz", "aaaaaa"].map(|table| row_of(table, b"s", b"other")));
    write(store, [row_of("a", b"bc", b"1"), row_of("ab", b"c", b"2")]);
    equal(rows_of(store, TABLE, None, 9), pairs(&keys), "the rows of one table");
    equal(rows_of(store, TABLE, None, 0), vec![], "none at limit 0");
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = rows_of(store, TABLE, after.as_deref(), 2);
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        paged.extend(page);
    }
    equal(paged, pairs(&keys), "page by page");
    let behind = |after: &[u8]| rows_of(store, TABLE, Some(after), 9).len();
    equal(behind(b""), 5, "behind nothing");
    equal(behind(b"a"), 3, "behind a key that is there");
    equal(behind(b"aa"), 2, "behind a key that is not there");
    equal(behind(&[0xff; 511]), 1, "behind all but the longest key");
    equal(behind(&[0xff; 600]), 0, "behind everything");
    equal(rows_of(store, "a", None, 9), vec![(b"bc".to_vec(), b"1".to_vec())], "\"a\" with \"bc\"");
    equal(rows_of(store, "ab", None, 9), vec![(b"c".to_vec(), b"2".to_vec())], "\"ab\" with \"c\"");
    equal(ok(store.row("a", b"c")), None, "\"a\" with \"c\"");
    for table in ["", "never", &"t".repeat(300)] {
        equal(rows_of(store, table, None, 9), vec![], "a table without rows");
        equal(ok(store.row(table, b"a")), None, "a table without rows");
    }
    equal(ok(store.row(TABLE, b"")), None, "an empty key");
}

/// Before and after a reopening; see [`reopening`].
pub(super) fn write_some(store: &dyn Store) {
    let ending = row(b"ending", b"1").expires_at(UnixMillis(70));
    write(store, [row(b"staying", b"2"), ending, row(b"gone", b"3").expires_at(UnixMillis(60))]);
    write(store, [row(b"removed", b"4").expires_at(UnixMillis(65))]);
    write(store, [gone(b"removed")]);
    let due = ExpiredRow { table: TABLE.into(), key: b"gone".as_slice().into(), expires_at: UnixMillis(60) };
    equal(ok(store.commit(&Batch { expired_rows: vec![due], ..batch(vec![]) })), vec![], "verdicts of a removal");
}

pub(super) fn find_them(store: &dyn Store) {
    stored_row(store, b"ending", Some((b"1", Some(70))));
    let all = vec![(b"ending".to_vec(), b"1".to_vec()), (b"staying".to_vec(), b"2".to_vec())];
    equal(rows_of(store, TABLE, None, 9), all, "rows after reopening");
    equal(expired(store, 70, 9), vec![(TABLE.to_owned(), b"ending".to_vec(), 70)], "expired rows after reopening");
    let change = with(nothing(), [row(b"staying", b"4").guard(Guard::Absent)]);
    verdict(store, change, Verdict::Guarded, "a guard on a row of an earlier opening");
}

fn row(key: &[u8], value: &[u8]) -> Row {
    row_of(TABLE, key, value)
}

fn row_of(table: &str, key: &[u8], value: &[u8]) -> Row {
    Row::new(table, key, value).unwrap_or_else(|error| fail(&format!("a row of the suite: {error}")))
}

/// The removal of a row.
fn gone(key: &[u8]) -> Row {
    Row::removal(TABLE, key).unwrap_or_else(|error| fail(&format!("a removal of the suite: {error}")))
}

/// A change of no record.
fn nothing() -> Change {
    Change::new(key("nothing", 0), None, None)
}

fn with(change: Change, rows: impl IntoIterator<Item = Row>) -> Change {
    Change { rows: rows.into_iter().collect(), ..change }
}

fn write(store: &dyn Store, rows: impl IntoIterator<Item = Row>) {
    apply(store, &[with(nothing(), rows)]);
}

fn stored_row(store: &dyn Store, key: &[u8], expected: Option<(&[u8], Option<u64>)>) {
    let found = ok(store.row(TABLE, key));
    let expected = expected.map(|(value, end)| StoredRow { value: value.into(), expires_at: end.map(UnixMillis) });
    equal(found, expected, "the stored row");
}

/// Keys and values, and that the keys alone are the same.
fn rows_of(store: &dyn Store, table: &str, after: Option<&[u8]>, limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let rows = ok(store.rows(table, after, limit));
    let keys: Vec<_> = rows.iter().map(|(key, _)| key.clone()).collect();
    equal(ok(store.row_keys(table, after, limit)), keys, "the keys of the rows");
    rows.into_iter().map(|(key, row)| (key.to_vec(), row.value.to_vec())).collect()
}

fn expired(store: &dyn Store, now: u64, limit: usize) -> Vec<(String, Vec<u8>, u64)> {
    let rows = ok(store.expired_rows(UnixMillis(now), limit));
    rows.into_iter().map(|row| (row.table.to_string(), row.key.to_vec(), row.expires_at.0)).collect()
}

fn the_generation_grows_with_what_changes_and_with_nothing_else(store: &dyn Store) {
    equal(ok(store.generation()), 0, "the generation of a new store");
    let (key, end) = (key("s", 1), UnixMillis(NOW.0 + 5));
    let ended = completed(1, b"answer", None);
    let first = put(&key, None, &registered(1));
    let with_row = with(put(&key, Some(&registered(1)), &ended), [row(b"a", b"1").expires_at(end)]);
    let expired = || vec![ExpiredRow { table: TABLE.into(), key: (*b"a").into(), expires_at: end }];
    let at = |now, changes| Batch { now, ..batch(changes) };
    let batches = [
        (at(NOW, vec![first.clone()]), 1, "a record"),
        (at(NOW, vec![first]), 1, "a change that is fenced off"),
        (at(NOW, vec![with_row]), 2, "an end and a row"),
        (at(NOW, vec![]), 2, "nothing"),
        (at(end, vec![]), 3, "only the clock mark"),
        (Batch { tick: 1, ..at(end, vec![]) }, 4, "only the tick mark"),
        (Batch { tick: 1, ..at(end, vec![]) }, 4, "the same tick"),
        (Batch { expired_rows: expired(), ..at(end, vec![]) }, 5, "a row that goes"),
        (Batch { expired_rows: expired(), ..at(end, vec![]) }, 5, "a row that has gone"),
        (at(end, vec![remove(&key, &ended)]), 6, "a removal"),
        (at(end, vec![with(nothing(), [row(b"b", b"1")])]), 7, "a row alone"),
        (at(end, vec![with(nothing(), [gone(b"b")])]), 8, "a row that a change removes"),
        (at(end, vec![with(nothing(), [gone(b"b")])]), 8, "the removal of what is not there"),
        (at(end, vec![with(nothing(), [row(b"b", b"1"), gone(b"b")])]), 8, "a row that is written and removed at once"),
    ];
    for (batch, generation, what) in batches {
        ok(store.commit(&batch));
        equal(ok(store.generation()), generation, what);
    }
    ok(store.rest());
    ok(store.reopen());
    equal(ok(store.generation()), 8, "the generation after a rest");
}
