//! A client's command lines, and the `AT` lines that answer them.

use std::collections::BTreeMap;

use herd_mio::core::base::limits::{LINE_BYTES, LINK_LINE_BYTES, Limits};
use herd_mio::core::table::packed_line::{PackedLine, ServerNames, pack};
use herd_mio::core::table::records::{Merge, Origin, Records};
use herd_mio::core::wire::coordinates::Coordinates;
use herd_mio::core::wire::escape::Escaped;
use herd_mio::core::wire::message::{At, Command, Iamat, Radius};
use herd_mio::core::wire::posix_time::{PosixTime, Skew};

use crate::reference;

/// The server that answers.
const SERVER: &str = "Riley";

/// Eight bytes of receipt time, in nanoseconds since the epoch, then lines. Each is read as a client's command and as a neighbour's `AT`
/// line; both readings have to be those of `reference`. What parses has to be written as it was read; the table of
/// positions has to hold the greatest line of each client, in whatever order they came.
pub fn client_line(data: &[u8]) {
    let Some((receipt, text)) = data.split_first_chunk() else {
        return;
    };
    let receipt = u64::from_le_bytes(*receipt);
    let (mut answers, mut shelf) = (Vec::new(), Shelf::default());
    for line in text.split(|&byte| byte == b'\n') {
        if line.len() <= LINE_BYTES {
            command(line, receipt, &mut answers);
        }
        if line.len() <= LINK_LINE_BYTES && at_line(line, &mut shelf) {
            answers.push(line.to_vec());
        }
        let shown = Escaped(line).to_string();
        assert!(shown.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    }
    table(&answers);
}

/// Reads a client's line; the answer to an `IAMAT` goes to `answers`, without its LF.
fn command(line: &[u8], receipt: u64, answers: &mut Vec<Vec<u8>>) {
    let expected = reference::command(line);
    let found = Command::parse(line);
    let seen = match &found {
        Command::Blank => reference::Command::Blank,
        Command::Iamat(iamat) => reference::Command::Iamat {
            client: iamat.client,
            location: iamat.location,
            time: iamat.time,
        },
        Command::Whatsat(whatsat) => reference::Command::Whatsat {
            client: whatsat.client,
            radius_nm: nanometres(whatsat.radius),
            bound: whatsat.bound,
        },
        Command::Invalid => reference::Command::Invalid,
    };
    assert_eq!(seen, expected, "{}", line.escape_ascii());
    if let Command::Iamat(iamat) = found {
        let again = [b"IAMAT", iamat.client, iamat.location, iamat.time].join(&b' ');
        let Command::Iamat(spelled) = Command::parse(&again) else {
            panic!("{} is no IAMAT", again.escape_ascii());
        };
        let words = |iamat: &Iamat<'_>| [iamat.client, iamat.location, iamat.time].concat();
        assert_eq!(words(&spelled), words(&iamat), "in one spelling");
        assert_eq!(spelled.stamp, iamat.stamp);
        answers.push(answer(&iamat, receipt));
    }
}

/// What [`Radius::metres`] says, as a whole number.
fn nanometres(radius: Radius) -> u128 {
    let metres = radius.metres();
    let (whole, fraction) = metres.split_once('.').unwrap_or((&metres, ""));
    assert!(
        !fraction.ends_with('0') && is_json_number(&metres),
        "{metres}"
    );
    format!("{whole}{fraction:0<9}").parse().unwrap_or_default()
}

/// Whether JSON and a URL take it for a number: no sign but a minus, no zeros in front.
fn is_json_number(text: &str) -> bool {
    let size = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = size.split_once('.').unwrap_or((size, "0"));
    let are_digits = |half: &str| !half.is_empty() && half.bytes().all(|b| b.is_ascii_digit());
    are_digits(whole) && are_digits(fraction) && (whole == "0" || !whole.starts_with('0'))
}

fn answer(iamat: &Iamat<'_>, receipt: u64) -> Vec<u8> {
    let skew = Skew::between(PosixTime::from_nanos(receipt), iamat.stamp);
    let mut written = Vec::new();
    skew.write(&mut written);
    let stamp = reference::stamp(iamat.time).unwrap_or_default();
    let expected = reference::skew_text(reference::skew_ns(receipt, stamp));
    assert_eq!(written.escape_ascii().to_string(), expected);
    assert_eq!(Skew::parse(&written), Some(skew));

    let mut line = b"before".to_vec();
    let at = At::write(&mut line, SERVER, skew, iamat);
    let mut line = line.split_off(b"before".len());
    assert_eq!(line.pop(), Some(b'\n'));
    let fields = [
        b"AT",
        SERVER.as_bytes(),
        &written,
        iamat.client,
        iamat.location,
        iamat.time,
    ];
    assert_eq!(line, fields.join(&b' '));
    assert!(at.is_some(), "a receipt of {receipt} is after the epoch");
    assert_eq!(At::parse(&line), at);
    assert!(line.len() <= LINK_LINE_BYTES, "neighbours take it");
    coordinates(iamat.location);
    line
}

/// What is asked of Google is where the client said that it is.
fn coordinates(location: &[u8]) {
    let (Some(found), Some((latitude, longitude))) =
        (Coordinates::parse(location), reference::location(location))
    else {
        panic!("{} is no location", location.escape_ascii());
    };
    for (plain, signed) in [(found.latitude(), latitude), (found.longitude(), longitude)] {
        assert!(is_json_number(&plain), "{plain}");
        let digits = |text: &str| text.trim_start_matches('0').to_owned();
        let (sign, size) = match plain.strip_prefix('-') {
            Some(size) => (b'-', size),
            None => (b'+', &*plain),
        };
        assert_eq!(signed[0], sign);
        let signed = String::from_utf8_lossy(&signed[1..]);
        assert_eq!(digits(size), digits(&signed));
    }
}

/// Reads a neighbour's line; whether it is an `AT` line.
fn at_line(line: &[u8], shelf: &mut Shelf) -> bool {
    let expected = reference::At::read(line);
    let found = At::parse(line);
    assert_eq!(
        found.map(|at| at.client),
        expected.as_ref().map(|at| &*at.client),
        "{}",
        line.escape_ascii()
    );
    let Some(at) = found else {
        return false;
    };
    assert!(line[at.client_offset..].starts_with(at.client));
    shelf.keep(line, &at);
    true
}

/// Packs lines, all of them with the same names of servers.
#[derive(Default)]
struct Shelf {
    servers: ServerNames,
    packed: Vec<u8>,
    back: Vec<u8>,
}

impl Shelf {
    /// What is kept is what was given.
    fn keep(&mut self, line: &[u8], at: &At<'_>) {
        let done = pack(line, at.client_range(), &mut self.servers, &mut self.packed);
        assert!(done.is_some(), "the servers of one input are not too many");
        let packed = PackedLine::new(&self.packed);
        self.back.clear();
        packed.write(&self.servers, &mut self.back);
        assert_eq!(
            self.back,
            line,
            "{} for {}",
            self.back.escape_ascii(),
            line.escape_ascii()
        );
        assert_eq!(packed.client(), at.client);
    }
}

/// Offers the lines to two tables, to one of them backwards.
fn table(lines: &[Vec<u8>]) {
    let mut expected: BTreeMap<Vec<u8>, reference::At> = BTreeMap::new();
    let mut records = Records::new(&Limits::default());
    for line in lines {
        let (Some(at), Some(ours)) = (At::parse(line), reference::At::read(line)) else {
            panic!("{} is no AT line", line.escape_ascii());
        };
        let held = expected.get(&ours.client);
        let merged = match held {
            Some(held) if *held >= ours => Merge::Stale,
            _ => Merge::Accepted,
        };
        assert_eq!(records.merge(line, &at, Origin::LOCAL), merged);
        if merged == Merge::Accepted {
            expected.insert(ours.client.clone(), ours);
        }
    }
    let mut backwards = Records::new(&Limits {
        unpacked_records: 1,
        ..Limits::default()
    });
    for line in lines.iter().rev() {
        if let Some(at) = At::parse(line) {
            backwards.merge(line, &at, Origin::LOCAL);
        }
    }
    assert_eq!(records.digest(), backwards.digest());
    for (client, at) in &expected {
        let line = [&at.line[..], b"\n"].concat();
        let is_tombstone = at.line.split(|&byte| byte == b' ').nth(4) == Some(b"-");
        assert_eq!(records.line(client).is_none(), is_tombstone);
        assert_eq!(records.record(client).as_ref(), Some(&line));
        assert_eq!(backwards.record(client), Some(line));
    }
    feed(&mut records, expected);
}

/// The feed tells each record once, in pieces too.
fn feed(records: &mut Records, mut expected: BTreeMap<Vec<u8>, reference::At>) {
    let reader = records.open_reader(0);
    while !records.is_caught_up(reader) {
        let mut told = Vec::new();
        let count = records.read(reader, Origin::LOCAL.next(), u64::MAX, 100, &mut told);
        let lines: Vec<&[u8]> = told.split_inclusive(|&byte| byte == b'\n').collect();
        assert_eq!(lines.len(), count);
        for line in lines {
            let at = line.strip_suffix(b"\n").and_then(reference::At::read);
            let held = at.as_ref().and_then(|at| expected.remove(&at.client));
            assert!(at.is_some() && at == held, "told once");
        }
    }
    assert!(expected.is_empty());
    assert_eq!(records.position(reader), records.last_seq());
    records.close_reader(reader);
}
