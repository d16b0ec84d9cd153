//! The journal's format: what a server writes down so that it survives its own end.
//!
//! # The format
//!
//! A journal is a file of entries behind a header. All numbers are little-endian.
//!
//! ```text
//!   header   "herd-mio journal 1 <server>\n"
//!   entry    length u32 · checksum u32 · payload (length bytes)
//!   …
//!   zeros    room that is reserved and not used yet, or nothing
//! ```
//!
//! The checksum is the CRC-32 (IEEE) of the length's four bytes and the payload. A payload begins with one byte that says what it is:
//!
//! | byte | what | then |
//! |---|---|---|
//! | `L` | a life of the server began | boot id u64, the last sequence number before it u64, the machine's own boot id u64 or 0 |
//! | `S` | everything before that offset of the file was synced | offset u64 |
//! | `R` | a record of epoch 0 was accepted | sequence number u64, the `AT` line without its LF |
//! | `E` | a record of a later epoch was accepted | sequence number u64, epoch u32, the `AT` line without its LF |
//! | `H` | a neighbour's feed was heard | its boot id u64, position u64, its name |
//!
//! Entries stand in the order in which things happened, so whatever prefix of them survives is a state that once was. That is what makes
//! a position in a neighbour's feed safe to remember: every record that was sent there before stands before it.
//!
//! # What reading it back finds
//!
//! - **A torn tail**: behind the last good entry is something that is no entry, and no good entry anywhere behind it. That is what a
//!   crash in the middle of a write leaves; it was never acknowledged, and is cut off with a warning.
//! - **A loss of power**: something that is no entry, and good entries behind it, but nothing there was synced, and the machine has
//!   been started anew since. A disk may write what is not synced in any order; it is cut off with a warning, too.
//! - **Damage**: any other place that is no entry with good entries behind it. Nothing but a fault leaves that. The server refuses to
//!   start and names the offset: dropping the rest silently would lose what was acknowledged.

use std::fmt;

use crate::core::herd::BootId;
use crate::core::limits::LINK_LINE_BYTES;

/// Bytes of an entry before its payload.
const FRAME: usize = 8;
/// The longest payload: a record with the longest `AT` line.
const MAX_PAYLOAD: usize = 1 + 8 + 4 + LINK_LINE_BYTES;

/// The longest entry.
pub const MAX_ENTRY: usize = FRAME + MAX_PAYLOAD;

/// Something to be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// The server started.
    Life {
        /// Which life began.
        boot: BootId,
        /// The last change before it: what is numbered higher happened in it.
        after: u64,
        /// The machine's own boot id, or 0 if it has none: as long as it is the same, nothing that was written is lost.
        machine: u64,
    },
    /// Everything before that offset of the file outlasts a loss of power.
    Synced {
        /// In bytes from the start of the file.
        offset: u64,
    },
    /// A record was accepted.
    Record {
        /// Its place in the feed.
        seq: u64,
        /// Its epoch.
        epoch: u32,
        /// Its `AT` line, without the LF.
        line: &'a [u8],
    },
    /// A neighbour's feed was heard up to there.
    Heard {
        /// Which neighbour.
        neighbour: &'a [u8],
        /// In which of its lives.
        boot: BootId,
        /// Up to which of its changes.
        position: u64,
    },
}

/// The first bytes of the journal of a server.
#[must_use]
pub fn header(server: &str) -> Vec<u8> {
    format!("herd-mio journal 1 {server}\n").into_bytes()
}

impl<'a> Entry<'a> {
    /// Appends the entry, checksummed.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; FRAME]);
        match self {
            Entry::Life {
                boot,
                after,
                machine,
            } => {
                out.push(b'L');
                out.extend_from_slice(&boot.0.to_le_bytes());
                out.extend_from_slice(&after.to_le_bytes());
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
            Entry::Heard {
                neighbour,
                boot,
                position,
            } => {
                out.push(b'H');
                out.extend_from_slice(&boot.0.to_le_bytes());
                out.extend_from_slice(&position.to_le_bytes());
                out.extend_from_slice(neighbour);
            }
        }
        // No line comes near 4 GiB.
        let length = ((out.len() - start - FRAME) as u32).to_le_bytes();
        let checksum = checksum(length, &out[start + FRAME..]);
        out[start..start + 4].copy_from_slice(&length);
        out[start + 4..start + FRAME].copy_from_slice(&checksum);
    }

    /// How many bytes a record with a line of that length takes.
    #[must_use]
    pub const fn record_bytes(line: usize) -> usize {
        FRAME + 1 + 8 + line
    }

    fn read(payload: &'a [u8]) -> Option<Entry<'a>> {
        let (&kind, rest) = payload.split_first()?;
        match kind {
            b'L' => {
                let (boot, rest) = number(rest)?;
                let (after, rest) = number(rest)?;
                let (machine, rest) = number(rest)?;
                let life = Entry::Life {
                    boot: BootId(boot),
                    after,
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
                Some(Entry::Heard {
                    neighbour,
                    boot: BootId(boot),
                    position,
                })
            }
            _ => None,
        }
    }
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes(*number), rest))
}

fn checksum(length: [u8; 4], payload: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize().to_le_bytes()
}

/// Whether a file that begins so holds nothing yet: none or some of its header, because the server ended while it wrote that, and
/// room that was reserved.
fn is_unwritten(file: &[u8], header: &[u8]) -> bool {
    let pairs = file.iter().zip(header);
    let written = pairs.take_while(|(byte, wanted)| byte == wanted).count();
    file[written..].iter().all(|&byte| byte == 0)
}

/// What stands at one place of a journal.
enum Found<'a> {
    /// A good entry, and how many bytes it takes.
    Entry(Entry<'a>, usize),
    /// The beginning of what may be one.
    Beginning,
    /// No entry.
    Nothing,
}

fn find(bytes: &[u8]) -> Found<'_> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
        return Found::Beginning;
    };
    let size = u32::from_le_bytes(*length) as usize;
    if size == 0 || size > MAX_PAYLOAD {
        return Found::Nothing;
    }
    let Some((sum, rest)) = rest.split_first_chunk::<4>() else {
        return Found::Beginning;
    };
    let Some(payload) = rest.get(..size) else {
        return Found::Beginning;
    };
    if checksum(*length, payload) != *sum {
        return Found::Nothing;
    }
    Entry::read(payload).map_or(Found::Nothing, |entry| Found::Entry(entry, FRAME + size))
}

/// Why a journal can not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalError {
    /// It does not begin as the journal of this server does.
    Foreign,
    /// There are good entries behind something that is none.
    Damaged {
        /// Where that stands, in bytes from the start of the file.
        offset: u64,
    },
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalError::Foreign => f.write_str("it is not the journal of this server"),
            JournalError::Damaged { offset } => write!(
                f,
                "it is damaged at byte {offset}, with good entries behind that"
            ),
        }
    }
}

/// How a journal ended that could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Everything up to here is good: where to write on.
    pub offset: u64,
    /// Bytes behind that are neither entries nor reserved room.
    pub torn: u64,
}

/// Reads a journal back, from whatever pieces it comes in.
///
/// ```
/// use herd_mio::core::herd::BootId;
/// use herd_mio::core::journal::{Entry, Replay, header};
///
/// let mut file = header("Riley");
/// let life = Entry::Life { boot: BootId(7), after: 0, machine: 1 };
/// life.write(&mut file);
/// let good = file.len() as u64;
/// file.extend_from_slice(b"half an ent");
///
/// let mut replay = Replay::new("Riley", 1);
/// let mut lives = 0;
/// replay.data_received(&file, |entry| lives += u32::from(entry == life))?;
/// let end = replay.finish()?;
/// assert_eq!((lives, end.offset, end.torn), (1, good, 11));
/// # Ok::<(), herd_mio::core::journal::JournalError>(())
/// ```
pub struct Replay {
    header: Vec<u8>,
    /// The machine's present boot id, and that of the last life in the file.
    machine: u64,
    last_machine: Option<u64>,
    in_header: bool,
    /// Bytes not understood yet; they begin at `offset`.
    pending: Vec<u8>,
    offset: u64,
    /// What stands at `offset` is no entry; everything behind it is collected, to be judged at the end.
    broken: bool,
}

impl Replay {
    /// The journal of that server, on a machine with that boot id (0 if it has none).
    #[must_use]
    pub fn new(server: &str, machine: u64) -> Replay {
        Replay {
            header: header(server),
            machine,
            last_machine: None,
            in_header: true,
            pending: Vec::new(),
            offset: 0,
            broken: false,
        }
    }

    /// Takes the next bytes of the file, and tells every good entry in them.
    ///
    /// # Errors
    /// It is not the journal of this server.
    pub fn data_received(
        &mut self,
        data: &[u8],
        mut tell: impl FnMut(Entry<'_>),
    ) -> Result<(), JournalError> {
        self.pending.extend_from_slice(data);
        if self.in_header && self.pending.len() >= self.header.len() {
            if self.pending.starts_with(&self.header) {
                self.take(self.header.len());
                self.in_header = false;
            } else if is_unwritten(&self.pending, &self.header) {
                // As much as a header is kept, with the zero in it that shows that it is none: nothing behind it is taken for one.
                self.pending.truncate(self.header.len());
            } else {
                return Err(JournalError::Foreign);
            }
        }
        let mut used = 0;
        while !self.in_header && !self.broken {
            match find(&self.pending[used..]) {
                Found::Entry(entry, size) => {
                    if let Entry::Life { machine, .. } = entry {
                        self.last_machine = Some(machine);
                    }
                    tell(entry);
                    used += size;
                }
                Found::Beginning => break,
                Found::Nothing => self.broken = true,
            }
        }
        self.take(used);
        Ok(())
    }

    fn take(&mut self, count: usize) {
        self.pending.drain(..count);
        self.offset += count as u64;
    }

    /// The file is read: up to where it is good.
    ///
    /// # Errors
    /// The journal can not be used.
    pub fn finish(self) -> Result<End, JournalError> {
        let torn = self
            .pending
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |last| last + 1);
        let tail = &self.pending[..torn];
        // A crash while the file was being made leaves the beginning of a header, and no entry.
        if self.in_header && !self.header.starts_with(tail) {
            return Err(JournalError::Foreign);
        }
        // Power can only have been lost if the machine was started anew; then what was not synced may be there in part.
        let same_machine =
            self.machine != 0 && self.last_machine.is_none_or(|last| last == self.machine);
        let is_damage = |at: usize| match find(&self.pending[at..]) {
            Found::Entry(Entry::Synced { offset }, _) => same_machine || offset > self.offset,
            Found::Entry(..) => same_machine,
            Found::Beginning | Found::Nothing => false,
        };
        // An entry's length is never zero, so it does not begin with four zeros.
        let mut places = (1..torn).filter(|&at| tail[at..].iter().take(4).any(|&byte| byte != 0));
        if !self.in_header && places.any(is_damage) {
            return Err(JournalError::Damaged {
                offset: self.offset,
            });
        }
        Ok(End {
            offset: self.offset,
            torn: torn as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a file in pieces of that size; the entries come as their debug text.
    fn replay(file: &[u8], piece: usize) -> Result<(Vec<String>, End), JournalError> {
        let mut replay = Replay::new("Riley", 1);
        let mut entries = Vec::new();
        for piece in file.chunks(piece) {
            replay.data_received(piece, |entry| entries.push(format!("{entry:?}")))?;
        }
        Ok((entries, replay.finish()?))
    }

    /// A journal of three entries, and where each begins.
    fn sample() -> (Vec<u8>, Vec<usize>) {
        let mut file = header("Riley");
        let mut starts = Vec::new();
        for entry in [
            Entry::Life {
                boot: BootId(7),
                after: 0,
                machine: 1,
            },
            Entry::Record {
                seq: 1,
                epoch: 0,
                line: b"AT Riley +0.000000000 x +1+2 3",
            },
            Entry::Heard {
                neighbour: b"Jaquez",
                boot: BootId(9),
                position: 5,
            },
        ] {
            starts.push(file.len());
            entry.write(&mut file);
        }
        (file, starts)
    }

    #[test]
    fn a_header_that_was_not_written_whole_is_no_journal_yet_and_one_with_a_hole_is_none() {
        let header = header("Riley");
        for written in 0..header.len() {
            let mut file = header[..written].to_vec();
            file.resize(100, 0);
            for piece in [1, 3, 1_000] {
                let (entries, end) = replay(&file, piece).unwrap();
                assert_eq!(
                    (entries.len(), end.offset, end.torn),
                    (0, 0, written as u64)
                );
            }
            // A zero in its middle, and then the rest of it: found by fuzzing, one byte at a time.
            let mut file = header[..written].to_vec();
            file.push(0);
            file.extend_from_slice(&header[written..]);
            for piece in [1, 3, 1_000] {
                assert_eq!(replay(&file, piece), Err(JournalError::Foreign));
            }
        }
    }

    #[test]
    fn what_was_written_is_read_back_in_any_pieces() {
        let (mut file, _) = sample();
        let length = file.len() as u64;
        let whole = replay(&file, usize::MAX).unwrap();
        assert_eq!(
            (whole.0.len(), whole.1),
            (
                3,
                End {
                    offset: length,
                    torn: 0
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
    fn cut_anywhere_it_is_a_prefix_with_a_torn_tail() {
        let (file, starts) = sample();
        for length in 0..file.len() {
            let (entries, end) = replay(&file[..length], 7).unwrap();
            let whole = starts[1..].iter().filter(|&&start| start <= length).count();
            assert_eq!(entries.len(), whole, "cut at {length}");
            assert!(end.offset as usize + end.torn as usize <= length);
        }
    }

    #[test]
    fn a_flipped_byte_is_a_torn_tail_only_at_the_end() {
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
                assert!(end.torn > 0);
            }
        }
    }

    #[test]
    fn after_a_loss_of_power_only_what_was_synced_has_to_be_there() {
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
        Entry::Synced {
            offset: starts[1] as u64,
        }
        .write(&mut holed);
        assert_eq!(
            read(&holed, 2).unwrap().offset,
            starts[1] as u64,
            "what was synced is there"
        );
        Entry::Synced {
            offset: starts[2] as u64,
        }
        .write(&mut holed);
        assert_eq!(read(&holed, 2), damaged, "what was synced is not there");
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
        fn nothing_makes_it_panic(noise in proptest::collection::vec(any::<u8>(), 0..300), piece in 1usize..100) {
            let file = [header("Riley"), noise].concat();
            let _ = replay(&file, piece);
        }

        /// A torn write: any prefix of what was written last, then whatever the disk had there, here zeros.
        #[test]
        fn a_prefix_survives_a_torn_write(count in 1usize..30, cut in any::<prop::sample::Index>()) {
            let mut file = header("Riley");
            let mut ends = Vec::new();
            for seq in 0..count {
                Entry::Record { seq: seq as u64, epoch: 0, line: format!("AT Riley +0.000000000 x +1+2 {seq}").as_bytes() }.write(&mut file);
                ends.push(file.len());
            }
            let cut = cut.index(file.len());
            file[cut..].fill(0);
            let header = header("Riley").len();
            if cut >= header {
                let (entries, end) = replay(&file, 64).unwrap();
                // Zeros may happen to be what stood there.
                let whole = ends.iter().filter(|&&end| end <= cut).count();
                prop_assert!(entries.len() >= whole && entries.len() <= whole + 1);
                prop_assert!(end.offset as usize <= file.len());
            }
        }
    }
}
