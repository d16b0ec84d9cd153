//! The echo server, which only answers. Against it, the generator shows its own speed.
//!
//! It answers `AT Echo +0.000000000 …`, like a herd's server with the client's clock. So the
//! generator does all of its checks, and the echo server does less work than any real server.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use herd_testkit::failure::{Failure, system};
use memchr::memchr;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};

use crate::socket::{Received, Socket};
use crate::stop::Stop;

const LISTENER: Token = Token(usize::MAX);
/// The number of bytes that one turn reads from one connection.
const TURN_BYTES: usize = 256 * 1024;
/// The server does not read from a client with this many unread answers, in bytes.
const HIGH_BYTES: usize = 1024 * 1024;
/// The greatest number of events in one turn.
const EVENTS: usize = 1024;
/// The longest wait of a turn, so that signals are noticed.
const PATIENCE: Duration = Duration::from_millis(100);

struct Client {
    socket: Socket,
    /// An incomplete line.
    tail: Vec<u8>,
    output: Vec<u8>,
    /// Whether it is on the list of the next turn.
    queued: bool,
}

struct Echo {
    poll: Poll,
    listener: TcpListener,
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    scratch: Box<[u8]>,
    /// Clients that have more to read.
    again: Vec<usize>,
}

/// Answers until a signal comes. `ready` gets the address.
pub(crate) fn run(
    listen: SocketAddr,
    ready: impl FnOnce(SocketAddr),
    stop: &Stop,
) -> Result<(), Failure> {
    let doing = format!("listen on {listen}");
    // This is only an attempt: if descriptors run out, the client reports its refused connection.
    let _ = rlimit::increase_nofile_limit(rlimit::INFINITY);
    let mut listener = TcpListener::bind(listen).map_err(system(&doing))?;
    let poll = Poll::new().map_err(system("make an event loop"))?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)
        .map_err(system(&doing))?;
    ready(listener.local_addr().map_err(system(&doing))?);
    let mut echo = Echo {
        poll,
        listener,
        clients: Vec::new(),
        free: Vec::new(),
        scratch: vec![0; TURN_BYTES].into(),
        again: Vec::new(),
    };
    let mut events = Events::with_capacity(EVENTS);
    while !stop.is_wanted() {
        let patience = if echo.again.is_empty() {
            PATIENCE
        } else {
            Duration::ZERO
        };
        match echo.poll.poll(&mut events, Some(patience)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(system("wait for clients")(error)),
        }
        let again = std::mem::take(&mut echo.again);
        for event in &events {
            if event.token() == LISTENER {
                echo.accept().map_err(system("accept a client"))?;
                continue;
            }
            let index = event.token().0;
            if let Some(client) = &mut echo.clients[index] {
                client.socket.note(event);
                echo.serve(index);
            }
        }
        for index in again {
            if let Some(client) = &mut echo.clients[index] {
                client.queued = false;
            }
            echo.serve(index);
        }
    }
    Ok(())
}

impl Echo {
    fn accept(&mut self) -> io::Result<()> {
        loop {
            let (stream, _) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The client has closed its connection already.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let mut socket = Socket::new(stream, None);
            let index = self.free.pop().unwrap_or(self.clients.len());
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(socket.source(), Token(index), interest)?;
            if index == self.clients.len() {
                self.clients.push(None);
            }
            self.clients[index] = Some(Client {
                socket,
                tail: Vec::new(),
                output: Vec::new(),
                queued: false,
            });
        }
    }

    /// Reads once and writes once. Removes a client that has closed its connection.
    fn serve(&mut self, index: usize) {
        let Some(client) = &mut self.clients[index] else {
            return;
        };
        let lives = client.turn(&mut self.scratch).unwrap_or(false);
        if !lives {
            self.clients[index] = None;
            self.free.push(index);
        } else if client.socket.is_readable() && client.has_room() && !client.queued {
            client.queued = true;
            self.again.push(index);
        }
    }
}

impl Client {
    /// Whether it may read more.
    fn has_room(&self) -> bool {
        self.output.len() < HIGH_BYTES
    }

    /// Returns whether the client is still connected.
    fn turn(&mut self, scratch: &mut [u8]) -> io::Result<bool> {
        let mut lives = true;
        if self.has_room() {
            match self.socket.read(scratch)? {
                Received::Bytes(bytes) => receive(&mut self.tail, &mut self.output, bytes),
                Received::Nothing => {}
                Received::End => lives = false,
            }
        }
        let written = self.socket.write(&self.output)?;
        if written == self.output.len() {
            self.output.clear();
        } else {
            self.output.drain(..written);
        }
        Ok(lives)
    }
}

fn receive(tail: &mut Vec<u8>, output: &mut Vec<u8>, bytes: &[u8]) {
    if tail.is_empty() {
        let used = answer(bytes, output);
        tail.extend_from_slice(&bytes[used..]);
    } else {
        tail.extend_from_slice(bytes);
        let used = answer(tail, output);
        tail.drain(..used);
    }
}

/// Answers every complete line, and returns the number of bytes in them.
fn answer(bytes: &[u8], output: &mut Vec<u8>) -> usize {
    let mut used = 0;
    while let Some(end) = memchr(b'\n', &bytes[used..]) {
        let line = &bytes[used..=used + end];
        match line.strip_prefix(b"IAMAT ") {
            Some(arguments) => {
                output.extend_from_slice(b"AT Echo +0.000000000 ");
                output.extend_from_slice(arguments);
            }
            None => {
                output.extend_from_slice(b"? ");
                output.extend_from_slice(line);
            }
        }
        used += line.len();
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_echo_answers_only_whole_lines() {
        let mut output = Vec::new();
        let used = answer(b"IAMAT a +1+2 3\nWHATSAT a 10 5\nIAMAT b", &mut output);
        assert_eq!(used, "IAMAT a +1+2 3\nWHATSAT a 10 5\n".len());
        assert_eq!(output, b"AT Echo +0.000000000 a +1+2 3\n? WHATSAT a 10 5\n");
    }
}
