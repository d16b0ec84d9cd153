//! Splits bytes into lines and lines into fields, and escapes bytes for the log.

use std::fmt;

/// The beginning of the received bytes.
pub(crate) enum Split<'a> {
    /// A whole line without its LF, and its length with the LF.
    Line(&'a [u8], usize),
    /// There is no LF yet, and the line may become longer.
    Unfinished,
    /// There is no LF within the greatest length of a line.
    TooLong,
}

/// Finds the first line of `input`; a line has at most `limit` bytes before its LF.
pub(crate) fn split(input: &[u8], limit: usize) -> Split<'_> {
    let window = &input[..input.len().min(limit + 1)];
    match memchr::memchr(b'\n', window) {
        Some(end) => Split::Line(&input[..end], end + 1),
        None if input.len() > limit => Split::TooLong,
        None => Split::Unfinished,
    }
}

/// White space in the protocol is C's `isspace`. (`is_ascii_whitespace` lacks the vertical tab.)
pub(crate) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c)
}

/// The fields of a line, which white space separates.
pub(crate) fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|&byte| is_space(byte))
        .filter(|field| !field.is_empty())
}

/// Whether the text is not empty and has only digits.
pub(crate) fn all_digits(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// Parses a whole number of digits only.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(text)
        .ok()
        .filter(|_| all_digits(text))?;
    digits.parse().ok()
}

/// Shows bytes as printable ASCII. Other bytes and the backslash become `\xNN`.
pub(crate) struct Escaped<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'\\';
        for run in self.0.chunk_by(|a, b| is_plain(a) == is_plain(b)) {
            match std::str::from_utf8(run) {
                Ok(text) if is_plain(&run[0]) => f.write_str(text)?,
                Ok(_) | Err(_) => run.iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?,
            }
        }
        Ok(())
    }
}
