//! Tests of the lives, and of disk results in a rare order. All other tests of durability use a
//! simulated disk and are in `tests/durability`.

use super::*;

#[test]
fn a_neighbour_resumes_at_the_last_position_its_lives_share() {
    let salts = Entropy::new(&[7; 32]);
    let mut durability = Durability::new("Riley", Fsync::Always, &Limits::default(), 0, salts);
    durability.restore_life(BootId(9), 0, 6);
    durability.restore_life(BootId(1), 0, 7); // the machine was restarted before this life
    durability.restore_life(BootId(2), 90, 7); // life 1 reached 100; 91 to 100 were not written
    let opened = Opened {
        length: 1_000,
        format: Some(Format::Two(Salt(1))),
        machine: 7,
    };
    durability.opened(opened, BootId(3), 150);
    assert_eq!(durability.resume_position(BootId(9), 50), None);
    assert_eq!(durability.resume_position(BootId(1), 50), Some(50));
    assert_eq!(durability.resume_position(BootId(1), 100), Some(90));
    assert_eq!(durability.resume_position(BootId(2), 150), Some(150));
    assert_eq!(durability.resume_position(BootId(2), 170), Some(150));
    assert_eq!(durability.resume_position(BootId(3), 160), Some(160));
    assert_eq!(durability.resume_position(BootId(4), 1), None);
}

/// Tests of disk results in an order that random tests seldom produce. There is no disk here: each
/// test passes the results by hand.
mod manual_results {
    use super::*;
    use crate::core::table::records::{Origin, Records};
    use crate::core::wire::message::At;

    struct Harness {
        d: Durability,
        records: Records,
        now: Time,
        requested: Vec<DiskWork>,
    }

    fn no_space() -> DiskError {
        DiskError {
            kind: DiskErrorKind::Full,
            text: "no room".into(),
        }
    }

    impl Harness {
        fn new(fsync: Fsync) -> Harness {
            let limits = Limits {
                compact_bytes: 1,
                ..Limits::default()
            };
            let mut d = Durability::new("Riley", fsync, &limits, 0, Entropy::new(&[7; 32]));
            let opened = Opened {
                length: 0,
                format: None,
                machine: 7,
            };
            d.opened(opened, BootId(1), 0);
            Harness {
                d,
                records: Records::new(&limits),
                now: Time::from_nanos(1_000_000_000),
                requested: Vec::new(),
            }
        }

        fn record(&mut self, client: &str, stamp: u64) -> u64 {
            let line = format!("AT Riley +0.000000000 {client} +1+2 {stamp}");
            let at = At::parse(line.as_bytes()).unwrap();
            self.records.merge(line.as_bytes(), &at, Origin::LOCAL);
            let seq = self.records.last_seq();
            self.d.record(seq, 0, line.as_bytes());
            seq
        }

        /// Runs one turn, and collects the requested work in order.
        fn turn(&mut self) {
            self.d.begin_turn();
            while let Some(work) = self.d.next_work(&mut self.records, self.now, |_| ()) {
                self.requested.push(work);
            }
        }

        fn answer(&mut self, work: DiskWork) {
            let done = match work {
                DiskWork::Append(chunks) => DiskDone::Appended {
                    chunks,
                    outcome: Ok(()),
                },
                DiskWork::Reserve { file, .. } => DiskDone::Reserved {
                    file,
                    outcome: Ok(()),
                },
                DiskWork::Sync { files } => DiskDone::Synced {
                    files,
                    outcome: Ok(()),
                },
                DiskWork::Create { file } => DiskDone::Created {
                    file,
                    outcome: Ok(()),
                },
                DiskWork::Switch { file } => DiskDone::Switched {
                    file,
                    outcome: SwitchOutcome::Done,
                },
                DiskWork::Discard { .. } => return,
            };
            self.d.handle_disk_done(done, &mut self.records, self.now);
        }

        fn take(&mut self) -> Vec<DiskWork> {
            std::mem::take(&mut self.requested)
        }

        /// Runs turns until no work is requested, or until the phase `until` is reached.
        fn run_until(&mut self, until: Option<CompactionPhase>) -> bool {
            for _ in 0..200 {
                if Some(self.d.phase()) == until {
                    return true;
                }
                self.turn();
                let work = self.take();
                if work.is_empty() && until.is_none() {
                    return true;
                }
                for work_item in work {
                    self.answer(work_item);
                }
            }
            false
        }
    }

    /// The sync of both files finds no space. The disk does the switch after this sync.
    #[test]
    fn a_failed_sync_is_remembered_across_the_switch() {
        let mut harness = Harness::new(Fsync::Always);
        for stamp in 1..20 {
            harness.record("kiwi", stamp);
            harness.turn();
            for work_item in harness.take() {
                harness.answer(work_item);
            }
            if harness.d.phase() == CompactionPhase::WritingBoth {
                break;
            }
        }
        // Run until the sync that covers the copy is done.
        let mut seq = 0;
        for stamp in 100..200 {
            if harness.d.phase() == CompactionPhase::SwitchDue {
                break;
            }
            seq = harness.record("kiwi", stamp);
            harness.turn();
            for work_item in harness.take() {
                harness.answer(work_item);
            }
        }
        assert_eq!(harness.d.phase(), CompactionPhase::SwitchDue);
        harness.turn();
        let work = harness.take();
        let sync = work.iter().position(|w| matches!(w, DiskWork::Sync { .. }));
        let switch = work
            .iter()
            .position(|w| matches!(w, DiskWork::Switch { .. }));
        println!(
            "sync at {sync:?}, switch at {switch:?}; released {} of {seq}",
            harness.d.sendable_through()
        );
        for work_item in work {
            match work_item {
                DiskWork::Sync { files } => harness.d.handle_disk_done(
                    DiskDone::Synced {
                        files,
                        outcome: Err(no_space()),
                    },
                    &mut harness.records,
                    harness.now,
                ),
                other => harness.answer(other),
            }
        }
        harness.turn();
        for work_item in harness.take() {
            harness.answer(work_item);
        }
        assert!(
            harness.d.sendable_through() < seq,
            "answered, though the only sync that covered it had failed"
        );
    }

    /// A life begins while the table is copied.
    #[test]
    fn a_life_that_begins_during_a_copy_is_in_the_next_file() {
        let mut harness = Harness::new(Fsync::Interval);
        harness.run_until(None);
        let mut next_bytes = Vec::new();
        for number in 0..5_000 {
            harness.record(&format!("c{number}"), 5);
        }
        for stamp in 6..1000 {
            if harness.d.phase() == CompactionPhase::Copying {
                break;
            }
            for number in 0..1_000 {
                harness.record(&format!("c{number}"), stamp);
            }
            harness.turn();
            for work_item in harness.take() {
                if let DiskWork::Append(chunks) = &work_item {
                    for chunk in chunks
                        .iter()
                        .filter(|c| Some(c.file) == harness.d.next.as_ref().map(|n| n.id))
                    {
                        next_bytes.extend_from_slice(&chunk.bytes);
                    }
                }
                harness.answer(work_item);
            }
        }
        assert_eq!(harness.d.phase(), CompactionPhase::Copying);
        let last = harness.records.last_seq();
        harness.d.begin_life(BootId(0x4242_4242_4242_4242), last);
        for _ in 0..100 {
            let done = harness.d.phase() == CompactionPhase::Creating;
            if done {
                break;
            }
            let next = harness.d.next.as_ref().map(|n| n.id);
            harness.turn();
            for work_item in harness.take() {
                if let DiskWork::Append(chunks) = &work_item {
                    for chunk in chunks.iter().filter(|c| Some(c.file) == next) {
                        next_bytes.extend_from_slice(&chunk.bytes);
                    }
                }
                harness.answer(work_item);
            }
        }
        assert_eq!(harness.d.phase(), CompactionPhase::Creating, "switched");
        let boot = [0x42; 8];
        assert!(
            next_bytes.windows(8).any(|w| w == boot),
            "the new journal lacks the life"
        );
    }

    #[test]
    fn a_hung_disk_is_busy_since_its_oldest_pending_job() {
        let mut harness = Harness::new(Fsync::Always);
        harness.run_until(None);
        assert_eq!(harness.d.condition(), Condition::Healthy);
        let began = harness.now;
        harness.record("kiwi", 1);
        harness.turn();
        let appends = harness.take();
        assert_eq!(harness.d.condition(), Condition::Busy { since: began });
        harness.now = harness.now + Duration::from_secs(5);
        for work_item in appends {
            harness.answer(work_item);
        }
        harness.turn();
        let syncs = harness.take();
        assert_eq!(
            harness.d.condition(),
            Condition::Busy { since: harness.now },
            "of the sync that was asked for now"
        );
        for work_item in syncs {
            harness.answer(work_item);
        }
        harness.run_until(None);
        assert_eq!(harness.d.condition(), Condition::Healthy);
    }

    /// If a deadline has passed and no work is done for it, the event loop polls without waiting,
    /// again and again.
    #[test]
    fn failed_syncs_leave_no_deadline_in_the_past() {
        let mut harness = Harness::new(Fsync::Interval);
        harness.run_until(None);
        harness.record("kiwi", 1);
        let second = Duration::from_secs(1);
        harness.turn();
        for work_item in harness.take() {
            harness.answer(work_item);
        }
        harness.turn();
        harness.now = harness.now + second;
        harness.turn();
        let sync = harness.take();
        harness.record("kiwi", 2);
        harness.turn();
        for work_item in harness.take() {
            harness.answer(work_item);
        }
        harness.turn();
        harness.now = harness.now + second + second;
        for work_item in sync {
            if let DiskWork::Sync { files } = work_item {
                harness.d.handle_disk_done(
                    DiskDone::Synced {
                        files,
                        outcome: Err(no_space()),
                    },
                    &mut harness.records,
                    harness.now,
                );
            }
        }
        harness.turn();
        let deadline = harness.d.deadline(harness.now);
        assert!(
            deadline.is_none_or(|at| at > harness.now),
            "{deadline:?} at {:?}: the loop spins",
            harness.now
        );
    }
}
