//! The slots of unproven peers. An unproven peer is a connection to the neighbours' port that has
//! not proven a name.
//!
//! Any machine can make any number of such connections. Nevertheless, a neighbour that connects has
//! to get a slot, and to keep the slot until it has proven its name. Four rules ensure this:
//!
//! | rule | limits |
//! |---|---|
//! | Each address from which a neighbour dials has slots of its own. | `max_unproven_per_neighbour` |
//! | All other addresses share the general slots. The number of new connections from one network is limited in each period. A connection that proves a name does not count. | `max_unproven`; `max_unproven_new`, `unproven_new_ms` |
//! | If all slots are taken, a new connection takes the slot of a random connection from the same [`origin`]. If there is none, it takes the slot of a random connection from any origin. | |
//! | A connection keeps its slot at least for this time, so that it can finish the handshake. | `unproven_grace_ms` |
//!
//! The address of a connection decides only about its slot. It is not a proof of a name: every peer
//! has to prove its name, whatever its address is.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use crate::core::base::bucket::Rate;
use crate::core::base::clock::Time;
use crate::core::base::limits::{LimitValue, Limits};
use crate::core::base::slots::Id;
use crate::core::session::origins::{OriginBuckets, network, origin};

/// Why a new connection gets no slot. The caller closes the connection at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too many connections came from the network of the new connection within `period_ms`.
    TooManyNew {
        /// `limits.unproven_new_ms`.
        period_ms: u64,
    },
    /// All slots are taken. Each connection that the new connection could displace is younger than
    /// `grace_ms`.
    AllYoung {
        /// The kind of the slots: see [`SlotKind::limit`].
        kind: SlotKind,
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
            Refusal::AllYoung { kind, grace_ms } => write!(
                f,
                "as many as limits.{} are there, and none is older than {grace_ms} ms",
                kind.limit()
            ),
        }
    }
}

/// The kind of slot that an unproven peer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// A slot that all addresses share, except for the addresses of neighbours.
    Shared,
    /// A slot for connections from the address from which a neighbour dials.
    Neighbour,
}

impl SlotKind {
    /// Returns the name of the setting that limits the number of slots of this kind.
    #[must_use]
    pub fn limit(self) -> &'static str {
        match self {
            SlotKind::Shared => "max_unproven",
            SlotKind::Neighbour => "max_unproven_per_neighbour",
        }
    }
}

/// The present state of a connection that got a slot earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// The connection is closed. It needs no slot any more.
    Closed,
    /// The connection is open, and may still prove a name.
    Unproven,
    /// Our last line to the peer is in the output, and then the connection is closed. So the peer
    /// cannot prove a name any more.
    Closing,
}

/// A slot for a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Grant {
    /// The kind of the slot.
    pub kind: SlotKind,
    /// The old connection whose slot the new connection takes. The caller has to close the old
    /// connection.
    pub displaced: Option<Id>,
    address: IpAddr,
}

struct Peer {
    id: Id,
    address: IpAddr,
    kind: SlotKind,
    since: Time,
}

/// The unproven peers of one server.
#[derive(Default)]
pub struct UnprovenPeers {
    /// The peers that have a slot. A closed connection stays in this list until the next call of
    /// [`UnprovenPeers::admit`].
    peers: Vec<Peer>,
    /// The addresses from which neighbours dial, and the number of neighbours at each address.
    neighbours: BTreeMap<IpAddr, u64>,
    /// A bucket for each network. The bucket contains one token for each connection that may still
    /// come from the network.
    new_connections: OriginBuckets,
}

impl UnprovenPeers {
    /// Sets the addresses from which neighbours dial. An address that occurs twice has the slots of
    /// two neighbours.
    pub fn set_neighbour_addresses(&mut self, addresses: impl Iterator<Item = IpAddr>) {
        self.neighbours.clear();
        for address in addresses {
            *self.neighbours.entry(address.to_canonical()).or_default() += 1;
        }
    }

    /// Decides whether a new connection from `address` gets a slot. `state_of` returns the present
    /// state of a connection that has a slot. `random` returns a random number.
    ///
    /// # Errors
    /// The connection gets no slot, for this reason.
    pub fn admit(
        &mut self,
        address: IpAddr,
        limits: &Limits,
        state_of: impl Fn(Id) -> PeerState,
        random: impl FnOnce() -> u64,
        now: Time,
    ) -> Result<Grant, Refusal> {
        let address = address.to_canonical();
        let own = self
            .neighbours
            .get(&address)
            .filter(|_| limits.holds_for("max_unproven_per_neighbour", address));
        let (kind, max) = match own {
            Some(neighbours) => (
                SlotKind::Neighbour,
                limits
                    .max_unproven_per_neighbour
                    .saturating_mul(*neighbours),
            ),
            None => {
                self.admit_new(address, limits, now)?;
                (SlotKind::Shared, limits.max_unproven)
            }
        };
        self.peers.retain(|it| state_of(it.id) != PeerState::Closed);
        let shares_slots =
            |it: &Peer| it.kind == kind && (kind == SlotKind::Shared || it.address == address);
        let same_slots: Vec<&Peer> = self.peers.iter().filter(|it| shares_slots(it)).collect();
        let mut displaced = None;
        if same_slots.len() >= max.to_count() {
            let grace = limits.unproven_grace_ms.to_duration();
            let is_same_origin = |it: &&Peer| origin(it.address) == origin(address);
            let is_old =
                |it: &Peer| now.since(it.since) >= grace || state_of(it.id) == PeerState::Closing;
            let has_same_origin = same_slots.iter().any(is_same_origin);
            let candidates: Vec<Id> = same_slots
                .into_iter()
                .filter(|it| (!has_same_origin || is_same_origin(it)) && is_old(it))
                .map(|it| it.id)
                .collect();
            let index = random().checked_rem(candidates.len() as u64);
            let Some(index) = index else {
                return Err(Refusal::AllYoung {
                    kind,
                    grace_ms: limits.unproven_grace_ms,
                });
            };
            let displaced_id = candidates[index as usize];
            self.peers.retain(|it| it.id != displaced_id);
            displaced = Some(displaced_id);
        }
        Ok(Grant {
            kind,
            displaced,
            address,
        })
    }

    /// Takes one token out of the bucket of the network of `address`, for a new connection. Refuses
    /// the connection if the bucket is empty.
    fn admit_new(&mut self, address: IpAddr, limits: &Limits, now: Time) -> Result<(), Refusal> {
        let size = new_per_network(limits);
        if !limits.holds_for("max_unproven_new", address)
            || self.new_connections.take(network(address), 1, size, now)
        {
            return Ok(());
        }
        Err(Refusal::TooManyNew {
            period_ms: limits.unproven_new_ms,
        })
    }

    /// Stores that the new connection with the id `id` has the slot in `grant`.
    pub fn add(&mut self, id: Id, grant: Grant, now: Time) {
        self.peers.push(Peer {
            id,
            address: grant.address,
            kind: grant.kind,
            since: now,
        });
    }

    /// Frees the slot of the connection `id`, because the connection has proven a name. Puts the
    /// connection's token back into the bucket of its network. So the connections of neighbours and
    /// operators, which prove a name, do not count against the limit on new connections.
    pub fn remove_proven(&mut self, id: Id, limits: &Limits) {
        let Some(index) = self.peers.iter().position(|it| it.id == id) else {
            return;
        };
        let peer = self.peers.swap_remove(index);
        if peer.kind == SlotKind::Shared && limits.holds_for("max_unproven_new", peer.address) {
            self.new_connections
                .refund(network(peer.address), 1, new_per_network(limits));
        }
    }

    /// Whether the connection `id` is in the list of peers that have a slot. For tests.
    #[must_use]
    pub fn contains(&self, id: Id) -> bool {
        self.peers.iter().any(|it| it.id == id)
    }
}

/// Returns the number of connections that may come from one network, and the period.
fn new_per_network(limits: &Limits) -> Rate {
    Rate {
        capacity: limits.max_unproven_new,
        period: limits.unproven_new_ms.to_duration(),
    }
}
