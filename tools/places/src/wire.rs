//! TLS over one blocking socket, with a deadline on every wait.
//!
//! rustls has a stream of its own, which hides where one record ends and the next begins, and what a
//! peer that went away looks like. Both are what this server is for.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection};

/// One write to a client may take so long before the client is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The plaintext of a TLS record (RFC 8446, 5.1).
const RECORD_MAX: usize = 16 * 1024;
/// While a request is being answered, what comes behind it is kept, up to here.
const READ_AHEAD_MAX: usize = 256 * 1024;

/// One client's socket and its TLS session.
pub(crate) struct Wire {
    socket: Arc<TcpStream>,
    tls: ServerConnection,
    /// Plaintext that is received and not consumed.
    pub(crate) received: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(socket: Arc<TcpStream>, config: Arc<ServerConfig>) -> io::Result<Wire> {
        socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
        // A piece of an answer must leave when it is written, not when the last one is acknowledged.
        socket.set_nodelay(true)?;
        let tls = ServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Wire {
            socket,
            tls,
            received: Vec::new(),
        })
    }

    /// The reason of a failure is fit for a log.
    pub(crate) fn handshake(&mut self, deadline: Instant) -> io::Result<()> {
        while self.tls.is_handshaking() {
            if self.read_records(deadline)? == 0 {
                return Err(io::Error::new(
                    ErrorKind::UnexpectedEof,
                    "the client went away",
                ));
            }
        }
        self.flush()
    }

    /// Waits for more plaintext, and appends it to `received`. 0 is the end, clean or not.
    pub(crate) fn fill(&mut self, deadline: Instant) -> io::Result<usize> {
        loop {
            match self.take_plaintext()? {
                Some(count) => return Ok(count),
                None => _ = self.read_records(deadline)?,
            }
        }
    }

    /// Writes and flushes: one record, or as few as will hold the bytes. Nothing is written for nothing.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        for record in bytes.chunks(RECORD_MAX) {
            self.tls.writer().write_all(record)?;
            self.flush()?;
        }
        Ok(())
    }

    /// Looks, without waiting, whether the client has closed its side. What it sent is kept.
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

    /// Says goodbye as TLS wants it, and closes.
    pub(crate) fn close(mut self) {
        self.tls.send_close_notify();
        // If it cannot be said there is nobody to hear it.
        let _ = self.flush();
        self.close_abruptly();
    }

    /// A FIN, and no `close_notify`.
    pub(crate) fn close_abruptly(self) {
        let _ = self.socket.shutdown(Shutdown::Write);
        // Bytes left unread would turn the FIN into a RST, which may destroy what was just sent.
        if self.socket.set_nonblocking(true).is_ok() {
            discard(&self.socket, READ_AHEAD_MAX);
        }
    }

    /// Closes on a client that may still be sending what will never be read: waits a little for it to
    /// hear the answer first (RFC 9112, 9.6).
    pub(crate) fn close_on_a_talker(mut self, patience: Duration) {
        self.tls.send_close_notify();
        let _ = self.flush();
        let _ = self.socket.shutdown(Shutdown::Write);
        if self.socket.set_read_timeout(Some(patience)).is_ok() {
            discard(&self.socket, 4 * READ_AHEAD_MAX);
        }
    }

    /// `None` if there is none yet; `Some(0)` at the end.
    fn take_plaintext(&mut self) -> io::Result<Option<usize>> {
        let mut buffer = [0; RECORD_MAX];
        match self.tls.reader().read(&mut buffer) {
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                Ok(Some(count))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            // No close_notify: a rude client, but gone all the same.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(Some(0)),
            Err(error) => Err(error),
        }
    }

    /// Waits for bytes until the deadline, then as `read_now`.
    fn read_records(&mut self, deadline: Instant) -> io::Result<usize> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.socket.set_read_timeout(Some(left))?;
            match self.read_now() {
                // Linux says WouldBlock when a read times out; the deadline decides.
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                other => return other,
            }
        }
    }

    fn read_now(&mut self) -> io::Result<usize> {
        let count = self.tls.read_tls(&mut &*self.socket)?;
        let outcome = self.tls.process_new_packets();
        // Both ways: an answer to the handshake, or the alert that says what was wrong with it.
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

/// Reads and forgets, until the end, an error, or `most` bytes.
pub(crate) fn discard(socket: &TcpStream, most: usize) {
    // `Read::take` counts in u64; a usize fits.
    let _ = io::copy(&mut Read::take(socket, most as u64), &mut io::sink());
}
