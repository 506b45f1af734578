//! An answer without a framework: a status, a header list, a body; and the bytes that a record keeps of it.

use std::fmt;
use std::sync::Arc;

/// Header fields that belong to a connection, a moment or one client, and are never kept. (RFC 9110, section 7.6.1; the last
/// four are ours.) `content-length` is computed anew, and the mark of a replay is set by whoever replays.
const NOT_KEPT: [&[u8]; 14] = [
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"content-length",
    b"date",
    b"server",
    b"set-cookie",
    REPLAYED.as_bytes(),
];

/// The header that tells a repeated answer from the first.
pub(super) const REPLAYED: &str = "idempotency-replayed";

/// The version of the kept form, its first byte.
const VERSION: u8 = 1;

/// Status, header fields in their order, and body, free of any framework's types.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    status: u16,
    headers: Headers,
    body: Arc<[u8]>,
}

/// Header fields in their order, names in lower case; a name may occur more than once.
pub(super) type Headers = Vec<(Box<[u8]>, Box<[u8]>)>;

/// What a record keeps of a run.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Kept {
    /// The answer, and the number of the attempt that gave it.
    Whole(Answer, u32),
    /// The run ended with this status. Its answer was too long, or took too long.
    NotKept(u16, u32),
}

impl Answer {
    /// An answer with this status, and nothing else so far.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Arc::new([]) }
    }

    /// One more header field; repeated names stay apart. Bytes that make no header field are left out when the answer is sent.
    #[must_use]
    pub fn header(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.as_ref().to_ascii_lowercase().into(), value.as_ref().into()));
        self
    }

    /// The body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Arc<[u8]>>) -> Self {
        self.body = body.into();
        self
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The header fields in their order, names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The body.
    #[must_use]
    pub fn body_bytes(&self) -> &Arc<[u8]> {
        &self.body
    }

    /// The first value of this name.
    #[cfg(test)]
    pub(super) fn first(&self, name: &[u8]) -> Option<&[u8]> {
        self.headers().find(|(given, _)| *given == name).map(|(_, value)| value)
    }

    /// Without what is never kept.
    fn end_to_end(mut self) -> Self {
        let of_connection = |value: &[u8]| -> Vec<Vec<u8>> {
            value.split(|byte| *byte == b',').map(|name| name.trim_ascii().to_ascii_lowercase()).collect()
        };
        let named: Vec<Vec<u8>> = self
            .headers()
            .filter(|(name, _)| *name == b"connection")
            .flat_map(|(_, value)| of_connection(value))
            .collect();
        self.headers.retain(|(name, _)| !NOT_KEPT.contains(&&**name) && !named.iter().any(|other| **other == **name));
        self
    }
}

impl Kept {
    /// The answer as it is kept, by the attempt of this number.
    pub(super) fn whole(answer: Answer, attempt: u32) -> Self {
        Self::Whole(answer.end_to_end(), attempt)
    }

    /// Version, attempt (4 bytes), status (2), then for a whole answer: 1, the number of header fields (4), each as two lengths (4)
    /// with their bytes, and the body; else: 0. All numbers big-endian.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let (status, attempt) = match self {
            Self::Whole(answer, attempt) => (answer.status, *attempt),
            Self::NotKept(status, attempt) => (*status, *attempt),
        };
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&attempt.to_be_bytes());
        bytes.extend_from_slice(&status.to_be_bytes());
        match self {
            Self::NotKept(..) => bytes.push(0),
            Self::Whole(answer, _) => {
                bytes.push(1);
                push_length(&mut bytes, answer.headers.len());
                for part in answer.headers.iter().flat_map(|(name, value)| [name, value]) {
                    push_length(&mut bytes, part.len());
                    bytes.extend_from_slice(part);
                }
                bytes.extend_from_slice(&answer.body);
            }
        }
        bytes
    }

    /// `None`: damaged, or of a version that this one does not know.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        if take(&mut rest, 1)? != [VERSION] {
            return None;
        }
        let attempt = take_length(&mut rest)?;
        let status = u16::from_be_bytes(take(&mut rest, 2)?.try_into().ok()?);
        match take(&mut rest, 1)? {
            [0] => rest.is_empty().then_some(Self::NotKept(status, attempt)),
            [1] => {
                let fields = take_length(&mut rest)?;
                let mut headers = Headers::new();
                for _ in 0..fields {
                    let [name, value] = [take_part(&mut rest)?, take_part(&mut rest)?];
                    headers.push((name.into(), value.into()));
                }
                Some(Self::Whole(Answer { status, headers, body: rest.into() }, attempt))
            }
            _ => None,
        }
    }
}

/// A length over 4 GiB does not occur: nothing that long is kept.
fn push_length(bytes: &mut Vec<u8>, length: usize) {
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn take_length(rest: &mut &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(take(rest, 4)?.try_into().ok()?))
}

fn take_part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_length(rest)?;
    take(rest, usize::try_from(length).ok()?)
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("headers", &self.headers.len())
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(answer, attempt) => write!(f, "Whole({answer:?}, {attempt})"),
            Self::NotKept(status, attempt) => write!(f, "NotKept({status}, {attempt})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_kept_form_is_these_bytes_for_ever() {
        let answer = Answer::new(201).header("X-A", "1").header("x-a", b"\xff").body(*b"hi");
        let golden = b"\x01\0\0\0\x07\0\xc9\x01\0\0\0\x02\0\0\0\x03x-a\0\0\0\x011\0\0\0\x03x-a\0\0\0\x01\xffhi";
        let kept = Kept::whole(answer, 7);
        assert_eq!(kept.to_bytes(), golden);
        assert_eq!(Kept::from_bytes(golden), Some(kept));
        assert_eq!(Kept::NotKept(404, 1).to_bytes(), b"\x01\0\0\0\x01\x01\x94\0");
        for length in 0..golden.len() - 2 {
            assert_eq!(Kept::from_bytes(&golden[..length]), None, "cut at {length}");
        }
        assert_eq!(Kept::from_bytes(b"\x01\0\0\0\x01\x01\x94\0x"), None, "something behind the end");
        assert_eq!(Kept::from_bytes(b"\x02\0\0\0\x01\x01\x94\0"), None, "another version");
    }

    #[test]
    fn what_belongs_to_the_connection_or_the_moment_is_not_kept() {
        let mut answer = Answer::new(200).header("X-Kept", "1");
        for name in NOT_KEPT {
            answer = answer.header(name, "x-gone, Close");
        }
        let answer = answer.header("X-Gone", "2").header("close", "3").header("x-kept", "4");
        let Kept::Whole(kept, _) = Kept::whole(answer, 1) else { panic!("not kept") };
        let left: Vec<_> = kept.headers().collect();
        assert_eq!(left, [(b"x-kept".as_slice(), b"1".as_slice()), (b"x-kept", b"4")]);
    }

    #[test]
    fn debug_shows_lengths_and_no_byte() {
        let answer = Answer::new(200).header("x", "canary").body(*b"canary");
        assert_eq!(
            format!("{:?}", Kept::whole(answer, 1)),
            "Whole(Answer { status: 200, headers: 1, body_bytes: 6 }, 1)"
        );
    }

    proptest! {
        #[test]
        fn every_answer_comes_back_as_it_was(
            status in 100u16..1000,
            attempt: u32,
            headers in prop::collection::vec(("[a-z-]{1,9}", prop::collection::vec(any::<u8>(), 0..9)), 0..6),
            body in prop::collection::vec(any::<u8>(), 0..99),
        ) {
            let answer = headers.iter().fold(Answer::new(status), |answer, (name, value)| answer.header(name, value)).body(body);
            let kept = Kept::whole(answer, attempt);
            prop_assert_eq!(Kept::from_bytes(&kept.to_bytes()), Some(kept));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(kept) = Kept::from_bytes(&bytes) {
                prop_assert_eq!(kept.to_bytes(), bytes);
            }
        }
    }
}
