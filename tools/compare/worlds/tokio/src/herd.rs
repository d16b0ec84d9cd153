//! The state that all tasks share: this server, its neighbours, and the records of all clients.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::hmac;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::cli::{Cli, variable};
use crate::places::Places;
use crate::proof::random;
use crate::records::{Records, Teacher};

/// One server. The runtime has one thread, so no task ever waits for the mutex. Its guard shows
/// that no lock is held across an `.await`.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) secret: hmac::Key,
    /// The id of this life of the server: each start of the process has a new one.
    pub(crate) boot: u64,
    pub(crate) places: Places,
    pub(crate) stop_clients: CancellationToken,
    pub(crate) stop_links: CancellationToken,
    herd: Mutex<Herd>,
}

/// The state that changes.
pub(crate) struct Herd {
    pub(crate) records: Records,
    pub(crate) neighbours: Vec<Neighbour>,
    /// The number of connected clients.
    pub(crate) clients: usize,
    /// The last number that a client's connection or a neighbour's life got.
    last_serial: u64,
    /// The last reason of a refusal on the neighbours' port.
    last_refusal: String,
}

/// A server with which this one is or should be linked.
pub(crate) struct Neighbour {
    pub(crate) name: String,
    pub(crate) we_dial: bool,
    pub(crate) link: Option<LinkHandle>,
    /// The part of its feed that was received. A feed is a server's ordered list of changes.
    pub(crate) heard: Option<Heard>,
}

/// The connection to the task of a link.
pub(crate) struct LinkHandle {
    /// Wakes the task when there is something to send.
    pub(crate) wake: Arc<Notify>,
    /// Cancelled when a newer connection replaces the link.
    pub(crate) replaced: CancellationToken,
    /// The position in its feed that was last confirmed to it.
    pub(crate) confirmed: u64,
    /// The position in our feed that it has confirmed.
    pub(crate) kept: u64,
    /// The number of records that it reports as refused.
    pub(crate) lacks: u64,
}

/// The progress in a neighbour's feed.
#[derive(Clone, Copy)]
pub(crate) struct Heard {
    /// The life of the neighbour.
    pub(crate) boot: u64,
    /// The last change that was received.
    pub(crate) position: u64,
    /// The id of this life as the origin of records.
    pub(crate) teacher: Teacher,
}

impl Server {
    pub(crate) fn new(cli: Cli, places: Places) -> Result<Server, String> {
        let neighbour = |name: String, we_dial: bool| Neighbour {
            name,
            we_dial,
            link: None,
            heard: None,
        };
        let dialled = cli.dial.into_iter().map(|dialled| (dialled.name, true));
        let accepted = cli.accept.into_iter().map(|name| (name, false));
        let secret = variable("HERD_SECRET").unwrap_or_default();
        Ok(Server {
            name: cli.name,
            secret: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
            boot: u64::from_be_bytes(random()?),
            places,
            stop_clients: CancellationToken::new(),
            stop_links: CancellationToken::new(),
            herd: Mutex::new(Herd {
                records: Records::default(),
                neighbours: dialled
                    .chain(accepted)
                    .map(|(name, we_dial)| neighbour(name, we_dial))
                    .collect(),
                clients: 0,
                last_serial: 0,
                last_refusal: String::new(),
            }),
        })
    }

    pub(crate) fn herd(&self) -> MutexGuard<'_, Herd> {
        self.herd.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Herd {
    /// A new number.
    pub(crate) fn next_serial(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial
    }

    /// Whether this refusal differs from the last logged one.
    pub(crate) fn is_news(&mut self, refusal: &str) -> bool {
        let is_news = self.last_refusal != refusal;
        if is_news {
            self.last_refusal = refusal.to_owned();
        }
        is_news
    }

    /// Tells the links that the feed has grown. Returns whether there are any.
    pub(crate) fn wake_links(&self) -> bool {
        let links = self.neighbours.iter().filter_map(|n| n.link.as_ref());
        links.map(|link| link.wake.notify_one()).count() > 0
    }
}
