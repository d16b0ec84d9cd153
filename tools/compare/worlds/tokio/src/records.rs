//! The table of records, and the feed of its changes.
//!
//! Each client has one record: the `AT` line of its latest position, as the answering server wrote
//! it. An accepted change takes the next sequence number and is appended to the feed. A link is
//! only a position in the feed, however old it is. Entries that a later change has replaced are
//! skipped. They are removed when the feed is more than twice as long as the table, with a margin.

use std::cmp::Ordering;
use std::collections::HashMap;

use bytes::BytesMut;

use crate::time::{Order, PosixTime};

/// The margin: a feed with fewer entries is never cleaned.
const SWEEP_FROM: usize = 1024;

/// The origin of a record: a neighbour in one life of its process, or an own client. A record is
/// not sent back to its origin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Teacher(pub(crate) u64);

impl Teacher {
    /// The origin of records from own clients.
    pub(crate) const NOBODY: Teacher = Teacher(0);
}

struct Record {
    /// The line without its LF.
    line: Vec<u8>,
    order: Order,
    seq: u64,
    teacher: Teacher,
}

/// The table and its feed.
#[derive(Default)]
pub(crate) struct Records {
    by_client: HashMap<Box<[u8]>, usize>,
    records: Vec<Record>,
    /// Ascending sequence numbers, each with the index of its record.
    feed: Vec<(u64, usize)>,
    last_seq: u64,
    digest: u64,
    pub(crate) counts: Counts,
}

/// Counts of records from own clients.
#[derive(Default)]
pub(crate) struct Counts {
    /// Records that changed nothing.
    pub(crate) stale: u64,
    /// Records with a stamp more than a minute ahead of the server's clock.
    pub(crate) ahead: u64,
    /// Records with a stamp more than a minute behind it.
    pub(crate) behind: u64,
}

/// The hash of a line, for the digest. All servers of a herd use this hash: eight bytes
/// (little-endian) at a time.
fn hash_of(line: &[u8]) -> u64 {
    let mix = |hash: u64, word: [u8; 8]| {
        let hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^ hash >> 32
    };
    let (words, rest) = line.as_chunks::<8>();
    let hash = words.iter().copied().fold(line.len() as u64, mix);
    if rest.is_empty() {
        return hash;
    }
    let mut last = [0; 8]; // padded with zeros
    last[..rest.len()].copy_from_slice(rest);
    mix(hash, last)
}

impl Records {
    /// The number of clients with a record.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// The sum of the hashes of all lines. Equal tables have equal digests.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// The sequence number of the latest change, or 0 before the first.
    pub(crate) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// The `AT` line of a client, without its LF.
    pub(crate) fn line(&self, client: &[u8]) -> Option<&[u8]> {
        let &place = self.by_client.get(client)?;
        Some(&self.records[place].line)
    }

    /// Takes a record of an own client with this receipt time, if it wins. Returns whether it did.
    /// If it would lose only because of another server's wrong clock, it gets the next epoch, and
    /// wins everywhere.
    pub(crate) fn update(
        &mut self,
        line: &[u8],
        client: &[u8],
        mut order: Order,
        receipt: PosixTime,
    ) -> bool {
        match order.lead(receipt) {
            Ordering::Greater => self.counts.ahead += 1,
            Ordering::Less => self.counts.behind += 1,
            Ordering::Equal => {}
        }
        if let Some(&place) = self.by_client.get(client) {
            let known = &self.records[place];
            order.epoch = known.order.epoch;
            let is_stale = (known.order, &*known.line) >= (order, line);
            if is_stale && order.is_held_back_by(known.order, receipt) {
                order.epoch = order.epoch.saturating_add(1);
            }
        }
        let is_news = self.offer(line, client, order, Teacher::NOBODY);
        self.counts.stale += u64::from(!is_news);
        is_news
    }

    /// Takes the record of `line` if it is the newest of its client. Returns whether it did. The
    /// greater epoch wins, then the later effective time, then the later stamp, then the greater
    /// bytes. This order is total and the same on every server, so the order of arrival does not
    /// matter.
    pub(crate) fn offer(
        &mut self,
        line: &[u8],
        client: &[u8],
        order: Order,
        teacher: Teacher,
    ) -> bool {
        let seq = self.last_seq + 1;
        let place = match self.by_client.get(client) {
            Some(&place) => {
                let record = &mut self.records[place];
                if (record.order, &*record.line) >= (order, line) {
                    return false;
                }
                self.digest = self.digest.wrapping_sub(hash_of(&record.line));
                record.line.clear();
                record.line.extend_from_slice(line);
                (record.order, record.seq, record.teacher) = (order, seq, teacher);
                place
            }
            None => {
                let place = self.records.len();
                self.by_client.insert(client.into(), place);
                let line = line.to_vec();
                self.records.push(Record {
                    line,
                    order,
                    seq,
                    teacher,
                });
                place
            }
        };
        self.digest = self.digest.wrapping_add(hash_of(line));
        self.last_seq = seq;
        self.feed.push((seq, place));
        if self.feed.len() > SWEEP_FROM + 2 * self.records.len() {
            let records = &self.records;
            self.feed.retain(|&(seq, place)| records[place].seq == seq);
        }
        true
    }

    /// Appends the records after the change `after` to `out`, oldest first, until `out` holds
    /// `full_at` bytes or no more are left. Records from `except` are skipped. Returns the last
    /// change that is included or skipped.
    pub(crate) fn read(
        &self,
        after: u64,
        except: Teacher,
        full_at: usize,
        out: &mut BytesMut,
    ) -> u64 {
        let start = self.feed.partition_point(|&(seq, _)| seq <= after);
        for &(seq, place) in &self.feed[start..] {
            if out.len() >= full_at {
                return seq - 1;
            }
            let record = &self.records[place];
            if record.seq == seq && record.teacher != except {
                if record.order.epoch > 0 {
                    let epoch = format!("EPOCH {} ", record.order.epoch);
                    out.extend_from_slice(epoch.as_bytes());
                }
                out.extend_from_slice(&record.line);
                out.extend_from_slice(b"\n");
            }
        }
        self.last_seq
    }
}
