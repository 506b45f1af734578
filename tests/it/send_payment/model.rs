//! LDK as a small state machine, with the facts that the adapter is built on: what it checks first, when it frees an id, what it
//! forgets, what it loses when it is loaded from an older state.
//!
//! The manager is what LDK keeps in its blob: entries and queued events. The network is what has left the node, and outlives it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bitcoin::hashes::{Hash as _, sha256};
use ibid::Token;
use ibid::lightning::send_payment::{
    Dispatch, Handled, Listed, Listing, Paid, Payer, PaymentFailed, PaymentRequest, PaymentSent, Replay, SendError,
    SendPayment, Sending,
};
use tokio::sync::watch;

pub(crate) type Id = [u8; 32];

/// LDK's `IDEMPOTENCY_TIMEOUT_TICKS`.
const TICKS_KEPT: u32 = 7;

/// The hash of this preimage.
pub(crate) fn hash(preimage: [u8; 32]) -> [u8; 32] {
    sha256::Hash::hash(&preimage).to_byte_array()
}

/// What a call does that does not go well.
#[derive(Clone, Debug)]
pub(crate) enum Script {
    /// Refused before the id is looked at.
    Refuse(SendError),
    /// Accepted, and every path fails before the call returns.
    AllPathsFail,
    /// Accepted, and then this is said.
    Say(SendError),
    /// Accepted, and then it panics.
    PanicAfter,
    /// It panics before anything happens.
    PanicBefore,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Sent { id: Id, preimage: [u8; 32], fee_msat: Option<u64> },
    Failed { id: Id, payment_hash: Option<[u8; 32]>, reason: &'static str },
    Path(Id),
}

impl Event {
    fn id(&self) -> Id {
        match self {
            Self::Sent { id, .. } | Self::Failed { id, .. } | Self::Path(id) => *id,
        }
    }
}

/// One accepted call: a set of HTLCs.
#[derive(Clone, Debug)]
pub(crate) struct HtlcSet {
    pub(crate) id: Id,
    pub(crate) token: Token,
    pub(crate) fate: Fate,
    /// A monitor has been written that knows of it, so that it could go out.
    is_out: bool,
    pub(crate) payment_hash: Option<[u8; 32]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Live,
    Paid,
    Failed,
    /// The node died before it went out.
    Lost,
}

#[derive(Clone, Debug)]
struct Entry {
    set: usize,
    state: Listing,
    payment_hash: Option<[u8; 32]>,
    ticks: u32,
}

/// The manager's blob.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blob {
    entries: BTreeMap<Id, Entry>,
    events: VecDeque<Event>,
    /// Sets that it has been told the fate of, and let go of.
    done: BTreeSet<usize>,
}

#[derive(Default)]
struct State {
    manager: Blob,
    network: Vec<HtlcSet>,
    script: VecDeque<Script>,
    /// Counts how often a manager was loaded. A call or a handler of an earlier one has no effect any more.
    loads: usize,
    calls: usize,
    abandons: Vec<Id>,
}

/// Clones are one LDK.
#[derive(Clone)]
pub(crate) struct Ldk {
    state: Arc<Mutex<State>>,
    /// Calls that have begun.
    begun: Arc<watch::Sender<usize>>,
    gate: Arc<watch::Sender<bool>>,
}

impl Ldk {
    pub(crate) fn new() -> Self {
        let (begun, gate) = (Arc::new(watch::Sender::new(0)), Arc::new(watch::Sender::new(true)));
        Self { state: Arc::default(), begun, gate }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// How often it was asked to send.
    pub(crate) fn calls(&self) -> usize {
        self.state().calls
    }

    /// What it was told to abandon.
    pub(crate) fn abandons(&self) -> Vec<Id> {
        self.state().abandons.clone()
    }

    pub(crate) fn sets(&self) -> Vec<HtlcSet> {
        self.state().network.clone()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.state().manager.events.iter().cloned().collect()
    }

    pub(crate) fn next(&self, script: Script) {
        self.state().script.push_back(script);
    }

    /// Calls wait inside LDK, before they are accepted.
    pub(crate) fn hold(&self) {
        self.gate.send_replace(false);
    }

    pub(crate) fn release(&self) {
        self.gate.send_replace(true);
    }

    pub(crate) async fn until_begun(&self, calls: usize) {
        self.begun.subscribe().wait_for(|begun| *begun >= calls).await.unwrap();
    }

    /// The payee claims.
    pub(crate) fn claim(&self, id: Id, preimage: [u8; 32], fee_msat: Option<u64>) {
        let mut state = self.state();
        let State { manager, network, .. } = &mut *state;
        let entry = manager.entries.get_mut(&id).expect("it is under way");
        let set = &mut network[entry.set];
        assert_eq!(set.fate, Fate::Live);
        (set.fate, set.is_out, entry.state) = (Fate::Paid, true, Listing::Fulfilled);
        manager.events.push_back(Event::Sent { id, preimage, fee_msat });
    }

    /// Every path has failed and nothing is retried: entry and event in one critical section.
    pub(crate) fn fail(&self, id: Id) {
        self.state().fail(id, "RetriesExhausted");
    }

    /// An entry that nobody asked us for: the host has used LDK by another way.
    pub(crate) fn list(&self, id: Id, state: Listing, payment_hash: Option<[u8; 32]>) {
        let set = self.state().network.len();
        let sent = HtlcSet { id, token: Token([0; 32]), fate: Fate::Live, is_out: true, payment_hash };
        let mut ldk = self.state();
        ldk.network.push(sent);
        ldk.manager.entries.insert(id, Entry { set, state, payment_hash, ticks: 0 });
    }

    /// Queues an event again, as a manager does that was written before it was handled.
    pub(crate) fn tell(&self, event: Event) {
        self.state().manager.events.push_back(event);
    }

    pub(crate) fn tick(&self) {
        let Blob { entries, events, done } = &mut self.state().manager;
        entries.retain(|id, entry| {
            if entry.state != Listing::Fulfilled {
                return true;
            }
            let is_noisy = events.iter().any(|event| event.id() == *id && !matches!(event, Event::Failed { .. }));
            entry.ticks = if is_noisy { 0 } else { entry.ticks + 1 };
            let is_kept = entry.ticks <= TICKS_KEPT;
            if !is_kept {
                done.insert(entry.set);
            }
            is_kept
        });
    }

    /// Writes the monitors: what is live goes out.
    pub(crate) fn write_monitors(&self) {
        self.state().network.iter_mut().for_each(|set| set.is_out = true);
    }

    /// The manager as it would be written now.
    pub(crate) fn blob(&self) -> Blob {
        self.state().manager.clone()
    }

    /// Loads the manager that was written as `blob`, with the monitors as they are: what has gone out comes back from them, what
    /// has not is lost.
    pub(crate) fn reload(&self, blob: Blob) {
        let mut state = self.state();
        state.script.clear();
        state.loads += 1;
        state.manager = blob;
        state
            .network
            .iter_mut()
            .filter(|set| set.fate == Fate::Live && !set.is_out)
            .for_each(|set| set.fate = Fate::Lost);
        let last: BTreeMap<Id, usize> = state.network.iter().enumerate().map(|(at, set)| (set.id, at)).collect();
        for (id, at) in last {
            state.meet(id, at);
        }
    }

    /// Hands the next event to the adapter, and drops it if the handler returns `Ok`.
    pub(crate) async fn deliver(&self, payments: &SendPayment) -> Result<Handled, Replay> {
        let (event, loads) = {
            let state = self.state();
            (state.manager.events.front().cloned().expect("there is an event"), state.loads)
        };
        let handled = handle(payments, event.clone()).await;
        let mut state = self.state();
        if handled.is_ok() && state.loads == loads {
            let at = state.manager.events.iter().position(|queued| *queued == event).expect("nobody else handles it");
            state.manager.events.remove(at);
        }
        handled
    }
}

/// What a host's `EventHandler` does.
pub(crate) async fn handle(payments: &SendPayment, event: Event) -> Result<Handled, Replay> {
    match event {
        Event::Sent { id, preimage, fee_msat } => {
            let paid = Paid { preimage, payment_hash: hash(preimage), fee_msat };
            payments.payment_sent(PaymentSent { id, paid, attempt: None }).await
        }
        Event::Failed { id, payment_hash, reason } => {
            let reason = Some(reason.to_owned());
            payments.payment_failed(PaymentFailed { id, payment_hash, reason, attempt: None }).await
        }
        Event::Path(id) => payments.path_event(id).await,
    }
}

impl State {
    fn fail(&mut self, id: Id, reason: &'static str) {
        let entry = self.manager.entries.remove(&id).expect("it is under way");
        if self.network[entry.set].fate == Fate::Live {
            self.network[entry.set].fate = Fate::Failed;
        }
        self.manager.done.insert(entry.set);
        self.manager.events.push_back(Event::Failed { id, payment_hash: entry.payment_hash, reason });
    }

    /// A loaded manager meets what the network knows of an id's last set.
    fn meet(&mut self, id: Id, at: usize) {
        let HtlcSet { fate, payment_hash, .. } = self.network[at];
        if self.manager.done.contains(&at) {
            return;
        }
        let known = self.manager.entries.get(&id).map(|entry| (entry.set == at, entry.state));
        match (fate, known) {
            (Fate::Live, Some((true, _))) | (Fate::Paid, Some((true, Listing::Fulfilled))) => {}
            (Fate::Live, Some((false, _)) | None) => self.insert(id, at, Listing::Pending, payment_hash),
            (Fate::Paid, Some(_) | None) => {
                self.insert(id, at, Listing::Fulfilled, payment_hash);
                let preimage = preimage_of(payment_hash.expect("only what has a hash is paid here"));
                self.manager.events.push_back(Event::Sent { id, preimage, fee_msat: None });
            }
            (Fate::Failed | Fate::Lost, Some((_, Listing::Fulfilled)) | None) => {}
            // What was retried automatically is retried no more.
            (Fate::Failed | Fate::Lost, Some(_)) => self.fail(id, "RetriesExhausted"),
        }
    }

    fn insert(&mut self, id: Id, set: usize, state: Listing, payment_hash: Option<[u8; 32]>) {
        self.manager.entries.insert(id, Entry { set, state, payment_hash, ticks: 0 });
    }

    fn send(&mut self, payment: &Dispatch, script: Option<&Script>) -> Result<(), SendError> {
        if let Some(Script::Refuse(error)) = script {
            return Err(error.clone());
        }
        let id = payment.request.id;
        if self.manager.entries.contains_key(&id) {
            return Err(SendError::DuplicatePayment);
        }
        let payment_hash = payment.request.payment_hash();
        let state = if payment_hash.is_some() { Listing::Pending } else { Listing::AwaitingInvoice };
        let token = *payment.attempt.token();
        let set = self.network.len();
        self.network.push(HtlcSet { id, token, fate: Fate::Live, is_out: false, payment_hash });
        self.insert(id, set, state, payment_hash);
        match script {
            Some(Script::AllPathsFail) => self.fail(id, "RetriesExhausted"),
            Some(Script::Say(error)) => return Err(error.clone()),
            Some(Script::Refuse(_) | Script::PanicBefore | Script::PanicAfter) | None => {}
        }
        Ok(())
    }
}

/// The preimages that tests use are few.
fn preimage_of(payment_hash: [u8; 32]) -> [u8; 32] {
    (0..=u8::MAX).map(|byte| [byte; 32]).find(|preimage| hash(*preimage) == payment_hash).expect("a test's preimage")
}

impl Payer for Ldk {
    fn check(&self, request: &PaymentRequest) -> Result<(), SendError> {
        match &request.payee {
            ibid::lightning::send_payment::Payee::Bolt11 { invoice, .. } if !invoice.starts_with("lnbc") => {
                Err(SendError::InvalidInvoice)
            }
            _ => Ok(()),
        }
    }

    fn send<'a>(&'a self, payment: &'a Dispatch) -> Sending<'a> {
        Box::pin(async move {
            let loads = {
                let mut state = self.state();
                state.calls += 1;
                state.loads
            };
            self.begun.send_modify(|begun| *begun += 1);
            self.gate.subscribe().wait_for(|open| *open).await.unwrap();
            let script = self.state().script.pop_front();
            assert!(!matches!(script, Some(Script::PanicBefore)), "scripted");
            let sent = {
                let mut state = self.state();
                if state.loads != loads {
                    return Err(SendError::Other("the node has been stopped".into()));
                }
                state.send(payment, script.as_ref())
            };
            assert!(!matches!(script, Some(Script::PanicAfter)), "scripted");
            sent
        })
    }

    fn abandon(&self, id: &Id) {
        let mut state = self.state();
        state.abandons.push(*id);
        let Some(entry) = state.manager.entries.get_mut(id) else { return };
        match entry.state {
            Listing::Pending => entry.state = Listing::Abandoned,
            Listing::AwaitingInvoice => state.fail(*id, "UserAbandoned"),
            Listing::Fulfilled | Listing::Abandoned => {}
        }
    }

    fn recent(&self, id: &Id) -> Option<Listed> {
        let state = self.state();
        let entry = state.manager.entries.get(id)?;
        Some(Listed { state: entry.state, payment_hash: entry.payment_hash })
    }

    fn fulfilled(&self) -> Vec<Id> {
        let state = self.state();
        let fulfilled = state.manager.entries.iter().filter(|(_, entry)| entry.state == Listing::Fulfilled);
        fulfilled.map(|(id, _)| *id).collect()
    }
}
