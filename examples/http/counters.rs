//! What the handlers of this process have done.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

#[derive(Default)]
pub(crate) struct Counters(Mutex<Counts>);

#[derive(Default, Serialize)]
struct Counts {
    started: u64,
    effects: u64,
    finished: u64,
    /// Starts.
    routes: BTreeMap<&'static str, u64>,
}

impl Counters {
    /// One more start, and how many of this route there have been.
    pub(crate) fn start(&self, route: &'static str) -> u64 {
        let mut counts = self.counts();
        counts.started += 1;
        let of_route = counts.routes.entry(route).or_default();
        *of_route += 1;
        *of_route
    }

    pub(crate) fn note_effect(&self) {
        self.counts().effects += 1;
    }

    pub(crate) fn finish(&self) {
        self.counts().finished += 1;
    }

    /// `{"started":3,"effects":3,"finished":3,"routes":{"POST /pay":2,"POST /refund":1}}`
    pub(crate) fn to_json(&self) -> String {
        super::json(&*self.counts())
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_read_as_the_page_says() {
        let counters = Counters::default();
        assert_eq!(counters.to_json(), r#"{"started":0,"effects":0,"finished":0,"routes":{}}"#);
        for (route, n) in [("POST /pay", 1), ("POST /refund", 1), ("POST /pay", 2)] {
            assert_eq!(counters.start(route), n);
        }
        counters.note_effect();
        counters.note_effect();
        counters.finish();
        let expected = r#"{"started":3,"effects":2,"finished":1,"routes":{"POST /pay":2,"POST /refund":1}}"#;
        assert_eq!(counters.to_json(), expected);
    }
}
