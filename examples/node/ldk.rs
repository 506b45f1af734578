//! The simulated LDK: it writes a line per payment that it takes on, does as it is told by the caller's script, and knows after a
//! restart what is in its two files and nothing else.
//!
//! As in LDK an end is written before anybody is told of it, and so it is told again after a crash.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ibid::lightning::send_payment::{Dispatch, Listed, Listing, Payer, SendError, Sending};
use ibid::{AttemptId, BootId, Token};
use sha2::{Digest, Sha256};

use crate::effects::{Effects, from_hex, hex};
use crate::script::{Script, Scripted};

/// What begins a line of the file of effects: `payment <id> <payment hash> <amount in msat> <token>`, bytes in hex. The token stands
/// last, so what a crash has torn off has none.
const PAYMENT: &str = "payment";

/// Clones are the same LDK.
#[derive(Clone)]
pub(crate) struct Ldk(Arc<Simulated>);

struct Simulated {
    effects: Effects,
    /// `<token> sent <preimage>`, `<token> failed` or `<token> refused`.
    ends: Effects,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// By id, in order.
    taken_on: BTreeMap<[u8; 32], Vec<Payment>>,
    /// Scripts of calls that have not come here yet, in the order of the callers.
    scripts: BTreeMap<[u8; 32], VecDeque<Arc<Waiting>>>,
}

/// One dispatch.
#[derive(Clone)]
pub(crate) struct Payment {
    /// Which of its id's, from 1.
    number: u64,
    pub(crate) payment_hash: [u8; 32],
    pub(crate) amount_msat: u64,
    pub(crate) end: Option<Ended>,
    token: [u8; 32],
    /// Its line is on disk: the number will not be another one's.
    is_written: bool,
    is_abandoned: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Sent([u8; 32]),
    Failed,
    /// The call got an error, and the payment was never listed.
    Refused,
}

struct Waiting {
    script: Script,
    /// Set by the call: the number of its dispatch, if it comes to one.
    run: OnceLock<Option<u64>>,
}

/// The script of one caller, until this is dropped or the call has come.
pub(crate) struct Prepared {
    ldk: Ldk,
    id: [u8; 32],
    waiting: Arc<Waiting>,
}

impl Prepared {
    /// The call for this very caller, if there was one, and the number of its dispatch, if it came to one.
    pub(crate) fn run(&self) -> Option<Option<u64>> {
        self.waiting.run.get().copied()
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        let mut known = self.ldk.known();
        if let Some(waiting) = known.scripts.get_mut(&self.id) {
            waiting.retain(|waiting| !Arc::ptr_eq(waiting, &self.waiting));
            if waiting.is_empty() {
                known.scripts.remove(&self.id);
            }
        }
    }
}

impl Ldk {
    /// As the lines of both files say.
    pub(crate) fn read((effects, lines): (Effects, &str), (ends, end_lines): (Effects, &str)) -> Self {
        let ended: BTreeMap<_, _> = end_lines.lines().filter_map(end_of).collect();
        let mut known = Known::default();
        for (id, payment) in lines.lines().filter_map(payment_of) {
            let end = ended.get(&payment.token).copied();
            known.add(id, Payment { end, ..payment });
        }
        Self(Arc::new(Simulated { effects, ends, known: Mutex::new(known) }))
    }

    /// Whether it knows after a restart what it knows now.
    pub(crate) fn remembers(&self) -> bool {
        self.0.effects.are_kept()
    }

    /// The next call for this id that has no script goes by this one.
    pub(crate) fn prepare(&self, id: [u8; 32], script: Script) -> Prepared {
        let waiting = Arc::new(Waiting { script, run: OnceLock::new() });
        self.known().scripts.entry(id).or_default().push_back(Arc::clone(&waiting));
        Prepared { ldk: self.clone(), id, waiting }
    }

    /// The n-th dispatch of this id, from 1.
    pub(crate) fn numbered(&self, id: &[u8; 32], number: u64) -> Option<Payment> {
        self.find(id, |payment| payment.number == number)
    }

    /// The dispatch of this attempt.
    pub(crate) fn of(&self, id: &[u8; 32], attempt: &AttemptId) -> Option<Payment> {
        self.find(id, |payment| payment.token == attempt.token.0)
    }

    fn find(&self, id: &[u8; 32], is_it: impl Fn(&Payment) -> bool) -> Option<Payment> {
        self.known().taken_on.get(id)?.iter().find(|payment| is_it(payment)).cloned()
    }

    /// The end of a dispatch, on disk when this returns. The first one stays: what comes later changes nothing here.
    pub(crate) async fn end(&self, id: &[u8; 32], payment: &Payment, end: Ended) -> io::Result<()> {
        if payment.end.is_some() {
            return Ok(());
        }
        let token = hex(&payment.token);
        let line = match end {
            Ended::Sent(preimage) => format!("{token} sent {}\n", hex(&preimage)),
            Ended::Failed => format!("{token} failed\n"),
            Ended::Refused => format!("{token} refused\n"),
        };
        self.0.ends.append(line).await?;
        let mut known = self.known();
        let dispatches = known.taken_on.get_mut(id).into_iter().flatten();
        for known in dispatches.filter(|known| known.token == payment.token) {
            known.end.get_or_insert(end);
        }
        Ok(())
    }

    async fn take_on(&self, dispatch: &Dispatch, waiting: &Waiting) -> io::Result<Payment> {
        let (request, token) = (&dispatch.request, dispatch.attempt.token().0);
        let (id, payment_hash) = (request.id, request.payment_hash().unwrap_or_default());
        let amount_msat = request.effective_msat().unwrap_or_default();
        let line = format!("{PAYMENT} {} {} {amount_msat} {}\n", hex(&id), hex(&payment_hash), hex(&token));
        let payment =
            Payment { number: 0, payment_hash, amount_msat, end: None, token, is_written: false, is_abandoned: false };
        // Before the line: whoever has read it may speak of it. Where it cannot be written it may be there all the same.
        let payment = self.known().add(id, payment);
        self.0.effects.append(line).await?;
        let mut known = self.known();
        let dispatches = known.taken_on.get_mut(&id).into_iter().flatten();
        dispatches.filter(|known| known.token == token).for_each(|known| known.is_written = true);
        waiting.run.get_or_init(|| Some(payment.number));
        Ok(payment)
    }

    fn next(&self, id: &[u8; 32]) -> Arc<Waiting> {
        let waiting = self.known().scripts.get_mut(id).and_then(VecDeque::pop_front);
        waiting.unwrap_or_else(|| Arc::new(Waiting { script: Script::NONE, run: OnceLock::new() }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn add(&mut self, id: [u8; 32], payment: Payment) -> Payment {
        let dispatches = self.taken_on.entry(id).or_default();
        let number = u64::try_from(dispatches.len()).unwrap_or(u64::MAX).saturating_add(1);
        let payment = Payment { number, ..payment };
        dispatches.push(payment.clone());
        payment
    }
}

impl Payment {
    /// Its number, once that is for good.
    pub(crate) fn told(&self) -> Option<u64> {
        self.is_written.then_some(self.number)
    }

    /// What names the attempt to ibid. In this flow each record starts its call once.
    pub(crate) fn attempt(&self) -> AttemptId {
        AttemptId { number: 1, boot: BootId([0; 16]), token: Token(self.token) }
    }

    /// Made up, and always the same: nobody knows a real one for a hash that a test makes up.
    pub(crate) fn preimage(&self) -> [u8; 32] {
        Sha256::digest(self.token).into()
    }
}

impl Payer for Ldk {
    /// The line is on disk before anything is told, so that whoever counts lines counts payments.
    fn send<'a>(&'a self, dispatch: &'a Dispatch) -> Sending<'a> {
        Box::pin(async move {
            let id = dispatch.request.id;
            let waiting = self.next(&id);
            let Script { delay, outcome } = waiting.script;
            let failed = |error: io::Error| SendError::Other(error.to_string());
            if outcome == Scripted::RejectValidation {
                waiting.run.get_or_init(|| None);
                tokio::time::sleep(delay).await;
                return Err(SendError::PaymentExpired);
            }
            let payment = self.take_on(dispatch, &waiting).await.map_err(failed)?;
            tokio::time::sleep(delay).await;
            match outcome {
                Scripted::Accept | Scripted::Settle | Scripted::RejectValidation => Ok(()),
                Scripted::Definitive => {
                    self.end(&id, &payment, Ended::Refused).await.map_err(failed)?;
                    Err(SendError::RouteNotFound)
                }
                Scripted::Duplicate => Err(SendError::DuplicatePayment),
                Scripted::Unknown => Err(SendError::Other("unexpected error".into())),
                Scripted::Panic => std::panic::resume_unwind(Box::new("the script says so")),
                Scripted::Hang => std::future::pending().await,
            }
        })
    }

    fn abandon(&self, id: &[u8; 32]) {
        if let Some(payment) = self.known().taken_on.get_mut(id).and_then(|dispatches| dispatches.last_mut()) {
            payment.is_abandoned = true;
        }
    }

    fn recent(&self, id: &[u8; 32]) -> Option<Listed> {
        let known = self.known();
        let payment = known.taken_on.get(id)?.last()?;
        let state = match payment.end {
            None if payment.is_abandoned => Listing::Abandoned,
            None => Listing::Pending,
            Some(Ended::Sent(_)) => Listing::Fulfilled,
            Some(Ended::Failed | Ended::Refused) => return None,
        };
        Some(Listed { state, payment_hash: Some(payment.payment_hash) })
    }

    /// None: what is paid here has left its channel at once, and holds up no release.
    fn fulfilled(&self) -> Vec<[u8; 32]> {
        Vec::new()
    }
}

fn payment_of(line: &str) -> Option<([u8; 32], Payment)> {
    let words: Vec<&str> = line.split(' ').collect();
    let [PAYMENT, id, hash, amount, token] = words.as_slice() else { return None };
    let (payment_hash, amount_msat, token) = (bytes32(hash)?, amount.parse().ok()?, bytes32(token)?);
    Some((
        bytes32(id)?,
        Payment { number: 0, payment_hash, amount_msat, end: None, token, is_written: true, is_abandoned: false },
    ))
}

fn end_of(line: &str) -> Option<([u8; 32], Ended)> {
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        [token, "sent", preimage] => Some((bytes32(token)?, Ended::Sent(bytes32(preimage)?))),
        [token, "failed"] => Some((bytes32(token)?, Ended::Failed)),
        [token, "refused"] => Some((bytes32(token)?, Ended::Refused)),
        _ => None,
    }
}

pub(crate) fn bytes32(digits: &str) -> Option<[u8; 32]> {
    from_hex(digits)?.try_into().ok()
}
