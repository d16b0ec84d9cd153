//! Framing: a stream of bytes as lines, and a line as fields.

/// What stands at the front of the bytes received so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// A whole line without its LF, and how many bytes it took with it.
    Line(&'a [u8], usize),
    /// No LF yet, and room for one.
    Unfinished,
    /// More bytes than a line may have, and no LF among them.
    TooLong,
}

/// Finds the first line of `input`; a line has at most `limit` bytes before its LF.
///
/// ```
/// use herd_mio::core::lines::{Split, split};
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

/// White space as the protocol has it: the six bytes of C's `isspace`, and nothing from Unicode.
/// (`is_ascii_whitespace` lacks the vertical tab.)
#[must_use]
pub const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c)
}

/// The fields of a line: its runs of bytes that are not white space.
pub fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|&byte| is_space(byte))
        .filter(|field| !field.is_empty())
}

/// A line as it is quoted back: without the CR of a CRLF.
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
    fn the_limit_counts_the_bytes_before_the_lf() {
        assert_eq!(split(b"12345\n", 5), Split::Line(b"12345", 6));
        assert_eq!(split(b"123456\n", 5), Split::TooLong);
        assert_eq!(split(b"12345", 5), Split::Unfinished);
        assert_eq!(split(b"", 5), Split::Unfinished);
        assert_eq!(split(b"\n\n", 5), Split::Line(b"", 1));
    }

    proptest! {
        #[test]
        fn lines_are_those_of_the_standard_library(input in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'a'), any::<u8>()], 0..200), limit in 1usize..50) {
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
