//! One socket: at most one read and one write a turn, and what epoll said of it. It owns no buffer.

use std::io::{self, Read, Write};

use mio::event::Event;
use mio::net::TcpStream;

/// A non-blocking, edge-triggered stream.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    readable: bool,
    writable: bool,
    /// The other side will send no more; what it sent before may still be there.
    read_closed: bool,
}

/// What one read brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Bytes(usize),
    Nothing,
    End,
}

impl Socket {
    /// A socket that is connected.
    pub(crate) fn new(stream: TcpStream) -> Socket {
        Socket {
            stream,
            readable: false,
            writable: true,
            read_closed: false,
        }
    }

    /// What to register with the poll.
    pub(crate) fn source(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Notes what epoll says.
    pub(crate) fn note(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
        self.read_closed |= event.is_read_closed() || event.is_error();
    }

    /// Whether a read may bring something.
    pub(crate) fn is_readable(&self) -> bool {
        self.readable
    }

    /// Reads once, if epoll said that there is something.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<Received> {
        if !self.readable {
            return Ok(Received::Nothing);
        }
        loop {
            match self.stream.read(into) {
                Ok(0) => {
                    self.readable = false;
                    return Ok(Received::End);
                }
                Ok(count) => {
                    // epoll(7): a short read of a stream means that it is drained, unless its end is there to be read too.
                    self.readable = count == into.len() || self.read_closed;
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

    /// Writes once, if the socket can take something; returns how much it took.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.writable || bytes.is_empty() {
            return Ok(0);
        }
        loop {
            match self.stream.write(bytes) {
                Ok(count) => {
                    // A short write means a full socket; epoll tells when it is not any more.
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
}
