//! The Prometheus text of `GET /metrics`, by whole series.

use std::collections::BTreeMap;

/// What `GET /metrics` said: name and labels, as written, and the value.
pub(crate) struct Metrics(pub(crate) BTreeMap<String, f64>);

impl Metrics {
    pub(crate) fn of(text: &str) -> Self {
        let mut series = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("a series: {line}"));
            let value = value.parse().unwrap_or_else(|_| panic!("a value: {line}"));
            assert!(series.insert(name.to_owned(), value).is_none(), "one line per series: {line}");
        }
        Self(series)
    }

    /// The value of `idempotency_<name>` with no other label than the route.
    #[track_caller]
    pub(crate) fn of_route(&self, name: &str, route: &str) -> f64 {
        self.get(&format!("idempotency_{name}{{route=\"{route}\"}}"))
    }

    /// The sum of seven days.
    #[track_caller]
    pub(crate) fn seven_days(&self, route: &str, outcome: &str) -> f64 {
        self.get(&format!("idempotency_7d{{route=\"{route}\",outcome=\"{outcome}\"}}"))
    }

    /// The value of this series, which must be there.
    #[track_caller]
    pub(crate) fn get(&self, series: &str) -> f64 {
        let name = series.split('{').next().unwrap();
        let alike = || self.0.keys().filter(|other| other.starts_with(name)).collect::<Vec<_>>();
        *self.0.get(series).unwrap_or_else(|| panic!("no {series}, only {:?}", alike()))
    }
}
