//! When what is written down, and what may leave before it is: the journal as a state machine without a disk.
//!
//! The core says what the disk is to do ([`DiskWork`]), whoever has a disk does it and reports back ([`DiskDone`]). What a turn
//! accepted is appended in one write before any reply or record of that turn leaves; with [`Fsync::Always`] it also waits for its sync.
//!
//! # Room
//!
//! An `IAMAT` is only accepted if its journal entry fits into room that is already reserved in the file. So a full disk is found
//! before anything is promised, and refused in words; nothing has to be taken back. Room is reserved well ahead, in the background;
//! when it is used up faster than that, commands wait for it unread.

mod compaction;
mod disk_work;
mod lives;
#[cfg(test)]
mod tests;

use std::time::Duration;

use log::warn;

use self::compaction::Compaction;
pub use self::disk_work::{DiskDone, DiskError, DiskWork, Which};
use self::lives::{Life, Lives};
use crate::core::clock::Time;
use crate::core::herd::BootId;
use crate::core::journal::{Entry, MAX_ENTRY, header};
use crate::core::limits::{Limits, ms};
use crate::core::records::Records;

/// When the disk is asked to make what was appended outlast a loss of power. A crash of the process alone loses nothing either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before the answer leaves.
    Always,
    /// Every `limits.fsync_ms`.
    Interval,
    /// When the system likes.
    Never,
}

/// Whether something may be accepted that has to be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Yes.
    Enough,
    /// Not yet: room is being reserved.
    Wait,
    /// No: the disk is full.
    Full,
}

impl Room {
    /// Whether another record may be accepted; always, if nothing has to be written down.
    #[must_use]
    pub fn for_a_record(durability: Option<&Durability>) -> Room {
        durability.map_or(Room::Enough, |durability| durability.room_for(MAX_ENTRY))
    }
}

/// Room for an entry about a neighbour.
const HEARD_BYTES: usize = 128;
/// How long after a failure the disk is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// One of the two files, as far as it is known here.
#[derive(Clone, Copy, Debug, Default)]
struct JournalFile {
    /// Bytes written into it.
    length: u64,
    /// Up to where it has room.
    reserved: u64,
    /// Up to where it was synced before it became the journal.
    synced: u64,
}

/// A sync on its way.
#[derive(Clone, Copy, Debug)]
struct Syncing {
    /// Up to which change it covers.
    seq: u64,
    /// It is of both files.
    both: bool,
    /// How long the files are.
    length: u64,
    next_length: u64,
}

/// The journal of one server.
pub struct Durability {
    server: String,
    fsync: Fsync,
    fsync_every: Duration,
    compact_bytes: u64,
    /// Room is reserved in pieces of so many bytes, the next one when half of the last is used.
    chunk: u64,
    lives: Lives,

    /// Entries of this turn; with them, everything up to the change `pending_seq` is written.
    pending: Vec<u8>,
    pending_seq: u64,
    /// What the current file is to take, or would not take when it was tried last.
    appending: Vec<u8>,
    appending_seq: u64,
    is_appending: bool,
    /// The disk refused it before.
    is_retry: bool,
    /// Memory for the next turn's entries.
    spare: Vec<u8>,
    /// What the next file is to take.
    for_next: Vec<u8>,

    current: JournalFile,
    next: JournalFile,
    /// Up to where room is being reserved in the current file.
    reserving: Option<u64>,
    /// Since when the disk is known to be full.
    full_since: Option<Time>,

    appended_seq: u64,
    synced_seq: u64,
    /// The sync that is on its way.
    syncing: Option<Syncing>,
    sync_due: Option<Time>,
    /// A neighbour's record was taken that is not in the journal, because there was no room: what was heard may not be noted
    /// until a compaction has written the whole table anew.
    is_incomplete: bool,
    compaction: Compaction,
    /// The compaction's step of this turn is done.
    has_stepped: bool,
    compact_after: Time,
    /// What the last compaction wrote beside the table.
    fixed_bytes: u64,
    failure: Option<String>,
}

impl Durability {
    /// The journal of `server`, not read yet.
    #[must_use]
    pub fn new(server: &str, fsync: Fsync, limits: &Limits) -> Durability {
        Durability {
            server: server.to_owned(),
            fsync,
            fsync_every: ms(limits.fsync_ms),
            compact_bytes: limits.compact_bytes,
            chunk: limits.journal_ahead_bytes,
            lives: Lives::default(),
            pending: Vec::new(),
            pending_seq: 0,
            appending: Vec::new(),
            appending_seq: 0,
            is_appending: false,
            is_retry: false,
            spare: Vec::new(),
            for_next: Vec::new(),
            current: JournalFile::default(),
            next: JournalFile::default(),
            reserving: None,
            full_since: None,
            appended_seq: 0,
            synced_seq: 0,
            syncing: None,
            sync_due: None,
            is_incomplete: false,
            compaction: Compaction::Idle,
            has_stepped: false,
            compact_after: Time::default(),
            fixed_bytes: 0,
            failure: None,
        }
    }

    /// A life that the journal tells of.
    pub fn restore_life(&mut self, boot: BootId, after: u64, machine: u64) {
        self.lives.push(Life {
            boot,
            machine,
            after,
        });
    }

    /// The journal is read: it is good up to `length`, and the table stands at `last_seq`. The life `boot` begins, on a machine
    /// with the boot id `machine`.
    pub fn opened(&mut self, length: u64, machine: u64, boot: BootId, last_seq: u64) {
        self.current = JournalFile {
            length,
            reserved: length,
            synced: 0,
        };
        self.pending_seq = last_seq;
        self.appending_seq = last_seq;
        self.appended_seq = last_seq;
        self.synced_seq = last_seq;
        if length == 0 {
            self.pending = header(&self.server);
        }
        self.live(Life {
            boot,
            machine,
            after: last_seq,
        });
    }

    fn live(&mut self, life: Life) {
        life.write(&mut self.pending);
        self.lives.push(life);
    }

    /// From which change on a neighbour lacks something that says it knows the life `boot` up to `position`; `None` if that is not
    /// known. What that life had beyond its successor's beginning was not written, and its numbers were given out again: it does
    /// not count.
    ///
    /// Nothing is known of a life after which the machine was started anew, and may have lost its power. A change that was
    /// lost then had taken the place of an older one of the same client, which is back now, with its old number; and the
    /// neighbour, which was told that it had everything up to there, may have been sent neither.
    #[must_use]
    pub fn resume(&self, boot: BootId, position: u64) -> Option<u64> {
        self.lives.resume(boot, position)
    }

    /// Whether everything that was accepted is in the journal. While it is not, because the disk refused it or had no room for what a
    /// neighbour taught, nobody may be told that it has everything up to some change, for the same reason.
    #[must_use]
    pub fn is_all_appended(&self) -> bool {
        self.appended_seq == self.pending_seq && !self.is_incomplete
    }

    /// Whether the disk has refused what was promised, and not taken it since.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.is_retry || !self.is_appending && !self.appending.is_empty()
    }

    /// Whether an entry of so many bytes may be promised.
    #[must_use]
    pub fn room_for(&self, bytes: usize) -> Room {
        let end = self.current.length + (self.appending.len() + self.pending.len() + bytes) as u64;
        // What is still to be appended between turns was refused by the disk, room or no room.
        let has_room = end <= self.current.reserved && self.appending.is_empty();
        match (has_room, self.full_since) {
            (true, _) => Room::Enough,
            (false, None) => Room::Wait,
            (false, Some(_)) => Room::Full,
        }
    }

    /// The table took a change.
    pub fn record(&mut self, seq: u64, epoch: u32, line: &[u8]) {
        Entry::Record { seq, epoch, line }.write(&mut self.pending);
        self.pending_seq = seq;
    }

    /// The table took a neighbour's change that there was no room for: its teacher is asked for it again after a restart.
    pub fn record_unwritten(&mut self, seq: u64) {
        self.is_incomplete = true;
        self.pending_seq = seq;
    }

    /// A neighbour's feed was heard up to `position`. Not noted (`false`) while something that came with it is not.
    pub fn heard(&mut self, neighbour: &str, boot: BootId, position: u64) -> bool {
        let may_note = !self.is_incomplete && self.room_for(HEARD_BYTES) == Room::Enough;
        if may_note {
            Entry::Heard {
                neighbour: neighbour.as_bytes(),
                boot,
                position,
            }
            .write(&mut self.pending);
        }
        may_note
    }

    /// Up to which change things may leave the server.
    #[must_use]
    pub fn released(&self) -> u64 {
        match self.fsync {
            Fsync::Always => self.synced_seq,
            Fsync::Interval | Fsync::Never => self.appended_seq,
        }
    }

    /// Every change up to there is in the journal, as safely as promised.
    #[must_use]
    pub fn kept_through(&self) -> u64 {
        match self.is_incomplete {
            true => 0,
            false => self.released(),
        }
    }

    /// A new life begins while the server runs, with a table that stands at `last_seq`.
    pub fn begin_life(&mut self, boot: BootId, last_seq: u64) {
        let machine = self.lives.iter().last().map_or(0, |life| life.machine);
        self.live(Life {
            boot,
            machine,
            after: last_seq,
        });
    }

    /// Why the server can not go on: the disk broke a promise.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// A turn begins: the compaction may take its next step in it.
    pub fn turn_begins(&mut self) {
        self.has_stepped = false;
    }

    /// When [`Durability::next_work`] has to be called next, at the latest.
    #[must_use]
    pub fn deadline(&self, now: Time) -> Option<Time> {
        let copying = matches!(self.compaction, Compaction::Copying(_)).then_some(now);
        // What the disk is busy with is not waited for by time: a slow one would be asked about without a pause.
        let sync = self.sync_due.filter(|_| self.syncing.is_none());
        let is_asked = self.reserving.is_some() || self.compaction == Compaction::Switching;
        let retry = self
            .full_since
            .filter(|_| !is_asked || !self.appending.is_empty())
            .map(|since| since + RETRY);
        copying.into_iter().chain(sync).chain(retry).min()
    }

    /// The next thing that the disk is to do in this turn. `heard` appends what was heard of every neighbour.
    pub fn next_work(
        &mut self,
        records: &mut Records,
        now: Time,
        heard: impl FnOnce(&mut Vec<u8>),
    ) -> Option<DiskWork> {
        if self.failure.is_some() {
            return None;
        }
        self.append_work(now)
            .or_else(|| self.reserve_work(now))
            .or_else(|| self.sync_work(now))
            .or_else(|| self.compaction_work(records, now, heard))
    }

    fn append_work(&mut self, now: Time) -> Option<DiskWork> {
        if !self.for_next.is_empty() {
            let (offset, bytes) = (self.next.length, std::mem::take(&mut self.for_next));
            self.next.length += bytes.len() as u64;
            return Some(DiskWork::Append {
                file: Which::Next,
                offset,
                bytes,
            });
        }
        let is_retry = !self.appending.is_empty();
        let waits = is_retry && self.full_since.is_some_and(|since| now < since + RETRY);
        if self.is_appending || waits {
            return None;
        }
        self.is_retry = is_retry;
        if !is_retry {
            self.appending = std::mem::replace(&mut self.pending, std::mem::take(&mut self.spare));
            self.appending_seq = self.pending_seq;
            if self.compaction.doubles() {
                self.for_next.extend_from_slice(&self.appending);
            }
        }
        if self.appending.is_empty() {
            self.appended_seq = self.appending_seq;
            self.spare = std::mem::take(&mut self.appending);
            return None;
        }
        self.is_appending = true;
        let bytes = std::mem::take(&mut self.appending);
        Some(DiskWork::Append {
            file: Which::Current,
            offset: self.current.length,
            bytes,
        })
    }

    fn reserve_work(&mut self, now: Time) -> Option<DiskWork> {
        let JournalFile {
            length, reserved, ..
        } = self.current;
        let left = reserved.saturating_sub(length + self.appending.len() as u64);
        let waits = self.full_since.is_some_and(|since| now < since + RETRY);
        // A file that is about to lose its name needs no more room.
        let is_going = self.compaction == Compaction::Switching;
        if self.reserving.is_some() || waits || is_going || left >= self.chunk / 2 {
            return None;
        }
        let offset = reserved.max(length);
        self.reserving = Some(offset + self.chunk);
        Some(DiskWork::Reserve {
            file: Which::Current,
            offset,
            bytes: self.chunk,
        })
    }

    fn sync_work(&mut self, now: Time) -> Option<DiskWork> {
        let is_doubling = self.compaction == Compaction::Doubling;
        let covered = self.syncing.map_or(self.synced_seq, |syncing| syncing.seq);
        let is_behind = self.appended_seq > covered;
        let is_due = match self.fsync {
            Fsync::Always => is_behind,
            Fsync::Interval => {
                is_behind && *self.sync_due.get_or_insert(now + self.fsync_every) <= now
            }
            Fsync::Never => false,
        };
        if self.syncing.is_some() || self.is_appending || !(is_due || is_doubling) {
            return None;
        }
        self.sync_due = None;
        // While entries go to both files, an answer may only leave when it is safe in both: a crash may leave either.
        let both = self.compaction.doubles();
        self.syncing = Some(Syncing {
            seq: self.appended_seq,
            both,
            length: self.current.length,
            next_length: self.next.length,
        });
        Some(DiskWork::Sync { both })
    }

    /// The disk did something, or could not. Returns what it is to do at once about it.
    pub fn done(&mut self, done: DiskDone, records: &mut Records, now: Time) -> Option<DiskWork> {
        match done {
            // A compaction that was given up is not heard any more.
            DiskDone::Appended {
                file: Which::Next, ..
            } if !self.compaction.is_on() => {}
            DiskDone::Appended {
                file: Which::Current,
                bytes,
                outcome,
            } => self.appended(bytes, outcome, now),
            DiskDone::Appended {
                file: Which::Next,
                outcome: Ok(()),
                ..
            } => {}
            DiskDone::Reserved(Which::Current, outcome) => self.room_reserved(outcome, now),
            DiskDone::Reserved(Which::Next, outcome) => {
                return self.next_reserved(outcome, records, now);
            }
            DiskDone::Created(Ok(())) => self.begin_copy(records),
            DiskDone::Synced(Ok(())) => self.synced(),
            // What was written may be gone from the cache without being on the disk; asked again, the system would say that
            // all is well (fsyncgate).
            DiskDone::Synced(Err(error)) => self.fail("the journal can not be synced", &error),
            DiskDone::Switched(Ok(())) => self.switched(),
            // It may already be the journal, which then lacks this.
            DiskDone::Appended {
                file: Which::Next,
                outcome: Err(error),
                ..
            } if self.compaction == Compaction::Switching => {
                self.fail("the compacted journal can not be written", &error);
            }
            DiskDone::Appended {
                file: Which::Next,
                outcome: Err(error),
                ..
            }
            | DiskDone::Created(Err(error)) => {
                return self.give_up_compaction(&error, records, now);
            }
            // Which of the two files has the name can not be known.
            DiskDone::Switched(Err(error)) => self.fail(
                "the compacted journal can not take the old one's place",
                &error,
            ),
        }
        None
    }

    fn appended(&mut self, mut bytes: Vec<u8>, outcome: Result<(), DiskError>, now: Time) {
        self.is_appending = false;
        match outcome {
            Ok(()) => {
                if self.is_retry {
                    self.has_room();
                }
                self.current.length += bytes.len() as u64;
                self.appended_seq = self.appending_seq;
                bytes.clear();
                self.spare = bytes;
            }
            // Only where the file system can not reserve room. Nothing was promised yet: it is tried again.
            Err(error) if error.is_full => {
                self.appending = bytes;
                self.is_full(&error, now);
            }
            Err(error) => self.fail("the journal can not be written", &error),
        }
    }

    fn room_reserved(&mut self, outcome: Result<(), DiskError>, now: Time) {
        let end = self.reserving.take().unwrap_or(self.current.reserved);
        match outcome {
            Ok(()) => {
                self.current.reserved = end;
                self.has_room();
            }
            Err(error) => self.is_full(&error, now),
        }
    }

    fn has_room(&mut self) {
        if self.full_since.take().is_some() {
            warn!("journal: there is room again; IAMATs are accepted");
        }
    }

    fn is_full(&mut self, error: &DiskError, now: Time) {
        if self.full_since.replace(now).is_none() {
            warn!(
                "journal: no room: {}; IAMATs are refused until there is some",
                error.text
            );
        }
    }

    fn synced(&mut self) {
        let Some(Syncing {
            seq,
            both,
            length,
            next_length,
        }) = self.syncing.take()
        else {
            return;
        };
        self.synced_seq = self.synced_seq.max(seq);
        if self.compaction == Compaction::Doubling && both {
            self.next.synced = next_length;
            self.compaction = Compaction::SwitchDue;
        }
        if !self.compaction.doubles() {
            Entry::Synced { offset: length }.write(&mut self.pending);
        }
    }

    fn fail(&mut self, what: &str, error: &DiskError) {
        self.failure
            .get_or_insert_with(|| format!("{what}: {}", error.text));
    }
}
