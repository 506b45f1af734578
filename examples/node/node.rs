//! The node: what a host owns, and the loop that reads.

use std::fs::OpenOptions;
use std::io::BufRead;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ibid::lightning::{FLOW_NAME, Handled, RequestInvoice};
use ibid::{Engine, Flow, NodeId};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::args::Args;
use crate::clock::OffsetClock;
use crate::input::{self, Line};
use crate::output;
use crate::provider::Provider;
use crate::support::Minter;

type OpenError = Box<dyn std::error::Error>;

pub(crate) struct Node {
    runtime: Runtime,
    clock: OffsetClock,
    engine: Engine,
    handler: RequestInvoice,
    provider: Arc<Provider>,
    /// Frames taken in and not answered yet.
    pending: watch::Sender<usize>,
}

impl Node {
    pub(crate) fn open(args: Args) -> Result<Self, OpenError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
        let clock = OffsetClock::ahead(args.clock_offset_ms);
        let builder = Engine::builder().clock(clock.clone()).limits(args.limits).runtime(runtime.handle().clone());
        let engine = match &args.db {
            Some(path) => builder.open(path).map_err(|error| named("--db", path, error))?,
            None => builder.open_in_memory()?,
        };
        let effects = match &args.effects {
            Some(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                Some(Arc::new(Mutex::new(file.map_err(|error| named("--effects", path, error))?)))
            }
            None => None,
        };
        let provider = Arc::new(Provider {
            minter: Minter::new()?,
            effects,
            delay: args.mint_delay,
            min_amount_msat: args.min_amount_msat,
            check_hash: args.check_hash,
            minted: AtomicU64::new(0),
        });
        let denied = args.denied;
        let handler = RequestInvoice::new(engine.clone(), Flow::new(FLOW_NAME, args.policy)?)
            .allow(move |peer| !denied.contains(peer));
        if args.has_provider {
            handler.set_provider(Some(provider.clone()));
        }
        Ok(Self { runtime, clock, engine, handler, provider, pending: watch::Sender::new(0) })
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

    fn handle(&self, from: NodeId, payload: &str) {
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

fn named(flag: &str, path: &Path, error: impl std::error::Error) -> OpenError {
    format!("{flag} {}: {error}", path.display()).into()
}
