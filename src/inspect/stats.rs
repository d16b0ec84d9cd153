//! `herd-journal stats`: counts the contents of a journal.

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::census::{Census, KIND_NAMES, Stamp, format_number};
use super::cli::Stats;
use super::positions::{Positions, warn_if_damaged};
use super::source::Journal;
use super::{DAMAGED, Failure, WHOLE, print_text};
use crate::core::journal::durability::journal_bytes;
use crate::core::journal::format::{Entry, header_bytes};
use crate::core::wire::escape::Escaped;

/// The maximum number of `Life` entries that a compaction keeps. It must be equal to `MAX_LIVES` of
/// the server.
const LIVES_KEPT: u64 = 64;

const RFC_3339: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

/// The number of clients whose newest record is a position, and of clients whose newest record is a
/// tombstone.
struct Clients {
    with_position: u64,
    forgotten: u64,
}

pub(super) fn run(options: &Stats) -> Result<u8, Failure> {
    let journal = Journal::open(&options.journal)?;
    let mut positions = Positions::new();
    let census = Census::take(&journal, |piece| positions.add(piece))?;
    let clients = Clients {
        with_position: positions.records.positions() as u64,
        forgotten: positions.records.tombstones() as u64,
    };
    let compacted = compacted_bytes(&journal, &census, &positions);
    print_text(&match options.json {
        true => format!("{}\n", in_json(&journal, &census, &clients, compacted)),
        false => in_words(&journal, &census, &clients, compacted),
    })?;
    Ok(match warn_if_damaged(&journal, &census.damage) {
        true => DAMAGED,
        false => WHOLE,
    })
}

/// Estimates the size of the journal after a compaction, in bytes.
fn compacted_bytes(journal: &Journal, census: &Census, positions: &Positions) -> u64 {
    let Some(head) = &journal.head else {
        return 0;
    };
    let lives = census.lives().min(LIVES_KEPT) * Entry::life_bytes() as u64;
    let neighbours = census.neighbours.keys();
    let neighbours: usize = neighbours
        .map(|name| 2 * Entry::position_bytes(name.len()))
        .sum();
    let header = header_bytes(&head.server);
    lives + (header + neighbours) as u64 + journal_bytes(&positions.records)
}

/// Returns by how many percent a compaction would make the journal smaller.
fn saved_percent(census: &Census, compacted: u64) -> u64 {
    let bytes = census.tail.offset.max(1);
    100 - (compacted.min(bytes) * 100).div_ceil(bytes)
}

/// Formats a stamp: its text, and the same time as a date in parentheses, if the time has a date.
fn stamp_text((_, text): &Stamp) -> String {
    let seconds = text.split('.').next().unwrap_or_default();
    let date = seconds
        .parse()
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(RFC_3339).ok());
    match date {
        Some(date) => format!("{text} ({date})"),
        None => text.clone(),
    }
}

fn in_words(journal: &Journal, census: &Census, clients: &Clients, compacted: u64) -> String {
    let mut text = format!("{}\n", journal.path.display());
    if let Some(head) = &journal.head {
        text += &format!(
            "  server        {}, format {}\n",
            head.server,
            format_number(head.format)
        );
    }
    text += &format!("  clients       {}\n", clients.with_position);
    if clients.forgotten > 0 {
        text += &format!("  forgotten     {}\n", clients.forgotten);
    }
    text += &format!(
        "  bytes         {}; a compaction leaves about {compacted} ({} % less)\n",
        census.tail.offset,
        saved_percent(census, compacted)
    );
    if let (Some(first), Some(last)) = (&census.first_stamp, &census.last_stamp) {
        text += &format!("  first stamp   {}\n", stamp_text(first));
        text += &format!("  last stamp    {}\n", stamp_text(last));
    }
    text += &format!("\n  {:<24} {:>12} {:>14}\n", "entries", "number", "bytes");
    for (name, kind) in KIND_NAMES.iter().zip(&census.kinds) {
        text += &format!("  {name:<24} {:>12} {:>14}\n", kind.entries, kind.bytes);
    }
    if !census.records_by_server.is_empty() {
        text += &format!("\n  {:<24} {:>12}\n", "heard by", "records");
    }
    for (server, records) in &census.records_by_server {
        text += &format!("  {:<24} {records:>12}\n", Escaped(server).to_string());
    }
    if !census.neighbours.is_empty() {
        text += &format!(
            "\n  {:<24} {:>12} {:>14}\n",
            "neighbour", "heard up to", "told up to"
        );
    }
    for (name, neighbour) in &census.neighbours {
        let received = neighbour
            .received
            .map_or("-".to_owned(), |(_, at)| at.to_string());
        let confirmed = neighbour
            .confirmed
            .map_or("-".to_owned(), |at| at.to_string());
        text += &format!(
            "  {:<24} {received:>12} {confirmed:>14}\n",
            Escaped(name).to_string()
        );
    }
    text
}

fn in_json(
    journal: &Journal,
    census: &Census,
    clients: &Clients,
    compacted: u64,
) -> serde_json::Value {
    let kinds: serde_json::Map<_, _> = KIND_NAMES
        .iter()
        .zip(&census.kinds)
        .map(|(name, kind)| {
            let kind = json!({"entries": kind.entries, "bytes": kind.bytes});
            (name.replace(' ', "_"), kind)
        })
        .collect();
    let servers: serde_json::Map<_, _> = census
        .records_by_server
        .iter()
        .map(|(name, records)| (Escaped(name).to_string(), json!(records)))
        .collect();
    let neighbours: serde_json::Map<_, _> = census
        .neighbours
        .iter()
        .map(|(name, neighbour)| {
            let received = neighbour.received.map(|(_, position)| position);
            let positions = json!({"heard_up_to": received, "told_up_to": neighbour.confirmed});
            (Escaped(name).to_string(), positions)
        })
        .collect();
    let text = |stamp: &Option<Stamp>| stamp.as_ref().map(|(_, text)| text.clone());
    json!({
        "file": journal.path.to_string_lossy(),
        "server": journal.head.as_ref().map(|head| &head.server),
        "format": journal.head.as_ref().map(|head| format_number(head.format)),
        "clients": clients.with_position,
        "forgotten": clients.forgotten,
        "bytes": census.tail.offset,
        "compacted_bytes": compacted,
        "first_stamp": text(&census.first_stamp),
        "last_stamp": text(&census.last_stamp),
        "entries": kinds,
        "heard_by": servers,
        "neighbours": neighbours,
    })
}
