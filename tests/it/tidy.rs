//! Reads the sources and names each word out of place: the layers, the clock, the words we don't use.

use std::path::{Path, PathBuf};

const VALUES: [&str; 11] =
    ["bounds", "class", "error", "fingerprint", "inquiry", "key", "ledger", "outcome", "policy", "record", "time"];
const TOP_LEVEL: [&str; 15] = [
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "CHANGELOG.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "clippy.toml",
    "deny.toml",
    "rustfmt.toml",
    "benches",
    "examples",
    "src",
    "target",
    "tests",
    "fuzz",
];

/// One source: its path below the root, its lines as code without comments, and its comments.
struct Source {
    path: String,
    code: Vec<String>,
    comments: Vec<String>,
    text: String,
}

impl Source {
    fn read(root: &Path, path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let split = |line: &str| match line.find("//").filter(|at| !line[..*at].ends_with(':')) {
            Some(at) => (line[..at].to_owned(), line[at..].to_owned()),
            None => (line.to_owned(), String::new()),
        };
        let (code, comments) = text.lines().map(split).unzip();
        let path = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
        Self { path, code, comments, text }
    }

    fn is_in(&self, place: &str) -> bool {
        self.path.starts_with(place)
    }

    fn is_value(&self) -> bool {
        VALUES.iter().any(|name| self.path == format!("src/{name}.rs"))
    }

    /// Tests of a layer may look beyond it.
    fn is_test(&self) -> bool {
        self.is_in("tests/") || self.path.contains("/tests") || self.is_in("src/testing/")
    }

    /// The words that must not stand in its code.
    fn forbidden(&self) -> Vec<&'static str> {
        let mut words = vec!["todo!(", "unimplemented!("];
        // A benchmark measures real time and looks into the file; a simulation makes its own time.
        let measures = self.is_in("benches/") || self.is_in("tests/peers/");
        let makes_time = self.path == "src/testing/simulation.rs";
        if self.path != "src/time.rs" && !measures && !makes_time {
            words.extend(["SystemTime::now", "Instant::now"]);
        }
        if self.is_test() {
            words.extend(["thread::sleep", "#[ignore"]);
            if !makes_time {
                words.push("time::sleep");
            }
            return words;
        }
        if self.is_value() || self.is_in("src/machine/") {
            words.extend([
                "actix",
                "tokio",
                "redb",
                "postcard",
                "tracing",
                "async ",
                "std::fs",
                "std::net",
                "std::thread",
            ]);
        }
        if self.is_in("src/machine/") {
            words.extend(["rand::", "HashMap", ".now()"]);
        }
        if self.is_in("src/store/") {
            words.extend(["actix", "tokio"]);
        } else if !self.path.ends_with("builder.rs") && !self.path.ends_with("lib.rs") && !measures {
            words.extend(["redb::", "postcard"]);
        }
        if self.is_in("src/") && !self.is_in("src/actor/") {
            words.push("actix::");
        }
        if self.is_in("src/actor/key_actor") {
            words.extend(["async", "await", "AtomicResponse", "ResponseActFuture", "ctx.wait", "ctx.stop"]);
        }
        let is_adapter = self.is_in("src/lightning/") || self.is_in("src/http/");
        if is_adapter || self.path == "src/ldk.rs" || self.path == "src/metrics.rs" || self.is_in("examples/") {
            words.extend(["crate::machine", "crate::store", "crate::actor"]);
        }
        words
    }

    fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        let at = |line: usize, what: &str| format!("{}:{}: {what}", self.path, line + 1);
        for (number, line) in self.code.iter().enumerate() {
            // What follows is for tests.
            if line.contains("#[cfg(test)]")
                && !self.is_test()
                && self.code.get(number + 1).is_some_and(|l| l.contains('{'))
            {
                break;
            }
            complaints.extend(self.forbidden().iter().filter(|word| line.contains(*word)).map(|word| at(number, word)));
        }
        for (number, comment) in self.comments.iter().enumerate() {
            let unfinished = ["TODO", "FIXME", "XXX"].into_iter().find(|word| comment.contains(word));
            complaints.extend(unfinished.map(|word| at(number, word)));
            if says_plain_sweep(comment) {
                complaints.push(at(number, "say 'expiry sweep': Lightning sweeps coins"));
            }
        }
        if !self.text.starts_with("//!") && !self.text.starts_with("#!") {
            complaints.push(at(0, "begins without //!"));
        }
        complaints
    }
}

fn says_plain_sweep(prose: &str) -> bool {
    let prose = prose.to_lowercase();
    prose.match_indices("sweep").any(|(at, _)| {
        let before = prose[..at].trim_end_matches(['`', '_', ' ', '-']);
        !before.ends_with("expiry")
    })
}

fn sources(root: &Path, dir: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = vec![root.join(dir)];
    while let Some(dir) = open.pop() {
        let Ok(entries) = std::fs::read_dir(dir) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(Source::read(root, &path));
            }
        }
    }
    found
}

#[test]
fn every_word_is_in_its_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources: Vec<_> =
        ["src", "tests", "examples", "benches"].into_iter().flat_map(|dir| sources(root, dir)).collect();
    assert!(sources.len() > 40, "the sources were found");
    // This file names what it forbids.
    let complaints: Vec<_> =
        sources.iter().filter(|source| source.path != "tests/it/tidy.rs").flat_map(Source::complaints).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn the_prose_says_expiry_sweep() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["README.md", "CHANGELOG.md"] {
        let text = std::fs::read_to_string(root.join(name)).unwrap();
        let plain: Vec<_> = text.lines().filter(|line| says_plain_sweep(line)).collect();
        assert!(plain.is_empty(), "{name}: {plain:?}");
    }
    assert!(says_plain_sweep("the sweep") && !says_plain_sweep("the expiry sweep, an `expiry_sweep`"));
}

#[test]
fn nothing_else_lies_at_the_top_level() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in std::fs::read_dir(root).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with('.') || TOP_LEVEL.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn a_word_out_of_place_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("src/machine")).unwrap();
    let path = dir.path().join("src/machine/bad.rs");
    std::fs::write(&path, "//! Fine.\n// tokio in a comment is fine\nuse tokio::sync;\n// TODO: the sweep\n").unwrap();
    let complaints = Source::read(dir.path(), &path).complaints();
    assert_eq!(complaints.len(), 3, "{complaints:?}");
    assert!(complaints[0].starts_with("src/machine/bad.rs:3: tokio"), "{complaints:?}");
}
