//! Whatever the order in which things happen: nothing that was released is lost.

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
    /// The next file can not be written.
    is_next_bad: bool,
}

const FULL: DiskError = DiskError {
    is_full: true,
    text: String::new(),
};

const BAD: DiskError = DiskError {
    is_full: false,
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
                let is_bad = file == Which::Next && self.is_next_bad;
                Some(DiskDone::Appended {
                    file,
                    bytes,
                    outcome: if is_bad { Err(BAD) } else { Ok(()) },
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
            if let Entry::Record { seq, epoch, line } = entry {
                let at = At::parse(line).unwrap();
                clients.push(at.client.to_vec());
                records.restore(seq, epoch, line, &at);
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
    NextBad(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..6).prop_map(Step::Update),
        4 => Just(Step::Turn),
        4 => Just(Step::Finish),
        1 => (1u64..2000).prop_map(Step::Later),
        1 => Just(Step::Later(60_000)),
        1 => any::<bool>().prop_map(Step::Full),
        1 => any::<bool>().prop_map(Step::NextBad),
    ]
}

/// A journal, what it is about, and the disk that it is on.
struct Story {
    fsync: Fsync,
    durability: Durability,
    records: Records,
    disk: FakeDisk,
    now: Time,
    /// Each accepted change: its client and its stamp.
    accepted: Vec<(Vec<u8>, u64)>,
    refused: usize,
}

impl Story {
    fn begin(fsync: Fsync) -> Story {
        let limits = Limits {
            compact_bytes: 600,
            ..Limits::default()
        };
        let mut durability = Durability::new("Riley", fsync, &limits);
        durability.opened(0, 0, BootId(1), 0);
        Story {
            fsync,
            durability,
            records: Records::new(&limits),
            disk: FakeDisk {
                journal: FakeFile::default(),
                next: None,
                background: VecDeque::new(),
                syncs: VecDeque::new(),
                is_full: false,
                is_next_bad: false,
            },
            now: Time::default(),
            accepted: Vec::new(),
            refused: 0,
        }
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Update(client) => self.update(&format!("c{client}"))?,
            Step::Turn => self.turn()?,
            Step::Finish => self.finish(),
            Step::Later(ms) => self.now = self.now + Duration::from_millis(*ms),
            Step::Full(is_full) => self.disk.is_full = *is_full,
            Step::NextBad(is_bad) => self.disk.is_next_bad = *is_bad,
        }
        self.check()
    }

    fn update(&mut self, client: &str) -> Result<(), TestCaseError> {
        let stamp = self.accepted.len() as u64 + 1;
        let line = format!("AT Riley +0.000000000 {client} +1+2 {stamp}");
        let at = At::parse(line.as_bytes()).unwrap();
        match self.durability.room_for(Entry::record_bytes(line.len())) {
            Room::Enough => {
                let offer = self.records.offer(line.as_bytes(), &at, Teacher::NOBODY);
                prop_assert_eq!(offer, Offer::Accepted);
                let seq = self.records.last_seq();
                self.durability.record(seq, 0, line.as_bytes());
                self.accepted.push((at.client.to_vec(), stamp));
            }
            Room::Wait | Room::Full => self.refused += 1,
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), TestCaseError> {
        self.durability.turn_begins();
        let mut works = 0;
        while let Some(work) = self
            .durability
            .next_work(&mut self.records, self.now, |_| ())
        {
            works += 1;
            prop_assert!(works < 100, "a turn without an end: {:?}", work);
            if let Some(done) = self.disk.perform(work) {
                self.hear(done);
            }
        }
        Ok(())
    }

    /// The disk finishes the first thing that it does in the background.
    fn finish(&mut self) {
        if let Some(done) = self.disk.finish_one() {
            self.hear(done);
        }
    }

    fn hear(&mut self, done: DiskDone) {
        let work = self.durability.done(done, &mut self.records, self.now);
        work.map(|work| self.disk.perform(work));
    }

    /// What was released is in the journal as it would be found after a kill, and with `always` after a loss of power.
    fn check(&self) -> Result<(), TestCaseError> {
        prop_assert!(self.durability.failure().is_none() || self.disk.is_next_bad);
        let survives = match self.fsync {
            Fsync::Always => &self.disk.journal.synced,
            Fsync::Interval | Fsync::Never => &self.disk.journal.cached,
        };
        let table = table_of(survives);
        let released = self.durability.released() as usize;
        for (client, stamp) in self.accepted.iter().take(released) {
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
        Ok(())
    }
}

/// Whatever the order in which things happen.
fn nothing_released_is_lost(fsync: Fsync, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut story = Story::begin(fsync);
    for step in steps {
        story.take(step)?;
        if story.durability.failure().is_some() {
            return Ok(()); // the server stops
        }
    }
    prop_assert!(story.refused + story.accepted.len() <= steps.len());
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

#[test]
fn what_the_disk_still_did_for_a_compaction_that_was_given_up_is_not_taken_for_the_next_one_s()
-> Result<(), TestCaseError> {
    // So much that copying it takes several turns.
    const CLIENTS: usize = 60;
    let mut story = Story::begin(Fsync::Interval);
    let name = "x".repeat(3_000);
    story.take(&Step::Turn)?;
    story.take(&Step::Finish)?;
    for _ in 0..3 {
        for client in 0..CLIENTS {
            story.update(&format!("{name}{client}"))?;
        }
        story.take(&Step::Turn)?;
    }
    prop_assert_eq!(story.refused, 0);
    // All is copied, and the disk takes its time to reserve room behind it; the next entry can not be written there.
    while story.durability.compaction != Compaction::Reserving {
        story.take(&Step::Turn)?;
    }
    story.take(&Step::NextBad(true))?;
    story.update("y")?;
    story.take(&Step::Turn)?;
    prop_assert!(story.disk.next.is_none(), "it is given up");
    // A minute later it is tried again, and in the middle of that the first one's room is there.
    story.take(&Step::NextBad(false))?;
    story.take(&Step::Later(60_000))?;
    story.take(&Step::Turn)?;
    while !story.disk.background.is_empty() {
        story.take(&Step::Finish)?;
    }
    let before = story.disk.journal.cached.len();
    for _ in 0..10 {
        story.take(&Step::Turn)?;
        story.take(&Step::Finish)?;
    }
    prop_assert!(story.disk.journal.cached.len() < before, "compacted");
    story.check()
}
