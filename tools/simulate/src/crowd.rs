//! Runs many seeds in parallel threads. Each seed is one run on one thread.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use herd_testkit::{clock, output, say};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::Cli;
use crate::summary::{self, Summary};
use herd_simulate::{self as simulator, Case};

/// The number of failures after which it stops, because one bug makes many.
const MOST_FAILURES: usize = 5;

/// The number of seeds that reach every cell of the coverage.
const SEEDS_THAT_COVER: u64 = 10_000;

/// Without --herd, the first herds of the list take turns: the six of the course, and the pair.
const SMALL_HERDS: usize = 7;

/// The common results of all threads.
#[derive(Default)]
struct Shared {
    summary: Summary,
    failures: Vec<Case>,
}

/// Runs the seeds that the command line asks for.
pub(crate) fn run(cli: &Cli) -> ExitCode {
    let started = clock::now();
    let bar = ProgressBar::new(cli.seeds);
    bar.set_style(style());
    bar.enable_steady_tick(Duration::from_millis(200));
    let next = AtomicU64::new(0);
    let shared = Mutex::new(Shared::default());
    let threads = cli.threads.map_or_else(
        || thread::available_parallelism().map_or(1, usize::from),
        usize::from,
    );
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(cli, &next, &shared, &bar));
        }
    });
    bar.finish_and_clear();
    let shared = match shared.into_inner() {
        Ok(shared) => shared,
        Err(_) => return ExitCode::FAILURE, // A thread panicked, and has printed the reason.
    };
    output::say(shared.summary.describe(started.elapsed()));
    let Some(first) = shared.failures.iter().min_by_key(|case| case.seed) else {
        say!("all {} seeds passed", cli.seeds);
        return covered(cli, &shared.summary);
    };
    say!("\n{} failed:", shared.failures.len());
    for case in &shared.failures {
        say!("  cargo simulate {case}");
    }
    output::say(format_args!(
        "\nthe first failure\n{}",
        simulator::explain(first)
    ));
    ExitCode::FAILURE
}

/// Whether every state met every fault. A run with enough seeds has to reach every cell.
fn covered(cli: &Cli, summary: &Summary) -> ExitCode {
    let empty = summary.coverage.empty();
    if empty.is_empty() || cli.seeds < SEEDS_THAT_COVER || cli.herd.is_some() {
        return output::status(0);
    }
    say!("\nthis number of seeds has to reach every cell; these cells were not reached:");
    for (machine, state, fault) in empty {
        say!("  {machine} {state}: {fault}");
    }
    ExitCode::FAILURE
}

fn work(cli: &Cli, next: &AtomicU64, shared: &Mutex<Shared>, bar: &ProgressBar) {
    let mut herds = simulator::herds();
    herds.truncate(SMALL_HERDS);
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= cli.seeds {
            return;
        }
        let seed = cli.first + number;
        let herd = match &cli.herd {
            Some(herd) => herd,
            None => herds[(seed % herds.len() as u64) as usize],
        };
        let case = simulator::case(seed, herd);
        let Some(story) = simulator::simulate(&case) else {
            return; // Cannot happen: the command line has checked the name of the herd.
        };
        bar.inc(1);
        let Ok(mut shared) = shared.lock() else {
            return; // Another thread panicked.
        };
        shared.summary.add(&story);
        match &story.failure {
            None if cli.verbose => bar.println(format!(
                "seed {seed} of herd {herd} passed: {}",
                summary::of_one(&story)
            )),
            None => {}
            Some(failure) => {
                bar.println(format!(
                    "seed {seed} of herd {herd} failed: {}",
                    failure.what
                ));
                shared.failures.push(case);
                if shared.failures.len() >= MOST_FAILURES {
                    next.store(cli.seeds, Ordering::Relaxed);
                }
            }
        }
    }
}

fn style() -> ProgressStyle {
    let template = "{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
