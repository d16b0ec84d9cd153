//! Decides whether a gap in a journal is damage, or was left by a crash or a loss of power. A gap
//! is bytes that are not an entry, with a good entry after them.

use super::{Entry, JournalError, Piece};

/// Decides whether the first gap is damage, from all pieces (entries and gaps) that a
/// [`Scan`](super::Scan) finds.
#[derive(Clone, Copy, Debug)]
pub struct DamageDetector {
    /// The kernel's present boot id, or 0 if the machine has none.
    machine: u64,
    /// The machine's boot id (`machine`) in the last [`Entry::Life`] before the first gap.
    last_machine: Option<u64>,
    /// The offset of the first gap.
    first_gap: Option<u64>,
    is_damaged: bool,
}

impl DamageDetector {
    /// Returns a detector that has received no piece yet. `machine` is the kernel's present boot
    /// id, or 0 if the machine has none.
    #[must_use]
    pub fn new(machine: u64) -> DamageDetector {
        DamageDetector {
            machine,
            last_machine: None,
            first_gap: None,
            is_damaged: false,
        }
    }

    /// Updates the decision with the next piece of the journal.
    #[inline]
    pub fn observe(&mut self, piece: &Piece<'_>) {
        match (piece, self.first_gap) {
            (Piece::Gap { offset, .. }, None) => self.first_gap = Some(*offset),
            (Piece::Gap { .. }, Some(_)) => {}
            (Piece::Entry { entry, .. }, None) => {
                if let Entry::Life { machine, .. } = entry {
                    self.last_machine = Some(*machine);
                }
            }
            (Piece::Entry { entry, .. }, Some(first_gap)) => {
                self.is_damaged |= self.is_damage(entry, first_gap);
            }
        }
    }

    /// Whether `entry`, which is after the first gap, proves that this gap is damage. If the
    /// machine was not restarted since the last `Life` entry before the gap, or if there is no such
    /// entry, every good entry is a proof. If the machine was restarted, or has no boot id, a loss
    /// of power may have left the gap. Then the only proof is a `Synced` entry that covers bytes of
    /// the gap.
    fn is_damage(&self, entry: &Entry<'_>, first_gap: u64) -> bool {
        let is_same_boot =
            self.machine != 0 && self.last_machine.is_none_or(|last| last == self.machine);
        match entry {
            Entry::Synced { offset } => is_same_boot || *offset > first_gap,
            Entry::Life { .. }
            | Entry::Record { .. }
            | Entry::Received { .. }
            | Entry::Confirmed { .. } => is_same_boot,
        }
    }

    /// Returns the offset of the first gap. The server's start ignores all entries after this gap.
    #[must_use]
    #[inline]
    pub fn first_gap(&self) -> Option<u64> {
        self.first_gap
    }

    /// Returns `Ok` if there is no gap, or if the server may cut off the file at the first gap.
    ///
    /// # Errors
    /// The first gap is damage.
    pub fn check(&self) -> Result<(), JournalError> {
        match self.first_gap {
            Some(offset) if self.is_damaged => Err(JournalError::Damaged { offset }),
            Some(_) | None => Ok(()),
        }
    }
}
