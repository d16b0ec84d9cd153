//! Whose journal a file is, for a reader that is not its server; also if the header is damaged.

use super::{DIGITS, Format, Found, Header, Salt, find, header_bytes, number_in_hex, read_header};

/// What every header begins with; the format's number follows.
const MAGIC: &[u8] = b"herd-mio journal ";
/// The longest name of a server.
const MAX_NAME: usize = 64;

/// What the first bytes of a file say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Label {
    /// A whole header.
    Whole {
        /// Whose journal it is.
        server: String,
        /// How it is written.
        format: Format,
        /// Where the first entry begins.
        bytes: usize,
    },
    /// A damaged header, of which enough is left to read what follows.
    Mended {
        /// Whose journal it is.
        server: String,
        /// How it is written.
        format: Format,
        /// Where the first entry begins.
        bytes: usize,
    },
    /// The server ended while it wrote the header: nothing follows.
    Unwritten,
    /// A format that this version does not know.
    Later(u64),
    /// A damaged header of format 2, and the salt is lost: no entry can be told from garbage.
    Lost,
    /// No journal.
    Foreign,
}

/// Reads the label of a file that begins with `first`: 1 KiB, or the whole file.
#[must_use]
pub fn label(first: &[u8]) -> Label {
    let written = super::written(first);
    let Some((number, server)) = names(first) else {
        return match mended(first) {
            Some(label) => label,
            // What was never written, or is gone, reads as zeros.
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

/// The header's beginning, and no end of the name: it was not written whole, or it is damaged.
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

/// The format's number and the server's name, if they stand there.
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

/// A header of format 2 that is damaged, if one wrong byte explains it, or if the first entry shows
/// that its salt is right.
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
    fn one_wrong_byte_of_a_header_is_mended_wherever_it_is() {
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
    fn the_first_entry_shows_that_a_salt_is_right() {
        let mut damaged = journal();
        let sum = header_bytes("Riley") - 1 - DIGITS;
        damaged[sum..sum + DIGITS].fill(b'?');
        assert!(is_mended(&damaged));
        let mut lost = journal();
        lost[sum - 1 - DIGITS..sum].fill(b'?');
        assert_eq!(label(&lost), Label::Lost);
    }

    #[test]
    fn what_is_no_whole_header_of_ours_is_told_apart() {
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
