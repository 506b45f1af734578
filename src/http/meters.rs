//! Which refusals and repeats are counted, by the names of [`crate::metrics`].

use super::counts::Ended;
use super::problem::Problem;
use crate::metrics;

pub(super) fn refused(route: &str, problem: Problem) {
    match problem {
        Problem::Mismatch | Problem::Expired => metrics::conflict(route),
        Problem::InFlight(_) | Problem::AnswerNotKept(_) => metrics::duplicate(route),
        Problem::InDoubt | Problem::StoreUnavailable => metrics::ambiguous(route),
        Problem::Quarantined => metrics::quarantined(),
        Problem::KeyMissing
        | Problem::KeyInvalid(_)
        | Problem::NoPrincipal
        | Problem::RequestTooLarge
        | Problem::Busy { .. }
        | Problem::OutcomeUnknown
        | Problem::BodyUnreadable => {}
    }
}

pub(super) fn repeated(route: &str, ended: Ended) {
    metrics::replay(route, ended.name());
}
