//! Writing a journal anew that has grown too long, while the server works.
//!
//! ```text
//!   Idle ──► Creating ──► Copying ──► Reserving ──► Doubling ──► SwitchDue ──► Switching ──► Idle
//!              │            │           │   │          │             │
//!              │            │           │   └──► Leaving ──┐         │
//!              └────────────┴───────────┴───────────────┴──┴─────────┴──► given up: Idle, and tried again later
//! ```
//!
//! When the journal is twice as long as what it says, a new one is written beside it: a reader in the feed copies the table, a step each
//! turn. When it has caught up, entries go to both files; both are synced; then the new one takes the old one's name. A crash
//! at any point leaves the one or the other, whole.

use std::time::Duration;

use log::{info, warn};

use super::disk_work::{DiskError, DiskWork, Which};
use super::{Durability, JournalFile};
use crate::core::clock::Time;
use crate::core::journal::{Entry, header};
use crate::core::records::{ReaderId, Records};

/// Bytes that are copied in one turn: about a millisecond.
const COPY_STEP: usize = 128 << 10;
/// How long after a failed compaction the next one is tried.
const COMPACT_AGAIN: Duration = Duration::from_secs(60);

/// Where a compaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compaction {
    Idle,
    /// The next file is being made.
    Creating,
    /// This reader copies the table into it.
    Copying(ReaderId),
    /// It has all of the table; entries now go to both files, and room is reserved in it.
    Reserving,
    /// It was given up meanwhile. Nothing is begun until the disk has answered, or that answer would be taken for one to what is begun.
    Leaving,
    /// Both files are to be synced.
    Doubling,
    /// Both are; it is to take the current one's place.
    SwitchDue,
    /// It is taking it.
    Switching,
}

impl Compaction {
    /// Whether there is a next file.
    pub(super) const fn is_on(self) -> bool {
        !matches!(self, Compaction::Idle | Compaction::Leaving)
    }

    /// Whether entries go to both files.
    pub(super) const fn doubles(self) -> bool {
        match self {
            Compaction::Reserving
            | Compaction::Doubling
            | Compaction::SwitchDue
            | Compaction::Switching => true,
            Compaction::Idle
            | Compaction::Creating
            | Compaction::Copying(_)
            | Compaction::Leaving => false,
        }
    }
}

impl Durability {
    /// The compaction's next step, if one is due. `heard` appends what was heard of every neighbour.
    pub(super) fn compaction_work(
        &mut self,
        records: &mut Records,
        now: Time,
        heard: impl FnOnce(&mut Vec<u8>),
    ) -> Option<DiskWork> {
        match self.compaction {
            Compaction::Idle => {
                // What is no record stays, however often it is compacted.
                let needed = records.journal_bytes() + self.fixed_bytes;
                let is_long = self.current.length > self.compact_bytes.max(2 * needed);
                if !(is_long || self.is_incomplete)
                    || now < self.compact_after
                    || self.full_since.is_some()
                {
                    return None;
                }
                self.compaction = Compaction::Creating;
                self.next = JournalFile::default();
                Some(DiskWork::Create)
            }
            Compaction::Copying(reader) if !self.has_stepped => {
                self.has_stepped = true;
                let out = &mut self.for_next;
                records.copy(reader, COPY_STEP, |seq, epoch, line| {
                    Entry::Record { seq, epoch, line }.write(out)
                });
                // Nothing of this turn is unwritten at this point, so whatever comes from here on goes to both.
                if records.is_caught_up(reader) {
                    records.close_reader(reader);
                    let before = self.for_next.len();
                    heard(&mut self.for_next);
                    self.fixed_bytes += (self.for_next.len() - before) as u64;
                    self.compaction = Compaction::Reserving;
                    let offset = self.next.length + self.for_next.len() as u64;
                    self.next.reserved = offset + self.chunk;
                    return Some(DiskWork::Reserve {
                        file: Which::Next,
                        offset,
                        bytes: self.chunk,
                    });
                }
                self.append_work(now)
            }
            Compaction::SwitchDue => {
                self.compaction = Compaction::Switching;
                Some(DiskWork::Switch)
            }
            Compaction::Creating
            | Compaction::Copying(_)
            | Compaction::Reserving
            | Compaction::Leaving
            | Compaction::Doubling
            | Compaction::Switching => None,
        }
    }

    /// The next file is there: what is no record comes first, then the table is copied.
    pub(super) fn begin_copy(&mut self, records: &mut Records) {
        self.for_next = header(&self.server);
        for life in self.lives.iter() {
            life.write(&mut self.for_next);
        }
        self.fixed_bytes = self.for_next.len() as u64;
        self.compaction = Compaction::Copying(records.open_reader(0));
    }

    /// The disk has answered whether there is room in the next file, or in the one that was given up.
    pub(super) fn next_reserved(
        &mut self,
        outcome: Result<(), DiskError>,
        records: &mut Records,
        now: Time,
    ) -> Option<DiskWork> {
        let is_wanted = self.compaction == Compaction::Reserving;
        self.compaction = Compaction::Idle;
        match outcome {
            Ok(()) if is_wanted => self.compaction = Compaction::Doubling,
            Err(error) if is_wanted => return self.give_up_compaction(&error, records, now),
            Ok(()) | Err(_) => {}
        }
        None
    }

    /// The next file is the journal now.
    pub(super) fn switched(&mut self) {
        info!(
            "journal: compacted from {} to {} bytes",
            self.current.length, self.next.length
        );
        self.current = self.next;
        Entry::Synced {
            offset: self.next.synced,
        }
        .write(&mut self.pending);
        self.is_incomplete = false;
        self.compaction = Compaction::Idle;
        self.has_room(); // which was reserved before it took its place
    }

    /// The next file is of no use; the journal goes on as it was.
    pub(super) fn give_up_compaction(
        &mut self,
        error: &DiskError,
        records: &mut Records,
        now: Time,
    ) -> Option<DiskWork> {
        warn!(
            "journal: not compacted: {}; trying again in {} s",
            error.text,
            COMPACT_AGAIN.as_secs()
        );
        if let Compaction::Copying(reader) = self.compaction {
            records.close_reader(reader);
        }
        self.for_next.clear();
        self.compaction = match self.compaction {
            Compaction::Reserving => Compaction::Leaving,
            _ => Compaction::Idle,
        };
        if let Some(syncing) = &mut self.syncing {
            syncing.both = false; // whatever is synced beside the journal
        }
        self.compact_after = now + COMPACT_AGAIN;
        Some(DiskWork::Discard)
    }
}
