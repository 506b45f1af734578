//! What is printed: where it ran, and a line for each peer and workload.

use std::path::Path;
use std::time::Duration;

use crate::drive::{Contender, Run, Workload};
use crate::{AnyError, disk};

/// The rounds of one peer.
pub(crate) struct Line {
    pub(crate) workload: Workload,
    pub(crate) callers: usize,
    pub(crate) peer: String,
    pub(crate) beside: &'static str,
    /// With the number of the round.
    pub(crate) runs: Vec<(usize, Run)>,
}

impl Line {
    pub(crate) fn new(workload: Workload, callers: usize, peer: &dyn Contender, round: usize, run: Run) -> Self {
        Self { workload, callers, peer: peer.name().to_owned(), beside: peer.beside(), runs: vec![(round, run)] }
    }

    /// The median over the rounds that both have, of their rates in the same round.
    fn ratio(&self, lines: &[Self]) -> Option<f64> {
        let beside = lines
            .iter()
            .find(|line| line.peer == self.beside && line.workload == self.workload && line.callers == self.callers)?;
        median(self.runs.iter().filter_map(|(round, run)| {
            let (_, other) = beside.runs.iter().find(|(same, _)| same == round)?;
            Some(other.rate / run.rate)
        }))
    }
}

/// The machine, its disk and its file system.
pub(crate) fn place(directory: &Path) -> Result<(), AnyError> {
    let cores = std::thread::available_parallelism()?;
    let system = disk::file_system(directory).unwrap_or_else(|| "unknown".to_owned());
    println!(
        "{cores} cores; files on {system}; fsync (4 KiB + fdatasync), median: {}",
        shown(disk::sync_median(directory)?)
    );
    if system == "tmpfs" {
        println!("A file system in memory: nothing here says anything about a disk.");
    }
    Ok(())
}

pub(crate) fn print(lines: &[Line]) {
    println!("\n| workload | callers | peer | rounds | answers/s | p50 | p99 | ibid / peer |");
    println!("|---|---:|---|---:|---:|---:|---:|---:|");
    for line in lines {
        let Line { workload, callers, peer, .. } = line;
        let number =
            |value: Option<f64>, digits: usize| value.map_or_else(|| "-".to_owned(), |n| format!("{n:.digits$}"));
        let rate = number(median(line.runs.iter().map(|(_, run)| run.rate)), 0);
        let p50 = median(line.runs.iter().map(|(_, run)| run.p50.as_secs_f64())).map(Duration::from_secs_f64);
        let p99 = median(line.runs.iter().map(|(_, run)| run.p99.as_secs_f64())).map(Duration::from_secs_f64);
        let time = |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), shown);
        let ratio = if line.peer == line.beside { "-".to_owned() } else { number(line.ratio(lines), 2) };
        let workload = format!("{workload:?}").to_lowercase();
        println!(
            "| {workload} | {callers} | {peer} | {} | {rate} | {} | {} | {ratio} |",
            line.runs.len(),
            time(p50),
            time(p99)
        );
    }
}

/// Three digits are enough.
pub(crate) fn shown(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds if seconds >= 1e-3 => format!("{:.2} ms", seconds * 1e3),
        seconds => format!("{:.1} us", seconds * 1e6),
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
