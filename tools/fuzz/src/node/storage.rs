//! A disk that can be slow, full, or broken.

use std::collections::VecDeque;

use herd_mio::core::durability::{DiskDone, DiskError, DiskWork, Which};
use herd_mio::core::journal::{Entry, JournalError, Replay};

use crate::server;

/// What is done in the background, when the story says so.
enum Job {
    Reserve { file: Which, end: usize },
    Sync,
    Switch,
}

/// The journal's files, and what is to be done with them.
#[derive(Default)]
pub(crate) struct Storage {
    journal: Vec<u8>,
    next: Option<Vec<u8>>,
    /// Room can not be reserved: there is some for as long as there is.
    pub(crate) never_reserves: bool,
    /// Up to where the files have room whatever happens.
    reserved: usize,
    next_reserved: usize,
    jobs: VecDeque<Job>,
    finished: VecDeque<DiskDone>,
    pub(crate) is_full: bool,
    /// Whatever comes next fails.
    pub(crate) is_broken: bool,
    /// Something failed that was not for want of room.
    pub(crate) has_failed: bool,
}

impl Storage {
    /// The process begins: it is told what the journal says. Returns its good length.
    pub(crate) fn open(&mut self, tell: impl FnMut(Entry<'_>)) -> Result<u64, JournalError> {
        let mut replay = Replay::new(server::NAME, 1);
        replay.data_received(&self.journal, tell)?;
        let end = replay.finish()?;
        self.journal.truncate(end.offset as usize);
        self.reserved = 0;
        self.next = None;
        self.jobs.clear();
        self.finished.clear();
        self.has_failed = false;
        Ok(end.offset)
    }

    /// Does what is asked, or puts it on the list of what is to be done.
    pub(crate) fn perform(&mut self, work: DiskWork) -> Option<DiskDone> {
        match work {
            DiskWork::Append {
                file,
                offset,
                bytes,
            } => {
                let outcome = self.append(file, offset as usize, &bytes);
                return Some(DiskDone::Appended {
                    file,
                    bytes,
                    outcome,
                });
            }
            DiskWork::Create if self.is_full => return Some(DiskDone::Created(Err(full()))),
            DiskWork::Create => {
                self.next = Some(Vec::new());
                self.next_reserved = 0;
                return Some(DiskDone::Created(Ok(())));
            }
            DiskWork::Discard => self.next = None,
            DiskWork::Reserve {
                file,
                offset,
                bytes,
            } => self.jobs.push_back(Job::Reserve {
                file,
                end: (offset + bytes) as usize,
            }),
            DiskWork::Sync { .. } => self.jobs.push_back(Job::Sync),
            DiskWork::Switch => self.jobs.push_back(Job::Switch),
        }
        None
    }

    fn append(&mut self, which: Which, offset: usize, bytes: &[u8]) -> Result<(), DiskError> {
        let (is_full, breaks) = (self.is_full, self.breaks());
        let reserved = match which {
            Which::Current => self.reserved,
            Which::Next => self.next_reserved,
        };
        let file = match which {
            Which::Current => Some(&mut self.journal),
            Which::Next => self.next.as_mut(),
        };
        let Some(file) = file else {
            return Err(bad());
        };
        assert!(offset <= file.len(), "a hole in the journal");
        let end = offset + bytes.len();
        let fails = breaks || is_full && end > reserved.max(file.len());
        // What fails may have been done in part.
        let written = if fails { bytes.len() / 2 } else { bytes.len() };
        file.resize(file.len().max(offset + written), 0);
        file[offset..offset + written].copy_from_slice(&bytes[..written]);
        match (breaks, fails) {
            (true, _) => Err(bad()),
            (false, true) => Err(full()),
            (false, false) => Ok(()),
        }
    }

    fn breaks(&mut self) -> bool {
        let breaks = std::mem::take(&mut self.is_broken);
        self.has_failed |= breaks;
        breaks
    }

    /// The first thing on the list is done; whether there was one.
    pub(crate) fn work(&mut self) -> bool {
        let Some(job) = self.jobs.pop_front() else {
            return false;
        };
        let done = match job {
            Job::Reserve { file, .. } if self.never_reserves => DiskDone::Reserved(file, Ok(())),
            Job::Reserve { file, .. } if self.is_full => DiskDone::Reserved(file, Err(full())),
            Job::Reserve { file, end } => {
                match file {
                    Which::Current => self.reserved = end,
                    Which::Next => self.next_reserved = end,
                }
                DiskDone::Reserved(file, Ok(()))
            }
            Job::Sync => DiskDone::Synced(if self.breaks() { Err(bad()) } else { Ok(()) }),
            Job::Switch if self.breaks() => DiskDone::Switched(Err(bad())),
            Job::Switch => {
                if let Some(next) = self.next.take() {
                    self.journal = next;
                    self.reserved = self.next_reserved;
                }
                DiskDone::Switched(Ok(()))
            }
        };
        self.finished.push_back(done);
        true
    }

    /// What was done, and the process has not heard of.
    pub(crate) fn finished(&mut self) -> Option<DiskDone> {
        self.finished.pop_front()
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
