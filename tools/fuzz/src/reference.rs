//! What the wire's documentation says, written a second time: slowly, with big integers and nothing shared with the server's parsers.
//!
//! A target that finds the two apart has found a mistake in one of them.

use std::cmp::Ordering;
use std::fmt;

/// 10¹⁸: attoseconds in a second.
const ATTOS: i128 = 1_000_000_000_000_000_000;
/// A stamp counts for so much more than its receipt at most.
const MAX_LEAD_NS: i128 = 60_000_000_000;

/// A client's command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    Blank,
    Iamat {
        client: &'a [u8],
        location: &'a [u8],
        time: &'a [u8],
    },
    Whatsat {
        client: &'a [u8],
        radius_nm: u128,
        bound: u8,
    },
    Invalid,
}

/// Whether C's `isspace` says so.
pub(crate) fn is_space(byte: u8) -> bool {
    b" \t\n\x0b\x0c\r".contains(&byte)
}

/// What one line of a client says.
pub(crate) fn command(line: &[u8]) -> Command<'_> {
    let fields: Vec<&[u8]> = line
        .split(|&byte| is_space(byte))
        .filter(|field| !field.is_empty())
        .collect();
    match *fields {
        [] => Command::Blank,
        [b"IAMAT", client, at, time] if location(at).is_some() && stamp(time).is_some() => {
            Command::Iamat {
                client,
                location: at,
                time,
            }
        }
        [b"WHATSAT", client, radius, most] => match (radius_nm(radius), bound(most)) {
            (Some(radius_nm), Some(bound)) => Command::Whatsat {
                client,
                radius_nm,
                bound,
            },
            _ => Command::Invalid,
        },
        _ => Command::Invalid,
    }
}

/// The digits before the point and those behind it, if there is a point; neither may be missing.
fn decimal(text: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let mut halves = text.splitn(2, |&byte| byte == b'.');
    let (whole, fraction) = (halves.next()?, halves.next());
    let are_digits = |half: &[u8]| !half.is_empty() && half.iter().all(u8::is_ascii_digit);
    (are_digits(whole) && fraction.is_none_or(are_digits)).then_some((whole, fraction))
}

/// Digits as a number; nothing if it does not fit, which is more than anything on the wire may be.
fn number(digits: &[u8]) -> Option<u128> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A client's clock, in attoseconds since the epoch.
pub(crate) fn stamp(text: &[u8]) -> Option<i128> {
    let (whole, fraction) = decimal(text)?;
    let fraction = fraction.unwrap_or(b"0");
    if whole.len() > 18 || fraction.len() > 18 {
        return None;
    }
    let padded = [fraction, &b"0".repeat(18 - fraction.len())].concat();
    let attos = number(whole)? * ATTOS.unsigned_abs() + number(&padded)?;
    i128::try_from(attos).ok()
}

/// Latitude and longitude, signs included.
pub(crate) fn location(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let signs: Vec<usize> = (0..text.len())
        .filter(|&at| b"+-".contains(&text[at]))
        .collect();
    let [0, second] = *signs else {
        return None;
    };
    let (latitude, longitude) = text.split_at(second);
    let is_within = |half: &[u8], most: u128| {
        let Some((whole, fraction)) = decimal(&half[1..]) else {
            return false;
        };
        let is_whole = fraction.is_none_or(|digits| digits.iter().all(|&digit| digit == b'0'));
        let order = number(whole).map(|degrees| degrees.cmp(&most));
        whole.len() <= 3
            && (order == Some(Ordering::Less) || order == Some(Ordering::Equal) && is_whole)
    };
    (is_within(latitude, 90) && is_within(longitude, 180)).then_some((latitude, longitude))
}

/// A radius in kilometres as nanometres, rounded up.
fn radius_nm(text: &[u8]) -> Option<u128> {
    let (whole, fraction) = decimal(text)?;
    let significant = whole.iter().position(|&digit| digit != b'0');
    let whole = significant.map_or(&b"0"[..], |at| &whole[at..]);
    if whole.len() > 2 {
        return None;
    }
    let fraction = fraction.unwrap_or_default();
    let padded = [fraction, &b"0".repeat(12)].concat();
    let (counted, rest) = padded.split_at(12);
    let is_more = rest.iter().any(|&digit| digit != b'0');
    let nm = number(whole)? * 1_000_000_000_000 + number(counted)? + u128::from(is_more);
    (0 < nm && nm <= 50_000_000_000_000).then_some(nm)
}

fn bound(text: &[u8]) -> Option<u8> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let significant = text.iter().position(|&digit| digit != b'0')?;
    let bound = number(&text[significant..])?;
    u8::try_from(bound).ok().filter(|bound| *bound <= 20)
}

/// Receipt minus stamp in nanoseconds, what is below one cut towards zero.
pub(crate) fn skew_ns(receipt_ns: u64, stamp: i128) -> i128 {
    (i128::from(receipt_ns) * 1_000_000_000 - stamp) / 1_000_000_000
}

/// How a skew is written.
pub(crate) fn skew_text(skew_ns: i128) -> String {
    let (sign, size) = (if skew_ns < 0 { '-' } else { '+' }, skew_ns.unsigned_abs());
    format!("{sign}{}.{:09}", size / 1_000_000_000, size % 1_000_000_000)
}

/// An `AT` line. What is later in the protocol's order is greater; only lines of one client have an order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub(crate) epoch: u32,
    pub(crate) effective: i128,
    pub(crate) stamp: i128,
    pub(crate) line: Vec<u8>,
    pub(crate) client: Vec<u8>,
}

impl fmt::Debug for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.line.escape_ascii())
    }
}

impl At {
    /// Reads a record as it crosses a link, without its LF.
    pub(crate) fn of_link(line: &[u8]) -> Option<At> {
        let Some(text) = line.strip_prefix(b"EPOCH ") else {
            return At::read(line);
        };
        let place = text.iter().position(|&byte| byte == b' ')?;
        let (digits, line) = (&text[..place], &text[place + 1..]);
        let is_plain = digits.iter().all(u8::is_ascii_digit) && digits.first() != Some(&b'0');
        let epoch = std::str::from_utf8(digits).ok()?.parse().ok()?;
        let at = At::read(line).filter(|_| is_plain)?;
        Some(At { epoch, ..at })
    }

    /// How it crosses a link, without an LF.
    pub(crate) fn to_link(&self) -> Vec<u8> {
        match self.epoch {
            0 => self.line.clone(),
            epoch => [format!("EPOCH {epoch} ").as_bytes(), &self.line].concat(),
        }
    }

    /// Reads a line, without its LF, as servers write it.
    pub(crate) fn read(line: &[u8]) -> Option<At> {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let [b"AT", server, skew, client, at, time] = *fields else {
            return None;
        };
        let is_name = |name: &[u8]| !name.is_empty() && !name.iter().any(|&byte| is_space(byte));
        let (skew, stamp) = (read_skew(skew)?, stamp(time)?);
        let receipt = stamp + skew * 1_000_000_000;
        let is_tombstone = at == b"-";
        let is_place = is_tombstone || location(at).is_some();
        if !is_name(server) || !is_name(client) || !is_place || skew < 0 && receipt < 0 {
            return None;
        }
        let effective = match is_tombstone {
            true => receipt,
            false => stamp.min(receipt + MAX_LEAD_NS * 1_000_000_000),
        };
        Some(At {
            epoch: 0,
            effective,
            stamp,
            line: line.to_vec(),
            client: client.to_vec(),
        })
    }
}

fn read_skew(text: &[u8]) -> Option<i128> {
    let (sign, size) = text.split_first()?;
    let (whole, fraction) = decimal(size)?;
    if whole.len() > 18 || fraction?.len() != 9 {
        return None;
    }
    let size = number(&[whole, fraction?].concat())?;
    let skew = i128::try_from(size).ok()? * if *sign == b'-' { -1 } else { 1 };
    // Only one spelling of each.
    (skew_text(skew).as_bytes() == text).then_some(skew)
}
