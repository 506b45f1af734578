//! What a key actor does about a record in doubt: asks the flow's oracle, and lets a retry wait for the first answer.

use actix::{AsyncContext, Context};

use super::{Cause, KeyActor, Loaded};
use crate::actor::message::{Answer, Ask, Recover, Ticket};
use crate::actor::recoverer::{Turn, Wake, pace};
use crate::error::{Error, ErrorKind};
use crate::machine::{self, Event, Said, Step};
use crate::record::{Record, Status};

impl KeyActor {
    pub(super) fn step_of_answer(&self, answer: &Answer, record: Option<&Record>) -> Option<Step> {
        let heard = answer.heard()?;
        let (flow, _) = self.around.recovery.oracle(&self.origin.key)?;
        let event = Event::Found { attempt: heard.attempt, recoveries: heard.recoveries, found: &heard.found };
        Some(machine::step(record, event, self.context(flow)))
    }

    /// The answer has been dealt with, or could not be; whoever waited for it is decided anew on the record.
    pub(super) fn answered(&mut self, answer: Answer) {
        self.around.inquiries.remove(&self.origin.key);
        answer.done();
        self.deferred.extend(self.held.drain(..).map(|mut ticket| {
            ticket.question_mut().into_iter().for_each(|question| question.has_waited = true);
            Cause::Ticket(ticket)
        }));
        self.wake_in_time();
    }

    /// The background pass has found the key. What is being written, runs, or has been answered since is no longer as it was
    /// found.
    pub(super) fn recover(&mut self, Recover { revision, is_first, turn, .. }: Recover) {
        if self.pending.is_some() || self.draining {
            return;
        }
        if self.load().is_err() {
            return self.wake_in_time();
        }
        let is_as_found = self.stored().is_some_and(|record| record.revision == revision);
        if let Some(record) = self.unended().filter(|_| is_as_found) {
            self.ask(&record, is_first, Some(turn));
        }
    }

    /// The record as it reads, if its end is still to come and nothing of it runs here.
    fn unended(&self) -> Option<Record> {
        let Loaded::Is(Some(record)) = &self.record else { return None };
        if self.is_live() || !record.state.status().is_in_flight() {
            return None;
        }
        let now = self.around.clock.now();
        Some(machine::interrupt(record, now).unwrap_or_else(|| (**record).clone()))
    }

    fn in_doubt(&self) -> Option<Record> {
        self.unended().filter(|record| record.state.status() == Status::InDoubt)
    }

    fn ask(&self, record: &Record, is_first: bool, turn: Option<Turn>) {
        if let Some((_, oracle)) = self.around.recovery.oracle(&self.origin.key) {
            self.around.inquiries.ask(oracle, (&self.origin.key, record), is_first, turn, &self.around.router);
        }
    }

    /// Somebody meets a record in doubt: asks about it unless that has been done since the engine was opened.
    pub(super) fn ask_at_first_touch(&self) {
        if self.draining || !self.can_ask() {
            return;
        }
        let Some(record) = self.in_doubt() else { return };
        let was_answered = record.recoveries > 0 && record.updated_at >= self.around.recovery.opened_at;
        let allowed = machine::recoveries_allowed(true, self.around.limits.recoveries);
        if !was_answered && !machine::is_dead_letter(&record, allowed) {
            self.ask(&record, true, None);
        }
    }

    /// An attempt has just ended, maybe unknown. Where too many are being asked about already, the background pass asks.
    pub(super) fn ask_after_end(&self) {
        let has_room = self.around.inquiries.len() < self.around.limits.background_recoveries;
        match self.can_ask() && has_room && !self.draining {
            true => self.in_doubt().into_iter().for_each(|record| self.ask(&record, true, None)),
            false => self.wake_in_time(),
        }
    }

    fn can_ask(&self) -> bool {
        self.around.recovery.oracle(&self.origin.key).is_some()
    }

    /// Lets the background pass come when the record is due again; soon, if the store could not say what there is.
    pub(super) fn wake_in_time(&self) {
        let Some((flow, _)) = self.around.recovery.of(&self.origin.key) else { return };
        let Some(recoverer) = &self.around.recoverer else { return };
        let limits = &self.around.limits;
        let pause = match (&self.record, self.in_doubt()) {
            (Loaded::NotYet, _) => limits.recovery_pause,
            (Loaded::Is(_), Some(record)) => machine::pause(&record, flow.policy(), pace(limits)),
            (Loaded::Is(_), None) => return,
        };
        recoverer.do_send(Wake(pause));
    }

    /// A retry is told that the record is in doubt; not before the first answer is there, if somebody is being asked.
    pub(super) fn refuse_in_doubt(&mut self, mut ticket: Ticket, refusal: Error) {
        if ticket.full().is_some() {
            return ticket.answer(Said::Reply(Err(refusal)));
        }
        // What has waited for an answer does not ask for another one: that would be old news to whoever comes next.
        if !ticket.question().is_some_and(|question| question.has_waited) {
            self.ask_at_first_touch();
        }
        let is_asked = !self.draining && self.around.inquiries.is_first(&self.origin.key);
        let is_full = self.is_full();
        match ticket.question_mut() {
            Some(question) if is_asked && !question.has_waited && matches!(question.ask, Ask::Admit(..)) => {
                if is_full {
                    return ticket.refuse_to_wait();
                }
                ticket.put_down();
                self.held.push(ticket);
            }
            Some(_) | None => ticket.answer(Said::Reply(Err(refusal))),
        }
    }

    /// The end has come from elsewhere, so nobody waits for the answer any more.
    pub(super) fn let_go_of_ended(&mut self) {
        if self.pending.is_none() && matches!(self.record, Loaded::Is(_)) && !self.is_in_doubt() {
            self.deferred.extend(self.held.drain(..).map(Cause::Ticket));
        }
    }

    /// Those who wait for an answer do so for a limited time: one timer for all of them.
    pub(super) fn limit_the_wait(&mut self, ctx: &mut Context<Self>) {
        if self.held.is_empty() {
            self.hold.take().map(|timer| ctx.cancel_future(timer));
        } else if self.hold.is_none() {
            self.hold = Some(ctx.run_later(self.around.limits.oracle_timeout, |actor, ctx| {
                actor.hold = None;
                let refusal = || ErrorKind::Duplicate(Status::InDoubt);
                actor.held.drain(..).for_each(|ticket| ticket.refuse(refusal()));
                actor.after(ctx);
            }));
        }
    }
}
