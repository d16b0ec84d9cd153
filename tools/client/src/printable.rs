//! Makes bytes from a server safe for a terminal: none of them may move the cursor, set a title or
//! ring a bell.
//!
//! Unlike the log's escaping, it leaves the letters of all languages, so that names of places can
//! be read.

/// One line. Control characters, invalid UTF-8 and characters that rearrange text become escapes.
pub(crate) fn line(bytes: &[u8]) -> String {
    escaped(bytes, |_| false)
}

/// Text of several lines. It is like [`line()`], but line feeds and tabs stay.
pub(crate) fn text(bytes: &[u8]) -> String {
    escaped(bytes, |c| matches!(c, '\n' | '\t'))
}

fn escaped(bytes: &[u8], stays: fn(char) -> bool) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if stays(c) || !(c.is_control() || rearranges(c)) {
                out.push(c);
            } else if c.is_ascii() {
                out.push_str(&format!("\\x{:02x}", u32::from(c)));
            } else {
                out.extend(c.escape_unicode());
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// Line and paragraph separators, and characters that change the direction of the text after them.
/// Those could make a line look like another one (CVE-2021-42574).
const fn rearranges(c: char) -> bool {
    matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_kept_and_control_characters_escaped() {
        assert_eq!(line("Café 東京 ★".as_bytes()), "Café 東京 ★");
        assert_eq!(
            line(b"\x1b]0;owned\x07\r\x7f \xff"),
            r"\x1b]0;owned\x07\x0d\x7f \xff"
        );
        assert_eq!(
            line("\u{9b}31m\u{202e}x\u{2028}".as_bytes()),
            r"\u{9b}31m\u{202e}x\u{2028}"
        );
        assert_eq!(line(b"a\n\tb"), r"a\x0a\x09b");
        assert_eq!(text(b"a\n\tb\x1b"), "a\n\tb\\x1b");
    }

    #[test]
    fn no_control_byte_is_printed() {
        for byte in 0..=u8::MAX {
            for shown in [line(&[byte]), line(&[b'a', byte, b'b'])] {
                assert!(shown.bytes().all(|b| (b' '..=b'~').contains(&b)), "{shown}");
            }
        }
    }
}
