//! How much is run, and from which seed.

use std::env;

/// How much of the proof is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Within `cargo test`.
    Taste,
    /// What the gate demands.
    Ci,
    /// Much more.
    Long,
}

impl Scale {
    pub(crate) fn from_env() -> Self {
        match env::var("IBID_PROOF").as_deref() {
            Err(_) => Self::Taste,
            Ok("ci") => Self::Ci,
            Ok("long") => Self::Long,
            Ok(other) => panic!("IBID_PROOF is `ci`, `long` or unset, not {other:?}"),
        }
    }

    /// The number for this scale.
    pub(crate) fn of(self, taste: u64, ci: u64, long: u64) -> u64 {
        match self {
            Self::Taste => taste,
            Self::Ci => ci,
            Self::Long => long,
        }
    }
}

/// The one seed to replay, if one is given.
pub(crate) fn replayed_seed() -> Option<u64> {
    let seed = env::var("IBID_SEED").ok()?;
    Some(seed.parse().expect("IBID_SEED is a number"))
}

/// What to type to see it again.
pub(crate) fn replay(test: &str, seed: u64) -> String {
    format!("IBID_SEED={seed} cargo test --release --test proof {test}")
}
