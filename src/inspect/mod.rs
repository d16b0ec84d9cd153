//! The program `herd-journal`, which reads the journal of a server offline. It can verify, count,
//! list, export and repair a journal.
//!
//! The program reads a journal with the same code as the server.
//! [`Scan`](crate::core::journal::format::Scan) finds the entries.
//! [`DamageDetector`](crate::core::journal::format::DamageDetector) decides whether a starting
//! server would refuse a damaged journal. [`Records`](crate::core::table::records::Records) keeps
//! the newest position of each client.
//!
//! A journal is read in pieces of 1 MiB. A command that needs the newest record of each client uses
//! as much memory for these records as the server does.
//!
//! | file | what it does |
//! |---|---|
//! | `cli` | defines the command line |
//! | `source` | finds, opens and reads the journal; checks whether its server runs |
//! | `census` | counts what is in the journal |
//! | `verify`, `stats`, `list`, `export`, `repair` | each runs one command |
//! | `positions` | finds the newest position of each client |
//! | `show` | formats an entry as a line of text or of JSON |
//! | `sink` | writes the output, and fails if not all of it arrives |

mod census;
mod cli;
mod export;
mod list;
mod positions;
mod repair;
mod show;
mod sink;
mod source;
mod stats;
mod verify;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;

use self::cli::{Cli, Command};
use crate::cli::{one_line, parse};

/// Exit status: the journal is whole. Its end may be incomplete, as after a crash.
const WHOLE: u8 = 0;
/// Exit status: something in the journal is damaged.
const DAMAGED: u8 = 1;
/// Exit status: the usage is wrong, or something cannot be read or written.
const FAILED: u8 = 2;

/// Why a command ended before it was done.
#[derive(Debug)]
enum Failure {
    /// An error: the exit status, and a message for the standard error.
    Error(u8, String),
    /// The reader of the output closed the pipe. This is not an error.
    OutputClosed,
    /// A signal ended the command. The field is the number of the signal.
    Signalled(u8),
}

impl Failure {
    fn new(what: impl fmt::Display) -> Failure {
        Failure::Error(FAILED, what.to_string())
    }

    /// Returns the failure for an error in writing to the standard output.
    fn unwritten(error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::new(format_args!(
                "cannot write to the standard output: {error}; send it where there is room"
            )),
        }
    }
}

/// Returns clap's definition of the command line. The manual page and the shell completions are
/// made from this definition.
#[must_use]
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Runs the program `herd-journal` with these command-line arguments, and returns its exit status.
#[must_use]
pub fn run(arguments: &[OsString]) -> ExitCode {
    let cli: Cli = match parse(arguments) {
        Ok((cli, _)) => cli,
        Err(error) if error.exit_code() == 0 => {
            // clap returns the texts of `--help` and `--version` as errors with exit code 0.
            let printed = error.print().and_then(|()| io::stdout().flush());
            return end(printed
                .map(|()| WHOLE)
                .map_err(|error| Failure::unwritten(&error)));
        }
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print(); // to the standard error
            return ExitCode::from(FAILED);
        }
        Err(error) => {
            let what = one_line(&error).replace("herd-mio --help", "herd-journal --help");
            return end(Err(Failure::new(what)));
        }
    };
    end(match cli.command {
        Command::Verify(options) => verify::run(&options),
        Command::Stats(options) => stats::run(&options),
        Command::List(options) => list::run(&options),
        Command::Export(options) => export::run(&options),
        Command::Repair(options) => repair::run(&options),
    })
}

fn end(outcome: Result<u8, Failure>) -> ExitCode {
    ExitCode::from(match outcome {
        Ok(status) => status,
        Err(Failure::OutputClosed) => WHOLE,
        Err(Failure::Signalled(signal)) => 128 + signal,
        Err(Failure::Error(status, what)) => {
            report(what);
            status
        }
    })
}

/// Writes one line to the standard error, with the program's name in front.
fn report(what: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "herd-journal: {what}");
}

/// Writes all of `text` to the standard output, and flushes it.
fn print_text(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written.map_err(|error| Failure::unwritten(&error)) {
        Err(Failure::OutputClosed) | Ok(()) => Ok(()), // a closed pipe does not change the exit status
        Err(failure) => Err(failure),
    }
}
