//! Parses lines: a client's `IAMAT` and `WHATSAT`, and the `AT` line that answers an `IAMAT` and is
//! sent to all servers. All results borrow from the line.

use crate::lines::{all_digits, fields, is_space, number};
use crate::time::{Order, PosixTime, Skew};

const METRE_NM: u64 = 1_000_000_000;
const KM_NM: u64 = 1000 * METRE_NM;
const MAX_RADIUS_NM: u64 = 50 * KM_NM;

/// A client's command.
pub(crate) enum Command<'a> {
    /// Only white space. It gets no answer.
    Blank,
    Iamat(Iamat<'a>),
    Whatsat(Whatsat<'a>),
    /// Anything else.
    Invalid,
}

/// `IAMAT <client> <location> <time>`
pub(crate) struct Iamat<'a> {
    pub(crate) client: &'a [u8],
    pub(crate) location: &'a [u8],
    pub(crate) time: &'a [u8],
    pub(crate) stamp: PosixTime,
}

/// `WHATSAT <client> <radius km> <bound>`
pub(crate) struct Whatsat<'a> {
    pub(crate) client: &'a [u8],
    pub(crate) radius: Radius,
    pub(crate) bound: usize,
}

impl<'a> Command<'a> {
    /// Parses one line (without its LF).
    pub(crate) fn parse(line: &'a [u8]) -> Command<'a> {
        let mut fields = fields(line);
        let Some(verb) = fields.next() else {
            return Command::Blank;
        };
        let arguments = (fields.next(), fields.next(), fields.next(), fields.next());
        let (Some(client), Some(second), Some(third), None) = arguments else {
            return Command::Invalid;
        };
        let command = match verb {
            b"IAMAT" => iamat(client, second, third).map(Command::Iamat),
            b"WHATSAT" => whatsat(client, second, third).map(Command::Whatsat),
            _ => None,
        };
        command.unwrap_or(Command::Invalid)
    }
}

fn iamat<'a>(client: &'a [u8], location: &'a [u8], time: &'a [u8]) -> Option<Iamat<'a>> {
    Coordinates::parse(location)?;
    let stamp = PosixTime::parse(time)?;
    Some(Iamat {
        client,
        location,
        time,
        stamp,
    })
}

fn whatsat<'a>(client: &'a [u8], radius: &[u8], bound: &[u8]) -> Option<Whatsat<'a>> {
    let radius = Radius::parse(radius)?;
    let bound = usize::try_from(number(bound)?).ok()?;
    (1..=20).contains(&bound).then_some(Whatsat {
        client,
        radius,
        bound,
    })
}

/// A search radius, 0 < r ≤ 50 km, in nanometres. A finer one is rounded up, so none becomes zero.
#[derive(Clone, Copy)]
pub(crate) struct Radius(u64);

impl Radius {
    fn parse(kilometres: &[u8]) -> Option<Radius> {
        let (whole, fraction) = match memchr::memchr(b'.', kilometres) {
            Some(point) => (&kilometres[..point], &kilometres[point + 1..]),
            None => (kilometres, &b"0"[..]),
        };
        let whole = number(whole).filter(|&kilometres| kilometres <= 50)?;
        if !all_digits(fraction) {
            return None;
        }
        let (kept, finer) = fraction.split_at(fraction.len().min(12));
        let unit = 10u64.pow(12 - kept.len() as u32);
        let rounding = u64::from(finer.iter().any(|&digit| digit != b'0'));
        let nanometres = whole * KM_NM + number(kept)? * unit + rounding;
        (0 < nanometres && nanometres <= MAX_RADIUS_NM).then_some(Radius(nanometres))
    }

    /// The radius in metres, as a plain decimal number.
    pub(crate) fn metres(self) -> String {
        let (whole, fraction) = (self.0 / METRE_NM, self.0 % METRE_NM);
        if fraction == 0 {
            return whole.to_string();
        }
        let text = format!("{whole}.{fraction:09}");
        text.trim_end_matches('0').to_owned()
    }
}

/// A position in ISO 6709 decimal degrees. The digits stay text, so nothing is rounded on the way
/// to Google.
pub(crate) struct Coordinates<'a> {
    latitude: &'a [u8],
    longitude: &'a [u8],
}

impl<'a> Coordinates<'a> {
    /// Parses twice `[+-]`, 1–3 digits, and optionally a point and digits. The latitude is within
    /// ±90, the longitude within ±180.
    pub(crate) fn parse(text: &'a [u8]) -> Option<Coordinates<'a>> {
        let is_sign = |byte: &u8| matches!(byte, b'+' | b'-');
        let second_sign = 1 + text.get(1..)?.iter().position(is_sign)?;
        let (latitude, longitude) = text.split_at(second_sign);
        (within(latitude, 90) && within(longitude, 180)).then_some(Coordinates {
            latitude,
            longitude,
        })
    }

    /// `<latitude>,<longitude>` for a URL: without `+` and without leading zeros.
    pub(crate) fn plain(&self) -> String {
        format!("{},{}", plain(self.latitude), plain(self.longitude))
    }
}

/// Whether `text` is a signed decimal of 1–3 whole digits and at most `limit` in size.
fn within(text: &[u8], limit: u64) -> bool {
    let Some((b'+' | b'-', size)) = text.split_first() else {
        return false;
    };
    let (whole, fraction) = match memchr::memchr(b'.', size) {
        Some(point) => (&size[..point], &size[point + 1..]),
        None => (size, &b"0"[..]),
    };
    if whole.len() > 3 || !all_digits(fraction) {
        return false;
    }
    let is_whole = fraction.iter().all(|&digit| digit == b'0');
    number(whole).is_some_and(|degrees| degrees < limit || (degrees == limit && is_whole))
}

fn plain(text: &[u8]) -> String {
    // Signs, digits and a point are always ASCII.
    let text = String::from_utf8_lossy(text);
    let (sign, size) = text.split_at(1);
    let whole_digits = size.find('.').unwrap_or(size.len());
    let leading_zeros = size.len() - size.trim_start_matches('0').len();
    let sign = if sign == "-" { "-" } else { "" };
    format!("{sign}{}", &size[leading_zeros.min(whole_digits - 1)..])
}

/// A parsed `AT` line. Servers store and send the line itself, byte for byte.
pub(crate) struct At<'a> {
    pub(crate) client: &'a [u8],
    pub(crate) location: &'a [u8],
    pub(crate) order: Order,
}

impl<'a> At<'a> {
    /// Parses an `AT` line as it crosses a link: after `EPOCH <n>`, unless the epoch is 0.
    pub(crate) fn parse_told(told: &'a [u8]) -> Option<(&'a [u8], At<'a>)> {
        let Some(rest) = told.strip_prefix(b"EPOCH ") else {
            return Some((told, At::parse(told)?));
        };
        let digits = &rest[..memchr::memchr(b' ', rest)?];
        let line = &rest[digits.len() + 1..];
        let mut at = At::parse(line)?;
        at.order.epoch = u32::try_from(number(digits)?).ok()?;
        (digits[0] != b'0').then_some((line, at))
    }

    /// Parses `AT <server> <skew> <client> <location> <time>` with single spaces, and nothing
    /// before or after it.
    pub(crate) fn parse(line: &'a [u8]) -> Option<At<'a>> {
        let mut fields = line.split(|&byte| byte == b' ');
        if fields.next()? != b"AT" {
            return None;
        }
        let is_name = |field: &&[u8]| !field.is_empty() && !field.iter().any(|&b| is_space(b));
        fields.next().filter(is_name)?;
        let skew = Skew::parse(fields.next()?)?;
        let client = fields.next().filter(is_name)?;
        let location = fields.next()?;
        Coordinates::parse(location)?;
        let stamp = PosixTime::parse(fields.next()?)?;
        if fields.next().is_some() {
            return None;
        }
        Some(At {
            client,
            location,
            order: Order::new(stamp, skew)?,
        })
    }
}
