//! A file in memory, in pages that its copies share: a copy costs a pointer a page, and a page is hashed once.

use std::io;
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};

/// A page of memory, and of redb's files.
pub(super) const PAGE_BYTES: usize = 4096;

/// The content of a file.
#[derive(Clone, Default)]
pub(super) struct Pages {
    /// `None` has never been written, and reads as zeros.
    pages: Vec<Option<Arc<Page>>>,
    len: usize,
}

#[derive(Clone)]
struct Page {
    bytes: [u8; PAGE_BYTES],
    hash: OnceLock<u128>,
}

/// What one write puts into a file. Clones share it, and whole pages of it are shared with every file it is written to.
#[derive(Clone)]
pub(super) struct Data {
    offset: usize,
    len: usize,
    pieces: Arc<[Piece]>,
}

/// The part of a write that falls into one page.
enum Piece {
    Whole(Arc<Page>),
    Part { within: usize, bytes: Vec<u8> },
}

impl Data {
    pub(super) fn new(offset: u64, mut bytes: &[u8]) -> io::Result<Self> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let (len, mut at, mut pieces) = (bytes.len(), offset, Vec::new());
        while !bytes.is_empty() {
            let within = at % PAGE_BYTES;
            let (piece, rest) = bytes.split_at(bytes.len().min(PAGE_BYTES - within));
            pieces.push(match piece.try_into() {
                Ok(bytes) => Piece::Whole(Arc::new(Page { bytes, hash: OnceLock::new() })),
                Err(_) => Piece::Part { within, bytes: piece.to_vec() },
            });
            (at, bytes) = (at + piece.len(), rest);
        }
        Ok(Self { offset, len, pieces: pieces.into() })
    }

    /// The same in writes of at most `size` bytes that stay within multiples of `size`.
    pub(super) fn cut(&self, size: usize) -> Vec<Self> {
        let (mut at, mut cut) = (self.offset, Vec::new());
        for piece in self.pieces.iter() {
            let mut bytes = match piece {
                Piece::Whole(page) => page.bytes.as_slice(),
                Piece::Part { bytes, .. } => bytes,
            };
            while !bytes.is_empty() {
                let (part, rest) = bytes.split_at(bytes.len().min(size - at % size));
                let piece = Piece::Part { within: at % PAGE_BYTES, bytes: part.to_vec() };
                cut.push(Self { offset: at, len: part.len(), pieces: [piece].into() });
                (at, bytes) = (at + part.len(), rest);
            }
        }
        cut
    }
}

impl Pages {
    pub(super) fn new(bytes: &[u8]) -> io::Result<Self> {
        let mut pages = Self::default();
        pages.write(&Data::new(0, bytes)?);
        Ok(pages)
    }

    pub(super) fn len(&self) -> u64 {
        self.len as u64
    }

    /// Bytes that it takes on a disk: those of pages that were written.
    pub(super) fn allocated(&self) -> u64 {
        (self.pages.iter().flatten().count() * PAGE_BYTES) as u64
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.pages.len() * PAGE_BYTES);
        for page in &self.pages {
            bytes.extend_from_slice(page.as_ref().map_or(&[0; PAGE_BYTES], |page| &page.bytes));
        }
        bytes.truncate(self.len);
        bytes
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut at = usize::try_from(offset).map_err(io::Error::other)?;
        if at.checked_add(out.len()).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut out = out;
        while !out.is_empty() {
            let within = at % PAGE_BYTES;
            let (part, rest) = out.split_at_mut(out.len().min(PAGE_BYTES - within));
            let page = self.pages.get(at / PAGE_BYTES).and_then(Option::as_ref);
            match page.and_then(|page| page.bytes.get(within..within + part.len())) {
                Some(bytes) => part.copy_from_slice(bytes),
                None => part.fill(0),
            }
            (at, out) = (at + part.len(), rest);
        }
        Ok(())
    }

    /// Writes as a file does: what lies behind the end makes it grow.
    pub(super) fn write(&mut self, data: &Data) {
        if self.len < data.offset + data.len {
            self.set_len(data.offset + data.len);
        }
        let first = data.offset / PAGE_BYTES;
        for (page, piece) in self.pages.iter_mut().skip(first).zip(data.pieces.iter()) {
            match piece {
                Piece::Whole(whole) => *page = Some(Arc::clone(whole)),
                Piece::Part { within, bytes } => {
                    let page = Arc::make_mut(page.get_or_insert_with(Page::zeros));
                    page.hash = OnceLock::new();
                    for (place, byte) in page.bytes.iter_mut().skip(*within).zip(bytes) {
                        *place = *byte;
                    }
                }
            }
        }
    }

    /// How much more it would take on a disk with `data` in it.
    pub(super) fn growth(&self, data: &Data) -> u64 {
        let first = data.offset / PAGE_BYTES;
        let written = |page: usize| self.pages.get(page).is_some_and(Option::is_some);
        let new = (first..first + data.pieces.len()).filter(|page| !written(*page)).count();
        (new * PAGE_BYTES) as u64
    }

    /// What is cut off reads as zeros when the file grows over it.
    pub(super) fn set_len(&mut self, len: usize) {
        self.pages.resize(len.div_ceil(PAGE_BYTES), None);
        let within = len % PAGE_BYTES;
        if len < self.len
            && within > 0
            && let Some(Some(last)) = self.pages.last_mut()
        {
            let last = Arc::make_mut(last);
            last.hash = OnceLock::new();
            last.bytes.iter_mut().skip(within).for_each(|byte| *byte = 0);
        }
        self.len = len;
    }

    /// Puts the content into `hasher`: equal bytes, equal hash.
    pub(super) fn hash(&self, hasher: &mut Sha256) {
        hasher.update(self.len.to_be_bytes());
        for page in &self.pages {
            let hash = page.as_ref().map_or_else(zeros_hash, |page| page.hash());
            hasher.update(hash.to_be_bytes());
        }
    }
}

impl Page {
    fn zeros() -> Arc<Self> {
        Arc::new(Self { bytes: [0; PAGE_BYTES], hash: OnceLock::new() })
    }

    fn hash(&self) -> u128 {
        *self.hash.get_or_init(|| beginning(Sha256::digest(self.bytes).into()))
    }
}

fn zeros_hash() -> u128 {
    static HASH: OnceLock<u128> = OnceLock::new();
    *HASH.get_or_init(|| Page::zeros().hash())
}

/// The first half of a SHA-256.
pub(super) fn beginning(digest: [u8; 32]) -> u128 {
    let (words, _) = digest.as_chunks::<16>();
    words.first().map_or(0, |word| u128::from_be_bytes(*word))
}
