//! At opening: what an earlier boot left registered is in doubt, and says so in the store before anything is served.

use std::sync::Arc;

use crate::key::Key;
use crate::machine;
use crate::observe::{Event, Observers};
use crate::record::Status;
use crate::store::{Batch, Change, Entry, Store, StoreError, Version};
use crate::time::UnixMillis;

/// Entries of the in-flight index that are read at once.
const SLICE: usize = 1_024;
/// A transaction takes in slice after slice until it has so many entries, or so many bytes of requests and checkpoints.
const BATCH: usize = 16_384;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Marks every registered record as in doubt, in slices, and says which are; reads the in-flight index only.
///
/// Nothing depends on its having run: a registered record that nothing runs for reads as in doubt anyway. It makes the
/// states that people see, and the count of interrupted re-runs, agree with that.
pub(crate) fn interrupt_all(store: &dyn Store, now: UnixMillis, observers: &Observers) -> Result<(), StoreError> {
    let (mut after, mut interrupted, mut marks) = (None, 0, Marks::default());
    loop {
        let entries = store.in_flight(after, SLICE)?;
        after = entries.last().map(|entry| entry.cursor);
        entries.into_iter().for_each(|entry| marks.add(entry, now));
        if after.is_none() || marks.is_full() {
            interrupted += std::mem::take(&mut marks).commit(store, now, observers)?;
        }
        if after.is_none() {
            break;
        }
    }
    if interrupted > 0 {
        tracing::warn!(interrupted, "records of an earlier boot are in doubt");
    }
    Ok(())
}

/// What one transaction marks.
#[derive(Default)]
struct Marks {
    changes: Vec<Change>,
    /// Of records in doubt, those that have been so before included.
    in_doubt: Vec<Key>,
    entries: usize,
    bytes: usize,
}

impl Marks {
    fn is_full(&self) -> bool {
        self.entries >= BATCH || self.bytes >= BATCH_BYTES
    }

    fn add(&mut self, Entry { cursor, found }: Entry, now: UnixMillis) {
        let Some((key, record)) = found else { return };
        self.entries += 1;
        if let Some(put) = machine::interrupt(&record, now) {
            self.bytes += record.request.len() + record.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.len());
            let (put, expected) = (Some(Arc::new(put)), Some(Version::of(&record)));
            // Looking each up would read as many pages of a big index, from a file that nobody has read from yet.
            self.changes.push(Change { listed_at: Some(cursor), ..Change::new(key.clone(), expected, put) });
        }
        if matches!(record.state.status(), Status::Registered | Status::InDoubt) {
            self.in_doubt.push(key);
        }
    }

    /// Returns how many were marked.
    fn commit(self, store: &dyn Store, now: UnixMillis, observers: &Observers) -> Result<u64, StoreError> {
        let Self { changes, in_doubt, .. } = self;
        let interrupted = changes.len() as u64;
        if interrupted > 0 {
            store.commit(&Batch { now, records_per_scope: u64::MAX, changes, ..Batch::default() })?;
        }
        in_doubt.iter().for_each(|key| observers.tell(Event::InDoubt { key }));
        Ok(interrupted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::Fingerprint;
    use crate::record::{AttemptId, BootId, Record, State, Token};
    use crate::store::MemoryStore;

    fn registered(request_bytes: usize) -> Record {
        let request = vec![b'r'; request_bytes];
        Record {
            revision: 1,
            fingerprint: Fingerprint::of("flow", &request),
            request: request.into(),
            attempt: AttemptId { number: 1, boot: BootId([1; 16]), token: Token([2; 32]) },
            state: State::Registered,
            checkpoint: None,
            recoveries: 0,
            created_at: UnixMillis(1),
            updated_at: UnixMillis(1),
            expires_at: None,
            lapses_at: None,
            tombstone_until: None,
            contradiction: None,
            lapses_at_tick: None,
            abandoned: false,
        }
    }

    /// How many transactions it takes to say of so many records that they are in doubt.
    fn transactions(count: u64, request_bytes: usize) -> u64 {
        let store = MemoryStore::new();
        let changes = (0..count).map(|number| {
            let key = Key::new("flow", b"scope", &number.to_be_bytes()).unwrap();
            Change::new(key, None, Some(Arc::new(registered(request_bytes))))
        });
        let now = UnixMillis(1);
        let batch = Batch { now, records_per_scope: u64::MAX, changes: changes.collect(), ..Batch::default() };
        store.commit(&batch).unwrap();
        let before = store.generation().unwrap();
        interrupt_all(&store, now, &Observers::of(Vec::new())).unwrap();
        let totals = store.totals().unwrap();
        assert_eq!((totals.in_doubt, totals.registered), (count, 0));
        store.generation().unwrap() - before
    }

    #[test]
    fn as_many_as_may_be_in_flight_are_in_doubt_by_one_transaction_that_stays_small() {
        assert_eq!(transactions(0, 120), 0);
        assert_eq!(transactions(1, 120), 1);
        assert_eq!(transactions(10_000, 120), 1);
        assert_eq!(transactions(16_385, 0), 2);
        assert_eq!(transactions(1_025, 8 * 1_024), 2, "a slice of 8 MiB is a transaction of its own");
    }
}
