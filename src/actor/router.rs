//! Finds the actor of a key, keeps the only address of each, and knows what runs.

use std::collections::hash_map;
use std::rc::Rc;

use actix::{Actor, ActorContext, Addr, Context, Handler};
use tokio::sync::oneshot;

use super::key_actor::{KeyActor, Surroundings};
use super::message::{
    Abandon, AbortOperations, Alarmed, Answer, Count, Counts, Decided, Drain, Finish, Gone, Halt, Heard, Idle, Kept,
    LastRound, Look, Lost, Origin, Proposals, Recover, Report, RoundEnds, SettleAll, Submit, TRIES, Ticket, ToKey,
    Unsaved, tell,
};
use super::supervisor::Settle;
use crate::error::ErrorKind;
use crate::key::{Key, KeyMap};
use crate::machine::Alarm;

pub(crate) struct Router {
    around: Option<Rc<Surroundings>>,
    keys: KeyMap<Entry>,
    epochs: u64,
    drained: Option<oneshot::Sender<()>>,
    draining: bool,
    died_actors: u64,
    alarms: u64,
    dead_letters: u64,
}

struct Entry {
    /// The only address: dropping it stops the actor, after its mailbox is empty.
    addr: Addr<KeyActor>,
    epoch: u64,
    /// Messages sent. An actor that has seen as many may go.
    sent: u64,
}

impl Router {
    pub(super) fn new() -> Self {
        Self {
            around: None,
            keys: KeyMap::default(),
            epochs: 0,
            drained: None,
            draining: false,
            died_actors: 0,
            alarms: 0,
            dead_letters: 0,
        }
    }

    /// Hands a message to the key's actor, which it makes if there is none or only a dead one.
    fn forward(&mut self, key: &Key, message: ToKey) {
        let Some(around) = &self.around else { return };
        let start = |epoch: u64| {
            let origin = Origin { key: key.clone(), epoch };
            let addr = KeyActor::new(origin, self.draining, Rc::clone(around)).start();
            Entry { addr, epoch, sent: 0 }
        };
        let mut died = false;
        let entry = match self.keys.entry(key.clone()) {
            hash_map::Entry::Occupied(entry) => {
                let entry = entry.into_mut();
                if !entry.addr.connected() {
                    died = true;
                    self.epochs += 1;
                    *entry = start(self.epochs);
                }
                entry
            }
            hash_map::Entry::Vacant(place) => {
                self.epochs += 1;
                place.insert(start(self.epochs))
            }
        };
        entry.sent += 1;
        entry.addr.do_send(message);
        if died {
            self.note_death(key);
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

    fn note_death(&mut self, key: &Key) {
        self.died_actors += 1;
        tracing::error!(%key, "a key actor died; its messages go to a fresh one");
    }

    /// Passes on what the key actors have proposed, and lets go of those that are idle.
    fn end_round(&mut self) {
        let Some(around) = &self.around else { return };
        let (proposals, idle) = around.outbox.take();
        if !proposals.is_empty() {
            around.supervisor.do_send(Proposals(proposals));
        }
        idle.into_iter().for_each(|idle| self.let_go(idle));
        self.tell_when_drained();
    }

    fn let_go(&mut self, Idle { origin, seen }: Idle) {
        if let hash_map::Entry::Occupied(entry) = self.keys.entry(origin.key)
            && entry.get().epoch == origin.epoch
            && entry.get().sent == seen
        {
            entry.remove();
        }
    }

    fn tell_when_drained(&mut self) {
        if self.draining
            && self.is_drained()
            && let Some(drained) = self.drained.take()
        {
            tell(drained, ());
        }
    }

    /// Nothing is in flight but ends that cannot be saved: waiting does not save them, and a last round is made for them.
    fn is_drained(&self) -> bool {
        let (running, unsaved) =
            self.around.as_ref().map_or((0, 0), |around| (around.running.len(), around.running.unsaved()));
        running == unsaved && self.keys.len() == unsaved
    }

    fn forward_to_all(&mut self, message: impl Fn() -> ToKey) {
        let mut entries: Vec<_> = self.keys.iter_mut().collect();
        // In an order that the same run has again: a simulation must repeat.
        entries.sort_by_key(|(key, _)| *key);
        for (_, entry) in entries {
            entry.sent += 1;
            entry.addr.do_send(message());
        }
    }
}

impl Actor for Router {
    type Context = Context<Self>;
}

/// Sent once, right after the start: the router's surroundings contain its own address.
pub(super) struct Surround(pub(super) Surroundings);

impl actix::Message for Surround {
    type Result = ();
}

impl Handler<Surround> for Router {
    type Result = ();

    fn handle(&mut self, Surround(around): Surround, _: &mut Self::Context) {
        self.around = Some(Rc::new(around));
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
        question.found_absent = false;
        if self.around.is_none() {
            return;
        }
        if question.tries > TRIES {
            return question.refuse(ErrorKind::Internal);
        }
        let (key, ticket) = (question.key.clone(), Ticket::new(question));
        self.forward(&key, ToKey::Ticket(ticket));
    }
}

impl Handler<Box<Finish>> for Router {
    type Result = ();

    fn handle(&mut self, mut finish: Box<Finish>, _: &mut Self::Context) {
        let Some(around) = &self.around else { return };
        let key = finish.key.clone();
        around.running.note_end(&key, &finish.attempt);
        finish.sent = finish.sent.saturating_add(1);
        if finish.tries > TRIES {
            // Every actor that touched this end has died: the record stays registered, and reads as in doubt.
            tracing::error!(%key, "the end of an attempt could not be handled");
            around.running.remove(&key, &finish.attempt);
            finish.lose(&around.observers);
            if let Some(epoch) = self.keys.get(&key).map(|entry| entry.epoch) {
                self.forward_to(&Origin { key, epoch }, ToKey::EndLost);
            }
            return self.tell_when_drained();
        }
        let report = Report::of(finish);
        self.forward(&key, ToKey::Report(report));
    }
}

impl Handler<Box<Heard>> for Router {
    type Result = ();

    fn handle(&mut self, heard: Box<Heard>, _: &mut Self::Context) {
        let Some(around) = &self.around else { return };
        if self.draining {
            // The next engine asks again; that nobody could tell by now proves nothing.
            return around.inquiries.remove(&heard.key);
        }
        if heard.tries > TRIES {
            tracing::error!(key = %heard.key, "the answer of an oracle could not be handled");
            return around.inquiries.remove(&heard.key);
        }
        let key = heard.key.clone();
        let answer = Answer::of(heard);
        self.forward(&key, ToKey::Answer(answer));
    }
}

impl Handler<Recover> for Router {
    type Result = ();

    fn handle(&mut self, recover: Recover, _: &mut Self::Context) {
        if !self.draining {
            let key = recover.key.clone();
            self.forward(&key, ToKey::Recover(Box::new(recover)));
        }
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

impl Handler<Unsaved> for Router {
    type Result = ();

    fn handle(&mut self, Unsaved(origins, error): Unsaved, _: &mut Self::Context) {
        for origin in origins {
            self.forward_to(&origin, ToKey::Unsaved(error.clone()));
        }
    }
}

impl Handler<RoundEnds> for Router {
    type Result = ();

    fn handle(&mut self, RoundEnds: RoundEnds, _: &mut Self::Context) {
        self.end_round();
    }
}

impl Handler<SettleAll> for Router {
    type Result = ();

    fn handle(&mut self, SettleAll(settled): SettleAll, _: &mut Self::Context) {
        self.end_round();
        if let Some(around) = &self.around {
            around.supervisor.do_send(Settle(settled));
        }
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

    fn handle(&mut self, Alarmed(alarm): Alarmed, _: &mut Self::Context) {
        match alarm {
            Alarm::Contradiction(_) | Alarm::FencedOff => self.alarms += 1,
            Alarm::DeadLetter => self.dead_letters += 1,
        }
    }
}

impl Handler<Look> for Router {
    type Result = ();

    fn handle(&mut self, Look { key, reply }: Look, _: &mut Self::Context) {
        tell(reply, self.around.as_ref().and_then(|around| around.running.look(&key)));
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
            running: self.around.as_ref().map_or(0, |around| around.running.len()),
            died_actors: self.died_actors,
            alarms: self.alarms,
            dead_letters: self.dead_letters,
            inquiries: self.around.as_ref().map_or(0, |around| around.inquiries.made()),
            reruns: self.around.as_ref().map_or(0, |around| around.inquiries.reruns()),
        };
        tell(reply, counts);
    }
}

impl Handler<Drain> for Router {
    type Result = ();

    fn handle(&mut self, Drain(drained): Drain, _: &mut Self::Context) {
        self.draining = true;
        self.drained = Some(drained);
        if let Some(around) = &self.around {
            around.inquiries.abort_all();
        }
        self.forward_to_all(|| ToKey::Drain);
        self.tell_when_drained();
    }
}

impl Handler<Kept> for Router {
    type Result = ();

    fn handle(&mut self, Kept: Kept, _: &mut Self::Context) {
        self.tell_when_drained();
    }
}

impl Handler<LastRound> for Router {
    type Result = ();

    fn handle(&mut self, LastRound(heard): LastRound, _: &mut Self::Context) {
        self.forward_to_all(|| ToKey::LastRound(heard.clone()));
    }
}

impl Handler<AbortOperations> for Router {
    type Result = ();

    fn handle(&mut self, AbortOperations: AbortOperations, _: &mut Self::Context) {
        if let Some(around) = &self.around {
            around.running.abort_all();
        }
    }
}

impl Handler<Halt> for Router {
    type Result = ();

    fn handle(&mut self, Halt: Halt, ctx: &mut Self::Context) {
        self.keys.clear();
        if let Some(around) = &self.around {
            around.running.note_all_ends();
        }
        // It holds this actor's own address.
        self.around = None;
        ctx.stop();
    }
}
