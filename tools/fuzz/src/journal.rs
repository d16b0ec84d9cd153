//! The journal: what is read back of a file, however it was damaged, and what a server makes of it.

use arbitrary::{Arbitrary, Unstructured};
use herd_mio::core::base::boot_id::BootId;
use herd_mio::core::base::limits::LINK_LINE_BYTES;
use herd_mio::core::journal::durability::Fsync;
use herd_mio::core::journal::format::{
    End, Entry, Format, JournalError, MAX_ENTRY, Replay, Salt, header, header_of_format_1,
    write_checksums,
};
use herd_mio::core::node::Node;
use herd_testkit::fake_disk::FakeDisk;
use herd_testkit::promises;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::disk;
use crate::pieces::pieces;
use crate::server;

/// The salt of the files that are written here.
const SALT: Salt = Salt(0x5a17_5a17_5a17_5a17);
/// Bytes of the longest payload.
const MAX_PAYLOAD: usize = MAX_ENTRY - 12;
/// The highest sequence number that is restored: there is room behind it for all that a server could ever accept.
const MAX_SEQ: u64 = u64::MAX / 2;

/// Four bytes that say how, then a journal: as it stands, behind a good header of either format, or as entries and what happened to the
/// file since.
///
/// It has to be read as the format's documentation says, whatever the pieces it comes in: all entries before the first place that is no
/// entry, and then a torn tail or damage. Entries that were written come back, and no others. A server that starts with what could be
/// read, goes on, and is started again, knows in its second life what it knew in the first.
pub fn journal(data: &[u8]) {
    let Some(([how, cut, machine, fsync], rest)) = data.split_first_chunk() else {
        return;
    };
    // 0 is a machine that does not know whether it was started anew.
    let machine = u64::from(machine % 3);
    let file = match how % 4 {
        0 => rest.to_vec(),
        1 => [&header(server::NAME, SALT), rest].concat(),
        3 => [&header_of_format_1(server::NAME), rest].concat(),
        _ => match written(rest, machine) {
            Ok(file) => file,
            Err(_) => return,
        },
    };
    let expected = read(&file, machine);
    for cut in [*cut, u8::MAX] {
        assert_eq!(replay(&file, cut, machine), expected, "in pieces of {cut}");
    }
    if let (entries, Ok(end)) = expected {
        let fsync = match fsync % 3 {
            0 => Fsync::Always,
            1 => Fsync::Interval,
            _ => Fsync::Never,
        };
        live_on(file, &entries, end, machine, fsync);
    }
}

/// An [`Entry`] that owns its bytes.
#[derive(Arbitrary, Clone, Debug, PartialEq, Eq)]
enum Owned {
    Life {
        boot: u64,
        last_seq_before: u64,
        machine: u8,
    },
    Synced {
        offset: u16,
    },
    Record {
        seq: u64,
        epoch: u32,
        line: Vec<u8>,
    },
    /// A record as servers write it.
    Position {
        seq: u8,
        client: u8,
        time: u16,
        skew: i16,
    },
    Heard {
        neighbour: u8,
        boot: u64,
        position: u64,
    },
    Told {
        neighbour: u8,
        position: u64,
    },
}

/// Which of the names that is, or one past the last.
fn number_of(neighbour: &[u8]) -> u8 {
    let place = NAMES.iter().position(|name| name.as_bytes() == neighbour);
    place.unwrap_or(NAMES.len()) as u8
}

impl Owned {
    fn of(entry: Entry<'_>) -> Owned {
        match entry {
            Entry::Life {
                boot,
                last_seq_before,
                machine,
            } => Owned::Life {
                boot: boot.0,
                last_seq_before,
                machine: machine.min(255) as u8,
            },
            Entry::Synced { offset } => Owned::Synced {
                offset: offset.min(65_535) as u16,
            },
            Entry::Record { seq, epoch, line } => Owned::Record {
                seq,
                epoch,
                line: line.to_vec(),
            },
            Entry::Received {
                neighbour,
                boot,
                position,
            } => Owned::Heard {
                neighbour: number_of(neighbour),
                boot: boot.0,
                position,
            },
            Entry::Confirmed {
                neighbour,
                position,
            } => Owned::Told {
                neighbour: number_of(neighbour),
                position,
            },
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Owned::Life {
                boot,
                last_seq_before,
                machine,
            } => Entry::Life {
                boot: BootId(*boot),
                last_seq_before: *last_seq_before,
                machine: u64::from(*machine),
            }
            .write(out),
            Owned::Synced { offset } => Entry::Synced {
                offset: u64::from(*offset),
            }
            .write(out),
            Owned::Record { seq, epoch, line } => Entry::Record {
                seq: *seq,
                epoch: *epoch,
                line,
            }
            .write(out),
            Owned::Position { seq, .. } => Entry::Record {
                seq: u64::from(*seq),
                epoch: 0,
                line: self.line().as_bytes(),
            }
            .write(out),
            Owned::Heard {
                neighbour,
                boot,
                position,
            } => Entry::Received {
                neighbour: NAMES[usize::from(*neighbour) % NAMES.len()].as_bytes(),
                boot: BootId(*boot),
                position: *position,
            }
            .write(out),
            Owned::Told {
                neighbour,
                position,
            } => Entry::Confirmed {
                neighbour: NAMES[usize::from(*neighbour) % NAMES.len()].as_bytes(),
                position: *position,
            }
            .write(out),
        }
    }

    /// The line of a position.
    fn line(&self) -> String {
        match self {
            Owned::Position {
                client, time, skew, ..
            } => format!("AT Riley {skew:+}.000000000 c{client} +1-2.5 1621464{time:05}"),
            Owned::Life { .. }
            | Owned::Synced { .. }
            | Owned::Record { .. }
            | Owned::Heard { .. }
            | Owned::Told { .. } => String::new(),
        }
    }

    /// What comes back of it, if it is written.
    fn read_back(&self) -> Owned {
        match self {
            Owned::Position { seq, .. } => Owned::Record {
                seq: u64::from(*seq),
                epoch: 0,
                line: self.line().into_bytes(),
            },
            Owned::Heard {
                neighbour,
                boot,
                position,
            } => Owned::Heard {
                neighbour: neighbour % NAMES.len() as u8,
                boot: *boot,
                position: *position,
            },
            Owned::Told {
                neighbour,
                position,
            } => Owned::Told {
                neighbour: neighbour % NAMES.len() as u8,
                position: *position,
            },
            other => other.clone(),
        }
    }
}

/// Neighbours of the server, and one who is none.
const NAMES: [&str; 4] = ["Riley", "Bernard", "Campbell", "Nobody"];

/// What happens to a file that was good.
#[derive(Arbitrary, Debug)]
enum Fault {
    Nothing,
    /// It is cut off.
    Cut(u16),
    /// A range was never written.
    Hole(u16, u8),
    /// Bits are turned over.
    Flips(u16, [u8; 3]),
    /// Something stands behind it.
    Tail(Vec<u8>),
    /// Room was reserved, perhaps after a torn write.
    Reserved(u16, u8),
}

/// Entries, and what happened to them. What has to be read back of them is checked here.
fn written(input: &[u8], machine: u64) -> arbitrary::Result<Vec<u8>> {
    let mut input = Unstructured::new(input);
    let fault: Fault = input.arbitrary()?;
    let mut file = header(server::NAME, SALT);
    let mut starts = vec![file.len()];
    let mut entries = Vec::new();
    for entry in input.arbitrary_iter()? {
        let entry: Owned = entry?;
        if matches!(&entry, Owned::Record { line, .. } if line.len() > LINK_LINE_BYTES) {
            continue;
        }
        let start = file.len();
        entry.write(&mut file);
        write_checksums(&mut file[start..], SALT, start as u64);
        entries.push(entry.read_back());
        starts.push(file.len());
    }
    let good = file.clone();
    let (told, end) = replay(&good, u8::MAX, machine);
    assert_eq!(told, entries, "what was written is read back");
    let good_end = Ok(End {
        offset: good.len() as u64,
        torn_bytes: 0,
        format: Some(Format::Two(SALT)),
    });
    assert_eq!(end, good_end);

    let place = |at: u16| usize::from(at) % good.len();
    match fault {
        Fault::Nothing => {}
        Fault::Cut(at) => file.truncate(place(at)),
        Fault::Hole(at, length) => {
            let until = (place(at) + usize::from(length)).min(file.len());
            file[place(at)..until].fill(0);
        }
        Fault::Flips(at, bits) => {
            for bit in bits.map(usize::from).map(|bit| bit % 32) {
                let at = (place(at) + bit / 8).min(good.len() - 1);
                file[at] ^= 1 << (bit % 8);
            }
        }
        Fault::Tail(tail) => file.extend_from_slice(&tail),
        Fault::Reserved(at, length) => {
            file.truncate(place(at));
            file.resize(file.len() + usize::from(length) * 16, 0);
        }
    }
    let changed = file.iter().zip(&good).position(|(now, then)| now != then);
    let intact = changed.unwrap_or(file.len().min(good.len()));
    let whole = starts[1..].iter().filter(|&&end| end <= intact).count();
    let (told, outcome) = replay(&file, u8::MAX, machine);
    let has_header = intact >= starts[0];
    let is_tail = file.len() > good.len() && changed.is_none();
    assert!(
        told == entries[..whole] || is_tail && told.starts_with(&entries) || !has_header,
        "no other entries"
    );
    assert!(has_header || told.is_empty(), "nothing of a foreign file");
    // Good entries behind something that is none, and the machine has run all the time.
    let is_good = |place: &usize| {
        let range = starts[*place]..starts[place + 1];
        file.get(range.clone()) == Some(&good[range])
    };
    let mut lives = told.iter().filter_map(|entry| match entry {
        Owned::Life { machine, .. } => Some(u64::from(*machine)),
        _ => None,
    });
    let has_run = machine != 0 && lives.next_back().is_none_or(|last| last == machine);
    let is_damaged = has_header && (whole + 1..entries.len()).any(|place| is_good(&place));
    if has_run && is_damaged {
        let offset = starts[whole] as u64;
        assert_eq!(outcome, Err(JournalError::Damaged { offset }));
    }
    Ok(file)
}

type Outcome = (Vec<Owned>, Result<End, JournalError>);

/// What the server reads, in pieces.
fn replay(file: &[u8], cut: u8, machine: u64) -> Outcome {
    let mut replay = Replay::new(server::NAME, machine);
    let mut entries = Vec::new();
    let fed = pieces(file, cut)
        .try_for_each(|piece| replay.data_received(piece, |entry| entries.push(Owned::of(entry))));
    (entries, fed.and_then(|()| replay.finish()))
}

/// The format of a file, and how long its header is; nothing if it has no whole one.
fn format(file: &[u8]) -> Option<(Format, usize)> {
    let first = format!("herd-mio journal 1 {}\n", server::NAME);
    if file.starts_with(first.as_bytes()) {
        return Some((Format::One, first.len()));
    }
    let before = format!("herd-mio journal 2 {} ", server::NAME);
    let length = before.len() + 34;
    let digits = |at: usize| {
        let digits = std::str::from_utf8(file.get(at..at + 16)?).ok()?;
        let number = u64::from_str_radix(digits, 16).ok()?;
        (digits == format!("{number:016x}")).then_some(number)
    };
    let (salt, sum) = (digits(before.len())?, digits(before.len() + 17)?);
    let is_right = file.get(..length)? == format!("{before}{salt:016x} {sum:016x}\n").as_bytes()
        && sum == xxh3_64(&file[..before.len() + 17]);
    is_right.then_some((Format::Two(Salt(salt)), length))
}

/// Whether these bytes could be the first ones of a header, but not all of it.
fn begins_header(bytes: &[u8]) -> bool {
    let first = format!("herd-mio journal 1 {}\n", server::NAME);
    // Any digit may stand for any other.
    let digits = "0".repeat(16);
    let second = format!("herd-mio journal 2 {} {digits} {digits}\n", server::NAME);
    let place = second.len() - 34;
    let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let like = |(at, byte): (usize, &u8)| match second.as_bytes()[at] {
        b'0' if at >= place => is_digit(byte),
        wanted => *byte == wanted,
    };
    first.as_bytes().starts_with(bytes)
        || bytes.len() < second.len() && bytes.iter().enumerate().all(like)
}

/// What is to be read, after the format's documentation, all at once.
fn read(file: &[u8], machine: u64) -> Outcome {
    let last = file.iter().rposition(|&byte| byte != 0);
    let written = last.map_or(0, |last| last + 1);
    let Some((format, header)) = format(file) else {
        // The beginning of a header, and room.
        let end = End {
            offset: 0,
            torn_bytes: written as u64,
            format: None,
        };
        let end = begins_header(&file[..written]).then_some(end);
        return (Vec::new(), end.ok_or(JournalError::Foreign));
    };
    let mut entries = Vec::new();
    let mut machine_before = None;
    let mut offset = header;
    while let Some((entry, length)) = entry(&file[offset..], format, offset as u64) {
        if let Entry::Life { machine, .. } = entry {
            machine_before = Some(machine);
        }
        entries.push(Owned::of(entry));
        offset += length;
    }
    let has_run = machine != 0 && machine_before.is_none_or(|before| before == machine);
    // Good entries behind that, each looked for behind the last; an entry may end in zeros. In
    // format 1, what is no entry may claim an end, and nothing is looked for before that.
    let skipped = |at: usize| match (format, file.get(at..at + 4)) {
        (Format::One, Some(length)) => {
            let claimed = length
                .iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            if claimed <= MAX_PAYLOAD {
                at + 8 + claimed
            } else {
                at + 1
            }
        }
        (_, _) => at + 1,
    };
    let (mut at, mut is_damaged, mut written) = (skipped(offset), false, written);
    let mut is_behind_entry = false;
    while at < written {
        match entry(&file[at..], format, at as u64) {
            Some((found, length)) => {
                is_damaged |= match found {
                    Entry::Synced { offset: synced } => has_run || synced > offset as u64,
                    _ => has_run,
                };
                at += length;
                written = written.max(at);
                is_behind_entry = true;
            }
            None => {
                at = if std::mem::take(&mut is_behind_entry) {
                    skipped(at)
                } else {
                    at + 1
                }
            }
        }
    }
    let offset = offset as u64;
    let end = if is_damaged {
        Err(JournalError::Damaged { offset })
    } else {
        Ok(End {
            offset,
            torn_bytes: (written as u64).saturating_sub(offset),
            format: Some(format),
        })
    };
    (entries, end)
}

/// The entry at the front of `bytes`, which stand at `offset` of a file, and how long it is.
fn entry(bytes: &[u8], format: Format, offset: u64) -> Option<(Entry<'_>, usize)> {
    let (is_right, payload, frame) = match format {
        Format::One => {
            let (length, rest) = bytes.split_first_chunk::<4>()?;
            let (sum, rest) = rest.split_first_chunk::<4>()?;
            let payload = rest.get(..u32::from_le_bytes(*length) as usize)?;
            let wanted = crc32(&[&length[..], payload].concat());
            (wanted == u32::from_le_bytes(*sum), payload, 8)
        }
        Format::Two(Salt(salt)) => {
            let (sum, sized) = bytes.split_first_chunk::<8>()?;
            let (length, rest) = sized.split_first_chunk::<4>()?;
            let payload = rest.get(..u32::from_le_bytes(*length) as usize)?;
            let summed = &sized[..4 + payload.len()];
            let wanted = xxh3_64_with_seed(summed, salt.wrapping_add(offset));
            (wanted == u64::from_le_bytes(*sum), payload, 12)
        }
    };
    let size = payload.len();
    if !is_right || size > MAX_PAYLOAD {
        return None;
    }
    let number = |at: usize| {
        let bytes = payload.get(at..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    };
    let entry = match (payload.first()?, size) {
        (b'L', 25) => Entry::Life {
            boot: BootId(number(1)?),
            last_seq_before: number(9)?,
            machine: number(17)?,
        },
        (b'S', 9) => Entry::Synced { offset: number(1)? },
        (b'R', 9..) => Entry::Record {
            seq: number(1)?,
            epoch: 0,
            line: &payload[9..],
        },
        (b'E', 13..) => Entry::Record {
            seq: number(1)?,
            epoch: Some(u32::from_le_bytes(*payload[9..].first_chunk()?)).filter(|it| *it > 0)?,
            line: &payload[13..],
        },
        (b'H', 17..) => Entry::Received {
            boot: BootId(number(1)?),
            position: number(9)?,
            neighbour: &payload[17..],
        },
        (b'T', 9..) => Entry::Confirmed {
            position: number(1)?,
            neighbour: &payload[9..],
        },
        _ => return None,
    };
    Some((entry, frame + size))
}

/// CRC-32 (IEEE), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// A server starts with what could be read of the file, goes on, and is started again.
fn live_on(mut file: Vec<u8>, entries: &[Owned], end: End, machine: u64, fsync: Fsync) {
    let is_low = |entry: &Owned| !matches!(entry, Owned::Record { seq, .. } if *seq > MAX_SEQ);
    if !entries.iter().all(is_low) {
        return;
    }
    file.truncate(end.offset as usize);
    let mut settings = server::settings();
    settings.limits.compact_bytes = 1;
    let mut disk = disk::new();
    disk.put_bytes(file);
    disk.set_machine(machine);
    let start = |disk: &mut FakeDisk, seed: u8| {
        let mut node = Node::new(settings.clone(), &[seed; 32], server::at(0));
        node.keep_journal(fsync);
        let length = disk.length();
        match disk.open(|entry| node.restore(entry)) {
            Ok(opened) => {
                assert_eq!(opened.length, length);
                node.journal_opened(opened);
            }
            Err(error) => panic!("it is refused: {error}"),
        }
        node
    };
    let mut node = start(&mut disk, 1);
    // A journal of an old format is written anew before anybody is served.
    for _ in 0..100 {
        disk::turn(&mut node, Some(&mut disk), server::at(0));
    }
    let Some(client) = "192.0.2.1:1"
        .parse()
        .ok()
        .and_then(|address| node.handle_client_connected(address, server::at(10)))
    else {
        panic!("a client is admitted");
    };
    let commands = b"IAMAT c1 +1+2 1621464826.5\nIAMAT new +1+2 7\nIAMAT c1 +1+2 3\n";
    node.handle_data_received(client, commands, server::at(10));
    for ms in [10, 1_200, 2_400] {
        disk::turn(&mut node, Some(&mut disk), server::at(ms));
    }
    let answers = node.poll_output(client).to_vec();
    let lines = answers.split_inclusive(|&byte| byte == b'\n');
    assert_eq!(lines.filter(|line| line.starts_with(b"AT ")).count(), 3);
    disk::turn(&mut node, Some(&mut disk), server::at(70_000));
    assert_eq!(node.failure(), None);
    disk.end(promises::End::Killed);
    let again = start(&mut disk, 2);
    let (before, after) = (node.records(), again.records());
    assert_eq!(
        after.digest(),
        before.digest(),
        "it knows what it knew"
    );
    assert_eq!(after.len(), before.len());
    assert_eq!(
        after.last_seq(),
        before.last_seq(),
        "and since when"
    );
}
