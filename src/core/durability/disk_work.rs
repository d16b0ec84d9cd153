//! What the core wants of the disk, and what it is told of it: the whole of the journal's dealings with the outside.

/// Which of the two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The journal.
    Current,
    /// The one that is to take its place.
    Next,
}

/// What the disk is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskWork {
    /// Write these bytes there; at once, in this turn.
    Append {
        /// Into which file.
        file: Which,
        /// From which byte on.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// Reserve room; in the background.
    Reserve {
        /// In which file.
        file: Which,
        /// From which byte on.
        offset: u64,
        /// How much.
        bytes: u64,
    },
    /// Make everything appended so far outlast a loss of power; in the background.
    Sync {
        /// In both files, not only in the current one.
        both: bool,
    },
    /// Make an empty next file; at once.
    Create,
    /// The next file takes the current one's name, for good; in the background.
    Switch,
    /// Remove the next file; at once, and not to be answered.
    Discard,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskDone {
    /// Of [`DiskWork::Append`].
    Appended {
        /// Into which file.
        file: Which,
        /// What was to be written: to be tried again, or to be used for the next entries.
        bytes: Vec<u8>,
        /// Whether it was.
        outcome: Result<(), DiskError>,
    },
    /// Of [`DiskWork::Reserve`].
    Reserved(Which, Result<(), DiskError>),
    /// Of [`DiskWork::Sync`].
    Synced(Result<(), DiskError>),
    /// Of [`DiskWork::Create`].
    Created(Result<(), DiskError>),
    /// Of [`DiskWork::Switch`].
    Switched(Result<(), DiskError>),
}

/// Why the disk did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskError {
    /// There is no room; there may be some later.
    pub is_full: bool,
    /// In words.
    pub text: String,
}
