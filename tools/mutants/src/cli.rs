//! The command line.

use clap::Parser;

/// Plants bugs in a copy of the checkout, one at a time, and says which of them the simulator and
/// the tests notice.
///
/// First everything that is to notice one is run without it. Then there is a line for each bug, as
/// soon as it is known.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// Plant only the bugs of these numbers
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    pub(crate) only: Vec<usize>,

    /// Tell the bugs and their numbers, and plant none
    #[arg(long)]
    pub(crate) list: bool,
}

const AFTER_HELP: &str = "\
Examples:
  herd-mutants                 all of them
  herd-mutants --list          what they are
  herd-mutants --only 3,17     two of them

The checkout itself is only read: cargo and git are run in the copy, whose builds are kept
in CARGO_TARGET_DIR/mutants if that is set. Ctrl-C ends all that was started, and removes
the copy.

Exit status: 0 if all were noticed that are expected to be, 1 if not, or if something could
not be tried, 2 for a mistake in usage, 128 + N after signal N.";
