//! POSIX times as exact decimals. An `f64` cannot hold the nanoseconds of current times. So a time
//! is a number of attoseconds (10⁻¹⁸ s), and an `i128` holds every time that the protocol allows.

use std::cmp::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::lines::number;

/// The greatest number of digits on either side of a time's point.
const MAX_DIGITS: usize = 18;
const ATTOS_PER_SECOND: i128 = 1_000_000_000_000_000_000;
const ATTOS_PER_NANO: i128 = 1_000_000_000;
const NANOS_PER_SECOND: u128 = 1_000_000_000;
/// A stamp counts as at most this much later than its receipt.
const MAX_LEAD_ATTOS: i128 = 60 * ATTOS_PER_SECOND;
/// A record further ahead of the server's clock comes from a server with a wrong clock. An update
/// replaces it.
const MAX_AHEAD_ATTOS: i128 = 120 * ATTOS_PER_SECOND;

/// Attoseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PosixTime(i128);

/// Receipt minus stamp in nanoseconds, rounded towards zero.
#[derive(Clone, Copy)]
pub(crate) struct Skew(i128);

/// The order of one client's records, before their bytes. It is derived, so the epoch decides
/// first, then the effective time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Order {
    /// The number of this client's records that were replaced because of a wrong clock.
    pub(crate) epoch: u32,
    effective: PosixTime,
    stamp: PosixTime,
}

/// The wall clock, in nanoseconds since 1970.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock"
)]
pub(crate) fn wall_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl PosixTime {
    /// The wall clock.
    pub(crate) fn now() -> PosixTime {
        PosixTime(i128::from(wall_ns()) * ATTOS_PER_NANO)
    }

    /// Parses 1–18 digits, and optionally a point and 1–18 digits.
    pub(crate) fn parse(text: &[u8]) -> Option<PosixTime> {
        let (whole, attos) = match memchr::memchr(b'.', text) {
            Some(point) => {
                let fraction = &text[point + 1..];
                let missing = MAX_DIGITS.checked_sub(fraction.len())?;
                let unit = 10i128.pow(u32::try_from(missing).ok()?);
                (&text[..point], i128::from(number(fraction)?) * unit)
            }
            None => (text, 0),
        };
        if whole.len() > MAX_DIGITS {
            return None;
        }
        let seconds = i128::from(number(whole)?);
        Some(PosixTime(seconds * ATTOS_PER_SECOND + attos))
    }
}

impl Skew {
    pub(crate) fn between(receipt: PosixTime, stamp: PosixTime) -> Skew {
        Skew((receipt.0 - stamp.0) / ATTOS_PER_NANO)
    }

    /// Parses only the form that [`Skew`]'s `Display` writes.
    pub(crate) fn parse(text: &[u8]) -> Option<Skew> {
        let (&sign, size) = text.split_first()?;
        let (whole, fraction) = size.split_at(size.len().checked_sub(10)?);
        let (&point, nanos) = fraction.split_first()?;
        let spelled_otherwise =
            point != b'.' || whole.len() > MAX_DIGITS || (whole.len() > 1 && whole[0] == b'0');
        if spelled_otherwise {
            return None;
        }
        let nanos = i128::from(number(whole)?) * 1_000_000_000 + i128::from(number(nanos)?);
        match sign {
            b'+' => Some(Skew(nanos)),
            b'-' if nanos > 0 => Some(Skew(-nanos)),
            _ => None,
        }
    }
}

/// A sign in any case, whole seconds, a point, nine digits.
impl std::fmt::Display for Skew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.0 < 0 { '-' } else { '+' };
        let size = self.0.unsigned_abs();
        let (seconds, nanos) = (size / NANOS_PER_SECOND, size % NANOS_PER_SECOND);
        write!(f, "{sign}{seconds}.{nanos:09}")
    }
}

impl Order {
    /// The effective time is the stamp, or 60 s after the receipt if that is earlier. It has no
    /// jump, so updates with a clock about a minute ahead are not lost. `None` if the receipt is
    /// before 1970. The receipt is computed from the line alone, so every server gets the same.
    pub(crate) fn new(stamp: PosixTime, skew: Skew) -> Option<Order> {
        let receipt = PosixTime(stamp.0 + skew.0 * ATTOS_PER_NANO);
        if receipt.0 < 0 {
            return None;
        }
        let latest = PosixTime(receipt.0 + MAX_LEAD_ATTOS);
        let effective = stamp.min(latest);
        Some(Order {
            epoch: 0,
            effective,
            stamp,
        })
    }

    /// Whether the stamp is more than a minute ahead of `now`, or behind it.
    pub(crate) fn lead(self, now: PosixTime) -> Ordering {
        let lead = self.stamp.0 - now.0;
        match lead.abs() > MAX_LEAD_ATTOS {
            true => lead.cmp(&0),
            false => Ordering::Equal,
        }
    }

    /// Whether `known` is the later one only because of another server's clock.
    pub(crate) fn is_held_back_by(self, known: Order, now: PosixTime) -> bool {
        self.stamp > known.stamp || known.effective.0 > now.0 + MAX_AHEAD_ATTOS
    }
}
