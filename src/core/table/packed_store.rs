//! A store that needs little memory. Most lines are packed; lines of moving clients are not.
//!
//! Most clients are silent most of the time, so the first line of a client is
//! [packed](crate::core::table::packed_line). When a client sends a second position, it will
//! probably send more. So the store keeps the second line unpacked, with its rank (the times that
//! decide which line is newer) and its hash. The server can then replace the line, or send it to a
//! neighbour, without unpacking or parsing it.
//!
//! At most [`Limits::unpacked_records`] lines are unpacked. Each of them has a *slot*: an index in
//! `PackedStore::unpacked`. When all slots are used, only every eighth line that could be unpacked
//! gets a slot. The line that had this slot is packed again. The slots are reused in the order 0,
//! 1, 2 and so on.
//!
//! With the overhead of the allocator, a packed line takes 88 bytes, and an unpacked line takes
//! 168. A line in a [`NaiveStore`](crate::core::table::naive_store::NaiveStore) takes 116 (test:
//! `a_packed_line_takes_less_memory`).

use std::ops::Range;

use crate::core::base::limits::{LimitValue, Limits};
use crate::core::table::line_store::{LineRef, LineStore, Origin, Rank, hash_of};
use crate::core::table::packed_line::{PackedLine, ServerNames, pack};
use crate::core::wire::message::At;
use crate::core::wire::posix_time::{PosixTime, Skew, effective_time};

/// The value of `Line::slot` for a packed line.
const PACKED: u32 = u32::MAX;

/// When all slots are used, one of this many lines that could be unpacked gets a slot.
const ATTEMPTS_FOR_SLOT: u32 = 8;

/// One line, without its LF. There may be a million of these, so it is as small as possible.
struct Line {
    /// The unpacked line if `slot` is an index, or the packed line if `slot` is [`PACKED`].
    bytes: Box<[u8]>,
    /// The index of this line in `PackedStore::unpacked`, or `PACKED`.
    slot: u32,
    origin: Origin,
}

/// The entry of an unpacked line. It stores values that the store would otherwise have to compute
/// from the line, by parsing and hashing.
struct Unpacked {
    /// The number of the line.
    number: u32,
    client_offset: u16,
    client_length: u16,
    rank: Rank,
    hash: u64,
}

impl Unpacked {
    /// Returns the range of the client's name in the line.
    fn client(&self) -> Range<usize> {
        let from = usize::from(self.client_offset);
        from..from + usize::from(self.client_length)
    }

    /// Creates the entry for a line. Returns `None` if an offset or length does not fit in 16 bits.
    /// No line that a server reads is so long.
    fn new(number: u32, hash: u64, at: &At<'_>) -> Option<Unpacked> {
        Some(Unpacked {
            number,
            client_offset: u16::try_from(at.client_offset).ok()?,
            client_length: u16::try_from(at.client.len()).ok()?,
            rank: (at.effective, at.stamp),
            hash,
        })
    }
}

/// A store of packed and unpacked lines.
pub struct PackedStore {
    lines: Vec<Line>,
    /// The indexes in `lines` of removed lines. A new line takes the last of them. If there is
    /// none, the new line is appended to `lines`.
    free: Vec<u32>,
    servers: ServerNames,
    unpacked: Vec<Unpacked>,
    max_unpacked: usize,
    /// The slot that is reused next when all slots are used. Its present line is then packed.
    next_evicted_slot: usize,
    /// The number of calls of `allocate_slot` at which all slots were used. Wraps around.
    slot_attempts: u32,
    /// A buffer for an unpacked line.
    unpack_buffer: Vec<u8>,
    /// A buffer for a packed line.
    pack_buffer: Vec<u8>,
}

impl PackedStore {
    /// The number of bytes of memory for each line, in addition to the bytes of the line.
    pub const LINE_BYTES: usize = size_of::<Line>();
    /// The number of bytes of memory for each unpacked line, in addition to
    /// [`PackedStore::LINE_BYTES`].
    pub const UNPACKED_BYTES: usize = size_of::<Unpacked>();

    /// Creates an empty store.
    #[must_use]
    pub fn new(limits: &Limits) -> PackedStore {
        PackedStore {
            lines: Vec::new(),
            free: Vec::new(),
            servers: ServerNames::default(),
            unpacked: Vec::new(),
            max_unpacked: limits.unpacked_records.to_count().min(PACKED as usize),
            next_evicted_slot: 0,
            slot_attempts: 0,
            unpack_buffer: Vec::new(),
            pack_buffer: Vec::new(),
        }
    }

    /// Returns the line if it is not packed.
    fn unpacked(&self, number: u32) -> Option<&[u8]> {
        let line = &self.lines[number as usize];
        (line.slot != PACKED).then_some(&line.bytes)
    }

    /// Returns a slot for one more unpacked line. This is a new slot, or the slot of a line that
    /// this call packs. Returns `None` if the new line has to be packed instead.
    fn allocate_slot(&mut self) -> Option<u32> {
        let used = self.unpacked.len();
        if used < self.max_unpacked {
            return u32::try_from(used).ok();
        }
        // Only every eighth attempt takes a slot from another line. So a client that moves often
        // usually keeps its slot, even if many other clients move once in a while. Also, most moves
        // do not cost the packing of another line.
        self.slot_attempts = self.slot_attempts.wrapping_add(1);
        if !self.slot_attempts.is_multiple_of(ATTEMPTS_FOR_SLOT) {
            return None;
        }
        let slot = self.next_evicted_slot;
        let evicted = self.unpacked.get(slot)?;
        let line = &mut self.lines[evicted.number as usize];
        pack(
            &line.bytes,
            evicted.client(),
            &mut self.servers,
            &mut self.pack_buffer,
        )?;
        line.bytes = self.pack_buffer.as_slice().into();
        line.slot = PACKED;
        self.next_evicted_slot = (slot + 1) % self.max_unpacked;
        u32::try_from(slot).ok()
    }
}

/// Returns the rank of a line with this skew and this time. `None` stands for a skew that is not
/// negative: then the effective time is the stamp.
#[inline]
fn rank_of(skew: Option<&[u8]>, time: &[u8]) -> Option<Rank> {
    let stamp = PosixTime::parse(time)?;
    let effective = match skew {
        None => stamp,
        Some(skew) => effective_time(stamp, Skew::parse(skew)?)?,
    };
    Some((effective, stamp))
}

impl LineStore for PackedStore {
    fn add_server_name(&mut self, name: &[u8]) {
        self.servers.add(name);
    }

    fn client(&self, number: u32) -> &[u8] {
        let line = &self.lines[number as usize];
        match self.unpacked.get(line.slot as usize) {
            Some(entry) => &line.bytes[entry.client()],
            None => PackedLine::new(&line.bytes).client(),
        }
    }

    fn origin(&self, number: u32) -> Origin {
        self.lines[number as usize].origin
    }

    fn certainly_equals(&self, number: u32, line: &[u8]) -> bool {
        self.unpacked(number) == Some(line)
    }

    fn write(&self, number: u32, out: &mut Vec<u8>) {
        match self.unpacked(number) {
            Some(line) => out.extend_from_slice(line),
            None => {
                let packed = PackedLine::new(&self.lines[number as usize].bytes);
                packed.write(&self.servers, out);
            }
        }
    }

    fn unpack(&mut self, number: u32) -> LineRef<'_> {
        let line = &self.lines[number as usize];
        if let Some(entry) = self.unpacked.get(line.slot as usize) {
            return LineRef {
                line: &line.bytes,
                hash: entry.hash,
                rank: Some(entry.rank),
            };
        }
        let packed = PackedLine::new(&line.bytes);
        self.unpack_buffer.clear();
        packed.write(&self.servers, &mut self.unpack_buffer);
        let (skew, time) = packed.skew_and_time(&self.servers, &self.unpack_buffer);
        let before_time = &self.unpack_buffer[..self.unpack_buffer.len() - time.len()];
        let rank = if before_time.ends_with(b" - ") {
            At::parse(&self.unpack_buffer).map(|at| (at.effective, at.stamp))
        } else {
            rank_of(skew, time)
        };
        LineRef {
            line: &self.unpack_buffer,
            hash: hash_of(&self.unpack_buffer),
            rank,
        }
    }

    fn add(&mut self, line: &[u8], at: &At<'_>, origin: Origin) -> Option<u32> {
        let number = match self.free.last() {
            Some(&number) => number,
            None => u32::try_from(self.lines.len()).ok()?,
        };
        pack(
            line,
            at.client_range(),
            &mut self.servers,
            &mut self.pack_buffer,
        )?;
        let line = Line {
            bytes: self.pack_buffer.as_slice().into(),
            slot: PACKED,
            origin,
        };
        match self.free.pop() {
            Some(number) => self.lines[number as usize] = line,
            None => self.lines.push(line),
        }
        Some(number)
    }

    fn remove(&mut self, number: u32) {
        let line = &mut self.lines[number as usize];
        line.bytes = Box::default();
        let slot = std::mem::replace(&mut line.slot, PACKED);
        if slot != PACKED {
            self.unpacked.swap_remove(slot as usize);
            // `swap_remove` has moved the last entry to `slot`.
            if let Some(moved) = self.unpacked.get(slot as usize) {
                self.lines[moved.number as usize].slot = slot;
            }
        }
        self.free.push(number);
    }

    fn replace(
        &mut self,
        number: u32,
        (line, hash): (&[u8], u64),
        at: &At<'_>,
        origin: Origin,
    ) -> Option<()> {
        // The server's name gets its number now, even if the line is stored unpacked. So when the
        // line is packed later, the name cannot be refused.
        self.servers.intern(at.server)?;
        let unpacked = Unpacked::new(number, hash, at)?;
        let slot = match self.lines[number as usize].slot {
            PACKED => self.allocate_slot(),
            slot => Some(slot),
        };
        let bytes = match slot {
            None => {
                pack(
                    line,
                    at.client_range(),
                    &mut self.servers,
                    &mut self.pack_buffer,
                )?;
                &self.pack_buffer
            }
            Some(slot) => {
                match self.unpacked.get_mut(slot as usize) {
                    Some(old) => *old = unpacked,
                    None => self.unpacked.push(unpacked),
                }
                line
            }
        };
        let stored = &mut self.lines[number as usize];
        if stored.bytes.len() == bytes.len() {
            stored.bytes.copy_from_slice(bytes);
        } else {
            stored.bytes = bytes.into();
        }
        stored.slot = slot.unwrap_or(PACKED);
        stored.origin = origin;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::table::naive_store::NaiveStore;
    use proptest::prelude::*;

    fn store(unpacked_records: u64) -> PackedStore {
        PackedStore::new(&Limits {
            unpacked_records,
            ..Limits::default()
        })
    }

    #[test]
    fn moving_clients_stay_unpacked_and_others_are_packed() {
        let first = b"AT Riley +0.263873386 kiwi +34.068930-118.445127 1621464827.959498503";
        let second = b"AT Riley +0.263873386 kiwi +34.068930-118.445128 1621464828.959498503";
        let at = |line| At::parse(line).unwrap();
        let mut lines = store(1);
        for number in 0..2 {
            assert_eq!(lines.add(first, &at(first), Origin::LOCAL), Some(number));
            assert!(lines.lines[number as usize].bytes.len() < first.len() * 6 / 10);
        }
        let is_packed = |lines: &PackedStore, number: usize| {
            lines.lines[number].bytes.len() < first.len() * 6 / 10
        };
        let mut update = |number| {
            let moved = lines.replace(
                number,
                (second, hash_of(second)),
                &at(second),
                Origin::LOCAL,
            );
            assert_eq!(moved, Some(()));
            [0, 1].map(|number| is_packed(&lines, number))
        };
        assert_eq!(update(0), [false, true]);
        for _ in 1..ATTEMPTS_FOR_SLOT {
            assert_eq!(update(1), [false, true], "the only place is taken");
        }
        assert_eq!(update(1), [true, false], "it made room");
    }

    #[test]
    fn a_packed_line_takes_less_memory() {
        // The size of a block of glibc's malloc on 64 bits. A block begins with 8 bytes for its
        // size. The size of a block is a multiple of 16 bytes, and at least 32 bytes.
        let allocated = |bytes: usize| (bytes + 8).next_multiple_of(16).max(32);
        let line =
            b"AT Riley +0.263873386 client-0001234 +34.068930-118.445127 1621464827.959498503";
        let at = At::parse(line).unwrap();
        let mut packed = store(1);
        packed.add(line, &at, Origin::LOCAL).unwrap();
        let size =
            |packed: &PackedStore| size_of::<Line>() + allocated(packed.lines[0].bytes.len());
        let silent = size(&packed);
        packed
            .replace(0, (line, hash_of(line)), &at, Origin::LOCAL)
            .unwrap();
        let moving = size(&packed) + size_of::<Unpacked>();
        let naive = size_of::<Box<[u8]>>() + size_of::<Origin>() + allocated(line.len());
        assert_eq!((silent, moving, naive), (88, 168, 116));
    }

    proptest! {
        /// The packed store gives the same answers as the naive store, for any sequence of
        /// operations and any number of unpacked lines.
        #[test]
        fn the_packed_store_equals_the_naive_store(unpacked in 0u64..4, removed in proptest::collection::vec(any::<u8>(), 60), steps in proptest::collection::vec((0u32..6, "[1-9][0-9]{0,12}(\\.[0-9]{1,18})?", -99i64..99, b'a'..=b'z', prop_oneof![1usize..9, 250usize..260], any::<bool>()), 1..60)) {
            let mut packed = store(unpacked);
            let mut naive = NaiveStore::default();
            let (mut count, mut free) = (0, Vec::new());
            let mut origin = Origin::LOCAL;
            for (is_removal, (number, stamp, skew, letter, length, is_herd_server)) in removed.into_iter().map(|it| it < 64).zip(steps) {
                origin = origin.next();
                let number = number.min(count);
                let server = String::from(char::from(letter)).repeat(length);
                let client = "x".repeat([1, 254, 255, 300][number as usize % 4]);
                let location = if letter < b'd' { "-" } else { "+1.5-2" };
                let line = format!("AT {server} {skew:+}.000000001 {client}{number} {location} {stamp}");
                let line = line.as_bytes();
                let Some(at) = At::parse(line) else { continue };
                if is_herd_server {
                    packed.add_server_name(at.server);
                    naive.add_server_name(at.server);
                }
                if is_removal && number < count && !free.contains(&number) {
                    packed.remove(number);
                    naive.remove(number);
                    free.push(number);
                } else if number < count && !free.contains(&number) {
                    let hashed = (line, hash_of(line));
                    let replaced = packed.replace(number, hashed, &at, origin);
                    prop_assert_eq!(replaced, naive.replace(number, hashed, &at, origin));
                } else {
                    let added = packed.add(line, &at, origin);
                    prop_assert_eq!(added, naive.add(line, &at, origin));
                    prop_assert_eq!(added, Some(free.pop().unwrap_or(count)));
                    count = count.max(added.unwrap_or_default() + 1);
                }
                for number in (0..count).filter(|number| !free.contains(number)) {
                    let (mut line, mut back) = (Vec::new(), Vec::new());
                    naive.write(number, &mut line);
                    packed.write(number, &mut back);
                    prop_assert_eq!(&line, &back);
                    prop_assert_eq!(packed.client(number), naive.client(number));
                    prop_assert_eq!(packed.origin(number), naive.origin(number));
                    prop_assert_eq!(packed.unpack(number), naive.unpack(number));
                    // `certainly_equals` may be false for an equal line, but it is never true for
                    // another line.
                    prop_assert!(!packed.certainly_equals(number, &line[1..]));
                    prop_assert!(packed.certainly_equals(number, &line) == packed.unpacked(number).is_some());
                    prop_assert!(naive.certainly_equals(number, &line) && !naive.certainly_equals(number, &line[1..]));
                }
                prop_assert!(packed.unpacked.len() as u64 <= unpacked);
            }
        }
    }
}
