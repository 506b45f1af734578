//! Nothing that a peer sends or an operation makes is shown: not in a log line at TRACE, not in the text of an error, not in
//! the `Debug` of any value. Every secret here holds one word, and that word must not turn up, however it is spelled.

use crate::support::*;
use ibid::store::{Batch, Change, ExpiredRow, IntegrityCheck, RedbOptions, Store, Version};
use ibid::testing::Outage;
use ibid::{
    Bytes, Call, Completion, End, Ended, Engine, Error, ErrorKind, Flow, Guard, InDoubt, Key, Limits, NodeId,
    OnFailure, Operation, Policy, Reason, Row, Token, UnixMillis,
};
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span;

const WORD: &str = "CANARY";
const TEN_MINUTES: Duration = Duration::from_secs(600);

/// A secret of this kind, of the same length as any other call's.
fn secret(kind: &str) -> Vec<u8> {
    format!("{WORD}-{kind}-{WORD}").into_bytes()
}

fn reason(kind: &str) -> Reason {
    Reason::from_error(String::from_utf8(secret(kind)).unwrap())
}

/// How bytes may look in a text: as they are, in hex, as a list of numbers.
fn spellings(bytes: &[u8]) -> Vec<String> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = |between: &str| bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(between);
    let mut spellings = vec![hex.to_uppercase(), hex, list(", "), list(",")];
    spellings.extend(String::from_utf8(bytes.to_vec()));
    spellings
}

/// The texts in which one of these words is spelled out.
fn leaks(texts: &[String], words: &[Vec<u8>]) -> Vec<String> {
    let spellings: Vec<_> = words.iter().flat_map(|word| spellings(word)).collect();
    texts.iter().filter(|text| spellings.iter().any(|spelled| text.contains(spelled))).cloned().collect()
}

/// Every event and span of the process, other tests' included.
struct Log;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

fn line(begin: &tracing::Metadata<'_>, record: impl FnOnce(&mut Line)) {
    let mut line = Line(format!("{} {}", begin.target(), begin.name()));
    record(&mut line);
    LINES.lock().unwrap().push(line.0);
}

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        line(span.metadata(), |line| span.record(line));
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        let mut line = Line(String::new());
        values.record(&mut line);
        LINES.lock().unwrap().push(line.0);
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        line(event.metadata(), |line| event.record(line));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Log).unwrap());
}

/// What was shown, and what must not turn up in it.
struct Shown {
    texts: Vec<String>,
    words: Vec<Vec<u8>>,
}

impl Shown {
    fn new() -> Self {
        listen();
        Self { texts: Vec::new(), words: vec![WORD.into()] }
    }

    fn value(&mut self, value: impl Debug) {
        self.texts.extend([format!("{value:?}"), format!("{value:#?}")]);
    }

    fn error(&mut self, error: &Error) {
        self.value(error);
        self.value((error.kind(), error.class(), error.reason()));
        self.texts.push(error.to_string());
    }

    fn heard<T: Debug>(&mut self, heard: &Result<T, Error>) {
        self.value(heard);
        heard.as_ref().err().into_iter().for_each(|error| self.error(error));
    }

    /// Also the log, which must have these lines: else nothing was tested.
    fn leaks_nothing(self, logged: &[&str]) {
        let lines = LINES.lock().unwrap().clone();
        for message in logged {
            assert!(lines.iter().any(|line| line.contains(message)), "the log has no line {message:?}");
        }
        let leaks = leaks(&[self.texts, lines].concat(), &self.words);
        assert!(leaks.is_empty(), "{} texts show a secret, the first: {}", leaks.len(), leaks[0]);
    }
}

fn key_of(flow: &Flow, id: &str) -> Key {
    flow.key(secret("scope"), secret(id)).unwrap()
}

fn call_of(flow: &Flow, id: &str, request: &str) -> Call {
    Call::new(flow, &key_of(flow, id), secret(request))
}

fn done() -> Operation {
    Operation::new(async |_| End::done(secret("answer")))
}

/// Saves a checkpoint, hands out its token, and completes with a row.
fn with_everything(token: &Arc<Mutex<Option<Token>>>, shown: Arc<Mutex<Vec<String>>>) -> Operation {
    let token = Arc::clone(token);
    Operation::new(async move |attempt| {
        attempt.checkpoint(secret("checkpoint"), None).await.unwrap();
        *token.lock().unwrap() = Some(*attempt.token());
        shown.lock().unwrap().push(format!("{attempt:?} {:?}", attempt.token()));
        let row = Row::new("table", secret("row-key"), secret("row-value")).unwrap();
        let end = End::Done(Completion::new(secret("answer")).row(row).otherwise(reason("otherwise")));
        shown.lock().unwrap().push(format!("{end:?}"));
        end
    })
}

#[test]
fn a_secret_is_found_in_every_spelling() {
    let texts: Vec<_> = spellings(WORD.as_bytes()).into_iter().map(|text| format!("before {text} after")).collect();
    assert_eq!(leaks(&texts, &[WORD.into()]).len(), texts.len());
    assert_eq!(texts.len(), 5);
    let vec = format!("{:?}", secret("x"));
    assert_eq!(leaks(&[vec, "nothing".to_owned()], &[WORD.into()]).len(), 1);
}

#[tokio::test]
async fn what_runs_replays_joins_and_is_refused_shows_nothing() {
    let (mut shown, bench, flow) = (Shown::new(), Bench::new(), flow());
    let engine = bench.open_with({
        let mut limits = Limits::default();
        limits.answer_bytes = 64;
        limits
    });
    let (token, texts) = Default::default();
    shown.value((call_of(&flow, "a", "request"), done(), &engine, key_of(&flow, "a")));
    shown.heard(&engine.submit(call_of(&flow, "a", "request"), with_everything(&token, Arc::clone(&texts))).await);
    shown.texts.append(&mut texts.lock().unwrap());
    shown.words.push(token.lock().unwrap().unwrap().0[..6].to_vec());
    shown.heard(&engine.submit(call_of(&flow, "a", "request"), done()).await);
    shown.heard(&engine.submit(call_of(&flow, "a", "another"), done()).await);
    let (counted, mut starts) = Counted::held();
    let held = counted.ending(|_| End::done(secret("answer")));
    let first = submit(&engine, call_of(&flow, "b", "request"), held);
    starts.recv().await.unwrap();
    let joined = submit(&engine, call_of(&flow, "b", "request"), done());
    counted.release();
    shown.heard(&first.await.unwrap());
    shown.heard(&joined.await.unwrap());
    let too_long = Operation::new(async |_| End::done([secret("answer"), vec![0; 64]].concat()));
    shown.heard(&engine.submit(call_of(&flow, "long", "request"), too_long).await);
    shown.heard(&engine.submit(call_of(&flow, "long", "request"), done()).await);
    shown.heard(&engine.track(&flow, &key_of(&flow, "a")).await);
    shown.heard(&engine.lookup(&key_of(&flow, "a")));
    shown.heard(&engine.ledger_row("table", &secret("row-key")));
    shown
        .heard(&engine.ledger_rows("table", None, 1).map(|rows| rows.into_iter().map(|row| row.1).collect::<Vec<_>>()));
    shown.heard(&engine.run(&flow, &key_of(&flow, "a"), "CANARY", async |_| Ok(1)).await);
    let typed: Result<ibid::Outcome<String>, _> =
        engine.run(&flow, &key_of(&flow, "typed"), &1, async |_| Ok("CANARY".to_owned())).await;
    shown.heard(&typed);
    let refused: Result<ibid::Outcome<u64>, _> =
        engine.run(&flow, &key_of(&flow, "fails"), &1, async |_| Err(ibid::Failure::definitive("CANARY"))).await;
    shown.heard(&refused);
    shown.heard(&engine.fence(&flow, &key_of(&flow, "fenced")).await);
    shown.heard(&engine.submit(call_of(&flow, "fenced", "request"), done()).await);
    shown.heard(&engine.forget(&flow, &[key_of(&flow, "a"), key_of(&flow, "fenced")]).await);
    shown.heard(&engine.stats().await);
    let long_id = flow.key(secret("scope"), [secret("id"), vec![0; 255]].concat()).unwrap_err();
    shown.error(&long_id.into());
    engine.shutdown().await;
    shown.heard(&engine.submit(call_of(&flow, "a", "request"), done()).await);
    shown.leaks_nothing(&[]);
}

#[tokio::test]
async fn what_fails_panics_contradicts_and_stays_in_doubt_shows_nothing() {
    let (mut shown, bench) = (Shown::new(), Bench::new());
    let flow = flow_of(Policy::replay(TEN_MINUTES).in_doubt(InDoubt::Ask).on_failure(OnFailure::Keep));
    let engine = bench.open();
    type Ending = fn() -> End;
    let ends: [(&str, Ending); 4] = [
        ("definitive", || End::Definitive(reason("reason"))),
        ("unknown", || End::Unknown(reason("reason"))),
        ("accepted", || End::Accepted),
        ("panic", || panic!("CANARY")),
    ];
    for (id, end) in ends {
        // Who asks again for what was accepted waits for its end.
        for _ in 0..if id == "accepted" { 1 } else { 2 } {
            shown.heard(&engine.submit(call_of(&flow, id, "request"), Operation::new(async move |_| end())).await);
        }
        shown.heard(&engine.lookup(&key_of(&flow, id)));
    }
    // The second end contradicts the first, and somebody must hear of it, but not what it says.
    for end in [Ended::Completed(secret("answer").into()), Ended::Failed(secret("failure").into())] {
        shown.value(&end);
        shown.heard(&engine.resolve(&flow, &key_of(&flow, "accepted"), None, end).await);
    }
    let row = |value: &str| Row::new("table", secret("row-key"), secret(value)).unwrap();
    for guard in [Guard::Any, Guard::Equals(secret("guard").into())] {
        let end = End::Done(Completion::new(secret("answer")).row(row("value").guard(guard.clone())));
        shown.value((&guard, &end));
        let id = format!("{guard:?}");
        shown.heard(&engine.submit(call_of(&flow, &id, "request"), Operation::new(async move |_| end)).await);
    }
    engine.try_submit(call_of(&flow, "callback", "request"), done(), |_| panic!("CANARY")).unwrap();
    let callback = key_of(&flow, "callback");
    shown.heard(&engine.track(&flow, &callback).await);
    shown.value(engine.list(None, 100).unwrap());
    // One is still running when the engine ends, and is found in doubt.
    let (counted, mut starts) = Counted::held();
    let running = submit(&engine, call_of(&flow, "running", "request"), counted.operation());
    starts.recv().await.unwrap();
    drop(running);
    counted.release();
    engine.shutdown().await;
    shown.leaks_nothing(&["an end did not fit the record", "a completion callback panicked"]);
}

#[tokio::test]
async fn a_store_that_fails_and_what_it_leaves_behind_show_nothing() {
    let (mut shown, faulty, flow) = (Shown::new(), Faulty::new(), flow());
    let (store, engine) = faulty.open_with(|limits| limits.drain = Duration::from_millis(1));
    let (counted, mut starts) = Counted::held();
    let unsaved =
        submit(&engine, call_of(&flow, "unsaved", "request"), counted.ending(|_| End::done(secret("answer"))));
    starts.recv().await.unwrap();
    store.break_down(Outage::Everything);
    counted.release();
    shown.heard(&unsaved.await.unwrap());
    shown.heard(&engine.submit(call_of(&flow, "new", "request"), done()).await);
    shown.heard(&engine.lookup(&key_of(&flow, "new")));
    shown.value(store.commit(&Batch::default()));
    engine.shutdown().await;
    store.heal();
    let (_, engine) = faulty.open();
    shown.heard(&engine.submit(call_of(&flow, "unsaved", "request"), done()).await);
    shown.value(engine.list(None, 9).unwrap());
    engine.shutdown().await;
    shown.leaks_nothing(&["the store failed", "answers could not be saved", "records of an earlier boot are in doubt"]);
}

#[tokio::test]
async fn a_quarantined_record_shows_nothing() {
    let (mut shown, bench, flow) = (Shown::new(), Bench::new(), flow());
    let engine = bench.open();
    answer(&engine, call_of(&flow, "a", "request"), done()).await;
    engine.shutdown().await;
    let (mut file, place) = (std::fs::read(bench.path()).unwrap(), secret("answer"));
    let places: Vec<_> = (0..file.len() - place.len()).filter(|at| file[*at..].starts_with(&place)).collect();
    assert!(!places.is_empty(), "the file itself is not encrypted");
    places.iter().for_each(|at| file[*at] ^= 1);
    std::fs::write(bench.path(), file).unwrap();
    shown.value(Engine::builder().open(bench.path()).map(drop).unwrap_err());
    let unchecked = Engine::builder()
        .clock(bench.clock.clone())
        .redb(RedbOptions::default().integrity_check(IntegrityCheck::Never));
    let engine = unchecked.open(bench.path()).unwrap();
    let refused = engine.submit(call_of(&flow, "a", "request"), done()).await;
    assert!(matches!(refused.as_ref().unwrap_err().kind(), ErrorKind::Quarantined), "{refused:?}");
    shown.heard(&refused);
    shown.heard(&engine.lookup(&key_of(&flow, "a")));
    shown.value(engine.list(None, 9).unwrap());
    engine.shutdown().await;
    shown.leaks_nothing(&[]);
}

#[test]
fn the_values_of_a_store_show_nothing() {
    let (mut shown, flow) = (Shown::new(), flow());
    let engine = Engine::builder().open_in_memory().unwrap();
    engine.submit_blocking(call_of(&flow, "a", "request"), done()).unwrap();
    let record = engine.lookup(&key_of(&flow, "a")).unwrap().unwrap();
    engine.shutdown_blocking();
    let written = Row::new("table", secret("row-key"), secret("row-value")).unwrap();
    let rows = vec![written, Row::removal("table", secret("row-key")).unwrap()];
    let expired = ExpiredRow { table: "table".into(), key: secret("row-key").into(), expires_at: UnixMillis(1) };
    let change =
        Change { rows, ..Change::new(key_of(&flow, "a"), Some(Version::of(&record)), Some(Arc::new(record.clone()))) };
    shown.words.push(record.attempt.token.0[..6].to_vec());
    shown.words.push(record.fingerprint.as_bytes()[..4].to_vec());
    shown.value((&record, &record.state, &expired));
    shown.value(Batch { changes: vec![change], expired_rows: vec![expired], ..Batch::default() });
    shown.leaks_nothing(&[]);
}

#[test]
fn what_a_lightning_peer_sends_shows_nothing() {
    use ibid::lightning::request_invoice::{Handled, InvoiceParams, RpcError, WireParams};
    let mut shown = Shown::new();
    let node = NodeId::new([3; 33]).unwrap();
    shown.words.push([3; 6].to_vec());
    let params = InvoiceParams {
        hash_index: 7,
        payment_hash: *b"CANARY-CANARY-CANARY-CANARY-CANA",
        amount_msat: 1,
        asset_id: Some(WORD.to_owned()),
        asset_amount: None,
        description_hash: *b"CANARY-CANARY-CANARY-CANARY-CANA",
        invoice_expiry_sec: 600,
        min_final_cltv_expiry_delta: 30,
    };
    shown.value((node, &params, WireParams { params: params.clone(), claim_session_id: Some(WORD.to_owned()) }));
    let minted = ibid::lightning::request_invoice::Minted { bolt11: WORD.to_owned(), expires_at: UnixMillis(1) };
    let session_id: Bytes = secret("session").into();
    shown.value((
        &minted,
        ibid::lightning::request_invoice::InvoiceRequest {
            lsp_node_id: node,
            session_id: session_id[..].into(),
            params,
        },
    ));
    let error = RpcError::new(1, WORD);
    shown.texts.push(error.to_string());
    shown.value(&error);
    shown
        .value((Handled::Reply(WORD.to_owned()), Handled::Response { id: WORD.to_owned(), result: None, error: None }));
    shown.leaks_nothing(&[]);
}

#[tokio::test]
async fn the_events_of_a_payment_that_do_not_fit_its_record_show_no_payment_id() {
    use crate::send_payment::model::{Event, Ldk, handle, hash};
    use crate::send_payment::{flow, invoice, own_node_id};
    use ibid::lightning::send_payment::{Handled, SendPaymentSetup, Sent};
    const ID: [u8; 32] = *b"CANARY-CANARY-CANARY-CANARY-CANA";
    let (shown, ldk) = (Shown::new(), Ldk::new());
    let setup = SendPaymentSetup::new(flow(), own_node_id(), Arc::new(ldk.clone()));
    let engine = setup.prepare(Engine::builder()).open_in_memory().unwrap();
    let payments = setup.bind(engine.clone()).unwrap();
    let failed = |payment_hash| Event::Failed { id: ID, payment_hash, reason: "RetriesExhausted" };
    let sent = |preimage| Event::Sent { id: ID, preimage, fee_msat: None };
    assert_eq!(payments.send(invoice(ID, ID)).await.unwrap(), Sent::Accepted);
    assert_eq!(handle(&payments, sent([1; 32])).await.unwrap(), Handled::Stale);
    assert_eq!(handle(&payments, failed(Some([2; 32]))).await.unwrap(), Handled::Stale);
    ldk.fail(ID);
    assert_eq!(ldk.deliver(&payments).await.unwrap(), Handled::Recorded);
    assert!(matches!(handle(&payments, sent(ID)).await.unwrap(), Handled::Contradiction(_)));
    engine.shutdown().await;
    handle(&payments, sent(ID)).await.unwrap_err();
    handle(&payments, failed(Some(hash(ID)))).await.unwrap_err();
    shown.leaks_nothing(&[
        "a payment that had failed is paid",
        "what is paid is not what was asked for",
        "a payment that is paid could not be recorded",
        "a failure that does not count",
        "a payment that failed could not be recorded",
    ]);
}
