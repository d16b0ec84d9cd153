//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Shows a herd at work: five servers, a stand-in for Google Places, and a short conversation.
///
/// The demo builds the server, and starts the herd of 2021 on this machine. It sends a client's
/// position, asks for places near it, kills a server and starts it again, and checks every answer.
/// Then the herd runs until Ctrl-C. The demo connects only to this machine, and removes its files.
#[derive(Debug, Parser)]
#[command(name = "cargo demo", bin_name = "cargo demo", max_term_width = 100, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// Play the conversation without pauses, and end after it
    #[arg(long)]
    pub(crate) once: bool,

    /// Use this server program, and build none (for the tests)
    #[arg(long, value_name = "PATH", hide = true)]
    pub(crate) server_binary: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
The demo uses ports 10000 to 10004 (clients) and 11000 to 11004 (neighbours), or else free ports.
NO_COLOR turns colours off.
Exit status: 0 if every answer was correct, 1 after a failure, 2 for a mistake in usage, 128 + N if signal N came \
before the end of the conversation.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
