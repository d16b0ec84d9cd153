//! Tells damage from what a crash or a loss of power leaves: what a start makes of a gap.

use super::{Entry, JournalError, Piece};

/// Watches what a [`Scan`](super::Scan) finds.
#[derive(Clone, Copy, Debug)]
pub struct Judge {
    /// The machine's present boot id, and that of the last life before the first gap.
    machine: u64,
    last_machine: Option<u64>,
    /// Where the first gap begins.
    broken_at: Option<u64>,
    is_damaged: bool,
}

impl Judge {
    /// For a start on a machine with that boot id (0 if it has none).
    #[must_use]
    pub fn new(machine: u64) -> Judge {
        Judge {
            machine,
            last_machine: None,
            broken_at: None,
            is_damaged: false,
        }
    }

    /// Something was found.
    #[inline]
    pub fn note(&mut self, piece: &Piece<'_>) {
        match (piece, self.broken_at) {
            (Piece::Gap { offset, .. }, None) => self.broken_at = Some(*offset),
            (Piece::Gap { .. }, Some(_)) => {}
            (Piece::Entry { entry, .. }, None) => {
                if let Entry::Life { machine, .. } = entry {
                    self.last_machine = Some(*machine);
                }
            }
            (Piece::Entry { entry, .. }, Some(broken_at)) => {
                self.is_damaged |= self.is_damage(entry, broken_at);
            }
        }
    }

    /// Whether a good entry says that what stands before it was whole once. Power can only have
    /// been lost if the machine was started anew; then what was not synced may be there in part.
    fn is_damage(&self, entry: &Entry<'_>, broken_at: u64) -> bool {
        let same_machine =
            self.machine != 0 && self.last_machine.is_none_or(|last| last == self.machine);
        match entry {
            Entry::Synced { offset } => same_machine || *offset > broken_at,
            Entry::Life { .. }
            | Entry::Record { .. }
            | Entry::Heard { .. }
            | Entry::Told { .. } => same_machine,
        }
    }

    /// Where the first gap begins: a start reads no entry behind that.
    #[must_use]
    #[inline]
    pub fn broken_at(&self) -> Option<u64> {
        self.broken_at
    }

    /// Whether a start may cut off what stands behind the first gap.
    ///
    /// # Errors
    /// It is damaged.
    pub fn verdict(&self) -> Result<(), JournalError> {
        match self.broken_at {
            Some(offset) if self.is_damaged => Err(JournalError::Damaged { offset }),
            Some(_) | None => Ok(()),
        }
    }
}
