//! Which of two `AT` lines of one client is the later one, written anew from the words of DESIGN.md, with big integers, to check
//! the server's own comparison against:
//!
//! > the later *effective time* wins, then the later stamp, then the greater bytes. Effective time is the client's stamp, unless
//! > that is more than 60 s after the receipt at the server that answered (receipt = stamp + skew, both in the AT line): then it
//! > is the receipt.

/// 10¹⁸: a stamp has up to 18 decimals.
const ATTOS: i128 = 1_000_000_000_000_000_000;

/// An `AT` line, without its LF. Ordered: the greater of two of one client is the one that has to be kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    effective: i128,
    stamp: i128,
    bytes: Vec<u8>,
}

/// The fields of an `AT` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fields<'a> {
    pub(crate) server: &'a [u8],
    pub(crate) skew: &'a [u8],
    pub(crate) client: &'a [u8],
    pub(crate) location: &'a [u8],
    pub(crate) time: &'a [u8],
}

impl<'a> Fields<'a> {
    /// `AT <server> <skew> <client> <location> <time>`, single spaces.
    pub(crate) fn of(line: &'a [u8]) -> Option<Fields<'a>> {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        match *fields {
            [b"AT", server, skew, client, location, time] => Some(Fields {
                server,
                skew,
                client,
                location,
                time,
            }),
            _ => None,
        }
    }
}

impl Line {
    /// Reads an `AT` line (without its LF).
    pub(crate) fn new(bytes: &[u8]) -> Option<Line> {
        let fields = Fields::of(bytes)?;
        let stamp = attos(fields.time)?;
        let receipt = receipt(&fields)?;
        let effective = if stamp - receipt > 60 * ATTOS {
            receipt
        } else {
            stamp
        };
        Some(Line {
            effective,
            stamp,
            bytes: bytes.to_vec(),
        })
    }

    /// The line itself.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// When the server that answered says that it heard the client, in attoseconds since the epoch.
pub(crate) fn receipt(fields: &Fields<'_>) -> Option<i128> {
    let (sign, size) = fields.skew.split_first()?;
    let size = attos(size)?;
    let skew = match sign {
        b'+' => size,
        b'-' => -size,
        _ => return None,
    };
    Some(attos(fields.time)? + skew)
}

/// A decimal number of seconds as attoseconds; at most 18 digits on either side of the point, so that it fits by far.
pub(crate) fn attos(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 18 || whole.len() > 18 {
        return None;
    }
    let padded = format!("{fraction:0<18}");
    Some(whole.parse::<i128>().ok()? * ATTOS + padded.parse::<i128>().ok()?)
}
