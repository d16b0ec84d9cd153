//! The [`Io`] of a [`Node`] in a real server (tests simulate it): sockets, a resolver, a disk and a
//! clock.
//!
//! Each socket is registered with the poll once, for reading and writing. Its [`Transport`]
//! remembers what the poll reported. At the end of a turn, a connection that still waits for input
//! or output is put on the list of the next turn if its socket is ready for that.

use std::net::SocketAddr;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Poll, Token};

use crate::core::base::clock::Now;
use crate::core::base::process_facts::ProcessFacts;
use crate::core::journal::durability::{DiskDone, DiskWork};
use crate::core::node::{ConnId, Io, Node, Wants};
use crate::core::session::connection_error::SocketError;
use crate::shell::clock::Clock;
use crate::shell::disk::Disk;
use crate::shell::executor::Executor;
use crate::shell::look_up::LookedUp;
use crate::shell::process::Process;
use crate::shell::stopwatch::Stopwatch;
use crate::shell::transport::Transport;

/// The number of bytes that this process keeps for each socket. The kernel's buffers are not
/// counted.
pub const SOCKET_BYTES: usize = size_of::<Option<Transport>>();

const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);
/// The readiness that epoll reports for each connection.
#[cfg(any(target_os = "linux", target_os = "android"))]
const INTEREST: Interest = BOTH.add(Interest::PRIORITY);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const INTEREST: Interest = BOTH;

/// The sockets of all connections, and the other system resources of the server.
pub struct Sockets {
    pub(super) poll: Poll,
    pub(super) clock: Clock,
    transports: Vec<Option<Transport>>,
    /// The connections to serve in the next turn.
    ready: Vec<ConnId>,
    pub(super) resolver: Executor<String, LookedUp>,
    /// The journal's files, if there is a data directory.
    pub(super) disk: Option<Disk>,
    /// The times of the present turn.
    pub(super) stopwatch: Stopwatch,
    pub(super) process: Process,
}

impl Sockets {
    /// Creates an empty collection with space for `expected` sockets. The process started at
    /// `started`, in nanoseconds since 1970.
    pub(super) fn new(
        poll: Poll,
        clock: Clock,
        resolver: Executor<String, LookedUp>,
        disk: Option<Disk>,
        expected: usize,
        started: u64,
    ) -> Sockets {
        Sockets {
            poll,
            clock,
            transports: Vec::with_capacity(expected),
            ready: Vec::new(),
            resolver,
            disk,
            stopwatch: Stopwatch::default(),
            process: Process::new(started),
        }
    }

    /// Registers a socket with the poll and stores it.
    ///
    /// # Errors
    /// The poll refuses the socket. The socket is closed.
    pub(super) fn adopt(&mut self, mut transport: Transport) -> Result<(), SocketError> {
        let id = transport.id();
        let token = Token(id.to_u64() as usize);
        let registry = self.poll.registry();
        registry.register(transport.source(), token, INTEREST)?;
        if self.transports.len() <= id.index() {
            self.transports.resize_with(id.index() + 1, || None);
        }
        self.transports[id.index()] = Some(transport);
        Ok(())
    }

    /// Remembers the readiness that the poll reports for a connection. An event for a closed
    /// connection is ignored, even if a new connection has the same index: the ids differ in their
    /// generation.
    pub(super) fn record_readiness(&mut self, id: ConnId, event: &Event) {
        if let Some(transport) = self.transport(id) {
            transport.record_readiness(event);
            self.queue(id);
        }
    }

    /// Puts a connection on the next turn's list, unless it is there already.
    fn queue(&mut self, id: ConnId) {
        if self.transport(id).is_some_and(Transport::queue) {
            self.ready.push(id);
        }
    }

    /// Whether any connection is on the next turn's list.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Moves the ready connections to the end of `running`, the connections that the present turn
    /// serves. A connection that becomes ready during the turn is served in the next one.
    pub(super) fn take_ready(&mut self, running: &mut Vec<ConnId>) {
        match running.is_empty() {
            true => std::mem::swap(&mut self.ready, running),
            false => running.append(&mut self.ready),
        }
    }

    /// Returns the socket of a connection, or `None` if the connection is closed.
    pub(super) fn transport(&mut self, id: ConnId) -> Option<&mut Transport> {
        let transport = self.transports.get_mut(id.index())?.as_mut();
        transport.filter(|transport| transport.id() == id)
    }
}

impl Io for Sockets {
    fn now(&mut self) -> Now {
        let now = self.clock.now();
        self.stopwatch.time_was_read(now.time);
        now
    }

    fn connect(&mut self, id: ConnId, address: SocketAddr) -> Result<(), SocketError> {
        self.adopt(Transport::new(id, TcpStream::connect(address)?, true))
    }

    fn resolve(&mut self, host: &str) -> Result<(), String> {
        let begun = self.resolver.submit(host.to_owned());
        begun.map_err(|error| format!("no thread to look it up: {error}"))
    }

    fn perform(&mut self, _node: &Node, work: DiskWork) -> Option<DiskDone> {
        let disk = self.disk.as_mut()?;
        let began = self.clock.time();
        let done = disk.perform(work);
        self.stopwatch.add_disk(self.clock.time().since(began));
        done
    }

    fn measure(&mut self, _node: &Node) -> ProcessFacts {
        self.process.facts()
    }

    fn is_writable(&self, id: ConnId) -> bool {
        let transport = self.transports.get(id.index()).and_then(Option::as_ref);
        transport.is_some_and(|it| it.id() == id && it.is_writable())
    }

    fn write(&mut self, id: ConnId, bytes: &[u8]) -> Result<usize, SocketError> {
        let Some(transport) = self.transport(id) else {
            return Ok(0);
        };
        Ok(transport.write(bytes)?)
    }

    fn finish(&mut self, id: ConnId) {
        if let Some(transport) = self.transport(id) {
            transport.finish();
        }
    }

    fn close(&mut self, id: ConnId, _why: Option<&SocketError>) {
        if let Some(slot) = self.transports.get_mut(id.index())
            && slot.as_ref().is_some_and(|it| it.id() == id)
        {
            *slot = None;
        }
    }

    fn flushed(&mut self, _node: &Node, id: ConnId, wants: Wants) {
        let is_readable = self.transport(id).is_some_and(|it| it.is_readable());
        if wants.write || wants.read && is_readable {
            self.queue(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_event_does_not_reach_the_reused_slot() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut slots = crate::core::base::slots::Slots::default();
        let before = slots.insert(());
        slots.remove(before);
        let now = slots.insert(());
        assert_eq!(before.index(), now.index());
        let poll = Poll::new().unwrap();
        let (report, _) = std::sync::mpsc::channel();
        let waker = mio::Waker::new(poll.registry(), Token(0)).unwrap().into();
        let look_up = crate::shell::look_up::look_up;
        let resolver = Executor::new("names", 1, waker, report, look_up);
        let mut sockets = Sockets::new(poll, Clock::start(), resolver, None, 1, 0);
        sockets.adopt(Transport::new(now, stream, true)).unwrap();
        assert!(sockets.transport(before).is_none());
        sockets.close(before, None);
        assert!(
            sockets
                .transport(now)
                .is_some_and(|found| found.id() == now)
        );
        sockets.close(now, None);
        assert!(sockets.transport(now).is_none());
    }
}
