//! How a [`Node`] manages its links: it dials neighbours, keeps one link to each, and dials again
//! after a link or an attempt has failed. A link is a connection to a neighbour. A neighbour is
//! another server of the herd that is named in the settings. `unproven.rs` accepts the links of
//! neighbours that dial.

use std::collections::VecDeque;
use std::net::SocketAddr;

use log::{debug, warn};

use super::session::Session;
use super::{ConnId, Node, Request, Slot, Timer};
use crate::core::base::boot_id::BootId;
use crate::core::base::clock::Now;
use crate::core::base::settings::{HostPort, NeighbourTls, TlsMode};
use crate::core::link::Link;
use crate::core::session::herd::{LinkError, NeighbourId, Repeat};
use crate::core::session::resolver::Resolution;
use crate::core::session::tls::{Tls, TlsError, TlsSession};

impl Node {
    pub(super) fn dial_all(&mut self, now: Now) {
        for neighbour in self.herd.ids() {
            if self.herd.get(neighbour).we_dial() {
                self.dial(neighbour, now);
            }
        }
    }

    fn dial(&mut self, neighbour: NeighbourId, now: Now) {
        let target = self.herd.get(neighbour).target().clone();
        match self.resolve(&target, now) {
            Resolution::Known(addresses) => {
                self.dial_next_address(neighbour, addresses.into(), now)
            }
            Resolution::Pending => self.herd.get_mut(neighbour).look_up_started(),
            Resolution::Failed(reason) => {
                let entry = self.herd.get_mut(neighbour);
                let reason = LinkError::Unresolved(reason);
                let repeat = entry.link_failed(&reason, now.time);
                if repeat != Repeat::Suppressed {
                    warn!(
                        "neighbour {} {target}: not linked: {reason}; trying on{repeat}",
                        entry.name()
                    );
                }
                self.schedule_dial(neighbour, now);
            }
        }
    }

    /// Returns the addresses of `target`, if they are known. Starts a look-up if one is needed.
    pub(super) fn resolve(&mut self, target: &HostPort, now: Now) -> Resolution {
        let (requests, deadlines) = (&mut self.requests, &mut self.deadlines);
        let give_up_at = self.resolver.deadline(now.time);
        self.resolver.resolve(target, now.time, |host| {
            requests.push_back(Request::Resolve {
                host: host.to_owned(),
            });
            deadlines.call_at(give_up_at, Timer::Resolve);
        })
    }

    fn dial_next_address(
        &mut self,
        neighbour: NeighbourId,
        mut addresses: VecDeque<SocketAddr>,
        now: Now,
    ) {
        let Some(address) = addresses.pop_front() else {
            return self.schedule_dial(neighbour, now);
        };
        self.herd.get_mut(neighbour).attempt_started(addresses);
        let nonce = self.entropy.next_bytes();
        let session = |id| {
            Session::Link(Box::new(Link::dial(
                id, neighbour, address, nonce, now.time,
            )))
        };
        let id = self.admit(None, session);
        self.requests.push_back(Request::Connect { id, address });
    }

    fn schedule_dial(&mut self, neighbour: NeighbourId, now: Now) {
        let random = self.entropy.next_u64();
        let entry = self.herd.get_mut(neighbour);
        let wait = entry.schedule_dial(random, now.time);
        debug!(
            "neighbour {}: dialling again in {} ms",
            entry.name(),
            wait.as_millis()
        );
        self.deadlines
            .call_at(now.time + wait, Timer::Redial(neighbour));
    }

    pub(super) fn redial_due(&mut self, neighbour: NeighbourId, now: Now) {
        if self.herd.get(neighbour).is_dial_due(now.time) && !self.phase.is_stopping() {
            self.dial(neighbour, now);
        }
    }

    /// Dials the neighbours that wait for a look-up, if their addresses are known now. The caller
    /// calls this when a look-up has ended or has taken too long.
    pub(super) fn dial_resolved(&mut self, now: Now) {
        for neighbour in self.herd.ids() {
            if self.herd.get(neighbour).is_looking_up() && !self.phase.is_stopping() {
                self.dial(neighbour, now);
            }
        }
    }

    /// Returns the TLS session for a link whose socket has just connected, or `None` if the link
    /// does not use TLS. Also marks the address as working, for later look-ups.
    pub(super) fn tls_of_link(
        &mut self,
        id: ConnId,
        now: Now,
    ) -> Result<Option<TlsSession>, TlsError> {
        let Some(link) = self.sessions.get(id).and_then(|it| it.session.link()) else {
            return Ok(None);
        };
        let Some(neighbour) = link.neighbour() else {
            return Ok(None);
        };
        let neighbour = self.herd.get(neighbour);
        let host = &neighbour.target().host;
        self.resolver
            .mark_working(host, link.address().ip(), now.time);
        match &self.settings.tls.neighbours {
            None => Ok(None),
            Some(tls) if tls.mode == TlsMode::Offered && neighbour.next_dial_is_plaintext() => {
                Ok(None)
            }
            Some(tls) => {
                let tls = Tls::client(tls.dialling.clone(), neighbour.name())?;
                Ok(Some(TlsSession::new(tls)))
            }
        }
    }

    /// Starts TLS on a connection to the neighbours' port, if TLS is offered there and the
    /// connection has received no byte before. The caller has seen that the received bytes begin
    /// like a TLS handshake.
    #[cold]
    pub(super) fn accept_offered_tls(&mut self, id: ConnId, now: Now) {
        let Some(NeighbourTls {
            mode: TlsMode::Offered,
            accepting,
            ..
        }) = &self.settings.tls.neighbours
        else {
            return;
        };
        let Some(Slot {
            session: Session::Link(link),
            tls: slot_tls @ None,
            ..
        }) = self.sessions.get_mut(id)
        else {
            return;
        };
        if !link.awaits_first_byte() {
            return;
        }
        match Tls::server(accepting.clone()) {
            Ok(tls) => *slot_tls = Some(Box::new(TlsSession::new(tls))),
            Err(error) => link.end(error.into(), now.time),
        }
    }

    pub(super) fn link_mut(&mut self, id: ConnId) -> Option<&mut Link> {
        self.session(id)?.link_mut()
    }

    /// Ends the link `old`, because a newer connection to the same neighbour replaces it.
    pub(super) fn replace_link(&mut self, old: ConnId, now: Now) {
        if let Some(link) = self.link_mut(old) {
            link.end(LinkError::Replaced, now.time);
            self.mark_dirty(old);
        }
    }

    /// Marks the link of each neighbour dirty, and the connection of each follower (an operator
    /// that follows the changes). So these connections are flushed in this turn.
    pub(super) fn mark_links_dirty(&mut self) {
        for neighbour in self.herd.ids() {
            if let Some(link) = self.herd.get(neighbour).link() {
                self.mark_dirty(link);
            }
        }
        for place in 0..self.herd.followers().len() {
            self.mark_dirty(self.herd.followers()[place]);
        }
    }

    /// Begins a new life of this server (see [`Node::boot`]). The reason: a neighbour has received
    /// a change from this server that this server does not have, so this server's data was rolled
    /// back to an older copy. Every link ends, so that each neighbour links again and learns the
    /// new life's id.
    pub(super) fn begin_life(&mut self, now: Now) {
        self.boot = BootId(self.entropy.next_u64());
        let last_seq = self.records.last_seq();
        if let Some(journal) = &mut self.journal {
            journal.durability().begin_life(self.boot, last_seq);
        }
        self.herd.begin_life();
        let ids: Vec<ConnId> = self.sessions.iter().map(|(id, _)| id).collect();
        for id in ids {
            // Links in the handshake end too: they may have sent the id of the old life.
            if let Some(link) = self.link_mut(id) {
                link.end(LinkError::RolledBack, now.time);
                self.mark_dirty(id);
            }
        }
        if let Some(journal) = &mut self.journal {
            for neighbour in self.herd.iter() {
                journal.schedule_journal_positions(neighbour, now);
            }
        }
    }

    /// Dials a neighbour again after a dialled connection was closed. If `plaintext_retry` is an
    /// address, dials this address at once, without TLS. Otherwise tries the next address. If no
    /// address is left, dials again after a wait.
    pub(super) fn dial_again(
        &mut self,
        neighbour: NeighbourId,
        plaintext_retry: Option<SocketAddr>,
        now: Now,
    ) {
        match (
            self.herd.get_mut(neighbour).take_addresses(),
            plaintext_retry,
        ) {
            (Some(mut addresses), Some(address)) => {
                addresses.push_front(address);
                self.dial_next_address(neighbour, addresses, now)
            }
            (Some(addresses), None) if !addresses.is_empty() => {
                self.dial_next_address(neighbour, addresses, now)
            }
            (Some(_) | None, _) => self.schedule_dial(neighbour, now),
        }
    }
}
