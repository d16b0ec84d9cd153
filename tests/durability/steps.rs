//! Random scenarios.

use std::time::Duration;

use herd_mio::core::journal::durability::{CompactionPhase, DiskErrorKind, Fsync};
use herd_testkit::fake_disk::{ENDLESS, Queue, Strike};
use herd_testkit::promises::End;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::story::{Blow, Outcome, Story};

/// One step of a scenario.
#[derive(Clone, Debug)]
enum Step {
    Update(u8),
    Teach(u8),
    Note,
    Turn,
    Work(Queue),
    Later(u64),
    /// The number of bytes that are free on the disk.
    FreeBytes(u64),
    Others(u64),
    Strike(Strike),
    Freeze(Queue, bool),
    Aim(CompactionPhase, Blow),
    End(End),
    Copy,
    PutCopyBack,
}

fn queue() -> impl Strategy<Value = Queue> {
    prop_oneof![Just(Queue::Writer), Just(Queue::Keeper)]
}

fn strike() -> impl Strategy<Value = Strike> {
    (0..Strike::ALL.len()).prop_map(|place| Strike::ALL[place])
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => Just(End::Killed),
        4 => Just(End::PowerLost),
        1 => Just(End::Stopped),
    ]
}

fn blow() -> impl Strategy<Value = Blow> {
    prop_oneof![
        3 => Just(Blow::Full),
        3 => strike().prop_map(Blow::Strike),
        2 => end().prop_map(Blow::End),
        1 => queue().prop_map(Blow::Freeze),
    ]
}

fn phase() -> impl Strategy<Value = CompactionPhase> {
    (0..CompactionPhase::ALL.len()).prop_map(|place| CompactionPhase::ALL[place])
}

fn room() -> impl Strategy<Value = u64> {
    prop_oneof![
        1 => Just(0),
        3 => 0_u64..40_000,
        3 => Just(ENDLESS),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        24 => (0_u8..6).prop_map(Step::Update),
        8 => (0_u8..6).prop_map(Step::Teach),
        3 => Just(Step::Note),
        24 => Just(Step::Turn),
        32 => queue().prop_map(Step::Work),
        4 => (1_u64..2_000).prop_map(Step::Later),
        1 => Just(Step::Later(60_000)),
        4 => room().prop_map(Step::FreeBytes),
        1 => (0_u64..20_000).prop_map(Step::Others),
        1 => strike().prop_map(Step::Strike),
        2 => (queue(), any::<bool>()).prop_map(|(queue, on)| Step::Freeze(queue, on)),
        4 => (phase(), blow()).prop_map(|(phase, blow)| Step::Aim(phase, blow)),
        1 => end().prop_map(Step::End),
        1 => Just(Step::Copy),
        1 => Just(Step::PutCopyBack),
    ]
}

/// Long names, so that a few records fill a piece of reserved room.
fn name(client: u8) -> String {
    let length = [10, 300, 900, 1_500, 2_500, 3_900][usize::from(client % 6)];
    format!("c{client}-{}", "x".repeat(length))
}

fn take(story: &mut Story, step: &Step) -> Outcome {
    match *step {
        Step::Update(client) => story.update(&name(client)).map(|_| ()),
        Step::Teach(client) => story.teach(&format!("t{}", name(client))),
        Step::Note => {
            story.note();
            Ok(())
        }
        Step::Turn => story.turn(),
        Step::Work(queue) => story.work(queue),
        Step::Later(ms) => {
            story.now = story.now + Duration::from_millis(ms);
            Ok(())
        }
        Step::FreeBytes(bytes) => {
            let used = story.disk.used();
            story.disk.set_capacity(used.saturating_add(bytes));
            Ok(())
        }
        Step::Others(bytes) => {
            story.disk.set_others(bytes);
            Ok(())
        }
        Step::Strike(strike) => {
            story.disk.strike(strike);
            Ok(())
        }
        Step::Freeze(queue, on) => {
            story.disk.set_frozen(queue, on);
            Ok(())
        }
        Step::Aim(phase, blow) => {
            story.aim(phase, blow);
            Ok(())
        }
        Step::End(end) => story.end(end),
        Step::Copy => {
            story.make_copy();
            Ok(())
        }
        Step::PutCopyBack => story.put_copy_back(),
    }
}

/// Whatever the order of the steps, no answered update is lost. A server that has given up is
/// started again after a reboot, because only then is it certain what the disk holds. All updates
/// that it answered before must be there.
fn nothing_answered_is_lost(fsync: Fsync, reserves: bool, seed: u64, steps: &[Step]) -> Outcome {
    let mut story = Story::begin(fsync, reserves, seed)?;
    for step in steps {
        take(&mut story, step)?;
        story.restart_if_failed(End::PowerLost)?;
    }
    story.recover()
}

fn run(fsync: Fsync, reserves: bool, seed: u64, steps: &[Step]) -> Result<(), TestCaseError> {
    nothing_answered_is_lost(fsync, reserves, seed, steps).map_err(TestCaseError::fail)
}

/// 200 scenarios for each test. More with, for example, `PROPTEST_CASES=10000`.
fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    let is_chosen = std::env::var_os("PROPTEST_CASES").is_some();
    ProptestConfig {
        cases: if is_chosen { config.cases } else { 200 },
        ..config
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn with_always_a_power_loss_loses_no_answered_update(
        reserves in prop::bool::weighted(0.8),
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..300),
    ) {
        run(Fsync::Always, reserves, seed, &steps)?;
    }

    #[test]
    fn with_interval_a_kill_loses_no_answered_update(
        reserves in prop::bool::weighted(0.8),
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..300),
    ) {
        run(Fsync::Interval, reserves, seed, &steps)?;
    }

    #[test]
    fn with_never_a_kill_loses_no_answered_update(
        reserves in prop::bool::weighted(0.8),
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..300),
    ) {
        run(Fsync::Never, reserves, seed, &steps)?;
    }
}

/// Checks that the scenarios reach everything: in each phase, each kind of fault happens.
#[test]
fn every_fault_occurs_in_every_compaction_phase() {
    let blows = [
        Blow::Full,
        Blow::Strike(Strike::Any(DiskErrorKind::Full)),
        Blow::Strike(Strike::Any(DiskErrorKind::Broken)),
        Blow::Strike(Strike::SwitchUnknown(DiskErrorKind::Broken)),
        Blow::Freeze(Queue::Writer),
        Blow::Freeze(Queue::Keeper),
        Blow::End(End::Killed),
        Blow::End(End::PowerLost),
    ];
    for fsync in [Fsync::Always, Fsync::Interval, Fsync::Never] {
        for phase in CompactionPhase::ALL {
            for blow in blows {
                for seed in 0..2 {
                    let told = meet(fsync, phase, blow, seed);
                    told.unwrap_or_else(|what| {
                        panic!("{fsync:?}, {phase:?}, {blow:?}, seed {seed}: {what}")
                    });
                }
            }
        }
    }
}

fn meet(fsync: Fsync, phase: CompactionPhase, blow: Blow, seed: u64) -> Outcome {
    let mut story = Story::begin(fsync, true, seed)?;
    story.aim(phase, blow);
    for round in 0..400_u64 {
        if !story.met.is_empty() && round % 7 == seed % 7 {
            break;
        }
        let client = (round % 5) as u8;
        story.update(&name(client))?;
        if round % 3 == 0 {
            story.teach(&format!("t{}", name(client)))?;
        }
        story.turn()?;
        // Now and then a queue is behind.
        if !(round + seed).is_multiple_of(3) {
            story.work(Queue::Writer)?;
        }
        if (round + seed).is_multiple_of(2) {
            story.work(Queue::Keeper)?;
        }
        story.restart_if_failed(End::PowerLost)?;
        story.now = story.now + Duration::from_millis(20);
    }
    if story.met.is_empty() {
        return Err("the phase was never reached".to_owned());
    }
    // The server goes on for a while after the fault.
    for round in 0..20_u8 {
        story.update(&name(round % 5))?;
        story.teach(&format!("t{}", name(round % 5)))?;
        story.note();
        story.turn()?;
        story.work(Queue::Writer)?;
        story.work(Queue::Keeper)?;
        story.restart_if_failed(End::PowerLost)?;
    }
    story.recover()
}
