//! The methods of `send_payment`.

use std::sync::Arc;

use ibid::lightning::send_payment::{
    FLOW_NAME, Handled, Paid, Payee, Payer, Payment, PaymentError, PaymentFailed, PaymentRequest, PaymentSent,
    SendPayment, SendPaymentSetup, Sent, Standing,
};
use ibid::{Abandoned, Acknowledged, Builder, Class, Engine, Error, Flow, InvalidKey, NodeId, Policy, Status};
use serde_json::{Value, json};

use crate::call::{InvalidParams, Params, number};
use crate::effects::{from_hex, hex};
use crate::ldk::{Dispatched, Id, Ldk, ScriptedLdk};
use crate::result::{Answer, state_name};
use crate::script::{Script, Scripted};

/// The node that pays, whoever tells it to.
const OWN_NODE_ID: [u8; 33] = [2; 33];

/// Before the engine is open.
pub(crate) struct Asking {
    ldk: Ldk,
    setup: SendPaymentSetup,
}

#[derive(Clone)]
pub(crate) struct Payments {
    ldk: Ldk,
    payments: SendPayment,
}

impl Asking {
    pub(crate) fn new(ldk: Ldk) -> Result<Self, InvalidKey> {
        let flow = Flow::new(FLOW_NAME, Policy::send_payment())?;
        let setup = SendPaymentSetup::new(flow, NodeId::new(OWN_NODE_ID)?, scripted(&ldk, Script::NONE));
        Ok(Self { ldk, setup: setup.host_acknowledges() })
    }

    pub(crate) fn recover(&self, builder: Builder) -> Builder {
        self.setup.recover(builder)
    }

    /// As a host starts: what was given up is told again, then the events that nobody has handled, and then it is in sync.
    pub(crate) async fn bind(self, engine: Engine, is_new: bool) -> Result<Payments, Error> {
        let payments = Payments { ldk: self.ldk, payments: self.setup.bind(engine) };
        payments.payments.resume()?;
        for (id, sent) in payments.ldk.untold() {
            drop(payments.arrived(id, sent, None).await);
        }
        if is_new || payments.ldk.remembers() {
            payments.payments.synced();
        }
        Ok(payments)
    }
}

impl Payments {
    pub(crate) fn knows(method: &str) -> bool {
        matches!(method, "send_payment" | "payment_event" | "ack_payment_event" | "abandon_payment" | "list_payments")
    }

    pub(crate) async fn answer(&self, method: &str, params: &Params) -> Result<Value, InvalidParams> {
        match method {
            "send_payment" => self.send(params).await,
            "payment_event" => self.event(params).await,
            "ack_payment_event" => self.acknowledge(params).await,
            "abandon_payment" => self.abandon(params).await,
            _ => self.list(),
        }
    }

    pub(crate) async fn tick(&self) -> Result<(), Error> {
        self.payments.tick().await
    }

    async fn send(&self, params: &Params) -> Result<Value, InvalidParams> {
        let (id, script) = (id(params)?, Script::of(params)?);
        let request = request(id, params)?;
        let known = self.find(id);
        let sent = self.payments.via(scripted(&self.ldk, script)).send(request).await;
        let answer = match sent {
            Ok(Sent::Accepted) => {
                if script.outcome == Scripted::Settle {
                    self.tell_all_arrived(id).await;
                }
                self.standing(Answer::success, id)
            }
            Ok(Sent::Known(standing)) => shown(Answer::refused(Class::Duplicate, Some(status(&standing))), &standing),
            Err(error) => {
                let is_known = known.is_some_and(|known| matches!(known.standing, Standing::RolledBack(_)));
                let replayed = is_known && matches!(error, PaymentError::Definitive(_));
                let state = self.find(id).map(|payment| status(&payment.standing));
                refused(state, error.class(), &error)
                    .replayed(replayed)
                    .with("reason", error.reason().map(String::from))
            }
        };
        Ok(self.on(id, answer))
    }

    async fn event(&self, params: &Params) -> Result<Value, InvalidParams> {
        let (id, attempt) = (id(params)?, number("attempt", params.needed("attempt")?)?);
        let is_sent = match params.needed_text("event")? {
            "sent" => true,
            "failed" => false,
            _ => return Err(InvalidParams("event is sent or failed".into())),
        };
        let preimage = params.text("preimage")?.map(|hex| bytes("preimage", hex)).transpose()?;
        let Some(sent) = self.ldk.dispatch(id, attempt) else {
            let answer =
                Answer::refused(Class::Ambiguous, None).with("cause", "not_found").with("handled", Value::Null);
            return Ok(self.on(id, answer));
        };
        let handled = match is_sent {
            true => self.arrived(id, sent, preimage).await,
            false => self.failed(id, sent).await,
        };
        let answer = match handled {
            Ok(handled @ Handled::Contradiction(_)) => {
                self.standing(|state| Answer::refused(Class::Conflict, state), id).with("handled", name(&handled))
            }
            Ok(handled) => self
                .standing(Answer::success, id)
                .replayed(handled != Handled::Recorded)
                .with("handled", name(&handled)),
            Err(cause) => Answer::refused(Class::Ambiguous, None).with("handled", "replay").with("cause", cause),
        };
        Ok(self.on(id, answer))
    }

    async fn acknowledge(&self, params: &Params) -> Result<Value, InvalidParams> {
        let id = id(params)?;
        let answer = match self.payments.acknowledge(id).await {
            Ok(acknowledged) => self.standing(Answer::success, id).with(
                "acknowledged",
                match acknowledged {
                    Acknowledged::Counting => "counting",
                    Acknowledged::NoEffect(_) => "no_effect",
                    Acknowledged::NotFound => "not_found",
                },
            ),
            Err(error) => refused(None, error.class(), &error),
        };
        Ok(self.on(id, answer))
    }

    async fn abandon(&self, params: &Params) -> Result<Value, InvalidParams> {
        let id = id(params)?;
        let answer = match self.payments.abandon(id).await {
            Ok(abandoned) => self.standing(Answer::success, id).with(
                "abandoned",
                match abandoned {
                    Abandoned::Marked(_) => "marked",
                    Abandoned::Released => "released",
                    Abandoned::NoEffect => "no_effect",
                },
            ),
            Err(error) => refused(None, error.class(), &error),
        };
        Ok(self.on(id, answer))
    }

    fn list(&self) -> Result<Value, InvalidParams> {
        let payments = match self.payments.list() {
            Ok(payments) => payments,
            Err(error) => return Ok(refused(None, error.class(), &error).into()),
        };
        let listed: Vec<Value> = payments.iter().map(|payment| self.listed(payment)).collect();
        Ok(Answer::success(None).with("payments", listed).into())
    }

    fn listed(&self, payment: &Payment) -> Value {
        let state = state_name(status(&payment.standing));
        json!({ "payment_id": hex(&payment.id), "state": state, "attempt": self.attempt(payment),
            "payment_hash": payment.payment_hash.map(|hash| hex(&hash)), "abandoned": payment.is_abandoned })
    }

    async fn tell_all_arrived(&self, id: Id) {
        for (arrived, sent) in self.ldk.untold() {
            if arrived == id {
                // If it cannot be handled now, it will be.
                drop(self.arrived(id, sent, None).await);
            }
        }
    }

    /// LDK lists it until its event is handled; until then it is told again, at the next start if not before.
    async fn arrived(&self, id: Id, sent: Dispatched, preimage: Option<[u8; 32]>) -> Result<Handled, String> {
        let preimage = preimage.unwrap_or_else(|| sent.preimage());
        let paid = Paid { preimage, payment_hash: sent.payment_hash, fee_msat: None };
        let event = PaymentSent { id, paid, attempt: Some(sent.attempt()) };
        let handled = self.payments.payment_sent(event).await.map_err(|replay| replay.to_string())?;
        self.ldk.let_go(id, sent.token()).await.map_err(|error| error.to_string())?;
        Ok(handled)
    }

    /// LDK lets go of it before anybody has handled the event.
    async fn failed(&self, id: Id, sent: Dispatched) -> Result<Handled, String> {
        self.ldk.let_go(id, sent.token()).await.map_err(|error| error.to_string())?;
        let (payment_hash, attempt) = (Some(sent.payment_hash), Some(sent.attempt()));
        let event = PaymentFailed { id, payment_hash, reason: None, attempt };
        self.payments.payment_failed(event).await.map_err(|replay| replay.to_string())
    }

    fn find(&self, id: Id) -> Option<Payment> {
        self.payments.lookup(id).ok().flatten()
    }

    fn standing(&self, answer: impl FnOnce(Option<Status>) -> Answer, id: Id) -> Answer {
        match self.find(id) {
            Some(payment) => shown(answer(Some(status(&payment.standing))), &payment.standing),
            None => answer(None),
        }
    }

    /// The number of the dispatch that the record's attempt has made; none if it has made none.
    fn attempt(&self, payment: &Payment) -> Option<usize> {
        self.ldk.number(payment.id, &payment.attempt.token)
    }

    fn on(&self, id: Id, answer: Answer) -> Value {
        let attempt = self.find(id).and_then(|payment| self.attempt(&payment));
        answer.with("payment_id", hex(&id)).with("attempt", attempt).into()
    }
}

fn scripted(ldk: &Ldk, script: Script) -> Arc<dyn Payer> {
    Arc::new(ScriptedLdk { ldk: ldk.clone(), script })
}

fn request(id: Id, params: &Params) -> Result<PaymentRequest, InvalidParams> {
    let payment_hash = bytes("payment_hash", params.needed_text("payment_hash")?)?;
    let amount_msat = Some(number("amount_msat", params.needed("amount_msat")?)?);
    // The hash is all that there is of an invoice here.
    let payee = Payee::Bolt11 { invoice: hex(&payment_hash), payment_hash };
    Ok(PaymentRequest { amount_msat, ..PaymentRequest::new(id, payee) })
}

fn id(params: &Params) -> Result<Id, InvalidParams> {
    bytes("payment_id", params.needed_text("payment_id")?)
}

fn bytes(name: &str, digits: &str) -> Result<[u8; 32], InvalidParams> {
    let bytes = from_hex(digits).and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| InvalidParams(format!("{name} is not 32 bytes in hex")))
}

fn refused(state: Option<Status>, class: Class, error: &impl std::fmt::Display) -> Answer {
    Answer::refused(class, state).with("cause", error.to_string())
}

fn shown(answer: Answer, standing: &Standing) -> Answer {
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

fn name(handled: &Handled) -> &'static str {
    match handled {
        Handled::Recorded => "recorded",
        Handled::Repeated => "repeated",
        Handled::Unknown => "unknown",
        Handled::Late => "late",
        Handled::Stale => "stale",
        Handled::Contradiction(_) => "contradiction",
    }
}
