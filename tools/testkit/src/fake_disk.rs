//! A disk in memory. It does what `src/shell/disk.rs` does to real files, and loses data as a real
//! disk does when the process or the power ends.
//!
//! ```text
//!   write ──► cached and dirty ──► sync ──► platter
//! ```
//!
//! Any process reads the cached bytes. Dirty bytes may be on the platter or not.
//!
//! It promises no more than POSIX does:
//!
//! - Until a sync is reported, each sector that was written since the last sync may be on the
//!   platter or not, in any order. A sync covers the writes before its request.
//! - A refused write may have written any part of its bytes, and nothing else.
//! - A failed sync may lose writes: afterwards the system treats as written what it could not
//!   write.
//! - A rename that is not reported has happened or not. A rename without a sync may be undone by a
//!   loss of power.
//! - When a process ends, some of the first jobs of each queue are done, the next one is half done,
//!   and the others are not done.
//!
//! Two queues do the work, each in order: the shell has two threads for it. A job is done when the
//! test calls [`FakeDisk::work`], so a test makes a slow disk by letting time pass first. A queue
//! can be frozen.
//!
//! All files share one [capacity](FakeDisk::set_capacity). Other users of the disk can [take
//! room](FakeDisk::set_others) and give it back. A [strike](FakeDisk::strike) makes the next
//! operation of a kind fail.
//!
//! The disk also checks each request. No write leaves a hole. A refused write is repeated at the
//! same place, with the same bytes first. Only files that exist are used. A request that breaks a
//! rule panics.

use std::collections::{BTreeMap, VecDeque};

use herd_mio::core::journal::durability::{
    Chunk, DiskDone, DiskError, DiskErrorKind, DiskWork, FileId, Opened, SwitchOutcome,
};
use herd_mio::core::journal::format::{Entry, JournalError, Replay};

use crate::at_line::Line;
use crate::promises::End;
use crate::rng::Rng;

/// A loss of power keeps or loses whole units of this size.
const SECTOR: usize = 512;

/// A capacity without a bound.
pub const ENDLESS: u64 = u64::MAX;

/// One of the two queues of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Appends.
    Writer,
    /// All other work.
    Keeper,
}

impl Queue {
    /// Both queues.
    pub const ALL: [Queue; 2] = [Queue::Writer, Queue::Keeper];

    /// The queue that does this work.
    #[must_use]
    pub fn of(work: &DiskWork) -> Queue {
        match work {
            DiskWork::Append(_) => Queue::Writer,
            DiskWork::Reserve { .. }
            | DiskWork::Sync { .. }
            | DiskWork::Create { .. }
            | DiskWork::Switch { .. }
            | DiskWork::Discard { .. } => Queue::Keeper,
        }
    }
}

/// A failure of the next operation of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// A write to the file that has the journal's name.
    WriteCurrent(DiskErrorKind),
    /// A write to another file.
    WriteNext(DiskErrorKind),
    /// A reservation.
    Reserve(DiskErrorKind),
    /// A sync.
    Sync(DiskErrorKind),
    /// The creation of a file.
    Create(DiskErrorKind),
    /// A switch, which renames a new file to the journal. The old file keeps the name.
    SwitchRefused(DiskErrorKind),
    /// A switch. It is not known which file has the name.
    SwitchUnknown(DiskErrorKind),
    /// The next operation of any kind.
    Any(DiskErrorKind),
}

impl Strike {
    /// All strikes.
    pub const ALL: [Strike; 16] = {
        use DiskErrorKind::{Broken, Full};
        [
            Strike::WriteCurrent(Full),
            Strike::WriteCurrent(Broken),
            Strike::WriteNext(Full),
            Strike::WriteNext(Broken),
            Strike::Reserve(Full),
            Strike::Reserve(Broken),
            Strike::Sync(Full),
            Strike::Sync(Broken),
            Strike::Create(Full),
            Strike::Create(Broken),
            Strike::SwitchRefused(Full),
            Strike::SwitchRefused(Broken),
            Strike::SwitchUnknown(Full),
            Strike::SwitchUnknown(Broken),
            Strike::Any(Full),
            Strike::Any(Broken),
        ]
    };
}

/// A file.
#[derive(Clone, Debug, Default)]
struct File {
    cached: Vec<u8>,
    platter: Vec<u8>,
    /// The writes since the last sync: number, offset and bytes.
    dirty: VecDeque<(u64, usize, Vec<u8>)>,
    writes: u64,
    /// The end of the reserved room.
    reserved: u64,
    /// The end of the writes that were reported as done.
    end: u64,
    /// A refused write, which has to be repeated.
    refused: Option<Vec<u8>>,
}

impl File {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let offset = offset as usize;
        put(&mut self.cached, offset, bytes);
        self.writes += 1;
        self.dirty.push_back((self.writes, offset, bytes.to_vec()));
    }

    /// Puts the writes up to this number on the platter.
    fn sync(&mut self, writes: u64) {
        while let Some((_, offset, bytes)) = self.take_dirty(writes) {
            put(&mut self.platter, offset, &bytes);
        }
    }

    fn take_dirty(&mut self, writes: u64) -> Option<(u64, usize, Vec<u8>)> {
        let is_old = self.dirty.front().is_some_and(|(at, ..)| *at <= writes);
        is_old.then(|| self.dirty.pop_front())?
    }

    /// Puts some sectors of the writes up to this number on the platter, and loses the others.
    fn give_up(&mut self, writes: u64, rng: &mut Rng) {
        let luck = *rng.pick(&[0, 50, 90, 100]);
        while let Some((_, offset, bytes)) = self.take_dirty(writes) {
            let mut at = 0;
            while at < bytes.len() {
                let size = (SECTOR - (offset + at) % SECTOR).min(bytes.len() - at);
                if rng.percent(luck) {
                    put(&mut self.platter, offset + at, &bytes[at..at + size]);
                }
                at += size;
            }
        }
    }

    fn lose_power(&mut self, rng: &mut Rng) {
        self.give_up(u64::MAX, rng);
        self.cached = self.platter.clone();
    }

    /// Bytes that the file takes of the disk's capacity.
    fn room(&self) -> u64 {
        self.reserved.max(self.cached.len() as u64)
    }
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    file.resize(file.len().max(end), 0);
    file[offset..end].copy_from_slice(bytes);
}

/// A job in a queue.
#[derive(Clone, Debug)]
struct Job {
    work: DiskWork,
    /// For a sync: the last write of each file that it covers.
    covers: Vec<(FileId, u64)>,
}

/// A copy of the journal's bytes.
#[derive(Clone, Debug)]
pub struct Snapshot(Vec<u8>);

/// A disk with a journal on it.
#[derive(Clone, Debug)]
pub struct FakeDisk {
    server: String,
    rng: Rng,
    machine: u64,
    files: BTreeMap<FileId, File>,
    /// The file that has the journal's name.
    journal: FileId,
    /// The file that had the name before a rename without a sync. A loss of power may give the name
    /// back to it.
    journal_before: Option<FileId>,
    /// The file with the name `journal.new`.
    next: Option<FileId>,
    jobs: [VecDeque<Job>; 2],
    is_frozen: [bool; 2],
    finished: VecDeque<DiskDone>,
    /// Files that the process has closed.
    closed: Vec<FileId>,
    capacity: u64,
    others: u64,
    reserves: bool,
    strikes: Vec<Strike>,
    refusals: u64,
    may_give_up: bool,
    must_give_up: bool,
}

impl FakeDisk {
    /// An empty disk without a bound, for a server of this name. `rng` makes all random choices.
    #[must_use]
    pub fn new(server: &str, rng: Rng) -> FakeDisk {
        FakeDisk {
            server: server.to_owned(),
            rng,
            machine: 1,
            files: BTreeMap::from([(FileId(0), File::default())]),
            journal: FileId(0),
            journal_before: None,
            next: None,
            jobs: [VecDeque::new(), VecDeque::new()],
            is_frozen: [false; 2],
            finished: VecDeque::new(),
            closed: Vec::new(),
            capacity: ENDLESS,
            others: 0,
            reserves: true,
            strikes: Vec::new(),
            refusals: 0,
            may_give_up: false,
            must_give_up: false,
        }
    }

    /// Sets the number of bytes that all files share.
    pub fn set_capacity(&mut self, bytes: u64) {
        self.capacity = bytes;
    }

    /// Fills the disk, or removes its bound.
    pub fn set_full(&mut self, is_full: bool) {
        self.capacity = if is_full { self.used() } else { ENDLESS };
    }

    /// Sets the number of bytes that other users of the disk take.
    pub fn set_others(&mut self, bytes: u64) {
        self.others = bytes;
    }

    /// Sets whether the file system can reserve room. Without that, a reservation succeeds and does
    /// nothing.
    pub fn set_reserves(&mut self, reserves: bool) {
        self.reserves = reserves;
    }

    /// Freezes a queue, or lets it work again.
    pub fn set_frozen(&mut self, queue: Queue, is_frozen: bool) {
        self.is_frozen[queue as usize] = is_frozen;
    }

    /// Makes the next operation of this kind fail.
    pub fn strike(&mut self, strike: Strike) {
        self.strikes.push(strike);
    }

    /// Removes all strikes. From now on operations fail only for want of room.
    pub fn clear_strikes(&mut self) {
        self.strikes.clear();
    }

    /// Bytes that the files take, without other users.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.files.values().map(File::room).sum()
    }

    /// Free bytes.
    #[must_use]
    pub fn room(&self) -> u64 {
        let taken = self.used().saturating_add(self.others);
        self.capacity.saturating_sub(taken)
    }

    /// The number of writes and syncs that were refused for want of room.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.refusals
    }

    /// Whether the process may give up: an operation was `Broken`, or a switch had an unknown
    /// outcome.
    #[must_use]
    pub fn may_give_up(&self) -> bool {
        self.may_give_up
    }

    /// Whether the process has to give up, once it has taken all results. Either writes to the
    /// journal itself may be lost, or it is unknown which file is the journal.
    #[must_use]
    pub fn must_give_up(&self) -> bool {
        self.must_give_up && self.finished.is_empty()
    }

    /// Gives the machine another boot id. 0 stands for a machine without one.
    pub fn set_machine(&mut self, machine: u64) {
        self.machine = machine;
    }

    /// The machine's boot id.
    #[must_use]
    pub fn machine(&self) -> u64 {
        self.machine
    }

    /// The content of the journal, as any process reads it.
    #[must_use]
    pub fn journal(&self) -> &[u8] {
        self.files
            .get(&self.journal)
            .map_or(&[], |file| &file.cached)
    }

    /// The length of the journal.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.journal().len() as u64
    }

    /// A process opens the journal, reads all entries, and cuts off a torn tail.
    ///
    /// # Errors
    /// The journal cannot be used.
    pub fn open(&mut self, mut tell: impl FnMut(Entry<'_>)) -> Result<Opened, JournalError> {
        let mut bytes = self.journal().to_vec();
        // Reserved room reads as zeros.
        let reserved = self.rng.below(40);
        bytes.resize(bytes.len() + reserved, 0);
        let mut replay = Replay::new(&self.server, self.machine);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, left) = rest.split_at((1 + self.rng.below(1_000)).min(rest.len()));
            replay.data_received(piece, &mut tell)?;
            rest = left;
        }
        let end = replay.finish()?;
        // Other files are removed. The server syncs the journal at its start, so all of it is on
        // the platter.
        bytes.truncate(end.offset as usize);
        let file = File {
            platter: bytes.clone(),
            cached: bytes,
            end: end.offset,
            ..File::default()
        };
        self.files = BTreeMap::from([(FileId(0), file)]);
        self.journal = FileId(0);
        self.journal_before = None;
        self.next = None;
        self.jobs = Default::default();
        self.finished.clear();
        self.closed.clear();
        self.may_give_up = false;
        self.must_give_up = false;
        Ok(Opened {
            length: end.offset,
            format: end.format,
            machine: self.machine,
        })
    }

    /// The table that a process would read from the journal now: the latest line of each client.
    ///
    /// # Errors
    /// The journal cannot be used.
    pub fn table(&self) -> Result<BTreeMap<Vec<u8>, Line>, JournalError> {
        let mut table: BTreeMap<Vec<u8>, Line> = BTreeMap::new();
        let mut replay = Replay::new(&self.server, self.machine);
        replay.data_received(self.journal(), |entry| {
            if let Entry::Record { epoch, line, .. } = entry
                && let Some(line) = Line::new(line, epoch)
            {
                let held = table.entry(line.client().to_vec()).or_insert(line.clone());
                if *held < line {
                    *held = line;
                }
            }
        })?;
        replay.finish()?;
        Ok(table)
    }

    /// Adds work to its queue.
    pub fn submit(&mut self, work: DiskWork) {
        let covers = match &work {
            DiskWork::Sync { files } => {
                let writes = |file: &FileId| (*file, self.file(*file).writes);
                files.iter().map(writes).collect()
            }
            DiskWork::Append(_)
            | DiskWork::Reserve { .. }
            | DiskWork::Create { .. }
            | DiskWork::Switch { .. }
            | DiskWork::Discard { .. } => Vec::new(),
        };
        self.jobs[Queue::of(&work) as usize].push_back(Job { work, covers });
    }

    /// The number of waiting jobs of a queue.
    #[must_use]
    pub fn jobs(&self, queue: Queue) -> usize {
        self.jobs[queue as usize].len()
    }

    /// Whether a queue has a job and is not frozen.
    #[must_use]
    pub fn is_busy(&self, queue: Queue) -> bool {
        !self.is_frozen[queue as usize] && self.jobs(queue) > 0
    }

    /// The next job of a queue.
    #[must_use]
    pub fn next_job(&self, queue: Queue) -> Option<&DiskWork> {
        self.jobs[queue as usize].front().map(|job| &job.work)
    }

    /// Does the next job of a queue. Returns whether there was one and the queue was not frozen.
    pub fn work(&mut self, queue: Queue) -> bool {
        if !self.is_busy(queue) {
            return false;
        }
        let job = self.jobs[queue as usize].pop_front();
        if let Some(done) = job.and_then(|job| self.perform(job)) {
            self.finished.push_back(done);
        }
        self.close();
        true
    }

    /// The next result that the process has not taken yet.
    pub fn finished(&mut self) -> Option<DiskDone> {
        let done = self.finished.pop_front();
        if let Some(DiskDone::Switched {
            file,
            outcome: SwitchOutcome::Done,
        }) = done
        {
            // The process closes the old file.
            let old = self.files.keys().copied().filter(|old| *old != file);
            self.closed.extend(old.collect::<Vec<_>>());
            self.close();
        }
        done
    }

    /// Whether no job waits, and no result.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.finished.is_empty() && self.jobs.iter().all(VecDeque::is_empty)
    }

    /// Removes files that the process has closed and that neither a name nor a job refers to. Their
    /// room is free again.
    fn close(&mut self) {
        let jobs = || self.jobs.iter().flatten();
        let is_in_use = |id: FileId| {
            jobs().any(|job| match &job.work {
                DiskWork::Append(chunks) => chunks.iter().any(|chunk| chunk.file == id),
                DiskWork::Sync { files } => files.contains(&id),
                DiskWork::Reserve { file, .. }
                | DiskWork::Create { file }
                | DiskWork::Switch { file }
                | DiskWork::Discard { file } => *file == id,
            })
        };
        let named = [Some(self.journal), self.next, self.journal_before];
        let is_gone = |id: &FileId| !named.contains(&Some(*id)) && !is_in_use(*id);
        let (gone, kept): (Vec<FileId>, Vec<FileId>) =
            self.closed.iter().copied().partition(is_gone);
        self.closed = kept;
        self.files.retain(|id, _| !gone.contains(id));
    }

    /// Does all jobs at once, like the best possible disk.
    pub fn do_all(&mut self) {
        while Queue::ALL.into_iter().any(|queue| self.work(queue)) {}
    }

    /// Syncs all writes. The process waits for that when it starts and when it stops.
    pub fn finish(&mut self) {
        for file in self.files.values_mut() {
            file.sync(u64::MAX);
        }
    }

    /// The process ends. With [`End::PowerLost`] the machine ends too.
    pub fn end(&mut self, end: End) {
        if end == End::Stopped {
            // The process waits until all jobs are done and synced.
            self.is_frozen = [false; 2];
            self.do_all();
            self.finish();
            self.journal_before = None;
        } else {
            self.leave_unfinished();
        }
        self.jobs = Default::default();
        self.is_frozen = [false; 2];
        self.finished.clear();
        if end == End::PowerLost {
            self.machine += 1;
            if let Some(before) = self.journal_before.take()
                && self.rng.percent(50)
            {
                self.journal = before;
            }
            for file in self.files.values_mut() {
                file.lose_power(&mut self.rng);
            }
        }
        let journal = self.files.remove(&self.journal).unwrap_or_default();
        let before = self
            .journal_before
            .and_then(|it| self.files.remove_entry(&it));
        self.files.clear();
        // A later loss of power can still undo a rename without a sync.
        if let Some((id, file)) = before {
            self.files.insert(id, file);
        }
        self.files.insert(self.journal, journal);
        self.next = None;
    }

    /// Does some of the first jobs of each queue, and half of the next one.
    fn leave_unfinished(&mut self) {
        // Strikes do not matter: no process is left to get their errors.
        self.strikes.clear();
        let mut left = Queue::ALL.map(|queue| self.rng.below(self.jobs(queue) + 1));
        while left.iter().any(|left| *left > 0) {
            let queue = *self.rng.pick(&Queue::ALL);
            if left[queue as usize] == 0 {
                continue;
            }
            left[queue as usize] -= 1;
            if let Some(job) = self.jobs[queue as usize].pop_front() {
                self.perform(job);
            }
        }
        for queue in Queue::ALL {
            if let Some(job) = self.jobs[queue as usize].pop_front() {
                self.perform_half(job);
            }
        }
    }

    /// Does a part of a job, because the process ends in the middle of it.
    fn perform_half(&mut self, job: Job) {
        match job.work {
            DiskWork::Append(chunks) => {
                let whole = self.rng.below(chunks.len() + 1);
                for (place, chunk) in chunks.iter().enumerate().take(whole + 1) {
                    let mut count = chunk.bytes.len();
                    if place == whole {
                        count = self.rng.below(count + 1);
                    }
                    let room = self.room_at(chunk.file, chunk.offset);
                    count = count.min(usize::try_from(room).unwrap_or(usize::MAX));
                    let file = self.file(chunk.file);
                    file.write(chunk.offset, &chunk.bytes[..count]);
                }
            }
            DiskWork::Sync { .. } => {
                let rng = &mut self.rng;
                for (id, writes) in job.covers {
                    if let Some(file) = self.files.get_mut(&id)
                        && rng.percent(50)
                    {
                        file.sync(writes);
                    }
                }
            }
            DiskWork::Switch { file } if self.rng.percent(50) => self.rename(file),
            DiskWork::Reserve { .. }
            | DiskWork::Create { .. }
            | DiskWork::Switch { .. }
            | DiskWork::Discard { .. } => {}
        }
    }

    /// A copy of the journal as a process would read it now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.journal().to_vec())
    }

    /// Replaces all files by a copy, while no process runs.
    pub fn put_back(&mut self, snapshot: &Snapshot) {
        let file = File {
            cached: snapshot.0.clone(),
            platter: snapshot.0.clone(),
            ..File::default()
        };
        self.files = BTreeMap::from([(FileId(0), file)]);
        self.journal = FileId(0);
        self.journal_before = None;
    }

    /// Replaces the journal by these bytes, while no process runs.
    pub fn put_bytes(&mut self, bytes: Vec<u8>) {
        self.put_back(&Snapshot(bytes));
    }

    fn file(&mut self, id: FileId) -> &mut File {
        let Some(file) = self.files.get_mut(&id) else {
            panic!("{id:?} does not exist");
        };
        file
    }

    /// Uses up the first strike that fits the operation, if there is one.
    fn struck(&mut self, fits: impl Fn(Strike) -> Option<DiskErrorKind>) -> Option<DiskErrorKind> {
        let fits = |strike: Strike| match strike {
            Strike::Any(kind) => Some(kind),
            strike => fits(strike),
        };
        let place = self.strikes.iter().position(|it| fits(*it).is_some())?;
        let kind = fits(self.strikes.remove(place))?;
        self.may_give_up |= kind == DiskErrorKind::Broken;
        Some(kind)
    }

    fn perform(&mut self, job: Job) -> Option<DiskDone> {
        Some(match job.work {
            DiskWork::Append(chunks) => {
                let outcome = self.append(&chunks);
                DiskDone::Appended { chunks, outcome }
            }
            DiskWork::Reserve {
                file,
                offset,
                bytes,
            } => DiskDone::Reserved {
                file,
                outcome: self.reserve(file, offset + bytes),
            },
            DiskWork::Sync { files } => DiskDone::Synced {
                files,
                outcome: self.sync(job.covers),
            },
            DiskWork::Create { file } => DiskDone::Created {
                file,
                outcome: self.create(file),
            },
            DiskWork::Switch { file } => DiskDone::Switched {
                file,
                outcome: self.switch(file),
            },
            DiskWork::Discard { file } => {
                self.discard(file);
                return None;
            }
        })
    }

    /// Bytes that can be written to a file from this offset on.
    fn room_at(&self, file: FileId, offset: u64) -> u64 {
        let own = self.files.get(&file).map_or(0, File::room);
        own.saturating_sub(offset).saturating_add(self.room())
    }

    fn append(&mut self, chunks: &[Chunk]) -> Result<(), (FileId, DiskError)> {
        for (place, chunk) in chunks.iter().enumerate() {
            let is_current = chunk.file == self.journal;
            let struck = self.struck(|strike| match strike {
                Strike::WriteCurrent(kind) => is_current.then_some(kind),
                Strike::WriteNext(kind) => (!is_current).then_some(kind),
                _ => None,
            });
            let room = self.room_at(chunk.file, chunk.offset);
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let is_too_long = chunk.bytes.len() > room;
            let kind = struck.or(is_too_long.then_some(DiskErrorKind::Full));
            self.check(chunk);
            let Some(kind) = kind else {
                let file = self.file(chunk.file);
                file.write(chunk.offset, &chunk.bytes);
                file.end = chunk.offset + chunk.bytes.len() as u64;
                file.refused = None;
                continue;
            };
            self.refusals += u64::from(kind == DiskErrorKind::Full);
            self.must_give_up |= kind == DiskErrorKind::Broken && is_current;
            // Any part of this chunk and of the later ones may be written.
            for chunk in &chunks[place..] {
                let room = self.room_at(chunk.file, chunk.offset);
                let most = usize::try_from(room).unwrap_or(usize::MAX);
                let count = self.rng.below(chunk.bytes.len() + 1).min(most);
                let file = self.file(chunk.file);
                file.write(chunk.offset, &chunk.bytes[..count]);
                file.refused = Some(chunk.bytes.clone());
            }
            return Err((chunk.file, error(kind)));
        }
        Ok(())
    }

    /// Asserts that a write continues its file and repeats what was refused.
    fn check(&mut self, chunk: &Chunk) {
        let file = self.file(chunk.file);
        assert_eq!(
            chunk.offset, file.end,
            "{:?} is written where it does not end",
            chunk.file
        );
        if let Some(refused) = &file.refused {
            assert!(
                chunk.bytes.starts_with(refused),
                "what {:?} refused is not written again",
                chunk.file
            );
        }
    }

    fn reserve(&mut self, id: FileId, end: u64) -> Result<(), DiskError> {
        let struck = self.struck(|strike| match strike {
            Strike::Reserve(kind) => Some(kind),
            _ => None,
        });
        let room = self.room();
        let own = self.file(id).room();
        let wanted = end.saturating_sub(own);
        let is_refused = self.reserves && wanted > room;
        if let Some(kind) = struck.or(is_refused.then_some(DiskErrorKind::Full)) {
            // A refused reservation may still have reserved a part.
            if self.reserves && kind == DiskErrorKind::Full && self.rng.percent(50) {
                let part = self.rng.between(0, wanted.min(room));
                self.file(id).reserved = own + part;
            }
            return Err(error(kind));
        }
        if self.reserves {
            let file = self.file(id);
            file.reserved = file.reserved.max(end);
        }
        Ok(())
    }

    fn sync(&mut self, covers: Vec<(FileId, u64)>) -> Result<(), DiskError> {
        let struck = self.struck(|strike| match strike {
            Strike::Sync(kind) => Some(kind),
            _ => None,
        });
        self.refusals += u64::from(struck == Some(DiskErrorKind::Full));
        for &(id, writes) in &covers {
            let Some(file) = self.files.get_mut(&id) else {
                panic!("{id:?} is synced and does not exist");
            };
            match struck {
                None => file.sync(writes),
                Some(_) => file.give_up(writes, &mut self.rng),
            }
            self.must_give_up |= struck == Some(DiskErrorKind::Broken) && id == self.journal;
        }
        struck.map_or(Ok(()), |kind| Err(error(kind)))
    }

    fn create(&mut self, id: FileId) -> Result<(), DiskError> {
        assert!(
            self.next.is_none(),
            "{:?} is called journal.new, and {id:?} is to be made",
            self.next
        );
        assert!(!self.files.contains_key(&id), "{id:?} is used twice");
        let struck = self.struck(|strike| match strike {
            Strike::Create(kind) => Some(kind),
            _ => None,
        });
        // A directory entry needs little room, so a full disk may still have it.
        let is_full = self.room() == 0 && self.rng.percent(50);
        if let Some(kind) = struck.or(is_full.then_some(DiskErrorKind::Full)) {
            return Err(error(kind));
        }
        self.files.insert(id, File::default());
        self.next = Some(id);
        Ok(())
    }

    fn switch(&mut self, id: FileId) -> SwitchOutcome {
        let struck = self.strikes.iter().position(|strike| {
            matches!(
                strike,
                Strike::SwitchRefused(_) | Strike::SwitchUnknown(_) | Strike::Any(_)
            )
        });
        let struck = struck.map(|place| self.strikes.remove(place));
        match struck {
            Some(Strike::SwitchUnknown(kind)) => {
                self.may_give_up = true;
                self.must_give_up = true;
                if self.rng.percent(50) {
                    self.rename(id);
                }
                SwitchOutcome::Unknown(error(kind))
            }
            Some(Strike::SwitchRefused(kind) | Strike::Any(kind)) => {
                self.may_give_up |= kind == DiskErrorKind::Broken;
                SwitchOutcome::Refused(error(kind))
            }
            Some(
                Strike::WriteCurrent(_)
                | Strike::WriteNext(_)
                | Strike::Reserve(_)
                | Strike::Sync(_)
                | Strike::Create(_),
            )
            | None => {
                self.rename(id);
                self.journal_before = None;
                SwitchOutcome::Done
            }
        }
    }

    /// Gives the journal's name to a file, without a sync.
    fn rename(&mut self, id: FileId) {
        assert_eq!(self.next, Some(id), "{id:?} is not called journal.new");
        self.next = None;
        self.journal_before = Some(self.journal);
        self.journal = id;
    }

    fn discard(&mut self, id: FileId) {
        assert_ne!(id, self.journal, "the journal is removed");
        self.closed.push(id);
        if self.next == Some(id) {
            self.next = None;
        }
        self.close();
    }
}

fn error(kind: DiskErrorKind) -> DiskError {
    let text = match kind {
        DiskErrorKind::Full => "no space left on device",
        DiskErrorKind::Broken => "input/output error",
    };
    DiskError {
        kind,
        text: text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DiskErrorKind::{Broken, Full};

    const OLD: FileId = FileId(0);
    const NEW: FileId = FileId(1);

    fn disk(seed: u64) -> FakeDisk {
        FakeDisk::new("Riley", Rng::new(seed, "fake disk"))
    }

    fn chunk(file: FileId, offset: u64, bytes: &[u8]) -> Chunk {
        let bytes = bytes.to_vec();
        Chunk {
            file,
            offset,
            bytes,
        }
    }

    impl FakeDisk {
        fn ask(&mut self, work: DiskWork) -> DiskDone {
            let queue = Queue::of(&work);
            self.submit(work);
            assert!(self.work(queue));
            self.finished().expect("an answer")
        }

        fn append_one(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> bool {
            let work = DiskWork::Append(vec![chunk(file, offset, bytes)]);
            matches!(
                self.ask(work),
                DiskDone::Appended {
                    outcome: Ok(()),
                    ..
                }
            )
        }

        fn reserve_to(&mut self, file: FileId, end: u64) -> bool {
            let work = DiskWork::Reserve {
                file,
                offset: 0,
                bytes: end,
            };
            matches!(
                self.ask(work),
                DiskDone::Reserved {
                    outcome: Ok(()),
                    ..
                }
            )
        }

        fn sync_all(&mut self, files: &[FileId]) -> bool {
            let files = files.to_vec();
            let done = self.ask(DiskWork::Sync { files });
            matches!(
                done,
                DiskDone::Synced {
                    outcome: Ok(()),
                    ..
                }
            )
        }

        fn make_next(&mut self) {
            let done = self.ask(DiskWork::Create { file: NEW });
            assert!(matches!(
                done,
                DiskDone::Created {
                    outcome: Ok(()),
                    ..
                }
            ));
        }

        fn switch_to_next(&mut self) -> SwitchOutcome {
            match self.ask(DiskWork::Switch { file: NEW }) {
                DiskDone::Switched { outcome, .. } => outcome,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn written_bytes_survive_a_kill_and_synced_ones_power_loss() {
        let mut lengths = [0; 2];
        for seed in 0..100 {
            let mut disk = disk(seed);
            assert!(disk.append_one(OLD, 0, b"synced"));
            assert!(disk.sync_all(&[OLD]));
            assert!(disk.append_one(OLD, 6, b"written"));
            let mut killed = disk.clone();
            killed.end(End::Killed);
            assert_eq!(killed.journal(), b"syncedwritten");
            disk.end(End::PowerLost);
            assert!(disk.journal().starts_with(b"synced"));
            lengths[usize::from(disk.length() > 6)] += 1;
        }
        assert!(lengths.iter().all(|count| *count > 10), "{lengths:?}");
    }

    #[test]
    fn a_sync_covers_only_writes_before_its_request() {
        let is_lost = |seed| {
            let mut disk = disk(seed);
            disk.submit(DiskWork::Sync { files: vec![OLD] });
            assert!(disk.append_one(OLD, 0, b"late"));
            assert!(disk.work(Queue::Keeper));
            disk.end(End::PowerLost);
            disk.length() == 0
        };
        assert!((0..50).any(is_lost));
    }

    #[test]
    fn a_refused_write_leaves_any_prefix() {
        let mut parts = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let mut disk = disk(seed);
            disk.set_capacity(3);
            assert!(!disk.append_one(OLD, 0, b"abcdef"));
            assert!(b"abc".starts_with(disk.journal()));
            parts.insert(disk.length());
            assert_eq!(disk.refusals(), 1);
            assert!(!disk.may_give_up());
            disk.set_capacity(8);
            assert!(disk.append_one(OLD, 0, b"abcdefgh"));
        }
        assert_eq!(parts.len(), 4, "{parts:?}");
    }

    #[test]
    fn a_chunk_after_a_refused_one_is_written_in_part() {
        for seed in 0..50 {
            let mut disk = disk(seed);
            disk.make_next();
            disk.strike(Strike::WriteCurrent(Full));
            let chunks = vec![chunk(OLD, 0, b"abcd"), chunk(NEW, 0, b"abcd")];
            let DiskDone::Appended { chunks, outcome } = disk.ask(DiskWork::Append(chunks)) else {
                panic!("an append");
            };
            assert_eq!((chunks.len(), outcome.unwrap_err().0), (2, OLD));
            assert!(b"abcd".starts_with(disk.journal()));
        }
    }

    #[test]
    fn all_files_share_the_disk_s_room() {
        let mut disk = disk(1);
        disk.set_capacity(100);
        assert!(disk.reserve_to(OLD, 60));
        disk.make_next();
        assert!(!disk.reserve_to(NEW, 41));
        disk.ask_discard();
        disk.make_next();
        assert!(disk.reserve_to(NEW, 40));
        disk.set_others(1_000);
        assert_eq!(disk.room(), 0);
        // Reserved room stays, even if other users fill the disk.
        assert!(disk.append_one(OLD, 0, &[7; 60]));
        assert!(!disk.append_one(OLD, 60, b"x"));
        disk.set_others(0);
        disk.ask_discard();
        assert!(disk.append_one(OLD, 60, b"x"));
    }

    impl FakeDisk {
        fn ask_discard(&mut self) {
            self.submit(DiskWork::Discard { file: NEW });
            assert!(self.work(Queue::Keeper));
            assert_eq!(self.finished(), None);
        }
    }

    #[test]
    fn a_disk_without_fallocate_reports_success() {
        let mut disk = disk(1);
        disk.set_reserves(false);
        disk.set_capacity(3);
        assert!(disk.reserve_to(OLD, 100));
        assert!(!disk.append_one(OLD, 0, b"abcd"));
    }

    #[test]
    fn every_kind_of_disk_operation_can_fail() {
        for kind in [Full, Broken] {
            let mut disk = disk(3);
            disk.strike(Strike::Create(kind));
            disk.strike(Strike::Reserve(kind));
            disk.strike(Strike::WriteNext(kind));
            disk.strike(Strike::WriteCurrent(kind));
            disk.strike(Strike::Sync(kind));
            disk.strike(Strike::SwitchRefused(kind));
            assert!(!matches!(
                disk.ask(DiskWork::Create { file: NEW }),
                DiskDone::Created {
                    outcome: Ok(()),
                    ..
                }
            ));
            disk.make_next();
            assert!(!disk.reserve_to(NEW, 10) && disk.reserve_to(NEW, 10));
            assert!(!disk.append_one(NEW, 0, b"new") && disk.append_one(NEW, 0, b"new"));
            assert!(!disk.append_one(OLD, 0, b"old") && disk.append_one(OLD, 0, b"old"));
            assert!(!disk.sync_all(&[OLD]) && disk.sync_all(&[OLD]));
            assert!(matches!(disk.switch_to_next(), SwitchOutcome::Refused(_)));
            assert_eq!(disk.journal(), b"old");
            assert_eq!(disk.switch_to_next(), SwitchOutcome::Done);
            assert_eq!(disk.journal(), b"new");
            assert_eq!(disk.may_give_up(), kind == Broken);
            assert_eq!(disk.must_give_up(), kind == Broken);
        }
    }

    #[test]
    fn a_switch_with_unknown_outcome_may_have_happened() {
        let mut names = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let mut disk = disk(seed);
            assert!(disk.append_one(OLD, 0, b"old"));
            disk.make_next();
            assert!(disk.append_one(NEW, 0, b"new"));
            assert!(disk.sync_all(&[OLD, NEW]));
            disk.strike(Strike::SwitchUnknown(Full));
            assert!(matches!(disk.switch_to_next(), SwitchOutcome::Unknown(_)));
            let before = disk.journal().to_vec();
            disk.end(End::PowerLost);
            names.insert((before, disk.journal().to_vec()));
        }
        let names: Vec<String> = names
            .iter()
            .map(|(before, after)| format!("{} {}", before.escape_ascii(), after.escape_ascii()))
            .collect();
        assert_eq!(names, ["new new", "new old", "old old"]);
    }

    #[test]
    fn a_kill_leaves_each_job_done_partly_done_or_not_done() {
        let mut ends = std::collections::BTreeSet::new();
        for seed in 0..300 {
            let mut disk = disk(seed);
            assert!(disk.append_one(OLD, 0, b"old"));
            disk.make_next();
            assert!(disk.append_one(NEW, 0, b"new"));
            disk.submit(DiskWork::Append(vec![
                chunk(OLD, 3, b"ab"),
                chunk(NEW, 3, b"ab"),
            ]));
            disk.submit(DiskWork::Switch { file: NEW });
            disk.end(End::Killed);
            ends.insert(disk.journal().to_vec());
        }
        let ends: Vec<String> = ends
            .iter()
            .map(|it| it.escape_ascii().to_string())
            .collect();
        assert_eq!(ends, ["new", "newa", "newab", "old", "olda", "oldab"]);
    }

    #[test]
    fn a_frozen_queue_does_not_stop_the_other() {
        let mut disk = disk(1);
        disk.set_frozen(Queue::Keeper, true);
        disk.submit(DiskWork::Sync { files: vec![OLD] });
        assert!(!disk.work(Queue::Keeper));
        assert!(disk.append_one(OLD, 0, b"x"));
        disk.set_frozen(Queue::Keeper, false);
        assert!(disk.work(Queue::Keeper));
    }

    #[test]
    fn a_sync_after_a_failed_one_writes_nothing() {
        let is_lost = |seed| {
            let mut disk = disk(seed);
            assert!(disk.append_one(OLD, 0, b"x"));
            disk.strike(Strike::Sync(Broken));
            assert!(!disk.sync_all(&[OLD]));
            assert!(disk.sync_all(&[OLD]));
            disk.end(End::PowerLost);
            disk.length() == 0
        };
        assert!((0..50).any(is_lost));
    }

    #[test]
    fn a_restored_snapshot_has_its_old_bytes() {
        let mut disk = disk(1);
        assert!(disk.append_one(OLD, 0, b"then"));
        let copy = disk.snapshot();
        assert!(disk.append_one(OLD, 4, b"now"));
        disk.end(End::Killed);
        disk.put_back(&copy);
        assert_eq!(disk.journal(), b"then");
    }

    #[test]
    #[should_panic(expected = "written where it does not end")]
    fn a_write_that_leaves_a_hole_panics() {
        disk(1).append_one(OLD, 1, b"x");
    }

    #[test]
    #[should_panic(expected = "is not written again")]
    fn a_retry_with_other_bytes_panics() {
        let mut disk = disk(1);
        disk.strike(Strike::WriteCurrent(Full));
        disk.append_one(OLD, 0, b"ab");
        disk.append_one(OLD, 0, b"x");
    }
}
