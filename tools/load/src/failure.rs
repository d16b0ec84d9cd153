//! How it can end: the exit status, and the words that say why.

use std::io::{self, Write};
use std::process::ExitCode;

use herd_mio::config::ConfigError;

/// Something that cannot be gone on from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A wrong answer, no connection, a lost one, silence, commands without an answer: status 1.
    Failed(String),
    /// A mistake in the command line or the config file: status 2.
    Usage(String),
}

impl Failure {
    /// A signal ended it before there was anything to print.
    pub(crate) fn stopped() -> Failure {
        Failure::Failed("stopped by a signal before anything was measured".into())
    }

    /// What is wrong.
    pub(crate) fn into_words(self) -> String {
        match self {
            Failure::Failed(what) | Failure::Usage(what) => what,
        }
    }

    /// Says it on the standard error; the exit status to end with.
    pub(crate) fn tell(&self) -> ExitCode {
        let (what, status) = match self {
            Failure::Failed(what) => (what, 1),
            Failure::Usage(what) => (what, 2),
        };
        // Not `eprintln!`, which panics when there is no standard error.
        let _ = writeln!(io::stderr(), "herd-load: {what}");
        ExitCode::from(status)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::Usage(error.0)
    }
}

/// What the system refused while `doing` it.
pub(crate) fn system(doing: &str) -> impl Fn(io::Error) -> Failure + '_ {
    move |error| Failure::Failed(format!("cannot {doing}: {error}"))
}
