//! Finds every good entry of a journal, also after bytes that are not an entry.
//!
//! In format 2, an entry is good at only one offset of only one file. So a scan may look for an
//! entry at every byte, and a client's name cannot forge one. In format 1, a name can look like an
//! entry. So after a broken entry of format 1, the scan skips as many bytes as the length field of
//! this entry says.

use super::{Entry, FRAME_1_BYTES, FRAME_BYTES, Format, Found, MAX_PAYLOAD, find};

/// One piece of a journal. A scan reports the pieces in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A good entry.
    Entry {
        /// The offset of the entry, in bytes from the start of the file.
        offset: u64,
        /// The length of the entry in bytes.
        bytes: usize,
        /// The content of the entry.
        entry: Entry<'a>,
    },
    /// Bytes that are not an entry, with a good entry after them. The gap is reported before that
    /// entry.
    Gap {
        /// The offset of the first such byte, in bytes from the start of the file.
        offset: u64,
        /// The offset of the good entry after the gap.
        end: u64,
    },
}

/// The bytes after the last good entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The offset after the last good entry, in bytes from the start of the file.
    pub offset: u64,
    /// The number of bytes from `offset` to the last byte that is not zero. They contain no good
    /// entry. The zeros after them are reserved space.
    pub torn_bytes: u64,
}

/// Scans the bytes after a journal's header. The file may be passed in parts of any size. A scan
/// stores the last part, and at most one incomplete entry before it.
pub struct Scan {
    format: Format,
    /// Bytes that are not scanned yet. The first of these bytes is at `offset` of the file.
    pending: Vec<u8>,
    offset: u64,
    /// The gap directly before `offset`. `None` if an entry or the header ends at `offset`.
    gap: Option<Gap>,
}

/// A gap whose end is not found yet.
#[derive(Clone, Copy)]
struct Gap {
    start: u64,
    /// The offset after the last byte of the gap that is not zero.
    nonzero_end: u64,
    /// The scan does not search for an entry before this offset.
    skip_until: u64,
}

impl Scan {
    /// Starts a scan at `offset`, where the header ends.
    #[must_use]
    pub fn new(format: Format, offset: u64) -> Scan {
        Scan {
            format,
            pending: Vec::new(),
            offset,
            gap: None,
        }
    }

    /// Scans the next bytes of the file, and passes the pieces in them to `on_piece`.
    pub fn data_received(&mut self, data: &[u8], mut on_piece: impl FnMut(Piece<'_>)) {
        self.pending.extend_from_slice(data);
        self.search(false, &mut on_piece);
    }

    /// Ends the scan, after the last byte of the file. Passes the remaining pieces to `on_piece`,
    /// and returns the tail.
    pub fn finish(mut self, mut on_piece: impl FnMut(Piece<'_>)) -> Tail {
        self.search(true, &mut on_piece);
        match self.gap {
            None => Tail {
                offset: self.offset,
                torn_bytes: 0,
            },
            Some(gap) => Tail {
                offset: gap.start,
                torn_bytes: gap.nonzero_end - gap.start,
            },
        }
    }

    fn search(&mut self, is_end: bool, on_piece: &mut impl FnMut(Piece<'_>)) {
        let mut consumed = 0;
        while consumed < self.pending.len() {
            let (rest, offset) = (&self.pending[consumed..], self.offset + consumed as u64);
            let found = match self.gap {
                Some(gap) if offset < gap.skip_until => Found::NoEntry,
                Some(_) | None => find(rest, self.format, offset),
            };
            match found {
                Found::Entry(entry, bytes) => {
                    if let Some(Gap { start, .. }) = self.gap.take() {
                        let end = offset;
                        on_piece(Piece::Gap { offset: start, end });
                    }
                    on_piece(Piece::Entry {
                        offset,
                        bytes,
                        entry,
                    });
                    consumed += bytes;
                }
                Found::Incomplete if !is_end => break,
                Found::Incomplete | Found::NoEntry => {
                    let gap = self.gap.get_or_insert_with(|| Gap {
                        start: offset,
                        nonzero_end: offset,
                        skip_until: claimed_end(rest, self.format, offset),
                    });
                    if rest[0] != 0 {
                        gap.nonzero_end = offset + 1;
                    }
                    consumed += skippable_bytes(rest);
                }
            }
        }
        self.pending.drain(..consumed);
        self.offset += consumed as u64;
    }
}

/// Returns how many of the first bytes can be skipped if no entry begins at the first byte. The
/// length field of an entry is never zero, and ends within the first `FRAME_BYTES` bytes of the
/// entry. So a long run of zeros, such as reserved space, contains no beginning of an entry except
/// at its end.
fn skippable_bytes(bytes: &[u8]) -> usize {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    zeros.saturating_sub(FRAME_BYTES - 1).max(1)
}

/// Returns the offset at which a broken entry of format 1 ends according to its length field.
/// Returns `offset` if that length is impossible. For format 2, always returns `offset`.
fn claimed_end(bytes: &[u8], format: Format, offset: u64) -> u64 {
    let claimed = match (format, bytes.first_chunk::<4>()) {
        (Format::One, Some(length)) => u32::from_le_bytes(*length) as usize,
        (Format::One, None) | (Format::Two(_), _) => return offset,
    };
    match claimed <= MAX_PAYLOAD {
        true => offset + (FRAME_1_BYTES + claimed) as u64,
        false => offset,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Salt, header, header_bytes, write_checksums};
    use super::*;
    use crate::core::base::boot_id::BootId;
    use proptest::prelude::*;

    const SALT: Salt = Salt(0x0123_4567_89ab_cdef);

    /// Returns a journal of `count` entries, the offset of each entry, and the end of the last one.
    fn journal(count: u64) -> (Vec<u8>, Vec<u64>) {
        let mut file = header("Riley", SALT);
        let mut starts = vec![file.len() as u64];
        for seq in 0..count {
            let line = format!("AT Riley +0.000000000 x{seq} +1+2 3");
            let entry = match seq % 4 {
                0 => Entry::Life {
                    boot: BootId(seq),
                    last_seq_before: seq,
                    machine: 0,
                },
                1 => Entry::Received {
                    neighbour: b"Jaquez",
                    boot: BootId(1),
                    position: seq,
                },
                _ => Entry::Record {
                    seq,
                    epoch: 0,
                    line: line.as_bytes(),
                },
            };
            let start = file.len();
            entry.write(&mut file);
            write_checksums(&mut file[start..], SALT, start as u64);
            starts.push(file.len() as u64);
        }
        (file, starts)
    }

    /// The start and the end of each entry or gap.
    type Ranges = Vec<(u64, u64)>;

    /// Returns the entries, the gaps and the tail that a scan finds.
    fn scan(file: &[u8], piece: usize) -> (Ranges, Ranges, Tail) {
        let header = header_bytes("Riley");
        let mut scan = Scan::new(Format::Two(SALT), header as u64);
        let (mut entries, mut gaps) = (Vec::new(), Vec::new());
        let mut note = |piece: Piece<'_>| match piece {
            Piece::Entry { offset, bytes, .. } => entries.push((offset, offset + bytes as u64)),
            Piece::Gap { offset, end } => gaps.push((offset, end)),
        };
        for bytes in file.get(header..).unwrap_or_default().chunks(piece) {
            scan.data_received(bytes, &mut note);
        }
        let tail = scan.finish(&mut note);
        (entries, gaps, tail)
    }

    #[test]
    fn entries_after_damage_are_found_and_the_gap_reported() {
        let (mut file, starts) = journal(6);
        file[starts[2] as usize + 20] ^= 1;
        file.extend_from_slice(&[0; 5_000]);
        for piece in [1, 7, 64, 100_000] {
            let (entries, gaps, tail) = scan(&file, piece);
            assert_eq!(entries.len(), 5, "in pieces of {piece}");
            assert_eq!(gaps, [(starts[2], starts[3])], "in pieces of {piece}");
            let end = Tail {
                offset: starts[6],
                torn_bytes: 0,
            };
            assert_eq!(tail, end, "in pieces of {piece}");
        }
    }

    proptest! {
        /// In a file with random damage, a scan finds exactly the entries that are not damaged.
        #[test]
        fn a_scan_finds_exactly_the_undamaged_entries(
            count in 1u64..30,
            flips in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..8), 0..6),
            hole in any::<(prop::sample::Index, u8)>(),
            cut in any::<prop::sample::Index>(),
            piece in 1usize..300,
        ) {
            let (good, starts) = journal(count);
            let mut file = good.clone();
            for (at, bit) in &flips {
                file[at.index(good.len())] ^= 1 << bit;
            }
            let start = hole.0.index(good.len());
            let end = (start + usize::from(hole.1)).min(good.len());
            file[start..end].fill(0);
            if flips.len() % 2 == 0 {
                file.truncate(cut.index(good.len()) + 1);
            }
            let (entries, gaps, tail) = scan(&file, piece);
            let untouched: Vec<(u64, u64)> = starts
                .windows(2)
                .map(|pair| (pair[0], pair[1]))
                .filter(|&(start, end)| {
                    let range = start as usize..end as usize;
                    file.get(range.clone()) == Some(&good[range])
                })
                .collect();
            prop_assert_eq!(&entries, &untouched);
            // Every byte is part of an entry, a gap or the tail, or it is a zero after the tail.
            let mut ranges: Vec<_> = entries.iter().chain(&gaps).copied().collect();
            ranges.sort_unstable();
            let mut offset = header_bytes("Riley") as u64;
            for (start, end) in ranges {
                prop_assert_eq!(start, offset);
                offset = end;
            }
            prop_assert_eq!(tail.offset, offset);
            let rest = file.get((tail.offset + tail.torn_bytes) as usize..).unwrap_or_default();
            prop_assert!(rest.iter().all(|&byte| byte == 0));
        }
    }
}
