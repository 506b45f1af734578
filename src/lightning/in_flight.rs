//! What the adapters ask of the engine about records whose end is still to come.

use crate::{Cursor, Engine, Error, Flow, InvalidRecovery, Listed};

/// An engine that asks nobody about this flow would leave its records in doubt for ever.
pub(super) fn demand_oracle(engine: &Engine, flow: &Flow) -> Result<(), InvalidRecovery> {
    match engine.has_oracle(flow) {
        true => Ok(()),
        false => Err(InvalidRecovery::OracleMissing(flow.name().to_owned())),
    }
}

/// What some entries of the engine's in-flight index show of one flow.
pub(super) struct Page<T> {
    pub(super) shown: Vec<T>,
    /// Entries that do not decode, whosever they are.
    pub(super) quarantined: usize,
    /// Where to go on; `None` at the end.
    pub(super) next: Option<Cursor>,
}

impl<T> Page<T> {
    /// Of `limit` entries behind `after`, those that `show` makes something of.
    pub(super) fn read(
        engine: &Engine,
        after: Option<Cursor>,
        limit: usize,
        show: impl FnMut(&Listed) -> Option<T>,
    ) -> Result<Self, Error> {
        let listed = engine.list(after, limit)?;
        let next = listed.last().filter(|_| listed.len() == limit).map(|last| last.cursor);
        let quarantined = listed.iter().filter(|listed| listed.found.is_none()).count();
        Ok(Self { shown: listed.iter().filter_map(show).collect(), quarantined, next })
    }
}
