//! The command line of `cargo bench -p herd-bench --bench instructions --`.

use clap::Parser;

use crate::list::WORKLOADS;
use crate::workload::Entry;

/// Counts herd-mio's instructions for each message with valgrind's callgrind, and compares them
/// with the saved figures.
#[derive(Debug, Parser)]
#[command(
    name = "instructions",
    bin_name = "cargo bench -p herd-bench --bench instructions --",
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// The workloads [default: all]
    #[arg(value_name = "WORKLOAD", value_parser = entry)]
    pub(crate) workloads: Vec<&'static Entry>,

    /// Save the figures in instructions.json and README.md, for later comparisons
    #[arg(long, conflicts_with_all = ["workloads", "compare"])]
    pub(crate) save: bool,

    /// End with status 1 if a workload is more than this many percent above its saved figure
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) compare: Option<f64>,

    /// List the workloads, and count nothing
    #[arg(long)]
    pub(crate) list: bool,

    /// Cargo adds this option
    #[arg(long, hide = true)]
    pub(crate) bench: bool,

    /// Run as the counted child process
    #[arg(long, value_name = "WORKLOAD", hide = true, value_parser = entry)]
    pub(crate) count: Option<&'static Entry>,
}

fn entry(name: &str) -> Result<&'static Entry, String> {
    WORKLOADS
        .iter()
        .find(|entry| entry.name == name)
        .ok_or_else(|| "there is no workload of this name; --list prints all names".to_owned())
}

fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let is_sensible = number.is_finite() && number >= 0.0;
    is_sensible
        .then_some(number)
        .ok_or_else(|| "it must be 0 or more".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_bench_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn invalid_arguments_are_rejected() {
        let told = |arguments: &[&str]| {
            let arguments = ["instructions"].iter().chain(arguments);
            Cli::try_parse_from(arguments)
                .map_err(|error| error.to_string())
                .map(|cli| cli.compare)
        };
        assert_eq!(told(&["--bench", "split", "--compare", "2"]), Ok(Some(2.0)));
        assert!(told(&["spilt"]).is_err_and(|text| text.contains("--list")));
        assert!(told(&["--compare", "-1"]).is_err());
        assert!(told(&["--compare", "nan"]).is_err());
        assert!(
            told(&["--save", "split"]).is_err(),
            "part of the figures would be of another day"
        );
    }
}
