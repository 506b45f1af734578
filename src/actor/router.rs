//! Finds the actor of a key, keeps the only address of each, and knows what runs.

use std::collections::HashMap;
use std::sync::Arc;

use actix::{Actor, Addr, Context, Handler};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::key_actor::{KeyActor, Live, Surroundings};
use super::message::{
    Abandon, AbortOperations, Alarmed, AttemptOver, Count, Counts, Decided, Drain, Finish, Gone, Idle, Lost, Origin,
    Question, Report, StartOperation, Submit, TRIES, Ticket, ToKey, tell,
};
use super::operation::Operation;
use super::permits::Permit;
use super::saver::Saver;
use crate::attempt::Attempt;
use crate::error::ErrorKind;
use crate::key::Key;
use crate::policy::Flow;

pub(crate) struct Router {
    around: Option<Arc<Surroundings>>,
    runtime: Handle,
    keys: HashMap<Key, Entry>,
    /// Attempts whose operation was started and whose end is not recorded. It outlives the key actors: one that died with a
    /// message is replaced by one that knows that its operation still runs.
    running: HashMap<Key, Running>,
    epochs: u64,
    drained: Option<oneshot::Sender<()>>,
    draining: bool,
    died_actors: u64,
    alarms: u64,
}

struct Entry {
    /// The only address: dropping it stops the actor, after its mailbox is empty.
    addr: Addr<KeyActor>,
    epoch: u64,
    /// Messages sent. An actor that has seen as many may go.
    sent: u64,
}

struct Running {
    live: Live,
    abort: AbortHandle,
    /// Held for as long as the operation counts as in flight.
    _permit: Option<Permit>,
}

impl Router {
    pub(super) fn new(runtime: Handle) -> Self {
        Self {
            around: None,
            runtime,
            keys: HashMap::new(),
            running: HashMap::new(),
            epochs: 0,
            drained: None,
            draining: false,
            died_actors: 0,
            alarms: 0,
        }
    }

    /// Hands a message to the key's actor, which it makes if there is none or only a dead one.
    fn forward(&mut self, key: &Key, message: ToKey) {
        let Some(around) = self.around.clone() else { return };
        let alive = self.keys.get(key).map(|entry| entry.addr.connected());
        if alive != Some(true) {
            if alive == Some(false) {
                self.note_death(key);
            }
            self.epochs += 1;
            let origin = Origin { key: key.clone(), epoch: self.epochs };
            let live = self.running.get(key).map(|running| running.live.clone());
            let addr = KeyActor::new(origin, live, self.draining, around).start();
            self.keys.insert(key.clone(), Entry { addr, epoch: self.epochs, sent: 0 });
        }
        if let Some(entry) = self.keys.get_mut(key) {
            entry.sent += 1;
            entry.addr.do_send(message);
        }
    }

    /// Hands a message to the actor of exactly this epoch, if it is still there.
    fn forward_to(&mut self, origin: &Origin, message: ToKey) {
        if let Some(entry) = self.keys.get_mut(&origin.key)
            && entry.epoch == origin.epoch
        {
            entry.sent += 1;
            entry.addr.do_send(message);
        }
    }

    fn start(&mut self, flow: Flow, key: Key, attempt: Attempt, operation: Operation, permit: Option<Permit>) {
        let Some(around) = &self.around else { return };
        let number = attempt.number();
        let report = Report::pending(key.clone(), number, Arc::clone(&around.router));
        let abort = operation.start(&self.runtime, attempt, report);
        self.running.insert(key, Running { live: Live { attempt: number, flow }, abort, _permit: permit });
    }

    fn note_death(&mut self, key: &Key) {
        self.died_actors += 1;
        tracing::error!(%key, "a key actor died; its messages go to a fresh one");
    }

    fn tell_when_drained(&mut self) {
        if self.draining
            && self.keys.is_empty()
            && self.running.is_empty()
            && let Some(drained) = self.drained.take()
        {
            tell(drained, ());
        }
    }
}

impl Actor for Router {
    type Context = Context<Self>;
}

/// Sent once, right after the start: the router's surroundings contain its own address.
pub(super) struct Surround(pub(super) Arc<Surroundings>);

impl actix::Message for Surround {
    type Result = ();
}

impl Handler<Surround> for Router {
    type Result = ();

    fn handle(&mut self, Surround(around): Surround, _: &mut Self::Context) {
        self.around = Some(around);
    }
}

impl Handler<Submit> for Router {
    type Result = ();

    fn handle(&mut self, Submit(ticket): Submit, _: &mut Self::Context) {
        match ticket.question() {
            // What runs may still save its checkpoints while the engine closes.
            Some(question) if self.draining && !question.ask.is_checkpoint() => ticket.refuse(ErrorKind::Closed),
            Some(question) => {
                let key = question.key.clone();
                self.forward(&key, ToKey::Ticket(ticket));
            }
            None => {}
        }
    }
}

impl Handler<Lost> for Router {
    type Result = ();

    fn handle(&mut self, Lost(mut question): Lost, _: &mut Self::Context) {
        question.tries += 1;
        let Some(around) = &self.around else { return };
        if question.tries > TRIES {
            return question.refuse(ErrorKind::Internal);
        }
        let Question { key, .. } = &question;
        let (key, ticket) = (key.clone(), Ticket::new(question, Arc::clone(&around.router)));
        self.forward(&key, ToKey::Ticket(ticket));
    }
}

impl Handler<Finish> for Router {
    type Result = ();

    fn handle(&mut self, mut finish: Finish, _: &mut Self::Context) {
        let Some(around) = &self.around else { return };
        let key = finish.key.clone();
        finish.tries += 1;
        if finish.tries > TRIES + 1 {
            // Every actor that touched this end has died: the record stays registered, and reads as in doubt.
            tracing::error!(%key, "the end of an attempt could not be handled");
            self.running.remove(&key);
            return self.tell_when_drained();
        }
        let report = Report::of(finish, Arc::clone(&around.router));
        self.forward(&key, ToKey::Report(report));
    }
}

impl Handler<Decided> for Router {
    type Result = ();

    fn handle(&mut self, Decided(decisions): Decided, _: &mut Self::Context) {
        for decision in decisions {
            self.forward_to(&decision.origin, ToKey::Decided(decision.verdict));
        }
    }
}

impl Handler<StartOperation> for Router {
    type Result = ();

    fn handle(&mut self, message: StartOperation, _: &mut Self::Context) {
        let StartOperation { flow, key, record, operation, permit } = message;
        let Some(around) = &self.around else { return };
        let saver = Saver::new(&flow, &key, around);
        let attempt = Attempt::new(&record, Box::new(saver));
        self.start(flow, key, attempt, operation, permit);
    }
}

impl Handler<AttemptOver> for Router {
    type Result = ();

    fn handle(&mut self, AttemptOver { key, attempt }: AttemptOver, _: &mut Self::Context) {
        if self.running.get(&key).is_some_and(|running| running.live.attempt == attempt) {
            self.running.remove(&key);
        }
        self.tell_when_drained();
    }
}

impl Handler<Idle> for Router {
    type Result = ();

    fn handle(&mut self, Idle { origin, seen }: Idle, _: &mut Self::Context) {
        if self.keys.get(&origin.key).is_some_and(|entry| entry.epoch == origin.epoch && entry.sent == seen) {
            self.keys.remove(&origin.key);
        }
        self.tell_when_drained();
    }
}

impl Handler<Gone> for Router {
    type Result = ();

    fn handle(&mut self, Gone(origin): Gone, _: &mut Self::Context) {
        // One that went in order is no longer listed, or its key has another by now.
        if self.keys.get(&origin.key).is_some_and(|entry| entry.epoch == origin.epoch) {
            self.keys.remove(&origin.key);
            self.note_death(&origin.key);
        }
        self.tell_when_drained();
    }
}

impl Handler<Abandon> for Router {
    type Result = ();

    fn handle(&mut self, Abandon { key, waiter }: Abandon, _: &mut Self::Context) {
        if let Some(entry) = self.keys.get(&key) {
            let origin = Origin { epoch: entry.epoch, key };
            self.forward_to(&origin, ToKey::Abandon(waiter));
        }
    }
}

impl Handler<Alarmed> for Router {
    type Result = ();

    fn handle(&mut self, Alarmed: Alarmed, _: &mut Self::Context) {
        self.alarms += 1;
    }
}

impl Handler<Count> for Router {
    type Result = ();

    fn handle(&mut self, Count { reply, requeued }: Count, _: &mut Self::Context) {
        if let (false, Some(around)) = (requeued, &self.around) {
            return around.router.do_send(Count { reply, requeued: true });
        }
        let counts = Counts {
            live_actors: self.keys.len(),
            running: self.running.len(),
            died_actors: self.died_actors,
            alarms: self.alarms,
        };
        tell(reply, counts);
    }
}

impl Handler<Drain> for Router {
    type Result = ();

    fn handle(&mut self, Drain(drained): Drain, _: &mut Self::Context) {
        self.draining = true;
        self.drained = Some(drained);
        let origins: Vec<_> =
            self.keys.iter().map(|(key, entry)| Origin { key: key.clone(), epoch: entry.epoch }).collect();
        for origin in origins {
            self.forward_to(&origin, ToKey::Drain);
        }
        self.tell_when_drained();
    }
}

impl Handler<AbortOperations> for Router {
    type Result = ();

    fn handle(&mut self, AbortOperations: AbortOperations, _: &mut Self::Context) {
        self.running.values().for_each(|running| running.abort.abort());
    }
}
