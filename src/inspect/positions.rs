//! Finds the newest position of each client, in the same way as the server does when it starts.

use super::Failure;
use super::census::Damage;
use super::report;
use super::sink::Stop;
use super::source::Journal;
use crate::core::base::counted::Counted;
use crate::core::base::limits::Limits;
use crate::core::journal::format::{Entry, Piece};
use crate::core::table::records::{Merge, Records};
use crate::core::wire::message::At;

/// The number of bytes of records after which one step of copying records from the table ends.
const STEP_BYTES: usize = 64 << 10;

/// The table of records that the server would have after it has read the journal.
pub(super) struct Positions {
    pub(super) records: Records,
    /// The number of records that this version cannot parse or store.
    unparsed: u64,
}

impl Positions {
    pub(super) fn new() -> Positions {
        Positions {
            records: Records::new(&Limits::default()),
            unparsed: 0,
        }
    }

    pub(super) fn add(&mut self, piece: &Piece<'_>) {
        let Piece::Entry {
            entry: Entry::Record { seq, epoch, line },
            ..
        } = piece
        else {
            return;
        };
        let merged = At::parse(line).map(|at| self.records.restore(*seq, *epoch, line, &at));
        match merged {
            Some(Merge::Accepted | Merge::Stale | Merge::Expired) => {}
            Some(Merge::Full | Merge::UnknownServer | Merge::NotAdmitted) | None => {
                self.unparsed += 1
            }
        }
    }

    /// Reads the journal, and keeps the records for which `is_wanted` is true. Also returns the
    /// damaged places of the journal.
    pub(super) fn read(
        journal: &Journal,
        stop: &Stop,
        is_wanted: impl Fn(&At<'_>) -> bool,
    ) -> Result<(Positions, Damage), Failure> {
        let mut positions = Positions::new();
        let mut damage = Damage::default();
        journal.read(stop, |piece| {
            damage.observe(&piece);
            let is_other = match &piece {
                Piece::Entry {
                    entry: Entry::Record { line, .. },
                    ..
                } => At::parse(line).is_some_and(|at| !is_wanted(&at)),
                Piece::Entry { .. } | Piece::Gap { .. } => true,
            };
            if !is_other {
                positions.add(&piece);
            }
            Ok(())
        })?;
        if positions.unparsed > 0 {
            report(format_args!(
                "{} cannot be understood by this version, and {} left out",
                Counted(positions.unparsed, "record"),
                if positions.unparsed == 1 { "is" } else { "are" }
            ));
        }
        Ok((positions, damage))
    }

    /// Calls `visit` with each record, in the order of the changes. The arguments are the
    /// sequence number, the epoch and the `AT` line. If `visit` fails, no further record follows,
    /// and the error is returned.
    pub(super) fn for_each(
        mut self,
        mut visit: impl FnMut(u64, u32, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let reader = self.records.open_reader(0);
        let mut outcome = Ok(());
        while outcome.is_ok() && !self.records.is_caught_up(reader) {
            self.records.copy(reader, STEP_BYTES, |seq, epoch, line| {
                if outcome.is_ok() {
                    outcome = visit(seq, epoch, line);
                }
                line.len()
            });
        }
        outcome
    }
}

/// Warns on the standard error if the journal is damaged. If entries are damaged, the warning says
/// that positions may be missing or old. Returns whether the header or an entry is damaged.
pub(super) fn warn_if_damaged(journal: &Journal, damage: &Damage) -> bool {
    let is_header_repaired = journal
        .head
        .as_ref()
        .is_some_and(|head| head.is_header_repaired);
    if damage.count > 0 {
        report(format_args!(
            "{} is damaged at {} ({} bytes): positions may be missing, or older than they were; herd-journal verify says where",
            journal.path.display(),
            Counted(damage.count, "place"),
            damage.bytes
        ));
    } else if is_header_repaired {
        report(format_args!(
            "the header of {} is damaged; herd-journal repair mends it",
            journal.path.display()
        ));
    }
    is_header_repaired || damage.count > 0
}
