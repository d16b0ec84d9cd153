//! A few hundred seeds; as many as you have time for with `cargo simulate --seeds 10000`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

use herd_simulate::{Coverage, Story, case, explain, faults, herds, simulate};

/// Runs this many seeds of a herd (ten times as many in a release build). All have to pass.
fn hold(herd: &str, seeds: u64) -> Vec<Story> {
    let seeds = if cfg!(debug_assertions) {
        seeds
    } else {
        seeds * 10
    };
    let run = |seed| {
        let case = case(seed, herd);
        let story = simulate(&case).expect("a herd of that name");
        if let Some(failure) = story.failure {
            panic!("{case} failed: {}\n{}", failure.what, explain(&case));
        }
        story
    };
    (0..seeds).map(run).collect()
}

#[test]
fn three_presets_keep_their_invariants_under_faults() {
    for herd in ["2016", "2020", "2022"] {
        hold(herd, 25);
    }
}

#[test]
fn the_other_presets_keep_their_invariants_under_faults() {
    for herd in ["2018", "2021", "2023"] {
        hold(herd, 25);
    }
}

#[test]
fn a_pair_keeps_its_invariants_under_every_kind_of_fault() {
    let stories = hold("pair", 100);
    let sum = |of: fn(&Story) -> u64| stories.iter().map(of).sum::<u64>();
    for kind in faults() {
        let times = stories.iter().filter_map(|story| story.faults.get(*kind));
        assert!(times.sum::<u64>() >= 1, "{kind}");
    }
    // No fault happens that is not on the list.
    let mut happened = stories.iter().flat_map(|story| story.faults.keys());
    assert!(happened.all(|kind| faults().contains(kind)));
    let mut coverage = Coverage::default();
    stories
        .iter()
        .for_each(|story| coverage.add(&story.coverage));
    // Every cell takes thousands of seeds: see `cargo simulate`.
    let (empty, text) = (coverage.empty(), coverage.describe());
    assert!(empty.len() < 150, "{} are empty:\n{text}", empty.len());
    assert!(sum(|story| story.acknowledged) > 1_000);
    assert!(sum(|story| story.kept) > 1_000);
    assert!(sum(|story| story.records_sent) > 1_000);
}

#[test]
fn large_herds_keep_their_invariants_under_faults() {
    hold("ring-50", 4);
    hold("tree-200", 2);
    hold("graph-1000", 1);
}

#[test]
fn every_simulated_herd_is_tested() {
    let tried = [
        "2016",
        "2018",
        "2020",
        "2021",
        "2022",
        "2023",
        "pair",
        "ring-50",
        "tree-200",
        "graph-1000",
    ];
    assert_eq!(herds(), tried);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for (herd, seeds) in [("pair", 8), ("2021", 4), ("ring-50", 1)] {
        let run = |seed| simulate(&case(seed, herd)).expect("a herd of that name");
        for seed in 0..seeds {
            let (one, other) = (run(seed), run(seed));
            assert_eq!(
                (one.hash, one.events, one.length, one.slowest),
                (other.hash, other.events, other.length, other.slowest),
                "seed {seed} of herd {herd}"
            );
            assert_ne!(one.hash, run(seed + 1).hash);
        }
    }
}
