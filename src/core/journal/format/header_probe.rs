//! Finds out which server a journal belongs to. `herd-journal` needs this: it opens journals
//! without the server's settings. Often this works even if the header is damaged.

use super::{DIGITS, Format, Found, Header, Salt, find, header_bytes, number_in_hex, read_header};

/// The first bytes of every header. The number of the format follows.
const MAGIC: &[u8] = b"herd-mio journal ";
/// The maximum length of a server's name, in bytes.
const MAX_NAME: usize = 64;

/// What the first bytes of a file show about its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderProbe {
    /// The header is whole.
    Valid {
        /// The name of the server that the journal belongs to.
        server: String,
        /// The format of the journal.
        format: Format,
        /// The length of the header in bytes, which is the offset of the first entry.
        bytes: usize,
    },
    /// The header is damaged, but enough of it is left to read the entries.
    Repaired {
        /// The name of the server that the journal belongs to.
        server: String,
        /// The format of the journal.
        format: Format,
        /// The length of the header in bytes, which is the offset of the first entry.
        bytes: usize,
    },
    /// The server stopped while it wrote the header. No entry follows.
    Unwritten,
    /// The header names a newer format, which this version cannot read. The value is the number of
    /// that format.
    NewerFormat(u64),
    /// A damaged header of format 2 without a readable salt. Without the salt, no entry can be
    /// recognized.
    SaltLost,
    /// The file is not a journal.
    NotAJournal,
}

/// Examines the start of a file. `first` is the first 1 KiB of the file, or the whole file if it is
/// shorter.
#[must_use]
pub fn probe_header(first: &[u8]) -> HeaderProbe {
    let written = super::nonzero_len(first);
    let Some((number, server)) = format_and_name(first) else {
        return match repaired(first) {
            Some(probe) => probe,
            // The first byte is zero but later ones are not, so the beginning of the header was
            // lost.
            None if written > 0 && first[0] == 0 => HeaderProbe::SaltLost,
            None if MAGIC.starts_with(&first[..written]) => HeaderProbe::Unwritten,
            None if first.starts_with(MAGIC) => probe_unfinished(first, written),
            None => HeaderProbe::NotAJournal,
        };
    };
    if number > 2 {
        return repaired(first).unwrap_or(HeaderProbe::NewerFormat(number));
    }
    match read_header(first, &server) {
        Header::Whole(format, bytes) => HeaderProbe::Valid {
            server,
            format,
            bytes,
        },
        Header::Incomplete | Header::Unwritten => HeaderProbe::Unwritten,
        Header::Foreign => repaired(first).unwrap_or(HeaderProbe::SaltLost),
    }
}

/// Returns the result for a file that begins with [`MAGIC`], but has no readable name. Either the
/// server did not finish writing the header, or the header is damaged.
fn probe_unfinished(first: &[u8], written: usize) -> HeaderProbe {
    let name = &first[MAGIC.len().min(written)..written];
    let is_short = name.len() <= MAX_NAME + 2;
    let is_plain = name
        .iter()
        .all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    match is_short && is_plain {
        true => HeaderProbe::Unwritten,
        false => HeaderProbe::SaltLost,
    }
}

/// Returns the format's number and the server's name, if the header contains both.
fn format_and_name(first: &[u8]) -> Option<(u64, String)> {
    let rest = first.strip_prefix(MAGIC)?;
    let space = rest.iter().position(|byte| *byte == b' ')?;
    let number = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
    let rest = &rest[space + 1..];
    let end = rest
        .iter()
        .take(MAX_NAME + 1)
        .position(|byte| matches!(byte, b' ' | b'\n'))?;
    let name = std::str::from_utf8(&rest[..end]).ok()?;
    (!name.is_empty()).then(|| (number, name.to_owned()))
}

/// Repairs a damaged header of format 2. There are two ways. Either a change of one byte makes the
/// header valid, or the first entry is good with the salt of the damaged header. Then that salt is
/// right.
fn repaired(first: &[u8]) -> Option<HeaderProbe> {
    let max_length = first.len().min(header_bytes("") + MAX_NAME);
    let mut header = first[..max_length].to_vec();
    for index in 0..max_length {
        let original = header[index];
        for byte in 0..=u8::MAX {
            header[index] = byte;
            if let Some((2, server)) = format_and_name(&header)
                && let Header::Whole(format @ Format::Two(_), bytes) = read_header(&header, &server)
            {
                return Some(HeaderProbe::Repaired {
                    server,
                    format,
                    bytes,
                });
            }
        }
        header[index] = original;
    }
    let (2, server) = format_and_name(first)? else {
        return None;
    };
    let bytes = header_bytes(&server);
    let salt = bytes - 2 * (DIGITS + 1);
    let digits = first.get(salt..salt + DIGITS)?;
    let format = Format::Two(Salt(number_in_hex(digits)?));
    let entries = first.get(bytes..)?;
    matches!(find(entries, format, bytes as u64), Found::Entry(..)).then_some(
        HeaderProbe::Repaired {
            server,
            format,
            bytes,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::super::{Entry, header, header_of_format_1, write_checksums};
    use super::*;
    use crate::core::base::boot_id::BootId;

    const SALT: Salt = Salt(0x0123_4567_89ab_cdef);

    fn journal() -> Vec<u8> {
        let mut file = header("Riley", SALT);
        let start = file.len();
        let life = Entry::Life {
            boot: BootId(7),
            last_seq_before: 0,
            machine: 1,
        };
        life.write(&mut file);
        write_checksums(&mut file[start..], SALT, start as u64);
        file
    }

    fn is_repaired(file: &[u8]) -> bool {
        let expected = HeaderProbe::Repaired {
            server: "Riley".to_owned(),
            format: Format::Two(SALT),
            bytes: header_bytes("Riley"),
        };
        probe_header(file) == expected
    }

    #[test]
    fn any_one_wrong_bit_of_the_header_is_repaired() {
        let file = journal();
        for index in 0..header_bytes("Riley") {
            for bit in 0..8 {
                let mut damaged = file.clone();
                damaged[index] ^= 1 << bit;
                assert!(is_repaired(&damaged), "byte {index}, bit {bit}");
            }
        }
    }

    #[test]
    fn the_first_entry_confirms_the_salt() {
        let mut damaged = journal();
        let checksum = header_bytes("Riley") - 1 - DIGITS;
        damaged[checksum..checksum + DIGITS].fill(b'?');
        assert!(is_repaired(&damaged));
        let mut lost = journal();
        lost[checksum - 1 - DIGITS..checksum].fill(b'?');
        assert_eq!(probe_header(&lost), HeaderProbe::SaltLost);
    }

    #[test]
    fn unwritten_damaged_and_foreign_headers_are_distinguished() {
        let file = journal();
        let whole = |file: &[u8]| matches!(probe_header(file), HeaderProbe::Valid { .. });
        assert!(whole(&file) && whole(&header_of_format_1("Riley")));
        for cut in 0..header_bytes("Riley") {
            assert_eq!(
                probe_header(&file[..cut]),
                HeaderProbe::Unwritten,
                "cut at {cut}"
            );
            let mut reserved = file[..cut].to_vec();
            reserved.resize(1_024, 0);
            assert_eq!(
                probe_header(&reserved),
                HeaderProbe::Unwritten,
                "cut at {cut}, and room"
            );
        }
        let later = b"herd-mio journal 3 Riley whatever comes then\n";
        assert_eq!(probe_header(later), HeaderProbe::NewerFormat(3));
        let mut hole = file.clone();
        hole[..80].fill(0);
        assert_eq!(probe_header(&hole), HeaderProbe::SaltLost);
        for foreign in [&b"garbage"[..], b"\x7fELF", b"herd-mio log", &[0xff; 1_024]] {
            assert_eq!(
                probe_header(foreign),
                HeaderProbe::NotAJournal,
                "{}",
                foreign.escape_ascii()
            );
        }
    }
}
