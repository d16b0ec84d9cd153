//! Counts the entries and the damaged places of a journal in one pass.

use std::collections::BTreeMap;

use super::Failure;
use super::sink::Stop;
use super::source::Journal;
use crate::core::base::boot_id::BootId;
use crate::core::journal::format::{DamageDetector, Entry, Format, Piece, Tail};
use crate::core::wire::message::At;
use crate::core::wire::posix_time::PosixTime;
use crate::shell::disk::machine_boot_id;

/// The maximum number of damaged places that are listed one by one. Further places are only
/// counted.
const MAX_SHOWN_GAPS: usize = 100;
/// The maximum number of servers in [`Census::records_by_server`], and of neighbours in
/// [`Census::neighbours`]. Further names are not stored. An undamaged journal contains only the
/// names of its herd's servers, so it stays below this number.
const MAX_SHOWN_SERVERS: usize = 1_000;

/// The names of the kinds of entries, as `stats` prints them.
pub(super) const KIND_NAMES: [&str; 6] = [
    "life",
    "synced",
    "record",
    "record of a later epoch",
    "heard",
    "told",
];

/// The number of entries of one kind, and their size.
#[derive(Clone, Copy, Default)]
pub(super) struct Kind {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// The latest entries of a journal about one neighbour.
#[derive(Clone, Copy, Default)]
pub(super) struct Neighbour {
    /// The neighbour's boot id, and the position in the neighbour's feed up to which this server
    /// has received the records.
    pub(super) received: Option<(BootId, u64)>,
    /// The position in the neighbour's last `Confirmed` entry. This server had sent this position,
    /// a position in its own feed, to the neighbour in a `SYNC`.
    pub(super) confirmed: Option<u64>,
}

/// The stamp of a record, which is a time of the client's clock: parsed, and as the text in the
/// journal.
pub(super) type Stamp = (PosixTime, String);

/// The counts of a journal's entries and damaged places.
pub(super) struct Census {
    /// The counts for each kind of entry, in the order of [`KIND_NAMES`].
    pub(super) kinds: [Kind; 6],
    pub(super) last_life: Option<BootId>,
    pub(super) last_seq: u64,
    /// The number of records that this version cannot parse.
    pub(super) unparsed: u64,
    pub(super) first_stamp: Option<Stamp>,
    pub(super) last_stamp: Option<Stamp>,
    /// The number of records for each server name in the `AT` lines. The name in a line is the name
    /// of the server that received the position from the client. At most `MAX_SHOWN_SERVERS` names
    /// are stored. Records with further names are not counted here.
    pub(super) records_by_server: BTreeMap<Vec<u8>, u64>,
    pub(super) neighbours: BTreeMap<Vec<u8>, Neighbour>,
    pub(super) damage: Damage,
    pub(super) tail: Tail,
    /// The number of zeros at the end of the file: the space that is reserved for new entries.
    /// These zeros follow the last entry, or the `tail.torn_bytes` bytes of a torn entry.
    pub(super) reserved: u64,
}

/// The damaged places of a journal. A damaged place (a *gap*) is a range of bytes that is not an
/// entry, with good entries after it.
#[derive(Default)]
pub(super) struct Damage {
    /// The start and the end of each gap, as offsets in the file. At most `MAX_SHOWN_GAPS` gaps are
    /// stored.
    pub(super) gaps: Vec<(u64, u64)>,
    pub(super) count: u64,
    pub(super) bytes: u64,
    /// The number of good entries after the first damaged place.
    pub(super) entries_after_first_gap: u64,
    /// Decides whether the server would refuse the journal at its start. `None` before the first
    /// call of [`Damage::observe`].
    pub(super) detector: Option<DamageDetector>,
}

impl Damage {
    /// Adds the next piece of the journal to the counts, and passes the piece to `detector`.
    pub(super) fn observe(&mut self, piece: &Piece<'_>) {
        let detector = self
            .detector
            .get_or_insert_with(|| DamageDetector::new(machine_boot_id()));
        detector.observe(piece);
        match piece {
            Piece::Gap { offset, end } => {
                self.count += 1;
                self.bytes += end - offset;
                if self.gaps.len() < MAX_SHOWN_GAPS {
                    self.gaps.push((*offset, *end));
                }
            }
            Piece::Entry { .. } if self.count > 0 => self.entries_after_first_gap += 1,
            Piece::Entry { .. } => {}
        }
    }

    /// Whether the server would refuse the journal at its start. If not, the server cuts off
    /// everything from the first damaged place on.
    pub(super) fn is_refused(&self) -> bool {
        self.detector
            .is_some_and(|detector| detector.check().is_err())
    }

    /// Formats each listed gap as a line. If there are more gaps, adds a line with their number.
    pub(super) fn lines(&self) -> String {
        let mut text = String::new();
        for (offset, end) in &self.gaps {
            text += &format!(
                "  damaged       bytes {offset} to {end} ({} bytes)\n",
                end - offset
            );
        }
        let more = self.count - self.gaps.len() as u64;
        if more > 0 {
            text += &format!("  damaged       {more} more places\n");
        }
        text
    }
}

impl Census {
    /// Reads the whole journal and returns the counts. Also calls `on_piece` with each piece.
    pub(super) fn take(
        journal: &Journal,
        mut on_piece: impl FnMut(&Piece<'_>),
    ) -> Result<Census, Failure> {
        let mut census = Census {
            kinds: [Kind::default(); 6],
            last_life: None,
            last_seq: 0,
            unparsed: 0,
            first_stamp: None,
            last_stamp: None,
            records_by_server: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            damage: Damage::default(),
            tail: Tail {
                offset: 0,
                torn_bytes: 0,
            },
            reserved: 0,
        };
        let tail = journal.read(&Stop::default(), |piece| {
            census.damage.observe(&piece);
            if let Piece::Entry { bytes, entry, .. } = &piece {
                census.entry(entry, *bytes as u64);
            }
            on_piece(&piece);
            Ok(())
        })?;
        census.tail = tail;
        let end = tail.offset + tail.torn_bytes;
        census.reserved = journal.length().saturating_sub(end);
        Ok(census)
    }

    pub(super) fn entries(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.entries).sum()
    }

    pub(super) fn records(&self) -> u64 {
        self.kinds[2].entries + self.kinds[3].entries
    }

    pub(super) fn lives(&self) -> u64 {
        self.kinds[0].entries
    }

    fn entry(&mut self, entry: &Entry<'_>, bytes: u64) {
        let kind = match *entry {
            Entry::Life { boot, .. } => {
                self.last_life = Some(boot);
                0
            }
            Entry::Synced { .. } => 1,
            Entry::Record { seq, epoch, line } => {
                self.last_seq = self.last_seq.max(seq);
                self.record(line);
                if epoch == 0 { 2 } else { 3 }
            }
            Entry::Received {
                neighbour,
                boot,
                position,
            } => {
                if let Some(neighbour) = self.neighbour(neighbour) {
                    neighbour.received = Some((boot, position));
                }
                4
            }
            Entry::Confirmed {
                neighbour,
                position,
            } => {
                if let Some(neighbour) = self.neighbour(neighbour) {
                    neighbour.confirmed = Some(position);
                }
                5
            }
        };
        self.kinds[kind].entries += 1;
        self.kinds[kind].bytes += bytes;
    }

    fn neighbour(&mut self, name: &[u8]) -> Option<&mut Neighbour> {
        if !self.neighbours.contains_key(name) {
            if self.neighbours.len() >= MAX_SHOWN_SERVERS {
                return None;
            }
            self.neighbours
                .insert(name.to_owned(), Neighbour::default());
        }
        self.neighbours.get_mut(name)
    }

    fn record(&mut self, line: &[u8]) {
        let Some(at) = At::parse(line) else {
            self.unparsed += 1;
            return;
        };
        if let Some(records) = self.records_by_server.get_mut(at.server) {
            *records += 1;
        } else if self.records_by_server.len() < MAX_SHOWN_SERVERS {
            self.records_by_server.insert(at.server.to_owned(), 1);
        }
        let stamp = || (at.stamp, time_of(line));
        if self
            .first_stamp
            .as_ref()
            .is_none_or(|(first, _)| at.stamp < *first)
        {
            self.first_stamp = Some(stamp());
        }
        if self
            .last_stamp
            .as_ref()
            .is_none_or(|(last, _)| at.stamp > *last)
        {
            self.last_stamp = Some(stamp());
        }
    }
}

/// Returns the time in an `AT` line, as text.
pub(super) fn time_of(line: &[u8]) -> String {
    let last = line.rsplit(|byte| *byte == b' ').next().unwrap_or(line);
    String::from_utf8_lossy(last).into_owned()
}

/// Formats a number of entries: `1 entry`, `2 entries`.
pub(super) fn entries(count: u64) -> String {
    match count {
        1 => "1 entry".to_owned(),
        _ => format!("{count} entries"),
    }
}

/// Returns the number of a format, as the header of a journal contains it.
pub(super) fn format_number(format: Format) -> u8 {
    match format {
        Format::One => 1,
        Format::Two(_) => 2,
    }
}
