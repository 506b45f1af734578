//! The fingerprint that tells two requests under one key apart.

use std::fmt;

use sha2::{Digest, Sha256};

/// SHA-256 over a domain tag, the flow and the canonical request bytes, each length-prefixed.
///
/// Two requests are *the same* when their fingerprints are equal. It is taken from the bytes as they were handed in,
/// never from a re-encoding of something stored. `Debug` shows a short tag, as that of [`Key`](crate::Key) does: a request
/// must not be found out by guessing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

const DOMAIN: &[u8] = b"ibid/fingerprint/v1";

impl Fingerprint {
    /// The fingerprint of `request` under the flow of that name.
    #[must_use]
    pub fn of(flow: &str, request: &[u8]) -> Self {
        let mut hash = Sha256::new();
        for part in [DOMAIN, flow.as_bytes(), request] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    /// A fingerprint as a store kept it.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the digest.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({})", crate::key::tag(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_that_moves_between_flow_and_request_changes_the_fingerprint() {
        assert_ne!(Fingerprint::of("ab", b"c"), Fingerprint::of("a", b"bc"));
        assert_ne!(Fingerprint::of("a", b""), Fingerprint::of("", b"a"));
    }

    #[test]
    fn debug_shows_a_tag_and_nothing_of_the_digest() {
        let fingerprint = Fingerprint::of("flow", b"request");
        assert_eq!(format!("{fingerprint:?}"), format!("Fingerprint({})", crate::key::tag(fingerprint.as_bytes())));
        assert_eq!(Fingerprint::from_bytes(*fingerprint.as_bytes()), fingerprint);
    }

    #[test]
    fn the_digest_is_frozen() {
        let hex = crate::key::encode_hex(Fingerprint::of("flow", b"request").as_bytes());
        assert_eq!(hex, "fcfa831b5b3898fdcbd5d39506ae0dfb23438218e7c3c6ff5e6c6c71be5c890c");
    }
}
