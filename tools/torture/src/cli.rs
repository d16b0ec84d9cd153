//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::case::Only;

/// Fails each system call of a herd-mio server in turn, and says what came of it.
///
/// A short conversation is played, in each run anew, with a server under strace that has a healthy neighbour, a stand-in for Google
/// Places and a data directory. In each run one system call fails, once or from then on, with an error that it may end with. The
/// answers have to be right, or a clean no: the connection closed, a line that says no, or an end of the server with status 1 or 2
/// and one line that says why. It must not panic, hang, leak descriptors, answer wrongly, or lose a position that it has
/// acknowledged; and when the fault is over, all has to be well again.
#[derive(Debug, Parser)]
#[command(name = "herd-torture", max_term_width = 120, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// One run for each system call and what it acts on, with the likeliest error
    #[arg(long)]
    pub(crate) quick: bool,

    /// Only these faults: CALL, CALL:ERROR or CALL:ERROR:WHEN, the call with or without @FILE; several times
    #[arg(long, value_name = "FAULT")]
    pub(crate) only: Vec<Only>,

    /// Play the conversation once without a fault, say which calls the server makes and what would be tried, and end
    #[arg(long)]
    pub(crate) list: bool,

    /// Runs at the same time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) jobs: u8,

    /// Fail where strace is missing or may not trace, instead of skipping all
    #[arg(long)]
    pub(crate) required: bool,

    /// Say of each run what it came to, what was refused, and how the server ended
    #[arg(long)]
    pub(crate) each: bool,

    /// Leave the logs and the trace of each run in this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,

    /// Torture this server instead of building one
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) server: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Examples:
  herd-torture                            all of it, a few minutes
  herd-torture --quick                    once over everything
  herd-torture --only accept4             every fault of one system call
  herd-torture --only accept4:EMFILE:2    one fault: the second accept4 of each thread fails with EMFILE
  herd-torture --only write@riley.log:ENOSPC:1+ --keep kept
                                          the log's disk is full from the start; look at what is left

ERROR is one of errno(3), or DELAY: the call is made, but late.
WHEN is N (the Nth call), N+ (the Nth and all after it) or N..M, counted for each thread by itself, as strace does.
FILE is a path, absolute or in the run's directory, or [eventfd]; only calls that act on it are counted and failed.
strace is needed (6.1 will do, older ones were not tried), and the permission to trace one's own processes.
Exit status: 0 if nothing failed, or all was skipped; 1 if something failed; 2 for a mistake in usage; 128 + N after signal N.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
