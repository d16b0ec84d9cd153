//! How it can end badly: the exit status, and the one line that says why.

use std::io::{self, Write};
use std::process::ExitCode;

/// Something that cannot be gone on from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A file that is not as it should be, or that the system refused: status 1.
    Failed(String),
    /// A mistake in the command line or the config file: status 2.
    Usage(String),
}

impl Failure {
    /// Says it on the standard error; the exit status to end with.
    pub(crate) fn tell(&self) -> ExitCode {
        let (what, status) = match self {
            Failure::Failed(what) => (what, 1),
            Failure::Usage(what) => (what, 2),
        };
        tell(what);
        ExitCode::from(status)
    }
}

/// One line on the standard error. Not `eprintln!`, which panics when there is no standard error.
pub(crate) fn tell(what: &str) {
    let _ = writeln!(io::stderr(), "herd-certificates: {what}");
}

/// What could not be done; `doing` says what, and to which file.
pub(crate) fn failed(doing: String) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure::Failed(format!("cannot {doing}: {error}"))
}
