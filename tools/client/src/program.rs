//! `herd-client`: sends commands to a server of a herd, from a prompt or from a script.
//! `herd-client status` asks all servers of a herd for their status. `herd-client forget` has a
//! herd forget a client. `herd-client follow` prints the changes of a server. `herd-client drain`
//! has a server drain.
//!
//! ```text
//!   cli ──► Target ──► pipe   (a script: everything at once, answers as they come)   ──► connection ──► answers
//!     (dial)       └─► prompt ──► session (a person: one command, one answer)        ──┘  (wire)   (framing, sans-IO)
//!                                     helpers (iamat, whatsat)           show, places, printable (what is printed)
//!   status ──► survey (standing) ──► problems ──► report
//!   forget, drain ──► survey (standing)
//!   follow ──► standing
//! ```

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::{Command, CommandFactory, Parser};
use herd_testkit::failure::one_line;
use herd_testkit::{clock, output, signals};

use crate::cli::Cli;
use crate::dial::Target;
use crate::failure::{Failure, Status, Stop};
use crate::input::Input;
use crate::show::Show;
use crate::{drain, failure, follow, forget, helpers, pipe, prompt, status};

/// The command line as clap knows it: for the manual page and the completions of shells. `status`,
/// `forget`, `follow` and `drain` have parsers of their own, and are subcommands here.
#[must_use]
pub fn command() -> Command {
    Cli::command()
        .disable_help_subcommand(true)
        .subcommand_negates_reqs(true) // a subcommand has no SERVER
        .subcommand(status::command().name("status"))
        .subcommand(forget::command().name("forget"))
        .subcommand(follow::command().name("follow"))
        .subcommand(drain::command().name("drain"))
}

/// Runs the whole program. Returns the exit status.
#[must_use]
pub fn main() -> ExitCode {
    signals::unblock();
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    // A server with the name `status` can still be given after an option, or by its address.
    if arguments.first().is_some_and(|first| first == "status") {
        return status::main(&arguments);
    }
    if arguments.first().is_some_and(|first| first == "forget") {
        return forget::main(&arguments);
    }
    if arguments.first().is_some_and(|first| first == "follow") {
        return follow::main(&arguments);
    }
    if arguments.first().is_some_and(|first| first == "drain") {
        return drain::main(&arguments);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.exit_code() == 0 => return output::show(&error),
        Err(error) => {
            failure::print(&one_line(&error, "herd-client"));
            return Status::Usage.into();
        }
    };
    match run(&cli) {
        Ok(status) => status.into(),
        Err(Stop::Failed(failure)) => {
            failure::print(&failure.message);
            failure.status.into()
        }
        // `herd-client Riley … | head -1`: the reader has closed the pipe.
        Err(Stop::OutputClosed) => ExitCode::SUCCESS,
    }
}

fn run(cli: &Cli) -> Result<Status, Stop> {
    let target =
        Target::resolve(&cli.server, &cli.source(), &cli.tls).map_err(|error| Failure {
            status: Status::Usage,
            message: error.0,
        })?;
    let show = Show::new(cli.style(), io::stdout().is_terminal());
    let input = if let Some(line) = cli.command_line() {
        // A mistake in a command is reported before a connection is made.
        helpers::outgoing(&line, clock::since_1970).map_err(|what| Failure {
            status: Status::Usage,
            message: what,
        })?;
        Input::argument(line)
    } else if io::stdin().is_terminal() && io::stdout().is_terminal() {
        return prompt::run(target, cli.timeout, &show);
    } else {
        Input::stdin()
    };
    let mut stdout = io::BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    let ended = pipe::run(&target, cli.timeout, input, &show, &mut stdout);
    // The answers before a failure are still printed.
    let flushed = stdout.flush();
    let status = ended?;
    flushed?;
    Ok(status)
}
