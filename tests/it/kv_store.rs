//! LDK's key-value store over ledger rows: what LDK asks of one, and that it shares file and transaction with ibid.
//!
//! Two real nodes that persist through it are in `tests/ldk`.

use crate::support::*;
use ibid::ldk::{InvalidEntry, KvStore};
use ibid::store::{RedbOptions, Store, StoreError};
use ibid::testing::{Fault, Layer, Outage, Random, SimulatedDisk};
use ibid::{Class, Completion, End, Engine, Guard, InvalidRow, PAYLOAD_BYTES_CEILING, Reason, Row, StoredRow};
use lightning::io::{self, ErrorKind};
use lightning::util::persist::{KVStoreSync as _, MigratableKVStore as _, migrate_kv_store_data};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

fn store(engine: &Engine) -> KvStore {
    KvStore::new(engine, "node").unwrap()
}

/// On a disk whose power can be cut.
fn on(disk: &SimulatedDisk) -> (Engine, KvStore) {
    let redb = disk.open(RedbOptions::default().cache_bytes(1 << 20)).unwrap();
    let engine = Engine::builder().open_store(Arc::new(redb)).unwrap();
    let kv = store(&engine);
    (engine, kv)
}

fn sorted<T: Ord>(listed: Result<Vec<T>, io::Error>) -> Vec<T> {
    let mut listed = listed.unwrap();
    listed.sort_unstable();
    listed
}

fn kind<T: std::fmt::Debug>(result: Result<T, io::Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

fn is_absent(kv: &KvStore, (primary, secondary, key): (&str, &str, &str)) -> bool {
    kv.read(primary, secondary, key).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

#[test]
fn what_is_written_is_read_and_listed_until_it_is_removed() {
    let (bench, monitors) = (Bench::new(), ("monitors", ""));
    let engine = bench.open();
    let kv = store(&engine);
    assert!(is_absent(&kv, ("monitors", "", "a")));
    assert_eq!(kv.list("monitors", "").unwrap(), Vec::<String>::new());
    for value in [b"first".as_slice(), b"", b"second"] {
        kv.write(monitors.0, monitors.1, "a", value.to_vec()).unwrap();
        assert_eq!(kv.read("monitors", "", "a").unwrap(), value);
        assert_eq!(kv.list("monitors", "").unwrap(), ["a"]);
    }
    for lazy in [false, true] {
        kv.write("monitors", "", "a", b"again".to_vec()).unwrap();
        // The second one removes nothing.
        for _ in 0..2 {
            kv.remove("monitors", "", "a", lazy).unwrap();
            assert!(is_absent(&kv, ("monitors", "", "a")), "lazy {lazy}");
            assert_eq!(kv.list("monitors", "").unwrap(), Vec::<String>::new());
        }
        kv.write("monitors", "", "a", b"after".to_vec()).unwrap();
        assert_eq!(kv.read("monitors", "", "a").unwrap(), b"after", "a removal has nothing left to do");
    }
    engine.shutdown_blocking();
}

#[test]
fn no_two_entries_meet_and_a_listing_names_those_of_its_namespace_only() {
    let bench = Bench::new();
    let engine = bench.open();
    let (kv, other) = (store(&engine), KvStore::new(&engine, "other_node").unwrap());
    let longest = "x".repeat(120);
    let mut entries =
        vec![(longest.as_str(), longest.as_str(), longest.as_str()), (&longest, "", "a"), ("", "", &longest)];
    for key in ["a", "b", "a-b", "ab", "_", "-", "0", "A"] {
        entries.extend([
            ("", "", key),
            ("a", "", key),
            ("a", "b", key),
            ("ab", "", key),
            ("a", "b-a", key),
            ("A", "", key),
        ]);
    }
    for (primary, secondary, key) in &entries {
        kv.write(primary, secondary, key, format!("{primary}.{secondary}.{key}").into_bytes()).unwrap();
    }
    other.write("a", "b", "a", b"another node's".to_vec()).unwrap();
    for (primary, secondary, key) in &entries {
        let value = kv.read(primary, secondary, key).unwrap();
        assert_eq!(value, format!("{primary}.{secondary}.{key}").into_bytes());
        let own = entries.iter().filter(|entry| (entry.0, entry.1) == (*primary, *secondary));
        let mut own: Vec<_> = own.map(|entry| entry.2.to_owned()).collect();
        own.sort_unstable();
        assert_eq!(sorted(kv.list(primary, secondary)), own, "{primary:?} {secondary:?}");
    }
    for (primary, secondary) in [("b", ""), ("a", "a"), ("aa", ""), ("a", "b-"), ("-", "")] {
        assert_eq!(kv.list(primary, secondary).unwrap(), Vec::<String>::new(), "unknown");
    }
    let mut all: Vec<_> = entries.iter().map(|(p, s, k)| ((*p).to_owned(), (*s).to_owned(), (*k).to_owned())).collect();
    all.sort_unstable();
    assert_eq!(sorted(kv.list_all_keys()), all);
    engine.shutdown_blocking();
}

#[test]
fn names_and_values_out_of_their_bounds_are_refused_before_anything_is_done() {
    let engine = Engine::builder().open_in_memory().unwrap();
    let kv = store(&engine);
    let (fits, long) = ("x".repeat(120), "x".repeat(121));
    let strange = ["a/b", "a b", "a.b", "a\0", "\u{e9}", "\u{212a}", "a:"];
    let mut names = vec![
        ("", "", "", InvalidEntry::NoKey),
        ("a", "b", "", InvalidEntry::NoKey),
        ("", "b", "c", InvalidEntry::NoPrimaryNamespace),
        (&long, "b", "c", InvalidEntry::NameLength(121)),
        ("a", &long, "c", InvalidEntry::NameLength(121)),
        ("a", "b", &long, InvalidEntry::NameLength(121)),
    ];
    for name in strange {
        names.extend(
            [("a", "b", name), ("a", name, "c"), (name, "b", "c")].map(|(p, s, k)| (p, s, k, InvalidEntry::Character)),
        );
    }
    let generation = engine.generation().unwrap();
    for (primary, secondary, key, why) in names {
        let at = format!("{primary:?} {secondary:?} {key:?}");
        assert_eq!(kv.row(primary, secondary, key, *b"v"), Err(why), "{at}");
        assert_eq!(kv.removal(primary, secondary, key), Err(why), "{at}");
        assert_eq!(kind(kv.read(primary, secondary, key)), ErrorKind::InvalidInput, "{at}");
        assert_eq!(kind(kv.write(primary, secondary, key, vec![1])), ErrorKind::InvalidInput, "{at}");
        assert_eq!(kind(kv.remove(primary, secondary, key, true)), ErrorKind::InvalidInput, "{at}");
        let names_namespace = (primary, secondary) != ("", "") && (primary, secondary) != ("a", "b");
        assert_eq!(kv.list(primary, secondary).is_err(), names_namespace, "{at}");
    }
    let bytes = PAYLOAD_BYTES_CEILING + 1;
    let too_long = InvalidEntry::Row(InvalidRow::ValueLength(bytes));
    assert_eq!(kv.row("a", "b", "c", vec![0; bytes]), Err(too_long));
    let refused = kv.write("a", "b", "c", vec![0; bytes]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(refused.to_string().contains(&too_long.to_string()), "{refused}");
    assert_eq!(engine.generation().unwrap(), generation, "nothing was written");
    assert!(kv.row(&fits, &fits, &fits, *b"v").is_ok());
    for length in [0, 65] {
        let named = KvStore::new(&engine, &"t".repeat(length));
        assert_eq!(named.err(), Some(InvalidRow::TableLength(length)));
    }
    engine.shutdown_blocking();
}

#[test]
fn the_largest_value_comes_back_byte_for_byte_also_after_a_restart() {
    let bench = Bench::new();
    let engine = bench.open();
    let value: Vec<u8> = (0..PAYLOAD_BYTES_CEILING).map(|n| n.to_le_bytes()[n % 3]).collect();
    store(&engine).write("", "", "manager", value.clone()).unwrap();
    assert!(store(&engine).read("", "", "manager").unwrap() == value);
    engine.shutdown_blocking();
    let engine = bench.open();
    assert!(store(&engine).read("", "", "manager").unwrap() == value);
    engine.shutdown_blocking();
}

#[test]
fn a_listing_of_more_than_a_page_is_whole() {
    let engine = Engine::builder().open_in_memory().unwrap();
    let kv = store(&engine);
    // Around the end of the first page and of the second, with a neighbour before and behind.
    let (mut keys, mut rows) = (Vec::new(), vec![kv.row("monitor", "", "z", *b"").unwrap()]);
    rows.push(kv.row("monitors-", "", "a", *b"").unwrap());
    for count in [1_023, 1_024, 1_025, 2_047, 2_048, 2_049] {
        while keys.len() < count {
            let key = format!("{:05}", keys.len());
            rows.push(kv.row("monitors", "", &key, *b"m").unwrap());
            keys.push(key);
        }
        assert!(engine.write_rows_blocking(std::mem::take(&mut rows)).unwrap());
        assert_eq!(sorted(kv.list("monitors", "")), keys);
        assert_eq!(kv.list_all_keys().unwrap().len(), count + 2);
    }
    engine.shutdown_blocking();
}

#[test]
fn nobody_reads_a_write_or_a_removal_before_it_is_durable() {
    let faulty = Faulty::new();
    let (below, engine) = faulty.open();
    let kv = store(&engine);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let states = [Some(b"inserted".as_slice()), Some(b"updated"), None];
    let mut before = None;
    for after in states {
        let gate = below.hold_commits();
        let writer = kv.clone();
        let writing = thread::spawn(move || match after {
            Some(value) => writer.write("p", "s", "k", value.to_vec()),
            None => writer.remove("p", "s", "k", true),
        });
        runtime.block_on(within_a_minute(below.until_held()));
        assert_eq!(kv.read("p", "s", "k").ok().as_deref(), before, "on its way to {after:?}");
        assert_eq!(kv.list("p", "s").unwrap().len(), usize::from(before.is_some()));
        assert!(!writing.is_finished());
        drop(gate);
        writing.join().unwrap().unwrap();
        assert_eq!(kv.read("p", "s", "k").ok().as_deref(), after);
        assert_eq!(kv.list("p", "s").unwrap().len(), usize::from(after.is_some()));
        before = after;
    }
    engine.shutdown_blocking();
}

#[test]
fn writes_of_one_entry_keep_each_threads_order() {
    const WRITERS: usize = 4;
    const WRITES: u32 = 60;
    let engine = Engine::builder().open_in_memory().unwrap();
    let kv = store(&engine);
    kv.write("", "", "shared", [0; 8].to_vec()).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS as u32)
            .map(|writer| {
                let kv = &kv;
                scope.spawn(move || {
                    for n in 1..=WRITES {
                        kv.write("", "", "shared", [writer.to_be_bytes(), n.to_be_bytes()].concat()).unwrap();
                        kv.write("", "", &format!("own-{writer}"), n.to_be_bytes().to_vec()).unwrap();
                        assert_eq!(kv.read("", "", &format!("own-{writer}")).unwrap(), n.to_be_bytes());
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let mut newest = [0; WRITERS];
            while !done.load(Ordering::Acquire) {
                let value = kv.read("", "", "shared").unwrap();
                let (writer, n) = value.split_first_chunk::<4>().unwrap();
                let (writer, n) = (u32::from_be_bytes(*writer) as usize, u32::from_be_bytes(n.try_into().unwrap()));
                assert!(newest[writer] <= n, "writer {writer} wrote {n} before {}", newest[writer]);
                newest[writer] = n;
            }
        });
        let ended: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Release);
        reader.join().unwrap();
        ended.into_iter().for_each(|ended| ended.unwrap());
    });
    let last = kv.read("", "", "shared").unwrap();
    assert_eq!(last[4..], WRITES.to_be_bytes(), "the last write of whoever wrote last");
    engine.shutdown_blocking();
}

#[test]
fn it_can_be_called_on_a_thread_of_a_runtime() {
    let bench = Bench::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // The engine's operations, too, run on the thread that the write blocks.
    runtime.block_on(async {
        let engine = bench.open();
        let kv = store(&engine);
        kv.write("", "", "manager", b"1".to_vec()).unwrap();
        let task = tokio::spawn({
            let kv = kv.clone();
            async move { kv.write("", "", "manager", b"2".to_vec()) }
        });
        within_a_minute(task).await.unwrap().unwrap();
        let answered = answer(&engine, call(&flow(), "a", "r"), {
            let kv = kv.clone();
            ibid::Operation::new(async move |_| {
                kv.write("", "", "manager", b"3".to_vec()).unwrap();
                End::done(*b"done")
            })
        });
        within_a_minute(answered).await;
        assert_eq!(kv.read("", "", "manager").unwrap(), b"3");
        engine.shutdown().await;
    });
}

/// A table in which one row is damaged.
struct Damaged(Arc<dyn Store>);

impl Layer for Damaged {
    fn below(&self) -> &dyn Store {
        &*self.0
    }

    fn row(&self, table: &str, key: &[u8]) -> Result<Option<StoredRow>, StoreError> {
        if key.ends_with(b"damaged") { Err(StoreError::Quarantined) } else { self.0.row(table, key) }
    }
}

#[test]
fn only_an_absent_entry_is_not_found() {
    let faulty = Faulty::new();
    let (below, engine) = faulty.open();
    let kv = store(&engine);
    kv.write("", "", "there", b"v".to_vec()).unwrap();
    below.break_down(Outage::Everything);
    for key in ["there", "absent"] {
        let error = kv.read("", "", key).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Other, "{error}");
        assert!(error.to_string().contains("the store is down"), "{error}: what is below is named");
    }
    assert_eq!(kind(kv.list("", "")), ErrorKind::Other);
    assert_eq!(kind(kv.list_all_keys()), ErrorKind::Other);
    below.heal();
    assert!(is_absent(&kv, ("", "", "absent")));
    engine.shutdown_blocking();
    assert_eq!(kind(kv.read("", "", "there")), ErrorKind::NotConnected);
    assert_eq!(kind(kv.write("", "", "there", vec![])), ErrorKind::NotConnected);
    assert_eq!(kind(kv.remove("", "", "absent", false)), ErrorKind::NotConnected);
    assert_eq!(kind(kv.list("", "")), ErrorKind::NotConnected);

    let memory = Arc::new(ibid::store::MemoryStore::new());
    let engine = Engine::builder().open_store(Arc::new(Damaged(memory))).unwrap();
    let kv = store(&engine);
    kv.write("monitors", "", "damaged", b"v".to_vec()).unwrap();
    assert_eq!(kind(kv.read("monitors", "", "damaged")), ErrorKind::InvalidData);
    assert_eq!(kv.list("monitors", "").unwrap(), ["damaged"], "a node must hear of it");
    // What is no entry in this table fails a listing that meets it, rather than being left out of it.
    for key in ["monitors/", "monitors//", "monitors//a/b", "monitors//\u{e9}", "/b/c", "a"] {
        assert!(engine.write_rows_blocking(vec![Row::new("node", key.as_bytes(), *b"").unwrap()]).unwrap());
        assert_eq!(kind(kv.list_all_keys()), ErrorKind::InvalidData, "{key}");
        let is_met = key.starts_with("monitors//") && key != "monitors//";
        assert_eq!(kv.list("monitors", "").is_err_and(|error| error.kind() == ErrorKind::InvalidData), is_met, "{key}");
        assert!(engine.write_rows_blocking(vec![Row::removal("node", key.as_bytes()).unwrap()]).unwrap());
    }
    engine.shutdown_blocking();
}

#[test]
fn a_write_is_tried_again_and_one_that_has_failed_says_that_it_may_have_happened() {
    // The tries wait for real seconds, so all at once.
    thread::scope(|scope| {
        for fault in [Fault::BeforeEffect, Fault::AfterEffect, Fault::Panic] {
            scope.spawn(move || write_while_the_store_fails(fault));
        }
    });
}

fn write_while_the_store_fails(fault: Fault) {
    let faulty = Faulty::new();
    let (below, engine) = faulty.open();
    let kv = store(&engine);
    kv.write("", "", "k", b"old".to_vec()).unwrap();
    below.fail_commits(1, fault);
    kv.write("", "", "k", b"new".to_vec()).unwrap();
    assert_eq!(kv.read("", "", "k").unwrap(), b"new", "{fault:?}");
    below.fail_commits(1, fault);
    kv.remove("", "", "k", false).unwrap();
    assert!(is_absent(&kv, ("", "", "k")), "{fault:?}");

    below.fail_commits(5, fault);
    let error = kv.write("", "", "k", b"newest".to_vec()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Other, "{fault:?}");
    assert!(error.to_string().contains("may have been written"), "{error}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(within_a_minute(below.until_reopens(below.reopens() + 1)));
    let read = kv.read("", "", "k").ok();
    assert_eq!(read.as_deref(), (fault == Fault::AfterEffect).then_some(b"newest".as_slice()), "{fault:?}");
    // The store is well again.
    kv.write("", "", "k", b"last".to_vec()).unwrap();
    assert_eq!(kv.read("", "", "k").unwrap(), b"last", "{fault:?}");
    engine.shutdown_blocking();
}

#[tokio::test]
async fn a_row_given_to_a_completion_commits_with_it_or_not_at_all() {
    let (bench, flow, counted) = (Bench::new(), flow(), Counted::new());
    let engine = bench.open();
    let kv = store(&engine);
    kv.write("swaps", "", "old", b"v".to_vec()).unwrap();
    let claim = |value: &'static [u8]| {
        let completion =
            Completion::new(value).row(kv.row("swaps", "", "claimed", value).unwrap().guard(Guard::Absent));
        completion.row(kv.removal("swaps", "", "old").unwrap()).otherwise(Reason::from_bytes(*b"taken"))
    };
    let (held, mut starts) = Counted::held();
    let claimed = claim(b"first");
    let first = submit(&engine, call(&flow, "a", "r"), held.ending(|_| End::Done(claimed)));
    starts.recv().await.unwrap();
    assert_eq!(kv.list("swaps", "").unwrap(), ["old"], "it is not complete yet");
    held.release();
    assert_eq!(&*heard(first).await.answer, b"first");
    assert_eq!(kv.list("swaps", "").unwrap(), ["claimed"]);
    assert_eq!(kv.read("swaps", "", "claimed").unwrap(), b"first");

    kv.write("swaps", "", "old", b"again".to_vec()).unwrap();
    let second = claim(b"second");
    let lost = error(&engine, call(&flow, "b", "r"), counted.ending(|_| End::Done(second))).await;
    assert_eq!(lost.class(), Class::Definitive, "{lost:?}");
    assert_eq!(kv.read("swaps", "", "claimed").unwrap(), b"first", "the guard did not hold");
    assert_eq!(kv.read("swaps", "", "old").unwrap(), b"again", "and so nothing else was done");
    engine.shutdown().await;
    let engine = bench.open();
    assert_eq!(store(&engine).read("swaps", "", "claimed").unwrap(), b"first");
    assert_eq!(&*answer(&engine, call(&flow, "a", "r"), counted.operation()).await.answer, b"first");
    assert_eq!((held.runs(), counted.runs()), (1, 1));
    engine.shutdown().await;
}

#[test]
fn everything_moves_to_another_store_and_back() {
    let bench = Bench::new();
    let engine = bench.open();
    let (mut from, mut to) = (store(&engine), KvStore::new(&engine, "moved").unwrap());
    let entries =
        [("", "", "manager"), ("monitors", "", "a_0"), ("monitors", "", "b_1"), ("monitor_updates", "a_0", "1")];
    for (primary, secondary, key) in entries {
        from.write(primary, secondary, key, key.as_bytes().to_vec()).unwrap();
    }
    migrate_kv_store_data(&mut from, &mut to).unwrap();
    assert_eq!(sorted(to.list_all_keys()), sorted(from.list_all_keys()));
    for (primary, secondary, key) in entries {
        assert_eq!(to.read(primary, secondary, key).unwrap(), key.as_bytes());
    }
    engine.shutdown_blocking();
}

type Entry = (String, String, String);

/// Few names, so that they come again; of all lengths.
fn some_entry(random: &mut Random) -> Entry {
    let long = "N".repeat(120);
    let namespaces = [("", ""), ("a", ""), ("a", "b"), ("a", "b-"), ("ab", ""), (long.as_str(), long.as_str())];
    let (primary, secondary) = *random.pick(&namespaces).unwrap();
    let keys = ["a", "b", "ab", "-", long.as_str()];
    let key = *random.pick(&keys).unwrap();
    (primary.into(), secondary.into(), key.into())
}

fn some_value(random: &mut Random) -> Vec<u8> {
    let most = *random.pick(&[1, 40, 5_000]).unwrap();
    (0..random.below(most)).map(|_| random.number().to_le_bytes()[0]).collect()
}

fn agrees(kv: &KvStore, model: &BTreeMap<Entry, Vec<u8>>, context: &str) {
    assert_eq!(sorted(kv.list_all_keys()), model.keys().cloned().collect::<Vec<_>>(), "{context}");
    for ((primary, secondary, key), value) in model {
        assert!(kv.read(primary, secondary, key).unwrap() == *value, "{context}: {primary:?} {secondary:?} {key:?}");
    }
}

#[test]
fn of_1000_random_operations_none_is_lost_in_a_restart_or_with_the_power() {
    let seed = 20_261_122;
    let (mut random, mut disk) = (Random::new(seed), SimulatedDisk::new().unwrap());
    let (mut engine, mut kv) = on(&disk);
    let mut model: BTreeMap<Entry, Vec<u8>> = BTreeMap::new();
    let (mut restarts, mut losses) = (0, 0);
    for step in 0..1_000 {
        let context = format!("seed {seed}, step {step}");
        let entry = some_entry(&mut random);
        let (primary, secondary, key) = (entry.0.as_str(), entry.1.as_str(), entry.2.as_str());
        match random.below(100) {
            0..45 => {
                let value = some_value(&mut random);
                kv.write(primary, secondary, key, value.clone()).unwrap();
                model.insert(entry, value);
            }
            45..70 => {
                kv.remove(primary, secondary, key, random.once_in(2)).unwrap();
                model.remove(&entry);
            }
            70..85 => match model.get(&entry) {
                Some(value) => assert!(kv.read(primary, secondary, key).unwrap() == *value, "{context}"),
                None => assert!(is_absent(&kv, (primary, secondary, key)), "{context}"),
            },
            85..97 => {
                let own = model.keys().filter(|found| (&found.0, &found.1) == (&entry.0, &entry.1));
                let own: Vec<_> = own.map(|found| found.2.clone()).collect();
                assert_eq!(sorted(kv.list(primary, secondary)), own, "{context}");
            }
            chance => {
                // The power goes first, if it does: what is done on the way down comes too late.
                let lost = (chance == 99).then(|| disk.without_power());
                (restarts, losses) = (restarts + 1, losses + usize::from(lost.is_some()));
                engine.shutdown_blocking();
                disk = lost.unwrap_or(disk);
                (engine, kv) = on(&disk);
                agrees(&kv, &model, &context);
            }
        }
    }
    agrees(&kv, &model, "at the end");
    assert!(
        restarts > losses && losses > 3 && !model.is_empty(),
        "{restarts} restarts, {losses} of them without power"
    );
    engine.shutdown_blocking();
}
