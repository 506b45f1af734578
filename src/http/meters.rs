//! Which refusals and repeats are counted, by the names of [`crate::metrics`].

use super::problem::Problem;
use crate::{How, metrics};

pub(super) fn refused(route: &str, problem: Problem) {
    match problem {
        Problem::Mismatch | Problem::Expired => metrics::count_conflict(route),
        Problem::InFlight(_) | Problem::AnswerNotKept(_) => metrics::count_duplicate(route),
        Problem::InDoubt | Problem::StoreUnavailable => metrics::count_ambiguous(route),
        Problem::Quarantined => metrics::count_quarantined(),
        Problem::KeyMissing
        | Problem::KeyInvalid(_)
        | Problem::NoPrincipal
        | Problem::RequestTooLarge
        | Problem::Busy { .. }
        | Problem::OutcomeUnknown
        | Problem::BodyUnreadable => {}
    }
}

/// An executed one is counted by whoever hears it start.
pub(super) fn answered(route: &str, how: How) {
    metrics::count_replay(route, how);
}
