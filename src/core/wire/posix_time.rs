//! POSIX times as exact decimals. There are three kinds:
//!
//! - The *stamp* of a client is the time in its `IAMAT`.
//! - The *skew* is the time of receipt minus the stamp.
//! - The *effective time* orders the records of one client ([`effective_time`]).
//!
//! An `f64` has a precision of about 200 ns for a present time, so two different stamps could
//! become equal. Therefore a stamp is stored as two integers: whole seconds and attoseconds (10⁻¹⁸
//! s). These two integers can store every stamp that the protocol allows, without rounding.

use crate::core::wire::swar;

/// The maximum number of digits on each side of a stamp's decimal point.
const MAX_DIGITS: usize = 18;
/// 10¹⁸: attoseconds in a second.
const ATTOS: u64 = 1_000_000_000_000_000_000;
const ATTOS_PER_NANO: u64 = 1_000_000_000;
const NANOS: u64 = 1_000_000_000;
/// 10⁸: one more than the largest number of eight digits.
const EIGHT_DIGITS: u32 = 100_000_000;
/// The effective time is at most this many seconds after the receipt. This is part of the protocol,
/// so it cannot be configured.
pub const MAX_LEAD_S: u64 = 60;

/// An exact time: seconds since the POSIX epoch (1970), with up to 18 decimals.
///
/// ```
/// use herd_mio::core::wire::posix_time::PosixTime;
///
/// let stamp = PosixTime::parse(b"1621464827.959498503").unwrap();
/// assert!(stamp < PosixTime::parse(b"1621464827.9594985031").unwrap());
/// assert_eq!(PosixTime::parse(b"7.50"), PosixTime::parse(b"007.5"));
/// assert_eq!(PosixTime::parse(b"1e9"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PosixTime {
    seconds: u64,
    attos: u64,
}

impl PosixTime {
    /// Parses a stamp: 1–18 digits, and optionally a point and 1–18 digits. Signs, exponents and
    /// white space are not allowed.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<PosixTime> {
        let (stamp, end) = PosixTime::read(text, 0)?;
        (end == text.len()).then_some(stamp)
    }

    /// Parses the stamp that begins at `start`. Also returns the offset after it.
    #[inline]
    #[must_use]
    pub fn read(text: &[u8], start: usize) -> Option<(PosixTime, usize)> {
        let (seconds, point) = number(text, start)?;
        if text.get(point) != Some(&b'.') {
            return Some((PosixTime { seconds, attos: 0 }, point));
        }
        let (fraction, end) = number(text, point + 1)?;
        let attos = fraction * POWERS_OF_TEN[MAX_DIGITS - (end - point - 1)];
        Some((PosixTime { seconds, attos }, end))
    }

    /// Returns the time that is `seconds` whole seconds later.
    #[must_use]
    pub const fn plus_seconds(self, seconds: u64) -> PosixTime {
        PosixTime {
            seconds: self.seconds.saturating_add(seconds),
            attos: self.attos,
        }
    }

    /// Returns the time that is `seconds` whole seconds earlier, but not before the epoch.
    #[must_use]
    pub const fn minus_seconds(self, seconds: u64) -> PosixTime {
        match self.seconds.checked_sub(seconds) {
            Some(seconds) => PosixTime { seconds, ..self },
            None => PosixTime::from_nanos(0),
        }
    }

    /// Appends the time as a stamp: whole seconds, a point, and nine digits. A part below a
    /// nanosecond is cut off.
    pub fn write(self, out: &mut Vec<u8>) {
        let text = format!("{}.{:09}", self.seconds, self.attos / ATTOS_PER_NANO);
        out.extend_from_slice(text.as_bytes());
    }

    /// Returns the time that is `nanos` nanoseconds later.
    #[must_use]
    pub fn plus_nanos(self, nanos: u32) -> PosixTime {
        let attos = self.attos + u64::from(nanos) % NANOS * ATTOS_PER_NANO;
        PosixTime {
            seconds: self
                .seconds
                .saturating_add(u64::from(nanos) / NANOS + attos / ATTOS),
            attos: attos % ATTOS,
        }
    }

    /// Creates the time `nanos` nanoseconds after the epoch.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> PosixTime {
        PosixTime {
            seconds: nanos / NANOS,
            attos: (nanos % NANOS) * ATTOS_PER_NANO,
        }
    }
}

/// The powers of ten from 10⁰ to 10¹⁸.
const POWERS_OF_TEN: [u64; MAX_DIGITS + 1] = {
    let mut powers = [1; MAX_DIGITS + 1];
    let mut exponent = 1;
    while exponent < powers.len() {
        powers[exponent] = 10 * powers[exponent - 1];
        exponent += 1;
    }
    powers
};

/// Parses the ASCII digits at `start` as a number. Also returns the offset after them. Returns
/// `None` unless there are one to eighteen digits.
#[inline]
fn number(text: &[u8], start: usize) -> Option<(u64, usize)> {
    let (mut value, mut end) = (0, start);
    // At most two groups of eight digits fit into eighteen digits.
    while end - start <= MAX_DIGITS - 8
        && let Some(eight) = swar::eight_digits_at(text, end)
    {
        value = value * u64::from(EIGHT_DIGITS) + eight;
        end += 8;
    }
    while let Some(digit) = swar::digit_at(text, end) {
        if end - start == MAX_DIGITS {
            return None;
        }
        value = value * 10 + digit;
        end += 1;
    }
    (end > start).then_some((value, end))
}

/// Parses one to eighteen ASCII digits, and nothing else.
fn digits(text: &[u8]) -> Option<u64> {
    let (value, end) = number(text, 0)?;
    (end == text.len()).then_some(value)
}

/// The receipt time minus the stamp, in whole nanoseconds. It is the second field of an `AT` line.
///
/// A part below a nanosecond is cut off, towards zero. So the receipt time that follows from a line
/// can be inexact, but all servers compute the same receipt time, because they read the same skew
/// in the line.
///
/// ```
/// use herd_mio::core::wire::posix_time::{PosixTime, Skew};
///
/// let receipt = PosixTime::parse(b"1621464828.222").unwrap();
/// let skew = Skew::between(receipt, PosixTime::parse(b"1621464827.959498503").unwrap());
/// let mut text = Vec::new();
/// skew.write(&mut text);
/// assert_eq!(text, b"+0.262501497");
/// assert_eq!(Skew::parse(&text), Some(skew));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew {
    negative: bool, // never true for a zero: there is no "-0.000000000"
    seconds: u64,
    nanos: u32,
}

impl Skew {
    /// Computes the skew of a server that received `stamp` at the time `receipt`.
    #[must_use]
    pub fn between(receipt: PosixTime, stamp: PosixTime) -> Skew {
        let negative = receipt < stamp;
        let (later, earlier) = if negative {
            (stamp, receipt)
        } else {
            (receipt, stamp)
        };
        let (borrow, attos) = match later.attos.checked_sub(earlier.attos) {
            Some(attos) => (0, attos),
            None => (1, later.attos + ATTOS - earlier.attos),
        };
        let seconds = later.seconds - earlier.seconds - borrow;
        // Below 10⁹, because `attos` is below 10¹⁸.
        let nanos = (attos / ATTOS_PER_NANO) as u32;
        Skew {
            negative: negative && (seconds, nanos) != (0, 0),
            seconds,
            nanos,
        }
    }

    /// Parses exactly the form that [`Skew::write`] writes. Every server writes this form, so a
    /// neighbour with another form breaks the protocol.
    #[inline(always)] // see `AtHead::parse`
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Skew> {
        let (&sign, magnitude) = text.split_first()?;
        let negative = match sign {
            b'+' => false,
            b'-' => true,
            _ => return None,
        };
        let point = magnitude.len().checked_sub(10)?;
        let whole = &magnitude[..point];
        if magnitude[point] != b'.' || (whole.len() > 1 && whole[0] == b'0') {
            return None;
        }
        let seconds = digits(whole)?;
        let nanos = u32::try_from(digits(&magnitude[point + 1..])?).ok()?;
        if negative && (seconds, nanos) == (0, 0) {
            return None;
        }
        Some(Skew {
            negative,
            seconds,
            nanos,
        })
    }

    /// Appends the skew: always a sign, then whole seconds, a point, and nine digits.
    pub fn write(self, out: &mut Vec<u8>) {
        const POINT: usize = 24;
        let mut text = [b'0'; POINT + 1 + 9];
        text[POINT] = b'.';
        text[POINT + 1] += (self.nanos / EIGHT_DIGITS) as u8; // one digit
        text[POINT + 2..].copy_from_slice(&swar::digits_of(self.nanos % EIGHT_DIGITS));
        // Writes the seconds in groups of eight digits, the last group first.
        let (mut start, mut rest) = (POINT, self.seconds);
        let first = loop {
            let digits = swar::digits_of((rest % u64::from(EIGHT_DIGITS)) as u32);
            start -= 8;
            text[start..start + 8].copy_from_slice(&digits);
            rest /= u64::from(EIGHT_DIGITS);
            if rest == 0 {
                break u64::from_le_bytes(digits);
            }
        };
        let leading_zeros = (first ^ swar::repeat_byte(b'0')).trailing_zeros() as usize / 8;
        out.push(if self.negative { b'-' } else { b'+' });
        out.extend_from_slice(&text[start + leading_zeros.min(7)..]);
    }

    /// Returns whether the stamp is more than 60 s before or after the receipt.
    #[must_use]
    pub fn lead(self) -> Lead {
        match ((self.seconds, self.nanos) > (MAX_LEAD_S, 0), self.negative) {
            (false, _) => Lead::Near,
            (true, true) => Lead::Ahead,
            (true, false) => Lead::Behind,
        }
    }
}

/// How a client's stamp compares with the clock of the server that received it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    /// The stamp and the server's clock differ by at most 60 s.
    Near,
    /// The stamp is more than 60 s ahead of the server's clock.
    Ahead,
    /// The stamp is more than 60 s behind the server's clock.
    Behind,
}

/// Returns the time of receipt: the stamp plus the skew. Returns `None` if it would be before the
/// POSIX epoch.
#[inline]
#[must_use]
pub fn receipt_time(stamp: PosixTime, skew: Skew) -> Option<PosixTime> {
    let skew_attos = u64::from(skew.nanos) * ATTOS_PER_NANO;
    if !skew.negative {
        let attos = stamp.attos + skew_attos;
        let seconds = stamp.seconds.checked_add(skew.seconds)?;
        return Some(PosixTime {
            seconds: seconds.checked_add(attos / ATTOS)?,
            attos: attos % ATTOS,
        });
    }
    let (borrow, attos) = match stamp.attos.checked_sub(skew_attos) {
        Some(attos) => (0, attos),
        None => (1, stamp.attos + ATTOS - skew_attos),
    };
    let seconds = stamp.seconds.checked_sub(skew.seconds)?;
    Some(PosixTime {
        seconds: seconds.checked_sub(borrow)?,
        attos,
    })
}

/// Returns the time that decides which of two records of one client is the later one. This is the
/// client's stamp, but at most 60 s after the receipt. Returns `None` if the receipt would be
/// before the POSIX epoch, because no server's clock shows such a time.
///
/// Every server computes the same result, because it depends only on the `AT` line. There is no
/// jump at 60 s: a stamp slightly more than 60 s ahead is only slightly reduced.
///
/// If a client's clock is far ahead, each new record of the client still has a later effective time
/// than the record before. If the client's clock is then set right, the servers accept new records
/// of the client again after at most 60 s.
#[inline(always)] // see `AtHead::parse`
#[must_use]
pub fn effective_time(stamp: PosixTime, skew: Skew) -> Option<PosixTime> {
    if !skew.negative {
        return Some(stamp);
    }
    let latest = receipt_time(stamp, skew)?.plus_seconds(MAX_LEAD_S);
    Some(stamp.min(latest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time(text: &str) -> PosixTime {
        PosixTime::parse(text.as_bytes()).unwrap_or_else(|| panic!("not a time: {text}"))
    }

    fn skew_text(receipt: &str, stamp: &str) -> String {
        let mut out = Vec::new();
        Skew::between(time(receipt), time(stamp)).write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_plain_decimals_are_times() {
        for good in [
            "0",
            "1",
            "1.5",
            "000000000000000000.000000000000000000",
            "999999999999999999.999999999999999999",
        ] {
            assert!(PosixTime::parse(good.as_bytes()).is_some(), "{good}");
        }
        for bad in [
            "",
            ".",
            "1.",
            ".5",
            "+1",
            "-1",
            "1e9",
            "nan",
            "inf",
            "0x10",
            "1_000",
            "1.2.3",
            " 1",
            "1 ",
            "1000000000000000000",
            "1.0000000000000000000",
            "١",
        ] {
            assert_eq!(PosixTime::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn skews_are_exact_and_signed() {
        assert_eq!(skew_text("10", "10"), "+0.000000000");
        assert_eq!(skew_text("10.5", "10.25"), "+0.250000000");
        assert_eq!(skew_text("10.25", "10.5"), "-0.250000000");
        assert_eq!(skew_text("10", "9.999999999"), "+0.000000001");
        assert_eq!(
            skew_text("10", "10.0000000000000001"),
            "+0.000000000",
            "never -0"
        );
        assert_eq!(
            skew_text("0", "999999999999999999.999999999"),
            "-999999999999999999.999999999"
        );
    }

    #[test]
    fn seconds_are_written_without_leading_zeros() {
        for power in 0..18 {
            for seconds in [10_u64.pow(power), 10_u64.pow(power + 1) - 1] {
                assert_eq!(
                    skew_text(&seconds.to_string(), "0"),
                    format!("+{seconds}.000000000")
                );
            }
        }
        assert_eq!(skew_text("0.123456789", "0"), "+0.123456789");
    }

    #[test]
    fn a_skew_has_one_valid_spelling() {
        for bad in [
            "",
            "+",
            "0.000000000",
            "+0.00000000",
            "+0.0000000000",
            "-0.000000000",
            "+00.000000000",
            "+.000000000",
            "--1.000000000",
            "+1e0000000000",
            "+1,000000000",
        ] {
            assert_eq!(Skew::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn effective_time_is_capped_60_s_after_receipt() {
        let effective = |receipt: &str, stamp: &str| {
            effective_time(time(stamp), Skew::between(time(receipt), time(stamp)))
        };
        assert_eq!(effective("100", "159.9"), Some(time("159.9")));
        assert_eq!(effective("100", "160"), Some(time("160")));
        assert_eq!(effective("100", "160.000000001"), Some(time("160")));
        assert_eq!(effective("100", "31536100"), Some(time("160")));
        assert_eq!(effective("100.7", "31536100.2"), Some(time("160.7")));
        assert_eq!(
            effective("100", "1"),
            Some(time("1")),
            "a late message is as old as it says"
        );
        assert_eq!(
            effective_time(time("1"), Skew::parse(b"-2.000000000").unwrap()),
            None
        );
    }

    #[test]
    fn updates_of_a_client_60_s_ahead_all_advance() {
        let mut last = None;
        for step in 0..30_u64 {
            // One update each second. The lead changes around 60 s, by less than a second from one
            // update to the next.
            let receipt = 1_000_000_000_000_000_000 + step * NANOS;
            let lead = 60 * NANOS - 100_000_000 + (step * 7 % 10) * 20_000_000;
            let (receipt, stamp) = (receipt, receipt + lead);
            let [receipt, stamp] = [receipt, stamp].map(PosixTime::from_nanos);
            let effective = effective_time(stamp, Skew::between(receipt, stamp));
            assert!(effective > last, "update {step}: {effective:?}");
            last = effective;
        }
    }

    proptest! {
        #[test]
        fn a_skew_survives_write_and_parse(receipt in 0u64..=u64::MAX, seconds in 0u64..ATTOS, nanos in 0u64..NANOS) {
            let stamp = PosixTime { seconds, attos: nanos * ATTOS_PER_NANO };
            let receipt = PosixTime::from_nanos(receipt);
            let skew = Skew::between(receipt, stamp);
            let mut text = Vec::new();
            skew.write(&mut text);
            prop_assert_eq!(Skew::parse(&text), Some(skew));
            let as_nanos = |t: PosixTime| i128::from(t.seconds) * i128::from(NANOS) + i128::from(t.attos / ATTOS_PER_NANO);
            let magnitude = i128::from(skew.seconds) * i128::from(NANOS) + i128::from(skew.nanos);
            prop_assert_eq!(as_nanos(receipt) - as_nanos(stamp), if skew.negative { -magnitude } else { magnitude });
        }

        #[test]
        fn parsing_any_time_does_not_panic(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = PosixTime::parse(&text);
            let _ = Skew::parse(&text);
        }

        #[test]
        fn a_time_is_parsed_only_if_it_is_a_decimal(text in "[0-9.+e-]{0,40}") {
            let decimal = text.split_once('.').map_or(
                (1..=18).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()),
                |(a, b)| [a, b].iter().all(|p| (1..=18).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit())),
            );
            prop_assert_eq!(PosixTime::parse(text.as_bytes()).is_some(), decimal);
        }
    }
}
