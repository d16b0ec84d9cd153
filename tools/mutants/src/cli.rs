//! The command line.

use clap::Parser;

/// Plants bugs in a copy of the checkout, one at a time, and says which of them the simulator and the tests notice.
///
/// It ends with status 0 if all are noticed that are expected to be.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Cli {
    /// Plant only the bugs of these numbers
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    pub(crate) only: Vec<usize>,

    /// Tell the bugs and their numbers, and plant none
    #[arg(long)]
    pub(crate) list: bool,
}
