//! The behaviours that the server can show for a request: the right answer, and each fault.

use std::time::Duration;

/// What the server does with one request.
///
/// [`Places::set_behaviour`](crate::Places::set_behaviour) sets it for all requests, and
/// [`Places::push_behaviour`](crate::Places::push_behaviour) for one of the next ones.
///
/// A fault changes how an answer is sent, but not its content. Only [`Status`](Behaviour::Status)
/// and [`Raw`](Behaviour::Raw) have other content. A request that is not valid HTTP gets no
/// behaviour: it is refused with an HTTP error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers as Google does: `Content-Length`, and the connection stays open.
    #[default]
    Answer,
    /// Answers with `Transfer-Encoding: chunked`, in chunks of `size` bytes (0 counts as 1).
    Chunked {
        /// The bytes in each chunk but the last.
        size: usize,
    },
    /// Answers without a length and with `Connection: close`. The body ends with a `close_notify`
    /// and a FIN.
    CloseDelimited,
    /// Announces a `Content-Length`, sends half of the body, and closes TCP without a
    /// `close_notify`.
    Truncated,
    /// Waits before it answers. If the client closes meanwhile, the wait ends.
    Slow {
        /// How long to wait.
        delay: Duration,
    },
    /// Answers a few bytes at a time, head included. Each piece is its own TLS record.
    Drip {
        /// The pause between two pieces.
        every: Duration,
        /// The bytes in each piece (0 counts as 1).
        bytes: usize,
    },
    /// Waits for [`Places::release`](crate::Places::release), then answers well. The wait also ends
    /// if the client closes or the server stops.
    Hold,
    /// Closes the TCP connection without an answer, and without a `close_notify`.
    Drop,
    /// Answers with this HTTP status and Google's JSON error shape; the connection stays open.
    Status(u16),
    /// Sends exactly these bytes, for any request.
    Raw {
        /// Each segment is its own TLS record, or several above 16 KiB. It is written before the
        /// next one begins.
        segments: Vec<Vec<u8>>,
        /// What happens after the last segment.
        end: End,
    },
}

impl Behaviour {
    /// One word, for a log line.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Behaviour::Answer => "answer",
            Behaviour::Chunked { .. } => "chunked",
            Behaviour::CloseDelimited => "close-delimited",
            Behaviour::Truncated => "truncated",
            Behaviour::Slow { .. } => "slow",
            Behaviour::Drip { .. } => "drip",
            Behaviour::Hold => "hold",
            Behaviour::Drop => "drop",
            Behaviour::Status(_) => "status",
            Behaviour::Raw { .. } => "raw",
        }
    }
}

/// What happens to the connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It stays open for the next request.
    KeepAlive,
    /// It is closed as TLS demands: a `close_notify`, then a FIN.
    CloseNotify,
    /// A FIN without a `close_notify`. A TLS client has to treat that as an attack that cut the
    /// answer.
    Abrupt,
}
