//! A socket and its recorded readiness, as in asyncio's `_SelectorSocketTransport`.
//!
//! Each socket is registered once, for reading and writing, edge-triggered. With that, epoll
//! reports only *changes*. So a transport remembers that it is readable or writable until a read or
//! a write shows the opposite. No system call is needed to change interest: the loop just does not
//! read or write.
//!
//! A transport has three states:
//!
//! ```text
//!   Connecting ─ Connected ─► Open
//!   Open       ─ Finished ──► Finished
//! ```
//!
//! The flags beside the state are what epoll has reported, and what reads and writes have shown
//! since. Each flag can change in every state.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::event::Event;
use mio::net::TcpStream;

use crate::core::base::transitions::assert_transition;
use crate::core::node::ConnId;
use crate::core::session::connection_error::SocketError;

/// What can be done with the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A connect is in progress. The socket cannot be read or written yet.
    Connecting,
    /// Both directions can be used.
    Open,
    /// Our direction is shut down. The socket can still be read.
    Finished,
}

/// Why the state changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The connect has succeeded.
    Connected,
    /// The session has sent its last byte.
    Finished,
}

const TRANSITIONS: [(State, Cause, State); 2] = [
    (State::Connecting, Cause::Connected, State::Open),
    (State::Open, Cause::Finished, State::Finished),
];

/// The result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The number of bytes that were read.
    Bytes(usize),
    /// The end of the stream.
    End,
    /// No bytes are available now.
    Nothing,
}

/// A connected or connecting socket, with what epoll has reported about it.
pub struct Transport {
    id: ConnId,
    stream: TcpStream,
    state: State,
    /// Whether a read may succeed: epoll has reported that the socket is readable, and no later
    /// read has shown the opposite.
    readable: bool,
    /// Whether a write may succeed: epoll has reported that the socket is writable, and no later
    /// write has shown the opposite.
    writable: bool,
    /// Set after the peer closed its direction, or after an error or urgent data was reported. Then
    /// a short read does not prove that the socket is drained.
    short_read_is_inconclusive: bool,
    /// Whether both directions are closed, or the socket has an error.
    hung_up: bool,
    /// Whether the connection is on the list of the next turn. Only [`Transport::queue`] and
    /// [`Transport::unqueue`] change this flag.
    queued: bool,
}

impl Transport {
    /// Wraps a socket. `connecting` is whether the connect is still in progress. If not, the socket
    /// was accepted.
    #[must_use]
    pub fn new(id: ConnId, stream: TcpStream, connecting: bool) -> Transport {
        // Each write is a whole batch of output. Nagle's algorithm would only delay the output. If
        // this call fails, the connection is only slower.
        let _ = stream.set_nodelay(true);
        Transport {
            id,
            stream,
            state: match connecting {
                true => State::Connecting,
                false => State::Open,
            },
            // It is not known yet whether there is something to read. If there is, epoll reports it
            // right after registration.
            readable: false,
            // The send buffer of a new socket is empty.
            writable: !connecting,
            short_read_is_inconclusive: false,
            hung_up: false,
            queued: false,
        }
    }

    fn enter(&mut self, cause: Cause, state: State) {
        assert_transition(&TRANSITIONS, (self.state, cause, state));
        self.state = state;
    }

    /// Returns the connection's id.
    #[must_use]
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// Returns the socket to register with the poll.
    pub fn source(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Remembers the readiness that an event reports.
    pub fn record_readiness(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
        // A read stops before urgent data, even if more bytes follow (tcp(7)). So a short read then
        // proves nothing.
        self.short_read_is_inconclusive |=
            event.is_read_closed() || event.is_error() || event.is_priority();
        self.hung_up |= event.is_write_closed() || event.is_error();
    }

    /// Marks the connection as being on the list of the next turn. Returns `false` if it was marked
    /// before.
    pub fn queue(&mut self) -> bool {
        !std::mem::replace(&mut self.queued, true)
    }

    /// Marks the connection as taken off the list of the next turn.
    pub fn unqueue(&mut self) {
        self.queued = false;
    }

    /// Whether a read may return bytes or the end of the stream.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.readable && self.state != State::Connecting
    }

    /// Whether the socket may accept bytes.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable && self.state == State::Open
    }

    /// Whether both directions are closed, or the socket has an error.
    #[must_use]
    pub fn is_hung_up(&self) -> bool {
        self.hung_up
    }

    /// Checks whether a connect that was in progress has succeeded. Returns true once, in the call
    /// that finds the socket connected.
    ///
    /// # Errors
    /// The connect failed.
    pub fn finish_connecting(&mut self) -> io::Result<bool> {
        if self.state != State::Connecting || !self.writable {
            return Ok(false);
        }
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => {
                self.enter(Cause::Connected, State::Open);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                self.writable = false;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads once into `into`.
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
                    // A short read means that the stream is drained (epoll(7)). The exception is a
                    // socket for which an end, an error or urgent data was reported (test:
                    // `bytes_after_tcp_urgent_data_are_read`).
                    if count < into.len() && !self.short_read_is_inconclusive {
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

    /// Writes once. Returns the number of bytes that the socket accepted.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.stream.write(bytes) {
                Ok(count) => {
                    // A short write is no error: the send buffer is full, and epoll reports when it
                    // has space again.
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

    /// Shuts down the writing direction; further calls do nothing. The peer receives everything
    /// that was written, then the end of the stream. The socket must be connected.
    pub fn finish(&mut self) {
        if self.state != State::Finished {
            self.enter(Cause::Finished, State::Finished);
            // This fails only if the connection is already lost. The next read reports that.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    /// Returns the error of a socket that hung up.
    pub fn error(&self) -> SocketError {
        match self.stream.take_error() {
            Ok(Some(error)) | Err(error) => error.into(),
            Ok(None) => "it hung up".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TRANSITIONS;
    use crate::core::base::transitions::assert_diagram;

    #[test]
    fn the_module_docs_show_the_transitions() {
        assert_diagram(include_str!("transport.rs"), &TRANSITIONS);
    }
}
