//! The README says what the example does, and the example does what the README says.

use std::path::Path;
use std::process::Command;

use crate::support::example;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_readmes_example_is_the_quickstart() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let block = readme.split("```rust,no_run\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let example = std::fs::read_to_string(root().join("examples/quickstart.rs")).unwrap();
    let code: String =
        example.lines().filter(|line| !line.starts_with("//!")).map(|line| format!("{line}\n")).collect();
    assert_eq!(block.trim(), code.trim());
    assert!(block.lines().count() <= 15, "the first screen has room for 15 lines");
}

#[test]
fn the_quickstart_run_twice_prints_executed_then_replayed() {
    let dir = tempfile::tempdir().unwrap();
    for expected in ["executed: receipt 4711\n", "replayed: receipt 4711\n"] {
        let run = Command::new(example("quickstart")).current_dir(dir.path()).output().unwrap();
        assert!(run.status.success(), "{run:?}");
        assert_eq!(String::from_utf8(run.stdout).unwrap(), expected);
    }
}
