//! The echo: a server that does nothing but answer. Against it the generator shows how fast it is itself.
//!
//! It answers as a herd's server would whose clock is the client's, `AT Echo +0.000000000 …`, so that the generator does all of its
//! checking; and it does less than any real server can.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use herd_testkit::failure::{Failure, system};
use memchr::memchr;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};

use crate::socket::{Received, Socket};
use crate::stop::Stop;

const DOOR: Token = Token(usize::MAX);
/// Bytes read from one connection in one turn.
const TURN_BYTES: usize = 256 * 1024;
/// A client that has so much to read is not read from.
const HIGH_BYTES: usize = 1024 * 1024;
/// Events taken from the system at once.
const EVENTS: usize = 1024;
/// The longest that a turn waits, so that signals are seen.
const PATIENCE: Duration = Duration::from_millis(100);

struct Client {
    socket: Socket,
    /// A line that has not come whole.
    tail: Vec<u8>,
    output: Vec<u8>,
    /// Its place is on the list of the next turn.
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

/// Answers until a signal comes; `ready` is told where.
pub(crate) fn run(
    listen: SocketAddr,
    ready: impl FnOnce(SocketAddr),
    stop: &Stop,
) -> Result<(), Failure> {
    let doing = format!("listen on {listen}");
    // Whatever the system allows: who is refused for the lack of a descriptor is told so.
    let _ = rlimit::increase_nofile_limit(rlimit::INFINITY);
    let mut listener = TcpListener::bind(listen).map_err(system(&doing))?;
    let poll = Poll::new().map_err(system("make an event loop"))?;
    poll.registry()
        .register(&mut listener, DOOR, Interest::READABLE)
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
            if event.token() == DOOR {
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
                // Whoever called is gone again.
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

    /// Reads once and writes once; a client that is gone is forgotten.
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
    /// Whether it may ask for more.
    fn has_room(&self) -> bool {
        self.output.len() < HIGH_BYTES
    }

    /// Says whether the client is still there.
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

/// Answers every whole line, and returns how many bytes those were.
fn answer(bytes: &[u8], output: &mut Vec<u8>) -> usize {
    let mut used = 0;
    while let Some(end) = memchr(b'\n', &bytes[used..]) {
        let line = &bytes[used..=used + end];
        match line.strip_prefix(b"IAMAT ") {
            Some(told) => {
                output.extend_from_slice(b"AT Echo +0.000000000 ");
                output.extend_from_slice(told);
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
