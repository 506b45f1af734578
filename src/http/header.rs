//! The `Idempotency-Key` header: from field lines to a key, or the one problem that it has.

use sfv::{BareItem, Item, Parser};

/// Characters of a key, at most.
const KEY_CHARS: usize = 255;

/// Which values a route takes for a key, after decoding. Narrow it only one `ttl` after the last use of what it excludes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeySyntax {
    /// 1 to 255 characters of printable ASCII, whatever they are.
    #[default]
    Any,
    /// A UUID as 8-4-4-4-12 hex digits of either case; case still matters.
    Uuid,
    /// Words of lower-case letters and digits, joined by single hyphens.
    Slug,
}

/// There is a header, and it holds no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidHeader(pub(super) &'static str);

/// The key in these field lines; `None` without a line.
///
/// The value is one Item whose bare item is a String (draft-ietf-httpapi-idempotency-key-header-07, section 2.1; RFC 9651).
/// Unless `strict`, a value of nothing but letters, digits and `._:-` is a key as it stands. That is wider than a structured
/// field's token, which begins with a letter, and is the same key as its quoted form.
pub(super) fn key<'a>(
    lines: impl IntoIterator<Item = &'a [u8]>,
    strict: bool,
    syntax: KeySyntax,
) -> Result<Option<String>, InvalidHeader> {
    let lines: Vec<&[u8]> = lines.into_iter().collect();
    if lines.is_empty() {
        return Ok(None);
    }
    // Two keys are never one: joined like this they are a list, which is no item.
    let value = lines.join(b", ".as_slice());
    let key = match bare(&value) {
        Some(key) if !strict => key,
        _ => quoted(&value)?,
    };
    match key.len() {
        0 => Err(InvalidHeader("the key is empty")),
        1..=KEY_CHARS if syntax.takes(&key) => Ok(Some(key)),
        1..=KEY_CHARS => Err(InvalidHeader("the key has not the form that this route asks for")),
        _ => Err(InvalidHeader("the key is longer than 255 characters")),
    }
}

fn bare(value: &[u8]) -> Option<String> {
    let is_bare = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
    let is_key = (1..=KEY_CHARS).contains(&value.len()) && value.iter().all(is_bare);
    is_key.then(|| String::from_utf8_lossy(value).into_owned())
}

fn quoted(value: &[u8]) -> Result<String, InvalidHeader> {
    match Parser::new(value).parse::<Item>() {
        Ok(Item { bare_item: BareItem::String(key), .. }) => Ok(key.into()),
        _ => Err(InvalidHeader("the header must hold one key, as a string in double quotes")),
    }
}

impl KeySyntax {
    fn takes(self, key: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Uuid => {
                let is_hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
                key.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && key.split('-').all(is_hex)
            }
            Self::Slug => {
                let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
                key.split('-').all(|word| !word.is_empty() && word.bytes().all(is_word))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lenient(lines: &[&[u8]]) -> Result<Option<String>, InvalidHeader> {
        key(lines.iter().copied(), false, KeySyntax::Any)
    }

    fn strict(lines: &[&[u8]]) -> Result<Option<String>, InvalidHeader> {
        key(lines.iter().copied(), true, KeySyntax::Any)
    }

    fn is(key: &str) -> Result<Option<String>, InvalidHeader> {
        Ok(Some(key.into()))
    }

    #[test]
    fn one_quoted_string_is_a_key_in_both_modes() {
        for (value, found) in [
            (r#""k1""#, "k1"),
            (r#"  "k1"  "#, "k1"),
            (r#""a b""#, "a b"),
            (r#""K1""#, "K1"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            (r#""k1";a;b="2";c=?0"#, "k1"),
            (r#""k1, k2""#, "k1, k2"),
            (r#"" ""#, " "),
        ] {
            assert_eq!(lenient(&[value.as_bytes()]), is(found), "{value}");
            assert_eq!(strict(&[value.as_bytes()]), is(found), "{value}");
        }
    }

    #[test]
    fn a_bare_key_is_the_same_as_its_quoted_form_and_only_where_that_is_allowed() {
        for value in ["k1", "1k", "-", "8e03978e-40d5-43e8-bc93-6894a57f9324", "a.b_c:d-e", "1.5", "12"] {
            assert_eq!(lenient(&[value.as_bytes()]), is(value), "{value}");
            assert!(strict(&[value.as_bytes()]).is_err(), "{value}");
        }
    }

    #[test]
    fn whatever_else_it_is_it_is_no_key() {
        let values: [&[u8]; 21] = [
            b"",
            b" ",
            br#""""#,
            b"a b",
            b"a/b",
            b"?1",
            b":aGk=:",
            b"@1659578233",
            br#"("k1")"#,
            br#""k1", "k2""#,
            b"k1, k2",
            br#""k1"#,
            br#"k1""#,
            br#""k\1""#,
            b"\"k\x7f\"",
            b"\"k\xc3\xa9\"",
            b"k\xff",
            b"\"k\t\"",
            br#""k1" x"#,
            br#"%"k1""#,
            b"k=1",
        ];
        for value in values {
            assert!(lenient(&[value]).is_err(), "{}", value.escape_ascii());
            assert!(strict(&[value]).is_err(), "{}", value.escape_ascii());
        }
    }

    #[test]
    fn two_lines_are_two_keys_equal_or_not_and_no_line_is_none() {
        assert_eq!(lenient(&[]), Ok(None));
        for lines in [[br#""k1""#.as_slice(), br#""k1""#], [b"k1", b"k2"], [b"k1", b""], [b"", b"k1"], [b"\"a", b"b\""]]
        {
            let joined = lines.concat();
            // Two halves of one string are one string, by the rule that joins field lines.
            let is_one = joined == b"\"ab\"";
            assert_eq!(lenient(&lines).is_ok(), is_one, "{}", joined.escape_ascii());
        }
    }

    #[test]
    fn a_key_has_1_to_255_characters_after_decoding() {
        let quoted = |key: &str| format!("\"{}\"", key.replace('"', "\\\"")).into_bytes();
        for fits in ["a".repeat(255), "\"".repeat(255)] {
            assert_eq!(lenient(&[&quoted(&fits)]), is(&fits));
        }
        assert!(lenient(&[&quoted(&"\"".repeat(256))]).is_err());
        assert_eq!(lenient(&[&[b'a'; 255]]), is(&"a".repeat(255)));
        assert!(lenient(&[&[b'a'; 256]]).is_err());
    }

    #[test]
    fn a_route_may_take_uuids_or_slugs_alone() {
        let takes = |syntax: KeySyntax, key: &str| syntax.takes(key);
        assert!(takes(KeySyntax::Uuid, "8E03978e-40d5-43e8-bc93-6894a57f9324"));
        for not in [
            "8e03978e40d543e8bc936894a57f9324",
            "8e03978e-40d5-43e8-bc93-6894a57f932g",
            "k1",
            "8e03978e-40d5-43e8-bc93",
        ] {
            assert!(!takes(KeySyntax::Uuid, not), "{not}");
        }
        assert!(takes(KeySyntax::Slug, "order-17-b") && takes(KeySyntax::Slug, "a"));
        for not in ["-a", "a-", "a--b", "A", "a_b", "a b"] {
            assert!(!takes(KeySyntax::Slug, not), "{not}");
        }
        assert!(key([b"\"k1\"".as_slice()], false, KeySyntax::Uuid).is_err());
    }

    proptest! {
        #[test]
        fn every_printable_key_survives_its_quoting(key in "[ -~]{1,255}") {
            let quoted = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
            prop_assert_eq!(strict(&[quoted.as_bytes()]), is(&key));
            prop_assert_eq!(lenient(&[quoted.as_bytes()]), is(&key));
        }

        #[test]
        fn no_bytes_at_all_are_more_than_a_key_or_a_refusal(value in prop::collection::vec(any::<u8>(), 0..40)) {
            let (lenient, strict) = (lenient(&[&value]), strict(&[&value]));
            if let Ok(found) = &strict {
                prop_assert_eq!(lenient.as_ref(), Ok(found), "strict takes nothing that lenient does not");
            }
        }
    }
}
