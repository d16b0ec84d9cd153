//! A model of the table of records: it decides as simply as possible which record of a client wins.
//! The tables of all worlds are compared with it. It shares no code with any of them.

use std::collections::BTreeMap;

/// Attoseconds: the unit of the model's times.
const SECOND: i128 = 1_000_000_000_000_000_000;
const NANOSECOND: i128 = 1_000_000_000;

/// A record as it crosses a link. The order of the fields is the order of the records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Record {
    pub(crate) epoch: u32,
    effective: i128,
    stamp: i128,
    pub(crate) line: String,
}

/// Parses digits with or without a point.
fn time(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let attos: i128 = format!("{fraction:0<18}").parse().ok()?;
    Some(whole.parse::<i128>().ok()? * SECOND + attos)
}

impl Record {
    /// Parses `AT …` and `EPOCH <n> AT …`. `None` if the receipt is before 1970.
    pub(crate) fn parse(told: &str) -> Option<Record> {
        let (epoch, line) = match told.strip_prefix("EPOCH ") {
            Some(rest) => rest.split_once(' ')?,
            None => ("0", told),
        };
        let words: Vec<&str> = line.split(' ').collect();
        let ["AT", _, skew, _, _, stamp] = words[..] else {
            return None;
        };
        let (sign, size) = skew.split_at(1);
        let sign = if sign == "-" { -1 } else { 1 };
        let stamp = time(stamp)?;
        let receipt = stamp + sign * (time(size)? / NANOSECOND * NANOSECOND);
        (receipt >= 0).then(|| Record {
            epoch: epoch.parse().unwrap(),
            effective: stamp.min(receipt + 60 * SECOND),
            stamp,
            line: line.to_owned(),
        })
    }

    fn client(&self) -> &str {
        self.line.split(' ').nth(3).unwrap()
    }
}

/// The winning record of each client.
#[derive(Default)]
pub(crate) struct Table {
    winners: BTreeMap<String, Record>,
}

impl Table {
    pub(crate) fn offer(&mut self, record: Record) {
        let winner = self.winners.entry(record.client().to_owned());
        winner
            .and_modify(|known| *known = known.clone().max(record.clone()))
            .or_insert(record);
    }

    pub(crate) fn line(&self, client: &str) -> &str {
        &self.winners[client].line
    }

    /// The number of records and their digest, which is the sum of a hash of each line. The epochs
    /// are not in the digest.
    pub(crate) fn sum(&self) -> (u64, u64) {
        let hashes = self
            .winners
            .values()
            .map(|record| hash(record.line.as_bytes()));
        let digest = hashes.fold(0, u64::wrapping_add);
        (self.winners.len() as u64, digest)
    }
}

/// A hash of eight bytes at a time, little-endian. The last bytes are padded with zeros.
fn hash(line: &[u8]) -> u64 {
    line.chunks(8).fold(line.len() as u64, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let mixed = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 32)
    })
}
