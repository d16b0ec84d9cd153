//! One question to one server, over its neighbours' port: who dials as `operator` and knows the secret (and, where TLS is spoken, has
//! a certificate for that name) is told how it stands.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
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

/// The longest line that a server may answer with.
const LINE_BYTES: u64 = 65_536;

/// How a server stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which life of its process this is.
    pub boot: String,
    /// Which version of herd-mio it runs; one that is older than this key does not say.
    pub version: Option<String>,
    /// How many clients it knows the position of.
    pub records: u64,
    /// The same on servers that hold the same records.
    pub digest: u64,
    /// How many clients are connected to it.
    pub clients: u64,
    /// What its wall clock showed, in nanoseconds since the epoch; an older version does not say.
    pub wall: Option<u64>,
    /// Records that it refused because of a limit.
    pub refused: u64,
    /// What it has counted since its start; an older version does not say of each.
    pub counters: Counters,
    /// Of the secrets that it takes, with which it was asked, from 1, and how many there are; `None`
    /// if it has none, or does not say.
    pub secret: Option<(u64, u64)>,
    /// Links that are up and do not speak TLS; `None` if it does not say.
    pub plain: Option<u64>,
    /// How often TLS with its clients failed, by kind; the kinds are fit to be shown.
    pub handshakes: Vec<(String, u64)>,
    /// How its disk is; an older version does not say.
    pub disk: Option<Disk>,
    /// It refuses clients that it does not know, because its table is full.
    pub is_table_full: bool,
    /// Where most of its clients' clocks are, beside its own.
    pub clients_clocks: Clocks,
    /// How many clients it lets in; an older version does not say.
    pub max_clients: Option<u64>,
    /// Neighbours that it is not linked with, and for how many milliseconds; an older version does
    /// not say.
    pub unlinked: Vec<(String, u64)>,
    /// Neighbours that it is linked with now.
    pub linked: Vec<String>,
    /// Those links, in the same order.
    pub links: Vec<LinkStanding>,
}

/// How a link stands, seen from one of its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStanding {
    /// The neighbour at the other end.
    pub name: String,
    /// Changes that the neighbour has not confirmed to keep.
    pub unconfirmed: u64,
    /// Milliseconds by which the neighbour's clock is ahead, if that is known.
    pub apart_ms: Option<i64>,
    /// Records that the neighbour said it had to refuse.
    pub lacks: u64,
    /// For how many milliseconds the neighbour has not confirmed a change.
    pub lag_ms: u64,
}

/// How a server's disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// The server has no data directory: it keeps nothing.
    None,
    /// It has done what it was asked.
    Well,
    /// Something that it was asked has been under way for so long.
    Busy {
        /// Milliseconds.
        ms: u64,
    },
    /// The server refuses every `IAMAT` for want of room.
    Refusing {
        /// For so many milliseconds.
        ms: u64,
        /// Until about so many bytes are free.
        wanted_bytes: u64,
    },
}

/// Where most clients' clocks are, beside their server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clocks {
    /// Within 60 s of it.
    Near,
    /// Ahead of it.
    Ahead,
    /// Behind it.
    Behind,
}

/// Whether a server refused the proof: it has another secret.
#[must_use]
pub fn is_wrong_proof(error: &io::Error) -> bool {
    error.to_string().starts_with("it said: a wrong proof")
}

/// Asks the server called `name` whose neighbours' port is `address`, and proves on the way that
/// both sides know the secret. All of it may take `patience`. Where TLS is only offered, it is
/// asked again without, if there is no answer with it in half of that time.
///
/// # Errors
/// It does not answer in time ([`ErrorKind::TimedOut`]), or otherwise than the protocol has it.
pub fn ask(
    address: SocketAddr,
    name: &str,
    secret: &Secret,
    tls: Option<&NeighbourTls>,
    patience: Duration,
) -> io::Result<Standing> {
    match tls {
        Some(offer) if offer.mode == TlsMode::Offered => {
            let patience = patience / 2;
            let over_tls = ask_once(address, name, secret, tls, patience);
            over_tls.or_else(|failure| {
                let plain = ask_once(address, name, secret, None, patience);
                plain.map_err(|error| {
                    let is_plain = failure.to_string().starts_with(NO_TLS);
                    if is_plain { error } else { failure }
                })
            })
        }
        Some(_) | None => ask_once(address, name, secret, tls, patience),
    }
}

fn ask_once(
    address: SocketAddr,
    name: &str,
    secret: &Secret,
    tls: Option<&NeighbourTls>,
    patience: Duration,
) -> io::Result<Standing> {
    let until = now() + patience;
    let stream = TcpStream::connect_timeout(&address, patience)?;
    let stream = Bounded { stream, until };
    let answer = match tls {
        None => converse(stream, name, secret),
        Some(tls) => {
            let host = ServerName::try_from(name.to_owned())
                .map_err(|_| io::Error::other("its name is none that a certificate can have"))?;
            let connection = ClientConnection::new(tls.dialling.clone(), host)
                .map_err(|error| io::Error::other(format!("TLS cannot be set up: {error}")))?;
            converse(StreamOwned::new(connection, stream), name, secret)
        }
    };
    // What a timeout of a socket is called differs between systems, and says nothing.
    answer.map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => io::Error::new(
            ErrorKind::TimedOut,
            format!(
                "it said nothing for {} s",
                (patience.as_secs_f64() * 10.0).round() / 10.0
            ),
        ),
        _ => match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(error) => io::Error::other(of_tls(error)),
            None => error,
        },
    })
}

/// A socket that is given up at a moment, however slowly it goes on.
struct Bounded {
    stream: TcpStream,
    until: Instant,
}

impl Bounded {
    fn left(&self) -> io::Result<Option<Duration>> {
        match self.until.saturating_duration_since(now()) {
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

/// With TLS at one end only, nothing that the other end says makes sense.
const ONE_SIDED: &str =
    "the config file and the server do not agree on [peers.tls]; was the server started with it?";

/// Why TLS cannot go on, in words.
fn of_tls(error: &rustls::Error) -> String {
    let reason = TlsError::from(error.clone()).reason;
    match reason.as_str() {
        NO_TLS => format!("{NO_TLS}; {ONE_SIDED}"),
        _ => reason,
    }
}

fn converse(stream: impl Read + Write, name: &str, secret: &Secret) -> io::Result<Standing> {
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
    let is_proven = |proof: &str| parties.is_proven(Side::Acceptor, secret, proof.as_bytes());
    if !proof.strip_prefix("PROOF ").is_some_and(is_proven) {
        return Err(unexpected(&proof));
    }
    let status = line(&mut stream)?;
    standing(&status).ok_or_else(|| unexpected(&status))
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

/// Which version the server speaks, if that is what it complains of.
fn other_version(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("BYE it speaks version ")?;
    let (_, theirs) = rest.split_once(" of the neighbours' protocol, this server ")?;
    theirs.split(';').next()?.trim().parse().ok()
}

/// Takes a status apart; keys that are not known are passed over.
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
        unlinked: timed("unlinked").collect::<Option<_>>()?,
        secret: value("secret").and_then(of_two),
        plain: number("plain"),
        linked: links.iter().map(|link| link.name.clone()).collect(),
        links,
    })
}

/// `<place>/<count>`
fn of_two(text: &str) -> Option<(u64, u64)> {
    let (place, count) = text.split_once('/')?;
    Some((place.parse().ok()?, count.parse().ok()?))
}

/// `<state>[:<ms>[:<bytes>]]`; a state of a later version is none that is known.
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

/// `<kind>:<count>,…`
fn handshakes(text: &str) -> Option<Vec<(String, u64)>> {
    let pair = |pair: &str| {
        let (kind, count) = pair.split_once(':')?;
        Some((Escaped(kind.as_bytes()).to_string(), count.parse().ok()?))
    };
    text.split(',').map(pair).collect()
}

/// `<unconfirmed>:<apart>:<lacks>:<name>`
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
    fn a_status_line_is_taken_apart() {
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
            unlinked: vec![("Bernard".into(), 70)],
            linked: vec!["Riley".into(), "Juzang".into()],
            links: vec![
                link("Riley", 0, Some(-12), 0, 0),
                link("Juzang", 9, None, 2, 80),
            ],
        };
        let line = "STATUS boot=0123456789abcdef wall=7 records=3 digest=00000000000000ff clients=1 stale=4 refused=5 ahead=6 behind=8 version=9.8.7 secret=1/2 plain=1 handshakes=plain-text:3,cut-off:1 disk=refusing:1200:4096 table=full clocks=behind max_clients=50 unlinked=70:Bernard lag=80:Juzang link=0:-12:0:Riley later=what=ever link=9:?:2:Juzang";
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
    fn a_server_of_another_version_is_told_of_in_words() {
        let told = |line: &str| unexpected(line).to_string();
        assert_eq!(
            told("BYE it speaks version 2 of the neighbours' protocol, this server 1"),
            "it speaks version 1 of the neighbours' protocol, this program 2; upgrade it"
        );
        assert_eq!(
            told("BYE it speaks version 2 of the neighbours' protocol, this server 3; upgrade it"),
            "it speaks version 3 of the neighbours' protocol, this program 2; upgrade this program"
        );
        assert_eq!(told("BYE no"), "it said: no");
    }
}
