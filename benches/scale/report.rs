//! Tables of words and figures: a bar stands beside the figure that it is about.

/// A markdown table, printed whole; each of its rows is told on standard error as soon as it is there.
pub(crate) struct Table {
    title: String,
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, head: &[&'static str]) -> Self {
        Self { title: title.into(), head: head.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: &[String]) {
        eprintln!("  {}", cells.join(" | "));
        self.rows.push(cells.to_vec());
    }

    pub(crate) fn print(&self) {
        println!("\n{}\n\n| {} |", self.title, self.head.join(" | "));
        println!("|---|{}", "---:|".repeat(self.head.len().saturating_sub(1)));
        for row in &self.rows {
            println!("| {} |", row.join(" | "));
        }
    }
}

/// A bar, and whether it was met.
pub(crate) fn bar(words: &str, is_met: bool) -> String {
    format!("{words}: {}", if is_met { "met" } else { "**missed**" })
}

/// The cell of a bar that is not for this row.
pub(crate) fn none() -> String {
    "-".to_owned()
}

/// A figure, if it is a number.
pub(crate) fn shown(value: f64, digits: usize) -> String {
    if value.is_nan() { none() } else { format!("{value:.digits$}") }
}

/// Ten thousand as 10,000.
pub(crate) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let threes: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    threes.join(",")
}

pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1_048_576.0)
}
