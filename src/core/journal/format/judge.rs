//! Decides whether a gap in a journal is damage, or was left by a crash or a loss of power. A gap
//! is bytes that are not an entry, with a good entry behind them.

use super::{Entry, JournalError, Piece};

/// Gets all pieces (entries and gaps) that a [`Scan`](super::Scan) finds, and decides whether the
/// first gap is damage.
#[derive(Clone, Copy, Debug)]
pub struct Judge {
    /// The present boot id of the machine, 0 if it has none.
    machine: u64,
    /// The boot id in the last [`Entry::Life`] before the first gap.
    last_machine: Option<u64>,
    /// The offset of the first gap.
    broken_at: Option<u64>,
    is_damaged: bool,
}

impl Judge {
    /// Returns a judge that got no piece yet. `machine` is the machine's present boot id (0 if it
    /// has none).
    #[must_use]
    pub fn new(machine: u64) -> Judge {
        Judge {
            machine,
            last_machine: None,
            broken_at: None,
            is_damaged: false,
        }
    }

    /// Notes the next piece of the journal.
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

    /// Whether `entry`, which is behind the first gap, proves that this gap is damage. If the
    /// machine was not restarted, every good entry is a proof. After a restart, a loss of power may
    /// have left the gap. Then the only proof is a `Synced` entry that covers bytes of the gap.
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

    /// Returns the offset of the first gap. The server's start ignores all entries behind this gap.
    #[must_use]
    #[inline]
    pub fn broken_at(&self) -> Option<u64> {
        self.broken_at
    }

    /// Decides whether the server may cut off the file at the first gap when it starts.
    ///
    /// # Errors
    /// The journal is damaged.
    pub fn verdict(&self) -> Result<(), JournalError> {
        match self.broken_at {
            Some(offset) if self.is_damaged => Err(JournalError::Damaged { offset }),
            Some(_) | None => Ok(()),
        }
    }
}
