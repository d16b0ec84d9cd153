//! A machine's disk: what the production `src/shell/disk.rs` would do to real files, and what is left of them when the process or
//! the power ends.
//!
//! ```text
//!   write ──► cached (what any process reads) ──► dirty (may be on the platter, or not) ──► a sync: platter
//! ```
//!
//! It promises no more than POSIX does: until a sync is reported, each sector that was written since the last one is on the platter or
//! not, in any order; a sync covers what was written before it was asked for; a rename that is not reported has happened or not. A
//! write that fails has written some of it. After a sync that failed, the system believes what it could not write to be written.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use herd_mio::core::durability::{DiskDone, DiskError, DiskWork, Fsync, Which};
use herd_mio::core::journal::{Entry, JournalError, Replay};

use super::order::{Fields, Line};
use super::rng::Rng;

/// What is written at once, or not at all.
const SECTOR: usize = 512;

/// What kind of disk a machine has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskPlan {
    pub(crate) fsync: Fsync,
    /// Room can be reserved.
    pub(crate) reserves: bool,
    /// The longest that it takes for anything that is not done at once.
    pub(crate) slowness: Duration,
}

/// How a process ended, as far as its disk is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In good order: all is synced.
    Stopped,
    /// The system goes on without it.
    Killed,
    /// The system ended too.
    Dark,
}

/// A file.
#[derive(Default)]
struct File {
    cached: Vec<u8>,
    platter: Vec<u8>,
    /// What was written since the last sync: its number, where, and what.
    dirty: VecDeque<(u64, usize, Vec<u8>)>,
    writes: u64,
    /// Up to where room is reserved.
    reserved: usize,
}

impl File {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let offset = offset as usize;
        put(&mut self.cached, offset, bytes);
        self.writes += 1;
        self.dirty.push_back((self.writes, offset, bytes.to_vec()));
    }

    /// The writes up to this number are on the platter from now on.
    fn sync(&mut self, writes: u64) {
        while let Some((_, offset, bytes)) = self.take_dirty(writes) {
            put(&mut self.platter, offset, &bytes);
        }
    }

    /// The system has given up on the writes up to this number, and takes them for written.
    fn forget(&mut self, writes: u64) {
        while self.take_dirty(writes).is_some() {}
    }

    fn take_dirty(&mut self, writes: u64) -> Option<(u64, usize, Vec<u8>)> {
        let is_old = self.dirty.front().is_some_and(|(at, ..)| *at <= writes);
        is_old.then(|| self.dirty.pop_front())?
    }

    fn lose_power(&mut self, rng: &mut Rng) {
        let luck = *rng.pick(&[0, 50, 90, 100]);
        for (_, offset, bytes) in std::mem::take(&mut self.dirty) {
            let mut at = 0;
            while at < bytes.len() {
                let size = (SECTOR - (offset + at) % SECTOR).min(bytes.len() - at);
                if rng.percent(luck) {
                    put(&mut self.platter, offset + at, &bytes[at..at + size]);
                }
                at += size;
            }
        }
        self.cached = self.platter.clone();
    }

    fn has_room(&self, end: usize, is_full: bool) -> bool {
        !is_full || end <= self.reserved.max(self.cached.len())
    }
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    file.resize(file.len().max(end), 0);
    file[offset..end].copy_from_slice(bytes);
}

/// What the executor's thread is to do.
enum Job {
    Reserve {
        file: Which,
        end: usize,
    },
    /// Up to which write of each file.
    Sync {
        current: u64,
        next: Option<u64>,
    },
    Switch,
}

/// A disk with a journal on it.
pub(crate) struct Disk {
    pub(crate) plan: DiskPlan,
    server: String,
    rng: Rng,
    /// Changes when the system starts anew.
    machine: u64,
    journal: File,
    next: Option<File>,
    jobs: VecDeque<Job>,
    finished: VecDeque<DiskDone>,
    is_full: bool,
    /// It refused what it had no reserved room for: whoever waits for that may be let go.
    pub(crate) has_refused: bool,
    /// The next write, sync or rename fails.
    is_broken: bool,
    /// Something failed that may not be tried again: the server has to give up.
    pub(crate) has_failed: bool,
}

impl Disk {
    /// An empty one.
    pub(crate) fn new(plan: DiskPlan, server: &str, rng: Rng) -> Disk {
        Disk {
            plan,
            server: server.to_owned(),
            rng,
            machine: 1,
            journal: File::default(),
            next: None,
            jobs: VecDeque::new(),
            finished: VecDeque::new(),
            is_full: false,
            has_refused: false,
            is_broken: false,
            has_failed: false,
        }
    }

    /// A process opens the journal, is told what stands in it, and cuts off its torn tail. Returns its length and the machine's
    /// boot id.
    pub(crate) fn open(
        &mut self,
        mut tell: impl FnMut(Entry<'_>),
    ) -> Result<(u64, u64), JournalError> {
        let mut replay = Replay::new(&self.server, self.machine);
        let mut bytes = self.journal.cached.clone();
        // Room that was reserved.
        bytes.resize(bytes.len() + self.rng.below(40), 0);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, left) = rest.split_at((1 + self.rng.below(1_000)).min(rest.len()));
            replay.data_received(piece, &mut tell)?;
            rest = left;
        }
        let end = replay.finish()?;
        self.journal.cached.truncate(end.offset as usize);
        self.journal.platter = self.journal.cached.clone();
        self.journal.dirty.clear();
        self.journal.reserved = 0;
        self.next = None;
        self.has_failed = false;
        Ok((end.offset, self.machine))
    }

    /// What a process would find in the journal, by client; nothing if it would refuse it.
    pub(crate) fn table(&self) -> BTreeMap<Vec<u8>, Line> {
        let mut table = BTreeMap::new();
        let mut replay = Replay::new(&self.server, self.machine);
        let told = replay.data_received(&self.journal.cached, |entry| {
            if let Entry::Record { epoch, line, .. } = entry
                && let (Some(fields), Some(line)) = (Fields::of(line), Line::new(line, epoch))
            {
                let held = table.entry(fields.client.to_vec()).or_insert(line.clone());
                if *held < line {
                    *held = line;
                }
            }
        });
        if told.and_then(|()| replay.finish()).is_err() {
            table.clear();
        }
        table
    }

    /// Does what is asked, or puts it on the executor's list (`None`).
    pub(crate) fn perform(&mut self, work: DiskWork) -> Option<DiskDone> {
        match work {
            DiskWork::Append {
                file,
                offset,
                bytes,
            } => {
                let outcome = self.append(file, offset, &bytes);
                Some(DiskDone::Appended {
                    file,
                    bytes,
                    outcome,
                })
            }
            DiskWork::Create if self.is_full && self.rng.percent(50) => {
                Some(DiskDone::Created(Err(full())))
            }
            DiskWork::Create => {
                self.next = Some(File::default());
                Some(DiskDone::Created(Ok(())))
            }
            DiskWork::Discard => {
                self.next = None;
                None
            }
            DiskWork::Reserve {
                file,
                offset,
                bytes,
            } => self.submit(Job::Reserve {
                file,
                end: (offset + bytes) as usize,
            }),
            DiskWork::Sync { both } => {
                let next = self.next.as_ref().filter(|_| both);
                self.submit(Job::Sync {
                    current: self.journal.writes,
                    next: next.map(|next| next.writes),
                })
            }
            DiskWork::Switch => self.submit(Job::Switch),
        }
    }

    fn submit(&mut self, job: Job) -> Option<DiskDone> {
        self.jobs.push_back(job);
        None
    }

    fn append(&mut self, which: Which, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let end = offset as usize + bytes.len();
        let (is_full, broken) = (self.is_full, self.breaks());
        let written = self.rng.below(bytes.len() + 1);
        let Some(file) = self.file(which) else {
            return Err(bad());
        };
        let has_room = file.has_room(end, is_full);
        if has_room && !broken {
            file.write(offset, bytes);
            return Ok(());
        }
        file.write(offset, &bytes[..written]);
        self.has_refused |= !broken;
        Err(if broken { bad() } else { full() })
    }

    /// The process ends in the middle of this write.
    pub(crate) fn tear(&mut self, which: Which, offset: u64, bytes: &[u8]) {
        let written = self.rng.below(bytes.len() + 1);
        if let Some(file) = self.file(which) {
            file.write(offset, &bytes[..written]);
        }
    }

    fn file(&mut self, which: Which) -> Option<&mut File> {
        match which {
            Which::Current => Some(&mut self.journal),
            Which::Next => self.next.as_mut(),
        }
    }

    /// Whether this is what fails.
    fn breaks(&mut self) -> bool {
        let breaks = std::mem::take(&mut self.is_broken);
        self.has_failed |= breaks;
        breaks
    }

    /// How long the job takes that the executor's thread begins now, if there is one.
    pub(crate) fn next_job(&mut self) -> Option<Duration> {
        let most = self.plan.slowness.as_micros() as u64;
        (!self.jobs.is_empty()).then(|| self.rng.micros(0, most))
    }

    /// How many jobs there are.
    pub(crate) fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// The job that the executor's thread is busy with is done.
    pub(crate) fn finish_job(&mut self) {
        let done = match self.jobs.pop_front() {
            None => return,
            Some(Job::Reserve { file: which, .. }) if self.is_full && self.plan.reserves => {
                DiskDone::Reserved(which, Err(full()))
            }
            Some(Job::Reserve { file: which, end }) => {
                let reserves = self.plan.reserves;
                if let Some(file) = self.file(which).filter(|_| reserves) {
                    file.reserved = end;
                }
                DiskDone::Reserved(which, Ok(()))
            }
            Some(Job::Sync { current, next }) => {
                let broken = self.breaks();
                let act = if broken { File::forget } else { File::sync };
                act(&mut self.journal, current);
                if let (Some(file), Some(writes)) = (&mut self.next, next) {
                    act(file, writes);
                }
                DiskDone::Synced(if broken { Err(bad()) } else { Ok(()) })
            }
            Some(Job::Switch) => {
                let broken = self.breaks();
                if !broken || self.rng.percent(50) {
                    self.switch();
                }
                DiskDone::Switched(if broken { Err(bad()) } else { Ok(()) })
            }
        };
        self.finished.push_back(done);
    }

    fn switch(&mut self) {
        if let Some(next) = self.next.take() {
            self.journal = next;
        }
    }

    /// What the executor's thread did that the process has not heard of.
    pub(crate) fn finished(&mut self) -> Option<DiskDone> {
        self.finished.pop_front()
    }

    /// The process ends, and perhaps the system with it.
    pub(crate) fn end(&mut self, end: End) {
        if let Some(Job::Switch) = self.jobs.front()
            && self.rng.percent(50)
        {
            self.switch();
        }
        self.jobs.clear();
        self.finished.clear();
        self.next = None;
        match end {
            End::Stopped => self.sync(),
            End::Killed => {}
            End::Dark => {
                self.machine += 1;
                self.journal.lose_power(&mut self.rng);
            }
        }
    }

    /// The process waits until everything is on the platter.
    pub(crate) fn sync(&mut self) {
        self.journal.sync(u64::MAX);
    }

    /// A copy of the journal, as any other process would read it.
    pub(crate) fn copy(&self) -> Vec<u8> {
        self.journal.cached.clone()
    }

    /// That copy is put in the journal's place.
    pub(crate) fn put_back(&mut self, copy: Vec<u8>) {
        self.journal = File {
            cached: copy.clone(),
            platter: copy,
            ..File::default()
        };
    }

    /// There is no room any more, or there is some again.
    pub(crate) fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
    }

    /// From now on something fails, or nothing does.
    pub(crate) fn set_broken(&mut self, is_broken: bool) {
        self.is_broken = is_broken;
    }
}

fn full() -> DiskError {
    DiskError {
        is_full: true,
        text: "no space left on device".to_owned(),
    }
}

fn bad() -> DiskError {
    DiskError {
        is_full: false,
        text: "input/output error".to_owned(),
    }
}
