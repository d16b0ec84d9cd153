//! The reasons why a client's connection ends, for the log.

use std::fmt;

use crate::core::base::limits::LINE_BYTES;
use crate::core::session::connection_error::ConnectionError;

/// The reason why a client's connection ends. In the displayed text, "it" means the client.
#[derive(Clone, Debug, PartialEq)]
pub enum CloseReason {
    /// A line has more than [`LINE_BYTES`] bytes.
    LineTooLong,
    /// A line was not finished in time.
    LineUnfinished {
        /// The length of the line so far, in bytes.
        bytes: usize,
        /// The time within which a line must be complete, in milliseconds.
        line_ms: u64,
    },
    /// The client has not read its answers for this number of milliseconds.
    OutputStalled(u64),
    /// Both sides have closed the connection.
    Closed,
    /// The client ended the connection over TLS without `close_notify`.
    CutOff,
    /// The connection was lost.
    Lost(ConnectionError),
}

impl std::error::Error for CloseReason {}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::LineTooLong => write!(f, "a line of more than {LINE_BYTES} bytes"),
            CloseReason::LineUnfinished { bytes, line_ms } => write!(
                f,
                "{bytes} bytes had no newline within {line_ms} ms (limits.line_ms)"
            ),
            CloseReason::OutputStalled(ms) => {
                write!(f, "it did not read its answers for {ms} ms")
            }
            CloseReason::Closed => f.write_str("closed"),
            CloseReason::CutOff => f.write_str("it ended the connection without close_notify"),
            CloseReason::Lost(error) => error.fmt(f),
        }
    }
}
