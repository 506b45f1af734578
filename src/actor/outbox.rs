//! What the key actors of one round have for others: it leaves in one message, not in one for each.
//!
//! A round is what was due on this thread when the first of them had something to say. The news of it stands in the router's
//! mailbox then, behind all that has arrived and before all that will: no timer, and nobody waits for more than what was
//! there already. A batch comes out fuller, too, than when the first proposal sets off a commit of its own.

use std::cell::{Cell, RefCell};

use super::message::{Idle, Proposal, RoundEnds, RouterAddr};

pub(super) struct Outbox {
    /// Guards, each of them: dropped with this, they go back to the router.
    proposals: RefCell<Vec<Proposal>>,
    idle: RefCell<Vec<Idle>>,
    is_announced: Cell<bool>,
    router: RouterAddr,
}

impl Outbox {
    pub(super) fn new(router: RouterAddr) -> Self {
        Self { proposals: RefCell::default(), idle: RefCell::default(), is_announced: Cell::new(false), router }
    }

    pub(super) fn propose(&self, proposal: Proposal) {
        self.proposals.borrow_mut().push(proposal);
        self.announce();
    }

    pub(super) fn note_idle(&self, idle: Idle) {
        self.idle.borrow_mut().push(idle);
        self.announce();
    }

    fn announce(&self) {
        if !self.is_announced.replace(true) {
            self.router.do_send(RoundEnds);
        }
    }

    /// What has gathered, in order.
    pub(super) fn take(&self) -> (Vec<Proposal>, Vec<Idle>) {
        self.is_announced.set(false);
        (take(&self.proposals), take(&self.idle))
    }
}

/// The next round is likely to be as large as this one.
fn take<T>(gathered: &RefCell<Vec<T>>) -> Vec<T> {
    let mut gathered = gathered.borrow_mut();
    let next = Vec::with_capacity(gathered.len());
    std::mem::replace(&mut *gathered, next)
}
