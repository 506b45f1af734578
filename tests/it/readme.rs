//! The README says what the example does, and the example does what the README says. Its counts are counted anew.

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

/// The number right before these words.
fn number_before(readme: &str, words: &str) -> usize {
    let (before, _) = readme.split_once(words).expect(words);
    before.split_whitespace().next_back().unwrap().parse().expect(words)
}

#[test]
fn the_planted_bugs_are_as_many_as_it_says() {
    let (readme, planted) = (std::fs::read_to_string(root().join("README.md")).unwrap(), root().join(".ci"));
    let told = number_before(&readme, " bugs planted beside the code");
    // The packaged crate is without it.
    if planted.exists() {
        let bugs = std::fs::read_to_string(planted.join("planted/bugs.toml")).unwrap();
        assert_eq!(told, bugs.lines().filter(|line| *line == "[[bug]]").count());
    }
}

#[test]
fn the_black_box_tests_are_as_many_as_it_says() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let mut scenarios = 0;
    for entry in std::fs::read_dir(root().join("tests/http")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        assert!(!source.contains("#[test]"), "{}: a test that is no scenario of both servers", path.display());
        let listed = source.split("both![").skip(1).filter_map(|rest| rest.split(']').next());
        scenarios += listed.flat_map(|names| names.split(',')).filter(|name| !name.trim().is_empty()).count();
    }
    assert_eq!(number_before(&readme, " black-box tests over real sockets"), scenarios);
}
