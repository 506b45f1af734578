//! The same bytes for everybody: a key of 65 bytes, a request of 120, an answer of 32.

/// A scope is as long as a node id.
pub(crate) const SCOPE_BYTES: usize = 33;
pub(crate) const ID_BYTES: usize = 32;
pub(crate) const KEY_BYTES: usize = SCOPE_BYTES + ID_BYTES;
pub(crate) const REQUEST_BYTES: usize = 120;
pub(crate) const ANSWER_BYTES: usize = 32;
/// Whose requests they are.
pub(crate) const SCOPES: u64 = 16;
/// How long an answer is kept.
pub(crate) const RETENTION_SECONDS: u64 = 3_600;

pub(crate) type Answer = [u8; ANSWER_BYTES];

pub(crate) fn scope(number: u64) -> [u8; SCOPE_BYTES] {
    let mut scope = [2; SCOPE_BYTES];
    scope[SCOPE_BYTES - 1] = (number % SCOPES) as u8;
    scope
}

/// 32 bytes in no order, as a payment hash is.
pub(crate) fn id(number: u64) -> [u8; ID_BYTES] {
    let mut id = [0; ID_BYTES];
    let mut mixed = number;
    for place in id.as_chunks_mut::<8>().0 {
        mixed = (mixed ^ (mixed >> 29)).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        *place = mixed.to_be_bytes();
    }
    id
}

/// The id in hex, for those who take text.
pub(crate) fn id_text(number: u64) -> String {
    id(number).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Scope and id in one, for those who have one column.
pub(crate) fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..SCOPE_BYTES].copy_from_slice(&scope(number));
    key[SCOPE_BYTES..].copy_from_slice(&id(number));
    key
}

pub(crate) fn request(number: u64) -> [u8; REQUEST_BYTES] {
    let mut request = [b'r'; REQUEST_BYTES];
    request[..8].copy_from_slice(&number.to_be_bytes());
    request
}

/// What the operation does: it answers at once.
pub(crate) fn answer(number: u64) -> Answer {
    let mut answer = [b'a'; ANSWER_BYTES];
    answer[..8].copy_from_slice(&number.to_be_bytes());
    answer
}

/// The answer to a request, from its bytes alone.
pub(crate) fn answer_to(request: &[u8]) -> Option<Answer> {
    Some(answer(u64::from_be_bytes(*request.first_chunk()?)))
}
