//! Scenarios that were found by hand. In each of them the server once lost something that it had
//! answered, or it stopped.

use std::time::Duration;

use herd_mio::core::journal::durability::{CompactionPhase, DiskErrorKind, Fsync};
use herd_testkit::fake_disk::{Queue, Strike};
use herd_testkit::promises::End;

use crate::story::{Blow, Outcome, Story};

/// The disk does all requested work, and the process gets the results.
fn work(story: &mut Story) -> Outcome {
    while Queue::ALL
        .into_iter()
        .any(|queue| story.disk.jobs(queue) > 0)
    {
        for queue in Queue::ALL {
            story.work(queue)?;
        }
        story.turn()?;
    }
    Ok(())
}

/// Enough clients that the table is copied in several steps.
const CLIENTS: usize = 60;

/// Plays until the compaction is in this phase. The fault `blow` happens there.
fn meet(story: &mut Story, phase: CompactionPhase, blow: Blow) -> Outcome {
    story.aim(phase, blow);
    for round in 0..1_000 {
        story.update(&format!("c{}-{}", round % CLIENTS, "x".repeat(3_000)))?;
        story.turn()?;
        for queue in Queue::ALL {
            story.work(queue)?;
            if !story.met.is_empty() {
                return Ok(());
            }
        }
    }
    Err(format!("{phase:?} is never reached"))
}

/// The next file is about to become the journal, and a write of a new entry to it fails. The server
/// must not have answered that update, and must not stop.
#[test]
fn a_write_error_in_the_next_file_holds_back_the_answer() {
    for fsync in [Fsync::Always, Fsync::Interval] {
        for (phase, is_strike) in [
            (CompactionPhase::WritingBoth, true),
            (CompactionPhase::SwitchDue, true),
            (CompactionPhase::Switching, true),
            (CompactionPhase::Switching, false),
        ] {
            for seed in 0..6 {
                let told = refuse(fsync, phase, is_strike, seed);
                told.unwrap_or_else(|what| {
                    panic!("{fsync:?}, {phase:?}, {is_strike}, seed {seed}: {what}")
                });
            }
        }
    }
}

fn refuse(fsync: Fsync, phase: CompactionPhase, is_strike: bool, seed: u64) -> Outcome {
    let mut story = Story::begin(fsync, is_strike, seed)?;
    // Without reserved room, the missing room is noticed only when it is needed.
    let blow = match is_strike {
        true => Blow::Strike(Strike::WriteNext(DiskErrorKind::Full)),
        false => Blow::Full,
    };
    meet(&mut story, phase, blow)?;
    story.disk.set_frozen(Queue::Keeper, true);
    for client in 0..3 {
        story.update(&format!("late{client}"))?;
        story.turn()?;
        story.work(Queue::Writer)?;
        story.turn()?;
    }
    // Whichever file has the journal's name when the process ends, it must hold all answered
    // updates.
    if seed.is_multiple_of(2) {
        story.disk.set_frozen(Queue::Keeper, false);
        story.work(Queue::Keeper)?;
        story.turn()?;
    }
    story.end(End::Killed)?;
    story.recover()
}

/// A neighbour's records arrive while the disk is full and the table is being copied. After the
/// switch to the new file, the journal must still know that it lacks them.
#[test]
fn records_without_room_are_not_forgotten_by_a_switch() {
    for phase in [
        CompactionPhase::Copying,
        CompactionPhase::WritingBoth,
        CompactionPhase::SwitchDue,
        CompactionPhase::Switching,
    ] {
        for seed in 0..6 {
            let told = forget(phase, seed);
            told.unwrap_or_else(|what| panic!("{phase:?}, seed {seed}: {what}"));
        }
    }
}

fn forget(phase: CompactionPhase, seed: u64) -> Outcome {
    let mut story = Story::begin(Fsync::Interval, true, seed)?;
    meet(&mut story, phase, Blow::Full)?;
    for round in 0..60 {
        story.teach(&format!("t{}-{}", round, "x".repeat(1_000)))?;
        story.note();
        story.turn()?;
        if round % 3 == 0 {
            story.work(Queue::Writer)?;
        }
        if round % 5 == 0 {
            story.work(Queue::Keeper)?;
        }
        story.now = story.now + Duration::from_millis(100);
    }
    work(&mut story)?;
    story.note();
    story.turn()?;
    work(&mut story)?;
    // The journal says how much of the neighbour's feed it has. These records must be there without
    // the neighbour's help.
    story.end(End::Killed)?;
    story.recover()
}

/// Updates at the highest rate: the journal stays within its bound, and compactions finish, even
/// though the disk's queues are behind.
#[test]
fn a_flood_does_not_starve_a_compaction() -> Outcome {
    let mut story = Story::begin(Fsync::Interval, true, 1)?;
    let mut compacted = 0;
    let mut before = story.length();
    for round in 0..800_usize {
        for client in 0..20 {
            story.update(&format!("c{client}-{}", "x".repeat(200)))?;
        }
        story.turn()?;
        story.work(Queue::Writer)?;
        if round % 4 == 0 {
            story.work(Queue::Keeper)?;
        }
        compacted += usize::from(story.length() < before);
        before = story.length();
    }
    assert!(story.accepted > 2_000, "{} were accepted", story.accepted);
    assert!(compacted > 10, "{compacted} compactions");
    story.recover()
}

/// A disk that is full for a long time: compactions still free room, because the room for the next
/// file was reserved before.
#[test]
fn a_full_disk_does_not_prevent_compaction() -> Outcome {
    let mut story = Story::begin_with(Fsync::Always, true, 1 << 18, 1)?;
    let play = |story: &mut Story, rounds: std::ops::Range<usize>| -> Outcome<usize> {
        let before = story.accepted;
        for round in rounds {
            story.update(&format!("c{}-{}", round % CLIENTS, "x".repeat(1_000)))?;
            story.turn()?;
            work(story)?;
            story.now = story.now + Duration::from_millis(100);
        }
        Ok(story.accepted - before)
    };
    play(&mut story, 0..200)?;
    story.disk.set_full(true);
    let accepted = play(&mut story, 0..1_000)?;
    assert!(accepted > 800, "{accepted} of 1,000 on a full disk");
    story.recover()
}

/// As in `records_without_room_are_not_forgotten_by_a_switch`, but the old file refuses an entry
/// while the new file is getting its name. Later records are in neither file.
#[test]
fn records_without_room_during_a_switch_are_written_after_it() {
    for seed in 0..6 {
        let told = switch_without_room(seed);
        told.unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

fn switch_without_room(seed: u64) -> Outcome {
    let mut story = Story::begin(Fsync::Interval, true, seed)?;
    let refuses = Strike::WriteCurrent(DiskErrorKind::Full);
    meet(
        &mut story,
        CompactionPhase::Switching,
        Blow::Strike(refuses),
    )?;
    story.disk.set_frozen(Queue::Keeper, true);
    for round in 0..20 {
        story.update(&format!("late{round}"))?;
        story.teach(&format!("t{round}"))?;
        story.turn()?;
        story.work(Queue::Writer)?;
        // The next write is refused, too, before the new file gets the name.
        story.disk.strike(refuses);
        story.now = story.now + Duration::from_millis(200);
    }
    story.disk.clear_strikes();
    story.disk.set_frozen(Queue::Keeper, false);
    for _ in 0..3 {
        story.now = story.now + Duration::from_millis(1_000);
        story.turn()?;
        work(&mut story)?;
        story.note();
    }
    story.turn()?;
    work(&mut story)?;
    story.end(End::Killed)?;
    story.recover()
}
