//! The command line.

use clap::Parser;

/// Plants bugs in a copy of the checkout, one at a time, and reports which of them the simulator
/// and the tests notice.
///
/// First it runs each check without a bug. Then it prints a line for each bug, as soon as its
/// result is known.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// Plant only the bugs with these numbers
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    pub(crate) only: Vec<usize>,

    /// List the bugs with their numbers, and plant none
    #[arg(long)]
    pub(crate) list: bool,
}

const AFTER_HELP: &str = "\
Examples:
  herd-mutants                 plant all bugs
  herd-mutants --list          list the bugs
  herd-mutants --only 3,17     plant two bugs

The program only reads the checkout, and builds in a copy. If CARGO_TARGET_DIR is set, the
builds are kept in CARGO_TARGET_DIR/mutants. Ctrl-C ends all child processes, and removes the
copy.

Exit status: 0 if every bug was caught that the list expects to be caught; 1 if not, or if a
bug has no result; 2 for a mistake in usage; 128 + N after signal N.";
