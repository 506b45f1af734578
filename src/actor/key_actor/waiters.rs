//! Those who wait at a key, and what they are told.

use super::{Cause, KeyActor};
use crate::actor::message::{Ask, Ticket};
use crate::error::{Error, ErrorKind};
use crate::machine::{Release, Said};
use crate::outcome::{How, Outcome, Reply};
use crate::record::Status;

impl KeyActor {
    pub(super) fn say(&mut self, ticket: Ticket, said: Said) {
        let waiting = ticket.question().and_then(|question| question.waiting);
        match said {
            Said::Start => self.start(ticket, None),
            Said::Wait => {
                self.ask_at_first_touch();
                self.wait(ticket, waiting.unwrap_or(How::Joined));
            }
            Said::Reply(Err(refusal)) if is_in_doubt(&refusal) => self.refuse_in_doubt(ticket, refusal),
            Said::Reply(reply) => ticket.answer(Said::Reply(match waiting {
                Some(how) => heard_late(how, reply),
                None => reply,
            })),
            said @ (Said::Nothing
            | Said::Saved
            | Said::FencedOff
            | Said::Resolved(_)
            | Said::Forgotten(_)
            | Said::Fenced(_)
            | Said::Abandoned(_)
            | Said::Acknowledged(_)
            | Said::Guarded) => {
                ticket.answer(said);
            }
        }
    }

    /// From here on the ticket stands for waiting, not for asking again: lost and handed to a fresh actor, it must neither run
    /// nor be refused as a duplicate of itself.
    pub(super) fn wait(&mut self, mut ticket: Ticket, how: How) {
        let Some(question) = ticket.question_mut() else { return };
        if let Ask::Admit(admission, _) | Ask::Rerun { admission, .. } = &question.ask {
            question.ask = Ask::Track(Some(admission.fingerprint));
        }
        let waited = question.waiting.replace(how).is_some();
        let is_gone = question.reply.is_closed();
        let is_ended = !self.is_live();
        if is_gone || (self.draining && is_ended) {
            ticket.refuse(ErrorKind::Closed);
        } else if is_ended && waited && self.is_in_doubt() {
            // Its actor died before it could be told, as everybody was who waited for the attempt.
            ticket.refuse(ErrorKind::InDoubt(None));
        } else if is_ended && how == How::Executed {
            // Its actor died before it could be told.
            ticket.answer(Said::Reply(Ok(Reply::Accepted)));
        } else if self.waiters.len() >= self.around.limits.waiters_per_key {
            ticket.refuse_to_wait();
        } else {
            ticket.put_down();
            self.waiters.push(ticket);
        }
    }

    pub(super) fn release(&mut self, release: Release) {
        match release {
            Release::Nobody => {}
            Release::Starter(reply) => {
                let started = |ticket: &mut Ticket| ticket.how() == How::Executed;
                let starters = self.waiters.extract_if(.., started);
                starters.for_each(|ticket| ticket.answer(Said::Reply(reply.clone())));
            }
            Release::All(end) => self.waiters.drain(..).for_each(|ticket| {
                let how = ticket.how();
                let outcome = end.clone().map(|answer| Reply::Answer(Outcome { how, answer }));
                ticket.answer(Said::Reply(outcome));
            }),
        }
    }

    /// Nothing runs here any more, so whoever still waits asks anew, before all that has come since: an end that is among that
    /// must find those who wait for it.
    pub(super) fn ask_again(&mut self) {
        if !self.is_live() {
            let waiters = std::mem::take(&mut self.waiters);
            waiters.into_iter().rev().for_each(|ticket| self.deferred.push_front(Cause::Ticket(ticket)));
        }
    }

    /// The write under way goes on being tried; nobody is kept waiting for it, neither who is here nor who comes.
    pub(super) fn stop_waiting(&mut self, error: &Error) {
        let Some(pending) = &mut self.pending else { return };
        pending.unsaved = Some(error.clone());
        let told = pending.early().cloned().unwrap_or_else(|| Err(error.clone()));
        if let Cause::Report(report) = &mut pending.cause {
            report.mark_unsaved(&self.around.meters, &self.around.observers);
        }
        let meanwhile = pending.meanwhile();
        self.note_kept(meanwhile);
        self.release(Release::All(told));
        for mut cause in std::mem::take(&mut self.deferred) {
            cause.take_in_hand();
            self.arrive(cause);
        }
    }

    /// Whoever waits under this number has left. A request that has not been looked at yet runs all the same.
    pub(super) fn abandon(&mut self, waiter: u64) {
        let has_left = |ticket: &Ticket| ticket.question().is_none_or(|question| question.waiter == waiter);
        let left = self.waiters.extract_if(.., |ticket| has_left(ticket));
        left.for_each(|ticket| ticket.refuse(ErrorKind::Closed));
        let is_wait = |ticket: &Ticket| ticket.question().is_some_and(|question| matches!(question.ask, Ask::Track(_)));
        for cause in std::mem::take(&mut self.deferred) {
            match cause {
                Cause::Ticket(ticket) if is_wait(&ticket) && has_left(&ticket) => ticket.refuse(ErrorKind::Closed),
                cause @ (Cause::Ticket(_) | Cause::Report(_) | Cause::Answer(_)) => self.deferred.push_back(cause),
            }
        }
    }

    pub(super) fn drain(&mut self) {
        self.draining = true;
        if !self.is_live() {
            self.release(Release::All(Err(ErrorKind::Closed.into())));
            self.held.drain(..).for_each(|ticket| ticket.refuse(ErrorKind::Closed));
        }
    }
}

/// What a waiter is told that had to ask again: its answer came about as it had been promised.
fn heard_late(how: How, reply: Result<Reply, Error>) -> Result<Reply, Error> {
    match reply {
        Ok(Reply::Answer(outcome)) => Ok(Reply::Answer(Outcome { how, ..outcome })),
        Ok(Reply::Accepted) => Ok(Reply::Accepted),
        // The attempt has ended and been forgotten since: its end is lost to this waiter.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound) => Err(ErrorKind::Internal.into()),
        Err(error) => Err(error),
    }
}

/// Whether a retry is told that its record is in doubt, which somebody may be asked about.
fn is_in_doubt(refusal: &Error) -> bool {
    matches!(refusal.kind(), ErrorKind::Duplicate(Status::InDoubt))
}
