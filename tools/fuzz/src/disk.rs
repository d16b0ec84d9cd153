//! What a server under test has around it: a disk that does at once what it is asked for, and sockets
//! that take nothing unless the test takes it.

use std::net::SocketAddr;

use herd_mio::core::base::clock::Now;
use herd_mio::core::journal::durability::{DiskDone, DiskWork};
use herd_mio::core::node::{ConnId, Io, Node, Wants, drive};
use herd_mio::core::session::connection_error::SocketError;
use herd_testkit::fake_disk::FakeDisk;
use herd_testkit::rng::Rng;

use crate::server;

/// An empty one, with endless room.
pub(crate) fn new() -> FakeDisk {
    FakeDisk::new(server::NAME, Rng::new(0, "disk"))
}

/// What one turn has around it, and what came of it.
pub(crate) struct Outside<'a> {
    disk: Option<&'a mut FakeDisk>,
    now: Now,
    /// Connections that are to be made.
    pub(crate) dialled: Vec<ConnId>,
    /// Connections that the server closed.
    pub(crate) closed: Vec<ConnId>,
}

/// Ends a turn, with all that the disk is asked for in it.
pub(crate) fn turn<'a>(node: &mut Node, disk: Option<&'a mut FakeDisk>, now: Now) -> Outside<'a> {
    let mut outside = Outside {
        disk,
        now,
        dialled: Vec::new(),
        closed: Vec::new(),
    };
    loop {
        drive(node, &mut outside, now);
        let Some(disk) = &mut outside.disk else {
            return outside;
        };
        disk.do_all();
        if disk.is_idle() {
            return outside;
        }
        while let Some(done) = disk.finished() {
            node.handle_disk_done(done, now);
        }
    }
}

impl Io for Outside<'_> {
    fn now(&mut self) -> Now {
        self.now
    }

    fn connect(&mut self, id: ConnId, _address: SocketAddr) -> Result<(), SocketError> {
        self.dialled.push(id);
        Ok(())
    }

    fn resolve(&mut self, host: &str) -> Result<(), String> {
        panic!("{host} is looked up, but addresses are given by number");
    }

    fn perform(&mut self, _node: &Node, work: DiskWork) -> Option<DiskDone> {
        self.disk.as_mut()?.submit(work);
        None
    }

    fn is_writable(&self, _id: ConnId) -> bool {
        false
    }

    fn write(&mut self, _id: ConnId, _bytes: &[u8]) -> Result<usize, SocketError> {
        Ok(0)
    }

    fn finish(&mut self, _id: ConnId) {}

    fn close(&mut self, id: ConnId, _why: Option<&SocketError>) {
        self.closed.push(id);
    }

    fn flushed(&mut self, _node: &Node, _id: ConnId, _wants: Wants) {}
}
