//! A referee that counts what operations do to the world.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts effects by name. Clones share the counts: one goes into each operation, one stays with the test.
///
/// It stands for the world outside, so it outlives engines and their crashes; what it has counted twice has been paid twice.
#[derive(Clone, Debug, Default)]
pub struct Effects(Arc<Mutex<BTreeMap<String, u64>>>);

impl Effects {
    /// None so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one more effect of this name; says how many there are now.
    pub fn note(&self, name: impl Into<String>) -> u64 {
        let mut counts = self.lock();
        let count = counts.entry(name.into()).or_default();
        *count += 1;
        *count
    }

    /// How many effects of this name there were.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.lock().get(name).copied().unwrap_or_default()
    }

    /// All names with their counts, in order.
    #[must_use]
    pub fn all(&self) -> Vec<(String, u64)> {
        self.lock().iter().map(|(name, count)| (name.clone(), *count)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
