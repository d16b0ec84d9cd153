//! The format of the journal, the file that lets a server continue after a crash.
//!
//! # The format
//!
//! A journal is a header, followed by entries. All numbers are little-endian.
//!
//! ```text
//!   header   "herd-mio journal 2 <server> <salt> <checksum>\n"     16 hexadecimal digits each
//!   entry    checksum u64 · length u32 · payload (length bytes)
//!   …
//!   zeros    disk space that is reserved and not used yet, or nothing
//! ```
//!
//! The header's checksum is the XXH3 (64 bits) of the bytes before it. The checksum of an entry is
//! the XXH3 of its length and its payload. The seed of the XXH3 is the file's salt plus the entry's
//! offset in the file. The salt is random, and the server never sends it to anyone. So bytes that a
//! client chose, for example a name, cannot pass for an entry, wherever they are in the file. The
//! first byte of a payload is the kind of the entry:
//!
//! | byte | what | then |
//! |---|---|---|
//! | `L` | a life of the server began | boot id u64, the last sequence number before this life u64, the machine's own boot id u64 or 0 |
//! | `S` | all bytes before this offset of the file were synced | offset u64 |
//! | `R` | a record of epoch 0 was accepted | sequence number u64, the `AT` line without its LF |
//! | `E` | a record of a later epoch was accepted | sequence number u64, epoch u32, the `AT` line without its LF |
//! | `H` | a neighbour's feed was received up to a position | the neighbour's boot id u64, position u64, the neighbour's name |
//! | `T` | we sent a neighbour a `SYNC` with a position in our feed | position u64, the neighbour's name |
//!
//! [`crate::core::table::records`] explains feeds and epochs, and [`crate::core::link`] explains
//! lives.
//!
//! Entries are in the order of the events. So every prefix of the entries is a state that the
//! server once had. An `H` entry is therefore always true: the records that the neighbour sent
//! before that position are before the `H` entry in the file. A `T` entry is always true too: all
//! changes on which its position depends are before the `T` entry in the file. The order also helps
//! if an older copy of the file is restored. If a neighbour names a position that no `T` entry of
//! the copy contains, the server confirmed that position after the copy was made. Then the copy may
//! lack changes on which the position depends.
//!
//! Format 1 had no salt, and its checksum was the CRC-32 (IEEE) of length and payload: `length u32
//! · checksum u32 · payload`. A server can read format 1, and rewrites such a journal in format 2
//! before it serves clients.
//!
//! # Which damage is an error
//!
//! - **A torn tail**: there are bytes after the last good entry, and these bytes are not an entry.
//!   A crash of the server in the middle of a write leaves such bytes. The server writes an entry
//!   before it sends a reply that depends on the entry, so no reply depends on these bytes. The
//!   next start cuts them off and logs a warning.
//! - **A loss of power**: there are bytes that are not an entry, and good entries after them. But
//!   no sync covered these bytes, and the machine was restarted since, or it is unknown whether it
//!   was. A disk may write unsynced bytes in any order. The server cuts off these bytes and all
//!   bytes after them, and logs a warning.
//! - **Damage**: any other bytes that are not an entry, with good entries after them. Only a fault
//!   of the disk or of a program leaves such bytes. The server refuses to start, and the error
//!   names the offset. If it started without these entries, it would silently lose acknowledged
//!   records.

mod damage;
mod header_probe;
mod scan;

use std::fmt;

use twox_hash::XxHash3_64;

pub use self::damage::DamageDetector;
pub use self::header_probe::{HeaderProbe, probe_header};
pub use self::scan::{Piece, Scan, Tail};

use crate::core::base::boot_id::BootId;
use crate::core::base::limits::LINK_LINE_BYTES;

/// The number of bytes of an entry before its payload, in format 2.
const FRAME_BYTES: usize = 12;
/// The number of bytes of an entry's checksum.
const CHECKSUM_BYTES: usize = 8;
/// The maximum length of a payload: a record of a later epoch with the longest `AT` line.
const MAX_PAYLOAD: usize = 1 + 8 + 4 + LINK_LINE_BYTES;
/// The number of digits of the salt, and of the checksum, in the header.
const DIGITS: usize = 16;

/// The maximum length of an entry, in bytes.
pub const MAX_ENTRY: usize = FRAME_BYTES + MAX_PAYLOAD;

/// The format of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The first format, in which a client's name can forge an entry. The server reads it, and
    /// never writes it.
    One,
    /// The present format, with the file's salt.
    Two(Salt),
}

/// A random number, different in each file. Every checksum of the file depends on it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt(pub u64);

impl fmt::Debug for Salt {
    /// The number is not shown: a client that knows it could choose a name that forges an entry.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(…)")
    }
}

/// One entry of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// The server started, or began a new life without a restart.
    Life {
        /// The server's boot id in the life that began.
        boot: BootId,
        /// The sequence number of the last change before this life. Changes of this life have
        /// higher numbers.
        last_seq_before: u64,
        /// The kernel's boot id, or 0 if the machine has none. While this id stays the same, the
        /// machine was not restarted, so no written byte is lost.
        machine: u64,
    },
    /// A sync has finished: all bytes before this offset of the file survive a loss of power.
    Synced {
        /// The offset, in bytes from the start of the file.
        offset: u64,
    },
    /// A record was accepted.
    Record {
        /// The sequence number of the record in the feed.
        seq: u64,
        /// The epoch of the record, see [`crate::core::table::records`].
        epoch: u32,
        /// The record's `AT` line, without the LF.
        line: &'a [u8],
    },
    /// A neighbour's feed was received up to a position. `herd-journal` prints this entry as
    /// `heard`.
    Received {
        /// The name of the neighbour.
        neighbour: &'a [u8],
        /// The boot id of the neighbour. `position` is a position in the feed of this life of the
        /// neighbour.
        boot: BootId,
        /// The sequence number up to which the neighbour's feed was received.
        position: u64,
    },
    /// This server has sent a neighbour a `SYNC` with `position`, a position in our feed.
    /// `herd-journal` prints this entry as `told`.
    Confirmed {
        /// The name of the neighbour.
        neighbour: &'a [u8],
        /// The sequence number in our feed that the `SYNC` contained.
        position: u64,
    },
}

/// Returns the header of a journal of `server`.
#[must_use]
pub fn header(server: &str, salt: Salt) -> Vec<u8> {
    let mut header = format!("{}{:016x} ", header_before_salt(server), salt.0);
    let sum = XxHash3_64::oneshot(header.as_bytes());
    header.push_str(&format!("{sum:016x}\n"));
    header.into_bytes()
}

fn header_before_salt(server: &str) -> String {
    format!("herd-mio journal 2 {server} ")
}

/// Returns the length of a [`header`] in bytes.
#[must_use]
pub fn header_bytes(server: &str) -> usize {
    header_before_salt(server).len() + 2 * (DIGITS + 1)
}

/// Returns the header of a journal of format 1.
#[must_use]
pub fn header_of_format_1(server: &str) -> Vec<u8> {
    format!("herd-mio journal 1 {server}\n").into_bytes()
}

impl<'a> Entry<'a> {
    /// Appends the entry without its checksum. The checksum depends on the offset in the file, so
    /// [`write_checksums`] adds it later.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; FRAME_BYTES]);
        match self {
            Entry::Life {
                boot,
                last_seq_before,
                machine,
            } => {
                out.push(b'L');
                out.extend_from_slice(&boot.0.to_le_bytes());
                out.extend_from_slice(&last_seq_before.to_le_bytes());
                out.extend_from_slice(&machine.to_le_bytes());
            }
            Entry::Synced { offset } => {
                out.push(b'S');
                out.extend_from_slice(&offset.to_le_bytes());
            }
            Entry::Record { seq, epoch, line } => {
                out.push(if *epoch == 0 { b'R' } else { b'E' });
                out.extend_from_slice(&seq.to_le_bytes());
                if *epoch > 0 {
                    out.extend_from_slice(&epoch.to_le_bytes());
                }
                out.extend_from_slice(line);
            }
            Entry::Received {
                neighbour,
                boot,
                position,
            } => {
                out.push(b'H');
                out.extend_from_slice(&boot.0.to_le_bytes());
                out.extend_from_slice(&position.to_le_bytes());
                out.extend_from_slice(neighbour);
            }
            Entry::Confirmed {
                neighbour,
                position,
            } => {
                out.push(b'T');
                out.extend_from_slice(&position.to_le_bytes());
                out.extend_from_slice(neighbour);
            }
        }
        // The length fits into a `u32`: no line is nearly as long as 4 GiB.
        let length = ((out.len() - start - FRAME_BYTES) as u32).to_le_bytes();
        out[start + CHECKSUM_BYTES..start + FRAME_BYTES].copy_from_slice(&length);
    }

    /// Returns the number of bytes of an entry for a record of epoch 0, with a line of `line`
    /// bytes.
    #[must_use]
    pub const fn record_bytes(line: usize) -> usize {
        FRAME_BYTES + 1 + 8 + line
    }

    /// Returns the number of bytes of a [`Life`](Entry::Life) entry.
    #[must_use]
    pub const fn life_bytes() -> usize {
        FRAME_BYTES + 1 + 3 * 8
    }

    /// Returns the number of bytes of a [`Received`](Entry::Received) entry for a neighbour whose
    /// name has `name` bytes. A [`Confirmed`](Entry::Confirmed) entry is shorter.
    #[must_use]
    pub const fn position_bytes(name: usize) -> usize {
        FRAME_BYTES + 1 + 2 * 8 + name
    }

    fn read(payload: &'a [u8]) -> Option<Entry<'a>> {
        let (&kind, rest) = payload.split_first()?;
        match kind {
            b'L' => {
                let (boot, rest) = number(rest)?;
                let (last_seq_before, rest) = number(rest)?;
                let (machine, rest) = number(rest)?;
                let life = Entry::Life {
                    boot: BootId(boot),
                    last_seq_before,
                    machine,
                };
                rest.is_empty().then_some(life)
            }
            b'S' => {
                let (offset, rest) = number(rest)?;
                rest.is_empty().then_some(Entry::Synced { offset })
            }
            b'R' => {
                let (seq, line) = number(rest)?;
                Some(Entry::Record {
                    seq,
                    epoch: 0,
                    line,
                })
            }
            b'E' => {
                let (seq, rest) = number(rest)?;
                let (epoch, line) = rest.split_first_chunk()?;
                let epoch = u32::from_le_bytes(*epoch);
                (epoch > 0).then_some(Entry::Record { seq, epoch, line })
            }
            b'H' => {
                let (boot, rest) = number(rest)?;
                let (position, neighbour) = number(rest)?;
                Some(Entry::Received {
                    neighbour,
                    boot: BootId(boot),
                    position,
                })
            }
            b'T' => {
                let (position, neighbour) = number(rest)?;
                Some(Entry::Confirmed {
                    neighbour,
                    position,
                })
            }
            _ => None,
        }
    }
}

/// Writes the checksums into the entries in `bytes`. The file of these entries has this `salt`. The
/// first entry begins at `offset` of the file.
pub fn write_checksums(mut bytes: &mut [u8], salt: Salt, mut offset: u64) {
    while let Some((sum, rest)) = bytes.split_first_chunk_mut::<CHECKSUM_BYTES>() {
        let Some(length) = rest.first_chunk::<4>() else {
            return;
        };
        let size = 4 + u32::from_le_bytes(*length) as usize;
        let Some((checked_bytes, following)) = rest.split_at_mut_checked(size) else {
            return;
        };
        *sum = checksum(checked_bytes, salt, offset);
        offset += (CHECKSUM_BYTES + size) as u64;
        bytes = following;
    }
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes(*number), rest))
}

/// Returns the checksum of an entry. `checked_bytes` is the entry's length and payload.
fn checksum(checked_bytes: &[u8], salt: Salt, offset: u64) -> [u8; CHECKSUM_BYTES] {
    XxHash3_64::oneshot_with_seed(salt.0.wrapping_add(offset), checked_bytes).to_le_bytes()
}

/// What a file begins with, as [`read_header`] finds it.
#[derive(Debug, PartialEq, Eq)]
enum Header {
    /// A whole header, and its length in bytes.
    Whole(Format, usize),
    /// The beginning of a header. More bytes are needed.
    Incomplete,
    /// The server stopped while it wrote the header. The file contains the first bytes of the
    /// header (perhaps none), and then only zeros. The zeros are reserved space.
    Unwritten,
    /// The file does not begin with a header of this server's journal.
    Foreign,
}

/// Reads the header of a journal of `server`.
fn read_header(file: &[u8], server: &str) -> Header {
    let format_1 = header_of_format_1(server);
    if file.starts_with(&format_1) {
        return Header::Whole(Format::One, format_1.len());
    }
    let before_salt = header_before_salt(server).into_bytes();
    let bytes = header_bytes(server);
    let salt = file.get(before_salt.len()..before_salt.len() + DIGITS);
    if let Some(salt) = salt.and_then(number_in_hex).map(Salt)
        && file.starts_with(&header(server, salt))
    {
        return Header::Whole(Format::Two(salt), bytes);
    }
    // If the server stopped while it wrote the header, the file is a part of a header (`written`
    // bytes) and then only zeros.
    let written = common_prefix(file, &format_1).max(format_2_prefix(file, &before_salt));
    if written >= bytes || file[written..].iter().any(|&byte| byte != 0) {
        Header::Foreign
    } else if file.len() < bytes {
        Header::Incomplete
    } else {
        Header::Unwritten
    }
}

/// Returns how many bytes at the start of the file can be the beginning of a header of format 2.
fn format_2_prefix(file: &[u8], before_salt: &[u8]) -> usize {
    let mut written = common_prefix(file, before_salt);
    if written < before_salt.len() {
        return written;
    }
    for end in *b" \n" {
        let digits = file[written..].iter().take(DIGITS);
        let count = digits.take_while(|byte| is_digit(**byte)).count();
        written += count;
        if count < DIGITS || file.get(written) != Some(&end) {
            return written;
        }
        written += 1;
    }
    written
}

fn common_prefix(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn number_in_hex(digits: &[u8]) -> Option<u64> {
    let digits = digits
        .iter()
        .all(|&byte| is_digit(byte))
        .then_some(digits)?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// What a search for an entry finds at one offset of a journal.
enum Found<'a> {
    /// A good entry, and its length in bytes.
    Entry(Entry<'a>, usize),
    /// Perhaps the beginning of an entry. More bytes are needed.
    Incomplete,
    /// No entry begins here.
    NoEntry,
}

/// Returns what begins at `offset` of the file. `bytes` are the bytes of the file from there on.
fn find(bytes: &[u8], format: Format, offset: u64) -> Found<'_> {
    let (sum, sized) = match format {
        Format::One => match bytes.split_at_checked(4) {
            Some((length, [a, b, c, d, ..])) => {
                (u64::from(u32::from_le_bytes([*a, *b, *c, *d])), length)
            }
            Some(_) | None => return Found::Incomplete,
        },
        Format::Two(_) => match bytes.split_first_chunk::<CHECKSUM_BYTES>() {
            Some((sum, sized)) => (u64::from_le_bytes(*sum), sized),
            None => return Found::Incomplete,
        },
    };
    let Some(length) = sized.first_chunk::<4>() else {
        return Found::Incomplete;
    };
    let size = u32::from_le_bytes(*length) as usize;
    if size == 0 || size > MAX_PAYLOAD {
        return Found::NoEntry;
    }
    let frame = match format {
        Format::One => FRAME_1_BYTES,
        Format::Two(_) => FRAME_BYTES,
    };
    let Some(payload) = bytes.get(frame..frame + size) else {
        return Found::Incomplete;
    };
    let is_valid = match format {
        Format::One => sum == u64::from(checksum_of_format_1(*length, payload)),
        Format::Two(salt) => checksum(&sized[..4 + size], salt, offset) == sum.to_le_bytes(),
    };
    if !is_valid {
        return Found::NoEntry;
    }
    Entry::read(payload).map_or(Found::NoEntry, |entry| Found::Entry(entry, frame + size))
}

/// The number of bytes of an entry of format 1 before its payload.
const FRAME_1_BYTES: usize = 8;

fn checksum_of_format_1(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}

/// Why a journal cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalError {
    /// The file does not begin with a header of this server's journal.
    Foreign,
    /// The journal is damaged: some bytes are not an entry, good entries follow, and neither a torn
    /// write nor a loss of power explains this.
    Damaged {
        /// The offset of these bytes from the start of the file.
        offset: u64,
    },
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalError::Foreign => {
                f.write_str("its first bytes are not those of a journal of this server")
            }
            JournalError::Damaged { offset } => write!(
                f,
                "it is damaged at byte {offset}, with good entries behind that"
            ),
        }
    }
}

/// The end of the good entries of a journal that was read without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// All bytes before this offset are good. The next entry is written here.
    pub offset: u64,
    /// The number of bytes from `offset` to the last byte that is not zero. After a loss of power,
    /// good entries can follow the first gap. Their bytes are counted too, because `on_entry` does
    /// not get these entries. The zeros after them are reserved space.
    pub torn_bytes: u64,
    /// The format of the journal. `None` if no header is written yet.
    pub format: Option<Format>,
}

/// Reads the entries of a journal. The bytes of the file may be passed in pieces of any size.
///
/// ```
/// use herd_mio::core::base::boot_id::BootId;
/// use herd_mio::core::journal::format::{Entry, Format, Replay, Salt, header, write_checksums};
///
/// let salt = Salt(0x5a17);
/// let mut file = header("Riley", salt);
/// let start = file.len();
/// let life = Entry::Life { boot: BootId(7), last_seq_before: 0, machine: 1 };
/// life.write(&mut file);
/// write_checksums(&mut file[start..], salt, start as u64);
/// let good = file.len() as u64;
/// file.extend_from_slice(b"half an ent");
///
/// let mut replay = Replay::new("Riley", 1);
/// let mut lives = 0;
/// replay.data_received(&file, |entry| lives += u32::from(entry == life))?;
/// let end = replay.finish()?;
/// assert_eq!((lives, end.offset, end.torn_bytes), (1, good, 11));
/// assert_eq!(end.format, Some(Format::Two(salt)));
/// # Ok::<(), herd_mio::core::journal::format::JournalError>(())
/// ```
pub struct Replay {
    server: String,
    detector: DamageDetector,
    /// The bytes of the header, until it is whole. Then the scan of the entries.
    state: State,
}

enum State {
    Header(Vec<u8>),
    Entries(Format, Scan),
}

impl Replay {
    /// Begins to read the journal of `server`. `machine` is the machine's present boot id (0 if it
    /// has none).
    #[must_use]
    pub fn new(server: &str, machine: u64) -> Replay {
        Replay {
            server: server.to_owned(),
            detector: DamageDetector::new(machine),
            state: State::Header(Vec::new()),
        }
    }

    /// Reads the next bytes of the file. Passes each good entry in these bytes to `on_entry`, up to
    /// the first gap.
    ///
    /// # Errors
    /// The file is not a journal of this server.
    pub fn data_received(
        &mut self,
        data: &[u8],
        mut on_entry: impl FnMut(Entry<'_>),
    ) -> Result<(), JournalError> {
        let detector = &mut self.detector;
        let on_entry = |piece: Piece<'_>| observe_and_emit(detector, piece, &mut on_entry);
        match &mut self.state {
            State::Entries(_, scan) => scan.data_received(data, on_entry),
            State::Header(pending) => {
                pending.extend_from_slice(data);
                match read_header(pending, &self.server) {
                    Header::Whole(format, bytes) => {
                        let mut scan = Scan::new(format, bytes as u64);
                        scan.data_received(&pending[bytes..], on_entry);
                        self.state = State::Entries(format, scan);
                    }
                    Header::Incomplete => {}
                    // The pending bytes are cut to the length of a header. They contain a zero, so
                    // they can never become a whole header, whatever bytes follow.
                    Header::Unwritten => pending.truncate(header_bytes(&self.server)),
                    Header::Foreign => return Err(JournalError::Foreign),
                }
            }
        }
        Ok(())
    }

    /// Ends the reading, after the last byte of the file. Returns the end of the good entries.
    ///
    /// # Errors
    /// The journal is damaged.
    pub fn finish(self) -> Result<End, JournalError> {
        let Replay {
            mut detector,
            state,
            ..
        } = self;
        let (format, scan) = match state {
            State::Entries(format, scan) => (format, scan),
            // The file has no complete header: it is new, or the server stopped while it wrote the
            // header. So it has no entries.
            State::Header(pending) => {
                return Ok(End {
                    offset: 0,
                    torn_bytes: nonzero_len(&pending) as u64,
                    format: None,
                });
            }
        };
        // Each entry that the scan finds only now is after a gap, so it is not passed to
        // `on_entry`.
        let tail = scan.finish(|piece| detector.observe(&piece));
        detector.check()?;
        // After a loss of power, the tail begins at the first gap and ends at the last written
        // byte.
        let offset = detector.first_gap().unwrap_or(tail.offset);
        Ok(End {
            offset,
            torn_bytes: tail.offset + tail.torn_bytes - offset,
            format: Some(format),
        })
    }
}

/// Passes a piece to the detector. An entry before the first gap is also passed to `on_entry`.
#[inline]
fn observe_and_emit(
    detector: &mut DamageDetector,
    piece: Piece<'_>,
    on_entry: &mut impl FnMut(Entry<'_>),
) {
    detector.observe(&piece);
    if let (Piece::Entry { entry, .. }, None) = (piece, detector.first_gap()) {
        on_entry(entry);
    }
}

/// Returns the offset after the last byte that is not zero.
fn nonzero_len(bytes: &[u8]) -> usize {
    let last = bytes.iter().rposition(|&byte| byte != 0);
    last.map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SALT: Salt = Salt(0x0123_4567_89ab_cdef);

    /// Returns the header of a journal of the server Riley.
    fn header() -> Vec<u8> {
        super::header("Riley", SALT)
    }

    /// Appends an entry to a journal.
    fn append(file: &mut Vec<u8>, entry: Entry<'_>) {
        let start = file.len();
        entry.write(file);
        write_checksums(&mut file[start..], SALT, start as u64);
    }

    /// Reads a file in pieces of `piece` bytes. Returns the debug texts of the entries.
    fn replay(file: &[u8], piece: usize) -> Result<(Vec<String>, End), JournalError> {
        let mut replay = Replay::new("Riley", 1);
        let mut entries = Vec::new();
        for piece in file.chunks(piece) {
            replay.data_received(piece, |entry| entries.push(format!("{entry:?}")))?;
        }
        Ok((entries, replay.finish()?))
    }

    /// Returns a journal of three entries, and the offset of each entry.
    fn sample() -> (Vec<u8>, Vec<usize>) {
        let mut file = header();
        let mut starts = Vec::new();
        for entry in [
            Entry::Life {
                boot: BootId(7),
                last_seq_before: 0,
                machine: 1,
            },
            Entry::Record {
                seq: 1,
                epoch: 0,
                line: b"AT Riley +0.000000000 x +1+2 3",
            },
            Entry::Received {
                neighbour: b"Jaquez",
                boot: BootId(9),
                position: 5,
            },
        ] {
            starts.push(file.len());
            append(&mut file, entry);
        }
        (file, starts)
    }

    #[test]
    fn a_partial_header_is_torn_and_one_with_a_hole_is_foreign() {
        let header = header();
        for written in 0..header.len() {
            let mut file = header[..written].to_vec();
            file.resize(100, 0);
            for piece in [1, 3, 1_000] {
                let (entries, end) = replay(&file, piece).unwrap();
                assert_eq!(
                    (entries.len(), end.offset, end.torn_bytes),
                    (0, 0, written as u64)
                );
            }
            // A zero in the middle of a header, and then the rest of the header. Fuzzing found this
            // case with pieces of one byte.
            let mut file = header[..written].to_vec();
            file.push(0);
            file.extend_from_slice(&header[written..]);
            for piece in [1, 3, 1_000] {
                assert_eq!(replay(&file, piece), Err(JournalError::Foreign));
            }
        }
    }

    #[test]
    fn written_entries_are_read_back_in_chunks_of_any_size() {
        let (mut file, _) = sample();
        let length = file.len() as u64;
        let whole = replay(&file, usize::MAX).unwrap();
        assert_eq!(
            (whole.0.len(), whole.1),
            (
                3,
                End {
                    offset: length,
                    torn_bytes: 0,
                    format: Some(Format::Two(SALT)),
                }
            )
        );
        for piece in 1..file.len() {
            assert_eq!(replay(&file, piece).unwrap(), whole);
        }
        file.resize(file.len() + 5000, 0);
        assert_eq!(
            replay(&file, 100).unwrap(),
            whole,
            "reserved room is no tail"
        );
        assert_eq!(Entry::record_bytes(30), sample().1[2] - sample().1[1]);
    }

    #[test]
    fn a_truncated_journal_is_a_prefix_with_a_torn_tail() {
        let (file, starts) = sample();
        for length in 0..file.len() {
            let (entries, end) = replay(&file[..length], 7).unwrap();
            let whole = starts[1..].iter().filter(|&&start| start <= length).count();
            assert_eq!(entries.len(), whole, "cut at {length}");
            assert!(end.offset as usize + end.torn_bytes as usize <= length);
        }
    }

    #[test]
    fn a_flipped_bit_is_a_torn_tail_only_in_the_last_entry() {
        let (file, starts) = sample();
        for at in 0..file.len() {
            let mut flipped = file.clone();
            flipped[at] ^= 0x10;
            let outcome = replay(&flipped, usize::MAX);
            if at < starts[0] {
                assert_eq!(outcome, Err(JournalError::Foreign), "byte {at}");
            } else if at < starts[2] {
                let start = *starts.iter().rev().find(|&&start| start <= at).unwrap() as u64;
                assert_eq!(
                    outcome,
                    Err(JournalError::Damaged { offset: start }),
                    "byte {at}"
                );
            } else {
                let (entries, end) = outcome.unwrap();
                assert_eq!(
                    (entries.len(), end.offset as usize),
                    (2, starts[2]),
                    "byte {at}"
                );
                assert!(end.torn_bytes > 0);
            }
        }
    }

    #[test]
    fn only_synced_entries_must_survive_a_power_loss() {
        let (file, starts) = sample();
        let read = |file: &[u8], machine: u64| {
            let mut replay = Replay::new("Riley", machine);
            replay
                .data_received(file, |_| ())
                .and_then(|()| replay.finish())
        };
        let mut holed = file.clone();
        holed[starts[1]..starts[2]].fill(0);
        let damaged = Err(JournalError::Damaged {
            offset: starts[1] as u64,
        });
        assert_eq!(read(&holed, 1), damaged, "the machine has run all the time");
        assert_eq!(
            read(&holed, 2).unwrap().offset,
            starts[1] as u64,
            "it has not, and nothing was synced"
        );
        let synced = Entry::Synced {
            offset: starts[1] as u64,
        };
        append(&mut holed, synced);
        assert_eq!(
            read(&holed, 2).unwrap().offset,
            starts[1] as u64,
            "what was synced is there"
        );
        let synced = Entry::Synced {
            offset: starts[2] as u64,
        };
        append(&mut holed, synced);
        assert_eq!(read(&holed, 2), damaged, "what was synced is not there");
    }

    #[test]
    fn a_name_cannot_forge_an_entry() {
        // A client knows the formats and the bytes of its own name. It knows neither the salt nor
        // the offset, so it cannot compute a valid checksum.
        let life = Entry::Life {
            boot: BootId(7),
            last_seq_before: 0,
            machine: 1,
        };
        let mut forged = Vec::new();
        for salt in [Salt(0), Salt(1), Salt(u64::MAX)] {
            for offset in 0..400 {
                let start = forged.len();
                life.write(&mut forged);
                write_checksums(&mut forged[start..], salt, offset);
            }
        }
        forged.extend_from_slice(&life_of_format_1());
        let (mut file, _) = sample();
        let good = file.len();
        append(
            &mut file,
            Entry::Received {
                neighbour: &forged[..4_000],
                boot: BootId(1),
                position: 1,
            },
        );
        append(
            &mut file,
            Entry::Received {
                neighbour: &forged[forged.len() - 4_000..],
                boot: BootId(1),
                position: 1,
            },
        );
        let whole = replay(&file, 1_000).unwrap();
        assert_eq!(whole.1.torn_bytes, 0);
        // A cut at any offset inside these entries leaves a torn tail, not damage.
        for cut in (good + 1..file.len()).step_by(13) {
            let (entries, end) = replay(&file[..cut], usize::MAX).unwrap();
            assert!(
                entries.len() >= 3 && end.torn_bytes > 0,
                "cut at {cut}: {end:?}"
            );
        }
    }

    #[test]
    fn an_entry_is_valid_only_in_its_file_at_its_offset() {
        let (file, starts) = sample();
        let entry = &file[starts[1]..starts[2]];
        let mut moved = file[..starts[1]].to_vec();
        moved.push(0);
        moved.extend_from_slice(entry);
        assert_eq!(replay(&moved, 100).unwrap().0.len(), 1, "at another place");
        let mut other = super::header("Riley", Salt(SALT.0 + 1));
        other.extend_from_slice(&file[starts[0]..]);
        let (entries, end) = replay(&other, 100).unwrap();
        assert_eq!(
            (entries.len(), end.offset),
            (0, starts[0] as u64),
            "in another file"
        );
    }

    fn life_of_format_1() -> Vec<u8> {
        let mut payload = vec![b'L'];
        for number in [7_u64, 0, 1] {
            payload.extend_from_slice(&number.to_le_bytes());
        }
        let length = (payload.len() as u32).to_le_bytes();
        let sum = checksum_of_format_1(length, &payload).to_le_bytes();
        [&length[..], &sum, &payload].concat()
    }

    #[test]
    fn a_journal_of_format_1_is_read() {
        let mut file = header_of_format_1("Riley");
        let life = life_of_format_1();
        file.extend_from_slice(&life);
        file.extend_from_slice(&life);
        for piece in [1, 7, 1_000] {
            let (entries, end) = replay(&file, piece).unwrap();
            assert_eq!((entries.len(), end.format), (2, Some(Format::One)));
            assert_eq!((end.offset, end.torn_bytes), (file.len() as u64, 0));
        }
        let mut damaged = file.clone();
        damaged[header_of_format_1("Riley").len() + FRAME_1_BYTES] ^= 1;
        let outcome = replay(&damaged, 100);
        assert!(
            matches!(outcome, Err(JournalError::Damaged { .. })),
            "{outcome:?}"
        );
        // An incomplete last entry is a torn tail, even if its bytes contain a forged whole entry.
        let good = file.len();
        file.extend_from_slice(&200_u32.to_le_bytes());
        file.extend_from_slice(&[1; 20]);
        file.extend_from_slice(&life);
        file.extend_from_slice(&[1; 20]);
        let (entries, end) = replay(&file, 100).unwrap();
        assert_eq!((entries.len(), end.offset), (2, good as u64));
    }

    #[test]
    fn another_server_s_journal_is_refused() {
        let (file, _) = sample();
        let mut replay = Replay::new("Jaquez", 1);
        assert_eq!(
            replay.data_received(&file, |_| panic!("told")),
            Err(JournalError::Foreign)
        );
    }

    proptest! {
        #[test]
        fn replay_of_any_bytes_does_not_panic(noise in proptest::collection::vec(any::<u8>(), 0..300), piece in 1usize..100) {
            let file = [header(), noise].concat();
            let _ = replay(&file, piece);
        }

        /// A torn write: the last bytes are missing, and the file has zeros there.
        #[test]
        fn a_prefix_survives_a_torn_write(count in 1usize..30, cut in any::<prop::sample::Index>()) {
            let mut file = header();
            let mut ends = Vec::new();
            for seq in 0..count {
                let line = format!("AT Riley +0.000000000 x +1+2 {seq}");
                append(&mut file, Entry::Record { seq: seq as u64, epoch: 0, line: line.as_bytes() });
                ends.push(file.len());
            }
            let cut = cut.index(file.len());
            file[cut..].fill(0);
            let header = header().len();
            if cut >= header {
                let (entries, end) = replay(&file, 64).unwrap();
                // The bytes from `cut` on are zeros now. One more entry is whole if its bytes there
                // were zeros originally.
                let whole = ends.iter().filter(|&&end| end <= cut).count();
                prop_assert!(entries.len() >= whole && entries.len() <= whole + 1);
                prop_assert!(end.offset as usize <= file.len());
            }
        }
    }
}
