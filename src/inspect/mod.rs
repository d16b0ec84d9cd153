//! `herd-journal`: looks at a journal offline. It verifies, counts, lists and exports one, and
//! takes out what is damaged.
//!
//! The reading is the server's own: [`Scan`](crate::core::journal::format::Scan) finds the entries,
//! [`Judge`](crate::core::journal::format::Judge) says what a start makes of the rest, and the
//! newest position of each client is what [`Records`](crate::core::table::records::Records) keeps.
//! A journal is read in pieces of 1 MiB. Only what needs one record for each client holds more, as
//! much as the server does.
//!
//! | file | reason to exist |
//! |---|---|
//! | `cli` | the command line |
//! | `source` | the journal: found, opened, read in pieces; whether its server runs |
//! | `census` | counts of what is in it |
//! | `verify`, `stats`, `list`, `export`, `repair` | one command each |
//! | `positions` | the newest position of each client |
//! | `show` | an entry as a line of text or of JSON |
//! | `sink` | where output goes: all of it arrives, or it is an error |

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

/// Everything in the journal is as it was written, but for what a crash leaves.
const WHOLE: u8 = 0;
/// Something in the journal is damaged.
const DAMAGED: u8 = 1;
/// A mistake in usage, or something that cannot be read or written.
const FAILED: u8 = 2;

/// Why a command ended before it was done.
#[derive(Debug)]
enum Failure {
    /// In words.
    Told(u8, String),
    /// The reader of the output has seen enough.
    Enough,
    /// A signal came.
    Stopped(u8),
}

impl Failure {
    fn new(what: impl fmt::Display) -> Failure {
        Failure::Told(FAILED, what.to_string())
    }

    /// The standard output did not take something.
    fn unwritten(error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::Enough,
            _ => Failure::new(format_args!(
                "cannot write to the standard output: {error}; send it where there is room"
            )),
        }
    }
}

/// The whole program; returns the status to end with.
#[must_use]
pub fn run(arguments: &[OsString]) -> ExitCode {
    let cli: Cli = match parse(arguments) {
        Ok((cli, _)) => cli,
        Err(error) if error.exit_code() == 0 => {
            // --help and --version
            let shown = error.print().and_then(|()| io::stdout().flush());
            return end(shown
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
        Err(Failure::Enough) => WHOLE,
        Err(Failure::Stopped(signal)) => 128 + signal,
        Err(Failure::Told(status, what)) => {
            tell(what);
            status
        }
    })
}

/// One line on the standard error, after the program's name.
fn tell(what: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "herd-journal: {what}");
}

/// Says all of it on the standard output.
fn say(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let said = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match said.map_err(|error| Failure::unwritten(&error)) {
        Err(Failure::Enough) | Ok(()) => Ok(()), // the status still says what was found
        Err(failure) => Err(failure),
    }
}
