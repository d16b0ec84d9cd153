//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::case::Only;

/// Makes each system call of a herd-mio server fail in turn, and reports the results.
///
/// Each run plays the same short conversation with a server under strace. The server has a healthy
/// neighbour, a stand-in for Google Places and a data directory. In each run one system call fails,
/// once or from then on, with an error that this call can return. Each answer has to be correct, or
/// a clear refusal: the connection is closed, the answer begins with `?`, or the server ends with
/// status 1 or 2 and one line with the reason. The server must not panic, hang, leak descriptors,
/// send a wrong answer, or lose a position that it has acknowledged. After the fault it has to
/// recover.
#[derive(Debug, Parser)]
#[command(name = "herd-torture", max_term_width = 120, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// Make only one run for each system call and its file, with the likeliest error
    #[arg(long)]
    pub(crate) quick: bool,

    /// Try only these faults: CALL, CALL:ERROR or CALL:ERROR:WHEN, where CALL may end with @FILE
    /// (may be repeated)
    #[arg(long, value_name = "FAULT")]
    pub(crate) only: Vec<Only>,

    /// Play the conversation once without a fault, and list the server's calls and the faults to
    /// try
    #[arg(long)]
    pub(crate) list: bool,

    /// The number of parallel runs
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) jobs: u8,

    /// Fail if strace is missing or not permitted to trace, instead of skipping all runs
    #[arg(long)]
    pub(crate) required: bool,

    /// Print the result of each run, its refusals, and the server's exit
    #[arg(long)]
    pub(crate) each: bool,

    /// Copy the logs and the trace of each run to this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,

    /// Use this server program, and build none
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) server: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Examples:
  herd-torture                            all faults, a few minutes
  herd-torture --quick                    one fault for each call and file
  herd-torture --only accept4             every fault of one system call
  herd-torture --only accept4:EMFILE:2    one fault: the second accept4 of each thread fails with EMFILE
  herd-torture --only write@riley.log:ENOSPC:1+ --keep kept
                                          the log's disk is full from the start; keep the files of the run

ERROR is a name from errno(3), or DELAY: the call succeeds late.
WHEN is N (the Nth call), N+ (the Nth and all later ones) or N..M, counted for each thread separately, as strace does.
FILE is a path, absolute or in the run's directory, or [eventfd]. Then only calls with this file are counted and fail.
The program needs strace (tested with 6.1), and the permission to trace its own child processes.
Exit status: 0 if no run failed, or all were skipped; 1 if a run failed; 2 for a mistake in usage; 128 + N after signal N.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
