//! What the benchmarks share: what they ask for, the sides that they compare, and how they count.
//!
//! A benchmark has a `main` that reads [`Asked`] and prints a [`header`](disk::header), then tables by
//! [`Table`](numbers::Table) of rounds in which the sides take turns, then a [`footer`](disk::footer).

#![allow(dead_code, reason = "each benchmark uses a part of it")]

pub(crate) mod bare;
pub(crate) mod disk;
pub(crate) mod load;
pub(crate) mod noting;
pub(crate) mod numbers;
pub(crate) mod process;
pub(crate) mod work;

pub(crate) type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// The arguments of a benchmark: `cargo bench --bench engine -- fresh --quick`.
pub(crate) struct Asked {
    filter: String,
    /// One short round, to see that it runs.
    pub(crate) is_quick: bool,
}

impl Asked {
    pub(crate) fn by_arguments() -> Self {
        let mut asked = Self { filter: String::new(), is_quick: false };
        for argument in std::env::args().skip(1) {
            match argument.as_str() {
                "--quick" => asked.is_quick = true,
                // Cargo says that it is a benchmark.
                option if option.starts_with('-') => {}
                _ => asked.filter = argument,
            }
        }
        asked
    }

    /// Whether this line of a table is asked for.
    pub(crate) fn includes(&self, name: &str) -> bool {
        name.contains(&self.filter)
    }

    pub(crate) fn rounds(&self, full: usize) -> usize {
        if self.is_quick { 1 } else { full }
    }

    /// A tenth of them in a quick run.
    pub(crate) fn count(&self, full: usize) -> usize {
        if self.is_quick { full.div_ceil(10) } else { full }
    }
}

/// A runtime for callers and operations: two threads.
pub(crate) fn host() -> Result<tokio::runtime::Runtime, AnyError> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}
