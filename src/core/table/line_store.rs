//! The interface to the store that keeps the lines of the table.
//!
//! ```text
//!   Records ──► LineStore ◄── NaiveStore    each line in a box of its own
//!                         ◄── PackedStore   most lines in fewer bytes ──► packed_line ──► swar
//! ```
//!
//! The server uses a [`PackedStore`], because it needs less memory. The table works in the same way
//! with a [`NaiveStore`], whose code is one page long. Read the naive store to understand the
//! interface, and the packed store to see how a million records fit in little memory. A property
//! test checks that both stores give the same answers.
//!
//! [`NaiveStore`]: crate::core::table::naive_store::NaiveStore
//! [`PackedStore`]: crate::core::table::packed_store::PackedStore

use crate::core::wire::message::At;
use crate::core::wire::posix_time::PosixTime;
use crate::core::wire::swar::word_at;

/// A store of `AT` lines without their LF, one line for each client. Each line has a number. A new
/// line gets the number of a removed line if such a number is free. Otherwise it gets the next
/// unused number; the first number is 0.
pub trait LineStore {
    /// Stores the name of a server of the herd. After this, [`add`](LineStore::add) and
    /// [`replace`](LineStore::replace) never fail because of this name.
    fn add_server_name(&mut self, name: &[u8]);

    /// Stores the first line of a client, and returns the number of the line. `at` is the parsed
    /// line. Returns `None` if all line numbers are in use. Also returns `None` if the server's
    /// name in the line is new and the maximum number of names is stored.
    #[must_use]
    fn add(&mut self, line: &[u8], at: &At<'_>, origin: Origin) -> Option<u32>;

    /// Replaces the line with this number by a newer line of the same client. `hashed` is the newer
    /// line and its [hash](hash_of), and `at` is the parsed line. Returns `None` and keeps the old
    /// line if the server's name in the newer line is new and the maximum number of names is
    /// stored.
    #[must_use]
    fn replace(
        &mut self,
        number: u32,
        hashed: (&[u8], u64),
        at: &At<'_>,
        origin: Origin,
    ) -> Option<()>;

    /// Removes a line. A later line can get the same number.
    fn remove(&mut self, number: u32);

    /// Returns the name of the client whose position the line contains.
    #[must_use]
    fn client(&self, number: u32) -> &[u8];

    /// Returns the origin of the line.
    #[must_use]
    fn origin(&self, number: u32) -> Origin;

    /// Appends the line to `out`.
    fn write(&self, number: u32, out: &mut Vec<u8>);

    /// Whether the stored line is not packed, and equal to `line`. This check is cheap, because it
    /// does not unpack a packed line: for a packed line it returns `false`, even if the lines are
    /// equal.
    #[must_use]
    fn certainly_equals(&self, number: u32, line: &[u8]) -> bool;

    /// Returns the stored line with its hash and its rank. A packed line is unpacked first.
    #[must_use]
    fn unpack(&mut self, number: u32) -> LineRef<'_>;
}

/// The origin of a record: one life of one neighbour, or the clients of this server. A *life* of a
/// server begins when its process starts (see [`BootId`](crate::core::base::boot_id::BootId)).
///
/// A record is not sent back to its origin. When a neighbour begins a new life, the neighbour gets
/// a new `Origin`. So all records are sent to the neighbour again, also the records that the
/// neighbour sent in its earlier life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin(u32);

impl Origin {
    /// The origin of records from this server's own clients.
    pub const LOCAL: Origin = Origin(0);

    /// Returns the next origin. The caller uses a new origin for each life of each neighbour.
    #[must_use]
    pub fn next(self) -> Origin {
        Origin(self.0.wrapping_add(1).max(1))
    }
}

/// The effective time and the stamp of a line. Of two lines of one client, the line with the
/// greater rank is newer. If the ranks are equal, the bytes of the lines decide.
pub(super) type Rank = (PosixTime, PosixTime);

/// A stored line, not packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineRef<'a> {
    /// The bytes of the line.
    pub line: &'a [u8],
    /// The hash of the bytes, see [`hash_of`].
    pub hash: u64,
    /// `None` if the line cannot be parsed as an `AT` line. Every other line counts as newer than
    /// such a line. There is never such a line, because only parsed lines are stored.
    pub(super) rank: Option<Rank>,
}

impl LineRef<'_> {
    /// Whether the stored line is older than `line`. `at` is `line`, parsed. The line with the
    /// later effective time is newer. If the effective times are equal, the line with the later
    /// stamp is newer. If the stamps are equal too, the line with the greater bytes is newer. This
    /// order is total and the same on every server, so the order of arrival does not matter.
    #[must_use]
    pub fn is_older(&self, line: &[u8], at: &At<'_>) -> bool {
        self.rank.is_none_or(|(effective, stamp)| {
            (effective, stamp, self.line) < (at.effective, at.stamp, line)
        })
    }

    /// Whether the stored line wins over `at` only because the clock of a server is wrong. This is
    /// true in two cases. The stored line has the older stamp, or its effective time is after
    /// `latest`. `latest` is the latest effective time that a server with a right clock can give
    /// now.
    #[must_use]
    pub fn wins_only_by_clock_error(&self, at: &At<'_>, latest: PosixTime) -> bool {
        self.rank
            .is_none_or(|(effective, stamp)| stamp < at.stamp || effective > latest)
    }
}

/// Returns a hash of the line, which is the same on every machine and in every version.
///
/// The hash begins with the line's length. The line is read in words of eight bytes (little-endian,
/// with zeros after the end of the last word). For each word, the hash is xored with the word, and
/// multiplied by the odd number nearest to 2⁶⁴/φ. Then the upper half of the hash is xored into its
/// lower half. The function reads eight bytes at a time to be fast, because the server computes
/// very many hashes.
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
