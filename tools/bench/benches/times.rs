//! How long each workload takes, with divan. Each sample is one pass; its input is made, and its answers are checked, outside of it.

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

/// A time of something that went wrong is no time.
fn or_end<T>(outcome: Result<T, Failure>) -> T {
    outcome.unwrap_or_else(|why| {
        eprintln!("herd-bench: {why}");
        std::process::exit(1)
    })
}
