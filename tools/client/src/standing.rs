//! Asks one server for its status, over its port for neighbours. The asking program dials as
//! `operator` and has to prove that it knows the secret. With TLS it also needs a certificate for
//! that name. It may also have the server forget a client, or drain.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use herd_mio::core::base::hex::{Hex, unhex};
use herd_mio::core::base::settings::{NeighbourTls, Secret, TlsMode};
use herd_mio::core::link::proof::{Nonce, Parties, Side};
use herd_mio::core::link::{OPERATOR, VERSION};
use herd_mio::core::session::tally::Counters;
use herd_mio::core::session::tls::{NO_TLS, TlsError, is_tls};
use herd_mio::core::wire::escape::Escaped;
use herd_testkit::clock::now;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

/// The greatest length of a server's line.
const LINE_BYTES: u64 = 65_536;

/// The status of a server. Older versions leave out some of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The id of the server's life: each start of the process has a new one.
    pub boot: String,
    /// The version of herd-mio. `None` for versions before this key.
    pub version: Option<String>,
    /// The number of clients with a record.
    pub records: u64,
    /// A digest of the records. Servers with the same records have the same digest.
    pub digest: u64,
    /// The number of connected clients.
    pub clients: u64,
    /// The server's wall clock, in nanoseconds since 1970. `None` for older versions.
    pub wall: Option<u64>,
    /// The number of records that it refused because of a limit.
    pub refused: u64,
    /// The server's counters since its start. Older versions leave out some.
    pub counters: Counters,
    /// The number of the secret that this question used, from 1, and how many secrets the server
    /// has. `None` if it has none, or for older versions.
    pub secret: Option<(u64, u64)>,
    /// The number of links without TLS. `None` for older versions.
    pub plain: Option<u64>,
    /// The number of failed TLS handshakes with clients, by kind. The kinds are escaped for a
    /// terminal.
    pub handshakes: Vec<(String, u64)>,
    /// The state of its disk. `None` for older versions.
    pub disk: Option<Disk>,
    /// Whether its table is full. Then it refuses unknown clients.
    pub is_table_full: bool,
    /// How most clients' clocks differ from the server's.
    pub clients_clocks: Clocks,
    /// The greatest number of connected clients. `None` for older versions.
    pub max_clients: Option<u64>,
    /// The number of tombstones of forgotten clients. `None` for older versions, which cannot
    /// forget a client.
    pub forgotten: Option<u64>,
    /// The number of operators that follow its changes. `None` for older versions, which cannot be
    /// followed.
    pub followers: Option<u64>,
    /// Whether it drains: it closes its clients, and then stops. `None` for older versions, which
    /// cannot drain.
    pub is_draining: Option<bool>,
    /// The number of questions to Google Places in the last 24 hours, and the greatest number that
    /// is allowed. `None` if any number is allowed, or for older versions.
    pub places_day: Option<(u64, u64)>,
    /// What the buffers of all connections hold. `None` for older versions.
    pub buffers: Option<Buffers>,
    /// Neighbours without a link, and since how many milliseconds. Empty for older versions.
    pub unlinked: Vec<(String, u64)>,
    /// Neighbours with a link.
    pub linked: Vec<String>,
    /// Those links, in the same order.
    pub links: Vec<LinkStanding>,
}

/// The status of a link, seen from one of its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStanding {
    /// The neighbour at the other end.
    pub name: String,
    /// The number of changes that the neighbour has not confirmed. It confirms a change when it
    /// keeps it.
    pub unconfirmed: u64,
    /// The milliseconds by which the neighbour's clock is ahead, if that is known.
    pub apart_ms: Option<i64>,
    /// The number of records that the neighbour reported as refused.
    pub lacks: u64,
    /// The milliseconds since the neighbour last confirmed a change.
    pub lag_ms: u64,
}

/// What the buffers of a server's connections hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// Bytes, of all of them.
    pub bytes: u64,
    /// How many they may hold.
    pub maximum: u64,
    /// Milliseconds since a connection was closed because that was exceeded, if one was.
    pub evicted_ms: Option<u64>,
}

/// The state of a server's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// The server has no data directory, and keeps nothing.
    None,
    /// All work of the disk is done.
    Well,
    /// Work of the disk has been under way for so long.
    Busy {
        /// Milliseconds.
        ms: u64,
    },
    /// The server refuses every `IAMAT` for want of room on the disk.
    Refusing {
        /// The milliseconds since it began to refuse.
        ms: u64,
        /// The number of bytes that have to be free, approximately.
        wanted_bytes: u64,
    },
}

/// How most clients' clocks differ from their server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clocks {
    /// At most 60 s.
    Near,
    /// They are ahead.
    Ahead,
    /// They are behind.
    Behind,
}

/// The answer of a server that has forgotten a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// Whether it had a position of the client.
    pub was_known: bool,
    /// The time for which it keeps the tombstone, in milliseconds. 0: until the client moves.
    pub ttl_ms: u64,
}

/// The answer of a server that drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draining {
    /// The number of clients that are connected.
    pub clients: u64,
    /// The time until it stops at the latest, in milliseconds.
    pub ms: u64,
}

/// What a server is asked for after its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To forget the client of this name.
    Forget(Vec<u8>),
    /// To drain.
    Drain,
}

/// A server's answer to a [`Wish`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// To [`Wish::Forget`].
    Forgotten(Forgotten),
    /// To [`Wish::Drain`].
    Draining(Draining),
}

/// Whether the server refused the proof, because it has another secret.
#[must_use]
pub fn is_wrong_proof(error: &io::Error) -> bool {
    error.to_string().starts_with("it said: a wrong proof")
}

/// Asks the server `name` at the address of its port for neighbours. Both sides prove that they
/// know the secret. `patience` limits all of it. If TLS is optional and gets no answer in half of
/// that time, a second attempt is made without TLS.
///
/// # Errors
/// There is no answer in time ([`ErrorKind::TimedOut`]), or the answer breaks the protocol.
pub fn ask(
    address: SocketAddr,
    name: &str,
    secret: &Secret,
    tls: Option<&NeighbourTls>,
    patience: Duration,
) -> io::Result<Standing> {
    let asked = ask_for(address, name, secret, tls, None, patience);
    asked.map(|(standing, _)| standing)
}

/// Like [`ask`]. With `wish`, the server is also asked to do that, and reports the result.
///
/// # Errors
/// As [`ask`]; or the server cannot do it.
pub fn ask_for(
    address: SocketAddr,
    name: &str,
    secret: &Secret,
    tls: Option<&NeighbourTls>,
    wish: Option<&Wish>,
    patience: Duration,
) -> io::Result<(Standing, Option<Done>)> {
    with_offer(tls, patience, |tls, patience| {
        ask_once(address, name, secret, tls, wish, patience)
    })
}

/// Makes an attempt with `tls`. If TLS is optional and fails, makes another one without TLS. Each
/// of two attempts has half of the time.
fn with_offer<T>(
    tls: Option<&NeighbourTls>,
    patience: Duration,
    attempt: impl Fn(Option<&NeighbourTls>, Duration) -> io::Result<T>,
) -> io::Result<T> {
    match tls {
        Some(offer) if offer.mode == TlsMode::Offered => {
            let patience = patience / 2;
            let over_tls = attempt(tls, patience);
            over_tls.or_else(|failure| {
                let plain = attempt(None, patience);
                plain.map_err(|error| {
                    let is_plain = failure.to_string().starts_with(NO_TLS);
                    if is_plain { error } else { failure }
                })
            })
        }
        Some(_) | None => attempt(tls, patience),
    }
}

fn ask_once(
    address: SocketAddr,
    name: &str,
    secret: &Secret,
    tls: Option<&NeighbourTls>,
    wish: Option<&Wish>,
    patience: Duration,
) -> io::Result<(Standing, Option<Done>)> {
    let (stream, _) = connect(address, name, tls, patience)?;
    explained(converse(stream, name, secret, wish), patience)
}

/// A connection to a server, with or without TLS.
pub trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

/// The time at which the present wait for a server ends.
#[derive(Clone, Debug)]
pub struct Deadline(Rc<Cell<Instant>>);

impl Deadline {
    /// Reads and writes from now on may take this long, all together.
    pub fn extend(&self, patience: Duration) {
        self.0.set(now() + patience);
    }
}

/// Connects. With TLS, the first read or write does the handshake.
fn connect(
    address: SocketAddr,
    name: &str,
    tls: Option<&NeighbourTls>,
    patience: Duration,
) -> io::Result<(Box<dyn Stream>, Deadline)> {
    let until = Deadline(Rc::new(Cell::new(now() + patience)));
    let stream = TcpStream::connect_timeout(&address, patience)?;
    let stream = Bounded {
        stream,
        until: until.clone(),
    };
    let Some(tls) = tls else {
        return Ok((Box::new(stream), until));
    };
    let host = ServerName::try_from(name.to_owned())
        .map_err(|_| io::Error::other("its name cannot be in a certificate"))?;
    let connection = ClientConnection::new(tls.dialling.clone(), host)
        .map_err(|error| io::Error::other(format!("TLS cannot be set up: {error}")))?;
    Ok((Box::new(StreamOwned::new(connection, stream)), until))
}

/// An operator's connection to a server that has told its status.
pub struct Proven {
    /// The lines after the status, and the other direction.
    pub stream: BufReader<Box<dyn Stream>>,
    /// When reads and writes end with [`ErrorKind::WouldBlock`] or [`ErrorKind::TimedOut`].
    pub deadline: Deadline,
    /// The status.
    pub standing: Standing,
}

/// Like [`ask`], but the connection stays open.
///
/// # Errors
/// As [`ask`].
pub fn prove(
    address: SocketAddr,
    name: &str,
    secret: &Secret,
    tls: Option<&NeighbourTls>,
    patience: Duration,
) -> io::Result<Proven> {
    let prove_once = |tls: Option<&NeighbourTls>, patience| {
        let (stream, deadline) = connect(address, name, tls, patience)?;
        let (stream, standing) = explained(introduce(stream, name, secret), patience)?;
        Ok(Proven {
            stream,
            deadline,
            standing,
        })
    };
    with_offer(tls, patience, prove_once)
}

/// Makes errors of `answer` understandable.
fn explained<T>(answer: io::Result<T>, patience: Duration) -> io::Result<T> {
    // The kind of a timeout differs between systems, and its text says nothing.
    answer.map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => io::Error::new(
            ErrorKind::TimedOut,
            format!(
                "it sent nothing for {} s",
                (patience.as_secs_f64() * 10.0).round() / 10.0
            ),
        ),
        _ => match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(error) => io::Error::other(of_tls(error)),
            None => error,
        },
    })
}

/// A socket with a deadline for all of its reads and writes together.
struct Bounded {
    stream: TcpStream,
    until: Deadline,
}

impl Bounded {
    fn left(&self) -> io::Result<Option<Duration>> {
        match self.until.0.get().saturating_duration_since(now()) {
            Duration::ZERO => Err(ErrorKind::TimedOut.into()),
            left => Ok(Some(left)),
        }
    }
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// If only one end uses TLS, the other end's bytes make no sense.
const ONE_SIDED: &str =
    "the config file and the server do not agree on [peers.tls]; was the server started with it?";

/// Why TLS failed, as text.
fn of_tls(error: &rustls::Error) -> String {
    let reason = TlsError::from(error.clone()).reason;
    match reason.as_str() {
        NO_TLS => format!("{NO_TLS}; {ONE_SIDED}"),
        _ => reason,
    }
}

/// Both sides prove that they know the secret, and the server tells its status.
fn introduce<S: Stream>(
    stream: S,
    name: &str,
    secret: &Secret,
) -> io::Result<(BufReader<S>, Standing)> {
    let mut stream = BufReader::new(stream);
    let mut nonce: Nonce = [0; 16];
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| io::Error::other("no random numbers"))?;

    let hello = format!("HERD {VERSION} {OPERATOR} {name} {}\n", Hex(&nonce));
    stream.get_mut().write_all(hello.as_bytes())?;
    let greeting = line(&mut stream)?;
    let theirs = greeting
        .strip_prefix(&format!("HERD {VERSION} {name} {OPERATOR} "))
        .and_then(|text| unhex(text.as_bytes()));
    let theirs: Nonce = theirs.ok_or_else(|| unexpected(&greeting))?;
    let parties = Parties {
        dialler: (OPERATOR, &nonce),
        acceptor: (name, &theirs),
    };
    let proof = format!("PROOF {}\n", parties.prove(Side::Dialler, secret));
    stream.get_mut().write_all(proof.as_bytes())?;
    let proof = line(&mut stream)?;
    let is_proven = |proof: &str| parties.is_valid_proof(Side::Acceptor, secret, proof.as_bytes());
    if !proof.strip_prefix("PROOF ").is_some_and(is_proven) {
        return Err(unexpected(&proof));
    }
    let status = line(&mut stream)?;
    let standing = standing(&status).ok_or_else(|| unexpected(&status))?;
    Ok((stream, standing))
}

fn converse(
    stream: impl Stream,
    name: &str,
    secret: &Secret,
    wish: Option<&Wish>,
) -> io::Result<(Standing, Option<Done>)> {
    let (mut stream, standing) = introduce(stream, name, secret)?;
    let Some(wish) = wish else {
        return Ok((standing, None));
    };
    let (is_understood, what, command) = match wish {
        Wish::Forget(client) => (
            standing.forgotten.is_some(),
            "forget a client",
            [b"FORGET ", &**client, b"\n"].concat(),
        ),
        Wish::Drain => (standing.is_draining.is_some(), "drain", b"DRAIN\n".to_vec()),
    };
    if !is_understood {
        return Err(io::Error::other(format!(
            "it runs a version that cannot {what}; upgrade it"
        )));
    }
    stream.get_mut().write_all(&command)?;
    stream.get_mut().flush()?;
    let answer = line(&mut stream)?;
    let done = match wish {
        Wish::Forget(_) => forgotten(&answer).map(Done::Forgotten),
        Wish::Drain => draining(&answer).map(Done::Draining),
    };
    let done = done.ok_or_else(|| unexpected(&answer))?;
    Ok((standing, Some(done)))
}

/// `DRAINING <clients> <ms>`
fn draining(line: &str) -> Option<Draining> {
    let (clients, ms) = of_two(line.strip_prefix("DRAINING ")?, ' ')?;
    Some(Draining { clients, ms })
}

/// `FORGOTTEN <known or unknown> <ttl>`
fn forgotten(line: &str) -> Option<Forgotten> {
    let (known, ttl_ms) = line.strip_prefix("FORGOTTEN ")?.split_once(' ')?;
    Some(Forgotten {
        was_known: match known {
            "known" => true,
            "unknown" => false,
            _ => return None,
        },
        ttl_ms: ttl_ms.parse().ok()?,
    })
}

fn line(lines: &mut BufReader<impl Read>) -> io::Result<String> {
    let mut text = Vec::new();
    lines
        .by_ref()
        .take(LINE_BYTES)
        .read_until(b'\n', &mut text)?;
    if is_tls(&text) {
        return Err(io::Error::other(format!("it speaks TLS; {ONE_SIDED}")));
    }
    match text.strip_suffix(b"\n") {
        Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
        None => Err(io::Error::new(
            ErrorKind::UnexpectedEof,
            "it closed the connection",
        )),
    }
}

fn unexpected(line: &str) -> io::Error {
    if let Some(version) = other_version(line) {
        let upgrade = if version < VERSION {
            "it"
        } else {
            "this program"
        };
        return io::Error::other(format!(
            "it speaks version {version} of the neighbours' protocol, this program {VERSION}; upgrade {upgrade}"
        ));
    }
    let shown = Escaped(line.strip_prefix("BYE ").unwrap_or(line).as_bytes());
    io::Error::other(format!("it said: {shown}"))
}

/// The protocol version of the server, if its complaint is about the version.
fn other_version(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("BYE it speaks version ")?;
    let (_, theirs) = rest.split_once(" of the neighbours' protocol, this server ")?;
    theirs.split(';').next()?.trim().parse().ok()
}

/// Parses a status. Unknown keys are skipped.
fn standing(line: &str) -> Option<Standing> {
    let pairs = line.strip_prefix("STATUS ")?.split(' ');
    let pairs: Vec<(&str, &str)> = pairs
        .map(|pair| pair.split_once('='))
        .collect::<Option<_>>()?;
    let value = |key: &str| {
        let found = pairs.iter().find(|(known, _)| *known == key);
        found.map(|(_, value)| *value)
    };
    let number = |key: &str| value(key)?.parse().ok();
    let digest = value("digest").filter(|digits| digits.len() == 16)?;
    let links = pairs.iter().filter(|(key, _)| *key == "link");
    let mut links: Vec<LinkStanding> =
        links.map(|(_, value)| link(value)).collect::<Option<_>>()?;
    let timed = |key: &'static str| {
        let found = pairs.iter().filter(move |(known, _)| *known == key);
        found.map(|(_, value)| {
            let (ms, name) = value.split_once(':')?;
            Some((name.to_owned(), ms.parse().ok()?))
        })
    };
    for lag in timed("lag") {
        let (name, ms): (String, u64) = lag?;
        links
            .iter_mut()
            .filter(|link| link.name == name)
            .for_each(|link| link.lag_ms = ms);
    }
    let count = |key: &str| match value(key) {
        None => Some(0),
        Some(text) => text.parse().ok(),
    };
    let known = |key: &str| match value(key) {
        None => Some(None),
        Some(text) => text.parse().ok().map(Some),
    };
    Some(Standing {
        boot: value("boot")?.to_owned(),
        version: value("version").map(|text| Escaped(text.as_bytes()).to_string()),
        records: number("records")?,
        digest: u64::from_str_radix(digest, 16).ok()?,
        clients: number("clients")?,
        wall: known("wall")?,
        refused: count("refused")?,
        counters: Counters::read(count)?,
        handshakes: value("handshakes").map_or(Some(Vec::new()), handshakes)?,
        disk: value("disk").and_then(disk),
        is_table_full: value("table") == Some("full"),
        clients_clocks: match value("clocks") {
            Some("ahead") => Clocks::Ahead,
            Some("behind") => Clocks::Behind,
            Some(_) | None => Clocks::Near,
        },
        max_clients: known("max_clients")?,
        places_day: value("places_day").and_then(|text| of_two(text, ':')),
        buffers: value("buffers").and_then(buffers),
        forgotten: known("forgotten")?,
        followers: known("followers")?,
        is_draining: value("phase").map(|phase| phase == "draining"),
        unlinked: timed("unlinked").collect::<Option<_>>()?,
        secret: value("secret").and_then(|text| of_two(text, '/')),
        plain: number("plain"),
        linked: links.iter().map(|link| link.name.clone()).collect(),
        links,
    })
}

/// Parses two numbers, such as `<place>/<count>`.
fn of_two(text: &str, between: char) -> Option<(u64, u64)> {
    let (one, other) = text.split_once(between)?;
    Some((one.parse().ok()?, other.parse().ok()?))
}

/// Parses `<state>[:<ms>[:<bytes>]]`. An unknown state of a later version becomes `None`.
fn disk(text: &str) -> Option<Disk> {
    let mut fields = text.split(':');
    let state = fields.next()?;
    let mut number = || fields.next()?.parse().ok();
    Some(match state {
        "none" => Disk::None,
        "ok" => Disk::Well,
        "busy" => Disk::Busy { ms: number()? },
        "refusing" => Disk::Refusing {
            ms: number()?,
            wanted_bytes: number()?,
        },
        _ => return None,
    })
}

/// Parses `<bytes>:<maximum>[:<ms>]`.
fn buffers(text: &str) -> Option<Buffers> {
    let mut fields = text.split(':');
    Some(Buffers {
        bytes: fields.next()?.parse().ok()?,
        maximum: fields.next()?.parse().ok()?,
        evicted_ms: match fields.next() {
            None => None,
            Some(ms) => Some(ms.parse().ok()?),
        },
    })
}

/// Parses `<kind>:<count>,…`.
fn handshakes(text: &str) -> Option<Vec<(String, u64)>> {
    let pair = |pair: &str| {
        let (kind, count) = pair.split_once(':')?;
        Some((Escaped(kind.as_bytes()).to_string(), count.parse().ok()?))
    };
    text.split(',').map(pair).collect()
}

/// Parses `<unconfirmed>:<offset>:<lacks>:<name>`.
fn link(text: &str) -> Option<LinkStanding> {
    let mut fields = text.splitn(4, ':');
    Some(LinkStanding {
        unconfirmed: fields.next()?.parse().ok()?,
        apart_ms: match fields.next()? {
            "?" => None,
            apart => Some(apart.parse().ok()?),
        },
        lacks: fields.next()?.parse().ok()?,
        lag_ms: 0,
        name: fields.next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_is_parsed() {
        let link = |name: &str, unconfirmed, apart_ms, lacks, lag_ms| LinkStanding {
            name: name.into(),
            unconfirmed,
            apart_ms,
            lacks,
            lag_ms,
        };
        let expected = Standing {
            boot: "0123456789abcdef".into(),
            version: Some("9.8.7".into()),
            records: 3,
            digest: 255,
            clients: 1,
            wall: Some(7),
            refused: 5,
            counters: Counters {
                stale: 4,
                ahead: 6,
                behind: 8,
                refused_by_address: 12,
                unproven_displaced: 9,
                unproven_crowded: 10,
                unproven_throttled: 11,
                places_asked: 11,
                evicted: 13,
                new_names_refused: 14,
                ..Counters::default()
            },
            secret: Some((1, 2)),
            plain: Some(1),
            handshakes: vec![("plain-text".into(), 3), ("cut-off".into(), 1)],
            disk: Some(Disk::Refusing {
                ms: 1_200,
                wanted_bytes: 4_096,
            }),
            is_table_full: true,
            clients_clocks: Clocks::Behind,
            max_clients: Some(50),
            places_day: Some((9, 10)),
            buffers: Some(Buffers {
                bytes: 70,
                maximum: 700,
                evicted_ms: Some(7),
            }),
            forgotten: Some(12),
            followers: Some(2),
            is_draining: Some(true),
            unlinked: vec![("Bernard".into(), 70)],
            linked: vec!["Riley".into(), "Juzang".into()],
            links: vec![
                link("Riley", 0, Some(-12), 0, 0),
                link("Juzang", 9, None, 2, 80),
            ],
        };
        let line = "STATUS boot=0123456789abcdef wall=7 records=3 digest=00000000000000ff clients=1 stale=4 refused=5 ahead=6 behind=8 refused_by_address=12 unproven_displaced=9 unproven_crowded=10 unproven_throttled=11 places_asked=11 evicted=13 new_names_refused=14 version=9.8.7 secret=1/2 plain=1 handshakes=plain-text:3,cut-off:1 disk=refusing:1200:4096 table=full clocks=behind max_clients=50 places_day=9:10 buffers=70:700:7 forgotten=12 followers=2 phase=draining unlinked=70:Bernard lag=80:Juzang link=0:-12:0:Riley later=what=ever link=9:?:2:Juzang";
        assert_eq!(standing(line), Some(expected));
        for bad in [
            "",
            "STATUS",
            "STATUS x 3",
            "STATUS 0123456789abcdef 3 00000000000000ff 1 Riley Juzang",
            &line.replace("00000000000000ff", "ff"),
            &line.replace("plain-text:3", "plain-text"),
            &line.replace("records=3", "records=y"),
            &line.replace("wall=7 ", "wall= "),
            &line.replace("unlinked=70:", "unlinked="),
            &line.replace("0:-12:0:", "0:-12:"),
            "BYE no",
        ] {
            assert_eq!(standing(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_answer_to_forget_is_parsed() {
        let yes = |was_known, ttl_ms| Some(Forgotten { was_known, ttl_ms });
        assert_eq!(forgotten("FORGOTTEN known 5000"), yes(true, 5_000));
        assert_eq!(forgotten("FORGOTTEN unknown 0"), yes(false, 0));
        for bad in [
            "FORGOTTEN",
            "FORGOTTEN known",
            "FORGOTTEN so 1",
            "FORGOTTEN known -1",
            "BYE no",
        ] {
            assert_eq!(forgotten(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_answer_to_drain_is_taken_apart() {
        let yes = Draining {
            clients: 3,
            ms: 10_000,
        };
        assert_eq!(draining("DRAINING 3 10000"), Some(yes));
        for bad in ["DRAINING", "DRAINING 3", "DRAINING 3 -1", "BYE no"] {
            assert_eq!(draining(bad), None, "{bad}");
        }
    }

    #[test]
    fn another_protocol_version_is_explained() {
        let message = |line: &str| unexpected(line).to_string();
        assert_eq!(
            message("BYE it speaks version 2 of the neighbours' protocol, this server 1"),
            "it speaks version 1 of the neighbours' protocol, this program 2; upgrade it"
        );
        assert_eq!(
            message(
                "BYE it speaks version 2 of the neighbours' protocol, this server 3; upgrade it"
            ),
            "it speaks version 3 of the neighbours' protocol, this program 2; upgrade this program"
        );
        assert_eq!(message("BYE no"), "it said: no");
    }
}
