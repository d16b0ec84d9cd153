//! What the server may be told to do with a request: the good answer, and each way to spoil it.

use std::time::Duration;

/// What is done with one request.
///
/// Set for all requests with [`Places::set_behaviour`](crate::Places::set_behaviour), or for the next
/// ones, one by one, with [`Places::push_behaviour`](crate::Places::push_behaviour).
///
/// A fault changes how an answer travels, not what it says; only [`Status`](Behaviour::Status) and
/// [`Raw`](Behaviour::Raw) say something else. A request that is not HTTP never gets this far: it is
/// refused with 400.
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
    /// Answers with no length at all and `Connection: close`; the end is a `close_notify` and a FIN.
    CloseDelimited,
    /// Announces a `Content-Length`, sends half of the body, and closes TCP without a `close_notify`.
    Truncated,
    /// Waits before it answers. A client that closes meanwhile is let go.
    Slow {
        /// How long to wait.
        delay: Duration,
    },
    /// Answers a few bytes at a time, head included, each piece in a TLS record of its own.
    Drip {
        /// The pause between two pieces.
        every: Duration,
        /// The bytes in each piece (0 counts as 1).
        bytes: usize,
    },
    /// Does not answer until [`Places::release`](crate::Places::release) (then it answers well) or
    /// until the server stops. A client that closes meanwhile is let go.
    Hold,
    /// Closes the TCP connection without an answer, and without a `close_notify`.
    Drop,
    /// Answers with this HTTP status and Google's JSON error shape; the connection stays open.
    Status(u16),
    /// Sends exactly these bytes, whatever was asked.
    Raw {
        /// Each is a TLS record of its own (more, above 16 KiB), written before the next is begun.
        segments: Vec<Vec<u8>>,
        /// What happens after the last.
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

/// What becomes of the connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It stays open for the next request.
    KeepAlive,
    /// It is closed as TLS wants it: a `close_notify`, then FIN.
    CloseNotify,
    /// A FIN without a `close_notify`: to a TLS client, an attack that cut the answer short.
    Abrupt,
}
