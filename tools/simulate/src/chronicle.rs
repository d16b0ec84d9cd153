//! The event log of a run. A hash of all events is always computed. Text is made only when a failed
//! run is repeated.

use std::fmt;

use herd_mio::core::base::clock::Time;

/// The subject of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// The herd as a whole: storms, faults.
    Herd,
    /// One server.
    Host(usize),
    /// One edge of the herd.
    Edge(usize),
    /// One client's connection.
    Session(usize),
    /// The record of one client id.
    Record(Vec<u8>),
}

/// One entry.
struct Entry {
    time: Time,
    subjects: Vec<Subject>,
    text: String,
}

/// The event log of a run.
pub(crate) struct Chronicle {
    hash: u64,
    entries: Option<Vec<Entry>>,
}

impl Chronicle {
    /// An empty log. `in_words` means that it will be printed.
    pub(crate) fn new(in_words: bool) -> Chronicle {
        Chronicle {
            hash: FNV_OFFSET,
            entries: in_words.then(Vec::new),
        }
    }

    /// Adds an event to the hash.
    pub(crate) fn mix(&mut self, time: Time, parts: &[u64], bytes: &[u8]) {
        let mut hash = self.hash;
        for part in std::iter::once(&time.as_nanos()).chain(parts) {
            hash = (hash ^ part).wrapping_mul(FNV_PRIME).rotate_left(29);
        }
        self.hash = hash ^ fnv(bytes);
    }

    /// Adds an event to the log, if it will be printed.
    pub(crate) fn log(&mut self, time: Time, subjects: &[Subject], text: impl FnOnce() -> String) {
        if let Some(entries) = &mut self.entries {
            entries.push(Entry {
                time,
                subjects: subjects.to_vec(),
                text: text(),
            });
        }
    }

    /// A hash of all events. Two runs have the same hash only if their events are the same.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// The entries about any of `subjects`, or all entries for `None`. Each is a line.
    pub(crate) fn about(&self, subjects: Option<&[Subject]>) -> Vec<String> {
        let entries = self.entries.as_deref().unwrap_or_default();
        let concerned = |entry: &&Entry| {
            let is_one = |subject: &Subject| {
                *subject == Subject::Herd || subjects.is_none_or(|ones| ones.contains(subject))
            };
            entry.subjects.iter().any(is_one)
        };
        let concerning = entries.iter().filter(concerned);
        concerning
            .map(|entry| format!("{}  {}", Seconds(entry.time), entry.text))
            .collect()
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a over words of eight bytes. It is fast, and it need not resist deliberate collisions.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    let mut hash = FNV_OFFSET ^ bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(word))
            .wrapping_mul(FNV_PRIME)
            .rotate_left(31);
    }
    hash
}

/// A virtual time as text.
pub(crate) struct Seconds(pub(crate) Time);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        write!(
            f,
            "{:>4}.{:06}",
            nanos / 1_000_000_000,
            nanos / 1_000 % 1_000_000
        )
    }
}

/// Bytes of a connection as text: escaped, and cut to a short length.
pub(crate) struct Shown<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 160;
        let bytes = self.0;
        if bytes.len() <= MOST {
            return write!(f, "\"{}\"", bytes.escape_ascii());
        }
        let (head, tail) = (&bytes[..MOST / 2], &bytes[bytes.len() - MOST / 2..]);
        write!(
            f,
            "\"{}…{}\" ({} bytes)",
            head.escape_ascii(),
            tail.escape_ascii(),
            bytes.len()
        )
    }
}
