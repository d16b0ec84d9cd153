//! Where the lines of the table are kept, as the table sees it.
//!
//! ```text
//!   Records ──► LineStore ◄── NaiveStore    each line in a box of its own
//!                         ◄── PackedStore   most lines in fewer bytes ──► packed_line ──► swar
//! ```
//!
//! The server runs with a [`PackedStore`], for its memory. The table is the same with a
//! [`NaiveStore`], which is one page long: read that one to follow a record, and the other to see
//! what a million records cost. A property test holds the two to each other.
//!
//! [`NaiveStore`]: crate::core::table::naive_store::NaiveStore
//! [`PackedStore`]: crate::core::table::packed_store::PackedStore

use crate::core::wire::message::At;
use crate::core::wire::posix_time::PosixTime;
use crate::core::wire::swar::word_at;

/// `AT` lines without their LF, one for each client. They are numbered from 0, in the order in
/// which the clients came, and none is ever removed.
pub trait LineStore {
    /// A server of the herd: there is always room for lines with its name.
    fn know_server(&mut self, name: &[u8]);

    /// Keeps the first line of a client, taken apart as `at`; returns its number. `None` if the
    /// store has no room for another server's name, or for another line.
    #[must_use]
    fn add(&mut self, line: &[u8], at: &At<'_>, origin: Origin) -> Option<u32>;

    /// Keeps a line with this [hash](hash_of), taken apart as `at`, in the place of one of the same
    /// client. `None` if the store has no room for another server's name; the line that was there
    /// stays.
    #[must_use]
    fn replace(
        &mut self,
        number: u32,
        hashed: (&[u8], u64),
        at: &At<'_>,
        origin: Origin,
    ) -> Option<()>;

    /// Whose line it is.
    #[must_use]
    fn client(&self, number: u32) -> &[u8];

    /// Where the line came from.
    #[must_use]
    fn origin(&self, number: u32) -> Origin;

    /// Appends the line to `out`.
    fn write(&self, number: u32, out: &mut Vec<u8>);

    /// Whether the store can tell at a glance that exactly this line has that number. If not, they
    /// may be the same all the same.
    #[must_use]
    fn is_surely(&self, number: u32, line: &[u8]) -> bool;

    /// The line, and what it is compared by.
    #[must_use]
    fn look_at(&mut self, number: u32) -> LineRef<'_>;
}

/// Where a record came from: a neighbour in one life of its process, or one of our clients.
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

/// What orders two lines of one client, before their bytes do: the effective time, then the stamp.
pub(super) type Rank = (PosixTime, PosixTime);

/// A line that is kept, in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineRef<'a> {
    /// Its bytes.
    pub line: &'a [u8],
    /// Their hash, see [`hash_of`].
    pub hash: u64,
    /// What is kept was parsed before; if it were no `AT` line, anything would be newer.
    pub(super) rank: Option<Rank>,
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
