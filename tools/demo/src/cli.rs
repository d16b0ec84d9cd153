//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Shows a herd at work: five servers, a stand-in for Google Places, a short conversation.
///
/// Builds the server, starts the herd of 2021 on this machine, tells it where a client is, asks it
/// what is near, kills a server and starts it again, and checks every answer. Then the herd is
/// yours until Ctrl-C. Nothing is left behind, and nothing outside this machine is asked.
#[derive(Debug, Parser)]
#[command(name = "cargo demo", bin_name = "cargo demo", max_term_width = 100, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// End after the conversation, and play it without pauses
    #[arg(long)]
    pub(crate) once: bool,

    /// Show this server instead of building one (for the tests)
    #[arg(long, value_name = "PATH", hide = true)]
    pub(crate) server_binary: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Ports 10000 to 10004 (clients) and 11000 to 11004 (neighbours) are used if they are free, others if not.
Set NO_COLOR to see no colours.
Exit status: 0 if every answer was right, 1 if something failed, 2 for a mistake in usage, 128 + N if signal N came \
before the conversation was over.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
