//! `herd-journal verify`: checks whether a journal is whole, and reports what its server would do
//! with the journal at the next start.

use std::fmt;
use std::path::Path;

use serde_json::json;

use super::census::{Census, entries, format_number};
use super::cli::Verify;
use super::source::Journal;
use super::{DAMAGED, FAILED, Failure, WHOLE, print_text, report};
use crate::core::base::counted::Counted;
use crate::core::journal::format::Format;

/// If the torn end of a journal (bytes that are not an entry, without entries after them) is longer
/// than this, a crash is not the cause, and the report says so. By default, the server reserves
/// only 4 MiB ahead (`limits.journal_ahead_bytes`), so an interrupted write leaves a shorter torn
/// end.
const CRASH_BYTES: u64 = 16 << 20;

pub(super) fn run(options: &Verify) -> Result<u8, Failure> {
    let mut worst = WHOLE;
    for path in &options.journals {
        worst = worst.max(match verify(path, options.json) {
            Ok(status) => status,
            Err(Failure::Error(status, what)) => {
                report(&what);
                if options.json {
                    let state = match status {
                        DAMAGED => "damaged",
                        _ => "unreadable",
                    };
                    let file = path.to_string_lossy();
                    print_text(&format!(
                        "{}\n",
                        json!({"file": file, "state": state, "error": what})
                    ))?;
                }
                status
            }
            Err(other) => return Err(other),
        });
    }
    Ok(worst.min(FAILED))
}

fn verify(path: &Path, as_json: bool) -> Result<u8, Failure> {
    let journal = Journal::open(path)?;
    let census = Census::take(&journal, |_| ())?;
    let state = State::of(&journal, &census);
    match as_json {
        true => print_text(&format!("{}\n", in_json(&journal, &census, state)))?,
        false => print_text(&in_words(&journal, &census, state))?,
    }
    Ok(state.status())
}

/// The state of a journal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The journal has no header yet.
    Empty,
    Whole,
    /// Whole, except for an incomplete end, as after a crash.
    Torn,
    Damaged,
}

impl State {
    fn of(journal: &Journal, census: &Census) -> State {
        let Some(head) = &journal.head else {
            return State::Empty;
        };
        if head.is_header_repaired || census.damage.count > 0 {
            State::Damaged
        } else if census.tail.torn_bytes > 0 {
            State::Torn
        } else {
            State::Whole
        }
    }

    fn status(self) -> u8 {
        match self {
            State::Empty | State::Whole | State::Torn => WHOLE,
            State::Damaged => DAMAGED,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Empty => "empty",
            State::Whole => "whole",
            State::Torn => "torn at its end",
            State::Damaged => "damaged",
        })
    }
}

/// Describes what the server would do with the journal at its next start.
fn describe_start(journal: &Journal, census: &Census) -> String {
    let Some(head) = &journal.head else {
        return "begins a new journal".to_owned();
    };
    let damage = &census.damage;
    if head.is_header_repaired {
        return "refuses it, because of its header; herd-journal repair mends that".to_owned();
    }
    if damage.is_refused() {
        return "refuses it; put a good copy in its place, or let herd-journal repair take out what is damaged".to_owned();
    }
    match (damage.count, census.tail.torn_bytes, head.format) {
        (1.., _, _) => format!(
            "takes it for what a loss of power left, and cuts off everything from the damaged place on, {} that are good among it; herd-journal repair keeps them",
            entries(damage.entries_after_first_gap)
        ),
        (0, 1.., _) => "cuts the torn end off, and reads the rest".to_owned(),
        (0, 0, Format::One) => "reads it, and writes it anew in format 2".to_owned(),
        (0, 0, Format::Two(_)) => "reads all of it".to_owned(),
    }
}

fn in_words(journal: &Journal, census: &Census, state: State) -> String {
    let mut text = format!("{}: {state}\n", journal.path.display());
    let Some(head) = &journal.head else {
        text += "  bytes         none is written; if there was a journal here, it is lost\n";
        text += &format!("  a start       {}\n", describe_start(journal, census));
        return text;
    };
    text += &format!(
        "  server        {}\n  format        {}\n",
        head.server,
        format_number(head.format)
    );
    text += &match census.last_life {
        Some(boot) => format!("  lives         {}, the last is {boot}\n", census.lives()),
        None => "  lives         none\n".to_owned(),
    };
    text += &format!(
        "  entries       {}, {} of them records; the last change is number {}\n  bytes         {}",
        census.entries(),
        census.records(),
        census.last_seq,
        census.tail.offset,
    );
    match census.reserved {
        0 => text += "\n",
        reserved => text += &format!(", and {reserved} of reserved room\n"),
    }
    if census.unparsed > 0 {
        text += &format!(
            "  not read      {} that this version does not understand\n",
            Counted(census.unparsed, "record")
        );
    }
    if head.is_header_repaired {
        text += &format!("  damaged       in the header, bytes 0 to {}\n", head.bytes);
    }
    text += &census.damage.lines();
    if census.tail.torn_bytes > 0 {
        let from = census.tail.offset;
        let how = match census.tail.torn_bytes > CRASH_BYTES {
            true => "more than a crash leaves: there were entries in it",
            false => "as a crash leaves it",
        };
        text += &format!(
            "  torn          bytes {from} to {} ({} bytes), {how}\n",
            from + census.tail.torn_bytes,
            census.tail.torn_bytes
        );
    }
    text += &format!("  a start       {}\n", describe_start(journal, census));
    text
}

fn in_json(journal: &Journal, census: &Census, state: State) -> serde_json::Value {
    let places: Vec<_> = census
        .damage
        .gaps
        .iter()
        .map(|(offset, end)| json!({"offset": offset, "bytes": end - offset}))
        .collect();
    let head = journal.head.as_ref();
    json!({
        "file": journal.path.to_string_lossy(),
        "state": match state {
            State::Empty => "empty",
            State::Whole => "whole",
            State::Torn => "torn",
            State::Damaged => "damaged",
        },
        "server": head.map(|head| &head.server),
        "format": head.map(|head| format_number(head.format)),
        "header_damaged": head.is_some_and(|head| head.is_header_repaired),
        "lives": census.lives(),
        "last_life": census.last_life.map(|boot| boot.to_string()),
        "entries": census.entries(),
        "records": census.records(),
        "last_change": census.last_seq,
        "bytes": census.tail.offset,
        "reserved_bytes": census.reserved,
        "damaged": places,
        "damaged_places": census.damage.count,
        "damaged_bytes": census.damage.bytes,
        "torn_bytes": census.tail.torn_bytes,
        "start": describe_start(journal, census),
    })
}
