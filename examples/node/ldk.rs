//! The simulated LDK: it writes a line per payment that it sends, does as it is told by the caller's script, and knows after a
//! restart what is in the file and nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ibid::lightning::send_payment::{Dispatch, Listed, Listing, Payer, SendError, Sending};
use ibid::{AttemptId, BootId, Token};
use sha2::{Digest, Sha256};

use crate::effects::{Effects, from_hex, hex};
use crate::script::{Script, Scripted};

/// What begins a line: `payment <payment id> <payment hash> <amount in msat> <outcome> <token>`, bytes in hex. The token stands last,
/// so what a crash has torn off has none.
const PAYMENT: &str = "payment";
/// What begins the line of one that LDK has let go of: `payment_end <payment id> <token>`.
const PAYMENT_END: &str = "payment_end";

pub(crate) type Id = [u8; 32];

/// Clones are one LDK.
#[derive(Clone)]
pub(crate) struct Ldk {
    effects: Effects,
    sent: Arc<Mutex<BTreeMap<Id, Vec<Dispatched>>>>,
}

/// LDK for one call.
pub(crate) struct ScriptedLdk {
    pub(crate) ldk: Ldk,
    pub(crate) script: Script,
}

#[derive(Clone, Copy)]
pub(crate) struct Dispatched {
    token: Token,
    pub(crate) payment_hash: [u8; 32],
    outcome: Scripted,
    is_over: bool,
}

impl Ldk {
    /// As the lines of the file say.
    pub(crate) fn read(effects: Effects, lines: &str) -> Self {
        let mut sent = BTreeMap::<Id, Vec<Dispatched>>::new();
        for line in lines.lines() {
            read_line(&mut sent, line);
        }
        Self { effects, sent: Arc::new(Mutex::new(sent)) }
    }

    /// Whether what it does not know has never been sent.
    pub(crate) fn remembers(&self) -> bool {
        self.effects.are_kept()
    }

    /// The dispatch of this number, counted from 1 for as long as the file is there.
    pub(crate) fn dispatch(&self, id: Id, number: u64) -> Option<Dispatched> {
        let at = usize::try_from(number.checked_sub(1)?).ok()?;
        self.sent().get(&id)?.get(at).copied()
    }

    /// The number of the dispatch that was made with this token.
    pub(crate) fn number(&self, id: Id, token: &Token) -> Option<usize> {
        Some(self.sent().get(&id)?.iter().position(|sent| sent.token == *token)? + 1)
    }

    /// What has arrived without anybody having been told: a PaymentSent for each is still to come.
    pub(crate) fn untold(&self) -> Vec<(Id, Dispatched)> {
        let sent = self.sent();
        let all = sent.iter().flat_map(|(id, sent)| sent.iter().map(|sent| (*id, *sent)));
        all.filter(|(_, sent)| sent.outcome == Scripted::Settle && !sent.is_over).collect()
    }

    /// It lists the payment no more.
    pub(crate) async fn let_go(&self, id: Id, token: Token) -> std::io::Result<()> {
        if self.sent().get(&id).is_some_and(|sent| sent.iter().any(|sent| sent.token == token && sent.is_over)) {
            return Ok(());
        }
        self.effects.append(format!("{PAYMENT_END} {} {}\n", hex(&id), hex(&token.0))).await?;
        end(&mut self.sent(), id, token);
        Ok(())
    }

    async fn send(&self, payment: &Dispatch, outcome: Scripted) -> std::io::Result<()> {
        let (id, token) = (payment.request.id, *payment.attempt.token());
        let payment_hash = payment.request.payment_hash().unwrap_or_default();
        let amount = payment.request.effective_msat().unwrap_or_default();
        let (id_hex, hash_hex, token_hex) = (hex(&id), hex(&payment_hash), hex(&token.0));
        self.effects.append(format!("{PAYMENT} {id_hex} {hash_hex} {amount} {} {token_hex}\n", outcome.name())).await?;
        self.sent().entry(id).or_default().push(Dispatched { token, payment_hash, outcome, is_over: false });
        Ok(())
    }

    fn sent(&self) -> MutexGuard<'_, BTreeMap<Id, Vec<Dispatched>>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dispatched {
    pub(crate) fn token(&self) -> Token {
        self.token
    }

    /// A record of a payment never re-runs, so its token names its one attempt.
    pub(crate) fn attempt(&self) -> AttemptId {
        AttemptId { number: 1, boot: BootId([0; 16]), token: self.token }
    }

    /// Made up, and the same whenever it is asked for: nobody knows a real one for a hash that a test makes up.
    pub(crate) fn preimage(&self) -> [u8; 32] {
        Sha256::digest(self.token.0).into()
    }
}

fn read_line(sent: &mut BTreeMap<Id, Vec<Dispatched>>, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let bytes = |word: &str| -> Option<[u8; 32]> { from_hex(word)?.try_into().ok() };
    match words.as_slice() {
        [PAYMENT, id, hash, _, outcome, token] => {
            if let (Some(id), Some(payment_hash), Some(outcome), Some(token)) =
                (bytes(id), bytes(hash), Scripted::named(outcome), bytes(token))
            {
                // What was refused may not have come to its second line.
                let is_over = outcome == Scripted::Definitive;
                sent.entry(id).or_default().push(Dispatched { token: Token(token), payment_hash, outcome, is_over });
            }
        }
        [PAYMENT_END, id, token] => {
            if let (Some(id), Some(token)) = (bytes(id), bytes(token)) {
                end(sent, id, Token(token));
            }
        }
        _ => {}
    }
}

fn end(sent: &mut BTreeMap<Id, Vec<Dispatched>>, id: Id, token: Token) {
    let of_id = sent.get_mut(&id).into_iter().flatten();
    of_id.filter(|sent| sent.token == token).for_each(|sent| sent.is_over = true);
}

impl Payer for ScriptedLdk {
    /// The line is on disk before anything is told, so that whoever counts lines counts payments.
    fn send<'a>(&'a self, payment: &'a Dispatch) -> Sending<'a> {
        Box::pin(async move {
            let Script { delay, outcome } = self.script;
            if outcome == Scripted::RejectValidation {
                tokio::time::sleep(delay).await;
                return Err(SendError::PaymentExpired);
            }
            let other = |error: std::io::Error| SendError::Other(error.to_string());
            self.ldk.send(payment, outcome).await.map_err(other)?;
            tokio::time::sleep(delay).await;
            match outcome {
                Scripted::Accept | Scripted::Settle => Ok(()),
                Scripted::Definitive | Scripted::RejectValidation => {
                    self.ldk.let_go(payment.request.id, *payment.attempt.token()).await.map_err(other)?;
                    Err(SendError::RouteNotFound)
                }
                Scripted::Duplicate => Err(SendError::DuplicatePayment),
                Scripted::Unknown => Err(SendError::Other("unexpected error".into())),
                Scripted::Panic => std::panic::resume_unwind(Box::new("the script says so")),
                Scripted::Hang => std::future::pending().await,
            }
        })
    }

    /// What is under way here has no parts that could be held back.
    fn abandon(&self, _: &Id) {}

    fn recent(&self, id: &Id) -> Option<Listed> {
        listed(self.ldk.sent().get(id)?)
    }

    fn fulfilled(&self) -> Vec<Id> {
        let sent = self.ldk.sent();
        let is_paid = |sent: &[Dispatched]| listed(sent).is_some_and(|listed| listed.state == Listing::Fulfilled);
        sent.iter().filter(|(_, sent)| is_paid(sent)).map(|(id, _)| *id).collect()
    }
}

/// How it lists an id with these dispatches.
fn listed(sent: &[Dispatched]) -> Option<Listed> {
    let last = sent.last().filter(|sent| !sent.is_over)?;
    let state = if last.outcome == Scripted::Settle { Listing::Fulfilled } else { Listing::Pending };
    Some(Listed { state, payment_hash: Some(last.payment_hash) })
}
