//! The lives of this server that its journal remembers, and what one of them says of what a
//! neighbour lacks.

use crate::core::base::boot_id::BootId;
use crate::core::journal::format::Entry;

/// Lives remembered: a neighbour that was away for longer is sent everything.
const MAX_LIVES: usize = 64;

/// A past or present life of this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) boot: BootId,
    /// The boot id of the machine that it was lived on; 0 if that is not known.
    pub(super) machine: u64,
    /// The last change before it.
    pub(super) after: u64,
}

impl Life {
    /// Appends its entry in the journal.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        Entry::Life {
            boot: self.boot,
            after: self.after,
            machine: self.machine,
        }
        .write(out);
    }
}

/// The latest lives, the present one last.
#[derive(Default)]
pub(super) struct Lives(Vec<Life>);

impl Lives {
    /// One more begins, or is told of by the journal; the oldest may be forgotten for it.
    pub(super) fn push(&mut self, life: Life) {
        self.0.push(life);
        let surplus = self.0.len().saturating_sub(MAX_LIVES);
        self.0.drain(..surplus);
    }

    /// All of them, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = Life> {
        self.0.iter().copied()
    }

    /// See [`super::Durability::resume`].
    pub(super) fn resume(&self, boot: BootId, position: u64) -> Option<u64> {
        let place = self.0.iter().position(|life| life.boot == boot)?;
        let machine = self.0[place].machine;
        let since = &self.0[place + 1..];
        if machine == 0 || since.iter().any(|life| life.machine != machine) {
            return None;
        }
        Some(
            since
                .first()
                .map_or(position, |next| position.min(next.after)),
        )
    }
}
