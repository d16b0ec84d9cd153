//! The table of positions, and the feed of its changes.
//!
//! Each client has one record: the `AT` line of its latest position, as the server that heard it wrote it. An accepted change
//! takes the next sequence number and is appended to the feed, which is how links find what they have not sent yet: a link is
//! nothing but a position in the feed, however far behind it is. Entries that a later change made void are passed over, and swept
//! out when they are more than the others.

use std::cmp::Ordering;
use std::collections::HashMap;

use bytes::BytesMut;

use crate::time::{Order, PosixTime};

/// The feed is not swept before it has so many entries.
const SWEEP_FROM: usize = 1024;

/// Who taught us a record: a neighbour in one life of its process, or nobody (a client told us). A record is not sent back to
/// its teacher.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Teacher(pub(crate) u64);

impl Teacher {
    /// The teacher of what our own clients said.
    pub(crate) const NOBODY: Teacher = Teacher(0);
}

struct Record {
    /// Without its LF.
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
    /// Sequence numbers, ascending, and the place of the record that took each.
    feed: Vec<(u64, usize)>,
    last_seq: u64,
    digest: u64,
    pub(crate) counts: Counts,
}

/// Of the records of our own clients.
#[derive(Default)]
pub(crate) struct Counts {
    /// They changed nothing.
    pub(crate) stale: u64,
    /// Their stamps are more than a minute ahead of our clock.
    pub(crate) ahead: u64,
    /// Their stamps are more than a minute behind it.
    pub(crate) behind: u64,
}

/// A line's part in the digest: every server of a herd computes it like this, eight bytes (little-endian) at a time.
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
    let mut last = [0; 8]; // filled up with zeros
    last[..rest.len()].copy_from_slice(rest);
    mix(hash, last)
}

impl Records {
    /// How many clients have a record.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// The sum of a hash of each line: the same for the same table.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// The sequence number of the latest change; 0 before the first.
    pub(crate) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// The `AT` line of a client, without its LF.
    pub(crate) fn line(&self, client: &[u8]) -> Option<&[u8]> {
        let &place = self.by_client.get(client)?;
        Some(&self.records[place].line)
    }

    /// Takes a record of an own client, received at that time; says whether it did. If only a wrong
    /// clock of another server holds it back, it begins the next epoch, which wins everywhere.
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

    /// Takes the record of `line` if it is the newest of its client; says whether it did. Greater
    /// epoch, then later effective time, then later stamp, then greater bytes: the order is total
    /// and the same on every server, so the order of arrival decides nothing.
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

    /// Appends the records behind the change `after` to `out`, oldest first, until `out` holds `full_at` bytes or there are no
    /// more; those that `except` taught us are passed over. Returns the change up to which everything is told now.
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
