//! The methods of `send_payment`.

use std::sync::Arc;

use ibid::class::{Detail, grpc, grpc_code};
use ibid::lightning::send_payment::{
    FLOW_NAME, Handled, Paid, Payee, PaymentError, PaymentFailed, PaymentPage, PaymentRequest, PaymentSent, Replay,
    SendPayment, SendPaymentSetup, Sent, Standing,
};
use ibid::{
    Abandoned, Acknowledged, AttemptId, BootId, Class, Engine, Error, ErrorKind, Flow, NodeId, Policy, Status, Token,
};
use serde_json::{Value, json};

use crate::call::{InvalidParams, Params, number};
use crate::effects::hex;
use crate::ldk::{Ended, Ldk, Payment, Prepared, bytes32};
use crate::result::Answer;
use crate::script::{Script, Scripted};

/// How many entries of the in-flight index one step of a list looks at.
const PAGE: usize = 256;

/// This node's own id, and that of whomever it pays: who it is makes no difference here.
const OWN: [u8; 33] = [2; 33];

const SECRET: [u8; 32] = [0; 32];

type OpenError = Box<dyn std::error::Error>;

#[derive(Clone)]
pub(crate) struct Payments {
    payments: SendPayment,
    ldk: Ldk,
}

/// Which payment, and as it was given.
struct Id<'a> {
    bytes: [u8; 32],
    given: &'a Value,
}

/// What LDK tells, of the dispatch that a caller names or of whatever is recorded.
struct Event {
    attempt: Option<AttemptId>,
    payment_hash: [u8; 32],
    end: Ended,
}

impl Payments {
    pub(crate) fn knows(method: &str) -> bool {
        matches!(method, "send_payment" | "payment_event" | "ack_payment_event" | "abandon_payment" | "list_payments")
    }

    pub(crate) fn setup(ldk: &Ldk) -> Result<SendPaymentSetup, OpenError> {
        let flow = Flow::new(FLOW_NAME, Policy::send_payment())?;
        Ok(SendPaymentSetup::new(flow, own()?, Arc::new(ldk.clone())).host_acknowledges())
    }

    pub(crate) fn new(setup: &SendPaymentSetup, engine: Engine, ldk: Ldk) -> Result<Self, OpenError> {
        Ok(Self { payments: setup.bind(engine)?, ldk })
    }

    /// What follows the opening: LDK hears again what was given up, tells again what it has not seen handled, and is in sync.
    /// `forgets`: nothing outlives the process, so there is nothing to have forgotten.
    pub(crate) async fn begin(&self, forgets: bool) -> Result<(), Error> {
        self.payments.resume()?;
        for payment in self.under_way()?.payments {
            let Some(dispatched) = self.ldk.of(&payment.id, &payment.attempt) else { continue };
            let Some(end) = dispatched.end else { continue };
            let event = Event { attempt: Some(payment.attempt), payment_hash: dispatched.payment_hash, end };
            // What cannot be recorded yet is asked about, or told once more.
            let _told = self.tell(&payment.id, &event).await;
        }
        if forgets || self.ldk.remembers() {
            self.payments.synced();
        }
        Ok(())
    }

    pub(crate) async fn tick(&self) -> Result<(), Error> {
        self.payments.tick().await
    }

    pub(crate) async fn answer(&self, method: &str, params: &Params) -> Result<Value, InvalidParams> {
        match method {
            "send_payment" => self.send(params).await,
            "payment_event" => self.event(params).await,
            "ack_payment_event" => self.acknowledge(params).await,
            "abandon_payment" => self.abandon(params).await,
            _ => Ok(self.list()),
        }
    }

    async fn send(&self, params: &Params) -> Result<Value, InvalidParams> {
        let (id, script) = (Id::of(params)?, Script::of(params)?);
        let Some(request) = request(&id, params)? else {
            let answer = Answer::refused(Class::Definitive, None).with("cause", "malformed");
            let answer = answer.with("grpc_code", grpc::INVALID_ARGUMENT).with("attempt", Value::Null);
            return Ok(id.on(answer.with("reason", "payment_hash is not 32 bytes in hex")));
        };
        let before = self.recorded(&id).and_then(|payment| payment.told());
        let prepared = self.ldk.prepare(id.bytes, script);
        let answer = match self.payments.send(request).await {
            Ok(Sent::Accepted) => {
                if script.outcome == Scripted::Settle {
                    self.settle(&id).await;
                }
                self.accepted(&id)
            }
            Ok(Sent::Known(standing)) => known(&standing),
            Err(error) => self.refused(&id, &error, &prepared),
        };
        let attempt = prepared.run().unwrap_or_else(|| {
            // A record that has made way for another one meanwhile is not told apart from it.
            let after = self.recorded(&id).and_then(|payment| payment.told());
            after.filter(|_| before.is_none() || before == after)
        });
        Ok(id.on(answer.with("attempt", attempt)))
    }

    /// It arrives as soon as it has been taken on. What cannot be recorded of that is told again after a restart.
    async fn settle(&self, id: &Id<'_>) {
        if let Some(payment) = self.recorded(id) {
            let end = Ended::Sent(payment.preimage());
            let event = Event { attempt: Some(payment.attempt()), payment_hash: payment.payment_hash, end };
            let _told = self.happen(&id.bytes, Some(&payment), &event).await;
        }
    }

    /// It may be paid by now.
    fn accepted(&self, id: &Id<'_>) -> Answer {
        match self.payments.lookup(id.bytes).ok().flatten().map(|payment| payment.standing) {
            Some(Standing::Completed(paid)) => {
                Answer::success(Some(Status::Completed)).with("preimage", hex(&paid.preimage))
            }
            _ => Answer::success(Some(Status::Dispatched)),
        }
    }

    fn refused(&self, id: &Id<'_>, error: &PaymentError, prepared: &Prepared) -> Answer {
        let replayed = matches!(error, PaymentError::Definitive(_)) && prepared.run().is_none();
        let state = self.state(id);
        told(Answer::refused(error.class(), state), error.error()).replayed(replayed && state.is_some())
    }

    async fn event(&self, params: &Params) -> Result<Value, InvalidParams> {
        let id = Id::of(params)?;
        let named = params.number("attempt")?;
        let dispatched = match named {
            Some(number) => self.ldk.numbered(&id.bytes, number),
            None => self.recorded(&id),
        };
        let event = self.event_of(&id, named.is_some(), dispatched.as_ref(), params)?;
        let handled = self.happen(&id.bytes, dispatched.as_ref(), &event).await;
        let answer = handled_as(handled, self.state(&id));
        let attempt = named.or(dispatched.and_then(|payment| payment.told()));
        Ok(id.on(answer.with("attempt", attempt)))
    }

    fn event_of(
        &self,
        id: &Id<'_>,
        is_named: bool,
        dispatched: Option<&Payment>,
        params: &Params,
    ) -> Result<Event, InvalidParams> {
        let preimage = params
            .text("preimage")?
            .map(|digits| bytes32(digits).ok_or_else(|| InvalidParams("preimage is not 32 bytes in hex".into())));
        let end = match (params.needed_text("event")?, preimage.transpose()?) {
            ("sent", Some(preimage)) => Ended::Sent(preimage),
            ("sent", None) => Ended::Sent(dispatched.map_or(id.bytes, Payment::preimage)),
            ("failed", _) => Ended::Failed,
            _ => return Err(InvalidParams("event is sent or failed".into())),
        };
        // A number that no dispatch has yet: nobody's attempt.
        let nobody = || AttemptId { number: 0, boot: BootId([0; 16]), token: Token([0; 32]) };
        let attempt = is_named.then(|| dispatched.map_or_else(nobody, Payment::attempt));
        let recorded = || self.payments.lookup(id.bytes).ok().flatten()?.payment_hash;
        let payment_hash = dispatched.map(|payment| payment.payment_hash).or_else(recorded).unwrap_or_default();
        Ok(Event { attempt, payment_hash, end })
    }

    /// As in LDK: the end is on disk, and then it is told.
    async fn happen(&self, id: &[u8; 32], dispatched: Option<&Payment>, event: &Event) -> Result<Handled, Replay> {
        if let Some(payment) = dispatched {
            let written = self.ldk.end(id, payment, event.end).await;
            written.map_err(|_| Replay(ErrorKind::Store.into()))?;
        }
        self.tell(id, event).await
    }

    async fn tell(&self, id: &[u8; 32], event: &Event) -> Result<Handled, Replay> {
        let (id, attempt, payment_hash) = (*id, event.attempt, event.payment_hash);
        match event.end {
            Ended::Sent(preimage) => {
                let paid = Paid { preimage, payment_hash, fee_msat: None };
                self.payments.payment_sent(PaymentSent { id, paid, attempt }).await
            }
            Ended::Failed => {
                let reason = Some("RetriesExhausted".into());
                self.payments
                    .payment_failed(PaymentFailed { id, payment_hash: Some(payment_hash), reason, attempt })
                    .await
            }
            // LDK has no event for it.
            Ended::Refused => Ok(Handled::Unknown),
        }
    }

    async fn acknowledge(&self, params: &Params) -> Result<Value, InvalidParams> {
        let id = Id::of(params)?;
        let answer = match self.payments.acknowledge(id.bytes).await {
            Ok(Acknowledged::Counting) => Answer::success(Some(Status::Completed)).with("acknowledged", true),
            Ok(Acknowledged::NoEffect(state)) => Answer::success(Some(state)).with("acknowledged", false),
            Ok(Acknowledged::NotFound) => Answer::success(None).with("acknowledged", false),
            Err(error) => told(Answer::refused(Class::Ambiguous, self.state(&id)), &error),
        };
        Ok(id.on(answer))
    }

    async fn abandon(&self, params: &Params) -> Result<Value, InvalidParams> {
        let id = Id::of(params)?;
        let answer = match self.payments.abandon(id.bytes).await {
            Ok(Abandoned::Marked(state)) => Answer::success(Some(state)).with("abandoned", "marked"),
            Ok(Abandoned::Released) => Answer::success(None).with("abandoned", "released"),
            Ok(Abandoned::NoEffect) => Answer::success(self.state(&id)).with("abandoned", "no_effect"),
            Err(error) => told(Answer::refused(Class::Ambiguous, self.state(&id)), &error),
        };
        Ok(id.on(answer))
    }

    fn list(&self) -> Value {
        let page = match self.under_way() {
            Ok(page) => page,
            Err(error) => return told(Answer::refused(error.class(), None), &error).into(),
        };
        let listed: Vec<Value> = page
            .payments
            .into_iter()
            .map(|payment| {
                let dispatched = self.ldk.of(&payment.id, &payment.attempt);
                json!({ "payment_id": hex(&payment.id), "state": status(&payment.standing).name(),
                    "payment_hash": payment.payment_hash.as_ref().map(|hash| hex(hash)),
                    "attempt": dispatched.as_ref().and_then(Payment::told),
                    "amount_msat": dispatched.map(|payment| payment.amount_msat),
                    "abandoned": payment.is_abandoned, "dead_letter": payment.is_dead_letter })
            })
            .collect();
        Answer::success(None).with("payments", listed).with("quarantined", page.quarantined).into()
    }

    /// All of the list in one page.
    fn under_way(&self) -> Result<PaymentPage, Error> {
        let mut all = PaymentPage::default();
        loop {
            let page = self.payments.list(all.next, PAGE)?;
            all.payments.extend(page.payments);
            all.quarantined += page.quarantined;
            all.next = page.next;
            if all.next.is_none() {
                return Ok(all);
            }
        }
    }

    /// The dispatch that the record under this id is about.
    fn recorded(&self, id: &Id<'_>) -> Option<Payment> {
        let payment = self.payments.lookup(id.bytes).ok()??;
        self.ldk.of(&id.bytes, &payment.attempt)
    }

    fn state(&self, id: &Id<'_>) -> Option<Status> {
        Some(status(&self.payments.lookup(id.bytes).ok()??.standing))
    }
}

impl<'a> Id<'a> {
    fn of(params: &'a Params) -> Result<Self, InvalidParams> {
        let bytes = bytes32(params.needed_text("payment_id")?);
        let bytes = bytes.ok_or_else(|| InvalidParams("payment_id is not 32 bytes in hex".into()))?;
        Ok(Self { bytes, given: params.needed("payment_id")? })
    }

    fn on(&self, answer: Answer) -> Value {
        answer.with("payment_id", self.given.clone()).into()
    }
}

fn own() -> Result<NodeId, OpenError> {
    Ok(NodeId::new(OWN)?)
}

/// What is of a wrong type is a matter of the params. `None`: the hash is malformed, which burns no id.
fn request(id: &Id<'_>, params: &Params) -> Result<Option<PaymentRequest>, InvalidParams> {
    let payment_hash = bytes32(params.needed_text("payment_hash")?);
    let amount = match params.needed("amount_msat")? {
        // Not positive, whatever it is.
        Value::Number(amount) if amount.as_i64().is_some_and(|amount| amount < 0) => 0,
        amount => number("amount_msat", amount)?,
    };
    let payee = own().ok().zip(payment_hash);
    Ok(payee.map(|(payee, payment_hash)| {
        let payee = Payee::HashAndSecret { payee, payment_hash, payment_secret: SECRET };
        PaymentRequest { amount_msat: Some(amount), ..PaymentRequest::new(id.bytes, payee) }
    }))
}

fn known(standing: &Standing) -> Answer {
    let status = status(standing);
    let answer = Answer::refused(Class::Duplicate, Some(status)).with("cause", "duplicate");
    let answer = answer.with("grpc_code", grpc_code(&ErrorKind::Duplicate(status)));
    match standing {
        Standing::Completed(paid) => answer.with("preimage", hex(&paid.preimage)),
        Standing::Failed(reason) => answer.with("reason", reason.clone()),
        Standing::RolledBack(reason) => answer.with("reason", reason.clone()),
        Standing::Registered | Standing::Dispatched | Standing::InDoubt | Standing::Unreadable(_) => answer,
    }
}

fn status(standing: &Standing) -> Status {
    match standing {
        Standing::Registered => Status::Registered,
        Standing::Dispatched => Status::Dispatched,
        Standing::InDoubt => Status::InDoubt,
        Standing::Completed(_) => Status::Completed,
        Standing::Failed(_) | Standing::RolledBack(_) => Status::Failed,
        Standing::Unreadable(status) => *status,
    }
}

fn handled_as(handled: Result<Handled, Replay>, state: Option<Status>) -> Answer {
    let (answer, name) = match handled {
        Ok(Handled::Recorded) => (Answer::success(state), "recorded"),
        Ok(Handled::Repeated) => (Answer::success(state).replayed(true), "repeated"),
        Ok(Handled::Late) => (Answer::refused(Class::Conflict, state), "late"),
        Ok(Handled::Stale) => (Answer::refused(Class::Conflict, state), "stale"),
        Ok(Handled::Contradiction(paid)) => {
            (Answer::refused(Class::Conflict, state).with("preimage", hex(&paid.preimage)), "contradiction")
        }
        Ok(Handled::Unknown) => (Answer::refused(Class::Ambiguous, state), "unknown"),
        Ok(Handled::Quarantined) => (Answer::refused(Class::Ambiguous, state), "quarantined"),
        Err(Replay(error)) => (told(Answer::refused(Class::Ambiguous, state), &error), "replay"),
    };
    answer.with("handled", name)
}

fn told(answer: Answer, error: &Error) -> Answer {
    let detail = Detail::of(error);
    let answer = answer.with("cause", &*detail.cause).with("grpc_code", grpc_code(error.kind()));
    let reason = detail.reason.map(|reason| String::from_utf8_lossy(&reason).into_owned());
    if reason.is_some() { answer.with("reason", reason) } else { answer }
}
