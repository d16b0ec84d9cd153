//! One socket, with or without TLS. It makes at most one write in a turn, and remembers its
//! readiness. It owns no read buffer.

use std::io::{self, Read, Write};

use herd_client::dial::Session;
use mio::event::Event;
use mio::net::TcpStream;

/// A non-blocking, edge-triggered stream.
pub(crate) struct Socket {
    stream: TcpStream,
    /// Whether the connect is in progress.
    is_connecting: bool,
    readable: bool,
    writable: bool,
    /// Whether the other side has shut down its writing. Earlier bytes may still be unread.
    read_closed: bool,
    tls: Option<Box<Session>>,
    /// Whether the last read returned the plaintext that TLS keeps.
    is_handed_over: bool,
}

/// The result of one read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received<'a> {
    Bytes(&'a [u8]),
    Nothing,
    End,
}

impl Socket {
    /// A connected socket. With TLS, its handshake is done.
    pub(crate) fn new(stream: TcpStream, tls: Option<Session>) -> Socket {
        Socket {
            stream,
            is_connecting: false,
            readable: false,
            writable: true,
            read_closed: false,
            tls: tls.map(Box::new),
            is_handed_over: false,
        }
    }

    /// A socket whose connect is in progress. With TLS, the handshake follows; see
    /// [`Socket::advance`].
    pub(crate) fn connecting(stream: TcpStream, tls: Option<Session>) -> Socket {
        Socket {
            is_connecting: true,
            writable: false,
            ..Socket::new(stream, tls)
        }
    }

    /// The stream without TLS, for blocking use.
    pub(crate) fn into_stream(self) -> std::net::TcpStream {
        self.stream.into()
    }

    /// The source to register with the poll.
    pub(crate) fn source(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Notes the readiness that epoll reports.
    pub(crate) fn note(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
        self.read_closed |= event.is_read_closed() || event.is_error();
    }

    /// Whether a read may return bytes.
    pub(crate) fn is_readable(&self) -> bool {
        self.readable
    }

    /// Continues the connect and the handshake. Returns whether both are done.
    ///
    /// # Errors
    /// The connect or the handshake failed.
    pub(crate) fn advance(&mut self, scratch: &mut [u8]) -> io::Result<bool> {
        if self.is_connecting {
            if !self.writable {
                return Ok(false);
            }
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            match self.stream.peer_addr() {
                Ok(_) => self.is_connecting = false,
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                    self.writable = false;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        let is_handshaking = |tls: &Option<Box<Session>>| {
            tls.as_ref().is_some_and(|session| session.is_handshaking())
        };
        while is_handshaking(&self.tls) {
            self.write(b"")?;
            if !self.readable {
                return Ok(false);
            }
            let end = self.read_once(scratch).and_then(|count| match count {
                Some(0) => Err(io::ErrorKind::ConnectionReset.into()),
                Some(_) | None => Ok(()),
            });
            if let (Err(error), Some(session)) = (end, &self.tls) {
                // Sends the alert with the reason, for the server's log.
                let _ = self.stream.write(session.output());
                return Err(io::Error::other(session.lost(&error)));
            }
        }
        self.write(b"")?;
        Ok(true)
    }

    /// The reason if the connect or the handshake gets no answer.
    pub(crate) fn silence(&self) -> String {
        match &self.tls {
            Some(session) if !self.is_connecting => session.silent(),
            Some(_) | None => "no answer to the connect".to_owned(),
        }
    }

    /// Reads, if epoll has reported bytes. With TLS it reads until there is plaintext. So after
    /// [`Received::Nothing`], the socket waits for epoll.
    pub(crate) fn read<'a>(&'a mut self, scratch: &'a mut [u8]) -> io::Result<Received<'a>> {
        if let (true, Some(session)) = (self.is_handed_over, &mut self.tls) {
            session.clear_plaintext();
            self.is_handed_over = false;
        }
        while self.readable {
            let Some(count) = self.read_once(scratch)? else {
                break;
            };
            let is_over = match &self.tls {
                None if count > 0 => return Ok(Received::Bytes(&scratch[..count])),
                None => true,
                Some(session) if !session.plaintext().is_empty() => break,
                Some(session) => count == 0 || session.is_over(),
            };
            if is_over {
                self.readable = false;
                return Ok(Received::End);
            }
        }
        match &self.tls {
            Some(session) if !session.plaintext().is_empty() => {
                self.is_handed_over = true;
                Ok(Received::Bytes(session.plaintext()))
            }
            Some(_) | None => Ok(Received::Nothing),
        }
    }

    /// Reads once, and passes ciphertext to TLS. `None` if there are no bytes.
    fn read_once(&mut self, scratch: &mut [u8]) -> io::Result<Option<usize>> {
        let count = loop {
            match self.stream.read(scratch) {
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(None);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        // epoll(7): after a short read, a stream has no more bytes, except that its end may still
        // have to be read.
        self.readable = count == scratch.len() || self.read_closed;
        if let Some(session) = &mut self.tls {
            session
                .receive(&scratch[..count])
                .map_err(io::Error::other)?;
        }
        Ok(Some(count))
    }

    /// Writes once, if the socket can take bytes. Returns the number of bytes that it took. With
    /// TLS it first writes the ciphertext of earlier calls, and writes until the socket is full.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(mut session) = self.tls.take() else {
            return if bytes.is_empty() {
                Ok(0)
            } else {
                self.write_once(bytes)
            };
        };
        let written = self.write_encrypted(&mut session, bytes);
        self.tls = Some(session);
        written
    }

    fn write_encrypted(&mut self, session: &mut Session, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        loop {
            while !session.output().is_empty() {
                let count = self.write_once(session.output())?;
                if count == 0 {
                    return Ok(taken);
                }
                session.output_sent(count);
            }
            if taken == bytes.len() || session.is_handshaking() {
                return Ok(taken);
            }
            taken += session.encrypt(&bytes[taken..]).map_err(io::Error::other)?;
        }
    }

    fn write_once(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.writable {
            return Ok(0);
        }
        loop {
            match self.stream.write(bytes) {
                Ok(count) => {
                    // A short write means that the socket is full. epoll reports when it has room
                    // again.
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
