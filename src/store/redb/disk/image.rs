//! What a disk holds: files by number, and the two names that a store uses.

use std::collections::BTreeMap;
use std::io;

use sha2::{Digest, Sha256};

use super::pages::{Data, Pages, beginning};

/// The number of a file. No number is used twice.
pub(super) type FileNo = u64;

/// The number of the file that a new disk has.
pub(super) const FIRST: FileNo = 0;

/// A name in the one directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    Store,
    Aside,
}

/// Something done to the disk that a later sync makes durable.
#[derive(Clone)]
pub(super) enum Change {
    Write(FileNo, Data),
    SetLen(FileNo, usize),
    /// A new, empty file under the name aside.
    Create(FileNo),
    /// The file aside gets the store's name.
    PutInPlace(FileNo),
    /// The file aside loses its name.
    RemoveAside,
}

impl Change {
    /// The file whose sync makes it durable; `None`: that of the directory does.
    pub(super) fn file(&self) -> Option<FileNo> {
        match self {
            Self::Write(file, _) | Self::SetLen(file, _) => Some(*file),
            Self::Create(_) | Self::PutInPlace(_) | Self::RemoveAside => None,
        }
    }
}

#[derive(Clone, Default)]
pub(super) struct Image {
    pub(super) files: BTreeMap<FileNo, Pages>,
    pub(super) names: BTreeMap<Name, FileNo>,
}

impl Image {
    /// One file, under the store's name.
    pub(super) fn holding(bytes: &[u8]) -> io::Result<Self> {
        Ok(Self { files: [(FIRST, Pages::new(bytes)?)].into(), names: [(Name::Store, FIRST)].into() })
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Write(file, data) => self.files.entry(*file).or_default().write(data),
            Change::SetLen(file, len) => self.files.entry(*file).or_default().set_len(*len),
            Change::Create(file) => drop(self.names.insert(Name::Aside, *file)),
            Change::PutInPlace(file) => {
                self.names.insert(Name::Store, *file);
                if self.names.get(&Name::Aside) == Some(file) {
                    self.names.remove(&Name::Aside);
                }
            }
            Change::RemoveAside => drop(self.names.remove(&Name::Aside)),
        }
    }

    /// The file under the name; one that nothing was written to is empty.
    pub(super) fn named(&self, name: Name) -> Option<&Pages> {
        self.files.get(self.names.get(&name)?)
    }

    /// Forgets the files that have no name and are not `in_use`.
    pub(super) fn forget_nameless(&mut self, in_use: impl Fn(FileNo) -> bool) {
        let names = &self.names;
        self.files.retain(|file, _| names.values().any(|named| named == file) || in_use(*file));
        for file in self.names.values() {
            self.files.entry(*file).or_default();
        }
    }

    pub(super) fn allocated(&self) -> u64 {
        self.files.values().map(Pages::allocated).sum()
    }

    /// Equal names and contents, equal hash.
    pub(super) fn hash(&self) -> u128 {
        let mut hasher = Sha256::new();
        for name in self.names.keys() {
            hasher.update([*name as u8]);
            self.named(*name).unwrap_or(&Pages::default()).hash(&mut hasher);
        }
        beginning(hasher.finalize().into())
    }
}
