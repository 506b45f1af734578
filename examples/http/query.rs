//! Query parameters as bytes.

/// Name and value of each, in order, percent-decoded; `+` is a plus. What is no escape stays as it is, and a parameter without
/// `=` has an empty value.
pub(crate) fn parameters(query: &str) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    query.split('&').filter(|part| !part.is_empty()).map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (decoded(name), decoded(value))
    })
}

fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let escaped = if *first == b'%' { behind.split_first_chunk().and_then(|(pair, _)| byte(*pair)) } else { None };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &behind[2..] } else { behind };
    }
    bytes
}

fn byte(pair: [u8; 2]) -> Option<u8> {
    let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? * 16 + low?).ok()
}

/// The value as a number.
pub(crate) fn number<N: std::str::FromStr>(name: &str, value: &[u8]) -> Result<N, String> {
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| format!("{name} is not a number that fits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        parameters(query).collect()
    }

    fn pairs<const N: usize>(pairs: [(&[u8], &[u8]); N]) -> Vec<(Vec<u8>, Vec<u8>)> {
        pairs.map(|(name, value)| (name.to_vec(), value.to_vec())).into()
    }

    #[test]
    fn they_are_decoded_to_bytes_in_order() {
        assert_eq!(read(""), pairs([]));
        assert_eq!(read("b=1&a=2&b"), pairs([(b"b", b"1"), (b"a", b"2"), (b"b", b"")]));
        assert_eq!(read("header=X-A:%ff%00%3D=+"), pairs([(b"header", b"X-A:\xff\0==+")]));
        assert_eq!(read("%61=%2b%2B"), pairs([(b"a", b"++")]));
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(read("a=%&b=%4&c=%zz&d=%+1"), pairs([(b"a", b"%"), (b"b", b"%4"), (b"c", b"%zz"), (b"d", b"%+1")]));
    }

    #[test]
    fn a_number_fits_or_is_refused() {
        assert_eq!(number::<u16>("n", b"65535"), Ok(65_535));
        assert_eq!(number::<i64>("n", b"-3"), Ok(-3));
        for wrong in [&b"65536"[..], b"", b"1 ", b"\xff"] {
            assert!(number::<u16>("n", wrong).is_err());
        }
    }
}
