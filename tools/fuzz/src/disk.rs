//! A disk that does at once what it is asked for.

use herd_mio::core::clock::Now;
use herd_mio::core::node::Node;
use herd_testkit::fake_disk::FakeDisk;
use herd_testkit::rng::Rng;

use crate::server;

/// An empty one, with endless room.
pub(crate) fn new() -> FakeDisk {
    FakeDisk::new(server::NAME, Rng::new(0, "disk"))
}

/// Does all that the node wants done, and what it wants done after that.
pub(crate) fn work(disk: &mut FakeDisk, node: &mut Node, now: Now) {
    loop {
        while let Some(work) = node.next_disk_work(now) {
            disk.submit(work);
        }
        disk.do_all();
        if disk.is_idle() {
            return;
        }
        while let Some(done) = disk.finished() {
            node.disk_done(done, now);
        }
    }
}
