//! The journal as a state machine: what is written when, and which output waits for it
//! without a disk.
//!
//! The core says what the disk is to do ([`DiskWork`]), the shell has it done in the background and
//! reports back ([`DiskDone`]). What a turn accepted is appended in one write before any reply or
//! record of that turn leaves; with [`Fsync::Always`] it also waits for its sync. While a write is
//! on its way, what is accepted meanwhile gathers for the next one; only those wait for it whose
//! answers it holds.
//!
//! # Room
//!
//! An `IAMAT` is only accepted if its journal entry fits into room that is already reserved, in
//! every file that takes entries. So a full disk is found before anything is promised, and refused
//! in words; nothing has to be taken back. Room is reserved well ahead, in the background; when it
//! is used up faster than that, commands wait for it unread.
//!
//! # Records without room
//!
//! A neighbour's record is taken into the table also when there is no room to write it down: its
//! own server has promised it. From the first such change on, a reader in the feed stands where the
//! journal ends (the backlog); what lies behind it is written when there is room again, in the
//! feed's order. Until then [`Durability::appended_through`] stays before it, and nothing of our
//! own is accepted.

mod compaction;
mod condition;
mod disk_work;
mod file;
mod lives;
#[cfg(test)]
mod tests;

use std::time::Duration;

use log::warn;

pub use self::compaction::Phase;
use self::compaction::{Cause, Compaction};
pub use self::condition::Condition;
pub use self::disk_work::{
    Chunk, DiskDone, DiskError, DiskErrorKind, DiskWork, FileId, JournalFailure, SwitchOutcome,
};
use self::file::{JournalFile, RETRY};
use self::lives::{Life, Lives};
use crate::core::base::boot_id::BootId;
use crate::core::base::clock::Time;
use crate::core::base::entropy::Entropy;
use crate::core::base::limits::{Limits, ms};
use crate::core::journal::format::{Entry, Format, MAX_ENTRY, Salt, header, seal};
use crate::core::table::records::{ReaderId, Records};

/// About how many bytes a journal of exactly this table takes.
#[must_use]
pub fn journal_bytes(records: &Records) -> u64 {
    let epochs = records.later_epochs() * size_of::<u32>();
    (records.line_bytes() + records.len() * Entry::record_bytes(0) + epochs) as u64
}

/// When the disk is asked to make what was appended outlast a loss of power. A crash of the process
/// alone loses nothing either way.
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
    /// Not yet: room is being made.
    Wait,
    /// No: the disk is full.
    Full,
}

impl Room {
    /// Whether another record may be accepted; always, if nothing has to be written down.
    #[must_use]
    pub fn for_a_record(durability: Option<&Durability>, records: &Records) -> Room {
        durability.map_or(Room::Enough, |durability| {
            durability.room_for(journal_bytes(records), MAX_ENTRY)
        })
    }
}

/// A journal that was read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// It is good up to here, and ends here.
    pub length: u64,
    /// How it is written; `None` if nothing is yet.
    pub format: Option<Format>,
    /// The boot id of the machine, 0 if that is not known.
    pub machine: u64,
}

/// Bytes of the backlog that are written in one turn.
const BACKLOG_STEP: usize = 128 << 10;

/// A sync on its way.
#[derive(Clone, Copy, Debug)]
struct Syncing {
    since: Time,
    /// Up to which change it covers.
    seq: u64,
    /// How long the journal is.
    length: u64,
    /// How long the next file is, if it is synced too.
    next_length: Option<u64>,
    /// All of the table that was copied into the next file is covered.
    is_copy_covered: bool,
}

/// What is being appended.
#[derive(Default)]
struct Batch {
    /// With it, everything up to this change is written.
    seq: u64,
    /// What the disk has not taken yet; empty while it is on its way.
    chunks: Vec<Chunk>,
    is_on_its_way: bool,
    on_its_way_since: Time,
    /// Since when the disk refuses it.
    refused_since: Option<Time>,
}

/// Changes that the journal lacks, because there was no room when they were made.
#[derive(Clone, Copy, Debug)]
struct Backlog {
    /// The last change before them.
    after: u64,
    /// Reads them; there is none yet in the turn in which the first of them was made.
    reader: Option<ReaderId>,
}

/// The journal of one server.
pub struct Durability {
    server: String,
    fsync: Fsync,
    fsync_every: Duration,
    compact_bytes: u64,
    /// Room is reserved in pieces of so many bytes, the next one when half of the last is used.
    chunk: u64,
    /// What was heard of all neighbours takes so many bytes, at most.
    heard_bytes: u64,
    salts: Entropy,
    lives: Lives,
    machine: u64,

    /// Entries of this turn, without checksums; with them, everything up to the change
    /// `pending_seq` is written.
    pending: Vec<u8>,
    pending_seq: u64,
    /// The first bytes of `pending`, which are for the journal alone: the next file has them in its
    /// copy of the table.
    single_until: usize,
    /// What the next file is to take before them.
    for_next: Vec<u8>,
    batch: Batch,
    /// Memory for the next turn's entries.
    spare_memory: Vec<u8>,

    current: JournalFile,
    /// It is of a format that is not written any more: nothing is appended to it.
    is_old_format: bool,
    /// The file that is to take its place.
    next: Option<JournalFile>,
    last_file: FileId,
    /// Files that are to be removed.
    discarded: Vec<FileId>,
    /// Why the next file could not be made.
    create_error: Option<DiskError>,

    appended_seq: u64,
    synced_seq: u64,
    /// The sync that is on its way.
    syncing: Option<Syncing>,
    sync_due: Option<Time>,
    backlog: Option<Backlog>,
    /// A compaction is put off until `compact_after`.
    is_compaction_wanted: bool,
    /// It is not known what of the journal is on the disk, as a sync found no room: it has to be
    /// written anew, from then on.
    rewrite_at: Option<Time>,

    /// Changed by [`Durability::enter`] alone. What stands beside it is independent of it, but for
    /// what the next file is to take and where its copy ends, which a copy sets when it begins.
    compaction: Compaction,
    /// The compaction's step of this turn is done.
    has_stepped: bool,
    compact_after: Time,
    /// Compactions that failed since the last one that did not.
    failed_compactions: u32,
    /// The next file will not be longer than this when the table is copied.
    next_promised: u64,
    /// The copy of the table ends there in the next file, and has everything up to this change.
    copied_end: u64,
    copied_seq: u64,
    /// Bytes of entries accepted since the compaction's last step.
    accepted_bytes: u64,

    /// IAMATs are refused, and the log knows.
    refuses: bool,
    refuses_since: Time,
    /// So many bytes have to be free then.
    wanted_bytes: u64,
    /// Why the disk had no room when it was asked last.
    full_reason: Option<DiskError>,
    failure: Option<JournalFailure>,
}

impl Durability {
    /// The journal of `server`, not read yet. What was heard of all neighbours takes at most
    /// `heard_bytes` in it; the salts of its files come from `salts`.
    #[must_use]
    pub fn new(
        server: &str,
        fsync: Fsync,
        limits: &Limits,
        heard_bytes: u64,
        salts: Entropy,
    ) -> Durability {
        Durability {
            server: server.to_owned(),
            fsync,
            fsync_every: ms(limits.fsync_ms),
            compact_bytes: limits.compact_bytes,
            chunk: limits.journal_ahead_bytes,
            heard_bytes,
            salts,
            lives: Lives::default(),
            machine: 0,
            pending: Vec::new(),
            pending_seq: 0,
            single_until: 0,
            for_next: Vec::new(),
            batch: Batch::default(),
            spare_memory: Vec::new(),
            current: JournalFile::new(FileId(0), Salt(0), 0),
            is_old_format: false,
            next: None,
            last_file: FileId(0),
            discarded: Vec::new(),
            create_error: None,
            appended_seq: 0,
            synced_seq: 0,
            syncing: None,
            sync_due: None,
            backlog: None,
            is_compaction_wanted: false,
            rewrite_at: None,
            compaction: Compaction::Absent(Time::default()),
            has_stepped: false,
            compact_after: Time::default(),
            failed_compactions: 0,
            next_promised: 0,
            copied_end: 0,
            copied_seq: 0,
            accepted_bytes: 0,
            refuses: false,
            refuses_since: Time::default(),
            wanted_bytes: 0,
            full_reason: None,
            failure: None,
        }
    }

    fn new_salt(&mut self) -> Salt {
        Salt(self.salts.number())
    }

    /// A life that the journal tells of.
    pub fn restore_life(&mut self, boot: BootId, after: u64, machine: u64) {
        self.lives.push(Life {
            boot,
            machine,
            after,
        });
    }

    /// The journal is read, and the table stands at `last_seq`. The life `boot` begins.
    pub fn opened(&mut self, opened: Opened, boot: BootId, last_seq: u64) {
        let Opened {
            length,
            format,
            machine,
        } = opened;
        let salt = match format {
            Some(Format::Two(salt)) => salt,
            Some(Format::One) | None => self.new_salt(),
        };
        self.is_old_format = format == Some(Format::One);
        self.current = JournalFile::new(FileId(0), salt, length);
        self.machine = machine;
        self.pending_seq = last_seq;
        self.batch.seq = last_seq;
        self.appended_seq = last_seq;
        self.synced_seq = last_seq;
        self.begin_life(boot, last_seq);
    }

    /// The life `boot` begins behind the change `last_seq`.
    pub fn begin_life(&mut self, boot: BootId, last_seq: u64) {
        let life = Life {
            boot,
            machine: self.machine,
            after: last_seq,
        };
        self.lives.push(life);
        // The copy has the lives at its beginning, and not what is pending when it is done.
        if matches!(self.compaction, Compaction::Copying(_)) {
            life.write(&mut self.for_next);
            self.next_promised += Entry::life_bytes() as u64;
        }
        // A journal of an old format is written anew first, with all lives.
        if !self.is_old_format || self.compaction.doubles() {
            life.write(&mut self.pending);
        }
    }

    /// From which change on a neighbour lacks something that says it knows the life `boot` up to
    /// `position`; `None` if that is not known. What that life had beyond its successor's beginning
    /// was not written, and its numbers were given out again: it does not count.
    ///
    /// Nothing is known of a life after which the machine was started anew, and may have lost its
    /// power. A change that was lost then had taken the place of an older one of the same client,
    /// which is back now, with its old number; and the neighbour, which was told that it had
    /// everything up to there, may have been sent neither.
    #[must_use]
    pub fn resume(&self, boot: BootId, position: u64) -> Option<u64> {
        self.lives.resume(boot, position)
    }

    /// Up to which change everything is in the journal, whatever was accepted since. A neighbour
    /// may be told that it has everything up to a position of the feed once this has reached the
    /// latest change at the moment when that position was read: a later change may have taken the
    /// place of a record that the neighbour lacks, and if that change is lost, the older record is
    /// back.
    #[must_use]
    pub fn appended_through(&self) -> u64 {
        match self.backlog {
            Some(Backlog { after, .. }) => self.appended_seq.min(after),
            None => self.appended_seq,
        }
    }

    /// Up to which change everything is in the journal as safely as an answer promises it.
    #[must_use]
    pub fn kept_through(&self) -> u64 {
        self.appended_through().min(self.released())
    }

    /// Whether the disk has refused what was promised, and not taken it since.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.batch.refused_since.is_some() || self.rewrite_at.is_some()
    }

    /// Where a compaction stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.compaction.phase()
    }

    /// How long the journal is.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.current.length
    }

    /// Whether an entry of so many bytes may be promised, where the records of the table take
    /// `table` bytes in a journal.
    #[must_use]
    pub fn room_for(&self, table: u64, bytes: usize) -> Room {
        if self.has_room(table, bytes as u64) {
            Room::Enough
        } else if self.refuses {
            Room::Full
        } else {
            Room::Wait
        }
    }

    fn has_room(&self, table: u64, bytes: u64) -> bool {
        let is_well = self.backlog.is_none() && self.rewrite_at.is_none();
        if !is_well || self.batch.refused_since.is_some() {
            return false;
        }
        let has_current =
            !self.is_old_format && self.current_end() + bytes <= self.current.reserved;
        let has_next = match (&self.next, self.compaction) {
            // One is being made: what may be accepted until then is little.
            (None, _) => self.create_error.is_none(),
            (Some(next), Compaction::Idle) => {
                !next.is_full() || self.needed(table) + bytes <= next.reserved
            }
            (Some(next), Compaction::Copying(_)) => self.next_promised + bytes <= next.reserved,
            (Some(next), _) => self.next_end(next) + bytes <= next.reserved,
        };
        has_current && has_next
    }

    /// How long the journal is when all is written that it is to take.
    fn current_end(&self) -> u64 {
        self.end_of(&self.current, self.pending.len())
    }

    /// How long the next file is when all is written that it is to take.
    fn next_end(&self, next: &JournalFile) -> u64 {
        self.end_of(
            next,
            self.for_next.len() + self.pending.len() - self.single_until,
        )
    }

    fn end_of(&self, file: &JournalFile, more: usize) -> u64 {
        let header = if file.is_untouched() {
            self.header_of(file).len()
        } else {
            0
        };
        let refused = self
            .batch
            .chunks
            .iter()
            .filter(|chunk| chunk.file == file.id);
        let refused: usize = refused.map(|chunk| chunk.bytes.len()).sum();
        file.length + file.on_its_way + (header + refused + more) as u64
    }

    /// The table took a change, for which there is room.
    pub fn record(&mut self, seq: u64, epoch: u32, line: &[u8]) {
        let before = self.pending.len();
        Entry::Record { seq, epoch, line }.write(&mut self.pending);
        self.pending_seq = seq;
        self.accepted((self.pending.len() - before) as u64);
    }

    /// The table took a neighbour's change for which there is no room.
    pub fn record_unwritten(&mut self, seq: u64, line: &[u8]) {
        self.backlog.get_or_insert(Backlog {
            after: seq.saturating_sub(1),
            reader: None,
        });
        self.pending_seq = seq;
        self.accepted(Entry::record_bytes(line.len()) as u64 + 4);
    }

    /// While the table is copied, whatever changes is copied again.
    fn accepted(&mut self, bytes: u64) {
        self.accepted_bytes += bytes;
        self.next_promised += bytes;
    }

    /// A neighbour's feed was heard up to `position`. Not noted (`false`) while something that came
    /// with it is not.
    pub fn heard(&mut self, table: u64, neighbour: &str, boot: BootId, position: u64) -> bool {
        let neighbour = neighbour.as_bytes();
        self.note(
            table,
            neighbour.len(),
            &Entry::Heard {
                neighbour,
                boot,
                position,
            },
        )
    }

    /// A neighbour was told of our feed up to `position`. Not noted (`false`) while there is no
    /// room.
    pub fn told(&mut self, table: u64, neighbour: &str, position: u64) -> bool {
        let neighbour = neighbour.as_bytes();
        self.note(
            table,
            neighbour.len(),
            &Entry::Told {
                neighbour,
                position,
            },
        )
    }

    fn note(&mut self, table: u64, name: usize, entry: &Entry<'_>) -> bool {
        let bytes = Entry::heard_bytes(name);
        let may_note = self.room_for(table, bytes) == Room::Enough;
        if may_note {
            entry.write(&mut self.pending);
            self.accepted(bytes as u64);
        }
        may_note
    }

    /// Up to which change things may leave the server. What a neighbour taught may leave unwritten.
    #[must_use]
    pub fn released(&self) -> u64 {
        match self.fsync {
            Fsync::Always => self.synced_seq,
            Fsync::Interval | Fsync::Never => self.appended_seq,
        }
    }

    /// Why the server cannot go on: the disk broke a promise. From then on nothing may leave the
    /// server.
    #[must_use]
    pub fn failure(&self) -> Option<&JournalFailure> {
        self.failure.as_ref()
    }

    /// A turn begins: the compaction may take its next step in it.
    pub fn turn_begins(&mut self) {
        self.has_stepped = false;
    }

    /// When [`Durability::next_work`] has to be called next, at the latest.
    #[must_use]
    pub fn deadline(&self, now: Time) -> Option<Time> {
        let steps = match self.compaction {
            Compaction::Copying(_) => self.can_step(),
            Compaction::Absent(_)
            | Compaction::Creating
            | Compaction::Idle
            | Compaction::Doubling
            | Compaction::SwitchDue
            | Compaction::Switching { .. } => false,
        };
        // What the disk is busy with is not waited for by time: a slow one would be asked about
        // without a pause.
        let sync = self.sync_due.filter(|_| self.syncing.is_none());
        let create = match self.compaction {
            Compaction::Absent(at) => Some(at),
            _ => None,
        };
        let refused = self
            .batch
            .refused_since
            .filter(|_| !self.batch.is_on_its_way);
        let retry = refused.map(|since| since + RETRY);
        let rewrite = self.rewrite_at.filter(|_| !self.compaction.is_on());
        let files = [
            self.current.retry_at(),
            self.next.as_ref().and_then(JournalFile::retry_at),
        ];
        steps
            .then_some(now)
            .into_iter()
            .chain(sync)
            .chain(create)
            .chain(retry)
            .chain(rewrite.filter(|at| *at > now))
            // One that has come and was not asked for is not needed.
            .chain(files.into_iter().flatten().filter(|at| *at > now))
            .chain(self.is_compaction_wanted.then_some(self.compact_after))
            .min()
    }

    /// The next thing that the disk is to do. `heard` appends what was heard of every neighbour.
    pub fn next_work(
        &mut self,
        records: &mut Records,
        now: Time,
        heard: impl FnOnce(&mut Vec<u8>),
    ) -> Option<DiskWork> {
        if self.failure.is_some() {
            return None;
        }
        if let Some(file) = self.discarded.pop() {
            return Some(DiskWork::Discard { file });
        }
        self.backlog_step(records);
        let work = self
            .append_work(now)
            .or_else(|| self.reserve_work(journal_bytes(records), now))
            .or_else(|| self.sync_work(now))
            .or_else(|| self.compaction_work(records, now, heard));
        if work.is_none() {
            self.note_room(journal_bytes(records), now);
        }
        work
    }

    /// Writes more of what there was no room for, if there is some now and nothing else is being
    /// written.
    fn backlog_step(&mut self, records: &mut Records) {
        let Some(backlog) = &mut self.backlog else {
            return;
        };
        let is_busy = self.batch.is_on_its_way || !self.batch.chunks.is_empty();
        let is_usable = !self.is_old_format && self.rewrite_at.is_none();
        // While entries go to both files, the next one has most of the backlog in its copy of the
        // table.
        if is_busy || !is_usable || self.compaction.doubles() || !self.pending.is_empty() {
            return;
        }
        let after = backlog.after;
        let reader = *backlog
            .reader
            .get_or_insert_with(|| records.open_reader(after));
        if records.is_caught_up(reader) {
            records.close_reader(reader);
            self.backlog = None;
            return;
        }
        let room = self.current.reserved.saturating_sub(self.current_end());
        let bytes = usize::try_from(room)
            .unwrap_or(usize::MAX)
            .saturating_sub(MAX_ENTRY);
        let out = &mut self.pending;
        records.copy(reader, bytes.min(BACKLOG_STEP), |seq, epoch, line| {
            Entry::Record { seq, epoch, line }.write(out);
            Entry::record_bytes(line.len())
        });
    }

    /// The file that is the journal now has everything up to the change `copied_seq`.
    fn backlog_copied(&mut self, records: &mut Records) {
        let Some(Backlog { after, reader }) = self.backlog else {
            return;
        };
        if let Some(reader) = reader {
            records.close_reader(reader);
        }
        let after = after.max(self.copied_seq);
        self.backlog = (after < records.last_seq()).then_some(Backlog {
            after,
            reader: None,
        });
    }

    fn append_work(&mut self, now: Time) -> Option<DiskWork> {
        if self.batch.is_on_its_way {
            return None;
        }
        if self.batch.chunks.is_empty() {
            self.fill_batch();
        }
        let waits = self
            .batch
            .refused_since
            .is_some_and(|since| now < since + RETRY);
        if self.batch.chunks.is_empty() || waits {
            return None;
        }
        let chunks = std::mem::take(&mut self.batch.chunks);
        for chunk in &chunks {
            if let Some(file) = self.file(chunk.file) {
                file.on_its_way = chunk.bytes.len() as u64;
            }
        }
        self.batch.is_on_its_way = true;
        self.batch.on_its_way_since = now;
        Some(DiskWork::Append(chunks))
    }

    /// What gathered is to be appended.
    fn fill_batch(&mut self) {
        let doubles = self.compaction.doubles();
        let mut for_next = std::mem::take(&mut self.for_next);
        if doubles {
            for_next.extend_from_slice(&self.pending[self.single_until..]);
        }
        if !self.is_old_format && !self.pending.is_empty() {
            let memory = std::mem::take(&mut self.spare_memory);
            let entries = std::mem::replace(&mut self.pending, memory);
            let chunk = self.chunk_for(&self.current, entries);
            self.batch.chunks.push(chunk);
        }
        if let Some(next) = self.next.as_ref().filter(|_| !for_next.is_empty()) {
            let chunk = self.chunk_for(next, for_next);
            self.batch.chunks.push(chunk);
        }
        if !self.is_old_format || doubles {
            self.pending.clear();
            self.single_until = 0;
            self.batch.seq = self.pending_seq;
        }
        self.batch_progressed();
    }

    /// Entries as they are to stand behind what the file has.
    fn chunk_for(&self, file: &JournalFile, mut entries: Vec<u8>) -> Chunk {
        let mut offset = file.length;
        if file.is_untouched() {
            let header = self.header_of(file);
            seal(&mut entries, file.salt, header.len() as u64);
            entries.splice(..0, header);
            offset = 0;
        } else {
            seal(&mut entries, file.salt, offset);
        }
        Chunk {
            file: file.id,
            offset,
            bytes: entries,
        }
    }

    /// What a file begins with.
    fn header_of(&self, file: &JournalFile) -> Vec<u8> {
        header(&self.server, file.salt)
    }

    fn file(&mut self, id: FileId) -> Option<&mut JournalFile> {
        let files = [Some(&mut self.current), self.next.as_mut()];
        files.into_iter().flatten().find(|file| file.id == id)
    }

    fn reserve_work(&mut self, table: u64, now: Time) -> Option<DiskWork> {
        let (half, chunk, bound) = (self.chunk / 2, self.chunk, self.bound(table));
        let end = self.current_end();
        // A file that is about to lose its name needs no more room.
        let is_going = self.compaction.is_switching() || self.is_old_format;
        if !is_going
            && self.current.reserved < end + half
            && let Some(work) = self.current.reserve((end + chunk).min(bound), now)
        {
            return Some(work);
        }
        let target = match (&self.next, self.compaction) {
            (None, _) => return None,
            (Some(next), Compaction::Idle) => {
                let target = self.spare_target(table);
                if next.reserved + chunk / 2 > target {
                    return None;
                }
                target
            }
            (Some(next), Compaction::Copying(_)) if next.reserved < self.next_promised + half => {
                self.next_promised + chunk
            }
            (Some(next), _) if next.reserved < self.next_end(next) + half => {
                self.next_end(next) + chunk
            }
            (Some(_), _) => return None,
        };
        self.next.as_mut()?.reserve(target, now)
    }

    fn sync_work(&mut self, now: Time) -> Option<DiskWork> {
        let is_switch_due = self.is_copied();
        let is_behind =
            self.appended_seq > self.syncing.map_or(self.synced_seq, |syncing| syncing.seq);
        // What the journal itself has is not worth a sync if it has to be written anew.
        let has_current = !self.is_old_format && self.rewrite_at.is_none();
        let is_due = match self.fsync {
            _ if !has_current => false,
            Fsync::Always => is_behind,
            Fsync::Interval => {
                is_behind && *self.sync_due.get_or_insert(now + self.fsync_every) <= now
            }
            Fsync::Never => false,
        };
        if self.syncing.is_some() || !(is_due || is_switch_due) {
            return None;
        }
        self.sync_due = None;
        // While entries go to both files, an answer may only leave when it is safe in both: a crash
        // may leave either.
        let next = self.next.as_ref().filter(|_| self.compaction.doubles());
        self.syncing = Some(Syncing {
            since: now,
            seq: if has_current {
                self.appended_seq
            } else {
                self.synced_seq
            },
            length: self.current.length,
            next_length: next.map(|next| next.length),
            is_copy_covered: is_switch_due,
        });
        let current = has_current.then_some(self.current.id);
        let files = current.into_iter().chain(next.map(|next| next.id));
        Some(DiskWork::Sync {
            files: files.collect(),
        })
    }

    /// The disk did something, or could not.
    pub fn done(&mut self, done: DiskDone, records: &mut Records, now: Time) {
        if self.failure.is_some() {
            return; // whatever went well beside that, nothing leaves any more
        }
        match done {
            DiskDone::Appended { chunks, outcome } => self.appended(chunks, outcome, records, now),
            DiskDone::Reserved { file, outcome } => {
                let refused = self
                    .file(file)
                    .and_then(|file| file.reserve_done(outcome, now));
                self.full_reason = refused.or(self.full_reason.take());
            }
            DiskDone::Created { file, outcome } if file == self.last_file => {
                self.created(outcome, now);
            }
            DiskDone::Created { .. } => {}
            DiskDone::Synced {
                outcome: Ok(()), ..
            } => self.synced(),
            DiskDone::Synced {
                outcome: Err(error),
                ..
            } => self.not_synced(error, records, now),
            DiskDone::Switched { outcome, .. } => self.switched(outcome, records, now),
        }
    }

    fn appended(
        &mut self,
        mut chunks: Vec<Chunk>,
        outcome: Result<(), (FileId, DiskError)>,
        records: &mut Records,
        now: Time,
    ) {
        self.batch.is_on_its_way = false;
        let (refused, error) = match outcome {
            Ok(()) => (None, None),
            Err((file, error)) => (Some(file), Some(error)),
        };
        let written = chunks
            .iter()
            .take_while(|chunk| Some(chunk.file) != refused)
            .count();
        let rest = chunks.split_off(written);
        for chunk in &rest {
            if let Some(file) = self.file(chunk.file) {
                file.on_its_way = 0;
            }
        }
        for Chunk {
            file, mut bytes, ..
        } in chunks
        {
            // A file that was given up meanwhile is not heard of any more.
            if let Some(file) = self.file(file) {
                file.on_its_way = 0;
                file.length += bytes.len() as u64;
            }
            if self.spare_memory.capacity() < bytes.capacity() {
                bytes.clear();
                self.spare_memory = bytes;
            }
        }
        let live = [
            Some(self.current.id),
            self.next.as_ref().map(|next| next.id),
        ];
        self.batch.chunks = rest;
        self.batch
            .chunks
            .retain(|chunk| live.contains(&Some(chunk.file)));
        let is_live = live.contains(&refused);
        if let (Some(file), Some(error), true) = (refused, error, refused.is_some() && is_live) {
            self.refused(file, error, records, now);
        }
        self.batch_progressed();
    }

    /// A file did not take what it was to take.
    fn refused(&mut self, file: FileId, error: DiskError, records: &mut Records, now: Time) {
        let is_giving_up = match self.compaction {
            // Without reserved room, what the next file takes may be what the journal lacks.
            Compaction::Copying(_) | Compaction::Doubling | Compaction::SwitchDue => {
                file != self.current.id || error.kind == DiskErrorKind::Full
            }
            Compaction::Absent(_)
            | Compaction::Creating
            | Compaction::Idle
            // It may already be the journal, which would then lack this.
            | Compaction::Switching { .. } => false,
        };
        if is_giving_up && !self.is_old_format {
            self.give_up_compaction(&error, records, now);
            if file != self.current.id {
                return;
            }
        }
        match error.kind {
            DiskErrorKind::Full => {
                self.batch.refused_since = Some(now);
                self.full_reason = Some(error);
            }
            DiskErrorKind::Broken => self.fail(JournalFailure::Append(error)),
        }
    }

    /// Some of what was to be appended is written, or need not be any more.
    fn batch_progressed(&mut self) {
        if !self.batch.is_on_its_way && self.batch.chunks.is_empty() {
            self.batch.refused_since = None;
            self.appended_seq = self.batch.seq;
        }
    }

    fn synced(&mut self) {
        let Some(syncing) = self.syncing.take() else {
            return;
        };
        self.synced_seq = self.synced_seq.max(syncing.seq);
        match (self.compaction, syncing.next_length) {
            (Compaction::Doubling, Some(length)) if syncing.is_copy_covered => {
                if let Some(next) = &mut self.next {
                    next.synced = length;
                }
                self.enter(Cause::BothSynced, Compaction::SwitchDue);
            }
            (_, None) if !self.compaction.doubles() => self.note_synced(syncing.length),
            _ => {}
        }
    }

    /// Notes in the journal that it is synced up to there, if there is room for that.
    fn note_synced(&mut self, offset: u64) {
        let bytes = Entry::life_bytes() as u64; // a little more than it takes
        if self.current_end() + bytes <= self.current.reserved {
            Entry::Synced { offset }.write(&mut self.pending);
            self.accepted(bytes);
        }
    }

    /// What was written may be gone from the cache without being on the disk; asked again, the
    /// system would say that all is well (fsyncgate).
    fn not_synced(&mut self, error: DiskError, records: &mut Records, now: Time) {
        self.syncing = None;
        match error.kind {
            DiskErrorKind::Broken => self.fail(JournalFailure::Sync(error)),
            // A file system that finds room only when it writes (NFS): everything is written anew,
            // into another file.
            DiskErrorKind::Full => {
                // At once; if that finds no room either, not before there may be some.
                let is_again = self.rewrite_at.is_some();
                self.rewrite_at = Some(if is_again { now + RETRY } else { now });
                // It was due while this one was on its way, and is not asked for now.
                self.sync_due = None;
                if self.compaction.is_switching() {
                    let is_suspect = true;
                    self.enter(Cause::SyncFailed, Compaction::Switching { is_suspect });
                } else if self.compaction.is_on() {
                    self.give_up_compaction(&error, records, now);
                }
                self.full_reason = Some(error);
            }
        }
    }

    /// Notes whether anything is to be accepted, and tells the log when that changes.
    fn note_room(&mut self, table: u64, now: Time) {
        let needed = self.needed(table);
        let is_long = self.current.length > self.trigger(needed);
        self.is_compaction_wanted =
            is_long && self.compaction == Compaction::Idle && now < self.compact_after;
        let is_next_full = self.next.as_ref().is_some_and(JournalFile::is_full);
        let is_full = self.current.is_full() || is_next_full || self.create_error.is_some();
        let is_stuck = self.batch.refused_since.is_some() || self.rewrite_at.is_some();
        let is_waiting = is_full || self.is_compaction_wanted;
        let refuses = !self.has_room(table, MAX_ENTRY as u64)
            && (is_stuck || is_waiting && !self.compaction.is_on());
        if refuses {
            let spare = self.next.as_ref().map_or(0, |next| next.reserved);
            self.wanted_bytes = needed.saturating_sub(spare) + self.chunk.min(128 << 10);
        }
        if std::mem::replace(&mut self.refuses, refuses) == refuses {
            return;
        }
        self.refuses_since = now;
        if !refuses {
            return warn!("journal: there is room again; IAMATs are accepted");
        }
        let reason = self.create_error.as_ref().or(self.full_reason.as_ref());
        let reason = reason.map_or("it cannot be compacted now", |error| &error.text);
        warn!(
            "journal: no room: {reason}; IAMATs are refused until {} KiB are free",
            self.wanted_bytes.div_ceil(1 << 10)
        );
    }

    /// The first failure is the one that tells the reason.
    fn fail(&mut self, failure: JournalFailure) {
        self.failure.get_or_insert(failure);
    }
}
