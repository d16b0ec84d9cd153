//! Formats an entry as a line of text or of JSON.

use std::fmt::Write as _;

use crate::core::journal::format::{Entry, Piece};
use crate::core::wire::escape::Escaped;
use crate::core::wire::json::{self, string};
use crate::core::wire::message::At;

/// Formats a record as a JSON object. Returns `None` if the line is not a valid `AT` line. See
/// [`json::write_record`].
pub(super) fn record_in_json(seq: u64, epoch: u32, line: &[u8]) -> Option<String> {
    let at = At::parse(line)?;
    let mut text = "{".to_owned();
    json::write_record(&mut text, epoch, line, &at)?;
    let _ = write!(text, ",\"change\":{seq}}}"); // writing to memory cannot fail
    Some(text)
}

/// Whether a line is a tombstone, the record of a client that an operator has forgotten.
pub(super) fn is_tombstone(line: &[u8]) -> bool {
    At::parse(line).is_some_and(|at| at.is_tombstone())
}

/// Formats any piece of a journal as a line of text.
pub(super) fn piece_in_words(piece: &Piece<'_>) -> String {
    let (offset, what) = match piece {
        Piece::Gap { offset, end } => (
            offset,
            format!("damaged  {} bytes, up to {end}", end - offset),
        ),
        Piece::Entry { offset, entry, .. } => (
            offset,
            match *entry {
                Entry::Life {
                    boot,
                    last_seq_before,
                    machine,
                } => {
                    format!(
                        "life     {boot} after change {last_seq_before}, on the machine {machine:016x}"
                    )
                }
                Entry::Synced { offset } => format!("synced   up to byte {offset}"),
                Entry::Record { seq, epoch, line } => {
                    let kind = match is_tombstone(line) {
                        true => "forgot  ",
                        false => "record  ",
                    };
                    match epoch {
                        0 => format!("{kind} {seq} {}", Escaped(line)),
                        _ => format!("{kind} {seq} EPOCH {epoch} {}", Escaped(line)),
                    }
                }
                Entry::Received {
                    neighbour,
                    boot,
                    position,
                } => format!(
                    "heard    {} in its life {boot} up to change {position}",
                    Escaped(neighbour)
                ),
                Entry::Confirmed {
                    neighbour,
                    position,
                } => format!("told     {} up to change {position}", Escaped(neighbour)),
            },
        ),
    };
    format!("{offset:>12}  {what}\n")
}

/// Formats any piece of a journal as a JSON object on one line.
pub(super) fn piece_in_json(piece: &Piece<'_>) -> String {
    match *piece {
        Piece::Gap { offset, end } => format!(
            "{{\"offset\":{offset},\"kind\":\"damaged\",\"bytes\":{}}}\n",
            end - offset
        ),
        Piece::Entry {
            offset,
            bytes,
            entry,
        } => {
            let what = match entry {
                Entry::Life {
                    boot,
                    last_seq_before,
                    machine,
                } => format!(
                    "\"life\",\"boot\":\"{boot}\",\"after\":{last_seq_before},\"machine\":\"{machine:016x}\""
                ),
                Entry::Synced { offset } => format!("\"synced\",\"up_to\":{offset}"),
                Entry::Record { seq, epoch, line } => match record_in_json(seq, epoch, line) {
                    Some(record) => format!("\"record\",\"record\":{record}"),
                    None => format!("\"record\",\"change\":{seq},\"line\":{}", string(line)),
                },
                Entry::Received {
                    neighbour,
                    boot,
                    position,
                } => format!(
                    "\"heard\",\"neighbour\":{},\"boot\":\"{boot}\",\"change\":{position}",
                    string(neighbour)
                ),
                Entry::Confirmed {
                    neighbour,
                    position,
                } => format!(
                    "\"told\",\"neighbour\":{},\"change\":{position}",
                    string(neighbour)
                ),
            };
            format!("{{\"offset\":{offset},\"bytes\":{bytes},\"kind\":{what}}}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_shown_in_exact_and_escaped_json() {
        let line =
            b"AT Riley -0.000000001 \xffki\xc2\x9bwi\" +034.50-118.445127 1621464827.959498503";
        let text = record_in_json(7, 2, line).unwrap();
        assert_eq!(
            text,
            "{\"client\":\"\u{fffd}ki\\u009bwi\\\"\",\"client_hex\":\"ff6b69c29b776922\",\"latitude\":34.50,\"longitude\":-118.445127,\
             \"time\":\"1621464827.959498503\",\"server\":\"Riley\",\"skew\":\"-0.000000001\",\"epoch\":2,\"change\":7}"
        );
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        let tombstone = record_in_json(7, 0, b"AT Riley +9.000000000 kiwi - 5").unwrap();
        assert_eq!(
            tombstone,
            "{\"client\":\"kiwi\",\"forgotten\":true,\"time\":\"5\",\"server\":\"Riley\",\
             \"skew\":\"+9.000000000\",\"epoch\":0,\"change\":7}"
        );
        assert_eq!(record_in_json(1, 0, b"AT what is this"), None);
    }
}
