//! A blocking connection, with or without TLS. Each connection is made like this, and polled later.
//!
//! It waits in steps, so that a signal is noticed soon, even if it comes just before a blocking
//! read.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use herd_client::dial::{Session, Trust};

use crate::socket::Socket;
use crate::stop::Stop;

/// The length of one step.
pub(crate) const STEP: Duration = Duration::from_millis(100);
/// The greatest number of bytes of one read.
const READ_BYTES: usize = 16 * 1024;

/// A blocking stream.
pub(crate) struct Line {
    waiting: Waiting,
    tls: Option<Box<Session>>,
}

/// The stream, and its time limit.
struct Waiting {
    stream: TcpStream,
    patience: Duration,
    stop: Stop,
}

impl Line {
    /// A connected stream with a read timeout of a [`STEP`]. With TLS, the handshake is made.
    ///
    /// # Errors
    /// The handshake failed.
    pub(crate) fn new(
        stream: TcpStream,
        patience: Duration,
        stop: &Stop,
        trust: Option<&Trust>,
    ) -> Result<Line, String> {
        let stop = stop.clone();
        let mut waiting = Waiting {
            stream,
            patience,
            stop,
        };
        let tls = match trust {
            Some(trust) => Some(Box::new(Session::shake_hands(&mut waiting, trust)?)),
            None => None,
        };
        Ok(Line { waiting, tls })
    }

    /// The same connection, for a poll.
    pub(crate) fn into_socket(self) -> io::Result<Socket> {
        let stream = self.waiting.stream;
        stream.set_nonblocking(true)?;
        let stream = mio::net::TcpStream::from_std(stream);
        Ok(Socket::new(stream, self.tls.map(|session| *session)))
    }

    /// Whether the connection has no TLS. Then bytes of TLS mean that --tls is missing.
    pub(crate) fn is_plain(&self) -> bool {
        self.tls.is_none()
    }

    /// Makes reads non-blocking.
    pub(crate) fn wait_no_more(&mut self) -> io::Result<()> {
        self.waiting.patience = Duration::ZERO;
        self.waiting.stream.set_nonblocking(true)
    }
}

impl Read for Waiting {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut waited = Duration::ZERO;
        loop {
            match self.stream.read(into) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) && waited < self.patience =>
                {
                    waited += STEP;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
            if self.stop.is_wanted() {
                // The kind of this error does not matter: the caller checks for signals first.
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
    }
}

impl Write for Waiting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Line {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(session) = &mut self.tls else {
            return self.waiting.read(into);
        };
        let mut ciphertext = [0; READ_BYTES];
        // Records without plaintext are session tickets or key updates.
        while session.plaintext().is_empty() && !session.is_over() {
            let count = self.waiting.read(&mut ciphertext)?;
            if count == 0 {
                return Ok(0);
            }
            session
                .receive(&ciphertext[..count])
                .map_err(io::Error::other)?;
        }
        Ok(session.read_plaintext(into))
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(session) = &mut self.tls else {
            return self.waiting.write(bytes);
        };
        let count = session.encrypt(bytes).map_err(io::Error::other)?;
        self.waiting.write_all(&session.take_output())?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
