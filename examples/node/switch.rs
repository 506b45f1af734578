//! The simulated switch: it writes a line per onion that it sends, does as it is told by the caller's script, and knows
//! after a restart what is in the file and nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ibid::lightning::send_onion::{Circuit, Dispatch, OnionEnd, OnionRequest, Switch, Switching};
use ibid::{Attempt, Inquiry, Status, Token};
use sha2::{Digest, Sha256};

use crate::effects::{Effects, from_hex, hex};
use crate::script::{Script, Scripted};

/// What begins a line: `onion <namespace> <attempt id> <payment hash> <amount in msat> <outcome> <token>`, bytes in hex. The
/// token stands last, so what a crash has torn off has none.
const ONION: &str = "onion";

/// What went out, by the token of its record.
#[derive(Clone)]
pub(crate) struct Circuits {
    effects: Effects,
    sent: Arc<Mutex<BTreeMap<[u8; 32], Scripted>>>,
}

/// The switch for one call.
pub(crate) struct ScriptedSwitch {
    pub(crate) circuits: Circuits,
    pub(crate) script: Script,
}

impl Circuits {
    /// As the lines of the file say.
    pub(crate) fn read(effects: Effects, lines: &str) -> Self {
        let sent = lines.lines().filter_map(circuit).collect();
        Self { effects, sent: Arc::new(Mutex::new(sent)) }
    }

    async fn send(&self, request: &OnionRequest, token: &Token, outcome: Scripted) -> std::io::Result<()> {
        let (namespace, id) = (hex(&request.namespace), request.attempt_id);
        let (hash, amount) = (hex(request.onion.payment_hash()), request.onion.amount_msat());
        let (outcome_name, token_hex) = (outcome.name(), hex(&token.0));
        let line = format!("{ONION} {namespace} {id} {hash} {amount} {outcome_name} {token_hex}\n");
        self.effects.append(line).await?;
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).insert(token.0, outcome);
        Ok(())
    }

    /// What went out is live until its end is recorded; what has no line never went out, if lines are kept at all.
    pub(crate) fn find(&self, inquiry: &Inquiry) -> Circuit {
        if matches!(inquiry.status(), Status::Completed | Status::Failed) {
            // A circuit is given up when its end is recorded.
            return Circuit::NotStarted;
        }
        let token = inquiry.token();
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner).get(&token.0).copied();
        match sent {
            Some(Scripted::Settle) => Circuit::Ended(OnionEnd::Settled(preimage(token).into_bytes().into())),
            Some(Scripted::Definitive | Scripted::RejectValidation) => Circuit::NotStarted,
            Some(Scripted::Accept | Scripted::Duplicate | Scripted::Unknown | Scripted::Panic | Scripted::Hang) => {
                Circuit::Live
            }
            None if self.effects.are_kept() => Circuit::NotStarted,
            None => Circuit::CannotTell,
        }
    }
}

fn circuit(line: &str) -> Option<([u8; 32], Scripted)> {
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        [ONION, _, _, _, _, outcome, token] => Some((from_hex(token)?.try_into().ok()?, Scripted::named(outcome)?)),
        _ => None,
    }
}

/// Made up, and the same whenever the switch is asked: nobody knows a real one for a hash that a test makes up.
fn preimage(token: &Token) -> String {
    hex(&Sha256::digest(token.0))
}

impl Switch for ScriptedSwitch {
    /// The line is on disk before anything is told, so that whoever counts lines counts payments.
    fn dispatch<'a>(&'a self, request: &'a OnionRequest, attempt: &'a Attempt) -> Switching<'a, Dispatch> {
        Box::pin(async move {
            let Script { delay, outcome } = self.script;
            let told = |text: &str| Some(text.as_bytes().into());
            if outcome == Scripted::RejectValidation {
                tokio::time::sleep(delay).await;
                return Dispatch::Refused(told("no usable channel to the first hop"));
            }
            if let Err(error) = self.circuits.send(request, attempt.token(), outcome).await {
                return Dispatch::Unknown(told(&error.to_string()));
            }
            tokio::time::sleep(delay).await;
            match outcome {
                Scripted::Accept => Dispatch::Accepted,
                Scripted::Settle => Dispatch::Settled(preimage(attempt.token()).into_bytes().into()),
                Scripted::Definitive | Scripted::RejectValidation => Dispatch::Refused(told("dispatch refused")),
                Scripted::Duplicate => Dispatch::AlreadyLive,
                Scripted::Unknown => Dispatch::Unknown(told("unexpected error")),
                Scripted::Panic => std::panic::resume_unwind(Box::new("the script says so")),
                Scripted::Hang => std::future::pending().await,
            }
        })
    }

    fn find<'a>(&'a self, _: &'a OnionRequest, inquiry: &'a Inquiry) -> Switching<'a, Circuit> {
        Box::pin(std::future::ready(self.circuits.find(inquiry)))
    }
}
