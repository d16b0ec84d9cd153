//! A disk that does at once what it is asked for: the journal's two files, in memory.

use herd_mio::core::clock::Now;
use herd_mio::core::durability::{DiskDone, DiskWork, Which};
use herd_mio::core::node::Node;

/// The files.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) journal: Vec<u8>,
    pub(crate) next: Vec<u8>,
}

impl Disk {
    /// Does all that the node wants done.
    pub(crate) fn work(&mut self, node: &mut Node, now: Now) {
        while let Some(work) = node.next_disk_work(now) {
            let done = match work {
                DiskWork::Append {
                    file,
                    offset,
                    bytes,
                } => {
                    self.append(file, offset, &bytes);
                    DiskDone::Appended {
                        file,
                        bytes,
                        outcome: Ok(()),
                    }
                }
                DiskWork::Reserve { file, .. } => DiskDone::Reserved(file, Ok(())),
                DiskWork::Sync { .. } => DiskDone::Synced(Ok(())),
                DiskWork::Create => {
                    self.next.clear();
                    DiskDone::Created(Ok(()))
                }
                DiskWork::Switch => {
                    self.switch();
                    DiskDone::Switched(Ok(()))
                }
                DiskWork::Discard => continue,
            };
            node.disk_done(done, now);
        }
    }

    /// Writes into one of the files, where it ends or, again, over what was written before.
    pub(crate) fn append(&mut self, file: Which, offset: u64, bytes: &[u8]) {
        let file = match file {
            Which::Current => &mut self.journal,
            Which::Next => &mut self.next,
        };
        let offset = offset as usize;
        assert!(offset <= file.len(), "a hole in the journal");
        file.truncate(offset);
        file.extend_from_slice(bytes);
    }

    /// The next file becomes the journal.
    pub(crate) fn switch(&mut self) {
        self.journal = std::mem::take(&mut self.next);
    }
}
