//! Why the demo ends early.

use std::io;

/// Returned with `?` through all callers. Guards clean up on the way.
#[derive(Debug)]
pub(crate) enum Stop {
    /// This signal came.
    Signal(i32),
    /// A failure in one or more lines. The first line says what happened.
    Failure(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Failure(error.to_string())
    }
}

/// A failure with this text.
pub(crate) fn failure<T>(what: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Failure(what.into()))
}
