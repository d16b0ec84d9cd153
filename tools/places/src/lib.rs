//! A small HTTPS server that takes the place of Google Places, for tests and for the demo.
//!
//! It speaks both Nearby Searches as Google does, the legacy one and the New API, with the same
//! layout of the JSON. It makes its own certificate authority when it starts. It can show each
//! fault that a client has to survive. The places are invented, and the same point always has the
//! same places.
//!
//! ```
//! use herd_places::{Behaviour, Options, Places};
//!
//! let places = Places::start(Options::default())?;
//! assert!(places.url().starts_with("https://localhost:"));
//! assert!(places.ca_pem().starts_with("-----BEGIN CERTIFICATE-----")); // what a client must trust
//!
//! places.push_behaviour(Behaviour::Status(503)); // the next request fails,
//! places.push_behaviour(Behaviour::Truncated); // the answer to the one after it is cut short,
//! places.set_behaviour(Behaviour::Answer); // and all others are well (as they would be anyway)
//! assert_eq!(places.requests(), []);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! The answers:
//!
//! | request | answer |
//! |---|---|
//! | `GET /maps/api/place/nearbysearch/json?location=…&radius=…&key=…` | the legacy API: 200, errors are in `status` |
//! | `POST /v1/places:searchNearby` | the New API: errors carry their HTTP status |
//! | any other | 404, a page |
//! | not HTTP/1.x, or too long | 400, 408, 411, 413, 431 or 501, an HTML page; then it closes |
//!
//! Around any point it finds 60 places: three pages in the legacy API, the first 20 in the New API.
//! It finds 7 beyond ±80° of latitude, and none beyond ±85°. The names end in `(fictional)`. Some
//! have letters beyond ASCII, escaped quotes, brackets and backslashes, so that a parser with small
//! mistakes fails.
//!
//! The files, from the outside in:
//!
//! | file | |
//! |---|---|
//! | `server.rs` | accepts, starts a thread for each connection, stops them all |
//! | `connection.rs` | one connection: handshake, requests, behaviours |
//! | `wire.rs` | TLS over a blocking socket, with deadlines |
//! | `ledger.rs`, `shared.rs` | what the threads share: requests, connections, settings |
//! | `http.rs`, `json.rs` | bytes to requests, answers to bytes |
//! | `legacy.rs`, `new_api.rs` | the two APIs |
//! | `invented.rs` | the places |
//! | `certificates.rs`, `behaviour.rs`, `event.rs` | certificates, the faults, events for a log |
//! | `cli.rs` | the command line of the program |
//!
//! It uses threads instead of an event loop: it is the other side of the tests, and should share
//! little code with the server under test.

#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "Instant::now is for shells only, and this crate is nothing but a shell"
)]

mod behaviour;
mod certificates;
pub mod cli;
mod connection;
mod event;
mod http;
mod invented;
mod json;
mod ledger;
mod legacy;
mod new_api;
mod server;
mod shared;
mod wire;

use herd_testkit::herd::PlacesServer;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub use behaviour::{Behaviour, End};
pub use event::{Event, Observer};
pub use http::Request;
pub use ledger::Counts;

use ledger::Ledger;
use shared::Shared;

/// The greatest time for which `close_idle` waits for connections that are still sending an answer.
const CLOSE_IDLE_PATIENCE: Duration = Duration::from_secs(5);

/// The settings of a server. Start from `Options::default()` and change some:
///
/// ```
/// use herd_places::{Behaviour, Options};
///
/// let options = Options { behaviour: Behaviour::Hold, ..Options::default() };
/// # let _ = options;
/// ```
#[derive(Clone)]
pub struct Options {
    /// The address to listen on. Default: `127.0.0.1:0`, any free port.
    pub listen: SocketAddr,
    /// The valid API key. Default: `test-key`.
    pub key: String,
    /// DNS names and IP addresses in the certificate. Default: `localhost`, `places.test`,
    /// `127.0.0.1`, `::1`.
    pub names: Vec<String>,
    /// The protocols that it offers by ALPN. With an empty list it ignores ALPN. Default:
    /// `http/1.1`.
    pub alpn: Vec<String>,
    /// The behaviour for each request. Default: [`Behaviour::Answer`].
    pub behaviour: Behaviour,
    /// Only each N-th request gets `behaviour`, counted over all connections. The others are
    /// answered well. Default: 1.
    pub every: NonZeroU64,
    /// Accept TCP connections, but never send anything. Default: false.
    pub silent_accept: bool,
    /// The time for which a connection may be idle. Then the server closes it with a
    /// `close_notify`. Default: 60 s.
    pub keep_alive: Duration,
    /// The greatest number of connections, each with a thread. More are closed as soon as they are
    /// accepted. Default: 512.
    pub max_connections: usize,
    /// Keep every request for [`Places::requests`]. A server that runs for days should not do that.
    /// Default: true.
    pub remember: bool,
    /// Called with each event. Default: `None`.
    pub observer: Option<Observer>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            key: "test-key".to_owned(),
            names: ["localhost", "places.test", "127.0.0.1", "::1"]
                .map(str::to_owned)
                .to_vec(),
            alpn: vec!["http/1.1".to_owned()],
            behaviour: Behaviour::Answer,
            every: NonZeroU64::MIN,
            silent_accept: false,
            keep_alive: Duration::from_secs(60),
            max_connections: 512,
            remember: true,
            observer: None,
        }
    }
}

/// Shows all fields but the key.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("listen", &self.listen)
            .field("names", &self.names)
            .field("alpn", &self.alpn)
            .field("behaviour", &self.behaviour)
            .field("every", &self.every)
            .field("silent_accept", &self.silent_accept)
            .field("keep_alive", &self.keep_alive)
            .field("max_connections", &self.max_connections)
            .field("remember", &self.remember)
            .finish_non_exhaustive()
    }
}

/// A running server. Dropping it stops it at once, even if clients hang or wait. After the drop its
/// port is free and its threads have ended.
pub struct Places {
    shared: Arc<Shared>,
    address: SocketAddr,
    ca_pem: String,
    /// `None` only during the drop.
    accepting: Option<JoinHandle<()>>,
}

impl Places {
    /// Makes the certificates, listens, and starts to accept.
    ///
    /// # Errors
    ///
    /// The server cannot listen on the address, a name is not valid in a certificate
    /// ([`InvalidInput`](io::ErrorKind::InvalidInput)), or no thread can be started.
    pub fn start(options: Options) -> io::Result<Places> {
        let identity = certificates::make(&options.names, &options.alpn)?;
        let listener = TcpListener::bind(options.listen)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            ledger: Ledger::new(options.behaviour, options.every, options.remember),
            tls: identity.tls,
            key: options.key,
            silent_accept: options.silent_accept,
            keep_alive: options.keep_alive,
            max_connections: options.max_connections,
            observer: options.observer,
        });
        let for_it = Arc::clone(&shared);
        let accepting = thread::Builder::new()
            .name("places-accept".to_owned())
            .spawn(move || server::accept(&for_it, &listener))?;
        Ok(Places {
            shared,
            address,
            ca_pem: identity.ca_pem,
            accepting: Some(accepting),
        })
    }

    /// The address of the listener, with the real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://localhost:PORT`. If the server listens on one address that is not loopback, the URL
    /// has that address instead of the name.
    #[must_use]
    pub fn url(&self) -> String {
        let ip = self.address.ip();
        if ip.is_loopback() || ip.is_unspecified() {
            format!("https://localhost:{}", self.address.port())
        } else {
            format!("https://{}", self.address)
        }
    }

    /// The certificate of its CA in PEM, which clients have to trust. Each server has its own CA.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Every request so far, in order. Refused requests are not in it.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.ledger.requests()
    }

    /// Waits until `n` requests have been received in all. Returns false at the deadline. A request
    /// counts before its behaviour, so a held request counts too.
    #[must_use]
    pub fn wait_for_requests(&self, n: usize, deadline: Duration) -> bool {
        self.wait_until(deadline, |counts| counts.requests >= n as u64)
    }

    /// Waits until the condition holds. Returns false at the deadline. The condition must use only
    /// its argument, because the server's state is locked while it runs.
    ///
    /// ```
    /// # use herd_places::{Options, Places};
    /// # use std::{net::TcpStream, time::Duration};
    /// let places = Places::start(Options::default())?;
    /// drop(TcpStream::connect(places.address())?);
    /// assert!(places.wait_until(Duration::from_secs(5), |counts| counts.handshakes_failed == 1));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn wait_until(&self, deadline: Duration, condition: impl Fn(&Counts) -> bool) -> bool {
        self.shared.ledger.wait_until(deadline, condition)
    }

    /// All numbers at one moment.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.ledger.counts()
    }

    /// The number of TCP connections that were accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.counts().connections
    }

    /// The number of open TCP connections.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.counts().open_connections
    }

    /// The numbers of completed and of failed TLS handshakes so far.
    #[must_use]
    pub fn handshakes(&self) -> (u64, u64) {
        let counts = self.counts();
        (counts.handshakes_done, counts.handshakes_failed)
    }

    /// Sets the behaviour for all later requests.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        self.shared.ledger.set_behaviour(behaviour);
    }

    /// Adds a behaviour for one later request to a queue. Each request takes the first one of the
    /// queue. When the queue is empty, the behaviour of [`Places::set_behaviour`] applies.
    pub fn push_behaviour(&self, behaviour: Behaviour) {
        self.shared.ledger.push_behaviour(behaviour);
    }

    /// Answers all requests that [`Behaviour::Hold`] holds now. Later ones are held again.
    pub fn release(&self) {
        self.shared.ledger.release();
    }

    /// From now on, requests on the connections that are open now are received and never answered.
    /// That is how a connection behaves that a NAT or a proxy has forgotten. Later connections are
    /// served. Returns the number of affected connections.
    pub fn forget_open(&self) -> usize {
        self.shared.ledger.forget_open()
    }

    /// Closes all idle connections with a `close_notify` and a FIN, and waits up to 5 s until they
    /// are closed. Returns how many there were.
    ///
    /// A connection is idle after its handshake, and whenever all its requests are answered. A
    /// client that has read an answer to its end may rely on that.
    pub fn close_idle(&self) -> usize {
        self.shared.ledger.close_idle(CLOSE_IDLE_PATIENCE)
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places")
            .field("address", &self.address)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

impl PlacesServer for Places {
    fn url(&self) -> String {
        Places::url(self)
    }

    fn ca_pem(&self) -> &str {
        Places::ca_pem(self)
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            server::stop(&self.shared, self.address, accepting);
        }
    }
}
