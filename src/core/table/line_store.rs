//! Where the lines of the table are kept: packed, or, those of clients that move, as they were
//! heard.
//!
//! Most clients are silent most of the time, so a line is [packed](crate::core::table::packed_line)
//! when it is the first of its client. The line that takes its place shows that this client moves,
//! and will again: it is kept as it was heard, beside what orders it. Replacing such a line, or
//! telling it to a neighbour, reads and packs nothing. There is a place for so many of them
//! ([`Limits::unpacked_records`]); when all are taken, each eighth newcomer gets the next one in
//! turn, and the line that was there is packed again.

use std::ops::Range;

use crate::core::base::limits::{Limits, count};
use crate::core::table::packed_line::{PackedLine, ServerNames, pack};
use crate::core::wire::message::At;
use crate::core::wire::posix_time::{PosixTime, Skew, effective_time};
use crate::core::wire::swar::word_at;

/// The place of a line that is packed.
const PACKED: u32 = u32::MAX;

/// When all places are taken, one newcomer of so many gets one.
const KNOCKS: u32 = 8;

/// Who taught us a record: a neighbour in one life of its process, or one of our clients.
///
/// A record is not sent back to its origin; a neighbour in a new life is a new origin, and is
/// sent everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin(u32);

impl Origin {
    /// The origin of what our own clients said.
    pub const NONE: Origin = Origin(0);

    /// The one after this: each life of each neighbour gets its own.
    #[must_use]
    pub fn next(self) -> Origin {
        Origin(self.0.wrapping_add(1).max(1))
    }
}

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

/// What orders two lines of one client, before their bytes do: the effective time, then the stamp.
type Rank = (PosixTime, PosixTime);

/// A line that is kept, in full.
pub struct LineRef<'a> {
    /// Its bytes.
    pub line: &'a [u8],
    /// Their hash, see [`hash_of`].
    pub hash: u64,
    /// What is kept was parsed before; if it were no `AT` line, anything would be newer.
    rank: Option<Rank>,
}

impl LineRef<'_> {
    /// Whether it is older than `line`, taken apart as `at`: later effective time, then later
    /// stamp, then greater bytes. The order is total and the same on every server, so the order of
    /// arrival decides nothing.
    #[must_use]
    pub fn is_older(&self, line: &[u8], at: &At<'_>) -> bool {
        self.rank.is_none_or(|(effective, stamp)| {
            (effective, stamp, self.line) < (at.effective, at.stamp, line)
        })
    }

    /// Whether it only counts as newer than `at` because of the servers' clocks: its stamp is
    /// older, or it is from after `latest`, which is later than what a right clock lets through.
    #[must_use]
    pub fn is_set_aside_by(&self, at: &At<'_>, latest: PosixTime) -> bool {
        self.rank
            .is_none_or(|(effective, stamp)| stamp < at.stamp || effective > latest)
    }
}

/// A hash of a line that is the same on every machine and in every version. It begins with the
/// line's length; for each eight bytes of it (little-endian; the last ones filled up with zeros) it
/// is xored with them, multiplied by the odd number next to 2⁶⁴/φ, and its upper half is xored into
/// its lower one. Hardly anything else is done as often, so it takes eight bytes at a time.
#[must_use]
pub fn hash_of(line: &[u8]) -> u64 {
    let mix = |hash: u64, word: u64| {
        let hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^ hash >> 32
    };
    let (words, rest) = line.as_chunks::<8>();
    let hash = words.iter().fold(line.len() as u64, |hash, word| {
        mix(hash, u64::from_le_bytes(*word))
    });
    if rest.is_empty() {
        return hash;
    }
    mix(hash, word_at(line, line.len() - rest.len()))
}

/// All lines, numbered from 0 in the order in which their clients came.
pub struct LineStore {
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

impl LineStore {
    /// No line is kept yet.
    #[must_use]
    pub fn new(limits: &Limits) -> LineStore {
        LineStore {
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

    /// This is a server of the herd: there is always room for its name.
    pub fn know_server(&mut self, name: &[u8]) {
        self.servers.know(name);
    }

    /// Whose line it is.
    #[must_use]
    pub fn client(&self, number: u32) -> &[u8] {
        let line = &self.lines[number as usize];
        match self.unpacked.get(line.place as usize) {
            Some(of) => &line.bytes[of.client()],
            None => PackedLine::new(&line.bytes).client(),
        }
    }

    /// The line, unless it is packed.
    #[must_use]
    pub fn unpacked(&self, number: u32) -> Option<&[u8]> {
        let line = &self.lines[number as usize];
        (line.place != PACKED).then_some(&line.bytes)
    }

    /// Who taught us the line.
    #[must_use]
    pub fn origin(&self, number: u32) -> Origin {
        self.lines[number as usize].origin
    }

    /// Appends the line to `out`.
    pub fn write(&self, number: u32, out: &mut Vec<u8>) {
        match self.unpacked(number) {
            Some(line) => out.extend_from_slice(line),
            None => {
                let packed = PackedLine::new(&self.lines[number as usize].bytes);
                packed.write(&self.servers, out);
            }
        }
    }

    /// The line and what it is compared by.
    pub fn look_at(&mut self, number: u32) -> LineRef<'_> {
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

    /// Keeps the first line of a client, taken apart as `at`; tells its number. `None` if there are
    /// too many names of servers.
    #[must_use]
    pub fn add(&mut self, line: &[u8], at: &At<'_>, origin: Origin) -> Option<u32> {
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

    /// Keeps a line with this [hash](hash_of), taken apart as `at`, in the place of one of the same
    /// client. `None` if there are too many names of servers.
    #[must_use]
    pub fn replace(
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kept(unpacked_records: u64) -> LineStore {
        LineStore::new(&Limits {
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
        let is_packed = |lines: &LineStore, number: usize| {
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

    proptest! {
        /// Whatever moves when, and however few may be unpacked: each line comes back byte for
        /// byte, with its hash and its rank.
        #[test]
        fn what_is_kept_comes_back(unpacked in 0u64..4, steps in proptest::collection::vec((0u32..6, "[1-9][0-9]{0,12}(\\.[0-9]{1,18})?", -99i64..99, "[a-z]{1,300}"), 1..60)) {
            let mut lines = kept(unpacked);
            let mut model: Vec<String> = Vec::new();
            for (number, stamp, skew, server) in steps {
                let line = format!("AT {server} {skew:+}.000000001 client{number} +1.5-2 {stamp}");
                let Some(at) = At::parse(line.as_bytes()) else { continue };
                if (number as usize) < model.len() {
                    lines.replace(number, (line.as_bytes(), hash_of(line.as_bytes())), &at, Origin(number)).unwrap();
                    model[number as usize] = line;
                } else {
                    let number = lines.add(line.as_bytes(), &at, Origin::NONE).unwrap();
                    prop_assert_eq!(number as usize, model.len());
                    model.push(line);
                }
                for (number, line) in (0..).zip(&model) {
                    let at = At::parse(line.as_bytes()).unwrap();
                    let mut back = Vec::new();
                    lines.write(number, &mut back);
                    prop_assert_eq!(&back, line.as_bytes());
                    prop_assert_eq!(lines.client(number), at.client);
                    let kept = lines.look_at(number);
                    prop_assert_eq!(kept.hash, hash_of(line.as_bytes()));
                    prop_assert_eq!(kept.rank, Some((at.effective, at.stamp)));
                    prop_assert_eq!(kept.line, line.as_bytes());
                }
                prop_assert!(lines.unpacked.len() as u64 <= unpacked);
            }
        }
    }
}
