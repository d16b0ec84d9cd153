//! A connection between two servers of the herd. The protocol is described in herd-mio's
//! `core::link`.
//!
//! A link is one task. First both ends prove their names, line by line. Then two futures run in it
//! side by side: one reads and one writes. There have to be two. If a server did not read while it
//! writes, two servers that write to each other at the same time would wait for ever.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cli::Dialled;
use crate::herd::{Heard, Herd, LinkHandle, Server};
use crate::lines::{Escaped, Split, number, split};
use crate::message::At;
use crate::proof::{Hex, Nonce, OPERATOR, Parties, Side, random, unhex};
use crate::records::Teacher;
use crate::time::wall_ns;

/// The version of the neighbours' protocol.
const VERSION: &str = "2";
/// The greatest length of a line before its LF: a client's line, a server's name, a skew, and
/// perhaps an epoch.
const LINE_BYTES: usize = 4096 + 256;
/// The size of a read or a write.
const BATCH_BYTES: usize = 64 * 1024;
/// The time limit of a connect.
const CONNECT: Duration = Duration::from_secs(3);
/// The time limit for a peer's proof.
const PROOF: Duration = Duration::from_secs(5);
const HEARTBEAT: Duration = Duration::from_secs(3);
/// The delay of a KEPT, so that one confirms many batches.
const CONFIRM: Duration = Duration::from_millis(200);
/// After so long a silence of the neighbour the link is closed.
const SILENCE: Duration = Duration::from_secs(10);
/// The time limit for the last output.
const LINGER: Duration = Duration::from_secs(2);
/// After a link that held for so long, the first redial comes soon.
const STEADY: Duration = Duration::from_secs(2);
const REDIAL_FIRST: Duration = Duration::from_millis(100);
const REDIAL_CAP: Duration = Duration::from_secs(1);
/// A greater difference of the wall clocks is logged.
const CLOCK_TOLERANCE_NS: u64 = 1_000_000_000;
/// At most so many bytes of the peer's line are logged.
const SHOWN_BYTES: usize = 100;

/// Why a link ended.
enum End {
    /// The peer ended it, or was silent.
    Theirs(String),
    /// This server ends it, and tells the peer why.
    Ours(String),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        End::Theirs(error.to_string())
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (End::Theirs(reason) | End::Ours(reason)) = self;
        f.write_str(reason)
    }
}

fn ours<T>(reason: impl Into<String>) -> Result<T, End> {
    Err(End::Ours(reason.into()))
}

/// The beginning of a peer's line, escaped for the log.
fn shown(bytes: &[u8]) -> Escaped<'_> {
    Escaped(&bytes[..bytes.len().min(SHOWN_BYTES)])
}

/// Serves a peer that connected to the neighbours' port.
pub(crate) async fn accepted(stream: TcpStream, server: Arc<Server>) {
    let Ok(address) = stream.peer_addr() else {
        return; // The peer has closed already.
    };
    let mut link = Link::new(&server, Side::Acceptor, None);
    let end = link.run(stream).await;
    link.tell_log(address, &end);
}

/// Dials a neighbour, again and again, until the server stops.
pub(crate) async fn keep_dialling(dialled: Dialled, server: Arc<Server>) {
    let place = server
        .herd()
        .neighbours
        .iter()
        .position(|neighbour| neighbour.name == dialled.name);
    let mut step = REDIAL_FIRST;
    let mut complaint = String::new();
    while !server.stop_links.is_cancelled() {
        let mut link = Link::new(&server, Side::Dialler, place);
        let failure = match timeout(CONNECT, dial(&dialled.address)).await {
            Ok(Ok((stream, address))) => {
                let end = link.run(stream).await;
                if link.linked_since.is_some() {
                    link.tell_log(address, &end);
                    None
                } else {
                    Some(end.to_string())
                }
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no connection within {} s", CONNECT.as_secs())),
        };
        match failure {
            // The same failure is logged once, and not every second.
            Some(failure) if failure != complaint => {
                warn!(
                    "neighbour {} {}: not linked: {failure}; trying on",
                    dialled.name, dialled.address
                );
                complaint = failure;
            }
            Some(_) => {}
            None => complaint.clear(),
        }
        if link
            .linked_since
            .is_some_and(|since| since.elapsed() >= STEADY)
        {
            step = REDIAL_FIRST;
        }
        tokio::select! {
            () = sleep(jittered(step)) => {}
            () = server.stop_links.cancelled() => {}
        }
        step = (step * 2).min(REDIAL_CAP);
    }
}

async fn dial(address: &str) -> io::Result<(TcpStream, SocketAddr)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let address = stream.peer_addr()?;
    Ok((stream, address))
}

/// 50 % to 90 % of a wait. So servers that lost the same neighbour do not all dial at the same
/// time.
fn jittered(wait: Duration) -> Duration {
    let share = random::<1>().map_or(0.5, |[byte]| f64::from(byte) / 255.0);
    wait.mul_f64(0.5 + 0.4 * share)
}

/// One link from its greeting to its end.
struct Link<'a> {
    server: &'a Server,
    side: Side,
    /// The index of the neighbour that was dialled or has proved its name.
    neighbour: Option<usize>,
    is_proven: bool,
    is_operator: bool,
    linked_since: Option<Instant>,
    /// Input that is not handled yet.
    input: BytesMut,
    /// Output that is not written yet.
    output: BytesMut,
}

/// The state of a link after its handshake.
struct Linked {
    neighbour: usize,
    teacher: Teacher,
    wake: Arc<Notify>,
    replaced: CancellationToken,
    /// Notified when there is something to confirm.
    unconfirmed: Notify,
    /// The position in our feed up to which the neighbour has it.
    position: u64,
}

impl<'a> Link<'a> {
    fn new(server: &'a Server, side: Side, neighbour: Option<usize>) -> Link<'a> {
        Link {
            server,
            side,
            neighbour,
            is_proven: false,
            is_operator: false,
            linked_since: None,
            input: BytesMut::new(),
            output: BytesMut::new(),
        }
    }

    async fn run(&mut self, mut stream: TcpStream) -> End {
        let (mut reader, mut writer) = stream.split();
        let proven = timeout(PROOF, self.prove(&mut reader, &mut writer)).await;
        let end = match proven {
            Ok(Ok(Some(linked))) => self.flow(&mut reader, &mut writer, linked).await,
            Ok(Ok(None)) => End::Theirs("told how the server stands".to_owned()),
            Ok(Err(end)) => end,
            Err(_) => {
                let patience = PROOF.as_secs();
                End::Ours(format!("it did not prove who it is within {patience} s"))
            }
        };
        if let End::Ours(reason) = &end {
            self.say(format_args!("BYE {reason}"));
        }
        if matches!(end, End::Ours(_)) || self.is_operator {
            // The last line is written, then the peer is read until it closes. A reset could
            // destroy that line.
            let goodbye = async {
                writer.write_all_buf(&mut self.output).await?;
                writer.shutdown().await?;
                tokio::io::copy(&mut reader, &mut tokio::io::sink()).await
            };
            // The connection ends in any case.
            let _ = timeout(LINGER, goodbye).await;
        }
        end
    }

    fn say(&mut self, line: fmt::Arguments<'_>) {
        // Writing into memory never fails.
        let _ = fmt::Write::write_fmt(&mut self.output, format_args!("{line}\n"));
    }

    async fn send(&mut self, writer: &mut WriteHalf<'_>) -> io::Result<()> {
        writer.write_all_buf(&mut self.output).await
    }

    /// The next line of the handshake, in which one side waits for the other.
    async fn line(&mut self, reader: &mut ReadHalf<'_>) -> Result<BytesMut, End> {
        loop {
            match split(&self.input, LINE_BYTES) {
                Split::Line(_, length) => {
                    let mut line = self.input.split_to(length);
                    line.truncate(length - 1);
                    return match line.strip_prefix(b"BYE ") {
                        Some(reason) => Err(goodbye(reason)),
                        None => Ok(line),
                    };
                }
                Split::Unfinished => {}
                Split::TooLong => return ours(too_long()),
            }
            if reader.read_buf(&mut self.input).await? == 0 {
                return Err(End::Theirs("it closed the connection".to_owned()));
            }
        }
    }

    /// Both ends prove their names. `None` for an operator, who has got the server's status.
    async fn prove(
        &mut self,
        reader: &mut ReadHalf<'_>,
        writer: &mut WriteHalf<'_>,
    ) -> Result<Option<Linked>, End> {
        let (server, side) = (self.server, self.side);
        let nonce: Nonce = random().map_err(End::Ours)?;
        let greet = |name: &str| format!("HERD {VERSION} {} {name} {}", server.name, Hex(&nonce));
        if let (Side::Dialler, Some(place)) = (side, self.neighbour) {
            let name = server.herd().neighbours[place].name.clone();
            self.say(format_args!("{}", greet(&name)));
            self.send(writer).await?;
        }
        let line = self.line(reader).await?;
        let (their_name, their_nonce) = self.greeted(&line)?;
        if side == Side::Acceptor {
            self.say(format_args!("{}", greet(&their_name)));
        }

        let (us, them) = ((&*server.name, &nonce), (&*their_name, &their_nonce));
        let parties = match side {
            Side::Dialler => Parties {
                dialler: us,
                acceptor: them,
            },
            Side::Acceptor => Parties {
                dialler: them,
                acceptor: us,
            },
        };
        let own_proof = parties.prove(side, &server.secret);
        // The dialler proves itself first. So an unproven peer that dials gets nothing that was
        // made with the secret.
        if side == Side::Dialler {
            self.say(format_args!("PROOF {own_proof}"));
        }
        self.send(writer).await?;
        let line = self.line(reader).await?;
        let Some(proof) = line.strip_prefix(b"PROOF ") else {
            return ours(unexpected(&line));
        };
        if !parties.is_proven(side.other(), &server.secret, proof) {
            return ours("a wrong proof: do both servers have the same herd secret?");
        }
        self.is_proven = true;
        if side == Side::Acceptor {
            self.say(format_args!("PROOF {own_proof}"));
        }
        let Some(place) = self.neighbour else {
            let status = status(server);
            self.say(format_args!("{status}"));
            return Ok(None);
        };

        let (boot, wall) = (server.boot, wall_ns());
        let heard = server.herd().neighbours[place].heard;
        match heard {
            Some(Heard {
                boot: theirs,
                position,
                ..
            }) => {
                self.say(format_args!(
                    "LIFE {boot:016x} {wall} {theirs:016x} {position}"
                ));
            }
            None => self.say(format_args!("LIFE {boot:016x} {wall} - 0")),
        }
        self.send(writer).await?;
        let line = self.line(reader).await?;
        match self.life(&line, place) {
            Some(linked) => Ok(Some(linked)),
            None => ours(unexpected(&line)),
        }
    }

    /// Handles a `HERD`. Returns the peer's name and its nonce.
    fn greeted(&mut self, line: &[u8]) -> Result<(String, Nonce), End> {
        let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let (from, to, nonce) = match words[..] {
            [b"HERD", version, ..] if version != VERSION.as_bytes() => {
                let version = shown(version);
                return ours(format!(
                    "it speaks version {version} of the neighbours' protocol, this server {VERSION}; \
                     upgrade the older one"
                ));
            }
            [b"HERD", _, from, to, nonce] => (from, to, nonce),
            _ => return ours(unexpected(line)),
        };
        let own_name = &self.server.name;
        if to != own_name.as_bytes() {
            return ours(format!("it looks for {}, this is {own_name}", shown(to)));
        }
        let Some(nonce) = unhex(nonce) else {
            return ours("a nonce that is not 32 hexadecimal digits");
        };
        if self.side == Side::Acceptor && from == OPERATOR.as_bytes() {
            self.is_operator = true;
            return Ok((OPERATOR.to_owned(), nonce));
        }
        let herd = self.server.herd();
        let is_called = |name: &String| name.as_bytes() == from;
        let Some(place) = herd.neighbours.iter().position(|n| is_called(&n.name)) else {
            return ours(format!("{} is not linked with {own_name}", shown(from)));
        };
        match self.side {
            Side::Dialler if self.neighbour != Some(place) => {
                return ours(format!("{} answered instead", shown(from)));
            }
            Side::Acceptor if herd.neighbours[place].we_dial => {
                return ours(format!("it is {own_name} that dials {}", shown(from)));
            }
            Side::Dialler | Side::Acceptor => {}
        }
        self.neighbour = Some(place);
        Ok((herd.neighbours[place].name.clone(), nonce))
    }

    /// Handles `LIFE <boot> <wall> <your boot> <position>`, which completes the link. `None` if the
    /// line is not valid.
    fn life(&mut self, line: &[u8], neighbour: usize) -> Option<Linked> {
        let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let [b"LIFE", boot, wall, own_boot, position] = words[..] else {
            return None;
        };
        let boot = u64::from_be_bytes(unhex(boot)?);
        let (wall, position) = (number(wall)?, number(position)?);

        let server = self.server;
        let mut herd = server.herd();
        let serial = herd.next_serial();
        let Herd {
            records,
            neighbours,
            ..
        } = &mut *herd;
        let entry = &mut neighbours[neighbour];
        // A position counts only for the life from which it came.
        let heard = match entry.heard {
            Some(heard) if heard.boot == boot => heard,
            Some(_) | None => *entry.heard.insert(Heard {
                boot,
                position: 0,
                teacher: Teacher(serial),
            }),
        };
        let knows_us = unhex(own_boot).is_some_and(|boot| u64::from_be_bytes(boot) == server.boot);
        let resumes = knows_us && position <= records.last_seq();
        let linked = Linked {
            neighbour,
            teacher: heard.teacher,
            wake: Arc::new(Notify::new()),
            replaced: CancellationToken::new(),
            unconfirmed: Notify::new(),
            position: if resumes { position } else { 0 },
        };
        // A neighbour that proves itself again has lost the old connection, so the old link ends.
        if let Some(old) = entry.link.take() {
            old.replaced.cancel();
        }
        entry.link = Some(LinkHandle {
            wake: linked.wake.clone(),
            replaced: linked.replaced.clone(),
            confirmed: heard.position,
            kept: linked.position,
            lacks: 0,
        });
        let behind = records.last_seq() - linked.position;
        info!("neighbour {}: linked, {behind} changes behind", entry.name);
        let apart = wall.abs_diff(wall_ns());
        if apart > CLOCK_TOLERANCE_NS {
            let seconds = apart / 1_000_000_000;
            warn!(
                "neighbour {}: its clock is {seconds} s off ours",
                entry.name
            );
        }
        self.linked_since = Some(Instant::now());
        Some(linked)
    }

    /// Sends and receives records until the link ends.
    async fn flow(
        &mut self,
        reader: &mut ReadHalf<'_>,
        writer: &mut WriteHalf<'_>,
        linked: Linked,
    ) -> End {
        let server = self.server;
        let mut position = linked.position;
        let end = tokio::select! {
            biased;
            () = linked.replaced.cancelled() => {
                End::Ours("a newer connection took its place".to_owned())
            }
            () = server.stop_links.cancelled() => End::Ours("stopping".to_owned()),
            error = tell(server, writer, &mut self.output, &linked, &mut position) => error,
            end = hear(server, reader, &mut self.input, &linked) => end,
        };
        let mut herd = server.herd();
        if server.stop_links.is_cancelled() {
            herd.records
                .read(position, linked.teacher, usize::MAX, &mut self.output);
        }
        let link = &mut herd.neighbours[linked.neighbour].link;
        if link
            .as_ref()
            .is_some_and(|link| Arc::ptr_eq(&link.wake, &linked.wake))
        {
            *link = None;
        }
        end
    }

    fn tell_log(&self, address: SocketAddr, end: &End) {
        let name = self
            .neighbour
            .map(|place| self.server.herd().neighbours[place].name.clone());
        match name {
            Some(name) if self.linked_since.is_some() => {
                if self.server.stop_links.is_cancelled() {
                    info!("neighbour {name} {address}: lost: {end}");
                } else {
                    warn!("neighbour {name} {address}: lost: {end}");
                }
            }
            None if self.is_operator && self.is_proven => info!("operator {address}: {end}"),
            // A refused peer tries again every second. The same refusal is not logged again.
            _ if !self.server.herd().is_news(&end.to_string()) => {}
            Some(name) => warn!("stranger {address}, who says to be {name}: refused: {end}"),
            None => warn!("stranger {address}: refused: {end}"),
        }
    }
}

fn goodbye(reason: &[u8]) -> End {
    End::Theirs(format!("it said goodbye: {}", shown(reason)))
}

fn too_long() -> String {
    format!("a line of more than {LINE_BYTES} bytes")
}

fn unexpected(line: &[u8]) -> String {
    format!("not the neighbours' protocol: {}", shown(line))
}

/// The server's status, for an operator.
fn status(server: &Server) -> String {
    let herd = server.herd();
    let (records, counts) = (&herd.records, &herd.records.counts);
    let mut line = format!(
        "STATUS boot={:016x} wall={} records={} digest={:016x} clients={} stale={} refused=0 ahead={} behind={}",
        server.boot,
        wall_ns(),
        records.len(),
        records.digest(),
        herd.clients,
        counts.stale,
        counts.ahead,
        counts.behind,
    );
    for neighbour in &herd.neighbours {
        if let Some(link) = &neighbour.link {
            let unconfirmed = records.last_seq().saturating_sub(link.kept);
            let (lacks, name) = (link.lacks, &neighbour.name);
            line.push_str(&format!(" link={unconfirmed}:?:{lacks}:{name}"));
        }
    }
    line
}

/// Sends the records that the neighbour lacks whenever the feed has grown, and a heartbeat
/// otherwise.
async fn tell(
    server: &Server,
    writer: &mut WriteHalf<'_>,
    output: &mut BytesMut,
    linked: &Linked,
    position: &mut u64,
) -> End {
    // The first tick comes at once, and sends the records that the neighbour lacks.
    let mut heartbeat = interval(HEARTBEAT);
    let mut confirm_at = None;
    loop {
        let mut has_to_speak = tokio::select! {
            biased;
            () = sleep_until(confirm_at.unwrap_or_else(Instant::now)), if confirm_at.is_some() => {
                confirm_at = None;
                confirm(&mut server.herd(), output, linked);
                false
            }
            () = linked.unconfirmed.notified(), if confirm_at.is_none() => {
                confirm_at = Some(Instant::now() + CONFIRM);
                false
            }
            () = linked.wake.notified() => false,
            _ = heartbeat.tick() => true,
        };
        loop {
            let teacher = linked.teacher;
            *position = server
                .herd()
                .records
                .read(*position, teacher, BATCH_BYTES, output);
            if output.is_empty() && !has_to_speak {
                break;
            }
            has_to_speak = false;
            output.extend_from_slice(format!("SYNC {position}\n").as_bytes());
            if let Err(error) = writer.write_all_buf(output).await {
                return error.into();
            }
        }
    }
}

/// Confirms the received part of the neighbour's feed. All of it is kept in memory.
fn confirm(herd: &mut Herd, output: &mut BytesMut, linked: &Linked) {
    let neighbour = &mut herd.neighbours[linked.neighbour];
    if let (Some(heard), Some(link)) = (neighbour.heard, &mut neighbour.link)
        && heard.position > link.confirmed
    {
        link.confirmed = heard.position;
        output.extend_from_slice(format!("KEPT {}\n", heard.position).as_bytes());
    }
}

/// Receives the neighbour's records.
async fn hear(
    server: &Server,
    reader: &mut ReadHalf<'_>,
    input: &mut BytesMut,
    linked: &Linked,
) -> End {
    loop {
        if let Err(end) = hear_lines(&mut server.herd(), input, linked) {
            return end;
        }
        input.reserve(BATCH_BYTES);
        match timeout(SILENCE, reader.read_buf(input)).await {
            Ok(Ok(0)) => return End::Theirs("it closed the connection".to_owned()),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => {
                return End::Theirs(format!("nothing heard for {} s", SILENCE.as_secs()));
            }
        }
    }
}

/// Handles the whole lines of the input, and wakes the other links after a change.
fn hear_lines(herd: &mut Herd, input: &mut BytesMut, linked: &Linked) -> Result<(), End> {
    let mut used = 0;
    let mut has_news = false;
    let outcome = loop {
        let line = match split(&input[used..], LINE_BYTES) {
            Split::Line(line, length) => {
                used += length;
                line
            }
            Split::Unfinished => break Ok(()),
            Split::TooLong => break ours(too_long()),
        };
        if line.starts_with(b"AT ") || line.starts_with(b"EPOCH ") {
            let Some((line, at)) = At::parse_told(line) else {
                break ours(format!("not an AT line: {}", shown(line)));
            };
            has_news |= herd
                .records
                .offer(line, at.client, at.order, linked.teacher);
        } else if let Some(reason) = line.strip_prefix(b"BYE ") {
            break Err(goodbye(reason));
        } else if notice(herd, line, linked).is_none() {
            break ours(unexpected(line));
        }
    };
    if has_news {
        herd.wake_links();
    }
    input.advance(used);
    outcome
}

/// Handles `SYNC`, `KEPT`, `LACKS` and `CLOCK`. `None` if the line is none of them.
fn notice(herd: &mut Herd, line: &[u8], linked: &Linked) -> Option<()> {
    let (verb, digits) = line.split_at(memchr::memchr(b' ', line)?);
    let value = number(&digits[1..])?;
    let neighbour = &mut herd.neighbours[linked.neighbour];
    let (heard, link) = (neighbour.heard.as_mut()?, neighbour.link.as_mut()?);
    match verb {
        b"SYNC" => {
            heard.position = value;
            if value > link.confirmed {
                linked.unconfirmed.notify_one();
            }
        }
        b"KEPT" => link.kept = value,
        b"LACKS" => {
            if link.lacks != value {
                let name = &neighbour.name;
                warn!("neighbour {name}: records that it had to refuse: {value}");
            }
            link.lacks = value;
        }
        b"CLOCK" => {} // Only LIFE's clock is used.
        _ => return None,
    }
    Some(())
}
