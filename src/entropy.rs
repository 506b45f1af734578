//! Boot ids, tokens and jitter: one secret per opening, from the operating system or from a seed.

use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use crate::record::{BootId, Token};

/// The source of everything that must not repeat.
pub(crate) struct Entropy {
    secret: [u8; 32],
    issued: AtomicU64,
}

impl Entropy {
    pub(crate) fn from_os() -> Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self::from_seed(secret))
    }

    /// The same seed gives the same boot id and the same tokens in the same order.
    pub(crate) fn from_seed(secret: [u8; 32]) -> Self {
        Self { secret, issued: AtomicU64::new(0) }
    }

    pub(crate) fn boot_id(&self) -> BootId {
        let [id @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = self.derive(b"ibid/boot/v1", 0);
        BootId(id)
    }

    /// A token that nobody can guess who has not seen it, and that is never issued twice.
    pub(crate) fn token(&self) -> Token {
        Token(self.derive(b"ibid/token/v1", self.issued.fetch_add(1, Ordering::Relaxed)))
    }

    /// Numbers that spread waits, apart from everything else that comes from the secret.
    pub(crate) fn jitter(&self) -> Jitter {
        Jitter(Self::from_seed(self.derive(b"ibid/jitter/v1", 0)))
    }

    fn derive(&self, domain: &[u8], number: u64) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(domain);
        hash.update(self.secret);
        hash.update(number.to_be_bytes());
        hash.finalize().into()
    }
}

/// A row of random numbers, the same for the same seed.
pub(crate) struct Jitter(Entropy);

impl Jitter {
    pub(crate) fn draw(&self) -> u64 {
        let number = self.0.issued.fetch_add(1, Ordering::Relaxed);
        let [draw @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
            self.0.derive(b"ibid/draw/v1", number);
        u64::from_be_bytes(draw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_within_a_boot_and_between_boots_and_repeat_with_the_seed() {
        let (a, b) = (Entropy::from_os().unwrap(), Entropy::from_os().unwrap());
        assert_ne!(a.token(), a.token());
        assert_ne!(a.token(), b.token());
        assert_ne!(a.boot_id(), b.boot_id());
        assert_eq!(Entropy::from_seed([7; 32]).token(), Entropy::from_seed([7; 32]).token());
    }

    #[test]
    fn jitter_repeats_with_the_seed_and_neither_repeats_itself_nor_moves_the_tokens() {
        let draws = |seed| {
            let jitter = Entropy::from_seed([seed; 32]).jitter();
            [jitter.draw(), jitter.draw(), jitter.draw()]
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
        let [first, second, third] = draws(7);
        assert!(first != second && second != third);
        let (drawn, fresh) = (Entropy::from_seed([7; 32]), Entropy::from_seed([7; 32]));
        drawn.jitter().draw();
        assert_eq!(drawn.token(), fresh.token());
    }
}
