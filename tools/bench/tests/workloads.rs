//! Every workload runs, gives right results, and has a kept figure.

use herd_bench::WORKLOADS;
use herd_bench::figures::Figures;

#[test]
fn every_workload_passes_its_check() {
    for entry in WORKLOADS {
        let mut rounds = entry.rounds().unwrap();
        for _ in 0..2 {
            rounds.prepare().unwrap();
            rounds.pass();
        }
        rounds.check().unwrap();
    }
}

#[test]
fn the_saved_figures_match_the_workloads() {
    let kept = Figures::kept().unwrap().unwrap();
    let listed = WORKLOADS.iter().map(|entry| (entry.name, entry.operation));
    let figures = kept.workloads.iter();
    let figures = figures.map(|figure| (&*figure.name, &*figure.operation));
    assert!(listed.eq(figures), "make them anew: {}", kept.command);
    assert!(
        kept.workloads
            .iter()
            .all(|figure| figure.instructions > 0.0)
    );
}
