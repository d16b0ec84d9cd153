//! Lines in little memory: packed, or, those of clients that move, as they were heard.
//!
//! Most clients are silent most of the time, so a line is [packed](crate::core::table::packed_line)
//! when it is the first of its client. The line that takes its place shows that this client moves,
//! and will again: it is kept as it was heard, beside what orders it. Replacing such a line, or
//! telling it to a neighbour, reads and packs nothing. There is a place for so many of them
//! ([`Limits::unpacked_records`]). When all are taken, each eighth newcomer gets the next one in
//! turn, and the line that was there is packed again.
//!
//! With what the allocator adds, a common line takes 88 bytes here, 168 while its client moves, and
//! 116 in a [`NaiveStore`](crate::core::table::naive_store::NaiveStore) (test:
//! `what_packing_saves`). A line that is not packed has its order and its hash beside it, so it is
//! not parsed again when the next one comes.

use std::ops::Range;

use crate::core::base::limits::{Limits, count};
use crate::core::table::line_store::{LineRef, LineStore, Origin, Rank, hash_of};
use crate::core::table::packed_line::{PackedLine, ServerNames, pack};
use crate::core::wire::message::At;
use crate::core::wire::posix_time::{PosixTime, Skew, effective_time};

/// The place of a line that is packed.
const PACKED: u32 = u32::MAX;

/// When all places are taken, one newcomer of so many gets one.
const KNOCKS: u32 = 8;

/// One line, without its LF. A million of these are kept, so it is no larger than it must be.
struct Line {
    /// The line itself if it has a place among the unpacked ones, else the packed line.
    bytes: Box<[u8]>,
    /// Its place, or `PACKED`.
    place: u32,
    origin: Origin,
}

/// What is known of a line that is not packed.
struct Unpacked {
    /// The number of its line.
    number: u32,
    client_offset: u16,
    client_length: u16,
    rank: Rank,
    hash: u64,
}

impl Unpacked {
    /// Where the client's name stands in the line.
    fn client(&self) -> Range<usize> {
        let from = usize::from(self.client_offset);
        from..from + usize::from(self.client_length)
    }

    /// `None` if the line is far longer than any that a server reads.
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

/// All lines, packed or as they were heard.
pub struct PackedStore {
    lines: Vec<Line>,
    servers: ServerNames,
    unpacked: Vec<Unpacked>,
    max_unpacked: usize,
    /// The place that the next newcomer gets, once all are taken.
    next_place: usize,
    /// How many newcomers there were since then.
    knocks: u32,
    /// Where a line is unpacked.
    unpacking: Vec<u8>,
    /// Where one is packed.
    packing: Vec<u8>,
}

impl PackedStore {
    /// No line is kept yet.
    #[must_use]
    pub fn new(limits: &Limits) -> PackedStore {
        PackedStore {
            lines: Vec::new(),
            servers: ServerNames::default(),
            unpacked: Vec::new(),
            max_unpacked: count(limits.unpacked_records).min(PACKED as usize),
            next_place: 0,
            knocks: 0,
            unpacking: Vec::new(),
            packing: Vec::new(),
        }
    }

    /// The line, unless it is packed.
    fn unpacked(&self, number: u32) -> Option<&[u8]> {
        let line = &self.lines[number as usize];
        (line.place != PACKED).then_some(&line.bytes)
    }

    /// A place for one more unpacked line: a new one, or that of a line which is packed again.
    /// `None` if there is none to be had.
    fn make_room(&mut self) -> Option<u32> {
        let taken = self.unpacked.len();
        if taken < self.max_unpacked {
            return u32::try_from(taken).ok();
        }
        // Those who move seldom, if they are many, are not to drive out those who move often, nor
        // to pack a line for each of theirs.
        self.knocks = self.knocks.wrapping_add(1);
        if !self.knocks.is_multiple_of(KNOCKS) {
            return None;
        }
        let place = self.next_place;
        let leaving = self.unpacked.get(place)?;
        let line = &mut self.lines[leaving.number as usize];
        pack(
            &line.bytes,
            leaving.client(),
            &mut self.servers,
            &mut self.packing,
        )?;
        line.bytes = self.packing.as_slice().into();
        line.place = PACKED;
        self.next_place = (place + 1) % self.max_unpacked;
        u32::try_from(place).ok()
    }
}

impl LineStore for PackedStore {
    fn know_server(&mut self, name: &[u8]) {
        self.servers.know(name);
    }

    fn client(&self, number: u32) -> &[u8] {
        let line = &self.lines[number as usize];
        match self.unpacked.get(line.place as usize) {
            Some(of) => &line.bytes[of.client()],
            None => PackedLine::new(&line.bytes).client(),
        }
    }

    fn origin(&self, number: u32) -> Origin {
        self.lines[number as usize].origin
    }

    fn is_surely(&self, number: u32, line: &[u8]) -> bool {
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

    fn look_at(&mut self, number: u32) -> LineRef<'_> {
        let line = &self.lines[number as usize];
        if let Some(of) = self.unpacked.get(line.place as usize) {
            return LineRef {
                line: &line.bytes,
                hash: of.hash,
                rank: Some(of.rank),
            };
        }
        let packed = PackedLine::new(&line.bytes);
        self.unpacking.clear();
        packed.write(&self.servers, &mut self.unpacking);
        let (skew, time) = packed.skew_and_time(&self.servers, &self.unpacking);
        let rank = PosixTime::parse(time).and_then(|stamp| {
            // A client that is behind its receipt is ordered by its stamp, whatever it is behind
            // by.
            let effective = match skew {
                None => stamp,
                Some(skew) => effective_time(stamp, Skew::parse(skew)?)?,
            };
            Some((effective, stamp))
        });
        LineRef {
            line: &self.unpacking,
            hash: hash_of(&self.unpacking),
            rank,
        }
    }

    fn add(&mut self, line: &[u8], at: &At<'_>, origin: Origin) -> Option<u32> {
        let number = u32::try_from(self.lines.len()).ok()?;
        pack(
            line,
            at.client_range(),
            &mut self.servers,
            &mut self.packing,
        )?;
        self.lines.push(Line {
            bytes: self.packing.as_slice().into(),
            place: PACKED,
            origin,
        });
        Some(number)
    }

    fn replace(
        &mut self,
        number: u32,
        (line, hash): (&[u8], u64),
        at: &At<'_>,
        origin: Origin,
    ) -> Option<()> {
        // The server has its number before a line is kept unpacked, so packing that one later can
        // not fail.
        self.servers.number_of(at.server)?;
        let unpacked = Unpacked::new(number, hash, at)?;
        let place = match self.lines[number as usize].place {
            PACKED => self.make_room(),
            own => Some(own),
        };
        let bytes = match place {
            None => {
                pack(
                    line,
                    at.client_range(),
                    &mut self.servers,
                    &mut self.packing,
                )?;
                &self.packing
            }
            Some(place) => {
                match self.unpacked.get_mut(place as usize) {
                    Some(before) => *before = unpacked,
                    None => self.unpacked.push(unpacked),
                }
                line
            }
        };
        let own = &mut self.lines[number as usize];
        if own.bytes.len() == bytes.len() {
            own.bytes.copy_from_slice(bytes);
        } else {
            own.bytes = bytes.into();
        }
        own.place = place.unwrap_or(PACKED);
        own.origin = origin;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::table::naive_store::NaiveStore;
    use proptest::prelude::*;

    fn kept(unpacked_records: u64) -> PackedStore {
        PackedStore::new(&Limits {
            unpacked_records,
            ..Limits::default()
        })
    }

    #[test]
    fn a_client_that_moves_is_kept_as_it_was_heard_and_one_that_does_not_is_packed() {
        let first = b"AT Riley +0.263873386 kiwi +34.068930-118.445127 1621464827.959498503";
        let second = b"AT Riley +0.263873386 kiwi +34.068930-118.445128 1621464828.959498503";
        let at = |line| At::parse(line).unwrap();
        let mut lines = kept(1);
        for number in 0..2 {
            assert_eq!(lines.add(first, &at(first), Origin::NONE), Some(number));
            assert!(lines.lines[number as usize].bytes.len() < first.len() * 6 / 10);
        }
        let is_packed = |lines: &PackedStore, number: usize| {
            lines.lines[number].bytes.len() < first.len() * 6 / 10
        };
        let mut move_on = |number| {
            let moved = lines.replace(number, (second, hash_of(second)), &at(second), Origin::NONE);
            assert_eq!(moved, Some(()));
            [0, 1].map(|number| is_packed(&lines, number))
        };
        assert_eq!(move_on(0), [false, true]);
        for _ in 1..KNOCKS {
            assert_eq!(move_on(1), [false, true], "the only place is taken");
        }
        assert_eq!(move_on(1), [true, false], "it made room");
    }

    #[test]
    fn what_packing_saves() {
        // As glibc's malloc has it on 64 bits: a size before each block, in steps of 16, at least
        // 32.
        let allocated = |bytes: usize| (bytes + 8).next_multiple_of(16).max(32);
        let line =
            b"AT Riley +0.263873386 client-0001234 +34.068930-118.445127 1621464827.959498503";
        let at = At::parse(line).unwrap();
        let mut packed = kept(1);
        packed.add(line, &at, Origin::NONE).unwrap();
        let of = |packed: &PackedStore| size_of::<Line>() + allocated(packed.lines[0].bytes.len());
        let silent = of(&packed);
        packed
            .replace(0, (line, hash_of(line)), &at, Origin::NONE)
            .unwrap();
        let moving = of(&packed) + size_of::<Unpacked>();
        let naive = size_of::<Box<[u8]>>() + size_of::<Origin>() + allocated(line.len());
        assert_eq!((silent, moving, naive), (88, 168, 116));
    }

    proptest! {
        /// Whatever moves when, and however few may be unpacked: the store answers as the naive one
        /// does, which has each line as it came.
        #[test]
        fn it_answers_as_the_naive_store(unpacked in 0u64..4, steps in proptest::collection::vec((0u32..6, "[1-9][0-9]{0,12}(\\.[0-9]{1,18})?", -99i64..99, b'a'..=b'z', prop_oneof![1usize..9, 250usize..260], any::<bool>()), 1..60)) {
            let mut packed = kept(unpacked);
            let mut naive = NaiveStore::default();
            let mut count = 0;
            let mut origin = Origin::NONE;
            for (number, stamp, skew, letter, length, is_known) in steps {
                origin = origin.next();
                let number = number.min(count);
                let server = String::from(char::from(letter)).repeat(length);
                let client = "x".repeat([1, 254, 255, 300][number as usize % 4]);
                let line = format!("AT {server} {skew:+}.000000001 {client}{number} +1.5-2 {stamp}");
                let line = line.as_bytes();
                let Some(at) = At::parse(line) else { continue };
                if is_known {
                    packed.know_server(at.server);
                    naive.know_server(at.server);
                }
                if number < count {
                    let hashed = (line, hash_of(line));
                    let replaced = packed.replace(number, hashed, &at, origin);
                    prop_assert_eq!(replaced, naive.replace(number, hashed, &at, origin));
                } else {
                    prop_assert_eq!(packed.add(line, &at, origin), naive.add(line, &at, origin));
                    count += 1;
                }
                for number in 0..count {
                    let (mut line, mut back) = (Vec::new(), Vec::new());
                    naive.write(number, &mut line);
                    packed.write(number, &mut back);
                    prop_assert_eq!(&line, &back);
                    prop_assert_eq!(packed.client(number), naive.client(number));
                    prop_assert_eq!(packed.origin(number), naive.origin(number));
                    prop_assert_eq!(packed.look_at(number), naive.look_at(number));
                    // It may not be sure, and is never wrong.
                    prop_assert!(!packed.is_surely(number, &line[1..]));
                    prop_assert!(packed.is_surely(number, &line) == packed.unpacked(number).is_some());
                    prop_assert!(naive.is_surely(number, &line) && !naive.is_surely(number, &line[1..]));
                }
                prop_assert!(packed.unpacked.len() as u64 <= unpacked);
            }
        }
    }
}
