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
//!
//! # Compaction
//!
//! ```text
//!   Idle ──► Creating ──► Copying ──► Doubling ──► Switching ──► Idle
//! ```
//!
//! When the journal is twice as long as what it says, a new one is written beside it: a reader in the feed copies the table, a step each
//! turn. When it has caught up, entries go to both files; both are synced; then the new one takes the old one's name. A crash
//! at any point leaves the one or the other, whole.

use std::time::Duration;

use log::{info, warn};

use crate::core::clock::Time;
use crate::core::herd::BootId;
use crate::core::journal::{Entry, MAX_ENTRY, header};
use crate::core::limits::{Limits, ms};
use crate::core::records::{ReaderId, Records};

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

/// A past or present life of this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    boot: BootId,
    machine: u64,
    /// The last change before it.
    after: u64,
}

/// Lives remembered: a neighbour that was away for longer is sent everything.
const MAX_LIVES: usize = 64;
/// Bytes that the compaction copies in one turn: about a millisecond.
const COPY_STEP: usize = 128 << 10;
/// Room for an entry about a neighbour.
const HEARD_BYTES: usize = 128;
/// How long after a failure the disk is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// How long after a failed compaction the next one is tried.
const COMPACT_AGAIN: Duration = Duration::from_secs(60);

/// Where a compaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compaction {
    Idle,
    /// The next file is being made.
    Creating,
    /// This reader copies the table into it.
    Copying(ReaderId),
    /// It has all of the table; entries now go to both files, and room is reserved in it.
    Reserving,
    /// Both files are to be synced.
    Doubling,
    /// Both are; it is to take the current one's place.
    SwitchDue,
    /// It is taking it.
    Switching,
}

impl Compaction {
    /// Whether entries go to both files.
    const fn doubles(self) -> bool {
        match self {
            Compaction::Reserving
            | Compaction::Doubling
            | Compaction::SwitchDue
            | Compaction::Switching => true,
            Compaction::Idle | Compaction::Creating | Compaction::Copying(_) => false,
        }
    }
}

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
    lives: Vec<Life>,

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
            lives: Vec::new(),
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
        Entry::Life {
            boot,
            after: last_seq,
            machine,
        }
        .write(&mut self.pending);
        self.lives.push(Life {
            boot,
            machine,
            after: last_seq,
        });
        let surplus = self.lives.len().saturating_sub(MAX_LIVES);
        self.lives.drain(..surplus);
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
        let place = self.lives.iter().position(|life| life.boot == boot)?;
        let machine = self.lives[place].machine;
        let since = &self.lives[place + 1..];
        if machine == 0 || since.iter().any(|life| life.machine != machine) {
            return None;
        }
        Some(
            since
                .first()
                .map_or(position, |next| position.min(next.after)),
        )
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
    pub fn record(&mut self, seq: u64, line: &[u8]) {
        Entry::Record { seq, line }.write(&mut self.pending);
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
        let is_leaving = self.compaction == Compaction::Switching;
        if self.reserving.is_some() || waits || is_leaving || left >= self.chunk / 2 {
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

    fn compaction_work(
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
                records.copy(reader, COPY_STEP, |seq, line| {
                    Entry::Record { seq, line }.write(out)
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
            | Compaction::Doubling
            | Compaction::Switching => None,
        }
    }

    /// The disk did something, or could not. Returns what it is to do at once about it.
    pub fn done(&mut self, done: DiskDone, records: &mut Records, now: Time) -> Option<DiskWork> {
        let is_compacting = self.compaction != Compaction::Idle;
        match done {
            // A compaction that was given up is not heard any more.
            DiskDone::Appended {
                file: Which::Next, ..
            }
            | DiskDone::Reserved(Which::Next, _)
                if !is_compacting => {}
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
            DiskDone::Reserved(Which::Next, Ok(())) => self.compaction = Compaction::Doubling,
            DiskDone::Created(Ok(())) => {
                self.for_next = header(&self.server);
                for Life {
                    boot,
                    machine,
                    after,
                } in &self.lives
                {
                    let life = Entry::Life {
                        boot: *boot,
                        after: *after,
                        machine: *machine,
                    };
                    life.write(&mut self.for_next);
                }
                self.fixed_bytes = self.for_next.len() as u64;
                self.compaction = Compaction::Copying(records.open_reader(0));
            }
            DiskDone::Synced(Ok(())) => self.synced(),
            // What was written may be gone from the cache without being on the disk; asked again, the system would say that
            // all is well (fsyncgate).
            DiskDone::Synced(Err(error)) => self.fail("the journal can not be synced", &error),
            DiskDone::Switched(Ok(())) => {
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
            | DiskDone::Reserved(Which::Next, Err(error))
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

    fn give_up_compaction(
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
        self.compaction = Compaction::Idle;
        self.compact_after = now + COMPACT_AGAIN;
        Some(DiskWork::Discard)
    }

    fn fail(&mut self, what: &str, error: &DiskError) {
        self.failure
            .get_or_insert_with(|| format!("{what}: {}", error.text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::journal::Replay;
    use crate::core::message::At;
    use crate::core::records::{Offer, Teacher};
    use proptest::prelude::*;
    use std::collections::{HashMap, VecDeque};

    /// A file: what the system's cache has, and what has outlasted a loss of power for sure.
    #[derive(Clone, Default)]
    struct FakeFile {
        cached: Vec<u8>,
        synced: Vec<u8>,
    }

    impl FakeFile {
        fn write(&mut self, offset: u64, bytes: &[u8]) {
            let (start, end) = (offset as usize, offset as usize + bytes.len());
            self.cached.resize(self.cached.len().max(end), 0);
            self.cached[start..end].copy_from_slice(bytes);
        }
    }

    /// A disk whose background work is done when the test says so.
    struct FakeDisk {
        journal: FakeFile,
        next: Option<FakeFile>,
        /// What was asked for and is not done. A switch takes the name and syncs the directory in one.
        background: VecDeque<DiskWork>,
        /// What each sync in the background makes safe: the journal, and the next file.
        syncs: VecDeque<(Vec<u8>, Option<Vec<u8>>)>,
        is_full: bool,
    }

    const FULL: DiskError = DiskError {
        is_full: true,
        text: String::new(),
    };

    impl FakeDisk {
        fn perform(&mut self, work: DiskWork) -> Option<DiskDone> {
            match work {
                DiskWork::Append {
                    file,
                    offset,
                    bytes,
                } => {
                    match (file, &mut self.next) {
                        (Which::Current, _) => self.journal.write(offset, &bytes),
                        (Which::Next, Some(next)) => next.write(offset, &bytes),
                        (Which::Next, None) => panic!("there is no next file"),
                    }
                    Some(DiskDone::Appended {
                        file,
                        bytes,
                        outcome: Ok(()),
                    })
                }
                DiskWork::Create => {
                    self.next = Some(FakeFile::default());
                    Some(DiskDone::Created(Ok(())))
                }
                DiskWork::Discard => {
                    self.next = None;
                    None
                }
                DiskWork::Sync { both } => {
                    // A sync owes nothing to what is written after it was asked for.
                    let next = self.next.as_ref().filter(|_| both);
                    self.syncs.push_back((
                        self.journal.cached.clone(),
                        next.map(|next| next.cached.clone()),
                    ));
                    self.background.push_back(work);
                    None
                }
                DiskWork::Reserve { .. } | DiskWork::Switch => {
                    self.background.push_back(work);
                    None
                }
            }
        }

        fn finish_one(&mut self) -> Option<DiskDone> {
            match self.background.pop_front()? {
                DiskWork::Reserve { file, .. } if self.is_full => {
                    Some(DiskDone::Reserved(file, Err(FULL)))
                }
                DiskWork::Reserve { file, .. } => Some(DiskDone::Reserved(file, Ok(()))),
                DiskWork::Sync { .. } => {
                    let (journal, next_journal) = self.syncs.pop_front()?;
                    self.journal.synced = journal;
                    if let (Some(next), Some(synced)) = (&mut self.next, next_journal) {
                        next.synced = synced;
                    }
                    Some(DiskDone::Synced(Ok(())))
                }
                DiskWork::Switch => {
                    self.journal = self.next.take()?;
                    Some(DiskDone::Switched(Ok(())))
                }
                DiskWork::Append { .. } | DiskWork::Create | DiskWork::Discard => None,
            }
        }
    }

    /// The stamp of each client's record in a journal of these bytes.
    fn table_of(journal: &[u8]) -> HashMap<Vec<u8>, String> {
        let mut records = Records::new(&Limits::default());
        let mut clients = Vec::new();
        let mut replay = Replay::new("Riley", 0);
        replay
            .data_received(journal, |entry| {
                if let Entry::Record { seq, line } = entry {
                    let at = At::parse(line).unwrap();
                    clients.push(at.client.to_vec());
                    records.restore(seq, line, &at);
                }
            })
            .unwrap();
        replay.finish().unwrap();
        let stamp = |client: &[u8]| {
            String::from_utf8(records.line(client).unwrap())
                .unwrap()
                .rsplit(' ')
                .next()
                .unwrap()
                .trim()
                .to_owned()
        };
        clients
            .into_iter()
            .map(|client| (client.clone(), stamp(&client)))
            .collect()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Update(u8),
        Turn,
        Finish,
        Later(u64),
        Full(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0u8..6).prop_map(Step::Update),
            4 => Just(Step::Turn),
            4 => Just(Step::Finish),
            1 => (1u64..2000).prop_map(Step::Later),
            1 => any::<bool>().prop_map(Step::Full),
        ]
    }

    /// Whatever the order in which things happen: what was released is in the journal as it would be found after a kill, and
    /// with `always` after a loss of power.
    fn nothing_released_is_lost(fsync: Fsync, steps: &[Step]) -> Result<(), TestCaseError> {
        let limits = Limits {
            compact_bytes: 600,
            ..Limits::default()
        };
        let mut durability = Durability::new("Riley", fsync, &limits);
        let mut records = Records::new(&limits);
        durability.opened(0, 0, BootId(1), 0);
        let mut disk = FakeDisk {
            journal: FakeFile::default(),
            next: None,
            background: VecDeque::new(),
            syncs: VecDeque::new(),
            is_full: false,
        };
        let mut now = Time::default();
        // Each accepted change: its client and its stamp.
        let mut accepted: Vec<(Vec<u8>, u64)> = Vec::new();
        let mut refused = 0;
        for step in steps {
            match step {
                Step::Update(client) => {
                    let stamp = accepted.len() as u64 + 1;
                    let line = format!("AT Riley +0.000000000 c{client} +1+2 {stamp}");
                    let at = At::parse(line.as_bytes()).unwrap();
                    match durability.room_for(Entry::record_bytes(line.len())) {
                        Room::Enough => {
                            prop_assert_eq!(
                                records.offer(line.as_bytes(), &at, Teacher::NOBODY),
                                Offer::Accepted
                            );
                            durability.record(records.last_seq(), line.as_bytes());
                            accepted.push((at.client.to_vec(), stamp));
                        }
                        Room::Wait | Room::Full => refused += 1,
                    }
                }
                Step::Turn => {
                    durability.turn_begins();
                    let mut works = 0;
                    while let Some(work) = durability.next_work(&mut records, now, |_| ()) {
                        works += 1;
                        prop_assert!(works < 100, "a turn without an end: {:?}", work);
                        if let Some(done) = disk.perform(work) {
                            durability
                                .done(done, &mut records, now)
                                .map(|work| disk.perform(work));
                        }
                    }
                }
                Step::Finish => {
                    if let Some(done) = disk.finish_one() {
                        durability
                            .done(done, &mut records, now)
                            .map(|work| disk.perform(work));
                    }
                }
                Step::Later(ms) => now = now + Duration::from_millis(*ms),
                Step::Full(is_full) => disk.is_full = *is_full,
            }
            prop_assert_eq!(durability.failure(), None);
            let survives = match fsync {
                Fsync::Always => &disk.journal.synced,
                Fsync::Interval | Fsync::Never => &disk.journal.cached,
            };
            let table = table_of(survives);
            for (client, stamp) in accepted.iter().take(durability.released() as usize) {
                let there = table
                    .get(client)
                    .and_then(|stamp| stamp.parse::<u64>().ok());
                prop_assert!(
                    there >= Some(*stamp),
                    "change {} of {:?} was released, and {:?} survives",
                    stamp,
                    client,
                    there
                );
            }
        }
        prop_assert!(refused + accepted.len() <= steps.len());
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

        #[test]
        fn with_always_nothing_released_is_lost_with_the_power(steps in proptest::collection::vec(step(), 1..250)) {
            nothing_released_is_lost(Fsync::Always, &steps)?;
        }

        #[test]
        fn with_interval_nothing_released_is_lost_with_the_process(steps in proptest::collection::vec(step(), 1..250)) {
            nothing_released_is_lost(Fsync::Interval, &steps)?;
        }
    }

    #[test]
    fn a_neighbour_resumes_where_its_life_of_ours_and_the_next_one_agree() {
        let mut durability = Durability::new("Riley", Fsync::Always, &Limits::default());
        durability.restore_life(BootId(9), 0, 6);
        durability.restore_life(BootId(1), 0, 7); // on a machine that was started anew
        durability.restore_life(BootId(2), 90, 7); // the first life had got to 100, of which ten were not written
        durability.opened(1000, 7, BootId(3), 150);
        assert_eq!(durability.resume(BootId(9), 50), None);
        assert_eq!(durability.resume(BootId(1), 50), Some(50));
        assert_eq!(durability.resume(BootId(1), 100), Some(90));
        assert_eq!(durability.resume(BootId(2), 150), Some(150));
        assert_eq!(durability.resume(BootId(2), 170), Some(150));
        assert_eq!(durability.resume(BootId(3), 160), Some(160));
        assert_eq!(durability.resume(BootId(4), 1), None);
    }
}
