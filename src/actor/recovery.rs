//! At opening: what an earlier boot left registered is in doubt, and says so in the store before anything is served.

use crate::machine;
use crate::observe::{Event, Observers};
use crate::record::{Record, Status};
use crate::store::{Batch, Change, Store, StoreError, Version};
use crate::time::UnixMillis;

/// Entries of the in-flight index in one transaction.
const SLICE: usize = 1_024;

/// Marks every registered record as in doubt, in slices, and says which are; reads the in-flight index only.
///
/// Nothing depends on its having run: a registered record that nothing runs for reads as in doubt anyway. It makes the
/// states that people see, and the count of interrupted re-runs, agree with that.
pub(crate) fn interrupt_all(store: &dyn Store, now: UnixMillis, observers: &Observers) -> Result<(), StoreError> {
    let (mut after, mut interrupted) = (None, 0);
    loop {
        let entries = store.in_flight(after, SLICE)?;
        let Some(last) = entries.last() else { break };
        after = Some(last.cursor);
        let found: Vec<_> = entries.into_iter().filter_map(|entry| entry.found).collect();
        let changes: Vec<_> = found
            .iter()
            .filter_map(|(key, record)| {
                let expected = Some(Version::of(record));
                machine::interrupt(record, now).map(|put| Change {
                    key: key.clone(),
                    expected,
                    put: Some(Box::new(put)),
                    rows: Vec::new(),
                })
            })
            .collect();
        if !changes.is_empty() {
            interrupted += changes.len() as u64;
            store.commit(&Batch { now, records_per_scope: u64::MAX, changes, ..Batch::default() })?;
        }
        let is_in_doubt = |record: &Record| matches!(record.state.status(), Status::Registered | Status::InDoubt);
        let in_doubt = found.iter().filter(|(_, record)| is_in_doubt(record));
        in_doubt.for_each(|(key, _)| observers.tell(Event::InDoubt { key }));
    }
    if interrupted > 0 {
        tracing::warn!(interrupted, "records of an earlier boot are in doubt");
    }
    Ok(())
}
