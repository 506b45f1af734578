//! What goes wrong, and when.

use std::io;

use super::End;

/// Something that the store asks of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskOperation {
    /// Reading from a file.
    Read,
    /// Writing to a file.
    Write,
    /// Changing the length of a file.
    SetLen,
    /// Making a file durable.
    Sync,
    /// Creating, renaming or removing a file.
    Rename,
    /// Making the names of the files durable.
    SyncDirectory,
}

impl DiskOperation {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Read, Self::Write, Self::SetLen, Self::Sync, Self::Rename, Self::SyncDirectory];
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// `EIO`: the device did not do it.
    Io,
    /// `ENOSPC`: there is no room. Linux says so also when it syncs what found no place.
    Full,
}

impl From<DiskError> for io::Error {
    /// On Unix with the system's number.
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::Io if cfg!(unix) => Self::from_raw_os_error(5),
            DiskError::Full if cfg!(unix) => Self::from_raw_os_error(28),
            DiskError::Io => Self::other("the disk has failed"),
            DiskError::Full => Self::from(io::ErrorKind::StorageFull),
        }
    }
}

/// One fault: which operation fails, how, and whether those of its kind work again after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskFault {
    /// What fails.
    pub operation: DiskOperation,
    /// How many of these work before, counted from when the fault is set.
    pub after: usize,
    /// How it fails.
    pub error: DiskError,
    /// Once, or again and again until the disk is mended.
    pub lasting: bool,
}

/// The faults that are set, and how often what was asked.
#[derive(Default)]
pub(super) struct Faults {
    set: Vec<DiskFault>,
    /// Counts down to the operation, other than a read, that fails with all of those after it.
    operations_left: Option<usize>,
    /// Counts down to the sync that is a lie, and how it ends.
    lie: Option<(usize, End)>,
    done: [usize; DiskOperation::ALL.len()],
    hits: usize,
    /// Bytes that fit.
    pub(super) quota: Option<u64>,
}

impl Faults {
    pub(super) fn set(&mut self, fault: DiskFault) {
        self.set.push(fault);
    }

    pub(super) fn fail_after(&mut self, operations: usize) {
        self.operations_left = Some(operations);
    }

    pub(super) fn lie_after(&mut self, syncs: usize, end: End) {
        self.lie = Some((syncs, end));
    }

    pub(super) fn mend(&mut self) {
        self.set.clear();
        (self.operations_left, self.lie, self.quota) = (None, None, None);
    }

    pub(super) fn done(&self, operation: DiskOperation) -> usize {
        self.done.get(operation as usize).copied().unwrap_or_default()
    }

    pub(super) fn hits(&self) -> usize {
        self.hits
    }

    /// To be asked before each operation, with how many bytes more it takes of the `taken` ones: whether it fails.
    pub(super) fn meet(&mut self, operation: DiskOperation, more: u64, taken: impl Fn() -> u64) -> io::Result<()> {
        if let Some(done) = self.done.get_mut(operation as usize) {
            *done += 1;
        }
        let full = more > 0 && self.quota.is_some_and(|quota| taken() + more > quota);
        let failed = self.due(operation).or(full.then_some(DiskError::Full));
        match failed {
            Some(error) => {
                self.hits += 1;
                Err(error.into())
            }
            None => Ok(()),
        }
    }

    fn due(&mut self, operation: DiskOperation) -> Option<DiskError> {
        let mut due = None;
        if operation != DiskOperation::Read {
            match &mut self.operations_left {
                Some(0) => due = Some(DiskError::Io),
                Some(left) => *left -= 1,
                None => {}
            }
        }
        self.set.retain_mut(|fault| {
            if fault.operation != operation {
                return true;
            }
            if fault.after > 0 {
                fault.after -= 1;
                return true;
            }
            due = Some(fault.error);
            fault.lasting
        });
        due
    }

    /// How a sync ends that has met no fault.
    pub(super) fn end_of_sync(&mut self) -> End {
        match &mut self.lie {
            Some((0, end)) => {
                let end = *end;
                self.lie = None;
                end
            }
            Some((left, _)) => {
                *left -= 1;
                End::Done
            }
            None => End::Done,
        }
    }
}
