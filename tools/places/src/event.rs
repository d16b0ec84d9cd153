//! What a server has to tell while it runs, and how it reads in a log.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Called with each event, on the thread of the connection it is about. It should be quick.
pub type Observer = Arc<dyn Fn(&Event) + Send + Sync>;

/// Something that happened. `Display` is one line of visible text, and never has a key in it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A request was heard and dealt with.
    Answered {
        /// Which connection: 1 is the first.
        connection: u64,
        /// `GET`, `POST`, …
        method: String,
        /// [`Request::target_without_key`](crate::Request::target_without_key).
        target: String,
        /// [`Behaviour::word`](crate::Behaviour::word).
        behaviour: &'static str,
        /// The HTTP status that was sent; none for bytes that the caller gave, or for nothing at all.
        status: Option<u16>,
        /// Bytes of the answer, head included, before TLS; not all of them arrived if it was not delivered.
        bytes: usize,
        /// From the last byte of the request to the last byte of the answer.
        took: Duration,
        /// False if the client went away first, or the server stopped.
        delivered: bool,
    },
    /// Something that is no request was refused, and its connection closed.
    Refused {
        /// Which connection.
        connection: u64,
        /// What was wrong with it.
        reason: &'static str,
    },
    /// A TLS handshake came to nothing.
    HandshakeFailed {
        /// Which connection.
        connection: u64,
        /// What rustls says.
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
                write!(f, "connection {connection}: no TLS handshake: {reason}")
            }
        }
    }
}
