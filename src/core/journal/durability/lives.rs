//! The latest lives of this server. A life begins when the server starts, or when its data was
//! rolled back to an older copy. At the start of a link, the neighbour names one of our lives, and
//! a position in the feed of that life (the sequence number of a change). The server compares this
//! position with the lives that followed, and so finds out which changes the neighbour lacks.

use crate::core::base::boot_id::BootId;
use crate::core::journal::format::Entry;

/// The maximum number of remembered lives. A neighbour that names an older life gets all records.
const MAX_LIVES: usize = 64;

/// A past or present life of this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) boot: BootId,
    /// The boot id of the machine during this life. 0 if it is unknown.
    pub(super) machine: u64,
    /// The sequence number of the last change before this life.
    pub(super) last_seq_before: u64,
}

impl Life {
    /// Appends the [`Entry::Life`] of this life to `out`.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        Entry::Life {
            boot: self.boot,
            last_seq_before: self.last_seq_before,
            machine: self.machine,
        }
        .write(out);
    }
}

/// The latest lives of this server. The last one is the present life.
#[derive(Default)]
pub(super) struct Lives(Vec<Life>);

impl Lives {
    /// Adds a life that begins now, or that was read from the journal. Keeps only the latest
    /// [`MAX_LIVES`] lives.
    pub(super) fn push(&mut self, life: Life) {
        self.0.push(life);
        let surplus = self.0.len().saturating_sub(MAX_LIVES);
        self.0.drain(..surplus);
    }

    /// Returns all remembered lives, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = Life> {
        self.0.iter().copied()
    }

    /// Implements [`super::Durability::resume_position`].
    pub(super) fn resume_position(&self, boot: BootId, position: u64) -> Option<u64> {
        let index = self.0.iter().position(|life| life.boot == boot)?;
        let machine = self.0[index].machine;
        let since = &self.0[index + 1..];
        if machine == 0 || since.iter().any(|life| life.machine != machine) {
            return None;
        }
        Some(
            since
                .first()
                .map_or(position, |next| position.min(next.last_seq_before)),
        )
    }
}
