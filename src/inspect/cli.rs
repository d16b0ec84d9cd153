//! The command line of `herd-journal`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

/// Inspect and repair the journal of a herd-mio server
///
/// Commands that only read can be used while the server runs. The entries that the server is
/// writing can then be incomplete.
#[derive(Debug, Parser)]
#[command(name = "herd-journal", version, args_override_self = true, after_help = AFTER_HELP, max_term_width = 110)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  herd-journal verify /var/lib/herd-mio/Alice
  herd-journal list /var/lib/herd-mio/Alice --client kiwi
  herd-journal export /var/lib/herd-mio/Alice --format iamat | nc -N 127.0.0.1 10000
  herd-journal repair /var/lib/herd-mio/Alice --in-place

Exit status: 0 if the journal is whole, or was repaired; what a crash left at its end counts as
whole. 1 if something in it is damaged, 2 for a mistake in usage, or what cannot be read or written.";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Read the whole journal; print whether it is whole, and what a start of the server would do
    /// with it
    #[command(visible_alias = "check")]
    Verify(Verify),
    /// Count the contents: entries by kind, clients, servers, times, and the size that a compaction
    /// would leave
    #[command(visible_alias = "count")]
    Stats(Stats),
    /// Show the newest position of each client, as AT lines
    #[command(visible_alias = "dump")]
    List(List),
    /// Write the newest position of each client, for import elsewhere
    Export(Export),
    /// Remove damaged bytes, and keep every entry whose checksum is right
    Repair(Repair),
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Journals, or data directories of servers
    #[arg(required = true, value_name = "FILE|DIR")]
    pub(super) journals: Vec<PathBuf>,

    /// Print JSON, one line for each journal
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Stats {
    /// A journal, or the data directory of a server
    #[arg(value_name = "FILE|DIR")]
    pub(super) journal: PathBuf,

    /// Print JSON, on one line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ListFormat {
    /// AT lines; bytes that are not printable are escaped
    Text,
    /// One JSON object on each line
    Json,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// A journal, or the data directory of a server
    #[arg(value_name = "FILE|DIR")]
    pub(super) journal: PathBuf,

    /// Show only this client
    #[arg(long, value_name = "NAME")]
    pub(super) client: Option<OsString>,

    /// Show only positions whose stamp is at or after this time, in POSIX seconds: "$(date -d
    /// yesterday +%s)"
    #[arg(long, value_name = "TIME")]
    pub(super) since: Option<String>,

    /// The format of the output
    #[arg(long, value_enum, default_value = "text")]
    pub(super) format: ListFormat,

    /// Show every entry in the order of the file, with its offset, and the damaged places
    #[arg(long)]
    pub(super) all: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ExportFormat {
    /// One JSON object on each line, coordinates as numbers
    Json,
    /// IAMAT commands, byte for byte: send them to a server's port for clients
    Iamat,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// A journal, or the data directory of a server
    #[arg(value_name = "FILE|DIR")]
    pub(super) journal: PathBuf,

    /// The format of the output
    #[arg(long, value_enum, default_value = "json")]
    pub(super) format: ExportFormat,

    /// The output file, which gets its name only when it is complete; - is the standard output
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    pub(super) output: PathBuf,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("target").required(true).args(["output", "in_place"])))]
pub(super) struct Repair {
    /// A journal, or the data directory of a server; the server must be stopped
    #[arg(value_name = "FILE|DIR")]
    pub(super) journal: PathBuf,

    /// Write the repaired journal to this new file; the damaged journal stays as it is
    #[arg(long, short, value_name = "NEW")]
    pub(super) output: Option<PathBuf>,

    /// Replace the journal by the repaired one, and keep the damaged one beside it
    /// (journal.damaged)
    #[arg(long)]
    pub(super) in_place: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
