//! System 1: the test vectors of `async_order.request_invoice`, over the wire, against a store on disk.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ibid::Clock as _;
use ibid::lightning::Blocking;
use ibid::lightning::request_invoice::{
    BlockingInvoiceProvider, FLOW_NAME, Handled, InvoiceProvider, InvoiceRequest, METHOD, Minted, Providing,
    RequestInvoice, RpcError,
};
use ibid::testing::ManualClock;
use ibid::{
    AfterExpiry, Attempt, Call, Completion, End, Engine, Flow, Limits, NodeId, Operation, Policy, Row, UnixMillis,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};

/// T, the time of the first run.
const T: UnixMillis = UnixMillis(1_700_000_000_000);

fn open(path: &Path, clock: ManualClock, limits: Limits) -> Engine {
    Engine::builder().clock(clock).limits(limits).open(path).unwrap()
}

// ---- the provider --------------------------------------------------------------------------------------------------

/// What the next call of the provider does; when the script is empty, it succeeds.
enum Script {
    Fail(RpcError),
    Panic,
    /// An invoice of that text.
    Text(String),
}

/// Counts what it is asked for; waits at a gate that the test opens.
struct Scripted {
    mints: watch::Sender<u32>,
    mint_script: Mutex<VecDeque<Script>>,
    record_script: Mutex<VecDeque<Script>>,
    /// Payment hashes whose mint waits until the gate opens.
    held: Mutex<Vec<[u8; 32]>>,
    open: watch::Sender<bool>,
    record_open: watch::Sender<bool>,
    records: watch::Sender<u32>,
    /// The rows of an outside ledger, by payment hash.
    rows: Mutex<Vec<([u8; 32], String)>>,
    /// Whether the ledger lives in the engine's own file.
    own_ledger: AtomicBool,
}

/// The engine's ledger table; a row is `pending|<unix ms>|<bolt11>`, or anything else that blocks.
const LEDGER: &str = "inbound_payments";

impl Scripted {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            mints: watch::Sender::new(0),
            mint_script: Mutex::default(),
            record_script: Mutex::default(),
            held: Mutex::default(),
            open: watch::Sender::new(false),
            record_open: watch::Sender::new(true),
            records: watch::Sender::new(0),
            rows: Mutex::default(),
            own_ledger: AtomicBool::new(false),
        })
    }

    fn mints(&self) -> u32 {
        *self.mints.borrow()
    }

    fn hold(&self, hash: u8) {
        self.held.lock().unwrap().push([hash; 32]);
    }

    fn release(&self) {
        self.open.send_replace(true);
    }

    async fn minting(&self, n: u32) {
        self.mints.subscribe().wait_for(|mints| *mints >= n).await.unwrap();
    }

    async fn recording(&self, n: u32) {
        self.records.subscribe().wait_for(|records| *records >= n).await.unwrap();
    }

    fn upsert(&self, row: ([u8; 32], String)) {
        let mut rows = self.rows.lock().unwrap();
        rows.retain(|(hash, _)| *hash != row.0);
        rows.push(row);
    }

    fn next_mint(&self, script: Script) {
        self.mint_script.lock().unwrap().push_back(script);
    }

    fn next_record(&self, script: Script) {
        self.record_script.lock().unwrap().push_back(script);
    }
}

impl InvoiceProvider for Scripted {
    fn mint<'a>(&'a self, request: &'a InvoiceRequest, attempt: &'a Attempt) -> Providing<'a, Minted> {
        Box::pin(async move {
            let mut number = 0;
            self.mints.send_modify(|mints| {
                *mints += 1;
                number = *mints;
            });
            let held = self.held.lock().unwrap().contains(&request.params.payment_hash);
            if held {
                self.open.subscribe().wait_for(|open| *open).await.unwrap();
            }
            let script = self.mint_script.lock().unwrap().pop_front();
            let bolt11 = match script {
                None => format!("lnbcrt-{number}"),
                Some(Script::Text(bolt11)) => bolt11,
                Some(Script::Fail(error)) => return Err(error),
                Some(Script::Panic) => panic!("scripted"),
            };
            Ok(Minted { bolt11, expires_at: attempt.expires_at().unwrap() })
        })
    }

    fn record<'a>(&'a self, request: &'a InvoiceRequest, minted: &'a Minted, _: &'a Attempt) -> Providing<'a, ()> {
        Box::pin(async move {
            self.records.send_modify(|records| *records += 1);
            self.record_open.subscribe().wait_for(|open| *open).await.unwrap();
            let row = (request.params.payment_hash, minted.bolt11.clone());
            self.upsert(row);
            let script = self.record_script.lock().unwrap().pop_front();
            match script {
                Some(Script::Fail(error)) => Err(error),
                Some(Script::Panic) => panic!("scripted"),
                Some(Script::Text(_)) | None => Ok(()),
            }
        })
    }

    fn row(&self, request: &InvoiceRequest, minted: &Minted) -> Option<Row> {
        self.own_ledger.load(Ordering::Relaxed).then(|| {
            let value = format!("pending|{}|{}", minted.expires_at.0, minted.bolt11);
            Row::new(LEDGER, request.params.payment_hash, value.into_bytes()).unwrap()
        })
    }

    fn blocks(&self, stored: &[u8], now: UnixMillis) -> bool {
        let pending = std::str::from_utf8(stored).unwrap().strip_prefix("pending|");
        pending.is_none_or(|rest| now.0 < rest.split('|').next().unwrap().parse().unwrap())
    }
}

// ---- the node ------------------------------------------------------------------------------------------------------

/// A node with its handler: everything that a restart takes away and builds again.
struct Node {
    path: PathBuf,
    _dir: TempDir,
    clock: ManualClock,
    policy: Policy,
    limits: Limits,
    provider: Arc<Scripted>,
    engine: Engine,
    handler: RequestInvoice,
}

impl Node {
    fn new() -> Self {
        Self::with(Policy::request_invoice(), Limits::default(), T)
    }

    fn with(policy: Policy, limits: Limits, now: UnixMillis) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ibid.redb");
        let (clock, provider) = (ManualClock::at(now), Scripted::new());
        let engine = open(&path, clock.clone(), limits.clone());
        let handler = handler(&engine, &policy);
        handler.set_provider(Some(provider.clone()));
        Self { path, _dir: dir, clock, policy, limits, provider, engine, handler }
    }

    async fn reopen(&mut self) {
        self.reopen_without_provider().await;
        self.handler.set_provider(Some(self.provider.clone()));
    }

    async fn reopen_without_provider(&mut self) {
        self.engine.shutdown().await;
        self.engine = open(&self.path, self.clock.clone(), self.limits.clone());
        self.handler = handler(&self.engine, &self.policy);
    }

    fn at(&self, after: Duration) {
        let ahead = T.saturating_add(after).0.saturating_sub(self.clock.now().0);
        self.clock.advance(Duration::from_millis(ahead));
    }

    /// Hands in a frame; what comes back is the frame to send, now or when it is pending.
    fn send(&self, from: NodeId, frame: &str) -> oneshot::Receiver<String> {
        let (pending, reply) = oneshot::channel();
        match self.handler.handle(from, frame.as_bytes(), |frame| pending.send(frame).unwrap()) {
            Handled::Pending => reply,
            Handled::Reply(frame) => {
                let (immediate, reply) = oneshot::channel();
                immediate.send(frame).unwrap();
                reply
            }
            other => panic!("{other:?}"),
        }
    }

    async fn ask(&self, id: &str, params: &Value) -> String {
        self.send(peer(1), &request(id, params)).await.unwrap()
    }

    fn with_own_ledger() -> Self {
        let node = Self::new();
        node.provider.own_ledger.store(true, Ordering::Relaxed);
        node
    }

    /// The row of B's payment hash.
    fn row(&self) -> Option<String> {
        let row = self.engine.ledger_row(LEDGER, &[0x5c; 32]).unwrap()?;
        Some(String::from_utf8(row.value.to_vec()).unwrap())
    }

    async fn live_records(&self) -> u64 {
        let records = self.engine.stats().await.unwrap().records;
        records.registered + records.in_doubt + records.completed
    }
}

fn handler(engine: &Engine, policy: &Policy) -> RequestInvoice {
    RequestInvoice::new(engine.clone(), Flow::new(FLOW_NAME, policy.clone()).unwrap())
}

fn peer(n: u8) -> NodeId {
    let mut bytes = [n; 33];
    bytes[0] = 2;
    NodeId::new(bytes).unwrap()
}

// ---- the wire ------------------------------------------------------------------------------------------------------

/// Request B of the vectors.
fn b() -> Value {
    b_for(0x5c)
}

/// B for the payment hash of 32 times that byte.
fn b_for(hash: u8) -> Value {
    json!({
        "hash_index": "7",
        "payment_hash": format!("{hash:02x}").repeat(32),
        "amount_msat": 5_000_000,
        "description_hash": "e1".repeat(32),
        "invoice_expiry_sec": 600,
        "min_final_cltv_expiry_delta": 30,
    })
}

fn with(mut params: Value, changes: &[(&str, Value)]) -> Value {
    for (member, value) in changes {
        params[member] = value.clone();
    }
    params
}

fn more(params: Value) -> Value {
    with(params, &[("amount_msat", json!(5_000_001))])
}

fn request(id: &str, params: &Value) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{METHOD}","params":{params}}}"#)
}

/// The reply with the invoice of the n-th mint for B.
fn invoice(id: &str, n: u32) -> String {
    invoice_for(id, 0x5c, &format!("lnbcrt-{n}"))
}

fn invoice_for(id: &str, hash: u8, bolt11: &str) -> String {
    let hash = format!("{hash:02x}").repeat(32);
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"payment_hash":"{hash}","bolt11":"{bolt11}"}}}}"#)
}

fn error(id: &str, error: &RpcError) -> String {
    let message = Value::from(error.message());
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{},"message":{message}}}}}"#, error.code())
}

fn stale(id: &str) -> String {
    error(id, &RpcError::stale_flow())
}

fn unknown(id: &str) -> String {
    error(id, &RpcError::outcome_unknown())
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const JUST_UNDER_600: Duration = Duration::from_millis(599_999);

// ---- vectors 1 to 3: one request -----------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_replays_the_same_result_under_its_own_id_also_after_reopen() {
    let mut node = Node::new();
    for id in [r#""a""#, "17", r#"{ "fresh": [null] }"#] {
        assert_eq!(node.ask(id, &b()).await, invoice(id, 1));
    }
    node.reopen().await;
    assert_eq!(node.ask("18", &b()).await, invoice("18", 1));
    assert_eq!(node.provider.mints(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_request_under_one_session_is_stale_whichever_field_differs() {
    let mut node = Node::new();
    let in_session = |params| with(params, &[("claim_session_id", json!("session"))]);
    let changes = [
        ("hash_index", json!("8")),
        ("payment_hash", json!("5d".repeat(32))),
        ("amount_msat", json!(5_000_001)),
        ("asset_id", json!("")),
        ("asset_amount", json!(0)),
        ("description_hash", json!("e2".repeat(32))),
        ("invoice_expiry_sec", json!(601)),
        ("min_final_cltv_expiry_delta", json!(31)),
    ];
    assert_eq!(node.ask("0", &in_session(b())).await, invoice("0", 1));
    for round in ["1", "2"] {
        for change in &changes {
            let other = in_session(with(b(), std::slice::from_ref(change)));
            assert_eq!(node.ask(round, &other).await, stale(round), "{}", change.0);
        }
        node.reopen().await;
    }
    assert_eq!(node.ask("3", &in_session(b())).await, invoice("3", 1));
    assert_eq!(node.provider.mints(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_spelling_of_the_same_request_replays() {
    let node = Node::new();
    assert_eq!(node.ask("1", &b()).await, invoice("1", 1));
    let spelled = with(
        b(),
        &[
            ("hash_index", json!("007")),
            ("payment_hash", json!("5C5c".repeat(16))),
            ("description_hash", json!(format!("  {}\t", "E1".repeat(32)))),
            ("asset_id", Value::Null),
        ],
    );
    assert_eq!(node.ask("2", &spelled).await, invoice("2", 1));
    assert_eq!(node.provider.mints(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_peers_with_one_session_id_never_meet() {
    let node = Node::new();
    let first = node.send(peer(1), &request("1", &b())).await.unwrap();
    let second = node.send(peer(2), &request("1", &more(b()))).await.unwrap();
    assert_eq!((first, second), (invoice("1", 1), invoice("1", 2)));
    assert_eq!(node.provider.mints(), 2);
}

// ---- vectors 4 to 7: frames that burn no key -----------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_wrong_is_answered_at_once_and_leaves_no_record() {
    let node = Node::new();
    let all_three =
        [("hash_index", json!("")), ("payment_hash", json!("5c".repeat(31))), ("description_hash", json!("zz"))];
    let table = [
        (with(b(), &[("hash_index", json!(""))]), RpcError::invalid_hash_index()),
        (with(b(), &[("hash_index", json!("7 "))]), RpcError::invalid_hash_index()),
        (with(b(), &[("hash_index", json!("-7"))]), RpcError::invalid_hash_index()),
        (with(b(), &[("payment_hash", json!("5c".repeat(31)))]), RpcError::invalid_payment_hash()),
        (with(b(), &[("description_hash", json!("zz".repeat(32)))]), RpcError::invalid_description_hash()),
        (with(b(), &all_three), RpcError::invalid_hash_index()),
        (with(b(), &[("amount_msat", json!("5000000"))]), RpcError::invalid_params()),
        (with(b(), &[("invoice_expiry_sec", json!(-1))]), RpcError::invalid_params()),
        (with(b(), &[("min_final_cltv_expiry_delta", json!(70_000))]), RpcError::invalid_params()),
        (with(b(), &[("memo", json!("x"))]), RpcError::invalid_params()),
    ];
    let mut frames: Vec<_> =
        table.iter().map(|(params, refusal)| (request("7", params), error("7", refusal))).collect();
    let nope = r#"{"jsonrpc":"2.0","id":"n","method":"async_order.nope"}"#;
    frames.extend([
        ("[1".into(), error("null", &RpcError::parse_error())),
        (r#"{"id":1,"method":"x"}"#.into(), error("null", &RpcError::parse_error())),
        (request("1", &b()).replace("2.0", "1.0"), error("null", &RpcError::invalid_request())),
        (r#"{"jsonrpc":"2.0","id":1,"params":{}}"#.into(), error("null", &RpcError::invalid_request())),
        (nope.into(), error("\"n\"", &RpcError::method_not_found())),
    ]);
    for (frame, expected) in frames {
        let handled = node.handler.handle(peer(1), frame.as_bytes(), |_| unreachable!("nothing was admitted"));
        assert!(handled == Handled::Reply(expected.clone()), "{frame} is not answered with {expected}");
    }
    assert_eq!((node.provider.mints(), node.live_records().await), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_never_answered() {
    let node = Node::new();
    let never = |_| unreachable!("nothing was admitted");
    let bare = node.handler.handle(peer(1), br#"{"jsonrpc":"2.0","id":"a"}"#, never);
    assert!(bare == Handled::Response { id: r#""a""#.into(), result: None, error: None });
    let both = request("1", &b()).replacen('{', r#"{"error":{"code":1,"message":""},"#, 1);
    assert!(node.handler.handle(peer(1), both.as_bytes(), never) == Handled::Ignored);
    assert_eq!((node.provider.mints(), node.live_records().await), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_the_host_does_not_allow_gets_silence_and_leaves_no_record() {
    let mut node = Node::new();
    node.handler = handler(&node.engine, &node.policy).allow(|from| *from == peer(1));
    node.handler.set_provider(Some(node.provider.clone()));
    for frame in [request("1", &b()), "[1".into()] {
        let handled = node.handler.handle(peer(2), frame.as_bytes(), |_| unreachable!("nothing was admitted"));
        assert!(handled == Handled::Ignored);
    }
    assert_eq!((node.provider.mints(), node.live_records().await), (0, 0));
    assert_eq!(node.ask("1", &b()).await, invoice("1", 1));
}

// ---- vector 8: in flight -------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn eight_duplicates_of_three_peers_share_three_runs_and_nobody_else_waits() {
    let node = Node::new();
    (1..=3).for_each(|n| node.provider.hold(n));
    let mut pending = Vec::new();
    for n in 1..=3 {
        let ids: Vec<_> = (0..8).map(|i| format!("\"{n}-{i}\"")).collect();
        let replies: Vec<_> = ids.iter().map(|id| node.send(peer(n), &request(id, &b_for(n)))).collect();
        node.provider.minting(n.into()).await;
        pending.push((ids, replies));
    }
    for n in 1..=3 {
        let reply = node.send(peer(n), &request("9", &more(b_for(n)))).await.unwrap();
        assert_eq!(reply, stale("9"), "at once, while the first still runs");
    }
    let fourth = node.send(peer(4), &request("4", &b_for(4))).await.unwrap();
    assert_eq!(fourth, invoice_for("4", 4, "lnbcrt-4"));
    assert_eq!(node.provider.mints(), 4);
    node.provider.release();
    for (n, (ids, replies)) in (1_u8..).zip(pending) {
        for (id, reply) in ids.iter().zip(replies) {
            // The n-th peer's mint was the n-th: each was awaited before the next peer began.
            assert_eq!(reply.await.unwrap(), invoice_for(id, n, &format!("lnbcrt-{n}")));
        }
    }
    assert_eq!(node.provider.mints(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_ends_early_hears_outcome_unknown_and_the_run_is_recorded() {
    let mut node = Node::new();
    node.handler = handler(&node.engine, &node.policy).wait(Duration::from_millis(1));
    node.handler.set_provider(Some(node.provider.clone()));
    node.provider.hold(0x5c);
    assert_eq!(node.ask("1", &b()).await, unknown("1"));
    node.handler = handler(&node.engine, &node.policy);
    node.handler.set_provider(Some(node.provider.clone()));
    let retry = node.send(peer(1), &request("2", &b()));
    node.provider.release();
    assert_eq!(retry.await.unwrap(), invoice("2", 1));
    assert_eq!(node.provider.mints(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_leaves_its_answer_in_the_record() {
    let mut node = Node::new();
    let wire = ibid::lightning::request_invoice::WireParams::parse(&b().to_string()).unwrap();
    node.provider.hold(0x5c);
    {
        let mut gone = std::pin::pin!(node.handler.request(peer(1), wire.session_id(), wire.params.clone()));
        tokio::select! {
            biased;
            _ = &mut gone => unreachable!("the mint is held"),
            () = node.provider.minting(1) => {}
        }
    }
    node.provider.release();
    let result = node.handler.request(peer(1), wire.session_id(), wire.params).await.unwrap();
    node.reopen().await;
    let replayed = node.ask("1", &b()).await;
    assert_eq!(replayed, invoice("1", 1));
    assert!(replayed.contains(std::str::from_utf8(&result).unwrap()), "with and without the wire: the same bytes");
    assert_eq!(node.provider.mints(), 1);
}

// ---- vectors 9 to 14: time -----------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn at_its_expiry_a_request_is_stale_once_and_then_runs() {
    let node = Node::new();
    assert_eq!(node.ask("1", &b()).await, invoice("1", 1));
    node.at(JUST_UNDER_600);
    assert_eq!(node.ask("2", &b()).await, invoice("2", 1));
    node.at(secs(600));
    assert_eq!(node.ask("3", &b()).await, stale("3"));
    assert_eq!(node.live_records().await, 0);
    assert_eq!(node.ask("4", &b()).await, invoice("4", 2));
    assert_eq!(node.provider.mints(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_its_expiry_a_request_runs_at_once_where_the_policy_says_rerun() {
    let policy = Policy::request_invoice().after_expiry(AfterExpiry::Rerun);
    let node = Node::with(policy, Limits::default(), T);
    assert_eq!(node.ask("1", &b()).await, invoice("1", 1));
    node.at(JUST_UNDER_600);
    assert_eq!(node.ask("2", &b()).await, invoice("2", 1));
    node.at(secs(600));
    assert_eq!(node.ask("3", &b()).await, invoice("3", 2));
    assert_eq!(node.provider.mints(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_requests_that_touch_an_expired_record_together_one_is_stale_and_one_runs() {
    let node = Node::new();
    assert_eq!(node.ask("1", &b()).await, invoice("1", 1));
    node.at(secs(600));
    let (one, two) = (node.send(peer(1), &request("2", &b())), node.send(peer(1), &request("2", &b())));
    let mut replies = [one.await.unwrap(), two.await.unwrap()];
    replies.sort();
    let mut expected = [stale("2"), invoice("2", 2)];
    expected.sort();
    assert_eq!((replies, node.provider.mints()), (expected, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_grace_does_not_depend_on_an_expiry_sweep() {
    for expiry_sweep in [false, true] {
        for (millis, expected, mints) in [(719_999, stale("2"), 1), (720_000, invoice("2", 2), 2)] {
            let node = Node::new();
            assert_eq!(node.ask("1", &b()).await, invoice("1", 1));
            node.at(Duration::from_millis(millis));
            if expiry_sweep {
                node.engine.expiry_sweep().await.unwrap();
            }
            assert_eq!(node.ask("2", &b()).await, expected, "{millis} ms, expiry sweep: {expiry_sweep}");
            assert_eq!(node.provider.mints(), mints);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_request_on_an_expired_record_is_stale_once_and_then_runs() {
    let node = Node::new();
    assert_eq!(node.ask("1", &b()).await, invoice("1", 1));
    node.at(secs(650));
    assert_eq!(node.ask("2", &more(b())).await, stale("2"));
    assert_eq!(node.ask("3", &more(b())).await, invoice("3", 2));
    assert_eq!(node.provider.mints(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_back_revives_nothing_also_after_reopen() {
    let mut node = Node::new();
    assert_eq!(node.ask("1", &b()).await, invoice("1", 1));
    node.at(secs(600));
    node.engine.expiry_sweep().await.unwrap();
    node.clock.set(UnixMillis(T.0 - 3_000_000));
    node.reopen().await;
    assert_eq!(node.ask("2", &b()).await, stale("2"));
    assert_eq!(node.provider.mints(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_past_the_end_of_time_is_refused_before_anything_starts() {
    let node = Node::with(Policy::request_invoice(), Limits::default(), UnixMillis(u64::MAX - 1000));
    assert_eq!(node.ask("1", &b()).await, error("1", &RpcError::expiry_overflow()));
    assert_eq!((node.provider.mints(), node.live_records().await), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_operation_does_not_lengthen_the_life_of_its_invoice() {
    let node = Node::new();
    node.provider.hold(0x5c);
    let first = node.send(peer(1), &request("1", &b()));
    node.provider.minting(1).await;
    node.at(secs(20));
    node.provider.release();
    assert_eq!(first.await.unwrap(), invoice("1", 1));
    node.at(secs(599));
    assert_eq!(node.ask("2", &b()).await, invoice("2", 1));
    node.at(secs(600));
    assert_eq!(node.ask("3", &b()).await, stale("3"));
    assert_eq!(node.provider.mints(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_of_zero_answers_the_first_caller_and_expires_at_once() {
    let node = Node::new();
    let brief = with(b(), &[("invoice_expiry_sec", json!(0))]);
    assert_eq!(node.ask("1", &brief).await, invoice("1", 1));
    assert_eq!(node.ask("2", &brief).await, stale("2"));
    assert_eq!(node.provider.mints(), 1);
}

// ---- vectors 15, 16: errors of the operation -----------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_operation_is_verbatim_and_never_stored() {
    let node = Node::new();
    node.provider.next_mint(Script::Fail(RpcError::invalid_hash_batch()));
    assert_eq!(node.ask("1", &b()).await, error("1", &RpcError::invalid_hash_batch()));
    assert_eq!(node.live_records().await, 0);
    assert_eq!(node.ask("2", &b()).await, invoice("2", 2));
    assert_eq!(node.ask("3", &b()).await, invoice("3", 2));
    assert_eq!(node.provider.mints(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joined_hears_the_same_error_as_the_first() {
    let node = Node::new();
    node.provider.hold(0x5c);
    let own = RpcError::signer_derive_failed("\"quoted\" \u{e9}");
    node.provider.next_mint(Script::Fail(own.clone()));
    let pending = two_joined(&node).await;
    node.provider.release();
    assert_eq!(pending.0.await.unwrap(), error("1", &own));
    assert_eq!(pending.1.await.unwrap(), error("2", &own));
    assert_eq!(node.provider.mints(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_leaves_the_outcome_unknown_to_all_who_wait_and_the_next_request_runs() {
    let node = Node::new();
    node.provider.hold(0x5c);
    node.provider.next_mint(Script::Panic);
    let pending = two_joined(&node).await;
    node.provider.release();
    assert_eq!(pending.0.await.unwrap(), unknown("1"));
    assert_eq!(pending.1.await.unwrap(), unknown("2"));
    assert_eq!(node.ask("3", &more(b())).await, stale("3"), "in doubt, the key still belongs to its request");
    assert_eq!(node.ask("4", &b()).await, invoice("4", 2));
    assert_eq!(node.provider.mints(), 2);
}

/// B twice, held, the second surely joined: a key answers in order, and a request behind it has been answered.
async fn two_joined(node: &Node) -> (oneshot::Receiver<String>, oneshot::Receiver<String>) {
    let first = node.send(peer(1), &request("1", &b()));
    node.provider.minting(1).await;
    let second = node.send(peer(1), &request("2", &b()));
    assert_eq!(node.ask("0", &more(b())).await, stale("0"));
    (first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_that_fits_no_frame_is_refused_and_nothing_is_kept() {
    let node = Node::new();
    node.provider.next_mint(Script::Text("l".repeat(65_533)));
    assert_eq!(node.ask("1", &b()).await, error("1", &RpcError::reply_too_large()));
    assert_eq!(node.live_records().await, 0);
    assert_eq!(node.provider.rows.lock().unwrap().len(), 0);
    assert_eq!(node.ask("2", &b()).await, invoice("2", 2));
    assert_eq!(node.provider.mints(), 2);
}

// ---- section 6: an outside ledger ----------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn after_the_checkpoint_an_error_of_the_ledger_is_verbatim_and_the_retry_mints_nothing() {
    let mut node = Node::new();
    let failed = RpcError::outbound_invoice_persist_failed("disk");
    // More often than re-runs may end unknown: a typed error doesn't count.
    for round in 1..=8 {
        node.provider.next_record(Script::Fail(failed.clone()));
        assert_eq!(node.ask("1", &b()).await, error("1", &failed), "round {round}");
        if round == 4 {
            node.reopen().await;
        }
    }
    assert_eq!(node.ask("2", &b()).await, invoice("2", 1));
    assert_eq!(*node.provider.rows.lock().unwrap(), [([0x5c; 32], "lnbcrt-1".into())]);
    assert_eq!(node.provider.mints(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_checkpoint_a_panic_of_the_ledger_is_unknown_and_the_retry_mints_nothing() {
    let mut node = Node::new();
    node.provider.next_record(Script::Panic);
    assert_eq!(node.ask("1", &b()).await, unknown("1"));
    node.reopen().await;
    assert_eq!(node.ask("2", &b()).await, invoice("2", 1));
    assert_eq!(node.provider.rows.lock().unwrap().len(), 1);
    assert_eq!(node.provider.mints(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_between_checkpoint_and_ledger_row_returns_the_checkpointed_invoice() {
    let mut node = Node::with(Policy::request_invoice(), no_drain(), T);
    node.provider.record_open.send_replace(false);
    let first = node.send(peer(1), &request("1", &b()));
    node.provider.recording(1).await;
    node.reopen().await;
    assert_eq!(first.await.unwrap(), unknown("1"));
    node.provider.record_open.send_replace(true);
    assert_eq!(node.ask("2", &b()).await, invoice("2", 1));
    assert_eq!(node.provider.rows.lock().unwrap().len(), 1);
    assert_eq!(node.provider.mints(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpointed_invoice_that_expired_meanwhile_is_never_returned_stale_once_and_then_minted_anew() {
    let node = Node::new();
    node.provider.next_record(Script::Panic);
    assert_eq!(node.ask("1", &b()).await, unknown("1"));
    node.at(secs(600));
    assert_eq!(node.ask("2", &b()).await, stale("2"));
    assert_eq!(node.ask("3", &b()).await, invoice("3", 2));
    assert_eq!(*node.provider.rows.lock().unwrap(), [([0x5c; 32], "lnbcrt-2".into())]);
    assert_eq!(node.provider.mints(), 2);
}

// ---- vectors 20 to 22: the host ------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn without_a_provider_a_record_replays_and_nothing_else_starts() {
    let mut node = Node::new();
    node.handler.set_provider(None);
    assert_eq!(node.ask("1", &b()).await, error("1", &RpcError::provider_not_available()));
    assert_eq!(node.live_records().await, 0);
    node.handler.set_provider(Some(node.provider.clone()));
    assert_eq!(node.ask("2", &b()).await, invoice("2", 1));
    node.reopen_without_provider().await;
    assert_eq!(node.ask("3", &b()).await, invoice("3", 1));
    assert_eq!(node.provider.mints(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_of_the_handler_has_the_same_provider() {
    let node = Node::new();
    let clone = node.handler.clone();
    clone.set_provider(None);
    assert_eq!(node.ask("1", &b()).await, error("1", &RpcError::provider_not_available()));
    clone.set_provider(Some(node.provider.clone()));
    assert_eq!(node.ask("2", &b()).await, invoice("2", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_provider_a_record_in_doubt_stays_as_it_is() {
    let node = Node::new();
    node.provider.next_mint(Script::Panic);
    assert_eq!(node.ask("1", &b()).await, unknown("1"));
    node.handler.set_provider(None);
    // More often than re-runs may end unknown: none of these is one.
    for _ in 0..8 {
        assert_eq!(node.ask("2", &b()).await, error("2", &RpcError::provider_not_available()));
    }
    node.handler.set_provider(Some(node.provider.clone()));
    assert_eq!(node.ask("3", &b()).await, invoice("3", 2));
    assert_eq!(node.provider.mints(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_admission_a_thousand_requests_are_refused_at_once_and_register_nothing() {
    let mut limits = Limits::default();
    limits.in_flight = 1;
    let node = Node::with(Policy::request_invoice(), limits, T);
    node.provider.hold(0x5c);
    let first = node.send(peer(1), &request("1", &b()));
    node.provider.minting(1).await;
    let called = Arc::new(AtomicU32::new(0));
    for n in 0..1000 {
        let params = with(b_for(0x77), &[("claim_session_id", json!(n.to_string()))]);
        let counter = called.clone();
        let count = move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        let handled = node.handler.handle(peer(2), request("7", &params).as_bytes(), count);
        assert!(handled == Handled::Reply(error("7", &RpcError::busy())));
    }
    assert_eq!(node.live_records().await, 1);
    node.provider.release();
    assert_eq!(first.await.unwrap(), invoice("1", 1));
    assert_eq!((called.load(Ordering::Relaxed), node.provider.mints()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_while_an_operation_runs_frees_the_file_and_one_invoice_is_returned() {
    let mut node = Node::with(Policy::request_invoice(), no_drain(), T);
    node.provider.hold(0x5c);
    let first = node.send(peer(1), &request("1", &b()));
    node.provider.minting(1).await;
    let stray = (node.engine.clone(), handler(&node.engine, &node.policy));
    node.reopen().await;
    node.provider.release();
    assert_eq!(first.await.unwrap(), unknown("1"));
    assert_eq!(node.ask("2", &b()).await, invoice("2", 2));
    let closed = stray.1.handle(peer(1), request("3", &b()).as_bytes(), |_| unreachable!("it is closed"));
    assert!(closed == Handled::Reply(unknown("3")));
    assert_eq!(node.ask("4", &b()).await, invoice("4", 2));
    assert_eq!(node.provider.mints(), 2);
}

fn no_drain() -> Limits {
    let mut limits = Limits::default();
    limits.drain = Duration::ZERO;
    limits
}

/// A provider that blocks its thread, as a signer behind a synchronous API does.
#[derive(Default)]
struct Signer {
    calls: AtomicU32,
}

impl BlockingInvoiceProvider for Signer {
    fn mint(&self, _: &InvoiceRequest, attempt: &Attempt) -> Result<Minted, RpcError> {
        match self.calls.fetch_add(1, Ordering::Relaxed) + 1 {
            1 => panic!("scripted"),
            2 => Err(RpcError::external_signer_unavailable()),
            n => Ok(Minted { bolt11: format!("lnbcrt-{n}"), expires_at: attempt.expires_at().unwrap() }),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocking_provider_panics_fails_and_answers_like_any_other() {
    let node = Node::new();
    let signer = Arc::new(Signer::default());
    node.handler.set_provider(Some(Arc::new(Blocking::new(signer.clone()))));
    assert_eq!(node.ask("1", &b()).await, unknown("1"));
    assert_eq!(node.ask("2", &b()).await, error("2", &RpcError::external_signer_unavailable()));
    assert_eq!(node.ask("3", &b()).await, invoice("3", 3));
    assert_eq!(node.ask("4", &b()).await, invoice("4", 3));
    assert_eq!(signer.calls.load(Ordering::Relaxed), 3);
}

// ---- a ledger in the engine's own file (vectors 17 and 18) -----------------------------------------------------------

/// B's row, pending until its invoice expires.
fn pending(bolt11: &str) -> Option<String> {
    Some(format!("pending|{}|{bolt11}", T.saturating_add(secs(600)).0))
}

#[tokio::test]
async fn of_two_sessions_that_mint_for_one_hash_one_gets_its_invoice_and_the_other_is_stale() {
    let node = Node::with_own_ledger();
    node.provider.hold(0x5c);
    let session = |name: &str| with(b(), &[("claim_session_id", json!(name))]);
    let asked = [node.send(peer(1), &request("1", &session("s"))), node.send(peer(2), &request("1", &session("t")))];
    node.provider.minting(2).await;
    node.provider.release();
    let [one, two] = asked;
    let mut replies = [one.await.unwrap(), two.await.unwrap()];
    replies.sort_by_key(|reply| reply.contains("error"));
    let [won, lost] = replies;
    assert_eq!(lost, stale("1"));
    let row = node.row().unwrap();
    let bolt11 = row.rsplit('|').next().unwrap();
    assert_eq!(won, invoice_for("1", 0x5c, bolt11), "the row is the winner's");
    assert_eq!((node.provider.mints(), node.live_records().await), (2, 1));
}

#[tokio::test]
async fn a_row_is_written_with_the_answer_and_a_run_that_never_ended_has_none() {
    let mut node = Node::with_own_ledger();
    node.provider.next_record(Script::Panic);
    assert_eq!(node.ask("1", &b()).await, unknown("1"));
    assert_eq!(node.row(), None, "a checkpoint is no row");
    node.reopen().await;
    node.at(secs(1));
    assert_eq!(node.ask("2", &b()).await, invoice("2", 1));
    assert_eq!(node.row(), pending("lnbcrt-1"), "with the values of the checkpoint");
    node.reopen().await;
    assert_eq!(node.ask("3", &b()).await, invoice("3", 1));
    assert_eq!(node.row(), pending("lnbcrt-1"));
    assert_eq!(node.provider.mints(), 1);
}

#[tokio::test]
async fn a_row_that_still_counts_blocks_every_session_and_one_past_its_expiry_none() {
    let mut node = Node::with_own_ledger();
    assert_eq!(node.ask("1", &b()).await, invoice("1", 1));
    let other = with(b(), &[("claim_session_id", json!("other"))]);
    for from in [1, 2] {
        assert_eq!(node.send(peer(from), &request("2", &other)).await.unwrap(), stale("2"));
    }
    node.reopen().await;
    node.at(secs(600) - Duration::from_millis(1));
    assert_eq!(node.ask("3", &other).await, stale("3"));
    node.at(secs(600));
    assert_eq!(node.ask("4", &other).await, invoice("4", 5));
    assert_eq!(node.live_records().await, 2, "the expired one and the fresh one: a loser leaves none");
}

#[tokio::test]
async fn a_claimed_row_blocks_for_good() {
    let node = Node::with_own_ledger();
    let claimed = Row::new(LEDGER, [0x5c; 32], *b"claimed").unwrap();
    let flow = Flow::new("host", Policy::replay(secs(60))).unwrap();
    let call = Call::new(&flow, &flow.key("host", "claim").unwrap(), *b"r");
    let write = Operation::new(async |_| End::Done(Completion::new(*b"done").row(claimed)));
    node.engine.submit(call, write).await.unwrap();
    node.at(secs(86_400));
    assert_eq!(node.ask("1", &b()).await, stale("1"));
    assert_eq!((node.row().as_deref(), node.live_records().await), (Some("claimed"), 1));
}
