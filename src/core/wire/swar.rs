//! Operations on eight bytes at once, in one register (*SIMD within a register*). These functions
//! read every byte of every command, so they must be fast.
//!
//! A *word* is eight bytes as a little-endian number. The lowest byte of the word is the first byte
//! of the text.
//!
//! The tests have a module `plain`, with a version of each function that reads one byte at a time.
//! The tests compare the results. The gain, in instructions counted by Callgrind: an `IAMAT` and
//! its answer take 726 with these functions, and 958 with plain loops. Reading the `AT` line takes
//! 659 with these functions, and 982 with plain loops.

/// Returns the word in which each byte is `byte`.
pub const fn repeat_byte(byte: u8) -> u64 {
    u64::MAX / 255 * byte as u64
}

/// Returns the word of `text` that begins at `start`. Bytes after the end of the text are zeros.
#[inline]
#[must_use]
pub fn word_at(text: &[u8], start: usize) -> u64 {
    let rest = text.get(start..).unwrap_or_default();
    match rest.first_chunk() {
        Some(word) => u64::from_le_bytes(*word),
        None => last_word(text, rest.len()),
    }
}

/// Returns the last `count` bytes of `text` as a word, with zeros after them. `count` is less than
/// eight.
///
/// The function does not copy the bytes to a buffer and read the buffer as a word. The processor
/// would have to wait then, because it cannot forward several small writes to one larger read
/// (store forwarding).
#[inline]
fn last_word(text: &[u8], count: usize) -> u64 {
    // If the text has eight bytes or more, the wanted bytes are the end of its last eight.
    if let Some(word) = text.last_chunk() {
        let before = 8 * (8 - count) as u32;
        return u64::from_le_bytes(*word).checked_shr(before).unwrap_or(0);
    }
    let bytes = &text[text.len() - count..];
    bytes
        .iter()
        .rev()
        .fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// Returns the index of the first byte in which `marks` has a bit set, or 8 if `marks` is 0.
#[inline]
#[must_use]
pub const fn first_marked(marks: u64) -> usize {
    (marks.trailing_zeros() / 8) as usize
}

/// Marks each byte that is less than or equal to a space: sets the top bit of the byte. The first
/// mark is always right. After the first mark, other bytes can be marked by mistake.
#[inline]
#[must_use]
pub const fn mark_blanks(word: u64) -> u64 {
    word.wrapping_sub(repeat_byte(b' ' + 1)) & !word & repeat_byte(0x80)
}

/// Marks each byte that is not an ASCII digit: sets bits in the upper half of the byte. The first
/// mark is always right. After the first mark, other bytes can be marked by mistake.
#[inline]
const fn mark_other_than_digits(word: u64) -> u64 {
    let digits = word ^ repeat_byte(b'0');
    // A digit is now 0 to 9. Its upper half is zero, and stays zero when six is added.
    (digits | digits.wrapping_add(repeat_byte(6))) & repeat_byte(0xf0)
}

/// Returns the number of ASCII digits at the start of the word: 0–8.
#[inline]
#[must_use]
pub const fn leading_digits(word: u64) -> usize {
    first_marked(mark_other_than_digits(word))
}

/// Returns the value of the ASCII digit at `offset`. Returns `None` if that byte is not a digit, or
/// if `offset` is after the end.
#[inline]
#[must_use]
pub fn digit_at(text: &[u8], offset: usize) -> Option<u64> {
    let digit = text.get(offset)?.wrapping_sub(b'0');
    (digit <= 9).then_some(u64::from(digit))
}

/// Returns the eight ASCII digits at `start` as a number. Returns `None` if the text ends earlier,
/// or if one byte is not a digit.
///
/// Pairs of digits become numbers up to 99. Pairs of these numbers become numbers up to 9,999, and
/// so on.
#[inline]
#[must_use]
pub fn eight_digits_at(text: &[u8], start: usize) -> Option<u64> {
    let word = u64::from_le_bytes(*text.get(start..)?.first_chunk()?);
    if mark_other_than_digits(word) != 0 {
        return None;
    }
    let digits = word ^ repeat_byte(b'0');
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8) & 0x00ff_00ff_00ff_00ff;
    let quads = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    Some(quads.wrapping_mul(10_000).wrapping_add(quads >> 32) & 0xffff_ffff)
}

/// Returns a number below 10⁸ as eight ASCII digits: the reverse of [`eight_digits_at`].
#[inline]
#[must_use]
pub const fn digits_of(number: u32) -> [u8; 8] {
    let number = number as u64;
    // Multiplications and shifts replace divisions. 10,486 / 2²⁰ replaces 1 / 100, and 103 / 2¹⁰
    // replaces 1 / 10. For numbers of this size, the results are the same.
    let quads = (number / 10_000) | ((number % 10_000) << 32);
    let hundreds = (quads * 10_486) >> 20 & 0x0000_007f_0000_007f;
    let pairs = (quads - 100 * hundreds) << 16 | hundreds;
    let tens = (pairs * 103) >> 10 & 0x000f_000f_000f_000f;
    let digits = (pairs - 10 * tens) << 8 | tens;
    (digits | repeat_byte(b'0')).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same functions, one byte at a time.
    mod plain {
        pub(super) fn word_at(text: &[u8], start: usize) -> [u8; 8] {
            std::array::from_fn(|index| text.get(start + index).copied().unwrap_or(0))
        }

        pub(super) fn first_blank(word: [u8; 8]) -> usize {
            word.iter().position(|&byte| byte <= b' ').unwrap_or(8)
        }

        pub(super) fn leading_digits(word: [u8; 8]) -> usize {
            word.iter().take_while(|byte| byte.is_ascii_digit()).count()
        }

        pub(super) fn eight_digits_at(text: &[u8], start: usize) -> Option<u64> {
            let digits = text.get(start..start + 8)?;
            digits.iter().try_fold(0, |number, digit| {
                let is_digit = digit.is_ascii_digit();
                is_digit.then(|| number * 10 + u64::from(digit - b'0'))
            })
        }

        pub(super) fn digits_of(number: u32) -> Vec<u8> {
            format!("{number:08}").into_bytes()
        }
    }

    #[test]
    fn word_at_pads_past_the_end_of_the_text() {
        let text = b"0123456789abcdef";
        for length in 0..=text.len() {
            for start in 0..=length + 1 {
                let expected = plain::word_at(&text[..length], start);
                assert_eq!(
                    word_at(&text[..length], start),
                    u64::from_le_bytes(expected),
                    "{start} of {length}"
                );
            }
        }
    }

    #[test]
    fn only_ascii_digits_count_as_digits() {
        for index in 0..8 {
            for byte in 0..=255 {
                let mut text = *b"12345678";
                text[index] = byte;
                assert_eq!(
                    leading_digits(u64::from_le_bytes(text)),
                    plain::leading_digits(text),
                    "{byte} at {index}"
                );
                assert_eq!(eight_digits_at(&text, 0), plain::eight_digits_at(&text, 0));
            }
        }
    }

    #[test]
    fn numbers_are_written_as_eight_digits() {
        for number in (0..10_000).chain((0..10_000).map(|upper| upper * 10_000)) {
            assert_eq!(digits_of(number), *plain::digits_of(number));
        }
        assert_eq!(digits_of(99_999_999), *b"99999999");
    }

    proptest! {
        #[test]
        fn a_number_survives_eight_digits(number in 0u32..100_000_000) {
            prop_assert_eq!(eight_digits_at(&digits_of(number), 0), Some(u64::from(number)));
        }

        #[test]
        fn the_first_blank_is_found(bytes in any::<[u8; 8]>()) {
            let first = first_marked(mark_blanks(u64::from_le_bytes(bytes)));
            prop_assert_eq!(first, plain::first_blank(bytes));
        }

        #[test]
        fn swar_reads_equal_the_plain_ones_at_any_length(text in "[0-9+. ]{0,24}", start in 0usize..26) {
            let text = text.as_bytes();
            prop_assert_eq!(word_at(text, start), u64::from_le_bytes(plain::word_at(text, start)));
            prop_assert_eq!(eight_digits_at(text, start), plain::eight_digits_at(text, start));
        }
    }
}
