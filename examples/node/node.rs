//! The node: what a host owns, and the loop that reads.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use ibid::lightning::request_invoice::{FLOW_NAME, Handled, RequestInvoice};
use ibid::{Engine, Flow, NodeId};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::args::Args;
use crate::call::Call;
use crate::clock::OffsetClock;
use crate::effects::Effects;
use crate::input::{self, Line};
use crate::ldk::Ldk;
use crate::onions::Onions;
use crate::output;
use crate::payments::Payments;
use crate::provider::Provider;
use crate::support::Minter;
use crate::switch::Circuits;

type OpenError = Box<dyn std::error::Error>;

pub(crate) struct Node {
    runtime: Runtime,
    clock: OffsetClock,
    engine: Engine,
    handler: RequestInvoice,
    provider: Arc<Provider>,
    onions: Onions,
    payments: Payments,
    denied: Arc<BTreeSet<NodeId>>,
    /// Frames taken in and not answered yet.
    pending: watch::Sender<usize>,
}

impl Node {
    pub(crate) fn open(args: Args) -> Result<Self, OpenError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
        let clock = OffsetClock::ahead(args.clock_offset_ms);
        let (effects, lines) = opened(args.effects.as_deref())?;
        let (ends, end_lines) = opened(args.effects.as_deref().map(ended).as_deref())?;
        let (flow, circuits) = (Onions::flow()?, Circuits::read(effects.clone(), &lines));
        let ldk = Ldk::read((effects.clone(), &lines), (ends, &end_lines));
        let setup = Payments::setup(&ldk)?;
        let builder = Engine::builder().clock(clock.clone()).limits(args.limits).runtime(runtime.handle().clone());
        let builder = setup.prepare(Onions::prepare(builder, &flow, &circuits));
        let engine = match &args.db {
            Some(path) => builder.open(path).map_err(|error| named("--db", path, error))?,
            None => builder.open_in_memory()?,
        };
        let provider = Arc::new(Provider {
            minter: Minter::new()?,
            effects,
            delay: args.mint_delay,
            min_amount_msat: args.min_amount_msat,
            check_hash: args.check_hash,
            minted: AtomicU64::new(0),
        });
        let denied = Arc::new(args.denied);
        let silent = Arc::clone(&denied);
        let handler = RequestInvoice::new(engine.clone(), Flow::new(FLOW_NAME, args.policy)?)
            .allow(move |peer| !silent.contains(peer));
        if args.has_provider {
            handler.set_provider(Some(provider.clone()));
        }
        let onions = Onions::new(engine.clone(), flow, circuits)?;
        let payments = Payments::new(&setup, engine.clone(), ldk)?;
        runtime.block_on(payments.begin(args.db.is_none()))?;
        let pending = watch::Sender::new(0);
        Ok(Self { runtime, clock, engine, handler, provider, onions, payments, denied, pending })
    }

    /// Until the input ends or says so. This thread only reads: no frame waits for another.
    pub(crate) fn serve(self, mut input: impl BufRead) {
        let mut asked = false;
        while let Some(line) = input::next(&mut input) {
            match line {
                Ok(Line::Frame { from, payload }) => self.handle(from, &payload),
                Ok(Line::Stats) => self.stats(),
                Ok(Line::AdvanceClock { ms }) => self.advance_clock(ms),
                Ok(Line::ExpirySweep) => self.expiry_sweep(),
                Ok(Line::Tick) => self.tick(),
                Ok(Line::Shutdown) => {
                    asked = true;
                    break;
                }
                Err(wrong) => output::error(&wrong),
            }
        }
        self.shutdown();
        if asked {
            output::shutdown();
        }
    }

    /// A call of a method of this node's own, or else a frame of the peer protocol, malformed ones included.
    fn handle(&self, from: NodeId, payload: &str) {
        match Call::read(payload, |method| Onions::knows(method) || Payments::knows(method)) {
            Some(_) if self.denied.contains(&from) => {}
            Some(call) => self.call(from, call),
            None => self.take_in(from, payload),
        }
    }

    /// It is begun here, so that calls reach the engine in the order of their lines, and goes on by itself.
    fn call(&self, from: NodeId, call: Call) {
        self.pending.send_modify(|pending| *pending += 1);
        let (onions, payments, pending) = (self.onions.clone(), self.payments.clone(), self.pending.clone());
        let mut answering = Box::pin(async move {
            let answer = match &call.method {
                method if Payments::knows(method) => payments.answer(method, &call.params).await,
                method => onions.answer(from, method, &call.params).await,
            };
            output::frame(from, &call.answer(answer));
            pending.send_modify(|pending| *pending -= 1);
        });
        let _timers = self.runtime.enter();
        // The task polls it again, with a waker of its own.
        match answering.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(()) => {}
            Poll::Pending => drop(self.runtime.spawn(answering)),
        }
    }

    fn take_in(&self, from: NodeId, payload: &str) {
        self.pending.send_modify(|pending| *pending += 1);
        let pending = self.pending.clone();
        let handled = self.handler.handle(from, payload.as_bytes(), move |frame| {
            output::frame(from, &frame);
            pending.send_modify(|pending| *pending -= 1);
        });
        match handled {
            Handled::Pending => return,
            Handled::Reply(frame) => output::frame(from, &frame),
            // This node asks nobody anything, and a line that is not text has been refused before.
            Handled::Ignored | Handled::Response { .. } | Handled::NotText => {}
        }
        self.pending.send_modify(|pending| *pending -= 1);
    }

    fn stats(&self) {
        match self.runtime.block_on(self.engine.stats()) {
            Ok(stats) => output::stats(self.provider.minted.load(Ordering::Relaxed), &stats),
            Err(error) => output::error(&error.to_string()),
        }
    }

    fn advance_clock(&self, ms: i64) {
        // The question passes through the same mailbox as the frames before it, which have met the old time then.
        if let Err(error) = self.runtime.block_on(self.engine.stats()) {
            output::error(&error.to_string());
        }
        self.clock.advance(ms.into());
    }

    fn expiry_sweep(&self) {
        match self.runtime.block_on(self.engine.expiry_sweep()) {
            Ok(removed) => output::expiry_sweep(removed),
            Err(error) => output::error(&error.to_string()),
        }
    }

    fn tick(&self) {
        match self.runtime.block_on(self.payments.tick()) {
            Ok(()) => output::tick(self.engine.ticks()),
            Err(error) => output::error(&error.to_string()),
        }
    }

    /// Every frame is answered, if only with an outcome that is unknown, before this returns.
    fn shutdown(self) {
        self.runtime.block_on(async {
            self.engine.shutdown().await;
            let mut pending = self.pending.subscribe();
            // The sender is ours, so there is no other way to end.
            let _answered = pending.wait_for(|pending| *pending == 0).await;
        });
    }
}

fn opened(path: Option<&Path>) -> Result<(Effects, String), OpenError> {
    match path {
        Some(path) => Effects::open(path).map_err(|error| named("--effects", path, error)),
        None => Ok((Effects::default(), String::new())),
    }
}

/// Where the simulated LDK keeps what became of its payments.
fn ended(effects: &Path) -> PathBuf {
    let mut path = effects.as_os_str().to_owned();
    path.push(".ended");
    path.into()
}

fn named(flag: &str, path: &Path, error: impl std::error::Error) -> OpenError {
    format!("{flag} {}: {error}", path.display()).into()
}
