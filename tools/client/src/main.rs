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

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use herd_client::dial::Target;
use herd_testkit::failure::one_line;
use herd_testkit::{clock, output, signals};

use crate::cli::Cli;
use crate::failure::{Failure, Status, Stop};
use crate::input::Input;
use crate::show::Show;

mod answers;
mod cli;
mod connection;
mod drain;
mod failure;
mod follow;
mod forget;
mod helpers;
mod hints;
mod input;
mod operator;
mod pipe;
mod places;
mod printable;
mod prompt;
mod session;
mod show;
mod status;
mod survey;
mod wire;

fn main() -> ExitCode {
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
