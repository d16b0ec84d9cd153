//! `herd-journal export`: writes the newest position of each client, for import elsewhere.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::cli::{Export, ExportFormat};
use super::positions::{Positions, warn_if_damaged};
use super::show::record_in_json;
use super::sink::{Sink, Stop};
use super::source::Journal;
use super::{DAMAGED, Failure, WHOLE, report};
use crate::core::wire::message::At;

pub(super) fn run(options: &Export) -> Result<u8, Failure> {
    let journal = Journal::open(&options.journal)?;
    let is_same = match (fs::metadata(&options.output), journal.file.metadata()) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        (_, _) => false,
    };
    if is_same {
        return Err(Failure::new(format_args!(
            "{} is the journal itself; name another file",
            options.output.display()
        )));
    }
    let stop = match options.output.as_os_str() == "-" {
        true => Stop::default(),
        false => Stop::catch()?,
    };
    let (positions, damage) = Positions::read(&journal, &stop, |_| true)?;
    let mut sink = Sink::open(&options.output)?;
    let mut left_out = 0;
    positions.for_each(|seq, epoch, line| {
        stop.check()?;
        match options.format {
            ExportFormat::Json => match record_in_json(seq, epoch, line) {
                Some(text) => sink.write(format!("{text}\n").as_bytes()),
                None => Ok(()),
            },
            ExportFormat::Iamat => match At::parse(line) {
                // A tombstone cannot be exported: no command of the client protocol forgets a
                // client.
                Some(at) if at.is_tombstone() => {
                    left_out += 1;
                    Ok(())
                }
                Some(at) => {
                    sink.write(b"IAMAT ")?;
                    sink.write(&line[at.client_offset..])?;
                    sink.write(b"\n")
                }
                None => Ok(()),
            },
        }
    })?;
    sink.finish()?;
    if left_out > 0 {
        report(format_args!(
            "{} forgotten, and left out",
            match left_out {
                1 => "1 client was".to_owned(),
                _ => format!("{left_out} clients were"),
            }
        ));
    }
    Ok(match warn_if_damaged(&journal, &damage) {
        true => DAMAGED,
        false => WHOLE,
    })
}
