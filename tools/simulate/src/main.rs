//! `cargo simulate`: thousands of simulated herds, with a summary at the end; or one, told in words.
//!
//! The simulator itself is `tests/simulation/simulator`, which `cargo test` runs too, on fewer seeds.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;

mod cli;
mod crowd;
#[path = "../../../tests/simulation/simulator/mod.rs"]
mod simulator;
mod summary;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.seed {
        Some(seed) => one(&cli, seed),
        None => crowd::run(&cli),
    }
}

/// One seed, in words.
fn one(cli: &Cli, seed: u64) -> ExitCode {
    let herd = cli.herd.as_deref().unwrap_or("2021");
    let mut case = simulator::case(seed, herd);
    case.faults
        .clone_from(&cli.faults.as_ref().map(|list| list.0.clone()));
    case.sessions
        .clone_from(&cli.sessions.as_ref().map(|list| list.0.clone()));
    let Some(story) = simulator::simulate(&case) else {
        eprintln!("herd-simulate: no herd {herd}; there are {}", cli::herds());
        return ExitCode::from(2);
    };
    if cli.verbose {
        print!("{}", simulator::tell(&case, usize::MAX));
    }
    match &story.failure {
        None => {
            println!(
                "seed {seed} of herd {herd} holds: {}",
                summary::of_one(&story)
            );
            ExitCode::SUCCESS
        }
        Some(failure) => {
            println!("seed {seed} of herd {herd} fails: {}", failure.what);
            if !cli.verbose {
                print!("{}", simulator::explain(&case));
            }
            ExitCode::FAILURE
        }
    }
}
