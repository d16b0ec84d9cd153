//! TLS over one blocking socket, with a deadline on every wait.
//!
//! The streams of rustls are not used: they hide the borders of records, and the ways in which a
//! peer can close. This server has to control both.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection};

/// The time limit of one write. After it the connection is closed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The greatest plaintext of a TLS record (RFC 8446, 5.1).
const RECORD_MAX: usize = 16 * 1024;
/// While a request is being answered, at most so many further bytes are kept.
const READ_AHEAD_MAX: usize = 256 * 1024;

/// One client's socket and its TLS session.
pub(crate) struct Wire {
    socket: Arc<TcpStream>,
    tls: ServerConnection,
    /// Plaintext that was received and is not consumed yet.
    pub(crate) received: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(socket: Arc<TcpStream>, config: Arc<ServerConfig>) -> io::Result<Wire> {
        socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
        // Each piece of an answer must be sent when it is written. Nagle's algorithm would wait for
        // an acknowledgement.
        socket.set_nodelay(true)?;
        let tls = ServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Wire {
            socket,
            tls,
            received: Vec::new(),
        })
    }

    /// The text of an error may stand in a log.
    pub(crate) fn handshake(&mut self, deadline: Instant) -> io::Result<()> {
        while self.tls.is_handshaking() {
            if self.read_records(deadline)? == 0 {
                return Err(io::Error::new(
                    ErrorKind::UnexpectedEof,
                    "the client closed the connection",
                ));
            }
        }
        self.flush()
    }

    /// Waits for more plaintext, and appends it to `received`. Returns 0 at the end, with or
    /// without a `close_notify`.
    pub(crate) fn fill(&mut self, deadline: Instant) -> io::Result<usize> {
        loop {
            match self.take_plaintext()? {
                Some(count) => return Ok(count),
                None => _ = self.read_records(deadline)?,
            }
        }
    }

    /// Writes and flushes the bytes as one record, or as several if they are too long. An empty
    /// slice writes no record.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        for record in bytes.chunks(RECORD_MAX) {
            self.tls.writer().write_all(record)?;
            self.flush()?;
        }
        Ok(())
    }

    /// Checks without waiting whether the client has closed its side. Received bytes are kept.
    pub(crate) fn client_is_gone(&mut self) -> bool {
        if self.received.len() > READ_AHEAD_MAX {
            return false;
        }
        if self.socket.set_nonblocking(true).is_err() {
            return true;
        }
        let gone = self.look();
        self.socket.set_nonblocking(false).is_err() || gone
    }

    fn look(&mut self) -> bool {
        loop {
            match self.take_plaintext() {
                Ok(Some(0)) => return true,
                Ok(Some(_)) => {}
                Ok(None) => match self.read_now() {
                    Ok(_) => {}
                    Err(error) => return error.kind() != ErrorKind::WouldBlock,
                },
                Err(_) => return true,
            }
        }
    }

    /// Sends a `close_notify`, and closes.
    pub(crate) fn close(mut self) {
        self.tls.send_close_notify();
        // An error means that the client is gone.
        let _ = self.flush();
        self.close_abruptly();
    }

    /// Sends a FIN without a `close_notify`.
    pub(crate) fn close_abruptly(self) {
        let _ = self.socket.shutdown(Shutdown::Write);
        // Unread bytes would make the kernel send a RST, which may destroy the last answer.
        if self.socket.set_nonblocking(true).is_ok() {
            discard(&self.socket, READ_AHEAD_MAX);
        }
    }

    /// Closes a connection whose client may still be sending. It first waits a little, so that the
    /// client can read the answer (RFC 9112, 9.6).
    pub(crate) fn close_on_a_talker(mut self, patience: Duration) {
        self.tls.send_close_notify();
        let _ = self.flush();
        let _ = self.socket.shutdown(Shutdown::Write);
        if self.socket.set_read_timeout(Some(patience)).is_ok() {
            discard(&self.socket, 4 * READ_AHEAD_MAX);
        }
    }

    /// Appends plaintext to `received`. Returns `None` if there is none yet, and `Some(0)` at the
    /// end.
    fn take_plaintext(&mut self) -> io::Result<Option<usize>> {
        let mut buffer = [0; RECORD_MAX];
        match self.tls.reader().read(&mut buffer) {
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                Ok(Some(count))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            // The client sent no close_notify, but it has closed all the same.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(Some(0)),
            Err(error) => Err(error),
        }
    }

    /// Waits for bytes until the deadline, then reads them with `read_now`.
    fn read_records(&mut self, deadline: Instant) -> io::Result<usize> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.socket.set_read_timeout(Some(left))?;
            match self.read_now() {
                // A read timeout is WouldBlock on Linux. The loop checks the deadline.
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                other => return other,
            }
        }
    }

    fn read_now(&mut self) -> io::Result<usize> {
        let count = self.tls.read_tls(&mut &*self.socket)?;
        let outcome = self.tls.process_new_packets();
        // This sends the answer to a handshake message, or the alert that reports an error.
        let flushed = self.flush();
        outcome.map_err(io::Error::other)?;
        flushed?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut &*self.socket)?;
        }
        Ok(())
    }
}

/// Reads and drops bytes until the end, an error, or `most` bytes.
pub(crate) fn discard(socket: &TcpStream, most: usize) {
    // `Read::take` counts in u64, and a usize fits.
    let _ = io::copy(&mut Read::take(socket, most as u64), &mut io::sink());
}
