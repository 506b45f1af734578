//! An LSP that retries: `cargo run --example request_invoice`, and then once more.
//!
//! A Lightning node answers `async_order.request_invoice` with real BOLT11 invoices for regtest, and every retry gets the
//! invoice that the first request got: from ten callers at once, after a restart, and, when you run it again, from the
//! process before. Each step checks itself; if one does not hold, the exit code is 1 and the last line says which.

mod support;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use ibid::lightning::{
    FLOW_NAME, InvoiceParams, InvoiceProvider, InvoiceRequest, Minted, Providing, RequestInvoice, RpcError,
};
use ibid::testing::ManualClock;
use ibid::{Attempt, Builder, Bytes, Clock, Engine, Flow, NodeId, Policy, Status, SystemClock};
use lightning_invoice::Bolt11Invoice;
use support::{CLTV_ADDED, Minter};

const DAY_SECS: u32 = 24 * 60 * 60;

type Step<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> ExitCode {
    match story().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("FAILED: {failed}");
            ExitCode::FAILURE
        }
    }
}

async fn story() -> Step<()> {
    let dir = std::env::temp_dir().join("ibid-request-invoice");
    std::fs::create_dir_all(&dir)?;
    let path = dir.join("invoices.redb");
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

    expiry().await?;
    println!("\nEvery step held. Run it again: the first answer will be replayed.");
    Ok(())
}

/// The recipient's node: the engine, and the handler that a host would own.
struct Node {
    engine: Engine,
    flow: Flow,
    handler: Arc<RequestInvoice>,
    wallet: Arc<Wallet>,
}

/// Counts what it mints.
struct Wallet {
    minter: Minter,
    mints: AtomicU32,
}

impl InvoiceProvider for Wallet {
    fn mint<'a>(&'a self, request: &'a InvoiceRequest, attempt: &'a Attempt) -> Providing<'a, Minted> {
        self.mints.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { self.minter.mint(&request.params, attempt.admitted_at()) })
    }
}

impl Node {
    fn open(builder: Builder, path: &Path) -> Step<Self> {
        let engine = builder.open(path)?;
        let flow = Flow::new(FLOW_NAME, Policy::request_invoice())?;
        let handler = Arc::new(RequestInvoice::new(engine.clone(), flow.clone()));
        let wallet = Arc::new(Wallet { minter: Minter::new()?, mints: AtomicU32::new(0) });
        handler.set_provider(Some(wallet.clone()));
        Ok(Self { engine, flow, handler, wallet })
    }

    fn mints(&self) -> u32 {
        self.wallet.mints.load(Ordering::Relaxed)
    }

    async fn ask(&self, params: InvoiceParams) -> Result<Bytes, RpcError> {
        self.handler.request(lsp(), session(&params), params).await
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
        println!("first    {how}\n         {}", checked(&answer, &order())?);
        Ok(answer)
    }

    async fn ten_at_once(&self) -> Step<()> {
        let (mut fresh, before) = (order(), self.mints());
        getrandom::fill(&mut fresh.payment_hash).map_err(|error| error.to_string())?;
        let ask = || {
            let (handler, params) = (Arc::clone(&self.handler), fresh.clone());
            tokio::spawn(async move { handler.request(lsp(), session(&params), params).await })
        };
        let mut answers = Vec::new();
        for asking in (0..10).map(|_| ask()).collect::<Vec<_>>() {
            answers.push(asking.await??);
        }
        check(answers.windows(2).all(|pair| pair[0] == pair[1]), "ten duplicates get one answer")?;
        check(self.mints() == before + 1, "ten duplicates mint once")?;
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
    let result: serde_json::Value = serde_json::from_slice(answer)?;
    let bolt11 = result["bolt11"].as_str().ok_or("the answer holds no bolt11")?;
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

fn check_stale(answer: Result<Bytes, RpcError>, promise: &str) -> Step<()> {
    check(answer.is_err_and(|error| error == RpcError::stale_flow()), promise)
}

fn check(holds: bool, promise: &str) -> Step<()> {
    if holds { Ok(()) } else { Err(promise.into()) }
}
