//! The order of two records of one client. This is a second implementation, made from the text of
//! the protocol, with big integers. The server's own comparison is checked against it:
//!
//! > the greater epoch wins, then the later *effective time*, then the later stamp, then the
//! > greater bytes. Effective time is the client's stamp, but at most 60 s after the receipt at the
//! > server that answered (receipt = stamp + skew, both in the AT line).
//!
//! A tombstone, which has `-` in the place of the location, is ordered by its receipt: that is its
//! effective time.
//!
//! A server increases a record's epoch when a wrong clock would make its own client's record stale.
//! Answers to clients do not contain the epoch, so it is taken from the servers' tables and not
//! checked.

use std::collections::{BTreeMap, BTreeSet};

/// 10¹⁸: a stamp has up to 18 decimals.
const ATTOS: i128 = 1_000_000_000_000_000_000;

/// A record: an `AT` line without its LF, and its epoch. Of two records of one client, servers keep
/// the greater one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    epoch: u32,
    effective: i128,
    stamp: i128,
    bytes: Vec<u8>,
}

/// The fields of an `AT` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields<'a> {
    /// The server that answered.
    pub server: &'a [u8],
    /// Its clock minus the client's.
    pub skew: &'a [u8],
    /// The client of the record.
    pub client: &'a [u8],
    /// The client's position.
    pub location: &'a [u8],
    /// The client's stamp.
    pub time: &'a [u8],
}

impl<'a> Fields<'a> {
    /// `AT <server> <skew> <client> <location> <time>`, single spaces.
    pub fn of(line: &'a [u8]) -> Option<Fields<'a>> {
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
    /// Reads a record as it crosses a link (without its LF).
    pub fn of_link(bytes: &[u8]) -> Option<Line> {
        let (epoch, line) = record(bytes)?;
        Line::new(line, epoch)
    }

    /// Reads an `AT` line (without its LF) of this epoch.
    pub fn new(bytes: &[u8], epoch: u32) -> Option<Line> {
        let fields = Fields::of(bytes)?;
        let stamp = attos(fields.time)?;
        let receipt = receipt(&fields)?;
        let effective = match fields.location {
            b"-" => receipt,
            _ => stamp.min(receipt + 60 * ATTOS),
        };
        Some(Line {
            epoch,
            effective,
            stamp,
            bytes: bytes.to_vec(),
        })
    }

    /// The client of the record.
    pub fn client(&self) -> &[u8] {
        Fields::of(&self.bytes).map_or(&[], |fields| fields.client)
    }

    /// Whether it says that its client was forgotten.
    pub fn is_tombstone(&self) -> bool {
        Fields::of(&self.bytes).is_some_and(|fields| fields.location == b"-")
    }

    /// Whether its effective time is before a time, in attoseconds since the epoch.
    pub fn is_before(&self, attos: i128) -> bool {
        self.effective < attos
    }

    /// The line itself.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The epoch and the `AT` line of a record as it crosses a link.
pub fn record(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let Some(text) = bytes.strip_prefix(b"EPOCH ") else {
        return Some((0, bytes));
    };
    let space = text.iter().position(|&byte| byte == b' ')?;
    let epoch = std::str::from_utf8(&text[..space]).ok()?.parse().ok()?;
    (epoch > 0).then_some((epoch, &text[space + 1..]))
}

/// The epoch of each line that any server held.
#[derive(Default)]
pub struct Epochs {
    lines: BTreeMap<Vec<u8>, u32>,
    /// Clients that have a record with an epoch above 0.
    clients: BTreeSet<Vec<u8>>,
}

impl Epochs {
    /// Notes that a server holds this line of this client.
    pub fn note(&mut self, client: &[u8], line: Vec<u8>, epoch: u32) {
        let noted = self.lines.entry(line).or_default();
        *noted = epoch.max(*noted);
        if epoch > 0 && !self.clients.contains(client) {
            self.clients.insert(client.to_vec());
        }
    }

    /// The record with this `AT` line. `None` if its epoch is unknown: no server was seen with this
    /// line, because a later record replaced it at once.
    pub fn record(&self, bytes: &[u8]) -> Option<Line> {
        let client = Fields::of(bytes)?.client;
        let epoch = match self.clients.contains(client) {
            true => *self.lines.get(bytes)?,
            false => 0,
        };
        Line::new(bytes, epoch)
    }
}

/// The time at which the answering server received the line, in attoseconds since 1970: stamp plus
/// skew.
pub fn receipt(fields: &Fields<'_>) -> Option<i128> {
    let (sign, size) = fields.skew.split_first()?;
    let size = attos(size)?;
    let skew = match sign {
        b'+' => size,
        b'-' => -size,
        _ => return None,
    };
    Some(attos(fields.time)? + skew)
}

/// A decimal number of seconds as attoseconds. At most 18 digits on either side of the point are
/// accepted, so the result always fits.
pub fn attos(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 18 || whole.len() > 18 {
        return None;
    }
    let padded = format!("{fraction:0<18}");
    Some(whole.parse::<i128>().ok()? * ATTOS + padded.parse::<i128>().ok()?)
}
