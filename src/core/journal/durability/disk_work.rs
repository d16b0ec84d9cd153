//! What the core wants of the disk, and what it is told of it: the whole of the journal's dealings
//! with the outside.
//!
//! All of it is done in the background. There are two queues, and the work in each is done in
//! order: that of the writer, which takes [`DiskWork::Append`], and that of the keeper, which takes
//! everything else; but room may be reserved before what was asked for earlier is done. So a slow
//! sync delays neither a write nor the room for the next one.

use std::fmt;

/// A file of the journal. No two files of one life of a server have the same number; the one that
/// was opened is number 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// Bytes, and where they belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// In which file.
    pub file: FileId,
    /// From which byte on.
    pub offset: u64,
    /// What.
    pub bytes: Vec<u8>,
}

/// What the disk is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskWork {
    /// Write these, in this order: one for each of one or two files. The next append is asked for
    /// when this one is answered. What was refused is asked for again, with the same bytes at the
    /// same offset.
    Append(Vec<Chunk>),
    /// Reserve room.
    Reserve {
        /// In which file.
        file: FileId,
        /// From which byte on.
        offset: u64,
        /// How much.
        bytes: u64,
    },
    /// Make everything outlast a loss of power that was appended before this was asked for.
    Sync {
        /// In which files.
        files: Vec<FileId>,
    },
    /// Make an empty file beside the journal.
    Create {
        /// Its number from now on.
        file: FileId,
    },
    /// This file takes the journal's name, for good.
    Switch {
        /// Which.
        file: FileId,
    },
    /// Remove this file, which is not the journal. Not answered.
    Discard {
        /// Which.
        file: FileId,
    },
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskDone {
    /// Of [`DiskWork::Append`].
    Appended {
        /// What was to be written.
        chunks: Vec<Chunk>,
        /// Whether it was. If a file refused its chunk, those before it were written, and any part
        /// of it and of those behind it.
        outcome: Result<(), (FileId, DiskError)>,
    },
    /// Of [`DiskWork::Reserve`].
    Reserved {
        /// In which file.
        file: FileId,
        /// Whether there is room. If not, nothing was reserved.
        outcome: Result<(), DiskError>,
    },
    /// Of [`DiskWork::Sync`].
    Synced {
        /// Of which files.
        files: Vec<FileId>,
        /// Whether all of them are.
        outcome: Result<(), DiskError>,
    },
    /// Of [`DiskWork::Create`].
    Created {
        /// Which file.
        file: FileId,
        /// Whether it is there.
        outcome: Result<(), DiskError>,
    },
    /// Of [`DiskWork::Switch`].
    Switched {
        /// Which file.
        file: FileId,
        /// Which file has the journal's name now.
        outcome: SwitchOutcome,
    },
}

/// Which file has the journal's name after a [`DiskWork::Switch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwitchOutcome {
    /// The new one, and a loss of power does not change that.
    Done,
    /// The old one, as before.
    Refused(DiskError),
    /// One or the other.
    Unknown(DiskError),
}

/// Why the disk did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskError {
    /// Whether it is worth trying again.
    pub kind: DiskErrorKind,
    /// What the system said.
    pub text: String,
}

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// There is no room; there may be some later.
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

/// A promise that the disk broke. The server cannot go on: it does not know what the disk has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalFailure {
    /// It refused a write, and not for want of room.
    Append(DiskError),
    /// It could not sync what it had taken.
    Sync(DiskError),
    /// Either file may have the journal's name now.
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
