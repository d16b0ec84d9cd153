//! How long each workload takes, with divan. A sample is one pass. Making its input and checking
//! its answers is not timed.

use std::cell::RefCell;

use divan::Bencher;
use divan::counter::ItemsCount;
use herd_bench::{Entry, Failure, WORKLOADS};

fn main() {
    divan::main();
}

/// One pass of each workload.
#[divan::bench(args = WORKLOADS, sample_size = 1, min_time = 0.3)]
fn pass(bencher: Bencher<'_, '_>, workload: &Entry) {
    let rounds = RefCell::new(or_end(workload.rounds()));
    let operations = rounds.borrow().operations();
    bencher
        .counter(ItemsCount::new(operations))
        .with_inputs(|| or_end(rounds.borrow_mut().prepare()))
        .bench_local_values(|()| rounds.borrow_mut().pass());
    or_end(rounds.borrow_mut().check());
}

/// A failed run has no time worth printing, so it ends the program.
fn or_end<T>(outcome: Result<T, Failure>) -> T {
    outcome.unwrap_or_else(|why| {
        eprintln!("herd-bench: {why}");
        std::process::exit(1)
    })
}
