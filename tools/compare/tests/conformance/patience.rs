//! Tests that take seconds: heartbeats, silence, and a Places that does not answer. All worlds wait
//! in parallel.

use std::thread;
use std::time::{Duration, Instant};

use herd_compare::workshop::Program;
use herd_compare::worlds::WORLDS;
use herd_places::Behaviour;
use herd_testkit::client::SOON;

use crate::neighbours::{batch, linked};
use crate::places::own_error;
use crate::scene::{Scene, prepared};

/// The servers' limits are ten seconds. A busy machine may be a little late.
const TEN_SECONDS: std::ops::Range<Duration> =
    Duration::from_millis(8_500)..Duration::from_secs(16);

#[test]
fn every_world_times_out_after_ten_seconds() {
    let waiting: Vec<_> = WORLDS
        .iter()
        .map(|world| {
            let wait = || prepared(world.name).iter().for_each(wait);
            (world.name, thread::spawn(wait))
        })
        .collect();
    let failed: Vec<&str> = waiting
        .into_iter()
        .filter_map(|(name, thread)| thread.join().err().map(|_| name))
        .collect();
    assert!(failed.is_empty(), "{failed:?}; why is told above");
}

fn wait(program: &Program) {
    let world = program.world.name;
    let scene = Scene::planned(program, |plan| {
        plan.name = "Jaquez".to_owned();
        plan.accept = vec!["Riley".to_owned()];
    });
    // Places receives the request and does not answer.
    let mut client = scene.client();
    let at = client.ask("IAMAT kiwi +34.068930-118.445127 1");
    scene.places.set_behaviour(Behaviour::Hold);
    let asked = Instant::now();
    client.send("WHATSAT kiwi 10 5\n");
    assert!(scene.places.wait_for_requests(1, SOON), "{world}");

    // A linked neighbour sends nothing more. Its last position is confirmed once, and not again
    // with each heartbeat.
    let mut riley = linked("Riley", scene.neighbour(), "00000000000000aa", "- 0");
    batch(&mut riley);
    riley.send("SYNC 5\n");
    // Riley has all records already. So a SYNC before this KEPT could only be a heartbeat, which
    // comes far later.
    assert_eq!(riley.line(), "KEPT 5", "{world}");
    riley.send("SYNC 5\n");
    let linked = Instant::now();
    let mut beats = 0;
    while let Some(line) = riley.line_or_end() {
        assert!(!line.starts_with("KEPT "), "{world}: {line}");
        beats +=
            u32::from(line.starts_with("SYNC ") && linked.elapsed() > Duration::from_millis(500));
    }
    let silence = linked.elapsed();
    assert!(
        TEN_SECONDS.contains(&silence),
        "{world}: a silent neighbour was lost after {silence:?}"
    );
    assert!(
        (2..=8).contains(&beats),
        "{world}: {beats} heartbeats in {silence:?}"
    );

    let (line, json) = client.places();
    let deadline = asked.elapsed();
    assert_eq!(line, at, "{world}");
    own_error(&json);
    assert!(
        TEN_SECONDS.contains(&deadline),
        "{world}: a question was given up after {deadline:?}"
    );
    client.refused("and goes on");
}
