//! Admission: how many requests may be in flight, over all and per scope. A permit is given back by dropping it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Bound;
use crate::key::Key;

/// The permits of one engine.
#[derive(Debug)]
pub(crate) struct Permits {
    most: usize,
    most_per_scope: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    /// Only scopes with something in flight: memory follows the requests, not the peers.
    by_scope: HashMap<Box<[u8]>, usize>,
}

/// One request in flight.
#[derive(Debug)]
pub(crate) struct Permit {
    permits: Arc<Permits>,
    key: Key,
}

impl Permits {
    pub(crate) fn new(most: usize, most_per_scope: usize) -> Arc<Self> {
        Arc::new(Self { most, most_per_scope, taken: Mutex::default() })
    }

    /// A permit, at once, or which bound stands against one.
    pub(crate) fn take(self: &Arc<Self>, key: &Key) -> Result<Permit, Bound> {
        let mut taken = self.lock();
        if taken.total >= self.most {
            return Err(Bound::Engine);
        }
        match taken.by_scope.get_mut(key.scope()) {
            Some(count) if *count >= self.most_per_scope => return Err(Bound::Scope),
            Some(count) => *count += 1,
            None => drop(taken.by_scope.insert(key.scope().into(), 1)),
        }
        taken.total += 1;
        Ok(Permit { permits: Arc::clone(self), key: key.clone() })
    }

    pub(crate) fn taken(&self) -> usize {
        self.lock().total
    }

    /// Counts stay sound across a panic elsewhere: nothing in here can panic between two of its writes.
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut taken = self.permits.lock();
        taken.total = taken.total.saturating_sub(1);
        if let Some(count) = taken.by_scope.get_mut(self.key.scope()) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.by_scope.remove(self.key.scope());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_scope_leaves_room_for_others_until_the_total_is_reached() {
        let permits = Permits::new(3, 2);
        let key = |scope: &[u8]| Key::new("f", scope, b"id").unwrap();
        let held: Vec<_> = (0..2).map(|_| permits.take(&key(b"a")).unwrap()).collect();
        assert_eq!(permits.take(&key(b"a")).unwrap_err(), Bound::Scope, "scope a is full");
        let other = permits.take(&key(b"b")).unwrap();
        assert_eq!(permits.take(&key(b"c")).unwrap_err(), Bound::Engine, "the engine is full");
        drop((held, other));
        assert_eq!(permits.taken(), 0);
        assert!(permits.lock().by_scope.is_empty(), "no memory of idle scopes");
    }
}
