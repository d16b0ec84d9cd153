//! The table of positions, and its changes feed.
//!
//! Each client has one record: the `AT` line of its latest position, as the server that heard it wrote it. The table is
//! also an ordered *feed*: an accepted change takes the next sequence number and moves its record to the feed's tail, so
//! the feed holds every record once, newest last.
//!
//! ```text
//!   oldest                                   newest
//!     │                                         │
//!   [ada 3] ⇄ [bob 7] ⇄ [eve 8] ⇄ [kiwi 12] ⇄ nothing yet
//!                          ▲                    ▲
//!            a reader that is behind    a reader that has it all
//! ```
//!
//! A link to a neighbour is a [`ReaderId`] in that feed, not a queue: however far behind it is, it costs 16 bytes here, and a
//! record that changed twice meanwhile is sent once. Following a reader, adding a change and moving a record are all O(1).

use std::hash::{BuildHasher, Hasher, RandomState};

use hashbrown::HashTable;
use slab::Slab;

use crate::core::journal::Entry;
use crate::core::limits::{Limits, count};
pub use crate::core::lines_kept::Teacher;
use crate::core::lines_kept::{LinesKept, hash_of};
use crate::core::message::At;

/// "No record": the end of the feed.
const NONE: u32 = u32::MAX;

/// What became of a record that was offered to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is the newest of its client: stored, and now the feed's last.
    Accepted,
    /// What is stored is as new or newer; nothing changed.
    Stale,
    /// The table holds as many clients, or as many bytes, as it may.
    Full,
    /// It is from a server that is none of the herd, and so many of those are known that no more are taken in.
    UnknownServer,
}

/// A place in the feed from which one neighbour is being sent changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderId(usize);

/// Where a client stands in the table, or would stand.
#[derive(Clone, Copy)]
pub struct Spot {
    hash: u64,
    known: Option<u32>,
}

struct Reader {
    /// The next record to send, or `NONE`.
    next: u32,
    /// Everything up to this sequence number was handed out.
    position: u64,
}

/// Where a record stands in the feed. Its line has the same number.
struct Record {
    seq: u64,
    older: u32,
    newer: u32,
}

/// Where a client stands in the table. Keyed, so that nobody can choose names that all stand in one place.
fn client_hash(hasher: &RandomState, client: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write(client);
    hasher.finish()
}

/// The table and its feed.
pub struct Records {
    by_client: HashTable<u32>,
    hasher: RandomState,
    lines: LinesKept,
    records: Vec<Record>,
    /// Where a line is copied to be told to a journal.
    copying: Vec<u8>,
    max_records: usize,
    oldest: u32,
    newest: u32,
    last_seq: u64,
    readers: Slab<Reader>,
    refused: u64,
    /// Bytes of all lines, and how many there may be.
    line_bytes: usize,
    max_line_bytes: usize,
    digest: u64,
}

impl Records {
    /// An empty table that will hold as many clients as it may.
    #[must_use]
    pub fn new(limits: &Limits) -> Records {
        Records {
            by_client: HashTable::new(),
            hasher: RandomState::new(),
            lines: LinesKept::new(limits),
            records: Vec::new(),
            copying: Vec::new(),
            max_records: count(limits.max_records).min(NONE as usize),
            oldest: NONE,
            newest: NONE,
            last_seq: 0,
            readers: Slab::new(),
            refused: 0,
            line_bytes: 0,
            max_line_bytes: count(limits.max_record_bytes),
            digest: 0,
        }
    }

    /// These are the servers of the herd: there is always room for what they heard.
    pub fn know_servers<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        for name in names {
            self.lines.know_server(name);
        }
    }

    /// How many clients have a record.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether no client has a record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// A number that tables with the same records share, and others hardly ever: the sum of a hash of each line. It shows an operator
    /// whether servers agree; it is no proof against somebody who makes records up.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// How many records were refused for want of room, or of a server that is known.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The sequence number of the latest change; 0 before the first.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// The `AT` line of a client, LF included.
    #[must_use]
    pub fn line(&self, client: &[u8]) -> Option<Vec<u8>> {
        let mut line = Vec::with_capacity(128);
        self.lines.write(self.find(client)?, &mut line);
        line.push(b'\n');
        Some(line)
    }

    /// Which change the record of a client was taken with.
    #[must_use]
    pub fn seq(&self, client: &[u8]) -> Option<u64> {
        Some(self.records[self.find(client)? as usize].seq)
    }

    fn find(&self, client: &[u8]) -> Option<u32> {
        self.spot(client).known
    }

    /// Where this client stands, until the table changes.
    #[must_use]
    pub fn spot(&self, client: &[u8]) -> Spot {
        let hash = client_hash(&self.hasher, client);
        let same = |&index: &u32| self.lines.client(index) == client;
        let known = self.by_client.find(hash, same).copied();
        Spot { hash, known }
    }

    /// Whether it can be told at a glance that exactly this line is the client's record: then there is no need to read it.
    #[must_use]
    pub fn is_kept(&self, spot: Spot, line: &[u8]) -> bool {
        let known = spot.known.and_then(|known| self.lines.unpacked(known));
        known == Some(line)
    }

    /// Takes the record of `line` (an `AT` line without its LF, taken apart as `at`) if it is the newest of its client.
    pub fn offer(&mut self, line: &[u8], at: &At<'_>, teacher: Teacher) -> Offer {
        self.offer_at(self.spot(at.client), line, at, teacher)
    }

    /// [`Records::offer`] for a client whose spot is known.
    pub fn offer_at(&mut self, spot: Spot, line: &[u8], at: &At<'_>, teacher: Teacher) -> Offer {
        let Spot { hash, known } = spot;
        let (mut known_bytes, mut known_hash) = (0, 0);
        if let Some(index) = known {
            let own = self.lines.look_at(index);
            if !own.is_older(line, at) {
                return Offer::Stale;
            }
            (known_bytes, known_hash) = (own.line.len(), own.hash);
        }
        let line_bytes = self.line_bytes - known_bytes + line.len();
        let too_many = known.is_none() && self.records.len() >= self.max_records;
        let too_long = line_bytes > self.max_line_bytes.max(self.line_bytes);
        if too_many || too_long {
            self.refused += 1;
            return Offer::Full;
        }
        let line_hash = hash_of(line);
        let index = match known {
            None => self.add(hash, line, at, teacher),
            Some(index) => {
                let kept = self.lines.replace(index, (line, line_hash), at, teacher);
                kept.map(|()| {
                    self.unlink(index);
                    index
                })
            }
        };
        let Some(index) = index else {
            self.refused += 1;
            return Offer::UnknownServer;
        };
        self.line_bytes = line_bytes;
        self.digest = self.digest.wrapping_sub(known_hash).wrapping_add(line_hash);
        self.last_seq += 1;
        self.append(index);
        Offer::Accepted
    }

    /// Makes a record that is not in the feed yet. `None` if there are too many names of servers.
    fn add(&mut self, client_hash: u64, line: &[u8], at: &At<'_>, teacher: Teacher) -> Option<u32> {
        let index = self.lines.add(line, at, teacher)?;
        self.records.push(Record {
            seq: 0,
            older: NONE,
            newer: NONE,
        });
        let (lines, hasher) = (&self.lines, &self.hasher);
        let hash = |&other: &u32| self::client_hash(hasher, lines.client(other));
        self.by_client.insert_unique(client_hash, index, hash);
        Some(index)
    }

    /// Takes a record out of the feed; readers that were about to send it go on to the one after it.
    fn unlink(&mut self, index: u32) {
        let Record { older, newer, .. } = self.records[index as usize];
        for (_, reader) in &mut self.readers {
            if reader.next == index {
                reader.next = newer;
            }
        }
        match older {
            NONE => self.oldest = newer,
            _ => self.records[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            _ => self.records[newer as usize].older = older,
        }
    }

    /// Puts a record at the feed's tail, as the latest change; readers that had it all have this one before them.
    fn append(&mut self, index: u32) {
        self.records[index as usize] = Record {
            seq: self.last_seq,
            older: self.newest,
            newer: NONE,
        };
        match self.newest {
            NONE => self.oldest = index,
            newest => self.records[newest as usize].newer = index,
        }
        self.newest = index;
        for (_, reader) in &mut self.readers {
            if reader.next == NONE {
                reader.next = index;
            }
        }
    }

    /// Starts reading behind the change `after` (0: from the start).
    pub fn open_reader(&mut self, after: u64) -> ReaderId {
        let mut next = NONE;
        if after == 0 {
            next = self.oldest;
        } else {
            let mut index = self.newest;
            // As many steps as there are records to send.
            while index != NONE && self.records[index as usize].seq > after {
                next = index;
                index = self.records[index as usize].older;
            }
        }
        ReaderId(self.readers.insert(Reader {
            next,
            position: after,
        }))
    }

    /// Takes a record that a journal tells of, at the place in the feed that it had. Places are told in order.
    pub fn restore(&mut self, seq: u64, line: &[u8], at: &At<'_>) -> Offer {
        self.last_seq = self.last_seq.max(seq.saturating_sub(1));
        let offer = self.offer(line, at, Teacher::NOBODY);
        self.last_seq = self.last_seq.max(seq);
        offer
    }

    /// About how many bytes a journal of exactly this table takes.
    #[must_use]
    pub fn journal_bytes(&self) -> u64 {
        (self.line_bytes + self.records.len() * Entry::record_bytes(0)) as u64
    }

    /// Tells the next records in order, about `bytes` bytes of them: the copying of the table into a journal.
    pub fn copy(&mut self, reader: ReaderId, bytes: usize, mut tell: impl FnMut(u64, &[u8])) {
        let reader = &mut self.readers[reader.0];
        let mut told = 0;
        while reader.next != NONE && told < bytes {
            let record = &self.records[reader.next as usize];
            self.copying.clear();
            self.lines.write(reader.next, &mut self.copying);
            tell(record.seq, &self.copying);
            told += Entry::record_bytes(self.copying.len());
            reader.position = record.seq;
            reader.next = record.newer;
        }
    }

    /// Ends reading.
    pub fn close_reader(&mut self, reader: ReaderId) {
        self.readers.try_remove(reader.0);
    }

    /// Whether the reader has been handed everything.
    #[must_use]
    pub fn is_caught_up(&self, reader: ReaderId) -> bool {
        self.readers[reader.0].next == NONE
    }

    /// Up to which change the reader has been handed everything.
    #[must_use]
    pub fn position(&self, reader: ReaderId) -> u64 {
        self.readers[reader.0].position
    }

    /// Appends the next records to `out`, oldest first, until `out` holds `full_at` bytes or there are no more; those that
    /// `except` taught us are passed over, and none later than the change `up_to` is read. Returns how many it appended.
    pub fn read(
        &mut self,
        reader: ReaderId,
        except: Teacher,
        up_to: u64,
        full_at: usize,
        out: &mut Vec<u8>,
    ) -> usize {
        let reader = &mut self.readers[reader.0];
        let mut appended = 0;
        while reader.next != NONE && out.len() < full_at {
            let record = &self.records[reader.next as usize];
            if record.seq > up_to {
                return appended;
            }
            if self.lines.teacher(reader.next) != except {
                self.lines.write(reader.next, out);
                out.push(b'\n');
                appended += 1;
            }
            reader.position = record.seq;
            reader.next = record.newer;
        }
        if reader.next == NONE {
            reader.position = self.last_seq;
        }
        appended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offer(records: &mut Records, line: &str, teacher: Teacher) -> Offer {
        let at = At::parse(line.as_bytes()).unwrap_or_else(|| panic!("not an AT line: {line}"));
        records.offer(line.as_bytes(), &at, teacher)
    }

    fn table(max_records: u64) -> Records {
        Records::new(&Limits {
            max_records,
            ..Limits::default()
        })
    }

    fn heard(records: &mut Records, client: &str, stamp: u32) -> Offer {
        offer(
            records,
            &format!("AT Riley +0.000000000 {client} +1+2 {stamp}"),
            Teacher::NOBODY,
        )
    }

    fn read_all(records: &mut Records, reader: ReaderId, except: Teacher) -> String {
        let mut out = Vec::new();
        records.read(reader, except, u64::MAX, usize::MAX, &mut out);
        let lines = String::from_utf8(out).unwrap();
        lines
            .lines()
            .map(|line| {
                line.split(' ')
                    .skip(3)
                    .step_by(2)
                    .collect::<Vec<_>>()
                    .join("@")
            })
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn the_newest_wins_whatever_came_first() {
        let mut records = table(10);
        assert_eq!(heard(&mut records, "a", 5), Offer::Accepted);
        assert_eq!(heard(&mut records, "a", 4), Offer::Stale);
        assert_eq!(
            heard(&mut records, "a", 5),
            Offer::Stale,
            "the same again is no change"
        );
        assert_eq!(heard(&mut records, "a", 6), Offer::Accepted);
        assert_eq!(
            records.line(b"a"),
            Some(b"AT Riley +0.000000000 a +1+2 6\n".to_vec())
        );
        assert_eq!((records.len(), records.last_seq()), (1, 2));
    }

    #[test]
    fn a_client_from_the_future_does_not_freeze_its_record() {
        let mut records = table(10);
        let at_100 = |stamp: u32| {
            format!(
                "AT Riley {:+}.000000000 a +1+2 {stamp}",
                100 - i64::from(stamp)
            )
        };
        assert_eq!(
            offer(&mut records, &at_100(31_536_100), Teacher::NOBODY),
            Offer::Accepted
        );
        assert_eq!(
            offer(
                &mut records,
                "AT Riley +0.000000000 a +1+2 101",
                Teacher::NOBODY
            ),
            Offer::Accepted
        );
        assert_eq!(
            offer(&mut records, &at_100(31_536_100), Teacher::NOBODY),
            Offer::Stale
        );
    }

    #[test]
    fn ties_go_to_the_later_stamp_and_then_to_the_greater_bytes() {
        // All three have the effective time 100: two by their stamp, one by its receipt.
        let by_receipt = "AT Riley -900.000000000 a +1+2 1000";
        let by_stamp = "AT Riley +0.000000000 a +1+2 100";
        let by_stamp_with_zeros = "AT Riley +0.000000000 a +1+2 100.0";
        let mut records = table(10);
        for (line, expected) in [
            (by_stamp, Offer::Accepted),
            (by_stamp_with_zeros, Offer::Accepted),
            (by_stamp, Offer::Stale),
            (by_receipt, Offer::Accepted),
            (by_stamp_with_zeros, Offer::Stale),
        ] {
            assert_eq!(
                offer(&mut records, line, Teacher::NOBODY),
                expected,
                "{line}"
            );
        }
    }

    #[test]
    fn a_full_table_still_updates_whom_it_knows() {
        let mut records = table(1);
        assert_eq!(heard(&mut records, "a", 1), Offer::Accepted);
        assert_eq!(heard(&mut records, "b", 1), Offer::Full);
        assert_eq!(heard(&mut records, "a", 2), Offer::Accepted);
    }

    #[test]
    fn servers_that_nobody_has_take_no_room_from_those_of_the_herd() {
        let mut records = table(10);
        records.know_servers(["Riley", "Jaquez"]);
        let mut from = |server: &str, stamp: u32| {
            let line = format!("AT {server} +0.000000000 a +1+2 {stamp}");
            offer(&mut records, &line, Teacher::NOBODY)
        };
        let mut stamp = 0;
        let mut made_up = || {
            stamp += 1;
            from(&format!("Nobody{stamp}"), stamp)
        };
        while made_up() == Offer::Accepted {}
        assert!((1_000..2_000).contains(&stamp), "{stamp}");
        assert_eq!(
            from("Nobody1", 5_000),
            Offer::Accepted,
            "it is known by now"
        );
        assert_eq!(from("Jaquez", 5_001), Offer::Accepted);
        assert_eq!(from("Nobody", 5_002), Offer::UnknownServer);
    }

    #[test]
    fn a_table_has_a_limit_of_bytes_too() {
        let line = |stamp: &str| format!("AT Riley +0.000000000 a +1+2 {stamp}");
        let max_record_bytes = line("1").len() as u64;
        let mut records = Records::new(&Limits {
            max_record_bytes,
            ..Limits::default()
        });
        assert_eq!(
            offer(&mut records, &line("1"), Teacher::NOBODY),
            Offer::Accepted
        );
        assert_eq!(
            offer(&mut records, &line("22"), Teacher::NOBODY),
            Offer::Full
        );
        assert_eq!(
            offer(&mut records, &line("2"), Teacher::NOBODY),
            Offer::Accepted,
            "no longer than before"
        );
        assert_eq!(heard(&mut records, "b", 1), Offer::Full);
    }

    #[test]
    fn a_reader_is_sent_each_record_once_in_its_newest_version() {
        let mut records = table(10);
        let (nobody, teacher) = (Teacher::NOBODY, Teacher::NOBODY.next());
        heard(&mut records, "a", 1);
        heard(&mut records, "b", 1);
        let reader = records.open_reader(0);
        heard(&mut records, "a", 2);
        heard(&mut records, "a", 3);
        assert_eq!(read_all(&mut records, reader, teacher), "b@1 a@3");
        assert!(records.is_caught_up(reader));
        assert_eq!(records.position(reader), 4);
        heard(&mut records, "a", 4);
        assert_eq!(
            read_all(&mut records, reader, teacher),
            "a@4",
            "the tail itself moved"
        );
        offer(&mut records, "AT Riley +0.000000000 c +1+2 1", teacher);
        assert_eq!(
            read_all(&mut records, reader, teacher),
            "",
            "not sent back to who taught it"
        );
        assert_eq!(records.position(reader), 6);
        let second = records.open_reader(3);
        assert_eq!(
            read_all(&mut records, second, nobody.next().next()),
            "a@4 c@1"
        );
    }

    #[test]
    fn reading_stops_when_the_buffer_is_full_and_goes_on_there() {
        let mut records = table(10);
        for client in ["a", "b", "c"] {
            heard(&mut records, client, 1);
        }
        let reader = records.open_reader(0);
        let mut out = Vec::new();
        assert_eq!(
            records.read(reader, Teacher::NOBODY.next(), u64::MAX, 40, &mut out),
            2
        );
        assert_eq!(records.position(reader), 2);
        assert_eq!(
            read_all(&mut records, reader, Teacher::NOBODY.next()),
            "c@1"
        );
    }

    proptest! {
        /// Two tables that are offered the same records in different orders end up equal.
        #[test]
        fn order_of_arrival_decides_nothing(mut offers in proptest::collection::vec((0u8..4, 0u32..200, -100i64..100), 1..40), seed in any::<u64>()) {
            let line = |&(client, stamp, skew): &(u8, u32, i64)| {
                let skew = skew.max(-i64::from(stamp));
                format!("AT Riley {skew:+}.000000000 {client} +1+2 {stamp}")
            };
            let mut one = table(10);
            offers.iter().for_each(|o| { offer(&mut one, &line(o), Teacher::NOBODY); });
            let mut state = seed;
            for i in (1..offers.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                offers.swap(i, (state >> 33) as usize % (i + 1));
            }
            let mut other = table(10);
            offers.iter().for_each(|o| { offer(&mut other, &line(o), Teacher::NOBODY); });
            prop_assert_eq!(one.digest(), other.digest());
            for client in [b"0", b"1", b"2", b"3"] {
                prop_assert_eq!(one.line(client), other.line(client));
            }
        }

        /// However offers and reads alternate, a reader ends up with exactly what the table holds.
        #[test]
        fn a_reader_misses_nothing(steps in proptest::collection::vec((0u8..6, 0u32..50, 0usize..200), 1..100)) {
            let mut records = table(10);
            let reader = records.open_reader(0);
            let mut copy = table(10);
            let mut out = Vec::new();
            for (client, stamp, bytes) in steps {
                heard(&mut records, &client.to_string(), stamp);
                records.read(reader, Teacher::NOBODY.next(), u64::MAX, bytes, &mut out);
                for line in std::mem::take(&mut out).split(|&b| b == b'\n').filter(|l| !l.is_empty()) {
                    copy.offer(line, &At::parse(line).unwrap(), Teacher::NOBODY);
                }
            }
            records.read(reader, Teacher::NOBODY.next(), u64::MAX, usize::MAX, &mut out);
            for line in out.split(|&b| b == b'\n').filter(|l| !l.is_empty()) {
                copy.offer(line, &At::parse(line).unwrap(), Teacher::NOBODY);
            }
            prop_assert!(records.is_caught_up(reader));
            prop_assert_eq!(records.len(), copy.len());
            for client in 0u8..6 {
                let client = client.to_string();
                prop_assert_eq!(records.line(client.as_bytes()), copy.line(client.as_bytes()));
            }
        }
    }
}
