//! The one driver: the order of a turn, for real sockets and for simulated ones.
//!
//! ```text
//!   deadlines ─► requests ─► disk work ─► each dirty connection: write, obey its disposition ─┐
//!                   ▲                                                                         │
//!                   └──────────── until a round finds no connection dirty ────────────────────┘
//! ```

use std::net::SocketAddr;

use super::{ConnId, Node, Request};
use crate::core::base::clock::Now;
use crate::core::journal::durability::{DiskDone, DiskWork};
use crate::core::session::disposition::Disposition;

/// What a [`Node`] needs of the world: sockets, a resolver, a disk and a clock.
///
/// The shell has real ones. Simulator, fuzz targets and benchmarks have others. Where a method is
/// given the node, it is for its getters.
/// A connection's socket exists from `connect`, or from its acceptance, until `close`.
pub trait Io {
    /// The time now.
    fn now(&mut self) -> Now;

    /// Begins to connect. The end of that is an event of its own.
    ///
    /// # Errors
    /// Why it cannot even begin, in words; there is no socket then.
    fn connect(&mut self, id: ConnId, address: SocketAddr) -> Result<(), String>;

    /// Begins to look a name up. The end of that is an event of its own.
    ///
    /// # Errors
    /// Why it cannot even begin, in words.
    fn resolve(&mut self, host: &str) -> Result<(), String>;

    /// Begins a piece of disk work. What is done at once is returned; the rest is an event later.
    fn perform(&mut self, node: &Node, work: DiskWork) -> Option<DiskDone>;

    /// Whether a write may take something. Output is pulled only then.
    fn is_writable(&self, id: ConnId) -> bool;

    /// Writes once. Returns how many bytes the socket took, which may be none.
    ///
    /// # Errors
    /// Why the connection is broken, in words.
    fn write(&mut self, id: ConnId, bytes: &[u8]) -> Result<usize, String>;

    /// Shuts down the writing side, if it is not shut down yet.
    fn finish(&mut self, id: ConnId);

    /// Closes the socket. `why` is given if the socket is broken, not if the core wants it closed.
    fn close(&mut self, id: ConnId, why: Option<&str>);

    /// The connection's part of the turn is over, and it stays open. Whatever it `wants` and is
    /// possible already is for the next turn.
    fn flushed(&mut self, node: &Node, id: ConnId, wants: Wants);

    /// Whether the turn ends here, between two steps. A simulator crashes servers at such points.
    /// What is left undone is the next turn's.
    fn is_interrupted(&mut self) -> bool {
        false
    }
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    /// Input.
    pub read: bool,
    /// Output is left, and the socket may take it.
    pub write: bool,
}

/// Ends a turn: acts on the deadlines that were due when it `began`, and does what the server wants
/// done until nothing is left. What happened in the turn was handed to the server before.
///
/// `began` is a time before the turn's events were read. So a peer whose bytes had arrived by then
/// is heard before its deadline is looked at, even if this process was not run for a while.
pub fn drive(node: &mut Node, io: &mut impl Io, began: Now) {
    node.handle_deadlines(began);
    let now = io.now();
    loop {
        perform_requests(node, io, now);
        perform_disk_work(node, io, now);
        // After a failure nothing leaves any more: the disk may have lost what it rests on.
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
            Request::Resolve { host } => {
                if let Err(why) = io.resolve(&host) {
                    node.handle_resolved(&host, Err(why), now);
                }
            }
        }
    }
}

/// Begins the disk work that there is. A server that starts or ends does this without [`drive`].
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

/// One connection's part of a turn: writes its output, once, then obeys its disposition.
fn flush(node: &mut Node, io: &mut impl Io, id: ConnId, now: Now) {
    if io.is_writable(id) {
        let output = node.poll_output(id);
        if !output.is_empty() {
            match io.write(id, output) {
                Ok(count) => node.handle_output_sent(id, count, now),
                Err(why) => return lose(node, io, id, Some(&why), now),
            }
        }
    }
    match node.poll_disposition(id, now) {
        Disposition::Open => {}
        Disposition::Finish => io.finish(id),
        Disposition::Close => return lose(node, io, id, None, now),
    }
    let wants = Wants {
        read: node.wants_read(id),
        write: io.is_writable(id) && !node.poll_output(id).is_empty(),
    };
    io.flushed(node, id, wants);
}

/// The one end of a connection: its socket closes, its session hears of it.
fn lose(node: &mut Node, io: &mut impl Io, id: ConnId, why: Option<&str>, now: Now) {
    io.close(id, why);
    node.handle_connection_lost(id, why, now);
}
