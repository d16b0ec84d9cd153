//! The errors that end a connection, other than a close by the core.

use std::fmt;
use std::io;

use crate::core::session::tls::TlsError;

/// The error of a socket that is broken, or that cannot be created or connected. The text is
/// usually from the operating system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketError(String);

impl std::error::Error for SocketError {}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for SocketError {
    fn from(error: io::Error) -> SocketError {
        SocketError(error.to_string())
    }
}

impl From<String> for SocketError {
    fn from(text: String) -> SocketError {
        SocketError(text)
    }
}

impl From<&str> for SocketError {
    fn from(text: &str) -> SocketError {
        SocketError(text.to_owned())
    }
}

/// The error with which a connection is lost.
#[derive(Clone, Debug, PartialEq)]
pub enum ConnectionError {
    /// The socket is broken.
    Socket(SocketError),
    /// TLS failed.
    Tls(TlsError),
}

impl std::error::Error for ConnectionError {}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectionError::Socket(error) => error.fmt(f),
            ConnectionError::Tls(error) => error.fmt(f),
        }
    }
}
