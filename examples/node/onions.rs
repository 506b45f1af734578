//! The methods of `send_onion`.

use std::sync::Arc;
use std::time::Duration;

use ibid::lightning::send_onion::{
    FLOW_NAME, InvalidOnion, ONION_BYTES, Onion, OnionEnd, OnionError, SendOnion, Sent, Switch, Tracked, WireOnion,
};
use ibid::{
    Builder, Bytes, Class, Engine, Fenced, Flow, Forgotten, InvalidKey, InvalidRecovery, NodeId, Policy, Resolved,
    Status,
};
use serde_json::{Value, json};

use crate::call::{InvalidParams, Params, number};
use crate::effects::{from_hex, hex};
use crate::result::Answer;
use crate::script::Script;
use crate::switch::{Circuits, ScriptedSwitch};

/// How many entries of the in-flight index one step of a list looks at.
const PAGE: usize = 256;

/// A namespace that a caller names begins with this byte, a node id never does: the two do not meet.
const NAMED: u8 = b'@';

#[derive(Clone)]
pub(crate) struct Onions {
    onions: SendOnion,
    circuits: Circuits,
}

/// Whose id, and which, as it was given.
struct Id<'a> {
    namespace: Vec<u8>,
    attempt_id: u64,
    given: &'a Value,
}

impl Onions {
    pub(crate) fn flow() -> Result<Flow, InvalidKey> {
        Flow::new(FLOW_NAME, Policy::send_onion())
    }

    /// The engine will ask the switch.
    pub(crate) fn prepare(builder: Builder, flow: &Flow, circuits: &Circuits) -> Builder {
        SendOnion::prepare(builder, flow, scripted(circuits, Script::NONE))
    }

    pub(crate) fn new(engine: Engine, flow: Flow, circuits: Circuits) -> Result<Self, InvalidRecovery> {
        Ok(Self { onions: SendOnion::new(engine, flow, scripted(&circuits, Script::NONE))?, circuits })
    }

    pub(crate) fn knows(method: &str) -> bool {
        matches!(
            method,
            "send_onion" | "track_onion" | "resolve_onion" | "fence_onion" | "forget_onions" | "list_onions"
        )
    }

    pub(crate) async fn answer(&self, from: NodeId, method: &str, params: &Params) -> Result<Value, InvalidParams> {
        match method {
            "send_onion" => self.send(from, params).await,
            "track_onion" => self.track(from, params).await,
            "resolve_onion" => self.resolve(from, params).await,
            "fence_onion" => self.fence(from, params).await,
            "forget_onions" => self.forget(from, params).await,
            _ => self.list(params),
        }
    }

    async fn send(&self, from: NodeId, params: &Params) -> Result<Value, InvalidParams> {
        let (id, script) = (Id::of(from, params)?, Script::of(params)?);
        let sent = match onion(params)? {
            Ok(onion) => {
                self.onions.via(scripted(&self.circuits, script)).send(&id.namespace, id.attempt_id, &onion).await
            }
            Err(invalid) => Err(invalid.into()),
        };
        let answer = match sent {
            Ok(Sent::Accepted) => Answer::success(Some(Status::Dispatched)),
            Ok(Sent::Settled(outcome)) => Answer::success(Some(Status::Completed))
                .replayed(outcome.is_replay())
                .with("preimage", text(&outcome.answer)),
            Err(error) => self.refused(&id, &error),
        };
        Ok(id.on(answer))
    }

    async fn track(&self, from: NodeId, params: &Params) -> Result<Value, InvalidParams> {
        let (id, timeout) = (Id::of(from, params)?, params.number("timeout_ms")?);
        let known = self.onions.lookup(&id.namespace, id.attempt_id).ok().flatten();
        let tracking = self.onions.track(&id.namespace, id.attempt_id);
        let tracked = match timeout {
            None => tracking.await,
            Some(ms) => match tokio::time::timeout(Duration::from_millis(ms), tracking).await {
                Ok(tracked) => tracked,
                Err(_) => Err(ibid::Error::from(ibid::ErrorKind::Deadline).into()),
            },
        };
        let answer = match tracked {
            Ok(tracked) => ended(&tracked).replayed(known.is_some_and(|known| known.end.is_some())),
            Err(error) => self.refused(&id, &error),
        };
        Ok(id.on(answer))
    }

    async fn resolve(&self, from: NodeId, params: &Params) -> Result<Value, InvalidParams> {
        let id = Id::of(from, params)?;
        let end = match params.needed_text("result")? {
            "settled" => OnionEnd::Settled(stored(params.text("preimage")?.unwrap_or_default())),
            "failed" => OnionEnd::Failed(params.text("reason")?.map(stored)),
            _ => return Err(InvalidParams("result is settled or failed".into())),
        };
        let resolved = self.onions.resolve(&id.namespace, id.attempt_id, None, &end).await;
        let state = match end {
            OnionEnd::Settled(_) => Status::Completed,
            OnionEnd::Failed(_) => Status::Failed,
        };
        let answer = match resolved {
            Ok(Resolved::Recorded) => Answer::success(Some(state)).with("resolved", "recorded"),
            Ok(Resolved::Already) => Answer::success(Some(state)).replayed(true).with("resolved", "already"),
            Ok(Resolved::Contradicts(state)) => {
                Answer::refused(Class::Conflict, Some(state)).with("resolved", "contradicts")
            }
            Ok(Resolved::FencedOff) => Answer::refused(Class::Conflict, None).with("resolved", "fenced_off"),
            Ok(Resolved::NotFound) => Answer::refused(Class::Ambiguous, self.state(&id)).with("resolved", "not_found"),
            Err(error) => self.refused(&id, &error),
        };
        Ok(id.on(answer))
    }

    async fn fence(&self, from: NodeId, params: &Params) -> Result<Value, InvalidParams> {
        let id = Id::of(from, params)?;
        let answer = match self.onions.fence(&id.namespace, id.attempt_id).await {
            Ok(Fenced::Fenced) => Answer::success(Some(Status::Tombstone)).with("fenced", true),
            Ok(Fenced::Found(state)) => Answer::refused(Class::Duplicate, Some(state)).with("fenced", false),
            Err(error) => self.refused(&id, &error),
        };
        Ok(id.on(answer))
    }

    async fn forget(&self, from: NodeId, params: &Params) -> Result<Value, InvalidParams> {
        let namespace = namespace(from, params)?;
        let given = params.needed("attempt_ids")?.as_array();
        let given = given.ok_or_else(|| InvalidParams("attempt_ids is not an array".into()))?;
        let ids = given.iter().map(|id| number("attempt_ids", id)).collect::<Result<Vec<_>, _>>()?;
        let statuses = match self.onions.forget(&namespace, &ids).await {
            Ok(statuses) => statuses,
            Err(error) => return Ok(told(Answer::refused(error.class(), None), &error).into()),
        };
        let as_given = |id: u64| ids.iter().position(|known| *known == id).map_or(Value::Null, |at| given[at].clone());
        let statuses: Vec<Value> =
            statuses.into_iter().map(|(id, forgotten)| status(as_given(id), forgotten)).collect();
        Ok(Answer::success(None).with("statuses", statuses).into())
    }

    fn list(&self, params: &Params) -> Result<Value, InvalidParams> {
        let wanted = match params.text("state")? {
            None => None,
            Some(name) => {
                let unknown = || InvalidParams("state is registered, dispatched or in_doubt".into());
                Some(Status::named(name).ok_or_else(unknown)?)
            }
        };
        let namespace = params.text("namespace")?.map(named);
        let (mut listed, mut quarantined, mut after) = (Vec::new(), 0, None);
        loop {
            let page = match self.onions.list(namespace.as_deref(), after, PAGE) {
                Ok(page) => page,
                Err(error) => return Ok(told(Answer::refused(error.class(), None), &error).into()),
            };
            let found = page.onions.into_iter().filter(|onion| wanted.is_none_or(|state| onion.state == state));
            listed.extend(found.map(|onion| {
                let hash = onion.onion.as_ref().map(|onion| hex(onion.payment_hash()));
                json!({ "attempt_id": onion.attempt_id, "namespace": shown(&onion.namespace),
                    "state": onion.state.name(), "payment_hash": hash,
                    "amount_msat": onion.onion.map(|onion| onion.amount_msat()), "dead_letter": onion.is_dead_letter })
            }));
            (quarantined, after) = (quarantined + page.quarantined, page.next);
            if after.is_none() {
                return Ok(Answer::success(None).with("onions", listed).with("quarantined", quarantined).into());
            }
        }
    }

    /// Where the error does not say how the record stands, the record does.
    fn refused(&self, id: &Id<'_>, error: &OnionError) -> Answer {
        let state = error.state().or_else(|| self.state(id).filter(|_| error.malformed().is_none()));
        let answer = told(Answer::refused(error.class(), state), error).replayed(error.is_replayed());
        match error.ended() {
            Some(OnionEnd::Settled(preimage)) => answer.with("preimage", text(&preimage)),
            Some(OnionEnd::Failed(reason)) => answer.with("reason", reason.as_ref().map(text)),
            None => answer,
        }
    }

    fn state(&self, id: &Id<'_>) -> Option<Status> {
        Some(self.onions.lookup(&id.namespace, id.attempt_id).ok()??.state)
    }
}

impl<'a> Id<'a> {
    fn of(from: NodeId, params: &'a Params) -> Result<Self, InvalidParams> {
        let given = params.needed("attempt_id")?;
        Ok(Self { namespace: namespace(from, params)?, attempt_id: number("attempt_id", given)?, given })
    }

    fn on(&self, answer: Answer) -> Value {
        answer.with("attempt_id", self.given.clone()).into()
    }
}

fn scripted(circuits: &Circuits, script: Script) -> Arc<dyn Switch> {
    Arc::new(ScriptedSwitch { circuits: circuits.clone(), script })
}

fn namespace(from: NodeId, params: &Params) -> Result<Vec<u8>, InvalidParams> {
    let given = params.text("namespace")?;
    if given.is_some_and(|name| name.is_empty() || name.len() > 254) {
        return Err(InvalidParams("namespace is not 1 to 254 bytes".into()));
    }
    Ok(given.map_or_else(|| from.as_ref().to_vec(), named))
}

fn named(name: &str) -> Vec<u8> {
    [&[NAMED], name.as_bytes()].concat()
}

fn shown(namespace: &[u8]) -> String {
    match namespace.strip_prefix(&[NAMED]) {
        Some(name) => String::from_utf8_lossy(name).into_owned(),
        None => hex(namespace),
    }
}

/// What is of a wrong type is a matter of the params; what is of a wrong value is a malformed onion, which burns no id.
fn onion(params: &Params) -> Result<Result<Onion, InvalidOnion>, InvalidParams> {
    let (hash, packet) = (params.needed_text("payment_hash")?, params.needed_text("onion")?);
    let amount = match params.needed("amount_msat")? {
        // Not positive, whatever it is.
        Value::Number(amount) if amount.as_i64().is_some_and(|amount| amount < 0) => 0,
        amount => number("amount_msat", amount)?,
    };
    // What is not hex holds no byte that can be used.
    Ok(Onion::try_from(WireOnion {
        first_hop_channel: Some(1),
        amount_msat: amount,
        payment_hash: from_hex(hash).unwrap_or_default(),
        onion: from_hex(packet).unwrap_or_default(),
        ..WireOnion::default()
    }))
}

/// Preimage and reason are any text and come back as they came; 64 hex digits mean 32 bytes, so their case does not count.
fn stored(text: &str) -> Bytes {
    match from_hex(text) {
        Some(bytes) if bytes.len() == 32 => hex(&bytes).into_bytes().into(),
        _ => text.as_bytes().into(),
    }
}

fn text(stored: &Bytes) -> String {
    String::from_utf8_lossy(stored).into_owned()
}

fn told(answer: Answer, error: &OnionError) -> Answer {
    let detail = error.detail();
    let answer = answer.with("cause", &*detail.cause).with("grpc_code", error.grpc_code());
    let reason = detail.reason.as_ref().map(text);
    if reason.is_some() || error.class() == Class::Definitive { answer.with("reason", reason) } else { answer }
}

fn ended(tracked: &Tracked) -> Answer {
    let failed = |reason: &Option<Bytes>, rolled_back: bool| {
        Answer::success(Some(Status::Failed))
            .with("result", "failed")
            .with("reason", reason.as_ref().map(text))
            .with("rolled_back", rolled_back)
    };
    let settled = |preimage: Option<String>| {
        Answer::success(Some(Status::Completed)).with("result", "settled").with("preimage", preimage)
    };
    match tracked {
        Tracked::Settled(preimage) => settled(Some(text(preimage))),
        Tracked::SettledWithoutProof => settled(None),
        Tracked::Failed(reason) => failed(reason, false),
        Tracked::RolledBack(reason) => failed(reason, true),
    }
}

fn status(id: Value, forgotten: Forgotten) -> Value {
    let name = match forgotten {
        Forgotten::Forgotten => "forgotten",
        Forgotten::NotFound => "not_found",
        Forgotten::InFlight(state) => {
            return json!({ "attempt_id": id, "status": "in_flight", "state": state.name() });
        }
        Forgotten::Live => "live",
        Forgotten::Quarantined => "quarantined",
        Forgotten::Tombstone => "tombstone",
    };
    json!({ "attempt_id": id, "status": name })
}

/// The header of the example says how long an onion is.
const _: () = assert!(ONION_BYTES == 1_366);
