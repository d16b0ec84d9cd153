//! One socket, with or without TLS on it: at most one write a turn, and what epoll said of it. It
//! owns no buffer for what it reads.

use std::io::{self, Read, Write};

use herd_client::dial::Session;
use mio::event::Event;
use mio::net::TcpStream;

/// A non-blocking, edge-triggered stream.
pub(crate) struct Socket {
    stream: TcpStream,
    /// The system is still connecting it.
    is_connecting: bool,
    readable: bool,
    writable: bool,
    /// The other side will send no more; what it sent before may still be there.
    read_closed: bool,
    tls: Option<Box<Session>>,
    /// The last read handed over the plaintext that TLS keeps.
    is_handed_over: bool,
}

/// What one read brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received<'a> {
    Bytes(&'a [u8]),
    Nothing,
    End,
}

impl Socket {
    /// A socket that is connected, and whose TLS handshake is done if it has TLS.
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

    /// A socket that is being connected, and whose TLS handshake is still to come: see
    /// [`Socket::advance`].
    pub(crate) fn connecting(stream: TcpStream, tls: Option<Session>) -> Socket {
        Socket {
            is_connecting: true,
            writable: false,
            ..Socket::new(stream, tls)
        }
    }

    /// The stream alone, to be waited for.
    pub(crate) fn into_stream(self) -> std::net::TcpStream {
        self.stream.into()
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

    /// Goes on with connect and handshake; says whether both are done.
    ///
    /// # Errors
    /// It cannot be connected, or what the handshake came to.
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
                // The alert that says why, for the server's log.
                let _ = self.stream.write(session.output());
                return Err(io::Error::other(session.lost(&error)));
            }
        }
        self.write(b"")?;
        Ok(true)
    }

    /// What it means if nothing comes of the attempt to make it.
    pub(crate) fn silence(&self) -> String {
        match &self.tls {
            Some(session) if !self.is_connecting => session.silent(),
            Some(_) | None => "no answer to a connect".to_owned(),
        }
    }

    /// Reads, if epoll said that there is something. With TLS it reads on until something came out
    /// of it, so that after [`Received::Nothing`] only epoll can tell of more.
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

    /// Reads once, and hands ciphertext to TLS; `None` if nothing is there.
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
        // epoll(7): a short read of a stream means that it is drained, unless its end is there to
        // be read too.
        self.readable = count == scratch.len() || self.read_closed;
        if let Some(session) = &mut self.tls {
            session
                .receive(&scratch[..count])
                .map_err(io::Error::other)?;
        }
        Ok(Some(count))
    }

    /// Writes once, if the socket can take something; returns how much it took. With TLS it takes
    /// what is encrypted, and writes until the socket is full; what an earlier call left is written
    /// first.
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
