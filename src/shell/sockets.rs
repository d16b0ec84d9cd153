//! What the loop has for a [`Node`]: sockets, a resolver, a disk and a clock.
//!
//! A socket is registered with the poll once, for everything. What it can do is remembered in its
//! [`Transport`], and what can still be done at the end of a turn is on the next turn's list.

use std::net::SocketAddr;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Poll, Token};

use crate::core::base::clock::Now;
use crate::core::journal::durability::{DiskDone, DiskWork};
use crate::core::node::{ConnId, Io, Node, Wants};
use crate::shell::clock::Clock;
use crate::shell::disk::Disk;
use crate::shell::executor::Executor;
use crate::shell::look_up::LookedUp;
use crate::shell::transport::Transport;

const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);
/// What is asked of epoll for each connection.
#[cfg(any(target_os = "linux", target_os = "android"))]
const INTEREST: Interest = BOTH.add(Interest::PRIORITY);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const INTEREST: Interest = BOTH;

/// The sockets of all connections, and what else the server has of the system.
pub struct Sockets {
    pub(super) poll: Poll,
    pub(super) clock: Clock,
    transports: Vec<Option<Transport>>,
    /// Connections for the next turn.
    ready: Vec<ConnId>,
    pub(super) resolver: Executor<String, LookedUp>,
    /// The journal's files, if there is a data directory.
    pub(super) disk: Option<Disk>,
}

impl Sockets {
    /// No sockets yet, but room for as many as are `expected`.
    pub(super) fn new(
        poll: Poll,
        clock: Clock,
        resolver: Executor<String, LookedUp>,
        disk: Option<Disk>,
        expected: usize,
    ) -> Sockets {
        Sockets {
            poll,
            clock,
            transports: Vec::with_capacity(expected),
            ready: Vec::new(),
            resolver,
            disk,
        }
    }

    /// Takes a socket into the loop.
    ///
    /// # Errors
    /// The poll does not take it; in words. The socket is closed then.
    pub(super) fn adopt(&mut self, mut transport: Transport) -> Result<(), String> {
        let id = transport.id();
        let token = Token(id.to_u64() as usize);
        let registry = self.poll.registry();
        registry
            .register(transport.source(), token, INTEREST)
            .map_err(|error| error.to_string())?;
        if self.transports.len() <= id.index() {
            self.transports.resize_with(id.index() + 1, || None);
        }
        self.transports[id.index()] = Some(transport);
        Ok(())
    }

    /// Notes what the poll says of a connection. An event for one that is closed is for no
    /// connection, even if another one has its index now.
    pub(super) fn note(&mut self, id: ConnId, event: &Event) {
        if let Some(transport) = self.transport(id) {
            transport.note(event);
            self.queue(id);
        }
    }

    /// Puts a connection on the next turn's list.
    fn queue(&mut self, id: ConnId) {
        if self.transport(id).is_some_and(Transport::queue) {
            self.ready.push(id);
        }
    }

    /// Whether a connection is ready for the next turn.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Moves the list of this turn out: connections that become ready in it are for the next one.
    pub(super) fn take_ready(&mut self, running: &mut Vec<ConnId>) {
        match running.is_empty() {
            true => std::mem::swap(&mut self.ready, running),
            false => running.append(&mut self.ready),
        }
    }

    /// The socket of a connection that is there.
    pub(super) fn transport(&mut self, id: ConnId) -> Option<&mut Transport> {
        let transport = self.transports.get_mut(id.index())?.as_mut();
        transport.filter(|transport| transport.id() == id)
    }
}

impl Io for Sockets {
    fn now(&mut self) -> Now {
        self.clock.now()
    }

    fn connect(&mut self, id: ConnId, address: SocketAddr) -> Result<(), String> {
        let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        self.adopt(Transport::new(id, stream, true))
    }

    fn resolve(&mut self, host: &str) -> Result<(), String> {
        let begun = self.resolver.submit(host.to_owned());
        begun.map_err(|error| format!("no thread to look it up: {error}"))
    }

    fn perform(&mut self, _node: &Node, work: DiskWork) -> Option<DiskDone> {
        self.disk.as_mut()?.perform(work)
    }

    fn is_writable(&self, id: ConnId) -> bool {
        let transport = self.transports.get(id.index()).and_then(Option::as_ref);
        transport.is_some_and(|it| it.id() == id && it.is_writable())
    }

    fn write(&mut self, id: ConnId, bytes: &[u8]) -> Result<usize, String> {
        let Some(transport) = self.transport(id) else {
            return Ok(0);
        };
        transport.write(bytes).map_err(|error| error.to_string())
    }

    fn finish(&mut self, id: ConnId) {
        if let Some(transport) = self.transport(id) {
            transport.finish();
        }
    }

    fn close(&mut self, id: ConnId, _why: Option<&str>) {
        if let Some(place) = self.transports.get_mut(id.index())
            && place.as_ref().is_some_and(|it| it.id() == id)
        {
            *place = None;
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
    fn an_event_of_a_closed_connection_is_not_for_the_one_that_has_its_index_now() {
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
        let mut sockets = Sockets::new(poll, Clock::start(), resolver, None, 1);
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
