//! How it can end: the exit status, and the one line that says why.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::printable;

/// The exit status. Of two, the greater counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    /// All commands were answered, none was refused.
    Fine = 0,
    /// The server refused a command, or Places reported an error.
    Refused = 1,
    /// A mistake in the command line, the config file or a helper command.
    Usage = 2,
    /// No connection, a lost one, or silence on it.
    Lost = 3,
}

impl Status {
    /// Takes `other` in if it is the graver one.
    pub(crate) fn worsen(&mut self, other: Status) {
        *self = (*self).max(other);
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> ExitCode {
        ExitCode::from(status as u8)
    }
}

/// Something that cannot be gone on from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: Status,
    /// What, where, and what to do, in one line.
    pub(crate) message: String,
}

/// Why a run stops before its end.
#[derive(Debug)]
pub(crate) enum Stop {
    Failed(Failure),
    /// The reader of the standard output has closed it.
    NobodyReads,
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
            return Stop::NobodyReads;
        }
        Stop::Failed(Failure {
            status: Status::Lost,
            message: format!("cannot write the answers to the standard output: {error}"),
        })
    }
}

/// One line on the standard error. Not `eprintln!`, which panics when there is no standard error.
pub(crate) fn tell(what: &str) {
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
