//! What becomes of one change: the part of a commit that every store has in common.

use super::{Change, Verdict, Version};
use crate::record::Record;

/// Decides one change before anything is written: on the record that is there now, and on how many records its scope has.
///
/// `Ok` says that the change goes through.
pub(super) fn decide(
    change: &Change,
    current: Option<&Record>,
    records_in_scope: u64,
    records_per_scope: u64,
) -> Result<(), Verdict> {
    if change.expected != current.map(Version::of) {
        return Err(Verdict::Fenced);
    }
    let adds = current.is_none() && change.put.is_some();
    if adds && records_in_scope >= records_per_scope {
        return Err(Verdict::QuotaExceeded);
    }
    Ok(())
}
