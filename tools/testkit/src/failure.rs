//! The failure of a program: the exit status, and the one line that says why.

use std::process::ExitCode;
use std::{fmt, io};

use clap::Parser;
use herd_mio::config::ConfigError;

use crate::output;

/// The exit status after a mistake in the command line or the configuration.
pub const USAGE: u8 = 2;

/// A failure that ends a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Something went wrong at run time: status 1.
    Failed(String),
    /// A mistake in the command line or in a config file: status 2.
    Usage(String),
}

impl Failure {
    /// The text of the failure.
    #[must_use]
    pub fn into_words(self) -> String {
        match self {
            Failure::Failed(what) | Failure::Usage(what) => what,
        }
    }

    /// Writes the failure to the standard error. Returns the exit status.
    #[must_use]
    pub fn tell(&self) -> ExitCode {
        let (what, status) = match self {
            Failure::Failed(what) => (what, 1),
            Failure::Usage(what) => (what, USAGE),
        };
        output::tell(what);
        ExitCode::from(status)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::Usage(error.0)
    }
}

/// Turns an error of the system into a failure. `doing` says what the program tried.
pub fn system(doing: impl fmt::Display) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::Failed(format!("cannot {doing}: {error}"))
}

/// Clap's error about a command line of `program`, as one line.
#[must_use]
pub fn one_line(error: &clap::Error, program: &str) -> String {
    let help = format!("{program} --help");
    herd_mio::cli::one_line(error).replace("herd-mio --help", &help)
}

/// Parses the command line of `program`. Writes a mistake to the standard error as one line.
///
/// # Errors
/// The command line has `--help`, `--version` or a mistake. The program has to end with this
/// status.
pub fn command_line<C: Parser>(program: &str) -> Result<C, ExitCode> {
    C::try_parse().map_err(|error| match error.exit_code() {
        0 => output::show(&error),
        _ => Failure::Usage(one_line(&error, program)).tell(),
    })
}
