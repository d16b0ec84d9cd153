//! The command line.

use std::num::NonZeroUsize;
use std::str::FromStr;

use clap::Parser;

use herd_simulate as simulator;

/// Simulates herds of servers under virtual time, on a network that loses, delays and cuts, with servers that crash and disks that fail.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// How many seeds to run
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seeds: u64,

    /// The first of them
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) first: u64,

    /// Run this seed alone, and explain it if it fails
    #[arg(long, value_name = "SEED")]
    pub(crate) seed: Option<u64>,

    /// Which herd: a year, pair, ring-50, tree-200 or graph-1000; without it, the small ones take turns
    #[arg(long, value_name = "NAME", value_parser = herd)]
    pub(crate) herd: Option<String>,

    /// With --seed: keep only the faults of these numbers
    #[arg(long, value_name = "N,N,…", requires = "seed")]
    pub(crate) faults: Option<Numbers>,

    /// With --seed: keep only the clients of these numbers
    #[arg(long, value_name = "N,N,…", requires = "seed")]
    pub(crate) sessions: Option<Numbers>,

    /// How many to run at once; as many as there are processors by default
    #[arg(long, value_name = "COUNT")]
    pub(crate) threads: Option<NonZeroUsize>,

    /// With --seed: tell everything that happens; else: a line for each seed
    #[arg(long)]
    pub(crate) verbose: bool,
}

const AFTER_HELP: &str = "\
Examples:
  cargo simulate                             the seeds 0 to 999
  cargo simulate --first 1000 --seeds 10000  others, and more
  cargo simulate --seed 7                    one, and why it fails, if it does
  cargo simulate --seed 7 --verbose          all that happens in it
  cargo simulate --herd graph-1000 --seeds 3 a large herd

A seed that fails is printed as the command that replays it, with as few faults and clients as
still make it fail.

The tables at the end count how often each state of each machine met each fault; `–` cannot be.
With 10,000 seeds or more, a cell that was never reached is a failure.

Exit status: 0 if all seeds hold, 1 if one fails, 2 for a mistake in usage.";

/// Numbers with commas between them; none at all is a list too.
#[derive(Clone, Debug)]
pub(crate) struct Numbers(pub(crate) Vec<usize>);

impl FromStr for Numbers {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Numbers, Self::Err> {
        let numbers = text.split(',').filter(|number| !number.is_empty());
        let numbers: Result<Vec<usize>, _> = numbers.map(str::parse).collect();
        numbers.map(Numbers)
    }
}

/// The herds that there are.
pub(crate) fn herds() -> String {
    simulator::herds().join(", ")
}

fn herd(name: &str) -> Result<String, String> {
    if simulator::herds().contains(&name) {
        Ok(name.to_owned())
    } else {
        Err(format!("there are {}", herds()))
    }
}
