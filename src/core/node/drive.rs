//! The driver: the order of a turn, for real sockets and for simulated ones.
//!
//! ```text
//!   deadlines ─► requests ─► disk work ─► each dirty connection: write, obey its disposition ─┐
//!                   ▲                                                                         │
//!                   └──────────── until a round finds no connection dirty ────────────────────┘
//! ```

use std::net::SocketAddr;

use super::{ConnId, Node, Request};
use crate::core::base::clock::Now;
use crate::core::base::process_facts::ProcessFacts;
use crate::core::journal::durability::{DiskDone, DiskWork};
use crate::core::session::connection_error::SocketError;
use crate::core::session::disposition::Disposition;

/// What a [`Node`] needs from outside: sockets, a resolver, a disk and a clock.
///
/// The event loop (`src/shell`) implements this trait with the operating system. The simulator,
/// fuzz targets and benchmarks have simulated implementations. A method with a `&Node` argument may
/// use only the getters of [`Node`]. A connection that the server dialled has a socket from
/// `connect` until `close`. An accepted connection has a socket from the start until `close`.
pub trait Io {
    /// Returns the present time.
    fn now(&mut self) -> Now;

    /// Starts to connect. The result is a later event.
    ///
    /// # Errors
    /// If connecting cannot start: the error of the system. Then there is no socket.
    fn connect(&mut self, id: ConnId, address: SocketAddr) -> Result<(), SocketError>;

    /// Starts to look up a name. The result is a later event.
    ///
    /// # Errors
    /// If the look-up cannot start: the reason, in words.
    fn resolve(&mut self, host: &str) -> Result<(), String>;

    /// Starts a piece of disk work. Returns the result if the work is finished at once; otherwise,
    /// the result is a later event.
    fn perform(&mut self, node: &Node, work: DiskWork) -> Option<DiskDone>;

    /// Returns facts about the process. A simulated server has no process of its own, so it uses
    /// the default values.
    fn measure(&mut self, _node: &Node) -> ProcessFacts {
        ProcessFacts::default()
    }

    /// Whether the socket may accept bytes. Output is taken from the session only in this case.
    fn is_writable(&self, id: ConnId) -> bool;

    /// Writes once. Returns the number of bytes that the socket accepted, possibly 0.
    ///
    /// # Errors
    /// If the connection is broken: the error of the system.
    fn write(&mut self, id: ConnId, bytes: &[u8]) -> Result<usize, SocketError>;

    /// Shuts down the writing side of the socket. Does nothing if the writing side is already shut
    /// down.
    fn finish(&mut self, id: ConnId);

    /// Closes the socket. `why` is the system's error, or `None` if the core decided to close the
    /// connection.
    fn close(&mut self, id: ConnId, why: Option<&SocketError>);

    /// The connection is flushed for this turn, and stays open. `wants` says what the connection
    /// can do next. If the socket is already ready for that, the connection is served again in the
    /// next turn.
    fn flushed(&mut self, node: &Node, id: ConnId, wants: Wants);

    /// Whether the turn ends here, between two steps. The simulator crashes servers at such points.
    /// The steps that are left run in the next turn.
    fn is_interrupted(&mut self) -> bool {
        false
    }
}

/// What a connection can do next, after it was flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    /// The connection takes input.
    pub read: bool,
    /// Output is left, and the socket may accept it. `false` if the socket is full: then the next
    /// writable event is awaited.
    pub write: bool,
}

/// Ends a turn: handles the deadlines that were due at `began`, then repeats requests, disk work
/// and flushes until nothing is left. Before this, the caller passes the events of the turn to the
/// server.
///
/// `began` is a time before the events of the turn were read. So bytes that arrived before their
/// deadline are handled before that deadline, even if this process did not run for a while.
pub fn drive(node: &mut Node, io: &mut impl Io, began: Now) {
    node.handle_deadlines(began);
    let now = io.now();
    loop {
        perform_requests(node, io, now);
        perform_disk_work(node, io, now);
        // After a failure of the disk, no output is sent: the disk may have lost records that the
        // output promises.
        if node.failure().is_some() || io.is_interrupted() {
            return;
        }
        let mut is_idle = true;
        while let Some(id) = node.poll_dirty() {
            is_idle = false;
            flush(node, io, id, now);
        }
        if is_idle {
            return;
        }
    }
}

fn perform_requests(node: &mut Node, io: &mut impl Io, now: Now) {
    while let Some(request) = node.poll_request() {
        match request {
            Request::Connect { id, address } => {
                if let Err(why) = io.connect(id, address) {
                    node.handle_connection_lost(id, Some(&why), now);
                }
            }
            Request::Measure { id } => {
                let facts = io.measure(node);
                node.handle_measured(id, &facts, now);
            }
            Request::Resolve { host } => {
                if let Err(why) = io.resolve(&host) {
                    node.handle_resolved(&host, Err(why), now);
                }
            }
        }
    }
}

/// Starts all disk work that is due. While the server starts or ends, the event loop calls this
/// function instead of [`drive`].
pub fn perform_disk_work(node: &mut Node, io: &mut impl Io, now: Now) {
    while let Some(work) = node.poll_disk_work(now) {
        if let Some(done) = io.perform(node, work) {
            node.handle_disk_done(done, now);
        }
        if io.is_interrupted() {
            return;
        }
    }
}

/// Handles one connection in a turn: writes its output once, then acts on its disposition.
fn flush(node: &mut Node, io: &mut impl Io, id: ConnId, now: Now) {
    if io.is_writable(id) {
        let output = node.poll_output(id);
        if !output.is_empty() {
            match io.write(id, output) {
                Ok(count) => node.handle_output_sent(id, count, now),
                Err(why) => return close_connection(node, io, id, Some(&why), now),
            }
        }
    }
    match node.poll_disposition(id, now) {
        Disposition::Open => {}
        Disposition::Finish => io.finish(id),
        Disposition::Close => return close_connection(node, io, id, None, now),
    }
    let wants = Wants {
        read: node.wants_read(id),
        write: io.is_writable(id) && !node.poll_output(id).is_empty(),
    };
    io.flushed(node, id, wants);
    if wants.write {
        node.handle_flushed(id, now); // the output has grown since it was counted
    }
}

/// Closes the socket of a connection, then reports the loss to the node, which removes the session.
fn close_connection(
    node: &mut Node,
    io: &mut impl Io,
    id: ConnId,
    why: Option<&SocketError>,
    now: Now,
) {
    io.close(id, why);
    node.handle_connection_lost(id, why, now);
}
