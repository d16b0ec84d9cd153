//! The table of positions, and its changes feed.
//!
//! Each client has one record: the `AT` line of its latest position. The server that received the
//! position from the client wrote that line. The table is also an ordered *feed*. Each accepted
//! change gets the next sequence number, and its record moves to the tail of the feed. So the feed
//! contains every record once, the newest last.
//!
//! ```text
//!   oldest                                   newest
//!     │                                         │
//!   [ada 3] ⇄ [bob 7] ⇄ [eve 8] ⇄ [kiwi 12] ⇄ nothing yet
//!                          ▲                    ▲
//!            a reader that is behind    a reader that has read all
//! ```
//!
//! A link to a neighbour has no queue. It has a reader: a cursor in the feed, identified by a
//! [`ReaderId`]. A reader uses only a few bytes of memory, even if it still has to read many
//! records. If a record changes twice before the reader comes to it, the record is sent once. The
//! time to advance a reader, or to add a change, does not depend on the number of records.
//!
//! # Which of two records of one client wins
//!
//! Each record has an *epoch*, a number that the next paragraph explains. The record with the
//! greater epoch wins. If the epochs are equal, the record with the later [effective
//! time](crate::core::wire::posix_time::effective_time) wins. If these are equal too, the record
//! with the later stamp wins, and after that the record whose line has the greater bytes. All of
//! these values are sent with the record. So the order is total and the same on every server, even
//! if a server's clock is wrong. In the end, all servers have the same table.
//!
//! The epoch is 0 unless a server's clock is wrong. So only the other epochs are stored, in a map
//! beside the records. A server increases the epoch if one of its own clients sends a record that
//! would be stale only because of the clocks (see [`Records::merge_own`]). There are two cases. The
//! new record has a later stamp than the stored record, or the stored record is more than 120 s in
//! the future. So a server whose clock is a year ahead cannot freeze a record: the first update at
//! a server with a right clock replaces it. The epoch is sent with the record, so the update wins
//! on every server. A server that receives a record from a neighbour never changes the record's
//! epoch. Otherwise the tables at the end would depend on the order in which records arrive.
//!
//! # Tombstones
//!
//! An operator can order the herd to forget a client ([`Records::forget`]). A server then replaces
//! the client's record by a *tombstone*: an `AT` line with `-` in the place of the location. A
//! tombstone is a record like every other. It is in the feed, it is sent to neighbours and written
//! to journals, and it wins or loses by the same order. So it wins over the client's old record on
//! every server. Only [`Records::line`] does not find tombstones.
//!
//! The effective time of a tombstone is the time at which the client was forgotten, but always
//! later than the effective time of the replaced record. So the tombstone wins. It also expires
//! later than the replaced record. So a server that was down meanwhile, and still has the replaced
//! record, cannot bring this record back.
//!
//! The stamp of a tombstone is the stamp of the replaced record. The next `IAMAT` of the client has
//! a later stamp, so it wins, even if the client's clock is behind. An `IAMAT` with the same stamp
//! as the replaced record is stale.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;

use hashbrown::HashTable;
use slab::Slab;

use crate::core::base::invariants::ensure;
use crate::core::base::limits::{LimitValue, Limits};
pub use crate::core::table::line_store::Origin;
use crate::core::table::line_store::{LineStore, hash_of};
use crate::core::table::packed_store::PackedStore;
use crate::core::wire::message::At;
use crate::core::wire::posix_time::{MAX_LEAD_S, PosixTime};

/// The value of `Record::seq` at an index that has no record.
const FREE: u64 = 0;

/// The value of `Records::horizon` if records do not expire.
const NEVER: PosixTime = PosixTime::from_nanos(0);

/// The index that means "no record", at both ends of the feed.
const NONE: u32 = u32::MAX;

/// A table counts as full if fewer than this many bytes remain of `limits.max_record_bytes`. Nearly
/// all `AT` lines need more bytes.
const MIN_LINE_BYTES: usize = 64;

/// The approximate number of bytes that the allocator needs for its own data with each line.
const ALLOCATION_BYTES: usize = 16;

/// The clocks of two servers count as right if they differ by at most this many seconds. This is
/// part of the protocol, so it cannot be configured.
const CLOCK_TOLERANCE_S: u64 = 60;

/// The result of merging a record into the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// The record is the newest of its client. It was stored, and is now the last record of the
    /// feed.
    Accepted,
    /// The stored record of the client is the same or newer. Nothing changed.
    Stale,
    /// The record is older than `limits.record_ttl_ms`. Nothing changed.
    Expired,
    /// With the record, the table would have more than the maximum number of clients or of bytes.
    /// Only the count of refused records changed.
    Full,
    /// The line contains the name of a server that is not part of the herd, and the table cannot
    /// store another such name. Only the count of refused records changed.
    UnknownServer,
    /// The client is new, and the caller did not allow a new client. Nothing changed.
    NotAdmitted,
}

/// The result of [`Records::forget`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forgetting {
    /// Whether the client had a position that had not expired.
    pub had_position: bool,
    /// The epoch of the tombstone.
    pub epoch: u32,
    /// The tombstone, without an LF.
    pub line: Vec<u8>,
    /// Whether the tombstone was stored. Never [`Merge::Stale`], because a tombstone is newer than
    /// the record that it replaces.
    pub merge: Merge,
}

/// The source of a record, with the values that decide how a record from this source is merged.
#[derive(Clone, Copy)]
enum MergeSource {
    /// A record from a neighbour, or a tombstone that this server made. The record with the greater
    /// epoch wins. If the epochs are equal, the record with the newer line wins.
    Neighbour { epoch: u32, origin: Origin },
    /// A record from a client of this server. The new record also wins if the effective time of the
    /// stored record is after `latest`, because a right clock never gives such a time.
    Client { latest: PosixTime },
    /// A record from the journal. The limits on the size of the table do not apply.
    Journal { epoch: u32 },
}

/// The id of a reader. A reader is a cursor in the feed, from which changes are sent to a neighbour
/// or copied to a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderId(usize);

/// The result of looking up a client: the hash of the client's name, and the index of the client's
/// record, if there is one.
#[derive(Clone, Copy)]
pub struct Lookup {
    hash: u64,
    index: Option<u32>,
}

struct Reader {
    /// The index of the next record to read, or `NONE`.
    next: u32,
    /// The sequence number up to which this reader has read all changes.
    position: u64,
    /// Whether [`Records::seek`] still searches for the first record to read. All records from
    /// `next` on have to be read, and perhaps older records too.
    is_seeking: bool,
}

/// One change that [`Records::changes`] passes to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// The sequence number of the change.
    pub seq: u64,
    /// The epoch of the record.
    pub epoch: u32,
    /// The `AT` line or the tombstone, without an LF.
    pub line: &'a [u8],
}

/// Whether [`Records::changes`] has left changes unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// The reader has read all changes that the caller allowed (up to `up_to`).
    Nothing,
    /// There may be more changes. The maximum number of steps was reached, or the caller takes no
    /// more now.
    More,
}

/// The node of a record in the feed, which is a doubly linked list. `older` and `newer` are indices
/// of other records. The record's line has the same index in `Records::lines`.
struct Record {
    seq: u64,
    older: u32,
    newer: u32,
}

/// Returns the hash by which the table finds a client. The hash uses a random key. So a client
/// cannot choose names that all have the same hash.
fn client_hash(hasher: &RandomState, client: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write(client);
    hasher.finish()
}

/// Whether the record at `index` has expired: its effective time is before `horizon` (see
/// [`Records::expire_before`]).
#[inline]
fn has_expired(lines: &mut impl LineStore, index: u32, horizon: PosixTime) -> bool {
    let is_before = |(effective, _)| effective < horizon;
    horizon > NEVER && lines.unpack(index).rank.is_some_and(is_before)
}

/// Appends the words `EPOCH <epoch>` and a space, which precede the line of a record whose epoch is
/// not 0.
#[cold]
fn write_epoch(epoch: u32, out: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = write!(out, "EPOCH {epoch} ");
}

/// The table and its feed.
pub struct Records {
    by_client: HashTable<u32>,
    hasher: RandomState,
    /// The lines of the records. A `NaiveStore` would work too, but would need more memory.
    lines: PackedStore,
    records: Vec<Record>,
    /// The epochs that are not 0, by the index of the record. Nearly all records have epoch 0.
    epochs: HashMap<u32, u32>,
    /// The indices of the tombstones. There are few tombstones.
    tombstones: HashSet<u32>,
    /// A buffer for a line that is copied to a journal.
    copy_buffer: Vec<u8>,
    max_records: usize,
    oldest: u32,
    newest: u32,
    last_seq: u64,
    readers: Slab<Reader>,
    refused: u64,
    /// The number of bytes of all lines. `max_line_bytes` is its limit.
    line_bytes: usize,
    max_line_bytes: usize,
    digest: u64,
    /// A record expires when its effective time is before this time. With [`NEVER`], records do not
    /// expire.
    horizon: PosixTime,
    /// The index in `records` that [`Records::sweep`] checks next.
    next_to_sweep: u32,
}

impl Records {
    /// Creates an empty table with the given limits.
    #[must_use]
    pub fn new(limits: &Limits) -> Records {
        Records {
            by_client: HashTable::new(),
            hasher: RandomState::new(),
            lines: PackedStore::new(limits),
            records: Vec::new(),
            epochs: HashMap::new(),
            tombstones: HashSet::new(),
            copy_buffer: Vec::new(),
            max_records: limits.max_records.to_count().min(NONE as usize),
            oldest: NONE,
            newest: NONE,
            last_seq: 0,
            readers: Slab::new(),
            refused: 0,
            line_bytes: 0,
            max_line_bytes: limits.max_record_bytes.to_count(),
            digest: 0,
            horizon: NEVER,
            next_to_sweep: 0,
        }
    }

    /// Returns the maximum number of bytes of memory that the table can use under `limits`: for all
    /// lines, and for the fields of each record. A vector can have twice the capacity that it
    /// needs, so the fields count twice.
    #[must_use]
    pub fn max_memory_bytes(limits: &Limits) -> u64 {
        let by_bytes = limits.max_record_bytes / MIN_LINE_BYTES as u64;
        let records = limits.max_records.min(by_bytes);
        let overhead = 2 * (size_of::<Record>() + PackedStore::LINE_BYTES + size_of::<u32>())
            + ALLOCATION_BYTES;
        let unpacked = limits.unpacked_records.min(records);
        limits
            .max_record_bytes
            .saturating_add(records.saturating_mul(overhead as u64))
            .saturating_add(unpacked.saturating_mul(2 * PackedStore::UNPACKED_BYTES as u64))
    }

    /// Stores the names of the herd's servers. After this, no record from one of these servers is
    /// refused as [`Merge::UnknownServer`].
    pub fn add_server_names<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        for name in names {
            self.lines.add_server_name(name.as_bytes());
        }
    }

    /// Returns the number of records, tombstones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_client.len()
    }

    /// Returns the number of records that are tombstones.
    #[must_use]
    pub fn tombstones(&self) -> usize {
        self.tombstones.len()
    }

    /// Returns the number of clients that have a position. A position that has expired counts until
    /// it is swept.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.len() - self.tombstones()
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_client.is_empty()
    }

    /// Returns a number by which an operator can compare the tables of two servers: the sum of the
    /// hashes of all lines. Tables with the same lines have the same number. Tables with different
    /// lines nearly always have different numbers. But a peer can make up records so that two
    /// different tables have the same number.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Whether a record of a new client would be refused.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len() >= self.max_records || self.line_bytes + MIN_LINE_BYTES > self.max_line_bytes
    }

    /// Returns the number of records that were refused: as [`Merge::Full`] or
    /// [`Merge::UnknownServer`].
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Returns the sequence number of the latest change. 0 before the first change.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Sets the horizon. A record with an earlier effective time has expired: no client, neighbour
    /// or journal gets the record any more. [`Records::sweep`] removes the record later.
    ///
    /// All servers compute the same effective time from the record's line. So servers with the same
    /// `limits.record_ttl_ms` agree that a record has expired, once the clocks of all these servers
    /// have passed the time of expiry.
    pub fn expire_before(&mut self, horizon: PosixTime) {
        self.horizon = horizon;
    }

    /// Checks the next `count` indices of `records`, and removes the records that have expired.
    /// Returns the number of removed records.
    pub fn sweep(&mut self, count: usize) -> usize {
        let before = self.len();
        for _ in 0..count.min(self.records.len()) {
            let index = match self.records.get(self.next_to_sweep as usize) {
                Some(_) => self.next_to_sweep,
                None => 0,
            };
            self.next_to_sweep = index + 1;
            let is_used = self.records[index as usize].seq != FREE;
            if is_used && has_expired(&mut self.lines, index, self.horizon) {
                self.remove(index);
            }
        }
        before - self.len()
    }

    /// Removes a record.
    fn remove(&mut self, index: u32) {
        let hash = client_hash(&self.hasher, self.lines.client(index));
        let found = self.by_client.find_entry(hash, |&other| other == index);
        debug_assert!(found.is_ok(), "a record is found by its client");
        if let Ok(entry) = found {
            entry.remove();
        }
        self.unlink(index);
        let stored = self.lines.unpack(index);
        self.line_bytes -= stored.line.len();
        self.digest = self.digest.wrapping_sub(stored.hash);
        self.epochs.remove(&index);
        self.tombstones.remove(&index);
        self.lines.remove(index);
        self.records[index as usize] = Record {
            seq: FREE,
            older: NONE,
            newer: NONE,
        };
    }

    /// Returns the `AT` line of a client, with its LF. `None` if the client is not known, was
    /// forgotten, or its record has expired.
    #[must_use]
    pub fn line(&self, client: &[u8]) -> Option<Vec<u8>> {
        let index = self.find(client)?;
        if self.is_tombstone(index) {
            return None;
        }
        self.line_at(index)
    }

    /// Returns the client's stored line with its LF: the `AT` line or the tombstone. `None` if
    /// there is neither, or if the record has expired.
    #[must_use]
    pub fn record(&self, client: &[u8]) -> Option<Vec<u8>> {
        self.line_at(self.find(client)?)
    }

    fn is_tombstone(&self, index: u32) -> bool {
        !self.tombstones.is_empty() && self.tombstones.contains(&index)
    }

    fn line_at(&self, index: u32) -> Option<Vec<u8>> {
        let mut line = Vec::with_capacity(128);
        self.lines.write(index, &mut line);
        if self.horizon > NEVER && At::parse(&line)?.effective < self.horizon {
            return None;
        }
        line.push(b'\n');
        Some(line)
    }

    /// Returns the sequence number of the change that stored the client's record.
    #[must_use]
    pub fn seq(&self, client: &[u8]) -> Option<u64> {
        Some(self.records[self.find(client)? as usize].seq)
    }

    /// Returns the epoch of the client's record.
    #[must_use]
    pub fn epoch(&self, client: &[u8]) -> Option<u32> {
        Some(self.epoch_of(self.find(client)?))
    }

    fn find(&self, client: &[u8]) -> Option<u32> {
        self.lookup(client).index
    }

    /// Looks up a client by its name. The result is valid until the table changes.
    #[must_use]
    pub fn lookup(&self, client: &[u8]) -> Lookup {
        let hash = client_hash(&self.hasher, client);
        let same = |&index: &u32| self.lines.client(index) == client;
        let index = self.by_client.find(hash, same).copied();
        Lookup { hash, index }
    }

    /// Whether the client's stored record certainly has this line and this epoch. If so, the caller
    /// need not parse the line. `false` does not mean that the record differs: a packed line is not
    /// compared.
    #[must_use]
    pub fn is_stored(&self, lookup: Lookup, epoch: u32, line: &[u8]) -> bool {
        lookup.index.is_some_and(|stored_index| {
            self.lines.certainly_equals(stored_index, line) && self.epoch_of(stored_index) == epoch
        })
    }

    fn epoch_of(&self, index: u32) -> u32 {
        if self.epochs.is_empty() {
            return 0;
        }
        self.epochs.get(&index).copied().unwrap_or(0)
    }

    /// Returns the epoch of the record that changed last.
    #[must_use]
    pub fn last_epoch(&self) -> u32 {
        self.epoch_of(self.newest)
    }

    /// Stores a neighbour's record of epoch 0, if it is the newest of its client. `line` is the
    /// `AT` line without its LF, and `at` is the parsed line.
    pub fn merge(&mut self, line: &[u8], at: &At<'_>, origin: Origin) -> Merge {
        self.merge_at(self.lookup(at.client), line, at, 0, origin)
    }

    /// Like [`Records::merge`], for a record of any epoch. The caller has already looked up the
    /// client.
    pub fn merge_at(
        &mut self,
        lookup: Lookup,
        line: &[u8],
        at: &At<'_>,
        epoch: u32,
        origin: Origin,
    ) -> Merge {
        let source = MergeSource::Neighbour { epoch, origin };
        self.merge_from(lookup, line, at, source, || true)
    }

    /// Stores the record in `line`, which a client sent to this server, if it is the client's
    /// newest. `wall` is this server's wall clock. If the stored record would win only because of a
    /// wrong clock, the new record wins: it gets the stored record's epoch plus 1.
    ///
    /// `may_add_client` returns whether a new client may get a record. It is called only if nothing
    /// else prevents the merge. A client is also new if its record is a tombstone or has expired.
    pub fn merge_own(
        &mut self,
        line: &[u8],
        at: &At<'_>,
        wall: PosixTime,
        may_add_client: impl FnOnce() -> bool,
    ) -> Merge {
        let latest = wall.plus_seconds(MAX_LEAD_S + CLOCK_TOLERANCE_S);
        let source = MergeSource::Client { latest };
        self.merge_from(self.lookup(at.client), line, at, source, may_add_client)
    }

    /// Replaces the record of `client` by a tombstone that names `server`, which is this server.
    /// `wall` is this server's wall clock. A client without a record gets a tombstone too, because
    /// a neighbour may have a record of the client.
    pub fn forget(&mut self, client: &[u8], server: &str, wall: PosixTime) -> Forgetting {
        let lookup = self.lookup(client);
        // If the operator sets the clock back by more than `limits.record_ttl_ms`, the present time
        // is before the horizon.
        let wall = wall.max(self.horizon);
        let (mut forgotten, mut epoch, mut had_position) = (wall, 0, false);
        let (mut time, mut stamp) = (Vec::new(), wall);
        if let Some(index) = lookup.index {
            epoch = self.epoch_of(index);
            let is_tombstone = self.is_tombstone(index);
            let stored = self.lines.unpack(index);
            if let Some((effective, stored_stamp)) = stored.rank {
                had_position = !is_tombstone && effective >= self.horizon;
                stamp = stored_stamp;
                // The line can express the skew in whole nanoseconds only: a part below is cut off.
                // With 2 ns more, the tombstone is later than the record in any case.
                forgotten = wall.max(effective.plus_nanos(2));
            }
            let start = memchr::memrchr(b' ', stored.line).map_or(0, |space| space + 1);
            time.extend_from_slice(&stored.line[start..]);
        } else {
            // The client's clock may be behind this server's clock. With an earlier stamp in the
            // tombstone, the next `IAMAT` of the client is not stale.
            stamp = wall.minus_seconds(CLOCK_TOLERANCE_S);
            stamp.write(&mut time);
        }
        let mut line = Vec::with_capacity(128);
        At::write_tombstone(&mut line, server, client, (&time, stamp), forgotten);
        let origin = Origin::LOCAL;
        let source = MergeSource::Neighbour { epoch, origin };
        let merge = match At::parse(&line) {
            Some(at) => self.merge_from(lookup, &line, &at, source, || true),
            None => Merge::Full,
        };
        debug_assert_ne!(merge, Merge::Stale, "a tombstone wins");
        Forgetting {
            had_position,
            epoch,
            line,
            merge,
        }
    }

    #[inline(always)] // each caller needs only a part of the code
    fn merge_from(
        &mut self,
        lookup: Lookup,
        line: &[u8],
        at: &At<'_>,
        source: MergeSource,
        may_add_client: impl FnOnce() -> bool,
    ) -> Merge {
        let Lookup {
            hash,
            index: stored_index,
        } = lookup;
        if at.effective < self.horizon {
            return Merge::Expired;
        }
        let (mut stored_bytes, mut stored_hash, mut is_new) = (0, 0, true);
        let (mut epoch, origin, is_limited) = match source {
            MergeSource::Neighbour { epoch, origin } => (epoch, origin, true),
            MergeSource::Client { .. } => (0, Origin::LOCAL, true),
            MergeSource::Journal { epoch } => (epoch, Origin::LOCAL, false),
        };
        if let Some(index) = stored_index {
            let stored_epoch = self.epoch_of(index);
            let is_tombstone = self.is_tombstone(index);
            let stored = self.lines.unpack(index);
            is_new = is_tombstone || stored.rank.is_some_and(|(time, _)| time < self.horizon);
            match source {
                MergeSource::Client { .. } if stored.is_older(line, at) => epoch = stored_epoch,
                MergeSource::Client { latest } => match stored_epoch.checked_add(1) {
                    Some(next) if stored.wins_only_by_clock_error(at, latest) => epoch = next,
                    Some(_) | None => return Merge::Stale,
                },
                MergeSource::Neighbour { epoch, .. } | MergeSource::Journal { epoch } => {
                    let is_newer = match epoch.cmp(&stored_epoch) {
                        Ordering::Less => false,
                        Ordering::Equal => stored.is_older(line, at),
                        Ordering::Greater => true,
                    };
                    if !is_newer {
                        return Merge::Stale;
                    }
                }
            }
            (stored_bytes, stored_hash) = (stored.line.len(), stored.hash);
        }
        let line_bytes = self.line_bytes - stored_bytes + line.len();
        let too_many = stored_index.is_none() && self.len() >= self.max_records;
        let too_long = line_bytes > self.max_line_bytes.max(self.line_bytes);
        // A client with a record can always be forgotten. So a tombstone may exceed the limit: it
        // can be a little longer than the line that it replaces.
        let is_forgotten = stored_index.is_some() && too_long && at.is_tombstone();
        if is_limited && (too_many || too_long) && !is_forgotten {
            self.refused += 1;
            return Merge::Full;
        }
        if is_new && !may_add_client() {
            return Merge::NotAdmitted;
        }
        let line_hash = hash_of(line);
        let index = match stored_index {
            None => self.add(hash, line, at, origin),
            Some(index) => {
                let replaced = self.lines.replace(index, (line, line_hash), at, origin);
                replaced.map(|()| {
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
        if at.is_tombstone() {
            self.tombstones.insert(index);
        } else if !self.tombstones.is_empty() {
            self.tombstones.remove(&index);
        }
        self.line_bytes = line_bytes;
        self.digest = self
            .digest
            .wrapping_sub(stored_hash)
            .wrapping_add(line_hash);
        self.last_seq += 1;
        self.append(index);
        Merge::Accepted
    }

    /// Adds the record of a new client to the table, but not to the feed. Returns `None` if
    /// [`LineStore::add`] returns `None`.
    fn add(&mut self, client_hash: u64, line: &[u8], at: &At<'_>, origin: Origin) -> Option<u32> {
        let index = self.lines.add(line, at, origin)?;
        let record = Record {
            seq: FREE,
            older: NONE,
            newer: NONE,
        };
        // The record can use the index of a removed record.
        match self.records.get_mut(index as usize) {
            Some(free) => *free = record,
            None => self.records.push(record),
        }
        let (lines, hasher) = (&self.lines, &self.hasher);
        let hash = |&other: &u32| self::client_hash(hasher, lines.client(other));
        self.by_client.insert_unique(client_hash, index, hash);
        Some(index)
    }

    /// Removes a record from the feed. A reader that would read this record next will read the next
    /// newer record instead.
    #[inline]
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

    /// Appends a record to the feed, as the latest change. Readers that had read everything will
    /// read this record next.
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

    /// Opens a reader of the changes whose sequence number is greater than `after` (0: all
    /// changes).
    pub fn open_reader(&mut self, after: u64) -> ReaderId {
        let mut next = NONE;
        if after == 0 {
            next = self.oldest;
        } else {
            let mut index = self.newest;
            // This loop takes one step for each record that the new reader will read.
            while index != NONE && self.records[index as usize].seq > after {
                next = index;
                index = self.records[index as usize].older;
            }
        }
        ReaderId(self.readers.insert(Reader {
            next,
            position: after,
            is_seeking: false,
        }))
    }

    /// Like [`Records::open_reader`], but the time does not depend on the number of records. Before
    /// the reader is used, call [`Records::seek`] until it returns `true`.
    pub fn open_seeking_reader(&mut self, after: u64) -> ReaderId {
        let next = if after == 0 { self.oldest } else { NONE };
        ReaderId(self.readers.insert(Reader {
            next,
            position: after,
            is_seeking: after > 0,
        }))
    }

    /// Searches for the first record that the reader has to read, from the newest record backwards.
    /// Looks at no more than `steps` records in one call. Returns whether the search is finished.
    pub fn seek(&mut self, reader: ReaderId, steps: usize) -> bool {
        let reader = &mut self.readers[reader.0];
        if !reader.is_seeking {
            return true;
        }
        let mut older = match reader.next {
            NONE => self.newest,
            next => self.records[next as usize].older,
        };
        for _ in 0..steps {
            if older == NONE || self.records[older as usize].seq <= reader.position {
                reader.is_seeking = false;
                return true;
            }
            reader.next = older;
            older = self.records[older as usize].older;
        }
        false
    }

    /// Passes the next changes to `tell`, oldest first. Skips expired records. Stops before the
    /// first change after `up_to`, and after `steps` records, including the skipped ones. Also
    /// stops when `tell` returns `false`, which means that the caller takes no further change now.
    pub fn changes(
        &mut self,
        reader: ReaderId,
        up_to: u64,
        steps: usize,
        mut tell: impl FnMut(Change<'_>) -> bool,
    ) -> Unread {
        let (reader, horizon) = (&mut self.readers[reader.0], self.horizon);
        if reader.is_seeking {
            return Unread::More;
        }
        let mut takes_more = true;
        for _ in 0..steps {
            let index = reader.next;
            if index == NONE {
                break;
            }
            let Record { seq, newer, .. } = self.records[index as usize];
            if seq > up_to {
                return Unread::Nothing;
            }
            if !takes_more {
                return Unread::More;
            }
            if !has_expired(&mut self.lines, index, horizon) {
                self.copy_buffer.clear();
                self.lines.write(index, &mut self.copy_buffer);
                let epoch = match self.epochs.is_empty() {
                    true => 0,
                    false => self.epochs.get(&index).copied().unwrap_or(0),
                };
                let line = &*self.copy_buffer;
                takes_more = tell(Change { seq, epoch, line });
            }
            (reader.position, reader.next) = (seq, newer);
        }
        if reader.next != NONE {
            return Unread::More;
        }
        // The last records may have expired and been removed, so the loop did not reach their
        // sequence numbers. The reader has nothing left to read, so its position moves to the end.
        // Otherwise `Cursor::has_caught_up` (in `core::session::follower`) would stay false.
        reader.position = reader.position.max(self.last_seq.min(up_to));
        Unread::Nothing
    }

    /// Stores a record from a journal. `seq` is the sequence number that the record had when it was
    /// written. The caller must restore records in the order of these numbers. The limits on the
    /// size of the table do not apply, because the server may already have answered clients that
    /// these records are stored.
    pub fn restore(&mut self, seq: u64, epoch: u32, line: &[u8], at: &At<'_>) -> Merge {
        self.last_seq = self.last_seq.max(seq.saturating_sub(1));
        self.lines.add_server_name(at.server);
        let source = MergeSource::Journal { epoch };
        let merged = self.merge_from(self.lookup(at.client), line, at, source, || true);
        self.skip_seq(seq);
        merged
    }

    /// Marks the sequence number `seq` as used, without a record. The next change gets a later
    /// number.
    pub fn skip_seq(&mut self, seq: u64) {
        self.last_seq = self.last_seq.max(seq);
    }

    /// Returns the number of bytes of all lines, not packed.
    #[must_use]
    pub fn line_bytes(&self) -> usize {
        self.line_bytes
    }

    /// Returns the number of records whose epoch is not 0.
    #[must_use]
    pub fn nonzero_epochs(&self) -> usize {
        self.epochs.len()
    }

    /// Passes the next records to `on_record`, in order, to copy the records to a journal. The
    /// arguments of `on_record` are the sequence number, the epoch and the line of one record.
    /// `on_record` returns the number of bytes that it wrote. The copy stops when at least `bytes`
    /// bytes are written, or when there are no more records.
    pub fn copy(
        &mut self,
        reader: ReaderId,
        bytes: usize,
        mut on_record: impl FnMut(u64, u32, &[u8]) -> usize,
    ) {
        let reader = &mut self.readers[reader.0];
        let mut written = 0;
        while reader.next != NONE && written < bytes {
            let record = &self.records[reader.next as usize];
            if !has_expired(&mut self.lines, reader.next, self.horizon) {
                self.copy_buffer.clear();
                self.lines.write(reader.next, &mut self.copy_buffer);
                let epoch = match self.epochs.is_empty() {
                    true => 0,
                    false => self.epochs.get(&reader.next).copied().unwrap_or(0),
                };
                written += on_record(record.seq, epoch, &self.copy_buffer);
            }
            reader.position = record.seq;
            reader.next = record.newer;
        }
    }

    /// Returns the number of open readers.
    #[must_use]
    pub fn readers(&self) -> usize {
        self.readers.len()
    }

    /// Whether the reader is open.
    #[must_use]
    pub fn has_reader(&self, reader: ReaderId) -> bool {
        self.readers.contains(reader.0)
    }

    /// Checks that the feed contains every record once, in order, and that no reader has skipped a
    /// record. For tests only, because the check walks through the whole feed.
    pub(crate) fn check_invariants(&self) -> Result<(), String> {
        let (mut index, mut older, mut seq, mut count) = (self.oldest, NONE, 0, 0);
        while index != NONE {
            let record = &self.records[index as usize];
            ensure!(
                record.older == older,
                "change {} does not follow its elder",
                record.seq
            );
            ensure!(
                record.seq > seq,
                "change {} follows change {seq}",
                record.seq
            );
            (older, seq, count) = (index, record.seq, count + 1);
            ensure!(count <= self.records.len(), "the feed is a circle");
            index = record.newer;
        }
        ensure!(
            older == self.newest,
            "the feed does not end with its newest record"
        );
        ensure!(
            count
                == self
                    .records
                    .iter()
                    .filter(|record| record.seq != FREE)
                    .count(),
            "{count} of {} records are in the feed",
            self.len()
        );
        ensure!(
            count == self.by_client.len(),
            "{count} records of {} clients",
            self.by_client.len()
        );
        for &index in &self.tombstones {
            let record = self.records.get(index as usize);
            ensure!(
                record.is_some_and(|record| record.seq != FREE),
                "a tombstone has no record"
            );
        }
        ensure!(
            seq <= self.last_seq,
            "change {seq} is later than the last, {}",
            self.last_seq
        );
        for (_, reader) in &self.readers {
            // The reader's position is before the sequence number of the next record.
            let next = (reader.next != NONE).then(|| self.records[reader.next as usize].seq);
            ensure!(
                next.is_none_or(|next| next > reader.position),
                "a reader at {} is to read {next:?}",
                reader.position
            );
            let previous = match reader.next {
                NONE => self.newest,
                next => self.records[next as usize].older,
            };
            let passed = (previous != NONE).then(|| self.records[previous as usize].seq);
            ensure!(
                reader.is_seeking || passed.is_none_or(|passed| passed <= reader.position),
                "a reader at {} passed over {passed:?}",
                reader.position
            );
        }
        Ok(())
    }

    /// Closes the reader.
    pub fn close_reader(&mut self, reader: ReaderId) {
        self.readers.try_remove(reader.0);
    }

    /// Whether the reader has read all changes so far.
    #[must_use]
    pub fn is_caught_up(&self, reader: ReaderId) -> bool {
        self.readers[reader.0].next == NONE
    }

    /// Returns the sequence number up to which the reader has read everything.
    #[must_use]
    pub fn position(&self, reader: ReaderId) -> u64 {
        self.readers[reader.0].position
    }

    /// Appends the next records to `out`, oldest first. Skips records from the origin `except`, and
    /// expired records. Stops before the first change after `up_to`, or when `out` contains at
    /// least `stop_at_bytes` bytes, or when there are no more records. Returns the number of
    /// appended records.
    pub fn read(
        &mut self,
        reader: ReaderId,
        except: Origin,
        up_to: u64,
        stop_at_bytes: usize,
        out: &mut Vec<u8>,
    ) -> usize {
        let (reader, horizon) = (&mut self.readers[reader.0], self.horizon);
        let mut appended = 0;
        while reader.next != NONE && out.len() < stop_at_bytes {
            let index = reader.next;
            let record = &self.records[index as usize];
            if record.seq > up_to {
                return appended;
            }
            if self.lines.origin(index) != except && !has_expired(&mut self.lines, index, horizon) {
                if !self.epochs.is_empty()
                    && let Some(epoch) = self.epochs.get(&index)
                {
                    write_epoch(*epoch, out);
                }
                self.lines.write(index, out);
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

    fn merge_neighbour_record(records: &mut Records, client: &str, stamp: u32) -> Merge {
        merge(
            records,
            &format!("AT Riley +0.000000000 {client} +1+2 {stamp}"),
            Origin::LOCAL,
        )
    }

    /// Merges a record that a client sends to `server`, whose clock shows `wall` seconds.
    fn merge_client_record(
        records: &mut Records,
        server: &str,
        wall: u32,
        stamp: u32,
    ) -> (Merge, String) {
        let skew = i64::from(wall) - i64::from(stamp);
        let line = format!("AT {server} {skew:+}.000000000 a +1+2 {stamp}");
        let at = At::parse(line.as_bytes()).unwrap();
        let wall = PosixTime::from_nanos(u64::from(wall) * 1_000_000_000);
        (records.merge_own(line.as_bytes(), &at, wall, || true), line)
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
    fn the_newest_record_wins_in_any_order() {
        let mut records = table(10);
        assert_eq!(
            merge_neighbour_record(&mut records, "a", 5),
            Merge::Accepted
        );
        assert_eq!(merge_neighbour_record(&mut records, "a", 4), Merge::Stale);
        assert_eq!(
            merge_neighbour_record(&mut records, "a", 5),
            Merge::Stale,
            "the same again is no change"
        );
        assert_eq!(
            merge_neighbour_record(&mut records, "a", 6),
            Merge::Accepted
        );
        assert_eq!(
            records.line(b"a"),
            Some(b"AT Riley +0.000000000 a +1+2 6\n".to_vec())
        );
        assert_eq!((records.len(), records.last_seq()), (1, 2));
    }

    #[test]
    fn a_client_s_future_time_does_not_freeze_its_record() {
        let mut records = table(10);
        let mut merge_client_record =
            |wall, stamp| merge_client_record(&mut records, "Riley", wall, stamp).0;
        assert_eq!(merge_client_record(100, 31_536_100), Merge::Accepted);
        // The client's clock is right again. The new records are stale until the effective time of
        // the stored record has passed.
        assert_eq!(merge_client_record(120, 120), Merge::Stale);
        assert_eq!(merge_client_record(161, 161), Merge::Accepted);
        assert_eq!(records.last_epoch(), 0, "nothing is wrong with our clock");
    }

    #[test]
    fn a_client_roams_between_servers_with_different_clocks() {
        for behind in [1, 59, 61, 90, 120, 121, 86_400] {
            let mut records = table(10);
            for step in 0..10 {
                let right = 1_000_000 + step;
                let (server, wall) = match step % 2 {
                    0 => ("Riley", right),
                    _ => ("Jaquez", right - behind),
                };
                let (merged, line) = merge_client_record(&mut records, server, wall, right);
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
    fn a_server_a_year_ahead_does_not_freeze_records() {
        const YEAR: u32 = 31_536_000;
        let mut tables = [table(10), table(10)];
        let (wrong, right) = {
            let [a, b] = &mut tables;
            (a, b)
        };
        let merge = |to: &mut Records, line: &str, epoch: u32| {
            let at = At::parse(line.as_bytes()).unwrap();
            let lookup = to.lookup(b"a");
            to.merge_at(lookup, line.as_bytes(), &at, epoch, Origin::LOCAL)
        };
        let (merged, frozen) = merge_client_record(wrong, "Riley", 1_000 + YEAR, 1_000 + YEAR);
        assert_eq!(merged, Merge::Accepted);
        assert_eq!(merge(right, &frozen, 0), Merge::Accepted);
        // The new stamp is older than the stored stamp, but the clock of the server that stores the
        // new record is right.
        let (merged, line) = merge_client_record(right, "Jaquez", 1_010, 1_010);
        assert_eq!((merged, right.last_epoch()), (Merge::Accepted, 1));
        assert_eq!(merge(wrong, &line, 1), Merge::Accepted);
        assert_eq!(merge(wrong, &frozen, 0), Merge::Stale);
        assert_eq!(merge(right, &frozen, 0), Merge::Stale);
        assert_eq!(
            merge_client_record(right, "Jaquez", 1_011, 1_009).0,
            Merge::Stale
        );
        // The server with the wrong clock uses the new epoch. It cannot stop the other server from
        // beginning the next epoch.
        let (merged, frozen) = merge_client_record(wrong, "Riley", 1_012 + YEAR, 1_012 + YEAR);
        assert_eq!((merged, wrong.last_epoch()), (Merge::Accepted, 1));
        assert_eq!(merge(right, &frozen, 1), Merge::Accepted);
        let (merged, line) = merge_client_record(right, "Jaquez", 1_020, 1_020);
        assert_eq!((merged, right.last_epoch()), (Merge::Accepted, 2));
        assert_eq!(merge(wrong, &line, 2), Merge::Accepted);
        assert_eq!(wrong.line(b"a"), right.line(b"a"));
        assert_eq!(wrong.digest(), right.digest());
    }

    #[test]
    fn the_maximum_epoch_is_never_exceeded() {
        let mut records = table(10);
        let line = "AT Riley +0.000000000 a +1+2 5000000";
        let at = At::parse(line.as_bytes()).unwrap();
        let lookup = records.lookup(b"a");
        let last = records.merge_at(lookup, line.as_bytes(), &at, u32::MAX, Origin::LOCAL);
        assert_eq!(last, Merge::Accepted);
        assert_eq!(
            merge_client_record(&mut records, "Riley", 1_000, 1_000).0,
            Merge::Stale
        );
        assert_eq!(records.last_epoch(), u32::MAX);
    }

    #[test]
    fn readers_and_the_journal_get_the_epoch() {
        let mut records = table(10);
        merge_neighbour_record(&mut records, "b", 1);
        let line = b"AT Riley +0.000000000 a +1+2 1";
        let at = At::parse(line).unwrap();
        let lookup = records.lookup(b"a");
        records.merge_at(lookup, line, &at, 7, Origin::LOCAL);
        assert!(!records.is_stored(records.lookup(b"a"), 6, line));
        let reader = records.open_reader(0);
        let mut out = Vec::new();
        records.read(reader, Origin::LOCAL.next(), u64::MAX, usize::MAX, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "AT Riley +0.000000000 b +1+2 1\nEPOCH 7 AT Riley +0.000000000 a +1+2 1\n"
        );
        let reader = records.open_reader(0);
        let mut copied = Vec::new();
        records.copy(reader, usize::MAX, |seq, epoch, line| {
            copied.push((seq, epoch));
            line.len()
        });
        assert_eq!(copied, [(1, 0), (2, 7)]);
        let mut back = table(10);
        back.restore(2, 7, line, &at);
        assert_eq!((back.last_seq(), back.last_epoch()), (2, 7));
    }

    #[test]
    fn journal_records_are_restored_above_the_limits() {
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
        assert_eq!(merge_neighbour_record(&mut records, "new", 1), Merge::Full);
    }

    #[test]
    fn ties_go_to_the_later_stamp_and_then_to_the_greater_bytes() {
        // All three lines have the effective time 100. For the last two lines, this is the stamp.
        // For the first line, this is 60 s after the receipt at 40.
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
            assert_eq!(merge(&mut records, line, Origin::LOCAL), expected, "{line}");
        }
    }

    #[test]
    fn a_full_table_still_updates_known_clients() {
        let mut records = table(1);
        assert_eq!(
            merge_neighbour_record(&mut records, "a", 1),
            Merge::Accepted
        );
        assert_eq!(merge_neighbour_record(&mut records, "b", 1), Merge::Full);
        assert_eq!(
            merge_neighbour_record(&mut records, "a", 2),
            Merge::Accepted
        );
    }

    #[test]
    fn unknown_server_names_do_not_crowd_out_the_herd_s() {
        let mut records = table(10);
        records.add_server_names(["Riley", "Jaquez"]);
        let mut from = |server: &str, stamp: u32| {
            let line = format!("AT {server} +0.000000000 a +1+2 {stamp}");
            merge(&mut records, &line, Origin::LOCAL)
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
    fn the_table_has_a_byte_limit() {
        let line = |stamp: &str| format!("AT Riley +0.000000000 a +1+2 {stamp}");
        let max_record_bytes = line("1").len() as u64;
        let mut records = Records::new(&Limits {
            max_record_bytes,
            ..Limits::default()
        });
        assert_eq!(
            merge(&mut records, &line("1"), Origin::LOCAL),
            Merge::Accepted
        );
        assert_eq!(merge(&mut records, &line("22"), Origin::LOCAL), Merge::Full);
        assert_eq!(
            merge(&mut records, &line("2"), Origin::LOCAL),
            Merge::Accepted,
            "no longer than before"
        );
        assert_eq!(merge_neighbour_record(&mut records, "b", 1), Merge::Full);
    }

    #[test]
    fn a_reader_gets_each_record_once_in_its_newest_version() {
        let mut records = table(10);
        let (local, origin) = (Origin::LOCAL, Origin::LOCAL.next());
        merge_neighbour_record(&mut records, "a", 1);
        merge_neighbour_record(&mut records, "b", 1);
        let reader = records.open_reader(0);
        merge_neighbour_record(&mut records, "a", 2);
        merge_neighbour_record(&mut records, "a", 3);
        assert_eq!(read_all(&mut records, reader, origin), "b@1 a@3");
        assert!(records.is_caught_up(reader));
        assert_eq!(records.position(reader), 4);
        merge_neighbour_record(&mut records, "a", 4);
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
            read_all(&mut records, second, local.next().next()),
            "a@4 c@1"
        );
    }

    #[test]
    fn a_reader_resumes_where_the_full_buffer_stopped_it() {
        let mut records = table(10);
        for client in ["a", "b", "c"] {
            merge_neighbour_record(&mut records, client, 1);
        }
        let reader = records.open_reader(0);
        let mut out = Vec::new();
        assert_eq!(
            records.read(reader, Origin::LOCAL.next(), u64::MAX, 40, &mut out),
            2
        );
        assert_eq!(records.position(reader), 2);
        assert_eq!(read_all(&mut records, reader, Origin::LOCAL.next()), "c@1");
    }

    fn seconds(wall: u32) -> PosixTime {
        PosixTime::from_nanos(u64::from(wall) * 1_000_000_000)
    }

    /// Forgets client `a` at `server`, whose clock shows `wall` seconds. Returns whether `a`
    /// had a position, and the line that a link sends for the tombstone.
    fn forget(records: &mut Records, server: &str, wall: u32) -> (bool, String) {
        let forgetting = records.forget(b"a", server, seconds(wall));
        assert_eq!(forgetting.merge, Merge::Accepted);
        assert_eq!((records.line(b"a"), records.tombstones()), (None, 1));
        records.check_invariants().unwrap();
        let line = String::from_utf8(forgetting.line).unwrap();
        let sent_line = match forgetting.epoch {
            0 => line,
            epoch => format!("EPOCH {epoch} {line}"),
        };
        (forgetting.had_position, sent_line)
    }

    #[test]
    fn a_forgotten_client_is_not_found_until_it_moves() {
        let mut records = table(1);
        assert_eq!(
            merge_neighbour_record(&mut records, "a", 100),
            Merge::Accepted
        );
        let (had_position, tombstone) = forget(&mut records, "Jaquez", 160);
        assert!(had_position);
        assert_eq!(tombstone, "AT Jaquez +60.000000000 a - 100");
        assert_eq!((records.len(), records.positions()), (1, 0));
        assert_eq!(
            merge_neighbour_record(&mut records, "a", 100),
            Merge::Stale,
            "a neighbour that lagged sends it again"
        );
        assert_eq!(merge_neighbour_record(&mut records, "a", 159), Merge::Stale);
        assert_eq!(
            merge_client_record(&mut records, "Riley", 161, 100).0,
            Merge::Stale
        );
        assert_eq!(
            merge_neighbour_record(&mut records, "b", 1),
            Merge::Full,
            "it keeps its place"
        );
        let reader = records.open_reader(0);
        let mut out = Vec::new();
        records.read(reader, Origin::LOCAL.next(), u64::MAX, usize::MAX, &mut out);
        assert_eq!(out, format!("{tombstone}\n").as_bytes());
        assert_eq!(
            merge_client_record(&mut records, "Riley", 161, 161).0,
            Merge::Accepted
        );
        assert_eq!((records.positions(), records.tombstones()), (1, 0));
        assert!(records.line(b"a").is_some());
    }

    #[test]
    fn the_next_update_wins_over_a_tombstone_whatever_the_clocks_are() {
        let servers = [-86_400, -121, -61, -1, 0, 1, 61, 121, 86_400];
        let clients = [-86_400, -61, -59, -1, 0, 1, 59, 60, 61, 86_400];
        let right = 1_000_000;
        for forgetting_server in servers {
            for receiving_server in servers {
                for client in clients {
                    let mut records = table(10);
                    let at = |clock: i32, time: i32| (time + clock) as u32;
                    let name = format!(
                        "servers {forgetting_server} and {receiving_server}, client {client}"
                    );
                    let (merged, old) = merge_client_record(
                        &mut records,
                        "Riley",
                        at(receiving_server, right),
                        at(client, right),
                    );
                    assert_eq!(merged, Merge::Accepted, "{name}");
                    forget(&mut records, "Jaquez", at(forgetting_server, right + 10));
                    assert_eq!(
                        merge(&mut records, &old, Origin::LOCAL),
                        Merge::Stale,
                        "{name}"
                    );
                    let (next, _) = merge_client_record(
                        &mut records,
                        "Riley",
                        at(receiving_server, right + 20),
                        at(client, right + 20),
                    );
                    assert_eq!(next, Merge::Accepted, "{name}");
                }
            }
        }
    }

    #[test]
    fn a_known_client_can_be_forgotten_though_the_table_is_full() {
        let line = "AT Riley +0.000000000 a +1+2 100";
        let mut tables = [(); 2].map(|()| {
            Records::new(&Limits {
                max_record_bytes: line.len() as u64,
                ..Limits::default()
            })
        });
        for records in &mut tables {
            assert_eq!(merge(records, line, Origin::LOCAL), Merge::Accepted);
        }
        let (_, tombstone) = forget(&mut tables[0], "Washington", 1_000_000);
        assert!(tombstone.len() > line.len(), "{tombstone}");
        let merged = merge(&mut tables[1], &tombstone, Origin::LOCAL.next());
        assert_eq!(merged, Merge::Accepted);
        assert_eq!(tables[1].line(b"a"), None);
        assert_eq!(merge_neighbour_record(&mut tables[1], "b", 1), Merge::Full);
        assert!(tables[1].forget(b"b", "Riley", seconds(1)).merge == Merge::Full);
    }

    #[test]
    fn a_tombstone_of_an_unknown_client_wins_over_what_a_neighbour_had() {
        let mut records = table(10);
        let (had_position, tombstone) = forget(&mut records, "Riley", 1_000);
        assert!(!had_position);
        assert_eq!(tombstone, "AT Riley +60.000000000 a - 940.000000000");
        assert_eq!(merge_neighbour_record(&mut records, "a", 999), Merge::Stale);
        assert!(!forget(&mut records, "Riley", 1_100).0, "once more");
        let (behind, _) = merge_client_record(&mut records, "Riley", 1_010, 955);
        assert_eq!(behind, Merge::Accepted, "its clock is 55 s behind");
    }

    #[test]
    fn a_tombstone_outlives_the_record_that_it_replaced() {
        let mut records = table(10);
        // The server's clock was a day ahead.
        let (merged, old) = merge_client_record(&mut records, "Riley", 87_400, 87_400);
        assert_eq!(merged, Merge::Accepted);
        forget(&mut records, "Jaquez", 1_000);
        records.expire_before(seconds(87_400));
        assert_eq!(records.sweep(10), 0);
        assert_eq!(merge(&mut records, &old, Origin::LOCAL), Merge::Stale);
        records.expire_before(seconds(87_401));
        assert_eq!((records.sweep(10), records.tombstones()), (1, 0));
        assert_eq!(merge(&mut records, &old, Origin::LOCAL), Merge::Expired);
        records.check_invariants().unwrap();
    }

    #[test]
    fn a_new_client_is_asked_about_only_if_nothing_else_is_in_the_way() {
        let limits = Limits {
            max_records: 2,
            ..Limits::default()
        };
        let mut records = Records::new(&limits);
        let merge_client_record = |records: &mut Records, client: &str, stamp: u32, may: bool| {
            let line = format!("AT Riley +0.000000000 {client} +1+2 {stamp}");
            let at = At::parse(line.as_bytes()).unwrap();
            let mut asked = false;
            let merged = records.merge_own(line.as_bytes(), &at, seconds(stamp), || {
                asked = true;
                may
            });
            (merged, asked)
        };
        let refused = (Merge::NotAdmitted, true);
        assert_eq!(merge_client_record(&mut records, "a", 100, false), refused);
        assert_eq!((records.len(), records.last_seq()), (0, 0));
        assert_eq!(
            merge_client_record(&mut records, "a", 100, true),
            (Merge::Accepted, true)
        );
        assert_eq!(
            merge_client_record(&mut records, "a", 101, false),
            (Merge::Accepted, false)
        );
        assert_eq!(
            merge_client_record(&mut records, "a", 99, false),
            (Merge::Stale, false)
        );
        records.forget(b"a", "Riley", seconds(102));
        assert_eq!(
            merge_client_record(&mut records, "a", 110, false),
            refused,
            "forgotten"
        );
        assert_eq!(records.tombstones(), 1, "a refused one changes nothing");
        records.expire_before(seconds(103));
        assert_eq!(
            merge_client_record(&mut records, "b", 102, false),
            (Merge::Expired, false)
        );
        assert_eq!(
            merge_client_record(&mut records, "b", 110, true),
            (Merge::Accepted, true)
        );
        assert_eq!(
            merge_client_record(&mut records, "c", 110, true),
            (Merge::Full, false)
        );
        records.expire_before(seconds(111));
        assert_eq!(
            merge_client_record(&mut records, "b", 112, false),
            refused,
            "expired"
        );
    }

    proptest! {
        /// Tables that receive the same records and tombstones in different orders are equal at the
        /// end. If the newest record is a tombstone, no table has a position of the client.
        #[test]
        fn order_of_arrival_decides_nothing_of_what_is_forgotten(
            steps in proptest::collection::vec((0usize..3, any::<bool>(), 900u32..1_100, 900u32..1_100), 1..30),
            seed in any::<u64>(),
        ) {
            let names = ["Riley", "Jaquez", "Juzang"];
            let mut tables = names.map(|_| table(10));
            let mut sent: Vec<(u32, Vec<u8>)> = Vec::new();
            for (server, is_forgotten, wall, stamp) in steps {
                let records = &mut tables[server];
                if is_forgotten {
                    let forgetting = records.forget(b"a", names[server], seconds(wall));
                    prop_assert_eq!(forgetting.merge, Merge::Accepted);
                    sent.push((forgetting.epoch, forgetting.line));
                } else {
                    let (merged, line) = merge_client_record(records, names[server], wall, stamp);
                    if merged == Merge::Accepted {
                        sent.push((records.last_epoch(), line.into_bytes()));
                    }
                }
            }
            let mut state = seed;
            for records in &mut tables {
                for i in (1..sent.len()).rev() {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    sent.swap(i, (state >> 33) as usize % (i + 1));
                }
                for (epoch, line) in &sent {
                    let at = At::parse(line).unwrap();
                    let lookup = records.lookup(b"a");
                    records.merge_at(lookup, line, &at, *epoch, Origin::LOCAL);
                }
                records.check_invariants().unwrap();
            }
            let [one, others @ ..] = &tables;
            for other in others {
                prop_assert_eq!(one.digest(), other.digest());
                prop_assert_eq!(one.record(b"a"), other.record(b"a"));
                prop_assert_eq!(one.line(b"a"), other.line(b"a"));
                prop_assert_eq!(one.tombstones(), other.tombstones());
            }
            let is_tombstone = one.record(b"a").is_some_and(|line| {
                At::parse(line.trim_ascii_end()).unwrap().is_tombstone()
            });
            prop_assert_eq!(is_tombstone, one.line(b"a").is_none() && one.len() == 1);
        }

        /// Two tables that receive the same records in different orders are equal at the end.
        #[test]
        fn tables_converge_in_any_order_of_arrival(mut records_offered in proptest::collection::vec((0u8..4, 0u32..200, -100i64..100), 1..40), seed in any::<u64>()) {
            let line = |&(client, stamp, skew): &(u8, u32, i64)| {
                let skew = skew.max(-i64::from(stamp));
                format!("AT Riley {skew:+}.000000000 {client} +1+2 {stamp}")
            };
            let mut one = table(10);
            records_offered.iter().for_each(|o| { merge(&mut one, &line(o), Origin::LOCAL); });
            let mut state = seed;
            for i in (1..records_offered.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                records_offered.swap(i, (state >> 33) as usize % (i + 1));
            }
            let mut other = table(10);
            records_offered.iter().for_each(|o| { merge(&mut other, &line(o), Origin::LOCAL); });
            prop_assert_eq!(one.digest(), other.digest());
            for client in [b"0", b"1", b"2", b"3"] {
                prop_assert_eq!(one.line(client), other.line(client));
            }
        }

        /// A reader that begins at any position, and that seeks and reads in steps while records
        /// move, expire and are swept, gets the newest record of each client that changed after
        /// that position. It gets them in order.
        #[test]
        fn a_seeking_reader_gets_every_later_change_in_order(
            before in proptest::collection::vec((0u8..8, 1u32..50), 0..40),
            part in 0u64..40,
            steps in proptest::collection::vec((0u8..8, 50u32..100, 0usize..4, any::<bool>()), 0..60),
            ends_at in 0u32..60,
        ) {
            let mut records = table(20);
            for (client, stamp) in before {
                merge_neighbour_record(&mut records, &client.to_string(), stamp);
            }
            let after = part.min(records.last_seq());
            let reader = records.open_seeking_reader(after);
            let mut told: Vec<(u64, String)> = Vec::new();
            let read = |records: &mut Records, steps: usize, most: usize, told: &mut Vec<(u64, String)>| {
                let up_to = records.last_seq();
                let mut left = most;
                records.changes(reader, up_to, steps, |change| {
                    let client = At::parse(change.line).unwrap().client.to_vec();
                    told.push((change.seq, String::from_utf8(client).unwrap()));
                    left = left.saturating_sub(1);
                    left > 0
                })
            };
            for (client, stamp, count, expires) in steps {
                merge_neighbour_record(&mut records, &client.to_string(), stamp);
                if expires {
                    records.expire_before(seconds(ends_at));
                    records.sweep(3);
                }
                if records.seek(reader, count) {
                    read(&mut records, count, 2, &mut told);
                }
                records.check_invariants().unwrap();
            }
            while !records.seek(reader, 1) {}
            while read(&mut records, 3, 2, &mut told) == Unread::More {}
            records.check_invariants().unwrap();
            prop_assert!(told.is_sorted_by_key(|(seq, _)| *seq) && told.iter().all(|(seq, _)| *seq > after));
            prop_assert_eq!(records.position(reader), records.last_seq());
            for client in 0u8..8 {
                let client = client.to_string();
                let is_there = records.record(client.as_bytes()).is_some();
                if let Some(seq) = records.seq(client.as_bytes()).filter(|seq| *seq > after && is_there) {
                    prop_assert!(told.contains(&(seq, client)), "{told:?} lacks change {seq}");
                }
            }
        }

        /// In any order of merges and reads, a reader gets everything that the table contains.
        #[test]
        fn a_reader_gets_every_record(steps in proptest::collection::vec((0u8..6, 0u32..50, 0usize..200), 1..100)) {
            let mut records = table(10);
            let reader = records.open_reader(0);
            let mut copy = table(10);
            let mut out = Vec::new();
            for (client, stamp, bytes) in steps {
                merge_neighbour_record(&mut records, &client.to_string(), stamp);
                records.read(reader, Origin::LOCAL.next(), u64::MAX, bytes, &mut out);
                for line in std::mem::take(&mut out).split(|&b| b == b'\n').filter(|l| !l.is_empty()) {
                    copy.merge(line, &At::parse(line).unwrap(), Origin::LOCAL);
                }
            }
            records.read(reader, Origin::LOCAL.next(), u64::MAX, usize::MAX, &mut out);
            for line in out.split(|&b| b == b'\n').filter(|l| !l.is_empty()) {
                copy.merge(line, &At::parse(line).unwrap(), Origin::LOCAL);
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
