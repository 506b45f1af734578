//! Two names never share a record: bytes that look like lengths, ends or other parts stay where they were put.

use crate::support::*;
use ibid::{Call, ErrorKind, Flow, How, Operation, Policy};
use std::collections::BTreeSet;
use std::time::Duration;

/// Flow, scope and id.
type Triple = (&'static str, Vec<u8>, Vec<u8>);

/// Scopes and ids that could pass for each other's, wherever lengths or ends were left out.
fn look_alikes() -> Vec<Triple> {
    let long = |byte| vec![byte; 255];
    let parts: Vec<Vec<u8>> = vec![
        b"a".to_vec(),
        b"ab".to_vec(),
        b"b".to_vec(),
        vec![0],
        vec![0, 0],
        vec![1, b'a'],
        vec![1, b'a', 1],
        vec![0xff],
        vec![0xff, 0xff],
        b"a\0b".to_vec(),
        b"a/b".to_vec(),
        b"\x01a\x01b".to_vec(),
        long(0),
        long(0xff),
        long(b'a'),
    ];
    let mut triples = Vec::new();
    for flow in ["a", "ab", "a\u{1}a", "\u{1}a", "a\0", "A"] {
        for scope in &parts {
            triples.extend(parts.iter().map(|id| (flow, scope.clone(), id.clone())));
        }
    }
    triples
}

/// The whole name, as the operation of that key answers it.
fn spelled((flow, scope, id): &Triple) -> Vec<u8> {
    format!("{flow:?} {scope:?} {id:?}").into_bytes()
}

fn named(flow: &str) -> Flow {
    Flow::new(flow, Policy::replay(Duration::from_secs(600))).unwrap()
}

#[tokio::test]
async fn no_two_of_a_thousand_look_alike_names_share_a_record_also_after_a_restart() {
    let (bench, triples) = (Bench::new(), look_alikes());
    assert_eq!(triples.iter().collect::<BTreeSet<_>>().len(), triples.len());
    for how in [How::Executed, How::Replayed] {
        let engine = bench.open();
        let asked = triples.iter().map(|triple| {
            let (flow, engine, answer) = (named(triple.0), engine.clone(), spelled(triple));
            // The same request for all: nothing but the name tells them apart.
            let call = Call::new(&flow, &flow.key(&triple.1, &triple.2).unwrap(), *b"request");
            (
                triple,
                tokio::spawn(
                    async move { engine.submit(call, Operation::new(async |_| ibid::End::done(answer))).await },
                ),
            )
        });
        for (triple, caller) in asked.collect::<Vec<_>>() {
            let heard = heard(caller).await;
            assert_eq!((heard.how, &*heard.answer), (how, spelled(triple).as_slice()), "{triple:?}");
        }
        let stats = engine.stats().await.unwrap();
        assert_eq!(stats.records.completed, triples.len() as u64);
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn a_key_of_another_flow_is_refused_and_runs_nothing() {
    let bench = Bench::new();
    let engine = bench.open();
    let (counted, theirs, ours) = (Counted::new(), named("theirs"), named("ours"));
    let refused = error(&engine, Call::new(&ours, &theirs.key("s", "i").unwrap(), *b"r"), counted.operation()).await;
    assert!(matches!(refused.kind(), ErrorKind::InvalidKey(_)), "{refused:?}");
    assert_eq!(counted.runs(), 0);
    engine.shutdown().await;
}

#[tokio::test]
async fn ledger_tables_and_keys_that_look_alike_keep_their_rows_apart() {
    let bench = Bench::new();
    let engine = bench.open();
    let pairs: Vec<(&str, &[u8])> = vec![
        ("a", b"bc"),
        ("ab", b"c"),
        ("abc", b"c"),
        ("a", b"\x01a"),
        ("\u{1}a", b"a"),
        ("a\u{1}", b"a"),
        ("a", b"\0"),
        ("a\0", b"\0"),
        ("a", b"\xff"),
        ("a", &[0xff; 255]),
        ("a", &[0xff; 512]),
    ];
    let rows = pairs.iter().map(|(table, key)| {
        ibid::Row::new(*table, *key, format!("{table:?} {key:?}").into_bytes()).unwrap().guard(ibid::Guard::Absent)
    });
    let done = rows.fold(ibid::Completion::new(*b"answer"), ibid::Completion::row);
    let flow = flow();
    answer(&engine, call(&flow, "a", "r"), Operation::new(async |_| ibid::End::Done(done))).await;
    for (table, key) in &pairs {
        let row = engine.ledger_row(table, key).unwrap().unwrap();
        assert_eq!(&*row.value, format!("{table:?} {key:?}").as_bytes());
        let listed = engine.ledger_rows(table, None, 100).unwrap();
        let expected = pairs.iter().filter(|(other, _)| other == table).count();
        assert_eq!(listed.len(), expected, "{table:?} lists its own rows and no other's");
    }
    engine.shutdown().await;
}
