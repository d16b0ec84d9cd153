//! The places of unproven peers. An unproven peer is a connection to the neighbours' port that has
//! not proven a name.
//!
//! Any machine can make any number of such connections. A neighbour has to get a place among them,
//! and to keep the place until it has proven its name. Four rules ensure this:
//!
//! | rule | limits |
//! |---|---|
//! | Each address from which a neighbour dials has places of its own. | `max_unproven_per_neighbour` |
//! | All other addresses share the general places. From one network, only a number of connections may come in a period. A connection that proves a name does not count. | `max_unproven`; `max_unproven_new`, `unproven_new_ms` |
//! | If all places are taken, a new connection takes the place of a random connection from the same [`origin`]. If there is none, it takes the place of a random connection from any origin. | |
//! | A connection keeps its place for a time, so that there is time for the handshake. | `unproven_grace_ms` |
//!
//! An address gives a connection only a place. Every peer has to prove its name, from any address.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use crate::core::base::bucket::Size;
use crate::core::base::clock::Time;
use crate::core::base::limits::{LimitValue, Limits};
use crate::core::base::slots::Id;
use crate::core::session::origins::{Shares, network, origin};

/// Why a new connection gets no place. The caller closes the connection at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too many connections came from the network of the new connection within `period_ms`.
    TooManyNew {
        /// `limits.unproven_new_ms`.
        period_ms: u64,
    },
    /// All places are taken. Each connection that the new connection could displace is younger than
    /// `grace_ms`.
    AllYoung {
        /// Which places: see [`Place::limit`].
        place: Place,
        /// `limits.unproven_grace_ms`.
        grace_ms: u64,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::TooManyNew { period_ms } => write!(
                f,
                "as many as limits.max_unproven_new came from its network within {period_ms} ms"
            ),
            Refusal::AllYoung { place, grace_ms } => write!(
                f,
                "as many as limits.{} are there, and none is older than {grace_ms} ms",
                place.limit()
            ),
        }
    }
}

/// The kind of place that an unproven peer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A place that all addresses share, except for the addresses of neighbours.
    General,
    /// A place for connections from the address from which a neighbour dials.
    OfNeighbour,
}

impl Place {
    /// Returns the name of the setting that limits the number of places of this kind.
    #[must_use]
    pub fn limit(self) -> &'static str {
        match self {
            Place::General => "max_unproven",
            Place::OfNeighbour => "max_unproven_per_neighbour",
        }
    }
}

/// The present state of a connection that got a place earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The connection is closed. It needs no place any more.
    Left,
    /// It may still prove who it is.
    Unproven,
    /// The last line of the connection is in the output, so the connection can prove nothing any
    /// more.
    Closing,
}

/// A place for a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Given {
    /// The kind of the place.
    pub place: Place,
    /// The connection whose place the new connection takes. The caller has to close it.
    pub displaced: Option<Id>,
    address: IpAddr,
}

struct Peer {
    id: Id,
    address: IpAddr,
    place: Place,
    since: Time,
}

/// The unproven peers of one server.
#[derive(Default)]
pub struct UnprovenPeers {
    /// The peers that had a place when a connection last entered. [`UnprovenPeers::enter`] removes
    /// those that have left.
    peers: Vec<Peer>,
    /// The addresses from which neighbours dial, and the number of neighbours at each address.
    neighbours: BTreeMap<IpAddr, u64>,
    /// A bucket for each network. It contains the number of connections that may still come from
    /// the network.
    new: Shares,
}

impl UnprovenPeers {
    /// Sets the addresses from which neighbours dial. An address that occurs twice has places for
    /// two neighbours.
    pub fn know(&mut self, addresses: impl Iterator<Item = IpAddr>) {
        self.neighbours.clear();
        for address in addresses {
            *self.neighbours.entry(address.to_canonical()).or_default() += 1;
        }
    }

    /// Decides whether a new connection from `address` gets a place. `standing` returns the present
    /// state of a connection that has a place. `random` returns a random number.
    ///
    /// # Errors
    /// The connection gets no place, for this reason.
    pub fn enter(
        &mut self,
        address: IpAddr,
        limits: &Limits,
        standing: impl Fn(Id) -> Standing,
        random: impl FnOnce() -> u64,
        now: Time,
    ) -> Result<Given, Refusal> {
        let address = address.to_canonical();
        let own = self
            .neighbours
            .get(&address)
            .filter(|_| limits.holds_for("max_unproven_per_neighbour", address));
        let (place, most) = match own {
            Some(neighbours) => (
                Place::OfNeighbour,
                limits
                    .max_unproven_per_neighbour
                    .saturating_mul(*neighbours),
            ),
            None => {
                self.count_new(address, limits, now)?;
                (Place::General, limits.max_unproven)
            }
        };
        self.peers.retain(|it| standing(it.id) != Standing::Left);
        let shares_places =
            |it: &Peer| it.place == place && (place == Place::General || it.address == address);
        let rivals: Vec<&Peer> = self.peers.iter().filter(|it| shares_places(it)).collect();
        let mut displaced = None;
        if rivals.len() >= most.to_count() {
            let grace = limits.unproven_grace_ms.to_duration();
            let near = |it: &&Peer| origin(it.address) == origin(address);
            let is_old =
                |it: &Peer| now.since(it.since) >= grace || standing(it.id) == Standing::Closing;
            let has_near = rivals.iter().any(near);
            let candidates: Vec<Id> = rivals
                .into_iter()
                .filter(|it| (!has_near || near(it)) && is_old(it))
                .map(|it| it.id)
                .collect();
            let index = random().checked_rem(candidates.len() as u64);
            let Some(index) = index else {
                return Err(Refusal::AllYoung {
                    place,
                    grace_ms: limits.unproven_grace_ms,
                });
            };
            let leaving = candidates[index as usize];
            self.peers.retain(|it| it.id != leaving);
            displaced = Some(leaving);
        }
        Ok(Given {
            place,
            displaced,
            address,
        })
    }

    /// Takes one connection out of the bucket of the network of `address`.
    fn count_new(&mut self, address: IpAddr, limits: &Limits, now: Time) -> Result<(), Refusal> {
        let size = new_per_network(limits);
        if !limits.holds_for("max_unproven_new", address)
            || self.new.take(network(address), 1, size, now)
        {
            return Ok(());
        }
        Err(Refusal::TooManyNew {
            period_ms: limits.unproven_new_ms,
        })
    }

    /// Stores that the new connection with the id `id` has the place `given`.
    pub fn add(&mut self, id: Id, given: Given, now: Time) {
        self.peers.push(Peer {
            id,
            address: given.address,
            place: given.place,
            since: now,
        });
    }

    /// Frees the place of the connection `id`, because the connection has proven a name. Puts the
    /// connection back into the bucket of its network. So operators and neighbours can come as
    /// often as they like, and a stranger of their network cannot.
    pub fn proven(&mut self, id: Id, limits: &Limits) {
        let Some(index) = self.peers.iter().position(|it| it.id == id) else {
            return;
        };
        let peer = self.peers.swap_remove(index);
        if peer.place == Place::General && limits.holds_for("max_unproven_new", peer.address) {
            self.new
                .give_back(network(peer.address), 1, new_per_network(limits));
        }
    }

    /// Whether the connection had a place when a connection last entered. For tests.
    #[must_use]
    pub fn contains(&self, id: Id) -> bool {
        self.peers.iter().any(|it| it.id == id)
    }
}

/// Returns the number of connections that may come from one network, and the period.
fn new_per_network(limits: &Limits) -> Size {
    Size {
        bytes: limits.max_unproven_new,
        period: limits.unproven_new_ms.to_duration(),
    }
}
