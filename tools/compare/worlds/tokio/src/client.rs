//! A client's connection: commands in, answers out, in order.
//!
//! The answers to all lines of one read go into one buffer, which is then written at once. While
//! this task waits for its write, it does not read. So a client that does not read its answers is
//! not read either.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::herd::{Herd, Server};
use crate::lines::{Escaped, Split, split};
use crate::message::{At, Command, Coordinates, Iamat, Whatsat};
use crate::time::{Order, PosixTime, Skew};

/// The greatest length of a line before its LF.
const LINE_BYTES: usize = 4096;
/// The greatest number of bytes of one read.
const READ_BYTES: usize = 16 * 1024;
/// Memory for answers that an idle client keeps.
const OUTPUT_BYTES: usize = 64 * 1024;
/// The time limit for a client to take its answers.
const STALL: Duration = Duration::from_secs(60);
/// After the last answer the connection is read for so long. Otherwise unread input would reset it,
/// and the answer could be lost.
const LINGER: Duration = Duration::from_secs(2);

/// Serves one client until its connection ends.
pub(crate) async fn serve(stream: TcpStream, server: Arc<Server>) {
    let Ok(address) = stream.peer_addr() else {
        return; // The client has closed already.
    };
    let serial = {
        let mut herd = server.herd();
        herd.clients += 1;
        herd.next_serial()
    };
    let mut client = Client {
        who: Who { serial, address },
        server: &server,
        stream,
        input: BytesMut::new(),
        output: Vec::new(),
        has_flooded: false,
    };
    match client.converse().await {
        Ok(()) => debug!("{}: closed", client.who),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            warn!("{}: closing: it did not read its answers", client.who);
        }
        Err(error) => debug!("{}: gone: {error}", client.who),
    }
    server.herd().clients -= 1;
}

/// A client's name in the log.
#[derive(Clone, Copy)]
struct Who {
    serial: u64,
    address: SocketAddr,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {} {}", self.serial, self.address)
    }
}

struct Client<'a> {
    who: Who,
    server: &'a Server,
    stream: TcpStream,
    /// Bytes that are not handled yet.
    input: BytesMut,
    output: Vec<u8>,
    /// The output has answers to updates. The neighbours must get those updates first.
    has_flooded: bool,
}

/// The next step before another line can be answered.
enum Next {
    Read,
    Ask(Asked),
    HangUp,
}

/// A valid `WHATSAT` about a known client.
struct Asked {
    /// The client's record at that moment.
    at_line: Vec<u8>,
    question: String,
    bound: usize,
}

impl Client<'_> {
    async fn converse(&mut self) -> io::Result<()> {
        let server = self.server;
        let stopped = server.stop_clients.cancelled();
        tokio::pin!(stopped);
        let mut at_end = false;
        loop {
            let next = self.answer_lines(at_end);
            self.flush().await?;
            match next {
                Next::Ask(asked) => self.answer_asked(&asked).await,
                Next::HangUp => return self.linger().await,
                Next::Read if at_end => return Ok(()),
                Next::Read => {
                    self.input.reserve(READ_BYTES);
                    let count = tokio::select! {
                        biased;
                        count = self.stream.read_buf(&mut self.input) => count?,
                        () = &mut stopped => return self.linger().await,
                    };
                    at_end = count == 0;
                }
            }
        }
    }

    /// Answers whole lines until none is left, or one has to wait for Places.
    fn answer_lines(&mut self, at_end: bool) -> Next {
        let mut herd = self.server.herd();
        let mut turn = Turn {
            who: self.who,
            server: self.server,
            herd: &mut herd,
            receipt: PosixTime::now(),
            output: &mut self.output,
            has_news: false,
        };
        let mut used = 0;
        let next = loop {
            let rest = &self.input[used..];
            let line = match split(rest, LINE_BYTES) {
                Split::Line(line, length) => {
                    used += length;
                    line.strip_suffix(b"\r").unwrap_or(line)
                }
                // At the end of input, a last line needs no LF.
                Split::Unfinished if at_end && !rest.is_empty() => {
                    used += rest.len();
                    rest
                }
                Split::Unfinished => break Next::Read,
                Split::TooLong => {
                    warn!(
                        "{}: closing: a line of more than {LINE_BYTES} bytes",
                        self.who
                    );
                    turn.quote(&rest[..LINE_BYTES]);
                    break Next::HangUp;
                }
            };
            if let Some(asked) = turn.command(line) {
                break Next::Ask(asked);
            }
        };
        self.has_flooded = turn.has_news && herd.wake_links();
        drop(herd);
        self.input.advance(used);
        next
    }

    async fn answer_asked(&mut self, asked: &Asked) {
        let answer = self.server.places.ask(&asked.question).await;
        let json = answer.json(asked.bound);
        info!(
            "{} -> {} and {} bytes of JSON, {}",
            self.who,
            Escaped(&asked.at_line),
            json.len(),
            answer.source(),
        );
        self.output.extend_from_slice(&asked.at_line);
        self.output.push(b'\n');
        self.output.extend_from_slice(json.as_bytes());
        self.output.extend_from_slice(b"\n\n");
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        if self.has_flooded {
            // The neighbours get updates before the client gets its answer. Their tasks were woken,
            // and run while this task yields.
            yield_now().await;
        }
        timeout(STALL, self.stream.write_all(&self.output)).await??;
        self.output.clear();
        self.output.shrink_to(OUTPUT_BYTES);
        Ok(())
    }

    /// Reads until the client closes. A close with unread input would reset the connection, and the
    /// client could lose its answers (RFC 9293 §3.6.1).
    async fn linger(&mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        let mut nowhere = tokio::io::sink();
        let ignored = tokio::io::copy(&mut self.stream, &mut nowhere);
        match timeout(LINGER, ignored).await {
            Ok(end) => end.map(drop),
            Err(_) => Ok(()),
        }
    }
}

/// The parts that the lines of one read use.
struct Turn<'a> {
    who: Who,
    server: &'a Server,
    herd: &'a mut Herd,
    receipt: PosixTime,
    output: &'a mut Vec<u8>,
    has_news: bool,
}

impl Turn<'_> {
    fn command(&mut self, line: &[u8]) -> Option<Asked> {
        let command = Command::parse(line);
        if !matches!(command, Command::Blank) {
            info!("{} <- {}", self.who, Escaped(line));
        }
        match command {
            Command::Blank => None,
            Command::Iamat(iamat) => {
                self.iamat(&iamat);
                None
            }
            Command::Whatsat(whatsat) => {
                let asked = self.whatsat(&whatsat);
                if asked.is_none() {
                    self.quote(line);
                }
                asked
            }
            Command::Invalid => {
                self.quote(line);
                None
            }
        }
    }

    fn iamat(&mut self, iamat: &Iamat<'_>) {
        let skew = Skew::between(self.receipt, iamat.stamp);
        let start = self.output.len();
        // Writing into memory never fails.
        let _ = io::Write::write_fmt(self.output, format_args!("AT {} {skew} ", self.server.name));
        self.output.extend_from_slice(iamat.client);
        self.output.push(b' ');
        self.output.extend_from_slice(iamat.location);
        self.output.push(b' ');
        self.output.extend_from_slice(iamat.time);
        let line = &self.output[start..];
        info!("{} -> {}", self.who, Escaped(line));
        if let Some(order) = Order::new(iamat.stamp, skew) {
            let records = &mut self.herd.records;
            self.has_news |= records.update(line, iamat.client, order, self.receipt);
        }
        self.output.push(b'\n');
    }

    /// `None` if the client has no record.
    fn whatsat(&mut self, whatsat: &Whatsat<'_>) -> Option<Asked> {
        let line = self.herd.records.line(whatsat.client)?;
        let place = Coordinates::parse(At::parse(line)?.location)?;
        Some(Asked {
            at_line: line.to_vec(),
            question: format!(
                "location={}&radius={}",
                place.plain(),
                whatsat.radius.metres()
            ),
            bound: whatsat.bound,
        })
    }

    /// Refuses a line: `? ` and a copy of it.
    fn quote(&mut self, line: &[u8]) {
        info!("{} -> ? {}", self.who, Escaped(line));
        self.output.extend_from_slice(b"? ");
        self.output.extend_from_slice(line);
        self.output.push(b'\n');
    }
}
