//! An LSP that retries: `cargo run --example request_invoice`, and then once more.
//!
//! A Lightning node answers `async_order.request_invoice` with real BOLT11 invoices for regtest, and every retry gets the
//! invoice that the first request got: from ten callers at once, after a restart, after a crash in any window, and, when
//! you run it again, from the process before. The row of the ledger by which the node will claim the payment is written
//! together with the answer. Each step checks itself; if one does not hold, the exit code is 1 and the last line says which.

mod support;

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use ibid::lightning::request_invoice::{
    FLOW_NAME, InvoiceParams, InvoiceProvider, InvoiceRequest, Minted, Providing, RequestInvoice, RpcError,
};
use ibid::testing::ManualClock;
use ibid::{Attempt, Builder, Bytes, Clock, Engine, Flow, NodeId, Policy, Row, Status, SystemClock, UnixMillis};
use lightning_invoice::Bolt11Invoice;
use support::{CLTV_ADDED, Minter, ledger};

const DAY_SECS: u32 = 24 * 60 * 60;
const FILE: &str = "invoices.redb";
const WITNESS: &str = "minted";

type Step<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let told = match args.as_slice() {
        [dir, window] => die(Path::new(dir), window).await,
        _ => story().await,
    };
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("FAILED: {failed}");
            ExitCode::FAILURE
        }
    }
}

async fn story() -> Step<()> {
    let dir = std::env::temp_dir().join("ibid-request-invoice");
    fs::create_dir_all(&dir)?;
    let path = dir.join(FILE);
    println!("file     ibid-request-invoice/invoices.redb, where temporary files are; remove it to begin anew\n");

    let node = Node::open(Engine::builder(), &path)?;
    let answer = node.first_answer().await?;
    node.ten_at_once().await?;
    node.another_amount().await?;
    node.engine.shutdown().await;

    let node = Node::open(Engine::builder(), &path)?;
    let replayed = node.ask(order()).await?;
    check(replayed == answer && node.mints() == 0, "a reopened file replays the same bytes and mints nothing")?;
    println!("reopen   engine closed and opened again: replayed, byte for byte, nothing minted");
    node.engine.shutdown().await;

    crashes().await?;
    expiry().await?;
    println!("\nEvery step held. Run it again: the first answer will be replayed.");
    Ok(())
}

/// The recipient's node: the engine, and the handler that a host would own.
struct Node {
    engine: Engine,
    flow: Flow,
    handler: RequestInvoice,
    wallet: Arc<Wallet>,
}

/// Counts what it mints, and dies where it is told to.
struct Wallet {
    minter: Minter,
    mints: AtomicU32,
    crash: Option<Crash>,
}

/// How this process will end, and the file in which it leaves what it has minted until then.
struct Crash {
    window: String,
    witness: PathBuf,
}

/// Where a process can die, how the record stands then, how many invoices were minted, and how many more the next process
/// mints. Before the checkpoint nobody has seen an invoice.
const WINDOWS: [(&str, Status, usize, u32); 4] = [
    ("before the mint", Status::InDoubt, 0, 1),
    ("after the mint", Status::InDoubt, 1, 1),
    ("after the checkpoint", Status::InDoubt, 1, 0),
    ("after the completion", Status::Completed, 1, 0),
];

impl Wallet {
    fn crash_if(&self, window: &str) {
        if self.crash.as_ref().is_some_and(|crash| crash.window == window) {
            std::process::abort();
        }
    }

    fn witness(&self, minted: &Minted) -> Result<(), RpcError> {
        let Some(crash) = &self.crash else { return Ok(()) };
        let file = fs::OpenOptions::new().create(true).append(true).open(&crash.witness);
        file.and_then(|mut file| writeln!(file, "{}", minted.bolt11)).map_err(RpcError::outbound_invoice_failed)
    }
}

impl InvoiceProvider for Wallet {
    fn mint<'a>(&'a self, request: &'a InvoiceRequest, attempt: &'a Attempt) -> Providing<'a, Minted> {
        Box::pin(async {
            self.crash_if("before the mint");
            self.mints.fetch_add(1, Ordering::Relaxed);
            let minted = self.minter.mint(&request.params, attempt.admitted_at())?;
            self.witness(&minted)?;
            self.crash_if("after the mint");
            Ok(minted)
        })
    }

    /// Nothing to do: this node's ledger is in the engine's file. But the checkpoint is saved by now.
    fn record<'a>(&'a self, _: &'a InvoiceRequest, _: &'a Minted, _: &'a Attempt) -> Providing<'a, ()> {
        self.crash_if("after the checkpoint");
        Box::pin(std::future::ready(Ok(())))
    }

    fn row(&self, request: &InvoiceRequest, minted: &Minted) -> Option<Row> {
        ledger::inbound_payment(&request.params, minted)
    }

    fn blocks(&self, stored: &[u8], now: UnixMillis) -> bool {
        ledger::blocks(stored, now)
    }
}

impl Node {
    fn open(builder: Builder, path: &Path) -> Step<Self> {
        Self::open_to_crash(builder, path, None)
    }

    fn open_to_crash(builder: Builder, path: &Path, crash: Option<Crash>) -> Step<Self> {
        let engine = builder.open(path)?;
        let flow = Flow::new(FLOW_NAME, Policy::request_invoice())?;
        let handler = RequestInvoice::new(engine.clone(), flow.clone());
        let wallet = Arc::new(Wallet { minter: Minter::new()?, mints: AtomicU32::new(0), crash });
        handler.set_provider(Some(wallet.clone()));
        Ok(Self { engine, flow, handler, wallet })
    }

    fn mints(&self) -> u32 {
        self.wallet.mints.load(Ordering::Relaxed)
    }

    async fn ask(&self, params: InvoiceParams) -> Result<Bytes, RpcError> {
        self.handler.request(lsp(), session(&params), params).await
    }

    /// Without its row in the ledger a payment that comes in cannot be claimed.
    fn check_row(&self, answer: &Bytes, params: &InvoiceParams) -> Step<()> {
        let row = self.engine.ledger_row(ledger::INBOUND_PAYMENTS, &params.payment_hash)?;
        let row = row.ok_or("an answer has its row in the ledger")?;
        let row: serde_json::Value = serde_json::from_slice(&row.value)?;
        check(row["bolt11"] == bolt11(answer)?, "the row is of the invoice that was answered")
    }

    /// What the first request gets depends on the file, which earlier processes may have left in any state.
    async fn first_answer(&self) -> Step<Bytes> {
        let record = self.engine.lookup(&self.flow.key(lsp(), session(&order()))?)?;
        let lives = record.as_ref().is_some_and(|record| {
            record.state.status() == Status::Completed && record.expires_at.is_some_and(|end| self.engine.now() < end)
        });
        let first = self.ask(order()).await;
        let refused = first.as_ref().is_err_and(|error| *error == RpcError::stale_flow());
        let answer = if refused { self.ask(order()).await? } else { first? };
        let how = match (record, self.mints()) {
            (Some(_), 0) if lives && !refused => "invoice minted by an earlier process, replayed",
            (Some(_), 1) if refused && !lives => {
                "new invoice, executed; the earlier one had expired, which was refused once"
            }
            (Some(_), 0 | 1) if !refused && !lives => {
                "invoice finished, for a process that was killed before it could answer"
            }
            (None, 1) if !refused => "new invoice, executed",
            (_, mints) => return Err(format!("the first answer took {mints} mints; refused: {refused}").into()),
        };
        self.check_row(&answer, &order())?;
        println!("first    {how}\n         {}", checked(&answer, &order())?);
        Ok(answer)
    }

    async fn ten_at_once(&self) -> Step<()> {
        let (mut fresh, before) = (order(), self.mints());
        getrandom::fill(&mut fresh.payment_hash).map_err(|error| error.to_string())?;
        let ask = || {
            let (handler, params) = (self.handler.clone(), fresh.clone());
            tokio::spawn(async move { handler.request(lsp(), session(&params), params).await })
        };
        let mut answers = Vec::new();
        for asking in (0..10).map(|_| ask()).collect::<Vec<_>>() {
            answers.push(asking.await??);
        }
        check(answers.windows(2).all(|pair| pair[0] == pair[1]), "ten duplicates get one answer")?;
        check(self.mints() == before + 1, "ten duplicates mint once")?;
        self.check_row(&answers[0], &fresh)?;
        println!(
            "at once  10 duplicates of another request: 1 mint, 10 equal answers\n         {}",
            checked(&answers[0], &fresh)?
        );
        Ok(())
    }

    async fn another_amount(&self) -> Step<()> {
        let before = self.mints();
        let other = InvoiceParams { amount_msat: order().amount_msat + 1, ..order() };
        check_stale(self.ask(other).await, "another request under the same session is refused")?;
        check(self.mints() == before, "a refusal mints nothing")?;
        println!("other    the same session with another amount: refused, 1105 stale_flow");
        Ok(())
    }
}

/// A process dies in each window; the next one on its file gives one answer, with its row, and gives it again.
async fn crashes() -> Step<()> {
    for (window, status, minted, mints) in WINDOWS {
        let dir = tempfile::tempdir()?;
        let died = Command::new(std::env::current_exe()?).arg(dir.path()).arg(window).output()?;
        check(!died.status.success() && died.stderr.is_empty(), "the process dies of nothing else")?;
        let witness = fs::read_to_string(dir.path().join(WITNESS)).unwrap_or_default();
        let node = Node::open(Engine::builder(), &dir.path().join(FILE))?;
        let left = node.engine.lookup(&node.flow.key(lsp(), session(&order()))?)?;
        let left = left.map(|record| record.state.status());
        check(left == Some(status) && witness.lines().count() == minted, "the process dies in its window")?;

        let answer = node.ask(order()).await?;
        check(node.mints() == mints, "what is checkpointed is not minted again, and nothing else is lost")?;
        check((mints == 0) == (witness.trim_end() == bolt11(&answer)?), "a checkpointed invoice is the answer")?;
        check(node.ask(order()).await? == answer && node.mints() == mints, "the retry gets the same bytes")?;
        node.check_row(&answer, &order())?;
        node.engine.shutdown().await;
        let how = if mints == 0 { "the invoice that it had minted" } else { "an invoice minted by the next process" };
        println!("crash    {window}: {how}\n         {}", checked(&answer, &order())?);
    }
    Ok(())
}

/// The process that dies.
async fn die(dir: &Path, window: &str) -> Step<()> {
    let crash = Crash { window: window.into(), witness: dir.join(WITNESS) };
    let node = Node::open_to_crash(Engine::builder(), &dir.join(FILE), Some(crash))?;
    node.ask(order()).await?;
    node.wallet.crash_if("after the completion");
    Err(format!("no such window: {window}").into())
}

/// In a file of its own: the engine's clock never goes back, not even across restarts, and here it is moved forward.
async fn expiry() -> Step<()> {
    let dir = tempfile::tempdir()?;
    let clock = ManualClock::at(SystemClock.now());
    let node = Node::open(Engine::builder().clock(clock.clone()), &dir.path().join("expiry.redb"))?;
    let first = node.ask(order()).await?;
    clock.advance(Duration::from_secs(DAY_SECS.into()));
    check_stale(node.ask(order()).await, "an expired invoice is refused, not replayed")?;
    let fresh = node.ask(order()).await?;
    check(fresh != first && node.mints() == 2, "after one refusal the request runs again")?;
    println!("expiry   a day later: 1105 stale_flow once, then a new invoice\n         {}", checked(&fresh, &order())?);
    node.engine.shutdown().await;
    Ok(())
}

/// The request that the LSP repeats until it has an answer.
fn order() -> InvoiceParams {
    InvoiceParams {
        hash_index: 7,
        payment_hash: sha256::Hash::hash(b"ibid: the example's preimage").to_byte_array(),
        amount_msat: 5_000_000,
        asset_id: None,
        asset_amount: None,
        description_hash: sha256::Hash::hash(b"ibid: an example").to_byte_array(),
        invoice_expiry_sec: DAY_SECS,
        min_final_cltv_expiry_delta: 30,
    }
}

/// What the LSP names an order by; here one per payment hash.
fn session(params: &InvoiceParams) -> [u8; 32] {
    params.payment_hash
}

/// The peer, as the transport has authenticated it: never a field of the message.
fn lsp() -> NodeId {
    NodeId::new([2; 33]).expect("02 is a prefix of a public key")
}

/// Decodes the answer and compares it with the request, as the client does. Says which invoice it is, without its secret.
fn checked(answer: &Bytes, params: &InvoiceParams) -> Step<String> {
    let bolt11 = bolt11(answer)?;
    let invoice: Bolt11Invoice = bolt11.parse()?;
    check(invoice.payment_hash().to_byte_array() == params.payment_hash, "the invoice pays to the hash")?;
    check(invoice.amount_milli_satoshis() == Some(params.amount_msat), "the invoice has the amount")?;
    check(invoice.expiry_time().as_secs() == u64::from(params.invoice_expiry_sec), "the invoice has the expiry")?;
    let cltv = u64::from(params.min_final_cltv_expiry_delta) + CLTV_ADDED;
    check(invoice.min_final_cltv_expiry_delta() == cltv, "the invoice has the final CLTV, and three blocks more")?;
    let described = invoice.into_signed_raw().description_hash().map(|hash| hash.0.to_byte_array());
    check(described == Some(params.description_hash), "the invoice has the description hash")?;
    Ok(format!("{}...{} ({} characters)", &bolt11[..12], &bolt11[bolt11.len() - 6..], bolt11.len()))
}

fn bolt11(answer: &Bytes) -> Step<String> {
    let result: serde_json::Value = serde_json::from_slice(answer)?;
    Ok(result["bolt11"].as_str().ok_or("the answer holds no bolt11")?.to_owned())
}

fn check_stale(answer: Result<Bytes, RpcError>, promise: &str) -> Step<()> {
    check(answer.is_err_and(|error| error == RpcError::stale_flow()), promise)
}

fn check(holds: bool, promise: &str) -> Step<()> {
    if holds { Ok(()) } else { Err(promise.into()) }
}
