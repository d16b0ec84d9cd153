//! How a [`Node`] accepts connections to the neighbours' port, and how it learns the addresses from
//! which its neighbours dial. A *slot* is the right to one unproven connection: see
//! [`crate::core::session::unproven`].

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use log::{debug, warn};

use super::session::Session;
use super::{ConnId, Node, Timer};
use crate::core::base::clock::Now;
use crate::core::base::settings::TlsMode;
use crate::core::link::Link;
use crate::core::session::herd::{LinkError, NeighbourId};
use crate::core::session::tls::{Tls, TlsSession};
use crate::core::session::unproven::{Grant, PeerState, Refusal};

/// The time between two rounds of look-ups, if all neighbours that dial have a known address. The
/// resolver caches a result for the same time.
const LOOK_UP_INTERVAL: Duration = Duration::from_secs(60);
/// The time between two rounds of look-ups, if a neighbour that dials has no known address. This
/// time is shorter, because the neighbour's name may get an address soon, when its machine starts.
const LOOK_UP_RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// The maximum number of addresses of one neighbour that have their own slots. Without this limit,
/// a name server could return any number of addresses, and so create any number of slots.
const MAX_ADDRESSES: usize = 16;

impl Node {
    /// Accepts a connection to the neighbours' port, if the connection gets a slot. The slot is
    /// checked before any TLS work.
    pub(super) fn neighbour_connected(&mut self, address: SocketAddr, now: Now) -> Option<ConnId> {
        if self.phase.is_stopping() {
            return None;
        }
        let grant = self.admit_unproven(address, now)?;
        let tls = match &self.settings.tls.neighbours {
            None => None,
            Some(tls) if tls.mode == TlsMode::Offered => None, // its first byte decides
            Some(tls) => match Tls::server(tls.accepting.clone()) {
                Ok(tls) => Some(TlsSession::new(tls)),
                Err(error) => {
                    warn!("unproven peer {address}: refused: {error}");
                    return None;
                }
            },
        };
        let nonce = self.entropy.next_bytes();
        let session = |id| Session::Link(Box::new(Link::accept(id, address, nonce, now.time)));
        let id = self.admit(tls, session);
        self.unproven.add(id, grant, now.time);
        Some(id)
    }

    /// Gives a slot to a new connection. If that slot was taken, closes the old connection. If
    /// the new connection gets no slot, logs the refusal and returns `None`. The log level is
    /// `warn` only if the number of refusals is a power of two, so that a flood does not fill the
    /// log.
    fn admit_unproven(&mut self, address: SocketAddr, now: Now) -> Option<Grant> {
        let sessions = &self.sessions;
        let state_of = |id: ConnId| match sessions.get(id).and_then(|it| it.session.link()) {
            None => PeerState::Closed,
            Some(link) if link.is_closing() => PeerState::Closing,
            Some(_) => PeerState::Unproven,
        };
        let entropy = &mut self.entropy;
        let random = || entropy.next_u64();
        let limits = &self.settings.limits;
        let admitted = self
            .unproven
            .admit(address.ip(), limits, state_of, random, now.time);
        let counters = &mut self.tally.counters;
        let refusal = match admitted {
            Ok(grant) => {
                if let Some(displaced) = grant.displaced {
                    counters.unproven_displaced += 1;
                    if let Some(link) = self.link_mut(displaced) {
                        link.abort(LinkError::Displaced(grant.kind), now.time);
                    }
                    self.mark_dirty(displaced);
                }
                return Some(grant);
            }
            Err(refusal) => refusal,
        };
        let count = match refusal {
            Refusal::AllYoung { .. } => &mut counters.unproven_crowded,
            Refusal::TooManyNew { .. } => &mut counters.unproven_throttled,
        };
        *count += 1;
        match count.is_power_of_two() {
            true => warn!("unproven peer {address}: refused: {refusal}; {count} so far"),
            false => debug!("unproven peer {address}: refused: {refusal}"),
        }
        None
    }

    /// Begins a round of look-ups of the names of all neighbours that dial.
    pub(super) fn begin_look_ups(&mut self, now: Now) {
        self.look_ups_done = 0;
        self.look_up_diallers(now);
    }

    /// Passes the known addresses to `self.unproven`, then continues the round of look-ups. In a
    /// round, only one look-up runs at a time. So a look-up that hangs blocks only one of the
    /// resolver's threads. The other threads stay free for the look-ups of Places and of neighbours
    /// that this server dials.
    pub(super) fn look_up_diallers(&mut self, now: Now) {
        self.update_dialler_addresses();
        let remaining: Vec<NeighbourId> = self.herd.ids().skip(self.look_ups_done).collect();
        if remaining.is_empty() || self.phase.is_stopping() {
            return;
        }
        for id in remaining {
            let neighbour = self.herd.get(id);
            if !neighbour.we_dial() {
                let target = neighbour.target().clone();
                let _ = self.resolve(&target, now);
                if self.resolver.is_looking_up(&target.host) {
                    return;
                }
            }
            self.look_ups_done += 1;
        }
        let is_name = |host: &&str| host.parse::<IpAddr>().is_err();
        let names: Vec<&str> = self.diallers().filter(is_name).collect();
        if names.is_empty() {
            return;
        }
        let is_known = |host: &&str| !self.resolver.last_known(host).is_empty();
        let wait = match names.iter().all(is_known) {
            true => LOOK_UP_INTERVAL,
            false => LOOK_UP_RETRY_INTERVAL,
        };
        self.deadlines
            .call_at(now.time + wait, Timer::NeighbourLookUps);
    }

    /// Returns the host of each neighbour that dials this server.
    fn diallers(&self) -> impl Iterator<Item = &str> {
        let dials = self.herd.iter().filter(|neighbour| !neighbour.we_dial());
        dials.map(|neighbour| &*neighbour.target().host)
    }

    fn update_dialler_addresses(&mut self) {
        let addresses: Vec<IpAddr> = self
            .diallers()
            .flat_map(|host| {
                self.resolver
                    .last_known(host)
                    .into_iter()
                    .take(MAX_ADDRESSES)
            })
            .collect();
        self.unproven.set_neighbour_addresses(addresses.into_iter());
    }
}
