//! The places of unproven peers: of connections to the neighbours' port that have not proven who
//! they are.
//!
//! Any machine can make such connections, as many as it likes. A neighbour has to get a place among
//! them, and to keep it until it has proven itself. Four rules see to that:
//!
//! | rule | limits |
//! |---|---|
//! | Each address of a neighbour that dials has places of its own. | `max_unproven_per_neighbour` |
//! | All other addresses share the general places. From one network, few connections may come in a period. | `max_unproven`; `max_unproven_new`, `unproven_new_ms` |
//! | If all places are taken, a new connection takes the place of one from its [`origin`]. If that origin has none, it takes the place of any. | |
//! | A young connection keeps its place, so that there is time for the handshake. | `unproven_grace_ms` |
//!
//! An address gives no trust, only a place: a peer there has to prove itself like any other.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use crate::core::base::bucket::Size;
use crate::core::base::clock::Time;
use crate::core::base::limits::{LimitValue, Limits};
use crate::core::base::slots::Id;
use crate::core::session::origins::{Shares, network, origin};

/// Why a new connection gets no place. It is closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too many connections came from its network in this number of milliseconds.
    TooManyNew {
        /// `limits.unproven_new_ms`.
        period_ms: u64,
    },
    /// All places are taken, and it may take none of them. All connections whose place it might
    /// take are younger than this number of milliseconds.
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

/// The kind of place that a connection has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// One of the places that all addresses share.
    General,
    /// One of the places of an address from which a neighbour dials.
    OfNeighbour,
}

impl Place {
    /// Returns the name of the limit on these places.
    #[must_use]
    pub fn limit(self) -> &'static str {
        match self {
            Place::General => "max_unproven",
            Place::OfNeighbour => "max_unproven_per_neighbour",
        }
    }
}

/// What has become of a connection that had a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is closed, or has proven who it is. So it needs no place any more.
    Left,
    /// It may still prove who it is.
    Unproven,
    /// Its last line is in the output, so it cannot prove anything any more.
    Closing,
}

/// A place for a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Given {
    /// The kind of the place.
    pub place: Place,
    /// The connection that loses this place. The caller has to close it.
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
    /// Those that had a place at the last check. They are checked when a new connection comes.
    peers: Vec<Peer>,
    /// The addresses from which neighbours dial, and the number of neighbours at each.
    neighbours: BTreeMap<IpAddr, u64>,
    /// The connections of this period, for each network.
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

    /// Decides whether a new connection from `address` gets a place. `standing` returns what has
    /// become of a connection that has one, and `random` a random number.
    ///
    /// # Errors
    /// It gets none, for this reason.
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

    /// Takes one new connection out of the share of its network.
    fn count_new(&mut self, address: IpAddr, limits: &Limits, now: Time) -> Result<(), Refusal> {
        let size = Size {
            bytes: limits.max_unproven_new,
            period: limits.unproven_new_ms.to_duration(),
        };
        if !limits.holds_for("max_unproven_new", address)
            || self.new.take(network(address), 1, size, now)
        {
            return Ok(());
        }
        Err(Refusal::TooManyNew {
            period_ms: limits.unproven_new_ms,
        })
    }

    /// The new connection that was given this place has the id `id`.
    pub fn add(&mut self, id: Id, given: Given, now: Time) {
        self.peers.push(Peer {
            id,
            address: given.address,
            place: given.place,
            since: now,
        });
    }

    /// Whether this connection had a place at the last check. For tests.
    #[must_use]
    pub fn contains(&self, id: Id) -> bool {
        self.peers.iter().any(|it| it.id == id)
    }
}
