//! Medians, percentiles, and tables of them.

use std::time::Duration;

/// Of an even number of values the upper of the two in the middle; of none, none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(crate) fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

pub(crate) fn micros(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}

/// How long many of the same took, in order.
pub(crate) struct Spread(Vec<Duration>);

impl Spread {
    pub(crate) fn of(mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        Self(took)
    }

    /// The shortest time that this many per cent of them took at most, in microseconds; of none, not a number.
    pub(crate) fn micros_at(&self, percent: f64) -> f64 {
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).map_or(f64::NAN, |took| micros(*took))
    }

    pub(crate) fn p50(&self) -> f64 {
        self.micros_at(50.0)
    }

    pub(crate) fn p99(&self) -> f64 {
        self.micros_at(99.0)
    }

    /// In microseconds.
    pub(crate) fn longest(&self) -> f64 {
        self.micros_at(100.0)
    }

    pub(crate) fn total(&self) -> Duration {
        self.0.iter().sum()
    }
}

/// A markdown table on standard output. Each line of it is the medians of its rounds, column by column; so a ratio is the median
/// of the ratios of the rounds, and not a ratio of medians.
pub(crate) struct Table<const N: usize> {
    title: &'static str,
    /// Their names, and how many digits they have behind the point.
    columns: [(&'static str, usize); N],
    is_begun: bool,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(title: &'static str, columns: [(&'static str, usize); N]) -> Self {
        Self { title, columns, is_begun: false }
    }

    /// Prints a line, the first time behind the head of the table. A figure that is not a number is shown as `-`.
    pub(crate) fn row(&mut self, name: &str, rounds: &[[f64; N]]) {
        if !self.is_begun {
            self.is_begun = true;
            let names: Vec<_> = self.columns.iter().map(|(name, _)| *name).collect();
            println!("\n| {} | {} |\n|---|{}", self.title, names.join(" | "), "---:|".repeat(N));
        }
        let cell = |(at, (_, digits)): (usize, &(&str, usize))| {
            let value = median(rounds.iter().filter_map(|round| round.get(at).copied()));
            if value.is_nan() { "-".to_owned() } else { format!("{value:.digits$}") }
        };
        let cells: Vec<_> = self.columns.iter().enumerate().map(cell).collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
}
