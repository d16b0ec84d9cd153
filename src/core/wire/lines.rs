//! Framing: splits a stream of bytes into lines, and a line into fields.

use crate::core::wire::swar;

/// The result of [`split`]: what the received bytes begin with.
#[derive(Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// A whole line without its LF, and the number of bytes that the caller has to consume. The LF
    /// is included in this number.
    Line(&'a [u8], usize),
    /// There is no LF yet, and the line is not too long yet.
    Unfinished,
    /// The line is too long: there is no LF, and there are more bytes than a line can have.
    TooLong,
}

/// Finds the first line of `input`. A line has at most `limit` bytes before its LF.
///
/// ```
/// use herd_mio::core::wire::lines::{Split, split};
///
/// assert_eq!(split(b"one\r\ntwo", 5), Split::Line(b"one\r", 5));
/// assert_eq!(split(b"two", 5), Split::Unfinished);
/// assert_eq!(split(b"three?", 5), Split::TooLong);
/// ```
#[must_use]
pub fn split(input: &[u8], limit: usize) -> Split<'_> {
    let window = &input[..input.len().min(limit + 1)];
    match memchr::memchr(b'\n', window) {
        Some(end) => Split::Line(&input[..end], end + 1),
        None if input.len() > limit => Split::TooLong,
        None => Split::Unfinished,
    }
}

/// Whether `byte` is white space in the protocol: one of the six bytes of C's `isspace`, and
/// nothing from Unicode. (`is_ascii_whitespace` lacks the vertical tab.)
#[must_use]
pub const fn is_space(byte: u8) -> bool {
    SPACES[byte as usize]
}

/// The result of [`is_space`] for each byte. A table look-up is faster than six comparisons.
const SPACES: [bool; 256] = {
    let mut spaces = [false; 256];
    let mut index = 0;
    let all = b" \t\r\n\x0b\x0c";
    while index < all.len() {
        spaces[all[index] as usize] = true;
        index += 1;
    }
    spaces
};

/// Splits a line into its fields: the runs of bytes that are not white space.
pub fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|&byte| is_space(byte))
        .filter(|field| !field.is_empty())
}

/// Returns the offset of the first white space at or after `start`, or the length of the line if
/// there is none.
#[inline]
#[must_use]
pub fn end_of_field(line: &[u8], start: usize) -> usize {
    let mut end = start;
    while end < line.len() {
        let step = swar::first_marked(swar::mark_blanks(swar::word_at(line, end)));
        end += step;
        // `mark_blanks` also marks bytes that can be part of a field: zeros and other control
        // characters. It also marks the zeros that `word_at` adds after the end. So check the
        // marked byte.
        if step < 8 {
            match line.get(end) {
                Some(&byte) if !is_space(byte) => end += 1,
                _ => break,
            }
        }
    }
    end
}

/// Returns the line without the CR of a CRLF. An answer that quotes a client's line quotes it
/// without this CR.
#[must_use]
pub fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_split_at_c_s_white_space_only() {
        let line = b" \t a\x0bb\x0cc\r d\xc2\xa0e \x1cf\x85\r";
        let found: Vec<&[u8]> = fields(line).collect();
        assert_eq!(found, [&b"a"[..], b"b", b"c", b"d\xc2\xa0e", b"\x1cf\x85"]);
    }

    #[test]
    fn swar_finds_white_space_at_every_offset() {
        for length in 0..30 {
            for at in 0..=length {
                for byte in 0..=255 {
                    let mut text = vec![0xff; length + 1];
                    // The bytes before `byte` are control characters, but not white space.
                    text[..at].fill(0x1c);
                    text[at] = byte;
                    let expected = if is_space(byte) { at } else { length + 1 };
                    assert_eq!(
                        end_of_field(&text, 0),
                        expected,
                        "{byte} at {at} of {length}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_limit_counts_the_bytes_before_the_lf() {
        assert_eq!(split(b"12345\n", 5), Split::Line(b"12345", 6));
        assert_eq!(split(b"123456\n", 5), Split::TooLong);
        assert_eq!(split(b"12345", 5), Split::Unfinished);
        assert_eq!(split(b"", 5), Split::Unfinished);
        assert_eq!(split(b"\n\n", 5), Split::Line(b"", 1));
    }

    proptest! {
        #[test]
        fn split_agrees_with_the_standard_library(input in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'a'), any::<u8>()], 0..200), limit in 1usize..50) {
            let mut rest = &input[..];
            for expected in input.split(|&b| b == b'\n') {
                let last = expected.len() == rest.len();
                match split(rest, limit) {
                    Split::Line(line, used) => {
                        prop_assert!(!last);
                        prop_assert_eq!(line, expected);
                        rest = &rest[used..];
                    }
                    Split::Unfinished => { prop_assert!(last && expected.len() <= limit); break }
                    Split::TooLong => { prop_assert!(expected.len() > limit); break }
                }
            }
        }
    }
}
