//! The events that a server reports while it runs, and their text in a log.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Called with each event, on the thread of its connection. The call should be quick.
pub type Observer = Arc<dyn Fn(&Event) + Send + Sync>;

/// An event. `Display` makes one line of visible characters without a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A request was received and handled.
    Answered {
        /// The number of the connection, from 1.
        connection: u64,
        /// `GET`, `POST`, …
        method: String,
        /// [`Request::target_without_key`](crate::Request::target_without_key).
        target: String,
        /// [`Behaviour::word`](crate::Behaviour::word).
        behaviour: &'static str,
        /// The HTTP status that was sent. `None` if the bytes were the caller's, or if nothing was
        /// sent.
        status: Option<u16>,
        /// Bytes of the answer before TLS, head included. If it was not delivered, the client has
        /// fewer.
        bytes: usize,
        /// The time from the last byte of the request to the last byte of the answer.
        took: Duration,
        /// False if the client closed first, or the server stopped.
        delivered: bool,
    },
    /// An invalid request was refused, and its connection closed.
    Refused {
        /// The number of the connection, from 1.
        connection: u64,
        /// What was wrong with the request.
        reason: &'static str,
    },
    /// A TLS handshake failed.
    HandshakeFailed {
        /// The number of the connection, from 1.
        connection: u64,
        /// The error of rustls.
        reason: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Answered {
                method,
                target,
                behaviour,
                status,
                bytes,
                took,
                delivered,
                ..
            } => {
                write!(f, "{method} {target} ")?;
                match status {
                    Some(status) => write!(f, "{status}")?,
                    None => f.write_str("-")?,
                }
                write!(f, " {bytes} bytes {:.1} ms", took.as_secs_f64() * 1e3)?;
                if *behaviour != "answer" {
                    write!(f, " [{behaviour}]")?;
                }
                if !delivered {
                    f.write_str(" [not delivered]")?;
                }
                Ok(())
            }
            Event::Refused { connection, reason } => {
                write!(f, "connection {connection}: refused: {reason}")
            }
            Event::HandshakeFailed { connection, reason } => {
                write!(
                    f,
                    "connection {connection}: the TLS handshake failed: {reason}"
                )
            }
        }
    }
}
