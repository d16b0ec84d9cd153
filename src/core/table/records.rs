//! The table of positions, and its changes feed.
//!
//! Each client has one record: the `AT` line of its latest position, as the server that heard it
//! wrote it. The table is also an ordered *feed*: an accepted change takes the next sequence number
//! and moves its record to the feed's tail, so the feed holds every record once, newest last.
//!
//! ```text
//!   oldest                                   newest
//!     │                                         │
//!   [ada 3] ⇄ [bob 7] ⇄ [eve 8] ⇄ [kiwi 12] ⇄ nothing yet
//!                          ▲                    ▲
//!            a reader that is behind    a reader that has it all
//! ```
//!
//! A link to a neighbour is a [`ReaderId`] in that feed, not a queue: however far behind it is, it
//! costs 16 bytes here, and a record that changed twice meanwhile is sent once. Following a reader,
//! adding a change and moving a record are all O(1).
//!
//! # Which of two records of one client stays
//!
//! The one with the greater epoch; then the one with the later [effective
//! time](crate::core::wire::posix_time::effective_time); then the one with the later stamp; then
//! the one whose line has the greater bytes. All of that is in what crosses a link, so the order is
//! total and the same on every server, whatever their clocks say: all servers end with the same
//! table.
//!
//! The epoch is 0 until the servers' clocks are in the way, so it is kept beside the table. A
//! server counts it up when one of its own clients says something that the clocks alone would make
//! stale (see [`Records::hear`]): a record with a later stamp than the one that is kept; or any, if
//! the one that is kept is from more than 120 s in the future. So a server whose clock is a year
//! ahead cannot freeze a record. The first update that a server with a right clock hears takes its
//! place, and because the epoch travels with the record, it does so everywhere. A receiver never
//! changes an epoch: if it did, what a server ends with would depend on when it heard what.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;

use hashbrown::HashTable;
use slab::Slab;

use crate::core::base::invariants::hold;
use crate::core::base::limits::{Limits, count};
pub use crate::core::table::line_store::Origin;
use crate::core::table::line_store::{LineStore, hash_of};
use crate::core::table::packed_store::PackedStore;
use crate::core::wire::message::At;
use crate::core::wire::posix_time::{MAX_LEAD_S, PosixTime};

/// "No record": the end of the feed.
const NONE: u32 = u32::MAX;

/// Nearly all `AT` lines are longer.
const LEAST_LINE_BYTES: usize = 64;

/// A right clock is at most so much behind another one that counts as right, too. Part of the
/// protocol, so no setting.
const CLOCK_TOLERANCE_S: u64 = 60;

/// What became of a record that was offered to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// It is the newest of its client: stored, and now the feed's last.
    Accepted,
    /// What is stored is as new or newer; nothing changed.
    Stale,
    /// The table holds as many clients, or as many bytes, as it may.
    Full,
    /// It is from a server that is none of the herd, and so many of those are known that no more
    /// are taken in.
    UnknownServer,
}

/// What is offered to the table, beside the line.
#[derive(Clone, Copy)]
enum Claim {
    /// From a neighbour: merged by the order.
    Neighbour { epoch: u32, origin: Origin },
    /// From a client: what is from after `latest` does not stand in its way.
    Client { latest: PosixTime },
    /// From a journal: no limit applies to it.
    Journal { epoch: u32 },
}

/// A place in the feed from which one neighbour is being sent changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderId(usize);

/// Where a client stands in the table, or would stand.
#[derive(Clone, Copy)]
pub struct Lookup {
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

/// Where a client stands in the table. Keyed, so that no client can choose names that all stand in
/// one place.
fn client_hash(hasher: &RandomState, client: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write(client);
    hasher.finish()
}

/// The table and its feed.
pub struct Records {
    by_client: HashTable<u32>,
    hasher: RandomState,
    /// A `NaiveStore` would do as well, in more memory.
    lines: PackedStore,
    records: Vec<Record>,
    /// The epochs of those records whose epoch is not 0: hardly any.
    epochs: HashMap<u32, u32>,
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
            lines: PackedStore::new(limits),
            records: Vec::new(),
            epochs: HashMap::new(),
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
            self.lines.know_server(name.as_bytes());
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

    /// A number that tables with the same records share, and others hardly ever: the sum of a hash
    /// of each line. It shows an operator whether servers agree; it is no proof against somebody
    /// who makes records up.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Whether a client that is not known is refused.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.records.len() >= self.max_records
            || self.line_bytes + LEAST_LINE_BYTES > self.max_line_bytes
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

    /// The epoch of a client's record.
    #[must_use]
    pub fn epoch(&self, client: &[u8]) -> Option<u32> {
        Some(self.epoch_of(self.find(client)?))
    }

    fn find(&self, client: &[u8]) -> Option<u32> {
        self.lookup(client).known
    }

    /// Where this client stands, until the table changes.
    #[must_use]
    pub fn lookup(&self, client: &[u8]) -> Lookup {
        let hash = client_hash(&self.hasher, client);
        let same = |&index: &u32| self.lines.client(index) == client;
        let known = self.by_client.find(hash, same).copied();
        Lookup { hash, known }
    }

    /// Whether it can be told at a glance that exactly this line, with this epoch, is the client's
    /// record: then there is no need to read it.
    #[must_use]
    pub fn is_kept(&self, lookup: Lookup, epoch: u32, line: &[u8]) -> bool {
        lookup
            .known
            .is_some_and(|known| self.lines.is_surely(known, line) && self.epoch_of(known) == epoch)
    }

    fn epoch_of(&self, index: u32) -> u32 {
        if self.epochs.is_empty() {
            return 0;
        }
        self.epochs.get(&index).copied().unwrap_or(0)
    }

    /// The epoch of the record that changed last.
    #[must_use]
    pub fn last_epoch(&self) -> u32 {
        self.epoch_of(self.newest)
    }

    /// Takes the record of `line` (an `AT` line without its LF, taken apart as `at`), of epoch 0,
    /// if it is the newest of its client.
    pub fn merge(&mut self, line: &[u8], at: &At<'_>, origin: Origin) -> Merge {
        self.merge_at(self.lookup(at.client), line, at, 0, origin)
    }

    /// [`Records::merge`] for a client that was looked up, and a record of any epoch.
    pub fn merge_at(
        &mut self,
        lookup: Lookup,
        line: &[u8],
        at: &At<'_>,
        epoch: u32,
        origin: Origin,
    ) -> Merge {
        self.take(lookup, line, at, Claim::Neighbour { epoch, origin })
    }

    /// Takes the record of `line` from a client of this server, whose clock shows `wall`, if it is
    /// the client's newest. What stands in its way only because of the servers' clocks does not:
    /// then it begins the client's next epoch.
    pub fn hear(&mut self, line: &[u8], at: &At<'_>, wall: PosixTime) -> Merge {
        let latest = wall.plus_seconds(MAX_LEAD_S + CLOCK_TOLERANCE_S);
        self.take(self.lookup(at.client), line, at, Claim::Client { latest })
    }

    #[inline(always)] // each of its callers needs but a part of it
    fn take(&mut self, lookup: Lookup, line: &[u8], at: &At<'_>, claim: Claim) -> Merge {
        let Lookup { hash, known } = lookup;
        let (mut known_bytes, mut known_hash) = (0, 0);
        let (mut epoch, origin, is_limited) = match claim {
            Claim::Neighbour { epoch, origin } => (epoch, origin, true),
            Claim::Client { .. } => (0, Origin::NONE, true),
            Claim::Journal { epoch } => (epoch, Origin::NONE, false),
        };
        if let Some(index) = known {
            let known_epoch = self.epoch_of(index);
            let own = self.lines.look_at(index);
            match claim {
                Claim::Client { .. } if own.is_older(line, at) => epoch = known_epoch,
                Claim::Client { latest } => match known_epoch.checked_add(1) {
                    Some(next) if own.is_set_aside_by(at, latest) => epoch = next,
                    Some(_) | None => return Merge::Stale,
                },
                Claim::Neighbour { epoch, .. } | Claim::Journal { epoch } => {
                    let is_newer = match epoch.cmp(&known_epoch) {
                        Ordering::Less => false,
                        Ordering::Equal => own.is_older(line, at),
                        Ordering::Greater => true,
                    };
                    if !is_newer {
                        return Merge::Stale;
                    }
                }
            }
            (known_bytes, known_hash) = (own.line.len(), own.hash);
        }
        let line_bytes = self.line_bytes - known_bytes + line.len();
        let too_many = known.is_none() && self.records.len() >= self.max_records;
        let too_long = line_bytes > self.max_line_bytes.max(self.line_bytes);
        if is_limited && (too_many || too_long) {
            self.refused += 1;
            return Merge::Full;
        }
        let line_hash = hash_of(line);
        let index = match known {
            None => self.add(hash, line, at, origin),
            Some(index) => {
                let kept = self.lines.replace(index, (line, line_hash), at, origin);
                kept.map(|()| {
                    self.unlink(index);
                    index
                })
            }
        };
        let Some(index) = index else {
            self.refused += 1;
            return Merge::UnknownServer;
        };
        if epoch > 0 {
            self.epochs.insert(index, epoch);
        }
        self.line_bytes = line_bytes;
        self.digest = self.digest.wrapping_sub(known_hash).wrapping_add(line_hash);
        self.last_seq += 1;
        self.append(index);
        Merge::Accepted
    }

    /// Makes a record that is not in the feed yet. `None` if there are too many names of servers.
    fn add(&mut self, client_hash: u64, line: &[u8], at: &At<'_>, origin: Origin) -> Option<u32> {
        let index = self.lines.add(line, at, origin)?;
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

    /// Takes a record out of the feed; readers that were about to send it go on to the one after
    /// it.
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

    /// Puts a record at the feed's tail, as the latest change; readers that had it all have this
    /// one before them.
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

    /// Takes a record that a journal tells of, at the place in the feed that it had. Places are
    /// told in order. What a journal holds was promised once: no limit applies to it.
    pub fn restore(&mut self, seq: u64, epoch: u32, line: &[u8], at: &At<'_>) -> Merge {
        self.last_seq = self.last_seq.max(seq.saturating_sub(1));
        self.lines.know_server(at.server);
        let merged = self.take(self.lookup(at.client), line, at, Claim::Journal { epoch });
        self.restore_place(seq);
        merged
    }

    /// A place in the feed is taken, though nothing is known of the record that had it.
    pub fn restore_place(&mut self, seq: u64) {
        self.last_seq = self.last_seq.max(seq);
    }

    /// How many bytes all lines have, as they are written.
    #[must_use]
    pub fn line_bytes(&self) -> usize {
        self.line_bytes
    }

    /// How many records are of a later epoch than 0.
    #[must_use]
    pub fn later_epochs(&self) -> usize {
        self.epochs.len()
    }

    /// Tells the next records in order, until `bytes` bytes are written of them: the copying of the
    /// table into a journal. `tell` returns how many bytes it wrote.
    pub fn copy(
        &mut self,
        reader: ReaderId,
        bytes: usize,
        mut tell: impl FnMut(u64, u32, &[u8]) -> usize,
    ) {
        let reader = &mut self.readers[reader.0];
        let mut written = 0;
        while reader.next != NONE && written < bytes {
            let record = &self.records[reader.next as usize];
            self.copying.clear();
            self.lines.write(reader.next, &mut self.copying);
            let epoch = match self.epochs.is_empty() {
                true => 0,
                false => self.epochs.get(&reader.next).copied().unwrap_or(0),
            };
            written += tell(record.seq, epoch, &self.copying);
            reader.position = record.seq;
            reader.next = record.newer;
        }
    }

    /// How many places in the feed are read from.
    #[must_use]
    pub fn readers(&self) -> usize {
        self.readers.len()
    }

    /// Whether the feed is read from there.
    #[must_use]
    pub fn has_reader(&self, reader: ReaderId) -> bool {
        self.readers.contains(reader.0)
    }

    /// Whether the feed holds every record once, in order, and each reader stands in it. For tests:
    /// it walks the whole feed.
    pub(crate) fn check_invariants(&self) -> Result<(), String> {
        let (mut index, mut older, mut seq, mut count) = (self.oldest, NONE, 0, 0);
        while index != NONE {
            let record = &self.records[index as usize];
            hold!(
                record.older == older,
                "change {} does not follow its elder",
                record.seq
            );
            hold!(
                record.seq > seq,
                "change {} follows change {seq}",
                record.seq
            );
            (older, seq, count) = (index, record.seq, count + 1);
            hold!(count <= self.records.len(), "the feed is a circle");
            index = record.newer;
        }
        hold!(
            older == self.newest,
            "the feed does not end with its newest record"
        );
        hold!(
            count == self.records.len(),
            "{count} of {} records are in the feed",
            self.records.len()
        );
        hold!(
            count == self.by_client.len(),
            "{count} records of {} clients",
            self.by_client.len()
        );
        hold!(
            seq <= self.last_seq,
            "change {seq} is later than the last, {}",
            self.last_seq
        );
        for (_, reader) in &self.readers {
            // What it was handed is behind it; the next record, if there is one, is before it.
            let next = (reader.next != NONE).then(|| self.records[reader.next as usize].seq);
            hold!(
                next.is_none_or(|next| next > reader.position),
                "a reader at {} is to read {next:?}",
                reader.position
            );
            let elder = match reader.next {
                NONE => self.newest,
                next => self.records[next as usize].older,
            };
            let passed = (elder != NONE).then(|| self.records[elder as usize].seq);
            hold!(
                passed.is_none_or(|passed| passed <= reader.position),
                "a reader at {} passed over {passed:?}",
                reader.position
            );
        }
        Ok(())
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

    /// Appends the next records to `out`, oldest first, until `out` holds `full_at` bytes or there
    /// are no more; those that `except` taught us are passed over, and none later than the change
    /// `up_to` is read. Returns how many it appended.
    pub fn read(
        &mut self,
        reader: ReaderId,
        except: Origin,
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
            if self.lines.origin(reader.next) != except {
                if !self.epochs.is_empty()
                    && let Some(epoch) = self.epochs.get(&reader.next)
                {
                    // Writing into memory does not fail.
                    let _ = write!(out, "EPOCH {epoch} ");
                }
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

    fn merge(records: &mut Records, line: &str, origin: Origin) -> Merge {
        let at = At::parse(line.as_bytes()).unwrap_or_else(|| panic!("not an AT line: {line}"));
        records.merge(line.as_bytes(), &at, origin)
    }

    fn table(max_records: u64) -> Records {
        Records::new(&Limits {
            max_records,
            ..Limits::default()
        })
    }

    fn heard(records: &mut Records, client: &str, stamp: u32) -> Merge {
        merge(
            records,
            &format!("AT Riley +0.000000000 {client} +1+2 {stamp}"),
            Origin::NONE,
        )
    }

    /// What a client says to `server`, whose clock shows `wall` seconds.
    fn says(records: &mut Records, server: &str, wall: u32, stamp: u32) -> (Merge, String) {
        let skew = i64::from(wall) - i64::from(stamp);
        let line = format!("AT {server} {skew:+}.000000000 a +1+2 {stamp}");
        let at = At::parse(line.as_bytes()).unwrap();
        let wall = PosixTime::from_nanos(u64::from(wall) * 1_000_000_000);
        (records.hear(line.as_bytes(), &at, wall), line)
    }

    fn read_all(records: &mut Records, reader: ReaderId, except: Origin) -> String {
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
        assert_eq!(heard(&mut records, "a", 5), Merge::Accepted);
        assert_eq!(heard(&mut records, "a", 4), Merge::Stale);
        assert_eq!(
            heard(&mut records, "a", 5),
            Merge::Stale,
            "the same again is no change"
        );
        assert_eq!(heard(&mut records, "a", 6), Merge::Accepted);
        assert_eq!(
            records.line(b"a"),
            Some(b"AT Riley +0.000000000 a +1+2 6\n".to_vec())
        );
        assert_eq!((records.len(), records.last_seq()), (1, 2));
    }

    #[test]
    fn a_client_from_the_future_does_not_freeze_its_record() {
        let mut records = table(10);
        let mut says = |wall, stamp| says(&mut records, "Riley", wall, stamp).0;
        assert_eq!(says(100, 31_536_100), Merge::Accepted);
        // It is set right: until its record is in the past, nothing moves.
        assert_eq!(says(120, 120), Merge::Stale);
        assert_eq!(says(161, 161), Merge::Accepted);
        assert_eq!(records.last_epoch(), 0, "nothing is wrong with our clock");
    }

    #[test]
    fn a_client_that_roams_between_servers_whose_clocks_disagree_moves_on() {
        for behind in [1, 59, 61, 90, 120, 121, 86_400] {
            let mut records = table(10);
            for step in 0..10 {
                let right = 1_000_000 + step;
                let (server, wall) = match step % 2 {
                    0 => ("Riley", right),
                    _ => ("Jaquez", right - behind),
                };
                let (merged, line) = says(&mut records, server, wall, right);
                assert_eq!(merged, Merge::Accepted, "{behind} s behind, step {step}");
                assert_eq!(records.line(b"a"), Some(format!("{line}\n").into_bytes()));
            }
            assert!(
                records.last_epoch() <= 5,
                "only where clocks are in the way"
            );
            assert_eq!(records.last_epoch() > 0, behind > 61, "{behind} s behind");
        }
    }

    #[test]
    fn a_server_a_year_ahead_freezes_no_record_and_all_end_with_the_same() {
        const YEAR: u32 = 31_536_000;
        let mut tables = [table(10), table(10)];
        let (wrong, right) = {
            let [a, b] = &mut tables;
            (a, b)
        };
        let merge = |to: &mut Records, line: &str, epoch: u32| {
            let at = At::parse(line.as_bytes()).unwrap();
            let lookup = to.lookup(b"a");
            to.merge_at(lookup, line.as_bytes(), &at, epoch, Origin::NONE)
        };
        let (merged, frozen) = says(wrong, "Riley", 1_000 + YEAR, 1_000 + YEAR);
        assert_eq!(merged, Merge::Accepted);
        assert_eq!(merge(right, &frozen, 0), Merge::Accepted);
        // A stamp that is older than the one that is kept, at a server whose clock is right.
        let (merged, line) = says(right, "Jaquez", 1_010, 1_010);
        assert_eq!((merged, right.last_epoch()), (Merge::Accepted, 1));
        assert_eq!(merge(wrong, &line, 1), Merge::Accepted);
        assert_eq!(merge(wrong, &frozen, 0), Merge::Stale);
        assert_eq!(merge(right, &frozen, 0), Merge::Stale);
        assert_eq!(says(right, "Jaquez", 1_011, 1_009).0, Merge::Stale);
        // The one that is wrong inherits the epoch; nothing that it does can keep the right one
        // from the next.
        let (merged, frozen) = says(wrong, "Riley", 1_012 + YEAR, 1_012 + YEAR);
        assert_eq!((merged, wrong.last_epoch()), (Merge::Accepted, 1));
        assert_eq!(merge(right, &frozen, 1), Merge::Accepted);
        let (merged, line) = says(right, "Jaquez", 1_020, 1_020);
        assert_eq!((merged, right.last_epoch()), (Merge::Accepted, 2));
        assert_eq!(merge(wrong, &line, 2), Merge::Accepted);
        assert_eq!(wrong.line(b"a"), right.line(b"a"));
        assert_eq!(wrong.digest(), right.digest());
    }

    #[test]
    fn the_last_epoch_is_never_left() {
        let mut records = table(10);
        let line = "AT Riley +0.000000000 a +1+2 5000000";
        let at = At::parse(line.as_bytes()).unwrap();
        let lookup = records.lookup(b"a");
        let last = records.merge_at(lookup, line.as_bytes(), &at, u32::MAX, Origin::NONE);
        assert_eq!(last, Merge::Accepted);
        assert_eq!(says(&mut records, "Riley", 1_000, 1_000).0, Merge::Stale);
        assert_eq!(records.last_epoch(), u32::MAX);
    }

    #[test]
    fn an_epoch_is_told_to_readers_and_to_the_journal() {
        let mut records = table(10);
        heard(&mut records, "b", 1);
        let line = b"AT Riley +0.000000000 a +1+2 1";
        let at = At::parse(line).unwrap();
        let lookup = records.lookup(b"a");
        records.merge_at(lookup, line, &at, 7, Origin::NONE);
        assert!(!records.is_kept(records.lookup(b"a"), 6, line));
        let reader = records.open_reader(0);
        let mut out = Vec::new();
        records.read(reader, Origin::NONE.next(), u64::MAX, usize::MAX, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "AT Riley +0.000000000 b +1+2 1\nEPOCH 7 AT Riley +0.000000000 a +1+2 1\n"
        );
        let reader = records.open_reader(0);
        let mut told = Vec::new();
        records.copy(reader, usize::MAX, |seq, epoch, line| {
            told.push((seq, epoch));
            line.len()
        });
        assert_eq!(told, [(1, 0), (2, 7)]);
        let mut back = table(10);
        back.restore(2, 7, line, &at);
        assert_eq!((back.last_seq(), back.last_epoch()), (2, 7));
    }

    #[test]
    fn what_a_journal_holds_is_restored_whatever_the_limits() {
        let mut records = Records::new(&Limits {
            max_records: 1,
            max_record_bytes: 4_096,
            ..Limits::default()
        });
        for number in 0..1_500_u32 {
            let line = format!("AT Server{number} +0.000000000 client{number} +1+2 3");
            let at = At::parse(line.as_bytes()).unwrap();
            let seq = u64::from(number) + 1;
            let merged = records.restore(seq, 0, line.as_bytes(), &at);
            assert_eq!(merged, Merge::Accepted, "{number}");
        }
        assert_eq!((records.len(), records.refused()), (1_500, 0));
        assert_eq!(heard(&mut records, "new", 1), Merge::Full);
    }

    #[test]
    fn ties_go_to_the_later_stamp_and_then_to_the_greater_bytes() {
        // All three have the effective time 100: two by their stamp, one by its receipt.
        let by_receipt = "AT Riley -960.000000000 a +1+2 1000";
        let by_stamp = "AT Riley +0.000000000 a +1+2 100";
        let by_stamp_with_zeros = "AT Riley +0.000000000 a +1+2 100.0";
        let mut records = table(10);
        for (line, expected) in [
            (by_stamp, Merge::Accepted),
            (by_stamp_with_zeros, Merge::Accepted),
            (by_stamp, Merge::Stale),
            (by_receipt, Merge::Accepted),
            (by_stamp_with_zeros, Merge::Stale),
        ] {
            assert_eq!(merge(&mut records, line, Origin::NONE), expected, "{line}");
        }
    }

    #[test]
    fn a_full_table_still_updates_whom_it_knows() {
        let mut records = table(1);
        assert_eq!(heard(&mut records, "a", 1), Merge::Accepted);
        assert_eq!(heard(&mut records, "b", 1), Merge::Full);
        assert_eq!(heard(&mut records, "a", 2), Merge::Accepted);
    }

    #[test]
    fn servers_that_nobody_has_take_no_room_from_those_of_the_herd() {
        let mut records = table(10);
        records.know_servers(["Riley", "Jaquez"]);
        let mut from = |server: &str, stamp: u32| {
            let line = format!("AT {server} +0.000000000 a +1+2 {stamp}");
            merge(&mut records, &line, Origin::NONE)
        };
        let mut stamp = 0;
        let mut made_up = || {
            stamp += 1;
            from(&format!("Nobody{stamp}"), stamp)
        };
        while made_up() == Merge::Accepted {}
        assert!((1_000..2_000).contains(&stamp), "{stamp}");
        assert_eq!(
            from("Nobody1", 5_000),
            Merge::Accepted,
            "it is known by now"
        );
        assert_eq!(from("Jaquez", 5_001), Merge::Accepted);
        assert_eq!(from("Nobody", 5_002), Merge::UnknownServer);
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
            merge(&mut records, &line("1"), Origin::NONE),
            Merge::Accepted
        );
        assert_eq!(merge(&mut records, &line("22"), Origin::NONE), Merge::Full);
        assert_eq!(
            merge(&mut records, &line("2"), Origin::NONE),
            Merge::Accepted,
            "no longer than before"
        );
        assert_eq!(heard(&mut records, "b", 1), Merge::Full);
    }

    #[test]
    fn a_reader_is_sent_each_record_once_in_its_newest_version() {
        let mut records = table(10);
        let (nobody, origin) = (Origin::NONE, Origin::NONE.next());
        heard(&mut records, "a", 1);
        heard(&mut records, "b", 1);
        let reader = records.open_reader(0);
        heard(&mut records, "a", 2);
        heard(&mut records, "a", 3);
        assert_eq!(read_all(&mut records, reader, origin), "b@1 a@3");
        assert!(records.is_caught_up(reader));
        assert_eq!(records.position(reader), 4);
        heard(&mut records, "a", 4);
        assert_eq!(
            read_all(&mut records, reader, origin),
            "a@4",
            "the tail itself moved"
        );
        merge(&mut records, "AT Riley +0.000000000 c +1+2 1", origin);
        assert_eq!(
            read_all(&mut records, reader, origin),
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
            records.read(reader, Origin::NONE.next(), u64::MAX, 40, &mut out),
            2
        );
        assert_eq!(records.position(reader), 2);
        assert_eq!(read_all(&mut records, reader, Origin::NONE.next()), "c@1");
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
            offers.iter().for_each(|o| { merge(&mut one, &line(o), Origin::NONE); });
            let mut state = seed;
            for i in (1..offers.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                offers.swap(i, (state >> 33) as usize % (i + 1));
            }
            let mut other = table(10);
            offers.iter().for_each(|o| { merge(&mut other, &line(o), Origin::NONE); });
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
                records.read(reader, Origin::NONE.next(), u64::MAX, bytes, &mut out);
                for line in std::mem::take(&mut out).split(|&b| b == b'\n').filter(|l| !l.is_empty()) {
                    copy.merge(line, &At::parse(line).unwrap(), Origin::NONE);
                }
            }
            records.read(reader, Origin::NONE.next(), u64::MAX, usize::MAX, &mut out);
            for line in out.split(|&b| b == b'\n').filter(|l| !l.is_empty()) {
                copy.merge(line, &At::parse(line).unwrap(), Origin::NONE);
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
