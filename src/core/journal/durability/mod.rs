//! The journal as a state machine without a disk. It decides when entries are written, and which
//! output has to wait until they are written.
//!
//! The core requests work from the disk ([`DiskWork`]). The shell does the work in the background
//! and reports the result ([`DiskDone`]). The records that one turn (an iteration of the event
//! loop) accepted are appended in one write. No reply and no record of that turn is sent before
//! this write is done; with [`Fsync::Always`], not before the sync is done. While a write is in
//! progress, newly accepted records are collected for the next write. Each reply waits only for the
//! write that contains its record.
//!
//! # Disk space
//!
//! An `IAMAT`, the command with which a client reports its position, is accepted only if its
//! journal entry fits into space that is already reserved. During a compaction, entries may go to
//! two files. Then the entry must fit into the reserved space of both files. So a full disk is
//! noticed before the record is accepted: the client gets an error reply, and nothing has to be
//! undone. Space is reserved well ahead, in the background. If the reserved space is used up too
//! fast, further `IAMAT`s wait until more space is reserved.
//!
//! # Records without disk space
//!
//! A neighbour's record is stored in the table even if the journal has no space for its entry. The
//! reason is that another server has already confirmed the record to a client. The first change
//! without an entry starts the *backlog*: this change and all later changes wait for space. The
//! backlog has a reader, a cursor in the table's feed of changes. The reader starts after the last
//! change that is in the journal. When there is space again, the changes after the reader are
//! written, in the order of the feed. Until all of them are written,
//! [`Durability::appended_through`] stays before the first change of the backlog, and this server
//! accepts no records from its own clients.

mod compaction;
mod condition;
mod disk_work;
mod file;
mod lives;
#[cfg(test)]
mod tests;

use std::time::Duration;

use log::warn;

pub use self::compaction::CompactionPhase;
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
use crate::core::base::histogram::{Histogram, PLACES_BOUNDS_NS};
use crate::core::base::limits::{LimitValue, Limits};
use crate::core::journal::format::{Entry, Format, MAX_ENTRY, Salt, header, write_checksums};
use crate::core::table::records::{ReaderId, Records};

/// Returns the approximate number of bytes that the records of this table need in a journal.
#[must_use]
pub fn journal_bytes(records: &Records) -> u64 {
    let epochs = records.nonzero_epochs() * size_of::<u32>();
    (records.line_bytes() + records.len() * Entry::record_bytes(0) + epochs) as u64
}

/// When appended bytes are synced. Only synced bytes survive a loss of power. Appended bytes
/// survive a crash of the process without any sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before the reply is sent.
    Always,
    /// Every `limits.fsync_ms`.
    Interval,
    /// When the operating system chooses. The server requests a sync only at its start, at its stop
    /// and for a compaction.
    Never,
}

/// Whether the journal has reserved space for another entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalSpace {
    /// There is enough reserved space.
    Enough,
    /// There is not enough space now, but a reservation or a compaction may soon give more. The
    /// command waits.
    Wait,
    /// There is no space, and more cannot be expected soon. The command is refused.
    Full,
}

impl JournalSpace {
    /// Returns whether there is space for another record: now, later or not at all. Always
    /// [`JournalSpace::Enough`] if there is no journal.
    #[must_use]
    pub fn for_a_record(durability: Option<&Durability>, records: &Records) -> JournalSpace {
        durability.map_or(JournalSpace::Enough, |durability| {
            durability.space_for(journal_bytes(records), MAX_ENTRY)
        })
    }
}

/// The result of reading a journal at the start of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The length of the journal in bytes, without a torn tail.
    pub length: u64,
    /// The format of the journal. `None` if no header is written yet.
    pub format: Option<Format>,
    /// The boot id of the machine. 0 if it is unknown.
    pub machine: u64,
}

/// The maximum number of bytes of the backlog that one turn writes.
const BACKLOG_STEP: usize = 128 << 10;

/// A sync in progress, and what it covers.
#[derive(Clone, Copy, Debug)]
struct Syncing {
    since: Time,
    /// All changes up to this sequence number are covered by the sync.
    seq: u64,
    /// The length of the journal when the sync was requested.
    length: u64,
    /// The length of the next file at that time, if the next file is synced too.
    next_length: Option<u64>,
    /// Whether the compaction's copy of the table was complete in the next file when the sync was
    /// requested. If so, the next file can replace the journal after this sync.
    is_copy_covered: bool,
}

/// The bytes of one append.
#[derive(Default)]
struct Batch {
    /// When the batch is written, the journal contains all changes up to this sequence number.
    seq: u64,
    /// The chunks that are not written yet. Empty while an append is in progress.
    chunks: Vec<Chunk>,
    is_in_flight: bool,
    in_flight_since: Time,
    /// The time since which the disk refuses the batch.
    refused_since: Option<Time>,
}

/// Changes that the journal lacks, because there was no space for them.
#[derive(Clone, Copy, Debug)]
struct Backlog {
    /// The sequence number of the last change before the backlog.
    last_seq_before: u64,
    /// The cursor in the feed after the last change that was written. `None` until the first
    /// attempt to write the backlog.
    reader: Option<ReaderId>,
}

/// The journal of one server.
pub struct Durability {
    server: String,
    fsync: Fsync,
    fsync_every: Duration,
    compact_bytes: u64,
    /// The number of bytes that are reserved after the end of a file. More bytes are requested
    /// when less than half of this number is left.
    reserve_step: u64,
    /// The maximum number of bytes that one `Received` and one `Confirmed` entry of each neighbour
    /// need, all neighbours together.
    position_bytes: u64,
    salt_source: Entropy,
    lives: Lives,
    machine: u64,

    /// Accepted entries that are not in `batch` yet, without checksums. When these entries are
    /// written, the journal contains all changes up to `pending_seq`.
    pending: Vec<u8>,
    pending_seq: u64,
    /// The first `journal_only_until` bytes of `pending` go only to the journal. The copy of the
    /// table in the next file contains the changes of these entries.
    journal_only_until: usize,
    /// Bytes that go only to the next file: the lives, the copy of the table, and the positions of
    /// the neighbours. They are written before the bytes of `pending`.
    next_only: Vec<u8>,
    batch: Batch,
    /// An empty buffer with capacity, for the entries of a later turn.
    spare_buffer: Vec<u8>,

    current: JournalFile,
    /// Whether the journal has format 1. Then nothing is appended to it.
    is_old_format: bool,
    /// The file that replaces the journal at the end of a compaction.
    next: Option<JournalFile>,
    last_file: FileId,
    /// Files that have to be removed.
    discarded: Vec<FileId>,
    /// The error of the last attempt to create the next file.
    create_error: Option<DiskError>,

    appended_seq: u64,
    synced_seq: u64,
    syncing: Option<Syncing>,
    sync_due: Option<Time>,
    backlog: Option<Backlog>,
    /// Whether the journal is too long, and the compaction must wait until `compact_after`.
    is_compaction_wanted: bool,
    /// The earliest time at which the journal is rewritten into the next file. `Some` if a sync
    /// found no space: then it is unknown which bytes of the journal are on the disk.
    rewrite_at: Option<Time>,

    /// The state of the compaction. Only [`Durability::enter`] changes this field. Three of the
    /// fields below belong to a copy of the table: `next_max_length` is set when the copy begins,
    /// `copied_end` and `copied_seq` when the copy ends.
    compaction: Compaction,
    /// Whether the compaction has copied a part of the table in this turn.
    has_copied_step: bool,
    compact_after: Time,
    /// The number of compactions that failed since the last success.
    failed_compactions: u32,
    /// The maximum length of the next file at the end of the copy, in bytes.
    next_max_length: u64,
    /// The offset in the next file at which the copy of the table ends. The copy contains all
    /// changes up to `copied_seq`.
    copied_end: u64,
    copied_seq: u64,
    /// The number of bytes of entries that were accepted since the last step of the compaction.
    accepted_bytes: u64,

    /// Whether `IAMAT`s are refused. Each change of this flag is logged.
    is_refusing: bool,
    refusing_since: Time,
    /// While `IAMAT`s are refused: about how many bytes must be free on the disk before `IAMAT`s
    /// are accepted again.
    wanted_bytes: u64,
    /// The last error with which the disk refused space.
    full_reason: Option<DiskError>,
    failure: Option<JournalFailure>,
    /// The durations of the syncs, for metrics.
    sync_times: Histogram,
    /// The number of finished compactions, for metrics.
    compactions: u64,
}

impl Durability {
    /// Creates the state of `server`'s journal, before the journal is read. One `Received` and one
    /// `Confirmed` entry of each neighbour need at most `position_bytes` bytes, all neighbours
    /// together. `salt_source` is the source of the salts of the files.
    #[must_use]
    pub fn new(
        server: &str,
        fsync: Fsync,
        limits: &Limits,
        position_bytes: u64,
        salt_source: Entropy,
    ) -> Durability {
        Durability {
            server: server.to_owned(),
            fsync,
            fsync_every: limits.fsync_ms.to_duration(),
            compact_bytes: limits.compact_bytes,
            reserve_step: limits.journal_ahead_bytes,
            position_bytes,
            salt_source,
            lives: Lives::default(),
            machine: 0,
            pending: Vec::new(),
            pending_seq: 0,
            journal_only_until: 0,
            next_only: Vec::new(),
            batch: Batch::default(),
            spare_buffer: Vec::new(),
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
            has_copied_step: false,
            compact_after: Time::default(),
            failed_compactions: 0,
            next_max_length: 0,
            copied_end: 0,
            copied_seq: 0,
            accepted_bytes: 0,
            is_refusing: false,
            refusing_since: Time::default(),
            wanted_bytes: 0,
            full_reason: None,
            failure: None,
            sync_times: Histogram::new(&PLACES_BOUNDS_NS),
            compactions: 0,
        }
    }

    fn new_salt(&mut self) -> Salt {
        Salt(self.salt_source.next_u64())
    }

    /// Adds an earlier life, which was read from the journal.
    pub fn restore_life(&mut self, boot: BootId, last_seq_before: u64, machine: u64) {
        self.lives.push(Life {
            boot,
            machine,
            last_seq_before,
        });
    }

    /// Takes over the result of reading the journal, and begins the life `boot`. `last_seq` is the
    /// sequence number of the last change in the table.
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

    /// Begins the life `boot`. `last_seq` is the sequence number of the last change before this
    /// life.
    pub fn begin_life(&mut self, boot: BootId, last_seq: u64) {
        let life = Life {
            boot,
            machine: self.machine,
            last_seq_before: last_seq,
        };
        self.lives.push(life);
        // The copy begins with the earlier lives. During the copy, the entries in `pending` do not
        // go to the next file, so this life is added to `next_only`.
        if matches!(self.compaction, Compaction::Copying(_)) {
            life.write(&mut self.next_only);
            self.next_max_length += Entry::life_bytes() as u64;
        }
        // A journal of format 1 gets no entries: its `pending` goes only to the next file, and only
        // while entries go to both files. Before that, the next file gets this life from the copy
        // or from `next_only`.
        if !self.is_old_format || self.compaction.writes_both() {
            life.write(&mut self.pending);
        }
    }

    /// Returns the sequence number up to which a neighbour has our changes. The neighbour has
    /// reported `position`, a position in the feed of our life `boot`. Returns `None` if the
    /// sequence number is unknown. Then the neighbour needs all records.
    ///
    /// The result is at most the sequence number of the last change before the next life. Later
    /// changes of the life `boot` were not written to the journal, and the next life gave their
    /// numbers to other changes.
    ///
    /// The result is `None` if `boot` is not one of the remembered lives. It is also `None` if the
    /// machine was restarted after the life `boot`, because the machine may have lost power. The
    /// loss of power may have removed a change that replaced an older record of the same client.
    /// Then the older record is back in the table, with its old number. The neighbour may have
    /// neither record, although its position is after that number.
    #[must_use]
    pub fn resume_position(&self, boot: BootId, position: u64) -> Option<u64> {
        self.lives.resume_position(boot, position)
    }

    /// Returns the sequence number up to which all changes are in the journal.
    ///
    /// A link sends its neighbour `SYNC` lines with positions of our feed. When the link reads such
    /// a position, it also reads the latest sequence number of the table. The link sends the `SYNC`
    /// only when this function returns at least that sequence number. The reason: a change after
    /// the position may have replaced a record before the link sent the record. If a crash loses
    /// that change, the replaced record is back in the table, and the neighbour lacks the record.
    #[must_use]
    pub fn appended_through(&self) -> u64 {
        match self.backlog {
            Some(Backlog {
                last_seq_before, ..
            }) => self.appended_seq.min(last_seq_before),
            None => self.appended_seq,
        }
    }

    /// Returns the sequence number up to which all changes are as durable as a reply to a client
    /// promises: see [`Fsync`].
    #[must_use]
    pub fn durable_through(&self) -> u64 {
        self.appended_through().min(self.sendable_through())
    }

    /// Whether the disk refused to write or to sync accepted entries, and no later attempt has
    /// succeeded.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.batch.refused_since.is_some() || self.rewrite_at.is_some()
    }

    /// Returns the phase of the compaction.
    #[must_use]
    pub fn phase(&self) -> CompactionPhase {
        self.compaction.phase()
    }

    /// Returns the length of the journal in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.current.length
    }

    /// Whether there is reserved space for an entry of `bytes` bytes. The records of the table need
    /// `table` bytes in a journal.
    #[must_use]
    pub fn space_for(&self, table: u64, bytes: usize) -> JournalSpace {
        if self.has_space(table, bytes as u64) {
            JournalSpace::Enough
        } else if self.is_refusing {
            JournalSpace::Full
        } else {
            JournalSpace::Wait
        }
    }

    fn has_space(&self, table: u64, bytes: u64) -> bool {
        let is_healthy = self.backlog.is_none() && self.rewrite_at.is_none();
        if !is_healthy || self.batch.refused_since.is_some() {
            return false;
        }
        let has_current =
            !self.is_old_format && self.current_end() + bytes <= self.current.reserved;
        let has_next = match (&self.next, self.compaction) {
            // There is no next file yet. `has_current` limits the entries that are accepted now.
            (None, _) => self.create_error.is_none(),
            (Some(next), Compaction::Idle) => {
                !next.is_full() || self.table_bytes_needed(table) + bytes <= next.reserved
            }
            (Some(next), Compaction::Copying(_)) => self.next_max_length + bytes <= next.reserved,
            (Some(next), _) => self.next_end(next) + bytes <= next.reserved,
        };
        has_current && has_next
    }

    /// Returns the length of the journal after all its accepted entries are written.
    fn current_end(&self) -> u64 {
        self.length_with(&self.current, self.pending.len())
    }

    /// Returns the length of the next file after all its accepted entries are written.
    fn next_end(&self, next: &JournalFile) -> u64 {
        self.length_with(
            next,
            self.next_only.len() + self.pending.len() - self.journal_only_until,
        )
    }

    fn length_with(&self, file: &JournalFile, more: usize) -> u64 {
        let header = if file.is_unwritten() {
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
        file.length + file.in_flight_bytes + (header + refused + more) as u64
    }

    /// Adds the entry of a change of the table. The caller has checked that there is space.
    pub fn record(&mut self, seq: u64, epoch: u32, line: &[u8]) {
        let before = self.pending.len();
        Entry::Record { seq, epoch, line }.write(&mut self.pending);
        self.pending_seq = seq;
        self.count_accepted_bytes((self.pending.len() - before) as u64);
    }

    /// Adds a neighbour's change to the backlog, because there is no space for its entry.
    pub fn record_unwritten(&mut self, seq: u64, line: &[u8]) {
        self.backlog.get_or_insert(Backlog {
            last_seq_before: seq.saturating_sub(1),
            reader: None,
        });
        self.pending_seq = seq;
        self.count_accepted_bytes(Entry::record_bytes(line.len()) as u64 + 4);
    }

    /// Counts the bytes of an accepted entry. A record that changes during the copy of the table is
    /// copied again, so these bytes also make the next file longer.
    fn count_accepted_bytes(&mut self, bytes: u64) {
        self.accepted_bytes += bytes;
        self.next_max_length += bytes;
    }

    /// Adds a `Received` entry: this server received the neighbour's feed up to `position`. Returns
    /// `false`, and adds nothing, if there is no space or if the backlog is not empty.
    pub fn add_received(
        &mut self,
        table: u64,
        neighbour: &str,
        boot: BootId,
        position: u64,
    ) -> bool {
        let neighbour = neighbour.as_bytes();
        self.add_position(
            table,
            neighbour.len(),
            &Entry::Received {
                neighbour,
                boot,
                position,
            },
        )
    }

    /// Adds a `Confirmed` entry: this server has sent the neighbour a `SYNC` with `position`, a
    /// position in our feed. Returns `false`, and adds nothing, if there is no space or if the
    /// backlog is not empty.
    pub fn add_confirmed(&mut self, table: u64, neighbour: &str, position: u64) -> bool {
        let neighbour = neighbour.as_bytes();
        self.add_position(
            table,
            neighbour.len(),
            &Entry::Confirmed {
                neighbour,
                position,
            },
        )
    }

    fn add_position(&mut self, table: u64, name: usize, entry: &Entry<'_>) -> bool {
        let bytes = Entry::position_bytes(name);
        let has_space = self.space_for(table, bytes) == JournalSpace::Enough;
        if has_space {
            entry.write(&mut self.pending);
            self.count_accepted_bytes(bytes as u64);
        }
        has_space
    }

    /// Returns the sequence number up to which changes may be sent, as replies to clients or as
    /// records to neighbours. A record in the backlog may be sent before its entry is in the
    /// journal, because another server has already confirmed this record to a client.
    #[must_use]
    pub fn sendable_through(&self) -> u64 {
        match self.fsync {
            Fsync::Always => self.synced_seq,
            Fsync::Interval | Fsync::Never => self.appended_seq,
        }
    }

    /// Returns the disk failure that forces the server to stop. After a failure, nothing may be
    /// sent.
    #[must_use]
    pub fn failure(&self) -> Option<&JournalFailure> {
        self.failure.as_ref()
    }

    /// Begins a turn of the event loop. The compaction may copy one step in each turn.
    pub fn begin_turn(&mut self) {
        self.has_copied_step = false;
    }

    /// Returns the latest time at which [`Durability::next_work`] must be called again. `None` if
    /// it need not be called before the next accepted entry or result from the disk.
    #[must_use]
    pub fn deadline(&self, now: Time) -> Option<Time> {
        let steps = match self.compaction {
            Compaction::Copying(_) => self.can_copy_step(),
            Compaction::Absent(_)
            | Compaction::Creating
            | Compaction::Idle
            | Compaction::WritingBoth
            | Compaction::SwitchDue
            | Compaction::Switching { .. } => false,
        };
        // While a sync is in progress, the time of the next sync does not count. Otherwise, when
        // that time has passed, the loop would spin until the present sync ends.
        let sync = self.sync_due.filter(|_| self.syncing.is_none());
        let create = match self.compaction {
            Compaction::Absent(at) => Some(at),
            _ => None,
        };
        let refused = self
            .batch
            .refused_since
            .filter(|_| !self.batch.is_in_flight);
        let retry = refused.map(|since| since + RETRY);
        let rewrite = self.rewrite_at.filter(|_| !self.compaction.is_running());
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
            // A time in the past does not count: no space was requested at that time, so none is
            // needed.
            .chain(files.into_iter().flatten().filter(|at| *at > now))
            .chain(self.is_compaction_wanted.then_some(self.compact_after))
            .min()
    }

    /// Returns the next work for the disk. `append_positions` appends the `Received` and
    /// `Confirmed` entries of all neighbours to its argument.
    pub fn next_work(
        &mut self,
        records: &mut Records,
        now: Time,
        append_positions: impl FnOnce(&mut Vec<u8>),
    ) -> Option<DiskWork> {
        if self.failure.is_some() {
            return None;
        }
        if let Some(file) = self.discarded.pop() {
            return Some(DiskWork::Discard { file });
        }
        self.write_backlog_step(records);
        let work = self
            .append_work(now)
            .or_else(|| self.reserve_work(journal_bytes(records), now))
            .or_else(|| self.sync_work(now))
            .or_else(|| self.compaction_work(records, now, append_positions));
        if work.is_none() {
            self.update_refusing(journal_bytes(records), now);
        }
        work
    }

    /// Puts the next part of the backlog into `pending`, if there is space and no other write
    /// waits.
    fn write_backlog_step(&mut self, records: &mut Records) {
        let Some(backlog) = &mut self.backlog else {
            return;
        };
        let is_busy = self.batch.is_in_flight || !self.batch.chunks.is_empty();
        let is_usable = !self.is_old_format && self.rewrite_at.is_none();
        // While entries go to both files, the backlog waits: the copy of the table in the next file
        // contains most changes of the backlog.
        if is_busy || !is_usable || self.compaction.writes_both() || !self.pending.is_empty() {
            return;
        }
        let last_seq_before = backlog.last_seq_before;
        let reader = *backlog
            .reader
            .get_or_insert_with(|| records.open_reader(last_seq_before));
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

    /// Updates the backlog after a compaction. The new journal has all changes up to `copied_seq`.
    fn backlog_copied(&mut self, records: &mut Records) {
        let Some(Backlog {
            last_seq_before,
            reader,
        }) = self.backlog
        else {
            return;
        };
        if let Some(reader) = reader {
            records.close_reader(reader);
        }
        let last_seq_before = last_seq_before.max(self.copied_seq);
        self.backlog = (last_seq_before < records.last_seq()).then_some(Backlog {
            last_seq_before,
            reader: None,
        });
    }

    fn append_work(&mut self, now: Time) -> Option<DiskWork> {
        if self.batch.is_in_flight {
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
                file.in_flight_bytes = chunk.bytes.len() as u64;
            }
        }
        self.batch.is_in_flight = true;
        self.batch.in_flight_since = now;
        Some(DiskWork::Append(chunks))
    }

    /// Moves the pending entries into the batch.
    fn fill_batch(&mut self) {
        let writes_both = self.compaction.writes_both();
        let mut next_only = std::mem::take(&mut self.next_only);
        if writes_both {
            next_only.extend_from_slice(&self.pending[self.journal_only_until..]);
        }
        if !self.is_old_format && !self.pending.is_empty() {
            let memory = std::mem::take(&mut self.spare_buffer);
            let entries = std::mem::replace(&mut self.pending, memory);
            let chunk = self.chunk_for(&self.current, entries);
            self.batch.chunks.push(chunk);
        }
        if let Some(next) = self.next.as_ref().filter(|_| !next_only.is_empty()) {
            let chunk = self.chunk_for(next, next_only);
            self.batch.chunks.push(chunk);
        }
        if !self.is_old_format || writes_both {
            self.pending.clear();
            self.journal_only_until = 0;
            self.batch.seq = self.pending_seq;
        }
        self.finish_batch_if_written();
    }

    /// Makes a chunk that appends the entries to the file. A file that is empty gets its header
    /// first.
    fn chunk_for(&self, file: &JournalFile, mut entries: Vec<u8>) -> Chunk {
        let mut offset = file.length;
        if file.is_unwritten() {
            let header = self.header_of(file);
            write_checksums(&mut entries, file.salt, header.len() as u64);
            entries.splice(..0, header);
            offset = 0;
        } else {
            write_checksums(&mut entries, file.salt, offset);
        }
        Chunk {
            file: file.id,
            offset,
            bytes: entries,
        }
    }

    /// Returns the header of the file.
    fn header_of(&self, file: &JournalFile) -> Vec<u8> {
        header(&self.server, file.salt)
    }

    fn file(&mut self, id: FileId) -> Option<&mut JournalFile> {
        let files = [Some(&mut self.current), self.next.as_mut()];
        files.into_iter().flatten().find(|file| file.id == id)
    }

    fn reserve_work(&mut self, table: u64, now: Time) -> Option<DiskWork> {
        let (half, step, bound) = (self.reserve_step / 2, self.reserve_step, self.bound(table));
        let end = self.current_end();
        // A file that is about to be replaced needs no more space.
        let will_be_replaced = self.compaction.is_switching() || self.is_old_format;
        if !will_be_replaced
            && self.current.reserved < end + half
            && let Some(work) = self.current.reserve((end + step).min(bound), now)
        {
            return Some(work);
        }
        let target = match (&self.next, self.compaction) {
            (None, _) => return None,
            (Some(next), Compaction::Idle) => {
                let target = self.next_reserve_target(table);
                if next.reserved + step / 2 > target {
                    return None;
                }
                target
            }
            (Some(next), Compaction::Copying(_)) if next.reserved < self.next_max_length + half => {
                self.next_max_length + step
            }
            (Some(next), _) if next.reserved < self.next_end(next) + half => {
                self.next_end(next) + step
            }
            (Some(_), _) => return None,
        };
        self.next.as_mut()?.reserve(target, now)
    }

    fn sync_work(&mut self, now: Time) -> Option<DiskWork> {
        let is_switch_due = self.is_copied();
        let is_behind =
            self.appended_seq > self.syncing.map_or(self.synced_seq, |syncing| syncing.seq);
        // The journal itself needs no sync if it has format 1, because it gets no entries. It gets
        // no sync if its last sync failed, because a failed sync is not repeated.
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
        // While entries go to both files, a reply waits until its record is synced in both files.
        // After a crash, either file may be the journal.
        let next = self.next.as_ref().filter(|_| self.compaction.writes_both());
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

    /// Returns the durations of the syncs.
    #[must_use]
    pub fn sync_times(&self) -> &Histogram {
        &self.sync_times
    }

    /// Returns the number of finished compactions.
    #[must_use]
    pub fn compactions(&self) -> u64 {
        self.compactions
    }

    /// Handles a result from the disk.
    pub fn handle_disk_done(&mut self, done: DiskDone, records: &mut Records, now: Time) {
        if self.failure.is_some() {
            return; // after a failure, the server sends nothing, so no result matters
        }
        match done {
            DiskDone::Appended { chunks, outcome } => {
                self.append_done(chunks, outcome, records, now)
            }
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
            } => self.sync_done(now),
            DiskDone::Synced {
                outcome: Err(error),
                ..
            } => self.sync_failed(error, records, now),
            DiskDone::Switched { outcome, .. } => self.switched(outcome, records, now),
        }
    }

    fn append_done(
        &mut self,
        mut chunks: Vec<Chunk>,
        outcome: Result<(), (FileId, DiskError)>,
        records: &mut Records,
        now: Time,
    ) {
        self.batch.is_in_flight = false;
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
                file.in_flight_bytes = 0;
            }
        }
        for Chunk {
            file, mut bytes, ..
        } in chunks
        {
            // A file that was abandoned during the append is not found here.
            if let Some(file) = self.file(file) {
                file.in_flight_bytes = 0;
                file.length += bytes.len() as u64;
            }
            if self.spare_buffer.capacity() < bytes.capacity() {
                bytes.clear();
                self.spare_buffer = bytes;
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
            self.chunk_refused(file, error, records, now);
        }
        self.finish_batch_if_written();
    }

    /// Handles a refused chunk: abandons the compaction if that helps, otherwise waits for space or
    /// fails.
    fn chunk_refused(&mut self, file: FileId, error: DiskError, records: &mut Records, now: Time) {
        let should_abandon = match self.compaction {
            // On a file system that cannot reserve space, the next file may occupy the space that
            // the journal needs now. Removing the next file frees that space.
            Compaction::Copying(_) | Compaction::WritingBoth | Compaction::SwitchDue => {
                file != self.current.id || error.kind == DiskErrorKind::Full
            }
            Compaction::Absent(_)
            | Compaction::Creating
            | Compaction::Idle
            // The next file may already have the journal's name, so the compaction cannot be
            // abandoned.
            | Compaction::Switching { .. } => false,
        };
        if should_abandon && !self.is_old_format {
            self.abandon_compaction(&error, records, now);
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

    /// Updates `appended_seq` if no chunk of the batch is left. Then all changes of the batch are
    /// in the journal.
    fn finish_batch_if_written(&mut self) {
        if !self.batch.is_in_flight && self.batch.chunks.is_empty() {
            self.batch.refused_since = None;
            self.appended_seq = self.batch.seq;
        }
    }

    fn sync_done(&mut self, now: Time) {
        let Some(syncing) = self.syncing.take() else {
            return;
        };
        self.sync_times
            .add(now.since(syncing.since).as_nanos() as u64);
        self.synced_seq = self.synced_seq.max(syncing.seq);
        match (self.compaction, syncing.next_length) {
            (Compaction::WritingBoth, Some(length)) if syncing.is_copy_covered => {
                if let Some(next) = &mut self.next {
                    next.synced = length;
                }
                self.enter(Cause::BothSynced, Compaction::SwitchDue);
            }
            (_, None) if !self.compaction.writes_both() => self.add_synced(syncing.length),
            _ => {}
        }
    }

    /// Adds an entry that says that the journal is synced up to `offset`, if there is space for the
    /// entry.
    fn add_synced(&mut self, offset: u64) {
        let bytes = Entry::life_bytes() as u64; // a `Synced` entry is a little shorter than this
        if self.current_end() + bytes <= self.current.reserved {
            Entry::Synced { offset }.write(&mut self.pending);
            self.count_accepted_bytes(bytes);
        }
    }

    /// Handles a failed sync. The system may have dropped the written bytes from its cache,
    /// although they are not on the disk. A second sync would then report success (known as
    /// fsyncgate). So the server never repeats a failed sync.
    fn sync_failed(&mut self, error: DiskError, records: &mut Records, now: Time) {
        self.syncing = None;
        match error.kind {
            DiskErrorKind::Broken => self.fail(JournalFailure::Sync(error)),
            // Some file systems find out only at a sync that there is no space (NFS). The journal
            // is rewritten into another file.
            DiskErrorKind::Full => {
                // The first rewrite begins at once. If its sync finds no space either, the next
                // rewrite waits.
                let is_again = self.rewrite_at.is_some();
                self.rewrite_at = Some(if is_again { now + RETRY } else { now });
                // A failed sync is not repeated: the next sync comes after the rewrite.
                self.sync_due = None;
                if self.compaction.is_switching() {
                    let is_suspect = true;
                    self.enter(Cause::SyncFailed, Compaction::Switching { is_suspect });
                } else if self.compaction.is_running() {
                    self.abandon_compaction(&error, records, now);
                }
                self.full_reason = Some(error);
            }
        }
    }

    /// Decides whether `IAMAT`s are refused. Logs when refusing begins and when it ends.
    fn update_refusing(&mut self, table: u64, now: Time) {
        let needed = self.table_bytes_needed(table);
        let is_long = self.current.length > self.compaction_threshold(needed);
        self.is_compaction_wanted =
            is_long && self.compaction == Compaction::Idle && now < self.compact_after;
        let is_next_full = self.next.as_ref().is_some_and(JournalFile::is_full);
        let is_full = self.current.is_full() || is_next_full || self.create_error.is_some();
        let is_stuck = self.batch.refused_since.is_some() || self.rewrite_at.is_some();
        let is_waiting = is_full || self.is_compaction_wanted;
        let is_refusing = !self.has_space(table, MAX_ENTRY as u64)
            && (is_stuck || is_waiting && !self.compaction.is_running());
        if is_refusing {
            let spare = self.next.as_ref().map_or(0, |next| next.reserved);
            self.wanted_bytes = needed.saturating_sub(spare) + self.reserve_step.min(128 << 10);
        }
        if std::mem::replace(&mut self.is_refusing, is_refusing) == is_refusing {
            return;
        }
        self.refusing_since = now;
        if !is_refusing {
            return warn!("journal: there is room again; IAMATs are accepted");
        }
        let reason = self.create_error.as_ref().or(self.full_reason.as_ref());
        let reason = reason.map_or("it cannot be compacted now", |error| &error.text);
        warn!(
            "journal: no room: {reason}; IAMATs are refused until {} KiB are free",
            self.wanted_bytes.div_ceil(1 << 10)
        );
    }

    /// Stores a failure. Only the first one is kept, because it is the cause of the others.
    fn fail(&mut self, failure: JournalFailure) {
        self.failure.get_or_insert(failure);
    }
}
