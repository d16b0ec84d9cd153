//! What all tasks share: who we are, who our neighbours are, and everybody's position.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::hmac;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::cli::{Cli, variable};
use crate::places::Places;
use crate::proof::random;
use crate::records::{Records, Teacher};

/// One server. The runtime has one thread, so the mutex is never waited for; it is there to say that nothing is held over an
/// `.await`.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) secret: hmac::Key,
    /// Which life of this process it is.
    pub(crate) boot: u64,
    pub(crate) places: Places,
    pub(crate) stop_clients: CancellationToken,
    pub(crate) stop_links: CancellationToken,
    herd: Mutex<Herd>,
}

/// What changes.
pub(crate) struct Herd {
    pub(crate) records: Records,
    pub(crate) neighbours: Vec<Neighbour>,
    /// How many clients are connected.
    pub(crate) clients: usize,
    /// The number of the last connection of a client, or of a neighbour's life.
    last_serial: u64,
    /// What somebody was last refused for on the neighbours' port.
    last_refusal: String,
}

/// A server that this one is linked with, or wants to be.
pub(crate) struct Neighbour {
    pub(crate) name: String,
    pub(crate) we_dial: bool,
    pub(crate) link: Option<LinkHandle>,
    /// What we have of its feed.
    pub(crate) heard: Option<Heard>,
}

/// How to reach the task of a link.
pub(crate) struct LinkHandle {
    /// There is something to send.
    pub(crate) wake: Arc<Notify>,
    /// A newer connection took its place.
    pub(crate) replaced: CancellationToken,
    /// Up to where it has been told that we have kept its feed.
    pub(crate) confirmed: u64,
    /// How much of our feed it says to have kept.
    pub(crate) kept: u64,
    /// How many records it says that it had to refuse.
    pub(crate) lacks: u64,
}

/// How far a neighbour's feed has been heard.
#[derive(Clone, Copy)]
pub(crate) struct Heard {
    /// In which of its lives.
    pub(crate) boot: u64,
    /// Up to which of its changes.
    pub(crate) position: u64,
    /// The name under which what it taught us is kept.
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
    /// A number that was not given out before.
    pub(crate) fn next_serial(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial
    }

    /// Whether the log was last told of another refusal.
    pub(crate) fn is_news(&mut self, refusal: &str) -> bool {
        let is_news = self.last_refusal != refusal;
        if is_news {
            self.last_refusal = refusal.to_owned();
        }
        is_news
    }

    /// Tells the links that the feed has grown. Says whether there are any.
    pub(crate) fn wake_links(&self) -> bool {
        let links = self.neighbours.iter().filter_map(|n| n.link.as_ref());
        links.map(|link| link.wake.notify_one()).count() > 0
    }
}
