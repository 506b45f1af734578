//! The flags.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ibid::{AfterExpiry, Limits, NodeId, Policy};

pub(crate) const USAGE: &str = "\
usage: node [flags]

  --db PATH              the engine's file; without it nothing outlives the process
  --effects PATH         append `<payment_hash> <bolt11>` per mint, and `onion <namespace, hex> <attempt_id> <payment_hash>
                         <amount_msat> <outcome> <token>` per onion that goes out, and `payment <payment_id> <payment_hash>
                         <amount_msat> <token>` per payment, on disk before the answer; what the simulated switch and the
                         simulated LDK know after a restart; LDK keeps what its payments came to in PATH.ended
  --mint-delay-ms N      the minter makes its invoice, then takes this long to hand it over (default 0)
  --deny HEX             get a frame of this node id: say nothing, keep nothing (repeatable)
  --no-provider          nobody is there to mint; records are replayed all the same
  --min-amount-msat N    refuse to mint for less (default 0)
  --grace-ms N           how long an expired record waits to refuse once (default 120000)
  --on-expired WHAT      refuse-once (default) or rerun
  --records-per-peer N   records that one peer may have at a time (default 100000)
  --clock-offset-ms N    start the clock this far ahead of the machine's (default 0)
  --check-hash           mint only for payment_hash = sha256(sha256(\"ibid example node \" + hash_index in decimal)),
                         the inner hash being the preimage; for another one answer 1104
  --help                 print this";

pub(crate) struct Args {
    pub(crate) db: Option<PathBuf>,
    pub(crate) effects: Option<PathBuf>,
    pub(crate) mint_delay: Duration,
    pub(crate) denied: BTreeSet<NodeId>,
    pub(crate) has_provider: bool,
    pub(crate) min_amount_msat: u64,
    pub(crate) policy: Policy,
    pub(crate) limits: Limits,
    pub(crate) clock_offset_ms: i128,
    pub(crate) check_hash: bool,
}

impl Args {
    /// `None` if help is asked for.
    pub(crate) fn parse(mut flags: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut args = Self {
            db: None,
            effects: None,
            mint_delay: Duration::ZERO,
            denied: BTreeSet::new(),
            has_provider: true,
            min_amount_msat: 0,
            policy: Policy::request_invoice(),
            limits: Limits::default(),
            clock_offset_ms: 0,
            check_hash: false,
        };
        while let Some(flag) = flags.next() {
            let mut value = || flags.next().ok_or(format!("{flag} needs a value"));
            match flag.as_str() {
                "--db" => args.db = Some(value()?.into()),
                "--effects" => args.effects = Some(value()?.into()),
                "--mint-delay-ms" => args.mint_delay = Duration::from_millis(number(&flag, &value()?)?),
                "--deny" => {
                    let denied = NodeId::from_hex(&value()?).map_err(|invalid| format!("--deny: {invalid}"))?;
                    args.denied.insert(denied);
                }
                "--no-provider" => args.has_provider = false,
                "--min-amount-msat" => args.min_amount_msat = number(&flag, &value()?)?,
                "--grace-ms" => args.policy = args.policy.grace(Duration::from_millis(number(&flag, &value()?)?)),
                "--on-expired" => {
                    let choice = match value()?.as_str() {
                        "refuse-once" => AfterExpiry::RefuseOnce,
                        "rerun" => AfterExpiry::Rerun,
                        other => return Err(format!("--on-expired is refuse-once or rerun, not {other}")),
                    };
                    args.policy = args.policy.after_expiry(choice);
                }
                "--records-per-peer" => args.limits.records_per_scope = number(&flag, &value()?)?,
                "--clock-offset-ms" => args.clock_offset_ms = number(&flag, &value()?)?,
                "--check-hash" => args.check_hash = true,
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("unknown flag: {flag}")),
            }
        }
        Ok(Some(args))
    }
}

fn number<N: FromStr>(flag: &str, text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("{flag}: not a number that fits: {text}"))
}
