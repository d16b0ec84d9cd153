//! The interface to the store that keeps the lines of the table.
//!
//! ```text
//!   Records ──► LineStore ◄── NaiveStore    each line in a box of its own
//!                         ◄── PackedStore   most lines in fewer bytes ──► packed_line ──► swar
//! ```
//!
//! The server runs with a [`PackedStore`], because it needs less memory. The table would work the
//! same with a [`NaiveStore`], which is one page long. Read the naive store to follow a record, and
//! the packed store to see what a million records cost. A property test checks that both give the
//! same answers.
//!
//! [`NaiveStore`]: crate::core::table::naive_store::NaiveStore
//! [`PackedStore`]: crate::core::table::packed_store::PackedStore

use crate::core::wire::message::At;
use crate::core::wire::posix_time::PosixTime;
use crate::core::wire::swar::word_at;

/// A store of `AT` lines without their LF, one line for each client. Lines are numbered from 0, in
/// the order in which the clients were added. A new line gets the number of a removed line, if
/// there is one.
pub trait LineStore {
    /// Makes the name of a server of the herd known. The store always has room for lines with that
    /// name.
    fn know_server(&mut self, name: &[u8]);

    /// Stores the first line of a client, and returns the number of the line. `at` is the parsed
    /// line. Returns `None` if the store has no room for another line, or for another name of a
    /// server.
    #[must_use]
    fn add(&mut self, line: &[u8], at: &At<'_>, origin: Origin) -> Option<u32>;

    /// Replaces the line with this number by a newer line of the same client. `hashed` is the newer
    /// line and its [hash](hash_of), and `at` is the parsed line. If the store has no room for
    /// another name of a server, it returns `None` and keeps the old line.
    #[must_use]
    fn replace(
        &mut self,
        number: u32,
        hashed: (&[u8], u64),
        at: &At<'_>,
        origin: Origin,
    ) -> Option<()>;

    /// Removes a line. Its number is free for another line.
    fn remove(&mut self, number: u32);

    /// Returns the name of the client that the line belongs to.
    #[must_use]
    fn client(&self, number: u32) -> &[u8];

    /// Returns the origin of the line.
    #[must_use]
    fn origin(&self, number: u32) -> Origin;

    /// Appends the line to `out`.
    fn write(&self, number: u32, out: &mut Vec<u8>);

    /// Whether the stored line is certainly equal to `line`. This check is cheap: `false` may also
    /// mean that the store would have to unpack its line to know.
    #[must_use]
    fn is_surely(&self, number: u32, line: &[u8]) -> bool;

    /// Returns the stored line, with everything that is needed to compare it.
    #[must_use]
    fn look_at(&mut self, number: u32) -> LineRef<'_>;
}

/// The origin of a record: one life of one neighbour, or a client of this server.
///
/// A record is not sent back to its origin. A neighbour that begins a new life is a new origin, so
/// it is sent all records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin(u32);

impl Origin {
    /// The origin of records from this server's own clients.
    pub const NONE: Origin = Origin(0);

    /// Returns a new origin. Each life of each neighbour gets its own.
    #[must_use]
    pub fn next(self) -> Origin {
        Origin(self.0.wrapping_add(1).max(1))
    }
}

/// The effective time and the stamp, which order two lines of one client. If both are equal, the
/// bytes of the lines decide.
pub(super) type Rank = (PosixTime, PosixTime);

/// A stored line, not packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineRef<'a> {
    /// The bytes of the line.
    pub line: &'a [u8],
    /// The hash of the bytes, see [`hash_of`].
    pub hash: u64,
    /// `None` if the line is not an `AT` line; then every other line is newer. This cannot happen,
    /// because only parsed lines are stored.
    pub(super) rank: Option<Rank>,
}

impl LineRef<'_> {
    /// Whether the stored line is older than `line`, whose parsed form is `at`. The line with the
    /// later effective time is newer; then the line with the later stamp; then the line with the
    /// greater bytes. This order is total and the same on every server, so the order of arrival
    /// does not matter.
    #[must_use]
    pub fn is_older(&self, line: &[u8], at: &At<'_>) -> bool {
        self.rank.is_none_or(|(effective, stamp)| {
            (effective, stamp, self.line) < (at.effective, at.stamp, line)
        })
    }

    /// Whether the stored line counts as newer than `at` only because a server's clock is wrong.
    /// That is so if its stamp is older, or if its effective time is after `latest`. No right clock
    /// gives a time after `latest`.
    #[must_use]
    pub fn is_set_aside_by(&self, at: &At<'_>, latest: PosixTime) -> bool {
        self.rank
            .is_none_or(|(effective, stamp)| stamp < at.stamp || effective > latest)
    }
}

/// Returns a hash of the line, which is the same on every machine and in every version.
///
/// The hash begins with the line's length. The line is read in words of eight bytes (little-endian,
/// the last word is filled up with zeros). For each word, the hash is xored with the word, and
/// multiplied by the odd number nearest to 2⁶⁴/φ. Then its upper half is xored into its lower half.
/// The server hashes very often, therefore eight bytes at a time.
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
