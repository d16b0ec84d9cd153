//! Why the demo ends before its end.

use std::io;

/// Carried up by `?`; what has to be cleaned up on the way is cleaned up by drops.
#[derive(Debug)]
pub(crate) enum Stop {
    /// This signal came.
    Signal(i32),
    /// This went wrong; one or more lines, the first says the most.
    Failure(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Failure(error.to_string())
    }
}

/// A failure, in words.
pub(crate) fn failure<T>(what: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Failure(what.into()))
}
