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
