//! A small HTTPS server that stands in for Google Places, for tests and for the demo.
//!
//! It speaks both Nearby Searches as Google does, the legacy one and the New API, down to the layout of
//! the JSON; it makes its own certificate authority when it starts; and it can be told to misbehave in
//! each way that a client has to survive. The places are invented, and the same for the same point.
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
//! What it answers:
//!
//! | request | answer |
//! |---|---|
//! | `GET /maps/api/place/nearbysearch/json?location=…&radius=…&key=…` | the legacy API: 200, what went wrong is in `status` |
//! | `POST /v1/places:searchNearby` | the New API: errors carry their HTTP status |
//! | any other | 404, a page |
//! | what is not HTTP/1.x, or too long | 400, 408, 411, 413, 431 or 501, a page; then it closes |
//!
//! What it finds: 60 places around any point (three pages in the legacy API, the first 20 in the New),
//! 7 where the latitude is beyond ±80°, none where it is beyond ±85°. Their names end in `(fictional)`;
//! some have letters beyond ASCII, escaped quotes, brackets and backslashes, so that a parser that is
//! nearly right is found out.
//!
//! A map of the shared, from the outside in:
//!
//! | file | |
//! |---|---|
//! | `server.rs` | accepts, starts a thread for each connection, stops them all |
//! | `connection.rs` | one connection: handshake, requests, behaviours |
//! | `wire.rs` | TLS over a blocking socket, with deadlines |
//! | `ledger.rs` | what the threads share: what was heard, who is connected |
//! | `http.rs`, `json.rs` | bytes to requests, answers to bytes |
//! | `legacy.rs`, `new_api.rs` | the two APIs |
//! | `invented.rs` | the places |
//! | `certificates.rs`, `behaviour.rs`, `event.rs` | what their names say |
//!
//! Threads, not an event loop: this is the other side of the experiment, and it should share as little
//! as can be with what it tests.

#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "Instant::now is for shells only, and this crate is nothing but a shell"
)]

mod behaviour;
mod certificates;
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

/// `close_idle` waits so long for a connection that is still sending the end of an answer.
const CLOSE_IDLE_PATIENCE: Duration = Duration::from_secs(5);

/// How a server is to be. Start from `Options::default()` and change what matters:
///
/// ```
/// use herd_places::{Behaviour, Options};
///
/// let options = Options { behaviour: Behaviour::Hold, ..Options::default() };
/// # let _ = options;
/// ```
#[derive(Clone)]
pub struct Options {
    /// Where to listen. Default: `127.0.0.1:0`, any free port.
    pub listen: SocketAddr,
    /// The API key that is right. Default: `test-key`.
    pub key: String,
    /// DNS names and IP addresses in the certificate. Default: `localhost`, `places.test`, `127.0.0.1`, `::1`.
    pub names: Vec<String>,
    /// The protocols that it speaks by ALPN; none, and it takes no notice of ALPN. Default:
    /// `http/1.1`.
    pub alpn: Vec<String>,
    /// What is done with each request. Default: [`Behaviour::Answer`].
    pub behaviour: Behaviour,
    /// The standing behaviour is for each request whose number, counted from 1 over all connections, is
    /// a multiple of this; the others are answered. Default: 1.
    pub every: NonZeroU64,
    /// Accept TCP connections, never say a word on them. Default: false.
    pub silent_accept: bool,
    /// How long a connection may be idle before the server closes it (cleanly). Default: 60 s.
    pub keep_alive: Duration,
    /// So many connections at once, a thread each; more are closed as soon as accepted. Default: 512.
    pub max_connections: usize,
    /// Keep every request for [`Places::requests`]. A server that runs for days should not. Default: true.
    pub remember: bool,
    /// Is told what happens. Default: nobody.
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

/// All but the key.
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

/// A running server. Dropping it stops it, at once, also when clients hang or wait; its port is free and
/// its threads have ended when the drop returns.
pub struct Places {
    shared: Arc<Shared>,
    address: SocketAddr,
    ca_pem: String,
    /// Always there until the drop takes it.
    accepting: Option<JoinHandle<()>>,
}

impl Places {
    /// Makes the certificates, listens, and starts to accept.
    ///
    /// # Errors
    ///
    /// If the address cannot be listened on, if a name cannot stand in a certificate
    /// ([`InvalidInput`](io::ErrorKind::InvalidInput)), or if no thread can be had.
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

    /// Where it listens, with the port that it got.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://localhost:PORT`; if it listens on one address that is not this machine's loopback, that
    /// address instead of the name.
    #[must_use]
    pub fn url(&self) -> String {
        let ip = self.address.ip();
        if ip.is_loopback() || ip.is_unspecified() {
            format!("https://localhost:{}", self.address.port())
        } else {
            format!("https://{}", self.address)
        }
    }

    /// The certificate of its CA, in PEM: what a client has to trust. Each server has its own.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Every request heard so far, in order. What is not HTTP is not in it.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.ledger.requests()
    }

    /// Waits until `n` requests in all have been heard; false if `deadline` is over first. "Heard" is
    /// before any behaviour: a request that is held counts.
    #[must_use]
    pub fn wait_for_requests(&self, n: usize, deadline: Duration) -> bool {
        self.wait_until(deadline, |counts| counts.requests >= n as u64)
    }

    /// Waits until the numbers are as wanted; false if `deadline` is over first. The condition must look at
    /// nothing but the numbers it is given: the server stands still while it is asked.
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

    /// All numbers of one moment.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.ledger.counts()
    }

    /// TCP connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.counts().connections
    }

    /// TCP connections that are open right now.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.counts().open_connections
    }

    /// TLS handshakes so far: how many were done, how many failed.
    #[must_use]
    pub fn handshakes(&self) -> (u64, u64) {
        let counts = self.counts();
        (counts.handshakes_done, counts.handshakes_failed)
    }

    /// What is done with all later requests.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        self.shared.ledger.set_behaviour(behaviour);
    }

    /// What is done with one later request: each takes one from the front of this queue; when it is
    /// empty the standing behaviour applies.
    pub fn push_behaviour(&self, behaviour: Behaviour) {
        self.shared.ledger.push_behaviour(behaviour);
    }

    /// Lets go every request that is held now ([`Behaviour::Hold`]): they are answered. Later ones are
    /// held again.
    pub fn release(&self) {
        self.shared.ledger.release();
    }

    /// From now on requests on connections that are open now are heard and never answered, without
    /// a word: as when a NAT or a proxy has forgotten them. Later connections are served. Says how
    /// many were forgotten.
    pub fn forget_open(&self) -> usize {
        self.shared.ledger.forget_open()
    }

    /// Closes all connections that are idle now, with `close_notify` and FIN, waits until they are closed
    /// (up to 5 s), and says how many they were.
    ///
    /// A connection is idle once its handshake is done and whenever all its requests are answered; a
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
