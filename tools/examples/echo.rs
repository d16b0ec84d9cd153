//! Tutorial 1: an echo server on the parts of the shell.
//!
//! It shows four habits of this loop. Sockets are registered once, and the loop remembers their
//! readiness. Ids of connections are never used again. A turn handles the connections that were
//! ready when it began, and reads each of them once. Whether a connection is read is derived from
//! its state: with too much unwritten output it is not read.
//!
//! ```text
//!   poll ─► note what is ready ─► accept ─► each ready connection: read ─► output ─► write
//! ```
//!
//! Run it with `cargo run --example echo`, and talk to it with `nc 127.0.0.1 PORT`.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use herd_mio::core::base::slots::{Id, Slots};
use herd_mio::core::session::buffer::Buffer;
use herd_mio::shell::transport::{Received, Transport};
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);
/// Output above which a connection is not read.
const HIGH_BYTES: usize = 64 * 1024;

/// One connection. Its only state is the unwritten output and whether the input has ended.
struct Echo {
    transport: Transport,
    output: Buffer,
    has_ended: bool,
}

impl Echo {
    /// Derived, not a stored flag. It takes the place of asyncio's `pause_reading` and
    /// `resume_reading`.
    fn wants_read(&self) -> bool {
        !self.has_ended && self.output.len() < HIGH_BYTES
    }

    /// Whether there is something to read or to write.
    fn is_ready(&self) -> bool {
        self.wants_read() && self.transport.is_readable()
            || !self.output.is_empty() && self.transport.is_writable()
    }

    /// Reads once, writes once. Returns whether the connection stays open.
    fn turn(&mut self, scratch: &mut [u8]) -> io::Result<bool> {
        if self.wants_read() && self.transport.is_readable() {
            match self.transport.read(scratch)? {
                Received::Bytes(count) => self.output.extend(&scratch[..count]),
                Received::End => self.has_ended = true,
                Received::Nothing => {}
            }
        }
        if !self.output.is_empty() && self.transport.is_writable() {
            let count = self.transport.write(self.output.as_slice())?;
            self.output.consume(count);
        }
        // Half-close is normal: what came before the end is still echoed.
        Ok(!self.has_ended || !self.output.is_empty())
    }
}

/// The server.
pub(crate) struct Server {
    poll: Poll,
    listener: TcpListener,
    connections: Slots<Echo>,
    /// Connections for the next turn.
    ready: Vec<Id>,
    scratch: Vec<u8>,
}

impl Server {
    /// Opens the port. With 0 the system chooses one.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Server> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(address)?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Server {
            poll,
            listener,
            connections: Slots::default(),
            ready: Vec::new(),
            scratch: vec![0; 16 * 1024],
        })
    }

    /// The address of the listener.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// One turn of the loop, which waits for at most `timeout`.
    pub(crate) fn turn(
        &mut self,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let timeout = match self.ready.is_empty() {
            true => timeout,
            false => Some(Duration::ZERO),
        };
        self.poll.poll(events, timeout)?;
        for event in &*events {
            if event.token() == LISTENER {
                self.accept()?;
                continue;
            }
            // A late event of a closed connection finds nothing: its id has an old generation, even
            // if the slot is used again.
            let id = Id::from_u64(event.token().0 as u64);
            if let Some(echo) = self.connections.get_mut(id) {
                echo.transport.record_readiness(event);
                if echo.transport.queue() {
                    self.ready.push(id);
                }
            }
        }
        for id in std::mem::take(&mut self.ready) {
            self.run(id);
        }
        Ok(())
    }

    /// Accepts all waiting connections: the listener is edge-triggered, so no other event would
    /// report the rest.
    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let id = self.connections.insert_with(|id| Echo {
                transport: Transport::new(id, stream, false),
                output: Buffer::default(),
                has_ended: false,
            });
            if let Some(echo) = self.connections.get_mut(id) {
                let token = Token(id.to_u64() as usize);
                let both = Interest::READABLE | Interest::WRITABLE;
                self.poll
                    .registry()
                    .register(echo.transport.source(), token, both)?;
            }
        }
    }

    fn run(&mut self, id: Id) {
        let Some(echo) = self.connections.get_mut(id) else {
            return;
        };
        echo.transport.unqueue();
        match echo.turn(&mut self.scratch) {
            Ok(true) => {
                if echo.is_ready() && echo.transport.queue() {
                    self.ready.push(id);
                }
            }
            // Dropping the transport closes the socket.
            Ok(false) | Err(_) => {
                self.connections.remove(id);
            }
        }
    }
}

fn main() -> io::Result<()> {
    let mut server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    println!("echo: listening on {}", server.address()?);
    let mut events = Events::with_capacity(64);
    loop {
        server.turn(&mut events, None)?;
    }
}
