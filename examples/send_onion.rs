//! A lost reply: `cargo run --example send_onion`.
//!
//! A payment router tells a node to send 2,000 msat, and the node cannot say what became of it. The router tells it
//! again: five times at once, after a restart, with another amount. What its user fears most, to have paid twice, does
//! not happen: the switch counts what goes out. Each step checks itself; if one does not hold, the exit code is 1 and
//! the last line says which.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ibid::lightning::send_onion::{
    Circuit, Dispatch, FLOW_NAME, ONION_BYTES, Onion, OnionEnd, OnionRequest, SendOnion, Switch, Switching, Tracked,
    WireOnion,
};
use ibid::{Attempt, Class, Engine, Fenced, Flow, Inquiry, Policy, Status};

type Step<T> = Result<T, Box<dyn Error>>;

const ROUTER: &[u8] = b"router 1";

/// Lightning's side of the node. It goes on while the engine is closed and opened again.
#[derive(Default)]
struct Counting {
    sent_msat: AtomicU64,
}

impl Switch for Counting {
    /// The HTLC is out, and the task dies before it can say so.
    fn dispatch<'a>(&'a self, request: &'a OnionRequest, _: &'a Attempt) -> Switching<'a, Dispatch> {
        self.sent_msat.fetch_add(request.onion.amount_msat(), Ordering::SeqCst);
        std::panic::resume_unwind(Box::new("the connection broke"))
    }

    /// What the circuit map knows.
    fn find<'a>(&'a self, _: &'a OnionRequest, _: &'a Inquiry) -> Switching<'a, Circuit> {
        let is_out = self.sent_msat.load(Ordering::SeqCst) > 0;
        Box::pin(std::future::ready(if is_out { Circuit::Live } else { Circuit::NotStarted }))
    }
}

#[tokio::main]
async fn main() -> Step<()> {
    let (path, switch) = (std::env::temp_dir().join("ibid-send-onion.redb"), Arc::new(Counting::default()));
    // Of an earlier run, if that was cut short.
    std::fs::remove_file(&path).ok();

    let (engine, onions) = open(&path, &switch)?;
    let lost = onions.send(ROUTER, 7, &onion(2_000)?).await;
    check("lost reply", lost.is_err_and(|told| told.class() == Class::Ambiguous), "outcome unknown: the same again")?;
    let retry = |onion: Onion| {
        let onions = onions.clone();
        tokio::spawn(async move { onions.send(ROUTER, 7, &onion).await })
    };
    let retries = [onion(2_000)?, onion(2_000)?, onion(2_000)?, onion(2_000)?, onion(2_000)?].map(retry);
    for retry in retries {
        check("retry", retry.await?.is_err_and(|told| told.class() == Class::Duplicate), "known: track it")?;
    }
    engine.shutdown().await;

    let (engine, onions) = open(&path, &switch)?;
    let again = onions.send(ROUTER, 7, &onion(2_000)?).await;
    check("restart", again.is_err_and(|told| told.state() == Some(Status::Dispatched)), "known, and on its way")?;
    let other = onions.send(ROUTER, 7, &onion(9_000)?).await;
    check("9,000 msat", other.is_err_and(|told| told.class() == Class::Conflict), "refused: the id is taken")?;
    onions.resolve(ROUTER, 7, None, &OnionEnd::Settled((*b"preimage").into())).await?;
    let end = onions.track(ROUTER, 7).await?;
    check("the end", end == Tracked::Settled((*b"preimage").into()), "it has arrived")?;
    check("a fence", onions.fence(ROUTER, 8).await? == Fenced::Fenced, "proof that 8 never goes out")?;
    let late = onions.send(ROUTER, 8, &onion(2_000)?).await;
    check("a late 8", late.is_err_and(|told| told.class() == Class::Definitive), "and it does not")?;
    engine.shutdown().await;
    std::fs::remove_file(&path)?;
    check("in all", switch.sent_msat.load(Ordering::SeqCst) == 2_000, "2,000 msat went out, once")
}

fn open(path: &Path, switch: &Arc<Counting>) -> Step<(Engine, SendOnion)> {
    let flow = Flow::new(FLOW_NAME, Policy::send_onion())?;
    let engine = SendOnion::prepare(Engine::builder(), &flow, switch.clone()).open(path)?;
    Ok((engine.clone(), SendOnion::new(engine, flow, switch.clone())?))
}

fn onion(amount_msat: u64) -> Step<Onion> {
    let (payment_hash, onion) = (vec![0x5c; 32], vec![0xaa; ONION_BYTES]);
    let wire = WireOnion { first_hop_channel: Some(17), amount_msat, payment_hash, onion, ..WireOnion::default() };
    Ok(Onion::try_from(wire)?)
}

fn check(step: &str, holds: bool, means: &str) -> Step<()> {
    println!("{step:10} {means}");
    if holds { Ok(()) } else { Err(format!("{step} does not hold").into()) }
}
