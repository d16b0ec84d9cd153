//! The command line.

use std::num::NonZeroUsize;
use std::str::FromStr;

use clap::Parser;

use herd_simulate as simulator;

/// Simulates herds of servers under virtual time, with faults of the network, crashes of servers
/// and faults of disks
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// The number of seeds to run
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seeds: u64,

    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) first: u64,

    /// Run only this seed, and print a report if it fails
    #[arg(long, value_name = "SEED")]
    pub(crate) seed: Option<u64>,

    /// The herd: a year, pair, ring-50, tree-200 or graph-1000 [default: the small herds take
    /// turns]
    #[arg(long, value_name = "NAME", value_parser = herd)]
    pub(crate) herd: Option<String>,

    /// With --seed: keep only the faults with these numbers
    #[arg(long, value_name = "N,N,…", requires = "seed")]
    pub(crate) faults: Option<Numbers>,

    /// With --seed: keep only the clients with these numbers
    #[arg(long, value_name = "N,N,…", requires = "seed")]
    pub(crate) sessions: Option<Numbers>,

    /// The number of parallel runs [default: the number of processors]
    #[arg(long, value_name = "COUNT")]
    pub(crate) threads: Option<NonZeroUsize>,

    /// With --seed: print all events; without it: print a line for each seed
    #[arg(long)]
    pub(crate) verbose: bool,
}

const AFTER_HELP: &str = "\
Examples:
  cargo simulate                             the seeds 0 to 999
  cargo simulate --first 1000 --seeds 10000  more seeds
  cargo simulate --seed 7                    one seed, with a report if it fails
  cargo simulate --seed 7 --verbose          all events of one seed
  cargo simulate --herd graph-1000 --seeds 3 a large herd

For a seed that fails, the program prints the command that repeats it. It also finds a case with
as few faults and clients as possible that still fails.

The tables at the end count how often each state of each state machine met each fault. `–` marks
an unreachable cell. With 10,000 seeds or more, a reachable cell without a hit is a failure.

Exit status: 0 if all seeds pass, 1 if one fails, 2 for a mistake in usage.";

/// Numbers with commas between them. The list may be empty.
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

/// The names of all herds.
pub(crate) fn herds() -> String {
    simulator::herds().join(", ")
}

fn herd(name: &str) -> Result<String, String> {
    if simulator::herds().contains(&name) {
        Ok(name.to_owned())
    } else {
        Err(format!("the herds are {}", herds()))
    }
}
