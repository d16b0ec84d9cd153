//! The reasons why an exchange fails. An exchange is the session of a connection to Places.

use std::fmt;
use std::time::Duration;

use crate::core::places::response::ResponseError;
use crate::core::session::buffer_budget::Eviction;
use crate::core::session::connection_error::ConnectionError;

/// The reason why an exchange failed. In the displayed text, "it" means Places.
#[derive(Clone, Debug, PartialEq)]
pub enum ExchangeError {
    /// The response is HTTP/2.
    Http2 {
        /// Whether the connection is new, and ALPN chose no protocol in its TLS handshake. Then
        /// Places perhaps speaks only HTTP/2.
        is_alpn_suspect: bool,
    },
    /// The response is invalid, or too long, or it ended too early.
    Response(ResponseError),
    /// Bytes arrived on an idle connection, without a request.
    Unsolicited,
    /// Places closed the connection.
    Closed {
        /// Whether the connection is new, and ALPN chose no protocol in its TLS handshake. Then
        /// Places perhaps speaks only HTTP/2.
        is_alpn_suspect: bool,
    },
    /// Places closed the connection during the TLS handshake.
    ClosedInHandshake,
    /// The connection was lost, or TLS failed.
    Lost(ConnectionError),
    /// The connection was not made within this time.
    NotConnected(Duration),
    /// The TLS handshake was not done within this time.
    NoHandshake(Duration),
    /// The whole response did not arrive within this time.
    NoAnswer(Duration),
    /// The connection was kept for this time without a question.
    Unused(Duration),
    /// The buffers of all connections together are full. The server chose this connection to free
    /// memory.
    Evicted(Eviction),
}

impl std::error::Error for ExchangeError {}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alpn = |is_suspect: bool| match is_suspect {
            true => {
                "; by ALPN it chose no protocol, where HTTP/1.1 was offered: it may speak only HTTP/2"
            }
            false => "",
        };
        match self {
            ExchangeError::Http2 { is_alpn_suspect } => write!(
                f,
                "its answer was not HTTP/1.1 but HTTP/2{}",
                alpn(*is_alpn_suspect)
            ),
            ExchangeError::Response(error) => error.fmt(f),
            ExchangeError::Unsolicited => f.write_str("it answered without having been asked"),
            ExchangeError::Closed { is_alpn_suspect } => {
                write!(f, "it closed the connection{}", alpn(*is_alpn_suspect))
            }
            ExchangeError::ClosedInHandshake => {
                f.write_str("it closed the connection in the TLS handshake")
            }
            ExchangeError::Lost(error) => error.fmt(f),
            ExchangeError::NotConnected(limit) => {
                write!(f, "no connection within {} s", limit.as_secs_f32())
            }
            ExchangeError::NoHandshake(limit) => {
                write!(f, "no TLS handshake within {} s", limit.as_secs_f32())
            }
            ExchangeError::NoAnswer(limit) => {
                write!(f, "no answer within {} s", limit.as_secs_f32())
            }
            ExchangeError::Unused(limit) => write!(f, "unused for {} s", limit.as_secs_f32()),
            ExchangeError::Evicted(eviction) => eviction.fmt(f),
        }
    }
}
