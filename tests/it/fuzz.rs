//! What the fuzzer does at length, in short: its functions take the inputs it begins with, and random bytes.
//!
//! The fuzzer itself is in tests/fuzz; `.ci/fuzz` runs it. It begins with what the first test leaves behind.

use ibid::testing::fuzz;
use proptest::prelude::*;
use std::fs;
use std::path::Path;

type Target = (&'static str, fn(&[u8]), Vec<Vec<u8>>);

fn targets() -> [Target; 5] {
    [
        ("record_row", fuzz::record_row, fuzz::seeds()),
        ("ledger_row", fuzz::ledger_row, fuzz::seeds()),
        ("keys", fuzz::keys, fuzz::seeds()),
        ("frames", fuzz::frames, fuzz::frame_seeds()),
        ("params", fuzz::wire_params, fuzz::frame_seeds()),
    ]
}

#[test]
fn the_code_s_own_bytes_pass_every_target_and_are_left_for_the_fuzzer() {
    let corpus = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz-seeds");
    for (name, target, seeds) in targets() {
        assert!(seeds.len() >= 4, "{name}");
        fs::create_dir_all(corpus.join(name)).unwrap();
        for (number, seed) in seeds.iter().enumerate() {
            target(seed);
            fs::write(corpus.join(name).join(format!("seed-{number}")), seed).unwrap();
        }
    }
    // Flips in the header, in a page, and an end: see the target.
    fs::create_dir_all(corpus.join("file")).unwrap();
    for (number, edits) in [&[0, 0, 0, 9, 1], &[1, 0, 16, 0, 1], &[1, 0, 64, 0, 0]].into_iter().enumerate() {
        fs::write(corpus.join("file").join(format!("seed-{number}")), edits).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_and_spoiled_seeds_pass_every_target(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        (seed, at, flip) in (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()),
    ) {
        for (_, target, seeds) in targets() {
            target(&bytes);
            let mut spoiled = seed.get(&seeds).clone();
            if !spoiled.is_empty() {
                let at = at.index(spoiled.len());
                spoiled[at] ^= flip;
            }
            target(&spoiled);
        }
    }
}
