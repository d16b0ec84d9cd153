//! One socket, and what is known of its readiness: asyncio's `_SelectorSocketTransport`.
//!
//! Sockets are registered once, edge-triggered, for both directions; epoll then tells each
//! *change*. So readiness is a fact to be remembered until a read or a write proves it over, and
//! interest costs no system call: it is only a question of who is asked.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::event::Event;
use mio::net::TcpStream;

use crate::core::node::ConnId;

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes.
    Bytes(usize),
    /// The end of the stream.
    End,
    /// Nothing now.
    Nothing,
}

/// A socket.
pub struct Transport {
    id: ConnId,
    stream: TcpStream,
    connecting: bool,
    readable: bool,
    writable: bool,
    /// A FIN, a reset or urgent data was seen: a short read does not mean that the socket is
    /// drained.
    short_reads: bool,
    /// Both directions are dead.
    hung_up: bool,
    finished: bool,
    /// It is on the list of the next turn.
    queued: bool,
}

impl Transport {
    /// A socket that was accepted, or (`connecting`) is being connected.
    #[must_use]
    pub fn new(id: ConnId, stream: TcpStream, connecting: bool) -> Transport {
        // Answers are written whole; waiting to fill a segment (Nagle) would only delay them. A
        // failure costs speed alone.
        let _ = stream.set_nodelay(true);
        Transport {
            id,
            stream,
            connecting,
            // Unknown until epoll tells, which it does at once for what is ready when it is
            // registered.
            readable: false,
            // A new socket's send buffer is empty.
            writable: !connecting,
            short_reads: false,
            hung_up: false,
            finished: false,
            queued: false,
        }
    }

    /// The connection's name.
    #[must_use]
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// What to register with the poll.
    pub fn source(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Notes what epoll says.
    pub fn note(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
        // A read ends before urgent data, whatever is behind it (tcp(7)).
        self.short_reads |= event.is_read_closed() || event.is_error() || event.is_priority();
        self.hung_up |= event.is_write_closed() || event.is_error();
    }

    /// Whether it is put on the next turn's list by this call, and was not on it.
    pub fn queue(&mut self) -> bool {
        !std::mem::replace(&mut self.queued, true)
    }

    /// It is taken off the list.
    pub fn unqueue(&mut self) {
        self.queued = false;
    }

    /// Whether a read may bring something.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.readable && !self.connecting
    }

    /// Whether a write may take something.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable && !self.connecting && !self.finished
    }

    /// Whether both directions are closed by the other side.
    #[must_use]
    pub fn is_hung_up(&self) -> bool {
        self.hung_up
    }

    /// Whether a connection that is being made is made by now.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn finish_connecting(&mut self) -> io::Result<bool> {
        if !self.connecting || !self.writable {
            return Ok(false);
        }
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => {
                self.connecting = false;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                self.writable = false;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads once.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<Received> {
        loop {
            match self.stream.read(into) {
                Ok(0) => {
                    self.readable = false;
                    return Ok(Received::End);
                }
                Ok(count) => {
                    // epoll(7): a short read of a stream means that it is drained, unless its end
                    // is there to be read too, or something urgent (test:
                    // `urgent_data_hides_nothing_that_is_behind_it`).
                    if count < into.len() && !self.short_reads {
                        self.readable = false;
                    }
                    return Ok(Received::Bytes(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(Received::Nothing);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes once; returns how much the socket took.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.stream.write(bytes) {
                Ok(count) => {
                    // A short write is no error: the send buffer is full, and epoll tells when it
                    // is not.
                    self.writable = count == bytes.len();
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable = false;
                    return Ok(0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends our direction, once: everything written still arrives, then the end of the stream.
    pub fn finish(&mut self) {
        if !std::mem::replace(&mut self.finished, true) {
            // Fails only if the other side is gone already, which the next read tells.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    /// What the system has to say of a socket that hung up.
    pub fn error(&self) -> String {
        match self.stream.take_error() {
            Ok(Some(error)) | Err(error) => error.to_string(),
            Ok(None) => "it hung up".to_owned(),
        }
    }
}
