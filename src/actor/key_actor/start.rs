//! How an operation comes to start: registered first, or held in memory.

use std::sync::Arc;

use super::{Cause, KeyActor, Loaded, Pending, Surroundings};
use crate::actor::message::{Ask, Ticket};
use crate::actor::saver::Saver;
use crate::attempt::Attempt;
use crate::error::ErrorKind;
use crate::machine::{Step, Write};
use crate::outcome::How;
use crate::record::Record;
use crate::store::StoreError;

impl KeyActor {
    /// Where the caller has just found the key absent, its registration is proposed without looking again: if that is no
    /// longer so, the write is fenced off and decided anew. What writes nothing is not decided on old news: one that is to be held
    /// looks again by itself.
    pub(super) fn register_unread(&mut self, cause: Cause, tries: u8) -> Option<Cause> {
        let (Loaded::NotYet, Cause::Ticket(ticket)) = (&self.record, &cause) else { return Some(cause) };
        if tries > 0 || !ticket.question().is_some_and(|question| question.found_absent) {
            return Some(cause);
        }
        match (self.step_of_ticket(ticket, None), cause) {
            (Some(step), cause) if matches!(step.write, Write::Put(_)) => {
                self.propose(Pending::new(cause, step, tries));
                None
            }
            (Some(step), Cause::Ticket(ticket)) if matches!(step.write, Write::Hold(_)) => {
                self.start_held(ticket, step, tries);
                None
            }
            (_, cause) => Some(cause),
        }
    }

    /// Starts the operation of a record that is not written. No compare would show that this was decided on old news, so the store
    /// is read for it here and now; and where a write of a dead actor may be on its way there, it is written after all.
    pub(super) fn start_held(&mut self, ticket: Ticket, step: Step, tries: u8) {
        self.record = Loaded::NotYet;
        if let Err(error) = self.check_up().and_then(|()| self.load()) {
            return self.give_up(Cause::Ticket(ticket), &error);
        }
        if self.stored().is_some() {
            return self.decide(Cause::Ticket(ticket), tries + 1);
        }
        let Surroundings { running, store, limits, .. } = &*self.around;
        let record = match step.write {
            Write::Hold(record) if !running.has_dead_writer(&self.origin.key) => record,
            _ => return self.propose(Pending::new(Cause::Ticket(ticket), step.registering(), tries)),
        };
        match store.records_in_scope(self.origin.key.scope()) {
            Ok(records) if records >= limits.records_per_scope => ticket.refuse(ErrorKind::QuotaExceeded),
            Ok(_) => self.start(ticket, Some(record)),
            Err(error) => self.give_up(Cause::Ticket(ticket), &error),
        }
    }

    /// What a registration would find out by failing.
    fn check_up(&self) -> Result<(), StoreError> {
        if !self.around.supervisor.connected() {
            return Err(StoreError::Closed);
        }
        match self.around.meters.is_down() {
            true => Err(StoreError::Io(Arc::new(std::io::Error::other("the store is down")))),
            false => Ok(()),
        }
    }

    /// Starts the operation of the record just written, or of this one, which is not.
    pub(super) fn start(&mut self, mut ticket: Ticket, held: Option<Arc<Record>>) {
        let (Some(record), Some(question)) = (held.as_ref().or(self.shared()), ticket.question_mut()) else { return };
        let (Ask::Admit(_, operation) | Ask::Rerun { operation, .. }) = &mut question.ask else { return };
        let Some(operation) = operation.take() else { return ticket.refuse(ErrorKind::Internal) };
        let Surroundings { running, router, limits, .. } = &*self.around;
        let (flow, key) = (&question.flow, &question.key);
        if !running.may_start(key) {
            return ticket.refuse(ErrorKind::Closed);
        }
        let saver = Saver::new(flow, key, limits.answer_bytes, router);
        let attempt = Attempt::new(Arc::clone(record), saver);
        if matches!(question.ask, Ask::Rerun { .. }) {
            self.around.inquiries.count_rerun();
        }
        running.start((flow, key), attempt, operation, question.permit.take(), held, router);
        self.wait(ticket, How::Executed);
    }
}
