//! `herd-journal list`: the newest position of each client, or every entry in the order of the
//! file.

use std::os::unix::ffi::OsStrExt;

use super::cli::{List, ListFormat};
use super::positions::{Positions, warn_if_damaged};
use super::show::{is_tombstone, piece_in_json, piece_in_words, record_in_json};
use super::sink::{Sink, Stop};
use super::source::Journal;
use super::{DAMAGED, Failure, WHOLE};
use crate::core::journal::format::{Entry, Piece};
use crate::core::wire::escape::Escaped;
use crate::core::wire::message::At;
use crate::core::wire::posix_time::PosixTime;

/// The records to list: those of one client (`None`: all clients), and those with a stamp at or
/// after `since` (`None`: all stamps).
struct Filter<'a> {
    client: Option<&'a [u8]>,
    since: Option<PosixTime>,
}

impl Filter<'_> {
    fn shows(&self, at: &At<'_>) -> bool {
        self.client.is_none_or(|client| client == at.client)
            && self.since.is_none_or(|since| at.stamp >= since)
    }

    fn shows_everything(&self) -> bool {
        self.client.is_none() && self.since.is_none()
    }
}

pub(super) fn run(options: &List) -> Result<u8, Failure> {
    let since = match &options.since {
        None => None,
        Some(text) => Some(PosixTime::parse(text.trim().as_bytes()).ok_or_else(|| {
            Failure::new(format_args!(
                "--since wants POSIX seconds, such as 1621464827.5 or \"$(date -d yesterday +%s)\", and not {:?}; see herd-journal --help",
                text
            ))
        })?),
    };
    let filter = Filter {
        client: options.client.as_ref().map(|client| client.as_bytes()),
        since,
    };
    let journal = Journal::open(&options.journal)?;
    match options.all {
        true => every_entry(&journal, &filter, options.format),
        false => newest(&journal, &filter, options.format),
    }
}

fn newest(journal: &Journal, filter: &Filter<'_>, format: ListFormat) -> Result<u8, Failure> {
    // `--since` is checked only after the newest record of each client is found. If older stamps
    // were skipped while reading, an older record with a later stamp could be listed as the newest
    // one.
    let of_client = |at: &At<'_>| filter.client.is_none_or(|client| client == at.client);
    let (positions, damage) = Positions::read(journal, &Stop::default(), of_client)?;
    let mut sink = Sink::stdout();
    positions.for_each(|seq, epoch, line| {
        if !At::parse(line).is_some_and(|at| filter.shows(&at)) {
            return Ok(());
        }
        let text = match format {
            ListFormat::Text if is_tombstone(line) => {
                Some(format!("{} (forgotten)", Escaped(line)))
            }
            ListFormat::Text => Some(Escaped(line).to_string()),
            ListFormat::Json => record_in_json(seq, epoch, line),
        };
        match text {
            Some(text) => sink.write(format!("{text}\n").as_bytes()),
            None => Ok(()),
        }
    })?;
    sink.finish()?;
    Ok(match warn_if_damaged(journal, &damage) {
        true => DAMAGED,
        false => WHOLE,
    })
}

fn every_entry(journal: &Journal, filter: &Filter<'_>, format: ListFormat) -> Result<u8, Failure> {
    let mut sink = Sink::stdout();
    let mut damage = super::census::Damage::default();
    let tail = journal.read(&Stop::default(), |piece| {
        damage.observe(&piece);
        let is_shown = match &piece {
            Piece::Entry {
                entry: Entry::Record { line, .. },
                ..
            } => match At::parse(line) {
                Some(at) => filter.shows(&at),
                None => filter.shows_everything(),
            },
            Piece::Entry { .. } => filter.shows_everything(),
            Piece::Gap { .. } => true,
        };
        match (is_shown, format) {
            (false, _) => Ok(()),
            (true, ListFormat::Text) => sink.write(piece_in_words(&piece).as_bytes()),
            (true, ListFormat::Json) => sink.write(piece_in_json(&piece).as_bytes()),
        }
    })?;
    if tail.torn_bytes > 0 {
        let text = match format {
            ListFormat::Text => {
                format!("{:>12}  torn     {} bytes\n", tail.offset, tail.torn_bytes)
            }
            ListFormat::Json => format!(
                "{{\"offset\":{},\"kind\":\"torn\",\"bytes\":{}}}\n",
                tail.offset, tail.torn_bytes
            ),
        };
        sink.write(text.as_bytes())?;
    }
    sink.finish()?;
    Ok(match warn_if_damaged(journal, &damage) {
        true => DAMAGED,
        false => WHOLE,
    })
}
