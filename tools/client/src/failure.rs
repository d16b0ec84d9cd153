//! The ways in which the program can end: the exit status, and the one line that says why.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::printable;

/// The exit status. The greatest one of a run counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    /// All commands were answered, and none was refused.
    Fine = 0,
    /// The server refused a command, or Places reported an error.
    Refused = 1,
    /// A mistake in the command line, the config file or a helper command.
    Usage = 2,
    /// The connection failed, broke, or was silent for too long.
    Lost = 3,
}

impl Status {
    /// Changes to `other` if that is worse.
    pub(crate) fn worsen(&mut self, other: Status) {
        *self = (*self).max(other);
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> ExitCode {
        ExitCode::from(status as u8)
    }
}

/// A failure that ends the run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: Status,
    /// One line that says what failed, where, and what to do.
    pub(crate) message: String,
}

/// Why a run ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    Failed(Failure),
    /// The reader of the standard output has closed it.
    OutputClosed,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failed(failure)
    }
}

/// Errors of the standard output; those of the connection are [`crate::connection::Broken`].
impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Stop::OutputClosed;
        }
        Stop::Failed(Failure {
            status: Status::Lost,
            message: format!("cannot write the answers to the standard output: {error}"),
        })
    }
}

/// Writes one line to the standard error. `eprintln!` would panic if there is no standard error.
pub(crate) fn print(what: &str) {
    let line = printable::line(what.as_bytes());
    let _ = writeln!(io::stderr(), "herd-client: {line}");
}

/// `1 command`, `2 commands`.
pub(crate) fn commands(count: usize) -> String {
    match count {
        1 => "1 command".into(),
        _ => format!("{count} commands"),
    }
}
