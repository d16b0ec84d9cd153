//! Escapes bytes from the network, so that a log line can contain them safely.

use std::fmt;

/// Shows bytes as printable ASCII. Every other byte, and the backslash, is shown as `\xNN`. So no
/// newline or other control byte reaches the log, and two different inputs never look the same.
///
/// ```
/// use herd_mio::core::wire::escape::Escaped;
///
/// assert_eq!(Escaped(b"a\x1b[31m\\ \xff\n").to_string(), r"a\x1b[31m\x5c \xff\x0a");
/// ```
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nearly all inputs are plain: nothing has to be escaped. This fold has no early exit, so
        // the compiler can check sixteen bytes at once.
        let all_plain = self.0.iter().fold(true, |all, &byte| all & is_plain(byte));
        if all_plain && let Ok(text) = str::from_utf8(self.0) {
            return f.write_str(text);
        }
        for chunk in self.0.utf8_chunks() {
            let mut rest = chunk.valid();
            while let Some(at) = rest.bytes().position(|byte| !is_plain(byte)) {
                f.write_str(&rest[..at])?;
                // Escape the whole character at `at`. This offset is a character boundary, because
                // only plain ASCII is before it.
                let width = rest[at..].chars().next().map_or(1, char::len_utf8);
                write_hex(&rest.as_bytes()[at..at + width], f)?;
                rest = &rest[at + width..];
            }
            f.write_str(rest)?;
            write_hex(chunk.invalid(), f)?;
        }
        Ok(())
    }
}

/// Shows the first bytes of a text, escaped as by [`Escaped`], and then the number of bytes that
/// are not shown.
///
/// ```
/// use herd_mio::core::wire::escape::Shortened;
///
/// assert_eq!(Shortened::new(b"one\x07", 4).to_string(), r"one\x07");
/// assert_eq!(Shortened::new(b"one two", 4).to_string(), "one ... and 3 bytes more");
/// ```
#[derive(Clone, Copy)]
pub struct Shortened<'a> {
    shown: &'a [u8],
    hidden: usize,
}

impl<'a> Shortened<'a> {
    /// Shows the first `max_bytes` bytes of `bytes`, and counts the rest.
    #[must_use]
    pub fn new(bytes: &'a [u8], max_bytes: usize) -> Shortened<'a> {
        let (shown, hidden) = bytes.split_at(bytes.len().min(max_bytes));
        Shortened {
            shown,
            hidden: hidden.len(),
        }
    }

    /// Returns an upper bound, in bytes, for the length of the text that [`fmt::Display`] writes.
    #[must_use]
    pub fn max_text_bytes(self) -> usize {
        let escaped = |byte: &u8| if is_plain(*byte) { 1 } else { 4 };
        let tail = if self.hidden == 0 { 0 } else { 40 };
        self.shown.iter().map(escaped).sum::<usize>() + tail
    }
}

impl fmt::Display for Shortened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Escaped(self.shown))?;
        match self.hidden {
            0 => Ok(()),
            hidden => write!(f, "... and {hidden} bytes more"),
        }
    }
}

const fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'\\'
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn escaped_bytes_are_printable_and_reversible(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let shown = Escaped(&bytes).to_string();
            prop_assert!(shown.bytes().all(|b| (b' '..=b'~').contains(&b)));
            let mut back = Vec::new();
            let mut rest = shown.as_bytes();
            while let Some((&byte, after)) = rest.split_first() {
                if byte == b'\\' {
                    let code = std::str::from_utf8(&after[1..3]).unwrap();
                    back.push(u8::from_str_radix(code, 16).unwrap());
                    rest = &after[3..];
                } else {
                    back.push(byte);
                    rest = after;
                }
            }
            prop_assert_eq!(back, bytes);
        }
    }
}
