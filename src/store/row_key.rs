//! Table and key of a ledger row as one key: the tables stay apart, and the rows of one lie together in the order of their
//! keys.
//!
//! ```text
//! length of the table's name: 1 byte | table | key
//! ```

/// Table and key as one. With an empty key: what all keys of the table begin with.
pub(super) fn join(table: &str, key: &[u8]) -> Vec<u8> {
    // No row has a table's name over 64 bytes, so one of 255 and more finds nothing.
    let length = u8::try_from(table.len()).unwrap_or(u8::MAX);
    [&[length], table.as_bytes(), key].concat()
}

/// Takes them apart again. `None`: this is no such key.
pub(super) fn split(joined: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = joined.split_first()?;
    let (table, key) = rest.split_at_checked(usize::from(*length))?;
    Some((std::str::from_utf8(table).ok()?, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_keys_come_back_and_no_two_pairs_meet() {
        let pairs = [("a", b"bc".as_slice()), ("ab", b"c"), ("abc", b""), ("b", b"a"), ("\u{e9}", &[0xff, 0])];
        for (table, key) in pairs {
            assert_eq!(split(&join(table, key)), Some((table, key)));
            assert_eq!(pairs.iter().filter(|(t, k)| join(t, k) == join(table, key)).count(), 1);
        }
    }

    #[test]
    fn what_is_no_key_is_taken_for_none() {
        for joined in [b"".as_slice(), &[1], &[2, b'a'], &[1, 0xff, b'k']] {
            assert_eq!(split(joined), None, "{joined:?}");
        }
        // A name that is too long for its length byte must not look like another one.
        assert_ne!(join(&"t".repeat(256), b"").first(), Some(&0));
    }
}
