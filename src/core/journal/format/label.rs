//! Finds out which server a journal belongs to, for a tool that does not know the server. This
//! works even if the header is damaged.

use super::{DIGITS, Format, Found, Header, Salt, find, header_bytes, number_in_hex, read_header};

/// The first bytes of every header. The number of the format follows.
const MAGIC: &[u8] = b"herd-mio journal ";
/// The maximum length of a server's name, in bytes.
const MAX_NAME: usize = 64;

/// What a tool knows about a file from its first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Label {
    /// The header is whole.
    Whole {
        /// The name of the server that the journal belongs to.
        server: String,
        /// The format of the journal.
        format: Format,
        /// The length of the header in bytes, which is the offset of the first entry.
        bytes: usize,
    },
    /// The header is damaged, but enough of it is left to read the entries.
    Mended {
        /// The name of the server that the journal belongs to.
        server: String,
        /// The format of the journal.
        format: Format,
        /// The length of the header in bytes, which is the offset of the first entry.
        bytes: usize,
    },
    /// The server stopped while it wrote the header. No entry follows.
    Unwritten,
    /// The header names a format that this version does not know. The value is the number of that
    /// format.
    Later(u64),
    /// A damaged header of format 2 without a readable salt. Without the salt, no entry can be
    /// recognized.
    Lost,
    /// The file is not a journal.
    Foreign,
}

/// Reads the label of a file. `first` is the first 1 KiB of the file, or the whole file if it is
/// shorter.
#[must_use]
pub fn label(first: &[u8]) -> Label {
    let written = super::written(first);
    let Some((number, server)) = names(first) else {
        return match mended(first) {
            Some(label) => label,
            // The first byte is zero but later ones are not, so the beginning of the header was
            // lost.
            None if written > 0 && first[0] == 0 => Label::Lost,
            None if MAGIC.starts_with(&first[..written]) => Label::Unwritten,
            None if first.starts_with(MAGIC) => unfinished(first, written),
            None => Label::Foreign,
        };
    };
    if number > 2 {
        return mended(first).unwrap_or(Label::Later(number));
    }
    match read_header(first, &server) {
        Header::Whole(format, bytes) => Label::Whole {
            server,
            format,
            bytes,
        },
        Header::Beginning | Header::Unwritten => Label::Unwritten,
        Header::Foreign => mended(first).unwrap_or(Label::Lost),
    }
}

/// Returns the label of a file that begins with [`MAGIC`], but has no readable name. Either the
/// server did not finish writing the header, or the header is damaged.
fn unfinished(first: &[u8], written: usize) -> Label {
    let name = &first[MAGIC.len().min(written)..written];
    let is_short = name.len() <= MAX_NAME + 2;
    let is_plain = name
        .iter()
        .all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    match is_short && is_plain {
        true => Label::Unwritten,
        false => Label::Lost,
    }
}

/// Returns the format's number and the server's name, if the header contains both.
fn names(first: &[u8]) -> Option<(u64, String)> {
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

/// Repairs a damaged header of format 2. There are two ways: a change of one byte makes the header
/// valid, or the checksum of the first entry proves that the salt is right.
fn mended(first: &[u8]) -> Option<Label> {
    let longest = first.len().min(header_bytes("") + MAX_NAME);
    let mut header = first[..longest].to_vec();
    for place in 0..longest {
        let wrong = header[place];
        for byte in 0..=u8::MAX {
            header[place] = byte;
            if let Some((2, server)) = names(&header)
                && let Header::Whole(format @ Format::Two(_), bytes) = read_header(&header, &server)
            {
                return Some(Label::Mended {
                    server,
                    format,
                    bytes,
                });
            }
        }
        header[place] = wrong;
    }
    let (2, server) = names(first)? else {
        return None;
    };
    let bytes = header_bytes(&server);
    let salt = bytes - 2 * (DIGITS + 1);
    let digits = first.get(salt..salt + DIGITS)?;
    let format = Format::Two(Salt(number_in_hex(digits)?));
    let entries = first.get(bytes..)?;
    matches!(find(entries, format, bytes as u64), Found::Entry(..)).then_some(Label::Mended {
        server,
        format,
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Entry, header, header_of_format_1, seal};
    use super::*;
    use crate::core::base::boot_id::BootId;

    const SALT: Salt = Salt(0x0123_4567_89ab_cdef);

    fn journal() -> Vec<u8> {
        let mut file = header("Riley", SALT);
        let start = file.len();
        let life = Entry::Life {
            boot: BootId(7),
            after: 0,
            machine: 1,
        };
        life.write(&mut file);
        seal(&mut file[start..], SALT, start as u64);
        file
    }

    fn is_mended(file: &[u8]) -> bool {
        let expected = Label::Mended {
            server: "Riley".to_owned(),
            format: Format::Two(SALT),
            bytes: header_bytes("Riley"),
        };
        label(file) == expected
    }

    #[test]
    fn any_one_wrong_bit_of_the_header_is_repaired() {
        let file = journal();
        for place in 0..header_bytes("Riley") {
            for bit in 0..8 {
                let mut damaged = file.clone();
                damaged[place] ^= 1 << bit;
                assert!(is_mended(&damaged), "byte {place}, bit {bit}");
            }
        }
    }

    #[test]
    fn the_first_entry_confirms_the_salt() {
        let mut damaged = journal();
        let sum = header_bytes("Riley") - 1 - DIGITS;
        damaged[sum..sum + DIGITS].fill(b'?');
        assert!(is_mended(&damaged));
        let mut lost = journal();
        lost[sum - 1 - DIGITS..sum].fill(b'?');
        assert_eq!(label(&lost), Label::Lost);
    }

    #[test]
    fn unwritten_damaged_and_foreign_headers_are_distinguished() {
        let file = journal();
        let whole = |file: &[u8]| matches!(label(file), Label::Whole { .. });
        assert!(whole(&file) && whole(&header_of_format_1("Riley")));
        for cut in 0..header_bytes("Riley") {
            assert_eq!(label(&file[..cut]), Label::Unwritten, "cut at {cut}");
            let mut reserved = file[..cut].to_vec();
            reserved.resize(1_024, 0);
            assert_eq!(label(&reserved), Label::Unwritten, "cut at {cut}, and room");
        }
        let later = b"herd-mio journal 3 Riley whatever comes then\n";
        assert_eq!(label(later), Label::Later(3));
        let mut hole = file.clone();
        hole[..80].fill(0);
        assert_eq!(label(&hole), Label::Lost);
        for foreign in [&b"garbage"[..], b"\x7fELF", b"herd-mio log", &[0xff; 1_024]] {
            assert_eq!(label(foreign), Label::Foreign, "{}", foreign.escape_ascii());
        }
    }
}
