//! What a [`Node`] does for its links: dialling, one link for each neighbour, dialling again.

use std::collections::VecDeque;
use std::net::SocketAddr;

use log::{debug, warn};

use super::journaling::Journal;
use super::{ConnId, Node, Phase, Request, Session, Slot, Timer};
use crate::core::base::boot_id::BootId;
use crate::core::base::clock::Now;
use crate::core::base::limits::count;
use crate::core::base::settings::{HostPort, NeighbourTls, TlsMode};
use crate::core::link::{Context, Link, ROLLED_BACK};
use crate::core::session::admission::origin;
use crate::core::session::herd::tls_offer::Ending;
use crate::core::session::herd::{NeighbourId, News};
use crate::core::session::resolver::Resolution;
use crate::core::session::tls::{HANDSHAKE, Tls, TlsSession};

impl Node {
    /// If there are too many unproven peers already, one of them is closed: one from the same
    /// address, or else any. So they keep no neighbour out that comes from elsewhere, and hardly
    /// one from among them, be they many and silent or many and fast.
    pub(super) fn neighbour_connected(&mut self, address: SocketAddr, now: Now) -> Option<ConnId> {
        if self.phase != Phase::Running {
            return None;
        }
        let sessions = &self.sessions;
        let is_unproven = |id: &ConnId| match sessions.get(*id).map(|slot| &slot.session) {
            Some(Session::Link(link)) => !link.is_known(),
            Some(Session::Client(_) | Session::Proxied(_) | Session::Exchange(_)) | None => false,
        };
        self.unproven.retain(is_unproven);
        if self.unproven.len() >= count(self.settings.limits.max_unproven) {
            let leaving = self.unproven_to_close(address);
            self.unproven.retain(|&id| id != leaving);
            if let Some(Session::Link(link)) = self.session(leaving) {
                let reason = "as many as limits.max_unproven were there, and its place was needed";
                link.cut(reason.to_owned(), now.time);
            }
            self.mark_dirty(leaving);
        }
        let secure = match &self.settings.tls.neighbours {
            None => None,
            Some(tls) if tls.mode == TlsMode::Offered => None, // its first byte tells
            Some(tls) => match Tls::server(tls.accepting.clone()) {
                Ok(tls) => Some(TlsSession::new(tls)),
                Err(error) => {
                    warn!("unproven peer {address}: refused: {error}");
                    return None;
                }
            },
        };
        let nonce = self.entropy.bytes();
        let session = |id| Session::Link(Box::new(Link::accept(id, address, nonce, now.time)));
        let id = self.admit(secure, session);
        self.unproven.push(id);
        Some(id)
    }

    /// The unproven link that is closed to make room for `newcomer`. There is at least one.
    fn unproven_to_close(&mut self, newcomer: SocketAddr) -> ConnId {
        let is_near = |id: &&ConnId| match self.sessions.get(**id).map(|slot| &slot.session) {
            Some(Session::Link(link)) => origin(link.address().ip()) == origin(newcomer.ip()),
            Some(Session::Client(_) | Session::Proxied(_) | Session::Exchange(_)) | None => false,
        };
        let near: Vec<ConnId> = self.unproven.iter().filter(is_near).copied().collect();
        let candidates = if near.is_empty() {
            &self.unproven
        } else {
            &near
        };
        debug_assert!(!candidates.is_empty(), "called only where one is there");
        let place = self.entropy.number() % candidates.len() as u64;
        candidates[place as usize]
    }

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
            Resolution::Known(addresses) => self.try_next(neighbour, addresses.into(), now),
            Resolution::Pending => self.herd.get_mut(neighbour).look_up(),
            Resolution::Failed(reason) => {
                let entry = self.herd.get_mut(neighbour);
                let news = entry.not_linked(&reason, now.time);
                if news != News::Known {
                    warn!(
                        "neighbour {} {target}: not linked: {reason}; trying on{news}",
                        entry.name()
                    );
                }
                self.dial_later(neighbour, now);
            }
        }
    }

    /// Where `target` is. Begins a look-up if one is needed.
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

    fn try_next(&mut self, neighbour: NeighbourId, mut addresses: VecDeque<SocketAddr>, now: Now) {
        let Some(address) = addresses.pop_front() else {
            return self.dial_later(neighbour, now);
        };
        self.herd.get_mut(neighbour).try_address(addresses);
        let nonce = self.entropy.bytes();
        let session = |id| {
            Session::Link(Box::new(Link::dial(
                id, neighbour, address, nonce, now.time,
            )))
        };
        let id = self.admit(None, session);
        self.requests.push_back(Request::Connect { id, address });
    }

    fn dial_later(&mut self, neighbour: NeighbourId, now: Now) {
        let random = self.entropy.number();
        let entry = self.herd.get_mut(neighbour);
        let wait = entry.dial_later(random, now.time);
        debug!(
            "neighbour {}: dialling again in {} ms",
            entry.name(),
            wait.as_millis()
        );
        self.deadlines
            .call_at(now.time + wait, Timer::Redial(neighbour));
    }

    pub(super) fn redial_due(&mut self, neighbour: NeighbourId, now: Now) {
        if self.herd.get(neighbour).is_dial_due(now.time) && self.phase == Phase::Running {
            self.dial(neighbour, now);
        }
    }

    /// A look-up ended, or took too long: neighbours that wait for one are dialled, or wait again.
    pub(super) fn dial_resolved(&mut self, now: Now) {
        for neighbour in self.herd.ids() {
            if self.herd.get(neighbour).is_looked_up() && self.phase == Phase::Running {
                self.dial(neighbour, now);
            }
        }
    }

    /// The socket that we dialled with is connected. With TLS, the handshake begins now.
    pub(super) fn link_reached(&mut self, id: ConnId, now: Now) {
        if let Some(Slot {
            session: Session::Link(link),
            ..
        }) = self.sessions.get(id)
            && let Some(neighbour) = link.neighbour()
        {
            let host = &self.herd.get(neighbour).target().host;
            self.resolver.worked(host, link.address().ip(), now.time);
        }
        let Some(tls) = &self.settings.tls.neighbours else {
            return self.link_connected(id, now);
        };
        let Some(slot) = self.sessions.get_mut(id) else {
            return;
        };
        if let Session::Link(link) = &mut slot.session
            && let Some(neighbour) = link.neighbour()
        {
            let neighbour = self.herd.get(neighbour);
            if tls.mode == TlsMode::Offered && neighbour.is_plain_next() {
                return self.link_connected(id, now);
            }
            match Tls::client(tls.dialling.clone(), neighbour.name()) {
                Ok(tls) => slot.secure = Some(Box::new(TlsSession::new(tls))),
                Err(error) => link.end(error.reason, now.time),
            }
        }
    }

    /// It is known who is there, as far as TLS knows.
    pub(super) fn link_connected(&mut self, id: ConnId, now: Now) {
        if let Some(Session::Link(link)) = self.sessions.get_mut(id).map(|slot| &mut slot.session) {
            link.connection_made(&self.settings.name, &self.herd, now.time);
        }
    }

    pub(super) fn link_sent(&mut self, id: ConnId, data: &[u8], now: Now) {
        if data.first() == Some(&HANDSHAKE) && self.takes_offer(id, now) {
            return self.ciphertext_received(id, data, now);
        }
        self.with_link(id, now, |link, context| link.data_received(data, context));
    }

    /// The first byte of a connection to the neighbours' port begins a handshake: if TLS is offered
    /// there, this is a connection over TLS from here on. Returns whether it is.
    fn takes_offer(&mut self, id: ConnId, now: Now) -> bool {
        let Some(NeighbourTls {
            mode: TlsMode::Offered,
            accepting,
            ..
        }) = &self.settings.tls.neighbours
        else {
            return false;
        };
        let Some(Slot {
            session: Session::Link(link),
            secure: secure @ None,
            ..
        }) = self.sessions.get_mut(id)
        else {
            return false;
        };
        if !link.awaits_first_byte() {
            return false;
        }
        match Tls::server(accepting.clone()) {
            Ok(tls) => *secure = Some(Box::new(TlsSession::new(tls))),
            Err(error) => {
                link.end(error.reason, now.time);
                return false;
            }
        }
        true
    }

    /// The journal has room for what it wants to say.
    pub(super) fn link_has_room(&mut self, id: ConnId, now: Now) {
        self.with_link(id, now, Link::go_on);
    }

    fn with_link(&mut self, id: ConnId, now: Now, act: impl FnOnce(&mut Link, &mut Context<'_>)) {
        let Some(Slot {
            session: Session::Link(link),
            secure,
            ..
        }) = self.sessions.get_mut(id)
        else {
            return;
        };
        let lacks = self.herd.lacks();
        act(
            link,
            &mut Context {
                records: &mut self.records,
                herd: &mut self.herd,
                tally: &self.tally,
                durability: self.journal.as_mut().map(Journal::durability),
                is_stopping: self.phase != Phase::Running,
                clients: self.admission.clients(),
                settings: &self.settings,
                certificate: secure.as_deref().and_then(TlsSession::certificate),
                boot: self.boot,
                now,
            },
        );
        let (replaced, neighbour) = (link.take_replaced(), link.neighbour());
        let is_rollback = link.take_rollback();
        // A neighbour that proves itself anew was cut off without our noticing: its old link is
        // dead.
        if let Some(replaced) = replaced
            && let Some(Session::Link(old)) = self.session(replaced)
        {
            old.end("a newer connection took its place".to_owned(), now.time);
            self.mark_dirty(replaced);
        }
        if self.herd.lacks() != lacks {
            self.mark_links_dirty(); // they are told
        }
        if is_rollback {
            self.begin_life(now);
        }
        if let Some(neighbour) = neighbour {
            self.note_heard_soon(neighbour, now);
        }
    }

    /// Has all links looked at before the turn ends.
    pub(super) fn mark_links_dirty(&mut self) {
        for neighbour in self.herd.ids() {
            if let Some(link) = self.herd.get(neighbour).link() {
                self.mark_dirty(link);
            }
        }
    }

    /// Our history was rolled back: from here on, it is another one. Every neighbour is met anew.
    fn begin_life(&mut self, now: Now) {
        self.boot = BootId(self.entropy.number());
        let last_seq = self.records.last_seq();
        if let Some(journal) = &mut self.journal {
            journal.durability().begin_life(self.boot, last_seq);
        }
        self.herd.begin_life();
        let ids: Vec<ConnId> = self.sessions.iter().map(|(id, _)| id).collect();
        for id in ids {
            // One that dials now may have been told of the life that is over.
            if let Some(Session::Link(link)) = self.session(id) {
                link.end(ROLLED_BACK.to_owned(), now.time);
                self.mark_dirty(id);
            }
        }
        for neighbour in self.herd.ids() {
            self.note_heard_soon(neighbour, now);
        }
    }

    /// A link's connection is gone; `secure` is the TLS that was on it.
    pub(super) fn link_lost(
        &mut self,
        link: Link,
        secure: Option<&TlsSession>,
        why: Option<&str>,
        now: Now,
    ) {
        let dialled = if link.is_dialled() {
            link.neighbour()
        } else {
            None
        };
        let is_plain_next = dialled.is_some_and(|neighbour| {
            let ending = match secure {
                Some(_) if link.is_greeted() => Ending::Other, // TLS works
                Some(secure) if secure.has_spoken() => Ending::TlsRefused,
                Some(_) => Ending::TlsUnanswered,
                None => Ending::Other,
            };
            let entry = self.herd.get_mut(neighbour);
            entry.attempt_ended(ending);
            let tls = self.settings.tls.neighbours.as_ref();
            let is_offered = tls.is_some_and(|tls| tls.mode == TlsMode::Offered);
            is_offered && entry.is_plain_next() && self.phase == Phase::Running
        });
        let address = link.address();
        link.connection_lost(
            why,
            is_plain_next,
            &mut Context {
                records: &mut self.records,
                herd: &mut self.herd,
                tally: &self.tally,
                durability: None,
                is_stopping: self.phase != Phase::Running,
                clients: self.admission.clients(),
                settings: &self.settings,
                certificate: None,
                boot: self.boot,
                now,
            },
        );
        let Some(neighbour) = dialled.filter(|_| self.phase == Phase::Running) else {
            return;
        };
        match self.herd.get_mut(neighbour).take_addresses() {
            Some(mut addresses) if is_plain_next => {
                addresses.push_front(address); // at once
                self.try_next(neighbour, addresses, now)
            }
            Some(addresses) if !addresses.is_empty() => self.try_next(neighbour, addresses, now),
            Some(_) | None => self.dial_later(neighbour, now),
        }
    }
}
