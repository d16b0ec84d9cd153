//! What the process has of the system: sockets, a resolver, and a disk.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use herd_mio::core::base::clock::Now;
use herd_mio::core::base::limits::{LINE_BYTES, LINK_LINE_BYTES, Limits, TURN_BYTES};
use herd_mio::core::journal::durability::{DiskDone, DiskWork};
use herd_mio::core::node::{ConnId, Io, Node, Wants};
use herd_mio::core::session::connection_error::SocketError;
use herd_testkit::fake_disk::FakeDisk;

use super::http::Visitor;
use super::mobile::Mobile;
use super::neighbour::{DIALLED, NAMES, Talk};
use super::places::Origin;
use super::tls::Shield;
use crate::server;

/// A turn looks at its connections anew at most so often.
const MOST_ROUNDS: u32 = 10_000;

/// Who is at the other end.
pub(crate) enum Peer {
    Mobile(Mobile),
    Neighbour(Talk),
    Origin(Origin),
    Visitor(Visitor),
}

/// A socket of the process.
pub(crate) struct Socket {
    pub(crate) id: ConnId,
    pub(crate) peer: Peer,
    /// Where it comes from.
    pub(super) address: SocketAddr,
    /// TLS, at the other end.
    pub(super) shield: Option<Box<Shield>>,
    /// What has arrived, and was not read.
    pub(crate) arrived: VecDeque<u8>,
    pub(crate) has_fin: bool,
    pub(crate) is_reset: bool,
    /// How much the socket takes.
    pub(crate) room: usize,
    /// Not connected yet.
    pub(crate) is_connecting: bool,
    /// A write may take something: true until one took less than it was given.
    is_writable: bool,
    pub(super) is_finished: bool,
    /// The end of the stream was handed over.
    pub(super) has_ended: bool,
    /// It is on the next turn's list.
    pub(super) is_queued: bool,
}

impl Socket {
    /// The other end says something.
    pub(crate) fn says(&mut self, bytes: &[u8], ms: u64) {
        match &mut self.shield {
            Some(shield) => {
                self.arrived.extend(shield.seal(bytes));
                // When the server gets at it cannot be seen from outside.
                if let Peer::Mobile(mobile) = &mut self.peer {
                    mobile.says(bytes, ms);
                }
            }
            None => self.arrived.extend(bytes),
        }
    }

    /// Bytes from outside come in, whatever is spoken there.
    pub(crate) fn disturb(&mut self, bytes: &[u8]) {
        self.arrived.extend(bytes);
        if let (Peer::Mobile(mobile), Some(_)) = (&mut self.peer, &self.shield) {
            mobile.give_up();
        }
        if let Peer::Visitor(visitor) = &mut self.peer {
            visitor.is_disturbed();
        }
    }

    /// The other end says no more; in TLS too, if it is polite.
    pub(crate) fn ends(&mut self, is_polite: bool) {
        self.has_fin = true;
        if let Peer::Visitor(visitor) = &mut self.peer {
            visitor.ends();
        }
        if let Some(shield) = &mut self.shield {
            if is_polite {
                self.arrived.extend(shield.close());
            }
            if let Peer::Mobile(mobile) = &mut self.peer {
                mobile.ends();
            }
        }
    }

    pub(super) fn may_write(&self) -> bool {
        self.is_writable && !self.is_connecting && !self.is_finished
    }

    pub(super) fn is_readable(&self) -> bool {
        let has_end = self.has_fin && !self.has_ended;
        !self.is_connecting && (!self.arrived.is_empty() || has_end || self.is_reset)
    }
}

/// Sockets, a resolver, and a disk.
pub(crate) struct Outside {
    pub(super) now: Now,
    pub(crate) disk: Option<FakeDisk>,
    pub(crate) sockets: BTreeMap<usize, Socket>,
    pub(super) ready: Vec<ConnId>,
    pub(crate) look_ups: VecDeque<String>,
    speaks_tls: bool,
    limits: Limits,
    /// What was written in this turn and has not arrived yet.
    pub(super) written: Vec<(ConnId, Vec<u8>)>,
    /// Sockets that were closed in this turn.
    pub(super) closed: Vec<Socket>,
    rounds: u32,
}

impl Outside {
    pub(super) fn new(disk: Option<FakeDisk>, limits: Limits, speaks_tls: bool) -> Outside {
        Outside {
            now: server::at(0),
            disk,
            sockets: BTreeMap::new(),
            ready: Vec::new(),
            look_ups: VecDeque::new(),
            speaks_tls,
            limits,
            written: Vec::new(),
            closed: Vec::new(),
            rounds: 0,
        }
    }

    /// A process has ended, and another begins with the same disk.
    pub(super) fn restart(&mut self) {
        self.sockets.clear();
        self.ready.clear();
        self.look_ups.clear();
        self.written.clear();
        self.closed.clear();
    }

    /// A turn begins.
    pub(super) fn turn_begins(&mut self, now: Now) {
        self.now = now;
        self.rounds = 0;
    }

    pub(super) fn adopt(
        &mut self,
        id: ConnId,
        peer: Peer,
        address: SocketAddr,
        shield: Option<Shield>,
        is_connecting: bool,
    ) {
        let socket = Socket {
            id,
            peer,
            address,
            shield: shield.map(Box::new),
            arrived: VecDeque::new(),
            has_fin: false,
            is_reset: false,
            room: 1 << 20,
            is_connecting,
            is_writable: !is_connecting,
            is_finished: false,
            has_ended: false,
            is_queued: false,
        };
        let old = self.sockets.insert(id.index(), socket);
        assert!(old.is_none(), "two connections have one place");
        self.notice(id.index());
    }

    /// Something happened to a socket: what epoll would tell.
    pub(crate) fn notice(&mut self, place: usize) {
        if let Some(socket) = self.sockets.get_mut(&place) {
            socket.is_writable |= socket.room > 0 && !socket.is_connecting;
            if !std::mem::replace(&mut socket.is_queued, true) {
                self.ready.push(socket.id);
            }
        }
    }

    /// There is something to be read, or to be written still.
    pub(super) fn notice_read(&mut self, place: usize) {
        if let Some(socket) = self.sockets.get_mut(&place)
            && !std::mem::replace(&mut socket.is_queued, true)
        {
            self.ready.push(socket.id);
        }
    }

    /// The most that may wait for a connection.
    fn most_output(&self, peer: &Peer) -> usize {
        let limits = &self.limits;
        // What TLS adds to that: a record, or the handshake.
        TURN_BYTES / 4
            + match peer {
                // Below the mark, one more command is answered.
                Peer::Mobile(_) => {
                    let one = LINK_LINE_BYTES + limits.places_body_bytes as usize + LINE_BYTES;
                    limits.output_high_bytes as usize + one
                }
                Peer::Neighbour(_) => TURN_BYTES + 2 * LINK_LINE_BYTES,
                Peer::Origin(_) => TURN_BYTES,
                // Below the mark, one more request is answered.
                Peer::Visitor(_) => limits.http_output_bytes as usize + TURN_BYTES,
            }
    }

    fn socket(&mut self, id: ConnId) -> Option<&mut Socket> {
        let socket = self.sockets.get_mut(&id.index())?;
        assert_eq!(socket.id, id, "of those who are there");
        Some(socket)
    }
}

impl Io for Outside {
    fn now(&mut self) -> Now {
        self.now
    }

    fn connect(&mut self, id: ConnId, address: SocketAddr) -> Result<(), SocketError> {
        let (peer, shield) = if address.port() == 443 {
            (Peer::Origin(Origin::default()), Some(Shield::places()))
        } else {
            let (talk, _) = Talk::new(DIALLED, true);
            let shield = self
                .speaks_tls
                .then(|| Shield::neighbour(NAMES[DIALLED], true));
            (Peer::Neighbour(talk), shield)
        };
        self.adopt(id, peer, address, shield, true);
        Ok(())
    }

    fn resolve(&mut self, host: &str) -> Result<(), String> {
        self.look_ups.push_back(host.to_owned());
        Ok(())
    }

    fn perform(&mut self, _node: &Node, work: DiskWork) -> Option<DiskDone> {
        self.disk.as_mut()?.submit(work);
        None
    }

    fn is_writable(&self, id: ConnId) -> bool {
        let socket = self.sockets.get(&id.index());
        socket.is_some_and(Socket::may_write)
    }

    fn write(&mut self, id: ConnId, output: &[u8]) -> Result<usize, SocketError> {
        let most = self
            .sockets
            .get(&id.index())
            .map(|it| self.most_output(&it.peer));
        let waiting = output.len();
        assert!(Some(waiting) <= most, "{waiting} bytes");
        let Some(socket) = self.socket(id) else {
            return Ok(0);
        };
        let count = waiting.min(socket.room);
        socket.room -= count;
        socket.is_writable = count == waiting;
        self.written.push((id, output[..count].to_vec()));
        Ok(count)
    }

    fn finish(&mut self, id: ConnId) {
        if let Some(socket) = self.socket(id) {
            socket.is_finished = true;
        }
    }

    fn close(&mut self, id: ConnId, _why: Option<&SocketError>) {
        let closed = self.sockets.remove(&id.index());
        self.closed.extend(closed);
    }

    fn flushed(&mut self, _node: &Node, id: ConnId, wants: Wants) {
        let is_readable = self.socket(id).is_some_and(|socket| socket.is_readable());
        if wants.write || wants.read && is_readable {
            self.notice_read(id.index());
        }
    }

    fn is_interrupted(&mut self) -> bool {
        self.rounds += 1;
        assert!(self.rounds < MOST_ROUNDS, "a turn without an end");
        false
    }
}
