//! `cargo simulate`: runs thousands of simulated herds, and prints a summary. It can also print all
//! events of one.
//!
//! The simulator itself is the library; `cargo test` runs it too, on fewer seeds.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use herd_simulate as simulator;
use herd_testkit::{output, say, signals};

use crate::cli::Cli;

mod cli;
mod crowd;
mod summary;

fn main() -> ExitCode {
    signals::unblock();
    let cli: Cli = match output::command_line() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    match cli.seed {
        Some(seed) => one(&cli, seed),
        None => crowd::run(&cli),
    }
}

/// Runs one seed, and prints it as text.
fn one(cli: &Cli, seed: u64) -> ExitCode {
    let herd = cli.herd.as_deref().unwrap_or("2021");
    let mut case = simulator::case(seed, herd);
    case.faults
        .clone_from(&cli.faults.as_ref().map(|list| list.0.clone()));
    case.sessions
        .clone_from(&cli.sessions.as_ref().map(|list| list.0.clone()));
    let Some(story) = simulator::simulate(&case) else {
        eprintln!(
            "herd-simulate: there is no herd {herd}; the herds are {}",
            cli::herds()
        );
        return ExitCode::from(2);
    };
    if cli.verbose {
        output::say(simulator::describe(&case, usize::MAX));
    }
    match &story.failure {
        None => {
            say!(
                "seed {seed} of herd {herd} passed: {}",
                summary::of_one(&story)
            );
            output::status(0)
        }
        Some(failure) => {
            say!("seed {seed} of herd {herd} failed: {}", failure.what);
            if !cli.verbose {
                output::say(simulator::explain(&case));
            }
            ExitCode::FAILURE
        }
    }
}
