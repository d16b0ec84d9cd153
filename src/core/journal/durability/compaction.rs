//! Compaction: rewriting a journal that has grown too long, while the server works.
//!
//! ```text
//!   Absent      ─ CreateRequested ─► Creating
//!   Creating    ─ Created ─────────► Idle
//!   Creating    ─ CreateFailed ────► Absent
//!   Idle        ─ JournalTooLong ──► Copying
//!   Copying     ─ TableCopied ─────► WritingBoth
//!   WritingBoth ─ BothSynced ──────► SwitchDue
//!   SwitchDue   ─ SwitchRequested ─► Switching
//!   Switching   ─ SyncFailed ──────► Switching
//!   Switching   ─ Switched ────────► Absent
//!   Copying     ─ Abandoned ───────► Absent
//!   WritingBoth ─ Abandoned ───────► Absent
//!   SwitchDue   ─ Abandoned ───────► Absent
//!   Switching   ─ Abandoned ───────► Absent
//! ```
//!
//! Beside the journal there is a next file. The next file is created, and space for it is reserved,
//! long before a compaction begins. So a compaction can run on a full disk. A compaction begins
//! when the journal is much longer than the records of the table need. A reader of the feed copies
//! the table into the next file, one step in each turn (iteration of the event loop). The more
//! bytes the server accepts during the copy, the larger are the steps. After the copy, new entries
//! go to both files. Both files are synced, and then the next file gets the journal's name. So
//! after a crash at any time, the file that has the journal's name is complete.
//!
//! The journal never grows beyond [`Durability::bound`]. At this length, an `IAMAT` is refused, or
//! waits until the next file has replaced the journal. A neighbour's record waits in the backlog.

use std::ops::RangeInclusive;
use std::time::Duration;

use log::{info, warn};

use super::disk_work::{DiskError, DiskWork, JournalFailure, SwitchOutcome};
use super::file::{JournalFile, RETRY};
use super::{Durability, journal_bytes};
use crate::core::base::clock::Time;
use crate::core::base::transitions::assert_transition;
use crate::core::journal::format::{Entry, header_bytes};
use crate::core::table::records::{ReaderId, Records};

/// The minimum and maximum number of bytes that one turn copies. The minimum takes about a
/// millisecond, and the maximum a few milliseconds.
const COPY_STEP: RangeInclusive<u64> = 128 << 10..=1 << 20;
/// For each byte of an entry that is accepted during a compaction, the compaction copies this many
/// bytes. So the compaction ends even under load.
const COPY_RATIO: u64 = 4;
/// The time between a failed compaction and the next attempt. The time doubles after each failure,
/// from the minimum to the maximum. If the journal reaches its bound in this time, `IAMAT`s are
/// refused, and neighbours' records wait in the backlog.
const COMPACTION_RETRY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);

/// The state of the compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compaction {
    /// There is no next file. The server requests one at this time, not earlier.
    Absent(Time),
    /// The next file is being created.
    Creating,
    /// The next file exists, and no compaction is in progress.
    Idle,
    /// This reader copies the table into the next file.
    Copying(ReaderId),
    /// The next file has the whole table. New entries go to both files, and both files have to be
    /// synced.
    WritingBoth,
    /// Both files are synced. The server requests the [`DiskWork::Switch`] next.
    SwitchDue,
    /// The disk is giving the journal's name to the next file.
    Switching {
        /// Whether a sync found no space after the switch was requested. Then the new journal must
        /// be rewritten too.
        is_suspect: bool,
    },
}

/// A [`Compaction`] without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StateKind {
    Absent,
    Creating,
    Idle,
    Copying,
    WritingBoth,
    SwitchDue,
    Switching,
}

/// The causes of transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The server has requested the creation of the next file.
    CreateRequested,
    /// The next file exists.
    Created,
    /// The next file could not be created.
    CreateFailed,
    /// The journal is too long, or has format 1, or a sync of the journal found no space. Or the
    /// disk is full, and a compaction frees enough bytes.
    JournalTooLong,
    /// The copy has reached the end of the table.
    TableCopied,
    /// The disk has synced both files.
    BothSynced,
    /// The server has requested the [`DiskWork::Switch`].
    SwitchRequested,
    /// A sync that was in progress during the switch found no space.
    SyncFailed,
    /// The next file has become the journal.
    Switched,
    /// The compaction was abandoned, because the disk refused a write, a sync or the switch.
    Abandoned,
}

const TRANSITIONS: [(StateKind, Cause, StateKind); 13] = {
    use StateKind::{Absent, Copying, Creating, Idle, SwitchDue, Switching, WritingBoth};
    [
        (Absent, Cause::CreateRequested, Creating),
        (Creating, Cause::Created, Idle),
        (Creating, Cause::CreateFailed, Absent),
        (Idle, Cause::JournalTooLong, Copying),
        (Copying, Cause::TableCopied, WritingBoth),
        (WritingBoth, Cause::BothSynced, SwitchDue),
        (SwitchDue, Cause::SwitchRequested, Switching),
        (Switching, Cause::SyncFailed, Switching),
        (Switching, Cause::Switched, Absent),
        (Copying, Cause::Abandoned, Absent),
        (WritingBoth, Cause::Abandoned, Absent),
        (SwitchDue, Cause::Abandoned, Absent),
        (Switching, Cause::Abandoned, Absent),
    ]
};

/// The state of the compaction, as tests and the simulator see it: `Compaction` without its data.
/// `Absent` counts as `Creating`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CompactionPhase {
    /// There is no next file yet.
    Creating,
    /// The next file exists, and no compaction is in progress.
    Idle,
    /// The table is being copied into the next file.
    Copying,
    /// New entries go to both files.
    WritingBoth,
    /// Both files are synced. The server requests the [`DiskWork::Switch`] next.
    SwitchDue,
    /// The disk is giving the journal's name to the next file.
    Switching,
}

impl CompactionPhase {
    /// All phases, in order.
    pub const ALL: [CompactionPhase; 6] = [
        CompactionPhase::Creating,
        CompactionPhase::Idle,
        CompactionPhase::Copying,
        CompactionPhase::WritingBoth,
        CompactionPhase::SwitchDue,
        CompactionPhase::Switching,
    ];

    /// Returns the name of the phase.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            CompactionPhase::Creating => "Creating",
            CompactionPhase::Idle => "Idle",
            CompactionPhase::Copying => "Copying",
            CompactionPhase::WritingBoth => "WritingBoth",
            CompactionPhase::SwitchDue => "SwitchDue",
            CompactionPhase::Switching => "Switching",
        }
    }
}

impl Compaction {
    pub(super) const fn phase(self) -> CompactionPhase {
        match self {
            Compaction::Absent(_) | Compaction::Creating => CompactionPhase::Creating,
            Compaction::Idle => CompactionPhase::Idle,
            Compaction::Copying(_) => CompactionPhase::Copying,
            Compaction::WritingBoth => CompactionPhase::WritingBoth,
            Compaction::SwitchDue => CompactionPhase::SwitchDue,
            Compaction::Switching { .. } => CompactionPhase::Switching,
        }
    }

    const fn kind(self) -> StateKind {
        match self {
            Compaction::Absent(_) => StateKind::Absent,
            Compaction::Creating => StateKind::Creating,
            Compaction::Idle => StateKind::Idle,
            Compaction::Copying(_) => StateKind::Copying,
            Compaction::WritingBoth => StateKind::WritingBoth,
            Compaction::SwitchDue => StateKind::SwitchDue,
            Compaction::Switching { .. } => StateKind::Switching,
        }
    }

    /// Whether the next file exists.
    const fn has_next(self) -> bool {
        match self {
            Compaction::Absent(_) | Compaction::Creating => false,
            Compaction::Idle
            | Compaction::Copying(_)
            | Compaction::WritingBoth
            | Compaction::SwitchDue
            | Compaction::Switching { .. } => true,
        }
    }

    /// Whether a switch is in progress: the next file gets the journal's name.
    pub(super) const fn is_switching(self) -> bool {
        matches!(self, Compaction::Switching { .. })
    }

    /// Whether a compaction is in progress.
    pub(super) const fn is_running(self) -> bool {
        match self {
            Compaction::Copying(_) => true,
            Compaction::Absent(_) | Compaction::Creating | Compaction::Idle => false,
            Compaction::WritingBoth | Compaction::SwitchDue | Compaction::Switching { .. } => true,
        }
    }

    /// Whether new entries go to both files: the journal and the next file.
    pub(super) const fn writes_both(self) -> bool {
        match self {
            Compaction::WritingBoth | Compaction::SwitchDue | Compaction::Switching { .. } => true,
            Compaction::Absent(_)
            | Compaction::Creating
            | Compaction::Idle
            | Compaction::Copying(_) => false,
        }
    }
}

impl Durability {
    /// Changes the state of the compaction. No other function changes it.
    pub(super) fn enter(&mut self, cause: Cause, compaction: Compaction) {
        let transition = (self.compaction.kind(), cause, compaction.kind());
        assert_transition(&TRANSITIONS, transition);
        self.compaction = compaction;
        debug_assert_eq!(
            self.next.is_some(),
            compaction.has_next(),
            "the next file belongs to the state {compaction:?}"
        );
    }

    /// Returns the maximum number of bytes of a journal that contains exactly this table. The
    /// records of the table need `table` bytes.
    pub(super) fn table_bytes_needed(&self, table: u64) -> u64 {
        let lives = self.lives.iter().count() as u64 + 1;
        let fixed = header_bytes(&self.server) as u64 + lives * Entry::life_bytes() as u64;
        // The last entry is a `Synced`, which is shorter than a `Life`.
        fixed + self.position_bytes + Entry::life_bytes() as u64 + table
    }

    /// Returns the length of the journal, in bytes, above which a compaction begins.
    /// `needed` is the result of [`Durability::table_bytes_needed`].
    pub(super) fn compaction_threshold(&self, needed: u64) -> u64 {
        self.compact_bytes.max(needed + needed / 2)
    }

    /// Returns the maximum length of the journal in bytes: twice the bytes that its table needs,
    /// plus a constant from the limits. The records of the table need `table` bytes.
    #[must_use]
    pub fn bound(&self, table: u64) -> u64 {
        2 * self.table_bytes_needed(table) + self.compact_bytes + 2 * self.reserve_step
    }

    /// Returns the number of bytes that are reserved for the next file before a compaction begins.
    pub(super) fn next_reserve_target(&self, table: u64) -> u64 {
        let needed = self.table_bytes_needed(table);
        needed + needed / 4 + self.reserve_step
    }

    /// Whether a compaction has to begin, and can begin.
    pub(super) fn is_compaction_due(&self, table: u64, now: Time) -> bool {
        let Some(next) = &self.next else {
            return false;
        };
        let needed = self.table_bytes_needed(table);
        if self.compaction != Compaction::Idle || next.reserved < needed {
            return false;
        }
        let is_unusable = self.is_old_format || self.rewrite_at.is_some_and(|at| at <= now);
        if is_unusable {
            return true;
        }
        let length = self.current.length;
        let is_long = length > self.compaction_threshold(needed);
        // On a full disk, a shorter journal is compacted too, if this frees enough bytes.
        let gain = length.saturating_sub(needed);
        let is_short = self.current.is_full() && gain > (self.reserve_step / 4).max(needed / 8);
        (is_long || is_short) && self.compact_after <= now
    }

    /// Does the next step of the compaction, if one is due. `append_positions` appends the
    /// `Received` and `Confirmed` entries of all neighbours to its argument.
    pub(super) fn compaction_work(
        &mut self,
        records: &mut Records,
        now: Time,
        append_positions: impl FnOnce(&mut Vec<u8>),
    ) -> Option<DiskWork> {
        match self.compaction {
            Compaction::Absent(at) if at <= now => {
                self.enter(Cause::CreateRequested, Compaction::Creating);
                self.last_file.0 += 1;
                Some(DiskWork::Create {
                    file: self.last_file,
                })
            }
            Compaction::Idle if self.is_compaction_due(journal_bytes(records), now) => {
                self.begin_copy(records);
                self.append_work(now)
            }
            Compaction::Copying(reader) if !self.has_copied_step && self.can_copy_step() => {
                self.has_copied_step = true;
                self.copy_step(reader, records);
                if records.is_caught_up(reader) {
                    records.close_reader(reader);
                    append_positions(&mut self.next_only);
                    self.begin_writing_both(records);
                }
                self.append_work(now)
            }
            Compaction::SwitchDue => {
                let file = self.next.as_ref()?.id;
                self.enter(
                    Cause::SwitchRequested,
                    Compaction::Switching { is_suspect: false },
                );
                Some(DiskWork::Switch { file })
            }
            Compaction::Absent(_)
            | Compaction::Creating
            | Compaction::Idle
            | Compaction::Copying(_)
            | Compaction::WritingBoth
            | Compaction::Switching { .. } => None,
        }
    }

    /// Whether the next step of the copy may begin: the bytes of the previous step were moved to
    /// the batch.
    pub(super) fn can_copy_step(&self) -> bool {
        self.next_only.is_empty()
    }

    /// Begins the copy of the table. The lives of the server come first.
    fn begin_copy(&mut self, records: &mut Records) {
        self.next_only.clear();
        for life in self.lives.iter() {
            life.write(&mut self.next_only);
        }
        self.next_max_length = self.table_bytes_needed(journal_bytes(records));
        self.accepted_bytes = 0;
        let reader = records.open_reader(0);
        self.enter(Cause::JournalTooLong, Compaction::Copying(reader));
    }

    fn copy_step(&mut self, reader: ReaderId, records: &mut Records) {
        let step_bytes = std::mem::take(&mut self.accepted_bytes).saturating_mul(COPY_RATIO);
        let step_bytes = step_bytes.clamp(*COPY_STEP.start(), *COPY_STEP.end()) as usize;
        let out = &mut self.next_only;
        records.copy(reader, step_bytes, |seq, epoch, line| {
            Entry::Record { seq, epoch, line }.write(out);
            Entry::record_bytes(line.len())
        });
    }

    /// Ends the copy of the table. An entry that is accepted from now on goes to both files. The
    /// copy contains all changes that were accepted earlier, even if their entries are not in the
    /// journal yet.
    fn begin_writing_both(&mut self, records: &Records) {
        self.journal_only_until = if self.is_old_format {
            0
        } else {
            self.pending.len()
        };
        self.copied_seq = records.last_seq();
        let next = self.next.as_ref();
        self.copied_end = next.map_or(0, |next| self.length_with(next, self.next_only.len()));
        self.enter(Cause::TableCopied, Compaction::WritingBoth);
    }

    /// Whether the whole copy of the table is written.
    pub(super) fn is_copied(&self) -> bool {
        self.compaction == Compaction::WritingBoth
            && self
                .next
                .as_ref()
                .is_some_and(|next| next.length >= self.copied_end)
    }

    /// Handles the result of the creation of the next file.
    pub(super) fn created(&mut self, outcome: Result<(), DiskError>, now: Time) {
        if self.compaction != Compaction::Creating {
            return;
        }
        match outcome {
            Ok(()) => {
                self.next = Some(JournalFile::new(self.last_file, self.new_salt(), 0));
                self.enter(Cause::Created, Compaction::Idle);
                self.create_error = None;
            }
            Err(error) => {
                self.enter(Cause::CreateFailed, Compaction::Absent(now + RETRY));
                self.create_error = Some(error);
            }
        }
    }

    /// Handles the result of a switch.
    pub(super) fn switched(&mut self, outcome: SwitchOutcome, records: &mut Records, now: Time) {
        match outcome {
            SwitchOutcome::Done => {}
            SwitchOutcome::Refused(error) => return self.abandon_compaction(&error, records, now),
            SwitchOutcome::Unknown(error) => {
                return self.fail(JournalFailure::Switch(error));
            }
        }
        let Compaction::Switching { is_suspect } = self.compaction else {
            debug_assert!(false, "the disk was asked for no switch");
            return;
        };
        let Some(next) = self.next.take() else {
            debug_assert!(false, "a file that takes the journal's name is there");
            return;
        };
        info!(
            "journal: compacted from {} to {} bytes",
            self.current.length, next.length
        );
        self.batch.chunks.retain(|chunk| chunk.file == next.id);
        self.compactions += 1;
        self.current = next;
        self.current.clear_full();
        self.enter(Cause::Switched, Compaction::Absent(now));
        self.failed_compactions = 0;
        self.is_old_format = false;
        if !is_suspect {
            self.rewrite_at = None;
        }
        self.backlog_copied(records);
        Entry::Synced {
            offset: self.current.synced,
        }
        .write(&mut self.pending);
        self.finish_batch_if_written();
    }

    /// Abandons the compaction and its next file. The journal continues as before.
    pub(super) fn abandon_compaction(
        &mut self,
        error: &DiskError,
        records: &mut Records,
        now: Time,
    ) {
        let wait = COMPACTION_RETRY
            .start()
            .saturating_mul(1 << self.failed_compactions.min(8));
        let wait = wait.min(*COMPACTION_RETRY.end());
        self.failed_compactions += 1;
        warn!(
            "journal: not compacted: {error}; trying again in {} s",
            wait.as_secs()
        );
        if let Compaction::Copying(reader) = self.compaction {
            records.close_reader(reader);
        }
        self.next_only.clear();
        self.journal_only_until = 0;
        if let Some(next) = self.next.take() {
            self.batch.chunks.retain(|chunk| chunk.file != next.id);
            self.discarded.push(next.id);
        }
        self.enter(Cause::Abandoned, Compaction::Absent(now + RETRY));
        self.compact_after = now + wait;
        self.finish_batch_if_written();
    }
}

#[cfg(test)]
mod tests {
    use super::TRANSITIONS;
    use crate::core::base::transitions::assert_diagram;

    #[test]
    fn the_module_docs_show_the_transitions() {
        assert_diagram(include_str!("compaction.rs"), &TRANSITIONS);
    }
}
