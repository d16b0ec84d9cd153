//! Tutorial 3: an HTTPS GET with the state machine that servers use to ask Google Places.
//!
//! Three state machines are stacked. None of them has a socket or a clock. This program adds both.
//! It has nothing else to do, so its socket blocks. The server's loop makes the same calls when its
//! poll reports that a socket is ready.
//!
//! ```text
//!   socket ─ ciphertext ─► TlsSession ─ plaintext ─► Exchange ─► Response
//!   socket ◄─ ciphertext ─ TlsSession ◄─ plaintext ─ Exchange
//! ```
//!
//! Every wait is bounded: each read waits at most until the next deadline of the exchange. The
//! limits `places_head_bytes` and `places_body_bytes` bound the size of the head and of the body.
//!
//! Run `cargo run --example https_get -- https://www.example.org /`. A third argument names a file
//! of trusted certificate authorities. Without it, the authorities that browsers trust are used.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use herd_mio::config::{HerdConfig, Overrides, Source};
use herd_mio::core::base::boot_id::BootId;
use herd_mio::core::base::limits::LimitValue;
use herd_mio::core::base::settings::Settings;
use herd_mio::core::base::slots::Id;
use herd_mio::core::places::exchange::{Effect, Exchange};
use herd_mio::core::places::response::Response;
use herd_mio::core::session::context::Context;
use herd_mio::core::session::herd::Herd;
use herd_mio::core::session::protocol::{Protocol, StreamEnd};
use herd_mio::core::session::tally::Tally;
use herd_mio::core::session::tls::{Tls, TlsEnd, TlsSession};
use herd_mio::core::session::unproven::UnprovenPeers;
use herd_mio::core::table::records::Records;
use herd_mio::shell::clock::Clock;

/// The parts of a server that a session can look at. Only the settings and the time matter here: an
/// exchange does not use the table of records or the neighbours.
pub(crate) struct Https {
    pub(crate) settings: Settings,
    records: Records,
    herd: Herd,
    unproven: UnprovenPeers,
    tally: Tally,
    clock: Clock,
}

impl Https {
    /// Prepares requests to `origin`, which is `https://host[:port]`.
    ///
    /// # Errors
    /// The origin is not such a URL, or the file of authorities cannot be used.
    pub(crate) fn new(origin: &str, ca_file: Option<PathBuf>) -> Result<Https, String> {
        let overrides = Overrides {
            places_url: Some(origin.to_owned()),
            places_ca: ca_file,
            ..Overrides::default()
        };
        let herd = HerdConfig::load(&Source::Name, Some("Riley"));
        let config = herd.and_then(|herd| herd.server("Riley", &overrides));
        let settings = config.map_err(|error| error.to_string())?.settings;
        Ok(Https {
            records: Records::new(&settings.limits),
            herd: Herd::new(Vec::new(), &settings.limits),
            unproven: UnprovenPeers::default(),
            tally: Tally::default(),
            clock: Clock::start(),
            settings,
        })
    }

    /// Gets `path`. The addresses of the host are tried one after the other.
    ///
    /// # Errors
    /// The reason, in the words that a server would log.
    pub(crate) fn get(&mut self, path: &str) -> Result<Box<Response>, String> {
        let origin = self.settings.places.origin.clone();
        let found = (&*origin.host, origin.port).to_socket_addrs();
        let found = found.map_err(|error| format!("{}: {error}", origin.host))?;
        // `identity` asks for a body without compression. A response with a content coding is
        // refused.
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {origin}\r\nAccept-Encoding: identity\r\n\r\n");
        let timeout = self.settings.limits.places_connect_ms.to_duration();
        let mut reason = format!("{} has no address", origin.host);
        for address in found {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => return self.exchange(stream, address, request.into_bytes()),
                Err(error) => reason = format!("{address}: {error}"),
            }
        }
        Err(reason)
    }

    /// Runs one exchange over a connected socket.
    fn exchange(
        &mut self,
        stream: TcpStream,
        address: SocketAddr,
        request: Vec<u8>,
    ) -> Result<Box<Response>, String> {
        // A server has many requests under way, and tells them apart by these ids. This program has
        // one.
        let call = Id::from_u64(0);
        let now = self.clock.now().time;
        let mut exchange = Exchange::new(call, address, request, &self.settings.limits, now);
        exchange.begin_handshake(now);
        let places = &self.settings.places;
        let tls = Tls::client(places.tls.clone(), &places.origin.host);
        // The exchange has a deadline for the handshake, so TLS needs none.
        let tls = TlsSession::new(tls.map_err(|error| error.to_string())?).without_timeout();
        let mut connection = Connection {
            stream,
            tls,
            exchange,
        };
        loop {
            // Before the handshake is done, the exchange has no output: the first bytes are those
            // of TLS. So a server with a wrong certificate never gets the request.
            connection.write(self)?;
            match connection.read(self)? {
                Some(Effect::Answered { response, .. }) => return Ok(response),
                Some(Effect::Failed { failure, .. } | Effect::Lost { failure, .. }) => {
                    return Err(failure.reason.to_string());
                }
                // The handshake is done, and the request is in the output now.
                Some(Effect::HandshakeDone(_)) | None => {}
            }
        }
    }

    /// The view of the server that one event gets.
    fn context<'a>(&'a mut self, tls: &'a TlsSession) -> Context<'a> {
        Context {
            now: self.clock.now(),
            settings: &self.settings,
            boot: BootId(0),
            is_stopping: false,
            clients: 0,
            records: &mut self.records,
            herd: &mut self.herd,
            unproven: &mut self.unproven,
            durability: None,
            tally: &mut self.tally,
            tls: Some(tls),
        }
    }
}

/// The socket and the two machines above it.
struct Connection {
    stream: TcpStream,
    tls: TlsSession,
    exchange: Exchange,
}

impl Connection {
    /// Writes all output. TLS encrypts the exchange's output piece by piece.
    fn write(&mut self, https: &mut Https) -> Result<(), String> {
        loop {
            let timeout = self.time_left(https);
            let plaintext = self.exchange.output(&mut https.context(&self.tls));
            let ciphertext = self.tls.output(plaintext);
            if ciphertext.is_empty() {
                return Ok(());
            }
            let told = |error: io::Error| format!("the request was not sent: {error}");
            self.stream.set_write_timeout(timeout).map_err(told)?;
            let count = self.stream.write(ciphertext).map_err(told)?;
            let sent = self.tls.output_sent(count);
            self.exchange
                .output_sent(sent, &mut https.context(&self.tls));
        }
    }

    /// Waits for input or for the deadline, and handles the one that comes first. A server acts on
    /// each effect at once. Here the last effect is returned, because an answer comes after all
    /// others.
    fn read(&mut self, https: &mut Https) -> Result<Option<Effect>, String> {
        let mut bytes = [0; 16 * 1024];
        let timeout = self.time_left(https);
        let told = |error: io::Error| error.to_string();
        self.stream.set_read_timeout(timeout).map_err(told)?;
        let count = match self.stream.read(&mut bytes) {
            Ok(0) => {
                return Ok(match self.tls.eof_received() {
                    TlsEnd::Known => None,
                    TlsEnd::Ended(end) => self.ended(end, https),
                    TlsEnd::Failed => self.failed(https),
                });
            }
            Ok(count) => count,
            Err(error) if is_timeout(&error) => {
                let context = &mut https.context(&self.tls);
                return Ok(self.exchange.deadline_reached(context));
            }
            Err(error) => return Err(error.to_string()),
        };
        let mut plaintext = Vec::new();
        let events = self.tls.data_received(&bytes[..count], &mut plaintext);
        let mut effect = None;
        if events.handshake_done {
            let context = &mut https.context(&self.tls);
            effect = self.exchange.connection_made(context);
        }
        if !plaintext.is_empty() {
            let context = &mut https.context(&self.tls);
            effect = self.exchange.data_received(&plaintext, context).or(effect);
        }
        if events.peer_closed && !matches!(effect, Some(Effect::Answered { .. })) {
            effect = self.ended(StreamEnd::Whole, https).or(effect);
        }
        if events.has_failed && !matches!(effect, Some(Effect::Answered { .. })) {
            effect = self.failed(https).or(effect);
        }
        Ok(effect)
    }

    fn ended(&mut self, end: StreamEnd, https: &mut Https) -> Option<Effect> {
        let context = &mut https.context(&self.tls);
        self.exchange.eof_received(end, context)
    }

    fn failed(&mut self, https: &mut Https) -> Option<Effect> {
        let error = self.tls.error()?;
        let context = &mut https.context(&self.tls);
        self.exchange.tls_failed(error, context)
    }

    /// The time until the exchange's deadline. It is never zero: `set_read_timeout` refuses a zero
    /// timeout.
    fn time_left(&self, https: &Https) -> Option<Duration> {
        let due = self.exchange.deadline(&https.settings.limits)?;
        let left = due.since(https.clock.now().time);
        Some(left.max(Duration::from_millis(1)))
    }
}

/// Systems report a socket's timeout differently. An interrupted read is treated as a timeout too:
/// the deadline is checked, and the program goes on if it is not due.
fn is_timeout(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

fn main() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1);
    let (Some(origin), Some(path)) = (arguments.next(), arguments.next()) else {
        return Err("usage: https_get https://host[:port] /path [ca.pem]".to_owned());
    };
    let response = Https::new(&origin, arguments.next().map(PathBuf::from))?.get(&path)?;
    eprintln!("status {}", response.status());
    let mut stdout = io::stdout();
    let written = stdout.write_all(response.body());
    written.map_err(|error| error.to_string())
}
