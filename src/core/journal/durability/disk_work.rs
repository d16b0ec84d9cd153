//! The work that the core requests from the disk, and the results of this work. The journal uses
//! the disk only through these types.
//!
//! All work is done in the background, in three queues. [`DiskWork::Append`], [`DiskWork::Reserve`]
//! and all other work have one queue each. Each queue is processed in order, but the queues do not
//! wait for each other. So a slow sync delays neither a write nor the reservation for the next
//! write.

use std::fmt;

/// The number of a journal file. In one run of a server, no two files have the same number. The
/// file that was opened at the start has the number 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// Bytes to write, and the file and the offset at which to write the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The file.
    pub file: FileId,
    /// The offset of the first byte in the file.
    pub offset: u64,
    /// The bytes to write.
    pub bytes: Vec<u8>,
}

/// Work that the core requests from the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskWork {
    /// Write these chunks in this order. There is one chunk, or there are two for different files.
    /// The core requests the next append only after it gets the [`DiskDone::Appended`] of this
    /// append. The core requests a refused chunk again, with the same bytes at the same offset,
    /// unless it has abandoned the file.
    Append(Vec<Chunk>),
    /// Reserve space.
    Reserve {
        /// The file that needs space.
        file: FileId,
        /// The offset at which the new space begins.
        offset: u64,
        /// The number of bytes to reserve.
        bytes: u64,
    },
    /// Make all bytes durable that were appended before this request, so that they survive a loss
    /// of power.
    Sync {
        /// The files to sync.
        files: Vec<FileId>,
    },
    /// Create an empty file beside the journal.
    Create {
        /// The number of the new file.
        file: FileId,
    },
    /// Rename this file to the journal's name, and make the rename durable.
    Switch {
        /// The file that becomes the journal.
        file: FileId,
    },
    /// Remove this file, which is not the journal. There is no [`DiskDone`] for this.
    Discard {
        /// The file to remove.
        file: FileId,
    },
}

/// The result of a [`DiskWork`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskDone {
    /// The result of [`DiskWork::Append`].
    Appended {
        /// The chunks that were to be written.
        chunks: Vec<Chunk>,
        /// `Ok` if all chunks are written. `Err` names the file whose chunk was refused. All chunks
        /// before the refused chunk are written. It is unknown how much of the refused chunk, and
        /// of the chunks after it, was written.
        outcome: Result<(), (FileId, DiskError)>,
    },
    /// The result of [`DiskWork::Reserve`].
    Reserved {
        /// The file that needs space.
        file: FileId,
        /// `Ok` if the space is reserved. Otherwise nothing was reserved.
        outcome: Result<(), DiskError>,
    },
    /// The result of [`DiskWork::Sync`].
    Synced {
        /// The files to sync.
        files: Vec<FileId>,
        /// `Ok` if all files are synced.
        outcome: Result<(), DiskError>,
    },
    /// The result of [`DiskWork::Create`].
    Created {
        /// The number of the new file.
        file: FileId,
        /// `Ok` if the file exists now.
        outcome: Result<(), DiskError>,
    },
    /// The result of [`DiskWork::Switch`].
    Switched {
        /// The file that was to become the journal.
        file: FileId,
        /// Which of the two files has the journal's name now.
        outcome: SwitchOutcome,
    },
}

/// Which of the two files has the journal's name after a [`DiskWork::Switch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwitchOutcome {
    /// The new file has the name, and a loss of power cannot change that.
    Done,
    /// The old file still has the name.
    Refused(DiskError),
    /// It is unknown whether the old or the new file has the name.
    Unknown(DiskError),
}

/// The reason why a [`DiskWork`] failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskError {
    /// The kind of the failure: missing space, or anything else.
    pub kind: DiskErrorKind,
    /// The error text of the operating system.
    pub text: String,
}

/// The kind of a disk failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// The disk has no space. A later attempt may succeed.
    Full,
    /// Anything else.
    Broken,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for DiskError {}

/// A failure after which the server must stop, because it does not know which bytes are on the
/// disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalFailure {
    /// The disk refused a write, and the reason was not missing space.
    Append(DiskError),
    /// A sync failed, so bytes that were written may not be on the disk.
    Sync(DiskError),
    /// It is unknown which of the two files has the journal's name.
    Switch(DiskError),
}

impl fmt::Display for JournalFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalFailure::Append(error) => write!(f, "the journal cannot be written: {error}"),
            JournalFailure::Sync(error) => write!(f, "the journal cannot be synced: {error}"),
            JournalFailure::Switch(error) => write!(
                f,
                "the compacted journal cannot take the old one's place: {error}"
            ),
        }
    }
}

impl std::error::Error for JournalFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            JournalFailure::Append(error)
            | JournalFailure::Sync(error)
            | JournalFailure::Switch(error) => Some(error),
        }
    }
}
