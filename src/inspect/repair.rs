//! `herd-journal repair`: removes damaged places, and keeps every entry whose checksum is right.
//!
//! Without its end, a journal is still a state that the server once had. So the server itself can
//! cut off a damaged end when it starts.
//!
//! Without an entry from its middle, a journal is a state that the server never had. For example,
//! the lost entry can be a record from a neighbour. A later entry still says that this server has
//! received all records of that neighbour up to a certain change. So the neighbour would not send
//! the lost record again.
//!
//! So if a place was damaged, the repaired journal has no entries about the server's lives (a life
//! begins at each start) and about neighbours. The server then starts like a new server: it sends
//! all its records to every neighbour, and requests all records from every neighbour.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};

use super::census::{Damage, entries};
use super::cli::Repair;
use super::sink::{NewFile, Stop, SyncedFile, sync_directory, unwritable};
use super::source::{Journal, JournalHeader};
use super::{Failure, WHOLE, print_text};
use crate::core::journal::format::{
    Entry, Format, Piece, Replay, Salt, Tail, header, write_checksums,
};
use crate::shell::disk::machine_boot_id;

/// Entries are gathered in memory, and written to the file in pieces of about this many bytes.
const PIECE_BYTES: usize = 256 << 10;

pub(super) fn run(options: &Repair) -> Result<u8, Failure> {
    let stop = Stop::catch()?;
    let (journal, _lock) = Journal::open_alone(&options.journal)?;
    let Some(head) = &journal.head else {
        let path = journal.path.display();
        print_text(&format!(
            "{path}: nothing is written in it; there is nothing to repair\n"
        ))?;
        return Ok(WHOLE);
    };
    let mut damage = Damage::default();
    let tail = journal.read(&stop, |piece| {
        damage.observe(&piece);
        Ok(())
    })?;
    let target = match &options.output {
        Some(output) => output.clone(),
        None => {
            fs::canonicalize(&journal.path).map_err(|error| unwritable(&journal.path, &error))?
        }
    };
    if options.output.is_some() && fs::symlink_metadata(&target).is_ok() {
        return Err(Failure::new(format_args!(
            "{} is there already; name a new file",
            target.display()
        )));
    }
    let is_whole = damage.count == 0 && tail.torn_bytes == 0 && !head.is_header_repaired;
    if options.in_place && is_whole && matches!(head.format, Format::Two(_)) {
        let path = journal.path.display();
        print_text(&format!("{path}: whole; there is nothing to repair\n"))?;
        return Ok(WHOLE);
    }
    let (synced_file, counts) = write(&journal, head, &target, damage.count > 0, &stop)?;
    let backup = match options.in_place {
        true => Some(replace_target(synced_file)?),
        false => {
            give_name(synced_file)?;
            None
        }
    };
    print_text(&summary(
        &journal, head, &damage, tail, &counts, &target, backup,
    ))?;
    Ok(WHOLE)
}

/// Counts of what is in the repaired journal.
#[derive(Default)]
struct RepairCounts {
    entries: u64,
    records: u64,
    bytes: u64,
    /// The number of entries about lives and neighbours that were not copied to the repaired
    /// journal.
    left_out: u64,
}

/// Writes the entries that are kept to a new file, syncs the file, and reads it again to check it.
/// `drops_lives`: leaves out the entries about lives and neighbours.
fn write(
    journal: &Journal,
    head: &JournalHeader,
    target: &Path,
    drops_lives: bool,
    stop: &Stop,
) -> Result<(SyncedFile, RepairCounts), Failure> {
    let salt = new_salt()?;
    let mut file = NewFile::create(target)?;
    file.copy_owner_and_mode(&journal.file)?;
    let header = header(&head.server, salt);
    file.write(&header)?;
    let mut offset = header.len() as u64;
    let mut counts = RepairCounts::default();
    let mut piece_bytes = Vec::with_capacity(PIECE_BYTES * 2);
    journal.read(stop, |piece| {
        let Piece::Entry { entry, .. } = piece else {
            return Ok(());
        };
        match entry {
            Entry::Record { .. } => counts.records += 1,
            // The offset in this entry is valid only in the old file.
            Entry::Synced { .. } => return Ok(()),
            Entry::Life { .. } | Entry::Received { .. } | Entry::Confirmed { .. }
                if drops_lives =>
            {
                counts.left_out += 1;
                return Ok(());
            }
            Entry::Life { .. } | Entry::Received { .. } | Entry::Confirmed { .. } => {}
        }
        counts.entries += 1;
        entry.write(&mut piece_bytes);
        if piece_bytes.len() >= PIECE_BYTES {
            flush(&mut file, &mut piece_bytes, salt, &mut offset)?;
        }
        Ok(())
    })?;
    flush(&mut file, &mut piece_bytes, salt, &mut offset)?;
    // This entry says that all bytes before the entry are synced. The file is synced before it gets
    // its final name, so what the entry says is true. Because of the entry, a later gap in these
    // bytes counts as damage, and not as the result of a loss of power.
    Entry::Synced { offset }.write(&mut piece_bytes);
    flush(&mut file, &mut piece_bytes, salt, &mut offset)?;
    counts.bytes = offset;
    let synced_file = file.sync()?;
    check(&synced_file, &head.server, counts.entries + 1)?;
    Ok((synced_file, counts))
}

fn flush(
    file: &mut NewFile,
    bytes: &mut Vec<u8>,
    salt: Salt,
    offset: &mut u64,
) -> Result<(), Failure> {
    write_checksums(bytes, salt, *offset);
    file.write(bytes)?;
    *offset += bytes.len() as u64;
    bytes.clear();
    Ok(())
}

fn new_salt() -> Result<Salt, Failure> {
    let mut bytes = [0; 8];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => Ok(Salt(u64::from_le_bytes(bytes))),
        Err(_) => Err(Failure::new("the system has no random numbers")),
    }
}

/// Reads the new file in the same way as the server does when it starts, and checks that the file
/// has `entries` entries.
fn check(synced_file: &SyncedFile, server: &str, entries: u64) -> Result<(), Failure> {
    use std::io::Read;
    let failed = |what: String| {
        Failure::new(format_args!(
            "{} cannot be read back: {what}; is the disk broken?",
            synced_file.part.display()
        ))
    };
    let mut file = fs::File::open(&synced_file.part).map_err(|error| failed(error.to_string()))?;
    let mut replay = Replay::new(server, machine_boot_id());
    let mut found = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => replay
                .data_received(&buffer[..count], |_| found += 1)
                .map_err(|error| failed(error.to_string()))?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error.to_string())),
        }
    }
    let end = replay.finish().map_err(|error| failed(error.to_string()))?;
    match end.torn_bytes == 0 && found == entries {
        true => Ok(()),
        false => Err(failed(format!("{found} of {entries} entries are there"))),
    }
}

/// Gives the new file its final name. Fails if another file already has this name (not if the file
/// system has no hard links).
fn give_name(synced_file: SyncedFile) -> Result<(), Failure> {
    let named = match fs::hard_link(&synced_file.part, &synced_file.target) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(error),
        // The file system may have no hard links. Then the file is renamed. A rename is only the
        // second choice, because it would replace another file of that name.
        Err(_) => fs::rename(&synced_file.part, &synced_file.target),
    };
    named.map_err(|error| unwritable(&synced_file.target, &error))?;
    sync_directory(&synced_file.target)
}

/// Gives the journal's name to the new file, and a backup name to the old one. Returns the backup
/// name. If the file system has hard links, the journal's name exists at every moment.
fn replace_target(synced_file: SyncedFile) -> Result<PathBuf, Failure> {
    let backup = free_name(&synced_file.target)?;
    if fs::hard_link(&synced_file.target, &backup).is_err() {
        fs::rename(&synced_file.target, &backup).map_err(|error| unwritable(&backup, &error))?;
    }
    // The backup's name must survive a crash before the old file loses the journal's name.
    sync_directory(&synced_file.target)?;
    fs::rename(&synced_file.part, &synced_file.target)
        .map_err(|error| unwritable(&synced_file.target, &error))?;
    sync_directory(&synced_file.target)?;
    Ok(backup)
}

fn free_name(journal: &Path) -> Result<PathBuf, Failure> {
    for number in 1..=1_000 {
        let mut name = journal.as_os_str().to_owned();
        name.push(".damaged");
        if number > 1 {
            name.push(format!(".{number}"));
        }
        let path = PathBuf::from(name);
        if fs::symlink_metadata(&path).is_err() {
            return Ok(path);
        }
    }
    Err(Failure::new(format_args!(
        "there are a thousand damaged journals beside {}; remove some",
        journal.display()
    )))
}

fn summary(
    journal: &Journal,
    head: &JournalHeader,
    damage: &Damage,
    tail: Tail,
    counts: &RepairCounts,
    target: &Path,
    backup: Option<PathBuf>,
) -> String {
    let mut text = format!("{}: repaired\n", journal.path.display());
    if head.is_header_repaired {
        text += &format!("  mended        the header, bytes 0 to {}\n", head.bytes);
    }
    text += &damage.lines().replace("damaged  ", "taken out");
    if tail.torn_bytes > 0 {
        text += &format!(
            "  cut off       bytes {} to {} ({} bytes), the torn end\n",
            tail.offset,
            tail.offset + tail.torn_bytes,
            tail.torn_bytes
        );
    }
    text += &format!(
        "  kept          {}, {} of them records\n  written       {} ({} bytes)\n",
        entries(counts.entries),
        counts.records,
        target.display(),
        counts.bytes
    );
    if damage.count > 0 {
        text += &format!(
            "  new life      what it said of lives and neighbours is left out ({}): at its start {} sends every neighbour everything, and asks for everything; a position that was lost here and nowhere else is gone, or back at an older one\n",
            entries(counts.left_out),
            head.server
        );
        if head.format == Format::One {
            text += "  format 1      has no salt: what was found behind the damage may have been made up by a client\n";
        }
    }
    text += &match backup {
        Some(backup) => format!(
            "  before        the damaged journal is {}; remove it when all is well\n",
            backup.display()
        ),
        None => format!(
            "  next          with {} stopped: mv {} {}\n",
            head.server,
            target.display(),
            journal.path.display()
        ),
    };
    text
}
