//! A store over another one: what it does not say otherwise goes through.

use crate::key::Key;
use crate::ledger::StoredRow;
use crate::record::{Bytes, Record};
use crate::store::{Batch, Cursor, Entry, ExpiredRow, Store, StoreError, Totals, Verdict};
use crate::time::UnixMillis;

/// A [`Store`] over another one, for tests that watch what passes or make it fail. Every method passes on to the store
/// [below](Self::below) until it is overridden, and whatever implements this is a store.
///
/// The methods are those of [`Store`], with its promises and its errors. Where both traits are in scope, a call on the value
/// itself is ambiguous; one through a `&dyn Store` is not.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use ibid::store::{Batch, MemoryStore, Store, StoreError, Verdict};
/// use ibid::testing::Layer;
///
/// #[derive(Default)]
/// struct Counting {
///     below: MemoryStore,
///     commits: AtomicU64,
/// }
///
/// impl Layer for Counting {
///     fn below(&self) -> &dyn Store {
///         &self.below
///     }
///
///     fn commit(&self, batch: &Batch) -> Result<Vec<Verdict>, StoreError> {
///         self.commits.fetch_add(1, Ordering::Relaxed);
///         self.below.commit(batch)
///     }
/// }
///
/// let store = Counting::default();
/// Store::commit(&store, &Batch::default())?;
/// assert_eq!(store.commits.into_inner(), 1);
/// # Ok::<(), StoreError>(())
/// ```
#[expect(clippy::missing_errors_doc, reason = "they are the errors of the same methods of `Store`")]
pub trait Layer: Send + Sync + 'static {
    /// The store that it is over.
    fn below(&self) -> &dyn Store;

    /// All that reads goes through here: every method from [`get`](Self::get) to [`generation`](Self::generation).
    fn read<T>(&self, read: impl FnOnce(&dyn Store) -> Result<T, StoreError>) -> Result<T, StoreError> {
        read(self.below())
    }

    /// [`Store::commit`].
    fn commit(&self, batch: &Batch) -> Result<Vec<Verdict>, StoreError> {
        self.below().commit(batch)
    }

    /// [`Store::get`].
    fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.read(|below| below.get(key))
    }

    /// [`Store::in_flight`].
    fn in_flight(&self, after: Option<Cursor>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.read(|below| below.in_flight(after, limit))
    }

    /// [`Store::removable`].
    fn removable(&self, now: UnixMillis, tick: u64, limit: usize) -> Result<Vec<(Key, Record)>, StoreError> {
        self.read(|below| below.removable(now, tick, limit))
    }

    /// [`Store::row`].
    fn row(&self, table: &str, key: &[u8]) -> Result<Option<StoredRow>, StoreError> {
        self.read(|below| below.row(table, key))
    }

    /// [`Store::rows`].
    fn rows(&self, table: &str, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, StoredRow)>, StoreError> {
        self.read(|below| below.rows(table, after, limit))
    }

    /// [`Store::row_keys`].
    fn row_keys(&self, table: &str, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>, StoreError> {
        self.read(|below| below.row_keys(table, after, limit))
    }

    /// [`Store::expired_rows`].
    fn expired_rows(&self, now: UnixMillis, limit: usize) -> Result<Vec<ExpiredRow>, StoreError> {
        self.read(|below| below.expired_rows(now, limit))
    }

    /// [`Store::records_in_scope`].
    fn records_in_scope(&self, scope: &[u8]) -> Result<u64, StoreError> {
        self.read(|below| below.records_in_scope(scope))
    }

    /// [`Store::totals`].
    fn totals(&self) -> Result<Totals, StoreError> {
        self.read(<dyn Store>::totals)
    }

    /// [`Store::clock_mark`].
    fn clock_mark(&self) -> Result<UnixMillis, StoreError> {
        self.read(<dyn Store>::clock_mark)
    }

    /// [`Store::tick_mark`].
    fn tick_mark(&self) -> Result<u64, StoreError> {
        self.read(<dyn Store>::tick_mark)
    }

    /// [`Store::generation`].
    fn generation(&self) -> Result<u64, StoreError> {
        self.read(<dyn Store>::generation)
    }

    /// [`Store::rest`].
    fn rest(&self) -> Result<(), StoreError> {
        self.below().rest()
    }

    /// [`Store::reopen`].
    fn reopen(&self) -> Result<(), StoreError> {
        self.below().reopen()
    }

    /// [`Store::close`].
    fn close(&self) -> Result<(), StoreError> {
        self.below().close()
    }
}

impl<T: Layer> Store for T {
    fn commit(&self, batch: &Batch) -> Result<Vec<Verdict>, StoreError> {
        Layer::commit(self, batch)
    }

    fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        Layer::get(self, key)
    }

    fn in_flight(&self, after: Option<Cursor>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        Layer::in_flight(self, after, limit)
    }

    fn removable(&self, now: UnixMillis, tick: u64, limit: usize) -> Result<Vec<(Key, Record)>, StoreError> {
        Layer::removable(self, now, tick, limit)
    }

    fn row(&self, table: &str, key: &[u8]) -> Result<Option<StoredRow>, StoreError> {
        Layer::row(self, table, key)
    }

    fn rows(&self, table: &str, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, StoredRow)>, StoreError> {
        Layer::rows(self, table, after, limit)
    }

    fn row_keys(&self, table: &str, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>, StoreError> {
        Layer::row_keys(self, table, after, limit)
    }

    fn expired_rows(&self, now: UnixMillis, limit: usize) -> Result<Vec<ExpiredRow>, StoreError> {
        Layer::expired_rows(self, now, limit)
    }

    fn records_in_scope(&self, scope: &[u8]) -> Result<u64, StoreError> {
        Layer::records_in_scope(self, scope)
    }

    fn totals(&self) -> Result<Totals, StoreError> {
        Layer::totals(self)
    }

    fn clock_mark(&self) -> Result<UnixMillis, StoreError> {
        Layer::clock_mark(self)
    }

    fn tick_mark(&self) -> Result<u64, StoreError> {
        Layer::tick_mark(self)
    }

    fn generation(&self) -> Result<u64, StoreError> {
        Layer::generation(self)
    }

    fn rest(&self) -> Result<(), StoreError> {
        Layer::rest(self)
    }

    fn reopen(&self) -> Result<(), StoreError> {
        Layer::reopen(self)
    }

    fn close(&self) -> Result<(), StoreError> {
        Layer::close(self)
    }
}
