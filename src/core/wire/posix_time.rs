//! POSIX times as exact decimals: a client's stamp, the skew that a server finds, and the effective
//! time that orders records.
//!
//! An `f64` holds a time of today to about 200 ns and would call two different stamps equal; so
//! stamps are kept as two integers, whole seconds and attoseconds (10⁻¹⁸ s), which hold every stamp
//! that the wire allows without loss.

use crate::core::wire::swar;

/// Digits allowed on either side of a stamp's point.
const MAX_DIGITS: usize = 18;
/// 10¹⁸: attoseconds in a second.
const ATTOS: u64 = 1_000_000_000_000_000_000;
const ATTOS_PER_NANO: u64 = 1_000_000_000;
const NANOS: u64 = 1_000_000_000;
/// 10⁸: the numbers that eight digits hold.
const EIGHT_DIGITS: u32 = 100_000_000;
/// A stamp counts for at most so much more than its receipt. Part of the protocol, so no setting.
pub const MAX_LEAD_S: u64 = 60;

/// An exact time: seconds since the POSIX epoch, with up to 18 decimals.
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
    /// Reads a stamp: 1–18 digits, optionally a point and 1–18 digits; no sign, exponent or white
    /// space.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<PosixTime> {
        let (stamp, end) = PosixTime::read(text, 0)?;
        (end == text.len()).then_some(stamp)
    }

    /// Reads the one that begins at `start`; tells where it ends, too.
    #[inline]
    #[must_use]
    pub fn read(text: &[u8], start: usize) -> Option<(PosixTime, usize)> {
        let (seconds, point) = number(text, start)?;
        if text.get(point) != Some(&b'.') {
            return Some((PosixTime { seconds, attos: 0 }, point));
        }
        let (fraction, end) = number(text, point + 1)?;
        let attos = fraction * TENS[MAX_DIGITS - (end - point - 1)];
        Some((PosixTime { seconds, attos }, end))
    }

    /// So many whole seconds later.
    #[must_use]
    pub const fn plus_seconds(self, seconds: u64) -> PosixTime {
        PosixTime {
            seconds: self.seconds.saturating_add(seconds),
            attos: self.attos,
        }
    }

    /// The time `nanos` nanoseconds after the epoch.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> PosixTime {
        PosixTime {
            seconds: nanos / NANOS,
            attos: (nanos % NANOS) * ATTOS_PER_NANO,
        }
    }
}

/// The powers of ten that fit beside a point.
const TENS: [u64; MAX_DIGITS + 1] = {
    let mut tens = [1; MAX_DIGITS + 1];
    let mut place = 1;
    while place < tens.len() {
        tens[place] = 10 * tens[place - 1];
        place += 1;
    }
    tens
};

/// The ASCII digits that `text` has from `start` on as a number, and where they end: there are one
/// to eighteen.
#[inline]
fn number(text: &[u8], start: usize) -> Option<(u64, usize)> {
    let (mut value, mut end) = (0, start);
    // Twice eight digits fit; then there is no room for another eight.
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

/// One to eighteen ASCII digits, and nothing else, as a number.
fn digits(text: &[u8]) -> Option<u64> {
    let (value, end) = number(text, 0)?;
    (end == text.len()).then_some(value)
}

/// Receipt minus stamp, to the nanosecond: the second field of an `AT` line.
///
/// Decimals of the stamp below a nanosecond are cut towards zero, so that every server that reads
/// the line computes the same receipt from it.
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
    negative: bool, // never with a size of zero: there is no "-0.000000000"
    seconds: u64,
    nanos: u32,
}

impl Skew {
    /// What a server that heard `stamp` at `receipt` says.
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
        // Below 10⁹, as attos is below 10¹⁸.
        let nanos = (attos / ATTOS_PER_NANO) as u32;
        Skew {
            negative: negative && (seconds, nanos) != (0, 0),
            seconds,
            nanos,
        }
    }

    /// Reads what [`Skew::write`] writes, and nothing else: a neighbour that says it otherwise is
    /// not one of us.
    #[inline(always)] // see `AtHead::parse`
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Skew> {
        let (&sign, size) = text.split_first()?;
        let negative = match sign {
            b'+' => false,
            b'-' => true,
            _ => return None,
        };
        let point = size.len().checked_sub(10)?;
        let whole = &size[..point];
        if size[point] != b'.' || (whole.len() > 1 && whole[0] == b'0') {
            return None;
        }
        let seconds = digits(whole)?;
        let nanos = u32::try_from(digits(&size[point + 1..])?).ok()?;
        if negative && (seconds, nanos) == (0, 0) {
            return None;
        }
        Some(Skew {
            negative,
            seconds,
            nanos,
        })
    }

    /// Appends it: a sign always, whole seconds, a point, nine digits.
    pub fn write(self, out: &mut Vec<u8>) {
        const POINT: usize = 24;
        let mut text = [b'0'; POINT + 1 + 9];
        text[POINT] = b'.';
        text[POINT + 1] += (self.nanos / EIGHT_DIGITS) as u8; // one digit
        text[POINT + 2..].copy_from_slice(&swar::digits_of(self.nanos % EIGHT_DIGITS));
        // Eight digits at a time, from the last to the first.
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
        let leading_zeros = (first ^ swar::each(b'0')).trailing_zeros() as usize / 8;
        out.push(if self.negative { b'-' } else { b'+' });
        out.extend_from_slice(&text[start + leading_zeros.min(7)..]);
    }

    /// Where the stamp is, seen from the receipt.
    #[must_use]
    pub fn lead(self) -> Lead {
        match ((self.seconds, self.nanos) > (MAX_LEAD_S, 0), self.negative) {
            (false, _) => Lead::Near,
            (true, true) => Lead::Ahead,
            (true, false) => Lead::Behind,
        }
    }
}

/// Where a client's stamp is, seen from the clock of the server that heard it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    /// At most 60 s away.
    Near,
    /// More than 60 s ahead.
    Ahead,
    /// More than 60 s behind.
    Behind,
}

/// The time that decides which of two records of one client is the later one: the client's stamp,
/// but at most 60 s after the receipt. `None` if the receipt would lie before the epoch, which no
/// server's clock says.
///
/// Any server computes the same answer from the `AT` line alone. It is continuous: a stamp that
/// leads by a little more than 60 s counts a little less than it says. So a client's record moves
/// on with it whatever its clock says, and if the clock is set right, the record moves again after
/// 60 s.
#[inline(always)] // see `AtHead::parse`
#[must_use]
pub fn effective_time(stamp: PosixTime, skew: Skew) -> Option<PosixTime> {
    if !skew.negative {
        return Some(stamp);
    }
    let skew_attos = u64::from(skew.nanos) * ATTOS_PER_NANO;
    let (borrow, attos) = match stamp.attos.checked_sub(skew_attos) {
        Some(attos) => (0, attos),
        None => (1, stamp.attos + ATTOS - skew_attos),
    };
    let seconds = stamp
        .seconds
        .checked_sub(skew.seconds)?
        .checked_sub(borrow)?;
    let latest = PosixTime {
        seconds: seconds + MAX_LEAD_S,
        attos,
    };
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
    fn seconds_are_written_with_as_many_digits_as_they_have() {
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
    fn a_skew_is_read_in_one_spelling_only() {
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
    fn a_stamp_counts_for_sixty_seconds_after_its_receipt_at_most() {
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
    fn a_client_whose_clock_leads_by_about_a_minute_moves_on_with_every_update() {
        let mut last = None;
        for step in 0..30_u64 {
            // An update each second; the lead goes back and forth around 60 s, by less than the
            // client waits.
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
        fn a_skew_survives_the_wire(receipt in 0u64..=u64::MAX, seconds in 0u64..ATTOS, nanos in 0u64..NANOS) {
            let stamp = PosixTime { seconds, attos: nanos * ATTOS_PER_NANO };
            let receipt = PosixTime::from_nanos(receipt);
            let skew = Skew::between(receipt, stamp);
            let mut text = Vec::new();
            skew.write(&mut text);
            prop_assert_eq!(Skew::parse(&text), Some(skew));
            let as_nanos = |t: PosixTime| i128::from(t.seconds) * i128::from(NANOS) + i128::from(t.attos / ATTOS_PER_NANO);
            let size = i128::from(skew.seconds) * i128::from(NANOS) + i128::from(skew.nanos);
            prop_assert_eq!(as_nanos(receipt) - as_nanos(stamp), if skew.negative { -size } else { size });
        }

        #[test]
        fn parsing_never_panics(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = PosixTime::parse(&text);
            let _ = Skew::parse(&text);
        }

        #[test]
        fn what_parses_is_a_decimal(text in "[0-9.+e-]{0,40}") {
            let decimal = text.split_once('.').map_or(
                (1..=18).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()),
                |(a, b)| [a, b].iter().all(|p| (1..=18).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit())),
            );
            prop_assert_eq!(PosixTime::parse(text.as_bytes()).is_some(), decimal);
        }
    }
}
