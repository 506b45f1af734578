//! Who is authenticated.

use std::fmt;
use std::sync::Arc;

use crate::InvalidKey;

/// Whoever is authenticated, as 1 to 255 bytes that name nobody else: the scope of every key.
///
/// The layer that authenticates puts it into the extensions of the request, outside of this one. Take it from what was
/// verified, never from a header as such: two clients with one principal share their keys.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Principal(Arc<[u8]>);

impl Principal {
    /// The principal of these bytes, 1 to 255 of them.
    ///
    /// # Errors
    /// [`InvalidKey::ScopeLength`].
    pub fn new(principal: impl AsRef<[u8]>) -> Result<Self, InvalidKey> {
        let bytes = principal.as_ref();
        if (1..=255).contains(&bytes.len()) {
            Ok(Self(bytes.into()))
        } else {
            Err(InvalidKey::ScopeLength(bytes.len()))
        }
    }
}

impl AsRef<[u8]> for Principal {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Principal({} bytes)", self.0.len())
    }
}
